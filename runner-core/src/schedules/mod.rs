//! The pipeline on many threads, whose order `shuttle` decides at every access to a lock.
//!
//! `SimRuntime` has one thread, so there a task runs from one await to the next undisturbed. Here
//! the run, the workers, the clock and the owners of handles get in each other's way wherever they
//! meet, and a task that waits for something that never comes is found as a deadlock. It is a sample, like the
//! simulation: half of the schedules are drawn at random, half by PCT, which finds what takes few
//! but unlikely switches.
//!
//! ```sh
//! RUSTFLAGS="--cfg shuttle" cargo test -p runner-core --lib --target-dir target/shuttle schedules
//! ```
//!
//! `RUNNER_SCHEDULES=100000` plays that many of each test, `RUNNER_SEED=17` others.

mod capacity;
mod handle;
mod mailbox;
mod next;
mod pull;
mod queue;
mod queue_end;
mod sink;
mod threads;
mod timeout;
mod world;

use std::panic::resume_unwind;

use shuttle::{
    Config, Runner,
    scheduler::{PctScheduler, RandomScheduler},
};

/// How many schedules of each test the normal run plays.
const SCHEDULES: usize = 400;

/// How many switches that matter PCT looks for.
const DEPTH: usize = 4;

/// Plays `test` in many orders. A failure prints its schedule, for `shuttle::replay`.
fn explore(test: impl Fn() + Send + Sync + 'static) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let schedules = number("RUNNER_SCHEDULES").unwrap_or(SCHEDULES as u64) as usize;
    let seed = number("RUNNER_SEED").unwrap_or(1);
    let config = || {
        let mut config = Config::new();
        // Every atomic is taken for sequentially consistent; the one that is not is a mere hint.
        config.silence_warnings = true;
        config
    };
    let half = schedules.div_ceil(2);
    let test = std::sync::Arc::new(test);
    let again = std::sync::Arc::clone(&test);
    let random = RandomScheduler::new_from_seed(seed, half);
    let played = Runner::new(random, config()).run(move || test());
    let pct = PctScheduler::new_from_seed(seed, DEPTH, half);
    let played = played + Runner::new(pct, config()).run(move || again());
    assert_eq!(played, 2 * half);
}

/// Panics without a word from the panic hook, which would print a schedule.
fn planned_panic() -> ! {
    resume_unwind(Box::new("planned"))
}
