//! Runs that end at the items of a stream, as bots end at signals.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, channel::mpsc, stream};
use runner_core::{
    Bot, Delivery, Runner, RuntimeExt,
    testing::{End, FakeApi, Plan, Recorder, ScriptedSupplier, SimRuntime},
};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn the_first_item_stops_gracefully_and_the_second_at_once() {
    for (second, expected) in [(60, [End::Ok, End::Ok]), (5, [End::Ok, End::Dropped])] {
        let sim = SimRuntime::new(3);
        let supplier = ScriptedSupplier::new(&sim)
            .batch([2, 30])
            .wait(10 * SECOND)
            .batch([1]);
        let recorder = Recorder::new(&sim, |update: &Delivery<u32>| {
            Plan::ok().sleep(**update * SECOND)
        });
        let log = recorder.log();
        let mut runner = Runner::new(Arc::new(sim.clone()), supplier, recorder);
        let clock = sim.clone();
        let stops = stream::iter([1, second - 1]).then(move |secs| clock.sleep(secs * SECOND));
        let report = sim.block_on(runner.run_until(stops)).unwrap();
        let ends: Vec<_> = log.entries().iter().filter_map(|entry| entry.end).collect();
        assert_eq!(ends, expected, "second item after {second} s");
        let abandoned = usize::from(second == 5);
        assert_eq!(report.abandoned.len(), abandoned);
        let over = if second == 5 { 5 } else { 30 };
        assert_eq!(sim.elapsed().as_secs(), over);
    }
}

#[test]
fn further_items_and_the_end_of_the_stream_mean_nothing() {
    let sim = SimRuntime::new(4);
    let supplier = ScriptedSupplier::new(&sim).batch([1, 2]);
    let clock = sim.clone();
    let mut runner = Runner::for_each(Arc::new(sim.clone()), supplier, move |_: Delivery<u32>| {
        clock.sleep(SECOND)
    });
    let handle = runner.handle();
    let report = sim.block_on(async {
        let run = runner.run_until(stream::empty::<()>());
        let stop = async {
            sim.sleep(100 * SECOND).await;
            handle.stop().await
        };
        futures::join!(run, stop).0
    });
    assert_eq!(report.unwrap().counters.finished, 2);

    // The runner has run before: asked at the very beginning, it ends at once all the same.
    let report = sim.block_on(runner.run_until(stream::repeat(())));
    assert_eq!(report.unwrap().counters.supplied, 0);
    assert_eq!(sim.elapsed(), 100 * SECOND);
}

#[test]
fn asked_twice_at_a_time_it_stops_at_once() {
    let sim = SimRuntime::new(5);
    let supplier = ScriptedSupplier::new(&sim).batch([1]);
    let recorder = Recorder::new(&sim, |_: &Delivery<u32>| Plan::hang());
    let log = recorder.log();
    let mut runner = Runner::new(Arc::new(sim.clone()), supplier, recorder);
    let (ask, asked) = mpsc::unbounded();
    let report = sim.block_on(async {
        let asks = async {
            while log.running() == 0 {
                sim.yield_now().await;
            }
            ask.unbounded_send(()).unwrap();
            ask.unbounded_send(()).unwrap();
        };
        futures::join!(runner.run_until(asked), asks).0
    });
    assert_eq!(report.unwrap().abandoned.len(), 1);
    assert_eq!(sim.elapsed(), Duration::ZERO);
}

#[test]
fn after_the_stop_timeout_the_rest_is_cancelled() {
    // Asked to stop at 1 s; the handlers would end at 5 s and never.
    for (timeout, second, over, finished) in [
        (8 * SECOND, None, 9, 1),
        (Duration::from_secs(2), None, 3, 0),
        (Duration::ZERO, None, 1, 0),
        // A second signal comes first, or there is no limit that the clock can express.
        (8 * SECOND, Some(4), 4, 0),
        (Duration::MAX, Some(20), 20, 1),
    ] {
        let sim = SimRuntime::new(6);
        let supplier = ScriptedSupplier::new(&sim).batch([0, 1]);
        let recorder = Recorder::new(&sim, |update: &Delivery<u32>| match **update {
            0 => Plan::ok().sleep(5 * SECOND),
            _ => Plan::hang(),
        });
        let mut runner =
            Runner::new(Arc::new(sim.clone()), supplier, recorder).stop_timeout(timeout);
        let clock = sim.clone();
        let seconds = [Some(1), second.map(|second| second - 1)];
        let stops = stream::iter(seconds.into_iter().flatten());
        let stops = stops.then(move |seconds| clock.sleep(seconds * SECOND));
        let report = sim.block_on(runner.run_until(stops)).unwrap();
        assert_eq!(sim.elapsed().as_secs(), over, "{timeout:?}, {second:?}");
        assert_eq!(report.counters.finished, finished);
        assert_eq!(report.abandoned.len() as u64, 2 - finished);
    }
}

#[test]
fn the_stop_timeout_is_for_a_run_that_ends_for_another_reason_too() {
    // `stop` has no limit of its own, and a signal comes while it waits.
    let sim = SimRuntime::new(7);
    let supplier = ScriptedSupplier::new(&sim).batch([0]);
    let recorder = Recorder::new(&sim, |_: &Delivery<u32>| Plan::hang());
    let runner = Runner::new(Arc::new(sim.clone()), supplier, recorder);
    let mut runner = runner.stop_timeout(8 * SECOND);
    let handle = runner.handle();
    let clock = sim.clone();
    let stops = stream::once(async move {
        clock.sleep(SECOND).await;
        drop(handle.stop());
        clock.sleep(10 * SECOND).await;
    });
    let report = sim.block_on(runner.run_until(stops)).unwrap();
    assert_eq!(report.abandoned.len(), 1);
    assert_eq!(sim.elapsed(), 19 * SECOND);
}

#[test]
fn a_bot_has_a_stop_timeout() {
    let sim = SimRuntime::new(8);
    let api = FakeApi::of_ids([0]).runtime(Arc::new(sim.clone()));
    let bot = Bot::for_each(api, async |_: Delivery<i64>| {
        std::future::pending::<()>().await
    });
    let bot = bot.stop_timeout(8 * SECOND);
    let mut runner = bot.into_runner(Arc::new(sim.clone()));
    let stops = stream::once(sim.sleep(SECOND));
    let report = sim.block_on(runner.run_until(stops)).unwrap();
    assert_eq!(report.abandoned.len(), 1);
    assert_eq!(sim.elapsed().as_secs(), 9);
}
