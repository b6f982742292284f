//! A custom sink: leases that are completed on other threads, against timeouts and the stop.

use std::{
    sync::{Arc, Mutex},
    task::Waker,
};

use shuttle::future::yield_now;

use super::{
    threads::{Threads, unpoisoned},
    world::{Item, MS, World, n, play},
};
use crate::{BoxError, Lease, Runner, Runtime, RuntimeExt, SinkOptions, UpdateSink};

/// Settles some updates at once and some elsewhere, and forgets some.
struct Hands {
    world: World,
    threads: Threads,
}

impl UpdateSink<Item> for Hands {
    type Error = BoxError;

    async fn handle(&mut self, group: Vec<Lease<Item>>) -> Result<(), BoxError> {
        for lease in group {
            let (world, threads) = (self.world.clone(), self.threads.clone());
            match lease.id % 4 {
                0 => finish(&world, lease),
                1 => drop(lease),
                other => self.threads.spawn(Box::pin(async move {
                    match other {
                        2 => yield_now().await,
                        _ => threads.sleep(MS * 2).await,
                    }
                    finish(&world, lease);
                })),
            }
            yield_now().await;
        }
        Ok(())
    }
}

/// Finishes each group at once, and notes it.
struct Whole(World, Arc<Mutex<Vec<Vec<u32>>>>);

impl UpdateSink<Item> for Whole {
    type Error = BoxError;

    async fn handle(&mut self, group: Vec<Lease<Item>>) -> Result<(), BoxError> {
        let ids = group.iter().map(|lease| lease.id).collect();
        unpoisoned(&self.1).push(ids);
        for lease in group {
            finish(&self.0, lease);
        }
        Ok(())
    }
}

fn finish(world: &World, lease: Lease<Item>) {
    let id = lease.id;
    if lease.finish() {
        let wakers = {
            let mut log = world.log();
            log.ends.push(id);
            log.wake()
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

fn start(threads: &Threads, world: &World, options: SinkOptions) -> crate::RunnerHandle<Item> {
    let sink = Hands {
        world: world.clone(),
        threads: threads.clone(),
    };
    Runner::with_sink(Arc::new(threads.clone()), world.supplier(&[3, 3, 2]), sink)
        .sink(options.concurrency(n(3)).workers(n(2)))
        .sequentialize(world.keys())
        .start()
}

/// More than one slice of a batch, with keys, so that the lock is released while it is taken in.
#[test]
fn a_batch_is_handed_over_whole() {
    play(async |threads| {
        let world = World::new(&threads, 100, |_| super::world::Plan::Ready);
        let groups = Arc::default();
        let sink = Whole(world.clone(), Arc::clone(&groups));
        let handle = Runner::with_sink(Arc::new(threads.clone()), world.supplier(&[2, 18]), sink)
            .sink(SinkOptions::batch().concurrency(n(15)))
            .sequentialize(world.keys())
            .start();
        world.until(|log| log.supplied == 20).await;
        let report = handle.stop().await.expect("nothing fails");
        world.check(&report);
        world.log().expected = Some((20, 20));
        let expected = [(0..2), (2..17), (17..20)].map(Vec::from_iter);
        assert_eq!(*unpoisoned(&groups), expected);
        world
    });
}

/// The same while others are handled: workers that become free take updates of the first slice.
#[test]
fn a_batch_that_arrives_amid_others_is_handed_over_whole() {
    play(async |threads| {
        let world = World::new(&threads, 100, |_| super::world::Plan::Ready);
        let groups = Arc::default();
        let sink = Whole(world.clone(), Arc::clone(&groups));
        let handle = Runner::with_sink(Arc::new(threads.clone()), world.supplier(&[2, 18]), sink)
            .sequentialize(world.keys())
            .start();
        world.until(|log| log.supplied == 20).await;
        let report = handle.stop().await.expect("nothing fails");
        world.check(&report);
        let groups = unpoisoned(&groups).clone();
        let ends: Vec<_> = groups.iter().filter_map(|ids| ids.last()).collect();
        assert!(matches!(*ends, [1, 19] | [19]), "{groups:?}");
        world
    });
}

/// The sink waits for updates that arrive, and all of them wait for a key that it has.
#[test]
fn a_sink_learns_that_what_arrived_cannot_start() {
    play(async |threads| {
        let world = World::new(&threads, 1, |_| super::world::Plan::Ready);
        let groups = Arc::default();
        let sink = Whole(world.clone(), Arc::clone(&groups));
        let handle = Runner::with_sink(Arc::new(threads.clone()), world.supplier(&[1, 17]), sink)
            .sequentialize(world.keys())
            .start();
        // A stop would wake it.
        world.until(|log| log.ends.len() == 18).await;
        let report = handle.stop().await.expect("nothing fails");
        world.check(&report);
        let expected: Vec<_> = (0..18).map(|id| vec![id]).collect();
        assert_eq!(*unpoisoned(&groups), expected);
        world
    });
}

#[test]
fn leases_are_settled_once_wherever_that_happens() {
    play(async |threads| {
        let world = World::new(&threads, 3, |_| super::world::Plan::Ready);
        let handle = start(&threads, &world, SinkOptions::concurrent());
        world.until(|log| log.supplied == 8).await;
        let report = handle.stop().await.expect("nothing fails");
        world.check(&report);
        let counters = report.counters;
        world.log().expected = Some((6, 6));
        assert_eq!((counters.finished, counters.failed), (6, 2));
        world
    });
}

/// The report counts. A lease that is finished between the last poll of its task and the timeout was told that it
/// is in time, and counts as late all the same. It is never the other way round.
#[test]
fn a_lease_that_meets_its_timeout_is_settled_once() {
    play(async |threads| {
        let world = World::new(&threads, 3, |_| super::world::Plan::Ready);
        let options = SinkOptions::concurrent().timeout(MS * 2);
        let handle = start(&threads, &world, options);
        world.until(|log| log.supplied == 8).await;
        let report = handle.stop().await.expect("nothing fails");
        world.check(&report);
        let counters = report.counters;
        let told = (counters.finished, counters.finished + counters.timed_out);
        world.log().expected = Some(told);
        assert_eq!(counters.abandoned, 0);
        world
    });
}
