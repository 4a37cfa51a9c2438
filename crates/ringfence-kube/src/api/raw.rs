//! Objects as the API sends them, before anybody has judged their content.
//!
//! Nothing here is typed beyond `metadata`: with a typed spec one bad port would spoil not only its policy but the
//! whole list that it came in, and with it the watch.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::PartialObjectMeta;
use serde::de::{Deserialize, DeserializeOwned, Deserializer};
use serde_json::{Map, Value};

use crate::kind::Kind;

/// An object of a watch.
pub(super) trait Watched:
    kube::Resource<DynamicType = ()> + Clone + fmt::Debug + DeserializeOwned + Send + 'static
{
    /// The whole object, without what nobody needs.
    fn into_value(self) -> Value;
}

/// Names a kind that is watched in full.
pub(super) trait Marker: Clone + fmt::Debug + Send + Sync + 'static {
    const KIND: Kind;
    const VERSION: &'static str;
    const PLURAL: &'static str;
}

macro_rules! markers {
    ($($(#[$doc:meta])* $name:ident = $kind:expr, $version:literal, $plural:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub(super) enum $name {}

        impl Marker for $name {
            const KIND: Kind = $kind;
            const VERSION: &'static str = $version;
            const PLURAL: &'static str = $plural;
        }
    )*};
}

markers! {
    /// `pods`
    Pods = Kind::Pod, "v1", "pods";
    /// `networkpolicies.networking.k8s.io`
    NetworkPolicies = Kind::NetworkPolicy, "v1", "networkpolicies";
    /// `multi-networkpolicies.k8s.cni.cncf.io`; v1beta1 is what every installed CRD serves (statement 144).
    MultiNetworkPolicies = Kind::MultiNetworkPolicy, "v1beta1", "multi-networkpolicies";
    /// `network-attachment-definitions.k8s.cni.cncf.io`
    NetworkAttachmentDefinitions = Kind::NetworkAttachmentDefinition, "v1", "network-attachment-definitions";
}

/// An object in full.
#[derive(Clone)]
pub(super) struct Raw<M> {
    metadata: ObjectMeta,
    value: Value,
    marker: PhantomData<M>,
}

impl<M> fmt::Debug for Raw<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

/// Fails for nothing that is JSON: an object that is no object is left to the decoder, which says so.
impl<'de, M> Deserialize<'de> for Raw<M> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = Value::deserialize(deserializer)?;
        let metadata = match value.get_mut("metadata") {
            Some(metadata) => {
                trim(metadata);
                ObjectMeta::deserialize(&*metadata).unwrap_or_else(|_| identity(metadata))
            }
            None => ObjectMeta::default(),
        };
        Ok(Self {
            metadata,
            value,
            marker: PhantomData,
        })
    }
}

/// Most of an object's bytes are who wrote which field.
fn trim(metadata: &mut Value) {
    if let Some(fields) = metadata.as_object_mut() {
        fields.remove("managedFields");
    }
}

/// What a watch cannot do without, field by field.
fn identity(metadata: &Value) -> ObjectMeta {
    let text = |field: &str| metadata.get(field).and_then(Value::as_str).map(str::to_owned);
    ObjectMeta {
        name: text("name"),
        namespace: text("namespace"),
        uid: text("uid"),
        resource_version: text("resourceVersion"),
        ..ObjectMeta::default()
    }
}

impl<M: Marker> kube::Resource for Raw<M> {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        M::KIND.as_str().into()
    }

    fn group((): &()) -> Cow<'_, str> {
        M::KIND.group().into()
    }

    fn version((): &()) -> Cow<'_, str> {
        M::VERSION.into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        M::PLURAL.into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl<M: Marker> Watched for Raw<M> {
    fn into_value(self) -> Value {
        self.value
    }
}

/// Labels, annotations and deletionTimestamp are all that is needed of a namespace.
impl Watched for PartialObjectMeta<Namespace> {
    fn into_value(self) -> Value {
        metadata_only(self.metadata)
    }
}

/// Labels and annotations are all that a peer on a second network needs.
impl Watched for PartialObjectMeta<Pod> {
    fn into_value(self) -> Value {
        metadata_only(self.metadata)
    }
}

fn metadata_only(mut metadata: ObjectMeta) -> Value {
    metadata.managed_fields = None;
    let mut object = Map::new();
    // It came out of JSON a moment ago.
    if let Ok(metadata) = serde_json::to_value(metadata) {
        object.insert("metadata".to_owned(), metadata);
    }
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use kube::Resource as _;
    use ringfence_model::Object;
    use serde_json::json;

    use super::*;
    use crate::decode_kind;

    #[test]
    fn s144_resources_have_the_paths_of_the_crds() {
        assert_eq!(
            Raw::<MultiNetworkPolicies>::url_path(&(), Some("x")),
            "/apis/k8s.cni.cncf.io/v1beta1/namespaces/x/multi-networkpolicies"
        );
        assert_eq!(
            Raw::<NetworkAttachmentDefinitions>::url_path(&(), None),
            "/apis/k8s.cni.cncf.io/v1/network-attachment-definitions"
        );
        assert_eq!(
            Raw::<NetworkPolicies>::url_path(&(), None),
            "/apis/networking.k8s.io/v1/networkpolicies"
        );
        assert_eq!(Raw::<Pods>::url_path(&(), None), "/api/v1/pods");
    }

    #[test]
    fn s166_a_bad_clause_spoils_neither_its_object_nor_the_list() {
        let value = json!([
            {"metadata": {"name": "guard", "namespace": "x", "managedFields": [{"manager": "m"}], "labels": {"a": 1}},
             "spec": {"ingress": [{"ports": "80"}]}},
            {"spec": 7},
            "nonsense",
        ]);
        let list: Vec<Raw<MultiNetworkPolicies>> = serde_json::from_value(value).unwrap();
        assert_eq!(list[0].meta().name.as_deref(), Some("guard"));
        assert_eq!(list[1].meta().name, None);
        let first = list[0].clone().into_value();
        assert_eq!(first.pointer("/metadata/managedFields"), None);
        let decoded = decode_kind(Kind::MultiNetworkPolicy, &first, "api");
        assert!(matches!(decoded.object, Some(Object::Policy(_))));
        assert!(!decoded.diagnostics.is_empty());
    }

    #[test]
    fn metadata_is_all_that_is_left_of_a_remote_pod() {
        let value = json!({
            "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
            "metadata": {"name": "web", "namespace": "x", "uid": "u1", "labels": {"app": "web"},
                "managedFields": [{"manager": "m"}],
                "annotations": {"k8s.v1.cni.cncf.io/network-status":
                    "[{\"name\":\"cluster\",\"interface\":\"eth0\",\"ips\":[\"10.244.1.2\"],\"default\":true},\
                      {\"name\":\"x/net-a\",\"interface\":\"net1\",\"ips\":[\"10.10.0.2\"]}]"}},
        });
        let partial: PartialObjectMeta<Pod> = serde_json::from_value(value).unwrap();
        let decoded = decode_kind(Kind::Pod, &partial.into_value(), "api");
        let Some(Object::Pod(pod)) = decoded.object else {
            panic!("{decoded:?}")
        };
        assert_eq!(decoded.diagnostics, []);
        assert_eq!(pod.attachments.len(), 2);
        assert!(pod.attachments[0].primary && !pod.attachments[0].addresses.is_empty());
    }
}
