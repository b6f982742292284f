//! How often each kind of fault and each control action happened.

use std::fmt;

macro_rules! seen {
    ($($name:ident = $text:literal,)*) => {
        /// Something that must happen often enough for the test to mean anything.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(crate) enum Seen { $($name,)* }

        const NAMES: &[(Seen, &str)] = &[$((Seen::$name, $text),)*];
    };
}

seen! {
    HandlerOk = "handler: returns at once",
    HandlerSlow = "handler: returns late",
    HandlerFails = "handler: returns an error",
    HandlerUndecodable = "handler: cannot decode",
    HandlerPanicsInConsume = "handler: panics in consume",
    HandlerPanicsInPoll = "handler: panics in poll",
    HandlerHangs = "handler: never ends",
    HandlerMeetsTimeout = "handler: ends at its timeout",
    HandlerExtends = "handler: extends its deadline",
    HandlerExtendsTooLate = "handler: extends after its end",
    HandlerBlocks = "handler: blocks its thread",
    HandlerPanicsInDrop = "handler: panics in drop",
    HandlerYields = "handler: yields many times",
    HandlerErrorPanicsInDrop = "handler: its error panics in drop",
    HandlerStops = "handler: stops its runner",
    HandlerAwaitsEnd = "handler: awaits the end of its run",
    HandlerTimedOut = "handler: cancelled by its timeout",
    HandlerDetached = "handler: goes on late without its slot",
    HandlerContinues = "handler: goes on late with its slot",
    HandlerReadyAfterSuspend = "handler: ready after a suspension, past its timeout",
    HandlerAbandoned = "handler: cancelled by a stop",
    HandlerUnresponsive = "handler: does not end when it is told to",
    UpdatePanicsInDrop = "update: panics in drop",
    KeysPanic = "keys: panic",
    Overflow = "keys: overflow of one key",
    SizePanics = "size: panics",
    FullByBytes = "size: no room for more bytes",
    PolicySkips = "policy: skip",
    PolicyRetries = "policy: retry",
    PolicyRetriesNever = "policy: retry in a century",
    PolicyRetriesAfterStop = "policy: retry after the stop",
    PolicyStops = "policy: stop",
    PolicyPanics = "policy: panics",
    PolicyPanicsInPoll = "policy: panics in poll",
    PolicyHangs = "policy: never answers",
    PolicyWaits = "policy: answers late",
    SupplyDropped = "supplier: call dropped",
    SupplyEmpty = "supplier: empty batch",
    SupplyOversized = "supplier: oversized batch",
    SupplyDuplicate = "supplier: batch repeated",
    SupplyReordered = "supplier: batch out of order",
    IdsJumpDown = "server: update ids jump downwards",
    ServerForgets = "server: forgets an update",
    HandledAgain = "supplier: an update that was handled comes again",
    Redelivered = "server: an abandoned update comes again",
    ServerRepeats = "server: repeats an answer",
    ServerCuts = "server: a poll is cut while it waits",
    SupplyLate = "supplier: answers late",
    SupplyHangs = "supplier: never answers",
    SupplyTimesOut = "supplier: call times out",
    SupplyTransient = "supplier: transient error",
    SupplyRetryAfter = "supplier: asks to wait",
    SupplyConflict = "supplier: another poller",
    SupplyTooManyConflicts = "supplier: too many conflicts",
    SupplyGivenUp = "supplier: too many failures",
    SupplyWebhook = "supplier: a webhook",
    SupplyFatal = "supplier: fatal error",
    SupplyPanics = "supplier: panics",
    SupplyEnds = "supplier: has no more",
    CloseFails = "close: fails",
    CloseHangs = "close: never answers",
    ClosePanics = "close: panics",
    CloseSlow = "close: answers late",
    CloseRewinds = "close: goes back",
    CloseAfterCutShort = "close: of a run that was cut short",
    Stop = "control: stop",
    StopWithin = "control: stop within a limit",
    StopTwice = "control: stop again",
    StopBeforeBegin = "control: stop before the beginning",
    Restart = "control: start again",
    StartRefused = "control: start refused",
    Pause = "control: pause",
    Resume = "control: resume",
    StopPaused = "control: stop while paused",
    RaiseConcurrency = "control: raise the concurrency",
    LowerConcurrency = "control: lower the concurrency",
    DropHandles = "control: drop every handle",
    DropRun = "control: drop the run",
    DropWaiter = "control: drop a waiter",
    ShutDown = "control: runtime shut down",
    Suspend = "control: suspend the process",
    Look = "control: look inside",
    QueueRoom = "queue: an adder waits for room",
    QueueRefuses = "queue: refuses updates after its end",
    QueueTimesOut = "queue: a handler is cancelled by its timeout",
    QueueLate = "queue: a handler goes on late",
    QueueRetries = "queue: retry",
    QueueOwnClock = "queue: a clock in a task of the user's",
    QueueDrained = "queue: drain",
    QueueDrainedWithin = "queue: drain within a limit",
    QueueAbandoned = "queue: abandon",
    QueueHandlesDropped = "queue: drop of every handle",
}

/// A count for each kind.
#[derive(Clone)]
pub(crate) struct Coverage([u64; NAMES.len()]);

impl Default for Coverage {
    fn default() -> Self {
        Self([0; NAMES.len()])
    }
}

impl Coverage {
    pub(crate) fn add(&mut self, seen: Seen) {
        self.0[seen as usize] += 1;
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine += theirs;
        }
    }

    /// What happened less often than `least`.
    pub(crate) fn rare(&self, least: u64) -> Vec<&'static str> {
        NAMES
            .iter()
            .filter(|(seen, _)| self.0[*seen as usize] < least)
            .map(|(_, name)| *name)
            .collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        NAMES
            .iter()
            .try_for_each(|(seen, name)| writeln!(f, "{:>9}  {name}", self.0[*seen as usize]))
    }
}
