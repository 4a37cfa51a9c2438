//! Every route on hand-made snapshots.

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::body::{Body, to_bytes};
use axum::http::{Request, Response, StatusCode, header};
use ringfence_model::{
    Coverage, NamespacedName, NetworkName, Object, Peer, Peers, Pod, Policy, PortMatch, PortRange, Ports, Protocol,
    Reason, Rule, Selector,
};
use ringfence_policy::{Index, Locality, Options};
use ringfence_ruleset::KernelFeatures;
use serde_json::{Value, json};
use tokio::sync::mpsc::unbounded_channel;
use tower::ServiceExt as _;

use super::{Readers, health_router, router};
use crate::drops::Drops;
use crate::event::{Event, Query};
use crate::findings::{Finder, Findings};
use crate::metrics::Metrics;
use crate::snapshot::{Snapshot, State};
use crate::testing::{add, finding, guard, pod, sample, source, status};
use crate::watches::Watches;

/// Two pods of one name, one pending, one refused, and findings.
fn busy() -> Snapshot {
    let mut snapshot = sample();
    add(&mut snapshot, status("shop", "httpd", State::Open));
    let missing = State::Pending("no network namespace at /run/netns/bank.httpd".into());
    add(&mut snapshot, status("bank", "httpd", missing));
    let mut refused = status("bank", "ledger", State::Failed("EPERM".into()));
    refused.in_kernel.clone_from(&refused.wanted);
    add(&mut snapshot, refused);
    let guard = source("MultiNetworkPolicy", "shop/guard");
    let mut findings = Findings::default();
    let mut bad = finding(&guard, "spec.ingress[0].from[1].ipBlock.cidr", Reason::InvalidCidr);
    bad.message = "\"10.0.0.0/40\" is no CIDR\ntable inet evil {}".to_owned();
    findings.replace(Finder::Source, &guard, vec![bad]);
    let broken = source("NetworkPolicy", "shop/broken");
    findings.replace(Finder::Source, &broken, vec![finding(&broken, "spec", Reason::Schema)]);
    snapshot.findings = findings.standing().clone();
    snapshot
}

/// Two pods that `shop/guard` selects, one of their namespace's neighbour, and one of a name that two namespaces have.
fn cluster() -> Index {
    let with_address = |mut pod: Pod, last: u8| {
        pod.attachments[0].addresses = [[10, 0, 0, last].into()].into();
        pod.attachments[1].addresses = [[10, 20, 1, last].into()].into();
        Object::Pod(pod)
    };
    let net_a = NetworkName::Namespaced(NamespacedName::new("shop", "net-a"));
    let everybody_of_the_namespace = Peer::Pods {
        namespaces: None,
        pods: Selector::everything(),
    };
    let guard = Policy {
        key: guard(),
        coverage: Coverage::Networks([net_a].into()),
        target: Some(Selector::everything()),
        ingress: Some(vec![Rule {
            peers: Peers::OneOf(vec![everybody_of_the_namespace, Peer::Nothing]),
            ports: Ports::OneOf(vec![PortMatch::Range(PortRange::single(Protocol::Tcp, 80))]),
        }]),
        egress: None,
    };
    let objects = [
        with_address(pod("shop", "web"), 10),
        with_address(pod("shop", "remote"), 11),
        with_address(pod("bank", "ledger"), 12),
        with_address(pod("bank", "httpd"), 13),
        with_address(pod("shop", "httpd"), 14),
        Object::Policy(guard),
    ];
    let mut index = Index::new(Options {
        locality: Locality::Node("n1".into()),
        scope: ringfence_model::Scope::Secondary,
        kernel: KernelFeatures::ALL,
        node_addresses: std::collections::BTreeSet::new(),
    });
    for object in objects {
        index.apply(object);
    }
    index
}

fn readers(snapshot: Snapshot) -> Readers {
    let (events, mut queue) = unbounded_channel();
    // A loop that knows one pod elsewhere.
    tokio::spawn(async move {
        while let Some(event) = queue.recv().await {
            let Event::Query(query) = event else { continue };
            match query {
                Query::Locate {
                    namespace,
                    name,
                    answer,
                } => {
                    let n2 = |namespace: &str| (NamespacedName::new(namespace, &*name), Some("n2".into()));
                    let known = match (namespace.as_deref(), &*name) {
                        (_, "remote" | "system") => vec![n2("shop")],
                        (None, "ledger") => vec![n2("bank")],
                        (None, "httpd") => vec![n2("bank"), n2("shop")],
                        _ => Vec::new(),
                    };
                    drop(answer.send(known));
                }
                Query::Explain { parties, answer } => drop(answer.send(cluster().shared_slice(&parties))),
            }
        }
    });
    Readers {
        snapshots: Arc::new(ArcSwap::from_pointee(snapshot)),
        events,
        metrics: Arc::new(Metrics::new().expect("it registers")),
        drops: Arc::new(Drops::default()),
        watches: Watches::default(),
    }
}

async fn get(snapshot: Snapshot, path: &str, accept: Option<&str>) -> (StatusCode, String) {
    let mut request = Request::get(path);
    if let Some(accept) = accept {
        request = request.header(header::ACCEPT, accept);
    }
    let request = request.body(Body::empty()).expect("a request");
    let response = router(readers(snapshot)).oneshot(request).await.expect("infallible");
    read(response).await
}

async fn read(response: Response<Body>) -> (StatusCode, String) {
    let status = response.status();
    assert!(response.headers().get(header::LOCATION).is_none());
    let body = to_bytes(response.into_body(), usize::MAX).await.expect("a body");
    (status, String::from_utf8(body.to_vec()).expect("text"))
}

async fn check(path: &str, expected: StatusCode, parts: &[&str]) {
    let (status, body) = get(busy(), path, None).await;
    assert_eq!(status, expected, "{path}: {body}");
    for part in parts {
        assert!(body.contains(part), "{path}: {part:?} is not in\n{body}");
    }
}

async fn check_json(path: &str, accept: Option<&str>, expected: StatusCode) -> Value {
    let (status, body) = get(busy(), path, accept).await;
    assert_eq!(status, expected, "{path}: {body}");
    serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error} in {body}"))
}

#[tokio::test]
async fn the_index_lists_every_route() {
    let routes = [
        "/pods/{name}/rules",
        "/namespaces/{namespace}/pods/{name}",
        "/policies",
        "/networks",
        "/explain",
        "/metrics",
    ];
    check("/", StatusCode::OK, &routes).await;
    check(
        "/pod",
        StatusCode::NOT_FOUND,
        &["There is no route /pod; / lists all of them."],
    )
    .await;
}

#[tokio::test]
async fn pods_are_listed_with_state_and_reason() {
    let (status, body) = get(busy(), "/pods", None).await;
    assert_eq!(status, StatusCode::OK);
    let lines: Vec<Vec<&str>> = body.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        lines[0],
        ["NAMESPACE", "NAME", "STATE", "SINCE", "INGRESS", "EGRESS", "REASON"]
    );
    assert_eq!(lines[1][..3], ["bank", "httpd", "pending"]);
    assert_eq!(lines[2][..3], ["bank", "ledger", "failed"]);
    assert_eq!(lines[2].last(), Some(&"EPERM"));
    assert_eq!(lines[3][..3], ["shop", "httpd", "open"]);
    assert_eq!(lines[3][4..], ["<none>", "<none>"]);
    assert_eq!(lines[4][..3], ["shop", "web", "enforced"]);
    assert_eq!(lines[4][4..], ["net1", "<none>"]);
    let json = check_json("/pods?output=json", None, StatusCode::OK).await;
    assert_eq!(json.as_array().map(Vec::len), Some(4));
    assert_eq!(
        json[3]["isolation"][0]["policies"],
        json!(["MultiNetworkPolicy shop/guard"])
    );
}

#[tokio::test]
async fn one_pod_shows_its_networks_policies_and_findings() {
    let parts = [
        "pod shop/web (uid uid-shop.web) on node n1",
        "state: enforced since 2025-01-01T00:00:00Z",
        "interface eth0: default; 10.0.0.10; primary",
        "interface net1: shop/net-a; 10.20.1.10",
        "ingress on net1 (shop/net-a) isolated by MultiNetworkPolicy shop/guard",
        "note: MultiNetworkPolicy shop/guard: spec.ingress[0].from[1].ipBlock.cidr:",
    ];
    check("/pods/web", StatusCode::OK, &parts).await;
    check("/namespaces/shop/pods/web", StatusCode::OK, &parts).await;
}

#[tokio::test]
async fn rules_are_nft_text_under_a_header_of_comments() {
    for path in ["/pods/web/rules", "/namespaces/shop/pods/web/rules"] {
        let (status, body) = get(busy(), path, None).await;
        assert_eq!(status, StatusCode::OK);
        let header: Vec<&str> = body.lines().take_while(|line| line.starts_with("# ")).collect();
        assert_eq!(header[0], "# pod shop/web (uid uid-shop.web) on node n1");
        assert_eq!(header.last(), Some(&"# rules: in force"));
        let rest: Vec<&str> = body.lines().skip(header.len()).collect();
        assert!(rest[0].starts_with("table inet ringfence {"), "{body}");
        assert!(
            rest.iter().all(|line| !line.contains("evil")),
            "a message broke out of its comment:\n{body}"
        );
    }
}

#[tokio::test]
async fn rules_say_whether_they_are_in_force() {
    check(
        "/namespaces/bank/pods/httpd/rules",
        StatusCode::OK,
        &["# rules: wanted, NOT in force", "table inet"],
    )
    .await;
    check(
        "/pods/ledger/rules",
        StatusCode::OK,
        &["# rules: those that were in force before and still are"],
    )
    .await;
    let (_, body) = get(busy(), "/namespaces/shop/pods/httpd/rules", None).await;
    assert!(body.lines().all(|line| line.starts_with("# ")), "{body}");
    assert!(body.contains("# rules: none, everything passes"), "{body}");
}

#[tokio::test]
async fn rules_are_json_on_request() {
    for (path, accept) in [
        ("/pods/web/rules?output=json", None),
        ("/pods/web/rules", Some("application/json")),
    ] {
        let json = check_json(path, accept, StatusCode::OK).await;
        assert_eq!(json["name"], "web");
        assert_eq!(json["state"], "enforced");
        assert_eq!(json["rules"], "in force");
        assert!(
            json["ruleset"]
                .as_str()
                .is_some_and(|text| text.starts_with("table inet ringfence {")),
            "{json}"
        );
        assert_eq!(json["interfaces"][1]["networks"], json!(["shop/net-a"]));
        assert_eq!(json["diagnostics"][0]["reason"], "invalid_cidr");
    }
    let open = check_json("/namespaces/shop/pods/httpd/rules?output=json", None, StatusCode::OK).await;
    assert_eq!(open["ruleset"], Value::Null);
    let (status, body) = get(busy(), "/pods/web/rules?output=text", Some("application/json")).await;
    assert_eq!(status, StatusCode::OK);
    assert!(body.starts_with("# pod shop/web"), "{body}");
}

#[tokio::test]
async fn a_name_in_several_namespaces_answers_300_with_the_urls() {
    let urls = [
        "/namespaces/bank/pods/httpd/rules\n",
        "/namespaces/shop/pods/httpd/rules\n",
    ];
    check("/pods/httpd/rules", StatusCode::MULTIPLE_CHOICES, &urls).await;
    let json = check_json("/pods/httpd?output=json", None, StatusCode::MULTIPLE_CHOICES).await;
    assert_eq!(
        json,
        json!(["/namespaces/bank/pods/httpd", "/namespaces/shop/pods/httpd"])
    );
}

#[tokio::test]
async fn unknown_pods_get_a_sentence_that_helps() {
    let near = [
        "There is no pod named htpd on node n1.",
        "Near names: bank/httpd, shop/httpd.",
    ];
    check("/pods/htpd/rules", StatusCode::NOT_FOUND, &near).await;
    let elsewhere = ["shop/remote is on node n2, not on this node"];
    check("/pods/remote", StatusCode::NOT_FOUND, &elsewhere).await;
    check(
        "/namespaces/bank/pods/web",
        StatusCode::NOT_FOUND,
        &["There is no pod bank/web", "shop/web"],
    )
    .await;
    let json = check_json("/pods/htpd", Some("application/json"), StatusCode::NOT_FOUND).await;
    assert!(
        json["error"].as_str().is_some_and(|text| text.contains("Near names")),
        "{json}"
    );
}

#[tokio::test]
async fn a_bad_output_is_refused() {
    for path in [
        "/pods",
        "/pods/web",
        "/pods/web/rules",
        "/policies",
        "/networks",
        "/explain",
    ] {
        let path = format!("{path}?output=yaml");
        check(
            &path,
            StatusCode::BAD_REQUEST,
            &["There is no output \"yaml\": it is text or json."],
        )
        .await;
    }
}

#[tokio::test]
async fn policies_and_networks_are_listed() {
    let (_, body) = get(busy(), "/policies", None).await;
    let row: Vec<&str> = body.lines().nth(1).expect("a row").split_whitespace().collect();
    let expected = [
        "MultiNetworkPolicy",
        "shop",
        "guard",
        "shop/net-a",
        "3",
        "-",
        "partly",
        "rejected",
    ];
    assert_eq!(row, expected, "{body}");
    assert!(body.contains("10.0.0.0/40"), "{body}");
    let json = check_json("/policies?output=json", None, StatusCode::OK).await;
    assert_eq!(json[0]["ingress"], 3);
    assert_eq!(json[0]["egress"], Value::Null);
    assert_eq!(json[0]["state"], "partly_rejected");
    assert_eq!(json[1]["name"], "broken");
    assert_eq!(json[1]["state"], "rejected");
    assert_eq!(json[1]["diagnostics"][0]["reason"], "schema");
    let metric = "ringfence_policies{kind=\"NetworkPolicy\",state=\"rejected\"} 1";
    check("/metrics", StatusCode::OK, &[metric]).await;
    let networks = ["shop/net-a", "NetworkAttachmentDefinition"];
    check("/networks", StatusCode::OK, &networks).await;
    let json = check_json("/networks?output=json", None, StatusCode::OK).await;
    assert_eq!(json[0]["interfaces"], 4);
}

#[tokio::test]
async fn readiness_names_what_is_pending() {
    let pending = "[pending] pod bank/httpd: no network namespace at /run/netns/bank.httpd";
    check(
        "/readyz",
        StatusCode::OK,
        &["ok\n", pending, "[failed] pod bank/ledger: EPERM"],
    )
    .await;
    let verbose = ["[ok] source dir:/etc/manifests", "[ok] pod shop/web: enforced", pending];
    check("/readyz?verbose", StatusCode::OK, &verbose).await;
    let (_, terse) = get(busy(), "/readyz", None).await;
    assert!(!terse.contains("[ok]"), "{terse}");

    let mut unsynced = busy();
    unsynced.synced = false;
    let (status, body) = get(unsynced, "/readyz", None).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(
        body.starts_with("not ready\n[pending] source dir:/etc/manifests:")
            && body.contains("no pod's rules are touched"),
        "{body}"
    );

    let mut unsettled = busy();
    unsettled.settled = false;
    let (status, body) = get(unsettled, "/readyz", None).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body.contains(pending), "{body}");
    check("/livez", StatusCode::OK, &["ok"]).await;
}

#[tokio::test]
async fn the_second_server_has_metrics_and_health_only() {
    let server = health_router(readers(busy()));
    for (path, expected) in [
        ("/metrics", StatusCode::OK),
        ("/livez", StatusCode::OK),
        ("/readyz", StatusCode::OK),
        ("/pods", StatusCode::NOT_FOUND),
        ("/pods/web/rules", StatusCode::NOT_FOUND),
    ] {
        let request = Request::get(path).body(Body::empty()).expect("a request");
        let (status, body) = read(server.clone().oneshot(request).await.expect("infallible")).await;
        assert_eq!(status, expected, "{path}: {body}");
    }
    check(
        "/metrics",
        StatusCode::OK,
        &["ringfence_pods{state=\"failed\"} 1", "process_open_fds"],
    )
    .await;
}

#[tokio::test]
async fn verdicts_are_explained() {
    check(
        "/explain?from=shop/remote&to=shop/web&port=80/tcp&network=net-a",
        StatusCode::OK,
        &[
            "ALLOW TCP 80 on network shop/net-a\n",
            "allowed by MultiNetworkPolicy shop/guard ingress[0].from[0] ingress[0].ports[0]",
            "rejected: MultiNetworkPolicy shop/guard: spec.ingress[0].from[1].ipBlock.cidr: \"10.0.0.0/40\"",
        ],
    )
    .await;
    let denied = "/explain?from=shop/remote&to=shop/web&port=81";
    for (path, accept) in [
        (format!("{denied}&output=json"), None),
        (denied.to_owned(), Some("application/json")),
    ] {
        let json = check_json(&path, accept, StatusCode::OK).await;
        assert_eq!(
            (&json["verdict"], &json["network"]),
            (&json!("deny"), &json!("shop/net-a"))
        );
        assert_eq!(json["others"][0]["network"], "default");
        let miss = json!({
            "clause": "MultiNetworkPolicy shop/guard ingress[0].ports[0]",
            "why": "it allows TCP 80, not TCP 81",
        });
        assert_eq!(json["ingress"]["near_misses"], json!([miss]));
        assert_eq!(json["diagnostics"][0]["reason"], "invalid_cidr");
    }
    // What is broken elsewhere is none of this question's business; one name is enough where it is the only one.
    let (_, body) = get(
        busy(),
        "/explain?from=ledger&to=10.20.1.10&port=80&network=shop/net-a",
        None,
    )
    .await;
    assert!(
        body.starts_with("DENY TCP 80 on network shop/net-a\n  from pod bank/ledger, net1"),
        "{body}"
    );
    assert!(
        body.contains("the namespace of pod bank/ledger does not match"),
        "{body}"
    );
    let (_, body) = get(busy(), "/explain?from=bank/ledger&to=bank/httpd&port=80", None).await;
    assert!(!body.contains("rejected:"), "{body}");
}

#[tokio::test]
async fn questions_that_make_no_sense_get_a_sentence_that_helps() {
    let ask = |rest: &str| format!("/explain?{rest}");
    let pods = "from=shop/remote&to=shop/web";
    for (path, expected, part) in [
        (
            ask("to=shop/web&port=80"),
            StatusCode::BAD_REQUEST,
            "The parameter from is missing; an example: /explain?from=",
        ),
        (ask(pods), StatusCode::BAD_REQUEST, "The parameter port is missing"),
        (
            ask(&format!("{pods}&port=http")),
            StatusCode::BAD_REQUEST,
            "is no port: it is 80, 80/tcp",
        ),
        (
            ask(&format!("{pods}&port=80&family=5")),
            StatusCode::BAD_REQUEST,
            "it is 4 or 6",
        ),
        (
            ask(&format!("{pods}&port=80&network=a/b/c")),
            StatusCode::BAD_REQUEST,
            "is no network",
        ),
        (
            ask("from=a/b/c&to=shop/web&port=80"),
            StatusCode::BAD_REQUEST,
            "NAMESPACE/POD",
        ),
        (
            ask("from=shop/wep&to=shop/web&port=80"),
            StatusCode::NOT_FOUND,
            "There is no pod shop/wep in the cluster.",
        ),
        (
            ask("from=shop/wep&to=shop/web&port=80"),
            StatusCode::NOT_FOUND,
            "shop/web.",
        ),
        (
            ask("from=wep&to=shop/web&port=80"),
            StatusCode::NOT_FOUND,
            "There is no pod named wep",
        ),
        (
            ask("from=shop/system&to=shop/web&port=80"),
            StatusCode::UNPROCESSABLE_ENTITY,
            "shares its node's network",
        ),
        (
            ask(&format!("{pods}&port=80&network=net-b")),
            StatusCode::UNPROCESSABLE_ENTITY,
            "The ends do not meet on network net-b: shop/remote is on default, shop/net-a",
        ),
        (
            ask(&format!("{pods}&port=80&family=6")),
            StatusCode::UNPROCESSABLE_ENTITY,
            "IPv6 was asked about",
        ),
    ] {
        check(&path, expected, &[part]).await;
    }
    let json = check_json(&ask(&format!("{pods}&output=json")), None, StatusCode::BAD_REQUEST).await;
    assert!(json["error"].is_string(), "{json}");
    let urls = [
        "/explain?from=bank/httpd&to=shop/web&port=80/tcp&network=a%26b\n",
        "/explain?from=shop/httpd&to=shop/web&port=80/tcp&network=a%26b\n",
    ];
    let path = ask("from=httpd&to=shop/web&port=80/tcp&network=a%26b");
    check(&path, StatusCode::MULTIPLE_CHOICES, &urls).await;
}
