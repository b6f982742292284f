//! Code of the user that panics harms nothing but the update at hand.

mod common;

use std::{
    convert::Infallible,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use common::{MS, SECOND, n, quiet, runtime};
use runner_core::{
    BoxError, Delivery, Failure, Key, Runner, RuntimeExt, SinkOptions, UpdateConsumer,
    UpdateSupplier, Verdict,
    testing::{End, Plan, Recorder, ScriptedSupplier, SimRuntime, for_each_seed},
};

/// Three updates of one chat and one of another; the first one is handled by `plan`.
fn isolated(plan: Plan, end: End, panicked: u64) {
    quiet();
    for_each_seed(20, |sim| {
        let plan = plan.clone();
        let supplier = ScriptedSupplier::new(&sim).batch([0, 1, 2, 10_u32]);
        let recorder = Recorder::new(&sim, move |update: &Delivery<u32>| match **update {
            0 => plan.clone(),
            _ => Plan::ok().sleep(MS),
        });
        let log = recorder.log();
        let handle = Runner::new(runtime(&sim), supplier, recorder)
            .sink(SinkOptions::concurrent().concurrency(n(2)).timeout(SECOND))
            .sequentialize(|update: &u32| [Key::chat(i64::from(update / 10))])
            .start();
        sim.advance(10 * SECOND);
        let first = &log.entries()[0];
        assert_eq!((first.update, first.end), (0, Some(end)));
        let rest: Vec<u32> = log.finished().into_iter().filter(|it| *it > 0).collect();
        assert_eq!(rest.len(), 3);
        let counters = handle.stats().counters;
        assert_eq!((counters.settled(), counters.panicked), (4, panicked));
        assert_eq!(handle.size(), 0);
        // No task died of it, and the runner still works.
        assert_eq!(sim.panics(), 0);
        let report = sim.block_on(handle.stop()).unwrap();
        assert!(report.abandoned.is_empty());
    });
}

#[test]
fn a_handler_that_panics_before_there_is_a_future() {
    isolated(Plan::panic_at_once("at once"), End::Panicked, 1);
}

#[test]
fn a_handler_that_panics_at_its_first_poll() {
    isolated(Plan::panic("first poll"), End::Panicked, 1);
}

#[test]
fn a_handler_that_panics_at_a_later_poll() {
    isolated(Plan::panic("later").sleep(MS).yield_now(), End::Panicked, 1);
}

#[test]
fn a_handler_that_panics_when_it_is_dropped_after_its_time_out() {
    isolated(Plan::hang().panic_on_drop(), End::Dropped, 0);
}

/// The future of an `async fn` drops what it holds at its end, within the poll.
#[test]
fn a_handler_that_panics_while_it_returns() {
    isolated(Plan::ok().sleep(MS).panic_on_drop(), End::Ok, 1);
    isolated(Plan::ok().panic_on_drop(), End::Ok, 1);
}

#[test]
fn a_handler_that_panics_with_something_else_than_a_text() {
    quiet();
    let sim = SimRuntime::new(1);
    let supplier = ScriptedSupplier::new(&sim).batch(0..2_u32);
    let handle = Runner::for_each(
        runtime(&sim),
        supplier,
        |update: Delivery<u32>| async move {
            if *update == 0 {
                std::panic::panic_any(17_u8);
            }
        },
    )
    .start();
    sim.advance(SECOND);
    let counters = handle.stats().counters;
    assert_eq!((counters.panicked, counters.finished), (1, 1));
}

#[test]
fn a_handler_that_is_dropped_by_a_stop_and_panics_then() {
    quiet();
    for_each_seed(20, |sim| {
        let supplier = ScriptedSupplier::new(&sim).batch(0..4_u32);
        let recorder = Recorder::new(&sim, |_: &Delivery<u32>| Plan::hang().panic_on_drop());
        let log = recorder.log();
        let handle = Runner::new(runtime(&sim), supplier, recorder).start();
        sim.advance(SECOND);
        let report = sim.block_on(handle.stop_within(SECOND)).unwrap();
        assert_eq!(report.counters.abandoned, 4);
        assert_eq!((log.running(), sim.panics()), (0, 0));
    });
}

/// An error that panics when it is made into a boxed one.
struct Stubborn;

impl From<Stubborn> for BoxError {
    fn from(_: Stubborn) -> Self {
        panic!("no conversion")
    }
}

struct Failing;

impl UpdateConsumer<u32> for Failing {
    type Error = Stubborn;

    async fn consume(&self, _: Delivery<u32>) -> Result<(), Stubborn> {
        Err(Stubborn)
    }
}

#[test]
fn an_error_that_panics_when_it_is_converted() {
    quiet();
    let sim = SimRuntime::new(1);
    let supplier = ScriptedSupplier::new(&sim).batch(0..3_u32);
    let handle = Runner::new(runtime(&sim), supplier, Failing)
        .sequentialize(|_| [Key::chat(1)])
        .start();
    sim.advance(SECOND);
    assert_eq!(handle.stats().counters.panicked, 3);
    assert_eq!(sim.panics(), 0);
}

/// An update whose destructor panics.
struct Grenade {
    number: u32,
    dropped: Arc<AtomicU64>,
}

impl Drop for Grenade {
    fn drop(&mut self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
        assert!(std::thread::panicking(), "dropped");
    }
}

/// Hands out one at a time, so that none shares its memory with another one.
struct Grenades {
    next: u32,
    dropped: Arc<AtomicU64>,
}

impl UpdateSupplier for Grenades {
    type Update = Grenade;
    type Error = Infallible;

    async fn supply(&mut self, _: NonZeroUsize) -> Result<Vec<Grenade>, Infallible> {
        if self.next == 20 {
            std::future::pending::<()>().await;
        }
        let number = self.next;
        self.next += 1;
        let dropped = Arc::clone(&self.dropped);
        Ok(vec![Grenade { number, dropped }])
    }
}

#[test]
fn an_update_that_panics_when_it_is_dropped() {
    quiet();
    for_each_seed(20, |sim| {
        let dropped = Arc::new(AtomicU64::new(0));
        let supplier = Grenades {
            next: 0,
            dropped: Arc::clone(&dropped),
        };
        let handle = Runner::for_each_with(
            runtime(&sim),
            supplier,
            sim.clone(),
            |sim, update: Delivery<Grenade>| async move {
                match update.number % 4 {
                    0 => sim.sleep(MS).await,
                    1 => return Err("no"),
                    2 => std::future::pending().await,
                    _ => {}
                }
                // Not by the handler: else it would be the one that panics.
                std::mem::forget(update.clone());
                Ok(())
            },
        )
        .sink(
            SinkOptions::concurrent()
                .timeout(SECOND)
                .max_waiting_per_key(n(2)),
        )
        .sequentialize(|update: &Grenade| {
            assert_ne!(update.number, 7, "no key");
            [Key::chat(i64::from(update.number % 3))]
        })
        .policy(
            |failure: Failure<Grenade>| match failure.update.attempt().get() {
                1 => Verdict::Retry { after: MS },
                _ => Verdict::Skip,
            },
        )
        .start();
        sim.advance(100 * SECOND);
        assert_eq!(handle.stats().counters.settled(), 20);
        assert!(dropped.load(Ordering::Relaxed) > 0);
        assert_eq!(sim.panics(), 0);
        let report = sim.block_on(handle.stop()).unwrap();
        assert!(report.abandoned.is_empty());
    });
}
