//! The matrices for programs, written as they are read out: a thousand pods are a million cells and a hundred megabytes.

use std::io::{self, Write};

use ringfence_policy::evaluate::Decision;
use ringfence_policy::reach::Cell;
use serde_json::{Value, json};

use super::Part;

/// All queries as one object, a cell on a line.
pub fn write<'a>(out: &mut impl Write, parts: impl Iterator<Item = Part<'a>>) -> io::Result<()> {
    out.write_all(b"{\"queries\":[")?;
    for (number, part) in parts.enumerate() {
        if number > 0 {
            out.write_all(b",")?;
        }
        query(out, &part)?;
    }
    out.write_all(b"]}\n")
}

fn query(out: &mut impl Write, part: &Part<'_>) -> io::Result<()> {
    let network = Value::from(part.network.to_string());
    let protocol = part.what.protocol();
    write!(
        out,
        "\n{{\"network\":{network},\"protocol\":\"{protocol}\",\"port\":{}",
        json!(part.what.port())
    )?;
    if let Some(number) = part.what.number() {
        write!(out, ",\"number\":{number}")?;
    }
    out.write_all(b",\"cells\":[")?;
    let places = part.places();
    let end = |key: &str| -> Vec<String> {
        places
            .iter()
            .map(|(pod, interface)| {
                let interface = interface
                    .as_ref()
                    .map(|name| format!(",\"{key}_interface\":{}", Value::from(name.as_str())));
                format!(
                    "\"{key}\":{}{}",
                    Value::from(pod.as_str()),
                    interface.unwrap_or_default()
                )
            })
            .collect()
    };
    let (senders, receivers) = (end("from"), end("to"));
    let mut first = true;
    for from in &part.senders {
        for to in &part.receivers {
            let Some(cell) = part.matrix.cell(*from, *to) else {
                continue;
            };
            out.write_all(if first { b"\n{" } else { b",\n{" })?;
            first = false;
            out.write_all(senders[*from].as_bytes())?;
            out.write_all(b",")?;
            out.write_all(receivers[*to].as_bytes())?;
            out.write_all(verdicts(cell).as_bytes())?;
        }
    }
    out.write_all(b"]}")
}

fn verdicts(cell: Cell) -> &'static str {
    match (cell.egress, cell.ingress) {
        (Decision::Allow, Decision::Allow) => ",\"egress\":\"allow\",\"ingress\":\"allow\",\"verdict\":\"allow\"}",
        (Decision::Allow, Decision::Deny) => ",\"egress\":\"allow\",\"ingress\":\"deny\",\"verdict\":\"deny\"}",
        (Decision::Deny, Decision::Allow) => ",\"egress\":\"deny\",\"ingress\":\"allow\",\"verdict\":\"deny\"}",
        (Decision::Deny, Decision::Deny) => ",\"egress\":\"deny\",\"ingress\":\"deny\",\"verdict\":\"deny\"}",
    }
}
