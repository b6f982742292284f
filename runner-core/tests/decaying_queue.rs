//! [`DecayingQueue`] alone, without a runner and without a supplier.

mod common;

use std::{
    num::NonZeroUsize,
    pin::pin,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use common::{LONG, MS, SECOND, always, n, quiet, runtime};
use futures::future::{join, select};
use runner_core::{
    BoxError, Cause, DecayingQueue, Delivery, Failure, Fate, Key, LateHandler, Progress,
    QueueClosed, QueueFault, QueueReport, Runtime, RuntimeExt, SinkOptions, UpdateConsumer,
    Verdict,
    testing::{Plan, Recorder, SimRuntime, for_each_seed},
};

fn concurrent(concurrency: usize) -> SinkOptions {
    SinkOptions::concurrent().concurrency(n(concurrency))
}

fn build<C: UpdateConsumer<u32>>(
    sim: &SimRuntime,
    consumer: C,
    options: SinkOptions<impl Sized>,
) -> DecayingQueue<u32> {
    DecayingQueue::builder(runtime(sim), consumer)
        .options(options)
        .build()
}

/// Adds updates without a wait for room.
fn add(queue: &DecayingQueue<u32>, updates: impl IntoIterator<Item = u32>) {
    drop(queue.add(updates).expect("the queue is open"));
}

/// Polls once.
fn now<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

fn refused(queue: &DecayingQueue<u32>, updates: impl IntoIterator<Item = u32>) -> Vec<u32> {
    let QueueClosed(updates) = queue.add(updates).expect_err("the queue takes no more");
    updates
}

fn abandoned(report: &QueueReport<u32>) -> Vec<u32> {
    let abandoned = report.abandoned.iter();
    abandoned.map(|abandoned| *abandoned.update).collect()
}

/// Drains in a task of its own, so that handlers may block meanwhile. Returns when it was over, too.
fn drained(
    sim: &SimRuntime,
    queue: &DecayingQueue<u32>,
    limit: Option<Duration>,
) -> std::sync::mpsc::Receiver<(Duration, QueueReport<u32>)> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let (clock, queue) = (sim.clone(), queue.clone());
    sim.spawn(Box::pin(async move {
        let report = match limit {
            Some(limit) => queue.drain_within(limit).await,
            None => queue.drain().await,
        };
        let _ = sender.send((clock.elapsed(), report));
    }));
    receiver
}

fn no_task_is_left(sim: &SimRuntime) {
    sim.run_until_idle();
    assert_eq!((sim.tasks(), sim.timers(), sim.panics()), (0, 0, 0));
}

// Adding

#[test]
fn one_update_and_many_are_handled_in_order() {
    for_each_seed(20, |sim| {
        let recorder = always(&sim, Plan::ok().sleep(MS));
        let log = recorder.log();
        let queue = build(&sim, recorder, concurrent(500).workers(n(1)));
        let report = sim.block_on(async {
            let room = queue.add([0]).unwrap();
            assert_eq!(queue.len(), 1);
            assert!(!queue.is_empty());
            assert_eq!(room.await, Some(n(100)));
            add(&queue, 1..300);
            queue.drain().await
        });
        assert_eq!(log.started(), (0..300).collect::<Vec<_>>());
        assert_eq!(report.counters.finished, 300);
        assert_eq!(report.counters.supplied, report.counters.settled());
        assert_eq!(report.latency.max, MS);
        assert!(report.abandoned.is_empty() && report.fault.is_none());
        assert!(queue.is_empty());
        drop(queue);
        no_task_is_left(&sim);
    });
}

#[test]
fn to_add_nothing_changes_nothing() {
    let sim = SimRuntime::new(1);
    let queue = build(&sim, always(&sim, Plan::ok()), concurrent(5).prefetch(0));
    let room = queue.add([]).unwrap();
    assert_eq!(now(room), Some(Some(n(5))));
    assert_eq!((queue.len(), queue.stats().counters.supplied), (0, 0));
    queue.stop();
    assert_eq!(refused(&queue, []), []);
}

#[test]
fn updates_with_a_common_key_are_handled_one_after_the_other() {
    for_each_seed(30, |sim| {
        let recorder = Recorder::new(&sim, |update: &Delivery<u32>| match **update % 4 {
            0 => Plan::ok(),
            1 => Plan::fail("no"),
            2 => Plan::hang(),
            _ => Plan::ok().sleep(MS * (**update % 7)).yield_now(),
        });
        let log = recorder.log();
        let queue = DecayingQueue::builder(runtime(&sim), recorder)
            .options(concurrent(7).timeout(5 * MS))
            .sequentialize(|update: &u32| [Key::chat(i64::from(update % 5))])
            .build();
        let report = sim.block_on(async {
            let mut next = 0..200;
            let mut room = queue.room().await;
            while let Some(limit) = room {
                let batch: Vec<u32> = next.by_ref().take(limit.get()).collect();
                if batch.is_empty() {
                    break;
                }
                room = queue.add(batch).unwrap().await;
            }
            queue.drain().await
        });
        assert_eq!(report.counters.settled(), 200);
        assert!(log.max_concurrency() <= 5);
        for key in 0..5 {
            let entries = log.entries();
            let of_key: Vec<_> = entries.iter().filter(|it| it.update % 5 == key).collect();
            assert!(of_key.is_sorted_by_key(|entry| entry.update));
            for pair in of_key.windows(2) {
                assert!(pair[0].ended.unwrap() <= pair[1].started);
            }
        }
    });
}

#[test]
fn no_more_run_than_the_concurrency_allows_whatever_is_added() {
    for_each_seed(20, |sim| {
        let recorder = always(&sim, Plan::ok().sleep(MS).yield_now());
        let log = recorder.log();
        let queue = build(&sim, recorder, concurrent(3));
        sim.block_on(async {
            add(&queue, 0..50);
            sim.yield_now().await;
            add(&queue, 50..100);
            sim.sleep(5 * MS).await;
            queue.set_concurrency(n(9));
            queue.idle().await;
        });
        assert_eq!(log.max_concurrency(), 9);
        let entries = log.entries();
        let early = entries.iter().filter(|it| it.started < 5 * MS);
        assert_eq!(early.count(), 15);
    });
}

#[test]
fn without_a_limit_on_the_concurrency_all_run_at_once() {
    let sim = SimRuntime::new(1);
    let recorder = always(&sim, Plan::ok().sleep(SECOND));
    let log = recorder.log();
    let options = SinkOptions::concurrent().concurrency(NonZeroUsize::MAX);
    let queue = build(
        &sim,
        recorder,
        options.timeout(LONG).detach_after_timeout(None),
    );
    add(&queue, 0..5_000);
    sim.advance(MS);
    assert_eq!(
        (log.max_concurrency(), queue.stats().in_flight),
        (5_000, 5_000)
    );
    assert_eq!(now(queue.room()), Some(Some(n(100))));
    assert_eq!(queue.capacity(), usize::MAX - 5_000);
    assert_eq!(sim.block_on(queue.drain()).counters.finished, 5_000);
}

// Room

#[test]
fn room_waits_until_there_is_some_and_may_be_dropped_at_any_time() {
    for_each_seed(20, |sim| {
        let recorder = always(&sim, Plan::ok().sleep(SECOND));
        let queue = build(&sim, recorder, concurrent(2).prefetch(2));
        sim.block_on(async {
            let room = queue.add(0..4).unwrap();
            for _ in 0..1_000 {
                assert_eq!(now(queue.room()), None);
            }
            // Dropped while it waits with the waker of a task.
            select(pin!(room), sim.sleep(MS)).await;
            assert!(queue.room().await.is_some());
            assert_eq!(sim.elapsed(), SECOND);
            sim.sleep(MS).await;
            // Nothing is reserved.
            for _ in 0..2 {
                assert_eq!(queue.room().await, Some(n(2)));
            }
        });
    });
}

#[test]
fn a_room_outlives_the_queue_and_resolves() {
    for_each_seed(20, |sim| {
        let recorder = always(&sim, Plan::ok().sleep(SECOND));
        let queue = build(&sim, recorder, concurrent(1).prefetch(0));
        let room = queue.add([0]).unwrap();
        drop(queue);
        assert_eq!(sim.block_on(room), None);
    });
}

#[test]
fn room_resolves_with_none_after_every_kind_of_end() {
    let ends: [fn(&DecayingQueue<u32>); 3] = [
        DecayingQueue::stop,
        DecayingQueue::abandon,
        // The handler of update 9 fails, and the policy stops the queue.
        |queue| add(queue, [9]),
    ];
    for (number, end) in ends.into_iter().enumerate() {
        for_each_seed(10, |sim| {
            let recorder = Recorder::new(&sim, |update: &Delivery<u32>| match **update {
                9 => Plan::fail("no"),
                _ => Plan::ok().sleep(SECOND),
            });
            let queue = DecayingQueue::builder(runtime(&sim), recorder)
                .options(concurrent(2).max_waiting(n(1)).prefetch(0))
                .sequentialize(|update: &u32| [Key::chat(i64::from(update / 9))])
                .policy(|_: Failure<u32>| Verdict::Stop)
                .build();
            // One runs and one waits for its key, so there is no room.
            add(&queue, [0, 1]);
            let (room, ()) = sim.block_on(join(queue.room(), async {
                sim.sleep(MS).await;
                end(&queue);
            }));
            assert_eq!(room, None);
            assert!(sim.elapsed() < SECOND);
            assert_eq!(now(queue.room()), Some(None));
            assert_eq!(refused(&queue, [5, 6]), [5, 6]);
            let report = sim.block_on(queue.drain());
            assert_eq!(report.counters.supplied, report.counters.settled());
            assert_eq!(report.fault.is_some(), number == 2);
        });
    }
}

#[test]
fn after_a_stop_updates_are_given_back_and_what_is_held_is_handled() {
    for_each_seed(20, |sim| {
        let recorder = always(&sim, Plan::ok().sleep(SECOND));
        let queue = build(&sim, recorder, concurrent(2));
        add(&queue, 0..5);
        queue.stop();
        let closed = queue.add([5, 6]).expect_err("it was stopped");
        assert_eq!(format!("{closed:?}"), "QueueClosed(2 updates)");
        assert_eq!(closed.0, [5, 6]);
        queue.stop();
        let report = sim.block_on(queue.drain());
        assert_eq!((report.counters.supplied, report.counters.finished), (5, 5));
        assert_eq!(sim.elapsed(), 3 * SECOND);
    });
}

/// The iterator and the key function are code of the user, and run before the updates are in the queue.
#[test]
fn updates_are_given_back_if_the_queue_ends_while_they_are_added() {
    static QUEUE: OnceLock<DecayingQueue<u32>> = OnceLock::new();
    let sim = SimRuntime::new(1);
    let queue = DecayingQueue::builder(runtime(&sim), always(&sim, Plan::ok()))
        .sequentialize(|update: &u32| {
            if *update == 1 {
                let queue = QUEUE.get().expect("it was set");
                let report = now(queue.drain()).expect("nothing is held");
                assert_eq!(report.counters.supplied, 0);
            }
            [Key::chat(1)]
        })
        .build();
    assert!(QUEUE.set(queue.clone()).is_ok());
    assert_eq!(refused(&queue, [0, 1, 2]), [0, 1, 2]);
    assert_eq!(sim.block_on(queue.drain()).counters.supplied, 0);
}

// Timeouts

/// What `on_late` has heard: the update, its age, and whether it is detached.
type Late = Vec<(u32, Duration, bool)>;

/// Runs one update that takes ten seconds, with a timeout of one, and two others that need its key and
/// its slot.
fn late(sim: &SimRuntime, options: SinkOptions) -> (QueueReport<u32>, Late, Vec<Duration>) {
    let recorder = Recorder::new(sim, |update: &Delivery<u32>| match **update {
        0 => Plan::ok().sleep(10 * SECOND),
        _ => Plan::ok(),
    });
    let log = recorder.log();
    let late = Arc::new(Mutex::new(Late::new()));
    let seen = Arc::clone(&late);
    let queue = DecayingQueue::builder(runtime(sim), recorder)
        .options(options.concurrency(n(1)).timeout(SECOND))
        .sequentialize(|update: &u32| (*update < 2).then(|| Key::chat(1)))
        .on_late(move |handler: LateHandler<u32>| {
            let LateHandler {
                update,
                age,
                detached,
                ..
            } = handler;
            seen.lock().unwrap().push((*update, age, detached));
        })
        .build();
    let report = sim.block_on(async {
        add(&queue, 0..3);
        queue.drain().await
    });
    let mut started = [Duration::ZERO; 3];
    for entry in log.entries() {
        started[entry.update as usize] = entry.started;
    }
    let late = late.lock().unwrap().clone();
    (report, late, started.to_vec())
}

#[test]
fn a_late_handler_is_cancelled() {
    for_each_seed(20, |sim| {
        let (report, late, started) = late(&sim, SinkOptions::concurrent());
        assert_eq!(
            (report.counters.timed_out, report.counters.finished),
            (1, 2)
        );
        assert_eq!(late, []);
        assert_eq!(started, [Duration::ZERO, SECOND, SECOND]);
    });
}

#[test]
fn a_late_handler_continues_with_slot_and_key() {
    for_each_seed(20, |sim| {
        let options = SinkOptions::concurrent().continue_after_timeout();
        let (report, late, started) = late(&sim, options);
        assert_eq!(
            (report.counters.timed_out, report.counters.finished),
            (0, 3)
        );
        assert_eq!(report.counters.detached, 0);
        assert_eq!(late, [(0, SECOND, false)]);
        assert_eq!(started, [Duration::ZERO, 10 * SECOND, 10 * SECOND]);
    });
}

#[test]
fn a_late_handler_is_detached_and_keeps_its_key() {
    for_each_seed(20, |sim| {
        let options = SinkOptions::concurrent().detach_after_timeout(None);
        let (report, late, started) = late(&sim, options);
        assert_eq!(
            (report.counters.timed_out, report.counters.finished),
            (0, 3)
        );
        assert_eq!(report.counters.detached, 1);
        assert_eq!(late, [(0, SECOND, true)]);
        assert_eq!(started, [Duration::ZERO, 10 * SECOND, SECOND]);
    });
}

#[test]
fn the_callback_for_late_handlers_may_use_the_queue_and_may_panic() {
    quiet();
    for_each_seed(10, |sim| {
        let own = Arc::new(OnceLock::<DecayingQueue<u32>>::new());
        let used = Arc::clone(&own);
        let queue =
            DecayingQueue::builder(runtime(&sim), always(&sim, Plan::ok().sleep(3 * SECOND)))
                .options(concurrent(5).timeout(SECOND).continue_after_timeout())
                .on_late(move |late: LateHandler<u32>| {
                    let queue = used.get().expect("it was set");
                    assert_eq!(queue.snapshot().len(), queue.len());
                    if *late.update < 2 {
                        add(queue, [*late.update + 2]);
                    }
                    panic!("planned");
                })
                .build();
        assert!(own.set(queue.clone()).is_ok());
        add(&queue, [0, 1]);
        sim.block_on(queue.idle());
        assert_eq!(queue.stats().counters.finished, 4);
    });
}

// The error policy

#[test]
fn failures_are_skipped_by_default() {
    quiet();
    for_each_seed(20, |sim| {
        let recorder = Recorder::new(&sim, |update: &Delivery<u32>| match **update {
            0 => Plan::fail("no"),
            1 => Plan::panic("planned"),
            2 => Plan::panic_at_once("planned"),
            3 => Plan::ok().panic_on_drop(),
            _ => Plan::ok(),
        });
        let queue = build(&sim, recorder, concurrent(5));
        add(&queue, 0..5);
        let report = sim.block_on(queue.drain());
        let counters = report.counters;
        assert_eq!((counters.failed, counters.panicked), (1, 3));
        assert_eq!((counters.finished, counters.settled()), (1, 5));
        assert!(report.fault.is_none());
    });
}

fn retried(
    sim: &SimRuntime,
    plan: impl Fn(u32) -> Plan + Send + Sync + 'static,
) -> (DecayingQueue<u32>, runner_core::testing::Log<u32>) {
    let recorder = Recorder::new(sim, move |update: &Delivery<u32>| {
        plan(update.attempt().get())
    });
    let log = recorder.log();
    let queue = DecayingQueue::builder(runtime(sim), recorder)
        .options(concurrent(1))
        .policy(|_: Failure<u32>| Verdict::Retry { after: SECOND })
        .build();
    (queue, log)
}

#[test]
fn a_failed_update_is_retried_until_it_succeeds() {
    for_each_seed(20, |sim| {
        let (queue, log) = retried(&sim, |attempt| match attempt {
            1 | 2 => Plan::fail("again"),
            _ => Plan::ok(),
        });
        add(&queue, [0]);
        sim.block_on(queue.idle());
        let started: Vec<_> = log.entries().iter().map(|entry| entry.started).collect();
        assert_eq!(started, [Duration::ZERO, SECOND, 2 * SECOND]);
        let report = sim.block_on(queue.drain());
        assert_eq!((report.counters.retried, report.counters.finished), (2, 1));
    });
}

#[test]
fn a_drain_does_not_wait_for_a_retry() {
    for_each_seed(20, |sim| {
        let (queue, log) = retried(&sim, |_| Plan::fail("again"));
        add(&queue, [0]);
        sim.advance(MS);
        assert_eq!(queue.snapshot()[0].progress, Progress::Retrying);
        let report = sim.block_on(queue.drain());
        assert_eq!(sim.elapsed(), MS);
        assert_eq!(log.entries().len(), 2);
        assert_eq!((report.counters.retried, report.counters.failed), (1, 1));
    });
}

#[test]
fn a_retry_is_tried_at_once_when_the_last_handle_is_dropped() {
    for_each_seed(20, |sim| {
        let (queue, log) = retried(&sim, |_| Plan::fail("again"));
        add(&queue, [0]);
        sim.advance(MS);
        drop(queue);
        no_task_is_left(&sim);
        assert_eq!((log.entries().len(), sim.elapsed()), (2, MS));
    });
}

#[test]
fn a_handler_that_fails_after_the_last_handle_was_dropped_is_retried_once() {
    for_each_seed(20, |sim| {
        let (queue, log) = retried(&sim, |_| Plan::fail("again").sleep(SECOND));
        add(&queue, [0]);
        sim.advance(MS);
        drop(queue);
        sim.advance(10 * SECOND);
        no_task_is_left(&sim);
        assert_eq!(log.entries().len(), 2);
    });
}

#[test]
fn a_policy_that_stops_halts_the_queue() {
    for_each_seed(20, |sim| {
        let recorder = Recorder::new(&sim, |update: &Delivery<u32>| match **update {
            0 => Plan::fail("enough").sleep(MS),
            _ => Plan::ok().sleep(SECOND),
        });
        let queue = DecayingQueue::builder(runtime(&sim), recorder)
            .options(concurrent(2).workers(n(1)))
            .policy(|_: Failure<u32>| Verdict::Stop)
            .build();
        add(&queue, 0..4);
        sim.advance(2 * MS);
        assert_eq!(refused(&queue, [9]), [9]);
        let report = sim.block_on(queue.drain());
        // What runs may end, and nothing else starts.
        assert_eq!(sim.elapsed(), SECOND);
        assert_eq!(
            (report.counters.finished, report.counters.abandoned),
            (1, 3)
        );
        assert_eq!(abandoned(&report), [0, 2, 3]);
        let started: Vec<_> = report.abandoned.iter().map(|it| it.started).collect();
        assert_eq!(started, [true, false, false]);
        assert!(report.abandoned.iter().all(|it| it.fate == Fate::Lost));
        let Some(QueueFault::Policy(Cause::Error(error))) = report.fault else {
            panic!("{report:?}");
        };
        assert_eq!(error.to_string(), "enough");
        drop(queue);
        no_task_is_left(&sim);
    });
}

// What can be seen

#[test]
fn a_snapshot_has_ages_keys_and_what_is_waited_for() {
    for_each_seed(10, |sim| {
        let recorder = Recorder::new(&sim, |update: &Delivery<u32>| match **update {
            3 => Plan::fail("again"),
            _ => Plan::hang(),
        });
        let queue = DecayingQueue::builder(runtime(&sim), recorder)
            .options(concurrent(2).workers(n(1)))
            .sequentialize(|update: &u32| match update {
                0 | 1 => vec![Key::chat(1)],
                2 => vec![Key::chat(1), Key::user(1)],
                _ => vec![],
            })
            .policy(|_: Failure<u32>| Verdict::Retry { after: LONG })
            .build();
        add(&queue, 0..3);
        sim.advance(SECOND);
        add(&queue, 3..6);
        sim.advance(MS);
        let held = queue.snapshot();
        let progress: Vec<_> = held.iter().map(|held| held.progress).collect();
        use Progress::{Ready, Retrying, Running, Waiting};
        assert_eq!(
            progress,
            [Running, Waiting, Waiting, Retrying, Running, Ready]
        );
        assert_eq!(
            held.iter().map(|held| held.id).collect::<Vec<_>>(),
            [0, 1, 2, 3, 4, 5]
        );
        assert_eq!(held[0].waits_for, [0_u64; 0]);
        assert_eq!(
            (&held[1].waits_for, &held[2].waits_for),
            (&vec![0], &vec![1])
        );
        assert_eq!(held[2].keys, [Key::chat(1), Key::user(1)]);
        assert_eq!((held[0].age, held[5].age), (SECOND + MS, MS));
        assert_eq!(held[3].attempt.get(), 2);

        let stats = queue.stats();
        assert_eq!((stats.in_flight, stats.ready, stats.waiting), (2, 1, 3));
        assert_eq!((stats.capacity, stats.detached), (0, 0));
        assert_eq!((queue.capacity(), queue.len()), (0, 6));
        assert_eq!(stats.bytes, 6 * size_of::<u32>());
        assert_eq!((stats.counters.supplied, stats.counters.retried), (6, 1));

        queue.abandon();
        sim.run_until_idle();
        assert!(queue.snapshot().is_empty());
        assert_eq!(queue.stats().bytes, 0);
    });
}

#[test]
fn idle_resolves_whenever_nothing_is_held() {
    for_each_seed(20, |sim| {
        let queue = build(&sim, always(&sim, Plan::ok().sleep(SECOND)), concurrent(1));
        sim.block_on(async {
            queue.idle().await;
            for round in 1..=3 {
                add(&queue, 0..2);
                assert!(now(queue.idle()).is_none());
                queue.idle().await;
                assert_eq!(sim.elapsed(), 2 * SECOND * round);
            }
        });
    });
}

// The end

#[test]
fn a_drain_may_be_repeated_shared_and_dropped() {
    for_each_seed(30, |sim| {
        let queue = build(&sim, always(&sim, Plan::ok().sleep(SECOND)), concurrent(2));
        add(&queue, 0..4);
        sim.block_on(async {
            assert!(now(queue.drain()).is_none());
            select(pin!(queue.drain()), sim.sleep(MS)).await;
            assert_eq!(refused(&queue, [9]), [9]);
            let other = queue.clone();
            let (one, two) = join(queue.drain(), other.drain()).await;
            let again = queue.drain().await;
            for report in [one, two, again] {
                assert_eq!(report.counters.finished, 4);
                assert!(report.abandoned.is_empty() && report.fault.is_none());
            }
        });
        assert_eq!(sim.elapsed(), 2 * SECOND);
    });
}

#[test]
fn every_abandoned_update_is_in_one_report_only() {
    for_each_seed(30, |sim| {
        let queue = build(
            &sim,
            always(&sim, Plan::hang()),
            concurrent(2).workers(n(1)),
        );
        add(&queue, 0..4);
        let (one, two) = sim.block_on(join(
            queue.drain_within(SECOND),
            queue.drain_within(2 * SECOND),
        ));
        assert_eq!(sim.elapsed(), SECOND);
        let mut all = [abandoned(&one), abandoned(&two)].concat();
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3]);
        assert_eq!((one.counters.abandoned, two.counters.abandoned), (4, 4));
        let again = sim.block_on(queue.drain());
        assert!(again.abandoned.is_empty());
        assert_eq!(again.counters.abandoned, 4);
    });
}

#[test]
fn a_drain_with_a_limit_cancels_what_is_left() {
    for (limit, expected) in [(Duration::ZERO, Duration::ZERO), (2500 * MS, 2500 * MS)] {
        for_each_seed(20, |sim| {
            let queue = build(&sim, always(&sim, Plan::ok().sleep(SECOND)), concurrent(1));
            add(&queue, 0..5);
            let report = sim.block_on(queue.drain_within(limit));
            assert_eq!(sim.elapsed(), expected);
            let finished = expected.as_secs();
            assert_eq!(report.counters.finished, finished);
            assert_eq!(report.counters.abandoned, 5 - finished);
            assert!(report.abandoned.iter().all(|it| !it.unresponsive));
            assert!(report.fault.is_none());
            drop(queue);
            no_task_is_left(&sim);
        });
    }
}

#[test]
fn a_limit_beyond_the_clock_is_none() {
    let sim = SimRuntime::new(1);
    let queue = build(&sim, always(&sim, Plan::ok().sleep(LONG)), concurrent(1));
    add(&queue, 0..2);
    let report = sim.block_on(queue.drain_within(Duration::MAX));
    assert_eq!((report.counters.finished, sim.elapsed()), (2, 2 * LONG));
}

#[test]
fn a_handler_that_blocks_its_thread_is_listed_and_does_not_hold_up_the_drain() {
    for_each_seed(20, |sim| {
        let recorder = Recorder::new(&sim, |update: &Delivery<u32>| match **update {
            0 => Plan::ok().block(100 * SECOND),
            _ => Plan::hang(),
        });
        let queue = build(&sim, recorder, concurrent(2).workers(n(2)));
        add(&queue, 0..3);
        let reports = drained(&sim, &queue, Some(SECOND));
        sim.advance(200 * SECOND);
        let (at, report) = reports.try_recv().expect("the drain is over");
        assert!(at >= SECOND && at <= 2 * SECOND, "{at:?}");
        assert_eq!(abandoned(&report), [0, 1, 2]);
        let unresponsive: Vec<_> = report.abandoned.iter().map(|it| it.unresponsive).collect();
        assert_eq!(unresponsive, [true, false, false]);
        // It has ended meanwhile, and is counted once.
        assert!(queue.is_empty());
        let counters = queue.stats().counters;
        assert_eq!((counters.finished, counters.abandoned), (0, 3));
        assert!(sim.block_on(queue.drain()).abandoned.is_empty());
    });
}

#[test]
fn to_abandon_cancels_at_once() {
    for_each_seed(20, |sim| {
        let recorder = always(&sim, Plan::hang());
        let log = recorder.log();
        let queue = build(&sim, recorder, concurrent(2).workers(n(1)));
        add(&queue, 0..5);
        sim.advance(SECOND);
        queue.abandon();
        queue.abandon();
        sim.run_until_idle();
        assert!(queue.is_empty());
        assert_eq!(
            log.entries().iter().filter(|it| it.ended.is_some()).count(),
            2
        );
        let report = sim.block_on(queue.drain());
        assert_eq!(abandoned(&report), [0, 1, 2, 3, 4]);
        let started: Vec<_> = report.abandoned.iter().map(|it| it.started).collect();
        assert_eq!(started, [true, true, false, false, false]);
        drop(queue);
        no_task_is_left(&sim);
    });
}

#[test]
fn when_the_last_handle_is_dropped_what_is_held_is_handled_and_every_task_ends() {
    for_each_seed(30, |sim| {
        let recorder = Recorder::new(&sim, |update: &Delivery<u32>| match **update % 3 {
            0 => Plan::ok(),
            1 => Plan::ok().sleep(MS),
            _ => Plan::hang(),
        });
        let log = recorder.log();
        let queue = DecayingQueue::builder(runtime(&sim), recorder)
            .options(concurrent(4).timeout(SECOND))
            .sequentialize(|update: &u32| [Key::chat(i64::from(update % 10))])
            .build();
        add(&queue, 0..30);
        let other = queue.clone();
        drop(queue);
        sim.advance(MS);
        assert!(sim.tasks() > 0);
        drop(other);
        sim.advance(LONG);
        no_task_is_left(&sim);
        let entries = log.entries();
        assert_eq!(entries.len(), 30);
        assert!(entries.iter().all(|entry| entry.ended.is_some()));
    });
}

#[test]
fn a_queue_that_was_never_used_leaves_nothing_behind() {
    let sim = SimRuntime::new(1);
    let queue = build(&sim, always(&sim, Plan::ok()), concurrent(4));
    sim.run_until_idle();
    drop(queue);
    no_task_is_left(&sim);
    drop(build(&sim, always(&sim, Plan::ok()), concurrent(4)));
    no_task_is_left(&sim);
}

// Handlers that use their own queue

/// A queue whose handler is given the queue itself.
fn recursive<F, Fut>(sim: &SimRuntime, options: SinkOptions, handler: F) -> DecayingQueue<u32>
where
    F: Fn(DecayingQueue<u32>, Delivery<u32>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send,
{
    let own = Arc::new(OnceLock::new());
    let used = Arc::clone(&own);
    let queue = DecayingQueue::for_each(runtime(sim), move |update| {
        handler(
            DecayingQueue::clone(used.get().expect("it was set")),
            update,
        )
    })
    .options(options)
    .build();
    assert!(own.set(queue.clone()).is_ok());
    queue
}

#[test]
fn a_handler_may_add_to_its_own_queue() {
    for_each_seed(20, |sim| {
        let queue = recursive(&sim, concurrent(3), async |queue, depth| {
            if *depth < 6 {
                add(&queue, [*depth + 1, *depth + 1]);
            }
        });
        add(&queue, [0]);
        sim.block_on(queue.idle());
        assert_eq!(queue.stats().counters.finished, 127);
    });
}

#[test]
fn a_handler_may_stop_its_own_queue() {
    for_each_seed(20, |sim| {
        let queue = recursive(&sim, concurrent(1), async |queue, update| {
            if *update == 1 {
                queue.stop();
                assert_eq!(refused(&queue, [7]), [7]);
                assert!(update.is_stopping());
            }
        });
        add(&queue, 0..4);
        let report = sim.block_on(queue.drain());
        assert_eq!(report.counters.finished, 4);
    });
}

#[test]
fn a_handler_may_abandon_its_own_queue() {
    for_each_seed(20, |sim| {
        let queue = recursive(&sim, concurrent(1), async |queue, update| {
            if *update == 1 {
                queue.abandon();
            }
        });
        add(&queue, 0..4);
        let report = sim.block_on(queue.drain());
        // It was not pending, so nothing has cut it short.
        assert_eq!(report.counters.finished, 2);
        assert_eq!(abandoned(&report), [2, 3]);
    });
}

#[test]
fn a_handler_may_drop_the_last_handle() {
    type Own = Arc<Mutex<Option<DecayingQueue<u32>>>>;
    for_each_seed(20, |sim| {
        let own = Own::default();
        let handled = Arc::new(AtomicUsize::new(0));
        let (taken, count) = (Arc::clone(&own), Arc::clone(&handled));
        let queue = DecayingQueue::for_each(runtime(&sim), move |_: Delivery<u32>| {
            drop(taken.lock().unwrap().take());
            count.fetch_add(1, Ordering::Relaxed);
            std::future::ready(())
        })
        .options(concurrent(2))
        .build();
        add(&queue, 0..9);
        *own.lock().unwrap() = Some(queue);
        no_task_is_left(&sim);
        assert_eq!(handled.load(Ordering::Relaxed), 9);
    });
}

// The runtime

#[test]
fn a_runtime_that_is_shut_down_ends_every_wait() {
    for_each_seed(20, |sim| {
        let queue = build(&sim, always(&sim, Plan::hang()), concurrent(2).prefetch(0));
        add(&queue, 0..5);
        sim.advance(SECOND);
        let room = queue.room();
        sim.shut_down();
        // No sleep ends any more, so nothing but the shutdown can end these.
        assert_eq!(sim.block_on(room), None);
        sim.block_on(queue.idle());
        assert_eq!(refused(&queue, [9]), [9]);
        let report = sim.block_on(queue.drain_within(SECOND));
        assert!(matches!(report.fault, Some(QueueFault::RuntimeGone)));
        assert_eq!(abandoned(&report), [0, 1, 2, 3, 4]);
        let again = sim.block_on(queue.drain());
        assert!(matches!(again.fault, Some(QueueFault::RuntimeGone)));
    });
}

#[test]
fn a_shutdown_during_a_drain_ends_it() {
    for_each_seed(20, |sim| {
        let queue = build(&sim, always(&sim, Plan::hang()), concurrent(2));
        add(&queue, 0..3);
        let mut polls = 0;
        let mut draining = pin!(queue.drain());
        let report = sim.block_on(std::future::poll_fn(|cx| {
            polls += 1;
            let polled = draining.as_mut().poll(cx);
            if polls == 1 {
                sim.shut_down();
            }
            polled
        }));
        assert!(matches!(report.fault, Some(QueueFault::RuntimeGone)));
        assert_eq!(report.counters.abandoned, 3);
    });
}

/// No handler and no idle worker is there to notice it.
#[test]
fn a_shutdown_is_noticed_while_all_that_is_held_waits_for_a_retry() {
    for_each_seed(20, |sim| {
        let queue = DecayingQueue::builder(runtime(&sim), always(&sim, Plan::fail("no")))
            .options(concurrent(2).max_waiting(n(1)).prefetch(0))
            .policy(|_: Failure<u32>| Verdict::Retry { after: LONG })
            .build();
        add(&queue, 0..2);
        sim.advance(SECOND);
        assert_eq!(now(queue.room()), None);
        sim.shut_down();
        assert_eq!(sim.block_on(queue.room()), None);
        sim.block_on(queue.idle());
        let report = sim.block_on(queue.drain());
        assert!(matches!(report.fault, Some(QueueFault::RuntimeGone)));
        assert_eq!(abandoned(&report), [0, 1]);
    });
}

#[test]
fn on_a_runtime_that_is_gone_updates_are_abandoned_at_once() {
    let sim = SimRuntime::new(1);
    let queue = build(&sim, always(&sim, Plan::ok()), concurrent(2));
    sim.shut_down();
    let late = build(&sim, always(&sim, Plan::ok()), concurrent(2));
    for queue in [queue, late] {
        // It has no task yet that could notice the shutdown.
        let room = queue.add([1]).unwrap();
        assert_eq!(now(room), Some(None));
        assert_eq!(refused(&queue, [2]), [2]);
        let report = sim.block_on(queue.drain());
        assert!(matches!(report.fault, Some(QueueFault::RuntimeGone)));
        assert_eq!(abandoned(&report), [1]);
    }
}

// The kinds of sink

#[test]
fn a_sequential_queue_handles_one_update_at_a_time() {
    for_each_seed(20, |sim| {
        let recorder = Recorder::new(&sim, |update: &Delivery<u32>| {
            Plan::ok().sleep(MS * (5 - **update % 5))
        });
        let log = recorder.log();
        let queue = build(&sim, recorder, SinkOptions::sequential());
        queue.set_concurrency(n(5));
        let room = queue.add(0..10).unwrap();
        sim.block_on(async {
            assert_eq!(room.await, Some(n(100)));
            assert!(queue.is_empty());
        });
        assert_eq!(log.finished(), (0..10).collect::<Vec<_>>());
        assert_eq!(log.max_concurrency(), 1);
    });
}

#[test]
fn a_batch_queue_has_room_when_all_is_handled() {
    for_each_seed(20, |sim| {
        let recorder = Recorder::new(&sim, |update: &Delivery<u32>| {
            Plan::ok().sleep(SECOND * (1 + **update % 3))
        });
        let log = recorder.log();
        let queue = build(&sim, recorder, SinkOptions::batch().any());
        sim.block_on(async {
            for round in 0..3 {
                assert_eq!(queue.room().await, Some(n(100)));
                assert_eq!(sim.elapsed(), 3 * SECOND * round);
                add(&queue, 0..9);
            }
            queue.idle().await;
        });
        assert_eq!(log.max_concurrency(), 9);
    });
}

// A clock of one's own

#[test]
fn the_clock_may_be_polled_by_hand() {
    for_each_seed(20, |sim| {
        let recorder = Recorder::new(&sim, |update: &Delivery<u32>| match **update {
            0 => Plan::hang(),
            _ => Plan::ok().sleep(3 * SECOND),
        });
        let (queue, clock) = DecayingQueue::builder(runtime(&sim), recorder)
            .options(concurrent(2).timeout(SECOND))
            .policy(|_: Failure<u32>| Verdict::Skip)
            .build_with_clock();
        assert_eq!(sim.tasks(), 0);
        add(&queue, [0]);
        sim.advance(10 * SECOND);
        // Nobody has polled the clock.
        assert_eq!(queue.stats().counters.timed_out, 0);
        let mut clock = pin!(clock);
        sim.block_on(async {
            select(clock.as_mut(), pin!(queue.idle())).await;
        });
        assert_eq!(queue.stats().counters.timed_out, 1);
        assert_eq!(sim.elapsed(), 10 * SECOND);
        // Without a handle it ends when the last update has.
        add(&queue, [0, 1]);
        drop(queue);
        sim.block_on(clock);
        assert_eq!(sim.elapsed(), 11 * SECOND);
        no_task_is_left(&sim);
    });
}

// The bound in bytes

/// An update of a size of its own.
struct Heavy(usize);

fn weighed(sim: &SimRuntime, max: usize) -> DecayingQueue<Heavy> {
    let clock = sim.clone();
    DecayingQueue::for_each_with(runtime(sim), clock, async |sim: SimRuntime, _| {
        sim.sleep(SECOND).await;
    })
    .options(concurrent(2).max_bytes(n(max)))
    .size_by(|heavy: &Heavy| {
        assert!(heavy.0 > 0, "planned");
        heavy.0
    })
    .build()
}

#[test]
fn at_its_bound_in_bytes_a_queue_has_no_room() {
    for_each_seed(20, |sim| {
        let queue = weighed(&sim, 1_000);
        sim.block_on(async {
            // The bound is not reached, so there is room for a whole batch.
            let room = queue.add([Heavy(600), Heavy(399)]).unwrap();
            assert_eq!(now(room), Some(Some(n(100))));
            let room = queue.add([Heavy(500), Heavy(200)]).unwrap();
            assert_eq!(queue.stats().bytes, 1_699);
            assert!(room.await.is_some());
            assert_eq!((sim.elapsed(), queue.stats().bytes), (SECOND, 700));
            queue.idle().await;
        });
        assert_eq!(queue.stats().bytes, 0);
    });
}

#[test]
fn a_size_function_that_panics_counts_the_type_and_loses_nothing() {
    quiet();
    for_each_seed(10, |sim| {
        let queue = weighed(&sim, 1_000);
        drop(queue.add([Heavy(10), Heavy(0), Heavy(20)]).unwrap());
        assert_eq!(queue.stats().bytes, 30 + size_of::<Heavy>());
        drop(queue.add([Heavy(usize::MAX)]).unwrap());
        let report = sim.block_on(queue.drain());
        assert_eq!(report.counters.finished, 4);
        assert_eq!(queue.stats().bytes, 0);
    });
}

// What else is the user's

#[test]
fn a_key_function_that_panics_sends_its_update_to_the_policy() {
    quiet();
    for_each_seed(10, |sim| {
        let queue = DecayingQueue::builder(runtime(&sim), always(&sim, Plan::ok()))
            .sequentialize(|update: &u32| {
                assert!(*update != 20, "planned");
                [Key::chat(1)]
            })
            .build();
        add(&queue, 0..40);
        let report = sim.block_on(queue.drain());
        assert_eq!(
            (report.counters.panicked, report.counters.finished),
            (1, 39)
        );
    });
}

#[test]
fn handlers_may_return_errors_of_any_kind() {
    let sim = SimRuntime::new(1);
    let queue =
        DecayingQueue::for_each(runtime(&sim), async |number: Delivery<u32>| match *number {
            0 => Ok(()),
            _ => Err(BoxError::from("not zero")),
        })
        .build();
    add(&queue, 0..3);
    let report = sim.block_on(queue.drain());
    assert_eq!((report.counters.finished, report.counters.failed), (1, 2));
}
