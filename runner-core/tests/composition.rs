//! The parts put together by hand, without a runner: a source, a queue, and a loop of ten lines.

mod common;

use std::{
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use common::{MS, SECOND, runtime};
use futures::{
    StreamExt,
    channel::mpsc,
    future::{Either, join, select},
    stream,
};
use runner_core::{
    AnySink, BoxError, DecayingQueue, Delivery, EndReason, Failure, Key, QueueFault, QueueReport,
    Runner, RuntimeExt, SinkOptions, Source, SourceError, SourceOptions, SupplyError,
    UpdateSupplier, Verdict, supply,
    testing::{Plan, Recorder, ScriptedSupplier, SimRuntime, Step, for_each_seed},
};

/// Adds what the source has until the supply ends, or the queue takes no more.
async fn pump<S: UpdateSupplier>(
    source: &mut Source<S>,
    queue: &DecayingQueue<S::Update>,
) -> Result<(), SourceError> {
    while let Some(room) = queue.room().await {
        // A call that is dropped because the queue was stopped loses nothing.
        match select(pin!(queue.closed()), pin!(source.next(room))).await {
            Either::Right((Some(batch), _)) => drop(queue.add(batch?)),
            _ => break,
        }
    }
    Ok(())
}

fn sinks() -> [SinkOptions<AnySink>; 3] {
    let concurrent = SinkOptions::concurrent().concurrency(common::n(4));
    [
        concurrent.prefetch(3).any(),
        SinkOptions::batch().any(),
        SinkOptions::sequential().any(),
    ]
}

type Handled = Arc<Mutex<Vec<u32>>>;

/// A queue whose handlers take some time, and write down which updates they have finished.
fn queue(sim: &SimRuntime, handled: &Handled, options: SinkOptions<AnySink>) -> DecayingQueue<u32> {
    let state = (sim.clone(), Arc::clone(handled));
    DecayingQueue::for_each_with(
        runtime(sim),
        state,
        async |(sim, handled): (SimRuntime, Handled), update: Delivery<u32>| {
            sim.sleep(MS * (*update % 7)).await;
            if *update == 1_000 {
                return Err(BoxError::from("enough"));
            }
            handled.lock().unwrap().push(*update);
            Ok(())
        },
    )
    .options(options)
    .sequentialize(|update: &u32| [Key::chat(i64::from(update % 5))])
    .policy(|_: Failure<u32>| Verdict::Stop)
    .build()
}

fn sorted(handled: &Handled) -> Vec<u32> {
    let mut handled = handled.lock().unwrap().clone();
    handled.sort_unstable();
    handled
}

#[test]
fn at_the_end_of_the_supply_everything_is_handled_and_closed() {
    for options in sinks() {
        for_each_seed(20, |sim| {
            let supplier = ScriptedSupplier::new(&sim)
                .batch(0..150)
                .step(Step::Fail(SupplyError::transient("502")))
                .wait(SECOND)
                .batch(150..180)
                .step(Step::Oversized((180..400).collect()))
                .end();
            let script = supplier.script();
            let mut source = Source::new(runtime(&sim), supplier, SourceOptions::default());
            let handled = Handled::default();
            let queue = queue(&sim, &handled, options.clone());
            let report: QueueReport<u32> = sim.block_on(async {
                pump(&mut source, &queue).await.unwrap();
                let report = queue.drain().await;
                source.close(report.settled_prefix).await.unwrap();
                report
            });
            assert_eq!(sorted(&handled), (0..400).collect::<Vec<_>>());
            assert_eq!(
                (report.counters.finished, report.settled_prefix),
                (400, 400)
            );
            assert_eq!(script.closes(), [400]);
            drop(queue);
            sim.run_until_idle();
            assert_eq!((sim.tasks(), sim.timers()), (0, 0));
        });
    }
}

#[test]
fn at_a_stop_nothing_is_lost_and_what_was_cancelled_comes_again() {
    for options in sinks() {
        for limit in [None, Some(Duration::ZERO)] {
            for_each_seed(40, |sim| {
                let mut supplier = ScriptedSupplier::new(&sim).rewinding();
                for batch in 0..20 {
                    supplier = supplier.batch(batch * 10..batch * 10 + 10).wait(MS);
                }
                let supplier = supplier.end();
                let script = supplier.script();
                let mut source = Source::new(runtime(&sim), supplier, SourceOptions::default());
                let handled = Handled::default();
                // At any time, also between two batches and after the end.
                let after = Duration::from_micros(sim.below(60_000));
                let first = queue(&sim, &handled, options.clone());
                let report: QueueReport<u32> = sim.block_on(async {
                    let pumping = pump(&mut source, &first);
                    let (pumped, ()) = join(pumping, async {
                        sim.sleep(after).await;
                        first.stop();
                    })
                    .await;
                    pumped.unwrap();
                    let report = match limit {
                        Some(limit) => first.drain_within(limit).await,
                        None => first.drain().await,
                    };
                    source.close(report.settled_prefix).await.unwrap();
                    report
                });
                let prefix = report.settled_prefix;
                assert_eq!(script.closes(), [prefix]);
                let abandoned = report.abandoned.len();
                assert_eq!(report.counters.finished as usize, sorted(&handled).len());
                assert!(limit.is_some() || abandoned == 0);

                let second = queue(&sim, &handled, options.clone());
                let again: QueueReport<u32> = sim.block_on(async {
                    pump(&mut source, &second).await.unwrap();
                    second.drain().await
                });
                let mut all = sorted(&handled);
                let repeated = all.len() - 200;
                all.dedup();
                assert_eq!(all, (0..200).collect::<Vec<_>>());
                assert_eq!(again.counters.finished as usize, 200 - prefix);
                // Only what comes after the first abandoned one is repeated.
                assert!(abandoned > 0 || repeated == 0);
            });
        }
    }
}

#[test]
fn a_policy_that_stops_ends_the_loop_during_a_poll() {
    for_each_seed(20, |sim| {
        // The supplier waits for more, so only the queue can end the loop.
        let supplier = ScriptedSupplier::new(&sim).batch([0, 1, 1_000, 3]);
        let mut source = Source::new(runtime(&sim), supplier, SourceOptions::default());
        let handled = Handled::default();
        let queue = queue(&sim, &handled, SinkOptions::sequential().any());
        let report = sim.block_on(async {
            pump(&mut source, &queue).await.unwrap();
            queue.drain().await
        });
        assert!(matches!(report.fault, Some(QueueFault::Policy(_))));
        assert_eq!((report.settled_prefix, sorted(&handled)), (2, vec![0, 1]));
        // The same in each report.
        let again = sim.block_on(queue.drain());
        assert_eq!((again.settled_prefix, again.abandoned.len()), (2, 0));
    });
}

#[test]
fn an_error_that_is_final_ends_the_loop_and_what_is_held_is_handled() {
    for_each_seed(20, |sim| {
        let supplier = ScriptedSupplier::new(&sim)
            .batch(0..9)
            .step(Step::Fail(SupplyError::fatal("401")));
        let mut source = Source::new(runtime(&sim), supplier, SourceOptions::default());
        let handled = Handled::default();
        let [options, ..] = sinks();
        let queue = queue(&sim, &handled, options);
        sim.block_on(async {
            let error = pump(&mut source, &queue).await.unwrap_err();
            assert!(matches!(error, SourceError::Supply(_)), "{error}");
            assert_eq!(queue.drain().await.counters.finished, 9);
        });
    });
}

/// A source of one's own: any stream of batches.
#[test]
fn a_stream_of_batches_is_a_supplier() {
    for_each_seed(20, |sim| {
        let (sender, batches) = mpsc::unbounded::<Vec<u32>>();
        let clock = sim.clone();
        runner_core::Runtime::spawn(
            &sim,
            Box::pin(async move {
                for batch in 0..10 {
                    clock.sleep(SECOND).await;
                    let updates = batch * 30..batch * 30 + 30;
                    sender.unbounded_send(updates.collect()).unwrap();
                }
            }),
        );
        let supplier = supply::from_stream(batches.flat_map(stream::iter));
        let recorder = Recorder::new(&sim, |_: &Delivery<u32>| Plan::ok());
        let log = recorder.log();
        let mut runner = Runner::new(runtime(&sim), supplier, recorder);
        let report = sim.block_on(runner.run()).unwrap();
        assert_eq!(report.end, EndReason::SupplyEnded);
        let mut finished = log.finished();
        finished.sort_unstable();
        assert_eq!(finished, (0..300).collect::<Vec<_>>());
        assert_eq!(sim.elapsed(), 10 * SECOND);
    });
}

/// A source of one's own that is no supplier: the queue is the sink.
#[test]
fn a_stream_of_batches_feeds_a_queue() {
    for_each_seed(20, |sim| {
        let mut batches = stream::iter((0..10).map(|batch| batch * 30..batch * 30 + 30));
        let handled = Handled::default();
        let options = SinkOptions::concurrent().max_waiting(common::n(20)).any();
        let queue = queue(&sim, &handled, options);
        sim.block_on(async {
            while let Some(batch) = batches.next().await {
                let Ok(room) = queue.add(batch) else { break };
                room.await;
            }
            assert!(queue.len() <= 60, "{}", queue.len());
            queue.drain().await
        });
        assert_eq!(sorted(&handled), (0..300).collect::<Vec<_>>());
    });
}
