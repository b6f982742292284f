//! What one can do with a runner from outside: [`RunnerHandle`].

use std::{
    error::Error,
    fmt,
    num::NonZeroUsize,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use super::{
    control::{Control, Driver, RunPhase, RunResult, StopBy, Watch},
    health::{Health, Stats},
    report::{Report, RunError},
};
use crate::{InFlight, current::RunId, panics::discard};

/// Controls a runner and looks inside it. Cheap to clone.
///
/// Dropping handles stops nothing. All methods may be called from any thread and return at once.
///
/// ```
/// # #[cfg(feature = "test-util")] {
/// use std::{sync::Arc, time::Duration};
/// use runner_core::{Bot, Delivery, RunState, testing::{FakeApi, SimRuntime}};
///
/// let sim = SimRuntime::new(1);
/// let runtime = Arc::new(sim.clone());
/// let api = FakeApi::of_ids([1, 2]).runtime(runtime.clone());
/// let bot = Bot::for_each(api, async |_: Delivery<i64>| {});
/// let handle = bot.into_runner(runtime).start();
///
/// sim.advance(Duration::from_secs(1));
/// assert!(handle.health().is_live());
/// assert_eq!(handle.stats().counters.finished, 2);
///
/// handle.pause();
/// assert_eq!(handle.health().state, RunState::Paused);
///
/// let report = sim.block_on(handle.stop_within(Duration::from_secs(30))).unwrap();
/// println!("{report}");
/// assert!(!handle.is_running());
/// # }
/// ```
pub struct RunnerHandle<U: Send + Sync + 'static> {
    control: Arc<Control<U>>,
}

impl<U: Send + Sync + 'static> RunnerHandle<U> {
    pub(super) fn new(control: Arc<Control<U>>) -> Self {
        control.lock().handles += 1;
        Self { control }
    }

    /// Stops gracefully: no further fetch starts, all updates that were fetched are handled, and the
    /// supplier confirms them.
    ///
    /// Takes effect at the call. The returned future, which may be dropped, resolves with the report
    /// of the run. Updates that wait for a retry are tried once more at once.
    ///
    /// A stopped runner has nothing to stop: then this resolves with the last result. A runner that
    /// has not begun yet ends its first run as soon as it begins.
    ///
    /// # Inside a handler
    ///
    /// A handler may stop its own runner, for example at a command `/shutdown`, but must not wait for the
    /// report: the run ends only after the handler. Drop the future; awaited there, it resolves at once
    /// with [`RunError::AwaitedInHandler`], and the stop goes on.
    ///
    /// ```
    /// # #[cfg(feature = "test-util")] {
    /// use std::sync::{Arc, OnceLock};
    /// use runner_core::{Delivery, Runner, RunnerHandle, testing::{ScriptedSupplier, SimRuntime}};
    ///
    /// let own = Arc::new(OnceLock::<RunnerHandle<&str>>::new());
    /// let sim = SimRuntime::new(1);
    /// let supplier = ScriptedSupplier::new(&sim).batch(["hello", "/shutdown"]);
    /// let handler = async |own: Arc<OnceLock<RunnerHandle<&'static str>>>, text: Delivery<&'static str>| {
    ///     if *text == "/shutdown" && let Some(handle) = own.get() {
    ///         drop(handle.stop()); // takes effect now
    ///     }
    /// };
    /// let mut runner = Runner::for_each_with(Arc::new(sim.clone()), supplier, own.clone(), handler);
    /// own.set(runner.handle()).unwrap();
    /// let report = sim.block_on(runner.run()).unwrap();
    /// assert_eq!(report.counters.finished, 2);
    /// # }
    /// ```
    pub fn stop(&self) -> Stopped<U> {
        let stopped = self.task();
        self.control.stop(StopBy(None));
        stopped
    }

    /// As [`stop`](Self::stop), but cancels what is left when `limit` is over. Inside a handler, drop the
    /// future as there.
    ///
    /// The report then lists every update that was abandoned, and comes at most one second after
    /// `limit`, even if handlers do not end. `Duration::ZERO` cancels at once. Of several limits the
    /// earliest counts.
    ///
    /// With the concurrent sink, the default, an abandoned update of the Bot API is usually
    /// [`Fate::Lost`](crate::Fate::Lost): while its handler ran, the next poll went out, and that
    /// makes the server forget it. The report then holds the only copy, so store it. Where that must
    /// not happen, take [`SinkOptions::sequential`](crate::SinkOptions::sequential) or
    /// [`batch`](crate::SinkOptions::batch), which poll only when everything is settled: what they
    /// abandon is [`Fate::Redelivered`](crate::Fate::Redelivered).
    pub fn stop_within(&self, limit: Duration) -> Stopped<U> {
        let stopped = self.task();
        // A limit beyond what the clock can express is none.
        let deadline = self.control.runtime.now().checked_add(limit);
        self.control.stop(StopBy(deadline));
        stopped
    }

    /// Begins another run after the end of the last one, whatever ended it.
    ///
    /// After the end of the supply it asks the supplier anew: if that still has no more, the run ends at
    /// once.
    ///
    /// Handlers that the last run reported as [`unresponsive`](crate::Abandoned::unresponsive) may still be
    /// at work. The new run does not wait for them, so an update of it may be handled at the same time as
    /// one of the last run with the same key. A warning says how many there are.
    ///
    /// # Errors
    ///
    /// [`StartError`] if a run is under way, or if no task drives the runner: call
    /// [`Runner::start`](crate::Runner::start) or [`Runner::run`](crate::Runner::run) instead.
    pub fn start(&self) -> Result<(), StartError> {
        let last = self.control.change(|state| match state.driver {
            Driver::User => Err(StartError::DrivenByUser),
            Driver::Gone => Err(StartError::Gone),
            Driver::Restarting => Err(StartError::Running),
            Driver::Task if state.end.get().is_none() => Err(StartError::Running),
            Driver::Task => {
                state.driver = Driver::Restarting;
                // From here on, waiting for the end means the end of the new run.
                Ok(std::mem::take(&mut state.end))
            }
        })?;
        // It may hold the last report, and the updates in it are the user's: not under the lock.
        discard(last);
        Ok(())
    }

    /// Resolves with the result of the current run, or of the last one if none is running, or of the
    /// first one if none has run yet. May be called any number of times.
    ///
    /// Inside a handler of that run it resolves at once with [`RunError::AwaitedInHandler`].
    pub fn task(&self) -> Stopped<U> {
        let end = Arc::clone(&self.control.lock().end);
        Stopped {
            watch: Watch::new(Arc::clone(&self.control)),
            end,
        }
    }

    /// The same as [`task`](Self::task), by the name that reads well in a `select!`.
    pub fn stopped(&self) -> Stopped<U> {
        self.task()
    }

    /// Whether a run is under way, stopping included. True from the call that starts it in a task.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.control.lock().apparent() != RunPhase::Idle
    }

    /// Stops intake until [`resume`](Self::resume): the pending poll is dropped, nothing is lost by
    /// it. Updates that were fetched are still handled. Stays in force over a restart.
    pub fn pause(&self) {
        self.control.change(|state| state.paused = true);
    }

    /// Fetches again after a [`pause`](Self::pause).
    pub fn resume(&self) {
        self.control.change(|state| state.paused = false);
    }

    /// Changes how many updates may be in flight, for this run and later ones.
    ///
    /// Of several calls the last one counts. Nothing is cancelled: above a lowered limit, nothing starts until enough have ended. No
    /// effect on a sequential sink.
    pub fn set_concurrency(&self, concurrency: NonZeroUsize) {
        self.control
            .change(|state| state.concurrency = Some(concurrency));
        self.control.apply_concurrency();
    }

    /// How many updates are in flight: started, not ended.
    #[must_use]
    pub fn size(&self) -> usize {
        self.with_sink(|sink| sink.stats().in_flight)
            .unwrap_or_default()
    }

    /// Every update that the runner holds, oldest first, with what it does or waits for.
    ///
    /// Takes time in proportion to their number: some milliseconds for 100 000 updates.
    #[must_use]
    pub fn in_flight(&self) -> Vec<InFlight<U>> {
        self.with_sink(|sink| sink.snapshot()).unwrap_or_default()
    }

    /// What an operator asks first: is it alive, is it connected, what does it do.
    #[must_use]
    pub fn health(&self) -> Health {
        Health::of(&self.control)
    }

    /// Counters and latencies. Cheap enough to be called every second.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats::of(&self.control)
    }

    fn with_sink<T>(&self, look: impl FnOnce(&crate::queue::QueueShared<U>) -> T) -> Option<T> {
        let sink = self.control.lock().apparent_sink();
        sink.map(|sink| look(&sink))
    }
}

impl<U: Send + Sync + 'static> Clone for RunnerHandle<U> {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.control))
    }
}

impl<U: Send + Sync + 'static> Drop for RunnerHandle<U> {
    fn drop(&mut self) {
        // Without handles the task can never be started again, and ends.
        self.control.change(|state| state.handles -= 1);
    }
}

impl<U: Send + Sync + 'static> fmt::Debug for RunnerHandle<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunnerHandle")
            .field("health", &self.health())
            .finish_non_exhaustive()
    }
}

/// Resolves with the result of a run. Dropping it stops nothing.
///
/// A run ends when its handlers have ended. So inside a handler of that run, its error policy or its
/// sink, this resolves at once with [`RunError::AwaitedInHandler`].
#[must_use = "the report is in the result; a stop itself takes effect at the call"]
pub struct Stopped<U: Send + Sync + 'static> {
    watch: Watch<Arc<Control<U>>, U>,
    end: Arc<OnceLock<RunResult<U>>>,
}

impl<U: Send + Sync + 'static> Future for Stopped<U> {
    type Output = Result<Report<U>, RunError<U>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { watch, end } = &mut *self;
        let current = RunId::current();
        watch.poll(cx, |state| match end.get() {
            Some(result) => Some(result.clone()),
            None if current.is_some() && state.run_until(end) == current => {
                let report = Box::new(Report::empty());
                Some(Err(RunError::AwaitedInHandler { report }))
            }
            None => None,
        })
    }
}

impl<U: Send + Sync + 'static> fmt::Debug for Stopped<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stopped")
            .field("ended", &self.end.get().is_some())
            .finish_non_exhaustive()
    }
}

/// Why a runner cannot be started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartError {
    /// A run is under way. Wait for [`RunnerHandle::stopped`] first.
    Running,
    /// No task drives this runner: it is driven by [`Runner::run`](crate::Runner::run), or was not started
    /// at all.
    DrivenByUser,
    /// The runner is gone: it was dropped, or its runtime was shut down.
    Gone,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "a run is under way, wait for its end before starting again",
            Self::DrivenByUser => {
                "no task drives this runner, call start() or run() of the runner itself"
            }
            Self::Gone => "the runner was dropped or its runtime was shut down, make a new runner",
        })
    }
}

impl Error for StartError {}
