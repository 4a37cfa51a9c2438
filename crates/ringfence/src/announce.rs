//! What the cluster is told, in words: Events for people who look at their pod or policy with kubectl.
//!
//! Pure: findings, states and repairs in, topics and notes out. Who is told, and how often, is the business of
//! `controller/announce.rs` and of [`ringfence_kube::announce`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ringfence_kube::announce::Topic;
use ringfence_model::{Consequence, Diagnostic, NetworkName, Reason, Severity};

use crate::event::Drift;
use crate::snapshot::{Isolation, State};

/// Findings that a note names; the others are counted.
const NAMED: usize = 3;

/// Plugins whose packets, or some of them, never pass the kernel, and why: no rule of any kind applies to those.
const PAST_THE_KERNEL: [(&str, &str); 3] = [
    ("userspace", "its packets are made and read in user space"),
    ("rdma", "RDMA does not pass the kernel"),
    ("ib-sriov", "RDMA does not pass the kernel"),
];

/// Events of one manifest out of everything that is wrong with it. They depend on that alone and not on what was known
/// before, so that all agents say the same of a policy.
pub fn findings<'a>(findings: impl Iterator<Item = &'a Diagnostic>) -> Vec<(Topic, String)> {
    let mut topics: BTreeMap<Topic, BTreeSet<&Diagnostic>> = BTreeMap::new();
    for finding in findings {
        if let Some(topic) = topic(finding) {
            topics.entry(topic).or_default().insert(finding);
        }
    }
    topics
        .into_iter()
        .map(|(topic, findings)| (topic, listed(&findings)))
        .collect()
}

/// Whether a finding is worth an Event, and under which name. Warnings are legal input: `/policies` and the log have them.
fn topic(finding: &Diagnostic) -> Option<Topic> {
    if finding.severity != Severity::Error {
        return None;
    }
    match &*finding.source.kind {
        "NetworkPolicy" | "MultiNetworkPolicy" => Some(match finding.consequence {
            Consequence::MatchesNothing | Consequence::PartIgnored | Consequence::KeepsLast | Consequence::None => {
                Topic::ClauseRejected
            }
            Consequence::SelectsNothing | Consequence::ActsNowhere | Consequence::ObjectIgnored => {
                Topic::PolicyRejected
            }
        }),
        "Pod" if finding.reason == Reason::DuplicateAddress => Some(Topic::AddressConflict),
        "Pod" => Some(Topic::InvalidAnnotation),
        _ => None,
    }
}

fn listed(findings: &BTreeSet<&Diagnostic>) -> String {
    let one = |finding: &&Diagnostic| {
        let place = if finding.path.is_empty() {
            String::new()
        } else {
            format!("{}: ", finding.path)
        };
        format!("{place}{}; {}", finding.message, finding.consequence)
    };
    let mut parts: Vec<String> = findings.iter().take(NAMED).map(one).collect();
    let more = findings.len().saturating_sub(NAMED);
    if more > 0 {
        parts.push(format!(
            "And {more} more; GET /policies and /pods/NAME of the agent have all of them"
        ));
    }
    parts.join(". ")
}

/// What has been told of a pod and may need to be taken back.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Told {
    failed: bool,
    held: bool,
    unsupported: BTreeSet<String>,
}

/// A pod is in another state than before.
pub fn state(told: &mut Told, state: &State) -> Option<(Topic, String)> {
    match state {
        State::Failed(reason) => {
            told.failed = true;
            let note = format!("Its network policies cannot be put in force, and this is tried again: {reason}");
            Some((Topic::PodEnforcementFailed, note))
        }
        State::Held(reason) => {
            told.held = true;
            Some((Topic::PodHeld, in_a_sentence(reason)))
        }
        // Good news of what nobody heard of is no news.
        State::Enforced | State::Open => {
            let (failed, held) = (std::mem::take(&mut told.failed), std::mem::take(&mut told.held));
            let now = if *state == State::Open {
                "No network policy isolates it"
            } else {
                "Its network policies are in force"
            };
            if failed {
                Some((Topic::PodEnforcementRecovered, format!("{now} again")))
            } else {
                held.then(|| (Topic::PodReleased, format!("{now}: all that may isolate it is known")))
            }
        }
        State::Pending(_) => None,
    }
}

/// Somebody changed the rules of a pod, and they are as they were.
pub fn repaired(drift: &Drift) -> (Topic, String) {
    let note = format!(
        "Somebody changed Ringfence's rules in its network namespace, and they were put back: {}",
        drift.detail
    );
    (Topic::RulesRepaired, note)
}

/// The plugin of a network whose packets do not pass the kernel.
pub fn past_the_kernel(plugins: &[Arc<str>]) -> Option<&'static str> {
    PAST_THE_KERNEL
        .into_iter()
        .map(|(plugin, _)| plugin)
        .find(|plugin| plugins.iter().any(|it| **it == **plugin))
}

/// Which isolated interfaces of a pod cannot be protected, as far as that has not been told. `plugin` says what is known of
/// a network.
pub fn unsupported(
    told: &mut Told,
    isolation: &[Isolation],
    plugin: impl Fn(&NetworkName) -> Option<&'static str>,
) -> Vec<(Topic, String)> {
    let mut notes = BTreeSet::new();
    for isolation in isolation {
        for network in &isolation.networks {
            let Some((plugin, why)) =
                plugin(network).and_then(|plugin| PAST_THE_KERNEL.into_iter().find(|(name, _)| *name == plugin))
            else {
                continue;
            };
            let interface = isolation.interface.as_ref().map_or("an interface", |it| it.as_str());
            notes.insert(format!(
                "Network policies isolate {interface}, but network {network} is made by the plugin {plugin}: {why}, and no rule \
                 applies to that"
            ));
        }
    }
    let news = notes.difference(&told.unsupported);
    let news = news.map(|note| (Topic::UnsupportedNetwork, note.clone())).collect();
    told.unsupported = notes;
    news
}

fn in_a_sentence(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_uppercase().to_string());
    first.unwrap_or_default() + characters.as_str()
}

#[cfg(test)]
mod tests {
    use ringfence_model::{Direction, InterfaceName, NamespacedName};

    use super::*;
    use crate::testing;

    fn finding(kind: &str, path: &str, reason: Reason, consequence: Consequence) -> Diagnostic {
        Diagnostic {
            consequence,
            ..testing::finding(&testing::source(kind, "shop/x"), path, reason)
        }
    }

    #[track_caller]
    fn check(list: &[Diagnostic], expected: &[(Topic, &str)]) {
        let found = findings(list.iter());
        let found: Vec<(Topic, &str)> = found.iter().map(|(topic, note)| (*topic, &**note)).collect();
        assert_eq!(found, expected);
        let mut backwards = list.to_vec();
        backwards.reverse();
        assert_eq!(findings(backwards.iter()).len(), expected.len());
    }

    #[test]
    fn findings_become_one_event_per_topic() {
        let cidr = |path: &str| finding("NetworkPolicy", path, Reason::InvalidCidr, Consequence::MatchesNothing);
        check(&[], &[]);
        check(
            &[cidr("spec.ingress[0].from[1].ipBlock.cidr")],
            &[(
                Topic::ClauseRejected,
                "spec.ingress[0].from[1].ipBlock.cidr: invalid_cidr is wrong; it matches nothing; the policy still isolates",
            )],
        );
        check(
            &[
                cidr("a"),
                finding("MultiNetworkPolicy", "", Reason::NoNetworks, Consequence::ActsNowhere),
            ],
            &[
                (
                    Topic::ClauseRejected,
                    "a: invalid_cidr is wrong; it matches nothing; the policy still isolates",
                ),
                (
                    Topic::PolicyRejected,
                    "no_networks is wrong; the policy acts on no network",
                ),
            ],
        );
        let five: Vec<Diagnostic> = ["a", "b", "c", "d", "e"].map(cidr).into();
        let found = findings(five.iter());
        let note = &found[0].1;
        assert!(
            note.contains("a: ") && note.contains("c: ") && !note.contains("d: "),
            "{note}"
        );
        assert!(note.contains("And 2 more"), "{note}");
    }

    #[test]
    fn pods_hear_of_their_annotations_and_addresses() {
        let part = Consequence::PartIgnored;
        check(
            &[
                finding("Pod", "metadata.annotations[cni]", Reason::InvalidAnnotation, part),
                finding("Pod", "", Reason::DuplicateAddress, part),
            ],
            &[
                (
                    Topic::InvalidAnnotation,
                    "metadata.annotations[cni]: invalid_annotation is wrong; this part is ignored; the rest counts",
                ),
                (
                    Topic::AddressConflict,
                    "duplicate_address is wrong; this part is ignored; the rest counts",
                ),
            ],
        );
        // Legal, or nobody's object.
        let warning = Diagnostic {
            severity: Severity::Warning,
            ..finding("Pod", "a", Reason::StaleAnnotation, part)
        };
        check(&[warning], &[]);
        check(&[finding("File", "a", Reason::Syntax, Consequence::KeepsLast)], &[]);
    }

    #[test]
    fn good_news_follow_bad_ones_only() {
        let mut told = Told::default();
        let mut say = |now: State| state(&mut told, &now).map(|(topic, _)| topic.reason());
        assert_eq!(say(State::Pending("new".into())), None);
        assert_eq!(say(State::Enforced), None);
        assert_eq!(say(State::Failed("EPERM".into())), Some("PodEnforcementFailed"));
        assert_eq!(say(State::Failed("ENOMEM".into())), Some("PodEnforcementFailed"));
        assert_eq!(say(State::Pending("it is opened".into())), None);
        assert_eq!(say(State::Enforced), Some("PodEnforcementRecovered"));
        assert_eq!(say(State::Open), None);
        assert_eq!(say(State::Held("its rules stay".into())), Some("PodHeld"));
        assert_eq!(say(State::Enforced), Some("PodReleased"));
        assert_eq!(say(State::Enforced), None);
    }

    #[test]
    fn s163_isolated_interfaces_past_the_kernel_are_told_once() {
        let network = NetworkName::Namespaced(NamespacedName::new("shop", "fast"));
        let isolated = |network: &NetworkName| Isolation {
            interface: Some(InterfaceName::new("net1").expect("valid")),
            networks: BTreeSet::from([network.clone()]),
            direction: Direction::Ingress,
            policies: Vec::new(),
        };
        let plugin = |name: &NetworkName| (*name == network).then_some("userspace");
        let mut told = Told::default();
        let both = [isolated(&network), isolated(&NetworkName::Default)];
        let found = unsupported(&mut told, &both, plugin);
        let expected = "Network policies isolate net1, but network shop/fast is made by the plugin userspace: its packets are \
                        made and read in user space, and no rule applies to that";
        assert_eq!(found, [(Topic::UnsupportedNetwork, expected.to_owned())]);
        assert_eq!(unsupported(&mut told, &both, plugin), []);
        assert_eq!(unsupported(&mut told, &[], plugin), []);
        assert_eq!(unsupported(&mut told, &both, plugin).len(), 1, "isolated again");
        assert_eq!(past_the_kernel(&["bridge".into(), "tuning".into()]), None);
        assert_eq!(past_the_kernel(&["bridge".into(), "rdma".into()]), Some("rdma"));
    }

    #[test]
    fn repairs_say_what_was_changed() {
        let drift = Drift {
            reason: "chain",
            detail: "chain net1-in is gone".to_owned(),
        };
        let (topic, note) = repaired(&drift);
        assert_eq!(topic.reason(), "RulesRepaired");
        assert!(note.ends_with("put back: chain net1-in is gone"), "{note}");
        assert_eq!(in_a_sentence("its rules"), "Its rules");
        assert_eq!(in_a_sentence(""), "");
    }
}
