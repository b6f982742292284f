//! How attempts, updates and queues end.

use std::{collections::BTreeSet, fmt, num::NonZeroU32, time::Duration};

use crate::{Cause, Closing, Delivery, consume::Item};

/// How one attempt ended.
#[derive(Debug)]
pub(super) enum Outcome {
    Done,
    GivenUp(Ending),
    /// To be tried again; given up as this if it may not.
    Retry {
        after: Duration,
        else_as: Ending,
    },
    Stop {
        cause: Cause,
    },
    Abandoned,
}

/// By which counter an update is counted when it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Finished,
    Failed,
    Panicked,
    TimedOut,
    Undecodable,
    Overflowed,
    Abandoned,
}

impl From<&Cause> for Ending {
    fn from(cause: &Cause) -> Self {
        match cause {
            Cause::Error(_) => Self::Failed,
            Cause::Panic(_) => Self::Panicked,
            Cause::Timeout => Self::TimedOut,
            Cause::Undecodable(_) => Self::Undecodable,
            Cause::Overflow => Self::Overflowed,
        }
    }
}

/// How the updates of a run ended, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Updates that the supplier returned.
    pub supplied: u64,
    /// Updates whose handler returned without an error, in time or not.
    pub finished: u64,
    /// Updates given up after an error.
    pub failed: u64,
    /// Updates given up after a panic.
    pub panicked: u64,
    /// Updates given up after a timeout.
    pub timed_out: u64,
    /// Updates given up because they could not be decoded.
    pub undecodable: u64,
    /// Updates given up because too many waited for the same key.
    pub overflowed: u64,
    /// Updates that were neither finished nor given up before the run ended.
    pub abandoned: u64,
    /// Attempts that were followed by another one. Not a kind of ending.
    pub retried: u64,
    /// Handlers that went on after their timeout without a slot. Not a kind of ending.
    pub detached: u64,
}

impl Counters {
    pub(super) fn of(&mut self, ending: Ending) -> &mut u64 {
        match ending {
            Ending::Finished => &mut self.finished,
            Ending::Failed => &mut self.failed,
            Ending::Panicked => &mut self.panicked,
            Ending::TimedOut => &mut self.timed_out,
            Ending::Undecodable => &mut self.undecodable,
            Ending::Overflowed => &mut self.overflowed,
            Ending::Abandoned => &mut self.abandoned,
        }
    }

    /// Updates that ended in one way or another.
    #[must_use]
    pub fn settled(&self) -> u64 {
        self.finished
            + self.failed
            + self.panicked
            + self.timed_out
            + self.undecodable
            + self.overflowed
            + self.abandoned
    }
}

/// An update that was neither finished nor given up, as the queue hands it out.
pub(crate) struct Unfinished<U> {
    pub(crate) item: Item<U>,
    pub(crate) id: u64,
    pub(crate) attempt: NonZeroU32,
    /// Whether a handler may have seen it.
    pub(crate) started: bool,
    pub(crate) unresponsive: bool,
}

/// A handler that goes on after its timeout.
pub struct LateHandler<U> {
    /// The update that it handles.
    pub update: Delivery<U>,
    /// How long ago the update was added.
    pub age: Duration,
    /// Whether it goes on without counting against the concurrency.
    pub detached: bool,
}

impl<U> fmt::Debug for LateHandler<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LateHandler")
            .field("attempt", &self.update.attempt())
            .field("age", &self.age)
            .field("detached", &self.detached)
            .finish_non_exhaustive()
    }
}

/// Which updates of a run were handed to a handler: for a supplier that goes back and supplies some of them
/// again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attempted {
    pub(super) supplied: u64,
    /// Updates that no handler has seen, by their number.
    pub(super) unseen: BTreeSet<u64>,
    /// The same of updates that an earlier run has announced and this one did not get to.
    pub(super) announced: Vec<bool>,
}

impl Attempted {
    /// Whether a handler has seen them, of the updates that the next run is given first.
    pub(crate) fn again(&self, closing: Option<Closing>) -> Vec<bool> {
        let first = closing.and_then(|closing| closing.redelivers_from);
        let first = first.map_or(self.supplied, |first| first as u64);
        (first..self.supplied)
            .map(|id| !self.unseen.contains(&id))
            .chain(self.announced.iter().copied())
            .collect()
    }
}

/// Why the queue halted by itself.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    Policy { cause: Cause },
    RuntimeGone,
}
