//! One update that a sink has: [`Lease`], and the place where its task waits for the outcome.

use std::{
    fmt,
    ops::Deref,
    sync::{Arc, PoisonError},
    task::{Context, Poll, Waker},
};

use super::SinkError;
use crate::{
    BoxError, Delivery,
    panics::discard,
    sync::{
        AtomicWaker, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

/// An update that a sink has to complete, and the right to do so once.
///
/// Dereferences to the update. Completing consumes the lease, so it cannot happen twice. Dropping the
/// lease fails the update, see [`UpdateSink`](super::UpdateSink).
///
/// A lease is revoked when its update times out or is abandoned. Then it is too late to complete it:
/// that has no effect and returns `false`.
///
/// ```compile_fail,E0382
/// fn twice(lease: runner_core::Lease<u32>) {
///     lease.finish();
///     lease.fail("on second thoughts");
/// }
/// ```
#[must_use = "a lease that is dropped fails its update; complete it with `finish` or `fail`"]
pub struct Lease<U> {
    update: Delivery<U>,
    completion: Arc<Completion>,
}

impl<U> Lease<U> {
    pub(super) fn new(update: Delivery<U>, completion: Arc<Completion>) -> Self {
        Self { update, completion }
    }

    /// Completes the update as handled. Returns `false` if the lease is revoked.
    pub fn finish(self) -> bool {
        self.completion.complete(Ok(()))
    }

    /// Fails the update: the error policy decides what follows. Returns `false` if the lease is revoked.
    pub fn fail(self, error: impl Into<BoxError>) -> bool {
        self.completion.complete(Err(error.into()))
    }

    /// Whether it is too late to complete the update. Once true, it stays true.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        self.completion.is_revoked()
    }

    /// The update with its attempt, its deadline, and whether the runner is stopping.
    #[must_use]
    pub fn delivery(&self) -> &Delivery<U> {
        &self.update
    }
}

impl<U> Deref for Lease<U> {
    type Target = U;

    fn deref(&self) -> &U {
        &self.update
    }
}

impl<U> Drop for Lease<U> {
    fn drop(&mut self) {
        self.completion.lease_dropped();
    }
}

impl<U: fmt::Debug> fmt::Debug for Lease<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("update", &*self.update)
            .field("attempt", &self.update.attempt())
            .finish_non_exhaustive()
    }
}

/// Where a lease leaves the outcome of its update, for the task that waits for it.
pub(super) struct Completion {
    state: Mutex<State>,
    /// Counts, for the run, those that are not complete.
    open: Arc<AtomicUsize>,
}

struct State {
    phase: Phase,
    waker: Option<Waker>,
    /// The call that got the lease.
    call: Option<Arc<Call>>,
}

#[derive(Debug)]
enum Phase {
    /// Not leased, or leased to a call that is under way.
    Open,
    /// The lease was dropped, and the result of the call decides what that means.
    Dropped,
    /// The call has ended before its lease.
    Outlived,
    /// Complete; the outcome until it is taken.
    Complete(Option<Result<(), BoxError>>),
    /// No task waits for an outcome any more.
    Revoked,
}

impl Completion {
    pub(super) fn new(open: Arc<AtomicUsize>) -> Arc<Self> {
        open.fetch_add(1, Ordering::AcqRel);
        let state = Mutex::new(State {
            phase: Phase::Open,
            waker: None,
            call: None,
        });
        Arc::new(Self { state, open })
    }

    /// Becomes part of a call. `false` if it is too late.
    pub(super) fn join(&self, call: &Arc<Call>) -> bool {
        let mut state = self.lock();
        let is_open = matches!(state.phase, Phase::Open);
        if is_open {
            call.open.fetch_add(1, Ordering::AcqRel);
            state.call = Some(Arc::clone(call));
        }
        is_open
    }

    /// The call has ended: without its lease the update fails with `error`.
    pub(super) fn call_ended(&self, error: impl FnOnce() -> BoxError) {
        let mut state = self.lock();
        match state.phase {
            Phase::Open => state.phase = Phase::Outlived,
            Phase::Dropped => {
                drop(state);
                self.complete(Err(error()));
            }
            Phase::Outlived | Phase::Complete(_) | Phase::Revoked => {}
        }
    }

    /// The lease was dropped, before its completion or after it.
    fn lease_dropped(&self) {
        let mut state = self.lock();
        match state.phase {
            Phase::Open => state.phase = Phase::Dropped,
            Phase::Outlived => {
                drop(state);
                self.complete(Err(SinkError::Forgotten.into()));
            }
            Phase::Dropped | Phase::Complete(_) | Phase::Revoked => {}
        }
    }

    fn complete(&self, outcome: Result<(), BoxError>) -> bool {
        self.end(Phase::Complete(Some(outcome))).is_ok()
    }

    /// No task waits any more. `false` if the update was complete before.
    pub(super) fn revoke(&self) -> bool {
        let revoked = self.end(Phase::Revoked).is_ok();
        if !revoked {
            let untaken = std::mem::replace(&mut self.lock().phase, Phase::Complete(None));
            discard(untaken);
        }
        revoked
    }

    /// Enters the last phase, or gives it back if there was one before, to be dropped outside of the
    /// lock: an error is the user's.
    fn end(&self, last: Phase) -> Result<(), Phase> {
        let mut state = self.lock();
        if matches!(state.phase, Phase::Complete(_) | Phase::Revoked) {
            drop(state);
            return Err(last);
        }
        let revoked = matches!(last, Phase::Revoked);
        state.phase = last;
        // Before its task can leave the queue, which compares.
        self.open.fetch_sub(1, Ordering::AcqRel);
        let (waker, call) = (state.waker.take(), state.call.take());
        drop(state);
        if let Some(call) = call {
            call.leave(revoked);
        }
        if let Some(waker) = waker.filter(|_| !revoked) {
            waker.wake();
        }
        Ok(())
    }

    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<Result<(), BoxError>> {
        let mut state = self.lock();
        if let Phase::Complete(outcome) = &mut state.phase
            && let Some(outcome) = outcome.take()
        {
            return Poll::Ready(outcome);
        }
        let replaced = state.waker.replace(cx.waker().clone());
        drop(state);
        drop(replaced);
        Poll::Pending
    }

    fn is_revoked(&self) -> bool {
        matches!(self.lock().phase, Phase::Revoked)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether any outcome of a call is still awaited.
#[derive(Default)]
pub(super) struct Call {
    /// Updates of the group that are neither complete nor revoked.
    open: AtomicUsize,
    /// Whether one was revoked.
    revoked: AtomicBool,
    driver: AtomicWaker,
}

impl Call {
    /// Whether all that the call has left to complete is revoked.
    pub(super) fn is_needless(&self) -> bool {
        self.open.load(Ordering::Acquire) == 0 && self.revoked.load(Ordering::Acquire)
    }

    /// Ready when the call is needless.
    pub(super) fn poll_needless(&self, cx: &Context<'_>) -> Poll<()> {
        self.driver.register(cx.waker());
        match self.is_needless() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    fn leave(&self, revoked: bool) {
        if revoked {
            self.revoked.store(true, Ordering::Release);
        }
        self.open.fetch_sub(1, Ordering::AcqRel);
        if self.is_needless() {
            self.driver.wake();
        }
    }
}
