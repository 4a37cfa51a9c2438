//! B31: antrea#4780 and #6855, cilium#42044, #45373, #45761 and #47589.
//!
//! A default deny has no rule that matched, so logs named no policy or a wrong one. The policies that isolate the pod are
//! the reason (statements 232, 233). Shown: for a deny the oracle, the index and the agent's HTTP answer name exactly the
//! isolating policies of that direction and that network, and not those of the other direction, the other network, another
//! pod, or the one that would allow it.

use ringfence_model::{Direction, PolicyKey};

use crate::support::manifest::{BLUE, GREEN, admits, blue, file, multi};
use crate::support::node::{Node, spec};
use crate::support::world::World;

fn policies() -> Vec<String> {
    vec![
        admits("shop/empty", "[]").replace("ingress: [{from: []}]", "ingress: []"),
        admits("shop/nobody", "[{podSelector: {matchLabels: {role: nobody}}}]"),
        // None of these isolates the ingress of web on blue.
        multi(
            "shop/outward",
            BLUE,
            "{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{}]}",
        ),
        multi(
            "shop/other-network",
            GREEN,
            "{podSelector: {matchLabels: {app: web}}, ingress: []}",
        ),
        multi(
            "shop/other-pod",
            BLUE,
            "{podSelector: {matchLabels: {app: db}}, ingress: []}",
        ),
    ]
}

fn names<'a>(keys: impl IntoIterator<Item = &'a PolicyKey>) -> Vec<&'a str> {
    keys.into_iter().map(|key| &*key.name.name).collect()
}

#[test]
fn s232_a_default_deny_names_the_isolating_policies_and_no_other() {
    let mut world = World::of([
        blue("shop/web", 10, "app=web")
            .on("net2", GREEN, &["10.30.0.10"])
            .yaml(),
        blue("shop/client", 11, "app=client").yaml(),
        file(&policies()),
    ]);
    world.check(BLUE, &[("shop/client", "shop/web", "80/tcp", false)]);
    let verdict = world.verdict("shop/client", "shop/web", BLUE, "80/tcp");
    assert_eq!(names(&verdict.ingress.isolating), ["empty", "nobody"]);
    let near: Vec<&PolicyKey> = verdict.ingress.near_misses.iter().map(|it| &it.clause.policy).collect();
    assert_eq!(names(near), ["nobody"], "its peer selects nobody");
    assert_eq!(names(&verdict.egress.isolating), Vec::<&str>::new());
    let uid = world.pod("shop/web").uid.clone();
    let view = world.index.view(&uid).expect("a view");
    assert_eq!(
        names(view.attachments[1].isolating(Direction::Ingress)),
        ["empty", "nobody"]
    );
    assert_eq!(names(view.attachments[1].isolating(Direction::Egress)), ["outward"]);
    assert_eq!(
        names(view.attachments[2].isolating(Direction::Ingress)),
        ["other-network"]
    );

    // An allowing policy is named for what it allows and isolates for the rest.
    world.apply(&admits("shop/allow", "[{podSelector: {matchLabels: {app: client}}}]"));
    let verdict = world.verdict("shop/client", "shop/web", BLUE, "80/tcp");
    let allowing: Vec<&PolicyKey> = verdict.ingress.allowed_by.iter().map(|it| &it.peer.policy).collect();
    assert_eq!(names(allowing), ["allow"]);
    let verdict = world.verdict("10.20.0.77", "shop/web", BLUE, "80/tcp");
    assert_eq!(names(&verdict.ingress.isolating), ["allow", "empty", "nobody"]);
}

#[test]
fn s233_the_agent_names_them_with_the_drops() {
    let mut node = Node::new(
        "names",
        vec![spec("shop/web", "app=web"), spec("shop/client", "app=client")],
    );
    node.start();
    node.save("policies.yaml", &file(&policies()));
    let status = node.json("/namespaces/shop/pods/web");
    let isolation: Vec<(String, String)> = status["isolation"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|it| (it["direction"].to_string(), it["policies"].to_string()))
        .collect();
    let of = |direction: &str| {
        let found: Vec<&String> = isolation
            .iter()
            .filter(|(it, _)| it.contains(direction))
            .map(|(_, policies)| policies)
            .collect();
        assert_eq!(found.len(), 1, "{isolation:?}");
        found[0].clone()
    };
    let (ingress, egress) = (of("ingress"), of("egress"));
    assert!(
        ingress.contains("shop/empty") && ingress.contains("shop/nobody"),
        "{ingress}"
    );
    assert!(!ingress.contains("out") && !ingress.contains("other"), "{ingress}");
    assert!(egress.contains("shop/outward") && !egress.contains("empty"), "{egress}");
    let series =
        "ringfence_dropped_packets_total{direction=\"ingress\",namespace=\"shop\",network=\"shop/blue\",pod=\"web\"}";
    let before = node.metric(series).unwrap_or_default();
    node.check(&[("shop/client", "shop/web", ringfence_testkit::Protocol::Tcp, 80, false)]);
    node.eventually("the drop is counted where it happened", || {
        let now = node.metric(series).unwrap_or_default();
        if now > before { Ok(()) } else { Err(format!("{now}")) }
    });
}
