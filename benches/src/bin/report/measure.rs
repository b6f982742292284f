//! What is measured end to end: each function is one workload.

use std::{
    collections::BTreeMap,
    error::Error,
    thread,
    time::{Duration, Instant},
};

use benches::{data::Data, table::median};

use crate::{
    lab::{Process, Server},
    order::{Client, On, Who, Work},
};

type Outcome = Result<(), Box<dyn Error>>;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// Where a ratio is taken.
    pub(crate) runs: usize,
    /// Updates of a backlog.
    pub(crate) drained: u64,
    /// Updates of 10 ms.
    pub(crate) waiting: u64,
    /// How long messages come at an even pace, in milliseconds.
    pub(crate) steady: u64,
    /// Updates in the chat under a flood, of 20 ms each.
    pub(crate) hot: u64,
    /// Updates that come over a slow network.
    pub(crate) far: u64,
    /// How long nothing happens.
    pub(crate) idle: Duration,
}

impl Sizes {
    pub(crate) const FULL: Self = Self {
        runs: 5,
        drained: 200_000,
        waiting: 20_000,
        steady: 3_300,
        hot: 400,
        far: 4_000,
        idle: Duration::from_secs(30),
    };

    pub(crate) const QUICK: Self = Self {
        runs: 1,
        drained: 50_000,
        waiting: 20_000,
        steady: 1_300,
        hot: 100,
        far: 2_000,
        idle: Duration::from_secs(5),
    };
}

pub(crate) type Combination = (On, Client);

/// Both runtimes with both clients.
pub(crate) const ALL: [Combination; 4] = [
    (On::Tokio, Client::Ureq),
    (On::Tokio, Client::Hyper),
    (On::Smol, Client::Ureq),
    (On::Smol, Client::Hyper),
];

/// Where the client makes no difference.
pub(crate) const DEFAULT: [Combination; 2] = [(On::Tokio, Client::Ureq), (On::Smol, Client::Ureq)];

/// What the runner, or whoever, is called in the data.
pub(crate) fn name(who: Who, client: Client) -> String {
    format!("{} {}", who.word(), client.word())
}

/// The figures of all runs of one workload.
#[derive(Default)]
struct Runs {
    figures: BTreeMap<(String, &'static str, &'static str), Vec<f64>>,
}

impl Runs {
    fn add(&mut self, who: Who, (on, client): Combination, metric: &'static str, value: f64) {
        let place = match who {
            Who::Floor => ("floor".to_owned(), "-", metric),
            _ => (name(who, client), on.word(), metric),
        };
        self.figures.entry(place).or_default().push(value);
    }

    /// The medians.
    fn store(self, data: &mut Data, workload: &str) {
        for ((implementation, runtime, metric), values) in self.figures {
            data.set(workload, &implementation, runtime, metric, median(values));
        }
    }
}

/// A workload has a name to be chosen by.
type Workload = (&'static str, fn(&Sizes, &mut Data) -> Outcome);

pub(crate) const WORKLOADS: [Workload; 8] = [
    ("drain", drain),
    ("growth", growth),
    ("wait", wait),
    ("far", far),
    ("steady", steady),
    ("hot", hot),
    ("stop", stop),
    ("idle", idle),
];

/// A backlog, handled by handlers that do nothing.
fn drain(sizes: &Sizes, data: &mut Data) -> Outcome {
    let mut runs = Runs::default();
    for _ in 0..sizes.runs {
        let floor = drained(Who::Floor, ALL[0], sizes.drained)?;
        floor.add_to(&mut runs, Who::Floor, ALL[0]);
        for combination in ALL {
            let drained = drained(Who::Runner, combination, sizes.drained)?;
            drained.add_to(&mut runs, Who::Runner, combination);
            let mut add = |metric, value| runs.add(Who::Runner, combination, metric, value);
            add("ratio_of_rate", drained.rate / floor.rate);
            add("ratio_of_cpu", drained.cpu / floor.cpu);
        }
    }
    runs.store(data, "drain");
    Ok(())
}

/// The same, with backlogs of several sizes.
fn growth(sizes: &Sizes, data: &mut Data) -> Outcome {
    for part in [16, 8, 4, 2, 1] {
        let count = sizes.drained / part;
        let mut runs = Runs::default();
        for _ in 0..sizes.runs.min(3) {
            for combination in DEFAULT {
                let drained = drained(Who::Runner, combination, count)?;
                runs.add(Who::Runner, combination, "cpu_us", drained.cpu);
            }
        }
        runs.store(data, &format!("drain of {count}"));
    }
    Ok(())
}

/// What a backlog cost.
struct Drained {
    /// Updates per second.
    rate: f64,
    /// µs of CPU per update, of the bot and of the server.
    cpu: f64,
    server_cpu: f64,
}

impl Drained {
    fn add_to(&self, runs: &mut Runs, who: Who, combination: Combination) {
        let mut add = |metric, value| runs.add(who, combination, metric, value);
        add("updates_per_s", self.rate);
        add("cpu_us", self.cpu);
        add("server_cpu_us", self.server_cpu);
        add("cores", (self.cpu + self.server_cpu) * self.rate / 1e6);
    }
}

fn drained(who: Who, combination: Combination, count: u64) -> Result<Drained, Box<dyn Error>> {
    let mut server = Server::start()?;
    server.tell(&format!("fill {count}"))?;
    let before = server.tell("usage")?.of("cpu")?;
    let mut bot = server.bot(who, combination, Work::Noop, count, CONCURRENCY)?;
    let answer = bot.answer()?;
    let served = server.tell("usage")?.of("cpu")? - before;
    bot.tell("stop")?;
    let each = 1e6 / count as f64;
    Ok(Drained {
        rate: count as f64 / answer.of("seconds")?,
        cpu: answer.of("cpu")? * each,
        server_cpu: served * each,
    })
}

/// Handlers that wait 10 ms.
fn wait(sizes: &Sizes, data: &mut Data) -> Outcome {
    let mut runs = Runs::default();
    let ideal = sizes.waiting as f64 * 0.010 / CONCURRENCY as f64;
    for _ in 0..sizes.runs {
        for combination in DEFAULT {
            for who in [Who::Runner, Who::Hand] {
                let mut server = Server::start()?;
                server.tell(&format!("fill {}", sizes.waiting))?;
                let mut bot =
                    server.bot(who, combination, Work::Wait, sizes.waiting, CONCURRENCY)?;
                let seconds = bot.answer()?.of("seconds")?;
                bot.tell("stop")?;
                runs.add(who, combination, "ms", seconds * 1e3);
                runs.add(who, combination, "ratio_of_time", seconds / ideal);
            }
        }
    }
    runs.store(data, "handlers of 10 ms");
    Ok(())
}

/// Every answer takes 50 ms, and so few slots that a round trip can fill them twice.
fn far(sizes: &Sizes, data: &mut Data) -> Outcome {
    let mut runs = Runs::default();
    for _ in 0..sizes.runs {
        for combination in ALL {
            for who in [Who::Runner, Who::Hand] {
                let mut server = Server::start()?;
                server.tell(&format!("fill {}", sizes.far))?;
                server.tell("delay 50")?;
                let mut bot = server.bot(who, combination, Work::Wait, sizes.far, 50)?;
                let rate = sizes.far as f64 / bot.answer()?.of("seconds")?;
                bot.tell("stop")?;
                runs.add(who, combination, "updates_per_s", rate);
                runs.add(who, combination, "ratio_of_rate", rate / (100.0 / 0.050));
            }
        }
    }
    runs.store(data, "far away");
    Ok(())
}

/// Messages at an even pace, each with a reply.
fn steady(sizes: &Sizes, data: &mut Data) -> Outcome {
    for rate in [500, 2_000] {
        let mut runs = Runs::default();
        let rounds = if rate == 500 {
            sizes.runs.min(3)
        } else {
            sizes.runs
        };
        for _ in 0..rounds {
            for combination in ALL {
                let mut p99 = [0.0; 2];
                for (who, p99) in [Who::Runner, Who::Hand].into_iter().zip(&mut p99) {
                    let mut server = Server::start()?;
                    let mut bot = server.bot(who, combination, Work::Echo, 0, CONCURRENCY)?;
                    let taken = server.tell(&format!("steady {rate} {}", sizes.steady))?;
                    let cpu = bot.tell("usage")?.of("cpu")?;
                    bot.tell("stop")?;
                    *p99 = taken.of("p99")?;
                    let count = rate as f64 * sizes.steady as f64 / 1e3;
                    let mut add = |metric, value| runs.add(who, combination, metric, value);
                    add("p50_ms", taken.of("p50")?);
                    add("p99_ms", *p99);
                    add("max_ms", taken.of("max")?);
                    add("cpu_us", cpu * 1e6 / count);
                }
                let ratio = p99[0] / p99[1];
                runs.add(Who::Runner, combination, "ratio_of_p99", ratio);
            }
        }
        runs.store(data, &format!("steady {rate} per s"));
    }
    Ok(())
}

/// One chat under a flood; how long replies to the others take.
fn hot(sizes: &Sizes, data: &mut Data) -> Outcome {
    let mut runs = Runs::default();
    for combination in DEFAULT {
        let mut server = Server::start()?;
        let mut bot = server.bot(Who::Runner, combination, Work::Hot, 0, CONCURRENCY)?;
        let taken = server.tell(&format!("hot {}", sizes.hot))?;
        bot.tell("stop")?;
        for (metric, name) in [("p50_ms", "p50"), ("p99_ms", "p99"), ("max_ms", "max")] {
            runs.add(Who::Runner, combination, metric, taken.of(name)?);
        }
    }
    runs.store(data, "one hot chat");
    Ok(())
}

/// A stop with nothing in flight and a confirmed offset.
fn stop(sizes: &Sizes, data: &mut Data) -> Outcome {
    let mut runs = Runs::default();
    for _ in 0..sizes.runs {
        // At the same time: they wait most of it.
        let mut rested = Rested::start()?;
        for (server, _) in &mut rested.pairs {
            server.tell("settle")?;
        }
        for (combination, (_, bot)) in ALL.into_iter().zip(&mut rested.pairs) {
            let seconds = bot.tell("stop")?.of("seconds")?;
            runs.add(Who::Runner, combination, "ms", seconds * 1e3);
        }
    }
    runs.store(data, "stop");
    Ok(())
}

/// Nothing happens.
fn idle(sizes: &Sizes, data: &mut Data) -> Outcome {
    let mut runs = Runs::default();
    let mut rested = Rested::start()?;
    for (server, _) in &mut rested.pairs {
        server.tell("settle")?;
    }
    let began = Instant::now();
    let mut before = Vec::new();
    for (_, bot) in &mut rested.pairs {
        before.push(bot.tell("usage")?.of("cpu")?);
    }
    thread::sleep(sizes.idle.saturating_sub(began.elapsed()));
    for ((combination, (_, bot)), before) in ALL.into_iter().zip(&mut rested.pairs).zip(before) {
        let usage = bot.tell("usage")?;
        let mut add = |metric, value| runs.add(Who::Runner, combination, metric, value);
        add("cpu_ms", (usage.of("cpu")? - before) * 1e3);
        add("resident_mib", usage.of("kib")? / 1024.0);
        add("threads", usage.of("threads")?);
    }
    runs.store(data, "idle");
    Ok(())
}

/// Echo bots that have replied to something and now have nothing to do, one of each combination.
struct Rested {
    pairs: Vec<(Server, Process)>,
}

impl Rested {
    fn start() -> Result<Self, Box<dyn Error>> {
        let mut pairs = Vec::new();
        for combination in ALL {
            let mut server = Server::start()?;
            let bot = server.bot(Who::Runner, combination, Work::Echo, 0, CONCURRENCY)?;
            server.tell("steady 100 500")?;
            pairs.push((server, bot));
        }
        Ok(Self { pairs })
    }
}

/// What the runner allows by default.
const CONCURRENCY: usize = 500;
