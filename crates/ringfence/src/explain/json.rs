//! An answer for programs. The fields are described in `docs/explain.md`.

use ringfence_model::{Diagnostic, InterfaceName};
use ringfence_policy::evaluate::{Decision, DirectionVerdict};
use ringfence_policy::explain::{Answer, Judgement, Side, advice, best_first};
use serde_json::{Value, json};

use crate::http::diagnostic;

/// The judgement that decides with everything about the question, and the others beside it.
pub fn value(answer: &Answer, findings: &[&Diagnostic]) -> Value {
    let Some(deciding) = answer.deciding() else {
        return Value::Null;
    };
    let mut out = judgement(deciding);
    let others = answer.judgements.iter().filter(|it| !std::ptr::eq(*it, deciding));
    out["others"] = others.map(judgement).collect();
    out["not_judged"] = json!(answer.notes);
    out["diagnostics"] = findings.iter().map(|finding| diagnostic(finding)).collect();
    out
}

fn judgement(judgement: &Judgement) -> Value {
    let mut out = json!({
        "verdict": judgement.verdict.decision().as_str(),
        "network": judgement.network.to_string(),
        "protocol": judgement.what.protocol(),
        "port": judgement.what.port(),
    });
    if let Some(number) = judgement.what.number() {
        out["number"] = number.into();
    }
    out["from"] = side(&judgement.from);
    out["to"] = side(&judgement.to);
    out["egress"] = half(&judgement.verdict.egress);
    out["ingress"] = half(&judgement.verdict.ingress);
    out["notes"] = json!(judgement.notes);
    out["advice"] = advice(judgement).into();
    out
}

fn side(side: &Side) -> Value {
    json!({
        "pod": side.pod.as_ref().map(ToString::to_string),
        "address": side.address,
        "interface": side.interface.as_ref().map(InterfaceName::as_str),
    })
}

fn half(verdict: &DirectionVerdict) -> Value {
    let texts = |items: &mut dyn Iterator<Item = String>| items.collect::<Vec<String>>();
    let mut out = json!({
        "verdict": verdict.decision.as_str(),
        "because": verdict.because.to_string(),
        "isolating": texts(&mut verdict.isolating.iter().map(ToString::to_string)),
        "allowed_by": texts(&mut verdict.allowed_by.iter().map(ToString::to_string)),
    });
    if verdict.decision == Decision::Deny {
        let misses = best_first(verdict).into_iter();
        out["near_misses"] = misses
            .map(|miss| json!({ "clause": miss.clause.to_string(), "why": miss.why.to_string() }))
            .collect();
    }
    out
}
