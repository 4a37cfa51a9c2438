//! One manifest for each code, and a near twin that does not raise it.

use std::collections::BTreeSet;

use ringfence::check::CODES;
use ringfence_model::Scope;

use super::world::{base, definition, multi, pod, standard};
use super::{codes, report};

/// What raises a code, beside the base, and what does not.
struct Case {
    code: &'static str,
    raises: String,
    twin: String,
    scope: Scope,
    base: bool,
    /// What the manifest raises beside it, where one does not come without the other.
    beside: Option<&'static str>,
    /// What the twin raises instead, where it cannot be clean.
    instead: Option<&'static str>,
}

fn case(code: &'static str, raises: impl Into<String>, twin: impl Into<String>) -> Case {
    Case {
        code,
        raises: raises.into(),
        twin: twin.into(),
        scope: Scope::Secondary,
        base: true,
        beside: None,
        instead: None,
    }
}

/// The policy `x/p` for `x/blue` with one spec and another.
fn spec(code: &'static str, raises: &str, twin: &str) -> Case {
    case(code, multi("x/p", "x/blue", raises), multi("x/p", "x/blue", twin))
}

/// The same, with these as the peers of an ingress rule of `app: server`.
fn from(code: &'static str, raises: &str, twin: &str) -> Case {
    let spec_of = |peers: &str| {
        format!(
            "{{podSelector: {{matchLabels: {{app: server}}}}, policyTypes: [Ingress], ingress: [{{from: [{peers}]}}]}}"
        )
    };
    spec(code, &spec_of(raises), &spec_of(twin))
}

/// The same, with these as the entry of ports.
fn port(code: &'static str, raises: &str, twin: &str) -> Case {
    let spec_of = |port: &str| {
        format!(
            "{{podSelector: {{matchLabels: {{app: server}}}}, policyTypes: [Ingress], ingress: [{{ports: [{port}]}}]}}"
        )
    };
    spec(code, &spec_of(raises), &spec_of(twin))
}

impl Case {
    fn scope(self, scope: Scope) -> Self {
        Self { scope, ..self }
    }

    fn bare(self) -> Self {
        Self { base: false, ..self }
    }

    fn instead(self, code: &'static str) -> Self {
        Self {
            instead: Some(code),
            ..self
        }
    }

    fn beside(self, code: &'static str) -> Self {
        Self {
            beside: Some(code),
            ..self
        }
    }

    fn both(self, text: &str) -> Self {
        Self {
            raises: format!("{text}{}", self.raises),
            twin: format!("{text}{}", self.twin),
            ..self
        }
    }

    fn check(&self) {
        let text = |own: &str| {
            if self.base {
                format!("{}{own}", base())
            } else {
                own.to_owned()
            }
        };
        let raised = report(&text(&self.raises), self.scope);
        let expected: BTreeSet<&str> = self.beside.into_iter().chain([self.code]).collect();
        assert_eq!(codes(&raised), expected, "{}\n{raised}", self.raises);
        for finding in &raised.findings {
            assert!(!finding.hint.is_empty(), "{finding}");
            assert!(finding.file.ends_with("all.yaml"), "{finding}");
            let entry = CODES
                .iter()
                .find(|entry| entry.code == finding.code)
                .expect("the page has it");
            let level = finding.level.as_str();
            assert!(
                entry.severity.split('/').any(|it| it == level),
                "{}: {level}",
                entry.code
            );
        }
        let twin = report(&text(&self.twin), self.scope);
        assert_eq!(
            codes(&twin),
            self.instead.into_iter().collect(),
            "twin of {}\n{}\n{twin}",
            self.code,
            self.twin
        );
    }
}

const SERVER: &str = "{podSelector: {matchLabels: {app: server}}}";
const ALL: &str = "{podSelector: {}}";

fn rejected() -> Vec<Case> {
    let annotated = |key: &str, value: &str| {
        let line = format!("  annotations: {{{key}: '{value}'}}\n");
        pod("x/more", 30, "app: more").metadata(&line).yaml()
    };
    let status = "k8s.v1.cni.cncf.io/network-status";
    let entry = |entry: &str| pod("x/more", 30, "app: more").entry(entry).yaml();
    vec![
        case("RF002", "---\nkind: [\n", "---\n# nothing\n"),
        case(
            "RF003",
            standard("x/p", SERVER).replace("NetworkPolicy", "NetworkPolcy"),
            standard("x/p", SERVER),
        ),
        spec(
            "RF004",
            "{podSelector: {}, ingress: [{form: []}]}",
            "{podSelector: {}, ingress: [{}]}",
        ),
        from(
            "RF005",
            "{ipBlock: {cidr: 10.0.0.0/40}}",
            "{ipBlock: {cidr: 10.0.0.0/24}}",
        ),
        from(
            "RF006",
            "{ipBlock: {cidr: 10.0.0.0/8, except: [192.0.2.0/24]}}",
            "{ipBlock: {cidr: 10.0.0.0/8, except: [10.200.0.0/16]}}",
        ),
        port("RF007", "{port: '80'}", "{port: 80}"),
        port("RF008", "{port: 90, endPort: 80}", "{port: 80, endPort: 90}"),
        port("RF009", "{protocol: tcp}", "{protocol: TCP}"),
        spec(
            "RF010",
            "{podSelector: {matchExpressions: [{key: app, operator: In}]}}",
            "{podSelector: {matchExpressions: [{key: app, operator: In, values: [server]}]}}",
        ),
        from("RF011", "{}", "{podSelector: {}}"),
        spec(
            "RF012",
            "{podSelector: {}, policyTypes: [ingress]}",
            "{podSelector: {}, policyTypes: [Ingress]}",
        ),
        case("RF013", multi("x/p", "", ALL), multi("x/p", "x/blue", ALL)),
        case(
            "RF014",
            multi("x/p", "x/blue, a/b/c", ALL),
            multi("x/p", "x/blue,", ALL),
        ),
        case("RF015", annotated(status, "{"), annotated(status, "")),
        case(
            "RF016",
            entry(r#"{"name": "x/blue", "interface": "net1", "ips": ["127.0.0.1"]}"#),
            entry(r#"{"name": "x/blue", "interface": "net1", "ips": ["10.20.0.30"]}"#),
        ),
        case(
            "RF017",
            entry(r#"{"name": "x/blue", "interface": "a/b", "ips": ["10.20.0.30"]}"#),
            entry(r#"{"name": "x/blue", "interface": "ab", "ips": ["10.20.0.30"]}"#),
        ),
        case(
            "RF018",
            entry(r#"{"name": "x/blue", "interface": "net1", "ips": ["10.20.0.30"]}"#)
                .replace("podIP: 10.1.0.30", "podIP: 10.1.0.31"),
            entry(r#"{"name": "x/blue", "interface": "net1", "ips": ["10.20.0.30"]}"#),
        ),
        case(
            "RF019",
            annotated(status, &" ".repeat(300 * 1024)),
            annotated(status, &" ".repeat(100)),
        ),
        case("RF020", standard("x/p", ALL).repeat(2), standard("x/p", ALL)),
        case(
            "RF021",
            pod("x/more", 30, "app: more")
                .with("x/blue", r#""ips": ["10.20.0.10"]"#)
                .yaml(),
            pod("x/more", 30, "app: more")
                .with("x/green", r#""ips": ["10.20.0.10"]"#)
                .yaml(),
        ),
    ]
}

fn selection() -> Vec<Case> {
    let host = |more: &str| pod("x/host", 30, "app: host").on("x/blue").spec(more).yaml();
    let select = |label: &str| format!("{{podSelector: {{matchLabels: {{{label}}}}}}}");
    let green = "---\napiVersion: k8s.cni.cncf.io/v1\nkind: NetworkAttachmentDefinition\nmetadata: {name: green, namespace: y}\n";
    vec![
        spec("RF101", &select("app: serfer"), &select("app: server")),
        case("RF102", multi("z/p", "x/blue", ALL), multi("y/p", "x/blue", ALL)),
        case("RF103", host("hostNetwork: true"), host("hostNetwork: false")).both(&multi(
            "x/p",
            "x/blue",
            &select("app: host"),
        )),
        case("RF111", multi("x/p", "x/blau", ALL), multi("x/p", "x/blue", ALL)),
        case("RF112", multi("y/p", "blue", ALL), multi("y/p", "x/blue", ALL)),
        case("RF113", multi("x/p", "y/green", ALL), multi("x/p", "x/blue", ALL)).both(green),
        case(
            "RF114",
            multi("x/p", "x/red", &select("app: more")),
            multi("x/p", "x/blue", ALL),
        )
        .both(&pod("x/more", 30, "app: more").on("x/red").yaml()),
        case(
            "RF115",
            multi("x/p", "x/blue", &select("app: plain")),
            multi("x/p", "x/blue", SERVER),
        )
        .both(&pod("x/plain", 30, "app: plain").yaml()),
        case("RF116", standard("x/p", SERVER), multi("x/p", "x/blue", SERVER)).scope(Scope::Annotated),
        case(
            "RF117",
            multi("x/p", "x/blue", SERVER)
                .replace("MultiNetworkPolicy", "NetworkPolicy")
                .replace("k8s.cni.cncf.io/v1beta1", "networking.k8s.io/v1"),
            multi("x/p", "x/blue", SERVER),
        )
        .scope(Scope::None),
    ]
}

fn peers() -> Vec<Case> {
    let labels = |kind: &str, label: &str| format!("{{{kind}: {{matchLabels: {{{label}}}}}}}");
    let pods = |label: &str| labels("podSelector", label);
    let namespaces = |label: &str| labels("namespaceSelector", label);
    let more = |it: super::world::Pod| it.yaml();
    let guests = "namespaceSelector: {matchLabels: {team: blue}}";
    let pair = |dash: &str| format!("{{{guests}{dash}podSelector: {{matchLabels: {{access: 'true'}}}}}}");
    let unknown = pod("z/loner", 30, "app: loner").yaml();
    vec![
        from("RF201", &pods("access: 'yes'"), &pods("access: 'true'")),
        from("RF202", &namespaces("team: green"), &namespaces("team: blue")),
        from("RF203", &pods("app: host"), &pods("access: 'true'"))
            .both(&more(pod("x/host", 30, "app: host").spec("hostNetwork: true"))),
        from("RF204", &pods("app: plain"), &pods("access: 'true'")).both(&more(pod("x/plain", 30, "app: plain"))),
        from("RF205", &pair("}, {"), &pair(", ")),
        from(
            "RF206",
            &namespaces("team: blue"),
            &namespaces("kubernetes.io/metadata.name: 'y'"),
        )
        .both(&unknown),
        from(
            "RF211",
            "{ipBlock: {cidr: 10.0.0.0/8, except: [10.9.0.0/16]}}, {ipBlock: {cidr: 10.9.0.0/16}}",
            "{ipBlock: {cidr: 10.0.0.0/8, except: [10.9.0.0/16]}}, {ipBlock: {cidr: 11.9.0.0/16}}",
        ),
        from(
            "RF212",
            "{ipBlock: {cidr: 10.0.0.0/8, except: [10.9.0.0/16]}}, {ipBlock: {cidr: 10.9.1.0/24}}",
            "{ipBlock: {cidr: 10.0.0.0/8, except: [10.9.0.0/16]}}, {ipBlock: {cidr: 11.9.1.0/24}}",
        ),
        from(
            "RF213",
            "{ipBlock: {cidr: 10.0.0.0/8, except: [10.9.0.0/16, 10.9.1.0/24]}}",
            "{ipBlock: {cidr: 10.0.0.0/8, except: [10.9.0.0/16, 10.8.1.0/24]}}",
        ),
        from(
            "RF214",
            "{ipBlock: {cidr: 10.0.0.0/8}}, {ipBlock: {cidr: 10.9.0.0/16}}",
            "{ipBlock: {cidr: 10.0.0.0/8}}, {ipBlock: {cidr: 11.9.0.0/16}}",
        ),
        from(
            "RF215",
            "{ipBlock: {cidr: 0.0.0.0/0}}",
            "{ipBlock: {cidr: 0.0.0.0/0}}, {ipBlock: {cidr: '::/0'}}",
        )
        .both(&more(
            pod("x/dual", 30, "app: server").with("x/blue", r#""ips": ["10.20.0.30", "fd00::30"]"#),
        )),
    ]
}

fn ports() -> Vec<Case> {
    let init = |more: &str| {
        let spec = format!("initContainers: [{{ports: [{{name: early, containerPort: 90}}]{more}}}]");
        pod("x/more", 30, "app: server").on("x/blue").spec(&spec).yaml()
    };
    let egress = |peer: &str| format!("{{policyTypes: [Egress], egress: [{{to: [{peer}], ports: [{{port: web}}]}}]}}");
    let numbered = |number: u16| {
        let spec = format!("containers: [{{ports: [{{name: web, containerPort: {number}}}]}}]");
        pod("x/more", 30, "app: server").on("x/blue").spec(&spec).yaml()
    };
    let early = "{podSelector: {matchLabels: {app: server}}, ingress: [{ports: [{port: early}]}]}";
    let web = "{podSelector: {matchLabels: {app: server}}, ingress: [{ports: [{port: web}]}]}";
    vec![
        port("RF301", "{port: wep}", "{port: web}"),
        port("RF302", "{port: media}", "{port: media, protocol: UDP}"),
        case("RF303", init(""), init(", restartPolicy: Always")).both(&multi("x/p", "x/blue", early)),
        spec(
            "RF304",
            &egress("{podSelector: {matchLabels: {app: server}}}, {ipBlock: {cidr: 192.0.2.0/24}}"),
            &egress("{podSelector: {matchLabels: {app: server}}}"),
        ),
        case("RF305", numbered(8080), numbered(80)).both(&multi("x/p", "x/blue", web)),
    ]
}

fn rules() -> Vec<Case> {
    let friends = "{podSelector: {matchLabels: {access: 'true'}}}";
    let egress = |more: &str| {
        let rules = format!("{{to: [{{podSelector: {{matchLabels: {{access: 'true'}}}}}}]}}{more}");
        standard(
            "x/p",
            &format!("{{podSelector: {{matchLabels: {{app: server}}}}, policyTypes: [Egress], egress: [{rules}]}}"),
        )
    };
    vec![
        spec(
            "RF401",
            "{podSelector: {}, policyTypes: [Ingress], egress: [{}]}",
            "{podSelector: {}, policyTypes: [Ingress, Egress], egress: [{}]}",
        ),
        spec(
            "RF402",
            "{podSelector: {}, egress: []}",
            "{podSelector: {}, policyTypes: [Ingress, Egress], egress: []}",
        ),
        spec(
            "RF403",
            &format!("{{podSelector: {{}}, ingress: [{{from: [{friends}]}}, {{}}]}}"),
            &format!("{{podSelector: {{}}, ingress: [{{from: [{friends}]}}, {{ports: [{{port: 80}}]}}]}}"),
        ),
        spec(
            "RF404",
            "{podSelector: {}, ingress: [{from: []}]}",
            "{podSelector: {}, ingress: [{}]}",
        ),
        case("RF405", egress(""), egress(", {ports: [{protocol: UDP, port: 53}]}")).scope(Scope::All),
    ]
}

fn pods() -> Vec<Case> {
    let more = |entry: &str| pod("x/more", 30, "app: more").entry(entry).yaml();
    let blue = multi("x/p", "x/blue", ALL);
    let plain = |ipam: &str| {
        format!(
            "---\napiVersion: k8s.cni.cncf.io/v1\nkind: NetworkAttachmentDefinition\nmetadata: {{name: l2, namespace: x}}\n\
             spec: {{config: '{{\"type\": \"bridge\"{ipam}}}'}}\n"
        )
    };
    let peers = multi(
        "x/p",
        "x/l2",
        "{podSelector: {matchLabels: {l2: a}}, ingress: [{from: [{podSelector: {matchLabels: {l2: b}}}]}]}",
    );
    let on_l2 = |name: &str, fields: &str| {
        let label = format!("l2: {}", name.rsplit('/').next().expect("a name"));
        pod(name, 40 + u16::from(name.as_bytes()[2]), &label)
            .with("x/l2", fields)
            .yaml()
    };
    let isolated = |isolation: &str| {
        format!(
            "---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: old, annotations: {{net.beta.kubernetes.io/network-policy: \
             '{{\"ingress\": {{{isolation}}}}}'}}}}\n"
        )
    };
    vec![
        case(
            "RF501",
            more(r#"{"name": "x/blue", "interface": "net1"}"#),
            more(r#"{"name": "x/blue", "interface": "net1", "ips": ["10.20.0.30"]}"#),
        )
        .both(&blue),
        case("RF502", plain(""), plain(r#", "ipam": {"type": "static"}"#))
            .both(&format!(
                "{peers}{}{}",
                on_l2("x/a", "\"ips\": [\"10.20.7.1\"]"),
                on_l2("x/b", "\"mac\": \"02:00:00:00:00:01\"")
            ))
            .instead("RF204"),
        case(
            "RF503",
            more(r#"{"name": "x/blue", "interface": "net1", "device-info": {"type": "vhost-user"}}"#),
            more(r#"{"name": "x/blue", "interface": "net1", "ips": ["10.20.0.30"], "device-info": {"type": "pci"}}"#),
        )
        .both(&blue),
        case(
            "RF504",
            more(r#"{"name": "x/blue", "ips": ["10.20.0.30"]}"#),
            more(r#"{"name": "x/blue", "interface": "net1", "ips": ["10.20.0.30"]}"#),
        )
        .both(&blue),
        case("RF505", isolated(r#""isolation": "DefaultDeny""#), isolated("")),
    ]
}

fn cluster() -> Vec<Case> {
    let range = multi(
        "x/p",
        "x/blue",
        "{podSelector: {}, ingress: [{ports: [{port: 8000, endPort: 9000}]}]}",
    );
    let with = definition("port: {}, endPort: {}");
    let without = definition("port: {}");
    vec![
        case("RF601", &without, &with).bare(),
        case("RF602", format!("{range}{without}"), format!("{range}{with}")).beside("RF601"),
    ]
}

fn all() -> Vec<Case> {
    [rejected(), selection(), peers(), ports(), rules(), pods(), cluster()]
        .into_iter()
        .flatten()
        .collect()
}

#[test]
fn the_base_is_clean() {
    let report = report(&base(), Scope::Secondary);
    assert_eq!(
        report.to_string(),
        "Nothing found in 6 objects (2 Namespace, 3 Pod, 1 NetworkAttachmentDefinition).\n"
    );
}

#[test]
fn every_code_is_raised_by_its_manifest_and_not_by_its_twin() {
    for case in all() {
        case.check();
    }
}

#[test]
fn every_code_has_a_case() {
    let tried: BTreeSet<&str> = all().iter().map(|case| case.code).collect();
    // The agent alone keeps objects of a file that it can no longer read: the command ends with exit code 2.
    let expected: BTreeSet<&str> = CODES
        .iter()
        .map(|entry| entry.code)
        .filter(|code| *code != "RF001")
        .collect();
    assert_eq!(tried, expected);
}
