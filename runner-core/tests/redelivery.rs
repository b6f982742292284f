//! Which updates a handler may have seen before: in an earlier attempt, or in an earlier run.

mod common;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use common::{MS, SECOND, n, runtime};
use runner_core::{
    Delivery, Fate, Runner, RuntimeExt, SinkOptions,
    testing::{ScriptedSupplier, SimRuntime, for_each_seed},
};

/// What handlers saw: the update, and whether it was marked.
type Seen = Arc<Mutex<Vec<(u32, bool)>>>;

fn taken(seen: &Seen) -> Vec<(u32, bool)> {
    let mut taken = std::mem::take(&mut *seen.lock().unwrap());
    taken.sort_unstable();
    taken
}

/// Two of four updates start, and a stop abandons them; the next run gets all of them again.
fn stopped_and_started(sim: &SimRuntime, options: SinkOptions<impl Sized>, started: &[u32]) {
    let seen = Seen::default();
    let supplier = ScriptedSupplier::new(sim).batch(0..4).rewinding();
    let state = (sim.clone(), Arc::clone(&seen));
    let handle = Runner::for_each_with(
        runtime(sim),
        supplier,
        state,
        |(sim, seen), update: Delivery<u32>| async move {
            seen.lock().unwrap().push((*update, update.redelivered()));
            sim.sleep(SECOND).await;
        },
    )
    .sink(options)
    .start();
    sim.advance(MS);
    let fresh: Vec<_> = started.iter().map(|update| (*update, false)).collect();
    assert_eq!(taken(&seen), fresh);
    let report = sim.block_on(handle.stop_within(Duration::ZERO)).unwrap();
    assert_eq!(report.abandoned.len(), 4);
    assert!(
        report
            .abandoned
            .iter()
            .all(|left| left.fate == Fate::Redelivered)
    );
    handle.start().unwrap();
    sim.advance(10 * SECOND);
    let again: Vec<_> = (0..4)
        .map(|update| (update, started.contains(&update)))
        .collect();
    assert_eq!(taken(&seen), again);
    assert_eq!(sim.block_on(handle.stop()).unwrap().counters.finished, 4);
}

#[test]
fn an_update_whose_handler_ran_in_an_earlier_run_is_redelivered_in_the_next_one() {
    for_each_seed(20, |sim| {
        stopped_and_started(&sim, SinkOptions::concurrent().concurrency(n(2)), &[0, 1]);
        stopped_and_started(&sim, SinkOptions::batch().concurrency(n(2)), &[0, 1]);
        stopped_and_started(&sim, SinkOptions::sequential(), &[0]);
    });
}

#[test]
fn a_run_that_was_dropped_marks_its_updates_in_the_next_one() {
    for_each_seed(20, |sim| {
        let seen = Seen::default();
        let supplier = ScriptedSupplier::new(&sim).batch(0..4).rewinding();
        let state = (sim.clone(), Arc::clone(&seen));
        let mut runner = Runner::for_each_with(
            runtime(&sim),
            supplier,
            state,
            |(sim, seen), update: Delivery<u32>| async move {
                seen.lock().unwrap().push((*update, update.redelivered()));
                sim.sleep(SECOND).await;
            },
        )
        .sink(SinkOptions::concurrent().concurrency(n(2)));
        let run = sim.timeout(MS, runner.run());
        assert!(sim.block_on(run).is_none());
        assert_eq!(taken(&seen), [(0, false), (1, false)]);
        let run = sim.timeout(10 * SECOND, runner.run());
        assert!(sim.block_on(run).is_none());
        let again = [(0, true), (1, true), (2, false), (3, false)];
        assert_eq!(taken(&seen), again);
    });
}
