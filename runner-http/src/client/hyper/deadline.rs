//! How long something may take: [`Deadline`].

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use async_io::Timer;

/// A timer that is set as rarely as possible, because setting one wakes the thread of async-io: only
/// by what has to wait, and not again for a deadline behind the one that it is set to.
#[derive(Default)]
pub(super) struct Deadline {
    timer: Option<(Instant, Timer)>,
}

impl Deadline {
    /// The output of `future`, or None if it took longer than `limit`.
    pub(super) async fn within<F: Future>(
        &mut self,
        limit: Duration,
        future: F,
    ) -> Option<F::Output> {
        // None is too far away to be told.
        let deadline = Instant::now().checked_add(limit);
        let mut future = pin!(future);
        poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            match deadline {
                Some(deadline) => self.poll(cx, deadline).map(|()| None),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// Forgets who is to be woken.
    pub(super) fn clear(&mut self) {
        self.timer = None;
    }

    fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        loop {
            let (set, timer) = match &mut self.timer {
                Some((set, timer)) if *set <= deadline => (*set, timer),
                _ => {
                    let timer = Timer::at(deadline);
                    let (set, timer) = self.timer.insert((deadline, timer));
                    (*set, timer)
                }
            };
            ready!(Pin::new(timer).poll(cx));
            self.timer = None;
            // Else it was set by an earlier one.
            if set == deadline {
                return Poll::Ready(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use async_io::block_on;
    use futures::{FutureExt, future::ready};

    use super::*;

    const SOON: Duration = Duration::from_millis(20);
    const LATER: Duration = Duration::from_secs(600);

    /// Leaves a timer behind.
    async fn set(deadline: &mut Deadline, limit: Duration) {
        let waits = deadline.within(limit, pending::<()>());
        assert!(waits.now_or_never().is_none());
    }

    #[test]
    fn a_timer_is_set_by_what_waits_and_only_once() {
        block_on(async {
            let mut deadline = Deadline::default();
            assert_eq!(deadline.within(LATER, ready(1)).await, Some(1));
            assert!(deadline.timer.is_none());
            set(&mut deadline, LATER).await;
            let at = deadline.timer.as_ref().unwrap().0;
            set(&mut deadline, LATER).await;
            assert_eq!(deadline.timer.as_ref().unwrap().0, at);
            deadline.clear();
            assert!(deadline.timer.is_none());
        });
    }

    #[test]
    fn a_deadline_is_kept_whatever_the_timer_is_set_to() {
        block_on(async {
            let began = Instant::now();
            let mut deadline = Deadline::default();
            assert_eq!(deadline.within(SOON, pending::<()>()).await, None);
            set(&mut deadline, LATER).await;
            assert_eq!(deadline.within(SOON, pending::<()>()).await, None);
            set(&mut deadline, SOON).await;
            assert_eq!(deadline.within(2 * SOON, pending::<()>()).await, None);
            // One for which the timer fires too early.
            set(&mut deadline, SOON).await;
            let slow = Timer::after(2 * SOON);
            assert!(deadline.within(LATER, slow).await.is_some());
            let took = began.elapsed();
            assert!(took >= 6 * SOON && took < LATER, "{took:?}");
            assert_eq!(deadline.within(Duration::MAX, ready(1)).await, Some(1));
        });
    }
}
