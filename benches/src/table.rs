//! Medians, and tables in Markdown.

use std::time::Duration;

/// The middle one.
///
/// # Panics
///
/// If there is none.
#[must_use]
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Nanoseconds for each of `count`.
#[must_use]
pub fn nanos_each(span: Duration, count: u64) -> f64 {
    span.as_nanos() as f64 / count as f64
}

/// The first line and the rule below it.
pub fn head(columns: &[&str]) {
    println!("| {} |", columns.join(" | "));
    println!("|{}", "---|".repeat(columns.len()));
}

/// One line.
pub fn row(cells: &[String]) {
    println!("| {} |", cells.join(" | "));
}
