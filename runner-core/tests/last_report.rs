//! What the runner keeps of a run that is over, and how it lets go of it.

mod common;

use std::{
    convert::Infallible,
    future::pending,
    num::NonZeroUsize,
    panic::resume_unwind,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use common::{SECOND, runtime};
use runner_core::{Delivery, Runner, RunnerHandle, UpdateSupplier, testing::SimRuntime};

/// An update that panics when it is dropped.
struct Bomb(Arc<AtomicUsize>);

impl Drop for Bomb {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
        if !std::thread::panicking() {
            resume_unwind(Box::new("dropped"));
        }
    }
}

/// Supplies one bomb per run.
struct Bombs {
    exploded: Arc<AtomicUsize>,
    supplied: bool,
}

impl UpdateSupplier for Bombs {
    type Update = Bomb;
    type Error = Infallible;

    async fn supply(&mut self, _: NonZeroUsize) -> Result<Vec<Bomb>, Infallible> {
        if std::mem::replace(&mut self.supplied, true) {
            pending::<()>().await;
        }
        Ok(vec![Bomb(Arc::clone(&self.exploded))])
    }

    async fn close(&mut self, _: usize) -> Result<runner_core::Closing, Infallible> {
        self.supplied = false;
        Ok(runner_core::Closing::default())
    }
}

/// A runner whose first run has abandoned an update that nobody but the last report holds.
fn stopped_with_a_bomb(sim: &SimRuntime) -> (RunnerHandle<Bomb>, Arc<AtomicUsize>) {
    let exploded = Arc::<AtomicUsize>::default();
    let bombs = Bombs {
        exploded: Arc::clone(&exploded),
        supplied: false,
    };
    let handle = Runner::for_each(runtime(sim), bombs, |bomb: Delivery<Bomb>| async move {
        let _bomb = bomb;
        pending::<()>().await;
    })
    .start();
    sim.advance(SECOND);
    let report = sim.block_on(handle.stop_within(Duration::ZERO)).unwrap();
    assert_eq!(report.abandoned.len(), 1);
    drop(report);
    assert_eq!(exploded.load(Ordering::Relaxed), 0);
    (handle, exploded)
}

#[test]
fn an_update_in_the_last_report_that_panics_when_dropped_does_not_keep_the_next_run_from_starting()
{
    let sim = SimRuntime::new(1);
    let (handle, exploded) = stopped_with_a_bomb(&sim);
    handle.start().unwrap();
    assert_eq!(exploded.load(Ordering::Relaxed), 1);
    sim.advance(SECOND);
    assert_eq!(handle.size(), 1);
    assert!(handle.is_running());
    std::mem::forget(sim.block_on(handle.stop_within(Duration::ZERO)));
    assert_eq!(sim.panics(), 0);
}

#[test]
fn an_update_in_the_last_report_that_panics_when_dropped_does_not_hurt_the_task_of_the_runner() {
    let sim = SimRuntime::new(1);
    let (handle, exploded) = stopped_with_a_bomb(&sim);
    drop(handle);
    sim.run_until_idle();
    assert_eq!(exploded.load(Ordering::Relaxed), 1);
    assert_eq!((sim.tasks(), sim.panics()), (0, 0));
}
