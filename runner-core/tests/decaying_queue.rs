//! The queue alone, without a runner.

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use common::{MS, SECOND, n, runtime};
use futures::FutureExt;
use runner_core::{
    DecayingQueue, Delivery, RuntimeExt, SinkOptions,
    testing::{SimRuntime, for_each_seed},
};

/// One slot, and handlers that take a second. Counts those that have ended.
fn queue(sim: &SimRuntime) -> (DecayingQueue<u32>, Arc<AtomicUsize>) {
    let ended = Arc::new(AtomicUsize::new(0));
    let (clock, count) = (sim.clone(), Arc::clone(&ended));
    let handler = move |_: Delivery<u32>| {
        let (sleep, count) = (clock.sleep(SECOND), Arc::clone(&count));
        async move {
            sleep.await;
            count.fetch_add(1, Ordering::Relaxed);
        }
    };
    let options = SinkOptions::concurrent().concurrency(n(1)).prefetch(0);
    let queue = DecayingQueue::for_each(runtime(sim), handler)
        .options(options.timeout(10 * SECOND))
        .build();
    (queue, ended)
}

#[test]
fn its_tasks_end_after_a_drain() {
    for_each_seed(10, |sim| {
        let (queue, _) = queue(&sim);
        drop(queue.add(0..3).unwrap());
        let report = sim.block_on(queue.drain());
        assert_eq!(report.counters.finished, 3);
        sim.run_until_idle();
        assert_eq!(sim.tasks(), 0);
        assert!(queue.add([3]).is_err());
    });
}

#[test]
fn it_stops_with_its_last_handle() {
    for_each_seed(10, |sim| {
        let (queue, ended) = queue(&sim);
        drop(queue.add(0..3).unwrap());
        let other = queue.clone();
        drop(queue);
        sim.advance(MS);
        drop(other.add([3]).unwrap());
        drop(other);
        sim.advance(10 * SECOND);
        // What was held is still handled.
        assert_eq!(ended.load(Ordering::Relaxed), 4);
        assert_eq!(sim.tasks(), 0);
    });
}

#[test]
fn a_wait_for_room_ends_with_a_stop() {
    for_each_seed(10, |sim| {
        let (queue, _) = queue(&sim);
        let mut room = queue.add(0..3).unwrap();
        assert!((&mut room).now_or_never().is_none());
        let stopping = queue.clone();
        let stop = async {
            sim.sleep(MS).await;
            stopping.stop();
        };
        let (room, ()) = sim.block_on(async { futures::join!(room, stop) });
        assert_eq!((room, sim.elapsed()), (None, MS));
        assert_eq!(sim.block_on(queue.room()), None);
        drop(sim.block_on(queue.drain_within(Duration::ZERO)));
    });
}
