//! `ringfence explain` and `ringfence reach`: text, JSON, exit codes, and that `docs/explain.md` shows what the program
//! prints.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use ringfence_testkit::ManifestFolder;
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_ringfence");

/// The folder that the transcripts' paths begin in.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn ringfence(arguments: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).current_dir(root()).env_remove("NO_COLOR");
    command.output().expect("it starts")
}

fn parts(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Arguments that are split at blanks, upon the example manifests.
fn explain(arguments: &str) -> (Option<i32>, String, String) {
    let mut all = vec!["explain", "-f", "docs/examples/explain"];
    all.extend(arguments.split_whitespace());
    parts(&ringfence(&all))
}

#[track_caller]
fn check(arguments: &str, expected: i32, out: &[&str]) {
    let (code, stdout, stderr) = explain(arguments);
    assert_eq!(code, Some(expected), "{arguments}\n{stdout}\n{stderr}");
    for part in out {
        assert!(stdout.contains(part), "{arguments}: {part:?} is not in\n{stdout}");
    }
}

/// A refusal prints nothing on standard output.
#[track_caller]
fn check_refused(arguments: &str, err: &[&str]) {
    let (code, stdout, stderr) = explain(arguments);
    assert_eq!((code, &*stdout), (Some(2), ""), "{arguments}\n{stderr}");
    for part in err {
        assert!(stderr.contains(part), "{arguments}: {part:?} is not in\n{stderr}");
    }
}

#[track_caller]
fn check_json(arguments: &str, expected: i32) -> Value {
    let (code, stdout, stderr) = explain(&format!("{arguments} -o json"));
    assert_eq!(code, Some(expected), "{arguments}\n{stdout}\n{stderr}");
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{arguments}: {error} in\n{stdout}"))
}

#[test]
fn s232_allowed_by_a_rule() {
    let question = "--from shop/client --to shop/web --port 8080/tcp --network net-a";
    check(
        question,
        0,
        &[
            "ALLOW TCP 8080 on network shop/net-a\n",
            "  from pod shop/client, net1, 10.20.1.11\n",
            "  to   pod shop/web, net1, 10.20.1.10\n",
            "egress of shop/client: allow, no policy isolates this interface in this direction\n",
            "ingress of shop/web: allow, a rule allows it\n",
            "  isolated by MultiNetworkPolicy shop/web\n",
            "  allowed by MultiNetworkPolicy shop/web ingress[0].from[0] ingress[0].ports[0]\n",
            "to do: nothing: it passes\n",
        ],
    );
    let json = check_json(question, 0);
    let expected = json!({
        "verdict": "allow",
        "because": "a rule allows it",
        "isolating": ["MultiNetworkPolicy shop/web"],
        "allowed_by": ["MultiNetworkPolicy shop/web ingress[0].from[0] ingress[0].ports[0]"],
    });
    assert_eq!(json["ingress"], expected);
}

#[test]
fn s232_denied_by_default() {
    let question = "--from shop/client --to shop/db --port 5432 --network net-a";
    check(
        question,
        1,
        &[
            "DENY TCP 5432",
            "ingress of shop/db: deny, the interface is isolated and no rule allows it",
            "isolated by MultiNetworkPolicy shop/db",
            "to do: give MultiNetworkPolicy shop/db, or another policy that selects this pod, a rule that allows TCP 5432 from \
             pod shop/client",
        ],
    );
    let json = check_json(question, 1);
    assert_eq!(json["ingress"]["near_misses"], json!([]));
    assert_eq!(json["ingress"]["isolating"], json!(["MultiNetworkPolicy shop/db"]));
}

#[test]
fn near_misses_by_port_come_before_those_by_peer() {
    check(
        "--from shop/client --to shop/web --port 80 --network shop/net-a",
        1,
        &[
            "near miss MultiNetworkPolicy shop/web ingress[0].ports[0]: it allows TCP 8080, not TCP 80\n  near miss \
             MultiNetworkPolicy shop/web ingress[1].from[0]: the clause is invalid",
            "rejected: MultiNetworkPolicy shop/web: spec.ingress[1].from[0].ipBlock.cidr: \"10.0.0.0/40\"",
            "to do: add TCP 80 to ingress[0].ports of MultiNetworkPolicy shop/web, or use a port that it allows",
        ],
    );
    let json = check_json("--from shop/db --to shop/web --port 8080 --network net-a", 1);
    let clauses: Vec<&str> = json["ingress"]["near_misses"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|miss| miss["clause"].as_str())
        .collect();
    let expected = ["ingress[0].from[0]", "ingress[1].from[0]", "ingress[0].from[1]"];
    assert_eq!(
        clauses,
        expected.map(|path| format!("MultiNetworkPolicy shop/web {path}"))
    );
    assert_eq!(json["diagnostics"][0]["reason"], "invalid_cidr");
    // Both ends deny.
    assert_eq!(json["egress"]["verdict"], "deny");
    let advice = json["advice"].as_str().expect("text");
    assert!(advice.starts_with("both ends must allow it: "), "{advice}");
}

#[test]
fn s154_an_address_on_another_network_is_a_near_miss() {
    check(
        "--from 10.30.1.11 --to shop/web --port 8080 --network net-a",
        1,
        &[
            "to do: use an address that pod shop/client has on network shop/net-a",
            "from 10.30.1.11, no pod's address",
            "egress of 10.30.1.11: allow, this end is no pod on this network",
            "pod shop/client would match, but the address is its address on network shop/net-b",
            "note: 10.30.1.11 is the address of pod shop/client on network shop/net-b",
        ],
    );
}

#[test]
fn json_has_the_fields_of_the_design() {
    let json = check_json("--from shop/client --to shop/web --port 80 --network net-a", 1);
    let keys = |value: &Value| -> Vec<String> { value.as_object().expect("an object").keys().cloned().collect() };
    let expected = [
        "verdict",
        "network",
        "protocol",
        "port",
        "from",
        "to",
        "egress",
        "ingress",
        "notes",
        "advice",
        "others",
        "not_judged",
        "diagnostics",
    ];
    assert_eq!(keys(&json), expected);
    assert_eq!(json["network"], "shop/net-a");
    assert_eq!((&json["protocol"], &json["port"]), (&json!("TCP"), &json!(80)));
    assert_eq!(
        json["from"],
        json!({"pod": "shop/client", "address": "10.20.1.11", "interface": "net1"})
    );
    assert_eq!(
        keys(&json["ingress"]),
        ["verdict", "because", "isolating", "allowed_by", "near_misses"]
    );
    assert_eq!(keys(&json["egress"]), ["verdict", "because", "isolating", "allowed_by"]);
    assert_eq!(
        json["ingress"]["near_misses"][0],
        json!({
            "clause": "MultiNetworkPolicy shop/web ingress[0].ports[0]",
            "why": "it allows TCP 8080, not TCP 80",
        })
    );
    let outside = check_json("--from 192.0.2.7 --to shop/web --port icmp --network net-a", 1);
    assert_eq!(
        outside["from"],
        json!({"pod": null, "address": "192.0.2.7", "interface": null})
    );
    assert_eq!((&outside["protocol"], &outside["port"]), (&json!("ICMP"), &Value::Null));
    let gre = check_json("--from shop/web --to shop/client --port ip/47 --network net-a", 0);
    assert_eq!((&gre["protocol"], &gre["number"]), (&json!("IP"), &json!(47)));
}

#[test]
fn several_networks_are_judged_each() {
    let question = "--from shop/client --to shop/web --port 80";
    check(
        question,
        1,
        &[
            "ALLOW TCP 80 on network default\n",
            "DENY TCP 80 on network shop/net-a\n",
            "to do on network shop/net-a: ",
        ],
    );
    let json = check_json(question, 1);
    assert_eq!(
        (&json["verdict"], &json["network"]),
        (&json!("deny"), &json!("shop/net-a"))
    );
    assert_eq!(json["others"][0]["network"], "default");
    assert_eq!(json["others"][0]["verdict"], "allow");
    // The primary interface is on `default` and on `cbr0`, and is judged once.
    assert_eq!(json["others"].as_array().map(Vec::len), Some(1));
    check(
        "--from shop/client --to shop/web --port 8080",
        0,
        &["on network default", "on network shop/net-a"],
    );
}

#[test]
fn ends_that_do_not_meet_are_told_their_networks() {
    check_refused(
        "--from shop/client --to shop/web --port 80 --network net-b",
        &[
            "the ends do not meet on network net-b: shop/client is on default, shop/net-a, shop/net-b",
            "shop/web is on default",
        ],
    );
    check_refused(
        "--from monitoring/sensor --to shop/web --port 80 --network net-a",
        &["monitoring/sensor is on default"],
    );
    check_refused(
        "--from 192.0.2.1 --to 192.0.2.2 --port 80",
        &["neither address belongs to a pod"],
    );
    check_refused(
        "--from shop/client --to shop/web --port 80 --network nte-a",
        &["the ends do not meet on network nte-a"],
    );
}

#[test]
fn unknown_pods_and_bad_ports_are_exit_code_2() {
    check_refused(
        "--from shop/clent --to shop/web --port 80",
        &["there is no pod shop/clent in these manifests; near names: shop/client"],
    );
    check_refused("--from shop/client --to bank/web --port 80", &["near names: shop/web"]);
    check_refused("--from shop/client --to shop/web --port 70000", &["from 1 to 65535"]);
    check_refused("--from shop/client --to shop/web --port http", &["80/tcp"]);
    check_refused("--from client --to shop/web --port 80", &["NAMESPACE/POD"]);
    check_refused(
        "--from shop/db --to shop/web --port icmpv6/128 --network net-a",
        &["ICMPv6 was asked about"],
    );
}

#[test]
fn s136_ipv6_is_judged_where_it_is_asked_for_or_all_there_is() {
    check(
        "--from shop/client --to shop/web --port 8080 --network net-a --ip-family 6",
        0,
        &["net1, fd00:20::11", "net1, fd00:20::10"],
    );
    check(
        "--from shop/client --to shop/web --port 8080 --network net-a",
        0,
        &["10.20.1.11", "note: both ends have IPv6 addresses there too"],
    );
    check(
        "--from fd00:20::11 --to shop/web --port 8080",
        0,
        &["pod shop/client, net1, fd00:20::11"],
    );
    check_refused(
        "--from shop/db --to shop/web --port 80 --network net-a --ip-family 6",
        &["shop/db has IPv4 there, and shop/web has IPv4 and IPv6; IPv6 was asked about"],
    );
}

#[test]
fn addresses_mean_the_pods_that_hold_them() {
    check(
        "--from 10.20.1.11 --to 10.20.1.10 --port 8080",
        0,
        &["pod shop/client, net1, 10.20.1.11", "pod shop/web, net1, 10.20.1.10"],
    );
    check(
        "--from 192.0.2.9 --to 10.20.1.10 --port 8080",
        0,
        &[
            "allowed by MultiNetworkPolicy shop/web ingress[0].from[1]",
            "note: no pod has 192.0.2.9 on network shop/net-a",
        ],
    );
    // From an address that no pod has, wherever the other end is.
    check(
        "--from shop/db --to 198.51.100.1 --port 443",
        1,
        &[
            "ALLOW TCP 443 on network default",
            "DENY TCP 443 on network shop/net-a",
            "add a peer for address 198.51.100.1",
        ],
    );
    check(
        "--from shop/web --to shop/web --port 1",
        0,
        &["a pod always reaches itself"],
    );
}

#[test]
fn s151_scope_and_node_addresses_are_those_of_render() {
    let folder = ManifestFolder::new().expect("a folder");
    let policy = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: closed, namespace: shop}\nspec: {podSelector: {}}\n";
    folder.save("policy.yaml", policy).expect("saved");
    let path = folder.path().to_str().expect("text");
    let base = format!("-f {path} --to shop/web --port 1 --network default");
    check(&format!("{base} --from shop/client"), 0, &["no policy isolates"]);
    check(
        &format!("{base} --from shop/client --network-policy-scope all"),
        1,
        &["isolated by NetworkPolicy shop/closed"],
    );
    let node = format!("{base} --from 172.16.0.1 --network-policy-scope all");
    check(&node, 1, &[]);
    check(
        &format!("{node} --node-address 172.16.0.1"),
        0,
        &["traffic from the pod's node"],
    );
}

#[test]
fn a_closed_pipe_is_no_failure() {
    for command in [
        "explain --from shop/client --to shop/web --port 8080",
        "reach --port 80",
    ] {
        let mut arguments: Vec<&str> = command.split(' ').collect();
        arguments.extend(["-f", "docs/examples/explain"]);
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut child = Command::new(PROGRAM);
        child
            .args(&arguments)
            .current_dir(root())
            .stdout(writer)
            .stderr(Stdio::null());
        assert_eq!(child.status().expect("it runs").code(), Some(0), "{command}");
    }
}

#[test]
fn text_out_of_manifests_makes_no_lines() {
    let folder = ManifestFolder::new().expect("a folder");
    let policy = "apiVersion: k8s.cni.cncf.io/v1beta1\nkind: MultiNetworkPolicy\nmetadata:\n  name: \"evil\\nALLOW\"\n  \
                  namespace: shop\n  annotations: {k8s.v1.cni.cncf.io/policy-for: net-a}\nspec: {podSelector: {}}\n";
    folder.save("policy.yaml", policy).expect("saved");
    let path = folder.path().to_str().expect("text");
    let (_, stdout, stderr) = explain(&format!(
        "-f {path} --from shop/client --to shop/web --port 1 --network net-a"
    ));
    assert!(
        !stdout.lines().skip(1).any(|line| line.starts_with("ALLOW")),
        "{stdout}"
    );
    assert!(!stderr.lines().any(|line| line.starts_with("ALLOW")), "{stderr}");
}

fn reach(arguments: &str) -> (Option<i32>, String, String) {
    let mut all = vec!["reach", "-f", "docs/examples/explain"];
    all.extend(arguments.split_whitespace());
    parts(&ringfence(&all))
}

#[test]
fn reach_draws_a_matrix() {
    let (code, stdout, _) = reach("--network net-a --port 8080");
    assert_eq!(code, Some(0));
    let expected = "\
TCP 8080 on network shop/net-a, from row to column:
                     1 2 3 4
1 monitoring/scraper + + i i
2 shop/client        + + i +
3 shop/db            + e + x
4 shop/web           + + i +

+ allowed   e denied by the sender's egress   i denied by the receiver's ingress
x denied by both   . no addresses of one IP family
";
    assert_eq!(stdout, expected);
    let (_, coloured, _) = reach("--network net-a --port 8080 --color always");
    assert!(
        coloured.contains("\u{1b}[32m+\u{1b}[0m \u{1b}[31me\u{1b}[0m"),
        "{coloured:?}"
    );
    let plain: String = ["\u{1b}[32m", "\u{1b}[31m", "\u{1b}[2m", "\u{1b}[0m"]
        .iter()
        .fold(coloured, |text, code| text.replace(code, ""));
    assert_eq!(plain, expected);
    let (_, rows, _) = reach("--network net-a --port 8080 --from-namespace shop --to-namespace monitoring");
    assert!(
        rows.contains("            1\n2 shop/client +\n3 shop/db     +\n4 shop/web    +\n\n1 is monitoring/scraper\n"),
        "{rows}"
    );
}

#[test]
fn reach_takes_every_network_and_several_ports() {
    let (code, stdout, stderr) = reach("--port 80 --port icmp -o json");
    assert_eq!(code, Some(0), "{stderr}");
    let json: Value = serde_json::from_str(&stdout).expect("JSON");
    let queries = json["queries"].as_array().expect("a list");
    let names: Vec<(&str, &str)> = queries
        .iter()
        .filter_map(|query| Some((query["network"].as_str()?, query["protocol"].as_str()?)))
        .collect();
    let expected = ["default", "shop/net-a", "shop/net-b", "cbr0"]
        .into_iter()
        .flat_map(|network| [(network, "TCP"), (network, "ICMP")]);
    assert!(names.iter().copied().eq(expected), "{names:?}");
    assert_eq!(queries[2]["cells"].as_array().map(Vec::len), Some(16));
    assert_eq!(
        queries[2]["cells"][2],
        json!({"from": "monitoring/scraper", "to": "shop/db", "egress": "allow", "ingress": "deny", "verdict": "deny"})
    );
    assert_eq!((&queries[1]["port"], &queries[0]["port"]), (&Value::Null, &json!(80)));
}

#[test]
fn reach_splits_wide_matrices_and_tells_twins_apart() {
    let folder = ManifestFolder::new().expect("a folder");
    let mut text = String::new();
    for number in 0..60 {
        let second = if number == 7 {
            format!(",{{\"name\":\"x/net\",\"interface\":\"net2\",\"ips\":[\"10.9.1.{number}\"]}}")
        } else {
            String::new()
        };
        write!(
            text,
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a-deployment-with-a-long-name-{number:02}\n  namespace: x\n  annotations:\n    \
             k8s.v1.cni.cncf.io/network-status: '[{{\"name\":\"x/net\",\"interface\":\"net1\",\"ips\":[\"10.9.0.{number}\"]}}{second}]'\n\
             spec: {{nodeName: n, containers: []}}\n---\n").expect("a String takes it");
    }
    folder.save("pods.yaml", &text).expect("saved");
    let path = folder.path().to_str().expect("text");
    let (code, stdout, stderr) = parts(&ringfence(&["reach", "-f", path, "--port", "80", "--network", "net"]));
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.lines().all(|line| line.chars().count() <= 80), "{stdout}");
    let rows = stdout.lines().filter(|line| line.starts_with(" 1 ")).count();
    assert_eq!(
        rows,
        61_usize.div_ceil((80 - 35) / 2) + 1,
        "a row in each block, and its key\n{stdout}"
    );
    assert!(
        stdout.contains(" 8 is x/a-deployment-with-a-long-name-07 net1\n"),
        "{stdout}"
    );
    let (_, stdout, _) = parts(&ringfence(&[
        "reach",
        "-f",
        path,
        "--port",
        "80",
        "--network",
        "net",
        "-o",
        "json",
    ]));
    let json: Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!(json["queries"][0]["cells"].as_array().map(Vec::len), Some(61 * 61));
    assert_eq!(json["queries"][0]["cells"][7]["to_interface"], "net1");
    assert_eq!(json["queries"][0]["cells"][8]["to_interface"], "net2");
    assert_eq!(json["queries"][0]["cells"][9]["to_interface"], Value::Null);
}

#[test]
fn reach_refuses_what_is_not_there() {
    for (arguments, part) in [
        ("--port 80 --network net-x", "there are default, shop/net-a"),
        ("--port 80 --network shop/nte-a", "near names: shop/net-"),
        ("--port 80 --from-namespace shpo", "there are pods in shop"),
        ("--port icmpv6/128", "ringfence explain"),
    ] {
        let (code, stdout, stderr) = reach(arguments);
        assert_eq!((code, &*stdout), (Some(2), ""), "{arguments}");
        assert!(stderr.contains(part), "{arguments}: {part:?} is not in\n{stderr}");
    }
}

/// What a terminal shows for the commands of one transcript.
fn transcript(commands: &[&str]) -> String {
    let mut out = String::new();
    let mut code = None;
    for command in commands {
        writeln!(out, "$ {command}").expect("a String takes it");
        if *command == "echo $?" {
            writeln!(out, "{}", code.expect("a command before it")).expect("a String takes it");
            continue;
        }
        let arguments: Vec<&str> = command.split_whitespace().collect();
        assert_eq!(arguments.first(), Some(&"ringfence"), "{command}");
        let (found, stdout, stderr) = parts(&ringfence(&arguments[1..]));
        code = found;
        out += &stderr;
        out += &stdout;
    }
    out
}

/// With `RINGFENCE_UPDATE_DOCS=1` in the environment the page is written instead.
#[test]
fn the_page_shows_what_the_program_prints() {
    let path = root().join("docs/explain.md");
    let page = std::fs::read_to_string(&path).expect("the page");
    let mut expected = String::new();
    let mut transcripts = 0;
    for (number, part) in page.split("```console\n").enumerate() {
        if number == 0 {
            expected += part;
            continue;
        }
        let (shown, rest) = part.split_once("```\n").expect("the end of a transcript");
        let commands: Vec<&str> = shown.lines().filter_map(|line| line.strip_prefix("$ ")).collect();
        write!(expected, "```console\n{}```\n{rest}", transcript(&commands)).expect("a String takes it");
        transcripts += 1;
    }
    assert!(transcripts >= 6, "{transcripts}");
    if std::env::var_os("RINGFENCE_UPDATE_DOCS").is_some() {
        std::fs::write(&path, &expected).expect("written");
    }
    assert_eq!(std::fs::read_to_string(&path).expect("the page"), expected);
}
