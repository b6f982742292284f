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
