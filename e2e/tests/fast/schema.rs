//! Kinds that are not installed, installed later, installed with an old schema, or hidden by RBAC.

use ringfence_e2e::{Right, World};
use ringfence_testkit::Outcome::{Dropped, Reached};
use ringfence_testkit::manifest::{Manifest, Policy, pods, ports};
use serde_json::Value;

const MULTI_NETWORK_POLICY: &str = include_str!("../../manifests/multi-network-policy.yaml");
const NETWORK_ATTACHMENT_DEFINITION: &str = include_str!("../../manifests/network-attachment-definition.yaml");

fn definition(text: &str) -> Manifest {
    Manifest(serde_saphyr::from_str(text).expect("YAML"))
}

#[test]
fn kinds_that_are_installed_later_are_picked_up() {
    let mut world = World::own("later");
    let (policies, networks) = (
        definition(MULTI_NETWORK_POLICY),
        definition(NETWORK_ATTACHMENT_DEFINITION),
    );
    world.delete(&policies);
    world.delete(&networks);
    let net = world.wire("net-a");
    let web = world.pod(world.spec("web", &net));
    let stranger = world.pod(world.spec("stranger", &net));
    // Ready without them: a cluster without Multus has neither.
    world.start();

    // What is installed works meanwhile.
    let core = Policy::network(&format!("{}/core", world.name))
        .policy_for(&[&net])
        .select(&[("app", "web")])
        .isolate_ingress()
        .manifest();
    world.apply(&core);
    world.expect(&net, &[(&stranger, &web, 80, Dropped), (&web, &stranger, 80, Reached)]);
    world.delete(&core);
    world.expect(&net, &[(&stranger, &web, 80, Reached)]);

    world.install(&networks);
    world.apply(&world.definition(&net));
    world.install(&policies);
    let guard = world.policy("guard", &net, "web").isolate_ingress().manifest();
    world.apply(&guard);
    world.expect(&net, &[(&stranger, &web, 80, Dropped), (&web, &stranger, 80, Reached)]);
    world.delete(&guard);
    world.expect(&net, &[(&stranger, &web, 80, Reached)]);
}

#[test]
fn s224_a_crd_without_end_port_is_reported() {
    let mut world = World::own("endport");
    let mut old = definition(MULTI_NETWORK_POLICY);
    assert_eq!(remove_key(&mut old.0, "endPort"), 2);
    world.install(&old);
    let net = world.network("net-a");
    let web = world.pod(world.spec("web", &net));
    let client = world.pod(world.spec("client", &net));
    let guard = world
        .policy("guard", &net, "web")
        .ingress(&[pods(&[("app", "client")])], &[ports("TCP", 80, 81)])
        .manifest();
    // Created as kubectl does; server-side apply refuses a field that the schema has not.
    world.api.create(&guard.0).expect("created");
    world.start();
    // The API server has dropped the field: what is left is narrower, not wider.
    world.expect(&net, &[(&client, &web, 80, Reached), (&client, &web, 81, Dropped)]);
    world.wait_line(&["multi-networkpolicies.k8s.cni.cncf.io", "endPort"]);

    // The right schema, and the policy written again. The API server takes a moment to store by the new schema.
    world.install(&definition(MULTI_NETWORK_POLICY));
    let mut turn = 0;
    world.wait("the field is stored", || {
        turn += 1;
        let mut again = guard.clone();
        again.0["metadata"]["annotations"]["example.invalid/turn"] = turn.to_string().into();
        let stored = world.api.apply(&again.0).map_err(|error| format!("{error:#}"))?;
        match stored.pointer("/spec/ingress/0/ports/0/endPort") {
            Some(_) => Ok(()),
            None => Err(stored["spec"].to_string()),
        }
    });
    // A watch that began under the old schema may have delivered that without the field. Nobody writes it again.
    let wide = world.path(&client, &web, &net, 81).tcp();
    world.wait("the whole range is open", || {
        match wide.ask().map_err(|error| format!("{error:#}"))? {
            Reached => Ok(()),
            other => Err(format!("port 81: {other}")),
        }
    });
    world.wait_line(&["Bad input resolved", "multi-networkpolicies.k8s.cni.cncf.io"]);
}

/// Removes a key wherever it is and says how often.
fn remove_key(value: &mut Value, key: &str) -> usize {
    match value {
        Value::Object(map) => {
            let here = usize::from(map.remove(key).is_some());
            here + map.values_mut().map(|value| remove_key(value, key)).sum::<usize>()
        }
        Value::Array(items) => items.iter_mut().map(|value| remove_key(value, key)).sum(),
        _ => 0,
    }
}

#[test]
fn a_right_that_is_missing_is_named_and_the_other_kinds_work() {
    let mut world = World::shared("rbac");
    let net = world.network("net-a");
    let web = world.pod(world.spec("web", &net));
    let stranger = world.pod(world.spec("stranger", &net));
    world.grant(&[Right::Core, Right::NetworkPolicies, Right::MultiNetworkPolicies]);
    let guard = world.policy("guard", &net, "web").isolate_ingress().manifest();
    world.apply(&guard);
    world.launch();
    world.wait_line(&["ERROR", "RBAC", "network-attachment-definitions"]);
    world.expect(&net, &[(&stranger, &web, 80, Dropped), (&web, &stranger, 80, Reached)]);
    world.delete(&guard);
    world.expect(&net, &[(&stranger, &web, 80, Reached)]);

    // Granted while it runs.
    world.grant(&Right::ALL);
    world.wait_line(&["The watch works again"]);
}
