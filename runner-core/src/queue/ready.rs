//! Who may start: first come, first served, but retries before all others.
//!
//! Updates without keys are stored as ranges of their batch and get an entry when they start. That saves a
//! fifth of the time of a handler that does nothing.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use super::key_order::SPARE;
use crate::consume::{BatchSlice, Item};

/// Updates that may start.
pub(super) struct Ready<U> {
    /// In the order in which they became ready.
    first_attempts: VecDeque<Place<U>>,
    /// In the order in which they became due, by their index among the entries.
    retries: VecDeque<u32>,
    len: usize,
    /// Of these, updates that have no entry.
    without_entry: usize,
}

enum Place<U> {
    /// The index of its entry.
    Entry(u32),
    Range(Range<U>),
}

/// The next updates of a slice.
struct Range<U> {
    slice: Arc<BatchSlice<U>>,
    /// The number of the first one, and its place in the slice.
    id: u64,
    next: u8,
    arrived: Instant,
    bytes: u32,
}

/// An update that gets its entry now.
pub(super) struct New<U> {
    pub(super) item: Item<U>,
    pub(super) id: u64,
    pub(super) arrived: Instant,
    pub(super) bytes: u32,
}

/// What is to start.
pub(super) enum Next<U> {
    Entry(u32),
    New(New<U>),
}

impl<U> Range<U> {
    fn first(&self) -> New<U> {
        New {
            item: Item::new(Arc::clone(&self.slice), self.next),
            id: self.id,
            arrived: self.arrived,
            bytes: self.bytes,
        }
    }
}

impl<U> Ready<U> {
    pub(super) fn new() -> Self {
        Self {
            first_attempts: VecDeque::new(),
            retries: VecDeque::new(),
            len: 0,
            without_entry: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn without_entry(&self) -> usize {
        self.without_entry
    }

    pub(super) fn push(&mut self, index: u32) {
        self.first_attempts.push_back(Place::Entry(index));
        self.len += 1;
    }

    /// Adds all updates of a slice, of which the first one is number `id` and each has so many bytes.
    pub(super) fn push_slice(
        &mut self,
        slice: Arc<BatchSlice<U>>,
        id: u64,
        arrived: Instant,
        bytes: u32,
    ) {
        self.len += usize::from(slice.len());
        self.without_entry += usize::from(slice.len());
        self.first_attempts.push_back(Place::Range(Range {
            slice,
            id,
            next: 0,
            arrived,
            bytes,
        }));
    }

    pub(super) fn push_retry(&mut self, index: u32) {
        self.retries.push_back(index);
        self.len += 1;
    }

    pub(super) fn pop(&mut self) -> Option<Next<U>> {
        if let Some(new) = self.pop_new() {
            return Some(Next::New(new));
        }
        let index = match self.retries.pop_front() {
            Some(index) => index,
            None => match self.first_attempts.pop_front()? {
                Place::Entry(index) => index,
                Place::Range(_) => unreachable!("`pop_new` takes it"),
            },
        };
        self.len -= 1;
        Some(Next::Entry(index))
    }

    /// The next update, if it has no entry yet.
    pub(super) fn pop_new(&mut self) -> Option<New<U>> {
        if !self.retries.is_empty() {
            return None;
        }
        let Some(Place::Range(range)) = self.first_attempts.front_mut() else {
            return None;
        };
        let new = range.first();
        range.next += 1;
        range.id += 1;
        if range.next == range.slice.len() {
            self.first_attempts.pop_front();
        }
        self.len -= 1;
        self.without_entry -= 1;
        Some(new)
    }

    /// Retries that are due, in order.
    pub(super) fn retries(&self) -> impl Iterator<Item = u32> {
        self.retries.iter().copied()
    }

    /// Updates that have no entry, in order.
    pub(super) fn each_new(&self) -> impl Iterator<Item = New<U>> {
        let ranges = self.first_attempts.iter().filter_map(|place| match place {
            Place::Entry(_) => None,
            Place::Range(range) => Some(range),
        });
        ranges.flat_map(|range| {
            (range.next..range.slice.len()).map(|place| New {
                item: Item::new(Arc::clone(&range.slice), place),
                id: range.id + u64::from(place - range.next),
                ..range.first()
            })
        })
    }

    /// Gives the memory of a burst back.
    pub(super) fn shrink(&mut self) {
        let capacity = self.first_attempts.capacity() + self.retries.capacity();
        if self.len == 0 && capacity > SPARE {
            *self = Self::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Weak;

    use super::*;
    use crate::queue::model::Nobody;

    /// Adds updates, each of which is its own number.
    fn push(ready: &mut Ready<u64>, updates: std::ops::Range<u64>) {
        let mut id = updates.start;
        let nobody: Weak<dyn crate::consume::DeliveryControl> = Weak::<Nobody>::new();
        for slice in BatchSlice::split(updates.collect(), |_| 0, &nobody) {
            let count = u64::from(slice.len());
            ready.push_slice(slice, id, Instant::now(), 7);
            id += count;
        }
    }

    #[test]
    fn retries_go_first_and_all_others_as_they_came() {
        let mut ready = Ready::new();
        push(&mut ready, 0..40);
        ready.push(7);
        push(&mut ready, 40..41);
        ready.push(8);
        for index in [3, 1] {
            ready.push_retry(index);
        }
        assert!(ready.retries().eq([3, 1]));
        assert!(ready.each_new().map(|new| new.id).eq(0..41));
        let updates = |range: std::ops::Range<u64>| range.map(Ok);
        let expected: Vec<Result<u64, u32>> = [Err(3), Err(1)]
            .into_iter()
            .chain(updates(0..40))
            .chain([Err(7)])
            .chain(updates(40..41))
            .chain([Err(8)])
            .collect();
        for (count, next) in expected.iter().enumerate() {
            let left = &expected[count..];
            let new = left.iter().filter(|next| next.is_ok()).count();
            assert_eq!((ready.len(), ready.without_entry()), (left.len(), new));
            let popped = ready.pop().map(|popped| match popped {
                Next::Entry(index) => Err(index),
                Next::New(New {
                    item, id, bytes, ..
                }) => {
                    assert_eq!((*item.get(), bytes), (id, 7));
                    Ok(id)
                }
            });
            assert_eq!(popped, Some(*next));
        }
        assert!(ready.pop().is_none());
        assert_eq!((ready.len(), ready.without_entry()), (0, 0));
    }

    #[test]
    fn the_memory_of_a_burst_is_given_back() {
        let mut ready = Ready::<u64>::new();
        for index in 0..100_000 {
            ready.push(index);
        }
        while ready.pop().is_some() {}
        ready.shrink();
        assert_eq!(ready.first_attempts.capacity(), 0);
    }
}
