//! The cases: which rules, and which packets of which connections.

use std::fmt::Write as _;

use anyhow::Result;
use ringfence_model::Family;
use ringfence_ruleset::KernelFeatures;

use crate::cluster::{INTERVALS, Isolation, Shape, ruleset};
use crate::world::{FLOWS, Opener, PORT, Rules, Sender, blocks, peer_address};

/// What the issue asks of a case.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Aim {
    /// Nothing.
    None,
    /// At least this much of the packets of accept-established.
    OfEstablished(f64),
}

/// One line of the table.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// What is special about it.
    pub name: &'static str,
    /// Position of its pod among [`pods`].
    pub pod: usize,
    /// Which packets.
    pub traffic: Traffic,
    /// What is asked of it.
    pub aim: Aim,
}

/// Which packets; cases are compared with the baselines of the same traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    /// IPv4 or IPv6.
    pub family: Family,
    /// Who opened the connection.
    pub opener: Opener,
    /// Who sends.
    pub sender: Sender,
}

impl Traffic {
    /// Peers send to a pod that they have opened connections to.
    pub const IN: Self = Self {
        family: Family::V4,
        opener: Opener::Peer,
        sender: Sender::Peer,
    };
    /// The pod answers them.
    pub const IN_REPLY: Self = Self {
        sender: Sender::Pod,
        ..Self::IN
    };
    /// The pod sends to peers that it has opened connections to.
    pub const OUT: Self = Self {
        opener: Opener::Pod,
        ..Self::IN_REPLY
    };
    /// They answer.
    pub const OUT_REPLY: Self = Self {
        opener: Opener::Pod,
        ..Self::IN
    };
    /// As [`Self::IN`].
    pub const IN_IP6: Self = Self {
        family: Family::V6,
        ..Self::IN
    };
    /// As [`Self::OUT`].
    pub const OUT_IP6: Self = Self {
        family: Family::V6,
        ..Self::OUT
    };
    /// All that there are cases of, in the order of the table.
    pub const ALL: [Self; 6] = [
        Self::IN,
        Self::IN_REPLY,
        Self::OUT,
        Self::OUT_REPLY,
        Self::IN_IP6,
        Self::OUT_IP6,
    ];

    /// In words.
    pub fn name(self) -> &'static str {
        match (self.opener, self.sender, self.family) {
            (Opener::Peer, Sender::Peer, Family::V4) => "packets to the pod, connections opened by the peer",
            (Opener::Peer, Sender::Pod, _) => "the pod's answers to these",
            (Opener::Pod, Sender::Pod, Family::V4) => "packets of the pod, connections opened by the pod",
            (Opener::Pod, Sender::Peer, _) => "the peer's answers to these",
            (Opener::Peer, Sender::Peer, Family::V6) => "IPv6 packets to the pod",
            (Opener::Pod, Sender::Pod, Family::V6) => "IPv6 packets of the pod",
        }
    }
}

/// Position of the pod without rules.
pub const NO_RULES: usize = 0;
/// Position of the pod with the accept-established ruleset.
pub const ESTABLISHED: usize = 1;
/// Name of the case with one peer, and of those that must be as fast within a tenth.
pub const ONE_PEER: &str = "1 exact peer";
/// See [`ONE_PEER`].
pub const FLAT: [&str; 3] = [
    "1,000 exact peers",
    "100,000 exact peers",
    "1,000 exact peers of 1,000 policies",
];

const HAND_EXACT: usize = 2;
const HAND_TREE: usize = 3;
const ONE: usize = 4;
const THOUSAND: usize = 5;
const HUNDRED_THOUSAND: usize = 6;
const POLICIES: usize = 7;
const BLOCKS: usize = 8;
const BLOCKS_ANY: usize = 9;
const CLASS: usize = 10;
const EVERYTHING: usize = 11;
const THIRD_INTERFACE: usize = 12;
const BOTH: usize = 13;
const BOTH_BLOCKS: usize = 14;
const BLOCKS_IP6: usize = 15;
const BLOCKS_ODD: usize = 16;
const BLOCKS_ODD_IP6: usize = 17;

/// The pods, in the order of the constants above: how many interfaces they have, and their rules.
pub fn pods(features: KernelFeatures) -> Result<Vec<(u8, Rules)>> {
    let exact = |peers, policies| Shape::Exact { peers, policies };
    let some_blocks = |port, family, odd| Shape::Blocks { port, family, odd };
    let blocks = |port, family| some_blocks(port, family, false);
    let compiled = |shape, isolation, interfaces| {
        ruleset(features, shape, isolation, interfaces).map(|ruleset| (interfaces, Rules::Compiled(ruleset)))
    };
    let (ingress, both) = (Isolation::Ingress, Isolation::Both);
    Ok(vec![
        (1, Rules::None),
        (1, Rules::Text(established())),
        (1, Rules::Text(hand_exact())),
        (1, Rules::Text(hand_tree())),
        compiled(exact(1, 1), ingress, 1)?,
        compiled(exact(1_000, 1), ingress, 1)?,
        compiled(exact(100_000, 1), ingress, 1)?,
        compiled(exact(1_000, 1_000), ingress, 1)?,
        compiled(blocks(true, Family::V4), ingress, 1)?,
        compiled(blocks(false, Family::V4), ingress, 1)?,
        compiled(Shape::ThirdClass, ingress, 1)?,
        compiled(Shape::Any, ingress, 1)?,
        compiled(exact(1_000, 1), ingress, 3)?,
        compiled(exact(1_000, 1), both, 1)?,
        compiled(blocks(true, Family::V4), both, 1)?,
        compiled(blocks(true, Family::V6), ingress, 1)?,
        compiled(some_blocks(true, Family::V4, true), ingress, 1)?,
        compiled(some_blocks(true, Family::V6, true), ingress, 1)?,
    ])
}

/// All cases, those of one traffic together.
pub fn cases() -> Vec<Case> {
    let exact = Aim::OfEstablished(0.92);
    let tree = Aim::OfEstablished(0.80);
    let [flat_1000, flat_100_000, flat_policies] = FLAT;
    let mut cases = Vec::new();
    for traffic in Traffic::ALL {
        let case = |name, pod, aim| Case {
            name,
            pod,
            traffic,
            aim,
        };
        cases.extend([
            case("no rules", NO_RULES, Aim::None),
            case("accept-established", ESTABLISHED, Aim::None),
        ]);
        cases.extend(match traffic {
            Traffic::IN => vec![
                case("by hand: exact peers", HAND_EXACT, Aim::None),
                case("by hand: 10,000 intervals", HAND_TREE, Aim::None),
                case(ONE_PEER, ONE, exact),
                case(flat_1000, THOUSAND, exact),
                case(flat_100_000, HUNDRED_THOUSAND, exact),
                case(flat_policies, POLICIES, exact),
                case("10,000 intervals, one port", BLOCKS, tree),
                case("10,000 intervals, everything", BLOCKS_ANY, tree),
                case("10,000 intervals, no networks", BLOCKS_ODD, tree),
                case("third class", CLASS, Aim::None),
                case("everything", EVERYTHING, Aim::None),
                case("third isolated interface", THIRD_INTERFACE, Aim::None),
                case("ingress and egress isolated", BOTH, exact),
            ],
            Traffic::IN_REPLY => vec![
                case(flat_1000, THOUSAND, exact),
                case(flat_100_000, HUNDRED_THOUSAND, exact),
                case("10,000 intervals, one port", BLOCKS, tree),
                case("ingress and egress isolated", BOTH, Aim::None),
            ],
            Traffic::OUT => vec![
                case("not isolated for egress", THOUSAND, Aim::None),
                case("ingress and egress isolated", BOTH, Aim::None),
                case("the same, 10,000 intervals", BOTH_BLOCKS, Aim::None),
            ],
            Traffic::OUT_REPLY => vec![
                case("not isolated for egress", THOUSAND, Aim::None),
                case("ingress and egress isolated", BOTH, exact),
                case("the same, 10,000 intervals", BOTH_BLOCKS, tree),
            ],
            Traffic::IN_IP6 => vec![
                case(flat_1000, THOUSAND, exact),
                case(flat_100_000, HUNDRED_THOUSAND, exact),
                case("10,000 intervals, one port", BLOCKS_IP6, tree),
                case("10,000 intervals, no networks", BLOCKS_ODD_IP6, tree),
            ],
            _ => vec![case("ingress and egress isolated", BOTH, Aim::None)],
        });
    }
    cases
}

/// What people write who only want to keep others from opening connections.
fn established() -> String {
    format!(
        "table inet established {{
            chain input {{
                type filter hook input priority filter; policy drop;
                ct state established,related accept
                udp dport {PORT} accept
                icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
            }}
            chain output {{
                type filter hook output priority filter; policy drop;
                ct state established,related accept
                udp dport {PORT} accept
                icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
            }}
        }}"
    )
}

/// The tables that were written by hand before there was a compiler: its own yardstick.
fn by_hand(sets: &str, rules: &str) -> String {
    format!(
        "table inet byhand {{
            {sets}
            chain arrive {{
                type filter hook prerouting priority mangle - 10; policy accept;
                iifname \"lo\" accept
                iifname . ct direction vmap {{ \"net1\" . original : goto net1-in, \"net1\" . reply : accept }}
            }}
            chain net1-in {{
                {rules}
                counter drop
            }}
        }}"
    )
}

fn hand_exact() -> String {
    let mut elements = String::new();
    for flow in 0..FLOWS {
        // Writing into a String cannot fail.
        let _ = write!(elements, "{} . udp . {PORT}, ", peer_address(0, Family::V4, flow));
    }
    for number in 1..10_000_u32 {
        let [_, _, high, low] = number.to_be_bytes();
        let _ = write!(elements, "172.16.{high}.{low} . udp . {PORT}, ");
    }
    by_hand(
        &format!("set peers {{ type ipv4_addr . inet_proto . inet_service; elements = {{ {elements} }}; }}"),
        "ip saddr . meta l4proto . th dport @peers accept",
    )
}

/// The address in a tree, its ports in a second one.
fn hand_tree() -> String {
    let elements: Vec<String> = blocks(0, Family::V4, INTERVALS).collect();
    by_hand(
        &format!(
            "set blocks {{ type ipv4_addr; flags interval; elements = {{ {} }}; }}
             set ports {{ type inet_service; flags interval; elements = {{ 1000-1999, {PORT}-5999, 8000-8999 }}; }}",
            elements.join(", ")
        ),
        "ip saddr @blocks udp dport @ports accept",
    )
}
