//! A stop that comes from inside: a handler calls the handle of the runner that runs it.

mod common;

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use common::{LONG, SECOND, end_time, n, runtime};
use futures::{StreamExt, executor, future::join, stream::FuturesUnordered};
use runner_core::{
    Delivery, Failure, Lease, RunError, Runner, RunnerHandle, RuntimeExt, SinkOptions, Stopped,
    UpdateSink, Verdict,
    testing::{ScriptedSupplier, SimRuntime, for_each_seed},
};

type Own = Arc<OnceLock<RunnerHandle<u32>>>;
type Seen = Arc<Mutex<Vec<String>>>;

/// What a handler makes of the handle.
type Ask = fn(&RunnerHandle<u32>) -> Stopped<u32>;

fn asks() -> [(Ask, bool); 4] {
    [
        (|handle| handle.stop(), true),
        (|handle| handle.stop_within(10 * SECOND), true),
        (|handle| handle.task(), false),
        (|handle| handle.stopped(), false),
    ]
}

/// Notes what the wait for the end came to. It must not be the end itself.
async fn note(seen: &Seen, stopped: Stopped<u32>) {
    let error = stopped.await.unwrap_err();
    assert_eq!(error.report().counters.supplied, 0);
    seen.lock().unwrap().push(error.to_string());
}

fn assert_seen(seen: &Seen, count: usize) {
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), count);
    for text in &*seen {
        assert!(text.contains("inside a handler"), "{text}");
    }
}

#[test]
fn waiting_for_the_end_inside_a_handler_fails_at_once_and_the_stop_goes_on() {
    for (ask, stops) in asks() {
        for_each_seed(10, |sim| {
            let (own, seen) = (Own::default(), Seen::default());
            let state = (ask, Arc::clone(&own), Arc::clone(&seen), sim.clone());
            let handler = async |(ask, own, seen, sim): (Ask, Own, Seen, SimRuntime),
                                 update: Delivery<u32>| {
                if *update == 1 {
                    // At the first poll of the handler, and at a later one.
                    note(&seen, ask(own.get().unwrap())).await;
                    sim.sleep(SECOND).await;
                    note(&seen, ask(own.get().unwrap())).await;
                } else {
                    sim.sleep(5 * SECOND).await;
                }
            };
            let supplier = ScriptedSupplier::new(&sim).batch(0..3);
            let handle = Runner::for_each_with(runtime(&sim), supplier, state, handler).start();
            own.set(handle.clone()).unwrap();
            let outside = handle.stopped();
            sim.advance(4 * SECOND);
            assert_seen(&seen, 2);
            assert!(handle.is_running());
            if !stops {
                drop(handle.stop());
            }
            let (at, result) = end_time(&sim, outside, LONG).unwrap();
            let report = result.unwrap();
            assert_eq!((at, report.counters.finished), (5 * SECOND, 3));
            assert!(report.abandoned.is_empty());
            own.get().unwrap();
        });
    }
}

#[test]
fn a_wait_in_a_future_beside_the_handler_or_on_its_blocked_thread_fails_too() {
    let sim = SimRuntime::new(1);
    let (own, seen) = (Own::default(), Seen::default());
    let state = (Arc::clone(&own), Arc::clone(&seen));
    let handler = async |(own, seen): (Own, Seen), _: Delivery<u32>| {
        let handle = own.get().unwrap();
        join(note(&seen, handle.stop()), async {}).await;
        let waits: FuturesUnordered<_> = [note(&seen, handle.stop())].into_iter().collect();
        waits.collect::<Vec<_>>().await;
        executor::block_on(note(&seen, handle.stop()));
    };
    let supplier = ScriptedSupplier::new(&sim).batch([0]);
    let handle = Runner::for_each_with(runtime(&sim), supplier, state, handler).start();
    own.set(handle.clone()).unwrap();
    assert_eq!(sim.block_on(handle.stopped()).unwrap().counters.finished, 1);
    assert_seen(&seen, 3);
}

#[test]
fn a_task_that_a_handler_has_spawned_may_wait_for_the_end() {
    let sim = SimRuntime::new(1);
    let own = Own::default();
    let (end, ended) = std::sync::mpsc::channel();
    let state = (Arc::clone(&own), sim.clone(), end);
    let handler = async |(own, sim, end): (Own, SimRuntime, _), _: Delivery<u32>| {
        let handle: &RunnerHandle<u32> = own.get().unwrap();
        let stopped = handle.stop();
        let task = async move {
            let end: std::sync::mpsc::Sender<_> = end;
            end.send(stopped.await).unwrap();
        };
        runner_core::Runtime::spawn(&sim, Box::pin(task));
        // A handler that blocks its thread lets that task run inside of its own poll.
        sim.run_until_idle();
        sim.sleep(SECOND).await;
    };
    let supplier = ScriptedSupplier::new(&sim).batch([0]);
    let handle = Runner::for_each_with(runtime(&sim), supplier, state, handler).start();
    own.set(handle.clone()).unwrap();
    sim.advance(10 * SECOND);
    assert_eq!(ended.try_recv().unwrap().unwrap().counters.finished, 1);
}

#[test]
fn a_handler_may_wait_for_the_end_of_another_runner() {
    let sim = SimRuntime::new(1);
    let other = Runner::for_each(
        runtime(&sim),
        ScriptedSupplier::new(&sim).batch([1, 2]),
        async |_: Delivery<u32>| {},
    )
    .start();
    sim.advance(SECOND);
    let handler = async |other: RunnerHandle<u32>, _: Delivery<u32>| {
        assert_eq!(other.stop().await.unwrap().counters.finished, 2);
    };
    let supplier = ScriptedSupplier::new(&sim).batch([0]);
    let handle = Runner::for_each_with(runtime(&sim), supplier, other, handler).start();
    sim.advance(SECOND);
    assert_eq!(handle.stats().counters.finished, 1);
    sim.block_on(handle.stop()).unwrap();
}

#[test]
fn the_end_of_an_earlier_run_is_there_inside_a_handler_too() {
    let sim = SimRuntime::new(1);
    let (own, kept) = (Own::default(), Arc::new(Mutex::new(None)));
    let state = (Arc::clone(&own), Arc::clone(&kept));
    type Kept = Arc<Mutex<Option<Stopped<u32>>>>;
    let handler = async |(_own, kept): (Own, Kept), _: Delivery<u32>| {
        let stopped = kept.lock().unwrap().take();
        if let Some(stopped) = stopped {
            assert_eq!(stopped.await.unwrap().counters.finished, 1);
        }
    };
    let supplier = ScriptedSupplier::new(&sim).batch([0]);
    let script = supplier.script();
    let handle = Runner::for_each_with(runtime(&sim), supplier, state, handler).start();
    own.set(handle.clone()).unwrap();
    sim.advance(SECOND);
    *kept.lock().unwrap() = Some(handle.stopped());
    sim.block_on(handle.stop()).unwrap();
    script.push(runner_core::testing::Step::Batch(vec![1]));
    handle.start().unwrap();
    sim.advance(SECOND);
    assert_eq!(handle.stats().counters.finished, 1);
}

#[test]
fn a_late_handler_that_was_detached_is_a_handler_still() {
    let sim = SimRuntime::new(1);
    let (own, seen) = (Own::default(), Seen::default());
    let state = (Arc::clone(&own), Arc::clone(&seen), sim.clone());
    let handler = async |(own, seen, sim): (Own, Seen, SimRuntime), _: Delivery<u32>| {
        sim.sleep(3 * SECOND).await;
        note(&seen, own.get().unwrap().stop()).await;
    };
    let supplier = ScriptedSupplier::new(&sim).batch([0]);
    let handle = Runner::for_each_with(runtime(&sim), supplier, state, handler)
        .sink(
            SinkOptions::concurrent()
                .timeout(SECOND)
                .detach_after_timeout(None),
        )
        .start();
    own.set(handle.clone()).unwrap();
    sim.block_on(handle.stopped()).unwrap();
    assert_seen(&seen, 1);
}

#[test]
fn an_error_policy_may_stop_the_runner_but_not_wait_for_the_end() {
    let sim = SimRuntime::new(1);
    let (own, seen) = (Own::default(), Seen::default());
    let policy = {
        let (own, seen) = (Arc::clone(&own), Arc::clone(&seen));
        move |_: Failure<u32>| {
            let (own, seen) = (Arc::clone(&own), Arc::clone(&seen));
            async move {
                note(&seen, own.get().unwrap().stop()).await;
                Verdict::Skip
            }
        }
    };
    let supplier = ScriptedSupplier::new(&sim).batch([0]);
    let handle = Runner::for_each(runtime(&sim), supplier, async |_: Delivery<u32>| {
        Err::<(), _>("refused")
    })
    .policy(policy)
    .start();
    own.set(handle.clone()).unwrap();
    assert_eq!(sim.block_on(handle.stopped()).unwrap().counters.failed, 1);
    assert_seen(&seen, 1);
}

struct Stopping(Own, Seen);

impl UpdateSink<u32> for Stopping {
    type Error = Infallible;

    async fn handle(&mut self, group: Vec<Lease<u32>>) -> Result<(), Infallible> {
        note(&self.1, self.0.get().unwrap().stop()).await;
        for lease in group {
            lease.finish();
        }
        Ok(())
    }
}

#[test]
fn a_sink_may_stop_the_runner_but_not_wait_for_the_end() {
    for_each_seed(10, |sim| {
        let (own, seen) = (Own::default(), Seen::default());
        let sink = Stopping(Arc::clone(&own), Arc::clone(&seen));
        let supplier = ScriptedSupplier::new(&sim).batch([0, 1]);
        let handle = Runner::with_sink(runtime(&sim), supplier, sink)
            .sink(SinkOptions::concurrent().concurrency(n(2)))
            .start();
        own.set(handle.clone()).unwrap();
        let report = sim.block_on(handle.stopped()).unwrap();
        assert_eq!(report.counters.finished, 2);
        let count = seen.lock().unwrap().len();
        assert_seen(&seen, count);
        assert!(count >= 1);
    });
}

#[test]
fn a_limit_that_is_set_inside_a_handler_abandons_others_and_not_itself() {
    let sim = SimRuntime::new(1);
    let own = Own::default();
    let state = (Arc::clone(&own), sim.clone());
    let handler = async |(own, sim): (Own, SimRuntime), update: Delivery<u32>| {
        if *update == 0 {
            let stopped = own.get().unwrap().stop_within(2 * SECOND).await;
            assert!(matches!(stopped, Err(RunError::AwaitedInHandler { .. })));
        } else {
            sim.sleep(LONG).await;
        }
    };
    let supplier = ScriptedSupplier::new(&sim).batch([0, 1]);
    let handle = Runner::for_each_with(runtime(&sim), supplier, state, handler).start();
    own.set(handle.clone()).unwrap();
    let report = sim.block_on(handle.stopped()).unwrap();
    assert_eq!(report.counters.finished, 1);
    assert_eq!(*report.abandoned[0].update, 1);
    assert_eq!(sim.elapsed(), 2 * SECOND);
    assert_eq!(report.duration, Duration::from_secs(2));
}
