//! The ids of the last updates: [`RecentIds`].
//!
//! A server, or a cache in front of it, that ignores the offset answers every poll with updates that
//! were supplied before. Comparing ids with the offset cannot tell: after a week without updates the
//! server may draw ids anew, below the offset.

use std::collections::VecDeque;

/// The ids of the updates that were supplied last, in that order.
#[derive(Debug)]
pub(super) struct RecentIds {
    ids: VecDeque<i64>,
    /// No id is higher.
    highest: i64,
}

impl RecentIds {
    /// Three full answers of the Bot API.
    const MOST: usize = 300;

    pub(super) fn new() -> Self {
        Self {
            ids: VecDeque::new(),
            highest: i64::MIN,
        }
    }

    /// Adds an id; `false` if it is there already.
    pub(super) fn add(&mut self, id: i64) -> bool {
        if self.contains(id) {
            return false;
        }
        self.highest = id.max(self.highest);
        self.ids.push_back(id);
        true
    }

    pub(super) fn contains(&self, id: i64) -> bool {
        // Ids nearly always ascend.
        id <= self.highest && self.ids.contains(&id)
    }

    /// The id that was added as the `count`th from the end.
    pub(super) fn nth_last(&self, count: usize) -> Option<i64> {
        let index = self.ids.len().checked_sub(count)?;
        self.ids.get(index).copied()
    }

    /// Forgets old ids, but none of the last `keep`.
    pub(super) fn trim(&mut self, keep: usize) {
        let excess = self.ids.len().saturating_sub(keep.max(Self::MOST));
        self.ids.drain(..excess);
        self.highest = self.ids.iter().copied().max().unwrap_or(i64::MIN);
    }

    /// Forgets the last `count` ids, because these updates are wanted again.
    pub(super) fn forget(&mut self, count: usize) {
        self.ids.truncate(self.ids.len().saturating_sub(count));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_added_once_and_forgotten_after_three_hundred_others() {
        let mut recent = RecentIds::new();
        assert!(recent.add(1_000));
        assert!(!recent.add(1_000));
        for id in 0..299 {
            assert!(recent.add(id));
            recent.trim(1);
        }
        assert!(!recent.add(1_000));
        assert!(recent.add(299));
        recent.trim(1);
        assert!(recent.add(1_000));
        assert!(!recent.add(299));
    }

    #[test]
    fn a_large_batch_is_kept_whole() {
        let mut recent = RecentIds::new();
        recent.add(-1);
        for id in 0..1_000 {
            recent.add(id);
        }
        recent.trim(1_000);
        assert_eq!(recent.nth_last(1_000), Some(0));
        assert_eq!(recent.nth_last(1), Some(999));
        assert_eq!(recent.nth_last(0), None);
        assert!(!recent.contains(-1));
    }

    #[test]
    fn what_is_wanted_again_is_new_again() {
        let mut recent = RecentIds::new();
        for id in [7, 8, 9] {
            recent.add(id);
        }
        recent.forget(2);
        assert!(!recent.add(7));
        assert!(recent.add(8));
        recent.forget(5);
        assert!(recent.add(7));
    }
}
