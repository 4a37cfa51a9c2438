//! The oracle against the truth table: every cell of every matrix, with the scenarios built both ways.

mod support;

use std::collections::BTreeMap;

use ringfence_model::NamespacedName;
use ringfence_policy::evaluate::{Decision, L4, Universe, reach};
use support::truth_table::{Form, Query, Scenario, read};

/// Returns the number of cells.
fn check(scenario: &Scenario, universe: &Universe, query: &Query) -> usize {
    let mut found: BTreeMap<(NamespacedName, NamespacedName), String> = BTreeMap::new();
    for cell in reach(universe, &query.network, L4::port(query.protocol, query.port)) {
        let letter = |decision| match decision {
            Decision::Allow => 'a',
            Decision::Deny => 'd',
        };
        let word = [cell.verdict.egress.decision, cell.verdict.ingress.decision].map(letter);
        let pair = (cell.from.pod.name.clone(), cell.to.pod.name.clone());
        found.insert(pair, word.iter().collect());
    }
    for cell in &query.cells {
        let word = found.remove(&(cell.from.clone(), cell.to.clone()));
        assert_eq!(
            word.as_deref().unwrap_or(".."),
            cell.word,
            "{}: {} -> {} on {}, {} {}",
            scenario.name,
            cell.from,
            cell.to,
            query.network,
            query.protocol,
            query.port
        );
    }
    assert!(found.is_empty(), "{}: cells that nobody asked for", scenario.name);
    query.cells.len()
}

/// Returns the numbers of scenarios, queries and cells.
fn check_table(text: &str, form: Form) -> (usize, usize, usize) {
    let scenarios = read(text, form);
    let (mut queries, mut cells) = (0, 0);
    for scenario in &scenarios {
        let universe: Universe = scenario.objects.iter().cloned().collect();
        for query in &scenario.queries {
            queries += 1;
            cells += check(scenario, &universe, query);
        }
    }
    (scenarios.len(), queries, cells)
}

const RANDOM: &str = include_str!("fixtures/random.jsonl");

#[test]
fn random_table_with_multi_network_policies() {
    assert_eq!(check_table(RANDOM, Form::Multus), (200, 2714, 219_834));
}

#[test]
fn random_table_with_network_policies_and_genie_networks() {
    assert_eq!(check_table(RANDOM, Form::Genie), (200, 2714, 219_834));
}
