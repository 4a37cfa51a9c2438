//! What a change of one element costs: `cargo run --release --example floor -p ringfence-netlink`, as root.
//!
//! Measures in a network namespace of its own, which ends with the program: the floor (ready-made bytes over a bare
//! socket, two system calls), the Enforcer with the difference of two rulesets around it, and bulk loads.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use imbl::OrdSet;
use ringfence_model::Family;
use ringfence_netlink::{Enforcer, Error, Outcome};
use ringfence_ruleset::{
    Chain, Element, KernelFeatures, Key, Match, Name, Rule, Ruleset, Set, SetKind, Side, Table, Verdict, transaction,
};

/// Measured rounds, after a tenth as many for warming up.
const ROUNDS: u32 = 20_000;

fn main() -> Result<(), Error> {
    // SAFETY: no pointers; the program has one thread.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        eprintln!("needs root: {}", io::Error::last_os_error());
        std::process::exit(2);
    }
    println!("{:<42} {:>9} {:>9}", "one element", "p50", "p99");
    for size in [100, 10_000, 100_000] {
        let mut ruleset = ruleset(size);
        let mut enforcer = Enforcer::open(KernelFeatures {
            owner_persist: false,
            ..KernelFeatures::ALL
        })?;
        let start = Instant::now();
        enforcer.enforce(Some(&ruleset))?;
        let first = start.elapsed();
        floor(size);
        // The bare socket has changed the generation.
        enforcer.verify()?;
        difference(size, &ruleset);
        change(size, &mut enforcer, &mut ruleset)?;
        println!("{:<42} {first:>9.1?}", format!("{size}: first ruleset, read back"));
        let mut changed = ruleset.clone();
        if let Some(chain) = changed.inet.chains.get_mut(&Name::new("net1-in")) {
            chain.rules.pop();
        }
        let start = Instant::now();
        enforcer.enforce(Some(&changed))?;
        println!(
            "{:<42} {:>9.1?}",
            format!("{size}: rules of a chain, read back"),
            start.elapsed()
        );
        enforcer.enforce(None)?;
    }
    bulk()
}

/// 20 rules and one set of addresses with `size` elements.
fn ruleset(size: u32) -> Ruleset {
    let set = Name::new("net1-in-any-ip");
    let elements = (0..size).map(address).collect();
    let kind = SetKind::Addresses(Family::V4);
    let rule = Rule {
        matches: vec![Match::InSet(Key::Address(Family::V4, Side::Source), set.clone())],
        counter: None,
        verdict: Verdict::Accept,
    };
    let rules = vec![rule; 20];
    Ruleset {
        comment: "ringfence floor".into(),
        inet: Table {
            sets: BTreeMap::from([(set, Set { kind, elements })]),
            chains: BTreeMap::from([(Name::new("net1-in"), Chain { base: None, rules })]).into(),
            ..Table::default()
        },
        netdev: Table::default(),
    }
}

fn address(n: u32) -> Element {
    Element::Address(Ipv4Addr::from_bits(0x0a00_0000 | n).into())
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let (p50, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    println!("{what:<42} {p50:>9.1?} {p99:>9.1?}");
}

fn measure(mut step: impl FnMut(bool)) -> Vec<Duration> {
    let mut times = Vec::new();
    for round in 0..ROUNDS + ROUNDS / 10 {
        let start = Instant::now();
        step(round % 2 == 0);
        if round >= ROUNDS / 10 {
            times.push(start.elapsed());
        }
    }
    times
}

/// Ready-made bytes over a bare socket.
fn floor(size: u32) {
    // SAFETY: no pointers.
    let raw = unsafe {
        libc::socket(
            libc::AF_NETLINK,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            libc::NETLINK_NETFILTER,
        )
    };
    assert!(raw >= 0);
    // SAFETY: a descriptor that was just opened and that nothing else knows.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    let batches = [element(12, 0x0405), element(14, 0x0005)];
    let mut buffer = [0_u8; 512];
    let times = measure(|add| {
        let batch = &batches[usize::from(!add)];
        // SAFETY: the pointer is to `batch.len()` bytes that live during the call.
        let sent = unsafe { libc::send(socket.as_raw_fd(), batch.as_ptr().cast(), batch.len(), 0) };
        assert_eq!(usize::try_from(sent), Ok(batch.len()));
        // SAFETY: the pointer is to `buffer.len()` writable bytes that live during the call.
        let received = unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        assert!(received > 20 && buffer[16..20] == [0; 4], "refused");
    });
    report(&format!("{size}: bare socket"), times);
}

/// A batch that adds or deletes the address 192.0.2.1.
fn element(kind: u16, flags: u16) -> Vec<u8> {
    let message = |kind: u16, flags: u16, nfgenmsg: [u8; 4], attributes: &[u8]| {
        let length = u32::try_from(20 + attributes.len()).unwrap_or(0);
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(nfgenmsg);
        bytes.extend(attributes);
        bytes
    };
    let attribute = |kind: u16, payload: &[u8]| {
        let mut bytes = u16::try_from(payload.len() + 4).unwrap_or(0).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    };
    let value = attribute(1, &[192, 0, 2, 1]);
    let list = attribute(0x8003, &attribute(0x8001, &attribute(0x8001, &value)));
    let attributes = [attribute(1, b"ringfence\0"), attribute(2, b"net1-in-any-ip\0"), list].concat();
    [
        message(0x10, 1, [0, 0, 0, 10], &[]),
        message(10 << 8 | kind, flags, [1, 0, 0, 0], &attributes),
        message(0x11, 1, [0, 0, 0, 10], &[]),
    ]
    .concat()
}

fn edit(ruleset: &mut Ruleset, add: bool) {
    let Some(set) = ruleset.inet.sets.get_mut(&Name::new("net1-in-any-ip")) else {
        return;
    };
    let element = Element::Address(Ipv4Addr::new(192, 0, 2, 1).into());
    if add {
        set.elements.insert(element);
    } else {
        set.elements.remove(&element);
    }
}

/// Only `transaction`: the difference of two rulesets that share all but one element.
fn difference(size: u32, ruleset: &Ruleset) {
    let mut with = ruleset.clone();
    edit(&mut with, true);
    let times = measure(|_| assert_eq!(transaction(Some(ruleset), Some(&with)).len(), 1));
    report(&format!("{size}: difference alone"), times);
}

/// The whole of `enforce`, edits of the wanted ruleset left out.
fn change(size: u32, enforcer: &mut Enforcer, ruleset: &mut Ruleset) -> Result<(), Error> {
    let mut with = ruleset.clone();
    edit(&mut with, true);
    let mut failed = None;
    let times = measure(|add| {
        let wanted = if add { &with } else { &*ruleset };
        match enforcer.enforce(Some(wanted)) {
            Ok(Outcome::Elements { .. }) => {}
            Ok(_) => failed = Some(Error::Differs("no change of elements".to_owned())),
            Err(error) => failed = Some(error),
        }
    });
    report(&format!("{size}: Enforcer"), times);
    failed.map_or(Ok(()), Err)
}

/// Many elements into an empty set, and out again.
fn bulk() -> Result<(), Error> {
    let mut enforcer = Enforcer::open(KernelFeatures::ALL)?;
    let empty = ruleset(0);
    enforcer.enforce(Some(&empty))?;
    for size in [10_000, 100_000, 1_000_000] {
        let mut full = empty.clone();
        let elements: OrdSet<Element> = (0..size).map(address).collect();
        if let Some(set) = full.inet.sets.get_mut(&Name::new("net1-in-any-ip")) {
            set.elements = elements;
        }
        let start = Instant::now();
        enforcer.enforce(Some(&full))?;
        let load = start.elapsed();
        let start = Instant::now();
        enforcer.enforce(Some(&empty))?;
        let unload = start.elapsed();
        let rate = f64::from(size) / load.as_secs_f64() / 1e6;
        println!("{size} elements in one transaction: in {load:.1?} ({rate:.2} million a second), out {unload:.1?}");
    }
    Ok(())
}
