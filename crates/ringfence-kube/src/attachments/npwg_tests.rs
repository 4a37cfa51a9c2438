//! The Network Plumbing Working Group's annotations, and what is understood of them.

use expect_test::expect;

use super::tests::{check, pod};

const CNI: &str = "cni";
const REQUEST: &str = "k8s.v1.cni.cncf.io/networks";
const STATUS: &str = "k8s.v1.cni.cncf.io/network-status";
const OLD_STATUS: &str = "k8s.v1.cni.cncf.io/networks-status";

#[test]
fn s158_s159_s161_network_status() {
    let two = r#"[{"name":"cbr0","interface":"eth0","ips":["10.244.1.73"],"default":true,"dns":{}},{"name":"y/macvlan","interface":"net1","ips":["192.168.1.205","fd00::5"],"mac":"86:1d:96:ff:55:0d","dns":{},"gateway":["<nil>"]}]"#;
    check(
        &[(STATUS, two)],
        &["10.244.1.73"],
        &expect![[r#"
              eth0 (primary) on [default, cbr0] has [10.244.1.73]
              net1 on [y/macvlan] has [192.168.1.205, fd00::5]
        "#]],
    );
    check(
        &[(OLD_STATUS, two)],
        &["10.244.1.73"],
        &expect![[r#"
              eth0 (primary) on [default, cbr0] has [10.244.1.73]
              net1 on [y/macvlan] has [192.168.1.205, fd00::5]
        "#]],
    );
    check(
        &[(STATUS, two), (OLD_STATUS, "")],
        &["10.244.1.73"],
        &expect![[r#"
            eth0 (primary) on [default, cbr0] has [10.244.1.73]
            net1 on [y/macvlan] has [192.168.1.205, fd00::5]
            ! stale_annotation at [k8s.v1.cni.cncf.io/networks-status]: differs from k8s.v1.cni.cncf.io/network-status, which counts
        "#]],
    );
    check(
        &[(STATUS, ""), (OLD_STATUS, two)],
        &["10.244.1.73"],
        &expect![[r#"
            eth0 (primary) on [default] has [10.244.1.73]
            ! stale_annotation at [k8s.v1.cni.cncf.io/networks-status]: differs from k8s.v1.cni.cncf.io/network-status, which counts
        "#]],
    );
    // The default entry last; a bare name; no flag at all (Multus 3.4).
    check(
        &[(
            STATUS,
            r#"[{"name":"macvlan","interface":"net1","ips":["192.168.1.205/24"]},{"name":"cbr0","interface":"eth0","ips":["10.244.1.73"]}]"#,
        )],
        &["10.244.1.73"],
        &expect![[r#"
              eth0 (primary) on [default, cbr0] has [10.244.1.73]
              net1 on [x/macvlan] has [192.168.1.205]
        "#]],
    );
    // The same, before the status has the address.
    check(
        &[(
            STATUS,
            r#"[{"name":"x/macvlan","interface":"net1","ips":["192.168.1.205"]},{"name":"cbr0","interface":"eth0","ips":["10.244.1.73"]}]"#,
        )],
        &[],
        &expect![[r#"
              eth0 (primary) on [default, cbr0] has [10.244.1.73]
              net1 on [x/macvlan] has [192.168.1.205]
        "#]],
    );
}

#[test]
fn s157_s158_s161_network_status_of_special_kinds() {
    // true on every interface of the default attachment (Multus 4.1.0).
    check(
        &[(
            STATUS,
            r#"[{"name":"ovn","interface":"eth1","ips":["100.64.0.2"],"default":true},{"name":"ovn","interface":"eth0","ips":["10.244.1.73"],"default":true}]"#,
        )],
        &["10.244.1.73"],
        &expect![[r#"
              eth0 (primary) on [default, ovn] has [10.244.1.73]
              eth1 on [ovn] has [100.64.0.2]
        "#]],
    );
    // No entry for the cluster network (Multus 4.1 with Calico).
    check(
        &[(
            STATUS,
            r#"[{"name":"x/macvlan","interface":"net1","ips":["192.168.1.205"]}]"#,
        )],
        &["10.244.1.73"],
        &expect![[r#"
              eth0 (primary) on [default] has [10.244.1.73]
              net1 on [x/macvlan] has [192.168.1.205]
        "#]],
    );
    // A default network of the user's choice.
    check(
        &[(
            STATUS,
            r#"[{"name":"y/big","interface":"eth0","ips":["10.244.1.73"],"default":true}]"#,
        )],
        &["10.244.1.73"],
        &expect![[r#"
              eth0 (primary) on [default, y/big] has [10.244.1.73]
        "#]],
    );
    // Twice on one network, once without addresses; an entry without interface.
    check(
        &[(
            STATUS,
            r#"[{"name":"x/a","interface":"net1","ips":["10.1.0.1"]},{"name":"x/a","interface":"net2"},{"name":"x/b","ips":["10.2.0.1"],"mac":"aa"}]"#,
        )],
        &[],
        &expect![[r#"
              eth0 (primary) on [default] has []
              net1 on [x/a] has [10.1.0.1]
              net2 on [x/a] has []
              ? on [x/b] has [10.2.0.1]
        "#]],
    );
}

#[test]
fn network_status_that_is_wrong() {
    for nothing in ["", " ", "null", "[]", "{}", "{", "5", "[null]", "[{}]", "not json"] {
        let (attachments, shown) = pod(&[(STATUS, nothing)], &["10.0.0.1"]);
        assert_eq!(attachments, pod(&[], &["10.0.0.1"]).0, "{nothing:?}: {shown}");
    }
    check(
        &[(
            STATUS,
            r#"[5,{"name":"a/b/c","interface":"net1","ips":["10.1.0.1"]},{"name":"","ips":["10.1.0.2"]},{"name":"x/d","interface":"net/4","ips":["10.1.0.3","bad",7,"","127.0.0.1"]},{"name":3,"interface":"net5","ips":"10.1.0.5","default":"true"}]"#,
        )],
        &["10.0.0.1"],
        &expect![[r#"
            eth0 (primary) on [default] has [10.0.0.1]
            net1 on [interface:net1] has [10.1.0.1]
            net5 on [interface:net5] has [10.1.0.5]
            ? on [x/d] has [10.1.0.3]
            ! invalid_annotation at [k8s.v1.cni.cncf.io/network-status][0]: 5 instead of an object that describes a network
            ! invalid_network_name at [k8s.v1.cni.cncf.io/network-status][1].name: "a/b/c": it has more than one slash; the network is known by its interface only
            ! invalid_annotation at [k8s.v1.cni.cncf.io/network-status][2]: the entry has neither a network nor an interface, so it describes nothing
            ! invalid_interface at [k8s.v1.cni.cncf.io/network-status][3].interface: "net/4" is not a valid interface name: it contains '/' or ':'
            ! invalid_address at [k8s.v1.cni.cncf.io/network-status][3].ips[1]: "bad": it is no IP address
            ! invalid_annotation at [k8s.v1.cni.cncf.io/network-status][3].ips[2]: 7 instead of an address
            ! invalid_address at [k8s.v1.cni.cncf.io/network-status][3].ips[4]: "127.0.0.1": every pod has the loopback address
            ! invalid_annotation at [k8s.v1.cni.cncf.io/network-status][4].name: 3 instead of a text
        "#]],
    );
    check(
        &[
            (STATUS, r#"[{"name":"x/a","interface":"net1","ips":["10.1.0.1"]}]"#),
            (OLD_STATUS, "[]"),
        ],
        &[],
        &expect![[r#"
            eth0 (primary) on [default] has []
            net1 on [x/a] has [10.1.0.1]
            ! stale_annotation at [k8s.v1.cni.cncf.io/networks-status]: differs from k8s.v1.cni.cncf.io/network-status, which counts
        "#]],
    );
}

#[test]
fn s168_requested_networks_are_attachments_before_they_are_described() {
    check(
        &[(REQUEST, "a, y/b@data0,a")],
        &["10.0.0.1"],
        &expect![[r#"
              data0 on [y/b] has []
              eth0 (primary) on [default] has [10.0.0.1]
              net1 on [x/a] has []
              net3 on [x/a] has []
        "#]],
    );
    check(
        &[(
            REQUEST,
            r#"[{"name":"a"},{"name":"b","namespace":"y","interface":"ib0","ips":["10.2.2.42/24"]},{"interfaceRequest":"old0","name":"c"},{"name":"x y"},5]"#,
        )],
        &["10.0.0.1"],
        &expect![[r#"
            eth0 (primary) on [default] has [10.0.0.1]
            ib0 on [y/b] has []
            net1 on [x/a] has []
            net4 on [interface:net4] has []
            old0 on [x/c] has []
            ! invalid_annotation at [k8s.v1.cni.cncf.io/networks][3]: the requested network "x y": a name has letters, digits, '-', '_' and '.', and begins with a letter or digit
            ! invalid_annotation at [k8s.v1.cni.cncf.io/networks][4]: 5 instead of an object with a name
        "#]],
    );
    // Half described: by interface, by name with another interface, without an interface, not at all.
    check(
        &[
            (REQUEST, "a@one,b,c,d"),
            (
                STATUS,
                r#"[{"name":"cbr0","default":true,"ips":["10.0.0.1"]},{"name":"x/a","interface":"one","ips":["10.1.0.1"]},{"name":"b","interface":"eth1","ips":["10.2.0.1"]},{"name":"x/c","ips":["10.3.0.1"]}]"#,
            ),
        ],
        &["10.0.0.1"],
        &expect![[r#"
              eth0 (primary) on [default, cbr0] has [10.0.0.1]
              eth1 on [x/b] has [10.2.0.1]
              net3 on [x/c] has [10.3.0.1]
              net4 on [x/d] has []
              one on [x/a] has [10.1.0.1]
        "#]],
    );
    check(
        &[(REQUEST, "a/b/c,@x,a@b@c,a@toolonginterfacename")],
        &["10.0.0.1"],
        &expect![[r#"
            eth0 (primary) on [default] has [10.0.0.1]
            net1 on [interface:net1] has []
            x on [interface:x] has []
            ! invalid_annotation at [k8s.v1.cni.cncf.io/networks]: the requested network "b/c": it has more than one slash
            ! invalid_annotation at [k8s.v1.cni.cncf.io/networks]: the requested network "": a part of the name is empty
            ! invalid_annotation at [k8s.v1.cni.cncf.io/networks]: "a@b@c" has more than one '@'
            ! invalid_interface at [k8s.v1.cni.cncf.io/networks]: "toolonginterfacename" is not a valid interface name: it is longer than 15 bytes
        "#]],
    );
    check(
        &[(CNI, "canal,weave")],
        &["10.0.0.1"],
        &expect![[r#"
              eth0 (primary) on [default, canal] has [10.0.0.1]
              eth1 on [weave] has []
        "#]],
    );
}

#[test]
fn results_without_namespaces_are_completed_from_the_request() {
    let described = r#"[{"name":"bridge","interface":"eth0","ips":["10.0.0.1"],"default":true,"dns":{}},{"name":"flannel","interface":"eth1","ips":["10.1.0.1"],"dns":{}},{"name":"weavenet","interface":"eth5","ips":["10.2.0.1"],"dns":{}}]"#;
    for request in ["flannel@eth1, network/weavenet@eth5", "flannel, network/weavenet"] {
        check(
            &[(REQUEST, request), (STATUS, described)],
            &["10.0.0.1"],
            &expect![[r#"
            eth0 (primary) on [default, bridge] has [10.0.0.1]
            eth1 on [x/flannel] has [10.1.0.1]
            eth5 on [network/weavenet] has [10.2.0.1]
        "#]],
        );
    }
}
