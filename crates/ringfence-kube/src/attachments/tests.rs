//! Annotations as they occur, and what is understood of them.

use std::fmt::Write as _;

use expect_test::{Expect, expect};
use ringfence_model::{Attachment, Object};
use serde_json::json;

use crate::{decode_value, show};

const RESULT: &str = "multi-ip-preferences";
const CNI: &str = "cni";
const NETWORKS: &str = "networks";
const REQUEST: &str = "k8s.v1.cni.cncf.io/networks";
const STATUS: &str = "k8s.v1.cni.cncf.io/network-status";

pub(super) fn pod(annotations: &[(&str, &str)], addresses: &[&str]) -> (Vec<Attachment>, String) {
    let annotations: serde_json::Map<_, _> = annotations
        .iter()
        .map(|(key, value)| ((*key).to_owned(), json!(value)))
        .collect();
    let ips: Vec<_> = addresses.iter().map(|address| json!({"ip": address})).collect();
    let mut decoded = decode_value(
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "x", "name": "a", "annotations": annotations},
            "status": {"podIP": addresses.first(), "podIPs": ips},
        }),
        "test",
    );
    let decoded = decoded.remove(0);
    let Some(Object::Pod(pod)) = &decoded.object else {
        panic!("{decoded:?}");
    };
    let mut shown = show::attachments(&pod.attachments);
    for it in &decoded.diagnostics {
        let path = it.path.strip_prefix("metadata.annotations").unwrap_or(&it.path);
        let _ = writeln!(shown, "! {} at {path}: {}", it.reason.as_str(), it.message);
    }
    (pod.attachments.clone(), shown)
}

/// What becomes of a pod with these annotations.
pub(super) fn shown(annotations: &[(&str, &str)], addresses: &[&str]) -> String {
    pod(annotations, addresses).1
}

pub(super) fn check(annotations: &[(&str, &str)], addresses: &[&str], expected: &Expect) {
    let (attachments, shown) = pod(annotations, addresses);
    assert_eq!(attachments.iter().filter(|it| it.primary).count(), 1, "{shown}");
    expected.assert_eq(&shown);
}

#[test]
fn a_pod_without_annotations_has_its_primary_interface() {
    check(
        &[],
        &["10.244.0.9", "fd00::9"],
        &expect![[r#"
              eth0 (primary) on [default] has [10.244.0.9, fd00::9]
        "#]],
    );
    check(
        &[],
        &[],
        &expect![[r#"
              eth0 (primary) on [default] has []
        "#]],
    );
}

#[test]
fn genie_networks_are_joined_on_the_interface() {
    // As four generations of the writer number the entries: by position, by interface, by running count.
    let by_position = r#"{"multi_entry":2,"ips":{"":{},"ip1":{"ip":"10.244.0.201","interface":"eth0"},"ip2":{"ip":"10.32.0.4","interface":"eth1"}}}"#;
    check(
        &[(CNI, "canal,weave"), (RESULT, by_position)],
        &["10.244.0.201"],
        &expect![[r#"
              eth0 (primary) on [default, canal] has [10.244.0.201]
              eth1 on [weave] has [10.32.0.4]
        "#]],
    );
    check(
        &[(CNI, "weave,canal"), (RESULT, by_position)],
        &["10.244.0.201"],
        &expect![[r#"
              eth0 (primary) on [default, weave] has [10.244.0.201]
              eth1 on [canal] has [10.32.0.4]
        "#]],
    );
    let shifted = r#"{"multi_entry":1,"ips":{"ip1":{"ip":"10.32.0.4","interface":"eth2"}}}"#;
    check(
        &[(CNI, "weave,sriov,macvlan"), (RESULT, shifted)],
        &["10.244.0.201"],
        &expect![[r#"
              eth0 (primary) on [default, weave] has [10.244.0.201]
              eth1 on [sriov] has []
              eth2 on [macvlan] has [10.32.0.4]
        "#]],
    );
    let swapped_numbers =
        r#"{"ips":{"ip1":{"ip":"10.1.0.2","interface":"eth1"},"ip2":{"ip":"10.0.0.2","interface":"eth0"}}}"#;
    check(
        &[(CNI, " "), (NETWORKS, "net1@eth1,net2"), (RESULT, swapped_numbers)],
        &["10.0.0.2"],
        &expect![[r#"
              eth0 (primary) on [default, x/net2] has [10.0.0.2]
              eth1 on [x/net1] has [10.1.0.2]
        "#]],
    );
    check(
        &[(CNI, ""), (NETWORKS, "net1:eth0,net2:eth1"), (RESULT, swapped_numbers)],
        &["10.0.0.2"],
        &expect![[r#"
              eth0 (primary) on [default, x/net1] has [10.0.0.2]
              eth1 on [x/net2] has [10.1.0.2]
        "#]],
    );
    let first_of_two = r#"{"multi_entry":1,"ips":{"":{},"ip2":{"ip":"10.32.0.4","interface":"eth1"}}}"#;
    check(
        &[(CNI, "canal,weave"), (RESULT, first_of_two)],
        &["10.244.0.201"],
        &expect![[r#"
              eth0 (primary) on [default, canal] has [10.244.0.201]
              eth1 on [weave] has [10.32.0.4]
        "#]],
    );
}

#[test]
fn genie_interface_names_follow_from_the_request() {
    check(
        &[(CNI, "flannel,weave@eth4,flannel@eth3,bridge")],
        &["10.0.0.1"],
        &expect![[r#"
              eth0 (primary) on [default, flannel] has [10.0.0.1]
              eth1 on [bridge] has []
              eth3 on [flannel] has []
              eth4 on [weave] has []
        "#]],
    );
    check(
        &[(CNI, "flannel@eth1,weave,calico")],
        &["10.0.0.1"],
        &expect![[r#"
              eth0 (primary) on [default, weave] has [10.0.0.1]
              eth1 on [flannel] has []
              eth2 on [calico] has []
        "#]],
    );
    check(
        &[(CNI, "flannel,weave,flannel")],
        &["10.0.0.1"],
        &expect![[r#"
              eth0 (primary) on [default, flannel] has [10.0.0.1]
              eth1 on [weave] has []
              eth2 on [flannel] has []
        "#]],
    );
    check(
        &[(CNI, "a@net5,b@net5")],
        &["10.0.0.1"],
        &expect![[r#"
            eth0 (primary) on [default] has [10.0.0.1]
            net5 on [interface:net5] has []
            ! invalid_annotation at [cni]: two networks are requested for the interface net5; its network is unknown
        "#]],
    );
    check(
        &[(CNI, "calico,,weave@a/b,x y,")],
        &["10.0.0.1"],
        &expect![[r#"
            eth0 (primary) on [default, calico] has [10.0.0.1]
            eth1 on [interface:eth1] has []
            ! invalid_annotation at [cni]: an item of the list is empty; CNI-Genie refuses such a pod
            ! invalid_interface at [cni]: "a/b" is not a valid interface name: it contains '/' or ':'
            ! invalid_annotation at [cni]: "x y": a name has letters, digits, '-', '_' and '.', and begins with a letter or digit
            ! invalid_annotation at [cni]: an item of the list is empty; CNI-Genie refuses such a pod
        "#]],
    );
}

#[test]
fn genie_entries_without_a_request_are_known_by_their_interface() {
    let result = r#"{"ips":{"ip1":{"ip":"10.0.0.1","interface":"eth0"},"ip2":{"ip":"10.1.0.1","interface":"eth1"}}}"#;
    check(
        &[(RESULT, result)],
        &["10.0.0.1"],
        &expect![[r#"
              eth0 (primary) on [default] has [10.0.0.1]
              eth1 on [interface:eth1] has [10.1.0.1]
        "#]],
    );
    check(
        &[(CNI, "weave"), (RESULT, result)],
        &["10.0.0.1"],
        &expect![[r#"
              eth0 (primary) on [default, weave] has [10.0.0.1]
              eth1 on [interface:eth1] has [10.1.0.1]
        "#]],
    );
    check(
        &[(CNI, ""), (RESULT, result)],
        &["10.0.0.1"],
        &expect![[r#"
              eth0 (primary) on [default] has [10.0.0.1]
              eth1 on [interface:eth1] has [10.1.0.1]
        "#]],
    );
}

#[test]
fn genie_entries_in_foreign_dialects() {
    check(
        &[(RESULT, r#"{"ips":{"ip1":"10.0.0.1","ip2":"10.1.0.1"}}"#)],
        &["10.0.0.1"],
        &expect![[r#"
            eth0 (primary) on [default] has [10.0.0.1]
            ! invalid_annotation at [multi-ip-preferences].ips.ip2: 10.1.0.1 has no interface, so its network is unknown
        "#]],
    );
    check(
        &[(
            RESULT,
            r#"{"ips":{"ip1":{"ip":"eth0","interface":"10.0.0.1"},"ip2":{"ip":"eth1","interface":"10.1.0.1"}}}"#,
        )],
        &["10.0.0.1"],
        &expect![[r#"
              eth0 (primary) on [default] has [10.0.0.1]
              eth1 on [interface:eth1] has [10.1.0.1]
        "#]],
    );
    check(
        &[(
            RESULT,
            r#"{"IPS":{"a":{"IP":"10.2.0.1/24","Interface":" eth2 "},"ip10":{"ip":"10.1.0.10","interface":"eth10"},"ip2":{"ip":"10.1.0.2","interface":"eth1"}}}"#,
        )],
        &["10.0.0.1"],
        &expect![[r#"
              eth0 (primary) on [default] has [10.0.0.1]
              eth1 on [interface:eth1] has [10.1.0.2]
              eth10 on [interface:eth10] has [10.1.0.10]
              eth2 on [interface:eth2] has [10.2.0.1]
        "#]],
    );
    check(
        &[(
            RESULT,
            r#"{"multi_entry":"x","ips":{"ip1":{"ip":"10.9.0.9","interface":"eth1","ip":"10.1.0.1"},"ip1":{"ip":"10.1.0.2","interface":"eth1"}}}"#,
        )],
        &[],
        &expect![[r#"
              eth0 (primary) on [default] has []
              eth1 on [interface:eth1] has [10.1.0.2]
        "#]],
    );
}

#[test]
fn genie_entries_that_are_wrong() {
    for nothing in [
        "",
        " ",
        "{}",
        "null",
        "[]",
        "5",
        "true",
        "\"x\"",
        "{\"ips\":null}",
        "{\"ips\":{}}",
        "{",
        "not json",
        "{\"ips\":[]}",
    ] {
        let (attachments, shown) = pod(&[(RESULT, nothing)], &["10.0.0.1"]);
        assert_eq!(attachments, pod(&[], &["10.0.0.1"]).0, "{nothing:?}: {shown}");
    }
    check(
        &[(
            RESULT,
            r#"{"ips":{"ip1":null,"ip2":{},"ip3":{"ip":"","interface":""},"ip4":7,"ip5":{"ip":5,"interface":"eth5"},"ip6":{"ip":"fe80::1%eth0","interface":"eth6"},"ip7":{"ip":"10.0.0.7","interface":"a/b"},"ip8":{"ip":"10.0.0.8"},"ip9":{"ip":"","interface":"eth9"}}}"#,
        )],
        &[],
        &expect![[r#"
            eth0 (primary) on [default] has []
            eth5 on [interface:eth5] has []
            eth6 on [interface:eth6] has []
            eth9 on [interface:eth9] has []
            ! invalid_annotation at [multi-ip-preferences].ips.ip4: 7 instead of an object with "ip" and "interface"
            ! invalid_annotation at [multi-ip-preferences].ips.ip5.ip: 5 instead of a text
            ! invalid_address at [multi-ip-preferences].ips.ip6.ip: "fe80::1%eth0": an address with a zone is valid on one host only
            ! invalid_interface at [multi-ip-preferences].ips.ip7.interface: "a/b" is not a valid interface name: it contains '/' or ':'
            ! invalid_annotation at [multi-ip-preferences].ips.ip8: 10.0.0.8 has no interface, so its network is unknown
        "#]],
    );
    check(
        &[(
            RESULT,
            r#"{"ips":{"ip1":{"ip":"10.1.0.1","interface":"eth1"},"ip2":{"ip":"10.1.0.2","interface":"eth1"},"ip3":{"ip":"10.1.0.1","interface":"eth2"}}}"#,
        )],
        &[],
        &expect![[r#"
            eth0 (primary) on [default] has []
            eth1 on [interface:eth1] has [10.1.0.1, 10.1.0.2]
            eth2 on [interface:eth2] has [10.1.0.1]
            ! invalid_annotation at : two entries describe the interface eth1; it has the addresses and networks of both
        "#]],
    );
}

#[test]
fn s136_the_status_is_right_about_the_primary_interface() {
    let result = r#"{"ips":{"ip1":{"ip":"10.0.0.1","interface":"eth0"},"ip2":{"ip":"10.1.0.1","interface":"eth1"}}}"#;
    // Only one family is recorded by CNI-Genie.
    check(
        &[(CNI, "a,b"), (RESULT, result)],
        &["10.0.0.1", "fd00::1"],
        &expect![[r#"
              eth0 (primary) on [default, a] has [10.0.0.1, fd00::1]
              eth1 on [b] has [10.1.0.1]
        "#]],
    );
    // A new sandbox, or a forgery.
    check(
        &[(CNI, "a,b"), (RESULT, result)],
        &["10.0.0.2"],
        &expect![[r#"
            eth0 (primary) on [default, a] has [10.0.0.2]
            eth1 on [b] has [10.1.0.1]
            ! stale_annotation at : the annotation gives the primary interface 10.0.0.1, the status 10.0.0.2; the status counts (a new sandbox may be on its way)
        "#]],
    );
    check(
        &[(CNI, "a,b"), (RESULT, result)],
        &["fd00::1"],
        &expect![[r#"
              eth0 (primary) on [default, a] has [10.0.0.1, fd00::1]
              eth1 on [b] has [10.1.0.1]
        "#]],
    );
    // The primary interface need not be eth0.
    check(
        &[(CNI, "a,b"), (RESULT, result)],
        &["10.1.0.1"],
        &expect![[r#"
              eth0 on [a] has [10.0.0.1]
              eth1 (primary) on [default, b] has [10.1.0.1]
        "#]],
    );
    // No address yet.
    check(
        &[(CNI, "a,b"), (RESULT, result)],
        &[],
        &expect![[r#"
              eth0 (primary) on [default, a] has [10.0.0.1]
              eth1 on [b] has [10.1.0.1]
        "#]],
    );
    // An address of the pod's on another interface stays there.
    check(
        &[(CNI, "a,b"), (RESULT, result)],
        &["10.0.0.1", "10.1.0.1"],
        &expect![[r#"
              eth0 (primary) on [default, a] has [10.0.0.1]
              eth1 on [b] has [10.1.0.1]
        "#]],
    );
}

#[test]
fn a_single_genie_network_is_the_primary_one() {
    check(
        &[(CNI, "weave@eth5")],
        &["10.0.0.1"],
        &expect![[r#"
        eth5 (primary) on [default, weave] has [10.0.0.1]
    "#]],
    );
    check(
        &[(CNI, ""), (NETWORKS, "net1@eth1")],
        &["10.0.0.1"],
        &expect![[r#"
        eth1 (primary) on [default, x/net1] has [10.0.0.1]
    "#]],
    );
}

#[test]
fn of_two_dialects_the_request_decides() {
    let genie = (
        RESULT,
        r#"{"ips":{"ip1":{"ip":"10.0.0.1","interface":"eth0"},"ip2":{"ip":"10.1.0.1","interface":"eth1"}}}"#,
    );
    let status = (
        STATUS,
        r#"[{"name":"cbr0","interface":"eth0","ips":["10.0.0.1"],"default":true},{"name":"x/m","interface":"net1","ips":["10.2.0.1"]}]"#,
    );
    check(
        &[genie, status, (CNI, "a,b"), (REQUEST, "m")],
        &["10.0.0.1"],
        &expect![[r#"
            eth0 (primary) on [default, cbr0] has [10.0.0.1]
            net1 on [x/m] has [10.2.0.1]
            ! stale_annotation at [multi-ip-preferences]: left over, it is not used: the pod's networks are requested by another annotation
        "#]],
    );
    check(
        &[genie, status, (CNI, "a,b")],
        &["10.0.0.1"],
        &expect![[r#"
            eth0 (primary) on [default, a] has [10.0.0.1]
            eth1 on [b] has [10.1.0.1]
            ! stale_annotation at [k8s.v1.cni.cncf.io/network-status]: left over, it is not used: the pod's networks come from CNI-Genie
        "#]],
    );
    check(
        &[genie, status],
        &["10.0.0.1"],
        &expect![[r#"
            eth0 (primary) on [default, cbr0] has [10.0.0.1]
            net1 on [x/m] has [10.2.0.1]
            ! stale_annotation at [multi-ip-preferences]: left over, it is not used: network-status describes the pod's networks
        "#]],
    );
    // Without a request, the result that has the pod's address.
    let other = (
        STATUS,
        r#"[{"name":"cbr0","interface":"eth0","ips":["10.0.0.7"],"default":true}]"#,
    );
    check(
        &[genie, other],
        &["10.0.0.1"],
        &expect![[r#"
            eth0 (primary) on [default] has [10.0.0.1]
            eth1 on [interface:eth1] has [10.1.0.1]
            ! stale_annotation at [k8s.v1.cni.cncf.io/network-status]: left over, it is not used: the pod's networks come from CNI-Genie
        "#]],
    );
    check(
        &[status, (CNI, "calico")],
        &["10.0.0.1"],
        &expect![[r#"
              eth0 (primary) on [default, cbr0] has [10.0.0.1]
              net1 on [x/m] has [10.2.0.1]
        "#]],
    );
}

#[test]
fn calico_tells_when_an_address_is_released() {
    let status = (
        STATUS,
        r#"[{"name":"k8s-pod-network","ips":["172.16.104.52"],"default":true,"dns":{}}]"#,
    );
    check(
        &[status, ("cni.projectcalico.org/podIP", "")],
        &[],
        &expect![[r#"
            eth0 (primary) on [default, k8s-pod-network] has []
            ! stale_annotation at : 172.16.104.52 is no longer the pod's: cni.projectcalico.org/podIP is empty and the status has no address
        "#]],
    );
    check(
        &[status, ("cni.projectcalico.org/podIP", "172.16.104.52/32")],
        &[],
        &expect![[r#"
              eth0 (primary) on [default, k8s-pod-network] has [172.16.104.52]
        "#]],
    );
}

#[test]
fn large_values_and_many_entries_are_bounded() {
    let large = "x".repeat(10_000_000);
    let (attachments, shown) = pod(&[(RESULT, &large), (STATUS, &large), (CNI, &large)], &["10.0.0.1"]);
    assert_eq!(attachments, pod(&[], &["10.0.0.1"]).0);
    assert_eq!(shown.matches("! too_large").count(), 3, "{shown}");
    let many: Vec<_> = (0..1000)
        .map(|it| json!({"name": "x/a", "interface": format!("net{it}"), "ips": ["10.0.0.1"]}))
        .collect();
    let (attachments, shown) = pod(&[(STATUS, &serde_json::to_string(&many).unwrap())], &[]);
    assert_eq!(attachments.len(), 65, "64 entries and the primary interface");
    assert!(shown.contains("! too_large"), "{shown}");
    let deep = "[".repeat(100_000);
    let (attachments, _) = pod(&[(STATUS, &deep), (RESULT, &deep), (REQUEST, &deep)], &["10.0.0.1"]);
    assert_eq!(attachments, pod(&[], &["10.0.0.1"]).0);
}

#[test]
fn s021_host_network_pods_have_no_attachments() {
    let text = "{apiVersion: v1, kind: Pod, metadata: {name: a, annotations: {cni: 'a,b'}}, spec: {hostNetwork: true}, status: {podIP: 10.0.0.1}}";
    expect![[r#"
        Pod default/a uid=default/a hostNetwork started=0
    "#]]
    .assert_eq(&show::text(text));
}
