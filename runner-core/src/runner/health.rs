//! What an operator wants to know: [`Health`] and [`Stats`].

use std::time::{Duration, Instant};

use super::control::{Control, RunPhase};
use crate::{Counters, LatencySummary, source::SourceState};

/// Whether the runner does its work.
///
/// ```no_run
/// # fn handle() -> runner_core::RunnerHandle<()> { unimplemented!() }
/// let health = handle().health();
/// if !health.is_live() {
///     // let the service manager restart the process
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// What the runner does.
    pub state: RunState,
    /// Updates could start, and for [`Health::BLOCKED_AFTER`] no task has taken one: every worker
    /// is held by a handler that blocks its thread, or the runtime is overloaded.
    pub blocked: bool,
    live: bool,
    connected: bool,
}

/// What the runner does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RunState {
    /// Fetches updates, or is about to.
    Polling,
    /// Fetches nothing because the sink has no room.
    Full,
    /// Waits before it fetches again after a failure.
    Backoff,
    /// Waits for another poller of the same updates to go away.
    Conflict,
    /// Fetches nothing until it is resumed.
    Paused,
    /// Brings what it holds to an end.
    Stopping,
    /// No run is under way.
    Stopped,
}

impl Health {
    /// How long updates that could start may wait for a worker before it is reported.
    pub const BLOCKED_AFTER: Duration = Duration::from_secs(5);

    /// Whether the runner makes progress: right for a liveness probe.
    ///
    /// Also true while it is paused, full, backing off or stopping; those heal by themselves. False
    /// when no run is under way, when a poll is overdue by far, and when updates are in flight but
    /// none has been settled for the span of
    /// [`Runner::stall_after`](crate::Runner::stall_after).
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// Whether updates arrive: right for an alert.
    ///
    /// True while the last completed poll is no older than the time that a poll may take, plus 15 s. For a
    /// supplier without a [`call_timeout`](crate::UpdateSupplier::call_timeout), true from its first
    /// answer to its next failure.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    pub(super) fn of<U: Send + Sync + 'static>(control: &Control<U>) -> Self {
        let now = control.runtime.now();
        let source = control.source.snapshot();
        let sink = control.lock().apparent_sink();
        let gauges = sink.map(|sink| sink.stats());
        let mut state = control.lock();
        if let Some(gauges) = &gauges {
            state.progress.look(gauges, now);
        }
        let progress = state.progress;
        // A retry that is due begins without anybody looking.
        let revived = gauges.and_then(|gauges| gauges.revived);
        let since = |then: Instant| {
            let then = revived.map_or(then, |revived| revived.max(then));
            now.saturating_duration_since(then)
        };
        let stalled = gauges.is_some_and(|gauges| {
            gauges.in_flight > 0
                && state
                    .stall_after
                    .is_some_and(|span| since(progress.settled_at) >= span)
        });
        let blocked = gauges.is_some_and(|gauges| {
            gauges.startable > 0 && since(progress.claimed_at) >= Self::BLOCKED_AFTER
        });
        let full = gauges.is_some_and(|gauges| gauges.full);
        let run_state = match state.apparent() {
            RunPhase::Idle => RunState::Stopped,
            RunPhase::Stopping => RunState::Stopping,
            RunPhase::Running if state.paused => RunState::Paused,
            RunPhase::Running => match source.state {
                SourceState::Backoff => RunState::Backoff,
                SourceState::Conflict => RunState::Conflict,
                SourceState::Idle if full => RunState::Full,
                _ => RunState::Polling,
            },
        };
        drop(state);
        let overdue = run_state == RunState::Polling && source.is_overdue(now);
        Self {
            state: run_state,
            blocked,
            live: run_state != RunState::Stopped && !stalled && !overdue,
            connected: source.is_connected(now),
        }
    }
}

/// The runner in numbers, for this run.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// How the updates ended so far.
    pub counters: Counters,
    /// Updates in flight: started, not ended, holding a slot.
    pub in_flight: usize,
    /// Slots that are free, whether or not there are updates for them. 0 before the first run, and
    /// while more are in flight than a lowered
    /// [`set_concurrency`](crate::RunnerHandle::set_concurrency) allows.
    pub capacity: usize,
    /// Updates that may start and wait for a slot or a worker.
    pub ready: usize,
    /// Updates that wait for a key or for a retry.
    pub waiting: usize,
    /// Handlers that go on after their timeout without a slot.
    pub detached: usize,
    /// The size of everything that is held, in bytes; see
    /// [`SinkOptions::max_bytes`](crate::SinkOptions::max_bytes).
    pub bytes: usize,
    /// From the arrival of an update to its settlement.
    pub latency: LatencySummary,
    /// Calls of the supplier, over all runs.
    pub calls: u64,
    /// Calls of the supplier that failed, over all runs.
    pub failed_calls: u64,
}

impl Stats {
    pub(super) fn of<U: Send + Sync + 'static>(control: &Control<U>) -> Self {
        let source = control.source.snapshot();
        let sink = control.lock().apparent_sink();
        let gauges = sink.as_ref().map(|sink| sink.stats());
        Self {
            counters: gauges.map(|gauges| gauges.counters).unwrap_or_default(),
            in_flight: gauges.map_or(0, |gauges| gauges.in_flight),
            capacity: gauges.map_or(0, |gauges| gauges.capacity),
            ready: gauges.map_or(0, |gauges| gauges.ready),
            waiting: gauges.map_or(0, |gauges| gauges.waiting),
            detached: gauges.map_or(0, |gauges| gauges.detached),
            bytes: gauges.map_or(0, |gauges| gauges.bytes),
            latency: sink.map(|sink| sink.latency()).unwrap_or_default(),
            calls: source.calls,
            failed_calls: source.failures,
        }
    }
}
