//! Pull workers: whatever the order, every update is started once, in the order of its key.

use std::sync::Arc;

use super::world::{Item, MS, Plan, World, n, play};
use crate::{Failure, Runner, SinkOptions, Verdict};

#[test]
fn workers_share_updates_without_losing_or_repeating_one() {
    play(async |threads| {
        let world = World::new(&threads, 3, |id| match id % 4 {
            0 => Plan::Ready,
            1 => Plan::Yields(2),
            2 => Plan::Yields(1),
            _ => Plan::Sleeps(MS),
        });
        world.log().bound = 3;
        let handle = Runner::new(
            Arc::new(threads),
            world.supplier(&[2, 4, 1]),
            world.handler(),
        )
        .sink(SinkOptions::concurrent().concurrency(n(3)).workers(n(2)))
        .sequentialize(world.keys())
        .start();
        let report = world.handle_all(handle, 7).await;
        assert_eq!(report.counters.finished, 7);
        world
    });
}

#[test]
fn a_worker_per_update_keeps_the_bound() {
    play(async |threads| {
        let world = World::new(&threads, 0, |id| match id % 2 {
            0 => Plan::Ready,
            _ => Plan::Yields(1),
        });
        world.log().bound = 2;
        let handle = Runner::new(Arc::new(threads), world.supplier(&[6]), world.handler())
            .sink(SinkOptions::concurrent().concurrency(n(2)).workers(n(100)))
            .start();
        world.handle_all(handle, 6).await;
        world
    });
}

/// More updates that never wait than a worker starts without a break.
#[test]
fn a_worker_that_yields_keeps_its_permit() {
    play(async |threads| {
        let world = World::new(&threads, 0, |_| Plan::Ready);
        world.log().bound = 1;
        let handle = Runner::new(Arc::new(threads), world.supplier(&[40]), world.handler())
            .sink(
                SinkOptions::concurrent()
                    .concurrency(n(1))
                    .workers(n(1))
                    .prefetch(40),
            )
            .start();
        world.handle_all(handle, 40).await;
        world
    });
}

#[test]
fn failures_and_retries_keep_key_and_place() {
    play(async |threads| {
        let world = World::new(&threads, 2, |id| match id {
            0 => Plan::Fails,
            1 => Plan::PanicsInPoll,
            2 => Plan::PanicsInConsume,
            _ => Plan::Yields(1),
        });
        world.log().bound = 2;
        world.log().attempts = 2;
        let handle = Runner::new(Arc::new(threads), world.supplier(&[5]), world.handler())
            .sink(SinkOptions::concurrent().concurrency(n(2)).workers(n(2)))
            .sequentialize(world.keys())
            .policy(
                |failure: Failure<Item>| match failure.update.attempt().get() {
                    1 => Verdict::Retry { after: MS },
                    _ => Verdict::Skip,
                },
            )
            .start();
        world
            .until(|log| log.starts.values().sum::<u32>() == 8 && log.running() == 0)
            .await;
        let report = handle.stop().await.expect("nothing fails");
        world.check(&report);
        let counters = report.counters;
        assert_eq!((counters.failed, counters.panicked), (1, 2));
        assert_eq!((counters.finished, counters.retried), (2, 3));
        drop(handle);
        world
    });
}

#[test]
fn a_destructor_may_look_at_the_runner() {
    play(async |threads| {
        let world = World::new(&threads, 2, |id| match id % 3 {
            0 => Plan::Ready,
            1 => Plan::Hangs,
            _ => Plan::Yields(1),
        });
        world.log().bound = 2;
        let handle = Runner::new(Arc::new(threads), world.supplier(&[3, 2]), world.handler())
            .sink(
                SinkOptions::concurrent()
                    .concurrency(n(2))
                    .workers(n(2))
                    .timeout(MS),
            )
            .sequentialize(world.keys())
            .start();
        world.look_from_destructors(Some(handle.clone()));
        world.handle_all(handle, 5).await;
        world.look_from_destructors(None);
        world
    });
}

/// One takes the place of the other, and no two of them share an allocation.
#[test]
fn a_destructor_may_look_at_the_runner_when_the_next_update_has_its_place() {
    play(async |threads| {
        let world = World::new(&threads, 0, |id| match id % 2 {
            0 => Plan::Ready,
            _ => Plan::Yields(1),
        });
        world.log().bound = 1;
        let handle = Runner::new(
            Arc::new(threads),
            world.supplier(&[1, 1, 1, 1]),
            world.handler(),
        )
        .sink(
            SinkOptions::concurrent()
                .concurrency(n(1))
                .workers(n(1))
                .prefetch(4),
        )
        .start();
        world.look_from_destructors(Some(handle.clone()));
        world.handle_all(handle, 4).await;
        world.look_from_destructors(None);
        world
    });
}
