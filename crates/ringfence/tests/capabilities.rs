//! The chart gives the agent's container a list of capabilities. These tests run the program with exactly those, as a
//! container runtime would (bounding set, no new privileges), and without each of them in turn.

mod common;

use std::process::Command;

use common::{PROGRAM, World, closing, parts, pod, rules};

const DAEMONSET: &str = include_str!("../../../charts/ringfence/templates/daemonset.yaml");

/// What the chart adds in every case: the entries of `add:` up to the first condition.
fn added() -> Vec<String> {
    let list = DAEMONSET
        .split("    add:\n")
        .nth(1)
        .expect("the chart adds capabilities");
    list.lines()
        .map(str::trim)
        .take_while(|line| line.starts_with("- ") || line.starts_with('#'))
        .filter_map(|line| line.strip_prefix("- "))
        .map(str::to_lowercase)
        .collect()
}

/// `setpriv …`, behind which a program has these capabilities and can get no others.
fn with(capabilities: &[String]) -> Vec<String> {
    let set = [&["-all".to_owned()], capabilities].concat().join(",+");
    vec![
        "setpriv".to_owned(),
        format!("--bounding-set={set}"),
        "--inh-caps=-all".to_owned(),
        "--no-new-privs".to_owned(),
    ]
}

#[test]
fn the_capabilities_of_the_chart_are_enough() {
    let capabilities = added();
    assert!(!capabilities.is_empty());
    let mut world = World::new("caps");
    let web = world.netns("web", &["eth0", "net1"]);
    world.save("all.yaml", &[pod("web", "10.20.1.10"), closing("guard", "web")]);
    world.start_through(&with(&capabilities));
    world.wait_state("web", "enforced");
    world.wait_rules(&web, "chain net1-in {");
    world.delete("all.yaml");
    world.save("all.yaml", &[pod("web", "10.20.1.10"), closing("other", "web")]);
    world.wait_state("web", "enforced");
    assert_eq!(
        world.metric("ringfence_transactions_total{result=\"refused\"}"),
        Some(0.0)
    );
    assert_eq!(world.lines(&["ERROR"]), 0, "{}", world.agent().log());
    world.stop();
    assert!(rules(&web).contains("chain net1-in {"), "{}", rules(&web));
}

#[test]
fn without_any_one_of_them_nothing_works() {
    let capabilities = added();
    for missing in &capabilities {
        let rest: Vec<String> = capabilities.iter().filter(|name| *name != missing).cloned().collect();
        let run = |arguments: &[String]| {
            let command = with(&rest);
            let output = Command::new(&command[0])
                .args(&command[1..])
                .arg(PROGRAM)
                .args(arguments)
                .output()
                .expect("it starts");
            let (code, _, stderr) = parts(&output);
            assert_eq!(code, Some(2), "without {missing}: {stderr}");
            stderr
        };
        let world = World::new("caps");
        // The agent looks before it starts, and says what is missing. Where nothing is, it ends at an address that is not
        // this machine's, so that a capability too many fails the test.
        let mut arguments = world.arguments();
        arguments.extend(["--listen".to_owned(), "192.0.2.1:1".to_owned()]);
        let name = format!("CAP_{} missing", missing.to_uppercase());
        let stderr = run(&arguments);
        assert!(stderr.contains(&name), "without {missing}: {stderr}");
        // `cleanup` does not: it shows what the kernel itself says to the first thing that needs the capability.
        let stderr = run(&["cleanup".to_owned()]);
        assert!(stderr.contains("not permitted"), "without {missing}: {stderr}");
    }
}
