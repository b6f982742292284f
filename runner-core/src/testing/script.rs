//! A supplier that does what a test tells it to: [`ScriptedSupplier`].

use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use super::SimRuntime;
use crate::{Closing, Confirmation, Runtime, RuntimeExt, SupplyError, UpdateSupplier};

/// Supplies updates as a script says, and records every call.
///
/// At the end of the script a call waits for more steps, as a poll waits for messages, unless the
/// last one is [`Step::End`]. Calls may be
/// dropped at any point without losing an update. A batch that is larger than the limit is split.
/// `U: Clone`, because what was supplied is kept for [`Step::Duplicate`] and
/// [`rewinding`](Self::rewinding); wrap what is costly to clone, or cannot be cloned, in an `Arc`.
///
/// ```
/// use std::{num::NonZeroUsize, time::Duration};
/// use runner_core::{UpdateSupplier, testing::{ScriptedSupplier, SimRuntime}};
///
/// let sim = SimRuntime::new(1);
/// let mut supplier = ScriptedSupplier::new(&sim)
///     .batch([1, 2, 3])
///     .wait(Duration::from_secs(5))
///     .batch([4]);
/// let script = supplier.script();
///
/// let two = NonZeroUsize::new(2).unwrap();
/// sim.block_on(async {
///     assert_eq!(supplier.supply(two).await.unwrap(), [1, 2]);
///     assert_eq!(supplier.supply(two).await.unwrap(), [3]);
///     assert_eq!(supplier.supply(two).await.unwrap(), [4]);
/// });
/// assert_eq!(script.calls()[2].at, Duration::ZERO);
/// assert_eq!(script.calls()[2].answered, Some(1));
/// assert_eq!(sim.elapsed(), Duration::from_secs(5));
/// ```
pub struct ScriptedSupplier<U> {
    sim: SimRuntime,
    script: Script<U>,
    call_timeout: Option<Duration>,
}

/// The other end of a [`ScriptedSupplier`]: adds steps while it is in use, and tells what was asked
/// of it. Cheap to clone.
pub struct Script<U> {
    state: Arc<Mutex<State<U>>>,
}

struct State<U> {
    steps: VecDeque<Step<U>>,
    closes: VecDeque<Close>,
    /// What was supplied since the last close, for going back.
    supplied: Option<Vec<U>>,
    last: Vec<U>,
    calls: Vec<Call>,
    closed: Vec<usize>,
    waker: Option<Waker>,
}

/// What the supplier does next.
#[derive(Debug)]
#[non_exhaustive]
pub enum Step<U> {
    /// Answers with these updates, split if the limit is lower.
    Batch(Vec<U>),
    /// Answers with all of these updates, whatever the limit.
    Oversized(Vec<U>),
    /// Answers with the last answer once more.
    Duplicate,
    /// Waits before the next step. A call that is dropped meanwhile does not begin the wait anew.
    Wait(Duration),
    /// Fails.
    Fail(SupplyError),
    /// Panics with this text.
    Panic(&'static str),
    /// Never answers this call.
    Hang,
    /// The end of the supply, for as long as no step is put before it.
    End,
    /// Waits until a point in time; what a `Wait` becomes when it is reached.
    WaitUntil(Instant),
}

/// What the supplier does when it is closed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Close {
    /// Answers after a while.
    Answer {
        /// How long it takes.
        after: Duration,
    },
    /// Fails.
    Fail(SupplyError),
    /// Panics with this text.
    Panic(&'static str),
    /// Never answers.
    Hang,
}

/// One call of [`UpdateSupplier::supply`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Call {
    /// How many updates were asked for.
    pub limit: usize,
    /// When, since the simulation began.
    pub at: Duration,
    /// How many updates were returned; `None` if the call failed, was dropped or is under way.
    pub answered: Option<usize>,
}

impl<U: Clone> ScriptedSupplier<U> {
    /// A supplier without steps.
    #[must_use]
    pub fn new(sim: &SimRuntime) -> Self {
        let state = State {
            steps: VecDeque::new(),
            closes: VecDeque::new(),
            supplied: None,
            last: Vec::new(),
            calls: Vec::new(),
            closed: Vec::new(),
            waker: None,
        };
        Self {
            sim: sim.clone(),
            script: Script {
                state: Arc::new(Mutex::new(state)),
            },
            call_timeout: None,
        }
    }

    /// Adds [`Step::Batch`].
    #[must_use]
    pub fn batch(self, updates: impl IntoIterator<Item = U>) -> Self {
        self.step(Step::Batch(updates.into_iter().collect()))
    }

    /// Adds [`Step::Wait`].
    #[must_use]
    pub fn wait(self, span: Duration) -> Self {
        self.step(Step::Wait(span))
    }

    /// Adds [`Step::End`].
    #[must_use]
    pub fn end(self) -> Self {
        self.step(Step::End)
    }

    /// Adds any step.
    #[must_use]
    pub fn step(self, step: Step<U>) -> Self {
        self.script.push(step);
        self
    }

    /// Adds what the next `close` does that is not told yet. Default: it answers at once.
    #[must_use]
    pub fn on_close(self, close: Close) -> Self {
        self.script.lock().closes.push_back(close);
        self
    }

    /// Makes `close` go back to the first update that is not settled, so that all from there on are
    /// supplied once more.
    #[must_use]
    pub fn rewinding(self) -> Self {
        self.script.lock().supplied = Some(Vec::new());
        self
    }

    /// Sets [`UpdateSupplier::call_timeout`].
    #[must_use]
    pub fn call_timeout(mut self, span: Duration) -> Self {
        self.call_timeout = Some(span);
        self
    }

    /// The other end, for the test.
    #[must_use]
    pub fn script(&self) -> Script<U> {
        self.script.clone()
    }
}

impl<U: Clone> Script<U> {
    /// Adds a step. A call that waits at the end of the script goes on with it.
    pub fn push(&self, step: Step<U>) {
        let mut state = self.lock();
        state.steps.push_back(step);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Every call of `supply` so far.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.lock().calls.clone()
    }

    /// The argument of every call of `close` so far.
    #[must_use]
    pub fn closes(&self) -> Vec<usize> {
        self.lock().closed.clone()
    }

    /// Whether every step has been taken.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.lock().steps.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, State<U>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one look at the script leads to.
enum Look {
    Sleep(Instant),
    Panic(&'static str),
    Hang,
    /// Until a step is added.
    More,
}

impl<U: Clone> State<U> {
    /// Takes the next step, or says why it cannot be taken now.
    fn look(
        &mut self,
        limit: usize,
        call: usize,
        now: Instant,
    ) -> Result<Result<Vec<U>, SupplyError>, Look> {
        loop {
            let Some(step) = self.steps.pop_front() else {
                return Err(Look::More);
            };
            let batch = match step {
                Step::Batch(mut updates) => {
                    if updates.len() > limit {
                        let rest = updates.split_off(limit);
                        self.steps.push_front(Step::Batch(rest));
                    }
                    updates
                }
                Step::Oversized(updates) => updates,
                Step::Duplicate => self.last.clone(),
                Step::Wait(span) => {
                    let until = now.checked_add(span).expect("a wait that can be expressed");
                    self.steps.push_front(Step::WaitUntil(until));
                    continue;
                }
                Step::WaitUntil(until) if until <= now => continue,
                Step::WaitUntil(until) => {
                    self.steps.push_front(step);
                    return Err(Look::Sleep(until));
                }
                Step::End => {
                    // It stays, so that a later run ends as well.
                    self.steps.push_front(Step::End);
                    self.calls[call].answered = Some(0);
                    return Ok(Ok(Vec::new()));
                }
                Step::Fail(error) => return Ok(Err(error)),
                Step::Panic(text) => return Err(Look::Panic(text)),
                Step::Hang => return Err(Look::Hang),
            };
            self.last.clone_from(&batch);
            if let Some(supplied) = &mut self.supplied {
                supplied.extend_from_slice(&batch);
            }
            self.calls[call].answered = Some(batch.len());
            return Ok(Ok(batch));
        }
    }
}

impl<U: Clone + Send + Sync + 'static> UpdateSupplier for ScriptedSupplier<U> {
    type Update = U;
    type Error = SupplyError;

    async fn supply(&mut self, limit: NonZeroUsize) -> Result<Vec<U>, SupplyError> {
        let limit = limit.get();
        let call = {
            let mut state = self.script.lock();
            state.calls.push(Call {
                limit,
                at: self.sim.elapsed(),
                answered: None,
            });
            state.calls.len() - 1
        };
        loop {
            let now = self.sim.now();
            let look = self.script.lock().look(limit, call, now);
            match look {
                // Nothing is awaited between taking the updates and returning them.
                Ok(answer) => return answer,
                Err(Look::Sleep(until)) => self.sim.sleep_until(until).await,
                Err(Look::Panic(text)) => panic!("{text}"),
                Err(Look::Hang) => std::future::pending().await,
                Err(Look::More) => self.script.added().await,
            }
        }
    }

    fn call_timeout(&self) -> Option<Duration> {
        self.call_timeout
    }

    fn is_exhausted(&self) -> bool {
        matches!(self.script.lock().steps.front(), Some(Step::End))
    }

    async fn close(&mut self, settled_prefix: usize) -> Result<Closing, SupplyError> {
        let close = {
            let mut state = self.script.lock();
            state.closed.push(settled_prefix);
            state.closes.pop_front()
        };
        match close {
            None => {}
            Some(Close::Answer { after }) => self.sim.sleep(after).await,
            Some(Close::Fail(error)) => return Err(error),
            Some(Close::Panic(text)) => panic!("{text}"),
            Some(Close::Hang) => std::future::pending().await,
        }
        let mut state = self.script.lock();
        let Some(supplied) = &mut state.supplied else {
            return Ok(Closing::default());
        };
        let supplied = std::mem::take(supplied);
        let again = supplied[settled_prefix.min(supplied.len())..].to_vec();
        if !again.is_empty() {
            state.steps.push_front(Step::Batch(again));
        }
        // A test supplies fewer than 2^63 updates.
        let position = settled_prefix as i64;
        Ok(Closing::new(Confirmation::Confirmed { position }).redelivers_from(settled_prefix))
    }
}

impl<U: Clone> Script<U> {
    /// Waits until there is a step.
    async fn added(&self) {
        poll_fn(|cx| {
            let mut state = self.lock();
            if state.steps.is_empty() {
                state.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
    }
}

impl<U> Clone for Script<U> {
    fn clone(&self) -> Self {
        Self {
            state: Arc::clone(&self.state),
        }
    }
}

impl<U> fmt::Debug for Script<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        f.debug_struct("Script")
            .field("steps", &state.steps.len())
            .field("calls", &state.calls.len())
            .field("closed", &state.closed)
            .finish_non_exhaustive()
    }
}

impl<U> fmt::Debug for ScriptedSupplier<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedSupplier")
            .field("script", &self.script)
            .field("call_timeout", &self.call_timeout)
            .finish_non_exhaustive()
    }
}
