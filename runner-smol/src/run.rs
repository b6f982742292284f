//! A bot and nothing else: [`run`], [`run_with`], [`serve`] and [`serve_on`].

use std::{sync::Arc, time::Duration};

use async_executor::Executor;
use async_io::block_on;
use runner_core::{Bot, GetUpdates, Report, RunError, RunnerHandle, UpdateConsumer};

use crate::{Smol, runtime::default_threads, signals::signals};

/// Runs `bot` until Ctrl-C or SIGTERM, on an executor made for it, with as many threads as the
/// machine can run at once.
///
/// Blocks. The first signal stops gracefully: no update is fetched any more, those at hand are handled to
/// their end and confirmed. [`Bot::stop_timeout`] limits how long that may take; set it where a service
/// manager kills the process after a while. The second signal cancels what is left. Either way the report
/// comes back, and says what was abandoned.
///
/// Handlers run on the threads of the executor. Fetching and signals have this one to themselves, so
/// that handlers which block their threads delay each other, but never these.
///
/// Without a subscriber of `tracing`, it says on stderr when updates cannot be fetched; see
/// [`Runner::warn_on_stderr`](runner_core::Runner::warn_on_stderr).
///
/// For a `fn main` without smol; in async code, await [`serve`] or [`serve_on`].
///
/// ```
/// # use runner_core::{SupplyError, testing::FakeApi};
/// # let api = FakeApi::of_ids([]);
/// # api.fail(SupplyError::fatal("401"));
/// use runner_core::{Bot, Delivery};
///
/// let bot = Bot::for_each(api, async |update: Delivery<i64>| println!("{update:?}"));
/// match runner_smol::run(bot) {
///     Ok(report) => println!("{report}"),
///     Err(error) => eprintln!("{error:?}"), // with its causes, and what to do
/// }
/// ```
///
/// # After the end
///
/// The threads end, and are waited for for at most half a second. Signals stay caught, so Ctrl-C no longer
/// ends the process by itself; this cannot be undone.
///
/// # Errors
///
/// [`RunError`] for every end that was not asked for; [`RunError::Setup`] if threads or signal
/// handlers cannot be had.
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
/// let report = runner_smol::run_with(bot, |handle| {
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
pub fn run_with<G, C>(
    bot: Bot<G, C>,
    started: impl FnOnce(RunnerHandle<G::Raw>),
) -> Result<Report<G::Raw>, RunError<G::Raw>>
where
    G: GetUpdates,
    C: UpdateConsumer<G::Update>,
{
    let runtime = Smol::try_with_threads(default_threads())
        .map_err(|error| RunError::setup("start the threads of the runtime", error))?;
    let result = block_on(on(runtime.clone(), bot, started, true));
    runtime.shut_down();
    // But not for longer: a handler may block its thread for ever.
    runtime.wait_for_threads(SHUTDOWN_TIMEOUT);
    result
}

/// Runs `bot` until Ctrl-C or SIGTERM, without blocking: handlers run on threads made for it.
///
/// The same as [`run`] otherwise, for any async code, whatever runs it. To have the handlers on an
/// executor that exists already, use [`serve_on`].
///
/// # Errors
///
/// As [`run`].
///
/// # Cancel safety
///
/// Dropping the future cancels the run: handlers are dropped and nothing is confirmed, so that
/// updates may be delivered again. The threads end.
pub async fn serve<G, C>(bot: Bot<G, C>) -> Result<Report<G::Raw>, RunError<G::Raw>>
where
    G: GetUpdates,
    C: UpdateConsumer<G::Update>,
{
    let runtime = Smol::try_with_threads(default_threads())
        .map_err(|error| RunError::setup("start the threads of the runtime", error))?;
    let _end = ShutDown(runtime.clone());
    on(runtime, bot, drop, false).await
}

/// Runs `bot` until Ctrl-C or SIGTERM, on an executor that exists already.
///
/// `executor` must run meanwhile, on this thread or on others. The same as [`run`] otherwise.
///
/// To stop a bot by other means, look inside it or keep signals out of it, start it yourself:
///
/// ```
/// # use runner_core::{Delivery, testing::FakeApi};
/// # let api = FakeApi::of_ids([]);
/// use std::sync::Arc;
/// use async_executor::Executor;
/// use runner_core::Bot;
/// use runner_smol::Smol;
///
/// let executor = Arc::new(Executor::new());
/// # async_io::block_on(executor.clone().run(async {
/// let bot = Bot::for_each(api, async |update: Delivery<i64>| println!("{update:?}"));
/// let handle = bot.into_runner(Arc::new(Smol::on(&executor))).start();
/// println!("{:?}", handle.health());
/// let report = handle.stop().await.expect("nothing failed");
/// println!("{report}");
/// # }));
/// ```
///
/// # Errors
///
/// [`RunError`] for every end that was not asked for; [`RunError::Setup`] if signal handlers cannot
/// be had.
///
/// # Cancel safety
///
/// Dropping the future cancels the run: handlers are dropped and nothing is confirmed, so that
/// updates may be delivered again.
pub async fn serve_on<G, C>(
    executor: &Arc<Executor<'static>>,
    bot: Bot<G, C>,
) -> Result<Report<G::Raw>, RunError<G::Raw>>
where
    G: GetUpdates,
    C: UpdateConsumer<G::Update>,
{
    on(Smol::on(executor), bot, drop, false).await
}

async fn on<G, C>(
    runtime: Smol,
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

/// Ends the threads when the future that needs them has ended or is dropped: handlers that go on
/// hold the runtime as well, and would keep them.
struct ShutDown(Smol);

impl Drop for ShutDown {
    fn drop(&mut self) {
        self.0.shut_down();
    }
}

/// How long tasks that are none of the runner's may take to be dropped. Short, because it adds to
/// [`Bot::stop_timeout`].
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(500);
