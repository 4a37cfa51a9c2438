//! Which pods a policy selects (RF101 to RF103).

use super::world::World;
use super::{Code, Out, hints};

const PATH: &str = "spec.podSelector";

pub(super) fn look(world: &mut World<'_>, position: usize, out: &mut Out) {
    let target = &world.policies[position];
    let (policy, selected, source) = (target.policy, target.selected, target.source.clone());
    let namespace = &policy.key.name.namespace;
    // An invalid selector has been reported, and without any pod nobody can tell.
    let Some(selector) = &policy.target else { return };
    if world.pods.is_empty() {
        return;
    }
    if !world.knows_namespace(namespace) {
        let message = format!("neither namespace {namespace} nor a pod in it is in these manifests");
        let near = hints::near_names(namespace, world.namespace_names());
        let hint = format!("correct metadata.namespace, or add the namespace and its pods{near}");
        out.say(Code::UnknownNamespace, &source, "metadata.namespace", message, hint);
        return;
    }
    let pods = world.set(selected);
    if pods.is_empty() {
        let shown = hints::selector(selector);
        let message = if world.has_pods(namespace) {
            format!(
                "no pod of namespace {namespace} matches {shown}{}",
                hints::pod_labels(world, namespace, selector)
            )
        } else {
            format!(
                "namespace {namespace} has no pod in these manifests{}",
                hints::pod_labels(world, namespace, selector)
            )
        };
        let hint = "correct the selector or the namespace; the policy protects nothing now";
        out.say(Code::SelectsNothing, &source, PATH, message, hint);
    } else if pods.iter().all(|&pod| world.pods[pod].0.host_network) {
        let message = format!(
            "every pod that it selects is on the node's network ({}), where no policy acts",
            hints::some(pods.iter().map(|&pod| world.pod_name(pod)))
        );
        let hint = "guard the node itself, or take hostNetwork away from the pods";
        out.say(Code::SelectsHostNetwork, &source, PATH, message, hint);
    }
}
