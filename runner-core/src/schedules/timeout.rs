//! Timeouts against everything else: each wakes its handler, and each update is completed once.

use std::sync::{Arc, Mutex};

use super::world::{MS, Plan, World, n, play};
use crate::{Delivery, Runner, Runtime, RuntimeExt, SinkOptions};

/// If the wake-up of a timeout is lost, its handler never ends: a deadlock.
#[test]
fn a_late_handler_is_woken_and_dropped_before_its_key_is_free() {
    play(async |threads| {
        let world = World::new(&threads, 3, |id| match id % 4 {
            0 => Plan::Hangs,
            // To end at the very instant of its timeout.
            1 => Plan::Sleeps(MS * 2),
            2 => Plan::Yields(3),
            _ => Plan::Sleeps(MS),
        });
        world.log().bound = 3;
        let handle = Runner::new(Arc::new(threads), world.supplier(&[5, 3]), world.handler())
            .sink(
                SinkOptions::concurrent()
                    .concurrency(n(3))
                    .workers(n(2))
                    .timeout(MS * 2),
            )
            .sequentialize(world.keys())
            .start();
        let report = world.handle_all(handle, 8).await;
        world.check_timeouts(&report);
        assert!(report.counters.timed_out >= 2, "two of them hang");
        world
    });
}

/// As few tasks as possible, so that PCT finds the one moment between a clock and its waker.
#[test]
fn a_handler_that_hangs_is_woken_by_its_time_out() {
    play(async |threads| {
        let world = World::new(&threads, 0, |_| Plan::Hangs);
        world.log().bound = 1;
        let handle = Runner::new(Arc::new(threads), world.supplier(&[1]), world.handler())
            .sink(SinkOptions::concurrent().workers(n(1)).timeout(MS))
            .start();
        world.until(|log| log.drops.len() == 1).await;
        let report = handle.stop().await.expect("nothing fails");
        world.check(&report);
        assert_eq!(report.counters.timed_out, 1);
        world
    });
}

#[test]
fn a_detached_handler_leaves_its_slot_and_keeps_its_key() {
    play(async |threads| {
        let world = World::new(&threads, 2, |id| match id % 3 {
            0 => Plan::Sleeps(MS * 5),
            1 => Plan::Sleeps(MS * 2),
            _ => Plan::Yields(2),
        });
        // One in its slot, and one that goes on without.
        world.log().bound = 2;
        let handle = Runner::new(Arc::new(threads), world.supplier(&[3, 3]), world.handler())
            .sink(
                SinkOptions::concurrent()
                    .concurrency(n(1))
                    .workers(n(2))
                    .timeout(MS * 2)
                    .detach_after_timeout(Some(n(1))),
            )
            .sequentialize(world.keys())
            .start();
        let report = world.handle_all(handle, 6).await;
        assert_eq!(report.counters.finished, 6);
        assert!(world.log().drops.is_empty());
        world
    });
}

/// Whether or not `extend` comes in time: who was granted more has it, and nobody ends twice.
#[test]
fn an_extension_from_another_thread_meets_the_timeout() {
    play(async |threads| {
        let world = World::new(&threads, 0, |_| Plan::Ready);
        let answers = Arc::new(Mutex::new(Vec::new()));
        let handle = {
            let (threads, answers) = (threads.clone(), Arc::clone(&answers));
            Runner::for_each(
                Arc::new(threads.clone()),
                world.supplier(&[3]),
                move |update: Delivery<super::world::Item>| {
                    let (other, answers) = (update.clone(), Arc::clone(&answers));
                    let asking = threads.clone();
                    threads.spawn(Box::pin(async move {
                        let granted = other.extend(MS * 10);
                        let left = other.deadline();
                        let now = asking.now();
                        answers.lock().unwrap().push((granted, left, now));
                    }));
                    let sleep = threads.sleep(MS * 3);
                    async move {
                        sleep.await;
                        drop(update);
                    }
                },
            )
            .sink(
                SinkOptions::concurrent()
                    .concurrency(n(2))
                    .workers(n(1))
                    .timeout(MS * 2),
            )
            .start()
        };
        world.until(|log| log.supplied == 3).await;
        let report = handle.stop().await.expect("nothing fails");
        let counters = report.counters;
        assert_eq!(counters.finished + counters.timed_out, 3, "{counters:?}");
        assert_eq!(counters.abandoned, 0);
        drop(handle);
        world
    });
}
