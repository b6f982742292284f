//! What is measured: workloads, and what each is compared with.

use std::{
    convert::Infallible,
    fmt,
    future::pending,
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use benches::{
    baseline::Job,
    runtime::Rt,
    workload::{Chats, Tally, Update, Work, batches, handle},
};
use runner::{Delivery, Key, Runner, SinkOptions, UpdateSupplier};
use rustix::time::{ClockId, clock_gettime};
use stats_alloc::Region;

use crate::ALLOCATOR;

/// Who handles the updates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Candidate {
    Runner,
    Spawn,
    Semaphore,
    SemaphoreTimeout,
    MutexPerKey,
    WorkerPerChat,
    ForEachConcurrent,
}

use Candidate::{
    ForEachConcurrent, MutexPerKey, Runner as Ours, Semaphore, SemaphoreTimeout, Spawn,
    WorkerPerChat,
};

impl Candidate {
    pub(crate) const ALL: [Self; 7] = [
        Ours,
        Spawn,
        Semaphore,
        SemaphoreTimeout,
        MutexPerKey,
        WorkerPerChat,
        ForEachConcurrent,
    ];
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ours => "runner",
            Spawn => "spawn",
            Semaphore => "semaphore + spawn",
            SemaphoreTimeout => "semaphore + spawn + timeout",
            MutexPerKey => "mutex per chat",
            WorkerPerChat => "worker per chat",
            ForEachConcurrent => "for_each_concurrent",
        })
    }
}

/// One row of the tables.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) name: &'static str,
    pub(crate) work: Work,
    chats: Chats,
    keys: usize,
    batch: usize,
    concurrency: usize,
    pub(crate) against: &'static [Candidate],
}

const UNORDERED: &[Candidate] = &[Spawn, Semaphore, SemaphoreTimeout, ForEachConcurrent];
const ORDERED: &[Candidate] = &[MutexPerKey, WorkerPerChat];
const TWO_KEYS: &[Candidate] = &[MutexPerKey];

const fn load(name: &'static str, work: Work) -> Load {
    Load {
        name,
        work,
        chats: Chats::Thousand,
        keys: 0,
        batch: 100,
        concurrency: 500,
        against: UNORDERED,
    }
}

const fn keyed(name: &'static str, chats: Chats, keys: usize) -> Load {
    Load {
        chats,
        keys,
        against: if keys == 1 { ORDERED } else { TWO_KEYS },
        ..load(name, Work::Yield)
    }
}

/// Their names have no comma, because they are a column of CSV.
pub(crate) const LOADS: &[Load] = &[
    load("no-op", Work::Noop),
    load("yield once", Work::Yield),
    load("2 µs of CPU", Work::Cpu),
    load("sleep 1 ms at concurrency 500", Work::Sleep),
    Load {
        concurrency: 10_000,
        ..load("sleep 1 ms at concurrency 10 000", Work::Sleep)
    },
    Load {
        batch: 1,
        ..load("no-op in batches of 1", Work::Noop)
    },
    Load {
        batch: 1,
        ..load("yield once in batches of 1", Work::Yield)
    },
    keyed("yield with 1 key of 1 000 chats", Chats::Thousand, 1),
    keyed("yield with 1 key by Zipf", Chats::Zipf, 1),
    keyed("yield with 1 key of one hot chat", Chats::Hot, 1),
    keyed("yield with 2 keys of 1 000 chats", Chats::Thousand, 2),
    keyed("yield with 2 keys by Zipf", Chats::Zipf, 2),
];

/// What one run cost, for each update.
pub(crate) struct Measured {
    pub(crate) nanos: f64,
    pub(crate) cpu_nanos: f64,
    pub(crate) allocations: f64,
    pub(crate) violations: u64,
}

/// Runs one workload once and tells what it cost.
pub(crate) fn measure<R: Rt>(
    rt: &'static R,
    candidate: Candidate,
    load: Load,
    count: u64,
) -> Measured {
    let prepared = Prepared::new(rt, load, count);
    let region = Region::new(ALLOCATOR);
    let (began, cpu) = (Instant::now(), cpu_time());
    let tally = prepared.run(candidate);
    let (took, cpu) = (began.elapsed(), cpu_time().saturating_sub(cpu));
    let each = |span: Duration| span.as_nanos() as f64 / count as f64;
    Measured {
        nanos: each(took),
        cpu_nanos: each(cpu),
        allocations: region.change().allocations as f64 / count as f64,
        violations: tally.violations(),
    }
}

/// Runs one workload once. Reads no clock of the process, which rustix cannot do under valgrind.
///
/// Makes so many updates and handles the first of them: whoever compares two counts of those that are
/// handled does not count the making.
pub(crate) fn handle_all<R: Rt>(
    rt: &'static R,
    candidate: Candidate,
    load: Load,
    count: u64,
    made: u64,
) {
    let mut prepared = Prepared::new(rt, load, made);
    let rest = prepared
        .batches
        .split_off((count as usize).div_ceil(load.batch));
    prepared.count = count;
    prepared.run(candidate);
    drop(rest);
}

/// A workload that can begin.
struct Prepared<R: Rt> {
    job: Job<R>,
    batches: Vec<Vec<Update>>,
    keys: usize,
    count: u64,
}

impl<R: Rt> Prepared<R> {
    fn new(rt: &'static R, load: Load, count: u64) -> Self {
        Self {
            job: Job {
                rt,
                work: load.work,
                tally: Tally::new(),
                concurrency: load.concurrency,
            },
            batches: batches(count, load.batch, load.chats),
            keys: load.keys,
            count,
        }
    }

    /// # Panics
    ///
    /// Unless every update was handled.
    fn run(self, candidate: Candidate) -> &'static Tally {
        let Self {
            job,
            batches,
            keys,
            count,
        } = self;
        let (rt, tally) = (job.rt, job.tally);
        match candidate {
            Ours => rt.block_on(ours(job, batches, keys, count)),
            Spawn => rt.block_on(job.spawn(batches)),
            Semaphore => rt.block_on(job.semaphore(batches)),
            SemaphoreTimeout => rt.block_on(job.semaphore_timeout(batches)),
            MutexPerKey => rt.block_on(job.mutex_per_key(batches, keys)),
            WorkerPerChat => rt.block_on(job.worker_per_chat(batches)),
            ForEachConcurrent => rt.block_on(job.for_each_concurrent(batches)),
        }
        assert_eq!(tally.handled(), count, "{candidate} handled every update");
        tally
    }
}

/// What all threads of this process have used.
fn cpu_time() -> Duration {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(spent).expect("time was spent, not gained")
}

/// Hands out prepared batches, then waits for ever, as a poll without updates does.
struct Batches {
    left: std::vec::IntoIter<Vec<Update>>,
    drained: Option<async_channel::Sender<()>>,
}

impl UpdateSupplier for Batches {
    type Update = Update;
    type Error = Infallible;

    async fn supply(&mut self, _limit: NonZeroUsize) -> Result<Vec<Update>, Infallible> {
        match self.left.next() {
            Some(batch) => Ok(batch),
            None => {
                self.drained = None;
                pending().await
            }
        }
    }
}

async fn ours<R: Rt>(job: Job<R>, batches: Vec<Vec<Update>>, keys: usize, count: u64) {
    let (sender, drained) = async_channel::bounded(1);
    let supplier = Batches {
        left: batches.into_iter(),
        drained: Some(sender),
    };
    let seam = job.rt.seam();
    let Job {
        rt,
        work,
        tally,
        concurrency,
    } = job;
    let options = SinkOptions::concurrent()
        .concurrency(NonZeroUsize::new(concurrency).expect("at least one"))
        // As the hand-written loops fetch: as fast as slots become free.
        .timeout(Duration::from_secs(60));
    let runner = Runner::for_each(seam, supplier, move |update: Delivery<Update>| {
        handle(rt, work, tally, update.id, update.chat)
    })
    .sink(options);
    let runner = match keys {
        0 => runner,
        1 => runner.sequentialize(|update: &Update| [Key::chat(update.chat)]),
        _ => {
            runner.sequentialize(|update: &Update| [Key::chat(update.chat), Key::user(update.user)])
        }
    };
    let handle = runner.start();
    // Closed when the last batch has been fetched.
    let _ = drained.recv().await;
    let report = handle.stop().await.expect("nothing fails");
    assert_eq!(report.counters.finished, count);
}
