//! Operations as one batch of netlink messages.
//!
//! The frame of a batch, tables, and the chains of table inet are rustables' work. What it cannot express (rules with
//! `ct direction`, sets, elements, counters, netdev chains) is written here, and put between its messages in the
//! order of the operations, before the end message. Three things of rustables' bytes are changed: sequence numbers
//! (so that an error names its operation), `NLM_F_ACK` (only the last operation asks for one, or a large batch
//! overruns the socket; what is refused is reported in any case), and the begin message gets the generation.
//!
//! A batch of elements alone is the hot path: no rustables, and no allocation once the buffers have grown.

use std::net::IpAddr;

use ringfence_model::{AddressRange, Family};
use ringfence_ruleset::{BaseChain, Element, Hook, Name, Op, SetKind, TableFamily};
use rustables::{Batch as Frame, Chain, ChainPolicy, ChainType, HookClass, MsgType, ProtocolFamily, Table};

use crate::error::Error;
use crate::rule::lower;
use crate::uapi::{attribute as a, flag, message as m, value as v};
use crate::wire::{HEADER, Messages, Writer, nftables};

/// Name of both tables.
pub(crate) const TABLE: &str = "ringfence";

/// Most elements in one message, counting the two ends of a range: with IPv6 services 36 kB, so that the list stays
/// below the 64 KiB that the length of an attribute can say.
const ELEMENTS_PER_MESSAGE: usize = 1_000;

/// Operations that a batch keeps memory for between transactions.
const KEPT: usize = 64;

/// How a batch is to be sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms<'a> {
    /// Name of the tables.
    pub(crate) table: &'a str,
    /// Sequence number of the begin message; the others follow.
    pub(crate) sequence: u32,
    /// Only if nobody has changed nftables in the namespace since this generation.
    pub(crate) generation: Option<u32>,
    /// Flags of a table that is made.
    pub(crate) flags: u32,
}

/// Buffers for one batch, kept between transactions.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    writer: Writer,
    /// For each message after the begin message, the position of its operation.
    operations: Vec<usize>,
    first: u32,
}

impl Batch {
    /// Empties it and gives back what a large batch took.
    pub(crate) fn clear(&mut self) {
        self.writer.clear();
        self.operations.clear();
        if self.operations.capacity() > KEPT {
            self.operations.shrink_to(KEPT);
        }
    }

    /// Replaces the contents by these operations.
    pub(crate) fn encode(&mut self, ops: &[Op], terms: &Terms<'_>) -> Result<(), Error> {
        self.clear();
        self.first = terms.sequence;
        if ops.iter().all(Op::is_elements) {
            self.begin(terms.generation);
            for (position, op) in ops.iter().enumerate() {
                self.operation(position, op, terms.table)?;
            }
        } else {
            self.encode_all(ops, terms)?;
        }
        self.writer.flag_last(flag::ACK);
        let sequence = self.next();
        self.writer
            .begin(m::BATCH_END, flag::REQUEST, sequence, 0, m::SUBSYSTEM);
        self.writer.end();
        self.bytes().map(|_| ())
    }

    /// The batch.
    pub(crate) fn bytes(&self) -> Result<&[u8], Error> {
        self.writer
            .bytes()
            .ok_or_else(|| Error::NotEncodable("a rule or name that is longer than 64 KiB".to_owned()))
    }

    /// Sequence number of the message that asks for an acknowledgement.
    pub(crate) fn last_sequence(&self) -> u32 {
        self.next().wrapping_sub(1)
    }

    /// Number of sequence numbers used, the end message included.
    pub(crate) fn sequences(&self) -> u32 {
        self.next().wrapping_sub(self.first).wrapping_add(1)
    }

    /// The position of the operation that a message belongs to; `None` for the frame.
    pub(crate) fn operation_of(&self, sequence: u32) -> Option<usize> {
        let index = sequence.wrapping_sub(self.first).checked_sub(1)?;
        self.operations.get(usize::try_from(index).ok()?).copied()
    }

    /// Sequence number of the next message.
    fn next(&self) -> u32 {
        let used = u32::try_from(self.operations.len()).unwrap_or(u32::MAX);
        self.first.wrapping_add(used).wrapping_add(1)
    }

    fn begin(&mut self, generation: Option<u32>) {
        self.writer
            .begin(m::BATCH_BEGIN, flag::REQUEST, self.first, 0, m::SUBSYSTEM);
        self.end_begin(generation);
    }

    fn end_begin(&mut self, generation: Option<u32>) {
        if let Some(generation) = generation {
            self.writer.be32(a::BATCH_GENID, generation);
        }
        self.writer.end();
    }

    /// A batch with tables or chains: rustables' messages first, then those of this module between them.
    fn encode_all(&mut self, ops: &[Op], terms: &Terms<'_>) -> Result<(), Error> {
        let mut frame = Frame::new();
        for (position, op) in ops.iter().enumerate() {
            add_to_frame(&mut frame, op, &ops[position + 1..], terms);
        }
        let bytes = frame.finalize();
        let malformed = || Error::NotEncodable("a frame that rustables made".to_owned());
        let mut messages = Vec::new();
        let mut rest: &[u8] = &bytes;
        for message in Messages(&bytes) {
            let (message, after) =
                rest.split_at(HEADER + message.map_err(|_| malformed())?.payload.len().next_multiple_of(4));
            messages.push(message);
            rest = after;
        }
        // The last one is the end message, which `encode` writes.
        let mut messages = messages.split_last().ok_or_else(malformed)?.1.iter();
        let begin = messages.next().ok_or_else(malformed)?;
        self.writer.copy(begin, flag::REQUEST, self.first);
        self.end_begin(terms.generation);
        for (position, op) in ops.iter().enumerate() {
            if in_frame(op) {
                let message = messages.next().ok_or_else(malformed)?;
                let create = match op {
                    Op::AddTable { .. } | Op::AddChain { .. } => flag::CREATE,
                    _ => 0,
                };
                let sequence = self.sequence_for(position);
                self.writer.copy(message, flag::REQUEST | create, sequence);
            } else {
                self.operation(position, op, terms.table)?;
            }
        }
        Ok(())
    }

    /// Takes the next sequence number for a message of this operation.
    fn sequence_for(&mut self, position: usize) -> u32 {
        let sequence = self.next();
        self.operations.push(position);
        sequence
    }

    fn open(&mut self, position: usize, kind: u16, flags: u16, family: TableFamily) {
        let sequence = self.sequence_for(position);
        self.writer
            .begin(nftables(kind), flag::REQUEST | flags, sequence, nfproto(family), 0);
    }

    fn operation(&mut self, position: usize, op: &Op, table: &str) -> Result<(), Error> {
        let (kind, flags) = match op {
            Op::AddCounter { .. } => (m::NEWOBJ, flag::CREATE),
            Op::DelCounter { .. } => (m::DELOBJ, 0),
            Op::AddSet { .. } => (m::NEWSET, flag::CREATE),
            Op::DelSet { .. } => (m::DELSET, 0),
            Op::AddChain { .. } => (m::NEWCHAIN, flag::CREATE),
            Op::FlushChain { .. } => (m::DELRULE, 0),
            Op::AddRule { .. } => (m::NEWRULE, flag::CREATE | flag::APPEND),
            Op::AddElements {
                family,
                set,
                kind,
                elements,
            } => return self.elements(position, m::NEWSETELEM, *family, table, set, *kind, elements),
            Op::DelElements {
                family,
                set,
                kind,
                elements,
            } => return self.elements(position, m::DELSETELEM, *family, table, set, *kind, elements),
            Op::AddTable { .. } | Op::DelTable { .. } | Op::DelChain { .. } => {
                return Err(Error::NotEncodable(format!("{op} outside of the frame")));
            }
        };
        self.open(position, kind, flags, op.family());
        let writer = &mut self.writer;
        match op {
            Op::AddCounter { name, .. } => write_counter(writer, table, name),
            Op::DelCounter { name, .. } => {
                writer.text(a::OBJ_TABLE, table);
                writer.text(a::OBJ_NAME, name.as_str());
                writer.be32(a::OBJ_TYPE, v::OBJECT_COUNTER);
            }
            Op::AddSet { name, kind, .. } => {
                // Any number that is unique within the batch.
                let id = u32::try_from(position).unwrap_or(u32::MAX).saturating_add(1);
                write_set(writer, table, name, *kind, id);
            }
            Op::DelSet { name, .. } => {
                writer.text(a::SET_TABLE, table);
                writer.text(a::SET_NAME, name.as_str());
            }
            Op::AddChain { name, base, .. } => write_chain(writer, table, name, base.as_ref()),
            // Deleting rules of a chain without saying which flushes it.
            Op::FlushChain { name, .. } => {
                writer.text(a::RULE_TABLE, table);
                writer.text(a::RULE_CHAIN, name.as_str());
            }
            Op::AddRule { chain, rule, family } => {
                writer.text(a::RULE_TABLE, table);
                writer.text(a::RULE_CHAIN, chain.as_str());
                writer.nest(a::RULE_EXPRESSIONS, |writer| {
                    for expression in lower(*family, rule) {
                        expression.write(writer);
                    }
                });
            }
            _ => {}
        }
        self.writer.end();
        Ok(())
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the fields of the operation, taken apart once for both directions"
    )]
    fn elements(
        &mut self,
        position: usize,
        message: u16,
        family: TableFamily,
        table: &str,
        set: &Name,
        kind: SetKind,
        elements: &[Element],
    ) -> Result<(), Error> {
        if let Some(misfit) = elements.iter().find(|element| !kind.fits(element)) {
            return Err(Error::NotEncodable(format!("element {misfit} of set {set} of {kind}")));
        }
        let per_message = ELEMENTS_PER_MESSAGE / if kind.is_interval() { 2 } else { 1 };
        let flags = if message == m::NEWSETELEM { flag::CREATE } else { 0 };
        for part in elements.chunks(per_message) {
            self.open(position, message, flags, family);
            self.writer.text(a::ELEM_LIST_TABLE, table);
            self.writer.text(a::ELEM_LIST_SET, set.as_str());
            let list = self.writer.open(a::ELEM_LIST_ELEMENTS);
            for element in part {
                write_element(&mut self.writer, *element);
            }
            self.writer.close(list);
            self.writer.end();
        }
        Ok(())
    }
}

/// Number of a table's family.
pub(crate) fn nfproto(family: TableFamily) -> u8 {
    match family {
        TableFamily::Inet => v::NFPROTO_INET,
        TableFamily::Netdev => v::NFPROTO_NETDEV,
    }
}

/// Comment of a table as the kernel gets it: what may stand between quotes, at most 120 characters, as in the text.
pub(crate) fn comment(text: &str) -> String {
    text.chars()
        .take(120)
        .map(|c| {
            if (c == ' ' || c.is_ascii_graphic()) && c != '"' {
                c
            } else {
                '_'
            }
        })
        .collect()
}

/// Whether rustables expresses it.
fn in_frame(op: &Op) -> bool {
    match op {
        Op::AddTable { .. } | Op::DelTable { .. } | Op::DelChain { .. } => true,
        Op::AddChain { base, .. } => base.as_ref().is_none_or(|base| inet_hook(base).is_some()),
        _ => false,
    }
}

/// The hook for rustables, if it has it.
fn inet_hook(base: &BaseChain) -> Option<rustables::Hook> {
    let class = match base.hook {
        Hook::Prerouting => HookClass::PreRouting,
        Hook::Output => HookClass::Out,
        Hook::Postrouting => HookClass::PostRouting,
        Hook::Egress(_) => return None,
    };
    Some(rustables::Hook::new(class, base.priority))
}

fn add_to_frame(frame: &mut Frame, op: &Op, later: &[Op], terms: &Terms<'_>) {
    let family = match op.family() {
        TableFamily::Inet => ProtocolFamily::Inet,
        TableFamily::Netdev => ProtocolFamily::NetDev,
    };
    let table = Table::new(family).with_name(terms.table);
    match op {
        Op::AddTable { comment, family } => {
            let mut table = table;
            // A table that is only added so that it can be deleted (`replacement`) gets no flags: the kernel refuses
            // to change those of a table that exists, and this must not fail whatever exists.
            let goes = |op: &Op| matches!(op, Op::DelTable { family: gone } if gone == family);
            if !later.iter().any(goes) {
                table.set_flags(terms.flags);
                if !comment.is_empty() {
                    table.set_userdata(comment_userdata(comment));
                }
            }
            frame.add(&table, MsgType::Add);
        }
        Op::DelTable { .. } => frame.add(&table, MsgType::Del),
        Op::AddChain { name, base, .. } => {
            let mut chain = Chain::new(&table).with_name(name.as_str());
            if let Some(base) = base {
                let Some(hook) = inet_hook(base) else { return };
                chain.set_hook(hook);
                chain.set_type(ChainType::Filter);
                chain.set_policy(ChainPolicy::Accept);
            }
            frame.add(&chain, MsgType::Add);
        }
        Op::DelChain { name, .. } => frame.add(&Chain::new(&table).with_name(name.as_str()), MsgType::Del),
        _ => {}
    }
}

/// nft's own format within the kernel's opaque bytes: type 0 (comment), length, text with a 0 after it.
fn comment_userdata(text: &str) -> Vec<u8> {
    let text = comment(text);
    // At most 120 characters of ASCII.
    let length = u8::try_from(text.len() + 1).unwrap_or(u8::MAX);
    let mut bytes = vec![0, length];
    bytes.extend_from_slice(text.as_bytes());
    bytes.push(0);
    bytes
}

fn write_chain(writer: &mut Writer, table: &str, name: &Name, base: Option<&BaseChain>) {
    writer.text(a::CHAIN_TABLE, table);
    writer.text(a::CHAIN_NAME, name.as_str());
    let Some(base) = base else { return };
    let (number, device) = match &base.hook {
        Hook::Prerouting => (v::HOOK_INET_PREROUTING, None),
        Hook::Output => (v::HOOK_INET_OUTPUT, None),
        Hook::Postrouting => (v::HOOK_INET_POSTROUTING, None),
        Hook::Egress(device) => (v::HOOK_NETDEV_EGRESS, Some(device)),
    };
    writer.text(a::CHAIN_TYPE, "filter");
    writer.be32(a::CHAIN_POLICY, v::ACCEPT);
    writer.nest(a::CHAIN_HOOK, |writer| {
        writer.be32(a::HOOK_HOOKNUM, number);
        writer.bytes_attribute(a::HOOK_PRIORITY, &base.priority.to_be_bytes());
        if let Some(device) = device {
            writer.text(a::HOOK_DEV, device.as_str());
        }
    });
}

fn write_counter(writer: &mut Writer, table: &str, name: &Name) {
    writer.text(a::OBJ_TABLE, table);
    writer.text(a::OBJ_NAME, name.as_str());
    writer.be32(a::OBJ_TYPE, v::OBJECT_COUNTER);
    writer.nest(a::OBJ_DATA, |writer| {
        writer.bytes_attribute(a::COUNTER_BYTES, &[0; 8]);
        writer.bytes_attribute(a::COUNTER_PACKETS, &[0; 8]);
    });
}

fn write_set(writer: &mut Writer, table: &str, name: &Name, kind: SetKind, id: u32) {
    writer.text(a::SET_TABLE, table);
    writer.text(a::SET_NAME, name.as_str());
    writer.be32(a::SET_FLAGS, set_flags(kind));
    let (key_type, key_length) = set_key(kind);
    writer.be32(a::SET_KEY_TYPE, key_type);
    writer.be32(a::SET_KEY_LEN, key_length);
    writer.be32(a::SET_ID, id);
    // nft's own: type 0 (byte order of the key), 4 bytes in host order. 2 is network order; a concatenation has none.
    let order: u32 = match kind {
        SetKind::Services(_) | SetKind::Ports => 0,
        SetKind::Addresses(_) | SetKind::Ranges(_) => 2,
    };
    let mut userdata = [0, 4, 0, 0, 0, 0];
    userdata[2..].copy_from_slice(&order.to_ne_bytes());
    writer.bytes_attribute(a::SET_USERDATA, &userdata);
}

/// `flags interval` for ranges.
pub(crate) fn set_flags(kind: SetKind) -> u32 {
    if kind.is_interval() { v::SET_INTERVAL } else { 0 }
}

/// Type and length in bytes of a set's key; each part of a concatenation fills 4 bytes or a multiple.
pub(crate) fn set_key(kind: SetKind) -> (u32, u32) {
    let (address_type, address_length) = match kind {
        SetKind::Services(Family::V4) | SetKind::Addresses(Family::V4) | SetKind::Ranges(Family::V4) => {
            (v::TYPE_IPV4_ADDR, 4)
        }
        SetKind::Services(Family::V6) | SetKind::Addresses(Family::V6) | SetKind::Ranges(Family::V6) => {
            (v::TYPE_IPV6_ADDR, 16)
        }
        SetKind::Ports => (0, 0),
    };
    match kind {
        SetKind::Services(_) | SetKind::Ports => {
            let with_protocol = address_type << v::TYPE_BITS | v::TYPE_INET_PROTO;
            (with_protocol << v::TYPE_BITS | v::TYPE_INET_SERVICE, address_length + 8)
        }
        SetKind::Addresses(_) | SetKind::Ranges(_) => (address_type, address_length),
    }
}

fn write_element(writer: &mut Writer, element: Element) {
    match element {
        Element::Address(IpAddr::V4(address)) => write_key(writer, 0, &address.octets()),
        Element::Address(IpAddr::V6(address)) => write_key(writer, 0, &address.octets()),
        Element::Service(IpAddr::V4(address), protocol, port) => {
            let mut key = [0; 12];
            key[..4].copy_from_slice(&address.octets());
            key[4] = protocol.number();
            key[8..10].copy_from_slice(&port.to_be_bytes());
            write_key(writer, 0, &key);
        }
        Element::Service(IpAddr::V6(address), protocol, port) => {
            let mut key = [0; 24];
            key[..16].copy_from_slice(&address.octets());
            key[16] = protocol.number();
            key[20..22].copy_from_slice(&port.to_be_bytes());
            write_key(writer, 0, &key);
        }
        Element::Port(protocol, port) => {
            let [high, low] = port.to_be_bytes();
            write_key(writer, 0, &[protocol.number(), 0, 0, 0, high, low, 0, 0]);
        }
        Element::Range(range) => write_range(writer, range),
    }
}

/// Two elements: the first address, and the one after the last, marked as an end. A range up to the last address of
/// its family has no end. The kernel wants both in the same batch (and newer ones next to each other).
fn write_range(writer: &mut Writer, range: AddressRange) {
    match (range.first(), range.last()) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            write_key(writer, 0, &first.octets());
            if let Some(end) = last.to_bits().checked_add(1) {
                write_key(writer, v::SET_ELEM_INTERVAL_END, &end.to_be_bytes());
            }
        }
        (IpAddr::V6(first), IpAddr::V6(last)) => {
            write_key(writer, 0, &first.octets());
            if let Some(end) = last.to_bits().checked_add(1) {
                write_key(writer, v::SET_ELEM_INTERVAL_END, &end.to_be_bytes());
            }
        }
        // `AddressRange` has both ends in one family.
        _ => {}
    }
}

fn write_key(writer: &mut Writer, flags: u32, key: &[u8]) {
    let element = writer.open(a::LIST_ELEM);
    if flags != 0 {
        writer.be32(a::SET_ELEM_FLAGS, flags);
    }
    let nested = writer.open(a::SET_ELEM_KEY);
    writer.bytes_attribute(a::DATA_VALUE, key);
    writer.close(nested);
    writer.close(element);
}
