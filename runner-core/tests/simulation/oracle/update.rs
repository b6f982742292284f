//! The way of one update, from its arrival to its settlement.

use std::time::Duration;

use runner_core::Cause;

use super::{
    Clock, Ending, Entry, Event, Last, LastChance, Oracle, POLICY_TIMEOUT, Refusal, State, TOTAL,
    Verdict, bits,
};
use crate::{
    coverage::Seen,
    world::{Item, Mode},
};

impl Entry {
    /// Whether a handler may have seen it, if that is known.
    pub(crate) fn was_handled(&self) -> Option<bool> {
        match (self.attempts > 0, self.refused) {
            (false, _) => self.handled,
            (true, None) => Some(true),
            // The policy alone has seen it, and may have given it up.
            (true, Some(_)) => None,
        }
    }
}

impl Oracle {
    /// The key function is asked; `true`: it is to panic.
    pub(crate) fn arrive(&mut self, nr: usize) -> bool {
        if self.entries[nr].state != State::Supplied {
            return self.entries[nr].refused == Some(Refusal::Keys);
        }
        self.event(Event::Arrive(nr));
        let handled = match self.again.pop_front() {
            Some((expected, handled)) => handled.filter(|_| expected == self.entries[nr].id),
            None => Some(false),
        };
        if handled == Some(true) {
            self.coverage.add(Seen::HandledAgain);
        }
        self.entries[nr].handled = handled;
        let expected = self.run.first + self.run.arrived;
        self.require(nr == expected, || {
            format!("update {nr} arrived instead of {expected}")
        });
        self.run.arrived += 1;
        let id = self.entries[nr].id;
        let bad = Item::has_bad_keys(&self.config, id);
        let sequential = self.config.mode == Mode::Sequential;
        let keys = match self.config.mode {
            Mode::Sequential => 0,
            _ => Item::keys(&self.config, id),
        };
        let crowded = self.config.max_waiting_per_key.is_some_and(|limit| {
            bits(keys).any(|key| self.lines.get(&key).is_some_and(|line| line.len() > limit))
        });
        if sequential {
            self.lines.entry(TOTAL).or_default().push_back(nr);
        }
        let now = self.now();
        let entry = &mut self.entries[nr];
        entry.arrived_at = now;
        entry.state = State::Pending { due: None };
        if bad {
            entry.refused = Some(Refusal::Keys);
            self.coverage.add(Seen::KeysPanic);
        } else if crowded {
            entry.refused = Some(Refusal::Overflow);
            self.coverage.add(Seen::Overflow);
        } else {
            entry.keys = keys;
            for key in bits(keys) {
                self.lines.entry(key).or_default().push_back(nr);
            }
        }
        self.held.insert(nr);
        if self
            .config
            .max_bytes
            .is_some_and(|max| self.bytes(false) >= max)
        {
            self.coverage.add(Seen::FullByBytes);
        }
        bad
    }

    /// A handler begins.
    pub(crate) fn start(&mut self, nr: usize, attempt: u32, redelivered: bool, stopping: bool) {
        self.event(Event::Start(nr, attempt));
        self.check_start(nr);
        if self.entries[nr].run != self.run.number {
            return;
        }
        self.notice_stop(stopping);
        let entry = &mut self.entries[nr];
        let before = entry.state;
        let (refused, seen) = (entry.refused, entry.was_handled());
        entry.state = State::Active;
        entry.clock = Clock::default();
        (entry.late, entry.told_late, entry.ready_at) = (false, false, None);
        self.require(refused.is_none(), || {
            format!("update {nr} was refused, and started")
        });
        self.require(seen.is_none_or(|seen| redelivered == seen), || {
            format!("update {nr}: redelivered is {redelivered}, a handler has seen it: {seen:?}")
        });
        self.busy += 1;
        self.starting += 1;
        if let Some(workers) = self.config.workers {
            let starting = self.starting;
            self.require(starting <= workers, || {
                format!("{starting} handlers in their first poll with {workers} workers")
            });
        }
        self.begin_attempt(nr, attempt, before);
    }

    /// An update leaves the line, for its handler or, if it was refused, for the policy.
    pub(super) fn begin_attempt(&mut self, nr: usize, attempt: u32, before: State) {
        let (now, certain) = (self.now(), self.certain());
        let State::Pending { due } = before else {
            self.broken(|| format!("update {nr} started while {before:?}"));
            return;
        };
        let stopping = self.run.stopping;
        let entry = &mut self.entries[nr];
        if entry.last_chance == LastChance::Maybe && entry.after_stop > 0 {
            // So the attempt before was not its last one.
            entry.last_chance = LastChance::Yes;
        }
        entry.attempts += 1;
        entry.after_stop += u32::from(stopping);
        let (expected, after_stop) = (entry.attempts, entry.after_stop);
        self.require(attempt == expected, || {
            format!("update {nr} started as attempt {attempt}, not {expected}")
        });
        self.require(after_stop <= 2, || {
            format!("update {nr} started {after_stop} times after the stop")
        });
        self.require(stopping || due.is_none_or(|due| due <= now), || {
            format!("update {nr} was to be tried again at {due:?}")
        });
        if due.is_none() {
            // Who is tried again comes first.
            let hastened = self.run.stopped_at.is_some_and(|at| at < now);
            let passed = self.held.iter().copied().find(|nr| {
                let waits = match self.entries[*nr].state {
                    State::Pending { due: Some(due) } => due < certain || hastened,
                    _ => false,
                };
                waits && !self.may_be_failed(*nr)
            });
            self.require(passed.is_none(), || {
                format!("update {nr} started before {passed:?} was tried again")
            });
        }
        let (slots, limit) = (self.slots(), self.concurrency);
        self.require(slots <= limit, || {
            format!("{slots} in flight, the limit is {limit}")
        });
        for key in self.keys_of(nr) {
            while let Some(first) = self.lines[&key].front().copied()
                && first != nr
                && self.may_be_failed(first)
            {
                // So its attempt was its last one.
                let ending = self.ending(first);
                self.done(first, ending);
            }
            let first = self.lines[&key].front().copied();
            self.require(first == Some(nr), || {
                format!("update {nr} overtook {first:?} at key {key}")
            });
        }
    }

    /// Whether it failed at what may have been its last attempt: nobody outside can tell.
    pub(crate) fn may_be_failed(&self, nr: usize) -> bool {
        let entry = &self.entries[nr];
        entry.last_chance == LastChance::Maybe
            && entry.after_stop > 0
            && matches!(entry.state, State::Pending { .. })
    }

    pub(super) fn check_start(&mut self, nr: usize) {
        let certain = self.certain();
        let run = self.run.clone();
        self.require(self.entries[nr].run == run.number, || {
            format!("update {nr} of an earlier run started")
        });
        self.require(!run.over, || format!("update {nr} started after the end"));
        self.require(!run.halted, || {
            format!("update {nr} started after the policy's stop")
        });
        let early = run.deadline.is_none_or(|deadline| certain <= deadline);
        self.require(early, || {
            format!("update {nr} started after the deadline of the stop")
        });
    }

    /// A handler is about to be polled.
    pub(crate) fn poll(&mut self, nr: usize) {
        self.entries[nr].in_poll = true;
    }

    /// A handler waits.
    pub(crate) fn pend(&mut self, nr: usize) {
        let now = self.now();
        let timeout = self.config.timeout;
        let entry = &mut self.entries[nr];
        entry.in_poll = false;
        if !entry.clock.pended {
            entry.clock.pended = true;
            entry.clock.deadline = timeout.map(|timeout| now + timeout).max(entry.clock.kept);
            if entry.run == self.run.number {
                self.starting -= 1;
            }
            self.changed = now;
        }
    }

    /// A handler has ended or was dropped.
    pub(crate) fn end(&mut self, nr: usize, last: Last) {
        self.event(Event::End(nr, last));
        let (now, certain) = (self.now(), self.certain());
        let (cancelled, closed, gone) = (self.is_cancelled(), self.is_closed(), self.gone);
        let detach = self.config.detach.is_some();
        let entry = &mut self.entries[nr];
        if entry.state != State::Active {
            let state = entry.state;
            self.broken(|| format!("update {nr} ended while {state:?}"));
            return;
        }
        let expired = entry.clock.pended && entry.clock.deadline.is_some_and(|at| at <= now);
        let overdue = expired && entry.clock.deadline.is_some_and(|at| at < certain);
        let (told, ready_at) = (entry.told_late, entry.ready_at);
        entry.in_poll = false;
        entry.late = detach && expired;
        entry.last = Some(last);
        entry.state = State::Failed;
        let (pended, current) = (entry.clock.pended, entry.run == self.run.number);
        if current && !pended {
            self.starting -= 1;
        }
        self.require(!(detach && overdue && !closed && current) || told, || {
            format!("nobody was told that the handler of update {nr} is late")
        });
        let was_ready = ready_at.is_some_and(|at| at <= now);
        self.require(last != Last::Dropped || !was_ready || gone, || {
            format!("the handler of update {nr} was ready and was dropped")
        });
        if last == Last::Ok && expired && !detach && certain < now {
            self.coverage.add(Seen::HandlerReadyAfterSuspend);
        }
        match last {
            Last::Ok => self.done(nr, Ending::Finished),
            // Both at the same instant: the policy may be asked or not.
            Last::Dropped if cancelled && expired && !detach => {}
            Last::Dropped if cancelled => {
                self.coverage.add(Seen::HandlerAbandoned);
                self.unsettled(nr);
            }
            Last::Dropped => {
                self.require(expired && !detach, || {
                    format!("the handler of update {nr} was dropped for no reason")
                });
                self.coverage.add(Seen::HandlerTimedOut);
            }
            _ => {}
        }
    }

    /// A handler ends by itself after this span.
    pub(crate) fn ready_in(&mut self, nr: usize, span: Duration) {
        self.entries[nr].ready_at = Some(self.now() + span);
    }

    /// Somebody is told that a handler goes on after its timeout.
    pub(crate) fn late(&mut self, nr: usize, age: Duration, detached: bool) {
        self.event(Event::Late(nr, detached));
        self.coverage.add(match detached {
            true => Seen::HandlerDetached,
            false => Seen::HandlerContinues,
        });
        let now = self.now();
        let entry = self.entries[nr].clone();
        let current = entry.run == self.run.number && !self.run.over;
        self.require(current && entry.state == State::Active, || {
            format!("update {nr} is said to be late while {:?}", entry.state)
        });
        let expired = entry.clock.pended && entry.clock.deadline.is_some_and(|at| at <= now);
        self.require(expired && self.config.detach.is_some(), || {
            format!("update {nr} is said to be late and is not")
        });
        self.require(!entry.told_late, || {
            format!("update {nr} is said to be late twice")
        });
        let expected = now - entry.arrived_at;
        self.require(age == expected, || {
            format!("update {nr} is said to be held for {age:?}, not {expected:?}")
        });
        let held = self.held.iter();
        let others = held.filter(|nr| self.entries[**nr].detached).count();
        let may = self.max_detached().is_some_and(|max| others < max);
        self.require(detached == may, || {
            format!("update {nr}: detached is {detached} with {others} others")
        });
        let entry = &mut self.entries[nr];
        (entry.told_late, entry.detached) = (true, detached);
        self.run.detached += u64::from(detached);
    }

    /// A handler asked for more time and was answered.
    pub(crate) fn extend(&mut self, nr: usize, by: Duration, granted: bool) {
        self.event(Event::Extend(nr, granted));
        let (now, certain) = (self.now(), self.certain());
        let cancelled = self.is_cancelled();
        let entry = &mut self.entries[nr];
        if cancelled || self.config.timeout.is_none() {
            return;
        }
        let until = now + by;
        let clock = &mut entry.clock;
        let (expired, open) = match clock.deadline {
            Some(deadline) => (certain > deadline, now < deadline),
            None => (false, true),
        };
        if granted {
            if clock.pended {
                clock.deadline = clock.deadline.max(Some(until));
            } else {
                clock.kept = clock.kept.max(Some(until));
            }
        }
        // One that is to be cancelled may be saved until it is dropped.
        let detach = self.config.detach.is_some();
        self.require(!(expired && granted && detach), || {
            format!("update {nr} was given more time after its end")
        });
        self.require(granted || !open, || {
            format!("update {nr} was not given more time")
        });
        if expired {
            self.coverage.add(Seen::HandlerExtendsTooLate);
        }
    }

    /// The deadline of a handler, if it is known for certain.
    pub(crate) fn deadline(&self, nr: usize) -> Option<Option<Duration>> {
        let clock = &self.entries[nr].clock;
        let certain = clock.pended
            && !self.is_cancelled()
            && clock.deadline.is_none_or(|deadline| self.now() < deadline);
        certain.then_some(clock.deadline)
    }

    /// The policy is asked.
    pub(crate) fn ask(&mut self, nr: usize, attempt: u32, cause: &Cause, stopping: bool) {
        self.event(Event::Ask(nr));
        let now = self.now();
        let run = self.run.clone();
        let current = self.entries[nr].run == run.number;
        self.require(current && !run.over, || {
            format!("the policy was asked about update {nr} after the end of its run")
        });
        if !current {
            return;
        }
        self.notice_stop(stopping);
        let entry = &mut self.entries[nr];
        let (before, last, refused) = (entry.state, entry.last, entry.refused);
        let deadline = entry.clock.deadline;
        entry.state = State::Deciding { pended: None };
        match (before, refused) {
            (State::Failed, None) => {
                let attempts = entry.attempts;
                self.require(attempt == attempts, || {
                    format!("the policy was told of attempt {attempt}, not {attempts}")
                });
                let fits = matches!(
                    (last, cause),
                    (Some(Last::Error), Cause::Error(_))
                        | (Some(Last::Undecodable), Cause::Undecodable(_))
                        | (Some(Last::Panic), Cause::Panic(_))
                        | (Some(Last::Dropped), Cause::Timeout)
                );
                self.require(fits, || format!("update {nr}: {cause:?} after {last:?}"));
                if matches!(cause, Cause::Timeout) {
                    self.require(deadline.is_some_and(|at| at <= now), || {
                        format!("update {nr} timed out early")
                    });
                }
            }
            (State::Pending { .. }, Some(refusal)) => {
                let fits = match refusal {
                    Refusal::Overflow => matches!(cause, Cause::Overflow),
                    Refusal::Keys => matches!(cause, Cause::Panic(_)),
                };
                self.require(fits, || format!("update {nr}: {cause:?} for {refusal:?}"));
                self.check_start(nr);
                self.busy += 1;
                self.begin_attempt(nr, attempt, before);
            }
            _ => self.broken(|| format!("the policy was asked about update {nr} while {before:?}")),
        }
    }

    /// A policy waits.
    pub(crate) fn policy_pends(&mut self, nr: usize) {
        let now = self.now();
        if let State::Deciding { pended } = &mut self.entries[nr].state {
            pended.get_or_insert(now);
        }
    }

    /// The policy has answered, or was dropped.
    pub(crate) fn verdict(&mut self, nr: usize, verdict: Verdict) {
        self.event(Event::Verdict(nr, verdict));
        let now = self.now();
        let cancelled = self.is_cancelled();
        let entry = &mut self.entries[nr];
        let State::Deciding { pended } = entry.state else {
            let state = entry.state;
            self.broken(|| format!("a verdict on update {nr} while {state:?}"));
            return;
        };
        let ending = self.ending(nr);
        let entry = &mut self.entries[nr];
        match verdict {
            Verdict::Skip | Verdict::Panic => self.done(nr, ending),
            Verdict::Dropped if cancelled => self.unsettled(nr),
            Verdict::Dropped => {
                let overdue = pended.is_some_and(|pended| pended + POLICY_TIMEOUT <= now);
                self.require(overdue, || {
                    format!("the policy was dropped for no reason, update {nr}")
                });
                self.done(nr, ending);
            }
            Verdict::Stop => {
                self.run.halted |= entry.run == self.run.number;
                self.unsettled(nr);
            }
            Verdict::Retry(after) => self.retry(nr, after),
        }
    }

    /// What an update is counted as if it is given up.
    pub(crate) fn ending(&self, nr: usize) -> Ending {
        let entry = &self.entries[nr];
        match (entry.refused, entry.last) {
            (Some(Refusal::Overflow), _) => Ending::Overflowed,
            (Some(Refusal::Keys), _) | (_, Some(Last::Panic)) => Ending::Panicked,
            (_, Some(Last::Dropped)) => Ending::TimedOut,
            (_, Some(Last::Undecodable)) => Ending::Undecodable,
            (_, _) => Ending::Failed,
        }
    }

    /// An attempt is over, and its update is nobody's business any more but the report's.
    pub(super) fn unsettled(&mut self, nr: usize) {
        self.entries[nr].state = State::Pending { due: None };
        self.entries[nr].detached = false;
        self.busy -= usize::from(self.entries[nr].run == self.run.number);
    }

    pub(super) fn retry(&mut self, nr: usize, after: Duration) {
        let (now, certain) = (self.now(), self.certain());
        let (closed, stopping) = (self.is_closed(), self.run.stopping);
        let ending = self
            .run
            .deadline
            .is_some_and(|at| certain <= at && at <= now);
        let entry = &mut self.entries[nr];
        entry.detached = false;
        if ending && entry.last_chance == LastChance::Yes {
            // At this very instant it is failed or abandoned, whichever comes first.
            entry.last_chance = LastChance::Maybe;
        }
        if stopping && !closed && entry.last_chance == LastChance::Yes {
            self.done(nr, self.ending(nr));
            return;
        }
        entry.state = State::Pending {
            due: Some(now.saturating_add(after)),
        };
        if stopping {
            self.coverage.add(Seen::PolicyRetriesAfterStop);
            if entry.last_chance == LastChance::No {
                entry.last_chance = LastChance::Yes;
            }
        }
        self.run.retries += 1;
        self.busy -= usize::from(self.entries[nr].run == self.run.number);
    }

    pub(super) fn done(&mut self, nr: usize, ending: Ending) {
        let now = self.now();
        let keys = self.keys_of(nr);
        let entry = &mut self.entries[nr];
        let busy = !matches!(entry.state, State::Pending { .. });
        entry.state = State::Done(ending);
        entry.detached = false;
        entry.ended_at = now;
        if entry.run != self.run.number {
            return;
        }
        self.busy -= usize::from(busy);
        self.held.remove(&nr);
        for key in keys {
            if let Some(line) = self.lines.get_mut(&key)
                && let Some(place) = line.iter().position(|other| *other == nr)
            {
                line.remove(place);
            }
        }
    }
}
