//! Answers of rtnetlink: interfaces, addresses, routes.

use ringfence_model::InterfaceName;
use ringfence_netns::fuzzing::datagram;

/// Length of a message's header in bytes.
const HEADER: usize = 16;

/// Reads a datagram.
pub fn run(data: &[u8]) {
    let answer = datagram(data);
    assert!(answer.messages <= data.len() / HEADER, "every message has a header");
    assert!(
        answer.bodies + answer.messages * HEADER <= data.len(),
        "nothing is read twice"
    );
    assert!(answer.values <= answer.bodies, "nothing is read beyond a message");
    assert_eq!(datagram(data), answer, "the same bytes say the same");
    let facts = &answer.facts;
    assert!(facts.interfaces.len() + facts.refused.len() <= answer.messages);
    for name in facts.interfaces.keys() {
        assert_eq!(InterfaceName::new(name.as_str()).as_ref(), Ok(name));
    }
    for name in &facts.refused {
        assert!(InterfaceName::new(name).is_err(), "{name:?} could be named after all");
    }
}
