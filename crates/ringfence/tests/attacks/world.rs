//! One node with an attacker, whose rules let it send to port 80 of the others on blue and nowhere else, and a victim
//! that writes down what arrives.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path as FilePath;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use ringfence_model::Family;
use ringfence_testkit::manifest::{self, Manifest, Policy};
use ringfence_testkit::{Agent, ManifestFolder, Network, Pod, PodSpec, Sniffer, Topology, Wiring, free_port};

/// How long something may take that is to happen at all. No test measures it.
pub const PATIENCE: Duration = Duration::from_secs(20);
pub const CLUSTER: &str = "cbr0";
/// The network with a policy.
pub const BLUE: &str = "x/blue";
/// The one without.
pub const GREEN: &str = "x/green";
/// The ports that the attacker may and may not send to.
pub const ALLOWED: u16 = 80;
pub const FORBIDDEN: u16 = 81;
/// In everything that must not arrive.
pub const MARK: &[u8] = b"rf-attack";

pub struct World {
    // Dropped in this order: the agent first, so that it does not report vanished namespaces.
    agent: Option<Agent>,
    folder: ManifestFolder,
    objects: Vec<Manifest>,
    /// What arrives at the victim, on blue and on green.
    sniffers: Vec<Sniffer>,
    pub attacker: Pod,
    pub victim: Pod,
    pub friend: Pod,
    pub topology: Topology,
    arguments: Vec<String>,
    canaries: AtomicU32,
}

#[allow(clippy::unused_self, reason = "what a test does, it does to the world")]
impl World {
    /// With tables that have an owner, where the kernel knows owners.
    pub fn new(name: &str) -> Self {
        Self::with(name, &[])
    }

    /// As on a kernel before 6.9, with a resync that nobody waits for.
    pub fn without_owner(name: &str) -> Self {
        Self::with(name, &["--without-table-owner", "--resync", "3600"])
    }

    fn with(name: &str, arguments: &[&str]) -> Self {
        let mut topology = Topology::new(&format!("at-{name}")).expect("a topology (are you root?)");
        let cluster = Network::new(CLUSTER, Wiring::Bridge).ipv4_only().with_gateway();
        topology.network(cluster).expect("the cluster network");
        for network in [BLUE, GREEN] {
            topology
                .network(Network::new(network, Wiring::Bridge))
                .expect("a network");
        }
        let spec = |name: &str, app: &str| {
            PodSpec::multus(name)
                .attach("eth0", CLUSTER)
                .attach("net1", BLUE)
                .attach("net2", GREEN)
                .label("app", app)
        };
        let specs = vec![
            spec("x/attacker", "attacker"),
            spec("x/victim", "other"),
            spec("x/friend", "other"),
        ];
        let pods = topology.pods(specs).expect("pods");
        let [attacker, victim, friend] = <[Pod; 3]>::try_from(pods).expect("three");
        let folder = ManifestFolder::new().expect("a folder");
        let others = manifest::pods(&[("app", "other")]);
        let ports = [manifest::port("UDP", ALLOWED), manifest::port("TCP", ALLOWED)];
        let guard = Policy::multi("x/guard", &[BLUE])
            .select(&[("app", "attacker")])
            .isolate_ingress()
            .egress(&[others], &ports);
        let mut objects = vec![manifest::namespace("x", &[]), guard.manifest()];
        objects.extend([&attacker, &victim, &friend].map(|pod| pod.manifest().expect("a manifest")));
        folder.save("all.yaml", &manifest::documents(&objects)).expect("saved");
        let sniffers = ["net1", "net2"].map(|interface| Sniffer::start(&victim, interface).expect("a sniffer"));
        let mut world = Self {
            agent: None,
            folder,
            objects,
            sniffers: sniffers.into(),
            attacker,
            victim,
            friend,
            topology,
            arguments: arguments.iter().map(|text| (*text).to_owned()).collect(),
            canaries: AtomicU32::new(0),
        };
        world.save(|_| {});
        world.start();
        world
    }

    /// Saves all objects after a change.
    pub fn save(&mut self, change: impl FnOnce(&mut Vec<Manifest>)) {
        change(&mut self.objects);
        self.folder
            .save("all.yaml", &manifest::documents(&self.objects))
            .expect("saved");
    }

    fn start(&mut self) {
        let mut arguments = self.folder.arguments("node1", &self.topology.netns_path_template());
        arguments.extend(self.arguments.iter().cloned());
        let program = FilePath::new(env!("CARGO_BIN_EXE_ringfence"));
        let mut agent = Agent::start(program, &arguments, free_port().expect("a port")).expect("it starts");
        agent.wait_ready(PATIENCE).expect("it gets ready");
        self.agent = Some(agent);
        self.eventually("the attacker is enforced", || {
            let pods = self.get("/pods?output=json");
            if pods.contains("\"enforced\"") {
                Ok(())
            } else {
                Err(pods)
            }
        });
    }

    pub fn get(&self, path: &str) -> String {
        let agent = self.agent.as_ref().expect("the agent runs");
        agent.get(path).expect("an answer").body
    }

    pub fn log(&self) -> String {
        self.agent.as_ref().map(Agent::log).unwrap_or_default()
    }

    #[track_caller]
    pub fn eventually<T>(&self, what: &str, look: impl FnMut() -> Result<T, String>) -> T {
        let log = || self.log();
        ringfence_testkit::eventually(PATIENCE, what, look, log)
    }

    /// Sum of a metric over its labels.
    pub fn metric(&self, name: &str) -> f64 {
        self.get("/metrics")
            .lines()
            .filter(|line| line.starts_with(name))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// The words of the attacker's rules as the kernel has them, sorted, without what changes by itself.
    pub fn rules(&self) -> String {
        let list = |family| {
            self.attacker
                .exec("nft", &["--stateless", "list", "table", family, "ringfence"])
                .unwrap_or_default()
        };
        // A set lists its elements in another order when it was made anew.
        let text = list("inet") + &list("netdev");
        let mut words: Vec<&str> = text
            .split([' ', '\t', '\n', ','])
            .filter(|word| !word.is_empty())
            .collect();
        words.sort_unstable();
        words.join(" ")
    }

    pub fn ip(&self, pod: &Pod, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        pod.exec("ip", &words)
            .unwrap_or_else(|error| panic!("ip {line}: {error:#}"));
    }

    /// Addresses on blue of attacker and victim, in each family.
    pub fn ends(&self) -> [(IpAddr, IpAddr); 2] {
        Family::BOTH.map(|family| {
            let of = |pod: &Pod| pod.address(BLUE, family).expect("an address");
            (of(&self.attacker), of(&self.victim))
        })
    }

    /// An address of the network that nobody has.
    pub fn nobody(&self, like: IpAddr) -> IpAddr {
        match like {
            IpAddr::V4(like) => {
                let [a, b, c, _] = like.octets();
                IpAddr::from([a, b, c, 99])
            }
            IpAddr::V6(like) => {
                let mut groups = like.segments();
                groups[7] = 0x99;
                IpAddr::from(groups)
            }
        }
    }

    pub fn mac(&self, pod: &Pod) -> [u8; 6] {
        pod.on(BLUE).expect("net1").mac
    }

    /// A socket of the attacker on an interface.
    pub fn socket(&self, pod: &Pod, interface: &str, like: IpAddr) -> UdpSocket {
        let any = if like.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        pod.netns
            .run(|| {
                let socket = UdpSocket::bind(any).expect("a socket");
                setsockopt(&socket, sockopt::BindToDevice, &OsString::from(interface)).expect("bound");
                socket
            })
            .expect("entered")
    }

    /// Marked datagrams of an ordinary socket to the forbidden port. Refusals on the way are fine.
    pub fn send_forbidden(&self, interface: &str) {
        for (_, victim) in self.ends() {
            let socket = self.socket(&self.attacker, interface, victim);
            for _ in 0..3 {
                let _ = socket.send_to(MARK, SocketAddr::new(victim, FORBIDDEN));
            }
        }
    }

    fn arrived(&self, text: &[u8]) -> bool {
        let holds = |frame: &Vec<u8>| frame.windows(text.len()).any(|part| part == text);
        self.sniffers.iter().any(|sniffer| sniffer.frames().iter().any(holds))
    }

    /// Something allowed goes the same way after the attack, and arrives: by then everything before it has.
    #[track_caller]
    fn canary(&self, from: &Pod) {
        let number = self.canaries.fetch_add(1, Ordering::Relaxed);
        let text = format!("canary-{number}-of-the-attack");
        for (_, victim) in self.ends() {
            let socket = self.socket(from, "net1", victim);
            self.eventually("a canary arrives", || {
                let _ = socket.send_to(text.as_bytes(), SocketAddr::new(victim, ALLOWED));
                std::thread::sleep(Duration::from_millis(5));
                if self.arrived(text.as_bytes()) {
                    Ok(())
                } else {
                    Err(self.rules())
                }
            });
        }
    }

    /// Nothing of what this sends arrives at the victim, and the attacker can still send what is allowed.
    #[track_caller]
    pub fn closed(&self, what: &str, attack: impl FnOnce()) {
        attack();
        self.canary(&self.attacker);
        assert!(!self.arrived(MARK), "{what}\n{}", self.rules());
    }

    /// The same where the attack cuts off the attacker altogether: another pod shows that time has passed.
    #[track_caller]
    pub fn closed_altogether(&self, what: &str, attack: impl FnOnce()) {
        attack();
        for _ in 0..3 {
            self.canary(&self.friend);
        }
        assert!(!self.arrived(MARK), "{what}\n{}", self.rules());
    }

    /// The attack changes the rules; they are mended and counted, and nothing arrives after that.
    #[track_caller]
    pub fn repaired(&self, what: &str, attack: impl FnOnce()) {
        const COUNTER: &str = "ringfence_drift_repairs_total";
        let (expected, before) = (self.rules(), self.metric(COUNTER));
        attack();
        self.eventually(what, || {
            let (rules, count) = (self.rules(), self.metric(COUNTER));
            if rules == expected && count > before {
                Ok(())
            } else {
                Err(format!("{count}\n{rules}"))
            }
        });
        self.closed(what, || self.send_forbidden("net1"));
    }

    /// The attack gets through: the table says so, and why. A kernel or an agent that closes it needs another row.
    #[track_caller]
    pub fn open(&self, what: &str, mut attack: impl FnMut()) {
        self.eventually(what, || {
            attack();
            std::thread::sleep(Duration::from_millis(5));
            if self.arrived(MARK) {
                Ok(())
            } else {
                Err("nothing has arrived: it is closed".to_owned())
            }
        });
    }
}
