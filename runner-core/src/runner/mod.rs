//! Connects a supplier, a sink and a consumer: [`Runner`].

mod attend;
mod control;
mod handle;
mod health;
mod report;
mod until;

use std::{
    fmt,
    future::poll_fn,
    num::NonZeroUsize,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::future::{Either, select};

use self::control::{Control, Driver, RunPhase, RunResult, StopBy};
pub use self::{
    handle::{RunnerHandle, StartError, Stopped},
    health::{Health, RunState, Stats},
    report::{Abandoned, EndReason, Fate, Report, RunError},
};
use crate::{
    Closing, Confirmation, Delivery, ErrorPolicy, HandlerOutput, Key, Runtime, RuntimeExt,
    SinkOptions, SkipFailed, Source, SourceError, SourceOptions, UpdateConsumer, UpdateSink,
    UpdateSupplier,
    current::{self, RunId},
    panics::discard,
    sink::{DecideBoxed, Fault, KeysOf, Sink, Unsettled},
    trace::{Chain, debug, error, info, warn},
    update_sink::{Gather, Gathering},
};

/// Fetches updates from a supplier and hands them to a consumer, until it is stopped or the supplier
/// [has no more](UpdateSupplier::is_exhausted).
///
/// Either [`start`](Self::start) it, which runs it in a task and gives a handle, or drive
/// [`run`](Self::run) yourself.
///
/// ```
/// # #[cfg(feature = "test-util")] {
/// use std::{convert::Infallible, num::NonZeroUsize, sync::Arc, time::Duration};
/// use runner_core::{Delivery, Key, Runner, RuntimeExt, UpdateSupplier, testing::SimRuntime};
///
/// struct Ticks(u64);
///
/// impl UpdateSupplier for Ticks {
///     type Update = u64;
///     type Error = Infallible;
///
///     async fn supply(&mut self, limit: NonZeroUsize) -> Result<Vec<u64>, Infallible> {
///         let first = self.0;
///         self.0 += limit.get() as u64;
///         Ok((first..self.0).collect())
///     }
/// }
///
/// let sim = SimRuntime::new(1);
/// let runtime = Arc::new(sim.clone());
/// let sleeper = sim.clone();
/// let handle = Runner::for_each(runtime, Ticks(0), move |_tick: Delivery<u64>| {
///     let sleeper = sleeper.clone();
///     async move { sleeper.sleep(Duration::from_millis(10)).await }
/// })
/// .sequentialize(|tick| [Key::new("last digit", (tick % 10) as i64)])
/// .start();
///
/// let report = sim.block_on(async {
///     sim.sleep(Duration::from_secs(1)).await;
///     handle.stop().await.expect("nothing failed")
/// });
/// assert_eq!(report.counters.finished, report.counters.supplied);
/// # }
/// ```
///
/// # Defaults
///
/// Up to 500 updates at once, in no particular order, without a timeout; a failing update is logged
/// and given up; transient failures of the supplier are retried for ever.
pub struct Runner<S: UpdateSupplier, C> {
    source: Source<S>,
    consumer: Arc<C>,
    options: SinkOptions,
    pub(crate) keys: Option<Arc<KeysOf<S::Update>>>,
    pub(crate) policy: Arc<dyn DecideBoxed<S::Update>>,
    /// Set with a sink of the user's.
    gathering: Option<Arc<dyn Gathering>>,
    control: Arc<Control<S::Update>>,
    _unrun: Unrun<S::Update>,
}

impl<S: UpdateSupplier, C: UpdateConsumer<S::Update>> Runner<S, C> {
    /// Connects a supplier and a consumer.
    pub fn new(runtime: Arc<dyn Runtime>, supplier: S, consumer: C) -> Self {
        let source = Source::new(Arc::clone(&runtime), supplier, SourceOptions::default());
        let control = Control::new(runtime, source.status(), Some(STALL_AFTER));
        Self {
            _unrun: Unrun(Arc::clone(&control)),
            control,
            source,
            consumer: Arc::new(consumer),
            options: SinkOptions::default(),
            keys: None,
            policy: Arc::new(SkipFailed),
            gathering: None,
        }
    }

    /// How updates are handed to the consumer. Default: concurrently, 500 at a time.
    #[must_use]
    pub fn sink(mut self, options: SinkOptions) -> Self {
        self.options = options;
        self.keep_order();
        self
    }

    /// How updates are fetched.
    #[must_use]
    pub fn source(mut self, options: SourceOptions) -> Self {
        self.source.set_options(options);
        self
    }

    /// Handles updates that share a key one after the other, in the order in which they arrived.
    ///
    /// All other updates are handled at the same time. An update may have several keys, or none. It
    /// waits in the sink, where it costs neither a slot nor a task. Default: no keys.
    ///
    /// A key function that panics sends its update to the error policy.
    #[must_use]
    pub fn sequentialize<F, K>(mut self, keys: F) -> Self
    where
        F: Fn(&S::Update) -> K + Send + Sync + 'static,
        K: IntoIterator<Item = Key>,
    {
        self.keys = Some(Arc::new(move |update, each| {
            keys(update).into_iter().for_each(each);
        }));
        self
    }

    /// What happens to updates that are not handled. Default: [`SkipFailed`].
    #[must_use]
    pub fn policy(mut self, policy: impl ErrorPolicy<S::Update>) -> Self {
        self.policy = Arc::new(policy);
        self
    }

    /// After how long without a settled update [`Health::is_live`] says no, although updates are in
    /// flight. Default: 5 minutes, longer than any handler should take. `None`: never.
    #[must_use]
    pub fn stall_after(self, span: Option<Duration>) -> Self {
        self.control.lock().stall_after = span;
        self
    }

    /// A handle to the runner, for use with [`run`](Self::run).
    #[must_use]
    pub fn handle(&self) -> RunnerHandle<S::Update> {
        RunnerHandle::new(Arc::clone(&self.control))
    }

    /// Runs until [`RunnerHandle::stop`] is called, the supply ends or the run fails.
    ///
    /// Handlers run as tasks of the runtime; this future fetches updates and keeps the time. It may
    /// be called again after it has ended.
    ///
    /// # Errors
    ///
    /// [`RunError`] for every end that was not asked for. The end of the supply is none of them.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the run: polling ends, updates that have not started are
    /// abandoned, handlers are dropped at the next point where they wait, and nothing is confirmed,
    /// so that updates may be delivered again. Use [`RunnerHandle::stop`] for a graceful end.
    pub async fn run(&mut self) -> Result<Report<S::Update>, RunError<S::Update>> {
        self.run_once(|report| RunError::Dropped { report }).await
    }

    /// Runs in a task of the runtime, at once.
    ///
    /// After a run, the task waits for [`RunnerHandle::start`], and ends when the last handle is
    /// dropped. Dropping the handles does not stop a run.
    pub fn start(mut self) -> RunnerHandle<S::Update>
    where
        C: 'static,
    {
        let handle = self.handle();
        let control = Arc::clone(&self.control);
        control.lock().driver = Driver::Task;
        let gone = Gone(Arc::clone(&control));
        let runtime = Arc::clone(&control.runtime);
        runtime.spawn(Box::pin(async move {
            let gone = gone;
            loop {
                // The result reaches everyone through the handles.
                let _ = self
                    .run_once(|report| RunError::RuntimeGone { report })
                    .await;
                let restart = control.until(|state| match state.driver {
                    Driver::Restarting => Some(true),
                    _ if state.handles == 0 => Some(false),
                    _ => None,
                });
                if !restart.await {
                    break;
                }
            }
            // With it goes the last report, and the updates in that are the user's.
            drop(gone);
            discard((self, control));
        }));
        handle
    }

    /// One run, from the first fetch to the report.
    ///
    /// `cut_short` names the error if the future is dropped.
    async fn run_once(&mut self, cut_short: CutShort<S::Update>) -> RunResult<S::Update> {
        let control = Arc::clone(&self.control);
        let sink = Sink::new(
            Arc::clone(&control.runtime),
            Arc::clone(&self.consumer),
            &self.options,
            self.keys.clone(),
            Arc::clone(&self.policy),
        );
        let began = RunStart::now(&control);
        let left = control.begin(&sink);
        let mut guard = RunGuard {
            control: &control,
            sink: &sink,
            began,
            cut_short,
            armed: true,
        };
        control.apply_concurrency();
        if left > 0 {
            warn!(
                handlers = left,
                "handlers of the last run are still at work, updates of this run with the same keys do \
                 not wait for them"
            );
        }
        info!("runner started");
        let result = {
            let shared = Shared {
                control: &control,
                sink: &sink,
            };
            let mut run = Run {
                source: &mut self.source,
                shared,
                gathering: self.gathering.as_ref(),
                began,
            };
            // The last run was cut short: the supplier goes back to where that one got. Forgotten
            // only afterwards, because this run may be cut short as well.
            let unclosed = control.lock().unclosed;
            if let Some(prefix) = unclosed {
                run.close(prefix).await;
                control.lock().unclosed = None;
            }
            let mut ticking = pin!(sink.tick());
            let mut attending = pin!(shared.attend(self.gathering.as_ref()));
            let mut running = pin!(run.until_end());
            poll_fn(|cx| {
                // Both in this one task: time-outs need no task of their own.
                let _: Poll<()> = ticking.as_mut().poll(cx);
                let _: Poll<()> = attending.as_mut().poll(cx);
                running.as_mut().poll(cx)
            })
            .await
        };
        guard.armed = false;
        drop(guard);
        match &result {
            Ok(report) => info!(report = %report, "runner stopped"),
            Err(error) => error!(error = %Chain(error), "runner failed"),
        }
        control.finish(result.clone());
        result
    }
}

impl<S: UpdateSupplier> Runner<S, ()> {
    /// Connects a supplier and a closure.
    ///
    /// The same as [`Runner::new`] with a closure, but the compiler can tell the type of the
    /// argument.
    pub fn for_each<F, Fut>(
        runtime: Arc<dyn Runtime>,
        supplier: S,
        handler: F,
    ) -> Runner<S, impl UpdateConsumer<S::Update>>
    where
        F: Fn(Delivery<S::Update>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: HandlerOutput> + Send,
    {
        Runner::new(runtime, supplier, handler)
    }

    /// Connects a supplier and a closure that needs something to work with.
    ///
    /// `state` is cloned for every update; wrap what is costly to clone in an `Arc`.
    pub fn for_each_with<T, F, Fut>(
        runtime: Arc<dyn Runtime>,
        supplier: S,
        state: T,
        handler: F,
    ) -> Runner<S, impl UpdateConsumer<S::Update>>
    where
        T: Clone + Send + Sync + 'static,
        F: Fn(T, Delivery<S::Update>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: HandlerOutput> + Send,
    {
        Runner::new(runtime, supplier, move |update| {
            handler(state.clone(), update)
        })
    }

    /// Connects a supplier and a sink of your own, which handles updates in groups.
    ///
    /// All options stay in force, but for [`workers`](SinkOptions::workers): updates are handed over
    /// in order of arrival, by one task.
    pub fn with_sink(
        runtime: Arc<dyn Runtime>,
        supplier: S,
        sink: impl UpdateSink<S::Update>,
    ) -> Runner<S, impl UpdateConsumer<S::Update>> {
        let gather = Gather::new(sink);
        let gathering = gather.gathering();
        let mut runner = Runner::new(runtime, supplier, gather);
        runner.attach(gathering);
        runner
    }
}

impl<S: UpdateSupplier, C> Runner<S, C> {
    /// The consumer hands updates over to a sink.
    pub(crate) fn attach(&mut self, gathering: Arc<dyn Gathering>) {
        gathering.attach(Arc::clone(&self.control.runtime));
        self.gathering = Some(gathering);
        self.keep_order();
    }

    /// Several tasks that hand updates over would overtake each other.
    fn keep_order(&mut self) {
        if self.gathering.is_some() {
            self.options.workers = Some(NonZeroUsize::MIN);
        }
    }
}

impl<S: UpdateSupplier, C> fmt::Debug for Runner<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner")
            .field("runtime", &self.control.runtime)
            .field("options", &self.options)
            .field("sequentialized", &self.keys.is_some())
            .finish_non_exhaustive()
    }
}

/// How long a handler may keep the runner from looking alive.
const STALL_AFTER: Duration = Duration::from_secs(5 * 60);

/// How long cancelled handlers have to reach a point where they wait.
const GRACE: Duration = Duration::from_millis(500);

/// How old a look at the progress of the sink may be when updates arrive.
const GLANCE: Duration = Duration::from_millis(10);

/// After a deadline, everything is over at most this much later.
const OVERTIME: Duration = Duration::from_secs(1);

/// How long a supplier may take to confirm and flush. A supplier with a shorter limit of its own,
/// such as the update fetcher, never gets near it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// One run under way.
struct Run<'a, S: UpdateSupplier> {
    source: &'a mut Source<S>,
    shared: Shared<'a, S::Update>,
    gathering: Option<&'a Arc<dyn Gathering>>,
    began: RunStart,
}

/// What a report compares with.
#[derive(Clone, Copy)]
struct RunStart {
    at: Instant,
    calls: u64,
    failed_calls: u64,
}

impl RunStart {
    fn now<U: Send + Sync + 'static>(control: &Control<U>) -> Self {
        let source = control.source.snapshot();
        Self {
            at: control.runtime.now(),
            calls: source.calls,
            failed_calls: source.failures,
        }
    }
}

/// What a run shares with handles and workers.
struct Shared<'a, U: Send + Sync + 'static> {
    control: &'a Arc<Control<U>>,
    sink: &'a Arc<Sink<U>>,
}

impl<U: Send + Sync + 'static> Clone for Shared<'_, U> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<U: Send + Sync + 'static> Copy for Shared<'_, U> {}

/// Why a run comes to its end.
enum Reason {
    Requested,
    SupplyEnded,
    Supply(SourceError),
    Fault(Fault),
}

/// What the fetch loop does next.
enum Next<T> {
    Go(T),
    Again,
    End(Reason),
}

impl<S: UpdateSupplier> Run<'_, S> {
    async fn until_end(&mut self) -> RunResult<S::Update> {
        let reason = self.fetch_all().await;
        let reason = self.shared.drain(reason).await;
        self.shared.calm(self.gathering).await;
        let report = Box::new(self.settle(&reason).await);
        match reason {
            Reason::Requested | Reason::SupplyEnded => Ok(*report),
            Reason::Supply(SourceError::Panicked(panic)) => {
                Err(RunError::SupplierPanicked { panic, report })
            }
            Reason::Supply(source) => Err(RunError::Supply {
                source: Arc::new(source),
                report,
            }),
            Reason::Fault(Fault::Policy { cause }) => Err(RunError::Policy { cause, report }),
            Reason::Fault(Fault::RuntimeGone) => Err(RunError::RuntimeGone { report }),
        }
    }

    /// Fetches while there is room, until something ends the run.
    async fn fetch_all(&mut self) -> Reason {
        let shared = self.shared;
        let mut choked = false;
        let mut looked = None;
        // What was seen just now: a batch which is there at once pays for no other look.
        let mut seen = None;
        loop {
            if self.source.make_way().await {
                // What there was room for may be taken by now.
                seen = None;
            }
            // After a warning there is more to be looked at.
            let at_once = !choked && !shared.control.is_interrupted();
            let (limit, now) = match seen.take().filter(|_| at_once) {
                Some(seen) => seen,
                None => match shared.wait_for_room(&mut choked).await {
                    Next::Go(limit) => (limit, shared.control.runtime.now()),
                    Next::Again => continue,
                    Next::End(reason) => return reason,
                },
            };
            // A stop, a pause or a fault drops the call.
            let fetched = {
                let call = pin!(self.source.next_at(limit, now));
                shared.unless_interrupted(call).await
            };
            match fetched {
                Next::Go(Some(Ok(batch))) => {
                    if batch.len() > limit.get() {
                        debug!(
                            limit = limit.get(),
                            count = batch.len(),
                            "the supplier returned more updates than asked for"
                        );
                    }
                    // Before, so that time without updates is not taken for a standstill. A moment
                    // without them does not matter, and a look costs two locks.
                    let answered = self.source.answered_at();
                    if looked.is_none_or(|looked| answered > looked + GLANCE) {
                        shared.look();
                        looked = Some(answered);
                    }
                    let scarce = batch.len() < limit.get();
                    seen = shared.sink.add(batch, answered, scarce);
                    // Now, because there may be no room for another call for long.
                    if self.source.is_exhausted() {
                        return Reason::SupplyEnded;
                    }
                }
                Next::Go(Some(Err(error))) => return Reason::Supply(error),
                Next::Go(None) if self.source.is_exhausted() => return Reason::SupplyEnded,
                // Closed by hand; the next call opens it again.
                Next::Go(None) | Next::Again => {}
                Next::End(reason) => return reason,
            }
        }
    }

    /// Confirms what is settled and writes the report.
    async fn settle(&mut self, reason: &Reason) -> Report<S::Update> {
        let Shared { control, sink } = self.shared;
        let prefix = settled_prefix(sink);
        let closing = match reason {
            // Nothing of a supplier can be expected to work without a runtime.
            Reason::Fault(Fault::RuntimeGone) => {
                let mut state = control.lock();
                state.unclosed = Some(prefix);
                if state.driver != Driver::User {
                    // The task may live a little longer than its workers. Nobody must be able to
                    // ask it for another run meanwhile.
                    state.driver = Driver::Gone;
                }
                None
            }
            _ => self.close(prefix).await,
        };
        // Taken only now: a run that is cut short while it closes must still know them.
        let unsettled = sink.take_abandoned();
        let end = match reason {
            Reason::Requested => EndReason::Stopped,
            Reason::SupplyEnded => EndReason::SupplyEnded,
            Reason::Supply(_) | Reason::Fault(_) => EndReason::Failed,
        };
        report(control, sink, end, self.began, unsettled, closing)
    }

    /// Tells the supplier what is settled; `None` if it could not be told.
    async fn close(&mut self, prefix: usize) -> Option<Closing> {
        let shared = self.shared;
        let close_by = shared.control.runtime.now().checked_add(CLOSE_TIMEOUT);
        // A stop with a deadline ends at most `OVERTIME` after it, whatever the supplier does.
        let too_late = shared.until_stop_by(|stop_by| {
            let stop_by = stop_by.and_then(|deadline| deadline.checked_add(OVERTIME));
            [close_by, stop_by].into_iter().flatten().min()
        });
        let run = RunId::of(shared.sink);
        let closing = pin!(current::inside(Some(run), self.source.close(prefix)));
        match select(closing, pin!(too_late)).await {
            Either::Left((Ok(closing), _)) => Some(closing),
            Either::Left((Err(error), _)) => {
                warn!(error = %Chain(&error), "the supplier could not be closed");
                let _ = error;
                None
            }
            Either::Right(_) => {
                warn!(timeout = ?CLOSE_TIMEOUT, "the supplier could not be closed in time");
                None
            }
        }
    }
}

impl<U: Send + Sync + 'static> Shared<'_, U> {
    /// Waits until there is room for a fetch, and tells for how many.
    async fn wait_for_room(self, choked: &mut bool) -> Next<NonZeroUsize> {
        match self.permission().await {
            Next::Go(()) => {}
            Next::Again => return Next::Again,
            Next::End(reason) => return Next::End(reason),
        }
        *choked = self.warn_if_choked(*choked);
        // One that becomes choked while this waits must say so once, too.
        let room = pin!(self.sink.room(!*choked));
        match self.unless_interrupted(room).await {
            Next::Go(Some(limit)) => Next::Go(limit),
            Next::Go(None) | Next::Again => Next::Again,
            Next::End(reason) => Next::End(reason),
        }
    }

    /// Waits while the run is paused.
    async fn permission(self) -> Next<()> {
        let resumed = self.control.until(|state| {
            if state.stop.is_some() {
                Some(Next::End(Reason::Requested))
            } else if state.paused {
                None
            } else {
                Some(Next::Go(()))
            }
        });
        match select(pin!(self.sink.fault()), pin!(resumed)).await {
            Either::Left((fault, _)) => Next::End(Reason::Fault(fault)),
            Either::Right((next, _)) => next,
        }
    }

    /// Drops `work` when a stop, a pause or a fault comes first.
    ///
    /// To be called right after a look at these: only work that waits pays for another one.
    async fn unless_interrupted<W: Future>(self, mut work: Pin<&mut W>) -> Next<W::Output> {
        let mut faulted = pin!(self.sink.fault());
        let mut changed = pin!(self.control.until(|state| {
            if state.stop.is_some() {
                Some(Next::End(Reason::Requested))
            } else if state.paused {
                Some(Next::Again)
            } else {
                None
            }
        }));
        let mut interrupted = move |cx: &mut Context<'_>| match faulted.as_mut().poll(cx) {
            Poll::Ready(fault) => Poll::Ready(Next::End(Reason::Fault(fault))),
            Poll::Pending => changed.as_mut().poll(cx),
        };
        let mut waits = false;
        poll_fn(move |cx| {
            if waits && let Poll::Ready(next) = interrupted(cx) {
                return Poll::Ready(next);
            }
            if let Poll::Ready(value) = work.as_mut().poll(cx) {
                return Poll::Ready(Next::Go(value));
            }
            if !std::mem::replace(&mut waits, true) {
                return interrupted(cx);
            }
            Poll::Pending
        })
        .await
    }

    /// Waits for what is held, as long as the stop allows.
    async fn drain(self, reason: Reason) -> Reason {
        self.control
            .change(|state| state.phase = RunPhase::Stopping);
        if matches!(reason, Reason::Fault(Fault::RuntimeGone)) {
            self.sink.abandon();
            self.sink.give_up();
            return reason;
        }
        self.sink.stop();
        let overdue = self.until_stop_by(|stop_by| stop_by);
        match select(pin!(self.sink.idle()), pin!(overdue)).await {
            Either::Left(_) => {}
            Either::Right(((), idle)) => {
                warn!("the time to stop is over, cancelling the handlers that are left");
                self.sink.abandon();
                if let Either::Right(_) = select(idle, self.control.runtime.sleep(GRACE)).await {
                    self.sink.give_up();
                }
            }
        }
        // While it was drained, the policy may have asked for the end as well.
        match self.sink.halted() {
            Some(fault) if !matches!(reason, Reason::Fault(_)) => Reason::Fault(fault),
            _ => reason,
        }
    }

    /// Resolves at the point in time that `by` makes of the deadline of the stop, which may still
    /// be moved forward.
    async fn until_stop_by(self, by: impl Fn(Option<Instant>) -> Option<Instant>) {
        loop {
            let stop = self.control.lock().stop;
            let changed = self
                .control
                .until(|state| (state.stop != stop).then_some(()));
            let Some(deadline) = by(stop.and_then(|StopBy(deadline)| deadline)) else {
                changed.await;
                continue;
            };
            let sleep = self.control.runtime.sleep_until(deadline);
            if let Either::Right(_) = select(pin!(changed), sleep).await {
                return;
            }
        }
    }

    /// Notes whether the sink makes progress.
    fn look(self) {
        let gauges = self.sink.gauges();
        let now = self.control.runtime.now();
        self.control.lock().pulse.look(&gauges, now);
    }

    /// Says once why no more updates are fetched, and again only after that has been overcome.
    fn warn_if_choked(self, warned: bool) -> bool {
        if warned {
            // At the bound, one that goes and one that comes are no news.
            return !self.sink.is_relaxed();
        }
        // Looks at everything that is held, so it must not happen for every update.
        let Some(choked) = self.sink.choked() else {
            return false;
        };
        let key = choked
            .key
            .map_or_else(|| "none".to_owned(), |key| key.to_string());
        warn!(
            key = %key,
            depth = choked.depth,
            age = ?choked.age,
            "too many updates wait for their turn, fetching no more"
        );
        let _ = key;
        true
    }
}

/// How many updates, from the first one of the run, are settled without a gap.
fn settled_prefix<U: Send + Sync + 'static>(sink: &Sink<U>) -> usize {
    usize::try_from(sink.settled_prefix()).unwrap_or(usize::MAX)
}

fn report<U: Send + Sync + 'static>(
    control: &Control<U>,
    sink: &Sink<U>,
    end: EndReason,
    began: RunStart,
    unsettled: Vec<Unsettled<U>>,
    closing: Option<Closing>,
) -> Report<U> {
    let fate = |seq: u64| match closing {
        None => Fate::Unknown,
        Some(closing) => match closing.redelivers_from {
            Some(first) if seq >= first as u64 => Fate::Redelivered,
            _ => Fate::Lost,
        },
    };
    let now = RunStart::now(control);
    let failed_calls = now.failed_calls - began.failed_calls;
    let last_error = control.source.last_error();
    Report {
        end,
        counters: sink.gauges().counters,
        abandoned: unsettled
            .into_iter()
            .map(|unsettled| {
                let fate = fate(unsettled.seq);
                Abandoned::new(unsettled, fate)
            })
            .collect(),
        confirmation: closing.map_or(Confirmation::Failed, |closing| closing.confirmation),
        latency: sink.latency(),
        calls: now.calls - began.calls,
        failed_calls,
        last_error: last_error.filter(|_| failed_calls > 0),
        duration: now.at.saturating_duration_since(began.at),
    }
}

/// What a run ends with when its future is dropped.
type CutShort<U> = fn(Box<Report<U>>) -> RunError<U>;

/// Ends a run whose future is dropped.
struct RunGuard<'a, U: Send + Sync + 'static> {
    control: &'a Control<U>,
    sink: &'a Arc<Sink<U>>,
    began: RunStart,
    cut_short: CutShort<U>,
    armed: bool,
}

impl<U: Send + Sync + 'static> Drop for RunGuard<'_, U> {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        self.sink.abandon();
        self.sink.give_up();
        // The supplier cannot be told now; the next run tells it first. If it had not even been told
        // about the run before, this one has fetched nothing.
        let prefix = settled_prefix(self.sink);
        let mut state = self.control.lock();
        state.unclosed.get_or_insert(prefix);
        if state.driver != Driver::User {
            // The task is being dropped. Whoever learns of the end below must not be able to ask it
            // for another run.
            state.driver = Driver::Gone;
        }
        drop(state);
        let unsettled = self.sink.take_abandoned();
        let failed = EndReason::Failed;
        let report = report(self.control, self.sink, failed, self.began, unsettled, None);
        warn!(report = %report, "run cut short");
        self.control.finish(Err((self.cut_short)(Box::new(report))));
    }
}

/// Says that a runner was dropped before it ever ran, to those who wait for its end already.
struct Unrun<U: Send + Sync + 'static>(Arc<Control<U>>);

impl<U: Send + Sync + 'static> Drop for Unrun<U> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        // A task has a guard of its own, and so has a run that is under way.
        let is_driven_by_user = state.driver == Driver::User;
        let is_unrun = is_driven_by_user && state.end.get().is_none();
        if is_driven_by_user {
            state.driver = Driver::Gone;
        }
        drop(state);
        if is_unrun {
            let report = Box::new(Report::empty());
            self.0.finish(Err(RunError::Dropped { report }));
        }
    }
}

/// Says that the task of a started runner has ended.
struct Gone<U: Send + Sync + 'static>(Arc<Control<U>>);

impl<U: Send + Sync + 'static> Drop for Gone<U> {
    fn drop(&mut self) {
        let never_ran = self.0.change(|state| {
            state.driver = Driver::Gone;
            state.end.get().is_none()
        });
        if never_ran {
            // The runtime dropped the task before its first poll, or before a restart.
            let report = Box::new(Report::empty());
            self.0.finish(Err(RunError::RuntimeGone { report }));
        }
    }
}
