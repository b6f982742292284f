//! The tasks that run handlers: pull workers.
//!
//! A task with the *duty* takes ready updates from the queue and polls each handler once. If that
//! is pending, the task keeps this update and passes the duty on, to at most `workers` tasks at a
//! time; so there is one task for every handler that waits, and an update whose handler never waits
//! costs no task at all. A task whose handler has ended after a wait takes the next update itself,
//! without the duty: under a steady load nothing is spawned, and each update takes the lock once. One
//! that finds nothing to do is parked.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    ptr,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use super::{
    Sink,
    effects::{Effects, Wakers},
    node::Cancel,
    outcome::{Ending, Outcome},
    parked::Call,
    queue::{Job, Timeout},
};
use crate::{
    BoxError, BoxFuture, Cause, Delivery, Failure, UpdateConsumer, Verdict,
    current::{self, RunId},
    panics::{discard, guarded},
    sync::atomic::Ordering,
    ticket::Ticket,
    trace::error,
};

/// How many updates a task starts before it lets others have the thread. A handler that never
/// waits would else keep it under a steady feed.
const BUDGET: u8 = 32;

/// By how much the clock of a handler may be early, because it was started with the handler and not when
/// that first waited. Timers of runtimes are no finer.
const EARLY: Duration = Duration::from_millis(1);

/// Runs handlers for as long as there is something to start.
///
/// What is alive across a wait is in memory for every update in flight, so it is little: the duty
/// and the future of the handler. Not an `async fn`, which would hold its arguments twice.
pub(super) fn work<U, C>(mut duty: Duty<U>, consumer: Arc<C>) -> impl Future<Output = ()> + Send
where
    U: Send + Sync + 'static,
    C: UpdateConsumer<U>,
{
    let run = RunId::of(&duty.sink);
    current::inside(Some(run), async move {
        let mut handler = pin!(None);
        let call = |update| consumer.consume(update);
        while let Some(cause) = poll_fn(|cx| duty.poll(call, handler.as_mut(), cx)).await {
            // In a box, because few updates fail.
            let outcome = Box::pin(duty.ask_policy(cause)).await;
            duty.decided = Some(Box::new(outcome));
        }
    })
}

/// The right to start updates, or the obligation to settle the one that was started.
///
/// Made before the task is spawned and moved into it: however the task ends, what it held is given
/// back exactly once.
pub(super) struct Duty<U: Send + Sync + 'static> {
    sink: Arc<Sink<U>>,
    holds: Holds,
    /// What the policy made of the current update.
    decided: Option<Box<Outcome>>,
    /// Whom to wake, as the queue knows it.
    known: WakerId,
    /// The last cancellation, of any update, of which the queue was asked whether it is this one's.
    seen: u32,
    budget: u8,
    hungry: bool,
    /// Whether the future of the current update, the handler's or the policy's, has waited.
    waited: bool,
}

/// What a task has.
#[derive(Clone, Copy)]
enum Holds {
    Nothing,
    Update(Ticket),
    /// A place among those that have nothing to do.
    Place(u64),
}

impl<U> From<&Option<Job<U>>> for Holds {
    fn from(job: &Option<Job<U>>) -> Self {
        match job {
            Some(job) => Self::Update(job.delivery.ticket()),
            None => Self::Nothing,
        }
    }
}

/// Names a waker without owning it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct WakerId {
    data: usize,
    vtable: usize,
}

impl WakerId {
    /// Two that are equal wake the same task, see [`Waker::will_wake`], while either is alive.
    fn of(waker: &Waker) -> Self {
        Self {
            data: waker.data().addr(),
            vtable: ptr::from_ref(waker.vtable()).addr(),
        }
    }
}

/// How a handler ended.
enum Ended {
    Outcome(Outcome),
    Failed(Cause),
}

impl From<Cancel> for Ended {
    fn from(cancel: Cancel) -> Self {
        match cancel {
            Cancel::Timeout => Self::Failed(Cause::Timeout),
            Cancel::Abandon => Self::Outcome(Outcome::Abandoned),
        }
    }
}

impl<U: Send + Sync + 'static> Duty<U> {
    pub(super) fn new(sink: Arc<Sink<U>>) -> Self {
        Self {
            sink,
            holds: Holds::Nothing,
            decided: None,
            known: WakerId { data: 0, vtable: 0 },
            seen: 0,
            budget: BUDGET,
            hungry: true,
            waited: false,
        }
    }

    /// Runs handlers, one after the other, until one waits.
    ///
    /// Ready with a cause when the policy has to be asked about the current update, and with none
    /// when there is nothing left to start.
    fn poll<F, E>(
        &mut self,
        call: impl Fn(Delivery<U>) -> F,
        mut handler: Pin<&mut Option<F>>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Cause>>
    where
        F: Future<Output = Result<(), E>>,
        E: Into<BoxError>,
    {
        let mut effects = Effects::default();
        let effects = &mut effects;
        let mut next = if handler.is_some() {
            // It has waited for something, and is woken.
            let ended = match self.check(cx) {
                Some(cancel) => {
                    drop_pinned(handler.as_mut());
                    cancel.into()
                }
                None => match ended(run(handler.as_mut(), |handler| resume(handler, cx))) {
                    Poll::Ready(ended) => ended,
                    Poll::Pending => return Poll::Pending,
                },
            };
            match ended {
                Ended::Outcome(outcome) => self.settle(outcome, effects),
                Ended::Failed(cause) => return Poll::Ready(Some(cause)),
            }
        } else if let Some(outcome) = self.decided.take() {
            self.settle(*outcome, effects)
        } else if let Holds::Place(place) = self.holds {
            match self.ask(place, cx) {
                Call::Wait => return Poll::Pending,
                Call::End => return Poll::Ready(None),
                Call::Start => self.claim(),
            }
        } else {
            self.claim()
        };
        while let Some(job) = next {
            let Job {
                delivery,
                preset,
                ahead,
            } = job;
            self.waited = false;
            if let Some(cause) = preset {
                // No handler takes it, and dropping an update runs code of the user.
                discard(delivery);
                return Poll::Ready(Some(*cause));
            }
            let polled = run(handler.as_mut(), |mut handler| {
                handler.set(Some(call(delivery)));
                resume(handler, cx)
            });
            let ended = match ended(polled) {
                Poll::Ready(ended) => ended,
                Poll::Pending => match self.pend_handler(cx, ahead, effects) {
                    None => return Poll::Pending,
                    Some(cancel) => {
                        drop_pinned(handler.as_mut());
                        cancel.into()
                    }
                },
            };
            match ended {
                Ended::Outcome(outcome) => next = self.settle(outcome, effects),
                Ended::Failed(cause) => return Poll::Ready(Some(cause)),
            }
        }
        if self.hungry {
            // Nothing is held meanwhile but the duty.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let place = self.sink.lock().park(cx.waker());
        match place {
            Some(place) => {
                self.holds = Holds::Place(place);
                Poll::Pending
            }
            None => Poll::Ready(None),
        }
    }

    /// What a task that has nothing to do is to do now.
    fn ask(&mut self, place: u64, cx: &Context<'_>) -> Call {
        let mut queue = self.sink.lock();
        let (call, replaced) = queue.ask(place, cx.waker());
        drop(queue);
        drop(replaced);
        if call != Call::Wait {
            self.holds = Holds::Nothing;
            self.hungry = call == Call::Start;
        }
        call
    }

    fn claim(&mut self) -> Option<Job<U>> {
        let mut wakers = Wakers::default();
        let mut queue = self.sink.lock();
        let job = queue.claim();
        if queue.ready() == 0 {
            // When the last one that was ready is taken, a fetch may be due. It must not wait for
            // the handler, which may keep its thread for long.
            queue.wake_satisfied(&mut wakers);
        }
        drop(queue);
        wakers.wake();
        self.hungry = job.is_some();
        self.holds = Holds::from(&job);
        job
    }

    /// The current update.
    fn ticket(&self) -> Ticket {
        match self.holds {
            Holds::Update(ticket) => ticket,
            Holds::Nothing | Holds::Place(_) => unreachable!("only updates are handled"),
        }
    }

    /// Ends the current attempt, which needs no policy any more, and takes the next update.
    ///
    /// `None` while the task has the duty still: it has started enough, and others may have the
    /// thread.
    #[inline]
    fn settle(&mut self, outcome: Outcome, effects: &mut Effects<U>) -> Option<Job<U>> {
        let ticket = self.ticket();
        // Before, because others wait for the lock.
        let ended = self.waited.then(|| self.sink.runtime.now());
        let now = || ended.unwrap_or_else(|| self.sink.runtime.now());
        let claim = spend(&mut self.budget, self.waited);
        let hungry = &mut self.hungry;
        let mut queue = self.sink.lock();
        if matches!(outcome, Outcome::Done)
            && claim
            && let Some(job) = queue.exchange(ticket, ended, now, hungry, effects)
        {
            // Under the lock: what is cancelled after this is counted after this.
            if job.ahead.is_some() {
                self.seen = self.sink.cancels.load(Ordering::Acquire);
            }
            drop(queue);
            self.holds = Holds::Update(job.delivery.ticket());
            self.sink.carry_out(effects);
            return Some(job);
        }
        let job = queue.settle(ticket, outcome, claim, ended, now, hungry, effects);
        if let Some(Job { ahead: Some(_), .. }) = job {
            self.seen = self.sink.cancels.load(Ordering::Acquire);
        }
        drop(queue);
        self.holds = Holds::from(&job);
        self.sink.carry_out(effects);
        job
    }

    async fn ask_policy(&mut self, cause: Cause) -> Outcome {
        let ticket = self.ticket();
        let begun = self.sink.lock().begin_policy(ticket);
        let Some(update) = begun else {
            discard(cause);
            return Outcome::Abandoned;
        };
        let policy = Arc::clone(&self.sink.policy);
        let failure = Failure {
            update,
            cause: cause.clone(),
        };
        let verdict = match guarded(|| policy.decide(failure)) {
            Ok(deciding) => self.hear(deciding).await,
            Err(panic) => Heard::Panicked(panic),
        };
        let given_up = Outcome::GivenUp(Ending::from(&cause));
        let outcome = match verdict {
            Heard::Verdict(Verdict::Skip) => given_up,
            Heard::Verdict(Verdict::Retry { after }) => Outcome::Retry { after },
            Heard::Verdict(Verdict::Stop) => return Outcome::Stop { cause },
            Heard::Panicked(panic) => {
                error!(panic = %panic, cause = %cause, "error policy panicked, update given up");
                let _ = panic;
                given_up
            }
            Heard::Cancelled(Cancel::Timeout) => {
                error!(cause = %cause, "error policy timed out, update given up");
                given_up
            }
            Heard::Cancelled(Cancel::Abandon) => Outcome::Abandoned,
        };
        // Here, not under the lock: dropping an error runs code of the user.
        discard(cause);
        outcome
    }

    /// Polls the policy to its end, to its cancellation or to its panic, and drops its future.
    async fn hear(&mut self, deciding: BoxFuture<'_, Verdict>) -> Heard {
        let mut deciding = Some(deciding);
        let mut pending = false;
        let heard = poll_fn(|cx| {
            if pending && let Some(cancel) = self.check(cx) {
                return Poll::Ready(Heard::Cancelled(cancel));
            }
            let current = deciding.as_mut().expect("dropped only after its end");
            match guarded(|| current.as_mut().poll(cx)) {
                Ok(Poll::Ready(verdict)) => Poll::Ready(Heard::Verdict(verdict)),
                Err(panic) => Poll::Ready(Heard::Panicked(panic)),
                Ok(Poll::Pending) if pending => Poll::Pending,
                Ok(Poll::Pending) => {
                    pending = true;
                    match self.pend(cx, Timeout::Own, &mut Effects::default()) {
                        Some(cancel) => Poll::Ready(Heard::Cancelled(cancel)),
                        None => Poll::Pending,
                    }
                }
            }
        })
        .await;
        discard(deciding.take());
        heard
    }

    /// The handler waits for the first time. If all was done for that when it was started, and it has
    /// taken no time until now, the queue need not know.
    #[inline]
    fn pend_handler(
        &mut self,
        cx: &Context<'_>,
        ahead: Option<Instant>,
        effects: &mut Effects<U>,
    ) -> Option<Cancel> {
        if let Some(began) = ahead
            && self.is_current(cx.waker())
            && (!self.sink.limited
                || began
                    .checked_add(EARLY)
                    .is_none_or(|late| self.sink.runtime.now() < late))
        {
            self.waited = true;
            return None;
        }
        self.pend(cx, Timeout::Shared, effects)
    }

    /// Whether nothing was cancelled since the queue was last asked, and it knows whom to wake.
    #[inline]
    fn is_current(&self, waker: &Waker) -> bool {
        self.sink.cancels.load(Ordering::Acquire) == self.seen && WakerId::of(waker) == self.known
    }

    /// The future waits for the first time.
    fn pend(
        &mut self,
        cx: &Context<'_>,
        timeout: Timeout,
        effects: &mut Effects<U>,
    ) -> Option<Cancel> {
        let ticket = self.ticket();
        // Before, because others wait for the lock.
        let limited = self.sink.limited || timeout == Timeout::Own;
        let now = limited.then(|| self.sink.runtime.now());
        self.waited = true;
        self.known = WakerId::of(cx.waker());
        let mut queue = self.sink.lock();
        // Under the lock: what is cancelled after this is counted after this.
        self.seen = self.sink.cancels.load(Ordering::Acquire);
        let cancel = queue.pend(ticket, cx.waker(), timeout, now, &mut self.hungry, effects);
        drop(queue);
        self.sink.carry_out(effects);
        cancel
    }

    /// The future is woken: whether it must be dropped instead of polled.
    ///
    /// Asks the queue only if anything was cancelled since it was last asked: who cancels counts, and
    /// then wakes. So a handler may be polled many times without a lock.
    fn check(&mut self, cx: &Context<'_>) -> Option<Cancel> {
        if self.is_current(cx.waker()) {
            return None;
        }
        // Before the lock is taken: what is counted after this is asked for the next time.
        let cancels = self.sink.cancels.load(Ordering::Acquire);
        let waker = WakerId::of(cx.waker());
        let ticket = self.ticket();
        let mut queue = self.sink.lock();
        let (cancel, replaced) = queue.check(ticket, cx.waker());
        drop(queue);
        drop(replaced);
        (self.seen, self.known) = (cancels, waker);
        cancel
    }
}

/// Counts an update that a task has started, and tells whether it may start another one at once.
fn spend(budget: &mut u8, waited: bool) -> bool {
    // A handler that has waited has let others have the thread.
    let left = if waited { BUDGET } else { *budget - 1 };
    *budget = if left > 0 { left } else { BUDGET };
    left > 0
}

/// What came of asking the policy.
enum Heard {
    Verdict(Verdict),
    Panicked(Arc<str>),
    Cancelled(Cancel),
}

/// Polls a handler, and drops it if that was its last time; a panic in its destructor is swallowed.
fn run<F: Future>(
    mut handler: Pin<&mut Option<F>>,
    poll: impl FnOnce(Pin<&mut Option<F>>) -> Poll<F::Output>,
) -> Result<Poll<F::Output>, Arc<str>> {
    let mut output = None;
    // Both under one guard: it costs as much as a handler that does nothing.
    let result = guarded(|| {
        let polled = poll(handler.as_mut());
        let is_ready = polled.is_ready();
        output = Some(polled);
        if is_ready {
            handler.set(None);
        }
    });
    match (output, result) {
        (Some(polled), _) => Ok(polled),
        (None, Err(panic)) => {
            drop_pinned(handler);
            Err(panic)
        }
        (None, Ok(())) => unreachable!("it was polled or has panicked"),
    }
}

fn resume<F: Future>(handler: Pin<&mut Option<F>>, cx: &mut Context<'_>) -> Poll<F::Output> {
    let handler = handler.as_pin_mut().expect("dropped only after its end");
    handler.poll(cx)
}

fn ended<E: Into<BoxError>>(polled: Result<Poll<Result<(), E>>, Arc<str>>) -> Poll<Ended> {
    let error = match polled {
        Ok(Poll::Pending) => return Poll::Pending,
        Ok(Poll::Ready(Ok(()))) => return Poll::Ready(Ended::Outcome(Outcome::Done)),
        Ok(Poll::Ready(Err(error))) => error,
        Err(panic) => return Poll::Ready(Ended::Failed(Cause::Panic(panic))),
    };
    let cause = guarded(|| Cause::from_error(error.into()));
    Poll::Ready(Ended::Failed(cause.unwrap_or_else(Cause::Panic)))
}

impl<U: Send + Sync + 'static> Drop for Duty<U> {
    fn drop(&mut self) {
        // If it was dropped before it ended, its runtime is gone. Nothing may be spawned from here,
        // because a runtime that is gone drops the new task at once, and that would lead here again.
        let (mut effects, waker) = match self.holds {
            Holds::Nothing if !self.hungry => return,
            Holds::Nothing => (self.sink.lock().worker_lost(None, true), None),
            Holds::Update(ticket) => {
                let hungry = self.hungry;
                (self.sink.lock().worker_lost(Some(ticket), hungry), None)
            }
            Holds::Place(place) => self.sink.lock().parked_lost(place),
        };
        effects.wakers.wake();
        drop(waker);
        discard(effects);
    }
}

/// Drops a future of the user in place; a panic in its destructor is swallowed.
fn drop_pinned<F>(mut future: Pin<&mut Option<F>>) {
    let _ = guarded(|| future.set(None));
}
