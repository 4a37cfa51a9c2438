//! `ports` of a rule as JSON, and port names (statements 78 to 88, 98, 218 to 220).

use ringfence_model::{PortMatch, PortName, PortRange, Ports, Protocol, Rule};
use serde_json::{Value, json};

use crate::{text, write};

/// Reads JSON: a list is `ports`, anything else is one entry, and what is no JSON is a port name.
pub fn run(data: &[u8]) {
    let text = text(data);
    let value: Value = serde_json::from_str(&text).unwrap_or_else(|_| json!({ "port": text }));
    let entries = match value {
        Value::Array(entries) => entries,
        one => vec![one],
    };
    let (policy, decoded) = write::ingress(&json!([{ "ports": entries }]));
    let rules = policy.ingress.expect("Ingress is among the policyTypes");
    let [Rule { ports, .. }] = &rules[..] else {
        panic!("one rule stays one rule: {rules:?}");
    };
    let found = match ports {
        // Statement 31; only an empty list means everything.
        Ports::All => return assert!(entries.is_empty(), "{entries:?} became every port"),
        Ports::OneOf(found) => found,
    };
    assert_eq!(found.len(), entries.len(), "positions stay");
    let mut rejected = 0;
    for (entry, found) in entries.iter().zip(found) {
        let wanted = expected(entry);
        assert_eq!(Some(found), wanted.as_ref().or(Some(&PortMatch::Nothing)), "{entry}");
        rejected += usize::from(*found == PortMatch::Nothing);
    }
    assert!(decoded.diagnostics.len() >= rejected, "{:?}", decoded.diagnostics);
    if let Ok(name) = PortName::new(&text) {
        assert_eq!(PortName::new(name.as_str()), Ok(name));
    }
}

/// What the statements say of one entry, in the plainest way; `None` for one that matches nothing.
fn expected(entry: &Value) -> Option<PortMatch> {
    let fields = entry.as_object()?;
    let known = ["protocol", "port", "endPort"];
    if fields.keys().any(|key| !known.contains(&key.as_str())) {
        return None;
    }
    let given = |name: &str| fields.get(name).filter(|value| !value.is_null());
    let protocol = match given("protocol") {
        None => Protocol::Tcp,
        Some(value) => *Protocol::ALL.iter().find(|it| value == it.as_str())?,
    };
    let number = |value: &Value| (1..=65_535_u16).find(|number| value.as_u64() == Some(u64::from(*number)));
    match (given("port"), given("endPort")) {
        (None, None) => Some(PortMatch::Range(PortRange::whole(protocol))),
        (None | Some(Value::String(_)), Some(_)) => None,
        (Some(Value::String(name)), None) => PortName::new(name).ok().map(|name| PortMatch::Named { name, protocol }),
        (Some(port), end) => {
            let first = number(port)?;
            let last = end.map_or(Some(first), number)?;
            (first <= last).then_some(PortMatch::Range(PortRange { protocol, first, last }))
        }
    }
}
