//! A runtime whose every task is a thread of `shuttle`: [`Threads`].

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Instant,
};

use shuttle::future;

use crate::{BoxFuture, Runtime};

/// Tasks that run at any time, and a clock that jumps to the next deadline at any time.
///
/// Its own state is behind a lock of `std`: no switch happens inside of it, and the order in which
/// it is taken is of no interest.
#[derive(Clone, Debug)]
pub(super) struct Threads(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
}

struct State {
    now: Instant,
    timers: Vec<Timer>,
    next_id: u64,
    /// Every task that has not ended.
    slots: Vec<Arc<Slot>>,
    gone: bool,
    clock: Option<Waker>,
    /// The task that waits for the last one to end.
    watcher: Option<Waker>,
}

struct Timer {
    at: Instant,
    id: u64,
    waker: Waker,
}

/// One task. Empty while it is polled.
struct Slot {
    future: Mutex<Option<BoxFuture<'static>>>,
    waker: Mutex<Option<Waker>>,
}

impl Threads {
    /// Runs `test` with a runtime, waits until every task has ended, and ends the clock.
    pub(super) fn run<T>(test: impl AsyncFnOnce(Self) -> T) -> T {
        let this = Self(Arc::new(Shared {
            state: Mutex::new(State {
                now: Instant::now(),
                timers: Vec::new(),
                next_id: 0,
                slots: Vec::new(),
                gone: false,
                clock: None,
                watcher: None,
            }),
        }));
        let clock = future::spawn(this.clone().keep_time());
        future::block_on(async {
            let output = test(this.clone()).await;
            this.all_ended().await;
            let waker = {
                let mut state = this.lock();
                assert!(state.timers.is_empty(), "a sleep outlives its task");
                state.gone = true;
                state.clock.take()
            };
            if let Some(waker) = waker {
                waker.wake();
            }
            clock.await.expect("the clock ends");
            output
        })
    }

    /// Drops every task, as a runtime of many threads does: each when it is not being polled.
    pub(super) fn shut_down(&self) {
        let (slots, timers) = {
            let mut state = self.lock();
            state.gone = true;
            (state.slots.clone(), std::mem::take(&mut state.timers))
        };
        drop(timers);
        for slot in slots {
            let future = unpoisoned(&slot.future).take();
            drop(future);
            let waker = unpoisoned(&slot.waker).take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    async fn all_ended(&self) {
        poll_fn(|cx| {
            let mut state = self.lock();
            if state.slots.is_empty() {
                return Poll::Ready(());
            }
            state.watcher = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    async fn keep_time(self) {
        loop {
            let due = poll_fn(|cx| {
                let mut state = self.lock();
                let Some(at) = state.timers.iter().map(|timer| timer.at).min() else {
                    if state.gone {
                        return Poll::Ready(None);
                    }
                    state.clock = Some(cx.waker().clone());
                    return Poll::Pending;
                };
                state.now = state.now.max(at);
                let timers = std::mem::take(&mut state.timers);
                let (due, later) = timers.into_iter().partition(|timer| timer.at <= at);
                state.timers = later;
                Poll::Ready(Some::<Vec<Timer>>(due))
            });
            let Some(due) = due.await else {
                return;
            };
            for timer in due {
                timer.waker.wake();
            }
            future::yield_now().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        unpoisoned(&self.0.state)
    }

    fn ended(&self, slot: &Arc<Slot>) {
        let watcher = {
            let mut state = self.lock();
            state.slots.retain(|other| !Arc::ptr_eq(other, slot));
            match state.slots.is_empty() {
                true => state.watcher.take(),
                false => None,
            }
        };
        if let Some(watcher) = watcher {
            watcher.wake();
        }
    }
}

impl Runtime for Threads {
    fn spawn(&self, task: BoxFuture<'static>) {
        let slot = Arc::new(Slot {
            future: Mutex::new(Some(task)),
            waker: Mutex::new(None),
        });
        {
            let mut state = self.lock();
            if state.gone {
                drop(state);
                drop(slot);
                return;
            }
            state.slots.push(Arc::clone(&slot));
        }
        let threads = self.clone();
        future::spawn(async move {
            poll_fn(|cx| threads.poll(&slot, cx)).await;
            threads.ended(&slot);
        });
    }

    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static> {
        Box::pin(Sleep {
            threads: self.clone(),
            deadline,
            id: None,
        })
    }

    fn now(&self) -> Instant {
        self.lock().now
    }

    fn entropy(&self) -> u64 {
        // A schedule can only be replayed if nothing else is drawn.
        4
    }
}

impl Threads {
    fn poll(&self, slot: &Slot, cx: &mut Context<'_>) -> Poll<()> {
        *unpoisoned(&slot.waker) = Some(cx.waker().clone());
        let taken = unpoisoned(&slot.future).take();
        let Some(mut future) = taken else {
            return Poll::Ready(());
        };
        if future.as_mut().poll(cx).is_ready() || self.lock().gone {
            drop(future);
            return Poll::Ready(());
        }
        *unpoisoned(&slot.future) = Some(future);
        Poll::Pending
    }
}

struct Sleep {
    threads: Threads,
    deadline: Instant,
    id: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.threads.lock();
        let own = self.id;
        let old = (state.timers.iter().position(|timer| Some(timer.id) == own))
            .map(|index| state.timers.swap_remove(index));
        if state.gone {
            // No sleep of a runtime that was shut down ends.
            drop(state);
            drop(old);
            return Poll::Pending;
        }
        if self.deadline <= state.now {
            drop(state);
            drop(old);
            return Poll::Ready(());
        }
        let id = state.next_id;
        state.next_id += 1;
        state.timers.push(Timer {
            at: self.deadline,
            id,
            waker: cx.waker().clone(),
        });
        let clock = state.clock.take();
        drop(state);
        drop(old);
        self.id = Some(id);
        if let Some(clock) = clock {
            clock.wake();
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        let own = self.id;
        let timer = {
            let mut state = self.threads.lock();
            let index = state.timers.iter().position(|timer| Some(timer.id) == own);
            index.map(|index| state.timers.swap_remove(index))
        };
        drop(timer);
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("tasks", &self.slots.len())
            .field("timers", &self.timers.len())
            .finish_non_exhaustive()
    }
}

pub(super) fn unpoisoned<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
