//! What an [`Enforcer`](crate::Enforcer) asks of one network namespace's nftables.
//!
//! A trait at the level of operations, so that all that an enforcer decides (adoption, retries, repairs) also runs
//! against a simulated kernel, where refusals and lost answers come when a test wants them. [`Netlink`] is the real one.

use ringfence_ruleset::{Op, Ruleset, TableFamily};

use crate::encode::{Batch, TABLE, Terms};
use crate::error::Error;
use crate::link::Link;
use crate::read::{self, Counters};
use crate::uapi::value as v;

/// Table flag: only the socket that has made or adopted the table can change it.
pub const OWNER: u32 = v::TABLE_F_OWNER;
/// Table flag: the table outlives its owner, and can then be adopted.
pub const PERSIST: u32 = v::TABLE_F_PERSIST;

/// A conversation with the nftables of one network namespace.
pub trait Kernel {
    /// By what the kernel knows the owner of a table: the conversation's own address.
    fn port(&self) -> u32;

    /// The number that increases with every change to nftables in the namespace, whoever makes it.
    fn generation(&mut self) -> Result<u32, Error>;

    /// Sends operations as one transaction. Tables that it makes or adopts get these flags; with a generation, nothing
    /// happens where the namespace has another one. [`Error::NoAnswer`] means that it may have happened.
    fn transact(&mut self, ops: &[Op], generation: Option<u32>, flags: u32) -> Result<Answer, Error>;

    /// Reads both tables, without a change by others in between.
    fn read(&mut self) -> Result<Reading, Error>;

    /// The tables alone, without their contents.
    fn heads(&mut self) -> Result<Vec<Head>, Error>;

    /// The counters alone.
    fn counters(&mut self) -> Result<Counters, Error>;
}

/// How a transaction ended.
#[derive(Debug)]
pub enum Answer {
    /// It is in force.
    Done,
    /// Nothing of it happened, because nftables in the namespace has another generation than it named.
    Moved,
    /// Nothing of it happened, because a signal arrived.
    Interrupted,
    /// Nothing of it happened: something was refused.
    Refused {
        /// Position of the first operation that was refused; `None` for the frame around them.
        operation: Option<usize>,
        /// The system's error number, positive.
        errno: i32,
        /// The kernel's own words, if it gave any.
        detail: Option<String>,
    },
}

/// What is in our tables.
#[derive(Debug)]
pub enum Contents {
    /// Exactly this; `None` where neither table exists.
    Understood(Option<Ruleset>),
    /// Something that no ruleset expresses; in words.
    Unknown(String),
}

/// The properties of a table that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Which table.
    pub family: TableFamily,
    /// [`OWNER`], [`PERSIST`], and others that are none of ours.
    pub flags: u32,
    /// The port of the socket that owns it.
    pub owner: Option<u32>,
    /// Its comment.
    pub comment: Option<String>,
    /// Number of chains, sets, objects and flow tables.
    pub uses: usize,
}

/// One consistent reading.
#[derive(Debug)]
pub struct Reading {
    /// Of which generation it is.
    pub generation: u32,
    /// The tables that exist.
    pub heads: Vec<Head>,
    /// What is in them.
    pub contents: Contents,
}

/// The running kernel, by a netlink socket in the namespace in which it was opened.
#[derive(Debug)]
pub struct Netlink {
    link: Link,
    batch: Batch,
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open() -> Result<Self, Error> {
        Ok(Self {
            link: Link::open()?,
            batch: Batch::default(),
        })
    }
}

impl Kernel for Netlink {
    fn port(&self) -> u32 {
        self.link.port()
    }

    fn generation(&mut self) -> Result<u32, Error> {
        self.link.generation()
    }

    fn transact(&mut self, ops: &[Op], generation: Option<u32>, flags: u32) -> Result<Answer, Error> {
        let terms = Terms {
            table: TABLE,
            sequence: self.link.sequence(),
            generation,
            flags,
        };
        self.batch.encode(ops, &terms)?;
        let answer = self.link.transact(&self.batch);
        self.batch.clear();
        answer
    }

    fn read(&mut self) -> Result<Reading, Error> {
        read::read(&mut self.link)
    }

    fn heads(&mut self) -> Result<Vec<Head>, Error> {
        read::heads(&mut self.link)
    }

    fn counters(&mut self) -> Result<Counters, Error> {
        read::counters(&mut self.link)
    }
}
