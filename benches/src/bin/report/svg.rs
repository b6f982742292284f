//! Two kinds of charts, as SVG: bars, and lines over a logarithmic axis.

use std::fmt::Write;

use crate::tables::number;

/// Ours, what it is compared with, and the floor.
pub(crate) const OURS: &str = "#33507f";
pub(crate) const OURS_TOO: &str = "#7a93bd";
pub(crate) const THEIRS: &str = "#c3c9d4";
pub(crate) const FLOOR: &str = "#d9a441";

const WIDTH: f64 = 760.0;

/// The width of a letter, rather more than less: who draws the chart chooses the font.
const LETTER: f64 = 6.5;

/// One bar.
pub(crate) struct Bar {
    pub(crate) label: String,
    pub(crate) value: f64,
    pub(crate) color: &'static str,
}

/// Horizontal bars from zero.
pub(crate) struct Bars {
    pub(crate) title: &'static str,
    /// Digits after the point.
    pub(crate) digits: usize,
    /// Bars of one group stand together.
    pub(crate) groups: Vec<Vec<Bar>>,
    /// A line across all bars.
    pub(crate) mark: Option<f64>,
}

impl Bars {
    pub(crate) fn svg(&self) -> String {
        const RIGHT: f64 = 690.0;
        const STEP: f64 = 20.0;
        const GAP: f64 = 10.0;

        if self.groups.is_empty() {
            return nothing(self.title);
        }
        let bars = || self.groups.iter().flatten();
        let largest = bars().map(|bar| bar.value).fold(0.0, f64::max);
        let widest = bars().map(|bar| bar.label.chars().count()).max();
        let left = 24.0 + LETTER * widest.unwrap_or(0) as f64;
        let scale = (RIGHT - left) / self.mark.map_or(largest, |mark| mark.max(largest));
        let mut body = String::new();
        let mut y = 48.0;
        for group in &self.groups {
            for bar in group {
                let Bar {
                    label,
                    value,
                    color,
                } = bar;
                let width = (value * scale).max(1.0);
                let text = y + 12.0;
                write!(
                    body,
                    r##"
  <text x="{}" y="{text}" fill="#223" text-anchor="end">{}</text>
  <rect x="{left}" y="{y}" width="{width:.1}" height="15" fill="{color}"/>
  <text x="{:.1}" y="{text}" fill="#223">{}</text>"##,
                    left - 8.0,
                    escape(label),
                    left + width + 6.0,
                    number(*value, self.digits),
                )
                .expect("memory takes all");
                y += STEP;
            }
            y += GAP;
        }
        if let Some(mark) = self.mark {
            let x = left + mark * scale;
            write!(
                body,
                r##"
  <path d="M{x:.1} 42 V{:.1}" stroke="#a33" stroke-width="1.5" stroke-dasharray="4 3"/>"##,
                y - GAP
            )
            .expect("memory takes all");
        }
        page(self.title, y, &body)
    }
}

/// One line: its points from left to right.
pub(crate) struct Line {
    pub(crate) label: String,
    pub(crate) points: Vec<(f64, f64)>,
    pub(crate) color: &'static str,
}

/// Lines over a logarithmic axis, from zero upwards.
pub(crate) struct Lines {
    pub(crate) title: &'static str,
    pub(crate) across: &'static str,
    pub(crate) digits: usize,
    pub(crate) lines: Vec<Line>,
}

impl Lines {
    pub(crate) fn svg(&self) -> String {
        const LEFT: f64 = 80.0;
        const RIGHT: f64 = 600.0;
        const TOP: f64 = 50.0;
        const BOTTOM: f64 = 250.0;

        if self.lines.is_empty() {
            return nothing(self.title);
        }
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let low = points().map(|(x, _)| x.ln()).fold(f64::INFINITY, f64::min);
        let high = points()
            .map(|(x, _)| x.ln())
            .fold(f64::NEG_INFINITY, f64::max);
        let largest = nice(points().map(|(_, y)| *y).fold(0.0, f64::max));
        let place = |(x, y): (f64, f64)| {
            let across = (x.ln() - low) / (high - low).max(f64::EPSILON);
            let up = y / largest;
            (LEFT + across * (RIGHT - LEFT), BOTTOM - up * (BOTTOM - TOP))
        };
        let mut body = String::new();
        for part in 0..=4 {
            let value = largest * f64::from(part) / 4.0;
            let y = BOTTOM - (BOTTOM - TOP) * f64::from(part) / 4.0;
            write!(
                body,
                r##"
  <path d="M{LEFT} {y} H{RIGHT}" stroke="#dde"/>
  <text x="{}" y="{}" fill="#223" text-anchor="end">{}</text>"##,
                LEFT - 8.0,
                y + 4.0,
                number(value, self.digits),
            )
            .expect("memory takes all");
        }
        let mut ticks: Vec<f64> = points().map(|(x, _)| *x).collect();
        ticks.sort_by(f64::total_cmp);
        ticks.dedup();
        for tick in ticks {
            let (x, _) = place((tick, 0.0));
            write!(
                body,
                r##"
  <text x="{x:.1}" y="{}" fill="#223" text-anchor="middle">{}</text>"##,
                BOTTOM + 20.0,
                number(tick, 0),
            )
            .expect("memory takes all");
        }
        write!(
            body,
            r##"
  <text x="{}" y="{}" fill="#223" text-anchor="middle">{}</text>"##,
            f64::midpoint(LEFT, RIGHT),
            BOTTOM + 42.0,
            escape(self.across),
        )
        .expect("memory takes all");
        // Labels keep apart, also where lines end at the same height.
        let mut labels: Vec<(f64, &Line)> = self
            .lines
            .iter()
            .filter_map(|line| Some((place(*line.points.last()?).1, line)))
            .collect();
        labels.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        let mut lowest = 0.0_f64;
        for (y, line) in labels {
            let y = y.max(lowest + 16.0);
            lowest = y;
            let path: Vec<String> = line
                .points
                .iter()
                .map(|point| {
                    let (x, y) = place(*point);
                    format!("{x:.1},{y:.1}")
                })
                .collect();
            write!(
                body,
                r##"
  <polyline points="{}" fill="none" stroke="{color}" stroke-width="2.5"/>
  <text x="{}" y="{:.1}" fill="{color}" font-weight="bold">{}</text>"##,
                path.join(" "),
                RIGHT + 8.0,
                y + 4.0,
                escape(&line.label),
                color = line.color,
            )
            .expect("memory takes all");
        }
        page(self.title, BOTTOM + 54.0, &body)
    }
}

fn nothing(title: &str) -> String {
    let body = "\n  <text x=\"16\" y=\"60\" fill=\"#223\">not measured</text>";
    page(title, 80.0, body)
}

fn page(title: &str, height: f64, body: &str) -> String {
    let title = escape(title);
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0}" font-family="system-ui, sans-serif" font-size="12" role="img" aria-labelledby="title">
  <title id="title">{title}</title>
  <rect width="{WIDTH}" height="{height:.0}" fill="#fff"/>
  <text x="16" y="26" fill="#33507f" font-size="14" font-weight="bold">{title}</text>{body}
</svg>
"##
    )
}

/// The next number upwards that divides well by four.
fn nice(value: f64) -> f64 {
    let power = 10_f64.powf(value.max(f64::MIN_POSITIVE).log10().floor());
    [1.0, 2.0, 4.0, 6.0, 8.0, 10.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|bound| *bound >= value)
        .unwrap_or(value)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_label_has_its_place_beside_the_bars() {
        let label = "sleep 1 ms at concurrency 10 000: semaphore + spawn + timeout";
        let bars = Bars {
            title: "long",
            digits: 0,
            groups: vec![vec![Bar {
                label: label.into(),
                value: 1.0,
                color: OURS,
            }]],
            mark: None,
        };
        let svg = bars.svg();
        let line = svg.lines().find(|line| line.contains(label)).unwrap();
        let (_, text) = line.split_once("x=\"").unwrap();
        let end: f64 = text.split('"').next().unwrap().parse().unwrap();
        assert!(end >= LETTER * label.len() as f64, "{svg}");
        assert!(
            end < WIDTH / 2.0 + 100.0,
            "room is left for the bars: {svg}"
        );
    }
}
