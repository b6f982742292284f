//! How attempts, updates and runs end.

use std::{num::NonZeroU32, time::Duration};

use crate::{Cause, delivery::Share};

/// How one attempt ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    Done,
    GivenUp(Ending),
    Retry { after: Duration },
    Stop { cause: Cause },
    Abandoned,
}

/// In which counter an update ends up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
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
pub(crate) struct Unsettled<U> {
    pub(crate) share: Share<U>,
    pub(crate) seq: u64,
    pub(crate) attempt: NonZeroU32,
    pub(crate) started: bool,
    pub(crate) unresponsive: bool,
}

/// Why the queue halted by itself.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    Policy { cause: Cause },
    RuntimeGone,
}
