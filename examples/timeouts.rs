//! What happens to a handler that takes too long, and how it asks for more time.
//!
//! ```sh
//! cargo run --example timeouts
//! ```
//!
//! The timeout is ten seconds. One handler is quick, one hangs and is cancelled, one downloads for a
//! minute and extends its deadline as long as it makes progress, one hangs on its first attempt only
//! and is tried again. The clock is virtual, so this takes no time.

use std::{sync::Arc, time::Duration};

use runner::{
    Cause, Delivery, Failure, Runner, RuntimeExt, SinkOptions, Verdict,
    testing::{ScriptedSupplier, SimRuntime},
};

const TIMEOUT: Duration = Duration::from_secs(10);
const FIVE_SECONDS: Duration = Duration::from_secs(5);
const FOR_EVER: Duration = Duration::from_secs(24 * 60 * 60);

async fn handle(sim: SimRuntime, job: Delivery<&'static str>) {
    let _guard = SayWhenDropped(*job, sim.clone());
    match (*job, job.attempt().get()) {
        ("hang", _) | ("flaky", 1) => sim.sleep(FOR_EVER).await,
        ("download", _) => {
            for _part in 0..12 {
                sim.sleep(FIVE_SECONDS).await;
                // From now; the deadline never moves backwards. False if it is too late.
                assert!(job.extend(TIMEOUT));
            }
        }
        _ => sim.sleep(FIVE_SECONDS).await,
    }
}

/// A cancelled future is dropped, and with it all that it holds: this is where to clean up.
struct SayWhenDropped(&'static str, SimRuntime);

impl Drop for SayWhenDropped {
    fn drop(&mut self) {
        println!("at {:>2} s, {} ends", self.1.elapsed().as_secs(), self.0);
    }
}

fn retry_once(failure: Failure<&'static str>) -> Verdict {
    match failure.cause {
        Cause::Timeout if *failure.update == "flaky" && !failure.update.redelivered() => {
            let after = Duration::from_secs(1);
            Verdict::Retry { after }
        }
        _ => Verdict::Skip,
    }
}

fn main() {
    let sim = SimRuntime::new(1);
    let supplier = ScriptedSupplier::new(&sim)
        .batch(["quick"])
        .wait(Duration::from_millis(1))
        .batch(["hang"])
        .wait(Duration::from_millis(1))
        .batch(["download"])
        .wait(Duration::from_millis(1))
        .batch(["flaky"]);
    let handle = Runner::for_each_with(Arc::new(sim.clone()), supplier, sim.clone(), handle)
        .sink(SinkOptions::concurrent().timeout(TIMEOUT))
        .policy(retry_once)
        .start();
    sim.advance(Duration::from_secs(2 * 60));
    let report = sim.block_on(handle.stop()).expect("nothing ends the run");
    println!(
        "{} finished, {} timed out, {} attempts repeated",
        report.counters.finished, report.counters.timed_out, report.counters.retried
    );
}
