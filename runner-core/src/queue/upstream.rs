//! What the task of a user's sink asks the queue: whether more updates can join its next group.

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
    /// Whether more updates can join a group of so many that were offered and not handed over.
    ///
    /// Unless the answer is [`Never`](Outlook::Never), the watcher is woken as soon as nothing is
    /// coming, or what may come later changes. Drop what is returned beside outside of locks.
    fn outlook(
        &self,
        gathered: usize,
        lingers: bool,
        watcher: Watcher,
    ) -> (Outlook, Option<Watcher>);

    /// Forgets the watcher.
    fn forget(&self) -> Option<Watcher>;

    fn runtime(&self) -> &Arc<dyn Runtime>;
}

/// Whether more updates can join a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outlook {
    /// They are on their way: nothing but a moment of another task is missing.
    Soon,
    /// They may come before the group is complete, if it lingers.
    Later,
    Never,
}

/// Who waits for more updates.
pub(crate) struct Watcher {
    waker: Waker,
    /// How many updates the sink was offered that are not complete.
    open: Arc<AtomicUsize>,
}

impl Watcher {
    pub(crate) fn new(waker: Waker, open: Arc<AtomicUsize>) -> Self {
        Self { waker, open }
    }
}

impl<U> State<U> {
    fn outlook(
        &mut self,
        gathered: usize,
        lingers: bool,
        watcher: Watcher,
    ) -> (Outlook, Option<Watcher>) {
        let outlook = if self.is_offering(&watcher) {
            Outlook::Soon
        } else if lingers && self.may_offer(gathered) {
            Outlook::Later
        } else {
            Outlook::Never
        };
        let watcher = (outlook != Outlook::Never).then_some(watcher);
        (outlook, std::mem::replace(&mut self.watcher, watcher))
    }

    /// Whether an update is about to be offered, or to leave and so to let others start.
    fn is_offering(&self, watcher: &Watcher) -> bool {
        // The others have been started and not offered yet, or they are complete and still here. What a
        // policy decides about may take long, and is not waited for.
        let workers = &self.workers;
        let handled = workers.running + workers.detached - workers.deciding;
        self.startable() > 0 || self.arriving || handled > watcher.open.load(Ordering::Acquire)
    }

    /// Whether an update may be offered before those of this group are complete.
    fn may_offer(&self, gathered: usize) -> bool {
        match (self.limits.mode, self.phase) {
            (Mode::Concurrent, Phase::Open) => gathered < self.workers.concurrency,
            // Nothing is fetched; but others may fail and be retried, or release a key.
            _ => {
                let started = self.workers.running + self.workers.detached;
                started > gathered || self.intake.retrying() > 0
            }
        }
    }

    /// Collects the waker of the sink if no update is about to be offered.
    #[inline]
    pub(super) fn wake_watcher(&mut self, wakers: &mut Wakers) {
        if let Some(watcher) = &self.watcher
            && !self.is_offering(watcher)
        {
            // Its other field is shared with the handover: dropping it here drops nothing.
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
        watcher: Watcher,
    ) -> (Outlook, Option<Watcher>) {
        self.lock().outlook(gathered, lingers, watcher)
    }

    fn forget(&self) -> Option<Watcher> {
        self.lock().watcher.take()
    }

    fn runtime(&self) -> &Arc<dyn Runtime> {
        &self.runtime
    }
}
