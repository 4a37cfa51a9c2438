//! The ruleset as nft text, as nft 1.0.6 lists it with `-s` (without the values of counters).
//!
//! Within a table: counters, sets, base chains, other chains, each by name. nft lists objects in the order in which
//! they were made, and the elements of a hash in the order of their bytes; [`crate::text::normalise`] brings a listing
//! into the order used here. Two things are written differently from nft on purpose: the IPv6 addresses of `::/96`
//! (nft: `::0.1.0.0`; here as in RFC 5952: `::1:0`), because they are read by people who search for them; and table
//! flags, which nft 1.0.6 cannot parse.

use std::fmt;
use std::net::IpAddr;

use ringfence_model::{Family, PortRange};

use crate::check::key_family;
use crate::op::TABLE;
use crate::{
    BaseChain, Chain, CtDirection, Element, Hook, Key, Match, Rule, Ruleset, Set, SetKind, Side, Table, TableFamily,
    Verdict, network_mask,
};

/// The value that `meta rtclassid` is compared with: unequal to it means that there is a value at all. nft prints it
/// in decimal.
const NO_REALM: u32 = 0xdead_beef;

/// Both tables, each as a block that ends with a newline.
impl fmt::Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (family, table) in self.tables() {
            write_table(f, family, &self.comment, table)?;
        }
        Ok(())
    }
}

impl Ruleset {
    /// The tables that exist in the kernel, `inet` first: `netdev` only where it has chains.
    pub fn tables(&self) -> impl Iterator<Item = (TableFamily, &Table)> {
        TableFamily::BOTH
            .into_iter()
            .filter_map(|family| Some((family, self.table(family)?)))
    }

    /// The text of one table, as `nft -s list table` shows it; empty where the table does not exist.
    pub fn table_text(&self, family: TableFamily) -> String {
        struct Text<'r>(&'r Ruleset, TableFamily);
        impl fmt::Display for Text<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.0.table(self.1) {
                    Some(table) => write_table(f, self.1, &self.0.comment, table),
                    None => Ok(()),
                }
            }
        }
        Text(self, family).to_string()
    }

    /// One table, if it exists in the kernel.
    pub fn table(&self, family: TableFamily) -> Option<&Table> {
        match family {
            TableFamily::Inet => Some(&self.inet),
            TableFamily::Netdev => (!self.netdev.chains.is_empty()).then_some(&self.netdev),
        }
    }
}

/// nft refuses comments of more than 128 bytes.
const COMMENT_MAX: usize = 120;

/// What may stand between the quotes of a comment. The compiler's comments pass unchanged; the replacement is here so
/// that no text whatever ends the quotes.
pub(crate) fn comment_text(comment: &str) -> String {
    comment
        .chars()
        .take(COMMENT_MAX)
        .map(|c| {
            if (c == ' ' || c.is_ascii_graphic()) && c != '"' {
                c
            } else {
                '_'
            }
        })
        .collect()
}

fn write_table(f: &mut fmt::Formatter<'_>, family: TableFamily, comment: &str, table: &Table) -> fmt::Result {
    writeln!(f, "table {family} {TABLE} {{")?;
    if !comment.is_empty() {
        writeln!(f, "\tcomment \"{}\"", comment_text(comment))?;
    }
    // nft puts a blank line between blocks, none after the comment.
    let mut separator = "";
    for name in table.counters.iter() {
        writeln!(f, "{separator}\tcounter {name} {{\n\t}}")?;
        separator = "\n";
    }
    for (name, set) in &table.sets {
        writeln!(f, "{separator}\tset {name} {{\n{set}\t}}")?;
        separator = "\n";
    }
    let (base, regular): (Vec<_>, Vec<_>) = table.chains.iter().partition(|(_, chain)| chain.base.is_some());
    for (name, chain) in base.into_iter().chain(regular) {
        writeln!(f, "{separator}\tchain {name} {{")?;
        write_chain(f, family, chain)?;
        f.write_str("\t}\n")?;
        separator = "\n";
    }
    f.write_str("}\n")
}

fn write_chain(f: &mut fmt::Formatter<'_>, family: TableFamily, chain: &Chain) -> fmt::Result {
    if let Some(base) = &chain.base {
        writeln!(f, "\t\t{}", base_chain(family, base))?;
    }
    for rule in &chain.rules {
        writeln!(f, "\t\t{rule}")?;
    }
    Ok(())
}

/// `type filter hook prerouting priority mangle - 10; policy accept;`
pub(crate) fn base_chain(family: TableFamily, base: &BaseChain) -> String {
    let priority = priority(family, &base.hook, base.priority);
    format!("type filter hook {} priority {priority}; policy accept;", base.hook)
}

/// The names that nft has for priorities in a hook, and only up to 10 away from them.
fn priority(family: TableFamily, hook: &Hook, priority: i32) -> String {
    let all: &[(&str, i32)] = match family {
        TableFamily::Inet => &[("raw", -300), ("mangle", -150), ("filter", 0), ("security", 50)],
        TableFamily::Netdev => &[("filter", 0)],
    };
    let of_hook: &[(&str, i32)] = match (family, hook) {
        (TableFamily::Inet, Hook::Prerouting) => &[("dstnat", -100)],
        (TableFamily::Inet, Hook::Postrouting) => &[("srcnat", 100)],
        _ => &[],
    };
    let near = all
        .iter()
        .chain(of_hook)
        .find(|(_, base)| priority.abs_diff(*base) <= 10);
    match near {
        Some((name, base)) if priority > *base => format!("{name} + {}", priority.abs_diff(*base)),
        Some((name, base)) if priority < *base => format!("{name} - {}", priority.abs_diff(*base)),
        Some((name, _)) => (*name).to_owned(),
        None => priority.to_string(),
    }
}

/// `prerouting`, `egress device "net1"`
impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prerouting => f.write_str("prerouting"),
            Self::Output => f.write_str("output"),
            Self::Postrouting => f.write_str("postrouting"),
            Self::Egress(device) => write!(f, "egress device \"{device}\""),
        }
    }
}

/// The body of the block: type, flags, elements, each on lines of its own.
impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\t\ttype {}", self.kind)?;
        if self.kind.is_interval() {
            f.write_str("\t\tflags interval\n")?;
        }
        write_elements(f, self.elements.iter(), self.kind.per_line())
    }
}

/// `elements = { … }` wrapped as nft wraps it; nothing for no elements.
pub(crate) fn write_elements<E: fmt::Display>(
    out: &mut impl fmt::Write,
    elements: impl Iterator<Item = E>,
    per_line: usize,
) -> fmt::Result {
    let mut count = 0;
    for element in elements {
        out.write_str(match count {
            0 => "\t\telements = { ",
            // One tab stop and five blanks more: below the first element.
            _ if count % per_line == 0 => ",\n\t\t\t     ",
            _ => ", ",
        })?;
        write!(out, "{element}")?;
        count += 1;
    }
    if count > 0 {
        out.write_str(" }\n")?;
    }
    Ok(())
}

impl SetKind {
    /// Whether it holds ranges, which the kernel keeps in a tree and not in a hash.
    pub fn is_interval(self) -> bool {
        matches!(self, Self::Ranges(_))
    }

    /// Whether an element can be in a set of this kind.
    pub fn fits(self, element: &Element) -> bool {
        match (self, element) {
            (Self::Services(family), Element::Service(address, _, _))
            | (Self::Addresses(family), Element::Address(address)) => Family::of(*address) == family,
            (Self::Ranges(family), Element::Range(range)) => range.family() == family,
            (Self::Ports, Element::Port(_, _)) => true,
            _ => false,
        }
    }

    /// How many elements nft writes on a line: it pairs IPv4 addresses, and gives everything longer a line.
    fn per_line(self) -> usize {
        match self {
            Self::Addresses(Family::V4) | Self::Ranges(Family::V4) => 2,
            _ => 1,
        }
    }
}

/// The type as nft writes it: `ipv4_addr . inet_proto . inet_service`.
impl fmt::Display for SetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Services(Family::V4) => "ipv4_addr . inet_proto . inet_service",
            Self::Services(Family::V6) => "ipv6_addr . inet_proto . inet_service",
            Self::Addresses(Family::V4) | Self::Ranges(Family::V4) => "ipv4_addr",
            Self::Addresses(Family::V6) | Self::Ranges(Family::V6) => "ipv6_addr",
            Self::Ports => "inet_proto . inet_service",
        })
    }
}

/// `10.20.1.11 . tcp . 80`
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(address, protocol, port) => write!(f, "{address} . {} . {port}", protocol.keyword()),
            Self::Address(address) => address.fmt(f),
            Self::Range(range) => range.fmt(f),
            Self::Port(protocol, port) => write!(f, "{} . {port}", protocol.keyword()),
        }
    }
}

/// `tcp dport 80 counter name "net1-in-denied" drop`
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for condition in &self.matches {
            write!(f, "{condition} ")?;
        }
        if let Some(counter) = &self.counter {
            write!(f, "counter name \"{counter}\" ")?;
        }
        self.verdict.fmt(f)
    }
}

/// `accept`, `goto net1-in`
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
        }
    }
}

fn ip(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

fn addr(side: Side) -> &'static str {
    match side {
        Side::Source => "saddr",
        Side::Destination => "daddr",
    }
}

fn port(side: Side) -> &'static str {
    match side {
        Side::Source => "sport",
        Side::Destination => "dport",
    }
}

/// `original`, `reply`
impl fmt::Display for CtDirection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Original => "original",
            Self::Reply => "reply",
        })
    }
}

/// `ip saddr . meta l4proto . th dport`
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Service(family, address, service) => {
                let (ip, addr, port) = (ip(family), addr(address), port(service));
                write!(f, "{ip} {addr} . meta l4proto . th {port}")
            }
            Self::Address(family, side) => write!(f, "{} {}", ip(family), addr(side)),
            Self::Port(side) => write!(f, "meta l4proto . th {}", port(side)),
            Self::CtOriginalSource(family) => write!(f, "ct original {} saddr", ip(family)),
            Self::CtReplySource(family) => write!(f, "ct reply {} saddr", ip(family)),
        }
    }
}

/// The condition as nft writes it, with the names that nft 1.0.6 has for numbers.
impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ArrivesOn(interface) => write!(f, "iifname \"{interface}\""),
            Self::LeavesOn(interface) => write!(f, "oifname \"{interface}\""),
            Self::CtDirection(direction) => write!(f, "ct direction {direction}"),
            Self::CtRelated => f.write_str("ct state related"),
            Self::CtNew => f.write_str("ct state new"),
            Self::TcpNotSyn => f.write_str("tcp flags != syn / fin,syn,rst,ack"),
            Self::Redirect(Family::V4) => f.write_str("icmp type redirect"),
            Self::Redirect(Family::V6) => f.write_str("icmpv6 type nd-redirect"),
            Self::Icmp(Family::V4) => f.write_str("meta l4proto icmp"),
            Self::Icmp(Family::V6) => f.write_str("meta l4proto ipv6-icmp"),
            Self::Nfproto(Family::V4) => f.write_str("meta nfproto ipv4"),
            Self::Nfproto(Family::V6) => f.write_str("meta nfproto ipv6"),
            Self::Ports(side, range) => write_ports(f, *side, *range),
            Self::Address(side, address) => write_address(f, *side, *address),
            Self::InSet(key, set) => write!(f, "{key} @{set}"),
            Self::InNetworks(key, length, set) => {
                f.write_str(&key.to_string())?;
                if let Some(family) = key_family(*key) {
                    write!(f, " & {}", network_mask(family, *length))?;
                }
                write!(f, " == @{set}")
            }
            Self::Neighbour(kind) => {
                f.write_str("icmpv6 type ")?;
                match kind {
                    133 => f.write_str("nd-router-solicit")?,
                    134 => f.write_str("nd-router-advert")?,
                    135 => f.write_str("nd-neighbor-solicit")?,
                    136 => f.write_str("nd-neighbor-advert")?,
                    137 => f.write_str("nd-redirect")?,
                    other => write!(f, "{other}")?,
                }
                // Code 0; nft knows it by its meaning for type 1.
                f.write_str(" icmpv6 code no-route ip6 hoplimit 255")
            }
            Self::ListenerDiscovery(kind) => match kind {
                130 => f.write_str("icmpv6 type mld-listener-query"),
                131 => f.write_str("icmpv6 type mld-listener-report"),
                132 => f.write_str("icmpv6 type mld-listener-done"),
                143 => f.write_str("icmpv6 type mld2-listener-report"),
                other => write!(f, "icmpv6 type {other}"),
            },
            Self::SourceNotLocal => f.write_str("fib saddr type != local"),
            Self::Routed => write!(f, "meta rtclassid != {NO_REALM}"),
            Self::EtherType(number) => match number {
                0x0800 => f.write_str("meta protocol ip"),
                0x0806 => f.write_str("meta protocol arp"),
                0x8100 => f.write_str("meta protocol 8021q"),
                0x86dd => f.write_str("meta protocol ip6"),
                0x88a8 => f.write_str("meta protocol 8021ad"),
                other => write!(f, "meta protocol 0x{other:04x}"),
            },
        }
    }
}

fn write_ports(f: &mut fmt::Formatter<'_>, side: Side, range: PortRange) -> fmt::Result {
    let protocol = range.protocol.keyword();
    if range.is_whole() {
        return write!(f, "meta l4proto {protocol}");
    }
    write!(f, "{protocol} {} {}", port(side), range.first)?;
    if range.first != range.last {
        write!(f, "-{}", range.last)?;
    }
    Ok(())
}

fn write_address(f: &mut fmt::Formatter<'_>, side: Side, address: IpAddr) -> fmt::Result {
    write!(f, "{} {} {address}", ip(Family::of(address)), addr(side))
}
