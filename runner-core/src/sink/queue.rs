//! The decaying queue: all updates that the sink holds, from arrival to settlement.
//!
//! A plain data structure. It knows neither executor nor lock nor consumer; what depends on time
//! takes `now`. What a change requires of the outside (tasks to start, wakers to wake, values to
//! drop) is returned as [`Effects`], to be carried out after the lock is released.
//!
//! ```text
//!            ┌─ waiting (for a key) ─┐
//!  arrive ───┤                       ├─► ready ──claim──► running ──settle──► gone
//!            └───────────────────────┘     ▲                │ │
//!                                          └─── retrying ◄──┘ └─► detached ──► gone
//! ```
//!
//! What it holds and the steps of a running update are here; the rest is in files by topic: `intake.rs`,
//! `duty.rs` (who starts updates), `decay.rs` (deadlines), `settle.rs` and `end.rs`.
//!
//! Every operation on one update is O(1), but for its keys and for deadlines that were moved by
//! hand (O(log n) of those).

use std::{
    collections::BTreeSet,
    num::NonZeroUsize,
    task::Waker,
    thread,
    time::{Duration, Instant},
};

use super::{
    arena::Arena,
    cohorts::Cohorts,
    effects::{Effects, Wakers},
    latency::Latencies,
    node::{Cancel, Node},
    options::{MAX_BATCH, Mode, OnTimeout, SinkOptions},
    order::KeyOrder,
    outcome::{Counters, Fault, Unsettled},
    parked::Parked,
    ready::Ready,
    step::Step,
    upstream::Watcher,
    waiters::Waiters,
};
use crate::{Cause, Delivery, ticket::Ticket};

/// All updates that the sink holds.
///
/// What changes with every update comes first and close together: workers on other cores have to get
/// these lines of memory with the lock, and wait for each.
#[repr(C, align(128))]
pub(crate) struct Queue<U> {
    /// Attempts that were started.
    pub(super) claims: u64,
    /// Updates whose handler returned without an error; the counter of that name is not used.
    pub(super) finished: u64,
    /// Updates in flight: started, not finished, holding a slot.
    pub(super) running: usize,
    pub(super) ready: Ready<U>,
    /// Tasks that have the duty to start updates.
    pub(super) hungry: usize,
    /// How many of these have not looked for an update yet.
    pub(super) idle: usize,
    /// Updates that wait for a key or for a retry.
    pub(super) waiting: usize,
    /// The deadlines of running updates, but for those that are `exact`; see `decay.rs`.
    pub(super) cohorts: Cohorts,
    pub(super) nodes: Arena<Node<U>>,
    /// For room, or for the end.
    pub(super) waiters: Waiters<Interest>,
    pub(super) limits: Limits,
    pub(super) phase: Phase,
    /// Whether so many wait that intake stands still, until there is room for more than a few.
    pub(super) choked: bool,
    /// How far intake runs ahead.
    pub(super) step: Step,
    /// But for `finished`.
    pub(super) counters: Counters,
    pub(super) order: KeyOrder,
    /// Deadlines that were moved by hand, and those that are near.
    pub(super) exact: BTreeSet<(Instant, Ticket)>,
    /// When updates that failed are tried again.
    pub(super) retries: BTreeSet<(Instant, Ticket)>,
    pub(super) detached: usize,
    /// Tasks that have nothing to do.
    pub(super) parked: Parked,
    pub(super) latencies: Latencies,
    /// When a retry last became due while nothing was in flight.
    pub(super) revived: Option<Instant>,
    pub(super) abandoned: Vec<Unsettled<U>>,
    pub(super) fault: Option<Fault>,
    /// For what seldom happens; nobody looks at these with every update.
    pub(super) alarms: Waiters<Alarm>,
    /// The driver of a custom sink, while it waits for more updates; see `upstream.rs`.
    pub(super) watcher: Option<Watcher>,
    /// Updates whose error policy is being asked.
    pub(super) deciding: usize,
    /// A batch is being taken in, slice by slice.
    pub(super) arriving: bool,
}

/// The bounds in force.
#[derive(Debug)]
pub(super) struct Limits {
    pub(super) mode: Mode,
    pub(super) concurrency: usize,
    pub(super) timeout: Option<Duration>,
    pub(super) max_detached: Option<usize>,
    pub(super) max_waiting: usize,
    pub(super) max_waiting_per_key: Option<usize>,
    pub(super) prefetch: usize,
    /// How much room makes a fetch worth its while, if something is there to do meanwhile.
    pub(super) worthwhile: usize,
    /// How many tasks may have the duty to start updates.
    pub(super) workers: usize,
    /// Whether only those may start any.
    pub(super) strict: bool,
}

/// What the queue still accepts and starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Open,
    /// What is held still starts; retries do not wait any longer.
    Stopping,
    /// Nothing starts any more; what runs may end.
    Halted,
    /// What runs is told to end.
    Closed,
}

/// What a waiting task wants to be woken for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Interest {
    /// Room for a fetch.
    Room,
    /// The same, or that there will be none for a while.
    RoomOrChoke,
    /// Nothing is held.
    Idle,
}

/// What a waiting task wants to be woken for, if ever.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Alarm {
    /// A deadline before this one.
    Deadline(Option<Instant>),
    /// The queue halted by itself.
    Fault,
}

/// An update to be handled now.
pub(crate) struct Job<U> {
    pub(crate) delivery: Delivery<U>,
    pub(crate) preset: Option<Box<Cause>>,
    /// When its clock was started, and its waker kept: if it waits, nothing is left to do for that.
    pub(crate) ahead: Option<Instant>,
}

impl<U> Queue<U> {
    pub(crate) fn new(options: &SinkOptions) -> Self {
        let concurrency = options.concurrency.get();
        let max_detached = match (options.mode, options.on_timeout) {
            (Mode::Concurrent, OnTimeout::Detach { max }) => {
                Some(max.map_or(concurrency, NonZeroUsize::get))
            }
            _ => None,
        };
        Self {
            nodes: Arena::new(),
            order: KeyOrder::new(options.max_waiting_per_key.is_some()),
            ready: Ready::new(),
            cohorts: Cohorts::new(options.timeout),
            exact: BTreeSet::new(),
            retries: BTreeSet::new(),
            limits: Limits {
                mode: options.mode,
                concurrency,
                timeout: options.timeout,
                max_detached,
                max_waiting: options.max_waiting.get(),
                max_waiting_per_key: options.max_waiting_per_key.map(NonZeroUsize::get),
                prefetch: options.prefetch,
                worthwhile: options.prefetch.min(MAX_BATCH) / 2,
                workers: options
                    .workers
                    .or_else(|| thread::available_parallelism().ok())
                    .map_or(1, NonZeroUsize::get),
                strict: options.workers.is_some(),
            },
            phase: Phase::Open,
            running: 0,
            waiting: 0,
            choked: false,
            step: Step::new(),
            detached: 0,
            hungry: 0,
            idle: 0,
            parked: Parked::new(),
            counters: Counters::default(),
            claims: 0,
            finished: 0,
            latencies: Latencies::new(),
            revived: None,
            abandoned: Vec::new(),
            fault: None,
            waiters: Waiters::new(),
            alarms: Waiters::new(),
            watcher: None,
            deciding: 0,
            arriving: false,
        }
    }

    /// The handler waits for something: start its clock, and pass the duty on if it has it.
    #[inline]
    pub(crate) fn pend(
        &mut self,
        ticket: Ticket,
        waker: &Waker,
        timeout: Timeout,
        now: Option<Instant>,
        hungry: &mut bool,
        effects: &mut Effects<U>,
    ) -> Option<Cancel> {
        let limit = match timeout {
            Timeout::Shared => self.limits.timeout,
            Timeout::Own => Some(POLICY_TIMEOUT),
        };
        let Some(node) = self.node(ticket) else {
            return Some(Cancel::Abandon);
        };
        if node.cancel == Some(Cancel::Abandon) {
            return node.cancel;
        }
        // Its clock may have been started ahead and have run out; its time begins only now.
        node.cancel = None;
        // It may have one from the update before it, and of the same task.
        effects.stale = node.keep_waker(waker);
        if let Some(limit) = limit {
            let now = now.expect("read for every one that is limited");
            self.start_clock(ticket.index, limit, timeout, now, &mut effects.wakers);
        }
        self.nodes[ticket.index as usize].pended = true;
        if std::mem::take(hungry) {
            self.hungry -= 1;
            effects.recruits = self.recruit(&mut effects.wakers);
        }
        self.wake_watcher(&mut effects.wakers);
        None
    }

    /// Whether a handler that is polled again must be dropped instead; renews its waker.
    ///
    /// The flag and the waker in one critical section, or the wake-up of a time-out would be lost.
    /// The replaced waker is returned to be dropped outside of the lock.
    pub(crate) fn check(
        &mut self,
        ticket: Ticket,
        waker: &Waker,
    ) -> (Option<Cancel>, Option<Waker>) {
        let Some(node) = self.node(ticket) else {
            return (Some(Cancel::Abandon), None);
        };
        let replaced = node.keep_waker(waker);
        node.told = node.cancel.is_some();
        (node.cancel, replaced)
    }

    /// The handler has ended and the policy is about to be asked: its time does not count.
    ///
    /// `None` if it is too late for that, because the run is over.
    pub(crate) fn begin_policy(&mut self, ticket: Ticket) -> Option<Delivery<U>> {
        self.stop_clock(ticket.index);
        let node = &mut self.nodes[ticket.index as usize];
        if node.cancel == Some(Cancel::Abandon) {
            return None;
        }
        node.deciding = true;
        (node.cancel, node.told) = (None, false);
        let update = node.deliver(ticket.index);
        self.deciding += 1;
        Some(update)
    }

    /// The policy has answered, or its task was dropped.
    pub(super) fn end_policy(&mut self, index: u32) {
        let node = &mut self.nodes[index as usize];
        self.deciding -= usize::from(std::mem::take(&mut node.deciding));
    }

    /// Changes how many updates may be in flight. Cancels nothing.
    pub(crate) fn set_concurrency(&mut self, concurrency: NonZeroUsize) -> Effects<U> {
        let mut effects = Effects::default();
        if self.limits.mode != Mode::Sequential {
            self.limits.concurrency = concurrency.get();
            effects.recruits = self.recruit(&mut effects.wakers);
            self.wake_satisfied(&mut effects.wakers);
        }
        effects
    }

    /// How updates have ended so far.
    pub(crate) fn counters(&self) -> Counters {
        Counters {
            finished: self.finished,
            ..self.counters
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many updates are held in all.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len() + self.ready.fresh()
    }

    /// How many updates are free to start, with a slot or without.
    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Whether nothing starts any more.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Halted | Phase::Closed)
    }

    /// How many slots are free; none while a lowered concurrency is exceeded.
    pub(super) fn capacity(&self) -> usize {
        self.limits.concurrency.saturating_sub(self.running)
    }

    /// How many updates could start at once.
    pub(super) fn startable(&self) -> usize {
        match self.phase {
            Phase::Open | Phase::Stopping => self.ready().min(self.capacity()),
            Phase::Halted | Phase::Closed => 0,
        }
    }

    /// The node of a ticket, unless it has gone.
    pub(super) fn node(&mut self, ticket: Ticket) -> Option<&mut Node<U>> {
        self.nodes
            .get_mut(ticket.index as usize)
            .filter(|node| node.seq == ticket.seq)
    }

    /// Collects the wakers of all whose wait is over.
    pub(super) fn wake_satisfied(&mut self, wakers: &mut Wakers) {
        self.wake_watcher(wakers);
        if self.waiters.is_empty() {
            return;
        }
        let (room, choked) = (self.room(false).is_some(), self.is_choked());
        let idle = self.is_empty();
        if !(room || choked || idle) {
            return;
        }
        self.waiters.take(
            |interest| match interest {
                Interest::Room => room,
                Interest::RoomOrChoke => room || choked,
                Interest::Idle => idle,
            },
            wakers,
        );
    }

    /// Collects the waker of the clock if it is set for later than this new deadline.
    pub(super) fn wake_before(&mut self, deadline: Instant, wakers: &mut Wakers) {
        self.alarms.take(
            |alarm| match alarm {
                Alarm::Fault => false,
                Alarm::Deadline(armed) => armed.is_none_or(|armed| deadline < armed),
            },
            wakers,
        );
    }
}

/// Whose clock it is that starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timeout {
    /// A handler's: all have the same time.
    Shared,
    /// A policy's.
    Own,
}

/// How long a policy may take. Long enough to store an update elsewhere, short enough not to hold a
/// slot and a chat for ever.
const POLICY_TIMEOUT: Duration = Duration::from_secs(30);
