//! What was measured, as lines `workload,implementation,runtime,metric,value`.

use std::fmt::Write;

/// One figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What was done.
    pub workload: String,
    /// By what.
    pub implementation: String,
    /// On which runtime; `-` for none.
    pub runtime: String,
    /// What was measured, with its unit.
    pub metric: String,
    /// How much.
    pub value: f64,
}

impl Row {
    /// What tells figures apart.
    fn key(&self) -> [&str; 4] {
        [
            &self.workload,
            &self.implementation,
            &self.runtime,
            &self.metric,
        ]
    }
}

/// All figures of a run, in the order in which they were measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Data {
    /// The figures.
    pub rows: Vec<Row>,
}

impl Data {
    /// Reads lines; those that are no figure are left out.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let rows = text.lines().filter_map(row).collect();
        Self { rows }
    }

    /// Adds a figure, or replaces it.
    pub fn set(
        &mut self,
        workload: &str,
        implementation: &str,
        runtime: &str,
        metric: &str,
        value: f64,
    ) {
        self.put(Row {
            workload: workload.into(),
            implementation: implementation.into(),
            runtime: runtime.into(),
            metric: metric.into(),
            value,
        });
    }

    /// Takes over all figures of another run.
    pub fn merge(&mut self, other: Self) {
        for row in other.rows {
            self.put(row);
        }
    }

    fn put(&mut self, row: Row) {
        match self.rows.iter_mut().find(|known| known.key() == row.key()) {
            Some(known) => known.value = row.value,
            None => self.rows.push(row),
        }
    }

    /// One figure.
    #[must_use]
    pub fn get(
        &self,
        workload: &str,
        implementation: &str,
        runtime: &str,
        metric: &str,
    ) -> Option<f64> {
        let key = [workload, implementation, runtime, metric];
        let found = self.rows.iter().find(|row| row.key() == key);
        found.map(|row| row.value)
    }

    /// The lines.
    #[must_use]
    pub fn to_csv(&self) -> String {
        let mut text = String::new();
        for row in &self.rows {
            let Row {
                workload,
                implementation,
                runtime,
                metric,
                value,
            } = row;
            let value = short(*value);
            writeln!(
                text,
                "{workload},{implementation},{runtime},{metric},{value}"
            )
            .expect("memory takes all");
        }
        text
    }
}

/// With about four digits, which is more than a measurement is worth.
fn short(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 1000.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 0.1 => 3,
        _ => 5,
    };
    format!("{value:.digits$}")
}

/// The name of a workload may have commas in it, the rest has none.
fn row(line: &str) -> Option<Row> {
    let mut fields = line.rsplitn(5, ',');
    let value = fields.next()?.trim().parse().ok()?;
    let mut text = || fields.next().map(|field| field.trim().to_owned());
    let (metric, runtime, implementation) = (text()?, text()?, text()?);
    Some(Row {
        workload: text()?,
        implementation,
        runtime,
        metric,
        value,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_survive_a_file() {
        let mut data = Data::default();
        data.set(
            "sleep 1 ms, concurrency 500",
            "runner",
            "tokio",
            "ns",
            1234.0,
        );
        data.set("stop", "runner", "smol", "ms", 0.125);
        data.set("stop", "runner", "smol", "ms", 0.25);
        let text = format!("a headline\n{}\n", data.to_csv());
        assert_eq!(Data::parse(&text), data);
        assert_eq!(data.get("stop", "runner", "smol", "ms"), Some(0.25));
        assert_eq!(data.get("stop", "runner", "tokio", "ms"), None);
    }
}
