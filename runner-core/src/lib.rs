//! Pulls updates from a supplier and hands them to a handler: in order by key, with bounded concurrency and
//! timeouts, on any async runtime.
//!
//! Knows no executor, no socket and no JSON. Bot authors use the crate `runner`, which adds these; libraries
//! build on this one.
//!
//! ```
//! # #[cfg(feature = "test-util")] {
//! use std::{sync::Arc, time::Duration};
//! use runner_core::{Delivery, Runner, testing::{ScriptedSupplier, SimRuntime}};
//!
//! let sim = SimRuntime::new(1); // or `Tokio` of `runner-tokio`, or `Smol` of `runner-smol`
//! let supplier = ScriptedSupplier::new(&sim).batch(["hello", "world"]);
//! let handle = Runner::for_each(Arc::new(sim.clone()), supplier, async |update: Delivery<&str>| {
//!     println!("{}", *update);
//! })
//! .start();
//! sim.advance(Duration::from_secs(1));
//! let report = sim.block_on(handle.stop()).unwrap();
//! assert_eq!(report.counters.finished, 2);
//! # }
//! ```
//!
//! | part | what it is | yours to implement |
//! |---|---|---|
//! | supply | [`Source`]: pace, deadlines, retries; [`supply`]: streams as suppliers | [`UpdateSupplier`]; [`GetUpdates`] for the Bot API |
//! | order and limits | the sink: [`DecayingQueue`], [`SinkOptions`], [`Key`] | [`UpdateSink`], for groups |
//! | handling | [`Delivery`] | [`UpdateConsumer`], or a closure |
//! | failures | [`Failure`], [`Cause`], [`Verdict`] | [`ErrorPolicy`], or a closure |
//! | the whole | [`Runner`], [`Bot`], [`RunnerHandle`], [`Report`] | |
//! | time and tasks | [`RuntimeExt`] | [`Runtime`] |
//!
//! To read the code, begin with `queue/mod.rs`: its table says which file answers which question.
//! `runner/run.rs` is the loop around it.
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `tracing` (default) | events for every change of state, by the crate `tracing` |
//! | `test-util` | `testing`: simulated time, a Bot API in memory, scripted suppliers, recording consumers, a conformance suite for runtimes |

#![cfg_attr(docsrs, feature(doc_cfg))]

mod bot;
mod consume;
mod current;
mod fetcher;
mod panics;
mod queue;
mod runner;
mod runtime;
#[cfg(all(test, shuttle))]
mod schedules;
mod sink;
mod source;
pub mod supply;
mod sync;
#[cfg(feature = "test-util")]
pub mod testing;
mod timer;
mod trace;

#[doc(inline)]
pub use self::supply::{
    BoxError, BoxSupplier, Closing, Confirmation, Conflict, SupplyError, UpdateSupplier,
};
pub use self::{
    bot::Bot,
    consume::{
        BoxConsumer, Cause, Delivery, ErrorPolicy, Failure, HandlerOutput, Key, SkipFailed,
        Undecodable, UpdateConsumer, Value, Verdict,
    },
    fetcher::{FetchOptions, GetUpdates, RepeatedUpdates, UpdateFetcher, UpdatesRequest},
    queue::{
        AnySink, Batch, Concurrent, Counters, DecayingQueue, InFlight, LateHandler, LatencySummary,
        Progress, QueueBuilder, QueueClosed, QueueFault, QueueReport, QueueStats, Room, Sequential,
        SinkOptions,
    },
    runner::{
        Abandoned, EndReason, Fate, Health, Report, RunError, RunState, Runner, RunnerHandle,
        StartError, Stats, Stopped,
    },
    runtime::{BoxFuture, Runtime, RuntimeExt},
    sink::{BoxSink, Lease, SinkError, UpdateSink},
    source::{Backoff, RetryPolicy, Source, SourceError, SourceHandle, SourceOptions},
};

// The code of the README is compiled with the other examples.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
