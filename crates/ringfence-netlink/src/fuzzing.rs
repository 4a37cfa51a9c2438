//! A door for `ringfence-fuzz`: the readers of netlink answers, and a whole ruleset through the wire form and back,
//! without a kernel. No part of the crate's interface.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use ringfence_ruleset::{Chain, Name, Ruleset, Set, SetKind, Table, TableFamily, replacement};

use crate::compare::{difference, settle};
use crate::connections::planned;
use crate::diag::{self, Transport};
use crate::elements::{Collector, KINDS};
use crate::encode::{Batch, TABLE, Terms, nfproto};
use crate::link::verdict;
use crate::read::{Stop, parse_chain, parse_counter, parse_elements, parse_head, parse_rule, parse_set};
use crate::rule::{lift, lower};
use crate::uapi::{attribute as a, message as m};
use crate::wire::{Attributes, HEADER, Message, Messages, Writer, nftables, text};

/// What the readers made of one datagram.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// Number of well-formed messages.
    pub messages: usize,
    /// Whether a malformed message ended the reading.
    pub malformed: bool,
    /// Bytes of all payloads, and of the attributes in them where they are read as such.
    pub payload: usize,
    /// Number of questions that a reader answered with something.
    pub understood: usize,
    /// Words of the kernel and of the readers that would be shown or logged.
    pub words: Vec<String>,
    /// The sockets that were read: local and remote end.
    pub sockets: Vec<(SocketAddr, SocketAddr)>,
}

impl Answer {
    fn note<T>(&mut self, result: Result<Option<T>, Stop>) -> Option<T> {
        match result {
            Ok(Some(value)) => {
                self.understood += 1;
                return Some(value);
            }
            Ok(None) | Err(Stop::Malformed) => {}
            Err(Stop::Foreign(words)) => self.words.push(words),
            Err(Stop::Error(error)) => self.words.push(error.to_string()),
        }
        None
    }
}

/// Gives every message of a datagram to every reader that there is, whatever its kind says.
///
/// # Panics
///
/// Where a reader contradicts itself: a message or payload that is no part of the datagram, a rule that was read and
/// then cannot be written and read again.
pub fn datagram(bytes: &[u8]) -> Answer {
    let mut answer = Answer::default();
    let mut sockets = Vec::new();
    for message in Messages(bytes) {
        let Ok(message) = message else {
            answer.malformed = true;
            break;
        };
        answer.messages += 1;
        answer.payload += message.payload.len() + HEADER;
        assert!(within(bytes, message.payload), "a payload outside of the datagram");
        if let Ok(attributes) = message.attributes() {
            for (_, value) in attributes.flatten() {
                assert!(within(message.payload, value), "a value outside of its message");
                let inner: usize = Attributes(value).flatten().map(|(_, inner)| inner.len()).sum();
                assert!(inner <= value.len(), "more inside of an attribute than it holds");
            }
        }
        if let Ok((_, Some(words))) = verdict(&message) {
            answer.words.push(words);
        }
        answer.note(parse_counter(&message));
        answer.note(parse_set(&message));
        for kind in KINDS {
            let mut found = Collector::new(kind);
            match parse_elements(&message, &mut found) {
                Ok(()) => match found.finish() {
                    Ok(elements) => {
                        assert!(elements.iter().all(|it| kind.fits(it)), "{kind}: {elements:?}");
                        answer.understood += elements.len();
                    }
                    Err(words) => answer.words.push(words),
                },
                Err(stop) => {
                    answer.note::<()>(Err(stop));
                }
            }
        }
        for family in TableFamily::BOTH {
            answer.note(parse_head(family, &message).map(Some));
            answer.note(parse_chain(family, &message));
            if let Some((_, expressions)) = answer.note(parse_rule(&message)) {
                match lift(family, &expressions) {
                    Ok(rule) => {
                        answer.understood += 1;
                        // Reading is the inverse of writing, whatever spelling the bytecode had.
                        let lowered = lower(family, &rule);
                        let again = lift(family, &lowered).expect("what was read can be read again");
                        assert_eq!(lower(family, &again), lowered, "{rule}");
                    }
                    Err(words) => answer.words.push(words),
                }
            }
        }
        for transport in Transport::ALL {
            if let Ok(Some(socket)) = diag::parse(transport, &message) {
                answer.sockets.push((socket.local, socket.remote));
                sockets.push(socket);
            }
        }
    }
    let (entries, inbound) = planned(&sockets);
    assert!(
        inbound <= entries && entries <= sockets.len(),
        "one entry for each connection"
    );
    answer
}

/// Whether `part` lies in the memory of `whole`.
fn within(whole: &[u8], part: &[u8]) -> bool {
    let (whole, part) = (whole.as_ptr_range(), part.as_ptr_range());
    part.is_empty() || (whole.start <= part.start && part.end <= whole.end)
}

/// The batch that makes a ruleset, read back as if the kernel had listed it: the first difference between the two in
/// words, `Ok` where there is none. What the kernel adds to a listing (handles, numbers of uses) is not looked at.
pub fn round_trip(ruleset: &Ruleset) -> Result<(), String> {
    let mut batch = Batch::default();
    let terms = Terms {
        table: TABLE,
        sequence: 1,
        generation: None,
        flags: 0,
    };
    batch
        .encode(&replacement(Some(ruleset)), &terms)
        .map_err(|error| error.to_string())?;
    let bytes = batch.bytes().map_err(|error| error.to_string())?;
    let mut read = assemble(bytes).map_err(|stop| format!("{stop:?}"))?;
    settle(&mut read, ruleset);
    match difference(Some(&read), Some(ruleset)) {
        None => Ok(()),
        Some(drift) => Err(drift.to_string()),
    }
}

/// A table that is being listed.
#[derive(Default)]
struct Listing {
    comment: Arc<str>,
    counters: BTreeSet<Name>,
    sets: BTreeMap<Name, (SetKind, Collector)>,
    chains: BTreeMap<Name, Chain>,
}

fn assemble(bytes: &[u8]) -> Result<Ruleset, Stop> {
    let mut tables: BTreeMap<TableFamily, Listing> = BTreeMap::new();
    for message in Messages(bytes) {
        let message = message?;
        let family = TableFamily::BOTH
            .into_iter()
            .find(|family| message.payload.first() == Some(&nfproto(*family)));
        let Some(family) = family else { continue };
        let table = tables.entry(family).or_default();
        if message.kind == nftables(m::NEWTABLE) {
            // A replacement adds, deletes and adds again; only the last table of the name is there in the end.
            let head = parse_head(family, &message)?;
            *table = Listing {
                comment: head.comment.unwrap_or_default().into(),
                ..Listing::default()
            };
        } else if message.kind == nftables(m::NEWOBJ) {
            table.counters.extend(parse_counter(&message)?.map(|(name, _)| name));
        } else if message.kind == nftables(m::NEWSET) {
            let set = parse_set(&message)?;
            table
                .sets
                .extend(set.map(|(name, kind)| (name, (kind, Collector::new(kind)))));
        } else if message.kind == nftables(m::NEWSETELEM) {
            let set = named(&message)?;
            let (_, found) = table
                .sets
                .get_mut(&set)
                .ok_or_else(|| Stop::Foreign(format!("elements of no set: {set}")))?;
            parse_elements(&message, found)?;
        } else if message.kind == nftables(m::NEWCHAIN) {
            let listed = as_listed(&message)?;
            let message = Messages(&listed).next().ok_or(Stop::Malformed)??;
            let chain = parse_chain(family, &message)?;
            table.chains.extend(chain.map(|(name, base)| {
                let rules = Vec::new();
                (name, Chain { base, rules })
            }));
        } else if message.kind == nftables(m::NEWRULE)
            && let Some((chain, expressions)) = parse_rule(&message)?
        {
            let rule = lift(family, &expressions).map_err(Stop::Foreign)?;
            table
                .chains
                .get_mut(&chain)
                .ok_or_else(|| Stop::Foreign(format!("a rule of no chain: {chain}")))?
                .rules
                .push(rule);
        }
    }
    let comment = tables
        .get(&TableFamily::Inet)
        .map(|table| table.comment.clone())
        .unwrap_or_default();
    let mut finish = |family| -> Result<Table, Stop> {
        let listing = tables.remove(&family).unwrap_or_default();
        let mut sets = BTreeMap::new();
        for (name, (kind, found)) in listing.sets {
            let elements = found.finish().map_err(Stop::Foreign)?;
            sets.insert(name, Set { kind, elements });
        }
        Ok(Table {
            counters: listing.counters.into(),
            sets,
            chains: listing.chains.into(),
        })
    };
    Ok(Ruleset {
        comment,
        inet: finish(TableFamily::Inet)?,
        netdev: finish(TableFamily::Netdev)?,
    })
}

/// A chain as the kernel lists it: it gives the device of a hook twice, the second time in a list.
fn as_listed(message: &Message<'_>) -> Result<Vec<u8>, Stop> {
    let mut writer = Writer::default();
    let family = message.payload.first().copied().ok_or(Stop::Malformed)?;
    writer.begin(message.kind, 0, 0, family, 0);
    for attribute in message.attributes()? {
        let (kind, payload) = attribute?;
        if kind != a::CHAIN_HOOK {
            writer.bytes_attribute(kind, payload);
            continue;
        }
        let parts: Vec<(u16, &[u8])> = Attributes(payload).collect::<Result<_, _>>()?;
        writer.nest(a::CHAIN_HOOK, |writer| {
            for (kind, payload) in parts {
                writer.bytes_attribute(kind, payload);
                if kind == a::HOOK_DEV {
                    writer.nest(a::HOOK_DEVS, |writer| writer.bytes_attribute(a::DEVICE_NAME, payload));
                }
            }
        });
    }
    writer.end();
    writer.bytes().map(<[u8]>::to_vec).ok_or(Stop::Malformed)
}

/// The set that a message of elements is about.
fn named(message: &Message<'_>) -> Result<Name, Stop> {
    for attribute in message.attributes()? {
        if let (a::ELEM_LIST_SET, payload) = attribute? {
            return Ok(Name::new(text(payload)?));
        }
    }
    Err(Stop::Malformed)
}
