//! One timer for the deadlines of many calls.

use std::{
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Instant,
};

use crate::{BoxFuture, Runtime};

/// Fires at a deadline that is moved on again and again before it comes.
///
/// Setting a timer wakes the thread that watches timers on most runtimes, which costs more than a poll
/// that is answered at once. So one that is set stays: if it fires before the deadline, it is set again.
#[derive(Default)]
pub(super) struct Alarm(Mutex<Option<(Instant, BoxFuture<'static>)>>);

impl Alarm {
    /// Ready at the deadline.
    pub(super) fn poll(
        &mut self,
        deadline: Instant,
        runtime: &Arc<dyn Runtime>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        // For `Sync` alone: there is nobody else.
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
    fn it_fires_at_the_deadline_it_is_asked_for_last() {
        let sim = SimRuntime::new(1);
        let runtime: Arc<dyn Runtime> = Arc::new(sim.clone());
        let second = Duration::from_secs(1);
        sim.block_on(async {
            let began = runtime.now();
            let mut alarm = Alarm::default();
            for (asked, deadline) in [(5, 9), (9, 9), (12, 10)] {
                // Asked once for the first deadline, as by a call that is answered before it.
                poll_fn(|cx| {
                    assert!(
                        alarm
                            .poll(runtime.now() + asked * second, &runtime, cx)
                            .is_pending()
                    );
                    Poll::Ready(())
                })
                .await;
                let deadline = runtime.now() + deadline * second;
                poll_fn(|cx| alarm.poll(deadline, &runtime, cx)).await;
                assert_eq!(runtime.now(), deadline);
            }
            assert_eq!(runtime.now() - began, 28 * second);
        });
    }
}
