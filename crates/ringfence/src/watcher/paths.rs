//! The paths that are looked at, what was reported of each, and who looks.
//!
//! One thread makes the rounds over all paths. A look that does not come back takes its thread with it: the path is
//! *silent* then, that thread's alone, and another one makes the rounds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ringfence_model::PodUid;
use ringfence_netns::NetnsId;
use tokio::sync::mpsc::UnboundedSender;

use crate::event::{Event, NetnsEvent};

/// The paths that are looked at, and what was reported of each.
#[derive(Debug, Default)]
pub struct Paths(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    watched: BTreeMap<PodUid, Watched>,
    /// Each has a thread of its own, which says what it sees when it comes back.
    silent: BTreeSet<Arc<Path>>,
    /// Whose turn it is to make the rounds.
    looker: u64,
    /// The look of a round that is under way.
    under_way: Option<Look>,
    /// Number of looks so far.
    looks: u64,
}

#[derive(Debug)]
struct Watched {
    path: Arc<Path>,
    /// What was reported last.
    reported: Sight,
}

/// One look at one path.
#[derive(Debug)]
struct Look {
    path: Arc<Path>,
    number: u64,
}

/// What somebody has seen at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Sight {
    /// Nobody has looked.
    #[default]
    Unseen,
    /// A look has not come back.
    Silent,
    /// There was nothing.
    Nothing,
    /// There was this.
    Namespace(NetnsId),
}

impl From<Option<NetnsId>> for Sight {
    fn from(id: Option<NetnsId>) -> Self {
        id.map_or(Self::Nothing, Self::Namespace)
    }
}

/// A path that has kept its looker too long, and what it has seen there in the end. Others make the rounds by now.
#[derive(Debug)]
pub(super) struct Late {
    pub(super) path: Arc<Path>,
    pub(super) id: Option<NetnsId>,
}

impl Paths {
    /// Looks at this path too, from now on, as if for the first time.
    pub fn track(&self, pod: PodUid, path: PathBuf) {
        let watched = Watched {
            path: path.into(),
            reported: Sight::Unseen,
        };
        self.lock().watched.insert(pod, watched);
    }

    /// Reports nothing more about the pod.
    pub fn forget(&self, pod: &PodUid) {
        self.lock().watched.remove(pod);
    }

    /// Looks at all of them and reports what is news. Where nobody else looks, and every look comes back.
    pub fn look(&self, identity: impl Fn(&Path) -> Option<NetnsId>, events: &UnboundedSender<Event>) {
        // Without anybody who gives it up, it is never late.
        drop(self.round(0, identity, events));
    }

    /// One round of this looker.
    pub(super) fn round(
        &self,
        looker: u64,
        identity: impl Fn(&Path) -> Option<NetnsId>,
        events: &UnboundedSender<Event>,
    ) -> Result<(), Late> {
        // The paths are looked at without the lock, which the loop takes too.
        let all: Vec<(PodUid, Arc<Path>)> = self
            .lock()
            .watched
            .iter()
            .map(|(pod, watched)| (pod.clone(), Arc::clone(&watched.path)))
            .collect();
        for (pod, path) in all {
            if self.begin(&path) {
                let id = identity(&path);
                let mut state = self.lock();
                if state.looker != looker {
                    return Err(Late { path, id });
                }
                state.under_way = None;
                state.report(&pod, &path, id.into(), events);
            } else {
                self.lock().report_first(&pod, &path, Sight::Silent, events);
            }
        }
        Ok(())
    }

    /// Notes that a look begins. `false`: somebody is still at it.
    fn begin(&self, path: &Arc<Path>) -> bool {
        let mut state = self.lock();
        if state.silent.contains(path) {
            return false;
        }
        state.looks += 1;
        state.under_way = Some(Look {
            path: Arc::clone(path),
            number: state.looks,
        });
        true
    }

    /// The number of the look that is under way.
    pub(super) fn under_way(&self) -> Option<u64> {
        self.lock().under_way.as_ref().map(|look| look.number)
    }

    /// Makes the path of this look silent, if it still is under way: its thread keeps it, and the rounds are for the looker
    /// that this gives.
    pub(super) fn give_up(&self, number: u64, events: &UnboundedSender<Event>) -> Option<u64> {
        let mut state = self.lock();
        let Look { path, .. } = state.under_way.take_if(|look| look.number == number)?;
        state.silent.insert(Arc::clone(&path));
        state.looker += 1;
        let looker = state.looker;
        state.report_all(&path, Sight::Silent, events);
        Some(looker)
    }

    /// Says what was seen at a silent path in the end. `false`: nobody wants to know any more.
    pub(super) fn tell(&self, late: &Late, events: &UnboundedSender<Event>) -> bool {
        self.lock().report_all(&late.path, late.id.into(), events)
    }

    /// It is looked at with the others again.
    pub(super) fn answers(&self, path: &Arc<Path>) {
        self.lock().silent.remove(path);
    }

    /// Everything is changed by assignments only, so what a panicking thread held is whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Reports what is at a path, where that is news.
    fn report(&mut self, pod: &PodUid, path: &Arc<Path>, sight: Sight, events: &UnboundedSender<Event>) {
        // It may have been forgotten, or tracked anew with another path, in between.
        let entry = self.watched.get_mut(pod).filter(|entry| entry.path == *path);
        let Some(entry) = entry.filter(|entry| entry.reported != sight) else {
            return;
        };
        entry.reported = sight;
        let (pod, path) = (pod.clone(), path.to_path_buf());
        let event = match sight {
            Sight::Unseen => return,
            Sight::Silent => NetnsEvent::Silent { pod, path },
            Sight::Nothing => NetnsEvent::Seen { pod, path, id: None },
            Sight::Namespace(id) => NetnsEvent::Seen {
                pod,
                path,
                id: Some(id),
            },
        };
        // The loop has ended: nobody wants to know.
        drop(events.send(Event::Netns(event)));
    }

    /// The same where nothing has been reported yet.
    fn report_first(&mut self, pod: &PodUid, path: &Arc<Path>, sight: Sight, events: &UnboundedSender<Event>) {
        if self.watched.get(pod).is_some_and(|it| it.reported == Sight::Unseen) {
            self.report(pod, path, sight, events);
        }
    }

    /// The same for every pod that is looked for there. Whether there is one.
    fn report_all(&mut self, path: &Arc<Path>, sight: Sight, events: &UnboundedSender<Event>) -> bool {
        let here = self.watched.iter().filter(|(_, watched)| watched.path == *path);
        let pods: Vec<PodUid> = here.map(|(pod, _)| pod.clone()).collect();
        for pod in &pods {
            self.report(pod, path, sight, events);
        }
        !pods.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;

    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;

    const SILENT: &str = "/hangs";

    fn pod(name: &str) -> PodUid {
        PodUid::new(name).expect("valid")
    }

    fn id(inode: u64) -> NetnsId {
        NetnsId { device: 4, inode }
    }

    /// What was reported, in words.
    fn news(events: &mut UnboundedReceiver<Event>) -> Vec<String> {
        let mut news = Vec::new();
        while let Ok(event) = events.try_recv() {
            news.push(match event {
                Event::Netns(NetnsEvent::Seen { pod, id, .. }) => format!("{pod} {:?}", id.map(|id| id.inode)),
                Event::Netns(NetnsEvent::Silent { pod, path }) => format!("{pod} {}", path.display()),
                other => panic!("{other:?}"),
            });
        }
        news
    }

    #[test]
    fn s228_a_look_that_does_not_come_back_keeps_its_path_and_no_other() {
        let (sender, mut events) = unbounded_channel();
        let paths = Arc::new(Paths::default());
        paths.track(pod("a"), "/a".into());
        paths.track(pod("b"), SILENT.into());
        paths.track(pod("c"), "/c".into());
        let others = |path: &Path| {
            assert_ne!(path, Path::new(SILENT), "somebody is at it");
            Some(id(7))
        };
        let (let_go, wait) = channel::<()>();
        let (arrived, arrival) = channel();
        let first = {
            let (paths, sender) = (Arc::clone(&paths), sender.clone());
            thread::spawn(move || {
                let look = |path: &Path| {
                    if path == Path::new(SILENT) {
                        arrived.send(()).expect("somebody listens");
                        wait.recv().expect("let go");
                    }
                    Some(id(1))
                };
                paths.round(0, look, &sender)
            })
        };
        arrival.recv().expect("it hangs");
        assert_eq!(news(&mut events), ["a Some(1)"]);
        let number = paths.under_way().expect("a look");
        assert_eq!(paths.give_up(number + 1, &sender), None, "another look");
        assert_eq!(paths.give_up(number, &sender), Some(1));
        assert_eq!((paths.under_way(), paths.give_up(number, &sender)), (None, None));
        assert_eq!(news(&mut events), ["b /hangs"]);

        // The stand-in goes on with the others, and tells who comes later.
        paths.track(pod("d"), SILENT.into());
        for _ in 0..2 {
            assert!(paths.round(1, others, &sender).is_ok());
        }
        assert_eq!(news(&mut events), ["a Some(7)", "c Some(7)", "d /hangs"]);

        let_go.send(()).expect("it waits");
        let late = first.join().expect("no panic").expect_err("others make the rounds");
        assert!(news(&mut events).is_empty());
        assert!(paths.tell(&late, &sender));
        assert_eq!(news(&mut events), ["b Some(1)", "d Some(1)"]);
        assert!(
            paths.round(1, others, &sender).is_ok(),
            "it is not among the others yet"
        );
        paths.answers(&late.path);
        assert!(paths.round(1, |_| None, &sender).is_ok());
        assert_eq!(news(&mut events), ["a None", "b None", "c None", "d None"]);
        for name in ["b", "d"] {
            paths.forget(&pod(name));
        }
        assert!(!paths.tell(&late, &sender), "nobody wants to know");
    }
}
