//! How many updates are handled at once, in what order, for how long.

use std::{num::NonZeroUsize, time::Duration};

/// How updates are handed to the consumer.
///
/// ```
/// use std::{num::NonZeroUsize, time::Duration};
/// use runner_core::SinkOptions;
///
/// let options = SinkOptions::concurrent()
///     .concurrency(NonZeroUsize::new(64).unwrap())
///     .timeout(Duration::from_secs(30)); // unset: updates never expire
/// ```
///
/// | sink | order | delivered if the process is killed |
/// |---|---|---|
/// | [`sequential`](Self::sequential) | total | at least once |
/// | [`batch`](Self::batch) | per batch, and per key within it | at least once |
/// | [`concurrent`](Self::concurrent) | per key | at most once for everything held |
///
/// "At least once" holds for suppliers that, like the Bot API, forget a batch only when the next
/// one is asked for: these two sinks fetch only when everything is settled.
#[derive(Clone, Debug)]
#[must_use]
pub struct SinkOptions {
    pub(crate) mode: Mode,
    pub(crate) concurrency: NonZeroUsize,
    pub(crate) timeout: Option<Duration>,
    pub(crate) on_timeout: OnTimeout,
    pub(crate) max_waiting: NonZeroUsize,
    pub(crate) max_waiting_per_key: Option<NonZeroUsize>,
    pub(crate) prefetch: usize,
    /// As many as the machine can run at once, if unset.
    pub(crate) workers: Option<NonZeroUsize>,
}

/// Which of the three sinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Sequential,
    Batch,
    Concurrent,
}

/// What happens to a handler whose time is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnTimeout {
    /// Its future is dropped at the next point where it waits, then its slot and keys are released.
    ///
    /// The default: nothing of a lost update goes on behind the back of its successors.
    #[default]
    Cancel,
    /// It goes on without a slot and keeps its keys until it ends.
    ///
    /// Only the concurrent sink offers this; the others cancel.
    Detach {
        /// How many may go on like this at a time; beyond that a late handler keeps its slot.
        /// `None`: as many as may run at once.
        max: Option<NonZeroUsize>,
    },
}

/// The largest batch that is ever asked for.
///
/// Source: <https://core.telegram.org/bots/api#getupdates>, parameter `limit`. Other suppliers lose
/// nothing by it: a round trip for a hundred updates costs little per update.
pub(crate) const MAX_BATCH: usize = 100;

impl SinkOptions {
    /// Updates that share no key run at the same time, up to [`concurrency`](Self::concurrency).
    pub fn concurrent() -> Self {
        Self {
            mode: Mode::Concurrent,
            // What grammY runner allows by default; a bot that waits for the network most of the
            // time handles thousands of updates per second with it.
            concurrency: const { NonZeroUsize::new(500).unwrap() },
            timeout: None,
            on_timeout: OnTimeout::Cancel,
            max_waiting: const { NonZeroUsize::new(16_384).unwrap() },
            max_waiting_per_key: None,
            prefetch: 2 * MAX_BATCH,
            workers: None,
        }
    }

    /// One update after the other. The next batch is fetched when all of it is settled.
    pub fn sequential() -> Self {
        Self {
            mode: Mode::Sequential,
            concurrency: NonZeroUsize::MIN,
            prefetch: 0,
            ..Self::concurrent()
        }
    }

    /// The updates of one batch together. The next batch is fetched when all of it is settled.
    pub fn batch() -> Self {
        Self {
            mode: Mode::Batch,
            prefetch: 0,
            ..Self::concurrent()
        }
    }

    /// How many updates may be in flight at once. Default: 500. `NonZeroUsize::MAX`: no limit.
    ///
    /// This does not bound what a stop has to finish: updates that are held and have not started, see
    /// [`max_waiting`](Self::max_waiting) and [`prefetch`](Self::prefetch), are handled as well.
    ///
    /// No effect on a sequential sink.
    pub fn concurrency(mut self, concurrency: NonZeroUsize) -> Self {
        if self.mode != Mode::Sequential {
            self.concurrency = concurrency;
        }
        self
    }

    /// How long a handler may take, from when it first waits for something. Default: no timeout.
    ///
    /// Waiting for a key, a slot or a worker does not count. A handler that never waits, but
    /// computes or blocks its thread, cannot be timed out.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// What happens to a handler whose time is over. Default: [`OnTimeout::Cancel`].
    pub fn on_timeout(mut self, on_timeout: OnTimeout) -> Self {
        self.on_timeout = on_timeout;
        self
    }

    /// How many updates may wait for a key or for a retry. Default: 16 384, some 30 MB of typical
    /// updates.
    ///
    /// At this bound no more updates are fetched, because a supplier cannot be read selectively.
    /// Intake goes on when there is room for half of [`prefetch`](Self::prefetch) or half of the
    /// bound, whichever is less, and not for a call per update.
    ///
    /// Few suppliers ever get there: when as many wait as may run, the next batch comes when twice as
    /// many updates were started as the last one had, or a millisecond later. What waits longer than it
    /// takes to fetch it is better left where it is.
    ///
    /// What is in flight by then may still come on top, if it has to be tried again. No effect on
    /// sequential and batch sinks, which hold one batch.
    pub fn max_waiting(mut self, max_waiting: NonZeroUsize) -> Self {
        self.max_waiting = max_waiting;
        self
    }

    /// How many updates may wait for one key. Default: no bound of its own.
    ///
    /// Beyond it an update is not handled but given to the error policy with
    /// [`Cause::Overflow`](crate::Cause::Overflow). This is the only way to protect other keys from
    /// a flood that exceeds [`max_waiting`](Self::max_waiting), and it loses updates.
    pub fn max_waiting_per_key(mut self, max_waiting: NonZeroUsize) -> Self {
        self.max_waiting_per_key = Some(max_waiting);
        self
    }

    /// How many updates may be ready and wait for a slot. Default: 200, one batch that waits and one
    /// that is on its way, so that a full sink refills without a round trip and every call asks for a
    /// whole batch.
    ///
    /// With one batch only, the call that follows a full batch would find room for half of it: over
    /// a slow network, that costs a quarter of the throughput.
    ///
    /// No effect on sequential and batch sinks.
    pub fn prefetch(mut self, prefetch: usize) -> Self {
        if self.mode == Mode::Concurrent {
            self.prefetch = prefetch;
        }
        self
    }

    /// Bounds how many tasks start handlers. Default: no bound but the threads of the runtime.
    ///
    /// A task that starts a handler keeps it when it has to wait, and another task starts the next
    /// one; so this bounds only handlers that compute or block without waiting.
    /// `NonZeroUsize::MAX` gives every update a task of its own, for handlers that block.
    ///
    /// Without a bound, as many tasks look for updates as the machine can run at once, and each whose
    /// handler has waited starts the next one as well: that costs the least.
    pub fn workers(mut self, workers: NonZeroUsize) -> Self {
        self.workers = Some(workers);
        self
    }
}

impl Default for SinkOptions {
    fn default() -> Self {
        Self::concurrent()
    }
}
