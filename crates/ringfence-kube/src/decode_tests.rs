//! Manifests as texts: objects, lists, several documents, and everything that is broken or hostile.

use expect_test::{Expect, expect};
use proptest::prelude::*;
use serde_json::json;

use crate::{Kind, decode, decode_kind, decode_value, show};

fn check(text: &str, expected: &Expect) {
    expected.assert_eq(&show::text(text));
}

#[test]
fn s046_s138_namespaces() {
    check(
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: y\n  labels: {team: on, kubernetes.io/metadata.name: forged}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: x, namespace: ignored, deletionTimestamp: '2024-01-01T00:00:00Z', labels: {n: 1}}",
        &expect![[r#"
            Namespace y [kubernetes.io/metadata.name=y team=on]
            Namespace x [kubernetes.io/metadata.name=x] terminating
            ! Error schema at "metadata.labels[n]": the label's value is 1 instead of a text; put it in quotes -> part ignored
        "#]],
    );
}

#[test]
fn namespaces_with_the_beta_annotation() {
    let check = |value: &str, isolated: bool, reported: bool| {
        let decoded = decode_kind(
            Kind::Namespace,
            &json!({"metadata": {"name": "x", "annotations": {"net.beta.kubernetes.io/network-policy": value}}}),
            "test",
        );
        let shown = show::decoded(&decoded);
        assert_eq!(shown.contains("] isolated"), isolated, "{shown}");
        assert_eq!(shown.contains("invalid_annotation"), reported, "{shown}");
    };
    check(
        "{\n  \"ingress\": {\n    \"isolation\": \"DefaultDeny\"\n  }\n}\n",
        true,
        false,
    );
    check("{\"ingress\": {\"isolation\": \"DefaultDeny\"}}", true, false);
    check("true", false, true);
    check("{\"ingress\": {\"isolation\": \"defaultDeny\"}}", false, true);
    check("{\"ingress\": \"DefaultDeny\"}", false, true);
    check("{\"ingress\": {}}", false, false);
    check("{}", false, false);
    check("", false, true);
    check("{\"ingress\": {\"isolation\": \"DefaultDeny\"}", false, true);
}

#[test]
fn s094_s095_s132_pods() {
    check(
        r#"
apiVersion: v1
kind: Pod
metadata:
  name: web
  namespace: x
  uid: 7b2c
  labels: {app: web, n: 5}
  creationTimestamp: 2024-01-01T00:00:00Z
spec:
  nodeName: n1
  containers:
  - name: a
    ports: [{name: http, containerPort: 80}, {containerPort: 81}, {name: dns, containerPort: 53, protocol: UDP}]
  - name: b
    ports: [{name: http, containerPort: 8080}, {name: "80", containerPort: 80}, {name: zero, containerPort: 0}, {name: odd, containerPort: 5, protocol: icmp}]
  - {name: c, ports: nothing}
  initContainers:
  - {name: once, ports: [{name: once, containerPort: 1}]}
  - {name: side, restartPolicy: Always, ports: [{name: side, containerPort: 2, protocol: SCTP}]}
status:
  phase: Running
  hostIP: 192.0.2.1
  hostIPs: [{ip: 192.0.2.1}, {ip: "2001:db8::1"}]
  podIP: 10.0.0.1
  podIPs: [{ip: 10.0.0.1}, {ip: "fd00::1"}, {ip: bad}, {}]
  startTime: 2024-01-01T00:00:10Z
"#,
        &expect![[r#"
            Pod x/web uid=7b2c node=n1 started=1704067210 app=web host={192.0.2.1, 2001:db8::1}
              port dns 53/UDP
              port http 80/TCP
              port http 8080/TCP
              port side 2/SCTP
              eth0 (primary) on [default] has [10.0.0.1, fd00::1]
            ! Error invalid_address at "status.podIPs[2].ip": "bad": it is no IP address -> part ignored
            ! Error schema at "metadata.labels[n]": the label's value is 5 instead of a text; put it in quotes -> part ignored
            ! Error invalid_port at "spec.containers[1].ports[1].name": "80" is not a valid port name: it has no letter (a port number is written without quotes) -> part ignored
            ! Error invalid_port at "spec.containers[1].ports[2].containerPort": 0 is no port; ports are 1 to 65535 -> part ignored
            ! Error unknown_protocol at "spec.containers[1].ports[3].protocol": "icmp" is none of TCP, UDP and SCTP -> part ignored
        "#]],
    );
    check(
        "{apiVersion: v1, kind: Pod, metadata: {name: job, creationTimestamp: 2024-01-01T00:00:00Z}, spec: {hostNetwork: yes}, status: {phase: Failed}}",
        &expect![[r#"
            Pod default/job uid=default/job hostNetwork terminal started=1704067200
        "#]],
    );
    check(
        "{apiVersion: v1, kind: Pod, metadata: {name: a, uid: 'a b', labels: [x], annotations: 5}, spec: x, status: []}",
        &expect![[r#"
            Pod default/a uid=default/a started=0
              eth0 (primary) on [default] has []
            ! Error schema at "metadata.uid": "a b" is not a valid pod UID: it has a character outside of letters, digits, '-', '.', '/', ':' and '_'; the pod goes by its namespace and name -> part ignored
            ! Error schema at "spec": "x" instead of an object -> part ignored
            ! Error schema at "status": a list instead of an object -> part ignored
            ! Error schema at "metadata.annotations": 5 instead of an object of annotations -> part ignored
            ! Error schema at "metadata.labels": a list instead of an object of labels -> part ignored
        "#]],
    );
}

#[test]
fn a_mirror_pod_is_what_the_kubelet_has_made() {
    let mirror_of = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut pod = json!({
            "metadata": {
                "name": "web-n1", "namespace": "x", "uid": "7b2c",
                "annotations": {"kubernetes.io/config.mirror": "0123abcd", "kubernetes.io/config.source": "file"},
                "ownerReferences": [
                    {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "n", "controller": true},
                ],
            },
            "spec": {"nodeName": "n1"},
        });
        change(&mut pod);
        let decoded = decode_kind(Kind::Pod, &pod, "test");
        assert!(decoded.diagnostics.is_empty(), "{:?}", decoded.diagnostics);
        let Some(ringfence_model::Object::Pod(pod)) = decoded.object else {
            panic!("no pod");
        };
        assert_eq!(pod.uid.as_str(), "7b2c", "its own in any case");
        pod.mirror_of.map(|uid| uid.to_string())
    };
    assert_eq!(mirror_of(&|_| {}).as_deref(), Some("0123abcd"));
    let others: [&dyn Fn(&mut serde_json::Value); 9] = [
        &|pod| pod["metadata"]["annotations"] = json!({"kubernetes.io/config.hash": "0123abcd"}),
        &|pod| pod["metadata"]["annotations"]["kubernetes.io/config.mirror"] = "".into(),
        &|pod| pod["metadata"]["annotations"]["kubernetes.io/config.mirror"] = "a b".into(),
        &|pod| pod["metadata"]["ownerReferences"] = json!(null),
        &|pod| pod["metadata"]["ownerReferences"] = json!("n1"),
        &|pod| pod["metadata"]["ownerReferences"][0]["kind"] = "ReplicaSet".into(),
        &|pod| pod["metadata"]["ownerReferences"][0]["name"] = "n2".into(),
        &|pod| pod["metadata"]["ownerReferences"][0]["controller"] = false.into(),
        &|pod| pod["spec"] = json!({}),
    ];
    for (position, other) in others.iter().enumerate() {
        assert_eq!(mirror_of(other), None, "{position}");
    }
}

#[test]
fn s135_long_names_give_identities_too() {
    let pod = |name: &str| {
        decode_kind(
            Kind::Pod,
            &json!({"metadata": {"namespace": "n".repeat(63), "name": name}}),
            "test",
        )
    };
    let (one, other) = (
        pod(&format!("{}1", "a".repeat(250))),
        pod(&format!("{}2", "a".repeat(250))),
    );
    assert_ne!(one.object.unwrap().key(), other.object.unwrap().key());
}

#[test]
fn s162_s163_network_attachment_definitions() {
    let check = |config: serde_json::Value, expected: &Expect| {
        let value = json!({"metadata": {"name": "n", "namespace": "x"}, "spec": {"config": config}});
        expected.assert_eq(&show::decoded(&decode_kind(
            Kind::NetworkAttachmentDefinition,
            &value,
            "test",
        )));
    };
    check(
        json!(r#"{"cniVersion":"0.3.1","type":"macvlan","ipam":{"type":"dhcp"}}"#),
        &expect![[r#"
            Network x/n plugins=["macvlan"] ipam={"dhcp"}
        "#]],
    );
    check(
        json!(r#"{"name":"l","plugins":[{"type":"bridge","ipam":{"type":"host-local"}},{"type":"tuning"},5]}"#),
        &expect![[r#"
            Network x/n plugins=["bridge", "tuning"] ipam={"host-local"}
        "#]],
    );
    check(
        json!(null),
        &expect![[r#"
        Network x/n plugins=[] ipam={}
    "#]],
    );
    check(
        json!("{"),
        &expect![[r#"
        Network x/n plugins=[] ipam={}
        ! Error syntax at "spec.config": "{" is no JSON (EOF while parsing an object at line 1 column 1); the network's plugins are unknown -> part ignored
    "#]],
    );
    check(
        json!("[]"),
        &expect![[r#"
        Network x/n plugins=[] ipam={}
        ! Error schema at "spec.config": the configuration is a list instead of an object -> part ignored
    "#]],
    );
    check(
        json!({"type": "macvlan"}),
        &expect![[r#"
        Network x/n plugins=[] ipam={}
        ! Error schema at "spec.config": an object instead of a text that holds JSON -> part ignored
    "#]],
    );
    check(
        json!("{}"),
        &expect![[r#"
        Network x/n plugins=[] ipam={}
        ! Error schema at "spec.config": no plugin in the configuration has a type -> part ignored
    "#]],
    );
    check(
        json!("x".repeat(300_000)),
        &expect![[r#"
        Network x/n plugins=[] ipam={}
        ! Error too_large at "spec.config": the configuration has 300000 bytes -> part ignored
    "#]],
    );
}

#[test]
fn lists_documents_and_json() {
    let namespace =
        |name: &str| format!("{{\"apiVersion\":\"v1\",\"kind\":\"Namespace\",\"metadata\":{{\"name\":\"{name}\"}}}}");
    let (a, b) = (namespace("a"), namespace("b"));
    check(
        &format!("{{\"apiVersion\":\"v1\",\"kind\":\"List\",\"items\":[{a},{b}]}}"),
        &expect![[r#"
            Namespace a [kubernetes.io/metadata.name=a]
            Namespace b [kubernetes.io/metadata.name=b]
        "#]],
    );
    check(
        &format!("{a}\n{b}\n---\n{}", namespace("c")),
        &expect![[r#"
        Namespace a [kubernetes.io/metadata.name=a]
        Namespace b [kubernetes.io/metadata.name=b]
        Namespace c [kubernetes.io/metadata.name=c]
    "#]],
    );
    check(
        "apiVersion: v1\nkind: NamespaceList\nitems:\n- metadata: {name: a}\n- metadata: {name: b}\n- {metadata: {}}\n- 5\n---\napiVersion: v1\nkind: List\nitems: nothing\n---\nkind: List\napiVersion: v1",
        &expect![[r#"
            Namespace a [kubernetes.io/metadata.name=a]
            Namespace b [kubernetes.io/metadata.name=b]
            File test.yaml: rejected
            ! Error schema at "": document 1: items[2]: Namespace cannot be identified: metadata.name is missing -> object ignored
            File test.yaml: rejected
            ! Error unknown_kind at "": document 1: items[3]: 5 is no Kubernetes object; it has no apiVersion and kind -> object ignored
            File test.yaml: rejected
            ! Error schema at "": document 2: items of List is "nothing" instead of a list -> object ignored
        "#]],
    );
}

#[test]
fn a_broken_document_spoils_only_itself() {
    check(
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\nkind: Pod\nmetadata: [\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: b}\n---\n# nothing\n---\na: 1\na: 2\n---\njust text\n---\n- 1\n---\n{\"apiVersion\": \"v1\", \"kind\": ",
        &expect![[r#"
            Namespace a [kubernetes.io/metadata.name=a]
            File test.yaml: rejected
            ! Error syntax at "": document 2, line 6: no valid YAML or JSON: unclosed bracket '[' -> object ignored
            Namespace b [kubernetes.io/metadata.name=b]
            File test.yaml: rejected
            ! Error syntax at "": document 4, line 15: no valid YAML or JSON: duplicate mapping key: a -> object ignored
            File test.yaml: rejected
            ! Error unknown_kind at "": document 5: "just text" is no Kubernetes object; it has no apiVersion and kind -> object ignored
            File test.yaml: rejected
            ! Error unknown_kind at "": document 6: a list is no Kubernetes object; it has no apiVersion and kind -> object ignored
            File test.yaml: rejected
            ! Error syntax at "": document 7, line 21: no valid YAML or JSON: unclosed bracket '{' -> object ignored
        "#]],
    );
}

#[test]
fn documents_that_are_not_for_ringfence() {
    check(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: s}\n---\napiVersion: example.com/v1\nkind: Any\nmetadata: {name: a}",
        &expect![[""]],
    );
    check(
        "apiVersion: v1\nkind: Pood\nmetadata: {name: d, namespace: x}\n---\napiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: s}\n---\nkind: Pod\nmetadata: {name: a}\n---\napiVersion: v1\nmetadata: {name: a}\n---\napiVersion: extensions/v1beta1\nkind: NetworkPolicy\nmetadata: {name: old}\nspec: {podSelector: {}}",
        &expect![[r#"
            Pood x/d: rejected
            ! Warning unknown_kind at "": document 1: Kubernetes has no kind Pood in v1 that Ringfence knows of; check the spelling -> object ignored
            NetworkPolicy s: rejected
            ! Warning unknown_kind at "": document 2: projectcalico.org/v3 NetworkPolicy is another API's kind; Ringfence reads the one of networking.k8s.io -> object ignored
            File test.yaml: rejected
            ! Error unknown_kind at "": document 3: apiVersion is missing or no text (beside "Pod") -> object ignored
            File test.yaml: rejected
            ! Error unknown_kind at "": document 4: kind is missing or no text (beside "v1") -> object ignored
            NetworkPolicy default/old on scope selects {}
              ingress: no rules
            ! Warning unknown_kind at "": extensions/v1beta1 is no longer served; it is read as networking.k8s.io/v1 -> none
        "#]],
    );
}

#[test]
fn objects_that_nobody_can_name() {
    for metadata in [
        "",
        "metadata: 5",
        "metadata: {}",
        "metadata: {name: 5}",
        "metadata: {name: ''}",
        "metadata: {name: a/b}",
        "metadata: {name: a, namespace: [x]}",
        "metadata: {name: \"a\\nb\"}",
    ] {
        let shown = show::text(&format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n{metadata}\n"
        ));
        assert!(
            shown.starts_with("File test.yaml: rejected\n! Error schema"),
            "{metadata}: {shown}"
        );
    }
}

/// None of these may take the stack, the memory or the time of the process.
#[test]
fn hostile_documents_end_in_a_diagnostic() {
    let bomb = (1..40).fold("a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned(), |text, level| {
        format!(
            "{text}a{level}: &a{level} [{}]\n",
            vec![format!("*a{}", level - 1); 9].join(",")
        )
    });
    let indented: String = (0..3000).map(|depth| " ".repeat(depth) + "a:\n").collect();
    for text in [
        "[".repeat(10_000),
        "{\"a\":".repeat(10_000),
        "{a: ".repeat(10_000),
        format!("{}{}", "[".repeat(10_000), "]".repeat(10_000)),
        format!("{}1{}", "{\"a\":".repeat(10_000), "}".repeat(10_000)),
        "- ".repeat(10_000),
        "? ".repeat(10_000),
        indented,
        bomb,
        "a: &a [*a]".to_owned(),
        "\"".to_owned() + &"x".repeat(10_000_000),
        "\0\0\0".to_owned(),
    ] {
        let decoded = decode(&text, "hostile.yaml");
        let start: String = text.chars().take(20).collect();
        assert!(!decoded.is_empty(), "{start}");
        assert!(
            decoded
                .iter()
                .all(|it| it.object.is_none() && !it.diagnostics.is_empty()),
            "{start}: {decoded:?}"
        );
    }
}

#[test]
fn a_large_annotation_does_not_lose_the_pod() {
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  annotations:\n    cni: {}\n",
        "x".repeat(10_000_000)
    );
    check(
        &text,
        &expect![[r#"
        Pod default/a uid=default/a started=0
          eth0 (primary) on [default] has []
        ! Error too_large at "metadata.annotations[cni]": the value has 10000000 bytes; Kubernetes allows 262144, so it is treated as absent -> part ignored
    "#]],
    );
}

/// Any JSON, biased towards the words that manifests use.
fn value() -> impl Strategy<Value = serde_json::Value> {
    let word = prop::sample::select(vec![
        "Ingress",
        "Egress",
        "TCP",
        "In",
        "NotIn",
        "Exists",
        "10.0.0.0/8",
        "10.0.0.1",
        "fd00::/64",
        "eth0",
        "x/a",
        "80",
        "default",
        "",
        "a",
    ]);
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|it| json!(it)),
        any::<i32>().prop_map(|it| json!(it)),
        any::<f64>().prop_map(|it| json!(it)),
        word.prop_map(|it| json!(it)),
        ".{0,12}".prop_map(|it| json!(it)),
    ];
    let key = prop_oneof![
        prop::sample::select(vec![
            "spec",
            "metadata",
            "name",
            "namespace",
            "annotations",
            "labels",
            "podSelector",
            "namespaceSelector",
            "ipBlock",
            "cidr",
            "except",
            "from",
            "to",
            "ports",
            "port",
            "endPort",
            "protocol",
            "ingress",
            "egress",
            "policyTypes",
            "matchLabels",
            "matchExpressions",
            "key",
            "operator",
            "values",
            "status",
            "podIPs",
            "ip",
            "containers",
            "interface",
            "ips",
            "config",
            "items",
        ])
        .prop_map(str::to_owned),
        ".{0,6}",
    ];
    leaf.prop_recursive(5, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(|it| json!(it)),
            prop::collection::vec((key.clone(), inner), 0..6)
                .prop_map(|pairs| serde_json::Value::Object(pairs.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_text_panics(bytes in prop::collection::vec(any::<u8>(), 0..400), text in "(---|kind: |Pod|\n|  |[a-z:{}\\[\\]\",&*|>#-]){0,60}") {
        decode(&String::from_utf8_lossy(&bytes), "random");
        decode(&text, "random");
    }

    /// Nothing of a policy vanishes: as many rules, peers and ports as the manifest has elements (invariant 4).
    #[test]
    fn no_value_panics_and_every_kind_gives_an_object(spec in value(), status in value(), annotation in value()) {
        for kind in Kind::ALL {
            let text = annotation.to_string();
            let manifest = json!({
                "metadata": {"name": "a", "namespace": "x", "annotations": {
                    "cni": text, "networks": text, "multi-ip-preferences": text, "k8s.v1.cni.cncf.io/networks": text,
                    "k8s.v1.cni.cncf.io/network-status": text, "k8s.v1.cni.cncf.io/policy-for": text,
                    "net.beta.kubernetes.io/network-policy": text,
                }},
                "spec": spec, "status": status,
            });
            let decoded = decode_kind(kind, &manifest, "random");
            prop_assert!(decoded.object.is_some());
            if let Some(ringfence_model::Object::Policy(policy)) = &decoded.object {
                for (rules, name) in [(&policy.ingress, "ingress"), (&policy.egress, "egress")] {
                    if let (Some(rules), Some(given)) = (rules, spec.get(name).and_then(serde_json::Value::as_array)) {
                        prop_assert!(rules.is_empty() || rules.len() == given.len());
                    }
                }
                prop_assert!(policy.ingress.is_some() || policy.egress.is_some());
            }
        }
        decode_value(json!({"kind": spec, "apiVersion": status, "items": annotation}), "random");
    }

    /// A valid annotation with one byte changed: still exactly one primary interface.
    #[test]
    fn mutated_annotations_leave_one_primary_interface(position in any::<prop::sample::Index>(), byte in any::<char>(), which in 0_usize..4) {
        let values = [
            ("cni", "flannel,weave@eth4,flannel@eth3"),
            ("multi-ip-preferences", r#"{"multi_entry":2,"ips":{"ip1":{"ip":"10.244.0.9","interface":"eth0"},"ip2":{"ip":"10.32.0.2","interface":"eth1"}}}"#),
            ("k8s.v1.cni.cncf.io/networks", r#"[{"name":"a","interface":"net7"},{"name":"b","namespace":"y"}]"#),
            ("k8s.v1.cni.cncf.io/network-status", r#"[{"name":"cbr0","default":true,"ips":["10.244.0.9"]},{"name":"y/b","interface":"net1","ips":["10.2.0.1/24"]}]"#),
        ];
        let annotations: serde_json::Map<String, serde_json::Value> = values.iter().enumerate().map(|(number, (key, value))| {
            let mut characters: Vec<char> = value.chars().collect();
            if number == which {
                let at = position.index(characters.len());
                characters[at] = byte;
            }
            ((*key).to_owned(), json!(characters.into_iter().collect::<String>()))
        }).collect();
        for keep in 0_usize..16 {
            let some: serde_json::Map<_, _> = annotations.iter().enumerate()
                .filter(|(number, _)| keep & (1 << number) != 0)
                .map(|(_, (key, value))| (key.clone(), value.clone()))
                .collect();
            let manifest = json!({"metadata": {"name": "a", "annotations": some}, "status": {"podIP": "10.244.0.9"}});
            let decoded = decode_kind(Kind::Pod, &manifest, "random");
            let Some(ringfence_model::Object::Pod(pod)) = decoded.object else { panic!("no pod") };
            prop_assert_eq!(pod.attachments.iter().filter(|it| it.primary).count(), 1);
            let named: std::collections::BTreeSet<_> = pod.attachments.iter().filter_map(|it| it.interface.clone()).collect();
            prop_assert_eq!(named.len(), pod.attachments.iter().filter(|it| it.interface.is_some()).count());
        }
    }
}

/// Found by fuzzing: kind, apiVersion and name of an object that is not read went into messages as they were.
#[test]
fn unread_objects_cannot_write_lines_of_their_own_or_endless_ones() {
    let long = "x".repeat(5_000);
    let check = |kind: &str, api_version: &str, name: &str| {
        let value = json!({"kind": kind, "apiVersion": api_version, "metadata": {"name": name, "namespace": name}});
        for decoded in decode_value(value, "test") {
            assert!(!decoded.diagnostics.is_empty());
            for diagnostic in decoded.diagnostics {
                let shown = diagnostic.to_string();
                assert!(!shown.contains(char::is_control) && shown.len() < 1_000, "{shown:?}");
            }
        }
    };
    for text in ["a\nb", "\u{1b}[1m", &long] {
        check("NetworkPolicy", text, "p");
        check("NetworkPolicy", &format!("networking.k8s.io/{text}"), "p");
        check(&format!("NetworkPolicy{text}"), "v1", "p");
        check(text, "v1", "p");
        check("Pood", "v1", text);
        check("Pod", &format!("{text}/v1"), text);
    }
}
