//! B40: cilium GHSA-gj2r-phwg-6rww, GO-2022-0959.
//!
//! An engine derived identity from labels that the owner of a pod may set, so a pod could pretend to be of another
//! namespace. A pod's namespace is where it is, and the namespace's name label is the API server's (statements 40, 46).
//! Shown: neither a pod's labels nor a namespace's forged name label nor a claim in the annotation that an address of
//! another, newer pod is its own gives anyone a right.

use crate::support::manifest::{BLUE, admits, blue, namespace};
use crate::support::world::World;

const PEERS: [&str; 3] = [
    "[{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: prod}}}]",
    "[{namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: In, values: [prod]}]}}]",
    "[{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: prod}}, podSelector: {}}]",
];

#[test]
fn s046_nobody_can_call_a_namespace_or_a_pod_prod() {
    for peers in PEERS {
        let world = World::of([
            namespace("prod", ""),
            // Written by hand into a file; the API server would not store it.
            namespace("dev", "kubernetes.io/metadata.name=prod"),
            blue("shop/web", 10, "app=web").yaml(),
            blue("prod/real", 11, "").yaml(),
            blue(
                "dev/forged",
                12,
                "kubernetes.io/metadata.name=prod,io.kubernetes.pod.namespace=prod,k8s:io.kubernetes.pod.namespace=prod",
            )
            .yaml(),
            admits("shop/guard", peers),
        ]);
        world.check(
            BLUE,
            &[
                ("prod/real", "shop/web", "80/tcp", true),
                ("dev/forged", "shop/web", "80/tcp", false),
            ],
        );
    }
}

#[test]
fn s134_an_older_pod_that_claims_a_newer_ones_address_gets_nothing() {
    let world = World::of([
        namespace("prod", "team=red"),
        blue("shop/web", 10, "app=web").yaml(),
        blue("prod/real", 11, "").started(2).yaml(),
        blue("dev/liar", 11, "").started(1).yaml(),
        admits(
            "shop/guard",
            "[{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: dev}}}]",
        ),
    ]);
    world.check(BLUE, &[("prod/real", "shop/web", "80/tcp", false)]);
}
