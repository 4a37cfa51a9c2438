//! The matrices for people, 80 columns wide: a sign per cell, numbered columns, as many blocks of columns as it takes.

use std::fmt::Write as _;
use std::io::{self, Write};

use ringfence_policy::evaluate::Decision;

use super::{Part, line};
use crate::manifests::plain;

/// What fits into a terminal that nobody has made wider.
const WIDTH: usize = 80;

/// Longer names are shortened: the matrix is what people came for.
const LABEL: usize = 32;

/// Allowed, denied at egress, at ingress, at both, no cell; each with its colour.
const SIGNS: [(char, &str, &str); 5] = [
    ('+', "32", "allowed"),
    ('e', "31", "denied by the sender's egress"),
    ('i', "31", "denied by the receiver's ingress"),
    ('x', "31", "denied by both"),
    ('.', "2", "no addresses of one IP family"),
];

/// All matrices, then what the signs mean.
pub fn write<'a>(out: &mut impl Write, parts: impl Iterator<Item = Part<'a>>, colour: bool) -> io::Result<()> {
    let mut any = false;
    for part in parts {
        any = true;
        matrix(out, &part, colour)?;
    }
    if !any {
        return line(out, "no pod of these manifests is on any network");
    }
    let meaning = |(sign, code, what): &(char, &str, &str)| format!("{} {what}", painted(*sign, code, colour));
    let meanings: Vec<String> = SIGNS.iter().map(meaning).collect();
    // Two lines, because one would be too long.
    for group in meanings.chunks(3) {
        line(out, &group.join("   "))?;
    }
    Ok(())
}

fn matrix(out: &mut impl Write, part: &Part<'_>, colour: bool) -> io::Result<()> {
    writeln!(
        out,
        "{} on network {}, from row to column:",
        part.what,
        plain(&part.network.to_string())
    )?;
    let names: Vec<String> = part
        .places()
        .into_iter()
        .map(|(pod, interface)| plain(&interface.map_or_else(|| pod.clone(), |interface| format!("{pod} {interface}"))))
        .collect();
    let digits = part.matrix.attachments().len().to_string().len();
    let labels: Vec<String> = names.iter().map(|name| shortened(name)).collect();
    let widths = part.senders.iter().map(|row| labels[*row].chars().count());
    let width = widths.max().unwrap_or(0);
    let margin = digits + 1 + width;
    let columns = (WIDTH - margin) / 2;
    for block in part.receivers.chunks(columns) {
        heading(out, block, digits, margin)?;
        for row in &part.senders {
            let mut text = format!("{:>digits$} {:<width$}", row + 1, labels[*row]);
            for column in block {
                let (sign, code, _) = SIGNS[sign(part, *row, *column)];
                text.push(' ');
                text.push_str(&painted(sign, code, colour));
            }
            line(out, &text)?;
        }
        line(out, "")?;
    }
    key(out, part, &names, &labels, digits)
}

/// The columns' numbers from top to bottom.
fn heading(out: &mut impl Write, block: &[usize], digits: usize, margin: usize) -> io::Result<()> {
    let numbers: Vec<String> = block.iter().map(|column| format!("{:>digits$}", column + 1)).collect();
    for digit in 0..digits {
        let mut text = " ".repeat(margin);
        for number in &numbers {
            text.push(' ');
            text.push(number.chars().nth(digit).unwrap_or(' '));
        }
        // With fewer than ten columns the upper lines are empty.
        if !text.trim().is_empty() {
            line(out, &text)?;
        }
    }
    Ok(())
}

/// The names that the rows do not tell.
fn key(out: &mut impl Write, part: &Part<'_>, names: &[String], labels: &[String], digits: usize) -> io::Result<()> {
    let mut text = String::new();
    for (number, name) in names.iter().enumerate() {
        let row = part.senders.binary_search(&number).is_ok();
        let column = part.receivers.binary_search(&number).is_ok();
        if (row && labels[number] != *name) || (column && !row) {
            let _ = writeln!(text, "{:>digits$} is {name}", number + 1);
        }
    }
    if text.is_empty() {
        return Ok(());
    }
    writeln!(out, "{text}")
}

fn sign(part: &Part<'_>, row: usize, column: usize) -> usize {
    match part.matrix.cell(row, column).map(|cell| (cell.egress, cell.ingress)) {
        Some((Decision::Allow, Decision::Allow)) => 0,
        Some((Decision::Deny, Decision::Allow)) => 1,
        Some((Decision::Allow, Decision::Deny)) => 2,
        Some((Decision::Deny, Decision::Deny)) => 3,
        None => 4,
    }
}

fn painted(sign: char, code: &str, colour: bool) -> String {
    if colour {
        format!("\u{1b}[{code}m{sign}\u{1b}[0m")
    } else {
        sign.to_string()
    }
}

/// The beginning of a name tells what it is and the end which one; the middle has to go.
fn shortened(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    if letters.len() <= LABEL {
        return name.to_owned();
    }
    let end = LABEL / 3;
    let start = &letters[..LABEL - end - 1];
    let rest = &letters[letters.len() - end..];
    start.iter().chain(&['~']).chain(rest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_keep_both_ends() {
        assert_eq!(shortened("shop/web"), "shop/web");
        let name = "a-namespace/a-deployment-with-a-long-name-7d9f8c6b5-x2k4p";
        let short = shortened(name);
        assert_eq!(short, "a-namespace/a-deploym~c6b5-x2k4p");
        assert_eq!(short.chars().count(), LABEL);
    }
}
