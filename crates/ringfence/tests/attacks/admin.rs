//! With CAP_NET_ADMIN over the pod's network namespace: its nftables, its routes.

use std::net::SocketAddr;

use ringfence_model::Family;

use crate::world::{ALLOWED, BLUE, FORBIDDEN, MARK, World};

#[test]
fn closed_flush_and_delete_where_tables_have_owners() {
    let world = World::new("owner");
    let expected = world.rules();
    world.closed("flush, delete, add", || {
        for command in [
            "delete table inet ringfence",
            "delete table netdev ringfence",
            "flush table inet ringfence",
            "insert rule inet ringfence net1-out accept",
            "flush ruleset",
        ] {
            // Refused, or passed over: what counts is what is left.
            let _ = world.attacker.nft(command);
            world.send_forbidden("net1");
        }
    });
    assert_eq!(world.rules(), expected);
}

#[test]
fn repaired_flush_and_delete_without_owners() {
    let world = World::without_owner("flush");
    for command in [
        "flush ruleset",
        "delete table inet ringfence",
        "delete table netdev ringfence",
        "flush chain inet ringfence net1-out",
        "insert rule inet ringfence net1-out accept",
        "insert rule inet ringfence leave accept",
        "delete chain netdev ringfence net1-backstop",
    ] {
        world.repaired(command, || world.attacker.nft(command).expect("changed"));
    }
}

/// For ever: each repair comes, however often it is undone, and the agent does nothing else all the time.
#[test]
fn repaired_flush_in_a_loop() {
    let world = World::without_owner("loop");
    world.repaired("a hundred times", || {
        for _ in 0..100 {
            let _ = world.attacker.nft("flush ruleset");
        }
    });
}

#[test]
fn closed_tables_that_accept() {
    let world = World::new("accept");
    let priorities = [-2_000_000_000, -400, -170, -160, 0, 110, 300, 2_000_000_000];
    let script: Vec<String> = priorities
        .iter()
        .enumerate()
        .map(|(number, priority)| {
            let chain = |hook: &str| {
                let name = hook.split(' ').next().unwrap_or_default();
                format!(
                    " chain {name} {{\n  type filter hook {hook} priority {priority}; policy accept;\n  accept\n }}\n"
                )
            };
            let inet = ["prerouting", "input", "output", "postrouting"].map(chain).concat();
            let netdev = chain("egress device net1");
            format!("table inet mine{number} {{\n{inet}}}\ntable netdev mine{number} {{\n{netdev}}}\n")
        })
        .collect();
    let script = script.concat();
    world.attacker.nft(&script).expect("loaded");
    world.closed("accepting before and after", || {
        world.send_forbidden("net1");
    });
}

#[test]
fn closed_notrack() {
    let world = World::new("notrack");
    world.closed_altogether("packets that conntrack does not see", || {
        let script = "table inet mine {\n chain o {\n  type filter hook output priority raw; policy accept;\n  notrack\n }\n \
                      chain p {\n  type filter hook prerouting priority raw; policy accept;\n  notrack\n }\n}\n";
        world.attacker.nft(script).expect("loaded");
        world.send_forbidden("net1");
    });
}

#[test]
fn closed_destination_nat() {
    let world = World::new("dnat");
    let [(_, victim4), (_, victim6)] = world.ends();
    let script = format!(
        "table ip mine {{\n chain o {{\n  type nat hook output priority -100; policy accept;\n  udp dport 7 dnat to {victim4}:{FORBIDDEN}\n }}\n}}\n\
         table ip6 mine {{\n chain o {{\n  type nat hook output priority -100; policy accept;\n  udp dport 7 dnat to [{victim6}]:{FORBIDDEN}\n }}\n}}\n"
    );
    world.attacker.nft(&script).expect("loaded");
    world.closed("another destination after it was chosen", || {
        for family in Family::BOTH {
            let friend = world.friend.address(BLUE, family).expect("an address");
            let socket = world.socket(&world.attacker, "net1", friend);
            let _ = socket.send_to(MARK, SocketAddr::new(friend, 7));
        }
    });
}

#[test]
fn closed_policy_routing() {
    let world = World::new("routes");
    let [(_, victim4), (_, victim6)] = world.ends();
    world.ip(
        &world.attacker,
        &format!("route add {victim4}/32 dev net1 table 7 realms 9"),
    );
    world.ip(&world.attacker, "rule add from all table 7 priority 5");
    world.ip(&world.attacker, &format!("-6 route add {victim6}/128 dev net1 table 7"));
    world.ip(&world.attacker, "-6 rule add from all table 7 priority 5");
    world.closed("routes of its own, with realms", || world.send_forbidden("net1"));
}

#[test]
fn open_source_nat_and_added_addresses() {
    let world = World::new("snat");
    let [(own, victim), _] = world.ends();
    let forged = world.nobody(own);
    world.ip(&world.attacker, &format!("address add {forged}/32 dev net1"));
    world.open("an address that the pod gave itself", || {
        let socket = world
            .attacker
            .netns
            .run(|| std::net::UdpSocket::bind(SocketAddr::new(forged, 0)).expect("bound"))
            .expect("entered");
        let _ = socket.send_to(MARK, SocketAddr::new(victim, ALLOWED));
    });
}

#[test]
fn open_rewriting_after_the_rules() {
    let world = World::new("rewrite");
    let [(_, victim), _] = world.ends();
    let friend = world.friend.address(BLUE, Family::V4).expect("an address");
    let script = format!(
        "table ip mine {{\n chain p {{\n  type filter hook postrouting priority 300; policy accept;\n  \
         ip daddr {friend} meta l4proto udp ip daddr set {victim} udp dport set {FORBIDDEN}\n }}\n}}\n"
    );
    world.attacker.nft(&script).expect("loaded");
    world.ip(
        &world.attacker,
        &format!(
            "neighbour replace {friend} lladdr {} dev net1",
            text(world.mac(&world.victim))
        ),
    );
    world.open("another destination after the judgement", || {
        let socket = world.socket(&world.attacker, "net1", friend);
        let _ = socket.send_to(MARK, SocketAddr::new(friend, ALLOWED));
    });
}

/// A hook takes 1,024 chains: as many of the pod's own as there is room for.
fn fill(world: &World, hooks: &[&str]) {
    for (number, hook) in hooks.iter().enumerate() {
        let family = if hook.starts_with("egress") { "netdev" } else { "inet" };
        let chain = |name: u32| {
            format!("add chain {family} full{number} c{name} {{ type filter hook {hook} priority 400; }}\n")
        };
        let table = format!("add table {family} full{number}\n");
        let most: String = (0..900).map(chain).collect();
        world.attacker.nft(&(table + &most)).expect("room for these");
        let refused = (900..1100).find(|name| world.attacker.nft(&chain(*name)).is_err());
        assert!(refused.is_some(), "{hook} has room for more");
    }
}

#[test]
fn closed_hooks_without_room_beside_the_rules() {
    let world = World::new("full");
    fill(&world, &["prerouting", "output", "postrouting", "egress device net1"]);
    world.closed("as many chains as there may be", || world.send_forbidden("net1"));
}

#[test]
fn open_hooks_without_room_before_the_first_rules() {
    let mut world = World::new("first");
    let mut guard = Vec::new();
    world.save(|objects| {
        guard = objects
            .extract_if(.., |it| it.0["kind"] == "MultiNetworkPolicy")
            .collect();
    });
    world.eventually("no policy", || {
        let rules = world.rules();
        if rules.is_empty() { Ok(()) } else { Err(rules) }
    });
    fill(&world, &["postrouting"]);
    world.save(|objects| objects.append(&mut guard));
    world.eventually("it is told", || {
        let pods = world.get("/pods?output=json");
        if pods.contains("\"failed\"") && pods.contains("E2BIG") {
            Ok(())
        } else {
            Err(pods)
        }
    });
    world.open("not even the closed rules find room", || world.send_forbidden("net1"));
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
