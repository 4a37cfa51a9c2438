//! Manifests with everything that people may want to hear of them: for `ringfence check`.
//!
//! The objects and diagnostics are those of [`load`](crate::load), so that what the command finds is what the agent would
//! do. Beside them stand the file of each object, what its manifest says without effect ([`Note`]), and the definitions of
//! MultiNetworkPolicy, which no other command reads.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ringfence_model::{Direction, Note, PolicyCrd, PortName, Protocol, Source};
use serde_json::Value;

use crate::clause::{Fields, given};
use crate::crd;
use crate::decode::Decoded;
use crate::directory::Catalog;
use crate::document;
use crate::kind::{Class, Kind, classify};
use crate::load::{LoadError, for_each_file};
use crate::metadata::{identity, source_of};

/// Annotations that describe a pod's interfaces, the one that counts first.
const STATUS: [&str; 2] = [
    "k8s.v1.cni.cncf.io/network-status",
    "k8s.v1.cni.cncf.io/networks-status",
];
/// Most entries of a status that are looked at, as in decoding.
const MOST: usize = 64;

/// One manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surveyed {
    /// The file in which it stands first.
    pub file: PathBuf,
    /// The object and what is wrong with it.
    pub decoded: Decoded,
    /// What it says without effect, in the order of the manifest.
    pub notes: Vec<Note>,
}

/// All manifests of some files and folders.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Survey {
    /// In the order of files, then of documents.
    pub manifests: Vec<Surveyed>,
    /// Definitions of MultiNetworkPolicy, with their files.
    pub definitions: Vec<(PathBuf, PolicyCrd)>,
}

/// Reads files and folders as [`load`](crate::load) does.
pub fn survey(paths: &[PathBuf]) -> Result<Survey, LoadError> {
    let mut catalog = Catalog::default();
    let mut seen = Seen::default();
    for_each_file(paths, &mut |file, text| {
        let documents = document::read_and_show(text, &file.to_string_lossy(), &mut |value| {
            seen.look(file, value, None);
        });
        catalog.replace(file, documents);
    })?;
    let manifests = catalog.in_order_of_files().map(|(file, decoded)| Surveyed {
        notes: seen
            .notes
            .remove(&(file.to_owned(), decoded.source.clone()))
            .unwrap_or_default(),
        file: file.to_owned(),
        decoded,
    });
    Ok(Survey {
        manifests: manifests.collect(),
        definitions: seen.definitions,
    })
}

#[derive(Default)]
struct Seen {
    /// Of an object that a file gives several times those of the first, which counts.
    notes: BTreeMap<(PathBuf, Source), Vec<Note>>,
    definitions: Vec<(PathBuf, PolicyCrd)>,
}

impl Seen {
    /// Looks at an object, or at the items of a list. `inherited` is what a typed list gives to its items.
    fn look(&mut self, file: &Path, value: &Value, inherited: Option<(&str, &str)>) {
        let Value::Object(fields) = value else { return };
        let text = |name: &str| fields.get(name).and_then(Value::as_str);
        let kind = text("kind").or(inherited.map(|(kind, _)| kind));
        let api_version = text("apiVersion").or(inherited.map(|(_, version)| version));
        let (Some(kind), Some(api_version)) = (kind, api_version) else {
            return;
        };
        match classify(api_version, kind) {
            Class::Read(kind, _) => self.note(file, kind, fields),
            Class::List => {
                let item = kind.strip_suffix("List").filter(|kind| !kind.is_empty());
                let items = fields.get("items").and_then(Value::as_array);
                for value in items.into_iter().flatten() {
                    self.look(file, value, item.map(|kind| (kind, api_version)));
                }
            }
            Class::PassOver => self
                .definitions
                .extend(crd::decode(value).map(|definition| (file.to_owned(), definition))),
            Class::Unknown(_) => {}
        }
    }

    fn note(&mut self, file: &Path, kind: Kind, fields: &Fields) {
        let notes = match kind {
            Kind::NetworkPolicy | Kind::MultiNetworkPolicy => policy(fields),
            Kind::Pod => pod(fields),
            Kind::Namespace | Kind::NetworkAttachmentDefinition => Vec::new(),
        };
        if let Ok(name) = identity(kind, fields) {
            let key = (file.to_owned(), source_of(kind, &name));
            self.notes.entry(key).or_insert(notes);
        }
    }
}

fn policy(object: &Fields) -> Vec<Note> {
    let Some(Value::Object(spec)) = given(object, "spec") else {
        return Vec::new();
    };
    let rules = |direction: Direction| given(spec, direction.as_str()).and_then(Value::as_array);
    let mut notes = Vec::new();
    let types = given(spec, "policyTypes").and_then(Value::as_array);
    let names = |name: &str| types.is_some_and(|types| types.iter().any(|it| it.as_str() == Some(name)));
    let (ingress, egress) = (names("Ingress"), names("Egress"));
    // Without a valid entry decoding has said what happens.
    if ingress != egress {
        let ignored = if ingress { Direction::Egress } else { Direction::Ingress };
        if rules(ignored).is_some_and(|rules| !rules.is_empty()) {
            notes.push(Note::IgnoredRules { direction: ignored });
        }
    }
    let by_default = given(spec, "policyTypes").is_none() || types.is_some_and(Vec::is_empty);
    if by_default && rules(Direction::Egress).is_some_and(Vec::is_empty) {
        notes.push(Note::EmptyEgress);
    }
    for (direction, peers) in [(Direction::Ingress, "from"), (Direction::Egress, "to")] {
        for (position, rule) in rules(direction).into_iter().flatten().enumerate() {
            for list in [peers, "ports"] {
                if rule.get(list).and_then(Value::as_array).is_some_and(Vec::is_empty) {
                    let path = format!("spec.{direction}[{position}].{list}");
                    notes.push(Note::EmptyList { path });
                }
            }
        }
    }
    notes
}

fn pod(object: &Fields) -> Vec<Note> {
    let at = |pointer: &[&str]| {
        let (first, rest) = pointer.split_first()?;
        rest.iter()
            .try_fold(object.get(*first)?, |value, name| value.get(*name))
    };
    let mut notes = Vec::new();
    let containers = at(&["spec", "initContainers"]).and_then(Value::as_array);
    for container in containers.into_iter().flatten() {
        if container.get("restartPolicy").and_then(Value::as_str) == Some("Always") {
            continue;
        }
        let ports = container.get("ports").and_then(Value::as_array);
        notes.extend(ports.into_iter().flatten().filter_map(init_port));
    }
    let status = STATUS.iter().find_map(|key| at(&["metadata", "annotations", key]));
    // A broken one has been reported.
    let entries = status
        .and_then(Value::as_str)
        .filter(|text| text.contains("device-info"))
        .and_then(|text| serde_json::from_str::<Value>(text).ok());
    let entries = entries.as_ref().and_then(Value::as_array);
    for entry in entries.into_iter().flatten().take(MOST) {
        let device = entry.pointer("/device-info/type").and_then(Value::as_str);
        let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default().into();
        if let Some(device) = device.filter(|device| matches!(*device, "vhost-user" | "memif")) {
            notes.push(Note::UserspaceInterface {
                interface: text("interface"),
                network: text("name"),
                device: device.into(),
            });
        }
    }
    notes
}

fn init_port(port: &Value) -> Option<Note> {
    let protocol = match port.get("protocol").and_then(Value::as_str) {
        None | Some("") => Protocol::Tcp,
        Some(text) => Protocol::ALL.into_iter().find(|it| it.as_str() == text)?,
    };
    Some(Note::InitPort {
        name: PortName::new(port.get("name")?.as_str()?).ok()?,
        protocol,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[Note]) {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("all.yaml");
        std::fs::write(&file, text).expect("written");
        let survey = survey(std::slice::from_ref(&file)).expect("read");
        let notes: Vec<Note> = survey.manifests.into_iter().flat_map(|it| it.notes).collect();
        assert_eq!(notes, expected, "{text}");
    }

    fn policy(spec: &str) -> String {
        format!("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p}}\nspec: {spec}\n")
    }

    #[test]
    fn s019_s020_s024_s030_s031_what_a_policy_says_without_effect() {
        let ignored = |direction| Note::IgnoredRules { direction };
        let empty = |path: &str| Note::EmptyList { path: path.to_owned() };
        check(
            &policy("{policyTypes: [Ingress], egress: [{}]}"),
            &[ignored(Direction::Egress)],
        );
        check(
            &policy("{policyTypes: [Egress], ingress: [{}]}"),
            &[ignored(Direction::Ingress)],
        );
        check(
            &policy("{policyTypes: [Ingress, Egress], egress: [{}], ingress: [{}]}"),
            &[],
        );
        check(&policy("{policyTypes: [Ingress], egress: []}"), &[]);
        check(&policy("{egress: [{}], ingress: [{}]}"), &[]);
        check(&policy("{policyTypes: [ingress], egress: [{}]}"), &[]);
        check(&policy("{egress: []}"), &[Note::EmptyEgress]);
        check(&policy("{policyTypes: [], egress: []}"), &[Note::EmptyEgress]);
        check(&policy("{policyTypes: [Egress], egress: []}"), &[]);
        check(
            &policy("{ingress: [{}, {from: [], ports: []}], egress: [{to: []}]}"),
            &[
                empty("spec.ingress[1].from"),
                empty("spec.ingress[1].ports"),
                empty("spec.egress[0].to"),
            ],
        );
    }

    #[test]
    fn s094_s167_what_a_pod_says_without_effect() {
        let pod = |rest: &str| format!("apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\n{rest}\n");
        check(
            &pod(
                "spec:\n  initContainers:\n  - ports: [{name: web, containerPort: 80}]\n  - restartPolicy: Always\n    \
                  ports: [{name: side, containerPort: 81}]",
            ),
            &[Note::InitPort {
                name: PortName::new("web").expect("a name"),
                protocol: Protocol::Tcp,
            }],
        );
        let status = |device: &str| {
            pod(&format!(
                "  annotations:\n    k8s.v1.cni.cncf.io/network-status: '[{{\"name\":\"x/a\",\"interface\":\"net1\",\
                 \"device-info\":{{\"type\":\"{device}\"}}}}]'"
            ))
        };
        check(
            &status("memif"),
            &[Note::UserspaceInterface {
                interface: "net1".into(),
                network: "x/a".into(),
                device: "memif".into(),
            }],
        );
        check(&status("pci"), &[]);
    }

    #[test]
    fn of_two_manifests_of_one_object_the_first_counts() {
        let twice = format!("{}---\n{}", policy("{egress: []}"), policy("{egress: [{to: []}]}"));
        check(&twice, &[Note::EmptyEgress]);
    }

    #[test]
    fn items_of_lists_are_looked_at() {
        check(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicyList\nitems:\n- metadata: {name: p}\n  spec: {egress: []}\n",
            &[Note::EmptyEgress],
        );
    }
}
