//! Holds what the runner says against what the test has seen: reports and looks inside.

use std::time::Duration;

use runner_core::{
    Abandoned, Confirmation, Counters, EndReason, Fate, InFlight, Progress, Report, RunError, Stats,
};

use crate::{
    coverage::Seen,
    oracle::{Ending, Event, Oracle, State},
    world::Item,
};

pub(crate) type Outcome = Result<Report<Item>, RunError<Item>>;

/// How a run had to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    No,
    Dropped,
    RuntimeGone,
}

impl Oracle {
    /// The end of a run, as everyone who waited for it was told.
    pub(crate) fn result(&mut self, result: &Outcome, cut: Cut) {
        let report = match result {
            Ok(report) => report,
            Err(error) => error.report(),
        };
        self.event(Event::Result {
            abandoned: report.abandoned.len(),
        });
        self.check_kind(result, cut);
        let expected = match result {
            Ok(_) if self.run.supply_ended => EndReason::SupplyEnded,
            Ok(_) => EndReason::Stopped,
            Err(_) => EndReason::Failed,
        };
        self.require(report.end == expected, || {
            format!("the end is {:?}, not {expected:?}", report.end)
        });
        if cut == Cut::No {
            for _ in report.abandoned.iter().filter(|it| it.unresponsive) {
                self.coverage.add(Seen::HandlerUnresponsive);
            }
        }
        self.check_abandoned(report);
        self.check_counters(report);
        self.check_close(report, cut);
        self.run.over = true;
    }

    fn check_kind(&mut self, result: &Outcome, cut: Cut) {
        let (halted, fatal) = (self.run.halted, self.call.fatal);
        let fits = match (result, cut) {
            (Err(RunError::Dropped { .. }), Cut::Dropped)
            | (Err(RunError::RuntimeGone { .. }), Cut::RuntimeGone) => true,
            (_, Cut::Dropped | Cut::RuntimeGone) => false,
            (Err(RunError::Policy { .. }), Cut::No) => halted,
            (Err(RunError::Supply { .. } | RunError::SupplierPanicked { .. }), Cut::No) => {
                fatal && !halted
            }
            (Ok(_), Cut::No) => self.run.stopping && !fatal && !halted,
            _ => false,
        };
        self.require(fits, || {
            let what = match result {
                Ok(report) => report.to_string(),
                Err(error) => format!("{error}"),
            };
            format!("ended with {what:?} (halted {halted}, fatal {fatal}, {cut:?})")
        });
    }

    /// Exactly those are listed that were never settled, in order.
    fn check_abandoned(&mut self, report: &Report<Item>) {
        let first = self.run.first;
        let mut listed = report.abandoned.iter().peekable();
        for seq in 0..self.run.arrived {
            let nr = first + seq;
            let entry = self.entries[nr].clone();
            let found = listed.next_if(|abandoned| abandoned.id == seq as u64);
            match (entry.state, found) {
                (State::Done(_), None) => {}
                // Its handler was given up, and ended before the report was read.
                (State::Done(_), Some(abandoned)) if abandoned.unresponsive => {}
                (state, None) if !self.may_be_failed(nr) => {
                    self.broken(|| format!("update {nr} is {state:?} and not listed as abandoned"));
                }
                (_, None) => {}
                (State::Done(ending), Some(_)) => {
                    self.broken(|| format!("update {nr} is {ending:?} and listed as abandoned"));
                }
                (_, Some(abandoned)) => self.check_one(nr, abandoned),
            }
        }
        let rest = listed.count();
        self.require(rest == 0, || {
            format!("{rest} updates are listed as abandoned that were not supplied, or twice")
        });
    }

    fn check_one(&mut self, nr: usize, abandoned: &Abandoned<Item>) {
        let entry = self.entries[nr].clone();
        let attempts = entry.attempts;
        let listed = abandoned.update.nr;
        self.require(listed == nr, || {
            format!("update {nr} is listed as {listed}")
        });
        let handled = entry.was_handled();
        self.require(handled.is_none_or(|seen| abandoned.started == seen), || {
            format!(
                "update {nr} after {attempts} attempts: started {}",
                abandoned.started
            )
        });
        let attempt = abandoned.attempt.get();
        self.require(
            attempt == attempts.max(1) || attempt == attempts + 1,
            || format!("update {nr} is listed at attempt {attempt}, there were {attempts}"),
        );
        let again = match self.run.close_answer {
            None => Fate::Unknown,
            Some(closing) => match closing.redelivers_from {
                Some(from) if nr - self.run.first >= from => Fate::Redelivered,
                _ => Fate::Lost,
            },
        };
        let fate = abandoned.fate;
        self.require(fate == again, || {
            format!("update {nr}: {fate:?}, not {again:?}")
        });
    }

    fn check_counters(&mut self, report: &Report<Item>) {
        let counters = report.counters;
        let listed: Vec<usize> = report
            .abandoned
            .iter()
            .map(|abandoned| self.run.first + abandoned.id as usize)
            .collect();
        let mut seen = Counters::default();
        seen.supplied = (self.entries.len() - self.run.first) as u64;
        seen.abandoned = listed.len() as u64;
        for nr in self.run.first..self.entries.len() {
            if listed.binary_search(&nr).is_ok() {
                continue;
            }
            // One that may have had its last attempt was given up, or it would be listed.
            let ending = match self.entries[nr].state {
                State::Done(ending) => ending,
                _ => self.ending(nr),
            };
            *match ending {
                Ending::Finished => &mut seen.finished,
                Ending::Failed => &mut seen.failed,
                Ending::Panicked => &mut seen.panicked,
                Ending::TimedOut => &mut seen.timed_out,
                Ending::Undecodable => &mut seen.undecodable,
                Ending::Overflowed => &mut seen.overflowed,
            } += 1;
        }
        let (retried, detached) = (self.retries(), self.run.detached);
        self.require(counters.retried <= retried, || {
            format!("{} repeated, {retried} seen", counters.retried)
        });
        self.require(counters.detached == detached, || {
            format!("{} detached, {detached} seen", counters.detached)
        });
        seen.retried = counters.retried;
        seen.detached = counters.detached;
        self.require(counters == seen, || {
            format!("told {counters:?}, seen {seen:?}")
        });
        let sum = counters.settled();
        self.require(sum == counters.supplied, || {
            format!("{sum} ended of {}", counters.supplied)
        });
    }

    fn check_close(&mut self, report: &Report<Item>, cut: Cut) {
        let closes = self.run.closes.clone();
        let gone = cut != Cut::No;
        let prefix = report
            .abandoned
            .first()
            .map_or(report.counters.supplied, |first| first.id);
        if gone {
            // The close itself may have been cut short.
            self.require(closes.len() <= 1, || "closed twice".to_owned());
        } else {
            // An update that was given up may have ended between close and report.
            self.require(closes == [prefix as usize], || {
                format!("closed at {closes:?}, the report says {prefix}")
            });
        }
        let answer = self.run.close_answer.filter(|_| !gone);
        let expected = answer.map_or(Confirmation::Failed, |closing| closing.confirmation);
        // One that never began has nothing to confirm.
        let never = gone && self.run.arrived == 0 && report.confirmation == Confirmation::NotNeeded;
        self.require(report.confirmation == expected || never, || {
            format!("{:?} instead of {expected:?}", report.confirmation)
        });
    }

    /// A look inside, at a moment when nobody is between two states.
    pub(crate) fn look(&mut self, held: &[InFlight<Item>], stats: &Stats) {
        if self.is_closed() || !self.run.begun {
            return;
        }
        let expected: Vec<usize> = self.held.iter().copied().collect();
        let told: Vec<usize> = held.iter().map(|held| held.update.nr).collect();
        let uncertain = expected.iter().any(|nr| self.may_be_failed(*nr));
        if uncertain {
            return;
        }
        self.require(told == expected, || {
            format!("holds {told:?}, not {expected:?}")
        });
        for held in held {
            let nr = held.update.nr;
            let entry = self.entries[nr].clone();
            let fits = match entry.state {
                State::Pending { .. } => matches!(
                    held.progress,
                    Progress::Waiting | Progress::Ready | Progress::Retrying
                ),
                _ => matches!(
                    held.progress,
                    Progress::Running | Progress::Detached | Progress::Unresponsive
                ),
            };
            self.require(fits, || {
                format!("update {nr} is {:?}, not {:?}", held.progress, entry.state)
            });
            let before = self.waits_for(nr);
            self.require(held.waits_for == before, || {
                format!("update {nr} waits for {:?}, not {before:?}", held.waits_for)
            });
        }
        let pending = expected
            .iter()
            .filter(|nr| matches!(self.entries[**nr].state, State::Pending { .. }))
            .count();
        let busy = self.busy;
        self.require(stats.in_flight + stats.detached == busy, || {
            format!(
                "{} in flight and {} detached, not {busy}",
                stats.in_flight, stats.detached
            )
        });
        self.require(stats.ready + stats.waiting == pending, || {
            format!(
                "{} ready and {} waiting, not {pending}",
                stats.ready, stats.waiting
            )
        });
        let supplied = self.run.arrived as u64;
        self.require(stats.counters.supplied == supplied, || {
            format!("{} supplied, not {supplied}", stats.counters.supplied)
        });
        let (calls, failures) = (self.feed.calls, self.feed.failures);
        self.require(
            (stats.calls, stats.failed_calls) == (calls, failures),
            || {
                let told = (stats.calls, stats.failed_calls);
                format!("{told:?} calls, not {:?}", (calls, failures))
            },
        );
        let settled = supplied - expected.len() as u64;
        let told = stats.counters.settled();
        self.require(told == settled, || format!("{told} settled, not {settled}"));
    }

    /// A stop with a limit ends in time, for everyone who has waited `since` then.
    pub(crate) fn check_end(&mut self, since: Duration, ended: Duration) {
        let suspended = self.run.suspended;
        if let Some(deadline) = self.run.deadline {
            self.require(
                ended <= since.max(deadline + Duration::from_secs(1) + suspended),
                || format!("a stop by {deadline:?} ended at {ended:?}"),
            );
        }
    }
}
