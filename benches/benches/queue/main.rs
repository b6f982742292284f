//! The pipeline core against what a user would write by hand.
//!
//! ```sh
//! cargo bench -p benches --bench queue            # all of it
//! cargo bench -p benches --bench queue -- --quick # fewer updates and runs
//! ```
//!
//! | option | |
//! |---|---|
//! | `--only TEXT` | workloads whose name contains it |
//! | `--runtime tokio` or `smol` | one of the two |
//! | `--workers N` | threads of the runtime; as many as the machine can run at once, if not given |
//! | `--part time`, `instructions`, `memory` or `growth` | one of the four |
//! | `--csv` | lines of `workload,implementation,runtime,metric,value` instead of Markdown |
//! | `--profile` | runs one workload once, on one thread, and prints nothing: see below |
//!
//! Candidates of one row run interleaved in one process, on the same runtime, with the same batches
//! and handlers; every run asserts that every update was handled. Read the ratios: absolute times
//! are those of the machine at hand. Ratios are of pairs of runs that follow each other, medians of
//! all runs. CPU time is that of the whole process. Instructions are counted if valgrind is there.
//!
//! To see where the instructions of one workload go:
//!
//! ```sh
//! valgrind --tool=callgrind target/release/deps/queue-… --profile --only no-op \
//!     [--implementation spawn] [--runtime smol] [--updates 20000]
//! callgrind_annotate callgrind.out.…
//! ```

mod held;
mod instructions;
mod load;

use std::{num::NonZeroUsize, process::exit};

use benches::{
    runtime::{Rt, SmolRt, TokioRt},
    table::{head, median, row},
    workload::Work,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

use self::load::{Candidate, LOADS, Load, Measured, handle_all, measure};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

/// The workload of [`held::pass`].
const PASSING: &str = "no-op while others are in flight";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Runtimes {
    Tokio,
    Smol,
}

impl Runtimes {
    const fn name(self) -> &'static str {
        match self {
            Self::Tokio => "tokio",
            Self::Smol => "smol",
        }
    }
}

/// What the command line asks for.
struct Options {
    only: Option<String>,
    runtime: Option<String>,
    part: Option<String>,
    implementation: Option<String>,
    updates: Option<u64>,
    made: u64,
    workers: Option<usize>,
    held: u64,
    quick: bool,
    csv: bool,
    profile: bool,
}

impl Options {
    fn parse() -> Result<Self, String> {
        let mut options = Self {
            only: None,
            runtime: None,
            part: None,
            implementation: None,
            updates: None,
            made: 0,
            workers: None,
            held: 0,
            quick: false,
            csv: false,
            profile: false,
        };
        let mut arguments = std::env::args().skip(1);
        let number = |text: String| {
            let number: Result<u64, _> = text.parse();
            number.map_err(|_| format!("{text} is no number"))
        };
        while let Some(argument) = arguments.next() {
            let mut value = || {
                let value = arguments.next();
                value.ok_or_else(|| format!("{argument} needs a value"))
            };
            match &*argument {
                "--only" => options.only = Some(value()?),
                "--runtime" => options.runtime = Some(value()?),
                "--part" => options.part = Some(value()?),
                "--implementation" => options.implementation = Some(value()?),
                "--updates" => options.updates = Some(number(value()?)?),
                "--made" => options.made = number(value()?)?,
                "--workers" => options.workers = Some(number(value()?)? as usize),
                "--held" => options.held = number(value()?)?,
                "--quick" => options.quick = true,
                "--csv" => options.csv = true,
                "--profile" => options.profile = true,
                // Cargo says it to every benchmark.
                "--bench" => {}
                _ => return Err(format!("{argument} is not an option")),
            }
        }
        Ok(options)
    }

    fn wants_runtime(&self, runtime: Runtimes) -> bool {
        let wanted = self.runtime.as_deref();
        wanted.is_none_or(|wanted| wanted == runtime.name())
    }

    fn wants_part(&self, part: &str) -> bool {
        self.part.as_deref().is_none_or(|wanted| wanted == part)
    }

    fn wants_load(&self, name: &str) -> bool {
        self.only.as_deref().is_none_or(|only| name.contains(only))
    }

    fn loads(&self) -> impl Iterator<Item = &'static Load> {
        LOADS.iter().filter(|load| self.wants_load(load.name))
    }
}

/// Prints results as a table or as lines of CSV.
struct Output {
    csv: bool,
}

impl Output {
    fn title(&self, title: &str, columns: &[&str]) {
        if !self.csv {
            println!("\n## {title}\n");
            head(columns);
        }
    }

    fn row(&self, cells: &[String]) {
        if !self.csv {
            row(cells);
        }
    }

    fn value(
        &self,
        load: &str,
        implementation: impl ToString,
        runtime: Runtimes,
        metric: &str,
        value: f64,
    ) {
        if self.csv {
            let (implementation, runtime) = (implementation.to_string(), runtime.name());
            println!("{load},{implementation},{runtime},{metric},{value:.4}");
        }
    }
}

/// Time and allocations: all candidates of a row in turns.
fn times<R: Rt>(options: &Options, output: &Output, runtime: Runtimes, rt: &'static R) {
    let (count, runs) = if options.quick {
        (20_000, 1)
    } else {
        (200_000, 5)
    };
    let count = options.updates.unwrap_or(count);
    output.title(
        &format!("Time, {}", runtime.name()),
        &[
            "workload",
            "implementation",
            "ns",
            "CPU ns",
            "allocations",
            "order violations",
            "runner: ratio of time",
            "runner: ratio of CPU",
        ],
    );
    for load in options.loads() {
        let count = match load.work {
            Work::Sleep => count / 4,
            _ => count,
        };
        let candidates: Vec<_> = [Candidate::Runner]
            .iter()
            .chain(load.against)
            .copied()
            .collect();
        // One of each to warm up.
        let rounds: Vec<Vec<Measured>> = (0..=runs)
            .map(|_| {
                let all = candidates.iter();
                all.map(|&candidate| measure(rt, candidate, *load, count))
                    .collect()
            })
            .skip(1)
            .collect();
        for (place, candidate) in candidates.iter().enumerate() {
            let of = |value: fn(&Measured, &Measured) -> f64| {
                let pairs = rounds.iter().map(|round| value(&round[0], &round[place]));
                median(pairs.collect())
            };
            let values = [
                ("ns", of(|_, theirs| theirs.nanos)),
                ("cpu_ns", of(|_, theirs| theirs.cpu_nanos)),
                ("allocations", of(|_, theirs| theirs.allocations)),
                ("order_violations", of(|_, theirs| theirs.violations as f64)),
                (
                    "ratio_of_time",
                    of(|ours, theirs| ours.nanos / theirs.nanos),
                ),
                (
                    "ratio_of_cpu",
                    of(|ours, theirs| ours.cpu_nanos / theirs.cpu_nanos),
                ),
            ];
            for (metric, value) in values {
                output.value(load.name, candidate, runtime, metric, value);
            }
            let [nanos, cpu, allocations, violations, time_ratio, cpu_ratio] =
                values.map(|(_, value)| value);
            output.row(&[
                load.name.to_owned(),
                candidate.to_string(),
                format!("{nanos:.0}"),
                format!("{cpu:.0}"),
                format!("{allocations:.3}"),
                format!("{violations:.0}"),
                format!("{time_ratio:.2}"),
                format!("{cpu_ratio:.2}"),
            ]);
        }
    }
}

/// Instructions, where neither clocks nor timers decide about them.
fn instructions(options: &Options, output: &Output, runtime: Runtimes) -> Result<(), String> {
    let count = options.updates.unwrap_or(10_000);
    output.title(
        &format!("Instructions, {}", runtime.name()),
        &[
            "workload",
            "implementation",
            "instructions",
            "runner: ratio of instructions",
        ],
    );
    let loads = options.loads();
    for load in loads.filter(|load| matches!(load.work, Work::Noop | Work::Yield)) {
        let mut ours = None;
        for candidate in [Candidate::Runner].iter().chain(load.against) {
            let arguments = [
                "--only",
                load.name,
                "--implementation",
                &candidate.to_string(),
            ];
            let value = instructions::count(&arguments, runtime, count);
            let value = value.map_err(|error| error.to_string())?;
            let ratio = *ours.get_or_insert(value) / value;
            output.value(load.name, candidate, runtime, "instructions", value);
            output.value(
                load.name,
                candidate,
                runtime,
                "ratio_of_instructions",
                ratio,
            );
            output.row(&[
                load.name.to_owned(),
                candidate.to_string(),
                format!("{value:.0}"),
                format!("{ratio:.2}"),
            ]);
        }
    }
    Ok(())
}

fn memory<R: Rt>(options: &Options, output: &Output, runtime: Runtimes, rt: &R) {
    output.title(
        &format!("Memory, {}", runtime.name()),
        &["updates held", "bytes in flight", "bytes waiting for a key"],
    );
    let sizes: &[u64] = match options.quick {
        true => &[100_000],
        false => &[10_000, 100_000, 1_000_000],
    };
    for &held in sizes {
        let in_flight = held::bytes_in_flight(rt, held);
        let waiting = held::bytes_waiting(rt, held);
        let load = format!("{held} held");
        output.value(&load, "runner", runtime, "bytes_in_flight", in_flight);
        output.value(&load, "runner", runtime, "bytes_waiting", waiting);
        output.row(&[
            held.to_string(),
            format!("{in_flight:.0}"),
            format!("{waiting:.0}"),
        ]);
    }
}

fn growth<R: Rt>(
    options: &Options,
    output: &Output,
    runtime: Runtimes,
    rt: &R,
    callgrind: bool,
) -> Result<(), String> {
    output.title(
        &format!("{PASSING}, {}", runtime.name()),
        &["in flight", "ns", "instructions"],
    );
    let sizes: &[u64] = match options.quick {
        true => &[100, 10_000, 100_000],
        false => &[100, 1_000, 10_000, 100_000, 1_000_000],
    };
    for &held in sizes {
        let runs = if options.quick { 1 } else { 5 };
        let passes = (0..runs).map(|_| {
            let (nanos, holding) = held::pass(rt, held, 100_000);
            holding.cut(rt);
            nanos
        });
        let nanos = median(passes.collect());
        let load = format!("no-op with {held} in flight");
        output.value(&load, "runner", runtime, "ns", nanos);
        let mut cells = vec![held.to_string(), format!("{nanos:.0}")];
        if callgrind {
            let arguments = ["--only", PASSING, "--held", &held.to_string()];
            let value = instructions::count(&arguments, runtime, 10_000);
            let value = value.map_err(|error| error.to_string())?;
            output.value(&load, "runner", runtime, "instructions", value);
            cells.push(format!("{value:.0}"));
        } else {
            cells.push("not counted".to_owned());
        }
        output.row(&cells);
    }
    Ok(())
}

/// One workload, once: nothing else for callgrind to see.
fn profile<R: Rt>(options: &Options, rt: &'static R) -> Result<(), String> {
    let count = options.updates.unwrap_or(20_000);
    let Some(name) = options.only.as_deref() else {
        return Err("--profile needs --only".to_owned());
    };
    if name == PASSING {
        let _holding = held::pass(rt, options.held, count);
        // The end of those that are held is no part of it.
        exit(0);
    }
    let implementation = options.implementation.as_deref().unwrap_or("runner");
    let mut candidates = Candidate::ALL.into_iter();
    let candidate = candidates.find(|candidate| candidate.to_string() == implementation);
    let load = LOADS.iter().find(|load| load.name == name);
    let (Some(candidate), Some(load)) = (candidate, load) else {
        return Err(format!("no {implementation} or no {name}"));
    };
    handle_all(rt, candidate, *load, count, options.made.max(count));
    Ok(())
}

/// For ever, so that handlers need no count of who holds it.
fn kept<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

fn run(options: &Options) -> Result<(), String> {
    if options.profile {
        return match options.wants_runtime(Runtimes::Tokio) {
            true => profile(options, kept(TokioRt::new(options.workers.unwrap_or(1)))),
            false => profile(options, kept(SmolRt::new(options.workers.unwrap_or(1)))),
        };
    }
    let all = std::thread::available_parallelism().map_or(2, NonZeroUsize::get);
    let workers = options.workers.unwrap_or(all);
    let output = Output { csv: options.csv };
    if output.csv {
        println!("workload,implementation,runtime,metric,value");
    } else {
        println!("Everything for each update; {workers} workers.");
    }
    let callgrind = instructions::available();
    if !callgrind {
        eprintln!("valgrind is missing, instructions are not counted");
    }
    let (tokio, smol) = (kept(TokioRt::new(workers)), kept(SmolRt::new(workers)));
    for runtime in [Runtimes::Tokio, Runtimes::Smol] {
        if !options.wants_runtime(runtime) {
            continue;
        }
        if options.wants_part("time") {
            match runtime {
                Runtimes::Tokio => times(options, &output, runtime, tokio),
                Runtimes::Smol => times(options, &output, runtime, smol),
            }
        }
        if options.wants_part("instructions") && callgrind {
            instructions(options, &output, runtime)?;
        }
        if options.wants_part("memory") {
            match runtime {
                Runtimes::Tokio => memory(options, &output, runtime, tokio),
                Runtimes::Smol => memory(options, &output, runtime, smol),
            }
        }
        if options.wants_part("growth") {
            match runtime {
                Runtimes::Tokio => growth(options, &output, runtime, tokio, callgrind)?,
                Runtimes::Smol => growth(options, &output, runtime, smol, callgrind)?,
            }
        }
    }
    Ok(())
}

fn main() {
    if let Err(error) = Options::parse().and_then(|options| run(&options)) {
        eprintln!("{error}");
        exit(1);
    }
}
