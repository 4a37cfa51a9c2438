//! Section K, and the networks of sections A to J: whose interface is protected, by whose addresses.

use std::net::{IpAddr, SocketAddr};

use ringfence_model::Family;
use ringfence_testkit::manifest::{Policy, block, pods};
use ringfence_testkit::{PodSpec, Probe, plan};
use serde_json::{Value, json};

use super::packets::{Cases, mac};
use super::world::{
    Asks, BLUE, CLUSTER, Dropped, FRIEND, GREEN, Icmp, Reached, SERVER, STRANGER, Tcp, Udp, World, friend, guard, tcp,
    usual_pods,
};

/// Whether the stranger reaches the server on each of the three networks: cluster, blue, green.
#[track_caller]
fn stranger_reaches(world: &World, what: &str, open: [bool; 3]) {
    let outcome = |open| if open { Reached } else { Dropped };
    let networks = [CLUSTER, BLUE, GREEN].into_iter().zip(open);
    let rows: Vec<_> = networks
        .flat_map(|(network, open)| {
            [
                (STRANGER, SERVER, network, Tcp, 80, outcome(open)),
                (STRANGER, SERVER, network, Udp, 81, outcome(open)),
                (STRANGER, SERVER, network, Icmp, 0, outcome(open)),
            ]
        })
        .collect();
    world.expect(what, &rows);
}

#[test]
fn s150_s151_s153_only_the_listed_networks_are_isolated() {
    let mut world = World::usual("listed");
    let multi = |networks: &[&str]| {
        Policy::multi("x/m", networks)
            .select(&[("app", "server")])
            .isolate_ingress()
    };
    let network = || Policy::network("x/n").select(&[("app", "server")]).isolate_ingress();
    for (what, policies, open) in [
        ("blue", vec![multi(&[BLUE])], [true, false, true]),
        ("green, by its short name", vec![multi(&["green"])], [true, true, false]),
        ("both", vec![multi(&[BLUE, GREEN])], [true, false, false]),
        (
            "the cluster network by name",
            vec![multi(&["default"])],
            [false, true, true],
        ),
        ("no network", vec![multi(&[])], [true, true, true]),
        (
            "a network that nobody has",
            vec![multi(&["x/none"])],
            [true, true, true],
        ),
        ("the same name elsewhere", vec![multi(&["y/blue"])], [true, true, true]),
        (
            "NetworkPolicy: all but the cluster network",
            vec![network()],
            [true, false, false],
        ),
        (
            "NetworkPolicy for one network",
            vec![network().policy_for(&[GREEN])],
            [true, true, false],
        ),
        (
            "NetworkPolicy for the cluster network",
            vec![network().policy_for(&["default"])],
            [false, true, true],
        ),
        (
            "one of each",
            vec![multi(&["default"]), network().policy_for(&[GREEN])],
            [false, true, false],
        ),
    ] {
        world.policies(&policies);
        stranger_reaches(&world, what, open);
    }
    // Egress alone: nothing changes for those who ask the server.
    world.policies(&[Policy::multi("x/m", &[GREEN])
        .select(&[("app", "server")])
        .isolate_egress()]);
    stranger_reaches(&world, "egress", [true; 3]);
    world.expect(
        "egress of green only",
        &[
            (SERVER, STRANGER, GREEN, Tcp, 80, Dropped),
            (SERVER, STRANGER, BLUE, Tcp, 80, Reached),
            (SERVER, STRANGER, CLUSTER, Tcp, 80, Reached),
        ],
    );
}

#[test]
fn s151_every_network_where_the_scope_is_all() {
    let mut world = World::new("scope", usual_pods(), &["--network-policy-scope", "all"]);
    world.policies(&[Policy::network("x/n").select(&[("app", "server")]).isolate_ingress()]);
    stranger_reaches(&world, "scope all", [false; 3]);
}

#[test]
fn s152_s156_a_pod_that_is_not_attached_is_neither_protected_nor_a_peer() {
    let mut specs = usual_pods();
    specs.push(
        PodSpec::multus("x/far")
            .label("app", "server")
            .label("access", "true")
            .attach("eth0", CLUSTER),
    );
    specs.push(
        PodSpec::multus("x/green-only")
            .label("access", "true")
            .attach("eth0", CLUSTER)
            .attach("net1", GREEN),
    );
    let mut world = World::new("absent", specs, &[]);
    world.policies(&[guard().ingress(&[friend()], &[])]);
    world.expect(
        "a selected pod that is not on the network is open",
        &[
            (STRANGER, "x/far", CLUSTER, Tcp, 80, Reached),
            ("x/far", STRANGER, CLUSTER, Tcp, 80, Reached),
            (STRANGER, SERVER, BLUE, Tcp, 80, Dropped),
        ],
    );
    // Its addresses on other networks are no right on this one, wherever they come from.
    let server = world.address(SERVER, BLUE, Family::V4);
    let mut cases = Cases::default();
    for (name, pod, network, passes) in [
        (
            "the cluster address of a pod that is not on blue",
            "x/far",
            CLUSTER,
            false,
        ),
        (
            "the green address of a pod that is not on blue",
            "x/green-only",
            GREEN,
            false,
        ),
        ("the blue address of the friend", FRIEND, BLUE, true),
    ] {
        let ends = (world.address(pod, network, Family::V4), server);
        cases.one(name, ends, passes, |ip| ip.tcp(4000, 80, 2));
    }
    cases.arrive(&world, "peers that are elsewhere", (STRANGER, "net1"), (SERVER, "net1"));
}

#[test]
fn s154_s155_peers_are_their_addresses_on_the_network_of_the_interface() {
    let mut world = World::usual("addresses");
    // Both networks in one policy, and both directions.
    world.policies(&[Policy::multi("x/guard", &[BLUE, GREEN])
        .select(&[("app", "server")])
        .ingress(&[friend()], &[])
        .egress(&[friend()], &[])]);
    for (network, interface) in [(BLUE, "net1"), (GREEN, "net2")] {
        let (mut arriving, mut leaving) = (Cases::default(), Cases::default());
        for other in [BLUE, GREEN, CLUSTER] {
            let families = if other == CLUSTER {
                &Family::BOTH[..1]
            } else {
                &Family::BOTH[..]
            };
            for family in families {
                let server = world.address(SERVER, network, *family);
                let peer = world.address(FRIEND, other, *family);
                let name = format!("the friend's {family:?} address on {other}");
                arriving.one(&*name, (peer, server), other == network, |ip| ip.tcp(4000, 80, 2));
                leaving.one(&*name, (server, peer), other == network, |ip| ip.tcp(4001, 80, 2));
            }
        }
        // Whatever is sent there, the friend hears it: its addresses of other networks are its neighbours there.
        let foreign: Vec<String> = [GREEN, BLUE, CLUSTER]
            .into_iter()
            .filter(|other| *other != network)
            .flat_map(|other| &world.pod(FRIEND).on(other).expect("an interface").addresses)
            .map(ToString::to_string)
            .collect();
        let mac = plan::mac_text(mac(world.pod(FRIEND), interface));
        let ip = |words: &[&str]| world.pod(SERVER).exec("ip", words).expect("ip");
        for address in &foreign {
            ip(&["route", "add", address, "dev", interface]);
            ip(&["neigh", "replace", address, "lladdr", &mac, "dev", interface]);
        }
        arriving.arrive(
            &world,
            &format!("{network}, in"),
            (FRIEND, interface),
            (SERVER, interface),
        );
        leaving.leave(
            &world,
            &format!("{network}, out"),
            (SERVER, interface),
            (FRIEND, interface),
        );
        for address in &foreign {
            ip(&["route", "del", address, "dev", interface]);
        }
    }
}

#[test]
fn s157_two_interfaces_on_one_network() {
    let twice = |name| {
        PodSpec::multus(name)
            .attach("eth0", CLUSTER)
            .attach("net1", BLUE)
            .attach("net2", BLUE)
    };
    let specs = vec![
        twice(SERVER).label("app", "server"),
        twice(FRIEND).label("access", "true"),
        twice(STRANGER),
    ];
    let mut world = World::new("twice", specs, &[]);
    for pod in [SERVER, FRIEND, STRANGER] {
        // Each address answers on its own interface only, as on separate wires.
        for setting in ["arp_ignore", "arp_announce"] {
            world.sysctl(pod, &format!("ipv4/conf/all/{setting}"), "1");
        }
    }
    world.policies(&[guard().ingress(&[friend()], &[tcp(80)])]);
    let mut asks = Asks::default();
    for family in Family::BOTH {
        let of = |pod: &str, interface: &str| -> IpAddr {
            let all = &world.pod(pod).interfaces;
            let found = all.iter().find(|it| it.name == interface).expect("an interface");
            *found
                .addresses
                .iter()
                .find(|it| Family::of(**it) == family)
                .expect("an address")
        };
        for (from, outcome) in [(FRIEND, Reached), (STRANGER, Dropped)] {
            for ours in ["net1", "net2"] {
                for theirs in ["net1", "net2"] {
                    let mut probe = Probe::from_pod(world.pod(from), Tcp, SocketAddr::new(of(SERVER, theirs), 80));
                    probe.source = Some(of(from, ours));
                    probe.interface = Some(ours.to_owned());
                    probe.label = format!("{from} {ours} to {theirs} {family:?}");
                    asks.ask(probe.clone(), outcome);
                    probe.to.set_port(81);
                    asks.ask(probe, Dropped);
                }
            }
        }
    }
    asks.check(&world, "each of both");
}

#[test]
fn s164_attachments_without_addresses() {
    let mut world = World::usual("unaddressed");
    // Interfaces have addresses that no annotation knows, as with DHCP, static configuration or virtual machines.
    for pod in [SERVER, FRIEND] {
        world.edit_status(pod, |status| {
            let entry = status.iter_mut().find(|entry| entry["name"] == BLUE).expect("an entry");
            entry.as_object_mut().expect("an object").remove("ips");
        });
    }
    world.policies(&[guard().ingress(&[friend()], &[]).egress(&[friend()], &[])]);
    let rows = |friend| {
        [
            (FRIEND, SERVER, BLUE, Tcp, 80, friend),
            (SERVER, FRIEND, BLUE, Udp, 80, friend),
            (STRANGER, SERVER, BLUE, Tcp, 80, Dropped),
            (SERVER, STRANGER, BLUE, Icmp, 0, Dropped),
        ]
    };
    world.expect("closed, and nobody is a peer", &rows(Dropped));
    let blocks: Vec<Value> = Family::BOTH
        .iter()
        .map(|family| {
            let length = if *family == Family::V4 { 32 } else { 128 };
            block(&format!("{}/{length}", world.address(FRIEND, BLUE, *family)), &[])
        })
        .collect();
    world.policies(&[guard().ingress(&blocks, &[]).egress(&blocks, &[])]);
    world.expect("blocks work", &rows(Reached));
}

#[test]
fn s158_two_annotations_and_stale_ones() {
    let mut world = World::usual("stale");
    world.policies(&[guard().ingress(&[friend()], &[])]);
    // CNI-Genie's annotation of an earlier life, with the stranger's address and another interface.
    let stranger = world.address(STRANGER, BLUE, Family::V4).to_string();
    let old = json!({"multi_entry": 2, "ips": {
        "ip1": {"ip": "10.20.1.250", "interface": "eth0"},
        "ip2": {"ip": stranger, "interface": "eth1"},
    }});
    world.edit(&format!("Pod {FRIEND}"), |pod| {
        pod["metadata"]["annotations"]["multi-ip-preferences"] = old.to_string().into();
    });
    world.settle();
    let rows = [
        (FRIEND, SERVER, BLUE, Tcp, 80, Reached),
        (STRANGER, SERVER, BLUE, Tcp, 80, Dropped),
    ];
    world.expect("network-status counts", &rows);
    // The server's too: what it says about interfaces that the pod no longer has protects nothing else.
    world.edit(&format!("Pod {SERVER}"), |pod| {
        pod["metadata"]["annotations"]["multi-ip-preferences"] = old.to_string().into();
    });
    world.settle();
    world.expect("on the protected pod", &rows);
    // A status that is gone names nobody.
    world.edit_status(FRIEND, |status| status.retain(|entry| entry["name"] != BLUE));
    world.settle();
    world.expect(
        "the friend is not on blue any more",
        &[(FRIEND, SERVER, BLUE, Tcp, 80, Dropped)],
    );
}

#[test]
fn s168_a_hot_plugged_interface_is_closed_before_and_judged_once_it_is_listed() {
    let on = |name, label: (&str, &str)| PodSpec::multus(name).label(label.0, label.1).attach("eth0", CLUSTER);
    let specs = vec![
        on(SERVER, ("app", "server")).attach("net1", GREEN),
        on(FRIEND, ("access", "true"))
            .attach("net1", BLUE)
            .attach("net2", GREEN),
        on(STRANGER, ("access", "no"))
            .attach("net1", BLUE)
            .attach("net2", GREEN),
    ];
    let mut world = World::new("hotplug", specs, &[]);
    world.policies(&[Policy::multi("x/guard", &[BLUE, GREEN])
        .select(&[("app", "server")])
        .ingress(&[friend()], &[tcp(80), tcp(90)])]);
    // Somebody plugs it in.
    let netns = world.pod(SERVER).netns_name.clone();
    let node = world.topology.node(1).expect("a node");
    node.ip(&[
        format!("link add hot type veth peer name net9 netns {netns}"),
        "link set hot master br1 up".to_owned(),
    ])
    .expect("plugged in");
    let address: IpAddr = "10.21.1.99".parse().expect("an address");
    world
        .pod(SERVER)
        .exec("ip", &["address", "add", "10.21.1.99/16", "dev", "net9"])
        .expect("added");
    world
        .pod(SERVER)
        .exec("ip", &["link", "set", "net9", "up"])
        .expect("up");
    let check = |world: &World, what: &str, friend, other| {
        let mut asks = Asks::default();
        for (from, port, outcome) in [(FRIEND, 90, friend), (FRIEND, 91, other), (STRANGER, 90, other)] {
            asks.ask_from(world.pod(from), Tcp, SocketAddr::new(address, port), outcome);
        }
        asks.check(world, what);
    };
    // The bridge uses a new port a moment later. ARP, which no policy stops, tells when; otherwise nothing but that would
    // be what keeps the interface closed.
    for pod in [FRIEND, STRANGER] {
        world.eventually("the wire is there", || {
            let to = SocketAddr::new(address, 90);
            Probe::from_pod(world.pod(pod), Tcp, to).ask().expect("asked");
            let words = ["neigh", "show", "10.21.1.99", "dev", "net1"];
            let neighbours = world.pod(pod).exec("ip", &words).expect("ip");
            if neighbours.contains("lladdr") {
                Ok(())
            } else {
                Err(neighbours)
            }
        });
    }
    // Nobody listens at these ports: a refusal says that the way is open.
    let open = ringfence_testkit::Outcome::Refused;
    check(&world, "not listed yet", Dropped, Dropped);
    world.edit_status(SERVER, |status| {
        status.push(json!({"name": BLUE, "interface": "net9", "ips": [address.to_string()], "dns": {}}));
    });
    world.settle();
    check(&world, "listed", open, Dropped);
    // Without a policy anywhere everything was open, and is.
    world.policies(&[]);
    check(&world, "no policy", open, open);
}

#[test]
fn s170_what_a_pod_forwards_is_judged_as_its_own() {
    let specs = vec![
        PodSpec::multus("x/client")
            .attach("eth0", CLUSTER)
            .attach("net1", GREEN),
        PodSpec::multus(SERVER)
            .label("app", "server")
            .attach("eth0", CLUSTER)
            .attach("net1", BLUE)
            .attach("net2", GREEN),
        PodSpec::multus(FRIEND)
            .label("access", "true")
            .attach("eth0", CLUSTER)
            .attach("net1", BLUE),
    ];
    let mut world = World::new("forwards", specs, &[]);
    // The server is a router: the client is behind it, the friend before it.
    for setting in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        world.sysctl(SERVER, setting, "1");
    }
    let prefixes = [("10.21.0.0/16", "10.22.0.0/16"), ("fd00:21::/64", "fd00:22::/64")];
    for (family, (blue, green)) in Family::BOTH.into_iter().zip(prefixes) {
        for (pod, there, here) in [("x/client", blue, GREEN), (FRIEND, green, BLUE)] {
            let via = world.address(SERVER, here, family).to_string();
            world
                .pod(pod)
                .exec("ip", &["route", "add", there, "via", &via])
                .expect("a route");
        }
    }
    let check = |world: &World, what: &str, rows: &[(&str, &str, &str, u16, bool)]| {
        let mut asks = Asks::default();
        for (from, to, network, port, open) in rows {
            for family in Family::BOTH {
                let target = SocketAddr::new(world.address(to, network, family), *port);
                let mut probe = Probe::from_pod(world.pod(from), Tcp, target);
                probe.label = format!("{from} through the router to {target}");
                asks.ask(probe, if *open { Reached } else { Dropped });
            }
        }
        asks.check(world, what);
    };
    let both = |first, second, third, fourth| {
        [
            ("x/client", FRIEND, BLUE, 80, first),
            ("x/client", FRIEND, BLUE, 81, second),
            (FRIEND, "x/client", GREEN, 80, third),
            (FRIEND, "x/client", GREEN, 81, fourth),
        ]
    };
    check(&world, "no policy", &both(true, true, true, true));
    world.policies(&[guard().egress(&[friend()], &[tcp(80)])]);
    check(&world, "egress of the router", &both(true, false, true, true));
    world.policies(&[guard().ingress(&[friend()], &[tcp(81)])]);
    check(&world, "ingress of the router", &both(true, true, false, true));
    world.policies(&[guard().ingress(&[pods(&[("no", "such")])], &[]).isolate_egress()]);
    check(&world, "closed", &both(false, false, false, false));
    // What goes through the other interface is the other network's business.
    world.policies(&[Policy::multi("x/green", &[GREEN])
        .select(&[("app", "server")])
        .egress(&[], &[tcp(80)])]);
    check(&world, "egress of green", &both(true, true, true, false));
}
