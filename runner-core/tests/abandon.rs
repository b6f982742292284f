//! What was ready when a queue was abandoned: it is polled once more, so its outcome counts.

mod common;

use std::{
    future::{pending, poll_fn},
    num::NonZeroUsize,
    sync::{Arc, Mutex},
    task::Poll,
};

use common::runtime;
use futures::{FutureExt, channel::oneshot, future::Shared};
use runner_core::{DecayingQueue, Delivery, Failure, SinkOptions, Verdict, testing::for_each_seed};

/// Something that a handler or a policy waits for.
fn gate() -> (oneshot::Sender<()>, Shared<oneshot::Receiver<()>>) {
    let (open, opened) = oneshot::channel();
    (open, opened.shared())
}

/// Wakes its task and is pending.
async fn pending_once() {
    let mut polled = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut polled, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[test]
fn a_handler_that_is_ready_has_finished() {
    for_each_seed(50, |sim| {
        let (open, opened) = gate();
        let queue = DecayingQueue::for_each(runtime(&sim), move |_: Delivery<u32>| {
            let opened = opened.clone();
            async move {
                let _ = opened.await;
            }
        })
        .build();
        drop(queue.add([1]).unwrap());
        sim.run_until_idle();
        open.send(()).unwrap();
        queue.abandon();
        let report = sim.block_on(queue.drain());
        assert_eq!((report.counters.finished, report.abandoned.len()), (1, 0));
    });
}

#[test]
fn a_policy_that_has_decided_is_obeyed() {
    for_each_seed(50, |sim| {
        let (open, opened) = gate();
        let queue = DecayingQueue::for_each(runtime(&sim), async |_: Delivery<u32>| Err("planned"))
            .policy(move |_: Failure<u32>| {
                let opened = opened.clone();
                async move {
                    let _ = opened.await;
                    Verdict::Skip
                }
            })
            .build();
        drop(queue.add([1]).unwrap());
        sim.run_until_idle();
        open.send(()).unwrap();
        queue.abandon();
        let report = sim.block_on(queue.drain());
        assert_eq!((report.counters.failed, report.abandoned.len()), (1, 0));
    });
}

/// A handler that goes on is dropped after that one poll, even if it has woken itself.
#[test]
fn a_handler_that_is_not_ready_is_polled_once_and_dropped() {
    for_each_seed(50, |sim| {
        let (open, opened) = gate();
        let steps = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&steps);
        let queue = DecayingQueue::for_each(runtime(&sim), move |_: Delivery<u32>| {
            let (opened, steps) = (opened.clone(), Arc::clone(&counted));
            async move {
                let _ = opened.await;
                for _ in 0..3 {
                    *steps.lock().unwrap() += 1;
                    pending_once().await;
                }
                pending::<()>().await;
            }
        })
        .build();
        drop(queue.add([1]).unwrap());
        sim.run_until_idle();
        open.send(()).unwrap();
        queue.abandon();
        let report = sim.block_on(queue.drain());
        assert_eq!((*steps.lock().unwrap(), report.abandoned.len()), (1, 1));
    });
}

/// A supplier that is closed with this prefix must not forget those that came after the first one.
#[test]
fn what_never_started_ends_the_settled_prefix() {
    for_each_seed(50, |sim| {
        let (open, opened) = gate();
        let queue = DecayingQueue::for_each(runtime(&sim), move |_: Delivery<u32>| {
            let opened = opened.clone();
            async move {
                let _ = opened.await;
            }
        })
        .options(SinkOptions::concurrent().concurrency(NonZeroUsize::MIN))
        .build();
        drop(queue.add([0, 1, 2]).unwrap());
        sim.run_until_idle();
        open.send(()).unwrap();
        queue.abandon();
        let report = sim.block_on(queue.drain());
        assert_eq!((report.counters.finished, report.abandoned.len()), (1, 2));
        assert_eq!(report.settled_prefix, 1);
    });
}
