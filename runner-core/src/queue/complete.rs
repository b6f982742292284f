//! How an update that was started leaves the queue. Those that were not are abandoned in `shutdown.rs`.

use std::time::Instant;

use slab::Slab;

use super::{
    effects::Effects,
    entry::{Entry, State as Is},
    key_order::SPARE,
    latency::Latencies,
    outcome::{Counters, Ending, Fault, Outcome, Unfinished},
    state::{Phase, Started, State},
    ticket::Ticket,
};
use crate::consume::Item;

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

/// Of the updates whose handler is never pending, every eighth is measured: to read the clock costs a fifth
/// of all that is done for such an update.
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

    fn measure(&mut self, arrived: Instant, measured: Option<(Instant, u64)>) {
        if let Some((now, weight)) = measured {
            let age = now.saturating_duration_since(arrived);
            self.latencies.record(age, weight);
        }
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
            // It has had the one further attempt that a stop grants.
            Outcome::Retry { else_as, .. } if self.phase == Phase::Stopping => else_as,
            // Nobody has given it up.
            Outcome::Retry { .. } => Ending::Abandoned,
            Outcome::Stop { cause } => {
                // Before it leaves, so that no successor of its keys starts.
                self.halt(Fault::Policy { cause }, effects);
                Ending::Abandoned
            }
        };
        self.leave(ticket, ending, measured, effects);
    }

    /// The short form of [`complete`](Self::complete) and [`start`](Self::start): an update without keys
    /// has finished, and the next one, without keys as well, takes over its entry and its slot. Without it,
    /// a handler that does nothing takes 1.3 times as long.
    ///
    /// Returns the update that has left, to be dropped outside the lock. `None` if there is more to do; then
    /// nothing has changed.
    pub(super) fn replace(
        &mut self,
        ticket: Ticket,
        measured: Option<(Instant, u64)>,
    ) -> Option<(Started<U>, Item<U>)> {
        let entry = &mut self.entries[ticket.index as usize];
        let exceeded = self.workers.running > self.workers.concurrency;
        if exceeded
            || self.phase == Phase::Halted
            || self.phase == Phase::Closed
            || !entry.is_plain()
        {
            return None;
        }
        let new = self.ready.pop_new()?;
        self.completion.counters.finished += 1;
        self.completion.measure(entry.arrived, measured);
        self.intake.let_go(entry.bytes);
        self.starts += 1;
        let last = std::mem::replace(&mut entry.item, new.item);
        (entry.id, entry.arrived, entry.bytes) = (new.id, new.arrived, new.bytes);
        (entry.redelivered, entry.suspended) = (false, false);
        let started = Started {
            ticket: entry.ticket(ticket.index),
            update: Ok(entry.deliver(ticket.index)),
        };
        Some((started, last))
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
            // After a burst, its memory is given back.
            self.ready.shrink();
            if self.entries.capacity() > SPARE {
                self.entries = Slab::new();
            }
        }
        // One that was reported as unresponsive has been counted.
        if !entry.reported {
            if ending == Ending::Abandoned {
                self.completion.abandon(&entry, false);
            } else {
                self.completion.measure(entry.arrived, measured);
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
                intake.remove_waiting();
                ready.push(successor);
            }
        });
    }

    /// How many updates, from the first one, have left without a gap. Only for a queue that holds nothing
    /// more but what was [given up](Self::give_up).
    pub(super) fn completed_prefix(&self) -> u64 {
        let Completion {
            first_abandoned,
            counters,
            ..
        } = &self.completion;
        first_abandoned.unwrap_or(counters.supplied)
    }
}

/// For how many updates a measurement of this one counts. `None`: it is not measured.
pub(super) fn weight(ticket: Ticket, suspended: bool) -> Option<u64> {
    if suspended {
        return Some(1);
    }
    ticket.id.is_multiple_of(SAMPLE).then_some(SAMPLE)
}
