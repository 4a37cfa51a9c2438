//! The data: tables, counters, sets, chains, rules. A closed vocabulary: what these types cannot say, Ringfence does
//! not need, and neither the encoder nor the tracer has to guess at.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use imbl::OrdSet;
use ringfence_model::{AddressRange, Family, InterfaceName, PortRange, Protocol};

use crate::Shared;

/// What a kernel can do beyond the oldest supported one; probed once by the netlink crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelFeatures {
    /// Table flags `owner` and `persist` (kernel 6.9): other root processes of the pod can neither flush nor edit.
    pub owner_persist: bool,
    /// `netdev` chains on the egress hook (5.16) and `meta rtclassid` in them (CONFIG_IP_ROUTE_CLASSID).
    pub egress_backstop: bool,
    /// `fib saddr type` in an inet chain (CONFIG_NFT_FIB_INET).
    pub fib: bool,
}

impl KernelFeatures {
    /// Everything that Ringfence can make use of.
    pub const ALL: Self = Self {
        owner_persist: true,
        egress_backstop: true,
        fib: true,
    };
}

/// Name of a chain, set or counter: an nft identifier, at most 128 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// Takes a text that the compiler has made from identifiers. Any other character becomes `_`, and what is longer
    /// than 128 bytes is cut, so that no text whatever breaks out of an nft listing.
    pub fn new(text: &str) -> Self {
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
        if text.len() <= 128 && text.bytes().all(valid) && text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic())
        {
            return Self(text.into());
        }
        let body: String = text
            .bytes()
            .take(127)
            .map(|byte| if valid(byte) { char::from(byte) } else { '_' })
            .collect();
        Self(
            if body.starts_with(|c: char| c.is_ascii_alphabetic()) {
                body
            } else {
                format!("x{body}")
            }
            .into(),
        )
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Everything that Ringfence has in one pod's network namespace: table `inet ringfence`, and table
/// `netdev ringfence` where an interface has a backstop.
///
/// Cloning shares the elements of the sets, the counters and the chains; changing a clone copies only the touched parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    /// The comment of both tables, at most 120 printable ASCII characters without `"`; fixed for the life of a
    /// namespace, because the kernel cannot change the comment of a table that exists.
    pub comment: Arc<str>,
    /// Table `inet ringfence`.
    pub inet: Table,
    /// Table `netdev ringfence`; without chains it does not exist.
    pub netdev: Table,
}

/// The contents of one table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Table {
    /// Named counters. They keep counting across changes of rules.
    pub counters: Shared<BTreeSet<Name>>,
    /// Named sets.
    pub sets: BTreeMap<Name, Set>,
    /// Chains.
    pub chains: Shared<BTreeMap<Name, Chain>>,
}

/// A named set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// What its elements are.
    pub kind: SetKind,
    /// Its elements, all of that kind.
    pub elements: OrdSet<Element>,
}

/// Type of a set's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetKind {
    /// `address . protocol . port`, a hash: [`Element::Service`].
    Services(Family),
    /// Addresses, a hash: [`Element::Address`].
    Addresses(Family),
    /// Disjoint address ranges, `flags interval`: [`Element::Range`].
    Ranges(Family),
    /// `protocol . port`, a hash: [`Element::Port`].
    Ports,
}

/// One element of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Element {
    /// `10.20.1.11 . tcp . 80`
    Service(IpAddr, Protocol, u16),
    /// `10.20.1.11`
    Address(IpAddr),
    /// `10.0.0.0/8`
    Range(AddressRange),
    /// `tcp . 80`
    Port(Protocol, u16),
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chain {
    /// Its hook; a regular chain has none. The policy is always accept: what is to be dropped has a rule.
    pub base: Option<BaseChain>,
    /// Its rules in order.
    pub rules: Vec<Rule>,
}

/// Where a chain is attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseChain {
    /// Which hook.
    pub hook: Hook,
    /// Its priority, as a number.
    pub priority: i32,
}

/// A hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hook {
    /// Arrival, `inet`.
    Prerouting,
    /// Local output, `inet`.
    Output,
    /// Departure, `inet`.
    Postrouting,
    /// Departure from one device, `netdev`. The device must exist when the chain is made.
    Egress(InterfaceName),
}

/// One rule: all matches must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The conditions, in the order in which they are evaluated.
    pub matches: Vec<Match>,
    /// A named counter of the same table to increase before the verdict.
    pub counter: Option<Name>,
    /// What then happens.
    pub verdict: Verdict,
}

/// A verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Passes this base chain.
    Accept,
    /// Dropped.
    Drop,
    /// Goes on in a chain and does not come back: after its last rule comes what is behind the last jump, and where
    /// there was none, the base chain's policy (accept).
    Goto(Name),
    /// Goes on in a chain and comes back after its last rule.
    Jump(Name),
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// `iifname "net1"`
    ArrivesOn(InterfaceName),
    /// `oifname "net1"`
    LeavesOn(InterfaceName),
    /// `ct direction original`: no match for untracked and invalid packets.
    CtDirection(CtDirection),
    /// `ct state related`
    CtRelated,
    /// `ct state new`: conntrack has no entry for the connection, or no answer has been seen yet. Always in direction
    /// original.
    CtNew,
    /// `tcp flags != syn / fin,syn,rst,ack`: a TCP segment that opens no connection. Data in a SYN (TCP Fast Open) and the
    /// flags of congestion notification (ECE, CWR) do not matter.
    TcpNotSyn,
    /// `icmp type redirect` (5), `icmpv6 type nd-redirect` (137), whatever its code and hop limit.
    Redirect(Family),
    /// `meta l4proto 1` (ICMP) for IPv4, 58 (ICMPv6) for IPv6; nft writes `meta l4proto icmp`, `meta l4proto ipv6-icmp`.
    Icmp(Family),
    /// `meta nfproto ipv4`
    Nfproto(Family),
    /// `tcp dport 80`, `tcp dport 80-90`, and `meta l4proto tcp` for the whole protocol.
    Ports(Side, PortRange),
    /// `ip saddr 10.20.1.10`
    Address(Side, IpAddr),
    /// `… @set`
    InSet(Key, Name),
    /// `ip saddr & 255.255.255.0 == @set`: the network of this prefix length that the address is in, a hash where
    /// [`SetKind::Ranges`] are a search. The key is an address, the set one of addresses, and the length neither 0 nor
    /// the whole.
    InNetworks(Key, u8, Name),
    /// `icmpv6 type nd-neighbor-solicit icmpv6 code no-route ip6 hoplimit 255` (133 to 137), statement 122.
    Neighbour(u8),
    /// `icmpv6 type mld-listener-query` (130, 131, 132, 143).
    ListenerDiscovery(u8),
    /// `fib saddr type != local`: the source is no address of this namespace.
    SourceNotLocal,
    /// `meta rtclassid != 0xdeadbeef`: any value at all, that is, a route is attached, so the packet comes from the
    /// IP stack. Netdev only.
    Routed,
    /// `meta protocol ip`: an EtherType, in host order. Netdev only.
    EtherType(u16),
}

/// Direction of a packet within its connection, as conntrack tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CtDirection {
    /// The way of the first packet.
    Original,
    /// The other way.
    Reply,
}

/// Which end of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// `saddr`, `sport`
    Source,
    /// `daddr`, `dport`
    Destination,
}

/// The network mask of a prefix length: `255.255.255.0` for 24. Longer than an address is as long as one.
pub fn network_mask(family: Family, length: u8) -> IpAddr {
    let length = u32::from(length);
    match family {
        Family::V4 => {
            let host = u32::MAX.checked_shr(length).unwrap_or(0);
            Ipv4Addr::from_bits(!host).into()
        }
        Family::V6 => {
            let host = u128::MAX.checked_shr(length).unwrap_or(0);
            Ipv6Addr::from_bits(!host).into()
        }
    }
}

/// What is looked up in a set. The set's kind must fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// Peer address and service port: `ip saddr . meta l4proto . th dport`. The first side is the address's, the second
    /// the port's.
    Service(Family, Side, Side),
    /// Peer address: `ip saddr`.
    Address(Family, Side),
    /// `meta l4proto . th dport`
    Port(Side),
    /// The peer of the connection that an ICMP error belongs to: `ct original ip saddr` where others opened it.
    CtOriginalSource(Family),
    /// The same where the pod opened it: `ct reply ip saddr`, the address on the wire whatever is rewritten inside.
    CtReplySource(Family),
}
