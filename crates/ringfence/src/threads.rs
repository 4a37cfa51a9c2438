//! The threads beside the loop: one for each applier, those that look at paths, one that hears of changes by others.

use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::SystemTime;

use ringfence_model::PodUid;
use tokio::sync::mpsc::UnboundedSender;

use crate::applier::Worker;
use crate::event::Event;
use crate::host::{Hands, Machine, Order};
use crate::watcher::Watcher;

/// Appliers only fill buffers that are on the heap; 256 KiB is four times what their deepest call takes.
const STACK: usize = 256 * 1024;

/// The [`Hands`] of an agent.
#[derive(Debug)]
pub struct Threads {
    watcher: Watcher,
    machine: Machine,
}

impl Threads {
    /// Starts the threads that look at paths. One of them calls `mounted` when something was mounted or unmounted.
    pub fn start(events: UnboundedSender<Event>, mounted: impl Fn() + Send + Sync + 'static) -> io::Result<Self> {
        let watcher = Watcher::start(events, mounted)?;
        Ok(Self {
            watcher,
            machine: Machine::new()?,
        })
    }
}

impl Hands for Threads {
    fn start(&mut self, order: Order) -> io::Result<()> {
        let machine = self.machine.clone();
        thread::Builder::new()
            .name(format!("apply-{}", order.run))
            .stack_size(STACK)
            .spawn(move || Worker::new(order, machine).run())?;
        Ok(())
    }

    fn track(&mut self, pod: PodUid, path: PathBuf) {
        self.watcher.track(pod, path);
    }

    fn forget(&mut self, pod: &PodUid) {
        self.watcher.forget(pod);
    }

    fn date(&self) -> SystemTime {
        SystemTime::now()
    }
}
