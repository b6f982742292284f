//! Who may start: first come, first served, but retries before all others.

use std::collections::VecDeque;

use super::key_order::SPARE;

/// Updates that may start, by their index among the entries.
#[derive(Debug, Default)]
pub(super) struct Ready {
    /// In the order in which they became ready.
    first_attempts: VecDeque<u32>,
    /// In the order in which they became due.
    retries: VecDeque<u32>,
}

impl Ready {
    pub(super) fn len(&self) -> usize {
        self.first_attempts.len() + self.retries.len()
    }

    pub(super) fn push(&mut self, index: u32) {
        self.first_attempts.push_back(index);
    }

    pub(super) fn push_retry(&mut self, index: u32) {
        self.retries.push_back(index);
    }

    pub(super) fn pop(&mut self) -> Option<u32> {
        let retry = self.retries.pop_front();
        retry.or_else(|| self.first_attempts.pop_front())
    }

    /// Retries that are due, in order.
    pub(super) fn retries(&self) -> impl Iterator<Item = u32> {
        self.retries.iter().copied()
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Gives the memory of a burst back.
    pub(super) fn shrink(&mut self) {
        if self.len() == 0 && self.first_attempts.capacity() > SPARE {
            self.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_go_first_and_all_others_as_they_came() {
        let mut ready = Ready::default();
        for index in [7, 8] {
            ready.push(index);
        }
        for index in [3, 1] {
            ready.push_retry(index);
        }
        assert!(ready.retries().eq([3, 1]));
        assert_eq!(ready.len(), 4);
        let order: Vec<u32> = std::iter::from_fn(|| ready.pop()).collect();
        assert_eq!(order, [3, 1, 7, 8]);
    }

    #[test]
    fn the_memory_of_a_burst_is_given_back() {
        let mut ready = Ready::default();
        for index in 0..100_000 {
            ready.push(index);
        }
        while ready.pop().is_some() {}
        ready.shrink();
        assert_eq!(ready.first_attempts.capacity(), 0);
    }
}
