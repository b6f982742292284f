//! A queue without a runner, on tokio.

use std::{sync::Arc, thread, time::Duration};

use futures::executor::block_on;
use runner_core::{DecayingQueue, Delivery, QueueFault, SinkOptions};
use runner_tokio::Tokio;

const LONG: Duration = Duration::from_secs(3600);

/// A sleep of tokio panics when its runtime is gone. The drain has one, and so has the clock of the queue.
#[test]
fn a_drain_ends_when_the_runtime_is_shut_down() {
    for is_polled in [false, true] {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let tokio = Arc::new(Tokio::new(runtime.handle().clone()));
        let queue = DecayingQueue::for_each(tokio, async |_: Delivery<u32>| {
            std::future::pending::<()>().await;
        })
        .options(SinkOptions::concurrent().timeout(LONG))
        .build();
        drop(queue.add(0..3).unwrap());
        let other = queue.clone();
        let draining = move || block_on(other.drain_within(LONG));
        let report = if is_polled {
            let draining = thread::spawn(draining);
            // It is under way.
            block_on(queue.closed());
            drop(runtime);
            draining.join().unwrap()
        } else {
            drop(runtime);
            draining()
        };
        assert!(matches!(report.fault, Some(QueueFault::RuntimeGone)));
        assert_eq!(report.abandoned.len(), 3);
    }
}
