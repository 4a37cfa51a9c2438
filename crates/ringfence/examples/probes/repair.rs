//! How soon a table that somebody deletes is back, beside what the kernel needs for it, how long a new agent takes to
//! adopt a hundred pods, and whether anything forbidden arrives that was sent after the commit that forbids it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use ringfence::controller::{self, Running, Setup};
use ringfence::event::{Applied, Success};
use ringfence_kube::Decoded;
use ringfence_kube::directory::Update;
use ringfence_model::{
    Attachment, Coverage, Family, InterfaceName, NamespacedName, NetworkName, Object, Peer, Peers, Pod, PodUid, Policy,
    PolicyKey, PolicyKind, PortMatch, PortRange, Ports, Protocol, Requirement, Rule, Scope, Selector, Source,
};
use ringfence_netlink::Enforcer;
use ringfence_ruleset::{KernelFeatures, Ruleset};
use ringfence_testkit::{NamedNetns, Network, Path, PodSpec, Stream, Topology, Wiring};
use tokio::sync::mpsc;

const ROUNDS: usize = 300;
const PODS: u32 = 100;

pub fn measure() -> Result<()> {
    let features = ringfence::agent::probe()?;
    let without_owner = KernelFeatures {
        owner_persist: false,
        ..features
    };
    println!("\ntables deleted from outside (they have no owner), until the kernel has acknowledged them again");
    for peers in [100, 10_000] {
        repair(without_owner, peers)?;
    }
    println!("\na new agent on {PODS} pods whose rules are in the kernel, until all have been dealt with");
    adoption(features)?;
    println!("\na policy that is taken away from a running stream of datagrams");
    revocation(features)
}

// === Objects ===

fn blue() -> NetworkName {
    NetworkName::Namespaced(NamespacedName::new("x", "blue"))
}

fn pod(name: &str, node: &str, address: IpAddr) -> Object {
    let attachment = Attachment {
        interface: InterfaceName::new("net1").ok(),
        networks: BTreeSet::from([blue()]),
        primary: false,
        addresses: BTreeSet::from([address]),
    };
    Object::Pod(Pod {
        mirror_of: None,
        uid: PodUid::new(&format!("uid-{name}")).expect("valid"),
        name: NamespacedName::new("x", name),
        node: Some(node.into()),
        labels: [("node", node)].into_iter().collect(),
        attachments: vec![attachment],
        ports: BTreeSet::new(),
        host_network: false,
        terminal: false,
        started: 0,
        host_addresses: BTreeSet::new(),
    })
}

fn selector(value: &str) -> Selector {
    Selector::new(vec![Requirement::In {
        key: "node".into(),
        values: vec![value.into()],
    }])
}

/// Who may reach the pods of node `near`, on UDP port 80.
fn guard(peers: &str) -> Object {
    let range = PortRange {
        protocol: Protocol::Udp,
        first: 80,
        last: 80,
    };
    Object::Policy(Policy {
        key: PolicyKey {
            kind: PolicyKind::MultiNetworkPolicy,
            name: NamespacedName::new("x", "guard"),
        },
        coverage: Coverage::Networks(BTreeSet::from([blue()])),
        target: Some(selector("near")),
        ingress: Some(vec![Rule {
            peers: Peers::OneOf(vec![Peer::Pods {
                namespaces: None,
                pods: selector(peers),
            }]),
            ports: Ports::OneOf(vec![PortMatch::Range(range)]),
        }]),
        egress: None,
    })
}

fn apply(object: Object) -> Update {
    Update::Apply(Decoded {
        source: Source {
            kind: "Pod".into(),
            name: "bench".into(),
        },
        object: Some(object),
        diagnostics: Vec::new(),
    })
}

fn address(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a15_0000 + number).into()
}

/// So many pods here and elsewhere, and the policy.
fn objects(locals: u32, peers: u32) -> Vec<Update> {
    let mut batch: Vec<Update> = (0..locals)
        .map(|number| apply(pod(&format!("local-{number}"), "near", address(number))))
        .collect();
    batch.extend((0..peers).map(|number| apply(pod(&format!("far-{number}"), "far", address(70_000 + number)))));
    batch.push(apply(guard("far")));
    batch.push(Update::Synced { unread: Vec::new() });
    batch
}

// === An agent ===

struct Node {
    running: Running,
    updates: mpsc::Sender<Vec<Update>>,
    applied: Receiver<(Instant, bool, bool)>,
}

impl Node {
    fn start(features: KernelFeatures, template: &str) -> Result<Self> {
        let (updates, receiver) = mpsc::channel(64);
        let (send, applied): (Sender<(Instant, bool, bool)>, _) = channel();
        let setup = Setup {
            node: "near".into(),
            source: "channel:bench".into(),
            scope: Scope::Secondary,
            features,
            node_addresses: BTreeSet::new(),
            netns_path: template.parse().map_err(anyhow::Error::msg)?,
            resync: Duration::from_secs(3600),
        };
        let observer = move |applied: &Applied| {
            let committed = applied.result == Ok(Success::Committed);
            // Nobody listens any more at the end.
            let _ = send.send((applied.committed, committed, applied.drift.is_some()));
        };
        let running = controller::start_observed(setup, receiver, Box::new(observer))?;
        Ok(Self {
            running,
            updates,
            applied,
        })
    }

    fn send(&self, batch: Vec<Update>) -> Result<()> {
        self.updates.blocking_send(batch).context("the loop has ended")
    }

    /// The moment of the next transaction.
    fn commit(&self) -> Result<Instant> {
        loop {
            let (moment, committed, _) = self.applied.recv_timeout(Duration::from_secs(60))?;
            if committed {
                return Ok(moment);
            }
        }
    }

    fn settle(&self) -> Instant {
        while !self.running.readers.snapshots.load().settled {
            thread::sleep(Duration::from_micros(200));
        }
        Instant::now()
    }

    fn stop(self) -> Result<()> {
        self.running.shut_down();
        self.running.join()
    }
}

fn namespaces(name: &str, count: u32) -> Result<(Vec<NamedNetns>, String)> {
    let prefix = format!("rf-bench-{name}-p{}n0-", std::process::id());
    let names: Vec<String> = (0..count).map(|number| format!("{prefix}x.local-{number}")).collect();
    let all = NamedNetns::create(&names)?;
    Ok((all, format!("/run/netns/{prefix}{{namespace}}.{{name}}")))
}

// === Measurements ===

fn repair(features: KernelFeatures, peers: u32) -> Result<()> {
    let (all, template) = namespaces(&format!("repair-{peers}"), 1)?;
    let node = Node::start(features, &template)?;
    node.send(objects(1, peers))?;
    node.commit()?;
    node.settle();
    let netns = all.first().context("one")?.netns();
    let mut stranger = netns.run(|| Enforcer::open(features))??;
    let wanted: Ruleset = stranger.current().cloned().context("rules")?;
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        // So that each is the first change for a while; see the pace in `drift.rs`, of which this is more than the longest.
        thread::sleep(Duration::from_millis(120));
        stranger.verify()?;
        stranger.enforce(None)?;
        let deleted = Instant::now();
        times.push(node.commit()?.saturating_duration_since(deleted));
    }
    node.stop()?;
    // The floor: the same tables written and read back by the netlink crate alone.
    let mut floor = Vec::new();
    for _ in 0..ROUNDS {
        stranger.enforce(None)?;
        let begun = Instant::now();
        stranger.enforce(Some(&wanted))?;
        floor.push(begun.elapsed());
    }
    println!("{peers:>6} peers   {}   floor {}", Times::of(times), Times::of(floor));
    Ok(())
}

fn adoption(features: KernelFeatures) -> Result<()> {
    let (_all, template) = namespaces("adopt", PODS)?;
    let mut times = Vec::new();
    let mut writes = 0;
    for round in 0..6 {
        let node = Node::start(features, &template)?;
        let begun = Instant::now();
        node.send(objects(PODS, 100))?;
        let settled = node.settle();
        let committed = node.applied.try_iter().filter(|(_, committed, _)| *committed).count();
        // The first one finds nothing to adopt.
        if round > 0 {
            times.push(settled - begun);
            writes += committed;
        }
        node.stop()?;
        // Its appliers end by themselves, and with them the ownership.
        thread::sleep(Duration::from_millis(200));
    }
    println!("{PODS:>6} pods    {}   rulesets written: {writes}", Times::of(times));
    Ok(())
}

fn revocation(features: KernelFeatures) -> Result<()> {
    let mut topology = Topology::new("revoke")?;
    topology.network(Network::new("x/blue", Wiring::Bridge))?;
    let spec = |name: &str| PodSpec::multus(name).attach("net1", "x/blue");
    let server = topology.pod(spec("x/server"))?;
    let client = topology.pod(spec("x/client"))?;
    let node = Node::start(features, &topology.netns_path_template())?;
    let of = |pod: &ringfence_testkit::Pod| pod.address("x/blue", Family::V4);
    node.send(vec![
        apply(pod("server", "near", of(&server)?)),
        apply(pod("client", "far", of(&client)?)),
        apply(guard("far")),
        Update::Synced { unread: Vec::new() },
    ])?;
    node.commit()?;
    let path = Path::new(&client, &server, "x/blue", Family::V4, 80)?;
    let stream = Stream::start(&path, Duration::from_micros(50))?;
    let (mut late, mut before) = (0, Vec::new());
    let limit = Duration::from_secs(20);
    for _ in 0..100 {
        stream.wait_open(Instant::now(), limit)?;
        let begun = Instant::now();
        node.send(vec![apply(guard("nobody"))])?;
        let committed = node.commit()?;
        stream.wait_blocked(begun, Duration::from_millis(20), limit)?;
        let last = stream.last_arrived().context("none has arrived")?;
        if last > committed {
            late += 1;
        }
        before.push(committed.saturating_duration_since(last));
        node.send(vec![apply(guard("far"))])?;
        node.commit()?;
    }
    println!(
        "{:>6} times   last datagram that arrived was sent before the acknowledgement by {}; after it: {late}",
        before.len(),
        Times::of(before.clone())
    );
    ensure!(late == 0, "datagrams that were sent after the commit have arrived");
    drop(stream);
    node.stop()
}

struct Times(Vec<Duration>);

impl Times {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort();
        Self(times)
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = |percent: usize| {
            let position = (self.0.len() * percent / 100).min(self.0.len().saturating_sub(1));
            self.0.get(position).map_or(0.0, |time| time.as_secs_f64() * 1e3)
        };
        write!(
            f,
            "p50 {:>8.3} ms   p99 {:>8.3} ms   n {}",
            at(50),
            at(99),
            self.0.len()
        )
    }
}
