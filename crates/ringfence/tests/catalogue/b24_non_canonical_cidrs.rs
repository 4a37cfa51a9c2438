//! B24: antrea#1767, kube-router's handling of `::/0`.
//!
//! CIDRs with host bits, leading zeros, capitals or a length of 0 were refused by the kernel, compared as text, or split
//! wrongly. Host bits are masked off (statement 72), /0 means one whole family (71). Shown: each spelling matches exactly
//! what its canonical form matches, as cidr and as except.

use crate::support::manifest::{BLUE, admits, blue, lets_out};
use crate::support::world::World;

fn check(block: &str, inside: &[&str], outside: &[&str]) {
    for (policy, ingress) in [
        (admits("shop/guard", &format!("[{{ipBlock: {block}}}]")), true),
        (lets_out("shop/guard", &format!("[{{ipBlock: {block}}}]")), false),
    ] {
        let world = World::of([blue("shop/web", 10, "app=web").yaml(), policy]);
        for (addresses, expected) in [(inside, true), (outside, false)] {
            for address in addresses {
                let web = if address.contains(':') {
                    "shop/web@fd00:20::10"
                } else {
                    "shop/web@10.20.0.10"
                };
                let (from, to) = if ingress { (*address, web) } else { (web, *address) };
                assert_eq!(world.judge(from, to, BLUE, "80/tcp"), expected, "{block}: {address}");
            }
        }
    }
}

#[test]
fn s072_host_bits_leading_zeros_and_capitals() {
    check(
        "{cidr: 10.20.7.9/24}",
        &["10.20.7.0", "10.20.7.255"],
        &["10.20.6.255", "10.20.8.0", "fd00:20::7"],
    );
    check(
        "{cidr: 010.020.007.009/24}",
        &["10.20.7.0", "10.20.7.255"],
        &["8.16.7.9", "10.20.8.0"],
    );
    check(
        "{cidr: 'FD00:0020:0000::00AB/120'}",
        &["fd00:20::", "fd00:20::ff"],
        &["fd00:20::100", "10.20.0.1"],
    );
    check(
        "{cidr: 10.255.255.255/8, except: [10.20.7.9/16]}",
        &["10.0.0.0", "10.19.255.255", "10.21.0.0"],
        &["10.20.0.0", "10.20.255.255", "11.0.0.0"],
    );
}

#[test]
fn s071_s076_everything_of_one_family() {
    check(
        "{cidr: 0.0.0.0/0}",
        &["0.0.0.1", "128.0.0.1", "255.255.255.255"],
        &["fd00:20::1"],
    );
    check("{cidr: 10.1.2.3/0}", &["1.0.0.1", "250.0.0.1"], &["fd00:20::1"]);
    check(
        "{cidr: '::/0'}",
        &["fd00:20::1", "2001:db8::1", "64:ff9b::1", "ff0e::1"],
        &["10.20.0.1"],
    );
    check(
        "{cidr: '::/0', except: ['8000::/1']}",
        &["2001:db8::1", "7fff::1"],
        &["8000::1", "fd00:20::1"],
    );
    check("{cidr: 10.20.0.9/32}", &["10.20.0.9"], &["10.20.0.8", "10.20.0.11"]);
}
