//! How updates in flight expire.
//!
//! All handlers have the same time, so their deadlines come in the order in which their clocks start,
//! and are counted by groups (`cohorts.rs`); one timer for the first group is enough. When that is due,
//! whoever is left in it goes to a sorted set, where each deadline is exact. So does a deadline that
//! was moved by hand. The common path pays for neither.
//!
//! The clock starts when the handler first waits. Of one that takes the place of a handler that has
//! waited, it is started with the handler itself, because that saves its task the way to the lock; a
//! task whose handler did not wait at once (see `worker.rs`) comes and has it started again.

use std::time::{Duration, Instant};

use super::{
    cohorts::Entry,
    effects::{Effects, Wakers},
    node::{Cancel, Clock, State},
    queue::{Queue, Timeout},
};
use crate::{ticket::Ticket, trace::warn};

impl<U> Queue<U> {
    /// The earliest point in time at which [`expire`](Self::expire) has something to do.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let shared = self.cohorts.first();
        let exact = self.exact.first().map(|(deadline, _)| *deadline);
        let retry = self.retries.first().map(|(due, _)| *due);
        let step = self.step.deadline();
        [shared, exact, retry, step].into_iter().flatten().min()
    }

    /// Ends every handler whose time is over, and readies every update whose retry is due.
    pub(crate) fn expire(&mut self, now: Instant) -> Effects<U> {
        let mut effects = Effects::default();
        self.look_at_cohorts(now);
        while let Some(&(deadline, ticket)) = self.exact.first()
            && deadline <= now
        {
            self.expire_one(ticket.index, &mut effects);
        }
        if self.retries.first().is_some_and(|(due, _)| *due <= now) {
            if self.running == 0 {
                self.revived = Some(now);
            }
            let later = self.retries.split_off(&(now, Ticket::NONE));
            for (_, ticket) in std::mem::replace(&mut self.retries, later) {
                self.retry_now(ticket);
            }
        }
        self.step.expire(now);
        effects.recruits = self.recruit(&mut effects.wakers);
        self.wake_satisfied(&mut effects.wakers);
        effects
    }

    /// Puts whoever is left in the groups that are due into exact order.
    fn look_at_cohorts(&mut self, now: Instant) {
        while let Some(cohort) = self.cohorts.take_due(now) {
            for (index, node) in self.nodes.iter_mut() {
                if node.clock == Clock::Shared && node.cohort == cohort {
                    node.clock = Clock::Exact;
                    let deadline = node.deadline.expect("a clock that runs has a deadline");
                    // Fewer than 2^32 updates are held.
                    self.exact.insert((deadline, node.ticket(index as u32)));
                }
            }
        }
    }

    /// The current deadline of an update.
    pub(crate) fn deadline(&mut self, ticket: Ticket) -> Option<Instant> {
        // While the policy decides, the deadline is that of the policy.
        self.node(ticket).filter(|node| !node.deciding)?.deadline
    }

    /// Moves the deadline of one update to `by` from now, if that is later.
    ///
    /// `false` if it is not being handled: not yet, or not any longer, or not in time. One that is to be
    /// cancelled is in time until its task has been told.
    pub(crate) fn extend(
        &mut self,
        ticket: Ticket,
        by: Duration,
        now: impl FnOnce() -> Instant,
        wakers: &mut Wakers,
    ) -> bool {
        let timeout = self.limits.timeout;
        let Some(node) = self.node(ticket) else {
            return false;
        };
        // Until its task has been told, nothing has come of it.
        let late = node.cancel == Some(Cancel::Timeout) && !node.told;
        if node.state != State::Running
            || node.deciding
            || node.cancel.is_some() && !late
            || node.clock == Clock::Expired
        {
            return false;
        }
        if timeout.is_none() {
            return true;
        }
        if node.clock == Clock::Off && node.pended {
            // It waits already and has no clock: its timeout is beyond what can be expressed.
            return true;
        }
        let now = now();
        let until = now.checked_add(by).unwrap_or_else(|| far_future(now));
        let node = self.node(ticket).expect("looked up above");
        node.cancel = None;
        if late {
            self.set_clock(ticket.index, until, wakers);
        } else if node.clock == Clock::Off {
            // Kept until the clock starts.
            node.deadline = node.deadline.max(Some(until));
        } else if node.deadline.is_some_and(|deadline| deadline < until) {
            self.stop_clock(ticket.index);
            self.set_clock(ticket.index, until, wakers);
        }
        true
    }

    /// Starts the clock of a handler, and wakes the timer if it is set for later.
    ///
    /// A clock that was started with the handler and still runs is started again.
    pub(super) fn start_clock(
        &mut self,
        index: u32,
        limit: Duration,
        timeout: Timeout,
        now: Instant,
        wakers: &mut Wakers,
    ) {
        let node = &mut self.nodes[index as usize];
        let asked = match node.clock {
            Clock::Expired => return,
            // Asked for before the clock was started, or since.
            Clock::Off | Clock::Exact => node.deadline,
            Clock::Shared => None,
        };
        self.stop_clock(index);
        let Some(deadline) = now.checked_add(limit) else {
            return;
        };
        let asked = asked.filter(|asked| *asked > deadline);
        match (timeout, asked) {
            (Timeout::Own, _) => self.set_clock(index, deadline, wakers),
            (Timeout::Shared, Some(asked)) => self.set_clock(index, asked, wakers),
            (Timeout::Shared, None) => {
                let entry = self.cohorts.enter(deadline);
                self.share_clock(index, &entry, wakers);
            }
        }
    }

    /// Starts the clock of a handler that takes the place of another one. Nothing but time has passed
    /// for that.
    #[inline(always)]
    pub(super) fn restart_clock(
        &mut self,
        index: u32,
        limit: Duration,
        now: Instant,
        wakers: &mut Wakers,
    ) {
        let node = &mut self.nodes[index as usize];
        if node.clock == Clock::Shared
            && let Some(deadline) = now.checked_add(limit)
        {
            let entry = self.cohorts.replace(node.cohort, deadline);
            self.share_clock(index, &entry, wakers);
        } else {
            self.start_clock(index, limit, Timeout::Shared, now, wakers);
        }
    }

    /// Takes the deadline of an update out of its group or the set.
    #[inline]
    pub(super) fn stop_clock(&mut self, index: u32) {
        let node = &mut self.nodes[index as usize];
        let deadline = node.deadline.take();
        node.pended = false;
        match node.clock {
            Clock::Off => return,
            Clock::Expired => {}
            Clock::Shared => self.cohorts.leave(node.cohort),
            Clock::Exact => {
                let deadline = deadline.expect("a clock that runs has a deadline");
                self.exact.remove(&(deadline, node.ticket(index)));
            }
        }
        node.clock = Clock::Off;
    }

    /// Gives an update the deadline that it has got in a group.
    #[inline(always)]
    fn share_clock(&mut self, index: u32, entry: &Entry, wakers: &mut Wakers) {
        let node = &mut self.nodes[index as usize];
        node.clock = Clock::Shared;
        (node.cohort, node.deadline) = (entry.cohort, Some(entry.deadline));
        if entry.first {
            self.wake_before(entry.deadline, wakers);
        }
    }

    /// Gives an update a deadline of its own.
    fn set_clock(&mut self, index: u32, deadline: Instant, wakers: &mut Wakers) {
        let node = &mut self.nodes[index as usize];
        node.deadline = Some(deadline);
        node.clock = Clock::Exact;
        self.exact.insert((deadline, node.ticket(index)));
        self.wake_before(deadline, wakers);
    }

    fn expire_one(&mut self, index: u32, effects: &mut Effects<U>) {
        self.stop_clock(index);
        let node = &mut self.nodes[index as usize];
        match self.limits.max_detached {
            Some(max) if !node.deciding => {
                node.clock = Clock::Expired;
                if self.detached < max {
                    node.state = State::Detached;
                    self.running -= 1;
                    self.detached += 1;
                    self.counters.detached += 1;
                    warn!(
                        update = node.seq,
                        "handler timed out and goes on without a slot"
                    );
                } else {
                    warn!(
                        update = node.seq,
                        "handler timed out and keeps its slot: too many go on already"
                    );
                }
            }
            _ => {
                node.cancel = Some(Cancel::Timeout);
                effects.cancels = true;
                if let Some(waker) = node.waker.take() {
                    effects.wakers.push(waker);
                }
            }
        }
    }
}

/// A point in time that no run lives to see.
pub(super) fn far_future(now: Instant) -> Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    now.checked_add(CENTURY).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroUsize, task::Waker};

    use super::*;
    use crate::{
        delivery::Chunk,
        sink::{SinkOptions, queue_model::nobody},
    };

    const MS: Duration = Duration::from_millis(1);

    /// Two tasks read the clock, and the later reading gets to the lock first.
    #[test]
    fn a_deadline_is_never_before_the_one_that_entered_the_list_before_it() {
        let two = NonZeroUsize::new(2).expect("not zero");
        let options = SinkOptions::concurrent().concurrency(two).workers(two);
        let mut queue = Queue::new(&options.timeout(MS * 10));
        let began = Instant::now();
        for (chunk, count) in Chunk::split(vec![0, 1], &nobody()) {
            queue.arrive_free(chunk, count, began);
        }
        let mut effects = Effects::default();
        assert_eq!(queue.recruit(&mut effects.wakers), 2);
        let tickets = [5, 3].map(|read| {
            let ticket = queue.claim().expect("one is ready").delivery.ticket();
            let now = Some(began + MS * read);
            let (shared, waker) = (Timeout::Shared, Waker::noop());
            let cancel = queue.pend(ticket, waker, shared, now, &mut true, &mut effects);
            assert_eq!(cancel, None);
            ticket
        });
        for ticket in tickets {
            assert_eq!(queue.deadline(ticket), Some(began + MS * 15));
        }
        assert!(!queue.expire(began + MS * 14).cancels);
        assert!(queue.expire(began + MS * 15).cancels);
        for ticket in tickets {
            let (cancel, _) = queue.check(ticket, Waker::noop());
            assert_eq!(cancel, Some(Cancel::Timeout));
        }
        assert_eq!(queue.next_deadline(), None);
    }
}
