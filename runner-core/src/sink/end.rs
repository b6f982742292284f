//! How the queue comes to its end: gracefully, at a limit, by itself, or with its runtime.

use std::task::Waker;

use super::{
    cohorts::Cohorts,
    effects::Effects,
    node::{Cancel, Clock, State},
    order::{Chain, KeyOrder},
    outcome::{Ending, Fault, Unsettled},
    parked::Call,
    queue::{Alarm, Phase, Queue},
    ready::{Fresh, Ready},
};
use crate::ticket::Ticket;

impl<U> Queue<U> {
    /// Stops intake. What is held still starts; what waits for a retry is tried at once.
    pub(crate) fn stop(&mut self) -> Effects<U> {
        let mut effects = Effects::default();
        if self.phase == Phase::Open {
            self.phase = Phase::Stopping;
            let mut tickets: Vec<Ticket> = std::mem::take(&mut self.retries)
                .into_iter()
                .map(|(_, ticket)| ticket)
                .collect();
            tickets.sort_unstable();
            // Those that are due and wait for a slot: the attempt that they wait for is their last one.
            for index in self.ready.again() {
                self.nodes[index as usize].last_chance = true;
            }
            for ticket in tickets {
                self.nodes[ticket.index as usize].last_chance = true;
                self.retry_now(ticket);
            }
            self.parked.send_away(&mut effects.wakers);
            effects.recruits = self.recruit(&mut effects.wakers);
        }
        self.wake_satisfied(&mut effects.wakers);
        effects
    }

    /// Abandons all that has not started, and tells all that runs to end.
    pub(crate) fn abandon(&mut self) -> Effects<U> {
        let mut effects = Effects::default();
        self.abandon_unstarted();
        self.parked.send_away(&mut effects.wakers);
        self.phase = Phase::Closed;
        // A time-out from now on would only turn the end into a question to the policy.
        self.cohorts = Cohorts::new(self.limits.timeout);
        self.exact.clear();
        for (_, node) in self.nodes.iter_mut() {
            node.clock = Clock::Off;
            node.deadline = None;
            node.cancel = Some(Cancel::Abandon);
            effects.cancels = true;
            if let Some(waker) = node.waker.take() {
                effects.wakers.push(waker);
            }
        }
        self.wake_satisfied(&mut effects.wakers);
        effects
    }

    /// Lists every update whose handler has still not ended as abandoned, and forgets about it.
    pub(crate) fn give_up(&mut self) {
        for (_, node) in self.nodes.iter_mut() {
            if !std::mem::replace(&mut node.reported, true) {
                self.counters.abandoned += 1;
                self.abandoned.push(Unsettled {
                    share: node.share.clone(),
                    seq: node.seq,
                    attempt: node.attempt,
                    started: node.was_handled(true),
                    unresponsive: true,
                });
            }
        }
    }

    /// A task was dropped before it ended: its runtime is gone, and so are all other tasks.
    pub(crate) fn worker_lost(&mut self, ticket: Option<Ticket>, hungry: bool) -> Effects<U> {
        let mut effects = Effects::default();
        if hungry {
            self.idle -= usize::from(ticket.is_none());
            self.hungry -= 1;
        }
        self.halt(Fault::RuntimeGone, &mut effects);
        self.phase = Phase::Closed;
        if let Some(ticket) = ticket {
            self.stop_clock(ticket.index);
            self.end_policy(ticket.index);
            match self.nodes[ticket.index as usize].state {
                State::Detached => self.detached -= 1,
                _ => self.running -= 1,
            }
            let arrived = self.nodes[ticket.index as usize].arrived;
            self.release(ticket, Ending::Abandoned, 1, || arrived, &mut effects);
        }
        self.wake_satisfied(&mut effects.wakers);
        effects
    }

    /// A task was dropped that had nothing to do: unless it was to end, its runtime is gone.
    ///
    /// Its waker is returned to be dropped outside of the lock.
    pub(crate) fn parked_lost(&mut self, place: u64) -> (Effects<U>, Option<Waker>) {
        let (call, waker) = self.parked.leave(place);
        let effects = match call {
            Call::End => Effects::default(),
            Call::Start => self.worker_lost(None, true),
            Call::Wait => self.worker_lost(None, false),
        };
        (effects, waker)
    }

    /// Nothing starts any more. The first reason counts; a later one is put into the effects.
    pub(super) fn halt(&mut self, fault: Fault, effects: &mut Effects<U>) {
        if self.fault.is_none() {
            self.fault = Some(fault);
        } else {
            effects.fault = Some(fault);
        }
        // Once: of a runtime that is gone, every task comes here.
        if matches!(self.phase, Phase::Open | Phase::Stopping) {
            self.phase = Phase::Halted;
            self.abandon_unstarted();
            self.parked.send_away(&mut effects.wakers);
        }
        self.alarms
            .take(|alarm| matches!(alarm, Alarm::Fault), &mut effects.wakers);
    }

    /// Lists every update that has not been started, or waits for a retry, as abandoned.
    fn abandon_unstarted(&mut self) {
        let ready = std::mem::replace(&mut self.ready, Ready::new());
        for Fresh { share, seq, .. } in ready.each_fresh() {
            self.abandon_fresh(share, seq);
        }
        self.retries.clear();
        self.waiting = 0;
        // The order is of no further use: nothing starts after this.
        self.order = KeyOrder::new(false);
        for index in 0..self.nodes.bound() {
            let Some(node) = self.nodes.get_mut(index) else {
                continue;
            };
            node.chain = Chain::EMPTY;
            if matches!(node.state, State::Waiting | State::Ready | State::Retrying) {
                let node = self.nodes.remove(index);
                self.counters.abandoned += 1;
                self.abandoned.push(node.into_unsettled(false));
            }
        }
    }
}
