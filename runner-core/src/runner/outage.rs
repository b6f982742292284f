//! Says on stderr that nothing is fetched, where nobody listens to the log.

use std::{
    fmt,
    io::{self, Write},
    time::{Duration, Instant},
};

use super::{Report, control::Control};
use crate::{RuntimeExt, source::SourceSnapshot, trace};

/// How often the source is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// How long a failure may go without an answer. Most outages are over by then.
const PATIENCE: Duration = Duration::from_secs(5);

/// Watches the source of a run. Never ends.
pub(super) async fn watch<U: Send + Sync + 'static>(control: &Control<U>) {
    let mut outage = Outage::default();
    loop {
        control.runtime.sleep(LOOK).await;
        let now = control.runtime.now();
        match outage.look(&control.source.snapshot(), now) {
            Some(Change::Begun) => match control.source.last_error() {
                Some(error) => say(format_args!(
                    "updates cannot be fetched, trying again: {error}"
                )),
                None => say(format_args!("updates cannot be fetched, trying again")),
            },
            Some(Change::Over) => say(format_args!("updates are fetched again")),
            None => {}
        }
    }
}

/// Says it once more at the end of a run whose last call has failed.
pub(super) fn end<U: Send + Sync + 'static>(control: &Control<U>, report: &Report<U>) {
    if let Some(error) = &report.last_error
        && control.source.snapshot().failing
    {
        say(format_args!(
            "updates could not be fetched: {} of {} calls failed, the last one: {error}",
            report.failed_calls, report.calls
        ));
    }
}

fn say(text: fmt::Arguments<'_>) {
    if !trace::has_subscriber() {
        // Who closes stderr does not want to know.
        let _ = writeln!(io::stderr(), "runner: {text}");
    }
}

/// Whether calls fail, and since when.
#[derive(Debug, Default)]
struct Outage {
    /// When it was first seen, and what was the last answer then.
    since: Option<(Instant, Option<Instant>)>,
    said: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Begun,
    Over,
}

impl Outage {
    fn look(&mut self, source: &SourceSnapshot, now: Instant) -> Option<Change> {
        let answered = source.completed;
        if !source.failing {
            let before = std::mem::take(self);
            return before.said.then_some(Change::Over);
        }
        match self.since {
            Some((since, last)) if last == answered => {
                let lasts = now.saturating_duration_since(since) >= PATIENCE;
                if !lasts || self.said {
                    return None;
                }
                self.said = true;
                Some(Change::Begun)
            }
            // There was an answer since the last look.
            _ => {
                *self = Self {
                    since: Some((now, answered)),
                    said: false,
                };
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(failing: bool, completed: Option<Instant>) -> SourceSnapshot {
        let mut source = SourceSnapshot::default();
        (source.failing, source.completed) = (failing, completed);
        source
    }

    #[test]
    fn an_outage_is_said_once_after_five_seconds_and_so_is_its_end() {
        let begin = Instant::now();
        let mut outage = Outage::default();
        let said: Vec<_> = (0..30)
            .filter_map(|second| {
                let now = begin + Duration::from_secs(second);
                let failing = (3..20).contains(&second);
                let change = outage.look(&source(failing, None), now)?;
                Some((second, change))
            })
            .collect();
        assert_eq!(said, [(8, Change::Begun), (20, Change::Over)]);
    }

    #[test]
    fn failures_between_answers_are_not_said() {
        let begin = Instant::now();
        let mut outage = Outage::default();
        for second in 0..60 {
            let now = begin + Duration::from_secs(second);
            // Each look finds a failure; every fourth one comes after an answer.
            let answered = begin + Duration::from_secs(second / 4 * 4);
            assert_eq!(outage.look(&source(true, Some(answered)), now), None);
        }
    }
}
