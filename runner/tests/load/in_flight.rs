//! Very many handlers at work at once, without any bound.
//!
//! `RUNNER_LOAD_IN_FLIGHT=1000000` makes it long.

use std::{
    convert::Infallible,
    env,
    future::pending,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use futures::{FutureExt, channel::oneshot, executor::block_on};
use runner::{Delivery, Runner, RunnerHandle, Runtime, SinkOptions, UpdateSupplier};

use crate::{
    child::{Child, found, told},
    usage::Usage,
};

/// How many updates the child gets.
const UPDATES: &str = "RUNNER_LOAD_UPDATES";

pub(crate) fn all_of_very_many_are_handled_at_once(place: &str) {
    let asked = env::var("RUNNER_LOAD_IN_FLIGHT").ok();
    let count = asked.map_or(20_000, |count| count.parse().expect("a number of updates"));
    let count: u64 = count;
    let mut child = Child::start("in_flight", place, [(UPDATES, &count)]);
    // Nothing it has to know.
    child.tell(0);
    let found = child.end().numbers;
    println!("{place}: {count} in flight: {found:?}");
    assert_eq!(found["in_flight"], count);
    assert_eq!(found["finished"], count);
    assert_eq!(found["settled"], count);
    assert_eq!(found["begun"], count);
    assert_eq!(found["ended"], count);
    assert_eq!(found["abandoned"], count, "each is in the report once");
}

/// The child: all finish together, and then all are abandoned together.
pub(crate) fn run(runtime: &Arc<dyn Runtime>) {
    told();
    let count: u64 = env::var(UPDATES).unwrap().parse().unwrap();
    let before = Usage::of("self");

    let (open, gate) = oneshot::channel::<()>();
    let gate = gate.map(drop).shared();
    let (begun, ended) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (all, wait) = mpsc::channel();
    let state = (gate, Arc::clone(&begun), Arc::clone(&ended), all);
    let began = Instant::now();
    let handle = start(
        runtime,
        count,
        state,
        move |(gate, begun, ended, all), _| async move {
            if begun.fetch_add(1, Ordering::Relaxed) + 1 == count {
                all.send(()).unwrap();
            }
            gate.await;
            ended.fetch_add(1, Ordering::Relaxed);
        },
    );
    wait.recv().unwrap();
    let started = began.elapsed();
    let in_flight = handle.size();
    let full = Usage::of("self");
    open.send(()).unwrap();
    let report = block_on(handle.stop()).unwrap();
    let finished = began.elapsed() - started;

    let (all, wait) = mpsc::channel();
    let hung = Arc::new(AtomicU64::new(0));
    let handle = start(
        runtime,
        count,
        (hung, all),
        move |(hung, all), _| async move {
            if hung.fetch_add(1, Ordering::Relaxed) + 1 == count {
                all.send(()).unwrap();
            }
            pending::<()>().await;
        },
    );
    wait.recv().unwrap();
    let began = Instant::now();
    let last = block_on(handle.stop_within(Duration::ZERO)).unwrap();
    let stopped = began.elapsed();
    let mut abandoned: Vec<u64> = last.abandoned.iter().map(|left| *left.update).collect();
    abandoned.sort_unstable();
    abandoned.dedup();
    let unresponsive = last.abandoned.iter().filter(|left| left.unresponsive);

    let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap();
    found([
        ("in_flight", in_flight as u64),
        ("begun", begun.load(Ordering::Relaxed)),
        ("ended", ended.load(Ordering::Relaxed)),
        ("finished", report.counters.finished),
        ("settled", report.counters.settled()),
        ("abandoned", abandoned.len() as u64),
        ("unresponsive", unresponsive.count() as u64),
        ("started_ms", millis(started)),
        ("finished_ms", millis(finished)),
        ("stopped_ms", millis(stopped)),
        (
            "bytes_each",
            (full.resident - before.resident) * 1_024 / count,
        ),
        ("peak_kib", Usage::of("self").peak),
    ]);
}

/// A runner that supplies this many numbers, with a handler for each at once.
fn start<T, Fut>(
    runtime: &Arc<dyn Runtime>,
    count: u64,
    state: T,
    handler: impl Fn(T, Delivery<u64>) -> Fut + Send + Sync + 'static,
) -> RunnerHandle<u64>
where
    T: Clone + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let numbers = Numbers { next: 0, count };
    Runner::for_each_with(Arc::clone(runtime), numbers, state, handler)
        .sink(SinkOptions::concurrent().concurrency(NonZeroUsize::MAX))
        .start()
}

struct Numbers {
    next: u64,
    count: u64,
}

impl UpdateSupplier for Numbers {
    type Update = u64;
    type Error = Infallible;

    async fn supply(&mut self, limit: NonZeroUsize) -> Result<Vec<u64>, Infallible> {
        if self.next == self.count {
            return pending().await;
        }
        let first = self.next;
        self.next = self.count.min(first + limit.get() as u64);
        Ok((first..self.next).collect())
    }
}
