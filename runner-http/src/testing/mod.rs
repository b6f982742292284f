//! What every HTTP client must hold, as one suite for all of them.
//!
//! Everything runs on loopback against a scripted peer on threads of its own, so that no runtime
//! is needed, and any may be in use.

mod alarm;
mod cases;
#[cfg(all(test, feature = "ureq"))]
mod faults;
pub(crate) mod peer;

use std::{
    any::Any,
    panic::{self, AssertUnwindSafe},
    sync::{Arc, Mutex},
    task::{Context, Wake, Waker},
    thread::{self, Thread},
    time::Duration,
};

use futures::future::BoxFuture;

use self::cases::Lab;
use crate::client::HttpClient;

/// Checks a client against the contract of [`HttpClient`], without a runtime.
///
/// `make` makes a new client for every case. Takes a few seconds. The cases that count threads and
/// descriptors count those of the whole process (on Linux; elsewhere they are skipped): call this
/// from a test binary in which nothing else runs meanwhile.
///
/// ```no_run
/// use std::time::Duration;
///
/// let measured = runner_http::testing::conformance(runner_http::UreqClient::new);
/// assert!(measured.cancel_median < Duration::from_millis(50));
/// ```
///
/// # Panics
///
/// If any case fails, with the names and the messages of all that did.
pub fn conformance<C: HttpClient>(make: impl Fn() -> C + Sync) -> Measured {
    conformance_on(make, park_on)
}

/// The same as [`conformance`], with every case driven by `drive`: for clients that need their
/// runtime, and to show that the others work inside it.
///
/// # Panics
///
/// If any case fails, with the names and the messages of all that did.
pub fn conformance_on<C: HttpClient>(
    make: impl Fn() -> C + Sync,
    drive: impl Fn(BoxFuture<'_, ()>),
) -> Measured {
    run(make, drive, &[])
}

/// The same as [`conformance`], for clients that reach the peer through a proxy.
///
/// Leaves out the cases in which a client must know what the peer did to a connection at rest before
/// it sends the next request: a proxy passes that on later.
///
/// # Panics
///
/// If any case fails, with the names and the messages of all that did.
pub fn conformance_through_proxy<C: HttpClient>(make: impl Fn() -> C + Sync) -> Measured {
    run(make, park_on, cases::SEE_CONNECTIONS_AT_REST)
}

fn run<C: HttpClient>(
    make: impl Fn() -> C + Sync,
    drive: impl Fn(BoxFuture<'_, ()>),
    without: &[&str],
) -> Measured {
    let lab = Lab::new(&make);
    let mut failures = Vec::new();
    let cases = cases::all::<C>().into_iter();
    for case in cases.filter(|case| !without.contains(&case.name)) {
        let run = AssertUnwindSafe(|| drive((case.run)(&lab)));
        if let Err(panic) = panic::catch_unwind(run) {
            failures.push(format!("{}: {}", case.name, message(&*panic)));
        }
    }
    assert!(
        failures.is_empty(),
        "{} cases failed:\n{}",
        failures.len(),
        failures.join("\n")
    );
    Measured::new(&lab.cancels)
}

/// The names of all cases, in the order in which they run.
#[must_use]
pub fn case_names() -> Vec<&'static str> {
    cases::names()
}

/// What the suite measured on the way.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Measured {
    /// How many cancels were measured.
    pub cancels: usize,
    /// From the drop of the future until the peer saw the close: half of them took at most this.
    pub cancel_median: Duration,
    /// The longest of them.
    pub cancel_max: Duration,
}

impl Measured {
    fn new(cancels: &Mutex<Vec<Duration>>) -> Self {
        let mut cancels = cancels.lock().expect("no case panicked").clone();
        cancels.sort_unstable();
        Self {
            cancels: cancels.len(),
            cancel_median: cancels.get(cancels.len() / 2).copied().unwrap_or_default(),
            cancel_max: cancels.last().copied().unwrap_or_default(),
        }
    }
}

/// Drives a future on this thread and nothing else.
pub(crate) fn park_on(mut future: BoxFuture<'_, ()>) {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    while future
        .as_mut()
        .poll(&mut Context::from_waker(&waker))
        .is_pending()
    {
        thread::park();
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("panicked")
}
