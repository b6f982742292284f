//! A task whose handler has waited starts the next one without the duty, and prepares its wait: clock
//! and waker are known before anybody knows whether it waits.
//!
//! Keyed and free updates take two ways through the queue, so each test plays both. None bounds the
//! workers, because nobody follows without the duty then.

use std::{sync::Arc, time::Duration};

use shuttle::future::{spawn, yield_now};

use super::{
    threads::Threads,
    world::{Item, MS, Plan, World, n, play},
};
use crate::{Runner, RunnerHandle, SinkOptions};

fn start(
    threads: &Threads,
    world: &World,
    keys: u32,
    batches: &[usize],
    options: SinkOptions,
) -> RunnerHandle<Item> {
    let (supplier, handler) = (world.supplier(batches), world.handler());
    let runner = Runner::new(Arc::new(threads.clone()), supplier, handler).sink(options);
    match keys {
        0 => runner.start(),
        _ => runner.sequentialize(world.keys()).start(),
    }
}

/// One slot, so that whoever is not first follows.
fn single() -> SinkOptions {
    SinkOptions::concurrent().concurrency(n(1))
}

/// Both ways, for a test that is told how many keys there are.
fn both(test: impl AsyncFn(Threads, u32) -> World + Copy + Send + Sync + 'static) {
    for keys in [0, 1] {
        play(async move |threads| test(threads, keys).await);
    }
}

/// The timeout is shorter than what a handler may take before it waits without that its task looks.
#[test]
fn the_first_wait_of_a_follower_meets_its_time_out() {
    both(async |threads, keys| {
        let world = World::new(&threads, keys, |id| match id {
            0 => Plan::Yields(1),
            _ => Plan::Hangs,
        });
        world.log().bound = 1;
        let handle = start(&threads, &world, keys, &[2], single().timeout(MS / 2));
        // A time-out that is lost is a deadlock.
        world
            .until(|log| log.ends.len() + log.drops.len() == 2)
            .await;
        let report = handle.stop().await.expect("nothing fails");
        world.check(&report);
        let counters = report.counters;
        assert_eq!(counters.finished + counters.timed_out, 2, "{counters:?}");
        assert!(counters.timed_out >= 1);
        world
    });
}

/// As above, with a timeout that the task looks at, and several that follow each other.
#[test]
fn followers_that_hang_or_end_at_the_instant_of_their_time_out() {
    both(async |threads, keys| {
        let world = World::new(&threads, keys, |id| match id % 3 {
            0 => Plan::Yields(1),
            1 => Plan::Sleeps(MS * 2),
            _ => Plan::Hangs,
        });
        world.log().bound = 1;
        let handle = start(&threads, &world, keys, &[4, 2], single().timeout(MS * 2));
        let report = world.handle_all(handle, 6).await;
        world.check_time_outs(&report);
        assert!(report.counters.timed_out >= 2, "two of them hang");
        world
    });
}

/// Whoever is told to end while it is being prepared is woken all the same.
#[test]
fn the_first_wait_of_a_follower_meets_the_end_of_the_run() {
    for timeout in [None, Some(MS * 100)] {
        both(async move |threads, keys| {
            let world = World::new(&threads, keys, |id| match id % 2 {
                0 => Plan::Yields(1),
                _ => Plan::Hangs,
            });
            world.log().bound = 1;
            let options = match timeout {
                Some(timeout) => single().timeout(timeout),
                None => single(),
            };
            let handle = start(&threads, &world, keys, &[3], options);
            world.until(|log| log.supplied == 3).await;
            yield_now().await;
            let report = handle
                .stop_within(Duration::ZERO)
                .await
                .expect("nothing fails");
            world.check(&report);
            // The second one hangs. If it is not woken it keeps its task for ever, and this test with
            // it.
            assert!(report.counters.finished <= 2);
            world
        });
    }
}

/// One that is lowered leaves one slot for two who would both follow.
#[test]
fn two_follow_while_the_concurrency_is_lowered() {
    both(async |threads, keys| {
        // Two keys, or two slots would be of no use.
        let world = World::new(&threads, 2 * keys, |id| match id % 3 {
            0 => Plan::Yields(1),
            1 => Plan::Yields(2),
            _ => Plan::Ready,
        });
        world.log().bound = 2;
        let options = SinkOptions::concurrent().concurrency(n(2));
        let handle = start(&threads, &world, keys, &[6, 2], options);
        let limits = handle.clone();
        let watching = world.clone();
        let lowering = spawn(async move {
            watching.until(|log| !log.starts.is_empty()).await;
            limits.set_concurrency(n(1));
            let before = watching.log().overlaps;
            while limits.stats().in_flight > 1 {
                yield_now().await;
            }
            // Two had their slots already, and perhaps had not begun; nobody else gets one.
            let overlaps = watching.log().overlaps - before;
            assert!(
                overlaps <= 2,
                "{overlaps} began in a slot that had been taken away"
            );
            watching.log().bound = 1;
            watching.until(|log| log.starts.len() >= 6).await;
            watching.log().bound = 2;
            limits.set_concurrency(n(2));
        });
        let report = world.handle_all(handle, 8).await;
        assert_eq!(report.counters.finished, 8);
        lowering.await.expect("it ends");
        world
    });
}
