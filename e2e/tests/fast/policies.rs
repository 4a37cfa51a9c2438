//! Policies and pods that come, change and go.

use ringfence_e2e::World;
use ringfence_model::Family;
use ringfence_testkit::Outcome::{Dropped, Reached};
use ringfence_testkit::manifest::{Policy, namespaces, pods, port};
use serde_json::json;

#[test]
fn a_policy_blocks_and_its_deletion_opens() {
    let mut world = World::shared("block");
    let net = world.network("net-a");
    let web = world.pod(world.spec("web", &net));
    let friend = world.pod(world.spec("friend", &net));
    let stranger = world.pod(world.spec("stranger", &net));
    world.start();
    world.expect(&net, &[(&friend, &web, 80, Reached), (&stranger, &web, 80, Reached)]);

    let guard = world
        .policy("guard", &net, "web")
        .ingress(&[pods(&[("app", "friend")])], &[port("TCP", 80)])
        .manifest();
    world.apply(&guard);
    world.expect(
        &net,
        &[
            (&friend, &web, 80, Reached),
            (&friend, &web, 81, Dropped),
            (&stranger, &web, 80, Dropped),
            (&web, &stranger, 80, Reached),
        ],
    );
    // The policy is for net1 alone.
    world.expect(
        "cluster",
        &[(&stranger, &web, 80, Reached), (&stranger, &web, 81, Reached)],
    );

    // A changed policy.
    let wider = world
        .policy("guard", &net, "web")
        .ingress(&[pods(&[("app", "friend")])], &[])
        .manifest();
    world.apply(&wider);
    world.expect(&net, &[(&friend, &web, 81, Reached), (&stranger, &web, 81, Dropped)]);
    world.delete(&wider);
    world.expect(&net, &[(&friend, &web, 81, Reached), (&stranger, &web, 80, Reached)]);
    world.wait_state("web", "open");

    // The core API's kind, for the networks that its annotation names.
    let core = Policy::network(&format!("{}/core", world.name))
        .policy_for(&[&net])
        .select(&[("app", "web")])
        .ingress(&[pods(&[("app", "friend")])], &[])
        .manifest();
    world.apply(&core);
    world.expect(&net, &[(&friend, &web, 80, Reached), (&stranger, &web, 80, Dropped)]);
    world.expect("cluster", &[(&stranger, &web, 80, Reached)]);
    world.delete(&core);
    world.expect(&net, &[(&stranger, &web, 80, Reached)]);
}

#[test]
fn peers_are_followed_by_their_labels() {
    let mut world = World::shared("labels");
    let net = world.network("net-a");
    let web = world.pod(world.spec("web", &net));
    // Known to the agent by metadata only.
    let client = world.remote_pod(world.spec("client", &net));
    world.apply(
        &world
            .policy("guard", &net, "web")
            .ingress(&[pods(&[("access", "true")])], &[])
            .manifest(),
    );
    world.start();
    world.expect(&net, &[(&client, &web, 80, Dropped)]);
    world.change(&client, &json!({"metadata": {"labels": {"access": "true"}}}));
    world.expect(&net, &[(&client, &web, 80, Reached)]);
    world.change(&client, &json!({"metadata": {"labels": {"access": null}}}));
    world.expect(&net, &[(&client, &web, 80, Dropped)]);

    // By the labels of their namespace.
    world.apply(
        &world
            .policy("guard", &net, "web")
            .ingress(&[namespaces(&[("team", &world.name)])], &[])
            .manifest(),
    );
    let name = world.name.clone();
    world.namespace(&name, &[("team", &name)]);
    world.expect(&net, &[(&client, &web, 80, Reached)]);
    world.namespace(&name, &[("team", "other")]);
    world.expect(&net, &[(&client, &web, 80, Dropped)]);

    // A pod that loses the label that the policy selects is open.
    world.change(&web, &json!({"metadata": {"labels": {"app": "none"}}}));
    world.expect(&net, &[(&client, &web, 80, Reached)]);
}

#[test]
fn a_pod_recreated_with_its_name_and_address_inherits_no_right() {
    let mut world = World::shared("again");
    let net = world.network("net-a");
    let web = world.pod(world.spec("web", &net));
    let spec = world.spec("client", &net);
    let client = world.remote_pod(spec.clone().label("access", "true"));
    world.apply(
        &world
            .policy("guard", &net, "web")
            .ingress(&[pods(&[("access", "true")])], &[])
            .manifest(),
    );
    world.start();
    world.expect(&net, &[(&client, &web, 80, Reached)]);

    // As a peer: the same name and address without the label.
    let addresses = client.on(&net).expect("it is on it").addresses.clone();
    world.end(client);
    let client = world.remote_pod(world.spec_at("client", &net, &addresses));
    assert_eq!(client.address(&net, Family::V4).ok(), addresses.first().copied());
    world.expect(&net, &[(&client, &web, 80, Dropped)]);
    world.change(&client, &json!({"metadata": {"labels": {"access": "true"}}}));
    world.expect(&net, &[(&client, &web, 80, Reached)]);

    // As a target: the new namespace gets the rules too.
    let addresses = web.on(&net).expect("it is on it").addresses.clone();
    world.end(web);
    let stranger = world.remote_pod(world.spec("stranger", &net));
    let web = world.pod(world.spec_at("web", &net, &addresses));
    world.expect(&net, &[(&client, &web, 80, Reached), (&stranger, &web, 80, Dropped)]);
    world.wait_state("web", "enforced");
}
