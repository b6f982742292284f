//! The bound in bytes, from the answer of the server to the handler.

mod common;

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use common::{LONG, MS, SECOND, n, runtime};
use runner_core::{
    Bot, BoxError, Delivery, GetUpdates, Key, RuntimeExt, SinkOptions, SupplyError, UpdatesRequest,
    testing::{FakeApi, SimRuntime, for_each_seed},
};

/// The default bound.
const BOUND: usize = 64 << 20;

/// The size of an update.
const SIZE: usize = 100_000;

/// An update that counts as large, and is counted as long as it exists.
struct Large {
    id: i64,
    live: Arc<AtomicUsize>,
}

impl Large {
    fn new(id: i64, live: &Arc<AtomicUsize>) -> Self {
        live.fetch_add(1, Ordering::Relaxed);
        let live = Arc::clone(live);
        Self { id, live }
    }
}

impl Clone for Large {
    fn clone(&self) -> Self {
        Self::new(self.id, &self.live)
    }
}

impl Drop for Large {
    fn drop(&mut self) {
        self.live.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A client whose updates are large, and all of the same group unless they have negative ids.
struct Group(Infallible);

impl GetUpdates for Group {
    type Raw = Large;
    type Update = Large;
    type Error = SupplyError;

    async fn get_updates(&mut self, _: &UpdatesRequest) -> Result<Vec<Large>, SupplyError> {
        match self.0 {}
    }

    async fn delete_webhook(&mut self, _: bool) -> Result<(), SupplyError> {
        match self.0 {}
    }

    fn update_id(raw: &Large) -> i64 {
        raw.id
    }

    fn default_key(_: &Large) -> Option<Key> {
        Some(Key::chat(-100))
    }

    fn size(_: &Large) -> usize {
        SIZE
    }

    fn decode(raw: Delivery<Large>) -> Result<Delivery<Large>, BoxError> {
        Ok(raw)
    }
}

/// A server with so many large updates, and how many of them exist.
fn server(sim: &SimRuntime, count: i64) -> (FakeApi<Group>, Arc<AtomicUsize>) {
    let live = Arc::default();
    let updates: Vec<_> = (1..=count).map(|id| Large::new(id, &live)).collect();
    let api = FakeApi::new(updates).runtime(Arc::new(sim.clone()));
    (api, live)
}

#[test]
fn a_busy_group_with_large_updates_stays_near_the_bound() {
    #[cfg(feature = "tracing")]
    common::log::listen();
    let sim = SimRuntime::new(1);
    let (api, live) = server(&sim, 16_384);
    let bot = Bot::for_each_with(api.clone(), sim.clone(), async |sim: SimRuntime, _| {
        sim.sleep(MS).await;
    });
    let handle = bot.into_runner(runtime(&sim)).start();
    let mut most = 0;
    let mut rounds = 0;
    while handle.stats().counters.finished < 16_384 {
        sim.advance(100 * MS);
        let stats = handle.stats();
        let bytes = stats.bytes;
        assert_eq!(
            bytes,
            (stats.in_flight + stats.ready + stats.waiting) * SIZE
        );
        // One batch may exceed the bound, and a few neighbours of what is held are kept.
        assert!(bytes < BOUND + 100 * SIZE, "{bytes}");
        let held = live.load(Ordering::Relaxed) - api.unconfirmed();
        assert!(held * SIZE < BOUND + 130 * SIZE, "{held}");
        most = most.max(bytes);
        rounds += 1;
        // No pause between two batches: intake goes on while there is something to do.
        assert!(rounds <= 165, "{:?}", handle.stats());
    }
    assert!(most >= BOUND, "{most}");
    // A whole batch each time, and not one call for every update that leaves.
    assert!(api.requests().len() < 300, "{}", api.requests().len());
    let report = sim.block_on(handle.stop()).unwrap();
    assert_eq!((report.counters.finished, api.unconfirmed()), (16_384, 0));

    #[cfg(feature = "tracing")]
    {
        let lines = common::log::lines();
        let warnings: Vec<_> = lines
            .iter()
            .filter(|line| line.message.contains("too much is held"))
            .collect();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        let bytes = warnings[0].fields.split("bytes=").nth(1);
        let bytes: usize = bytes.and_then(|rest| rest.trim().parse().ok()).unwrap();
        assert!((BOUND..BOUND + 100 * SIZE).contains(&bytes), "{bytes}");
        assert!(warnings[0].fields.contains("key=chat"), "{warnings:?}");
    }
}

/// One handler in sixteen hangs. The others were its neighbours in a batch.
#[test]
fn large_updates_that_have_been_handled_are_not_kept_by_their_neighbours() {
    for_each_seed(3, |sim| {
        let (api, live) = server(&sim, 16_384);
        let state = sim.clone();
        let bot = Bot::for_each_with(
            api.clone(),
            state,
            async |sim: SimRuntime, update: Delivery<Large>| {
                if update.id % 16 == 0 {
                    sim.sleep(LONG).await;
                }
            },
        )
        .sink(SinkOptions::concurrent().concurrency(n(10_000)))
        .unordered();
        let handle = bot.into_runner(runtime(&sim)).start();
        sim.advance(10 * SECOND);
        assert!(handle.stats().bytes >= BOUND);
        let held = live.load(Ordering::Relaxed) - api.unconfirmed();
        assert!(held * SIZE < BOUND + 130 * SIZE, "{held}");
        sim.block_on(handle.stop_within(SECOND)).unwrap();
    });
}
