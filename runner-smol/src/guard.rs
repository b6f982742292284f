//! Keeps the panic of a task away from the thread that runs it: [`Guarded`].

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
};

use runner_core::BoxFuture;

/// A task that ends when it panics. async-executor would pass the panic on to the thread, and the
/// thread would run no more tasks.
pub(crate) struct Guarded(Option<BoxFuture<'static>>);

impl Guarded {
    pub(crate) fn new(task: BoxFuture<'static>) -> Self {
        Self(Some(task))
    }
}

impl Future for Guarded {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(task) = &mut self.0 else {
            return Poll::Ready(());
        };
        let polled = contained(|| task.as_mut().poll(cx));
        if let Some(Poll::Pending) = polled {
            return Poll::Pending;
        }
        let task = self.0.take();
        contained(|| drop(task));
        Poll::Ready(())
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let task = self.0.take();
        contained(|| drop(task));
    }
}

/// `None` if `code` panics; the panic hook has printed it by then.
fn contained<T>(code: impl FnOnce() -> T) -> Option<T> {
    // What `code` touches is dropped and never looked at again once it has panicked.
    let panic = match catch_unwind(AssertUnwindSafe(code)) {
        Ok(value) => return Some(value),
        Err(panic) => panic,
    };
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        // A payload that panics in turn when it is dropped: enough.
        std::mem::forget(again);
    }
    None
}

#[cfg(test)]
mod tests {
    use std::{
        panic::{panic_any, resume_unwind},
        task::Waker,
    };

    use super::*;

    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            resume_unwind(Box::new("dropped"));
        }
    }

    fn poll(guarded: &mut Guarded) -> Poll<()> {
        Pin::new(guarded).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_panic_ends_the_task_and_nothing_else() {
        let mut guarded = Guarded::new(Box::pin(async { resume_unwind(Box::new("polled")) }));
        assert_eq!(poll(&mut guarded), Poll::Ready(()));

        let bomb = Bomb;
        let mut guarded = Guarded::new(Box::pin(async move {
            let _bomb = bomb;
            std::future::pending::<()>().await;
        }));
        assert_eq!(poll(&mut guarded), Poll::Pending);
        drop(guarded);
        drop(Guarded::new(Box::pin(async {
            let _bomb = Bomb;
        })));
    }

    #[test]
    fn a_payload_that_panics_is_contained() {
        let mut guarded = Guarded::new(Box::pin(async { panic_any(Bomb) }));
        assert_eq!(poll(&mut guarded), Poll::Ready(()));
    }
}
