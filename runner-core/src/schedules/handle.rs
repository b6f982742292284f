//! The handle from several threads: stop, stop again, start, drop, and the runtime that goes.

use std::sync::Arc;

use shuttle::future::{spawn, yield_now};

use super::{
    threads::Threads,
    world::{Item, MS, Plan, World, n, play},
};
use crate::{Failure, RunError, Runner, RunnerHandle, Runtime, SinkOptions, StartError, Verdict};

fn mixed(id: u32) -> Plan {
    match id % 3 {
        0 => Plan::Ready,
        1 => Plan::Yields(2),
        _ => Plan::Sleeps(MS * 3),
    }
}

fn start(threads: &Threads, world: &World, batches: &[usize]) -> RunnerHandle<Item> {
    world.log().bound = 2;
    Runner::new(
        Arc::new(threads.clone()),
        world.supplier(batches),
        world.handler(),
    )
    .sink(SinkOptions::concurrent().concurrency(n(2)).workers(n(2)))
    .sequentialize(world.keys())
    .start()
}

#[test]
fn everyone_who_stops_gets_the_one_report() {
    play(async |threads| {
        let world = World::new(&threads, 2, mixed);
        let handle = start(&threads, &world, &[3, 2]);
        let stops: Vec<_> = (0..3)
            .map(|nr| {
                let (handle, world) = (handle.clone(), world.clone());
                spawn(async move {
                    let stopped = match nr {
                        0 => handle.task(),
                        _ => handle.stop(),
                    };
                    if nr > 0 {
                        world.log().stopped = true;
                    }
                    stopped.await.expect("nothing fails").counters
                })
            })
            .collect();
        let report = handle.stop().await.expect("nothing fails");
        world.check(&report);
        // What is held is brought to its end, however many stop.
        assert_eq!(report.counters.abandoned, 0);
        for stop in stops {
            assert_eq!(stop.await.expect("it ends"), report.counters);
        }
        // A call that begins on its thread at the very moment of the stop counts as under way: the
        // look at the state and the call of the supplier cannot be one step.
        assert!(world.log().late_calls <= 1);
        world
    });
}

#[test]
fn a_limit_that_runs_out_settles_everything_once() {
    play(async |threads| {
        let world = World::new(&threads, 2, |id| match id % 4 {
            0 => Plan::Hangs,
            1 => Plan::Yields(3),
            2 => Plan::Sleeps(MS),
            _ => Plan::Ready,
        });
        let handle = start(&threads, &world, &[3, 3]);
        let other = handle.clone();
        let again = spawn(async move { other.stop_within(MS * 2).await.map(|it| it.counters) });
        let first = handle.stop_within(MS).await.expect("nothing fails");
        world.check(&first);
        let again = again.await.expect("it ends").expect("nothing fails");
        assert_eq!(again, first.counters);
        world
    });
}

#[test]
fn what_was_abandoned_comes_again_in_the_next_run() {
    play(async |threads| {
        let world = World::new(&threads, 2, mixed);
        let handle = start(&threads, &world, &[3, 3]);
        let report = handle.stop_within(MS).await.expect("nothing fails");
        world.check(&report);
        drop(report);
        world.until(|log| log.running() == 0).await;
        world.begin_again();
        // Of two who start it, one does.
        let other = handle.clone();
        let racing = spawn(async move { other.start() });
        let started = handle.start();
        let racing = racing.await.expect("it ends");
        assert!(matches!(
            (started, racing),
            (Ok(()), Err(StartError::Running)) | (Err(StartError::Running), Ok(()))
        ));
        let report = handle.stop().await.expect("nothing fails");
        world.check(&report);
        assert_eq!(report.counters.abandoned, 0);
        world
    });
}

#[test]
fn the_task_ends_when_the_last_handle_goes() {
    play(async |threads| {
        let world = World::new(&threads, 2, mixed);
        let handle = start(&threads, &world, &[3]);
        let stopped = handle.stop();
        for _ in 0..2 {
            let handle = handle.clone();
            threads.spawn(Box::pin(async move {
                yield_now().await;
                drop(handle);
            }));
        }
        drop(handle);
        let report = stopped.await.expect("nothing fails");
        world.check(&report);
        world
    });
}

#[test]
fn a_run_that_is_dropped_is_closed_by_the_next_one() {
    play(async |threads| {
        let world = World::new(&threads, 2, mixed);
        world.log().bound = 2;
        let mut runner = Runner::new(
            Arc::new(threads.clone()),
            world.supplier(&[3, 2]),
            world.handler(),
        )
        .sink(SinkOptions::concurrent().concurrency(n(2)).workers(n(2)))
        .sequentialize(world.keys());
        let handle = runner.handle();
        let stopped = handle.task();
        {
            let run = std::pin::pin!(runner.run());
            let moment = std::pin::pin!(async {
                for _ in 0..4 {
                    yield_now().await;
                }
            });
            let _ = futures::future::select(run, moment).await;
        }
        match stopped.await {
            Err(RunError::Dropped { report }) => world.check(&report),
            other => panic!("dropped, but {:?}", other.map(|report| report.counters)),
        }
        world.until(|log| log.running() == 0).await;
        world.begin_again();
        let stopping = world.clone();
        let stop = spawn(async move {
            // Before, there is nothing to stop.
            stopping.until(|log| !log.cut_short).await;
            handle.stop().await.map(|report| report.counters)
        });
        let report = runner.run().await.expect("nothing fails");
        world.check(&report);
        let told = stop.await.expect("it ends").expect("nothing fails");
        assert_eq!(told, report.counters);
        world
    });
}

#[test]
fn everyone_is_told_that_the_runtime_is_gone() {
    play(async |threads| {
        let world = World::new(&threads, 2, |id| match id % 3 {
            0 => Plan::Yields(3),
            1 => Plan::Sleeps(MS),
            _ => Plan::Hangs,
        });
        let handle = start(&threads, &world, &[3, 3]);
        let waiting = handle.clone();
        let waiter = spawn(async move { waiting.task().await });
        let looking = handle.clone();
        let look = spawn(async move {
            for _ in 0..3 {
                let _ = (looking.stats(), looking.in_flight(), looking.health());
                looking.set_concurrency(n(3));
                yield_now().await;
            }
        });
        world.log().bound = 3;
        for _ in 0..3 {
            yield_now().await;
        }
        threads.shut_down();
        for result in [handle.task().await, waiter.await.expect("it ends")] {
            match result {
                Err(RunError::RuntimeGone { report }) => {
                    let counters = report.counters;
                    assert_eq!(counters.settled(), counters.supplied);
                    assert_eq!(counters.abandoned, report.abandoned.len() as u64);
                }
                other => panic!("gone, but {:?}", other.map(|report| report.counters)),
            }
        }
        look.await.expect("it ends");
        assert!(matches!(handle.start(), Err(StartError::Gone)));
        world
    });
}

#[test]
fn a_policy_that_ends_the_run_abandons_what_arrives_meanwhile() {
    play(async |threads| {
        let world = World::new(&threads, 2, |id| match id % 3 {
            0 => Plan::Fails,
            1 => Plan::Yields(1),
            _ => Plan::Ready,
        });
        world.log().bound = 2;
        let handle = Runner::new(
            Arc::new(threads.clone()),
            world.supplier(&[2, 2, 2, 2]),
            world.handler(),
        )
        .sink(SinkOptions::concurrent().concurrency(n(2)).workers(n(2)))
        .sequentialize(world.keys())
        .policy(|_: Failure<Item>| Verdict::Stop)
        .start();
        match handle.task().await {
            Err(RunError::Policy { report, .. }) => world.check(&report),
            other => panic!("ended, but {:?}", other.map(|report| report.counters)),
        }
        world
    });
}
