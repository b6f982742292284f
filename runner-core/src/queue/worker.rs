//! The task that runs handlers.
//!
//! A worker takes the next update, polls its handler, and when that is done takes the next one, without a
//! spawn. When a handler is pending, the worker stays with it and hands its permit to another worker. So
//! there is one task for every handler that waits, and none for a handler that does not. A worker that
//! finds nothing to start stays idle for a while.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};

use super::{
    complete::weight,
    effects::{Effects, Wakers},
    label::Label,
    mailbox::{Command, Mailbox},
    outcome::{Ending, Outcome},
    shared::QueueShared,
    state::{Started, State, Timeout},
};
use crate::{
    BoxError, BoxFuture, Cause, Delivery, Failure, UpdateConsumer, Verdict,
    consume::DeliveryControl,
    current::{self, RunId},
    panics::{discard, guarded},
    queue::Ticket,
    trace::{Chain, debug, error, log_update},
};

/// How many updates in a row a worker starts whose handlers are never pending, before it lets other tasks
/// have the thread.
const BUDGET: u8 = 32;

/// Runs handlers for as long as there is something to start.
///
/// What lives across an await is in memory for every update in flight, so it is little: the worker and the
/// future of the handler. An `async fn` would hold its arguments twice.
pub(super) fn run<U, C>(mut worker: Worker<U>, consumer: Arc<C>) -> impl Future<Output = ()> + Send
where
    U: Send + Sync + 'static,
    C: UpdateConsumer<U>,
{
    let run = RunId::of(&worker.shared);
    current::inside(Some(run), async move {
        let mut handler = pin!(None);
        let call = |update| consumer.consume(update);
        while let Some(cause) =
            std::future::poll_fn(|cx| worker.poll(call, handler.as_mut(), cx)).await
        {
            // In a box, because few updates fail.
            let outcome = Box::pin(worker.ask_policy(cause)).await;
            worker.decided = Some(Box::new(outcome));
        }
    })
}

/// What a worker task holds. It is made before the task is spawned, so its `Drop` returns the permit and the
/// update exactly once, even if the runtime drops the task unpolled.
pub(super) struct Worker<U: Send + Sync + 'static> {
    shared: Arc<QueueShared<U>>,
    mailbox: Arc<Mailbox>,
    stage: Stage,
    /// What the policy made of the current update.
    decided: Option<Box<Outcome>>,
    permit: bool,
    /// Whether the current update has been pending.
    suspended: bool,
    budget: u8,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Is about to look for an update.
    Searching,
    /// Has nothing to do.
    Idle,
    Handling(Ticket),
}

/// How a handler ended. `Err`: the policy has to be asked about this cause.
type End = Result<Outcome, Cause>;

impl<U: Send + Sync + 'static> Worker<U> {
    /// A worker that has a permit.
    pub(super) fn new(shared: Arc<QueueShared<U>>) -> Self {
        Self {
            shared,
            mailbox: Arc::default(),
            stage: Stage::Searching,
            decided: None,
            permit: true,
            suspended: false,
            budget: BUDGET,
        }
    }

    /// Runs handlers, one after the other, until one is pending.
    ///
    /// Ready with a cause when the policy has to be asked about the current update, and with none when the
    /// task is to end.
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
        // First of all: whatever is posted to this worker from now on wakes it.
        self.mailbox.register(cx.waker());
        let mut next = match self.stage {
            Stage::Searching => self.start(),
            Stage::Idle => match self.mailbox.take() {
                Some(Command::Start) => {
                    self.permit = true;
                    self.start()
                }
                Some(_) => {
                    self.stage = Stage::Searching;
                    return Poll::Ready(None);
                }
                None => return Poll::Pending,
            },
            Stage::Handling(ticket) => match self.decided.take() {
                Some(outcome) => self.complete(ticket, *outcome),
                None => match self.resume(ticket, handler.as_mut(), cx) {
                    Poll::Ready(Ok(outcome)) => self.complete(ticket, outcome),
                    Poll::Ready(Err(cause)) => return Poll::Ready(Some(cause)),
                    Poll::Pending => return Poll::Pending,
                },
            },
        };
        loop {
            let Started { ticket, update } = match next {
                Next::Update(started) => started,
                Next::Yield => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Next::Idle => return Poll::Pending,
                Next::End => return Poll::Ready(None),
            };
            let end = match update {
                Err(cause) => Err(cause),
                Ok(update) => {
                    let polled = poll_handler(handler.as_mut(), |mut handler| {
                        handler.set(Some(call(update)));
                        poll_once(handler, cx)
                    });
                    match polled {
                        Poll::Ready(end) => end,
                        Poll::Pending if self.suspend(ticket, Timeout::Handler) => {
                            drop_in_place(handler.as_mut());
                            Ok(Outcome::Abandoned)
                        }
                        Poll::Pending => return Poll::Pending,
                    }
                }
            };
            match end {
                Ok(outcome) => next = self.complete(ticket, outcome),
                Err(cause) => return Poll::Ready(Some(cause)),
            }
        }
    }

    /// Takes the first update.
    fn start(&mut self) -> Next<U> {
        let mut effects = Effects::default();
        let mut state = self.shared.lock();
        state.workers.unused -= 1;
        let started = state.start(&mut self.permit);
        let next = next(started, &mut self.stage, &self.mailbox, &mut state);
        if state.ready.len() == 0 {
            // The last one that was ready is taken, so a fetch may be due. It must not wait for the handler,
            // which may keep its thread.
            state.wake_waiters(&mut effects.wakers);
        }
        drop(state);
        self.shared.apply(effects);
        next
    }

    /// Completes an update and takes the next one: two events in one critical section.
    fn complete(&mut self, ticket: Ticket, outcome: Outcome) -> Next<U> {
        let weight = match outcome {
            Outcome::Retry { .. } => Some(1),
            _ => weight(ticket, self.suspended),
        };
        // Before the lock is taken.
        let measured = weight.map(|weight| (self.shared.runtime.now(), weight));
        // A handler that has been pending has let other tasks have the thread.
        self.budget = if self.suspended {
            BUDGET
        } else {
            self.budget - 1
        };
        self.suspended = false;
        let pause = self.budget == 0;
        if pause {
            self.budget = BUDGET;
        }
        let mut state = self.shared.lock();
        self.mailbox.clear();
        let may_go_on = !pause && state.workers.acquire_permit(&mut self.permit);
        if matches!(outcome, Outcome::Done)
            && may_go_on
            && let Some((started, last)) = state.replace(ticket, measured)
        {
            let mut wakers = Wakers::default();
            state.wake_waiters(&mut wakers);
            drop(state);
            wakers.wake();
            discard(last);
            self.stage = Stage::Handling(started.ticket);
            return Next::Update(started);
        }
        let mut effects = Effects::default();
        state.complete(ticket, outcome, measured, &mut effects);
        let mut started = None;
        if may_go_on {
            started = state.start(&mut self.permit);
        } else if pause {
            let startable = state.startable();
            state.workers.keep_permit(startable, &mut self.permit);
        }
        state.notify(&mut effects);
        let next = if pause && self.permit {
            self.stage = Stage::Searching;
            Next::Yield
        } else {
            next(started, &mut self.stage, &self.mailbox, &mut state)
        };
        state.wake_waiters(&mut effects.wakers);
        drop(state);
        self.shared.apply(effects);
        next
    }

    /// Polls a handler that has been pending.
    fn resume<F, E>(
        &mut self,
        ticket: Ticket,
        mut handler: Pin<&mut Option<F>>,
        cx: &mut Context<'_>,
    ) -> Poll<End>
    where
        F: Future<Output = Result<(), E>>,
        E: Into<BoxError>,
    {
        let command = self.mailbox.take();
        // Whatever the command: one that is ready by now has ended by itself.
        let polled = poll_handler(handler.as_mut(), |handler| poll_once(handler, cx));
        if polled.is_ready() {
            return polled;
        }
        let end = match command {
            Some(Command::Abandon) => Ok(Outcome::Abandoned),
            Some(Command::TimeOut) if self.shared.lock().cancel_if_late(ticket) => {
                Err(Cause::Timeout)
            }
            _ => return Poll::Pending,
        };
        drop_in_place(handler);
        Poll::Ready(end)
    }

    /// The handler or the policy is pending for the first time. `true` if it must be dropped instead.
    fn suspend(&mut self, ticket: Ticket, timeout: Timeout) -> bool {
        let mut effects = Effects::default();
        // Before the lock is taken.
        let limited = self.shared.limited || timeout == Timeout::Policy;
        let now = limited.then(|| self.shared.runtime.now());
        self.suspended = true;
        let mut state = self.shared.lock();
        let permit = &mut self.permit;
        let closed = state.suspend(ticket, timeout, now, &self.mailbox, permit, &mut effects);
        drop(state);
        self.shared.apply(effects);
        closed
    }

    async fn ask_policy(&mut self, cause: Cause) -> Outcome {
        let Stage::Handling(ticket) = self.stage else {
            unreachable!("only an update that was started fails");
        };
        let begun = {
            let mut state = self.shared.lock();
            // The timeout of the handler means nothing to the policy.
            self.mailbox.clear();
            state.decide(ticket)
        };
        let Some(update) = begun else {
            discard(cause);
            return Outcome::Abandoned;
        };
        let attempt = update.attempt();
        let policy = Arc::clone(&self.shared.parts.policy);
        let failure = Failure {
            update,
            cause: cause.clone(),
        };
        let answer = match guarded(|| policy.decide(failure)) {
            Ok(deciding) => self.await_policy(ticket, deciding).await,
            Err(panic) => Answer::Panicked(panic),
        };
        let ending = Ending::from(&cause);
        let label = match answer {
            Answer::Verdict(Verdict::Skip | Verdict::Stop) | Answer::Abandoned => Label::default(),
            _ => DeliveryControl::label(&*self.shared, ticket),
        };
        let outcome = match answer {
            Answer::Verdict(Verdict::Skip) => Outcome::GivenUp(ending),
            Answer::Verdict(Verdict::Retry { after }) => {
                log_update!(
                    debug,
                    label,
                    attempt,
                    after = ?after,
                    cause = %Chain(&cause),
                    "update is to be tried again"
                );
                Outcome::Retry {
                    after,
                    else_as: ending,
                }
            }
            Answer::Verdict(Verdict::Stop) => return Outcome::Stop { cause },
            Answer::Panicked(panic) => {
                log_update!(
                    error,
                    label,
                    attempt,
                    panic = %panic,
                    cause = %Chain(&cause),
                    "error policy panicked, update given up"
                );
                let _ = panic;
                Outcome::GivenUp(ending)
            }
            Answer::TimedOut => {
                log_update!(
                    error,
                    label,
                    attempt,
                    cause = %Chain(&cause),
                    "error policy timed out, update given up"
                );
                Outcome::GivenUp(ending)
            }
            Answer::Abandoned => Outcome::Abandoned,
        };
        // Here and not under the lock: the destructor of an error is code of the user.
        discard(cause);
        outcome
    }

    /// Polls the policy to its end, its timeout or its panic, and drops its future.
    async fn await_policy(&mut self, ticket: Ticket, deciding: BoxFuture<'_, Verdict>) -> Answer {
        let mut deciding = Some(deciding);
        let mut pending = false;
        let answer = std::future::poll_fn(|cx| {
            self.mailbox.register(cx.waker());
            let command = self.mailbox.take();
            let current = deciding.as_mut().expect("dropped only after its end");
            match guarded(|| current.as_mut().poll(cx)) {
                Ok(Poll::Ready(verdict)) => Poll::Ready(Answer::Verdict(verdict)),
                Err(panic) => Poll::Ready(Answer::Panicked(panic)),
                Ok(Poll::Pending) if command == Some(Command::Abandon) => {
                    Poll::Ready(Answer::Abandoned)
                }
                Ok(Poll::Pending) if command == Some(Command::TimeOut) => {
                    Poll::Ready(Answer::TimedOut)
                }
                Ok(Poll::Pending) => {
                    let first = !std::mem::replace(&mut pending, true);
                    match first && self.suspend(ticket, Timeout::Policy) {
                        true => Poll::Ready(Answer::Abandoned),
                        false => Poll::Pending,
                    }
                }
            }
        })
        .await;
        discard(deciding.take());
        answer
    }
}

/// What a worker does next.
enum Next<U> {
    Update(Started<U>),
    /// It has started enough in a row.
    Yield,
    Idle,
    End,
}

fn next<U>(
    started: Option<Started<U>>,
    stage: &mut Stage,
    mailbox: &Arc<Mailbox>,
    state: &mut State<U>,
) -> Next<U> {
    match started {
        Some(started) => {
            *stage = Stage::Handling(started.ticket);
            Next::Update(started)
        }
        None if state.is_open() && state.workers.go_idle(mailbox) => {
            *stage = Stage::Idle;
            Next::Idle
        }
        None => {
            *stage = Stage::Searching;
            Next::End
        }
    }
}

/// What came of asking the policy.
enum Answer {
    Verdict(Verdict),
    Panicked(Arc<str>),
    TimedOut,
    Abandoned,
}

/// Polls a handler, and drops it when it has ended. A panic in it is a failure; one in its destructor is
/// swallowed.
fn poll_handler<F: Future, E: Into<BoxError>>(
    mut handler: Pin<&mut Option<F>>,
    poll: impl FnOnce(Pin<&mut Option<F>>) -> Poll<Result<(), E>>,
) -> Poll<End> {
    let mut polled = None;
    // One guard for both: a second one would cost as much as a handler that does nothing.
    let result = guarded(|| {
        let output = poll(handler.as_mut());
        let is_ready = output.is_ready();
        polled = Some(output);
        if is_ready {
            handler.set(None);
        }
    });
    match (polled, result) {
        (Some(Poll::Pending), _) => Poll::Pending,
        (Some(Poll::Ready(Ok(()))), _) => Poll::Ready(Ok(Outcome::Done)),
        (Some(Poll::Ready(Err(error))), _) => {
            let cause = guarded(|| Cause::from_error(error.into()));
            Poll::Ready(Err(cause.unwrap_or_else(Cause::Panic)))
        }
        (None, Err(panic)) => {
            drop_in_place(handler);
            Poll::Ready(Err(Cause::Panic(panic)))
        }
        (None, Ok(())) => unreachable!("it was polled or has panicked"),
    }
}

fn poll_once<F: Future>(handler: Pin<&mut Option<F>>, cx: &mut Context<'_>) -> Poll<F::Output> {
    let handler = handler.as_pin_mut().expect("dropped only after its end");
    handler.poll(cx)
}

/// Drops a future of the user in place; a panic in its destructor is swallowed.
fn drop_in_place<F>(mut future: Pin<&mut Option<F>>) {
    let _ = guarded(|| future.set(None));
}

impl<U: Send + Sync + 'static> Drop for Worker<U> {
    fn drop(&mut self) {
        // A worker that is dropped before it has ended was dropped by its runtime, which is gone. Nothing is
        // spawned from here: a runtime that is gone would drop the new task at once, and so on.
        let mut effects = Effects::default();
        let mut state = self.shared.lock();
        let lost = match self.stage {
            Stage::Searching => self.permit.then_some(None),
            Stage::Handling(ticket) => Some(Some(ticket)),
            Stage::Idle => {
                let idle = state.workers.remove_idle(&self.mailbox);
                self.permit = !idle && self.mailbox.take() == Some(Command::Start);
                (idle || self.permit).then_some(None)
            }
        };
        if let Some(ticket) = lost {
            state.worker_lost(ticket, self.permit, &mut effects);
        }
        drop(state);
        effects.wakers.wake();
        discard(effects);
    }
}
