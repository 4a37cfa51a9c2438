//! Writes Events, one after the other.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, Error};
use ringfence_model::PolicyKind;
use serde_json::json;
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use super::correlate::{Correlator, Decision, Key};
use super::{About, Announcement, Counts, Identities, Outcome};
use crate::kind::Kind;

/// Who says it: `kubectl get events --field-selector reportingComponent=ringfence`.
const CONTROLLER: &str = "ringfence";

/// Limits of the API (pkg/apis/core/validation/events.go), in bytes.
const LONGEST_NOTE: usize = 1024;
const LONGEST_INSTANCE: usize = 128;

/// Of an object's name, so that with the mark behind it the Event's name is no longer than a name may be.
const LONGEST_NAME: usize = 230;

/// Waits before an Event is tried again that the API server did not answer.
const RETRIES: [Duration; 3] = [
    Duration::from_millis(500),
    Duration::from_secs(2),
    Duration::from_secs(5),
];

/// Sends what is announced, until nobody announces any more.
pub(crate) async fn run(
    client: Client,
    node: Arc<str>,
    identities: Identities,
    mut queue: mpsc::Receiver<Announcement>,
    counts: Arc<Counts>,
) {
    let mut sender = Sender {
        client,
        node,
        correlator: Correlator::new(Instant::now()),
        complained: false,
    };
    while let Some(announcement) = queue.recv().await {
        let Some(subject) = Subject::of(&announcement.about, &identities) else {
            debug!("What an Event was to be about is gone");
            counts.add(Outcome::Dropped);
            continue;
        };
        if let Some(outcome) = sender.tell(&announcement, &subject).await {
            counts.add(outcome);
        }
    }
}

/// The object that an Event is about.
#[derive(Debug, Clone, PartialEq)]
struct Subject {
    reference: ObjectReference,
    namespace: String,
    name: String,
    /// What the correlator knows it by.
    object: Box<str>,
    shared: bool,
}

impl Subject {
    fn of(about: &About, identities: &Identities) -> Option<Self> {
        let (kind, version, name, uid, object, shared) = match about {
            About::Pod { name, uid } => (Kind::Pod, "v1", name, uid.to_string(), uid.as_str().into(), false),
            About::Policy(key) => {
                let identity = identities.get(key)?;
                let object = format!("{}.{}", identity.uid, identity.generation);
                let (kind, version) = match key.kind {
                    PolicyKind::NetworkPolicy => (Kind::NetworkPolicy, "v1"),
                    PolicyKind::MultiNetworkPolicy => (Kind::MultiNetworkPolicy, "v1beta1"),
                    PolicyKind::NamespaceIsolation => return None,
                };
                (kind, version, &key.name, identity.uid.into(), object.into(), true)
            }
        };
        let api_version = match kind.group() {
            "" => version.to_owned(),
            group => format!("{group}/{version}"),
        };
        let reference = ObjectReference {
            api_version: Some(api_version),
            kind: Some(kind.as_str().to_owned()),
            namespace: Some(name.namespace.to_string()),
            name: Some(name.name.to_string()),
            uid: Some(uid),
            ..ObjectReference::default()
        };
        Some(Self {
            reference,
            namespace: name.namespace.to_string(),
            name: name.name.to_string(),
            object,
            shared,
        })
    }

    /// The Event's name.
    fn event(&self, mark: u64) -> String {
        let name = cut(&self.name, LONGEST_NAME).trim_end_matches(['.', '-']);
        format!("{name}.{mark:016x}")
    }
}

struct Sender {
    client: Client,
    node: Arc<str>,
    correlator: Correlator,
    /// What does not work has been said.
    complained: bool,
}

impl Sender {
    /// `None` where there was nothing to be sent.
    async fn tell(&mut self, announcement: &Announcement, subject: &Subject) -> Option<Outcome> {
        let note = cut(&announcement.note, LONGEST_NOTE);
        let key = Key {
            object: subject.object.clone(),
            reason: announcement.topic.reason(),
            note: note.into(),
            shared: subject.shared,
        };
        // Twice at most: an Event that should be counted may have expired.
        for _ in 0..2 {
            let nonce = announcement
                .at
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_micros();
            let nonce = u64::try_from(nonce).unwrap_or_default();
            let sent = match self.correlator.take(&key, nonce, Instant::now()) {
                Decision::Said => return None,
                Decision::Limited => return Some(Outcome::Dropped),
                Decision::Create { mark } => {
                    let event = event(announcement, subject, note, mark, &self.node);
                    self.create(subject, &event).await
                }
                Decision::Count { mark, count } => {
                    let last_observed_time = micro_time(announcement.at);
                    let series = EventSeries {
                        count,
                        last_observed_time,
                    };
                    self.count(subject, &subject.event(mark), &series).await
                }
            };
            match sent {
                Ok(()) => {
                    if std::mem::take(&mut self.complained) {
                        info!("Events are written again");
                    }
                    return Some(Outcome::Sent);
                }
                Err(Failure::Expired) => self.correlator.forget(&key),
                Err(Failure::Refused(error)) => {
                    self.correlator.forget(&key);
                    self.complain(&error);
                    return Some(Outcome::Failed);
                }
            }
        }
        Some(Outcome::Failed)
    }

    async fn create(&self, subject: &Subject, event: &Event) -> Result<(), Failure> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), &subject.namespace);
        let parameters = PostParams::default();
        patiently(async || match api.create(&parameters, event).await {
            // Another agent was first, or this one before its restart.
            Err(Error::Api(status)) if status.code == 409 => Ok(()),
            other => other.map(drop),
        })
        .await
        .map_err(|error| Failure::Refused(error.to_string()))
    }

    async fn count(&self, subject: &Subject, name: &str, series: &EventSeries) -> Result<(), Failure> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), &subject.namespace);
        let (parameters, patch) = (PatchParams::default(), Patch::Merge(json!({"series": series})));
        patiently(async || api.patch(name, &parameters, &patch).await.map(drop))
            .await
            .map_err(|error| match error {
                Error::Api(status) if status.code == 404 => Failure::Expired,
                other => Failure::Refused(other.to_string()),
            })
    }

    /// Once, until it works again.
    fn complain(&mut self, error: &str) {
        if std::mem::replace(&mut self.complained, true) {
            debug!(error, "An Event was not written");
        } else {
            warn!(
                error,
                "Events cannot be written: nothing else depends on them, and further ones are only counted"
            );
        }
    }
}

#[derive(Debug)]
enum Failure {
    /// There is no such Event (any more).
    Expired,
    /// In the API server's words.
    Refused(String),
}

/// Tries again where the server has not answered, or is busy: it has not judged the Event.
async fn patiently(mut attempt: impl AsyncFnMut() -> Result<(), Error>) -> Result<(), Error> {
    for wait in RETRIES {
        match attempt().await {
            Err(error) if is_passing(&error) => tokio::time::sleep(wait).await,
            other => return other,
        }
    }
    attempt().await
}

fn is_passing(error: &Error) -> bool {
    match error {
        Error::Api(status) => status.code == 429 || status.code >= 500,
        _ => true,
    }
}

fn event(announcement: &Announcement, subject: &Subject, note: &str, mark: u64, instance: &str) -> Event {
    Event {
        metadata: ObjectMeta {
            name: Some(subject.event(mark)),
            namespace: Some(subject.namespace.clone()),
            ..ObjectMeta::default()
        },
        event_time: Some(micro_time(announcement.at)),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(cut(instance, LONGEST_INSTANCE).to_owned()),
        action: Some(announcement.topic.action().to_owned()),
        reason: Some(announcement.topic.reason().to_owned()),
        type_: Some(announcement.topic.kind().to_owned()),
        note: Some(note.to_owned()),
        regarding: Some(subject.reference.clone()),
        ..Event::default()
    }
}

fn micro_time(time: SystemTime) -> MicroTime {
    MicroTime(Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH))
}

/// The beginning, whole characters only.
fn cut(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len()))
        .rev()
        .find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or_default()]
}

#[cfg(test)]
mod tests {
    use ringfence_model::{NamespacedName, PodUid, PolicyKey};

    use super::super::{Identity, Topic};
    use super::*;

    fn policy(kind: PolicyKind) -> About {
        About::Policy(PolicyKey {
            kind,
            name: NamespacedName::new("shop", "guard"),
        })
    }

    fn pod(name: &str) -> About {
        About::Pod {
            name: NamespacedName::new("shop", name),
            uid: PodUid::new("u1").expect("valid"),
        }
    }

    #[track_caller]
    fn check(about: &About, expected: Option<(&str, &str, &str, bool)>) {
        let identities = Identities::default();
        for kind in [PolicyKind::NetworkPolicy, PolicyKind::MultiNetworkPolicy] {
            let identity = Identity {
                uid: "p1".into(),
                generation: 7,
            };
            let name = NamespacedName::new("shop", "guard");
            identities.set(PolicyKey { kind, name }, identity);
        }
        let found = Subject::of(about, &identities);
        let found = found.as_ref().map(|subject| {
            (
                subject.reference.api_version.as_deref().unwrap_or_default(),
                subject.reference.kind.as_deref().unwrap_or_default(),
                &*subject.object,
                subject.shared,
            )
        });
        assert_eq!(found, expected);
    }

    #[test]
    fn events_refer_to_the_very_object() {
        check(&pod("web"), Some(("v1", "Pod", "u1", false)));
        check(
            &policy(PolicyKind::NetworkPolicy),
            Some(("networking.k8s.io/v1", "NetworkPolicy", "p1.7", true)),
        );
        check(
            &policy(PolicyKind::MultiNetworkPolicy),
            Some(("k8s.cni.cncf.io/v1beta1", "MultiNetworkPolicy", "p1.7", true)),
        );
        // Namespaces have no Events of Ringfence's: nobody keeps who they are.
        check(&policy(PolicyKind::NamespaceIsolation), None);
        let gone = About::Policy(PolicyKey {
            kind: PolicyKind::NetworkPolicy,
            name: NamespacedName::new("shop", "gone"),
        });
        check(&gone, None);
    }

    #[test]
    fn events_keep_the_limits_of_the_api() {
        let name = format!("{}-{}", "a".repeat(LONGEST_NAME - 1), "b".repeat(20));
        let subject = Subject::of(&pod(&name), &Identities::default()).expect("a pod");
        let announcement = Announcement {
            about: pod(&name),
            topic: Topic::PodEnforcementFailed,
            note: "ä".repeat(LONGEST_NOTE),
            at: UNIX_EPOCH + Duration::from_millis(1500),
        };
        let note = cut(&announcement.note, LONGEST_NOTE);
        let event = event(&announcement, &subject, note, 255, &"n".repeat(253));
        let name = event.metadata.name.expect("a name");
        assert_eq!(name, format!("{}.00000000000000ff", "a".repeat(LONGEST_NAME - 1)));
        assert_eq!(event.note.map(|note| note.len()), Some(LONGEST_NOTE));
        assert_eq!(event.reporting_instance.map(|node| node.len()), Some(LONGEST_INSTANCE));
        let time = serde_json::to_value(event.event_time).expect("JSON");
        assert_eq!(time, json!("1970-01-01T00:00:01.500000Z"));
        assert_eq!(
            (event.type_.as_deref(), event.reason.as_deref()),
            (Some("Warning"), Some("PodEnforcementFailed"))
        );
    }
}
