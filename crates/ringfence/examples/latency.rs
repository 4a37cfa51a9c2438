//! How long a change takes from the source into the kernel, through the real loop, the real appliers and the real
//! kernel, with a channel in place of the source. Needs root; makes namespaces `rf-agent-bench-…` and removes them.
//!
//! ```text
//! cargo run --release -p ringfence --example latency            # everything
//! cargo run --release -p ringfence --example latency -- memory  # resident memory only
//! ```
//!
//! The floor is what the netlink crate alone takes for the same transaction, in the same run.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use ringfence::controller::{self, Running, Setup};
use ringfence::event::{Applied, Success};
use ringfence_kube::Decoded;
use ringfence_kube::directory::Update;
use ringfence_model::{
    Attachment, Coverage, InterfaceName, NamespacedName, NetworkName, Object, ObjectKey, Peer, Peers, Pod, PodUid,
    Policy, PolicyKey, PolicyKind, PortMatch, PortRange, Ports, Protocol, Requirement, Rule, Scope, Selector, Source,
};
use ringfence_netlink::Enforcer;
use ringfence_policy::{Index, Locality, Options, TargetFacts};
use ringfence_ruleset::{KernelFeatures, Ruleset};
use ringfence_testkit::NamedNetns;
use tokio::sync::mpsc::{Sender, channel};

const PEERS: u32 = 10_000;
const LOCAL: u32 = 100;
/// Events that are waited for one by one.
const EVENTS: u32 = 2_500;
const EVENTS_FOR_ALL: u32 = 1_000;
/// Pause between events where a quiet node is meant: long enough for every thread to sleep.
const QUIET: Duration = Duration::from_millis(3);

fn main() -> Result<()> {
    if env::args().nth(1).as_deref() == Some("memory") {
        return memory();
    }
    let features = ringfence::agent::probe()?;
    let floor = floor(features)?;
    let node = Node::start(features, LOCAL)?;
    one_pod(&node, &floor)?;
    all_pods(&node, &floor)?;
    new_policy(&node, &floor)?;
    node.stop()?;
    let status = Command::new(env::current_exe()?).arg("memory").status()?;
    ensure!(status.success(), "the measurement of memory failed");
    Ok(())
}

// === Objects ===

fn net_a() -> NetworkName {
    NetworkName::Namespaced(NamespacedName::new("shop", "net-a"))
}

fn address(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(10, 20, 0, 0)) + number).into()
}

fn pod(name: &str, number: u32, node: &str, labels: &[(&str, &str)]) -> Object {
    let attachment = |interface: &str, network, address, primary| Attachment {
        interface: InterfaceName::new(interface).ok(),
        networks: BTreeSet::from([network]),
        primary,
        addresses: BTreeSet::from([address]),
    };
    let primary: IpAddr = Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(10, 128, 0, 0)) + number).into();
    Object::Pod(Pod {
        mirror_of: None,
        uid: uid(name),
        name: NamespacedName::new("shop", name),
        node: Some(node.into()),
        labels: labels.iter().copied().collect(),
        attachments: vec![
            attachment("eth0", NetworkName::Default, primary, true),
            attachment("net1", net_a(), address(number), false),
        ],
        ports: BTreeSet::new(),
        host_network: false,
        terminal: false,
        started: i64::from(number),
        host_addresses: BTreeSet::new(),
    })
}

fn uid(name: &str) -> PodUid {
    PodUid::new(&format!("uid-{name}")).expect("valid")
}

fn selector(key: &str, value: &str) -> Selector {
    Selector::new(vec![Requirement::In {
        key: key.into(),
        values: vec![value.into()],
    }])
}

fn policy_key(name: &str) -> PolicyKey {
    PolicyKey {
        kind: PolicyKind::MultiNetworkPolicy,
        name: NamespacedName::new("shop", name),
    }
}

/// Lets the pods with `access=true` reach the selected ones on one TCP port.
fn policy(name: &str, target: Selector, port: u16) -> Object {
    let peer = Peer::Pods {
        namespaces: None,
        pods: selector("access", "true"),
    };
    let range = PortRange {
        protocol: Protocol::Tcp,
        first: port,
        last: port,
    };
    Object::Policy(Policy {
        key: policy_key(name),
        coverage: Coverage::Networks(BTreeSet::from([net_a()])),
        target: Some(target),
        ingress: Some(vec![Rule {
            peers: Peers::OneOf(vec![peer]),
            ports: Ports::OneOf(vec![PortMatch::Range(range)]),
        }]),
        egress: None,
    })
}

fn peer(number: u32) -> Object {
    pod(
        &format!("peer-{number}"),
        1_000 + number,
        "elsewhere",
        &[("access", "true")],
    )
}

fn source() -> Source {
    Source {
        kind: "Pod".into(),
        name: "bench".into(),
    }
}

fn apply(object: Object) -> Update {
    Update::Apply(Decoded {
        source: source(),
        object: Some(object),
        diagnostics: Vec::new(),
    })
}

fn gone(key: ObjectKey) -> Update {
    Update::Gone { key, source: source() }
}

// === A node ===

/// Counts transactions and wakes whoever waits for them once, with the last one: a wake-up for each would disturb what
/// is measured.
#[derive(Default)]
struct Commits {
    state: Mutex<(usize, Option<Instant>)>,
    complete: Condvar,
}

impl Commits {
    fn expect(&self, count: usize) {
        *self.lock() = (count, None);
    }

    fn count(&self, moment: Instant) {
        let mut state = self.lock();
        state.0 = state.0.saturating_sub(1);
        state.1 = state.1.max(Some(moment));
        if state.0 == 0 {
            self.complete.notify_one();
        }
    }

    /// The moment of the last one.
    fn wait(&self) -> Result<Instant> {
        let (state, timeout) = self
            .complete
            .wait_timeout_while(self.lock(), Duration::from_secs(60), |state| state.0 > 0)
            .unwrap_or_else(PoisonError::into_inner);
        ensure!(!timeout.timed_out(), "{} commits did not come", state.0);
        state.1.context("nothing to wait for")
    }

    fn lock(&self) -> MutexGuard<'_, (usize, Option<Instant>)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Node {
    running: Running,
    updates: Sender<Vec<Update>>,
    commits: Arc<Commits>,
    namespaces: Vec<NamedNetns>,
}

fn local(number: u32) -> String {
    format!("local-{number}")
}

impl Node {
    /// So many local pods, each with a namespace of its own, and all peers.
    fn start(features: KernelFeatures, locals: u32) -> Result<Self> {
        let prefix = format!("rf-agent-bench-{}-", std::process::id());
        let names: Vec<String> = (0..=locals)
            .map(|number| format!("{prefix}shop.{}", local(number)))
            .collect();
        let namespaces = NamedNetns::create(&names)?;
        let (updates, receiver) = channel(64);
        let commits = Arc::new(Commits::default());
        let counter = Arc::clone(&commits);
        let setup = Setup {
            node: "n1".into(),
            source: "channel:bench".into(),
            scope: Scope::Secondary,
            features,
            node_addresses: BTreeSet::new(),
            netns_path: format!("/run/netns/{prefix}{{namespace}}.{{name}}")
                .parse()
                .map_err(anyhow::Error::msg)?,
            resync: Duration::from_secs(10),
        };
        let observer = move |applied: &Applied| {
            if applied.result == Ok(Success::Committed) {
                counter.count(applied.committed);
            }
        };
        let running = controller::start_observed(setup, receiver, Box::new(observer))?;
        let node = Self {
            running,
            updates,
            commits,
            namespaces,
        };
        let mut batch: Vec<Update> = (0..PEERS).map(|number| apply(peer(number))).collect();
        // The last local pod is nobody's target until a policy is made for it.
        batch.extend((0..locals).map(|number| {
            let group = if number == 0 { "first" } else { "rest" };
            apply(pod(&local(number), number, "n1", &[("group", group), ("app", "local")]))
        }));
        batch.push(apply(pod(&local(locals), locals, "n1", &[("app", "lonely")])));
        batch.push(apply(policy("first", selector("group", "first"), 80)));
        batch.push(Update::Synced { unread: Vec::new() });
        node.commit(batch, 1)?;
        node.settle();
        Ok(node)
    }

    /// Hands a batch over after which so many transactions are waited for.
    fn send(&self, batch: Vec<Update>, expected: usize) -> Result<()> {
        self.commits.expect(expected);
        self.updates.blocking_send(batch).context("the loop has ended")
    }

    /// Hands a batch over and waits for so many transactions; the moment of the last one.
    fn commit(&self, batch: Vec<Update>, expected: usize) -> Result<Instant> {
        self.send(batch, expected)?;
        self.commits.wait()
    }

    /// Until the first looks at all namespaces are over.
    fn settle(&self) {
        while !self.running.readers.snapshots.load().settled {
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Time from handing an update over to the commit in `pods` pods, for so many updates.
    fn measure(&self, events: u32, pods: usize, pause: Duration, update: impl Fn(u32) -> Update) -> Result<Times> {
        let mut times = Vec::new();
        for number in 0..events {
            let batch = vec![update(number)];
            thread::sleep(pause);
            let begun = Instant::now();
            times.push(self.commit(batch, pods)?.duration_since(begun));
        }
        Ok(Times::of(times))
    }

    fn stop(self) -> Result<()> {
        self.running.shut_down();
        self.running.join()?;
        drop(self.namespaces);
        Ok(())
    }
}

/// A peer comes and goes.
fn come_and_go(number: u32) -> Update {
    let which = PEERS + number / 2;
    if number.is_multiple_of(2) {
        apply(peer(which))
    } else {
        gone(ObjectKey::Pod(uid(&format!("peer-{which}"))))
    }
}

// === Measurements ===

struct Floor {
    element: Times,
    /// Elements per second.
    bulk: f64,
    /// Elements of the ruleset that this was measured with.
    elements: f64,
}

/// The same ruleset and the same transactions without loop, index and threads.
fn floor(features: KernelFeatures) -> Result<Floor> {
    let (full, more) = rulesets(features)?;
    let element = ringfence_netns::scratch(|| -> Result<Times> {
        let mut enforcer = Enforcer::open(features)?;
        enforcer.enforce(Some(&full))?;
        let mut times = Vec::new();
        for number in 0..EVENTS {
            let wanted = if number.is_multiple_of(2) { &more } else { &full };
            let begun = Instant::now();
            enforcer.enforce(Some(wanted))?;
            times.push(begun.elapsed());
        }
        Ok(Times::of(times))
    })??;
    let mut rates = Vec::new();
    for _ in 0..5 {
        rates.push(ringfence_netns::scratch(|| -> Result<f64> {
            let mut enforcer = Enforcer::open(features)?;
            let begun = Instant::now();
            enforcer.enforce(Some(&full))?;
            Ok(elements(&full) / begun.elapsed().as_secs_f64())
        })??);
    }
    rates.sort_by(f64::total_cmp);
    let bulk = rates[rates.len() / 2];
    println!("floor: one element (two sets) by ringfence-netlink alone   {element}");
    println!(
        "floor: first ruleset with {} elements        {bulk:>10.0} elements/s",
        elements(&full)
    );
    Ok(Floor {
        element,
        bulk,
        elements: elements(&full),
    })
}

/// The ruleset of the first local pod with all peers, and with one more: made as the index makes them, so that both
/// share what they have in common.
fn rulesets(features: KernelFeatures) -> Result<(Ruleset, Ruleset)> {
    let first = uid(&local(0));
    let mut index = Index::new(Options {
        locality: Locality::Node("n1".into()),
        scope: Scope::Secondary,
        kernel: features,
        node_addresses: BTreeSet::new(),
    });
    index.apply(pod(&local(0), 0, "n1", &[("group", "first")]));
    index.apply(policy("first", selector("group", "first"), 80));
    index.set_facts(&first, Some(TargetFacts::default()));
    (0..PEERS).for_each(|number| index.apply(peer(number)));
    index.commit();
    let full = index.ruleset(&first).cloned().context("a ruleset")?;
    index.apply(peer(PEERS));
    index.commit();
    let more = index.ruleset(&first).cloned().context("a ruleset")?;
    Ok((full, more))
}

fn elements(ruleset: &Ruleset) -> f64 {
    let count: usize = ruleset.inet.sets.values().map(|set| set.elements.len()).sum();
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

fn one_pod(node: &Node, floor: &Floor) -> Result<()> {
    for (what, pause) in [("one by one", Duration::ZERO), ("on a quiet node", QUIET)] {
        let times = node.measure(EVENTS, 1, pause, come_and_go)?;
        println!(
            "one peer, one local pod, {PEERS} peers, {what:<15}   {times}   {}",
            times.over(&floor.element)
        );
    }
    Ok(())
}

fn all_pods(node: &Node, floor: &Floor) -> Result<()> {
    let rest = usize::try_from(LOCAL)? - 1;
    node.commit(vec![apply(policy("rest", selector("group", "rest"), 80))], rest)?;
    let pods = rest + 1;
    for (what, pause) in [("one by one", Duration::ZERO), ("on a quiet node", QUIET)] {
        let times = node.measure(EVENTS_FOR_ALL, pods, pause, come_and_go)?;
        println!(
            "one peer, all of {pods} local pods, {what:<15}          {times}   {}",
            times.over(&floor.element)
        );
    }
    node.commit(vec![gone(ObjectKey::Policy(policy_key("rest")))], rest)?;
    Ok(())
}

fn new_policy(node: &Node, floor: &Floor) -> Result<()> {
    let count = floor.elements;
    let mut times = Vec::new();
    for round in 0..21 {
        thread::sleep(QUIET);
        let begun = Instant::now();
        let created = vec![apply(policy("lonely", selector("app", "lonely"), 81 + round))];
        times.push(node.commit(created, 1)?.duration_since(begun));
        node.commit(vec![gone(ObjectKey::Policy(policy_key("lonely")))], 1)?;
    }
    let times = Times::of(times);
    let rate = count / times.p50.as_secs_f64();
    println!(
        "new policy over {PEERS} peers, compile and commit            {times}   {rate:.0} elements/s, {:.2} of the floor",
        rate / floor.bulk
    );
    Ok(())
}

/// Resident memory with 10,000 pods, 1,000 policies, 10 local pods.
fn memory() -> Result<()> {
    let empty = resident()?;
    let node = Node::start(ringfence::agent::probe()?, 10)?;
    let mut batch = Vec::new();
    for number in 0..1_000_u32 {
        let group = if number % 100 == 0 {
            "rest".to_owned()
        } else {
            format!("group-{number}")
        };
        let port = u16::try_from(number % 100 + 80)?;
        batch.push(apply(policy(
            &format!("policy-{number}"),
            selector("group", &group),
            port,
        )));
    }
    node.commit(batch, 9)?;
    thread::sleep(Duration::from_millis(300));
    let snapshot = node.running.readers.snapshots.load_full();
    println!(
        "memory with {PEERS} remote pods, {} policies, {} local pods: {} KiB resident, {empty} KiB before",
        snapshot.policies.len(),
        snapshot.pods.len(),
        resident()?
    );
    node.stop()
}

fn resident() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

struct Times {
    p50: Duration,
    p99: Duration,
    count: usize,
}

impl Times {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort();
        let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
        Self {
            p50: at(50),
            p99: at(99),
            count: times.len(),
        }
    }

    /// How much longer than another one.
    fn over(&self, floor: &Self) -> String {
        let micros = |duration: Duration| duration.as_secs_f64() * 1e6;
        format!(
            "floor + {:.1} / {:.1} µs",
            micros(self.p50) - micros(floor.p50),
            micros(self.p99) - micros(floor.p99)
        )
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let micros = |duration: Duration| duration.as_secs_f64() * 1e6;
        write!(
            f,
            "p50 {:>9.1} µs   p99 {:>9.1} µs   n {}",
            micros(self.p50),
            micros(self.p99),
            self.count
        )
    }
}
