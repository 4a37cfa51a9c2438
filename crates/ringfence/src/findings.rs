//! What is wrong with the inputs, as it stands: each finding is logged once when it appears and once when it is
//! resolved, and counted as long as it stands (invariant 4: nothing invalid vanishes).

use std::sync::Arc;

use imbl::OrdMap;
use ringfence_model::{Diagnostic, Severity, Source};
use tracing::{info, warn};

/// Who has found it. The finders report separately about one manifest, and none may wipe out what another has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Finder {
    /// The source and its decoder, about an object or a file.
    Source,
    /// The index, about objects that contradict each other.
    Index,
    /// The agent, about a pod that it cannot find a place for.
    Agent,
    /// The agent, about what a local pod's annotations claim and its interfaces contradict.
    Claims,
}

/// Findings by manifest and finder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FindingKey {
    /// The manifest.
    pub source: Source,
    /// Who has found it.
    pub finder: Finder,
}

impl FindingKey {
    /// The keys under which findings about one manifest may stand.
    pub fn all_about(kind: &str, name: &str) -> [Self; 4] {
        let source = Source {
            kind: kind.into(),
            name: name.into(),
        };
        [Finder::Source, Finder::Index, Finder::Agent, Finder::Claims].map(|finder| Self {
            source: source.clone(),
            finder,
        })
    }
}

/// All findings that stand.
#[derive(Debug, Default)]
pub struct Findings {
    standing: OrdMap<FindingKey, Arc<[Diagnostic]>>,
}

/// What a report has changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Findings that did not stand before.
    pub appeared: Vec<Diagnostic>,
    /// Findings that do not stand any more.
    pub resolved: Vec<Diagnostic>,
}

impl Findings {
    /// What stands.
    pub fn standing(&self) -> &OrdMap<FindingKey, Arc<[Diagnostic]>> {
        &self.standing
    }

    /// Replaces what one finder has said about one manifest.
    pub fn replace(&mut self, finder: Finder, source: &Source, mut findings: Vec<Diagnostic>) -> Change {
        findings.sort();
        findings.dedup();
        let key = FindingKey {
            source: source.clone(),
            finder,
        };
        let before = self.standing.get(&key).map(Arc::clone);
        let before = before.as_deref().unwrap_or_default();
        let change = Change {
            appeared: missing_from(&findings, before),
            resolved: missing_from(before, &findings),
        };
        if findings.is_empty() {
            self.standing.remove(&key);
        } else if !change.appeared.is_empty() || !change.resolved.is_empty() {
            self.standing.insert(key, findings.into());
        }
        change
    }

    /// Replaces everything that one finder has said.
    pub fn replace_all(&mut self, finder: Finder, findings: impl IntoIterator<Item = Diagnostic>) -> Change {
        let mut by_source: std::collections::BTreeMap<Source, Vec<Diagnostic>> = self
            .standing
            .keys()
            .filter(|key| key.finder == finder)
            .map(|key| (key.source.clone(), Vec::new()))
            .collect();
        for finding in findings {
            by_source.entry(finding.source.clone()).or_default().push(finding);
        }
        let mut change = Change::default();
        for (source, findings) in by_source {
            let one = self.replace(finder, &source, findings);
            change.appeared.extend(one.appeared);
            change.resolved.extend(one.resolved);
        }
        change
    }
}

/// Those of the first that are not in the second; both are sorted.
fn missing_from(some: &[Diagnostic], others: &[Diagnostic]) -> Vec<Diagnostic> {
    some.iter()
        .filter(|it| others.binary_search(it).is_err())
        .cloned()
        .collect()
}

impl Change {
    /// One line for each finding that appeared or was resolved. Texts are handed over as strings and not as `Display`:
    /// both formats escape strings, so that no text out of a manifest writes a log line of its own.
    pub fn log(&self) {
        for finding in &self.appeared {
            warn!(
                manifest = finding.source.to_string().as_str(),
                path = finding.path.as_str(),
                severity = match finding.severity {
                    Severity::Warning => "warning",
                    Severity::Error => "error",
                },
                reason = finding.reason.as_str(),
                detail = finding.message.as_str(),
                consequence = finding.consequence.to_string().as_str(),
                "Bad input"
            );
        }
        for finding in &self.resolved {
            info!(
                manifest = finding.source.to_string().as_str(),
                path = finding.path.as_str(),
                reason = finding.reason.as_str(),
                detail = finding.message.as_str(),
                "Bad input resolved"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use ringfence_model::Reason;

    use super::*;
    use crate::testing::{finding, source};

    fn paths(findings: &[Diagnostic]) -> Vec<&str> {
        findings.iter().map(|finding| &*finding.path).collect()
    }

    #[track_caller]
    fn check(change: &Change, appeared: &[&str], resolved: &[&str]) {
        assert_eq!(paths(&change.appeared), appeared, "appeared");
        assert_eq!(paths(&change.resolved), resolved, "resolved");
    }

    #[test]
    fn a_finding_appears_once_while_it_stands_and_is_resolved_once() {
        let guard = source("MultiNetworkPolicy", "x/guard");
        let find = |path: &str| finding(&guard, path, Reason::InvalidCidr);
        let mut findings = Findings::default();
        let mut say = |list: &[&str]| {
            let list = list.iter().map(|path| find(path)).collect();
            findings.replace(Finder::Source, &guard, list)
        };
        check(&say(&["a", "b"]), &["a", "b"], &[]);
        check(&say(&["b", "a"]), &[], &[]);
        check(&say(&["b", "b", "c"]), &["c"], &["a"]);
        check(&say(&[]), &[], &["b", "c"]);
        check(&say(&[]), &[], &[]);
        check(&say(&["a"]), &["a"], &[]);
    }

    #[test]
    fn finders_do_not_wipe_out_each_other() {
        let web = source("Pod", "x/web");
        let mut findings = Findings::default();
        findings.replace(Finder::Source, &web, vec![finding(&web, "a", Reason::InvalidAddress)]);
        let conflict = || vec![finding(&web, "", Reason::DuplicateAddress)];
        check(&findings.replace_all(Finder::Index, conflict()), &[""], &[]);
        check(&findings.replace_all(Finder::Index, conflict()), &[], &[]);
        check(&findings.replace(Finder::Source, &web, Vec::new()), &[], &["a"]);
        assert_eq!(findings.standing().len(), 1);
        check(&findings.replace_all(Finder::Index, Vec::new()), &[], &[""]);
        assert!(findings.standing().is_empty());
    }
}
