//! What an event of the queue asks the outside to do once the lock is released.

use std::task::Waker;

use super::outcome::{Fault, LateHandler};
use crate::consume::Item;

/// Work that must not happen under the lock, because it runs code of the user or of the runtime.
#[must_use]
pub(super) struct Effects<U> {
    /// Worker tasks to spawn. Each of them has a permit already.
    pub(super) spawn: usize,
    pub(super) wakers: Wakers,
    /// An update that has left the queue: its destructor is code of the user.
    pub(super) update: Option<Item<U>>,
    /// A fault that nobody will read: its error has a destructor, too.
    pub(super) fault: Option<Box<Fault>>,
    /// Handlers that go on after their timeout, to be logged and told to the callback.
    pub(super) late: Vec<LateHandler<U>>,
}

impl<U> Default for Effects<U> {
    fn default() -> Self {
        Self {
            spawn: 0,
            wakers: Wakers::default(),
            update: None,
            fault: None,
            late: Vec::new(),
        }
    }
}

/// Wakers to call. Mostly none or one, for which nothing is allocated.
#[derive(Debug, Default)]
pub(crate) struct Wakers {
    first: Option<Waker>,
    more: Vec<Waker>,
}

impl Wakers {
    pub(crate) fn push(&mut self, waker: Waker) {
        match self.first {
            None => self.first = Some(waker),
            Some(_) => self.more.push(waker),
        }
    }

    /// Wakes all of them and forgets them.
    pub(crate) fn wake(&mut self) {
        if let Some(waker) = self.first.take() {
            waker.wake();
            self.more.drain(..).for_each(Waker::wake);
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
            for _ in 0..pushed {
                wakers.push(Waker::from(Arc::clone(&count)));
            }
            wakers.wake();
            assert_eq!(wakers.len(), 0);
        }
        assert_eq!(count.0.load(Ordering::Relaxed), 3);
    }
}
