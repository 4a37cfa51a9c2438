//! Writing JSON values as block YAML that people like to read.

use std::fmt::Write as _;

use serde_json::Value;

/// One document, ending with a line break.
pub(crate) fn write(value: &Value) -> String {
    let mut out = String::new();
    block(value, 0, &mut out);
    out
}

/// Writes a value whose place is the start of a line.
fn block(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (position, (key, value)) in map.iter().enumerate() {
                // The first key of a list item stands on the line of its dash.
                if position > 0 || !out.ends_with("- ") {
                    out.push_str(&" ".repeat(indent));
                }
                out.push_str(&text(key));
                out.push(':');
                after_key(value, indent, out);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                out.push_str(&" ".repeat(indent));
                out.push_str("- ");
                if matches!(item, Value::Array(inner) if !inner.is_empty()) {
                    // A list in a list is rare enough for JSON's form.
                    let _ = writeln!(out, "{item}");
                } else {
                    block(item, indent + 2, out);
                }
            }
        }
        scalar => {
            out.push_str(&inline(scalar));
            out.push('\n');
        }
    }
}

fn after_key(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push('\n');
            block(value, indent + 2, out);
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            block(value, indent + 2, out);
        }
        Value::String(long) if is_block(long) => {
            out.push_str(" |-\n");
            for line in long.lines() {
                let _ = writeln!(out, "{}{line}", " ".repeat(indent + 2));
            }
        }
        scalar => {
            out.push(' ');
            out.push_str(&inline(scalar));
            out.push('\n');
        }
    }
}

/// Whether a string comes back unchanged from a `|-` block.
fn is_block(string: &str) -> bool {
    string.contains('\n')
        && !string.starts_with([' ', '\n'])
        && !string.ends_with('\n')
        && !string.contains(|c: char| c.is_control() && c != '\n')
}

/// Scalars, and empty maps and lists.
fn inline(value: &Value) -> String {
    match value {
        Value::String(string) => text(string),
        other => other.to_string(),
    }
}

/// A string without quotes where no YAML reader could take it for something else.
fn text(string: &str) -> String {
    let plain = string.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && string
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_./@,".contains(c))
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
            .contains(&string.to_ascii_lowercase().as_str());
    if plain {
        string.to_owned()
    } else if string.contains('"') && !string.contains(|c: char| c == '\'' || c.is_control()) {
        format!("'{string}'")
    } else {
        // A JSON string is a YAML string.
        Value::String(string.to_owned()).to_string()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_as_block_yaml() {
        let check = |value: Value, expected: &str| assert_eq!(write(&value), expected);
        check(
            json!({"kind": "Pod", "metadata": {"name": "a", "labels": {}}, "list": [{"x": 1, "z": [true, "80"]}, "z", []]}),
            "kind: Pod\nmetadata:\n  name: a\n  labels: {}\nlist:\n  - x: 1\n    z:\n      - true\n      - \"80\"\n  - z\n  - []\n",
        );
        check(
            json!({"access": "true", "ip": "10.20.1.10", "v6": "fd00::1", "json": r#"{"a":1}"#, "both": "'\"", "none": null}),
            "access: \"true\"\nip: \"10.20.1.10\"\nv6: \"fd00::1\"\njson: '{\"a\":1}'\nboth: \"'\\\"\"\nnone: null\n",
        );
        check(json!({"lines": "one\n  two"}), "lines: |-\n  one\n    two\n");
        check(json!({"lines": "one\n"}), "lines: \"one\\n\"\n");
    }
}
