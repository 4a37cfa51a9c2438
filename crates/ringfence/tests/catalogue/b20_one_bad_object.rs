//! B20: kube-router's failedPolicyChains, calico#12851, MultiNetworkPolicy for nftables (the loop over pods ended).
//!
//! One policy or pod that could not be programmed stopped the loop: all others kept their old state, or the victims fell
//! open. A bad object spoils itself, and a pod whose transaction is refused keeps its last rules (statements 22, 166, 228).
//! Shown: beside unreadable files and nonsense clauses, and while the kernel refuses every transaction of one pod (somebody
//! else owns its table), the other pods follow their policies; the victim stays closed all the time, and recovers.

use ringfence_netlink::Enforcer;
use ringfence_ruleset::KernelFeatures;
use ringfence_testkit::Protocol::Tcp;

use crate::support::manifest::{BLUE, multi};
use crate::support::node::{Node, assert_shut, spec};

fn guard(name: &str, app: &str, peers: &str) -> String {
    let spec = format!("{{podSelector: {{matchLabels: {{app: {app}}}}}, ingress: [{{from: {peers}}}]}}");
    multi(&format!("shop/{name}"), BLUE, &spec)
}

#[test]
fn s022_s228_others_follow_and_the_victim_stays_closed() {
    let specs = vec![
        spec("shop/victim", "app=victim"),
        spec("shop/other", "app=other"),
        spec("shop/friend", "role=friend"),
        spec("shop/stranger", "role=stranger"),
    ];
    let mut node = Node::new("bad-object", specs);
    let friends = "[{podSelector: {matchLabels: {role: friend}}}]";
    let strangers = "[{podSelector: {matchLabels: {role: stranger}}}]";
    node.folder
        .save("victim.yaml", &guard("victim", "victim", friends))
        .expect("saved");
    node.folder
        .save("other.yaml", &guard("other", "other", friends))
        .expect("saved");
    // Files that come first in every order and cannot be used.
    for (name, text) in [
        ("00-syntax.yaml", "kind: [\n".to_owned()),
        ("01-kind.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {}\n".to_owned()),
        (
            "02-clauses.yaml",
            guard("clauses", "other", "[{ipBlock: {cidr: 10.0.0.0/77}}, {podSelector: 5}]"),
        ),
        (
            "03-pod.yaml",
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: odd\n  namespace: shop\n  annotations: \
                         {k8s.v1.cni.cncf.io/network-status: '{'}\nspec: {nodeName: node1}\n"
                .to_owned(),
        ),
    ] {
        node.folder.save(name, &text).expect("saved");
    }
    node.start();
    node.wait_state("shop/victim", "enforced");
    let stream = node.stream("shop/stranger", "shop/victim");
    node.check(&[
        ("shop/friend", "shop/victim", Tcp, 80, true),
        ("shop/friend", "shop/other", Tcp, 80, true),
        ("shop/stranger", "shop/other", Tcp, 80, false),
    ]);

    // The agent crashes, and somebody else takes over the victim's table with its rules: from now on the kernel refuses
    // ours, whatever they are.
    node.kill();
    let foreign = node
        .pod("shop/victim")
        .netns
        .run(|| {
            let mut enforcer = Enforcer::open(KernelFeatures::ALL).expect("a socket");
            let rules = enforcer.current().cloned();
            enforcer.enforce(rules.as_ref()).expect("taken over");
            enforcer
        })
        .expect("entered");
    node.folder
        .save("victim.yaml", &guard("victim", "victim", strangers))
        .expect("saved");
    node.folder
        .save("other.yaml", &guard("other", "other", strangers))
        .expect("saved");
    node.start();
    node.wait_state("shop/victim", "failed");
    node.settle();
    node.check(&[
        ("shop/stranger", "shop/other", Tcp, 80, true),
        ("shop/friend", "shop/other", Tcp, 80, false),
        // Its last good rules.
        ("shop/friend", "shop/victim", Tcp, 80, true),
    ]);
    assert_shut(&stream, "the victim keeps its rules");
    // Another change of the other pod while the victim is still failing.
    node.save("other.yaml", &guard("other", "other", friends));
    node.check(&[
        ("shop/friend", "shop/other", Tcp, 80, true),
        ("shop/stranger", "shop/other", Tcp, 80, false),
    ]);
    assert_eq!(node.state("shop/victim"), "failed");
    assert_shut(&stream, "and keeps them");

    drop(foreign);
    node.wait_state("shop/victim", "enforced");
    node.check(&[
        ("shop/stranger", "shop/victim", Tcp, 80, true),
        ("shop/friend", "shop/victim", Tcp, 80, false),
    ]);
}
