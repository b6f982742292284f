//! Waiting without a runtime: [`Timer`].

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Instant,
};

use futures::channel::oneshot;

/// Waits until an instant, under any executor.
///
/// All waits share one thread. It is started by the first of them and ends with the last one, so a
/// timer that nobody uses costs nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timer {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// By instant, and by number where instants are equal.
    waits: BTreeMap<(Instant, u64), oneshot::Sender<()>>,
    next: u64,
    has_thread: bool,
}

impl Timer {
    /// Returns at this instant, or at once if it has passed.
    ///
    /// # Errors
    ///
    /// The thread cannot be started.
    ///
    /// # Cancel safety
    ///
    /// A wait that is dropped is forgotten.
    pub(crate) async fn sleep_until(&self, at: Instant) -> io::Result<()> {
        if at <= Instant::now() {
            return Ok(());
        }
        let (sender, woken) = oneshot::channel();
        let (key, starts) = {
            let mut state = self.shared.lock();
            state.next += 1;
            let key = (at, state.next);
            state.waits.insert(key, sender);
            (key, !std::mem::replace(&mut state.has_thread, true))
        };
        let _wait = Wait {
            shared: &self.shared,
            key,
        };
        if starts {
            let shared = Arc::clone(&self.shared);
            let thread = thread::Builder::new().name("runner-http-timer".to_owned());
            if let Err(error) = thread.spawn(move || shared.run()) {
                // The others that wait by now fail as well.
                let failed = {
                    let mut state = self.shared.lock();
                    state.has_thread = false;
                    std::mem::take(&mut state.waits)
                };
                drop(failed);
                return Err(error);
            }
        } else {
            self.shared.changed.notify_one();
        }
        woken.await.map_err(|_| io::ErrorKind::Interrupted.into())
    }
}

/// Forgets a wait.
struct Wait<'a> {
    shared: &'a Shared,
    key: (Instant, u64),
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let forgotten = self.shared.lock().waits.remove(&self.key);
        if forgotten.is_some() {
            // The thread ends early if it was the last one.
            self.shared.changed.notify_one();
        }
    }
}

impl Shared {
    fn run(&self) {
        let mut state = self.lock();
        loop {
            let Some((&(at, number), _)) = state.waits.first_key_value() else {
                state.has_thread = false;
                return;
            };
            let now = Instant::now();
            if at > now {
                let waited = self.changed.wait_timeout(state, at - now);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            let due = state.waits.remove(&(at, number));
            drop(state);
            if let Some(due) = due {
                // It wakes a waker, which may do anything. Whoever waited may have gone.
                let _ = due.send(());
            }
            state = self.lock();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // What it guards is whole at any time.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, time::Duration};

    use async_io::block_on;
    use futures::{future::join_all, poll};

    use super::*;

    const SOON: Duration = Duration::from_millis(20);
    const LATER: Duration = Duration::from_secs(600);

    #[test]
    fn waits_end_in_order_and_never_early() {
        block_on(async {
            let timer = Timer::default();
            let began = Instant::now();
            let ended = Mutex::new(Vec::new());
            join_all([3, 1, 2, 0].map(async |number| {
                timer.sleep_until(began + SOON * number).await.unwrap();
                assert!(began.elapsed() >= SOON * number);
                ended.lock().unwrap().push(number);
            }))
            .await;
            assert_eq!(*ended.lock().unwrap(), [0, 1, 2, 3]);
        });
    }

    #[test]
    fn an_earlier_wait_comes_before_one_that_is_there() {
        block_on(async {
            let timer = Timer::default();
            let now = Instant::now();
            let mut late = pin!(timer.sleep_until(now + LATER));
            assert!(poll!(&mut late).is_pending());
            timer.sleep_until(now + SOON).await.unwrap();
            assert!(poll!(&mut late).is_pending());
        });
    }

    #[test]
    fn the_thread_ends_when_nobody_waits() {
        block_on(async {
            let timer = Timer::default();
            {
                let mut wait = pin!(timer.sleep_until(Instant::now() + LATER));
                assert!(poll!(&mut wait).is_pending());
                assert!(timer.shared.lock().has_thread);
            }
            assert!(timer.shared.lock().waits.is_empty());
            while timer.shared.lock().has_thread {
                thread::yield_now();
            }
            // The next one starts another.
            timer.sleep_until(Instant::now() + SOON).await.unwrap();
        });
    }

    #[test]
    fn what_has_passed_is_not_waited_for() {
        let timer = Timer::default();
        block_on(timer.sleep_until(Instant::now())).unwrap();
        assert!(!timer.shared.lock().has_thread);
    }
}
