//! How a run ends: stop, stop within, drop, pause, restart, and what the supplier is told.

mod common;

use std::{
    convert::Infallible,
    num::NonZeroUsize,
    sync::{Arc, Mutex},
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use common::{LONG, MS, SECOND, always, end_time, ended, n, quiet, runtime, start};
use runner_core::{
    Confirmation, Delivery, Failure, Fate, Key, Progress, RunError, RunState, Runner, RunnerHandle,
    Runtime, RuntimeExt, SinkOptions, SourceError, StartError, SupplyError, UpdateSupplier,
    Verdict,
    testing::{
        Close, End, Log, Plan, Recorder, Script, ScriptedSupplier, SimRuntime, Step, for_each_seed,
    },
};

fn concurrent(concurrency: usize) -> SinkOptions {
    SinkOptions::concurrent().concurrency(n(concurrency))
}

/// What is left of a report in a comparison: id, started, unresponsive, fate.
fn abandoned(report: &runner_core::Report<u32>) -> Vec<(u64, bool, bool, Fate)> {
    let listed = report.abandoned.iter();
    listed
        .map(|it| (it.id, it.started, it.unresponsive, it.fate))
        .collect()
}

// stop

#[test]
fn stop_waits_for_handlers_and_starts_no_further_fetch() {
    for_each_seed(30, |sim| {
        let recorder = always(&sim, Plan::ok().sleep(10 * SECOND));
        let log = recorder.log();
        let (handle, script) = start(&sim, [0, 1], recorder, concurrent(10));
        sim.advance(SECOND);
        let calls = script.calls().len();
        let stopped = handle.stop();
        script.push(Step::Batch(vec![2, 3]));
        assert_eq!(handle.health().state, RunState::Stopping);
        assert!(handle.is_running());

        let report = sim.block_on(stopped).unwrap();
        assert_eq!(sim.elapsed(), 10 * SECOND);
        assert_eq!(report.counters.finished, 2);
        assert_eq!(report.counters.supplied, 2);
        assert!(report.abandoned.is_empty());
        assert_eq!(log.finished(), [0, 1]);
        assert_eq!(script.calls().len(), calls);
        assert!(!script.is_over());
        assert!(!handle.is_running());
        assert_eq!(handle.health().state, RunState::Stopped);
    });
}

#[test]
fn stop_at_capacity_brings_all_that_is_held_to_its_end() {
    for_each_seed(30, |sim| {
        let recorder = always(&sim, Plan::ok().sleep(SECOND));
        let log = recorder.log();
        let (handle, _) = start(&sim, 0..50, recorder, concurrent(3));
        sim.advance(MS);
        assert_eq!((handle.stats().in_flight, handle.stats().ready), (3, 47));
        let report = sim.block_on(handle.stop()).unwrap();
        assert_eq!(report.counters.finished, 50);
        assert_eq!(log.max_concurrency(), 3);
    });
}

#[test]
fn an_idle_runner_stops_at_once() {
    for_each_seed(30, |sim| {
        let (handle, script) = start(&sim, [0], always(&sim, Plan::ok()), concurrent(3));
        sim.advance(SECOND);
        let report = sim.block_on(handle.stop()).unwrap();
        assert_eq!(sim.elapsed(), SECOND);
        assert_eq!(report.counters.finished, 1);
        // The poll that was pending was dropped.
        assert_eq!(script.calls().last().unwrap().answered, None);
        assert_eq!(script.closes(), [1]);
    });
}

#[test]
fn every_call_of_stop_gets_the_same_report() {
    for_each_seed(10, |sim| {
        let recorder = always(&sim, Plan::ok().sleep(SECOND));
        let (handle, script) = start(&sim, 0..4, recorder, concurrent(10));
        sim.advance(MS);
        let waiting = handle.task();
        let (first, second) = (handle.stop(), handle.clone().stop());
        let reports = sim.block_on(async {
            let (second, first, waiting) = (second.await, first.await, waiting.await);
            // Nothing is left to stop; still the report.
            let late = handle.stop().await;
            let later = handle.stop_within(Duration::ZERO).await;
            [first, second, waiting, late, later, handle.stopped().await]
        });
        for report in reports.map(Result::unwrap) {
            assert_eq!(report.counters.finished, 4);
            assert_eq!(report.duration, SECOND);
        }
        assert_eq!(script.closes(), [4]);
    });
}

#[test]
fn the_future_of_a_stop_may_be_dropped() {
    let sim = SimRuntime::new(1);
    let recorder = always(&sim, Plan::ok().sleep(SECOND));
    let (handle, _) = start(&sim, 0..4, recorder, concurrent(10));
    sim.advance(MS);
    drop(handle.stop());
    sim.advance(SECOND);
    assert!(!handle.is_running());
    let report = ended(handle.task()).expect("the run is over").unwrap();
    assert_eq!(report.counters.finished, 4);
}

#[test]
fn a_stop_before_the_first_poll_ends_the_first_run() {
    for_each_seed(10, |sim| {
        let recorder = always(&sim, Plan::ok());
        let (handle, script) = start(&sim, [0], recorder, concurrent(10));
        let report = sim.block_on(handle.stop()).unwrap();
        assert_eq!(report.counters.supplied, 0);
        assert!(script.calls().is_empty());
        assert_eq!(script.closes(), [0]);
    });
}

/// A probe that looks before the task was polled must not take it for dead.
#[test]
fn a_runner_is_running_from_the_call_that_starts_it() {
    let sim = SimRuntime::new(1);
    let recorder = always(&sim, Plan::ok());
    let (handle, _) = start(&sim, [0], recorder, concurrent(10));
    let looks = |state: RunState, running: bool| {
        let health = handle.health();
        assert_eq!((health.state, health.is_live()), (state, running));
        assert_eq!(handle.is_running(), running);
    };
    looks(RunState::Polling, true);
    handle.pause();
    looks(RunState::Paused, true);
    handle.resume();
    let stopped = handle.stop();
    looks(RunState::Stopping, true);
    sim.block_on(stopped).unwrap();
    looks(RunState::Stopped, false);
    handle.start().unwrap();
    looks(RunState::Polling, true);
    sim.advance(SECOND);
    looks(RunState::Polling, true);
}

#[test]
fn a_stop_before_run_is_called_ends_that_run_only() {
    let sim = SimRuntime::new(1);
    let supplier = ScriptedSupplier::new(&sim).batch([0]);
    let mut runner = Runner::new(runtime(&sim), supplier, always(&sim, Plan::ok()));
    let handle = runner.handle();
    let stopped = handle.stop();
    assert!(ended(handle.task()).is_none());
    let report = sim.block_on(runner.run()).unwrap();
    assert_eq!(report.counters.supplied, 0);
    assert!(ended(stopped).unwrap().is_ok());

    let report = sim.block_on(async {
        let stop = async {
            sim.sleep(SECOND).await;
            handle.stop().await.unwrap()
        };
        let (ran, stopped) = futures::join!(runner.run(), stop);
        assert_eq!(ran.unwrap().counters, stopped.counters);
        stopped
    });
    assert_eq!(report.counters.finished, 1);
}

#[test]
fn after_a_stop_it_can_be_started_again() {
    for_each_seed(20, |sim| {
        let recorder = always(&sim, Plan::ok().sleep(SECOND));
        let log = recorder.log();
        let (handle, script) = start(&sim, [0, 1], recorder, concurrent(10));
        sim.advance(MS);
        assert_eq!(handle.start(), Err(StartError::Running));
        let first = handle.stop();
        assert_eq!(handle.start(), Err(StartError::Running));
        let first = sim.block_on(first).unwrap();

        script.push(Step::Batch(vec![2]));
        assert_eq!(handle.start(), Ok(()));
        assert_eq!(handle.start(), Err(StartError::Running));
        let second = handle.task();
        sim.advance(2 * SECOND);
        assert!(handle.is_running());
        assert_eq!(handle.stats().counters.finished, 1);
        drop(handle.stop());
        let second = sim.block_on(second).unwrap();
        assert_eq!(first.counters.supplied, 2);
        assert_eq!(second.counters.supplied, 1);
        assert_eq!(log.finished(), [0, 1, 2]);
        // Each run counts from its own beginning.
        assert_eq!(script.closes(), [2, 1]);
    });
}

#[test]
fn a_stop_right_after_a_restart_ends_the_new_run() {
    for_each_seed(20, |sim| {
        let (handle, script) = start(&sim, [0], always(&sim, Plan::ok()), concurrent(10));
        sim.advance(MS);
        sim.block_on(handle.stop()).unwrap();
        script.push(Step::Batch(vec![1]));
        handle.start().unwrap();
        let report = sim.block_on(handle.stop()).unwrap();
        assert_eq!(report.counters.supplied, 0);
        assert_eq!(script.closes(), [1, 0]);
    });
}

#[test]
fn a_runner_that_the_user_drives_cannot_be_started_by_a_handle() {
    let sim = SimRuntime::new(1);
    let supplier = ScriptedSupplier::<u32>::new(&sim);
    let runner = Runner::new(runtime(&sim), supplier, always(&sim, Plan::ok()));
    let handle = runner.handle();
    assert_eq!(handle.start(), Err(StartError::DrivenByUser));
    // It may never have run, so there is nothing to be done again.
    let text = StartError::DrivenByUser.to_string();
    assert!(text.contains("start() or run() of the runner"), "{text}");
    drop(runner);
    assert_eq!(handle.start(), Err(StartError::Gone));
    assert!(StartError::Gone.to_string().contains("dropped"));
}

#[test]
fn dropping_all_handles_stops_nothing() {
    let sim = SimRuntime::new(1);
    let recorder = always(&sim, Plan::ok().sleep(SECOND));
    let log = recorder.log();
    let (handle, script) = start(&sim, [0], recorder, concurrent(10));
    drop(handle);
    sim.advance(10 * SECOND);
    script.push(Step::Batch(vec![1]));
    sim.advance(10 * SECOND);
    assert_eq!(log.finished(), [0, 1]);
    assert_eq!(script.closes(), [0_usize; 0]);
}

#[test]
fn a_parked_runner_ends_with_its_last_handle() {
    let sim = SimRuntime::new(1);
    let (handle, _) = start(&sim, [0], always(&sim, Plan::ok()), concurrent(10));
    let other = handle.clone();
    sim.block_on(handle.stop()).unwrap();
    drop(handle);
    sim.run_until_idle();
    assert_eq!(sim.tasks(), 1);
    drop(other);
    sim.run_until_idle();
    assert_eq!(sim.tasks(), 0);
}

/// Whatever they wait for at the stop: their time, or a slot.
#[test]
fn a_retry_that_waits_at_the_stop_is_the_last_one() {
    for_each_seed(30, |sim| {
        let recorder = Recorder::new(&sim, |update: &Delivery<u32>| match **update {
            // Keeps the only slot from 2 s to 12 s.
            3 => Plan::ok().sleep(10 * SECOND),
            _ => Plan::fail("again").sleep(SECOND),
        });
        let log = recorder.log();
        // 0 becomes due while the slot is taken, 1 is due only much later.
        let supplier = ScriptedSupplier::new(&sim).batch([0, 1, 3]);
        let handle = Runner::new(runtime(&sim), supplier, recorder)
            .sink(concurrent(1))
            .policy(|failure: Failure<u32>| Verdict::Retry {
                after: match *failure.update {
                    0 => 5 * SECOND,
                    _ => LONG,
                },
            })
            .start();
        sim.advance(8 * SECOND);
        assert_eq!(handle.stats().ready, 1);
        assert_eq!(handle.stats().waiting, 1);
        let report = sim.block_on(handle.stop()).unwrap();
        assert_eq!(log.started(), [0, 1, 3, 0, 1]);
        assert_eq!(report.counters.retried, 2);
        assert_eq!(report.counters.failed, 2);
        assert_eq!(report.counters.finished, 1);
        assert_eq!(sim.elapsed(), 14 * SECOND);
    });
}

#[test]
fn a_stopping_runner_tells_its_handlers() {
    let sim = SimRuntime::new(1);
    let clock = sim.clone();
    let handler = move |update: Delivery<u32>| {
        let sim = clock.clone();
        async move {
            while !update.is_stopping() {
                sim.sleep(100 * MS).await;
            }
        }
    };
    let (handle, _) = start(&sim, [0], handler, concurrent(10));
    sim.advance(10 * SECOND);
    assert_eq!(handle.size(), 1);
    let report = sim.block_on(handle.stop()).unwrap();
    assert_eq!(report.counters.finished, 1);
    assert!(report.duration <= 10 * SECOND + 100 * MS);
}

// stop_within

#[test]
fn stop_within_lists_exactly_what_was_abandoned() {
    for_each_seed(30, |sim| {
        let supplier = ScriptedSupplier::new(&sim).batch(0..6_u32);
        let script = supplier.script();
        let recorder = Recorder::new(&sim, |update: &Delivery<u32>| match **update {
            1 => Plan::hang(),
            3 => Plan::fail("later"),
            _ => Plan::ok().sleep(SECOND),
        });
        let log = recorder.log();
        // 0 ends; 1 hangs, and keeps 2 and 4 of the same chat from starting; 3 waits for a retry,
        // gets it at once, and hangs on the policy; 5 ends.
        let handle = Runner::new(runtime(&sim), supplier, recorder)
            .sink(concurrent(10))
            .sequentialize(|update: &u32| {
                [Key::chat(i64::from(match update {
                    1 | 2 | 4 => 1,
                    other => other + 10,
                }))]
            })
            .policy(|failure: Failure<u32>| async move {
                if failure.update.redelivered() {
                    std::future::pending::<()>().await;
                }
                Verdict::Retry { after: LONG }
            })
            .start();
        sim.advance(100 * MS);
        let report = sim.block_on(handle.stop_within(5 * SECOND)).unwrap();
        assert_eq!(sim.elapsed(), 5100 * MS);
        assert_eq!(
            abandoned(&report),
            [
                (1, true, false, Fate::Lost),
                (2, false, false, Fate::Lost),
                (3, true, false, Fate::Lost),
                (4, false, false, Fate::Lost),
            ]
        );
        let updates: Vec<u32> = report.abandoned.iter().map(|it| *it.update).collect();
        assert_eq!(updates, [1, 2, 3, 4]);
        assert_eq!(report.abandoned[2].attempt.get(), 2);
        let counters = report.counters;
        assert_eq!((counters.finished, counters.abandoned), (2, 4));
        assert_eq!(counters.settled(), counters.supplied);
        assert_eq!(script.closes(), [1]);
        assert_eq!(log.running(), 0);
        assert!(!log.started().contains(&2));
    });
}

#[test]
fn a_stop_that_is_done_in_time_does_not_wait_for_its_limit() {
    let sim = SimRuntime::new(1);
    let recorder = always(&sim, Plan::ok().sleep(SECOND));
    let (handle, _) = start(&sim, 0..4, recorder, concurrent(10));
    sim.advance(MS);
    let report = sim.block_on(handle.stop_within(LONG)).unwrap();
    assert_eq!(sim.elapsed(), SECOND);
    assert!(report.abandoned.is_empty());
}

/// It was told to end while it did not look; the report comes without it.
#[test]
fn stop_within_returns_a_second_after_its_limit_whatever_handlers_do() {
    for_each_seed(20, |sim| {
        let recorder = always(&sim, Plan::ok().sleep(SECOND).block(1_000 * SECOND));
        let (handle, _) = start(&sim, [0], recorder, concurrent(10).workers(n(2)));
        sim.advance(MS);
        let stopped = handle.stop_within(5 * SECOND);
        let (at, report) = end_time(&sim, stopped, 100 * SECOND).expect("it is over");
        assert!(at > 5 * SECOND && at <= 6 * SECOND + MS, "{at:?}");
        let report = report.unwrap();
        assert_eq!(abandoned(&report), [(0, true, true, Fate::Lost)]);
        assert_eq!(report.counters.abandoned, 1);
    });
}

/// It was listed as abandoned; that it ends after all must not count it a second time, nor ask the
/// policy, nor start anything.
#[test]
fn a_handler_that_ends_after_the_report_changes_nothing() {
    quiet();
    for last in [Plan::ok(), Plan::fail("late"), Plan::panic("late")] {
        for_each_seed(10, |sim| {
            let plan = last.clone().sleep(SECOND).block(20 * SECOND);
            let recorder = Recorder::new(&sim, move |update: &Delivery<u32>| match **update {
                0 => plan.clone(),
                _ => Plan::ok(),
            });
            let log = recorder.log();
            let supplier = ScriptedSupplier::new(&sim).batch(0..3_u32);
            let handle = Runner::new(runtime(&sim), supplier, recorder)
                .sink(concurrent(10).timeout(2 * SECOND))
                .sequentialize(|_| [Key::chat(1)])
                .policy(|_: Failure<u32>| -> Verdict { panic!("the policy was asked") })
                .start();
            sim.advance(100 * MS);
            let stopped = handle.stop_within(SECOND);
            let (_, report) = end_time(&sim, stopped, 100 * SECOND).expect("it is over");
            let report = report.unwrap();
            assert_eq!(report.counters.abandoned, 3);
            assert_eq!(handle.stats().counters, report.counters);
            assert_eq!(log.started(), [0]);
            assert_eq!(log.running(), 0);
            assert!(handle.in_flight().is_empty());
            assert_eq!(sim.panics(), 0);
        });
    }
}

#[test]
fn of_several_limits_the_earliest_counts() {
    let limits: [&[Option<u64>]; 4] = [
        &[Some(10), Some(3), Some(20)],
        &[None, Some(3), None],
        &[Some(3), None],
        &[Some(3)],
    ];
    for limits in limits {
        for_each_seed(5, |sim| {
            let (handle, _) = start(&sim, [0], always(&sim, Plan::hang()), concurrent(10));
            sim.advance(SECOND);
            let stops: Vec<_> = limits
                .iter()
                .map(|limit| match limit {
                    Some(seconds) => handle.stop_within(SECOND * *seconds as u32),
                    None => handle.stop(),
                })
                .collect();
            let reports = sim.block_on(futures::future::join_all(stops));
            assert_eq!(sim.elapsed(), 4 * SECOND);
            for report in reports {
                assert_eq!(report.unwrap().counters.abandoned, 1);
            }
        });
    }
}

#[test]
fn a_limit_may_be_shortened_while_it_waits() {
    let sim = SimRuntime::new(1);
    let (handle, _) = start(&sim, [0], always(&sim, Plan::hang()), concurrent(10));
    sim.advance(SECOND);
    let stopped = handle.stop();
    sim.advance(100 * SECOND);
    assert!(handle.is_running());
    drop(handle.stop_within(100 * SECOND));
    sim.advance(SECOND);
    drop(handle.stop_within(SECOND));
    sim.block_on(stopped).unwrap();
    assert_eq!(sim.elapsed(), 103 * SECOND);
}

#[test]
fn a_limit_of_zero_cancels_at_once() {
    for_each_seed(20, |sim| {
        let recorder = always(&sim, Plan::hang());
        let log = recorder.log();
        let (handle, _) = start(&sim, 0..5, recorder, concurrent(2));
        sim.advance(SECOND);
        let report = sim.block_on(handle.stop_within(Duration::ZERO)).unwrap();
        assert_eq!(sim.elapsed(), SECOND);
        assert_eq!(report.counters.abandoned, 5);
        let started = report.abandoned.iter().filter(|it| it.started).count();
        assert_eq!(started, 2);
        assert_eq!(log.running(), 0);
    });
}

#[test]
fn a_limit_beyond_the_clock_is_none() {
    let sim = SimRuntime::new(1);
    let recorder = always(&sim, Plan::ok().sleep(LONG));
    let (handle, _) = start(&sim, [0], recorder, concurrent(2));
    sim.advance(SECOND);
    let report = sim.block_on(handle.stop_within(Duration::MAX)).unwrap();
    assert_eq!(report.counters.finished, 1);
}

/// Its timeout falls into the time that cancelled handlers are given to end.
#[test]
fn a_time_out_after_the_limit_does_not_ask_the_policy() {
    for_each_seed(20, |sim| {
        let supplier = ScriptedSupplier::new(&sim).batch([0_u32]);
        // At the limit it is inside of a poll that takes until after its timeout.
        let recorder = always(
            &sim,
            Plan::hang().sleep(900 * MS).block(400 * MS).sleep(LONG),
        );
        let handle = Runner::new(runtime(&sim), supplier, recorder)
            .sink(concurrent(2).timeout(1200 * MS).workers(n(2)))
            .policy(|_: Failure<u32>| -> Verdict { panic!("the policy was asked") })
            .start();
        sim.run_until_idle();
        let stopped = handle.stop_within(SECOND);
        let (at, report) = end_time(&sim, stopped, 10 * SECOND).expect("it is over");
        assert_eq!(at, 1300 * MS);
        assert_eq!(abandoned(&report.unwrap()), [(0, true, false, Fate::Lost)]);
    });
}

/// Nothing can end it inside of the poll, and nothing would afterwards.
#[test]
fn a_handler_that_is_first_pending_after_the_limit_is_dropped() {
    for_each_seed(20, |sim| {
        let recorder = always(&sim, Plan::hang().block(3 * SECOND));
        let log = recorder.log();
        let (handle, _) = start(&sim, [0], recorder, concurrent(2).workers(n(2)));
        let stopper = (sim.clone(), handle.clone());
        sim.spawn(Box::pin(async move {
            let (sim, handle) = stopper;
            sim.sleep(SECOND).await;
            drop(handle.stop_within(SECOND).await);
        }));
        sim.advance(10 * SECOND);
        let entry = &log.entries()[0];
        assert_eq!(
            (entry.ended, entry.end),
            (Some(3 * SECOND), Some(End::Dropped))
        );
        let report = ended(handle.stopped()).expect("it is over").unwrap();
        assert!(report.abandoned[0].unresponsive);
    });
}

#[test]
fn nothing_starts_after_the_limit() {
    for_each_seed(50, |sim| {
        let dice = sim.clone();
        let recorder = Recorder::new(&sim, move |_: &Delivery<u32>| {
            Plan::ok().sleep(MS * dice.below(3_000) as u32)
        });
        let log = recorder.log();
        let (handle, _) = start(&sim, 0..100, recorder, concurrent(4).workers(n(3)));
        sim.advance(MS * sim.below(2_000) as u32);
        let limit = MS * sim.below(5_000) as u32;
        let over = sim.elapsed() + limit;
        let report = sim.block_on(handle.stop_within(limit)).unwrap();
        sim.advance(100 * SECOND);
        assert!(log.entries().iter().all(|entry| entry.started <= over));
        assert_eq!(log.finished().len() as u64, report.counters.finished);
        assert_eq!(report.counters.settled(), report.counters.supplied);
        assert_eq!(report.abandoned.len() as u64, report.counters.abandoned);
    });
}

// Dropping

/// Drives `runner` for a while and drops the future of its run.
fn run_for<S, C>(sim: &SimRuntime, runner: &mut Runner<S, C>, span: Duration)
where
    S: runner_core::UpdateSupplier<Update = u32>,
    C: runner_core::UpdateConsumer<u32>,
{
    let run = sim.timeout(span, runner.run());
    assert!(sim.block_on(run).is_none(), "the run ended by itself");
}

#[test]
fn dropping_a_run_cancels_and_confirms_nothing() {
    for_each_seed(30, |sim| {
        let supplier = ScriptedSupplier::new(&sim).batch(0..6_u32).rewinding();
        let script = supplier.script();
        let recorder = Recorder::new(&sim, |update: &Delivery<u32>| match **update {
            0 | 2 => Plan::ok(),
            _ => Plan::ok().sleep(10 * SECOND),
        });
        let log = recorder.log();
        let mut runner = Runner::new(runtime(&sim), supplier, recorder).sink(concurrent(3));
        let handle = runner.handle();
        let waiter = handle.task();
        run_for(&sim, &mut runner, SECOND);

        assert_eq!(script.closes(), [0_usize; 0]);
        assert!(!handle.is_running());
        let Err(RunError::Dropped { report }) = ended(waiter).expect("waiters are told") else {
            panic!("not dropped");
        };
        assert_eq!(report.confirmation, Confirmation::Failed);
        assert_eq!(
            (report.counters.finished, report.counters.abandoned),
            (2, 4)
        );
        assert!(report.abandoned.iter().all(|it| it.fate == Fate::Unknown));
        assert_eq!(report.abandoned.iter().filter(|it| it.started).count(), 3);
        sim.run_until_idle();
        // Whoever could wait, was dropped.
        assert_eq!(log.running(), 0);
        assert_eq!(sim.tasks(), 0);

        // The next run closes first, up to the first one that was not settled.
        run_for(&sim, &mut runner, 100 * SECOND);
        assert_eq!(script.closes(), [1]);
        let again: Vec<u32> = log.started().into_iter().skip(5).collect();
        assert_eq!(again, [1, 2, 3, 4, 5]);
    });
}

/// Supplies 0 and 1, of which 1 is abandoned by a stop, and hangs in its first close.
fn dropped_while_closing(
    sim: &SimRuntime,
) -> (
    Runner<ScriptedSupplier<u32>, impl runner_core::UpdateConsumer<u32> + use<>>,
    Script<u32>,
    Log<u32>,
) {
    let supplier = ScriptedSupplier::new(sim)
        .batch([0, 1])
        .rewinding()
        .on_close(Close::Hang);
    let script = supplier.script();
    let recorder = Recorder::new(sim, |update: &Delivery<u32>| match **update {
        1 if update.attempt().get() == 1 => Plan::ok().sleep(5 * SECOND),
        _ => Plan::ok(),
    });
    let log = recorder.log();
    let mut runner = Runner::new(runtime(sim), supplier, recorder);
    let handle = runner.handle();
    let stop = async {
        sim.sleep(SECOND).await;
        drop(handle.stop_within(Duration::ZERO));
        sim.sleep(100 * MS).await;
    };
    // The run is dropped while it waits for the supplier.
    let run = runner.run();
    sim.block_on(async {
        let (run, stop) = (std::pin::pin!(run), std::pin::pin!(stop));
        match futures::future::select(run, stop).await {
            futures::future::Either::Right(_) => {}
            futures::future::Either::Left(_) => panic!("the run ended"),
        }
    });
    assert_eq!(script.closes(), [1]);
    let Some(Err(RunError::Dropped { report })) = ended(handle.task()) else {
        panic!("not dropped");
    };
    assert_eq!(abandoned(&report), [(1, true, false, Fate::Unknown)]);
    (runner, script, log)
}

#[test]
fn a_run_that_is_dropped_while_it_closes_does_not_count_as_settled() {
    let sim = SimRuntime::new(1);
    let (mut runner, script, log) = dropped_while_closing(&sim);
    run_for(&sim, &mut runner, 100 * SECOND);
    // It would have been lost by a close that counts it as settled.
    assert_eq!(script.closes(), [1, 1]);
    assert_eq!(log.finished(), [0, 1]);
}

#[test]
fn a_run_that_is_dropped_while_it_closes_for_the_one_before_forgets_nothing() {
    let sim = SimRuntime::new(1);
    let supplier = ScriptedSupplier::new(&sim)
        .batch([0, 1, 2])
        .rewinding()
        .on_close(Close::Hang);
    let script = supplier.script();
    let recorder = Recorder::new(&sim, |update: &Delivery<u32>| match **update {
        2 => Plan::ok().sleep(5 * SECOND),
        _ => Plan::ok(),
    });
    let log = recorder.log();
    let mut runner = Runner::new(runtime(&sim), supplier, recorder);
    run_for(&sim, &mut runner, SECOND);
    run_for(&sim, &mut runner, SECOND);
    run_for(&sim, &mut runner, 10 * SECOND);
    assert_eq!(script.closes(), [2, 2]);
    assert_eq!(log.finished(), [0, 1, 2]);
}

#[test]
fn a_run_that_is_dropped_before_its_first_poll_has_not_begun() {
    let sim = SimRuntime::new(1);
    let supplier = ScriptedSupplier::new(&sim).batch([0_u32]);
    let mut runner = Runner::new(runtime(&sim), supplier, always(&sim, Plan::ok()));
    let handle = runner.handle();
    drop(runner.run());
    assert!(ended(handle.task()).is_none());
    assert!(!handle.is_running());
}

#[test]
fn a_runtime_that_is_shut_down_ends_the_run() {
    for_each_seed(30, |sim| {
        let recorder = always(&sim, Plan::hang());
        let (handle, script) = start(&sim, 0..10, recorder, concurrent(3));
        let waiter = handle.task();
        if sim.below(2) == 0 {
            sim.advance(SECOND);
        }
        sim.shut_down();
        let error = ended(waiter).expect("waiters are told").unwrap_err();
        assert!(matches!(error, RunError::RuntimeGone { .. }), "{error:?}");
        let counters = error.report().counters;
        assert_eq!(counters.abandoned, counters.supplied);
        assert_eq!(script.closes(), [0_usize; 0]);
        assert!(!handle.is_running());
        assert_eq!(handle.start(), Err(StartError::Gone));
        // Nothing hangs, and nothing panics.
        assert!(ended(handle.stop()).unwrap().is_err());
    });
}

/// If each of them looked at all the others, this would take minutes.
#[test]
fn a_runtime_that_is_shut_down_may_drop_very_many_handlers() {
    const COUNT: u32 = 100_000;
    let sim = SimRuntime::new(1);
    let hang = |_: Delivery<u32>| std::future::pending::<()>();
    let (handle, _) = start(&sim, 0..COUNT, hang, concurrent(COUNT as usize));
    let waiter = handle.task();
    sim.advance(MS);
    assert_eq!(handle.size(), COUNT as usize);
    sim.shut_down();
    let error = ended(waiter).expect("waiters are told").unwrap_err();
    assert_eq!(error.report().abandoned.len(), COUNT as usize);
}

/// A user who drives the run outside of the runtime sees its end, too.
#[test]
fn a_runtime_that_is_shut_down_under_a_driven_run_ends_it() {
    // Without the first turn, tasks are dropped that were never polled.
    for started in [false, true] {
        let sim = SimRuntime::new(1);
        let supplier = ScriptedSupplier::new(&sim).batch(0..5_u32);
        let script = supplier.script();
        let recorder = always(&sim, Plan::ok().sleep(LONG));
        // One after the other, so that none has nothing to do.
        let options = concurrent(3).workers(n(1));
        let mut runner = Runner::new(runtime(&sim), supplier, recorder).sink(options);
        let mut run = Box::pin(runner.run());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(run.as_mut().poll(&mut cx).is_pending());
        if started {
            sim.run_until_idle();
        }
        sim.shut_down();
        let Poll::Ready(Err(RunError::RuntimeGone { report })) = run.as_mut().poll(&mut cx) else {
            panic!("it goes on without a runtime");
        };
        assert_eq!(report.counters.abandoned, 5);
        assert_eq!(report.confirmation, Confirmation::Failed);
        assert_eq!(script.closes(), [0_usize; 0]);
    }
}

/// A task that has nothing to do tells of it as well, whether or not it was just given something.
#[test]
fn a_runtime_that_is_shut_down_while_a_task_waits_to_be_called_ends_the_run() {
    for called in [false, true] {
        let sim = SimRuntime::new(1);
        let supplier = ScriptedSupplier::new(&sim).batch([0_u32]);
        let script = supplier.script();
        let recorder = always(&sim, Plan::ok());
        let mut runner = Runner::new(runtime(&sim), supplier, recorder).sink(concurrent(3));
        let mut run = Box::pin(runner.run());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(run.as_mut().poll(&mut cx).is_pending());
        sim.run_until_idle();
        assert_eq!(sim.tasks(), 1, "it is kept");
        if called {
            script.push(Step::Batch(vec![1]));
            assert!(run.as_mut().poll(&mut cx).is_pending());
        }
        sim.shut_down();
        let Poll::Ready(Err(RunError::RuntimeGone { report })) = run.as_mut().poll(&mut cx) else {
            panic!("it goes on without a runtime");
        };
        let counters = report.counters;
        assert_eq!(
            (counters.finished, counters.abandoned),
            (1, u64::from(called))
        );
    }
}

/// Tasks that wait to be called are not kept for longer than the run.
#[test]
fn no_task_outlives_its_run() {
    for_each_seed(20, |sim| {
        let recorder = Recorder::new(&sim, |update: &Delivery<u32>| match **update % 3 {
            0 => Plan::ok(),
            _ => Plan::ok().sleep(MS * **update),
        });
        let supplier = ScriptedSupplier::new(&sim).batch(0..30_u32);
        let script = supplier.script();
        let mut runner = Runner::new(runtime(&sim), supplier, recorder).sink(concurrent(20));
        let handle = runner.handle();
        let stopper = sim.clone();
        let after = MS * sim.below(40) as u32;
        let stopped = async {
            stopper.sleep(after).await;
            script.push(Step::Batch(vec![30, 31]));
            stopper.sleep(MS).await;
            handle.stop().await
        };
        let (report, _) = sim.block_on(futures::future::join(runner.run(), stopped));
        assert_eq!(report.unwrap().counters.abandoned, 0);
        sim.run_until_idle();
        assert_eq!(sim.tasks(), 0);
    });
}

// Pause and concurrency

#[test]
fn pause_drops_the_poll_and_resume_fetches_again() {
    for_each_seed(20, |sim| {
        let recorder = always(&sim, Plan::ok().sleep(SECOND));
        let log = recorder.log();
        let (handle, script) = start(&sim, [0], recorder, concurrent(10));
        sim.advance(MS);
        assert_eq!(script.calls().len(), 2);
        handle.pause();
        sim.advance(MS);
        assert_eq!(handle.health().state, RunState::Paused);
        script.push(Step::Batch(vec![1]));
        sim.advance(10 * SECOND);
        // What was held went on, and nothing else came.
        assert_eq!(log.finished(), [0]);
        assert_eq!(script.calls().len(), 2);

        handle.resume();
        sim.advance(MS);
        assert_eq!(log.started(), [0, 1]);
        assert_eq!(handle.health().state, RunState::Polling);
    });
}

#[test]
fn a_paused_runner_stops() {
    for_each_seed(20, |sim| {
        let recorder = always(&sim, Plan::ok().sleep(5 * SECOND));
        let (handle, script) = start(&sim, [0], recorder, concurrent(10));
        sim.advance(SECOND);
        handle.pause();
        sim.advance(SECOND);
        let report = sim.block_on(handle.stop()).unwrap();
        assert_eq!(report.counters.finished, 1);
        assert_eq!(sim.elapsed(), 5 * SECOND);
        assert_eq!(script.closes(), [1]);

        // It is still paused after a restart.
        script.push(Step::Batch(vec![1]));
        let calls = script.calls().len();
        handle.start().unwrap();
        sim.advance(SECOND);
        assert_eq!(handle.health().state, RunState::Paused);
        assert_eq!(script.calls().len(), calls);
        handle.resume();
        sim.advance(10 * SECOND);
        assert_eq!(handle.stats().counters.finished, 1);
    });
}

#[test]
fn a_runner_may_be_paused_before_it_begins() {
    let sim = SimRuntime::new(1);
    let supplier = ScriptedSupplier::new(&sim).batch([0_u32]);
    let script = supplier.script();
    let runner = Runner::new(runtime(&sim), supplier, always(&sim, Plan::ok()));
    runner.handle().pause();
    let handle = runner.start();
    sim.advance(SECOND);
    assert!(script.calls().is_empty());
    handle.resume();
    sim.advance(SECOND);
    assert_eq!(handle.stats().counters.finished, 1);
}

#[test]
fn a_lowered_concurrency_cancels_nothing_and_admits_nothing_until_it_is_kept() {
    for_each_seed(20, |sim| {
        let recorder = Recorder::new(&sim, |update: &Delivery<u32>| {
            Plan::ok().sleep(SECOND * (1 + update.min(7)))
        });
        let log = recorder.log();
        let (handle, _) = start(&sim, 0..20, recorder, concurrent(8).workers(n(1)));
        sim.advance(MS);
        assert_eq!(log.started().len(), 8);
        handle.set_concurrency(n(3));
        assert_eq!((handle.size(), handle.stats().capacity), (8, 0));
        // They end at 1, 2, … 8 s; at 5 s three are left.
        sim.advance(5 * SECOND);
        assert_eq!(log.started().len(), 8);
        assert_eq!(handle.size(), 3);
        sim.advance(SECOND);
        assert_eq!(log.started().len(), 9);
        assert!(
            log.entries()
                .iter()
                .all(|entry| entry.end != Some(End::Dropped))
        );

        handle.set_concurrency(n(6));
        sim.advance(MS);
        assert_eq!(handle.size(), 6);
        sim.advance(100 * SECOND);
        assert_eq!(log.finished().len(), 20);
        assert_eq!(log.max_concurrency(), 8);
    });
}

#[test]
fn a_new_concurrency_is_in_force_for_later_runs() {
    let sim = SimRuntime::new(1);
    let recorder = always(&sim, Plan::ok().sleep(SECOND));
    let (handle, script) = start(&sim, [], recorder, concurrent(8));
    handle.set_concurrency(n(2));
    sim.advance(MS);
    sim.block_on(handle.stop()).unwrap();
    script.push(Step::Batch((0..10).collect()));
    handle.start().unwrap();
    sim.advance(MS);
    assert_eq!(handle.size(), 2);
}

#[test]
fn a_higher_concurrency_lets_a_full_sink_fetch() {
    let sim = SimRuntime::new(1);
    let recorder = always(&sim, Plan::hang());
    let (handle, script) = start(&sim, 0..10, recorder, concurrent(2).prefetch(0));
    sim.advance(SECOND);
    assert_eq!(handle.health().state, RunState::Full);
    handle.set_concurrency(NonZeroUsize::MAX);
    sim.advance(MS);
    assert_eq!(handle.size(), 10);
    assert!(script.is_over());
}

/// Never waits, and asks for an end of its own calls in the third one.
struct Eager {
    calls: Arc<Mutex<Vec<usize>>>,
    interrupt: Box<dyn Fn() + Send>,
}

impl UpdateSupplier for Eager {
    type Update = u32;
    type Error = Infallible;

    async fn supply(&mut self, limit: NonZeroUsize) -> Result<Vec<u32>, Infallible> {
        let count = {
            let mut calls = self.calls.lock().unwrap();
            calls.push(limit.get());
            calls.len()
        };
        if count == 3 {
            (self.interrupt)();
        }
        Ok(vec![0; limit.get()])
    }
}

#[test]
fn a_supplier_that_never_waits_is_not_called_after_a_pause_or_a_stop() {
    for stops in [false, true] {
        let sim = SimRuntime::new(1);
        let calls = Arc::new(Mutex::new(Vec::new()));
        let known: Arc<Mutex<Option<RunnerHandle<u32>>>> = Arc::default();
        let handle = Arc::clone(&known);
        let supplier = Eager {
            calls: Arc::clone(&calls),
            interrupt: Box::new(move || {
                let handle = handle.lock().unwrap().take().expect("set below");
                match stops {
                    true => drop(handle.stop()),
                    false => handle.pause(),
                }
            }),
        };
        // Room for seven calls before the first handler ends.
        let runner = Runner::new(runtime(&sim), supplier, always(&sim, Plan::hang()))
            .sink(concurrent(600).prefetch(100));
        *known.lock().unwrap() = Some(runner.handle());
        let _handle = runner.start();
        sim.run_until_idle();
        assert_eq!(*calls.lock().unwrap(), [100; 3]);
    }
}

/// Sets another concurrency when it is woken, as another thread might.
struct SetsConcurrency(RunnerHandle<u32>, NonZeroUsize);

impl Wake for SetsConcurrency {
    fn wake(self: Arc<Self>) {
        self.0.set_concurrency(self.1);
    }
}

#[test]
fn of_two_that_set_the_concurrency_at_once_one_wins_now_and_later() {
    let sim = SimRuntime::new(1);
    let (handle, _) = start(&sim, [], always(&sim, Plan::ok()), concurrent(10));
    sim.run_until_idle();
    let mut stopped = handle.stopped();
    let waker = Waker::from(Arc::new(SetsConcurrency(handle.clone(), n(2))));
    let polled = std::pin::pin!(&mut stopped).poll(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    // The other one comes in between, whose value is the one that is kept.
    handle.set_concurrency(n(7));
    let now = handle.stats().capacity;
    sim.block_on(handle.stop()).unwrap();
    handle.start().unwrap();
    sim.run_until_idle();
    assert_eq!(handle.stats().capacity, now);
    assert_eq!(now, 2);
}

// What the supplier is told

/// A run of ten updates, ended as `end` says; returns what `close` was told.
fn closed_with(
    sim: &SimRuntime,
    plan: impl Fn(u32) -> Plan + Send + Sync + 'static,
    end: impl FnOnce(&RunnerHandle<u32>) -> runner_core::Stopped<u32>,
) -> (Vec<usize>, runner_core::Report<u32>) {
    let supplier = ScriptedSupplier::new(sim).batch(0..10).rewinding();
    let script = supplier.script();
    let recorder = Recorder::new(sim, move |update: &Delivery<u32>| plan(**update));
    let handle = Runner::new(runtime(sim), supplier, recorder)
        .sink(concurrent(4))
        .start();
    sim.advance(500 * MS);
    let stopped = end(&handle);
    let result = sim.block_on(stopped);
    let report = match &result {
        Ok(report) => report,
        Err(error) => error.report(),
    };
    (script.closes(), report.clone())
}

#[test]
fn close_is_told_how_much_is_settled_without_a_gap() {
    for_each_seed(20, |sim| {
        let now = |handle: &RunnerHandle<u32>| handle.stop_within(Duration::ZERO);
        // All of it.
        let (closes, report) = closed_with(&sim, |_| Plan::ok().sleep(MS), now);
        assert_eq!(closes, [10]);
        assert_eq!(
            report.confirmation,
            Confirmation::Confirmed { position: 10 }
        );
        // A failed one is settled as well.
        let (closes, _) = closed_with(&sim, |_| Plan::fail("no"), now);
        assert_eq!(closes, [10]);
        // Nothing of it.
        let (closes, report) = closed_with(&sim, |_| Plan::hang(), now);
        assert_eq!(closes, [0]);
        assert_eq!(report.counters.abandoned, 10);
        // A gap at 3 and at 6: what is finished after it will repeat.
        let gaps = |update| match update {
            3 | 6 => Plan::hang(),
            _ => Plan::ok(),
        };
        let (closes, report) = closed_with(&sim, gaps, now);
        assert_eq!(closes, [3]);
        assert_eq!(
            abandoned(&report),
            [
                (3, true, false, Fate::Redelivered),
                (6, true, false, Fate::Redelivered),
            ]
        );
        assert_eq!(report.counters.finished, 8);
    });
}

#[test]
fn what_was_abandoned_comes_again_after_a_restart() {
    for_each_seed(20, |sim| {
        let supplier = ScriptedSupplier::new(&sim).batch(0..5).rewinding();
        let script = supplier.script();
        let recorder = Recorder::new(&sim, |update: &Delivery<u32>| match **update {
            2 => Plan::ok().sleep(10 * SECOND),
            _ => Plan::ok(),
        });
        let log = recorder.log();
        let handle = Runner::new(runtime(&sim), supplier, recorder)
            .sink(concurrent(10).workers(n(1)))
            .start();
        sim.advance(SECOND);
        sim.block_on(handle.stop_within(Duration::ZERO)).unwrap();
        handle.start().unwrap();
        sim.advance(SECOND);
        let report = sim.block_on(handle.stop()).unwrap();
        assert_eq!(log.started(), [0, 1, 2, 3, 4, 2, 3, 4]);
        assert_eq!(report.counters.finished, 3);
        assert_eq!(script.closes(), [2, 3]);
    });
}

#[test]
fn a_supplier_that_cannot_close_does_not_fail_the_run() {
    quiet();
    let sim = SimRuntime::new(1);
    let error = || SupplyError::transient("down");
    for (close, over) in [
        (Close::Fail(error()), Duration::ZERO),
        (Close::Panic("close"), Duration::ZERO),
        (Close::Hang, 10 * SECOND),
        (Close::Answer { after: LONG }, 10 * SECOND),
    ] {
        let began = sim.elapsed();
        let supplier = ScriptedSupplier::new(&sim).batch([0_u32]).on_close(close);
        let handle = Runner::new(runtime(&sim), supplier, always(&sim, Plan::ok())).start();
        sim.run_until_idle();
        let report = sim.block_on(handle.stop()).unwrap();
        assert_eq!(report.confirmation, Confirmation::Failed);
        assert_eq!(report.counters.finished, 1);
        assert_eq!(sim.elapsed() - began, over);
    }
}

#[test]
fn a_supplier_that_hangs_in_close_does_not_hold_up_a_limit() {
    let sim = SimRuntime::new(1);
    let supplier = ScriptedSupplier::new(&sim)
        .batch([0_u32])
        .on_close(Close::Hang);
    let handle = Runner::new(runtime(&sim), supplier, always(&sim, Plan::hang())).start();
    sim.run_until_idle();
    let report = sim.block_on(handle.stop_within(5 * SECOND)).unwrap();
    assert_eq!(sim.elapsed(), 6 * SECOND);
    assert_eq!(abandoned(&report), [(0, true, false, Fate::Unknown)]);
}

#[test]
fn a_supplier_that_fails_for_good_ends_the_run_after_what_is_held() {
    for_each_seed(20, |sim| {
        let supplier = ScriptedSupplier::new(&sim)
            .batch(0..5_u32)
            .step(Step::Fail(SupplyError::fatal("no such token")));
        let script = supplier.script();
        let recorder = always(&sim, Plan::ok().sleep(SECOND));
        let handle = Runner::new(runtime(&sim), supplier, recorder)
            .sink(concurrent(2))
            .start();
        let error = sim.block_on(handle.task()).unwrap_err();
        let RunError::Supply { source, report } = error else {
            panic!("{error:?}");
        };
        assert!(matches!(
            *source,
            SourceError::Supply(SupplyError::Fatal(_))
        ));
        assert_eq!(report.counters.finished, 5);
        assert_eq!(sim.elapsed(), 3 * SECOND);
        assert_eq!(script.closes(), [5]);
    });
}

#[test]
fn a_supplier_that_panics_ends_the_run_after_what_is_held() {
    quiet();
    for_each_seed(20, |sim| {
        let supplier = ScriptedSupplier::new(&sim)
            .batch(0..5_u32)
            .step(Step::Panic("supply"))
            .batch(5..6);
        let script = supplier.script();
        let recorder = always(&sim, Plan::ok().sleep(SECOND));
        let handle = Runner::new(runtime(&sim), supplier, recorder).start();
        let error = sim.block_on(handle.task()).unwrap_err();
        let RunError::SupplierPanicked { panic, report } = error else {
            panic!("{error:?}");
        };
        assert_eq!(&*panic, "supply");
        assert_eq!(report.counters.finished, 5);
        assert_eq!(script.closes(), [5]);
        // It may be given another chance.
        handle.start().unwrap();
        sim.advance(2 * SECOND);
        assert_eq!(handle.stats().counters.finished, 1);
        assert_eq!(sim.panics(), 0);
    });
}

#[test]
fn a_failing_run_can_be_cut_short_by_a_limit() {
    let sim = SimRuntime::new(1);
    let supplier = ScriptedSupplier::new(&sim)
        .batch([0_u32])
        .step(Step::Fail(SupplyError::fatal("no such token")));
    let handle = Runner::new(runtime(&sim), supplier, always(&sim, Plan::hang())).start();
    sim.advance(100 * SECOND);
    assert_eq!(handle.health().state, RunState::Stopping);
    let error = sim.block_on(handle.stop_within(SECOND)).unwrap_err();
    assert!(matches!(error, RunError::Supply { .. }));
    assert_eq!(error.report().counters.abandoned, 1);
    assert_eq!(sim.elapsed(), 101 * SECOND);
}

/// The snapshot names what cannot be stopped.
#[test]
fn a_handler_that_does_not_end_shows_as_unresponsive() {
    let sim = SimRuntime::new(1);
    let recorder = always(&sim, Plan::ok().sleep(SECOND).block(100 * SECOND));
    let (handle, _) = start(&sim, [0], recorder, concurrent(2).workers(n(2)));
    let (sender, receiver) = std::sync::mpsc::channel();
    let looking = handle.clone();
    let clock = sim.clone();
    sim.spawn(Box::pin(async move {
        clock.sleep(10 * SECOND).await;
        let _ = sender.send(looking.in_flight()[0].progress);
    }));
    sim.run_until_idle();
    let stopped = handle.stop_within(5 * SECOND);
    sim.advance(200 * SECOND);
    assert_eq!(receiver.try_recv(), Ok(Progress::Unresponsive));
    assert!(ended(stopped).unwrap().is_ok());
}

/// The one exception to the order by key: nothing can end a handler that blocks its thread.
#[cfg(feature = "tracing")]
#[test]
fn a_run_that_starts_beside_handlers_of_the_last_one_says_how_many() {
    let warnings = || {
        let lines = common::log::lines().into_iter();
        let lines = lines.filter(|line| line.message.contains("of the last run"));
        lines.map(|line| line.fields).collect::<Vec<_>>()
    };
    common::log::listen();
    let sim = SimRuntime::new(1);
    let recorder = Recorder::new(&sim, |update: &Delivery<u32>| match **update {
        0 | 1 => Plan::ok().block(100 * SECOND),
        _ => Plan::ok(),
    });
    let log = recorder.log();
    let (handle, script) = start(&sim, [], recorder, concurrent(4).workers(n(4)));
    let (clock, own) = (sim.clone(), handle.clone());
    sim.spawn(Box::pin(async move {
        clock.sleep(10 * SECOND).await;
        let report = own.stop_within(SECOND).await.unwrap();
        assert_eq!(report.abandoned.len(), 2);
        assert!(report.abandoned.iter().all(|it| it.unresponsive));
        own.start().unwrap();
        clock.sleep(SECOND).await;
        assert_eq!(own.stats().counters.finished, 1);
        own.stop().await.unwrap();
        clock.sleep(200 * SECOND).await;
        own.start().unwrap();
    }));
    script.push(Step::Batch(vec![0, 1]));
    script.push(Step::Wait(11 * SECOND));
    script.push(Step::Batch(vec![2]));
    sim.advance(1_000 * SECOND);
    assert_eq!(log.finished().len(), 3);
    // The third run begins when all of them have ended.
    assert_eq!(warnings(), ["handlers=2 "]);
}

#[test]
fn a_runner_that_is_dropped_before_it_runs_leaves_nobody_waiting() {
    let sim = SimRuntime::new(1);
    let supplier = ScriptedSupplier::new(&sim).batch([1]);
    let runner = Runner::new(runtime(&sim), supplier, always(&sim, Plan::ok()));
    let handle = runner.handle();
    let stopped = handle.stop();
    assert!(ended(handle.task()).is_none());
    drop(runner);
    let result = sim.block_on(stopped);
    assert!(
        matches!(result, Err(RunError::Dropped { .. })),
        "{result:?}"
    );
    assert!(!handle.is_running());
}

/// Counts by its references how many places keep a waker of it.
struct Counted;

impl Wake for Counted {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn waiting_and_giving_up_leaves_nothing_behind() {
    let sim = SimRuntime::new(1);
    let (handle, _) = start(&sim, [], always(&sim, Plan::ok()), concurrent(1));
    sim.run_until_idle();
    let counted = Arc::new(Counted);
    let waker = Waker::from(Arc::clone(&counted));
    for _ in 0..100 {
        let mut stopped = handle.stopped();
        let polled = std::pin::pin!(&mut stopped).poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
    }
    assert_eq!(Arc::strong_count(&counted), 2);
}

#[test]
fn a_run_that_is_dropped_leaves_no_waker_behind() {
    let sim = SimRuntime::new(1);
    let supplier = ScriptedSupplier::new(&sim).batch([1, 2, 3]);
    let consumer = always(&sim, Plan::ok().sleep(SECOND));
    let mut runner = Runner::new(runtime(&sim), supplier, consumer).sink(concurrent(1).prefetch(0));
    let handle = runner.handle();
    let counted = Arc::new(Counted);
    let waker = Waker::from(Arc::clone(&counted));
    {
        let mut run = std::pin::pin!(runner.run());
        for nr in 0..100 {
            // It waits for its supplier, for permission to go on, and for room, in turns.
            match nr % 2 {
                0 => handle.pause(),
                _ => handle.resume(),
            }
            sim.advance(MS * 30);
            let polled = run.as_mut().poll(&mut Context::from_waker(&waker));
            assert!(polled.is_pending());
            assert!(Arc::strong_count(&counted) < 20);
        }
    }
    assert_eq!(Arc::strong_count(&counted), 2);
}
