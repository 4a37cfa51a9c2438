//! Whatever comes first, the result is the same.

use ringfence_e2e::World;
use ringfence_testkit::Outcome::{Dropped, Reached};
use ringfence_testkit::Pod;
use ringfence_testkit::manifest::{Manifest, pods_in};

/// What a policy needs to become rules, beside its own object.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// The policy.
    Policy,
    /// The NetworkAttachmentDefinition that it names.
    Network,
    /// The pod that it selects.
    Pod,
    /// The namespace of its peers, and the peer in it.
    Peer,
}

use Step::{Network, Peer, Pod as Target, Policy};

const ORDERS: [[Step; 4]; 8] = [
    [Policy, Network, Target, Peer],
    [Policy, Target, Network, Peer],
    [Policy, Peer, Target, Network],
    [Network, Policy, Target, Peer],
    [Network, Target, Peer, Policy],
    [Target, Policy, Network, Peer],
    [Target, Peer, Policy, Network],
    [Peer, Target, Network, Policy],
];

#[test]
fn a_policy_before_its_network_pod_and_namespace() {
    let mut world = World::shared("order");
    world.start();
    for (number, order) in ORDERS.iter().enumerate() {
        check(&mut world, number, *order);
    }
}

#[track_caller]
fn check(world: &mut World, number: usize, order: [Step; 4]) {
    let net = world.wire(&format!("net-{number}"));
    let app = format!("web-{number}");
    let web = world.sandbox(world.spec(&app, &net));
    let other = format!("{}-{number}", world.name);
    let friend = world.sandbox(peer(&other, "friend", &net));
    let stranger = world.sandbox(world.spec(&format!("stranger-{number}"), &net));
    let guard = world
        .policy(&app, &net, &app)
        .ingress(&[pods_in(&[("team", &other)], &[("app", "friend")])], &[])
        .manifest();
    for step in order {
        take(world, step, (&guard, &web, &friend), (&net, &other));
    }
    world.announce(&stranger);
    println!("order {number}: {order:?}");
    world.expect(&net, &[(&friend, &web, 80, Reached), (&stranger, &web, 80, Dropped)]);
}

fn take(world: &World, step: Step, (guard, web, friend): (&Manifest, &Pod, &Pod), (net, other): (&str, &str)) {
    match step {
        Policy => world.apply(guard),
        Network => world.apply(&world.definition(net)),
        Target => world.announce(web),
        Peer => {
            world.namespace(other, &[("team", other)]);
            world.announce(friend);
        }
    }
}

fn peer(namespace: &str, name: &str, net: &str) -> ringfence_testkit::PodSpec {
    ringfence_testkit::PodSpec::multus(&format!("{namespace}/{name}"))
        .label("app", name)
        .attach("eth0", "cluster")
        .attach("net1", net)
}
