//! One update in the queue, and how far it has come.

use std::{num::NonZeroU32, task::Waker, time::Instant};

use super::{order::Chain, outcome::Unsettled};
use crate::{Cause, Delivery, delivery::Share, ticket::Ticket};

/// One held update.
///
/// In two lines of memory. Of an update that waits, only the first one is looked at: thousands may, and
/// no cache holds them all.
#[repr(C, align(64))]
pub(super) struct Node<U> {
    pub(super) share: Share<U>,
    pub(super) seq: u64,
    pub(super) arrived: Instant,
    pub(super) chain: Chain,
    pub(super) predecessors: u32,
    pub(super) attempt: NonZeroU32,
    pub(super) state: State,
    pub(super) cancel: Option<Cancel>,
    pub(super) clock: Clock,
    /// The policy is being asked.
    pub(super) deciding: bool,
    /// Its clock was started, in this attempt, if it has a timeout that ends.
    pub(super) pended: bool,
    /// Its task knows that it is cancelled.
    pub(super) told: bool,
    /// Its one attempt after `stop` has been granted.
    pub(super) last_chance: bool,
    /// Listed as abandoned although its handler has not ended.
    pub(super) reported: bool,
    /// Set if it must not be handled but goes to the policy at once. Stays set: without its keys it
    /// would overtake others at a later attempt as well.
    pub(super) preset: Option<Box<Cause>>,
    pub(super) deadline: Option<Instant>,
    /// Of the task that runs it, from when it first waits; of the task of the one before it until then.
    pub(super) waker: Option<Waker>,
    /// The group that its deadline belongs to.
    pub(super) cohort: u32,
}

/// Where a held update is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Waiting,
    Ready,
    Running,
    Retrying,
    Detached,
}

/// Which timer a running update is subject to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clock {
    /// Not started.
    Off,
    /// In a group of all that share the timeout.
    Shared,
    /// In the set of deadlines that are kept in exact order.
    Exact,
    /// It has run out, and the handler goes on.
    Expired,
}

/// Why a running handler must be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cancel {
    Timeout,
    Abandon,
}

impl<U> Node<U> {
    pub(super) fn new(share: Share<U>, seq: u64, arrived: Instant, state: State) -> Self {
        Self {
            share,
            seq,
            arrived,
            deadline: None,
            waker: None,
            preset: None,
            chain: Chain::EMPTY,
            predecessors: 0,
            cohort: 0,
            attempt: NonZeroU32::MIN,
            state,
            cancel: None,
            clock: Clock::Off,
            deciding: false,
            pended: false,
            told: false,
            last_chance: false,
            reported: false,
        }
    }

    /// What its handler is given.
    pub(super) fn deliver(&self, index: u32) -> Delivery<U> {
        self.share.clone().deliver(self.attempt, self.ticket(index))
    }

    pub(super) fn ticket(&self, index: u32) -> Ticket {
        Ticket {
            seq: self.seq,
            index,
        }
    }

    /// What the report needs of an update that is abandoned. `begun`: in this attempt.
    pub(super) fn into_unsettled(self, begun: bool) -> Unsettled<U> {
        let started = self.was_handled(begun);
        Unsettled {
            share: self.share,
            seq: self.seq,
            attempt: self.attempt,
            started,
            unresponsive: false,
        }
    }

    /// Notes whom to wake. A replaced waker is returned to be dropped outside of the lock.
    pub(super) fn keep_waker(&mut self, waker: &Waker) -> Option<Waker> {
        match &self.waker {
            Some(known) if known.will_wake(waker) => None,
            _ => self.waker.replace(waker.clone()),
        }
    }

    /// Whether nothing has happened to it but that it was started and may have waited.
    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        self.state == State::Running
            && self.cancel.is_none()
            && !self.reported
            && matches!(self.clock, Clock::Off | Clock::Shared)
            && (self.deadline.is_none() || self.clock == Clock::Shared)
            && self.attempt == NonZeroU32::MIN
    }

    /// Whether its clock has been started.
    #[inline]
    pub(super) fn has_clock(&self) -> bool {
        self.pended || self.clock != Clock::Off
    }

    /// Whether a handler has seen it: in an earlier attempt, or in this one if that has begun.
    pub(super) fn was_handled(&self, begun: bool) -> bool {
        self.preset.is_none() && (begun || self.attempt > NonZeroU32::MIN)
    }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    #[test]
    fn what_is_looked_at_of_an_update_that_waits_is_in_one_line() {
        assert_eq!(size_of::<Option<Node<()>>>(), 128);
        assert!(offset_of!(Node<()>, reported) < 64);
        assert!(offset_of!(Node<()>, preset) <= 64);
    }
}
