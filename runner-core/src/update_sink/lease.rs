//! One update in the hands of a sink: [`Lease`], and the place where its outcome is awaited.

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
    sync::{Mutex, MutexGuard},
};

/// An update that a sink has to settle, and the right to do so once.
///
/// Dereferences to the update. Settling takes the lease away, so it cannot happen twice; dropping it
/// unsettled fails the update, see [`UpdateSink`](super::UpdateSink).
///
/// A lease is revoked when its update times out or is abandoned. Settling it comes too late then,
/// and is answered with `false`; the outcome that counts is in the report.
///
/// ```compile_fail,E0382
/// fn twice(lease: runner_core::Lease<u32>) {
///     lease.finish();
///     lease.fail("on second thoughts");
/// }
/// ```
#[must_use = "a lease that is dropped fails its update; settle it with `finish` or `fail`"]
pub struct Lease<U> {
    update: Delivery<U>,
    slot: Arc<Slot>,
}

impl<U> Lease<U> {
    pub(super) fn new(update: Delivery<U>, slot: Arc<Slot>) -> Self {
        Self { update, slot }
    }

    /// The update is handled. Returns `false` if that comes too late, because the lease is revoked.
    pub fn finish(self) -> bool {
        self.slot.settle(Ok(()))
    }

    /// The update could not be handled: the error policy decides what becomes of it. Returns `false`
    /// if that comes too late, because the lease is revoked.
    pub fn fail(self, error: impl Into<BoxError>) -> bool {
        self.slot.settle(Err(error.into()))
    }

    /// Whether it is too late to settle it. Once true, it stays so.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        self.slot.lock().phase == Phase::Revoked
    }

    /// The update with what the runner knows about it: the attempt, the deadline, a stop.
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
        self.slot.let_go();
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

/// Where a lease leaves the outcome and the task of its update waits for it.
pub(super) struct Slot(Mutex<State>);

struct State {
    phase: Phase,
    outcome: Option<Result<(), BoxError>>,
    waker: Option<Waker>,
    /// Of the call that got the lease.
    tally: Option<Arc<Tally>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Not leased, or leased to a call that is under way.
    Open,
    /// The lease is gone, and the call under way decides what that means.
    LetGo,
    /// The call is over and the lease is not.
    Outlasting,
    Settled,
    /// Nobody waits for an outcome any more.
    Revoked,
}

impl Slot {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            phase: Phase::Open,
            outcome: None,
            waker: None,
            tally: None,
        })))
    }

    /// Becomes part of a call. `false` if it is too late.
    pub(super) fn join(&self, tally: &Arc<Tally>) -> bool {
        let mut state = self.lock();
        let open = state.phase == Phase::Open;
        if open {
            tally.change(|counts| counts.open += 1);
            state.tally = Some(Arc::clone(tally));
        }
        open
    }

    /// The call is over: without its lease the update fails with `error`.
    pub(super) fn end(&self, error: impl FnOnce() -> BoxError) {
        let mut state = self.lock();
        match state.phase {
            Phase::Open => state.phase = Phase::Outlasting,
            Phase::LetGo => {
                drop(state);
                self.settle(Err(error()));
            }
            Phase::Outlasting | Phase::Settled | Phase::Revoked => {}
        }
    }

    /// The lease was dropped, settled or not.
    fn let_go(&self) {
        let mut state = self.lock();
        match state.phase {
            Phase::Open => state.phase = Phase::LetGo,
            Phase::Outlasting => {
                drop(state);
                self.settle(Err(SinkError::Forgotten.into()));
            }
            Phase::LetGo | Phase::Settled | Phase::Revoked => {}
        }
    }

    fn settle(&self, outcome: Result<(), BoxError>) -> bool {
        let mut state = self.lock();
        if matches!(state.phase, Phase::Settled | Phase::Revoked) {
            // The error is the user's: it is dropped outside of the lock.
            drop(state);
            return false;
        }
        state.phase = Phase::Settled;
        state.outcome = Some(outcome);
        let waker = state.waker.take();
        let tally = state.tally.take();
        drop(state);
        if let Some(tally) = tally {
            tally.change(|counts| counts.open -= 1);
        }
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    /// Nobody waits any more.
    pub(super) fn revoke(&self) {
        let mut state = self.lock();
        if state.phase == Phase::Settled {
            let untold = state.outcome.take();
            drop(state);
            discard(untold);
            return;
        }
        state.phase = Phase::Revoked;
        let waker = state.waker.take();
        let tally = state.tally.take();
        drop(state);
        drop(waker);
        if let Some(tally) = tally {
            tally.change(|counts| {
                counts.open -= 1;
                counts.revoked = true;
            });
        }
    }

    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<Result<(), BoxError>> {
        let mut state = self.lock();
        match state.outcome.take() {
            Some(outcome) => Poll::Ready(outcome),
            None => {
                let replaced = state.waker.replace(cx.waker().clone());
                drop(state);
                drop(replaced);
                Poll::Pending
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether anybody still waits for what a call does.
#[derive(Default)]
pub(super) struct Tally(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    /// Updates of the group that are neither settled nor revoked.
    open: usize,
    /// Whether one was revoked.
    revoked: bool,
    waker: Option<Waker>,
}

impl Tally {
    /// Whether nothing is awaited of what the call had left to settle.
    pub(super) fn is_in_vain(&self) -> bool {
        self.lock().is_in_vain()
    }

    /// Ready when the call is in vain.
    pub(super) fn poll_in_vain(&self, cx: &Context<'_>) -> Poll<()> {
        let mut counts = self.lock();
        if counts.is_in_vain() {
            return Poll::Ready(());
        }
        let replaced = counts.waker.replace(cx.waker().clone());
        drop(counts);
        drop(replaced);
        Poll::Pending
    }

    fn change(&self, change: impl FnOnce(&mut Counts)) {
        let mut counts = self.lock();
        change(&mut counts);
        let waker = match counts.is_in_vain() {
            true => counts.waker.take(),
            false => None,
        };
        drop(counts);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn is_in_vain(&self) -> bool {
        self.open == 0 && self.revoked
    }
}
