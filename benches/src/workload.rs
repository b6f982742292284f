//! What is handled, and what a handler does.

use std::{
    future::poll_fn,
    hint::black_box,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    task::Poll,
    time::{Duration, Instant},
};

use crate::runtime::Rt;

/// One update: 64 bytes, as the ids and a pointer or two of a real one.
#[derive(Clone, Debug)]
pub struct Update {
    /// Counts from 0.
    pub id: u64,
    /// What orders it.
    pub chat: i64,
    /// The second key, where two are used.
    pub user: i64,
    _rest: [u64; 5],
}

/// How chats are distributed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chats {
    /// Each of a thousand equally often.
    Thousand,
    /// A few often, most seldom.
    Zipf,
    /// All the same.
    Hot,
}

/// What a handler does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Nothing.
    Noop,
    /// Lets others run, once.
    Yield,
    /// Waits 1 ms.
    Sleep,
    /// Computes for about 2 µs.
    Cpu,
}

/// Batches of `size`, `count` updates in all.
#[must_use]
pub fn batches(count: u64, size: usize, chats: Chats) -> Vec<Vec<Update>> {
    let mut random = fastrand::Rng::with_seed(7);
    let mut id = 0;
    let mut all = Vec::new();
    while id < count {
        let batch = (id..count.min(id + size as u64))
            .map(|id| Update {
                id,
                chat: match chats {
                    Chats::Thousand => random.i64(0..1_000),
                    // The inverse of the cumulated 1/x.
                    Chats::Zipf => 1_000_f64.powf(random.f64()) as i64,
                    Chats::Hot => 0,
                },
                user: random.i64(0..1_000),
                _rest: [id; 5],
            })
            .collect::<Vec<_>>();
        id += batch.len() as u64;
        all.push(batch);
    }
    all
}

/// Counts what was handled, and checks the order within each chat.
///
/// Each thread counts by itself: cores that take one counter from each other would cost more than what
/// is measured, and hide it.
#[derive(Debug)]
pub struct Tally {
    handled: [Counter; THREADS],
    violations: AtomicU64,
    last: Vec<AtomicU64>,
}

/// In lines of memory of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Counter(AtomicU64);

/// Threads beyond so many share counters.
const THREADS: usize = 16;

thread_local! {
    static THREAD: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed) % THREADS
    };
}

impl Tally {
    /// With a place for every chat. Lives for ever, so that handlers need no count of who holds it.
    #[must_use]
    pub fn new() -> &'static Self {
        Box::leak(Box::new(Self {
            handled: Default::default(),
            violations: AtomicU64::new(0),
            last: (0..=1_000).map(|_| AtomicU64::new(0)).collect(),
        }))
    }

    /// How many handlers have ended.
    #[must_use]
    pub fn handled(&self) -> u64 {
        let counters = self.handled.iter();
        counters
            .map(|counter| counter.0.load(Ordering::Acquire))
            .sum()
    }

    /// How often an update began after a later one of its chat.
    #[must_use]
    pub fn violations(&self) -> u64 {
        self.violations.load(Ordering::Acquire)
    }
}

/// Handles one update.
pub async fn handle<R: Rt>(rt: &'static R, work: Work, tally: &'static Tally, id: u64, chat: i64) {
    // Ids count from 0; 0 in `last` means none.
    let before = tally.last[chat as usize].fetch_max(id + 1, Ordering::Relaxed);
    if before > id + 1 {
        tally.violations.fetch_add(1, Ordering::Relaxed);
    }
    match work {
        Work::Noop => {}
        Work::Yield => yield_now().await,
        Work::Sleep => rt.sleep(Duration::from_millis(1)).await,
        Work::Cpu => {
            let until = Instant::now() + Duration::from_micros(2);
            while Instant::now() < until {
                black_box(id);
            }
        }
    }
    let thread = THREAD.with(|thread| *thread);
    tally.handled[thread].0.fetch_add(1, Ordering::Release);
}

/// Lets others run, once.
pub async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
