//! What others can see of a source while it is in use, and how they close it.

use std::{
    fmt,
    sync::{Arc, PoisonError},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use crate::sync::{Mutex, MutexGuard};

/// Shared by a source, its handles and its runner.
#[derive(Clone)]
pub(crate) struct Status(Arc<Mutex<StatusFields>>);

#[derive(Default)]
struct StatusFields {
    snapshot: SourceSnapshot,
    active: bool,
    /// How often the source was closed by hand.
    closes: u64,
    /// The text of the last failure, with its causes.
    last_error: Option<Arc<str>>,
    /// Of the one call of `next` that may be under way.
    waker: Option<Waker>,
}

/// A source at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SourceSnapshot {
    pub(crate) state: SourceState,
    /// Calls that have begun.
    pub(crate) calls: u64,
    /// Calls that failed; requests to wait are none.
    pub(crate) failures: u64,
    /// When the call under way is dropped.
    pub(super) deadline: Option<Instant>,
    /// How long the last call may have taken.
    pub(super) call_timeout: Option<Duration>,
    /// When a call was last answered with updates, or with none.
    pub(crate) completed: Option<Instant>,
    /// Whether a call has failed since.
    pub(crate) failing: bool,
}

/// What a source does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SourceState {
    /// Nothing; `next` is not called.
    #[default]
    Idle,
    /// A call is under way, or the pause before the next one.
    Polling,
    /// Waits after a failure, or because it was asked to.
    Backoff,
    /// Waits for another poller to go away.
    Conflict,
}

/// Closes a [`Source`](crate::Source) that is in use elsewhere. Cheap to clone.
#[derive(Clone)]
pub struct SourceHandle(pub(super) Status);

impl SourceHandle {
    /// Drops the call under way at once; the `next` that waits for it returns `None`.
    ///
    /// This loses no update. Asking the source for updates opens it again. If `next` is not being
    /// waited for, the source only becomes inactive.
    pub fn close(&self) {
        let waker = {
            let mut state = self.0.lock();
            state.active = false;
            state.closes += 1;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether the source is in use: updates were asked for, and since then it was neither closed nor
    /// has it failed.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.0.lock().active
    }
}

impl fmt::Debug for SourceHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceHandle")
            .field("active", &self.is_active())
            .finish_non_exhaustive()
    }
}

impl Status {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(StatusFields::default())))
    }

    pub(crate) fn snapshot(&self) -> SourceSnapshot {
        self.lock().snapshot
    }

    pub(crate) fn last_error(&self) -> Option<Arc<str>> {
        self.lock().last_error.clone()
    }

    pub(super) fn set_last_error(&self, error: Arc<str>) {
        self.lock().last_error = Some(error);
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut SourceSnapshot)) {
        change(&mut self.lock().snapshot);
    }

    /// Opens the source for one call of `next`.
    pub(super) fn open(&self) -> Opened<'_> {
        Opened {
            status: self,
            closes: self.lock().closes,
            answered: None,
        }
    }

    pub(super) fn deactivate(&self) {
        self.lock().active = false;
    }

    fn lock(&self) -> MutexGuard<'_, StatusFields> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.snapshot().fmt(f)
    }
}

/// Held while `next` runs. When it is dropped, nothing is under way any more.
#[derive(Debug)]
pub(super) struct Opened<'a> {
    status: &'a Status,
    closes: u64,
    answered: Option<Instant>,
}

impl Opened<'_> {
    /// Ends it with an answer.
    pub(super) fn answered(mut self, now: Instant) {
        self.answered = Some(now);
    }

    /// Notes what is under way.
    pub(super) fn enter(&self, change: impl FnOnce(&mut SourceSnapshot)) {
        let mut state = self.status.lock();
        // It may have been closed since.
        if state.closes == self.closes {
            state.active = true;
        }
        change(&mut state.snapshot);
    }

    /// Ready when the source is closed by hand.
    pub(super) fn poll_closed(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.status.lock();
        let known = state.waker.as_ref();
        if !known.is_some_and(|known| known.will_wake(cx.waker())) {
            // Wakers are foreign code, and are neither cloned nor dropped under the lock.
            drop(state);
            let waker = cx.waker().clone();
            state = self.status.lock();
            let old = state.waker.replace(waker);
            drop(state);
            drop(old);
            state = self.status.lock();
        }
        if state.closes == self.closes {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }
}

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        let waker = {
            let mut state = self.status.lock();
            state.snapshot.state = SourceState::Idle;
            state.snapshot.deadline = None;
            if self.answered.is_some() {
                state.snapshot.completed = self.answered;
                state.snapshot.failing = false;
            }
            state.waker.take()
        };
        drop(waker);
    }
}

impl SourceSnapshot {
    /// A call that is not even dropped this long after its deadline is stuck.
    const STUCK: Duration = Duration::from_secs(30);

    /// The call after the last answer may take its whole time. This is for the wait after it, and for
    /// the next answer.
    const MARGIN: Duration = Duration::from_secs(15);

    /// Whether the call under way should have ended long ago, by its answer or by its deadline. Then
    /// the supplier blocks its thread, or the clock of the runtime stands still.
    pub(crate) fn is_overdue(&self, now: Instant) -> bool {
        self.deadline
            .is_some_and(|deadline| now.saturating_duration_since(deadline) >= Self::STUCK)
    }

    /// Whether the last answer is at most the time of one call and a margin old.
    ///
    /// A supplier whose calls have no deadline counts as connected from its first answer to its next
    /// failure.
    pub(crate) fn is_connected(&self, now: Instant) -> bool {
        let Some(completed) = self.completed else {
            return false;
        };
        match self.call_timeout {
            None => !self.failing,
            Some(span) => {
                now.saturating_duration_since(completed) <= span.saturating_add(Self::MARGIN)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Wake;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn connected_means_answered_within_the_time_of_a_call_and_a_margin() {
        let now = Instant::now();
        let mut snapshot = Status::new().snapshot();
        snapshot.call_timeout = Some(45 * SECOND);
        assert!(!snapshot.is_connected(now));
        snapshot.completed = Some(now);
        // One failure does not make it disconnected.
        snapshot.failing = true;
        assert!(snapshot.is_connected(now + 60 * SECOND));
        assert!(!snapshot.is_connected(now + 61 * SECOND));
        snapshot.call_timeout = Some(Duration::MAX);
        assert!(snapshot.is_connected(now + 61 * SECOND));
    }

    #[test]
    fn without_a_deadline_connected_means_not_failing() {
        let now = Instant::now();
        let mut snapshot = Status::new().snapshot();
        assert!(!snapshot.is_connected(now));
        snapshot.completed = Some(now);
        assert!(snapshot.is_connected(now + 1_000_000 * SECOND));
        snapshot.failing = true;
        assert!(!snapshot.is_connected(now));
    }

    #[test]
    fn a_waker_is_dropped_outside_the_lock() {
        struct Look(Status);
        impl Wake for Look {
            fn wake(self: Arc<Self>) {}
        }
        impl Drop for Look {
            fn drop(&mut self) {
                assert!(self.0.0.try_lock().is_ok());
            }
        }
        let status = Status::new();
        let opened = status.open();
        for _ in 0..2 {
            let waker = Arc::new(Look(status.clone())).into();
            assert!(
                opened
                    .poll_closed(&Context::from_waker(&waker))
                    .is_pending()
            );
        }
    }

    #[test]
    fn overdue_means_long_after_the_deadline() {
        let now = Instant::now();
        let mut snapshot = Status::new().snapshot();
        assert!(!snapshot.is_overdue(now + 1_000_000 * SECOND));
        snapshot.deadline = Some(now);
        assert!(!snapshot.is_overdue(now + 29 * SECOND));
        assert!(snapshot.is_overdue(now + 30 * SECOND));
    }
}
