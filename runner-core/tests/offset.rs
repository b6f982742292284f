//! Updates over many runs that are stopped at random, against an unreliable server: what is
//! reported is what happens.

#[path = "common/api.rs"]
mod api;
mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use api::{Api, Raw, Reply};
use common::{MS, SECOND, n, runtime};
use runner_core::{
    Confirmation, Delivery, Fate, FetchOptions, Report, Runner, Runtime, RuntimeExt, SinkOptions,
    SupplyError, UpdateFetcher,
    testing::{SimRuntime, for_each_seed},
};

/// How many updates arrive.
const UPDATES: i64 = 300;

/// What is known of all runs together.
#[derive(Default)]
struct Ledger {
    /// The runs in which an update was finished.
    finished: BTreeMap<i64, Vec<usize>>,
    lost: BTreeSet<i64>,
    /// The first update that each run has left behind.
    left: BTreeMap<usize, i64>,
    /// How many were said to come again.
    redelivered: usize,
}

impl Ledger {
    fn note(&mut self, run: usize, report: &Report<Raw>, api: &Api) {
        for abandoned in &*report.abandoned {
            let id = abandoned.update.id;
            self.left.entry(run).or_insert(id);
            match abandoned.fate {
                Fate::Redelivered => {
                    self.redelivered += 1;
                    let queue = api.queue();
                    assert!(queue.contains(&id), "{id} cannot come again: {queue:?}");
                }
                Fate::Lost => {
                    self.lost.insert(id);
                }
                fate => panic!("{fate:?}"),
            }
        }
        if let Confirmation::Confirmed { position } = report.confirmation {
            let first = api.queue().first().copied();
            assert!(first.is_none_or(|first| first >= position));
        }
    }

    fn check(&self) {
        for id in 0..UPDATES {
            let runs = self.finished.get(&id);
            assert!(runs.is_some() || self.lost.contains(&id), "{id} vanished");
            // Twice only if an earlier one was left behind by the run that finished it first.
            for run in runs.iter().flat_map(|runs| &runs[..runs.len() - 1]) {
                let left = self.left.get(run);
                assert!(left.is_some_and(|left| *left < id), "{id} was repeated");
            }
        }
    }
}

fn fault(sim: &SimRuntime) -> Reply {
    let delay = MS * u32::try_from(sim.below(700)).unwrap();
    match sim.below(20) {
        0 => Reply::Fail(delay, SupplyError::transient("connection refused")),
        1 => Reply::Fail(delay, SupplyError::retry_after(delay, "too many requests")),
        2 => Reply::Reset(delay),
        3 => Reply::Hang,
        4 => Reply::Ids(Vec::new()),
        5..10 => Reply::Late(delay),
        _ => Reply::Answer,
    }
}

fn explore(sim: &SimRuntime, options: SinkOptions<impl Sized>) -> Ledger {
    let api = Api::new(sim);
    let feed = {
        let (sim, api) = (sim.clone(), api.clone());
        async move {
            for id in 0..UPDATES {
                sim.sleep(MS * u32::try_from(sim.below(60)).unwrap()).await;
                api.push([id]);
            }
        }
    };
    sim.spawn(Box::pin(feed));

    let ledger = Arc::new(Mutex::new((0_usize, Ledger::default())));
    let handler = {
        let (sim, ledger) = (sim.clone(), Arc::clone(&ledger));
        move |update: Delivery<Raw>| {
            let (sim, ledger) = (sim.clone(), Arc::clone(&ledger));
            async move {
                let last_run = ledger.lock().unwrap().0 == RUNS;
                if sim.below(40) == 0 && !last_run {
                    std::future::pending::<()>().await;
                }
                sim.sleep(MS * u32::try_from(sim.below(100)).unwrap()).await;
                let (run, ledger) = &mut *ledger.lock().unwrap();
                ledger.finished.entry(update.id).or_default().push(*run);
            }
        }
    };
    // Short, so that a dead connection does not outlast a run.
    let fetch = FetchOptions::default()
        .timeout(2 * SECOND)
        .margin(Duration::ZERO);
    let fetcher = UpdateFetcher::new(runtime(sim), api.clone()).options(fetch);
    let handle = Runner::for_each(runtime(sim), fetcher, handler)
        .sink(options)
        .start();
    for run in 0..RUNS {
        api.script((0..10).map(|_| fault(sim)));
        sim.advance(MS * u32::try_from(sim.below(2_500)).unwrap());
        let limit = MS * u32::try_from(sim.below(150)).unwrap();
        let report = sim.block_on(handle.stop_within(limit)).unwrap();
        let (current, ledger) = &mut *ledger.lock().unwrap();
        ledger.note(run, &report, &api);
        *current = run + 1;
        handle.start().unwrap();
    }
    // The last run has all the time it needs.
    sim.advance(300 * SECOND);
    let report = sim.block_on(handle.stop()).unwrap();
    assert!(report.abandoned.is_empty());
    let (_, mut ledger) = std::mem::take(&mut *ledger.lock().unwrap());
    ledger.note(RUNS, &report, &api);
    assert_eq!(api.queue(), []);
    ledger
}

/// How many runs are stopped before the last one.
const RUNS: usize = 8;

/// How many updates were lost and how many came again, over many seeds.
fn totals(options: &SinkOptions<impl Sized>) -> (usize, usize) {
    let mut lost = 0;
    let mut redelivered = 0;
    for_each_seed(60, |sim| {
        let ledger = explore(&sim, options.clone());
        ledger.check();
        lost += ledger.lost.len();
        redelivered += ledger.redelivered;
    });
    (lost, redelivered)
}

#[test]
fn a_sink_that_fetches_when_all_is_settled_loses_nothing() {
    for sink in [SinkOptions::sequential().any(), SinkOptions::batch().any()] {
        let (lost, redelivered) = totals(&sink);
        assert_eq!(lost, 0);
        assert!(redelivered > 100, "{redelivered}");
    }
}

#[test]
fn a_sink_that_fetches_ahead_says_what_is_lost() {
    // Full most of the time, so that the last batch can often come again.
    let full = SinkOptions::concurrent().concurrency(n(5)).prefetch(100);
    let (lost, redelivered) = totals(&full);
    assert!(lost > 100, "{lost}");
    assert!(redelivered > 100, "{redelivered}");
    let (lost, _) = totals(&SinkOptions::concurrent());
    assert!(lost > 100, "{lost}");
}
