//! A worker whose update was pending takes the next one, without a spawn and without a permit.
//!
//! Updates with keys and without become ready in different ways, so each test plays both. No test bounds
//! the workers, because a worker with a bound needs a permit for the next update.

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

/// One slot, so that every update but the first one follows another one.
fn single() -> SinkOptions {
    SinkOptions::concurrent().concurrency(n(1))
}

/// Plays a test without keys and with one.
fn both(test: impl AsyncFn(Threads, u32) -> World + Copy + Send + Sync + 'static) {
    for keys in [0, 1] {
        play(async move |threads| test(threads, keys).await);
    }
}

#[test]
fn the_next_update_is_pending_when_its_timeout_comes() {
    both(async |threads, keys| {
        let world = World::new(&threads, keys, |id| match id {
            0 => Plan::Yields(1),
            _ => Plan::Hangs,
        });
        world.log().bound = 1;
        let handle = start(&threads, &world, keys, &[2], single().timeout(MS / 2));
        // A timeout that is lost is a deadlock.
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

/// As above, with several that follow each other.
#[test]
fn updates_in_a_row_hang_or_end_at_the_instant_of_their_timeout() {
    both(async |threads, keys| {
        let world = World::new(&threads, keys, |id| match id % 3 {
            0 => Plan::Yields(1),
            1 => Plan::Sleeps(MS * 2),
            _ => Plan::Hangs,
        });
        world.log().bound = 1;
        let handle = start(&threads, &world, keys, &[4, 2], single().timeout(MS * 2));
        let report = world.handle_all(handle, 6).await;
        world.check_timeouts(&report);
        assert!(report.counters.timed_out >= 2, "two of them hang");
        world
    });
}

/// A handler that is pending for the first time while the run ends is dropped all the same.
#[test]
fn the_next_update_is_pending_when_the_run_ends() {
    for timeout in [None, Some(MS * 100)] {
        both(async move |threads, keys| {
            let world = World::new(&threads, keys, |id| match id % 2 {
                0 => Plan::Yields(1),
                _ => Plan::Hangs,
            });
            world.log().bound = 1;
            let options = match timeout {
                None => single(),
                Some(timeout) => single().timeout(timeout),
            };
            let handle = start(&threads, &world, keys, &[3], options);
            world.until(|log| log.supplied == 3).await;
            yield_now().await;
            let report = handle
                .stop_within(Duration::ZERO)
                .await
                .expect("nothing fails");
            world.check(&report);
            // The second one hangs. If it is not woken, this is a deadlock.
            assert!(report.counters.finished <= 2);
            world
        });
    }
}

/// Two workers would both take the next update, and one slot is left.
#[test]
fn two_workers_go_on_while_the_concurrency_is_lowered() {
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
            // Two had their slots already, and perhaps had not begun; no other gets one.
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
