//! The clock and the sleeps.
//!
//! Sleeps are short and real where time is real: they are what is checked. None is waited for in
//! the hope that something else has happened by then.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use futures::{StreamExt, channel::mpsc};

use super::{Subject, drive, run_task};
use crate::{Runtime, RuntimeExt};

pub(super) fn time_never_goes_back(subject: &mut dyn Subject) {
    let runtime = subject.runtime();
    let mut latest = runtime.now();
    for _ in 0..100 {
        let inside = Arc::clone(&runtime);
        let in_task = run_task(subject, async move { inside.now() });
        let outside = Arc::clone(&runtime);
        let on_thread = thread::spawn(move || outside.now());
        let on_thread = on_thread.join().expect("`now` panicked on a plain thread");
        for (now, place) in [
            (in_task, "in a task"),
            (on_thread, "on another thread"),
            (runtime.now(), "on this thread"),
        ] {
            assert!(now >= latest, "{:?} back {place}", latest - now);
            latest = now;
        }
    }
}

pub(super) fn sleeps_are_never_early(subject: &mut dyn Subject) {
    let runtime = subject.runtime();
    let (done, ended) = mpsc::unbounded();
    for index in 0..200_u64 {
        // From nothing to 60 ms, and never a whole number of milliseconds.
        let delay = Duration::from_nanos(index * 300_007);
        let deadline = runtime.now() + delay;
        // Half of them are made outside of the runtime.
        let made = (index % 2 == 0).then(|| runtime.sleep_until(deadline));
        let (clock, done) = (Arc::clone(&runtime), done.clone());
        runtime.spawn(Box::pin(async move {
            match made {
                Some(sleep) => sleep.await,
                None => clock.sleep_until(deadline).await,
            }
            let early = deadline.checked_duration_since(clock.now());
            let _ = done.unbounded_send((delay, early.unwrap_or_default()));
        }));
    }
    drop(done);
    let ended: Vec<_> = drive(subject, ended.collect());
    assert_eq!(ended.len(), 200);
    for (delay, early) in ended {
        assert_eq!(early, Duration::ZERO, "a sleep of {delay:?} was early");
    }
}

pub(super) fn past_deadlines_resolve_at_once(subject: &mut dyn Subject) {
    let runtime = subject.runtime();
    // So that there is a past to the clock.
    let slept = Arc::clone(&runtime);
    run_task(subject, async move {
        slept.sleep(Duration::from_millis(3)).await;
    });
    at_once(&*runtime);
    let outside = Arc::clone(&runtime);
    let on_thread = thread::spawn(move || at_once(&*outside));
    on_thread.join().expect("a sleep on a plain thread");
    run_task(subject, async move { at_once(&*runtime) });

    fn at_once(runtime: &dyn Runtime) {
        // More than a task may do in one go where tasks have a budget.
        for index in 0..1_000 {
            let now = runtime.now();
            let long_ago = now.checked_sub(Duration::from_micros(index));
            let deadline = long_ago.unwrap_or(now);
            let mut sleep = runtime.sleep_until(deadline);
            let polled = sleep.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert_eq!(polled, Poll::Ready(()), "{index} µs late");
        }
    }
}

pub(super) fn sleeps_change_hands(subject: &mut dyn Subject) {
    let runtime = subject.runtime();
    let mut sleep = runtime.sleep(Duration::from_millis(20));
    let first = sleep.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    if first.is_pending() {
        // Whoever polled first is never heard of again.
        run_task(subject, sleep);
    }

    // Dropped sleeps take nothing with them.
    for index in 0..1_000 {
        let mut sleep = runtime.sleep(Duration::from_millis(index));
        let _: Poll<()> = sleep.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    }
    run_task(subject, runtime.sleep(Duration::from_millis(5)));
}

pub(super) fn hundred_thousand_sleeps(subject: &mut dyn Subject) {
    const SLEEPS: usize = 100_000;
    let runtime = subject.runtime();
    let early = Arc::new(AtomicUsize::new(0));
    let fired = Arc::new(AtomicUsize::new(0));
    let (done, ended) = mpsc::unbounded::<()>();
    for index in 0..SLEEPS {
        let (clock, done) = (Arc::clone(&runtime), done.clone());
        let (early, fired) = (Arc::clone(&early), Arc::clone(&fired));
        // Spread over a second, in no order: 7 919 is a prime.
        let delay = Duration::from_micros((index * 7_919 % SLEEPS * 10) as u64);
        runtime.spawn(Box::pin(async move {
            let _done = done;
            let deadline = clock.now() + delay;
            clock.sleep_until(deadline).await;
            if clock.now() < deadline {
                early.fetch_add(1, Ordering::Relaxed);
            }
            fired.fetch_add(1, Ordering::Relaxed);
        }));
    }
    drop(done);
    drive(subject, ended.count());
    assert_eq!(fired.load(Ordering::Relaxed), SLEEPS, "sleeps that ended");
    assert_eq!(early.load(Ordering::Relaxed), 0, "sleeps that ended early");
}

pub(super) fn virtual_time_is_one_clock(subject: &mut dyn Subject) {
    if !subject.has_virtual_time() {
        return;
    }
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let runtime = subject.runtime();
    let real = Instant::now();
    let began = runtime.now();
    let inside = Arc::clone(&runtime);
    let passed = run_task(subject, async move {
        inside.sleep(DAY).await;
        inside.now() - began
    });
    assert!(passed >= DAY, "only {passed:?} have passed");
    assert!(passed < DAY + Duration::from_secs(1), "{passed:?} passed");
    assert!(runtime.now() >= began + passed, "the outside is behind");
    assert!(real.elapsed() < DAY, "that was no virtual time");
}
