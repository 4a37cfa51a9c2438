//! What the API server holds, and what people do to it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use proptest::prelude::Strategy;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use ringfence_model::{
    Attachment, InterfaceName, Labels, NamedPort, Namespace, NamespacedName, Network, NetworkName, Object, ObjectKey,
    Pod, PodUid, Policy,
};

use crate::dice::Dice;
use crate::generate::{self, Palette};

/// The node of the simulated agent.
pub const NODE: &str = "n1";

/// Few of everything, so that what one step does is often what another one is about.
const PALETTE: Palette = Palette {
    namespaces: &["x", "x", "y"],
    networks: &["default", "default/net-a", "default/net-a", "default/net-b"],
    cidrs: &[
        "10.20.1.0/29",
        "10.20.1.2/32",
        "0.0.0.0/0",
        "192.0.2.0/24",
        "fd00:20::/64",
        "fd00:20::2/128",
    ],
    excepts: &["10.20.1.0/31", "10.20.1.2/32", "fd00:20::2/127"],
    ports: &[53, 80, 81, 443, 1000, 2000],
};

/// Addresses of pods: fewer than pods may want, so that they are contested, and taken over by others.
pub const ADDRESSES: [&str; 9] = [
    "10.20.1.1",
    "10.20.1.2",
    "10.20.1.3",
    "10.20.1.4",
    "10.20.1.5",
    "10.20.1.6",
    "fd00:20::1",
    "fd00:20::2",
    "fd00:20::3",
];

/// One pod at a time has each of these names: namespace, whether it is on this node.
const SLOTS: [(&str, bool); 7] = [
    ("x", true),
    ("x", true),
    ("y", true),
    ("x", true),
    ("x", false),
    ("y", false),
    ("y", false),
];

/// One change of the truth: the object as it is now.
pub type Edit = (ObjectKey, Option<Object>);

pub struct Cluster {
    pub objects: BTreeMap<ObjectKey, Object>,
    runner: TestRunner,
    born: u32,
    /// Whether namespaces are deleted more often than not.
    ending: bool,
}

impl Cluster {
    /// A cluster in which something is going on already.
    pub fn new(dice: &mut Dice, ending: bool) -> Self {
        let mut seed = [0; 32];
        for part in seed.chunks_mut(8) {
            part.copy_from_slice(&dice.roll().to_le_bytes());
        }
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
        let mut cluster = Self {
            objects: BTreeMap::new(),
            runner: TestRunner::new_with_rng(Config::default(), rng),
            born: 0,
            ending,
        };
        for _ in 0..4 + dice.below(12) {
            cluster.edit(dice);
        }
        cluster
    }

    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.objects.values().filter_map(|object| match object {
            Object::Pod(pod) => Some(pod),
            _ => None,
        })
    }

    /// The pods that are to be protected here.
    pub fn local(&self) -> impl Iterator<Item = &Pod> {
        self.pods()
            .filter(|pod| pod.node.as_deref() == Some(NODE) && pod.takes_part())
    }

    /// Somebody changes something.
    pub fn edit(&mut self, dice: &mut Dice) -> Vec<Edit> {
        match dice.weighted(&[30, 12, 8, 3, 3, 46]) {
            0 => {
                let policy: Policy = self.draw(&generate::policy(PALETTE));
                self.put(Object::Policy(policy))
            }
            1 => self.remove_one(dice, |key| matches!(key, ObjectKey::Policy(_))),
            2 => {
                let mut namespace: Namespace = self.draw(&generate::namespace(PALETTE));
                namespace.terminating |= self.ending && dice.chance(700);
                self.put(Object::Namespace(namespace))
            }
            3 => self.remove_one(dice, |key| matches!(key, ObjectKey::Namespace(_))),
            4 => {
                let dhcp = dice.chance(500);
                self.put(Object::Network(Network {
                    name: NamespacedName::new("default", *dice.pick(&["net-a", "net-b"])),
                    plugins: vec!["macvlan".into()],
                    ipam: dhcp.then(|| "dhcp".into()).into_iter().collect(),
                }))
            }
            _ => self.edit_pod(dice),
        }
    }

    fn edit_pod(&mut self, dice: &mut Dice) -> Vec<Edit> {
        let slot = dice.below(SLOTS.len());
        let name = format!("pod-{slot}");
        let Some(before) = self.pods().find(|pod| *pod.name.name == *name).cloned() else {
            let pod = self.pod(slot, dice);
            return self.put(Object::Pod(pod));
        };
        let mut pod = before.clone();
        match dice.weighted(&[20, 20, 15, 6, 15, 15, 4]) {
            0 => pod.labels = self.labels(),
            1 => {
                let at = dice.below(pod.attachments.len());
                pod.attachments[at].addresses = addresses(dice);
            }
            2 => pod.attachments = attachments(dice),
            3 => pod.terminal = true,
            4 => return self.put_edit(ObjectKey::Pod(before.uid), None),
            // A pod of a StatefulSet: the same name, another pod, perhaps with the addresses of the former.
            5 => {
                let mut next = self.pod(slot, dice);
                if dice.chance(600) {
                    next.attachments.clone_from(&before.attachments);
                }
                let mut edits = self.put_edit(ObjectKey::Pod(before.uid), None);
                edits.extend(self.put(Object::Pod(next)));
                return edits;
            }
            _ => pod.ports = self.ports(),
        }
        self.put(Object::Pod(pod))
    }

    fn pod(&mut self, slot: usize, dice: &mut Dice) -> Pod {
        self.born += 1;
        let (namespace, local) = SLOTS[slot];
        Pod {
            mirror_of: None,
            uid: PodUid::new(&format!("u{slot}-{}", self.born)).expect("valid"),
            name: NamespacedName::new(namespace, format!("pod-{slot}")),
            node: Some(if local { NODE } else { "n2" }.into()),
            labels: self.labels(),
            attachments: attachments(dice),
            ports: self.ports(),
            host_network: !local && dice.chance(100),
            terminal: false,
            // The clock has seconds, so several are of one age.
            started: i64::from(self.born / 2),
            host_addresses: BTreeSet::new(),
        }
    }

    fn labels(&mut self) -> Labels {
        self.draw(&generate::pod_labels())
    }

    fn ports(&mut self) -> BTreeSet<NamedPort> {
        self.draw(&generate::named_ports(PALETTE))
    }

    fn draw<S: Strategy>(&mut self, strategy: &S) -> S::Value {
        strategy.new_tree(&mut self.runner).expect("a value").current()
    }

    fn put(&mut self, object: Object) -> Vec<Edit> {
        self.put_edit(object.key(), Some(object))
    }

    /// Makes it so.
    pub fn put_edit(&mut self, key: ObjectKey, object: Option<Object>) -> Vec<Edit> {
        match &object {
            Some(object) => self.objects.insert(key.clone(), object.clone()),
            None => self.objects.remove(&key),
        };
        vec![(key, object)]
    }

    fn remove_one(&mut self, dice: &mut Dice, of: impl Fn(&ObjectKey) -> bool) -> Vec<Edit> {
        let keys: Vec<ObjectKey> = self.objects.keys().filter(|key| of(key)).cloned().collect();
        if keys.is_empty() {
            return Vec::new();
        }
        let key = dice.pick(&keys).clone();
        self.put_edit(key, None)
    }
}

pub fn interface(name: &str) -> InterfaceName {
    InterfaceName::new(name).expect("valid")
}

pub fn addresses(dice: &mut Dice) -> BTreeSet<IpAddr> {
    (0..dice.below(3))
        .map(|_| dice.pick(&ADDRESSES).parse().expect("an address"))
        .collect()
}

fn attachments(dice: &mut Dice) -> Vec<Attachment> {
    let kinds: [(&str, &[&str], usize); 4] = [
        ("eth0", &["default", "canal"], 1000),
        ("net1", &["default/net-a"], 800),
        ("net2", &["default/net-b"], 400),
        ("", &["default/net-b"], 30),
    ];
    let mut out = Vec::new();
    for (name, networks, per_mille) in kinds {
        if dice.chance(per_mille) {
            let networks: BTreeSet<NetworkName> = networks.iter().map(|name| generate::network(name)).collect();
            out.push(Attachment {
                interface: (!name.is_empty()).then(|| interface(name)),
                primary: networks.contains(&NetworkName::Default),
                networks,
                addresses: addresses(dice),
            });
        }
    }
    out
}
