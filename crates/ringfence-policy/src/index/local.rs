//! The pods that have rulesets.

use ringfence_model::{Direction, Family, NamespacedName, Network, NetworkName, Pod, PodUid};
use ringfence_ruleset::{Name, Ruleset};

use super::Index;
use super::peer_tables::{PeerTable, PeerTableId, World};
use super::view::{AttachmentView, PodView};
use crate::TargetFacts;
use crate::compile::{Environment, PeerSet, compile};
use crate::plan::{PodPlan, namespace_isolation, plan};

/// A pod to protect.
#[derive(Default)]
pub(super) struct LocalPod {
    /// As it is now; `None` between its end and the next commit.
    pub(super) pod: Option<Pod>,
    /// As of the last commit.
    pub(super) ruleset: Option<Ruleset>,
    /// As of the last commit; `None` before the first one.
    pub(super) view: Option<PodView>,
    /// The tables it uses, as often as it uses them.
    tables: Vec<PeerTableId>,
    /// Which set of the ruleset holds which elements.
    links: Vec<Link>,
}

/// A set of the ruleset that follows a table of peers.
struct Link {
    table: PeerTableId,
    set: PeerSet,
    family: Family,
    name: Name,
}

impl LocalPod {
    /// Takes over the elements of a table; whether any set is another one than before.
    pub(super) fn take_elements(&mut self, id: PeerTableId, table: &PeerTable) -> bool {
        let Some(ruleset) = &mut self.ruleset else { return false };
        let mut changed = false;
        for link in self.links.iter().filter(|link| link.table == id) {
            let (Some(ours), Some(current)) = (
                ruleset.inet.sets.get_mut(&link.name),
                table.elements(link.set, link.family),
            ) else {
                continue;
            };
            // Comparing skips what both have in common, and nearly everything is.
            if !ours.elements.ptr_eq(current) && ours.elements != *current {
                ours.elements = current.clone();
                changed = true;
            }
        }
        changed
    }
}

impl Index {
    /// Compiles a local pod anew; whether its ruleset or view is another one now. The tables that it used before are
    /// added to `given_up`.
    pub(super) fn rebuild_local(&mut self, uid: &PodUid, given_up: &mut Vec<(PeerTableId, PodUid)>) -> bool {
        let Some(local) = self.locals.get_mut(uid) else {
            return false;
        };
        given_up.extend(
            std::mem::take(&mut local.tables)
                .into_iter()
                .map(|table| (table, uid.clone())),
        );
        let Some(pod) = local.pod.take() else {
            let known = local.view.is_some();
            self.locals.remove(uid);
            return known;
        };
        let namespace = &pod.name.namespace;
        let isolation = self
            .objects
            .namespace(namespace)
            .is_some_and(|namespace| namespace.isolate_ingress)
            .then(|| namespace_isolation(namespace));
        let is_dhcp = |network: &NetworkName| match network {
            NetworkName::Namespaced(name) => self.definitions.get(name).is_some_and(uses_dhcp),
            NetworkName::Default | NetworkName::Plugin(_) | NetworkName::Interface(_) => false,
        };
        let plan = plan(
            &pod,
            self.policies_of(namespace).chain(&isolation),
            self.options.scope,
            is_dhcp,
        );
        let view = view_of(&pod, &plan);
        let mut ruleset = None;
        let mut tables = Vec::new();
        let mut links = Vec::new();
        if plan.is_isolated() {
            let unknown = TargetFacts::default();
            let environment = Environment {
                kernel: self.options.kernel,
                node_addresses: &self.options.node_addresses,
                host_addresses: &pod.host_addresses,
                facts: self.facts.get(uid).unwrap_or(&unknown),
            };
            let compiled = compile(uid, &plan, &environment);
            (tables, links) = self.link(uid, &plan, compiled.links);
            ruleset = Some(compiled.ruleset);
        }
        let Some(local) = self.locals.get_mut(uid) else {
            return false;
        };
        let before = (std::mem::replace(&mut local.ruleset, ruleset), local.view.replace(view));
        local.pod = Some(pod);
        local.tables = tables;
        local.links = links;
        for id in local.tables.clone() {
            if let Some(table) = self.tables.get(id) {
                local.take_elements(id, table);
            }
        }
        before.0 != local.ruleset || before.1 != local.view
    }

    /// Acquires the tables that the sets of a compiled ruleset follow.
    fn link(
        &mut self,
        uid: &PodUid,
        plan: &PodPlan,
        sets: Vec<crate::compile::SetLink>,
    ) -> (Vec<PeerTableId>, Vec<Link>) {
        let mut tables = Vec::new();
        let mut acquired = Vec::new();
        for (position, interface) in plan.interfaces.iter().enumerate() {
            for direction in Direction::BOTH {
                let Some(table) = interface.table(direction) else {
                    continue;
                };
                if table.peers.layout().is_empty() {
                    continue;
                }
                let mut world = World {
                    objects: &mut self.objects,
                    selectors: &mut self.selectors,
                    networks: &mut self.networks,
                    claims: &self.claims,
                };
                let id = self.tables.acquire(&table.peers, uid, &mut world);
                tables.push(id);
                acquired.push((position, direction, id));
            }
        }
        let links = sets.into_iter().filter_map(|set| {
            let (_, _, table) = acquired
                .iter()
                .find(|(position, direction, _)| *position == set.interface && *direction == set.direction)?;
            Some(Link {
                table: *table,
                set: set.set,
                family: set.family,
                name: set.name,
            })
        });
        let links = links.collect();
        (tables, links)
    }
}

/// Whether a network's addresses come by DHCP.
pub(super) fn uses_dhcp(network: &Network) -> bool {
    network.ipam.iter().any(|kind| **kind == *"dhcp")
}

fn view_of(pod: &Pod, plan: &PodPlan) -> PodView {
    let attachments = pod
        .attachments
        .iter()
        .zip(&plan.isolation)
        .map(|(attachment, isolation)| {
            let [ingress, egress] = isolation.clone();
            AttachmentView {
                attachment: attachment.clone(),
                ingress,
                egress,
            }
        });
    PodView {
        uid: pod.uid.clone(),
        name: NamespacedName::clone(&pod.name),
        terminal: pod.terminal,
        attachments: attachments.collect(),
    }
}
