//! Rules, peers and ipBlocks (statements 29 to 38, 62 to 73, 221, 222).

use ipnet::IpNet;
use ringfence_model::{Consequence, Direction, IpBlock, Peer, Peers, Ports, Reason, Rule, Selector};
use serde_json::Value;

use super::{port, rejects_unknown, selector};
use crate::address::prefix;
use crate::clause::{At, Fields, Findings, given, shown};

/// Decodes `ingress` or `egress` of a spec. Null, missing and empty are the same: no rules (statement 225).
pub(super) fn rules(direction: Direction, spec: &Fields, at: &At<'_>, findings: &mut Findings) -> Vec<Rule> {
    let at = at.field(direction.as_str());
    match given(spec, direction.as_str()) {
        None => Vec::new(),
        Some(Value::Array(items)) => items
            .iter()
            .enumerate()
            .map(|(position, item)| rule(direction, item, &at.index(position), findings))
            .collect(),
        Some(other) => {
            let message = format!("{} instead of a list of rules; begin each with a dash", shown(other));
            findings.error(&at, Reason::Schema, Consequence::MatchesNothing, message);
            // Not an empty list: whether egress is isolated depends on the presence of a rule (statement 23).
            vec![nothing()]
        }
    }
}

fn nothing() -> Rule {
    Rule {
        peers: Peers::OneOf(vec![Peer::Nothing]),
        ports: Ports::All,
    }
}

fn rule(direction: Direction, value: &Value, at: &At<'_>, findings: &mut Findings) -> Rule {
    let peers = match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    };
    let Value::Object(fields) = value else {
        let message = format!(
            "{} instead of a rule; {{}} is the rule that allows everything",
            shown(value)
        );
        findings.error(at, Reason::Schema, Consequence::MatchesNothing, message);
        return nothing();
    };
    let unknown = rejects_unknown(
        fields,
        &[peers, "ports"],
        if direction == Direction::Ingress {
            "an ingress rule"
        } else {
            "an egress rule"
        },
        Reason::Schema,
        Consequence::MatchesNothing,
        at,
        findings,
    );
    let peers_at = at.field(peers);
    let peers = match given(fields, peers) {
        None => Peers::All,
        Some(Value::Array(items)) if items.is_empty() => Peers::All,
        Some(Value::Array(items)) => Peers::OneOf(
            items
                .iter()
                .enumerate()
                .map(|(position, item)| peer(item, &peers_at.index(position), findings).unwrap_or(Peer::Nothing))
                .collect(),
        ),
        Some(other) => {
            let message = format!("{} instead of a list of peers; begin each with a dash", shown(other));
            findings.error(&peers_at, Reason::Schema, Consequence::MatchesNothing, message);
            Peers::OneOf(vec![Peer::Nothing])
        }
    };
    let ports = port::ports(fields, at, findings);
    let peers = match (unknown, peers) {
        (false, peers) => peers,
        // A misspelt `from` must not become "from everyone". Positions stay.
        (true, Peers::All) => Peers::OneOf(vec![Peer::Nothing]),
        (true, Peers::OneOf(peers)) => Peers::OneOf(vec![Peer::Nothing; peers.len()]),
    };
    Rule { peers, ports }
}

fn peer(value: &Value, at: &At<'_>, findings: &mut Findings) -> Option<Peer> {
    let mut reject = |at: &At<'_>, message: String| {
        findings.error(at, Reason::InvalidPeer, Consequence::MatchesNothing, message);
    };
    let Value::Object(fields) = value else {
        reject(at, format!("{} instead of a peer", shown(value)));
        return None;
    };
    let pods = given(fields, "podSelector");
    let namespaces = given(fields, "namespaceSelector");
    let block = given(fields, "ipBlock");
    if rejects_unknown(
        fields,
        &["podSelector", "namespaceSelector", "ipBlock"],
        "a peer",
        Reason::InvalidPeer,
        Consequence::MatchesNothing,
        at,
        findings,
    ) {
        return None;
    }
    let mut reject = |message: &str| {
        findings.error(at, Reason::InvalidPeer, Consequence::MatchesNothing, message.to_owned());
    };
    match (pods, namespaces, block) {
        (None, None, None) => {
            reject("the peer is empty; to allow everyone leave out the list, for all pods write podSelector: {}");
            None
        }
        (None, None, Some(block)) => ip_block(block, &at.field("ipBlock"), findings),
        (_, _, Some(_)) => {
            reject("ipBlock stands beside a selector; make two peers of it");
            None
        }
        (pods, namespaces, None) => {
            let mut select = |name: &str, value: Option<&Value>| match value {
                None => Some(None),
                Some(value) => {
                    selector::decode(value, &at.field(name), Consequence::MatchesNothing, findings).map(Some)
                }
            };
            // Both before either is given up, so that both are reported.
            let (pods, namespaces) = (select("podSelector", pods), select("namespaceSelector", namespaces));
            Some(Peer::Pods {
                namespaces: namespaces?,
                pods: pods?.unwrap_or_else(Selector::everything),
            })
        }
    }
}

fn ip_block(value: &Value, at: &At<'_>, findings: &mut Findings) -> Option<Peer> {
    let Value::Object(fields) = value else {
        let message = format!("{} instead of an ipBlock with a cidr", shown(value));
        findings.error(at, Reason::Schema, Consequence::MatchesNothing, message);
        return None;
    };
    let unknown = rejects_unknown(
        fields,
        &["cidr", "except"],
        "an ipBlock",
        Reason::Schema,
        Consequence::MatchesNothing,
        at,
        findings,
    );
    let cidr = cidr(fields.get("cidr").unwrap_or(&Value::Null), &at.field("cidr"), findings)?;
    let at = at.field("except");
    let mut except = Vec::new();
    let mut valid = !unknown;
    match given(fields, "except") {
        None => {}
        Some(Value::Array(items)) => {
            for (position, item) in items.iter().enumerate() {
                match hole(cidr, item, &at.index(position), findings) {
                    Hole::Inside(net) => except.push(net),
                    Hole::Ignored => {}
                    Hole::Closes => valid = false,
                }
            }
        }
        Some(other) => {
            let message = format!("{} instead of a list of CIDRs", shown(other));
            findings.error(&at, Reason::InvalidExcept, Consequence::MatchesNothing, message);
            valid = false;
        }
    }
    valid.then_some(Peer::IpBlock(IpBlock { cidr, except }))
}

fn cidr(value: &Value, at: &At<'_>, findings: &mut Findings) -> Option<IpNet> {
    let why = match value {
        Value::String(text) => match prefix(text) {
            Ok(net) => return Some(net),
            Err(why) => why,
        },
        Value::Null => "it is missing",
        _ => "it is no text",
    };
    let message = format!("{} is no CIDR: {why}; write for example 10.0.0.0/24", shown(value));
    findings.error(at, Reason::InvalidCidr, Consequence::MatchesNothing, message);
    None
}

enum Hole {
    Inside(IpNet),
    /// It cannot take an address away from the block.
    Ignored,
    /// It takes all of them, or nobody can say which: the peer must match nothing.
    Closes,
}

/// One except. Prefixes never overlap in part, so it lies inside, covers the block, or is disjoint (statement 68).
fn hole(cidr: IpNet, value: &Value, at: &At<'_>, findings: &mut Findings) -> Hole {
    let net = match value.as_str().map(prefix) {
        Some(Ok(net)) => net,
        unreadable => {
            let why = unreadable.and_then(Result::err).unwrap_or("it is no text");
            let message = format!(
                "{} is no CIDR: {why}; without it the block would be wider than meant",
                shown(value)
            );
            findings.error(at, Reason::InvalidExcept, Consequence::MatchesNothing, message);
            return Hole::Closes;
        }
    };
    if net.addr().is_ipv4() != cidr.addr().is_ipv4() {
        let message = format!("{} is of another IP version than {cidr}", shown(value));
        findings.error(at, Reason::InvalidExcept, Consequence::PartIgnored, message);
        Hole::Ignored
    } else if net.contains(&cidr) {
        let message = format!("{} leaves nothing of {cidr}", shown(value));
        findings.error(at, Reason::InvalidExcept, Consequence::MatchesNothing, message);
        Hole::Closes
    } else if cidr.contains(&net) {
        Hole::Inside(net)
    } else {
        let message = format!("{} lies outside of {cidr}", shown(value));
        findings.error(at, Reason::InvalidExcept, Consequence::PartIgnored, message);
        Hole::Ignored
    }
}
