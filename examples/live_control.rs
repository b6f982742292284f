//! Pausing, changing the concurrency and looking inside a runner that is at work.
//!
//! ```sh
//! cargo run --example live_control
//! ```
//!
//! Handlers wait until the program lets them go, so every look shows the same numbers in every run:
//! two updates in flight, then four with a higher limit; a paused runner that fetches nothing; one
//! chat whose second update waits for its first.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use runner::{
    Delivery, InFlight, Key, Runner, RunnerHandle, SinkOptions,
    testing::{ScriptedSupplier, SimRuntime, Step},
};
use tokio::sync::Semaphore;

/// The number of the update, and its chat.
type Message = (u32, i64);

fn show(when: &str, handle: &RunnerHandle<Message>) {
    let (health, stats) = (handle.health(), handle.stats());
    println!(
        "{when}: {:?}, live {}, {} in flight, {} ready, {} waiting, {} finished",
        health.state,
        health.is_live(),
        stats.in_flight,
        stats.ready,
        stats.waiting,
        stats.counters.finished,
    );
}

fn limit(concurrency: usize) -> NonZeroUsize {
    NonZeroUsize::new(concurrency).expect("not zero")
}

fn main() {
    let sim = SimRuntime::new(1);
    let supplier = ScriptedSupplier::new(&sim).batch([(0, 5), (1, 6), (2, 7), (3, 8), (4, 5)]);
    let script = supplier.script();
    let gate = Arc::new(Semaphore::new(0));
    let handler = async |gate: Arc<Semaphore>, _: Delivery<Message>| {
        gate.acquire().await.expect("never closed").forget();
    };
    let handle = Runner::for_each_with(Arc::new(sim.clone()), supplier, Arc::clone(&gate), handler)
        .sequentialize(|message: &Message| [Key::chat(message.1)])
        .sink(SinkOptions::concurrent().concurrency(limit(2)))
        .start();
    let a_second = || sim.advance(Duration::from_secs(1));

    a_second();
    show("at most two", &handle);

    // Takes effect at once. Lowering it cancels nothing.
    handle.set_concurrency(limit(4));
    a_second();
    show("at most four", &handle);
    for InFlight {
        id,
        progress,
        keys,
        waits_for,
        ..
    } in handle.in_flight()
    {
        println!("  update {id} of {keys:?}: {progress:?}, waits for {waits_for:?}");
    }

    // The poll under way is dropped, what is held goes on.
    handle.pause();
    script.push(Step::Batch(vec![(5, 9)]));
    gate.add_permits(5);
    a_second();
    show("paused", &handle);

    handle.resume();
    gate.add_permits(1);
    a_second();
    show("resumed", &handle);

    let report = sim.block_on(handle.stop()).expect("nothing fails");
    show("stopped", &handle);
    println!(
        "{} updates, {} abandoned",
        report.counters.supplied,
        report.abandoned.len()
    );
}
