//! Whole rulesets as nft text, one file for each feature; all of them load with `nft -f`. `UPDATE_EXPECT=1 cargo test`
//! writes them anew: read the difference.

use expect_test::{ExpectFile, expect_file};
use ringfence_model::{Object, Protocol, Scope};
use ringfence_policy::{Index, Options};
use ringfence_ruleset::KernelFeatures;

use crate::support::{
    NET_A, NET_B, PodBuilder, PolicyBuilder, addr, anything, block, everybody, facts, from, index_with, named,
    namespace, options, pod, pods, pods_in, policy, rule, tcp, tcp_range, udp, uid, whole,
};

/// Without what a kernel may lack, so that each text shows one thing.
fn plain() -> Options {
    Options {
        kernel: KernelFeatures {
            owner_persist: false,
            egress_backstop: false,
            fib: false,
        },
        ..options()
    }
}

fn peers() -> Vec<Object> {
    vec![
        namespace("x", "team=red").into_object(),
        namespace("y", "team=blue").into_object(),
        pod("x/web", "app=web")
            .a(&["10.20.1.11", "fd00:20::1:11"])
            .b(&["10.30.1.11"])
            .port("http", Protocol::Tcp, 8080)
            .into(),
        pod("x/db", "app=db")
            .a(&["10.20.1.12"])
            .port("http", Protocol::Tcp, 80)
            .into(),
        pod("y/web", "app=web").a(&["10.20.2.11"]).into(),
    ]
}

trait IntoObject {
    fn into_object(self) -> Object;
}

impl IntoObject for ringfence_model::Namespace {
    fn into_object(self) -> Object {
        Object::Namespace(self)
    }
}

fn target() -> PodBuilder {
    pod("x/target", "app=target").a(&["10.20.1.10", "fd00:20::1:10"])
}

#[track_caller]
fn check_with(
    options: Options,
    target: PodBuilder,
    policies: impl IntoIterator<Item = PolicyBuilder>,
    expected: &ExpectFile,
) {
    let objects = peers()
        .into_iter()
        .chain([target.into()])
        .chain(policies.into_iter().map(Object::from));
    let mut index = index_with(options, objects);
    index.set_facts(&uid("x/target"), Some(facts(&["eth0", "net1"], &["10.244.1.1"])));
    index.commit();
    expected.assert_eq(&text(&index));
}

fn text(index: &Index) -> String {
    index
        .ruleset(&uid("x/target"))
        .map_or_else(|| "# no ruleset\n".into(), ToString::to_string)
}

#[track_caller]
fn check(policies: impl IntoIterator<Item = PolicyBuilder>, expected: &ExpectFile) {
    check_with(plain(), target(), policies, expected);
}

/// The policy that the texts are about: it selects the target only.
fn guard() -> PolicyBuilder {
    policy("x/guard").target("app=target")
}

#[test]
fn s001_no_policy_no_table() {
    check([], &expect_file!["golden/no-policy-no-table.nft"]);
}

#[test]
fn s015_deny_all_ingress() {
    check([guard().ingress([])], &expect_file!["golden/deny-all-ingress.nft"]);
}

#[test]
fn s016_deny_all_with_source_check_and_backstop() {
    check_with(
        options(),
        target(),
        [guard().ingress([]).egress([])],
        &expect_file!["golden/deny-all-with-source-check-and-backstop.nft"],
    );
}

#[test]
fn s010_allow_all_beside_deny_all() {
    check_with(
        options(),
        target(),
        [
            guard().ingress([]).egress([anything()]),
            policy("x/open").ingress([anything()]),
        ],
        &expect_file!["golden/allow-all-beside-deny-all.nft"],
    );
}

#[test]
fn exact_any_and_class_peers() {
    let rules = [
        rule([pods("app=web")], [tcp(80), udp(53)]),
        rule([pods("app=db")], [tcp_range(1000, 2000), whole(Protocol::Sctp)]),
        from([pods_in("team=blue", "")]),
    ];
    check(
        [guard().ingress(rules)],
        &expect_file!["golden/exact-any-and-class-peers.nft"],
    );
}

#[test]
fn s029_everybody_may_use_some_ports() {
    check(
        [guard().ingress([everybody([tcp(80), whole(Protocol::Udp)])])],
        &expect_file!["golden/everybody-may-use-some-ports.nft"],
    );
}

#[test]
fn s062_s063_s064_s071_s076_blocks() {
    let rules = [
        rule(
            [block("10.0.0.0/8", &["10.20.0.0/16"]), block("10.20.9.0/24", &[])],
            [tcp(443)],
        ),
        rule([block("0.0.0.0/0", &[]), block("fd00::/8", &[])], [udp(53)]),
        from([block("192.0.2.1/32", &[]), block("198.51.100.0/24", &[])]),
    ];
    check([guard().egress(rules)], &expect_file!["golden/blocks.nft"]);
}

/// Every second network of two lengths, so that nothing merges.
#[test]
fn many_blocks_are_looked_up_by_their_prefix_lengths() {
    let blocks = (0..64).map(|number| match number % 4 {
        0 => block(&format!("10.{number}.0.0/16"), &[]),
        _ => block(&format!("10.{number}.2.0/24"), &[]),
    });
    let rules = [rule(blocks.chain([block("fd00:20::/64", &[])]), [tcp(443), udp(443)])];
    check([guard().ingress(rules)], &expect_file!["golden/many-blocks.nft"]);
}

#[test]
fn s089_s090_named_ports() {
    let http = || named("http", Protocol::Tcp);
    check_with(
        plain(),
        target().port("http", Protocol::Tcp, 9090),
        [guard()
            .ingress([rule([pods("app=web")], [http()])])
            .egress([everybody([http()])])],
        &expect_file!["golden/named-ports.nft"],
    );
}

#[test]
fn many_ports_have_a_chain_and_a_set() {
    let ports: Vec<_> = (0..6)
        .map(|step| tcp(8000 + 10 * step))
        .chain([tcp_range(1000, 2000), udp(53), whole(Protocol::Sctp)])
        .collect();
    check(
        [guard().ingress([rule([pods("app=web"), block("10.0.0.0/8", &[])], ports)])],
        &expect_file!["golden/many-ports-have-a-chain-and-a-set.nft"],
    );
}

#[test]
fn s117_the_node_reaches_its_pods_on_the_cluster_network() {
    let options = Options {
        scope: Scope::All,
        node_addresses: [addr("192.0.2.10")].into(),
        ..plain()
    };
    let mut target = pod("x/target", "app=target")
        .on("eth0", &["default", "canal"], &["10.244.1.10"])
        .a(&["10.20.1.10"]);
    target.0.host_addresses = [addr("2001:db8::10")].into();
    check_with(
        options,
        target,
        [guard().in_scope().ingress([rule([pods("app=web")], [tcp(80)])])],
        &expect_file!["golden/the-node-reaches-its-pods-on-the-cluster-network.nft"],
    );
}

#[test]
fn s153_only_the_covered_interface_is_isolated() {
    let target = target().b(&["10.30.1.10"]).on("eth0", &["default"], &["10.244.1.10"]);
    check_with(
        plain(),
        target,
        [guard().covering(&[NET_B]).egress([from([pods("app=web")])])],
        &expect_file!["golden/only-the-covered-interface-is-isolated.nft"],
    );
}

#[test]
fn interface_names_that_are_no_identifiers() {
    let target = pod("x/target", "app=target").on("0net@x", &[NET_A], &["10.20.1.10"]);
    check_with(
        plain(),
        target,
        [guard().ingress([rule([pods("app=db")], [tcp(80)])])],
        &expect_file!["golden/interface-names-that-are-no-identifiers.nft"],
    );
}

#[test]
fn s168_an_attachment_without_a_name_is_closed() {
    let target = pod("x/target", "app=target")
        .on("eth0", &["default"], &["10.244.1.10"])
        .on("", &[NET_A], &["10.20.1.10"]);
    check_with(
        plain(),
        target,
        [guard().ingress([anything()])],
        &expect_file!["golden/an-attachment-without-a-name-is-closed.nft"],
    );
}
