//! How updates come in, and how many more there is room for.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    sync::Arc,
    time::Instant,
};

use super::{
    effects::Wakers,
    node::{Node, State},
    options::{MAX_BATCH, Mode},
    order::Chain,
    outcome::Unsettled,
    queue::{Limits, Phase, Queue},
};
use crate::{
    Cause,
    delivery::{Chunk, Share},
};

/// The keys of one arriving update, hashed, or why it cannot be handled.
pub(crate) enum Arrival<'a> {
    Keys(&'a [u64]),
    Refused(Cause),
}

/// In a sequential sink every update has this key and no other.
const TOTAL_ORDER: [u64; 1] = [0];

impl<U> Queue<U> {
    /// Takes in updates that wait for nothing: the first `count` of a chunk. Call
    /// [`recruit`](Self::recruit) after the last one of a batch.
    ///
    /// As [`arrive`](Self::arrive) with no key for each of them.
    pub(crate) fn arrive_free(&mut self, chunk: Arc<Chunk<U>>, count: u8, now: Instant) {
        if self.is_over() || self.limits.mode == Mode::Sequential {
            for place in 0..count {
                let share = Share::new(Arc::clone(&chunk), place);
                self.arrive(share, Arrival::Keys(&[]), now);
            }
            return;
        }
        let seq = self.counters.supplied;
        self.counters.supplied += u64::from(count);
        self.ready.push_fresh(chunk, count, seq, now);
    }

    /// Takes in one update. Call [`recruit`](Self::recruit) after the last one of a batch.
    ///
    /// Never refuses: room is the business of whoever fetches. After the end it is abandoned.
    #[inline]
    pub(crate) fn arrive(&mut self, share: Share<U>, arrival: Arrival<'_>, now: Instant) {
        let seq = self.counters.supplied;
        self.counters.supplied += 1;
        if self.is_over() {
            self.abandon_fresh(share, seq);
            return;
        }
        let index = u32::try_from(self.nodes.vacant_key()).expect("fewer than 2^32 are held");
        let (keys, preset) = match arrival {
            Arrival::Refused(cause) => (&[][..], Some(Box::new(cause))),
            Arrival::Keys(keys) => match self.limits.max_waiting_per_key {
                Some(limit) if self.order.is_crowded(keys, limit) => {
                    (&[][..], Some(Box::new(Cause::Overflow)))
                }
                _ => (keys, None),
            },
        };
        // Refused ones too: what the policy does about them must not overtake anything either.
        let keys = match self.limits.mode {
            Mode::Sequential => &TOTAL_ORDER,
            Mode::Batch | Mode::Concurrent => keys,
        };
        let (chain, predecessors) = match keys {
            [] => (Chain::EMPTY, 0),
            keys => self.order.arrive(index, keys),
        };
        let state = if predecessors == 0 {
            self.ready.push(index);
            State::Ready
        } else {
            self.waiting += 1;
            self.look_at_waiting();
            State::Waiting
        };
        self.nodes.insert(Node {
            preset,
            chain,
            predecessors,
            ..Node::new(share, seq, now, state)
        });
    }

    /// Lists an update that has not been started as abandoned.
    pub(super) fn abandon_fresh(&mut self, share: Share<U>, seq: u64) {
        self.counters.abandoned += 1;
        self.abandoned.push(Unsettled {
            share,
            seq,
            attempt: NonZeroU32::MIN,
            started: false,
            unresponsive: false,
        });
    }

    /// How many updates to fetch now; `None` if it is better to wait.
    ///
    /// `scarce`: the last answer had less than it was asked for. Then the supplier has no more, and
    /// a call for few costs no round trip that a call for many would have saved.
    #[inline(always)]
    pub(crate) fn room(&self, scarce: bool) -> Option<NonZeroUsize> {
        if self.phase != Phase::Open {
            return None;
        }
        if self.limits.mode != Mode::Concurrent {
            // Asking for the next batch makes the supplier forget this one.
            return if self.is_empty() {
                NonZeroUsize::new(MAX_BATCH)
            } else {
                None
            };
        }
        let room = self
            .capacity()
            .saturating_add(self.limits.prefetch)
            .saturating_sub(self.ready())
            .min(self.limits.max_waiting.saturating_sub(self.waiting));
        // Not one round trip for every slot that becomes free.
        let few = !scarce && room < self.limits.worthwhile && self.ready() > 0;
        if few || self.choked || !self.step.is_over(self.claims) {
            return None;
        }
        NonZeroUsize::new(room.min(MAX_BATCH))
    }

    /// Ends a batch of updates that have keys: if plenty wait by now, the next one has to.
    pub(crate) fn keep_step(&mut self, count: usize, now: Instant, wakers: &mut Wakers) {
        let plenty = self.limits.concurrency.max(MAX_BATCH);
        if self.limits.mode == Mode::Concurrent
            && self.waiting >= plenty
            && let Some(deadline) = self.step.keep(self.claims, count, now)
        {
            self.wake_before(deadline, wakers);
        }
    }

    /// Whether intake stands still because too many updates wait.
    pub(crate) fn is_choked(&self) -> bool {
        self.limits.mode == Mode::Concurrent && self.choked
    }

    /// Whether so few wait that the next standstill is not the same one.
    pub(crate) fn is_relaxed(&self) -> bool {
        self.waiting <= self.limits.max_waiting / 2
    }

    /// Notes whether intake stands still, after every change of `waiting`.
    pub(super) fn look_at_waiting(&mut self) {
        let Limits { max_waiting, .. } = self.limits;
        // At the bound, each update that goes would else be replaced by a round trip for one.
        let enough = self.limits.worthwhile.clamp(1, (max_waiting / 2).max(1));
        if self.waiting >= max_waiting {
            self.choked = true;
        } else if self.waiting + enough <= max_waiting {
            self.choked = false;
        }
    }
}
