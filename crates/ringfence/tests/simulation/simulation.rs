//! One run: a world, a scheduler, and the checks after every step.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ringfence::event::Event;
use ringfence::snapshot::State;
use ringfence_model::{Object, ObjectKey, Pod, PodUid, Scope};
use ringfence_netns::Facts;
use ringfence_policy::Openings;
use ringfence_ruleset::{KernelFeatures, Ruleset};

use crate::agent::{Actor, Agent, RESYNC, Stage};
use crate::checks::{Ledger, fits, is_one_change, shown};
use crate::cluster::Cluster;
use crate::dice::Dice;
use crate::node::{Commit, Faults, Node};
use crate::runtime::{Mode, Runtime};
use crate::source::Source;

/// Steps before faults end.
const STEPS: usize = 160;

/// Steps without progress of time after which a quiet world must have come to rest.
const PATIENCE: usize = 2_000;

/// What came of a seed.
pub struct Report {
    pub violations: Vec<String>,
    pub trace: Vec<String>,
    pub met: BTreeMap<&'static str, usize>,
    /// Changes of any ruleset, and transactions: to compare two runs of one seed.
    pub figures: (usize, usize),
}

struct Simulation {
    node: Rc<Node>,
    cluster: RefCell<Cluster>,
    source: RefCell<Option<Source>>,
    runtime: RefCell<Runtime>,
    agent: RefCell<Option<Agent>>,
    actors: RefCell<BTreeMap<u64, Actor>>,
    ledger: RefCell<Ledger>,
    features: KernelFeatures,
    scope: Scope,
    mode: Mode,
    commits: Cell<usize>,
    /// An applier that is not let go on.
    hung: Cell<Option<u64>>,
}

/// Runs a seed.
pub fn run(seed: u64, verbose: bool) -> Report {
    let mut dice = Dice::new(seed);
    let level = *dice.pick(&[0, 1, 1, 3]);
    let faults = Faults {
        refusals: level * 40 * usize::from(dice.chance(700)),
        losses: level * 15 * usize::from(dice.chance(600)),
        foreigners: level * 15 * usize::from(dice.chance(500)),
        crashes: level * 5 * usize::from(dice.chance(500)),
        pauses: 80 * usize::from(dice.chance(700)),
    };
    let features = KernelFeatures {
        owner_persist: dice.chance(500),
        egress_backstop: dice.chance(600),
        fib: dice.chance(700),
    };
    let scope = *dice.pick(&[Scope::Secondary, Scope::All]);
    let mode = *dice.pick(&[Mode::Template, Mode::Runtime, Mode::Both]);
    // By the seed itself, so that the others stay what they were.
    let cluster = Cluster::new(&mut dice, seed % 7 == 3);
    let node = Node::new(dice, faults, verbose);
    let lasting = node.chance(300);
    node.lasting_chains.set(lasting);
    node.say(|| format!("{faults:?} {features:?} {scope:?} {mode:?}"));
    let simulation = Rc::new(Simulation {
        node: Rc::clone(&node),
        cluster: RefCell::new(cluster),
        source: RefCell::new(None),
        runtime: RefCell::new(Runtime::new(mode)),
        agent: RefCell::new(None),
        actors: RefCell::default(),
        ledger: RefCell::default(),
        features,
        scope,
        mode,
        commits: Cell::new(0),
        hung: Cell::new(None),
    });
    let weak = Rc::downgrade(&simulation);
    *node.between.borrow_mut() = Some(Rc::new(move || {
        if let Some(simulation) = weak.upgrade() {
            simulation.meanwhile();
        }
    }));
    simulation.play();
    // What holds a namespace open lets it go before the namespaces do.
    simulation.kill();
    *node.between.borrow_mut() = None;
    Report {
        violations: node.violations.take(),
        trace: node.trace.take(),
        met: node.met.take(),
        figures: (simulation.commits.get(), node.transactions.get()),
    }
}

impl Simulation {
    fn play(&self) {
        self.start();
        for _ in 0..STEPS {
            self.step();
            self.check();
            if self.failed() {
                return;
            }
        }
        self.quiet();
    }

    fn failed(&self) -> bool {
        !self.node.violations.borrow().is_empty()
    }

    // === Steps ===

    fn step(&self) {
        if self.agent.borrow().is_none() && self.node.chance(200) {
            self.start();
        }
        let what = self
            .node
            .dice
            .borrow_mut()
            .weighted(&[80, 110, 150, 60, 60, 250, 250, 60, 6, 3, 6]);
        match what {
            0 => self.edit(),
            1 => self.runtime.borrow_mut().step(&self.cluster.borrow(), &self.node),
            2 => self.source_step(),
            3 => self.ask_runtime(),
            4 => self.look(),
            5 => self.turn(),
            6 => self.work(),
            7 => self.pass(),
            8 => self.die("the agent is killed"),
            9 => self.shut_down(),
            _ => self.hang(),
        }
    }

    /// What others do while a call is under way.
    fn meanwhile(&self) {
        for _ in 0..=self.node.below(4) {
            let what = self.node.dice.borrow_mut().weighted(&[40, 100, 100, 200, 300, 3]);
            match what {
                0 => self.edit(),
                1 => self.source_step(),
                2 => self.look(),
                3 => self.turn(),
                4 => self.work(),
                _ => {
                    if let Some(agent) = &*self.agent.borrow() {
                        self.node.say(|| "the agent is killed".to_owned());
                        agent.alive.set(false);
                        self.node.died.set(true);
                    }
                }
            }
        }
    }

    fn edit(&self) {
        let edits = self.cluster.borrow_mut().edit(&mut self.node.dice.borrow_mut());
        for (key, object) in &edits {
            self.node.say(|| {
                format!(
                    "the API: {key:?} is {}",
                    if object.is_some() { "put" } else { "deleted" }
                )
            });
        }
        if let Some(source) = &mut *self.source.borrow_mut() {
            source.hear(&edits);
        }
    }

    fn source_step(&self) {
        let what = self.node.dice.borrow_mut().weighted(&[90, 4, 6]);
        let mut source = self.source.borrow_mut();
        let Some(source) = &mut *source else { return };
        let cluster = self.cluster.borrow();
        match what {
            0 => {
                source.step(&cluster.objects, &mut self.node.dice.borrow_mut());
            }
            1 => {
                self.node.meet("broken watches");
                source.fail(&mut self.node.dice.borrow_mut());
            }
            _ => source.mend(&cluster.objects),
        }
    }

    fn ask_runtime(&self) {
        if self.mode == Mode::Template {
            return;
        }
        if let Some(agent) = &mut *self.agent.borrow_mut() {
            let changes = self.runtime.borrow_mut().look();
            if !changes.is_empty() {
                agent.sandboxes.push_back(changes);
            }
        }
    }

    fn look(&self) {
        if let Some(agent) = &*self.agent.borrow() {
            agent.paths.look(|path| self.node.identity(path), &agent.sender);
        }
    }

    fn turn(&self) {
        let count = 1 + self.node.below(6);
        // The operating system has no threads left, for once.
        let exhausted = self.node.faults.get().refusals > 0 && self.node.chance(20);
        let mut agent = self.agent.borrow_mut();
        let Some(running) = &mut *agent else { return };
        running.exhausted.store(exhausted, Ordering::Relaxed);
        running.turn(&self.node, count, &self.source);
        self.settle_turn(running);
    }

    /// What follows from a turn: appliers, and the checks of what the loop wants.
    fn settle_turn(&self, agent: &mut Agent) {
        let dirty = agent.reference.commit();
        let snapshot = agent.readers.snapshots.load();
        for pod in dirty {
            let Some(status) = snapshot.pods.values().find(|status| status.pod.uid == pod) else {
                continue;
            };
            if status.wanted.as_deref() != agent.reference.wanted(&pod) {
                let what =
                    format!("the loop wants something else for pod {pod} than what follows from what it was told");
                self.node.violation("s231", what);
            }
        }
        let hired = agent.hire(&self.node);
        self.actors
            .borrow_mut()
            .extend(hired.into_iter().map(|actor| (actor.run, actor)));
    }

    /// An applier goes on.
    fn work(&self) {
        let ready: Vec<u64> = self
            .actors
            .borrow()
            .values()
            .filter(|actor| actor.is_ready() && self.hung.get() != Some(actor.run))
            .map(|actor| actor.run)
            .collect();
        if !ready.is_empty() {
            self.work_at(ready[self.node.below(ready.len())]);
        }
    }

    fn work_at(&self, run: u64) {
        // Taken out, so that nobody steps it a second time while it is at work.
        let Some(mut actor) = self.actors.borrow_mut().remove(&run) else {
            return;
        };
        let alive = self.agent.borrow().as_ref().map(|agent| Rc::clone(&agent.alive));
        let before = self.node.commits.borrow().len();
        let next = match actor.stage {
            Stage::New => actor.worker.begin().map(Stage::Ready),
            Stage::Ready(mut session) => match actor.mailbox.try_take() {
                None => Some(Stage::Ready(session)),
                Some(slot) if self.node.chance(200) => Some(Stage::Loaded(session, slot)),
                Some(slot) => actor.worker.serve(&mut session, slot).then_some(Stage::Ready(session)),
            },
            Stage::Loaded(mut session, slot) => actor.worker.serve(&mut session, slot).then_some(Stage::Ready(session)),
        };
        if !self.has_faults() {
            let commits = self.node.commits.borrow();
            let own: Vec<&Commit> = commits[before..].iter().filter(|commit| commit.run == run).collect();
            if !is_one_change(&own) {
                let what = format!("applier {run} makes {} transactions of one change", own.len());
                self.node.violation("s142", what);
            }
        }
        match next {
            Some(stage) if alive.is_some_and(|alive| alive.get()) => {
                actor.stage = stage;
                self.actors.borrow_mut().insert(run, actor);
            }
            Some(_) => {}
            None => self.node.say(|| format!("applier {run} ends")),
        }
    }

    fn has_faults(&self) -> bool {
        let faults = self.node.faults.get();
        faults.refusals + faults.losses + faults.foreigners + faults.pauses > 0
    }

    fn pass(&self) {
        let millis = *self.node.dice.borrow_mut().pick(&[1, 10, 100, 1_000, 5_000]);
        self.advance(Duration::from_millis(millis));
    }

    fn advance(&self, time: Duration) {
        self.node.passed.set(self.node.passed.get() + time);
    }

    fn hang(&self) {
        let runs: Vec<u64> = self.actors.borrow().keys().copied().collect();
        if self.hung.take().is_none() && !runs.is_empty() {
            let run = runs[self.node.below(runs.len())];
            self.node.say(|| format!("applier {run} hangs"));
            self.node.meet("hanging appliers");
            self.hung.set(Some(run));
        }
    }

    // === The process ===

    fn start(&self) {
        self.node.say(|| "an agent starts".to_owned());
        self.node.meet("starts of the agent");
        let agent = Agent::start(&self.node, self.features, self.scope, self.mode);
        let source = Source::new(&self.cluster.borrow().objects, &mut self.node.dice.borrow_mut());
        self.runtime.borrow_mut().restart_watch();
        *self.agent.borrow_mut() = Some(agent);
        *self.source.borrow_mut() = Some(source);
        *self.ledger.borrow_mut() = Ledger::default();
    }

    fn die(&self, why: &str) {
        if self.agent.borrow().is_some() {
            self.node.say(|| why.to_owned());
            self.node.meet("kills between steps");
            self.kill();
        }
    }

    /// Nothing of the process is left. 139: nothing changes in any namespace.
    fn kill(&self) {
        let agent = self.agent.borrow_mut().take();
        if let Some(agent) = &agent {
            agent.alive.set(false);
        }
        self.source.borrow_mut().take();
        let before = self.node.transactions.get();
        drop(agent);
        let actors = std::mem::take(&mut *self.actors.borrow_mut());
        drop(actors);
        self.hung.set(None);
        self.node.died.set(false);
        for namespace in self.node.namespaces.borrow_mut().values_mut() {
            namespace.writer = None;
        }
        if self.node.transactions.get() != before {
            self.node
                .violation("s139", "the end of the agent changes rules".to_owned());
        }
        self.node.sweep();
    }

    /// Appliers may still notice that they are told to end, before the process is gone.
    fn shut_down(&self) {
        let Some(mut agent) = self.agent.borrow_mut().take() else {
            return;
        };
        self.node.say(|| "the agent is told to end".to_owned());
        self.node.meet("orderly ends");
        drop(agent.sender.send(Event::Shutdown));
        while agent.turn(&self.node, 1, &self.source) {
            self.settle_turn(&mut agent);
        }
        let before = self.node.transactions.get();
        drop(agent);
        let idle: Vec<u64> = {
            let actors = self.actors.borrow();
            let idle = actors.values().filter(|actor| matches!(actor.stage, Stage::Ready(_)));
            idle.map(|actor| actor.run).collect()
        };
        for run in idle {
            self.work_at(run);
        }
        if self.node.transactions.get() != before {
            self.node
                .violation("s139", "the end of the agent changes rules".to_owned());
        }
        self.kill();
    }

    // === Checks ===

    /// After every step.
    fn check(&self) {
        let commits = std::mem::take(&mut *self.node.commits.borrow_mut());
        if let Some(agent) = &*self.agent.borrow() {
            for (serial, found) in std::mem::take(&mut *self.node.opened.borrow_mut()) {
                self.ledger.borrow_mut().note(serial, found);
            }
            let has_unread = self.source.borrow().as_ref().is_some_and(Source::has_unread);
            for commit in &commits {
                self.commits.set(self.commits.get() + 1);
                self.ledger.borrow_mut().check(commit, agent, has_unread, &self.node);
            }
        }
        if self.node.died.get() {
            self.kill();
        }
    }

    // === Quiet ===

    /// Faults end. 227: everything comes to what follows from the objects, and stays there.
    fn quiet(&self) {
        self.node.say(|| "=== quiet".to_owned());
        self.node.faults.set(Faults::default());
        if self.agent.borrow().is_none() {
            self.start();
        }
        self.runtime.borrow_mut().catch_up(&self.cluster.borrow(), &self.node);
        // 228: one pod's kernel refuses everything, or one applier hangs, and all others come to rest.
        let victim = self.pick_victim();
        self.rest();
        self.check_all(victim.as_ref());
        if self.failed() {
            return;
        }
        if let Some(pod) = victim {
            self.hung.set(None);
            if let Some(serial) = self.runtime.borrow().namespace(&pod) {
                self.node.with(serial, |namespace| namespace.broken = false);
            }
            self.rest();
            self.check_all(None);
        }
        if self.failed() {
            return;
        }
        // 229: nothing is written where nothing changes, and nothing by the next agent either.
        let before = self.node.transactions.get();
        self.rest();
        if self.node.transactions.get() != before {
            self.node
                .violation("s229", "something is written although nothing has changed".to_owned());
        }
        if self.node.chance(300) {
            // What outlives its deletion (138) is known to one process only.
            let retains = self
                .agent
                .borrow()
                .as_ref()
                .is_some_and(|agent| agent.reference.retains);
            let isolated = self.isolated_for_good();
            self.kill();
            self.start();
            let unread = self.source.borrow().as_ref().is_some_and(Source::has_unread);
            if let Some(source) = &mut *self.source.borrow_mut() {
                while source.has_unread() && !self.failed() {
                    source.step(&self.cluster.borrow().objects, &mut self.node.dice.borrow_mut());
                    source.mend(&self.cluster.borrow().objects);
                }
            }
            let before = self.commits.get();
            self.rest();
            // What could not be read at first may have allowed something, which was cut until it could.
            if self.commits.get() != before && !retains && !unread {
                self.node
                    .violation("s229", "the next agent rewrites what is there".to_owned());
            }
            self.check_all(None);
            self.check_isolated(&isolated);
        }
    }

    /// What must stay isolated although nobody may know any more why: what is in force in pods whose namespace is being
    /// deleted.
    fn isolated_for_good(&self) -> Vec<(u64, Ruleset)> {
        let cluster = self.cluster.borrow();
        let ending = |pod: &&Pod| {
            let namespace = cluster.objects.get(&ObjectKey::Namespace(pod.name.namespace.clone()));
            matches!(namespace, Some(Object::Namespace(namespace)) if namespace.terminating)
        };
        let runtime = self.runtime.borrow();
        let serials = cluster
            .local()
            .filter(ending)
            .filter_map(|pod| runtime.namespace(&pod.uid));
        serials
            .filter_map(|serial| {
                let held = self.node.with(serial, |namespace| namespace.nft.contents());
                Some((serial, held.ok()??))
            })
            .collect()
    }

    /// 138: whoever has been started anew in between.
    fn check_isolated(&self, before: &[(u64, Ruleset)]) {
        if self.failed() {
            return;
        }
        for (serial, before) in before {
            self.node.meet("restarts while a namespace with isolated pods ends");
            let after = self.node.with(*serial, |namespace| namespace.nft.contents());
            let covered = after.is_ok_and(|after| Openings::of(before).cover(after.as_ref()));
            if !covered {
                let what = format!("the next agent opens namespace {serial}, whose pod's namespace is being deleted");
                self.node.violation("s138", what);
            }
        }
    }

    /// 138: whether what is there is what an earlier agent has left, and why it stays.
    fn is_held_for_good(&self, agent: &Agent, pod: &PodUid, serial: u64, wanted: Option<&Ruleset>) -> bool {
        let held = self.node.with(serial, |namespace| namespace.nft.contents());
        let held = held.unwrap_or_default();
        let holds = agent.reference.is_ending(pod) && self.ledger.borrow().may_hold(serial, held.as_ref(), wanted);
        if holds {
            self.node.meet("pods held while their namespace ends");
        }
        holds
    }

    fn pick_victim(&self) -> Option<PodUid> {
        let hung = self.hung.take();
        if let Some(pod) = hung.and_then(|run| Some(self.actors.borrow().get(&run)?.pod.clone())) {
            self.node.say(|| format!("the applier of {pod} hangs on"));
            self.hung.set(hung);
            return Some(pod);
        }
        if !self.node.chance(300) {
            return None;
        }
        let pods: Vec<PodUid> = self.cluster.borrow().local().map(|pod| pod.uid.clone()).collect();
        if pods.is_empty() {
            return None;
        }
        let pod = pods[self.node.below(pods.len())].clone();
        let serial = self.runtime.borrow().namespace(&pod)?;
        self.node
            .say(|| format!("from now on the kernel refuses everything to {pod}"));
        self.node.meet("pods whose kernel refuses everything");
        self.node.with(serial, |namespace| namespace.broken = true);
        Some(pod)
    }

    /// Lets everything happen that can, until only time could bring anything more, and then that.
    fn rest(&self) {
        // A whole round of comparisons, and the longest back-off.
        let end = self.node.passed.get() + Duration::from_secs(65) + RESYNC;
        loop {
            self.drain();
            if self.failed() || self.node.passed.get() >= end {
                return;
            }
            let wake = self
                .agent
                .borrow()
                .as_ref()
                .map_or(RESYNC, |agent| agent.next_wake(&self.node));
            self.advance(wake.max(Duration::from_millis(1)));
        }
    }

    fn drain(&self) {
        for _ in 0..PATIENCE {
            let mut busy = false;
            if let Some(source) = &mut *self.source.borrow_mut() {
                let cluster = self.cluster.borrow();
                busy |= source.step(&cluster.objects, &mut self.node.dice.borrow_mut());
                if source.has_unread() {
                    source.mend(&cluster.objects);
                    busy = true;
                }
                busy |= !source.queue.is_empty();
            }
            self.ask_runtime();
            self.look();
            busy |= self
                .agent
                .borrow()
                .as_ref()
                .is_some_and(|agent| agent.has_news(&self.node));
            self.turn();
            self.check();
            let ready: Vec<u64> = self
                .actors
                .borrow()
                .values()
                .filter(|it| it.is_ready() && self.hung.get() != Some(it.run))
                .map(|it| it.run)
                .collect();
            for run in ready {
                busy = true;
                self.work_at(run);
                self.check();
            }
            if !busy || self.failed() {
                return;
            }
        }
        self.node
            .violation("s227", "the agent does not come to rest".to_owned());
    }

    fn check_all(&self, victim: Option<&PodUid>) {
        if self.failed() {
            return;
        }
        let cluster = self.cluster.borrow();
        let agent = self.agent.borrow();
        let agent = agent.as_ref().expect("it runs");
        let runtime = self.runtime.borrow();
        let local: Vec<(PodUid, u64)> = cluster
            .local()
            .filter_map(|pod| Some((pod.uid.clone(), runtime.namespace(&pod.uid)?)))
            .collect();
        let facts: Vec<(PodUid, Facts)> = local
            .iter()
            .map(|(pod, serial)| {
                (
                    pod.clone(),
                    self.node.with(*serial, |namespace| namespace.facts.clone()),
                )
            })
            .collect();
        let scratch = agent.reference.made_anew(&cluster.objects, &facts);
        let snapshot = agent.readers.snapshots.load();
        for (pod, serial) in &local {
            if victim == Some(pod) {
                continue;
            }
            // What outlives its deletion is known only to who saw it.
            let wanted = if agent.reference.retains {
                agent.reference.wanted(pod)
            } else {
                scratch.ruleset(pod)
            };
            let Some(Object::Pod(object)) = cluster.objects.get(&ObjectKey::Pod(pod.clone())) else {
                continue;
            };
            let status = snapshot.pods.get(&object.name);
            let is_held = status.is_some_and(|it| it.pod.uid == *pod && matches!(it.state, State::Held(_)));
            if is_held && self.is_held_for_good(agent, pod, *serial, wanted) {
                continue;
            }
            let held = self.node.with(*serial, |namespace| namespace.nft.contents());
            if held.as_ref().map(Option::as_ref) != Ok(wanted) {
                let (held, wanted) = (held.map_or_else(str::to_owned, |it| shown(it.as_ref())), shown(wanted));
                let what = format!("pod {pod} has in namespace {serial}\n{held}\nand should have\n{wanted}");
                self.node
                    .violation(if victim.is_some() { "s228" } else { "s227" }, what);
                return;
            }
            match status {
                Some(status) if status.pod.uid == *pod && fits(&status.state, wanted.is_some()) => {}
                Some(status) => {
                    let what = format!(
                        "{pod} is {:?} of {}, isolated: {}",
                        status.state,
                        status.pod.uid,
                        wanted.is_some()
                    );
                    self.node.violation("s227", what);
                }
                None => self.node.violation("s227", format!("nothing is said of {pod}")),
            }
        }
        if snapshot.pods.len() != cluster.local().count() {
            self.node
                .violation("s227", "pods are reported that are not there".to_owned());
        }
        if victim.is_none() && agent.has_news(&self.node) {
            self.node
                .violation("s227", "something still waits for the loop".to_owned());
        }
    }
}
