//! Group G: ports and protocols.

use super::*;

fn one(ports: Vec<PortMatch>) -> [PolicyBuilder; 1] {
    [guard().ingress([rule([pods_in("", "")], ports)])]
}

#[test]
fn s079_s080_s081_s082_b25_whole_protocols() {
    check(
        one(vec![whole(Protocol::Tcp)]),
        &["y/a > x/a tcp/1 tcp/65535: yes", "y/a > x/a udp/1 sctp/1 ping gre: no"],
    );
    check(
        one(vec![whole(Protocol::Tcp), tcp(80)]),
        &["y/a > x/a tcp/80 tcp/81: yes", "y/a > x/a udp/80: no"],
    );
    check(
        one(vec![whole(Protocol::Udp), udp(80)]),
        &["y/a > x/a udp/80 udp/81: yes", "y/a > x/a tcp/80 tcp/81: no"],
    );
    check(
        one(vec![PortMatch::Range(ringfence_model::PortRange::single(
            Protocol::Sctp,
            80,
        ))]),
        &["y/a > x/a sctp/80: yes", "y/a > x/a tcp/80 udp/80 sctp/81: no"],
    );
    check(
        one(vec![whole(Protocol::Sctp)]),
        &["y/a > x/a sctp/1 sctp/65535: yes", "y/a > x/a tcp/1 udp/1: no"],
    );
}

#[test]
fn s085_s088_b21_ranges() {
    check(
        one(vec![tcp_range(80, 90)]),
        &[
            "y/a > x/a tcp/80 tcp/85 tcp/90: yes",
            "y/a > x/a tcp/79 tcp/91 udp/85: no",
        ],
    );
    check(
        one(vec![tcp_range(80, 80)]),
        &["y/a > x/a tcp/80: yes", "y/a > x/a tcp/79 tcp/81: no"],
    );
    check(
        one(vec![tcp_range(1, 65535)]),
        &["y/a > x/a tcp/1 tcp/65535: yes", "y/a > x/a udp/1: no"],
    );
    check(
        one(vec![tcp_range(80, 100), tcp_range(90, 110), tcp(95), tcp(110)]),
        &[
            "y/a > x/a tcp/80 tcp/95 tcp/105 tcp/110: yes",
            "y/a > x/a tcp/79 tcp/111: no",
        ],
    );
    let many: Vec<PortMatch> = (0..20)
        .map(|step| tcp(1000 + 2 * step))
        .chain([udp(53), tcp_range(80, 90)])
        .collect();
    check(
        one(many),
        &[
            "y/a > x/a tcp/1000 tcp/1038 udp/53 tcp/85: yes",
            "y/a > x/a tcp/1001 udp/1000 tcp/53 ping: no",
        ],
    );
}

#[test]
fn s083_s084_the_destination_port_counts_and_no_source_port() {
    // 40000 is the client's port in every packet that the tests send.
    check(
        one(vec![tcp(40_000)]),
        &["y/a > x/a tcp/80: no", "y/a > x/a tcp/40000: yes"],
    );
    let out = guard().egress([rule([pods_in("", "")], [tcp(40_000)])]);
    check([out], &["x/a > y/a tcp/80: no", "x/a > y/a tcp/40000: yes"]);
    let out = guard().egress([rule([pods_in("", "")], [tcp(80)])]);
    check([out], &["x/a > y/a tcp/80: yes", "x/a > y/a tcp/40000: no"]);
}

#[test]
fn s099_numbers_need_no_declaration() {
    // No pod of the plan declares a port.
    check(one(vec![tcp(80)]), &["y/a > x/a tcp/80: yes"]);
    let out = guard().egress([rule([pods_in("", "")], [tcp(80)])]);
    check([out], &["x/a > y/a tcp/80: yes"]);
    // One that declares others has the same rights.
    let mut index = index_of(one(vec![tcp(80)]));
    index.apply(member("x/a").port("http", Protocol::Tcp, 8080).into());
    index.commit();
    check_index(&index, &["y/a > x/a tcp/80: yes", "y/a > x/a tcp/8080: no"]);
}

fn http() -> PortMatch {
    named("http", Protocol::Tcp)
}

fn with(name: &str, ports: &[(Protocol, u16)]) -> Object {
    ports
        .iter()
        .fold(member(name), |pod, (protocol, port)| pod.port("http", *protocol, *port))
        .into()
}

fn declared(policy: PolicyBuilder) -> World {
    let pods = [
        with("x/a", &[(Protocol::Tcp, 8080)]),
        with("x/c", &[(Protocol::Tcp, 9090)]),
        with("y/a", &[(Protocol::Tcp, 80), (Protocol::Tcp, 81), (Protocol::Udp, 82)]),
        with("y/c", &[(Protocol::Udp, 80)]),
    ];
    index_with(options(), world().into_iter().chain(pods).chain([policy.into()]))
}

#[test]
fn s089_s091_s092_s093_s098_b8_names_in_ingress() {
    check_index(
        &declared(guard().ingress([rule([pods_in("", "")], [http()])])),
        &[
            "y/b > x/a tcp/8080: yes",
            // Not the number of another pod, not that of /etc/services, not another protocol.
            "y/b > x/a tcp/9090 udp/8080 tcp/80 udp/80: no",
            "y/b > x/c tcp/9090: yes",
            "y/b > x/c tcp/8080 tcp/80: no",
        ],
    );
    // By block: the destination is the protected pod, whose names are known.
    check_index(
        &declared(guard().ingress([rule([block("10.0.0.0/8", &[])], [http()])])),
        &["y/a > x/a tcp/8080: yes", "y/a > x/a tcp/80: no"],
    );
    // Nobody declares it with this protocol: nothing, and never everything.
    check_index(
        &declared(guard().ingress([rule([pods_in("", "")], [named("http", Protocol::Sctp)])])),
        &["y/b > x/a tcp/8080 sctp/8080 sctp/80 ping gre: no"],
    );
}

#[test]
fn s090_s091_s092_s093_s095_s097_names_in_egress() {
    let to_pods = [
        "x/a > y/a tcp/80 tcp/81: yes",
        "x/a > y/a tcp/82 udp/82 tcp/8080: no",
        "x/a > x/c tcp/9090: yes",
        "x/a > x/c tcp/80: no",
        "x/a > y/c tcp/80 udp/80: no",
        "x/a > y/b tcp/80: no",
    ];
    check_index(&declared(guard().egress([rule([pods_in("", "")], [http()])])), &to_pods);
    let open = declared(guard().egress([everybody([http()])]));
    check_index(&open, &to_pods);
    check_index(&open, &["x/a > 192.0.2.1 tcp/80 tcp/8080 tcp/9090: no"]);
    check_index(
        &declared(guard().egress([rule([pods_in("", "")], [named("http", Protocol::Udp)])])),
        &[
            "x/a > y/a udp/82: yes",
            "x/a > y/c udp/80: yes",
            "x/a > y/a tcp/80 udp/80: no",
        ],
    );
    // A change of the destination's ports is followed.
    let mut changing = declared(guard().egress([rule([pods_in("", "")], [http()])]));
    changing.apply(with("y/a", &[(Protocol::Tcp, 8443)]));
    changing.commit();
    check_index(&changing, &["x/a > y/a tcp/8443: yes", "x/a > y/a tcp/80: no"]);
}

#[test]
fn s096_names_beside_blocks_in_egress() {
    check_index(
        &declared(guard().egress([rule([block("0.0.0.0/0", &[])], [http()])])),
        &["x/a > y/a tcp/80 tcp/81: no", "x/a > 192.0.2.1 tcp/80: no"],
    );
    // Beside a pod selector in one rule the name still counts for the pods.
    check_index(
        &declared(guard().egress([rule([block("0.0.0.0/0", &[]), pods_in("team=blue", "")], [http()])])),
        &[
            "x/a > y/a tcp/80: yes",
            "x/a > x/c tcp/9090: no",
            "x/a > 192.0.2.1 tcp/80: no",
        ],
    );
}
