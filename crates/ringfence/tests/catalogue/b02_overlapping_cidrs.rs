//! B2: calico#12851, #12650, #13096, #13274, #13441, #13277, google/nftables#348.
//!
//! CIDRs that contain each other cannot stand side by side in an interval set: the kernel refuses the transaction, and
//! engines looped on it, left the pod open, or removed a CIDR that a broader one still covered. Here the union is
//! computed as ranges before anything is sent (statements 69, 70). Shown: every order of adding and removing nested
//! blocks matches exactly the union at every step, and the kernel takes every step, without one refusal.

use crate::support::manifest::{BLUE, admits, blue, orders};
use crate::support::node::{Node, spec};
use crate::support::world::World;

const CIDRS: [&str; 4] = ["10.0.0.0/8", "10.20.0.0/16", "10.20.7.0/24", "10.20.7.9/32"];
/// An address, and the blocks that hold it.
const INSIDE: [(&str, &[usize]); 5] = [
    ("10.99.0.1", &[0]),
    ("10.20.99.1", &[0, 1]),
    ("10.20.7.1", &[0, 1, 2]),
    ("10.20.7.9", &[0, 1, 2, 3]),
    ("192.0.2.1", &[]),
];

fn policy(number: usize) -> String {
    admits(
        &format!("shop/p{number}"),
        &format!("[{{ipBlock: {{cidr: {}}}}}]", CIDRS[number]),
    )
}

fn check(world: &World, present: &[usize]) {
    for (address, blocks) in INSIDE {
        let expected = present.is_empty() || blocks.iter().any(|block| present.contains(block));
        world.check(BLUE, &[(address, "shop/web@10.20.0.10", "80/tcp", expected)]);
    }
}

#[test]
fn s069_nested_blocks_in_every_order_of_adding_and_removing() {
    for added in orders(&[0, 1, 2, 3]) {
        let mut world = World::of([blue("shop/web", 10, "app=web").yaml()]);
        let mut present = Vec::new();
        for number in &added {
            world.apply(&policy(*number));
            present.push(*number);
            check(&world, &present);
        }
        // Removed in the order of adding, which is every order too.
        for number in &added {
            world.remove(&format!("MultiNetworkPolicy shop/p{number}"));
            present.retain(|it| it != number);
            check(&world, &present);
        }
    }
}

#[test]
fn s069_s070_nested_and_equal_blocks_in_one_rule() {
    for order in orders(&CIDRS) {
        let peers: Vec<String> = order
            .iter()
            .map(|cidr| format!("{{ipBlock: {{cidr: {cidr}}}}}"))
            .collect();
        let twice = format!("[{0}, {0}]", peers.join(", "));
        let world = World::of([blue("shop/web", 10, "app=web").yaml(), admits("shop/p", &twice)]);
        check(&world, &[0, 1, 2, 3]);
    }
}

#[test]
fn s069_the_kernel_takes_every_step() {
    let mut node = Node::new("overlap", vec![spec("shop/web", "app=web")]);
    node.start();
    let has = |number: usize| {
        let cidr = CIDRS[number].trim_end_matches("/32").to_owned();
        move |rules: &str| rules.contains(&cidr)
    };
    for order in orders(&[0, 1, 2]) {
        for number in &order {
            node.save(&format!("p{number}.yaml"), &policy(*number));
        }
        node.wait_rules("shop/web", has(0), "the broadest block covers the others");
        assert!(!has(1)(&node.rules("shop/web")), "what is covered is not repeated");
        // The broadest goes first: the narrower ones must come out again.
        for number in [0, 1, 2] {
            node.delete(&format!("p{number}.yaml"));
            if number < 2 {
                node.wait_rules("shop/web", has(number + 1), "the next narrower block");
            }
        }
    }
    assert_eq!(
        node.metric("ringfence_transactions_total{result=\"refused\"}"),
        Some(0.0)
    );
    assert_eq!(node.state("shop/web"), "open");
}
