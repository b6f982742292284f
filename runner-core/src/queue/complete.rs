//! The one place where an update leaves the queue.

use std::time::Instant;

use super::ticket::Ticket;
use super::{
    effects::Effects,
    entry::{Entry, State as Is},
    latency::Latencies,
    outcome::{Counters, Ending, Fault, Outcome, Unfinished},
    state::{Phase, State},
};

/// What became of the updates that have left.
pub(super) struct Completion<U> {
    pub(super) counters: Counters,
    pub(super) latencies: Latencies,
    pub(super) abandoned: Vec<Unfinished<U>>,
    /// The first update that was ever abandoned, also when the list was taken.
    first_abandoned: Option<u64>,
    /// Why the queue halted by itself.
    pub(super) fault: Option<Fault>,
}

/// One in so many updates whose handler is never pending is measured: to read the clock costs a fifth of
/// all that is done for such an update.
const SAMPLE: u64 = 8;

impl<U> Completion<U> {
    pub(super) fn new() -> Self {
        Self {
            counters: Counters::default(),
            latencies: Latencies::new(),
            abandoned: Vec::new(),
            first_abandoned: None,
            fault: None,
        }
    }

    /// Lists an update as abandoned.
    pub(super) fn abandon(&mut self, entry: &Entry<U>, unresponsive: bool) {
        self.counters.abandoned += 1;
        let first = self.first_abandoned.unwrap_or(entry.id);
        self.first_abandoned = Some(first.min(entry.id));
        self.abandoned.push(entry.to_unfinished(unresponsive));
    }
}

impl<U> State<U> {
    /// An attempt has ended, and needs no policy any more. Afterwards, and after the start of the next one,
    /// call [`notify`](Self::notify) and [`wake_waiters`](Self::wake_waiters).
    ///
    /// `measured`: the time, and for how many updates this one stands. Always given for a retry.
    pub(super) fn complete(
        &mut self,
        ticket: Ticket,
        outcome: Outcome,
        measured: Option<(Instant, u64)>,
        effects: &mut Effects<U>,
    ) {
        self.stop_timer(ticket);
        let entry = &self.entries[ticket.index as usize];
        let may_retry = match self.phase {
            Phase::Open => true,
            Phase::Stopping => !entry.last_attempt,
            Phase::Halted | Phase::Closed => false,
        };
        self.workers
            .end(entry.detached, entry.state == Is::Deciding);
        let ending = match outcome {
            Outcome::Done => Ending::Finished,
            Outcome::GivenUp(ending) => ending,
            Outcome::Abandoned => Ending::Abandoned,
            Outcome::Retry { after, .. } if may_retry => {
                let (now, _) = measured.expect("a retry comes with the time");
                self.retry(ticket, after, now, effects);
                return;
            }
            // It had its one attempt after the stop.
            Outcome::Retry { else_as, .. } if self.phase == Phase::Stopping => else_as,
            // Nobody has given it up.
            Outcome::Retry { .. } => Ending::Abandoned,
            Outcome::Stop { cause } => {
                // Its successors must not overtake it: it comes first when the run is repeated.
                self.halt(Fault::Policy { cause }, effects);
                Ending::Abandoned
            }
        };
        self.leave(ticket, ending, measured, effects);
    }

    /// Counts an update, releases its keys, and forgets it.
    pub(super) fn leave(
        &mut self,
        ticket: Ticket,
        ending: Ending,
        measured: Option<(Instant, u64)>,
        effects: &mut Effects<U>,
    ) {
        let entry = self.entries.remove(ticket.index as usize);
        self.intake.let_go(entry.bytes);
        self.release_keys(&entry);
        if self.entries.is_empty() {
            self.ready.shrink();
        }
        // One that was reported as unresponsive has been counted.
        if !entry.reported {
            if let Some((now, weight)) = measured {
                let age = now.saturating_duration_since(entry.arrived);
                self.completion.latencies.record(age, weight);
            }
            if ending == Ending::Abandoned {
                self.completion.abandon(&entry, false);
            } else {
                *self.completion.counters.of(ending) += 1;
            }
        }
        effects.update = Some(entry.item);
    }

    /// Lets the successors of an update go.
    fn release_keys(&mut self, entry: &Entry<U>) {
        let Self {
            keys,
            entries,
            ready,
            intake,
            ..
        } = self;
        keys.leave(entry.keys, |successor| {
            let entry = &mut entries[successor as usize];
            entry.blocked_by -= 1;
            if entry.blocked_by == 0 {
                entry.state = Is::Ready;
                intake.end_wait();
                ready.push(successor);
            }
        });
    }

    /// How many updates, from the first one, have left without a gap.
    pub(super) fn completed_prefix(&self) -> u64 {
        let Completion {
            first_abandoned,
            counters,
            ..
        } = &self.completion;
        first_abandoned.unwrap_or(counters.supplied)
    }
}

/// For how many updates this one stands if it is measured.
pub(super) fn weight(ticket: Ticket, suspended: bool) -> Option<u64> {
    if suspended {
        return Some(1);
    }
    ticket.id.is_multiple_of(SAMPLE).then_some(SAMPLE)
}
