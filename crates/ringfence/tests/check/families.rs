//! What is said and what is not where statements have several sides, and the words of the hints.

use ringfence_model::Scope;

use super::report;
use super::world::{base, multi, pod, standard};

/// Checks that exactly these findings come, each as its code and a part of its line.
#[track_caller]
fn check(scope: Scope, text: &str, expected: &[(&str, &str)]) {
    let report = report(&format!("{}{text}", base()), scope);
    assert_eq!(report.findings.len(), expected.len(), "{text}\n{report}");
    for (finding, (code, part)) in report.findings.iter().zip(expected) {
        assert_eq!(finding.code, *code, "{text}\n{report}");
        assert!(finding.to_string().contains(part), "{part:?} is not in\n{finding}");
    }
}

fn blue(name: &str, spec: &str) -> String {
    multi(name, "x/blue", spec)
}

const BLOCK: &str = "{ipBlock: {cidr: 10.0.0.0/8, except: [10.9.0.0/16]}}";

fn ingress(rules: &str) -> String {
    format!("{{podSelector: {{matchLabels: {{app: server}}}}, policyTypes: [Ingress], ingress: [{rules}]}}")
}

#[test]
fn s064_s065_s066_s067_who_grants_an_except_again() {
    let scope = Scope::Secondary;
    let hole = |rest: &str| ingress(&format!("{{from: [{BLOCK}]}}{rest}"));
    let again = "{from: [{ipBlock: {cidr: 10.9.0.0/16}}]}";
    check(
        scope,
        &blue("x/p", &hole(&format!(", {again}"))),
        &[(
            "RF211",
            "except[0]: 10.9.0.0/16 is allowed again by spec.ingress[1].from[0]",
        )],
    );
    let other = |name: &str, rule: &str| format!("{}{}", blue("x/p", &hole("")), blue(name, &ingress(rule)));
    check(
        scope,
        &other("x/q", again),
        &[("RF211", "by MultiNetworkPolicy x/q spec.ingress[0].from[0]")],
    );
    check(
        scope,
        &other("x/q", "{}"),
        &[("RF211", "by MultiNetworkPolicy x/q spec.ingress[0]")],
    );
    // The other policy speaks of other ports, other pods or another direction.
    check(
        scope,
        &format!(
            "{}{}",
            blue("x/p", &ingress(&format!("{{from: [{BLOCK}], ports: [{{port: 80}}]}}"))),
            blue(
                "x/q",
                &ingress("{from: [{ipBlock: {cidr: 10.9.0.0/16}}], ports: [{port: 81}]}")
            )
        ),
        &[],
    );
    let guest = ingress(again).replace("app: server", "app: guest");
    check(
        scope,
        &format!("{}{}", blue("x/p", &hole("")), blue("y/q", &guest)),
        &[],
    );
    check(
        scope,
        &blue(
            "x/p",
            &format!(
                "{{podSelector: {{}}, policyTypes: [Ingress, Egress], ingress: [{{from: [{BLOCK}]}}], egress: [{{to: \
                 [{{ipBlock: {{cidr: 10.9.0.0/16}}}}]}}]}}"
            ),
        ),
        &[],
    );
    // Some ports of it only.
    check(
        scope,
        &blue(
            "x/p",
            &hole(", {from: [{ipBlock: {cidr: 10.9.0.0/16}}], ports: [{port: 80}]}"),
        ),
        &[("RF212", "some ports of it")],
    );
    // A pod's own address, and a prefix in which somebody else has one too.
    let friends = "{podSelector: {matchLabels: {access: 'true'}}}";
    let except = |net: &str| {
        ingress(&format!(
            "{{from: [{{ipBlock: {{cidr: 10.0.0.0/8, except: [{net}]}}}}, {friends}]}}"
        ))
    };
    check(
        scope,
        &blue("x/p", &except("10.20.0.11/32")),
        &[("RF211", "every pod with an address")],
    );
    check(scope, &blue("x/p", &except("10.20.0.0/24")), &[]);
    check(scope, &blue("x/p", &except("10.20.0.11/31")), &[]);
}

#[test]
fn s042_two_items_are_said_only_where_one_would_select_somebody() {
    let pair = |first: &str, second: &str| blue("x/p", &ingress(&format!("{{from: [{first}, {second}]}}")));
    let guests = "{namespaceSelector: {matchLabels: {team: blue}}}";
    let by_label = |label: &str| format!("{{podSelector: {{matchLabels: {{{label}}}}}}}");
    let said = [("RF205", "take away the second dash")];
    check(Scope::Secondary, &pair(guests, &by_label("access: 'true'")), &said);
    check(Scope::Secondary, &pair(&by_label("access: 'true'"), guests), &said);
    check(Scope::Secondary, &pair(guests, &by_label("app: server")), &[]);
    check(Scope::Secondary, &pair(guests, "{podSelector: {}}"), &[]);
}

#[test]
fn dns_is_said_only_where_the_policies_together_close_it() {
    let friends = "{podSelector: {matchLabels: {access: 'true'}}}";
    let egress = |name: &str, rules: &str| {
        standard(
            name,
            &format!("{{podSelector: {{matchLabels: {{app: server}}}}, policyTypes: [Egress], egress: [{rules}]}}"),
        )
    };
    let closed = egress("x/p", &format!("{{to: [{friends}]}}"));
    check(
        Scope::All,
        &format!("{closed}{}", egress("x/q", "")),
        &[(
            "RF405",
            "pod x/server can send to some destinations and not to port 53 (DNS): the egress policies are NetworkPolicy x/p, NetworkPolicy x/q",
        )],
    );
    // The cluster network stays open.
    check(Scope::Secondary, &closed, &[]);
    // Nothing at all may go out.
    check(Scope::All, &egress("x/p", ""), &[]);
    for open in [
        "{}",
        "{ports: [{protocol: UDP, port: 53}]}",
        "{ports: [{port: 50, endPort: 60}]}",
        "{to: [{ipBlock: {cidr: 192.0.2.0/24}}]}",
        "{to: [{namespaceSelector: {}}]}",
    ] {
        check(Scope::All, &format!("{closed}{}", egress("x/q", open)), &[]);
    }
    let server = pod("x/dns", 40, "k8s-app: dns")
        .spec("containers: [{ports: [{name: dns, containerPort: 53, protocol: UDP}]}]")
        .yaml();
    let to_server = egress("x/q", "{to: [{podSelector: {matchLabels: {k8s-app: dns}}}]}");
    check(Scope::All, &format!("{closed}{server}{to_server}"), &[]);
}

#[test]
fn hints_name_what_may_have_been_meant() {
    let select = |label: &str| format!("{{podSelector: {{matchLabels: {{{label}}}}}}}");
    let scope = Scope::Secondary;
    check(
        scope,
        &blue("x/p", &select("app: guest")),
        &[("RF101", "pods with these labels are in namespace y")],
    );
    check(
        scope,
        &blue("x/p", &select("ap: server")),
        &[("RF101", "no pod there has the label ap")],
    );
    check(scope, &blue("xx/p", "{podSelector: {}}"), &[("RF102", "near names: x")]);
    check(
        scope,
        &multi("y/p", "blue", "{podSelector: {}}"),
        &[("RF112", "to do: write x/blue")],
    );
    check(
        scope,
        &multi("x/p", "x/bleu", "{podSelector: {}}"),
        &[("RF111", "near names: x/blue")],
    );
    let port = ingress("{ports: [{port: wep}]}");
    check(scope, &blue("x/p", &port), &[("RF301", "near names: web")]);
    let team = ingress("{from: [{namespaceSelector: {matchLabels: {team: bleu}}}]}");
    check(scope, &blue("x/p", &team), &[("RF202", "team is blue there")]);
}

/// Pods as people write them, without status: nothing is known of their addresses, and nothing is missing.
#[test]
fn pods_that_have_not_started_are_no_finding() {
    let waiting = |name: &str, label: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: x, labels: {{app: {label}}}, annotations: \
             {{k8s.v1.cni.cncf.io/networks: blue}}}}\n"
        )
    };
    let policy =
        "{podSelector: {matchLabels: {app: new}}, ingress: [{from: [{podSelector: {matchLabels: {app: newer}}}]}]}";
    check(
        Scope::Secondary,
        &format!(
            "{}{}{}",
            waiting("a", "new"),
            waiting("b", "newer"),
            blue("x/p", policy)
        ),
        &[],
    );
}

/// The order of documents is that of findings, and of nothing else.
#[test]
fn the_order_of_findings_is_that_of_the_manifests() {
    let policies = |names: [&str; 3]| {
        names
            .map(|name| blue(name, "{podSelector: {matchLabels: {app: nobody}}}"))
            .concat()
    };
    for names in [["x/a", "x/b", "x/c"], ["x/c", "x/a", "x/b"]] {
        let report = report(&format!("{}{}", base(), policies(names)), Scope::Secondary);
        let found: Vec<&str> = report.findings.iter().map(|finding| &*finding.source.name).collect();
        assert_eq!(found, names);
    }
}
