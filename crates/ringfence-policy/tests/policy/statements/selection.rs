//! Groups A to C: selection, isolation, emptiness.

use super::*;

#[test]
fn s001_s002_s003_s004_s007_s150_selection_and_isolation() {
    check([], &["x/b > x/a tcp/80 udp/53 ping gre: yes"]);
    check(
        [guard().ingress([from([pods("tier=front")])])],
        &[
            "x/b > x/a tcp/80 udp/53 ping gre: no",
            "x/c > x/a tcp/80 udp/53 ping gre: yes",
            "x/b > x/c tcp/80: no",
            "x/a > x/b tcp/80: yes",
            "y/b > y/a tcp/80: yes",
            "x/b%b > x/a%b tcp/80: yes",
        ],
    );
    // An empty selector is all of its own namespace, and no pod of another.
    check(
        [policy("x/all").ingress([])],
        &[
            "x/a > x/b tcp/80: no",
            "y/a > x/a tcp/80: no",
            "y/a > x/c tcp/80: no",
            "x/a > y/b tcp/80: yes",
        ],
    );
    check(
        [policy("x/all").egress([])],
        &["x/a > x/b tcp/80: no", "y/a > x/a tcp/80: yes", "y/a > y/b tcp/80: yes"],
    );
}

#[test]
fn s005_s006_s010_policies_add_up() {
    let deny = policy("x/deny").ingress([]).egress([]);
    let open = policy("x/open").ingress([anything()]).egress([anything()]);
    for policies in [[deny.clone(), open.clone()], [open, deny.clone()]] {
        check(
            policies,
            &["y/a > x/a tcp/80 ping gre: yes", "x/a > y/a tcp/80 ping gre: yes"],
        );
    }
    // Names that sort before and after the one that denies.
    for (first, second) in [("x/a-web", "x/z-db"), ("x/z-web", "x/a-db")] {
        let web = policy(first).ingress([rule([pods_in("team=blue", "")], [tcp(80)])]);
        let db = policy(second).ingress([rule([pods_in("", "app=db")], [tcp(81)])]);
        let lines = [
            "y/a > x/a tcp/80: yes",
            "y/a > x/a tcp/81: no",
            "y/b > x/a tcp/80 tcp/81: yes",
            "x/b > x/a tcp/80: no",
        ];
        check([deny.clone(), web.clone(), db.clone()], &lines);
        check([db, deny.clone(), web], &lines);
    }
}

#[test]
fn s008_s009_b17_both_ends_must_allow() {
    let sender = policy("x/out").egress([anything()]);
    let receiver = policy("y/in").ingress([]);
    check([sender, receiver], &["x/a > y/a tcp/80: no", "x/a > z/a tcp/80: yes"]);
    // In one namespace, under policies of one pod's own.
    let sender = policy("x/out").target("app=db").egress([anything()]);
    check(
        [sender, guard().ingress([])],
        &["x/b > x/a tcp/80: no", "x/a > x/b tcp/80: yes"],
    );
    check(
        [policy("x/out").egress([])],
        &["x/a > y/a tcp/80: no", "y/a > x/a tcp/80: yes"],
    );
}

#[test]
fn s015_s016_s017_s018_no_rules_and_the_empty_rule() {
    check(
        [guard().ingress([])],
        &["y/a > x/a tcp/80 ping gre: no", "x/a > y/a tcp/80: yes"],
    );
    check(
        [guard().egress([])],
        &["y/a > x/a tcp/80: yes", "x/a > y/a tcp/80 ping gre: no"],
    );
    check(
        [guard().ingress([anything()])],
        &[
            "192.0.2.1 > x/a tcp/80 ping gre: yes",
            "2001:db8::1 > x/a%6 sctp/9: yes",
        ],
    );
    check(
        [guard().egress([anything()])],
        &[
            "x/a > 192.0.2.1 tcp/80 ping gre: yes",
            "x/a%6 > 2001:db8::1 sctp/9: yes",
        ],
    );
}

#[test]
fn s022_s034_s035_s036_s060_s166_b5_b6_nothing_is_never_all() {
    let nothing = |peers, ports| Rule { peers, ports };
    let web_only = rule([pods("app=web")], [tcp(80)]);
    for broken in [
        nothing(Peers::OneOf(vec![Peer::Nothing]), Ports::All),
        nothing(Peers::OneOf(vec![]), Ports::All),
        nothing(Peers::All, Ports::OneOf(vec![PortMatch::Nothing])),
        nothing(Peers::All, Ports::OneOf(vec![])),
        // Egress asks for the name on the other end, ingress on the pod's own.
        nothing(Peers::All, Ports::OneOf(vec![named("nobody-has-it", Protocol::Tcp)])),
        from([pods("app=nobody")]),
        from([pods_in("team=nobody", "")]),
        from([block("10.20.0.0/16", &["10.20.0.0/16"])]),
        rule([block("0.0.0.0/0", &[])], [named("nobody-has-it", Protocol::Tcp)]),
    ] {
        let closed = [
            "y/a > x/a tcp/80 udp/80 ping gre: no",
            "192.0.2.1 > x/a tcp/80: no",
            "y/a%6 > x/a%6 tcp/80: no",
        ];
        check([guard().ingress([broken.clone()])], &closed);
        let closed = [
            "x/a > y/a tcp/80 udp/80 ping gre: no",
            "x/a > 192.0.2.1 tcp/80: no",
            "x/a%6 > y/a%6 tcp/80: no",
        ];
        check([guard().egress([broken.clone()])], &closed);
        // The rest of the policy applies, and so do other policies.
        let partly = guard().ingress([broken, web_only.clone()]);
        check([partly.clone()], &["x/c > x/a tcp/80: yes", "y/a > x/a tcp/80: no"]);
        let other = policy("x/other").ingress([from([pods_in("team=blue", "app=db")])]);
        check(
            [partly, other],
            &["x/c > x/a tcp/80: yes", "y/b > x/a tcp/81: yes", "y/a > x/a tcp/80: no"],
        );
    }
    let mut nobody = guard().ingress([]);
    nobody.0.target = None;
    check([nobody], &["y/a > x/a tcp/80: yes"]);
}

#[test]
fn s029_s031_s032_s033_peers_and_ports_of_a_rule() {
    check(
        [guard().ingress([
            rule([pods("app=db"), pods_in("team=blue", "")], [tcp(80), udp(53)]),
            everybody([tcp(443)]),
        ])],
        &[
            "x/b > x/a tcp/80 udp/53: yes",
            "x/b > x/a tcp/53 udp/80 sctp/80 ping: no",
            "y/a > x/a tcp/80: yes",
            "x/c > x/a tcp/80: no",
            "192.0.2.1 > x/a tcp/443: yes",
            "2001:db8::1 > x/a%6 tcp/443: yes",
            "192.0.2.1 > x/a udp/443: no",
        ],
    );
    check(
        [guard().ingress([from([pods("app=db")])])],
        &[
            "x/b > x/a tcp/1 udp/1 sctp/1 ping gre: yes",
            "x/c > x/a tcp/1 ping gre: no",
        ],
    );
    check(
        [guard().egress([from([pods("app=db")]), everybody([udp(53)])])],
        &[
            "x/a > x/b tcp/1 sctp/65535 ping gre: yes",
            "x/a > 192.0.2.1 udp/53: yes",
            "x/a > 192.0.2.1 tcp/53 ping gre: no",
        ],
    );
}
