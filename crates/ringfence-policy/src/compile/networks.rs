//! Many blocks as networks of few prefix lengths: one hash look-up for each length instead of a search.
//!
//! The kernel (6.18) finds an address among intervals by bisection, 20 to 25 ns for each halving; a hash look-up costs
//! as much as two of these. Whether it is worth it depends on the blocks alone, so on policies alone.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ringfence_model::{AddressRange, Family};

/// With fewer intervals the search is short, and one list of them is easier to read.
const FEWEST: usize = 64;

/// The networks of one prefix length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Networks {
    /// The prefix length, 1 to 128.
    pub length: u8,
    /// Their first addresses.
    pub first: Vec<IpAddr>,
}

impl Networks {
    /// How many addresses they have together.
    fn addresses(&self) -> u128 {
        let of_one = |first: &IpAddr| 1_u128.checked_shl(u32::from(bits(Family::of(*first)) - self.length));
        self.first.iter().filter_map(of_one).fold(0, u128::saturating_add)
    }
}

/// The same addresses as networks, the length with the most addresses first, because most packets are done there.
/// `None` where a search is as good, which takes as many steps as the number of intervals has bits: there are at most
/// two prefix lengths for every three of these. A network that is found costs half the look-ups on average, and so
/// much less than the search; an address that is in none costs all of them, a third more than the search.
///
/// The ranges are disjoint and of one family, and none is the whole of it.
pub(super) fn by_length(ranges: &[AddressRange]) -> Option<Vec<Networks>> {
    if ranges.len() < FEWEST {
        return None;
    }
    let mut lengths: BTreeMap<u8, Vec<IpAddr>> = BTreeMap::new();
    for range in ranges {
        split(*range, |first, length| lengths.entry(length).or_default().push(first));
    }
    let few = u32::try_from(lengths.len())
        .ok()
        .and_then(|count| 3_usize.checked_pow(count))
        .is_some_and(|needed| needed <= ranges.len());
    if !few {
        return None;
    }
    let mut networks: Vec<Networks> = lengths
        .into_iter()
        .map(|(length, first)| Networks { length, first })
        .collect();
    networks.sort_by_key(|networks| (Reverse(networks.addresses()), networks.length));
    Some(networks)
}

/// Bits of an address.
pub(super) fn bits(family: Family) -> u8 {
    match family {
        Family::V4 => 32,
        Family::V6 => 128,
    }
}

/// The fewest networks that make up a range, in order: each as large as its first address and the end of the range
/// allow.
fn split(range: AddressRange, mut each: impl FnMut(IpAddr, u8)) {
    let family = range.family();
    let (mut first, last) = (number(range.first()), number(range.last()));
    loop {
        let aligned = first.trailing_zeros().min(u32::from(bits(family)));
        // The largest power of two that fits; a range of all 2^128 addresses has no such count and needs none.
        let fitting = (last - first).checked_add(1).map_or(128, u128::ilog2);
        let host = aligned.min(fitting);
        let length = u32::from(bits(family)) - host;
        each(address(family, first), u8::try_from(length).unwrap_or(bits(family)));
        let size = 1_u128.checked_shl(host).unwrap_or(0);
        match first.checked_add(size) {
            Some(next) if size > 0 && next <= last => first = next,
            _ => return,
        }
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn address(family: Family, number: u128) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(u32::MAX)).into(),
        Family::V6 => Ipv6Addr::from_bits(number).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: &str, last: &str) -> AddressRange {
        let parse = |text: &str| text.parse().expect("an address");
        AddressRange::new(parse(first), parse(last)).expect("a range")
    }

    #[track_caller]
    fn check(first: &str, last: &str, expected: &[&str]) {
        let mut found = Vec::new();
        split(range(first, last), |first, length| {
            found.push(format!("{first}/{length}"));
        });
        assert_eq!(found, expected, "{first}-{last}");
    }

    #[test]
    fn ranges_become_the_fewest_networks() {
        check("10.0.0.0", "10.0.0.255", &["10.0.0.0/24"]);
        check("10.0.0.7", "10.0.0.7", &["10.0.0.7/32"]);
        check("10.0.0.1", "10.0.0.4", &["10.0.0.1/32", "10.0.0.2/31", "10.0.0.4/32"]);
        check("255.255.255.254", "255.255.255.255", &["255.255.255.254/31"]);
        check("0.0.0.0", "127.255.255.255", &["0.0.0.0/1"]);
        check("fd00::", "fd00::ffff", &["fd00::/112"]);
        check("8000::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", &["8000::/1"]);
        check("::1", "::3", &["::1/128", "::2/127"]);
    }

    /// `count` networks, every second one, of these lengths in turn.
    fn every_second(count: u32, lengths: &[u32]) -> Vec<AddressRange> {
        (0..count)
            .zip(lengths.iter().cycle())
            .map(|(number, length)| {
                let first = 0x0a00_0000 + number * 0x200;
                let last = first | (u32::MAX >> length);
                AddressRange::new(Ipv4Addr::from_bits(first).into(), Ipv4Addr::from_bits(last).into()).expect("a range")
            })
            .collect()
    }

    #[test]
    fn many_networks_of_few_lengths_are_looked_up_by_length() {
        let lengths = |count, lengths: &[u32]| {
            let networks = by_length(&every_second(count, lengths))?;
            Some(
                networks
                    .iter()
                    .map(|networks| (networks.length, networks.first.len()))
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(lengths(63, &[24]), None, "too few");
        assert_eq!(lengths(64, &[24]), Some(vec![(24, 64)]));
        assert_eq!(lengths(64, &[24, 26, 28]), Some(vec![(24, 22), (26, 21), (28, 21)]));
        assert_eq!(lengths(64, &[28, 24, 26]), Some(vec![(24, 21), (26, 21), (28, 22)]));
        assert_eq!(lengths(80, &[24, 25, 26, 27]), None, "as good as a search");
        assert!(lengths(81, &[24, 25, 26, 27]).is_some());
    }
}
