//! Runs that end at a signal: [`Runner::run_until`].

use std::{
    future::{pending, poll_fn},
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::Stream;

use super::{Report, RunError, Runner, outage};
use crate::{UpdateConsumer, UpdateSupplier, trace::info};

impl<S: UpdateSupplier, C: UpdateConsumer<S::Update>> Runner<S, C> {
    /// How long the stop that [`run_until`](Self::run_until) makes may take. After that, the handlers that
    /// are left are cancelled, as [`stop_within`](crate::RunnerHandle::stop_within) does. Default: no limit,
    /// it waits for the slowest handler.
    ///
    /// The limits of [`timeout`](crate::SinkOptions::timeout) and of a stop by a handle hold as well, and the
    /// earliest counts.
    #[must_use]
    pub fn stop_timeout(mut self, limit: Duration) -> Self {
        self.stop_timeout = Some(limit);
        self
    }

    /// Lets [`run_until`](Self::run_until) say on stderr that updates cannot be fetched, if the process has no
    /// subscriber of `tracing` that logs it.
    ///
    /// One line once there was no answer for 5 s after a failure, one when updates are fetched again, and one at
    /// the end if the last call has failed. For a bot that is a process of its own; `run` of the runtime crates
    /// does this. Default: off.
    #[must_use]
    pub fn warn_on_stderr(mut self) -> Self {
        self.warn_on_stderr = true;
        self
    }

    /// As [`run`](Self::run), and stops at the first item of `stops`: gracefully, as
    /// [`RunnerHandle::stop`](crate::RunnerHandle::stop) does, or within the
    /// [`stop_timeout`](Self::stop_timeout). The second item cancels what is left, as
    /// [`stop_within(ZERO)`](crate::RunnerHandle::stop_within) does.
    ///
    /// Made for the signals that end a process: people press Ctrl-C once more when the first one
    /// takes too long. Further items and the end of the stream are ignored.
    ///
    /// ```
    /// # #[cfg(feature = "test-util")] {
    /// use std::{sync::Arc, time::Duration};
    /// use futures::{StreamExt, stream};
    /// use runner_core::{Delivery, Runner, RuntimeExt};
    /// use runner_core::testing::{ScriptedSupplier, SimRuntime};
    ///
    /// let sim = SimRuntime::new(1);
    /// let supplier = ScriptedSupplier::new(&sim).batch(0..9);
    /// let mut runner = Runner::for_each(Arc::new(sim.clone()), supplier, async |_: Delivery<u8>| {});
    /// let after_a_minute = stream::once(sim.sleep(Duration::from_secs(60)));
    /// let report = sim.block_on(runner.run_until(after_a_minute)).expect("nothing failed");
    /// assert_eq!(report.counters.finished, 9);
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run). A stop is none.
    ///
    /// # Cancel safety
    ///
    /// As [`run`](Self::run): dropping the future cancels the run.
    pub async fn run_until(
        &mut self,
        stops: impl Stream + Send,
    ) -> Result<Report<S::Update>, RunError<S::Update>> {
        let handle = self.handle();
        let limit = self.stop_timeout;
        let control = self.warn_on_stderr.then(|| Arc::clone(&self.control));
        let mut watching = pin!(async {
            match &control {
                Some(control) => outage::watch(control).await,
                None => pending().await,
            }
        });
        let mut stops = pin!(stops);
        let mut run = pin!(self.run());
        let mut signals = 0;
        let mut ended = false;
        let mut next_signal = |cx: &mut Context<'_>| {
            let next = match ended {
                true => Poll::Pending,
                false => stops.as_mut().poll_next(cx),
            };
            ended |= matches!(next, Poll::Ready(None));
            matches!(next, Poll::Ready(Some(_)))
        };
        let result = poll_fn(|cx| {
            // Before the first poll there is no run to stop.
            if let Poll::Ready(result) = run.as_mut().poll(cx) {
                return Poll::Ready(result);
            }
            let _: Poll<()> = watching.as_mut().poll(cx);
            while signals < 2 && next_signal(cx) {
                signals += 1;
                if signals == 1 {
                    info!(
                        limit = ?limit,
                        "shutdown requested, draining; send the signal again to abort"
                    );
                    drop(limit.map_or_else(|| handle.stop(), |limit| handle.stop_within(limit)));
                } else {
                    info!("second signal, aborting");
                    drop(handle.stop_within(Duration::ZERO));
                }
            }
            // A stop wakes this task.
            Poll::Pending
        })
        .await;
        if let (Some(control), Ok(report)) = (&control, &result) {
            outage::end(control, report);
        }
        result
    }
}
