//! A kernel that refuses a pod's first ruleset. There is a natural way to that on every kernel: a hook takes 1,024 chains and no
//! more, so the chain against raw frames finds no room where somebody has filled the interface's egress hook.

use std::fmt::Write as _;

use ringfence_testkit::manifest::{Policy, pods};

use super::world::{
    BLUE, CLUSTER, Dropped, FRIEND, GREEN, Icmp, Reached, SERVER, STRANGER, Tcp, Udp, World, friend, guard, tcp,
};

/// As many as there may be (`MAX_HOOK_COUNT`).
const CHAINS: u32 = 1024;

/// Leaves no room at the egress hook of an interface.
fn fill(world: &World, pod: &str, interface: &str) {
    let mut script = String::from("add table netdev full\n");
    for number in 0..CHAINS {
        // Writing to a String cannot fail.
        let _ = writeln!(
            script,
            "add chain netdev full c{number} {{ type filter hook egress device {interface} priority {number}; }}"
        );
    }
    let load = || ringfence_testkit::run_program("nft", &["-f", "-"], &script);
    world.pod(pod).netns.run(load).expect("entered").expect("loaded");
}

#[test]
fn s142_s228_a_pod_whose_first_ruleset_the_kernel_refuses_is_closed_until_it_takes_it() {
    let mut world = World::usual("refused");
    fill(&world, SERVER, "net1");
    let both = guard().ingress(&[friend()], &[]).egress(&[friend()], &[]);
    let other = |name: &str, port| {
        Policy::multi(name, &[BLUE])
            .select(&[("access", "true")])
            .ingress(&[pods(&[])], &[tcp(port)])
    };
    world.leave(&[both.clone(), other("x/other", 80)]);
    let state = |world: &World| world.get("/namespaces/x/pods/server?output=json");
    let failed = |world: &World| {
        world.eventually("the pod is failed", || {
            let text = state(world);
            let words = [
                "\"failed\"",
                "Argument list too long",
                "the isolated interfaces are closed until then",
            ];
            if words.iter().all(|word| text.contains(word)) {
                Ok(())
            } else {
                Err(text)
            }
        });
    };
    failed(&world);
    let closed = [
        // Not even what the policy allows; and what no policy isolates stays as it is.
        (FRIEND, SERVER, BLUE, Tcp, 80, Dropped),
        (FRIEND, SERVER, BLUE, Icmp, 0, Dropped),
        (SERVER, FRIEND, BLUE, Tcp, 80, Dropped),
        (SERVER, FRIEND, BLUE, Udp, 80, Dropped),
        (STRANGER, SERVER, BLUE, Tcp, 80, Dropped),
        (SERVER, STRANGER, BLUE, Tcp, 80, Dropped),
        (FRIEND, SERVER, GREEN, Tcp, 80, Reached),
        (FRIEND, SERVER, CLUSTER, Tcp, 80, Reached),
        (SERVER, FRIEND, CLUSTER, Tcp, 80, Reached),
    ];
    world.expect("closed", &closed);
    world.expect(
        "others are enforced",
        &[
            (STRANGER, FRIEND, BLUE, Tcp, 80, Reached),
            (STRANGER, FRIEND, BLUE, Tcp, 81, Dropped),
        ],
    );
    // Their changes take effect, and another try does not open the pod.
    world.leave(&[both, other("x/other", 81)]);
    world.eventually("the other pod's change", || {
        let rules = world.get("/namespaces/x/pods/friend/rules");
        if rules.contains("tcp . 81") { Ok(()) } else { Err(rules) }
    });
    failed(&world);
    world.expect("still closed", &closed);

    // Room again: nobody has to tell the agent.
    let emptied = world.pod(SERVER).exec("nft", &["delete", "table", "netdev", "full"]);
    emptied.expect("deleted");
    world.settle();
    world.expect(
        "as the policies say",
        &[
            (FRIEND, SERVER, BLUE, Tcp, 80, Reached),
            (FRIEND, SERVER, BLUE, Icmp, 0, Reached),
            (STRANGER, SERVER, BLUE, Tcp, 80, Dropped),
            (SERVER, STRANGER, BLUE, Tcp, 80, Dropped),
            (SERVER, FRIEND, BLUE, Tcp, 81, Reached),
        ],
    );
    assert!(state(&world).contains("\"enforced\""), "{}", state(&world));
}
