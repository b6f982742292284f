//! What others may know of a source while it is at work, and how they close it.

use std::{
    fmt,
    sync::{Arc, PoisonError},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use crate::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU64, Ordering},
};

/// Shared by a source and those who look at it.
#[derive(Clone)]
pub(crate) struct Status(Arc<Shared>);

struct Shared {
    /// Counts how often the source was closed by hand. Changes under the lock.
    closes: AtomicU64,
    state: Mutex<State>,
}

struct State {
    snapshot: SourceSnapshot,
    active: bool,
    /// The text of the last failure, with its causes.
    last_error: Option<Arc<str>>,
    /// Of the one call of `next` that may be under way.
    waker: Option<Waker>,
}

/// A source at one moment.
#[derive(Clone, Copy, Debug)]
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
    pub(super) completed: Option<Instant>,
    /// Whether a call has failed since.
    pub(super) failing: bool,
}

/// What a source does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SourceState {
    /// Nothing; nobody asks for updates.
    Idle,
    /// A call is under way, or the pause before the next one.
    Polling,
    /// Waits after a failure, or because it was asked to.
    Backoff,
    /// Waits for another poller to go away.
    Conflict,
}

/// Closes a [`Source`](crate::Source) that is at work elsewhere. Cheap to clone.
#[derive(Clone)]
pub struct SourceHandle(pub(super) Status);

impl SourceHandle {
    /// Drops the call under way at once; whoever waits for it gets `None`.
    ///
    /// No update is lost by it. Asking the source for updates again opens it again. If nobody waits
    /// for updates, nothing happens but that the source is inactive.
    pub fn close(&self) {
        let waker = {
            let mut state = self.0.lock();
            state.active = false;
            self.0.0.closes.fetch_add(1, Ordering::AcqRel);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether the source is in use: updates were asked for, and it was neither closed nor did it
    /// fail since.
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
        let snapshot = SourceSnapshot {
            state: SourceState::Idle,
            calls: 0,
            failures: 0,
            deadline: None,
            call_timeout: None,
            completed: None,
            failing: false,
        };
        Self(Arc::new(Shared {
            closes: AtomicU64::new(0),
            state: Mutex::new(State {
                snapshot,
                active: false,
                last_error: None,
                waker: None,
            }),
        }))
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
            closes: self.closes(),
            answered: None,
        }
    }

    fn closes(&self) -> u64 {
        self.0.closes.load(Ordering::Acquire)
    }

    pub(super) fn deactivate(&self) {
        self.lock().active = false;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.snapshot().fmt(f)
    }
}

/// Held while `next` is at work; when that is dropped, nothing is under way any more.
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
        if self.status.closes() == self.closes {
            state.active = true;
        }
        change(&mut state.snapshot);
    }

    /// Ready when the source is closed by hand.
    pub(super) fn poll_closed(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.status.lock();
        if self.status.closes() != self.closes {
            return Poll::Ready(());
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            empty => *empty = Some(cx.waker().clone()),
        }
        Poll::Pending
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

    /// A supplier allows for the slowness of its server. Twice that, and its margin is over.
    const MARGIN: Duration = Duration::from_secs(15);

    /// Whether the call under way should have ended long ago, by its answer or by its deadline: the
    /// supplier blocks its thread, or the clock of the runtime stands still.
    pub(crate) fn is_overdue(&self, now: Instant) -> bool {
        self.deadline
            .is_some_and(|deadline| now.saturating_duration_since(deadline) >= Self::STUCK)
    }

    /// Whether a call was answered lately: within the time that one may take, and a margin.
    ///
    /// A supplier whose calls may take for ever counts as connected from its first answer to its
    /// next failure.
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
    fn overdue_means_long_after_the_deadline() {
        let now = Instant::now();
        let mut snapshot = Status::new().snapshot();
        assert!(!snapshot.is_overdue(now + 1_000_000 * SECOND));
        snapshot.deadline = Some(now);
        assert!(!snapshot.is_overdue(now + 29 * SECOND));
        assert!(snapshot.is_overdue(now + 30 * SECOND));
    }
}
