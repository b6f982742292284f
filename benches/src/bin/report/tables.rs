//! Tables of the figures, in Markdown.

use std::fmt::Write;

use benches::data::{Data, Row};

use crate::targets;

/// A table: which workloads, and which metrics of them.
pub(crate) struct Table {
    /// What it is called in the page, and in `<!-- figures: … -->` there.
    pub(crate) name: &'static str,
    title: &'static str,
    /// Which workloads belong to it.
    covers: fn(&str) -> bool,
    /// Metric, heading, digits after the point.
    columns: &'static [(&'static str, &'static str, usize)],
}

pub(crate) const TABLES: &[Table] = &[
    Table {
        name: "queue",
        title: "The core against loops by hand",
        covers: |workload| !is_end_to_end(workload) && !is_of_numbers(workload),
        columns: &[
            ("ns", "ns", 0),
            ("cpu_ns", "CPU ns", 0),
            ("instructions", "instructions", 0),
            ("allocations", "allocations", 3),
            ("order_violations", "order violations", 0),
            ("ratio_of_time", "runner: time", 2),
            ("ratio_of_cpu", "runner: CPU", 2),
            ("ratio_of_instructions", "runner: instructions", 2),
        ],
    },
    Table {
        name: "memory",
        title: "Memory for each update held",
        covers: |workload| workload.ends_with(" held"),
        columns: &[
            ("bytes_in_flight", "bytes in flight", 0),
            ("bytes_waiting", "bytes waiting for a key", 0),
        ],
    },
    Table {
        name: "in-flight",
        title: "Cost of an update while others are in flight",
        covers: |workload| workload.ends_with(" in flight"),
        columns: &[("ns", "ns", 0), ("instructions", "instructions", 0)],
    },
    Table {
        name: "fetch",
        title: "From bytes to handlers",
        covers: |workload| workload.starts_with("fetch "),
        columns: &[
            ("ns", "ns per update", 0),
            ("ratio_of_time", "against serde_json alone", 2),
        ],
    },
    Table {
        name: "drain",
        title: "Drain of a backlog",
        covers: |workload| workload == "drain",
        columns: &[
            ("updates_per_s", "updates per second", 0),
            ("ratio_of_rate", "of the floor's", 2),
            ("cpu_us", "µs of CPU per update", 2),
            ("ratio_of_cpu", "times the floor's", 2),
            ("server_cpu_us", "µs of CPU of the server", 2),
            ("cores", "cores at work", 2),
        ],
    },
    Table {
        name: "growth",
        title: "Backlogs of several sizes",
        covers: |workload| workload.starts_with("drain of "),
        columns: &[("cpu_us", "µs of CPU per update", 2)],
    },
    Table {
        name: "wait",
        title: "20 000 handlers of 10 ms, 500 at a time",
        covers: |workload| workload == "handlers of 10 ms",
        columns: &[("ms", "ms", 0), ("ratio_of_time", "times the ideal", 3)],
    },
    Table {
        name: "far",
        title: "Answers that take 50 ms",
        covers: |workload| workload == "far away",
        columns: &[
            ("updates_per_s", "updates per second", 0),
            ("ratio_of_rate", "of 100 per round trip", 3),
        ],
    },
    Table {
        name: "steady",
        title: "A steady load, from push to reply",
        covers: |workload| workload.starts_with("steady "),
        columns: &[
            ("p50_ms", "p50 ms", 2),
            ("p99_ms", "p99 ms", 2),
            ("max_ms", "max ms", 2),
            ("ratio_of_p99", "p99 against by hand", 2),
            ("cpu_us", "µs of CPU per update", 0),
        ],
    },
    Table {
        name: "hot",
        title: "One hot chat: replies to the others",
        covers: |workload| workload == "one hot chat",
        columns: &[
            ("p50_ms", "p50 ms", 2),
            ("p99_ms", "p99 ms", 2),
            ("max_ms", "max ms", 2),
        ],
    },
    Table {
        name: "stop",
        title: "Stop",
        covers: |workload| workload == "stop",
        columns: &[("ms", "ms", 2)],
    },
    Table {
        name: "idle",
        title: "Idle for 30 s",
        covers: |workload| workload == "idle",
        columns: &[
            ("cpu_ms", "ms of CPU", 2),
            ("resident_mib", "MiB resident", 1),
            ("threads", "threads", 0),
        ],
    },
    Table {
        name: "dependencies",
        title: "Crates in the tree",
        covers: |workload| workload == "dependencies",
        columns: &[("crates", "crates", 0)],
    },
];

/// What this program measures itself, or the bench of the fetch path.
fn is_end_to_end(workload: &str) -> bool {
    let own = TABLES.iter().filter(|table| table.name != "queue");
    own.into_iter().any(|table| (table.covers)(workload)) || workload == "machine"
}

/// The workloads of the core that are sizes.
fn is_of_numbers(workload: &str) -> bool {
    workload.ends_with(" held") || workload.ends_with(" in flight")
}

impl Table {
    /// In Markdown; `None` if nothing was measured.
    pub(crate) fn markdown(&self, data: &Data) -> Option<String> {
        let rows: Vec<&Row> = data
            .rows
            .iter()
            .filter(|row| (self.covers)(&row.workload))
            .collect();
        let columns: Vec<_> = self
            .columns
            .iter()
            .filter(|(metric, ..)| rows.iter().any(|row| row.metric == *metric))
            .collect();
        if columns.is_empty() {
            return None;
        }
        let mut text = String::from("| workload | by | runtime |");
        for (_, heading, _) in &columns {
            write!(text, " {heading} |").expect("memory takes all");
        }
        text.push_str("\n|---|---|---|");
        text.push_str(&"---:|".repeat(columns.len()));
        text.push('\n');
        let mut lines: Vec<(&str, &str, &str)> = Vec::new();
        for row in &rows {
            let line = (&*row.workload, &*row.implementation, &*row.runtime);
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        for (workload, implementation, runtime) in lines {
            write!(text, "| {workload} | {implementation} | {runtime} |")
                .expect("memory takes all");
            for (metric, _, digits) in &columns {
                let cell = data
                    .get(workload, implementation, runtime, metric)
                    .map_or_else(String::new, |value| number(value, *digits));
                write!(text, " {cell} |").expect("memory takes all");
            }
            text.push('\n');
        }
        Some(text)
    }
}

/// With thin groups of three, as the guide writes numbers.
pub(crate) fn number(value: f64, digits: usize) -> String {
    let plain = format!("{value:.digits$}");
    let (whole, rest) = match plain.split_once('.') {
        Some((whole, rest)) => (whole, format!(".{rest}")),
        None => (&*plain, String::new()),
    };
    if whole.trim_start_matches('-').len() < 5 {
        return plain;
    }
    let mut grouped = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place) % 3 == 0 {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped + &rest
}

/// Everything, with headings.
pub(crate) fn all(data: &Data) -> String {
    let mut text = format!(
        "{}\n\n## Targets\n\n{}",
        machine(data),
        targets::markdown(data)
    );
    for table in TABLES {
        if let Some(figures) = table.markdown(data) {
            write!(text, "\n## {}\n\n{figures}", table.title).expect("memory takes all");
        }
    }
    text
}

/// The machine, by its kind.
pub(crate) fn machine(data: &Data) -> String {
    let found = data.rows.iter().find(|row| row.workload == "machine");
    match found {
        Some(row) => format!(
            "Measured on {} {} cores under {}.",
            row.value, row.implementation, row.runtime
        ),
        None => String::from("The machine is not known."),
    }
}
