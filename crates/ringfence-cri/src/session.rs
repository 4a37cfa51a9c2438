//! The thread: connect, look, wait for a reason to look again; start over when the runtime has been away.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::sync::mpsc::Sender;
use tokio::sync::watch;
use tokio::time::sleep;
use tonic::Code;
use tracing::{debug, info, warn};

use crate::client::Client;
use crate::difference::{Known, Sandbox, Told, newest};
use crate::health::{Health, note_failure};
use crate::place::{Here, Place, place};
use crate::{Change, Error, Options, SOCKETS};

/// Shortest time between two looks, however many reasons there are.
const GAP: Duration = Duration::from_millis(5);

/// First time to wait after a reason to look; then twice as long each time, up to [`Options::poll`].
const FIRST_LOOK: Duration = Duration::from_millis(10);

/// Longest time between two looks in the second after a reason, where the runtime tells nothing by itself: a sandbox is
/// ready some time before its first container runs, about 70 ms on an idle node, and rules are to be there by then.
const EAGER_LOOK: Duration = Duration::from_millis(50);
const EAGER: Duration = Duration::from_secs(1);

/// First and longest time before a runtime that is away is tried again.
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(5);

/// The reader of the changes has gone.
#[derive(Debug)]
struct Unread;

/// Why a session has ended.
#[derive(Debug)]
enum End {
    Unread,
    Failed(Error),
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<Unread> for End {
    fn from(Unread: Unread) -> Self {
        Self::Unread
    }
}

pub(crate) struct Watcher {
    options: Options,
    changes: Sender<Vec<Change>>,
    poke: Arc<Notify>,
    health: watch::Sender<Health>,
    told: Told,
    synced: bool,
    /// Places of sandboxes that are listed, by their identifiers: they never change.
    places: BTreeMap<String, Place>,
    retry: Duration,
}

impl Watcher {
    pub(crate) fn new(
        options: Options,
        changes: Sender<Vec<Change>>,
        poke: Arc<Notify>,
        health: watch::Sender<Health>,
    ) -> Self {
        Self {
            options,
            changes,
            poke,
            health,
            told: Told::default(),
            synced: false,
            places: BTreeMap::new(),
            retry: FIRST_RETRY,
        }
    }

    pub(crate) async fn run(mut self) {
        loop {
            let error = match self.session().await {
                End::Unread => return,
                End::Failed(error) => error,
            };
            note_failure(
                &self.health,
                &error,
                "The container runtime is away: what is known of the pods' network namespaces stands",
            );
            let wait = self.retry;
            self.retry = (wait * 2).min(LAST_RETRY);
            let poked = async {
                // A reason to look often means that it is back; but reasons must not become a stream of attempts.
                sleep(FIRST_RETRY).await;
                self.poke.notified().await;
            };
            tokio::select! {
                () = self.changes.closed() => return,
                () = sleep(wait) => {},
                () = poked => {},
            }
        }
    }

    /// From a connection to its end.
    async fn session(&mut self) -> End {
        match self.try_session().await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn try_session(&mut self) -> Result<std::convert::Infallible, End> {
        let socket = self.socket()?;
        let client = Client::connect(&socket).await?;
        let version = client.version().await?;
        let listens = version.broadcasts_events();
        let name = format!("{} {}", version.name, version.version);
        self.health.send_modify(|health| {
            health.socket = Some(socket.clone());
            health.runtime = Some(name.clone());
            health.events = listens;
        });
        // Before the first list: what happens from here on is either in it or announced.
        let poke = Arc::clone(&self.poke);
        let mut events = pin!(listen(&client, &poke));
        let mut pace = Pace::new(self.options.poll);
        let mut silent = !listens;
        loop {
            self.look(&client, &socket).await?;
            tokio::select! {
                () = self.changes.closed() => return Err(End::Unread),
                end = &mut events, if !silent => {
                    // The list tells whether the runtime has gone; one that cannot announce is looked at.
                    debug!(error = end.to_string().as_str(), "The container runtime's events have ended");
                    if !is_unimplemented(&end) {
                        return Err(end.into());
                    }
                    silent = true;
                    self.health.send_modify(|health| health.events = false);
                },
                () = self.poke.notified() => pace.hurry(Instant::now()),
                () = sleep(pace.wait) => pace.slow_down(Instant::now(), silent),
            }
            sleep(GAP).await;
        }
    }

    fn socket(&self) -> Result<PathBuf, Error> {
        match &self.options.socket {
            Some(socket) => Ok(socket.clone()),
            None => SOCKETS
                .iter()
                .map(Path::new)
                .find(|path| path.exists())
                .map(Path::to_owned)
                .ok_or(Error::NoRuntime),
        }
    }

    /// One look: a complete list, the details of sandboxes that are new in it, and what follows.
    async fn look(&mut self, client: &Client, socket: &Path) -> Result<(), End> {
        let pods = newest(client.sandboxes().await?);
        let listed: BTreeSet<&str> = pods.values().map(|sandbox| &*sandbox.id).collect();
        self.places.retain(|sandbox, _| listed.contains(&**sandbox));
        let mut now = BTreeMap::new();
        for (pod, sandbox) in &pods {
            let known = self.known(client, sandbox).await?;
            now.insert(pod.clone(), (sandbox.clone(), known));
        }
        let mut changes = self.told.update(now);
        for change in &changes {
            if let Change::Unusable { sandbox, reason, .. } = change {
                let pod = pods
                    .values()
                    .find(|known| known.id == *sandbox)
                    .map_or("", |known| &known.name);
                warn!(
                    pod,
                    sandbox = sandbox.as_str(),
                    reason = reason.as_str(),
                    "Unusable sandbox"
                );
            }
        }
        if !self.synced {
            self.synced = true;
            changes.push(Change::Synced);
        }
        let placed = self.told.placed();
        let mut back = false;
        self.health.send_modify(|health| back = health.listed(placed));
        if back {
            let runtime = self.health.borrow().runtime.clone().unwrap_or_default();
            info!(
                runtime = runtime.as_str(),
                socket = %socket.display(),
                placed,
                "The container runtime has listed its sandboxes"
            );
        }
        self.retry = FIRST_RETRY;
        if !changes.is_empty() {
            self.changes.send(changes).await.map_err(|_| Unread)?;
        }
        Ok(())
    }

    async fn known(&mut self, client: &Client, sandbox: &Sandbox) -> Result<Known, Error> {
        let found = match self.places.get(&sandbox.id) {
            Some(place) => place.clone(),
            None => match client.status(&sandbox.id).await? {
                // Gone since the list: the next one will not have it.
                None => return Ok(Known::NotAsked),
                Some(answer) => match place(&sandbox.id, &answer, &Here) {
                    Ok(place) => place,
                    Err(reason) => return Ok(Known::Place(Err(reason))),
                },
            },
        };
        Ok(match found {
            Place::Node => {
                self.places.insert(sandbox.id.clone(), Place::Node);
                Known::Node
            }
            Place::At(path) => {
                self.places.insert(sandbox.id.clone(), Place::At(path.clone()));
                Known::Place(Ok(path))
            }
            // Not kept: it may come into sight, here or in another place.
            Place::Unseen(path) => Known::Place(Ok(path)),
        })
    }
}

/// When to look next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Pace {
    wait: Duration,
    slowest: Duration,
    eager_until: Option<Instant>,
}

impl Pace {
    pub(crate) fn new(slowest: Duration) -> Self {
        Self {
            wait: slowest,
            slowest,
            eager_until: None,
        }
    }

    /// Time until the next look, if nothing happens.
    pub(crate) fn wait(&self) -> Duration {
        self.wait
    }

    /// There is a reason: now, and soon again.
    pub(crate) fn hurry(&mut self, now: Instant) {
        self.wait = FIRST_LOOK.min(self.slowest);
        self.eager_until = Some(now + EAGER);
    }

    /// Another look has been taken without a reason.
    pub(crate) fn slow_down(&mut self, now: Instant, silent: bool) {
        let eager = silent && self.eager_until.is_some_and(|until| now < until);
        let limit = if eager { EAGER_LOOK } else { self.slowest };
        self.wait = (self.wait * 2).min(limit).min(self.slowest);
    }
}

/// Pokes for every event of a sandbox. Returns when the stream ends.
async fn listen(client: &Client, poke: &Notify) -> Error {
    let method = "GetContainerEvents";
    let ended = |status: tonic::Status| Error::Call {
        method,
        status: Box::new(status),
    };
    let mut stream = match client.events().await {
        Ok(stream) => stream,
        Err(error) => return error,
    };
    loop {
        match stream.message().await {
            Ok(Some(event)) if event.is_about_a_sandbox() => poke.notify_one(),
            Ok(Some(_)) => {}
            Ok(None) => return ended(tonic::Status::unavailable("the stream has ended")),
            Err(status) => return ended(status),
        }
    }
}

fn is_unimplemented(error: &Error) -> bool {
    matches!(error, Error::Call { status, .. } if status.code() == Code::Unimplemented)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(silent: bool, step: u64, expected: &[u64]) {
        let mut pace = Pace::new(Duration::from_secs(1));
        let begin = Instant::now();
        pace.hurry(begin);
        let mut waits = vec![pace.wait.as_millis()];
        for number in 1..expected.len() as u64 {
            pace.slow_down(begin + Duration::from_millis(step * number), silent);
            waits.push(pace.wait.as_millis());
        }
        let expected: Vec<u128> = expected.iter().copied().map(u128::from).collect();
        assert_eq!(waits, expected);
    }

    #[test]
    fn looks_are_close_after_a_reason_and_closest_where_the_runtime_is_silent() {
        check(false, 1, &[10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        check(true, 1, &[10, 20, 40, 50, 50, 50, 50, 50]);
        // The second is over with the fifth look.
        check(true, 200, &[10, 20, 40, 50, 50, 100, 200, 400, 800, 1000]);
        let mut pace = Pace::new(Duration::from_millis(5));
        pace.hurry(Instant::now());
        assert_eq!(pace.wait.as_millis(), 5);
    }
}
