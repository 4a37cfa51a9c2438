//! The one CustomResourceDefinition that matters to policies: whether its schema keeps `endPort` (statement 224).

use ringfence_model::{CrdVersion, PolicyCrd};
use serde_json::Value;

use crate::kind::Kind;

/// The way from a policy to `endPort`, as a schema describes it; the direction comes between the two halves.
const TO_PORTS: [Step; 4] = [Step::Items, Step::Field("ports"), Step::Items, Step::Field("endPort")];

#[derive(Clone, Copy)]
enum Step {
    Field(&'static str),
    Items,
}

/// Reads a definition; `None` where it defines something else.
pub(crate) fn decode(value: &Value) -> Option<PolicyCrd> {
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str);
    let (group, version) = text("/apiVersion")?.split_once('/')?;
    let kind = Kind::MultiNetworkPolicy;
    if group != "apiextensions.k8s.io"
        || text("/kind") != Some("CustomResourceDefinition")
        || text("/spec/group") != Some(kind.group())
        || text("/spec/names/kind") != Some(kind.as_str())
    {
        return None;
    }
    // Before v1 one schema may serve all versions, and unknown fields stay unless the definition says otherwise.
    let beta = version != "v1";
    let keeps_all = beta && value.pointer("/spec/preserveUnknownFields") != Some(&Value::Bool(false));
    let common = value.pointer("/spec/validation/openAPIV3Schema");
    let versions = value.pointer("/spec/versions").and_then(Value::as_array);
    let mut served: Vec<CrdVersion> = versions
        .into_iter()
        .flatten()
        .filter(|version| version.get("served") != Some(&Value::Bool(false)))
        .filter_map(|version| {
            let schema = version.pointer("/schema/openAPIV3Schema").or(common);
            Some(CrdVersion {
                name: version.get("name").and_then(Value::as_str)?.into(),
                keeps_end_port: keeps_all || schema.is_some_and(keeps_end_port),
            })
        })
        .collect();
    if served.is_empty()
        && let Some(name) = text("/spec/version")
    {
        served.push(CrdVersion {
            name: name.into(),
            keeps_end_port: keeps_all || common.is_some_and(keeps_end_port),
        });
    }
    Some(PolicyCrd {
        name: text("/metadata/name")
            .unwrap_or("multi-networkpolicies.k8s.cni.cncf.io")
            .into(),
        versions: served,
    })
}

fn keeps_end_port(schema: &Value) -> bool {
    ["ingress", "egress"].into_iter().all(|direction| {
        let way = [Step::Field("spec"), Step::Field(direction)];
        keeps(schema, &[&way[..], &TO_PORTS[..]].concat())
    })
}

/// The API server prunes a field that no schema on the way describes, unless the nearest schema preserves unknown ones.
fn keeps(schema: &Value, way: &[Step]) -> bool {
    let next = match way.first() {
        None => return true,
        Some(Step::Field(name)) => schema.get("properties").and_then(|fields| fields.get(*name)),
        Some(Step::Items) => schema.get("items"),
    };
    match next {
        Some(next) => keeps(next, &way[1..]),
        None => schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn definition(version: &str, schema: &Value) -> Value {
        json!({
            "apiVersion": format!("apiextensions.k8s.io/{version}"),
            "kind": "CustomResourceDefinition",
            "metadata": {"name": "multi-networkpolicies.k8s.cni.cncf.io"},
            "spec": {
                "group": "k8s.cni.cncf.io",
                "names": {"kind": "MultiNetworkPolicy", "plural": "multi-networkpolicies"},
                "versions": [{"name": "v1beta1", "served": true, "schema": {"openAPIV3Schema": schema}}],
            },
        })
    }

    fn schema(port: &Value) -> Value {
        let rules = json!({"items": {"properties": {"ports": {"items": port}}}});
        json!({"properties": {"spec": {"properties": {"ingress": rules, "egress": rules}}}})
    }

    #[track_caller]
    fn check(definition: &Value, expected: &[(&str, bool)]) {
        let crd = decode(definition).expect("it defines the kind");
        let shown: Vec<_> = crd.versions.iter().map(|it| (&*it.name, it.keeps_end_port)).collect();
        assert_eq!(shown, expected);
    }

    #[test]
    fn s224_schemas_keep_or_lose_the_field() {
        let with = schema(&json!({"properties": {"port": {}, "endPort": {"type": "integer"}}}));
        let without = schema(&json!({"properties": {"port": {}}}));
        check(&definition("v1", &with), &[("v1beta1", true)]);
        check(&definition("v1", &without), &[("v1beta1", false)]);
        let preserving = schema(&json!({"x-kubernetes-preserve-unknown-fields": true}));
        check(&definition("v1", &preserving), &[("v1beta1", true)]);
        let far_above = json!({"x-kubernetes-preserve-unknown-fields": true});
        check(&definition("v1", &far_above), &[("v1beta1", true)]);
        // Preserving ends where a schema describes the field.
        let mut above = without.clone();
        above["x-kubernetes-preserve-unknown-fields"] = json!(true);
        check(&definition("v1", &above), &[("v1beta1", false)]);
        // One direction is not enough.
        let mut half = with.clone();
        half["properties"]["spec"]["properties"]["egress"] =
            without["properties"]["spec"]["properties"]["egress"].clone();
        check(&definition("v1", &half), &[("v1beta1", false)]);
    }

    #[test]
    fn s224_versions_that_are_not_served_do_not_count_and_old_definitions_prune_nothing() {
        let without = schema(&json!({"properties": {"port": {}}}));
        let mut unserved = definition("v1", &without);
        unserved["spec"]["versions"][0]["served"] = json!(false);
        check(&unserved, &[]);
        let mut old = definition("v1beta1", &without);
        check(&old, &[("v1beta1", true)]);
        old["spec"]["preserveUnknownFields"] = json!(false);
        check(&old, &[("v1beta1", false)]);
        old["spec"] = json!({"group": "k8s.cni.cncf.io", "names": {"kind": "MultiNetworkPolicy"}, "version": "v1beta1",
                             "preserveUnknownFields": false, "validation": {"openAPIV3Schema": without}});
        check(&old, &[("v1beta1", false)]);
    }

    #[test]
    fn other_definitions_and_nonsense_are_none() {
        let mut other = definition("v1", &json!({}));
        other["spec"]["names"]["kind"] = json!("NetworkAttachmentDefinition");
        for value in [
            other,
            json!(null),
            json!([]),
            json!({"apiVersion": 1}),
            json!({"kind": "CustomResourceDefinition"}),
        ] {
            assert_eq!(decode(&value), None, "{value}");
        }
    }
}
