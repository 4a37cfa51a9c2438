//! What the kernel has in tables of our names, as a [`Ruleset`].
//!
//! Everything is read that could change what a table does, and whatever is not exactly something that Ringfence
//! writes makes the whole unknown, with a reason: nothing is skipped because it is not understood. rustables' own
//! listing is not used, because it decodes a chain's policy `drop` as `accept`.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringfence_model::InterfaceName;
use ringfence_ruleset::{BaseChain, Chain, Hook, Name, Ruleset, Set, SetKind, Table, TableFamily};

use crate::elements;
use crate::encode::{TABLE, nfproto, set_flags, set_key};
use crate::error::Error;
use crate::expression::{Expression, Unread};
use crate::kernel::{Contents, Head, Reading};
use crate::link::Link;
use crate::rule::lift;
use crate::uapi::{attribute as a, message as m, value as v};
use crate::wire::{Attributes, Malformed, Message, be32, be64, text};

/// Attempts to read everything without a change by others in between.
const ATTEMPTS: usize = 20;

/// The value of a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Packets that rules with this counter matched.
    pub packets: u64,
    /// Their bytes, from the network header on.
    pub bytes: u64,
}

/// The counters of both tables by table and name.
pub type Counters = BTreeMap<(TableFamily, Name), Count>;

/// Why a reading ended early.
#[derive(Debug)]
pub(crate) enum Stop {
    Error(Error),
    Foreign(String),
    Malformed,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<Malformed> for Stop {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

impl From<Unread> for Stop {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Malformed => Self::Malformed,
            Unread::Foreign(what) => Self::Foreign(what),
        }
    }
}

/// Reads both tables, again while others change nftables at the same time.
pub(crate) fn read(link: &mut Link) -> Result<Reading, Error> {
    for _ in 0..ATTEMPTS {
        let generation = link.generation()?;
        let mut heads = Vec::new();
        let mut reader = Reader {
            link: &mut *link,
            consistent: true,
        };
        let contents = match reader.all(&mut heads) {
            Ok(ruleset) => Contents::Understood(ruleset),
            Err(Stop::Foreign(what)) => Contents::Unknown(what),
            Err(Stop::Malformed) => return Err(Error::Malformed("a question for the tables")),
            Err(Stop::Error(error)) => return Err(error),
        };
        let consistent = reader.consistent;
        if consistent && link.generation()? == generation {
            return Ok(Reading {
                generation,
                heads,
                contents,
            });
        }
    }
    Err(Error::Busy { attempts: ATTEMPTS })
}

/// Reads the counters alone. They move all the time, so there is no consistency to wait for.
pub(crate) fn counters(link: &mut Link) -> Result<Counters, Error> {
    let mut reader = Reader { link, consistent: true };
    let mut all = Counters::new();
    for family in TableFamily::BOTH {
        match reader.counters(family) {
            Ok(counters) => all.extend(counters.into_iter().map(|(name, count)| ((family, name), count))),
            Err(Stop::Error(error)) => return Err(error),
            Err(Stop::Foreign(what)) => return Err(Error::Differs(what)),
            Err(Stop::Malformed) => return Err(Error::Malformed("a question for counters")),
        }
    }
    Ok(all)
}

/// The tables of our names, without their contents.
pub(crate) fn heads(link: &mut Link) -> Result<Vec<Head>, Error> {
    let mut heads = Vec::new();
    for family in TableFamily::BOTH {
        let mut reader = Reader {
            link: &mut *link,
            consistent: true,
        };
        match reader.head(family) {
            Ok(head) => heads.extend(head),
            Err(Stop::Error(error)) => return Err(error),
            Err(Stop::Foreign(what)) => return Err(Error::Differs(what)),
            Err(Stop::Malformed) => return Err(Error::Malformed("a question for a table")),
        }
    }
    Ok(heads)
}

struct Reader<'a> {
    link: &'a mut Link,
    consistent: bool,
}

impl Reader<'_> {
    fn all(&mut self, heads: &mut Vec<Head>) -> Result<Option<Ruleset>, Stop> {
        // Both heads first: who owns the tables counts even where their contents are foreign.
        for family in TableFamily::BOTH {
            heads.extend(self.head(family)?);
        }
        let Some(first) = heads.first() else { return Ok(None) };
        if first.family != TableFamily::Inet {
            return Err(Stop::Foreign(format!(
                "table netdev {TABLE} without table inet {TABLE}"
            )));
        }
        let comment: Arc<str> = match &first.comment {
            Some(comment) if heads.iter().all(|head| head.comment == first.comment) => comment.as_str().into(),
            _ => {
                return Err(Stop::Foreign(
                    "tables without comments, or with different ones".to_owned(),
                ));
            }
        };
        let mut ruleset = Ruleset {
            comment,
            inet: Table::default(),
            netdev: Table::default(),
        };
        for head in heads.iter() {
            let table = self.table(head).map_err(|stop| match stop {
                Stop::Foreign(what) => Stop::Foreign(format!("{what} in table {} {TABLE}", head.family)),
                other => other,
            })?;
            match head.family {
                TableFamily::Inet => ruleset.inet = table,
                TableFamily::Netdev if table.chains.is_empty() => {
                    return Err(Stop::Foreign(format!("table netdev {TABLE} without chains")));
                }
                TableFamily::Netdev => ruleset.netdev = table,
            }
        }
        Ok(Some(ruleset))
    }

    fn ask(
        &mut self,
        question: (&'static str, u16, TableFamily, bool),
        names: &[(u16, &str)],
        handle: impl FnMut(&Message<'_>) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        let (what, kind, family, dump) = question;
        let consistent = self.link.ask(
            what,
            (kind, nfproto(family), dump),
            |writer| {
                for (attribute, name) in names {
                    writer.text(*attribute, name);
                }
            },
            handle,
        )?;
        // Something that was just listed and is gone: others are changing the table.
        self.consistent &= consistent.unwrap_or(!dump);
        Ok(())
    }

    fn head(&mut self, family: TableFamily) -> Result<Option<Head>, Stop> {
        let mut head = None;
        self.ask(
            ("a question for a table", m::GETTABLE, family, false),
            &[(a::TABLE_NAME, TABLE)],
            |message| {
                head = Some(parse_head(family, message)?);
                Ok(())
            },
        )?;
        Ok(head)
    }

    fn table(&mut self, head: &Head) -> Result<Table, Stop> {
        if head.flags & !(v::TABLE_F_OWNER | v::TABLE_F_PERSIST) != 0 {
            return Err(Stop::Foreign(format!("flags {}", head.flags)));
        }
        let family = head.family;
        let mut table = Table {
            counters: self.counters(family)?.into_keys().collect(),
            sets: self.sets(family)?,
            chains: self.chains(family)?.into(),
        };
        if table.counters.len() + table.sets.len() + table.chains.len() != head.uses {
            return Err(Stop::Foreign("an object that is no chain, set or counter".to_owned()));
        }
        self.rules(family, &mut table.chains)?;
        Ok(table)
    }

    fn counters(&mut self, family: TableFamily) -> Result<BTreeMap<Name, Count>, Stop> {
        let mut counters = BTreeMap::new();
        self.ask(
            ("a question for counters", m::GETOBJ, family, true),
            &[(a::OBJ_TABLE, TABLE)],
            |message| {
                if let Some((name, count)) = parse_counter(message)? {
                    counters.insert(name, count);
                }
                Ok(())
            },
        )?;
        Ok(counters)
    }

    fn sets(&mut self, family: TableFamily) -> Result<BTreeMap<Name, Set>, Stop> {
        let mut kinds = Vec::new();
        self.ask(
            ("a question for sets", m::GETSET, family, true),
            &[(a::SET_TABLE, TABLE)],
            |message| {
                kinds.extend(parse_set(message)?);
                Ok(())
            },
        )?;
        let mut sets = BTreeMap::new();
        for (name, kind) in kinds {
            let mut found = elements::Collector::new(kind);
            self.ask(
                ("a question for elements", m::GETSETELEM, family, true),
                &[(a::ELEM_LIST_TABLE, TABLE), (a::ELEM_LIST_SET, name.as_str())],
                |message| parse_elements(message, &mut found),
            )?;
            let elements = found
                .finish()
                .map_err(|what| Stop::Foreign(format!("{what} of set {name}")))?;
            sets.insert(name, Set { kind, elements });
        }
        Ok(sets)
    }

    fn chains(&mut self, family: TableFamily) -> Result<BTreeMap<Name, Chain>, Stop> {
        let mut chains = BTreeMap::new();
        self.ask(("a question for chains", m::GETCHAIN, family, true), &[], |message| {
            if let Some((name, base)) = parse_chain(family, message)? {
                chains.insert(
                    name,
                    Chain {
                        base,
                        rules: Vec::new(),
                    },
                );
            }
            Ok(())
        })?;
        Ok(chains)
    }

    fn rules(&mut self, family: TableFamily, chains: &mut BTreeMap<Name, Chain>) -> Result<(), Stop> {
        let mut unlisted = false;
        self.ask(
            ("a question for rules", m::GETRULE, family, true),
            &[(a::RULE_TABLE, TABLE)],
            |message| {
                let Some((chain, expressions)) = parse_rule(message)? else {
                    return Ok(());
                };
                let rule =
                    lift(family, &expressions).map_err(|what| Stop::Foreign(format!("{what} in chain {chain}")))?;
                match chains.get_mut(&chain) {
                    Some(chain) => chain.rules.push(rule),
                    None => unlisted = true,
                }
                Ok(())
            },
        )?;
        // A chain that was made after the chains were listed.
        self.consistent &= !unlisted;
        Ok(())
    }
}

fn foreign(what: &str, attribute: u16) -> Stop {
    Stop::Foreign(format!("{what} with attribute {attribute}"))
}

fn name(payload: &[u8]) -> Result<Name, Stop> {
    let text = text(payload)?;
    let name = Name::new(text);
    if name.as_str() == text {
        Ok(name)
    } else {
        Err(Stop::Foreign(format!("name {text:?}")))
    }
}

pub(crate) fn parse_head(family: TableFamily, message: &Message<'_>) -> Result<Head, Stop> {
    let mut head = Head {
        family,
        flags: 0,
        owner: None,
        comment: None,
        uses: 0,
    };
    for attribute in message.attributes()? {
        match attribute? {
            (a::TABLE_FLAGS, payload) => head.flags = be32(payload)?,
            (a::TABLE_USE, payload) => head.uses = usize::try_from(be32(payload)?).map_err(|_| Malformed)?,
            (a::TABLE_OWNER, payload) => head.owner = Some(be32(payload)?),
            (a::TABLE_USERDATA, payload) => head.comment = parse_comment(payload),
            (a::TABLE_NAME | a::TABLE_HANDLE | a::TABLE_PAD, _) => {}
            (other, _) => return Err(foreign("a table", other)),
        }
    }
    Ok(head)
}

/// nft's comment: type 0, length, text with a 0 after it; and nothing else.
fn parse_comment(payload: &[u8]) -> Option<String> {
    let [0, length, rest @ ..] = payload else { return None };
    (rest.len() == usize::from(*length))
        .then(|| text(rest).ok().map(str::to_owned))
        .flatten()
}

pub(crate) fn parse_counter(message: &Message<'_>) -> Result<Option<(Name, Count)>, Stop> {
    let (mut found, mut count, mut ours) = (None, Count::default(), true);
    for attribute in message.attributes()? {
        match attribute? {
            (a::OBJ_TABLE, payload) => ours = text(payload)? == TABLE,
            (a::OBJ_NAME, payload) => found = Some(name(payload)?),
            (a::OBJ_TYPE, payload) if be32(payload)? != v::OBJECT_COUNTER => {
                return Err(Stop::Foreign(format!("an object of type {}", be32(payload)?)));
            }
            (a::OBJ_DATA, payload) => {
                for attribute in Attributes(payload) {
                    match attribute? {
                        (a::COUNTER_BYTES, payload) => count.bytes = be64(payload)?,
                        (a::COUNTER_PACKETS, payload) => count.packets = be64(payload)?,
                        _ => {}
                    }
                }
            }
            (a::OBJ_TYPE | a::OBJ_USE | a::OBJ_HANDLE | a::OBJ_PAD, _) => {}
            (other, _) => return Err(foreign("a counter", other)),
        }
    }
    Ok(found.filter(|_| ours).map(|name| (name, count)))
}

pub(crate) fn parse_set(message: &Message<'_>) -> Result<Option<(Name, SetKind)>, Stop> {
    let (mut found, mut ours) = (None, true);
    let (mut flags, mut key_type, mut key_length) = (0, 0, 0);
    for attribute in message.attributes()? {
        match attribute? {
            (a::SET_TABLE, payload) => ours = text(payload)? == TABLE,
            (a::SET_NAME, payload) => found = Some(name(payload)?),
            (a::SET_FLAGS, payload) => flags = be32(payload)?,
            (a::SET_KEY_TYPE, payload) => key_type = be32(payload)?,
            (a::SET_KEY_LEN, payload) => key_length = be32(payload)?,
            // A description is empty: a size would be a limit that ours do not have. The rest is for nft only, or
            // only told.
            (a::SET_DESC, [])
            | (a::SET_USERDATA | a::SET_HANDLE | a::SET_ID | a::SET_PAD | a::SET_TYPE | a::SET_COUNT, _) => {}
            (other, _) => return Err(foreign("a set", other)),
        }
    }
    let Some(name) = found.filter(|_| ours) else {
        return Ok(None);
    };
    let kind = elements::KINDS
        .into_iter()
        .find(|kind| (set_flags(*kind), set_key(*kind)) == (flags, (key_type, key_length)))
        .ok_or_else(|| Stop::Foreign(format!("set {name} of type {key_type:#x} with flags {flags}")))?;
    Ok(Some((name, kind)))
}

pub(crate) fn parse_elements(message: &Message<'_>, found: &mut elements::Collector) -> Result<(), Stop> {
    for attribute in message.attributes()? {
        let (a::ELEM_LIST_ELEMENTS, list) = attribute? else {
            continue;
        };
        for element in Attributes(list) {
            let (mut key, mut flags) = (None, 0);
            for attribute in Attributes(element?.1) {
                match attribute? {
                    (a::SET_ELEM_KEY, payload) => {
                        for value in Attributes(payload) {
                            if let (a::DATA_VALUE, value) = value? {
                                key = Some(value);
                            }
                        }
                    }
                    (a::SET_ELEM_FLAGS, payload) => flags = be32(payload)?,
                    // nft marks intervals whose neighbours it would join: type 1. A comment is type 0.
                    (a::SET_ELEM_PAD, _) | (a::SET_ELEM_USERDATA, [1, ..]) => {}
                    (other, _) => return Err(foreign("an element", other)),
                }
            }
            let key = key.ok_or_else(|| Stop::Foreign("an element without a key".to_owned()))?;
            found.add(key, flags).map_err(Stop::Foreign)?;
        }
    }
    Ok(())
}

pub(crate) fn parse_chain(
    family: TableFamily,
    message: &Message<'_>,
) -> Result<Option<(Name, Option<BaseChain>)>, Stop> {
    // The kernel lists the chains of all tables of the family; those of others are none of our business.
    for attribute in message.attributes()? {
        if let (a::CHAIN_TABLE, payload) = attribute?
            && text(payload)? != TABLE
        {
            return Ok(None);
        }
    }
    let (mut found, mut hook, mut flags) = (None, None, 0);
    for attribute in message.attributes()? {
        match attribute? {
            (a::CHAIN_NAME, payload) => found = Some(name(payload)?),
            (a::CHAIN_HOOK, payload) => hook = Some(payload),
            (a::CHAIN_POLICY, payload) if be32(payload)? != v::ACCEPT => {
                return Err(Stop::Foreign("a chain with policy drop".to_owned()));
            }
            (a::CHAIN_TYPE, payload) if text(payload)? != "filter" => {
                return Err(Stop::Foreign(format!("a chain of type {:?}", text(payload)?)));
            }
            (a::CHAIN_FLAGS, payload) => flags = be32(payload)?,
            (a::CHAIN_TABLE | a::CHAIN_HANDLE | a::CHAIN_POLICY | a::CHAIN_USE | a::CHAIN_TYPE | a::CHAIN_PAD, _) => {}
            (other, _) => return Err(foreign("a chain", other)),
        }
    }
    if flags & !v::CHAIN_BASE != 0 {
        return Err(Stop::Foreign(format!("a chain with flags {flags}")));
    }
    let base = hook.map(|payload| parse_hook(family, payload)).transpose()?;
    Ok(found.map(|name| (name, base)))
}

fn parse_hook(family: TableFamily, payload: &[u8]) -> Result<BaseChain, Stop> {
    let (mut number, mut priority, mut devices) = (None, None, Vec::new());
    for attribute in Attributes(payload) {
        match attribute? {
            (a::HOOK_HOOKNUM, payload) => number = Some(be32(payload)?),
            (a::HOOK_PRIORITY, payload) => {
                priority = Some(i32::from_be_bytes(payload.try_into().map_err(|_| Malformed)?));
            }
            // The same device again, for readers that know no list.
            (a::HOOK_DEV, _) => {}
            (a::HOOK_DEVS, payload) => {
                for device in Attributes(payload) {
                    let (a::DEVICE_NAME, device) = device? else {
                        return Err(Stop::Foreign("a chain on a wildcard".to_owned()));
                    };
                    let device = InterfaceName::new(text(device)?).map_err(|error| Stop::Foreign(error.to_string()))?;
                    devices.push(device);
                }
            }
            (other, _) => return Err(foreign("a hook", other)),
        }
    }
    let hook = match (family, number, &devices[..]) {
        (TableFamily::Inet, Some(v::HOOK_INET_PREROUTING), []) => Hook::Prerouting,
        (TableFamily::Inet, Some(v::HOOK_INET_OUTPUT), []) => Hook::Output,
        (TableFamily::Inet, Some(v::HOOK_INET_POSTROUTING), []) => Hook::Postrouting,
        (TableFamily::Netdev, Some(v::HOOK_NETDEV_EGRESS), [device]) => Hook::Egress(device.clone()),
        (_, number, _) => {
            return Err(Stop::Foreign(format!(
                "a chain on hook {} with {} devices",
                number.unwrap_or(u32::MAX),
                devices.len()
            )));
        }
    };
    let priority = priority.ok_or(Malformed)?;
    Ok(BaseChain { hook, priority })
}

pub(crate) fn parse_rule(message: &Message<'_>) -> Result<Option<(Name, Vec<Expression>)>, Stop> {
    let (mut chain, mut expressions, mut ours) = (None, Vec::new(), true);
    for attribute in message.attributes()? {
        match attribute? {
            (a::RULE_TABLE, payload) => ours = text(payload)? == TABLE,
            (a::RULE_CHAIN, payload) => chain = Some(name(payload)?),
            (a::RULE_EXPRESSIONS, payload) => {
                for expression in Attributes(payload) {
                    expressions.push(Expression::read(expression?.1)?);
                }
            }
            (a::RULE_HANDLE | a::RULE_POSITION | a::RULE_PAD, _) => {}
            (other, _) => return Err(foreign("a rule", other)),
        }
    }
    Ok(chain.filter(|_| ours).map(|chain| (chain, expressions)))
}
