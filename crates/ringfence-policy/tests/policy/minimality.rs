//! What an event touches: elements where peers change, and nothing at all where nothing does (statements 229, 230).

use ringfence_model::{Object, Protocol};
use ringfence_policy::{Index, Locality, Options};
use ringfence_ruleset::{Op, transaction};

use crate::support::{
    addr, block, everybody, from, index_with, labels, named, namespace, options, pod, pod_key, pods, pods_in, policy,
    rule, tcp, tcp_range, uid,
};

fn index() -> Index {
    let objects = [
        Object::Namespace(namespace("x", "team=red")),
        Object::Namespace(namespace("y", "team=blue")),
        pod("x/target", "app=target").a(&["10.20.1.10"]).into(),
        pod("x/other", "app=other").a(&["10.20.1.20"]).into(),
        policy("x/guard")
            .target("app=target")
            .ingress([
                rule([pods("app=web")], [tcp(80), tcp(443)]),
                rule([pods_in("team=blue", "app=web")], [tcp_range(1000, 2000)]),
                from([pods("app=admin")]),
                rule([block("10.9.0.0/16", &[])], [tcp(80)]),
            ])
            .egress([everybody([named("http", Protocol::Tcp)])])
            .into(),
        policy("x/apart")
            .target("app=other")
            .ingress([from([pods("app=apart")])])
            .into(),
    ];
    let options = Options {
        locality: Locality::Node("node-1".into()),
        ..options()
    };
    index_with(options, objects)
}

/// Applies the events and says what the kernel would be told about the target, `+` and `-` elements; anything else
/// than elements fails.
#[track_caller]
fn elements(index: &mut Index, events: impl FnOnce(&mut Index)) -> Vec<String> {
    let before = index.ruleset(&uid("x/target")).cloned();
    events(index);
    let dirty = index.commit();
    let operations = transaction(before.as_ref(), index.ruleset(&uid("x/target")));
    assert_eq!(
        dirty,
        if operations.is_empty() {
            vec![]
        } else {
            vec![uid("x/target")]
        },
        "only the target"
    );
    let mut found: Vec<String> = Vec::new();
    for operation in operations {
        let (sign, set, elements) = match operation {
            Op::AddElements { set, elements, .. } => ('+', set, elements),
            Op::DelElements { set, elements, .. } => ('-', set, elements),
            other => panic!("more than elements: {other:?}"),
        };
        found.extend(elements.iter().map(|element| format!("{sign}{set} {element}")));
    }
    found.sort();
    found
}

#[test]
fn s230_the_first_and_the_last_peer_are_elements_only() {
    let mut index = index();
    let web = || pod("x/web", "app=web").remote().a(&["10.20.1.11"]);
    let first = elements(&mut index, |index| index.apply(web().into()));
    assert_eq!(
        first,
        [
            "+net1-in-ip 10.20.1.11 . tcp . 443",
            "+net1-in-ip 10.20.1.11 . tcp . 80",
            "+net1-in-peers-ip 10.20.1.11"
        ]
    );
    assert_eq!(elements(&mut index, |index| index.apply(web().into())), [""; 0], "s229");
    let last = elements(&mut index, |index| index.remove(&pod_key("x/web")));
    assert_eq!(
        last,
        [
            "-net1-in-ip 10.20.1.11 . tcp . 443",
            "-net1-in-ip 10.20.1.11 . tcp . 80",
            "-net1-in-peers-ip 10.20.1.11"
        ]
    );
}

#[test]
fn a_change_of_labels_moves_an_address_from_set_to_set() {
    let mut index = index();
    index.apply(pod("x/web", "app=web").remote().a(&["10.20.1.11"]).into());
    index.commit();
    let moved = elements(&mut index, |index| {
        index.apply(pod("x/web", "app=admin").remote().a(&["10.20.1.11"]).into());
    });
    assert_eq!(
        moved,
        [
            "+net1-in-any-ip 10.20.1.11",
            "-net1-in-ip 10.20.1.11 . tcp . 443",
            "-net1-in-ip 10.20.1.11 . tcp . 80",
            "-net1-in-peers-ip 10.20.1.11"
        ]
    );
}

#[test]
fn a_change_of_a_namespaces_labels_is_its_pods_elements() {
    let mut index = index();
    index.apply(
        pod("y/web", "app=web")
            .remote()
            .a(&["10.20.2.11", "fd00:20::2:11"])
            .into(),
    );
    index.commit();
    let gone = elements(&mut index, |index| {
        index.apply(Object::Namespace(namespace("y", "team=red")));
    });
    assert_eq!(
        gone,
        [
            "-net1-in-tcp-1000-2000-ip 10.20.2.11",
            "-net1-in-tcp-1000-2000-ip6 fd00:20::2:11"
        ]
    );
}

#[test]
fn s097_a_named_port_is_one_element() {
    let mut index = index();
    let web = |number| {
        pod("y/web", "")
            .remote()
            .a(&["10.20.2.11"])
            .port("http", Protocol::Tcp, number)
    };
    index.apply(web(80).into());
    index.commit();
    let moved = elements(&mut index, |index| index.apply(web(8080).into()));
    assert_eq!(
        moved,
        [
            "+net1-out-ip 10.20.2.11 . tcp . 8080",
            "-net1-out-ip 10.20.2.11 . tcp . 80"
        ]
    );
}

#[test]
fn s229_what_does_not_matter_changes_nothing() {
    let mut index = index();
    index.apply(pod("x/web", "app=web").remote().a(&["10.20.1.11"]).into());
    index.commit();
    let nothing = [""; 0];
    let unselected = pod("y/new", "app=db").remote().a(&["10.20.2.50"]);
    assert_eq!(elements(&mut index, |index| index.apply(unselected.into())), nothing);
    let elsewhere = pod("x/new", "app=web").remote().b(&["10.30.1.50"]);
    assert_eq!(
        elements(&mut index, |index| index.apply(elsewhere.into())),
        nothing,
        "another network"
    );
    let mut more = pod("x/web", "app=web").remote().a(&["10.20.1.11"]);
    more.0.labels = labels("app=web,version=2");
    assert_eq!(
        elements(&mut index, |index| index.apply(more.clone().into())),
        nothing,
        "a label nobody asks for"
    );
    more.0.host_addresses = [addr("192.0.2.1")].into();
    assert_eq!(
        elements(&mut index, |index| index.apply(more.into())),
        nothing,
        "its node"
    );
    let there_and_back = |index: &mut Index| {
        index.remove(&pod_key("x/web"));
        index.apply(pod("x/web", "app=web").remote().a(&["10.20.1.11"]).into());
    };
    assert_eq!(
        elements(&mut index, there_and_back),
        nothing,
        "there and back in one batch"
    );
}
