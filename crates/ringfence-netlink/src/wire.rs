//! Netlink's wire format: messages of attributes, written and read.
//!
//! A message is a 16-byte header, for nftables a 4-byte `nfgenmsg`, then attributes of (length, type, payload), each
//! padded to 4 bytes. Header and attribute heads are in host order, the values of nftables in network order.

use crate::uapi::attribute::{NESTED, TYPE_MASK};
use crate::uapi::message::SUBSYSTEM;

/// Length of a message's header.
pub(crate) const HEADER: usize = 16;
/// Length of the `nfgenmsg` after it.
const NFGENMSG: usize = 4;
/// Offset of the flags in the header.
pub(crate) const FLAGS_AT: usize = 6;
/// Offset of the sequence number in the header.
pub(crate) const SEQUENCE_AT: usize = 8;

/// Memory that a writer keeps between messages, in bytes: enough for a peer that comes or goes. What a whole ruleset took
/// is given back; each pod of the node has a writer.
const KEPT: usize = 4 << 10;

/// Message type with the subsystem of nftables.
pub(crate) fn nftables(kind: u16) -> u16 {
    SUBSYSTEM << 8 | kind
}

/// The fixed part of netfilter's messages, `nfgenmsg`. `resource` is the subsystem for the ends of a batch, else 0.
pub(crate) fn netfilter_head(family: u8, resource: u16) -> [u8; NFGENMSG] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

/// Appends messages to a buffer that is kept between transactions.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    buffer: Vec<u8>,
    /// Where the open message begins.
    message: usize,
    /// An attribute or message outgrew its length field; what is in the buffer must not be sent.
    overflow: bool,
}

impl Writer {
    /// Empties it, keeping the memory up to [`KEPT`].
    pub(crate) fn clear(&mut self) {
        self.buffer.clear();
        // As ever it is small, and the call is not free.
        if self.buffer.capacity() > KEPT {
            self.buffer.shrink_to(KEPT);
        }
        self.message = 0;
        self.overflow = false;
    }

    /// What was written; `None` where something did not fit its length field.
    pub(crate) fn bytes(&self) -> Option<&[u8]> {
        (!self.overflow).then_some(&self.buffer)
    }

    /// Opens a message of netfilter, see [`netfilter_head`].
    pub(crate) fn begin(&mut self, kind: u16, flags: u16, sequence: u32, family: u8, resource: u16) {
        self.begin_with(kind, flags, sequence, &netfilter_head(family, resource));
    }

    /// Opens a message with the fixed part that its kind has before the attributes: a multiple of 4 bytes.
    pub(crate) fn begin_with(&mut self, kind: u16, flags: u16, sequence: u32, fixed: &[u8]) {
        self.message = self.buffer.len();
        self.buffer.extend_from_slice(&[0; 4]);
        self.buffer.extend_from_slice(&kind.to_ne_bytes());
        self.buffer.extend_from_slice(&flags.to_ne_bytes());
        self.buffer.extend_from_slice(&sequence.to_ne_bytes());
        self.buffer.extend_from_slice(&[0; 4]);
        self.buffer.extend_from_slice(fixed);
    }

    /// Closes the open message.
    pub(crate) fn end(&mut self) {
        match u32::try_from(self.buffer.len() - self.message) {
            Ok(length) => self.buffer[self.message..self.message + 4].copy_from_slice(&length.to_ne_bytes()),
            Err(_) => self.overflow = true,
        }
    }

    /// Copies a finished message of another writer, with another sequence number and flags.
    pub(crate) fn copy(&mut self, message: &[u8], flags: u16, sequence: u32) {
        self.message = self.buffer.len();
        self.buffer.extend_from_slice(message);
        if let Some(header) = self.buffer.get_mut(self.message..self.message + HEADER) {
            header[FLAGS_AT..FLAGS_AT + 2].copy_from_slice(&flags.to_ne_bytes());
            header[SEQUENCE_AT..SEQUENCE_AT + 4].copy_from_slice(&sequence.to_ne_bytes());
        } else {
            self.overflow = true;
        }
    }

    /// Sets flags of the last message, in addition to those it has.
    pub(crate) fn flag_last(&mut self, flags: u16) {
        let at = self.message + FLAGS_AT;
        let old = u16::from_ne_bytes([self.buffer[at], self.buffer[at + 1]]);
        self.buffer[at..at + 2].copy_from_slice(&(old | flags).to_ne_bytes());
    }

    /// An attribute with these bytes.
    pub(crate) fn bytes_attribute(&mut self, kind: u16, payload: &[u8]) {
        self.head(kind, payload.len());
        self.buffer.extend_from_slice(payload);
        self.pad();
    }

    /// An attribute with one byte.
    pub(crate) fn u8(&mut self, kind: u16, value: u8) {
        self.bytes_attribute(kind, &[value]);
    }

    /// An attribute with 16 bits in network order.
    pub(crate) fn be16(&mut self, kind: u16, value: u16) {
        self.bytes_attribute(kind, &value.to_be_bytes());
    }

    /// An attribute with 32 bits in network order.
    pub(crate) fn be32(&mut self, kind: u16, value: u32) {
        self.bytes_attribute(kind, &value.to_be_bytes());
    }

    /// An attribute with a text and the byte 0 after it.
    pub(crate) fn text(&mut self, kind: u16, text: &str) {
        self.head(kind, text.len() + 1);
        self.buffer.extend_from_slice(text.as_bytes());
        self.buffer.push(0);
        self.pad();
    }

    /// An attribute that holds what the closure writes.
    pub(crate) fn nest(&mut self, kind: u16, content: impl FnOnce(&mut Self)) {
        let start = self.open(kind);
        content(self);
        self.close(start);
    }

    /// Begins an attribute whose content follows; ends with [`Self::close`].
    pub(crate) fn open(&mut self, kind: u16) -> usize {
        let start = self.buffer.len();
        self.head(kind | NESTED, 0);
        start
    }

    /// Ends the attribute that [`Self::open`] began there.
    pub(crate) fn close(&mut self, start: usize) {
        match u16::try_from(self.buffer.len() - start) {
            Ok(length) => self.buffer[start..start + 2].copy_from_slice(&length.to_ne_bytes()),
            Err(_) => self.overflow = true,
        }
    }

    fn head(&mut self, kind: u16, payload: usize) {
        let length = u16::try_from(payload + 4).unwrap_or_else(|_| {
            self.overflow = true;
            4
        });
        self.buffer.extend_from_slice(&length.to_ne_bytes());
        self.buffer.extend_from_slice(&kind.to_ne_bytes());
    }

    fn pad(&mut self) {
        // Every message and every attribute head is a multiple of 4 long, so the buffer's own length tells.
        while !self.buffer.len().is_multiple_of(4) {
            self.buffer.push(0);
        }
    }
}

/// A message as it came from the kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'a> {
    /// With the subsystem in the upper byte.
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    /// Of an answer: whose question it was. Of a notification: whose change.
    pub(crate) port: u32,
    /// What follows the header.
    pub(crate) payload: &'a [u8],
}

/// The bytes do not follow the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Splits a datagram into messages.
pub(crate) struct Messages<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let message = split_message(self.0);
        self.0 = message.as_ref().map_or(&[], |(_, rest)| rest);
        Some(message.map(|(message, _)| message).ok_or(Malformed))
    }
}

fn split_message(bytes: &[u8]) -> Option<(Message<'_>, &[u8])> {
    let header = bytes.get(..HEADER)?;
    let length = usize::try_from(u32::from_ne_bytes(header[..4].try_into().ok()?)).ok()?;
    let message = Message {
        kind: u16::from_ne_bytes([header[4], header[5]]),
        flags: u16::from_ne_bytes([header[6], header[7]]),
        sequence: u32::from_ne_bytes(header[8..12].try_into().ok()?),
        port: u32::from_ne_bytes(header[12..16].try_into().ok()?),
        payload: bytes.get(HEADER..length)?,
    };
    Some((message, bytes.get(length.next_multiple_of(4)..).unwrap_or(&[])))
}

impl<'a> Message<'a> {
    /// The attributes after `nfgenmsg`.
    pub(crate) fn attributes(&self) -> Result<Attributes<'a>, Malformed> {
        self.payload.get(NFGENMSG..).map(Attributes).ok_or(Malformed)
    }
}

/// Splits a payload into attributes: (type without flags, payload).
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<(u16, &'a [u8]), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let attribute = split_attribute(self.0);
        self.0 = attribute.map_or(&[], |(_, rest)| rest);
        Some(attribute.map(|(attribute, _)| attribute).ok_or(Malformed))
    }
}

/// A type and its payload, and what follows them.
type Split<'a> = ((u16, &'a [u8]), &'a [u8]);

fn split_attribute(bytes: &[u8]) -> Option<Split<'_>> {
    let head = bytes.get(..4)?;
    let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
    let kind = u16::from_ne_bytes([head[2], head[3]]) & TYPE_MASK;
    let payload = bytes.get(4..length)?;
    Some(((kind, payload), bytes.get(length.next_multiple_of(4)..).unwrap_or(&[])))
}

/// 32 bits in network order.
pub(crate) fn be32(payload: &[u8]) -> Result<u32, Malformed> {
    payload.try_into().map(u32::from_be_bytes).map_err(|_| Malformed)
}

/// 64 bits in network order.
pub(crate) fn be64(payload: &[u8]) -> Result<u64, Malformed> {
    payload.try_into().map(u64::from_be_bytes).map_err(|_| Malformed)
}

/// A text, with or without the byte 0 after it.
pub(crate) fn text(payload: &[u8]) -> Result<&str, Malformed> {
    let text = payload.strip_suffix(&[0]).unwrap_or(payload);
    std::str::from_utf8(text).map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut writer = Writer::default();
        writer.begin(nftables(3), 0x401, 7, 1, 0);
        writer.text(1, "abc");
        writer.nest(4, |writer| writer.be32(2, 0xffff_ff60));
        writer.end();
        writer.begin(nftables(4), 1, 8, 5, 0);
        writer.end();
        writer.flag_last(4);
        let messages: Vec<Message<'_>> = Messages(writer.bytes().unwrap()).map(Result::unwrap).collect();
        assert_eq!(messages.len(), 2);
        assert_eq!((messages[0].kind, messages[0].sequence), (0xa03, 7));
        assert_eq!((messages[1].kind, messages[1].flags), (0xa04, 5));
        let attributes: Vec<_> = messages[0].attributes().unwrap().map(Result::unwrap).collect();
        assert_eq!(text(attributes[0].1), Ok("abc"));
        let inner: Vec<_> = Attributes(attributes[1].1).map(Result::unwrap).collect();
        assert_eq!((attributes[1].0, inner[0].0, be32(inner[0].1)), (4, 2, Ok(0xffff_ff60)));
    }

    #[test]
    fn a_length_that_does_not_fit_is_noticed() {
        let mut writer = Writer::default();
        writer.begin(0, 0, 0, 0, 0);
        writer.nest(1, |writer| {
            for _ in 0..5_000 {
                writer.bytes_attribute(1, &[0; 12]);
            }
        });
        writer.end();
        assert_eq!(writer.bytes(), None);
        writer.clear();
        assert_eq!(writer.bytes(), Some(&[][..]));
        writer.bytes_attribute(1, &vec![0; 70_000]);
        assert_eq!(writer.bytes(), None);
    }

    #[test]
    fn truncated_input_is_malformed_at_every_length() {
        let mut writer = Writer::default();
        writer.begin(1, 2, 3, 4, 0);
        writer.text(1, "a name");
        writer.end();
        let whole = writer.bytes().unwrap();
        for length in 1..whole.len() {
            assert!(
                matches!(Messages(&whole[..length]).next(), Some(Err(Malformed))),
                "{length}"
            );
        }
        let attributes = &whole[HEADER + NFGENMSG..];
        for length in 1..attributes.len() - 1 {
            let cut = &attributes[..length];
            assert!(matches!(Attributes(cut).next(), Some(Err(Malformed))), "{length}");
        }
        // A length below that of the head itself must not loop.
        assert_eq!(Attributes(&[2, 0, 1, 0]).collect::<Vec<_>>(), [Err(Malformed)]);
        assert_eq!(
            Attributes(&[0, 0, 1, 0, 9, 9, 9, 9]).collect::<Vec<_>>(),
            [Err(Malformed)]
        );
    }
}
