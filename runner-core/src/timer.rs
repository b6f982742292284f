//! One timer for many deadlines: [`ResettableTimer`].

use std::{
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Instant,
};

use crate::{BoxFuture, Runtime};

/// Fires at a deadline that usually moves before it comes.
///
/// On most runtimes, setting a timer wakes the thread that watches timers, which costs more than a poll
/// that is answered at once. So a timer that is set stays set: if it fires before the current deadline,
/// it is set again.
#[derive(Default)]
pub(crate) struct ResettableTimer(Mutex<Option<(Instant, BoxFuture<'static>)>>);

impl ResettableTimer {
    /// Ready at `deadline`. Each call may name another one; the last call counts.
    pub(crate) fn poll(
        &mut self,
        deadline: Instant,
        runtime: &Arc<dyn Runtime>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        // The mutex only makes this `Sync`; nobody else can hold it.
        let set = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        loop {
            let sleep = match set {
                Some((at, sleep)) if *at <= deadline => sleep,
                _ => &mut set.insert((deadline, runtime.sleep_until(deadline))).1,
            };
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if let Some((at, _)) = set.take()
                && at >= deadline
            {
                return Poll::Ready(());
            }
        }
    }
}

#[cfg(all(test, feature = "test-util"))]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use super::*;
    use crate::testing::SimRuntime;

    #[test]
    fn it_fires_at_the_deadline_of_the_last_poll() {
        let sim = SimRuntime::new(1);
        let runtime: Arc<dyn Runtime> = Arc::new(sim.clone());
        let second = Duration::from_secs(1);
        sim.block_on(async {
            let began = runtime.now();
            let mut timer = ResettableTimer::default();
            for (asked, deadline) in [(5, 9), (9, 9), (12, 10)] {
                // Polled once with the first deadline, as by a call that is answered before it.
                poll_fn(|cx| {
                    assert!(
                        timer
                            .poll(runtime.now() + asked * second, &runtime, cx)
                            .is_pending()
                    );
                    Poll::Ready(())
                })
                .await;
                let deadline = runtime.now() + deadline * second;
                poll_fn(|cx| timer.poll(deadline, &runtime, cx)).await;
                assert_eq!(runtime.now(), deadline);
            }
            assert_eq!(runtime.now() - began, 28 * second);
        });
    }
}
