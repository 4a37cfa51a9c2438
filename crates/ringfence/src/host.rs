//! What the loop and its appliers take from the machine: network namespaces, the kernel in them, threads, the time.
//!
//! Two traits, so that the same loop and the same appliers also run in a simulation, step by step, where a scheduler
//! says who goes on and the kernel fails when it is told to (`tests/simulation`). [`Machine`] and
//! [`Threads`](crate::threads::Threads) are the real ones.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Once};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use ringfence_model::PodUid;
use ringfence_netlink::kernel::{Kernel, Netlink};
use ringfence_netlink::{Enforcer, Error, Notifications, track_established};
use ringfence_netns::{Facts, Netns, NetnsId};
use ringfence_ruleset::{KernelFeatures, Ruleset};
use tracing::{debug, warn};

use crate::applier::{Mailbox, Reports};
use crate::drift::{Drift, Registration};
use crate::event::OpenError;
use crate::guards::Guards;

/// Time that the kernel may need until it is done with the AF_XDP sockets of an agent that has ended.
const SETTLE: Duration = Duration::from_millis(50);

/// What appliers work on.
pub trait Host {
    /// An open network namespace.
    type Netns;
    /// A conversation with its nftables.
    type Kernel: Kernel;
    /// What hears of changes by others and keeps the pod from sending past its rules, as long as it is held.
    type Guards;

    /// The time.
    fn now(&self) -> Instant;

    /// Opens the namespace of an order and what is needed of it.
    fn open(&self, order: &Order) -> Result<Inside<Self>, OpenError>
    where
        Self: Sized;

    /// What is in the namespace now.
    fn facts(&self, netns: &Self::Netns) -> Result<Facts, String>;

    /// Makes the connections that are open in the namespace known to conntrack.
    fn track_connections(&self, pod: &PodUid, netns: &Self::Netns);

    /// Keeps the pod from sending past these rules. `again`: its interfaces may be others now.
    fn guard(
        &self,
        pod: &PodUid,
        netns: &Self::Netns,
        guards: &mut Self::Guards,
        wanted: Option<&Ruleset>,
        again: bool,
    );

    /// Whether a guard was somebody else's, so that it is worth trying again; waits for that moment.
    fn settle(&self, guards: &Self::Guards) -> bool;
}

/// What an applier holds of a namespace.
pub struct Inside<H: Host> {
    /// The namespace.
    pub netns: H::Netns,
    /// Which one it is.
    pub id: NetnsId,
    /// What was in it when it was opened.
    pub facts: Result<Facts, String>,
    /// Its tables.
    pub enforcer: Enforcer<H::Kernel>,
    /// What goes with it.
    pub guards: H::Guards,
}

/// Who does the loop's work outside of it.
pub trait Hands: Send {
    /// Starts an applier, which opens the namespace at once. An error is one of the operating system, for a lack of
    /// threads or memory.
    fn start(&mut self, order: Order) -> io::Result<()>;

    /// Reports what is at the path, now and whenever it changes.
    fn track(&mut self, pod: PodUid, path: PathBuf);

    /// Reports nothing more about the pod.
    fn forget(&mut self, pod: &PodUid);

    /// The date, for people.
    fn date(&self) -> SystemTime;
}

/// What an applier is to know.
#[derive(Debug)]
pub struct Order {
    /// Whose namespace.
    pub pod: PodUid,
    /// Where it is.
    pub path: PathBuf,
    /// The applier's number among those of this process.
    pub run: u64,
    /// What the kernel can do.
    pub features: KernelFeatures,
    /// Where it finds its work.
    pub mailbox: Arc<Mailbox>,
    /// Where it reports to.
    pub reports: Reports,
}

/// The machine that this process runs on.
#[derive(Debug, Clone)]
pub struct Machine {
    drift: Drift,
}

impl Machine {
    /// With the thread that hears of changes by others.
    pub fn new() -> io::Result<Self> {
        Ok(Self { drift: Drift::start()? })
    }

    /// From now on, changes by others make the order's applier compare.
    fn listen(
        &self,
        order: &Order,
        notifications: Result<Notifications, Error>,
        enforcer: &Enforcer<Netlink>,
    ) -> Option<Registration> {
        let listened = || -> Result<Registration, String> {
            let mut notifications = notifications.map_err(|error| error.to_string())?;
            notifications
                .ignore(enforcer.port())
                .map_err(|error| error.to_string())?;
            self.drift
                .register(notifications, Arc::clone(&order.mailbox))
                .map_err(|error| error.to_string())
        };
        listened()
            .inspect_err(|error| warn!(uid = %order.pod, error, "Changes by others are found at the resync only"))
            .ok()
    }
}

/// What the machine holds of a namespace beside its tables.
#[derive(Debug)]
pub struct Watched {
    guards: Guards,
    /// As long as it is here, changes by others are heard of at once.
    _listened: Option<Registration>,
}

impl Host for Machine {
    type Netns = Netns;
    type Kernel = Netlink;
    type Guards = Watched;

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn open(&self, order: &Order) -> Result<Inside<Self>, OpenError> {
        let failed = |reason: String| OpenError { pending: false, reason };
        let netns = Netns::open(&order.path).map_err(|error| OpenError {
            pending: error.is_pending(),
            reason: error.to_string(),
        })?;
        // Listening comes before reading, so that no change falls in between.
        let (notifications, facts, enforcer) = netns
            .run(|| {
                (
                    Notifications::open(),
                    ringfence_netns::facts(),
                    Enforcer::open(order.features),
                )
            })
            .map_err(|error| failed(error.to_string()))?;
        let enforcer = enforcer.map_err(|error| failed(error.to_string()))?;
        let guards = Watched {
            guards: Guards::default(),
            _listened: self.listen(order, notifications, &enforcer),
        };
        Ok(Inside {
            id: netns.id(),
            netns,
            facts: facts.map_err(|error| error.to_string()),
            enforcer,
            guards,
        })
    }

    fn facts(&self, netns: &Netns) -> Result<Facts, String> {
        match netns.run(ringfence_netns::facts) {
            Ok(Ok(facts)) => Ok(facts),
            Ok(Err(error)) | Err(error) => Err(error.to_string()),
        }
    }

    fn track_connections(&self, pod: &PodUid, netns: &Netns) {
        static LACKS: Once = Once::new();
        match netns.run(track_established) {
            Ok(Ok(tracked)) => debug!(
                uid = %pod,
                inbound = tracked.inbound,
                outbound = tracked.outbound,
                "Running connections made known to conntrack"
            ),
            Ok(Err(error @ Error::Lacks(_))) => LACKS.call_once(|| {
                warn!(%error, "Connections that are open when a pod's first rules come may stall, or live on although denied");
            }),
            Ok(Err(error)) => {
                warn!(uid = %pod, %error, "Not every running connection could be made known to conntrack");
            }
            Err(error) => warn!(uid = %pod, %error, "Running connections could not be looked at"),
        }
    }

    fn guard(&self, pod: &PodUid, netns: &Netns, guards: &mut Watched, wanted: Option<&Ruleset>, again: bool) {
        guards.guards.update(pod, netns, wanted, again);
    }

    fn settle(&self, guards: &Watched) -> bool {
        let unsettled = guards.guards.unsettled();
        if unsettled {
            // An agent that has just ended had them.
            thread::sleep(SETTLE);
        }
        unsettled
    }
}
