//! The locks of the core: those of `std`, or, where schedules are explored, those of `shuttle`.
//!
//! Whatever two threads may reach at once has its lock or atomic from here, so that the tests of
//! `schedules` try every order of their accesses. `RUSTFLAGS="--cfg shuttle"` turns that on, in the
//! crate's own unit tests and nowhere else.

#[cfg(all(test, shuttle))]
pub(crate) use shuttle::{
    sync::{Mutex, MutexGuard, atomic},
    thread_local,
};
#[cfg(not(all(test, shuttle)))]
pub(crate) use std::{
    sync::{Mutex, MutexGuard, atomic},
    thread_local,
};

/// Where a task leaves its waker for another thread.
#[cfg(not(all(test, shuttle)))]
pub(crate) use futures::task::AtomicWaker;

/// The same over a lock of `shuttle`, which switches tasks before each access.
#[cfg(all(test, shuttle))]
#[derive(Debug, Default)]
pub(crate) struct AtomicWaker(Mutex<Option<std::task::Waker>>);

#[cfg(all(test, shuttle))]
impl AtomicWaker {
    pub(crate) fn register(&self, waker: &std::task::Waker) {
        let waker = waker.clone();
        let replaced = self.lock().replace(waker);
        drop(replaced);
    }

    pub(crate) fn take(&self) -> Option<std::task::Waker> {
        self.lock().take()
    }

    pub(crate) fn wake(&self) {
        if let Some(waker) = self.take() {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<std::task::Waker>> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
