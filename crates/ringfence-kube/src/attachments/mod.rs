//! A pod's attachments out of its annotations and its status: which interface is on which network, with which
//! addresses.
//!
//! Two dialects write annotations, each in a module of its own: [`genie`] and [`npwg`]. Both give [`Entry`]s; what
//! the primary attachment is, and what happens where annotation and status disagree, is decided here for both.
//!
//! The annotations are ordinary metadata: partial, stale and forged values are everyday input. So addresses and
//! interface names are checked one by one, and in doubt an attachment stays, because to lose one opens an interface
//! or closes the wrong one.

mod genie;
mod npwg;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ringfence_model::{Attachment, Consequence, Family, InterfaceName, NamespacedName, NetworkName, Reason, Severity};

use crate::address::pod_address;
use crate::clause::{At, Fields, Findings, quoted, shown};
use crate::metadata::Metadata;

/// Most entries of one annotation, and most addresses of one entry. Real pods have a handful.
const MOST: usize = 64;

/// What a pod says about its interfaces: its status and the annotations that matter.
pub(crate) struct Given<'a> {
    namespace: &'a str,
    /// `status.podIPs`, the main one first.
    addresses: Vec<IpAddr>,
    cni: Option<&'a str>,
    networks: Option<&'a str>,
    multi_ip: Option<&'a str>,
    request: Option<&'a str>,
    status: Option<&'a str>,
    old_status: Option<&'a str>,
    calico: Option<&'a str>,
}

impl<'a> Given<'a> {
    /// Picks the annotations; those that are too large or no texts are reported and count as absent.
    pub(crate) fn read(
        namespace: &'a str,
        metadata: &Metadata<'a>,
        addresses: Vec<IpAddr>,
        findings: &mut Findings,
    ) -> Self {
        let mut annotation = |key| metadata.annotation(key, findings);
        Self {
            namespace,
            addresses,
            cni: annotation(genie::CNI),
            networks: annotation(genie::NETWORKS),
            multi_ip: annotation(genie::RESULT),
            request: annotation(npwg::REQUEST),
            status: annotation(npwg::STATUS),
            old_status: annotation(npwg::OLD_STATUS),
            calico: annotation(CALICO),
        }
    }
}

/// Calico empties it when it releases the pod's address, and nothing else tells that.
const CALICO: &str = "cni.projectcalico.org/podIP";

/// One interface as a dialect describes it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Entry {
    interface: Option<InterfaceName>,
    network: Network,
    /// It is of the cluster network: `default: true` of network-status, or the only one that was requested.
    flagged: bool,
    addresses: BTreeSet<IpAddr>,
}

/// The network of an entry, as far as its dialect knows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
enum Network {
    /// Nobody has named it.
    #[default]
    Unknown,
    /// By its full name.
    Is(NetworkName),
    /// A name without namespace in network-status: the CNI configuration's on the default entry, a definition of the
    /// pod's namespace elsewhere (statement 159).
    Bare(Arc<str>),
}

/// The attachments in the order of their interfaces, those without a name last. There is exactly one primary.
pub(crate) fn attachments(given: &Given<'_>, findings: &mut Findings) -> Vec<Attachment> {
    let mut entries = entries(given, findings);
    let primary = primary(&mut entries, given);
    name_primary(&mut entries, primary);
    if let Some(primary) = entries.get_mut(primary) {
        settle_addresses(primary, given, findings);
    }
    let taken: BTreeSet<IpAddr> = others(&entries, primary)
        .flat_map(|entry| entry.addresses.iter().copied())
        .collect();
    let mut attachments: Vec<Attachment> = Vec::with_capacity(entries.len());
    for (position, mut entry) in entries.into_iter().enumerate() {
        let is_primary = position == primary;
        if is_primary {
            entry
                .addresses
                .extend(given.addresses.iter().filter(|address| !taken.contains(address)));
        }
        add(entry, is_primary, given.namespace, &mut attachments, findings);
    }
    report_shared_addresses(&attachments, findings);
    // `None` sorts before `Some`, and belongs behind it.
    attachments.sort_by(|a, b| (a.interface.is_none(), &a.interface).cmp(&(b.interface.is_none(), &b.interface)));
    attachments
}

/// Chooses the dialect. The request decides as it does in the plugins: the key of the network plumbing group, then
/// `cni`; without a request, the result that agrees with the pod's address.
fn entries(given: &Given<'_>, findings: &mut Findings) -> Vec<Entry> {
    let is_set = |text: Option<&str>| text.is_some_and(|text| !text.trim().is_empty());
    if is_set(given.request) {
        if is_set(given.multi_ip) {
            stale(
                genie::RESULT,
                "the pod's networks are requested by another annotation",
                findings,
            );
        }
        return npwg::entries(given, findings);
    }
    let genie_request = genie::requested(given, findings);
    let described = genie::described(given, findings);
    let has_status = is_set(given.status) || is_set(given.old_status);
    let genie_decides = match (described.is_empty(), has_status) {
        (_, false) => true,
        (true, true) => false,
        (false, true) if genie_request.is_some() => true,
        (false, true) => {
            let carries = |entries: &[Entry]| entries.iter().any(|entry| carries(entry, &given.addresses));
            carries(&described) && !carries(&npwg::entries(given, &mut Findings::new(findings.source().clone())))
        }
    };
    if genie_decides {
        if has_status {
            stale(npwg::STATUS, "the pod's networks come from CNI-Genie", findings);
        }
        return genie::join(described, genie_request.unwrap_or_default());
    }
    if !described.is_empty() {
        stale(genie::RESULT, "network-status describes the pod's networks", findings);
    }
    npwg::entries(given, findings)
}

fn stale(key: &str, why: &str, findings: &mut Findings) {
    let root = At::root("metadata");
    let at = root.field("annotations");
    let message = format!("left over, it is not used: {why}");
    findings.warn(&at.key(key), Reason::StaleAnnotation, Consequence::PartIgnored, message);
}

fn carries(entry: &Entry, addresses: &[IpAddr]) -> bool {
    addresses.iter().any(|address| entry.addresses.contains(address))
}

fn is_eth0(entry: &Entry) -> bool {
    entry.interface.as_ref().is_some_and(|name| name.as_str() == "eth0")
}

fn others(entries: &[Entry], except: usize) -> impl Iterator<Item = &Entry> {
    entries
        .iter()
        .enumerate()
        .filter(move |(position, _)| *position != except)
        .map(|(_, entry)| entry)
}

/// The position of the primary entry: the one with the pod's address, else the flagged one, else `eth0`, else a new
/// one (some plugins leave no entry for the cluster network at all).
fn primary(entries: &mut Vec<Entry>, given: &Given<'_>) -> usize {
    let best = |eligible: &dyn Fn(&Entry) -> bool| {
        entries
            .iter()
            .enumerate()
            .filter(|(_, entry)| eligible(entry))
            .min_by_key(|(position, entry)| (!entry.flagged, !is_eth0(entry), *position))
            .map(|(position, _)| position)
    };
    let main = given.addresses.get(..1).unwrap_or_default();
    let found = best(&|entry| carries(entry, main))
        .or_else(|| best(&|entry| carries(entry, &given.addresses)))
        .or_else(|| best(&|entry| entry.flagged))
        .or_else(|| best(&is_eth0));
    found.unwrap_or_else(|| {
        entries.push(Entry::default());
        entries.len() - 1
    })
}

/// Plugins that report only the host's end leave the primary entry without an interface; in the pod it is eth0.
fn name_primary(entries: &mut [Entry], primary: usize) {
    let taken = others(entries, primary).any(is_eth0);
    if let Some(entry) = entries.get_mut(primary)
        && entry.interface.is_none()
        && !taken
    {
        entry.interface = InterfaceName::new("eth0").ok();
    }
}

/// The status is right about the primary attachment: addresses of a family in which it has none of the pod's go.
fn settle_addresses(primary: &mut Entry, given: &Given<'_>, findings: &mut Findings) {
    if primary.addresses.is_empty() {
        return;
    }
    let root = At::root("metadata");
    let at = root.field("annotations");
    let shown = |addresses: &mut dyn Iterator<Item = &IpAddr>| {
        addresses
            .take(4)
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    };
    if given.addresses.is_empty() {
        if given.calico.is_some_and(|text| text.trim().is_empty()) {
            let message = format!(
                "{} is no longer the pod's: {CALICO} is empty and the status has no address",
                shown(&mut primary.addresses.iter())
            );
            primary.addresses.clear();
            findings.warn(&at, Reason::StaleAnnotation, Consequence::PartIgnored, message);
        }
        return;
    }
    for family in Family::BOTH {
        let ours = |address: &&IpAddr| Family::of(**address) == family;
        let of_status: Vec<&IpAddr> = given.addresses.iter().filter(ours).collect();
        let of_entry: Vec<IpAddr> = primary.addresses.iter().filter(ours).copied().collect();
        if of_status.is_empty() || of_entry.is_empty() || of_entry.iter().any(|it| of_status.contains(&it)) {
            continue;
        }
        let message = format!(
            "the annotation gives the primary interface {}, the status {}; the status counts (a new sandbox may be \
             on its way)",
            shown(&mut of_entry.iter()),
            shown(&mut of_status.into_iter())
        );
        primary.addresses.retain(|address| Family::of(*address) != family);
        findings.warn(&at, Reason::StaleAnnotation, Consequence::PartIgnored, message);
    }
}

/// Turns an entry into an attachment, or adds it to the one that has its interface already.
fn add(entry: Entry, primary: bool, namespace: &str, attachments: &mut Vec<Attachment>, findings: &mut Findings) {
    let mut networks = BTreeSet::new();
    match entry.network {
        Network::Is(name) => {
            networks.insert(name);
        }
        Network::Bare(name) if primary || entry.flagged => {
            networks.insert(NetworkName::Plugin(name));
        }
        Network::Bare(name) => {
            networks.insert(NetworkName::Namespaced(NamespacedName::new(namespace, name)));
        }
        Network::Unknown if primary => {}
        Network::Unknown => networks.extend(entry.interface.clone().map(NetworkName::Interface)),
    }
    if primary {
        networks.insert(NetworkName::Default);
    }
    if networks.is_empty() {
        // Neither a network nor an interface: the dialect has reported it.
        return;
    }
    let same = |other: &&mut Attachment| entry.interface.is_some() && other.interface == entry.interface;
    if let Some(existing) = attachments.iter_mut().find(same) {
        let message = format!(
            "two entries describe the interface {}; it has the addresses and networks of both",
            entry.interface.as_ref().map_or("", InterfaceName::as_str)
        );
        findings.whole(Severity::Warning, Reason::InvalidAnnotation, Consequence::None, message);
        existing.networks.extend(networks);
        existing.addresses.extend(entry.addresses);
        existing.primary |= primary;
        return;
    }
    attachments.push(Attachment {
        interface: entry.interface,
        networks,
        primary,
        addresses: entry.addresses,
    });
}

/// One address on two interfaces is legal where they are on two networks, and a mistake on one.
fn report_shared_addresses(attachments: &[Attachment], findings: &mut Findings) {
    for (position, one) in attachments.iter().enumerate() {
        for other in &attachments[position + 1..] {
            let shared = one.addresses.intersection(&other.addresses).next();
            if let Some(address) = shared
                && !one.networks.is_disjoint(&other.networks)
            {
                let message = format!("two interfaces of the pod have {address} on one network");
                findings.whole(Severity::Warning, Reason::InvalidAnnotation, Consequence::None, message);
            }
        }
    }
}

/// A part of a network's name: what Kubernetes calls its objects and what CNI configuration files are called.
pub(crate) fn valid_network(text: &str) -> Result<&str, String> {
    let bytes = text.as_bytes();
    if text.is_empty() {
        Err("a part of the name is empty".to_owned())
    } else if text.len() > 253 {
        Err("a part of the name is longer than 253 characters".to_owned())
    } else if text.contains('/') {
        Err("it has more than one slash".to_owned())
    } else if !bytes[0].is_ascii_alphanumeric()
        || !bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
    {
        Err("a name has letters, digits, '-', '_' and '.', and begins with a letter or digit".to_owned())
    } else {
        Ok(text)
    }
}

/// An interface name out of an annotation; a bad one is reported.
fn interface(text: &str, at: &At<'_>, findings: &mut Findings) -> Option<InterfaceName> {
    match InterfaceName::new(text.trim()) {
        Ok(name) => Some(name),
        Err(error) => {
            findings.error(
                at,
                Reason::InvalidInterface,
                Consequence::PartIgnored,
                error.to_string(),
            );
            None
        }
    }
}

/// An address out of an annotation; a bad one is reported.
fn address(text: &str, at: &At<'_>, findings: &mut Findings) -> Option<IpAddr> {
    match pod_address(text) {
        Ok(address) => Some(address),
        Err(why) => {
            let message = format!("{}: {why}", quoted(text));
            findings.error(at, Reason::InvalidAddress, Consequence::PartIgnored, message);
            None
        }
    }
}

/// A field as Go's decoder finds it: by its name in any case, the last one winning; null counts as absent.
fn any_case<'a>(fields: &'a Fields, name: &str) -> Option<&'a serde_json::Value> {
    fields
        .iter()
        .rev()
        .find(|(key, value)| key.eq_ignore_ascii_case(name) && !value.is_null())
        .map(|(_, value)| value)
}

/// A field that is to be a text, without blanks around it: empty where it is absent or where it is none, which is
/// reported.
fn text_field<'a>(fields: &'a Fields, name: &str, at: &At<'_>, findings: &mut Findings) -> &'a str {
    match any_case(fields, name) {
        None => "",
        Some(serde_json::Value::String(text)) => text.trim(),
        Some(other) => {
            let message = format!("{} instead of a text", shown(other));
            findings.error(
                &at.field(name),
                Reason::InvalidAnnotation,
                Consequence::PartIgnored,
                message,
            );
            ""
        }
    }
}

/// Reports entries beyond the limit.
fn too_many(count: usize, at: &At<'_>, findings: &mut Findings) {
    if count > MOST {
        let message = format!("{count} entries; the first {MOST} are used");
        findings.error(at, Reason::TooLarge, Consequence::PartIgnored, message);
    }
}

#[cfg(test)]
mod examples;
#[cfg(test)]
mod npwg_tests;
#[cfg(test)]
mod tests;
