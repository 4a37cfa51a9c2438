//! The annotation `k8s.v1.cni.cncf.io/policy-for`: which networks a policy acts on (statements 146 to 151).

use std::collections::BTreeSet;

use ringfence_model::{Consequence, Coverage, InterfaceName, NamespacedName, NetworkName, PolicyKind, Reason};

use crate::attachments::valid_network;
use crate::clause::{At, Findings, quoted};
use crate::metadata::Metadata;

const POLICY_FOR: &str = "k8s.v1.cni.cncf.io/policy-for";
const FORM: &str = "write a comma-separated list of namespace/name, name, default or interface:NAME";

/// Decodes it.
pub(super) fn decode(kind: PolicyKind, namespace: &str, metadata: &Metadata<'_>, findings: &mut Findings) -> Coverage {
    let root = At::root("metadata");
    let at = root.field("annotations");
    let at = at.key(POLICY_FOR);
    let Some(text) = metadata.annotation(POLICY_FOR, findings) else {
        if kind == PolicyKind::MultiNetworkPolicy {
            let message = format!("the annotation is missing; {FORM}");
            findings.warn(&at, Reason::NoNetworks, Consequence::ActsNowhere, message);
            return Coverage::Networks(BTreeSet::new());
        }
        return Coverage::Scope;
    };
    let mut networks = BTreeSet::new();
    let mut invalid = 0_usize;
    // Blanks and empty items mean nothing, duplicates collapse in the set (statement 147).
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        if let Err(why) = add(item, namespace, &mut networks) {
            invalid += 1;
            let message = format!("{}: {why}; {FORM}", quoted(item));
            findings.error(&at, Reason::InvalidNetworkName, Consequence::PartIgnored, message);
        }
    }
    if networks.is_empty() {
        let message = if invalid == 0 {
            format!("the list is empty; {FORM}")
        } else {
            "no item of the list is valid".to_owned()
        };
        findings.warn(&at, Reason::NoNetworks, Consequence::ActsNowhere, message);
    }
    Coverage::Networks(networks)
}

fn add(item: &str, namespace: &str, networks: &mut BTreeSet<NetworkName>) -> Result<(), String> {
    if item == "default" {
        networks.insert(NetworkName::Default);
    } else if let Some(interface) = item.strip_prefix("interface:") {
        let interface = InterfaceName::new(interface).map_err(|error| error.to_string())?;
        networks.insert(NetworkName::Interface(interface));
    } else if let Some((namespace, name)) = item.split_once('/') {
        let namespace = valid_network(namespace)?;
        let name = valid_network(name)?;
        networks.insert(NetworkName::Namespaced(NamespacedName::new(namespace, name)));
    } else {
        // A definition or LogicalNetwork of the policy's namespace, or a CNI-Genie plugin: the two annotations do not
        // tell, and a network that does not exist does no harm.
        let name = valid_network(item)?;
        networks.insert(NetworkName::Namespaced(NamespacedName::new(namespace, name)));
        networks.insert(NetworkName::Plugin(name.into()));
    }
    Ok(())
}
