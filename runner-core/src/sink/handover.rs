//! Between the queue and a sink: the updates that are offered to it.
//!
//! To the queue a sink is a consumer whose future is pending until the lease of its update is complete.
//! So an update holds its slot and its keys while the sink has it, and it times out and is abandoned
//! like any other.

use std::{
    collections::BTreeMap,
    fmt,
    pin::Pin,
    sync::{Arc, PoisonError},
    task::{Context, Poll, Waker},
};

use super::{
    UpdateSink,
    driver::Driver,
    lease::{Call, Completion},
};
use crate::{
    BoxError, Delivery, Runtime, UpdateConsumer,
    current::{self, RunId},
    panics::discard,
    queue::{Outlook, Upstream},
    sync::{Mutex, MutexGuard, atomic::AtomicUsize},
};

/// Makes a consumer of a sink.
pub(crate) struct SinkConsumer<U, S>(Arc<Handover<U, S>>);

/// The sink as a run sees it, whatever its type.
pub(crate) trait Gathering: Send + Sync {
    /// A run begins.
    fn open(&self, upstream: Arc<dyn Upstream>);
    /// From now on no group waits to fill up.
    fn flush(&self);
    /// From now on the sink is not called.
    fn close(&self);
    /// Ready unless a call is under way that is about to be dropped.
    fn poll_idle(&self, cx: &Context<'_>) -> Poll<()>;
}

/// What the tasks of the updates, the driver and the run share.
pub(super) struct Handover<U, S>(Mutex<State<U, S>>);

/// Its lock may be held when that of the queue is taken, never the other way round.
pub(super) struct State<U, S> {
    /// In order of arrival; the second number keeps those of an earlier run apart.
    offers: BTreeMap<(u64, u64), Offered<U>>,
    serial: u64,
    /// The sink, while it has no driver.
    pub(super) sink: Option<S>,
    /// The driver, while it waits for this many offers.
    waiting: Option<(usize, Waker)>,
    /// The call under way.
    call: Option<Arc<Call>>,
    /// The run, while it waits for the end of the call.
    ending: Option<Waker>,
    run: Option<Run>,
}

struct Run {
    upstream: Arc<dyn Upstream>,
    /// How many updates were offered and are not complete.
    open: Arc<AtomicUsize>,
    flushing: bool,
}

pub(super) type Offered<U> = (Delivery<U>, Arc<Completion>);

impl<U: Send + Sync + 'static, S: UpdateSink<U>> SinkConsumer<U, S> {
    pub(crate) fn new(sink: S) -> Self {
        Self(Arc::new(Handover(Mutex::new(State {
            offers: BTreeMap::new(),
            serial: 0,
            sink: Some(sink),
            waiting: None,
            call: None,
            ending: None,
            run: None,
        }))))
    }

    pub(crate) fn gathering(&self) -> Arc<dyn Gathering> {
        Arc::clone(&self.0) as Arc<dyn Gathering>
    }
}

impl<U: Send + Sync + 'static, S: UpdateSink<U>> UpdateConsumer<U> for SinkConsumer<U, S> {
    type Error = BoxError;

    fn consume(&self, update: Delivery<U>) -> impl Future<Output = Result<(), BoxError>> + Send {
        // In the call, not at the first poll: with one worker, in the order of the starts.
        self.0.offer(update)
    }
}

impl<U, S> Handover<U, S> {
    pub(super) fn lock(&self) -> MutexGuard<'_, State<U, S>> {
        // No code of the user runs under the lock, so it is never poisoned by theirs.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call begins, or, with `None`, has ended.
    pub(super) fn set_call(&self, call: Option<Arc<Call>>) {
        let mut state = self.lock();
        let ended = std::mem::replace(&mut state.call, call);
        let ending = state.ending.take();
        drop(state);
        drop(ended);
        if let Some(waker) = ending {
            waker.wake();
        }
    }

    /// Changes the state of the run, and wakes the driver if it waits.
    fn set(&self, change: impl FnOnce(&mut State<U, S>)) {
        let mut state = self.lock();
        change(&mut state);
        let waiting = state.waiting.take();
        drop(state);
        if let Some((_, driver)) = waiting {
            driver.wake();
        }
    }
}

impl<U: Send + Sync + 'static, S: UpdateSink<U>> Handover<U, S> {
    fn offer(self: &Arc<Self>, update: Delivery<U>) -> Offer<U, S> {
        let mut state = self.lock();
        let place = (update.id(), state.serial);
        state.serial += 1;
        let run = state.run.as_ref();
        let upstream = run.map(|run| Arc::clone(&run.upstream));
        let open = run.map(|run| Arc::clone(&run.open)).unwrap_or_default();
        let offer = Offer {
            handover: Arc::clone(self),
            completion: Completion::new(open),
            place,
        };
        let Some(upstream) = upstream else {
            // A task that is late: its update has been abandoned.
            return offer;
        };
        let offered = (update, Arc::clone(&offer.completion));
        state.offers.insert(place, offered);
        let full = match &state.waiting {
            Some((wanted, _)) if state.offers.len() >= *wanted => state.waiting.take(),
            _ => None,
        };
        let sink = state.sink.take();
        drop(state);
        if let Some((_, driver)) = full {
            driver.wake();
        }
        if let Some(sink) = sink {
            let driver = Driver::new(Arc::clone(self), sink);
            let task = current::inside(RunId::current(), driver.drive());
            upstream.runtime().spawn(Box::pin(task));
        }
        offer
    }
}

impl<U, S> State<U, S> {
    /// Whether to wait for more offers before a group is taken. If so, the driver is woken when it has
    /// to ask again. The second value has to be dropped outside of the lock.
    pub(super) fn outlook(
        &mut self,
        max: usize,
        lingers: bool,
        driver: &Waker,
    ) -> (Outlook, impl Sized + use<U, S>) {
        let gathered = self.offers.len();
        let (outlook, watcher) = match &self.run {
            Some(run) if (1..max).contains(&gathered) => {
                let lingers = lingers && !run.flushing;
                run.upstream.outlook(gathered, lingers, driver, &run.open)
            }
            Some(run) => (Outlook::Never, run.upstream.forget()),
            None => (Outlook::Never, None),
        };
        let waiting = (outlook != Outlook::Never).then(|| (max, driver.clone()));
        let replaced = std::mem::replace(&mut self.waiting, waiting);
        (outlook, (watcher, replaced))
    }

    pub(super) fn take_group(&mut self, max: usize) -> Vec<Offered<U>> {
        let offers = std::iter::from_fn(|| self.offers.pop_first());
        offers.take(max).map(|(_, offered)| offered).collect()
    }

    pub(super) fn runtime(&self) -> Option<Arc<dyn Runtime>> {
        let run = self.run.as_ref()?;
        Some(Arc::clone(run.upstream.runtime()))
    }
}

impl<U: Send + Sync + 'static, S: UpdateSink<U>> Gathering for Handover<U, S> {
    fn open(&self, upstream: Arc<dyn Upstream>) {
        self.set(|state| {
            state.run = Some(Run {
                upstream,
                open: Arc::default(),
                flushing: false,
            });
        });
    }

    fn flush(&self) {
        self.set(|state| {
            if let Some(run) = &mut state.run {
                run.flushing = true;
            }
        });
    }

    fn close(&self) {
        let mut ended = None;
        self.set(|state| ended = Some((state.run.take(), std::mem::take(&mut state.offers))));
        discard(ended);
    }

    fn poll_idle(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if !state.call.as_ref().is_some_and(|call| call.is_needless()) {
            return Poll::Ready(());
        }
        let replaced = state.ending.replace(cx.waker().clone());
        drop(state);
        drop(replaced);
        Poll::Pending
    }
}

/// One update's wait for its completion; the lease is revoked if it is dropped before.
struct Offer<U: Send + Sync + 'static, S: UpdateSink<U>> {
    handover: Arc<Handover<U, S>>,
    completion: Arc<Completion>,
    place: (u64, u64),
}

impl<U: Send + Sync + 'static, S: UpdateSink<U>> Future for Offer<U, S> {
    type Output = Result<(), BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.completion.poll(cx)
    }
}

impl<U: Send + Sync + 'static, S: UpdateSink<U>> Drop for Offer<U, S> {
    fn drop(&mut self) {
        if self.completion.revoke() {
            let offered = self.handover.lock().offers.remove(&self.place);
            discard(offered);
        }
    }
}

impl<U, S> fmt::Debug for SinkConsumer<U, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SinkConsumer").finish_non_exhaustive()
    }
}
