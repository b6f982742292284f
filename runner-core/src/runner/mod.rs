//! Connects a supplier, a sink and a consumer: [`Runner`].

mod control;
mod custom_sink;
mod guards;
mod handle;
mod health;
mod outage;
mod report;
mod run;
mod until;

use std::{
    fmt, future::poll_fn, num::NonZeroUsize, pin::pin, sync::Arc, task::Poll, time::Duration,
};

use self::{
    control::{Control, Driver, RunResult},
    guards::{CutShort, RunGuard, TaskGuard, UnstartedGuard},
    run::{Run, RunContext, RunStart},
};
pub use self::{
    handle::{RunnerHandle, StartError, Stopped},
    health::{Health, RunState, Stats},
    report::{Abandoned, EndReason, Fate, Report, RunError},
};
use crate::{
    Delivery, ErrorPolicy, HandlerOutput, Key, LateHandler, Runtime, SinkOptions, Source,
    SourceOptions, UpdateConsumer, UpdateSink, UpdateSupplier,
    panics::discard,
    queue::{DecayingQueue, QueueParts},
    sink::{Gathering, SinkConsumer},
    trace::{Chain, error, info, warn},
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
/// and given up; transient failures of the supplier are retried without a limit.
pub struct Runner<S: UpdateSupplier, C> {
    source: Source<S>,
    consumer: Arc<C>,
    pub(crate) parts: QueueParts<S::Update>,
    /// Set with a sink of the user's.
    gathering: Option<Arc<dyn Gathering>>,
    pub(crate) stop_timeout: Option<Duration>,
    warn_on_stderr: bool,
    control: Arc<Control<S::Update>>,
    _unstarted: UnstartedGuard<S::Update>,
}

impl<S: UpdateSupplier, C: UpdateConsumer<S::Update>> Runner<S, C> {
    /// Connects a supplier and a consumer.
    pub fn new(runtime: Arc<dyn Runtime>, supplier: S, consumer: C) -> Self {
        let source = Source::new(Arc::clone(&runtime), supplier, SourceOptions::default());
        let control = Control::new(runtime, source.status(), Some(STALL_AFTER));
        Self {
            _unstarted: UnstartedGuard(Arc::clone(&control)),
            control,
            source,
            consumer: Arc::new(consumer),
            parts: QueueParts::default(),
            gathering: None,
            stop_timeout: None,
            warn_on_stderr: false,
        }
    }

    /// How updates are handed to the consumer. Default: concurrently, 500 at a time.
    #[must_use]
    pub fn sink<M>(mut self, options: SinkOptions<M>) -> Self {
        self.parts.limits = options.limits;
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
        self.parts.sequentialize(keys);
        self
    }

    /// What happens to updates that are not handled. Default:
    /// [`SkipFailed`](crate::SkipFailed).
    #[must_use]
    pub fn policy(mut self, policy: impl ErrorPolicy<S::Update>) -> Self {
        self.parts.policy = Arc::new(policy);
        self
    }

    /// How large an update is, in bytes, for [`max_bytes`](SinkOptions::max_bytes). Default: the size of
    /// its type, which leaves out what it points to.
    #[must_use]
    pub fn size_by(mut self, size: impl Fn(&S::Update) -> usize + Send + Sync + 'static) -> Self {
        self.parts.size = Some(Arc::new(size));
        self
    }

    /// Called for every handler that goes on after its timeout; see
    /// [`continue_after_timeout`](SinkOptions::continue_after_timeout). It must not block.
    #[must_use]
    pub fn on_late(
        mut self,
        on_late: impl Fn(LateHandler<S::Update>) + Send + Sync + 'static,
    ) -> Self {
        self.parts.on_late = Some(Arc::new(on_late));
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
    /// [`RunError`] if anything but a stop or the end of the supply ends the run.
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
        let guard = TaskGuard(Arc::clone(&control));
        let runtime = Arc::clone(&control.runtime);
        runtime.spawn(Box::pin(async move {
            let guard = guard;
            loop {
                // The result reaches everyone through the handles.
                let _ = self
                    .run_once(|report| RunError::RuntimeGone { report })
                    .await;
                let restart = control.wait_until(|state| match state.driver {
                    Driver::Restarting => Some(true),
                    _ if state.handles == 0 => Some(false),
                    _ => None,
                });
                if !restart.await {
                    break;
                }
            }
            // With it goes the last report, and the updates in that are the user's.
            drop(guard);
            discard((self, control));
        }));
        handle
    }

    /// One run, from the first fetch to the report.
    ///
    /// `cut_short` names the error if the future is dropped.
    async fn run_once(&mut self, cut_short: CutShort<S::Update>) -> RunResult<S::Update> {
        let control = Arc::clone(&self.control);
        let queue = DecayingQueue::from_parts(
            Arc::clone(&control.runtime),
            Arc::clone(&self.consumer),
            self.parts.clone(),
        );
        let queue = queue.shared();
        queue.replay(std::mem::take(&mut control.lock().replayed));
        let began = RunStart::now(&control);
        let left = control.begin(queue);
        let mut guard = RunGuard {
            control: &control,
            queue,
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
            let context = RunContext {
                control: &control,
                queue,
            };
            let mut run = Run {
                source: &mut self.source,
                context,
                gathering: self.gathering.as_ref(),
                began,
            };
            // The last run was cut short: the supplier goes back to where that one got. Forgotten
            // only afterwards, because this run may be cut short as well.
            let unclosed = control.lock().unclosed.clone();
            if let Some(unclosed) = unclosed {
                let closing = run.close(unclosed.prefix).await;
                queue.replay(unclosed.attempted.again(closing));
                control.lock().unclosed = None;
            }
            let mut ticking = pin!(queue.keep_time());
            let mut driving_sink = pin!(context.drive_custom_sink(self.gathering.as_ref()));
            let mut running = pin!(run.until_end());
            poll_fn(|cx| {
                // All in this one task: timeouts need no task of their own.
                let _: Poll<()> = ticking.as_mut().poll(cx);
                let _: Poll<()> = driving_sink.as_mut().poll(cx);
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
        let consumer = SinkConsumer::new(sink);
        let gathering = consumer.gathering();
        let mut runner = Runner::new(runtime, supplier, consumer);
        runner.attach(gathering);
        runner
    }
}

impl<S: UpdateSupplier, C> Runner<S, C> {
    /// The consumer hands updates over to a sink.
    pub(crate) fn attach(&mut self, gathering: Arc<dyn Gathering>) {
        self.gathering = Some(gathering);
        self.keep_order();
    }

    /// Several tasks that hand updates over would overtake each other.
    fn keep_order(&mut self) {
        if self.gathering.is_some() {
            self.parts.limits.workers = Some(NonZeroUsize::MIN);
        }
    }
}

impl<S: UpdateSupplier, C> fmt::Debug for Runner<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner")
            .field("runtime", &self.control.runtime)
            .field("options", &self.parts.limits)
            .field("sequentialized", &self.parts.keys.is_some())
            .finish_non_exhaustive()
    }
}

/// How long a handler may keep the runner from looking alive.
const STALL_AFTER: Duration = Duration::from_secs(5 * 60);
