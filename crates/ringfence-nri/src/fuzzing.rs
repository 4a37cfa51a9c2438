//! A door for `ringfence-fuzz`: everything that reads the socket's bytes, without a socket. No part of the crate's
//! interface.

use crate::call::{Call, Said, read};
use crate::frame::{Decoder, Kind, Side};

/// What is made of the bytes of one connection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reading {
    /// Frames before the first malformed one.
    pub frames: usize,
    /// Bytes in their bodies.
    pub bodies: usize,
    /// Questions among them.
    pub questions: usize,
    /// Questions that were refused, because they cannot be read or are not known.
    pub refused: usize,
    /// Frames that are as written where they are written anew.
    pub same: usize,
    /// Whether the bytes end in a malformed frame.
    pub malformed: bool,
}

/// Reads the bytes in pieces of the given length.
pub fn connection(bytes: &[u8], piece: usize) -> Reading {
    let mut decoder = Decoder::default();
    let mut reading = Reading::default();
    for piece in bytes.chunks(piece.max(1)) {
        let mut frames = Vec::new();
        // Frames before a malformed one in the same piece count as well.
        reading.malformed = decoder.feed(piece, &mut frames).is_err();
        for frame in frames {
            reading.frames += 1;
            reading.bodies += frame.body.len();
            if frame.side == Side::Plugin && frame.kind == Kind::Request {
                reading.questions += 1;
            }
            if matches!(read(&frame), Said::Call(_, Call::Refused(..))) {
                reading.refused += 1;
            }
            let mut again = Vec::new();
            let written = frame.encode().unwrap_or_default();
            if Decoder::default().feed(&written, &mut again).is_ok() && again == [frame] {
                reading.same += 1;
            }
        }
        if reading.malformed {
            break;
        }
    }
    reading
}
