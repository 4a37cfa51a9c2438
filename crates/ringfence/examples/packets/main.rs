//! What judging costs each packet, and what a peer more or less costs, as ratios to baselines of the same run. Needs
//! root; makes namespaces `rf-packets-…` and removes them.
//!
//! ```text
//! cargo run --release -p ringfence --example packets             # everything, about a minute
//! cargo run --release -p ringfence --example packets -- packets  # per packet only
//! cargo run --release -p ringfence --example packets -- changes  # peers that come and go only
//! ```
//!
//! `RINGFENCE_ROUNDS` changes the number of rounds. Nothing is asserted.

mod changes;
mod cluster;
mod measure;
mod variants;
mod world;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::env;
use std::fs;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use measure::{Figures, Part, Slice, Spread, alternate, mean};
use ringfence_model::Family;
use ringfence_ruleset::KernelFeatures;
use variants::{Aim, Case, ESTABLISHED, FLAT, NO_RULES, ONE_PEER, Traffic};
use world::{Flows, Opener, World};

/// Rounds, if the environment says nothing: more of them hardly move the medians.
const ROUNDS: usize = 300;

/// Pods of each kind. Where their rules and connections happen to lie in memory makes a difference of a hundredth;
/// every figure is the mean of so many pods.
const INSTANCES: usize = 4;

fn main() -> Result<()> {
    let part = env::args().nth(1);
    let rounds = match env::var("RINGFENCE_ROUNDS") {
        Ok(text) => text.parse().context("RINGFENCE_ROUNDS")?,
        Err(_) => ROUNDS,
    };
    let features = ringfence::agent::probe()?;
    ringfence_testkit::sweep()?;
    machine()?;
    match part.as_deref() {
        None => {
            packets(features, rounds)?;
            changes::measure(features)
        }
        Some("packets") => packets(features, rounds),
        Some("changes") => changes::measure(features),
        Some(other) => bail!("`packets`, `changes` or nothing, not `{other}`"),
    }
}

/// Where the figures come from.
fn machine() -> Result<()> {
    let read = |path: &str| fs::read_to_string(path).with_context(|| format!("read {path}"));
    let cpus = std::thread::available_parallelism()?;
    println!(
        "kernel {}, {cpus} CPUs, load {}; everything on CPU {}",
        read("/proc/sys/kernel/osrelease")?.trim(),
        read("/proc/loadavg")?.trim(),
        measure::pin()?
    );
    Ok(())
}

fn packets(features: KernelFeatures, rounds: usize) -> Result<()> {
    let begun = Instant::now();
    let rules = variants::pods(features)?;
    let mut pods = Vec::new();
    for number in 0..INSTANCES * rules.len() {
        let (interfaces, rules) = &rules[number % rules.len()];
        pods.push(World::create(number, *interfaces, rules, features)?);
    }
    let cases = variants::cases();
    let connections = pods
        .chunks(rules.len())
        .map(|pods| connections(pods, &cases))
        .collect::<Result<Vec<_>>>()?;
    println!(
        "{} pods, {INSTANCES} of each kind, with their rules in {:.1?}; {} cases, {rounds} rounds",
        pods.len(),
        begun.elapsed(),
        cases.len(),
    );
    let begun = Instant::now();
    let mut slices: Vec<Slice<'_>> = Vec::new();
    for case in &cases {
        for flows in &connections {
            let flows = flows.get(&key(case)).context("connections of every case")?;
            slices.push(Box::new(move || flows.slice(case.traffic.sender)));
        }
    }
    let figures = alternate(&mut slices, rounds)?;
    println!("measured in {:.1?}", begun.elapsed());
    let disturbed = figures.iter().flatten().filter(|figure| figure.is_none()).count();
    println!("disturbed slices left out: {disturbed} of {}", slices.len() * rounds);
    Table {
        cases: &cases,
        figures: figures.chunks(INSTANCES).map(mean).collect(),
    }
    .print()
}

/// Which connections a case uses: its pod, whether they are IPv6, whether the pod opened them.
fn key(case: &Case) -> (usize, bool, bool) {
    (
        case.pod,
        case.traffic.family == Family::V6,
        case.traffic.opener == Opener::Pod,
    )
}

fn connections(pods: &[World], cases: &[Case]) -> Result<BTreeMap<(usize, bool, bool), Flows>> {
    let mut connections = BTreeMap::new();
    for case in cases {
        if let Entry::Vacant(entry) = connections.entry(key(case)) {
            let pod = pods.get(case.pod).context("a pod for every case")?;
            let flows = pod.flows(case.traffic.family, case.traffic.opener);
            entry.insert(flows.with_context(|| format!("{}, {}", case.name, case.traffic.name()))?);
        }
    }
    Ok(connections)
}

const DELIVERED: Part = |cost| cost.delivered;
const SENT: Part = |cost| cost.sent;

struct Table<'a> {
    cases: &'a [Case],
    figures: Vec<Figures>,
}

impl Table<'_> {
    fn print(&self) -> Result<()> {
        println!();
        println!(
            "Packets a second as ratios: median (quartiles) over the rounds. 64-byte UDP, CPU time of one packet in ns,"
        );
        println!(
            "delivered (sent, judged, received), and on the right of the sending call alone, in which it is judged."
        );
        for traffic in Traffic::ALL {
            println!();
            println!(
                "{:<54} {:>5}   {:<19}   {:<19} | {:>5}   {:<19}",
                traffic.name(),
                "ns",
                "of no rules",
                "of accept-established",
                "ns",
                "of accept-established"
            );
            for (case, figures) in self.cases.iter().zip(&self.figures) {
                if case.traffic == traffic {
                    self.line(case, figures)?;
                }
            }
        }
        println!();
        self.flat()
    }

    fn line(&self, case: &Case, figures: &Figures) -> Result<()> {
        let of = |pod, part| Spread::of_rate(figures, self.of_pod(pod, case.traffic)?, part);
        let established = of(ESTABLISHED, DELIVERED)?;
        let verdict = match case.aim {
            Aim::OfEstablished(aim) => judged(established.median >= aim, &format!("aim {aim:.2}")),
            Aim::None => String::new(),
        };
        println!(
            "  {:<35} {:>16} {:>5.0}   {}   {}   | {:>5.0}   {}",
            case.name,
            verdict,
            Spread::of_rounds(figures, DELIVERED)?.median,
            ratio(of(NO_RULES, DELIVERED)?),
            ratio(established),
            Spread::of_rounds(figures, SENT)?.median,
            ratio(of(ESTABLISHED, SENT)?),
        );
        Ok(())
    }

    /// Cost by the number of peers and policies.
    fn flat(&self) -> Result<()> {
        let one = self.named(ONE_PEER)?;
        for name in FLAT {
            let [delivered, sent] = [DELIVERED, SENT].map(|part| Spread::of_rate(self.named(name)?, one, part));
            let (delivered, sent) = (delivered?, sent?);
            let within = [delivered, sent].iter().all(|rate| (0.9..=1.1).contains(&rate.median));
            println!(
                "{name} against {ONE_PEER}: {} | {}   {}",
                ratio(delivered),
                ratio(sent),
                judged(within, "aim within 10 %")
            );
        }
        Ok(())
    }

    fn of_pod(&self, pod: usize, traffic: Traffic) -> Result<&Figures> {
        self.find(|case| case.pod == pod && case.traffic == traffic)
    }

    fn named(&self, name: &str) -> Result<&Figures> {
        self.find(|case| case.name == name && case.traffic == Traffic::IN)
    }

    fn find(&self, which: impl Fn(&Case) -> bool) -> Result<&Figures> {
        let position = self.cases.iter().position(which);
        position
            .and_then(|position| self.figures.get(position))
            .context("no such case")
    }
}

fn ratio(spread: Spread) -> String {
    format!("{:.3} ({:.3}-{:.3})", spread.median, spread.low, spread.high)
}

fn judged(met: bool, aim: &str) -> String {
    format!("{aim}: {}", if met { "met" } else { "MISSED" })
}
