//! The shape of rules (RF401 to RF404).

use ringfence_model::{Direction, Note, Peers, Ports};

use super::world::World;
use super::{Code, Out};

pub(super) fn look(world: &World<'_>, position: usize, out: &mut Out) {
    let target = &world.policies[position];
    for note in target.notes {
        match note {
            Note::IgnoredRules { direction } => {
                let kind = kind(*direction);
                let message = format!("these rules have no effect, because policyTypes does not list {kind}");
                let hint = format!("add {kind} to spec.policyTypes, or take the rules away");
                out.say(
                    Code::RulesIgnored,
                    &target.source,
                    format!("spec.{direction}"),
                    message,
                    hint,
                );
            }
            Note::EmptyEgress => {
                let message = "without policyTypes an empty list of egress rules isolates nothing".to_owned();
                let hint = "to close egress write policyTypes: [Ingress, Egress]; else take the list away";
                out.say(Code::EmptyEgress, &target.source, "spec.egress", message, hint);
            }
            Note::EmptyList { path } => {
                let whom = if path.rsplit('.').next() == Some("ports") {
                    "every port"
                } else {
                    "everyone"
                };
                let message = format!("an empty list means {whom}, not nothing");
                let hint = format!("take the list away if {whom} is meant; else fill it, or take the rule away");
                out.say(Code::EmptyList, &target.source, path.as_str(), message, hint);
            }
            Note::InitPort { .. } | Note::UserspaceInterface { .. } => {}
        }
    }
    for direction in Direction::BOTH {
        let rules = target.policy.rules(direction).unwrap_or_default();
        let open = rules
            .iter()
            .position(|rule| rule.peers == Peers::All && rule.ports == Ports::All);
        if let Some(open) = open.filter(|_| rules.len() > 1) {
            let message = format!(
                "this rule allows everything, so the other {} of {direction} changes nothing",
                if rules.len() == 2 { "rule" } else { "rules" }
            );
            let hint = "take the rule away, or the others";
            let path = format!("spec.{direction}[{open}]");
            out.say(Code::AllowAllBeside, &target.source, path, message, hint);
        }
    }
}

fn kind(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "Ingress",
        Direction::Egress => "Egress",
    }
}
