//! Room: intake goes on whenever there is some, and the bounds hold.

use std::sync::Arc;

use shuttle::future::yield_now;

use super::world::{MS, Plan, World, n, play};
use crate::{Runner, Runtime, SinkOptions};

fn mixed(id: u32) -> Plan {
    match id % 3 {
        0 => Plan::Ready,
        1 => Plan::Yields(1),
        _ => Plan::Sleeps(MS),
    }
}

/// A wake-up that is lost is a deadlock here: nothing else would ever fetch the next update.
#[test]
fn a_full_sink_fetches_again_when_a_slot_is_free() {
    play(async |threads| {
        let world = World::new(&threads, 0, mixed);
        world.log().bound = 1;
        let handle = Runner::new(
            Arc::new(threads),
            world.supplier(&[1, 1, 1, 1, 1, 1]),
            world.handler(),
        )
        .sink(
            SinkOptions::concurrent()
                .concurrency(n(1))
                .workers(n(1))
                .prefetch(0),
        )
        .start();
        let report = world.handle_all(handle, 6).await;
        assert_eq!(report.counters.finished, 6);
        world
    });
}

#[test]
fn intake_that_stood_still_for_one_key_goes_on() {
    play(async |threads| {
        let world = World::new(&threads, 1, mixed);
        world.log().bound = 1;
        let handle = Runner::new(
            Arc::new(threads),
            world.supplier(&[3, 1, 1, 1]),
            world.handler(),
        )
        .sink(SinkOptions::concurrent().workers(n(2)).max_waiting(n(1)))
        .sequentialize(world.keys())
        .start();
        let report = world.handle_all(handle, 6).await;
        assert_eq!(report.counters.finished, 6);
        world
    });
}

#[test]
fn a_batch_sink_asks_for_the_next_batch_when_the_last_one_is_settled() {
    play(async |threads| {
        let world = World::new(&threads, 0, mixed);
        world.log().bound = 3;
        let handle = Runner::new(
            Arc::new(threads),
            world.supplier(&[3, 2, 1]),
            world.handler(),
        )
        .sink(SinkOptions::batch().workers(n(2)))
        .start();
        let report = world.handle_all(handle, 6).await;
        assert_eq!(report.counters.finished, 6);
        world
    });
}

#[test]
fn limits_and_pauses_from_other_threads_strand_nothing() {
    play(async |threads| {
        let world = World::new(&threads, 3, mixed);
        world.log().bound = 3;
        let runtime = Arc::new(threads.clone());
        let handle = Runner::new(runtime, world.supplier(&[2, 2, 2, 2]), world.handler())
            .sink(
                SinkOptions::concurrent()
                    .concurrency(n(1))
                    .workers(n(2))
                    .prefetch(1),
            )
            .sequentialize(world.keys())
            .start();
        let limits = handle.clone();
        threads.spawn(Box::pin(async move {
            for concurrency in [3, 1, 2] {
                limits.set_concurrency(n(concurrency));
                yield_now().await;
            }
        }));
        let pauses = handle.clone();
        threads.spawn(Box::pin(async move {
            for _ in 0..2 {
                pauses.pause();
                yield_now().await;
                pauses.resume();
            }
        }));
        let report = world.handle_all(handle, 8).await;
        assert_eq!(report.counters.finished, 8);
        world
    });
}
