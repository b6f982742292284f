//! What an operator is told.

mod common;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use common::{LONG, MS, SECOND, always, n, runtime, start};
use runner_core::{
    Conflict, Delivery, Failure, Health, Key, RunState, Runner, RunnerHandle, Runtime, RuntimeExt,
    SinkOptions, SupplyError, Verdict,
    testing::{Plan, Recorder, ScriptedSupplier, SimRuntime, Step, for_each_seed},
};

const MINUTE: Duration = Duration::from_secs(60);

/// Looks at the health every second, from a task of its own.
fn watch(sim: &SimRuntime, handle: &RunnerHandle<u32>, seconds: u32) -> Arc<Mutex<Vec<Health>>> {
    let looks = Arc::new(Mutex::new(Vec::new()));
    let (seen, handle, clock) = (Arc::clone(&looks), handle.clone(), sim.clone());
    sim.spawn(Box::pin(async move {
        // Between the seconds, so that nothing else happens at the same instant.
        clock.sleep(500 * MS).await;
        for _ in 0..seconds {
            clock.sleep(SECOND).await;
            seen.lock().unwrap().push(handle.health());
        }
    }));
    looks
}

// The state

#[test]
fn the_state_says_what_the_runner_does() {
    for_each_seed(10, |sim| {
        let recorder = Recorder::new(&sim, |_: &Delivery<u32>| Plan::ok().sleep(5 * SECOND));
        let (handle, script) = start(&sim, [], recorder, SinkOptions::batch());
        let state = || handle.health().state;
        // A run was asked for, and is about to begin.
        assert_eq!(state(), RunState::Polling);
        sim.advance(SECOND);
        assert_eq!(state(), RunState::Polling);
        script.push(Step::Batch(vec![0]));
        sim.advance(SECOND);
        assert_eq!(state(), RunState::Full);
        assert!(handle.health().is_live());
        handle.pause();
        sim.advance(SECOND);
        assert_eq!(state(), RunState::Paused);
        handle.resume();
        sim.advance(5 * SECOND);
        assert_eq!(state(), RunState::Polling);
        script.push(Step::Batch(vec![1]));
        sim.advance(SECOND);
        let stopped = handle.stop();
        assert_eq!(state(), RunState::Stopping);
        assert!(handle.health().is_live());
        sim.block_on(stopped).unwrap();
        assert_eq!(state(), RunState::Stopped);
        assert!(!handle.health().is_live());
    });
}

#[test]
fn a_supplier_that_fails_shows_as_backoff() {
    for_each_seed(10, |sim| {
        let mut supplier = ScriptedSupplier::<u32>::new(&sim);
        for _ in 0..10 {
            supplier = supplier.step(Step::Fail(SupplyError::transient("down")));
        }
        let handle = Runner::new(runtime(&sim), supplier, always(&sim, Plan::ok())).start();
        sim.run_until_idle();
        let health = handle.health();
        assert_eq!(health.state, RunState::Backoff);
        assert!(health.is_live());
        assert!(!health.is_connected());
        assert!(handle.stats().failed_calls >= 1);
        // In the end it works again.
        sim.advance(60 * MINUTE);
        assert_eq!(handle.health().state, RunState::Polling);
        let stats = handle.stats();
        assert_eq!((stats.calls, stats.failed_calls), (11, 10));
    });
}

#[test]
fn another_poller_shows_as_conflict() {
    for_each_seed(10, |sim| {
        let supplier = ScriptedSupplier::<u32>::new(&sim).step(Step::Fail(SupplyError::conflict(
            Conflict::Poller,
            "terminated by other getUpdates request",
        )));
        let handle = Runner::new(runtime(&sim), supplier, always(&sim, Plan::ok())).start();
        sim.advance(4 * SECOND);
        let health = handle.health();
        assert_eq!(health.state, RunState::Conflict);
        assert!(health.is_live() && !health.is_connected());
        sim.advance(10 * SECOND);
        assert_eq!(handle.health().state, RunState::Polling);
    });
}

// Is it live

#[test]
fn a_runner_that_settles_nothing_for_long_is_not_live() {
    for_each_seed(10, |sim| {
        let recorder = always(&sim, Plan::ok().sleep(8 * MINUTE));
        let (handle, script) = start(&sim, [], recorder, SinkOptions::concurrent());
        // Hours without updates are no standstill.
        sim.advance(600 * MINUTE);
        assert!(handle.health().is_live());
        script.push(Step::Batch(vec![0]));
        sim.advance(5 * MINUTE - MS);
        assert!(handle.health().is_live());
        sim.advance(MS);
        assert!(!handle.health().is_live());
        assert_eq!(handle.health().state, RunState::Polling);
        // It ends after all.
        sim.advance(3 * MINUTE);
        assert!(handle.health().is_live());
        // Nor are the hours after it.
        sim.advance(600 * MINUTE);
        script.push(Step::Batch(vec![1]));
        sim.advance(MINUTE);
        assert_eq!(handle.size(), 1);
        assert!(handle.health().is_live());
    });
}

#[test]
fn one_that_hangs_is_no_standstill_while_others_are_settled() {
    for_each_seed(10, |sim| {
        let mut supplier = ScriptedSupplier::new(&sim).batch([0_u32]);
        for update in 1..60 {
            supplier = supplier.wait(MINUTE).batch([update]);
        }
        let recorder = Recorder::new(&sim, |update: &Delivery<u32>| match **update {
            0 => Plan::hang(),
            _ => Plan::ok().sleep(SECOND),
        });
        let handle = Runner::new(runtime(&sim), supplier, recorder).start();
        let looks = watch(&sim, &handle, 58 * 60);
        sim.advance(58 * MINUTE + SECOND);
        let looks = looks.lock().unwrap();
        assert_eq!(looks.len(), 58 * 60);
        assert!(looks.iter().all(Health::is_live));
    });
}

#[test]
fn the_span_of_a_standstill_can_be_set() {
    for (span, live) in [(Some(MINUTE), false), (Some(LONG), true), (None, true)] {
        let sim = SimRuntime::new(1);
        let supplier = ScriptedSupplier::new(&sim).batch([0_u32]);
        let handle = Runner::new(runtime(&sim), supplier, always(&sim, Plan::hang()))
            .stall_after(span)
            .start();
        sim.advance(59 * SECOND);
        assert!(handle.health().is_live());
        sim.advance(100 * MINUTE);
        assert_eq!(handle.health().is_live(), live);
    }
}

#[test]
fn a_paused_runner_is_live_unless_what_it_holds_stands_still() {
    let sim = SimRuntime::new(1);
    let (handle, script) = start(
        &sim,
        [],
        always(&sim, Plan::hang()),
        SinkOptions::concurrent(),
    );
    sim.advance(SECOND);
    handle.pause();
    sim.advance(600 * MINUTE);
    assert!(handle.health().is_live());
    handle.resume();
    script.push(Step::Batch(vec![0]));
    sim.advance(SECOND);
    handle.pause();
    sim.advance(4 * MINUTE);
    assert!(handle.health().is_live());
    sim.advance(MINUTE);
    assert_eq!(handle.health().state, RunState::Paused);
    assert!(!handle.health().is_live());
}

/// Nobody looked while it waited, and then its second attempt has just begun.
#[test]
fn a_retry_after_a_long_wait_is_no_standstill() {
    for_each_seed(10, |sim| {
        let supplier = ScriptedSupplier::new(&sim).batch([0_u32]);
        let recorder = Recorder::new(&sim, |update: &Delivery<u32>| {
            match update.attempt().get() {
                1 => Plan::fail("no"),
                _ => Plan::hang(),
            }
        });
        let handle = Runner::new(runtime(&sim), supplier, recorder)
            .policy(|_: Failure<u32>| Verdict::Retry { after: 60 * MINUTE })
            .start();
        sim.advance(60 * MINUTE + SECOND);
        assert_eq!(handle.size(), 1);
        let health = handle.health();
        assert!(health.is_live() && !health.blocked);
        sim.advance(5 * MINUTE);
        assert!(!handle.health().is_live());
    });
}

// Are the workers blocked

#[test]
fn workers_that_block_for_five_seconds_are_reported() {
    for_each_seed(10, |sim| {
        let recorder = Recorder::new(&sim, |update: &Delivery<u32>| match **update {
            0 | 1 => Plan::ok().block(20 * SECOND),
            _ => Plan::ok(),
        });
        let options = SinkOptions::concurrent().workers(n(2));
        let (handle, _) = start(&sim, 0..4, recorder, options);
        let looks = watch(&sim, &handle, 40);
        sim.advance(50 * SECOND);
        let looks: Vec<bool> = looks
            .lock()
            .unwrap()
            .iter()
            .map(|look| look.blocked)
            .collect();
        // At 1.5 s, 2.5 s and so on. The first look finds that two have started meanwhile, so five
        // seconds count from there.
        assert_eq!(looks[..4], [false; 4]);
        assert_eq!(looks[5..18], [true; 13]);
        assert_eq!(looks[39..], [false; 1]);
        assert_eq!(handle.stats().counters.finished, 4);
    });
}

#[test]
fn blocked_workers_without_updates_to_start_are_nobodys_business() {
    for_each_seed(10, |sim| {
        let supplier = ScriptedSupplier::new(&sim).batch(0..3_u32);
        let recorder = always(&sim, Plan::ok().block(20 * SECOND));
        let handle = Runner::new(runtime(&sim), supplier, recorder)
            .sink(SinkOptions::concurrent().workers(n(1)))
            .sequentialize(|_| [Key::chat(1)])
            .start();
        let looks = watch(&sim, &handle, 40);
        sim.advance(70 * SECOND);
        assert!(looks.lock().unwrap().iter().all(|look| !look.blocked));
    });
}

#[test]
fn a_full_sink_is_not_blocked() {
    let sim = SimRuntime::new(1);
    let options = SinkOptions::concurrent().concurrency(n(2));
    let (handle, _) = start(&sim, 0..50, always(&sim, Plan::hang()), options);
    sim.advance(MINUTE);
    assert_eq!(handle.stats().ready, 48);
    assert!(!handle.health().blocked);
}

// Is it connected

#[test]
fn connected_means_that_a_poll_was_answered_lately() {
    for_each_seed(10, |sim| {
        let supplier = ScriptedSupplier::<u32>::new(&sim)
            .call_timeout(30 * SECOND)
            .wait(10 * SECOND)
            .batch([])
            .step(Step::Hang)
            .step(Step::Hang)
            .step(Step::Hang)
            .batch([]);
        let handle = Runner::new(runtime(&sim), supplier, always(&sim, Plan::ok())).start();
        sim.advance(10 * SECOND - MS);
        assert!(!handle.health().is_connected());
        sim.advance(MS);
        assert!(handle.health().is_connected());
        // The time of one call, and a margin.
        sim.advance(45 * SECOND);
        assert!(handle.health().is_connected());
        sim.advance(MS);
        assert!(!handle.health().is_connected());
        assert!(handle.health().is_live());
        // A dead connection costs one deadline each.
        let connected = (0..60).any(|_| {
            sim.advance(SECOND);
            handle.health().is_connected()
        });
        assert!(connected);
    });
}

#[test]
fn a_paused_runner_is_not_connected_after_a_while() {
    let sim = SimRuntime::new(1);
    let supplier = ScriptedSupplier::<u32>::new(&sim)
        .call_timeout(30 * SECOND)
        .batch([]);
    let handle = Runner::new(runtime(&sim), supplier, always(&sim, Plan::ok())).start();
    sim.advance(SECOND);
    handle.pause();
    assert!(handle.health().is_connected());
    sim.advance(MINUTE);
    assert!(!handle.health().is_connected());
    assert!(handle.health().is_live());
}

// Numbers

#[test]
fn the_numbers_add_up_at_every_moment() {
    for_each_seed(20, |sim| {
        let dice = sim.clone();
        let supplier = ScriptedSupplier::new(&sim).batch(0..100_u32);
        let recorder = Recorder::new(&sim, move |_: &Delivery<u32>| {
            let plan = match dice.below(3) {
                0 => Plan::fail("no"),
                1 => Plan::hang(),
                _ => Plan::ok(),
            };
            plan.sleep(MS * dice.below(1_000) as u32)
        });
        let handle = Runner::new(runtime(&sim), supplier, recorder)
            .sink(SinkOptions::concurrent().concurrency(n(7)).timeout(SECOND))
            .sequentialize(|update: &u32| [Key::chat(i64::from(update % 11))])
            .policy(
                |failure: Failure<u32>| match failure.update.attempt().get() {
                    1 => Verdict::Retry { after: SECOND },
                    _ => Verdict::Skip,
                },
            )
            .start();
        for _ in 0..200 {
            sim.advance(200 * MS);
            let stats = handle.stats();
            let held = handle.in_flight().len();
            assert_eq!(
                stats.in_flight + stats.ready + stats.waiting + stats.detached,
                held
            );
            assert_eq!(stats.in_flight + stats.capacity, 7);
            let counters = stats.counters;
            assert_eq!(counters.supplied, counters.settled() + held as u64);
            assert!(stats.in_flight <= 7);
            assert_eq!(stats.in_flight, handle.size());
        }
        assert_eq!(handle.stats().counters.settled(), 100);
    });
}

#[test]
fn latency_is_measured_from_arrival_to_settlement() {
    let sim = SimRuntime::new(1);
    let options = SinkOptions::concurrent().concurrency(n(1));
    let (handle, _) = start(&sim, 0..3, always(&sim, Plan::ok().sleep(SECOND)), options);
    sim.advance(10 * SECOND);
    let latency = handle.stats().latency;
    // 1, 2 and 3 s, because the second and the third wait for the slot; percentiles may be a bit too high.
    assert_eq!(latency.max, 3 * SECOND);
    assert!(latency.p50 >= 2 * SECOND, "{latency:?}");
    assert!(latency.p50 <= 2_250 * MS, "{latency:?}");
}

/// Not all are measured, and each that is stands for those of its kind.
#[test]
fn a_few_slow_updates_do_not_outweigh_many_fast_ones() {
    for_each_seed(20, |sim| {
        let recorder = Recorder::new(&sim, |update: &Delivery<u32>| match **update {
            slow @ 400.. => Plan::ok().sleep(SECOND + 10 * MS * (slow - 400)),
            _ => Plan::ok(),
        });
        let (handle, _) = start(&sim, 0..500, recorder, SinkOptions::concurrent());
        sim.advance(10 * SECOND);
        let stats = handle.stats();
        assert_eq!(stats.counters.finished, 500);
        assert_eq!(stats.latency.p50, Duration::ZERO, "{:?}", stats.latency);
        assert!(stats.latency.p99 >= SECOND, "{:?}", stats.latency);
        assert_eq!(stats.latency.max, SECOND + 990 * MS);
    });
}

// The report

fn refused(text: &'static str) -> Step<u32> {
    let source = std::io::Error::other(text);
    Step::Fail(SupplyError::transient(Outer(source)))
}

#[derive(Debug)]
struct Outer(std::io::Error);

impl std::fmt::Display for Outer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cannot connect")
    }
}

impl std::error::Error for Outer {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

#[test]
fn a_report_says_how_many_fetches_of_the_run_failed_and_what_the_last_error_was() {
    let sim = SimRuntime::new(1);
    let (handle, script) = start(&sim, [1], always(&sim, Plan::ok()), SinkOptions::default());
    script.push(refused("no route"));
    script.push(refused("refused"));
    sim.advance(MINUTE);
    let report = sim.block_on(handle.stop()).unwrap();
    let text = report.to_string();
    let expected = "; 2 of 4 fetches failed, the last one: cannot connect: refused";
    assert!(text.contains(expected), "{text}");
    assert_eq!((report.calls, report.failed_calls), (4, 2));
    assert_eq!(
        report.last_error.as_deref(),
        Some("cannot connect: refused")
    );

    // They are those of one run.
    handle.start().unwrap();
    sim.advance(MINUTE);
    let report = sim.block_on(handle.stop()).unwrap();
    assert!(!report.to_string().contains("fetches"), "{report}");
}

#[test]
fn requests_to_wait_are_no_failures_of_the_report() {
    let sim = SimRuntime::new(1);
    let (handle, script) = start(&sim, [1], always(&sim, Plan::ok()), SinkOptions::default());
    script.push(Step::Fail(SupplyError::retry_after(SECOND, "slow down")));
    sim.advance(MINUTE);
    let report = sim.block_on(handle.stop()).unwrap();
    assert!(!report.to_string().contains("fetches"), "{report}");
}

#[test]
fn a_run_that_failed_says_its_error_once() {
    let sim = SimRuntime::new(1);
    let (handle, script) = start(&sim, [], always(&sim, Plan::ok()), SinkOptions::default());
    script.push(Step::Fail(SupplyError::fatal("no such token")));
    let error = sim.block_on(handle.stopped()).unwrap_err();
    let text = format!("{error:?}");
    assert_eq!(text.matches("no such token").count(), 1, "{text}");
    assert!(text.contains("; 1 of 2 fetches failed)"), "{text}");
}
