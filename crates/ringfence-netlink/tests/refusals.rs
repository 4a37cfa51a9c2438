//! What the kernel refuses changes nothing, and is told with its reason.

mod common;

use common::vocabulary::{accept, everything, name};
use common::{assert_listed, listing, make_net1, run, scratch};
use ringfence_netlink::{Enforcer, Error, Outcome};
use ringfence_ruleset::{CtDirection, KernelFeatures, Match, Rule, Ruleset, TableFamily, Verdict};

/// Enforces `everything`, then tries `broken`, and expects one of the sentences (kernels differ) and that all is as before.
#[track_caller]
fn check(break_it: impl FnOnce(&mut Ruleset) + Send, sentences: &[&str]) {
    scratch(|| {
        make_net1();
        let good = everything("net1");
        let mut broken = good.clone();
        break_it(&mut broken);
        let mut enforcer = Enforcer::open(KernelFeatures::ALL).unwrap();
        enforcer.enforce(Some(&good)).unwrap();
        for _ in 0..2 {
            let error = enforcer.enforce(Some(&broken)).unwrap_err();
            assert!(matches!(error, Error::Refused(_)), "{error:?}");
            assert!(sentences.contains(&error.to_string().as_str()), "{error}");
            assert_listed(Some(&good));
            assert_eq!(enforcer.current(), Some(&good));
        }
        assert_eq!(enforcer.enforce(Some(&good)).unwrap(), Outcome::Unchanged);
        assert_eq!(enforcer.verify().unwrap(), None);
    });
}

/// Before 6.16 the kernel refuses a chain on an interface that does not exist; since then it waits for the interface.
/// Never may it acknowledge a chain that stays without effect.
#[test]
fn s142_a_backstop_on_an_interface_that_does_not_exist_is_refused_or_comes_to_life_with_it() {
    scratch(|| {
        let wanted = everything("net1");
        let mut enforcer = Enforcer::open(KernelFeatures::ALL).unwrap();
        match enforcer.enforce(Some(&wanted)) {
            Ok(_) => assert_eq!(enforcer.current(), Some(&wanted)),
            Err(error) => {
                assert_eq!(
                    error.to_string(),
                    "the kernel refused chain net1-backstop of table netdev ringfence: No such file or directory \
                     (ENOENT) (does the interface exist in the namespace, and does the kernel have nf_tables for \
                     netdev?)"
                );
                assert_eq!(listing(), "");
                assert_eq!(enforcer.current(), None);
                make_net1();
                enforcer.enforce(Some(&wanted)).unwrap();
                return;
            }
        }
        make_net1();
        run("ip", &["address", "add", "10.20.1.10/24", "dev", "net1"]);
        std::net::UdpSocket::bind("10.20.1.10:0")
            .unwrap()
            .send_to(b"x", "10.20.1.99:9")
            .unwrap();
        let counters = enforcer.counters().unwrap();
        assert!(
            counters[&(TableFamily::Netdev, name("net1-out-denied"))].packets > 0,
            "{counters:?}"
        );
        assert_eq!(enforcer.verify().unwrap(), None);
    });
}

#[test]
fn s142_a_chain_that_does_not_exist() {
    check(
        |ruleset| {
            let rule = Rule {
                matches: vec![],
                counter: None,
                verdict: Verdict::Goto(name("nowhere")),
            };
            ruleset
                .inet
                .chains
                .get_mut(&name("net1-in-related"))
                .unwrap()
                .rules
                .push(rule);
        },
        &[
            "the kernel refused rule `goto nowhere` in chain net1-in-related of table inet ringfence: No such file or \
         directory (ENOENT) (something that it names does not exist, or the kernel lacks a module for it)",
        ],
    );
}

#[test]
fn s142_a_connection_where_there_is_no_conntrack() {
    check(
        |ruleset| {
            let rule = accept(vec![Match::CtDirection(CtDirection::Original)]);
            ruleset
                .netdev
                .chains
                .get_mut(&name("net1-backstop"))
                .unwrap()
                .rules
                .push(rule);
        },
        &[
            "the kernel refused rule `ct direction original accept` in chain net1-backstop of table netdev ringfence: \
         Protocol error (EPROTO)",
        ],
    );
}

#[test]
fn s142_a_loop_of_chains() {
    check(
        |ruleset| {
            let rule = Rule {
                matches: vec![],
                counter: None,
                verdict: Verdict::Jump(name("net1-in")),
            };
            ruleset
                .inet
                .chains
                .get_mut(&name("net1-in-related"))
                .unwrap()
                .rules
                .push(rule.clone());
            // The kernel follows chains from where packets come in.
            ruleset.inet.chains.get_mut(&name("arrive")).unwrap().rules = vec![rule];
        },
        &[
            "the kernel refused rule `jump net1-in` in chain net1-in-related of table inet ringfence: Too many links \
             (EMLINK)",
            "the kernel refused rule `jump net1-in` in chain net1-in-related of table inet ringfence: Too many levels of \
             symbolic links (ELOOP)",
        ],
    );
}

#[test]
fn s142_the_first_ruleset_is_all_or_nothing() {
    scratch(|| {
        make_net1();
        let mut broken = everything("net1");
        let rule = accept(vec![Match::CtRelated]);
        let backstop = broken.netdev.chains.get_mut(&name("net1-backstop")).unwrap();
        backstop.rules.push(rule);
        let mut enforcer = Enforcer::open(KernelFeatures::ALL).unwrap();
        // The very last operation is refused; everything before it is in the same transaction.
        let error = enforcer.enforce(Some(&broken)).unwrap_err();
        assert!(
            error.to_string().contains("chain net1-backstop of table netdev"),
            "{error}"
        );
        assert_eq!(listing(), "");
        assert_eq!(enforcer.current(), None);
        enforcer.enforce(Some(&everything("net1"))).unwrap();
        assert_listed(Some(&everything("net1")));
    });
}

#[test]
fn s142_without_the_capability() {
    scratch(|| {
        make_net1();
        let mut enforcer = Enforcer::open(KernelFeatures::ALL).unwrap();
        // SAFETY: no pointers; the bare system call changes the calling thread only, which ends with the closure.
        let result = unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) };
        assert_eq!(result, 0);
        let error = enforcer.enforce(Some(&everything("net1"))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the kernel refused a transaction: Operation not permitted (EPERM) (needs CAP_NET_ADMIN in the namespace, \
             and a table that another process owns can only be changed by it)"
        );
        assert_eq!(enforcer.current(), None);
    });
}

/// More refusals than the socket can hold: the first is told all the same, and what is left in the queue confuses
/// nothing that comes later.
#[test]
fn s142_a_flood_of_refusals() {
    scratch(|| {
        make_net1();
        let good = everything("net1");
        let mut broken = good.clone();
        let rule = Rule {
            matches: vec![],
            counter: None,
            verdict: Verdict::Goto(name("nowhere")),
        };
        broken.inet.chains.get_mut(&name("net1-in-related")).unwrap().rules = vec![rule; 60_000];
        let mut enforcer = Enforcer::open(KernelFeatures::ALL).unwrap();
        enforcer.enforce(Some(&good)).unwrap();
        for _ in 0..2 {
            let error = enforcer.enforce(Some(&broken)).unwrap_err();
            assert!(
                error
                    .to_string()
                    .starts_with("the kernel refused rule `goto nowhere` in chain net1-in-related"),
                "{error}"
            );
            assert_listed(Some(&good));
        }
        let mut other = good.clone();
        other.inet.sets.get_mut(&name("addresses-ip")).unwrap().elements.clear();
        assert!(matches!(
            enforcer.enforce(Some(&other)).unwrap(),
            Outcome::Elements { .. }
        ));
        assert_listed(Some(&other));
    });
}

#[test]
fn an_element_that_does_not_fit_its_set_is_never_sent() {
    scratch(|| {
        make_net1();
        let good = everything("net1");
        let mut enforcer = Enforcer::open(KernelFeatures::ALL).unwrap();
        enforcer.enforce(Some(&good)).unwrap();
        let mut broken = good.clone();
        let address = common::vocabulary::address("fd00::1");
        let set = broken.inet.sets.get_mut(&name("addresses-ip")).unwrap();
        set.elements.insert(ringfence_ruleset::Element::Address(address));
        let error = enforcer.enforce(Some(&broken)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot be sent to the kernel: element fd00::1 of set addresses-ip of ipv4_addr"
        );
        assert_listed(Some(&good));
    });
}

#[test]
fn s142_an_interface_that_goes_away_and_comes_back() {
    scratch(|| {
        make_net1();
        let with = everything("net1");
        let mut without = with.clone();
        without.netdev = ringfence_ruleset::Table::default();
        let mut enforcer = Enforcer::open(KernelFeatures::ALL).unwrap();
        enforcer.enforce(Some(&with)).unwrap();
        run("ip", &["link", "delete", "net1"]);
        enforcer.enforce(Some(&without)).unwrap();
        assert_listed(Some(&without));
        make_net1();
        enforcer.enforce(Some(&with)).unwrap();
        assert_listed(Some(&with));
    });
}
