//! Names that say what a thing is for: `net1-in`, `net1-in-tcp-1000-2000-ip`.
//!
//! The parts after an interface's identifier never begin with `in` or `out` a second time, so the names of an
//! interface `net1` and of one called `net1-in` cannot meet. The longest is 128 bytes, as many as may be: 47 of an
//! interface that is spelt out, five for the direction, 67 of ports, nine of the ending.

use std::fmt::Write as _;

use ringfence_model::{Direction, Family, InterfaceName, PortRange, PortSet};
use ringfence_ruleset::Name;

/// More parts than this are counted and hashed instead of listed.
const LISTED_PARTS: usize = 4;

/// Maker of the names of one interface and direction.
#[derive(Debug, Clone)]
pub(super) struct Names {
    prefix: String,
}

impl Names {
    pub(super) fn new(interface: &InterfaceName, direction: Direction) -> Self {
        let direction = match direction {
            Direction::Ingress => "in",
            Direction::Egress => "out",
        };
        Self {
            prefix: format!("{}-{direction}", interface.as_identifier()),
        }
    }

    /// The judging chain: `net1-in`.
    pub(super) fn chain(&self) -> Name {
        Name::new(&self.prefix)
    }

    /// Anything else: `net1-in-reply`.
    pub(super) fn part(&self, part: &str) -> Name {
        Name::new(&format!("{}-{part}", self.prefix))
    }

    /// A set of one family: `net1-in-any-ip`; without a part `net1-in-ip`.
    pub(super) fn set(&self, part: &str, family: Family) -> Name {
        let family = match family {
            Family::V4 => "ip",
            Family::V6 => "ip6",
        };
        let separator = if part.is_empty() { "" } else { "-" };
        Name::new(&format!("{}{separator}{part}-{family}", self.prefix))
    }
}

/// A readable text for a set of ports, the same for equal ones and different for others: `tcp`, `udp-53`,
/// `tcp-1000-2000`, `tcp.udp-53`, and `tcp-80-and-12-more-1f3a9c01` where there are many parts.
pub(super) fn ports_text(ports: &PortSet) -> String {
    let Some(ranges) = ports.ranges() else {
        return "any".into();
    };
    let texts: Vec<String> = ranges.iter().copied().map(part_text).collect();
    let all = texts.join(".");
    match texts.first() {
        Some(first) if texts.len() > LISTED_PARTS => {
            format!("{first}-and-{}-more-{:08x}", texts.len() - 1, fnv1a(all.as_bytes()))
        }
        _ => all,
    }
}

fn part_text(range: PortRange) -> String {
    let mut text = range.protocol.keyword().to_owned();
    if !range.is_whole() {
        let _ = write!(text, "-{}", range.first);
        if range.first != range.last {
            let _ = write!(text, "-{}", range.last);
        }
    }
    text
}

/// FNV-1a, 32 bits: no secret and no defence, only a short text that stays the same from version to version.
fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, &byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use ringfence_model::Protocol;

    use super::*;

    #[track_caller]
    fn check(ranges: &[PortRange], expected: &str) {
        assert_eq!(ports_text(&PortSet::union_of(ranges.iter().copied())), expected);
    }

    #[test]
    fn ports_read_as_they_are_written() {
        let tcp = |first, last| PortRange {
            protocol: Protocol::Tcp,
            first,
            last,
        };
        check(&[PortRange::whole(Protocol::Tcp)], "tcp");
        check(&[tcp(1000, 2000)], "tcp-1000-2000");
        check(
            &[PortRange::single(Protocol::Udp, 53), PortRange::whole(Protocol::Tcp)],
            "tcp.udp-53",
        );
        let many: Vec<PortRange> = (0..13).map(|port| tcp(80 + 2 * port, 80 + 2 * port)).collect();
        check(&many, "tcp-80-and-12-more-0eebabc9");
        assert_eq!(ports_text(&PortSet::Everything), "any");
    }

    #[test]
    fn the_longest_name_is_not_cut() {
        let interface = InterfaceName::new("@@@@@@@@@@@@@@@").unwrap();
        let names = Names::new(&interface, Direction::Egress);
        let range = |first| PortRange {
            protocol: Protocol::Sctp,
            first,
            last: first + 10,
        };
        let ports = PortSet::union_of([range(10000), range(20000), range(30000), range(40000)]);
        let name = names.set(&format!("{}-net", ports_text(&ports)), Family::V6);
        assert!(name.as_str().ends_with("-net-ip6"), "{name}");
        assert_eq!(name.as_str().len(), 127);
        let name = names.set(&format!("{}-n128", ports_text(&ports)), Family::V6);
        assert!(name.as_str().ends_with("-n128-ip6"), "{name}");
        assert_eq!(name.as_str().len(), 128);
    }
}
