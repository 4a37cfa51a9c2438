//! One pod's tables: what the kernel has, and how it gets to what is wanted.

use ringfence_ruleset::{KernelFeatures, Op, Ruleset, TableFamily, replacement, transaction};

use crate::compare::{Drift, DriftReason, difference, settle};
use crate::encode::TABLE;
use crate::error::{Error, Refusal, describe};
use crate::kernel::{Answer, Contents, Head, Kernel, Netlink, OWNER, PERSIST, Reading};
use crate::read::Counters;

/// Attempts at one change while others change nftables in the same namespace.
const ATTEMPTS: usize = 8;
/// Of these, how many insist that nothing has changed since the tables were read. A pod's own processes may change
/// nftables all the time; that must not keep a change of policy from its tables.
const INSISTENT: usize = 4;
/// Attempts to take over tables whose owner has just gone.
const ADOPTIONS: usize = 3;

/// What [`Enforcer::enforce`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing differed and nothing was sent.
    Unchanged,
    /// One transaction of elements only (statement 230), acknowledged.
    Elements {
        /// Number of elements added.
        added: usize,
        /// Number of elements removed.
        removed: usize,
        /// What others had changed before, and what the transaction mended.
        repaired: Option<Drift>,
    },
    /// One transaction that changed more, acknowledged, read back and compared.
    Ruleset {
        /// Number of operations.
        operations: usize,
        /// What others had changed before, and what the transaction mended.
        repaired: Option<Drift>,
    },
}

impl Outcome {
    /// What others had changed, and what was mended on the way.
    pub fn repaired(&self) -> Option<&Drift> {
        match self {
            Self::Unchanged => None,
            Self::Elements { repaired, .. } | Self::Ruleset { repaired, .. } => repaired.as_ref(),
        }
    }
}

/// What is known of the tables.
#[derive(Debug)]
enum State {
    /// They hold this.
    Known(Option<Ruleset>),
    /// They hold something else than rulesets can say; in words. To be replaced.
    Unknown(String),
    /// A transaction's answer was lost. To be read before anything is sent.
    Stale,
}

/// One pod's tables in one network namespace.
///
/// Holds the netlink socket through which all changes go, and which owns the tables where the kernel has owners; it
/// belongs to the namespace in which it was opened. Dropping it leaves the tables in force.
#[derive(Debug)]
pub struct Enforcer<K = Netlink> {
    kernel: K,
    features: KernelFeatures,
    state: State,
    /// Of the last reading or transaction of ours; `None` where another change may have come in between.
    generation: Option<u32>,
    /// The state was read from the kernel, so its rules may be worded otherwise than wanted.
    adopted: bool,
}

impl Enforcer {
    /// Opens a socket in the calling thread's network namespace, takes over tables that an earlier agent has left
    /// there, and reads them.
    ///
    /// Fails with [`Error::Owned`] where that agent still runs.
    pub fn open(features: KernelFeatures) -> Result<Self, Error> {
        Self::over(Netlink::open()?, features)
    }
}

impl<K: Kernel> Enforcer<K> {
    /// [`Enforcer::open`] by a conversation that has begun.
    pub fn over(kernel: K, features: KernelFeatures) -> Result<Self, Error> {
        let mut enforcer = Self {
            kernel,
            features,
            state: State::Stale,
            generation: None,
            adopted: true,
        };
        enforcer.reload()?;
        Ok(enforcer)
    }

    /// The address of its socket, by which the kernel names it in notifications.
    pub fn port(&self) -> u32 {
        self.kernel.port()
    }

    /// What the kernel has, as far as known: `None` where it has no tables of ours, or unknown ones.
    pub fn current(&self) -> Option<&Ruleset> {
        match &self.state {
            State::Known(ruleset) => ruleset.as_ref(),
            State::Unknown(_) | State::Stale => None,
        }
    }

    /// Why the tables found are not a ruleset, if so: they are replaced by the next [`Self::enforce`].
    pub fn unknown(&self) -> Option<&str> {
        match &self.state {
            State::Unknown(what) => Some(what),
            State::Known(_) | State::Stale => None,
        }
    }

    /// Whether there are tables of ours, understood or not. Where an answer was lost this looks; what cannot be looked at
    /// is taken for rules.
    pub fn has_rules(&mut self) -> bool {
        if matches!(self.state, State::Stale) {
            // Where it fails, the state stays what it is.
            drop(self.reload());
        }
        !matches!(self.state, State::Known(None))
    }

    /// Brings the tables to `wanted` in one transaction, or in none where they are there; `None` removes them.
    ///
    /// After a refusal ([`Error::Refused`], [`Error::Owned`]) the kernel and [`Self::current`] are as before. A change
    /// of more than elements is read back. Where others have changed the tables in the meantime, they are read again
    /// and the transaction starts from what is there.
    pub fn enforce(&mut self, wanted: Option<&Ruleset>) -> Result<Outcome, Error> {
        self.enforce_while(wanted, || true)
    }

    /// The same as long as the caller is `current`, or [`Error::Superseded`]. That is asked behind the reading whose
    /// generation the transaction insists on: so nobody who has been replaced meanwhile writes over his successor, also
    /// where tables have no owners.
    pub fn enforce_while(&mut self, wanted: Option<&Ruleset>, current: impl Fn() -> bool) -> Result<Outcome, Error> {
        let mut repaired = self.before_enforcing()?;
        let mut differed = false;
        let mut reread = false;
        for attempt in 0..ATTEMPTS {
            let insist = attempt < INSISTENT;
            let ops = self.plan(wanted, insist);
            if ops.is_empty() {
                self.take_elements(wanted);
                return Ok(Outcome::Unchanged);
            }
            // What is unknown is replaced whatever it has become.
            let known = matches!(self.state, State::Known(_));
            let generation = self.generation.filter(|_| insist && known);
            if !current() {
                return Err(Error::Superseded);
            }
            match self.send(&ops, generation)? {
                Answer::Done if known && ops.iter().all(Op::is_elements) => {
                    self.take_elements(wanted);
                    self.generation = generation.map(next_generation);
                    return Ok(elements_outcome(&ops, repaired));
                }
                Answer::Done => {
                    self.state = State::Known(wanted.cloned());
                    self.generation = None;
                    self.adopted = false;
                    match self.reload()? {
                        None => {
                            let operations = ops.len();
                            return Ok(Outcome::Ruleset { operations, repaired });
                        }
                        // Once may be somebody else, who was quick.
                        Some(drift) if !differed => {
                            differed = true;
                            repaired = Some(drift);
                        }
                        Some(drift) => return Err(Error::Differs(drift.detail)),
                    }
                }
                // Somebody changed nftables, but not tables that we own.
                Answer::Moved if self.owns_tables() => self.generation = Some(self.kernel.generation()?),
                Answer::Moved => match self.reload() {
                    Ok(drift) => repaired = drift.or(repaired),
                    // In the end they are replaced, whatever they have become.
                    Err(Error::Busy { .. }) => {}
                    Err(error) => return Err(error),
                },
                Answer::Interrupted => {}
                Answer::Refused {
                    operation,
                    errno,
                    detail,
                } => {
                    // Perhaps the kernel does not hold what we believe: without an owner, anybody may have changed
                    // it, and a chain of an interface goes with the interface without a new generation.
                    let mismatch = [libc::ENOENT, libc::EEXIST, libc::EBUSY, libc::EOPNOTSUPP].contains(&errno);
                    if mismatch && known && !reread {
                        reread = true;
                        if let Some(drift) = self.reload()? {
                            repaired = Some(drift);
                            continue;
                        }
                    }
                    return Err(self.refusal(&ops, operation, errno, detail));
                }
            }
        }
        Err(Error::Busy { attempts: ATTEMPTS })
    }

    /// Whether the kernel still holds what we put there: `None` if so. A drift becomes [`Self::current`], so that the
    /// next [`Self::enforce`] mends it. Where nothing in the namespace has changed this is one question, and two more where
    /// there are chains of devices.
    pub fn verify(&mut self) -> Result<Option<Drift>, Error> {
        let known = matches!(self.state, State::Known(_));
        if known && self.generation == Some(self.kernel.generation()?) && !self.lacks_chains()? {
            return Ok(None);
        }
        self.reload()
    }

    /// Before kernel 6.16 the chains of a device go with it, without a new generation, and do not come back with another
    /// device of its name. The number of things in their table tells.
    fn lacks_chains(&mut self) -> Result<bool, Error> {
        let family = TableFamily::Netdev;
        let Some(table) = self.current().and_then(|ruleset| ruleset.table(family)) else {
            return Ok(false);
        };
        let expected = table.counters.len() + table.sets.len() + table.chains.len();
        let heads = self.kernel.heads()?;
        Ok(!heads.iter().any(|head| head.family == family && head.uses == expected))
    }

    /// The counters of both tables as they are now.
    pub fn counters(&mut self) -> Result<Counters, Error> {
        self.kernel.counters()
    }

    fn before_enforcing(&mut self) -> Result<Option<Drift>, Error> {
        if self.generation.is_some() {
            return Ok(None);
        }
        match self.reload() {
            Err(Error::Busy { .. }) => {
                if matches!(self.state, State::Stale) {
                    self.state = State::Unknown("it could not be read".to_owned());
                }
                Ok(None)
            }
            other => other,
        }
    }

    /// The operations that lead to `wanted`.
    fn plan(&mut self, wanted: Option<&Ruleset>, insist: bool) -> Vec<Op> {
        match &mut self.state {
            State::Known(current) if insist || self.features.owner_persist => {
                if let (Some(current), Some(wanted), true) = (current.as_mut(), wanted, self.adopted) {
                    settle(current, wanted);
                    self.adopted = false;
                }
                transaction(current.as_ref(), wanted)
            }
            _ => replacement(wanted),
        }
    }

    fn send(&mut self, ops: &[Op], generation: Option<u32>) -> Result<Answer, Error> {
        let flags = self.flags();
        let answer = self.kernel.transact(ops, generation, flags);
        if matches!(answer, Err(Error::NoAnswer(_) | Error::Malformed(_))) {
            self.state = State::Stale;
            self.generation = None;
        }
        answer
    }

    /// Whether the kernel keeps everybody else from changing the tables, both of them.
    fn owns_tables(&self) -> bool {
        self.features.owner_persist
            && self
                .current()
                .is_some_and(|ruleset| ruleset.table(TableFamily::Netdev).is_some())
    }

    fn flags(&self) -> u32 {
        if self.features.owner_persist {
            OWNER | PERSIST
        } else {
            0
        }
    }

    /// After a change of elements, or none: takes over the sets of `wanted`, and nothing else, so that the cost hardly
    /// grows with the ruleset. Also those that are equal but of other memory (read from the kernel, or made anew), or
    /// every later comparison would walk through them.
    fn take_elements(&mut self, wanted: Option<&Ruleset>) {
        let (State::Known(Some(current)), Some(wanted)) = (&mut self.state, wanted) else {
            return;
        };
        for (ours, theirs) in [(&mut current.inet, &wanted.inet), (&mut current.netdev, &wanted.netdev)] {
            // The names are the same where only elements differ.
            for (ours, theirs) in ours.sets.values_mut().zip(theirs.sets.values()) {
                if !ours.elements.ptr_eq(&theirs.elements) {
                    ours.elements = theirs.elements.clone();
                }
            }
        }
    }

    /// Reads the tables and takes them as the state; what differs from a state that was known is a drift.
    fn reload(&mut self) -> Result<Option<Drift>, Error> {
        let reading = self.read_owned()?;
        self.generation = Some(reading.generation);
        let unowned = reading.heads.iter().find(|head| !self.may_keep(head));
        let found = match (reading.contents, unowned) {
            (Contents::Understood(_), Some(head)) => State::Unknown(format!(
                "table {} {TABLE} exists without the flags owner and persist",
                head.family
            )),
            (Contents::Understood(ruleset), None) => State::Known(ruleset),
            (Contents::Unknown(what), _) => State::Unknown(what),
        };
        let drift = match (&self.state, found) {
            // A state that was uncertain or foreign is nothing that could drift.
            (State::Unknown(_) | State::Stale, found) => {
                self.state = found;
                self.adopted = true;
                None
            }
            (State::Known(_), State::Unknown(what)) => {
                let drift = Drift {
                    reason: DriftReason::Unknown,
                    detail: what.clone(),
                };
                self.state = State::Unknown(what);
                Some(drift)
            }
            (State::Known(expected), State::Known(mut found)) => {
                if let (Some(found), Some(expected)) = (&mut found, expected) {
                    settle(found, expected);
                }
                let drift = difference(found.as_ref(), expected.as_ref());
                if drift.is_some() {
                    self.state = State::Known(found);
                    self.adopted = true;
                }
                drift
            }
            (State::Known(_), State::Stale) => None,
        };
        Ok(drift)
    }

    /// Reads the tables, after taking over those whose owner has gone.
    fn read_owned(&mut self) -> Result<Reading, Error> {
        for _ in 0..ADOPTIONS {
            let reading = self.kernel.read()?;
            if let Some(error) = self.foreign_owner(&reading.heads) {
                return Err(error);
            }
            let orphans: Vec<Op> = reading
                .heads
                .iter()
                .filter(|head| self.features.owner_persist && head.owner.is_none())
                .filter(|head| head.flags & PERSIST != 0)
                .map(|head| Op::AddTable {
                    family: head.family,
                    comment: "".into(),
                })
                .collect();
            if orphans.is_empty() {
                return Ok(reading);
            }
            // Adding a table with both flags takes it over where it has `persist` and no owner; everything in it
            // stays, counters too. Then again, because anybody could have changed it until now.
            match self.send(&orphans, None)? {
                Answer::Done | Answer::Moved | Answer::Interrupted => {}
                Answer::Refused {
                    operation,
                    errno,
                    detail,
                } => return Err(self.refusal(&orphans, operation, errno, detail)),
            }
        }
        Err(Error::Busy { attempts: ADOPTIONS })
    }

    /// Whether a table has the flags that we would give it. One without `persist` cannot be given an owner.
    fn may_keep(&self, head: &Head) -> bool {
        !self.features.owner_persist || head.flags & self.flags() == self.flags()
    }

    fn foreign_owner(&self, heads: &[Head]) -> Option<Error> {
        heads.iter().find_map(|head| {
            let port = head.owner.filter(|port| *port != self.kernel.port())?;
            let family = head.family;
            Some(Error::Owned { family, port })
        })
    }

    /// The error for a refused batch: names the operation, or the owner where that is the reason.
    fn refusal(&mut self, ops: &[Op], operation: Option<usize>, errno: i32, detail: Option<String>) -> Error {
        if errno == libc::EPERM
            && let Ok(heads) = self.kernel.heads()
            && let Some(error) = self.foreign_owner(&heads)
        {
            return error;
        }
        let op = operation.and_then(|position| ops.get(position));
        Error::Refused(Box::new(Refusal {
            operation: op.map_or_else(|| "a transaction".to_owned(), describe),
            errno,
            detail,
        }))
    }
}

/// The kernel's count goes on by one with each transaction that changes something, and has no 0.
fn next_generation(generation: u32) -> u32 {
    generation.checked_add(1).unwrap_or(1)
}

fn elements_outcome(ops: &[Op], repaired: Option<Drift>) -> Outcome {
    let (mut added, mut removed) = (0, 0);
    for op in ops {
        match op {
            Op::AddElements { elements, .. } => added += elements.len(),
            Op::DelElements { elements, .. } => removed += elements.len(),
            _ => {}
        }
    }
    Outcome::Elements {
        added,
        removed,
        repaired,
    }
}
