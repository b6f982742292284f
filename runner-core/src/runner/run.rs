//! One run, from the first fetch to the report.

use std::{
    future::poll_fn,
    num::NonZeroUsize,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::future::{Either, select};

use super::{
    Abandoned, EndReason, Fate, Report, RunError,
    control::{Control, Driver, RunPhase, RunResult, StopBy, Unclosed},
};
use crate::{
    Closing, Confirmation, RuntimeExt, Source, SourceError, UpdateSupplier,
    current::{self, RunId},
    queue::{Fault, QueueShared, Unfinished},
    sink::Gathering,
    trace::{Chain, debug, warn},
};

/// How long cancelled handlers have to reach a point where they wait.
pub(super) const GRACE: Duration = Duration::from_millis(500);

/// How old a look at the progress of the sink may be when updates arrive.
const GLANCE: Duration = Duration::from_millis(10);

/// After a deadline, everything is over at most this much later.
const OVERTIME: Duration = Duration::from_secs(1);

/// How long a supplier may take to confirm and flush. A supplier with a shorter limit of its own,
/// such as the update fetcher, never gets near it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// One run under way.
pub(super) struct Run<'a, S: UpdateSupplier> {
    pub(super) source: &'a mut Source<S>,
    pub(super) context: RunContext<'a, S::Update>,
    pub(super) gathering: Option<&'a Arc<dyn Gathering>>,
    pub(super) began: RunStart,
}

/// What a report compares with.
#[derive(Clone, Copy)]
pub(super) struct RunStart {
    at: Instant,
    calls: u64,
    failed_calls: u64,
}

impl RunStart {
    pub(super) fn now<U: Send + Sync + 'static>(control: &Control<U>) -> Self {
        let source = control.source.snapshot();
        Self {
            at: control.runtime.now(),
            calls: source.calls,
            failed_calls: source.failures,
        }
    }
}

/// What a run shares with handles and workers.
pub(super) struct RunContext<'a, U: Send + Sync + 'static> {
    pub(super) control: &'a Arc<Control<U>>,
    pub(super) queue: &'a Arc<QueueShared<U>>,
}

impl<U: Send + Sync + 'static> Clone for RunContext<'_, U> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<U: Send + Sync + 'static> Copy for RunContext<'_, U> {}

/// Why a run comes to its end.
enum RunEnd {
    Requested,
    SupplyEnded,
    Supply(SourceError),
    Fault(Fault),
}

/// What the fetch loop does next.
enum FetchStep<T> {
    Go(T),
    Again,
    End(RunEnd),
}

impl<S: UpdateSupplier> Run<'_, S> {
    pub(super) async fn until_end(&mut self) -> RunResult<S::Update> {
        let end = self.fetch_all().await;
        let end = self.context.drain(end).await;
        self.context.wait_for_cancelled_call(self.gathering).await;
        let report = Box::new(self.settle(&end).await);
        match end {
            RunEnd::Requested | RunEnd::SupplyEnded => Ok(*report),
            RunEnd::Supply(SourceError::Panicked(panic)) => {
                Err(RunError::SupplierPanicked { panic, report })
            }
            RunEnd::Supply(source) => Err(RunError::Supply {
                source: Arc::new(source),
                report,
            }),
            RunEnd::Fault(Fault::Policy { cause }) => Err(RunError::Policy { cause, report }),
            RunEnd::Fault(Fault::RuntimeGone) => Err(RunError::RuntimeGone { report }),
        }
    }

    /// Fetches while there is room, until something ends the run.
    async fn fetch_all(&mut self) -> RunEnd {
        let context = self.context;
        let mut choked = false;
        let mut looked = None;
        // How much room there was just now: a batch that is there at once pays for no other look.
        let mut room: Option<NonZeroUsize> = None;
        loop {
            if self.source.make_way().await {
                // It may have been taken meanwhile.
                room = None;
            }
            // After a warning there is more to be looked at.
            let at_once = !choked && !context.control.is_interrupted();
            let limit = match room.take().filter(|_| at_once) {
                Some(room) => room,
                None => match context.wait_for_room(&mut choked).await {
                    FetchStep::Go(limit) => limit,
                    FetchStep::Again => continue,
                    FetchStep::End(end) => return end,
                },
            };
            let now = context.control.runtime.now();
            // A stop, a pause or a fault drops the call.
            let fetched = {
                let call = pin!(self.source.next_at(limit, now));
                context.unless_interrupted(call).await
            };
            match fetched {
                FetchStep::Go(Some(Ok(batch))) => {
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
                        context.note_progress();
                        looked = Some(answered);
                    }
                    let scarce = !self.source.was_full();
                    room = context.queue.add(batch, answered, scarce);
                    // Now, because there may be no room for another call for long.
                    if self.source.is_exhausted() {
                        return RunEnd::SupplyEnded;
                    }
                }
                FetchStep::Go(Some(Err(error))) => return RunEnd::Supply(error),
                FetchStep::Go(None) if self.source.is_exhausted() => return RunEnd::SupplyEnded,
                // Closed by hand; the next call opens it again.
                FetchStep::Go(None) | FetchStep::Again => {}
                FetchStep::End(end) => return end,
            }
        }
    }

    /// Confirms what is settled and writes the report.
    async fn settle(&mut self, end: &RunEnd) -> Report<S::Update> {
        let RunContext { control, queue } = self.context;
        let prefix = completed_prefix(queue);
        let closing = match end {
            // Nothing of a supplier can be expected to work without a runtime.
            RunEnd::Fault(Fault::RuntimeGone) => {
                let attempted = queue.attempted();
                let mut state = control.lock();
                state.unclosed = Some(Unclosed { prefix, attempted });
                if state.driver != Driver::User {
                    // The task may live a little longer than its workers. Nobody must be able to
                    // ask it for another run meanwhile.
                    state.driver = Driver::Gone;
                }
                None
            }
            _ => self.close(prefix).await,
        };
        if control.lock().unclosed.is_none() {
            control.lock().replayed = queue.attempted().again(closing);
        }
        // Taken only now: a run that is cut short while it closes must still know them.
        let unfinished = queue.take_abandoned();
        let end = match end {
            RunEnd::Requested => EndReason::Stopped,
            RunEnd::SupplyEnded => EndReason::SupplyEnded,
            RunEnd::Supply(_) | RunEnd::Fault(_) => EndReason::Failed,
        };
        report(control, queue, end, self.began, unfinished, closing)
    }

    /// Closes the supplier; `None` if that failed or took too long.
    pub(super) async fn close(&mut self, prefix: usize) -> Option<Closing> {
        let context = self.context;
        let close_by = context.control.runtime.now().checked_add(CLOSE_TIMEOUT);
        // A stop with a deadline ends at most `OVERTIME` after it, whatever the supplier does.
        let too_late = context.wait_for_stop_deadline(|stop_by| {
            let stop_by = stop_by.and_then(|deadline| deadline.checked_add(OVERTIME));
            [close_by, stop_by].into_iter().flatten().min()
        });
        let run = RunId::of(context.queue);
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

impl<U: Send + Sync + 'static> RunContext<'_, U> {
    /// Waits until there is room for a fetch, and returns for how many updates.
    async fn wait_for_room(self, choked: &mut bool) -> FetchStep<NonZeroUsize> {
        match self.wait_while_paused().await {
            FetchStep::Go(()) => {}
            FetchStep::Again => return FetchStep::Again,
            FetchStep::End(end) => return FetchStep::End(end),
        }
        *choked = self.warn_if_choked(*choked);
        // If it becomes choked during the wait, that must be logged once, too.
        let room = pin!(self.queue.room(!*choked));
        match self.unless_interrupted(room).await {
            FetchStep::Go(Some(limit)) => FetchStep::Go(limit),
            FetchStep::Go(None) | FetchStep::Again => FetchStep::Again,
            FetchStep::End(end) => FetchStep::End(end),
        }
    }

    /// Waits while the run is paused.
    async fn wait_while_paused(self) -> FetchStep<()> {
        let resumed = self.control.wait_until(|state| {
            if state.stop.is_some() {
                Some(FetchStep::End(RunEnd::Requested))
            } else if state.paused {
                None
            } else {
                Some(FetchStep::Go(()))
            }
        });
        match select(pin!(self.queue.fault()), pin!(resumed)).await {
            Either::Left((fault, _)) => FetchStep::End(RunEnd::Fault(fault)),
            Either::Right((next, _)) => next,
        }
    }

    /// Drops `work` when a stop, a pause or a fault comes first.
    ///
    /// To be called right after a check of these: only work that is pending pays for another one.
    async fn unless_interrupted<W: Future>(self, mut work: Pin<&mut W>) -> FetchStep<W::Output> {
        let mut faulted = pin!(self.queue.fault());
        let mut changed = pin!(self.control.wait_until(|state| {
            if state.stop.is_some() {
                Some(FetchStep::End(RunEnd::Requested))
            } else if state.paused {
                Some(FetchStep::Again)
            } else {
                None
            }
        }));
        let mut interrupted = move |cx: &mut Context<'_>| match faulted.as_mut().poll(cx) {
            Poll::Ready(fault) => Poll::Ready(FetchStep::End(RunEnd::Fault(fault))),
            Poll::Pending => changed.as_mut().poll(cx),
        };
        let mut waits = false;
        poll_fn(move |cx| {
            if waits && let Poll::Ready(next) = interrupted(cx) {
                return Poll::Ready(next);
            }
            if let Poll::Ready(value) = work.as_mut().poll(cx) {
                return Poll::Ready(FetchStep::Go(value));
            }
            if !std::mem::replace(&mut waits, true) {
                return interrupted(cx);
            }
            Poll::Pending
        })
        .await
    }

    /// Waits until all updates that were fetched are settled, as long as the stop allows.
    async fn drain(self, end: RunEnd) -> RunEnd {
        self.control
            .change(|state| state.phase = RunPhase::Stopping);
        if matches!(end, RunEnd::Fault(Fault::RuntimeGone)) {
            self.queue.abandon();
            self.queue.give_up();
            return end;
        }
        self.queue.stop();
        let overdue = self.wait_for_stop_deadline(|stop_by| stop_by);
        match select(pin!(self.queue.idle()), pin!(overdue)).await {
            Either::Left(_) => {}
            Either::Right(((), idle)) => {
                warn!("the time to stop is over, cancelling the handlers that are left");
                self.queue.abandon();
                if let Either::Right(_) = select(idle, self.control.runtime.sleep(GRACE)).await {
                    self.queue.give_up();
                }
            }
        }
        // During the drain the policy may have stopped the run as well.
        match self.queue.halted() {
            Some(fault) if !matches!(end, RunEnd::Fault(_)) => RunEnd::Fault(fault),
            _ => end,
        }
    }

    /// Resolves at the point in time that `by` makes of the deadline of the stop, which may still
    /// be moved forward.
    pub(super) async fn wait_for_stop_deadline(
        self,
        by: impl Fn(Option<Instant>) -> Option<Instant>,
    ) {
        loop {
            let stop = self.control.lock().stop;
            let changed = self
                .control
                .wait_until(|state| (state.stop != stop).then_some(()));
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
    fn note_progress(self) {
        let gauges = self.queue.stats();
        let now = self.control.runtime.now();
        self.control.lock().progress.look(&gauges, now);
    }

    /// Logs once why no more updates are fetched, and again only after intake has recovered.
    fn warn_if_choked(self, warned: bool) -> bool {
        if warned {
            // At the bound, each update that leaves makes room for one: no reason for another line.
            return !self.queue.is_relaxed();
        }
        // Looks at every update in the sink, so it must not happen for each of them.
        let Some(choked) = self.queue.choked() else {
            return false;
        };
        let key = choked
            .key
            .map_or_else(|| "none".to_owned(), |key| key.to_string());
        warn!(
            key = %key,
            depth = choked.depth,
            age = ?choked.age,
            bytes = choked.bytes,
            "too much is held, fetching no more until there is room"
        );
        let _ = key;
        true
    }
}

/// How many updates, from the first one of the run, are settled without a gap.
pub(super) fn completed_prefix<U: Send + Sync + 'static>(queue: &QueueShared<U>) -> usize {
    usize::try_from(queue.completed_prefix()).unwrap_or(usize::MAX)
}

pub(super) fn report<U: Send + Sync + 'static>(
    control: &Control<U>,
    queue: &QueueShared<U>,
    end: EndReason,
    began: RunStart,
    unfinished: Vec<Unfinished<U>>,
    closing: Option<Closing>,
) -> Report<U> {
    let fate = |id: u64| match closing {
        None => Fate::Unknown,
        Some(closing) => match closing.redelivers_from {
            Some(first) if id >= first as u64 => Fate::Redelivered,
            _ => Fate::Lost,
        },
    };
    let now = RunStart::now(control);
    let failed_calls = now.failed_calls - began.failed_calls;
    let last_error = control.source.last_error();
    Report {
        end,
        counters: queue.stats().counters,
        abandoned: unfinished
            .into_iter()
            .map(|unfinished| {
                let fate = fate(unfinished.id);
                Abandoned::new(unfinished, fate)
            })
            .collect(),
        confirmation: closing.map_or(Confirmation::Failed, |closing| closing.confirmation),
        latency: queue.latency(),
        calls: now.calls - began.calls,
        failed_calls,
        last_error: last_error.filter(|_| failed_calls > 0),
        duration: now.at.saturating_duration_since(began.at),
    }
}
