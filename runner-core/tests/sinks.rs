//! What the three sinks promise, and their bounds.

mod common;

use std::{
    sync::{Arc, Mutex, OnceLock, mpsc},
    thread,
    time::Duration,
};

use common::{LONG, MS, SECOND, always, n, quiet, runtime};
use runner_core::{
    Cause, Delivery, Failure, Key, Runner, RunnerHandle, Runtime, RuntimeExt, SinkOptions, Verdict,
    testing::{Plan, Recorder, Script, ScriptedSupplier, SimRuntime, Step, for_each_seed},
};

fn limits(script: &Script<u32>) -> Vec<usize> {
    script.calls().iter().map(|call| call.limit).collect()
}

// Sequential

#[test]
fn a_sequential_sink_handles_one_update_after_the_other() {
    for_each_seed(30, |sim| {
        let dice = sim.clone();
        let supplier = ScriptedSupplier::new(&sim).batch(0..20).batch(20..40);
        let recorder = Recorder::new(&sim, move |_: &Delivery<u32>| {
            Plan::ok().sleep(MS * dice.below(50) as u32)
        });
        let log = recorder.log();
        // Neither different keys nor more workers change that.
        let options = SinkOptions::sequential().workers(n(4));
        let handle = Runner::new(runtime(&sim), supplier, recorder)
            .sink(options)
            .sequentialize(|update: &u32| [Key::chat(i64::from(*update))])
            .start();
        handle.set_concurrency(n(10));
        sim.advance(10 * SECOND);
        assert_eq!(log.finished(), (0..40).collect::<Vec<_>>());
        assert_eq!(log.max_concurrency(), 1);
        let entries = log.entries();
        for pair in entries.windows(2) {
            assert!(pair[0].ended.unwrap() <= pair[1].started);
        }
    });
}

/// The next batch is asked for when every update of this one is settled, and not before: that call
/// makes the supplier forget them.
fn fetches_only_when_all_is_settled(options: SinkOptions<impl Sized>, settled_at: Duration) {
    for_each_seed(20, |sim| {
        let supplier = ScriptedSupplier::new(&sim).batch(0..4).batch(4..5);
        let script = supplier.script();
        let recorder = Recorder::new(&sim, |update: &Delivery<u32>| match **update {
            0 if !update.redelivered() => Plan::fail("again"),
            3 => Plan::hang(),
            _ => Plan::ok().sleep(SECOND),
        });
        let handle = Runner::new(runtime(&sim), supplier, recorder)
            .sink(options.clone().timeout(10 * SECOND))
            .policy(|failure: Failure<u32>| match failure.cause {
                Cause::Timeout => Verdict::Skip,
                _ => Verdict::Retry { after: 5 * SECOND },
            })
            .start();
        sim.advance(settled_at - MS);
        assert_eq!(limits(&script), [100]);
        sim.advance(MS);
        assert_eq!(limits(&script), [100, 100]);
        assert_eq!(script.calls()[1].at, settled_at);
        assert_eq!(handle.stats().counters.settled(), 4);
    });
}

#[test]
fn a_sequential_sink_fetches_only_when_all_is_settled() {
    // A retry after 5 s, three times a second, and a time-out of 10 s.
    fetches_only_when_all_is_settled(SinkOptions::sequential(), 18 * SECOND);
}

#[test]
fn a_batch_sink_fetches_only_when_all_is_settled() {
    fetches_only_when_all_is_settled(SinkOptions::batch(), 10 * SECOND);
}

#[test]
fn a_retry_in_a_sequential_sink_holds_up_all_others() {
    for_each_seed(20, |sim| {
        let recorder = Recorder::new(&sim, |update: &Delivery<u32>| match **update {
            1 if !update.redelivered() => Plan::fail("again"),
            _ => Plan::ok(),
        });
        let log = recorder.log();
        let supplier = ScriptedSupplier::new(&sim).batch(0..4_u32);
        let _handle = Runner::new(runtime(&sim), supplier, recorder)
            .sink(SinkOptions::sequential())
            .policy(|_: Failure<u32>| Verdict::Retry { after: SECOND })
            .start();
        sim.advance(10 * SECOND);
        assert_eq!(log.started(), [0, 1, 1, 2, 3]);
        assert_eq!(log.entries()[3].started, SECOND);
    });
}

/// The policy acts on it in its turn as well.
#[test]
fn an_update_without_keys_does_not_overtake_in_a_sequential_sink() {
    quiet();
    for_each_seed(20, |sim| {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        let clock = sim.clone();
        let supplier = ScriptedSupplier::new(&sim).batch(0..4_u32);
        let _handle = Runner::new(
            runtime(&sim),
            supplier,
            always(&sim, Plan::ok().sleep(SECOND)),
        )
        .sink(SinkOptions::sequential())
        .sequentialize(|update: &u32| {
            assert_ne!(*update, 2, "no key");
            [Key::chat(1)]
        })
        .policy(move |failure: Failure<u32>| {
            seen.lock()
                .unwrap()
                .push((*failure.update, clock.elapsed()));
            Verdict::Skip
        })
        .start();
        sim.advance(10 * SECOND);
        assert_eq!(*asked.lock().unwrap(), [(2, 2 * SECOND)]);
    });
}

#[test]
fn a_late_handler_may_go_on_with_its_slot_in_every_sink() {
    let one = SinkOptions::concurrent().concurrency(n(1));
    for options in [
        SinkOptions::sequential().any(),
        SinkOptions::batch().concurrency(n(1)).any(),
        one.any(),
    ] {
        for_each_seed(10, |sim| {
            let told = Arc::new(Mutex::new(Vec::new()));
            let (log, clock) = (Arc::clone(&told), sim.clone());
            let supplier = ScriptedSupplier::new(&sim).batch([0, 1]);
            let recorder = Recorder::new(&sim, |update: &Delivery<u32>| match **update {
                0 => Plan::ok().sleep(5 * SECOND),
                _ => Plan::ok(),
            });
            let entries = recorder.log();
            let handle = Runner::new(runtime(&sim), supplier, recorder)
                .sink(options.clone().timeout(SECOND).continue_after_timeout())
                .on_late(move |late| {
                    let mut log = log.lock().unwrap();
                    log.push((*late.update, late.age, late.detached, clock.elapsed()));
                })
                .start();
            sim.advance(2 * SECOND);
            assert_eq!(*told.lock().unwrap(), [(0, SECOND, false, SECOND)]);
            assert_eq!(handle.stats().in_flight, 1);
            assert_eq!(entries.started(), [0]);
            sim.advance(10 * SECOND);
            let counters = handle.stats().counters;
            assert_eq!((counters.finished, counters.timed_out), (2, 0));
            assert_eq!(entries.finished(), [0, 1]);
        });
    }
}

#[test]
fn a_detached_handler_is_told_of_and_a_callback_that_panics_harms_nothing() {
    common::quiet();
    for_each_seed(10, |sim| {
        let told = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&told);
        let supplier = ScriptedSupplier::new(&sim).batch(0..3);
        let options = SinkOptions::concurrent().concurrency(n(3)).timeout(SECOND);
        let handle = Runner::new(
            runtime(&sim),
            supplier,
            always(&sim, Plan::ok().sleep(5 * SECOND)),
        )
        .sink(options.detach_after_timeout(Some(n(2))))
        .on_late(move |late| {
            log.lock().unwrap().push(late.detached);
            panic!("in the callback");
        })
        .start();
        sim.advance(2 * SECOND);
        let mut detached = told.lock().unwrap().clone();
        detached.sort_unstable();
        assert_eq!(detached, [false, true, true]);
        sim.advance(10 * SECOND);
        assert_eq!(handle.stats().counters.finished, 3);
    });
}

#[test]
fn a_callback_for_late_handlers_may_look_at_the_runner() {
    let (sender, ended) = mpsc::channel();
    // A deadlock holds the thread forever, so the verdict comes from another one.
    thread::spawn(move || {
        let sim = SimRuntime::new(1);
        let own = Arc::new(OnceLock::<RunnerHandle<u32>>::new());
        let handle = Arc::clone(&own);
        let supplier = ScriptedSupplier::new(&sim).batch([0]);
        let options = SinkOptions::concurrent().timeout(SECOND);
        let started = Runner::new(runtime(&sim), supplier, always(&sim, Plan::hang()))
            .sink(options.detach_after_timeout(None))
            .on_late(move |_| {
                let handle = handle.get().expect("it was set");
                let _ = sender.send(handle.stats().detached);
            })
            .start();
        assert!(own.set(started).is_ok());
        sim.advance(2 * SECOND);
        let handle = own.get().expect("it was set");
        drop(sim.block_on(handle.stop_within(Duration::ZERO)));
    });
    assert_eq!(ended.recv_timeout(60 * SECOND), Ok(1));
}

// Batch

#[test]
fn a_batch_sink_handles_the_updates_of_a_batch_together() {
    for_each_seed(20, |sim| {
        let supplier = ScriptedSupplier::new(&sim).batch(0..6).batch(6..9);
        let recorder = Recorder::new(&sim, |update: &Delivery<u32>| {
            Plan::ok().sleep(SECOND * (1 + update.min(5)))
        });
        let log = recorder.log();
        let _handle = Runner::new(runtime(&sim), supplier, recorder)
            .sink(SinkOptions::batch())
            .start();
        sim.advance(100 * SECOND);
        let starts: Vec<u64> = log
            .entries()
            .iter()
            .map(|it| it.started.as_secs())
            .collect();
        assert_eq!(starts, [0, 0, 0, 0, 0, 0, 6, 6, 6]);
    });
}

#[test]
fn a_batch_sink_keeps_the_order_of_keys_and_its_concurrency() {
    for_each_seed(20, |sim| {
        let supplier = ScriptedSupplier::new(&sim).batch(0..9);
        let recorder = always(&sim, Plan::ok().sleep(SECOND));
        let log = recorder.log();
        let _handle = Runner::new(runtime(&sim), supplier, recorder)
            .sink(SinkOptions::batch().concurrency(n(2)).workers(n(1)))
            .sequentialize(|update: &u32| [Key::chat(i64::from(update / 3))])
            .start();
        sim.advance(100 * SECOND);
        assert_eq!(log.max_concurrency(), 2);
        for chat in 0..3 {
            let own: Vec<u32> = log
                .started()
                .into_iter()
                .filter(|it| it / 3 == chat)
                .collect();
            assert_eq!(own, [3 * chat, 3 * chat + 1, 3 * chat + 2]);
        }
    });
}

// Concurrent

#[test]
fn a_concurrent_sink_fetches_while_updates_are_in_flight() {
    for_each_seed(20, |sim| {
        let supplier = ScriptedSupplier::new(&sim).batch([0]).batch([1]).batch([2]);
        let recorder = always(&sim, Plan::hang());
        let log = recorder.log();
        let _handle = Runner::new(runtime(&sim), supplier, recorder)
            .sink(SinkOptions::default())
            .start();
        sim.advance(MS);
        assert_eq!(log.running(), 3);
    });
}

#[test]
fn a_full_sink_refills_from_its_prefetch_and_never_fetches_for_one_slot() {
    for_each_seed(20, |sim| {
        // One update ends every 10 ms, which frees one slot.
        let recorder = Recorder::new(&sim, |update: &Delivery<u32>| match **update {
            first @ 0..10 => Plan::ok().sleep(MS * 10 * (first + 1)),
            _ => Plan::ok().sleep(100 * MS),
        });
        let log = recorder.log();
        let options = SinkOptions::concurrent().concurrency(n(10)).prefetch(40);
        let supplier = ScriptedSupplier::new(&sim).batch(0..1_000);
        let script = supplier.script();
        let handle = Runner::new(runtime(&sim), supplier, recorder)
            .sink(options)
            .start();
        sim.advance(5 * SECOND);
        assert!(!script.is_over());
        let limits = limits(&script);
        assert_eq!(limits[0], 50);
        assert!(limits[1..].iter().all(|limit| *limit == 20), "{limits:?}");
        // And no slot was ever empty for want of an update.
        assert_eq!(handle.size(), 10);
        assert_eq!(log.finished().len(), 500);
    });
}

/// With little room, the next fetch waits until nothing is ready; then it must not wait for a handler.
#[test]
fn the_start_of_the_last_ready_update_makes_room() {
    // The last one is started by a worker that comes for it, or by one that has completed another.
    for (first, calls) in [(Plan::ok().block(LONG), 3), (Plan::ok().sleep(SECOND), 4)] {
        let sim = SimRuntime::new(1);
        let supplier = ScriptedSupplier::new(&sim)
            .batch([0, 1, 2, 3])
            .batch([10])
            .batch([20]);
        let script = supplier.script();
        let recorder = Recorder::new(&sim, move |update: &Delivery<u32>| match **update {
            10 => first.clone(),
            20 => Plan::ok().block(LONG),
            _ => Plan::hang(),
        });
        let options = SinkOptions::concurrent().concurrency(n(2)).workers(n(2));
        let _handle = Runner::new(runtime(&sim), supplier, recorder)
            .sink(options.max_waiting(n(4)).prefetch(10))
            .sequentialize(|update: &u32| [Key::chat(i64::from(update / 10))])
            .start();
        let (seen, clock, own) = (Arc::new(Mutex::new(0)), sim.clone(), script.clone());
        let count = Arc::clone(&seen);
        sim.spawn(Box::pin(async move {
            clock.sleep(2 * SECOND).await;
            *count.lock().unwrap() = own.calls().len();
        }));
        sim.advance(3 * SECOND);
        assert_eq!(*seen.lock().unwrap(), calls);
    }
}

#[test]
fn an_update_that_waits_for_its_key_takes_no_place_of_the_prefetch() {
    let sim = SimRuntime::new(1);
    let supplier = ScriptedSupplier::new(&sim)
        .step(Step::Oversized((0..200).collect()))
        .batch(200..230);
    let recorder = always(&sim, Plan::hang());
    let handle = Runner::new(runtime(&sim), supplier, recorder)
        .sink(SinkOptions::concurrent().concurrency(n(10)).prefetch(20))
        .sequentialize(|update: &u32| match update {
            0..200 => Some(Key::chat(1)),
            _ => None,
        })
        .start();
    sim.advance(SECOND);
    let stats = handle.stats();
    assert_eq!((stats.in_flight, stats.ready, stats.waiting), (10, 20, 199));
}

// Too many for one key

/// A flood of chat 1, and one update each of the chats from 2 on.
fn flood(sim: &SimRuntime, options: SinkOptions<impl Sized>) -> (RunnerHandle<u32>, Script<u32>) {
    let supplier = ScriptedSupplier::new(sim);
    let script = supplier.script();
    let recorder = Recorder::new(sim, |_: &Delivery<u32>| Plan::ok().sleep(SECOND));
    let handle = Runner::new(runtime(sim), supplier, recorder)
        .sink(options)
        .sequentialize(|update: &u32| [Key::chat(i64::from(*update))])
        .start();
    (handle, script)
}

#[test]
fn at_max_waiting_intake_stops_and_goes_on_when_there_is_room() {
    for_each_seed(20, |sim| {
        let options = SinkOptions::concurrent().max_waiting(n(4));
        let (handle, script) = flood(&sim, options);
        script.push(Step::Batch(vec![1; 10]));
        script.push(Step::Batch(vec![2]));
        sim.advance(500 * MS);
        let stats = handle.stats();
        assert_eq!((stats.in_flight, stats.waiting), (1, 4));
        assert_eq!(stats.counters.supplied, 5);
        // One place that becomes free is not worth a call, half of the bound is.
        sim.advance(SECOND);
        assert_eq!(handle.stats().counters.supplied, 5);
        sim.advance(SECOND);
        assert_eq!(handle.stats().counters.supplied, 7);
        sim.advance(100 * SECOND);
        assert_eq!(handle.stats().counters.finished, 11);
    });
}

#[cfg(feature = "tracing")]
mod warnings {
    use tracing::Level;

    use super::*;
    use crate::common::log;

    /// The fields of all warnings so far.
    fn warnings() -> Vec<String> {
        let warnings = log::lines()
            .into_iter()
            .filter(|line| line.level <= Level::WARN);
        warnings.map(|line| line.fields).collect()
    }

    #[test]
    fn the_end_of_intake_is_said_once() {
        for_each_seed(10, |sim| {
            log::listen();
            // So small a batch that every place is worth a call.
            let options = SinkOptions::concurrent().prefetch(2).max_waiting(n(8));
            let (handle, script) = flood(&sim, options);
            script.push(Step::Batch(vec![1; 40]));
            sim.advance(500 * MS);
            let said = warnings();
            assert_eq!(said.len(), 1, "{said:?}");
            for part in ["key=chat 1", "depth=8", "age="] {
                assert!(said[0].contains(part), "{said:?}");
            }
            // While one goes and one comes, it is no news.
            sim.advance(31 * SECOND);
            for _ in 0..5 {
                sim.advance(SECOND);
                assert_eq!(handle.stats().waiting, 7);
                script.push(Step::Batch(vec![]));
                script.push(Step::Batch(vec![1]));
                sim.advance(MS);
                assert_eq!(handle.stats().waiting, 8);
            }
            // When all of them are gone, and as many come again, it is.
            sim.advance(30 * SECOND);
            assert_eq!(handle.stats().counters.finished, 45);
            assert_eq!(warnings().len(), 1);
            script.push(Step::Batch(vec![1; 40]));
            sim.advance(SECOND);
            assert_eq!(warnings().len(), 2);
        });
    }

    /// The fetch loop waits for room already when the bound is reached.
    #[test]
    fn retries_that_stop_the_intake_say_so_as_well() {
        for_each_seed(10, |sim| {
            log::listen();
            let supplier = ScriptedSupplier::new(&sim).batch(0..20_u32);
            let recorder = always(&sim, Plan::fail("no").sleep(SECOND));
            let handle = Runner::new(runtime(&sim), supplier, recorder)
                .sink(
                    SinkOptions::concurrent()
                        .concurrency(n(8))
                        .prefetch(0)
                        .max_waiting(n(8)),
                )
                .policy(|_: Failure<u32>| Verdict::Retry { after: LONG })
                .start();
            sim.advance(500 * MS);
            assert_eq!(handle.stats().in_flight, 8);
            // From now on there is never a free slot that would let it look up.
            handle.set_concurrency(n(1));
            assert_eq!(warnings().len(), 0);
            sim.advance(10 * SECOND);
            assert_eq!(handle.stats().waiting, 8);
            let said = warnings();
            assert_eq!(said.len(), 1, "{said:?}");
        });
    }

    #[test]
    fn a_sink_that_fetches_batch_by_batch_has_nothing_to_say() {
        let sim = SimRuntime::new(1);
        log::listen();
        let options = SinkOptions::sequential();
        let (handle, script) = flood(&sim, options);
        script.push(Step::Batch((0..20).collect()));
        sim.advance(100 * SECOND);
        assert_eq!(handle.stats().counters.finished, 20);
        assert_eq!(warnings().len(), 0);
    }
}

#[test]
fn beyond_max_waiting_per_key_updates_go_to_the_policy() {
    for_each_seed(20, |sim| {
        let overflowed = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&overflowed);
        // Ten of chat 1, and two of chat 2 in between.
        let supplier = ScriptedSupplier::new(&sim).batch(0..12_u32);
        let recorder = always(&sim, Plan::ok().sleep(SECOND));
        let log = recorder.log();
        let handle = Runner::new(runtime(&sim), supplier, recorder)
            .sink(
                SinkOptions::concurrent()
                    .max_waiting_per_key(n(3))
                    .workers(n(1)),
            )
            .sequentialize(|update: &u32| match update {
                5 | 11 => [Key::chat(2)],
                _ => [Key::chat(1)],
            })
            .policy(move |failure: Failure<u32>| {
                assert!(matches!(failure.cause, Cause::Overflow));
                let mut seen = seen.lock().unwrap();
                seen.push(*failure.update);
                // Asking again does not help: it would overtake those that wait.
                match failure.update.attempt().get() {
                    1 => Verdict::Retry {
                        after: 100 * SECOND,
                    },
                    _ => Verdict::Skip,
                }
            })
            .start();
        sim.advance(MS);
        assert_eq!(*overflowed.lock().unwrap(), [4, 6, 7, 8, 9, 10]);
        sim.advance(200 * SECOND);
        assert_eq!(overflowed.lock().unwrap().len(), 12);
        let mut finished = log.finished();
        finished.retain(|update| !matches!(update, 5 | 11));
        assert_eq!(finished, [0, 1, 2, 3]);
        let counters = handle.stats().counters;
        assert_eq!((counters.overflowed, counters.finished), (6, 6));
    });
}

#[test]
fn a_key_whose_updates_have_gone_has_room_again() {
    for_each_seed(10, |sim| {
        let options = SinkOptions::concurrent().max_waiting_per_key(n(1));
        let (handle, script) = flood(&sim, options);
        for _ in 0..5 {
            script.push(Step::Batch(vec![1; 3]));
            sim.advance(2 * SECOND);
        }
        let counters = handle.stats().counters;
        assert_eq!((counters.finished, counters.overflowed), (10, 5));
    });
}
