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
    /// Updates in `entries`.
    first_time: usize,
    /// Those of them that have no node.
    fresh: usize,
    entries: VecDeque<Entry<U>>,
    /// To be tried again, in the order in which they became due.
    again: VecDeque<u32>,
}

enum Entry<U> {
    /// It had to wait for a key, or has one.
    Node(u32),
    Run(Run<U>),
}

/// Neighbours of one batch that have no node yet.
struct Run<U> {
    chunk: Arc<Chunk<U>>,
    /// The places of the first one and of the one behind the last one in the chunk.
    next: u8,
    end: u8,
    /// Of the first one.
    seq: u64,
    arrived: Instant,
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
            entries: VecDeque::new(),
            first_time: 0,
            fresh: 0,
            again: VecDeque::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.first_time + self.again.len()
    }

    /// How many have no node.
    pub(super) fn fresh(&self) -> usize {
        self.fresh
    }

    pub(super) fn push(&mut self, index: u32) {
        self.entries.push_back(Entry::Node(index));
        self.first_time += 1;
    }

    /// Adds the first `count` updates of a chunk, of which the first one is number `seq`.
    pub(super) fn push_fresh(&mut self, chunk: Arc<Chunk<U>>, count: u8, seq: u64, now: Instant) {
        self.entries.push_back(Entry::Run(Run {
            chunk,
            next: 0,
            end: count,
            seq,
            arrived: now,
        }));
        self.first_time += usize::from(count);
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
        match self.entries.front_mut()? {
            Entry::Node(index) => {
                let index = *index;
                self.entries.pop_front();
                self.first_time -= 1;
                Some(Next::Node(index))
            }
            Entry::Run(run) => {
                let fresh = Fresh {
                    share: Share::new(Arc::clone(&run.chunk), run.next),
                    seq: run.seq,
                    arrived: run.arrived,
                };
                self.pass();
                Some(Next::Fresh(fresh))
            }
        }
    }

    /// The same if the next one has no node, into the place of one that has ended.
    ///
    /// Returns its number, when it arrived, and what was in its place; nothing, if that was its
    /// neighbour, with which it shares everything.
    #[inline]
    pub(super) fn replace(
        &mut self,
        share: &mut Share<U>,
    ) -> Option<(u64, Instant, Option<Share<U>>)> {
        if !self.again.is_empty() {
            return None;
        }
        let Some(Entry::Run(run)) = self.entries.front() else {
            return None;
        };
        let (seq, arrived) = (run.seq, run.arrived);
        let replaced = share.replace(&run.chunk, run.next);
        self.pass();
        Some((seq, arrived, replaced))
    }

    /// Goes on to the second one of the run in front.
    #[inline]
    fn pass(&mut self) {
        if let Some(Entry::Run(run)) = self.entries.front_mut() {
            run.next += 1;
            run.seq += 1;
            self.first_time -= 1;
            self.fresh -= 1;
            if run.next == run.end {
                // Its updates are alive: the last one was taken just now.
                self.entries.pop_front();
            }
        }
    }

    /// All that have no node, oldest first.
    pub(super) fn each_fresh(&self) -> impl Iterator<Item = Fresh<U>> {
        let runs = self.entries.iter().filter_map(|entry| match entry {
            Entry::Node(_) => None,
            Entry::Run(run) => Some(run),
        });
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
