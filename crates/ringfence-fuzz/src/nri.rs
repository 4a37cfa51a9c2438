//! The bytes of an NRI connection: frames of two connections in one, and the messages in them.

use ringfence_nri::fuzzing::connection;

/// Reads a connection.
pub fn run(data: &[u8]) {
    let whole = connection(data, data.len());
    assert!(whole.bodies + 10 * whole.frames <= data.len(), "nothing is read twice");
    assert_eq!(whole.same, whole.frames, "what is written anew is the same");
    assert!(whole.refused <= whole.questions && whole.questions <= whole.frames);
    // In whatever pieces the bytes come.
    for piece in [1, 7, 64] {
        assert_eq!(connection(data, piece), whole, "in pieces of {piece}");
    }
}
