//! The commands for a worker, against all that the worker does at the same time: it registers its waker, is
//! pending, completes its update, takes the next one, is idle, or is dropped.
//!
//! There are as few tasks as possible, so that PCT finds the one moment between two steps.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use shuttle::future::{spawn, yield_now};

use super::{
    threads::{Threads, unpoisoned},
    world::{Item, MS, Plan, World, n, play},
};
use crate::{
    DecayingQueue, Delivery, Failure, QueueFault, QueueReport, Runtime, RuntimeExt, SinkOptions,
    Verdict,
};

/// One slot and one permit.
fn single() -> SinkOptions {
    SinkOptions::concurrent().concurrency(n(1)).workers(n(1))
}

fn queue(threads: &Threads, world: &World, options: SinkOptions) -> DecayingQueue<Item> {
    DecayingQueue::builder(Arc::new(threads.clone()), world.handler())
        .options(options)
        .build()
}

/// Adds updates without waiting for room.
fn add(queue: &DecayingQueue<Item>, items: Vec<Item>) {
    drop(queue.add(items).expect("the queue is open"));
}

async fn drain(queue: &DecayingQueue<Item>, world: &World) -> QueueReport<Item> {
    let report = queue.drain().await;
    world.check_queue(&report);
    report
}

/// A command that is lost leaves a handler that never ends: a deadlock.
#[test]
fn a_timeout_reaches_a_worker_that_registers_its_waker() {
    play(async |threads| {
        let world = World::new(&threads, 0, |_| Plan::YieldsAndHangs(2));
        let queue = queue(&threads, &world, single().timeout(MS));
        add(&queue, world.items([0]));
        world.until(|log| log.drops.len() == 1).await;
        let report = drain(&queue, &world).await;
        assert_eq!(report.counters.timed_out, 1);
        world
    });
}

#[test]
fn the_end_reaches_a_worker_that_registers_its_waker() {
    play(async |threads| {
        let world = World::new(&threads, 0, |_| Plan::YieldsAndHangs(1));
        let queue = queue(&threads, &world, single());
        add(&queue, world.items([0]));
        world.until(|log| log.starts.len() == 1).await;
        queue.abandon();
        let report = drain(&queue, &world).await;
        assert_eq!((report.counters.abandoned, report.abandoned.len()), (1, 1));
        drop(report);
        assert_eq!(world.log().drops.len(), 1);
        world
    });
}

/// An update that ends at the instant of its timeout leaves a command. It must neither end the next update,
/// which is on time, nor the policy that decides about the one after it.
#[test]
fn a_timeout_of_the_last_update_does_not_reach_the_next_one() {
    play(async |threads| {
        let world = World::new(&threads, 0, |id| match id {
            0 => Plan::Sleeps(MS * 2),
            1 => Plan::Sleeps(MS),
            _ => Plan::Fails,
        });
        world.log().bound = 1;
        let decided = Arc::new(AtomicUsize::new(0));
        let told = Arc::clone(&decided);
        let queue = DecayingQueue::builder(Arc::new(threads.clone()), world.handler())
            .options(single().timeout(MS * 2))
            .policy(move |_: Failure<Item>| {
                let told = Arc::clone(&told);
                async move {
                    // Once, so that its own timeout finds it ready.
                    yield_now().await;
                    told.fetch_add(1, Ordering::Relaxed);
                    Verdict::Skip
                }
            })
            .build();
        add(&queue, world.items(0..3));
        let counters = drain(&queue, &world).await.counters;
        assert_eq!((counters.finished, counters.failed), (2, 1), "{counters:?}");
        assert_eq!(decided.load(Ordering::Relaxed), 1, "the policy was dropped");
        world
    });
}

/// The same for the policy of the update itself.
#[test]
fn a_timeout_of_a_handler_that_fails_does_not_reach_its_policy() {
    play(async |threads| {
        let world = World::new(&threads, 0, |_| Plan::SleepsAndFails(MS * 2));
        let decided = Arc::new(AtomicUsize::new(0));
        let told = Arc::clone(&decided);
        let queue = DecayingQueue::builder(Arc::new(threads.clone()), world.handler())
            .options(single().timeout(MS * 2))
            .policy(move |_: Failure<Item>| {
                let told = Arc::clone(&told);
                async move {
                    yield_now().await;
                    told.fetch_add(1, Ordering::Relaxed);
                    Verdict::Skip
                }
            })
            .build();
        add(&queue, world.items([0]));
        let counters = drain(&queue, &world).await.counters;
        assert_eq!(counters.failed, 1, "{counters:?}");
        assert_eq!(decided.load(Ordering::Relaxed), 1, "the policy was dropped");
        world
    });
}

/// If the worker took the command for one of its own, it would end, and nothing would start the next update.
#[test]
fn a_timeout_of_the_last_update_does_not_end_an_idle_worker() {
    play(async |threads| {
        let world = World::new(&threads, 0, |id| match id {
            0 => Plan::Sleeps(MS * 2),
            _ => Plan::Ready,
        });
        let queue = queue(&threads, &world, single().timeout(MS * 2));
        for id in 0..3 {
            add(&queue, world.items([id]));
            world.until(|log| log.ends.len() > id as usize).await;
        }
        let report = drain(&queue, &world).await;
        assert_eq!(report.counters.finished, 3);
        world
    });
}

/// Whether the worker was woken for the update, or has to be given up, both are accounted for.
#[test]
fn an_idle_worker_is_woken_while_it_is_dropped() {
    play(async |threads| {
        let world = World::new(&threads, 0, |_| Plan::Ready);
        let queue = queue(&threads, &world, single());
        add(&queue, world.items([0]));
        world.until(|log| log.ends.len() == 1).await;
        let (adding, items) = (queue.clone(), world.items([1]));
        let refusing = world.clone();
        let adder = spawn(async move {
            if let Err(closed) = adding.add(items) {
                refusing.refused(&closed.0);
            }
        });
        threads.shut_down();
        adder.await.expect("it ends");
        let report = drain(&queue, &world).await;
        let counters = report.counters;
        assert_eq!(counters.finished + counters.abandoned, counters.supplied);
        assert!(matches!(report.fault, None | Some(QueueFault::RuntimeGone)));
        world
    });
}

#[derive(Clone, Copy)]
enum End {
    Stop,
    StopWithin,
    Abandon,
    ShutDown,
}

/// The end comes while the worker is pending, completes an update, takes the next one, or looks for one.
#[test]
fn every_update_is_accounted_for_whenever_the_end_comes() {
    for end in [End::Stop, End::StopWithin, End::Abandon, End::ShutDown] {
        for workers in [1, 2] {
            play(async move |threads| {
                let world = World::new(&threads, 0, |id| match id % 4 {
                    0 => Plan::Yields(1),
                    1 => Plan::Sleeps(MS * 2),
                    2 => Plan::Ready,
                    _ => Plan::YieldsAndHangs(1),
                });
                world.log().bound = workers;
                let options = single().concurrency(n(workers)).workers(n(workers));
                let queue = queue(&threads, &world, options.timeout(MS * 2));
                add(&queue, world.items(0..4));
                let (ending, runtime) = (queue.clone(), threads.clone());
                let ender = spawn(async move {
                    yield_now().await;
                    match end {
                        End::Stop => ending.stop(),
                        End::StopWithin => drop(ending.drain_within(Duration::ZERO).await),
                        End::Abandon => ending.abandon(),
                        End::ShutDown => runtime.shut_down(),
                    }
                });
                if let End::StopWithin = end {
                    ender.await.expect("it ends");
                    // Its report had the updates.
                    let counters = queue.stats().counters;
                    assert_eq!(counters.settled(), 4);
                    world.log().over = true;
                    return world;
                }
                let report = drain(&queue, &world).await;
                let counters = report.counters;
                if let End::Stop = end {
                    assert_eq!((counters.finished, counters.timed_out), (3, 1));
                }
                ender.await.expect("it ends");
                world
            });
        }
    }
}

/// The clock stops the queue, and idle workers end; if one does not, this is a deadlock.
#[test]
fn the_last_handle_is_dropped_at_any_moment() {
    play(async |threads| {
        let world = World::new(&threads, 0, |id| match id % 3 {
            0 => Plan::Yields(1),
            1 => Plan::Sleeps(MS * 2),
            _ => Plan::YieldsAndHangs(1),
        });
        world.log().bound = 2;
        let options = single().concurrency(n(2)).workers(n(2)).timeout(MS * 2);
        let queue = queue(&threads, &world, options);
        add(&queue, world.items(0..3));
        let other = queue.clone();
        spawn(async move {
            yield_now().await;
            drop(other);
        });
        drop(queue);
        world
            .until(|log| log.ends.len() + log.drops.len() == 3)
            .await;
        assert_eq!(world.log().ends.len(), 2);
        world
    });
}

/// A handler that was granted more time has it, even if it was told of its timeout before; one that was
/// refused is dropped.
#[test]
fn an_extension_meets_the_last_poll_of_a_late_handler() {
    play(async |threads| {
        let world = World::new(&threads, 0, |_| Plan::Ready);
        let granted = Arc::new(Mutex::new(None));
        let (clock, answer) = (threads.clone(), Arc::clone(&granted));
        let handler = move |update: Delivery<Item>| {
            let (clock, answer) = (clock.clone(), Arc::clone(&answer));
            let (asking, other) = (clock.clone(), update.clone());
            clock.spawn(Box::pin(async move {
                // The instant of the timeout, or a little before.
                asking.sleep(MS * 2).await;
                *unpoisoned(&answer) = Some(other.extend(MS * 10));
            }));
            async move {
                clock.sleep(MS * 3).await;
                drop(update);
            }
        };
        let queue = DecayingQueue::for_each(Arc::new(threads.clone()), handler)
            .options(single().timeout(MS * 2))
            .build();
        add(&queue, world.items([0]));
        let counters = queue.drain().await.counters;
        match *unpoisoned(&granted) {
            Some(true) => assert_eq!(counters.finished, 1, "{counters:?}"),
            // It may have been too late in any case.
            Some(false) | None => assert_eq!(counters.finished + counters.timed_out, 1),
        }
        world
    });
}
