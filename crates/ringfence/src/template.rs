//! Where a pod's network namespace is found: a path with `{namespace}`, `{name}` and `{uid}` in it.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ringfence_model::Pod;
use serde::Deserialize;

/// A part of the template.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Namespace,
    Name,
    Uid,
}

/// A checked template. Two pods that exist at the same time never have the same path.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct NetnsTemplate {
    pieces: Vec<Piece>,
}

/// A name of a pod that cannot be a part of a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} cannot be a part of a path, so the pod's network namespace cannot be found")]
pub struct UnsafeName {
    /// The offending name.
    pub value: String,
}

impl NetnsTemplate {
    /// The path for a pod. Names come from objects, so none may lead out of its place in the path (invariant 9).
    pub fn path(&self, pod: &Pod) -> Result<PathBuf, UnsafeName> {
        let mut out = String::new();
        for piece in &self.pieces {
            let value = match piece {
                Piece::Text(text) => {
                    out.push_str(text);
                    continue;
                }
                Piece::Namespace => &*pod.name.namespace,
                Piece::Name => &*pod.name.name,
                Piece::Uid => pod.uid.as_str(),
            };
            if value.is_empty() || value.contains(['/', '\0']) || value.contains("..") || value == "." {
                return Err(UnsafeName {
                    value: value.to_owned(),
                });
            }
            out.push_str(value);
        }
        Ok(out.into())
    }

    /// Every existing path that some pod could have, sorted. Folders that cannot be read have none.
    pub fn candidates(&self) -> Vec<PathBuf> {
        let text = self.to_string();
        let mut found = vec![PathBuf::from("/")];
        for component in text.split('/').filter(|component| !component.is_empty()) {
            found = found
                .iter()
                .flat_map(|folder| {
                    if component.contains('{') {
                        entries(folder)
                    } else {
                        vec![folder.join(component)]
                    }
                })
                .collect();
        }
        found.retain(|path| path.exists());
        found.sort();
        found
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).map_or_else(
        |_| Vec::new(),
        |entries| entries.flatten().map(|entry| entry.path()).collect(),
    )
}

impl FromStr for NetnsTemplate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if !text.starts_with('/') {
            return Err("the path must be absolute".to_owned());
        }
        if text.split('/').any(|component| component == "..") {
            return Err("the path must not contain ..".to_owned());
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find(['{', '}']) {
            if open > 0 {
                pieces.push(Piece::Text(rest[..open].to_owned()));
            }
            let close = rest[open..].find('}').map(|length| open + length);
            let placeholder = close.map(|close| &rest[open..=close]);
            pieces.push(match placeholder {
                Some("{namespace}") => Piece::Namespace,
                Some("{name}") => Piece::Name,
                Some("{uid}") => Piece::Uid,
                Some(other) => {
                    return Err(format!(
                        "unknown placeholder {other}: there are {{namespace}}, {{name}} and {{uid}}"
                    ));
                }
                None => return Err("a { has no }".to_owned()),
            });
            rest = close.map_or("", |close| &rest[close + 1..]);
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        let has = |piece: &Piece| pieces.contains(piece);
        if has(&Piece::Uid) {
            Ok(Self { pieces })
        } else if !has(&Piece::Namespace) || !has(&Piece::Name) {
            Err("it needs {uid}, or {namespace} and {name}, so that each pod has a path of its own".to_owned())
        } else if is_ambiguous(&pieces) {
            Err(
                "between {namespace} and {name} it needs a character that no namespace has in its name, such as / . or _: \
                 with a hyphen, pod b-c of namespace a and pod c of namespace a-b would have one path"
                    .to_owned(),
            )
        } else {
            Ok(Self { pieces })
        }
    }
}

/// Whether a namespace's name and a pod's could run into each other: namespaces have names of `a-z`, `0-9` and `-`, so any
/// other character between the two tells where the namespace's ends.
fn is_ambiguous(pieces: &[Piece]) -> bool {
    let mut last = None;
    let mut told = false;
    for piece in pieces {
        match piece {
            Piece::Text(text) => {
                told |= !text
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
            }
            Piece::Uid => {}
            Piece::Namespace | Piece::Name => {
                if last.is_some_and(|last| last != piece) && !told {
                    return true;
                }
                (last, told) = (Some(piece), false);
            }
        }
    }
    false
}

/// `/run/netns/{namespace}.{name}`
impl Default for NetnsTemplate {
    fn default() -> Self {
        let text = |text: &str| Piece::Text(text.to_owned());
        Self {
            pieces: vec![text("/run/netns/"), Piece::Namespace, text("."), Piece::Name],
        }
    }
}

impl fmt::Display for NetnsTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pieces.iter().try_for_each(|piece| {
            f.write_str(match piece {
                Piece::Text(text) => text,
                Piece::Namespace => "{namespace}",
                Piece::Name => "{name}",
                Piece::Uid => "{uid}",
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    #[track_caller]
    fn check(template: &str, namespace: &str, name: &str, expected: Result<&str, &str>) {
        let result = template
            .parse::<NetnsTemplate>()
            .and_then(|template| template.path(&pod(namespace, name)).map_err(|error| error.to_string()));
        match (&result, expected) {
            (Ok(path), Ok(expected)) => assert_eq!(path, Path::new(expected)),
            (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
            _ => panic!("{template} {namespace}/{name}: {result:?}"),
        }
    }

    #[test]
    fn templates_become_paths_that_no_name_leads_out_of() {
        check(
            "/run/netns/{namespace}.{name}",
            "shop",
            "web",
            Ok("/run/netns/shop.web"),
        );
        check("/run/{namespace}/{name}/net", "shop", "web", Ok("/run/shop/web/net"));
        check("/run/netns/cni-{uid}", "shop", "web", Ok("/run/netns/cni-uid-shop.web"));
        check(
            "/run/netns/{namespace}.{name}",
            "shop",
            "..",
            Err("cannot be a part of a path"),
        );
        check(
            "/run/netns/{namespace}.{name}",
            "shop",
            "a/b",
            Err("cannot be a part of a path"),
        );
        check(
            "/run/netns/{namespace}.{name}",
            "..",
            "a",
            Err("cannot be a part of a path"),
        );
        check(
            "/run/netns/{namespace}.{name}",
            "",
            "a",
            Err("cannot be a part of a path"),
        );
        check("run/{uid}", "a", "b", Err("absolute"));
        check("/run/../{uid}", "a", "b", Err(".."));
        check("/run/{name}", "a", "b", Err("{uid}, or {namespace} and {name}"));
        check("/run/{pod}", "a", "b", Err("unknown placeholder {pod}"));
        check("/run/{uid", "a", "b", Err("a { has no }"));
        check("/run/uid}", "a", "b", Err("unknown placeholder }"));
    }

    /// Found by fuzzing: `{namespace}-{name}` gave two pods one path, so one got the rules of the other.
    #[test]
    fn no_two_pods_have_one_path() {
        let why = Err("no namespace has in its name");
        check("/run/{namespace}{name}", "a", "b", why);
        check("/run/{namespace}-{name}", "a", "b", why);
        check("/run/{name}-x-{namespace}", "a", "b", why);
        check("/run/{namespace}/{namespace}{name}", "a", "b", why);
        check("/run/{name}.{namespace}", "a", "b", Ok("/run/b.a"));
        check("/run/{namespace}-_{name}", "a", "b", Ok("/run/a-_b"));
        check("/run/{namespace}-{name}-{uid}", "a", "b", Ok("/run/a-b-uid-a.b"));
    }

    #[test]
    fn the_default_template_is_its_own_text() {
        let default = NetnsTemplate::default();
        assert_eq!(default.to_string(), "/run/netns/{namespace}.{name}");
        assert_eq!(default.to_string().parse(), Ok(default));
    }

    #[test]
    fn candidates_are_what_exists_at_the_places_of_the_placeholders() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for name in ["shop/web", "shop/db", "bank/web"] {
            fs::create_dir_all(folder.path().join(name)).expect("a folder");
            fs::write(folder.path().join(name).join("net"), "").expect("a file");
        }
        fs::create_dir(folder.path().join("shop/empty")).expect("a folder");
        let template: NetnsTemplate = format!("{}/{{namespace}}/{{name}}/net", folder.path().display())
            .parse()
            .expect("a template");
        let found: Vec<PathBuf> = template.candidates();
        let expected: Vec<PathBuf> = ["bank/web/net", "shop/db/net", "shop/web/net"]
            .iter()
            .map(|path| folder.path().join(path))
            .collect();
        assert_eq!(found, expected);
    }
}
