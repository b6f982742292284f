//! The duty to start updates: how many tasks have it, who gets it, and what it takes.

use std::task::Waker;

use super::{
    effects::Wakers,
    node::{Node, State},
    parked::Call,
    queue::{Job, Phase, Queue},
    ready::{Fresh, Next},
};

impl<U> Queue<U> {
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
        let mut left = wanted;
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
        self.idle -= 1;
        self.take(&mut true)
    }

    /// Takes the next update that may start; if there is none, takes the duty from a task that has it.
    ///
    /// Both in one critical section, or an update that arrives in between would be stranded.
    #[inline]
    pub(super) fn take(&mut self, hungry: &mut bool) -> Option<Job<U>> {
        if self.startable() == 0 {
            self.hungry -= usize::from(std::mem::take(hungry));
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
            ahead: None,
        })
    }

    /// Whether a task whose update has ended may start the next one.
    ///
    /// It need not have the duty for that: it takes a place that has just become free, and whoever has
    /// the duty goes on as before. If the tasks that start updates are bounded, it takes the duty on.
    #[inline]
    pub(super) fn may_follow(&mut self, hungry: &mut bool) -> bool {
        if *hungry || !self.limits.strict {
            return true;
        }
        let free = self.hungry < self.limits.workers;
        if free {
            self.hungry += 1;
            *hungry = true;
        }
        free
    }
}
