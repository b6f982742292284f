//! One future of the supplier, with its panics contained.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;

use crate::panics::guarded;

pin_project! {
    /// Polls a future of the user; a panic becomes its text.
    pub(super) struct Guarded<F> {
        #[pin]
        future: Option<F>,
    }

    impl<F> PinnedDrop for Guarded<F> {
        fn drop(this: Pin<&mut Self>) {
            // A call is dropped to stop; a panic in a destructor must not prevent that.
            let mut future = this.project().future;
            let _ = guarded(|| future.set(None));
        }
    }
}

impl<F: Future> Guarded<F> {
    pub(super) fn new(future: F) -> Self {
        Self {
            future: Some(future),
        }
    }
}

impl<F: Future> Future for Guarded<F> {
    type Output = Result<F::Output, Arc<str>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut future = self.project().future;
        let current = future
            .as_mut()
            .as_pin_mut()
            .expect("not polled again after its end");
        match guarded(|| current.poll(cx)) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, pin::pin, task::Waker};

    use super::*;

    fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_panic_while_polled_becomes_its_text() {
        let future = pin!(Guarded::new(poll_fn(|_| -> Poll<()> { panic!("in poll") })));
        assert_eq!(poll(future), Poll::Ready(Err("in poll".into())));
    }

    #[test]
    fn a_panic_while_dropped_is_swallowed() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("in drop");
            }
        }
        let mut future = Box::pin(Guarded::new(async {
            let _bomb = Bomb;
            std::future::pending::<()>().await;
        }));
        assert!(poll(future.as_mut()).is_pending());
        drop(future);
    }
}
