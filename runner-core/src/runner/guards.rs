//! What happens when a run, a runner or its task is dropped.

use std::sync::Arc;

use super::{
    EndReason, Report, RunError,
    control::{Control, Driver, Unclosed},
    run::{RunStart, completed_prefix, report},
};
use crate::{queue::QueueShared, trace::warn};

/// What a run ends with when its future is dropped.
pub(super) type CutShort<U> = fn(Box<Report<U>>) -> RunError<U>;

/// Ends a run whose future is dropped.
pub(super) struct RunGuard<'a, U: Send + Sync + 'static> {
    pub(super) control: &'a Control<U>,
    pub(super) queue: &'a Arc<QueueShared<U>>,
    pub(super) began: RunStart,
    pub(super) cut_short: CutShort<U>,
    pub(super) armed: bool,
}

impl<U: Send + Sync + 'static> Drop for RunGuard<'_, U> {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        self.queue.abandon();
        self.queue.give_up();
        // The supplier cannot be closed here; the next run closes it first. If the run before is not
        // closed either, this one has fetched nothing.
        let prefix = completed_prefix(self.queue);
        let attempted = self.queue.attempted();
        let mut state = self.control.lock();
        state.unclosed.get_or_insert(Unclosed { prefix, attempted });
        if state.driver != Driver::User {
            // The task is being dropped. Callers who learn of the end below must not be able to start
            // another run on it.
            state.driver = Driver::Gone;
        }
        drop(state);
        let unfinished = self.queue.take_abandoned();
        let failed = EndReason::Failed;
        let report = report(
            self.control,
            self.queue,
            failed,
            self.began,
            unfinished,
            None,
        );
        warn!(report = %report, "run cut short");
        self.control.finish(Err((self.cut_short)(Box::new(report))));
    }
}

/// Ends the wait of callers who already await the first run of a runner that is dropped unstarted.
pub(super) struct UnstartedGuard<U: Send + Sync + 'static>(pub(super) Arc<Control<U>>);

impl<U: Send + Sync + 'static> Drop for UnstartedGuard<U> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        // A task has a guard of its own, and so has a run that is under way.
        let is_driven_by_user = state.driver == Driver::User;
        let is_unstarted = is_driven_by_user && state.end.get().is_none();
        if is_driven_by_user {
            state.driver = Driver::Gone;
        }
        drop(state);
        if is_unstarted {
            let report = Box::new(Report::empty());
            self.0.finish(Err(RunError::Dropped { report }));
        }
    }
}

/// Marks the task of a started runner as ended.
pub(super) struct TaskGuard<U: Send + Sync + 'static>(pub(super) Arc<Control<U>>);

impl<U: Send + Sync + 'static> Drop for TaskGuard<U> {
    fn drop(&mut self) {
        let never_ran = self.0.change(|state| {
            state.driver = Driver::Gone;
            state.end.get().is_none()
        });
        if never_ran {
            // The runtime dropped the task before its first poll, or before a restart.
            let report = Box::new(Report::empty());
            self.0.finish(Err(RunError::RuntimeGone { report }));
        }
    }
}
