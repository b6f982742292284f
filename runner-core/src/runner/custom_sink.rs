//! Opens, flushes and closes a sink of the user's in the course of a run.

use std::{
    future::{pending, poll_fn},
    pin::pin,
    sync::Arc,
};

use futures::future::select;

use super::{
    control::RunPhase,
    run::{GRACE, RunContext},
};
use crate::{RuntimeExt, sink::Gathering};

impl<U: Send + Sync + 'static> RunContext<'_, U> {
    /// Never ends; closes the sink when it is dropped.
    ///
    /// Polled before the run itself, so that nothing is handed over after the limit of a stop.
    pub(super) async fn drive_custom_sink(self, gathering: Option<&Arc<dyn Gathering>>) {
        if let Some(gathering) = gathering {
            gathering.open(Arc::clone(self.queue) as _);
            let close = CloseOnDrop(&**gathering);
            self.control
                .wait_until(|state| (state.phase == RunPhase::Stopping).then_some(()))
                .await;
            gathering.flush();
            self.wait_for_stop_deadline(|deadline| deadline).await;
            drop(close);
        }
        pending().await
    }

    /// Waits until a call of the sink whose updates were abandoned has been dropped, so that nothing of
    /// it happens after the report. Not for long, because the call may block its thread.
    pub(super) async fn wait_for_cancelled_call(self, gathering: Option<&Arc<dyn Gathering>>) {
        if let Some(gathering) = gathering {
            let dropped = pin!(poll_fn(|cx| gathering.poll_idle(cx)));
            select(dropped, self.control.runtime.sleep(GRACE / 2)).await;
        }
    }
}

struct CloseOnDrop<'a>(&'a dyn Gathering);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}
