//! Crafted packets, each with a mark, and who of them gets past a pod's rules.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ringfence_testkit::packet::{Ip, ethernet, mark};
use ringfence_testkit::{Pod, RawSender, Sniffer, StackSender};
use serde_json::Value;

use super::world::World;

/// One way of sending the packets of one mark, and whether they may pass.
struct Case {
    name: String,
    packets: Vec<Vec<u8>>,
    target: IpAddr,
    passes: bool,
}

/// Packets from one pod to another over one interface of each.
#[derive(Default)]
pub struct Cases {
    cases: Vec<Case>,
}

/// The mark of the packet that shows that all others are through.
const LAST: u16 = 0xffff;

impl Cases {
    /// Adds packets of one mark; `packets` makes them from a header with that mark.
    pub fn case(
        &mut self,
        name: impl Into<String>,
        (source, target): (IpAddr, IpAddr),
        passes: bool,
        packets: impl FnOnce(Ip) -> Vec<Vec<u8>>,
    ) {
        // Marks begin at 1: 0 would be replaced by the kernel.
        let mark = u16::try_from(self.cases.len() + 1).expect("few cases");
        self.cases.push(Case {
            name: name.into(),
            packets: packets(Ip::new(source, target, mark)),
            target,
            passes,
        });
    }

    /// The same for a single packet.
    pub fn one(
        &mut self,
        name: impl Into<String>,
        addresses: (IpAddr, IpAddr),
        passes: bool,
        packet: impl FnOnce(Ip) -> Vec<u8>,
    ) {
        self.case(name, addresses, passes, |ip| vec![packet(ip)]);
    }

    /// Puts all of them on the wire, from `wire` to `target`, and compares who passes the rules of `target`.
    #[track_caller]
    pub fn arrive(&self, world: &World, what: &str, wire: (&str, &str), target: (&str, &str)) {
        let (from, to) = (world.pod(wire.0), world.pod(target.0));
        let watch = Watch::start(to);
        let sender = RawSender::open(from, wire.1).expect("a raw sender");
        let (source, target) = (mac(from, wire.1), mac(to, target.1));
        for packet in self.cases.iter().flat_map(|case| &case.packets) {
            sender.send(&ethernet(source, target, packet)).expect("sent");
        }
        sender.send(&ethernet(source, target, &last())).expect("sent");
        world.eventually(what, || self.compare(&watch.passed(), false));
        self.finish(world, what, &watch.passed());
    }

    /// Hands all of them to the IP stack of `from`, and compares who gets to the wire at `to`. One that passes its rules,
    /// a neighbour solicitation, comes last.
    #[track_caller]
    pub fn leave(&self, world: &World, what: &str, from: (&str, &str), to: (&str, &str)) {
        let sniffer = Sniffer::start(world.pod(to.0), to.1).expect("a sniffer");
        let sender = StackSender::open(world.pod(from.0), from.1).expect("a raw socket");
        for case in &self.cases {
            for packet in &case.packets {
                // Whether the kernel tells the sender that it has dropped one is of no interest: the wire decides.
                sender.send(packet, case.target).expect(&case.name);
            }
        }
        let neighbour = neighbour();
        sender.send(&last(), neighbour).expect("sent");
        let passed = || sniffer.frames().iter().filter_map(|frame| mark(frame)).collect();
        world.eventually(what, || self.compare(&passed(), false));
        self.finish(world, what, &passed());
    }

    /// Puts all of them on the wire from a packet socket of `from`, past the IP stack, and compares who gets to `to`.
    #[track_caller]
    pub fn leave_raw(&self, world: &World, what: &str, from: (&str, &str), to: (&str, &str)) {
        let sniffer = Sniffer::start(world.pod(to.0), to.1).expect("a sniffer");
        let sender = RawSender::open(world.pod(from.0), from.1).expect("a raw sender");
        for packet in self.cases.iter().flat_map(|case| &case.packets) {
            let frame = ethernet(mac(world.pod(from.0), from.1), [0xff; 6], packet);
            sender.send(&frame).expect("sent");
        }
        let stack = StackSender::open(world.pod(from.0), from.1).expect("a raw socket");
        stack.send(&last(), neighbour()).expect("sent");
        let passed = || sniffer.frames().iter().filter_map(|frame| mark(frame)).collect();
        world.eventually(what, || self.compare(&passed(), false));
        self.finish(world, what, &passed());
    }

    /// Everything that shall pass has, and the last one too. `all` looks at those that shall not, as well.
    fn compare(&self, passed: &BTreeSet<u16>, all: bool) -> Result<(), String> {
        let marks = (1_u16..).zip(&self.cases);
        let mut wrong: Vec<String> = marks
            .filter(|(mark, case)| passed.contains(mark) != case.passes && (all || case.passes))
            .map(|(_, case)| {
                format!(
                    "{}: expected {}",
                    case.name,
                    if case.passes { "to pass" } else { "a drop" }
                )
            })
            .collect();
        if !passed.contains(&LAST) {
            wrong.push("the last packet".to_owned());
        }
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(wrong.join("\n"))
        }
    }

    #[track_caller]
    fn finish(&self, world: &World, what: &str, passed: &BTreeSet<u16>) {
        if let Err(wrong) = self.compare(passed, true) {
            panic!("{what}:\n{wrong}\n{}", world.rules());
        }
    }
}

/// Any host's group; a neighbour solicitation passes under every policy (statement 121).
fn neighbour() -> IpAddr {
    "ff02::1:ff00:99".parse().expect("an address")
}

fn last() -> Vec<u8> {
    // From the unspecified address, as during duplicate address detection: an address that every sender may use.
    let source = "::".parse().expect("an address");
    Ip::new(source, neighbour(), LAST).neighbour_solicitation()
}

/// The MAC address of an interface.
pub fn mac(pod: &Pod, interface: &str) -> [u8; 6] {
    let mut all = pod.interfaces.iter();
    all.find(|it| it.name == interface).expect("an interface").mac
}

/// Notes inside a pod which marked packets have got past Ringfence's rules on their way in, and counts others.
pub struct Watch<'a> {
    pod: &'a Pod,
}

impl<'a> Watch<'a> {
    /// Begins anew.
    pub fn start(pod: &'a Pod) -> Self {
        Self::counting(pod, &[])
    }

    /// Counts what fulfils these conditions, too: a name and nft's words.
    pub fn counting(pod: &'a Pod, conditions: &[(&str, &str)]) -> Self {
        let counters: Vec<String> = conditions
            .iter()
            .map(|(name, _)| format!("counter {name} {{}}\n"))
            .collect();
        let rules: Vec<String> = conditions
            .iter()
            .map(|(name, condition)| format!("{condition} counter name {name}\n"))
            .collect();
        let (counters, rules) = (counters.concat(), rules.concat());
        // A table of its own: what others do in nftables is no business of the agent's. Behind the chain `arrive`,
        // before the kernel looks whether the packet is for this host.
        let script = format!(
            "table inet watch {{}}\ndelete table inet watch\ntable inet watch {{\n\
             set seen {{ typeof ip id; flags dynamic; size 4096; }}\n\
             set seen6 {{ typeof ip6 flowlabel; flags dynamic; size 4096; }}\n{counters}\
             chain watch {{ type filter hook prerouting priority 0;\n{rules}\
             ip dscp 0x2b add @seen {{ ip id }}\nip6 dscp 0x2b add @seen6 {{ ip6 flowlabel }}\n}}\n}}\n"
        );
        pod.nft(&script).expect("nft");
        Self { pod }
    }

    /// The marks of all that have passed.
    pub fn passed(&self) -> BTreeSet<u16> {
        let mut all = BTreeSet::new();
        for set in ["seen", "seen6"] {
            let listing = self.json(&["list", "set", "inet", "watch", set]);
            let elements = listing.iter().find_map(|item| item["set"]["elem"].as_array()).cloned();
            let numbers = elements.unwrap_or_default();
            // A flow label has 20 bits, a mark 16; others are not ours.
            all.extend(numbers.iter().filter_map(|it| u16::try_from(it.as_u64()?).ok()));
        }
        all
    }

    /// How many packets have fulfilled a condition.
    pub fn count(&self, name: &str) -> u64 {
        let listing = self.json(&["list", "counter", "inet", "watch", name]);
        let count = listing.iter().find_map(|item| item["counter"]["packets"].as_u64());
        count.expect("a counter")
    }

    fn json(&self, arguments: &[&str]) -> Vec<Value> {
        let all: Vec<&str> = ["-j"].iter().chain(arguments).copied().collect();
        let text = self.pod.exec("nft", &all).expect("nft");
        let mut value: Value = serde_json::from_str(&text).expect("JSON");
        serde_json::from_value(value["nftables"].take()).expect("a list")
    }
}
