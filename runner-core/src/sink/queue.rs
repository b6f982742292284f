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
//! Every operation on one update is O(1), but for its keys and for deadlines that were moved by
//! hand (O(log n) of those).

use std::{
    collections::BTreeSet,
    num::{NonZeroU32, NonZeroUsize},
    sync::Arc,
    task::Waker,
    time::{Duration, Instant},
};

use slab::Slab;

use super::{
    decay::far_future,
    effects::{Effects, Wakers},
    latency::Latencies,
    node::{Cancel, NONE, Node, State},
    options::{MAX_BATCH, Mode, OnTimeout, SinkOptions},
    order::{Chain, KeyOrder, SPARE},
    outcome::{Counters, Ending, Fault, Outcome, Unsettled},
    parked::{Call, Parked},
    ready::{Fresh, Next, Ready},
    waiters::Waiters,
};
use crate::{
    Cause, Delivery,
    delivery::{Chunk, Share},
    ticket::Ticket,
};

/// All updates that the sink holds.
pub(crate) struct Queue<U> {
    pub(super) nodes: Slab<Node<U>>,
    pub(super) order: KeyOrder,
    pub(super) ready: Ready<U>,
    /// First and last of the running updates by deadline; see `decay.rs`.
    pub(super) oldest: u32,
    pub(super) newest: u32,
    /// Deadlines that are not in order of arrival.
    pub(super) moved: BTreeSet<(Instant, Ticket)>,
    /// When updates that failed are tried again.
    pub(super) retries: BTreeSet<(Instant, Ticket)>,
    pub(super) limits: Limits,
    pub(super) phase: Phase,
    /// Updates in flight: started, not finished, holding a slot.
    pub(super) running: usize,
    /// Updates that wait for a key or for a retry.
    pub(super) waiting: usize,
    /// Whether so many wait that intake stands still, until there is room for more than a few.
    choked: bool,
    pub(super) detached: usize,
    /// Tasks that have the duty to start updates.
    pub(super) hungry: usize,
    /// How many of these have not looked for an update yet.
    pub(super) idle: usize,
    /// Tasks that are about to look for an update, and whose duty another task has taken on.
    pub(super) surplus: usize,
    /// Tasks that have nothing to do.
    pub(super) parked: Parked,
    pub(super) counters: Counters,
    /// Attempts that were started.
    pub(super) claims: u64,
    pub(super) latencies: Latencies,
    /// When a retry last became due while nothing was in flight.
    pub(super) revived: Option<Instant>,
    pub(super) abandoned: Vec<Unsettled<U>>,
    pub(super) fault: Option<Fault>,
    /// For room, or for the end.
    pub(super) waiters: Waiters<Interest>,
    /// For what seldom happens; nobody looks at these with every update.
    pub(super) alarms: Waiters<Alarm>,
}

/// The bounds in force.
#[derive(Debug)]
pub(super) struct Limits {
    pub(super) mode: Mode,
    pub(super) concurrency: usize,
    pub(super) timeout: Option<Duration>,
    pub(super) max_detached: Option<usize>,
    pub(super) max_waiting: usize,
    max_waiting_per_key: Option<usize>,
    prefetch: usize,
    /// How much room makes a fetch worth its while, if something is there to do meanwhile.
    worthwhile: usize,
    workers: usize,
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
}

/// The keys of one arriving update, hashed, or why it cannot be handled.
pub(crate) enum Arrival<'a> {
    Keys(&'a [u64]),
    Refused(Cause),
}

/// In a sequential sink every update has this key and no other.
const TOTAL_ORDER: [u64; 1] = [0];

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
            nodes: Slab::new(),
            order: KeyOrder::new(options.max_waiting_per_key.is_some()),
            ready: Ready::new(),
            oldest: NONE,
            newest: NONE,
            moved: BTreeSet::new(),
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
                workers: options.workers.get(),
            },
            phase: Phase::Open,
            running: 0,
            waiting: 0,
            choked: false,
            detached: 0,
            hungry: 0,
            idle: 0,
            surplus: 0,
            parked: Parked::new(),
            counters: Counters::default(),
            claims: 0,
            latencies: Latencies::new(),
            revived: None,
            abandoned: Vec::new(),
            fault: None,
            waiters: Waiters::new(),
            alarms: Waiters::new(),
        }
    }

    /// Takes in updates that wait for nothing: the first `count` of a chunk. Call
    /// [`recruit`](Self::recruit) after the last one of a batch.
    ///
    /// As [`arrive`](Self::arrive) with no key for each of them.
    pub(crate) fn arrive_free(&mut self, chunk: Arc<Chunk<U>>, count: u8, now: Instant) {
        if self.is_over() || self.limits.mode == Mode::Sequential {
            for place in 0..count {
                let share = Share::new(Arc::clone(&chunk), place);
                self.arrive(share, Arrival::Keys(&[]), now);
            }
            return;
        }
        let seq = self.counters.supplied;
        self.counters.supplied += u64::from(count);
        self.ready.push_fresh(chunk, count, seq, now);
    }

    /// Takes in one update. Call [`recruit`](Self::recruit) after the last one of a batch.
    ///
    /// Never refuses: room is the business of whoever fetches. After the end it is abandoned.
    #[inline]
    pub(crate) fn arrive(&mut self, share: Share<U>, arrival: Arrival<'_>, now: Instant) {
        let seq = self.counters.supplied;
        self.counters.supplied += 1;
        if self.is_over() {
            self.abandon_fresh(share, seq);
            return;
        }
        let index = u32::try_from(self.nodes.vacant_key()).expect("fewer than 2^32 are held");
        let (keys, preset) = match arrival {
            Arrival::Refused(cause) => (&[][..], Some(Box::new(cause))),
            Arrival::Keys(keys) => match self.limits.max_waiting_per_key {
                Some(limit) if self.order.is_crowded(keys, limit) => {
                    (&[][..], Some(Box::new(Cause::Overflow)))
                }
                _ => (keys, None),
            },
        };
        // Refused ones too: what the policy does about them must not overtake anything either.
        let keys = match self.limits.mode {
            Mode::Sequential => &TOTAL_ORDER,
            Mode::Batch | Mode::Concurrent => keys,
        };
        let (chain, predecessors) = match keys {
            [] => (Chain::EMPTY, 0),
            keys => self.order.arrive(index, keys),
        };
        let state = if predecessors == 0 {
            self.ready.push(index);
            State::Ready
        } else {
            self.waiting += 1;
            self.look_at_waiting();
            State::Waiting
        };
        self.nodes.insert(Node {
            preset,
            chain,
            predecessors,
            ..Node::new(share, seq, now, state)
        });
    }

    /// Gives the duty to start updates to as many more tasks as can use it.
    ///
    /// Returns how many to spawn; the others are parked and have to be woken.
    #[inline]
    pub(crate) fn recruit(&mut self, wakers: &mut Wakers) -> usize {
        let free = self.limits.workers.saturating_sub(self.hungry);
        // Those that are on their way take one each.
        let wanted = self.startable().saturating_sub(self.idle).min(free);
        match wanted {
            0 => 0,
            wanted => self.recruit_some(wanted, wakers),
        }
    }

    fn recruit_some(&mut self, wanted: usize, wakers: &mut Wakers) -> usize {
        self.hungry += wanted;
        self.idle += wanted;
        // Some are on their way and had lost the duty: they have it again.
        let returned = wanted.min(self.surplus);
        self.surplus -= returned;
        let mut left = wanted - returned;
        while left > 0
            && let Some(waker) = self.parked.call()
        {
            wakers.push(waker);
            left -= 1;
        }
        left
    }

    /// Keeps a task that has nothing to do and no duty, instead of its end. `None` if it is to end.
    pub(crate) fn park(&mut self, waker: &Waker) -> Option<u64> {
        match self.phase {
            Phase::Open => self.parked.enter(waker),
            Phase::Stopping | Phase::Halted | Phase::Closed => None,
        }
    }

    /// What a parked task is to do. A replaced waker is returned to be dropped outside of the lock.
    pub(crate) fn ask(&mut self, place: u64, waker: &Waker) -> (Call, Option<Waker>) {
        self.parked.ask(place, waker)
    }

    /// Takes the next update that may start, for a task that looks for one and has none; else takes
    /// the duty.
    pub(crate) fn claim(&mut self) -> Option<Job<U>> {
        if self.surplus > 0 {
            self.surplus -= 1;
            return None;
        }
        self.idle -= 1;
        self.take()
    }

    /// Takes the next update that may start, for a task that has the duty; else takes the duty.
    ///
    /// Both in one critical section, or an update that arrives in between would be stranded.
    #[inline]
    fn take(&mut self) -> Option<Job<U>> {
        if self.startable() == 0 {
            self.hungry -= 1;
            return None;
        }
        self.running += 1;
        self.claims += 1;
        let index = match self.ready.pop().expect("an update is startable") {
            Next::Node(index) => index,
            Next::Fresh(Fresh {
                share,
                seq,
                arrived,
            }) => {
                let node = Node::new(share, seq, arrived, State::Running);
                u32::try_from(self.nodes.insert(node)).expect("fewer than 2^32 are held")
            }
        };
        let node = &mut self.nodes[index as usize];
        node.state = State::Running;
        Some(Job {
            delivery: node.deliver(index),
            preset: node.preset.clone(),
        })
    }

    /// Ends a handler without an error and starts the next update in its place, as most of the time
    /// under load: both have no keys, and nothing else has happened to either.
    ///
    /// Nothing else changes by that, but that there is more room. `None`, and no change, if there is
    /// more to do: that is for [`settle`](Self::settle).
    #[inline]
    pub(crate) fn exchange(
        &mut self,
        ticket: Ticket,
        now: impl FnOnce() -> Instant,
        hungry: &mut bool,
        effects: &mut Effects<U>,
    ) -> Option<Job<U>> {
        // A slot may be one too many by now.
        if self.running > self.limits.concurrency || self.is_over() {
            return None;
        }
        let takes_on = !*hungry && self.hungry < self.limits.workers;
        let relieves = !*hungry && !takes_on;
        if relieves && self.idle == 0 {
            return None;
        }
        let index = ticket.index as usize;
        let node = &mut self.nodes[index];
        if !node.is_plain() {
            return None;
        }
        let arrived = node.arrived;
        (node.seq, node.arrived, effects.garbage) = self.ready.replace(&mut node.share)?;
        if takes_on {
            self.hungry += 1;
            *hungry = true;
        } else if relieves {
            self.relieve();
            *hungry = true;
        }
        let weight = match self.nodes[index].pended {
            true => self.wait_ended(ticket.index),
            false => CROWD,
        };
        self.record(ticket.seq, arrived, weight, now);
        self.counters.finished += 1;
        self.claims += 1;
        if !self.waiters.is_empty() && self.room(false).is_some() {
            self.wake_satisfied(&mut effects.wakers);
        }
        Some(Job {
            delivery: self.nodes[index].deliver(ticket.index),
            preset: None,
        })
    }

    /// Stops the clock of a handler. Returns one in how many of its kind to measure.
    fn wait_ended(&mut self, index: u32) -> u64 {
        let node = &mut self.nodes[index as usize];
        if !std::mem::take(&mut node.pended) {
            // Its first attempt may have waited, and its clock may have been set by hand.
            let weight = if node.attempt > NonZeroU32::MIN {
                1
            } else {
                SAMPLE
            };
            self.stop_clock(index);
            return weight;
        }
        let (own, newest) = (node.deadline, self.newest);
        let follower = match newest {
            NONE => None,
            newest if newest == index => None,
            newest => self.nodes[newest as usize].deadline,
        };
        self.stop_clock(index);
        match (own, follower) {
            (Some(own), Some(follower)) if follower.saturating_duration_since(own) < BRIEF => {
                SAMPLE
            }
            _ => 1,
        }
    }

    /// The handler waits for something: start its clock, and pass the duty on if it has it.
    #[inline]
    pub(crate) fn pend(
        &mut self,
        ticket: Ticket,
        waker: &Waker,
        timeout: Timeout,
        now: impl FnOnce() -> Instant,
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
        if node.cancel.is_some() {
            return node.cancel;
        }
        // It has one from the update before it, and of the same task.
        effects.stale = node.keep_waker(waker);
        node.pended = true;
        if let Some(limit) = limit {
            self.start_clock(ticket, limit, timeout, now());
            if let Some(deadline) = self.nodes[ticket.index as usize].deadline {
                self.wake_before(deadline, &mut effects.wakers);
            }
        }
        if std::mem::take(hungry) {
            self.hungry -= 1;
            effects.recruits = self.recruit(&mut effects.wakers);
        }
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
        node.cancel = None;
        Some(node.deliver(ticket.index))
    }

    /// Ends one attempt and, if `claim`, takes the next update if the task has the duty or may take
    /// it on.
    ///
    /// The only place where an update that was started leaves the queue, but for
    /// [`exchange`](Self::exchange).
    #[inline(never)]
    pub(crate) fn settle(
        &mut self,
        ticket: Ticket,
        outcome: Outcome,
        claim: bool,
        now: impl FnOnce() -> Instant,
        hungry: &mut bool,
        effects: &mut Effects<U>,
    ) -> Option<Job<U>> {
        let weight = self.wait_ended(ticket.index);
        match self.nodes[ticket.index as usize].state {
            State::Detached => self.detached -= 1,
            _ => self.running -= 1,
        }
        match outcome {
            Outcome::Retry { after } if self.may_retry(ticket.index) => {
                let due = self.retry(ticket, after, now());
                self.wake_before(due, &mut effects.wakers);
            }
            // It had its one attempt after the stop, and has failed.
            Outcome::Retry { .. } if self.phase == Phase::Stopping => {
                self.release(ticket, Ending::Failed, weight, now, effects);
            }
            // Nobody has given it up.
            Outcome::Retry { .. } => {
                self.release(ticket, Ending::Abandoned, weight, now, effects);
            }
            Outcome::Done => self.release(ticket, Ending::Finished, weight, now, effects),
            Outcome::GivenUp(ending) => self.release(ticket, ending, weight, now, effects),
            Outcome::Abandoned => {
                self.release(ticket, Ending::Abandoned, weight, now, effects);
            }
            Outcome::Stop { cause } => {
                // Its successors must not overtake it: it comes first when the run is repeated.
                self.halt(Fault::Policy { cause }, effects);
                self.release(ticket, Ending::Abandoned, weight, now, effects);
            }
        }
        let job = if claim {
            let job = if *hungry || self.take_duty() {
                self.take()
            } else {
                None
            };
            *hungry = job.is_some();
            job
        } else {
            self.idle += usize::from(*hungry);
            None
        };
        effects.recruits = self.recruit(&mut effects.wakers);
        self.wake_satisfied(&mut effects.wakers);
        job
    }

    /// Whether a task whose handler has waited may start the next update.
    ///
    /// It is at hand, and a new task would cost a spawn: if there are enough tasks with the duty, it
    /// relieves one that has not come to look yet.
    fn take_duty(&mut self) -> bool {
        if self.startable() == 0 {
            return false;
        }
        if self.hungry < self.limits.workers {
            self.hungry += 1;
            return true;
        }
        let relieves = self.idle > 0;
        if relieves {
            self.relieve();
        }
        relieves
    }

    /// Takes the duty from a task that is about to look for an update.
    fn relieve(&mut self) {
        self.idle -= 1;
        self.surplus += 1;
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

    /// How many updates to fetch now; `None` if it is better to wait.
    ///
    /// `scarce`: the last answer had less than it was asked for. Then the supplier has no more, and
    /// a call for few costs no round trip that a call for many would have saved.
    #[inline]
    pub(crate) fn room(&self, scarce: bool) -> Option<NonZeroUsize> {
        if self.phase != Phase::Open {
            return None;
        }
        if self.limits.mode != Mode::Concurrent {
            // Asking for the next batch makes the supplier forget this one.
            return if self.is_empty() {
                NonZeroUsize::new(MAX_BATCH)
            } else {
                None
            };
        }
        let room = self
            .capacity()
            .saturating_add(self.limits.prefetch)
            .saturating_sub(self.ready())
            .min(self.limits.max_waiting.saturating_sub(self.waiting));
        // Not one round trip for every slot that becomes free.
        let few = !scarce && room < self.limits.worthwhile && self.ready() > 0;
        if few || self.choked {
            return None;
        }
        NonZeroUsize::new(room.min(MAX_BATCH))
    }

    /// Whether intake stands still because too many updates wait.
    pub(crate) fn is_choked(&self) -> bool {
        self.limits.mode == Mode::Concurrent && self.choked
    }

    /// Whether so few wait that the next standstill is not the same one.
    pub(crate) fn is_relaxed(&self) -> bool {
        self.waiting <= self.limits.max_waiting / 2
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
    fn is_over(&self) -> bool {
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

    /// Frees the keys of an update that ended, counts it, and forgets it.
    #[inline]
    pub(super) fn release(
        &mut self,
        ticket: Ticket,
        ending: Ending,
        weight: u64,
        now: impl FnOnce() -> Instant,
        effects: &mut Effects<U>,
    ) {
        let mut node = self.nodes.remove(ticket.index as usize);
        effects.stale = node.waker.take();
        let Self {
            order,
            nodes,
            ready,
            waiting,
            ..
        } = self;
        if node.chain != Chain::EMPTY {
            order.leave(node.chain, |successor| {
                let node = &mut nodes[successor as usize];
                node.predecessors -= 1;
                if node.predecessors == 0 {
                    node.state = State::Ready;
                    *waiting -= 1;
                    ready.push(successor);
                }
            });
            self.look_at_waiting();
        }
        if self.nodes.is_empty() && self.nodes.capacity() > SPARE {
            // After a burst, give its memory back.
            self.nodes = Slab::new();
            self.ready.shrink();
        }
        if node.reported {
            // It is in a report already; it must not be settled twice.
            effects.garbage = Some(node.share);
            return;
        }
        self.record(node.seq, node.arrived, weight, now);
        let counters = &mut self.counters;
        *match ending {
            Ending::Finished => &mut counters.finished,
            Ending::Failed => &mut counters.failed,
            Ending::Panicked => &mut counters.panicked,
            Ending::TimedOut => &mut counters.timed_out,
            Ending::Undecodable => &mut counters.undecodable,
            Ending::Overflowed => &mut counters.overflowed,
            Ending::Abandoned => &mut counters.abandoned,
        } += 1;
        if ending == Ending::Abandoned {
            let started = node.was_handled(true);
            self.abandoned.push(Unsettled {
                share: node.share,
                seq: node.seq,
                attempt: node.attempt,
                started,
                unresponsive: false,
            });
        } else {
            effects.garbage = Some(node.share);
        }
    }

    /// Notes how long an update was held, for so many of its kind.
    #[inline]
    fn record(&mut self, seq: u64, arrived: Instant, weight: u64, now: impl FnOnce() -> Instant) {
        if seq.is_multiple_of(weight) {
            let age = now().saturating_duration_since(arrived);
            self.latencies.record(age, weight);
        }
    }

    /// Lists an update that has not been started as abandoned.
    pub(super) fn abandon_fresh(&mut self, share: Share<U>, seq: u64) {
        self.counters.abandoned += 1;
        self.abandoned.push(Unsettled {
            share,
            seq,
            attempt: NonZeroU32::MIN,
            started: false,
            unresponsive: false,
        });
    }

    fn may_retry(&self, index: u32) -> bool {
        match self.phase {
            Phase::Open => true,
            Phase::Stopping => !self.nodes[index as usize].last_chance,
            Phase::Halted | Phase::Closed => false,
        }
    }

    /// Keeps an update, its keys and its place, for another attempt.
    ///
    /// Returns when that is due.
    fn retry(&mut self, ticket: Ticket, after: Duration, now: Instant) -> Instant {
        let stopping = self.phase == Phase::Stopping;
        self.counters.retried += 1;
        self.waiting += 1;
        let node = &mut self.nodes[ticket.index as usize];
        node.state = State::Retrying;
        node.attempt = node.attempt.saturating_add(1);
        node.waker = None;
        node.pended = false;
        node.cancel = None;
        node.deciding = false;
        node.last_chance = stopping;
        if stopping {
            self.retry_now(ticket);
            return now;
        }
        // Beyond what the clock can express, it waits until the runner stops.
        let due = now.checked_add(after).unwrap_or_else(|| far_future(now));
        self.retries.insert((due, ticket));
        self.look_at_waiting();
        due
    }

    /// Readies an update that waited for a retry.
    pub(super) fn retry_now(&mut self, ticket: Ticket) {
        self.waiting -= 1;
        self.nodes[ticket.index as usize].state = State::Ready;
        self.ready.push_again(ticket.index);
        self.look_at_waiting();
    }

    /// Notes whether intake stands still, after every change of `waiting`.
    fn look_at_waiting(&mut self) {
        let Limits { max_waiting, .. } = self.limits;
        // At the bound, each update that goes would else be replaced by a round trip for one.
        let enough = self.limits.worthwhile.clamp(1, (max_waiting / 2).max(1));
        if self.waiting >= max_waiting {
            self.choked = true;
        } else if self.waiting + enough <= max_waiting {
            self.choked = false;
        }
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

/// One in so many updates whose handler never waited is measured: reading the clock costs as much as
/// all else that is done for it. The same of those that waited, under such a load that others had
/// begun to wait when they ended, and all of these within [`BRIEF`] after them.
const SAMPLE: u64 = 8;

/// The same of those whose handler never waited and that the next one was ready to follow.
const CROWD: u64 = 32;

const BRIEF: Duration = Duration::from_millis(1);
