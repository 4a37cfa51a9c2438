//! A client of the API server that waits for each answer: tests do one thing after the other.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use http::{Method, Request};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::runtime::{self, Runtime};

/// How long one request may take.
const LIMIT: Duration = Duration::from_secs(20);

/// The kinds that tests write: kind, plural, whether they live in namespaces.
const KINDS: [(&str, &str, bool); 10] = [
    ("Namespace", "namespaces", false),
    ("Pod", "pods", true),
    ("Event", "events", true),
    ("ServiceAccount", "serviceaccounts", true),
    ("NetworkPolicy", "networkpolicies", true),
    ("MultiNetworkPolicy", "multi-networkpolicies", true),
    ("NetworkAttachmentDefinition", "network-attachment-definitions", true),
    ("ClusterRole", "clusterroles", false),
    ("ClusterRoleBinding", "clusterrolebindings", false),
    ("CustomResourceDefinition", "customresourcedefinitions", false),
];

/// Talks to one API server as its administrator.
pub struct Api {
    runtime: Runtime,
    client: Client,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Api")
    }
}

impl Api {
    /// Reads a kubeconfig; connects with the first request.
    pub fn new(kubeconfig: &Path) -> Result<Self> {
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let file = Kubeconfig::read_from(kubeconfig).with_context(|| format!("read {}", kubeconfig.display()))?;
        let client = runtime.block_on(async {
            let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
            anyhow::Ok(Client::try_from(config)?)
        })?;
        Ok(Self { runtime, client })
    }

    /// Creates an object and gives it as it was stored.
    pub fn create(&self, object: &Value) -> Result<Value> {
        self.send(&Method::POST, &collection(object)?, Some(object))
    }

    /// Creates an object, or makes it what is given (server-side apply).
    pub fn apply(&self, object: &Value) -> Result<Value> {
        let path = format!("{}?fieldManager=e2e&force=true", path_of(object)?);
        self.request(&Method::PATCH, &path, Some(object), "application/apply-patch+yaml")
    }

    /// Merges into an object (RFC 7386).
    pub fn merge(&self, object: &Value, patch: &Value) -> Result<Value> {
        self.request(
            &Method::PATCH,
            &path_of(object)?,
            Some(patch),
            "application/merge-patch+json",
        )
    }

    /// Merges into an object's status, and into its annotations, as kubelet and Multus do.
    pub fn merge_status(&self, object: &Value, patch: &Value) -> Result<Value> {
        let url = format!("{}/status", path_of(object)?);
        self.request(&Method::PATCH, &url, Some(patch), "application/merge-patch+json")
    }

    /// Puts an object back with another status and other annotations, as Multus does with what it has read.
    pub fn replace_status(&self, object: &Value) -> Result<Value> {
        let url = format!("{}/status", path_of(object)?);
        self.send(&Method::PUT, &url, Some(object))
    }

    /// Deletes an object at once; fails where there is none.
    pub fn delete(&self, object: &Value) -> Result<()> {
        let now = json!({"gracePeriodSeconds": 0});
        self.send(&Method::DELETE, &path_of(object)?, Some(&now)).map(drop)
    }

    /// Deletes everything of the collection that an object is in.
    pub fn delete_all_like(&self, object: &Value) -> Result<()> {
        let now = json!({"gracePeriodSeconds": 0});
        self.send(&Method::DELETE, &collection(object)?, Some(&now)).map(drop)
    }

    /// An object as it is stored.
    pub fn get(&self, object: &Value) -> Result<Value> {
        self.send(&Method::GET, &path_of(object)?, None)
    }

    /// Everything of the collection that an object is in.
    pub fn list_like(&self, object: &Value) -> Result<Vec<Value>> {
        let list = self.send(&Method::GET, &collection(object)?, None)?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// A token of a service account, for an hour.
    pub fn token(&self, namespace: &str, account: &str) -> Result<String> {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"expirationSeconds": 3600}});
        let answer = self.send(&Method::POST, &path, Some(&request))?;
        let token = answer["status"]["token"].as_str().context("an answer without token")?;
        Ok(token.to_owned())
    }

    fn send(&self, method: &Method, path: &str, body: Option<&Value>) -> Result<Value> {
        self.request(method, path, body, "application/json")
    }

    fn request(&self, method: &Method, path: &str, body: Option<&Value>, content: &str) -> Result<Value> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("Content-Type", content)
            .body(body.map(Value::to_string).unwrap_or_default().into_bytes())?;
        self.runtime
            // A server that has just been killed may leave a connection that nobody answers on.
            .block_on(async { tokio::time::timeout(LIMIT, self.client.request::<Value>(request)).await })
            .with_context(|| format!("{method} {path}: no answer within {LIMIT:?}"))?
            .with_context(|| format!("{method} {path}"))
    }
}

/// Path of the collection that the object belongs to.
fn collection(object: &Value) -> Result<String> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let kind = text("/kind").context("an object without kind")?;
    let Some((_, plural, namespaced)) = KINDS.iter().find(|(known, _, _)| *known == kind) else {
        bail!("the harness does not know the kind {kind}")
    };
    let version = text("/apiVersion").context("an object without apiVersion")?;
    let root = if version.contains('/') { "apis" } else { "api" };
    if *namespaced {
        let namespace = text("/metadata/namespace").context("an object without namespace")?;
        Ok(format!("/{root}/{version}/namespaces/{namespace}/{plural}"))
    } else {
        Ok(format!("/{root}/{version}/{plural}"))
    }
}

fn path_of(object: &Value) -> Result<String> {
    let name = object.pointer("/metadata/name").and_then(Value::as_str);
    let name = name.context("an object without name")?;
    Ok(format!("{}/{name}", collection(object)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(version: &str, kind: &str, namespace: Option<&str>, expected: &str) {
        let mut object = json!({"apiVersion": version, "kind": kind, "metadata": {"name": "a"}});
        if let Some(namespace) = namespace {
            object["metadata"]["namespace"] = namespace.into();
        }
        assert_eq!(path_of(&object).ok().as_deref(), Some(expected));
    }

    #[test]
    fn paths_of_the_api() {
        check("v1", "Namespace", None, "/api/v1/namespaces/a");
        check("v1", "Pod", Some("x"), "/api/v1/namespaces/x/pods/a");
        check(
            "k8s.cni.cncf.io/v1beta1",
            "MultiNetworkPolicy",
            Some("x"),
            "/apis/k8s.cni.cncf.io/v1beta1/namespaces/x/multi-networkpolicies/a",
        );
        assert!(path_of(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}})).is_err());
        assert!(path_of(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}})).is_err());
    }
}
