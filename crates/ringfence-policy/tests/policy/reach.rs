//! The fast matrix against the oracle's slow one, cell by cell on random universes.

use std::collections::BTreeSet;
use std::net::IpAddr;

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::select;
use ringfence_model::{Object, Protocol, Scope};
use ringfence_policy::evaluate::{AttachmentRef, Decision, L4, Universe, reach};
use ringfence_policy::reach::Reach;

use crate::property::{address, object, pod};

/// Ports in and out of the rules, at the edges, of DHCP; router, neighbour and echo messages; ICMP and GRE.
fn questions() -> Vec<L4> {
    let ports = [0, 67, 68, 80, 81, 83, 90, 65_535].map(L4::tcp);
    let datagrams = [67, 68, 80, 546, 547].map(|port| L4::port(Protocol::Udp, port));
    let messages = [128, 130, 133, 134, 135, 137, 143].map(|message| L4::Icmpv6 { message });
    let mut all = vec![L4::Other(1), L4::Other(47), L4::sctp(80)];
    all.extend(ports.into_iter().chain(datagrams).chain(messages));
    all
}

type Row<'a> = (AttachmentRef<'a>, AttachmentRef<'a>, [&'static str; 3]);

fn check(universe: &Universe) -> Result<(), TestCaseError> {
    for network in universe.network_names() {
        let mut fast = Reach::new(universe, &network);
        prop_assert_eq!(fast.attachments(), universe.attachments_on(&network));
        for l4 in questions() {
            let matrix = fast.matrix(l4);
            let attachments = matrix.attachments();
            let mut found: Vec<Row<'_>> = Vec::new();
            for from in 0..attachments.len() {
                for to in 0..attachments.len() {
                    if let Some(cell) = matrix.cell(from, to) {
                        let words = [cell.egress, cell.ingress, cell.decision()].map(Decision::as_str);
                        found.push((attachments[from], attachments[to], words));
                    }
                }
            }
            let wanted: Vec<Row<'_>> = reach(universe, &network, l4)
                .into_iter()
                .map(|cell| {
                    let verdict = &cell.verdict;
                    let decisions = [verdict.egress.decision, verdict.ingress.decision, verdict.decision()];
                    (cell.from, cell.to, decisions.map(Decision::as_str))
                })
                .collect();
            prop_assert_eq!(found, wanted, "{} {}", network, l4);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn the_fast_matrix_is_the_slow_one(
        scope in select(vec![Scope::Secondary, Scope::All, Scope::Annotated, Scope::None]),
        node_addresses in btree_set(address(), 0..2),
        pods in vec(pod(), 2..7),
        objects in vec(object(), 2..20),
    ) {
        let mut universe: Universe = pods.into_iter().map(Object::Pod).chain(objects).collect();
        universe.scope = scope;
        let node_addresses: BTreeSet<IpAddr> = node_addresses;
        universe.node_addresses = [("node-1".into(), node_addresses)].into();
        check(&universe)?;
    }
}
