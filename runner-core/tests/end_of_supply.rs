//! Suppliers that have no more: the run handles what it holds and ends with a report.

mod common;

use std::{
    convert::Infallible,
    io,
    num::NonZeroUsize,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use common::{LONG, MS, SECOND, always, end_time, n, runtime, start};
use futures::{FutureExt, Stream, StreamExt, channel::mpsc, stream};
use runner_core::{
    AnySink, BoxSupplier, Conflict, Delivery, EndReason, Failure, Fate, Key, RunError, RunState,
    Runner, SinkOptions, Source, SourceError, SourceOptions, SupplyError, UpdateSupplier, Verdict,
    supply,
    testing::{Plan, Recorder, ScriptedSupplier, SimRuntime, Step, for_each_seed},
};

fn sinks() -> [SinkOptions<AnySink>; 3] {
    [
        SinkOptions::concurrent().concurrency(n(3)).any(),
        SinkOptions::batch().any(),
        SinkOptions::sequential().any(),
    ]
}

#[test]
fn the_end_of_the_supply_ends_the_run_when_all_that_is_held_is_handled() {
    for sink in sinks() {
        for_each_seed(10, |sim| {
            let supplier = ScriptedSupplier::new(&sim).batch(0..5).batch(5..7).end();
            let script = supplier.script();
            let recorder = always(&sim, Plan::ok().sleep(SECOND));
            let log = recorder.log();
            let mut runner = Runner::new(runtime(&sim), supplier, recorder)
                .sink(sink.clone())
                .sequentialize(|update| [Key::new("parity", i64::from(update % 2))]);
            let report = sim.block_on(runner.run()).unwrap();
            assert_eq!(report.end, EndReason::SupplyEnded);
            assert_eq!(report.counters.finished, 7);
            assert_eq!(log.finished().len(), 7);
            assert_eq!(script.closes(), [7]);
            assert!(
                report.to_string().contains("; the supply ended"),
                "{report}"
            );
        });
    }
}

#[test]
fn the_last_batch_and_the_end_come_in_one_call() {
    let sim = SimRuntime::new(1);
    let supplier = ScriptedSupplier::new(&sim).batch(0..5).end();
    let script = supplier.script();
    let mut runner = Runner::new(runtime(&sim), supplier, always(&sim, Plan::ok()));
    sim.block_on(runner.run()).unwrap();
    assert_eq!(script.calls().len(), 1);
}

#[test]
fn an_end_that_becomes_known_during_a_call_ends_the_run() {
    for_each_seed(10, |sim| {
        let (handle, script) = start(&sim, 0..2, always(&sim, Plan::ok()), sinks()[0].clone());
        sim.advance(SECOND);
        assert!(handle.is_running());
        script.push(Step::End);
        let report = sim.block_on(handle.stopped()).unwrap();
        assert_eq!(report.end, EndReason::SupplyEnded);
        assert_eq!(sim.elapsed(), SECOND);
    });
}

#[test]
fn an_end_is_noticed_while_there_is_no_room_for_a_fetch() {
    let sim = SimRuntime::new(1);
    let supplier = ScriptedSupplier::new(&sim).batch([0]).end();
    let recorder = always(&sim, Plan::ok().sleep(SECOND));
    let handle = Runner::new(runtime(&sim), supplier, recorder)
        .sink(SinkOptions::sequential())
        .start();
    sim.run_until_idle();
    assert_eq!(handle.health().state, RunState::Stopping);
}

#[test]
fn a_retry_that_waits_at_the_end_of_the_supply_is_tried_once_more_at_once() {
    let sim = SimRuntime::new(1);
    let supplier = ScriptedSupplier::new(&sim).batch([0]).end();
    let recorder = Recorder::new(&sim, |update: &Delivery<u32>| {
        if update.attempt().get() == 1 {
            Plan::fail("refused")
        } else {
            Plan::ok()
        }
    });
    let mut runner = Runner::new(runtime(&sim), supplier, recorder)
        .policy(|_: Failure<u32>| std::future::ready(Verdict::Retry { after: LONG }));
    let report = sim.block_on(runner.run()).unwrap();
    assert_eq!((report.counters.finished, report.counters.retried), (1, 1));
    assert!(sim.elapsed() < LONG);
}

#[test]
fn a_stop_while_the_end_is_drained_waits_for_it_and_a_limit_cuts_it_short() {
    for_each_seed(10, |sim| {
        let supplier = ScriptedSupplier::new(&sim).batch(0..3).end().rewinding();
        let recorder = always(&sim, Plan::ok().sleep(10 * SECOND));
        let handle = Runner::new(runtime(&sim), supplier, recorder).start();
        sim.advance(SECOND);
        let stopped = handle.stop();
        sim.advance(SECOND);
        assert!(handle.is_running());
        let (at, result) = end_time(&sim, handle.stop_within(2 * SECOND), LONG).unwrap();
        let report = result.unwrap();
        assert_eq!(at, 4 * SECOND);
        assert_eq!(report.end, EndReason::SupplyEnded);
        assert_eq!(report.abandoned.len(), 3);
        assert!(
            report
                .abandoned
                .iter()
                .all(|it| it.fate == Fate::Redelivered)
        );
        assert_eq!(sim.block_on(stopped).unwrap().abandoned.len(), 3);
    });
}

#[test]
fn a_stop_before_the_end_is_a_stop() {
    let sim = SimRuntime::new(1);
    let recorder = always(&sim, Plan::ok().sleep(10 * SECOND));
    let (handle, script) = start(&sim, 0..3, recorder, sinks()[0].clone());
    sim.advance(SECOND);
    let stopped = handle.stop();
    script.push(Step::End);
    assert_eq!(sim.block_on(stopped).unwrap().end, EndReason::Stopped);
}

#[test]
fn a_start_after_the_end_asks_the_supplier_anew() {
    let sim = SimRuntime::new(1);
    let supplier = ScriptedSupplier::new(&sim).batch(0..3).end().rewinding();
    let recorder = always(&sim, Plan::ok().sleep(10 * SECOND));
    let handle = Runner::new(runtime(&sim), supplier, recorder).start();
    sim.advance(SECOND);
    let report = sim.block_on(handle.stop_within(Duration::ZERO)).unwrap();
    assert_eq!(report.abandoned.len(), 3);
    // What was abandoned comes again, then nothing more.
    for finished in [3, 0] {
        handle.start().unwrap();
        let report = sim.block_on(handle.stopped()).unwrap();
        assert_eq!(report.end, EndReason::SupplyEnded);
        assert_eq!(report.counters.finished, finished);
    }
}

#[test]
fn a_supplier_that_is_exhausted_from_the_beginning_is_never_called() {
    let sim = SimRuntime::new(1);
    let supplier = BoxSupplier::new(ScriptedSupplier::<u32>::new(&sim).end());
    assert!(supplier.is_exhausted());
    let mut runner = Runner::new(runtime(&sim), supplier, always(&sim, Plan::ok()));
    let report = sim.block_on(runner.run()).unwrap();
    assert_eq!(report.counters.supplied, 0);
    assert_eq!(runner.handle().stats().calls, 0);
}

#[test]
fn a_failure_before_the_end_is_not_waited_out() {
    let sim = SimRuntime::new(1);
    let supplier = ScriptedSupplier::<u32>::new(&sim)
        .step(Step::Fail(SupplyError::transient("refused")))
        .end();
    let mut runner = Runner::new(runtime(&sim), supplier, always(&sim, Plan::ok()));
    let report = sim.block_on(runner.run()).unwrap();
    assert_eq!(report.end, EndReason::SupplyEnded);
    assert_eq!(sim.elapsed(), Duration::ZERO);
}

/// Never answers otherwise, and ends for a while after the third call.
struct Conflicts(Arc<AtomicUsize>, Arc<AtomicBool>);

impl UpdateSupplier for Conflicts {
    type Update = u32;
    type Error = SupplyError;

    async fn supply(&mut self, _: NonZeroUsize) -> Result<Vec<u32>, SupplyError> {
        let before = self.0.fetch_add(1, Ordering::Relaxed);
        self.1.store(before == 2, Ordering::Relaxed);
        Err(SupplyError::conflict(Conflict::Poller, "another one"))
    }

    fn is_exhausted(&self) -> bool {
        self.1.load(Ordering::Relaxed)
    }
}

#[test]
fn conflicts_count_on_after_the_end_as_after_a_stop() {
    let sim = SimRuntime::new(1);
    let (calls, ended) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
    let supplier = Conflicts(Arc::clone(&calls), Arc::clone(&ended));
    let mut source = Source::new(runtime(&sim), supplier, SourceOptions::default());
    assert!(sim.block_on(source.next(n(1))).is_none());
    ended.store(false, Ordering::Relaxed);
    let error = sim.block_on(source.next(n(1))).unwrap().unwrap_err();
    assert!(matches!(error, SourceError::Poller { conflicts: 4, .. }));
    assert_eq!(calls.load(Ordering::Relaxed), 4);
}

#[test]
fn a_source_ends_with_its_supplier() {
    let sim = SimRuntime::new(1);
    let supplier = ScriptedSupplier::new(&sim).batch([1]).batch([2]).end();
    let mut source = Source::new(runtime(&sim), supplier, SourceOptions::default());
    assert!(!source.is_exhausted());
    let batches: Vec<_> = sim.block_on(source.batches(n(10)).collect());
    let batches: Vec<_> = batches.into_iter().map(Result::unwrap).collect();
    assert_eq!(batches, [[1], [2]]);
    assert!(source.is_exhausted());
    assert!(!source.is_active());
    assert!(sim.block_on(source.next(n(1))).is_none());
}

#[test]
fn a_supplier_that_panics_when_it_is_asked_for_the_end_fails_the_run() {
    struct Panics;
    impl UpdateSupplier for Panics {
        type Update = u32;
        type Error = Infallible;
        async fn supply(&mut self, _: NonZeroUsize) -> Result<Vec<u32>, Infallible> {
            std::future::pending().await
        }
        fn is_exhausted(&self) -> bool {
            std::panic::resume_unwind(Box::new("no idea"))
        }
    }
    let sim = SimRuntime::new(1);
    let mut runner = Runner::new(runtime(&sim), Panics, always(&sim, Plan::ok()));
    let error = sim.block_on(runner.run()).unwrap_err();
    assert!(
        matches!(error, RunError::SupplierPanicked { .. }),
        "{error}"
    );
    assert_eq!(error.report().end, EndReason::Failed);
    let mut source = Source::new(runtime(&sim), Panics, SourceOptions::default());
    assert!(!source.is_exhausted());
    let next = sim.block_on(source.next(n(1)));
    assert!(matches!(next, Some(Err(SourceError::Panicked(_)))));
}

// Streams

/// Polls a call of `supply` once.
fn supply_once<S: UpdateSupplier>(
    supplier: &mut S,
    limit: usize,
) -> Option<Result<Vec<S::Update>, S::Error>> {
    supplier.supply(n(limit)).now_or_never()
}

#[test]
fn a_stream_is_supplied_in_batches_of_what_is_ready() {
    let (sender, receiver) = mpsc::unbounded();
    let mut supplier = supply::from_stream(receiver);
    assert!(supply_once(&mut supplier, 10).is_none());
    for item in 0..5 {
        sender.unbounded_send(item).unwrap();
    }
    assert_eq!(supply_once(&mut supplier, 3), Some(Ok(vec![0, 1, 2])));
    // It does not wait for a third one.
    assert_eq!(supply_once(&mut supplier, 3), Some(Ok(vec![3, 4])));
    assert!(!supplier.is_exhausted());
    sender.unbounded_send(5).unwrap();
    drop(sender);
    assert_eq!(supply_once(&mut supplier, 3), Some(Ok(vec![5])));
    assert!(supplier.is_exhausted());
    assert_eq!(supply_once(&mut supplier, 3), Some(Ok(vec![])));
}

#[test]
fn a_stream_gives_no_more_than_was_asked_for() {
    let taken = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&taken);
    let mut supplier = supply::from_iter((0..10).inspect(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
    }));
    assert_eq!(supply_once(&mut supplier, 2), Some(Ok(vec![0, 1])));
    assert_eq!(taken.load(Ordering::Relaxed), 2);
}

#[test]
fn a_dropped_call_loses_no_item_of_a_stream() {
    for_each_seed(20, |sim| {
        let clock = sim.clone();
        let items = stream::iter(0..50).then(move |item| {
            let clock = clock.clone();
            async move {
                runner_core::RuntimeExt::sleep(&clock, MS * (item % 4)).await;
                item
            }
        });
        let recorder = always(&sim, Plan::ok());
        let log = recorder.log();
        let handle = Runner::new(runtime(&sim), supply::from_stream(items), recorder).start();
        // Each pause drops the call under way.
        while handle.is_running() {
            handle.pause();
            sim.advance(Duration::from_micros(100 * sim.below(20)));
            handle.resume();
            sim.advance(Duration::from_micros(100 * sim.below(20)));
        }
        let mut finished = log.finished();
        finished.sort_unstable();
        assert_eq!(finished, (0..50).collect::<Vec<_>>());
    });
}

#[test]
fn an_error_of_a_stream_comes_after_the_items_before_it() {
    let items = stream::iter([Ok(1), Ok(2), Err(io::Error::other("broken")), Ok(3)]);
    let mut supplier = supply::from_try_stream(items);
    assert_eq!(supply_once(&mut supplier, 10).unwrap().unwrap(), [1, 2]);
    assert!(!supplier.is_exhausted());
    assert!(supply_once(&mut supplier, 10).unwrap().is_err());
    assert_eq!(supply_once(&mut supplier, 10).unwrap().unwrap(), [3]);
    assert!(supplier.is_exhausted());
}

#[test]
fn a_stream_whose_last_item_is_an_error_says_so_before_it_ends() {
    let items = stream::iter([Ok(1), Err(SupplyError::fatal("gone"))]);
    let sim = SimRuntime::new(1);
    let mut runner = Runner::new(
        runtime(&sim),
        supply::from_try_stream(items),
        always(&sim, Plan::ok()),
    );
    let error = sim.block_on(runner.run()).unwrap_err();
    assert!(matches!(error, RunError::Supply { .. }), "{error}");
    assert_eq!(error.report().counters.finished, 1);
}

#[test]
fn a_stream_that_panics_loses_no_item_that_it_has_given_before() {
    struct Panics(u32);
    impl Stream for Panics {
        type Item = u32;
        fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<u32>> {
            self.0 += 1;
            match self.0 {
                3 => std::panic::resume_unwind(Box::new("third")),
                4.. => Poll::Ready(None),
                item => Poll::Ready(Some(item)),
            }
        }
    }
    let sim = SimRuntime::new(1);
    let recorder = always(&sim, Plan::ok());
    let log = recorder.log();
    let mut runner = Runner::new(runtime(&sim), supply::from_stream(Panics(0)), recorder);
    let error = sim.block_on(runner.run()).unwrap_err();
    assert!(
        matches!(error, RunError::SupplierPanicked { .. }),
        "{error}"
    );
    let report = sim.block_on(runner.run()).unwrap();
    assert_eq!(report.counters.finished, 2);
    let mut finished = log.finished();
    finished.sort_unstable();
    assert_eq!(finished, [1, 2]);
}

#[test]
fn a_stream_is_not_polled_after_its_end() {
    struct Once(bool);
    impl Stream for Once {
        type Item = u32;
        fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<u32>> {
            assert!(
                !std::mem::replace(&mut self.0, true),
                "polled after its end"
            );
            Poll::Ready(None)
        }
    }
    let mut supplier = supply::from_stream(Once(false));
    for _ in 0..3 {
        assert_eq!(supply_once(&mut supplier, 1), Some(Ok(vec![])));
    }
}

#[test]
fn a_call_that_waits_for_a_stream_is_woken_by_it() {
    let sim = SimRuntime::new(1);
    let (sender, receiver) = mpsc::unbounded();
    let mut supplier = supply::from_stream(receiver);
    sim.block_on(async {
        let send = async {
            sim.yield_now().await;
            sender.unbounded_send(7).unwrap();
        };
        let (batch, ()) = futures::join!(supplier.supply(n(10)), send);
        assert_eq!(batch, Ok(vec![7]));
    });
}
