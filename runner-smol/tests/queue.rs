//! A queue without a runner, on smol.

use std::{sync::Arc, thread, time::Duration};

use futures::executor::block_on;
use runner_core::{DecayingQueue, Delivery, QueueFault, SinkOptions};
use runner_smol::Smol;

const LONG: Duration = Duration::from_secs(3600);

#[test]
fn a_drain_ends_when_the_runtime_is_shut_down() {
    for is_polled in [false, true] {
        let smol = Smol::new();
        let queue = DecayingQueue::for_each(Arc::new(smol.clone()), async |_: Delivery<u32>| {
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
            smol.shut_down();
            draining.join().unwrap()
        } else {
            smol.shut_down();
            draining()
        };
        assert!(matches!(report.fault, Some(QueueFault::RuntimeGone)));
        assert_eq!(report.abandoned.len(), 3);
    }
}
