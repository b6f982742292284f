//! The tasks that run handlers: pull workers.
//!
//! A task with the *duty* takes ready updates from the queue and polls each handler once. If that
//! is pending, the task keeps this update and passes the duty on, to at most `workers` tasks at a
//! time; so there is one task for every handler that waits, and an update whose handler never waits
//! costs no task at all. A task whose handler has ended after a wait takes the next update itself,
//! and relieves one that was started for it and has not begun: under a steady load nothing is spawned.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};

use super::{
    Sink,
    node::Cancel,
    outcome::{Ending, Outcome},
    queue::{Job, Timeout},
};
use crate::{
    BoxError, Cause, Failure, UpdateConsumer, Verdict,
    panics::{discard, guarded},
    ticket::Ticket,
    trace::error,
};

/// How many updates a task starts before it lets others have the thread. A handler that never
/// waits would else keep it under a steady feed.
const BUDGET: u32 = 32;

/// Runs handlers for as long as there is something to start.
pub(super) async fn work<U, C>(mut duty: Duty<U>, consumer: Arc<C>)
where
    U: Send + Sync + 'static,
    C: UpdateConsumer<U>,
{
    let mut budget = BUDGET;
    let mut next = duty.claim();
    while let Some(Job {
        delivery, preset, ..
    }) = next
    {
        let outcome = match preset {
            Some(cause) => {
                // No handler takes it, and dropping an update runs code of the user.
                discard(delivery);
                duty.ask_policy(*cause).await
            }
            None => {
                // Made in the frame of the task and lent from here: an async function that takes a
                // future by value holds it twice.
                let mut handler = pin!(None);
                let called = guarded(|| handler.set(Some(consumer.consume(delivery))));
                let ended = match called {
                    Ok(()) => duty.run(handler).await,
                    Err(panic) => Ended::Cause(Cause::Panic(panic)),
                };
                match ended {
                    Ended::Ok => Outcome::Done,
                    Ended::Cause(cause) => duty.ask_policy(cause).await,
                    Ended::Abandoned => Outcome::Abandoned,
                }
            }
        };
        // A handler that has waited has let others have the thread.
        budget = if duty.hungry { budget - 1 } else { BUDGET };
        next = duty.settle(outcome, budget > 0);
        if budget == 0 {
            // Nothing is held meanwhile but the duty.
            budget = BUDGET;
            if duty.hungry {
                yield_now().await;
                next = duty.claim();
            }
        }
    }
}

/// The right to start updates, or the obligation to settle the one that was started.
///
/// Made before the task is spawned and moved into it: however the task ends, what it held is given
/// back exactly once.
pub(super) struct Duty<U: Send + Sync + 'static> {
    sink: Arc<Sink<U>>,
    current: Option<Ticket>,
    hungry: bool,
}

/// How a handler ended.
enum Ended {
    Ok,
    Cause(Cause),
    Abandoned,
}

/// How a future that was driven ended.
enum Driven<T> {
    Ready(T),
    Panicked(Arc<str>),
    Cancelled(Cancel),
}

impl<U: Send + Sync + 'static> Duty<U> {
    pub(super) fn new(sink: Arc<Sink<U>>) -> Self {
        Self {
            sink,
            current: None,
            hungry: true,
        }
    }

    fn claim(&mut self) -> Option<Job<U>> {
        let mut wakers = Vec::new();
        let mut queue = self.sink.lock();
        let job = queue.claim();
        if queue.ready() == 0 {
            // When the last one that was ready is taken, a fetch may be due. It must not wait for
            // the handler, which may keep its thread for long.
            queue.wake_satisfied(&mut wakers);
        }
        drop(queue);
        for waker in wakers {
            waker.wake();
        }
        self.hungry = job.is_some();
        self.current = job.as_ref().map(|job| job.ticket);
        job
    }

    /// Ends the current attempt and, if `claim`, takes the next update.
    fn settle(&mut self, outcome: Outcome, claim: bool) -> Option<Job<U>> {
        let ticket = self
            .current
            .take()
            .expect("an update is settled once, by its task");
        let mut queue = self.sink.lock();
        let (job, effects) = queue.settle(
            ticket,
            outcome,
            claim,
            || self.sink.runtime.now(),
            &mut self.hungry,
        );
        drop(queue);
        self.current = job.as_ref().map(|job| job.ticket);
        self.sink.apply(effects);
        job
    }

    async fn run<F, E>(&mut self, handler: Pin<&mut Option<F>>) -> Ended
    where
        F: Future<Output = Result<(), E>>,
        E: Into<BoxError>,
    {
        match self.drive(handler, Timeout::Shared).await {
            Driven::Ready(Ok(())) => Ended::Ok,
            Driven::Ready(Err(error)) => match guarded(|| Cause::from_error(error.into())) {
                Ok(cause) => Ended::Cause(cause),
                Err(panic) => Ended::Cause(Cause::Panic(panic)),
            },
            Driven::Panicked(panic) => Ended::Cause(Cause::Panic(panic)),
            Driven::Cancelled(Cancel::Timeout) => Ended::Cause(Cause::Timeout),
            Driven::Cancelled(Cancel::Abandon) => Ended::Abandoned,
        }
    }

    async fn ask_policy(&mut self, cause: Cause) -> Outcome {
        let ticket = self
            .current
            .expect("the policy is asked about the current update");
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
        let mut deciding = pin!(None);
        let verdict = match guarded(|| deciding.set(Some(policy.decide(failure)))) {
            Ok(()) => self.drive(deciding, Timeout::Own).await,
            Err(panic) => Driven::Panicked(panic),
        };
        let given_up = Outcome::GivenUp(Ending::from(&cause));
        let outcome = match verdict {
            Driven::Ready(Verdict::Skip) => given_up,
            Driven::Ready(Verdict::Retry { after }) => Outcome::Retry { after },
            Driven::Ready(Verdict::Stop) => return Outcome::Stop { cause },
            Driven::Panicked(panic) => {
                error!(panic = %panic, cause = %cause, "error policy panicked, update given up");
                let _ = panic;
                given_up
            }
            Driven::Cancelled(Cancel::Timeout) => {
                error!(cause = %cause, "error policy timed out, update given up");
                given_up
            }
            Driven::Cancelled(Cancel::Abandon) => Outcome::Abandoned,
        };
        // Here, not under the lock: dropping an error runs code of the user.
        discard(cause);
        outcome
    }

    /// Polls a future of the user to its end, to its cancellation or to its panic, and drops it.
    async fn drive<F: Future>(
        &mut self,
        mut future: Pin<&mut Option<F>>,
        timeout: Timeout,
    ) -> Driven<F::Output> {
        let mut pending = false;
        let driven = poll_fn(|cx| {
            if pending && let Some(cancel) = self.check(cx) {
                return Poll::Ready(Driven::Cancelled(cancel));
            }
            let current = future
                .as_mut()
                .as_pin_mut()
                .expect("dropped only after its end");
            match guarded(|| current.poll(cx)) {
                Ok(Poll::Ready(output)) => Poll::Ready(Driven::Ready(output)),
                Err(panic) => Poll::Ready(Driven::Panicked(panic)),
                Ok(Poll::Pending) if pending => Poll::Pending,
                Ok(Poll::Pending) => {
                    pending = true;
                    match self.pend(cx, timeout) {
                        Some(cancel) => Poll::Ready(Driven::Cancelled(cancel)),
                        None => Poll::Pending,
                    }
                }
            }
        })
        .await;
        drop_pinned(future);
        driven
    }

    /// The future waits for the first time.
    fn pend(&mut self, cx: &Context<'_>, timeout: Timeout) -> Option<Cancel> {
        let ticket = self.current.expect("a driven future belongs to an update");
        let now = || self.sink.runtime.now();
        let mut queue = self.sink.lock();
        let (cancel, effects) = queue.pend(ticket, cx.waker(), timeout, now, &mut self.hungry);
        drop(queue);
        self.sink.apply(effects);
        cancel
    }

    /// The future is woken: whether it must be dropped instead of polled.
    fn check(&self, cx: &Context<'_>) -> Option<Cancel> {
        let ticket = self.current.expect("a driven future belongs to an update");
        let mut queue = self.sink.lock();
        let (cancel, replaced) = queue.check(ticket, cx.waker());
        drop(queue);
        drop(replaced);
        cancel
    }
}

impl<U: Send + Sync + 'static> Drop for Duty<U> {
    fn drop(&mut self) {
        if self.current.is_none() && !self.hungry {
            return;
        }
        // The task was dropped: its runtime is gone. Nothing may be spawned from here, because a
        // runtime that is gone drops the new task at once, and that would lead here again.
        let mut effects = self.sink.lock().worker_lost(self.current, self.hungry);
        for waker in effects.wakers.drain(..) {
            waker.wake();
        }
        discard(effects);
    }
}

/// Drops a future of the user in place; a panic in its destructor is swallowed.
fn drop_pinned<F>(mut future: Pin<&mut Option<F>>) {
    let _ = guarded(|| future.set(None));
}

/// Lets other tasks run.
async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
