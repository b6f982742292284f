//! The chapter `docs/performance.md`: its charts, and the tables in it.

use std::{error::Error, fs, path::Path};

use benches::data::Data;

use crate::{
    svg::{Bar, Bars, FLOOR, Line, Lines, OURS, OURS_TOO, THEIRS},
    tables::{self, TABLES},
    targets,
};

/// Draws the charts into `docs`, and puts the figures into the chapter there.
pub(crate) fn write(data: &Data, docs: &Path) -> Result<(), Box<dyn Error>> {
    for (name, svg) in charts(data) {
        fs::write(docs.join(format!("performance-{name}.svg")), svg)?;
    }
    let chapter = docs.join("performance.md");
    let text = fill_in(&fs::read_to_string(&chapter)?, data)?;
    fs::write(chapter, text)?;
    Ok(())
}

/// Replaces what is between `<!-- figures: NAME -->` and `<!-- end -->`.
fn fill_in(text: &str, data: &Data) -> Result<String, String> {
    const BEGIN: &str = "<!-- figures: ";
    const END: &str = "<!-- end -->";

    let mut parts = text.split(BEGIN);
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once(" -->").ok_or("a marker is not closed")?;
        let (_, rest) = rest.split_once(END).ok_or(format!("{name} has no end"))?;
        let figures = match name {
            "targets" => targets::markdown(data),
            "machine" => tables::machine(data) + "\n",
            _ => TABLES
                .iter()
                .find(|table| table.name == name)
                .ok_or(format!("there is no table {name}"))?
                .markdown(data)
                .unwrap_or_else(|| "Not measured.\n".into()),
        };
        filled += &format!("{BEGIN}{name} -->\n\n{figures}\n{END}{rest}");
    }
    Ok(filled)
}

/// Every chart of the chapter, also where nothing was measured: its link must lead somewhere.
fn charts(data: &Data) -> [(&'static str, String); 7] {
    let drained = |metric, digits, title| end_to_end(data, "drain", metric, digits, title).svg();
    let rate = "Drain over HTTP: updates per second";
    let cpu = "Drain over HTTP: µs of CPU per update";
    let p99 = "2 000 messages a second: p99 from push to reply, in ms";
    [
        ("queue", queue(data).svg()),
        ("in-flight", in_flight(data).svg()),
        ("fetch", fetch(data).svg()),
        ("drain", drained("updates_per_s", 0, rate)),
        ("cpu", drained("cpu_us", 2, cpu)),
        ("growth", growth(data).svg()),
        (
            "steady",
            end_to_end(data, "steady 2000 per s", "p99_ms", 2, p99).svg(),
        ),
    ]
}

/// The time of the runner, as a share of that of each loop.
fn queue(data: &Data) -> Bars {
    let mut groups: Vec<Vec<Bar>> = Vec::new();
    let mut last = "";
    for row in &data.rows {
        let is_ours = row.implementation == "runner" || row.runtime != "tokio";
        if row.metric != "ratio_of_time" || is_ours || !is_of_queue(&row.workload) {
            continue;
        }
        if row.workload != last {
            groups.push(Vec::new());
            last = &row.workload;
        }
        let bar = Bar {
            label: format!("{}: {}", row.workload, row.implementation),
            value: row.value,
            color: OURS,
        };
        groups.last_mut().expect("one was made").push(bar);
    }
    Bars {
        title: "Time of the runner against each loop by hand, tokio (1 is as long)",
        digits: 2,
        groups,
        mark: Some(1.0),
    }
}

fn is_of_queue(workload: &str) -> bool {
    ["no-op", "yield", "sleep", "2 µs"]
        .iter()
        .any(|begin| workload.starts_with(begin))
}

fn fetch(data: &Data) -> Bars {
    let mut groups = Vec::new();
    for model in ["light", "frankenstein", "teloxide-core"] {
        let workload = format!("fetch with model {model}");
        let bars = data
            .rows
            .iter()
            .filter(|row| row.workload == workload && row.metric == "ns");
        let bars: Vec<Bar> = bars
            .map(|row| Bar {
                label: match &*row.runtime {
                    "-" => format!("{model}: {}", row.implementation),
                    runtime => format!("{model}: {} on {runtime}", row.implementation),
                },
                value: row.value,
                color: match &*row.implementation {
                    "runner" => OURS,
                    "split and decode" => OURS_TOO,
                    _ => THEIRS,
                },
            })
            .collect();
        if !bars.is_empty() {
            groups.push(bars);
        }
    }
    Bars {
        title: "From bytes to handlers: ns per update, one thread",
        digits: 0,
        groups,
        mark: None,
    }
}

/// One metric of one workload, by runtime and client.
fn end_to_end(
    data: &Data,
    workload: &str,
    metric: &str,
    digits: usize,
    title: &'static str,
) -> Bars {
    let mut groups: Vec<(String, Vec<Bar>)> = Vec::new();
    let rows = data
        .rows
        .iter()
        .filter(|row| row.workload == workload && row.metric == metric);
    for row in rows {
        let client = row.implementation.rsplit(' ').next().unwrap_or_default();
        let group = format!("{client} {}", row.runtime);
        let bar = Bar {
            label: match &*row.runtime {
                "-" => row.implementation.clone(),
                runtime => format!("{} on {runtime}", row.implementation),
            },
            value: row.value,
            color: match &*row.implementation {
                "floor" => FLOOR,
                name if name.starts_with("runner") => OURS,
                _ => THEIRS,
            },
        };
        match groups.iter_mut().find(|(name, _)| *name == group) {
            Some((_, bars)) => bars.push(bar),
            None => groups.push((group, vec![bar])),
        }
    }
    Bars {
        title,
        digits,
        groups: groups.into_iter().map(|(_, bars)| bars).collect(),
        mark: None,
    }
}

fn in_flight(data: &Data) -> Lines {
    Lines {
        title: "Instructions of a no-op update while others are in flight",
        across: "updates in flight",
        digits: 0,
        lines: lines(data, "instructions", |workload| {
            let number = workload.strip_prefix("no-op with ")?;
            number.strip_suffix(" in flight")
        }),
    }
}

fn growth(data: &Data) -> Lines {
    Lines {
        title: "Drain over HTTP: µs of CPU per update, by the size of the backlog",
        across: "updates in the backlog",
        digits: 1,
        lines: lines(data, "cpu_us", |workload| {
            workload.strip_prefix("drain of ")
        }),
    }
}

/// A line for each runtime; `size` takes the number out of the name of a workload.
fn lines(data: &Data, metric: &str, size: fn(&str) -> Option<&str>) -> Vec<Line> {
    let mut lines = Vec::new();
    for (runtime, color) in [("tokio", OURS), ("smol", FLOOR)] {
        let rows = data.rows.iter().filter(|row| row.runtime == runtime);
        let points = rows.filter(|row| row.metric == metric).filter_map(|row| {
            let size: f64 = size(&row.workload)?.parse().ok()?;
            Some((size, row.value))
        });
        let mut points: Vec<(f64, f64)> = points.collect();
        points.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        if !points.is_empty() {
            lines.push(Line {
                label: runtime.into(),
                points,
                color,
            });
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let mut data = Data::default();
        data.set("stop", "runner ureq", "smol", "ms", 0.25);
        let page = "one\n<!-- figures: stop -->\nold\n<!-- end -->\ntwo\n";
        let filled = fill_in(page, &data).unwrap();
        assert!(filled.starts_with("one\n<!-- figures: stop -->\n"));
        assert!(filled.ends_with("\n<!-- end -->\ntwo\n"));
        assert!(filled.contains("| stop | runner ureq | smol | 0.25 |"));
        assert!(!filled.contains("old"));
        assert_eq!(fill_in(&filled, &data).unwrap(), filled);
        assert!(fill_in("<!-- figures: nothing --><!-- end -->", &data).is_err());
    }
}
