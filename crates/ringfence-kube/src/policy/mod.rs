//! NetworkPolicy and MultiNetworkPolicy: policyTypes, rules, and the networks that a policy acts on.
//!
//! The CRD of MultiNetworkPolicy neither fills in defaults nor validates, so everything that the API server does for
//! NetworkPolicy is done here, for both (statements 23 to 28, 36, 37, 59, 68, 78 to 87, 165, 218 to 225).

mod coverage;
mod port;
mod rule;
mod selector;

use ringfence_model::{Consequence, Direction, NamespacedName, Policy, PolicyKey, PolicyKind, Reason, Selector};
use serde_json::Value;

use crate::clause::{At, Fields, Findings, given, shown, unknown_field};
use crate::kind::Kind;
use crate::metadata::Metadata;

const KNOWN: &[&str] = &["podSelector", "policyTypes", "ingress", "egress"];

/// Decodes a policy that has a name. There is always a policy: what cannot be read of it matches nothing, and what
/// it isolates stays isolated (statements 22, 166).
pub(crate) fn decode(
    kind: Kind,
    name: NamespacedName,
    metadata: &Metadata<'_>,
    object: &Fields,
    findings: &mut Findings,
) -> Policy {
    let kind = match kind {
        Kind::MultiNetworkPolicy => PolicyKind::MultiNetworkPolicy,
        _ => PolicyKind::NetworkPolicy,
    };
    let coverage = coverage::decode(kind, &name.namespace, metadata, findings);
    let empty = Fields::new();
    let at = At::root("spec");
    let (spec, readable) = match given(object, "spec") {
        Some(Value::Object(spec)) => (spec, true),
        None => {
            // As the API server reads it.
            let message = "spec is missing: the policy isolates the ingress of every pod of its namespace and allows \
                           nothing";
            findings.warn(&at, Reason::Schema, Consequence::None, message.to_owned());
            (&empty, true)
        }
        Some(other) => {
            let message = format!("{} instead of an object", shown(other));
            findings.error(&at, Reason::Schema, Consequence::SelectsNothing, message);
            (&empty, false)
        }
    };
    if let Some(field) = unknown_field(spec, KNOWN) {
        let message = format!("the field is not known; a spec has {}", KNOWN.join(", "));
        findings.warn(&at.field(field), Reason::Schema, Consequence::PartIgnored, message);
    }
    let target = if readable { target(spec, &at, findings) } else { None };
    let ingress = rule::rules(Direction::Ingress, spec, &at, findings);
    let egress = rule::rules(Direction::Egress, spec, &at, findings);
    let types = policy_types(spec, &at, !egress.is_empty(), findings);
    Policy {
        key: PolicyKey { kind, name },
        coverage,
        target,
        ingress: types.ingress.then_some(if types.rules { ingress } else { Vec::new() }),
        egress: types.egress.then_some(if types.rules { egress } else { Vec::new() }),
    }
}

/// A missing podSelector is the empty one, which selects every pod of the namespace (statement 3); an invalid one
/// selects nothing (statement 60).
fn target(spec: &Fields, at: &At<'_>, findings: &mut Findings) -> Option<Selector> {
    let at = at.field("podSelector");
    match given(spec, "podSelector") {
        None => Some(Selector::everything()),
        Some(value) => selector::decode(value, &at, Consequence::SelectsNothing, findings),
    }
}

struct PolicyTypes {
    ingress: bool,
    egress: bool,
    /// False where no valid type is given: both directions are isolated, and no rule opens them (statement 27).
    rules: bool,
}

fn policy_types(spec: &Fields, at: &At<'_>, has_egress_rules: bool, findings: &mut Findings) -> PolicyTypes {
    let at = at.field("policyTypes");
    let by_default = PolicyTypes {
        ingress: true,
        egress: has_egress_rules,
        rules: true,
    };
    let closed = PolicyTypes {
        ingress: true,
        egress: true,
        rules: false,
    };
    let items = match given(spec, "policyTypes") {
        None => return by_default,
        Some(Value::Array(items)) if items.is_empty() => return by_default,
        Some(Value::Array(items)) => items,
        Some(other) => {
            let message = format!(
                "{} instead of a list of Ingress and Egress; both directions are isolated and no rule counts",
                shown(other)
            );
            findings.error(&at, Reason::InvalidPolicyType, Consequence::MatchesNothing, message);
            return closed;
        }
    };
    let mut types = PolicyTypes {
        ingress: false,
        egress: false,
        rules: true,
    };
    for (position, item) in items.iter().enumerate() {
        match item.as_str() {
            Some("Ingress") => types.ingress = true,
            Some("Egress") => types.egress = true,
            _ => {
                let message = format!("{} is neither Ingress nor Egress (in this spelling)", shown(item));
                findings.error(
                    &at.index(position),
                    Reason::InvalidPolicyType,
                    Consequence::PartIgnored,
                    message,
                );
            }
        }
    }
    if types.ingress || types.egress {
        return types;
    }
    let message = "no entry is valid: both directions are isolated and no rule counts".to_owned();
    findings.error(&at, Reason::InvalidPolicyType, Consequence::MatchesNothing, message);
    closed
}

/// Shared by the parts of a policy: a clause with a field that Ringfence does not know. It might have narrowed the
/// clause, so the clause is closed.
fn rejects_unknown(
    fields: &Fields,
    known: &[&str],
    what: &str,
    reason: Reason,
    consequence: Consequence,
    at: &At<'_>,
    findings: &mut Findings,
) -> bool {
    let Some(field) = unknown_field(fields, known) else {
        return false;
    };
    let message = format!(
        "{what} has no such field, only {}; check the spelling",
        known.join(", ")
    );
    findings.error(&at.field(field), reason, consequence, message);
    true
}

#[cfg(test)]
mod tests;
