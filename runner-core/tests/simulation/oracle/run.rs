//! What the director does to a run, and what follows from it.

use std::time::Duration;

use super::{Call, Event, LastChance, Oracle, Run, State};
use crate::{coverage::Seen, world::Mode};

impl Oracle {
    pub(crate) fn begin(&mut self) {
        self.event(Event::Begin(self.run.number + 1));
        // One that was cut short before its supplier was told of an earlier one has supplied nothing.
        let inherited = self.run.unclosed.is_some() && self.run.inherits;
        self.run = Run {
            unclosed_first: match inherited {
                true => self.run.unclosed_first,
                false => self.run.first,
            },
            inherits: self.run.unclosed.is_some(),
            number: self.run.number + 1,
            first: self.entries.len(),
            begun: true,
            unclosed: self.run.unclosed,
            stopping: std::mem::take(&mut self.early),
            ..Run::default()
        };
        self.call = Call::default();
        self.held.clear();
        self.lines.clear();
        self.busy = 0;
        self.starting = 0;
    }

    /// A stop was called; it takes effect at once.
    pub(crate) fn stop(&mut self, within: Option<Duration>) {
        self.event(Event::Stop(within));
        if self.run.over {
            // The first run remembers it; afterwards there is nothing to stop.
            self.early |= self.run.number == 0;
            return;
        }
        let now = self.now();
        if let Some(within) = within {
            let deadline = now + within;
            self.run.deadline = Some(self.run.deadline.map_or(deadline, |at| at.min(deadline)));
        }
        self.stopped_at(now, true);
    }

    /// `at_once`: it has taken effect already; otherwise within this instant.
    pub(super) fn stopped_at(&mut self, at: Duration, at_once: bool) {
        if self.run.stopping {
            return;
        }
        self.run.stopping = true;
        self.run.stopped_at = Some(at);
        for nr in &self.held {
            let entry = &mut self.entries[*nr];
            if let State::Pending { due: Some(due) } = entry.state {
                // One that is due may start before a stop that comes a little later.
                entry.last_chance = if at_once || due > at {
                    LastChance::Yes
                } else {
                    LastChance::Maybe
                };
            }
        }
    }

    /// A delivery says whether the runner is stopping.
    pub(super) fn notice_stop(&mut self, stopping: bool) {
        // After its own stop the policy may be told so or not.
        if self.run.halted {
            return;
        }
        let known = self.run.stopping;
        self.require(stopping == known, || {
            format!("told that stopping is {stopping}, it is {known}")
        });
    }

    pub(crate) fn set_concurrency(&mut self, concurrency: usize) {
        self.event(Event::Concurrency(concurrency));
        let raised = concurrency > self.concurrency;
        self.coverage.add(if raised {
            Seen::RaiseConcurrency
        } else {
            Seen::LowerConcurrency
        });
        if self.config.mode != Mode::Sequential {
            self.concurrency = concurrency;
        }
    }

    /// The process is about to stand still.
    pub(crate) fn suspend(&mut self, span: Duration) {
        self.event(Event::Suspend(span));
        self.coverage.add(Seen::Suspend);
        let from = self.certain();
        let until = self.now() + span;
        self.suspended = Some((from, until));
        self.changed = until;
        self.run.suspended += span;
    }

    pub(crate) fn pause(&mut self, paused: bool) {
        self.event(Event::Pause(paused));
        self.paused = paused;
    }

    /// The run was cut short, by a drop of its future or of its runtime.
    pub(crate) fn cut(&mut self) {
        self.event(Event::Cut);
        self.run.over = true;
        // What the supplier is told first by the next run.
        // A handler that was given up may have ended since the supplier was told the first time.
        let told = self.run.closes.first().map(|told| (*told, *told));
        let prefix = told.unwrap_or_else(|| self.settled_prefix());
        self.run.unclosed.get_or_insert(prefix);
        self.call = Call {
            ended_at: self.now(),
            ..Call::default()
        };
    }

    /// Whether nothing may start any more, and what was not started is gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.run.halted || self.is_cancelled()
    }

    /// Whether handlers are being dropped.
    pub(crate) fn is_cancelled(&self) -> bool {
        let now = self.now();
        self.run.over || self.run.deadline.is_some_and(|deadline| deadline <= now)
    }
}
