//! Which sandbox is a pod's, and what has changed since it was told last. Pure: lists in, changes out.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringfence_model::{NamespacedName, PodUid};

use crate::Change;
use crate::messages::PodSandbox;

/// The sandbox of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sandbox {
    pub(crate) id: String,
    /// `namespace/name` of the pod, for people.
    pub(crate) name: String,
    /// The same where the pod is a static one.
    static_pod: Option<NamespacedName>,
    attempt: u32,
    created_at: i64,
}

impl Sandbox {
    /// One that no runtime has told of.
    pub(crate) fn unlisted(id: String) -> Self {
        Self {
            id,
            name: String::new(),
            static_pod: None,
            attempt: 0,
            created_at: 0,
        }
    }

    /// When it was made; `None` where the runtime does not say.
    fn created(&self) -> Option<SystemTime> {
        let nanoseconds = u64::try_from(self.created_at).ok().filter(|since| *since > 0)?;
        UNIX_EPOCH.checked_add(Duration::from_nanos(nanoseconds))
    }
}

/// What is known of the place of a pod's sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Known {
    /// Where it is, or why that cannot be known.
    Place(Result<PathBuf, String>),
    /// It shares the node's network: as if it were not there.
    Node,
    /// The runtime could not be asked: what was told stands.
    NotAsked,
}

/// The newest sandbox of each pod: a pod whose sandbox has died gets another one, with a higher attempt, while the old
/// one may still be called ready for a moment. Sandboxes without a pod's UID are nobody's (they were made by hand).
pub(crate) fn newest(list: Vec<PodSandbox>) -> BTreeMap<PodUid, Sandbox> {
    let mut pods: BTreeMap<PodUid, Sandbox> = BTreeMap::new();
    for item in list.into_iter().filter(PodSandbox::is_ready) {
        let is_static = item.is_static();
        let Some(metadata) = item.metadata else { continue };
        let Ok(pod) = PodUid::new(&metadata.uid) else { continue };
        let sandbox = Sandbox {
            id: item.id,
            name: format!("{}/{}", metadata.namespace, metadata.name),
            static_pod: is_static.then(|| NamespacedName::new(metadata.namespace, metadata.name)),
            attempt: metadata.attempt,
            created_at: item.created_at,
        };
        let rank = |sandbox: &Sandbox| (sandbox.attempt, sandbox.created_at, sandbox.id.clone());
        match pods.get(&pod) {
            Some(other) if rank(other) >= rank(&sandbox) => {}
            _ => {
                pods.insert(pod, sandbox);
            }
        }
    }
    pods
}

/// What was told of each pod: its sandbox and its place.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pods: BTreeMap<PodUid, (Sandbox, Result<PathBuf, String>)>,
}

impl Told {
    /// Number of sandboxes with a place.
    pub(crate) fn placed(&self) -> usize {
        self.pods.values().filter(|(_, place)| place.is_ok()).count()
    }

    /// Whether anything was told of a pod, and not taken back.
    pub(crate) fn knows(&self, pod: &PodUid) -> bool {
        self.pods.contains_key(pod)
    }

    /// Takes in a complete list and gives what is news.
    pub(crate) fn update(&mut self, now: BTreeMap<PodUid, (Sandbox, Known)>) -> Vec<Change> {
        let mut changes = Vec::new();
        let before = std::mem::take(&mut self.pods);
        for (pod, old) in before {
            match now.get(&pod) {
                Some((_, Known::NotAsked | Known::Place(_))) => {
                    self.pods.insert(pod, old);
                }
                Some((_, Known::Node)) | None => changes.push(Change::Gone { pod }),
            }
        }
        for (pod, (sandbox, known)) in now {
            let Known::Place(place) = known else { continue };
            let new = (sandbox, place);
            if self.pods.get(&pod) == Some(&new) {
                continue;
            }
            let (sandbox, place) = new.clone();
            self.pods.insert(pod.clone(), new);
            changes.push(match place {
                Ok(path) => Change::Found {
                    pod,
                    path,
                    created: sandbox.created(),
                    sandbox: sandbox.id,
                    static_pod: sandbox.static_pod,
                },
                Err(reason) => Change::Unusable {
                    pod,
                    sandbox: sandbox.id,
                    reason,
                },
            });
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::messages::{CONFIG_SOURCE, PodSandboxMetadata};

    fn uid(text: &str) -> PodUid {
        PodUid::new(text).expect("valid")
    }

    fn item(id: &str, pod: &str, attempt: u32, created_at: i64) -> PodSandbox {
        PodSandbox {
            id: id.into(),
            metadata: Some(PodSandboxMetadata {
                name: "web".into(),
                uid: pod.into(),
                namespace: "shop".into(),
                attempt,
            }),
            state: 0,
            created_at,
            annotations: HashMap::new(),
        }
    }

    #[test]
    fn static_pods_are_called_by_their_names_and_no_others() {
        let made = |source: Option<&str>| {
            let mut item = item("a", "p", 0, 5);
            let source = source.map(|source| (CONFIG_SOURCE.to_owned(), source.to_owned()));
            item.annotations = source.into_iter().collect();
            let known = newest(vec![item]).into_iter();
            let known = known.map(|(pod, sandbox)| (pod, (sandbox, at("/n/1")))).collect();
            match &*Told::default().update(known) {
                [Change::Found { static_pod, .. }] => static_pod.clone(),
                other => panic!("{other:?}"),
            }
        };
        let name = NamespacedName::new("shop", "web");
        let cases = [None, Some("api"), Some("file"), Some("http")].map(made);
        assert_eq!(cases, [None, None, Some(name.clone()), Some(name)]);
    }

    #[track_caller]
    fn check_newest(list: Vec<PodSandbox>, expected: &[(&str, &str)]) {
        let mut backwards = list.clone();
        backwards.reverse();
        for list in [list, backwards] {
            let found = newest(list);
            let found: Vec<(&str, &str)> = found
                .iter()
                .map(|(pod, sandbox)| (pod.as_str(), &*sandbox.id))
                .collect();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn the_newest_ready_sandbox_of_a_pod_counts() {
        check_newest(vec![item("a", "p", 0, 9), item("b", "p", 1, 5)], &[("p", "b")]);
        check_newest(vec![item("a", "p", 0, 9), item("b", "p", 0, 5)], &[("p", "a")]);
        check_newest(vec![item("a", "p", 0, 5), item("b", "p", 0, 5)], &[("p", "b")]);
        check_newest(
            vec![item("a", "p", 0, 5), item("b", "q", 0, 5)],
            &[("p", "a"), ("q", "b")],
        );
        let stopped = PodSandbox {
            state: 1,
            ..item("b", "p", 1, 9)
        };
        check_newest(vec![item("a", "p", 0, 5), stopped], &[("p", "a")]);
        let nameless = PodSandbox {
            metadata: None,
            ..item("a", "p", 0, 5)
        };
        check_newest(vec![nameless, item("b", "", 0, 5), item("c", "a b", 0, 5)], &[]);
    }

    fn now(pods: &[(&str, &str, Known)]) -> BTreeMap<PodUid, (Sandbox, Known)> {
        let sandbox = |id: &str| Sandbox {
            id: id.to_owned(),
            name: "shop/web".to_owned(),
            static_pod: None,
            attempt: 0,
            created_at: 1_500_000_000,
        };
        pods.iter()
            .map(|(pod, id, known)| (uid(pod), (sandbox(id), known.clone())))
            .collect()
    }

    fn at(path: &str) -> Known {
        Known::Place(Ok(path.into()))
    }

    fn found(pod: &str, sandbox: &str, path: &str) -> Change {
        Change::Found {
            pod: uid(pod),
            path: path.into(),
            sandbox: sandbox.into(),
            created: Some(UNIX_EPOCH + Duration::from_millis(1500)),
            static_pod: None,
        }
    }

    #[test]
    fn only_news_is_told() {
        let mut told = Told::default();
        let first = now(&[("p", "a", at("/1")), ("q", "b", Known::Node)]);
        assert_eq!(told.update(first.clone()), [found("p", "a", "/1")]);
        assert_eq!(told.update(first), []);
        assert_eq!(told.placed(), 1);
        // Another sandbox of the same pod, at another place and at the same one.
        assert_eq!(told.update(now(&[("p", "c", at("/2"))])), [found("p", "c", "/2")]);
        assert_eq!(told.update(now(&[("p", "d", at("/2"))])), [found("p", "d", "/2")]);
        assert_eq!(told.update(now(&[])), [Change::Gone { pod: uid("p") }]);
        assert_eq!(told.update(now(&[])), []);
    }

    #[test]
    fn what_could_not_be_asked_changes_nothing() {
        let mut told = Told::default();
        told.update(now(&[("p", "a", at("/1"))]));
        assert_eq!(
            told.update(now(&[("p", "b", Known::NotAsked), ("q", "c", Known::NotAsked)])),
            []
        );
        assert_eq!(told.update(now(&[("p", "b", at("/2"))])), [found("p", "b", "/2")]);
    }

    #[test]
    fn a_place_that_cannot_be_known_is_told_once_and_mended() {
        let mut told = Told::default();
        let broken = now(&[("p", "a", Known::Place(Err("why".into())))]);
        let expected = Change::Unusable {
            pod: uid("p"),
            sandbox: "a".into(),
            reason: "why".into(),
        };
        assert_eq!(told.update(broken.clone()), [expected]);
        assert_eq!(told.update(broken), []);
        assert_eq!(told.placed(), 0);
        assert_eq!(told.update(now(&[("p", "a", at("/1"))])), [found("p", "a", "/1")]);
        // Moved to the node's network: as good as gone.
        assert_eq!(
            told.update(now(&[("p", "a", Known::Node)])),
            [Change::Gone { pod: uid("p") }]
        );
    }
}
