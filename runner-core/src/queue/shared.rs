//! The lock around the state, and what happens outside it.
//!
//! No lock is held across an await, a call of user code, a spawn, a waker call or a log line.

use std::{
    fmt,
    future::poll_fn,
    num::NonZeroUsize,
    sync::{Arc, PoisonError, Weak},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use super::{
    QueueParts,
    effects::{Effects, Wakers},
    intake::Arrival,
    key_order::KeyHasher,
    label::Label,
    outcome::{Attempted, Fault, LateHandler, Unfinished},
    state::{Interest, Phase, State},
    waiters::{WaiterId, Waiters},
    worker::{self, Worker},
};
use crate::{
    BoxFuture, Cause, Runtime, UpdateConsumer,
    consume::{BatchSlice, DeliveryControl, Item},
    panics::{discard, guarded},
    queue::Ticket,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    timer::ResettableTimer,
    trace::{self, log_update, warn},
};

/// What the workers, the clock and all handles of one queue share.
pub(crate) struct QueueShared<U: Send + Sync + 'static> {
    state: Mutex<State<U>>,
    stopping: AtomicBool,
    pub(super) runtime: Arc<dyn Runtime>,
    pub(super) parts: QueueParts<U>,
    /// Whether handlers have a timeout.
    pub(super) limited: bool,
    hasher: KeyHasher,
    /// Makes the future of one worker task. Knows the type of the consumer, so that nothing else has to.
    work: Box<dyn Fn(Worker<U>) -> BoxFuture<'static> + Send + Sync>,
    /// For deliveries, which must not keep the queue alive.
    control: Weak<dyn DeliveryControl>,
}

impl<U: Send + Sync + 'static> QueueShared<U> {
    pub(super) fn new<C: UpdateConsumer<U>>(
        runtime: Arc<dyn Runtime>,
        consumer: Arc<C>,
        parts: QueueParts<U>,
    ) -> Arc<Self> {
        let hasher = KeyHasher::new(runtime.entropy());
        Arc::new_cyclic(|control: &Weak<Self>| Self {
            state: Mutex::new(State::new(parts.limits)),
            stopping: AtomicBool::new(false),
            runtime,
            limited: parts.limits.timeout.is_some(),
            parts,
            hasher,
            work: Box::new(move |worker| Box::pin(worker::run(worker, Arc::clone(&consumer)))),
            control: control.clone(),
        })
    }

    /// Adds a batch that arrived at a point in time. Never waits and never refuses; see
    /// [`room`](Self::room).
    ///
    /// Returns how many to fetch next, unless there is a reason to wait, or to end. `scarce`: there were
    /// fewer than were asked for.
    pub(crate) fn add(
        self: &Arc<Self>,
        batch: Vec<U>,
        arrived: Instant,
        scarce: bool,
    ) -> Option<NonZeroUsize> {
        let about = self.ask_about(&batch);
        self.insert(batch, &about, arrived, scarce, false)
    }

    /// Adds a batch, or gives it back if nothing may be added any more.
    pub(super) fn try_add(self: &Arc<Self>, batch: Vec<U>, arrived: Instant) -> Result<(), Vec<U>> {
        let about = self.ask_about(&batch);
        let mut state = self.lock();
        if state.phase != Phase::Open {
            drop(state);
            return Err(batch);
        }
        // From here on, a drain waits for this batch.
        state.arriving += 1;
        drop(state);
        self.insert(batch, &about, arrived, false, true);
        Ok(())
    }

    /// `counted`: the batch is counted as arriving already.
    fn insert(
        self: &Arc<Self>,
        batch: Vec<U>,
        (keyed, sizes): &(Option<BatchKeys>, BatchSizes),
        arrived: Instant,
        scarce: bool,
        counted: bool,
    ) -> Option<NonZeroUsize> {
        // Takes memory, so it happens before the lock is taken.
        let slices = BatchSlice::split(batch, |index| sizes.of(index), &self.control);
        let mut effects = Effects::default();
        let mut first = 0;
        let mut state = self.lock();
        state.arriving += usize::from(!counted);
        for slice in slices {
            let count = usize::from(slice.len());
            match (keyed, &sizes.each) {
                (None, None) => state.arrive_free(slice, sizes.one, arrived),
                _ => {
                    for index in 0..count {
                        let arrival = Arrival {
                            keys: keyed
                                .as_ref()
                                .map_or(Ok(&[]), |keyed| keyed.of(first + index)),
                            bytes: sizes.of(first + index),
                        };
                        let item = Item::new(Arc::clone(&slice), index as u8);
                        state.arrive(item, arrival, arrived);
                    }
                    // A whole batch takes so long that a waiting thread is put to sleep.
                    drop(state);
                    state = self.lock();
                }
            }
            first += count;
        }
        state.arriving -= 1;
        state.notify(&mut effects);
        state.wake_waiters(&mut effects.wakers);
        let room = state.room(scarce);
        drop(state);
        self.apply(effects);
        room
    }

    /// Asks the user's functions about a batch.
    fn ask_about(&self, batch: &[U]) -> (Option<BatchKeys>, BatchSizes) {
        (self.keys_of(batch), self.sizes_of(batch))
    }

    /// How many updates to add, once there is enough room. `None` if nothing may be added any more.
    ///
    /// With `choke`, also `None` if too much is held for there to be room soon.
    pub(crate) async fn room(&self, choke: bool) -> Option<NonZeroUsize> {
        let interest = match choke {
            true => Interest::RoomOrChoke,
            false => Interest::Room,
        };
        self.wait(interest, |state| match state.room(false) {
            None if !state.is_open() => Some(None),
            None if choke && state.intake.is_choked() => Some(None),
            room => room.map(Some),
        })
        .await
    }

    /// How many updates are held.
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Resolves when nothing is held.
    pub(crate) async fn idle(&self) {
        self.wait(Interest::Idle, |state| state.is_idle().then_some(()))
            .await;
    }

    /// Resolves when nothing may be added any more.
    pub(super) async fn closed(&self) {
        self.wait(Interest::Closed, |state| {
            (state.phase != Phase::Open).then_some(())
        })
        .await;
    }

    /// Resolves when the queue was stopped and nothing is held or being added.
    pub(super) async fn ended(&self) {
        self.wait(Interest::End, |state| {
            (state.phase != Phase::Open && state.is_idle()).then_some(())
        })
        .await;
    }

    /// Resolves when the queue has halted by itself.
    pub(crate) async fn fault(&self) -> Fault {
        let mut waiter = Waiter::new(self, |state| &mut state.fault_waiters);
        poll_fn(|cx| waiter.poll((), cx, |state| state.completion.fault.clone())).await
    }

    /// Why the queue has halted by itself, if it has.
    pub(crate) fn halted(&self) -> Option<Fault> {
        self.lock().completion.fault.clone()
    }

    /// Keeps the time: timeouts and retries happen while this is polled. Never ends.
    pub(crate) async fn keep_time(self: &Arc<Self>) {
        let mut timer = ResettableTimer::default();
        poll_fn(|cx| -> Poll<()> {
            loop {
                let mut state = self.lock();
                let forgotten = state.handles_dropped && state.phase == Phase::Open;
                let next = state.timers.first();
                let replaced = state.timers.watch(next, cx.waker());
                drop(state);
                drop(replaced);
                if forgotten {
                    self.stop();
                }
                let Some(next) = next else {
                    return Poll::Pending;
                };
                if timer.poll(next, &self.runtime, cx).is_pending() {
                    return Poll::Pending;
                }
                while self.expire() {}
            }
        })
        .await;
    }

    /// One step of what is due. Whether there is more.
    fn expire(self: &Arc<Self>) -> bool {
        let now = self.runtime.now();
        let mut effects = Effects::default();
        let more = self.lock().expire(now, &mut effects);
        self.apply(effects);
        more
    }

    /// Stops intake; what is held still starts.
    pub(crate) fn stop(self: &Arc<Self>) {
        self.stopping.store(true, Ordering::Relaxed);
        self.change(State::stop);
    }

    /// Abandons what has not started and cancels what runs.
    pub(crate) fn abandon(self: &Arc<Self>) {
        self.stopping.store(true, Ordering::Relaxed);
        self.change(State::abandon);
    }

    /// Lists what has not ended although it was cancelled.
    pub(crate) fn give_up(&self) {
        self.lock().give_up();
    }

    pub(crate) fn set_concurrency(self: &Arc<Self>, concurrency: NonZeroUsize) {
        self.change(|state, effects| state.set_concurrency(concurrency, effects));
    }

    /// Says which of the next updates were handed to a handler by an earlier run.
    pub(crate) fn replay(&self, handled: impl IntoIterator<Item = bool>) {
        self.lock().intake.replayed.extend(handled);
    }

    /// How many updates, from the first one, have left without a gap.
    pub(crate) fn completed_prefix(&self) -> u64 {
        self.lock().completed_prefix()
    }

    /// Which updates were handed to a handler. Call it before [`take_abandoned`](Self::take_abandoned).
    pub(crate) fn attempted(&self) -> Attempted {
        let state = self.lock();
        let abandoned = state.completion.abandoned.iter();
        Attempted {
            supplied: state.completion.counters.supplied,
            unseen: abandoned
                .filter(|abandoned| !abandoned.started)
                .map(|abandoned| abandoned.id)
                .collect(),
            announced: state.intake.replayed.iter().copied().collect(),
        }
    }

    /// Everything that was abandoned so far, oldest first.
    pub(crate) fn take_abandoned(&self) -> Vec<Unfinished<U>> {
        let mut abandoned = std::mem::take(&mut self.lock().completion.abandoned);
        abandoned.sort_unstable_by_key(|abandoned| abandoned.id);
        abandoned
    }

    /// Notes that no handle is left. The clock does the rest of a stop; without one, nothing is retried.
    pub(super) fn last_handle_dropped(&self) {
        let mut wakers = Wakers::default();
        let mut state = self.lock();
        state.handles_dropped = true;
        state.workers.dismiss(&mut wakers);
        state.wake_waiters(&mut wakers);
        state.timers.wake_clock(&mut wakers);
        drop(state);
        wakers.wake();
    }

    fn change(self: &Arc<Self>, event: impl FnOnce(&mut State<U>, &mut Effects<U>)) {
        let mut effects = Effects::default();
        event(&mut self.lock(), &mut effects);
        self.apply(effects);
    }

    /// Carries out what an event asks for.
    pub(super) fn apply(self: &Arc<Self>, mut effects: Effects<U>) {
        effects.wakers.wake();
        for _ in 0..effects.spawn {
            // The worker is made before its task, so that a task which is dropped unstarted still gives its
            // permit back.
            let worker = Worker::new(Arc::clone(self));
            self.runtime.spawn((self.work)(worker));
        }
        for late in effects.late {
            self.tell_late(late);
        }
        // Last, because a destructor may take its time.
        if let Some(update) = effects.update {
            discard(update);
        }
        if let Some(fault) = effects.fault {
            discard(fault);
        }
    }

    fn tell_late(&self, late: LateHandler<U>) {
        let label = Label::of(&self.parts, &late.update, late.update.ticket());
        let attempt = late.update.attempt();
        log_update!(
            warn,
            label,
            attempt,
            age = ?late.age,
            detached = late.detached,
            "handler timed out and goes on"
        );
        match &self.parts.on_late {
            Some(on_late) => {
                if let Err(panic) = guarded(|| on_late(late)) {
                    log_update!(
                        warn,
                        label,
                        attempt,
                        panic = %panic,
                        "the callback for late handlers panicked"
                    );
                    let _ = panic;
                }
            }
            None => discard(late),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State<U>> {
        // No code of the user runs under the lock, so it is never poisoned by theirs.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn wait<T>(&self, interest: Interest, ready: impl Fn(&State<U>) -> Option<T>) -> T {
        let mut waiter = Waiter::new(self, |state| &mut state.waiters);
        poll_fn(|cx| waiter.poll(interest, cx, &ready)).await
    }

    /// Calls the key function for a batch.
    fn keys_of(&self, batch: &[U]) -> Option<BatchKeys> {
        let keys = self.parts.keys.as_ref()?;
        let mut keyed = BatchKeys::default();
        keyed.ends.reserve(batch.len());
        // One guard for all, until one panics.
        while keyed.ends.len() < batch.len() {
            let BatchKeys { hashes, ends, .. } = &mut keyed;
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
        Some(keyed)
    }

    /// Calls the size function for a batch. An update whose size cannot be told counts as its type.
    fn sizes_of(&self, batch: &[U]) -> BatchSizes {
        let one = clamp(size_of::<U>());
        let each = self.parts.size.as_ref().map(|size| {
            let sizes = batch.iter();
            sizes
                .map(|update| guarded(|| size(update)).map_or(one, clamp))
                .collect()
        });
        BatchSizes { one, each }
    }
}

fn clamp(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}

impl<U: Send + Sync + 'static> DeliveryControl for QueueShared<U> {
    fn deadline(&self, ticket: Ticket) -> Option<Instant> {
        self.lock().deadline(ticket)
    }

    fn extend(&self, ticket: Ticket, by: Duration) -> bool {
        let now = self.runtime.now();
        let mut wakers = Wakers::default();
        let answer = self.lock().extend(ticket, by, now, &mut wakers);
        wakers.wake();
        answer
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    fn label(&self, ticket: Ticket) -> Label {
        if !trace::has_subscriber() {
            return Label::default();
        }
        let item = self.lock().item(ticket);
        let label = item
            .as_ref()
            .map(|item| Label::of(&self.parts, item.get(), ticket));
        discard(item);
        label.unwrap_or_default()
    }
}

impl<U: Send + Sync + 'static> fmt::Debug for QueueShared<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("DecayingQueue")
            .field("phase", &state.phase)
            .field("in_flight", &state.workers.running)
            .field("held", &state.len())
            .finish_non_exhaustive()
    }
}

/// The keys of a batch, hashed.
#[derive(Default)]
struct BatchKeys {
    hashes: Vec<u64>,
    /// Where the keys of each update end.
    ends: Vec<usize>,
    /// Updates whose key function panicked, with the text. In order, and seldom any.
    refused: Vec<(usize, Arc<str>)>,
}

impl BatchKeys {
    fn of(&self, index: usize) -> Result<&[u64], Cause> {
        let end = self.ends[index];
        let refused = self
            .refused
            .binary_search_by_key(&index, |(index, _)| *index);
        if let Ok(refused) = refused {
            return Err(Cause::Panic(Arc::clone(&self.refused[refused].1)));
        }
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        Ok(&self.hashes[start..end])
    }
}

/// The sizes of the updates of a batch, in bytes.
struct BatchSizes {
    /// If all have the same.
    one: u32,
    each: Option<Vec<u32>>,
}

impl BatchSizes {
    fn of(&self, index: usize) -> u32 {
        self.each.as_ref().map_or(self.one, |each| each[index])
    }
}

/// One task's place among the waiters; it is given up when the wait is dropped.
struct Waiter<'a, U: Send + Sync + 'static, I> {
    shared: &'a QueueShared<U>,
    list: fn(&mut State<U>) -> &mut Waiters<I>,
    id: WaiterId,
}

impl<'a, U: Send + Sync + 'static, I> Waiter<'a, U, I> {
    fn new(shared: &'a QueueShared<U>, list: fn(&mut State<U>) -> &mut Waiters<I>) -> Self {
        Self {
            shared,
            list,
            id: WaiterId::default(),
        }
    }

    fn poll<T>(
        &mut self,
        interest: I,
        cx: &mut Context<'_>,
        ready: impl FnOnce(&State<U>) -> Option<T>,
    ) -> Poll<T> {
        let mut state = self.shared.lock();
        match ready(&state) {
            Some(value) => Poll::Ready(value),
            None => {
                let waiters = (self.list)(&mut state);
                let replaced = waiters.register(&mut self.id, interest, cx.waker());
                drop(state);
                drop(replaced);
                Poll::Pending
            }
        }
    }
}

impl<U: Send + Sync + 'static, I> Drop for Waiter<'_, U, I> {
    fn drop(&mut self) {
        if self.id.is_registered() {
            let waker = (self.list)(&mut self.shared.lock()).remove(&mut self.id);
            drop(waker);
        }
    }
}
