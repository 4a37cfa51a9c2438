//! Names: two texts on two lines, each tried as every kind of name.

use ringfence_model::{InterfaceName, InvalidName, NamespacedName, NetworkName, PodUid, PortName};
use ringfence_ruleset::Name;

use crate::text;

/// Reads two lines.
pub fn run(data: &[u8]) {
    let text = text(data);
    let (one, other) = text.split_once('\n').unwrap_or((&text, ""));
    for text in [one, other] {
        check(PortName::new(text).map(|name| name.to_string()), text);
        check(PodUid::new(text).map(|name| name.to_string()), text);
        check(InterfaceName::new(text).map(|name| name.to_string()), text);
        let name = Name::new(text);
        assert_eq!(Name::new(name.as_str()), name, "a name that was made stays as it is");
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
        assert!(
            name.as_str().bytes().all(plain) && (1..=128).contains(&name.as_str().len()),
            "{name}"
        );
        assert!(name.as_str().starts_with(|c: char| c.is_ascii_alphabetic()), "{name}");
    }
    if let (Ok(a), Ok(b)) = (InterfaceName::new(one), InterfaceName::new(other)) {
        for name in [&a, &b] {
            // What the kernel calls an interface, and what nft text may hold between quotes.
            let bytes = name.as_str().as_bytes();
            assert!(
                (1..=15).contains(&bytes.len()) && !bytes.iter().any(|it| b"/:\"\\* ".contains(it)),
                "{name}"
            );
            let identifier = name.as_identifier();
            assert_eq!(
                Name::new(&identifier).as_str(),
                identifier,
                "{name} makes an identifier of its own"
            );
        }
        assert_eq!(
            a == b,
            a.as_identifier() == b.as_identifier(),
            "two names never meet: {a} {b}"
        );
        let as_networks = [NetworkName::Interface(a), NetworkName::Interface(b)].map(|name| name.to_string());
        assert_eq!(one == other, as_networks[0] == as_networks[1]);
    }
    let name = NamespacedName::new(one, other);
    assert_eq!(name.to_string(), format!("{one}/{other}"));
}

fn check(result: Result<String, InvalidName>, text: &str) {
    match result {
        Ok(shown) => assert!(
            shown == text && text.bytes().all(|byte| byte.is_ascii_graphic()),
            "{text:?}"
        ),
        Err(error) => {
            let shown = error.to_string();
            assert!(!error.why.is_empty() && !shown.contains(char::is_control), "{shown:?}");
            assert!(error.text.chars().count() <= 64);
        }
    }
}
