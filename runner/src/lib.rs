//! An update runner: concurrent, in order by key, with limits, timeouts and a graceful shutdown.
//!
//! An echo bot, with the features `tokio` and `http` (a default):
//!
#![cfg_attr(all(feature = "tokio", feature = "http"), doc = "```no_run")]
#![cfg_attr(not(all(feature = "tokio", feature = "http")), doc = "```ignore")]
//! use runner::{ApiError, Bot, BotApi, Delivery, Update};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let api = BotApi::from_env("BOT_TOKEN")?;
//!     let bot = Bot::for_each_with(api.clone(), api, async |api, update: Delivery<Update>| {
//!         if let (Some(chat), Some(text)) = (update.chat_id(), update.text()) {
//!             api.send_message(chat, text).await?;
//!         }
//!         Ok::<_, ApiError>(())
//!     });
//!     println!("{}", runner::tokio::run(bot)?); // or runner::smol::run, with the feature `smol`
//!     Ok(())
//! }
//! ```
//!
//! It handles up to 500 updates at once, those of the same chat one after the other. A handler that
//! fails or panics affects its own update only. Failed polls are repeated. On Ctrl-C it handles the updates
//! that it holds, confirms them to Telegram and prints a report.
//!
//! # Where to go from here
//!
//! | you want | see |
//! |---|---|
//! | other keys, limits, timeouts, an error policy | [`Bot`] |
//! | a handle: stop, pause, health, what is in flight | [`Bot::into_runner`], [`RunnerHandle`] |
//! | any method of the Bot API, your own model of an update | `BotApi::call`, `BotApi::updates_as` |
//! | updates from elsewhere | [`UpdateSupplier`], [`Runner`] |
//! | updates in groups, such as for a bulk write | [`UpdateSink`], [`Bot::with_sink`] |
//! | the queue without a bot, for work of your own | [`DecayingQueue`] |
//! | another client for the Bot API | [`GetUpdates`] |
//! | another async runtime | [`Runtime`] |
//! | tests without waiting | the feature `test-util`, `runner::testing` |
//!
//! # Features
//!
//! They only add. The runtime is chosen by naming it, never by a feature's side effect.
//!
//! | feature | adds |
//! |---|---|
//! | `tokio` | `runner::tokio`: the runner on tokio |
//! | `smol` | `runner::smol`: the runner on async-executor and async-io; pulls in no tokio |
//! | `http` (default) | `BotApi`: the Bot API over blocking connections on threads of its own |
//! | `hyper` | `HyperClient`: an async client, for bots that send a lot; the same on every runtime. hyper needs the channels of tokio, not its runtime |
//! | `native-certs` | `ClientOptions::system_roots`: trust the root certificates of the system |
//! | `tracing` (default) | events for every change of state |
//! | `test-util` | `runner::testing`: simulated time, a Bot API in memory, scripted suppliers, recording consumers |

#![cfg_attr(docsrs, feature(doc_cfg))]

pub use runner_core::*;

/// What most bots need, for `use runner::prelude::*;`.
///
/// Types only. A `use runner::*;` also brings the modules `runner::tokio`, `runner::smol` and `runner::http`,
/// which hide the crates with these names.
///
#[cfg_attr(all(feature = "tokio", feature = "http"), doc = "```no_run")]
#[cfg_attr(not(all(feature = "tokio", feature = "http")), doc = "```ignore")]
/// use std::time::Duration;
/// use runner::prelude::*;
///
/// async fn handle(api: BotApi, update: Delivery<Update>) -> Result<(), ApiError> {
///     if let (Some(chat), Some(text)) = (update.chat_id(), update.text()) {
///         tokio::time::sleep(Duration::from_secs(1)).await;
///         api.send_message(chat, text).await?;
///     }
///     Ok(())
/// }
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let api = BotApi::from_env("BOT_TOKEN")?;
///     println!("{}", runner::tokio::run(Bot::for_each_with(api.clone(), api, handle))?);
///     Ok(())
/// }
/// ```
pub mod prelude {
    pub use runner_core::{
        Abandoned, Bot, BoxError, Cause, Delivery, ErrorPolicy, Failure, Fate, FetchOptions, Key,
        Report, RunError, Runner, RunnerHandle, SinkOptions, SourceOptions, Undecodable,
        UpdateConsumer, Verdict,
    };
    #[cfg(any(feature = "http", feature = "hyper"))]
    pub use runner_http::{ApiError, BotApi, Incoming, Update, UpdateKind};
}

/// The Telegram Bot API over pluggable HTTP clients.
#[cfg(any(feature = "http", feature = "hyper"))]
#[doc(inline)]
pub use runner_http as http;

#[cfg(any(feature = "http", feature = "hyper"))]
#[doc(inline)]
pub use runner_http::{ApiError, BotApi, EnvError, Incoming, Update, UpdateKind};

/// The runner on tokio.
#[cfg(feature = "tokio")]
#[doc(inline)]
pub use runner_tokio as tokio;

/// The runner on async-executor and async-io.
#[cfg(feature = "smol")]
#[doc(inline)]
pub use runner_smol as smol;

// The quick start of the README is compiled with the other examples.
#[cfg(all(doctest, feature = "tokio", feature = "http"))]
#[doc = include_str!("../../README.md")]
mod readme {}

#[cfg(all(doctest, feature = "tokio", feature = "http"))]
#[doc = include_str!("../README.md")]
mod readme_of_the_crate {}

/// The code of the guide is compiled, and run where it can be.
#[cfg(all(
    doctest,
    feature = "http",
    feature = "tokio",
    feature = "smol",
    feature = "test-util"
))]
mod guide {
    macro_rules! chapters {
        ($($name:ident: $path:literal,)*) => {
            $(
                #[doc = include_str!($path)]
                struct $name;
            )*
        };
    }

    chapters! {
        QuickStart: "../../docs/quick-start.md",
        HowItWorks: "../../docs/how-it-works.md",
        Ordering: "../../docs/ordering.md",
        Load: "../../docs/load.md",
        Timeouts: "../../docs/timeouts.md",
        Errors: "../../docs/errors.md",
        RetryingCalls: "../../docs/retrying-calls.md",
        Stopping: "../../docs/stopping.md",
        Conflicts: "../../docs/conflicts.md",
        Guarantees: "../../docs/guarantees.md",
        Reliability: "../../docs/reliability.md",
        Performance: "../../docs/performance.md",
        Troubleshooting: "../../docs/troubleshooting.md",
        Testing: "../../docs/testing.md",
        Embedding: "../../docs/embedding.md",
        QueueAlone: "../../docs/queue.md",
        Supplier: "../../docs/supplier.md",
        Consumer: "../../docs/consumer.md",
        Sink: "../../docs/sink.md",
        RuntimeChapter: "../../docs/runtime.md",
        HttpClientChapter: "../../docs/http-client.md",
        Clients: "../../docs/clients.md",
        Migrating: "../../docs/migrating.md",
        Comparison: "../../docs/comparison.md",
    }
}
