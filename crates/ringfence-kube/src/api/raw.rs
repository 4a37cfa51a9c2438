//! Objects as the API sends them, before anybody has judged their content.
//!
//! Nothing here is typed beyond what a watch cannot do without: with a typed spec one bad port would spoil not only its
//! policy but the whole list that it came in, and with it the watch.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, IntoDeserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::kind::Kind;

/// Names what is watched.
pub(super) trait Marker: Clone + fmt::Debug + Send + Sync + 'static {
    const KIND: Kind;
    const VERSION: &'static str;
    const PLURAL: &'static str;
    /// No more than `metadata` is asked for.
    const METADATA: bool;
    type Scope;
}

macro_rules! markers {
    ($($(#[$doc:meta])* $name:ident = $kind:expr, $version:literal, $plural:literal, $scope:ty, metadata only: $metadata:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub(super) enum $name {}

        impl Marker for $name {
            const KIND: Kind = $kind;
            const VERSION: &'static str = $version;
            const PLURAL: &'static str = $plural;
            const METADATA: bool = $metadata;
            type Scope = $scope;
        }
    )*};
}

markers! {
    /// `pods`
    Pods = Kind::Pod, "v1", "pods", NamespaceResourceScope, metadata only: false;
    /// `pods`: labels and annotations are all that a peer on a second network needs.
    PodsMetadata = Kind::Pod, "v1", "pods", NamespaceResourceScope, metadata only: true;
    /// `namespaces`: labels, annotations and deletionTimestamp.
    Namespaces = Kind::Namespace, "v1", "namespaces", ClusterResourceScope, metadata only: true;
    /// `networkpolicies.networking.k8s.io`
    NetworkPolicies = Kind::NetworkPolicy, "v1", "networkpolicies", NamespaceResourceScope, metadata only: false;
    /// `multi-networkpolicies.k8s.cni.cncf.io`; v1beta1 is what every installed CRD serves (statement 144).
    MultiNetworkPolicies = Kind::MultiNetworkPolicy, "v1beta1", "multi-networkpolicies", NamespaceResourceScope, metadata only: false;
    /// `network-attachment-definitions.k8s.cni.cncf.io`
    NetworkAttachmentDefinitions = Kind::NetworkAttachmentDefinition, "v1", "network-attachment-definitions", NamespaceResourceScope, metadata only: false;
}

/// An object of a watch, without what nobody needs.
#[derive(Clone)]
pub(super) struct Raw<M> {
    /// No more than the watcher reads: the rest is in `value` and would only be there twice.
    metadata: ObjectMeta,
    value: Value,
    marker: PhantomData<M>,
}

impl<M> Raw<M> {
    pub(super) fn into_value(self) -> Value {
        self.value
    }
}

impl<M> fmt::Debug for Raw<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

/// Fails for nothing that is JSON: an object that is no object is left to the decoder, which says so.
impl<'de, M: Marker> Deserialize<'de> for Raw<M> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Level::Object {
            metadata_only: M::METADATA,
        }
        .deserialize(deserializer)?;
        let metadata = value.get("metadata").map(identity).unwrap_or_default();
        Ok(Self {
            metadata,
            value,
            marker: PhantomData,
        })
    }
}

/// Builds a value and passes over what is not wanted while it is being read: most of an object's bytes are
/// `managedFields` (who wrote which field), and what a value once took the C library hardly gives back.
#[derive(Clone, Copy)]
enum Level {
    Object { metadata_only: bool },
    Metadata,
}

impl<'de> DeserializeSeed<'de> for Level {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// Everything that is no map: as it is.
macro_rules! as_it_is {
    ($($visit:ident: $of:ty),*) => {$(
        fn $visit<E: Error>(self, value: $of) -> Result<Value, E> {
            Value::deserialize(value.into_deserializer())
        }
    )*};
}

impl<'de> Visitor<'de> for Level {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    as_it_is!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str, visit_string: String);

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, items: A) -> Result<Value, A::Error> {
        Value::deserialize(serde::de::value::SeqAccessDeserializer::new(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = fields.next_key::<Cow<'de, str>>()? {
            let value = match (self, &*name) {
                (Self::Object { .. }, "metadata") => fields.next_value_seed(Self::Metadata)?,
                (Self::Object { metadata_only: true }, _) | (Self::Metadata, "managedFields") => {
                    fields.next_value::<IgnoredAny>()?;
                    continue;
                }
                _ => fields.next_value()?,
            };
            object.insert(name.into_owned(), value);
        }
        Ok(Value::Object(object))
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
    type Scope = M::Scope;

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

    fn metadata_api() -> bool {
        M::METADATA
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
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
        assert_eq!(Raw::<PodsMetadata>::url_path(&(), None), "/api/v1/pods");
        assert_eq!(Raw::<Namespaces>::url_path(&(), None), "/api/v1/namespaces");
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
        let pod: Raw<PodsMetadata> = serde_json::from_value(value).unwrap();
        assert_eq!(pod.meta().uid.as_deref(), Some("u1"));
        assert_eq!(pod.value.pointer("/metadata/managedFields"), None);
        let decoded = decode_kind(Kind::Pod, &pod.into_value(), "api");
        let Some(Object::Pod(pod)) = decoded.object else {
            panic!("{decoded:?}")
        };
        assert_eq!(decoded.diagnostics, []);
        assert_eq!(pod.attachments.len(), 2);
        assert!(pod.attachments[0].primary && !pod.attachments[0].addresses.is_empty());
    }

    #[track_caller]
    fn check(text: &str, full: &str, metadata_only: &str) {
        let read = |raw: Result<Value, serde_json::Error>| raw.unwrap().to_string();
        assert_eq!(read(serde_json::from_str(text).map(Raw::<Pods>::into_value)), full);
        let slim = read(serde_json::from_str(text).map(Raw::<PodsMetadata>::into_value));
        assert_eq!(slim, metadata_only);
        // And out of a value, as an untyped client would have it.
        let value: Value = serde_json::from_str(text).unwrap();
        assert_eq!(read(serde_json::from_value(value).map(Raw::<Pods>::into_value)), full);
    }

    #[test]
    fn who_wrote_which_field_is_passed_over() {
        let fields = r#"[{"manager":"m","fieldsV1":{"f:metadata":{}}}]"#;
        check(
            &format!(
                r#"{{"kind":"Pod","metadata":{{"managedFields":{fields},"name":"a\u0062"}},"spec":{{"managedFields":1}}}}"#
            ),
            r#"{"kind":"Pod","metadata":{"name":"ab"},"spec":{"managedFields":1}}"#,
            r#"{"metadata":{"name":"ab"}}"#,
        );
    }

    #[test]
    fn whatever_is_json_is_kept_for_the_decoder() {
        for text in [
            "null",
            "true",
            "-7",
            "18446744073709551615",
            "0.5",
            "\"x\"",
            "\"\\n\"",
            "[1,{\"metadata\":2}]",
            "{}",
        ] {
            check(text, text, text);
        }
        for metadata in ["null", "5", "\"x\"", "[]"] {
            let text = format!("{{\"metadata\":{metadata}}}");
            check(&text, &text, &text);
        }
    }
}
