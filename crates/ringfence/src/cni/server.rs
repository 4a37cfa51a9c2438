//! The agent's end of the socket.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use ringfence_model::{NamespacedName, PodUid};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Semaphore, oneshot};
use tracing::{debug, warn};

use super::{LONGEST, Pod, Request, Response};
use crate::event::Event;
use crate::http::Readers;
use crate::snapshot::Snapshot;
use crate::start::{Answer, Hook, Sandbox, Start};

/// Time for an answer. No lock of the node is held here, so the pod's object may be waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Questions at once. More wait in the kernel.
const AT_ONCE: usize = 64;

/// A socket that is listened on. The file goes with it.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
}

impl Server {
    /// Takes the path, also where an agent that was killed has left its socket.
    pub fn bind(path: &Path) -> anyhow::Result<Self> {
        let bound = || -> io::Result<UnixListener> {
            if let Some(folder) = path.parent() {
                fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            }
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = UnixListener::bind(path)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
            Ok(listener)
        };
        Ok(Self {
            listener: bound().with_context(|| format!("cannot listen on {} (--cni-socket)", path.display()))?,
            path: path.to_owned(),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The next agent takes it away as well.
        drop(fs::remove_file(&self.path));
    }
}

/// Answers until the task ends.
pub async fn serve(server: Server, readers: Readers) {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        let stream = match server.listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "A network plugin's question cannot be taken");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (events, snapshots) = (readers.events.clone(), Arc::clone(&readers.snapshots));
        tokio::spawn(async move {
            // The plugin reports what it does not hear.
            if let Err(error) = answer(stream, &events, &snapshots).await {
                debug!(%error, "A network plugin's question cannot be answered");
            }
            drop(place);
        });
    }
}

async fn answer(
    mut stream: UnixStream,
    events: &UnboundedSender<Event>,
    snapshots: &ArcSwap<Snapshot>,
) -> io::Result<()> {
    let received = Instant::now();
    let mut line = String::new();
    let limit = u64::try_from(LONGEST).unwrap_or(u64::MAX);
    let mut reader = BufReader::new((&mut stream).take(limit));
    tokio::time::timeout(PATIENCE, reader.read_line(&mut line)).await??;
    let result = match serde_json::from_str(&line) {
        Ok(Request::Add(pod)) => start(pod, received, events).await,
        Ok(Request::Del { sandbox }) => {
            // The loop has ended: nothing is left to be forgotten.
            drop(events.send(Event::Hook(Hook::Gone { sandbox })));
            Ok(())
        }
        Ok(Request::Status) if snapshots.load().synced => Ok(()),
        Ok(Request::Status) => Err("the agent has not read everything from its source since it started".to_owned()),
        Err(error) => Err(format!("the request cannot be read: {error}")),
    };
    let response = Response { error: result.err() };
    let mut text = serde_json::to_string(&response)?;
    text.push('\n');
    stream.write_all(text.as_bytes()).await
}

async fn start(pod: Pod, received: Instant, events: &UnboundedSender<Event>) -> Result<(), String> {
    let (sender, answer) = oneshot::channel();
    let start = Start {
        sandbox: sandbox(pod),
        // The plugin may have lost its patience.
        answer: Answer::new(|answer| drop(sender.send(answer))),
        received,
        until: received + PATIENCE,
    };
    let ended = || "the agent is stopping".to_owned();
    events
        .send(Event::Hook(Hook::Start(Box::new(start))))
        .map_err(|_| ended())?;
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(answer) => answer.unwrap_or_else(|_| Err(ended())),
        Err(_) => Err(format!(
            "the agent has not decided within {} seconds",
            PATIENCE.as_secs()
        )),
    }
}

fn sandbox(pod: Pod) -> Sandbox {
    Sandbox {
        id: pod.sandbox,
        uid: PodUid::new(&pod.uid).ok(),
        name: NamespacedName::new(pod.namespace, pod.name),
        place: ringfence_cri::visible(&pod.netns).map(Some),
        pod: None,
        from_file: false,
        tolerates: false,
    }
}
