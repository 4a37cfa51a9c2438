//! Addresses that the annotations of a local pod claim, held against those that its interfaces have.
//!
//! Whoever may write a pod's annotations says which addresses have the pod's rights. Here, and only here, that can be
//! looked at: the pod runs on this node. An address that an interface does not have, while it has others of the same
//! family, gives no rights on this node, neither to others as a peer nor to the pod as a source. An interface without any
//! address of the family contradicts nothing: it may get one later (DHCP), or a virtual machine or another network stack
//! behind it has it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use ringfence_model::{Consequence, Diagnostic, Family, InterfaceName, Object, Pod, PodUid, Reason, Severity};
use ringfence_netns::Facts;

use super::Controller;
use super::pods::{pod_source, target_facts};
use crate::event::Cause;
use crate::findings::Finder;

/// The interfaces of a namespace and what is on them.
pub(super) type Interfaces = BTreeMap<InterfaceName, BTreeSet<IpAddr>>;

impl Controller {
    /// Takes in what was found in a pod's namespace.
    pub(super) fn take_facts(&mut self, pod: &PodUid, facts: Facts) {
        let Some(target) = self.targets.get_mut(pod) else {
            return;
        };
        let before = target.interfaces.replace(facts.interfaces.clone());
        let moved = before.as_ref() != Some(&facts.interfaces);
        let object = target.pod.clone();
        self.index.set_facts(pod, Some(target_facts(facts)));
        if moved {
            let believed = self.believe(&object);
            self.index.apply(Object::Pod(believed));
            self.pods_changed = true;
        }
    }

    /// A pod that nothing isolates is not listened to. Where its interfaces contradicted its claims they are looked at again.
    pub(super) fn look_again(&mut self, pods: Vec<PodUid>, now: Instant) {
        for pod in pods {
            self.open(&pod, Cause::Netns, now);
        }
    }

    /// The pod without the addresses that it claims and does not have; says which those are.
    pub(super) fn believe(&mut self, pod: &Pod) -> Pod {
        let interfaces = self.targets.get(&pod.uid).and_then(|target| target.interfaces.as_ref());
        let mut believed = pod.clone();
        let mut findings = Vec::new();
        for attachment in &mut believed.attachments {
            let found = attachment
                .interface
                .as_ref()
                .and_then(|interface| Some((interface, interfaces?.get(interface)?)));
            let Some((interface, found)) = found else { continue };
            attachment.addresses.retain(|address| {
                let contradicted = is_contradicted(*address, found);
                if contradicted {
                    findings.push(finding(pod, interface, *address));
                }
                !contradicted
            });
        }
        if let Some(target) = self.targets.get_mut(&pod.uid) {
            target.contradicted = !findings.is_empty();
        }
        let change = self.findings.replace(Finder::Claims, &pod_source(&pod.name), findings);
        self.report(&change);
        believed
    }
}

/// Whether an interface with these addresses shows that the claim is wrong.
fn is_contradicted(claimed: IpAddr, found: &BTreeSet<IpAddr>) -> bool {
    // Every interface has a link-local address, whatever else it is used for.
    let link_local = |address: &IpAddr| match address {
        IpAddr::V4(it) => it.is_link_local(),
        IpAddr::V6(it) => it.is_unicast_link_local(),
    };
    let mut others = found
        .iter()
        .filter(|address| Family::of(**address) == Family::of(claimed) && !link_local(address));
    others.next().is_some() && !found.contains(&claimed)
}

fn finding(pod: &Pod, interface: &InterfaceName, address: IpAddr) -> Diagnostic {
    Diagnostic {
        source: pod_source(&pod.name),
        path: "metadata.annotations[*]".to_owned(),
        severity: Severity::Error,
        reason: Reason::StaleAnnotation,
        message: format!(
            "{address} is claimed for interface {interface}, which has other addresses and not this one: it gives no \
             rights on this node"
        ),
        consequence: Consequence::PartIgnored,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(claimed: &str, found: &[&str], expected: bool) {
        let address = |text: &str| text.parse().expect("an address");
        let found = found.iter().map(|text| address(text)).collect();
        assert_eq!(
            is_contradicted(address(claimed), &found),
            expected,
            "{claimed} of {found:?}"
        );
    }

    #[test]
    fn a_claim_is_contradicted_by_other_addresses_of_its_family_only() {
        check("10.20.1.10", &["10.20.1.10"], false);
        check("10.20.1.10", &["10.20.1.10", "10.20.1.11"], false);
        check("10.20.1.10", &["10.20.1.11"], true);
        check("fd00::10", &["fd00::11", "fd00::12"], true);
        // Nothing yet, or of the other family, or what every interface has.
        check("10.20.1.10", &[], false);
        check("10.20.1.10", &["fd00::11"], false);
        check("fd00::10", &["fe80::1", "10.20.1.10"], false);
        check("10.20.1.10", &["169.254.7.7"], false);
    }
}
