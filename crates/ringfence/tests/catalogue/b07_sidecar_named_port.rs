//! B7: k/k#125285, calico#8881, kube-ovn#4994.
//!
//! A sidecar is an init container with `restartPolicy: Always`; engines looked for port names in `containers` only, so a
//! rule for the sidecar's port closed it. Its ports count, those of ordinary init containers do not (statement 94).
//! Shown in both directions.

use serde_json::json;

use crate::support::manifest::{BLUE, blue, multi};
use crate::support::world::World;

fn world(spec: &str) -> World {
    let mut web = blue("shop/web", 10, "app=web").port("http", "TCP", 80);
    web.value["spec"]["initContainers"] = json!([
        {"name": "setup", "image": "x", "ports": [{"name": "setup", "containerPort": 7000}]},
        {"name": "proxy", "image": "x", "restartPolicy": "Always",
         "ports": [{"name": "proxy", "containerPort": 15001}, {"name": "stats", "containerPort": 15020, "protocol": "UDP"}]},
    ]);
    World::of([
        web.yaml(),
        blue("shop/client", 11, "app=client").yaml(),
        multi("shop/guard", BLUE, spec),
    ])
}

#[test]
fn s094_the_ports_of_a_restartable_init_container_have_names() {
    let ports = "[{port: proxy}, {protocol: UDP, port: stats}, {port: setup}]";
    let ingress = format!("{{podSelector: {{matchLabels: {{app: web}}}}, ingress: [{{ports: {ports}}}]}}");
    let egress = format!(
        "{{podSelector: {{matchLabels: {{app: client}}}}, policyTypes: [Egress], egress: [{{ports: {ports}}}]}}"
    );
    for spec in [ingress, egress] {
        world(&spec).check(
            BLUE,
            &[
                ("shop/client", "shop/web", "15001/tcp", true),
                ("shop/client", "shop/web", "15020/udp", true),
                ("shop/client", "shop/web", "15020/tcp", false),
                ("shop/client", "shop/web", "7000/tcp", false),
                ("shop/client", "shop/web", "80/tcp", false),
            ],
        );
    }
}
