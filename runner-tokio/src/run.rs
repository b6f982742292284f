//! A bot and nothing else: [`run`], [`run_with`] and [`serve`].

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use runner_core::{
    Bot, BoxFuture, GetUpdates, Report, RunError, RunnerHandle, Runtime, UpdateConsumer,
};
use tokio::runtime::{Builder, Handle};

use crate::{Tokio, signals::signals};

/// Runs `bot` until Ctrl-C or SIGTERM, on a multi-threaded tokio runtime made for it.
///
/// Blocks. The first signal stops gracefully: no update is fetched any more, those at hand are handled to
/// their end and confirmed. [`Bot::stop_timeout`] limits how long that may take; set it where a service
/// manager kills the process after a while. The second signal cancels what is left. Either way the report
/// comes back, and says what was abandoned.
///
/// Handlers run on as many threads as the machine can run at once. Fetching, timeouts and signals have
/// this one to themselves, so that handlers which block their threads delay each other, but never
/// these.
///
/// Without a subscriber of `tracing`, it says on stderr when updates cannot be fetched; see
/// [`Runner::warn_on_stderr`](runner_core::Runner::warn_on_stderr).
///
/// For a `fn main` without tokio; in an `async fn main`, await [`serve`].
///
/// ```
/// # use runner_core::{SupplyError, testing::FakeApi};
/// # let api = FakeApi::of_ids([]);
/// # api.fail(SupplyError::fatal("401"));
/// use runner_core::{Bot, Delivery};
///
/// let bot = Bot::for_each(api, async |update: Delivery<i64>| println!("{update:?}"));
/// match runner_tokio::run(bot) {
///     Ok(report) => println!("{report}"),
///     Err(error) => eprintln!("{error:?}"), // with its causes, and what to do
/// }
/// ```
///
/// # After the end
///
/// The runtime is shut down: tasks that handlers have spawned are dropped, and waited for for at most
/// half a second. Signals stay caught, so Ctrl-C no longer ends the process by itself; this cannot be
/// undone.
///
/// # Errors
///
/// [`RunError`] for every end that was not asked for; [`RunError::Setup`] if threads or signal
/// handlers cannot be had.
///
/// # Panics
///
/// In the context of a tokio runtime, which this would block. Await [`serve`] there, or call
/// `Handle::current().block_on(serve(bot))` in a `spawn_blocking`.
#[track_caller]
pub fn run<G, C>(bot: Bot<G, C>) -> Result<Report<G::Raw>, RunError<G::Raw>>
where
    G: GetUpdates,
    C: UpdateConsumer<G::Update>,
{
    run_with(bot, drop)
}

/// As [`run`], and gives `started` a handle to the runner before the first fetch: to look inside,
/// pause, or stop it by other means than a signal.
///
/// ```no_run
/// # use runner_core::{Bot, Delivery, GetUpdates, UpdateConsumer};
/// # fn example<G: GetUpdates, C: UpdateConsumer<G::Update>>(bot: Bot<G, C>) {
/// let report = runner_tokio::run_with(bot, |handle| {
///     std::thread::spawn(move || {
///         // serve `handle.health()` and `handle.stats()` …
///     });
/// });
/// # }
/// ```
///
/// # Errors
///
/// As [`run`].
///
/// # Panics
///
/// As [`run`].
#[track_caller]
pub fn run_with<G, C>(
    bot: Bot<G, C>,
    started: impl FnOnce(RunnerHandle<G::Raw>),
) -> Result<Report<G::Raw>, RunError<G::Raw>>
where
    G: GetUpdates,
    C: UpdateConsumer<G::Update>,
{
    assert!(
        Handle::try_current().is_err(),
        "runner_tokio::run makes a tokio runtime and blocks, but a tokio runtime is here already: \
         use `runner_tokio::serve(bot).await` instead"
    );
    let refused = |error| RunError::setup("start the threads of the runtime", error);
    let mut threads = Builder::new_multi_thread();
    let threads = threads.thread_name("runner-tokio").enable_all();
    let threads = threads.build().map_err(refused)?;
    let here = Builder::new_current_thread().enable_all().build();
    let here = here.map_err(refused)?;
    let apart = Apart {
        handlers: Tokio::new(threads.handle().clone()),
        here: Tokio::new(here.handle().clone()),
    };
    let result = here.block_on(on(apart, bot, started, true));
    // Not merely dropped: that would wait for a handler that blocks its thread for ever.
    threads.shutdown_timeout(SHUTDOWN_TIMEOUT);
    result
}

/// Runs `bot` until Ctrl-C or SIGTERM, on the tokio runtime that exists already.
///
/// The same as [`run`] otherwise. Signals stay caught afterwards.
///
/// To stop a bot by other means, look inside it or keep signals out of it, start it yourself:
///
/// ```
/// # use runner_core::{Delivery, testing::FakeApi};
/// # let api = FakeApi::of_ids([]);
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use std::sync::Arc;
/// use runner_core::Bot;
/// use runner_tokio::Tokio;
///
/// let bot = Bot::for_each(api, async |update: Delivery<i64>| println!("{update:?}"));
/// let handle = bot.into_runner(Arc::new(Tokio::current())).start();
/// println!("{:?}", handle.health());
/// let report = handle.stop().await.expect("nothing failed");
/// println!("{report}");
/// # });
/// ```
///
/// # Errors
///
/// [`RunError`] for every end that was not asked for; [`RunError::Setup`] if signal handlers cannot
/// be had.
///
/// # Panics
///
/// Outside of a tokio runtime, and in one that was built without timers or I/O (`enable_all`).
///
/// # Cancel safety
///
/// Dropping the future cancels the run: handlers are dropped and nothing is confirmed, so that
/// updates may be delivered again.
pub async fn serve<G, C>(bot: Bot<G, C>) -> Result<Report<G::Raw>, RunError<G::Raw>>
where
    G: GetUpdates,
    C: UpdateConsumer<G::Update>,
{
    on(Tokio::current(), bot, drop, false).await
}

async fn on<G, C>(
    runtime: impl Runtime,
    bot: Bot<G, C>,
    started: impl FnOnce(RunnerHandle<G::Raw>),
    owns_process: bool,
) -> Result<Report<G::Raw>, RunError<G::Raw>>
where
    G: GetUpdates,
    C: UpdateConsumer<G::Update>,
{
    // Before the first fetch, so that no update is at risk when this fails.
    let stops = signals().map_err(|error| RunError::setup("listen for signals", error))?;
    let mut runner = bot.into_runner(Arc::new(runtime));
    if owns_process {
        // A larger program has a log of its own.
        runner = runner.warn_on_stderr();
    }
    started(runner.handle());
    runner.run_until(stops).await
}

/// Handlers on the threads of one runtime, all else on a thread that only waits.
///
/// tokio has no thread of its own for timers, sockets and signals. If handlers blocked all threads
/// that look after them, nothing would be fetched, nothing would time out, and Ctrl-C would not be
/// heard.
#[derive(Debug)]
struct Apart {
    handlers: Tokio,
    here: Tokio,
}

impl Runtime for Apart {
    fn spawn(&self, task: BoxFuture<'static>) {
        self.handlers.spawn(task);
    }

    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static> {
        self.here.sleep_until(deadline)
    }

    fn now(&self) -> Instant {
        self.here.now()
    }
}

/// How long tasks that are none of the runner's may take to be dropped. Short, because it adds to
/// [`Bot::stop_timeout`].
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(500);
