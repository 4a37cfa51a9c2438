//! Rules to bytecode and back.
//!
//! [`lower`] gives what `nft` 1.0.6 generates for the rule's text, so that `nft list` prints that text again: above
//! all, a field of an IPv4 header is preceded by a test for IPv4, and a port by a test for its protocol, unless an
//! earlier condition of the rule has made that test. [`lift`] is its inverse. Where two rules lower to the same
//! bytecode (`meta nfproto ipv4 ip saddr …` and `ip saddr …`, or the protocol of either side's ports), the kernel
//! cannot tell which was meant, and [`lift`] gives the shorter one, or that of the destination.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ringfence_model::{Family, InterfaceName, PortRange, Protocol};
use ringfence_ruleset::{CtDirection, Key, Match, Name, Rule, Side, TableFamily, network_mask};

use crate::expression::Expression as E;
use crate::uapi::value as v;

/// Kernel's `IFNAMSIZ`: names are compared with their padding.
const INTERFACE_NAME: usize = 16;
/// Value that `meta rtclassid` never has: unequal means that there is a value at all.
const NO_REALM: u32 = 0xdead_beef;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// Hop limit of neighbour discovery that no router has touched (RFC 4861), and where the IPv6 header has it.
const UNTOUCHED: u8 = 255;
const HOP_LIMIT_AT: u32 = 7;

/// What earlier conditions of a rule have established.
#[derive(Default)]
struct Known {
    network: Option<Family>,
    transport: Option<u8>,
}

/// The bytecode of a rule in a table.
pub(crate) fn lower(family: TableFamily, rule: &Rule) -> Vec<E> {
    let mut lowering = Lowering {
        table: family,
        known: Known::default(),
        out: Vec::with_capacity(rule.matches.len() * 3 + 2),
    };
    for condition in &rule.matches {
        lowering.condition(condition);
    }
    let mut out = lowering.out;
    out.extend(rule.counter.clone().map(|name| E::Counter { name }));
    out.push(E::Verdict(rule.verdict.clone()));
    out
}

struct Lowering {
    table: TableFamily,
    known: Known,
    out: Vec<E>,
}

impl Lowering {
    fn condition(&mut self, condition: &Match) {
        match condition {
            Match::ArrivesOn(interface) => self.meta_is(v::META_IIFNAME, padded(interface)),
            Match::LeavesOn(interface) => self.meta_is(v::META_OIFNAME, padded(interface)),
            Match::CtDirection(direction) => {
                self.ct(v::CT_DIRECTION, None);
                self.compare(v::CMP_EQ, vec![direction_number(*direction)]);
            }
            Match::CtRelated => {
                self.ct(v::CT_STATE, None);
                self.out.push(E::Mask {
                    register: v::REG_1,
                    mask: v::CT_STATE_RELATED.to_ne_bytes().to_vec(),
                });
                self.compare(v::CMP_NEQ, vec![0; 4]);
            }
            Match::Icmp(family) => {
                self.known.transport = None;
                self.transport(icmp_number(*family));
            }
            Match::Nfproto(family) => {
                self.known.network = None;
                self.network(*family);
            }
            Match::Ports(side, range) => self.ports(*side, *range),
            Match::Address(side, address) => {
                self.network(Family::of(*address));
                self.address(Family::of(*address), *side);
                self.compare(v::CMP_EQ, octets(*address));
            }
            Match::InSet(key, set) => self.in_set(*key, None, set),
            Match::InNetworks(key, length, set) => self.in_set(*key, Some(*length), set),
            Match::Neighbour(kind) => {
                self.network(Family::V6);
                self.transport(ICMPV6);
                // Type and code, two bytes that nft joins into one comparison.
                self.load(v::PAYLOAD_TRANSPORT, 0, 2, v::REG_1);
                self.compare(v::CMP_EQ, vec![*kind, 0]);
                self.load(v::PAYLOAD_NETWORK, HOP_LIMIT_AT, 1, v::REG_1);
                self.compare(v::CMP_EQ, vec![UNTOUCHED]);
            }
            Match::ListenerDiscovery(kind) => {
                self.network(Family::V6);
                self.transport(ICMPV6);
                self.load(v::PAYLOAD_TRANSPORT, 0, 1, v::REG_1);
                self.compare(v::CMP_EQ, vec![*kind]);
            }
            Match::SourceNotLocal => {
                self.out.push(E::SourceType { register: v::REG_1 });
                self.compare(v::CMP_NEQ, v::RTN_LOCAL.to_ne_bytes().to_vec());
            }
            Match::Routed => {
                self.meta(v::META_RTCLASSID, v::REG_1);
                self.compare(v::CMP_NEQ, NO_REALM.to_ne_bytes().to_vec());
            }
            Match::EtherType(number) => self.meta_is(v::META_PROTOCOL, number.to_be_bytes().to_vec()),
        }
    }

    fn ports(&mut self, side: Side, range: PortRange) {
        if range.is_whole() {
            // Said for itself, so it is written even where it is known.
            self.known.transport = None;
            return self.transport(range.protocol.number());
        }
        self.transport(range.protocol.number());
        self.load(v::PAYLOAD_TRANSPORT, port_at(side), 2, v::REG_1);
        let (first, last) = (range.first.to_be_bytes().to_vec(), range.last.to_be_bytes().to_vec());
        if range.first == range.last {
            self.compare(v::CMP_EQ, first);
        } else {
            self.compare(v::CMP_GTE, first);
            self.compare(v::CMP_LTE, last);
        }
    }

    /// Looks a key up, or the network of this prefix length that it is in.
    fn in_set(&mut self, key: Key, length: Option<u8>, set: &Name) {
        match key {
            Key::Service(family, address, port) => {
                let (second, third) = service_registers(family);
                self.network(family);
                self.address(family, address);
                self.meta(v::META_L4PROTO, second);
                self.load(v::PAYLOAD_TRANSPORT, port_at(port), 2, third);
            }
            Key::Address(family, side) => {
                self.network(family);
                self.address(family, side);
            }
            Key::Port(side) => {
                self.meta(v::META_L4PROTO, v::REG_1);
                self.load(v::PAYLOAD_TRANSPORT, port_at(side), 2, v::REG32_01);
            }
            Key::CtOriginalSource(family) => self.ct(ct_source(family), Some(CtDirection::Original)),
            Key::CtReplySource(family) => self.ct(ct_source(family), Some(CtDirection::Reply)),
        }
        if let (Some(length), Some(family)) = (length, key_family(key)) {
            self.out.push(E::Mask {
                register: v::REG_1,
                mask: octets(network_mask(family, length)),
            });
        }
        self.out.push(E::Lookup {
            register: v::REG_1,
            set: set.clone(),
        });
    }

    /// Makes sure that the packet is of this family.
    fn network(&mut self, family: Family) {
        if self.known.network != Some(family) {
            let (key, value) = network_test(self.table, family);
            self.meta_is(key, value);
            self.known.network = Some(family);
        }
    }

    /// Makes sure that the packet has this protocol.
    fn transport(&mut self, protocol: u8) {
        if self.known.transport != Some(protocol) {
            self.meta_is(v::META_L4PROTO, vec![protocol]);
            self.known.transport = Some(protocol);
        }
    }

    fn address(&mut self, family: Family, side: Side) {
        let (offset, length) = address_at(family, side);
        self.load(v::PAYLOAD_NETWORK, offset, length, v::REG_1);
    }

    fn meta_is(&mut self, key: u32, value: Vec<u8>) {
        self.meta(key, v::REG_1);
        self.compare(v::CMP_EQ, value);
    }

    fn meta(&mut self, key: u32, register: u32) {
        self.out.push(E::Meta { key, register });
    }

    fn ct(&mut self, key: u32, direction: Option<CtDirection>) {
        self.out.push(E::Ct {
            key,
            direction: direction.map(direction_number),
            register: v::REG_1,
        });
    }

    fn load(&mut self, base: u32, offset: u32, length: u32, register: u32) {
        self.out.push(E::Payload {
            base,
            offset,
            length,
            register,
        });
    }

    fn compare(&mut self, operation: u32, value: Vec<u8>) {
        self.out.push(E::Compare {
            register: v::REG_1,
            operation,
            value,
        });
    }
}

/// The rule that lowers to this bytecode; in words what is not understood.
pub(crate) fn lift(family: TableFamily, expressions: &[E]) -> Result<Rule, String> {
    let Some((E::Verdict(verdict), mut rest)) = expressions.split_last() else {
        return Err("a rule without a verdict".to_owned());
    };
    let mut counter = None;
    if let Some((E::Counter { name }, before)) = rest.split_last() {
        counter = Some(name.clone());
        rest = before;
    }
    let mut known = Known::default();
    let mut matches = Vec::new();
    while !rest.is_empty() {
        let step =
            lift_simple(rest).or_else(|| lift_test(family, &mut known, rest).or_else(|| lift_header(&known, rest)));
        let (found, tail) = step.ok_or_else(|| format!("a rule with {:?}", rest[0]))?;
        matches.extend(found);
        rest = tail;
    }
    Ok(Rule {
        matches,
        counter,
        verdict: verdict.clone(),
    })
}

/// The condition, if these expressions make one by themselves, and the expressions after it.
type Step<'a> = Option<(Option<Match>, &'a [E])>;

/// Conditions that need nothing from others.
fn lift_simple(expressions: &[E]) -> Step<'_> {
    use E::{Compare, Ct, Lookup, Mask, Meta, Payload, SourceType};
    use v::{CMP_EQ, CMP_NEQ, REG_1};
    let (found, used) = match expressions {
        [Meta { key, register: REG_1 }, is @ Compare { .. }, ..]
            if [v::META_IIFNAME, v::META_OIFNAME].contains(key) =>
        {
            let interface = unpadded(compared(is, CMP_EQ)?)?;
            let found = if *key == v::META_IIFNAME {
                Match::ArrivesOn(interface)
            } else {
                Match::LeavesOn(interface)
            };
            (found, 2)
        }
        [
            Ct {
                key: v::CT_DIRECTION,
                direction: None,
                register: REG_1,
            },
            is @ Compare { .. },
            ..,
        ] => match compared(is, CMP_EQ)? {
            [0] => (Match::CtDirection(CtDirection::Original), 2),
            [1] => (Match::CtDirection(CtDirection::Reply), 2),
            _ => return None,
        },
        [
            Ct {
                key: v::CT_STATE,
                direction: None,
                register: REG_1,
            },
            Mask { register: REG_1, mask },
            is @ Compare { .. },
            ..,
        ] if *mask == v::CT_STATE_RELATED.to_ne_bytes() && *compared(is, CMP_NEQ)? == [0; 4] => (Match::CtRelated, 3),
        [
            Ct {
                key: key @ (v::CT_SRC_IP | v::CT_SRC_IP6),
                direction: Some(direction @ (0 | 1)),
                register: REG_1,
            },
            Lookup { register: REG_1, set },
            ..,
        ] => (Match::InSet(ct_key(*key, *direction), set.clone()), 2),
        [
            Ct {
                key: key @ (v::CT_SRC_IP | v::CT_SRC_IP6),
                direction: Some(direction @ (0 | 1)),
                register: REG_1,
            },
            Mask { register: REG_1, mask },
            Lookup { register: REG_1, set },
            ..,
        ] => {
            let key = ct_key(*key, *direction);
            (Match::InNetworks(key, prefix_length(key, mask)?, set.clone()), 3)
        }
        [
            Meta {
                key: v::META_L4PROTO,
                register: REG_1,
            },
            Payload {
                base: v::PAYLOAD_TRANSPORT,
                offset,
                length: 2,
                register: v::REG32_01,
            },
            Lookup { register: REG_1, set },
            ..,
        ] => (Match::InSet(Key::Port(port_side(*offset)?), set.clone()), 3),
        [SourceType { register: REG_1 }, is @ Compare { .. }, ..]
            if *compared(is, CMP_NEQ)? == v::RTN_LOCAL.to_ne_bytes() =>
        {
            (Match::SourceNotLocal, 2)
        }
        [
            Meta {
                key: v::META_RTCLASSID,
                register: REG_1,
            },
            is @ Compare { .. },
            ..,
        ] if *compared(is, CMP_NEQ)? == NO_REALM.to_ne_bytes() => (Match::Routed, 2),
        _ => return None,
    };
    Some((Some(found), &expressions[used..]))
}

/// Tests for a family, protocol or EtherType: a condition of their own, or the preparation of the next one.
fn lift_test<'a>(table: TableFamily, known: &mut Known, expressions: &'a [E]) -> Step<'a> {
    let [
        E::Meta {
            key,
            register: v::REG_1,
        },
        is @ E::Compare { .. },
        tail @ ..,
    ] = expressions
    else {
        return None;
    };
    let value = compared(is, v::CMP_EQ)?;
    let network = Family::BOTH
        .into_iter()
        .find(|family| network_test(table, *family) == (*key, value.to_vec()));
    if let Some(family) = network {
        known.network = Some(family);
        if reads_network(family, known.transport, tail) {
            return Some((None, tail));
        }
    }
    let found = match (*key, value) {
        (v::META_NFPROTO, _) => Match::Nfproto(network?),
        (v::META_PROTOCOL, [high, low]) => Match::EtherType(u16::from_be_bytes([*high, *low])),
        (v::META_L4PROTO, [protocol]) => {
            known.transport = Some(*protocol);
            let prepares = matches!(
                tail.first(),
                Some(E::Payload {
                    base: v::PAYLOAD_TRANSPORT,
                    register: v::REG_1,
                    ..
                })
            );
            if prepares {
                return Some((None, tail));
            }
            match *protocol {
                ICMP => Match::Icmp(Family::V4),
                ICMPV6 => Match::Icmp(Family::V6),
                other => Match::Ports(Side::Destination, PortRange::whole(protocol_of(other)?)),
            }
        }
        _ => return None,
    };
    Some((Some(found), tail))
}

/// Whether the next condition is one that needs the test for its family.
fn reads_network(family: Family, transport: Option<u8>, tail: &[E]) -> bool {
    let icmp_type = |expression: Option<&E>| {
        matches!(
            expression,
            Some(E::Payload {
                base: v::PAYLOAD_TRANSPORT,
                register: v::REG_1,
                ..
            })
        )
    };
    match tail {
        [
            E::Payload {
                base: v::PAYLOAD_NETWORK,
                ..
            },
            ..,
        ] => true,
        [
            E::Meta {
                key: v::META_L4PROTO, ..
            },
            E::Compare { value, .. },
            rest @ ..,
        ] => family == Family::V6 && value[..] == [ICMPV6] && icmp_type(rest.first()),
        _ => family == Family::V6 && transport == Some(ICMPV6) && icmp_type(tail.first()),
    }
}

/// Conditions on header fields, whose family or protocol has been tested before.
fn lift_header<'a>(known: &Known, expressions: &'a [E]) -> Step<'a> {
    let [
        E::Payload {
            base,
            offset,
            length,
            register: v::REG_1,
        },
        tail @ ..,
    ] = expressions
    else {
        return None;
    };
    if *base == v::PAYLOAD_NETWORK {
        let family = known.network?;
        let side = [Side::Source, Side::Destination]
            .into_iter()
            .find(|side| address_at(family, *side) == (*offset, *length))?;
        return lift_address(family, side, tail);
    }
    if *base != v::PAYLOAD_TRANSPORT {
        return None;
    }
    match (known.transport?, *offset, *length) {
        (ICMPV6, 0, 1) if known.network == Some(Family::V6) => {
            let [is, tail @ ..] = tail else { return None };
            let [kind] = compared(is, v::CMP_EQ)? else { return None };
            Some((Some(Match::ListenerDiscovery(*kind)), tail))
        }
        (ICMPV6, 0, 2) if known.network == Some(Family::V6) => lift_neighbour(tail),
        (protocol, offset, 2) => lift_ports(protocol_of(protocol)?, port_side(offset)?, tail),
        _ => None,
    }
}

fn lift_address(family: Family, side: Side, tail: &[E]) -> Step<'_> {
    let (second, third) = service_registers(family);
    match tail {
        [is @ E::Compare { .. }, tail @ ..] => {
            let address = address_of(compared(is, v::CMP_EQ)?).filter(|it| Family::of(*it) == family)?;
            Some((Some(Match::Address(side, address)), tail))
        }
        [
            E::Lookup {
                register: v::REG_1,
                set,
            },
            tail @ ..,
        ] => Some((Some(Match::InSet(Key::Address(family, side), set.clone())), tail)),
        [
            E::Mask {
                register: v::REG_1,
                mask,
            },
            E::Lookup {
                register: v::REG_1,
                set,
            },
            tail @ ..,
        ] => {
            let key = Key::Address(family, side);
            let found = Match::InNetworks(key, prefix_length(key, mask)?, set.clone());
            Some((Some(found), tail))
        }
        [
            E::Meta {
                key: v::META_L4PROTO,
                register: protocol,
            },
            E::Payload {
                base: v::PAYLOAD_TRANSPORT,
                offset,
                length: 2,
                register: port,
            },
            E::Lookup {
                register: v::REG_1,
                set,
            },
            tail @ ..,
        ] if (*protocol, *port) == (second, third) => {
            let key = Key::Service(family, side, port_side(*offset)?);
            Some((Some(Match::InSet(key, set.clone())), tail))
        }
        _ => None,
    }
}

fn lift_neighbour(tail: &[E]) -> Step<'_> {
    let [
        is,
        E::Payload {
            base: v::PAYLOAD_NETWORK,
            offset: HOP_LIMIT_AT,
            length: 1,
            register: v::REG_1,
        },
        hops,
        tail @ ..,
    ] = tail
    else {
        return None;
    };
    match (compared(is, v::CMP_EQ)?, compared(hops, v::CMP_EQ)?) {
        ([kind, 0], [UNTOUCHED]) => Some((Some(Match::Neighbour(*kind)), tail)),
        _ => None,
    }
}

fn lift_ports(protocol: Protocol, side: Side, tail: &[E]) -> Step<'_> {
    let port = |expression, operation| {
        let [high, low] = compared(expression, operation)? else {
            return None;
        };
        Some(u16::from_be_bytes([*high, *low]))
    };
    let (first, last, tail) = match tail {
        [is, tail @ ..] if compared(is, v::CMP_EQ).is_some() => (port(is, v::CMP_EQ)?, port(is, v::CMP_EQ)?, tail),
        [from, to, tail @ ..] => (port(from, v::CMP_GTE)?, port(to, v::CMP_LTE)?, tail),
        _ => return None,
    };
    let range = PortRange { protocol, first, last };
    Some((Some(Match::Ports(side, range)), tail))
}

/// The value that a comparison of register 1 has, if it is this comparison.
fn compared(expression: &E, wanted: u32) -> Option<&[u8]> {
    match expression {
        E::Compare {
            register: v::REG_1,
            operation,
            value,
        } if *operation == wanted => Some(value),
        _ => None,
    }
}

/// How a table tests for a family: `inet` knows it from the hook, `netdev` only from the frame.
fn network_test(table: TableFamily, family: Family) -> (u32, Vec<u8>) {
    match (table, family) {
        (TableFamily::Inet, Family::V4) => (v::META_NFPROTO, vec![v::NFPROTO_IPV4]),
        (TableFamily::Inet, Family::V6) => (v::META_NFPROTO, vec![v::NFPROTO_IPV6]),
        (TableFamily::Netdev, Family::V4) => (v::META_PROTOCOL, 0x0800_u16.to_be_bytes().to_vec()),
        (TableFamily::Netdev, Family::V6) => (v::META_PROTOCOL, 0x86dd_u16.to_be_bytes().to_vec()),
    }
}

/// Offset and length of an address in its header.
fn address_at(family: Family, side: Side) -> (u32, u32) {
    match (family, side) {
        (Family::V4, Side::Source) => (12, 4),
        (Family::V4, Side::Destination) => (16, 4),
        (Family::V6, Side::Source) => (8, 16),
        (Family::V6, Side::Destination) => (24, 16),
    }
}

/// Registers of protocol and port after an address in register 1: the next 4 bytes each.
fn service_registers(family: Family) -> (u32, u32) {
    match family {
        Family::V4 => (v::REG32_01, v::REG32_02),
        Family::V6 => (v::REG_2, v::REG32_05),
    }
}

fn port_at(side: Side) -> u32 {
    match side {
        Side::Source => 0,
        Side::Destination => 2,
    }
}

fn port_side(offset: u32) -> Option<Side> {
    [Side::Source, Side::Destination]
        .into_iter()
        .find(|side| port_at(*side) == offset)
}

fn protocol_of(number: u8) -> Option<Protocol> {
    Protocol::ALL.into_iter().find(|protocol| protocol.number() == number)
}

fn icmp_number(family: Family) -> u8 {
    match family {
        Family::V4 => ICMP,
        Family::V6 => ICMPV6,
    }
}

/// The family of a key that is an address.
fn key_family(key: Key) -> Option<Family> {
    match key {
        Key::Address(family, _) | Key::CtOriginalSource(family) | Key::CtReplySource(family) => Some(family),
        Key::Service(..) | Key::Port(_) => None,
    }
}

/// The length of which this is the mask.
fn prefix_length(key: Key, mask: &[u8]) -> Option<u8> {
    let family = key_family(key)?;
    (1..128).find(|length| octets(network_mask(family, *length)) == mask)
}

/// The source of a connection, as the peer in one of its directions has it.
fn ct_key(key: u32, direction: u8) -> Key {
    let family = if key == v::CT_SRC_IP { Family::V4 } else { Family::V6 };
    if direction == 0 {
        Key::CtOriginalSource(family)
    } else {
        Key::CtReplySource(family)
    }
}

fn ct_source(family: Family) -> u32 {
    match family {
        Family::V4 => v::CT_SRC_IP,
        Family::V6 => v::CT_SRC_IP6,
    }
}

fn direction_number(direction: CtDirection) -> u8 {
    match direction {
        CtDirection::Original => 0,
        CtDirection::Reply => 1,
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The address with these bytes.
pub(crate) fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(octets).into());
    }
    <[u8; 16]>::try_from(bytes)
        .ok()
        .map(|octets| Ipv6Addr::from(octets).into())
}

fn padded(interface: &InterfaceName) -> Vec<u8> {
    let mut bytes = interface.as_str().as_bytes().to_vec();
    bytes.resize(INTERFACE_NAME, 0);
    bytes
}

fn unpadded(bytes: &[u8]) -> Option<InterfaceName> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    let whole = bytes.len() == INTERFACE_NAME && bytes[end..].iter().all(|byte| *byte == 0);
    let text = std::str::from_utf8(&bytes[..end]).ok()?;
    InterfaceName::new(text).ok().filter(|_| whole)
}
