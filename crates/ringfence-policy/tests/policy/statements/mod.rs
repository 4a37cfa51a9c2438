//! The numbered statements of the semantics, groups A to G, J and K, and the catalogue's bugs that an index or a
//! compiler can have, judged by the packet tracer at both ends.
//!
//! Three namespaces x (team=red), y and z (team=blue) with pods a (app=web), b (app=db) and c (app=web,tier=front), all
//! on net-a; those of x are on net-b as well. Pod n/m has 10.20.<n>.<m>, so x/b is 10.20.1.11.

use ringfence_model::{Coverage, Object, ObjectKey, Peer, Peers, PodUid, PortMatch, Ports, Protocol, Rule, Scope};
use ringfence_policy::{Index, Locality, Options};

mod life;
mod networks;
mod rules;

use crate::support::{
    NET_A, NET_B, PodBuilder, PolicyBuilder, What, addr, anything, block, everybody, from, index_with, judge, named,
    namespace, options, pod, pod_key, pods, pods_in, policy, reaches, rule, tcp, tcp_range, udp, uid, whole,
};

const PODS: [(&str, &str, u8, u8); 9] = [
    ("x/a", "app=web", 1, 10),
    ("x/b", "app=db", 1, 11),
    ("x/c", "app=web,tier=front", 1, 12),
    ("y/a", "app=web", 2, 10),
    ("y/b", "app=db", 2, 11),
    ("y/c", "app=web,tier=front", 2, 12),
    ("z/a", "app=web", 3, 10),
    ("z/b", "app=db", 3, 11),
    ("z/c", "app=web,tier=front", 3, 12),
];

fn member(name: &str) -> PodBuilder {
    let (_, labels, n, m) = PODS.iter().find(|(pod, ..)| *pod == name).expect("a pod of the plan");
    let (v4, v6) = (format!("10.20.{n}.{m}"), format!("fd00:20::{n}:{m}"));
    let built = pod(name, labels).a(&[v4.as_str(), v6.as_str()]);
    if name.starts_with("x/") {
        built.b(&[format!("10.30.{n}.{m}").as_str()])
    } else {
        built
    }
}

fn world() -> Vec<Object> {
    let namespaces = [("x", "team=red"), ("y", "team=blue"), ("z", "team=blue")];
    let namespaces = namespaces.map(|(name, labels)| Object::Namespace(namespace(name, labels)));
    namespaces
        .into_iter()
        .chain(PODS.map(|(name, ..)| member(name).into()))
        .collect()
}

fn index_of(policies: impl IntoIterator<Item = PolicyBuilder>) -> Index {
    index_with(
        options(),
        world().into_iter().chain(policies.into_iter().map(Object::from)),
    )
}

fn what(text: &str) -> What {
    match text.split_once('/') {
        Some((protocol, port)) => {
            let protocol = match protocol {
                "tcp" => Protocol::Tcp,
                "udp" => Protocol::Udp,
                "sctp" => Protocol::Sctp,
                other => panic!("protocol {other}"),
            };
            What::Port(protocol, port.parse().expect("a port"))
        }
        None if text == "ping" => What::Ping,
        None if text == "gre" => What::Gre,
        None => panic!("what is {text}"),
    }
}

/// An end: a pod of the plan, with `%b` its address on net-b and with `%6` its IPv6 one, or an address of nobody's.
fn end(text: &str) -> (String, &'static str, String) {
    let (name, part) = text.split_once('%').unwrap_or((text, ""));
    let Some((_, _, n, m)) = PODS.iter().find(|(pod, ..)| *pod == name) else {
        return (text.to_owned(), "net1", text.to_owned());
    };
    let (interface, address) = match part {
        "b" => ("net2", format!("10.30.{n}.{m}")),
        "6" => ("net1", format!("fd00:20::{n}:{m}")),
        _ => ("net1", format!("10.20.{n}.{m}")),
    };
    (name.to_owned(), interface, address)
}

/// Lines of `from > to what…: yes` or `no`.
#[track_caller]
fn check_index(index: &Index, lines: &[&str]) {
    for line in lines {
        let (question, answer) = line.split_once(": ").expect("a line with an answer");
        let mut words = question.split(' ');
        let (from, to) = (words.next().expect("from"), words.nth(1).expect("to"));
        let (from, to) = (end(from), end(to));
        for word in words {
            let pod = |name: &str| PodUid::new(name).unwrap_or_else(|_| uid("nobody"));
            let (source, destination, what) = (addr(&from.2), addr(&to.2), what(word));
            let found = judge(index.ruleset(&pod(&from.0)), from.1, true, source, destination, what)
                && judge(index.ruleset(&pod(&to.0)), to.1, false, source, destination, what);
            assert_eq!(if found { "yes" } else { "no" }, answer, "{line} ({word})");
        }
    }
}

#[track_caller]
fn check(policies: impl IntoIterator<Item = PolicyBuilder>, lines: &[&str]) {
    check_index(&index_of(policies), lines);
}

/// Selects x/a and x/c.
fn guard() -> PolicyBuilder {
    policy("x/guard").target("app=web")
}
