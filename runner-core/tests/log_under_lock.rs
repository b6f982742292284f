//! A subscriber of `tracing` is code of the user: it may look at the runner while a line is written.
#![cfg(feature = "tracing")]

mod common;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use common::{LONG, SECOND, always, n, start};
use runner_core::{
    RunnerHandle, SinkOptions,
    testing::{Plan, SimRuntime},
};
use tracing::{Event, Metadata, Subscriber, span};

static HANDLE: OnceLock<RunnerHandle<u32>> = OnceLock::new();

/// Looks at the runner with every line.
struct Curious(Arc<AtomicUsize>);

impl Subscriber for Curious {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("runner_core")
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, _: &Event<'_>) {
        if let Some(handle) = HANDLE.get() {
            let _ = (handle.stats(), handle.health(), handle.in_flight());
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[test]
fn a_subscriber_may_look_at_the_runner_when_a_handler_times_out() {
    let lines = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&lines);
    let (sender, ended) = mpsc::channel();
    // A deadlock holds the thread forever, so the verdict comes from another one.
    thread::spawn(move || {
        tracing::subscriber::set_global_default(Curious(seen)).expect("there is no other one");
        let sim = SimRuntime::new(1);
        let options = SinkOptions::concurrent()
            .concurrency(n(3))
            .timeout(SECOND)
            .detach_after_timeout(Some(n(2)));
        let (handle, _) = start(&sim, 0..3, always(&sim, Plan::hang()), options);
        assert!(HANDLE.set(handle).is_ok());
        sim.advance(LONG);
        let handle = HANDLE.get().expect("it was set");
        let stats = handle.stats();
        let _ = sim.block_on(handle.stop_within(Duration::ZERO));
        let _ = sender.send((stats.detached, stats.counters.detached));
    });
    let long = Duration::from_secs(60);
    let stats = ended.recv_timeout(long).expect("it deadlocked");
    assert_eq!(stats, (2, 2));
    assert!(lines.load(Ordering::Relaxed) >= 3);
}
