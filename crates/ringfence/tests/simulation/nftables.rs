//! nftables of one network namespace, as strict as the kernel or stricter: names must exist before they are used, what
//! is used stays, intervals do not overlap, a batch happens as a whole or not at all.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringfence_model::InterfaceName;
use ringfence_netlink::kernel::{Contents, Head, OWNER, PERSIST};
use ringfence_ruleset::{
    Chain, Element, Hook, Match, Name, Op, Rule, Ruleset, Set, SetKind, Table, TableFamily, Verdict,
};

/// Error numbers of x86-64, which the test does not depend on being right elsewhere: they only have to be told apart.
pub mod errno {
    pub const EPERM: i32 = 1;
    pub const ENOENT: i32 = 2;
    pub const ENOMEM: i32 = 12;
    pub const EBUSY: i32 = 16;
    pub const EEXIST: i32 = 17;
    pub const EINVAL: i32 = 22;
    pub const ELOOP: i32 = 40;
    pub const EOPNOTSUPP: i32 = 95;
}

/// A table of our name.
#[derive(Debug, Clone, PartialEq)]
pub struct Held {
    pub comment: Arc<str>,
    pub flags: u32,
    pub owner: Option<u32>,
    pub table: Table,
}

/// Both tables of our name, and the count of all changes.
#[derive(Debug, Clone, Default)]
pub struct Nftables {
    pub generation: u32,
    pub tables: BTreeMap<TableFamily, Held>,
}

/// Why a batch was refused: which operation, and the error number.
pub type Refused = (usize, i32);

impl Nftables {
    /// One batch by the socket `port`. Whether anything but ownership has changed.
    pub fn transact(&mut self, ops: &[Op], flags: u32, port: u32, devices: &[InterfaceName]) -> Result<bool, Refused> {
        let mut next = self.clone();
        for (position, op) in ops.iter().enumerate() {
            let goes = |later: &Op| matches!(later, Op::DelTable { family } if *family == op.family());
            // As the encoder: a table that is only added so that it can be deleted gets no flags.
            let flags = if ops[position + 1..].iter().any(goes) { 0 } else { flags };
            next.step(op, flags, port, devices).map_err(|errno| (position, errno))?;
        }
        next.generation += 1;
        let changed = next.remains() != self.remains();
        *self = next;
        Ok(changed)
    }

    fn step(&mut self, op: &Op, flags: u32, port: u32, devices: &[InterfaceName]) -> Result<(), i32> {
        let family = op.family();
        if let Some(held) = self.tables.get(&family)
            && held.owner.is_some_and(|owner| owner != port)
        {
            return Err(errno::EPERM);
        }
        match op {
            Op::AddTable { comment, .. } => {
                match self.tables.get_mut(&family) {
                    None => {
                        let held = Held {
                            comment: comment.clone(),
                            flags,
                            owner: (flags & OWNER != 0).then_some(port),
                            table: Table::default(),
                        };
                        self.tables.insert(family, held);
                    }
                    // Adding one that exists without flags changes nothing; with flags it can only be adopted.
                    Some(_) if flags == 0 => {}
                    Some(held) if held.flags == flags && held.owner == Some(port) => {}
                    Some(held) if held.flags & PERSIST != 0 && held.owner.is_none() && flags & OWNER != 0 => {
                        held.flags = flags;
                        held.owner = Some(port);
                    }
                    Some(_) => return Err(errno::EOPNOTSUPP),
                }
                return Ok(());
            }
            Op::DelTable { .. } => return self.tables.remove(&family).map(drop).ok_or(errno::ENOENT),
            _ => {}
        }
        let table = &mut self.tables.get_mut(&family).ok_or(errno::ENOENT)?.table;
        match op {
            Op::AddTable { .. } | Op::DelTable { .. } => Ok(()),
            Op::AddCounter { name, .. } => table.counters.insert(name.clone()).then_some(()).ok_or(errno::EEXIST),
            Op::DelCounter { name, .. } => {
                if rules(table).any(|rule| rule.counter.as_ref() == Some(name)) {
                    return Err(errno::EBUSY);
                }
                table.counters.remove(name).then_some(()).ok_or(errno::ENOENT)
            }
            Op::AddSet { name, kind, .. } => {
                let elements = imbl::OrdSet::new();
                let before = table.sets.insert(name.clone(), Set { kind: *kind, elements });
                before.map_or(Ok(()), |_| Err(errno::EEXIST))
            }
            Op::DelSet { name, .. } => {
                if rules(table).any(|rule| sets_of(rule).any(|set| set == name)) {
                    return Err(errno::EBUSY);
                }
                table.sets.remove(name).map(drop).ok_or(errno::ENOENT)
            }
            Op::AddElements {
                set, kind, elements, ..
            } => add_elements(set_of(table, set, *kind)?, elements),
            Op::DelElements {
                set, kind, elements, ..
            } => {
                let set = set_of(table, set, *kind)?;
                let absent = elements.iter().any(|element| set.elements.remove(element).is_none());
                if absent { Err(errno::ENOENT) } else { Ok(()) }
            }
            Op::AddChain { name, base, .. } => {
                if let Some(Hook::Egress(device)) = base.as_ref().map(|base| &base.hook)
                    && !devices.contains(device)
                {
                    return Err(errno::ENOENT);
                }
                let empty = Chain {
                    base: base.clone(),
                    rules: Vec::new(),
                };
                let before = table.chains.insert(name.clone(), empty);
                before.map_or(Ok(()), |_| Err(errno::EEXIST))
            }
            Op::FlushChain { name, .. } => {
                table.chains.get_mut(name).ok_or(errno::ENOENT)?.rules.clear();
                Ok(())
            }
            Op::DelChain { name, .. } => {
                if rules(table).any(|rule| target(rule) == Some(name)) {
                    return Err(errno::EBUSY);
                }
                let chain = table.chains.remove(name).ok_or(errno::ENOENT)?;
                if chain.rules.is_empty() {
                    Ok(())
                } else {
                    Err(errno::EBUSY)
                }
            }
            Op::AddRule { chain, rule, .. } => add_rule(table, chain, rule),
        }
    }

    /// The socket is closed: its tables go, or stay without an owner where they persist.
    pub fn close(&mut self, port: u32) {
        self.tables
            .retain(|_, held| held.owner != Some(port) || held.flags & PERSIST != 0);
        for held in self.tables.values_mut().filter(|held| held.owner == Some(port)) {
            held.owner = None;
        }
    }

    /// An interface has gone, and its chains with it: without a new generation.
    pub fn unplug(&mut self, device: &InterfaceName) -> bool {
        let Some(held) = self.tables.get_mut(&TableFamily::Netdev) else {
            return false;
        };
        let before = held.table.chains.len();
        held.table.chains.retain(
            |_, chain| !matches!(chain.base.as_ref().map(|base| &base.hook), Some(Hook::Egress(on)) if on == device),
        );
        held.table.chains.len() != before
    }

    pub fn heads(&self) -> Vec<Head> {
        self.tables
            .iter()
            .map(|(family, held)| Head {
                family: *family,
                flags: held.flags,
                owner: held.owner,
                comment: Some(held.comment.to_string()),
                uses: held.table.counters.len() + held.table.sets.len() + held.table.chains.len(),
            })
            .collect()
    }

    /// What a reader makes of both tables.
    pub fn contents(&self) -> Result<Option<Ruleset>, &'static str> {
        match (self.remains(), self.tables.get(&TableFamily::Netdev)) {
            (Ok(_), Some(netdev)) if netdev.table.chains.is_empty() => Err("table netdev without chains"),
            (remains, _) => remains,
        }
    }

    /// The same for those who know that chains have gone with their devices, perhaps all that table netdev had.
    pub fn remains(&self) -> Result<Option<Ruleset>, &'static str> {
        let inet = self.tables.get(&TableFamily::Inet);
        let netdev = self.tables.get(&TableFamily::Netdev);
        match (inet, netdev) {
            (None, None) => Ok(None),
            (None, Some(_)) => Err("table netdev without table inet"),
            (Some(inet), Some(netdev)) if inet.comment != netdev.comment => Err("tables with different comments"),
            (Some(inet), netdev) => Ok(Some(Ruleset {
                comment: inet.comment.clone(),
                inet: inet.table.clone(),
                netdev: netdev.map(|held| held.table.clone()).unwrap_or_default(),
            })),
        }
    }

    pub fn reading(&self) -> Contents {
        match self.contents() {
            Ok(ruleset) => Contents::Understood(ruleset),
            Err(what) => Contents::Unknown(what.to_owned()),
        }
    }
}

fn rules(table: &Table) -> impl Iterator<Item = &Rule> {
    table.chains.values().flat_map(|chain| &chain.rules)
}

fn sets_of(rule: &Rule) -> impl Iterator<Item = &Name> {
    rule.matches.iter().filter_map(|condition| match condition {
        Match::InSet(_, set) | Match::InNetworks(_, _, set) => Some(set),
        _ => None,
    })
}

fn target(rule: &Rule) -> Option<&Name> {
    match &rule.verdict {
        Verdict::Goto(chain) | Verdict::Jump(chain) => Some(chain),
        Verdict::Accept | Verdict::Drop => None,
    }
}

fn set_of<'t>(table: &'t mut Table, name: &Name, kind: SetKind) -> Result<&'t mut Set, i32> {
    let set = table.sets.get_mut(name).ok_or(errno::ENOENT)?;
    if set.kind == kind { Ok(set) } else { Err(errno::EINVAL) }
}

fn add_elements(set: &mut Set, elements: &[Element]) -> Result<(), i32> {
    for element in elements {
        if !set.kind.fits(element) {
            return Err(errno::EINVAL);
        }
        if let Element::Range(new) = element {
            let overlaps = |old: &Element| match old {
                Element::Range(old) => new.first() <= old.last() && old.first() <= new.last(),
                _ => false,
            };
            // Only the neighbours can overlap with it, since those that are there do not overlap with each other.
            let before = set.elements.get_prev(element).is_some_and(overlaps);
            if before || set.elements.get_next(element).is_some_and(overlaps) {
                return Err(errno::EEXIST);
            }
        }
        if set.elements.insert(*element).is_some() {
            return Err(errno::EEXIST);
        }
    }
    Ok(())
}

fn add_rule(table: &mut Table, chain: &Name, rule: &Rule) -> Result<(), i32> {
    if rule.counter.as_ref().is_some_and(|name| !table.counters.contains(name))
        || sets_of(rule).any(|set| !table.sets.contains_key(set))
    {
        return Err(errno::ENOENT);
    }
    if let Some(to) = target(rule) {
        if table.chains.get(to).ok_or(errno::ENOENT)?.base.is_some() {
            return Err(errno::EOPNOTSUPP);
        }
        if leads_to(table, to, chain) {
            return Err(errno::ELOOP);
        }
    }
    table
        .chains
        .get_mut(chain)
        .ok_or(errno::ENOENT)?
        .rules
        .push(rule.clone());
    Ok(())
}

fn leads_to(table: &Table, from: &Name, to: &Name) -> bool {
    from == to
        || table.chains.get(from).is_some_and(|chain| {
            let mut next = chain.rules.iter().filter_map(target);
            next.any(|next| leads_to(table, next, to))
        })
}
