//! The commands that need no agent, and what the program says to wrong usage.

mod common;

use std::process::Command;

use common::{PROGRAM, World, closing, parts, pod, ringfence, rules};
use ringfence_testkit::ManifestFolder;
use ringfence_testkit::manifest::documents;

#[track_caller]
fn check(arguments: &[&str], expected: i32, out: &[&str], err: &[&str]) {
    let (code, stdout, stderr) = parts(&ringfence(arguments));
    assert_eq!(code, Some(expected), "{arguments:?}\n{stdout}\n{stderr}");
    for part in out {
        assert!(stdout.contains(part), "{arguments:?}: {part:?} is not in\n{stdout}");
    }
    for part in err {
        assert!(stderr.contains(part), "{arguments:?}: {part:?} is not in\n{stderr}");
    }
}

#[test]
fn render_prints_rules_that_nft_takes() {
    let folder = ManifestFolder::new().expect("a folder");
    let manifests = [
        pod("web", "10.20.1.10"),
        pod("db", "10.20.1.11"),
        closing("guard", "web"),
    ];
    folder.save("all.yaml", &documents(&manifests)).expect("saved");
    let bad = "apiVersion: k8s.cni.cncf.io/v1beta1\nkind: MultiNetworkPolicy\nmetadata: {name: nowhere, namespace: shop}\n\
               spec: {podSelector: {}}\n";
    folder.save("bad.yaml", bad).expect("saved");
    let path = folder.path().to_str().expect("text");
    check(
        &["render", "-f", path, "--pod", "shop/web"],
        0,
        &["table inet ringfence {", "chain net1-in {"],
        &["MultiNetworkPolicy shop/nowhere"],
    );
    check(
        &["render", "-f", path, "--pod", "shop/db"],
        0,
        &["# pod shop/db: no policy isolates it; no table, everything passes"],
        &[],
    );
    check(
        &["render", "-f", path, "--pod", "shop/wep"],
        2,
        &[],
        &["near names: shop/web"],
    );
    check(
        &["render", "-f", path, "--pod", "bank/web"],
        2,
        &[],
        &["near names: shop/web"],
    );
    check(
        &["render", "-f", path, "--pod", "shop/web", "--node", "n2"],
        2,
        &[],
        &["is on node n1, not on n2"],
    );
    check(
        &["render", "-f", "/nonexistent", "--pod", "shop/web"],
        2,
        &[],
        &["/nonexistent"],
    );

    let (_, text, _) = parts(&ringfence(&["render", "-f", path, "--pod", "shop/web"]));
    let world = World::new("render");
    let netns = world.netns("web", &["net1"]);
    netns.nft(&text).expect("nft loads it");
    assert!(rules(&netns).contains("chain net1-in"));
}

/// By default objects come from a cluster; without any there is a sentence that helps, and no panic.
#[test]
fn a_cluster_that_is_not_configured_is_exit_code_2() {
    for arguments in [
        &["agent", "--node", "n1"][..],
        &["agent", "--node", "n1", "--source", "kube"],
    ] {
        let output = Command::new(PROGRAM)
            .args(arguments)
            .args(["--listen", "off"])
            .env("KUBECONFIG", "/nonexistent/kubeconfig")
            .env_remove("KUBERNETES_SERVICE_HOST")
            .output()
            .expect("it runs");
        let (code, _, error) = parts(&output);
        assert_eq!(code, Some(2), "{error}");
        assert!(
            error.contains("KUBECONFIG") && error.contains("--source dir:PATH"),
            "{error}"
        );
    }
}

#[test]
fn wrong_usage_is_exit_code_2() {
    check(&["agent", "--source", "dir:/tmp"], 2, &[], &["--node"]);
    check(
        &["agent", "--node", "n1", "--source", "dir:/nonexistent"],
        2,
        &[],
        &["/nonexistent"],
    );
    check(
        &["agent", "--node", "n1", "--config", "/nonexistent.yaml"],
        2,
        &[],
        &["/nonexistent.yaml"],
    );
    check(&["elucidate"], 2, &[], &["unrecognized subcommand"]);
    check(
        &["agent", "--help"],
        0,
        &["ringfence agent --node worker-1", "RINGFENCE_NODE"],
        &[],
    );
}

#[test]
fn every_flag_can_stand_in_the_environment() {
    let output = Command::new(PROGRAM)
        .arg("agent")
        .env("RINGFENCE_NODE", "n1")
        .env("RINGFENCE_SOURCE", "dir:/nonexistent-from-the-environment")
        .env("RINGFENCE_NODE_ADDRESS", "10.0.0.1,fd00::1")
        .env("RINGFENCE_LISTEN", "off")
        .output();
    let (code, _, stderr) = parts(&output.expect("it runs"));
    assert_eq!(code, Some(2));
    assert!(stderr.contains("/nonexistent-from-the-environment"), "{stderr}");
}

/// Cleanup looks at every namespace of the node. The other namespaces of the machine that runs this test are none of
/// its business, so it runs where it sees no process but itself and no namespace but this test's.
fn cleanup_alone(world: &World, name: &str) -> (Option<i32>, String, String) {
    let script = format!(
        "set -e; path={path}; keep={keep}; touch $keep; mount --bind $path $keep; mount -t tmpfs none /run/netns; touch $path; \
         mount --bind $keep $path; {PROGRAM} cleanup",
        path = world.netns_path(name),
        keep = world.folder.file(".keep").display(),
    );
    let output = Command::new("unshare")
        .args(["--mount", "--pid", "--fork", "--mount-proc", "sh", "-c", &script])
        .output();
    parts(&output.expect("it runs"))
}

#[test]
fn cleanup_removes_the_tables_but_not_those_of_a_living_agent() {
    let mut world = World::new("cleanup");
    let web = world.netns("web", &["net1"]);
    world.save("all.yaml", &[pod("web", "10.20.1.10"), closing("guard", "web")]);
    world.start();
    world.wait_state("web", "enforced");

    let (code, stdout, stderr) = cleanup_alone(&world, "web");
    assert_eq!(code, Some(1), "{stdout}{stderr}");
    assert!(stderr.contains("owned by another process"), "{stderr}");
    assert!(rules(&web).contains("chain net1-in"), "the agent's rules stay");

    world.stop();
    assert!(rules(&web).contains("chain net1-in"));
    let (code, stdout, stderr) = cleanup_alone(&world, "web");
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert!(
        stdout.contains(&format!("removed: {}", world.netns_path("web"))),
        "{stdout}"
    );
    assert_eq!(rules(&web), "");

    let (code, stdout, _) = cleanup_alone(&world, "web");
    assert_eq!(code, Some(0));
    assert!(stdout.starts_with("0 of "), "{stdout}");
}
