//! What this kernel can do, by trying it.

use ringfence_model::InterfaceName;
use ringfence_ruleset::{BaseChain, Hook, KernelFeatures, Match, Name, Op, Rule, TableFamily, Verdict};

use crate::encode::{Batch, Terms};
use crate::error::{Error, Refusal, describe};
use crate::kernel::Answer;
use crate::link::Link;
use crate::uapi::value as v;

/// No name that anybody uses, so that even in a pod's namespace nothing is disturbed.
const PROBE_TABLE: &str = "ringfence-probe";
const ATTEMPTS: usize = 8;

/// Finds out what the kernel can do, in the calling thread's network namespace, which should be an empty one: with
/// tables of another name, which are gone when this returns.
///
/// Fails where even a plain table cannot be made: no nf_tables in the kernel, or no CAP_NET_ADMIN.
pub fn probe() -> Result<KernelFeatures, Error> {
    let mut probe = Probe {
        link: Link::open()?,
        batch: Batch::default(),
    };
    let inet = TableFamily::Inet;
    match probe.attempt(&[add_table(inet), Op::DelTable { family: inet }], 0)? {
        Answer::Refused { errno, detail, .. } => {
            return Err(Error::Refused(Box::new(Refusal {
                operation: format!("{} (does the kernel have nf_tables?)", describe(&add_table(inet))),
                errno,
                detail,
            })));
        }
        Answer::Done | Answer::Moved | Answer::Interrupted => {}
    }
    Ok(KernelFeatures {
        owner_persist: probe.owner_persist()?,
        egress_backstop: probe.egress_backstop()?,
        fib: probe.fib()?,
    })
}

struct Probe {
    link: Link,
    batch: Batch,
}

impl Probe {
    fn owner_persist(&mut self) -> Result<bool, Error> {
        // Two transactions: a table that goes in the same one is made without flags.
        let flags = v::TABLE_F_OWNER | v::TABLE_F_PERSIST;
        let family = TableFamily::Inet;
        let has = self.takes(&[add_table(family)], flags)?;
        if has {
            self.attempt(&[Op::DelTable { family }], 0)?;
        }
        Ok(has)
    }

    fn egress_backstop(&mut self) -> Result<bool, Error> {
        // Every namespace has `lo`, and a hook on it needs no packets.
        let device = InterfaceName::new("lo").map_err(|error| Error::NotEncodable(error.to_string()))?;
        let base = BaseChain {
            hook: Hook::Egress(device),
            priority: 0,
        };
        self.takes_rule(TableFamily::Netdev, base, Match::Routed)
    }

    fn fib(&mut self) -> Result<bool, Error> {
        let base = BaseChain {
            hook: Hook::Output,
            priority: 0,
        };
        self.takes_rule(TableFamily::Inet, base, Match::SourceNotLocal)
    }

    fn takes_rule(&mut self, family: TableFamily, base: BaseChain, condition: Match) -> Result<bool, Error> {
        let name = Name::new("probe");
        let rule = Rule {
            matches: vec![condition],
            counter: None,
            verdict: Verdict::Accept,
        };
        let ops = [
            add_table(family),
            Op::AddChain {
                family,
                name: name.clone(),
                base: Some(base),
            },
            Op::AddRule {
                family,
                chain: name,
                rule,
            },
            Op::DelTable { family },
        ];
        self.takes(&ops, 0)
    }

    fn takes(&mut self, ops: &[Op], flags: u32) -> Result<bool, Error> {
        match self.attempt(ops, flags)? {
            Answer::Refused {
                operation,
                errno,
                detail,
            } => {
                let lacking = [
                    libc::EOPNOTSUPP,
                    libc::ENOENT,
                    libc::EINVAL,
                    libc::EAFNOSUPPORT,
                    libc::EPROTONOSUPPORT,
                ];
                if lacking.contains(&errno) {
                    return Ok(false);
                }
                let op = operation.and_then(|position| ops.get(position));
                Err(Error::Refused(Box::new(Refusal {
                    operation: op.map_or_else(|| "a probe".to_owned(), describe),
                    errno,
                    detail,
                })))
            }
            Answer::Done | Answer::Moved | Answer::Interrupted => Ok(true),
        }
    }

    fn attempt(&mut self, ops: &[Op], flags: u32) -> Result<Answer, Error> {
        for _ in 0..ATTEMPTS {
            let terms = Terms {
                table: PROBE_TABLE,
                sequence: self.link.sequence(),
                generation: None,
                flags,
            };
            self.batch.encode(ops, &terms)?;
            match self.link.transact(&self.batch)? {
                Answer::Moved | Answer::Interrupted => {}
                answer => return Ok(answer),
            }
        }
        Err(Error::Busy { attempts: ATTEMPTS })
    }
}

fn add_table(family: TableFamily) -> Op {
    Op::AddTable {
        family,
        comment: "".into(),
    }
}
