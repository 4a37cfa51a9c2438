//! What seeds have found, told step by step: seeds mean something else as soon as a generator changes.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use ringfence::applier::{Mailbox, Reports, Session, Worker};
use ringfence::event::{Applied, Event};
use ringfence::host::Order;
use ringfence_model::{InterfaceName, PodUid};
use ringfence_netns::Facts;
use ringfence_ruleset::{BaseChain, Chain, Hook, KernelFeatures, Match, Name, Rule, Ruleset, Table, Verdict};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::checks::is_one_change;
use crate::cluster::interface;
use crate::dice::Dice;
use crate::node::{Commit, Faults, Node, SimHost};

const PATH: &str = "/run/netns/x.pod-0";

/// A namespace with `net1`, and nothing that goes wrong by itself.
fn node() -> (Rc<Node>, u64) {
    let node = Node::new(Dice::new(0), Faults::default(), false);
    let interfaces: BTreeMap<InterfaceName, BTreeSet<_>> = [(interface("net1"), BTreeSet::new())].into();
    let serial = node.create(
        Facts {
            interfaces,
            ..Facts::default()
        },
        false,
    );
    node.paths.borrow_mut().insert(PathBuf::from(PATH), serial);
    (node, serial)
}

struct Applier {
    worker: Worker<SimHost>,
    session: Session<SimHost>,
    mailbox: Arc<Mailbox>,
    results: UnboundedReceiver<Applied>,
    _events: UnboundedReceiver<Event>,
}

impl Applier {
    fn start(node: &Rc<Node>, run: u64, owner_persist: bool) -> Self {
        let pod = PodUid::new("u0").expect("valid");
        let mailbox = Arc::<Mailbox>::default();
        let (events, queue) = unbounded_channel();
        let (results, done) = unbounded_channel();
        let order = Order {
            pod: pod.clone(),
            path: PATH.into(),
            run,
            features: KernelFeatures {
                owner_persist,
                ..KernelFeatures::ALL
            },
            mailbox: Arc::clone(&mailbox),
            reports: Reports { events, results },
        };
        let host = SimHost {
            node: Rc::clone(node),
            alive: Rc::new(Cell::new(true)),
            pod,
            run,
        };
        let worker = Worker::new(order, host);
        let session = worker.begin().expect("it is opened");
        Self {
            worker,
            session,
            mailbox,
            results: done,
            _events: queue,
        }
    }

    fn enforce(&mut self, wanted: &Ruleset) -> Applied {
        self.mailbox.enforce(Some(Arc::new(wanted.clone())), None);
        self.serve();
        self.results.try_recv().expect("it reports")
    }

    fn serve(&mut self) {
        let slot = self.mailbox.try_take().expect("there is work");
        assert!(self.worker.serve(&mut self.session, slot), "it goes on");
    }
}

/// Rules that let pass what arrives on `net1` from nobody, or from everybody, and a chain of the device.
fn rules(verdict: &Verdict) -> Ruleset {
    let rule = |matches, verdict| Rule {
        matches,
        counter: None,
        verdict,
    };
    let base = |hook, rules| Chain {
        base: Some(BaseChain { hook, priority: 0 }),
        rules,
    };
    let inside = Name::new("net1-in");
    let mut rules = vec![rule(Vec::new(), Verdict::Drop)];
    if *verdict == Verdict::Accept {
        rules.insert(0, rule(Vec::new(), Verdict::Accept));
    }
    let arrive = rule(vec![Match::ArrivesOn(interface("net1"))], Verdict::Goto(inside.clone()));
    Ruleset {
        comment: "ringfence u0".into(),
        inet: Table {
            chains: BTreeMap::from([
                (Name::new("arrive"), base(Hook::Prerouting, vec![arrive])),
                (inside, Chain { base: None, rules }),
            ])
            .into(),
            ..Table::default()
        },
        netdev: Table {
            chains: BTreeMap::from([(
                Name::new("net1-backstop"),
                base(
                    Hook::Egress(interface("net1")),
                    vec![rule(vec![Match::Routed], Verdict::Accept)],
                ),
            )])
            .into(),
            ..Table::default()
        },
    }
}

fn held(node: &Node, serial: u64) -> Option<Ruleset> {
    node.with(serial, |namespace| namespace.nft.contents())
        .expect("it can be understood")
}

#[test]
fn s107_a_lost_answer_does_not_close_a_pod_that_has_rules() {
    for owner_persist in [false, true] {
        let (node, serial) = node();
        let mut applier = Applier::start(&node, 1, owner_persist);
        assert!(applier.enforce(&rules(&Verdict::Drop)).result.is_ok());
        // The second, and the same for the first of all, which is in force although nobody says so.
        node.lose_next.set(true);
        let refusal = applier
            .enforce(&rules(&Verdict::Accept))
            .result
            .expect_err("its answer is lost");
        assert!(!refusal.closed, "{}", refusal.reason);
        assert_eq!(
            held(&node, serial),
            Some(rules(&Verdict::Accept)),
            "owner {owner_persist}"
        );
    }
    let (node, serial) = node();
    let mut applier = Applier::start(&node, 1, true);
    node.lose_next.set(true);
    assert!(
        !applier
            .enforce(&rules(&Verdict::Accept))
            .result
            .expect_err("its answer is lost")
            .closed
    );
    assert_eq!(held(&node, serial), Some(rules(&Verdict::Accept)));
}

#[test]
fn s141_a_chain_that_went_with_its_interface_is_missed_when_the_interface_is_back() {
    let (node, serial) = node();
    let mut applier = Applier::start(&node, 1, true);
    assert!(applier.enforce(&rules(&Verdict::Drop)).result.is_ok());
    node.unplug(serial, &interface("net1"));
    node.plug(serial, interface("net1"), BTreeSet::new());
    assert!(held_chains(&node, serial) == 0, "without a new generation");
    applier.mailbox.verify();
    applier.serve();
    let repaired = applier.results.try_recv().expect("it reports");
    assert!(repaired.result.is_ok() && repaired.drift.is_some(), "{repaired:?}");
    assert_eq!(held(&node, serial), Some(rules(&Verdict::Drop)));
}

#[test]
fn s142_a_change_and_the_repair_of_what_went_with_an_interface_are_two_transactions() {
    let (node, serial) = node();
    let mut applier = Applier::start(&node, 1, true);
    assert!(applier.enforce(&rules(&Verdict::Drop)).result.is_ok());
    node.unplug(serial, &interface("net1"));
    node.plug(serial, interface("net1"), BTreeSet::new());
    node.commits.take();
    assert!(applier.enforce(&rules(&Verdict::Accept)).result.is_ok());
    assert_eq!(held(&node, serial), Some(rules(&Verdict::Accept)));
    let commits = node.commits.take();
    let [change, repair] = &commits[..] else {
        panic!("two transactions: {commits:?}");
    };
    assert!(is_one_change(&[change]) && is_one_change(&[change, repair]));

    // A third; the wrong way round; nothing lost; other rules along with the chain.
    assert!(!is_one_change(&[change, repair, repair]));
    assert!(!is_one_change(&[repair, change]));
    let commit = |lost: &BTreeSet<InterfaceName>, before: &Ruleset, after: Ruleset| Commit {
        serial,
        pod: change.pod.clone(),
        run: 1,
        tampered: true,
        lost: lost.clone(),
        before: Ok(Some(before.clone())),
        after: Ok(Some(after)),
        ops: 1,
    };
    let (whole, other) = (rules(&Verdict::Accept), rules(&Verdict::Drop));
    let mut rest = whole.clone();
    rest.netdev = Table::default();
    let (nothing, lost) = (BTreeSet::new(), &change.lost);
    for (lost, after, is_one) in [(lost, &whole, true), (&nothing, &whole, false), (lost, &other, false)] {
        let first = commit(lost, &other, rest.clone());
        let second = commit(&nothing, &rest, after.clone());
        assert_eq!(is_one_change(&[&first, &second]), is_one, "{lost:?}");
    }
}

fn held_chains(node: &Node, serial: u64) -> usize {
    node.with(serial, |namespace| {
        namespace.nft.heads().last().map_or(0, |head| head.uses)
    })
}

#[test]
fn s226_an_applier_that_was_replaced_writes_nothing_over_its_successor() {
    let (node, serial) = node();
    let mut former = Applier::start(&node, 1, false);
    assert!(former.enforce(&rules(&Verdict::Drop)).result.is_ok());
    // It has taken out what it is to do, and the system lets it wait.
    former.mailbox.enforce(Some(Arc::new(rules(&Verdict::Accept))), None);
    let slot = former.mailbox.try_take().expect("there is work");
    former.mailbox.stop();
    let mut successor = Applier::start(&node, 2, false);
    assert!(successor.enforce(&rules(&Verdict::Drop)).result.is_ok());
    former.worker.serve(&mut former.session, slot);
    assert_eq!(held(&node, serial), Some(rules(&Verdict::Drop)));
}
