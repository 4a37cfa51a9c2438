//! The address plan of the crate's first page, as functions.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result};
use ringfence_model::Family;

/// First host number of pods.
const FIRST_POD: u16 = 10;
/// How many pods one topology can have, so that every number fits into the last byte, twice.
pub(crate) const MOST_PODS: u16 = 100;

/// A node's address on the underlay; nodes count from 1.
pub fn node(node: u16, family: Family) -> Result<IpAddr> {
    let host = 10 + node;
    Ok(match family {
        Family::V4 => Ipv4Addr::new(192, 0, 2, byte(host)?).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, digits(host)?).into(),
    })
}

/// Address `host` of network `network` (from 0) on node `node` (from 1). Host 1 is the gateway.
pub fn on_network(network: u16, node: u16, host: u16, family: Family) -> Result<IpAddr> {
    Ok(match family {
        Family::V4 => Ipv4Addr::new(10, byte(20 + network)?, byte(node)?, byte(host)?).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, digits(20 + network)?, 0, 0, 0, 0, digits(node)?, digits(host)?).into(),
    })
}

/// A pod's address. `repeat` counts its earlier attachments on the same network.
pub fn pod(network: u16, node: u16, pod: u16, repeat: u16, family: Family) -> Result<IpAddr> {
    on_network(network, node, FIRST_POD + pod + repeat * MOST_PODS, family)
}

/// Prefix length of a whole network.
pub fn network_length(family: Family) -> u8 {
    match family {
        Family::V4 => 16,
        Family::V6 => 64,
    }
}

/// The part of a network on one node, as text with its length.
pub fn node_prefix(network: u16, node: u16, family: Family) -> Result<String> {
    let length = match family {
        Family::V4 => 24,
        Family::V6 => 112,
    };
    Ok(format!("{}/{length}", on_network(network, node, 0, family)?))
}

/// A whole network, as text with its length.
pub fn network_prefix(network: u16, family: Family) -> Result<String> {
    Ok(format!(
        "{}/{}",
        on_network(network, 0, 0, family)?,
        network_length(family)
    ))
}

/// MAC address of an interface of a pod.
pub fn mac(pod: u16, interface: u8) -> [u8; 6] {
    let [high, low] = pod.to_be_bytes();
    [0x02, 0x72, 0x66, high, low, interface]
}

/// A MAC address as people write it.
pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn byte(number: u16) -> Result<u8> {
    u8::try_from(number).with_context(|| format!("{number} is outside of the address plan"))
}

/// The group of an IPv6 address that reads like this decimal number.
fn digits(number: u16) -> Result<u16> {
    u16::from_str_radix(&number.to_string(), 16).with_context(|| format!("{number} is outside of the address plan"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_reads_as_documented() {
        let check =
            |found: Result<IpAddr>, expected: &str| assert_eq!(found.expect("in the plan").to_string(), expected);
        check(node(2, Family::V4), "192.0.2.12");
        check(node(2, Family::V6), "2001:db8::12");
        check(pod(0, 1, 0, 0, Family::V4), "10.20.1.10");
        check(pod(0, 1, 0, 0, Family::V6), "fd00:20::1:10");
        check(pod(3, 2, 12, 1, Family::V4), "10.23.2.122");
        check(pod(3, 2, 12, 1, Family::V6), "fd00:23::2:122");
        check(on_network(1, 2, 1, Family::V6), "fd00:21::2:1");
        assert_eq!(node_prefix(0, 1, Family::V6).expect("in the plan"), "fd00:20::1:0/112");
        assert_eq!(network_prefix(1, Family::V4).expect("in the plan"), "10.21.0.0/16");
        assert_eq!(mac_text(mac(258, 3)), "02:72:66:01:02:03");
        assert!(on_network(250, 1, 1, Family::V4).is_err());
    }
}
