//! One key with very many updates at once: what the others notice, and how much is held.
//!
//! `RUNNER_HOT_UPDATES=1000000` makes it long.

mod common;

use std::{
    convert::Infallible,
    num::NonZeroUsize,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use common::{MS, n, runtime};
use runner_core::{
    Delivery, Key, Report, Runner, RuntimeExt, SinkOptions, UpdateSupplier, testing::SimRuntime,
};

/// How many updates the hot key has: some for every day, or as many as the environment asks for.
fn hot() -> usize {
    let asked = std::env::var("RUNNER_HOT_UPDATES").ok();
    asked.map_or(40_000, |count| count.parse().expect("a number of updates"))
}

/// How long a handler takes.
const WORK: Duration = MS;

/// How often one of the others sends something, each with a key of its own.
const EVERY: Duration = Duration::from_millis(100);

/// The bound of the default.
const MAX_WAITING: usize = 16_384;

/// Neighbours of a batch that are dropped together.
const CHUNK: usize = 16;

/// The largest batch.
const BATCH: usize = 100;

/// An update; one of the hot key is counted as long as it exists.
struct Update {
    number: usize,
    /// When the server had it.
    sent: Duration,
    held: Option<Arc<Held>>,
}

#[derive(Default)]
struct Held {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Held {
    fn add(this: &Arc<Self>) -> Arc<Self> {
        let now = this.now.fetch_add(1, Ordering::Relaxed) + 1;
        this.most.fetch_max(now, Ordering::Relaxed);
        Arc::clone(this)
    }
}

impl Drop for Update {
    fn drop(&mut self) {
        if let Some(held) = &self.held {
            held.now.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// A queue like that of the Bot API: the updates of the hot key first, and then one of others
/// again and again, for as long as handling the hot ones takes.
struct Server {
    sim: SimRuntime,
    hot: usize,
    /// How many have been supplied.
    supplied: usize,
    calls: Arc<AtomicUsize>,
    held: Arc<Held>,
}

impl Server {
    fn new(sim: &SimRuntime, held: &Arc<Held>, calls: &Arc<AtomicUsize>) -> Self {
        Self {
            sim: sim.clone(),
            hot: hot(),
            supplied: 0,
            calls: Arc::clone(calls),
            held: Arc::clone(held),
        }
    }

    fn sent(&self, number: usize) -> Option<Duration> {
        let Some(later) = number.checked_sub(self.hot) else {
            return Some(Duration::ZERO);
        };
        let sent = EVERY * u32::try_from(later + 1).unwrap();
        (sent <= WORK * u32::try_from(self.hot).unwrap()).then_some(sent)
    }
}

impl UpdateSupplier for Server {
    type Update = Update;
    type Error = Infallible;

    async fn supply(&mut self, limit: NonZeroUsize) -> Result<Vec<Update>, Infallible> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let Some(first) = self.sent(self.supplied) else {
            return std::future::pending().await;
        };
        let wait = first.saturating_sub(self.sim.elapsed());
        self.sim.sleep(wait).await;
        let now = self.sim.elapsed();
        let batch: Vec<Update> = (self.supplied..self.supplied + limit.get())
            .map_while(|number| {
                let sent = self.sent(number).filter(|sent| *sent <= now)?;
                let held = (number < self.hot).then(|| Held::add(&self.held));
                Some(Update { number, sent, held })
            })
            .collect();
        self.supplied += batch.len();
        Ok(batch)
    }
}

/// What was seen of a run to its end.
struct Seen {
    report: Report<Update>,
    /// The most updates of the hot key that existed at a time.
    most_held: usize,
    calls: usize,
    /// When the others were sent and when their handlers began.
    others: Vec<(Duration, Duration)>,
    took: Duration,
}

fn run(sim: &SimRuntime, options: SinkOptions<impl Sized>) -> Seen {
    let (hot, began) = (hot(), Instant::now());
    let (held, calls) = (Arc::<Held>::default(), Arc::<AtomicUsize>::default());
    let server = Server::new(sim, &held, &calls);
    let others = Arc::new(Mutex::new(Vec::new()));
    let next = Arc::new(AtomicUsize::new(0));
    let state = (sim.clone(), Arc::clone(&others), Arc::clone(&next));
    let handle = Runner::for_each_with(
        runtime(sim),
        server,
        state,
        move |(sim, others, next), update: Delivery<Update>| async move {
            if update.number < hot {
                let expected = next.fetch_add(1, Ordering::Relaxed);
                assert_eq!(update.number, expected, "the hot ones are in order");
            } else {
                others.lock().unwrap().push((update.sent, sim.elapsed()));
            }
            sim.sleep(WORK).await;
        },
    )
    .sink(options)
    .sequentialize(move |update: &Update| {
        let chat = update.number.saturating_sub(hot.saturating_sub(1));
        [Key::chat(i64::try_from(chat).unwrap())]
    })
    .start();
    // The last of the others comes when the last of the hot ones ends.
    sim.advance(WORK * u32::try_from(hot).unwrap() * 2);
    let report = sim.block_on(handle.stop()).unwrap();
    let all = hot + hot * usize::try_from(WORK.as_millis()).unwrap() / 100;
    assert_eq!(report.counters.supplied, all as u64);
    assert_eq!(report.counters.finished, all as u64);
    assert_eq!(next.load(Ordering::Relaxed), hot);
    let others = std::mem::take(&mut *others.lock().unwrap());
    assert_eq!(others.len(), all - hot);
    Seen {
        report,
        most_held: held.most.load(Ordering::Relaxed),
        calls: calls.load(Ordering::Relaxed),
        others,
        took: began.elapsed(),
    }
}

fn tell(case: &str, seen: &Seen) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find(|line| line.starts_with("VmHWM"));
    println!(
        "{case}: {}; at most {} held, {} calls, took {:.1?}, {}",
        seen.report,
        seen.most_held,
        seen.calls,
        seen.took,
        peak.unwrap_or("peak of memory unknown"),
    );
}

#[test]
fn below_the_bound_the_others_wait_for_intake_alone() {
    let sim = SimRuntime::new(3);
    let seen = run(&sim, SinkOptions::concurrent().max_waiting(n(hot())));
    tell("below the bound", &seen);
    // A millisecond for each batch that was sent before them.
    let taken = MS * u32::try_from(hot().div_ceil(BATCH)).unwrap();
    for (sent, began) in seen.others {
        assert!(began <= sent.max(taken), "sent {sent:?}, began {began:?}");
    }
}

#[test]
fn at_the_bound_intake_stops_and_no_more_is_held() {
    #[cfg(feature = "tracing")]
    common::log::listen();
    let sim = SimRuntime::new(3);
    let seen = run(&sim, SinkOptions::concurrent());
    tell("at the bound", &seen);
    // One runs, and its neighbours that have been handled may be kept with it.
    let bound = MAX_WAITING + CHUNK;
    assert!(seen.most_held > MAX_WAITING, "{}", seen.most_held);
    assert!(seen.most_held <= bound, "{}", seen.most_held);

    // It goes on by half a batch at a time, and not by a call for each update that was handled.
    let calls = hot() / (BATCH / 2) + seen.others.len();
    assert!(seen.calls <= calls, "{} calls", seen.calls);

    // A supplier cannot be read selectively: who sends something while it stands still waits until
    // all that was sent before is taken, and no longer but for a pause between two batches of their own.
    let pauses = MS * u32::try_from(seen.others.len().div_ceil(BATCH)).unwrap();
    let taken = WORK * u32::try_from(hot() - MAX_WAITING + BATCH).unwrap() + pauses;
    for (sent, began) in seen.others {
        assert!(
            began <= sent.max(taken),
            "sent at {sent:?}, begun at {began:?}"
        );
    }

    #[cfg(feature = "tracing")]
    {
        let lines = common::log::lines();
        let warnings: Vec<_> = lines
            .iter()
            .filter(|line| line.message.contains("too much is held"))
            .collect();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].fields.contains("depth=16384"), "{warnings:?}");
    }
}
