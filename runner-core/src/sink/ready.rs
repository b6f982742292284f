//! What is free to start: first come, first served, but retries before all others.
//!
//! An update that waits for nothing needs no node before it starts. Neighbours of one batch share one
//! entry here, so that most of what arrives costs a count.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use super::order::SPARE;
use crate::delivery::{Chunk, Share};

/// Updates that may start.
#[repr(C)]
pub(super) struct Ready<U> {
    /// The first ones of all, if they have no node. Kept apart from the others because every update
    /// changes it: workers on other cores have to get its memory, and wait for it.
    front: Option<Run<U>>,
    /// Updates that have no node.
    fresh: usize,
    /// Updates in `entries` that have one.
    placed: usize,
    /// All others, in the order in which they became ready.
    entries: VecDeque<Entry<U>>,
    /// To be tried again, in the order in which they became due.
    again: VecDeque<u32>,
}

enum Entry<U> {
    /// It had to wait for a key, or has one.
    Node(u32),
    Run(Run<U>),
}

/// Neighbours of one batch that have no node yet, at least one.
struct Run<U> {
    chunk: Arc<Chunk<U>>,
    /// Of the first one.
    seq: u64,
    arrived: Instant,
    /// The places of the first one and of the one behind the last one in the chunk.
    next: u8,
    end: u8,
}

impl<U> Run<U> {
    /// Goes on to the second one.
    #[inline]
    fn pass(&mut self) {
        self.next += 1;
        self.seq += 1;
    }
}

/// An update that has no node.
pub(super) struct Fresh<U> {
    pub(super) share: Share<U>,
    pub(super) seq: u64,
    pub(super) arrived: Instant,
}

/// What is to start.
pub(super) enum Next<U> {
    Node(u32),
    Fresh(Fresh<U>),
}

impl<U> Ready<U> {
    pub(super) fn new() -> Self {
        Self {
            front: None,
            fresh: 0,
            placed: 0,
            entries: VecDeque::new(),
            again: VecDeque::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.fresh + self.placed + self.again.len()
    }

    /// How many have no node.
    pub(super) fn fresh(&self) -> usize {
        self.fresh
    }

    pub(super) fn push(&mut self, index: u32) {
        self.entries.push_back(Entry::Node(index));
        self.placed += 1;
    }

    /// Adds the first `count` updates of a chunk, of which the first one is number `seq`.
    pub(super) fn push_fresh(&mut self, chunk: Arc<Chunk<U>>, count: u8, seq: u64, now: Instant) {
        let run = Run {
            chunk,
            seq,
            arrived: now,
            next: 0,
            end: count,
        };
        if self.front.is_none() && self.entries.is_empty() {
            self.front = Some(run);
        } else {
            self.entries.push_back(Entry::Run(run));
        }
        self.fresh += usize::from(count);
    }

    pub(super) fn push_again(&mut self, index: u32) {
        self.again.push_back(index);
    }

    pub(super) fn again(&self) -> impl Iterator<Item = u32> {
        self.again.iter().copied()
    }

    pub(super) fn pop(&mut self) -> Option<Next<U>> {
        if let Some(index) = self.again.pop_front() {
            return Some(Next::Node(index));
        }
        if let Some(fresh) = self.pop_fresh() {
            return Some(Next::Fresh(fresh));
        }
        let index = self.first_placed()?;
        self.pass_placed();
        Some(Next::Node(index))
    }

    /// The next one, if it has a node and is not to be tried again.
    #[inline]
    pub(super) fn first_placed(&self) -> Option<u32> {
        if !self.again.is_empty() || self.front.is_some() {
            return None;
        }
        match self.entries.front()? {
            Entry::Node(index) => Some(*index),
            Entry::Run(_) => unreachable!("a run comes to the front as soon as it is first"),
        }
    }

    /// Takes that one.
    #[inline]
    pub(super) fn pass_placed(&mut self) {
        self.entries.pop_front();
        self.placed -= 1;
        self.advance();
    }

    /// Takes the next one, if it has no node, into the place of one that has ended.
    ///
    /// Returns its number, when it arrived, and what was in its place; nothing, if that was its
    /// neighbour, with which it shares everything.
    #[inline(always)]
    pub(super) fn replace(
        &mut self,
        share: &mut Share<U>,
    ) -> Option<(u64, Instant, Option<Share<U>>)> {
        if !self.again.is_empty() {
            return None;
        }
        let run = self.front.as_mut()?;
        let (seq, arrived) = (run.seq, run.arrived);
        if share.move_within(&run.chunk, run.next) {
            run.pass();
            self.fresh -= 1;
            if run.next == run.end {
                // Nothing of the user's is dropped: this last one is in use.
                self.last_of_front();
            }
            return Some((seq, arrived, None));
        }
        let next = self.pop_fresh()?.share;
        Some((seq, arrived, Some(std::mem::replace(share, next))))
    }

    #[inline]
    fn pop_fresh(&mut self) -> Option<Fresh<U>> {
        let run = self.front.as_mut()?;
        let (place, seq, arrived) = (run.next, run.seq, run.arrived);
        run.pass();
        self.fresh -= 1;
        let chunk = if run.next < run.end {
            Arc::clone(&run.chunk)
        } else {
            self.last_of_front()?
        };
        Some(Fresh {
            share: Share::new(chunk, place),
            seq,
            arrived,
        })
    }

    /// Ends the run in front, which has been given away but for its hold on the chunk.
    fn last_of_front(&mut self) -> Option<Arc<Chunk<U>>> {
        let run = self.front.take();
        self.advance();
        run.map(|run| run.chunk)
    }

    /// Brings a run to the front, if one is first by now.
    fn advance(&mut self) {
        if let Some(Entry::Run(_)) = self.entries.front()
            && let Some(Entry::Run(run)) = self.entries.pop_front()
        {
            self.front = Some(run);
        }
    }

    /// All that have no node, oldest first.
    pub(super) fn each_fresh(&self) -> impl Iterator<Item = Fresh<U>> {
        let others = self.entries.iter().filter_map(|entry| match entry {
            Entry::Node(_) => None,
            Entry::Run(run) => Some(run),
        });
        let runs = self.front.iter().chain(others);
        runs.flat_map(|run| {
            (run.next..run.end).map(|place| Fresh {
                share: Share::new(Arc::clone(&run.chunk), place),
                seq: run.seq + u64::from(place - run.next),
                arrived: run.arrived,
            })
        })
    }

    /// Forgets all of them.
    pub(super) fn clear(&mut self) {
        *self = Self::new();
    }

    /// Gives the memory of a burst back.
    pub(super) fn shrink(&mut self) {
        if self.len() == 0 && self.entries.capacity().max(self.again.capacity()) > SPARE {
            self.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{ops::Range, time::Duration};

    use super::*;
    use crate::sink::queue_model::nobody;

    /// Adds updates, each of which is its own number.
    fn push(ready: &mut Ready<u64>, batch: Range<u64>, now: Instant) {
        let mut seq = batch.start;
        for (chunk, count) in Chunk::split(batch.collect(), &nobody()) {
            ready.push_fresh(chunk, count, seq, now);
            seq += u64::from(count);
        }
    }

    /// The number of the next one that has no node, or the index of its node.
    fn pop(ready: &mut Ready<u64>) -> Option<Result<u64, u32>> {
        Some(match ready.pop()? {
            Next::Node(index) => Err(index),
            Next::Fresh(Fresh { share, seq, .. }) => {
                assert_eq!(*share.get(), seq);
                Ok(seq)
            }
        })
    }

    fn fresh(ready: &mut Ready<u64>) -> Fresh<u64> {
        match ready.pop() {
            Some(Next::Fresh(fresh)) => fresh,
            _ => panic!("the next one has a node, or there is none"),
        }
    }

    #[test]
    fn retries_go_first_and_all_others_as_they_came() {
        let mut ready = Ready::new();
        let now = Instant::now();
        // More than fit into one allocation.
        push(&mut ready, 0..40, now);
        ready.push(7);
        push(&mut ready, 40..41, now);
        ready.push(8);
        ready.push_again(3);
        ready.push_again(1);
        assert!(ready.again().eq([3, 1]));
        let updates = |range: Range<u64>| range.map(Ok);
        let expected: Vec<Result<u64, u32>> = [Err(3), Err(1)]
            .into_iter()
            .chain(updates(0..40))
            .chain([Err(7)])
            .chain(updates(40..41))
            .chain([Err(8)])
            .collect();
        for (count, next) in expected.iter().enumerate() {
            let left = &expected[count..];
            let fresh = left.iter().filter(|next| next.is_ok()).count();
            assert_eq!((ready.len(), ready.fresh()), (left.len(), fresh));
            assert_eq!(pop(&mut ready), Some(*next));
        }
        assert_eq!(pop(&mut ready), None);
        assert_eq!((ready.len(), ready.fresh()), (0, 0));
    }

    #[test]
    fn the_next_one_takes_a_place_and_gives_back_what_was_there() {
        let mut ready = Ready::new();
        let (first, second) = (Instant::now(), Instant::now() + Duration::from_secs(1));
        push(&mut ready, 0..18, first);
        push(&mut ready, 18..19, second);
        let mut share = fresh(&mut ready).share;
        for expected in 1..19 {
            let (seq, arrived, replaced) = ready.replace(&mut share).expect("one is ready");
            assert_eq!((seq, *share.get()), (expected, expected));
            assert_eq!(arrived, if seq < 18 { first } else { second });
            // Of a neighbour it keeps the allocation.
            let replaced = replaced.map(|replaced| *replaced.get());
            let other = matches!(seq, 16 | 18);
            assert_eq!(replaced, other.then_some(seq - 1));
            assert_eq!(
                (ready.len(), ready.fresh()),
                (18 - seq as usize, 18 - seq as usize)
            );
        }
        assert!(ready.replace(&mut share).is_none());
        assert_eq!(*share.get(), 18);
    }

    #[test]
    fn nobody_takes_a_place_before_a_retry_or_before_an_earlier_one() {
        let mut ready = Ready::new();
        let now = Instant::now();
        push(&mut ready, 0..2, now);
        let mut share = fresh(&mut ready).share;
        ready.push_again(5);
        assert!(ready.replace(&mut share).is_none());
        assert_eq!(pop(&mut ready), Some(Err(5)));
        assert!(ready.replace(&mut share).is_some());
        ready.push(6);
        push(&mut ready, 2..3, now);
        assert!(ready.replace(&mut share).is_none());
        assert_eq!((*share.get(), ready.len()), (1, 2));
        assert_eq!(pop(&mut ready), Some(Err(6)));
        assert!(ready.replace(&mut share).is_some());
    }

    #[test]
    fn what_has_not_started_is_listed_and_nothing_else_is_kept() {
        let token = Arc::new(());
        let mut ready = Ready::new();
        let mut seq = 0;
        let now = Instant::now();
        for (chunk, count) in Chunk::split(vec![Arc::clone(&token); 20], &nobody()) {
            ready.push_fresh(chunk, count, seq, now);
            seq += u64::from(count);
        }
        ready.push(9);
        for _ in 0..17 {
            assert!(ready.pop().is_some());
        }
        // The first chunk is used up; the second one is kept as a whole.
        assert_eq!(Arc::strong_count(&token), 1 + 4);
        let listed: Vec<u64> = ready.each_fresh().map(|fresh| fresh.seq).collect();
        assert_eq!(listed, [17, 18, 19]);
        ready.clear();
        assert_eq!((ready.len(), Arc::strong_count(&token)), (0, 1));
    }
}
