//! Bounds: how many run at once, how many are asked for, and what one chat can do to the others.

mod common;

use std::{sync::Arc, time::Duration};

use common::{MS, SECOND, always, n, runtime, start};
use runner_core::{
    Delivery, Key, Runner, Runtime, RuntimeExt, SinkOptions, UpdateConsumer,
    testing::{Plan, Recorder, ScriptedSupplier, SimRuntime, Step, for_each_seed},
};

fn concurrent(concurrency: usize) -> SinkOptions {
    SinkOptions::concurrent().concurrency(n(concurrency))
}

#[test]
fn a_first_batch_larger_than_the_concurrency_does_not_exceed_it() {
    for_each_seed(50, |sim| {
        let recorder = always(&sim, Plan::ok().sleep(SECOND));
        let log = recorder.log();
        let (handle, _) = start(&sim, 0..100, recorder, concurrent(5).workers(n(3)));
        let report = sim.block_on(async {
            sim.yield_now().await;
            sim.sleep(MS).await;
            handle.stop().await.unwrap()
        });
        assert_eq!(report.counters.finished, report.counters.supplied);
        assert_eq!(report.counters.finished, 100);
        assert_eq!(log.max_concurrency(), 5);
        assert_eq!(sim.elapsed(), 20 * SECOND);
    });
}

#[test]
fn thousands_of_chats_at_once_stay_within_the_limit() {
    let sim = SimRuntime::new(5);
    let recorder = always(&sim, Plan::ok().sleep(10 * MS));
    let log = recorder.log();
    let supplier = ScriptedSupplier::new(&sim).step(Step::Oversized((0..5_000).collect()));
    let handle = Runner::new(runtime(&sim), supplier, recorder)
        .sink(concurrent(64))
        .sequentialize(|update: &u32| [Key::chat(i64::from(*update))])
        .start();
    sim.advance(MS);
    let report = sim.block_on(handle.stop()).unwrap();
    assert_eq!(report.counters.finished, 5_000);
    assert_eq!(log.max_concurrency(), 64);
}

/// Chat 0 sends 2 000 updates at once that take 20 ms each; 50 others send one per second.
#[test]
fn one_hot_chat_does_not_delay_the_others() {
    const HOT: u32 = 2_000;
    let sim = SimRuntime::new(11);
    // An update is its chat, and when it was sent.
    let mut supplier = ScriptedSupplier::new(&sim).batch((0..HOT).map(|_| (0_i64, Duration::ZERO)));
    for second in 1..40 {
        let sent = SECOND * second;
        supplier = supplier
            .step(Step::WaitUntil(sim.now() + sent))
            .batch((1..=50).map(|chat| (chat, sent)));
    }
    let recorder = Recorder::new(&sim, |update: &Delivery<(i64, Duration)>| match update.0 {
        0 => Plan::ok().sleep(20 * MS),
        _ => Plan::ok().sleep(MS),
    });
    let log = recorder.log();
    let handle = Runner::new(runtime(&sim), supplier, recorder)
        .sink(SinkOptions::concurrent())
        .sequentialize(|update: &(i64, Duration)| [Key::chat(update.0)])
        .start();
    sim.advance(45 * SECOND);
    let report = sim.block_on(handle.stop()).unwrap();
    assert_eq!(report.counters.finished, u64::from(HOT) + 39 * 50);

    let entries = log.entries();
    let worst = entries
        .iter()
        .filter(|entry| entry.update.0 != 0)
        .map(|entry| entry.started - entry.update.1)
        .max();
    assert!(worst.unwrap() <= MS, "{worst:?}");
    let last = entries.iter().rfind(|entry| entry.update.0 == 0);
    assert_eq!(last.unwrap().ended, Some(20 * MS * HOT));
}

#[test]
fn what_is_asked_of_the_supplier_is_what_there_is_room_for() {
    let sim = SimRuntime::new(2);
    let recorder = always(&sim, Plan::ok().sleep(SECOND));
    let options = concurrent(10).prefetch(20);
    let (handle, script) = start(&sim, 0..100, recorder, options);
    sim.advance(MS);
    // Ten slots and twenty in advance; then nothing until half of the twenty are gone.
    let limits = |script: &runner_core::testing::Script<u32>| {
        let calls = script.calls();
        calls.iter().map(|call| call.limit).collect::<Vec<_>>()
    };
    assert_eq!(limits(&script), [30]);
    assert_eq!(handle.stats().in_flight, 10);
    assert_eq!(handle.stats().ready, 20);
    sim.advance(SECOND);
    assert_eq!(limits(&script)[0], 30);
    assert!(
        limits(&script)[1..].iter().all(|limit| *limit >= 10),
        "{:?}",
        limits(&script)
    );
    drop(handle);
}

#[test]
fn without_prefetch_no_more_is_asked_for_than_can_start() {
    let sim = SimRuntime::new(2);
    let recorder = always(&sim, Plan::hang());
    let (handle, script) = start(&sim, 0..100, recorder, concurrent(7).prefetch(0));
    sim.advance(SECOND);
    assert_eq!(script.calls().len(), 1);
    assert_eq!(script.calls()[0].limit, 7);
    assert_eq!(handle.size(), 7);
}

#[test]
fn a_call_asks_for_a_hundred_at_most() {
    let sim = SimRuntime::new(2);
    let (_handle, script) = start(&sim, [], always(&sim, Plan::ok()), concurrent(10_000));
    sim.advance(SECOND);
    assert_eq!(script.calls()[0].limit, 100);
}

#[test]
fn room_for_waiting_updates_limits_the_call_too() {
    let sim = SimRuntime::new(2);
    let supplier = ScriptedSupplier::new(&sim).batch(0..100);
    let script = supplier.script();
    let _handle = Runner::new(runtime(&sim), supplier, always(&sim, Plan::hang()))
        .sink(concurrent(50).max_waiting(n(8)))
        .sequentialize(|_| [Key::chat(1)])
        .start();
    sim.advance(SECOND);
    let limits: Vec<_> = script.calls().iter().map(|call| call.limit).collect();
    assert_eq!(limits, [8, 1]);
}

#[test]
fn handlers_that_block_are_bounded_by_the_workers() {
    for_each_seed(20, |sim| {
        let recorder = always(&sim, Plan::ok().block(SECOND));
        let log = recorder.log();
        let (handle, _) = start(&sim, 0..12, recorder, concurrent(10).workers(n(3)));
        sim.advance(20 * SECOND);
        assert_eq!(log.max_concurrency(), 3);
        assert_eq!(handle.stats().counters.finished, 12);
    });
}

#[test]
fn with_a_task_for_every_update_blocking_handlers_fill_every_slot() {
    let sim = SimRuntime::new(3);
    let recorder = always(&sim, Plan::ok().block(SECOND));
    let log = recorder.log();
    let options = concurrent(10).workers(std::num::NonZeroUsize::MAX);
    let (handle, _) = start(&sim, 0..30, recorder, options);
    sim.advance(30 * SECOND);
    assert_eq!(log.max_concurrency(), 10);
    assert_eq!(handle.stats().counters.finished, 30);
}

#[test]
fn handlers_that_never_wait_need_no_task_of_their_own() {
    let sim = SimRuntime::new(3);
    let (handle, _) = start(
        &sim,
        0..5_000,
        always(&sim, Plan::ok()),
        concurrent(500).workers(n(4)),
    );
    sim.advance(MS);
    assert_eq!(handle.stats().counters.finished, 5_000);
    // The runner itself, and tasks that wait for more: not more than may be at work at once.
    assert!(sim.tasks() <= 1 + 4, "{} tasks", sim.tasks());
    sim.block_on(handle.stop()).expect("nothing fails");
    sim.run_until_idle();
    assert_eq!(sim.tasks(), 1);
}

/// A closure may wrap a consumer and share it.
#[test]
fn a_closure_may_share_a_recorder() {
    let sim = SimRuntime::new(3);
    let recorder = Arc::new(always(&sim, Plan::ok()));
    let log = recorder.log();
    let closure = move |update: Delivery<u32>| {
        let recorder = Arc::clone(&recorder);
        async move { recorder.consume(update).await }
    };
    let (handle, _) = start(&sim, 0..3, closure, concurrent(1));
    sim.advance(MS);
    drop(handle);
    assert_eq!(log.finished(), [0, 1, 2]);
}

/// The room is small, and the last update that was ready has been taken: the next fetch is due.
#[test]
fn a_handler_that_blocks_does_not_hold_up_the_fetch() {
    for_each_seed(20, |sim| {
        let recorder = always(&sim, Plan::ok().block(SECOND));
        let log = recorder.log();
        let supplier = ScriptedSupplier::new(&sim).batch([0]).batch([1]).batch([2]);
        let _handle = Runner::new(runtime(&sim), supplier, recorder)
            .sink(concurrent(10).workers(n(3)).max_waiting(n(8)))
            .start();
        sim.advance(5 * SECOND);
        let began: Vec<_> = log.entries().iter().map(|entry| entry.started).collect();
        assert_eq!(began, [Duration::ZERO; 3]);
    });
}

/// Nothing that is held has a key, and no handler has started when the bound is reached.
#[test]
fn at_its_bound_in_bytes_intake_waits_for_the_handlers() {
    for_each_seed(20, |sim| {
        let recorder = always(&sim, Plan::ok().sleep(SECOND));
        let log = recorder.log();
        let supplier = ScriptedSupplier::new(&sim).batch(0..10).batch(10..20);
        let script = supplier.script();
        let handle = Runner::new(runtime(&sim), supplier, recorder)
            .sink(concurrent(4).max_bytes(n(50)))
            .size_by(|_| 10)
            .start();
        sim.advance(MS);
        assert_eq!((handle.stats().in_flight, script.calls().len()), (4, 1));
        sim.advance(100 * SECOND);
        assert_eq!(log.finished().len(), 20);
        assert_eq!(log.max_concurrency(), 4);
    });
}

#[test]
fn a_size_beyond_all_bounds_is_counted_and_harms_nothing() {
    for_each_seed(20, |sim| {
        let recorder = always(&sim, Plan::ok().sleep(SECOND));
        let log = recorder.log();
        let supplier = ScriptedSupplier::new(&sim).batch(0..5).batch(5..9);
        let _handle = Runner::new(runtime(&sim), supplier, recorder)
            .sink(concurrent(4))
            .size_by(|_| usize::MAX)
            .start();
        sim.advance(100 * SECOND);
        assert_eq!(log.finished().len(), 9);
    });
}
