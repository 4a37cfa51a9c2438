//! From the text of a manifest to the verdict: the decoder, the compiler and the packet tracer together, beside the
//! oracle. Groups B and N, and what group K says of the CRD that checks nothing (145, 165).
//!
//! Every specification is tried as a NetworkPolicy and as a MultiNetworkPolicy. The API server would refuse some of
//! them as a NetworkPolicy; objects that were stored under older rules, and manifests in a folder, can be like that.

use ringfence_kube::Decoded;
use ringfence_model::{Consequence, Consequence::MatchesNothing, PolicyKind, Reason};

use super::*;

const KINDS: [(&str, &str, PolicyKind); 2] = [
    ("networking.k8s.io/v1", "NetworkPolicy", PolicyKind::NetworkPolicy),
    (
        "k8s.cni.cncf.io/v1beta1",
        "MultiNetworkPolicy",
        PolicyKind::MultiNetworkPolicy,
    ),
];

/// A policy x/p for net-a with this spec, in YAML's flow style.
fn decoded(api: &str, kind: &str, spec: &str) -> Decoded {
    let text = format!(
        "apiVersion: {api}\nkind: {kind}\nmetadata:\n  name: p\n  namespace: x\n  annotations: \
         {{k8s.v1.cni.cncf.io/policy-for: default/net-a}}\nspec: {spec}\n"
    );
    let mut decoded = ringfence_kube::decode(&text, "test");
    assert_eq!(decoded.len(), 1, "{text}");
    decoded.remove(0)
}

/// What must be reported: where, why, with which outcome.
type Finding<'a> = (&'a str, Reason, Consequence);

#[track_caller]
fn check_spec(spec: &str, findings: &[Finding<'_>], lines: &[&str]) {
    for (api, kind, _) in KINDS {
        let decoded = decoded(api, kind, spec);
        let found: Vec<Finding<'_>> = decoded
            .diagnostics
            .iter()
            .map(|it| (it.path.as_str(), it.reason, it.consequence))
            .collect();
        assert_eq!(found, findings, "{kind} {spec}");
        let object = decoded.object.unwrap_or_else(|| panic!("{kind} {spec} is lost"));
        let web = member("x/a")
            .port("web", Protocol::Tcp, 8080)
            .port("p-80", Protocol::Tcp, 80);
        let objects = world().into_iter().chain([web.into(), object]);
        check_index(&index_with(options(), objects), lines);
    }
}

/// A clause of a rule that must match nothing and be reported once, in both directions, beside a rule that is right.
/// `clause` has FROM where a rule has `from` or `to`.
#[track_caller]
fn check_clause(clause: &str, path: &str, reason: Reason) {
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        let clause = clause.replace("FROM", peers);
        let good = format!("{{{peers}: [{{podSelector: {{matchLabels: {{app: db}}}}}}], ports: [{{port: 443}}]}}");
        let types = if direction == "ingress" { "Ingress" } else { "Egress" };
        let spec = format!(
            "{{podSelector: {{matchLabels: {{app: web}}}}, policyTypes: [{types}], {direction}: [{{{clause}}}, {good}]}}"
        );
        let path = format!("spec.{direction}[0].{}", path.replace("FROM", peers));
        let line = |other: &str, rest: &str| match direction {
            "ingress" => format!("{other} > x/a {rest}"),
            _ => format!("x/a > {other} {rest}"),
        };
        let lines = [
            line("x/b", "tcp/443: yes"),
            line("x/b", "tcp/80 tcp/81 tcp/8080 udp/80 udp/443 sctp/80 ping gre: no"),
            line("y/a", "tcp/80 tcp/443 tcp/8080 udp/80 ping: no"),
            line("192.0.2.1", "tcp/80 tcp/443 ping: no"),
            line("10.0.0.1", "tcp/80: no"),
        ];
        check_spec(
            &spec,
            &[(&path, reason, MatchesNothing)],
            &lines.each_ref().map(String::as_str),
        );
    }
}

#[test]
fn s023_s024_s025_s225_types_by_default_and_lists_that_are_null() {
    let both = ["y/a > x/a tcp/80: no", "x/a > y/a tcp/80: no"];
    let ingress_only = ["y/a > x/a tcp/80: no", "x/a > y/a tcp/80: yes"];
    let egress_only = ["y/a > x/a tcp/80: yes", "x/a > y/a tcp/80: no"];
    for rules in [
        "",
        "ingress: null",
        "ingress: []",
        "egress: null",
        "egress: []",
        "ingress: [], egress: []",
    ] {
        check_spec(&format!("{{podSelector: {{}}, {rules}}}"), &[], &ingress_only);
        check_spec(
            &format!("{{podSelector: {{}}, policyTypes: null, {rules}}}"),
            &[],
            &ingress_only,
        );
        check_spec(
            &format!("{{podSelector: {{}}, policyTypes: [], {rules}}}"),
            &[],
            &ingress_only,
        );
        check_spec(
            &format!("{{podSelector: {{}}, policyTypes: [Ingress], {rules}}}"),
            &[],
            &ingress_only,
        );
        check_spec(
            &format!("{{podSelector: {{}}, policyTypes: [Egress], {rules}}}"),
            &[],
            &egress_only,
        );
        check_spec(
            &format!("{{podSelector: {{}}, policyTypes: [Egress, Ingress], {rules}}}"),
            &[],
            &both,
        );
    }
    let to_blue = "egress: [{to: [{namespaceSelector: {matchLabels: {team: blue}}}]}]";
    check_spec(
        &format!("{{podSelector: {{}}, {to_blue}}}"),
        &[],
        &[
            "y/a > x/a tcp/80: no",
            "x/a > y/a tcp/80: yes",
            "x/a > 192.0.2.1 tcp/80: no",
        ],
    );
}

#[test]
fn s019_s020_rules_of_a_direction_that_is_not_listed_do_not_count() {
    check_spec(
        "{podSelector: {}, policyTypes: [Ingress], ingress: [{}], egress: [{ports: [{port: 1}]}]}",
        &[],
        &["y/a > x/a tcp/80: yes", "x/a > y/a tcp/80 tcp/1: yes"],
    );
    check_spec(
        "{podSelector: {}, policyTypes: [Egress], ingress: [{}], egress: [{ports: [{port: 1}]}]}",
        &[],
        &["y/a > x/a tcp/80: yes", "x/a > y/a tcp/1: yes", "x/a > y/a tcp/80: no"],
    );
}

#[test]
fn s026_s027_s028_types_that_are_wrong() {
    let wrong = |position: usize| format!("spec.policyTypes[{position}]");
    let ignored = (Reason::InvalidPolicyType, Consequence::PartIgnored);
    let open = "ingress: [{}], egress: [{}]";
    check_spec(
        &format!("{{podSelector: {{}}, policyTypes: [ingress, Egress], {open}}}"),
        &[(&wrong(0), ignored.0, ignored.1)],
        &["y/a > x/a tcp/80: yes", "x/a > y/a tcp/80: yes"],
    );
    check_spec(
        "{podSelector: {}, policyTypes: [INGRESS, Egress], ingress: [], egress: []}",
        &[(&wrong(0), ignored.0, ignored.1)],
        &["y/a > x/a tcp/80: yes", "x/a > y/a tcp/80: no"],
    );
    check_spec(
        &format!("{{podSelector: {{}}, policyTypes: [Both], {open}}}"),
        &[
            (&wrong(0), ignored.0, ignored.1),
            ("spec.policyTypes", Reason::InvalidPolicyType, MatchesNothing),
        ],
        &["y/a > x/a tcp/80: no", "x/a > y/a tcp/80: no"],
    );
    check_spec(
        "{podSelector: {}, policyTypes: [Ingress, Ingress], ingress: [{ports: [{port: 80}]}]}",
        &[],
        &["y/a > x/a tcp/80: yes", "y/a > x/a tcp/81: no", "x/a > y/a tcp/80: yes"],
    );
}

#[test]
fn s029_s030_missing_and_empty_peers() {
    for rule in [
        "{}",
        "{from: []}",
        "{from: null}",
        "{from: [], ports: []}",
        "{ports: null}",
    ] {
        check_spec(
            &format!("{{podSelector: {{}}, ingress: [{rule}]}}"),
            &[],
            &[
                "192.0.2.1 > x/a tcp/80 udp/1 ping gre: yes",
                "2001:db8::1 > x/a%6 sctp/80 ping: yes",
            ],
        );
    }
    check_spec(
        "{podSelector: {}, ingress: [{from: [], ports: [{port: 80}]}]}",
        &[],
        &["192.0.2.1 > x/a tcp/80: yes", "192.0.2.1 > x/a tcp/81 ping: no"],
    );
}

#[test]
fn s036_s037_s165_peers_that_match_nothing() {
    check_clause("FROM: [{}]", "FROM[0]", Reason::InvalidPeer);
    check_clause("FROM: [null]", "FROM[0]", Reason::InvalidPeer);
    check_clause(
        "FROM: [{ipBlock: {cidr: 0.0.0.0/0}, podSelector: {}}]",
        "FROM[0]",
        Reason::InvalidPeer,
    );
    check_clause(
        "FROM: [{ipBlock: {cidr: 0.0.0.0/0}, namespaceSelector: {}}]",
        "FROM[0]",
        Reason::InvalidPeer,
    );
}

#[test]
fn s059_s060_s165_s223_selectors_that_are_invalid() {
    for (selector, path) in [
        (
            "matchExpressions: [{key: app, operator: Is, values: [web]}]",
            "matchExpressions[0].operator",
        ),
        (
            "matchExpressions: [{key: app, operator: in, values: [web]}]",
            "matchExpressions[0].operator",
        ),
        (
            "matchExpressions: [{key: app, operator: In}]",
            "matchExpressions[0].values",
        ),
        (
            "matchExpressions: [{key: app, operator: NotIn, values: []}]",
            "matchExpressions[0].values",
        ),
        (
            "matchExpressions: [{key: app, operator: Exists, values: [x]}]",
            "matchExpressions[0].values",
        ),
        (
            "matchExpressions: [{key: app, operator: DoesNotExist, values: [x]}]",
            "matchExpressions[0].values",
        ),
    ] {
        for kind in ["podSelector", "namespaceSelector"] {
            let path = format!("FROM[0].{kind}.{path}");
            check_clause(
                &format!("FROM: [{{{kind}: {{{selector}}}}}]"),
                &path,
                Reason::InvalidSelector,
            );
        }
        // As the target it selects nobody, and says so.
        check_spec(
            &format!("{{podSelector: {{{selector}}}, ingress: []}}"),
            &[(
                &format!("spec.podSelector.{path}"),
                Reason::InvalidSelector,
                Consequence::SelectsNothing,
            )],
            &["y/a > x/a tcp/80: yes", "y/a > x/b tcp/80: yes"],
        );
    }
}

#[test]
fn s068_s165_s222_excepts_that_do_not_fit() {
    let spec = |except: &str| {
        format!("{{podSelector: {{}}, ingress: [{{from: [{{ipBlock: {{cidr: 10.20.0.0/16, except: [{except}]}}}}]}}]}}")
    };
    let at = "spec.ingress[0].from[0].ipBlock.except[0]";
    let closed = ["y/a > x/a tcp/80: no", "10.20.9.9 > x/a tcp/80: no"];
    for covering in ["10.20.0.0/16", "10.0.0.0/8", "0.0.0.0/0"] {
        check_spec(&spec(covering), &[(at, Reason::InvalidExcept, MatchesNothing)], &closed);
    }
    let open = ["y/a > x/a tcp/80: yes", "10.20.9.9 > x/a tcp/80: yes"];
    for beside in ["10.21.0.0/16", "'::/0'", "'fd00::/8'"] {
        check_spec(
            &spec(beside),
            &[(at, Reason::InvalidExcept, Consequence::PartIgnored)],
            &open,
        );
    }
    // The one that fits still counts.
    check_spec(
        &spec("'::/0', 10.20.2.0/24"),
        &[(at, Reason::InvalidExcept, Consequence::PartIgnored)],
        &["y/a > x/a tcp/80: no", "z/a > x/a tcp/80: yes"],
    );
    // Which addresses were meant is not known, so none.
    check_spec(
        &spec("10.20.2.0"),
        &[(at, Reason::InvalidExcept, MatchesNothing)],
        &closed,
    );
}

#[test]
fn s072_unusual_prefixes_mean_what_they_say() {
    for cidr in ["10.20.2.99/24", "010.020.002.000/24"] {
        check_spec(
            &format!("{{podSelector: {{}}, ingress: [{{from: [{{ipBlock: {{cidr: {cidr}}}}}]}}]}}"),
            &[],
            &[
                "y/a > x/a tcp/80: yes",
                "x/b > x/a tcp/80: no",
                "8.16.2.1 > x/a tcp/80: no",
            ],
        );
    }
}

#[test]
fn s073_s165_s221_prefixes_that_are_none() {
    for cidr in [
        "10.0.0.0/40",
        "10.0.0.0",
        "10.0.0/8",
        "300.0.0.0/8",
        "all",
        "''",
        "5",
        "'::/129'",
        "10.0.0.0/-1",
        "'::ffff:10.0.0.0/104'",
        "'::ffff:0.0.0.0/96'",
    ] {
        check_clause(
            &format!("FROM: [{{ipBlock: {{cidr: {cidr}}}}}]"),
            "FROM[0].ipBlock.cidr",
            Reason::InvalidCidr,
        );
    }
    check_clause("FROM: [{ipBlock: {}}]", "FROM[0].ipBlock.cidr", Reason::InvalidCidr);
}

#[test]
fn s078_a_missing_protocol_is_tcp() {
    check_spec(
        "{podSelector: {}, ingress: [{ports: [{port: 80}]}]}",
        &[],
        &["y/a > x/a tcp/80: yes", "y/a > x/a udp/80 sctp/80 tcp/81: no"],
    );
    for entry in ["{}", "{protocol: null}"] {
        check_spec(
            &format!("{{podSelector: {{}}, ingress: [{{ports: [{entry}]}}]}}"),
            &[],
            &["y/a > x/a tcp/1 tcp/65535: yes", "y/a > x/a udp/80 sctp/80 ping: no"],
        );
    }
}

#[test]
fn s079_s165_s218_protocols_that_are_unknown() {
    for protocol in ["ICMP", "tcp", "''", "TCPUDP", "6", "all"] {
        for port in ["", ", port: 80"] {
            check_clause(
                &format!("ports: [{{protocol: {protocol}{port}}}]"),
                "ports[0].protocol",
                Reason::UnknownProtocol,
            );
        }
    }
}

#[test]
fn s086_s165_end_ports_that_are_wrong() {
    for entry in [
        "endPort: 90",
        "port: web, endPort: 90",
        "port: 90, endPort: 80",
        "port: 80, endPort: 70000",
        "port: 80, endPort: -1",
        "port: 80, endPort: '90'",
    ] {
        check_clause(
            &format!("ports: [{{{entry}}}]"),
            "ports[0].endPort",
            Reason::InvalidEndPort,
        );
    }
    check_spec(
        "{podSelector: {}, ingress: [{ports: [{port: 80, endPort: 80}, {port: 90, endPort: 91}]}]}",
        &[],
        &[
            "y/a > x/a tcp/80 tcp/90 tcp/91: yes",
            "y/a > x/a tcp/81 tcp/89 tcp/92: no",
        ],
    );
}

#[test]
fn s087_s098_s165_s219_ports_that_are_impossible() {
    for port in [
        "0",
        "-1",
        "65536",
        "70000",
        "4294967376",
        "80.5",
        "true",
        "''",
        "Web",
        "has_underscore",
        "sixteen-letters-",
        "-web",
        "web-",
        "a--b",
    ] {
        check_clause(
            &format!("ports: [{{port: {port}}}]"),
            "ports[0].port",
            Reason::InvalidPort,
        );
    }
}

#[test]
fn s098_s165_s220_a_number_in_quotes_is_no_number() {
    for port in ["'80'", "'443'", "'0'", "'1-2'"] {
        check_clause(
            &format!("ports: [{{port: {port}}}]"),
            "ports[0].port",
            Reason::InvalidPort,
        );
    }
    // With a letter it is a name like any other.
    check_spec(
        "{podSelector: {}, ingress: [{ports: [{port: p-80}]}]}",
        &[],
        &[
            "y/a > x/a tcp/80: yes",
            "y/a > x/b tcp/80: no",
            "y/a > x/a tcp/8080: no",
        ],
    );
}

#[test]
fn s022_s166_what_is_wrong_spoils_only_itself() {
    // One rule with a bad peer beside a good one, a bad port beside a good one; one rule of nonsense; one that is right.
    check_spec(
        "{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{ipBlock: {cidr: x}}, {podSelector: {matchLabels: {app: db}}}], ports: \
         [{port: 0}, {port: 80}]}, 7, {ports: [{port: 443}]}], egress: [{to: [{podSelector: 5}]}]}",
        &[
            (
                "spec.ingress[0].from[0].ipBlock.cidr",
                Reason::InvalidCidr,
                MatchesNothing,
            ),
            ("spec.ingress[0].ports[0].port", Reason::InvalidPort, MatchesNothing),
            ("spec.ingress[1]", Reason::Schema, MatchesNothing),
            (
                "spec.egress[0].to[0].podSelector",
                Reason::InvalidSelector,
                MatchesNothing,
            ),
        ],
        &[
            "x/b > x/a tcp/80 tcp/443: yes",
            "y/a > x/a tcp/443: yes",
            "y/a > x/a tcp/80: no",
            "x/b > x/a udp/80 ping: no",
            "x/a > y/a tcp/80: no",
            "y/a > z/a tcp/80: yes",
        ],
    );
    // Another policy of the same pods is not touched by it.
    let broken = decoded(KINDS[1].0, KINDS[1].1, "{podSelector: {}, ingress: 5, egress: [{}]}");
    assert!(!broken.diagnostics.is_empty());
    let other = policy("x/other").ingress([rule([pods("app=db")], [tcp(80)])]);
    let objects = world()
        .into_iter()
        .chain([broken.object.expect("a policy"), other.into()]);
    check_index(
        &index_with(options(), objects),
        &["x/b > x/a tcp/80: yes", "x/c > x/a tcp/80: no", "x/a > y/a tcp/80: yes"],
    );
}

#[test]
fn s145_both_kinds_mean_the_same() {
    for spec in [
        "{}",
        "{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {}}], ports: [{port: 80, endPort: 90}]}]}",
        "{policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}, podSelector: {}}], ports: [{port: web}]}]}",
        "{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]}], egress: [{}]}",
        "{podSelector: {matchExpressions: [{key: a, operator: Exists}]}, ingress: [{ports: [{protocol: SCTP}, {port: 0}]}]}",
        "{policyTypes: [x], ingress: [{}]}",
    ] {
        let [one, other] = KINDS.map(|(api, kind, expected)| {
            let decoded = decoded(api, kind, spec);
            let Some(Object::Policy(mut policy)) = decoded.object else {
                panic!("{kind} {spec}")
            };
            assert_eq!(policy.key.kind, expected);
            policy.key.kind = PolicyKind::NetworkPolicy;
            let found: Vec<_> = decoded
                .diagnostics
                .into_iter()
                .map(|it| (it.path, it.reason, it.consequence))
                .collect();
            (policy, found)
        });
        assert_eq!(one, other, "{spec}");
    }
}
