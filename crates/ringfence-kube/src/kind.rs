//! Which documents Ringfence reads, which it passes over, and which are mistakes.

use crate::clause::Cut;

/// The kinds that Ringfence reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `v1` Namespace.
    Namespace,
    /// `v1` Pod.
    Pod,
    /// `networking.k8s.io/v1` NetworkPolicy.
    NetworkPolicy,
    /// `k8s.cni.cncf.io` MultiNetworkPolicy.
    MultiNetworkPolicy,
    /// `k8s.cni.cncf.io` NetworkAttachmentDefinition.
    NetworkAttachmentDefinition,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Namespace,
        Self::Pod,
        Self::NetworkPolicy,
        Self::MultiNetworkPolicy,
        Self::NetworkAttachmentDefinition,
    ];

    /// As manifests write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::Pod => "Pod",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::MultiNetworkPolicy => "MultiNetworkPolicy",
            Self::NetworkAttachmentDefinition => "NetworkAttachmentDefinition",
        }
    }

    /// The API group that defines it; empty for the core group.
    pub fn group(self) -> &'static str {
        match self {
            Self::Namespace | Self::Pod => "",
            Self::NetworkPolicy => "networking.k8s.io",
            Self::MultiNetworkPolicy | Self::NetworkAttachmentDefinition => "k8s.cni.cncf.io",
        }
    }

    /// The versions whose meaning is known. Another version of the right group is read all the same, with a
    /// warning: to ignore a policy opens pods.
    fn versions(self) -> &'static [&'static str] {
        match self {
            Self::MultiNetworkPolicy => &["v1beta1", "v1beta2"],
            _ => &["v1"],
        }
    }

    fn of(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// What to do with a document.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Decode it; with a remark where its version is not one that is known.
    Read(Kind, Option<String>),
    /// Its items are objects of their own.
    List,
    /// Kubernetes has such a kind and Ringfence does not need it.
    PassOver,
    /// Somebody should know that this has no effect.
    Unknown(String),
}

/// Kinds of Kubernetes' own groups that manifests hold beside what Ringfence reads, and CNI-Genie's, whose group looks
/// like one of Kubernetes' own. Kinds of groups with a dot that are not Kubernetes' own are CRDs and need no list.
const BUILT_IN: &[&str] = &[
    "APIService",
    "Binding",
    "CertificateSigningRequest",
    "ClusterRole",
    "ClusterRoleBinding",
    "ConfigMap",
    "ControllerRevision",
    "CronJob",
    "CSIDriver",
    "CSINode",
    "CSIStorageCapacity",
    "CustomResourceDefinition",
    "DaemonSet",
    "Deployment",
    "DeviceClass",
    "Endpoints",
    "EndpointSlice",
    "Event",
    "FlowSchema",
    "HorizontalPodAutoscaler",
    "IPAddress",
    "Ingress",
    "IngressClass",
    "Job",
    "Kustomization",
    "Lease",
    "LimitRange",
    "Logicalnetwork",
    "MutatingAdmissionPolicy",
    "MutatingWebhookConfiguration",
    "Node",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "Physicalnetwork",
    "PodDisruptionBudget",
    "PodTemplate",
    "PriorityClass",
    "PriorityLevelConfiguration",
    "ReplicaSet",
    "ReplicationController",
    "ResourceClaim",
    "ResourceClaimTemplate",
    "ResourceQuota",
    "ResourceSlice",
    "Role",
    "RoleBinding",
    "RuntimeClass",
    "Secret",
    "Service",
    "ServiceAccount",
    "ServiceCIDR",
    "StatefulSet",
    "StorageClass",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "ValidatingWebhookConfiguration",
    "VolumeAttachment",
];

/// Sorts a document by its `apiVersion` and `kind`.
pub(crate) fn classify(api_version: &str, kind: &str) -> Class {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    if let Some(known) = Kind::of(kind) {
        return read(known, group, version, api_version);
    }
    if kind == "List" || (kind.ends_with("List") && Kind::of(&kind[..kind.len() - 4]).is_some()) {
        return Class::List;
    }
    if kind.contains("NetworkPolicy") || kind.contains("NetworkPolicies") {
        return Class::Unknown(format!(
            "{} {} is a policy that Ringfence does not enforce; it reads NetworkPolicy and MultiNetworkPolicy",
            Cut(api_version),
            Cut(kind)
        ));
    }
    let own_group = group.is_empty() || !group.contains('.') || group.ends_with(".k8s.io");
    let item = kind.strip_suffix("List").unwrap_or(kind);
    let reads_group = Kind::ALL
        .into_iter()
        .any(|known| !known.group().is_empty() && known.group() == group);
    if BUILT_IN.contains(&item) || (!own_group && !reads_group) {
        Class::PassOver
    } else {
        Class::Unknown(format!(
            "Kubernetes has no kind {} in {} that Ringfence knows of; check the spelling",
            Cut(kind),
            Cut(api_version)
        ))
    }
}

fn read(kind: Kind, group: &str, version: &str, api_version: &str) -> Class {
    if version.is_empty() {
        return Class::Unknown(format!("{} has an empty apiVersion", kind.as_str()));
    }
    let legacy = kind == Kind::NetworkPolicy && group == "extensions";
    if group != kind.group() && !legacy {
        return Class::Unknown(format!(
            "{} {} is another API's kind; Ringfence reads the one of {}",
            Cut(api_version),
            kind.as_str(),
            if kind.group().is_empty() { "v1" } else { kind.group() },
        ));
    }
    let remark = if legacy {
        Some(format!(
            "{} is no longer served; it is read as networking.k8s.io/v1",
            Cut(api_version)
        ))
    } else if kind.versions().contains(&version) {
        None
    } else {
        Some(format!(
            "the version {} of this kind is not known; it is read as {}",
            Cut(version),
            kind.versions()[0]
        ))
    };
    Class::Read(kind, remark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_read_passed_over_or_reported() {
        let check = |api_version: &str, kind: &str, expected: &str| {
            let shown = match classify(api_version, kind) {
                Class::Read(kind, None) => format!("read {}", kind.as_str()),
                Class::Read(kind, Some(_)) => format!("read {} with a remark", kind.as_str()),
                Class::List => "list".to_owned(),
                Class::PassOver => "pass over".to_owned(),
                Class::Unknown(_) => "unknown".to_owned(),
            };
            assert_eq!(shown, expected, "{api_version} {kind}");
        };
        check("v1", "Pod", "read Pod");
        check("v1", "Namespace", "read Namespace");
        check("networking.k8s.io/v1", "NetworkPolicy", "read NetworkPolicy");
        check(
            "extensions/v1beta1",
            "NetworkPolicy",
            "read NetworkPolicy with a remark",
        );
        check(
            "k8s.cni.cncf.io/v1beta1",
            "MultiNetworkPolicy",
            "read MultiNetworkPolicy",
        );
        check(
            "k8s.cni.cncf.io/v1beta2",
            "MultiNetworkPolicy",
            "read MultiNetworkPolicy",
        );
        check(
            "k8s.cni.cncf.io/v2",
            "MultiNetworkPolicy",
            "read MultiNetworkPolicy with a remark",
        );
        check(
            "k8s.cni.cncf.io/v1",
            "NetworkAttachmentDefinition",
            "read NetworkAttachmentDefinition",
        );
        check("v1", "List", "list");
        check("networking.k8s.io/v1", "NetworkPolicyList", "list");
        check("apps/v1", "Deployment", "pass over");
        check("apps/v1", "DeploymentList", "pass over");
        check("v1", "Service", "pass over");
        check("example.com/v1", "Thing", "pass over");
        check("apiextensions.k8s.io/v1", "CustomResourceDefinition", "pass over");
        check("alpha.network.k8s.io/v1", "Logicalnetwork", "pass over");
        check("networking.k8s.io/v1", "NetworkPolcy", "unknown");
        check("k8s.cni.cncf.io/v1", "NetworkAttachment", "unknown");
        check("v1", "Pood", "unknown");
        check("projectcalico.org/v3", "NetworkPolicy", "unknown");
        check("cilium.io/v2", "CiliumNetworkPolicy", "unknown");
        check("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", "unknown");
        check("", "Pod", "unknown");
    }
}
