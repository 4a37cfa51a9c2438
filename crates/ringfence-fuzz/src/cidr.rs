//! ipBlocks as texts: the first line is `cidr`, each further one an `except` (statements 62, 63, 68, 72, 73, 76, 221,
//! 222).

use std::net::IpAddr;

use ipnet::IpNet;
use ringfence_model::{IpBlock, Peer};
use serde_json::json;

use crate::{text, write};

/// Reads lines.
pub fn run(data: &[u8]) {
    let text = text(data);
    let mut lines = text.split('\n');
    let cidr = lines.next().unwrap_or_default();
    let except: Vec<&str> = lines.take(16).collect();
    let (peer, diagnostics) = write::first_peer(&json!({ "ipBlock": { "cidr": cidr, "except": except } }));
    // What any reader of CIDRs takes, this one takes too, with two exceptions: prefixes that match no packet.
    if let Ok(net) = cidr.parse::<IpNet>()
        && except.is_empty()
    {
        let mapped = matches!(net.addr(), IpAddr::V6(address) if address.to_ipv4_mapped().is_some());
        match &peer {
            Peer::IpBlock(block) => assert_eq!((block.cidr, mapped), (net.trunc(), false), "{cidr:?}"),
            other => assert!(mapped, "{cidr:?} is {other:?}"),
        }
    }
    match peer {
        Peer::IpBlock(block) => {
            if diagnostics == 0 {
                assert_eq!(block.except.len(), except.len(), "an except got lost: {block}");
            }
            let shown = block.cidr.to_string();
            let (again, _) = write::first_peer(&json!({ "ipBlock": { "cidr": shown } }));
            let without = IpBlock {
                cidr: block.cidr,
                except: Vec::new(),
            };
            assert_eq!(again, Peer::IpBlock(without), "what is shown is read again");
        }
        Peer::Nothing => assert!(diagnostics > 0, "{cidr:?} was rejected in silence"),
        other @ Peer::Pods { .. } => panic!("an ipBlock is no {other:?}"),
    }
}

/// Ranges of a block hold an address exactly where the block's own words do, looked at around every boundary.
pub fn check_block(block: &IpBlock) {
    assert_eq!(block.cidr, block.cidr.trunc(), "host bits are masked (statement 72)");
    for except in &block.except {
        let inside = block.cidr.contains(except) && except.prefix_len() > block.cidr.prefix_len();
        assert!(inside, "{except} is no part of {} (statement 68)", block.cidr);
    }
    let ranges = block.ranges();
    for net in block.except.iter().chain([&block.cidr]) {
        for address in around(net.network()).into_iter().chain(around(net.broadcast())) {
            let wanted = holds(block.cidr, address) && !block.except.iter().any(|except| holds(*except, address));
            assert_eq!(ranges.contains(address), wanted, "{address} in {block}");
        }
    }
    for pair in ranges.ranges().windows(2) {
        assert!(pair[0].last() < pair[1].first(), "{block} overlaps: {ranges:?}");
    }
}

/// Bit by bit, without the arithmetic of ranges.
fn holds(net: IpNet, address: IpAddr) -> bool {
    let (a, b) = match (net.addr(), address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.octets().to_vec(), b.octets().to_vec()),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.octets().to_vec(), b.octets().to_vec()),
        _ => return false,
    };
    (0..usize::from(net.prefix_len())).all(|bit| {
        let of = |bytes: &[u8]| bytes[bit / 8] >> (7 - bit % 8) & 1;
        of(&a) == of(&b)
    })
}

/// The address and its neighbours, as far as the family goes.
fn around(address: IpAddr) -> Vec<IpAddr> {
    let mut found = vec![address];
    match address {
        IpAddr::V4(it) => {
            let bits = it.to_bits();
            let near = [bits.checked_sub(1), bits.checked_add(1)];
            found.extend(near.into_iter().flatten().map(|bits| IpAddr::V4(bits.into())));
        }
        IpAddr::V6(it) => {
            let bits = it.to_bits();
            let near = [bits.checked_sub(1), bits.checked_add(1)];
            found.extend(near.into_iter().flatten().map(|bits| IpAddr::V6(bits.into())));
        }
    }
    found
}
