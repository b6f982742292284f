//! What one seed plays: its configuration, its updates, and the record that everyone writes.

use std::{
    num::NonZeroUsize,
    panic::resume_unwind,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicIsize, Ordering},
    },
    time::Duration,
};

use runner_core::{AnySink, Key, RunnerHandle, SinkOptions, testing::SimRuntime};

use crate::{coverage::Seen, dice::Dice, feed::FeedConfig, oracle::Oracle};

/// Which of the three sinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Sequential,
    Batch,
    Concurrent,
}

/// What the supplier suffers from, beside the usual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    Fair,
    /// Another poller gets in the way most of the time.
    Haunted,
    /// Most calls fail.
    Stormy,
}

/// Drawn once per seed.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) seed: u64,
    pub(crate) mode: Mode,
    pub(crate) concurrency: usize,
    pub(crate) prefetch: usize,
    pub(crate) max_waiting: usize,
    pub(crate) max_waiting_per_key: Option<usize>,
    /// How many tasks may start handlers; `None`: no bound, and as many look for updates as this
    /// machine can run at once, so such a seed is played otherwise on one with more cores.
    pub(crate) workers: Option<usize>,
    pub(crate) timeout: Option<Duration>,
    /// How many late handlers may go on without their slots, the others go on with them; `None`: late
    /// handlers are cancelled.
    pub(crate) detach: Option<usize>,
    pub(crate) max_bytes: Option<usize>,
    /// How many different keys there are.
    pub(crate) keys: u64,
    /// How many updates there are, repeated ones aside.
    pub(crate) updates: u64,
    pub(crate) rewinding: bool,
    /// How many of a thousand handlers do something bad.
    pub(crate) badness: u64,
    /// Handlers may block; rarely, because it takes everybody's time.
    pub(crate) blocking: bool,
    pub(crate) feed: FeedConfig,
    /// How long a call of the supplier may take.
    pub(crate) call_timeout: Option<Duration>,
    pub(crate) weather: Weather,
    /// Whether the update fetcher is in use.
    pub(crate) fetched: bool,
    /// Whether the supplier says when it has no more.
    pub(crate) ends: bool,
}

impl Config {
    pub(crate) fn draw(seed: u64) -> Self {
        let mut dice = Dice::new(seed, &[1]);
        let mode = dice.pick(&[
            (1, Mode::Sequential),
            (1, Mode::Batch),
            (6, Mode::Concurrent),
        ]);
        let concurrency = match mode {
            Mode::Sequential => 1,
            _ => dice.between(1, 20) as usize,
        };
        let prefetch = match mode {
            Mode::Concurrent => dice.between(0, 30) as usize,
            _ => 0,
        };
        let detach = match mode {
            Mode::Concurrent if dice.chance(400) => {
                Some(dice.pick(&[(1, 1), (1, 3), (2, concurrency)]))
            }
            _ => dice.chance(200).then_some(0),
        };
        let max_bytes = (mode == Mode::Concurrent && dice.chance(300))
            .then(|| dice.between(50, 1_500) as usize);
        Self {
            seed,
            mode,
            concurrency,
            prefetch,
            max_waiting: dice.between(1, 60) as usize,
            max_waiting_per_key: dice.chance(300).then(|| dice.between(1, 4) as usize),
            workers: dice.chance(500).then(|| dice.between(1, 4) as usize),
            timeout: dice.chance(700).then(|| dice.ms(5, 150)),
            detach,
            max_bytes,
            keys: dice.between(1, 10),
            updates: dice.between(20, 120),
            rewinding: dice.chance(700),
            badness: dice.pick(&[(1, 0), (3, 200), (5, 600)]),
            blocking: dice.chance(400),
            feed: FeedConfig::draw(&mut dice),
            call_timeout: dice.chance(500).then(|| dice.ms(30, 200)),
            weather: dice.pick(&[
                (14, Weather::Fair),
                (3, Weather::Haunted),
                (3, Weather::Stormy),
            ]),
            fetched: dice.chance(250),
            ends: dice.chance(400),
        }
    }

    pub(crate) fn sink(&self) -> SinkOptions<AnySink> {
        let n = |number| NonZeroUsize::new(number).expect("drawn from 1 on");
        let concurrency = n(self.concurrency);
        let per_key = self.max_waiting_per_key.map(n);
        let mut options = match self.mode {
            Mode::Sequential => SinkOptions::sequential().any(),
            Mode::Batch => {
                let options = SinkOptions::batch().concurrency(concurrency);
                match per_key {
                    Some(limit) => options.max_waiting_per_key(limit).any(),
                    None => options.any(),
                }
            }
            Mode::Concurrent => {
                let mut options = SinkOptions::concurrent()
                    .concurrency(concurrency)
                    .prefetch(self.prefetch)
                    .max_waiting(n(self.max_waiting));
                if let Some(limit) = per_key {
                    options = options.max_waiting_per_key(limit);
                }
                if let Some(max) = self.detach.filter(|max| *max > 0) {
                    let max = (max != self.concurrency).then(|| n(max));
                    options = options.detach_after_timeout(max);
                }
                if let Some(max) = self.max_bytes {
                    options = options.max_bytes(n(max));
                }
                options.any()
            }
        };
        if self.detach == Some(0) {
            options = options.continue_after_timeout();
        }
        if let Some(workers) = self.workers {
            options = options.workers(n(workers));
        }
        if let Some(timeout) = self.timeout {
            options = options.timeout(timeout);
        }
        options
    }
}

/// Everything that the parts of one simulation share.
pub(crate) struct World {
    pub(crate) sim: SimRuntime,
    pub(crate) config: Config,
    oracle: Mutex<Oracle>,
    /// For all who do something to the runner at a random moment, while there is one.
    handle: Mutex<Option<RunnerHandle<Item>>>,
    /// How many updates exist.
    pub(crate) live: Arc<AtomicIsize>,
    /// How many panicked when they were dropped.
    pub(crate) exploded: Arc<AtomicIsize>,
}

impl World {
    pub(crate) fn new(sim: SimRuntime) -> Arc<Self> {
        let config = Config::draw(sim.seed());
        Arc::new(Self {
            oracle: Mutex::new(Oracle::new(&config, &sim)),
            handle: Mutex::new(None),
            live: Arc::default(),
            exploded: Arc::default(),
            config,
            sim,
        })
    }

    /// The record. Never held while code under test is called.
    pub(crate) fn oracle(&self) -> MutexGuard<'_, Oracle> {
        self.oracle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The handle, unless every handle is gone.
    pub(crate) fn handle(&self) -> Option<RunnerHandle<Item>> {
        self.handle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn set_handle(&self, handle: Option<RunnerHandle<Item>>) {
        let mut place = self.handle.lock().unwrap_or_else(PoisonError::into_inner);
        let last = std::mem::replace(&mut *place, handle);
        drop(place);
        drop(last);
    }

    pub(crate) fn seen(&self, seen: Seen) {
        self.oracle().coverage.add(seen);
    }

    /// Choices that belong to one thing.
    pub(crate) fn dice(&self, name: &[u64]) -> Dice {
        Dice::new(self.config.seed, name)
    }
}

/// One supplied update. What is supplied twice is two items with one `id`.
pub(crate) struct Item {
    /// Counts what was supplied, over all runs; set when it is.
    pub(crate) nr: usize,
    pub(crate) id: u64,
    /// What the server calls it, if it comes from one.
    pub(crate) update_id: i64,
    live: Arc<AtomicIsize>,
    bomb: Option<Arc<AtomicIsize>>,
}

impl Item {
    pub(crate) fn new(world: &World, id: u64) -> Self {
        world.live.fetch_add(1, Ordering::Relaxed);
        Self {
            nr: usize::MAX,
            id,
            update_id: 0,
            live: Arc::clone(&world.live),
            bomb: (world.config.badness > 0 && world.dice(&[2, id]).chance(8))
                .then(|| Arc::clone(&world.exploded)),
        }
    }

    pub(crate) fn fetched(world: &World, update_id: i64, id: u64) -> Self {
        let mut item = Self::new(world, id);
        item.update_id = update_id;
        item
    }

    /// The keys of an update follow from its id, as those of a real one do. A bit for each.
    pub(crate) fn keys(config: &Config, id: u64) -> u32 {
        let mut dice = Dice::new(config.seed, &[3, id]);
        let count = dice.pick(&[(2, 0), (5, 1), (3, 2), (1, 3)]);
        (0..count).fold(0, |keys, _| keys | 1 << (dice.next() % config.keys))
    }

    /// How many bytes an update counts as.
    pub(crate) fn bytes(config: &Config, id: u64) -> usize {
        match Self::has_bad_size(config, id) {
            true => size_of::<Self>(),
            false => Dice::new(config.seed, &[13, id]).between(0, 200) as usize,
        }
    }

    /// Whether the size function panics for it.
    pub(crate) fn has_bad_size(config: &Config, id: u64) -> bool {
        config.badness > 0 && Dice::new(config.seed, &[14, id]).chance(8)
    }

    /// Whether the key function panics for it.
    pub(crate) fn has_bad_keys(config: &Config, id: u64) -> bool {
        config.badness > 0 && Dice::new(config.seed, &[4, id]).chance(8)
    }
}

impl Drop for Item {
    fn drop(&mut self) {
        self.live.fetch_sub(1, Ordering::Relaxed);
        if let Some(exploded) = &self.bomb
            && !std::thread::panicking()
        {
            exploded.fetch_add(1, Ordering::Relaxed);
            planned_panic();
        }
    }
}

/// The keys as the runner is told; notes the arrival of the update.
pub(crate) fn keys(world: &World, item: &Item) -> Vec<Key> {
    let bad = world.oracle().arrive(item.nr);
    if bad {
        planned_panic();
    }
    let keys = Item::keys(&world.config, item.id);
    let scopes = ["chat", "user"];
    (0..32)
        .filter(|bit| keys & 1 << bit != 0)
        .map(|bit| Key::new(scopes[bit as usize % 2], i64::from(bit / 2)))
        .collect()
}

/// The size as the runner is told.
pub(crate) fn size(world: &World, item: &Item) -> usize {
    if Item::has_bad_size(&world.config, item.id) {
        world.seen(Seen::SizePanics);
        planned_panic();
    }
    Item::bytes(&world.config, item.id)
}

/// Panics without a word from the panic hook.
pub(crate) fn planned_panic() -> ! {
    resume_unwind(Box::new("planned"))
}
