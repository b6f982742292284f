//! One thread for everything: a supplier that never waits leaves room for handlers and signals.

use std::{
    convert::Infallible,
    future::{pending, ready},
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures::{StreamExt, channel::mpsc, stream};
use runner_core::{Delivery, Runner, SinkOptions, UpdateSupplier};
use runner_tokio::Tokio;

/// More calls than a supplier may get before others have had a turn.
const MANY: usize = 1_000;

/// Answers at once, as often as it is called; waits only after far too many calls.
#[derive(Clone, Default)]
struct Eager(Arc<AtomicUsize>);

impl UpdateSupplier for Eager {
    type Update = u32;
    type Error = Infallible;

    async fn supply(&mut self, limit: NonZeroUsize) -> Result<Vec<u32>, Infallible> {
        if self.0.fetch_add(1, Ordering::Relaxed) >= MANY {
            pending::<()>().await;
        }
        Ok(vec![0; limit.get()])
    }
}

#[tokio::test]
async fn handlers_run_and_a_stop_ends_the_run_beside_a_supplier_that_never_waits() {
    let supplier = Eager::default();
    let (began, mut begun) = mpsc::unbounded();
    let handler = async |began: mpsc::UnboundedSender<()>, _: Delivery<u32>| {
        let _ = began.unbounded_send(());
    };
    let handle =
        Runner::for_each_with(Arc::new(Tokio::current()), supplier.clone(), began, handler)
            .sink(SinkOptions::concurrent().concurrency(NonZeroUsize::MAX))
            .start();
    begun.next().await.unwrap();
    let report = handle.stop().await.unwrap();
    assert_eq!(report.counters.finished, report.counters.supplied);
    let calls = supplier.0.load(Ordering::Relaxed);
    assert!(calls < MANY / 2, "{calls} calls");
}

#[tokio::test]
async fn a_signal_ends_a_run_of_a_supplier_that_never_waits() {
    let supplier = Eager::default();
    let mut runner = Runner::for_each(
        Arc::new(Tokio::current()),
        supplier.clone(),
        async |_: Delivery<u32>| {},
    )
    .sink(SinkOptions::concurrent().concurrency(NonZeroUsize::MAX));
    runner.run_until(stream::once(ready(()))).await.unwrap();
    let calls = supplier.0.load(Ordering::Relaxed);
    assert!(calls < MANY / 2, "{calls} calls");
}
