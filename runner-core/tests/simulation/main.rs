//! The whole pipeline under simulation: thousands of schedules with faults on every side, judged by
//! an independent record.
//!
//! `RUNNER_SEEDS=20000` plays more seeds, `RUNNER_SEED=17` plays one again and tells every event of it.

mod alone;
mod check;
mod consumer;
mod coverage;
mod dice;
mod director;
mod ends;
mod feed;
mod feeder;
mod observed;
mod oracle;
mod policy;
mod server;
mod supplier;
mod world;

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use runner_core::testing::{SimRuntime, for_each_seed};

use self::{
    coverage::{Coverage, Seen},
    world::World,
};

/// How many seeds the normal test run plays.
const SEEDS: u64 = 2_000;

/// How often each kind of fault and control action has to happen in them.
const LEAST: u64 = 100;

#[test]
fn every_promise_holds_whatever_happens() {
    let mut coverage = Coverage::default();
    let mut played = 0;
    for_each_seed(SEEDS, |sim| {
        let (seen, _) = play(&sim);
        coverage.merge(&seen);
        coverage.merge(&alone::play(sim.seed()));
        played += 1;
    });
    println!("{played} seeds\n{coverage}");
    if played >= SEEDS {
        let rare = coverage.rare(LEAST);
        assert!(
            rare.is_empty(),
            "happened less than {LEAST} times: {rare:?}"
        );
    }
}

#[test]
fn a_seed_replays_exactly() {
    for seed in (0..10_000).step_by(157) {
        let [one, other] = [(); 2].map(|()| play(&SimRuntime::new(seed)).1);
        assert_eq!(one, other, "seed {seed} plays differently each time");
    }
}

/// How many of the last events to tell: a few, or all of a seed that is played alone.
fn tail() -> usize {
    match std::env::var_os("RUNNER_SEED") {
        Some(_) => usize::MAX,
        None => 60,
    }
}

/// Plays one seed; how often what happened, and a number that only the same story has.
fn play(sim: &SimRuntime) -> (Coverage, u64) {
    let world = World::new(sim.clone());
    let played = catch_unwind(AssertUnwindSafe(|| {
        sim.block_on(director::direct(&world));
        // Whoever is still about to do something finds the runner gone.
        sim.advance(Duration::from_secs(10));
    }));
    let mut oracle = world.oracle();
    if played.is_ok() {
        let (tasks, panics) = (sim.tasks(), sim.panics());
        let live = world.live.load(Ordering::Relaxed);
        oracle.require(panics == 0, || format!("{panics} tasks panicked"));
        oracle.require(tasks == 0, || format!("{tasks} tasks are left"));
        oracle.require(live == 0, || format!("{live} updates are left"));
    }
    if let Some(violation) = oracle.violation.take() {
        let tail = oracle.tail(tail());
        drop(oracle);
        panic!("{tail}\n{:#?}\n{violation}", world.config);
    }
    if let Err(panic) = played {
        eprintln!("{}\n{:#?}", oracle.tail(tail()), world.config);
        drop(oracle);
        resume_unwind(panic);
    }
    for _ in 0..world.exploded.load(Ordering::Relaxed) {
        oracle.coverage.add(Seen::UpdatePanicsInDrop);
    }
    let played = (oracle.coverage.clone(), oracle.story());
    drop(oracle);
    drop(Arc::into_inner(world));
    played
}
