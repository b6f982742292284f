//! How updates in flight expire.
//!
//! All handlers have the same time, and it starts when they first wait. So the order in which they
//! enter the list is the order of their deadlines, give or take the moment between reading the clock
//! and getting the lock, by which a deadline is moved back; and one timer for the head is enough. A
//! deadline that was moved by hand leaves the list for a sorted set, so that the common path does not
//! pay for it.

use std::time::{Duration, Instant};

use super::{
    effects::Effects,
    node::{Cancel, Clock, NONE, State},
    queue::{Queue, Timeout},
};
use crate::{ticket::Ticket, trace::warn};

impl<U> Queue<U> {
    /// The earliest point in time at which [`expire`](Self::expire) has something to do.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let listed = match self.oldest {
            NONE => None,
            oldest => self.nodes[oldest as usize].deadline,
        };
        let moved = self.moved.first().map(|(deadline, _)| *deadline);
        let retry = self.retries.first().map(|(due, _)| *due);
        [listed, moved, retry].into_iter().flatten().min()
    }

    /// Ends every handler whose time is over, and readies every update whose retry is due.
    pub(crate) fn expire(&mut self, now: Instant) -> Effects<U> {
        let mut effects = Effects::default();
        while self.oldest != NONE
            && self.nodes[self.oldest as usize]
                .deadline
                .is_some_and(|deadline| deadline <= now)
        {
            self.expire_one(self.oldest, &mut effects);
        }
        while let Some(&(deadline, ticket)) = self.moved.first()
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
        effects.recruits = self.recruit(&mut effects.wakers);
        self.wake_satisfied(&mut effects.wakers);
        effects
    }

    /// The current deadline of an update.
    pub(crate) fn deadline(&mut self, ticket: Ticket) -> Option<Instant> {
        // While the policy decides, the deadline is that of the policy.
        self.node(ticket).filter(|node| !node.deciding)?.deadline
    }

    /// Moves the deadline of one update to `by` from now, if that is later.
    ///
    /// `false` if it is not being handled: not yet, or not any longer, or not in time.
    pub(crate) fn extend(
        &mut self,
        ticket: Ticket,
        by: Duration,
        now: impl FnOnce() -> Instant,
    ) -> bool {
        let timeout = self.limits.timeout;
        let Some(node) = self.node(ticket) else {
            return false;
        };
        if node.state != State::Running
            || node.deciding
            || node.cancel.is_some()
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
        if node.clock == Clock::Off {
            // Kept until the clock starts.
            node.deadline = node.deadline.max(Some(until));
        } else if node.deadline.is_some_and(|deadline| deadline < until) {
            self.stop_clock(ticket.index);
            self.set_clock(ticket, until);
        }
        true
    }

    /// Starts the clock of an update that has begun to wait.
    pub(super) fn start_clock(
        &mut self,
        ticket: Ticket,
        limit: Duration,
        timeout: Timeout,
        now: Instant,
    ) {
        let newest = self.newest;
        let latest = match newest {
            NONE => None,
            newest => self.nodes[newest as usize].deadline,
        };
        let node = &mut self.nodes[ticket.index as usize];
        let extended = node.deadline.take();
        let Some(deadline) = now.checked_add(limit) else {
            return;
        };
        let extended = extended.filter(|extended| *extended > deadline);
        match (timeout, extended) {
            (Timeout::Own, _) => self.set_clock(ticket, deadline),
            (Timeout::Shared, Some(extended)) => self.set_clock(ticket, extended),
            (Timeout::Shared, None) => {
                // Another task may have read the clock later, and have been here earlier.
                node.deadline = latest.max(Some(deadline));
                node.clock = Clock::Listed;
                node.previous = newest;
                match newest {
                    NONE => self.oldest = ticket.index,
                    newest => self.nodes[newest as usize].next = ticket.index,
                }
                self.newest = ticket.index;
            }
        }
    }

    /// Takes an update out of the list or the set that holds its deadline.
    #[inline]
    pub(super) fn stop_clock(&mut self, index: u32) {
        let node = &mut self.nodes[index as usize];
        if node.clock != Clock::Off || node.deadline.is_some() {
            self.stop_running_clock(index);
        }
    }

    fn stop_running_clock(&mut self, index: u32) {
        let node = &mut self.nodes[index as usize];
        let deadline = node.deadline.take();
        match std::mem::replace(&mut node.clock, Clock::Off) {
            Clock::Off | Clock::Expired => {}
            Clock::Listed => {
                let (previous, next) = (node.previous, node.next);
                node.previous = NONE;
                node.next = NONE;
                match previous {
                    NONE => self.oldest = next,
                    previous => self.nodes[previous as usize].next = next,
                }
                match next {
                    NONE => self.newest = previous,
                    next => self.nodes[next as usize].previous = previous,
                }
            }
            Clock::Moved => {
                let ticket = Ticket {
                    seq: node.seq,
                    index,
                };
                let deadline = deadline.expect("a moved clock has a deadline");
                self.moved.remove(&(deadline, ticket));
            }
        }
    }

    /// Takes every update out of the list and the set.
    pub(super) fn stop_all_clocks(&mut self) {
        while self.oldest != NONE {
            self.stop_clock(self.oldest);
        }
        while let Some((_, ticket)) = self.moved.first() {
            self.stop_clock(ticket.index);
        }
    }

    /// Gives an update a deadline of its own.
    fn set_clock(&mut self, ticket: Ticket, deadline: Instant) {
        let node = &mut self.nodes[ticket.index as usize];
        node.deadline = Some(deadline);
        node.clock = Clock::Moved;
        self.moved.insert((deadline, ticket));
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
        Chunk::split(vec![0, 1], &nobody(), |chunk, count| {
            queue.arrive_free(chunk, count, began);
        });
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
