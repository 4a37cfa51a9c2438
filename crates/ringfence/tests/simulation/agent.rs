//! One agent process: the loop, and its appliers as machines that a scheduler steps.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use ringfence::applier::{Mailbox, Reports, Session, Slot, Worker};
use ringfence::controller::{Controller, Setup};
use ringfence::event::{Applied, Event, NetnsEvent};
use ringfence::host::{Hands, Order};
use ringfence::http::Readers;
use ringfence::sandboxes::Sandboxes;
use ringfence::template::NetnsTemplate;
use ringfence::watcher::Paths;
use ringfence_cri::{Change, Health};
use ringfence_model::{PodUid, Scope};
use ringfence_policy::{Locality, Options};
use ringfence_ruleset::KernelFeatures;
use tokio::sync::mpsc::{UnboundedReceiver, channel, unbounded_channel};
use tokio::sync::watch;

use crate::cluster::NODE;
use crate::node::{Node, SimHost};
use crate::reference::Reference;
use crate::runtime::Mode;

/// Time within which each pod's rules are compared with the kernel's once.
pub const RESYNC: Duration = Duration::from_secs(10);

/// Orders and paths instead of threads.
struct SimHands {
    orders: Arc<Mutex<Vec<Order>>>,
    paths: Arc<Paths>,
    exhausted: Arc<AtomicBool>,
}

impl Hands for SimHands {
    fn start(&mut self, order: Order) -> io::Result<()> {
        if self.exhausted.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.orders.lock().expect("one thread").push(order);
        Ok(())
    }

    fn track(&mut self, pod: PodUid, path: PathBuf) {
        self.paths.track(pod, path);
    }

    fn forget(&mut self, pod: &PodUid) {
        self.paths.forget(pod);
    }

    fn date(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }
}

/// How far an applier is.
pub enum Stage {
    New,
    /// It waits for work.
    Ready(Session<SimHost>),
    /// It has taken something out of its mailbox, and was stopped by the scheduler before it did it.
    Loaded(Session<SimHost>, Slot),
}

/// An applier.
pub struct Actor {
    pub run: u64,
    pub pod: PodUid,
    pub worker: Worker<SimHost>,
    pub mailbox: Arc<Mailbox>,
    pub stage: Stage,
}

impl Actor {
    /// Whether it can go on.
    pub fn is_ready(&self) -> bool {
        !matches!(self.stage, Stage::Ready(_)) || !self.mailbox.is_idle()
    }
}

pub struct Agent {
    controller: Controller,
    events: UnboundedReceiver<Event>,
    results: UnboundedReceiver<Applied>,
    pub readers: Readers,
    pub sandboxes: VecDeque<Vec<Change>>,
    orders: Arc<Mutex<Vec<Order>>>,
    pub paths: Arc<Paths>,
    pub exhausted: Arc<AtomicBool>,
    pub alive: Rc<Cell<bool>>,
    mailboxes: BTreeMap<u64, Arc<Mailbox>>,
    pub reference: Reference,
    pub sender: tokio::sync::mpsc::UnboundedSender<Event>,
}

impl Agent {
    pub fn start(node: &Node, features: KernelFeatures, scope: Scope, mode: Mode) -> Self {
        let (events, queue) = unbounded_channel();
        let (results, done) = unbounded_channel();
        let orders = Arc::default();
        let paths = Arc::<Paths>::default();
        let exhausted = Arc::<AtomicBool>::default();
        let hands = SimHands {
            orders: Arc::clone(&orders),
            paths: Arc::clone(&paths),
            exhausted: Arc::clone(&exhausted),
        };
        let setup = Setup {
            node: NODE.into(),
            source: "simulation".into(),
            scope,
            features,
            node_addresses: ["10.20.1.100".parse().expect("an address")].into(),
            netns_path: NetnsTemplate::default(),
            resync: RESYNC,
        };
        let options = Options {
            locality: Locality::Node(NODE.into()),
            scope,
            kernel: features,
            node_addresses: setup.node_addresses.clone(),
        };
        let sandboxes = (mode != Mode::Template).then(|| Sandboxes {
            changes: channel(1).1,
            poke: Arc::new(|| {}),
            health: watch::channel(Health::new(None)).1,
            fallback: mode == Mode::Both,
        });
        let reports = Reports {
            events: events.clone(),
            results,
        };
        let (controller, _) =
            Controller::new(setup, sandboxes, reports, Box::new(hands), Box::new(|_| {}), node.now()).expect("a loop");
        Self {
            readers: controller.readers(),
            controller,
            events: queue,
            results: done,
            sandboxes: VecDeque::new(),
            orders,
            paths,
            exhausted,
            alive: Rc::new(Cell::new(true)),
            mailboxes: BTreeMap::new(),
            reference: Reference::new(options),
            sender: events,
        }
    }

    /// Whether something waits for the loop. A batch of the source is the caller's to offer.
    pub fn has_news(&self, node: &Node) -> bool {
        !self.events.is_empty()
            || !self.results.is_empty()
            || !self.sandboxes.is_empty()
            || self.controller.next_wake() <= node.now()
    }

    pub fn next_wake(&self, node: &Node) -> Duration {
        self.controller.next_wake().saturating_duration_since(node.now())
    }

    /// One turn of the loop: up to `count` events, then the commit. `false`: it was told to end.
    pub fn turn(&mut self, node: &Node, count: usize, source: &RefCell<Option<crate::source::Source>>) -> bool {
        let now = node.now();
        let mut running = true;
        for _ in 0..count {
            let Some(event) = self.pick(node, source) else { break };
            node.say(|| format!("the loop takes in {}", told(&event)));
            let mailboxes = &self.mailboxes;
            let current = |run: u64| mailboxes.get(&run).is_some_and(|mailbox| !mailbox.is_stopped());
            self.reference.observe(&event, current);
            running &= self.controller.handle(event, now);
            // So that whoever is dropped by this event is known before the next.
            self.note_orders();
        }
        if running {
            self.controller.finish(now);
            self.note_orders();
        }
        running
    }

    fn note_orders(&mut self) {
        for order in self.orders.lock().expect("one thread").iter() {
            self.mailboxes.insert(order.run, Arc::clone(&order.mailbox));
        }
    }

    fn pick(&mut self, node: &Node, source: &RefCell<Option<crate::source::Source>>) -> Option<Event> {
        let mut source = source.borrow_mut();
        let batches = source.as_mut().map(|source| &mut source.queue);
        let ready = [
            !self.events.is_empty(),
            !self.results.is_empty(),
            !self.sandboxes.is_empty(),
            batches.as_ref().is_some_and(|batches| !batches.is_empty()),
            self.controller.next_wake() <= node.now(),
        ];
        let choices: Vec<usize> = (0..ready.len()).filter(|choice| ready[*choice]).collect();
        if choices.is_empty() {
            return None;
        }
        match choices[node.below(choices.len())] {
            0 => self.events.try_recv().ok(),
            1 => self.results.try_recv().ok().map(Event::Apply),
            2 => self.sandboxes.pop_front().map(Event::Sandboxes),
            3 => batches.and_then(VecDeque::pop_front).map(Event::Source),
            _ => Some(Event::Timer),
        }
    }

    /// The appliers that the loop has started since the last call.
    pub fn hire(&mut self, node: &Rc<Node>) -> Vec<Actor> {
        let orders = std::mem::take(&mut *self.orders.lock().expect("one thread"));
        orders
            .into_iter()
            .map(|order| {
                let (run, pod, mailbox) = (order.run, order.pod.clone(), Arc::clone(&order.mailbox));
                node.say(|| format!("applier {run} is started for {pod} at {}", order.path.display()));
                let host = SimHost {
                    node: Rc::clone(node),
                    alive: Rc::clone(&self.alive),
                    pod: pod.clone(),
                    run,
                };
                Actor {
                    run,
                    pod,
                    worker: Worker::new(order, host),
                    mailbox,
                    stage: Stage::New,
                }
            })
            .collect()
    }
}

fn told(event: &Event) -> String {
    match event {
        Event::Source(batch) => format!("{} updates of the source: {}", batch.len(), listed(batch)),
        Event::Sandboxes(changes) => format!("sandboxes: {changes:?}"),
        Event::Netns(NetnsEvent::Opened { pod, run, result }) => match result {
            Ok(opened) => format!(
                "applier {run} of {pod} has opened {}, rules: {}",
                opened.id.inode,
                opened.found.is_some()
            ),
            Err(error) => format!("applier {run} of {pod} has not opened it: {}", error.reason),
        },
        Event::Netns(NetnsEvent::Seen { pod, path, id }) => {
            format!("at {} of {pod} is {:?}", path.display(), id.map(|id| id.inode))
        }
        Event::Netns(NetnsEvent::Silent { pod, path }) => format!("{} of {pod} does not answer", path.display()),
        Event::Netns(NetnsEvent::Facts { pod, run, .. }) => format!("other interfaces of {pod} from applier {run}"),
        Event::Apply(applied) => {
            let wanted = if applied.wanted.is_some() { "rules" } else { "no rules" };
            format!(
                "applier {} of {}: {wanted}, {:?}, drift {:?}",
                applied.run, applied.pod, applied.result, applied.drift
            )
        }
        Event::Hook(hook) => format!("a hook: {hook:?}"),
        Event::Timer => "the timer".to_owned(),
        Event::Query(_) => "a question".to_owned(),
        Event::Shutdown => "the end".to_owned(),
    }
}

fn listed(batch: &[ringfence_kube::directory::Update]) -> String {
    use ringfence_kube::directory::Update;
    let words: Vec<String> = batch
        .iter()
        .map(|update| match update {
            Update::Apply(decoded) => decoded
                .object
                .as_ref()
                .map_or_else(String::new, |it| format!("+{:?}", it.key())),
            Update::Gone { key, .. } => format!("-{key:?}"),
            Update::Report { .. } => "report".to_owned(),
            Update::Synced { unread } => format!("synced, {} unread", unread.len()),
            Update::Unread(unread) => format!("{} unread", unread.len()),
        })
        .collect();
    words.join(", ")
}
