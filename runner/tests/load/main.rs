//! Load: bots that are processes of their own, so that what they use can be read from outside.
//!
//! `RUNNER_SOAK_SECONDS=600` makes the soak long, `RUNNER_LOAD_IN_FLIGHT=1000000` the rest large.
#![cfg(target_os = "linux")]

mod child;
mod in_flight;
mod ledger;
mod soak;
mod usage;

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

/// Knows what is allocated, which the kernel does not: it sees what the allocator keeps.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

macro_rules! everywhere {
    ($($place:ident)*) => {$(
        mod $place {
            use super::*;

            #[test]
            fn nothing_grows_under_load_and_faults() {
                soak::nothing_grows_under_load_and_faults(stringify!($place));
            }

            #[test]
            fn all_of_very_many_are_handled_at_once() {
                in_flight::all_of_very_many_are_handled_at_once(stringify!($place));
            }
        }
    )*};
}

everywhere! { ureq_on_tokio hyper_on_smol }

/// What the tests above start in processes of their own.
#[test]
fn child() {
    child::main();
}
