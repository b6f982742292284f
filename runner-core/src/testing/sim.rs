//! An executor and a clock in one, single-threaded and seeded: [`SimRuntime`].

use std::{
    collections::BTreeMap,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use fastrand::Rng;

use crate::{BoxFuture, Runtime, current, runtime};

/// A runtime for tests: one thread, virtual time, and an order of events that follows from a seed.
///
/// Among all tasks that are ready it picks the next one at random. So one test explores thousands of
/// schedules per second, and a schedule that fails can be repeated exactly. Time stands still while
/// anything is ready and then jumps to the next deadline; an hour of waiting takes no time at all.
///
/// ```
/// use std::time::Duration;
/// use runner_core::{RuntimeExt, testing::SimRuntime};
///
/// let sim = SimRuntime::new(7);
/// let day = Duration::from_secs(24 * 60 * 60);
/// sim.block_on(sim.sleep(day));
/// assert_eq!(sim.elapsed(), day);
/// ```
#[derive(Clone)]
pub struct SimRuntime {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    seed: u64,
    epoch: Instant,
}

struct State {
    rng: Rng,
    now: Instant,
    tasks: slab::Slab<Task>,
    /// Indices of tasks that were woken, and the main future.
    ready: Vec<Ready>,
    timers: BTreeMap<(Instant, u64), Waker>,
    next_id: u64,
    polls: u64,
    panics: usize,
    shut_down: bool,
}

struct Task {
    id: u64,
    /// `None` while it is polled.
    future: Option<BoxFuture<'static>>,
    /// Woken while it is polled, by a simulation that goes on inside of its poll.
    woken: bool,
    waker: Arc<TaskWaker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ready {
    Main,
    Task { index: usize, id: u64 },
}

/// Queues its task, once however often it is called.
struct TaskWaker {
    shared: std::sync::Weak<Shared>,
    ready: Ready,
    queued: AtomicBool,
}

/// More polls than any test needs: a run that gets here does not end.
const MAX_POLLS: u64 = 50_000_000;

impl SimRuntime {
    /// A runtime whose every decision follows from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // The only look at the real clock: an `Instant` cannot be made from nothing.
        let epoch = Instant::now();
        let state = State {
            rng: Rng::with_seed(seed),
            now: epoch,
            tasks: slab::Slab::new(),
            ready: Vec::new(),
            timers: BTreeMap::new(),
            next_id: 0,
            polls: 0,
            panics: 0,
            shut_down: false,
        };
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                seed,
                epoch,
            }),
        }
    }

    /// Runs `future` and all tasks until `future` is ready.
    ///
    /// # Panics
    ///
    /// If nothing is ready and no timer is set, so that `future` can never be ready; and after
    /// 50 million polls. Both messages name the seed. A panic of `future` itself is passed on.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        let waker = self.waker(Ready::Main);
        let main = Waker::from(Arc::clone(&waker));
        main.wake_by_ref();
        loop {
            match self.next_ready() {
                Some(Ready::Main) => {
                    waker.queued.store(false, Ordering::Release);
                    if let Poll::Ready(output) =
                        future.as_mut().poll(&mut Context::from_waker(&main))
                    {
                        return output;
                    }
                }
                Some(Ready::Task { index, id }) => self.poll_task(index, id),
                None if self.advance_to_next_timer() => {}
                None => panic!(
                    "deadlock: nothing is ready, no timer is set, {} tasks are parked (seed {})",
                    self.tasks(),
                    self.shared.seed
                ),
            }
        }
    }

    /// Runs tasks until none is ready. Time stands still.
    pub fn run_until_idle(&self) {
        let mut main = false;
        while let Some(ready) = self.next_ready() {
            match ready {
                Ready::Task { index, id } => self.poll_task(index, id),
                // A handler that blocks calls this in the midst of `block_on`, which must still
                // learn of it.
                Ready::Main => main = true,
            }
        }
        if main {
            self.lock().ready.push(Ready::Main);
        }
    }

    /// Lets time pass, running whatever becomes ready on the way.
    pub fn advance(&self, span: Duration) {
        self.run_until_idle();
        let until = self.now() + span;
        while self
            .lock()
            .timers
            .keys()
            .next()
            .is_some_and(|(at, _)| *at <= until)
        {
            self.advance_to_next_timer();
            self.run_until_idle();
        }
        let mut state = self.lock();
        state.now = state.now.max(until);
    }

    /// Lets time pass while nothing runs, as in a process that is suspended.
    ///
    /// Every timer that is due by then fires at once, and the seed decides who runs first.
    pub fn suspend(&self, span: Duration) {
        let due = {
            let mut state = self.lock();
            state.now += span;
            let after = (state.now + Duration::from_nanos(1), 0);
            let later = state.timers.split_off(&after);
            std::mem::replace(&mut state.timers, later)
        };
        due.into_values().for_each(Waker::wake);
    }

    /// Lets every other ready task run before the caller goes on, or not: that is up to the seed.
    ///
    /// # Cancel safety
    ///
    /// Safe: it holds nothing.
    pub async fn yield_now(&self) {
        runtime::yield_now().await;
    }

    /// A number below `limit`, from the seed.
    #[must_use]
    pub fn below(&self, limit: u64) -> u64 {
        self.lock().rng.u64(0..limit)
    }

    /// The time that has passed since the beginning.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.now() - self.shared.epoch
    }

    /// How many tasks have not ended.
    #[must_use]
    pub fn tasks(&self) -> usize {
        self.lock().tasks.len()
    }

    /// How many sleeps are under way.
    #[must_use]
    pub fn timers(&self) -> usize {
        self.lock().timers.len()
    }

    /// How many tasks have panicked.
    #[must_use]
    pub fn panics(&self) -> usize {
        self.lock().panics
    }

    /// The seed it was made with.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.shared.seed
    }

    /// Drops every task, as a real runtime does when it is shut down. From now on `spawn` drops what
    /// it is given, and no sleep ends.
    pub fn shut_down(&self) {
        let tasks = {
            let mut state = self.lock();
            state.shut_down = true;
            state.timers.clear();
            std::mem::take(&mut state.tasks)
        };
        // Outside of the lock: what is dropped here may call back. As a real runtime does, one
        // whose destructor panics leaves the others unharmed.
        for (_, task) in tasks {
            let _ = catch_unwind(AssertUnwindSafe(|| drop(task)));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.lock()
    }

    fn waker(&self, ready: Ready) -> Arc<TaskWaker> {
        let shared = Arc::downgrade(&self.shared);
        Arc::new(TaskWaker {
            shared,
            ready,
            queued: AtomicBool::new(false),
        })
    }

    fn next_ready(&self) -> Option<Ready> {
        let mut state = self.lock();
        if state.ready.is_empty() {
            return None;
        }
        state.polls += 1;
        assert!(
            state.polls < MAX_POLLS,
            "livelock: {MAX_POLLS} polls and no end (seed {})",
            self.shared.seed
        );
        let count = state.ready.len();
        let pick = state.rng.usize(0..count);
        Some(state.ready.swap_remove(pick))
    }

    fn poll_task(&self, index: usize, id: u64) {
        let mut state = self.lock();
        let Some(task) = state.tasks.get_mut(index).filter(|task| task.id == id) else {
            return;
        };
        let Some(mut future) = task.future.take() else {
            task.woken = true;
            return;
        };
        let waker = Arc::clone(&task.waker);
        drop(state);

        waker.queued.store(false, Ordering::Release);
        let waker = Waker::from(waker);
        let polled = catch_unwind(AssertUnwindSafe(|| {
            // A handler that blocks lets other tasks run inside of its own poll.
            let _none = current::enter(None);
            future.as_mut().poll(&mut Context::from_waker(&waker))
        }));
        let mut state = self.lock();
        let finished = match polled {
            Ok(Poll::Pending) if !state.shut_down => {
                let task = &mut state.tasks[index];
                task.future = Some(future);
                if std::mem::take(&mut task.woken) {
                    let again = task.waker.ready;
                    state.ready.push(again);
                }
                return;
            }
            Ok(Poll::Pending) => None,
            // Nothing is there if the task has shut its runtime down.
            Ok(Poll::Ready(())) => state.tasks.try_remove(index),
            Err(_) => {
                state.panics += 1;
                state.tasks.try_remove(index)
            }
        };
        drop(state);
        drop(future);
        drop(finished);
    }

    fn advance_to_next_timer(&self) -> bool {
        let mut due = Vec::new();
        {
            let mut state = self.lock();
            let Some((&(at, _), _)) = state.timers.first_key_value() else {
                return false;
            };
            state.now = state.now.max(at);
            while let Some(entry) = state.timers.first_entry()
                && entry.key().0 <= at
            {
                due.push(entry.remove());
            }
        }
        // The order in which they run is drawn when they are ready.
        for waker in due {
            waker.wake();
        }
        true
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Runtime for SimRuntime {
    fn spawn(&self, task: BoxFuture<'static>) {
        let mut state = self.lock();
        if state.shut_down {
            drop(state);
            drop(task);
            return;
        }
        let id = state.next_id;
        state.next_id += 1;
        let index = state.tasks.vacant_key();
        let waker = self.waker(Ready::Task { index, id });
        state.tasks.insert(Task {
            id,
            future: Some(task),
            woken: false,
            waker: Arc::clone(&waker),
        });
        drop(state);
        waker.wake();
    }

    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static> {
        Box::pin(Sleep {
            sim: self.clone(),
            deadline,
            id: None,
        })
    }

    fn now(&self) -> Instant {
        self.lock().now
    }

    fn entropy(&self) -> u64 {
        self.lock().rng.u64(..)
    }
}

impl fmt::Debug for SimRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimRuntime")
            .field("seed", &self.shared.seed)
            .field("elapsed", &self.elapsed())
            .field("tasks", &self.tasks())
            .finish_non_exhaustive()
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel)
            && let Some(shared) = self.shared.upgrade()
        {
            shared.lock().ready.push(self.ready);
        }
    }
}

struct Sleep {
    sim: SimRuntime,
    deadline: Instant,
    id: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let sim = self.sim.clone();
        let mut state = sim.lock();
        if state.now >= self.deadline {
            return Poll::Ready(());
        }
        if !state.shut_down {
            let id = *self.id.get_or_insert_with(|| {
                state.next_id += 1;
                state.next_id
            });
            let replaced = state.timers.insert((self.deadline, id), cx.waker().clone());
            drop(state);
            drop(replaced);
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let waker = self.sim.lock().timers.remove(&(self.deadline, id));
            drop(waker);
        }
    }
}

/// Runs `test` once for each of `count` seeds; names the seed if it panics.
///
/// The environment variable `RUNNER_SEEDS` sets another count, `RUNNER_SEED` repeats one seed.
///
/// # Panics
///
/// If `test` panics.
pub fn for_each_seed(count: u64, mut test: impl FnMut(SimRuntime)) {
    let number = |name| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    let seeds = match number("RUNNER_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("RUNNER_SEEDS").unwrap_or(count),
    };
    for seed in seeds {
        let result = catch_unwind(AssertUnwindSafe(|| test(SimRuntime::new(seed))));
        if let Err(panic) = result {
            eprintln!("failed with seed {seed}; repeat with RUNNER_SEED={seed}");
            resume_unwind(panic);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;
    use crate::RuntimeExt;

    const SECOND: Duration = Duration::from_secs(1);

    /// A real executor runs a task again that was woken on another thread while it was polled.
    #[test]
    fn a_wake_up_during_a_poll_that_lets_time_pass_is_not_lost() {
        let sim = SimRuntime::new(1);
        let clock = sim.clone();
        sim.spawn(Box::pin(async move {
            let mut sleep = clock.sleep(SECOND);
            let mut polls = 0;
            poll_fn(|cx| {
                polls += 1;
                if sleep.as_mut().poll(cx).is_pending() {
                    clock.advance(5 * SECOND);
                    return Poll::Pending;
                }
                Poll::Ready(())
            })
            .await;
            assert_eq!(polls, 2);
        }));
        sim.run_until_idle();
        assert_eq!((sim.tasks(), sim.panics()), (0, 0));
    }

    #[test]
    fn a_task_may_shut_its_own_runtime_down() {
        for panics in [false, true] {
            let sim = SimRuntime::new(1);
            let own = sim.clone();
            sim.spawn(Box::pin(async move {
                own.shut_down();
                assert!(!panics, "after the end");
            }));
            sim.run_until_idle();
            assert_eq!((sim.tasks(), sim.panics()), (0, usize::from(panics)));
        }
    }
}
