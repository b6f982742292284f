//! How the queue ends: by a stop, at a limit, by itself, or with its runtime.

use super::{
    effects::Effects,
    entry::{Entry, State as Is},
    key_order::{KeyLinks, KeyOrder},
    mailbox::Command,
    outcome::{Ending, Fault},
    ready::Ready,
    state::{Phase, State},
    ticket::Ticket,
};

impl<U> State<U> {
    /// Stops intake. What is held still starts; what waits for a retry is tried at once.
    pub(super) fn stop(&mut self, effects: &mut Effects<U>) {
        if self.phase == Phase::Open {
            self.phase = Phase::Stopping;
            // Those that are due and wait for a slot: the attempt that they wait for is their last one.
            for index in self.ready.retries() {
                self.entries[index as usize].last_attempt = true;
            }
            let retrying = self.entries.iter();
            let mut retrying: Vec<Ticket> = retrying
                .filter(|(_, entry)| entry.state == Is::Retrying)
                .map(|(index, entry)| entry.ticket(index as u32))
                .collect();
            retrying.sort_unstable();
            for ticket in retrying {
                self.stop_timer(ticket);
                self.entries[ticket.index as usize].last_attempt = true;
                self.make_retry_due(ticket.index);
            }
            self.workers.dismiss(&mut effects.wakers);
            self.notify(effects);
        }
        self.wake_waiters(&mut effects.wakers);
    }

    /// Abandons all that has not started, and tells all that runs to end.
    pub(super) fn abandon(&mut self, effects: &mut Effects<U>) {
        self.abandon_unstarted();
        self.workers.dismiss(&mut effects.wakers);
        self.phase = Phase::Closed;
        // A timeout from now on would only turn the end into a question to the policy.
        self.timers.clear();
        for (_, entry) in &mut self.entries {
            (entry.timed, entry.deadline) = (false, None);
            if let Some(worker) = &entry.worker {
                worker.post(Command::Abandon, &mut effects.wakers);
            }
        }
        self.wake_waiters(&mut effects.wakers);
    }

    /// Lists every update whose handler has still not ended as abandoned.
    pub(super) fn give_up(&mut self) {
        for (_, entry) in &mut self.entries {
            if !std::mem::replace(&mut entry.reported, true) {
                self.completion.abandon(entry, true);
            }
        }
    }

    /// A worker was dropped before it ended: its runtime is gone, and so are all others.
    pub(super) fn worker_lost(
        &mut self,
        ticket: Option<Ticket>,
        mut permit: bool,
        effects: &mut Effects<U>,
    ) {
        if permit && ticket.is_none() {
            self.workers.unused -= 1;
        }
        self.workers.give_up_permit(&mut permit);
        self.halt(Fault::RuntimeGone, effects);
        self.phase = Phase::Closed;
        if let Some(ticket) = ticket {
            self.stop_timer(ticket);
            let entry = &self.entries[ticket.index as usize];
            self.workers
                .end(entry.detached, entry.state == Is::Deciding);
            self.leave(ticket, Ending::Abandoned, None, effects);
        }
        self.wake_waiters(&mut effects.wakers);
    }

    /// Nothing starts any more. The first reason counts.
    pub(super) fn halt(&mut self, fault: Fault, effects: &mut Effects<U>) {
        if self.completion.fault.is_none() {
            self.completion.fault = Some(fault);
        } else {
            effects.fault = Some(Box::new(fault));
        }
        // Once: every task of a runtime that is gone comes here.
        if !self.is_over() {
            self.phase = Phase::Halted;
            self.abandon_unstarted();
            self.workers.dismiss(&mut effects.wakers);
        }
        self.fault_waiters.take(|()| true, &mut effects.wakers);
    }

    /// Lists every update that has not been started, or waits for a retry, as abandoned.
    fn abandon_unstarted(&mut self) {
        let ready = std::mem::replace(&mut self.ready, Ready::new());
        for new in ready.each_new() {
            self.intake.let_go(new.bytes);
            self.completion.abandon(&Entry::new(new, false), false);
        }
        self.intake.clear_waiting();
        // The order is of no further use: nothing starts after this.
        self.keys = KeyOrder::new(false);
        let Self {
            entries,
            completion,
            timers,
            intake,
            ..
        } = self;
        entries.retain(|index, entry| {
            entry.keys = KeyLinks::NONE;
            let started = matches!(entry.state, Is::Running | Is::Late(_) | Is::Deciding);
            if !started {
                if let Some(at) = entry.deadline.filter(|_| entry.timed) {
                    timers.cancel(at, entry.ticket(index as u32));
                }
                intake.let_go(entry.bytes);
                completion.abandon(entry, false);
            }
            started
        });
    }
}
