//! The source shares its thread, however fast the supplier is.

mod common;

use std::{
    convert::Infallible,
    future::{pending, ready},
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use common::{n, runtime};
use futures::{StreamExt, stream};
use runner_core::{
    Delivery, Runner, Runtime, SinkOptions, Source, SourceOptions, UpdateSupplier, supply,
    testing::{SimRuntime, for_each_seed},
};

/// More calls than a supplier may get before others have had a turn.
const MANY: usize = 1_000;

/// Answers at once, as often as it is called; waits only after far too many calls.
#[derive(Clone, Default)]
struct Eager(Arc<AtomicUsize>);

impl Eager {
    fn calls(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl UpdateSupplier for Eager {
    type Update = u32;
    type Error = Infallible;

    async fn supply(&mut self, limit: NonZeroUsize) -> Result<Vec<u32>, Infallible> {
        if self.0.fetch_add(1, Ordering::Relaxed) >= MANY {
            pending::<()>().await;
        }
        Ok(vec![0; limit.get()])
    }
}

/// As [`Eager`], with answers of another size.
struct Answers(Eager, fn(NonZeroUsize) -> Vec<u32>);

impl UpdateSupplier for Answers {
    type Update = u32;
    type Error = Infallible;

    async fn supply(&mut self, limit: NonZeroUsize) -> Result<Vec<u32>, Infallible> {
        self.0.supply(limit).await?;
        Ok((self.1)(limit))
    }
}

fn unbounded() -> SinkOptions {
    SinkOptions::concurrent().concurrency(NonZeroUsize::MAX)
}

/// How many calls the supplier has had when a task beside it has its first turn.
fn note_turn(sim: &SimRuntime, supplier: &Eager) -> Arc<AtomicUsize> {
    let turn = Arc::new(AtomicUsize::new(usize::MAX));
    let (seen, supplier) = (Arc::clone(&turn), supplier.clone());
    sim.spawn(Box::pin(async move {
        seen.store(supplier.calls(), Ordering::Relaxed);
    }));
    turn
}

#[test]
fn a_task_beside_a_run_gets_its_turn() {
    for_each_seed(20, |sim| {
        let supplier = Eager::default();
        let handled = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&handled);
        let handler = async |count: Arc<AtomicUsize>, _: Delivery<u32>| {
            count.fetch_add(1, Ordering::Relaxed);
        };
        let handle = Runner::for_each_with(runtime(&sim), supplier.clone(), count, handler)
            .sink(unbounded())
            .start();
        let turn = note_turn(&sim, &supplier);
        // Handlers are tasks beside it, too.
        let calls = sim.block_on(async {
            while handled.load(Ordering::Relaxed) == 0 {
                sim.yield_now().await;
            }
            supplier.calls()
        });
        assert!(
            calls < 100,
            "{calls} calls before the first update is handled"
        );
        let report = sim.block_on(handle.stop()).unwrap();
        assert_eq!(report.counters.finished, report.counters.supplied);
        let turn = turn.load(Ordering::Relaxed);
        assert!(turn < 100, "{turn} calls before the task beside");
    });
}

#[test]
fn a_signal_ends_a_run_of_a_supplier_that_never_waits() {
    let sim = SimRuntime::new(1);
    let supplier = Eager::default();
    let mut runner = Runner::for_each(runtime(&sim), supplier.clone(), async |_: Delivery<u32>| {})
        .sink(unbounded());
    let signals = stream::once(ready(()));
    let report = sim.block_on(runner.run_until(signals)).unwrap();
    assert!(supplier.calls() < 100, "{} calls", supplier.calls());
    assert_eq!(report.counters.finished, report.counters.supplied);
}

#[test]
fn a_task_beside_the_batches_of_a_source_gets_its_turn() {
    for_each_seed(20, |sim| {
        let supplier = Eager::default();
        let calls = supplier.clone();
        let mut source = Source::new(runtime(&sim), supplier.clone(), SourceOptions::default());
        sim.spawn(Box::pin(async move {
            let batches = source.batches(n(100));
            batches.for_each(|_| ready(())).await;
        }));
        let turn = note_turn(&sim, &calls);
        sim.run_until_idle();
        let turn = turn.load(Ordering::Relaxed);
        assert!(turn < 100, "{turn} calls before the task beside");
    });
}

/// While it yields, others may take the room that there was.
#[test]
fn a_run_looks_for_room_after_it_has_yielded() {
    for_each_seed(20, |sim| {
        // Fewer than asked for, so that there is room for more after each.
        let few = |_: NonZeroUsize| vec![0; 3];
        let supplier = Answers(Eager::default(), few);
        let calls = supplier.0.clone();
        let handle = Runner::for_each(runtime(&sim), supplier, |_: Delivery<u32>| pending::<()>())
            .sink(unbounded().prefetch(0))
            .start();
        let (seen, own, clock) = (calls.clone(), handle.clone(), sim.clone());
        let lowered = Arc::<AtomicUsize>::default();
        let noted = Arc::clone(&lowered);
        sim.spawn(Box::pin(async move {
            while seen.calls() == 0 {
                clock.yield_now().await;
            }
            own.set_concurrency(NonZeroUsize::MIN);
            noted.store(seen.calls(), Ordering::Relaxed);
        }));
        sim.run_until_idle();
        assert_eq!(calls.calls(), lowered.load(Ordering::Relaxed));
        drop(sim.block_on(handle.stop_within(std::time::Duration::ZERO)));
    });
}

/// A call that is dropped at the point where it makes way must lose nothing.
#[test]
fn making_way_loses_no_update() {
    for_each_seed(20, |sim| {
        let supplier = supply::from_iter(0..1_000);
        let mut source = Source::new(runtime(&sim), supplier, SourceOptions::default());
        let mut seen = Vec::new();
        sim.block_on(async {
            while !source.is_exhausted() {
                let next = source.next(n(7));
                let turns = sim.below(3);
                let give_up = async {
                    for _ in 0..turns {
                        sim.yield_now().await;
                    }
                };
                let (next, give_up) = (std::pin::pin!(next), std::pin::pin!(give_up));
                if let futures::future::Either::Left((Some(Ok(batch)), _)) =
                    futures::future::select(next, give_up).await
                {
                    seen.extend(batch);
                }
            }
        });
        assert_eq!(seen, (0..1_000).collect::<Vec<_>>());
    });
}
