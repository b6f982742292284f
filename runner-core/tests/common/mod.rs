//! What the tests of the pipeline share.
#![allow(dead_code, reason = "every test file uses a part of it")]

#[cfg(feature = "tracing")]
pub(crate) mod log;

use std::{
    num::NonZeroUsize,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use runner_core::{
    Delivery, Report, RunError, Runner, RunnerHandle, Runtime, SinkOptions, Stopped,
    UpdateConsumer,
    testing::{Plan, Recorder, Script, ScriptedSupplier, SimRuntime},
};

pub(crate) type Result<U> = std::result::Result<Report<U>, RunError<U>>;

pub(crate) const MS: Duration = Duration::from_millis(1);
pub(crate) const SECOND: Duration = Duration::from_secs(1);
/// Longer than anything that ends by itself.
pub(crate) const LONG: Duration = Duration::from_secs(1_000_000);

pub(crate) fn n(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).expect("a test asks for at least one")
}

pub(crate) fn runtime(sim: &SimRuntime) -> Arc<dyn Runtime> {
    Arc::new(sim.clone())
}

/// Every update is handled by the same plan.
pub(crate) fn always(
    sim: &SimRuntime,
    plan: Plan,
) -> Recorder<u32, impl Fn(&Delivery<u32>) -> Plan + Send + Sync + 'static> {
    Recorder::new(sim, move |_: &Delivery<u32>| plan.clone())
}

/// A started runner of `updates`, and the script of its supplier.
pub(crate) fn start<C: UpdateConsumer<u32>>(
    sim: &SimRuntime,
    updates: impl IntoIterator<Item = u32>,
    consumer: C,
    options: SinkOptions<impl Sized>,
) -> (RunnerHandle<u32>, Script<u32>) {
    let supplier = ScriptedSupplier::new(sim).batch(updates);
    let script = supplier.script();
    let handle = Runner::new(runtime(sim), supplier, consumer)
        .sink(options)
        .start();
    (handle, script)
}

/// The result of a run that is over by now.
pub(crate) fn ended(stopped: Stopped<u32>) -> Option<Result<u32>> {
    match pin!(stopped).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => Some(result),
        Poll::Pending => None,
    }
}

/// Lets `limit` pass and returns when the run was over, by the clock of the simulation.
///
/// Works with handlers that block, because it needs no main future.
pub(crate) fn end_time(
    sim: &SimRuntime,
    stopped: Stopped<u32>,
    limit: Duration,
) -> Option<(Duration, Result<u32>)> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let clock = sim.clone();
    sim.spawn(Box::pin(async move {
        let result = stopped.await;
        let _ = sender.send((clock.elapsed(), result));
    }));
    sim.advance(limit);
    receiver.try_recv().ok()
}

/// Keeps the panics that are part of a test out of its output.
pub(crate) fn quiet() {
    std::panic::set_hook(Box::new(|panic| {
        let own = panic.location().is_some_and(|place| {
            place.file().contains("/tests/") || place.file().starts_with("tests/")
        });
        if own {
            eprintln!("{panic}");
        }
    }));
}
