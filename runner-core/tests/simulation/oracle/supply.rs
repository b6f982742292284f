//! What the source asks of the supplier, and what it must not ask.

use std::time::Duration;

use runner_core::Closing;

use super::{Call, Clock, Entry, Event, LastChance, Oracle, State};
use crate::{coverage::Seen, feed::Trouble, world::Mode};

impl Oracle {
    pub(crate) fn call(&mut self, limit: usize, timeout: Option<Duration>) {
        self.event(Event::Call { limit });
        let run = self.run.clone();
        self.require(!run.over, || "a call without a run".to_owned());
        self.require(!run.stopping, || "a call after the stop".to_owned());
        self.require(!self.call.fatal, || {
            "a call after a fatal failure".to_owned()
        });
        self.require(!run.halted, || "a call after the policy's stop".to_owned());
        self.require(!self.paused, || "a call while paused".to_owned());
        self.require(run.unclosed.is_none(), || {
            "a call before the supplier was told how far the last run got".to_owned()
        });
        let pending = self.call.pending || self.call.closing;
        self.require(!pending, || "calls overlap".to_owned());
        self.require((1..=100).contains(&limit), || format!("limit {limit}"));
        let (now, feed) = (self.now(), self.feed);
        self.require(now >= feed.not_before, || {
            format!("a call that had to wait until {:?}", feed.not_before)
        });
        // After a rest it asks for what there was room for before.
        if self.config.mode != Mode::Concurrent || !feed.rests(self.call.ended_at) {
            self.check_room(limit);
        }
        self.feed.calls += 1;
        self.call = Call {
            pending: true,
            began: now,
            deadline: timeout.map(|timeout| now + timeout),
            ..Call::default()
        };
    }

    /// A call asks for what there is room for.
    pub(super) fn check_room(&mut self, limit: usize) {
        if self.config.mode != Mode::Concurrent {
            let held = self.held.len();
            self.require(held == 0, || format!("a call while {held} are held"));
            return;
        }
        let waiting = self.held.iter().filter(|nr| self.is_waiting(**nr)).count();
        let pending = self
            .held
            .iter()
            .filter(|nr| matches!(self.entries[**nr].state, State::Pending { .. }))
            .count();
        let slots = self.concurrency.saturating_sub(self.slots());
        let room = (slots + self.config.prefetch)
            .saturating_sub(pending - waiting)
            .min(self.config.max_waiting.saturating_sub(waiting));
        self.require(limit <= room, || {
            format!("a call for {limit} with room for {room}")
        });
        let (bytes, max) = (self.bytes(false), self.config.max_bytes);
        self.require(max.is_none_or(|max| bytes < max), || {
            format!("a call while {bytes} bytes of {max:?} are held")
        });
    }

    /// Supplies the next update: its number.
    pub(crate) fn supply(&mut self, id: u64) -> usize {
        let again = self.entries[self.run.first..]
            .iter()
            .any(|entry| entry.id == id);
        self.require(!(self.config.fetched && again), || {
            format!("update id {id} was fetched twice in one run")
        });
        self.entries.push(Entry {
            id,
            handled: Some(false),
            run: self.run.number,
            keys: 0,
            state: State::Supplied,
            attempts: 0,
            refused: None,
            last: None,
            clock: Clock::default(),
            in_poll: false,
            late: false,
            told_late: false,
            detached: false,
            ready_at: None,
            arrived_at: Duration::ZERO,
            last_chance: LastChance::No,
            after_stop: 0,
            ended_at: Duration::ZERO,
        });
        self.entries.len() - 1
    }

    pub(crate) fn answer(&mut self, count: usize) {
        self.event(Event::Answer { count });
        let now = self.now();
        self.call = Call {
            ended_at: now,
            ..Call::default()
        };
        self.feed.answered(now);
    }

    /// The supplier was asked, and has no more.
    pub(crate) fn supply_ended(&mut self) {
        if self.run.stopping {
            return;
        }
        self.event(Event::SupplyEnded);
        self.coverage.add(Seen::SupplyEnds);
        self.run.supply_ended = true;
        let now = self.now();
        self.stopped_at(now, false);
    }

    pub(crate) fn call_failed(&mut self, trouble: Trouble) {
        self.event(Event::CallFailed(trouble));
        self.coverage.add(trouble.seen());
        let now = self.now();
        let took = now.saturating_sub(self.call.began);
        let fatal = self.feed.failed(trouble, took, now);
        match trouble {
            Trouble::Poller if fatal => self.coverage.add(Seen::SupplyTooManyConflicts),
            Trouble::Transient | Trouble::Timeout if fatal => {
                self.coverage.add(Seen::SupplyGivenUp);
            }
            _ => {}
        }
        self.call = Call {
            fatal,
            ended_at: now,
            ..Call::default()
        };
        if fatal {
            self.stopped_at(now, false);
        }
    }

    pub(crate) fn call_dropped(&mut self) {
        let now = self.now();
        if self.paused || self.run.stopping || self.is_closed() {
            self.event(Event::CallDropped);
            self.coverage.add(Seen::SupplyDropped);
            self.feed.interrupted(now);
            self.call = Call {
                ended_at: now,
                ..Call::default()
            };
            return;
        }
        let overdue = self.call.deadline.is_some_and(|deadline| deadline <= now);
        self.require(overdue, || "a call was dropped for no reason".to_owned());
        self.call_failed(Trouble::Timeout);
    }

    pub(crate) fn close(&mut self, prefix: usize) {
        self.event(Event::Close { prefix });
        self.require(!self.call.pending, || "closed during a call".to_owned());
        self.call.closing = true;
        if let Some(unclosed) = self.run.unclosed {
            self.coverage.add(Seen::CloseAfterCutShort);
            let fits = (unclosed.0..=unclosed.1).contains(&prefix);
            self.require(fits, || {
                format!("the run that was cut short had settled {unclosed:?}, not {prefix}")
            });
            return;
        }
        self.require(!self.run.over, || "closed without a run".to_owned());
        self.run.closes.push(prefix);
        let settled = self.settled_prefix();
        let fits = (settled.0..=settled.1).contains(&prefix);
        self.require(fits, || {
            format!("closed at {prefix}, but {settled:?} are settled without a gap")
        });
    }

    pub(crate) fn closed(&mut self, answer: Option<Closing>) {
        self.call.closing = false;
        if let Some(from) = answer.and_then(|answer| answer.redelivers_from) {
            // Of this run; or, told late, of the one that was cut short.
            let first = match self.run.closes.is_empty() {
                false => self.run.first,
                true => self.run.unclosed_first,
            };
            let promised = self.entries[first + from..].iter();
            let promised = promised.map(|entry| (entry.id, entry.was_handled()));
            let rest = std::mem::take(&mut self.again);
            self.again = promised.chain(rest).collect();
        }
        // The answer to the close of a run that was cut short is nobody's. If this run is cut short
        // as well, the next one tells it again.
        if self.run.closes.is_empty() {
            if !self.run.over {
                self.run.unclosed = None;
                self.run.inherits = false;
            }
        } else {
            self.run.close_answer = answer;
        }
    }

    /// The server has forgotten an update.
    pub(crate) fn forgotten(&mut self, id: u64) {
        self.coverage.add(Seen::ServerForgets);
        let known = (0..self.entries.len()).filter(|nr| self.entries[*nr].id == id);
        let known: Vec<usize> = known.collect();
        let supplied = !known.is_empty();
        let settled = known
            .iter()
            .any(|nr| matches!(self.entries[*nr].state, State::Done(_)) || self.may_be_failed(*nr));
        self.require(supplied, || {
            format!("update id {id} is lost: it was never supplied")
        });
        let sure = self.config.mode != Mode::Concurrent;
        self.require(!sure || settled, || {
            format!("update id {id} is lost: it was not settled when the next batch was fetched")
        });
    }

    /// How many are settled without a gap: at least, and at most.
    pub(super) fn settled_prefix(&self) -> (usize, usize) {
        let first = self.run.first;
        let settled = |nr: &usize| matches!(self.entries[*nr].state, State::Done(_));
        let least = (first..self.entries.len()).take_while(settled).count();
        let most = (first..self.entries.len())
            .take_while(|nr| settled(nr) || self.may_be_failed(*nr))
            .count();
        (least, most)
    }
}
