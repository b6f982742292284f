//! tokio as a [`Runtime`]: [`Tokio`].

use std::{
    fmt,
    future::{pending, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Instant,
};

use runner_core::{BoxFuture, Runtime};
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    task::AbortHandle,
    time::{Instant as TokioInstant, sleep_until},
};

/// A tokio runtime that exists already, multi-threaded or not.
///
/// Holds a handle: it neither owns the runtime nor keeps it alive. Cheap to clone.
///
/// Its clock is tokio's, so tests with `start_paused` run in no time.
///
/// ```
/// use std::{convert::Infallible, num::NonZeroUsize, sync::Arc};
/// use runner_core::{Delivery, Runner, UpdateSupplier};
/// use runner_tokio::Tokio;
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
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let runtime = Arc::new(Tokio::current());
/// let handle = Runner::for_each(runtime, Ticks(0), async |_: Delivery<u64>| {}).start();
/// let report = handle.stop().await.expect("nothing failed");
/// assert_eq!(report.counters.finished, report.counters.supplied);
/// # });
/// ```
#[derive(Clone)]
pub struct Tokio {
    handle: Handle,
    /// Whether its clock may be paused.
    pausable: bool,
    shutdown: Arc<Shutdown>,
}

impl Tokio {
    /// The runtime that the caller runs on.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime. There, use [`new`](Self::new).
    #[must_use]
    #[track_caller]
    pub fn current() -> Self {
        Self::new(Handle::current())
    }

    /// The runtime of `handle`.
    ///
    /// It must have been built with timers (`enable_time` or `enable_all`): tokio panics at the
    /// first sleep otherwise.
    #[must_use]
    pub fn new(handle: Handle) -> Self {
        let shutdown = Shutdown::watch(&handle);
        Self {
            // The others cannot be: `tokio::time::pause` panics there.
            pausable: handle.runtime_flavor() == RuntimeFlavor::CurrentThread,
            handle,
            shutdown: Arc::new(shutdown),
        }
    }
}

impl Runtime for Tokio {
    fn spawn(&self, task: BoxFuture<'static>) {
        // Dropping the join handle detaches. After a shutdown, tokio drops the task right here.
        drop(self.handle.spawn(task));
    }

    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static> {
        let this = self.clone();
        Box::pin(async move {
            // tokio would first ask the driver, which only looks up when it next parks.
            if this.now() >= deadline {
                return;
            }
            // A sleep panics when it is polled after the shutdown, and is woken by the shutdown for
            // that very purpose. Tasks are dropped before the timers, so that the flag is up by
            // then.
            if this.shutdown.is_over() {
                return pending().await;
            }
            let sleep = {
                let _context = this.handle.enter();
                sleep_until(TokioInstant::from_std(deadline))
            };
            let mut sleep = pin!(sleep);
            poll_fn(|cx| {
                if this.shutdown.is_over() {
                    return Poll::Pending;
                }
                // Except for a poll by another thread right at the shutdown, between the look at
                // the flag and the poll. After that panic the sleep is never polled again.
                match catch_unwind(AssertUnwindSafe(|| sleep.as_mut().poll(cx))) {
                    Ok(polled) => polled,
                    Err(_) if this.shutdown.is_over() => Poll::Pending,
                    Err(panic) => resume_unwind(panic),
                }
            })
            .await;
        })
    }

    fn now(&self) -> Instant {
        if !self.pausable {
            return Instant::now();
        }
        // A paused clock belongs to one runtime, found through the context.
        let _context = self.handle.enter();
        TokioInstant::now().into_std()
    }
}

impl fmt::Debug for Tokio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokio")
            .field("runtime", &self.handle.id())
            .field("flavor", &self.handle.runtime_flavor())
            .field("shut_down", &self.shutdown.is_over())
            .finish()
    }
}

/// Knows whether a runtime has been shut down, which tokio does not tell.
struct Shutdown {
    over: Arc<AtomicBool>,
    watcher: AbortHandle,
}

impl Shutdown {
    /// Starts a task that does nothing but to be dropped with the runtime.
    fn watch(handle: &Handle) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let flag = Raise(Arc::clone(&over));
        let watcher = handle.spawn(async move {
            let _flag = flag;
            pending::<()>().await;
        });
        Self {
            over,
            watcher: watcher.abort_handle(),
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }
}

impl Drop for Shutdown {
    fn drop(&mut self) {
        // Nobody can ask any more.
        self.watcher.abort();
    }
}

struct Raise(Arc<AtomicBool>);

impl Drop for Raise {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
