//! What the handles and the run share: requests in one direction, state and results in the other.

use std::{
    future::poll_fn,
    num::NonZeroUsize,
    sync::{Arc, OnceLock, PoisonError},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use super::report::{Report, RunError};
use crate::{
    Runtime,
    current::RunId,
    panics::discard,
    queue::{Attempted, QueueShared, QueueStats, WaiterId, Waiters, Wakers},
    source::Status,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
};

/// The result of one run.
pub(crate) type RunResult<U> = Result<Report<U>, RunError<U>>;

/// Shared by the runner, its handles and the futures that await the end of a run.
pub(crate) struct Control<U: Send + Sync + 'static> {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) source: Status,
    /// Whether nothing may be fetched: a stop or a pause was requested.
    interrupted: AtomicBool,
    state: Mutex<ControlState<U>>,
}

/// Guarded by the lock of [`Control`].
pub(crate) struct ControlState<U: Send + Sync + 'static> {
    pub(crate) phase: RunPhase,
    /// The end of the current run, or of the next one if none is under way.
    pub(crate) end: Arc<OnceLock<RunResult<U>>>,
    /// When a requested stop must be over; `None` within: whenever the last handler ends.
    pub(crate) stop: Option<StopBy>,
    pub(crate) paused: bool,
    /// Set by hand, and kept for later runs.
    pub(crate) concurrency: Option<NonZeroUsize>,
    /// Of the current run, or of the last one.
    pub(crate) sink: Option<Arc<QueueShared<U>>>,
    pub(crate) driver: Driver,
    pub(crate) handles: usize,
    pub(crate) progress: LastProgress,
    pub(crate) stall_after: Option<Duration>,
    /// A run that was cut short before its supplier was closed.
    pub(crate) unclosed: Option<Unclosed>,
    /// Which of the first updates of the next run were handed to a handler already.
    pub(crate) replayed: Vec<bool>,
    waiters: Waiters<()>,
}

/// Where the runner is between two starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunPhase {
    /// No run is under way.
    Idle,
    Running,
    /// A stop was requested, or a failure ends the run.
    Stopping,
}

/// A run whose supplier was not told of its end.
#[derive(Clone, Debug)]
pub(crate) struct Unclosed {
    /// How many updates, from the first one, were completed without a gap.
    pub(crate) prefix: usize,
    pub(crate) attempted: Attempted,
}

/// Until when a stop waits for handlers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StopBy(pub(crate) Option<Instant>);

/// Who drives the runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Driver {
    /// The user, by polling `run()`.
    User,
    /// A task; between runs it is idle.
    Task,
    /// A task that is about to begin another run.
    Restarting,
    /// A task that has ended.
    Gone,
}

/// When the sink was last seen to make progress.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LastProgress {
    settled: u64,
    claims: u64,
    pub(crate) settled_at: Instant,
    pub(crate) claimed_at: Instant,
}

impl<U: Send + Sync + 'static> Control<U> {
    pub(crate) fn new(
        runtime: Arc<dyn Runtime>,
        source: Status,
        stall_after: Option<Duration>,
    ) -> Arc<Self> {
        let now = runtime.now();
        Arc::new(Self {
            runtime,
            source,
            interrupted: AtomicBool::new(false),
            state: Mutex::new(ControlState {
                phase: RunPhase::Idle,
                end: Arc::new(OnceLock::new()),
                stop: None,
                paused: false,
                concurrency: None,
                sink: None,
                driver: Driver::User,
                handles: 0,
                progress: LastProgress {
                    settled: 0,
                    claims: 0,
                    settled_at: now,
                    claimed_at: now,
                },
                stall_after,
                unclosed: None,
                replayed: Vec::new(),
                waiters: Waiters::new(),
            }),
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, ControlState<U>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and wakes all tasks that wait for a change.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut ControlState<U>) -> T) -> T {
        let mut wakers = Wakers::default();
        let mut state = self.lock();
        let result = change(&mut state);
        let interrupted = state.stop.is_some() || state.paused;
        self.interrupted.store(interrupted, Ordering::Release);
        state.waiters.take(|()| true, &mut wakers);
        drop(state);
        wakers.wake();
        result
    }

    /// Whether a stop or a pause was requested.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Acquire)
    }

    /// Waits until `ready` has an answer.
    pub(crate) async fn wait_until<T>(&self, ready: impl Fn(&ControlState<U>) -> Option<T>) -> T {
        let mut waiter = Watch::new(self);
        poll_fn(|cx| waiter.poll(cx, &ready)).await
    }

    /// Begins a run with this sink, and returns how many handlers of the last run are still at work.
    pub(crate) fn begin(&self, sink: &Arc<QueueShared<U>>) -> usize {
        let now = self.runtime.now();
        // The updates in the report and in the sink of the last run are the user's: they are
        // dropped outside of the lock.
        let last = self.change(|state| {
            let ended = (state.end.get().is_some()).then(|| std::mem::take(&mut state.end));
            state.phase = if state.stop.is_some() {
                RunPhase::Stopping
            } else {
                RunPhase::Running
            };
            let sink = state.sink.replace(Arc::clone(sink));
            state.progress = LastProgress {
                settled: 0,
                claims: 0,
                settled_at: now,
                claimed_at: now,
            };
            if state.driver == Driver::Restarting {
                state.driver = Driver::Task;
            }
            (ended, sink)
        });
        let left = last.1.as_ref().map_or(0, |sink| {
            let gauges = sink.stats();
            gauges.in_flight + gauges.detached
        });
        discard(last);
        left
    }

    /// Ends the current run.
    pub(crate) fn finish(&self, result: RunResult<U>) {
        self.change(|state| {
            state.phase = RunPhase::Idle;
            state.stop = None;
            // Set once: a run ends once.
            let _ = state.end.set(result);
        });
    }

    /// Passes the concurrency that was set by hand on to the sink.
    ///
    /// The sink has a lock of its own, so another call may come in between. Each call therefore
    /// repeats until the value that it has passed on is the one that is kept.
    pub(crate) fn apply_concurrency(&self) {
        let mut applied = None;
        loop {
            let state = self.lock();
            let (kept, sink) = (state.concurrency, state.sink.clone());
            drop(state);
            match (kept, sink) {
                (Some(concurrency), Some(sink)) if kept != applied => {
                    sink.set_concurrency(concurrency);
                    applied = kept;
                }
                _ => return,
            }
        }
    }

    /// Asks the current run to end; a later deadline never replaces an earlier one.
    pub(crate) fn stop(&self, by: StopBy) {
        let sink = self.change(|state| {
            if state.phase == RunPhase::Idle && state.end.get().is_some() {
                return None;
            }
            state.stop = Some(match (state.stop, by) {
                (Some(StopBy(Some(known))), StopBy(Some(new))) => StopBy(Some(known.min(new))),
                (Some(StopBy(known @ Some(_))), StopBy(None)) => StopBy(known),
                (_, new) => new,
            });
            if state.phase == RunPhase::Running {
                state.phase = RunPhase::Stopping;
            }
            state
                .sink
                .clone()
                .filter(|_| state.phase == RunPhase::Stopping)
        });
        if let Some(sink) = sink {
            sink.stop();
        }
    }
}

impl<U: Send + Sync + 'static> ControlState<U> {
    /// The phase as it looks from outside: a run has begun when it was asked for, although its task
    /// is first polled a little later.
    pub(crate) fn apparent(&self) -> RunPhase {
        match self.stop {
            _ if !self.is_about_to_begin() => self.phase,
            Some(_) => RunPhase::Stopping,
            None => RunPhase::Running,
        }
    }

    /// The sink to look into: that of the run which is apparent.
    pub(crate) fn apparent_sink(&self) -> Option<Arc<QueueShared<U>>> {
        match self.is_about_to_begin() {
            true => None,
            false => self.sink.clone(),
        }
    }

    /// The run whose end is noted in `end`, if it is under way.
    pub(crate) fn run_until(&self, end: &Arc<OnceLock<RunResult<U>>>) -> Option<RunId> {
        let is_under_way = self.phase != RunPhase::Idle && Arc::ptr_eq(&self.end, end);
        let sink = self.sink.as_ref().filter(|_| is_under_way)?;
        Some(RunId::of(sink))
    }

    fn is_about_to_begin(&self) -> bool {
        let has_task = matches!(self.driver, Driver::Task | Driver::Restarting);
        has_task && self.phase == RunPhase::Idle && self.end.get().is_none()
    }
}

impl LastProgress {
    /// Notes what has moved since the last look.
    ///
    /// Looked at from time to time instead of with every update, so it is at most late, never early:
    /// a sink that stands still is found after the span plus the time between two looks.
    pub(crate) fn look(&mut self, gauges: &QueueStats, now: Instant) {
        let settled = gauges.counters.settled();
        if settled != self.settled || gauges.in_flight == 0 {
            self.settled = settled;
            self.settled_at = now;
        }
        if gauges.starts != self.claims || gauges.startable == 0 {
            self.claims = gauges.starts;
            self.claimed_at = now;
        }
    }
}

/// A registration for changes of the state; dropped with it.
pub(crate) struct Watch<C, U>
where
    C: std::ops::Deref<Target = Control<U>>,
    U: Send + Sync + 'static,
{
    control: C,
    id: WaiterId,
}

impl<C, U> Watch<C, U>
where
    C: std::ops::Deref<Target = Control<U>>,
    U: Send + Sync + 'static,
{
    pub(crate) fn new(control: C) -> Self {
        Self {
            control,
            id: WaiterId::default(),
        }
    }

    pub(crate) fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        ready: impl FnOnce(&ControlState<U>) -> Option<T>,
    ) -> Poll<T> {
        let mut state = self.control.lock();
        match ready(&state) {
            Some(value) => Poll::Ready(value),
            None => {
                let replaced = state.waiters.register(&mut self.id, (), cx.waker());
                drop(state);
                drop(replaced);
                Poll::Pending
            }
        }
    }
}

impl<C, U> Drop for Watch<C, U>
where
    C: std::ops::Deref<Target = Control<U>>,
    U: Send + Sync + 'static,
{
    fn drop(&mut self) {
        if self.id.is_registered() {
            let waker: Option<Waker> = self.control.lock().waiters.remove(&mut self.id);
            drop(waker);
        }
    }
}
