//! Between the queue and a sink: makes groups of the updates that may start, and calls the sink.
//!
//! To the queue this is a consumer whose future is pending until the lease of its update is settled;
//! so an update in the hands of a sink holds its slot and its keys, times out and is abandoned like any
//! other. The sink is driven by a task of its own, which lives while there is something to hand over.

use std::{
    collections::BTreeMap,
    fmt,
    future::poll_fn,
    num::NonZeroUsize,
    pin::{Pin, pin},
    sync::{Arc, OnceLock, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use super::{
    SinkError, UpdateSink,
    lease::{Lease, Slot, Tally},
};
use crate::{
    BoxError, Delivery, Runtime, RuntimeExt, UpdateConsumer,
    current::{self, RunId},
    panics::{discard, guarded},
    policy::Panicked,
    runtime::yield_now,
    sync::{Mutex, MutexGuard},
};

/// A sink in the shape of a consumer.
pub(crate) struct Gather<U, S>(Arc<Hall<U, S>>);

/// What a run does with the groups, whatever their types are.
pub(crate) trait Gathering: Send + Sync {
    /// Once, before the first run.
    fn attach(&self, runtime: Arc<dyn Runtime>);
    /// A run begins.
    fn open(&self);
    /// From now on no group waits to fill up.
    fn hurry(&self);
    /// From now on no group is handed over.
    fn close(&self);
    /// Ready when no call is under way that will be dropped.
    fn poll_calm(&self, cx: &Context<'_>) -> Poll<()>;
}

/// Where updates wait for the sink.
struct Hall<U, S> {
    state: Mutex<State<U, S>>,
    runtime: OnceLock<Arc<dyn Runtime>>,
}

struct State<U, S> {
    /// By arrival; the second number tells apart what a consumer around this one hands in twice.
    offers: BTreeMap<Place, (Delivery<U>, Arc<Slot>)>,
    serial: u64,
    /// The sink, while no task drives it.
    resting: Option<S>,
    /// Whoever waits for this many offers.
    lingering: Option<(usize, Waker)>,
    /// The call under way.
    call: Option<Arc<Tally>>,
    /// Whoever waits for its end.
    waiting: Option<Waker>,
    mode: Mode,
}

type Place = (u64, u64);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Closed,
    Open,
    Hurrying,
}

impl<U: Send + Sync + 'static, S: UpdateSink<U>> Gather<U, S> {
    pub(crate) fn new(sink: S) -> Self {
        Self(Arc::new(Hall {
            state: Mutex::new(State {
                offers: BTreeMap::new(),
                serial: 0,
                resting: Some(sink),
                lingering: None,
                call: None,
                waiting: None,
                mode: Mode::Closed,
            }),
            runtime: OnceLock::new(),
        }))
    }

    pub(crate) fn gathering(&self) -> Arc<dyn Gathering> {
        Arc::clone(&self.0) as Arc<dyn Gathering>
    }
}

impl<U: Send + Sync + 'static, S: UpdateSink<U>> UpdateConsumer<U> for Gather<U, S> {
    type Error = BoxError;

    fn consume(&self, update: Delivery<U>) -> impl Future<Output = Result<(), BoxError>> + Send {
        // In the call, not at the first poll: with one worker, in the order of the claims.
        self.0.offer(update)
    }
}

impl<U: Send + Sync + 'static, S: UpdateSink<U>> Hall<U, S> {
    fn offer(self: &Arc<Self>, update: Delivery<U>) -> Offer<U, S> {
        let slot = Slot::new();
        let mut state = self.lock();
        let place = (update.seq(), state.serial);
        state.serial += 1;
        let offer = Offer {
            hall: Arc::clone(self),
            slot: Arc::clone(&slot),
            place,
            settled: false,
        };
        if state.mode == Mode::Closed {
            // A task that is late: its update has been abandoned.
            return offer;
        }
        state.offers.insert(place, (update, slot));
        let filled = match &state.lingering {
            Some((wanted, _)) if state.offers.len() >= *wanted => state.lingering.take(),
            _ => None,
        };
        let resting = state.resting.take();
        drop(state);
        if let Some((_, waker)) = filled {
            waker.wake();
        }
        if let Some(sink) = resting {
            let driver = Driver {
                hall: Arc::clone(self),
                sink: Some(sink),
            };
            let task = current::inside(RunId::current(), driver.drive());
            self.runtime().spawn(Box::pin(task));
        }
        offer
    }

    fn runtime(&self) -> &Arc<dyn Runtime> {
        self.runtime.get().expect("attached before the first run")
    }

    fn lock(&self) -> MutexGuard<'_, State<U, S>> {
        // No code of the user runs under the lock, so it is never poisoned by theirs.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, mode: Mode) {
        let mut state = self.lock();
        state.mode = mode;
        let lingering = state.lingering.take();
        let offers = match mode {
            Mode::Closed => std::mem::take(&mut state.offers),
            Mode::Open | Mode::Hurrying => BTreeMap::new(),
        };
        drop(state);
        discard(offers);
        if let Some((_, waker)) = lingering {
            waker.wake();
        }
    }
}

impl<U: Send + Sync + 'static, S: UpdateSink<U>> Gathering for Hall<U, S> {
    fn attach(&self, runtime: Arc<dyn Runtime>) {
        let _ = self.runtime.set(runtime);
    }

    fn open(&self) {
        self.set(Mode::Open);
    }

    fn hurry(&self) {
        self.set(Mode::Hurrying);
    }

    fn close(&self) {
        self.set(Mode::Closed);
    }

    fn poll_calm(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if !state.call.as_ref().is_some_and(|call| call.is_in_vain()) {
            return Poll::Ready(());
        }
        let replaced = state.waiting.replace(cx.waker().clone());
        drop(state);
        drop(replaced);
        Poll::Pending
    }
}

/// One update's wait for its settlement; the lease is revoked if it is dropped before.
struct Offer<U: Send + Sync + 'static, S: UpdateSink<U>> {
    hall: Arc<Hall<U, S>>,
    slot: Arc<Slot>,
    place: Place,
    settled: bool,
}

impl<U: Send + Sync + 'static, S: UpdateSink<U>> Future for Offer<U, S> {
    type Output = Result<(), BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = self.slot.poll(cx);
        self.settled |= polled.is_ready();
        polled
    }
}

impl<U: Send + Sync + 'static, S: UpdateSink<U>> Drop for Offer<U, S> {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        self.slot.revoke();
        let offer = self.hall.lock().offers.remove(&self.place);
        discard(offer);
    }
}

/// Calls the sink; however it ends, the sink is given back.
struct Driver<U: Send + Sync + 'static, S: UpdateSink<U>> {
    hall: Arc<Hall<U, S>>,
    sink: Option<S>,
}

/// How one call ended.
enum Ended {
    Ok,
    Failed(BoxError),
    Panicked(Arc<str>),
}

impl<U: Send + Sync + 'static, S: UpdateSink<U>> Driver<U, S> {
    async fn drive(mut self) {
        loop {
            let limits = self.limits();
            let (max, linger) = match &limits {
                Ok(limits) => *limits,
                Err(_) => (usize::MAX, Duration::ZERO),
            };
            let Some(group) = self.gather(max, linger).await else {
                return;
            };
            match limits {
                Ok(_) => self.handle(group).await,
                Err(panic) => self.refuse(group, &panic),
            }
            // Those that were settled free their slots, and what starts in these can join a group.
            yield_now().await;
        }
    }

    fn sink(&mut self) -> &mut S {
        self.sink.as_mut().expect("a driver has the sink")
    }

    fn limits(&mut self) -> Result<(usize, Duration), Arc<str>> {
        let sink = self.sink();
        guarded(|| (NonZeroUsize::get(sink.max_group()), sink.linger()))
    }

    /// Takes the next group. `None` if there is nothing to wait for; then the sink rests.
    async fn gather(
        &mut self,
        max: usize,
        linger: Duration,
    ) -> Option<Vec<(Delivery<U>, Arc<Slot>)>> {
        let hall = Arc::clone(&self.hall);
        let mut sleep = None;
        poll_fn(|cx| {
            let mut state = hall.lock();
            if state.offers.is_empty() {
                // In the critical section of the look, or an offer in between would be stranded.
                state.resting = self.sink.take();
                return Poll::Ready(None);
            }
            let waits = state.offers.len() < max && state.mode == Mode::Open && !linger.is_zero();
            if waits {
                let replaced = state.lingering.replace((max, cx.waker().clone()));
                drop(state);
                drop(replaced);
                let sleep = sleep.get_or_insert_with(|| hall.runtime().sleep(linger));
                if sleep.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                state = hall.lock();
            }
            let stale = state.lingering.take();
            let mut group = Vec::with_capacity(state.offers.len().min(max));
            while group.len() < max
                && let Some((_, offer)) = state.offers.pop_first()
            {
                group.push(offer);
            }
            drop(state);
            drop(stale);
            Poll::Ready(Some(group))
        })
        .await
    }

    async fn handle(&mut self, offers: Vec<(Delivery<U>, Arc<Slot>)>) {
        let tally = Arc::new(Tally::default());
        let mut slots = Vec::with_capacity(offers.len());
        let mut group = Vec::with_capacity(offers.len());
        for (update, slot) in offers {
            if slot.join(&tally) {
                slots.push(Arc::clone(&slot));
                group.push(Lease::new(update, slot));
            } else {
                discard(update);
            }
        }
        let size = group.len();
        if size == 0 {
            return;
        }
        let under_way = UnderWay::new(Arc::clone(&self.hall), &tally);
        let sink = self.sink();
        let mut call = pin!(None);
        let ended = match guarded(|| call.set(Some(sink.handle(group)))) {
            Err(panic) => Ended::Panicked(panic),
            Ok(()) => {
                poll_fn(|cx| {
                    if tally.poll_in_vain(cx).is_ready() {
                        return Poll::Ready(Ended::Ok);
                    }
                    let current = call.as_mut().as_pin_mut().expect("dropped after its end");
                    match guarded(|| current.poll(cx)) {
                        Ok(Poll::Pending) => Poll::Pending,
                        Ok(Poll::Ready(Ok(()))) => Poll::Ready(Ended::Ok),
                        Ok(Poll::Ready(Err(error))) => {
                            Poll::Ready(match guarded(|| error.into()) {
                                Ok(error) => Ended::Failed(error),
                                Err(panic) => Ended::Panicked(panic),
                            })
                        }
                        Err(panic) => Poll::Ready(Ended::Panicked(panic)),
                    }
                })
                .await
            }
        };
        // A panic in its destructor is swallowed.
        let _ = guarded(|| call.set(None));
        drop(under_way);
        ended.tell(&slots, size);
    }

    /// Fails a group that the sink cannot be asked about.
    fn refuse(&self, offers: Vec<(Delivery<U>, Arc<Slot>)>, panic: &Arc<str>) {
        let tally = Arc::new(Tally::default());
        for (update, slot) in offers {
            if slot.join(&tally) {
                discard(Lease::new(update, Arc::clone(&slot)));
                slot.end(|| Panicked(Arc::clone(panic)).into());
            } else {
                discard(update);
            }
        }
    }
}

impl<U: Send + Sync + 'static, S: UpdateSink<U>> Drop for Driver<U, S> {
    fn drop(&mut self) {
        // The task was dropped: its runtime is gone, and so are the updates.
        if let Some(sink) = self.sink.take() {
            self.hall.lock().resting = Some(sink);
        }
    }
}

/// Says that a call is under way, and that it is over, however it ends.
struct UnderWay<U: Send + Sync + 'static, S: UpdateSink<U>>(Arc<Hall<U, S>>);

impl<U: Send + Sync + 'static, S: UpdateSink<U>> UnderWay<U, S> {
    fn new(hall: Arc<Hall<U, S>>, tally: &Arc<Tally>) -> Self {
        hall.lock().call = Some(Arc::clone(tally));
        Self(hall)
    }
}

impl<U: Send + Sync + 'static, S: UpdateSink<U>> Drop for UnderWay<U, S> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        let call = state.call.take();
        let waiting = state.waiting.take();
        drop(state);
        drop(call);
        if let Some(waker) = waiting {
            waker.wake();
        }
    }
}

impl Ended {
    /// Fails the updates of the group whose leases were dropped unsettled.
    fn tell(self, slots: &[Arc<Slot>], size: usize) {
        match self {
            Self::Ok => {
                for slot in slots {
                    slot.end(|| SinkError::Forgotten.into());
                }
            }
            Self::Panicked(panic) => {
                for slot in slots {
                    slot.end(|| Panicked(Arc::clone(&panic)).into());
                }
            }
            Self::Failed(error) => {
                let source: Arc<dyn std::error::Error + Send + Sync> = error.into();
                for slot in slots {
                    let source = Arc::clone(&source);
                    slot.end(|| SinkError::Group { size, source }.into());
                }
                // If nobody awaits it, this was the last one that had it.
                discard(source);
            }
        }
    }
}

impl<U, S> fmt::Debug for Gather<U, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gather").finish_non_exhaustive()
    }
}
