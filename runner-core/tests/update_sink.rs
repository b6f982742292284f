//! Sinks of the user's: groups, settlement, backpressure, failures, the end of a run.

mod common;

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    sync::{Arc, Mutex},
    time::Duration,
};

use common::{LONG, MS, SECOND, n, quiet, runtime};
use runner_core::{
    Bot, BoxError, BoxFuture, BoxSink, Cause, Failure, Fate, Key, Lease, Progress, Report,
    RunError, Runner, RunnerHandle, RuntimeExt, SinkError, SinkOptions, UpdateSink, Verdict,
    testing::{FakeApi, Script, ScriptedSupplier, SimRuntime, Step, for_each_seed},
};

type Handled = BoxFuture<'static, Result<(), BoxError>>;

/// A sink whose calls are made by a closure.
struct By<F> {
    handle: F,
    max: usize,
    linger: Duration,
}

fn by<F>(handle: F) -> By<F>
where
    F: FnMut(Vec<Lease<u32>>) -> Handled + Send + 'static,
{
    By {
        handle,
        max: 100,
        linger: Duration::ZERO,
    }
}

impl<F> By<F> {
    /// Waits a moment for so many.
    fn together(mut self, count: usize) -> Self {
        (self.max, self.linger) = (count, MS);
        self
    }
}

impl<F: FnMut(Vec<Lease<u32>>) -> Handled + Send + 'static> UpdateSink<u32> for By<F> {
    type Error = BoxError;

    async fn handle(&mut self, group: Vec<Lease<u32>>) -> Result<(), BoxError> {
        (self.handle)(group).await
    }

    fn max_group(&self) -> NonZeroUsize {
        assert!(self.max > 0, "no group at all");
        n(self.max)
    }

    fn linger(&self) -> Duration {
        self.linger
    }
}

/// The groups that were handed over, and when.
type Groups = Arc<Mutex<Vec<(Duration, Vec<u32>)>>>;

fn note(groups: &Groups, sim: &SimRuntime, group: &[Lease<u32>]) {
    let updates = group.iter().map(|lease| **lease).collect();
    groups.lock().unwrap().push((sim.elapsed(), updates));
}

fn updates(groups: &Groups) -> Vec<Vec<u32>> {
    let groups = groups.lock().unwrap();
    groups.iter().map(|(_, updates)| updates.clone()).collect()
}

/// Finishes a group some time after it came.
fn slow(
    sim: &SimRuntime,
    groups: &Groups,
    span: Duration,
) -> By<impl FnMut(Vec<Lease<u32>>) -> Handled + Send + use<>> {
    let (sim, groups) = (sim.clone(), Arc::clone(groups));
    by(move |group| {
        note(&groups, &sim, &group);
        let sim = sim.clone();
        Box::pin(async move {
            sim.sleep(span).await;
            group.into_iter().for_each(|lease| {
                lease.finish();
            });
            Ok(())
        })
    })
}

fn start(
    sim: &SimRuntime,
    batch: impl IntoIterator<Item = u32>,
    sink: impl UpdateSink<u32>,
    options: SinkOptions<impl Sized>,
) -> (RunnerHandle<u32>, Script<u32>) {
    let supplier = ScriptedSupplier::new(sim).batch(batch).rewinding();
    let script = supplier.script();
    let runner = Runner::with_sink(runtime(sim), supplier, sink).sink(options);
    (runner.start(), script)
}

fn stop(sim: &SimRuntime, handle: &RunnerHandle<u32>) -> Report<u32> {
    sim.block_on(handle.stop()).unwrap()
}

// groups

#[test]
fn what_becomes_ready_during_a_call_is_the_next_group_in_order_of_arrival() {
    for_each_seed(50, |sim| {
        let groups = Groups::default();
        let sink = slow(&sim, &groups, SECOND);
        let (handle, script) = start(&sim, [0], sink, SinkOptions::concurrent());
        sim.advance(MS);
        script.push(Step::Batch(vec![1, 2]));
        script.push(Step::Batch((3..8).collect()));
        sim.advance(3 * SECOND);
        let report = stop(&sim, &handle);
        assert_eq!(updates(&groups), [vec![0], (1..8).collect()]);
        assert_eq!(report.counters.finished, 8);
    });
}

#[test]
fn a_group_is_as_large_as_the_sink_asks_for() {
    for_each_seed(20, |sim| {
        let groups = Groups::default();
        let mut sink = slow(&sim, &groups, SECOND);
        sink.max = 3;
        let (handle, _) = start(&sim, 0..8, sink, SinkOptions::concurrent());
        sim.advance(MS);
        stop(&sim, &handle);
        let sizes: Vec<_> = updates(&groups).iter().map(Vec::len).collect();
        assert!(sizes.iter().all(|size| *size <= 3), "{sizes:?}");
        assert_eq!(updates(&groups).concat(), (0..8).collect::<Vec<_>>());
    });
}

#[test]
fn a_group_waits_to_fill_up_until_it_is_full_or_its_time_is_over() {
    for_each_seed(20, |sim| {
        let groups = Groups::default();
        let mut sink = slow(&sim, &groups, Duration::ZERO);
        (sink.max, sink.linger) = (3, 10 * SECOND);
        let (handle, script) = start(&sim, [0], sink, SinkOptions::concurrent());
        sim.advance(4 * SECOND);
        script.push(Step::Batch(vec![1]));
        sim.advance(7 * SECOND);
        script.push(Step::Batch(vec![2, 3]));
        sim.advance(SECOND);
        script.push(Step::Batch(vec![4]));
        sim.advance(MS);
        let expected = [(10 * SECOND, vec![0, 1]), (12 * SECOND, vec![2, 3, 4])];
        assert_eq!(*groups.lock().unwrap(), expected);
        stop(&sim, &handle);
    });
}

#[test]
fn updates_of_the_same_key_are_never_in_the_hands_of_the_sink_together() {
    for_each_seed(20, |sim| {
        let groups = Groups::default();
        let supplier = ScriptedSupplier::new(&sim).batch(0..9);
        let sink = slow(&sim, &groups, SECOND);
        let handle = Runner::with_sink(runtime(&sim), supplier, sink)
            .sequentialize(|update| [Key::chat((update % 3).into())])
            .start();
        sim.advance(10 * SECOND);
        stop(&sim, &handle);
        let groups = updates(&groups);
        for chat in 0..3 {
            let all = groups.concat().into_iter();
            let of_chat: Vec<_> = all.filter(|update| update % 3 == chat).collect();
            assert_eq!(of_chat, [chat, chat + 3, chat + 6]);
        }
        for group in groups {
            let mut chats: Vec<_> = group.iter().map(|update| update % 3).collect();
            chats.sort_unstable();
            chats.dedup();
            assert_eq!(chats.len(), group.len());
        }
    });
}

// batches stay together

/// A key of its own for every update, one for two neighbours, or none.
#[derive(Clone, Copy, Debug)]
enum Keys {
    None,
    Distinct,
    Pairs,
}

/// Hands ten batches of 100 over, and returns when the last group was complete and the sizes of all.
fn ten_batches(
    sim: &SimRuntime,
    span: Duration,
    limits: (usize, Duration),
    options: SinkOptions<impl Sized>,
    keys: Keys,
) -> (Duration, Vec<usize>) {
    let groups = Groups::default();
    let mut sink = slow(sim, &groups, span);
    (sink.max, sink.linger) = limits;
    let batches = (0..10).map(|batch| batch * 100..(batch + 1) * 100);
    let supplier = batches.fold(ScriptedSupplier::new(sim), ScriptedSupplier::batch);
    let handle = Runner::with_sink(runtime(sim), supplier, sink)
        .sink(options)
        .sequentialize(move |update| match keys {
            Keys::None => None,
            Keys::Distinct => Some(Key::chat((*update).into())),
            Keys::Pairs => Some(Key::chat((update / 2).into())),
        })
        .start();
    let mut ended = None;
    for _ in 0..20_000 {
        if handle.stats().counters.finished == 1_000 {
            ended = Some(sim.elapsed());
            break;
        }
        sim.advance(MS);
    }
    stop(sim, &handle);
    let groups = updates(&groups);
    assert!(groups.iter().all(|group| group.is_sorted()));
    let mut all = groups.concat();
    all.sort_unstable();
    assert!(all.into_iter().eq(0..1_000), "each of them once");
    let sizes = groups.iter().map(Vec::len).collect();
    (ended.expect("all are handled"), sizes)
}

/// Every wait for a group to fill up would be noticed.
const LONG_LINGER: Duration = Duration::from_secs(1_000);

#[test]
fn a_batch_is_handed_over_whole_however_long_the_call_takes() {
    for span in [Duration::ZERO, 5 * MS, SECOND] {
        for keys in [Keys::None, Keys::Distinct] {
            for options in [SinkOptions::batch().any(), SinkOptions::concurrent().any()] {
                for_each_seed(5, |sim| {
                    let limits = (100, Duration::ZERO);
                    let (_, sizes) = ten_batches(&sim, span, limits, options.clone(), keys);
                    assert_eq!(sizes, [100; 10], "{span:?} {keys:?} {options:?}");
                });
            }
        }
    }
}

#[test]
fn a_batch_beyond_the_concurrency_is_handed_over_in_full_groups() {
    for span in [Duration::ZERO, 5 * MS] {
        for keys in [Keys::None, Keys::Distinct] {
            for_each_seed(10, |sim| {
                let options = SinkOptions::batch().concurrency(n(30));
                let limits = (100, Duration::ZERO);
                let (_, sizes) = ten_batches(&sim, span, limits, options, keys);
                assert_eq!(sizes, [30, 30, 30, 10].repeat(10), "{span:?} {keys:?}");
            });
            for_each_seed(10, |sim| {
                let options = SinkOptions::concurrent().concurrency(n(50)).prefetch(1_000);
                let limits = (100, Duration::ZERO);
                let (_, sizes) = ten_batches(&sim, span, limits, options, keys);
                assert_eq!(sizes, [50; 20], "{span:?} {keys:?}");
            });
        }
    }
}

#[test]
fn updates_that_a_group_releases_are_handed_over_together() {
    for span in [Duration::ZERO, 5 * MS] {
        for_each_seed(10, |sim| {
            let limits = (100, Duration::ZERO);
            let (_, sizes) = ten_batches(&sim, span, limits, SinkOptions::batch(), Keys::Pairs);
            assert_eq!(sizes, [50; 20], "{span:?}");
        });
    }
}

#[test]
fn a_batch_or_sequential_sink_does_not_wait_for_a_group_to_fill_up_that_cannot() {
    for keys in [Keys::None, Keys::Pairs] {
        for_each_seed(10, |sim| {
            let limits = (500, LONG_LINGER);
            let (ended, _) = ten_batches(&sim, 5 * MS, limits, SinkOptions::batch(), keys);
            assert!(ended <= 110 * MS, "{ended:?}");
        });
    }
    for_each_seed(3, |sim| {
        let limits = (500, LONG_LINGER);
        let (ended, sizes) = ten_batches(&sim, MS, limits, SinkOptions::sequential(), Keys::None);
        assert_eq!((ended, sizes), (SECOND, vec![1; 1_000]));
    });
}

#[test]
fn a_group_of_as_many_as_may_be_in_flight_does_not_wait_for_more() {
    for_each_seed(10, |sim| {
        let options = SinkOptions::concurrent().concurrency(n(50)).prefetch(1_000);
        let limits = (500, LONG_LINGER);
        let (ended, sizes) = ten_batches(&sim, 5 * MS, limits, options, Keys::None);
        assert_eq!((ended, sizes), (100 * MS, vec![50; 20]));
    });
}

#[test]
fn a_group_that_waits_goes_when_fewer_may_be_in_flight() {
    for_each_seed(10, |sim| {
        let groups = Groups::default();
        let mut sink = slow(&sim, &groups, Duration::ZERO);
        (sink.max, sink.linger) = (100, LONG_LINGER);
        let (handle, _) = start(&sim, 0..10, sink, SinkOptions::concurrent());
        sim.advance(SECOND);
        assert!(groups.lock().unwrap().is_empty());
        handle.set_concurrency(n(10));
        sim.advance(MS);
        assert_eq!(updates(&groups), [(0..10).collect::<Vec<_>>()]);
        stop(&sim, &handle);
    });
}

#[test]
fn a_batch_sink_waits_for_retries_to_join_and_no_longer() {
    for_each_seed(20, |sim| {
        let groups = Groups::default();
        let (clock, noted) = (sim.clone(), Arc::clone(&groups));
        let mut sink = by(move |group| {
            note(&noted, &clock, &group);
            Box::pin(async move {
                for lease in group {
                    match lease.delivery().attempt().get() {
                        1 => lease.fail("again"),
                        _ => lease.finish(),
                    };
                }
                Ok(())
            })
        });
        (sink.max, sink.linger) = (500, LONG_LINGER);
        let supplier = ScriptedSupplier::new(&sim).batch(0..3);
        let handle = Runner::with_sink(runtime(&sim), supplier, sink)
            .sink(SinkOptions::batch())
            .policy(|failure: Failure<u32>| Verdict::Retry {
                after: SECOND * (1 + *failure.update),
            })
            .start();
        sim.advance(10 * SECOND);
        let expected = [(Duration::ZERO, vec![0, 1, 2]), (3 * SECOND, vec![0, 1, 2])];
        assert_eq!(*groups.lock().unwrap(), expected);
        assert_eq!(stop(&sim, &handle).counters.finished, 3);
    });
}

#[test]
fn a_policy_that_takes_its_time_holds_no_other_group_back() {
    for mode in [SinkOptions::batch().any(), SinkOptions::concurrent().any()] {
        for_each_seed(20, |sim| {
            let groups = Groups::default();
            let (clock, noted) = (sim.clone(), Arc::clone(&groups));
            let mut sink = by(move |group| {
                note(&noted, &clock, &group);
                Box::pin(async move {
                    for lease in group {
                        match *lease {
                            0 => lease.fail("slowly"),
                            _ => lease.finish(),
                        };
                    }
                    Ok(())
                })
            });
            sink.max = 1;
            let supplier = ScriptedSupplier::new(&sim).batch(0..3);
            let clock = sim.clone();
            let handle = Runner::with_sink(runtime(&sim), supplier, sink)
                .sink(mode.clone())
                .policy(move |_: Failure<u32>| {
                    let sim = clock.clone();
                    async move {
                        sim.sleep(10 * SECOND).await;
                        Verdict::Skip
                    }
                })
                .start();
            sim.advance(SECOND);
            assert_eq!(updates(&groups), [[0], [1], [2]]);
            stop(&sim, &handle);
        });
    }
}

#[test]
fn updates_that_never_reach_the_sink_hold_no_group_back() {
    quiet();
    for_each_seed(20, |sim| {
        let groups = Groups::default();
        let sink = slow(&sim, &groups, SECOND);
        let supplier = ScriptedSupplier::new(&sim).batch(0..100);
        // Some before others, and the last ones.
        let handle = Runner::with_sink(runtime(&sim), supplier, sink)
            .sink(SinkOptions::batch())
            .sequentialize(|update| {
                assert!(update % 10 != 0 && *update < 90, "no key");
                [Key::chat((*update).into())]
            })
            .policy(|_: Failure<u32>| Verdict::Skip)
            .start();
        sim.advance(MS);
        let expected: Vec<u32> = (0..90).filter(|update| update % 10 != 0).collect();
        assert_eq!(updates(&groups), [expected]);
        let report = stop(&sim, &handle);
        assert_eq!(
            (report.counters.panicked, report.counters.finished),
            (19, 81)
        );
    });
}

#[test]
fn a_late_handler_that_goes_on_holds_no_group_back() {
    for_each_seed(20, |sim| {
        let kept: Arc<Mutex<Vec<Lease<u32>>>> = Arc::default();
        let groups = Groups::default();
        let (clock, noted, keep) = (sim.clone(), Arc::clone(&groups), Arc::clone(&kept));
        let sink = by(move |group| {
            note(&noted, &clock, &group);
            keep.lock().unwrap().extend(group);
            Box::pin(async { Ok(()) })
        });
        let options = SinkOptions::concurrent()
            .concurrency(n(2))
            .timeout(SECOND)
            .detach_after_timeout(None);
        let (handle, script) = start(&sim, 0..4, sink, options);
        sim.advance(1_500 * MS);
        assert_eq!(updates(&groups), [[0, 1], [2, 3]]);
        let leases: Vec<Lease<u32>> = std::mem::take(&mut *kept.lock().unwrap());
        for lease in leases {
            assert!(lease.finish());
        }
        script.push(Step::Batch(vec![4, 5]));
        sim.advance(500 * MS);
        assert_eq!(updates(&groups), [[0, 1], [2, 3], [4, 5]]);
        sim.block_on(handle.stop_within(Duration::ZERO)).unwrap();
    });
}

// backpressure

/// Keeps every lease that it gets.
fn keeping(
    kept: &Arc<Mutex<Vec<Lease<u32>>>>,
) -> By<impl FnMut(Vec<Lease<u32>>) -> Handled + use<>> {
    let kept = Arc::clone(kept);
    by(move |group| {
        kept.lock().unwrap().extend(group);
        Box::pin(async { Ok(()) })
    })
}

#[test]
fn a_lease_that_outlives_its_call_holds_its_slot() {
    for_each_seed(20, |sim| {
        let kept = Arc::default();
        let options = SinkOptions::concurrent().concurrency(n(4)).prefetch(2);
        let (handle, script) = start(&sim, 0..20, keeping(&kept), options);
        sim.advance(SECOND);
        let held = |kept: &Mutex<Vec<Lease<u32>>>| -> Vec<u32> {
            kept.lock().unwrap().iter().map(|lease| **lease).collect()
        };
        assert_eq!(held(&kept), [0, 1, 2, 3]);
        assert_eq!(handle.size(), 4);
        let running = |held: &runner_core::InFlight<u32>| held.progress == Progress::Running;
        assert_eq!(
            handle
                .in_flight()
                .iter()
                .filter(|held| running(held))
                .count(),
            4
        );
        // It fetched no more than fits.
        let supplied: usize = script.calls().iter().filter_map(|call| call.answered).sum();
        assert_eq!(supplied, 6);

        let first = kept.lock().unwrap().remove(0);
        assert!(first.finish());
        sim.advance(SECOND);
        assert_eq!(held(&kept), [1, 2, 3, 4]);
        let leases = std::mem::take(&mut *kept.lock().unwrap());
        drop(leases);
        sim.advance(SECOND);
        assert_eq!(handle.stats().counters.finished, 1);
        assert_eq!(handle.stats().counters.failed, 4);
        sim.block_on(handle.stop_within(Duration::ZERO)).unwrap();
    });
}

#[test]
fn a_batch_sink_fetches_only_when_every_lease_is_settled() {
    for_each_seed(20, |sim| {
        let kept = Arc::default();
        let supplier = FakeApi::of_ids([7, 8, 9]).runtime(runtime(&sim));
        let kept_too = Arc::clone(&kept);
        struct Keep(Arc<Mutex<Vec<Lease<i64>>>>);
        impl UpdateSink<i64> for Keep {
            type Error = BoxError;
            async fn handle(&mut self, group: Vec<Lease<i64>>) -> Result<(), BoxError> {
                self.0.lock().unwrap().extend(group);
                Ok(())
            }
        }
        let handle = Bot::with_sink(supplier.clone(), BoxSink::new(Keep(kept_too)))
            .sink(SinkOptions::batch())
            .into_runner(runtime(&sim))
            .start();
        sim.advance(100 * SECOND);
        let settle = |kept: &Mutex<Vec<Lease<i64>>>| kept.lock().unwrap().pop().unwrap().finish();
        assert!(settle(&kept) && settle(&kept));
        sim.advance(100 * SECOND);
        assert_eq!(supplier.requests().len(), 1);
        assert_eq!(supplier.unconfirmed(), 3);
        assert!(settle(&kept));
        sim.advance(MS);
        assert_eq!(supplier.requests().len(), 2);
        assert_eq!(supplier.unconfirmed(), 0);
        assert_eq!(sim.block_on(handle.stop()).unwrap().counters.finished, 3);
    });
}

// failures

#[test]
fn a_call_that_fails_fails_what_it_has_not_settled() {
    for_each_seed(20, |sim| {
        let mut calls = 0;
        let sink = by(move |group| {
            calls += 1;
            let first_call = calls == 1;
            Box::pin(async move {
                for lease in group {
                    match *lease {
                        0 => assert!(lease.finish()),
                        1 if first_call => assert!(lease.fail("only this one")),
                        _ if first_call => return Err("disk full".into()),
                        _ => assert!(lease.finish()),
                    }
                }
                Ok(())
            })
        });
        let seen = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&seen);
        let supplier = ScriptedSupplier::new(&sim).batch(0..4);
        let handle = Runner::with_sink(runtime(&sim), supplier, sink.together(4))
            .policy(move |failure: Failure<u32>| {
                let Cause::Error(error) = &failure.cause else {
                    panic!("{:?}", failure.cause);
                };
                let source = error.source().map(ToString::to_string);
                told.lock()
                    .unwrap()
                    .push((*failure.update, error.to_string(), source));
                Verdict::Retry { after: SECOND }
            })
            .start();
        sim.advance(5 * SECOND);
        let report = stop(&sim, &handle);
        assert_eq!(report.counters.finished, 4);
        assert_eq!(report.counters.retried, 3);
        let mut seen = std::mem::take(&mut *seen.lock().unwrap());
        seen.sort();
        let whole = "the sink could not handle a group of 4 updates".to_owned();
        let disk = Some("disk full".to_owned());
        let expected = [
            (1, "only this one".to_owned(), None),
            (2, whole.clone(), disk.clone()),
            (3, whole, disk),
        ];
        assert_eq!(seen, expected);
    });
}

#[test]
fn a_lease_that_is_dropped_is_never_silence() {
    for_each_seed(20, |sim| {
        let late = Arc::new(Mutex::new(None));
        let keep = Arc::clone(&late);
        let sink = by(move |mut group| {
            // 0 outlives the call, 1 is dropped.
            *keep.lock().unwrap() = Some(group.remove(0));
            Box::pin(async { Ok(()) })
        });
        let supplier = ScriptedSupplier::new(&sim).batch([0, 1]);
        let handle = Runner::with_sink(runtime(&sim), supplier, sink.together(2))
            .policy(|failure: Failure<u32>| {
                let Cause::Error(error) = &failure.cause else {
                    panic!("{:?}", failure.cause);
                };
                assert!(matches!(error.downcast_ref(), Some(SinkError::Forgotten)));
                Verdict::Skip
            })
            .start();
        sim.advance(SECOND);
        assert_eq!(handle.stats().counters.failed, 1);
        drop(late.lock().unwrap().take());
        sim.advance(SECOND);
        assert_eq!(stop(&sim, &handle).counters.failed, 2);
    });
}

#[test]
fn a_panic_costs_its_group_only() {
    quiet();
    for_each_seed(20, |sim| {
        let groups = Groups::default();
        let (clock, noted) = (sim.clone(), Arc::clone(&groups));
        let sink = by(move |mut group| {
            note(&noted, &clock, &group);
            match *group[0] {
                0 => panic!("at once"),
                1 => Box::pin(async move {
                    group.remove(0).finish();
                    panic!("later")
                }),
                _ => Box::pin(async move {
                    group.into_iter().for_each(|lease| {
                        lease.finish();
                    });
                    Ok(())
                }),
            }
        });
        let (handle, script) = start(&sim, [0, 10], sink.together(2), SinkOptions::batch());
        script.push(Step::Batch(vec![1, 11]));
        script.push(Step::Batch(vec![2, 12]));
        sim.advance(SECOND);
        let report = stop(&sim, &handle);
        assert_eq!(updates(&groups), [[0, 10], [1, 11], [2, 12]]);
        assert_eq!(report.counters.panicked, 3);
        assert_eq!(report.counters.finished, 3);
    });
}

#[test]
fn a_sink_that_panics_when_it_is_asked_for_its_limits_fails_its_updates() {
    quiet();
    for_each_seed(20, |sim| {
        let mut sink = slow(&sim, &Groups::default(), SECOND);
        sink.max = 0;
        let (handle, _) = start(&sim, 0..5, sink, SinkOptions::concurrent());
        sim.advance(SECOND);
        assert_eq!(stop(&sim, &handle).counters.panicked, 5);
    });
}

// timeouts

#[test]
fn a_timeout_revokes_one_lease_and_leaves_the_call_to_the_others() {
    for_each_seed(20, |sim| {
        let clock = sim.clone();
        let sink = by(move |group| {
            let sim = clock.clone();
            Box::pin(async move {
                for lease in &group {
                    if **lease != 0 {
                        assert!(lease.delivery().extend(20 * SECOND));
                    }
                }
                sim.sleep(15 * SECOND).await;
                for lease in group {
                    let revoked = *lease == 0;
                    assert_eq!(lease.is_revoked(), revoked);
                    assert_eq!(lease.finish(), !revoked);
                }
                Ok(())
            })
        });
        let options = SinkOptions::concurrent().timeout(10 * SECOND);
        let (handle, _) = start(&sim, 0..3, sink.together(3), options);
        sim.advance(16 * SECOND);
        let report = stop(&sim, &handle);
        assert_eq!(report.counters.timed_out, 1);
        assert_eq!(report.counters.finished, 2);
    });
}

/// Says that it was dropped.
struct Told(Arc<Mutex<Vec<Duration>>>, SimRuntime);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.lock().unwrap().push(self.1.elapsed());
    }
}

/// Calls that never end, and when they were dropped.
fn hanging(
    sim: &SimRuntime,
    dropped: &Arc<Mutex<Vec<Duration>>>,
) -> By<impl FnMut(Vec<Lease<u32>>) -> Handled + Send + use<>> {
    let (sim, dropped) = (sim.clone(), Arc::clone(dropped));
    by(move |group| {
        let told = Told(Arc::clone(&dropped), sim.clone());
        Box::pin(async move {
            let _held = (told, group);
            std::future::pending().await
        })
    })
}

#[test]
fn a_call_whose_updates_have_all_timed_out_is_dropped_and_the_next_one_comes() {
    for_each_seed(20, |sim| {
        let dropped = Arc::default();
        let options = SinkOptions::batch().timeout(10 * SECOND);
        let (handle, script) = start(&sim, 0..3, hanging(&sim, &dropped).together(3), options);
        script.push(Step::Batch(vec![3]));
        sim.advance(25 * SECOND);
        assert_eq!(*dropped.lock().unwrap(), [10 * SECOND, 20 * SECOND]);
        assert_eq!(stop(&sim, &handle).counters.timed_out, 4);
    });
}

// the end of a run

#[test]
fn a_stop_hands_over_what_is_held_and_waits_for_no_group_to_fill_up() {
    for_each_seed(50, |sim| {
        let groups = Groups::default();
        let mut sink = slow(&sim, &groups, SECOND);
        (sink.max, sink.linger) = (10, LONG);
        let supplier = ScriptedSupplier::new(&sim).batch([0, 1, 10]);
        // 10 waits for 0, whose group waits to fill up.
        let handle = Runner::with_sink(runtime(&sim), supplier, sink)
            .sequentialize(|update| [Key::chat((update % 10).into())])
            .start();
        sim.advance(5 * SECOND);
        assert!(groups.lock().unwrap().is_empty());
        let report = stop(&sim, &handle);
        assert_eq!(updates(&groups), [vec![0, 1], vec![10]]);
        assert_eq!(report.counters.finished, 3);
        assert_eq!(sim.elapsed(), 7 * SECOND);
    });
}

#[test]
fn an_idle_sink_stops_at_once_and_is_used_again_after_a_restart() {
    for_each_seed(20, |sim| {
        let groups = Groups::default();
        let sink = slow(&sim, &groups, SECOND);
        let (handle, script) = start(&sim, [], sink, SinkOptions::concurrent());
        sim.advance(SECOND);
        assert_eq!(stop(&sim, &handle).counters.supplied, 0);
        assert_eq!(sim.elapsed(), SECOND);
        handle.start().unwrap();
        script.push(Step::Batch(vec![1]));
        sim.advance(SECOND);
        assert_eq!(stop(&sim, &handle).counters.finished, 1);
        assert_eq!(updates(&groups), [[1]]);
    });
}

#[test]
fn stop_within_drops_the_call_and_lists_what_was_abandoned() {
    for_each_seed(50, |sim| {
        let dropped = Arc::default();
        let sink = hanging(&sim, &dropped).together(2);
        let options = SinkOptions::concurrent().concurrency(n(4));
        // 0 and 1 are in a call, 2 and 3 wait for the next one, 4 has no slot.
        let (handle, _) = start(&sim, 0..5, sink, options);
        sim.advance(SECOND);
        let report = sim.block_on(handle.stop_within(2 * SECOND)).unwrap();
        assert_eq!(sim.elapsed(), 3 * SECOND);
        assert_eq!(*dropped.lock().unwrap(), [3 * SECOND]);
        assert_eq!(report.counters.abandoned, 5);
        let abandoned = report.abandoned.iter();
        let abandoned: Vec<_> = abandoned
            .map(|it| (*it.update, it.started, it.fate))
            .collect();
        let again = Fate::Redelivered;
        let expected = [(0, true), (1, true), (2, true), (3, true), (4, false)];
        assert_eq!(
            abandoned,
            expected.map(|(update, started)| (update, started, again))
        );
        // Nothing is handed over any more, although the sink would be free.
        sim.advance(100 * SECOND);
        assert_eq!(dropped.lock().unwrap().len(), 1);
    });
}

#[test]
fn settling_after_the_report_changes_nothing() {
    for_each_seed(20, |sim| {
        let kept = Arc::default();
        let (handle, _) = start(&sim, [0], keeping(&kept), SinkOptions::concurrent());
        sim.advance(SECOND);
        let report = sim.block_on(handle.stop_within(SECOND)).unwrap();
        assert_eq!(report.counters.abandoned, 1);
        let lease: Lease<u32> = kept.lock().unwrap().pop().unwrap();
        assert!(lease.is_revoked());
        assert!(lease.delivery().is_stopping());
        assert!(!lease.finish());
        assert_eq!(handle.stats().counters, report.counters);
    });
}

#[test]
fn dropping_a_run_drops_the_call() {
    for_each_seed(20, |sim| {
        let dropped = Arc::default();
        let supplier = ScriptedSupplier::new(&sim).batch([0]);
        let mut runner = Runner::with_sink(runtime(&sim), supplier, hanging(&sim, &dropped));
        let handle = runner.handle();
        let ended = sim.block_on(sim.timeout(SECOND, runner.run()));
        assert!(ended.is_none());
        sim.advance(MS);
        assert_eq!(*dropped.lock().unwrap(), [SECOND]);
        let error = sim.block_on(handle.stopped()).unwrap_err();
        assert!(matches!(error, RunError::Dropped { .. }));
        assert_eq!(error.report().counters.abandoned, 1);
    });
}

#[test]
fn a_runtime_that_is_shut_down_ends_the_run() {
    for_each_seed(20, |sim| {
        let dropped = Arc::default();
        let (handle, _) = start(
            &sim,
            [0],
            hanging(&sim, &dropped),
            SinkOptions::concurrent(),
        );
        sim.advance(SECOND);
        sim.shut_down();
        assert_eq!(dropped.lock().unwrap().len(), 1);
        let error = futures::executor::block_on(handle.stopped()).unwrap_err();
        assert!(matches!(error, RunError::RuntimeGone { .. }));
        assert_eq!(error.report().counters.abandoned, 1);
    });
}

#[test]
fn a_policy_that_stops_leaves_its_update_unsettled() {
    for_each_seed(20, |sim| {
        let sink = by(|group| {
            Box::pin(async move {
                let failing = group.into_iter().find(|lease| **lease == 1);
                failing
                    .is_none()
                    .then_some(())
                    .ok_or_else(|| "no more".into())
            })
        });
        let supplier = ScriptedSupplier::new(&sim).batch([1]).rewinding();
        let script = supplier.script();
        let handle = Runner::with_sink(runtime(&sim), supplier, sink)
            .policy(|_: Failure<u32>| Verdict::Stop)
            .start();
        let error = sim.block_on(handle.stopped()).unwrap_err();
        assert!(matches!(error, RunError::Policy { .. }));
        assert_eq!(error.report().abandoned[0].fate, Fate::Redelivered);
        assert_eq!(script.closes(), [0]);
    });
}

/// The one who finishes a lease learns the truth, even at the end of the run.
#[test]
fn a_lease_that_is_finished_before_the_end_is_not_abandoned() {
    for_each_seed(50, |sim| {
        let leases = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&leases);
        let sink = by(move |group| {
            kept.lock().unwrap().extend(group);
            Box::pin(async { Ok(()) })
        });
        let (handle, _) = start(&sim, [1], sink, SinkOptions::concurrent());
        sim.run_until_idle();
        let lease = leases.lock().unwrap().pop().unwrap();
        let stopped = handle.stop_within(Duration::ZERO);
        assert!(lease.finish());
        let report = sim.block_on(stopped).unwrap();
        assert_eq!((report.counters.finished, report.abandoned.len()), (1, 0));
    });
}

fn key(update: &u32) -> Option<u32> {
    update.is_multiple_of(3).then_some(update % 7)
}

/// Whatever a sink does, and whenever it is stopped: every update is settled once, in order of its key, by
/// one call at a time.
#[test]
fn every_update_is_settled_once_whatever_happens() {
    quiet();
    for_each_seed(300, |sim| {
        let finished = Arc::new(Mutex::new(Vec::new()));
        let (clock, done) = (sim.clone(), Arc::clone(&finished));
        let max = 1 + sim.below(8) as usize;
        // A panic would be taken for one of the sink.
        let broken = Arc::new(Mutex::new(Vec::new()));
        // Held by the call under way.
        let (turn, mut last) = (Arc::new(()), BTreeMap::new());
        let violations = Arc::clone(&broken);
        let mut sink = by(move |group| {
            let mut broken = violations.lock().unwrap();
            if Arc::strong_count(&turn) > 1 {
                broken.push("two calls at once".to_owned());
            }
            if !(1..=max).contains(&group.len()) {
                broken.push(format!("a group of {}, not {max}", group.len()));
            }
            for lease in &group {
                if let Some(key) = key(lease)
                    && lease.delivery().attempt().get() == 1
                    && let Some(before) = last.insert(key, **lease)
                    && before > **lease
                {
                    broken.push(format!("{} after {before}", **lease));
                }
            }
            drop(broken);
            let turn = Arc::clone(&turn);
            let (sim, done) = (clock.clone(), Arc::clone(&done));
            let delay = MS * u32::try_from(sim.below(3_000)).unwrap();
            Box::pin(async move {
                let _turn = turn;
                let mut late = Vec::new();
                sim.sleep(delay / 2).await;
                for lease in group {
                    let update = *lease;
                    match sim.below(20) {
                        0 => drop(lease),
                        1 => drop(lease.fail("by itself")),
                        2 => return Err("the group".into()),
                        3 => panic!("on purpose"),
                        4 | 5 => late.push(lease),
                        _ if lease.finish() => done.lock().unwrap().push(update),
                        _ => {}
                    }
                }
                let again = sim.clone();
                runner_core::Runtime::spawn(
                    &again,
                    Box::pin(async move {
                        sim.sleep(delay).await;
                        for lease in late {
                            let update = *lease;
                            if lease.finish() {
                                done.lock().unwrap().push(update);
                            }
                        }
                    }),
                );
                Ok(())
            })
        });
        sink.max = max;
        sink.linger = MS * sim.below(500) as u32;
        let mut supplier = ScriptedSupplier::new(&sim);
        let mut supplied = 0;
        while supplied < 60 {
            let count = 1 + sim.below(10) as u32;
            supplier = supplier
                .batch(supplied..supplied + count)
                .wait(MS * sim.below(900) as u32);
            supplied += count;
        }
        let slots = n(1 + sim.below(12) as usize);
        let concurrent = SinkOptions::concurrent().concurrency(slots);
        let options = match sim.below(6) {
            0 => SinkOptions::sequential().any(),
            1 => SinkOptions::batch().concurrency(slots).any(),
            2 => concurrent.detach_after_timeout(None).any(),
            _ => concurrent.any(),
        };
        let options = options.timeout(2 * SECOND);
        let chance = sim.clone();
        let handle = Runner::with_sink(runtime(&sim), supplier, sink)
            .sink(options)
            .sequentialize(|update| key(update).map(|key| Key::chat(key.into())))
            .policy(move |_: Failure<u32>| match chance.below(3) {
                0 => Verdict::Retry { after: SECOND },
                _ => Verdict::Skip,
            })
            .start();
        sim.advance(MS * sim.below(10_000) as u32);
        match sim.below(4) {
            0 => {
                handle.pause();
                sim.advance(MS * sim.below(5_000) as u32);
                handle.resume();
            }
            1 => handle.set_concurrency(n(1 + sim.below(12) as usize)),
            _ => {}
        }
        sim.advance(MS * sim.below(10_000) as u32);
        if sim.below(2) == 0 {
            // Whatever happened, no update is stranded.
            sim.advance(10_000 * SECOND);
            assert_eq!((handle.size(), handle.in_flight().len()), (0, 0));
            assert_eq!(handle.stats().counters.settled(), u64::from(supplied));
        }
        let limit = match sim.below(2) {
            0 => LONG,
            _ => MS * sim.below(3_000) as u32,
        };
        let asked = sim.elapsed();
        let report = sim.block_on(handle.stop_within(limit)).unwrap();
        assert!(sim.elapsed() - asked <= limit.saturating_add(SECOND));
        let counters = report.counters;
        assert_eq!(counters.settled(), counters.supplied);
        assert_eq!(counters.abandoned, report.abandoned.len() as u64);
        sim.advance(LONG);
        // A lease says whether its update counts as finished, even at the instant of the timeout or of the
        // end.
        let mut finished = finished.lock().unwrap().clone();
        assert_eq!(finished.len() as u64, counters.finished);
        finished.sort_unstable();
        finished.dedup();
        assert_eq!(finished.len() as u64, counters.finished, "finished twice");
        assert_eq!(*broken.lock().unwrap(), Vec::<String>::new());
    });
}

#[test]
fn a_boxed_sink_asks_the_sink_for_its_limits() {
    let mut sink = by(|_| Box::pin(async { Ok(()) }));
    (sink.max, sink.linger) = (7, SECOND);
    let boxed = BoxSink::new(sink);
    assert_eq!(boxed.max_group(), n(7));
    assert_eq!(boxed.linger(), SECOND);
}
