//! One thread for everything: a supplier that never waits leaves room for handlers and stops.

use std::{
    convert::Infallible,
    future::pending,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_io::block_on;
use futures::{StreamExt, channel::mpsc};
use runner_core::{Delivery, Runner, SinkOptions, UpdateSupplier};
use runner_smol::Smol;

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

#[test]
fn handlers_run_and_a_stop_ends_the_run_beside_a_supplier_that_never_waits() {
    let supplier = Eager::default();
    let (began, mut begun) = mpsc::unbounded();
    type State = (mpsc::UnboundedSender<usize>, Eager);
    let state = (began, supplier.clone());
    let handler = async |(began, supplier): State, _: Delivery<u32>| {
        let _ = began.unbounded_send(supplier.0.load(Ordering::Relaxed));
    };
    let smol = Arc::new(Smol::with_threads(NonZeroUsize::MIN));
    let handle = Runner::for_each_with(smol, supplier, state, handler)
        .sink(SinkOptions::concurrent().concurrency(NonZeroUsize::MAX))
        .start();
    // As the first handler has seen it, because this thread is another one.
    let calls = block_on(begun.next()).unwrap();
    let report = block_on(handle.stop()).unwrap();
    assert_eq!(report.counters.finished, report.counters.supplied);
    assert!(calls < MANY / 2, "{calls} calls");
}
