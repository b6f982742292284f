//! Deadlines of all that share one timeout, by groups that begin one after the other.
//!
//! What starts a clock now has a later deadline than what started one before, give or take the moment
//! between reading the clock and getting the lock. So neighbours in time share an entry, and a handler
//! that ends in time costs a count, or nothing if its successor belongs to the same group. Who belongs
//! to a group is looked up only when its first deadline comes and somebody is left in it.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Groups of deadlines, oldest first.
#[derive(Debug)]
pub(super) struct Cohorts {
    /// The newest one is in nearly all that happens, so it is at hand.
    newest: Cohort,
    older: VecDeque<Cohort>,
    /// The deadlines of one group are less than this apart.
    width: Duration,
}

#[derive(Debug)]
struct Cohort {
    id: u32,
    members: u32,
    /// The deadline of the first one. No other one of the group is before it.
    from: Option<Instant>,
    /// No deadline of the group is at this point in time or later.
    until: Option<Instant>,
}

impl Cohort {
    /// One that takes no deadline.
    const fn nobody(id: u32) -> Self {
        Self {
            id,
            members: 0,
            from: None,
            until: None,
        }
    }

    #[inline]
    fn takes(&self, deadline: Instant) -> Option<Instant> {
        let from = self.from?;
        let takes = self.until.is_none_or(|until| deadline < until);
        takes.then(|| deadline.max(from))
    }
}

/// Where a deadline was put.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) cohort: u32,
    pub(super) deadline: Instant,
    /// Whether it is the first one of its group, so that a timer may have to be set for it.
    pub(super) first: bool,
}

impl Cohorts {
    /// In how many parts a timeout is divided. Who has so much of it left when its group is looked at
    /// is kept in exact order; the others have ended and cost nothing.
    const PARTS: u32 = 16;

    pub(super) fn new(timeout: Option<Duration>) -> Self {
        Self {
            newest: Cohort::nobody(0),
            older: VecDeque::new(),
            width: (timeout.unwrap_or_default() / Self::PARTS).max(Duration::from_nanos(1)),
        }
    }

    /// Adds a deadline, moved back to that of the group if it is a moment before.
    #[inline]
    pub(super) fn enter(&mut self, deadline: Instant) -> Entry {
        let Some(deadline) = self.newest.takes(deadline) else {
            return self.open(deadline);
        };
        let first = self.newest.members == 0;
        self.newest.members += 1;
        Entry {
            cohort: self.newest.id,
            deadline,
            first,
        }
    }

    fn open(&mut self, deadline: Instant) -> Entry {
        let cohort = self.newest.id.wrapping_add(1);
        let newest = Cohort {
            id: cohort,
            members: 1,
            from: Some(deadline),
            // Beyond what the clock can express, the last group takes all.
            until: deadline.checked_add(self.width),
        };
        let last = std::mem::replace(&mut self.newest, newest);
        if last.members > 0 {
            self.older.push_back(last);
        }
        Entry {
            cohort,
            deadline,
            first: true,
        }
    }

    /// Takes a deadline out and puts another one in.
    #[inline]
    pub(super) fn replace(&mut self, cohort: u32, deadline: Instant) -> Entry {
        if cohort == self.newest.id
            && let Some(deadline) = self.newest.takes(deadline)
        {
            return Entry {
                cohort,
                deadline,
                first: false,
            };
        }
        self.leave(cohort);
        self.enter(deadline)
    }

    /// Takes a deadline out.
    #[inline]
    pub(super) fn leave(&mut self, cohort: u32) {
        if cohort == self.newest.id {
            self.newest.members -= 1;
        } else {
            self.leave_older(cohort);
        }
    }

    fn leave_older(&mut self, cohort: u32) {
        // A handful: a group covers a sixteenth of what any of them has left.
        let index = self.older.iter().position(|older| older.id == cohort);
        let index = index.expect("a group is there for as long as its members");
        self.older[index].members -= 1;
        if self.older[index].members == 0 {
            self.older.remove(index);
        }
    }

    /// When the first group has to be looked at. No deadline is before that.
    pub(super) fn first(&self) -> Option<Instant> {
        match self.older.front() {
            Some(oldest) => oldest.from,
            None if self.newest.members > 0 => self.newest.from,
            None => None,
        }
    }

    /// Takes the first group out, if its time has come. Its members have to be looked for.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<u32> {
        if self.first()? > now {
            return None;
        }
        match self.older.pop_front() {
            Some(oldest) => Some(oldest.id),
            None => {
                let id = self.newest.id;
                self.newest = Cohort::nobody(id.wrapping_add(1));
                Some(id)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn enter(cohorts: &mut Cohorts, deadline: Instant) -> u32 {
        cohorts.enter(deadline).cohort
    }

    #[test]
    fn neighbours_in_time_share_a_group_and_each_group_is_due_with_its_first_one() {
        let began = Instant::now();
        let mut cohorts = Cohorts::new(Some(160 * MS));
        assert_eq!(cohorts.first(), None);
        let ids = [0, 9, 10, 19, 20].map(|at| enter(&mut cohorts, began + at * MS));
        assert_eq!(ids[0], ids[1]);
        assert_eq!(ids[2], ids[3]);
        assert!(ids[0] != ids[2] && ids[2] != ids[4] && ids[0] != ids[4]);
        for (id, at) in [(ids[0], 0), (ids[2], 10), (ids[4], 20)] {
            assert_eq!(cohorts.first(), Some(began + at * MS));
            let before = (began + at * MS).checked_sub(Duration::from_nanos(1));
            assert_eq!(
                cohorts.take_due(before.expect("not the first instant")),
                None
            );
            assert_eq!(cohorts.take_due(began + at * MS), Some(id));
        }
        assert_eq!(cohorts.first(), None);
        assert_eq!(cohorts.take_due(began + 1000 * MS), None);
    }

    #[test]
    fn a_deadline_that_comes_out_of_turn_is_moved_back_to_its_group() {
        let began = Instant::now();
        let mut cohorts = Cohorts::new(Some(160 * MS));
        let first = cohorts.enter(began + MS);
        let late = cohorts.enter(began);
        assert_eq!((late.cohort, late.deadline), (first.cohort, began + MS));
        assert!(first.first && !late.first);
        let replaced = cohorts.replace(late.cohort, began);
        assert_eq!(
            (replaced.cohort, replaced.deadline),
            (first.cohort, began + MS)
        );
    }

    #[test]
    fn a_group_that_everybody_has_left_is_never_due() {
        let began = Instant::now();
        let mut cohorts = Cohorts::new(Some(160 * MS));
        let ids = [0, 10, 20, 30].map(|at| enter(&mut cohorts, began + at * MS));
        cohorts.leave(ids[1]);
        assert_eq!(cohorts.first(), Some(began));
        // It goes to the newest one.
        let moved = cohorts.replace(ids[0], began + 31 * MS);
        assert_eq!((moved.cohort, moved.first), (ids[3], false));
        assert_eq!(cohorts.first(), Some(began + 20 * MS));
        cohorts.leave(ids[2]);
        cohorts.leave(ids[3]);
        assert_eq!(cohorts.first(), Some(began + 30 * MS));
        cohorts.leave(ids[3]);
        assert_eq!(cohorts.first(), None);
        let again = cohorts.enter(began + 32 * MS);
        assert!(again.first, "a timer may have to be set for it");
    }

    #[test]
    fn a_timeout_of_nothing_groups_what_is_due_together() {
        let now = Instant::now();
        let mut cohorts = Cohorts::new(Some(Duration::ZERO));
        let id = enter(&mut cohorts, now);
        assert_eq!(enter(&mut cohorts, now), id);
        assert_eq!(cohorts.take_due(now), Some(id));
        assert_eq!(cohorts.take_due(now), None);
    }
}
