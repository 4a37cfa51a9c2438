//! Drives the watches: one task each, one loop that makes batches of what they say.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use kube::Client;
use ringfence_model::Source;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::merge::Merge;
use super::outage::Outage;
use super::raw::{MultiNetworkPolicies, Namespaces, NetworkAttachmentDefinitions, NetworkPolicies, Pods, PodsMetadata};
use super::schema::{self, Hints, Seen};
use super::stream::{self, Said, Stream, Trouble};
use super::{Health, Options, State};
use crate::announce::Identities;
use crate::directory::Update;
use crate::kind::Kind;

/// Objects of one batch at most: the kernel hears of the first ones while the next are still being decoded.
const BATCH: usize = 512;

/// A policy that needs full pods and goes again should not have them listed twice in a minute.
const KEEP_FULL: Duration = Duration::from_secs(60);

/// Which watch, and which of those that were started under that name.
type Tag = (Stream, u32);

/// What is asked of remote pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Detail {
    Metadata,
    Full,
}

pub(super) struct Runner {
    client: Client,
    options: Options,
    batches: mpsc::Sender<Vec<Update>>,
    publish: watch::Sender<Arc<[Health]>>,
    merge: Merge,
    health: BTreeMap<Stream, Health>,
    tasks: BTreeMap<Stream, (u32, JoinHandle<()>)>,
    outage: Outage,
    /// For the look at the schema of MultiNetworkPolicy.
    hints: Arc<Hints>,
    detail: Detail,
    /// The server knows the field selector spec.hostNetwork.
    selects_host_network: bool,
    full_until: Option<Instant>,
    synced: bool,
    /// The unread kinds that the agent has been told of.
    told: Vec<Source>,
}

impl Runner {
    pub(super) fn new(
        client: Client,
        options: Options,
        batches: mpsc::Sender<Vec<Update>>,
        publish: watch::Sender<Arc<[Health]>>,
        identities: Identities,
    ) -> Self {
        let now = SystemTime::now();
        let health = |stream| Health {
            stream,
            state: State::Listing,
            since: now,
            synced: false,
            objects: 0,
            events: 0,
            lists: 0,
            errors: [0; Trouble::LABELS.len()],
        };
        Self {
            merge: Merge::new(options.scope, identities),
            health: Stream::ALL.into_iter().map(|stream| (stream, health(stream))).collect(),
            client,
            options,
            batches,
            publish,
            tasks: BTreeMap::new(),
            outage: Outage::default(),
            hints: Arc::default(),
            detail: Detail::Metadata,
            selects_host_network: true,
            full_until: None,
            synced: false,
            told: Vec::new(),
        }
    }

    pub(super) async fn run(mut self) {
        let (out, mut inbox) = mpsc::channel(BATCH);
        let (looks, mut seen) = mpsc::channel(1);
        tokio::spawn(schema::run(self.client.clone(), Arc::clone(&self.hints), looks));
        for stream in Stream::ALL {
            self.start(stream, &out);
        }
        let mut said = Vec::with_capacity(BATCH);
        loop {
            self.publish();
            let until = self.full_until;
            let mut report = None;
            tokio::select! {
                Some(seen) = seen.recv() => report = Some(self.schema_seen(seen, &out)),
                count = inbox.recv_many(&mut said, BATCH) => if count == 0 { return },
                () = async { tokio::time::sleep_until(until.unwrap_or_else(Instant::now)).await }, if until.is_some() => {}
            }
            for (tag, said) in said.drain(..) {
                self.take(tag, said, &out);
            }
            self.choose_detail(&out);
            self.list_namespaces(&out);
            let mut updates = self.merge.updates();
            updates.extend(report);
            let unread = self.unread();
            if self.synced {
                if unread != self.told {
                    updates.push(Update::Unread(unread.clone()));
                    self.told = unread;
                }
            } else if self.health.values().all(settled) {
                self.synced = true;
                updates.push(Update::Synced { unread: unread.clone() });
                self.told = unread;
            }
            // The agent is gone, or going.
            if !updates.is_empty() && self.batches.send(updates).await.is_err() {
                return;
            }
        }
    }

    fn start(&mut self, stream: Stream, out: &mpsc::Sender<(Tag, Said)>) {
        let generation = match self.tasks.remove(&stream) {
            Some((generation, task)) => {
                task.abort();
                generation + 1
            }
            None => 0,
        };
        let tag = (stream, generation);
        let (client, out, node) = (self.client.clone(), out.clone(), Arc::clone(&self.options.node));
        let (detail, selects_host_network) = (self.detail, self.selects_host_network);
        let task = tokio::spawn(async move {
            match stream {
                Stream::Namespaces => stream::run::<Namespaces, _>(client, None, tag, out).await,
                Stream::NetworkPolicies => stream::run::<NetworkPolicies, _>(client, None, tag, out).await,
                Stream::MultiNetworkPolicies => {
                    stream::run::<MultiNetworkPolicies, _>(client, None, tag, out).await;
                }
                Stream::NetworkAttachmentDefinitions => {
                    stream::run::<NetworkAttachmentDefinitions, _>(client, None, tag, out).await;
                }
                Stream::LocalPods => {
                    let fields = format!("spec.nodeName={node}");
                    stream::run::<Pods, _>(client, Some(&fields), tag, out).await;
                }
                Stream::RemotePods => {
                    let fields = remote(&node, selects_host_network);
                    match detail {
                        Detail::Metadata => {
                            stream::run::<PodsMetadata, _>(client, Some(&fields), tag, out).await;
                        }
                        Detail::Full => stream::run::<Pods, _>(client, Some(&fields), tag, out).await,
                    }
                }
            }
        });
        self.tasks.insert(stream, (generation, task));
    }

    /// By another schema, the same version of an object may hold more: what is known is listed again.
    fn schema_seen(&mut self, seen: Seen, out: &mpsc::Sender<(Tag, Said)>) -> Update {
        if seen.list_again {
            debug!("The schema of MultiNetworkPolicy is another one: the policies are listed again");
            self.merge.forget_versions(Stream::MultiNetworkPolicies);
            self.start(Stream::MultiNetworkPolicies, out);
        }
        seen.report
    }

    fn take(&mut self, (stream, generation): Tag, said: Said, out: &mpsc::Sender<(Tag, Said)>) {
        // Of a watch that has been replaced: it may say the opposite of what is being listed now.
        if self
            .tasks
            .get(&stream)
            .is_none_or(|(current, _)| *current != generation)
        {
            return;
        }
        let kind = kind_of(stream);
        if let Some(health) = self.health.get_mut(&stream)
            && matches!(said, Said::Listed(_) | Said::Apply(_) | Said::Delete(_))
        {
            health.events += 1;
        }
        match said {
            Said::Init => self.merge.begin(stream),
            Said::Listed(value) => self.merge.apply(stream, kind, &value),
            Said::Apply(value) => {
                self.merge.apply(stream, kind, &value);
                self.set_state(stream, State::Watching);
            }
            Said::Delete(value) => {
                self.merge.delete(stream, kind, &value);
                self.set_state(stream, State::Watching);
            }
            Said::InitDone => {
                self.merge.end(stream, kind);
                if let Some(health) = self.health.get_mut(&stream) {
                    health.lists += 1;
                    health.synced = true;
                }
                self.set_state(stream, State::Watching);
                if stream == Stream::MultiNetworkPolicies {
                    self.hints.listed.store(true, Ordering::Relaxed);
                    self.hints.look.notify_one();
                }
            }
            Said::Trouble(trouble) => self.trouble(stream, trouble, out),
        }
    }

    fn trouble(&mut self, stream: Stream, trouble: Trouble, out: &mpsc::Sender<(Tag, Said)>) {
        if let Some(health) = self.health.get_mut(&stream)
            && let Some(position) = Trouble::LABELS.iter().position(|label| *label == trouble.label())
        {
            health.errors[position] += 1;
        }
        self.merge.doubt(stream);
        match &trouble {
            // What it delivered before stays, and the new list is on its way.
            Trouble::Expired => {
                debug!(watch = %stream, "The API server has forgotten this watch: listing again");
                return;
            }
            Trouble::Selector(error) if stream == Stream::RemotePods && self.selects_host_network => {
                info!(
                    error,
                    "The API server is too old to select pods by spec.hostNetwork: remote pods are watched in full"
                );
                self.selects_host_network = false;
                self.detail = Detail::Full;
                self.start(stream, out);
                return;
            }
            Trouble::Failed(_) => {
                self.outage
                    .down(stream, &trouble, self.synced, Instant::now().into_std());
            }
            Trouble::NotInstalled | Trouble::Forbidden(_) | Trouble::Selector(_) => self.say(stream, &trouble),
        }
        self.set_state(stream, State::Troubled(trouble));
    }

    /// Says what does not pass by itself, where that is news: the same kind of trouble in other words is none.
    fn say(&self, stream: Stream, trouble: &Trouble) {
        if self
            .health
            .get(&stream)
            .is_some_and(|health| matches!(&health.state, State::Troubled(before) if before.label() == trouble.label()))
        {
            return;
        }
        let resource = stream.resource();
        match trouble {
            Trouble::NotInstalled => {
                info!(watch = %stream, resource, "Not installed: it is looked for again and again");
            }
            Trouble::Forbidden(error) => error!(
                watch = %stream, resource, error,
                "RBAC does not allow the agent to list and watch this: what it delivered before stays in force"
            ),
            Trouble::Selector(error) => warn!(
                watch = %stream, resource, error,
                "The watch does not work: what it delivered stays in force, and it is tried again"
            ),
            Trouble::Failed(_) | Trouble::Expired => {}
        }
    }

    fn set_state(&mut self, stream: Stream, state: State) {
        if !matches!(state, State::Troubled(Trouble::Failed(_))) {
            self.outage.up(stream, Instant::now().into_std());
        }
        let Some(health) = self.health.get_mut(&stream) else {
            return;
        };
        let passed = matches!(&health.state, State::Troubled(trouble) if !matches!(trouble, Trouble::Failed(_)));
        if passed && state == State::Watching {
            info!(watch = %stream, "The watch works again");
        }
        // An outage lasts from its first moment, in whatever words it is told meanwhile.
        if health.state.label() != state.label() {
            health.since = SystemTime::now();
        }
        health.state = state;
    }

    /// A watch that goes on by itself does not say so before something changes, so what waits for it asks for a list.
    fn list_namespaces(&mut self, out: &mpsc::Sender<(Tag, Said)>) {
        if self.merge.needs_namespaces() {
            debug!("Policies are gone while the watch of namespaces had trouble: namespaces are listed first");
            // At once, so that it is asked for only once.
            self.merge.begin(Stream::Namespaces);
            self.start(Stream::Namespaces, out);
        }
    }

    /// Asks more of remote pods while a policy needs it, and less again some time after.
    fn choose_detail(&mut self, out: &mpsc::Sender<(Tag, Said)>) {
        let needed = self.merge.needs_full_pods() || !self.selects_host_network;
        let wanted = if needed { Detail::Full } else { Detail::Metadata };
        if wanted == self.detail {
            self.full_until = None;
        } else if needed {
            info!("A policy needs named ports or cluster addresses of remote pods: they are watched in full");
            self.switch(wanted, out);
        } else {
            let now = Instant::now();
            let until = *self.full_until.get_or_insert(now + KEEP_FULL);
            if until <= now {
                info!("No policy needs more of remote pods than their metadata any more");
                self.full_until = None;
                self.switch(wanted, out);
            }
        }
    }

    fn switch(&mut self, detail: Detail, out: &mpsc::Sender<(Tag, Said)>) {
        self.detail = detail;
        self.merge.forget_versions(Stream::RemotePods);
        self.start(Stream::RemotePods, out);
    }

    /// Kinds of policies that have never been read because RBAC hides them.
    fn unread(&self) -> Vec<Source> {
        let is_policy = |stream| matches!(stream, Stream::NetworkPolicies | Stream::MultiNetworkPolicies);
        self.health
            .values()
            .filter(|health| is_policy(health.stream) && !health.synced)
            .filter(|health| matches!(health.state, State::Troubled(Trouble::Forbidden(_))))
            .map(|health| Source {
                kind: "Resource".into(),
                name: health.stream.resource().into(),
            })
            .collect()
    }

    fn publish(&mut self) {
        for (stream, health) in &mut self.health {
            health.objects = self.merge.count(*stream);
        }
        let now: Arc<[Health]> = self.health.values().cloned().collect();
        self.publish.send_if_modified(|before| {
            let news = **before != *now;
            if news {
                *before = now;
            }
            news
        });
    }
}

/// Whether enforcement may begin as far as this watch is concerned.
///
/// A kind that is not installed has no objects. Policies that RBAC hides are named as unread, so that rules of an earlier
/// run which may follow from them stay (statement 139), and the others go ahead. But without pods or namespaces every peer
/// would be unknown, and allowed connections would be cut for no reason: these are waited for.
fn settled(health: &Health) -> bool {
    let excused = match &health.state {
        State::Troubled(Trouble::NotInstalled) => true,
        State::Troubled(Trouble::Forbidden(_)) => !matches!(
            health.stream,
            Stream::Namespaces | Stream::LocalPods | Stream::RemotePods
        ),
        _ => false,
    };
    health.synced || excused
}

fn kind_of(stream: Stream) -> Kind {
    match stream {
        Stream::Namespaces => Kind::Namespace,
        Stream::NetworkPolicies => Kind::NetworkPolicy,
        Stream::MultiNetworkPolicies => Kind::MultiNetworkPolicy,
        Stream::NetworkAttachmentDefinitions => Kind::NetworkAttachmentDefinition,
        Stream::LocalPods | Stream::RemotePods => Kind::Pod,
    }
}

/// Pods that have ended are no peers (statement 132), nor are those on their node's network (statement 49).
fn remote(node: &str, selects_host_network: bool) -> String {
    let host_network = if selects_host_network {
        ",spec.hostNetwork=false"
    } else {
        ""
    };
    format!("spec.nodeName!={node},status.phase!=Succeeded,status.phase!=Failed{host_network}")
}
