//! Many updates in flight: what each keeps in memory, and what others cost meanwhile.

use std::{
    convert::Infallible,
    future::pending,
    mem::{size_of, size_of_val},
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use benches::runtime::Rt;
use runner::{Delivery, Key, Runner, RunnerHandle, SinkOptions, UpdateSupplier};
use stats_alloc::Region;

use crate::ALLOCATOR;

/// As large as those of the other workloads; the first number is the id.
type Update = [u64; 8];

const CHATS: u64 = 1_000;

/// Makes updates when they are asked for, so that each is in memory only once.
struct Fresh {
    next: u64,
    /// How many may be fetched; raised from outside.
    open: async_channel::Receiver<u64>,
    end: u64,
}

impl UpdateSupplier for Fresh {
    type Update = Update;
    type Error = Infallible;

    async fn supply(&mut self, _limit: NonZeroUsize) -> Result<Vec<Update>, Infallible> {
        while self.next == self.end {
            match self.open.recv().await {
                Ok(more) => self.end += more,
                Err(_) => pending().await,
            }
        }
        let end = self.end.min(self.next + 100);
        let batch = (self.next..end).map(|id| [id; 8]).collect();
        self.next = end;
        Ok(batch)
    }
}

/// What handlers have done so far.
struct Seen {
    /// Handlers that wait for ever, and handlers that have ended.
    counted: AtomicU64,
    /// At how many of these to say so. Nobody looks again and again: that would be counted, too.
    goal: AtomicU64,
    reached: SyncSender<()>,
    future_bytes: AtomicU64,
}

impl Seen {
    fn count(&self) {
        let counted = self.counted.fetch_add(1, Ordering::AcqRel) + 1;
        if counted == self.goal.load(Ordering::Acquire) {
            self.reached.send(()).expect("somebody waits for it");
        }
    }
}

async fn handle(update: Delivery<Update>, held: u64, seen: Arc<Seen>) {
    seen.count();
    if update[0] < held {
        pending::<()>().await;
    }
}

/// A runner whose first `held` updates are never done with.
pub(crate) struct Holding {
    handle: RunnerHandle<Update>,
    more: async_channel::Sender<u64>,
    seen: Arc<Seen>,
    reached: Receiver<()>,
}

impl Holding {
    fn start<R: Rt>(rt: &R, held: u64, keyed: bool) -> Self {
        let (more, open) = async_channel::bounded(1);
        let (reach, reached) = sync_channel(1);
        let supplier = Fresh {
            next: 0,
            open,
            end: held,
        };
        let seen = Arc::new(Seen {
            counted: AtomicU64::new(0),
            // With keys, only the first of each chat begins.
            goal: AtomicU64::new(if keyed { CHATS.min(held) } else { held }),
            reached: reach,
            future_bytes: AtomicU64::new(0),
        });
        let shared = Arc::clone(&seen);
        let runner = Runner::for_each(rt.seam(), supplier, move |update: Delivery<Update>| {
            let handler = handle(update, held, Arc::clone(&shared));
            let bytes = size_of_val(&handler) as u64;
            shared.future_bytes.store(bytes, Ordering::Relaxed);
            handler
        });
        let concurrency = NonZeroUsize::new(held as usize + 500).expect("at least 500");
        let options = SinkOptions::concurrent()
            .concurrency(concurrency)
            .max_waiting(concurrency)
            .timeout(Duration::from_secs(3_600));
        let runner = runner.sink(options);
        let runner = if keyed {
            runner.sequentialize(|update: &Update| [Key::chat((update[0] % CHATS) as i64)])
        } else {
            runner
        };
        let handle = runner.start();
        reached.recv().expect("handlers begin");
        while keyed && handle.stats().waiting < held.saturating_sub(CHATS) as usize {
            sleep(Duration::from_millis(1));
        }
        Self {
            handle,
            more,
            seen,
            reached,
        }
    }

    /// Lets so many updates pass.
    fn pass(&self, count: u64) {
        self.seen.goal.fetch_add(count, Ordering::AcqRel);
        self.more.send_blocking(count).expect("the runner fetches");
        self.reached.recv().expect("all pass");
    }

    /// Ends it at once.
    pub(crate) fn cut<R: Rt>(self, rt: &R) {
        let Self { handle, seen, .. } = self;
        rt.block_on(async move {
            let report = handle.stop_within(Duration::ZERO).await;
            let _ = report.expect("nothing fails");
        });
        // What is freed later would be taken for what the next one does not use.
        while Arc::strong_count(&seen) > 1 {
            sleep(Duration::from_millis(1));
        }
    }
}

/// What each of `count` updates in flight keeps in memory, above itself and the future of its
/// handler.
pub(crate) fn bytes_in_flight<R: Rt>(rt: &R, count: u64) -> f64 {
    let (bytes, future) = bytes(rt, count, false);
    bytes - future
}

/// What each of `count` updates keeps, above itself, of which all but a thousand wait for their
/// key.
pub(crate) fn bytes_waiting<R: Rt>(rt: &R, count: u64) -> f64 {
    bytes(rt, count, true).0
}

fn bytes<R: Rt>(rt: &R, count: u64, keyed: bool) -> (f64, f64) {
    let region = Region::new(ALLOCATOR);
    let holding = Holding::start(rt, count, keyed);
    let change = region.change();
    let kept = change.bytes_allocated as f64 - change.bytes_deallocated as f64;
    let future = holding.seen.future_bytes.load(Ordering::Relaxed);
    holding.cut(rt);
    (
        kept / count as f64 - size_of::<Update>() as f64,
        future as f64,
    )
}

/// Nanoseconds for each of `count` updates whose handler does nothing, while `held` are in flight.
pub(crate) fn pass<R: Rt>(rt: &R, held: u64, count: u64) -> (f64, Holding) {
    let holding = Holding::start(rt, held, false);
    let began = Instant::now();
    holding.pass(count);
    let nanos = began.elapsed().as_nanos() as f64 / count as f64;
    (nanos, holding)
}
