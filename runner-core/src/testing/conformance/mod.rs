//! What every [`Runtime`] must do, as a suite that any implementation can run: [`check`].
//!
//! It checks what the core relies on, not how fast a runtime is: nothing here has an upper bound in
//! time but the minute after which a case counts as hung.
//!
//! ```
//! use std::sync::Arc;
//! use runner_core::{BoxFuture, Runtime, testing::{SimRuntime, conformance::{self, Subject}}};
//!
//! /// The simulated runtime, on the bench.
//! struct Sim(SimRuntime);
//!
//! impl Subject for Sim {
//!     fn runtime(&self) -> Arc<dyn Runtime> {
//!         Arc::new(self.0.clone())
//!     }
//!
//!     fn block_on(&mut self, future: BoxFuture<'_>) {
//!         self.0.block_on(future);
//!     }
//!
//!     fn shut_down(&mut self) {
//!         self.0.shut_down();
//!     }
//!
//!     fn has_virtual_time(&self) -> bool {
//!         true
//!     }
//!
//!     fn allows_foreign_wakers(&self) -> bool {
//!         false // Single-threaded: when nothing is ready, nothing ever will be.
//!     }
//! }
//!
//! conformance::check(|| Sim(SimRuntime::new(1)));
//! ```

mod pipeline;
mod shutdown;
mod tasks;
mod timers;

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use futures::{channel::oneshot, executor};

use crate::{BoxFuture, Runtime};

/// A runtime on the bench, with what [`Runtime`] itself does not offer: driving it from outside and
/// shutting it down.
///
/// Made anew for every case. It lives and dies on one thread; the runtime it hands out does not.
pub trait Subject {
    /// The runtime that is checked. Every call returns the same one.
    fn runtime(&self) -> Arc<dyn Runtime>;

    /// Runs `future` to its end from outside the runtime, whose tasks go on meanwhile.
    ///
    /// The default blocks this thread: right for every runtime that has threads of its own.
    fn block_on(&mut self, future: BoxFuture<'_>) {
        executor::block_on(future);
    }

    /// Shuts the runtime down, or drops it. Tasks may still be dropped after this has returned.
    /// Nobody calls [`block_on`](Self::block_on) from here on.
    fn shut_down(&mut self);

    /// Whether time jumps when all tasks wait, so that sleeping for an hour takes no time.
    ///
    /// Default: no.
    fn has_virtual_time(&self) -> bool {
        false
    }

    /// Whether threads that are none of the runtime's may wake its tasks, and the future that is
    /// blocked on, while the runtime has nothing else to do.
    ///
    /// Default: yes. Only a single-threaded simulation may say no.
    fn allows_foreign_wakers(&self) -> bool {
        true
    }
}

/// Runs every case, each with a subject of its own.
///
/// A case that needs what the subject does not have ([`Subject::has_virtual_time`],
/// [`Subject::allows_foreign_wakers`]) passes without a look.
///
/// # Panics
///
/// If a case fails or has not ended after a minute. The message names all that did and the rule that
/// each one checks.
pub fn check<S: Subject + 'static>(make: impl Fn() -> S + Send + Sync + 'static) {
    let make = erased(make);
    let failures: Vec<String> = CASES
        .iter()
        .filter_map(|case| {
            let failure = case.run(&make).err()?;
            Some(format!("  {}: {}\n    {failure}", case.name, case.rule))
        })
        .collect();
    assert!(
        failures.is_empty(),
        "{} of {} conformance cases failed:\n{}",
        failures.len(),
        CASES.len(),
        failures.join("\n")
    );
}

/// Runs the one case called `name`, see [`names`].
///
/// # Panics
///
/// If the case fails or has not ended after a minute, and if there is none of this name.
pub fn check_one<S: Subject + 'static>(name: &str, make: impl Fn() -> S + Send + Sync + 'static) {
    let Some(case) = CASES.iter().find(|case| case.name == name) else {
        panic!("there is no conformance case called `{name}`");
    };
    if let Err(failure) = case.run(&erased(make)) {
        panic!("{}: {}\n    {failure}", case.name, case.rule);
    }
}

/// The names of all cases, in the order in which [`check`] runs them.
pub fn names() -> impl Iterator<Item = &'static str> {
    CASES.iter().map(|case| case.name)
}

struct Case {
    name: &'static str,
    rule: &'static str,
    run: fn(&mut dyn Subject),
}

impl Case {
    fn run(&self, make: &Make) -> Result<(), String> {
        let Self { name, run, .. } = *self;
        let make = Arc::clone(make);
        let (done, end) = mpsc::channel();
        // On a thread of its own, so that a case that hangs is one failure and not the end of all.
        let case = thread::Builder::new().name(name.to_owned()).spawn(move || {
            let mut subject = make();
            let result = catch_unwind(AssertUnwindSafe(|| run(&mut *subject)));
            // If its end hangs, that is a failure of this case as well.
            drop(subject);
            let _ = done.send(());
            if let Err(panic) = result {
                resume_unwind(panic);
            }
        });
        let case = case.map_err(|error| format!("no thread to run it on: {error}"))?;
        if let Err(mpsc::RecvTimeoutError::Timeout) = end.recv_timeout(PATIENCE) {
            return Err(format!("had not ended after {PATIENCE:?}"));
        }
        case.join().map_err(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            text.unwrap_or("panicked").to_owned()
        })
    }
}

/// After how long a case counts as hung; the slowest takes about a second.
const PATIENCE: Duration = Duration::from_secs(60);

const CASES: &[Case] = &[
    Case {
        name: "starts_from_outside",
        rule: "`spawn` may be called from a thread that is none of the runtime's",
        run: tasks::starts_from_outside,
    },
    Case {
        name: "starts_from_inside",
        rule: "`spawn` may be called from a task",
        run: tasks::starts_from_inside,
    },
    Case {
        name: "panics_are_contained",
        rule: "a task that panics harms no other task",
        run: tasks::panics_are_contained,
    },
    Case {
        name: "wakes_from_foreign_threads",
        rule: "a waker may be used from any thread",
        run: tasks::wakes_from_foreign_threads,
    },
    Case {
        name: "entropy_differs",
        rule: "`entropy` gives another number at every call, from any thread",
        run: tasks::entropy_differs,
    },
    Case {
        name: "time_never_goes_back",
        rule: "`now` never goes back, and is the same clock inside and outside",
        run: timers::time_never_goes_back,
    },
    Case {
        name: "sleeps_are_never_early",
        rule: "a sleep resolves at its deadline on the clock of `now`, never before",
        run: timers::sleeps_are_never_early,
    },
    Case {
        name: "past_deadlines_resolve_at_once",
        rule: "a deadline in the past resolves at the first poll",
        run: timers::past_deadlines_resolve_at_once,
    },
    Case {
        name: "sleeps_change_hands",
        rule: "a sleep that was polled by one task wakes the task that polled it last",
        run: timers::sleeps_change_hands,
    },
    Case {
        name: "hundred_thousand_sleeps",
        rule: "100 000 sleeps at a time all resolve, none of them early",
        run: timers::hundred_thousand_sleeps,
    },
    Case {
        name: "virtual_time_is_one_clock",
        rule: "where time jumps, it jumps for `now` and for sleeps alike",
        run: timers::virtual_time_is_one_clock,
    },
    Case {
        name: "shutdown_drops_tasks",
        rule: "tasks that wait when the runtime is shut down are dropped, and may use it meanwhile",
        run: shutdown::drops_tasks,
    },
    Case {
        name: "spawn_after_shutdown_drops",
        rule: "after a shutdown `spawn` drops the task; it neither runs it, nor blocks, nor panics",
        run: shutdown::spawn_drops,
    },
    Case {
        name: "sleeps_after_shutdown",
        rule: "after a shutdown sleeps can be made, polled and dropped without a panic",
        run: shutdown::sleeps,
    },
    Case {
        name: "started_runner_learns_of_shutdown",
        rule: "a started runner ends with its runtime and lists what it abandoned",
        run: shutdown::started_runner_learns_of_it,
    },
    Case {
        name: "driven_runner_learns_of_shutdown",
        rule: "a runner that another thread drives ends with its runtime and lists what it abandoned",
        run: shutdown::driven_runner_learns_of_it,
    },
    Case {
        name: "runs_a_pipeline",
        rule: "a runner handles every update, isolates failures and reports after `stop`",
        run: pipeline::runs,
    },
    Case {
        name: "keeps_order",
        rule: "a runner handles updates that share a key in order, on any number of threads",
        run: pipeline::keeps_order,
    },
    Case {
        name: "hands_over",
        rule: "a runner hands updates over to a sink in order of arrival, and isolates its failures",
        run: pipeline::hands_over,
    },
    Case {
        name: "hands_batches_over_whole",
        rule: "a runner hands over together what may start together, and does not wait for more",
        run: pipeline::hands_batches_over_whole,
    },
    Case {
        name: "times_out_and_cancels",
        rule: "a runner ends handlers at their timeout and at the deadline of `stop_within`",
        run: pipeline::times_out_and_cancels,
    },
];

type Make = Arc<dyn Fn() -> Box<dyn Subject> + Send + Sync>;

fn erased<S: Subject + 'static>(make: impl Fn() -> S + Send + Sync + 'static) -> Make {
    Arc::new(move || -> Box<dyn Subject> { Box::new(make()) })
}

/// Runs `future` from outside the runtime and hands its output back.
fn drive<T: Send>(subject: &mut dyn Subject, future: impl Future<Output = T> + Send) -> T {
    let mut output = None;
    subject.block_on(Box::pin(async { output = Some(future.await) }));
    output.expect("`block_on` returned before the future was ready")
}

/// Runs `future` as a task of the runtime and hands its output back.
fn run_task<T: Send + 'static>(
    subject: &mut dyn Subject,
    future: impl Future<Output = T> + Send + 'static,
) -> T {
    let (done, output) = oneshot::channel();
    subject.runtime().spawn(Box::pin(async move {
        let _ = done.send(future.await);
    }));
    drive(subject, output).expect("the task was dropped before it was ready")
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashSet,
        sync::atomic::{AtomicBool, Ordering},
        task::{Context, Poll, Waker},
        time::Instant,
    };

    use super::*;
    use crate::testing::SimRuntime;

    struct Sim(SimRuntime);

    impl Subject for Sim {
        fn runtime(&self) -> Arc<dyn Runtime> {
            Arc::new(self.0.clone())
        }

        fn block_on(&mut self, future: BoxFuture<'_>) {
            self.0.block_on(future);
        }

        fn shut_down(&mut self) {
            self.0.shut_down();
        }

        fn has_virtual_time(&self) -> bool {
            true
        }

        fn allows_foreign_wakers(&self) -> bool {
            false
        }
    }

    #[test]
    fn the_simulated_runtime_conforms() {
        check(|| Sim(SimRuntime::new(5)));
    }

    #[test]
    fn names_are_unique() {
        assert_eq!(names().collect::<HashSet<_>>().len(), CASES.len());
    }

    /// Wakes every sleep a little early, and gives tasks one more chance after its end.
    #[derive(Clone, Debug)]
    struct Sloppy(SimRuntime, Arc<AtomicBool>);

    impl Runtime for Sloppy {
        fn spawn(&self, task: BoxFuture<'static>) {
            let mut task = task;
            if self.1.load(Ordering::Relaxed) {
                let _: Poll<()> = task.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            }
            self.0.spawn(task);
        }

        fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static> {
            // The second attempt is exact, or else the runner would try for ever.
            let early = deadline - Duration::from_nanos(1);
            self.0
                .sleep_until(if self.now() < early { early } else { deadline })
        }

        fn now(&self) -> Instant {
            self.0.now()
        }

        fn entropy(&self) -> u64 {
            4
        }
    }

    impl Subject for Sloppy {
        fn runtime(&self) -> Arc<dyn Runtime> {
            Arc::new(self.clone())
        }

        fn block_on(&mut self, future: BoxFuture<'_>) {
            self.0.block_on(future);
        }

        fn shut_down(&mut self) {
            self.1.store(true, Ordering::Relaxed);
            self.0.shut_down();
        }

        fn has_virtual_time(&self) -> bool {
            true
        }

        fn allows_foreign_wakers(&self) -> bool {
            false
        }
    }

    #[test]
    fn a_runtime_that_breaks_rules_is_told_which() {
        let make = || Sloppy(SimRuntime::new(1), Arc::default());
        let panic = catch_unwind(AssertUnwindSafe(|| check(make))).unwrap_err();
        let text = panic.downcast_ref::<String>().unwrap();
        for name in [
            "sleeps_are_never_early",
            "hundred_thousand_sleeps",
            "entropy_differs",
            "spawn_after_shutdown_drops",
        ] {
            assert!(text.contains(&format!("  {name}: ")), "{name}: {text}");
        }
        assert!(!text.contains("starts_from_outside"), "{text}");

        check_one("starts_from_outside", make);
        let panic = catch_unwind(|| check_one("entropy_differs", make)).unwrap_err();
        let text = panic.downcast_ref::<String>().unwrap();
        assert!(text.starts_with("entropy_differs: "), "{text}");
    }
}
