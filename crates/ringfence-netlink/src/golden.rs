//! The bytes of every operation and condition, pinned.
//!
//! `golden.txt` was captured from this encoder and held once, operation by operation, against what `nft` 1.0.6 sends
//! for the same command. Rules are equal byte for byte but for NFTA_LOOKUP_SET_ID, which the kernel does not need.
//! Messages differ in this and nothing else: tables have the flags 6 (owner, persist), which that nft cannot say, and
//! `NLM_F_CREATE`; rustables writes names without a final 0 and attributes in its own order; sets of concatenations
//! have no hint for nft's `typeof`; elements name their set only by name, are all numbered 1 within their list, and
//! ranges have neither nft's mark on the last one nor its end at 0 before the first; the deletion of a counter has no
//! empty data.
//!
//! Numbers are shown as on the wire of a little-endian machine.

use std::fmt::Write as _;

use expect_test::expect_file;
use ringfence_ruleset::{Op, Rule, Ruleset, TableFamily, transaction};

use crate::encode::{Batch, TABLE, Terms};
use crate::expression::Expression;
use crate::rule::{lift, lower};
use crate::uapi::attribute as a;
use crate::wire::{Attributes, Messages, Writer};

#[path = "../tests/common/vocabulary.rs"]
mod vocabulary;

use vocabulary::{accept, conditions, endings, everything, name, netdev_conditions};

fn rules() -> Vec<(TableFamily, Rule)> {
    let inet = conditions().into_iter().map(accept).chain(endings());
    let netdev = netdev_conditions().into_iter().map(accept);
    inet.map(|rule| (TableFamily::Inet, rule))
        .chain(netdev.map(|rule| (TableFamily::Netdev, rule)))
        .collect()
}

/// Groups of 4 bytes, in which lengths and types are seen.
fn hex(bytes: &[u8]) -> String {
    let groups: Vec<String> = bytes
        .chunks(4)
        .map(|group| {
            group
                .iter()
                .fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
        })
        .collect();
    groups.join(" ")
}

fn expressions(family: TableFamily, rule: &Rule) -> Vec<Vec<u8>> {
    let mut writer = Writer::default();
    let mut all = Vec::new();
    for expression in lower(family, rule) {
        writer.clear();
        expression.write(&mut writer);
        all.push(writer.bytes().unwrap().to_vec());
    }
    all
}

/// The operations that show each kind once, with few elements.
fn operations() -> Vec<Op> {
    let wanted = everything("net1");
    let mut changed = wanted.clone();
    changed.inet.counters.remove(&name("unexplained-denied"));
    changed.inet.chains.remove(&name("leave"));
    changed.inet.sets.remove(&name("ranges-ip6"));
    for set in ["addresses-ip", "ranges-ip", "services-ip"] {
        changed.inet.sets.get_mut(&name(set)).unwrap().elements.clear();
    }
    changed
        .inet
        .chains
        .get_mut(&name("net1-in-related"))
        .unwrap()
        .rules
        .clear();
    let mut ops = transaction(None, Some(&wanted));
    ops.extend(transaction(Some(&wanted), Some(&changed)));
    ops.extend(transaction(Some(&wanted), None));
    ops.retain(|op| !matches!(op, Op::AddRule { .. }));
    ops
}

/// With the frame of the batch or without it: header (without length and sequence number), then an attribute a line,
/// nested ones further in.
fn describe(bytes: &[u8], framed: bool) -> String {
    let mut text = String::new();
    for message in Messages(bytes) {
        let message = message.unwrap();
        // NFNL_MSG_BATCH_BEGIN and NFNL_MSG_BATCH_END
        if !framed && (0x10..=0x11).contains(&message.kind) {
            continue;
        }
        writeln!(
            text,
            "  type {:04x} flags {:04x} nfgenmsg {}",
            message.kind,
            message.flags,
            hex(&message.payload[..4])
        )
        .unwrap();
        attributes(&mut text, &message.payload[4..], 4);
    }
    text
}

fn attributes(text: &mut String, mut bytes: &[u8], indent: usize) {
    while !bytes.is_empty() {
        let length = usize::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
        let nested = u16::from_ne_bytes([bytes[2], bytes[3]]) & a::NESTED != 0;
        let (attribute, rest) = bytes.split_at(length.next_multiple_of(4));
        write!(text, "{:indent$}{}", "", hex(&attribute[..4])).unwrap();
        if nested {
            text.push('\n');
            attributes(text, &attribute[4..], indent + 2);
        } else {
            writeln!(text, " {}", hex(&attribute[4..])).unwrap();
        }
        bytes = rest;
    }
}

fn encode(ops: &[Op], generation: Option<u32>) -> Batch {
    let mut batch = Batch::default();
    let terms = Terms {
        table: TABLE,
        sequence: 100,
        generation,
        flags: 6,
    };
    batch.encode(ops, &terms).unwrap();
    batch
}

#[test]
fn operations_and_rules_have_the_bytes_that_were_captured() {
    let mut text = String::new();
    // The frame is rustables' for the first operation, and this crate's for elements alone.
    let mut framed = [false; 2];
    for op in operations() {
        let batch = encode(std::slice::from_ref(&op), Some(0x0102_0304));
        let seen = std::mem::replace(&mut framed[usize::from(op.is_elements())], true);
        let described = describe(batch.bytes().unwrap(), !seen);
        writeln!(text, "{op}\n{described}").unwrap();
    }
    for (family, rule) in rules() {
        writeln!(text, "{family}: {rule}").unwrap();
        for (expression, bytes) in lower(family, &rule).iter().zip(expressions(family, &rule)) {
            let kind = format!("{expression:?}");
            let kind = kind.split([' ', '(']).next().unwrap_or_default();
            writeln!(text, "  {kind:10} {}", hex(&bytes)).unwrap();
        }
    }
    expect_file!["golden.txt"].assert_eq(&text);
}

#[test]
fn bytecode_is_read_back_as_the_rule_that_was_written() {
    for (family, rule) in rules() {
        let read: Vec<Expression> = expressions(family, &rule)
            .iter()
            .map(|bytes| Expression::read(Attributes(bytes).next().unwrap().unwrap().1).unwrap())
            .collect();
        assert_eq!(read, lower(family, &rule), "{rule}");
        assert_eq!(lift(family, &read).as_ref(), Ok(&rule), "{rule}");
        // Nothing shorter is mistaken for a rule that says more.
        for length in 0..read.len() {
            let other = lift(family, &read[..length]);
            assert_ne!(other.as_ref(), Ok(&rule), "{rule}");
            // And no step is passed over.
            let mut without = read.clone();
            without.remove(length);
            assert_ne!(
                lift(family, &without).as_ref(),
                Ok(&rule),
                "{rule} without step {length}"
            );
        }
    }
}

/// What every bit of an expression says is read, or the expression is refused: never does a changed one pass for the
/// original.
#[test]
fn a_changed_bit_is_never_overlooked() {
    for (family, rule) in rules() {
        for bytes in expressions(family, &rule) {
            let original = Expression::read(&bytes[4..]).unwrap();
            for position in 4..bytes.len() {
                for bit in 0..8 {
                    let mut changed = bytes.clone();
                    changed[position] ^= 1 << bit;
                    if let Ok(read) = Expression::read(&changed[4..])
                        && read == original
                    {
                        assert!(
                            is_padding_or_mark(&bytes, position),
                            "{original:?} at {position}: {}",
                            hex(&changed)
                        );
                    }
                }
            }
        }
    }
}

/// Padding behind an attribute, a final 0 of a text or its length, and the two flags in a type: nothing that the
/// kernel would give a meaning.
fn is_padding_or_mark(bytes: &[u8], position: usize) -> bool {
    fn meaning(bytes: &[u8], start: usize, out: &mut [bool]) {
        let mut at = 0;
        while at + 4 <= bytes.len() {
            let length = usize::from(u16::from_ne_bytes([bytes[at], bytes[at + 1]]));
            let kind = u16::from_ne_bytes([bytes[at + 2], bytes[at + 3]]);
            // The type but for its two highest bits.
            out[start + at + 2] = true;
            if kind & a::NESTED != 0 {
                out[start + at] = true;
                meaning(&bytes[at + 4..at + length], start + at + 4, out);
            } else {
                let text_end = usize::from(bytes[at + 4..at + length].last() == Some(&0) && length != 8);
                out[start + at + 4..start + at + length - text_end].fill(true);
            }
            at += length.next_multiple_of(4);
        }
    }
    let mut meaningful = vec![false; bytes.len()];
    meaning(bytes, 0, &mut meaningful);
    !meaningful[position]
}

#[test]
fn one_acknowledgement_is_asked_for_and_errors_find_their_operation() {
    let wanted: Ruleset = everything("net1");
    let ops = transaction(None, Some(&wanted));
    let batch = encode(&ops, None);
    let messages: Vec<_> = Messages(batch.bytes().unwrap()).map(Result::unwrap).collect();
    assert_eq!(messages.len(), ops.len() + 2);
    for (position, message) in messages.iter().enumerate() {
        assert_eq!(message.sequence, 100 + u32::try_from(position).unwrap());
        let operation = position.checked_sub(1).filter(|operation| *operation < ops.len());
        assert_eq!(batch.operation_of(message.sequence), operation);
        // NLM_F_ACK
        assert_eq!(message.flags & 4 != 0, position == ops.len(), "message {position}");
    }
    assert_eq!(usize::try_from(batch.sequences()), Ok(messages.len()));
    assert_eq!(batch.last_sequence(), 100 + u32::try_from(ops.len()).unwrap());
    assert_eq!(batch.operation_of(99), None);
}

#[test]
fn elements_are_split_into_messages_of_one_operation() {
    use ringfence_model::Family;
    use ringfence_ruleset::{Element, SetKind};
    let elements: Vec<Element> = (0..2_500_u32)
        .map(|n| Element::Address(std::net::Ipv4Addr::from_bits(n).into()))
        .collect();
    let add = Op::AddElements {
        family: TableFamily::Inet,
        set: name("a"),
        kind: SetKind::Addresses(Family::V4),
        elements,
    };
    let batch = encode(&[add.clone(), add], None);
    let sizes: Vec<usize> = Messages(batch.bytes().unwrap())
        .map(|message| message.unwrap().payload.len())
        .collect();
    assert_eq!(sizes.len(), 8);
    assert!(sizes.iter().all(|size| *size < 65_536), "{sizes:?}");
    let operations: Vec<_> = (101..107).map(|sequence| batch.operation_of(sequence)).collect();
    assert_eq!(operations, [Some(0), Some(0), Some(0), Some(1), Some(1), Some(1)]);
}
