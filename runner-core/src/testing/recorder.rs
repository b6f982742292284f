//! A consumer that does what a test tells it to and writes down what happened: [`Recorder`].

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::SimRuntime;
use crate::{BoxError, Delivery, RuntimeExt, UpdateConsumer};

/// Handles every update as a closure plans it, and logs beginning and end in virtual time.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use runner_core::{Runner, testing::{Plan, Recorder, ScriptedSupplier, SimRuntime}};
///
/// let sim = SimRuntime::new(1);
/// let supplier = ScriptedSupplier::new(&sim).batch([1, 2]);
/// let second = Duration::from_secs(1);
/// let recorder = Recorder::new(&sim, move |update: &runner_core::Delivery<u32>| {
///     match **update {
///         1 => Plan::ok().sleep(second),
///         _ => Plan::fail("even"),
///     }
/// });
/// let log = recorder.log();
/// let handle = Runner::new(Arc::new(sim.clone()), supplier, recorder).start();
/// sim.advance(second);
/// let report = sim.block_on(handle.stop()).unwrap();
///
/// assert_eq!((report.counters.finished, report.counters.failed), (1, 1));
/// assert_eq!(log.max_concurrency(), 2);
/// assert_eq!(log.finished(), [1]);
/// ```
pub struct Recorder<U, F> {
    sim: SimRuntime,
    plan: F,
    log: Log<U>,
}

/// What a [`Recorder`] has seen. Cheap to clone.
pub struct Log<U> {
    state: Arc<Mutex<State<U>>>,
}

struct State<U> {
    entries: Vec<Entry<U>>,
    running: usize,
    max_running: usize,
}

/// One attempt at one update.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry<U> {
    /// The update.
    pub update: U,
    /// Which attempt.
    pub attempt: u32,
    /// When `consume` was called, since the simulation began.
    pub started: Duration,
    /// When the handler ended; `None` while it is at work.
    pub ended: Option<Duration>,
    /// How it ended; `None` while it is at work.
    pub end: Option<End>,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum End {
    /// Returned without an error.
    Ok,
    /// Returned an error.
    Failed,
    /// Panicked.
    Panicked,
    /// Was dropped before it ended.
    Dropped,
}

/// What a handler does with one update: some steps in order, then an end.
#[derive(Clone, Debug)]
#[must_use]
pub struct Plan {
    steps: Vec<Doing>,
    last: Last,
    bomb: bool,
}

#[derive(Clone, Debug)]
enum Doing {
    Sleep(Duration),
    Block(Duration),
    Extend(Duration),
    Yield,
}

#[derive(Clone, Copy, Debug)]
enum Last {
    Ok,
    Fail(&'static str),
    Panic(&'static str),
    PanicAtOnce(&'static str),
    Hang,
}

impl Plan {
    /// Returns without an error.
    pub const fn ok() -> Self {
        Self::ending(Last::Ok)
    }

    /// Returns an error.
    pub const fn fail(text: &'static str) -> Self {
        Self::ending(Last::Fail(text))
    }

    /// Panics while it is polled.
    pub const fn panic(text: &'static str) -> Self {
        Self::ending(Last::Panic(text))
    }

    /// Panics in `consume` itself, before there is a future. Steps are not taken.
    pub const fn panic_at_once(text: &'static str) -> Self {
        Self::ending(Last::PanicAtOnce(text))
    }

    /// Never ends.
    pub const fn hang() -> Self {
        Self::ending(Last::Hang)
    }

    /// Adds: waits in virtual time.
    pub fn sleep(self, span: Duration) -> Self {
        self.step(Doing::Sleep(span))
    }

    /// Adds: blocks its thread, that is, does not return from `poll` while `span` passes for all
    /// others.
    ///
    /// Drive such a simulation by [`SimRuntime::advance`], not by `block_on`: the main future is not
    /// polled meanwhile.
    pub fn block(self, span: Duration) -> Self {
        self.step(Doing::Block(span))
    }

    /// Adds: asks for more time.
    pub fn extend(self, by: Duration) -> Self {
        self.step(Doing::Extend(by))
    }

    /// Adds: lets others run.
    pub fn yield_now(self) -> Self {
        self.step(Doing::Yield)
    }

    /// Makes the future panic when it is dropped, whether it has ended or not.
    pub const fn panic_on_drop(mut self) -> Self {
        self.bomb = true;
        self
    }

    const fn ending(last: Last) -> Self {
        Self {
            steps: Vec::new(),
            last,
            bomb: false,
        }
    }

    fn step(mut self, step: Doing) -> Self {
        self.steps.push(step);
        self
    }
}

impl<U, F> Recorder<U, F> {
    /// A consumer that asks `plan` what to do with each attempt.
    pub fn new(sim: &SimRuntime, plan: F) -> Self
    where
        F: Fn(&Delivery<U>) -> Plan,
    {
        let state = State {
            entries: Vec::new(),
            running: 0,
            max_running: 0,
        };
        Self {
            sim: sim.clone(),
            plan,
            log: Log {
                state: Arc::new(Mutex::new(state)),
            },
        }
    }

    /// What it has seen, for the test.
    #[must_use]
    pub fn log(&self) -> Log<U> {
        self.log.clone()
    }
}

impl<U, F> UpdateConsumer<U> for Recorder<U, F>
where
    U: Clone + Send + Sync + 'static,
    F: Fn(&Delivery<U>) -> Plan + Send + Sync + 'static,
{
    type Error = BoxError;

    fn consume(&self, update: Delivery<U>) -> impl Future<Output = Result<(), BoxError>> + Send {
        let Plan { steps, last, bomb } = (self.plan)(&update);
        let mut running = Running::new(&self.log, &self.sim, &update);
        if let Last::PanicAtOnce(text) = last {
            running.end = End::Panicked;
            panic!("{text}");
        }
        let sim = self.sim.clone();
        async move {
            // Named as a whole: else only its field would be moved in here.
            let mut running = running;
            let _bomb = bomb.then(|| Bomb);
            for step in steps {
                match step {
                    Doing::Sleep(span) => sim.sleep(span).await,
                    Doing::Block(span) => sim.advance(span),
                    Doing::Extend(by) => {
                        update.extend(by);
                    }
                    Doing::Yield => sim.yield_now().await,
                }
            }
            match last {
                Last::Ok => {
                    running.end = End::Ok;
                    Ok(())
                }
                Last::Fail(text) => {
                    running.end = End::Failed;
                    Err(text.into())
                }
                Last::Panic(text) | Last::PanicAtOnce(text) => {
                    running.end = End::Panicked;
                    panic!("{text}");
                }
                Last::Hang => std::future::pending().await,
            }
        }
    }
}

impl<U: Clone> Log<U> {
    /// Every attempt so far, in the order in which they began.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry<U>> {
        self.lock().entries.clone()
    }

    /// The updates in the order in which attempts at them began.
    #[must_use]
    pub fn started(&self) -> Vec<U> {
        let state = self.lock();
        let updates = state.entries.iter().map(|entry| entry.update.clone());
        updates.collect()
    }

    /// The updates whose handler returned without an error, in the order in which they began.
    #[must_use]
    pub fn finished(&self) -> Vec<U> {
        let state = self.lock();
        let finished = state
            .entries
            .iter()
            .filter(|entry| entry.end == Some(End::Ok));
        finished.map(|entry| entry.update.clone()).collect()
    }
}

impl<U> Log<U> {
    /// How many handlers are at work.
    #[must_use]
    pub fn running(&self) -> usize {
        self.lock().running
    }

    /// The most handlers that were ever at work at a time.
    #[must_use]
    pub fn max_concurrency(&self) -> usize {
        self.lock().max_running
    }

    fn lock(&self) -> MutexGuard<'_, State<U>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<U> Clone for Log<U> {
    fn clone(&self) -> Self {
        Self {
            state: Arc::clone(&self.state),
        }
    }
}

impl<U> fmt::Debug for Log<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Log")
            .field("entries", &state.entries.len())
            .field("running", &state.running)
            .field("max_concurrency", &state.max_running)
            .finish()
    }
}

impl<U, F> fmt::Debug for Recorder<U, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder")
            .field("log", &self.log)
            .finish_non_exhaustive()
    }
}

/// Writes the end of one attempt down, however it comes.
struct Running<U> {
    log: Log<U>,
    sim: SimRuntime,
    index: usize,
    end: End,
}

impl<U: Clone> Running<U> {
    fn new(log: &Log<U>, sim: &SimRuntime, update: &Delivery<U>) -> Self {
        let mut state = log.lock();
        state.running += 1;
        state.max_running = state.max_running.max(state.running);
        state.entries.push(Entry {
            update: U::clone(update),
            attempt: update.attempt().get(),
            started: sim.elapsed(),
            ended: None,
            end: None,
        });
        Self {
            log: log.clone(),
            sim: sim.clone(),
            index: state.entries.len() - 1,
            end: End::Dropped,
        }
    }
}

impl<U> Drop for Running<U> {
    fn drop(&mut self) {
        let now = self.sim.elapsed();
        let mut state = self.log.lock();
        state.running -= 1;
        let entry = &mut state.entries[self.index];
        entry.ended = Some(now);
        entry.end = Some(self.end);
    }
}

/// Panics when dropped, but never while a panic is under way: that would end the process.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "dropped");
    }
}
