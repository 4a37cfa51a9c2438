//! Keys of set elements as the kernel gives them, back to [`Element`]s.

use std::net::IpAddr;

use imbl::OrdSet;
use ringfence_model::{AddressRange, Family, Protocol};
use ringfence_ruleset::{Element, SetKind};

use crate::rule::address_of;
use crate::uapi::value as v;

/// Every kind of set.
pub(crate) const KINDS: [SetKind; 7] = [
    SetKind::Services(Family::V4),
    SetKind::Services(Family::V6),
    SetKind::Addresses(Family::V4),
    SetKind::Addresses(Family::V6),
    SetKind::Ranges(Family::V4),
    SetKind::Ranges(Family::V6),
    SetKind::Ports,
];

/// Collects the elements of one set.
pub(crate) struct Collector {
    kind: SetKind,
    elements: Vec<Element>,
    /// Of ranges: every boundary, and whether a range ends before it.
    boundaries: Vec<(IpAddr, bool)>,
}

impl Collector {
    pub(crate) fn new(kind: SetKind) -> Self {
        Self {
            kind,
            elements: Vec::new(),
            boundaries: Vec::new(),
        }
    }

    /// Takes the key of one element and its flags; in words what is not understood.
    pub(crate) fn add(&mut self, key: &[u8], flags: u32) -> Result<(), String> {
        let foreign = || format!("an element {key:02x?} with flags {flags}");
        if self.kind.is_interval() {
            let end = flags == v::SET_ELEM_INTERVAL_END;
            let address = address_of(key)
                .filter(|address| self.kind == SetKind::Ranges(Family::of(*address)) && (end || flags == 0))
                .ok_or_else(foreign)?;
            self.boundaries.push((address, end));
            return Ok(());
        }
        let element = parse(self.kind, key)
            .filter(|element| flags == 0 && self.kind.fits(element))
            .ok_or_else(foreign)?;
        self.elements.push(element);
        Ok(())
    }

    /// The set; in words what is wrong with its ranges.
    pub(crate) fn finish(mut self) -> Result<OrdSet<Element>, String> {
        // At one address a range may end and another begin: `true` is to come first. The kernel's own order is that
        // of its data structure.
        self.boundaries.sort_unstable_by_key(|(address, end)| (*address, !*end));
        let mut open: Option<IpAddr> = None;
        for (address, end) in self.boundaries {
            match (open, end) {
                (None, false) => open = Some(address),
                (Some(first), true) => {
                    let range = before(address).and_then(|last| AddressRange::new(first, last));
                    self.elements
                        .push(Element::Range(range.ok_or_else(|| format!("a range up to {address}"))?));
                    open = None;
                }
                // nft ends a set that does not begin at 0 with an end at 0: no range at all.
                (None, true) if before(address).is_none() => {}
                (None, true) => return Err(format!("an end at {address} without a beginning")),
                (Some(first), false) => return Err(format!("a range from {first} within another")),
            }
        }
        if let Some(first) = open {
            let range = AddressRange::new(first, Family::of(first).last());
            self.elements.extend(range.map(Element::Range));
        }
        self.elements.sort_unstable();
        Ok(self.elements.into_iter().collect())
    }
}

fn parse(kind: SetKind, key: &[u8]) -> Option<Element> {
    match kind {
        SetKind::Addresses(_) => address_of(key).map(Element::Address),
        SetKind::Services(_) => {
            let (address, service) = key.split_at_checked(key.len().checked_sub(8)?)?;
            let (protocol, port) = parse_service(service)?;
            Some(Element::Service(address_of(address)?, protocol, port))
        }
        SetKind::Ports => {
            let (protocol, port) = parse_service(key)?;
            Some(Element::Port(protocol, port))
        }
        SetKind::Ranges(_) => None,
    }
}

/// Protocol and port, each at the start of 4 bytes.
fn parse_service(key: &[u8]) -> Option<(Protocol, u16)> {
    let [number, 0, 0, 0, high, low, 0, 0] = key else {
        return None;
    };
    let protocol = Protocol::ALL.into_iter().find(|it| it.number() == *number)?;
    Some((protocol, u16::from_be_bytes([*high, *low])))
}

/// The address before this one.
fn before(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => address.to_bits().checked_sub(1).map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(address) => address.to_bits().checked_sub(1).map(|bits| IpAddr::V6(bits.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by fuzzing: ranges were taken whatever their family, unlike every other kind of element.
    #[test]
    fn an_element_of_another_family_is_foreign() {
        let keys: [&[u8]; 2] = [&[10, 0, 0, 1], &[0xfd; 16]];
        for (kind, fits) in [
            (SetKind::Ranges(Family::V4), [true, false]),
            (SetKind::Ranges(Family::V6), [false, true]),
            (SetKind::Addresses(Family::V4), [true, false]),
            (SetKind::Addresses(Family::V6), [false, true]),
        ] {
            for (key, fits) in keys.iter().zip(fits) {
                assert_eq!(Collector::new(kind).add(key, 0).is_ok(), fits, "{kind} {key:?}");
            }
        }
    }
}
