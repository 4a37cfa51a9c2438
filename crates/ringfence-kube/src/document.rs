//! Files into documents, documents into values.
//!
//! Documents are cut apart before they are parsed, because a YAML parser cannot go on behind a syntax error, and one
//! broken document must not hide the policies after it. `---` and `...` at the start of a line separate documents
//! wherever they stand (YAML 1.2.2, section 9.1.2: no scalar may contain them there), so this needs no parser.

use ringfence_model::{Reason, Source};
use serde_json::Value;

use crate::decode::{Item, decode_items, unidentified};

/// Deepest nesting of a document. Kubernetes objects need about 20; the limit keeps every recursion off the end of
/// the stack. JSON has its own, of the same size, in its parser.
const DEEPEST: usize = 128;
/// Most parser events that aliases may repeat in one document: bombs multiply, manifests do not.
const MOST_REPEATED: usize = 100_000;

/// One document of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Document {
    /// Its objects: several in a `List`, none in one that is passed over.
    pub(crate) items: Vec<Item>,
    /// Whether it is no YAML or JSON at all.
    pub(crate) broken: bool,
    /// Kind, namespace and name as far as the text of a broken document shows them.
    pub(crate) guess: Option<Guess>,
}

/// What a broken document seems to be about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Guess {
    pub(crate) kind: String,
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
}

impl Guess {
    /// Whether that is what diagnostics call by this name.
    pub(crate) fn names(&self, source: &Source) -> bool {
        let namespace = self.namespace.as_deref().unwrap_or("default");
        *self.kind == *source.kind
            && (*self.name == *source.name || *format!("{namespace}/{}", self.name) == *source.name)
    }
}

/// All documents of a text that hold something, in their order.
pub(crate) fn read(text: &str, origin: &str) -> Vec<Document> {
    read_and_show(text, origin, &mut |_| ())
}

/// The same, and shows every document's value to somebody who wants more of it than its objects.
pub(crate) fn read_and_show(text: &str, origin: &str, show: &mut dyn FnMut(&Value)) -> Vec<Document> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut documents = Vec::new();
    for (first_line, part) in parts(text) {
        let number = documents.len() + 1;
        match values(part) {
            Ok(values) => {
                for value in values.into_iter().filter(|value| !value.is_null()) {
                    show(&value);
                    let place = format!("document {}: ", documents.len() + 1);
                    documents.push(Document {
                        items: decode_items(&value, origin, &place),
                        broken: false,
                        guess: None,
                    });
                }
            }
            Err(error) => {
                let line = first_line + error.line.saturating_sub(1);
                let message = format!("document {number}, line {line}: {}", error.message);
                documents.push(Document {
                    items: vec![unidentified(origin, Reason::Syntax, message)],
                    broken: true,
                    guess: guess(part),
                });
            }
        }
    }
    documents
}

/// The text between separators, with the number of its first line, counted from 1. Parts that hold only comments and
/// directives are left out.
fn parts(text: &str) -> Vec<(usize, &str)> {
    let mut parts = Vec::new();
    let mut start = (1, 0);
    let mut offset = 0;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let number = index + 1;
        let bare = line.trim_end();
        if bare == "---" || bare.starts_with("--- ") || bare.starts_with("---\t") {
            parts.push((start.0, &text[start.1..offset]));
            start = (number, offset);
        } else if bare == "..." || bare.starts_with("... ") {
            parts.push((start.0, &text[start.1..offset]));
            start = (number + 1, offset + line.len());
        }
        offset += line.len();
    }
    parts.push((start.0, &text[start.1..]));
    parts.retain(|(_, part)| {
        part.lines().any(|line| {
            let line = line.trim();
            let line = line.strip_prefix("---").map_or(line, str::trim_start);
            !(line.is_empty() || line.starts_with('#') || line.starts_with('%'))
        })
    });
    parts
}

struct SyntaxError {
    /// Within the part, counted from 1.
    line: usize,
    message: String,
}

fn values(part: &str) -> Result<Vec<Value>, SyntaxError> {
    let body = part.strip_prefix("---").unwrap_or(part).trim_start();
    if body.starts_with(['{', '[']) {
        // Several JSON documents may follow each other without a separator.
        let json: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(body).into_iter().collect();
        if let Ok(values) = json {
            return Ok(values);
        }
    }
    yaml(part).map(|value| vec![value])
}

fn yaml(part: &str) -> Result<Value, SyntaxError> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEEPEST,
            flow_nesting_limit: DEEPEST,
            // Without aliases these are bounded by the length of the text, which is in memory already.
            max_events: usize::MAX,
            max_nodes: usize::MAX,
            max_total_scalar_bytes: usize::MAX,
            max_recorded_anchor_events: MOST_REPEATED,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MOST_REPEATED,
            max_replay_stack_depth: 16,
        },
        emit_comments: false,
        with_snippet: false,
        // `name: y` and `team: on` mean texts; YAML 1.1 would make booleans of them.
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        non_finite_float_policy: serde_saphyr::options::NonFiniteFloatPolicy::AsString,
    };
    serde_saphyr::from_str_with_options(part, options).map_err(|error| SyntaxError {
        line: error
            .location()
            .and_then(|at| usize::try_from(at.line()).ok())
            .unwrap_or(1),
        message: one_line(&error.to_string()),
    })
}

/// The parser's words, cut, and without its advice to programmers.
fn one_line(message: &str) -> String {
    let message = message.split(" at line ").next().unwrap_or(message);
    let message = message.split(", set DuplicateKeyPolicy").next().unwrap_or(message);
    let line: String = message
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(200)
        .collect();
    format!("no valid YAML or JSON: {line}")
}

/// Looks for the lines `kind:` and, below `metadata:`, `name:` and `namespace:`. A wrong guess does no harm: it only
/// says which known object keeps its last good state.
fn guess(part: &str) -> Option<Guess> {
    let mut kind = None;
    let mut name = None;
    let mut namespace = None;
    let mut metadata_indent: Option<Option<usize>> = None;
    for line in part.lines() {
        let trimmed = line.trim_start();
        let indent = line.len() - trimmed.len();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let scalar = |key: &str| {
            let value = trimmed.strip_prefix(key)?.strip_prefix(':')?;
            let value = value.split(" #").next().unwrap_or(value);
            let value = value.trim().trim_matches(['"', '\'']);
            (!value.is_empty() && value.len() <= 253).then(|| value.to_owned())
        };
        if indent == 0 {
            metadata_indent = (trimmed.trim_end() == "metadata:").then_some(None);
            kind = kind.or_else(|| scalar("kind"));
        } else if let Some(level) = &mut metadata_indent
            && *level.get_or_insert(indent) == indent
        {
            name = name.or_else(|| scalar("name"));
            namespace = namespace.or_else(|| scalar("namespace"));
        }
    }
    Some(Guess {
        kind: kind?,
        namespace,
        name: name?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_at_separators_only() {
        let check = |text: &str, expected: &[(usize, &str)]| assert_eq!(parts(text), expected, "{text:?}");
        check("", &[]);
        check("# nothing\n---\n# still nothing\n", &[]);
        check("a: 1\n", &[(1, "a: 1\n")]);
        check("---\na: 1\n---\nb: 2\n", &[(1, "---\na: 1\n"), (3, "---\nb: 2\n")]);
        check("a: |\n  ---\n  x\n", &[(1, "a: |\n  ---\n  x\n")]);
        check("a: ---\n----\n", &[(1, "a: ---\n----\n")]);
        check("%YAML 1.2\n---\na: 1\n...\n# end\n", &[(2, "---\na: 1\n")]);
        check(
            "--- {a: 1}\n--- # note\nb: 2",
            &[(1, "--- {a: 1}\n"), (2, "--- # note\nb: 2")],
        );
        check("a: 1\r\n---\r\nb: 2\r\n", &[(1, "a: 1\r\n"), (2, "---\r\nb: 2\r\n")]);
    }

    #[test]
    fn broken_documents_still_show_their_name() {
        let guess = guess("apiVersion: v1\nkind: Pod # web\nmetadata:\n  labels:\n    name: no\n  name: 'web'\n  namespace: x\nspec: [").unwrap();
        assert_eq!(
            (guess.kind.as_str(), guess.namespace.as_deref(), guess.name.as_str()),
            ("Pod", Some("x"), "web")
        );
    }
}
