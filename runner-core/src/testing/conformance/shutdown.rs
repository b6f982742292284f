//! What is left to do for a runtime that is no more.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};

use futures::{
    StreamExt,
    channel::{mpsc, oneshot},
    executor,
};

use super::{Subject, drive, pipeline::Feed, run_task};
use crate::{BoxFuture, Delivery, Report, RunError, Runner, Runtime, RuntimeExt};

const HOUR: Duration = Duration::from_secs(60 * 60);

pub(super) fn drops_tasks(subject: &mut dyn Subject) {
    let runtime = subject.runtime();
    let (started, starts) = mpsc::unbounded();
    let (held, mut dropped) = mpsc::unbounded::<()>();
    let (keep, never) = oneshot::channel::<()>();
    let mut never = Some(never);
    for index in 0..100 {
        let user = UsesRuntime(Arc::clone(&runtime));
        let (clock, started, held) = (Arc::clone(&runtime), started.clone(), held.clone());
        let waits = never.take_if(|_| index == 0);
        runtime.spawn(Box::pin(async move {
            let _held = held;
            let _user = user;
            let _ = started.unbounded_send(());
            match waits {
                Some(waits) => drop(waits.await),
                None if index % 2 == 0 => clock.sleep(HOUR).await,
                None => std::future::pending().await,
            }
            panic!("a task ended that had nothing to wake it");
        }));
    }
    drop((started, held));
    drive(subject, starts.take(100).count());
    subject.shut_down();
    assert_eq!(executor::block_on(dropped.next()), None);
    drop(keep);

    /// Does on its end what a pipeline might do.
    struct UsesRuntime(Arc<dyn Runtime>);

    impl Drop for UsesRuntime {
        fn drop(&mut self) {
            let _ = self.0.now();
            self.0.spawn(Box::pin(async {}));
            let mut sleep = self.0.sleep(HOUR);
            let _: Poll<()> = sleep.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        }
    }
}

pub(super) fn spawn_drops(subject: &mut dyn Subject) {
    let runtime = subject.runtime();
    run_task(subject, async {});
    subject.shut_down();
    let ran = Arc::new(AtomicBool::new(false));
    let spawn = {
        let ran = Arc::clone(&ran);
        move || {
            let (held, dropped) = oneshot::channel::<()>();
            let ran = Arc::clone(&ran);
            // Through threads that begin after the shutdown it may still seem to be there.
            runtime.spawn(Box::pin(async move {
                let _held = held;
                ran.store(true, Ordering::Relaxed);
                std::future::pending::<()>().await;
            }));
            assert!(executor::block_on(dropped).is_err());
        }
    };
    spawn();
    thread::spawn(spawn)
        .join()
        .expect("`spawn` panicked on a plain thread");
    assert!(!ran.load(Ordering::Relaxed), "the task was polled");
}

pub(super) fn sleeps(subject: &mut dyn Subject) {
    let runtime = subject.runtime();
    run_task(subject, async {});
    let poll = |sleep: &mut BoxFuture<'static>| {
        sleep.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    };
    let mut polled_before = runtime.sleep(HOUR);
    assert_eq!(poll(&mut polled_before), Poll::Pending);
    let mut short = runtime.sleep(Duration::from_nanos(1));
    let _: Poll<()> = poll(&mut short);
    let made_before = runtime.sleep(HOUR);
    let left_alone = runtime.sleep(HOUR);
    subject.shut_down();

    let made_after = runtime.sleep(HOUR);
    let now = runtime.now();
    for mut sleep in [polled_before, made_before, made_after] {
        // An hour is not over; what else it says is the runtime's business, now and later.
        assert_eq!(poll(&mut sleep), Poll::Pending);
        assert_eq!(poll(&mut sleep), Poll::Pending);
    }
    let _: Poll<()> = poll(&mut runtime.sleep_until(now));
    drop(left_alone);
    let elsewhere = thread::spawn(move || {
        let mut sleep = runtime.sleep(HOUR);
        let _: Poll<()> = sleep.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    });
    elsewhere.join().expect("a sleep on a plain thread");
}

pub(super) fn started_runner_learns_of_it(subject: &mut dyn Subject) {
    let (handler, mut begun) = even_ones_hang();
    let clock = subject.runtime();
    let handle = Runner::for_each(subject.runtime(), Feed::new(10), handler).start();
    drive(subject, async {
        for _ in 0..10 {
            begun.next().await;
        }
        // The odd ones are settled when the runner knows of it.
        while handle.stats().counters.finished < 5 {
            clock.sleep(Duration::from_millis(1)).await;
        }
    });
    subject.shut_down();
    let end = executor::block_on(handle.task());
    expect_gone(end);
    assert!(!handle.is_running());
    // Nothing is left to run it. A start that comes before its task is dropped is told by the end.
    if let Ok(()) = handle.start() {
        let end = executor::block_on(handle.task());
        assert!(matches!(end, Err(RunError::RuntimeGone { .. })), "{end:?}");
    }
}

pub(super) fn driven_runner_learns_of_it(subject: &mut dyn Subject) {
    if !subject.allows_foreign_wakers() {
        return;
    }
    let (handler, mut begun) = even_ones_hang();
    let clock = subject.runtime();
    let mut runner = Runner::for_each(subject.runtime(), Feed::new(10), handler);
    let handle = runner.handle();
    let driver = thread::spawn(move || executor::block_on(runner.run()));
    drive(subject, async {
        for _ in 0..10 {
            begun.next().await;
        }
        while handle.stats().counters.finished < 5 {
            clock.sleep(Duration::from_millis(1)).await;
        }
    });
    subject.shut_down();
    expect_gone(driver.join().expect("the run does not panic"));
}

type Begun = mpsc::UnboundedReceiver<u64>;

/// A handler that ends for odd updates only, and tells when it begins.
fn even_ones_hang() -> (
    impl Fn(Delivery<u64>) -> BoxFuture<'static> + Send + Sync + 'static,
    Begun,
) {
    let (begin, begun) = mpsc::unbounded();
    let handler = move |update: Delivery<u64>| -> BoxFuture<'static> {
        let begin = begin.clone();
        Box::pin(async move {
            let _ = begin.unbounded_send(*update);
            if update.is_multiple_of(2) {
                std::future::pending::<()>().await;
            }
        })
    };
    (handler, begun)
}

fn expect_gone(end: Result<Report<u64>, RunError<u64>>) {
    let Err(RunError::RuntimeGone { report }) = end else {
        panic!("ended with {end:?}");
    };
    let abandoned: Vec<u64> = report.abandoned.iter().map(|left| *left.update).collect();
    assert_eq!(abandoned, [0, 2, 4, 6, 8]);
    assert!(report.abandoned.iter().all(|left| left.started));
    assert_eq!(report.counters.finished, 5);
}
