//! One update while the queue holds it.

use std::{num::NonZeroU32, sync::Arc, time::Instant};

use super::{key_order::KeyLinks, mailbox::Mailbox, outcome::Unfinished, ready::New};
use crate::{Cause, Delivery, consume::Item, queue::Ticket};

/// One held update.
pub(super) struct Entry<U> {
    pub(super) item: Item<U>,
    /// Counts updates in the order in which they were added.
    pub(super) id: u64,
    pub(super) arrived: Instant,
    pub(super) state: State,
    pub(super) attempt: NonZeroU32,
    /// Whether a handler may have seen it: in this attempt, an earlier one, or an earlier run.
    pub(super) handled: bool,
    /// The same before this attempt.
    pub(super) redelivered: bool,
    /// Whether its handler goes on after its timeout without a slot.
    pub(super) detached: bool,
    /// It was abandoned by the report, although its handler goes on.
    pub(super) reported: bool,
    /// The queue is stopping and has granted it its last attempt.
    pub(super) last_attempt: bool,
    /// Its handler or policy has been pending, so its time counts.
    pub(super) suspended: bool,
    /// Whether `deadline` is among the timers.
    pub(super) timed: bool,
    /// When it times out, or when its retry is due. Before the timeout has begun: what was asked for by
    /// `extend`.
    pub(super) deadline: Option<Instant>,
    pub(super) keys: KeyLinks,
    /// How many updates it waits for.
    pub(super) blocked_by: u32,
    pub(super) bytes: u32,
    /// The task that runs it, once its handler has been pending.
    pub(super) worker: Option<Arc<Mailbox>>,
    /// Why it must not be handled but goes to the policy at once. It stays so for every attempt: without
    /// its keys the update would overtake others.
    pub(super) refused: Option<Box<Cause>>,
}

/// Where a held update is. `state.rs` has the transitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Waits for earlier updates with its keys.
    Waiting,
    /// May start. Waits for a slot and a worker.
    Ready,
    /// Its handler runs, and is not late.
    Running,
    /// Its handler has exceeded its timeout.
    Late(Late),
    /// Its handler has failed, and the error policy is asked.
    Deciding,
    /// Waits for its next attempt.
    Retrying,
}

/// What a handler does after its timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Late {
    /// It was told to end. It is dropped unless it is ready at its next poll.
    Cancelling,
    /// It goes on, with its slot or without.
    Continuing,
}

impl<U> Entry<U> {
    /// Of an update that may start.
    pub(super) fn new(new: New<U>, handled: bool) -> Self {
        Self {
            item: new.item,
            id: new.id,
            arrived: new.arrived,
            state: State::Ready,
            attempt: NonZeroU32::MIN,
            handled,
            redelivered: handled,
            detached: false,
            reported: false,
            last_attempt: false,
            suspended: false,
            timed: false,
            deadline: None,
            keys: KeyLinks::NONE,
            blocked_by: 0,
            bytes: new.bytes,
            worker: None,
            refused: None,
        }
    }

    /// Whether nothing has happened to it but that it was started, and it has neither keys nor a timeout.
    pub(super) fn is_plain(&self) -> bool {
        self.state == State::Running
            && self.keys == KeyLinks::NONE
            && self.attempt == NonZeroU32::MIN
            && self.deadline.is_none()
            && !self.reported
    }

    pub(super) fn ticket(&self, index: u32) -> Ticket {
        Ticket { id: self.id, index }
    }

    /// What its handler, its policy or a snapshot is given.
    pub(super) fn deliver(&self, index: u32) -> Delivery<U> {
        let ticket = self.ticket(index);
        let item = self.item.clone();
        item.deliver(self.attempt, self.redelivered, ticket)
    }

    /// What the report needs of an update that is abandoned.
    pub(super) fn to_unfinished(&self, unresponsive: bool) -> Unfinished<U> {
        Unfinished {
            item: self.item.clone(),
            id: self.id,
            attempt: self.attempt,
            started: self.handled,
            unresponsive,
        }
    }
}
