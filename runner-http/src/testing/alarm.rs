//! Deadlines for futures that no runtime drives.

use std::{
    future::Future,
    pin::pin,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use futures::{
    channel::oneshot,
    future::{Either, select},
};

/// One thread that wakes whoever waits. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Alarm {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<(Instant, oneshot::Sender<()>)>,
    is_over: bool,
}

impl Alarm {
    pub(super) fn new() -> Self {
        let shared = Arc::new(Shared::default());
        thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.ring()
        });
        Self { shared }
    }

    /// The output of `future`, or None if it took longer than `limit`.
    pub(super) async fn within<F: Future>(&self, limit: Duration, future: F) -> Option<F::Output> {
        let (sender, rung) = oneshot::channel();
        self.change(|state| state.waiting.push((Instant::now() + limit, sender)));
        match select(pin!(future), rung).await {
            Either::Left((output, _)) => Some(output),
            Either::Right(_) => None,
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self
            .shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        drop(state);
        self.shared.changed.notify_one();
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.change(|state| state.is_over = true);
    }
}

impl Shared {
    fn ring(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !state.is_over {
            let now = Instant::now();
            // Dropping a sender wakes whoever waits for it.
            state
                .waiting
                .retain(|(at, sender)| *at > now && !sender.is_canceled());
            let next = state.waiting.iter().map(|(at, _)| *at).min();
            let wait = next.map_or(Duration::from_secs(60), |at| at - now);
            state = self
                .changed
                .wait_timeout(state, wait)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}
