//! How much room there is for further updates.

use std::{collections::VecDeque, num::NonZeroUsize};

use super::options::{Limits, MAX_BATCH, Mode};
use crate::Cause;

/// One arriving update, but for the update itself.
pub(super) struct Arrival<'a> {
    /// Its keys, hashed; or why it cannot be handled.
    pub(super) keys: Result<&'a [u64], Cause>,
    pub(super) bytes: u32,
}

/// What is held and not running, and its bounds.
#[derive(Debug)]
pub(super) struct Intake {
    mode: Mode,
    max_waiting: usize,
    prefetch: usize,
    max_bytes: Option<usize>,
    /// Updates that wait for a key or for a retry.
    waiting: usize,
    /// Of these, those that wait for a retry.
    retrying: usize,
    /// The size of everything that is held.
    bytes: usize,
    /// Whether `max_waiting` was reached, and there has not been room for a fetch since.
    choked: bool,
    /// Which of the next updates were handed to a handler by an earlier run.
    pub(super) replayed: VecDeque<bool>,
}

impl Intake {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            mode: limits.mode,
            max_waiting: limits.max_waiting.get(),
            prefetch: limits.prefetch,
            max_bytes: limits.max_bytes.map(NonZeroUsize::get),
            waiting: 0,
            retrying: 0,
            bytes: 0,
            choked: false,
            replayed: VecDeque::new(),
        }
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn hold(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    pub(super) fn let_go(&mut self, bytes: u32) {
        self.bytes -= bytes as usize;
    }

    /// An update begins to wait for a key or for a retry.
    pub(super) fn add_waiting(&mut self) {
        self.waiting += 1;
        self.choked |= self.waiting >= self.max_waiting;
    }

    /// It does not wait any longer.
    pub(super) fn remove_waiting(&mut self) {
        self.waiting -= 1;
        // Otherwise every update that leaves would cause a call for one.
        let enough = self.worthwhile().clamp(1, (self.max_waiting / 2).max(1));
        self.choked &= self.waiting + enough > self.max_waiting;
    }

    pub(super) fn retrying(&self) -> usize {
        self.retrying
    }

    /// An update begins to wait for a retry.
    pub(super) fn add_retrying(&mut self) {
        self.retrying += 1;
        self.add_waiting();
    }

    /// Its retry is due.
    pub(super) fn remove_retrying(&mut self) {
        self.retrying -= 1;
        self.remove_waiting();
    }

    /// Nothing waits any longer.
    pub(super) fn clear_waiting(&mut self) {
        (self.waiting, self.retrying) = (0, 0);
    }

    /// How many updates to fetch now. `None` if it is better to wait.
    ///
    /// `scarce`: the last answer had less than was asked for. Then the supplier has no more, and a call for a
    /// few updates wastes nothing.
    pub(super) fn room(
        &self,
        slots: usize,
        ready: usize,
        held: usize,
        scarce: bool,
    ) -> Option<NonZeroUsize> {
        if self.mode != Mode::Concurrent {
            // Asking for the next batch makes the supplier forget this one.
            return NonZeroUsize::new(if held == 0 { MAX_BATCH } else { 0 });
        }
        // Without a limit on what runs, there is one on what is ready to.
        let room = slots
            .min(self.max_waiting)
            .saturating_add(self.prefetch)
            .saturating_sub(ready)
            .min(self.max_waiting.saturating_sub(self.waiting));
        // Not one round trip for every slot that becomes free.
        let few = !scarce && room < self.worthwhile() && ready > 0;
        if few || self.is_choked() {
            return None;
        }
        NonZeroUsize::new(room.min(MAX_BATCH))
    }

    /// Whether no room is to be expected soon: too many updates wait, or they are too large.
    pub(super) fn is_choked(&self) -> bool {
        let full = self.max_bytes.is_some_and(|max| self.bytes >= max);
        self.mode == Mode::Concurrent && (self.choked || full)
    }

    /// Whether at most half of the bounds is used, so that the next standstill is worth another warning.
    pub(super) fn is_relaxed(&self) -> bool {
        let light = self.max_bytes.is_none_or(|max| self.bytes <= max / 2);
        light && self.waiting <= self.max_waiting / 2
    }

    /// How much room makes a fetch worth its while, if there is something to do meanwhile.
    fn worthwhile(&self) -> usize {
        self.prefetch.min(MAX_BATCH) / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::SinkOptions;

    fn n(number: usize) -> NonZeroUsize {
        NonZeroUsize::new(number).expect("not zero")
    }

    #[test]
    fn at_its_bound_in_bytes_intake_stands_and_below_it_goes_on() {
        let mut intake = Intake::new(&SinkOptions::concurrent().max_bytes(n(1_000)).limits);
        intake.hold(999);
        assert_eq!(intake.room(1, 0, 1, false), Some(n(100)));
        intake.hold(1);
        assert_eq!(intake.room(1, 0, 2, false), None);
        assert!(intake.is_choked() && !intake.is_relaxed());
        intake.let_go(1);
        assert_eq!(intake.room(1, 0, 1, false), Some(n(100)));
        intake.let_go(499);
        assert!(intake.is_relaxed());
    }

    #[test]
    fn what_is_ready_is_bounded_although_the_concurrency_is_not() {
        let unlimited = SinkOptions::concurrent().concurrency(NonZeroUsize::MAX);
        let intake = Intake::new(&unlimited.max_waiting(n(150)).prefetch(10).limits);
        assert_eq!(intake.room(usize::MAX, 90, 90, false), Some(n(70)));
        assert_eq!(intake.room(usize::MAX, 160, 160, false), None);
    }
}
