//! Addresses: families, ranges, and sets of disjoint ranges.
//!
//! `except` is a subtraction inside one ipBlock and never a deny (statements 63 to 67, catalogue B1), so a block is
//! turned into ranges here, and blocks are united afterwards. The result is disjoint and minimal because the kernel
//! refuses overlapping intervals (catalogue B2).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// An IP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, IPv4 first.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The numerically last address of the family.
    pub fn last(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::BROADCAST),
            Self::V6 => IpAddr::V6(Ipv6Addr::from(u128::MAX)),
        }
    }

    fn first(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Self::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        }
    }
}

/// Both ends belong to the range, and to one family; the first is not after the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
}

impl AddressRange {
    /// `None` where the ends are of two families or in the wrong order.
    pub fn new(first: IpAddr, last: IpAddr) -> Option<Self> {
        (Family::of(first) == Family::of(last) && first <= last).then_some(Self { first, last })
    }

    /// A range of one address.
    pub fn single(address: IpAddr) -> Self {
        Self {
            first: address,
            last: address,
        }
    }

    /// The addresses of a prefix; host bits are masked off (statement 72).
    pub fn of_prefix(prefix: IpNet) -> Self {
        Self {
            first: prefix.network(),
            last: prefix.broadcast(),
        }
    }

    /// The lowest address.
    pub fn first(self) -> IpAddr {
        self.first
    }

    /// The highest address, itself in the range.
    pub fn last(self) -> IpAddr {
        self.last
    }

    /// The family of both ends.
    pub fn family(self) -> Family {
        Family::of(self.first)
    }

    /// Whether it holds the address.
    pub fn contains(self, address: IpAddr) -> bool {
        Family::of(address) == self.family() && self.first <= address && address <= self.last
    }

    /// Whether it holds every address of its family.
    pub fn is_whole_family(self) -> bool {
        self.first == self.family().first() && self.last == self.family().last()
    }
}

/// As nft writes it: an address, a prefix where the range is one, else `first-last`.
impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            return write!(f, "{}", self.first);
        }
        let (first, last, bits) = match (self.first, self.last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => (u128::from(first.to_bits()), u128::from(last.to_bits()), 32),
            (first, last) => (to_bits(first), to_bits(last), 128),
        };
        let differing = first ^ last;
        let host_bits = 128 - differing.leading_zeros();
        // All host bits are 0 in the first and 1 in the last address exactly where the range is a prefix.
        if differing & (differing.wrapping_add(1)) == 0 && first & differing == 0 {
            write!(f, "{}/{}", self.first, bits - host_bits)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

fn to_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The address after this one, within its family.
fn successor(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => address.to_bits().checked_add(1).map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(address) => address.to_bits().checked_add(1).map(|bits| IpAddr::V6(bits.into())),
    }
}

/// The address before this one, within its family.
fn predecessor(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => address.to_bits().checked_sub(1).map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(address) => address.to_bits().checked_sub(1).map(|bits| IpAddr::V6(bits.into())),
    }
}

/// A set of addresses as disjoint, non-adjacent ranges in ascending order, IPv4 before IPv6. Equal sets are equal
/// values, however they came about.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash, PartialOrd, Ord)]
pub struct RangeSet(Vec<AddressRange>);

impl RangeSet {
    /// The union of any ranges (statement 69, 70).
    pub fn union_of(ranges: impl IntoIterator<Item = AddressRange>) -> Self {
        let mut ranges: Vec<AddressRange> = ranges.into_iter().collect();
        ranges.sort();
        let mut merged: Vec<AddressRange> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match merged.last_mut() {
                Some(before)
                    if before.family() == range.family()
                        && (range.first <= before.last || successor(before.last) == Some(range.first)) =>
                {
                    before.last = before.last.max(range.last);
                }
                _ => merged.push(range),
            }
        }
        Self(merged)
    }

    /// The addresses of this set that are not in the other.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        let mut out = Vec::with_capacity(self.0.len());
        for &range in &self.0 {
            let mut rest = Some(range);
            for hole in other.0.iter().filter(|hole| hole.family() == range.family()) {
                let Some(current) = rest else { break };
                if hole.last < current.first || current.last < hole.first {
                    continue;
                }
                if let Some(before) = predecessor(hole.first).and_then(|last| AddressRange::new(current.first, last)) {
                    out.push(before);
                }
                rest = successor(hole.last).and_then(|first| AddressRange::new(first, current.last));
            }
            out.extend(rest);
        }
        Self::union_of(out)
    }

    /// The ranges, ascending.
    pub fn ranges(&self) -> &[AddressRange] {
        &self.0
    }

    /// Whether it holds no address.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it holds the address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let after = self.0.partition_point(|range| range.first <= address);
        after > 0 && self.0[after - 1].contains(address)
    }
}

/// `ipBlock` of a peer, after validation: `cidr` without its excepts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IpBlock {
    /// The prefix, host bits masked.
    pub cidr: IpNet,
    /// Prefixes of the same family. They take addresses away from this block only (statement 63).
    pub except: Vec<IpNet>,
}

impl IpBlock {
    /// The addresses that the block matches: empty where an except covers the prefix (statement 68).
    pub fn ranges(&self) -> RangeSet {
        let whole = RangeSet::union_of([AddressRange::of_prefix(self.cidr)]);
        let holes = RangeSet::union_of(self.except.iter().copied().map(AddressRange::of_prefix));
        whole.minus(&holes)
    }
}

impl fmt::Display for IpBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.cidr)?;
        for (position, except) in self.except.iter().enumerate() {
            write!(f, "{}{except}", if position == 0 { " except " } else { ", " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(cidr: &str, except: &[&str], expected: &[&str]) {
        let block = IpBlock {
            cidr: cidr.parse().unwrap(),
            except: except.iter().map(|text| text.parse().unwrap()).collect(),
        };
        let shown: Vec<String> = block.ranges().ranges().iter().map(ToString::to_string).collect();
        assert_eq!(shown, expected, "{block}");
    }

    #[test]
    fn s062_s063_s068_s072_s076_blocks_as_ranges() {
        check("10.0.0.0/8", &[], &["10.0.0.0/8"]);
        check("10.1.2.3/8", &[], &["10.0.0.0/8"]);
        check("10.0.0.0/24", &["10.0.0.0/25"], &["10.0.0.128/25"]);
        check("10.0.0.0/24", &["10.0.0.64/26"], &["10.0.0.0/26", "10.0.0.128/25"]);
        check("10.0.0.0/30", &["10.0.0.1/32"], &["10.0.0.0", "10.0.0.2/31"]);
        check("10.0.0.0/29", &["10.0.0.0/32", "10.0.0.7/32"], &["10.0.0.1-10.0.0.6"]);
        check("10.0.0.0/24", &["10.0.0.0/24"], &[]);
        check("10.0.0.0/24", &["10.0.0.0/8"], &[]);
        check("0.0.0.0/0", &[], &["0.0.0.0/0"]);
        check("0.0.0.0/0", &["0.0.0.0/1"], &["128.0.0.0/1"]);
        check("::/0", &["::/1"], &["8000::/1"]);
        check("fd00::1/128", &[], &["fd00::1"]);
    }

    #[test]
    fn s069_unions_are_disjoint_and_minimal() {
        let ranges = [
            "10.0.0.0/8",
            "10.1.0.0/16",
            "11.0.0.0/8",
            "192.0.2.0/24",
            "192.0.2.0/24",
            "fd00::/8",
        ];
        let set = RangeSet::union_of(ranges.iter().map(|text| AddressRange::of_prefix(text.parse().unwrap())));
        let shown: Vec<String> = set.ranges().iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["10.0.0.0/7", "192.0.2.0/24", "fd00::/8"]);
        assert!(set.contains("10.255.255.255".parse().unwrap()));
        assert!(!set.contains("12.0.0.0".parse().unwrap()));
        assert!(!set.contains("::1".parse().unwrap()));
    }
}
