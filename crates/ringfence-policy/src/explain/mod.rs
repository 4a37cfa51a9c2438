//! People's questions to the oracle: two ends by name or address, a protocol, perhaps a network.
//!
//! [`explain`] finds out on which networks and interfaces the two ends meet, asks [`evaluate()`](crate::evaluate) about
//! each such pair, and adds what people have to know to believe the answer. It looks at every pod of the universe, so
//! give it a slice ([`Universe::slice`], [`crate::Index::slice`]) and not a cluster.

mod advice;
mod question;
mod refusal;

use std::collections::BTreeSet;
use std::net::IpAddr;

use ringfence_model::{Family, InterfaceName, NamespacedName, NetworkName, Pod, PodUid};

pub use self::advice::{advice, best_first};
pub use self::question::{NetworkArg, Question, What};
pub use self::refusal::Refusal;
use crate::evaluate::{AttachmentRef, Connection, Decision, Endpoint, L4, Party, Universe, Verdict, evaluate};

/// What [`explain`] has found: never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// One for each pair of interfaces on which the ends meet, by network.
    pub judgements: Vec<Judgement>,
    /// What could not be judged, and why.
    pub notes: Vec<String>,
}

impl Answer {
    /// Allow only where every judgement is.
    pub fn decision(&self) -> Decision {
        self.deciding().map_or(Decision::Deny, |it| it.verdict.decision())
    }

    /// The judgement that makes the whole a deny, else the first.
    pub fn deciding(&self) -> Option<&Judgement> {
        let denied = self
            .judgements
            .iter()
            .find(|it| it.verdict.decision() == Decision::Deny);
        denied.or(self.judgements.first())
    }
}

/// One connection and its verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// Where the ends meet.
    pub network: NetworkName,
    /// What was asked.
    pub what: What,
    /// The same for the address family that was judged.
    pub l4: L4,
    /// Who opens it.
    pub from: Side,
    /// To whom.
    pub to: Side,
    /// The answer.
    pub verdict: Verdict,
    /// What one has to know beside it.
    pub notes: Vec<String>,
}

/// One end as it was judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Side {
    /// `None` for an address that no pod has on the network.
    pub pod: Option<NamespacedName>,
    /// `None` for such an address, or where the pod's annotation gives no name.
    pub interface: Option<InterfaceName>,
    /// The address that was judged.
    pub address: IpAddr,
}

/// Judges what was asked, on every network that comes into question. See `docs/explain.md` for which these are.
pub fn explain(universe: &Universe, question: &Question) -> Result<Answer, Refusal> {
    let from = End::find(universe, &question.from)?;
    let to = End::find(universe, &question.to)?;
    let networks = candidates(question, &from, &to)?;
    let mut pairs: Vec<(NetworkName, Spot<'_>, Spot<'_>)> = Vec::new();
    for network in &networks {
        for source in from.spots(universe, network) {
            for destination in to.spots(universe, network) {
                // Two addresses outside: nobody there judges anything. The primary interface is on two networks and
                // judged once, under the name that comes first, which is `default`.
                let twice = pairs
                    .iter()
                    .any(|(_, a, b)| a.is_same(&source) && b.is_same(&destination));
                if (source.at.is_some() || destination.at.is_some()) && !twice {
                    pairs.push((network.clone(), source, destination));
                }
            }
        }
    }
    if pairs.is_empty() {
        return Err(from.apart(&to, question));
    }
    let mut answer = Answer {
        judgements: Vec::new(),
        notes: Vec::new(),
    };
    for (network, source, destination) in &pairs {
        match judge(universe, question, network, (&from, source), (&to, destination)) {
            Ok(judgement) => answer.judgements.push(judgement),
            Err(why) => answer.notes.push(why),
        }
    }
    if answer.judgements.is_empty() {
        return Err(Refusal::NoAddress(answer.notes));
    }
    Ok(answer)
}

/// An end after looking it up.
enum End<'a> {
    Pod(&'a Pod),
    /// With the networks on which a pod has it.
    Address(IpAddr, BTreeSet<NetworkName>),
}

/// An end on one network.
#[derive(Clone, Copy)]
struct Spot<'a> {
    /// `None` for an address that no pod has there.
    at: Option<AttachmentRef<'a>>,
    /// Where it was asked about; else the interface's lowest counts.
    address: Option<IpAddr>,
}

impl<'a> End<'a> {
    fn find(universe: &'a Universe, party: &Party) -> Result<Self, Refusal> {
        match party {
            Party::Pod(name) => {
                // A pod and its successor may share a name for a moment.
                let of_that_name = universe.pods.values().filter(|pod| pod.name == *name);
                let pod = of_that_name.max_by_key(|pod| (pod.takes_part(), pod.started, &pod.uid));
                match pod {
                    None => Err(Refusal::UnknownPod(name.clone())),
                    Some(pod) if pod.host_network => Err(Refusal::HostNetwork {
                        pod: name.clone(),
                        addresses: pod.host_addresses.clone(),
                    }),
                    Some(pod) => Ok(Self::Pod(pod)),
                }
            }
            Party::Address(address) => {
                let mut networks = BTreeSet::new();
                for pod in universe.pods.values().filter(|pod| pod.takes_part()) {
                    for attachment in pod.attachments.iter().filter(|it| it.addresses.contains(address)) {
                        networks.extend(attachment.networks.iter().cloned());
                    }
                }
                Ok(Self::Address(*address, networks))
            }
        }
    }

    /// Where it is known to be.
    fn networks(&self) -> BTreeSet<NetworkName> {
        match self {
            Self::Pod(pod) => pod
                .attachments
                .iter()
                .flat_map(|it| it.networks.iter().cloned())
                .collect(),
            Self::Address(_, networks) => networks.clone(),
        }
    }

    fn spots(&self, universe: &'a Universe, network: &NetworkName) -> Vec<Spot<'a>> {
        match self {
            Self::Pod(pod) => {
                let attachments = pod.attachments.iter().enumerate();
                let there = attachments.filter(|(_, attachment)| attachment.networks.contains(network));
                there
                    .map(|(index, attachment)| Spot {
                        at: Some(AttachmentRef { pod, index, attachment }),
                        address: None,
                    })
                    .collect()
            }
            Self::Address(address, _) => vec![Spot {
                at: universe.holder(network, *address),
                address: Some(*address),
            }],
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Pod(pod) => pod.name.to_string(),
            Self::Address(address, _) => address.to_string(),
        }
    }

    fn apart(&self, other: &Self, question: &Question) -> Refusal {
        match (self, other) {
            (Self::Address(..), Self::Address(..)) => Refusal::NoPod {
                network: question.network.as_ref().map(ToString::to_string),
            },
            _ => Refusal::Apart {
                from: (self.name(), self.networks()),
                to: (other.name(), other.networks()),
                wanted: question.network.as_ref().map(ToString::to_string),
            },
        }
    }
}

impl Spot<'_> {
    fn is_same(&self, other: &Self) -> bool {
        let key = |spot: &Self| -> Option<(PodUid, usize)> { spot.at.map(|at| (at.pod.uid.clone(), at.index)) };
        key(self) == key(other)
    }

    /// The address of a family that is judged, and how many there are to choose from.
    fn address(&self, family: Family) -> Option<(IpAddr, usize)> {
        if let Some(address) = self.address {
            return (Family::of(address) == family).then_some((address, 1));
        }
        let own = self.at.into_iter().flat_map(|at| &at.attachment.addresses);
        let mut fitting = own.copied().filter(|address| Family::of(*address) == family);
        let first = fitting.next()?;
        Some((first, 1 + fitting.count()))
    }
}

/// The networks to look at, in the order of their names.
fn candidates(question: &Question, from: &End<'_>, to: &End<'_>) -> Result<Vec<NetworkName>, Refusal> {
    let (ours, theirs) = (from.networks(), to.networks());
    if let Some(wanted) = &question.network {
        // As a policy of the destination's namespace would read it, or one of the source's.
        let namespaces = [to, from].into_iter().filter_map(|end| match end {
            End::Pod(pod) => Some(&pod.name.namespace),
            End::Address(..) => None,
        });
        let known: BTreeSet<NetworkName> = ours.union(&theirs).cloned().collect();
        let names = wanted.names(namespaces, &known);
        // What neither end is on is a misspelt name and no network of outside addresses.
        if names.iter().all(|name| !known.contains(name)) {
            return Err(from.apart(to, question));
        }
        return Ok(names);
    }
    let common: Vec<NetworkName> = ours.intersection(&theirs).cloned().collect();
    Ok(match (from, to) {
        _ if !common.is_empty() => common,
        (End::Pod(_), End::Pod(_)) => Vec::new(),
        // An address that no pod has where the other end is: to that end it is one from outside.
        (End::Pod(_), End::Address(..)) => ours.into_iter().collect(),
        (End::Address(..), End::Pod(_)) => theirs.into_iter().collect(),
        (End::Address(..), End::Address(..)) => ours.union(&theirs).cloned().collect(),
    })
}

fn judge(
    universe: &Universe,
    question: &Question,
    network: &NetworkName,
    (from, source): (&End<'_>, &Spot<'_>),
    (to, destination): (&End<'_>, &Spot<'_>),
) -> Result<Judgement, String> {
    let judgeable = |family: Family| {
        let l4 = question.what.l4(family)?;
        Some((l4, source.address(family)?, destination.address(family)?))
    };
    let wanted = |family: &Family| question.family.is_none_or(|it| it == *family);
    let mut found = Family::BOTH.into_iter().filter(wanted).filter_map(judgeable);
    let Some((l4, (ours, our_choice), (theirs, their_choice))) = found.next() else {
        return Err(no_address(question, network, (from, source), (to, destination)));
    };
    let connection = Connection {
        network: network.clone(),
        source: endpoint(from, source, ours),
        destination: endpoint(to, destination, theirs),
        l4,
    };
    let mut notes = Vec::new();
    for (spot, address, choice) in [(source, ours, our_choice), (destination, theirs, their_choice)] {
        notes.extend(about(universe, network, spot, address, choice));
    }
    if found.next().is_some() {
        notes.push("both ends have IPv6 addresses there too; ask for IP family 6 to judge those".to_owned());
    }
    Ok(Judgement {
        network: network.clone(),
        what: question.what,
        l4,
        from: side(source, ours),
        to: side(destination, theirs),
        verdict: evaluate(universe, &connection),
        notes,
    })
}

fn endpoint(end: &End<'_>, spot: &Spot<'_>, address: IpAddr) -> Endpoint {
    match (end, spot.at) {
        (End::Pod(pod), Some(at)) => Endpoint::Pod {
            uid: pod.uid.clone(),
            attachment: at.index,
            address,
        },
        _ => Endpoint::Address(address),
    }
}

fn side(spot: &Spot<'_>, address: IpAddr) -> Side {
    Side {
        pod: spot.at.map(|at| at.pod.name.clone()),
        interface: spot.at.and_then(|at| at.attachment.interface.clone()),
        address,
    }
}

/// What is special about an end.
fn about(universe: &Universe, network: &NetworkName, spot: &Spot<'_>, address: IpAddr, choice: usize) -> Vec<String> {
    let mut notes = Vec::new();
    match spot.at {
        None if address.is_loopback() => {}
        None => {
            notes.push(format!(
                "no pod has {address} on network {network}: it is judged as an outside address"
            ));
            for pod in universe.pods.values() {
                for other in pod.attachments.iter().filter(|it| it.addresses.contains(&address)) {
                    if pod.takes_part()
                        && let Some(elsewhere) = other.network()
                    {
                        notes.push(format!(
                            "{address} is the address of pod {} on network {elsewhere}",
                            pod.name
                        ));
                    }
                }
            }
        }
        Some(at) => {
            let name = &at.pod.name;
            if choice > 1 {
                notes.push(format!(
                    "{name} has {choice} such addresses on network {network} and {address} is the lowest; give another \
                     one as the end to ask about it"
                ));
            }
            let holder = universe.holder(network, address);
            if let Some(holder) = holder.filter(|holder| holder.pod.uid != at.pod.uid && at.pod.takes_part()) {
                notes.push(format!(
                    "{address} on network {network} belongs to pod {}, which is newer than {name}: the other end sees \
                     that pod",
                    holder.pod.name
                ));
            }
            if at.attachment.interface.is_none() {
                notes.push(format!(
                    "the interface of {name} on network {network} has no known name, so nothing can be protected there"
                ));
            }
        }
    }
    notes
}

fn no_address(
    question: &Question,
    network: &NetworkName,
    (from, source): (&End<'_>, &Spot<'_>),
    (to, destination): (&End<'_>, &Spot<'_>),
) -> String {
    let has = |spot: &Spot<'_>| {
        let families: Vec<&str> = Family::BOTH
            .into_iter()
            .filter(|family| spot.address(*family).is_some())
            .map(|family| match family {
                Family::V4 => "IPv4",
                Family::V6 => "IPv6",
            })
            .collect();
        if families.is_empty() {
            "no address".to_owned()
        } else {
            families.join(" and ")
        }
    };
    let asked = match (question.what, question.family) {
        (What::Icmpv6 { .. }, _) => "; ICMPv6 was asked about, which needs IPv6 at both ends",
        (_, Some(Family::V4)) => "; IPv4 was asked about",
        (_, Some(Family::V6)) => "; IPv6 was asked about",
        (_, None) => "",
    };
    format!(
        "there is nothing to judge on network {network}: {} has {} there, and {} has {}{asked}",
        from.name(),
        has(source),
        to.name(),
        has(destination)
    )
}
