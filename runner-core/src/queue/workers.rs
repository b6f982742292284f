//! Slots, permits to start, and idle tasks.
//!
//! A *slot* is one of the places that the concurrency allows. A *permit* is the right of a worker task to
//! look for an update and to poll its handler for the first time. A worker gives its permit up when the
//! handler is pending or when nothing is left to start, so few permits suffice, however many handlers wait.

use std::{num::NonZeroUsize, sync::Arc, thread};

use super::{
    effects::Wakers,
    mailbox::{Command, Mailbox},
    options::Limits,
};

#[derive(Debug)]
pub(super) struct Workers {
    /// How many slots there are.
    pub(super) concurrency: usize,
    /// How many slots are taken.
    pub(super) running: usize,
    /// Handlers that go on after their timeout without a slot, and how many may: `None`, as many as may run.
    pub(super) detached: usize,
    pub(super) max_detached: Option<NonZeroUsize>,
    /// Updates about which the error policy is asked.
    pub(super) deciding: usize,
    /// How many permits there are.
    pub(super) max_permits: usize,
    /// How many permits are taken.
    pub(super) permits: usize,
    /// Of these, how many have not been used yet: their workers are on their way to take an update.
    pub(super) unused: usize,
    /// Whether the number of workers was set. Then a worker whose handler has been pending needs a permit
    /// again for the next update. Otherwise it takes over the slot that it has just freed.
    pub(super) strict: bool,
    /// Tasks that have nothing to do. The last one to come is the first one to be woken.
    idle: Vec<Arc<Mailbox>>,
}

/// How many idle tasks are kept. As many as a bot needs again and again with batches of a hundred;
/// to wake one costs a tenth of a spawn.
const MAX_IDLE: usize = 64;

impl Workers {
    pub(super) fn new(limits: &Limits) -> Self {
        let available = || thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let concurrency = limits.concurrency.get();
        Self {
            concurrency,
            running: 0,
            detached: 0,
            deciding: 0,
            max_detached: limits.max_detached(),
            max_permits: limits.workers.map_or_else(available, NonZeroUsize::get),
            permits: 0,
            unused: 0,
            strict: limits.workers.is_some(),
            idle: Vec::new(),
        }
    }

    /// How many slots are free. None while a lowered concurrency is exceeded.
    pub(super) fn free_slots(&self) -> usize {
        self.concurrency.saturating_sub(self.running)
    }

    /// A handler goes on after its timeout. Whether it leaves its slot.
    pub(super) fn detach(&mut self) -> bool {
        let max = self.max_detached.map(NonZeroUsize::get);
        let detach = self.detached < max.unwrap_or(self.concurrency);
        if detach {
            self.running -= 1;
            self.detached += 1;
        }
        detach
    }

    /// An attempt has ended, with the policy or without.
    pub(super) fn end(&mut self, detached: bool, deciding: bool) {
        self.deciding -= usize::from(deciding);
        if detached {
            self.detached -= 1;
        } else {
            self.running -= 1;
        }
    }

    /// Whether a worker that has completed an update may start the next one. It takes a permit if it has
    /// to have one.
    pub(super) fn acquire_permit(&mut self, permit: &mut bool) -> bool {
        if *permit || !self.strict {
            return true;
        }
        self.take_permit(permit)
    }

    fn take_permit(&mut self, permit: &mut bool) -> bool {
        *permit = self.permits < self.max_permits;
        self.permits += usize::from(*permit);
        *permit
    }

    pub(super) fn give_up_permit(&mut self, permit: &mut bool) {
        self.permits -= usize::from(std::mem::take(permit));
    }

    /// The worker yields before its next update, so its permit counts as unused. It gets one if it has none.
    pub(super) fn keep_permit(&mut self, startable: usize, permit: &mut bool) {
        if !*permit && startable > 0 {
            self.take_permit(permit);
        }
        self.unused += usize::from(*permit);
    }

    /// Gives permits to as many workers as can use one. Returns how many tasks to spawn; the others were
    /// idle and have to be woken.
    pub(super) fn notify(&mut self, startable: usize, wakers: &mut Wakers) -> usize {
        let free = self.max_permits.saturating_sub(self.permits);
        let mut wanted = startable.saturating_sub(self.unused).min(free);
        self.permits += wanted;
        self.unused += wanted;
        while wanted > 0
            && let Some(mailbox) = self.idle.pop()
        {
            mailbox.post(Command::Start, wakers);
            wanted -= 1;
        }
        wanted
    }

    /// Keeps a task that has nothing to do. `false` if there are enough.
    pub(super) fn go_idle(&mut self, mailbox: &Arc<Mailbox>) -> bool {
        let keep = self.idle.len() < MAX_IDLE;
        if keep {
            self.idle.push(Arc::clone(mailbox));
        }
        keep
    }

    /// Forgets an idle task that was dropped. `false` if it was not idle any more.
    pub(super) fn remove_idle(&mut self, mailbox: &Arc<Mailbox>) -> bool {
        let index = self.idle.iter().position(|idle| idle.is_same(mailbox));
        index.map(|index| self.idle.remove(index)).is_some()
    }

    /// Ends every idle task.
    pub(super) fn dismiss(&mut self, wakers: &mut Wakers) {
        for mailbox in self.idle.drain(..) {
            mailbox.post(Command::End, wakers);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::queue::SinkOptions;

    fn workers(permits: usize) -> Workers {
        let permits = NonZeroUsize::new(permits).expect("not zero");
        Workers::new(&SinkOptions::concurrent().workers(permits).limits)
    }

    fn mailbox() -> Arc<Mailbox> {
        let mailbox = Arc::new(Mailbox::default());
        mailbox.register(Waker::noop());
        mailbox
    }

    #[test]
    fn no_more_workers_are_woken_than_can_use_a_permit() {
        let mut workers = workers(3);
        let wakers = &mut Wakers::default();
        assert_eq!(workers.notify(2, wakers), 2);
        // These two have not taken an update yet, so they take the next two.
        assert_eq!(workers.notify(2, wakers), 0);
        assert_eq!(workers.notify(10, wakers), 1);
        assert_eq!(workers.notify(10, wakers), 0);
        workers.give_up_permit(&mut true);
        workers.unused -= 1;
        assert_eq!(workers.notify(10, wakers), 1);
        assert_eq!(wakers.len(), 0);
    }

    #[test]
    fn the_last_task_to_be_idle_is_woken_first_and_told_once() {
        let mut workers = workers(2);
        let tasks = [mailbox(), mailbox(), mailbox()];
        for task in &tasks {
            assert!(workers.go_idle(task));
        }
        let wakers = &mut Wakers::default();
        assert_eq!(workers.notify(2, wakers), 0);
        let commands = tasks.each_ref().map(|task| task.take());
        assert_eq!(commands, [None, Some(Command::Start), Some(Command::Start)]);
        assert_eq!(tasks[2].take(), None);
        workers.dismiss(wakers);
        assert_eq!((tasks[0].take(), wakers.len()), (Some(Command::End), 3));
        assert!(!workers.remove_idle(&tasks[0]));
    }

    #[test]
    fn not_every_idle_task_is_kept_and_one_that_is_dropped_is_forgotten() {
        let mut workers = workers(1);
        let tasks: Vec<_> = (0..=MAX_IDLE).map(|_| mailbox()).collect();
        let kept = tasks.iter().filter(|task| workers.go_idle(task)).count();
        assert_eq!(kept, MAX_IDLE);
        assert!(workers.remove_idle(&tasks[0]));
        assert!(!workers.remove_idle(&tasks[0]));
        assert!(workers.go_idle(&tasks[MAX_IDLE]));
    }
}
