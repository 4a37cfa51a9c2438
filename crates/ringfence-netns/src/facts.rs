//! What a namespace holds: interfaces with their addresses, and the gateways of its default routes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ringfence_model::InterfaceName;

use crate::Error;
use crate::rtnetlink::{Message, Route, attributes, int32, uint16, uint32};

// linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const IFLA_IFNAME: u16 = 3;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_GATEWAY: u16 = 5;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RTN_UNICAST: u8 = 1;
const RT_TABLE_MAIN: u32 = 254;
/// Lengths of `struct ifinfomsg`, `ifaddrmsg`, `rtmsg` and `rtnexthop`.
const LINK: usize = 16;
const ADDRESS: usize = 8;
const ROUTE: usize = 12;
const NEXT_HOP: usize = 8;

/// What one namespace holds. Equal facts of two moments mean that nothing of this has changed in between.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// Every interface, up or down and `lo` too, with all addresses of both families, link-local ones included.
    pub interfaces: BTreeMap<InterfaceName, BTreeSet<IpAddr>>,
    /// Gateways of the default routes in the main routing table, on-link ones (Calico's 169.254.1.1) and link-local
    /// ones included. Default routes without a gateway give none.
    pub gateways: BTreeSet<IpAddr>,
    /// Names of interfaces that [`InterfaceName`] refuses, so that no rule can name them; bytes that are not UTF-8
    /// are replaced.
    pub refused: BTreeSet<String>,
}

/// Reads the facts of the calling thread's namespace. Needs no capability.
pub fn facts() -> Result<Facts, Error> {
    let route = Route::open()?;
    let links = route.dump("interfaces", RTM_GETLINK, &[0; LINK])?;
    let addresses = route.dump("addresses", RTM_GETADDR, &[0; ADDRESS])?;
    let mut routes = Vec::new();
    // One request per family: asked for both at once the kernel adds multicast routes, which may be very many.
    for family in [libc::AF_INET, libc::AF_INET6] {
        let mut request = [0; ROUTE];
        request[0] = family_byte(family);
        routes.extend(route.dump("routes", RTM_GETROUTE, &request)?);
    }
    Ok(gather(&links, &addresses, &routes))
}

/// What three dumps say together. Messages of another kind say nothing.
pub(crate) fn gather(links: &[Message], addresses: &[Message], routes: &[Message]) -> Facts {
    let mut facts = Facts::default();
    let mut names: BTreeMap<i32, InterfaceName> = BTreeMap::new();
    for message in links {
        let Some((index, name)) = link(message) else { continue };
        match std::str::from_utf8(name)
            .ok()
            .and_then(|text| InterfaceName::new(text).ok())
        {
            Some(name) => {
                facts.interfaces.entry(name.clone()).or_default();
                names.insert(index, name);
            }
            None => {
                facts.refused.insert(String::from_utf8_lossy(name).into_owned());
            }
        }
    }
    for message in addresses {
        let Some((index, address)) = address(message) else {
            continue;
        };
        // An address of an interface that appeared between both dumps: the next reading has it.
        if let Some(addresses) = names.get(&index).and_then(|name| facts.interfaces.get_mut(name)) {
            addresses.insert(address);
        }
    }
    facts.gateways.extend(routes.iter().flat_map(default_gateways));
    facts
}

/// Index and name of an interface.
fn link(message: &Message) -> Option<(i32, &[u8])> {
    if message.kind != RTM_NEWLINK {
        return None;
    }
    let index = int32(&message.body, 4)?;
    let (_, name) = attributes(message.body.get(LINK..)?).find(|(kind, _)| *kind == IFLA_IFNAME)?;
    Some((index, name.split(|byte| *byte == 0).next()?))
}

/// Index of the interface, and the address that it has.
fn address(message: &Message) -> Option<(i32, IpAddr)> {
    if message.kind != RTM_NEWADDR {
        return None;
    }
    let index = int32(&message.body, 4)?;
    let of = |wanted: u16| {
        attributes(message.body.get(ADDRESS..).unwrap_or_default())
            .find(|(kind, _)| *kind == wanted)
            .and_then(|(_, value)| ip(value))
    };
    // On a point-to-point interface IFA_ADDRESS is the other end's; IFA_LOCAL is always one's own, but IPv6
    // addresses without a peer do not have it.
    Some((index, of(IFA_LOCAL).or_else(|| of(IFA_ADDRESS))?))
}

/// The gateways of a message, if it is a default route of the main table.
fn default_gateways(message: &Message) -> BTreeSet<IpAddr> {
    let fixed = message.body.get(..ROUTE).unwrap_or_default();
    let [_, destination_length, _, _, table, _, _, kind, ..] = fixed else {
        return BTreeSet::new();
    };
    if message.kind != RTM_NEWROUTE || *destination_length != 0 || *kind != RTN_UNICAST {
        return BTreeSet::new();
    }
    let parts: Vec<(u16, &[u8])> = attributes(&message.body[ROUTE..]).collect();
    let table = parts
        .iter()
        .find(|(kind, _)| *kind == RTA_TABLE)
        .and_then(|(_, value)| uint32(value, 0))
        .unwrap_or_else(|| u32::from(*table));
    if table != RT_TABLE_MAIN {
        return BTreeSet::new();
    }
    let several = parts
        .iter()
        .filter(|(kind, _)| *kind == RTA_MULTIPATH)
        .flat_map(|(_, value)| next_hops(value));
    parts
        .iter()
        .map(|(kind, value)| (*kind, *value))
        .chain(several)
        .filter_map(|(kind, value)| match kind {
            RTA_GATEWAY => ip(value),
            // An IPv4 route over an IPv6 neighbour: the family, then the address.
            RTA_VIA => ip(value.get(2..)?),
            _ => None,
        })
        .collect()
}

/// The attributes of all next hops of a multipath route.
fn next_hops(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut found = Vec::new();
    while let Some(hop) = uint16(bytes, 0).and_then(|length| bytes.get(NEXT_HOP..usize::from(length))) {
        found.extend(attributes(hop));
        bytes = bytes
            .get((NEXT_HOP + hop.len()).next_multiple_of(4)..)
            .unwrap_or_default();
    }
    found
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes)
            .ok()
            .map(|it| IpAddr::from(Ipv4Addr::from(it))),
        16 => <[u8; 16]>::try_from(bytes)
            .ok()
            .map(|it| IpAddr::from(Ipv6Addr::from(it))),
        _ => None,
    }
}

/// Address families are small numbers in an `int`.
fn family_byte(family: libc::c_int) -> u8 {
    u8::try_from(family).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    //! Against the kernel: they need root and iproute2, and fail without.

    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::scratch;

    /// Lines for `ip -batch`, in the calling thread's namespace.
    fn ip_batch(lines: &[&str]) {
        let mut child = Command::new("ip")
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("start ip");
        let mut input = child.stdin.take().expect("a pipe");
        input.write_all(lines.join("\n").as_bytes()).expect("write to ip");
        drop(input);
        assert!(
            child.wait().expect("wait for ip").success(),
            "ip -batch failed: {lines:#?}"
        );
    }

    fn facts_after(lines: &[&str]) -> Facts {
        scratch(|| {
            ip_batch(lines);
            facts().expect("read the facts")
        })
        .expect("make a namespace (are you root?)")
    }

    fn addresses(facts: &Facts, interface: &str) -> Vec<String> {
        let name = InterfaceName::new(interface).expect("a good name");
        let found = facts
            .interfaces
            .get(&name)
            .unwrap_or_else(|| panic!("{interface} is not in {facts:#?}"));
        found.iter().map(ToString::to_string).collect()
    }

    /// The shape that Calico makes: a /32 address, and an on-link gateway for both families.
    const CALICO: [&str; 9] = [
        "link add host type veth peer name eth0",
        "link set host up",
        "link set eth0 up",
        "addr add 10.20.1.10/32 dev eth0",
        "addr add fd00:20::10/128 dev eth0 nodad",
        "route add 169.254.1.1 dev eth0 scope link",
        "route add default via 169.254.1.1 dev eth0",
        "route add fe80::ecee:eeff:feee:eeee dev eth0",
        "route add default via fe80::ecee:eeff:feee:eeee dev eth0",
    ];

    #[test]
    fn interfaces_addresses_and_on_link_gateways() {
        let facts = facts_after(&CALICO);
        let mut eth0 = addresses(&facts, "eth0");
        eth0.retain(|text| !text.starts_with("fe80:"));
        assert_eq!(eth0, ["10.20.1.10", "fd00:20::10"]);
        let gateways: Vec<String> = facts.gateways.iter().map(ToString::to_string).collect();
        assert_eq!(gateways, ["169.254.1.1", "fe80::ecee:eeff:feee:eeee"]);
        assert_eq!(addresses(&facts, "lo"), Vec::<String>::new());
        assert!(facts.refused.is_empty(), "{facts:#?}");
    }

    #[test]
    fn a_new_namespace_has_no_gateways() {
        let facts = scratch(|| facts().expect("read the facts")).expect("make a namespace (are you root?)");
        assert!(facts.gateways.is_empty());
        assert!(
            facts
                .interfaces
                .contains_key(&InterfaceName::new("lo").expect("a good name"))
        );
    }

    /// getifaddrs would call the labelled address's interface `eth0:1`, and the far end of a point-to-point address
    /// is not one's own.
    #[test]
    fn labels_and_point_to_point_addresses() {
        let facts = facts_after(&[
            "link add host type veth peer name eth0",
            "addr add 10.20.1.10/24 dev eth0",
            "addr add 10.20.1.11/24 dev eth0 label eth0:1",
            "addr add 10.20.2.1 peer 10.20.2.2/32 dev host",
        ]);
        assert_eq!(addresses(&facts, "eth0"), ["10.20.1.10", "10.20.1.11"]);
        assert_eq!(addresses(&facts, "host"), ["10.20.2.1"]);
    }

    #[test]
    fn only_default_routes_of_the_main_table_give_gateways() {
        let mut lines = CALICO[..6].to_vec();
        lines.extend([
            "route add default table 100 via 169.254.1.1 dev eth0",
            "route add 10.0.0.0/8 via 169.254.1.1 dev eth0",
            "route add blackhole default metric 4000",
            "route add default dev host metric 3000",
        ]);
        assert_eq!(facts_after(&lines).gateways, BTreeSet::new());
    }

    #[test]
    fn several_next_hops_and_ipv4_over_ipv6() {
        let mut lines = CALICO[..5].to_vec();
        lines.extend([
            "addr add 10.30.0.1/24 dev host",
            "addr add 10.31.0.1/24 dev eth0",
            "route add default nexthop via 10.30.0.254 dev host nexthop via 10.31.0.254 dev eth0",
            "route add default metric 50 via inet6 fe80::1 dev eth0",
        ]);
        let gateways: Vec<String> = facts_after(&lines).gateways.iter().map(ToString::to_string).collect();
        assert_eq!(gateways, ["10.30.0.254", "10.31.0.254", "fe80::1"]);
    }

    #[test]
    fn interfaces_that_no_rule_can_name_are_reported() {
        let facts = facts_after(&[
            "link add plain type veth peer name eth*",
            "link add äöü type veth peer name \"net-1.x\"",
        ]);
        let refused: Vec<&str> = facts.refused.iter().map(String::as_str).collect();
        assert_eq!(refused, ["eth*", "äöü"]);
        assert_eq!(addresses(&facts, "net-1.x"), Vec::<String>::new());
    }

    #[test]
    fn messages_of_another_kind_or_cut_short_give_nothing() {
        let message = |kind, length| Message {
            kind,
            body: vec![0; length],
        };
        assert!(link(&message(RTM_NEWADDR, 64)).is_none());
        assert!(link(&message(RTM_NEWLINK, 3)).is_none());
        assert!(address(&message(RTM_NEWADDR, 5)).is_none());
        assert!(default_gateways(&message(RTM_NEWROUTE, 4)).is_empty());
        assert!(next_hops(&[0, 0, 0, 0, 0, 0, 0, 0, 0]).is_empty());
    }
}
