//! Pulls updates from a supplier and hands them to a handler: in order by key, bounded, timed, on
//! any async runtime.
//!
//! Knows no executor, no socket and no JSON.

mod bot;
mod consume;
mod delivery;
mod fetcher;
mod get_updates;
mod key;
mod panics;
mod policy;
mod runner;
mod runtime;
#[cfg(all(test, shuttle))]
mod schedules;
mod sink;
mod source;
mod supply;
mod sync;
#[cfg(feature = "test-util")]
pub mod testing;
mod ticket;
mod trace;

pub use self::{
    bot::Bot,
    consume::{BoxConsumer, HandlerOutput, UpdateConsumer},
    delivery::Delivery,
    fetcher::{FetchOptions, UpdateFetcher},
    get_updates::{GetUpdates, UpdatesRequest},
    key::{Key, Value},
    policy::{Cause, ErrorPolicy, Failure, SkipFailed, Undecodable, Verdict},
    runner::{
        Abandoned, Fate, Health, Report, RunError, RunState, Runner, RunnerHandle, StartError,
        Stats, Stopped,
    },
    runtime::{BoxFuture, Runtime, RuntimeExt},
    sink::{Counters, InFlight, LatencySummary, OnTimeout, Progress, SinkOptions},
    source::{Backoff, RetryPolicy, Source, SourceError, SourceHandle, SourceOptions},
    supply::{BoxError, BoxSupplier, Closing, Confirmation, Conflict, SupplyError, UpdateSupplier},
};
