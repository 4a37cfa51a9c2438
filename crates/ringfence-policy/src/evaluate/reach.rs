//! Who reaches whom: one question per ordered pair of attachments that share a network.

use std::net::IpAddr;

use ringfence_model::{Family, NetworkName};

use super::{AttachmentRef, Connection, Endpoint, L4, Universe, Verdict, evaluate};

/// One ordered pair of attachments on a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell<'a> {
    /// The sender.
    pub from: AttachmentRef<'a>,
    /// The receiver.
    pub to: AttachmentRef<'a>,
    /// The addresses that were judged.
    pub connection: Connection,
    /// The answer.
    pub verdict: Verdict,
}

/// The connections that can be opened between two attachments on a network: one per address family that both have,
/// IPv4 first, with each side's lowest address. Empty where they do not meet there or have no family in common.
pub fn connections(network: &NetworkName, from: AttachmentRef<'_>, to: AttachmentRef<'_>, l4: L4) -> Vec<Connection> {
    let mut out = Vec::new();
    if !from.meet(&to).contains(network) {
        return out;
    }
    for family in Family::BOTH {
        if let (Some(source), Some(destination)) = (first_of(from, family), first_of(to, family)) {
            out.push(Connection {
                network: network.clone(),
                source: endpoint(from, source),
                destination: endpoint(to, destination),
                l4,
            });
        }
    }
    out
}

/// A cell for each ordered pair of attachments on the network, also of an attachment with itself, in the order of
/// [`Universe::attachments_on`], sender by sender. A pair without an address family in common has none.
pub fn reach<'a>(universe: &'a Universe, network: &NetworkName, l4: L4) -> Vec<Cell<'a>> {
    let attachments = universe.attachments_on(network);
    let mut out = Vec::new();
    for from in &attachments {
        for to in &attachments {
            if let Some(connection) = connections(network, *from, *to, l4).into_iter().next() {
                out.push(Cell {
                    from: *from,
                    to: *to,
                    verdict: evaluate(universe, &connection),
                    connection,
                });
            }
        }
    }
    out
}

fn first_of(at: AttachmentRef<'_>, family: Family) -> Option<IpAddr> {
    at.attachment
        .addresses
        .iter()
        .copied()
        .find(|address| Family::of(*address) == family)
}

fn endpoint(at: AttachmentRef<'_>, address: IpAddr) -> Endpoint {
    Endpoint::Pod {
        uid: at.pod.uid.clone(),
        attachment: at.index,
        address,
    }
}
