//! How many updates are handled at once, in what order, for how long.

use std::{fmt, marker::PhantomData, num::NonZeroUsize, time::Duration};

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
/// "At least once" holds for suppliers that, like the Bot API, forget a batch only when the next one is
/// asked for: these two sinks fetch only when every update is completed.
///
/// The type parameter is the kind of sink, so an option that a sink would ignore cannot be set:
///
/// ```compile_fail,E0599
/// # use runner_core::SinkOptions;
/// # let two = std::num::NonZeroUsize::new(2).unwrap();
/// SinkOptions::sequential().concurrency(two);
/// ```
#[must_use]
pub struct SinkOptions<M = Concurrent> {
    pub(crate) limits: Limits,
    mode: PhantomData<M>,
}

/// The kind of sink that handles many updates at once; see [`SinkOptions::concurrent`].
#[derive(Clone, Copy, Debug)]
pub enum Concurrent {}

/// The kind of sink that handles a batch together; see [`SinkOptions::batch`].
#[derive(Clone, Copy, Debug)]
pub enum Batch {}

/// The kind of sink that handles one update at a time; see [`SinkOptions::sequential`].
#[derive(Clone, Copy, Debug)]
pub enum Sequential {}

/// Any kind of sink; see [`SinkOptions::any`].
#[derive(Clone, Copy, Debug)]
pub enum AnySink {}

/// The values of all options, whatever the sink.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) mode: Mode,
    pub(crate) concurrency: NonZeroUsize,
    pub(crate) timeout: Option<Duration>,
    pub(crate) after_timeout: AfterTimeout,
    pub(crate) max_waiting: NonZeroUsize,
    pub(crate) max_waiting_per_key: Option<NonZeroUsize>,
    pub(crate) max_bytes: Option<NonZeroUsize>,
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

/// What happens to a handler after its timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AfterTimeout {
    Cancel,
    Continue,
    /// How many may be detached at a time. `None`: as many as may run at once.
    Detach(Option<NonZeroUsize>),
}

impl Limits {
    const DEFAULT: Self = Self {
        mode: Mode::Concurrent,
        // What grammY runner allows by default; a bot that waits for the network most of the time handles
        // thousands of updates per second with it.
        concurrency: NonZeroUsize::new(500).unwrap(),
        timeout: None,
        after_timeout: AfterTimeout::Cancel,
        max_waiting: NonZeroUsize::new(16_384).unwrap(),
        max_waiting_per_key: None,
        max_bytes: NonZeroUsize::new(64 << 20),
        prefetch: 2 * MAX_BATCH,
        workers: None,
    };

    /// A sequential sink has one slot, whatever is asked for.
    pub(crate) fn set_concurrency(&mut self, concurrency: NonZeroUsize) {
        if self.mode != Mode::Sequential {
            self.concurrency = concurrency;
        }
    }

    pub(super) fn max_detached(&self) -> Option<NonZeroUsize> {
        match self.after_timeout {
            AfterTimeout::Detach(max) => max,
            AfterTimeout::Cancel | AfterTimeout::Continue => None,
        }
    }
}

/// The largest batch that is ever asked for.
///
/// Source: <https://core.telegram.org/bots/api#getupdates>, parameter `limit`. Other suppliers lose
/// nothing by it: a round trip for a hundred updates costs little per update.
pub(crate) const MAX_BATCH: usize = 100;

/// What concurrent and batch sinks have in common.
macro_rules! many_at_once {
    () => {
        /// How many updates may be in flight at once. Default: 500. `NonZeroUsize::MAX`: no limit.
        ///
        /// This does not bound what a stop has to finish: updates that are held and have not started are
        /// handled as well.
        pub fn concurrency(mut self, concurrency: NonZeroUsize) -> Self {
            self.limits.concurrency = concurrency;
            self
        }

        /// How many updates may wait for one key. Default: no bound of its own.
        ///
        /// Beyond it an update is not handled but given to the error policy with
        /// [`Cause::Overflow`](crate::Cause::Overflow). This is the only way to protect other keys from a flood
        /// that exceeds the bounds of the sink, and it loses updates.
        pub fn max_waiting_per_key(mut self, max_waiting: NonZeroUsize) -> Self {
            self.limits.max_waiting_per_key = Some(max_waiting);
            self
        }
    };
}

impl SinkOptions<Concurrent> {
    /// Updates that share no key run at the same time, up to [`concurrency`](Self::concurrency).
    pub fn concurrent() -> Self {
        Self::new(Limits::DEFAULT)
    }

    /// How many updates may wait for a key or for a retry. Default: 16,384, some 30 MB of typical updates.
    ///
    /// Without a limit on [`concurrency`](Self::concurrency), as many may be ready and wait for a worker.
    ///
    /// At this bound no more updates are fetched, because a supplier cannot be read selectively. Intake
    /// goes on when there is room for half of [`prefetch`](Self::prefetch) or half of the bound, whichever
    /// is less, and not for a call per update.
    ///
    /// Retries of updates that are in flight by then may exceed it.
    pub fn max_waiting(mut self, max_waiting: NonZeroUsize) -> Self {
        self.limits.max_waiting = max_waiting;
        self
    }

    /// How large everything that is held may be, in bytes. Default: 64 MiB, what a container of 256 MB
    /// has room for.
    ///
    /// At this bound no more updates are fetched; below it intake goes on. What was fetched by then is
    /// kept, so the bound may be exceeded by one batch. The size of an update is what
    /// [`size_by`](crate::Runner::size_by) says, by default the size of its type; for a
    /// [`Bot`](crate::Bot), what [`GetUpdates::size`](crate::GetUpdates::size) says, with `BotApi` the
    /// length of its JSON.
    ///
    /// It is a count of what is held. Somewhat more is in memory: up to 32 KiB of its neighbours in a batch
    /// are freed together with an update.
    pub fn max_bytes(mut self, max_bytes: NonZeroUsize) -> Self {
        self.limits.max_bytes = Some(max_bytes);
        self
    }

    /// How many updates may be ready and wait for a slot. Default: 200, one batch that waits and one that
    /// is on its way, so that a full sink refills without a round trip and every call asks for a whole
    /// batch.
    ///
    /// With one batch only, the call that follows a full batch would find room for half of it: over a slow
    /// network, that costs a quarter of the throughput.
    pub fn prefetch(mut self, prefetch: usize) -> Self {
        self.limits.prefetch = prefetch;
        self
    }

    /// A handler goes on after its timeout. It leaves its slot to others and keeps its keys until it ends.
    ///
    /// `max`: how many may go on like this at a time; beyond that a late handler keeps its slot. `None`: as
    /// many as may run at once. See also [`continue_after_timeout`](Self::continue_after_timeout).
    pub fn detach_after_timeout(mut self, max: Option<NonZeroUsize>) -> Self {
        self.limits.after_timeout = AfterTimeout::Detach(max);
        self
    }

    many_at_once!();
}

impl SinkOptions<Batch> {
    /// The updates of one batch together. The next batch is fetched when all of it is completed.
    pub fn batch() -> Self {
        Self::new(Limits {
            mode: Mode::Batch,
            ..Limits::DEFAULT
        })
    }

    many_at_once!();
}

impl SinkOptions<Sequential> {
    /// One update after the other. The next batch is fetched when all of it is completed.
    pub fn sequential() -> Self {
        Self::new(Limits {
            mode: Mode::Sequential,
            concurrency: NonZeroUsize::MIN,
            ..Limits::DEFAULT
        })
    }
}

impl<M> SinkOptions<M> {
    fn new(limits: Limits) -> Self {
        Self {
            limits,
            mode: PhantomData,
        }
    }

    /// The same options without the kind of sink in their type, to choose between sinks at run time.
    pub fn any(self) -> SinkOptions<AnySink> {
        SinkOptions::new(self.limits)
    }

    /// How long a handler may take, from its first pending poll. Default: no timeout.
    ///
    /// To wait for a key, a slot or a worker does not count. A handler that is never pending, because it
    /// computes or blocks its thread, cannot time out. One that is due is polled once more before it
    /// counts as late, so that a process which was suspended does not time out handlers that were ready.
    ///
    /// By default a late handler is cancelled: its future is dropped, then its slot and keys are released,
    /// so it cannot race the next update of its chat.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.limits.timeout = Some(timeout);
        self
    }

    /// A handler goes on after its timeout, with its slot and its keys. It is reported by
    /// [`on_late`](crate::Runner::on_late) and in the log.
    pub fn continue_after_timeout(mut self) -> Self {
        self.limits.after_timeout = AfterTimeout::Continue;
        self
    }

    /// Bounds how many tasks start handlers. Default: no bound but the threads of the runtime.
    ///
    /// A task that starts a handler keeps it when it is pending, and another task starts the next one; so
    /// this bounds only handlers that compute or block without waiting. `NonZeroUsize::MAX` gives every
    /// update a task of its own, for handlers that block.
    ///
    /// Without a bound, as many tasks look for updates as the machine can run at once, and each whose
    /// handler has been pending starts the next one as well: that costs the least.
    pub fn workers(mut self, workers: NonZeroUsize) -> Self {
        self.limits.workers = Some(workers);
        self
    }
}

impl Default for SinkOptions {
    fn default() -> Self {
        Self::concurrent()
    }
}

impl<M> Clone for SinkOptions<M> {
    fn clone(&self) -> Self {
        Self::new(self.limits)
    }
}

impl<M> fmt::Debug for SinkOptions<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.limits.fmt(f)
    }
}
