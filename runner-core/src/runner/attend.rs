//! What a run owes a sink of the user's: it is told of the beginning, the stop and the end.

use std::{
    future::{pending, poll_fn},
    pin::pin,
    sync::Arc,
};

use futures::future::select;

use super::{GRACE, Shared, control::RunPhase};
use crate::{RuntimeExt, update_sink::Gathering};

impl<U: Send + Sync + 'static> Shared<'_, U> {
    /// Never ends; closes the sink when it is dropped.
    ///
    /// Polled before the run itself, so that nothing is handed over after the limit of a stop.
    pub(super) async fn attend(self, gathering: Option<&Arc<dyn Gathering>>) {
        if let Some(gathering) = gathering {
            gathering.open(Arc::clone(self.sink) as _);
            let close = Close(&**gathering);
            self.control
                .until(|state| (state.phase == RunPhase::Stopping).then_some(()))
                .await;
            gathering.flush();
            self.until_stop_by(|stop_by| stop_by).await;
            drop(close);
        }
        pending().await
    }

    /// Waits until a call of the sink whose updates were abandoned is dropped, so that the report says
    /// the last word; not for long, because the call may block its thread.
    pub(super) async fn calm(self, gathering: Option<&Arc<dyn Gathering>>) {
        if let Some(gathering) = gathering {
            let idle = pin!(poll_fn(|cx| gathering.poll_idle(cx)));
            select(idle, self.control.runtime.sleep(GRACE / 2)).await;
        }
    }
}

struct Close<'a>(&'a dyn Gathering);

impl Drop for Close<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}
