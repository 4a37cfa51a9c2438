//! B19: antrea#4986 and #5554, KR f9614d92.
//!
//! A policy was deleted and made again under its name, or one of two that share a selector went; the two events met in one
//! batch or in one hash, and rules were kept that should go or lost that should stay. What counts is what is there in the
//! end (statement 143). Shown: in one batch and in two, with the same and with another spec, and for groups that several
//! policies use; and on the kernel, where policies, and with them chains and sets, are replaced many times under forbidden
//! traffic, of which nothing passes.

use ringfence_testkit::Protocol::Tcp;

use crate::support::manifest::{BLUE, admits, blue, multi};
use crate::support::node::{Node, assert_shut, spec};
use crate::support::world::World;

const GUARD: &str = "MultiNetworkPolicy shop/guard";

fn world() -> World {
    World::of([
        blue("shop/web", 10, "app=web").yaml(),
        blue("shop/one", 11, "role=one").yaml(),
        blue("shop/two", 12, "role=two").yaml(),
    ])
}

fn peers(role: &str) -> String {
    format!("[{{podSelector: {{matchLabels: {{role: {role}}}}}}}]")
}

#[test]
fn s143_delete_and_create_of_one_name() {
    for second in ["one", "two"] {
        for one_batch in [true, false] {
            let mut world = world();
            world.apply(&admits("shop/guard", &peers("one")));
            let next = admits("shop/guard", &peers(second));
            if one_batch {
                world.change(&[GUARD], &next);
            } else {
                world.remove(GUARD);
                world.check(BLUE, &[("shop/two", "shop/web", "80/tcp", true)]);
                world.apply(&next);
            }
            world.check(
                BLUE,
                &[
                    ("shop/one", "shop/web", "80/tcp", second == "one"),
                    ("shop/two", "shop/web", "80/tcp", second == "two"),
                ],
            );
            world.remove(GUARD);
            world.check(BLUE, &[("shop/two", "shop/web", "80/tcp", true)]);
            assert!(world.ruleset("shop/web").is_none());
        }
    }
}

#[test]
fn s143_one_of_several_users_of_a_selector_goes() {
    let mut world = world();
    let other = |name: &str, port: u16| {
        let spec = format!(
            "{{podSelector: {{matchLabels: {{app: web}}}}, ingress: [{{from: {}, ports: [{{port: {port}}}]}}]}}",
            peers("one")
        );
        multi(name, BLUE, &spec)
    };
    world.apply(&other("shop/guard", 80));
    world.apply(&other("shop/second", 81));
    world.apply(&other("shop/third", 80));
    world.remove(GUARD);
    world.check(
        BLUE,
        &[
            ("shop/one", "shop/web", "80/tcp", true),
            ("shop/one", "shop/web", "81/tcp", true),
        ],
    );
    world.change(&["MultiNetworkPolicy shop/third"], &other("shop/fourth", 82));
    world.check(
        BLUE,
        &[
            ("shop/one", "shop/web", "80/tcp", false),
            ("shop/one", "shop/web", "81/tcp", true),
            ("shop/one", "shop/web", "82/tcp", true),
            ("shop/two", "shop/web", "81/tcp", false),
        ],
    );
}

#[test]
fn s142_s226_chains_and_sets_change_under_forbidden_traffic() {
    let specs = vec![
        spec("shop/web", "app=web"),
        spec("shop/friend", "role=friend"),
        spec("shop/stranger", ""),
    ];
    let mut node = Node::new("churn", specs);
    // Small port lists are elements, large ones classes with chains of their own; blocks are intervals.
    let variants = [
        "[{from: [{podSelector: {matchLabels: {role: friend}}}], ports: [{port: 80}]}]",
        "[{from: [{podSelector: {matchLabels: {role: friend}}}], ports: [{port: 80, endPort: 900}]}]",
        "[{from: [{podSelector: {matchLabels: {role: friend}}}]}, {from: [{ipBlock: {cidr: 192.0.2.0/24}}]}]",
        "[{from: [{podSelector: {matchLabels: {role: friend}}}], ports: [{port: 80, endPort: 500}, {protocol: UDP}]}, {ports: [{port: 7}]}]",
    ];
    let guard = |ingress: &str| {
        multi(
            "shop/guard",
            BLUE,
            &format!("{{podSelector: {{matchLabels: {{app: web}}}}, ingress: {ingress}}}"),
        )
    };
    node.folder.save("guard.yaml", &guard(variants[0])).expect("saved");
    node.start();
    node.wait_state("shop/web", "enforced");
    let stream = node.stream("shop/stranger", "shop/web");
    for round in 0..24 {
        // Under another name in the same file: one goes and one comes in one batch.
        let text = guard(variants[round % variants.len()]);
        let text = if round % 3 == 0 {
            text.replace("name: guard", "name: other")
        } else {
            text
        };
        node.folder.save("guard.yaml", &text).expect("saved");
        if round % 4 == 0 {
            node.settle();
            assert_shut(&stream, &format!("round {round}"));
        }
    }
    node.save("guard.yaml", &guard(variants[1]));
    assert_shut(&stream, "at the end");
    node.check(&[
        ("shop/friend", "shop/web", Tcp, 80, true),
        ("shop/stranger", "shop/web", Tcp, 80, false),
    ]);
}
