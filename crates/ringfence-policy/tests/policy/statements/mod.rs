//! The numbered statements of the semantics, groups A to K and N, and the catalogue's bugs that an index or a compiler
//! can have. Every question is judged three times: by the packet tracer over the compiled rules, by the oracle, and by
//! the test's own expectation.
//!
//! Three namespaces x (team=red), y and z (team=blue) with pods a (app=web), b (app=db) and c (app=web,tier=front), all
//! on net-a; those of x are on net-b as well. Pod n/m has 10.20.<n>.<m>, so x/b is 10.20.1.11.

use std::net::IpAddr;
use std::ops::Deref;

use ringfence_model::{
    Coverage, Direction, Object, ObjectKey, Peer, Peers, PodUid, PortMatch, Ports, Protocol, Rule, Scope,
};
use ringfence_policy::evaluate::{Decision as Word, L4, Universe, evaluate_at};
use ringfence_policy::{Index, Locality, Options, TargetFacts};

mod annotations;
mod blocks;
mod input;
mod life;
mod networks;
mod peers;
mod ports;
mod selection;
mod traffic;

use crate::support::{
    self, NET_A, NET_B, PodBuilder, PolicyBuilder, What, addr, anything, block, everybody, from, judge, named,
    namespace, options, pod, pod_key, pods, pods_in, policy, rule, tcp, tcp_range, udp, uid, whole,
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

/// The same objects in the index that compiles and in the oracle's universe. It reads like the index.
struct World {
    index: Index,
    universe: Universe,
}

impl Deref for World {
    type Target = Index;

    fn deref(&self) -> &Index {
        &self.index
    }
}

impl World {
    fn apply(&mut self, object: Object) {
        self.universe.apply(object.clone());
        self.index.apply(object);
    }

    fn remove(&mut self, key: &ObjectKey) {
        self.universe.remove(key);
        self.index.remove(key);
    }

    fn set_facts(&mut self, pod: &PodUid, facts: TargetFacts) {
        self.index.set_facts(pod, Some(facts));
    }

    fn commit(&mut self) -> Vec<PodUid> {
        self.index.commit()
    }

    /// Whether one end lets the connection pass, by the tracer; the oracle must say the same.
    #[track_caller]
    fn judge(&self, pod: &str, on: &str, direction: Direction, other: &str, own: &str, what: What) -> bool {
        let pod = PodUid::new(pod).unwrap_or_else(|_| uid("nobody"));
        let (own, other) = (addr(own), addr(other));
        let (source, destination) = match direction {
            Direction::Ingress => (other, own),
            Direction::Egress => (own, other),
        };
        let opens = direction == Direction::Egress;
        let found = judge(self.ruleset(&pod), on, opens, source, destination, what);
        let attachments = self.universe.pods.get(&pod).map_or(&[][..], |pod| &pod.attachments);
        let position = attachments
            .iter()
            .position(|attachment| attachment.interface.as_ref().is_some_and(|name| name.as_str() == on));
        let local = self.local_pods().any(|local| *local == pod);
        // What comes from the wire under the pod's own address is the compiler's own, stricter choice (statement 120).
        if let Some(position) = position.filter(|_| local && own != other) {
            let verdict = evaluate_at(&self.universe, &pod, position, direction, other, asked(what, other));
            assert_eq!(
                found,
                verdict.decision == Word::Allow,
                "{pod} {on} {direction} {other} {what:?}: tracer (left) against oracle: {verdict:?}"
            );
        }
        found
    }
}

fn asked(what: What, other: IpAddr) -> L4 {
    match what {
        What::Port(protocol, port) => L4::port(protocol, port),
        What::Ping if other.is_ipv6() => L4::Icmpv6 { message: 128 },
        What::Ping => L4::Other(1),
        What::Gre => L4::Other(47),
    }
}

/// A world with these objects in it, committed.
fn index_with(options: Options, objects: impl IntoIterator<Item = Object>) -> World {
    let mut universe = Universe::default();
    universe.scope = options.scope;
    let mut world = World {
        index: Index::new(options),
        universe,
    };
    for object in objects {
        world.apply(object);
    }
    world.commit();
    world
}

fn index_of(policies: impl IntoIterator<Item = PolicyBuilder>) -> World {
    index_with(
        options(),
        world().into_iter().chain(policies.into_iter().map(Object::from)),
    )
}

/// What manifests say: every one must become an object.
fn objects_of(text: &str) -> Vec<Object> {
    let decoded = ringfence_kube::decode(text, "test").into_iter();
    decoded
        .map(|it| it.object.unwrap_or_else(|| panic!("{:?}", it.diagnostics)))
        .collect()
}

/// Whether a connection passes at both ends (statement 8), over one interface of each: pod, interface, address.
#[track_caller]
fn reaches(world: &World, from: (&str, &str, &str), to: (&str, &str, &str), what: What) -> bool {
    world.judge(from.0, from.1, Direction::Egress, to.2, from.2, what)
        && world.judge(to.0, to.1, Direction::Ingress, from.2, to.2, what)
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
fn check_index(world: &World, lines: &[&str]) {
    for line in lines {
        let (question, answer) = line.split_once(": ").expect("a line with an answer");
        let mut words = question.split(' ');
        let (from, to) = (words.next().expect("from"), words.nth(1).expect("to"));
        let (from, to) = (end(from), end(to));
        for word in words {
            let found = reaches(
                world,
                (from.0.as_str(), from.1, from.2.as_str()),
                (to.0.as_str(), to.1, to.2.as_str()),
                what(word),
            );
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
