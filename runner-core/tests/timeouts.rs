//! How long a handler may take, and what happens then.

mod common;

use std::{
    future::poll_fn,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Wake, Waker},
    time::{Duration, Instant},
};

use common::{LONG, MS, SECOND, always, n, runtime, start};
use runner_core::{
    BoxFuture, Cause, Delivery, Failure, Key, Progress, Runner, RunnerHandle, Runtime, RuntimeExt,
    SinkOptions, Verdict,
    testing::{End, Log, Plan, Recorder, ScriptedSupplier, SimRuntime, for_each_seed},
};

/// Two slots, and two seconds for every handler.
fn options() -> SinkOptions {
    SinkOptions::concurrent()
        .concurrency(n(2))
        .timeout(2 * SECOND)
}

fn detaching(max: Option<usize>) -> SinkOptions {
    options().detach_after_timeout(max.map(n))
}

/// One update with this plan; returns when and how it ended.
fn one(sim: &SimRuntime, plan: Plan, options: SinkOptions<impl Sized>) -> (Duration, End) {
    let began = sim.elapsed();
    let recorder = always(sim, plan);
    let log = recorder.log();
    let (handle, _) = start(sim, [0], recorder, options);
    sim.advance(LONG);
    assert_eq!(handle.stats().counters.settled(), 1);
    let entry = &log.entries()[0];
    (entry.ended.unwrap() - began, entry.end.unwrap())
}

type Answers<T> = Arc<Mutex<Vec<T>>>;

fn answers<T>() -> Answers<T> {
    Arc::default()
}

fn taken<T>(answers: &Answers<T>) -> Vec<T> {
    std::mem::take(&mut answers.lock().unwrap())
}

/// Runs one update through a closure that is given the simulation.
fn handle_with<F, Fut>(
    sim: &SimRuntime,
    options: SinkOptions<impl Sized>,
    handler: F,
) -> RunnerHandle<u32>
where
    F: Fn(SimRuntime, Delivery<u32>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send,
{
    let supplier = ScriptedSupplier::new(sim).batch([0]);
    Runner::for_each_with(runtime(sim), supplier, sim.clone(), handler)
        .sink(options)
        .start()
}

// Cancelling

#[test]
fn a_handler_is_dropped_when_its_time_is_over() {
    for_each_seed(20, |sim| {
        assert_eq!(
            one(&sim, Plan::hang(), options()),
            (2 * SECOND, End::Dropped)
        );
        let (at, end) = one(&sim, Plan::ok().sleep(2 * SECOND - MS), options());
        assert_eq!((at, end), (2 * SECOND - MS, End::Ok));
    });
}

/// Polls its tasks with a new waker each time. Only the last one is of use, as after a future has
/// moved to another task.
#[derive(Debug)]
struct Moving(SimRuntime);

impl Runtime for Moving {
    fn spawn(&self, mut task: BoxFuture<'static>) {
        let polls = Arc::new(AtomicUsize::new(0));
        self.0.spawn(Box::pin(poll_fn(move |cx| {
            let waker = Waker::from(Arc::new(Moved {
                poll: polls.fetch_add(1, Ordering::Relaxed) + 1,
                polls: Arc::clone(&polls),
                waker: cx.waker().clone(),
            }));
            task.as_mut().poll(&mut Context::from_waker(&waker))
        })));
    }

    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static> {
        self.0.sleep_until(deadline)
    }

    fn now(&self) -> Instant {
        self.0.now()
    }
}

struct Moved {
    poll: usize,
    polls: Arc<AtomicUsize>,
    waker: Waker,
}

impl Wake for Moved {
    fn wake(self: Arc<Self>) {
        if self.polls.load(Ordering::Relaxed) == self.poll {
            self.waker.wake_by_ref();
        }
    }
}

#[test]
fn a_handler_that_is_polled_by_another_task_is_woken_there() {
    for_each_seed(20, |sim| {
        let supplier = ScriptedSupplier::new(&sim).batch(0..6_u32);
        let sleeper = sim.clone();
        let handle = Runner::for_each(
            Arc::new(Moving(sim.clone())),
            supplier,
            move |_: Delivery<u32>| {
                let sleeper = sleeper.clone();
                async move {
                    sleeper.sleep(SECOND).await;
                    std::future::pending::<()>().await;
                }
            },
        )
        .sink(options())
        .start();
        sim.advance(7 * SECOND);
        assert_eq!(handle.stats().counters.timed_out, 6);
    });
}

#[test]
fn a_time_out_releases_slot_and_key_together() {
    for_each_seed(20, |sim| {
        let supplier = ScriptedSupplier::new(&sim).batch(0..4_u32);
        let recorder = Recorder::new(&sim, |update: &Delivery<u32>| match **update {
            0 | 1 => Plan::hang(),
            _ => Plan::ok().sleep(SECOND),
        });
        let log = recorder.log();
        let handle = Runner::new(runtime(&sim), supplier, recorder)
            .sink(options())
            // 0 and 2 share a chat, 3 waits for a slot.
            .sequentialize(|update: &u32| [Key::chat(i64::from(*update % 2) + i64::from(*update / 3))])
            .start();
        sim.advance(10 * SECOND);
        let entries = log.entries();
        assert_eq!(entries.len(), 4);
        for entry in &entries[..2] {
            assert_eq!(
                (entry.ended, entry.end),
                (Some(2 * SECOND), Some(End::Dropped))
            );
        }
        for entry in &entries[2..] {
            assert_eq!(entry.started, 2 * SECOND);
        }
        let counters = handle.stats().counters;
        assert_eq!((counters.timed_out, counters.finished), (2, 2));
    });
}

/// Whichever task runs first, the handler is polled once more before it counts as late.
#[test]
fn a_handler_that_ends_at_the_very_instant_of_its_timeout_is_not_late() {
    for_each_seed(100, |sim| {
        let recorder = always(&sim, Plan::ok().sleep(2 * SECOND));
        let log = recorder.log();
        let (handle, _) = start(&sim, [0], recorder, options());
        sim.advance(10 * SECOND);
        let counters = handle.stats().counters;
        assert_eq!((counters.settled(), counters.finished), (1, 1));
        assert_eq!(log.entries()[0].end, Some(End::Ok));
    });
}

#[test]
fn a_handler_that_does_not_yield_keeps_slot_and_key_and_shows_as_unresponsive() {
    for_each_seed(20, |sim| {
        let supplier = ScriptedSupplier::new(&sim).batch(0..2_u32);
        let recorder = Recorder::new(&sim, |update: &Delivery<u32>| match **update {
            0 => Plan::ok().sleep(SECOND).block(9 * SECOND),
            _ => Plan::ok(),
        });
        let log = recorder.log();
        let handle = Runner::new(runtime(&sim), supplier, recorder)
            .sink(options().workers(n(2)))
            .sequentialize(|_| [Key::chat(1)])
            .start();
        let looks = answers();
        let (seen, looking, clock) = (Arc::clone(&looks), handle.clone(), sim.clone());
        sim.spawn(Box::pin(async move {
            for _ in 0..9 {
                clock.sleep(SECOND).await;
                let progress = looking.in_flight()[0].progress;
                seen.lock().unwrap().push((progress, looking.size()));
            }
        }));
        sim.advance(20 * SECOND);
        let looks = taken(&looks);
        assert_eq!(looks[0], (Progress::Running, 1));
        // At two seconds either comes first.
        assert_eq!(looks[2..], [(Progress::Unresponsive, 1); 7]);
        // It returned after all, and what it did is done.
        assert_eq!(log.finished(), [0, 1]);
        assert_eq!(log.entries()[1].started, 10 * SECOND);
        assert_eq!(handle.stats().counters.finished, 2);
    });
}

/// The command to end comes while they are inside a poll, and is for them alone.
#[test]
fn a_handler_that_returns_after_its_timeout_leaves_nothing_to_its_worker() {
    for_each_seed(20, |sim| {
        let supplier = ScriptedSupplier::new(&sim)
            .batch([0])
            .wait(20 * SECOND)
            .batch([1]);
        let plan = Plan::ok().sleep(SECOND).block(9 * SECOND);
        let recorder = always(&sim, plan);
        let log = recorder.log();
        let handle = Runner::new(runtime(&sim), supplier, recorder)
            .sink(options().workers(n(1)))
            .start();
        sim.advance(LONG);
        assert_eq!(log.finished(), [0, 1]);
        assert_eq!(handle.stats().counters.timed_out, 0);
    });
}

#[test]
fn a_policy_has_its_own_time_when_its_handler_failed_after_its_timeout() {
    for_each_seed(20, |sim| {
        let supplier = ScriptedSupplier::new(&sim).batch([0]);
        let recorder = Recorder::new(&sim, |update: &Delivery<u32>| {
            match update.attempt().get() {
                1 => Plan::fail("late").sleep(SECOND).block(9 * SECOND),
                _ => Plan::ok(),
            }
        });
        let clock = sim.clone();
        let handle = Runner::new(runtime(&sim), supplier, recorder)
            .sink(options())
            .policy(move |failure: Failure<u32>| {
                assert!(matches!(failure.cause, Cause::Error(_)));
                let sleep = clock.sleep(SECOND);
                async move {
                    sleep.await;
                    Verdict::Retry { after: SECOND }
                }
            })
            .start();
        sim.advance(LONG);
        let counters = handle.stats().counters;
        assert_eq!((counters.finished, counters.retried), (1, 1));
    });
}

#[test]
fn one_timer_serves_all_handlers() {
    let sim = SimRuntime::new(1);
    let options = SinkOptions::concurrent().timeout(2 * SECOND);
    let (handle, _) = start(&sim, 0..100, always(&sim, Plan::hang()), options);
    sim.advance(SECOND);
    assert_eq!((handle.size(), sim.timers()), (100, 1));
}

// The clock

#[test]
fn the_clock_starts_when_a_handler_first_waits() {
    for_each_seed(10, |sim| {
        // Ten seconds of computing, and then two seconds for the rest.
        let plan = |rest| Plan::ok().block(10 * SECOND).sleep(rest);
        let (at, end) = one(&sim, plan(2 * SECOND - MS), options());
        assert_eq!((at, end), (12 * SECOND - MS, End::Ok));
        let (at, end) = one(&sim, plan(3 * SECOND), options());
        assert_eq!((at, end), (12 * SECOND, End::Dropped));
    });
}

#[test]
fn a_handler_that_never_waits_never_times_out() {
    for_each_seed(10, |sim| {
        let (at, end) = one(&sim, Plan::ok().block(100 * SECOND), options());
        assert_eq!((at, end), (100 * SECOND, End::Ok));
        assert_eq!(sim.panics(), 0);
    });
}

#[test]
fn waiting_for_a_slot_or_a_key_does_not_count() {
    for_each_seed(20, |sim| {
        let supplier = ScriptedSupplier::new(&sim).batch(0..12_u32);
        let recorder = always(&sim, Plan::ok().sleep(2 * SECOND - MS));
        let log = recorder.log();
        let handle = Runner::new(runtime(&sim), supplier, recorder)
            .sink(options())
            .sequentialize(|update: &u32| [Key::chat(i64::from(update % 3))])
            .start();
        sim.advance(100 * SECOND);
        assert_eq!(log.finished().len(), 12);
        assert_eq!(handle.stats().counters.timed_out, 0);
    });
}

#[test]
fn the_deadline_is_known_from_the_first_wait_to_the_end() {
    let sim = SimRuntime::new(1);
    let seen = answers();
    let log = Arc::clone(&seen);
    let kept: Answers<Delivery<u32>> = answers();
    let keep = Arc::clone(&kept);
    let _handle = handle_with(&sim, options(), move |sim, update| {
        let (log, keep) = (Arc::clone(&log), Arc::clone(&keep));
        async move {
            let note = || log.lock().unwrap().push(update.deadline());
            keep.lock().unwrap().push(update.clone());
            note();
            sim.sleep(SECOND).await;
            note();
            update.extend(5 * SECOND);
            note();
        }
    });
    let began = sim.now();
    sim.advance(10 * SECOND);
    let expected: [Option<Instant>; 3] = [None, Some(began + 2 * SECOND), Some(began + 6 * SECOND)];
    assert_eq!(taken(&seen), expected);
    let kept = taken(&kept);
    assert_eq!((kept[0].deadline(), kept[0].extend(SECOND)), (None, false));
}

// A handler that follows one that has waited: its clock is started with it

/// Handles these one after the other in a single slot; returns how each ended, and when since the
/// last one.
fn in_turn(sim: &SimRuntime, plans: &[Plan], options: SinkOptions) -> Vec<(Duration, End)> {
    let supplier = ScriptedSupplier::new(sim).batch(0..plans.len());
    let plans = plans.to_vec();
    let recorder = Recorder::new(sim, move |update: &Delivery<usize>| plans[**update].clone());
    let log = recorder.log();
    let _handle = Runner::new(runtime(sim), supplier, recorder)
        .sink(options.concurrency(n(1)))
        .start();
    sim.advance(LONG);
    let mut last = Duration::ZERO;
    (log.entries().iter())
        .map(|entry| {
            let ended = entry.ended.unwrap();
            (
                ended - std::mem::replace(&mut last, ended),
                entry.end.unwrap(),
            )
        })
        .collect()
}

#[test]
fn a_follower_that_hangs_is_dropped_when_its_time_is_over() {
    for_each_seed(10, |sim| {
        let plans = [
            Plan::ok().sleep(SECOND),
            Plan::hang(),
            Plan::ok().sleep(2 * SECOND - MS),
            Plan::hang(),
        ];
        let ends = in_turn(&sim, &plans, options());
        let expected = [
            (SECOND, End::Ok),
            (2 * SECOND, End::Dropped),
            (2 * SECOND - MS, End::Ok),
            (2 * SECOND, End::Dropped),
        ];
        assert_eq!(ends, expected);
    });
}

/// Those that have a key take another way through the queue.
#[test]
fn a_follower_with_a_key_that_hangs_is_dropped_when_its_time_is_over() {
    for_each_seed(10, |sim| {
        let supplier = ScriptedSupplier::new(&sim).batch(0..3_u32);
        let recorder = Recorder::new(&sim, |update: &Delivery<u32>| match **update {
            1 => Plan::hang(),
            _ => Plan::ok().sleep(SECOND),
        });
        let log = recorder.log();
        let handle = Runner::new(runtime(&sim), supplier, recorder)
            .sink(options())
            .sequentialize(|_| [Key::chat(1)])
            .start();
        sim.advance(2 * SECOND);
        let deadline = handle.in_flight()[0].update.deadline();
        assert_eq!(deadline, Some(sim.now() + SECOND));
        sim.advance(10 * SECOND);
        let ended: Vec<_> = log.entries().iter().map(|it| (it.ended, it.end)).collect();
        let expected = [
            (Some(SECOND), Some(End::Ok)),
            (Some(3 * SECOND), Some(End::Dropped)),
            (Some(4 * SECOND), Some(End::Ok)),
        ];
        assert_eq!(ended, expected);
    });
}

#[test]
fn the_clock_of_a_follower_starts_when_it_first_waits() {
    for_each_seed(10, |sim| {
        let slow = Plan::ok().block(10 * SECOND);
        let plans = [
            Plan::ok().sleep(SECOND),
            slow.clone().sleep(2 * SECOND - MS),
            slow.clone().sleep(3 * SECOND),
            Plan::ok().sleep(SECOND),
            // It blocks for less than its time, and would be late by what is left of it.
            Plan::ok().block(SECOND).sleep(2 * SECOND - MS),
            slow,
        ];
        let ends = in_turn(&sim, &plans, options());
        let expected = [
            (SECOND, End::Ok),
            (12 * SECOND - MS, End::Ok),
            (12 * SECOND, End::Dropped),
            (SECOND, End::Ok),
            (3 * SECOND - MS, End::Ok),
            (10 * SECOND, End::Ok),
        ];
        assert_eq!(ends, expected);
    });
}

/// It has taken less time than the clocks of runtimes measure, but all that it has.
#[test]
fn a_clock_that_runs_out_before_the_first_wait_is_started_again() {
    for_each_seed(10, |sim| {
        let plans = [
            Plan::ok().sleep(MS / 10),
            Plan::ok().block(MS / 2).sleep(MS / 10),
        ];
        let ends = in_turn(&sim, &plans, options().timeout(MS / 5));
        let expected = [(MS / 10, End::Ok), (MS * 6 / 10, End::Ok)];
        assert_eq!(ends, expected);
    });
}

#[test]
fn a_follower_that_blocks_is_not_late_and_keeps_its_slot() {
    for_each_seed(10, |sim| {
        let recorder = Recorder::new(&sim, |update: &Delivery<u32>| match **update {
            1 => Plan::ok().block(10 * SECOND).sleep(SECOND),
            _ => Plan::ok().sleep(SECOND),
        });
        let log = recorder.log();
        let options = detaching(None).concurrency(n(1));
        let (handle, _) = start(&sim, 0..3, recorder, options);
        sim.advance(20 * SECOND);
        assert_eq!(log.max_concurrency(), 1);
        let counters = handle.stats().counters;
        assert_eq!((counters.finished, counters.detached), (3, 0));
    });
}

// Extending

/// It blocks, and its time is over meanwhile; but nothing has come of that yet. It may be its second
/// attempt, after the first one was late and was told.
#[test]
fn a_late_handler_may_ask_for_more_time_until_it_is_dropped() {
    for_each_seed(10, |sim| {
        let supplier = ScriptedSupplier::new(&sim).batch(0..2_u32);
        let recorder = Recorder::new(&sim, |update: &Delivery<u32>| {
            match (**update, update.attempt().get()) {
                (1, 1) => Plan::hang(),
                _ => (Plan::ok().sleep(SECOND).block(3 * SECOND))
                    .extend(5 * SECOND)
                    .sleep(5 * SECOND - MS),
            }
        });
        let handle = Runner::new(runtime(&sim), supplier, recorder)
            .sink(options().concurrency(n(1)))
            .policy(|failure: Failure<u32>| {
                assert!(matches!(failure.cause, Cause::Timeout));
                match failure.update.attempt().get() {
                    1 => Verdict::Retry { after: MS },
                    _ => Verdict::Skip,
                }
            })
            .start();
        sim.advance(60 * SECOND);
        let counters = handle.stats().counters;
        assert_eq!((counters.finished, counters.retried), (2, 1));
    });
}

/// Another task asks for it at the very instant of the time-out: before the clock, between the clock and
/// the handler, or when the handler has gone.
#[test]
fn a_late_handler_that_was_given_more_time_is_dropped_when_that_is_over() {
    let mut seen = std::collections::HashSet::new();
    for_each_seed(200, |sim| {
        let granted = answers();
        let log = Arc::clone(&granted);
        let handle = handle_with(&sim, options(), move |sim, update| {
            let (clock, log) = (sim.clone(), Arc::clone(&log));
            sim.spawn(Box::pin(async move {
                clock.sleep(2 * SECOND).await;
                log.lock().unwrap().push(update.extend(5 * SECOND));
            }));
            std::future::pending()
        });
        let counters = || handle.stats().counters;
        sim.advance(3 * SECOND);
        let granted = taken(&granted)[0];
        assert_eq!(counters().timed_out, u64::from(!granted));
        sim.advance(3 * SECOND);
        assert_eq!(counters().timed_out, u64::from(!granted));
        sim.advance(SECOND);
        assert_eq!(counters().timed_out, 1);
        seen.insert(granted);
    });
    assert_eq!(seen.len(), 2, "the seeds reach both answers");
}

/// A handler that asks for more time when it is dropped.
struct AsksInDrop {
    update: Delivery<u32>,
    answers: Answers<bool>,
}

impl Drop for AsksInDrop {
    fn drop(&mut self) {
        let answer = self.update.extend(SECOND);
        self.answers.lock().unwrap().push(answer);
    }
}

#[test]
fn a_handler_that_is_being_dropped_is_given_no_more_time() {
    for_each_seed(10, |sim| {
        let seen = answers();
        let log = Arc::clone(&seen);
        let handle = handle_with(&sim, options(), move |_, update| {
            let asks = AsksInDrop {
                update,
                answers: Arc::clone(&log),
            };
            async move {
                std::future::pending::<()>().await;
                drop(asks);
            }
        });
        sim.advance(10 * SECOND);
        assert_eq!(taken(&seen), [false]);
        assert_eq!(handle.stats().counters.timed_out, 1);
    });
}

#[test]
fn more_time_may_be_asked_for_before_the_first_wait() {
    for_each_seed(10, |sim| {
        let (at, end) = one(&sim, Plan::hang().extend(5 * SECOND), options());
        assert_eq!((at, end), (5 * SECOND, End::Dropped));
    });
}

#[test]
fn more_time_may_be_asked_for_again_and_again() {
    for_each_seed(10, |sim| {
        let step = |plan: Plan| plan.sleep(1900 * MS).extend(2 * SECOND);
        let (at, end) = one(&sim, step(step(step(Plan::hang()))), options());
        assert_eq!((at, end), (7700 * MS, End::Dropped));
    });
}

#[test]
fn asking_for_less_than_is_left_changes_nothing() {
    for_each_seed(10, |sim| {
        for less in [Duration::ZERO, MS, SECOND] {
            let plan = Plan::hang().extend(less).sleep(SECOND).extend(less);
            assert_eq!(one(&sim, plan, options()), (2 * SECOND, End::Dropped));
        }
    });
}

#[test]
fn an_unlimited_extension_lasts_for_ever() {
    for_each_seed(10, |sim| {
        let half = LONG / 2;
        for plan in [
            Plan::ok().extend(Duration::MAX).sleep(half),
            Plan::ok().sleep(SECOND).extend(Duration::MAX).sleep(half),
            Plan::ok().extend(Duration::MAX).extend(SECOND).sleep(half),
        ] {
            assert_eq!(one(&sim, plan, options()).1, End::Ok);
        }
    });
}

/// One that was given more time leaves the order of the others as it is.
#[test]
fn an_extension_concerns_one_update_only() {
    for_each_seed(20, |sim| {
        let recorder = Recorder::new(&sim, |update: &Delivery<u32>| match **update {
            1 => Plan::hang().sleep(SECOND).extend(4 * SECOND),
            3 => Plan::hang().sleep(SECOND).extend(2 * SECOND),
            _ => Plan::hang(),
        });
        let log = recorder.log();
        let (_handle, _) = start(&sim, 0..5, recorder, options().concurrency(n(10)));
        sim.advance(10 * SECOND);
        let mut ended: Vec<_> = log
            .entries()
            .iter()
            .map(|entry| (entry.update, entry.ended.unwrap().as_secs()))
            .collect();
        ended.sort_unstable();
        assert_eq!(ended, [(0, 2), (1, 5), (2, 2), (3, 3), (4, 2)]);
    });
}

#[test]
fn a_delivery_that_outlives_its_update_concerns_no_other_one() {
    for_each_seed(10, |sim| {
        let kept: Answers<Delivery<u32>> = answers();
        let keep = Arc::clone(&kept);
        let supplier = ScriptedSupplier::new(&sim)
            .batch([0])
            .wait(SECOND + MS)
            .batch([1]);
        let state = (sim.clone(), keep);
        let handle = Runner::for_each_with(
            runtime(&sim),
            supplier,
            state,
            |(sim, keep), update: Delivery<u32>| async move {
                keep.lock().unwrap().push(update.clone());
                sim.sleep(SECOND).await;
                if *update == 1 {
                    std::future::pending::<()>().await;
                }
            },
        )
        .sink(options().concurrency(n(1)))
        .start();
        sim.advance(2 * SECOND);
        let first = kept.lock().unwrap()[0].clone();
        assert_eq!(
            (*first, first.deadline(), first.extend(LONG)),
            (0, None, false)
        );
        sim.advance(2 * SECOND);
        assert_eq!(handle.stats().counters.timed_out, 1);
    });
}

#[test]
fn it_is_too_late_to_ask_for_more_time_after_the_time_out() {
    for_each_seed(10, |sim| {
        let seen = answers();
        let log = Arc::clone(&seen);
        // A task of its own outlives the handler.
        let handle = handle_with(&sim, options(), move |sim, update| {
            let (log, clock, extended) = (Arc::clone(&log), sim.clone(), update.clone());
            async move {
                sim.spawn(Box::pin(async move {
                    for _ in 0..3 {
                        let answer = extended.extend(Duration::ZERO);
                        log.lock().unwrap().push((clock.elapsed(), answer));
                        clock.sleep(1500 * MS).await;
                    }
                }));
                std::future::pending::<()>().await;
                drop(update);
            }
        });
        sim.advance(10 * SECOND);
        let expected = [
            (Duration::ZERO, true),
            (1500 * MS, true),
            (3 * SECOND, false),
        ];
        assert_eq!(taken(&seen), expected);
        assert_eq!(handle.stats().counters.timed_out, 1);
    });
}

#[test]
fn without_a_timeout_there_is_nothing_to_extend() {
    let sim = SimRuntime::new(1);
    let seen = answers();
    let log = Arc::clone(&seen);
    let _handle = handle_with(&sim, SinkOptions::concurrent(), move |sim, update| {
        let log = Arc::clone(&log);
        async move {
            for _ in 0..2 {
                let answer = update.extend(SECOND);
                log.lock().unwrap().push((answer, update.deadline()));
                sim.sleep(SECOND).await;
            }
        }
    });
    sim.advance(10 * SECOND);
    assert_eq!(taken(&seen), [(true, None), (true, None)]);
}

#[test]
fn an_update_that_is_not_being_handled_has_no_time_to_extend() {
    let sim = SimRuntime::new(1);
    let supplier = ScriptedSupplier::new(&sim).batch(0..3_u32);
    let recorder = Recorder::new(&sim, |update: &Delivery<u32>| match **update {
        2 => Plan::fail("again"),
        _ => Plan::hang(),
    });
    let handle = Runner::new(runtime(&sim), supplier, recorder)
        .sink(options())
        .sequentialize(|update: &u32| [Key::chat(i64::from(update / 2))])
        .policy(|_: Failure<u32>| Verdict::Retry { after: SECOND })
        .start();
    sim.advance(MS);
    let extended: Vec<bool> = handle
        .in_flight()
        .iter()
        .map(|held| held.update.extend(SECOND))
        .collect();
    // Running, waiting for its chat, waiting for its retry.
    assert_eq!(extended, [true, false, false]);
}

// Extreme timeouts

#[test]
fn a_timeout_beyond_the_clock_never_comes() {
    for_each_seed(5, |sim| {
        let options = options().timeout(Duration::MAX);
        assert_eq!(one(&sim, Plan::ok().sleep(LONG / 2), options).1, End::Ok);
    });
}

#[test]
fn an_extension_of_a_timeout_beyond_the_clock_does_not_shorten_it() {
    let sim = SimRuntime::new(1);
    let seen = answers();
    let log = Arc::clone(&seen);
    let handle = handle_with(
        &sim,
        options().timeout(Duration::MAX),
        move |sim, update| {
            let log = Arc::clone(&log);
            async move {
                assert!(update.extend(SECOND));
                sim.sleep(MS).await;
                assert!(update.extend(SECOND));
                log.lock().unwrap().push(update.deadline());
                sim.sleep(100 * SECOND).await;
            }
        },
    );
    sim.advance(LONG);
    assert_eq!(taken(&seen), [None]);
    assert_eq!(handle.stats().counters.finished, 1);
}

#[test]
fn a_timeout_of_zero_leaves_time_for_one_poll() {
    for_each_seed(20, |sim| {
        let options = || options().timeout(Duration::ZERO);
        assert_eq!(one(&sim, Plan::ok(), options()), (Duration::ZERO, End::Ok));
        let ended = one(&sim, Plan::ok().sleep(MS), options());
        assert_eq!(ended, (Duration::ZERO, End::Dropped));
    });
}

// Detaching

#[test]
fn a_detached_handler_leaves_its_slot_and_goes_on() {
    for_each_seed(20, |sim| {
        let recorder = Recorder::new(&sim, |update: &Delivery<u32>| match **update {
            0 | 1 => Plan::ok().sleep(5 * SECOND),
            _ => Plan::ok().sleep(SECOND),
        });
        let log = recorder.log();
        let (handle, _) = start(&sim, 0..4, recorder, detaching(None));
        sim.advance(2 * SECOND + MS);
        let held = handle.in_flight();
        let progress: Vec<_> = held.iter().map(|held| held.progress).collect();
        assert_eq!(
            progress,
            [
                Progress::Detached,
                Progress::Detached,
                Progress::Running,
                Progress::Running,
            ]
        );
        let stats = handle.stats();
        assert_eq!((stats.in_flight, stats.detached), (2, 2));
        assert!(!held[0].update.extend(SECOND));
        sim.advance(10 * SECOND);
        assert_eq!(log.entries()[0].ended, Some(5 * SECOND));
        let counters = handle.stats().counters;
        assert_eq!(
            (counters.finished, counters.timed_out, counters.detached),
            (4, 0, 2)
        );
        assert_eq!(handle.stats().detached, 0);
    });
}

#[test]
fn a_late_failure_of_a_detached_handler_reaches_the_policy() {
    for_each_seed(20, |sim| {
        let seen = answers();
        let log = Arc::clone(&seen);
        let supplier = ScriptedSupplier::new(&sim).batch([0_u32]);
        let recorder = Recorder::new(&sim, |update: &Delivery<u32>| {
            match update.attempt().get() {
                1 => Plan::fail("late").sleep(5 * SECOND),
                _ => Plan::ok(),
            }
        });
        let clock = sim.clone();
        let handle = Runner::new(runtime(&sim), supplier, recorder)
            .sink(detaching(None))
            .policy(move |failure: Failure<u32>| {
                assert!(matches!(failure.cause, Cause::Error(_)));
                log.lock().unwrap().push(clock.elapsed());
                Verdict::Retry { after: SECOND }
            })
            .start();
        sim.advance(20 * SECOND);
        assert_eq!(taken(&seen), [5 * SECOND]);
        let stats = handle.stats();
        assert_eq!((stats.counters.finished, stats.counters.retried), (1, 1));
        assert_eq!((stats.in_flight, stats.detached), (0, 0));
    });
}

#[test]
fn beyond_the_bound_a_late_handler_keeps_its_slot() {
    for_each_seed(20, |sim| {
        let recorder = Recorder::new(&sim, |update: &Delivery<u32>| match **update {
            0 => Plan::ok().sleep(20 * SECOND),
            1 => Plan::ok()
                .sleep(3 * SECOND)
                .extend(SECOND)
                .sleep(7 * SECOND),
            _ => Plan::ok().sleep(SECOND),
        });
        let log = recorder.log();
        let options = detaching(Some(1)).concurrency(n(1));
        let (handle, _) = start(&sim, 0..3, recorder, options);
        sim.advance(8 * SECOND);
        // 0 was detached at 2 s, 1 began then and is late since 4 s.
        assert_eq!(log.started(), [0, 1]);
        let stats = handle.stats();
        assert_eq!((stats.in_flight, stats.detached), (1, 1));
        // It has expired although it goes on.
        let held = handle.in_flight();
        assert_eq!(held[1].progress, Progress::Running);
        assert!(!held[1].update.extend(LONG));
        sim.advance(20 * SECOND);
        assert_eq!(log.entries()[2].started, 12 * SECOND);
        let counters = handle.stats().counters;
        assert_eq!((counters.finished, counters.detached), (3, 1));
    });
}

#[test]
fn a_stop_waits_for_detached_handlers_and_cancels_them_at_its_limit() {
    for_each_seed(20, |sim| {
        let recorder = Recorder::new(&sim, |update: &Delivery<u32>| match **update {
            0 => Plan::ok().sleep(5 * SECOND),
            _ => Plan::hang(),
        });
        let log: Log<u32> = recorder.log();
        let (handle, _) = start(&sim, 0..2, recorder, detaching(None));
        sim.advance(3 * SECOND);
        let report = sim.block_on(handle.stop_within(10 * SECOND)).unwrap();
        assert_eq!(sim.elapsed(), 13 * SECOND);
        assert_eq!(log.finished(), [0]);
        assert_eq!(log.running(), 0);
        assert_eq!(report.abandoned[0].id, 1);
        assert_eq!(
            (report.counters.finished, report.counters.abandoned),
            (1, 1)
        );
    });
}

// A process that stood still

/// Hundred handlers of `sleeps` are suspended with their process for a minute.
fn suspended(sim: &SimRuntime, sleeps: u32, options: SinkOptions<impl Sized>) -> RunnerHandle<u32> {
    let plan = (0..sleeps).fold(Plan::ok(), |plan, _| plan.sleep(5 * SECOND));
    let recorder = always(sim, plan);
    let (handle, _) = start(sim, 0..100, recorder, options.timeout(30 * SECOND));
    sim.advance(SECOND);
    sim.suspend(60 * SECOND);
    sim.advance(100 * SECOND);
    handle
}

#[test]
fn a_handler_that_is_ready_when_the_process_goes_on_is_not_late() {
    for_each_seed(20, |sim| {
        for options in [SinkOptions::concurrent().any(), SinkOptions::batch().any()] {
            let counters = suspended(&sim, 1, options).stats().counters;
            assert_eq!((counters.finished, counters.timed_out), (100, 0));
        }
    });
}

#[test]
fn a_handler_that_still_waits_when_the_process_goes_on_is_late() {
    for_each_seed(20, |sim| {
        let counters = suspended(&sim, 2, SinkOptions::concurrent())
            .stats()
            .counters;
        assert_eq!((counters.finished, counters.timed_out), (0, 100));
    });
}

#[test]
fn a_policy_that_is_ready_when_the_process_goes_on_is_not_late() {
    for_each_seed(20, |sim| {
        let supplier = ScriptedSupplier::new(&sim).batch(0..100);
        let clock = sim.clone();
        let policy = move |_: Failure<u32>| {
            let clock = clock.clone();
            async move {
                clock.sleep(5 * SECOND).await;
                Verdict::Retry { after: SECOND }
            }
        };
        let recorder = Recorder::new(&sim, |update: &Delivery<u32>| {
            match update.attempt().get() {
                1 => Plan::fail("once"),
                _ => Plan::ok(),
            }
        });
        let handle = Runner::new(runtime(&sim), supplier, recorder)
            .policy(policy)
            .start();
        sim.advance(SECOND);
        sim.suspend(60 * SECOND);
        sim.advance(100 * SECOND);
        assert_eq!(handle.stats().counters.finished, 100);
    });
}
