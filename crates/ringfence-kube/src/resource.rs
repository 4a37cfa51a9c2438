//! MultiNetworkPolicy and NetworkAttachmentDefinition as Kubernetes resources, for watches of the API.
//!
//! `spec` stays a JSON value on purpose: a typed spec would make one bad port spoil the whole object, and with it the
//! watch. [`decode_value`](crate::decode_value) reads what these serialise to.

use std::borrow::Cow;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::kind::Kind;

macro_rules! resource {
    ($(#[$doc:meta])* $name:ident, $kind:expr, $version:literal, $plural:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
        pub struct $name {
            /// Name, namespace, annotations …
            #[serde(default)]
            pub metadata: ObjectMeta,
            /// As it came.
            #[serde(default, skip_serializing_if = "Value::is_null")]
            pub spec: Value,
        }

        impl kube::Resource for $name {
            type DynamicType = ();
            type Scope = NamespaceResourceScope;

            fn kind((): &()) -> Cow<'_, str> {
                $kind.as_str().into()
            }

            fn group((): &()) -> Cow<'_, str> {
                $kind.group().into()
            }

            fn version((): &()) -> Cow<'_, str> {
                $version.into()
            }

            fn plural((): &()) -> Cow<'_, str> {
                $plural.into()
            }

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

resource!(
    /// `multi-networkpolicies.k8s.cni.cncf.io`; v1beta1 is what every installed CRD serves (statement 144).
    MultiNetworkPolicy,
    Kind::MultiNetworkPolicy,
    "v1beta1",
    "multi-networkpolicies"
);
resource!(
    /// `network-attachment-definitions.k8s.cni.cncf.io`.
    NetworkAttachmentDefinition,
    Kind::NetworkAttachmentDefinition,
    "v1",
    "network-attachment-definitions"
);

#[cfg(test)]
mod tests {
    use kube::Resource;
    use ringfence_model::Object;
    use serde_json::json;

    use super::*;
    use crate::decode_kind;

    #[test]
    fn s144_resources_have_the_paths_of_the_crds_and_decode() {
        assert_eq!(
            MultiNetworkPolicy::url_path(&(), Some("x")),
            "/apis/k8s.cni.cncf.io/v1beta1/namespaces/x/multi-networkpolicies"
        );
        assert_eq!(
            NetworkAttachmentDefinition::url_path(&(), None),
            "/apis/k8s.cni.cncf.io/v1/network-attachment-definitions"
        );
        let value = json!({"metadata": {"name": "guard", "namespace": "x"}, "spec": {"ingress": [{"ports": "80"}]}});
        let typed: MultiNetworkPolicy = serde_json::from_value(value).unwrap();
        let decoded = decode_kind(Kind::MultiNetworkPolicy, &serde_json::to_value(&typed).unwrap(), "api");
        assert!(matches!(decoded.object, Some(Object::Policy(_))));
    }
}
