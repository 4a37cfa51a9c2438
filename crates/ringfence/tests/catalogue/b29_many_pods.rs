//! B29: calico#7085, felix#2652.
//!
//! One chain per endpoint in one table, and rules in a row in each: with 1,500 pods a node took minutes to converge, and
//! each change touched everything. Here each pod has a table of its own, and a peer is an element, never a rule (statement
//! 230). Shown, by counts and not by a clock: with 1,500 pods a pod's rules and chains are those it has with 15, a change
//! of one pod's policy makes one pod dirty, and a new peer changes elements only.

use std::fmt::Write as _;

use ringfence_model::PodUid;
use ringfence_ruleset::Ruleset;

use crate::support::manifest::{BLUE, multi, pod};
use crate::support::world::World;

/// `count` pods of which the even ones are admitted to the odd ones, and a policy for each.
fn world(count: usize) -> World {
    let mut text = String::new();
    for number in 0..count {
        let address = format!("10.20.{}.{}", number / 250, number % 250 + 1);
        let role = if number % 2 == 0 { "friend" } else { "server" };
        let pod = pod(&format!("shop/p{number}"))
            .labels(&format!("role={role},number=n{number}"))
            .on("net1", BLUE, &[&address]);
        let spec = format!(
            "{{podSelector: {{matchLabels: {{number: n{number}}}}}, ingress: [{{from: [{{podSelector: {{matchLabels: {{role: friend}}}}}}], ports: [{{port: 80}}]}}]}}"
        );
        let _ = write!(
            text,
            "---\n{}---\n{}",
            pod.yaml(),
            multi(&format!("shop/g{number}"), BLUE, &spec)
        );
    }
    World::of([text])
}

fn chains_and_rules(ruleset: &Ruleset) -> Vec<String> {
    ruleset
        .to_string()
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with("elements") && !line.contains("10.20.") && !line.starts_with("comment"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn s230_rules_do_not_grow_with_the_number_of_pods() {
    let (few, mut many) = (world(16), world(1500));
    let rules = |world: &World| chains_and_rules(world.ruleset("shop/p1").expect("isolated"));
    assert_eq!(rules(&few), rules(&many));
    many.check(
        BLUE,
        &[
            ("shop/p1498", "shop/p1499", "80/tcp", true),
            ("shop/p1497", "shop/p1499", "80/tcp", false),
            ("shop/p1498", "shop/p1499", "81/tcp", false),
        ],
    );

    // One pod's policy: one dirty pod. Straight to the index, because that is what the agent asks.
    let spec = "{podSelector: {matchLabels: {number: n1}}, ingress: [{ports: [{port: 81}]}]}";
    for decoded in ringfence_kube::decode(&multi("shop/g1", BLUE, spec), "test") {
        many.index.apply(decoded.object.expect("a policy"));
    }
    assert_eq!(many.index.commit(), [PodUid::new("shop/p1").expect("a UID")]);

    // A peer more: elements, and no other line.
    let before = chains_and_rules(many.ruleset("shop/p3").expect("isolated"));
    many = world(1500);
    many.apply(
        &pod("shop/late")
            .labels("role=friend")
            .on("net1", BLUE, &["10.20.99.1"])
            .yaml(),
    );
    let after = many.ruleset("shop/p3").expect("isolated");
    assert_eq!(chains_and_rules(after), before);
    assert!(after.to_string().contains("10.20.99.1"));
}
