//! async-executor and async-io as a [`Runtime`]: [`Smol`].

use std::{
    fmt, io,
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use async_executor::Executor;
use async_io::{Timer, block_on};
use futures::{FutureExt, channel::oneshot, future::Shared};
use runner_core::{BoxFuture, Runtime};

use crate::guard::Guarded;

/// An [`Executor`] with threads of its own, or one that exists already. Cheap to clone.
///
/// Timers are those of async-io, so anything from the smol family works beside it.
///
/// ```
/// use std::{convert::Infallible, num::NonZeroUsize, sync::Arc};
/// use runner_core::{Delivery, Runner, UpdateSupplier};
/// use runner_smol::Smol;
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
/// let runtime = Arc::new(Smol::new());
/// let handle = Runner::for_each(runtime, Ticks(0), async |_: Delivery<u64>| {}).start();
/// let report = async_io::block_on(handle.stop()).expect("nothing failed");
/// assert_eq!(report.counters.finished, report.counters.supplied);
/// ```
#[derive(Clone)]
pub struct Smol {
    // The tasks hold clones of this. If it kept the executor alive, no executor with a task would
    // ever be dropped.
    executor: Weak<Executor<'static>>,
    threads: Option<Arc<Threads>>,
}

impl Smol {
    /// As many threads as the machine can run at once.
    ///
    /// # Panics
    ///
    /// If the system cannot start the threads, as [`std::thread::spawn`] does.
    #[must_use]
    pub fn new() -> Self {
        Self::with_threads(default_threads())
    }

    /// So many threads. One is enough for handlers that only wait.
    ///
    /// # Panics
    ///
    /// If the system cannot start the threads, as [`std::thread::spawn`] does.
    #[must_use]
    pub fn with_threads(threads: NonZeroUsize) -> Self {
        Self::try_with_threads(threads).expect("the system starts a thread")
    }

    /// As [`with_threads`](Self::with_threads), but hands the failure back.
    ///
    /// # Errors
    ///
    /// What the system said when it could not start one of the threads.
    pub fn try_with_threads(threads: NonZeroUsize) -> io::Result<Self> {
        let executor = Arc::new(Executor::new());
        let (stop, stopped) = oneshot::channel();
        let (running, ended) = mpsc::channel();
        let threads_of_this = Arc::new(Threads {
            stopped: AtomicBool::new(false),
            stop: Mutex::new(Some(stop)),
            ended: Mutex::new(ended),
            count: threads,
        });
        let stopped = stopped.map(drop).shared();
        for index in 0..threads.get() {
            let (executor, running) = (Arc::clone(&executor), running.clone());
            let stopped = stopped.clone();
            // When one fails, `threads_of_this` is dropped and ends those that came before.
            thread::Builder::new()
                .name(format!("runner-smol-{index}"))
                .spawn(move || work(executor, stopped, running))?;
        }
        Ok(Self {
            executor: Arc::downgrade(&executor),
            threads: Some(threads_of_this),
        })
    }

    /// An executor that the user runs, on threads of the user.
    ///
    /// Holds it weakly: the tasks of a runner do not keep the executor alive. Drop the executor to
    /// shut this runtime down.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use async_executor::Executor;
    /// use runner_smol::Smol;
    ///
    /// let executor = Arc::new(Executor::new());
    /// let runtime = Arc::new(Smol::on(&executor));
    /// async_io::block_on(executor.run(async {
    ///     // bot.into_runner(runtime).start()
    /// # drop(runtime);
    /// }));
    /// ```
    #[must_use]
    pub fn on(executor: &Arc<Executor<'static>>) -> Self {
        Self {
            executor: Arc::downgrade(executor),
            threads: None,
        }
    }

    /// Ends the threads and drops all tasks. Returns at once: a thread ends when the task at hand
    /// next waits, and the last one drops the tasks.
    ///
    /// The same happens when the last clone is dropped, but a runner that is at work holds one. No
    /// effect on an executor of the user.
    pub fn shut_down(&self) {
        if let Some(threads) = &self.threads {
            threads.stop();
        }
    }

    /// Waits until all threads have ended, but not for long: one may be stuck in a handler.
    ///
    /// To be called after [`shut_down`](Self::shut_down), on a thread that is none of them.
    pub(crate) fn wait_for_threads(&self, limit: Duration) {
        let Some(threads) = &self.threads else {
            return;
        };
        let ended = threads.ended.lock();
        // Nothing is ever sent: the channel closes when the last thread drops its end.
        let _ = ended
            .unwrap_or_else(PoisonError::into_inner)
            .recv_timeout(limit);
    }

    fn is_shut_down(&self) -> bool {
        let mut threads = self.threads.iter();
        threads.any(|threads| threads.stopped.load(Ordering::Acquire))
            || self.executor.strong_count() == 0
    }
}

impl Default for Smol {
    fn default() -> Self {
        Self::new()
    }
}

impl Runtime for Smol {
    fn spawn(&self, task: BoxFuture<'static>) {
        // Guarded from here on: whoever drops it may not be the one that has to bear its panic.
        let task = Guarded::new(task);
        if self.is_shut_down() {
            return;
        }
        if let Some(executor) = self.executor.upgrade() {
            // If the shutdown comes between the two, the executor drops the task.
            executor.spawn(task).detach();
        }
    }

    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static> {
        // async-io has one thread for the timers of the process; they survive every shutdown.
        Box::pin(async move {
            Timer::at(deadline).await;
        })
    }

    fn now(&self) -> Instant {
        Instant::now()
    }
}

impl fmt::Debug for Smol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let threads = self.threads.as_ref().map(|threads| threads.count);
        f.debug_struct("Smol")
            .field("threads", &threads)
            .field("shut_down", &self.is_shut_down())
            .finish()
    }
}

/// The threads of a [`Smol`]. They end when this is dropped.
struct Threads {
    stopped: AtomicBool,
    stop: Mutex<Option<oneshot::Sender<()>>>,
    ended: Mutex<mpsc::Receiver<()>>,
    count: NonZeroUsize,
}

impl Threads {
    fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        let stop = self.stop.lock();
        // Dropping it is the signal.
        drop(stop.unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl Drop for Threads {
    // Waits for nobody: this may be one of the threads, and another may be stuck in a handler.
    fn drop(&mut self) {
        self.stop();
    }
}

/// Runs tasks on this thread until `stopped`.
fn work(
    executor: Arc<Executor<'static>>,
    stopped: Shared<impl Future<Output = ()>>,
    running: mpsc::Sender<()>,
) {
    block_on(executor.run(stopped));
    // The last thread drops the tasks here, before it reports its end.
    drop(executor);
    drop(running);
}

pub(crate) fn default_threads() -> NonZeroUsize {
    thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}
