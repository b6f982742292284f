//! Pauses, deadlines, retries and conflicts, whatever the supplier.

mod common;

use std::{
    convert::Infallible,
    error::Error,
    num::{NonZeroU32, NonZeroUsize},
    pin::pin,
    time::Duration,
};

use common::{MS, SECOND, n, quiet, runtime};
use futures::StreamExt;
use runner_core::{
    Backoff, Conflict, Delivery, RetryPolicy, RunError, RunState, Runner, RunnerHandle, RuntimeExt,
    Source, SourceError, SourceOptions, SupplyError, UpdateSupplier,
    testing::{Close, Script, ScriptedSupplier, SimRuntime, Step, for_each_seed},
};

const MINUTE: Duration = Duration::from_secs(60);

fn transient() -> Step<u32> {
    Step::Fail(SupplyError::transient("connection refused"))
}

fn wait(delay: Duration) -> Step<u32> {
    Step::Fail(SupplyError::retry_after(delay, "too many requests"))
}

fn poller() -> Step<u32> {
    Step::Fail(SupplyError::conflict(
        Conflict::Poller,
        "terminated by other getUpdates request",
    ))
}

fn fixed(delay: Duration) -> SourceOptions {
    SourceOptions::default().retry(RetryPolicy::default().backoff(Backoff::Fixed(delay)))
}

fn source(
    sim: &SimRuntime,
    supplier: ScriptedSupplier<u32>,
    options: SourceOptions,
) -> Source<ScriptedSupplier<u32>> {
    Source::new(runtime(sim), supplier, options)
}

fn start(
    sim: &SimRuntime,
    supplier: ScriptedSupplier<u32>,
    options: SourceOptions,
) -> RunnerHandle<u32> {
    Runner::for_each(runtime(sim), supplier, async |_: Delivery<u32>| {})
        .source(options)
        .start()
}

/// When each call began.
fn times(script: &Script<u32>) -> Vec<Duration> {
    script.calls().iter().map(|call| call.at).collect()
}

fn gaps(script: &Script<u32>) -> Vec<Duration> {
    let times = times(script);
    times.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

/// An error and all its sources.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += ": ";
        text += &error.to_string();
        source = error.source();
    }
    text
}

#[test]
fn failures_are_retried_for_ever_with_jitter_below_a_doubling_limit() {
    for_each_seed(50, |sim| {
        let mut supplier = ScriptedSupplier::new(&sim);
        for _ in 0..40 {
            supplier = supplier.step(transient());
        }
        let supplier = supplier.batch([1]);
        let script = supplier.script();
        let mut source = source(&sim, supplier, SourceOptions::default());
        let batch = sim.block_on(source.next(n(10))).unwrap().unwrap();
        assert_eq!(batch, [1]);
        for (failures, gap) in (1..).zip(gaps(&script)) {
            let limit = (SECOND * 2_u32.pow(failures.min(10) - 1)).min(MINUTE);
            assert!(gap >= SECOND / 2 && gap <= limit, "{failures}: {gap:?}");
        }
    });
}

#[test]
fn waits_are_spread_over_their_whole_range() {
    let mut waits = Vec::new();
    for_each_seed(200, |sim| {
        let supplier = ScriptedSupplier::new(&sim).step(transient()).batch([1]);
        let script = supplier.script();
        let mut source = source(&sim, supplier, SourceOptions::default());
        sim.block_on(source.next(n(10))).unwrap().unwrap();
        waits.extend(gaps(&script));
    });
    assert!(waits.iter().any(|wait| *wait < 550 * MS));
    assert!(waits.iter().any(|wait| *wait > 950 * MS));
}

#[test]
fn a_call_that_fails_after_a_long_time_is_followed_by_the_first_pause_of_the_backoff() {
    for_each_seed(20, |sim| {
        let mut supplier = ScriptedSupplier::new(&sim);
        // An outage with refusals at once, and then calls that are cut.
        for _ in 0..10 {
            supplier = supplier.step(transient());
        }
        for _ in 0..20 {
            supplier = supplier.wait(5 * SECOND).step(transient());
        }
        let supplier = supplier.batch([1]);
        let script = supplier.script();
        let mut source = source(&sim, supplier, SourceOptions::default());
        sim.block_on(source.next(n(10))).unwrap().unwrap();
        for gap in &gaps(&script)[10..] {
            let pause = *gap - 5 * SECOND;
            assert!(pause >= SECOND / 2 && pause <= SECOND, "{pause:?}");
        }
    });
}

#[test]
fn a_call_that_fails_sooner_than_the_first_pause_does_not_restart_the_backoff() {
    let sim = SimRuntime::new(1);
    let mut supplier = ScriptedSupplier::new(&sim);
    for _ in 0..20 {
        supplier = supplier.wait(SECOND / 4).step(transient());
    }
    let script = supplier.script();
    start(&sim, supplier, SourceOptions::default());
    sim.advance(10 * MINUTE);
    assert!(script.calls().len() < 40, "{:?}", gaps(&script));
    assert!(gaps(&script).iter().any(|gap| *gap > 20 * SECOND));
}

#[test]
fn a_success_ends_the_row_of_failures() {
    let sim = SimRuntime::new(1);
    let mut supplier = ScriptedSupplier::new(&sim);
    for update in 0..20 {
        supplier = supplier.step(transient()).batch([update]);
    }
    let script = supplier.script();
    let mut source = source(&sim, supplier, SourceOptions::default());
    for update in 0..20 {
        let batch = sim.block_on(source.next(n(10))).unwrap().unwrap();
        assert_eq!(batch, [update]);
    }
    assert!(gaps(&script).iter().all(|gap| *gap <= SECOND));
}

#[test]
fn a_request_to_wait_is_obeyed_once_to_the_second_and_is_no_failure() {
    let sim = SimRuntime::new(1);
    let supplier = ScriptedSupplier::new(&sim)
        .step(transient())
        .step(wait(7 * SECOND))
        .step(transient())
        .batch([1]);
    let script = supplier.script();
    let handle = start(&sim, supplier, fixed(3 * SECOND));
    sim.advance(MINUTE);
    // The backoff neither adds to the wait nor begins anew because of it.
    let expected = [0, 3, 10, 13, 13].map(Duration::from_secs);
    assert_eq!(times(&script), expected);
    assert_eq!(handle.stats().calls, 5);
    assert_eq!(handle.stats().failed_calls, 2);
}

#[test]
fn a_call_that_never_answers_costs_one_deadline() {
    let sim = SimRuntime::new(1);
    let supplier = ScriptedSupplier::new(&sim)
        .step(Step::Hang)
        .batch([1])
        .call_timeout(45 * SECOND);
    let script = supplier.script();
    let mut source = source(&sim, supplier, fixed(SECOND));
    let batch = sim.block_on(source.next(n(10))).unwrap().unwrap();
    assert_eq!(batch, [1]);
    assert_eq!(times(&script), [Duration::ZERO, 46 * SECOND]);
}

#[test]
fn an_answer_at_the_last_moment_counts() {
    for_each_seed(50, |sim| {
        let supplier = ScriptedSupplier::new(&sim)
            .wait(45 * SECOND)
            .batch([1])
            .call_timeout(45 * SECOND);
        let script = supplier.script();
        let mut source = source(&sim, supplier, fixed(SECOND));
        let batch = sim.block_on(source.next(n(10))).unwrap().unwrap();
        assert_eq!(batch, [1]);
        assert!(script.is_over());
    });
}

#[test]
fn a_deadline_beyond_the_clock_is_none() {
    let sim = SimRuntime::new(1);
    let supplier = ScriptedSupplier::new(&sim)
        .wait(1_000_000 * SECOND)
        .batch([1])
        .call_timeout(Duration::MAX);
    let mut source = source(&sim, supplier, fixed(SECOND));
    assert_eq!(sim.block_on(source.next(n(10))).unwrap().unwrap(), [1]);
}

#[test]
fn the_fourth_conflict_is_fatal_and_says_what_to_do() {
    for_each_seed(50, |sim| {
        let mut supplier = ScriptedSupplier::new(&sim);
        for _ in 0..4 {
            supplier = supplier.step(poller());
        }
        let script = supplier.script();
        let handle = start(&sim, supplier, SourceOptions::default());
        let error = sim.block_on(handle.stopped()).unwrap_err();
        assert_eq!(script.calls().len(), 4);
        for gap in gaps(&script) {
            assert!(gap >= 5 * SECOND && gap <= 10 * SECOND, "{gap:?}");
        }
        let RunError::Supply { source, .. } = &error else {
            panic!("{error:?}");
        };
        assert!(matches!(**source, SourceError::Poller { conflicts: 4, .. }));
        let text = chain(&error);
        assert!(text.contains("stop the other instance"), "{text}");
        assert!(text.contains("terminated by other getUpdates"), "{text}");
    });
}

#[test]
fn conflicts_far_apart_and_answers_between_them_do_what_they_should() {
    // Far apart: never fatal.
    let sim = SimRuntime::new(1);
    let mut supplier = ScriptedSupplier::new(&sim);
    for _ in 0..20 {
        supplier = supplier.step(poller()).wait(5 * MINUTE);
    }
    let script = supplier.script();
    let handle = start(&sim, supplier, SourceOptions::default());
    sim.advance(200 * MINUTE);
    assert!(script.is_over());
    assert!(handle.is_running());

    // Two instances that take turns: an answer in between does not clear the count.
    let sim = SimRuntime::new(2);
    let mut supplier = ScriptedSupplier::new(&sim);
    for update in 0..4 {
        supplier = supplier.step(poller()).batch([update]).wait(MINUTE);
    }
    let handle = start(&sim, supplier, SourceOptions::default());
    let error = sim.block_on(handle.stopped()).unwrap_err();
    assert_eq!(error.report().counters.finished, 3);
}

#[test]
fn a_refusal_ends_the_run_at_once_and_says_what_to_do() {
    let sim = SimRuntime::new(1);
    let supplier = ScriptedSupplier::new(&sim)
        .batch([1, 2])
        .step(Step::Fail(SupplyError::fatal("401 Unauthorized")));
    let script = supplier.script();
    let handle = start(&sim, supplier, SourceOptions::default());
    let error = sim.block_on(handle.stopped()).unwrap_err();
    assert_eq!(sim.elapsed(), Duration::ZERO);
    assert_eq!(error.report().counters.finished, 2);
    assert_eq!(script.closes(), [2]);
    let text = chain(&error);
    assert!(text.contains("check its token"), "{text}");
    assert!(text.ends_with("401 Unauthorized"), "{text}");
}

#[test]
fn a_webhook_ends_the_run_at_once_and_says_what_to_do() {
    let sim = SimRuntime::new(1);
    let error = SupplyError::conflict(Conflict::Webhook, "webhook is active");
    let supplier = ScriptedSupplier::<u32>::new(&sim).step(Step::Fail(error));
    let handle = start(&sim, supplier, SourceOptions::default());
    let error = sim.block_on(handle.stopped()).unwrap_err();
    assert_eq!(sim.elapsed(), Duration::ZERO);
    assert!(chain(&error).contains("delete the webhook"));
}

#[test]
fn after_so_many_attempts_it_gives_up_if_told_to() {
    let sim = SimRuntime::new(1);
    let supplier = ScriptedSupplier::new(&sim)
        .step(transient())
        .step(transient())
        .batch([1])
        .step(transient())
        .step(transient())
        .step(transient());
    let script = supplier.script();
    let retry = RetryPolicy::default()
        .backoff(Backoff::Fixed(SECOND))
        .max_attempts(NonZeroU32::new(3).unwrap());
    let handle = start(&sim, supplier, SourceOptions::default().retry(retry));
    let error = sim.block_on(handle.stopped()).unwrap_err();
    assert!(script.is_over());
    let RunError::Supply { source, .. } = &error else {
        panic!("{error:?}");
    };
    let SourceError::GaveUp {
        failures, elapsed, ..
    } = **source
    else {
        panic!("{source:?}");
    };
    assert_eq!((failures, elapsed), (3, 2 * SECOND));
    assert!(chain(&error).ends_with("connection refused"));
}

#[test]
fn after_so_much_time_it_gives_up_if_told_to() {
    let sim = SimRuntime::new(1);
    let mut supplier = ScriptedSupplier::new(&sim);
    for _ in 0..10 {
        supplier = supplier.step(transient());
    }
    let script = supplier.script();
    let retry = RetryPolicy::default()
        .backoff(Backoff::Fixed(4 * SECOND))
        .max_elapsed(10 * SECOND);
    let mut source = source(&sim, supplier, SourceOptions::default().retry(retry));
    let error = sim.block_on(source.next(n(1))).unwrap().unwrap_err();
    assert!(matches!(error, SourceError::GaveUp { failures: 4, .. }));
    assert!(!source.is_active());
    let expected = [0, 4, 8, 10].map(Duration::from_secs);
    assert_eq!(times(&script), expected);
}

/// Panics before its future exists.
struct PanicsAtOnce;

impl UpdateSupplier for PanicsAtOnce {
    type Update = u32;
    type Error = Infallible;

    fn supply(
        &mut self,
        limit: NonZeroUsize,
    ) -> impl Future<Output = Result<Vec<u32>, Infallible>> + Send {
        assert!(limit.get() > 1_000, "at once");
        async { Ok(Vec::new()) }
    }
}

#[test]
fn a_panic_of_the_supplier_ends_the_run_with_its_text() {
    quiet();
    let sim = SimRuntime::new(1);
    let supplier = ScriptedSupplier::<u32>::new(&sim)
        .wait(SECOND)
        .step(Step::Panic("while polled"));
    let handle = start(&sim, supplier, SourceOptions::default());
    let error = sim.block_on(handle.stopped()).unwrap_err();
    let RunError::SupplierPanicked { panic, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(&**panic, "while polled");

    let mut source = Source::new(runtime(&sim), PanicsAtOnce, SourceOptions::default());
    let error = sim.block_on(source.next(n(1))).unwrap().unwrap_err();
    assert!(matches!(&error, SourceError::Panicked(panic) if &**panic == "at once"));
}

#[test]
fn a_stop_ends_every_wait_at_once() {
    let waits: [fn() -> Step<u32>; 4] = [
        transient,
        || wait(MINUTE),
        poller,
        // The pause between two calls.
        || Step::Batch(vec![1]),
    ];
    for step in waits {
        for_each_seed(20, |sim| {
            let supplier = ScriptedSupplier::new(&sim).wait(MINUTE).step(step());
            let script = supplier.script();
            let options = fixed(MINUTE).speed_traffic_balance(1.0).max_delay(MINUTE);
            let handle = start(&sim, supplier, options);
            sim.advance(MINUTE + SECOND);
            assert_eq!(script.calls().len(), 1);
            sim.block_on(handle.stop()).unwrap();
            assert_eq!(sim.elapsed(), MINUTE + SECOND);
            assert_eq!(script.calls().len(), 1);
        });
    }
}

#[test]
fn pausing_is_no_way_around_a_wait() {
    for step in [wait(MINUTE), transient()] {
        let sim = SimRuntime::new(1);
        let supplier = ScriptedSupplier::new(&sim).step(step).batch([1]);
        let script = supplier.script();
        let handle = start(&sim, supplier, fixed(MINUTE));
        for _ in 0..10 {
            sim.advance(SECOND);
            handle.pause();
            sim.advance(SECOND);
            handle.resume();
        }
        assert_eq!(script.calls().len(), 1);
        sim.advance(MINUTE);
        assert_eq!(times(&script)[1], MINUTE);

        // Not even stopping and starting is.
        script.push(wait(MINUTE));
        sim.run_until_idle();
        sim.block_on(handle.stop()).unwrap();
        handle.start().unwrap();
        let calls = script.calls().len();
        sim.advance(MINUTE - SECOND);
        assert_eq!(script.calls().len(), calls);
        sim.advance(SECOND);
        assert_eq!(script.calls().len(), calls + 1);
    }
}

#[test]
fn pausing_does_not_clear_the_count_of_conflicts() {
    let sim = SimRuntime::new(1);
    let mut supplier = ScriptedSupplier::new(&sim);
    for _ in 0..4 {
        supplier = supplier.step(poller());
    }
    let script = supplier.script();
    let handle = start(&sim, supplier, SourceOptions::default());
    for calls in 1..=4 {
        sim.run_until_idle();
        assert_eq!(script.calls().len(), calls);
        handle.pause();
        sim.advance(11 * SECOND);
        handle.resume();
    }
    let error = sim.block_on(handle.stopped()).unwrap_err();
    assert!(matches!(error, RunError::Supply { .. }));
}

#[test]
fn what_goes_wrong_while_closing_is_told() {
    quiet();
    let sim = SimRuntime::new(1);
    let supplier = ScriptedSupplier::<u32>::new(&sim)
        .on_close(Close::Panic("while closing"))
        .on_close(Close::Fail(SupplyError::transient("connection reset")))
        .on_close(Close::Answer { after: SECOND });
    let script = supplier.script();
    let mut source = source(&sim, supplier, SourceOptions::default());
    let error = sim.block_on(source.close(0)).unwrap_err();
    assert!(matches!(&error, SourceError::Panicked(panic) if &**panic == "while closing"));
    let error = sim.block_on(source.close(1)).unwrap_err();
    assert!(matches!(error, SourceError::Close(_)));
    assert!(chain(&error).contains("expect the last updates once more"));
    assert!(sim.block_on(source.close(2)).is_ok());
    // Each was made once.
    assert_eq!(script.closes(), [0, 1, 2]);
}

#[test]
fn dropping_a_wait_and_asking_again_goes_on_with_it() {
    let sim = SimRuntime::new(1);
    let supplier = ScriptedSupplier::new(&sim)
        .step(wait(10 * SECOND))
        .batch([1]);
    let mut source = source(&sim, supplier, SourceOptions::default());
    sim.block_on(async {
        assert!(sim.timeout(4 * SECOND, source.next(n(1))).await.is_none());
        sim.sleep(3 * SECOND).await;
        assert_eq!(source.next(n(1)).await.unwrap().unwrap(), [1]);
    });
    assert_eq!(sim.elapsed(), 10 * SECOND);
}

#[test]
fn slow_traffic_is_fetched_in_fewer_calls_if_asked_to() {
    let calls = |balance: f64| {
        let sim = SimRuntime::new(1);
        let supplier = ScriptedSupplier::new(&sim);
        let script = supplier.script();
        let options = SourceOptions::default().speed_traffic_balance(balance);
        let handle = start(&sim, supplier, options);
        // One update every 20 ms. Those that came during a pause are one batch.
        for update in 0..1_000 {
            script.push(Step::Batch(vec![update]));
            sim.advance(20 * MS);
        }
        sim.advance(SECOND);
        let pauses = gaps(&script).iter().filter(|gap| **gap > 20 * MS).count();
        assert!(gaps(&script).iter().all(|gap| *gap < 521 * MS));
        sim.block_on(handle.stop()).unwrap();
        pauses
    };
    assert_eq!(calls(0.0), 0);
    assert!(calls(1.0) > 10);
}

#[test]
fn there_is_no_pause_after_a_full_batch() {
    let sim = SimRuntime::new(1);
    let supplier = ScriptedSupplier::new(&sim)
        .wait(MINUTE)
        .batch([1])
        .batch(0..10)
        .batch(0..10)
        .batch([1]);
    let script = supplier.script();
    let options = SourceOptions::default()
        .speed_traffic_balance(1.0)
        .max_delay(SECOND);
    let mut source = source(&sim, supplier, options);
    for _ in 0..4 {
        sim.block_on(source.next(n(10))).unwrap().unwrap();
    }
    let gaps = gaps(&script);
    assert!(gaps[0] > MINUTE + 900 * MS && gaps[0] <= MINUTE + SECOND);
    assert_eq!(gaps[1..], [Duration::ZERO; 2]);
}

#[test]
fn closing_by_hand_drops_the_call_and_asking_again_reopens() {
    for_each_seed(20, |sim| {
        let supplier = ScriptedSupplier::new(&sim)
            .batch([1])
            .wait(MINUTE)
            .batch([2]);
        let script = supplier.script();
        let mut source = source(&sim, supplier, SourceOptions::default());
        let handle = source.handle();
        assert!(!handle.is_active());
        let closer = handle.clone();
        let sleeper = sim.clone();
        runner_core::Runtime::spawn(
            &sim,
            Box::pin(async move {
                sleeper.sleep(SECOND).await;
                closer.close();
            }),
        );
        sim.block_on(async {
            let mut batches = pin!(source.batches(n(10)));
            assert_eq!(batches.next().await.unwrap().unwrap(), [1]);
            assert!(handle.is_active());
            assert!(batches.next().await.is_none());
            assert!(batches.next().await.is_none());
        });
        assert_eq!(sim.elapsed(), SECOND);
        assert!(!handle.is_active());
        assert_eq!(sim.timers(), 0);

        // Closing what is not in use has no effect on what comes.
        handle.close();
        assert_eq!(sim.block_on(source.next(n(10))).unwrap().unwrap(), [2]);
        assert!(source.is_active());
        assert_eq!(sim.elapsed(), MINUTE);
        assert_eq!(script.calls().len(), 3);
    });
}

#[test]
fn a_stream_of_batches_ends_after_an_error() {
    let sim = SimRuntime::new(1);
    let supplier = ScriptedSupplier::new(&sim)
        .batch([1])
        .step(Step::Fail(SupplyError::fatal("gone")))
        .batch([2]);
    let mut source = source(&sim, supplier, SourceOptions::default());
    let batches = sim.block_on(source.batches(n(10)).collect::<Vec<_>>());
    assert_eq!(batches.len(), 2);
    assert!(batches[1].is_err());
}

/// Has nothing, and does not wait for it either.
struct Empty;

impl UpdateSupplier for Empty {
    type Update = u32;
    type Error = Infallible;

    async fn supply(&mut self, _: NonZeroUsize) -> Result<Vec<u32>, Infallible> {
        Ok(Vec::new())
    }
}

#[test]
fn a_supplier_that_never_waits_leaves_the_thread_to_others() {
    for_each_seed(20, |sim| {
        let handle = Runner::for_each(runtime(&sim), Empty, async |_: Delivery<u32>| {}).start();
        sim.block_on(async {
            for _ in 0..100 {
                sim.yield_now().await;
            }
            handle.stop().await.unwrap();
        });
    });
}

#[test]
fn health_tells_why_no_updates_come() {
    let sim = SimRuntime::new(1);
    let supplier = ScriptedSupplier::new(&sim)
        .wait(SECOND)
        .step(transient())
        .step(poller())
        .step(wait(MINUTE))
        .batch([1])
        .step(Step::Hang)
        .call_timeout(45 * SECOND);
    let handle = start(&sim, supplier, fixed(10 * SECOND));
    let look = |span| {
        sim.advance(span);
        let health = handle.health();
        assert!(health.is_live());
        (health.state, health.is_connected())
    };
    assert_eq!(look(SECOND / 2), (RunState::Polling, false));
    assert_eq!(look(SECOND), (RunState::Backoff, false));
    assert_eq!(look(10 * SECOND), (RunState::Conflict, false));
    assert_eq!(look(10 * SECOND), (RunState::Backoff, false));
    assert_eq!(look(MINUTE), (RunState::Polling, true));
    // The call hangs, and is dropped; then there is one that waits.
    assert_eq!(look(50 * SECOND), (RunState::Backoff, true));
    assert_eq!(look(MINUTE / 2), (RunState::Polling, false));
}

#[cfg(feature = "tracing")]
#[test]
fn there_is_one_event_per_change_of_state() {
    let sim = SimRuntime::new(1);
    let mut supplier = ScriptedSupplier::new(&sim).batch([1]);
    for _ in 0..50 {
        supplier = supplier.step(transient());
    }
    supplier = supplier.batch([2]).batch([3]);
    for _ in 0..3 {
        supplier = supplier.step(poller());
    }
    let supplier = supplier.batch([4]);
    let mut source = source(&sim, supplier, SourceOptions::default());
    common::log::listen();
    for update in 1..=4 {
        let batch = sim.block_on(source.next(n(10))).unwrap().unwrap();
        assert_eq!(batch, [update]);
    }
    let of_the_source = common::log::lines()
        .into_iter()
        .filter(|line| line.target.starts_with("runner_core::source"));
    let events: Vec<String> = of_the_source.map(|line| line.message).collect();
    assert_eq!(
        events,
        [
            "updates cannot be fetched, trying again until it works",
            "updates are fetched again",
            "another instance polls for the same updates, giving it time to leave",
            "updates are fetched again",
        ]
    );
}

#[test]
fn a_wait_beyond_the_clock_is_for_ever_and_can_be_stopped() {
    let sim = SimRuntime::new(1);
    let supplier = ScriptedSupplier::new(&sim)
        .step(wait(Duration::MAX))
        .batch([1]);
    let script = supplier.script();
    let handle = start(&sim, supplier, SourceOptions::default());
    sim.advance(1_000_000 * SECOND);
    assert_eq!(script.calls().len(), 1);
    sim.block_on(handle.stop()).unwrap();
}
