//! Entries of `ports` (statements 78 to 88, 98, 218 to 220).

use ringfence_model::{Consequence, PortMatch, PortName, PortRange, Ports, Protocol, Reason};
use serde_json::Value;

use super::rejects_unknown;
use crate::clause::{At, Fields, Findings, given, shown};

/// Decodes `ports` of a rule.
pub(super) fn ports(rule: &Fields, at: &At<'_>, findings: &mut Findings) -> Ports {
    let at = at.field("ports");
    match given(rule, "ports") {
        None => Ports::All,
        Some(Value::Array(items)) if items.is_empty() => Ports::All,
        Some(Value::Array(items)) => Ports::OneOf(
            items
                .iter()
                .enumerate()
                .map(|(position, item)| port(item, &at.index(position), findings).unwrap_or(PortMatch::Nothing))
                .collect(),
        ),
        Some(other) => {
            let message = format!("{} instead of a list of port entries", shown(other));
            findings.error(&at, Reason::Schema, Consequence::MatchesNothing, message);
            Ports::OneOf(vec![PortMatch::Nothing])
        }
    }
}

fn port(value: &Value, at: &At<'_>, findings: &mut Findings) -> Option<PortMatch> {
    let Value::Object(fields) = value else {
        let message = format!(
            "{} instead of a port entry such as {{protocol: TCP, port: 80}}",
            shown(value)
        );
        findings.error(at, Reason::Schema, Consequence::MatchesNothing, message);
        return None;
    };
    let known = !rejects_unknown(
        fields,
        &["protocol", "port", "endPort"],
        "a port entry",
        Reason::Schema,
        Consequence::MatchesNothing,
        at,
        findings,
    );
    let protocol = protocol(fields, at, findings);
    let range = match given(fields, "port") {
        None => Some(Target::Whole),
        Some(value) => target(value, &at.field("port"), findings),
    };
    let range = range.and_then(|target| with_end(target, fields, at, findings));
    match (known, protocol?, range?) {
        (false, ..) => None,
        (true, protocol, Target::Whole) => Some(PortMatch::Range(PortRange::whole(protocol))),
        (true, protocol, Target::Named(name)) => Some(PortMatch::Named { name, protocol }),
        (true, protocol, Target::Numbers(first, last)) => Some(PortMatch::Range(PortRange { protocol, first, last })),
    }
}

/// `port` and `endPort` without their protocol.
enum Target {
    Whole,
    Named(PortName),
    Numbers(u16, u16),
}

/// Missing means TCP (statement 78); the empty text does not.
fn protocol(fields: &Fields, at: &At<'_>, findings: &mut Findings) -> Option<Protocol> {
    let Some(value) = given(fields, "protocol") else {
        return Some(Protocol::Tcp);
    };
    let found = Protocol::ALL
        .into_iter()
        .find(|protocol| value.as_str() == Some(protocol.as_str()));
    if found.is_none() {
        findings.error(
            &at.field("protocol"),
            Reason::UnknownProtocol,
            Consequence::MatchesNothing,
            format!("{} is none of TCP, UDP and SCTP (in capitals)", shown(value)),
        );
    }
    found
}

fn target(value: &Value, at: &At<'_>, findings: &mut Findings) -> Option<Target> {
    let message = match value {
        Value::Number(_) => match number(value) {
            Some(number) => return Some(Target::Numbers(number, number)),
            None => format!("{} is no port; ports are 1 to 65535", shown(value)),
        },
        Value::String(text) => match PortName::new(text) {
            Ok(name) => return Some(Target::Named(name)),
            Err(error) => error.to_string(),
        },
        other => format!("{} is neither a port number nor a port name", shown(other)),
    };
    findings.error(at, Reason::InvalidPort, Consequence::MatchesNothing, message);
    None
}

fn with_end(target: Target, fields: &Fields, at: &At<'_>, findings: &mut Findings) -> Option<Target> {
    let Some(value) = given(fields, "endPort") else {
        return Some(target);
    };
    let message = match (target, number(value)) {
        (Target::Whole, _) => "endPort needs a port number beside it".to_owned(),
        (Target::Named(name), _) => format!(
            "endPort cannot follow the port name {name:?}; give a number",
            name = name.as_str()
        ),
        (Target::Numbers(..), None) => format!("{} is no port; ports are 1 to 65535", shown(value)),
        (Target::Numbers(first, _), Some(last)) if last < first => {
            format!("{last} is below port {first}; endPort is the last port of the range")
        }
        (Target::Numbers(first, _), Some(last)) => return Some(Target::Numbers(first, last)),
    };
    findings.error(
        &at.field("endPort"),
        Reason::InvalidEndPort,
        Consequence::MatchesNothing,
        message,
    );
    None
}

/// 1 to 65535 (statement 87).
fn number(value: &Value) -> Option<u16> {
    value
        .as_u64()
        .and_then(|number| u16::try_from(number).ok())
        .filter(|number| *number > 0)
}
