//! Who opened a TCP connection, as the socket's own counters tell.
//!
//! The side that opens sends a SYN, which takes a sequence number and carries no data. Linux counts its acknowledgement with the
//! bytes that were acknowledged (`tcpi_bytes_acked`), and not with those that were sent (`tcpi_bytes_sent`). At the other
//! side the counting begins behind the handshake. So what was acknowledged or is on its way, less what was sent (each byte once), is
//! 1 at the side that has opened and 0 at the other; a FIN that was sent adds 1 at either.
//!
//! The kernel reads these counters under the socket's lock, but what is on its way (the difference of two further numbers)
//! a moment before. Nothing on the way makes a reading *sure*; of others two must say the same ([`Reading::then`]). Other results
//! (a segment that the machine itself could not send is counted twice) and kernels before 4.19 tell nothing.

use crate::uapi::value as v;

/// Which end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    /// The socket's own.
    Local,
    /// The other one.
    Remote,
}

/// What one look at a socket says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reading {
    /// Nothing.
    Unknown,
    /// Who opened, unless the socket changed in the middle of the look.
    Unsure(End),
    /// Who opened.
    Sure(End),
}

impl Reading {
    /// Of a socket in a state (`value::TCP_…`) with so many bytes that are not acknowledged or not sent (`idiag_wqueue`), and its
    /// `struct tcp_info`.
    pub(crate) fn new(state: u8, queued: u32, info: &[u8]) -> Self {
        let (Some(unacked), Some(acked), Some(unsent), Some(sent), Some(again)) = (
            u32_at(info, UNACKED),
            u64_at(info, BYTES_ACKED),
            u32_at(info, NOTSENT_BYTES),
            u64_at(info, BYTES_SENT),
            u64_at(info, BYTES_RETRANS),
        ) else {
            return Self::Unknown;
        };
        let fin = match state {
            v::TCP_ESTABLISHED | v::TCP_CLOSE_WAIT => 0,
            v::TCP_FIN_WAIT2 => 1,
            // It is the last in the queue.
            v::TCP_FIN_WAIT1 | v::TCP_CLOSING | v::TCP_LAST_ACK => u64::from(unsent == 0),
            _ => return Self::Unknown,
        };
        let on_its_way = if unacked == 0 { 0 } else { queued.wrapping_sub(unsent) };
        let difference = acked
            .wrapping_add(on_its_way.into())
            .wrapping_sub(sent)
            .wrapping_add(again)
            .wrapping_sub(fin);
        let end = match difference {
            0 => End::Remote,
            1 => End::Local,
            _ => return Self::Unknown,
        };
        if unacked == 0 {
            Self::Sure(end)
        } else {
            Self::Unsure(end)
        }
    }

    /// With another look.
    #[must_use]
    pub(crate) fn then(self, next: Self) -> Self {
        match (self, next) {
            (Self::Sure(_), _) => self,
            (Self::Unsure(one), Self::Unsure(other)) if one == other => Self::Sure(one),
            _ => next,
        }
    }

    /// Who opened, where that is sure.
    pub(crate) fn opener(self) -> Option<End> {
        match self {
            Self::Sure(end) => Some(end),
            Self::Unsure(_) | Self::Unknown => None,
        }
    }
}

/// Where `struct tcp_info` has them; it only ever grows at its end.
const UNACKED: usize = 24;
const BYTES_ACKED: usize = 120;
const NOTSENT_BYTES: usize = 144;
const BYTES_SENT: usize = 200;
const BYTES_RETRANS: usize = 208;

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().copied().map(u64::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Segments on their way, bytes queued, unsent, acknowledged, sent, sent again.
    type Counters = (u32, u32, u32, u64, u64, u64);

    fn info((unacked, _, unsent, acked, sent, again): Counters) -> Vec<u8> {
        let mut info = vec![0; 240];
        info[UNACKED..UNACKED + 4].copy_from_slice(&unacked.to_ne_bytes());
        info[NOTSENT_BYTES..NOTSENT_BYTES + 4].copy_from_slice(&unsent.to_ne_bytes());
        for (at, value) in [(BYTES_ACKED, acked), (BYTES_SENT, sent), (BYTES_RETRANS, again)] {
            info[at..at + 8].copy_from_slice(&value.to_ne_bytes());
        }
        info
    }

    #[track_caller]
    fn check(state: u8, counters: Counters, expected: Reading) {
        assert_eq!(Reading::new(state, counters.1, &info(counters)), expected);
    }

    #[test]
    fn s105_the_syn_is_counted_where_it_was_acknowledged() {
        use End::{Local, Remote};
        use Reading::{Sure, Unknown, Unsure};
        let (up, answered) = (v::TCP_ESTABLISHED, v::TCP_CLOSE_WAIT);
        check(up, (0, 0, 0, 1, 0, 0), Sure(Local));
        check(up, (0, 0, 0, 0, 0, 0), Sure(Remote));
        check(up, (0, 0, 0, 1001, 1000, 0), Sure(Local));
        check(answered, (0, 0, 0, 500, 500, 0), Sure(Remote));
        // Unsent behind a window that is shut.
        check(
            answered,
            (0, 3_833_856, 3_833_856, 100_500, 102_196, 1696),
            Sure(Remote),
        );
        // On its way, with and without repetitions; beyond 4 GiB.
        check(up, (3, 3_868_320, 3_833_856, 66_036, 102_196, 1696), Unsure(Remote));
        check(up, (1, 1000, 0, (5 << 32) + 1, (5 << 32) + 1000, 0), Unsure(Local));
        // Changed in the middle of the look, or counted twice.
        check(answered, (9, 852_021, 66_331, 156_436_575, 157_420_569, 1696), Unknown);
        check(up, (0, 0, 0, 1, 1000, 0), Unknown);
    }

    #[test]
    fn s105_a_fin_counts_once_it_was_sent() {
        use End::{Local, Remote};
        use Reading::{Sure, Unknown, Unsure};
        check(v::TCP_FIN_WAIT2, (0, 0, 0, 1002, 1000, 0), Sure(Local));
        check(v::TCP_FIN_WAIT2, (0, 0, 0, 1001, 1000, 0), Sure(Remote));
        check(v::TCP_FIN_WAIT1, (1, 1, 0, 1001, 1000, 0), Unsure(Local));
        check(v::TCP_LAST_ACK, (1, 1, 0, 1000, 1000, 0), Unsure(Remote));
        // It waits behind data.
        check(v::TCP_FIN_WAIT1, (2, 301, 101, 1001, 1200, 0), Unsure(Local));
        check(v::TCP_SYN_RECV, (0, 0, 0, 0, 0, 0), Unknown);
    }

    #[test]
    fn what_the_kernel_does_not_tell_is_unknown() {
        let info = info((0, 0, 0, 1, 0, 0));
        assert_eq!(Reading::new(v::TCP_ESTABLISHED, 0, &info[..215]), Reading::Unknown);
        assert_eq!(Reading::new(v::TCP_ESTABLISHED, 0, &[]), Reading::Unknown);
    }

    #[test]
    fn two_unsure_looks_that_agree_are_sure() {
        use End::{Local, Remote};
        use Reading::{Sure, Unknown, Unsure};
        assert_eq!(Unsure(Local).then(Unsure(Local)), Sure(Local));
        assert_eq!(Unsure(Local).then(Unsure(Remote)), Unsure(Remote));
        assert_eq!(Unsure(Local).then(Unknown).then(Unsure(Local)), Unsure(Local));
        assert_eq!(Unknown.then(Sure(Remote)), Sure(Remote));
        assert_eq!(Sure(Local).then(Unsure(Remote)), Sure(Local));
        assert_eq!(Unsure(Local).opener(), None);
    }
}
