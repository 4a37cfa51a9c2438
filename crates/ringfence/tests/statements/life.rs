//! Section J: pods that end, are re-created, share or change addresses; namespaces that end; rules that somebody removes.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use ringfence_model::Family;
use ringfence_testkit::manifest::{Policy, pods, ports};
use ringfence_testkit::{Flow, Load, Pod, PodSpec, Stream, run_program};
use serde_json::json;

use super::packets::Cases;
use super::world::{
    Asks, BLUE, CLUSTER, Dropped, FRIEND, Icmp, PATIENCE, Reached, SERVER, STRANGER, Tcp, Udp, World, friend, guard,
    tcp, usual_pods,
};

/// How long nothing arrives until a flow counts as stopped.
const QUIET: Duration = Duration::from_millis(500);

/// The friend has reached the server on port 80, or not.
#[track_caller]
fn friend_to_server(world: &World, what: &str, outcome: ringfence_testkit::Outcome) {
    world.expect(
        what,
        &[
            (FRIEND, SERVER, BLUE, Tcp, 80, outcome),
            (FRIEND, SERVER, BLUE, Icmp, 0, outcome),
        ],
    );
}

#[test]
fn s132_a_pod_that_has_ended_is_no_peer_and_its_connections_stop() {
    let mut world = World::usual("ended");
    world.policies(&[guard().ingress(&[friend()], &[])]);
    for phase in ["Succeeded", "Failed"] {
        friend_to_server(&world, "running", Reached);
        let flow = Flow::open(&world.path(FRIEND, SERVER, BLUE, Family::V6, 9400), Load::Upload).expect("a flow");
        world.edit(&format!("Pod {FRIEND}"), |pod| pod["status"]["phase"] = phase.into());
        world.settle();
        friend_to_server(&world, phase, Dropped);
        flow.wait_for_silence(QUIET, PATIENCE).expect("it stops");
        world.edit(&format!("Pod {FRIEND}"), |pod| {
            pod["status"]["phase"] = "Running".into();
        });
        world.settle();
    }
}

#[test]
fn s133_a_terminating_pod_stays_target_and_peer() {
    let mut world = World::usual("terminating");
    world.policies(&[guard().ingress(&[friend()], &[])]);
    let rows = [
        (FRIEND, SERVER, BLUE, Tcp, 80, Reached),
        (STRANGER, SERVER, BLUE, Tcp, 80, Dropped),
    ];
    world.expect("before", &rows);
    let flow = Flow::open(&world.path(FRIEND, SERVER, BLUE, Family::V4, 9401), Load::Upload).expect("a flow");
    for pod in [SERVER, FRIEND] {
        world.edit(&format!("Pod {pod}"), |pod| {
            pod["metadata"]["deletionTimestamp"] = "2026-02-01T00:00:00Z".into();
            pod["metadata"]["deletionGracePeriodSeconds"] = 30.into();
        });
        world.settle();
        world.expect(pod, &rows);
    }
    // A rule that comes now is a rule for them as well.
    world.policies(&[guard().ingress(&[friend()], &[tcp(81)])]);
    flow.wait_for_silence(QUIET, PATIENCE).expect("it stops");
    world.expect(
        "still followed",
        &[
            (FRIEND, SERVER, BLUE, Tcp, 80, Dropped),
            (FRIEND, SERVER, BLUE, Tcp, 81, Reached),
        ],
    );
}

#[test]
fn s134_the_newest_pod_has_an_address_that_two_claim() {
    let mut world = World::usual("claimed");
    world.policies(&[guard().ingress(&[friend()], &[])]);
    friend_to_server(&world, "alone", Reached);
    // Somewhere else, a pod without the label claims the friend's addresses.
    let mut other = world
        .pod(FRIEND)
        .without_label("access")
        .manifest()
        .expect("a manifest");
    other.0["metadata"]["name"] = "claimant".into();
    other.0["metadata"]["uid"] = "uid-claimant".into();
    other.0["spec"]["nodeName"] = "node9".into();
    other.0["status"]["startTime"] = "2026-03-01T00:00:00Z".into();
    world.put(other.clone());
    world.settle();
    friend_to_server(&world, "the newer one has no right", Dropped);
    // It ends: it claims nothing any more.
    world.edit("Pod x/claimant", |pod| pod["status"]["phase"] = "Succeeded".into());
    world.settle();
    friend_to_server(&world, "the newer one has ended", Reached);
    // An older one claims nothing that is in use, and takes nothing away when it goes.
    other.0["status"]["startTime"] = "2025-01-01T00:00:00Z".into();
    world.put(other);
    world.settle();
    friend_to_server(&world, "the other one is older", Reached);
    world.delete("Pod x/claimant");
    world.settle();
    friend_to_server(&world, "the older one is gone", Reached);
}

#[test]
fn s135_a_pod_of_the_same_name_is_another_pod() {
    let mut specs = usual_pods();
    let peer = |address: [&str; 2]| {
        let addresses: Vec<IpAddr> = address.iter().map(|text| text.parse().expect("an address")).collect();
        PodSpec::multus("x/set-0")
            .label("access", "true")
            .attach("eth0", CLUSTER)
            .attach_with("net1", BLUE, &addresses)
    };
    specs.push(peer(["10.21.1.70", "fd00:21::1:70"]));
    let mut world = World::new("recreated", specs, &[]);
    world.policies(&[guard().ingress(&[friend()], &[])]);
    let first = world.pod("x/set-0").uid.clone();
    world.expect("the first one", &[("x/set-0", SERVER, BLUE, Tcp, 80, Reached)]);
    world.remove_pod("x/set-0");
    world.add_pods(vec![peer(["10.21.1.71", "fd00:21::1:71"])]);
    assert_ne!(world.pod("x/set-0").uid, first);
    world.settle();
    world.expect("the second one", &[("x/set-0", SERVER, BLUE, Tcp, 80, Reached)]);
    let mut cases = Cases::default();
    for (old, new) in [("10.21.1.70", "10.21.1.71"), ("fd00:21::1:70", "fd00:21::1:71")] {
        let address = |text: &str| -> IpAddr { text.parse().expect("an address") };
        let server = world.address(SERVER, BLUE, Family::of(address(old)));
        cases.one(format!("from {old}"), (address(old), server), false, |ip| {
            ip.tcp(4000, 80, 2)
        });
        cases.one(format!("from {new}"), (address(new), server), true, |ip| {
            ip.tcp(4000, 80, 2)
        });
    }
    cases.arrive(
        &world,
        "the first one's address has no right",
        (STRANGER, "net1"),
        (SERVER, "net1"),
    );
}

/// A probe of a server's port from one of a pod's addresses.
fn from_to(world: &World, from: &Pod, source: IpAddr, target: IpAddr, port: u16) -> ringfence_testkit::Probe {
    let family = Family::of(source);
    let mut path = world.path(FRIEND, SERVER, BLUE, family, port);
    path.from = from.netns.clone();
    path.source = source;
    path.target.set_ip(target);
    path.label = format!("{source} to {target}");
    path.tcp()
}

#[test]
fn s136_every_address_of_a_pod_counts() {
    let many = |number: u16| -> Vec<IpAddr> {
        [
            format!("10.21.1.{number}"),
            format!("10.21.2.{number}"),
            format!("fd00:21::1:{number}"),
            format!("fd00:21::2:{number}"),
        ]
        .iter()
        .map(|text| text.parse().expect("an address"))
        .collect()
    };
    let spec = |name, number: u16| {
        PodSpec::multus(name)
            .attach("eth0", CLUSTER)
            .attach_with("net1", BLUE, &many(number))
    };
    let specs = vec![
        spec(SERVER, 50).label("app", "server"),
        spec(FRIEND, 60).label("access", "true"),
        spec(STRANGER, 70),
    ];
    let mut world = World::new("many", specs, &[]);
    let check = |world: &World, what: &str, rights: [(&str, u16, ringfence_testkit::Outcome); 2]| {
        let mut asks = Asks::default();
        for (pod, number, outcome) in rights {
            for source in many(number) {
                for target in many(50)
                    .into_iter()
                    .filter(|target| target.is_ipv4() == source.is_ipv4())
                {
                    asks.ask(from_to(world, world.pod(pod), source, target, 80), outcome);
                }
            }
        }
        asks.check(world, what);
    };
    world.policies(&[guard().ingress(&[friend()], &[tcp(80)])]);
    check(&world, "ingress", [(FRIEND, 60, Reached), (STRANGER, 70, Dropped)]);
    // As a target of its own egress: every address is one of its own, and every one of the peer's is one of the peer's.
    world.policies(&[Policy::multi("x/out", &[BLUE])
        .select(&[("access", "true")])
        .egress(&[pods(&[("app", "server")])], &[])]);
    check(&world, "egress", [(FRIEND, 60, Reached), (STRANGER, 70, Reached)]);
    world.policies(&[Policy::multi("x/out", &[BLUE])
        .select(&[("access", "true")])
        .isolate_egress()]);
    check(&world, "closed", [(FRIEND, 60, Dropped), (STRANGER, 70, Reached)]);
}

#[test]
fn s137_an_address_that_changes_is_followed() {
    let mut world = World::usual("moved");
    world.policies(&[guard().ingress(&[friend()], &[]).egress(&[friend()], &[])]);
    friend_to_server(&world, "before", Reached);
    for (pod, number, what) in [(FRIEND, 90, "the peer"), (SERVER, 91, "the target")] {
        let fresh = [format!("10.21.1.{number}"), format!("fd00:21::1:{number}")];
        let interface = world.pod(pod).on(BLUE).expect("an interface").clone();
        for (address, length) in fresh.iter().zip([16, 64]) {
            let address = format!("{address}/{length}");
            world
                .pod(pod)
                .exec("ip", &["address", "add", &address, "dev", "net1", "nodad"])
                .expect("added");
        }
        world.edit_status(pod, |status| {
            let entry = status.iter_mut().find(|entry| entry["name"] == BLUE).expect("an entry");
            entry["ips"] = json!(fresh);
        });
        world.settle();
        let mut asks = Asks::default();
        for (old, new) in interface.addresses.iter().zip(&fresh) {
            let family = Family::of(*old);
            let new: IpAddr = new.parse().expect("an address");
            if pod == FRIEND {
                let server = world.address(SERVER, BLUE, family);
                asks.ask(from_to(&world, world.pod(pod), new, server, 80), Reached);
                asks.ask(from_to(&world, world.pod(pod), *old, server, 80), Dropped);
            } else {
                // Judged by the interface: an address that the annotation has lost is as closed as before.
                let peer: IpAddr = if family == Family::V4 {
                    "10.21.1.90"
                } else {
                    "fd00:21::1:90"
                }
                .parse()
                .expect("an address");
                asks.ask(
                    from_to(&world, world.pod(FRIEND), peer, new, 9),
                    ringfence_testkit::Outcome::Refused,
                );
                let stranger = world.address(STRANGER, BLUE, family);
                asks.ask(from_to(&world, world.pod(STRANGER), stranger, new, 9), Dropped);
                asks.ask(from_to(&world, world.pod(STRANGER), stranger, *old, 80), Dropped);
            }
        }
        asks.check(&world, what);
    }
}

#[test]
fn s138_isolation_outlives_the_policies_of_a_namespace_that_is_being_deleted() {
    let mut world = World::usual("namespace");
    world.policies(&[guard().ingress(&[friend()], &[tcp(80)])]);
    let rows = [
        (FRIEND, SERVER, BLUE, Tcp, 80, Reached),
        (FRIEND, SERVER, BLUE, Tcp, 81, Dropped),
        (STRANGER, SERVER, BLUE, Tcp, 80, Dropped),
        (STRANGER, SERVER, BLUE, Icmp, 0, Dropped),
    ];
    world.expect("before", &rows);
    world.edit("Namespace x", |namespace| {
        namespace["metadata"]["deletionTimestamp"] = "2026-02-01T00:00:00Z".into();
        namespace["status"] = json!({"phase": "Terminating"});
    });
    world.settle();
    // Everything in it is deleted, in any order: first the policies.
    world.policies(&[]);
    world.expect("the policies are gone", &rows);
    // As long as the server lives; then its namespace keeps its rules.
    let server = world.pod(SERVER).clone();
    world.delete(&format!("Pod {SERVER}"));
    world.settle();
    let left = server
        .exec("nft", &["list", "table", "inet", "ringfence"])
        .expect("the rules stay");
    assert!(left.contains("chain net1-in"), "{left}");
}

#[test]
fn s141_rules_that_somebody_removes_are_repaired() {
    let mut world = World::usual("removed");
    world.policies(&[guard().ingress(&[friend()], &[tcp(80)])]);
    let rows = |stranger| {
        [
            (FRIEND, SERVER, BLUE, Tcp, 80, Reached),
            (STRANGER, SERVER, BLUE, Tcp, 80, stranger),
            (FRIEND, SERVER, BLUE, Tcp, 81, stranger),
        ]
    };
    world.expect("before", &rows(Dropped));
    // Nobody else in the pod can remove or change the tables while the agent lives.
    // A flush of everything passes over what has another owner.
    world.pod(SERVER).exec("nft", &["flush", "ruleset"]).expect("no error");
    for command in [
        "delete table inet ringfence",
        "flush chain inet ringfence net1-in",
        "insert rule inet ringfence arrive accept",
    ] {
        let words: Vec<&str> = command.split(' ').collect();
        let refused = world
            .pod(SERVER)
            .netns
            .run(|| run_program("nft", &words, ""))
            .expect("entered");
        let said = format!("{:#}", refused.expect_err(command));
        assert!(said.contains("Operation not permitted"), "{command}: {said}");
    }
    world.expect("nothing has changed", &rows(Dropped));
    // Without an agent somebody can; the next agent repairs it.
    world.crash(|world| {
        world.pod(SERVER).exec("nft", &["flush", "ruleset"]).expect("flushed");
        world.expect("no rules", &rows(Reached));
    });
    world.expect("repaired", &rows(Dropped));
}

#[test]
fn s142_no_packet_is_judged_by_a_mix() {
    let mut world = World::usual("mix");
    // Three ways to say it, each with other sets, rules and chains: the friend may do what it may do in all of them.
    let forms = [
        guard().ingress(&[friend()], &[ports("UDP", 9000, 9000)]),
        guard()
            .ingress(&[friend()], &[ports("UDP", 8000, 9500), tcp(80)])
            .isolate_egress(),
        guard().ingress(&[friend()], &[]),
        guard().ingress(
            &[friend(), pods(&[("no", "such")])],
            &[ports("UDP", 1, 65535), ports("TCP", 1, 1000)],
        ),
    ];
    world.policies(&forms[..1]);
    let stream = |from| {
        let path = world.path(from, SERVER, BLUE, Family::V4, if from == FRIEND { 9000 } else { 9001 });
        Stream::start(&path, Duration::from_micros(200)).expect("a stream")
    };
    let (allowed, denied) = (stream(FRIEND), stream(STRANGER));
    allowed.wait_open(Instant::now(), PATIENCE).expect("it is open");
    for form in forms.iter().cycle().take(20) {
        let before = allowed.counts().0;
        world.policies(std::slice::from_ref(form));
        world.eventually("traffic under these rules", || {
            if allowed.counts().0 > before + 20 {
                Ok(())
            } else {
                Err(String::new())
            }
        });
    }
    world.eventually("the last datagrams", || {
        let (sent, arrived) = allowed.counts();
        // The latest one may be on its way.
        if arrived + 1 >= sent {
            Ok(())
        } else {
            Err(format!("{arrived} of {sent}"))
        }
    });
    let (sent, arrived) = denied.counts();
    assert!(sent > 400, "{sent}");
    assert_eq!(arrived, 0, "of {sent} datagrams that no state allows");
    world.expect(
        "the stranger is shut out",
        &[(STRANGER, SERVER, BLUE, Udp, 80, Dropped)],
    );
}
