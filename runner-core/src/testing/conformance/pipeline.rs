//! A whole runner on the runtime.

use std::{
    convert::Infallible,
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{StreamExt, channel::mpsc};

use super::{Subject, drive, tasks::quiet_panic};
use crate::{
    BoxError, Delivery, Key, Lease, Runner, RuntimeExt, SinkOptions, UpdateSink, UpdateSupplier,
};

/// Supplies the numbers from 0 to a limit, then waits for ever.
pub(super) struct Feed {
    next: u64,
    end: u64,
}

impl Feed {
    pub(super) fn new(count: u64) -> Self {
        Self {
            next: 0,
            end: count,
        }
    }
}

impl UpdateSupplier for Feed {
    type Update = u64;
    type Error = Infallible;

    async fn supply(&mut self, limit: NonZeroUsize) -> Result<Vec<u64>, Infallible> {
        if self.next == self.end {
            std::future::pending::<()>().await;
        }
        let first = self.next;
        self.next = self.end.min(first + limit.get() as u64);
        Ok((first..self.next).collect())
    }
}

pub(super) fn runs(subject: &mut dyn Subject) {
    const UPDATES: u64 = 2_000;
    let runtime = subject.runtime();
    let (begin, begun) = mpsc::unbounded();
    let clock = Arc::clone(&runtime);
    let handle = Runner::for_each(runtime, Feed::new(UPDATES), move |update: Delivery<u64>| {
        let (clock, begin) = (Arc::clone(&clock), begin.clone());
        async move {
            let _ = begin.unbounded_send(*update);
            match *update % 100 {
                1 => quiet_panic(),
                2 => return Err(BoxError::from("refused")),
                3 => clock.sleep(Duration::from_millis(1)).await,
                _ => {}
            }
            Ok(())
        }
    })
    .start();
    let report = drive(subject, async {
        // Stopped at the moment at which the last one has begun; the report waits for its end.
        let _ = begun.take(UPDATES as usize).count().await;
        handle.stop().await
    });
    let report = report.expect("a requested stop is no error");
    assert_eq!(report.counters.supplied, UPDATES);
    assert_eq!(report.counters.panicked, UPDATES / 100);
    assert_eq!(report.counters.failed, UPDATES / 100);
    assert_eq!(report.counters.finished, UPDATES / 100 * 98);
    assert!(report.abandoned.is_empty());
}

pub(super) fn keeps_order(subject: &mut dyn Subject) {
    const UPDATES: u64 = 3_000;
    const CHATS: u64 = 10;
    let runtime = subject.runtime();
    let seen: Arc<[Mutex<Vec<u64>>]> = (0..CHATS).map(|_| Mutex::default()).collect();
    let (end, ended) = mpsc::unbounded();
    let log = Arc::clone(&seen);
    let clock = Arc::clone(&runtime);
    let handle = Runner::for_each(runtime, Feed::new(UPDATES), move |update: Delivery<u64>| {
        let (log, clock, end) = (Arc::clone(&log), Arc::clone(&clock), end.clone());
        async move {
            let chat = &log[(*update % CHATS) as usize];
            if update.is_multiple_of(7) {
                clock.sleep(Duration::from_micros(200)).await;
            }
            let mut chat = chat.lock().unwrap_or_else(PoisonError::into_inner);
            chat.push(*update);
            let _ = end.unbounded_send(());
        }
    })
    .sequentialize(|update| [Key::new("chat", (update % CHATS) as i64)])
    .start();
    let report = drive(subject, async {
        let _ = ended.take(UPDATES as usize).count().await;
        handle.stop().await
    });
    assert_eq!(report.expect("a requested stop").counters.finished, UPDATES);
    for (chat, seen) in seen.iter().enumerate() {
        let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let expected: Vec<u64> = (chat as u64..UPDATES).step_by(CHATS as usize).collect();
        assert_eq!(*seen, expected, "chat {chat}");
    }
}

/// Finishes what it gets, and sends it on.
struct Forward(mpsc::UnboundedSender<u64>);

impl UpdateSink<u64> for Forward {
    type Error = BoxError;

    async fn handle(&mut self, group: Vec<Lease<u64>>) -> Result<(), BoxError> {
        for lease in group {
            let _ = self.0.unbounded_send(*lease);
            match *lease % 100 {
                1 => quiet_panic(),
                2 => return Err("refused".into()),
                3 => drop(lease),
                _ => drop(lease.finish()),
            }
        }
        Ok(())
    }

    // So few that a panic or an error costs exactly the update at hand.
    fn max_group(&self) -> NonZeroUsize {
        NonZeroUsize::MIN
    }
}

pub(super) fn hands_over(subject: &mut dyn Subject) {
    const UPDATES: u64 = 2_000;
    let (forward, forwarded) = mpsc::unbounded();
    let feed = Feed::new(UPDATES);
    let handle = Runner::with_sink(subject.runtime(), feed, Forward(forward)).start();
    let (seen, report) = drive(subject, async {
        let seen: Vec<u64> = forwarded.take(UPDATES as usize).collect().await;
        (seen, handle.stop().await)
    });
    assert!(seen.iter().copied().eq(0..UPDATES), "in order of arrival");
    let counters = report.expect("a requested stop is no error").counters;
    assert_eq!(counters.panicked, UPDATES / 100);
    assert_eq!(counters.failed, UPDATES / 100 * 2);
    assert_eq!(counters.finished, UPDATES / 100 * 97);
}

/// Finishes what it gets, and sends on how much that was.
struct Count(mpsc::UnboundedSender<usize>);

impl UpdateSink<u64> for Count {
    type Error = Infallible;

    async fn handle(&mut self, group: Vec<Lease<u64>>) -> Result<(), Infallible> {
        let _ = self.0.unbounded_send(group.len());
        for lease in group {
            lease.finish();
        }
        Ok(())
    }

    fn max_group(&self) -> NonZeroUsize {
        NonZeroUsize::MAX
    }

    fn linger(&self) -> Duration {
        // Never waited for, because nothing more can come.
        Duration::from_secs(60 * 60)
    }
}

pub(super) fn hands_batches_over_whole(subject: &mut dyn Subject) {
    const BATCHES: usize = 100;
    // In two halves, one after the other, because every key has two updates.
    let (count, counted) = mpsc::unbounded();
    let feed = Feed::new(BATCHES as u64 * 100);
    let handle = Runner::with_sink(subject.runtime(), feed, Count(count))
        .sink(SinkOptions::batch())
        .sequentialize(|update| [Key::new("pair", (update / 2) as i64)])
        .start();
    let (sizes, report) = drive(subject, async {
        let sizes = counted.take(BATCHES * 2).collect::<Vec<_>>().await;
        (sizes, handle.stop().await)
    });
    assert_eq!(sizes, [50; BATCHES * 2]);
    let counters = report.expect("a requested stop is no error").counters;
    assert_eq!(counters.finished, BATCHES as u64 * 100);

    // In pieces of as many as may be in flight, because nothing has a key.
    let (count, counted) = mpsc::unbounded();
    let feed = Feed::new(BATCHES as u64 * 100);
    let handle = Runner::with_sink(subject.runtime(), feed, Count(count))
        .sink(SinkOptions::batch().concurrency(const { NonZeroUsize::new(60).unwrap() }))
        .start();
    let (sizes, report) = drive(subject, async {
        let sizes = counted.take(BATCHES * 2).collect::<Vec<_>>().await;
        (sizes, handle.stop().await)
    });
    assert_eq!(sizes, [60, 40].repeat(BATCHES));
    let counters = report.expect("a requested stop is no error").counters;
    assert_eq!(counters.finished, BATCHES as u64 * 100);
}

pub(super) fn times_out_and_cancels(subject: &mut dyn Subject) {
    let runtime = subject.runtime();
    let (begin, begun) = mpsc::unbounded();
    let (clock, waiting) = (Arc::clone(&runtime), Arc::clone(&runtime));
    let options = SinkOptions::concurrent().timeout(Duration::from_millis(20));
    let handle = Runner::for_each(runtime, Feed::new(4), move |update: Delivery<u64>| {
        let (clock, begin) = (Arc::clone(&clock), begin.clone());
        async move {
            let hour = Duration::from_secs(60 * 60);
            if *update == 3 {
                // Far beyond the timeout of the others.
                update.extend(2 * hour);
            }
            let _ = begin.unbounded_send(*update);
            clock.sleep(hour).await;
        }
    })
    .sink(options)
    .start();
    let report = drive(subject, async {
        let _ = begun.take(4).count().await;
        while handle.stats().counters.timed_out < 3 {
            waiting.sleep(Duration::from_millis(1)).await;
        }
        handle.stop_within(Duration::ZERO).await
    });
    let report = report.expect("a requested stop is no error");
    assert_eq!(report.counters.timed_out, 3);
    let abandoned: Vec<u64> = report.abandoned.iter().map(|left| *left.update).collect();
    assert_eq!(abandoned, [3]);
}
