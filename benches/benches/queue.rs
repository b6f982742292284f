//! The pipeline core against what a user would write by hand.
//!
//! ```sh
//! cargo bench -p benches --bench queue            # all of it, about two minutes
//! cargo bench -p benches --bench queue -- --quick # fewer updates and runs
//! ```
//!
//! Prints Markdown. Candidates of one row run interleaved in one process, on the same runtime, with
//! the same batches and handlers; every run asserts that every update was handled. Read the ratios:
//! absolute times are those of the machine at hand.

use std::{
    convert::Infallible,
    future::pending,
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, Instant},
};

use benches::{
    baseline::Job,
    runtime::{Rt, SmolRt, TokioRt},
    table::{head, median, nanos_each, row},
    workload::{Chats, Tally, Update, Work, batches, handle},
};
use runner::{Delivery, Key, Runner, SinkOptions, UpdateSupplier};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

/// Hands out prepared batches, then waits for ever, as a poll without updates does.
struct Prepared {
    batches: std::vec::IntoIter<Vec<Update>>,
    drained: Option<async_channel::Sender<()>>,
}

impl UpdateSupplier for Prepared {
    type Update = Update;
    type Error = Infallible;

    async fn supply(&mut self, _limit: NonZeroUsize) -> Result<Vec<Update>, Infallible> {
        match self.batches.next() {
            Some(batch) => Ok(batch),
            None => {
                self.drained = None;
                pending().await
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Candidate {
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

#[derive(Clone, Copy)]
struct Load {
    name: &'static str,
    work: Work,
    chats: Chats,
    keys: usize,
    batch: usize,
    concurrency: usize,
    against: &'static [Candidate],
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

const LOADS: &[Load] = &[
    load("no-op", Work::Noop),
    load("yield once", Work::Yield),
    load("2 µs of CPU", Work::Cpu),
    load("sleep 1 ms, concurrency 500", Work::Sleep),
    Load {
        concurrency: 10_000,
        ..load("sleep 1 ms, concurrency 10 000", Work::Sleep)
    },
    Load {
        batch: 1,
        ..load("no-op, batches of 1", Work::Noop)
    },
    Load {
        batch: 1,
        ..load("yield once, batches of 1", Work::Yield)
    },
    keyed("yield, 1 key, 1 000 chats", Chats::Thousand, 1),
    keyed("yield, 1 key, Zipf", Chats::Zipf, 1),
    keyed("yield, 1 key, one hot chat", Chats::Hot, 1),
    keyed("yield, 2 keys, 1 000 chats", Chats::Thousand, 2),
    keyed("yield, 2 keys, Zipf", Chats::Zipf, 2),
];

struct Measured {
    nanos: f64,
    allocations: f64,
    violations: u64,
}

fn measure<R: Rt>(rt: &R, candidate: Candidate, load: Load, count: u64) -> Measured {
    let work = batches(count, load.batch, load.chats);
    let tally = Tally::new();
    let job = Job {
        rt: rt.clone(),
        work: load.work,
        tally: Arc::clone(&tally),
        concurrency: load.concurrency,
    };
    let region = Region::new(ALLOCATOR);
    let began = Instant::now();
    match candidate {
        Ours => rt.block_on(ours(job, work, load.keys, count)),
        Spawn => rt.block_on(job.spawn(work)),
        Semaphore => rt.block_on(job.semaphore(work)),
        SemaphoreTimeout => rt.block_on(job.semaphore_timeout(work)),
        MutexPerKey => rt.block_on(job.mutex_per_key(work, load.keys)),
        WorkerPerChat => rt.block_on(job.worker_per_chat(work)),
        ForEachConcurrent => rt.block_on(job.for_each_concurrent(work)),
    }
    let nanos = nanos_each(began.elapsed(), count);
    let allocations = region.change().allocations as f64 / count as f64;
    assert_eq!(tally.handled(), count, "{candidate:?} handled every update");
    Measured {
        nanos,
        allocations,
        violations: tally.violations(),
    }
}

async fn ours<R: Rt>(job: Job<R>, batches: Vec<Vec<Update>>, keys: usize, count: u64) {
    let (sender, drained) = async_channel::bounded(1);
    let supplier = Prepared {
        batches: batches.into_iter(),
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
        let (rt, tally) = (rt.clone(), Arc::clone(&tally));
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

fn compare<R: Rt>(name: &str, rt: &R, count: u64, runs: usize, only: Option<&str>) {
    println!("\n## {name}\n");
    head(&[
        "workload",
        "runner ns",
        "allocations",
        "order violations",
        "against",
        "ns",
        "allocations",
        "order violations",
        "ratio of time",
    ]);
    for load in LOADS {
        if only.is_some_and(|only| !load.name.contains(only)) {
            continue;
        }
        let count = if load.work == Work::Sleep {
            count / 4
        } else {
            count
        };
        for &against in load.against {
            // One of each to warm up, then interleaved.
            let mut pairs = Vec::new();
            for run in 0..=runs {
                let ours = measure(rt, Ours, *load, count);
                let theirs = measure(rt, against, *load, count);
                if run > 0 {
                    pairs.push((ours, theirs));
                }
            }
            let of =
                |value: fn(&(Measured, Measured)) -> f64| median(pairs.iter().map(value).collect());
            row(&[
                load.name.to_owned(),
                format!("{:.0}", of(|(ours, _)| ours.nanos)),
                format!("{:.3}", of(|(ours, _)| ours.allocations)),
                format!("{:.0}", of(|(ours, _)| ours.violations as f64)),
                format!("{against:?}"),
                format!("{:.0}", of(|(_, theirs)| theirs.nanos)),
                format!("{:.3}", of(|(_, theirs)| theirs.allocations)),
                format!("{:.0}", of(|(_, theirs)| theirs.violations as f64)),
                format!("{:.2}", of(|(ours, theirs)| ours.nanos / theirs.nanos)),
            ]);
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let only = arguments
        .iter()
        .position(|argument| argument == "--only")
        .and_then(|place| arguments.get(place + 1))
        .map(String::as_str);
    let (count, runs) = if quick { (20_000, 1) } else { (200_000, 5) };
    let workers = std::thread::available_parallelism().map_or(2, NonZeroUsize::get);
    if arguments.iter().any(|argument| argument == "--profile") {
        // For callgrind: nothing but the runner, on one thread.
        for load in LOADS
            .iter()
            .filter(|load| only.is_none_or(|only| load.name == only))
        {
            measure(&TokioRt::new(1), Ours, *load, count);
        }
        return;
    }
    println!("{count} updates (a quarter where handlers sleep), {runs} runs, {workers} workers");
    compare("tokio", &TokioRt::new(workers), count, runs, only);
    compare("smol", &SmolRt::new(workers), count, runs, only);
}
