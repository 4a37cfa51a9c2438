//! The scenarios: policies as people write them, and who may then reach whom, written by hand from the semantics.
//!
//! The world is always the same: `x/server` (app=server), `x/friend` (access=true), `x/stranger` and, in a namespace
//! labelled team=blue, `y/guest` (access=true). All four are on networks *blue* and *green*; each policy covers blue unless
//! it says otherwise. Named ports: the server calls TCP 80 `web` and UDP 81 `media`; the friend calls TCP 81 `web`.

use Pod::{Friend, Guest, Server, Stranger};
use Protocol::{Tcp, Udp};
use ringfence_testkit::Protocol;

use super::world::{Cell, Pod};

/// The networks that a policy covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    Blue,
    Green,
    Both,
}

/// One policy: its namespace, its networks, its `spec` in YAML.
pub struct Policy {
    pub namespace: &'static str,
    pub on: On,
    pub spec: &'static str,
}

/// Policies, and the cells of network blue (and of green, where `green` says so) that pass.
pub struct Scenario {
    /// Statement numbers and what is tried.
    pub name: &'static str,
    pub policies: &'static [Policy],
    /// Whether a connection on blue passes.
    pub blue: fn(Cell) -> bool,
    /// The same on green, where no policy is in force unless it covers green.
    pub green: fn(Cell) -> bool,
    /// Whether echo requests are sent too; the cell then has protocol ICMP and port 0.
    pub pings: bool,
}

fn all(_: Cell) -> bool {
    true
}

const fn on_blue(name: &'static str, policies: &'static [Policy], blue: fn(Cell) -> bool) -> Scenario {
    Scenario {
        name,
        policies,
        blue,
        green: all,
        pings: false,
    }
}

const fn x(spec: &'static str) -> Policy {
    Policy {
        namespace: "x",
        on: On::Blue,
        spec,
    }
}

/// Every scenario.
pub const SCENARIOS: &[Scenario] = &[
    on_blue("s001 no policy", &[], all),
    Scenario {
        pings: true,
        ..on_blue(
            "s015 s114 deny all ingress of one pod",
            &[x("{podSelector: {matchLabels: {app: server}}, policyTypes: [Ingress]}")],
            |c| c.to != Server,
        )
    },
    Scenario {
        pings: true,
        ..on_blue(
            "s016 s101 deny all egress of one pod, which still answers",
            &[x("{podSelector: {matchLabels: {app: server}}, policyTypes: [Egress]}")],
            |c| c.from != Server,
        )
    },
    Scenario {
        pings: true,
        ..on_blue(
            "s003 s025 deny everything in a namespace",
            &[x("{podSelector: {}, policyTypes: [Ingress, Egress]}")],
            |_| false,
        )
    },
    on_blue(
        "s017 one empty rule allows everybody",
        &[x("{podSelector: {}, policyTypes: [Ingress], ingress: [{}]}")],
        all,
    ),
    on_blue(
        "s039 podSelector means the policy's own namespace",
        &[x("{podSelector: {matchLabels: {app: server}},
              ingress: [{from: [{podSelector: {matchLabels: {access: 'true'}}}]}]}")],
        |c| c.to != Server || c.from == Friend,
    ),
    on_blue(
        "s040 namespaceSelector means every pod there",
        &[x("{podSelector: {matchLabels: {app: server}},
              ingress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}}]}]}")],
        |c| c.to != Server || c.from == Guest,
    ),
    on_blue(
        "s041 both selectors in one peer are AND",
        &[x("{podSelector: {matchLabels: {app: server}},
              ingress: [{from: [{namespaceSelector: {matchLabels: {team: blue}},
                                 podSelector: {matchLabels: {access: 'false'}}}]}]}")],
        |c| c.to != Server,
    ),
    on_blue(
        "s042 two peers are OR",
        &[x("{podSelector: {matchLabels: {app: server}},
              ingress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}},
                                {podSelector: {matchLabels: {access: 'true'}}}]}]}")],
        |c| c.to != Server || c.from == Guest || c.from == Friend,
    ),
    on_blue(
        "s032 peer AND port",
        &[x("{podSelector: {matchLabels: {app: server}},
              ingress: [{from: [{podSelector: {matchLabels: {access: 'true'}}}], ports: [{protocol: TCP, port: 80}]}]}")],
        |c| c.to != Server || c.from == Friend && c.protocol == Tcp && c.port == 80,
    ),
    Scenario {
        pings: true,
        ..on_blue(
            "s029 s113 a port for everybody, and no ICMP with it",
            &[x("{podSelector: {matchLabels: {app: server}}, ingress: [{ports: [{port: 80}]}]}")],
            |c| c.to != Server || c.protocol == Tcp && c.port == 80,
        )
    },
    on_blue(
        "s080 s082 a protocol without a port",
        &[x("{podSelector: {matchLabels: {app: server}}, ingress: [{ports: [{protocol: UDP}]}]}")],
        |c| c.to != Server || c.protocol == Udp,
    ),
    on_blue(
        "s081 a protocol beside one of its ports",
        &[x("{podSelector: {matchLabels: {app: server}},
              ingress: [{from: [{podSelector: {}}], ports: [{protocol: UDP}, {protocol: UDP, port: 80}]}]}")],
        |c| c.to != Server || c.protocol == Udp && c.from != Guest,
    ),
    on_blue(
        "s085 endPort, a range larger than exact elements take",
        &[x("{podSelector: {matchLabels: {app: server}},
              ingress: [{from: [{podSelector: {matchLabels: {access: 'true'}}}],
                         ports: [{protocol: TCP, port: 81, endPort: 4000}]}]}")],
        |c| c.to != Server || c.from == Friend && c.protocol == Tcp && c.port == 81,
    ),
    on_blue(
        "s089 s092 a named port of the protected pod, with its protocol",
        &[x("{podSelector: {matchLabels: {app: server}}, ingress: [{ports: [{port: web}, {protocol: TCP, port: media}]}]}")],
        |c| c.to != Server || c.protocol == Tcp && c.port == 80,
    ),
    on_blue(
        "s090 s091 a named port of each destination",
        &[x("{podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}], ports: [{port: web}]}]}")],
        |c| {
            c.from == Guest
                || c.protocol == Tcp && (c.to == Server && c.port == 80 || c.to == Friend && c.port == 81)
        },
    ),
    on_blue(
        "s035 s093 a named port that nobody has is no port at all",
        &[x("{podSelector: {matchLabels: {app: server}}, ingress: [{ports: [{port: nosuch}]}]}")],
        |c| c.to != Server,
    ),
    on_blue(
        "s034 a peer that selects nobody is nobody",
        &[x("{podSelector: {matchLabels: {app: server}},
              ingress: [{from: [{podSelector: {matchLabels: {no: such}}}]}]}")],
        |c| c.to != Server,
    ),
    on_blue(
        "s062 s071 an IPv4 block, and IPv6 stays shut",
        &[x("{podSelector: {matchLabels: {app: server}}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}")],
        |c| c.to != Server || !c.ipv6,
    ),
    on_blue(
        "s062 an IPv6 block, for egress",
        &[x("{podSelector: {matchLabels: {app: server}}, egress: [{to: [{ipBlock: {cidr: 'fd00::/8'}}],
              ports: [{protocol: UDP, port: 81}]}], policyTypes: [Egress]}")],
        |c| c.from != Server || c.ipv6 && c.protocol == Udp && c.port == 81,
    ),
    on_blue(
        "s063 s064 s067 what one block excepts another peer may grant",
        &[x("{podSelector: {matchLabels: {app: server}},
              ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8]}},
                                {ipBlock: {cidr: '::/0', except: ['fd00::/8']}},
                                {podSelector: {matchLabels: {access: 'true'}}}]}]}")],
        |c| c.to != Server || c.from == Friend,
    ),
    on_blue(
        "s066 s069 overlapping blocks of two policies",
        &[
            x("{podSelector: {matchLabels: {app: server}},
                ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.20.0.0/15]}}, {ipBlock: {cidr: 10.0.0.0/9}}]}]}"),
            x("{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.1.2.3/8}}]}]}"),
        ],
        |c| c.to == Guest || !c.ipv6,
    ),
    on_blue(
        "s005 s010 allow-all beside deny-all",
        &[
            x("{podSelector: {}, policyTypes: [Ingress, Egress]}"),
            x("{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{}], egress: [{}]}"),
        ],
        all,
    ),
    on_blue(
        "s008 s009 both ends must agree",
        &[
            x("{podSelector: {matchLabels: {app: server}}, ingress: [{from: [{podSelector: {}}]}]}"),
            Policy {
                namespace: "y",
                on: On::Blue,
                spec: "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}}]}]}",
            },
            x("{podSelector: {matchLabels: {access: 'true'}}, policyTypes: [Egress],
                egress: [{to: [{podSelector: {matchLabels: {app: server}}}], ports: [{protocol: TCP, port: 80}]}]}"),
        ],
        |c| match (c.from, c.to) {
            (Friend, Server) => c.protocol == Tcp && c.port == 80,
            (Friend, _) | (Guest, Server) => false,
            _ => true,
        },
    ),
    on_blue(
        "s019 egress rules without Egress in policyTypes",
        &[x("{podSelector: {}, policyTypes: [Ingress], ingress: [{}],
              egress: [{to: [{podSelector: {matchLabels: {no: such}}}]}]}")],
        all,
    ),
    on_blue(
        "s023 policyTypes by default: Egress only with egress rules",
        &[x("{podSelector: {matchLabels: {app: server}}, egress: [{to: [{podSelector: {matchLabels: {access: 'true'}}}]}]}")],
        |c| c.to != Server && (c.from != Server || c.to == Friend),
    ),
    on_blue(
        "s054 s056 s058 all operators",
        &[x("{podSelector: {matchExpressions: [{key: app, operator: Exists}]},
              ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: team, operator: NotIn, values: [red]}]},
                                 podSelector: {matchLabels: {access: 'true'},
                                               matchExpressions: [{key: app, operator: DoesNotExist}]}}]}]}")],
        |c| c.to != Server || c.from == Friend || c.from == Guest,
    ),
    on_blue(
        "s166 invalid clauses match nothing, the rest counts",
        &[x("{podSelector: {matchLabels: {app: server}},
              ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/40}}, {}, {podSelector: {matchLabels: {access: 'true'}}}],
                         ports: [{port: 70000}, {port: '80'}, {protocol: ICMP}, {port: 90, endPort: 80},
                                 {protocol: TCP, port: 80}]}]}")],
        |c| c.to != Server || c.from == Friend && c.protocol == Tcp && c.port == 80,
    ),
    Scenario {
        green: |c| c.to != Server || c.from == Friend,
        ..on_blue(
            "s146 s154 two networks in one policy, each with its own addresses",
            &[Policy {
                namespace: "x",
                on: On::Both,
                spec: "{podSelector: {matchLabels: {app: server}},
                        ingress: [{from: [{podSelector: {matchLabels: {access: 'true'}}}]}]}",
            }],
            |c| c.to != Server || c.from == Friend,
        )
    },
    Scenario {
        green: |c| c.from != Server || c.to == Stranger,
        ..on_blue(
            "s153 isolation of one network leaves the other alone",
            &[Policy {
                namespace: "x",
                on: On::Green,
                spec: "{podSelector: {matchLabels: {app: server}}, policyTypes: [Egress],
                        egress: [{to: [{podSelector: {matchExpressions: [{key: access, operator: DoesNotExist}]}}]}]}",
            }],
            all,
        )
    },
];
