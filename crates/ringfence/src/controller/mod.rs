//! The agent loop: one task owns the index and all bookkeeping, and nothing else changes state (invariant 3).
//!
//! ```text
//! source ──► events ──► index ──► commit ──► dirty pods ──► appliers (one thread each) ──► kernel
//!                         ▲                                     │
//!                         └──────────── results ◄───────────────┘           readers ◄── snapshot, once a turn
//! ```
//!
//! It runs on a thread of its own with a runtime that knows nothing but time: a change passes two threads on its way
//! from the source into the kernel, this one and the pod's applier, and neither shares a core's queue with HTTP.

mod announce;
mod claims;
mod gate;
mod hold;
mod places;
mod pods;
mod roster;
mod target;
mod turn;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use ringfence_cri::Change;
use ringfence_kube::announce::Announcer;
use ringfence_kube::directory::Update;
use ringfence_model::{NamespacedName, PodUid, Scope};
use ringfence_policy::{Index, Locality, Options};
use ringfence_ruleset::KernelFeatures;
use tokio::runtime;
use tokio::sync::mpsc::{Receiver, UnboundedReceiver, unbounded_channel};
use tracing::{error, info};

use self::announce::Announcements;
use self::gate::Gate;
use self::hold::Doubts;
use self::places::Places;
use self::roster::Roster;
use self::target::Target;
use crate::applier::Reports;
use crate::drops::Drops;
use crate::event::{Applied, Event, Stamp};
use crate::findings::Findings;
use crate::host::Hands;
use crate::http::Readers;
use crate::metrics::Metrics;
use crate::sandboxes::Sandboxes;
use crate::snapshot::Snapshot;
use crate::template::NetnsTemplate;
use crate::threads::Threads;
use crate::watches::Watches;

/// Batches and results that one turn takes in at most, so that what is waiting for the kernel does not wait for ever.
const TURN: usize = 512;

/// Time that appliers have for themselves after rulesets were handed over. Readers see states that much later; the
/// kernel does not wait for it.
const QUIET: Duration = Duration::from_millis(1);

/// A comparison with the kernel is asked of a tenth of the pods at a time, so that they do not all wake at once.
const SLICES: u32 = 10;

/// What the loop has to know.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Name of this node.
    pub node: Arc<str>,
    /// What the source is called: `dir:/etc/manifests`.
    pub source: Arc<str>,
    /// What NetworkPolicies without `policy-for` act on.
    pub scope: Scope,
    /// What the kernel can do.
    pub features: KernelFeatures,
    /// Addresses of this node.
    pub node_addresses: BTreeSet<IpAddr>,
    /// Where the pods' network namespaces are.
    pub netns_path: NetnsTemplate,
    /// Time within which each pod's rules are compared with the kernel's once.
    pub resync: Duration,
}

/// A running loop.
#[derive(Debug)]
pub struct Running {
    /// For the HTTP servers.
    pub readers: Readers,
    thread: JoinHandle<()>,
}

/// Is told of everything that appliers have done, on the loop's thread.
pub type Observer = Box<dyn Fn(&Applied) + Send>;

/// Starts the loop on objects that come out of a channel.
pub fn start(setup: Setup, source: Receiver<Vec<Update>>) -> anyhow::Result<Running> {
    start_with(setup, source, None, Box::new(|_| {}))
}

/// The same for benches and tests, which want to know when something was committed.
pub fn start_observed(setup: Setup, source: Receiver<Vec<Update>>, observer: Observer) -> anyhow::Result<Running> {
    start_with(setup, source, None, observer)
}

/// The same where the container runtime says where the pods' network namespaces are; without `sandboxes` the template
/// of the setup does.
pub fn start_with(
    setup: Setup,
    source: Receiver<Vec<Update>>,
    sandboxes: Option<Sandboxes>,
    observer: Observer,
) -> anyhow::Result<Running> {
    start_announced(setup, source, sandboxes, Announcer::default(), observer)
}

/// The same where the cluster is told by Events what happens to its pods and policies.
pub fn start_announced(
    setup: Setup,
    source: Receiver<Vec<Update>>,
    sandboxes: Option<Sandboxes>,
    announcer: Announcer,
    observer: Observer,
) -> anyhow::Result<Running> {
    let (events, queue) = unbounded_channel();
    let (results, done) = unbounded_channel();
    let poke = sandboxes.as_ref().map(|sandboxes| Arc::clone(&sandboxes.poke));
    let mounted = move || {
        if let Some(poke) = &poke {
            poke();
        }
    };
    let hands = Box::new(Threads::start(events.clone(), mounted)?);
    let reports = Reports { events, results };
    let (mut controller, changes) = Controller::new(setup, sandboxes, reports, hands, observer, Instant::now())?;
    controller.announce_by(announcer);
    let readers = controller.readers();
    // Without the I/O driver a wake-up is a futex and not a trip through epoll.
    let runtime = runtime::Builder::new_current_thread().enable_time().build()?;
    let thread = thread::Builder::new()
        .name("agent-loop".into())
        .spawn(move || runtime.block_on(controller.run(source, changes, queue, done)))?;
    Ok(Running { readers, thread })
}

impl Running {
    /// Lets the loop end after its turn. All rules stay in place (invariant 8).
    pub fn shut_down(&self) {
        // It has ended already: that is what was wanted.
        drop(self.readers.events.send(Event::Shutdown));
    }

    /// Whether the loop has ended.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the loop's end. An error means that it failed unexpectedly; all rules stay in place then too.
    pub fn join(self) -> anyhow::Result<()> {
        self.thread
            .join()
            .map_err(|_| anyhow::anyhow!("the agent loop failed unexpectedly; all rules stay in place"))
    }
}

/// The state. [`start`] runs it on a thread; a simulation calls [`Controller::handle`] and [`Controller::finish`] itself.
pub struct Controller {
    setup: Setup,
    locality: Locality,
    index: Index,
    /// Where the pods' network namespaces are.
    places: Places,
    hands: Box<dyn Hands>,
    targets: BTreeMap<PodUid, Target>,
    /// The local pods of each name: more than one for a moment, when a pod is replaced by another one of its name.
    names: BTreeMap<NamespacedName, BTreeSet<PodUid>>,
    /// The one of them that may use the path.
    active: BTreeMap<NamespacedName, PodUid>,
    roster: Roster,
    findings: Findings,
    announcements: Announcements,
    snapshot: Snapshot,
    snapshots: Arc<ArcSwap<Snapshot>>,
    reports: Reports,
    metrics: Arc<Metrics>,
    synced: bool,
    /// Why something that isolates may be missing from what is known.
    doubts: Doubts,
    observer: Observer,
    /// Pods that wait to be started.
    gate: Gate,
    /// Until then, results do not wake the loop: after a change of a hundred pods it would take the processor away from
    /// the appliers a hundred times, only to write down what they have done.
    quiet_until: Option<Instant>,
    /// Number of appliers that were started.
    runs: u64,
    retries: BTreeSet<(Instant, PodUid)>,
    /// The pod whose comparison was asked for last.
    verified: Option<PodUid>,
    next_verify: Instant,
    // Of the current turn:
    /// Pods whose ruleset is handed over whatever the index says.
    due: BTreeSet<PodUid>,
    /// Pods whose row of the snapshot is out of date.
    touched: BTreeSet<PodUid>,
    /// The event that started it.
    stamp: Option<Stamp>,
    /// Whether address claims may have changed.
    pods_changed: bool,
}

impl Controller {
    /// A loop that has not begun. Where the container runtime is asked, its news come out of the second value.
    pub fn new(
        setup: Setup,
        sandboxes: Option<Sandboxes>,
        reports: Reports,
        hands: Box<dyn Hands>,
        observer: Observer,
        now: Instant,
    ) -> anyhow::Result<(Self, Option<Receiver<Vec<Change>>>)> {
        let (places, changes) = Places::new(setup.netns_path.clone(), sandboxes);
        let mut empty = Snapshot::empty(Arc::clone(&setup.node), setup.scope, Arc::clone(&setup.source));
        empty.runtime = places.health();
        let options = Options {
            locality: Locality::Node(Arc::clone(&setup.node)),
            scope: setup.scope,
            kernel: setup.features,
            node_addresses: setup.node_addresses.clone(),
        };
        let controller = Self {
            index: Index::new(options.clone()),
            locality: options.locality,
            places,
            hands,
            reports,
            gate: Gate::default(),
            quiet_until: None,
            targets: BTreeMap::new(),
            names: BTreeMap::new(),
            active: BTreeMap::new(),
            roster: Roster::default(),
            findings: Findings::default(),
            announcements: Announcements::new(Announcer::default()),
            snapshots: Arc::new(ArcSwap::from_pointee(empty.clone())),
            snapshot: empty,
            metrics: Arc::new(Metrics::new()?),
            synced: false,
            doubts: Doubts::default(),
            runs: 0,
            retries: BTreeSet::new(),
            verified: None,
            next_verify: now + setup.resync / SLICES,
            due: BTreeSet::new(),
            touched: BTreeSet::new(),
            stamp: None,
            pods_changed: false,
            observer,
            setup,
        };
        Ok((controller, changes))
    }

    /// The cluster is told by this one from now on; without, it is told nothing.
    fn announce_by(&mut self, announcer: Announcer) {
        self.snapshot.announcer = announcer.clone();
        self.snapshots.store(Arc::new(self.snapshot.clone()));
        self.announcements = Announcements::new(announcer);
    }

    /// What readers of its state need.
    pub fn readers(&self) -> Readers {
        Readers {
            snapshots: Arc::clone(&self.snapshots),
            events: self.reports.events.clone(),
            metrics: Arc::clone(&self.metrics),
            drops: Arc::new(Drops::default()),
            watches: Watches::default(),
        }
    }

    async fn run(
        mut self,
        mut source: Receiver<Vec<Update>>,
        mut sandboxes: Option<Receiver<Vec<Change>>>,
        mut queue: UnboundedReceiver<Event>,
        mut done: UnboundedReceiver<Applied>,
    ) {
        let mut source_open = true;
        loop {
            let wake = self.next_wake();
            let event = tokio::select! {
                biased;
                Some(event) = queue.recv() => event,
                batch = source.recv(), if source_open => {
                    let Some(batch) = batch else {
                        source_open = false;
                        error!(
                            source = &*self.setup.source,
                            "The source has ended: what was read stays in force, and nothing new is seen"
                        );
                        continue;
                    };
                    Event::Source(batch)
                },
                changes = next(&mut sandboxes) => Event::Sandboxes(changes),
                Some(applied) = done.recv(), if self.quiet_until.is_none() => Event::Apply(applied),
                () = tokio::time::sleep_until(wake.into()) => Event::Timer,
            };
            let now = Instant::now();
            let mut running = self.handle(event, now);
            // What has queued up meanwhile is one turn with one commit, one of each kind at a time, so that none starves
            // the others.
            for _ in 0..TURN {
                let event = queue.try_recv().ok();
                let result = done.try_recv().ok().map(Event::Apply);
                let batch = source.try_recv().ok().map(Event::Source);
                let changes = sandboxes.as_mut().and_then(|changes| changes.try_recv().ok());
                let mut events = event
                    .into_iter()
                    .chain(changes.map(Event::Sandboxes))
                    .chain(result)
                    .chain(batch)
                    .peekable();
                if events.peek().is_none() {
                    break;
                }
                for event in events {
                    running &= self.handle(event, now);
                }
            }
            if !running {
                info!("Stopping; all rules stay in place");
                return;
            }
            self.finish(now);
        }
    }

    /// When [`Event::Timer`] is due.
    pub fn next_wake(&self) -> Instant {
        let retry = self.retries.first().map(|(retry, _)| *retry);
        [retry, self.quiet_until, self.gate.next_deadline()]
            .into_iter()
            .flatten()
            .fold(self.next_verify, Instant::min)
    }
}

/// The container runtime's next news; waits for ever where there is no runtime to listen to.
async fn next(sandboxes: &mut Option<Receiver<Vec<Change>>>) -> Vec<Change> {
    if let Some(changes) = sandboxes {
        if let Some(changes) = changes.recv().await {
            return changes;
        }
        error!("The container runtime is not watched any more: what is known of the pods' network namespaces stands");
        *sandboxes = None;
    }
    std::future::pending().await
}
