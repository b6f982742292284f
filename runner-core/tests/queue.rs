//! The decaying queue from outside: order, failures, timeouts, capacity, snapshots.

mod common;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use common::{LONG, MS, SECOND, always, n, runtime, start};
use runner_core::{
    Cause, Delivery, Failure, Key, Progress, Report, Runner, RunnerHandle, RuntimeExt, SinkOptions,
    Verdict,
    testing::{Plan, Recorder, Script, ScriptedSupplier, SimRuntime, Step, for_each_seed},
};

fn concurrent(concurrency: usize) -> SinkOptions {
    SinkOptions::concurrent().concurrency(n(concurrency))
}

/// Handles every character of `pattern` and returns them in the order in which they were settled.
///
/// A letter is a value and a digit an error, each after some time that grows with its place;
/// everything else never ends, and times out after a second.
fn settle(
    sim: &SimRuntime,
    pattern: &str,
    options: SinkOptions<impl Sized>,
) -> (String, Report<(usize, char)>) {
    let settled = Arc::new(Mutex::new(String::new()));
    let supplier =
        ScriptedSupplier::new(sim).step(Step::Oversized(pattern.chars().enumerate().collect()));
    let state = (sim.clone(), Arc::clone(&settled));
    let runner = Runner::for_each_with(
        runtime(sim),
        supplier,
        state,
        |(sim, settled), update: Delivery<(usize, char)>| async move {
            let (place, sign) = *update;
            sim.sleep(MS * place as u32).await;
            match sign {
                'a'..='z' => {
                    settled.lock().unwrap().push(sign);
                    Ok(())
                }
                '0'..='9' => Err(sign.to_string()),
                _ => std::future::pending().await,
            }
        },
    );
    let log = Arc::clone(&settled);
    let handle = runner
        .sink(options.timeout(SECOND))
        .policy(move |failure: Failure<(usize, char)>| {
            let sign = failure.update.1;
            match failure.cause {
                Cause::Error(error) => assert_eq!(error.to_string(), sign.to_string()),
                Cause::Timeout => assert!(!sign.is_ascii_alphanumeric()),
                cause => panic!("{cause}"),
            }
            log.lock().unwrap().push(sign);
            Verdict::Skip
        })
        .start();
    let report = sim.block_on(async {
        sim.yield_now().await;
        sim.sleep(MS).await;
        handle.stop().await.unwrap()
    });
    let settled = settled.lock().unwrap().clone();
    (settled, report)
}

#[test]
fn values_are_settled_in_order() {
    for pattern in ["a", "ab", "xxxxxxxxxx", "abcdefghijklmnopqrstuvwxyz"] {
        for_each_seed(10, |sim| {
            let (settled, report) = settle(&sim, pattern, concurrent(500));
            assert_eq!(settled, pattern);
            assert_eq!(report.counters.finished, pattern.len() as u64);
            assert_eq!(report.counters.settled(), report.counters.supplied);
        });
    }
}

#[test]
fn errors_are_settled_in_order() {
    for_each_seed(10, |sim| {
        let (settled, report) = settle(&sim, "9876543210", concurrent(500));
        assert_eq!(settled, "9876543210");
        assert_eq!(report.counters.failed, 10);
    });
}

#[test]
fn time_outs_are_settled_once_each() {
    for_each_seed(20, |sim| {
        let (settled, report) = settle(&sim, "..........", concurrent(500));
        assert_eq!(settled, "..........");
        assert_eq!(report.counters.timed_out, 10);
        assert_eq!(sim.elapsed(), SECOND);
    });
}

/// What ends comes first, in order; what hangs is left for the time-out.
#[test]
fn fast_and_slow_updates_mix() {
    for pattern in ["x9.", "a9.b,", "jadf.)(r45%4hj2h()$..x)=1kj5kfgg}]3567"] {
        let (fast, slow): (String, String) = pattern.chars().partition(char::is_ascii_alphanumeric);
        for_each_seed(20, |sim| {
            let (settled, report) = settle(&sim, pattern, concurrent(500));
            let (first, last) = settled.split_at(fast.len());
            assert_eq!(first, fast);
            // They expire at the same instant, in whatever order their tasks run.
            let sorted = |text: &str| {
                let mut signs: Vec<char> = text.chars().collect();
                signs.sort_unstable();
                signs
            };
            assert_eq!(sorted(last), sorted(&slow));
            assert_eq!(report.counters.timed_out, slow.len() as u64);
        });
    }
}

/// With a single slot the order is total, whatever the pattern.
#[test]
fn one_slot_settles_every_pattern_in_order() {
    for_each_seed(20, |sim| {
        let pattern = "a9.b,c0";
        let (settled, _) = settle(&sim, pattern, concurrent(1));
        assert_eq!(settled, pattern);
    });
}

#[test]
fn updates_of_several_batches_start_in_order() {
    for_each_seed(20, |sim| {
        let supplier = ScriptedSupplier::new(&sim)
            .batch([0])
            .batch([1, 2])
            .wait(10 * MS)
            .batch([3]);
        let recorder = always(&sim, Plan::ok());
        let log = recorder.log();
        // One worker: with more of them, the threads decide who comes first.
        let handle = Runner::new(runtime(&sim), supplier, recorder)
            .sink(concurrent(500).workers(n(1)))
            .start();
        sim.advance(SECOND);
        drop(handle);
        assert_eq!(log.started(), [0, 1, 2, 3]);
        assert_eq!(log.finished(), [0, 1, 2, 3]);
    });
}

#[test]
fn without_a_timeout_an_update_never_expires() {
    let sim = SimRuntime::new(1);
    let (handle, _) = start(
        &sim,
        [0],
        always(&sim, Plan::ok().sleep(LONG)),
        concurrent(1),
    );
    sim.advance(LONG - MS);
    assert_eq!(handle.size(), 1);
    sim.advance(MS);
    assert_eq!(handle.stats().counters.finished, 1);
}

#[test]
fn a_snapshot_is_in_order_of_insertion() {
    for_each_seed(20, |sim| {
        // Later ones end first, so that their places are given to the next ones.
        let recorder = Recorder::new(&sim, |update: &Delivery<u32>| match **update {
            number @ 0..10 => Plan::ok().sleep(SECOND * (20 - number)),
            _ => Plan::hang(),
        });
        let (handle, script) = start(&sim, 0..10, recorder, concurrent(500));
        assert!(handle.in_flight().is_empty());
        sim.advance(15 * SECOND);
        script.push(Step::Batch((10..15).collect()));
        sim.advance(MS);

        let held = handle.in_flight();
        let updates: Vec<u32> = held.iter().map(|held| *held.update).collect();
        assert_eq!(updates, [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]);
        let ids: Vec<u64> = held.iter().map(|held| held.id).collect();
        assert_eq!(ids, [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]);
        assert!(held.iter().all(|held| held.progress == Progress::Running));
        assert_eq!(held[0].age, 15 * SECOND + MS);
        assert_eq!(held[9].age, MS);

        sim.advance(5 * SECOND);
        let updates: Vec<u32> = handle.in_flight().iter().map(|held| *held.update).collect();
        assert_eq!(updates, [10, 11, 12, 13, 14]);
    });
}

#[test]
fn a_snapshot_tells_what_every_update_does_and_waits_for() {
    let sim = SimRuntime::new(3);
    let supplier = ScriptedSupplier::new(&sim).batch(0..6_u32);
    let recorder = Recorder::new(&sim, |update: &Delivery<u32>| match **update {
        3 => Plan::fail("again"),
        _ => Plan::hang(),
    });
    let handle = Runner::new(runtime(&sim), supplier, recorder)
        .sink(concurrent(3).workers(n(1)))
        .sequentialize(|update: &u32| match update {
            0 | 1 => vec![Key::chat(1)],
            2 => vec![Key::chat(1), Key::user(1)],
            _ => vec![],
        })
        .policy(|_: Failure<u32>| Verdict::Retry { after: SECOND })
        .start();
    sim.advance(MS);
    let held = handle.in_flight();
    let progress: Vec<_> = held.iter().map(|held| held.progress).collect();
    assert_eq!(
        progress,
        [
            Progress::Running,
            Progress::Waiting,
            Progress::Waiting,
            Progress::Retrying,
            Progress::Running,
            Progress::Running,
        ]
    );
    assert_eq!(held[0].waits_for, [0_u64; 0]);
    assert_eq!(held[1].waits_for, [0]);
    assert_eq!(held[2].waits_for, [1]);
    assert_eq!(held[2].keys, [Key::chat(1), Key::user(1)]);
    assert_eq!(held[3].attempt.get(), 2);
    let stats = handle.stats();
    assert_eq!((stats.in_flight, stats.waiting, stats.ready), (3, 3, 0));

    // The retry is due, and all three slots are taken.
    sim.advance(SECOND);
    assert_eq!(handle.in_flight()[3].progress, Progress::Ready);
    assert_eq!(handle.stats().ready, 1);
}

fn limits(script: &Script<u32>) -> Vec<usize> {
    script.calls().iter().map(|call| call.limit).collect()
}

#[test]
fn the_capacity_follows_what_comes_and_goes() {
    for_each_seed(20, |sim| {
        let supplier = ScriptedSupplier::new(&sim)
            .batch([0])
            .batch([1, 2, 3])
            .wait(5 * SECOND)
            .batch([4]);
        let script = supplier.script();
        let recorder = Recorder::new(&sim, |update: &Delivery<u32>| match **update {
            0 => Plan::ok().sleep(SECOND),
            4 => Plan::ok(),
            _ => Plan::hang(),
        });
        let handle = Runner::new(runtime(&sim), supplier, recorder)
            .sink(concurrent(12).prefetch(0))
            .start();
        sim.advance(MS);
        assert_eq!(limits(&script), [12, 11, 8]);
        assert_eq!((handle.size(), handle.stats().capacity), (4, 8));
        sim.advance(2 * SECOND);
        assert_eq!((handle.size(), handle.stats().capacity), (3, 9));
        sim.advance(4 * SECOND);
        // The third call was made before update 0 ended; it was answered by update 4.
        assert_eq!(limits(&script)[3..], [8]);
        assert_eq!((handle.size(), handle.stats().capacity), (3, 9));
    });
}

#[test]
fn a_full_sink_fetches_again_as_soon_as_there_is_room() {
    for_each_seed(20, |sim| {
        let supplier = ScriptedSupplier::new(&sim).step(Step::Oversized((0..6).collect()));
        let script = supplier.script();
        let _handle = Runner::new(
            runtime(&sim),
            supplier,
            always(&sim, Plan::ok().sleep(SECOND)),
        )
        .sink(concurrent(3).prefetch(0))
        .start();
        sim.advance(10 * SECOND);
        let calls = script.calls();
        assert_eq!(calls[0].answered, Some(6));
        // Three at a time: the first slot that nobody needs is free after two seconds.
        assert_eq!(calls[1].at, 2 * SECOND);
    });
}

#[test]
fn a_thousand_single_updates_never_exceed_the_capacity() {
    for_each_seed(5, |sim| {
        let mut supplier = ScriptedSupplier::new(&sim);
        for update in 0..1_000 {
            supplier = supplier.batch([update]);
        }
        let script = supplier.script();
        let recorder = always(&sim, Plan::ok().sleep(MS));
        let log = recorder.log();
        let handle = Runner::new(runtime(&sim), supplier, recorder)
            .sink(concurrent(20).prefetch(0))
            .start();
        sim.advance(SECOND);
        assert_eq!(handle.stats().counters.finished, 1_000);
        assert_eq!(log.max_concurrency(), 20);
        assert!(limits(&script).iter().all(|limit| (1..=20).contains(limit)));
    });
}

#[test]
fn batches_that_arrive_while_it_is_full_are_all_handled() {
    for_each_seed(20, |sim| {
        let mut supplier = ScriptedSupplier::new(&sim);
        for batch in 0..5 {
            supplier = supplier.step(Step::Oversized((batch * 5..batch * 5 + 5).collect()));
        }
        let recorder = always(&sim, Plan::ok().sleep(SECOND));
        let log = recorder.log();
        let handle = Runner::new(runtime(&sim), supplier, recorder)
            .sink(concurrent(3).workers(n(1)))
            .start();
        sim.advance(MS);
        assert_eq!(handle.size(), 3);
        assert_eq!(handle.stats().ready, 22);
        sim.advance(20 * SECOND);
        assert_eq!(log.started(), (0..25).collect::<Vec<_>>());
        assert_eq!(log.max_concurrency(), 3);
        assert_eq!(log.entries().last().unwrap().ended, Some(9 * SECOND));
    });
}

#[test]
fn many_updates_expire_at_one_time_out_and_are_reported_once() {
    for_each_seed(10, |sim| {
        let reported = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&reported);
        let supplier = ScriptedSupplier::new(&sim).batch(0..100_u32);
        let handle = Runner::new(runtime(&sim), supplier, always(&sim, Plan::hang()))
            .sink(concurrent(500).timeout(5 * MS))
            .policy(move |failure: Failure<u32>| {
                assert!(matches!(failure.cause, Cause::Timeout));
                log.lock().unwrap().push(*failure.update);
                Verdict::Skip
            })
            .start();
        sim.advance(5 * MS - Duration::from_nanos(1));
        assert_eq!(handle.size(), 100);
        sim.advance(Duration::from_nanos(1));
        assert_eq!(handle.size(), 0);
        assert!(handle.in_flight().is_empty());
        sim.advance(SECOND);
        let mut reported = reported.lock().unwrap().clone();
        reported.sort_unstable();
        assert_eq!(reported, (0..100).collect::<Vec<_>>());
        assert_eq!(handle.stats().counters.timed_out, 100);
    });
}

#[test]
fn one_time_out_frees_the_slot_for_the_rest() {
    for_each_seed(20, |sim| {
        let recorder = Recorder::new(&sim, |update: &Delivery<u32>| match **update {
            0 => Plan::hang(),
            _ => Plan::ok().sleep(MS),
        });
        let log = recorder.log();
        let (handle, _) = start(&sim, 0..6, recorder, concurrent(1).timeout(SECOND));
        sim.advance(SECOND - MS);
        assert_eq!(log.started(), [0]);
        sim.advance(6 * MS);
        assert_eq!(log.finished(), [1, 2, 3, 4, 5]);
        let counters = handle.stats().counters;
        assert_eq!((counters.timed_out, counters.finished), (1, 5));
    });
}

/// Clocks start as handlers begin to wait, so each expires in its own time.
#[test]
fn updates_of_different_age_expire_one_after_the_other() {
    let sim = SimRuntime::new(9);
    let mut supplier = ScriptedSupplier::new(&sim);
    for update in 0..10_u32 {
        supplier = supplier.batch([update]).wait(100 * MS);
    }
    let handle = Runner::new(runtime(&sim), supplier, always(&sim, Plan::hang()))
        .sink(concurrent(500).timeout(SECOND))
        .start();
    sim.advance(SECOND - MS);
    assert_eq!(handle.size(), 10);
    for left in (0..10).rev() {
        sim.advance(MS);
        assert_eq!(handle.size(), left);
        sim.advance(99 * MS);
        assert_eq!(handle.size(), left);
    }
}

#[test]
fn nothing_is_left_behind_when_all_is_done() {
    for_each_seed(10, |sim| {
        let recorder = Recorder::new(&sim, |update: &Delivery<u32>| match **update % 4 {
            0 => Plan::ok(),
            1 => Plan::ok().sleep(MS),
            2 => Plan::fail("no"),
            _ => Plan::hang(),
        });
        let (handle, _) = start(&sim, 0..400, recorder, concurrent(50).timeout(20 * MS));
        sim.advance(SECOND);
        let report = sim.block_on(handle.stop()).unwrap();
        assert_eq!(report.counters.settled(), 400);
        assert_eq!(
            (report.counters.finished, report.counters.timed_out),
            (200, 100)
        );
        drop(handle);
        sim.run_until_idle();
        assert_eq!((sim.tasks(), sim.timers()), (0, 0));
    });
}

/// How often another task has its turn while a thousand updates are handled.
fn turns(sim: &SimRuntime, handle: &RunnerHandle<u32>, handled: &Mutex<u32>) -> usize {
    let mut turns = 0;
    sim.block_on(async {
        while *handled.lock().unwrap() < 1_000 {
            turns += usize::from(*handled.lock().unwrap() > 0);
            sim.yield_now().await;
        }
        handle.stop().await.unwrap();
    });
    turns
}

#[test]
fn handlers_that_never_wait_leave_the_thread_to_others() {
    let sim = SimRuntime::new(1);
    let supplier = ScriptedSupplier::new(&sim).step(Step::Oversized((0..1_000).collect()));
    let handled = Arc::new(Mutex::new(0));
    let counter = Arc::clone(&handled);
    let handle = Runner::for_each(runtime(&sim), supplier, move |_: Delivery<u32>| {
        *counter.lock().unwrap() += 1;
        std::future::ready(())
    })
    .sink(concurrent(500).workers(n(1)))
    .start();
    let turns = turns(&sim, &handle, &handled);
    // A thousand updates are some thirty turns of the worker.
    assert!(turns >= 10, "{turns} turns");
}

/// A worker whose handler was pending starts the next one without a permit, and yields after 32 like all others.
#[test]
fn followers_that_never_wait_leave_the_thread_to_others() {
    let sim = SimRuntime::new(1);
    let supplier = ScriptedSupplier::new(&sim).step(Step::Oversized((0..1_000).collect()));
    let handled = Arc::new(Mutex::new(0));
    let state = (sim.clone(), Arc::clone(&handled));
    // One slot, and the first one has waited in it: all others follow.
    let handle = Runner::for_each_with(
        runtime(&sim),
        supplier,
        state,
        |(sim, handled), update: Delivery<u32>| async move {
            if *update == 0 {
                sim.yield_now().await;
            }
            *handled.lock().unwrap() += 1;
        },
    )
    .sink(concurrent(1))
    .start();
    let turns = turns(&sim, &handle, &handled);
    assert!(turns >= 10, "{turns} turns");
}
