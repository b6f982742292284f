//! The life of an update: one method per event.
//!
//! | state | leaves by |
//! |---|---|
//! | `Waiting` | the last update that it waits for is completed → `Ready` |
//! | `Ready` | a worker starts it → `Running`, or `Deciding` if it was refused |
//! | `Running` | returns → completed, or `Deciding`; deadline → `Late` |
//! | `Late` | to be cancelled: its next poll returns → as `Running`; is pending → `Deciding`; more time is asked for → `Running`. To go on: as `Running` |
//! | `Deciding` | the policy answers: completed, or `Retrying` |
//! | `Retrying` | due, or a stop → `Ready` |
//!
//! At the end of the queue, `shutdown.rs` removes what is `Waiting`, `Ready` or `Retrying`. All others leave
//! through `complete.rs`.
//!
//! [`State`] is what the lock guards: plain data that knows neither executor nor consumer. What depends on
//! time takes `now`. Each event adds to the [`Effects`], which are carried out after the lock is released.

use std::{
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, Instant},
};

use slab::Slab;

use super::{
    complete::Completion,
    effects::{Effects, Wakers},
    entry::{Entry, Late, State as Is},
    intake::{Arrival, Intake},
    key_order::KeyOrder,
    mailbox::{Command, Mailbox},
    options::{AfterTimeout, Limits, Mode},
    outcome::LateHandler,
    ready::{New, Next, Ready},
    timers::{Timers, far_future},
    upstream::Watcher,
    waiters::Waiters,
    workers::Workers,
};
use crate::{
    Cause, Delivery,
    consume::{BatchSlice, Item},
    queue::Ticket,
};

/// All updates that the queue holds.
pub(super) struct State<U> {
    pub(super) entries: Slab<Entry<U>>,
    pub(super) intake: Intake,
    pub(super) keys: KeyOrder,
    pub(super) ready: Ready<U>,
    pub(super) timers: Timers,
    pub(super) workers: Workers,
    pub(super) completion: Completion<U>,
    pub(super) limits: Limits,
    pub(super) phase: Phase,
    /// Attempts that were started.
    pub(super) starts: u64,
    /// When a retry last became due while nothing was in flight: the time before that is no standstill.
    pub(super) revived: Option<Instant>,
    /// Tasks that wait for room or for the end.
    pub(super) waiters: Waiters<Interest>,
    /// Tasks that wait for a fault.
    pub(super) fault_waiters: Waiters<()>,
    /// The task of a user's sink, while it waits for more updates; see `upstream.rs`.
    pub(super) watcher: Option<Watcher>,
    /// How many batches are being added, slice by slice.
    pub(super) arriving: usize,
    /// Whether all handles to the queue were dropped, so that its clock has to stop it.
    pub(super) handles_dropped: bool,
}

/// What the queue still accepts and starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// What is held still starts; retries do not wait any longer.
    Stopping,
    /// Nothing starts any more; what runs may end.
    Halted,
    /// What runs is told to end.
    Closed,
}

/// What a task waits for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Interest {
    /// Room for a fetch.
    Room,
    /// The same, or that there will be none for a while.
    RoomOrChoke,
    /// Nothing is held.
    Idle,
    /// Nothing is held, and nothing may be added.
    End,
    /// Nothing may be added any more.
    Closed,
}

/// An update to be handled now.
pub(super) struct Started<U> {
    pub(super) ticket: Ticket,
    /// The update; or why the policy is to be asked at once.
    pub(super) update: Result<Delivery<U>, Cause>,
}

/// Which time limit begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timeout {
    Handler,
    Policy,
}

/// How long a policy may take. Long enough to store an update elsewhere, short enough not to hold a slot
/// and a chat for good.
const POLICY_TIMEOUT: Duration = Duration::from_secs(30);

/// How many due updates are looked at in one critical section.
const EXPIRED_AT_ONCE: usize = 128;

/// In a sequential sink every update has this key and no other.
const TOTAL_ORDER: [u64; 1] = [0];

impl<U> State<U> {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            entries: Slab::new(),
            intake: Intake::new(&limits),
            keys: KeyOrder::new(limits.max_waiting_per_key.is_some()),
            ready: Ready::new(),
            timers: Timers::default(),
            workers: Workers::new(&limits),
            completion: Completion::new(),
            limits,
            phase: Phase::Open,
            starts: 0,
            revived: None,
            waiters: Waiters::new(),
            fault_waiters: Waiters::new(),
            watcher: None,
            arriving: 0,
            handles_dropped: false,
        }
    }

    // Events, in the order of an update's life

    /// An update is added. Call [`notify`](Self::notify) after the last one of a batch.
    ///
    /// Never refuses: room is the business of the caller. After the end the update is abandoned.
    pub(super) fn arrive(&mut self, item: Item<U>, arrival: Arrival<'_>, now: Instant) {
        let id = self.completion.counters.supplied;
        self.completion.counters.supplied += 1;
        let index = u32::try_from(self.entries.vacant_key()).expect("fewer than 2^32 are held");
        let (keys, refused) = match arrival.keys {
            Err(cause) => (&[][..], Some(Box::new(cause))),
            Ok(keys) => match self.limits.max_waiting_per_key {
                Some(limit) if self.keys.is_crowded(keys, limit.get()) => {
                    (&[][..], Some(Box::new(Cause::Overflow)))
                }
                _ => (keys, None),
            },
        };
        let handled = self.intake.replayed.pop_front().unwrap_or(false);
        let new = New {
            item,
            id,
            arrived: now,
            bytes: arrival.bytes,
        };
        let mut entry = Entry::new(new, handled);
        entry.refused = refused;
        if self.is_over() {
            // The list keeps the update alive, so no destructor runs here.
            self.completion.abandon(&entry, false);
            return;
        }
        // In a sequential sink, an update that goes to the policy waits for its turn as well.
        let keys = match self.limits.mode {
            Mode::Sequential => &TOTAL_ORDER,
            Mode::Batch | Mode::Concurrent => keys,
        };
        if !keys.is_empty() {
            (entry.keys, entry.blocked_by) = self.keys.arrive(index, keys);
        }
        if entry.blocked_by > 0 {
            entry.state = Is::Waiting;
            self.intake.add_waiting();
        } else {
            self.ready.push(index);
        }
        self.intake.hold(entry.bytes as usize);
        self.entries.insert(entry);
    }

    /// The updates of a slice are added, which have no keys and so many bytes each. As
    /// [`arrive`](Self::arrive) for each of them, but they get an entry only when they start.
    pub(super) fn arrive_free(&mut self, slice: Arc<BatchSlice<U>>, bytes: u32, now: Instant) {
        let plain = self.limits.mode != Mode::Sequential && self.intake.replayed.is_empty();
        if self.is_over() || !plain {
            for index in 0..slice.len() {
                let keys = Ok(&[][..]);
                let item = Item::new(Arc::clone(&slice), index);
                self.arrive(item, Arrival { keys, bytes }, now);
            }
            return;
        }
        let id = self.completion.counters.supplied;
        let count = slice.len();
        self.completion.counters.supplied += u64::from(count);
        self.intake.hold(usize::from(count) * bytes as usize);
        self.ready.push_slice(slice, id, now, bytes);
    }

    /// A worker takes the next update. If there is none, it gives up its permit: both in one critical
    /// section, or an update that arrives in between would be stranded.
    pub(super) fn start(&mut self, permit: &mut bool) -> Option<Started<U>> {
        if self.startable() == 0 {
            self.workers.give_up_permit(permit);
            return None;
        }
        let index = match self.ready.pop().expect("an update is startable") {
            Next::Entry(index) => index,
            Next::New(new) => {
                let index = self.entries.insert(Entry::new(new, false));
                u32::try_from(index).expect("fewer than 2^32 are held")
            }
        };
        self.workers.running += 1;
        self.starts += 1;
        let entry = &mut self.entries[index as usize];
        entry.state = Is::Running;
        let update = match &entry.refused {
            Some(cause) => Err((**cause).clone()),
            None => {
                entry.handled = true;
                Ok(entry.deliver(index))
            }
        };
        Some(Started {
            ticket: entry.ticket(index),
            update,
        })
    }

    /// A handler or a policy is pending for the first time: its time begins, and its worker gives its
    /// permit to another one. `true` if it must be dropped instead, because the queue is closed.
    pub(super) fn suspend(
        &mut self,
        ticket: Ticket,
        timeout: Timeout,
        now: Option<Instant>,
        worker: &Arc<Mailbox>,
        permit: &mut bool,
        effects: &mut Effects<U>,
    ) -> bool {
        if self.phase == Phase::Closed {
            return true;
        }
        let span = match timeout {
            Timeout::Handler => self.limits.timeout,
            Timeout::Policy => Some(POLICY_TIMEOUT),
        };
        let entry = &mut self.entries[ticket.index as usize];
        entry.suspended = true;
        entry.worker = Some(Arc::clone(worker));
        let asked_for = entry.deadline.take();
        // A deadline beyond what the clock can express is none.
        if let Some(deadline) = span.and_then(|span| now?.checked_add(span)) {
            let deadline = asked_for.map_or(deadline, |asked_for| asked_for.max(deadline));
            self.set_timer(ticket, deadline, &mut effects.wakers);
        }
        if *permit {
            self.workers.give_up_permit(permit);
            self.notify(effects);
        }
        self.wake_watcher(&mut effects.wakers);
        false
    }

    /// Whatever is due happens: timeouts and retries. `true` if there is more.
    pub(super) fn expire(&mut self, now: Instant, effects: &mut Effects<U>) -> bool {
        let mut left = EXPIRED_AT_ONCE;
        while left > 0
            && let Some(ticket) = self.timers.pop_due(now)
        {
            left -= 1;
            let entry = &mut self.entries[ticket.index as usize];
            (entry.timed, entry.deadline) = (false, None);
            if entry.state == Is::Retrying {
                if self.workers.running == 0 {
                    self.revived = Some(now);
                }
                self.make_retry_due(ticket.index);
            } else {
                self.time_out(ticket, now, effects);
            }
        }
        self.notify(effects);
        self.wake_waiters(&mut effects.wakers);
        left == 0
    }

    /// The deadline of a handler or a policy has passed.
    fn time_out(&mut self, ticket: Ticket, now: Instant, effects: &mut Effects<U>) {
        let entry = &mut self.entries[ticket.index as usize];
        let deciding = entry.state == Is::Deciding;
        if deciding || self.limits.after_timeout == AfterTimeout::Cancel {
            // A policy that is late is not asked again, so its state stays.
            if !deciding {
                entry.state = Is::Late(Late::Cancelling);
            }
            if let Some(worker) = &entry.worker {
                worker.post(Command::TimeOut, &mut effects.wakers);
            }
            return;
        }
        entry.state = Is::Late(Late::Continuing);
        entry.detached = match self.limits.after_timeout {
            AfterTimeout::Detach(_) => self.workers.detach(),
            AfterTimeout::Cancel | AfterTimeout::Continue => false,
        };
        self.completion.counters.detached += u64::from(entry.detached);
        effects.late.push(LateHandler {
            update: entry.deliver(ticket.index),
            age: now.saturating_duration_since(entry.arrived),
            detached: entry.detached,
        });
    }

    /// A late handler was polled once more and is still pending. `true` if it was given no more time
    /// meanwhile: then it must be dropped, and its update is `Deciding`.
    pub(super) fn cancel_if_late(&mut self, ticket: Ticket) -> bool {
        let entry = &mut self.entries[ticket.index as usize];
        let late = entry.state == Is::Late(Late::Cancelling);
        if late {
            self.deciding(ticket);
        }
        late
    }

    /// More time is asked for: the deadline becomes the later of what it was and `by` from now.
    ///
    /// `false` if the update is not being handled, or too late. A handler that is to be cancelled may ask
    /// until its last poll.
    pub(super) fn extend(
        &mut self,
        ticket: Ticket,
        by: Duration,
        now: Instant,
        wakers: &mut Wakers,
    ) -> bool {
        let limited = self.limits.timeout.is_some();
        let closed = self.phase == Phase::Closed;
        let Some(entry) = self.entry(ticket) else {
            return false;
        };
        let late = entry.state == Is::Late(Late::Cancelling);
        if closed || !(late || entry.state == Is::Running) {
            return false;
        }
        if !limited || entry.suspended && !entry.timed && !late {
            // There is no timeout, or one beyond what the clock can express.
            return true;
        }
        let until = now.checked_add(by).unwrap_or_else(|| far_future(now));
        entry.state = Is::Running;
        if !entry.suspended {
            // Kept until its time begins.
            entry.deadline = entry.deadline.max(Some(until));
        } else if entry.deadline.is_none_or(|deadline| deadline < until) {
            self.cancel_timer(ticket);
            self.set_timer(ticket, until, wakers);
        }
        true
    }

    /// An attempt has failed and the policy is about to be asked. `None` if it is too late for that,
    /// because the queue is closed.
    pub(super) fn decide(&mut self, ticket: Ticket) -> Option<Delivery<U>> {
        self.stop_timer(ticket);
        if self.phase == Phase::Closed {
            return None;
        }
        self.deciding(ticket);
        Some(self.entries[ticket.index as usize].deliver(ticket.index))
    }

    fn deciding(&mut self, ticket: Ticket) {
        let entry = &mut self.entries[ticket.index as usize];
        if entry.state != Is::Deciding {
            entry.state = Is::Deciding;
            self.workers.deciding += 1;
        }
    }

    /// The policy wants another attempt: the update keeps its keys, and waits.
    pub(super) fn retry(
        &mut self,
        ticket: Ticket,
        after: Duration,
        now: Instant,
        effects: &mut Effects<U>,
    ) {
        let stopping = self.phase == Phase::Stopping;
        self.completion.counters.retried += 1;
        self.intake.add_retrying();
        let entry = &mut self.entries[ticket.index as usize];
        entry.state = Is::Retrying;
        entry.attempt = entry.attempt.saturating_add(1);
        (entry.redelivered, entry.detached, entry.worker) = (entry.handled, false, None);
        entry.last_attempt = stopping;
        if stopping {
            self.make_retry_due(ticket.index);
        } else {
            let due = now.checked_add(after).unwrap_or_else(|| far_future(now));
            self.set_timer(ticket, due, &mut effects.wakers);
        }
    }

    /// An update that waited for its next attempt may start.
    pub(super) fn make_retry_due(&mut self, index: u32) {
        self.intake.remove_retrying();
        self.entries[index as usize].state = Is::Ready;
        self.ready.push_retry(index);
    }

    /// Changes how many updates may be in flight. Cancels nothing.
    pub(super) fn set_concurrency(&mut self, concurrency: NonZeroUsize, effects: &mut Effects<U>) {
        if self.limits.mode != Mode::Sequential {
            self.workers.concurrency = concurrency.get();
            self.notify(effects);
            self.wake_waiters(&mut effects.wakers);
        }
    }

    // Timers

    fn set_timer(&mut self, ticket: Ticket, at: Instant, wakers: &mut Wakers) {
        let entry = &mut self.entries[ticket.index as usize];
        (entry.timed, entry.deadline) = (true, Some(at));
        self.timers.set(at, ticket, wakers);
    }

    /// Ends the time of an attempt.
    pub(super) fn stop_timer(&mut self, ticket: Ticket) {
        self.entries[ticket.index as usize].suspended = false;
        self.cancel_timer(ticket);
    }

    fn cancel_timer(&mut self, ticket: Ticket) {
        let entry = &mut self.entries[ticket.index as usize];
        if let Some(at) = entry.deadline.take()
            && std::mem::take(&mut entry.timed)
        {
            self.timers.cancel(at, ticket);
        }
    }

    // Workers and waiting tasks

    /// Sees to it that what may start is started.
    pub(super) fn notify(&mut self, effects: &mut Effects<U>) {
        let startable = self.startable();
        if startable > 0 {
            effects.spawn += self.workers.notify(startable, &mut effects.wakers);
        }
    }

    /// Collects the wakers of all tasks whose wait is over.
    pub(super) fn wake_waiters(&mut self, wakers: &mut Wakers) {
        self.wake_watcher(wakers);
        if self.waiters.is_empty() {
            return;
        }
        let over = !self.is_open();
        let (room, choked) = (self.room(false).is_some(), self.intake.is_choked());
        let idle = self.is_idle();
        if room || choked || idle || over {
            self.waiters.take(
                |interest| match interest {
                    Interest::Room => room || over,
                    Interest::RoomOrChoke => room || choked || over,
                    Interest::Idle => idle,
                    Interest::End => idle && over,
                    Interest::Closed => over,
                },
                wakers,
            );
        }
    }

    // Questions

    /// The entry of a ticket, unless its update has left.
    pub(super) fn entry(&mut self, ticket: Ticket) -> Option<&mut Entry<U>> {
        let entry = self.entries.get_mut(ticket.index as usize);
        entry.filter(|entry| entry.id == ticket.id)
    }

    pub(super) fn item(&mut self, ticket: Ticket) -> Option<Item<U>> {
        self.entry(ticket).map(|entry| entry.item.clone())
    }

    /// The deadline of a handler. While the policy decides, there is none.
    pub(super) fn deadline(&mut self, ticket: Ticket) -> Option<Instant> {
        let entry = self.entry(ticket)?;
        let running = matches!(entry.state, Is::Running | Is::Late(_));
        entry.deadline.filter(|_| running)
    }

    /// How many updates to fetch now; see [`Intake::room`].
    pub(super) fn room(&self, scarce: bool) -> Option<NonZeroUsize> {
        if !self.is_open() {
            return None;
        }
        let (slots, ready) = (self.workers.free_slots(), self.ready.len());
        self.intake.room(slots, ready, self.len(), scarce)
    }

    /// How many updates are held.
    pub(super) fn len(&self) -> usize {
        self.entries.len() + self.ready.without_entry()
    }

    /// How many updates could start at once.
    pub(super) fn startable(&self) -> usize {
        match self.is_over() {
            true => 0,
            false => self.ready.len().min(self.workers.free_slots()),
        }
    }

    /// Whether nothing is held or being added.
    pub(super) fn is_idle(&self) -> bool {
        self.len() == 0 && self.arriving == 0
    }

    /// Whether updates may be added.
    pub(super) fn is_open(&self) -> bool {
        self.phase == Phase::Open && !self.handles_dropped
    }

    /// Whether nothing starts any more.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Halted | Phase::Closed)
    }
}
