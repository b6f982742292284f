//! The queue without a runner: updates from several threads, a drain between them, and handles and clocks that
//! are dropped.

use std::{
    pin::pin,
    sync::{Arc, Mutex},
};

use futures::future::select;
use shuttle::future::{spawn, yield_now};

use super::{
    threads::{Threads, unpoisoned},
    world::{Item, MS, Plan, World, n, play},
};
use crate::{DecayingQueue, QueueBuilder, Runtime, SinkOptions, UpdateConsumer};

fn mixed(id: u32) -> Plan {
    match id % 3 {
        0 => Plan::Ready,
        1 => Plan::Yields(1),
        _ => Plan::Sleeps(MS),
    }
}

/// Two slots, and room for few updates.
fn builder(
    threads: &Threads,
    world: &World,
) -> QueueBuilder<Item, impl UpdateConsumer<Item> + use<>> {
    world.log().bound = 2;
    let options = SinkOptions::concurrent()
        .concurrency(n(2))
        .workers(n(2))
        .prefetch(0);
    DecayingQueue::builder(Arc::new(threads.clone()), world.handler())
        .options(options)
        .sequentialize(world.keys())
}

/// A wake-up for room that is lost is a deadlock.
#[test]
fn updates_from_two_threads_are_handled_once_and_in_order() {
    play(async |threads| {
        let world = World::new(&threads, 2, mixed);
        let queue = builder(&threads, &world).build();
        let adders = [0, 1].map(|first| {
            let (queue, world) = (queue.clone(), world.clone());
            // Each has a key of its own, because nobody knows which of the two is first.
            spawn(async move {
                for id in [first, first + 2, first + 4] {
                    let room = queue.add(world.items([id])).expect("the queue is open");
                    assert!(room.await.is_some());
                }
            })
        });
        for adder in adders {
            adder.await.expect("it ends");
        }
        let report = queue.drain().await;
        world.check_queue(&report);
        assert_eq!(report.counters.finished, 6);
        assert!(queue.is_empty());
        world
    });
}

/// What was added is in the report, and what was refused is not.
#[test]
fn updates_are_added_while_the_queue_is_drained() {
    play(async |threads| {
        let world = World::new(&threads, 2, mixed);
        let queue = builder(&threads, &world).build();
        let accepted = Arc::new(Mutex::new(0));
        let adders = [0, 1].map(|first| {
            let (queue, world) = (queue.clone(), world.clone());
            let accepted = Arc::clone(&accepted);
            spawn(async move {
                for id in [first, first + 2] {
                    match queue.add(world.items([id])) {
                        Ok(room) => {
                            *unpoisoned(&accepted) += 1;
                            // None as soon as the queue is stopped.
                            room.await;
                        }
                        Err(closed) => world.refused(&closed.0),
                    }
                }
            })
        });
        let counters = queue.drain().await.counters;
        world.log().over = true;
        for adder in adders {
            adder.await.expect("it ends");
        }
        assert_eq!(counters.finished, *unpoisoned(&accepted));
        assert_eq!(queue.stats().counters, counters);
        world
    });
}

/// More than one slice of a batch: the lock is released between them.
#[test]
fn a_long_batch_arrives_while_the_queue_is_drained() {
    play(async |threads| {
        let world = World::new(&threads, 0, |_| Plan::Ready);
        let queue = builder(&threads, &world).build();
        let (adding, items) = (queue.clone(), world.items(0..17));
        let refusing = world.clone();
        let adder = spawn(async move {
            match adding.add(items) {
                Ok(_) => 17,
                Err(closed) => {
                    refusing.refused(&closed.0);
                    0
                }
            }
        });
        let counters = queue.drain().await.counters;
        world.log().over = true;
        let accepted = adder.await.expect("it ends");
        assert_eq!((counters.supplied, counters.finished), (accepted, accepted));
        world
    });
}

#[test]
fn every_drain_sees_the_same_end() {
    play(async |threads| {
        let world = World::new(&threads, 2, mixed);
        let queue = builder(&threads, &world).build();
        drop(queue.add(world.items(0..4)).expect("the queue is open"));
        let drains = [None, Some(MS * 1_000)].map(|limit| {
            let queue = queue.clone();
            spawn(async move {
                match limit {
                    None => queue.drain().await.counters,
                    Some(limit) => queue.drain_within(limit).await.counters,
                }
            })
        });
        queue.idle().await;
        for drain in drains {
            let counters = drain.await.expect("it ends");
            assert_eq!((counters.supplied, counters.settled()), (4, 4));
        }
        world
    });
}

#[test]
fn the_last_handle_is_dropped_while_a_worker_runs() {
    play(async |threads| {
        let world = World::new(&threads, 2, mixed);
        let queue = builder(&threads, &world).build();
        drop(queue.add(world.items(0..4)).expect("the queue is open"));
        for _ in 0..2 {
            let queue = queue.clone();
            spawn(async move {
                yield_now().await;
                drop(queue);
            });
        }
        drop(queue);
        // Idle workers and the clock end by themselves, or this is a deadlock.
        world.until(|log| log.ends.len() == 4).await;
        world
    });
}

/// There is no timeout then, and no stop when the last handle goes; but nothing is left.
#[test]
fn a_clock_is_dropped_at_any_moment() {
    for drained in [true, false] {
        play(async move |threads| {
            let world = World::new(&threads, 2, mixed);
            let (queue, clock) = builder(&threads, &world).build_with_clock();
            threads.spawn(Box::pin(async move {
                let moment = pin!(async {
                    yield_now().await;
                    yield_now().await;
                });
                select(pin!(clock), moment).await;
            }));
            drop(queue.add(world.items(0..3)).expect("the queue is open"));
            if drained {
                let report = queue.drain().await;
                world.check_queue(&report);
                assert_eq!(report.counters.finished, 3);
            } else {
                let room = queue.room();
                drop(queue);
                world.until(|log| log.ends.len() == 3).await;
                // Somebody who still waits is told that nothing can be added, or that there is room.
                room.await;
            }
            world
        });
    }
}
