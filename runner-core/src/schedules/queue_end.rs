//! The queue alone: it is filled, drained and dropped by several threads at once.

use std::sync::Arc;

use shuttle::future::{spawn, yield_now};

use super::{explore, threads::Threads, world::n};
use crate::{DecayingQueue, Delivery, SinkOptions};

/// More than one slice of a batch, so that an end can come between two of them.
const BATCH: u32 = 18;

fn queue(threads: &Threads) -> DecayingQueue<u32> {
    DecayingQueue::for_each(Arc::new(threads.clone()), async |update: Delivery<u32>| {
        if *update == 0 {
            yield_now().await;
        }
    })
    .options(SinkOptions::concurrent().concurrency(n(2)).workers(n(1)))
    .build()
}

#[test]
fn a_batch_is_given_back_or_in_the_report_of_a_drain() {
    for end in [DecayingQueue::stop, DecayingQueue::abandon] {
        explore(move || {
            Threads::run(async |threads| {
                let queue = queue(&threads);
                let adder = queue.clone();
                let adding = spawn(async move {
                    let mut accepted = 0;
                    for _ in 0..2 {
                        match adder.add(0..BATCH) {
                            Ok(_) => accepted += u64::from(BATCH),
                            Err(closed) => assert_eq!(closed.0.len(), BATCH as usize),
                        }
                        yield_now().await;
                    }
                    accepted
                });
                yield_now().await;
                end(&queue);
                let report = queue.drain().await;
                let counters = report.counters;
                assert_eq!(counters.supplied, adding.await.expect("it does not panic"));
                assert_eq!(counters.supplied, counters.settled());
                assert_eq!(counters.abandoned, report.abandoned.len() as u64);
            });
        });
    }
}

/// A wake-up that is lost is a deadlock here, and a task that stays is one as well.
#[test]
fn who_waits_for_room_or_for_the_end_hears_of_it() {
    explore(|| {
        Threads::run(async |threads| {
            let queue = queue(&threads);
            let (adder, closer) = (queue.clone(), queue.clone());
            let adding = spawn(async move {
                let mut next = 0..6;
                while let Some(room) = adder.room().await {
                    let batch: Vec<u32> = next.by_ref().take(room.get().min(2)).collect();
                    if batch.is_empty() || adder.add(batch).is_err() {
                        break;
                    }
                }
            });
            let closing = spawn(async move { closer.closed().await });
            yield_now().await;
            queue.stop();
            closing.await.expect("it does not panic");
            adding.await.expect("it does not panic");
            let report = queue.drain().await;
            assert_eq!(report.counters.supplied, report.counters.finished);
        });
    });
}

#[test]
fn a_queue_whose_handles_are_dropped_on_several_threads_ends() {
    explore(|| {
        Threads::run(async |threads| {
            let queue = queue(&threads);
            drop(queue.add(0..3).expect("it is open"));
            let other = queue.clone();
            let dropping = spawn(async move { drop(other) });
            drop(queue);
            dropping.await.expect("it does not panic");
            // `run` waits for every task.
        });
    });
}
