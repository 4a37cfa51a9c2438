//! NetworkAttachmentDefinition: which plugins make the network.

use std::collections::BTreeSet;
use std::sync::Arc;

use ringfence_model::{Consequence, NamespacedName, Network, Reason};
use serde_json::Value;

use crate::clause::{At, Fields, Findings, given, quoted, shown};
use crate::metadata::LARGEST_ANNOTATION;

/// Most plugins of one configuration list that are looked at.
const MOST_PLUGINS: usize = 64;

/// Decodes a definition. It exists whatever its configuration says, so that a policy can name it.
pub(crate) fn decode(name: NamespacedName, object: &Fields, findings: &mut Findings) -> Network {
    let mut network = Network {
        name,
        plugins: Vec::new(),
        ipam: BTreeSet::new(),
    };
    let spec = At::root("spec");
    let fields = match given(object, "spec") {
        // Legal: the configuration is then a file on the node.
        None => return network,
        Some(Value::Object(fields)) => fields,
        Some(other) => {
            let message = format!("{} instead of an object", shown(other));
            findings.error(&spec, Reason::Schema, Consequence::PartIgnored, message);
            return network;
        }
    };
    let at = spec.field("config");
    let mut reject = |reason: Reason, message: String| {
        findings.error(&at, reason, Consequence::PartIgnored, message);
    };
    let text = match given(fields, "config") {
        None => return network,
        Some(Value::String(text)) if text.trim().is_empty() => return network,
        Some(Value::String(text)) if text.len() > LARGEST_ANNOTATION => {
            reject(Reason::TooLarge, format!("the configuration has {} bytes", text.len()));
            return network;
        }
        Some(Value::String(text)) => text,
        Some(other) => {
            reject(
                Reason::Schema,
                format!("{} instead of a text that holds JSON", shown(other)),
            );
            return network;
        }
    };
    let config = match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(config)) => config,
        Ok(other) => {
            reject(
                Reason::Schema,
                format!("the configuration is {} instead of an object", shown(&other)),
            );
            return network;
        }
        Err(error) => {
            let message = format!(
                "{} is no JSON ({error}); the network's plugins are unknown",
                quoted(text)
            );
            reject(Reason::Syntax, message);
            return network;
        }
    };
    match config.get("plugins").and_then(Value::as_array) {
        Some(plugins) if !plugins.is_empty() => {
            for plugin in plugins.iter().take(MOST_PLUGINS).filter_map(Value::as_object) {
                add(&mut network, plugin);
            }
        }
        _ => add(&mut network, &config),
    }
    if network.plugins.is_empty() {
        reject(Reason::Schema, "no plugin in the configuration has a type".to_owned());
    }
    network
}

fn add(network: &mut Network, plugin: &Fields) {
    let text = |value: Option<&Value>| -> Option<Arc<str>> {
        value
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
            .map(Into::into)
    };
    network.plugins.extend(text(plugin.get("type")));
    network
        .ipam
        .extend(text(plugin.get("ipam").and_then(|ipam| ipam.get("type"))));
}
