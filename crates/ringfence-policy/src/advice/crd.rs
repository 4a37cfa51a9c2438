//! Definitions of MultiNetworkPolicy that lose endPort, and whom that concerns (RF601, RF602; statement 224).

use ringfence_model::{PolicyCrd, PolicyKind, PortMatch, Ports, Source};

use super::world::{World, rules};
use super::{Code, Out, hints};

fn losing(definition: &PolicyCrd) -> Vec<&str> {
    let versions = definition.versions.iter().filter(|version| !version.keeps_end_port);
    versions.map(|version| &*version.name).collect()
}

pub(super) fn look_at_definitions(definitions: &[PolicyCrd], out: &mut Out) {
    for definition in definitions {
        let versions = losing(definition);
        if versions.is_empty() {
            continue;
        }
        let source = Source {
            kind: "CustomResourceDefinition".into(),
            name: definition.name.clone(),
        };
        let message = format!(
            "the schema of {} has no endPort: the API server drops the field without a word, and a range of ports becomes \
             its first port",
            hints::some(versions)
        );
        let hint = "install a definition that has endPort under spec.ingress[].ports[] and spec.egress[].ports[]";
        out.say(Code::DefinitionWithoutEndPort, &source, "spec.versions", message, hint);
    }
}

pub(super) fn look(definitions: &[PolicyCrd], world: &World<'_>, position: usize, out: &mut Out) {
    let target = &world.policies[position];
    let affected = definitions.iter().any(|definition| !losing(definition).is_empty());
    if target.policy.key.kind != PolicyKind::MultiNetworkPolicy || !affected {
        return;
    }
    for (direction, number, rule) in rules(target.policy) {
        let Ports::OneOf(ports) = &rule.ports else { continue };
        for (entry, port) in ports.iter().enumerate() {
            if let PortMatch::Range(range) = port
                && range.first != range.last
                && !range.is_whole()
            {
                let message = format!(
                    "the definition in these manifests loses endPort, so that in the cluster {} to {} becomes {0} alone",
                    range.first, range.last
                );
                let hint = "install a definition that has endPort, or list the ports one by one";
                let path = format!("spec.{direction}[{number}].ports[{entry}].endPort");
                out.say(Code::EndPortLost, &target.source, path, message, hint);
            }
        }
    }
}
