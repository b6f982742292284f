//! Which run the code on this thread belongs to: a handler must not wait for the end of its own run.

use std::{
    cell::Cell,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;

use crate::sync::thread_local;

thread_local! {
    static CURRENT: Cell<Option<RunId>> = const { Cell::new(None) };
}

/// Names a run for as long as its sink is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RunId(usize);

impl RunId {
    /// The run of this sink.
    pub(crate) fn of<S>(sink: &Arc<S>) -> Self {
        Self(Arc::as_ptr(sink).addr())
    }

    /// The run whose handler, policy or sink is being polled on this thread.
    pub(crate) fn current() -> Option<Self> {
        CURRENT.with(Cell::get)
    }
}

/// Until it is dropped, the code on this thread belongs to `run`.
pub(crate) fn enter(run: Option<RunId>) -> Entered {
    Entered {
        before: CURRENT.with(|current| current.replace(run)),
    }
}

/// Ends with what was there before: a poll may happen inside of another one.
pub(crate) struct Entered {
    before: Option<RunId>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.with(|current| current.set(self.before));
    }
}

pin_project! {
    /// A task that belongs to a run.
    pub(crate) struct Inside<F> {
        run: Option<RunId>,
        #[pin]
        task: F,
    }
}

/// Makes `task` a part of `run`.
pub(crate) fn inside<F>(run: Option<RunId>, task: F) -> Inside<F> {
    Inside { run, task }
}

impl<F: Future> Future for Inside<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _entered = enter(*this.run);
        this.task.poll(cx)
    }
}
