//! Connections at rest, and who may open another one: [`Pool`].
//!
//! The number of calls is not bounded, but that of connects under way is: a server accepts a hundred or so
//! at once, and those beyond are repeated by the system after a second. A call that may not connect yet
//! takes the next connection that becomes free, if that is sooner.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Wake, Waker},
    time::{Duration, Instant},
};

use async_io::Timer;
use futures::{
    FutureExt,
    channel::oneshot::{self, Canceled},
};

use super::exchange::Link;
use crate::client::Lane;

/// The connections of a client.
#[derive(Default)]
pub(super) struct Pool {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The one that was used last is the last: it is the first to be used again, so that those not
    /// needed for a while are closed.
    idle: Vec<Idle>,
    /// Connections that carry a request.
    in_use: usize,
    /// Connects of calls that are under way.
    connecting: usize,
    /// Calls that wait for one or the other.
    waiting: VecDeque<oneshot::Sender<()>>,
    /// Closes those that have rested for too long.
    timer: Option<Timer>,
    next: usize,
}

struct Idle {
    id: usize,
    lane: Lane,
    origin: String,
    link: Link,
    since: Instant,
}

/// What a call that found no connection at rest may do.
pub(super) enum Turn {
    /// Connect.
    Connect(Permit),
    /// Wait for its turn, and look for a connection again.
    Wait(Turnstile),
}

impl Pool {
    /// A connection at rest that may work, and whose time is not over.
    pub(super) fn take(self: &Arc<Self>, lane: Lane, origin: &str) -> Option<InUse> {
        let mut state = self.lock();
        let is_wanted =
            |idle: &Idle| idle.lane == lane && idle.origin == origin && idle.since.elapsed() < IDLE;
        let place = state.idle.iter().rposition(is_wanted)?;
        let link = state.idle.remove(place).link;
        state.in_use += 1;
        drop(state);
        Some(self.in_use(link))
    }

    /// Whether a connection may be opened now. A poll need not wait, and a call that has waited keeps its
    /// place.
    pub(super) fn turn(self: &Arc<Self>, lane: Lane, has_waited: bool) -> Turn {
        let mut state = self.lock();
        let counts = lane == Lane::Call;
        if counts && state.connecting >= MAX_CONNECTING {
            let (sender, turn) = oneshot::channel();
            match has_waited {
                true => state.waiting.push_front(sender),
                false => state.waiting.push_back(sender),
            }
            return Turn::Wait(Turnstile {
                pool: Arc::clone(self),
                turn,
            });
        }
        state.connecting += usize::from(counts);
        Turn::Connect(Permit {
            pool: Arc::clone(self),
            counts,
        })
    }

    /// The right to connect whatever the number of others that do.
    pub(super) fn permit(self: &Arc<Self>) -> Permit {
        Permit {
            pool: Arc::clone(self),
            counts: false,
        }
    }

    /// For a connect that failed because descriptors ran out: closes a connection at rest, or waits for
    /// one that is in use. `None` if there is neither.
    pub(super) fn make_room(self: &Arc<Self>, mut permit: Permit) -> Option<Option<Turnstile>> {
        let mut state = self.lock();
        if !state.idle.is_empty() {
            let oldest = state.idle.remove(0);
            drop(state);
            drop(oldest);
            return Some(None);
        }
        let others = state.in_use + state.connecting - usize::from(permit.counts);
        if others == 0 {
            // Which lets the next one that waits find out the same.
            return None;
        }
        // Nobody else is called: they would fail in the same way, one after the other, again and again.
        // The end of a request calls them.
        state.connecting -= usize::from(permit.counts);
        permit.counts = false;
        let (sender, turn) = oneshot::channel();
        state.waiting.push_front(sender);
        Some(Some(Turnstile {
            pool: Arc::clone(self),
            turn,
        }))
    }

    /// Puts a connection to rest.
    pub(super) fn keep(
        self: &Arc<Self>,
        lane: Lane,
        origin: String,
        mut in_use: InUse,
        cx: &mut Context<'_>,
    ) {
        let Some(mut link) = in_use.link.take() else {
            return;
        };
        let id = {
            let mut state = self.lock();
            state.next += 1;
            state.next
        };
        let is_usable = match lane {
            // The next poll follows soon, and comes from the same task.
            Lane::Poll => link.is_usable(cx),
            // A close by the server wakes this waker, while nobody uses the connection.
            Lane::Call => {
                link.rest();
                link.is_usable(&mut Context::from_waker(&self.waker(Some(id))))
            }
        };
        // Not if the server wants it closed, or sent more than it said.
        if !is_usable {
            return;
        }
        let sets_timer = {
            let mut state = self.lock();
            state.idle.push(Idle {
                id,
                lane,
                origin,
                link,
                since: Instant::now(),
            });
            state.timer.is_none()
        };
        if sets_timer {
            self.set_timer(IDLE);
        }
        // Now `in_use` lets the next call find it.
    }

    /// How many connections of a lane rest.
    pub(super) fn resting(&self, lane: Lane) -> usize {
        let state = self.lock();
        state.idle.iter().filter(|idle| idle.lane == lane).count()
    }

    /// How many calls wait for a connection.
    pub(super) fn waiting(&self) -> usize {
        let state = self.lock();
        let waiting = state.waiting.iter();
        waiting.filter(|call| !call.is_canceled()).count()
    }

    fn in_use(self: &Arc<Self>, link: Link) -> InUse {
        InUse {
            pool: Arc::clone(self),
            link: Some(link),
        }
    }

    fn waker(self: &Arc<Self>, id: Option<usize>) -> Waker {
        Waker::from(Arc::new(Watch {
            pool: Arc::downgrade(self),
            id,
        }))
    }

    fn set_timer(self: &Arc<Self>, delay: Duration) {
        let mut timer = Timer::after(delay);
        let waker = self.waker(None);
        let is_due = Pin::new(&mut timer).poll(&mut Context::from_waker(&waker));
        let old = self.lock().timer.replace(timer);
        drop(old);
        if is_due.is_ready() {
            waker.wake();
        }
    }

    /// Something was received on a connection at rest, most likely its end.
    fn look_at(self: &Arc<Self>, id: usize) {
        let idle = {
            let mut state = self.lock();
            let place = state.idle.iter().position(|idle| idle.id == id);
            place.map(|place| state.idle.remove(place))
        };
        // Not there if it has been taken.
        let Some(mut idle) = idle else { return };
        let waker = self.waker(Some(id));
        if idle.link.is_usable(&mut Context::from_waker(&waker)) {
            let mut state = self.lock();
            let place = state
                .idle
                .partition_point(|other| other.since <= idle.since);
            state.idle.insert(place, idle);
        }
    }

    /// Closes what has rested for too long.
    fn close_old(self: &Arc<Self>) {
        let now = Instant::now();
        let (old, timer, next) = {
            let mut state = self.lock();
            let rested = |idle: &Idle| now.saturating_duration_since(idle.since);
            let count = state.idle.partition_point(|idle| rested(idle) >= IDLE);
            let old: Vec<Idle> = state.idle.drain(..count).collect();
            let next = state.idle.first().map(|idle| IDLE - rested(idle));
            (old, state.timer.take(), next)
        };
        drop((old, timer));
        if let Some(next) = next {
            self.set_timer(next);
        }
    }

    /// Lets the call that has waited longest go on.
    fn call_next(&self) {
        loop {
            let Some(next) = self.lock().waiting.pop_front() else {
                return;
            };
            // It has a waker, which may do anything. Whoever has gone is passed over.
            if next.send(()).is_ok() {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // What it guards is whole at any time.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that carries a request. Dropping it closes the connection, unless it was kept.
pub(super) struct InUse {
    pool: Arc<Pool>,
    link: Option<Link>,
}

impl InUse {
    pub(super) fn link(&mut self) -> &mut Link {
        self.link.as_mut().expect("only `keep` takes it")
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        // First, so that its descriptor is free.
        drop(self.link.take());
        self.pool.lock().in_use -= 1;
        self.pool.call_next();
    }
}

/// The right to connect.
pub(super) struct Permit {
    pool: Arc<Pool>,
    counts: bool,
}

impl Permit {
    /// The connection was made.
    pub(super) fn connected(self, link: Link) -> InUse {
        self.pool.lock().in_use += 1;
        self.pool.in_use(link)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.counts {
            self.pool.lock().connecting -= 1;
            self.pool.call_next();
        }
    }
}

/// Waits for its turn.
pub(super) struct Turnstile {
    pool: Arc<Pool>,
    turn: oneshot::Receiver<()>,
}

impl Turnstile {
    pub(super) async fn wait(mut self) {
        // The sender is in the pool, which this holds.
        let _: Result<(), Canceled> = (&mut self.turn).await;
    }
}

impl Drop for Turnstile {
    fn drop(&mut self) {
        // A turn that came too late for this one is for the next. After one that was taken there is none.
        self.turn.close();
        if let Some(Ok(())) = (&mut self.turn).now_or_never() {
            self.pool.call_next();
        }
    }
}

/// Wakes the pool: by the number of a connection, or by its timer.
struct Watch {
    pool: Weak<Pool>,
    id: Option<usize>,
}

impl Wake for Watch {
    fn wake(self: Arc<Self>) {
        let Some(pool) = self.pool.upgrade() else {
            return;
        };
        match self.id {
            Some(id) => pool.look_at(id),
            None => pool.close_old(),
        }
    }
}

/// How long a connection may rest before it is closed: shorter than servers keep theirs, because a call
/// that meets such a close fails.
const IDLE: Duration = Duration::from_secs(15);

/// How many connects of calls are under way at a time. A fourth of what a small server queues.
const MAX_CONNECTING: usize = 32;
