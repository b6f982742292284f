//! An API and a handler, put together: [`Bot`].

use std::{fmt, marker::PhantomData, num::NonZeroUsize, sync::Arc, time::Duration};

use crate::{
    BoxError, Delivery, ErrorPolicy, FetchOptions, GetUpdates, HandlerOutput, Key, LateHandler,
    Runner, Runtime, SinkOptions, SourceOptions, Undecodable, UpdateConsumer, UpdateFetcher,
    UpdateSink,
    queue::{ApiLabel, QueueParts},
    sink::{Gathering, SinkConsumer},
};

/// What a bot is made of: an API to poll and a handler for its updates.
///
/// It is a description and does nothing by itself. Hand it to `run` or `serve` of `runner-tokio` or
/// `runner-smol`, or make a [`Runner`] of it with [`into_runner`](Self::into_runner).
///
/// # Defaults
///
/// Up to 500 updates at once; updates of the same chat one after the other
/// ([`GetUpdates::default_key`]); no timeouts; a failing update is logged and given up; a long poll
/// of 30 s, retried without a limit while the server cannot be reached.
///
/// ```
/// # #[cfg(feature = "test-util")] {
/// use std::{sync::Arc, time::Duration};
/// use runner_core::{Bot, Delivery, testing::{FakeApi, SimRuntime}};
///
/// let sim = SimRuntime::new(1);
/// // For a real one, take `BotApi` of `runner-http`.
/// let api = FakeApi::of_ids([0, 1, 2]).runtime(Arc::new(sim.clone()));
/// let bot = Bot::for_each(api, async |update: Delivery<i64>| {
///     println!("update {}", *update);
/// });
///
/// let handle = bot.into_runner(Arc::new(sim.clone())).start();
/// sim.advance(Duration::from_secs(5));
/// let report = sim.block_on(handle.stop()).unwrap();
/// assert_eq!(report.counters.finished, 3);
/// # }
/// ```
///
/// Updates are decoded in their own task. Keys and the policy therefore see them as they were
/// fetched; one that cannot be decoded reaches the policy as
/// [`Cause::Undecodable`](crate::Cause::Undecodable), and costs no other update.
pub struct Bot<G: GetUpdates, C> {
    api: G,
    consumer: C,
    parts: QueueParts<G::Raw>,
    source: SourceOptions,
    fetch: FetchOptions,
    gathering: Option<Arc<dyn Gathering>>,
    stop_timeout: Option<Duration>,
}

impl<G: GetUpdates, C: UpdateConsumer<G::Update>> Bot<G, C> {
    /// A bot that handles the updates of `api` with `consumer`.
    pub fn new(api: G, consumer: C) -> Self {
        let mut parts = QueueParts::default();
        parts.sequentialize(G::default_key);
        parts.size = Some(Arc::new(G::size));
        parts.label = Some(Arc::new(|raw| ApiLabel {
            id: G::update_id(raw),
            kind: G::kind(raw).map(ToOwned::to_owned),
        }));
        Self {
            api,
            consumer,
            parts,
            source: SourceOptions::default(),
            fetch: FetchOptions::default(),
            gathering: None,
            stop_timeout: None,
        }
    }

    /// Replaces what keeps updates in order; see [`Runner::sequentialize`].
    #[must_use]
    pub fn sequentialize<F, K>(mut self, keys: F) -> Self
    where
        F: Fn(&G::Raw) -> K + Send + Sync + 'static,
        K: IntoIterator<Item = Key>,
    {
        self.parts.sequentialize(keys);
        self
    }

    /// Handles updates in no particular order, those of the same chat at the same time too.
    #[must_use]
    pub fn unordered(mut self) -> Self {
        self.parts.keys = None;
        self
    }

    /// What happens to updates that are not handled. Default:
    /// [`SkipFailed`](crate::SkipFailed).
    #[must_use]
    pub fn policy(mut self, policy: impl ErrorPolicy<G::Raw>) -> Self {
        self.parts.policy = Arc::new(policy);
        self
    }

    /// Called for every handler that goes on after its timeout; see
    /// [`SinkOptions::continue_after_timeout`]. It must not block.
    #[must_use]
    pub fn on_late(
        mut self,
        on_late: impl Fn(LateHandler<G::Raw>) + Send + Sync + 'static,
    ) -> Self {
        self.parts.on_late = Some(Arc::new(on_late));
        self
    }

    /// How updates are handed to the handler. Replaces what [`concurrency`](Self::concurrency) and
    /// [`timeout`](Self::timeout) have set.
    #[must_use]
    pub fn sink<M>(mut self, options: SinkOptions<M>) -> Self {
        self.parts.limits = options.limits;
        self
    }

    /// How calls are repeated and paced.
    #[must_use]
    pub fn source(mut self, options: SourceOptions) -> Self {
        self.source = options;
        self
    }

    /// What is asked of the server.
    #[must_use]
    pub fn fetch(mut self, options: FetchOptions) -> Self {
        self.fetch = options;
        self
    }

    /// How many updates may be handled at once; see [`SinkOptions::concurrency`]. Default: 500.
    #[must_use]
    pub fn concurrency(mut self, concurrency: NonZeroUsize) -> Self {
        self.parts.limits.set_concurrency(concurrency);
        self
    }

    /// How long handling one update may take; see [`SinkOptions::timeout`]. Default: no timeout.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.parts.limits.timeout = Some(timeout);
        self
    }

    /// How long the stop after a signal may take, with `run` and `serve` of a runtime crate and with
    /// [`Runner::run_until`]. After that, the handlers that are left are cancelled, and the report lists
    /// their updates. Default: no limit, a stop waits for the slowest handler.
    ///
    /// Whatever handlers do, the report follows at most 1 s after the limit, and `run` returns at most 0.5 s
    /// later. So set it 2 s below the time after which the service manager kills the process: 8 s for Docker
    /// (10 s), 28 s for Kubernetes (30 s), 88 s for systemd (90 s). Without such a manager nothing has to end
    /// by then, which is why there is no default.
    ///
    /// ```
    /// # use runner_core::{Delivery, testing::FakeApi};
    /// # let api = FakeApi::of_ids([]);
    /// use std::time::Duration;
    /// use runner_core::Bot;
    ///
    /// let bot = Bot::for_each(api, async |_: Delivery<i64>| {})
    ///     .stop_timeout(Duration::from_secs(8)); // `docker stop` kills after 10 s
    /// # let _ = bot;
    /// ```
    #[must_use]
    pub fn stop_timeout(mut self, limit: Duration) -> Self {
        self.stop_timeout = Some(limit);
        self
    }

    /// The runner that does all of this on `runtime`.
    pub fn into_runner(
        self,
        runtime: Arc<dyn Runtime>,
    ) -> Runner<UpdateFetcher<G>, impl UpdateConsumer<G::Raw>> {
        let Self {
            api,
            consumer,
            parts,
            source,
            fetch,
            gathering,
            stop_timeout,
        } = self;
        let fetcher = UpdateFetcher::new(Arc::clone(&runtime), api).options(fetch);
        let consumer = Decode::<G, C> {
            consumer,
            api: PhantomData,
        };
        let mut runner = Runner::new(runtime, fetcher, consumer).source(source);
        runner.parts = parts;
        runner.stop_timeout = stop_timeout;
        if let Some(gathering) = gathering {
            runner.attach(gathering);
        }
        runner
    }
}

impl<G: GetUpdates> Bot<G, ()> {
    /// A bot that handles the updates of `api` with a closure.
    ///
    /// The same as [`Bot::new`] with a closure, but the compiler can tell the type of the argument.
    pub fn for_each<F, Fut>(api: G, handler: F) -> Bot<G, impl UpdateConsumer<G::Update>>
    where
        F: Fn(Delivery<G::Update>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: HandlerOutput> + Send,
    {
        Bot::new(api, handler)
    }

    /// A bot that handles the updates of `api` with a closure that needs something to work with.
    ///
    /// `state` is cloned for every update; wrap what is costly to clone in an `Arc`.
    pub fn for_each_with<T, F, Fut>(
        api: G,
        state: T,
        handler: F,
    ) -> Bot<G, impl UpdateConsumer<G::Update>>
    where
        T: Clone + Send + Sync + 'static,
        F: Fn(T, Delivery<G::Update>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: HandlerOutput> + Send,
    {
        Bot::new(api, move |update| handler(state.clone(), update))
    }

    /// A bot that handles the updates of `api` with a sink of your own, in groups; see
    /// [`Runner::with_sink`].
    pub fn with_sink(
        api: G,
        sink: impl UpdateSink<G::Update>,
    ) -> Bot<G, impl UpdateConsumer<G::Update>> {
        let consumer = SinkConsumer::new(sink);
        let gathering = consumer.gathering();
        let mut bot = Bot::new(api, consumer);
        bot.gathering = Some(gathering);
        bot
    }
}

impl<G: GetUpdates, C> fmt::Debug for Bot<G, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither the API nor the handler: the first one knows a token.
        f.debug_struct("Bot")
            .field("sequentialized", &self.parts.keys.is_some())
            .field("sink", &self.parts.limits)
            .field("source", &self.source)
            .field("fetch", &self.fetch)
            .field("stop_timeout", &self.stop_timeout)
            .finish_non_exhaustive()
    }
}

/// Decodes an update, then hands it to the consumer.
struct Decode<G, C> {
    consumer: C,
    api: PhantomData<fn() -> G>,
}

impl<G, C> UpdateConsumer<G::Raw> for Decode<G, C>
where
    G: GetUpdates,
    C: UpdateConsumer<G::Update>,
{
    type Error = BoxError;

    async fn consume(&self, raw: Delivery<G::Raw>) -> Result<(), BoxError> {
        let update = G::decode(raw).map_err(Undecodable::new)?;
        self.consumer.consume(update).await.map_err(Into::into)
    }
}
