//! What becomes of an update that was not handled.

mod common;

use std::{
    error::Error,
    fmt,
    num::NonZeroU32,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use common::{LONG, MS, SECOND, ended, n, quiet, runtime};
use runner_core::{
    BoxError, Cause, Delivery, ErrorPolicy, Failure, Fate, Key, Progress, RunError, Runner,
    RunnerHandle, RuntimeExt, SinkOptions, Undecodable, Verdict,
    testing::{Log, Plan, Recorder, Script, ScriptedSupplier, SimRuntime, for_each_seed},
};

/// A runner whose updates all belong to chat `update / 10`.
fn run(
    sim: &SimRuntime,
    updates: impl IntoIterator<Item = u32>,
    plan: impl Fn(&Delivery<u32>) -> Plan + Send + Sync + 'static,
    options: SinkOptions<impl Sized>,
    policy: impl ErrorPolicy<u32>,
) -> (RunnerHandle<u32>, Log<u32>, Script<u32>) {
    let supplier = ScriptedSupplier::new(sim).batch(updates).rewinding();
    let script = supplier.script();
    let recorder = Recorder::new(sim, plan);
    let log = recorder.log();
    let handle = Runner::new(runtime(sim), supplier, recorder)
        .sink(options)
        .sequentialize(|update: &u32| [Key::chat(i64::from(update / 10))])
        .policy(policy)
        .start();
    (handle, log, script)
}

fn slots(concurrency: usize) -> SinkOptions {
    SinkOptions::concurrent()
        .concurrency(n(concurrency))
        .workers(n(1))
}

fn retry_after(after: Duration) -> impl ErrorPolicy<u32> {
    move |_: Failure<u32>| Verdict::Retry { after }
}

/// Fails at its first attempt, and is fine at the second one.
fn fails_once(update: &Delivery<u32>) -> Plan {
    if update.redelivered() {
        Plan::ok()
    } else {
        Plan::fail("once")
    }
}

// Skip

#[test]
fn every_kind_of_failure_reaches_the_policy_with_its_cause() {
    quiet();
    for_each_seed(10, |sim| {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let plan = |update: &Delivery<u32>| match **update {
            0 => Plan::fail("an error"),
            10 => Plan::panic("a panic"),
            20 => Plan::panic_at_once("a panic at once"),
            30 => Plan::hang(),
            _ => Plan::ok(),
        };
        let policy = move |failure: Failure<u32>| {
            let text = match &failure.cause {
                Cause::Error(error) => error.to_string(),
                Cause::Panic(text) => text.to_string(),
                cause => cause.to_string(),
            };
            assert_eq!(failure.update.attempt(), NonZeroU32::MIN);
            log.lock().unwrap().push((*failure.update, text));
            Verdict::Skip
        };
        let options = slots(10).timeout(SECOND);
        let (handle, _, _) = run(&sim, [0, 10, 20, 30, 40], plan, options, policy);
        sim.advance(10 * SECOND);
        let mut seen = seen.lock().unwrap().clone();
        seen.sort_unstable();
        let seen: Vec<(u32, &str)> = seen.iter().map(|(it, text)| (*it, &**text)).collect();
        assert_eq!(
            seen,
            [
                (0, "an error"),
                (10, "a panic"),
                (20, "a panic at once"),
                (30, "the handler timed out"),
            ]
        );
        let counters = handle.stats().counters;
        assert_eq!((counters.finished, counters.failed), (1, 1));
        assert_eq!((counters.panicked, counters.timed_out), (2, 1));
    });
}

#[test]
fn an_update_that_cannot_be_understood_is_counted_as_such() {
    let sim = SimRuntime::new(1);
    let supplier = ScriptedSupplier::new(&sim).batch([0_u32]);
    let seen = Arc::new(OnceLock::new());
    let log = Arc::clone(&seen);
    let handle = Runner::for_each(runtime(&sim), supplier, |_: Delivery<u32>| async {
        Err::<(), BoxError>(Undecodable::new("no id").into())
    })
    .policy(move |failure: Failure<u32>| {
        log.set(failure.cause).unwrap();
        Verdict::Skip
    })
    .start();
    sim.advance(SECOND);
    let Some(Cause::Undecodable(error)) = seen.get() else {
        panic!("{seen:?}");
    };
    assert_eq!(error.to_string(), "no id");
    assert_eq!(handle.stats().counters.undecodable, 1);
}

#[test]
fn a_policy_may_take_its_time() {
    for_each_seed(20, |sim| {
        let clock = sim.clone();
        let policy = move |failure: Failure<u32>| {
            let sim = clock.clone();
            async move {
                sim.sleep(5 * SECOND).await;
                match failure.update.attempt().get() {
                    1 => Verdict::Retry { after: SECOND },
                    _ => Verdict::Skip,
                }
            }
        };
        // The timeout is that of handlers, not of policies.
        let options = slots(1).timeout(SECOND);
        let plan = |update: &Delivery<u32>| match **update {
            0 => Plan::fail("no"),
            _ => Plan::ok(),
        };
        let (handle, log, _) = run(&sim, [0, 1], plan, options, policy);
        sim.advance(4 * SECOND);
        assert_eq!(handle.size(), 1);
        sim.advance(20 * SECOND);
        let entries = log.entries();
        assert_eq!(entries[1].started, 6 * SECOND);
        assert_eq!((entries[2].update, entries[2].started), (1, 11 * SECOND));
        let counters = handle.stats().counters;
        assert_eq!(
            (counters.failed, counters.finished, counters.retried),
            (1, 1, 1)
        );
    });
}

#[test]
fn a_cause_shows_its_error_and_a_chain_of_sources_shows_it_once() {
    fn chain(error: &dyn Error) -> String {
        match error.source() {
            Some(source) => format!("{error}: {}", chain(source)),
            None => error.to_string(),
        }
    }
    // Its text leaves out its source, as is usual.
    #[derive(Debug)]
    struct NotStored(BoxError);
    impl fmt::Display for NotStored {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("not stored")
        }
    }
    impl Error for NotStored {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&*self.0)
        }
    }
    let error = || NotStored("the database is gone".into());
    let failed = Cause::Error(Arc::new(error()));
    assert_eq!(failed.to_string(), "the handler failed: not stored");
    let text = "the handler failed: not stored: the database is gone";
    assert_eq!(chain(&failed), text);

    let undecodable = "the update cannot be decoded: not stored";
    let cause = Cause::Undecodable(Arc::new(error()));
    for error in [&cause as &dyn Error, &Undecodable::new(error())] {
        assert_eq!(error.to_string(), undecodable);
        assert_eq!(chain(error), format!("{undecodable}: the database is gone"));
    }
}

// Retry

#[test]
fn a_retry_keeps_its_keys_and_its_place() {
    for_each_seed(20, |sim| {
        let plan = |update: &Delivery<u32>| match **update {
            0 => fails_once(update),
            _ => Plan::ok(),
        };
        let (handle, log, _) = run(&sim, [0, 1, 2, 10], plan, slots(10), retry_after(SECOND));
        sim.advance(MS);
        // Another chat goes on, this one waits.
        assert_eq!(log.started(), [0, 10]);
        let held = handle.in_flight();
        assert_eq!(held[0].progress, Progress::Retrying);
        assert_eq!(held[1].waits_for, [0]);
        sim.advance(SECOND);
        assert_eq!(log.started(), [0, 10, 0, 1, 2]);
        assert_eq!(log.entries()[2].started, SECOND);
        assert_eq!(log.entries()[2].attempt, 2);
        let counters = handle.stats().counters;
        assert_eq!(
            (counters.finished, counters.retried, counters.failed),
            (4, 1, 0)
        );
    });
}

#[test]
fn a_retry_holds_no_slot_and_counts_as_waiting() {
    for_each_seed(20, |sim| {
        let plan = |update: &Delivery<u32>| match **update {
            0 => Plan::fail("no"),
            _ => Plan::hang(),
        };
        let (handle, log, _) = run(&sim, [0, 10], plan, slots(1), retry_after(SECOND));
        sim.advance(500 * MS);
        assert_eq!(log.started(), [0, 10]);
        let stats = handle.stats();
        assert_eq!((stats.in_flight, stats.waiting, stats.ready), (1, 1, 0));
    });
}

#[test]
fn retries_that_wait_count_in_max_waiting() {
    for_each_seed(10, |sim| {
        let plan = |_: &Delivery<u32>| Plan::fail("no");
        let options = slots(10).max_waiting(n(3));
        let updates = (0..6).map(|update| update * 10);
        let (handle, log, script) = run(&sim, updates, plan, options, retry_after(LONG));
        sim.advance(SECOND);
        assert_eq!(log.started(), [0, 10, 20]);
        assert_eq!(handle.stats().waiting, 3);
        assert!(!script.is_over());
    });
}

#[test]
fn a_retry_that_is_due_goes_first() {
    for_each_seed(20, |sim| {
        let plan = |update: &Delivery<u32>| match **update {
            0 | 10 => fails_once(update),
            _ => Plan::ok().sleep(SECOND),
        };
        let updates = (0..6).map(|update| update * 10);
        // 0 waits longer than 10.
        let policy = |failure: Failure<u32>| Verdict::Retry {
            after: MS * (500 - 10 * *failure.update),
        };
        let (_handle, log, _) = run(&sim, updates, plan, slots(1), policy);
        sim.advance(20 * SECOND);
        assert_eq!(log.started(), [0, 10, 20, 10, 0, 30, 40, 50]);
    });
}

#[test]
fn a_retry_has_a_fresh_deadline() {
    for_each_seed(10, |sim| {
        let plan = |update: &Delivery<u32>| match update.attempt().get() {
            1 => Plan::fail("no").sleep(1500 * MS),
            2 => Plan::hang()
                .extend(LONG)
                .sleep(1500 * MS)
                .extend(Duration::ZERO)
                .sleep(LONG),
            _ => Plan::ok().sleep(1900 * MS),
        };
        let policy = |failure: Failure<u32>| {
            // What the second attempt asked for is not left for the third one.
            assert_eq!(failure.update.deadline(), None);
            Verdict::Retry { after: SECOND }
        };
        let (handle, log, _) = run(&sim, [0], plan, slots(1).timeout(2 * SECOND), policy);
        sim.advance(3 * LONG);
        let starts: Vec<_> = log.entries().iter().map(|entry| entry.started).collect();
        assert_eq!(
            starts,
            [Duration::ZERO, 2500 * MS, 2500 * MS + LONG + SECOND]
        );
        assert_eq!(handle.stats().counters.finished, 1);
    });
}

#[test]
fn a_retry_may_follow_at_once() {
    for_each_seed(20, |sim| {
        let plan = |update: &Delivery<u32>| match update.attempt().get() {
            10 => Plan::ok(),
            _ => Plan::fail("again"),
        };
        let (handle, log, _) = run(&sim, [0, 1], plan, slots(1), retry_after(Duration::ZERO));
        sim.advance(MS);
        let attempts: Vec<_> = log
            .entries()
            .iter()
            .map(|it| (it.update, it.attempt))
            .collect();
        let expected: Vec<_> = (0..2)
            .flat_map(|it| (1..=10).map(move |at| (it, at)))
            .collect();
        assert_eq!(attempts, expected);
        assert_eq!(handle.stats().counters.retried, 18);
    });
}

#[test]
fn after_a_stop_a_retry_is_tried_once_more_at_once() {
    for_each_seed(20, |sim| {
        let (handle, log, script) = run(&sim, [0, 1], fails_once, slots(1), retry_after(LONG));
        sim.advance(SECOND);
        assert_eq!(log.started(), [0]);
        let report = sim.block_on(handle.stop()).unwrap();
        assert_eq!(sim.elapsed(), SECOND);
        // 1 fails for the first time after the stop, and has one more attempt at once as well.
        assert_eq!(log.started(), [0, 0, 1, 1]);
        assert_eq!((report.counters.finished, report.counters.retried), (2, 2));
        assert_eq!(script.closes(), [2]);
    });
}

#[test]
fn several_waiting_retries_are_tried_in_order_after_a_stop() {
    for_each_seed(20, |sim| {
        let policy = |failure: Failure<u32>| Verdict::Retry {
            after: LONG - SECOND * *failure.update,
        };
        let (handle, log, _) = run(&sim, [0, 10, 20], fails_once, slots(1), policy);
        sim.advance(SECOND);
        sim.block_on(handle.stop()).unwrap();
        assert_eq!(log.started(), [0, 10, 20, 0, 10, 20]);
    });
}

#[test]
fn a_second_retry_after_a_stop_counts_as_failed() {
    for_each_seed(20, |sim| {
        let plan = |_: &Delivery<u32>| Plan::fail("always");
        let (handle, log, script) = run(&sim, [0, 1], plan, slots(1), retry_after(SECOND));
        sim.advance(5500 * MS);
        let attempts = log.started().len();
        let report = sim.block_on(handle.stop()).unwrap();
        assert_eq!(sim.elapsed(), 5500 * MS);
        assert_eq!(log.started()[attempts..], [0, 1, 1]);
        assert_eq!((report.counters.failed, report.counters.abandoned), (2, 0));
        assert_eq!(script.closes(), [2]);
    });
}

#[test]
fn a_retry_beyond_the_clock_waits_for_the_stop() {
    let sim = SimRuntime::new(1);
    let (handle, log, _) = run(&sim, [0], fails_once, slots(1), retry_after(Duration::MAX));
    sim.advance(LONG);
    assert_eq!(log.started(), [0]);
    let report = sim.block_on(handle.stop()).unwrap();
    assert_eq!(report.counters.finished, 1);
}

// Stop

#[test]
fn a_policy_may_end_the_run_and_its_update_stays_unsettled() {
    for_each_seed(20, |sim| {
        let plan = |update: &Delivery<u32>| match **update {
            0 | 20 => Plan::ok().sleep(5 * SECOND),
            10 => Plan::fail("the database is gone").sleep(SECOND),
            _ => Plan::ok(),
        };
        let policy = |_: Failure<u32>| Verdict::Stop;
        // 0, 10 and 20 run; 11 waits for 10, 30 for a slot.
        let (handle, log, script) = run(&sim, [0, 10, 11, 20, 30], plan, slots(3), policy);
        let error = sim.block_on(handle.task()).unwrap_err();
        assert_eq!(sim.elapsed(), 5 * SECOND);
        let RunError::Policy { cause, report } = &error else {
            panic!("{error:?}");
        };
        assert_eq!(error.source().unwrap().to_string(), cause.to_string());
        assert_eq!(
            cause.to_string(),
            "the handler failed: the database is gone"
        );
        // What ran came to its end, nothing else began, and nothing overtook.
        assert_eq!(log.started(), [0, 10, 20]);
        let listed: Vec<_> = report
            .abandoned
            .iter()
            .map(|it| (*it.update, it.started, it.fate))
            .collect();
        assert_eq!(
            listed,
            [
                (10, true, Fate::Redelivered),
                (11, false, Fate::Redelivered),
                (30, false, Fate::Redelivered),
            ]
        );
        assert_eq!((report.counters.finished, report.counters.failed), (2, 0));
        assert_eq!(script.closes(), [1]);
    });
}

#[test]
fn a_run_that_was_ended_by_the_policy_can_be_repeated() {
    for_each_seed(10, |sim| {
        let failures = Mutex::new(1_u32);
        let plan = move |update: &Delivery<u32>| {
            let mut left = failures.lock().unwrap();
            if **update == 1 && *left > 0 {
                *left -= 1;
                return Plan::fail("once");
            }
            Plan::ok()
        };
        let (handle, log, script) =
            run(&sim, 0..4, plan, slots(10), |_: Failure<u32>| Verdict::Stop);
        assert!(sim.block_on(handle.task()).is_err());
        handle.start().unwrap();
        sim.advance(SECOND);
        let report = sim.block_on(handle.stop()).unwrap();
        assert_eq!(log.started(), [0, 1, 1, 2, 3]);
        assert_eq!(report.counters.finished, 3);
        assert_eq!(script.closes(), [1, 3]);
    });
}

#[test]
fn a_policy_may_end_a_run_that_is_stopping() {
    for_each_seed(20, |sim| {
        let plan = |_: &Delivery<u32>| Plan::fail("no").sleep(5 * SECOND);
        let (handle, _, script) = run(&sim, [0, 1], plan, slots(1), |_: Failure<u32>| {
            Verdict::Stop
        });
        sim.advance(SECOND);
        let error = sim.block_on(handle.stop()).unwrap_err();
        assert!(matches!(error, RunError::Policy { .. }));
        assert_eq!(error.report().counters.abandoned, 2);
        assert_eq!(script.closes(), [0]);
    });
}

/// The first one is the reason; all of them stay unsettled.
#[test]
fn several_updates_may_end_the_run() {
    for_each_seed(20, |sim| {
        let plan = |update: &Delivery<u32>| Plan::fail("no").sleep(SECOND * (1 + **update / 10));
        let (handle, _, _) = run(&sim, [0, 10, 20], plan, slots(10), |_: Failure<u32>| {
            Verdict::Stop
        });
        let error = sim.block_on(handle.task()).unwrap_err();
        assert_eq!(sim.elapsed(), 3 * SECOND);
        assert_eq!(error.report().counters.abandoned, 3);
    });
}

// Policies that fail

/// Whatever happens to the policy, the update is given up and the next one of its chat goes on.
fn given_up(policy: impl ErrorPolicy<u32> + Clone, at: Duration) {
    quiet();
    for_each_seed(20, |sim| {
        let plan = |update: &Delivery<u32>| match **update {
            0 => Plan::fail("no"),
            10 => Plan::panic("no"),
            _ => Plan::ok(),
        };
        let (handle, log, _) = run(&sim, [0, 1, 10, 11], plan, slots(2), policy.clone());
        sim.advance(LONG);
        let next: Vec<_> = log
            .entries()
            .iter()
            .filter(|entry| entry.update % 10 == 1)
            .map(|entry| entry.started)
            .collect();
        assert_eq!(next, [at, at]);
        let counters = handle.stats().counters;
        assert_eq!(
            (counters.failed, counters.panicked, counters.finished),
            (1, 1, 2)
        );
        assert!(handle.is_running());
        assert_eq!(sim.panics(), 0);
    });
}

#[test]
fn a_policy_that_panics_gives_its_update_up() {
    given_up(
        |_: Failure<u32>| -> Verdict { panic!("policy") },
        Duration::ZERO,
    );
}

#[test]
fn a_policy_that_panics_later_gives_its_update_up() {
    given_up(
        |_: Failure<u32>| async {
            if true {
                panic!("policy");
            }
            Verdict::Stop
        },
        Duration::ZERO,
    );
}

#[test]
fn a_policy_that_hangs_gives_its_update_up_after_half_a_minute() {
    given_up(
        |_: Failure<u32>| std::future::pending::<Verdict>(),
        30 * SECOND,
    );
}

#[test]
fn a_policy_that_hangs_is_dropped_at_the_limit_of_a_stop() {
    for_each_seed(10, |sim| {
        let policy = |_: Failure<u32>| std::future::pending::<Verdict>();
        let (handle, _, _) = run(&sim, [0], |_| Plan::fail("no"), slots(1), policy);
        sim.advance(MS);
        let report = sim.block_on(handle.stop_within(SECOND)).unwrap();
        assert_eq!(sim.elapsed(), SECOND + MS);
        assert_eq!((report.counters.failed, report.abandoned.len()), (0, 1));
        assert!(!report.abandoned[0].unresponsive);
    });
}

/// It keeps the slot of its update meanwhile, and cannot give itself more time.
#[test]
fn the_time_of_a_policy_cannot_be_extended() {
    for_each_seed(10, |sim| {
        let clock = sim.clone();
        let policy = move |failure: Failure<u32>| {
            let sim = clock.clone();
            async move {
                assert!(!failure.update.extend(LONG));
                sim.sleep(SECOND).await;
                assert!(!failure.update.extend(LONG));
                assert_eq!(failure.update.deadline(), None);
                std::future::pending::<Verdict>().await
            }
        };
        let plan = |_: &Delivery<u32>| Plan::fail("no").sleep(MS);
        let (handle, _, _) = run(&sim, [0], plan, slots(1).timeout(SECOND), policy);
        sim.advance(30 * SECOND);
        assert_eq!(handle.size(), 1);
        sim.advance(MS);
        assert_eq!(handle.stats().counters.failed, 1);
    });
}

/// An error whose destructor looks at the runner, or panics.
#[derive(Debug)]
struct Nosy {
    handle: Arc<OnceLock<RunnerHandle<u32>>>,
    dropped: Arc<Mutex<u32>>,
}

impl fmt::Display for Nosy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nosy")
    }
}

impl Error for Nosy {}

impl Drop for Nosy {
    fn drop(&mut self) {
        // Would wait for ever if it were dropped under a lock of the runner.
        let handle = self.handle.get().expect("set before the run");
        assert!(handle.stats().counters.supplied > 0);
        *self.dropped.lock().unwrap() += 1;
        assert!(std::thread::panicking(), "dropped");
    }
}

#[test]
fn the_destructor_of_an_error_may_look_at_the_runner_and_panic() {
    quiet();
    for verdict in [
        Verdict::Skip,
        Verdict::Retry { after: SECOND },
        Verdict::Stop,
    ] {
        let sim = SimRuntime::new(1);
        let cell = Arc::new(OnceLock::new());
        let dropped = Arc::new(Mutex::new(0));
        let state = (Arc::clone(&cell), Arc::clone(&dropped));
        let supplier = ScriptedSupplier::new(&sim).batch([0_u32, 1]);
        let handle = Runner::for_each_with(
            runtime(&sim),
            supplier,
            state,
            |(handle, dropped), update: Delivery<u32>| async move {
                if update.redelivered() {
                    return Ok(());
                }
                Err(Nosy { handle, dropped })
            },
        )
        .policy(move |_: Failure<u32>| verdict)
        .start();
        cell.set(handle.clone()).unwrap();
        sim.advance(10 * SECOND);
        assert_eq!(sim.panics(), 0);
        let counters = handle.stats().counters;
        match verdict {
            Verdict::Stop => {
                let Some(Err(RunError::Policy { cause, report })) = ended(handle.task()) else {
                    panic!("it goes on");
                };
                assert_eq!(counters.abandoned, 2);
                // The one error that is left is part of the result.
                drop(report);
                std::mem::forget(cause);
            }
            Verdict::Skip => assert_eq!((counters.failed, *dropped.lock().unwrap()), (2, 2)),
            _ => assert_eq!((counters.finished, *dropped.lock().unwrap()), (2, 2)),
        }
        // What it holds would look at itself when it goes.
        std::mem::forget((handle, cell));
    }
}

// What is counted after a stop

/// After a stop, the one attempt that is left fails with this; what the update is counted as.
fn counted(plan: fn() -> Plan, options: SinkOptions<impl Sized>) -> runner_core::Counters {
    quiet();
    let sim = SimRuntime::new(7);
    let plan = move |update: &Delivery<u32>| match update.attempt().get() {
        1 => Plan::fail("once"),
        _ => plan(),
    };
    let (handle, _, _) = run(&sim, [0], plan, options, retry_after(LONG));
    sim.advance(SECOND);
    sim.block_on(handle.stop()).unwrap().counters
}

#[test]
fn the_last_attempt_after_a_stop_is_counted_by_its_cause() {
    for options in [
        slots(1).any(),
        SinkOptions::batch().any(),
        SinkOptions::sequential().any(),
    ] {
        let options = options.timeout(SECOND);
        assert_eq!(counted(|| Plan::fail("again"), options.clone()).failed, 1);
        assert_eq!(
            counted(|| Plan::panic("again"), options.clone()).panicked,
            1
        );
        assert_eq!(counted(Plan::hang, options).timed_out, 1);
    }
}

#[test]
fn an_undecodable_update_that_is_retried_after_a_stop_is_counted_as_such() {
    let sim = SimRuntime::new(7);
    let supplier = ScriptedSupplier::new(&sim).batch([0]);
    let handler = async |_: Delivery<u32>| Err::<(), BoxError>(Undecodable::new("no JSON").into());
    let handle = Runner::for_each(runtime(&sim), supplier, handler)
        .policy(retry_after(LONG))
        .start();
    sim.advance(SECOND);
    let report = sim.block_on(handle.stop()).unwrap();
    assert_eq!(
        (report.counters.undecodable, report.counters.failed),
        (1, 0)
    );
}

// Redelivery

#[test]
fn an_update_that_no_handler_has_seen_is_not_redelivered_after_a_retry() {
    quiet();
    for_each_seed(20, |sim| {
        let supplier = ScriptedSupplier::new(&sim).batch([0]);
        let marks = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&marks);
        // Its keys are not known, so no handler may see it.
        let policy = move |failure: Failure<u32>| {
            log.lock().unwrap().push(failure.update.redelivered());
            match failure.update.attempt().get() {
                3 => Verdict::Skip,
                _ => Verdict::Retry { after: SECOND },
            }
        };
        let handle = Runner::new(runtime(&sim), supplier, async |_: Delivery<u32>| {})
            .sequentialize(|_: &u32| -> [Key; 1] { panic!("no key") })
            .policy(policy)
            .start();
        sim.advance(10 * SECOND);
        assert_eq!(handle.stats().counters.panicked, 1);
        assert_eq!(*marks.lock().unwrap(), [false; 3]);
    });
}
