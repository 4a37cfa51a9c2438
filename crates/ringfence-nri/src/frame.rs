//! What goes over the socket: two connections in one, each of which carries ttrpc frames.
//!
//! ```text
//! mux:    connection (u32) length (u32) payload…                                   big endian, both of them
//! ttrpc:  length (u32) stream (u32) kind (u8) flags (u8) body…                     within the payloads of one connection
//! ```
//!
//! A mux frame holds any piece of its connection's bytes: a ttrpc frame may come in many of them.

/// Length of a mux frame's header.
const MUX_HEADER: usize = 8;

/// Length of a ttrpc frame's header.
const HEADER: usize = 10;

/// Longest body of a ttrpc frame, as ttrpc has it.
pub(crate) const LONGEST: usize = 4 << 20;

/// Which of the two connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// The runtime asks, the plugin answers.
    Plugin,
    /// The plugin asks, the runtime answers.
    Runtime,
}

impl Side {
    fn number(self) -> u32 {
        match self {
            Self::Plugin => 1,
            Self::Runtime => 2,
        }
    }
}

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Request,
    Response,
    /// A part of a stream. NRI has none.
    Data,
}

/// A ttrpc frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) side: Side,
    /// Pairs requests with responses.
    pub(crate) stream: u32,
    pub(crate) kind: Kind,
    pub(crate) body: Vec<u8>,
}

/// Bytes that no runtime sends. Where the next frame would begin cannot be known, so the connection has to end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A length beyond what ttrpc allows.
    #[error("a frame of {0} bytes")]
    TooLong(u32),
    /// A kind that ttrpc does not have.
    #[error("a frame of the unknown kind {0}")]
    Kind(u8),
}

impl Frame {
    /// As it goes over the socket, in one mux frame. `None` where it is too long.
    pub(crate) fn encode(&self) -> Option<Vec<u8>> {
        let length = u32::try_from(self.body.len())
            .ok()
            .filter(|_| self.body.len() <= LONGEST)?;
        let mut out = Vec::with_capacity(MUX_HEADER + HEADER + self.body.len());
        out.extend(self.side.number().to_be_bytes());
        out.extend((length + 10).to_be_bytes());
        out.extend(length.to_be_bytes());
        out.extend(self.stream.to_be_bytes());
        out.push(match self.kind {
            Kind::Request => 1,
            Kind::Response => 2,
            Kind::Data => 3,
        });
        out.push(0);
        out.extend(&self.body);
        Some(out)
    }
}

/// Takes the socket's bytes apart, in whatever pieces they come.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    /// A mux header that is not complete yet.
    header: Vec<u8>,
    /// The connection that the next bytes are for, and how many.
    payload: Option<(Option<Side>, usize)>,
    plugin: Vec<u8>,
    runtime: Vec<u8>,
}

impl Decoder {
    /// Takes in bytes and adds the frames that are complete now. What is kept is never more than one frame of each
    /// connection.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], frames: &mut Vec<Frame>) -> Result<(), Malformed> {
        while !bytes.is_empty() {
            let Some((side, left)) = self.payload.take() else {
                let wanted = (MUX_HEADER - self.header.len()).min(bytes.len());
                self.header.extend(&bytes[..wanted]);
                bytes = &bytes[wanted..];
                if self.header.len() == MUX_HEADER {
                    self.payload = Some(self.begin()?);
                }
                continue;
            };
            let (now, rest) = bytes.split_at(left.min(bytes.len()));
            bytes = rest;
            // Other connections are nobody's, and are passed over as the runtime does it.
            if let Some(side) = side {
                self.take(side, now, frames)?;
            }
            if left > now.len() {
                self.payload = Some((side, left - now.len()));
            }
        }
        Ok(())
    }

    /// A complete mux header.
    fn begin(&mut self) -> Result<(Option<Side>, usize), Malformed> {
        let connection = number(&self.header, 0);
        let length = number(&self.header, 4);
        self.header.clear();
        let side = [Side::Plugin, Side::Runtime]
            .into_iter()
            .find(|side| side.number() == connection);
        Ok((side, bounded(length, LONGEST + HEADER)?))
    }

    fn take(&mut self, side: Side, bytes: &[u8], frames: &mut Vec<Frame>) -> Result<(), Malformed> {
        let buffer = match side {
            Side::Plugin => &mut self.plugin,
            Side::Runtime => &mut self.runtime,
        };
        buffer.extend(bytes);
        let mut at = 0;
        while let Some(header) = buffer.get(at..at + HEADER) {
            let length = bounded(number(header, 0), LONGEST)?;
            let kind = match header[8] {
                1 => Kind::Request,
                2 => Kind::Response,
                3 => Kind::Data,
                other => return Err(Malformed::Kind(other)),
            };
            let stream = number(header, 4);
            let Some(body) = buffer.get(at + HEADER..at + HEADER + length) else {
                break;
            };
            frames.push(Frame {
                side,
                stream,
                kind,
                body: body.to_vec(),
            });
            at += HEADER + length;
        }
        buffer.drain(..at);
        Ok(())
    }
}

/// A number of four bytes, of which the caller knows that they are there.
fn number(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4]
        .iter()
        .fold(0, |number, byte| number << 8 | u32::from(*byte))
}

fn bounded(length: u32, longest: usize) -> Result<usize, Malformed> {
    usize::try_from(length)
        .ok()
        .filter(|length| *length <= longest)
        .ok_or(Malformed::TooLong(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(side: Side, stream: u32, kind: Kind, body: &[u8]) -> Frame {
        Frame {
            side,
            stream,
            kind,
            body: body.to_vec(),
        }
    }

    /// Decodes in pieces of each length; the frames must be the same.
    #[track_caller]
    fn check(bytes: &[u8], expected: &[Frame]) {
        for piece in 1..=bytes.len().max(1) {
            let mut decoder = Decoder::default();
            let mut frames = Vec::new();
            for bytes in bytes.chunks(piece) {
                decoder.feed(bytes, &mut frames).expect("well formed");
            }
            assert_eq!(frames, expected, "in pieces of {piece}");
        }
    }

    #[track_caller]
    fn check_malformed(bytes: &[u8], expected: &Malformed) {
        let mut decoder = Decoder::default();
        assert_eq!(decoder.feed(bytes, &mut Vec::new()).as_ref(), Err(expected));
    }

    #[test]
    fn a_request_is_these_bytes() {
        let register = frame(Side::Runtime, 1, Kind::Request, b"abc");
        let bytes = [
            0, 0, 0, 2, 0, 0, 0, 13, // connection 2, 13 bytes
            0, 0, 0, 3, 0, 0, 0, 1, 1, 0, // 3 bytes, stream 1, request
            b'a', b'b', b'c',
        ];
        assert_eq!(register.encode().as_deref(), Some(&bytes[..]));
        check(&bytes, &[register]);
    }

    #[test]
    fn frames_of_both_connections_come_interleaved_and_in_pieces() {
        let bytes = [
            &[0, 0, 0, 1, 0, 0, 0, 4][..],
            &[0, 0, 0, 2], // the first part of a header on connection 1
            &[0, 0, 0, 2, 0, 0, 0, 10],
            &[0, 0, 0, 0, 0, 0, 0, 5, 2, 0], // an empty response on connection 2
            &[0, 0, 0, 9, 0, 0, 0, 3],
            &[1, 2, 3],                // somebody else's
            &[0, 0, 0, 1, 0, 0, 0, 0], // nothing
            &[0, 0, 0, 1, 0, 0, 0, 18],
            &[0, 0, 0, 7, 1, 3, b'h', b'i'], // the rest of the first frame, with flags
            &[0, 0, 0, 0, 0, 0, 0, 9, 3, 0], // and another
        ]
        .concat();
        check(
            &bytes,
            &[
                frame(Side::Runtime, 5, Kind::Response, b""),
                frame(Side::Plugin, 7, Kind::Request, b"hi"),
                frame(Side::Plugin, 9, Kind::Data, b""),
            ],
        );
    }

    #[test]
    fn what_ends_in_the_middle_is_waited_for() {
        check(&[0, 0, 0, 1, 0, 0, 0, 20, 0, 0, 0, 9, 0, 0, 0, 1, 1, 0, 5], &[]);
        check(&[0, 0, 0], &[]);
        check(&[], &[]);
    }

    #[test]
    fn what_ttrpc_does_not_have_is_malformed() {
        check_malformed(&[0, 0, 0, 1, 255, 0, 0, 0], &Malformed::TooLong(0xff00_0000));
        let long = [0, 0, 0, 1, 0, 0, 0, 10, 0, 0x40, 0, 1, 0, 0, 0, 1, 1, 0];
        check_malformed(&long, &Malformed::TooLong(0x40_0001));
        let kind = [0, 0, 0, 1, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 1, 4, 0];
        check_malformed(&kind, &Malformed::Kind(4));
    }

    #[test]
    fn the_longest_body_is_allowed_and_a_longer_one_is_not_sent() {
        let longest = frame(Side::Plugin, 1, Kind::Response, &vec![7; LONGEST]);
        let bytes = longest.encode().expect("allowed");
        let (mut decoder, mut frames) = (Decoder::default(), Vec::new());
        for piece in bytes.chunks(100_000) {
            decoder.feed(piece, &mut frames).expect("well formed");
        }
        assert_eq!(frames, [longest]);
        assert_eq!(
            frame(Side::Plugin, 1, Kind::Response, &vec![7; LONGEST + 1]).encode(),
            None
        );
    }
}
