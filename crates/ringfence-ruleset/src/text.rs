//! Comparing with what `nft` lists. For tests and debugging; the program itself reads the kernel over netlink.
//!
//! `normalise(nft -s list table inet ringfence) == ruleset.to_string()` says that the kernel holds the ruleset, for
//! the tables that both name.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv6Addr};

use ringfence_model::{AddressRange, Protocol};

use crate::render::write_elements;
use crate::{Element, Op};

/// The operations as a script that `nft -f` runs as one batch.
pub fn script(ops: &[Op]) -> String {
    let mut out = String::new();
    for op in ops {
        // Writing into a String cannot fail.
        let _ = writeln!(out, "{op}");
    }
    out
}

/// Brings a listing of `nft -s list table …` or `nft -s list ruleset` into the form in which a [`crate::Ruleset`]
/// prints itself. What a ruleset prints is left as it is, byte for byte.
///
/// * Tables: `inet`, `netdev`, then others. In each: counters, sets, base chains, other chains, by name.
/// * Elements: ascending, addresses as in RFC 5952, protocols by name, wrapped as nft wraps them.
/// * Left out: table flags and owner (nft 1.0.6 shows `owner` and cannot parse it, and does not know `persist`),
///   handles, values of counters.
/// * Numbers for which nft 1.0.6 has names get them, because other versions and machines without `/etc/protocols`
///   print numbers.
///
/// Of two conditions of a rule that speak about one thing (`meta nfproto ipv4 ip saddr …`, `meta l4proto tcp tcp dport
/// 80`) nft lists only the second. The compiler makes no such rules; compared with a listing they would differ.
///
/// Lines that it does not understand stay where they are, so that a difference is seen and not hidden.
pub fn normalise(listing: &str) -> String {
    let mut tables: Vec<ListedTable> = Vec::new();
    let mut block: Option<Block> = None;
    // Whether the last table's closing brace is still to come.
    let mut open = false;
    for line in listing.lines() {
        let line = without_remark(line.trim());
        match (&mut block, tables.last_mut()) {
            _ if line.is_empty() => {}
            (Some(open), Some(table)) => {
                if line == "}" {
                    table.blocks.extend(block.take());
                } else {
                    open.push(line);
                }
            }
            (None, Some(table)) if open && !line.starts_with("table ") => {
                if let Some(head) = line.strip_suffix('{') {
                    block = Some(Block::new(head.trim()));
                } else if line == "}" {
                    open = false;
                } else if !line.starts_with("flags") {
                    table.lines.push(line.to_owned());
                }
            }
            // A table, or a line outside of any table, which is kept as a table of its own would be.
            _ => {
                open = line.ends_with('{');
                tables.push(ListedTable::new(line));
            }
        }
    }
    tables.sort_by_key(ListedTable::rank);
    let mut out = String::new();
    for table in &tables {
        table.write(&mut out);
    }
    out
}

/// Without what follows `#` outside of quotes: ` # handle 7`, ` # progname ringfence`.
fn without_remark(line: &str) -> &str {
    let mut quoted = false;
    for (position, c) in line.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '#' if !quoted => return line[..position].trim_end(),
            _ => {}
        }
    }
    line
}

struct ListedTable {
    head: String,
    lines: Vec<String>,
    blocks: Vec<Block>,
}

impl ListedTable {
    fn new(head: &str) -> Self {
        Self {
            head: head.to_owned(),
            lines: Vec::new(),
            blocks: Vec::new(),
        }
    }

    fn rank(&self) -> (usize, String) {
        let known = ["table inet ", "table netdev "];
        let position = known.iter().position(|known| self.head.starts_with(known));
        (position.unwrap_or(known.len()), self.head.clone())
    }

    fn write(&self, out: &mut String) {
        let mut blocks: Vec<&Block> = self.blocks.iter().collect();
        blocks.sort_by_key(|block| block.rank());
        let _ = writeln!(out, "{}", self.head);
        for line in &self.lines {
            let _ = writeln!(out, "\t{line}");
        }
        for (position, block) in blocks.into_iter().enumerate() {
            if position > 0 {
                out.push('\n');
            }
            block.write(out);
        }
        if self.head.ends_with('{') {
            out.push_str("}\n");
        }
    }
}

/// `set net1-in-ip { … }`
struct Block {
    kind: String,
    name: String,
    lines: Vec<String>,
    /// The lines of `elements = { … }`, joined.
    elements: Option<String>,
    /// Its closing brace has not come yet.
    in_elements: bool,
}

impl Block {
    fn new(head: &str) -> Self {
        let (kind, name) = head.split_once(' ').unwrap_or((head, ""));
        Self {
            kind: kind.to_owned(),
            name: name.to_owned(),
            lines: Vec::new(),
            elements: None,
            in_elements: false,
        }
    }

    fn push(&mut self, line: &str) {
        if self.in_elements || line.starts_with("elements = {") {
            // Only of the first line: on the others it would be a part of an element.
            let first = line.strip_prefix("elements = {").filter(|_| !self.in_elements);
            let line = first.unwrap_or(line);
            self.in_elements = !line.ends_with('}');
            let elements = self.elements.get_or_insert_default();
            elements.push_str(line.trim_end_matches('}'));
        } else if self.kind == "chain" {
            self.lines.push(normalise_rule(line));
        } else if !(self.kind == "counter" && line.starts_with("packets ")) {
            self.lines.push(line.to_owned());
        }
    }

    fn rank(&self) -> (usize, usize, &str) {
        let kinds = ["counter", "set", "chain"];
        let kind = kinds.iter().position(|kind| *kind == self.kind).unwrap_or(kinds.len());
        let is_base = self.lines.first().is_some_and(|line| line.starts_with("type "));
        (kind, usize::from(kind == 2 && !is_base), &self.name)
    }

    fn write(&self, out: &mut String) {
        let _ = writeln!(out, "\t{} {} {{", self.kind, self.name);
        for line in &self.lines {
            let _ = writeln!(out, "\t\t{line}");
        }
        if let Some(elements) = &self.elements {
            self.write_elements(out, elements);
        }
        out.push_str("\t}\n");
    }

    fn write_elements(&self, out: &mut String, elements: &str) {
        let is_interval = self.lines.iter().any(|line| line == "flags interval");
        let pairs = self.lines.iter().any(|line| line == "type ipv4_addr");
        let mut known: BTreeMap<Element, String> = BTreeMap::new();
        let mut unknown: Vec<String> = Vec::new();
        for text in elements.split(',').map(str::trim).filter(|text| !text.is_empty()) {
            match parse_element(text, is_interval) {
                Some(element) => {
                    known.insert(element, element.to_string());
                }
                None => unknown.push(text.to_owned()),
            }
        }
        unknown.sort();
        let _ = write_elements(out, known.into_values().chain(unknown), if pairs { 2 } else { 1 });
    }
}

fn parse_element(text: &str, is_interval: bool) -> Option<Element> {
    let parts: Vec<&str> = text.split(" . ").map(str::trim).collect();
    Some(match parts[..] {
        [range] if is_interval => Element::Range(parse_range(range)?),
        [address] => Element::Address(address.parse().ok()?),
        [protocol, port] => Element::Port(parse_protocol(protocol)?, port.parse().ok()?),
        [address, protocol, port] => {
            Element::Service(address.parse().ok()?, parse_protocol(protocol)?, port.parse().ok()?)
        }
        _ => return None,
    })
}

fn parse_range(text: &str) -> Option<AddressRange> {
    if let Some((first, last)) = text.split_once('-') {
        return AddressRange::new(first.parse().ok()?, last.parse().ok()?);
    }
    let Some((first, bits)) = text.split_once('/') else {
        return Some(AddressRange::single(text.parse().ok()?));
    };
    let bits: u32 = bits.parse().ok()?;
    let last = match first.parse().ok()? {
        IpAddr::V4(first) => IpAddr::V4((first.to_bits() | u32::MAX.checked_shr(bits).unwrap_or(0)).into()),
        IpAddr::V6(first) => IpAddr::V6((first.to_bits() | u128::MAX.checked_shr(bits).unwrap_or(0)).into()),
    };
    AddressRange::new(first.parse().ok()?, last)
}

fn parse_protocol(text: &str) -> Option<Protocol> {
    Protocol::ALL
        .into_iter()
        .find(|protocol| text == protocol.keyword() || text == protocol.number().to_string())
}

/// Word by word, with the names and spellings of [`crate::Rule`]'s `Display`.
fn normalise_rule(line: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    for word in line.split_ascii_whitespace() {
        let before: Vec<&str> = words.iter().rev().take(3).map(String::as_str).collect();
        let spelled = match (&before[..], word) {
            (["l4proto", "meta", ..], "1") => "icmp",
            (["l4proto", "meta", ..], "58" | "icmpv6") => "ipv6-icmp",
            (["l4proto", "meta", ..], number) => match parse_protocol(number) {
                Some(protocol) => protocol.keyword(),
                None => number,
            },
            (["code", "icmpv6", ..], "0") => "no-route",
            (["!=", "rtclassid", "meta"], "0xdeadbeef") => "3735928559",
            _ => word,
        };
        words.push(match spelled.parse::<Ipv6Addr>() {
            Ok(address) => address.to_string(),
            Err(_) => spelled.to_owned(),
        });
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by fuzzing: it was cut off at the start of further lines too.
    #[test]
    fn only_the_first_line_of_elements_begins_them() {
        let listing = "table inet a {\n\tset s {\n\t\telements = { b,\n\t\t\t     elements = { c }\n\t}\n}\n";
        assert!(normalise(listing).contains("elements = { c"), "{}", normalise(listing));
        assert_eq!(normalise(&normalise(listing)), normalise(listing));
    }

    /// Found by fuzzing: after a table's end, further lines were put into the table.
    #[test]
    fn lines_outside_of_any_table_stay_outside() {
        let listing = "garbage\ntable inet ringfence {\n}\nmore {\n";
        let expected = "table inet ringfence {\n}\ngarbage\nmore {\n}\n";
        assert_eq!(normalise(listing), expected);
        assert_eq!(normalise(expected), expected);
    }
}
