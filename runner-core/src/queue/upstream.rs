//! What the driver of a custom sink asks the queue: whether more updates can join its next group.

use std::{sync::Arc, task::Waker};

use super::{
    QueueShared,
    effects::Wakers,
    options::Mode,
    state::{Phase, State},
};
use crate::{
    Runtime,
    sync::atomic::{AtomicUsize, Ordering},
};

/// The queue in front of a sink.
pub(crate) trait Upstream: Send + Sync {
    /// Whether more updates can join a group of this size. `open`: how many the sink was offered that
    /// are not complete.
    ///
    /// Unless the answer is [`Never`](Outlook::Never), the driver is woken when nothing is on its way,
    /// and has to ask again. A replaced watcher is returned to be dropped outside of locks.
    fn outlook(
        &self,
        gathered: usize,
        lingers: bool,
        driver: &Waker,
        open: &Arc<AtomicUsize>,
    ) -> (Outlook, Option<Watcher>);

    /// Wakes the driver no more.
    fn forget(&self) -> Option<Watcher>;

    fn runtime(&self) -> &Arc<dyn Runtime>;
}

/// Whether more updates can join a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outlook {
    /// Some are on their way, and need only another task to run.
    Soon,
    /// Some may come before the group is complete. Only for a group that lingers.
    Later,
    Never,
}

/// The driver of a sink, while it waits for more updates.
pub(crate) struct Watcher {
    waker: Waker,
    open: Arc<AtomicUsize>,
}

impl<U> State<U> {
    fn outlook(
        &mut self,
        gathered: usize,
        lingers: bool,
        driver: &Waker,
        open: &Arc<AtomicUsize>,
    ) -> (Outlook, Option<Watcher>) {
        let outlook = if self.is_offering(open) {
            Outlook::Soon
        } else if lingers && self.may_offer(gathered) {
            Outlook::Later
        } else {
            Outlook::Never
        };
        let watcher = (outlook != Outlook::Never).then(|| Watcher {
            waker: driver.clone(),
            open: Arc::clone(open),
        });
        (outlook, std::mem::replace(&mut self.watcher, watcher))
    }

    /// Whether an update is about to be offered, or to leave, which lets others start.
    fn is_offering(&self, open: &AtomicUsize) -> bool {
        // Handled and not open: started and not offered yet, or complete and not released yet. A policy
        // may take long, so its update does not count.
        let workers = &self.workers;
        let handled = workers.running + workers.detached - workers.deciding;
        self.startable() > 0 || self.arriving > 0 || handled > open.load(Ordering::Acquire)
    }

    /// Whether an update may be offered before those of this group are complete.
    fn may_offer(&self, gathered: usize) -> bool {
        match (self.limits.mode, self.phase) {
            (Mode::Concurrent, Phase::Open) => gathered < self.workers.concurrency,
            // Nothing is fetched, but others may be retried or release a key.
            _ => {
                let started = self.workers.running + self.workers.detached;
                started > gathered || self.intake.retrying() > 0
            }
        }
    }

    /// Collects the waker of the driver if no update is about to be offered.
    #[inline]
    pub(super) fn wake_watcher(&mut self, wakers: &mut Wakers) {
        if let Some(watcher) = &self.watcher
            && !self.is_offering(&watcher.open)
        {
            let watcher = self.watcher.take().expect("it was seen");
            wakers.push(watcher.waker);
        }
    }
}

impl<U: Send + Sync + 'static> Upstream for QueueShared<U> {
    fn outlook(
        &self,
        gathered: usize,
        lingers: bool,
        driver: &Waker,
        open: &Arc<AtomicUsize>,
    ) -> (Outlook, Option<Watcher>) {
        self.lock().outlook(gathered, lingers, driver, open)
    }

    fn forget(&self) -> Option<Watcher> {
        self.lock().watcher.take()
    }

    fn runtime(&self) -> &Arc<dyn Runtime> {
        &self.runtime
    }
}
