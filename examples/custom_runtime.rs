//! A runtime of your own: all that the runner needs is to start a task, to sleep and to tell the time.
//!
//! ```sh
//! cargo run --example custom_runtime
//! ```
//!
//! The least that works: a thread for every task, and a thread for every sleep. Fine for a handful of
//! updates, and a frame for something better. The public conformance suite
//! (`runner::testing::conformance`) checks such a runtime; here it runs a few updates.

use std::{
    convert::Infallible,
    future::poll_fn,
    num::NonZeroUsize,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    task::{Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use futures::executor::block_on;
use runner::{BoxFuture, Delivery, Key, Runner, Runtime, RuntimeExt, UpdateSupplier};

#[derive(Debug)]
struct Threads;

impl Runtime for Threads {
    fn spawn(&self, task: BoxFuture<'static>) {
        // A panic ends its own thread and no other task.
        thread::spawn(move || block_on(task));
    }

    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static> {
        let alarm = Arc::new(Mutex::new(None::<Waker>));
        let mut is_set = false;
        Box::pin(poll_fn(move |cx| {
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            // The last waker counts: a future may move from task to task.
            *alarm.lock().expect("nobody panics with it") = Some(cx.waker().clone());
            if !std::mem::replace(&mut is_set, true) {
                let alarm = Arc::clone(&alarm);
                thread::spawn(move || {
                    thread::sleep(deadline.saturating_duration_since(Instant::now()));
                    if let Some(waker) = alarm.lock().expect("nobody panics with it").take() {
                        waker.wake();
                    }
                });
            }
            Poll::Pending
        }))
    }

    fn now(&self) -> Instant {
        Instant::now()
    }
}

/// Thirty numbers.
struct Numbers(u32);

impl UpdateSupplier for Numbers {
    type Update = u32;
    type Error = Infallible;

    async fn supply(&mut self, limit: NonZeroUsize) -> Result<Vec<u32>, Infallible> {
        if self.0 == 30 {
            std::future::pending::<()>().await;
        }
        let limit = u32::try_from(limit.get()).unwrap_or(u32::MAX);
        let end = self.0.saturating_add(limit).min(30);
        Ok((std::mem::replace(&mut self.0, end)..end).collect())
    }
}

fn main() {
    let runtime = Arc::new(Threads);
    let sum = Arc::new(AtomicU32::new(0));
    let handler = async |(runtime, sum): (Arc<Threads>, Arc<AtomicU32>), number: Delivery<u32>| {
        runtime.sleep(Duration::from_millis(5)).await;
        sum.fetch_add(*number, Ordering::Relaxed);
    };
    let state = (Arc::clone(&runtime), Arc::clone(&sum));
    let handle = Runner::for_each_with(runtime, Numbers(0), state, handler)
        .sequentialize(|number: &u32| [Key::new("digit", i64::from(number % 10))])
        .start();
    while handle.stats().counters.finished < 30 {
        thread::sleep(Duration::from_millis(1));
    }
    let report = block_on(handle.stop()).expect("nothing fails");
    println!("{} updates finished on threads", report.counters.finished);
    println!("their sum is {}", sum.load(Ordering::Relaxed));
}
