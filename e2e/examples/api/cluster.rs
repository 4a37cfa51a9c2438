//! An API server, the objects in it, and watches of it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use futures_util::io::AsyncBufReadExt as _;
use http::{Method, Request};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use ringfence_e2e::{Api, Lane};
use ringfence_testkit::NamedNetns;
use ringfence_testkit::manifest;
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::objects::{NAMESPACE, NODE, local, pod};

/// Requests at the same time.
const WRITERS: usize = 16;
/// What a list and a watch accept that give metadata and no more.
const METADATA: [&str; 2] = [
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
    "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
];
const FULL: [&str; 2] = ["application/json"; 2];
const PODS: &str = "/api/v1/pods";
const POLICIES: &str = "/apis/k8s.cni.cncf.io/v1beta1/multi-networkpolicies";

/// The cluster, and the namespaces of this node's pods.
pub struct Cluster {
    pub lane: Lane,
    /// In the order of the local pods.
    pub namespaces: Vec<NamedNetns>,
    api: Api,
    client: Client,
    runtime: Runtime,
    prefix: String,
}

impl Cluster {
    /// Brings an API server up, and makes the namespaces.
    pub fn start() -> Result<Self> {
        let lane = Lane::own()?;
        let api = Api::new(&lane.kubeconfig())?;
        let runtime = Runtime::new()?;
        let file = Kubeconfig::read_from(lane.kubeconfig())?;
        let client = runtime.block_on(async {
            let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
            anyhow::Ok(Client::try_from(config)?)
        })?;
        api.apply(&manifest::namespace(NAMESPACE, &[]).0)?;
        api.apply(&manifest::network(NAMESPACE, "net-a", "macvlan").0)?;
        let prefix = format!("rf-api-bench-{}-", std::process::id());
        let names: Vec<String> = (0..crate::LOCAL)
            .map(|number| format!("{prefix}{NAMESPACE}.{}", local(number)))
            .collect();
        let namespaces = NamedNetns::create(&names)?;
        let links: &[String] = &[
            "link add net1 type veth peer name net1-peer".into(),
            "link set net1 up".into(),
        ];
        namespaces.iter().try_for_each(|netns| netns.ip(links))?;
        Ok(Self {
            lane,
            namespaces,
            api,
            client,
            runtime,
            prefix,
        })
    }

    pub fn netns_path(&self) -> String {
        format!("/run/netns/{}{{namespace}}.{{name}}", self.prefix)
    }

    /// Pods of other nodes: a tenth of them in each group.
    pub fn write_remote(&self, count: usize) -> Result<()> {
        let begun = Instant::now();
        self.write((0..count).map(|number| {
            let name = format!("remote-{number}");
            let group = format!("group-{}", number % 10);
            pod(
                &name,
                &format!("node-{}", 1 + number / 100),
                &[("group", &group)],
                number,
            )
        }))?;
        println!("{count} pods written in {:.1} s", begun.elapsed().as_secs_f64());
        Ok(())
    }

    /// The pods of this node; their names.
    pub fn write_local(&self, count: usize) -> Result<Vec<String>> {
        let names: Vec<String> = (0..count).map(local).collect();
        self.write(
            names
                .iter()
                .enumerate()
                .map(|(number, name)| pod(name, NODE, &[("app", name), ("tier", "local")], crate::REMOTE + number)),
        )?;
        Ok(names)
    }

    fn write(&self, pods: impl Iterator<Item = (Value, Value)>) -> Result<()> {
        let limit = Arc::new(Semaphore::new(WRITERS));
        self.runtime.block_on(async {
            let mut writers = JoinSet::new();
            for (object, status) in pods {
                let (client, limit) = (self.client.clone(), Arc::clone(&limit));
                writers.spawn(async move {
                    let _turn = limit.acquire().await?;
                    write_pod(&client, &object, &status).await
                });
            }
            writers.join_all().await.into_iter().collect::<Result<()>>()
        })
    }

    pub fn apply(&self, object: &Value) -> Result<()> {
        self.api.apply(object).map(drop)
    }

    /// Gives it as it was stored.
    pub fn create(&self, object: &Value) -> Result<Value> {
        self.api.create(object)
    }

    pub fn replace_status(&self, object: &Value) -> Result<()> {
        self.api.replace_status(object).map(drop)
    }

    pub fn merge_status(&self, object: &Value, patch: &Value) -> Result<()> {
        self.api.merge_status(object, patch).map(drop)
    }

    pub fn delete(&self, object: &Value) -> Result<()> {
        self.api.delete(object)
    }

    /// The API server's metrics.
    pub fn metrics(&self) -> Result<String> {
        let request = Request::get("/metrics").body(Vec::new())?;
        Ok(self.runtime.block_on(self.client.request_text(request))?)
    }

    pub fn watch_pods(&self) -> Result<Seen> {
        self.watch(PODS, METADATA)
    }

    pub fn watch_policies(&self) -> Result<Seen> {
        self.watch(POLICIES, METADATA)
    }

    pub fn watch_full_pods(&self) -> Result<Seen> {
        self.watch(PODS, FULL)
    }

    /// Lists, and then follows what changes.
    fn watch(&self, path: &str, [of_list, of_watch]: [&str; 2]) -> Result<Seen> {
        let get = |uri: String, accept| Request::get(uri).header("Accept", accept).body(Vec::new());
        let list: Value = self
            .runtime
            .block_on(self.client.request(get(path.to_owned(), of_list)?))?;
        let version = list["metadata"]["resourceVersion"]
            .as_str()
            .context("a list without version")?;
        let request = get(format!("{path}?watch=true&resourceVersion={version}"), of_watch)?;
        let (send, events) = channel();
        let stream = self.runtime.block_on(self.client.request_stream(request))?;
        self.runtime.spawn(async move {
            let mut lines = std::pin::pin!(stream);
            let mut line = String::new();
            // Until nobody listens any more.
            while lines.read_line(&mut line).await.is_ok_and(|length| length > 0) && tell(&send, &line).is_some() {
                line.clear();
            }
        });
        Ok(Seen { events })
    }
}

/// `None`: nobody listens.
fn tell(send: &Sender<(String, Instant)>, line: &str) -> Option<()> {
    let now = Instant::now();
    let event: Value = serde_json::from_str(line).unwrap_or_default();
    let name = event["object"]["metadata"]["name"].as_str().unwrap_or_default();
    send.send((name.to_owned(), now)).ok()
}

/// Watch events with nothing behind them.
pub struct Seen {
    events: Receiver<(String, Instant)>,
}

impl Seen {
    /// The moment of the first event of an object after a moment.
    pub fn wait(&self, object: &Value, after: Instant) -> Result<Instant> {
        let name = object["metadata"]["name"].as_str().context("an object without name")?;
        loop {
            match self.events.recv_timeout(Duration::from_secs(60)) {
                Ok((seen, moment)) if seen == name && moment > after => return Ok(moment),
                Ok(_) => {}
                Err(error) => bail!("no event of {name}: {error}"),
            }
        }
    }
}

async fn write_pod(client: &Client, object: &Value, status: &Value) -> Result<()> {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    let name = object["metadata"]["name"].as_str().context("a pod without name")?;
    let request = |method, uri: String, content, body: &Value| {
        Request::builder()
            .method(method)
            .uri(uri)
            .header("Content-Type", content)
            .body(body.to_string().into_bytes())
    };
    client
        .request_text(request(Method::POST, path.clone(), "application/json", object)?)
        .await?;
    let uri = format!("{path}/{name}/status");
    client
        .request_text(request(Method::PATCH, uri, "application/merge-patch+json", status)?)
        .await?;
    Ok(())
}
