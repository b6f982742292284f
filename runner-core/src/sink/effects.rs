//! What a change of the queue requires of the outside, to be done after its lock is released.

use std::task::Waker;

use super::outcome::Fault;
use crate::delivery::Share;

/// What must be done outside of the lock.
#[must_use]
pub(crate) struct Effects<U> {
    /// Tasks to start; the duty is theirs already.
    pub(crate) recruits: usize,
    pub(crate) wakers: Wakers,
    /// Whether something was cancelled, which has to be known before it is woken.
    pub(crate) cancels: bool,
    /// Dropping an update runs code of the user.
    pub(crate) garbage: Option<Share<U>>,
    /// So does dropping an error.
    pub(crate) fault: Option<Fault>,
    /// And dropping a waker may run code of the runtime.
    pub(crate) stale: Option<Waker>,
}

impl<U> Effects<U> {
    /// Whether there is nothing to do but to drop an update and a waker, as mostly.
    #[inline]
    pub(crate) fn is_quiet(&self) -> bool {
        self.recruits == 0 && self.wakers.is_empty() && !self.cancels && self.fault.is_none()
    }
}

impl<U> Default for Effects<U> {
    fn default() -> Self {
        Self {
            recruits: 0,
            wakers: Wakers::default(),
            cancels: false,
            garbage: None,
            fault: None,
            stale: None,
        }
    }
}

/// Whom to wake. Mostly nobody or one, for which nothing is allocated.
#[derive(Debug, Default)]
pub(crate) struct Wakers {
    first: Option<Waker>,
    more: Vec<Waker>,
}

impl Wakers {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(crate) fn push(&mut self, waker: Waker) {
        match self.first {
            None => self.first = Some(waker),
            Some(_) => self.more.push(waker),
        }
    }

    /// Wakes and forgets all.
    pub(crate) fn wake(&mut self) {
        if let Some(waker) = self.first.take() {
            waker.wake();
        }
        for waker in self.more.drain(..) {
            waker.wake();
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.more.len()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::Wake,
    };

    use super::*;

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn all_are_woken_once() {
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let mut wakers = Wakers::default();
        for pushed in 0..3 {
            assert_eq!(wakers.is_empty(), pushed == 0);
            for _ in 0..pushed {
                wakers.push(Waker::from(Arc::clone(&count)));
            }
            wakers.wake();
            assert!(wakers.is_empty());
            wakers.push(Waker::noop().clone());
        }
        assert_eq!(count.0.load(Ordering::Relaxed), 3);
    }
}
