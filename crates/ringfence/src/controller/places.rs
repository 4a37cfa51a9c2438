//! Where the pods' network namespaces are: as the container runtime says it, or by a template of paths, or both.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use ringfence_cri::{Change, Health};
use ringfence_model::{NamespacedName, Pod, PodUid};
use tokio::sync::mpsc::Receiver;
use tokio::sync::watch;

use crate::sandboxes::{Poke, Sandboxes};
use crate::template::NetnsTemplate;

/// What is known of places. A function of what was said last, and not of the order of pods and sandboxes.
pub(super) struct Places {
    /// `None`: only the runtime counts.
    template: Option<NetnsTemplate>,
    /// `None`: only the template counts.
    runtime: Option<Runtime>,
    /// What hooks have said of sandboxes that no list of the runtime has held yet. It goes before the lists, which may be
    /// about the sandbox before.
    hooked: HashMap<PodUid, Hooked>,
}

struct Hooked {
    place: Place,
    sandbox: String,
    /// When it was said: sandboxes that were made later go before it.
    at: SystemTime,
}

/// Where a sandbox is.
struct Place {
    path: Result<PathBuf, Arc<str>>,
    /// What its pod is called, if it is or may be a static one: the API's mirror of that name may have the place, as long as
    /// nobody has the sandbox's own UID. The kubelet gives each of a file's pods its name, and nobody else can have a pod of
    /// that name at the same time; whoever may make one there may as well change the mirror. What a mirror claims by its
    /// annotation alone anybody can claim.
    static_pod: Option<NamespacedName>,
}

impl Place {
    fn is_of_mirror(&self, pod: &Pod) -> bool {
        self.static_pod.as_ref() == Some(&pod.name)
    }
}

struct Runtime {
    /// Of every sandbox on the node, also of pods that are not known (yet).
    placed: HashMap<PodUid, Place>,
    /// Whether it has told everything once.
    synced: bool,
    poke: Poke,
    health: watch::Receiver<Health>,
}

/// Why a pod has no place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// Its names cannot be a path, and will never be.
    Never(Arc<str>),
    /// It is waited for.
    NotYet(Arc<str>),
}

impl NoPlace {
    pub(super) fn into_reason(self) -> Arc<str> {
        match self {
            Self::Never(reason) | Self::NotYet(reason) => reason,
        }
    }
}

impl Places {
    /// What is known, and where news come from.
    pub(super) fn new(template: NetnsTemplate, sandboxes: Option<Sandboxes>) -> (Self, Option<Receiver<Vec<Change>>>) {
        let Some(sandboxes) = sandboxes else {
            let template = Some(template);
            return (
                Self {
                    template,
                    runtime: None,
                    hooked: HashMap::new(),
                },
                None,
            );
        };
        let places = Self {
            template: sandboxes.fallback.then_some(template),
            runtime: Some(Runtime {
                placed: HashMap::new(),
                synced: false,
                poke: sandboxes.poke,
                health: sandboxes.health,
            }),
            hooked: HashMap::new(),
        };
        (places, Some(sandboxes.changes))
    }

    /// How the runtime is.
    pub(super) fn health(&self) -> Option<watch::Receiver<Health>> {
        self.runtime.as_ref().map(|runtime| runtime.health.clone())
    }

    /// Whether the runtime lists its sandboxes.
    pub(super) fn has_runtime(&self) -> bool {
        self.runtime.is_some()
    }

    // === Hooks ===

    /// Takes in what a hook says of a sandbox that is new. `static_pod`: what its pod is called, if it may be a static one.
    pub(super) fn hook(&mut self, pod: PodUid, sandbox: String, path: PathBuf, static_pod: Option<NamespacedName>) {
        let at = SystemTime::now();
        let place = Place {
            path: Ok(path),
            static_pod,
        };
        self.hooked.insert(pod, Hooked { place, sandbox, at });
    }

    /// The sandbox goes. The pod whose place may have changed.
    pub(super) fn unhook(&mut self, sandbox: &str) -> Option<PodUid> {
        let found = self.hooked.iter().find(|(_, hooked)| hooked.sandbox == sandbox);
        let pod = found.map(|(pod, _)| pod.clone())?;
        self.hooked.remove(&pod);
        Some(pod)
    }

    /// Nobody would tell when those go.
    pub(super) fn forget_hooked(&mut self) {
        self.hooked.clear();
    }

    /// Whether a hook has told of this sandbox first.
    pub(super) fn was_hooked(&self, pod: &PodUid, sandbox: &str) -> bool {
        self.hooked.get(pod).is_some_and(|hooked| hooked.sandbox == sandbox)
    }

    /// Whether everything that was there at the start is known.
    pub(super) fn complete(&self) -> bool {
        self.runtime.as_ref().is_none_or(|runtime| runtime.synced)
    }

    /// Asks the runtime now.
    pub(super) fn poke(&self) {
        if let Some(runtime) = &self.runtime {
            (runtime.poke)();
        }
    }

    /// Asks the runtime now, if it has not said where this pod's sandbox is.
    pub(super) fn look_for(&self, pod: &Pod) {
        if let Some(runtime) = &self.runtime {
            let said = [Some(&pod.uid), pod.mirror_of.as_ref()].into_iter().flatten();
            let mut places = said.filter_map(|uid| {
                let hooked = self.hooked.get(uid).map(|hooked| &hooked.place);
                hooked.or_else(|| runtime.placed.get(uid))
            });
            if !places.any(|place| place.path.is_ok()) {
                (runtime.poke)();
            }
        }
    }

    /// Takes in what the runtime says. The pod whose place may have changed; `None` for all.
    pub(super) fn take(&mut self, change: Change) -> Option<PodUid> {
        let runtime = self.runtime.as_mut()?;
        Some(match change {
            Change::Found {
                pod,
                path,
                sandbox,
                created,
                static_pod,
            } => {
                // From here on the lists know it, or a newer one that nobody has asked about.
                let overtakes = |hooked: &Hooked| hooked.sandbox == sandbox || created > Some(hooked.at);
                if self.hooked.get(&pod).is_some_and(overtakes) {
                    self.hooked.remove(&pod);
                }
                let path = Ok(path);
                runtime.placed.insert(pod.clone(), Place { path, static_pod });
                pod
            }
            Change::Unusable { pod, reason, .. } => {
                let place = Place {
                    path: Err(reason.into()),
                    static_pod: None,
                };
                runtime.placed.insert(pod.clone(), place);
                pod
            }
            Change::Gone { pod } => {
                runtime.placed.remove(&pod);
                pod
            }
            Change::Synced => {
                runtime.synced = true;
                return None;
            }
        })
    }

    /// Where a pod's network namespace is. The runtime's word goes before the template. `mirrored`: the UID that it claims to
    /// have there, if nobody else has it.
    pub(super) fn of(&self, pod: &Pod, mirrored: Option<&PodUid>) -> Result<PathBuf, NoPlace> {
        let hooked = |uid: &PodUid| self.hooked.get(uid).map(|hooked| &hooked.place);
        let of_mirror = || mirrored.and_then(hooked).filter(|place| place.is_of_mirror(pod));
        if let Some(Place { path: Ok(path), .. }) = hooked(&pod.uid).or_else(of_mirror) {
            return Ok(path.clone());
        }
        let said = self.runtime.as_ref().map(|runtime| runtime.of(pod, mirrored));
        match (said, &self.template) {
            (Some(Ok(path)), _) => Ok(path),
            (_, Some(template)) => template
                .path(pod)
                .map_err(|error| NoPlace::Never(error.to_string().into())),
            (Some(Err(reason)), None) => Err(NoPlace::NotYet(reason)),
            (None, None) => Err(NoPlace::NotYet("nobody says where its network namespace is".into())),
        }
    }
}

impl Runtime {
    fn of(&self, pod: &Pod, mirrored: Option<&PodUid>) -> Result<PathBuf, Arc<str>> {
        let name = || self.health.borrow().name().to_owned();
        let of_mirror = || self.placed.get(mirrored?).filter(|place| place.is_of_mirror(pod));
        match self.placed.get(&pod.uid).or_else(of_mirror) {
            Some(place) => place.path.clone(),
            None if self.synced => Err(format!("no sandbox for it in {} yet", name()).into()),
            None => Err(format!("{} has not listed its sandboxes yet", name()).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::mpsc::channel;

    use super::*;
    use crate::testing::pod;

    struct Fake {
        places: Places,
        pokes: Arc<AtomicU32>,
    }

    fn fake(fallback: bool) -> Fake {
        let mut health = Health::new(None);
        health.runtime = Some("containerd 1.6.20".into());
        let pokes = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&pokes);
        let sandboxes = Sandboxes {
            changes: channel(1).1,
            poke: Arc::new(move || {
                count.fetch_add(1, Ordering::Relaxed);
            }),
            health: watch::channel(health).1,
            fallback,
        };
        let (places, _) = Places::new(NetnsTemplate::default(), Some(sandboxes));
        Fake { places, pokes }
    }

    fn found(pod: &Pod, path: &str) -> Change {
        Change::Found {
            pod: pod.uid.clone(),
            path: path.into(),
            sandbox: "s".into(),
            created: None,
            static_pod: None,
        }
    }

    #[track_caller]
    fn check(places: &Places, pod: &Pod, expected: Result<&str, &str>) {
        let found = places.of(pod, pod.mirror_of.as_ref()).map_err(NoPlace::into_reason);
        assert_eq!(found, expected.map(PathBuf::from).map_err(Arc::from));
    }

    #[test]
    fn a_pod_waits_for_its_sandbox_and_loses_its_place_with_it() {
        let Fake { mut places, pokes } = fake(false);
        let web = pod("shop", "web");
        check(&places, &web, Err("containerd has not listed its sandboxes yet"));
        assert!(!places.complete());
        assert_eq!(places.take(Change::Synced), None);
        assert!(places.complete());
        check(&places, &web, Err("no sandbox for it in containerd yet"));
        places.look_for(&web);
        assert_eq!(pokes.load(Ordering::Relaxed), 1);
        assert_eq!(places.take(found(&web, "/run/netns/cni-1")), Some(web.uid.clone()));
        check(&places, &web, Ok("/run/netns/cni-1"));
        places.look_for(&web);
        assert_eq!(pokes.load(Ordering::Relaxed), 1, "it is known");
        let unusable = Change::Unusable {
            pod: web.uid.clone(),
            sandbox: "s".into(),
            reason: "it has no details".into(),
        };
        places.take(unusable);
        check(&places, &web, Err("it has no details"));
        places.look_for(&web);
        assert_eq!(pokes.load(Ordering::Relaxed), 2);
        places.take(Change::Gone { pod: web.uid.clone() });
        check(&places, &web, Err("no sandbox for it in containerd yet"));
    }

    #[test]
    fn a_hook_goes_before_the_lists_until_they_hold_its_sandbox() {
        let Fake { mut places, .. } = fake(false);
        let web = pod("shop", "web");
        places.take(found(&web, "/run/netns/cni-1"));
        places.hook(web.uid.clone(), "new".into(), "/run/netns/cni-2".into(), None);
        check(&places, &web, Ok("/run/netns/cni-2"));
        // The lists are about the sandbox before, which goes.
        places.take(found(&web, "/run/netns/cni-1"));
        places.take(Change::Gone { pod: web.uid.clone() });
        check(&places, &web, Ok("/run/netns/cni-2"));
        assert!(places.was_hooked(&web.uid, "new") && !places.was_hooked(&web.uid, "s"));
        let listed = Change::Found {
            pod: web.uid.clone(),
            path: "/run/netns/cni-2".into(),
            sandbox: "new".into(),
            created: None,
            static_pod: None,
        };
        places.take(listed);
        check(&places, &web, Ok("/run/netns/cni-2"));
        assert_eq!(places.unhook("new"), None, "the lists tell when it goes");
        places.take(Change::Gone { pod: web.uid.clone() });
        check(&places, &web, Err("containerd has not listed its sandboxes yet"));

        // One that is made while nobody asks.
        places.hook(web.uid.clone(), "lost".into(), "/run/netns/cni-4".into(), None);
        let newer = Change::Found {
            pod: web.uid.clone(),
            path: "/run/netns/cni-5".into(),
            sandbox: "newer".into(),
            created: Some(SystemTime::now() + std::time::Duration::from_secs(1)),
            static_pod: None,
        };
        places.take(newer);
        check(&places, &web, Ok("/run/netns/cni-5"));
        places.take(Change::Gone { pod: web.uid.clone() });

        // One whose start was refused is in no list.
        places.hook(web.uid.clone(), "refused".into(), "/run/netns/cni-3".into(), None);
        assert_eq!(places.unhook("another"), None);
        assert_eq!(places.unhook("refused"), Some(web.uid.clone()));
        check(&places, &web, Err("containerd has not listed its sandboxes yet"));
    }

    #[test]
    fn a_mirror_has_the_place_of_the_static_pod_of_its_name_and_nobody_else_has() {
        let waits = "no sandbox for it in containerd yet";
        let mut mirror = pod("shop", "web-n1");
        let mut forged = pod("bank", "thief");
        let sandbox = PodUid::new("0123456789abcdef0123456789abcdef").expect("valid");
        let of_web = Some(mirror.name.clone());
        mirror.mirror_of = Some(sandbox.clone());
        forged.mirror_of = Some(sandbox.clone());
        let said = |static_pod: Option<NamespacedName>| Change::Found {
            pod: sandbox.clone(),
            path: "/run/netns/cni-1".into(),
            sandbox: "s".into(),
            created: None,
            static_pod,
        };
        for by_hook in [false, true] {
            let Fake { mut places, pokes } = fake(false);
            places.take(Change::Synced);
            places.look_for(&mirror);
            assert_eq!(pokes.load(Ordering::Relaxed), 1);
            if by_hook {
                places.hook(sandbox.clone(), "s".into(), "/run/netns/cni-1".into(), of_web.clone());
            } else {
                places.take(said(of_web.clone()));
            }
            check(&places, &mirror, Ok("/run/netns/cni-1"));
            check(&places, &forged, Err(waits));
            // Somebody else has that UID.
            assert!(places.of(&mirror, None).is_err());
            places.look_for(&mirror);
            assert_eq!(pokes.load(Ordering::Relaxed), 1, "it is known");
            if by_hook {
                assert_eq!(places.unhook("s"), Some(sandbox.clone()));
            } else {
                places.take(Change::Gone { pod: sandbox.clone() });
            }
            check(&places, &mirror, Err(waits));
            // The sandbox of a pod of the API has no mirror, whatever its name.
            if by_hook {
                places.hook(sandbox.clone(), "s".into(), "/run/netns/cni-1".into(), None);
            } else {
                places.take(said(None));
            }
            check(&places, &mirror, Err(waits));
        }
    }

    #[test]
    fn the_template_counts_where_there_is_no_sandbox() {
        let Fake { mut places, .. } = fake(true);
        let web = pod("shop", "web");
        check(&places, &web, Ok("/run/netns/shop.web"));
        places.take(found(&web, "/run/netns/cni-1"));
        check(&places, &web, Ok("/run/netns/cni-1"));
        places.take(Change::Gone { pod: web.uid.clone() });
        check(&places, &web, Ok("/run/netns/shop.web"));
        let odd = pod("shop", "a/b");
        assert!(matches!(places.of(&odd, None), Err(NoPlace::Never(_))));

        let (places, changes) = Places::new(NetnsTemplate::default(), None);
        assert!(changes.is_none() && places.complete() && places.health().is_none());
        check(&places, &web, Ok("/run/netns/shop.web"));
    }
}
