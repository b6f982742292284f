//! Tasks that wait for the state behind a lock to change.
//!
//! The list lives inside that lock: a task looks and registers in one critical section, so no change can
//! fall between the two. There is one entry per waiting task; its owner removes it on drop.

use std::task::Waker;

use super::effects::Wakers;

/// Wakers by what they wait for.
#[derive(Debug)]
pub(crate) struct Waiters<I> {
    entries: Vec<Entry<I>>,
    next: u64,
}

/// Names one waiting task between its polls.
#[derive(Debug, Default)]
pub(crate) struct WaiterId(Option<u64>);

impl WaiterId {
    /// Whether there may be anything to forget. It stays so after the task has been taken out.
    pub(crate) fn is_registered(&self) -> bool {
        self.0.is_some()
    }
}

#[derive(Debug)]
struct Entry<I> {
    id: u64,
    interest: I,
    waker: Waker,
}

impl<I> Waiters<I> {
    pub(crate) const fn new() -> Self {
        Self {
            entries: Vec::new(),
            next: 0,
        }
    }

    /// Adds the task, or renews its interest and waker. A replaced waker is returned so that it is
    /// dropped outside of the lock.
    pub(crate) fn register(
        &mut self,
        id: &mut WaiterId,
        interest: I,
        waker: &Waker,
    ) -> Option<Waker> {
        let known =
            id.0.and_then(|id| self.entries.iter_mut().find(|entry| entry.id == id));
        if let Some(entry) = known {
            entry.interest = interest;
            if entry.waker.will_wake(waker) {
                return None;
            }
            return Some(std::mem::replace(&mut entry.waker, waker.clone()));
        }
        self.entries.push(Entry {
            id: self.next,
            interest,
            waker: waker.clone(),
        });
        id.0 = Some(self.next);
        self.next += 1;
        None
    }

    /// Forgets the task. The waker is returned so that it is dropped outside of the lock.
    pub(crate) fn remove(&mut self, id: &mut WaiterId) -> Option<Waker> {
        let id = id.0.take()?;
        let index = self.entries.iter().position(|entry| entry.id == id)?;
        Some(self.entries.swap_remove(index).waker)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes out every waiter that `satisfied` names; wake them outside of the lock.
    pub(crate) fn take(&mut self, mut satisfied: impl FnMut(&I) -> bool, wakers: &mut Wakers) {
        let mut index = 0;
        while index < self.entries.len() {
            if satisfied(&self.entries[index].interest) {
                wakers.push(self.entries.swap_remove(index).waker);
            } else {
                index += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn a_dropped_waiter_leaves_nothing_behind() {
        let mut waiters = Waiters::new();
        for _ in 0..1_000 {
            let mut id = WaiterId::default();
            waiters.register(&mut id, (), Waker::noop());
            waiters.register(&mut id, (), Waker::noop());
            assert_eq!(waiters.entries.len(), 1);
            assert!(waiters.remove(&mut id).is_some());
            assert!(waiters.remove(&mut id).is_none());
        }
        assert!(waiters.entries.is_empty());
    }

    #[test]
    fn only_the_satisfied_are_taken_and_may_register_again() {
        let mut waiters = Waiters::new();
        let mut odd = WaiterId::default();
        waiters.register(&mut odd, 1, Waker::noop());
        waiters.register(&mut WaiterId::default(), 2, Waker::noop());
        let mut wakers = Wakers::default();
        waiters.take(|number| number % 2 == 1, &mut wakers);
        assert_eq!((wakers.len(), waiters.entries.len()), (1, 1));
        waiters.register(&mut odd, 3, Waker::noop());
        assert_eq!(waiters.entries.len(), 2);
    }
}
