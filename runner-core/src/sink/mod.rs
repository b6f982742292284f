//! Between source and consumer: order by key, the decaying queue, and the tasks that empty it.
//!
//! `queue.rs` decides, `worker.rs` runs handlers, and this file is the lock between them. No lock is
//! held across an await, a call of user code, a spawn or a wake-up.

mod arena;
mod cohorts;
mod decay;
mod duty;
mod effects;
mod end;
mod intake;
mod latency;
mod node;
mod options;
mod order;
mod outcome;
mod parked;
mod queue;
#[cfg(test)]
mod queue_model;
mod ready;
mod settle;
mod snapshot;
mod step;
mod upstream;
mod waiters;
mod worker;

use std::{
    fmt,
    future::poll_fn,
    num::NonZeroUsize,
    sync::{Arc, PoisonError, Weak},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use self::{
    effects::Effects,
    intake::Arrival,
    order::KeyHasher,
    queue::{Alarm, Interest, Queue},
    worker::Duty,
};
pub(crate) use self::{
    effects::Wakers,
    options::MAX_BATCH,
    outcome::{Fault, Unsettled},
    snapshot::Gauges,
    upstream::{Outlook, Upstream},
    waiters::{WaiterId, Waiters},
};
pub use self::{
    latency::LatencySummary,
    options::{OnTimeout, SinkOptions},
    outcome::Counters,
    snapshot::{InFlight, Progress},
};
use crate::{
    BoxFuture, Cause, Failure, Key, Runtime, UpdateConsumer, Verdict,
    delivery::{Chunk, Control, Share},
    panics::{discard, guarded},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    ticket::Ticket,
};

/// Everything between the source and the consumer of one run.
pub(crate) struct Sink<U: Send + Sync + 'static> {
    queue: Mutex<Queue<U>>,
    stopping: AtomicBool,
    /// Counts, and wraps around: something was cancelled, and is about to be woken.
    cancels: AtomicU32,
    runtime: Arc<dyn Runtime>,
    /// Whether handlers have a timeout.
    limited: bool,
    keys: Option<Arc<KeysOf<U>>>,
    hasher: KeyHasher,
    policy: Arc<dyn DecideBoxed<U>>,
    /// Makes the future of one task that starts handlers. Knows the type of the consumer, so that
    /// nothing else has to.
    work: Box<dyn Fn(Duty<U>) -> BoxFuture<'static> + Send + Sync>,
    /// For deliveries, which must not keep the sink alive.
    control: Weak<dyn Control>,
}

/// Calls its second argument with every key of the update.
pub(crate) type KeysOf<U> = dyn Fn(&U, &mut dyn FnMut(Key)) + Send + Sync;

/// The object-safe form of an error policy.
pub(crate) trait DecideBoxed<U>: Send + Sync {
    fn decide(&self, failure: Failure<U>) -> BoxFuture<'_, Verdict>;
}

impl<U: 'static, P: crate::ErrorPolicy<U>> DecideBoxed<U> for P {
    fn decide(&self, failure: Failure<U>) -> BoxFuture<'_, Verdict> {
        Box::pin(crate::ErrorPolicy::decide(self, failure))
    }
}

impl<U: Send + Sync + 'static> Sink<U> {
    pub(crate) fn new<C: UpdateConsumer<U>>(
        runtime: Arc<dyn Runtime>,
        consumer: Arc<C>,
        options: &SinkOptions,
        keys: Option<Arc<KeysOf<U>>>,
        policy: Arc<dyn DecideBoxed<U>>,
    ) -> Arc<Self> {
        let hasher = KeyHasher::new(runtime.entropy());
        Arc::new_cyclic(|control: &Weak<Self>| Self {
            queue: Mutex::new(Queue::new(options)),
            stopping: AtomicBool::new(false),
            cancels: AtomicU32::new(0),
            runtime,
            limited: options.timeout.is_some(),
            keys,
            hasher,
            policy,
            work: Box::new(move |duty| Box::pin(worker::work(duty, Arc::clone(&consumer)))),
            control: control.clone(),
        })
    }

    /// Takes in a batch that arrived at a point in time, which must not be before that of the last one.
    /// Never waits and never refuses; see [`room`](Self::room).
    ///
    /// Returns how many to fetch next and what time it is by now, unless there is a reason to wait, or
    /// to end. `scarce`: there were fewer than were asked for.
    pub(crate) fn add(
        self: &Arc<Self>,
        batch: Vec<U>,
        arrived: Instant,
        scarce: bool,
    ) -> Option<(NonZeroUsize, Instant)> {
        let mut wakers = Wakers::default();
        let (recruits, room) = match &self.keys {
            // Takes no time.
            None => {
                // Made before the lock is taken. A batch of one costs no list.
                let mut chunks = Chunk::split(batch, &self.control);
                let (first, others) = (chunks.next(), chunks.collect::<Vec<_>>());
                let mut queue = self.lock();
                for (chunk, count) in first.into_iter().chain(others) {
                    queue.arrive_free(chunk, count, arrived);
                }
                (queue.recruit(&mut wakers), queue.room(scarce))
            }
            Some(keys) => self.add_in_order(batch, &**keys, arrived, scarce, &mut wakers),
        };
        wakers.wake();
        self.spawn(recruits);
        let now = || match &self.keys {
            None => arrived,
            Some(_) => self.runtime.now(),
        };
        room.map(|room| (room, now()))
    }

    fn add_in_order(
        &self,
        batch: Vec<U>,
        keys: &KeysOf<U>,
        arrived: Instant,
        scarce: bool,
        wakers: &mut Wakers,
    ) -> (usize, Option<NonZeroUsize>) {
        // Keys come from code of the user, so they are all known before the lock is taken.
        let keyed = self.hash_keys(&batch, keys);
        let arrivals = batch.len();
        let mut place = 0;
        for (chunk, count) in Chunk::split(batch, &self.control) {
            // Not for the whole batch: that takes so long that who waits is sent to sleep by the kernel.
            let mut queue = self.lock();
            queue.arriving = true;
            for index in 0..count {
                let share = Share::new(Arc::clone(&chunk), index);
                queue.arrive(share, keyed.arrival(place), arrived);
                place += 1;
            }
        }
        let mut queue = self.lock();
        queue.arriving = false;
        queue.keep_step(arrivals, arrived, wakers);
        let recruits = queue.recruit(wakers);
        queue.wake_watcher(wakers);
        (recruits, queue.room(scarce))
    }

    /// How many updates to fetch, once there is enough room.
    ///
    /// `None` only if `choke`: too many updates wait for there to be room soon.
    pub(crate) async fn room(&self, choke: bool) -> Option<NonZeroUsize> {
        if choke {
            self.wait(Interest::RoomOrChoke, |queue| match queue.room(false) {
                None if queue.is_choked() => Some(None),
                room => room.map(Some),
            })
            .await
        } else {
            self.wait(Interest::Room, |queue| queue.room(false).map(Some))
                .await
        }
    }

    /// Resolves when nothing is held.
    pub(crate) async fn idle(&self) {
        self.wait(Interest::Idle, |queue| queue.is_empty().then_some(()))
            .await;
    }

    /// Resolves when the sink halted by itself.
    pub(crate) async fn fault(&self) -> Fault {
        let mut waiter = Waiter::new(self, |queue| &mut queue.alarms);
        poll_fn(|cx| waiter.poll(Alarm::Fault, cx, |queue| queue.fault.clone())).await
    }

    /// Why the sink halted by itself, if it did.
    pub(crate) fn halted(&self) -> Option<Fault> {
        self.lock().fault.clone()
    }

    /// Runs the clock: time-outs and retries happen while this is polled. Never ends.
    pub(crate) async fn tick(self: &Arc<Self>) {
        let mut armed: Option<(Instant, BoxFuture<'static>)> = None;
        let mut waiter = Waiter::new(self, |queue| &mut queue.alarms);
        poll_fn(|cx| -> Poll<()> {
            loop {
                if let Some((_, sleep)) = &mut armed
                    && sleep.as_mut().poll(cx).is_ready()
                {
                    armed = None;
                    let mut queue = self.lock();
                    let effects = queue.expire(self.runtime.now());
                    drop(queue);
                    self.apply(effects);
                }
                let at = armed.as_ref().map(|(at, _)| *at);
                let next = waiter.poll(Alarm::Deadline(at), cx, |queue| {
                    queue
                        .next_deadline()
                        .filter(|next| at.is_none_or(|at| *next < at))
                });
                // A timer that was set for a deadline which has moved on is left as it is: it fires
                // once for nothing, which is cheaper than setting it anew for every update.
                let Poll::Ready(next) = next else {
                    return Poll::Pending;
                };
                armed = Some((next, self.runtime.sleep_until(next)));
            }
        })
        .await;
    }

    /// Stops intake; what is held still starts.
    pub(crate) fn stop(self: &Arc<Self>) {
        self.stopping.store(true, Ordering::Relaxed);
        let effects = self.lock().stop();
        self.apply(effects);
    }

    /// Abandons what has not started and cancels what runs.
    pub(crate) fn abandon(self: &Arc<Self>) {
        self.stopping.store(true, Ordering::Relaxed);
        let effects = self.lock().abandon();
        self.apply(effects);
    }

    /// Settles what has not ended although it was cancelled.
    pub(crate) fn give_up(&self) {
        self.lock().give_up();
    }

    pub(crate) fn set_concurrency(self: &Arc<Self>, concurrency: NonZeroUsize) {
        let effects = self.lock().set_concurrency(concurrency);
        self.apply(effects);
    }

    /// How many updates, from the first one of the run, are settled without a gap.
    pub(crate) fn settled_prefix(&self) -> u64 {
        let queue = self.lock();
        let first = queue.abandoned.iter().map(|abandoned| abandoned.seq).min();
        first.unwrap_or(queue.counters.supplied)
    }

    /// Everything that was abandoned so far, oldest first.
    pub(crate) fn take_abandoned(&self) -> Vec<Unsettled<U>> {
        let mut abandoned = std::mem::take(&mut self.lock().abandoned);
        abandoned.sort_unstable_by_key(|abandoned| abandoned.seq);
        abandoned
    }

    fn hash_keys(&self, batch: &[U], keys: &KeysOf<U>) -> Keyed {
        let mut keyed = Keyed::default();
        keyed.hashes.reserve(batch.len());
        keyed.ends.reserve(batch.len());
        // One guard for all, until one panics.
        while keyed.ends.len() < batch.len() {
            let Keyed { hashes, ends, .. } = &mut keyed;
            let result = guarded(|| {
                for update in &batch[ends.len()..] {
                    keys(update, &mut |key| hashes.push(self.hasher.hash(&key)));
                    ends.push(hashes.len());
                }
            });
            if let Err(panic) = result {
                let first = keyed.ends.last().copied().unwrap_or(0);
                keyed.hashes.truncate(first);
                keyed.refused.push((keyed.ends.len(), panic));
                keyed.ends.push(first);
            }
        }
        keyed
    }

    /// Does what a change of the queue requires of the outside.
    fn apply(self: &Arc<Self>, mut effects: Effects<U>) {
        self.carry_out(&mut effects);
    }

    /// The same, and leaves them empty for the next change.
    #[inline]
    fn carry_out(self: &Arc<Self>, effects: &mut Effects<U>) {
        if !effects.is_quiet() {
            self.carry_out_loud(effects);
        }
        drop(effects.stale.take());
        // Last, because dropping an update may take its time.
        if let Some(garbage) = effects.garbage.take() {
            throw_away(garbage);
        }
    }

    fn carry_out_loud(self: &Arc<Self>, effects: &mut Effects<U>) {
        if std::mem::take(&mut effects.cancels) {
            self.cancels.fetch_add(1, Ordering::Release);
        }
        effects.wakers.wake();
        self.spawn(std::mem::take(&mut effects.recruits));
        if let Some(fault) = effects.fault.take() {
            discard(fault);
        }
    }
}

impl<U: Send + Sync + 'static> Sink<U> {
    fn spawn(self: &Arc<Self>, recruits: usize) {
        for _ in 0..recruits {
            // The guard is made before the task, so that a task which is dropped unstarted still
            // gives its duty back.
            let duty = Duty::new(Arc::clone(self));
            self.runtime.spawn((self.work)(duty));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue<U>> {
        // No code of the user runs under the lock, so it is never poisoned by theirs.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn wait<T>(&self, interest: Interest, ready: impl Fn(&Queue<U>) -> Option<T>) -> T {
        let mut waiter = Waiter::new(self, |queue| &mut queue.waiters);
        poll_fn(|cx| waiter.poll(interest, cx, &ready)).await
    }
}

impl<U: Send + Sync + 'static> Control for Sink<U> {
    fn deadline(&self, ticket: Ticket) -> Option<Instant> {
        self.lock().deadline(ticket)
    }

    fn extend(&self, ticket: Ticket, by: Duration) -> bool {
        let mut wakers = Wakers::default();
        let mut queue = self.lock();
        let answer = queue.extend(ticket, by, || self.runtime.now(), &mut wakers);
        drop(queue);
        wakers.wake();
        answer
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}

impl<U: Send + Sync + 'static> fmt::Debug for Sink<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queue = self.lock();
        f.debug_struct("Sink")
            .field("phase", &queue.phase)
            .field("in_flight", &queue.running)
            .field("held", &queue.len())
            .finish_non_exhaustive()
    }
}

/// Apart, because most updates are followed by their neighbour, with which they share everything.
#[inline(never)]
fn throw_away<U>(garbage: Share<U>) {
    discard(garbage);
}

/// The keys of a batch, hashed.
#[derive(Default)]
struct Keyed {
    hashes: Vec<u64>,
    /// Where the keys of each update end.
    ends: Vec<usize>,
    /// Updates whose key function panicked, with the text.
    refused: Vec<(usize, Arc<str>)>,
}

impl Keyed {
    fn arrival(&self, place: usize) -> Arrival<'_> {
        let end = self.ends[place];
        // In order, and seldom any.
        let refused = self
            .refused
            .binary_search_by_key(&place, |(place, _)| *place);
        if let Ok(index) = refused {
            return Arrival::Refused(Cause::Panic(Arc::clone(&self.refused[index].1)));
        }
        let start = place.checked_sub(1).map_or(0, |before| self.ends[before]);
        Arrival::Keys(&self.hashes[start..end])
    }
}

/// One task's place among the waiters; it is given up when the wait is dropped.
struct Waiter<'a, U: Send + Sync + 'static, I> {
    sink: &'a Sink<U>,
    list: fn(&mut Queue<U>) -> &mut Waiters<I>,
    id: WaiterId,
}

impl<'a, U: Send + Sync + 'static, I> Waiter<'a, U, I> {
    fn new(sink: &'a Sink<U>, list: fn(&mut Queue<U>) -> &mut Waiters<I>) -> Self {
        Self {
            sink,
            list,
            id: WaiterId::default(),
        }
    }

    fn poll<T>(
        &mut self,
        interest: I,
        cx: &mut Context<'_>,
        ready: impl FnOnce(&Queue<U>) -> Option<T>,
    ) -> Poll<T> {
        let mut queue = self.sink.lock();
        match ready(&queue) {
            Some(value) => Poll::Ready(value),
            None => {
                let waiters = (self.list)(&mut queue);
                let replaced = waiters.register(&mut self.id, interest, cx.waker());
                drop(queue);
                drop(replaced);
                Poll::Pending
            }
        }
    }
}

impl<U: Send + Sync + 'static, I> Drop for Waiter<'_, U, I> {
    fn drop(&mut self) {
        if self.id.is_registered() {
            let waker = (self.list)(&mut self.sink.lock()).remove(&mut self.id);
            drop(waker);
        }
    }
}
