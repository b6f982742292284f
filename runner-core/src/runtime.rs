//! What the core needs from an async runtime: start a task, sleep, tell the time.
//!
//! No sockets, no blocking, no join handles: dropping a join handle detaches on one runtime and
//! cancels on another, so completion, cancellation and panics are the core's work, done once.

use std::{
    collections::hash_map::RandomState,
    fmt,
    future::poll_fn,
    hash::{BuildHasher, Hasher},
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

/// An owned future that may move between threads.
pub type BoxFuture<'a, T = ()> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Starts tasks and tells the time.
///
/// Implement it to run the pipeline on a runtime of your own; `runner-tokio` and `runner-smol`
/// implement it for theirs. It is used as `Arc<dyn Runtime>`, so no public type carries a runtime
/// parameter. `runner_core::testing::conformance` checks an implementation.
///
/// # Contract
///
/// - All four methods may be called from any thread, inside or outside of the runtime.
/// - A task that panics harms no other task.
/// - Nothing is guessed from the ambient context: an implementation holds what it needs.
/// - When the runtime has been shut down, `spawn` drops the task; it neither blocks nor panics.
pub trait Runtime: fmt::Debug + Send + Sync + 'static {
    /// Runs `task` to completion in the background.
    fn spawn(&self, task: BoxFuture<'static>);

    /// Resolves at `deadline`, measured on the clock of [`now`](Self::now); never early.
    ///
    /// A deadline in the past resolves at the first poll.
    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static>;

    /// The current time.
    ///
    /// Required rather than provided, so that a paused or simulated clock is never half in use.
    fn now(&self) -> Instant;

    /// A random number, for jitter and for hashing.
    ///
    /// It need not be cryptographically strong. A simulated runtime answers from its seed, so that
    /// a run can be repeated exactly.
    fn entropy(&self) -> u64 {
        RandomState::new().build_hasher().finish()
    }
}

impl<R: Runtime + ?Sized> Runtime for Arc<R> {
    fn spawn(&self, task: BoxFuture<'static>) {
        (**self).spawn(task);
    }

    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static> {
        (**self).sleep_until(deadline)
    }

    fn now(&self) -> Instant {
        (**self).now()
    }

    fn entropy(&self) -> u64 {
        (**self).entropy()
    }
}

/// Conveniences on top of [`Runtime`].
pub trait RuntimeExt: Runtime {
    /// Resolves `delay` from now; never, if that is beyond what the clock can express.
    fn sleep(&self, delay: Duration) -> BoxFuture<'static> {
        match self.now().checked_add(delay) {
            Some(deadline) => self.sleep_until(deadline),
            None => Box::pin(std::future::pending()),
        }
    }

    /// Runs `future` until `delay` is over; `None` if it was not ready by then.
    ///
    /// A future that is ready at its first poll never touches the timer. On timeout the future is
    /// dropped.
    ///
    /// # Cancel safety
    ///
    /// As cancel-safe as `future` itself.
    fn timeout<F>(
        &self,
        delay: Duration,
        future: F,
    ) -> impl Future<Output = Option<F::Output>> + Send
    where
        F: Future<Output: Send> + Send,
    {
        async move {
            let mut future = pin!(future);
            let mut sleep = None;
            poll_fn(|cx| {
                if let Poll::Ready(output) = future.as_mut().poll(cx) {
                    return Poll::Ready(Some(output));
                }
                let sleep = sleep.get_or_insert_with(|| self.sleep(delay));
                sleep.as_mut().poll(cx).map(|()| None)
            })
            .await
        }
    }
}

impl<R: Runtime + ?Sized> RuntimeExt for R {}

/// Lets other tasks run.
pub(crate) async fn yield_now() {
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
