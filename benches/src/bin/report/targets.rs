//! What was aimed at, and whether it is met.

use std::fmt::Write;

use benches::data::Data;

use crate::tables::number;

/// A figure that must not be above, or below, a bound.
struct Target {
    what: &'static str,
    bound: Bound,
    must: f64,
    aim: f64,
    digits: usize,
    /// Workload, implementation, metric. Several are taken together: the worst counts. A workload
    /// or implementation that ends in `*` stands for all that begin so.
    figures: &'static [(&'static str, &'static str, &'static str)],
}

#[derive(Clone, Copy)]
enum Bound {
    AtMost,
    AtLeast,
}

use Bound::{AtLeast, AtMost};

const TARGETS: &[Target] = &[
    Target {
        what: "no-op, batches of 100, time against spawn per update",
        bound: AtMost,
        must: 0.35,
        aim: 0.20,
        digits: 2,
        figures: &[("no-op", "spawn", "ratio_of_time")],
    },
    Target {
        what: "the same, instructions",
        bound: AtMost,
        must: 0.30,
        aim: 0.30,
        digits: 2,
        figures: &[("no-op", "spawn", "ratio_of_instructions")],
    },
    Target {
        what: "no-op, instructions per update",
        bound: AtMost,
        must: f64::INFINITY,
        aim: 350.0,
        digits: 0,
        figures: &[("no-op", "runner", "instructions")],
    },
    Target {
        what: "yield once, time against semaphore + spawn + timeout",
        bound: AtMost,
        must: 0.40,
        aim: 0.25,
        digits: 2,
        figures: &[("yield once", "semaphore + spawn + timeout", "ratio_of_time")],
    },
    Target {
        what: "every handler sleeps, CPU against semaphore + spawn",
        bound: AtMost,
        must: 1.05,
        aim: 0.9,
        digits: 2,
        figures: &[("sleep 1 ms*", "semaphore + spawn", "ratio_of_cpu")],
    },
    Target {
        what: "batches of 1, time against semaphore + spawn",
        bound: AtMost,
        must: 0.85,
        aim: 0.5,
        digits: 2,
        figures: &[
            (
                "no-op in batches of 1",
                "semaphore + spawn",
                "ratio_of_time",
            ),
            (
                "yield once in batches of 1",
                "semaphore + spawn",
                "ratio_of_time",
            ),
        ],
    },
    Target {
        what: "one or two keys, time against a mutex per chat",
        bound: AtMost,
        must: 0.45,
        aim: 0.25,
        digits: 2,
        figures: &[("yield with *", "mutex per chat", "ratio_of_time")],
    },
    Target {
        what: "the same, order violations of the runner",
        bound: AtMost,
        must: 0.0,
        aim: 0.0,
        digits: 0,
        figures: &[("yield with *", "runner", "order_violations")],
    },
    Target {
        what: "allocations per update, no-op or yield",
        bound: AtMost,
        must: 0.25,
        aim: 0.05,
        digits: 3,
        figures: &[
            ("no-op", "runner", "allocations"),
            ("yield once", "runner", "allocations"),
        ],
    },
    Target {
        what: "allocations per update, all pending",
        bound: AtMost,
        must: 1.1,
        aim: 0.5,
        digits: 3,
        figures: &[("sleep 1 ms*", "runner", "allocations")],
    },
    Target {
        what: "bytes per update in flight, above the user's future",
        bound: AtMost,
        must: 450.0,
        aim: 256.0,
        digits: 0,
        figures: &[("* held", "runner", "bytes_in_flight")],
    },
    Target {
        what: "bytes per update waiting for a key",
        bound: AtMost,
        must: 220.0,
        aim: 150.0,
        digits: 0,
        figures: &[("* held", "runner", "bytes_waiting")],
    },
    Target {
        what: "drain over HTTP, rate against the floor",
        bound: AtLeast,
        must: 0.35,
        aim: 0.6,
        digits: 2,
        figures: &[("drain", "runner *", "ratio_of_rate")],
    },
    Target {
        what: "CPU per update drained, against the floor",
        bound: AtMost,
        must: 8.0,
        aim: 4.0,
        digits: 2,
        figures: &[("drain", "runner *", "ratio_of_cpu")],
    },
    Target {
        what: "20 000 of 10 ms at 500, time against the ideal",
        bound: AtMost,
        must: 1.08,
        aim: 1.03,
        digits: 3,
        figures: &[("handlers of 10 ms", "runner *", "ratio_of_time")],
    },
    Target {
        what: "steady 2 000/s, p99 against a loop by hand",
        bound: AtMost,
        must: 1.1,
        aim: 1.0,
        digits: 2,
        figures: &[("steady 2000 per s", "runner *", "ratio_of_p99")],
    },
    Target {
        what: "hot chat, p99 of the others in ms",
        bound: AtMost,
        must: 50.0,
        aim: 10.0,
        digits: 1,
        figures: &[("one hot chat", "runner *", "p99_ms")],
    },
    Target {
        what: "50 ms latency, 50 slots, of 100 per round trip",
        bound: AtLeast,
        must: 0.9,
        aim: 0.97,
        digits: 3,
        figures: &[("far away", "runner *", "ratio_of_rate")],
    },
    Target {
        what: "`stop()` with nothing in flight, in ms",
        bound: AtMost,
        must: 50.0,
        aim: 5.0,
        digits: 2,
        figures: &[("stop", "runner *", "ms")],
    },
    Target {
        what: "idle for 30 s, ms of CPU",
        bound: AtMost,
        must: 5.0,
        aim: 1.0,
        digits: 2,
        figures: &[("idle", "runner *", "cpu_ms")],
    },
    Target {
        what: "echo bot, MiB resident",
        bound: AtMost,
        must: 12.0,
        aim: 8.0,
        digits: 1,
        figures: &[("idle", "runner *", "resident_mib")],
    },
    Target {
        what: "crates in the tree of the core",
        bound: AtMost,
        must: 20.0,
        aim: 20.0,
        digits: 0,
        figures: &[("dependencies", "core", "crates")],
    },
    Target {
        what: "crates in the tree of a bot on smol with ureq",
        bound: AtMost,
        must: 90.0,
        aim: 90.0,
        digits: 0,
        figures: &[("dependencies", "bot ureq", "crates")],
    },
];

/// The worst figure of each runtime, and what that means.
pub(crate) fn markdown(data: &Data) -> String {
    let mut text =
        String::from("| what | must | aim | measured | met |\n|---|---:|---:|---|---|\n");
    for target in TARGETS {
        let sign = match target.bound {
            AtMost => "≤",
            AtLeast => "≥",
        };
        let bound = |value: f64| match value.is_finite() {
            true => format!("{sign} {}", short(value)),
            false => String::new(),
        };
        let (figures, met) = target.measured(data);
        writeln!(
            text,
            "| {} | {} | {} | {figures} | {met} |",
            target.what,
            bound(target.must),
            bound(target.aim),
        )
        .expect("memory takes all");
    }
    text
}

impl Target {
    fn measured(&self, data: &Data) -> (String, &'static str) {
        let mut worst: Vec<(&str, f64)> = Vec::new();
        for row in &data.rows {
            let is_of = |(workload, implementation, metric): &(&str, &str, &str)| {
                matches(workload, &row.workload)
                    && matches(implementation, &row.implementation)
                    && *metric == row.metric
            };
            if !self.figures.iter().any(is_of) {
                continue;
            }
            match worst
                .iter_mut()
                .find(|(runtime, _)| *runtime == row.runtime)
            {
                Some((_, value)) => *value = self.worse(*value, row.value),
                None => worst.push((&row.runtime, row.value)),
            }
        }
        let Some(all) = worst
            .iter()
            .map(|(_, value)| *value)
            .reduce(|one, other| self.worse(one, other))
        else {
            return ("not measured".into(), "");
        };
        let texts: Vec<String> = worst
            .iter()
            .map(|(runtime, value)| match *runtime {
                "-" => number(*value, self.digits),
                runtime => format!("{runtime} {}", number(*value, self.digits)),
            })
            .collect();
        let met = if self.is_met(all, self.aim) {
            "aim"
        } else if self.must.is_infinite() {
            "aim missed"
        } else if self.is_met(all, self.must) {
            "must"
        } else {
            "**no**"
        };
        (texts.join(", "), met)
    }

    fn worse(&self, one: f64, other: f64) -> f64 {
        match self.bound {
            AtMost => one.max(other),
            AtLeast => one.min(other),
        }
    }

    fn is_met(&self, value: f64, bound: f64) -> bool {
        match self.bound {
            AtMost => value <= bound,
            AtLeast => value >= bound,
        }
    }
}

/// A `*` at the beginning or at the end stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(end), _) => text.ends_with(end),
        (_, Some(begin)) => text.starts_with(begin),
        _ => pattern == text,
    }
}

fn short(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
