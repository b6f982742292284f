//! When something is due: timeouts of handlers and policies, and retries.
//!
//! One ordered set holds them all, so that the cost of an expiry follows what is due and not what is held.

use std::{
    collections::BTreeSet,
    task::Waker,
    time::{Duration, Instant},
};

use super::effects::Wakers;
use super::ticket::Ticket;

/// Points in time, each with the update that is due then.
#[derive(Debug, Default)]
pub(super) struct Timers {
    due: BTreeSet<(Instant, Ticket)>,
    /// The task that keeps the time, and the point for which it has set its timer.
    clock: Option<(Option<Instant>, Waker)>,
}

impl Timers {
    /// Adds a point in time, and wakes the clock if its timer is set for later.
    pub(super) fn set(&mut self, at: Instant, ticket: Ticket, wakers: &mut Wakers) {
        self.due.insert((at, ticket));
        if let Some((armed, _)) = &self.clock
            && armed.is_none_or(|armed| at < armed)
        {
            self.wake_clock(wakers);
        }
    }

    /// Takes a point in time out. The timer of the clock stays set: if it fires for nothing, that is
    /// cheaper than to set it again for every update.
    pub(super) fn cancel(&mut self, at: Instant, ticket: Ticket) {
        self.due.remove(&(at, ticket));
    }

    pub(super) fn first(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes out the first update that is due.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Ticket> {
        let (at, _) = self.due.first()?;
        if *at > now {
            return None;
        }
        self.due.pop_first().map(|(_, ticket)| ticket)
    }

    /// Notes for when the clock has set its timer. Returns a replaced waker, to be dropped outside the lock.
    pub(super) fn watch(&mut self, armed: Option<Instant>, waker: &Waker) -> Option<Waker> {
        match &mut self.clock {
            Some((known, same)) if same.will_wake(waker) => {
                *known = armed;
                None
            }
            clock => clock
                .replace((armed, waker.clone()))
                .map(|(_, replaced)| replaced),
        }
    }

    pub(super) fn wake_clock(&mut self, wakers: &mut Wakers) {
        if let Some((_, waker)) = self.clock.take() {
            wakers.push(waker);
        }
    }

    /// Forgets every point in time.
    pub(super) fn clear(&mut self) {
        self.due.clear();
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.due.len()
    }
}

/// A point in time that no program lives to see.
pub(super) fn far_future(now: Instant) -> Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    now.checked_add(CENTURY).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn ticket(id: u64) -> Ticket {
        Ticket { id, index: 0 }
    }

    #[test]
    fn what_is_due_comes_out_in_order_and_nothing_else() {
        let now = Instant::now();
        let mut timers = Timers::default();
        for (id, at) in [(1, 5), (2, 3), (3, 9), (4, 3)] {
            timers.set(now + at * MS, ticket(id), &mut Wakers::default());
        }
        timers.cancel(now + 5 * MS, ticket(1));
        assert_eq!(timers.first(), Some(now + 3 * MS));
        assert_eq!(timers.pop_due(now + 2 * MS), None);
        assert_eq!(timers.pop_due(now + 8 * MS), Some(ticket(2)));
        assert_eq!(timers.pop_due(now + 8 * MS), Some(ticket(4)));
        assert_eq!(timers.pop_due(now + 8 * MS), None);
        assert_eq!((timers.first(), timers.len()), (Some(now + 9 * MS), 1));
    }

    #[test]
    fn the_clock_is_woken_for_an_earlier_point_in_time_only() {
        let now = Instant::now();
        let mut timers = Timers::default();
        let mut wakers = Wakers::default();
        timers.watch(Some(now + 5 * MS), Waker::noop());
        timers.set(now + 5 * MS, ticket(1), &mut wakers);
        timers.set(now + 9 * MS, ticket(2), &mut wakers);
        assert_eq!(wakers.len(), 0);
        timers.set(now + 4 * MS, ticket(3), &mut wakers);
        assert_eq!(wakers.len(), 1);
        timers.watch(None, Waker::noop());
        timers.set(now + 99 * MS, ticket(4), &mut wakers);
        assert_eq!(wakers.len(), 2);
    }
}
