//! Real traffic between real namespaces agrees with the semantics, in both dialects: the agent binary on a folder of
//! manifests, TCP, UDP and ICMP over IPv4 and IPv6, in both directions between all pods. Needs root and fails without.

mod scenarios;
mod world;

use ringfence_testkit::Dialect;
use scenarios::SCENARIOS;
use world::World;

fn check(dialect: Dialect) {
    let world = World::new(dialect).expect("the world of the scenarios");
    let mut asked = 0;
    let mut wrong = Vec::new();
    for (number, scenario) in SCENARIOS.iter().enumerate() {
        world.install(number, scenario).expect(scenario.name);
        let (count, differences) = world.probe(scenario).expect(scenario.name);
        asked += count;
        if !differences.is_empty() {
            wrong.push(format!(
                "{}:\n  {}\n{}",
                scenario.name,
                differences.join("\n  "),
                world.rules()
            ));
        }
    }
    println!("{dialect:?}: {} scenarios, {asked} connections tried", SCENARIOS.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn network_policies_on_cni_genie_networks() {
    check(Dialect::Genie);
}

#[test]
fn multi_network_policies_on_multus_networks() {
    check(Dialect::Multus);
}
