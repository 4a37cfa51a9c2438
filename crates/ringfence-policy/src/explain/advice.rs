//! What to do about a verdict.

use ringfence_model::{Direction, PolicyKind};

use super::{Judgement, Side};
use crate::evaluate::{Because, Clause, Decision, DirectionVerdict, NearMiss, Shortfall};

/// Near misses in the order in which people want to hear of them: only the port is wrong; only the labels, the namespace
/// or an `except`; only the network; the pod has ended or lost the address; a clause is invalid; a block is about other
/// addresses, which it nearly always is; within each as the manifests have them.
pub fn best_first(verdict: &DirectionVerdict) -> Vec<&NearMiss> {
    let mut sorted: Vec<&NearMiss> = verdict.near_misses.iter().collect();
    sorted.sort_by_key(|miss| distance(&miss.why));
    sorted
}

fn distance(why: &Shortfall) -> u8 {
    match why {
        Shortfall::OtherPort { .. }
        | Shortfall::NamedPortElsewhere { .. }
        | Shortfall::NamedPortUndeclared { .. }
        | Shortfall::NamedPortWithoutPod(_) => 0,
        Shortfall::PodLabels(_) | Shortfall::Namespace(_) | Shortfall::Excepted(_) => 1,
        Shortfall::OtherNetwork { .. } => 2,
        Shortfall::Superseded { .. } | Shortfall::Ended(_) | Shortfall::HostNetwork(_) => 3,
        Shortfall::Invalid => 4,
        Shortfall::OutsideBlock(_) => 5,
        Shortfall::NoPod(_) => 6,
    }
}

/// One or two sentences about what to do, without a full stop at the end.
pub fn advice(judgement: &Judgement) -> String {
    let verdict = &judgement.verdict;
    let mut sentences = Vec::new();
    for (direction, half) in [
        (Direction::Egress, &verdict.egress),
        (Direction::Ingress, &verdict.ingress),
    ] {
        if half.decision == Decision::Deny {
            sentences.push(remedy(judgement, direction, half));
        }
    }
    match sentences.as_slice() {
        [] if verdict.egress.because == Because::NotIsolated && verdict.ingress.because == Because::NotIsolated => {
            "nothing: no policy isolates either end on these interfaces, so everything passes".to_owned()
        }
        [] => "nothing: it passes".to_owned(),
        [one] => one.clone(),
        both => format!("both ends must allow it: {}", both.join("; and ")),
    }
}

fn remedy(judgement: &Judgement, direction: Direction, half: &DirectionVerdict) -> String {
    if half.because == Because::RouterMessage {
        return "nothing can allow it: an isolated pod is no router".to_owned();
    }
    let (other, word) = match direction {
        Direction::Ingress => (&judgement.from, "from"),
        Direction::Egress => (&judgement.to, "to"),
    };
    let what = judgement.what;
    let best = best_first(half).into_iter().next();
    let Some(NearMiss { clause, why }) = best else {
        let addition = format!("a rule that allows {what} {word} {}", name(other));
        return match half
            .isolating
            .iter()
            .find(|key| key.kind != PolicyKind::NamespaceIsolation)
        {
            Some(policy) => format!("give {policy}, or another policy that selects this pod, {addition}"),
            None => format!("give a policy that selects this pod {addition}"),
        };
    };
    let policy = &clause.policy;
    match why {
        Shortfall::OtherPort { .. } | Shortfall::NamedPortElsewhere { .. } => {
            format!(
                "add {what} to {} of {policy}, or use a port that it allows",
                siblings(clause)
            )
        }
        Shortfall::NamedPortUndeclared { pod, name, protocol } => format!(
            "declare {protocol} port {name} in a container of pod {pod}, or write the number into {} of {policy}",
            clause.path
        ),
        Shortfall::NamedPortWithoutPod(_) => {
            format!("write the number instead of the name into {} of {policy}", clause.path)
        }
        Shortfall::Invalid => format!("correct {} of {policy}, which matches nothing as it is", clause.path),
        Shortfall::PodLabels(pod) => format!(
            "let {} of {policy} select the labels of pod {pod}, or add a peer for them to {}",
            clause.path,
            siblings(clause)
        ),
        Shortfall::Namespace(pod) => format!(
            "add a peer to {} of {policy} whose namespaceSelector selects namespace {}",
            siblings(clause),
            pod.namespace
        ),
        Shortfall::OutsideBlock(_) | Shortfall::Excepted(_) | Shortfall::NoPod(_) => {
            format!("add a peer for {} to {} of {policy}", name(other), siblings(clause))
        }
        Shortfall::OtherNetwork { pod, network } => format!(
            "use an address that pod {pod} has on network {}: by its address on {network} no selector knows it here; or \
             add an ipBlock for {} to {}",
            judgement.network,
            other.address,
            siblings(clause)
        ),
        Shortfall::HostNetwork(_) => format!(
            "allow {} by an ipBlock: selectors never match pods on their node's network",
            other.address
        ),
        Shortfall::Ended(pod) => format!("ask about a pod that runs: {pod} has ended and has no rights any more"),
        Shortfall::Superseded { pod, holder } => format!(
            "give pod {pod} an address of its own, or delete the one of {pod} and {holder} that has no business there"
        ),
    }
}

/// The list that a clause is in: `ingress[0].ports[2]` is in `ingress[0].ports`.
fn siblings(clause: &Clause) -> &str {
    clause
        .path
        .rfind('[')
        .map_or(clause.path.as_str(), |end| &clause.path[..end])
}

fn name(side: &Side) -> String {
    match &side.pod {
        Some(pod) => format!("pod {pod}"),
        None => format!("address {}", side.address),
    }
}
