//! [`DecayingQueue`]: bounded concurrency, order by key, timeouts, retries, and an account of every update.
//!
//! | file | answers |
//! |---|---|
//! | `options.rs` | what can be set |
//! | `state.rs` | what happens to an update, event by event: start, timeout, retry |
//! | `entry.rs` | what is known of one update |
//! | `intake.rs` | how much room there is |
//! | `key_order.rs` | which updates wait for which others |
//! | `ready.rs` | who may start next |
//! | `timers.rs` | what is due when |
//! | `workers.rs` | how many run, and which tasks look for more |
//! | `complete.rs` | how an update leaves |
//! | `shutdown.rs` | what happens at a stop, and at the end |
//! | `worker.rs`, `mailbox.rs` | the tasks that run handlers |
//! | `upstream.rs` | what a sink of the user's asks the queue |
//! | `shared.rs` | how a batch gets in, who keeps the time, and the lock around all of it |
//! | `effects.rs`, `waiters.rs` | what happens after the lock was released |
//! | `inspect.rs`, `latency.rs`, `outcome.rs` | what can be seen from outside |
//! | `label.rs` | what a log line says of an update |

mod complete;
mod effects;
mod entry;
mod inspect;
mod intake;
mod key_order;
mod label;
mod latency;
mod mailbox;
#[cfg(test)]
mod model;
mod options;
mod outcome;
mod ready;
mod shared;
mod shutdown;
mod state;
mod ticket;
mod timers;
mod upstream;
mod waiters;
mod worker;
mod workers;

use std::{
    fmt,
    num::NonZeroUsize,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::future::{Either, select};

pub(crate) use self::{
    effects::Wakers,
    label::{ApiLabel, Label},
    options::{Limits, MAX_BATCH},
    outcome::{Attempted, Fault, Unfinished},
    shared::QueueShared,
    ticket::Ticket,
    upstream::{Outlook, Upstream},
    waiters::{WaiterId, Waiters},
};
pub use self::{
    inspect::{InFlight, Progress, QueueStats},
    latency::LatencySummary,
    options::{AnySink, Batch, Concurrent, Sequential, SinkOptions},
    outcome::{Counters, LateHandler},
};
use crate::{
    Abandoned, BoxFuture, Cause, Delivery, ErrorPolicy, Failure, Fate, HandlerOutput, Key, Runtime,
    RuntimeExt, SkipFailed, UpdateConsumer, Verdict,
};

/// A bounded concurrent queue with timeouts: what a runner puts between its source and its handler.
///
/// Use it alone for work that is not a bot and needs no supplier: a crawler, a resizer of images, jobs that
/// another part of the program hands in.
///
/// ```
/// # #[cfg(feature = "test-util")] {
/// use std::{sync::Arc, time::Duration};
/// use runner_core::{DecayingQueue, Delivery, Key, SinkOptions, testing::SimRuntime};
///
/// let sim = SimRuntime::new(1); // or `Tokio`, or `Smol`
/// let queue = DecayingQueue::for_each(Arc::new(sim.clone()), async |url: Delivery<&str>| {
///     println!("fetching {}", *url);
/// })
/// .options(SinkOptions::concurrent().timeout(Duration::from_secs(30)))
/// .sequentialize(|url| [Key::new("host", url.split('/').nth(2).unwrap_or_default())])
/// .build();
///
/// let report = sim.block_on(async {
///     for page in ["https://a.example/1", "https://a.example/2", "https://b.example/1"] {
///         // Waits while the queue is full.
///         queue.add([page]).unwrap().await;
///     }
///     queue.drain().await
/// });
/// assert_eq!(report.counters.finished, 3);
/// # }
/// ```
///
/// # What it promises
///
/// - At most [`concurrency`](SinkOptions::concurrency) handlers run at once.
/// - Updates that share a key are handled one after the other, in the order in which they were added.
/// - Every update that was added ends exactly once: finished, given up, or listed as abandoned in the report.
/// - A handler that fails, panics or exceeds its timeout concerns its own update only.
///
/// Cheap to clone; all clones are the same queue. When the last clone is dropped, the queue is stopped:
/// what it holds is still handled.
///
/// # Handlers that use their own queue
///
/// A handler may add to its queue, stop it and look at it. It must not await `room`, `idle` or `drain`: it holds
/// a slot, so it would wait for itself. A handler that owns a clone keeps the queue alive; stop or drain it when
/// the work is done.
pub struct DecayingQueue<U: Send + Sync + 'static> {
    shared: Arc<QueueShared<U>>,
    handle: Arc<Handle<U>>,
}

impl<U: Send + Sync + 'static> DecayingQueue<U> {
    /// A queue whose updates are handled by a closure.
    pub fn for_each<F, Fut>(
        runtime: Arc<dyn Runtime>,
        handler: F,
    ) -> QueueBuilder<U, impl UpdateConsumer<U>>
    where
        F: Fn(Delivery<U>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: HandlerOutput> + Send,
    {
        Self::builder(runtime, handler)
    }

    /// A queue whose updates are handled by a closure that needs something to work with.
    ///
    /// `state` is cloned for every update; wrap what is costly to clone in an `Arc`.
    pub fn for_each_with<T, F, Fut>(
        runtime: Arc<dyn Runtime>,
        state: T,
        handler: F,
    ) -> QueueBuilder<U, impl UpdateConsumer<U>>
    where
        T: Clone + Send + Sync + 'static,
        F: Fn(T, Delivery<U>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: HandlerOutput> + Send,
    {
        Self::builder(runtime, move |update| handler(state.clone(), update))
    }

    /// A queue whose updates are handled by `consumer`.
    pub fn builder<C: UpdateConsumer<U>>(
        runtime: Arc<dyn Runtime>,
        consumer: C,
    ) -> QueueBuilder<U, C> {
        QueueBuilder {
            runtime,
            consumer: Arc::new(consumer),
            parts: QueueParts::default(),
        }
    }

    pub(crate) fn from_parts<C: UpdateConsumer<U>>(
        runtime: Arc<dyn Runtime>,
        consumer: Arc<C>,
        parts: QueueParts<U>,
    ) -> Self {
        let shared = QueueShared::new(runtime, consumer, parts);
        Self {
            handle: Arc::new(Handle(Arc::clone(&shared))),
            shared,
        }
    }

    /// Adds updates, oldest first. They are in the queue when this returns.
    ///
    /// The returned future resolves as [`room`](Self::room) does: await it before you add more, and the
    /// queue stays within its bounds. It may be dropped.
    ///
    /// # Errors
    ///
    /// [`QueueClosed`], with the updates, after a stop and when the queue has halted.
    pub fn add(&self, updates: impl IntoIterator<Item = U>) -> Result<Room, QueueClosed<U>> {
        let updates = updates.into_iter().collect();
        let now = self.shared.runtime.now();
        self.shared.try_add(updates, now).map_err(QueueClosed)?;
        Ok(self.room())
    }

    /// Resolves with how many updates there is room for, at most 100, as soon as there is enough to be worth
    /// a fetch. `None` if the queue takes no more updates.
    ///
    /// # Cancel safety
    ///
    /// Safe: it reserves nothing.
    pub fn room(&self) -> Room {
        let shared = Arc::clone(&self.shared);
        Room::new(async move { shared.room(false).await })
    }

    /// How many updates could start at once. 0 while all slots are taken.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.shared.stats().capacity
    }

    /// How many updates are held: in flight, ready, or waiting for a key or a retry.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.len()
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The queue in numbers.
    #[must_use]
    pub fn stats(&self) -> QueueStats {
        self.shared.stats()
    }

    /// How long updates took, from [`add`](Self::add) to their completion.
    #[must_use]
    pub fn latency(&self) -> LatencySummary {
        self.shared.latency()
    }

    /// Everything that is held, oldest first, with age, keys, and what it waits for.
    #[must_use]
    pub fn snapshot(&self) -> Vec<InFlight<U>> {
        self.shared.snapshot()
    }

    /// Changes how many updates may be in flight. Cancels nothing. No effect on a sequential queue.
    pub fn set_concurrency(&self, concurrency: NonZeroUsize) {
        self.shared.set_concurrency(concurrency);
    }

    /// Resolves when nothing is held.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only waits.
    pub async fn idle(&self) {
        self.shared.idle().await;
    }

    /// Resolves when the queue takes no more updates: after a stop, and when it has halted.
    ///
    /// Select with it while you wait for what to add next.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only waits.
    pub async fn closed(&self) {
        self.shared.closed().await;
    }

    /// Takes no more updates. What is held is still handled; updates that wait for a retry are tried once
    /// more at once.
    pub fn stop(&self) {
        self.shared.stop();
    }

    /// Stops, and cancels at once: each handler is polled once more and dropped if it is still pending, and
    /// what has not started is abandoned.
    pub fn abandon(&self) {
        self.shared.abandon();
    }

    /// Stops, and resolves with the report when everything that is held has been handled.
    ///
    /// # Cancel safety
    ///
    /// Safe: the queue stays stopped, and may be drained again.
    pub async fn drain(&self) -> QueueReport<U> {
        self.end(None).await
    }

    /// As [`drain`](Self::drain), but cancels what is left after `limit`. It resolves at most one second
    /// after that, even if handlers block their threads.
    ///
    /// # Cancel safety
    ///
    /// As [`drain`](Self::drain); what is left is then not cancelled.
    pub async fn drain_within(&self, limit: Duration) -> QueueReport<U> {
        self.end(Some(limit)).await
    }

    async fn end(&self, limit: Option<Duration>) -> QueueReport<U> {
        let shared = &self.shared;
        shared.stop();
        let runtime = &shared.runtime;
        let mut gone = pin!(async {
            if !matches!(shared.fault().await, Fault::RuntimeGone) {
                std::future::pending::<()>().await;
            }
        });
        let mut ended = pin!(shared.ended());
        let ended = select(ended.as_mut(), gone.as_mut());
        let too_late = match limit {
            Some(limit) => runtime.sleep(limit),
            None => Box::pin(std::future::pending()),
        };
        if let Either::Right(((), ended)) = select(ended, too_late).await {
            shared.abandon();
            let _ = select(ended, runtime.sleep(GRACE)).await;
        }
        // Nothing is left, but handlers that block their threads, or whose runtime is gone.
        shared.give_up();
        self.report()
    }

    fn report(&self) -> QueueReport<U> {
        let abandoned = self.shared.take_abandoned().into_iter();
        QueueReport {
            counters: self.shared.stats().counters,
            abandoned: abandoned
                .map(|unfinished| Abandoned::new(unfinished, Fate::Lost))
                .collect(),
            settled_prefix: usize::try_from(self.shared.completed_prefix()).unwrap_or(usize::MAX),
            latency: self.shared.latency(),
            fault: self.shared.halted().map(|fault| match fault {
                Fault::Policy { cause } => QueueFault::Policy(cause),
                Fault::RuntimeGone => QueueFault::RuntimeGone,
            }),
        }
    }

    pub(crate) fn shared(&self) -> &Arc<QueueShared<U>> {
        &self.shared
    }
}

impl<U: Send + Sync + 'static> Clone for DecayingQueue<U> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            handle: Arc::clone(&self.handle),
        }
    }
}

impl<U: Send + Sync + 'static> fmt::Debug for DecayingQueue<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(f)
    }
}

/// How long a drain with a limit waits for handlers that were told to end.
const GRACE: Duration = Duration::from_millis(500);

/// What all clones of a queue have in common.
struct Handle<U: Send + Sync + 'static>(Arc<QueueShared<U>>);

impl<U: Send + Sync + 'static> Drop for Handle<U> {
    fn drop(&mut self) {
        // The clock does the stopping, because that may spawn.
        self.0.last_handle_dropped();
    }
}

/// Waits for room in a [`DecayingQueue`]; see [`room`](DecayingQueue::room).
#[must_use = "a future does nothing unless it is awaited"]
pub struct Room(BoxFuture<'static, Option<NonZeroUsize>>);

impl Room {
    fn new(room: impl Future<Output = Option<NonZeroUsize>> + Send + 'static) -> Self {
        Self(Box::pin(room))
    }
}

impl Future for Room {
    type Output = Option<NonZeroUsize>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room").finish_non_exhaustive()
    }
}

/// The queue takes no more updates. Holds those that were refused.
pub struct QueueClosed<U>(pub Vec<U>);

impl<U> fmt::Debug for QueueClosed<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QueueClosed({} updates)", self.0.len())
    }
}

impl<U> fmt::Display for QueueClosed<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the queue was stopped and takes no more updates")
    }
}

impl<U> std::error::Error for QueueClosed<U> {}

/// What became of the updates of a queue.
#[non_exhaustive]
pub struct QueueReport<U> {
    /// How the updates ended, in numbers.
    pub counters: Counters,
    /// Every update that was neither finished nor given up, oldest first. Each is handed out by one report
    /// only.
    pub abandoned: Vec<Abandoned<U>>,
    /// How many updates, counted from the first one that was added, are settled without a gap: what
    /// [`Source::close`](crate::Source::close) takes.
    pub settled_prefix: usize,
    /// How long updates took, from [`add`](DecayingQueue::add) to their completion.
    pub latency: LatencySummary,
    /// Why the queue halted by itself, if it did.
    pub fault: Option<QueueFault>,
}

impl<U> fmt::Debug for QueueReport<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueReport")
            .field("counters", &self.counters)
            .field("abandoned", &self.abandoned)
            .field("settled_prefix", &self.settled_prefix)
            .field("latency", &self.latency)
            .field("fault", &self.fault)
            .finish()
    }
}

/// Why a queue halted by itself.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum QueueFault {
    /// The error policy answered [`Verdict::Stop`].
    Policy(Cause),
    /// The runtime was shut down.
    RuntimeGone,
}

/// Puts a [`DecayingQueue`] together.
pub struct QueueBuilder<U: Send + Sync + 'static, C> {
    runtime: Arc<dyn Runtime>,
    consumer: Arc<C>,
    parts: QueueParts<U>,
}

impl<U: Send + Sync + 'static, C: UpdateConsumer<U>> QueueBuilder<U, C> {
    /// Limits and timeouts. Default: 500 updates at once, no timeout.
    #[must_use]
    pub fn options<M>(mut self, options: SinkOptions<M>) -> Self {
        self.parts.limits = options.limits;
        self
    }

    /// Handles updates that share a key one after the other. Default: no keys. A key function that panics
    /// sends its update to the error policy.
    #[must_use]
    pub fn sequentialize<F, K>(mut self, keys: F) -> Self
    where
        F: Fn(&U) -> K + Send + Sync + 'static,
        K: IntoIterator<Item = Key>,
    {
        self.parts.sequentialize(keys);
        self
    }

    /// What happens to an update whose handler failed. Default: [`SkipFailed`].
    #[must_use]
    pub fn policy(mut self, policy: impl ErrorPolicy<U>) -> Self {
        self.parts.policy = Arc::new(policy);
        self
    }

    /// How large an update is, in bytes, for [`max_bytes`](SinkOptions::max_bytes). Default: the size of its
    /// type, which leaves out what it points to.
    #[must_use]
    pub fn size_by(mut self, size: impl Fn(&U) -> usize + Send + Sync + 'static) -> Self {
        self.parts.size = Some(Arc::new(size));
        self
    }

    /// Called for every handler that goes on after its timeout; see
    /// [`continue_after_timeout`](SinkOptions::continue_after_timeout). It must not block.
    #[must_use]
    pub fn on_late(mut self, on_late: impl Fn(LateHandler<U>) + Send + Sync + 'static) -> Self {
        self.parts.on_late = Some(Arc::new(on_late));
        self
    }

    /// The queue. Its timeouts and retries are driven by a task of the runtime.
    #[must_use]
    pub fn build(self) -> DecayingQueue<U> {
        let runtime = Arc::clone(&self.runtime);
        let (queue, clock) = self.build_with_clock();
        runtime.spawn(Box::pin(clock));
        queue
    }

    /// The queue, and a future that drives its timeouts and retries: poll it in a task of your own. It ends
    /// when the queue was stopped and holds nothing more.
    ///
    /// For runtimes whose worker threads may be blocked by handlers, so that timeouts still happen.
    pub fn build_with_clock(
        self,
    ) -> (
        DecayingQueue<U>,
        impl Future<Output = ()> + Send + use<U, C>,
    ) {
        let queue = DecayingQueue::from_parts(self.runtime, self.consumer, self.parts);
        let shared = Arc::clone(&queue.shared);
        let clock = async move {
            select(pin!(shared.keep_time()), pin!(shared.ended())).await;
        };
        (queue, clock)
    }
}

impl<U: Send + Sync + 'static, C> fmt::Debug for QueueBuilder<U, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueBuilder")
            .field("options", &self.parts.limits)
            .field("sequentialized", &self.parts.keys.is_some())
            .finish_non_exhaustive()
    }
}

/// What a queue is made of, but for its runtime and its consumer.
pub(crate) struct QueueParts<U> {
    pub(crate) limits: Limits,
    pub(crate) keys: Option<Arc<KeysOf<U>>>,
    pub(crate) policy: Arc<dyn BoxedPolicy<U>>,
    pub(crate) size: Option<Arc<SizeOf<U>>>,
    pub(crate) on_late: Option<Arc<OnLate<U>>>,
    /// For log lines.
    pub(crate) label: Option<Arc<LabelOf<U>>>,
}

/// How large an update is, in bytes.
pub(crate) type SizeOf<U> = dyn Fn(&U) -> usize + Send + Sync;

/// Hears of handlers that go on after their timeout.
pub(crate) type OnLate<U> = dyn Fn(LateHandler<U>) + Send + Sync;

/// What the API of a bot says of an update.
pub(crate) type LabelOf<U> = dyn Fn(&U) -> ApiLabel + Send + Sync;

/// Calls its second argument with every key of the update.
pub(crate) type KeysOf<U> = dyn Fn(&U, &mut dyn FnMut(Key)) + Send + Sync;

impl<U: Send + Sync + 'static> QueueParts<U> {
    pub(crate) fn sequentialize<F, K>(&mut self, keys: F)
    where
        F: Fn(&U) -> K + Send + Sync + 'static,
        K: IntoIterator<Item = Key>,
    {
        self.keys = Some(Arc::new(move |update, each| {
            keys(update).into_iter().for_each(each);
        }));
    }
}

impl<U: Send + Sync + 'static> Default for QueueParts<U> {
    fn default() -> Self {
        Self {
            limits: SinkOptions::concurrent().limits,
            keys: None,
            policy: Arc::new(SkipFailed),
            size: None,
            on_late: None,
            label: None,
        }
    }
}

impl<U> Clone for QueueParts<U> {
    fn clone(&self) -> Self {
        Self {
            limits: self.limits,
            keys: self.keys.clone(),
            policy: Arc::clone(&self.policy),
            size: self.size.clone(),
            on_late: self.on_late.clone(),
            label: self.label.clone(),
        }
    }
}

/// The object-safe form of an error policy.
pub(crate) trait BoxedPolicy<U>: Send + Sync {
    fn decide(&self, failure: Failure<U>) -> BoxFuture<'_, Verdict>;
}

impl<U: 'static, P: ErrorPolicy<U>> BoxedPolicy<U> for P {
    fn decide(&self, failure: Failure<U>) -> BoxFuture<'_, Verdict> {
        Box::pin(ErrorPolicy::decide(self, failure))
    }
}
