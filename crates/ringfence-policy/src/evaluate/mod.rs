//! The oracle: what one new connection may do, and why, read straight from the specification.
//!
//! Statement numbers in the comments are those of the specification page `semantics.md`. The compiler turns policies
//! into kernel rules and is written by other hands; where the two disagree, one of them has misread a statement. So
//! nothing here may use the compiler's code or its data structures, and nothing here is fast: every question walks
//! over all pods and all policies.
//!
//! A verdict has two halves. The sender's end judges egress, the receiver's end judges ingress, and neither knows of
//! the other (statements 8, 9). Each end sees only what its interface sees: the other end's *address*. Which pod that
//! address stands for is looked up on the networks of the interface that is being protected (statements 134, 154).
//!
//! Where the statements leave a choice, this is how they are read:
//! * An attachment is isolated as a whole. The primary one is on two networks, packets do not say on which of them they
//!   travel, so a policy for either isolates it (150, 161), and peers count that it meets on either (154).
//! * Of pods that claim one address and started in one second, the one with the greatest UID holds it (134).
//! * Of a namespace whose object is not known, only its name is certain; a selector that asks for more does not match.
//! * An egress rule's named port with an ipBlock matches nothing, whoever holds the address (96).
//! * Router advertisements and redirects are refused where the *egress* of the attachment is isolated, whatever its
//!   rules say (121).
//! * DHCP is judged as if it came from the exchange's other well-known port: source ports are not asked about (123).
//!
//! Reading order: `connection` (the question), `verdict` (the answer), `universe` (the objects), `judge` (one end),
//! `peers` and `ports` (one clause), `reach` (many questions at once), `slice` (which objects one question needs).

mod connection;
mod judge;
mod peers;
mod ports;
mod reach;
mod slice;
mod universe;
mod verdict;

use std::net::IpAddr;

use ringfence_model::{Direction, Pod, PodUid};

pub use connection::{Connection, Endpoint, L4};
pub use reach::{Cell, connections, reach};
pub use slice::{Lookup, Party};
pub use universe::{AttachmentRef, Universe};
pub use verdict::{Allowance, Because, Clause, Decision, DirectionVerdict, NearMiss, Shortfall, Verdict};

/// Judges a new connection at both of its ends. Never panics; an end that names no known pod is judged like an
/// outside address.
pub fn evaluate(universe: &Universe, connection: &Connection) -> Verdict {
    let source = connection.source.address();
    let destination = connection.destination.address();

    // 118: loopback is never filtered.
    if source.is_loopback() || destination.is_loopback() {
        return Verdict::both(&DirectionVerdict::allow(Because::Loopback));
    }

    let sender = End::of(universe, connection, &connection.source);
    let receiver = End::of(universe, connection, &connection.destination);

    // 119, 169: a pod reaches itself, on every interface, and from one of its interfaces to another.
    if is_same_pod(&sender, &receiver, &connection.destination) {
        return Verdict::both(&DirectionVerdict::allow(Because::SamePod));
    }

    // 8, 9: both ends are asked, and neither answer changes the other.
    Verdict {
        egress: sender.judge(universe, Direction::Egress, destination, connection.l4),
        ingress: receiver.judge(universe, Direction::Ingress, source, connection.l4),
    }
}

/// Judges one packet that opens a connection on one interface, as the kernel there sees it: the pod's own attachment
/// (`index` counts in [`Pod::attachments`]), the direction, and the other end's address. Nothing is exempt because it
/// comes from the pod itself: such a packet on the wire is forged (statement 120).
pub fn evaluate_at(
    universe: &Universe,
    uid: &PodUid,
    index: usize,
    direction: Direction,
    other: IpAddr,
    l4: L4,
) -> DirectionVerdict {
    if other.is_loopback() {
        return DirectionVerdict::allow(Because::Loopback);
    }
    End::of_pod(universe, uid, index).judge(universe, direction, other, l4)
}

/// One end of a connection after looking it up.
enum End<'a> {
    /// An address that no pod holds on this network.
    Outside,
    /// A pod that is not known, or an attachment that it does not have.
    Unknown,
    /// An attachment of a pod.
    Pod(AttachmentRef<'a>),
}

impl<'a> End<'a> {
    fn of(universe: &'a Universe, connection: &Connection, endpoint: &Endpoint) -> Self {
        match endpoint {
            Endpoint::Pod { uid, attachment, .. } => Self::of_pod(universe, uid, *attachment),
            Endpoint::Address(address) => match universe.holder(&connection.network, *address) {
                Some(at) => Self::Pod(at),
                None => Self::Outside,
            },
        }
    }

    fn of_pod(universe: &'a Universe, uid: &PodUid, index: usize) -> Self {
        match universe.attachment(uid, index) {
            Some(at) => Self::Pod(at),
            None => Self::Unknown,
        }
    }

    fn pod(&self) -> Option<&'a Pod> {
        match self {
            Self::Pod(at) => Some(at.pod),
            Self::Outside | Self::Unknown => None,
        }
    }

    fn judge(&self, universe: &Universe, direction: Direction, other: IpAddr, l4: L4) -> DirectionVerdict {
        match self {
            Self::Outside => DirectionVerdict::allow(Because::NoPod),
            Self::Unknown => DirectionVerdict::allow(Because::UnknownPod),
            // 21: a hostNetwork pod is never a target.
            Self::Pod(at) if at.pod.host_network => DirectionVerdict::allow(Because::HostNetwork),
            // 132: nor is a pod that has ended.
            Self::Pod(at) if at.pod.terminal => DirectionVerdict::allow(Because::Ended),
            Self::Pod(at) => judge::judge(universe, *at, direction, other, l4),
        }
    }
}

fn is_same_pod(sender: &End<'_>, receiver: &End<'_>, destination: &Endpoint) -> bool {
    let Some(pod) = sender.pod() else { return false };
    if receiver.pod().is_some_and(|other| other.uid == pod.uid) {
        return true;
    }
    // The kernel delivers to a local address of any interface through lo, whatever network was asked about. An
    // explicit other pod as the destination stays what it is: networks may use the same addresses.
    match destination {
        Endpoint::Address(address) => pod.attachments.iter().any(|own| own.addresses.contains(address)),
        Endpoint::Pod { .. } => false,
    }
}
