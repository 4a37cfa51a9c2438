//! Conversations with the kernel: one transaction, one question.
//!
//! The kernel processes a message within `send` and queues all answers before that returns. Of a batch it answers
//! what it refuses, message by message, and what asks for an acknowledgement: here only the last operation, whose
//! answer therefore comes after all refusals. Without a refusal that is one datagram.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::encode::Batch;
use crate::error::Error;
use crate::kernel::Answer;
use crate::socket::Socket;
use crate::uapi::{attribute as a, flag, message as m};
use crate::wire::{Attributes, Malformed, Message, Messages, Writer, be32, netfilter_head, nftables, text};

/// Larger than any datagram that the kernel builds for a dump (32 KiB).
const DUMP: usize = 64 << 10;
/// Larger than any other answer: acknowledgements do not repeat what was sent (NETLINK_CAP_ACK), and one object comes in
/// `NLMSG_GOODSIZE` bytes, at most 8 KiB (linux/netlink.h). Each pod of the node has a link, so it matters.
const ANSWER: usize = 8 << 10;

static TRANSACTIONS: AtomicU64 = AtomicU64::new(0);

/// Number of batches that this process has sent to the kernel, refused ones and those of [`crate::probe()`] included.
/// For tests and metrics: "no change sends nothing" is an equality of this number.
pub fn transactions_sent() -> u64 {
    TRANSACTIONS.load(Ordering::Relaxed)
}

/// A socket with its buffers and sequence numbers.
#[derive(Debug)]
pub(crate) struct Link {
    socket: Socket,
    sequence: u32,
    received: Vec<u8>,
    request: Writer,
}

impl Link {
    /// Opens a socket to netfilter in the calling thread's network namespace.
    pub(crate) fn open() -> Result<Self, Error> {
        Self::open_to(libc::NETLINK_NETFILTER)
    }

    /// The same to another part of the kernel, `libc::NETLINK_…`.
    pub(crate) fn open_to(protocol: libc::c_int) -> Result<Self, Error> {
        let socket = Socket::open(protocol).map_err(|source| Error::Socket { action: "open", source })?;
        Ok(Self {
            socket,
            sequence: 1,
            received: vec![0; ANSWER],
            request: Writer::default(),
        })
    }

    /// The socket's address, by which the kernel knows the owner of a table.
    pub(crate) fn port(&self) -> u32 {
        self.socket.port()
    }

    /// Sequence number for the next batch.
    pub(crate) fn sequence(&self) -> u32 {
        self.sequence
    }

    /// Sends a batch that was encoded with [`Self::sequence`]. [`Error::NoAnswer`] means that it may have happened.
    pub(crate) fn transact(&mut self, batch: &Batch) -> Result<Answer, Error> {
        let first = self.sequence;
        let count = batch.sequences();
        self.sequence = first.wrapping_add(count);
        TRANSACTIONS.fetch_add(1, Ordering::Relaxed);
        self.socket
            .send(batch.bytes()?)
            .map_err(|source| Error::Socket { action: "send", source })?;
        let mut refused = None;
        let mut overrun = false;
        loop {
            // Answers that were going to come are here; only the first is worth waiting for.
            let length = match self.socket.receive(&mut self.received, refused.is_none() && !overrun) {
                Ok(length) => length,
                // Told before what is queued: more was refused than the socket holds. The first ones are there.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) && !overrun => {
                    overrun = true;
                    continue;
                }
                // One refusal decides for the whole batch, whatever else was lost or is not there.
                Err(_) if refused.is_some() => break,
                Err(error) => return Err(lost(error, "a transaction")),
            };
            // What does not fit is no answer to a transaction, but a late one to a dump that was given up.
            let Some(datagram) = self.received.get(..length) else {
                continue;
            };
            for message in Messages(datagram) {
                let message = message.map_err(|_| Error::Malformed("a transaction"))?;
                // Others are late answers to what was given up.
                if message.kind != m::ERROR || message.sequence.wrapping_sub(first) >= count {
                    continue;
                }
                let (errno, detail) = verdict(&message).map_err(|_| Error::Malformed("a transaction"))?;
                if errno != 0 && refused.is_none() {
                    refused = Some((batch.operation_of(message.sequence), errno, detail));
                }
                if message.sequence == batch.last_sequence() {
                    return Ok(refused.map_or(Answer::Done, classify));
                }
            }
        }
        Ok(refused.map_or(Answer::Done, classify))
    }

    /// Asks for objects: `Ok(Some(consistent))` after all of them went to `handle`, `Ok(None)` where the object asked
    /// for does not exist. Without `dump` it is one object.
    pub(crate) fn ask<E: From<Error>>(
        &mut self,
        what: &'static str,
        (kind, family, dump): (u16, u8, bool),
        attributes: impl FnOnce(&mut Writer),
        handle: impl FnMut(&Message<'_>) -> Result<(), E>,
    ) -> Result<Option<bool>, E> {
        self.question(
            what,
            (nftables(kind), dump),
            &netfilter_head(family, 0),
            attributes,
            handle,
        )
    }

    /// [`Self::ask`] for a message of any kind, with the fixed part that this kind has before its attributes.
    pub(crate) fn question<E: From<Error>>(
        &mut self,
        what: &'static str,
        (kind, dump): (u16, bool),
        fixed: &[u8],
        attributes: impl FnOnce(&mut Writer),
        mut handle: impl FnMut(&Message<'_>) -> Result<(), E>,
    ) -> Result<Option<bool>, E> {
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        // An acknowledgement ends the answer about one object as the final message ends a dump.
        let flags = flag::REQUEST | if dump { flag::DUMP } else { flag::ACK };
        self.request.clear();
        self.request.begin_with(kind, flags, sequence, fixed);
        attributes(&mut self.request);
        self.request.end();
        let request = self.request.bytes().unwrap_or_default();
        self.socket
            .send(request)
            .map_err(|source| Error::Socket { action: "send", source })?;
        let mut large = Vec::new();
        let received = if dump {
            large.resize(DUMP, 0);
            &mut large
        } else {
            &mut self.received
        };
        let mut consistent = true;
        // After an error of the handler the rest of the answer is still taken off the socket.
        let mut failed = None;
        loop {
            let length = self.socket.receive(received, true).map_err(|error| lost(error, what))?;
            // As above: too large for an answer to this.
            let Some(datagram) = received.get(..length) else {
                continue;
            };
            for message in Messages(datagram) {
                let message = message.map_err(|_| Error::Malformed(what))?;
                if message.sequence != sequence {
                    continue;
                }
                consistent &= message.flags & flag::DUMP_INTR == 0;
                if message.kind == m::ERROR || message.kind == m::DONE {
                    let end = verdict(&message).map_err(|_| Error::Malformed(what))?;
                    return match (failed, end.0) {
                        (Some(error), _) => Err(error),
                        (None, 0) => Ok(Some(consistent)),
                        (None, libc::ENOENT) => Ok(None),
                        (None, errno) => Err(refused_question(what, errno, end.1).into()),
                    };
                }
                if failed.is_none() {
                    failed = handle(&message).err();
                }
            }
        }
    }

    /// Sends messages that do not depend on each other as one datagram: `count` of them with ascending sequence
    /// numbers from [`Self::sequence`] on, of which only the last asks for an acknowledgement. Gives each refusal to
    /// `refused`: position of the message, error number, the kernel's words.
    pub(crate) fn each(
        &mut self,
        what: &'static str,
        messages: &[u8],
        count: u32,
        mut refused: impl FnMut(u32, i32, Option<String>),
    ) -> Result<(), Error> {
        let first = self.sequence;
        self.sequence = first.wrapping_add(count);
        self.socket
            .send(messages)
            .map_err(|source| Error::Socket { action: "send", source })?;
        loop {
            let length = self
                .socket
                .receive(&mut self.received, true)
                .map_err(|error| lost(error, what))?;
            let Some(datagram) = self.received.get(..length) else {
                continue;
            };
            for message in Messages(datagram) {
                let message = message.map_err(|_| Error::Malformed(what))?;
                let position = message.sequence.wrapping_sub(first);
                if message.kind != m::ERROR || position >= count {
                    continue;
                }
                let (errno, detail) = verdict(&message).map_err(|_| Error::Malformed(what))?;
                if errno != 0 {
                    refused(position, errno, detail);
                }
                // Answers come in the order of the messages.
                if position.wrapping_add(1) == count {
                    return Ok(());
                }
            }
        }
    }

    /// The number that the kernel increases with every change to nftables in the namespace.
    pub(crate) fn generation(&mut self) -> Result<u32, Error> {
        const WHAT: &str = "a question for the generation";
        let mut generation = None;
        self.ask(
            WHAT,
            (m::GETGEN, 0, false),
            |_| {},
            |message| {
                let mut read = || {
                    for attribute in message.attributes()? {
                        if let (a::GEN_ID, payload) = attribute? {
                            generation = Some(be32(payload)?);
                        }
                    }
                    Ok(())
                };
                read().map_err(|_: Malformed| Error::Malformed(WHAT))
            },
        )?;
        generation.ok_or(Error::Malformed(WHAT))
    }
}

fn classify((operation, errno, detail): (Option<usize>, i32, Option<String>)) -> Answer {
    match errno {
        libc::ERESTART => Answer::Moved,
        libc::EINTR => Answer::Interrupted,
        _ => Answer::Refused {
            operation,
            errno,
            detail,
        },
    }
}

fn refused_question(what: &'static str, errno: i32, detail: Option<String>) -> Error {
    Error::Refused(Box::new(crate::Refusal {
        operation: what.to_owned(),
        errno,
        detail,
    }))
}

fn lost(source: io::Error, what: &'static str) -> Error {
    let overrun = source.raw_os_error() == Some(libc::ENOBUFS);
    if overrun || source.kind() == io::ErrorKind::WouldBlock {
        Error::NoAnswer(what)
    } else {
        Error::Socket {
            action: "receive",
            source,
        }
    }
}

/// The error number of an answer, positive, 0 for none, and the kernel's words.
pub(crate) fn verdict(message: &Message<'_>) -> Result<(i32, Option<String>), Malformed> {
    let (number, rest) = message.payload.split_first_chunk::<4>().ok_or(Malformed)?;
    let errno = i32::from_ne_bytes(*number).checked_neg().ok_or(Malformed)?;
    if message.kind == m::DONE || message.flags & flag::ACK_TLVS == 0 {
        return Ok((errno, None));
    }
    // The header of the refused message, and where not capped the message too.
    let refused = rest.first_chunk::<4>().ok_or(Malformed)?;
    let length = if message.flags & flag::CAPPED == 0 {
        usize::try_from(u32::from_ne_bytes(*refused)).map_err(|_| Malformed)?
    } else {
        crate::wire::HEADER
    };
    let mut detail = None;
    for attribute in Attributes(rest.get(length.next_multiple_of(4)..).ok_or(Malformed)?) {
        if let (a::EXTACK_MSG, payload) = attribute? {
            detail = Some(text(payload)?.to_owned());
        }
    }
    Ok((errno, detail))
}
