//! How an attempt ends: finished, given up, abandoned, or followed by another one.
//!
//! What is inlined always is used by both short forms. Left to the compiler, it becomes calls: 90
//! instructions for every update, of 600.

use std::{
    num::NonZeroU32,
    time::{Duration, Instant},
};

use super::{
    decay::far_future,
    effects::{Effects, Wakers},
    node::{Clock, Node, State},
    order::Chain,
    outcome::{Ending, Fault, Outcome},
    queue::{Job, Phase, Queue},
};
use crate::ticket::Ticket;

impl<U> Queue<U> {
    /// Ends a handler without an error and starts the next update in its place, as most of the time
    /// under load: both have no keys, and nothing else has happened to either.
    ///
    /// `ended`: when, if the handler had waited. Then its successor is expected to wait as well.
    ///
    /// Nothing else changes by that, but that there is more room. `None` if there is more to do: that is
    /// for [`settle`](Self::settle), with the duty if it was taken on.
    #[inline]
    pub(crate) fn exchange(
        &mut self,
        ticket: Ticket,
        ended: Option<Instant>,
        now: impl FnOnce() -> Instant,
        hungry: &mut bool,
        effects: &mut Effects<U>,
    ) -> Option<Job<U>> {
        if !self.may_exchange(hungry) {
            return None;
        }
        let node = &mut self.nodes[ticket.index as usize];
        if node.chain != Chain::EMPTY || !node.is_plain() {
            return None;
        }
        let weight = match ended {
            Some(ended) => node.weigh(ended, self.limits.timeout),
            None => CROWD,
        };
        let arrived = node.arrived;
        (node.seq, node.arrived, effects.garbage) = self.ready.replace(&mut node.share)?;
        let delivery = node.deliver(ticket.index);
        let (known, has_clock) = (node.waker.is_some(), node.has_clock());
        let ahead = ended.filter(|_| known && self.may_look_ahead(*hungry));
        self.inherit(ticket.index, ahead, has_clock, &mut effects.wakers);
        self.record(ticket.seq, arrived, weight, now);
        self.exchanged(effects);
        Some(Job {
            delivery,
            preset: None,
            ahead,
        })
    }

    /// Ends one attempt and, if `claim`, takes the next update that may start.
    ///
    /// `ended`: when, if its handler or its policy had waited. Then the next one is expected to wait as
    /// well.
    ///
    /// The only place where an update that was started leaves the queue, but for
    /// [`exchange`](Self::exchange) and [`exchange_in_order`](Self::exchange_in_order).
    #[inline(never)]
    #[expect(clippy::too_many_arguments, reason = "those of `exchange`, and two")]
    pub(crate) fn settle(
        &mut self,
        ticket: Ticket,
        outcome: Outcome,
        claim: bool,
        ended: Option<Instant>,
        now: impl FnOnce() -> Instant + Copy,
        hungry: &mut bool,
        effects: &mut Effects<U>,
    ) -> Option<Job<U>> {
        if claim
            && matches!(outcome, Outcome::Done)
            && let Some(job) = self.exchange_in_order(ticket, ended, now, hungry, effects)
        {
            return Some(job);
        }
        let weight = match ended {
            Some(ended) if self.ready() > 0 => {
                self.nodes[ticket.index as usize].weigh(ended, self.limits.timeout)
            }
            Some(_) => 1,
            // Its first attempt may have waited.
            None if self.nodes[ticket.index as usize].attempt > NonZeroU32::MIN => 1,
            None => SAMPLE,
        };
        self.stop_clock(ticket.index);
        self.end_policy(ticket.index);
        match self.nodes[ticket.index as usize].state {
            State::Detached => self.detached -= 1,
            _ => self.running -= 1,
        }
        match outcome {
            Outcome::Retry { after } if self.may_retry(ticket.index) => {
                let due = self.retry(ticket, after, now(), effects);
                self.wake_before(due, &mut effects.wakers);
            }
            // It had its one attempt after the stop, and has failed.
            Outcome::Retry { .. } if self.phase == Phase::Stopping => {
                self.release(ticket, Ending::Failed, weight, now, effects);
            }
            // Nobody has given it up.
            Outcome::Retry { .. } => {
                self.release(ticket, Ending::Abandoned, weight, now, effects);
            }
            Outcome::Done => self.release(ticket, Ending::Finished, weight, now, effects),
            Outcome::GivenUp(ending) => self.release(ticket, ending, weight, now, effects),
            Outcome::Abandoned => {
                self.release(ticket, Ending::Abandoned, weight, now, effects);
            }
            Outcome::Stop { cause } => {
                // Its successors must not overtake it: it comes first when the run is repeated.
                self.halt(Fault::Policy { cause }, effects);
                self.release(ticket, Ending::Abandoned, weight, now, effects);
            }
        }
        let job = if claim {
            let follows = *hungry || self.startable() > 0 && self.may_follow(hungry);
            match follows {
                true => self.take(hungry),
                false => None,
            }
        } else {
            if !*hungry && self.startable() > 0 && self.hungry < self.limits.workers {
                self.hungry += 1;
                *hungry = true;
            }
            self.idle += usize::from(*hungry);
            None
        };
        let job = match (job, ended) {
            (Some(job), Some(ended)) if self.may_look_ahead(*hungry) => {
                Some(self.look_ahead(job, ended, effects))
            }
            (job, _) => job,
        };
        effects.recruits = self.recruit(&mut effects.wakers);
        self.wake_satisfied(&mut effects.wakers);
        job
    }

    /// Whether a task whose handler has ended may go on with its slot.
    #[inline(always)]
    fn may_exchange(&mut self, hungry: &mut bool) -> bool {
        // A slot may be one too many by now.
        self.running <= self.limits.concurrency && !self.is_over() && self.may_follow(hungry)
    }

    /// Starts the clock of an update again that has that of the one before it; or stops it, if nothing can be
    /// done ahead.
    #[inline(always)]
    fn inherit(
        &mut self,
        index: u32,
        ahead: Option<Instant>,
        has_clock: bool,
        wakers: &mut Wakers,
    ) {
        if let Some(now) = ahead {
            self.expect_wait(index, now, wakers);
        } else if has_clock {
            self.stop_clock(index);
        }
    }

    /// One update has taken the place of another one that was finished.
    #[inline(always)]
    fn exchanged(&mut self, effects: &mut Effects<U>) {
        self.finished += 1;
        self.claims += 1;
        if !self.waiters.is_empty() && self.room(false).is_some() {
            self.wake_satisfied(&mut effects.wakers);
        }
    }

    /// As [`exchange`](Self::exchange), of updates that have keys: the next one has a node of its own.
    ///
    /// If it returns `None`, the keys may have been freed all the same.
    fn exchange_in_order(
        &mut self,
        ticket: Ticket,
        ended: Option<Instant>,
        now: impl FnOnce() -> Instant,
        hungry: &mut bool,
        effects: &mut Effects<U>,
    ) -> Option<Job<U>> {
        if !self.may_exchange(hungry) {
            return None;
        }
        let node = &mut self.nodes[ticket.index as usize];
        if node.chain == Chain::EMPTY || !node.is_plain() {
            return None;
        }
        let chain = std::mem::replace(&mut node.chain, Chain::EMPTY);
        self.free_keys(chain);
        let next = self.ready.first_placed()?;
        if self.nodes[next as usize].preset.is_some() {
            return None;
        }
        self.ready.pass_placed();
        let old = self.nodes.remove(ticket.index as usize);
        let weight = match ended {
            Some(ended) => old.weigh(ended, self.limits.timeout),
            None => CROWD,
        };
        let node = &mut self.nodes[next as usize];
        node.state = State::Running;
        (node.waker, node.pended) = (old.waker, old.pended);
        (node.clock, node.cohort, node.deadline) = (old.clock, old.cohort, old.deadline);
        let delivery = node.deliver(next);
        let (known, has_clock) = (node.waker.is_some(), node.has_clock());
        let ahead = ended.filter(|_| known && self.may_look_ahead(*hungry));
        self.inherit(next, ahead, has_clock, &mut effects.wakers);
        self.record(old.seq, old.arrived, weight, now);
        effects.garbage = Some(old.share);
        effects.recruits = self.recruit(&mut effects.wakers);
        self.exchanged(effects);
        Some(Job {
            delivery,
            preset: None,
            ahead,
        })
    }

    /// Does for the next update of a task what has to be done if it waits, as the one before it did.
    fn look_ahead(&mut self, mut job: Job<U>, now: Instant, effects: &mut Effects<U>) -> Job<U> {
        if job.preset.is_none()
            && let Some(waker) = effects.stale.take()
        {
            let index = job.delivery.ticket().index;
            // Of the same task.
            effects.stale = self.nodes[index as usize].waker.replace(waker);
            self.expect_wait(index, now, &mut effects.wakers);
            job.ahead = Some(now);
        }
        job
    }

    /// Starts the clock of a handler that has a waker and is about to start.
    #[inline(always)]
    fn expect_wait(&mut self, index: u32, now: Instant, wakers: &mut Wakers) {
        if let Some(limit) = self.limits.timeout {
            self.restart_clock(index, limit, now, wakers);
        }
        self.nodes[index as usize].pended = true;
    }

    /// Whether a task that does not have the duty may do for its next update what has to be done if
    /// that waits.
    ///
    /// Not if late handlers go on without a slot: one that blocks its thread before it waits is not
    /// late, and may not lose its slot.
    #[inline]
    fn may_look_ahead(&self, hungry: bool) -> bool {
        !hungry && self.limits.max_detached.is_none()
    }

    /// Frees the keys of an update that ended, counts it, and forgets it.
    #[inline]
    pub(super) fn release(
        &mut self,
        ticket: Ticket,
        ending: Ending,
        weight: u64,
        now: impl FnOnce() -> Instant,
        effects: &mut Effects<U>,
    ) {
        let mut node = self.nodes.remove(ticket.index as usize);
        effects.stale = node.waker.take();
        if node.chain != Chain::EMPTY {
            self.free_keys(node.chain);
        }
        if self.nodes.is_empty() {
            // After a burst, give its memory back.
            self.ready.shrink();
        }
        if node.reported {
            // It is in a report already; it must not be settled twice.
            effects.garbage = Some(node.share);
            return;
        }
        self.record(node.seq, node.arrived, weight, now);
        let counters = &mut self.counters;
        *match ending {
            Ending::Finished => &mut self.finished,
            Ending::Failed => &mut counters.failed,
            Ending::Panicked => &mut counters.panicked,
            Ending::TimedOut => &mut counters.timed_out,
            Ending::Undecodable => &mut counters.undecodable,
            Ending::Overflowed => &mut counters.overflowed,
            Ending::Abandoned => &mut counters.abandoned,
        } += 1;
        if ending == Ending::Abandoned {
            self.abandoned.push(node.into_unsettled(true));
        } else {
            effects.garbage = Some(node.share);
        }
    }

    /// Lets the successors of an update go.
    #[inline]
    fn free_keys(&mut self, chain: Chain) {
        let Self {
            order,
            nodes,
            ready,
            waiting,
            ..
        } = self;
        order.leave(chain, |successor| {
            let node = &mut nodes[successor as usize];
            node.predecessors -= 1;
            if node.predecessors == 0 {
                node.state = State::Ready;
                *waiting -= 1;
                ready.push(successor);
            }
        });
        self.look_at_waiting();
    }

    /// Notes how long an update was held, for so many of its kind: a power of two.
    #[inline(always)]
    fn record(&mut self, seq: u64, arrived: Instant, weight: u64, now: impl FnOnce() -> Instant) {
        if seq & (weight - 1) == 0 {
            let age = now().saturating_duration_since(arrived);
            self.latencies.record(age, weight);
        }
    }

    fn may_retry(&self, index: u32) -> bool {
        match self.phase {
            Phase::Open => true,
            Phase::Stopping => !self.nodes[index as usize].last_chance,
            Phase::Halted | Phase::Closed => false,
        }
    }

    /// Keeps an update, its keys and its place, for another attempt.
    ///
    /// Returns when that is due.
    fn retry(
        &mut self,
        ticket: Ticket,
        after: Duration,
        now: Instant,
        effects: &mut Effects<U>,
    ) -> Instant {
        let stopping = self.phase == Phase::Stopping;
        self.counters.retried += 1;
        self.waiting += 1;
        let node = &mut self.nodes[ticket.index as usize];
        node.state = State::Retrying;
        node.attempt = node.attempt.saturating_add(1);
        effects.stale = node.waker.take();
        node.pended = false;
        node.cancel = None;
        node.told = false;
        node.last_chance = stopping;
        if stopping {
            self.retry_now(ticket);
            return now;
        }
        // Beyond what the clock can express, it waits until the runner stops.
        let due = now.checked_add(after).unwrap_or_else(|| far_future(now));
        self.retries.insert((due, ticket));
        self.look_at_waiting();
        due
    }

    /// Readies an update that waited for a retry.
    pub(super) fn retry_now(&mut self, ticket: Ticket) {
        self.waiting -= 1;
        self.nodes[ticket.index as usize].state = State::Ready;
        self.ready.push_again(ticket.index);
        self.look_at_waiting();
    }
}

impl<U> Node<U> {
    /// One in how many of its kind to measure, of a handler that has waited while others are ready.
    #[inline(always)]
    fn weigh(&self, ended: Instant, timeout: Option<Duration>) -> u64 {
        let brief = match (self.clock, self.deadline, timeout) {
            (Clock::Shared, Some(deadline), Some(limit)) if limit > BRIEF => {
                // What its deadline would be if it began now, against what it would have to be.
                let late = ended.checked_add(limit - BRIEF);
                late.is_some_and(|late| late < deadline)
            }
            _ => false,
        };
        if brief { SAMPLE } else { 1 }
    }
}

/// One in so many updates whose handler never waited is measured: reading the clock costs as much as
/// all else that is done for it. The same of those that waited for less than [`BRIEF`], under such a
/// load that others were ready when they ended.
const SAMPLE: u64 = 8;

/// The same of those whose handler never waited and that the next one was ready to follow.
const CROWD: u64 = 32;

const BRIEF: Duration = Duration::from_millis(1);
