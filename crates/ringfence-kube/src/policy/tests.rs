//! Specifications of policies in YAML, and what is understood of them.

use expect_test::{Expect, expect};

use crate::show;

/// Decodes a MultiNetworkPolicy with this spec.
fn check(spec: &str, expected: &Expect) {
    let indented: String = spec.lines().flat_map(|line| ["  ", line, "\n"]).collect();
    check_manifest(
        &format!(
            "apiVersion: k8s.cni.cncf.io/v1beta1\nkind: MultiNetworkPolicy\nmetadata:\n  namespace: x\n  name: p\n  annotations: \
             {{k8s.v1.cni.cncf.io/policy-for: x/net}}\nspec:\n{indented}"
        ),
        expected,
    );
}

fn check_manifest(text: &str, expected: &Expect) {
    expected.assert_eq(&show::text(text));
}

fn check_coverage(annotations: &str, expected: &Expect) {
    let mut out = String::new();
    for (api, kind) in [
        ("networking.k8s.io/v1", "NetworkPolicy"),
        ("k8s.cni.cncf.io/v1beta1", "MultiNetworkPolicy"),
    ] {
        out += &show::text(&format!(
            "{{\"apiVersion\":\"{api}\",\"kind\":\"{kind}\",\"metadata\":{{\"namespace\":\"x\",\"name\":\"p\",\"annotations\":{annotations}}},\"spec\":{{}}}}"
        ));
    }
    expected.assert_eq(&out);
}

#[test]
fn s003_s023_s024_s025_policy_types_by_default() {
    check(
        "podSelector: {}",
        &expect![[r#"
        MultiNetworkPolicy x/p on [Namespaced x/net] selects {}
          ingress: no rules
    "#]],
    );
    check(
        "policyTypes: []\ningress: null\negress: []",
        &expect![[r#"
        MultiNetworkPolicy x/p on [Namespaced x/net] selects {}
          ingress: no rules
    "#]],
    );
    check(
        "egress: [{}]",
        &expect![[r#"
        MultiNetworkPolicy x/p on [Namespaced x/net] selects {}
          ingress: no rules
          egress[0]: everyone may everything
    "#]],
    );
    check(
        "policyTypes: null\ningress: [{}]\negress: null",
        &expect![[r#"
        MultiNetworkPolicy x/p on [Namespaced x/net] selects {}
          ingress[0]: everyone may everything
    "#]],
    );
    check(
        "policyTypes: [Egress]",
        &expect![[r#"
        MultiNetworkPolicy x/p on [Namespaced x/net] selects {}
          egress: no rules
    "#]],
    );
}

#[test]
fn s019_s020_rules_of_a_direction_that_is_not_listed_do_not_count() {
    check(
        "policyTypes: [Ingress]\negress: [{}]",
        &expect![[r#"
        MultiNetworkPolicy x/p on [Namespaced x/net] selects {}
          ingress: no rules
    "#]],
    );
    check(
        "policyTypes: [Egress]\ningress: [{}]",
        &expect![[r#"
        MultiNetworkPolicy x/p on [Namespaced x/net] selects {}
          egress: no rules
    "#]],
    );
}

#[test]
fn s026_s027_s028_policy_types_that_are_wrong() {
    check(
        "policyTypes: [Ingress, Ingress, Egress]",
        &expect![[r#"
        MultiNetworkPolicy x/p on [Namespaced x/net] selects {}
          ingress: no rules
          egress: no rules
    "#]],
    );
    check(
        "policyTypes: [ingress, Egress]\ningress: [{}]",
        &expect![[r#"
        MultiNetworkPolicy x/p on [Namespaced x/net] selects {}
          egress: no rules
        ! Error invalid_policy_type at "spec.policyTypes[0]": "ingress" is neither Ingress nor Egress (in this spelling) -> part ignored
    "#]],
    );
    check(
        "policyTypes: [egress, 1]\ningress: [{}]\negress: [{}]",
        &expect![[r#"
        MultiNetworkPolicy x/p on [Namespaced x/net] selects {}
          ingress: no rules
          egress: no rules
        ! Error invalid_policy_type at "spec.policyTypes[0]": "egress" is neither Ingress nor Egress (in this spelling) -> part ignored
        ! Error invalid_policy_type at "spec.policyTypes[1]": 1 is neither Ingress nor Egress (in this spelling) -> part ignored
        ! Error invalid_policy_type at "spec.policyTypes": no entry is valid: both directions are isolated and no rule counts -> matches nothing
    "#]],
    );
    check(
        "policyTypes: Ingress\ningress: [{}]",
        &expect![[r#"
        MultiNetworkPolicy x/p on [Namespaced x/net] selects {}
          ingress: no rules
          egress: no rules
        ! Error invalid_policy_type at "spec.policyTypes": "Ingress" instead of a list of Ingress and Egress; both directions are isolated and no rule counts -> matches nothing
    "#]],
    );
}

#[test]
fn s017_s029_s030_s031_s033_empty_and_missing_are_everything() {
    check(
        "ingress:\n- {}\n- from: []\n  ports: []\n- from: null\n  ports: null",
        &expect![[r#"
            MultiNetworkPolicy x/p on [Namespaced x/net] selects {}
              ingress[0]: everyone may everything
              ingress[1]: everyone may everything
              ingress[2]: everyone may everything
        "#]],
    );
    check(
        "ingress:\n- from: [{podSelector: {}}, {namespaceSelector: {}}, {namespaceSelector: {}, podSelector: {matchLabels: {a: b}}}]",
        &expect![[r#"
            MultiNetworkPolicy x/p on [Namespaced x/net] selects {}
              ingress[0]: [pods {}; pods {} of namespaces {}; pods {a in b} of namespaces {}] may everything
        "#]],
    );
}

#[test]
fn s036_s037_peers_that_match_nothing() {
    check(
        "ingress:\n- from: [{}, null, 5, {ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}, {podSelector: null, namespaceSelector: {}}]",
        &expect![[r#"
            MultiNetworkPolicy x/p on [Namespaced x/net] selects {}
              ingress[0]: [nothing; nothing; nothing; nothing; pods {} of namespaces {}] may everything
            ! Error invalid_peer at "spec.ingress[0].from[0]": the peer is empty; to allow everyone leave out the list, for all pods write podSelector: {} -> matches nothing
            ! Error invalid_peer at "spec.ingress[0].from[1]": null instead of a peer -> matches nothing
            ! Error invalid_peer at "spec.ingress[0].from[2]": 5 instead of a peer -> matches nothing
            ! Error invalid_peer at "spec.ingress[0].from[3]": ipBlock stands beside a selector; make two peers of it -> matches nothing
        "#]],
    );
    check(
        "ingress:\n- from: {podSelector: {}}\n  ports: 80",
        &expect![[r#"
            MultiNetworkPolicy x/p on [Namespaced x/net] selects {}
              ingress[0]: [nothing] may [nothing]
            ! Error schema at "spec.ingress[0].from": an object instead of a list of peers; begin each with a dash -> matches nothing
            ! Error schema at "spec.ingress[0].ports": 80 instead of a list of port entries -> matches nothing
        "#]],
    );
}

#[test]
fn s022_s166_a_broken_rule_spoils_only_itself() {
    check(
        "ingress:\n- null\n- 7\n- from: [{podSelector: {}}]\n- form: [{podSelector: {}}]\n  ports: [{port: 80}]",
        &expect![[r#"
            MultiNetworkPolicy x/p on [Namespaced x/net] selects {}
              ingress[0]: [nothing] may everything
              ingress[1]: [nothing] may everything
              ingress[2]: [pods {}] may everything
              ingress[3]: [nothing] may [80/TCP]
            ! Error schema at "spec.ingress[0]": null instead of a rule; {} is the rule that allows everything -> matches nothing
            ! Error schema at "spec.ingress[1]": 7 instead of a rule; {} is the rule that allows everything -> matches nothing
            ! Error schema at "spec.ingress[3].form": an ingress rule has no such field, only from, ports; check the spelling -> matches nothing
        "#]],
    );
    check(
        "egress:\n- from: [{podSelector: {}}]\n- to: [{podSelector: {}}, {podSelecter: {}}]",
        &expect![[r#"
            MultiNetworkPolicy x/p on [Namespaced x/net] selects {}
              ingress: no rules
              egress[0]: [nothing] may everything
              egress[1]: [pods {}; nothing] may everything
            ! Error schema at "spec.egress[0].from": an egress rule has no such field, only to, ports; check the spelling -> matches nothing
            ! Error invalid_peer at "spec.egress[1].to[1].podSelecter": a peer has no such field, only podSelector, namespaceSelector, ipBlock; check the spelling -> matches nothing
        "#]],
    );
    check(
        "policyTypes: [Ingress]\ningress: {from: []}",
        &expect![[r#"
        MultiNetworkPolicy x/p on [Namespaced x/net] selects {}
          ingress[0]: [nothing] may everything
        ! Error schema at "spec.ingress": an object instead of a list of rules; begin each with a dash -> matches nothing
    "#]],
    );
    check(
        "egress: nothing",
        &expect![[r#"
        MultiNetworkPolicy x/p on [Namespaced x/net] selects {}
          ingress: no rules
          egress[0]: [nothing] may everything
        ! Error schema at "spec.egress": "nothing" instead of a list of rules; begin each with a dash -> matches nothing
    "#]],
    );
    check(
        "podselector: {}\ningress: []",
        &expect![[r#"
        MultiNetworkPolicy x/p on [Namespaced x/net] selects {}
          ingress: no rules
        ! Warning schema at "spec.podselector": the field is not known; a spec has podSelector, policyTypes, ingress, egress -> part ignored
    "#]],
    );
}

#[test]
fn s053_s054_s059_s060_s223_selectors() {
    check(
        "podSelector:\n  matchLabels: {app: web, tier: \"\"}\n  matchExpressions:\n  - {key: a, operator: In, values: [y, x, x]}\n  - {key: b, operator: NotIn, values: [x]}\n  - {key: c, operator: Exists}\n  - {key: example.com/d, operator: DoesNotExist, values: []}",
        &expect![[r#"
            MultiNetworkPolicy x/p on [Namespaced x/net] selects {a in x|y, app in web, tier in , b notin x, c, !example.com/d}
              ingress: no rules
        "#]],
    );
    for bad in [
        "matchLabels: {app: 1}",
        "matchLabels: [app]",
        "matchLabels: {-app: x}",
        "matchLabels: {app: a b}",
        "matchLabel: {app: web}",
        "matchExpressions: [{key: a, operator: In}]",
        "matchExpressions: [{key: a, operator: NotIn, values: []}]",
        "matchExpressions: [{key: a, operator: Exists, values: [x]}]",
        "matchExpressions: [{key: a, operator: in, values: [x]}]",
        "matchExpressions: [{key: a, operator: Gt, values: ['1']}]",
        "matchExpressions: [{operator: Exists}]",
        "matchExpressions: [{key: a}]",
        "matchExpressions: [{key: a, operator: In, values: x}]",
        "matchExpressions: {key: a}",
    ] {
        let shown = show::text(&format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p}}\nspec:\n  podSelector: {{{bad}}}\n  ingress: [{{from: [{{podSelector: {{{bad}}}}}]}}]"
        ));
        assert!(
            shown.contains("selects nothing\n  ingress[0]: [nothing] may everything\n"),
            "{bad}: {shown}"
        );
        assert_eq!(shown.matches("invalid_selector").count(), 2, "{bad}: {shown}");
    }
    check(
        "podSelector: all\ningress:\n- from:\n  - podSelector: {matchLabels: {a: 1}}\n    namespaceSelector: {matchExpressions: [{key: k, operator: Is}]}\n  - podSelector: {matchLabels: {ok: \"1\"}}",
        &expect![[r#"
            MultiNetworkPolicy x/p on [Namespaced x/net] selects nothing
              ingress[0]: [nothing; pods {ok in 1}] may everything
            ! Error invalid_selector at "spec.podSelector": "all" instead of a selector; {} selects everything -> selects nothing
            ! Error invalid_selector at "spec.ingress[0].from[0].podSelector.matchLabels[a]": 1 instead of a label's value; put it in quotes -> matches nothing
            ! Error invalid_selector at "spec.ingress[0].from[0].namespaceSelector.matchExpressions[0].operator": "Is" is none of In, NotIn, Exists and DoesNotExist -> matches nothing
        "#]],
    );
}

#[test]
fn s062_s068_s072_s073_s221_s222_ip_blocks() {
    check(
        "ingress:\n- from:\n  - ipBlock: {cidr: 10.1.2.3/8}\n  - ipBlock: {cidr: 010.0.0.0/8, except: [10.1.0.0/16, 10.002.0.1/16]}\n  - ipBlock: {cidr: 0.0.0.0/0, except: [0.0.0.0/1]}\n  - ipBlock: {cidr: \"::/0\"}",
        &expect![[r#"
            MultiNetworkPolicy x/p on [Namespaced x/net] selects {}
              ingress[0]: [10.0.0.0/8; 10.0.0.0/8 except 10.1.0.0/16, 10.2.0.0/16; 0.0.0.0/0 except 0.0.0.0/1; ::/0] may everything
        "#]],
    );
    check(
        "ingress:\n- from:\n  - ipBlock: {cidr: 10.0.0.0/40}\n  - ipBlock: {cidr: \"::ffff:10.0.0.0/104\"}\n  - ipBlock: {}\n  - ipBlock: 10.0.0.0/8\n  - ipBlock: {cidr: 5}\n  - ipBlock: {cidr: 10.0.0.0/8, excepts: []}",
        &expect![[r#"
            MultiNetworkPolicy x/p on [Namespaced x/net] selects {}
              ingress[0]: [nothing; nothing; nothing; nothing; nothing; nothing] may everything
            ! Error invalid_cidr at "spec.ingress[0].from[0].ipBlock.cidr": "10.0.0.0/40" is no CIDR: its prefix length is too large; write for example 10.0.0.0/24 -> matches nothing
            ! Error invalid_cidr at "spec.ingress[0].from[1].ipBlock.cidr": "::ffff:10.0.0.0/104" is no CIDR: an IPv4-mapped prefix matches no packet; write for example 10.0.0.0/24 -> matches nothing
            ! Error invalid_cidr at "spec.ingress[0].from[2].ipBlock.cidr": null is no CIDR: it is missing; write for example 10.0.0.0/24 -> matches nothing
            ! Error schema at "spec.ingress[0].from[3].ipBlock": "10.0.0.0/8" instead of an ipBlock with a cidr -> matches nothing
            ! Error invalid_cidr at "spec.ingress[0].from[4].ipBlock.cidr": 5 is no CIDR: it is no text; write for example 10.0.0.0/24 -> matches nothing
            ! Error schema at "spec.ingress[0].from[5].ipBlock.excepts": an ipBlock has no such field, only cidr, except; check the spelling -> matches nothing
        "#]],
    );
    check(
        "ingress:\n- from:\n  - ipBlock: {cidr: 10.0.0.0/24, except: [10.0.0.0/25, 11.0.0.0/24]}\n  - ipBlock: {cidr: 10.0.0.0/24, except: ['fd00::/64']}\n  - ipBlock: {cidr: 10.0.0.0/24, except: [10.0.0.0/24]}\n  - ipBlock: {cidr: 10.0.0.0/24, except: [10.0.0.0/8]}\n  - ipBlock: {cidr: 10.0.0.0/24, except: [10.0.0.5]}\n  - ipBlock: {cidr: 10.0.0.0/24, except: 10.0.0.0/25}",
        &expect![[r#"
            MultiNetworkPolicy x/p on [Namespaced x/net] selects {}
              ingress[0]: [10.0.0.0/24 except 10.0.0.0/25; 10.0.0.0/24; nothing; nothing; nothing; nothing] may everything
            ! Error invalid_except at "spec.ingress[0].from[0].ipBlock.except[1]": "11.0.0.0/24" lies outside of 10.0.0.0/24 -> part ignored
            ! Error invalid_except at "spec.ingress[0].from[1].ipBlock.except[0]": "fd00::/64" is of another IP version than 10.0.0.0/24 -> part ignored
            ! Error invalid_except at "spec.ingress[0].from[2].ipBlock.except[0]": "10.0.0.0/24" leaves nothing of 10.0.0.0/24 -> matches nothing
            ! Error invalid_except at "spec.ingress[0].from[3].ipBlock.except[0]": "10.0.0.0/8" leaves nothing of 10.0.0.0/24 -> matches nothing
            ! Error invalid_except at "spec.ingress[0].from[4].ipBlock.except[0]": "10.0.0.5" is no CIDR: the prefix length is missing; without it the block would be wider than meant -> matches nothing
            ! Error invalid_except at "spec.ingress[0].from[5].ipBlock.except": "10.0.0.0/25" instead of a list of CIDRs -> matches nothing
        "#]],
    );
}

#[test]
fn s078_s079_s080_s085_s086_s087_s088_s098_s218_s219_s220_ports() {
    check(
        "ingress:\n- ports:\n  - {}\n  - {protocol: UDP}\n  - {port: 80}\n  - {port: 80, protocol: SCTP}\n  - {port: web}\n  - {port: 1000, endPort: 2000}\n  - {port: 80, endPort: 80, protocol: UDP}\n  - {port: 1, endPort: 65535}\n  - {port: null, protocol: null, endPort: null}",
        &expect![[r#"
            MultiNetworkPolicy x/p on [Namespaced x/net] selects {}
              ingress[0]: everyone may [TCP; UDP; 80/TCP; 80/SCTP; web/TCP; 1000-2000/TCP; 80/UDP; 1-65535/TCP; TCP]
        "#]],
    );
    check(
        "ingress:\n- ports:\n  - {port: 0}\n  - {port: -1}\n  - {port: 70000}\n  - {port: 80.5}\n  - {port: \"80\"}\n  - {port: Web}\n  - {port: true}\n  - {protocol: tcp, port: 80}\n  - {protocol: ICMP}\n  - {protocol: \"\"}\n  - {protocol: 6}\n  - {endPort: 90}\n  - {port: web, endPort: 90}\n  - {port: 90, endPort: 80}\n  - {port: 90, endPort: 70000}\n  - {port: 90, endPort: \"95\"}\n  - {port: 80, endport: 90}\n  - null\n  - 80",
        &expect![[r#"
            MultiNetworkPolicy x/p on [Namespaced x/net] selects {}
              ingress[0]: everyone may [nothing; nothing; nothing; nothing; nothing; nothing; nothing; nothing; nothing; nothing; nothing; nothing; nothing; nothing; nothing; nothing; nothing; nothing; nothing]
            ! Error invalid_port at "spec.ingress[0].ports[0].port": 0 is no port; ports are 1 to 65535 -> matches nothing
            ! Error invalid_port at "spec.ingress[0].ports[1].port": -1 is no port; ports are 1 to 65535 -> matches nothing
            ! Error invalid_port at "spec.ingress[0].ports[2].port": 70000 is no port; ports are 1 to 65535 -> matches nothing
            ! Error invalid_port at "spec.ingress[0].ports[3].port": 80.5 is no port; ports are 1 to 65535 -> matches nothing
            ! Error invalid_port at "spec.ingress[0].ports[4].port": "80" is not a valid port name: it has no letter (a port number is written without quotes) -> matches nothing
            ! Error invalid_port at "spec.ingress[0].ports[5].port": "Web" is not a valid port name: it has a character outside of a-z, 0-9 and '-' -> matches nothing
            ! Error invalid_port at "spec.ingress[0].ports[6].port": true is neither a port number nor a port name -> matches nothing
            ! Error unknown_protocol at "spec.ingress[0].ports[7].protocol": "tcp" is none of TCP, UDP and SCTP (in capitals) -> matches nothing
            ! Error unknown_protocol at "spec.ingress[0].ports[8].protocol": "ICMP" is none of TCP, UDP and SCTP (in capitals) -> matches nothing
            ! Error unknown_protocol at "spec.ingress[0].ports[9].protocol": "" is none of TCP, UDP and SCTP (in capitals) -> matches nothing
            ! Error unknown_protocol at "spec.ingress[0].ports[10].protocol": 6 is none of TCP, UDP and SCTP (in capitals) -> matches nothing
            ! Error invalid_end_port at "spec.ingress[0].ports[11].endPort": endPort needs a port number beside it -> matches nothing
            ! Error invalid_end_port at "spec.ingress[0].ports[12].endPort": endPort cannot follow the port name "web"; give a number -> matches nothing
            ! Error invalid_end_port at "spec.ingress[0].ports[13].endPort": 80 is below port 90; endPort is the last port of the range -> matches nothing
            ! Error invalid_end_port at "spec.ingress[0].ports[14].endPort": 70000 is no port; ports are 1 to 65535 -> matches nothing
            ! Error invalid_end_port at "spec.ingress[0].ports[15].endPort": "95" is no port; ports are 1 to 65535 -> matches nothing
            ! Error schema at "spec.ingress[0].ports[16].endport": a port entry has no such field, only protocol, port, endPort; check the spelling -> matches nothing
            ! Error schema at "spec.ingress[0].ports[17]": null instead of a port entry such as {protocol: TCP, port: 80} -> matches nothing
            ! Error schema at "spec.ingress[0].ports[18]": 80 instead of a port entry such as {protocol: TCP, port: 80} -> matches nothing
        "#]],
    );
}

#[test]
fn s146_s147_s148_s149_networks() {
    check_coverage(
        "{}",
        &expect![[r#"
        NetworkPolicy x/p on scope selects {}
          ingress: no rules
        MultiNetworkPolicy x/p on [] selects {}
          ingress: no rules
        ! Warning no_networks at "metadata.annotations[k8s.v1.cni.cncf.io/policy-for]": the annotation is missing; write a comma-separated list of namespace/name, name, default or interface:NAME -> acts nowhere
    "#]],
    );
    check_coverage(
        r#"{"k8s.v1.cni.cncf.io/policy-for": " macvlan-net1, y/b ,,default,interface:eth1, y/b"}"#,
        &expect![[r#"
            NetworkPolicy x/p on [Default default, Namespaced x/macvlan-net1, Namespaced y/b, Plugin macvlan-net1, Interface interface:eth1] selects {}
              ingress: no rules
            MultiNetworkPolicy x/p on [Default default, Namespaced x/macvlan-net1, Namespaced y/b, Plugin macvlan-net1, Interface interface:eth1] selects {}
              ingress: no rules
        "#]],
    );
    check_coverage(
        r#"{"k8s.v1.cni.cncf.io/policy-for": " , "}"#,
        &expect![[r#"
        NetworkPolicy x/p on [] selects {}
          ingress: no rules
        ! Warning no_networks at "metadata.annotations[k8s.v1.cni.cncf.io/policy-for]": the list is empty; write a comma-separated list of namespace/name, name, default or interface:NAME -> acts nowhere
        MultiNetworkPolicy x/p on [] selects {}
          ingress: no rules
        ! Warning no_networks at "metadata.annotations[k8s.v1.cni.cncf.io/policy-for]": the list is empty; write a comma-separated list of namespace/name, name, default or interface:NAME -> acts nowhere
    "#]],
    );
    check_coverage(
        r#"{"k8s.v1.cni.cncf.io/policy-for": "a/b/c,/b,a/,interface:,interface:a/b,a b,x/ok"}"#,
        &expect![[r#"
            NetworkPolicy x/p on [Namespaced x/ok] selects {}
              ingress: no rules
            ! Error invalid_network_name at "metadata.annotations[k8s.v1.cni.cncf.io/policy-for]": "a/b/c": it has more than one slash; write a comma-separated list of namespace/name, name, default or interface:NAME -> part ignored
            ! Error invalid_network_name at "metadata.annotations[k8s.v1.cni.cncf.io/policy-for]": "/b": a part of the name is empty; write a comma-separated list of namespace/name, name, default or interface:NAME -> part ignored
            ! Error invalid_network_name at "metadata.annotations[k8s.v1.cni.cncf.io/policy-for]": "a/": a part of the name is empty; write a comma-separated list of namespace/name, name, default or interface:NAME -> part ignored
            ! Error invalid_network_name at "metadata.annotations[k8s.v1.cni.cncf.io/policy-for]": "interface:": "" is not a valid interface name: it is empty; write a comma-separated list of namespace/name, name, default or interface:NAME -> part ignored
            ! Error invalid_network_name at "metadata.annotations[k8s.v1.cni.cncf.io/policy-for]": "interface:a/b": "a/b" is not a valid interface name: it contains '/' or ':'; write a comma-separated list of namespace/name, name, default or interface:NAME -> part ignored
            ! Error invalid_network_name at "metadata.annotations[k8s.v1.cni.cncf.io/policy-for]": "a b": a name has letters, digits, '-', '_' and '.', and begins with a letter or digit; write a comma-separated list of namespace/name, name, default or interface:NAME -> part ignored
            MultiNetworkPolicy x/p on [Namespaced x/ok] selects {}
              ingress: no rules
            ! Error invalid_network_name at "metadata.annotations[k8s.v1.cni.cncf.io/policy-for]": "a/b/c": it has more than one slash; write a comma-separated list of namespace/name, name, default or interface:NAME -> part ignored
            ! Error invalid_network_name at "metadata.annotations[k8s.v1.cni.cncf.io/policy-for]": "/b": a part of the name is empty; write a comma-separated list of namespace/name, name, default or interface:NAME -> part ignored
            ! Error invalid_network_name at "metadata.annotations[k8s.v1.cni.cncf.io/policy-for]": "a/": a part of the name is empty; write a comma-separated list of namespace/name, name, default or interface:NAME -> part ignored
            ! Error invalid_network_name at "metadata.annotations[k8s.v1.cni.cncf.io/policy-for]": "interface:": "" is not a valid interface name: it is empty; write a comma-separated list of namespace/name, name, default or interface:NAME -> part ignored
            ! Error invalid_network_name at "metadata.annotations[k8s.v1.cni.cncf.io/policy-for]": "interface:a/b": "a/b" is not a valid interface name: it contains '/' or ':'; write a comma-separated list of namespace/name, name, default or interface:NAME -> part ignored
            ! Error invalid_network_name at "metadata.annotations[k8s.v1.cni.cncf.io/policy-for]": "a b": a name has letters, digits, '-', '_' and '.', and begins with a letter or digit; write a comma-separated list of namespace/name, name, default or interface:NAME -> part ignored
        "#]],
    );
    check_coverage(
        r#"{"k8s.v1.cni.cncf.io/policy-for": 5}"#,
        &expect![[r#"
        NetworkPolicy x/p on scope selects {}
          ingress: no rules
        ! Error invalid_annotation at "metadata.annotations[k8s.v1.cni.cncf.io/policy-for]": the annotation is 5 instead of a text; put it in quotes -> part ignored
        MultiNetworkPolicy x/p on [] selects {}
          ingress: no rules
        ! Error invalid_annotation at "metadata.annotations[k8s.v1.cni.cncf.io/policy-for]": the annotation is 5 instead of a text; put it in quotes -> part ignored
        ! Warning no_networks at "metadata.annotations[k8s.v1.cni.cncf.io/policy-for]": the annotation is missing; write a comma-separated list of namespace/name, name, default or interface:NAME -> acts nowhere
    "#]],
    );
    check_coverage(
        r#"{"k8s.v1.cni.cncf.io/policy-for": "/"}"#,
        &expect![[r#"
        NetworkPolicy x/p on [] selects {}
          ingress: no rules
        ! Error invalid_network_name at "metadata.annotations[k8s.v1.cni.cncf.io/policy-for]": "/": a part of the name is empty; write a comma-separated list of namespace/name, name, default or interface:NAME -> part ignored
        ! Warning no_networks at "metadata.annotations[k8s.v1.cni.cncf.io/policy-for]": no item of the list is valid -> acts nowhere
        MultiNetworkPolicy x/p on [] selects {}
          ingress: no rules
        ! Error invalid_network_name at "metadata.annotations[k8s.v1.cni.cncf.io/policy-for]": "/": a part of the name is empty; write a comma-separated list of namespace/name, name, default or interface:NAME -> part ignored
        ! Warning no_networks at "metadata.annotations[k8s.v1.cni.cncf.io/policy-for]": no item of the list is valid -> acts nowhere
    "#]],
    );
}

#[test]
fn s022_specs_that_are_no_specs() {
    check_manifest(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}",
        &expect![[r#"
            NetworkPolicy default/p on scope selects {}
              ingress: no rules
            ! Warning schema at "spec": spec is missing: the policy isolates the ingress of every pod of its namespace and allows nothing -> none
        "#]],
    );
    check_manifest(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\nspec: [1]",
        &expect![[r#"
            NetworkPolicy default/p on scope selects nothing
              ingress: no rules
            ! Error schema at "spec": a list instead of an object -> selects nothing
        "#]],
    );
}
