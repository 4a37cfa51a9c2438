//! F: ipBlock.

use ringfence_model::ObjectKey;
use serde_json::{Value, json};

use crate::world::{Row, uid, world};

/// Which of these addresses an ipBlock matches, as senders and as destinations.
#[track_caller]
fn check_blocks(blocks: &[Value], inside: &[&str], outside: &[&str]) {
    let peers: Vec<Value> = blocks.iter().map(|block| json!({"ipBlock": block})).collect();
    let ingress = world().web_ingress(&json!([{"from": peers}]));
    let egress = world().web_egress(&json!([{"to": peers}]));
    for (addresses, inward, outward) in [(inside, "aa", "aa"), (outside, "ad", "da")] {
        let rows: Vec<Row<'_>> = addresses.iter().map(|it| (*it, "x/a", "TCP/80", inward)).collect();
        ingress.check(&rows);
        let rows: Vec<Row<'_>> = addresses.iter().map(|it| ("x/a", *it, "TCP/80", outward)).collect();
        egress.check(&rows);
    }
}

#[test]
fn s062_a_block_matches_the_addresses_of_its_prefix() {
    check_blocks(
        &[json!({"cidr": "198.51.100.0/25"})],
        &["198.51.100.0", "198.51.100.127"],
        &["198.51.100.128", "198.51.99.255", "2001:db8::1"],
    );
    check_blocks(
        &[json!({"cidr": "2001:db8::/32"})],
        &["2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"],
        &["2001:db9::", "2001:db7:ffff::", "198.51.100.1"],
    );
}

#[test]
fn s063_s068_s222_excepts() {
    let block = |except: &[&str]| json!({"cidr": "198.51.100.0/24", "except": except});
    let kept = "198.51.100.200";
    let gone = "198.51.100.7";
    check_blocks(
        &[block(&["198.51.100.0/28"])],
        &[kept, "198.51.100.16"],
        &[gone, "198.51.100.15"],
    );
    check_blocks(
        &[block(&["198.51.100.0/28", "198.51.100.0/30"])],
        &[kept],
        &[gone, "198.51.100.1"],
    );
    // Not strictly inside: disjoint and of another family are ignored, covering leaves nothing.
    check_blocks(&[block(&["203.0.113.0/24"])], &[kept, gone], &["203.0.113.1"]);
    check_blocks(&[block(&["2001:db8::/32", "::/0"])], &[kept, gone], &[]);
    check_blocks(&[block(&["198.51.100.0/24"])], &[], &[kept, gone]);
    check_blocks(&[block(&["198.51.0.0/16"])], &[], &[kept, gone]);
    check_blocks(&[block(&["0.0.0.0/0"])], &[], &[kept, gone]);
}

#[test]
fn s064_s065_s066_s067_an_excepted_address_may_be_allowed_elsewhere() {
    let excepting = json!({"ipBlock": {"cidr": "10.20.0.0/16", "except": ["10.20.2.0/24"]}});
    let excepted: &[Row<'_>] = &[
        ("y/a", "x/a", "TCP/80", "ad"),
        ("y/b", "x/a", "TCP/80", "ad"),
        ("x/b", "x/a", "TCP/80", "aa"),
    ];
    world().web_ingress(&json!([{"from": [excepting]}])).check(excepted);
    let pardoned: &[Row<'_>] = &[("y/a", "x/a", "TCP/80", "aa"), ("y/b", "x/a", "TCP/80", "ad")];
    let one = json!({"ipBlock": {"cidr": "10.20.2.10/32"}});
    world()
        .web_ingress(&json!([{"from": [excepting, one]}]))
        .check(pardoned);
    world()
        .web_ingress(&json!([{"from": [excepting]}, {"from": [one]}]))
        .check(pardoned);
    world()
        .web_ingress(&json!([{"from": [excepting]}]))
        .mnp("x/more", &json!({"podSelector": {}, "ingress": [{"from": [one]}]}))
        .check(pardoned);
    let web =
        json!({"namespaceSelector": {"matchLabels": {"team": "blue"}}, "podSelector": {"matchLabels": {"app": "web"}}});
    world()
        .web_ingress(&json!([{"from": [excepting, web]}]))
        .check(pardoned);
}

#[test]
fn s069_s070_blocks_may_overlap_nest_and_repeat() {
    check_blocks(
        &[
            json!({"cidr": "198.51.100.0/24"}),
            json!({"cidr": "198.51.100.0/28"}),
            json!({"cidr": "198.51.100.0/28"}),
            json!({"cidr": "198.51.0.0/17"}),
        ],
        &["198.51.100.1", "198.51.100.200", "198.51.0.1"],
        &["198.51.200.1"],
    );
    // A nested block outside of the except's reach gives its addresses back.
    check_blocks(
        &[
            json!({"cidr": "198.51.100.0/24", "except": ["198.51.100.0/25"]}),
            json!({"cidr": "198.51.100.64/26"}),
        ],
        &["198.51.100.64", "198.51.100.128"],
        &["198.51.100.63"],
    );
}

#[test]
fn s071_s076_whole_families_and_single_addresses() {
    let v6 = ["fe80::1", "fd00::1", "64:ff9b::1", "2001:db8::1"];
    check_blocks(
        &[json!({"cidr": "0.0.0.0/0"})],
        &["203.0.113.1", "255.255.255.255"],
        &v6,
    );
    check_blocks(&[json!({"cidr": "::/0"})], &v6, &["203.0.113.1"]);
    check_blocks(
        &[json!({"cidr": "203.0.113.1/32"})],
        &["203.0.113.1"],
        &["203.0.113.0", "203.0.113.2"],
    );
    check_blocks(
        &[json!({"cidr": "2001:db8::1/128"})],
        &["2001:db8::1"],
        &["2001:db8::", "2001:db8::2"],
    );
    check_blocks(
        &[json!({"cidr": "0.0.0.0/0", "except": ["203.0.113.0/24", "10.0.0.0/8"]})],
        &["198.51.100.1"],
        &["203.0.113.1", "10.20.1.11", "2001:db8::1"],
    );
}

#[test]
fn s072_s073_s221_unusual_and_invalid_prefixes() {
    check_blocks(
        &[json!({"cidr": "198.51.100.77/24"})],
        &["198.51.100.1"],
        &["198.51.101.1"],
    );
    check_blocks(
        &[json!({"cidr": "198.051.100.000/24"})],
        &["198.51.100.1"],
        &["198.41.100.1"],
    );
    check_blocks(
        &[json!({"cidr": "2001:db8::77/64"})],
        &["2001:db8::1"],
        &["2001:db8:0:1::1"],
    );
    for invalid in [
        "::ffff:198.51.100.0/120",
        "198.51.100.0",
        "198.51.100.0/33",
        "198.51.100/24",
        "::/129",
        "",
    ] {
        check_blocks(
            &[json!({"cidr": invalid})],
            &[],
            &["198.51.100.1", "::ffff:198.51.100.1", "::1:1"],
        );
    }
}

#[test]
fn s074_s077_a_block_matches_pods_and_does_not_care_about_their_life() {
    let before = world().web_ingress(&json!([{"from": [{"ipBlock": {"cidr": "10.20.1.11/32"}}]}]));
    before.check(&[("x/b", "x/a", "TCP/80", "aa"), ("x/c", "x/a", "TCP/80", "ad")]);
    before
        .remove(&ObjectKey::Pod(uid("x/b")))
        .check(&[("10.20.1.11", "x/a", "TCP/80", "aa")]);
}
