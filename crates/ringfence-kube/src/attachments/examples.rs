//! Values that were seen in public, with what they must mean. None of them may stop the decoder.

use expect_test::{Expect, expect};

use super::tests::shown;

const GENIE: &str = "multi-ip-preferences";
const CNI: &str = "cni";
const NETWORKS: &str = "networks";
const REQUEST: &str = "k8s.v1.cni.cncf.io/networks";
const STATUS: &str = "k8s.v1.cni.cncf.io/network-status";

/// Each value by itself, on a pod with these addresses.
fn check(key: &str, addresses: &[&str], values: &[&str], expected: &Expect) {
    let all: Vec<String> = values.iter().map(|value| shown(&[(key, value)], addresses)).collect();
    expected.assert_eq(&all.join("--\n"));
}

#[test]
fn results_of_cni_genie() {
    check(
        GENIE,
        &["192.168.243.214"],
        &[
            r#"{"multi_entry": 0,"ips": {"": {"ip": "","interface": ""}}}"#,
            r#"{"multi_entry": 0,"ips": {}}"#,
            r#"{ "multi-entry": 0, "ips": {"":{"ip":"", "interfaces":""}}}"#,
            r#"{"multi_entry":2,"ips":{"":{},"ip1":{"ip":"192.168.243.214","interface":"eth0"}}}"#,
            r#"{"multi_entry":2,"ips":{"":{},"ip1":{"ip":"10.244.0.201","interface":"eth0"},"ip2":{"ip":"10.32.0.4","interface":"eth1"}}}"#,
            r#"{"multi_entry":2,"ips":{"":{},"ip1":{"ip":"192.168.78.153","interface":"eth0"},"ip2":{"ip":"20.20.1.128","interface":"eth1"}}}"#,
        ],
        &expect![[r#"
            eth0 (primary) on [default] has [192.168.243.214]
            --
            eth0 (primary) on [default] has [192.168.243.214]
            --
            eth0 (primary) on [default] has [192.168.243.214]
            --
            eth0 (primary) on [default] has [192.168.243.214]
            --
            eth0 (primary) on [default] has [192.168.243.214]
            eth1 on [interface:eth1] has [10.32.0.4]
            ! stale_annotation at : the annotation gives the primary interface 10.244.0.201, the status 192.168.243.214; the status counts (a new sandbox may be on its way)
            --
            eth0 (primary) on [default] has [192.168.243.214]
            eth1 on [interface:eth1] has [20.20.1.128]
            ! stale_annotation at : the annotation gives the primary interface 192.168.78.153, the status 192.168.243.214; the status counts (a new sandbox may be on its way)
        "#]],
    );
}

#[test]
fn requests_of_cni_genie() {
    check(
        CNI,
        &["10.244.0.9"],
        &[
            "flannel,calico,weave",
            "bridge",
            "macvlan",
            "sriov",
            "weave",
            "flannel",
            "calico,weave",
            "network1, network2",
            "calico,lanbr",
            "{\n  \"weave\",\n  \"canal\"\n}\n",
        ],
        &expect![[r#"
            eth0 (primary) on [default, flannel] has [10.244.0.9]
            eth1 on [calico] has []
            eth2 on [weave] has []
            --
            eth0 (primary) on [default, bridge] has [10.244.0.9]
            --
            eth0 (primary) on [default, macvlan] has [10.244.0.9]
            --
            eth0 (primary) on [default, sriov] has [10.244.0.9]
            --
            eth0 (primary) on [default, weave] has [10.244.0.9]
            --
            eth0 (primary) on [default, flannel] has [10.244.0.9]
            --
            eth0 (primary) on [default, calico] has [10.244.0.9]
            eth1 on [weave] has []
            --
            eth0 (primary) on [default, network1] has [10.244.0.9]
            eth1 on [network2] has []
            --
            eth0 (primary) on [default, calico] has [10.244.0.9]
            eth1 on [lanbr] has []
            --
            eth0 (primary) on [default] has [10.244.0.9]
            eth1 on [interface:eth1] has []
            ! invalid_annotation at [cni]: "{\n  \"weave\"": a name has letters, digits, '-', '_' and '.', and begins with a letter or digit
            ! invalid_annotation at [cni]: "\"canal\"\n}": a name has letters, digits, '-', '_' and '.', and begins with a letter or digit
        "#]],
    );
    let networks: Vec<String> = [
        "net1@eth0,net2@eth4",
        "net1:eth0,net2:eth4",
        "net1",
        "weave-1,weave-2",
        r#"{"ports": [{"attach_to_network": "net_api", "attributes": {"accelerate": "false", "function": "std", "nic_name": "eth0", "nic_type": "normal"}}]}"#,
    ]
    .iter()
    .map(|value| shown(&[(CNI, ""), (NETWORKS, value)], &["10.244.0.9"]))
    .collect();
    expect![[r#"
        eth0 (primary) on [default, x/net1] has [10.244.0.9]
        eth4 on [x/net2] has []
        --
        eth0 (primary) on [default, x/net1] has [10.244.0.9]
        eth4 on [x/net2] has []
        --
        eth0 (primary) on [default, x/net1] has [10.244.0.9]
        --
        eth0 (primary) on [default, x/weave-1] has [10.244.0.9]
        eth1 on [x/weave-2] has []
        --
        eth0 (primary) on [default] has [10.244.0.9]
        ! invalid_annotation at [networks]: "{\"ports\": [{\"attach_to_network\": \"net_api\", \"attributes\": {\"acce"…: this is no list of names (Knitter uses the same annotation)
    "#]].assert_eq(&networks.join("--\n"));
}

#[test]
fn requests_of_the_network_plumbing_group() {
    check(
        REQUEST,
        &["10.244.0.9"],
        &[
            "flannel@eth1, network/weavenet@eth5",
            "[\n  {\n    \"name\":\"flannel\",\n    \"interface\": \"eth1\"\n  },\n  {\n    \"name\":\"weavenet\",\n    \"namespace\": \"network\",\n    \"interface\": \"eth5\"\n  }\n]\n",
            "net-a,net-b,other-ns/net-c",
            "net-a,net-a",
            "macvlan-conf-1@macvlan1",
            "testns1/macvlan-conf-3",
            "macvlan-conf-1, macvlan-conf-2",
            r#"[{"name": "vlan21"}, {"name": "vlan92"}]"#,
            r#"[{"name":"net-a"},{"name":"net-b","ips": ["1.2.3.4"],"mac": "aa:bb:cc:dd:ee:ff"},{"name":"net-c","namespace":"other-ns"}]"#,
            r#"[{"name":"net-b","ips": ["10.2.2.42/24", "2001:db8::5/64"]}]"#,
        ],
        &expect![[r#"
            eth0 (primary) on [default] has [10.244.0.9]
            eth1 on [x/flannel] has []
            eth5 on [network/weavenet] has []
            --
            eth0 (primary) on [default] has [10.244.0.9]
            eth1 on [x/flannel] has []
            eth5 on [network/weavenet] has []
            --
            eth0 (primary) on [default] has [10.244.0.9]
            net1 on [x/net-a] has []
            net2 on [x/net-b] has []
            net3 on [other-ns/net-c] has []
            --
            eth0 (primary) on [default] has [10.244.0.9]
            net1 on [x/net-a] has []
            net2 on [x/net-a] has []
            --
            eth0 (primary) on [default] has [10.244.0.9]
            macvlan1 on [x/macvlan-conf-1] has []
            --
            eth0 (primary) on [default] has [10.244.0.9]
            net1 on [testns1/macvlan-conf-3] has []
            --
            eth0 (primary) on [default] has [10.244.0.9]
            net1 on [x/macvlan-conf-1] has []
            net2 on [x/macvlan-conf-2] has []
            --
            eth0 (primary) on [default] has [10.244.0.9]
            net1 on [x/vlan21] has []
            net2 on [x/vlan92] has []
            --
            eth0 (primary) on [default] has [10.244.0.9]
            net1 on [x/net-a] has []
            net2 on [x/net-b] has []
            net3 on [other-ns/net-c] has []
            --
            eth0 (primary) on [default] has [10.244.0.9]
            net1 on [x/net-b] has []
        "#]],
    );
}

#[test]
fn results_of_the_network_plumbing_group() {
    // Not JSON: the specification's own example has a curly quote.
    check(
        STATUS,
        &["192.0.2.2"],
        &[
            "[{\"name\": \"namespace-a/cluster-wide-default\",\"interface\": \"eth5\",\"ips\": [ \"192.0.2.2/24\", \"2001:db8::2230/32\" ],\"default-route\": [\"192.0.2.1\u{201d}],\"default\": true}]",
            // The same with its mistake mended: two networks share an address.
            r#"[{"name": "namespace-a/cluster-wide-default","interface": "eth5","ips": [ "192.0.2.2/24", "2001:db8::2230/32" ],"mac": "02:11:22:33:44:54","default-route": ["192.0.2.1"],"default": true},
               {"name": "namespace-b/some-network","interface": "eth1","ips": [ "192.0.2.2/24", "2001:db8::2234/32" ],"dns": {"nameservers": [ "192.0.2.1", "2001:db8:4860::8888" ],"search": [ "eng.example.com", "example.com" ]}},
               {"name": "namespace-a/an-ip-over-infiniband-network","interface": "ib0","ips": [ "198.51.100.1/24" ],"infiniband-guid": "80:00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff:00:11:22"}]"#,
        ],
        &expect![[r#"
            eth0 (primary) on [default] has [192.0.2.2]
            ! invalid_annotation at [k8s.v1.cni.cncf.io/network-status]: "[{\"name\": \"namespace-a/cluster-wide-default\",\"interface\": \"eth5\""… is no JSON (expected `,` or `]` at line 1 column 147)
            --
            eth1 on [namespace-b/some-network] has [192.0.2.2, 2001:db8::2234]
            eth5 (primary) on [default, namespace-a/cluster-wide-default] has [192.0.2.2, 2001:db8::2230]
            ib0 on [namespace-a/an-ip-over-infiniband-network] has [198.51.100.1]
        "#]],
    );
    check(
        STATUS,
        &["10.244.1.73"],
        &[
            r#"[{"name": "cbr0","ips": ["10.244.1.73"],"default": true,"dns": {}},{"name": "macvlan-conf","interface": "net1","ips": ["192.168.1.205"],"mac": "86:1d:96:ff:55:0d","dns": {}}]"#,
        ],
        &expect![[r#"
              eth0 (primary) on [default, cbr0] has [10.244.1.73]
              net1 on [x/macvlan-conf] has [192.168.1.205]
        "#]],
    );
    check(
        STATUS,
        &["10.244.1.4"],
        &[
            r#"[{"name": "","interface": "eth0","ips": ["10.244.1.4"],"mac": "aa:e1:20:71:15:01","default": true,"dns": {}},{"name": "testns1/net-attach1","interface": "net1","ips": ["10.1.1.101"],"mac": "42:90:65:12:3e:bf","dns": {}}]"#,
        ],
        &expect![[r#"
              eth0 (primary) on [default] has [10.244.1.4]
              net1 on [testns1/net-attach1] has [10.1.1.101]
        "#]],
    );
    check(
        STATUS,
        &["10.128.1.18"],
        &[
            r#"[{"name": "ovn-kubernetes","interface": "eth0","ips": ["10.128.1.18"],"mac": "0a:58:0a:80:01:12","default": true,"dns": {}},{"name": "vlan-tests/vlan21","interface": "net1","ips": ["10.10.21.3"],"mac": "92:84:ba:62:38:eb","dns": {}},{"name": "vlan-tests/vlan92","interface": "net2","ips": ["10.10.92.3"],"mac": "9a:95:72:b5:3e:39","dns": {}}]"#,
        ],
        &expect![[r#"
              eth0 (primary) on [default, ovn-kubernetes] has [10.128.1.18]
              net1 on [vlan-tests/vlan21] has [10.10.21.3]
              net2 on [vlan-tests/vlan92] has [10.10.92.3]
        "#]],
    );
    check(
        STATUS,
        &[],
        &[
            r#"[{"name": "","interface": "eth0","ips": ["10.130.2.48"],"default": true,"dns": {}}]"#,
            r#"[{"name": "k8s-pod-network","ips": ["172.16.104.57"],"default": true,"dns": {}}]"#,
            r#"[{"name": "","ips": ["192.168.185.80"],"default": true,"dns": {}}]"#,
        ],
        &expect![[r#"
            eth0 (primary) on [default] has [10.130.2.48]
            --
            eth0 (primary) on [default, k8s-pod-network] has [172.16.104.57]
            --
            eth0 (primary) on [default] has [192.168.185.80]
        "#]],
    );
}

#[test]
fn annotations_of_other_plugins_mean_nothing_here() {
    for (key, value) in [
        (
            "genieNetworkpolicy",
            "[\n  {\n    networkSelector: net1\n    peerNetworks: net2\n  }\n]\n",
        ),
        (
            "danm.io/interfaces",
            r#"[{"tenantNetwork":"management", "ip":"dynamic"}]"#,
        ),
        (NETWORKS, r#"{"ports": [{"attach_to_network": "net_api"}]}"#),
        (NETWORKS, "net1"),
    ] {
        assert_eq!(
            shown(&[(key, value)], &["10.0.0.1"]),
            shown(&[], &["10.0.0.1"]),
            "{key}"
        );
    }
}
