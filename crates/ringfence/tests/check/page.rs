//! `docs/checks.md` against the code.

use std::collections::BTreeSet;

use ringfence::check::{CODES, PAGE};
use ringfence_model::Reason;
use ringfence_policy::advice::Code;

#[test]
fn the_page_has_every_code_once_and_no_other() {
    let of_reasons = Reason::ALL.iter().map(|reason| reason.code());
    let of_advice = Code::ALL.iter().map(|code| code.as_str());
    let expected: Vec<&str> = of_reasons.chain(of_advice).collect();
    let documented: Vec<&str> = CODES.iter().map(|entry| entry.code).collect();
    assert_eq!(documented, expected, "in this order");
    assert_eq!(
        expected.iter().collect::<BTreeSet<_>>().len(),
        expected.len(),
        "no code twice"
    );
    for code in &expected {
        let number = code.strip_prefix("RF").and_then(|digits| digits.parse::<u16>().ok());
        assert!(number.is_some() && code.len() == 5, "{code}");
    }
    let rows = PAGE.lines().filter(|line| line.starts_with("| RF")).count();
    assert_eq!(rows, expected.len(), "every row has its five cells");
}

#[test]
fn the_page_gives_every_code_its_severity_and_a_remedy() {
    for code in Code::ALL {
        let entry = CODES
            .iter()
            .find(|entry| entry.code == code.as_str())
            .expect("it is there");
        assert_eq!(entry.severity, code.level().as_str(), "{code}");
    }
    for entry in CODES.iter() {
        for cell in [entry.meaning, entry.example, entry.remedy] {
            assert!(cell.len() > 5, "{}: {cell:?}", entry.code);
        }
        for severity in entry.severity.split('/') {
            assert!(
                ["error", "warning", "info"].contains(&severity),
                "{}: {severity}",
                entry.code
            );
        }
    }
}

/// Codes are for ever: metrics, scripts and people's notes hold them. A new one is added at the end of this list, and one
/// that goes stays in it.
#[test]
fn the_codes_of_reasons_never_change() {
    let pinned = [
        "unreadable",
        "syntax",
        "unknown_kind",
        "schema",
        "invalid_cidr",
        "invalid_except",
        "invalid_port",
        "invalid_end_port",
        "unknown_protocol",
        "invalid_selector",
        "invalid_peer",
        "invalid_policy_type",
        "no_networks",
        "invalid_network_name",
        "invalid_annotation",
        "invalid_address",
        "invalid_interface",
        "stale_annotation",
        "too_large",
        "duplicate",
        "duplicate_address",
    ];
    for reason in Reason::ALL {
        let position = pinned
            .iter()
            .position(|name| *name == reason.as_str())
            .expect("it is pinned");
        assert_eq!(reason.code(), format!("RF{:03}", position + 1), "{reason:?}");
    }
}
