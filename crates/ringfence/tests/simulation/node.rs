//! The node: network namespaces, the paths that lead to them, their kernel; and the faults that happen there.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use ringfence::event::OpenError;
use ringfence::host::{Host, Inside, Order};
use ringfence_model::{InterfaceName, PodUid};
use ringfence_netlink::kernel::{Answer, Head, Kernel, Reading};
use ringfence_netlink::{Count, Counters, Enforcer, Error};
use ringfence_netns::{Facts, NetnsId};
use ringfence_ruleset::{Hook, Name, Op, Ruleset, TableFamily};

use crate::dice::Dice;
use crate::nftables::{Nftables, Refused, errno};

/// How often, in a thousand, a call meets each fault.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// The kernel refuses a transaction, or is interrupted.
    pub refusals: usize,
    /// An answer is lost.
    pub losses: usize,
    /// Somebody else changes nftables in the namespace, perhaps tables of ours.
    pub foreigners: usize,
    /// The agent dies.
    pub crashes: usize,
    /// Something else goes on before the call is carried out.
    pub pauses: usize,
}

/// One network namespace. It lives as long as something leads to it or holds it open.
#[derive(Debug)]
pub struct Namespace {
    pub id: NetnsId,
    pub facts: Facts,
    pub nft: Nftables,
    /// Others have changed our tables since the last transaction of ours.
    pub tampered: bool,
    /// Devices that have gone, and their chains with them, and no transaction has looked after that.
    pub lost: BTreeSet<InterfaceName>,
    /// Refuses everything until it is healed.
    pub broken: bool,
    /// The applier that has written last.
    pub writer: Option<u64>,
    /// Number of appliers that hold it open.
    pub held: usize,
}

/// What is in our tables; an error is something that rulesets cannot say.
pub type Tables = Result<Option<Ruleset>, &'static str>;

/// A transaction that has changed our tables.
#[derive(Debug)]
pub struct Commit {
    pub serial: u64,
    pub pod: PodUid,
    pub run: u64,
    /// Whether others had changed the tables before.
    pub tampered: bool,
    /// Devices that had gone with their chains.
    pub lost: BTreeSet<InterfaceName>,
    pub before: Tables,
    pub after: Tables,
    pub ops: usize,
}

pub struct Node {
    pub dice: RefCell<Dice>,
    began: Instant,
    pub passed: Cell<Duration>,
    pub paths: RefCell<BTreeMap<PathBuf, u64>>,
    pub namespaces: RefCell<BTreeMap<u64, Namespace>>,
    pub faults: Cell<Faults>,
    /// What has not been looked at by the checks.
    pub commits: RefCell<Vec<Commit>>,
    /// What appliers have found in namespaces that they opened.
    pub opened: RefCell<Vec<(u64, Tables)>>,
    /// What the checks are to report.
    pub violations: RefCell<Vec<String>>,
    /// The answer to the next transaction is lost, which happens nevertheless.
    pub lose_next: Cell<bool>,
    /// Chains of a device outlive it (kernel 6.16), and come into force again with one of its name.
    pub lasting_chains: Cell<bool>,
    /// A process has died within a call.
    pub died: Cell<bool>,
    pub met: RefCell<BTreeMap<&'static str, usize>>,
    /// Batches that reached a kernel.
    pub transactions: Cell<usize>,
    pub verbose: bool,
    pub trace: RefCell<Vec<String>>,
    pub between: RefCell<Option<Rc<dyn Fn()>>>,
    depth: Cell<usize>,
    serials: Cell<u64>,
    ports: Cell<u32>,
}

impl Node {
    pub fn new(dice: Dice, faults: Faults, verbose: bool) -> Rc<Self> {
        Rc::new(Self {
            dice: RefCell::new(dice),
            began: Instant::now(),
            passed: Cell::default(),
            paths: RefCell::default(),
            namespaces: RefCell::default(),
            faults: Cell::new(faults),
            commits: RefCell::default(),
            opened: RefCell::default(),
            violations: RefCell::default(),
            lose_next: Cell::default(),
            lasting_chains: Cell::default(),
            died: Cell::default(),
            met: RefCell::default(),
            transactions: Cell::default(),
            verbose,
            trace: RefCell::default(),
            between: RefCell::default(),
            depth: Cell::default(),
            serials: Cell::new(1),
            ports: Cell::new(100),
        })
    }

    pub fn now(&self) -> Instant {
        self.began + self.passed.get()
    }

    /// A line of the trace, which is put together only where somebody reads it.
    pub fn say(&self, line: impl FnOnce() -> String) {
        if self.verbose {
            let indent = "    ".repeat(self.depth.get());
            let at = self.passed.get().as_secs_f64();
            self.trace.borrow_mut().push(format!("{at:9.3} {indent}{}", line()));
        }
    }

    /// Counts that something was met.
    pub fn meet(&self, what: &'static str) {
        *self.met.borrow_mut().entry(what).or_default() += 1;
    }

    pub fn violation(&self, check: &str, what: impl std::fmt::Display) {
        self.say(|| format!("VIOLATION {check}: {what}"));
        self.violations.borrow_mut().push(format!("{check}: {what}"));
    }

    pub fn below(&self, end: usize) -> usize {
        self.dice.borrow_mut().below(end)
    }

    pub fn chance(&self, per_mille: usize) -> bool {
        per_mille > 0 && self.dice.borrow_mut().chance(per_mille)
    }

    // === Namespaces ===

    pub fn create(&self, facts: Facts, reuse: bool) -> u64 {
        let serial = self.serials.get();
        self.serials.set(serial + 1);
        let mut namespaces = self.namespaces.borrow_mut();
        // A number that no living namespace has may come again.
        let taken: BTreeSet<u64> = namespaces.values().map(|it| it.id.inode).collect();
        let fresh = 1000 + serial;
        let inode = if reuse {
            (1001..fresh).find(|it| !taken.contains(it))
        } else {
            None
        };
        let namespace = Namespace {
            id: NetnsId {
                device: 4,
                inode: inode.unwrap_or(fresh),
            },
            facts,
            nft: Nftables::default(),
            tampered: false,
            lost: BTreeSet::new(),
            broken: false,
            writer: None,
            held: 0,
        };
        namespaces.insert(serial, namespace);
        serial
    }

    /// Forgets namespaces that nothing leads to and nobody holds.
    pub fn sweep(&self) {
        let paths = self.paths.borrow();
        self.namespaces
            .borrow_mut()
            .retain(|serial, it| it.held > 0 || paths.values().any(|other| other == serial));
    }

    pub fn identity(&self, path: &Path) -> Option<NetnsId> {
        let serial = *self.paths.borrow().get(path)?;
        Some(self.namespaces.borrow()[&serial].id)
    }

    pub fn with<T>(&self, serial: u64, f: impl FnOnce(&mut Namespace) -> T) -> T {
        f(self.namespaces.borrow_mut().get_mut(&serial).expect("it is held open"))
    }

    /// Somebody else is at work in a namespace: mostly beside our tables, otherwise on them, where the kernel lets him.
    pub fn meddle(&self, serial: u64) {
        let kind = self.below(5);
        let what = self.with(serial, |namespace| {
            namespace.nft.generation += 1;
            if namespace.nft.tables.values().any(|held| held.owner.is_some()) || namespace.nft.tables.is_empty() {
                return "beside ours";
            }
            match kind {
                0 | 1 => return "beside ours",
                2 => namespace.nft.tables.clear(),
                3 => {
                    let held = namespace.nft.tables.values_mut().next_back().expect("not empty");
                    if let Some(chain) = held.table.chains.values_mut().find(|chain| !chain.rules.is_empty()) {
                        chain.rules.pop();
                    }
                }
                _ => {
                    let held = namespace.nft.tables.values_mut().next().expect("not empty");
                    held.table.counters.insert(Name::new("somebody"));
                }
            }
            namespace.tampered = true;
            "ours"
        });
        self.meet(if what == "ours" {
            "foreign changes of our tables"
        } else {
            "foreign changes beside ours"
        });
        self.say(|| format!("somebody changes nftables in namespace {serial}, {what}"));
    }

    pub fn unplug(&self, serial: u64, interface: &InterfaceName) {
        self.with(serial, |namespace| {
            namespace.facts.interfaces.remove(interface);
            if !self.lasting_chains.get() && namespace.nft.unplug(interface) {
                namespace.tampered = true;
                namespace.lost.insert(interface.clone());
            }
        });
    }

    pub fn plug(&self, serial: u64, interface: InterfaceName, addresses: BTreeSet<IpAddr>) {
        self.with(serial, |namespace| {
            namespace.facts.interfaces.insert(interface, addresses)
        });
    }

    /// Lets others go on before a call is carried out.
    fn pause(&self) {
        if self.depth.get() > 0 || !self.chance(self.faults.get().pauses) {
            return;
        }
        let between = self.between.borrow().clone();
        if let Some(between) = between {
            self.meet("calls that others overtook");
            self.depth.set(1);
            between();
            self.depth.set(0);
        }
    }
}

/// The node as one process sees it.
#[derive(Clone)]
pub struct SimHost {
    pub node: Rc<Node>,
    /// Whether the process still runs.
    pub alive: Rc<Cell<bool>>,
    pub pod: PodUid,
    pub run: u64,
}

/// A namespace that is held open.
pub struct SimNetns {
    node: Rc<Node>,
    pub serial: u64,
}

impl Drop for SimNetns {
    fn drop(&mut self) {
        self.node.with(self.serial, |namespace| namespace.held -= 1);
    }
}

/// A socket.
pub struct SimKernel {
    host: SimHost,
    netns: SimNetns,
    port: u32,
}

impl Drop for SimKernel {
    fn drop(&mut self) {
        let port = self.port;
        self.netns
            .node
            .with(self.netns.serial, |namespace| namespace.nft.close(port));
    }
}

impl SimHost {
    fn hold(&self, serial: u64) -> SimNetns {
        self.node.with(serial, |namespace| namespace.held += 1);
        SimNetns {
            node: Rc::clone(&self.node),
            serial,
        }
    }
}

impl Host for SimHost {
    type Netns = SimNetns;
    type Kernel = SimKernel;
    type Guards = ();

    fn now(&self) -> Instant {
        self.node.now()
    }

    fn open(&self, order: &Order) -> Result<Inside<Self>, OpenError> {
        let (path, features) = (order.path.as_path(), order.features);
        self.node.pause();
        let failed = |reason: String| OpenError { pending: false, reason };
        let Some(serial) = self.node.paths.borrow().get(path).copied() else {
            return Err(OpenError {
                pending: true,
                reason: format!("no network namespace at {}", path.display()),
            });
        };
        let netns = self.hold(serial);
        let port = self.node.ports.get();
        self.node.ports.set(port + 1);
        let facts = self.facts(&netns);
        let kernel = SimKernel {
            host: self.clone(),
            netns: self.hold(serial),
            port,
        };
        let enforcer = Enforcer::over(kernel, features).map_err(|error| failed(error.to_string()))?;
        let (id, found) = self
            .node
            .with(serial, |namespace| (namespace.id, namespace.nft.contents()));
        self.node.opened.borrow_mut().push((serial, found));
        Ok(Inside {
            netns,
            id,
            facts,
            enforcer,
            guards: (),
        })
    }

    // Frames that no table sees are not in the simulation.
    fn guard(&self, _: &PodUid, _: &SimNetns, (): &mut (), _: Option<&Ruleset>, _: bool) {}

    fn settle(&self, (): &()) -> bool {
        false
    }

    fn facts(&self, netns: &SimNetns) -> Result<Facts, String> {
        if self.node.chance(self.node.faults.get().losses) {
            self.node.meet("unreadable interfaces");
            return Err("no answer".to_owned());
        }
        Ok(self.node.with(netns.serial, |namespace| namespace.facts.clone()))
    }

    fn track_connections(&self, _: &PodUid, _: &SimNetns) {
        self.node.pause();
    }
}

impl SimKernel {
    fn node(&self) -> &Node {
        &self.netns.node
    }

    /// What can happen before any call.
    fn call(&self, what: &'static str) -> Result<(), Error> {
        self.node().pause();
        if self.node().chance(self.node().faults.get().foreigners) {
            self.node().meddle(self.netns.serial);
        }
        self.maybe_die();
        if self.host.alive.get() {
            Ok(())
        } else {
            Err(Error::NoAnswer(what))
        }
    }

    fn maybe_die(&self) {
        if self.host.alive.get() && self.node().chance(self.node().faults.get().crashes) {
            self.node().say(|| "the agent is killed within a call".to_owned());
            self.node().meet("kills within a call");
            self.host.alive.set(false);
            self.node().died.set(true);
        }
    }

    fn loses(&self, what: &'static str) -> bool {
        let loses = self.node().chance(self.node().faults.get().losses);
        if loses {
            self.node().meet("lost answers");
            self.node().say(|| format!("the answer to {what} is lost"));
        }
        loses
    }

    fn ask<T>(&self, what: &'static str, answer: impl FnOnce(&Nftables) -> T) -> Result<T, Error> {
        self.call(what)?;
        if self.loses(what) {
            return Err(Error::NoAnswer(what));
        }
        Ok(self.node().with(self.netns.serial, |namespace| answer(&namespace.nft)))
    }

    fn refuse(&self, errno: i32, why: &str) -> Answer {
        self.node().meet("refusals");
        self.node()
            .say(|| format!("namespace {}: a transaction is refused ({why})", self.netns.serial));
        Answer::Refused {
            operation: Some(0),
            errno,
            detail: Some(why.to_owned()),
        }
    }

    fn carry_out(&mut self, ops: &[Op], flags: u32) -> Answer {
        let (serial, run, port) = (self.netns.serial, self.host.run, self.port);
        self.node().transactions.set(self.node().transactions.get() + 1);
        let done = self.node().with(serial, |namespace| {
            let contents = if namespace.lost.is_empty() {
                Nftables::contents
            } else {
                Nftables::remains
            };
            let before = contents(&namespace.nft);
            let devices: Vec<InterfaceName> = namespace.facts.interfaces.keys().cloned().collect();
            let changed = namespace.nft.transact(ops, flags, port, &devices)?;
            if !changed {
                return Ok::<_, Refused>(None);
            }
            namespace.writer = Some(run);
            let commit = Commit {
                serial,
                pod: self.host.pod.clone(),
                run,
                tampered: std::mem::take(&mut namespace.tampered),
                lost: namespace.lost.clone(),
                before,
                after: contents(&namespace.nft),
                ops: ops.len(),
            };
            let about_chains = |op: &Op| {
                op.family() == TableFamily::Netdev
                    && matches!(op, Op::AddChain { .. } | Op::DelChain { .. } | Op::DelTable { .. })
            };
            if ops.iter().any(about_chains) {
                namespace.lost.clear();
            }
            Ok(Some(commit))
        });
        match done {
            Ok(None) => Answer::Done,
            Ok(Some(commit)) => {
                self.node()
                    .say(|| format!("applier {run} commits {} operations in namespace {serial}", commit.ops));
                self.node().commits.borrow_mut().push(commit);
                Answer::Done
            }
            Err((position, number)) => {
                self.check_refusal(&ops[position], number);
                Answer::Refused {
                    operation: Some(position),
                    errno: number,
                    detail: None,
                }
            }
        }
    }

    /// What Ringfence sends fits what the kernel holds, unless somebody else has been there.
    fn check_refusal(&self, op: &Op, number: i32) {
        let (tampered, other) = self.node().with(self.netns.serial, |namespace| {
            (
                // A chain that went with its interface moves no generation, so it may be missed until it is needed.
                namespace.tampered || !namespace.lost.is_empty(),
                namespace.writer.is_some_and(|run| run != self.host.run),
            )
        });
        let device = matches!(op, Op::AddChain { base: Some(base), .. } if matches!(base.hook, Hook::Egress(_)));
        self.node().meet("refusals");
        self.node()
            .say(|| format!("namespace {}: `{op}` is refused with error {number}", self.netns.serial));
        if !(tampered || other || device || number == errno::EPERM) {
            let what = format!("the kernel refuses `{op}` with error {number}, and nobody else has been there");
            self.node().violation("s142", what);
        }
    }
}

impl Kernel for SimKernel {
    fn port(&self) -> u32 {
        self.port
    }

    fn generation(&mut self) -> Result<u32, Error> {
        self.ask("a question for the generation", |nft| nft.generation)
    }

    fn transact(&mut self, ops: &[Op], generation: Option<u32>, flags: u32) -> Result<Answer, Error> {
        const WHAT: &str = "a transaction";
        self.call(WHAT)?;
        let (current, broken) = self.node().with(self.netns.serial, |namespace| {
            (namespace.nft.generation, namespace.broken)
        });
        if broken {
            return Ok(self.refuse(errno::ENOMEM, "the namespace is broken"));
        }
        if self.node().chance(self.node().faults.get().refusals) {
            return Ok(match self.node().below(4) {
                0 => Answer::Interrupted,
                1 => self.refuse(errno::EPERM, "chance"),
                // Looks as if the kernel did not hold what was thought.
                2 => self.refuse(errno::EEXIST, "chance"),
                _ => self.refuse(errno::ENOMEM, "chance"),
            });
        }
        if self.loses("a transaction that has not happened") {
            return Err(Error::NoAnswer(WHAT));
        }
        if generation.is_some_and(|generation| generation != current) {
            self.node().meet("moved generations");
            return Ok(Answer::Moved);
        }
        let answer = self.carry_out(ops, flags);
        self.maybe_die();
        if self.node().lose_next.take() || !self.host.alive.get() || self.loses("a transaction that has happened") {
            return Err(Error::NoAnswer(WHAT));
        }
        Ok(answer)
    }

    fn read(&mut self) -> Result<Reading, Error> {
        if self.node().chance(self.node().faults.get().losses) {
            self.node().meet("readings that never end");
            return Err(Error::Busy { attempts: 20 });
        }
        self.ask("a question for the tables", |nft| Reading {
            generation: nft.generation,
            heads: nft.heads(),
            contents: nft.reading(),
        })
    }

    fn heads(&mut self) -> Result<Vec<Head>, Error> {
        self.ask("a question for the tables", Nftables::heads)
    }

    fn counters(&mut self) -> Result<Counters, Error> {
        self.ask("a question for counters", |nft| {
            let tables = TableFamily::BOTH
                .into_iter()
                .filter_map(|family| Some((family, nft.tables.get(&family)?)));
            tables
                .flat_map(|(family, held)| {
                    held.table
                        .counters
                        .iter()
                        .map(move |name| ((family, name.clone()), Count::default()))
                })
                .collect()
        })
    }
}
