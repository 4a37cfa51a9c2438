//! Long-lived traffic, forged frames and manifests. Needs root, iproute2 and nft, and fails without them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ringfence_model::Family;
use ringfence_testkit::frame::Frame;
use ringfence_testkit::{
    Echo, Flow, Load, Network, Path, Pod, PodSpec, RawSender, Sniffer, Stream, Topology, Wiring, http_get,
};

/// Far more than anything here needs; only a failing test waits so long.
const LIMIT: Duration = Duration::from_secs(10);
const QUIET: Duration = Duration::from_millis(100);

const OPEN: &str = "delete table inet byhand";

/// A chain with these rules at a hook of the IP stack, as somebody types it.
fn by_hand(hook: &str, rules: &str) -> String {
    format!("table inet byhand {{\n chain c {{\n type filter hook {hook} priority 0;\n {rules}\n }}\n}}\n")
}

fn close() -> String {
    by_hand("input", "meta l4proto { tcp, udp } drop")
}

fn two_pods(name: &str) -> (Topology, Pod, Pod) {
    let mut topology = Topology::new(name).expect("a topology (are you root?)");
    topology
        .network(Network::new("net", Wiring::Bridge))
        .expect("a network");
    let specs = vec![
        PodSpec::genie("x/a").attach("eth0", "net"),
        PodSpec::genie("x/b").attach("eth0", "net"),
    ];
    let mut pods = topology.pods(specs).expect("pods");
    let b = pods.pop().expect("b");
    let a = pods.pop().expect("a");
    (topology, a, b)
}

fn check_flow(name: &str, load: Load, family: Family) {
    let (_topology, a, b) = two_pods(name);
    let path = Path::new(&a, &b, "net", family, 9000).expect("a path");
    let flow = Flow::open(&path, load).expect("a flow");
    b.nft(&close()).expect("close");
    let last = flow.wait_for_silence(QUIET, LIMIT).expect("it stops");
    let before = flow.arrived();
    assert!(before > 0);
    assert!(flow.arrived_since(last) > 0, "the last arrival counts");
    assert_eq!(
        flow.arrived_since(last + Duration::from_nanos(1)),
        0,
        "nothing after it"
    );
    b.nft(OPEN).expect("open");
    flow.wait_for_more(LIMIT).expect("it goes on");
    assert!(flow.arrived() > before);
    assert_eq!(flow.ended(), None);
}

#[test]
fn an_upload_stops_and_goes_on() {
    check_flow("netns-upload", Load::Upload, Family::V4);
}

#[test]
fn a_download_stops_and_goes_on() {
    check_flow("netns-download", Load::Download, Family::V6);
}

#[test]
fn a_flow_over_an_echo_server_stops_and_goes_on() {
    let (_topology, a, b) = two_pods("netns-echoflow");
    let _server = Echo::start(&b, &[9000]).expect("a server");
    let path = Path::new(&a, &b, "net", Family::V4, 9000).expect("a path");
    let flow = Flow::open_echo(&path).expect("a flow");
    // Only the answers are dropped: an echo needs both directions.
    a.nft(&close()).expect("close");
    flow.wait_for_silence(QUIET, LIMIT).expect("it stops");
    let before = flow.arrived();
    a.nft(OPEN).expect("open");
    flow.wait_for_more(LIMIT).expect("it goes on");
    assert!(flow.arrived() > before);
}

#[test]
fn servers_answer_http_too() {
    let (_topology, a, b) = two_pods("netns-http");
    let _server = Echo::start(&b, &[80]).expect("a server");
    let target = SocketAddr::new(b.address("net", Family::V4).expect("address"), 80);
    let response = a
        .netns
        .run(|| http_get(target, "/"))
        .expect("enter")
        .expect("an answer");
    assert_eq!(response.status, 200);
    assert!(response.body.starts_with("x/b 10.20.1.10:"), "{}", response.body);
}

#[test]
fn a_flow_on_a_closed_path_says_so() {
    let (_topology, a, b) = two_pods("netns-noflow");
    b.nft(&by_hand("input", "meta l4proto tcp reject with tcp reset"))
        .expect("nft");
    let path = Path::new(&a, &b, "net", Family::V4, 9000).expect("a path");
    let error = format!("{:#}", Flow::open(&path, Load::Upload).expect_err("closed"));
    assert!(error.contains("x/a → x/b"), "{error}");
}

#[test]
fn a_stream_tells_when_it_was_blocked_and_let_through() {
    let (_topology, a, b) = two_pods("netns-stream");
    let path = Path::new(&a, &b, "net", Family::V4, 9000).expect("a path");
    let stream = Stream::start(&path, Duration::from_micros(500)).expect("a stream");
    let start = Instant::now();
    let open = stream.wait_open(start, LIMIT).expect("open at first");
    assert!(open >= start);
    let closing = Instant::now();
    b.nft(&close()).expect("close");
    let closed = Instant::now();
    let blocked = stream.wait_blocked(closing, QUIET, LIMIT).expect("blocked");
    assert!(blocked >= closing, "nothing was lost before the rule");
    // Between two datagrams at most: what was sent after the rule was in is lost.
    assert!(stream.wait_open(closed, QUIET).is_err(), "a datagram passed the rule");
    let opening = Instant::now();
    b.nft(OPEN).expect("open");
    assert!(stream.wait_open(opening, LIMIT).expect("open again") >= opening);
    let (sent, arrived) = stream.counts();
    assert!(arrived > 0 && arrived < sent, "{arrived} of {sent}");
}

/// A rule in `output` does not see frames of packet sockets; a sniffer at the other end does.
fn check_frames(name: &str, family: Family, bypass: bool) {
    let (_topology, a, b) = two_pods(name);
    // Not neighbour discovery, which the answers to forged IPv6 frames need.
    a.nft(&by_hand("output", "meta l4proto != ipv6-icmp drop"))
        .expect("nft");
    let sniffer = Sniffer::start(&b, "eth0").expect("a sniffer");
    let mut sender = RawSender::open(&a, "eth0").expect("a raw sender");
    if bypass {
        sender = sender.bypass_queue().expect("bypass");
    }
    let address = |pod: &Pod| pod.address("net", family).expect("address");
    let frame = |port: u16| Frame {
        source_mac: a.interfaces[0].mac,
        target_mac: b.interfaces[0].mac,
        source: (address(&a), 4000).into(),
        target: (address(&b), port).into(),
    };
    for (protocol, bytes) in [
        (17, frame(1).udp(b"hello")),
        (6, frame(1).tcp_syn()),
        (132, frame(1).sctp_init()),
    ] {
        sender.send(&bytes).expect("send");
        let packet = sniffer
            .wait_for(LIMIT, |packet| packet.protocol == protocol)
            .unwrap_or_else(|| panic!("protocol {protocol} does not arrive"));
        assert_eq!((packet.source, packet.target), (frame(1).source, frame(1).target));
    }
    // Ordinary traffic is stopped by the same rule; the frame after it shows that it would have been here by now.
    let path = Path::new(&a, &b, "net", family, 2).expect("a path");
    path.udp().ask().expect("ask");
    sender.send(&frame(3).udp(b"marker")).expect("send");
    sniffer
        .wait_for(LIMIT, |packet| packet.target.port() == 3)
        .expect("the marker");
    assert!(
        !sniffer.saw(|packet| packet.target.port() == 2),
        "the rule let a datagram out"
    );
    // The kernel of the other end accepts the forged checksums: it answers the SYN with a reset.
    let back = Sniffer::start(&a, "eth0").expect("a sniffer");
    sender.send(&frame(4).tcp_syn()).expect("send");
    back.wait_for(LIMIT, |packet| packet.protocol == 6 && packet.source.port() == 4)
        .expect("a reset");
}

#[test]
fn forged_frames_arrive() {
    check_frames("netns-frames4", Family::V4, false);
    check_frames("netns-frames6", Family::V6, true);
}

#[test]
fn manifests_of_both_dialects() {
    let mut topology = Topology::new("netns-manifests").expect("a topology (are you root?)");
    topology
        .network(Network::new("canal", Wiring::Routed))
        .expect("a network");
    topology
        .network(Network::new("weave", Wiring::Bridge).ipv4_only())
        .expect("a network");
    topology
        .network(Network::new("x/storage", Wiring::Macvlan))
        .expect("a network");
    let specs = vec![
        PodSpec::genie("x/web")
            .label("app", "web")
            .port("http", "TCP", 80)
            .attach("eth0", "canal")
            .attach("eth1", "weave"),
        PodSpec::genie("x/named")
            .attach("eth0", "canal")
            .attach("data", "weave"),
        PodSpec::multus("x/disk")
            .attach("eth0", "canal")
            .attach("net1", "x/storage")
            .attach("fast", "x/storage"),
    ];
    let pods = topology.pods(specs).expect("pods");
    let web = pods[0].manifest().expect("manifest").0;
    let notes = &web["metadata"]["annotations"];
    assert_eq!(notes["cni"], "canal,weave");
    assert_eq!(
        notes["multi-ip-preferences"],
        r#"{"multi_entry":2,"ips":{"ip1":{"ip":"10.20.1.10","interface":"eth0"},"ip2":{"ip":"10.21.1.10","interface":"eth1"}}}"#
    );
    assert_eq!(web["status"]["podIP"], "10.20.1.10");
    assert_eq!(web["status"]["podIPs"][1]["ip"], "fd00:20::1:10");
    assert_eq!(web["spec"]["nodeName"], "node1");
    assert_eq!(web["spec"]["containers"][0]["ports"][0]["containerPort"], 80);
    let named = pods[1].manifest().expect("manifest").0;
    assert_eq!(named["metadata"]["annotations"]["cni"], "canal@eth0,weave@data");

    let disk = pods[2].manifest().expect("manifest").0;
    let notes = &disk["metadata"]["annotations"];
    assert_eq!(notes["k8s.v1.cni.cncf.io/networks"], "x/storage,x/storage@fast");
    let text = notes["k8s.v1.cni.cncf.io/network-status"].as_str().expect("text");
    let status: serde_json::Value = serde_json::from_str(text).expect("JSON");
    assert_eq!(status[0]["default"], true);
    assert_eq!(status[1]["name"], "x/storage");
    assert_eq!(status[2]["interface"], "fast");
    assert_eq!(status[2]["ips"], serde_json::json!(["10.22.1.112", "fd00:22::1:112"]));

    let changed = pods[0].with_label("access", "true").manifest().expect("manifest").0;
    assert_eq!(
        changed["metadata"]["labels"],
        serde_json::json!({"access": "true", "app": "web"})
    );
    assert_eq!(changed["metadata"]["uid"], web["metadata"]["uid"]);
    let storage = topology.networks()[2].manifest().expect("manifest").0;
    assert!(storage["spec"]["config"].as_str().expect("text").contains("macvlan"));
}
