//! Sets of address ranges and of ports against plain bitmaps (statements 63, 69, 70, 81, 88).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ringfence_model::{AddressRange, PortRange, PortSet, Protocol, RangeSet};

use crate::bytes::Bytes;

/// The addresses of one small universe: both ends of a family, where arithmetic overflows, and its middle.
struct Universe {
    addresses: Vec<IpAddr>,
}

impl Universe {
    fn new(choice: u8) -> Self {
        let v4 = |first: u32| {
            (0..64)
                .filter_map(move |step| first.checked_add(step))
                .map(|it| IpAddr::V4(it.into()))
        };
        let v6 = |first: u128| {
            (0..64)
                .filter_map(move |step| first.checked_add(step))
                .map(|it| IpAddr::V6(it.into()))
        };
        let addresses = match choice % 6 {
            0 => v4(0).collect(),
            1 => v4(u32::MAX - 63).collect(),
            2 => v4(Ipv4Addr::new(10, 0, 0, 224).to_bits()).collect(),
            3 => v6(0).collect(),
            4 => v6(u128::MAX - 63).collect(),
            // Two families at once: 32 of each.
            _ => v4(u32::MAX - 31)
                .chain(v6(Ipv6Addr::UNSPECIFIED.to_bits()).take(32))
                .collect(),
        };
        Self { addresses }
    }

    fn range(&self, bytes: &mut Bytes<'_>) -> Option<(AddressRange, u64)> {
        let (a, b) = (bytes.below(64), bytes.below(64));
        let range = AddressRange::new(self.addresses[a], self.addresses[b]);
        let same = self.addresses[a].is_ipv4() == self.addresses[b].is_ipv4();
        assert_eq!(range.is_some(), same && a <= b, "{a} {b}");
        let bits = (a..=b).fold(0_u64, |bits, position| bits | 1 << position);
        range.map(|range| (range, bits))
    }

    fn bits(&self, set: &RangeSet) -> u64 {
        let held = self
            .addresses
            .iter()
            .enumerate()
            .filter(|(_, address)| set.contains(**address));
        held.fold(0, |bits, (position, _)| bits | 1 << position)
    }
}

/// Takes choices.
pub fn run(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let universe = Universe::new(bytes.byte());
    let mut draw = || {
        let ranges: Vec<(AddressRange, u64)> = bytes
            .several(10, |bytes| universe.range(bytes))
            .into_iter()
            .flatten()
            .collect();
        let set = RangeSet::union_of(ranges.iter().map(|(range, _)| *range));
        let bits = ranges.iter().fold(0, |all, (_, bits)| all | bits);
        assert_eq!(universe.bits(&set), bits, "the union of {ranges:?} is {set:?}");
        well_formed(&set);
        // Order and repetition mean nothing.
        let again = RangeSet::union_of(ranges.iter().rev().chain(&ranges).map(|(range, _)| *range));
        assert_eq!(again, set);
        (set, bits)
    };
    let ((one, a), (other, b)) = (draw(), draw());
    let rest = one.minus(&other);
    well_formed(&rest);
    assert_eq!(universe.bits(&rest), a & !b, "{one:?} minus {other:?} is {rest:?}");
    assert_eq!(rest.is_empty(), a & !b == 0);
    let both = RangeSet::union_of(one.ranges().iter().chain(other.ranges()).copied());
    assert_eq!(universe.bits(&both), a | b);
    assert_eq!(both.minus(&other), rest, "taking away what was put in");
    assert_eq!(rest.minus(&other), rest, "twice is once");
    let back = RangeSet::union_of(rest.ranges().iter().chain(other.ranges()).copied());
    assert_eq!(back, both, "equal sets are equal values");
    ports(&mut bytes);
}

/// Ascending, disjoint, and not to be joined; each range's text names its ends.
fn well_formed(set: &RangeSet) {
    for range in set.ranges() {
        assert!(range.first() <= range.last());
        let shown = range.to_string();
        let prefix = shown.parse::<ipnet::IpNet>().map(AddressRange::of_prefix);
        let single = shown.parse().map(AddressRange::single);
        let pair = shown
            .split_once('-')
            .and_then(|(first, last)| AddressRange::new(first.parse().ok()?, last.parse().ok()?));
        let read = prefix.ok().or(single.ok()).or(pair);
        assert_eq!(read, Some(*range), "{shown}");
    }
    for pair in set.ranges().windows(2) {
        assert!(pair[0] < pair[1], "{set:?}");
        assert_ne!(RangeSet::union_of(pair.iter().copied()).ranges().len(), 1, "{set:?}");
    }
}

/// Ports, at the places where ranges begin and end.
fn ports(bytes: &mut Bytes<'_>) {
    let near = [0_u16, 1, 2, 3, 79, 80, 81, 82, 65_532, 65_533, 65_534, 65_535];
    let mut draw = || {
        let mut ranges = bytes.several(8, |bytes| {
            let protocol = Protocol::ALL[bytes.below(3)];
            let (a, b) = (near[bytes.below(near.len())], near[bytes.below(near.len())]);
            PortRange {
                protocol,
                first: a.min(b),
                last: a.max(b),
            }
        });
        if bytes.rarely(8) {
            ranges.push(PortRange::whole(Protocol::Udp));
        }
        (PortSet::union_of(ranges.iter().copied()), ranges)
    };
    let ((one, a), (other, b)) = (draw(), draw());
    let both = one.union(&other);
    assert_eq!(both, other.union(&one));
    assert_eq!(both.union(&one), both, "twice is once");
    assert_eq!(both, PortSet::union_of(a.iter().chain(&b).copied()));
    assert_eq!(both.union(&PortSet::Everything), PortSet::Everything);
    let PortSet::Ranges(found) = &both else {
        panic!("ranges make no more than ranges: {both:?}");
    };
    let holds = |ranges: &[PortRange], protocol, port| {
        ranges
            .iter()
            .any(|it| it.protocol == protocol && it.first <= port && port <= it.last)
    };
    for protocol in Protocol::ALL {
        for port in near {
            let wanted = holds(&a, protocol, port) || holds(&b, protocol, port);
            // 1 to 65535 is the whole protocol (statement 88), and 0 is on no list.
            let whole = port == 0
                && holds(found, protocol, 1)
                && found.iter().any(|it| it.protocol == protocol && it.is_whole());
            assert_eq!(
                holds(found, protocol, port),
                wanted || whole,
                "{protocol} {port}: {found:?}"
            );
        }
    }
    for pair in found.windows(2) {
        let apart = pair[0].protocol < pair[1].protocol || u32::from(pair[0].last) + 1 < u32::from(pair[1].first);
        assert!(apart, "{found:?}");
    }
}
