//! A door for `ringfence-fuzz`: the parsers of rtnetlink answers, without a kernel. No part of the crate's interface.

use crate::Facts;
use crate::facts::gather;
use crate::rtnetlink::{attributes, split_message};

/// What the parsers make of one datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What the messages say if each dump had answered with all of them.
    pub facts: Facts,
    /// Bytes of the messages' bodies that were read before the first malformed one.
    pub bodies: usize,
    /// Number of messages before the first malformed one.
    pub messages: usize,
    /// Bytes of the values of all bodies read as attributes.
    pub values: usize,
}

/// Reads a datagram that holds any messages in any state.
pub fn datagram(bytes: &[u8]) -> Answer {
    let mut messages = Vec::new();
    let mut rest = bytes;
    while let Some((message, _, after)) = split_message(rest) {
        messages.push(message);
        rest = after;
    }
    let values = |body: &[u8]| attributes(body).map(|(_, value)| value.len()).sum::<usize>();
    Answer {
        facts: gather(&messages, &messages, &messages),
        bodies: messages.iter().map(|message| message.body.len()).sum(),
        messages: messages.len(),
        values: messages.iter().map(|message| values(&message.body)).sum(),
    }
}
