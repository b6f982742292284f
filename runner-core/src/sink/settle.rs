//! How an attempt ends: finished, given up, abandoned, or followed by another one.

use std::{
    num::NonZeroU32,
    time::{Duration, Instant},
};

use super::{
    decay::far_future,
    effects::Effects,
    node::{NONE, State},
    order::Chain,
    outcome::{Ending, Fault, Outcome},
    queue::{Job, Phase, Queue},
};
use crate::ticket::Ticket;

impl<U> Queue<U> {
    /// Ends a handler without an error and starts the next update in its place, as most of the time
    /// under load: both have no keys, and nothing else has happened to either.
    ///
    /// Nothing else changes by that, but that there is more room. `None`, and no change, if there is
    /// more to do: that is for [`settle`](Self::settle).
    #[inline]
    pub(crate) fn exchange(
        &mut self,
        ticket: Ticket,
        now: impl FnOnce() -> Instant,
        hungry: &mut bool,
        effects: &mut Effects<U>,
    ) -> Option<Job<U>> {
        // A slot may be one too many by now.
        if self.running > self.limits.concurrency || self.is_over() {
            return None;
        }
        let takes_on = !*hungry && self.hungry < self.limits.workers;
        let relieves = !*hungry && !takes_on;
        if relieves && self.idle == 0 {
            return None;
        }
        let index = ticket.index as usize;
        let node = &mut self.nodes[index];
        if !node.is_plain() {
            return None;
        }
        let arrived = node.arrived;
        (node.seq, node.arrived, effects.garbage) = self.ready.replace(&mut node.share)?;
        if takes_on {
            self.hungry += 1;
            *hungry = true;
        } else if relieves {
            self.relieve();
            *hungry = true;
        }
        let weight = match self.nodes[index].pended {
            true => self.wait_ended(ticket.index),
            false => CROWD,
        };
        self.record(ticket.seq, arrived, weight, now);
        self.counters.finished += 1;
        self.claims += 1;
        if !self.waiters.is_empty() && self.room(false).is_some() {
            self.wake_satisfied(&mut effects.wakers);
        }
        Some(Job {
            delivery: self.nodes[index].deliver(ticket.index),
            preset: None,
        })
    }

    /// Ends one attempt and, if `claim`, takes the next update if the task has the duty or may take
    /// it on.
    ///
    /// The only place where an update that was started leaves the queue, but for
    /// [`exchange`](Self::exchange).
    #[inline(never)]
    pub(crate) fn settle(
        &mut self,
        ticket: Ticket,
        outcome: Outcome,
        claim: bool,
        now: impl FnOnce() -> Instant,
        hungry: &mut bool,
        effects: &mut Effects<U>,
    ) -> Option<Job<U>> {
        let weight = self.wait_ended(ticket.index);
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
            let job = if *hungry || self.take_duty() {
                self.take()
            } else {
                None
            };
            *hungry = job.is_some();
            job
        } else {
            self.idle += usize::from(*hungry);
            None
        };
        effects.recruits = self.recruit(&mut effects.wakers);
        self.wake_satisfied(&mut effects.wakers);
        job
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
        let Self {
            order,
            nodes,
            ready,
            waiting,
            ..
        } = self;
        if node.chain != Chain::EMPTY {
            order.leave(node.chain, |successor| {
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
            Ending::Finished => &mut counters.finished,
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

    /// Stops the clock of a handler. Returns one in how many of its kind to measure.
    fn wait_ended(&mut self, index: u32) -> u64 {
        let node = &mut self.nodes[index as usize];
        if !std::mem::take(&mut node.pended) {
            // Its first attempt may have waited, and its clock may have been set by hand.
            let weight = if node.attempt > NonZeroU32::MIN {
                1
            } else {
                SAMPLE
            };
            self.stop_clock(index);
            return weight;
        }
        let (own, newest) = (node.deadline, self.newest);
        let follower = match newest {
            NONE => None,
            newest if newest == index => None,
            newest => self.nodes[newest as usize].deadline,
        };
        self.stop_clock(index);
        match (own, follower) {
            (Some(own), Some(follower)) if follower.saturating_duration_since(own) < BRIEF => {
                SAMPLE
            }
            _ => 1,
        }
    }

    /// Notes how long an update was held, for so many of its kind.
    #[inline]
    fn record(&mut self, seq: u64, arrived: Instant, weight: u64, now: impl FnOnce() -> Instant) {
        if seq.is_multiple_of(weight) {
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
        node.deciding = false;
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

/// One in so many updates whose handler never waited is measured: reading the clock costs as much as
/// all else that is done for it. The same of those that waited, under such a load that others had
/// begun to wait when they ended, and all of these within [`BRIEF`] after them.
const SAMPLE: u64 = 8;

/// The same of those whose handler never waited and that the next one was ready to follow.
const CROWD: u64 = 32;

const BRIEF: Duration = Duration::from_millis(1);
