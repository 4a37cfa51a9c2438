//! Numbers of the kernel's netlink interface that this crate uses, under the kernel's own names.
//!
//! They are written out here and not taken from the headers of the machine that compiles, because those may be older
//! than the kernel that runs (`NFT_TABLE_F_PERSIST` came with 6.9). A test holds those that the headers do have
//! against them.

/// Attribute types, 16 bits as on the wire. Grouped by the message or attribute that holds them.
pub(crate) mod attribute {
    pub(crate) const NESTED: u16 = 0x8000;
    /// Without the bits `NESTED` and "network byte order".
    pub(crate) const TYPE_MASK: u16 = 0x3fff;

    pub(crate) const BATCH_GENID: u16 = 1;
    pub(crate) const GEN_ID: u16 = 1;

    pub(crate) const TABLE_NAME: u16 = 1;
    pub(crate) const TABLE_FLAGS: u16 = 2;
    pub(crate) const TABLE_USE: u16 = 3;
    pub(crate) const TABLE_HANDLE: u16 = 4;
    pub(crate) const TABLE_PAD: u16 = 5;
    pub(crate) const TABLE_USERDATA: u16 = 6;
    pub(crate) const TABLE_OWNER: u16 = 7;

    pub(crate) const CHAIN_TABLE: u16 = 1;
    pub(crate) const CHAIN_HANDLE: u16 = 2;
    pub(crate) const CHAIN_NAME: u16 = 3;
    pub(crate) const CHAIN_HOOK: u16 = 4;
    pub(crate) const CHAIN_POLICY: u16 = 5;
    pub(crate) const CHAIN_USE: u16 = 6;
    pub(crate) const CHAIN_TYPE: u16 = 7;
    pub(crate) const CHAIN_PAD: u16 = 9;
    pub(crate) const CHAIN_FLAGS: u16 = 10;

    pub(crate) const HOOK_HOOKNUM: u16 = 1;
    pub(crate) const HOOK_PRIORITY: u16 = 2;
    pub(crate) const HOOK_DEV: u16 = 3;
    pub(crate) const HOOK_DEVS: u16 = 4;
    pub(crate) const DEVICE_NAME: u16 = 1;

    pub(crate) const RULE_TABLE: u16 = 1;
    pub(crate) const RULE_CHAIN: u16 = 2;
    pub(crate) const RULE_HANDLE: u16 = 3;
    pub(crate) const RULE_EXPRESSIONS: u16 = 4;
    pub(crate) const RULE_POSITION: u16 = 6;
    pub(crate) const RULE_PAD: u16 = 8;

    pub(crate) const LIST_ELEM: u16 = 1;
    pub(crate) const EXPR_NAME: u16 = 1;
    pub(crate) const EXPR_DATA: u16 = 2;
    pub(crate) const DATA_VALUE: u16 = 1;
    pub(crate) const DATA_VERDICT: u16 = 2;
    pub(crate) const VERDICT_CODE: u16 = 1;
    pub(crate) const VERDICT_CHAIN: u16 = 2;

    pub(crate) const META_DREG: u16 = 1;
    pub(crate) const META_KEY: u16 = 2;
    pub(crate) const CT_DREG: u16 = 1;
    pub(crate) const CT_KEY: u16 = 2;
    pub(crate) const CT_DIRECTION: u16 = 3;
    pub(crate) const PAYLOAD_DREG: u16 = 1;
    pub(crate) const PAYLOAD_BASE: u16 = 2;
    pub(crate) const PAYLOAD_OFFSET: u16 = 3;
    pub(crate) const PAYLOAD_LEN: u16 = 4;
    pub(crate) const CMP_SREG: u16 = 1;
    pub(crate) const CMP_OP: u16 = 2;
    pub(crate) const CMP_DATA: u16 = 3;
    pub(crate) const BITWISE_SREG: u16 = 1;
    pub(crate) const BITWISE_DREG: u16 = 2;
    pub(crate) const BITWISE_LEN: u16 = 3;
    pub(crate) const BITWISE_MASK: u16 = 4;
    pub(crate) const BITWISE_XOR: u16 = 5;
    pub(crate) const BITWISE_OP: u16 = 6;
    pub(crate) const LOOKUP_SET: u16 = 1;
    pub(crate) const LOOKUP_SREG: u16 = 2;
    pub(crate) const LOOKUP_FLAGS: u16 = 5;
    pub(crate) const IMMEDIATE_DREG: u16 = 1;
    pub(crate) const IMMEDIATE_DATA: u16 = 2;
    pub(crate) const OBJREF_IMM_TYPE: u16 = 1;
    pub(crate) const OBJREF_IMM_NAME: u16 = 2;
    pub(crate) const FIB_DREG: u16 = 1;
    pub(crate) const FIB_RESULT: u16 = 2;
    pub(crate) const FIB_FLAGS: u16 = 3;

    pub(crate) const SET_TABLE: u16 = 1;
    pub(crate) const SET_NAME: u16 = 2;
    pub(crate) const SET_FLAGS: u16 = 3;
    pub(crate) const SET_KEY_TYPE: u16 = 4;
    pub(crate) const SET_KEY_LEN: u16 = 5;
    pub(crate) const SET_DESC: u16 = 9;
    pub(crate) const SET_ID: u16 = 10;
    pub(crate) const SET_USERDATA: u16 = 13;
    pub(crate) const SET_PAD: u16 = 14;
    pub(crate) const SET_HANDLE: u16 = 16;
    /// Which data structure the kernel chose, and how many elements it holds: since 6.16, only told.
    pub(crate) const SET_TYPE: u16 = 19;
    pub(crate) const SET_COUNT: u16 = 20;

    pub(crate) const ELEM_LIST_TABLE: u16 = 1;
    pub(crate) const ELEM_LIST_SET: u16 = 2;
    pub(crate) const ELEM_LIST_ELEMENTS: u16 = 3;
    pub(crate) const SET_ELEM_KEY: u16 = 1;
    pub(crate) const SET_ELEM_FLAGS: u16 = 3;
    pub(crate) const SET_ELEM_USERDATA: u16 = 6;
    pub(crate) const SET_ELEM_PAD: u16 = 8;

    pub(crate) const OBJ_TABLE: u16 = 1;
    pub(crate) const OBJ_NAME: u16 = 2;
    pub(crate) const OBJ_TYPE: u16 = 3;
    pub(crate) const OBJ_DATA: u16 = 4;
    pub(crate) const OBJ_USE: u16 = 5;
    pub(crate) const OBJ_HANDLE: u16 = 6;
    pub(crate) const OBJ_PAD: u16 = 7;
    pub(crate) const COUNTER_BYTES: u16 = 1;
    pub(crate) const COUNTER_PACKETS: u16 = 2;

    pub(crate) const EXTACK_MSG: u16 = 1;

    pub(crate) const CTA_TUPLE_ORIG: u16 = 1;
    pub(crate) const CTA_TUPLE_REPLY: u16 = 2;
    pub(crate) const CTA_STATUS: u16 = 3;
    pub(crate) const CTA_PROTOINFO: u16 = 4;
    pub(crate) const CTA_TIMEOUT: u16 = 7;
    pub(crate) const CTA_TUPLE_IP: u16 = 1;
    pub(crate) const CTA_TUPLE_PROTO: u16 = 2;
    pub(crate) const CTA_IP_V4_SRC: u16 = 1;
    pub(crate) const CTA_IP_V4_DST: u16 = 2;
    pub(crate) const CTA_IP_V6_SRC: u16 = 3;
    pub(crate) const CTA_IP_V6_DST: u16 = 4;
    pub(crate) const CTA_PROTO_NUM: u16 = 1;
    pub(crate) const CTA_PROTO_SRC_PORT: u16 = 2;
    pub(crate) const CTA_PROTO_DST_PORT: u16 = 3;
    pub(crate) const CTA_PROTOINFO_TCP: u16 = 1;
    pub(crate) const CTA_PROTOINFO_TCP_STATE: u16 = 1;
    pub(crate) const CTA_PROTOINFO_TCP_FLAGS_ORIGINAL: u16 = 4;
    pub(crate) const CTA_PROTOINFO_TCP_FLAGS_REPLY: u16 = 5;

    pub(crate) const INET_DIAG_INFO: u16 = 2;
    pub(crate) const INET_DIAG_SKV6ONLY: u16 = 11;
}

/// Message types; those of nftables without the subsystem in the upper byte.
pub(crate) mod message {
    pub(crate) const ERROR: u16 = 2;
    pub(crate) const DONE: u16 = 3;
    pub(crate) const BATCH_BEGIN: u16 = 0x10;
    pub(crate) const BATCH_END: u16 = 0x11;
    pub(crate) const SUBSYSTEM: u16 = 10;

    pub(crate) const NEWTABLE: u16 = 0;
    pub(crate) const GETTABLE: u16 = 1;
    pub(crate) const NEWCHAIN: u16 = 3;
    pub(crate) const GETCHAIN: u16 = 4;
    pub(crate) const NEWRULE: u16 = 6;
    pub(crate) const GETRULE: u16 = 7;
    pub(crate) const DELRULE: u16 = 8;
    pub(crate) const NEWSET: u16 = 9;
    pub(crate) const GETSET: u16 = 10;
    pub(crate) const DELSET: u16 = 11;
    pub(crate) const NEWSETELEM: u16 = 12;
    pub(crate) const GETSETELEM: u16 = 13;
    pub(crate) const DELSETELEM: u16 = 14;
    pub(crate) const GETGEN: u16 = 16;
    pub(crate) const NEWOBJ: u16 = 18;
    pub(crate) const GETOBJ: u16 = 19;
    pub(crate) const DELOBJ: u16 = 20;

    /// With the subsystem of conntrack, 1, in the upper byte.
    pub(crate) const CT_NEW: u16 = 0x100;
    pub(crate) const CT_GET_STATS: u16 = 0x105;
    pub(crate) const SOCK_DIAG_BY_FAMILY: u16 = 20;
}

/// Flags in a message's header.
pub(crate) mod flag {
    pub(crate) const REQUEST: u16 = 0x1;
    pub(crate) const ACK: u16 = 0x4;
    pub(crate) const DUMP: u16 = 0x300;
    /// Not what exists.
    pub(crate) const EXCL: u16 = 0x200;
    pub(crate) const CREATE: u16 = 0x400;
    pub(crate) const APPEND: u16 = 0x800;
    /// In an answer to a dump: the tables changed while they were listed.
    pub(crate) const DUMP_INTR: u16 = 0x10;
    /// In an error: the refused message is not repeated in it.
    pub(crate) const CAPPED: u16 = 0x100;
    /// In an error: attributes with a text follow.
    pub(crate) const ACK_TLVS: u16 = 0x200;
}

/// Values of attributes.
pub(crate) mod value {
    pub(crate) const NFPROTO_INET: u8 = 1;
    pub(crate) const NFPROTO_IPV4: u8 = 2;
    pub(crate) const NFPROTO_NETDEV: u8 = 5;
    pub(crate) const NFPROTO_IPV6: u8 = 10;

    /// The table belongs to the socket that made it (5.12).
    pub(crate) const TABLE_F_OWNER: u32 = 2;
    /// The table outlives that socket (6.9).
    pub(crate) const TABLE_F_PERSIST: u32 = 4;
    pub(crate) const CHAIN_BASE: u32 = 1;

    pub(crate) const HOOK_INET_PREROUTING: u32 = 0;
    pub(crate) const HOOK_INET_OUTPUT: u32 = 3;
    pub(crate) const HOOK_INET_POSTROUTING: u32 = 4;
    pub(crate) const HOOK_NETDEV_EGRESS: u32 = 1;

    pub(crate) const DROP: u32 = 0;
    pub(crate) const ACCEPT: u32 = 1;
    /// -3 and -4 as 32 bits.
    pub(crate) const JUMP: u32 = 0xffff_fffd;
    pub(crate) const GOTO: u32 = 0xffff_fffc;

    pub(crate) const META_PROTOCOL: u32 = 1;
    pub(crate) const META_IIFNAME: u32 = 6;
    pub(crate) const META_OIFNAME: u32 = 7;
    pub(crate) const META_RTCLASSID: u32 = 13;
    pub(crate) const META_NFPROTO: u32 = 15;
    pub(crate) const META_L4PROTO: u32 = 16;

    pub(crate) const CT_STATE: u32 = 0;
    pub(crate) const CT_DIRECTION: u32 = 1;
    pub(crate) const CT_SRC_IP: u32 = 19;
    pub(crate) const CT_SRC_IP6: u32 = 21;
    /// Bit of `related` in `ct state`.
    pub(crate) const CT_STATE_RELATED: u32 = 4;
    /// Bit of `new`.
    pub(crate) const CT_STATE_NEW: u32 = 8;

    pub(crate) const PAYLOAD_NETWORK: u32 = 1;
    pub(crate) const PAYLOAD_TRANSPORT: u32 = 2;

    pub(crate) const CMP_EQ: u32 = 0;
    pub(crate) const CMP_NEQ: u32 = 1;
    pub(crate) const CMP_LTE: u32 = 3;
    pub(crate) const CMP_GTE: u32 = 5;

    pub(crate) const FIB_RESULT_ADDRTYPE: u32 = 3;
    pub(crate) const FIB_F_SADDR: u32 = 1;
    /// `local` as the type of an address.
    pub(crate) const RTN_LOCAL: u32 = 2;

    pub(crate) const OBJECT_COUNTER: u32 = 1;
    pub(crate) const SET_INTERVAL: u32 = 4;
    pub(crate) const SET_ELEM_INTERVAL_END: u32 = 1;

    /// Packets of both directions were seen.
    pub(crate) const IPS_SEEN_REPLY: u32 = 1 << 1;
    /// Not to be given up when the table is full.
    pub(crate) const IPS_ASSURED: u32 = 1 << 2;
    /// In the table: the kernel refuses entries without it.
    pub(crate) const IPS_CONFIRMED: u32 = 1 << 3;

    /// Conntrack's states of a TCP connection, from the kernel's `TCP_CONNTRACK_…`.
    pub(crate) const CT_TCP_SYN_SENT: u8 = 1;
    pub(crate) const CT_TCP_SYN_RECV: u8 = 2;
    pub(crate) const CT_TCP_ESTABLISHED: u8 = 3;
    pub(crate) const CT_TCP_FIN_WAIT: u8 = 4;
    pub(crate) const CT_TCP_CLOSE_WAIT: u8 = 5;
    pub(crate) const CT_TCP_LAST_ACK: u8 = 6;
    pub(crate) const IP_CT_TCP_FLAG_SACK_PERM: u8 = 0x02;
    pub(crate) const IP_CT_TCP_FLAG_BE_LIBERAL: u8 = 0x08;

    /// A socket's states.
    pub(crate) const TCP_ESTABLISHED: u8 = 1;
    pub(crate) const TCP_SYN_SENT: u8 = 2;
    pub(crate) const TCP_SYN_RECV: u8 = 3;
    pub(crate) const TCP_FIN_WAIT1: u8 = 4;
    pub(crate) const TCP_FIN_WAIT2: u8 = 5;
    pub(crate) const TCP_CLOSE: u8 = 7;
    pub(crate) const TCP_CLOSE_WAIT: u8 = 8;
    pub(crate) const TCP_LAST_ACK: u8 = 9;
    pub(crate) const TCP_LISTEN: u8 = 10;
    pub(crate) const TCP_CLOSING: u8 = 11;

    /// Data types of the `nft` program; the kernel keeps them without understanding them. In a concatenation each
    /// takes six bits.
    pub(crate) const TYPE_IPV4_ADDR: u32 = 7;
    pub(crate) const TYPE_IPV6_ADDR: u32 = 8;
    pub(crate) const TYPE_INET_PROTO: u32 = 12;
    pub(crate) const TYPE_INET_SERVICE: u32 = 13;
    pub(crate) const TYPE_BITS: u32 = 6;

    /// Registers: 1 to 4 are 16 bytes each, 8 to 23 the same memory as 4 bytes each; 0 takes the verdict.
    pub(crate) const REG_VERDICT: u32 = 0;
    pub(crate) const REG_1: u32 = 1;
    pub(crate) const REG_2: u32 = 2;
    pub(crate) const REG32_01: u32 = 9;
    pub(crate) const REG32_02: u32 = 10;
    pub(crate) const REG32_05: u32 = 13;
}

#[cfg(test)]
mod tests {
    use rustables::sys;

    use super::{attribute, message, value};

    #[test]
    fn the_headers_agree() {
        for (ours, theirs) in [
            (attribute::TABLE_USERDATA, sys::NFTA_TABLE_USERDATA),
            (attribute::TABLE_OWNER, sys::NFTA_TABLE_OWNER),
            (attribute::CHAIN_NAME, sys::NFTA_CHAIN_NAME),
            (attribute::CHAIN_FLAGS, sys::NFTA_CHAIN_FLAGS),
            (attribute::HOOK_DEV, sys::NFTA_HOOK_DEV),
            (attribute::HOOK_DEVS, sys::NFTA_HOOK_DEVS),
            (attribute::RULE_EXPRESSIONS, sys::NFTA_RULE_EXPRESSIONS),
            (attribute::META_KEY, sys::NFTA_META_KEY),
            (attribute::CT_DIRECTION, sys::NFTA_CT_DIRECTION),
            (attribute::PAYLOAD_LEN, sys::NFTA_PAYLOAD_LEN),
            (attribute::CMP_DATA, sys::NFTA_CMP_DATA),
            (attribute::BITWISE_XOR, sys::NFTA_BITWISE_XOR),
            (attribute::LOOKUP_SREG, sys::NFTA_LOOKUP_SREG),
            (attribute::LOOKUP_FLAGS, sys::NFTA_LOOKUP_FLAGS),
            (attribute::OBJREF_IMM_NAME, sys::NFTA_OBJREF_IMM_NAME),
            (attribute::FIB_FLAGS, sys::NFTA_FIB_FLAGS),
            (attribute::SET_ID, sys::NFTA_SET_ID),
            (attribute::SET_USERDATA, sys::NFTA_SET_USERDATA),
            (attribute::ELEM_LIST_ELEMENTS, sys::NFTA_SET_ELEM_LIST_ELEMENTS),
            (attribute::SET_ELEM_FLAGS, sys::NFTA_SET_ELEM_FLAGS),
            (attribute::OBJ_DATA, sys::NFTA_OBJ_DATA),
        ] {
            assert_eq!(u32::from(ours), u32::from(theirs));
        }
        for (ours, theirs) in [
            (message::NEWTABLE, sys::NFT_MSG_NEWTABLE),
            (message::NEWSETELEM, sys::NFT_MSG_NEWSETELEM),
            (message::GETGEN, sys::NFT_MSG_GETGEN),
            (message::GETOBJ, sys::NFT_MSG_GETOBJ),
            (message::DELOBJ, sys::NFT_MSG_DELOBJ),
        ] {
            assert_eq!(u32::from(ours), theirs);
        }
        for (ours, theirs) in [
            (value::TABLE_F_OWNER, sys::NFT_TABLE_F_OWNER),
            (value::META_RTCLASSID, sys::NFT_META_RTCLASSID),
            (value::META_L4PROTO, sys::NFT_META_L4PROTO),
            (value::CT_SRC_IP, sys::NFT_CT_SRC_IP),
            (value::CT_SRC_IP6, sys::NFT_CT_SRC_IP6),
            (value::CMP_GTE, sys::NFT_CMP_GTE),
            (value::CMP_LTE, sys::NFT_CMP_LTE),
            (value::FIB_RESULT_ADDRTYPE, sys::NFT_FIB_RESULT_ADDRTYPE),
            (value::REG32_05, sys::NFT_REG32_05),
            (value::SET_INTERVAL, sys::NFT_SET_INTERVAL),
        ] {
            assert_eq!(ours, theirs);
        }
    }
}
