//! An answer for people.

use std::fmt::{self, Display, Write as _};

use ringfence_model::Diagnostic;
use ringfence_policy::evaluate::{Decision, DirectionVerdict};
use ringfence_policy::explain::{Answer, Judgement, Side, advice, best_first};

use super::is_plural;
use crate::manifests::plain;

/// More clauses than this are counted and not listed.
const CLAUSES: usize = 5;

/// A block per judgement, what is wrong with the manifests concerned, and what to do.
pub fn write(answer: &Answer, findings: &[&Diagnostic]) -> String {
    let mut out = Lines::default();
    for (number, judgement) in answer.judgements.iter().enumerate() {
        if number > 0 {
            out.blank();
        }
        block(&mut out, judgement);
    }
    if !answer.notes.is_empty() {
        out.blank();
    }
    for note in &answer.notes {
        out.line(format_args!("not judged: {note}"));
    }
    out.blank();
    for finding in findings {
        out.line(format_args!("rejected: {finding}"));
    }
    if let Some(judgement) = answer.deciding() {
        if is_plural(answer) && answer.decision() == Decision::Allow {
            out.line(format_args!("to do: nothing: it passes on each of these networks"));
        } else if is_plural(answer) {
            out.line(format_args!(
                "to do on network {}: {}",
                judgement.network,
                advice(judgement)
            ));
        } else {
            out.line(format_args!("to do: {}", advice(judgement)));
        }
    }
    out.0
}

fn block(out: &mut Lines, judgement: &Judgement) {
    let word = match judgement.verdict.decision() {
        Decision::Allow => "ALLOW",
        Decision::Deny => "DENY",
    };
    out.line(format_args!(
        "{word} {} on network {}",
        judgement.what, judgement.network
    ));
    out.line(format_args!("  from {}", place(&judgement.from)));
    out.line(format_args!("  to   {}", place(&judgement.to)));
    half(out, "egress", &judgement.from, &judgement.verdict.egress);
    half(out, "ingress", &judgement.to, &judgement.verdict.ingress);
    for note in &judgement.notes {
        out.line(format_args!("note: {note}"));
    }
}

fn half(out: &mut Lines, direction: &str, side: &Side, verdict: &DirectionVerdict) {
    let name = side
        .pod
        .as_ref()
        .map_or_else(|| side.address.to_string(), ToString::to_string);
    out.line(format_args!(
        "{direction} of {name}: {}, {}",
        verdict.decision, verdict.because
    ));
    for policy in &verdict.isolating {
        out.line(format_args!("  isolated by {policy}"));
    }
    list(out, "allowed by", verdict.allowed_by.iter());
    let misses = best_first(verdict).into_iter();
    list(
        out,
        "near miss",
        misses.map(|miss| format!("{}: {}", miss.clause, miss.why)),
    );
}

fn list<T: Display>(out: &mut Lines, what: &str, items: impl ExactSizeIterator<Item = T>) {
    let more = items.len().saturating_sub(CLAUSES);
    for item in items.take(CLAUSES) {
        out.line(format_args!("  {what} {item}"));
    }
    if more > 0 {
        out.line(format_args!("  {what}: {more} more, which the JSON form lists"));
    }
}

fn place(side: &Side) -> String {
    match (&side.pod, &side.interface) {
        (None, _) => format!("{}, no pod's address", side.address),
        (Some(pod), Some(interface)) => format!("pod {pod}, {interface}, {}", side.address),
        (Some(pod), None) => format!("pod {pod}, an interface without a name, {}", side.address),
    }
}

/// Lines in which no text out of a manifest makes a line of its own.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn line(&mut self, text: fmt::Arguments<'_>) {
        let _ = writeln!(self.0, "{}", plain(&text.to_string()));
    }

    fn blank(&mut self) {
        self.0.push('\n');
    }
}
