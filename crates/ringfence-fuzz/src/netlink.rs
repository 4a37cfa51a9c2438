//! Answers of nftables, conntrack and socket diagnosis: one datagram as the kernel would send it.

use ringfence_netlink::fuzzing::datagram;

/// Length of a message's header in bytes.
const HEADER: usize = 16;

/// Reads a datagram.
pub fn run(data: &[u8]) {
    let answer = datagram(data);
    assert!(answer.payload <= data.len(), "{answer:?} out of {} bytes", data.len());
    assert!(answer.messages <= data.len() / HEADER, "every message has a header");
    assert_eq!(datagram(data), answer, "the same bytes say the same");
    for (local, remote) in &answer.sockets {
        for end in [local, remote] {
            assert_eq!(end.ip(), end.ip().to_canonical(), "addresses are those on the wire");
        }
    }
}
