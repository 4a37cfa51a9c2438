//! The project's own manifests: the policies of the traffic scenarios and those that the README shows raise nothing that is
//! not expected.

#[path = "../traffic/scenarios.rs"]
#[allow(dead_code, reason = "what passes is for traffic")]
mod scenarios;

/// The part of the traffic tests' world that the scenarios speak of.
mod world {
    #![allow(dead_code, reason = "the cells are for traffic")]

    use ringfence_testkit::Protocol;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Pod {
        Server,
        Friend,
        Stranger,
        Guest,
    }

    #[derive(Debug, Clone, Copy)]
    pub struct Cell {
        pub from: Pod,
        pub to: Pod,
        pub green: bool,
        pub ipv6: bool,
        pub protocol: Protocol,
        pub port: u16,
    }
}

use std::fmt::Write as _;

use ringfence_model::Scope;
use ringfence_testkit::manifest::{self, Policy};
use scenarios::{On, SCENARIOS};

use super::world::{multi, pod};
use super::{codes, report};

/// The pods of the scenarios as Multus describes them.
fn cast() -> String {
    let dual = |number: u16| format!("\"ips\": [\"10.20.1.{number}\", \"fd00:20::{number}\"]");
    let both = |it: super::world::Pod, number: u16| it.with("x/blue", &dual(number)).on("x/green").yaml();
    let ports = |ports: &str| format!("containers: [{{ports: [{ports}]}}]");
    let mut text = manifest::documents(&[
        manifest::namespace("x", &[]),
        manifest::namespace("y", &[("team", "blue")]),
    ]);
    let web = "{name: web, containerPort: 80}, {name: media, containerPort: 81, protocol: UDP}";
    text += &both(pod("x/server", 10, "app: server").spec(&ports(web)), 10);
    let other = "{name: web, containerPort: 81}";
    text += &both(pod("x/friend", 11, "access: 'true'").spec(&ports(other)), 11);
    text += &both(pod("x/stranger", 12, ""), 12);
    text += &both(pod("y/guest", 13, "access: 'true'"), 13);
    text
}

#[test]
fn the_traffic_scenarios_raise_what_they_try_on_purpose() {
    let cast = cast();
    let mut found = String::new();
    for scenario in SCENARIOS {
        let mut text = cast.clone();
        for (position, policy) in scenario.policies.iter().enumerate() {
            let networks = match policy.on {
                On::Blue => "x/blue",
                On::Green => "x/green",
                On::Both => "x/blue,x/green",
            };
            text += &multi(&format!("{}/p{position}", policy.namespace), networks, policy.spec);
        }
        let report = report(&text, Scope::Secondary);
        let codes = codes(&report);
        if !codes.is_empty() {
            let codes: Vec<&str> = codes.into_iter().collect();
            writeln!(found, "{}: {}", scenario.name, codes.join(" ")).expect("a String takes it");
        }
    }
    assert_eq!(found, EXPECTED);
}

/// Scenarios that try what people are warned of.
const EXPECTED: &str = "\
s041 both selectors in one peer are AND: RF201
s042 two peers are OR: RF205
s089 s092 a named port of the protected pod, with its protocol: RF302
s090 s091 a named port of each destination: RF305
s035 s093 a named port that nobody has is no port at all: RF301
s034 a peer that selects nobody is nobody: RF201
s062 s071 an IPv4 block, and IPv6 stays shut: RF215
s066 s069 overlapping blocks of two policies: RF211
s019 egress rules without Egress in policyTypes: RF401
s166 invalid clauses match nothing, the rest counts: RF005 RF007 RF008 RF009 RF011
";

#[test]
fn the_demo_and_the_readme_raise_nothing() {
    let mut text = manifest::documents(&[
        manifest::namespace("demo", &[]),
        manifest::namespace("lab", &[]),
        manifest::network("lab", "storage", "macvlan"),
    ]);
    let genie = |name: &str, number: u16, label: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: demo\n  labels: {{{label}}}\n  annotations:\n    \
             cni: canal,weave\n    multi-ip-preferences: '{{\"multi_entry\": 2, \"ips\": {{\"ip1\": {{\"ip\": \"10.20.1.{number}\", \
             \"interface\": \"eth0\"}}, \"ip2\": {{\"ip\": \"10.21.1.{number}\", \"interface\": \"eth1\"}}}}}}'\n\
             status: {{podIP: 10.20.1.{number}}}\n"
        )
    };
    text += &genie("httpd", 10, "app: httpd");
    text += &genie("friend", 11, "access: 'true'");
    text += &genie("stranger", 12, "app: stranger");
    let lab = |name: &str, number: u16, label: &str| pod(name, number, label).on("lab/storage").yaml();
    text += &lab("lab/db", 20, "app: db");
    text += &lab("lab/app", 21, "role: app");
    let application = [manifest::pods(&[("role", "app")])];
    let policies = [
        Policy::network("demo/httpd")
            .select(&[("app", "httpd")])
            .ingress(&[manifest::pods(&[("access", "true")])], &[manifest::port("TCP", 80)])
            .manifest(),
        Policy::multi("lab/db", &["lab/storage"])
            .select(&[("app", "db")])
            .ingress(&application, &[manifest::port("TCP", 5432)])
            .egress(&application, &[manifest::port("TCP", 8080)])
            .manifest(),
    ];
    for policy in policies {
        text += "---\n";
        text += &policy.yaml();
    }
    let report = report(&text, Scope::Secondary);
    assert!(report.findings.is_empty(), "{report}");
}
