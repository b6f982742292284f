//! Runs that end at the items of a stream, as bots end at signals.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, channel::mpsc, stream};
use runner_core::{
    Delivery, Runner, RuntimeExt,
    testing::{End, Plan, Recorder, ScriptedSupplier, SimRuntime},
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
