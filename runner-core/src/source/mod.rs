//! Calls a supplier again and again: pauses, deadlines, retries.
//!
//! The decisions are in files that read no clock (`retry.rs`, `conflict.rs`, `pace.rs`); this file
//! waits.

mod call;
mod conflict;
mod error;
mod options;
mod pace;
mod retry;
mod state_log;
mod status;

use std::{
    fmt,
    future::poll_fn,
    num::NonZeroUsize,
    pin::pin,
    sync::Arc,
    task::{Poll, ready},
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt, stream};

pub(crate) use self::status::{SourceSnapshot, SourceState, Status};
use self::{
    call::Guarded,
    conflict::Conflicts,
    error::NoAnswer,
    pace::Pace,
    retry::{GaveUp, Retry, SHORTEST},
    state_log::{StateLog, TroubleKind},
    status::Opened,
};
pub use self::{
    error::SourceError,
    options::SourceOptions,
    retry::{Backoff, RetryPolicy},
    status::SourceHandle,
};
use crate::{
    Closing, Conflict, Runtime, SupplyError, UpdateSupplier, panics::guarded, runtime::yield_now,
    timer::ResettableTimer, trace::Chain,
};

/// Gets batches from a supplier, however unreliable that is.
///
/// Others call this a poller. A [`Runner`](crate::Runner) contains one. Use it alone to read updates
/// in a loop of your own, without a sink.
///
/// # What it adds to a supplier
///
/// - A deadline: a call that takes longer than [`call_timeout`](UpdateSupplier::call_timeout) is
///   dropped, and counts as a transient failure.
/// - Retries: see [`RetryPolicy`]. If the supplier asks to wait, the source waits exactly that long,
///   once; that is not a failure.
/// - Conflicts: if another instance polls for the same updates, the source waits 5 to 10 s, at random.
///   The fourth conflict ends it with [`SourceError::Poller`], unless there was none for five minutes.
/// - Pauses between calls, if configured:
///   [`speed_traffic_balance`](SourceOptions::speed_traffic_balance).
/// - Isolation: a panic of the supplier becomes [`SourceError::Panicked`].
///
/// ```
/// # #[cfg(feature = "test-util")] {
/// use std::{num::NonZeroUsize, pin::pin, sync::Arc};
/// use futures::StreamExt;
/// use runner_core::{Source, SourceOptions, testing::{ScriptedSupplier, SimRuntime}};
///
/// let sim = SimRuntime::new(1);
/// let supplier = ScriptedSupplier::new(&sim).batch([1, 2]).batch([3]);
/// let mut source = Source::new(Arc::new(sim.clone()), supplier, SourceOptions::default());
///
/// sim.block_on(async {
///     let mut batches = pin!(source.batches(NonZeroUsize::new(10).unwrap()));
///     assert_eq!(batches.next().await.unwrap().unwrap(), [1, 2]);
///     assert_eq!(batches.next().await.unwrap().unwrap(), [3]);
/// });
/// # }
/// ```
pub struct Source<S> {
    runtime: Arc<dyn Runtime>,
    supplier: S,
    status: Status,
    retry: Retry,
    conflicts: Conflicts,
    pace: Pace,
    /// Outlives a dropped `next`, so that pausing and resuming cannot skip the wait.
    rest: Option<NextCall>,
    log: StateLog,
    /// For the deadline of calls.
    timer: ResettableTimer,
    /// How many calls in a row were answered at their first poll.
    at_once: u8,
    /// When the last call was answered with updates, or when this was made.
    answered_at: Instant,
    /// How many updates the last call asked for.
    asked_for: NonZeroUsize,
    /// Whether it returned as many.
    full: bool,
}

impl<S: UpdateSupplier> Source<S> {
    /// A source of what `supplier` supplies.
    pub fn new(runtime: Arc<dyn Runtime>, supplier: S, options: SourceOptions) -> Self {
        Self {
            answered_at: runtime.now(),
            runtime,
            supplier,
            status: Status::new(),
            retry: Retry::new(options.retry),
            conflicts: Conflicts::default(),
            pace: Pace::new(options.balance, options.max_delay),
            rest: None,
            timer: ResettableTimer::default(),
            log: StateLog::default(),
            asked_for: NonZeroUsize::MIN,
            full: false,
            at_once: 0,
        }
    }

    /// Waits for the next batch: at most `limit` updates, oldest first, possibly none.
    ///
    /// Returns `None` if the supplier [has no more](Self::is_exhausted), or if the source is closed
    /// meanwhile, see [`SourceHandle::close`]; the next call opens it again.
    ///
    /// # Errors
    ///
    /// [`SourceError`] if another attempt cannot help, or is not allowed. You may call it again
    /// anyway; failures and conflicts are then counted from zero.
    ///
    /// # Cancel safety
    ///
    /// Safe. A pending call is dropped, which loses no update. The next call continues a wait that was
    /// under way.
    pub async fn next(
        &mut self,
        limit: NonZeroUsize,
    ) -> Option<Result<Vec<S::Update>, SourceError>> {
        self.make_way().await;
        let asked = self.runtime.now();
        self.next_at(limit, asked).await
    }

    /// Lets other tasks run after some answers that were there at once: a supplier that never waits must
    /// not take the thread. Returns whether it did.
    ///
    /// Before a call and not after one, because a batch must not be held over an await.
    pub(crate) async fn make_way(&mut self) -> bool {
        let is_due = self.at_once >= AT_ONCE;
        if is_due {
            self.at_once = 0;
            yield_now().await;
        }
        is_due
    }

    /// As [`next`](Self::next), for callers that know the time and [make way](Self::make_way) themselves.
    pub(crate) async fn next_at(
        &mut self,
        limit: NonZeroUsize,
        asked: Instant,
    ) -> Option<Result<Vec<S::Update>, SourceError>> {
        let status = self.status.clone();
        let opened = status.open();
        let mut now = asked;
        loop {
            match guarded(|| self.supplier.is_exhausted()) {
                Ok(false) => {}
                // As after a stop, failures and conflicts count on.
                Ok(true) => {
                    status.deactivate();
                    return None;
                }
                Err(panic) => {
                    self.failed_for_good();
                    return Some(Err(SourceError::Panicked(panic)));
                }
            }
            if self.rest.is_some() {
                self.rest(&opened).await?;
                now = self.runtime.now();
            }
            let began = now;
            let answer = self.call(&opened, limit, began).await?;
            now = self.runtime.now();
            let error = match answer {
                Ok(Ok(batch)) => {
                    opened.answered(now);
                    self.answered(batch.len(), asked, now);
                    return Some(Ok(batch));
                }
                Ok(Err(error)) => match self.failed(error, began, now) {
                    Ok(()) => continue,
                    Err(error) => error,
                },
                Err(panic) => SourceError::Panicked(panic),
            };
            self.failed_for_good();
            return Some(Err(error));
        }
    }

    /// A later call counts failures and conflicts anew.
    fn failed_for_good(&mut self) {
        self.status.deactivate();
        self.retry.succeeded();
        self.conflicts = Conflicts::default();
    }

    /// The batches as a stream, which ends with the supply, after an error and when the source is closed
    /// by hand.
    ///
    /// Dropping the stream loses no update. It has to be pinned, for example by
    /// [`pin!`](std::pin::pin).
    pub fn batches(
        &mut self,
        limit: NonZeroUsize,
    ) -> impl Stream<Item = Result<Vec<S::Update>, SourceError>> + Send {
        stream::unfold(Some(self), move |source| async move {
            let source = source?;
            let batch = source.next(limit).await?;
            let again = batch.is_ok().then_some(source);
            Some((batch, again))
        })
        .fuse()
    }

    /// Ends a run: see [`UpdateSupplier::close`].
    ///
    /// # Errors
    ///
    /// [`SourceError::Close`] or [`SourceError::Panicked`]. The call is made once and never
    /// repeated.
    ///
    /// # Cancel safety
    ///
    /// As safe as the supplier's own.
    pub async fn close(&mut self, settled_prefix: usize) -> Result<Closing, SourceError> {
        self.status.deactivate();
        let supplier = &mut self.supplier;
        let closing = Guarded::new(async move {
            let closing = supplier.close(settled_prefix).await;
            closing.map_err(Into::into)
        });
        match closing.await {
            Ok(Ok(closing)) => Ok(closing),
            Ok(Err(error)) => Err(SourceError::Close(error)),
            Err(panic) => Err(SourceError::Panicked(panic)),
        }
    }

    /// A handle that closes the source from elsewhere, while it waits for updates.
    #[must_use]
    pub fn handle(&self) -> SourceHandle {
        SourceHandle(self.status.clone())
    }

    /// Whether updates were asked for, and the source was neither closed nor did it fail since.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.handle().is_active()
    }

    /// Whether the supplier has said that no more updates come, see
    /// [`UpdateSupplier::is_exhausted`]. A supplier that panics when it is asked counts as not
    /// exhausted; the next call of [`next`](Self::next) returns the panic.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        guarded(|| self.supplier.is_exhausted()).unwrap_or(false)
    }

    /// Whether the last answer is at most one [`call_timeout`](UpdateSupplier::call_timeout) and 15 s
    /// old.
    ///
    /// A supplier without a call timeout counts as connected from its first answer to its next
    /// failure.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.status.snapshot().is_connected(self.runtime.now())
    }

    pub(crate) fn set_options(&mut self, options: SourceOptions) {
        self.retry = Retry::new(options.retry);
        self.pace = Pace::new(options.balance, options.max_delay);
    }

    /// Whether the last answer had all the updates that it was asked for, so that more may be waiting.
    pub(crate) fn was_full(&self) -> bool {
        self.full
    }

    /// When the last call was answered.
    pub(crate) fn answered_at(&self) -> Instant {
        self.answered_at
    }

    pub(crate) fn status(&self) -> Status {
        self.status.clone()
    }

    /// Waits until the next call may begin. `None` if the source is closed by hand.
    async fn rest(&mut self, opened: &Opened<'_>) -> Option<()> {
        if let Some(NextCall { until, state }) = self.rest
            && until > self.runtime.now()
        {
            opened.enter(|status| {
                status.state = state;
                status.deadline = None;
            });
            let mut sleep = self.runtime.sleep_until(until);
            poll_fn(|cx| match opened.poll_closed(cx) {
                Poll::Ready(()) => Poll::Ready(None),
                Poll::Pending => sleep.as_mut().poll(cx).map(Some),
            })
            .await?;
        }
        self.rest = None;
        Some(())
    }

    /// Calls the supplier once, with a deadline. `None` if the source is closed by hand; the outer
    /// error is the text of a panic.
    ///
    /// Must be called right after a check whether the source was closed.
    async fn call(
        &mut self,
        opened: &Opened<'_>,
        limit: NonZeroUsize,
        now: Instant,
    ) -> Option<Result<Result<Vec<S::Update>, SupplyError>, Arc<str>>> {
        let supplier = &self.supplier;
        let (call_timeout, most) = match guarded(|| (supplier.call_timeout(), supplier.max_batch()))
        {
            Ok(bounds) => bounds,
            Err(panic) => return Some(Err(panic)),
        };
        let limit = most.map_or(limit, |most| limit.min(most));
        self.asked_for = limit;
        let runtime = &self.runtime;
        // A deadline beyond what the clock can express is none.
        let limits = call_timeout.and_then(|span| Some((span, now.checked_add(span)?)));
        opened.enter(|status| {
            status.state = SourceState::Polling;
            status.calls += 1;
            status.call_timeout = call_timeout;
            status.deadline = limits.map(|(_, deadline)| deadline);
        });
        let supplier = &mut self.supplier;
        let mut call = pin!(Guarded::new(async move {
            supplier.supply(limit).await.map_err(Into::into)
        }));
        let timer = &mut self.timer;
        let mut waits = false;
        let ended = poll_fn(|cx| {
            if waits && opened.poll_closed(cx).is_ready() {
                return Poll::Ready(None);
            }
            if let Poll::Ready(answer) = call.as_mut().poll(cx) {
                return Poll::Ready(Some(answer));
            }
            // A call that is answered at once does not register its waker.
            if !std::mem::replace(&mut waits, true) && opened.poll_closed(cx).is_ready() {
                return Poll::Ready(None);
            }
            let Some((span, deadline)) = limits else {
                return Poll::Pending;
            };
            ready!(timer.poll(deadline, runtime, cx));
            let error = SupplyError::transient(NoAnswer(span));
            Poll::Ready(Some(Ok(Err(error))))
        })
        .await;
        self.at_once = if waits {
            0
        } else {
            self.at_once.saturating_add(1)
        };
        ended
    }

    fn answered(&mut self, count: usize, asked: Instant, now: Instant) {
        self.answered_at = now;
        self.retry.succeeded();
        self.log.answered(now);
        let took = now.saturating_duration_since(asked);
        self.full = count >= self.asked_for.get();
        let pause = self.pace.record(count, took, self.full);
        if !pause.is_zero() {
            self.rest_for(pause, now, SourceState::Polling);
        }
    }

    /// Decides what follows a failure: a wait, or the end.
    fn failed(
        &mut self,
        error: SupplyError,
        began: Instant,
        now: Instant,
    ) -> Result<(), SourceError> {
        let took = now.saturating_duration_since(began);
        let counts = !matches!(error, SupplyError::RetryAfter { .. });
        self.status.change(|status| {
            status.failures += u64::from(counts);
            status.failing = true;
        });
        if counts {
            // Code of the user: not under the lock.
            let text = guarded(|| error_text(&error)).unwrap_or_else(|panic| panic);
            self.status.set_last_error(text);
        }
        let entropy = self.runtime.entropy();
        let (delay, state, kind) = match error {
            SupplyError::Fatal(_) => return Err(SourceError::Supply(error)),
            SupplyError::Conflict {
                kind: Conflict::Webhook,
                ..
            } => return Err(SourceError::Webhook(error)),
            SupplyError::Conflict {
                kind: Conflict::Poller,
                ..
            } => match self.conflicts.note(now, entropy) {
                Some(delay) => (delay, SourceState::Conflict, TroubleKind::Conflict),
                None => {
                    return Err(SourceError::Poller {
                        conflicts: Conflicts::FATAL,
                        source: error,
                    });
                }
            },
            // Neither adds to a backoff nor starts one.
            SupplyError::RetryAfter { delay, .. } => (
                delay.max(SHORTEST),
                SourceState::Backoff,
                TroubleKind::RetryAfter,
            ),
            SupplyError::Transient(_) => match self.retry.failed(took, now, entropy) {
                Ok(delay) => (delay, SourceState::Backoff, TroubleKind::Failing),
                Err(GaveUp { failures, elapsed }) => {
                    return Err(SourceError::GaveUp {
                        failures,
                        elapsed,
                        source: error,
                    });
                }
            },
        };
        self.log.failed(kind, &error, delay, now);
        self.rest_for(delay, now, state);
        Ok(())
    }

    fn rest_for(&mut self, delay: Duration, now: Instant, state: SourceState) {
        // A delay that the clock cannot express does not end in practice.
        let until = now.checked_add(delay).or_else(|| now.checked_add(FOREVER));
        self.rest = until.map(|until| NextCall { until, state });
    }
}

impl<S> fmt::Debug for Source<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source")
            .field("status", &self.status)
            .field("runtime", &self.runtime)
            .finish_non_exhaustive()
    }
}

/// The error with its causes, without what is said of every failure.
fn error_text(error: &SupplyError) -> Arc<str> {
    let chain = match error {
        SupplyError::Transient(source) | SupplyError::Fatal(source) => Chain(&**source),
        other => Chain(other),
    };
    chain.to_string().into()
}

/// How many answers that are there at once a source takes before it lets other tasks run. Batches of one
/// update cost a fifth more instructions by it; with a yield after each they cost 2.4 times as many.
const AT_ONCE: u8 = 8;

/// A hundred years.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The next call does not begin before this.
#[derive(Clone, Copy, Debug)]
struct NextCall {
    until: Instant,
    state: SourceState,
}
