//! Where updates come from: [`UpdateSupplier`] and how its failures are classified.

use std::{convert::Infallible, error::Error, fmt, io, num::NonZeroUsize, time::Duration};

use async_trait::async_trait;

/// Any error that may move between threads.
pub type BoxError = Box<dyn Error + Send + Sync + 'static>;

/// Fetches batches of updates on demand.
///
/// Implement this to read updates from somewhere else than the Bot API: a message queue, a file, a
/// test script. To poll the Bot API, use [`UpdateFetcher`](crate::UpdateFetcher) over a
/// [`GetUpdates`](crate::GetUpdates). Suppliers compose: pacing, durability or metrics are
/// suppliers around suppliers.
///
/// # Contract
///
/// - Order: a batch is oldest first, and batches continue where the last one ended.
/// - Size: at most `limit` updates; an empty batch is a normal answer, not an end of stream. A
///   batch that is larger is still handled, nothing of it is dropped.
/// - Calls never overlap: the source waits for one `supply` before it starts the next.
///
/// # Cancel safety
///
/// The source drops the future to stop, to pause and when [`call_timeout`](Self::call_timeout) is
/// over. Dropping it at any await point must lose no update: move your read position only once the
/// batch is about to be returned.
///
/// # Example
///
/// ```
/// use std::{convert::Infallible, num::NonZeroUsize};
/// use runner_core::UpdateSupplier;
///
/// /// Counts for ever.
/// struct Count(u64);
///
/// impl UpdateSupplier for Count {
///     type Update = u64;
///     type Error = Infallible;
///
///     async fn supply(&mut self, limit: NonZeroUsize) -> Result<Vec<u64>, Infallible> {
///         let first = self.0;
///         self.0 += limit.get() as u64;
///         Ok((first..self.0).collect())
///     }
/// }
/// ```
pub trait UpdateSupplier: Send + 'static {
    /// What one batch holds.
    type Update: Send + Sync + 'static;

    /// Failure of one call. Whether and when to try again follows from its [`SupplyError`].
    type Error: Into<SupplyError> + Send;

    /// Returns the next batch, waiting until at least one update exists or the poll times out.
    ///
    /// `limit` is how many updates the sink can take now, at least 1.
    ///
    /// # Errors
    ///
    /// Any error of the transport. The source may call again.
    fn supply(
        &mut self,
        limit: NonZeroUsize,
    ) -> impl Future<Output = Result<Vec<Self::Update>, Self::Error>> + Send;

    /// How long the next call may take before it counts as dead and is dropped.
    ///
    /// The guard against a half-open connection: it costs one deadline, not the bot. `None` (the
    /// default) waits for ever.
    fn call_timeout(&self) -> Option<Duration> {
        None
    }

    /// The most updates that the next call returns, if that can be fewer than its `limit`. Default:
    /// `None`.
    ///
    /// The source asks for no more, and takes an answer with this many for a full one: more may be
    /// waiting, so there is no pause before the next call.
    fn max_batch(&self) -> Option<NonZeroUsize> {
        None
    }

    /// Called once at the end of a run, when every update of it is settled or abandoned: confirm,
    /// flush.
    ///
    /// `settled_prefix` is how many updates, counted in supply order from the beginning of this
    /// run, are settled without a gap. A supplier that acknowledges by position confirms that many
    /// and rewinds to the first one after them, so that a later run gets the rest again.
    ///
    /// # Errors
    ///
    /// Any error of the transport. It is reported as [`Confirmation::Failed`]; it does not fail the
    /// run.
    ///
    /// # Cancel safety
    ///
    /// The future is dropped after 10 s, and earlier at the end of a stop that has a limit. Go back to
    /// the first unsettled update before anything is awaited.
    fn close(
        &mut self,
        settled_prefix: usize,
    ) -> impl Future<Output = Result<Closing, Self::Error>> + Send {
        async move {
            let _ = settled_prefix;
            Ok(Closing::default())
        }
    }
}

/// What a supplier says at the end of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Closing {
    /// Whether the upstream knows what was handled.
    pub confirmation: Confirmation,
    /// The first update, counted as in [`UpdateSupplier::close`], that a later run is given again.
    ///
    /// `None`: none of this run's updates comes back.
    pub redelivers_from: Option<usize>,
}

impl Closing {
    /// An answer with this confirmation, and nothing that comes back.
    #[must_use]
    pub fn new(confirmation: Confirmation) -> Self {
        Self {
            confirmation,
            redelivers_from: None,
        }
    }

    /// Says that updates from this one on are supplied again by a later run.
    #[must_use]
    pub fn redelivers_from(mut self, index: usize) -> Self {
        self.redelivers_from = Some(index);
        self
    }
}

/// Whether the upstream knows which updates are handled, at the end of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Confirmation {
    /// The supplier has nothing to confirm.
    #[default]
    NotNeeded,
    /// An answer was received to a request that carried this position.
    Confirmed {
        /// The first position that is not confirmed; for the Bot API, the `offset`.
        position: i64,
    },
    /// A request that carried this position was under way for long enough to have been processed,
    /// but was never answered.
    Assumed {
        /// The first position that is not confirmed.
        position: i64,
    },
    /// The confirmation failed: what was handled last may be delivered once more.
    Unconfirmed {
        /// The position that should have been confirmed.
        position: i64,
    },
    /// The supplier was not closed, or failed to: the run was cut short, its time was over, or
    /// `close` returned an error.
    Failed,
}

/// Why a call for updates failed, as far as the runner has to act on it.
#[derive(Debug)]
#[non_exhaustive]
pub enum SupplyError {
    /// Will pass: a network fault, a server that restarts. Tried again after a backoff.
    Transient(BoxError),
    /// The server asks to wait. Waited once, exactly; not counted as a failure.
    RetryAfter {
        /// How long to wait.
        delay: Duration,
        /// What the server said.
        source: BoxError,
    },
    /// Somebody else receives the updates.
    Conflict {
        /// Who.
        kind: Conflict,
        /// What the server said.
        source: BoxError,
    },
    /// Trying again cannot help: a wrong token, a wrong address. Ends the run.
    Fatal(BoxError),
}

/// Who receives the updates instead of us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Conflict {
    /// Another poller, for example the old instance during a rolling deploy. The runner waits and
    /// tries again a few times, then gives up, so that one of the two survives.
    Poller,
    /// A webhook is set.
    Webhook,
}

impl SupplyError {
    /// A failure that will pass.
    pub fn transient(source: impl Into<BoxError>) -> Self {
        Self::Transient(source.into())
    }

    /// A failure that will not pass.
    pub fn fatal(source: impl Into<BoxError>) -> Self {
        Self::Fatal(source.into())
    }

    /// A request to wait.
    pub fn retry_after(delay: Duration, source: impl Into<BoxError>) -> Self {
        Self::RetryAfter {
            delay,
            source: source.into(),
        }
    }

    /// A conflict with another receiver.
    pub fn conflict(kind: Conflict, source: impl Into<BoxError>) -> Self {
        Self::Conflict {
            kind,
            source: source.into(),
        }
    }
}

impl fmt::Display for SupplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transient(_) => f.write_str("fetching updates failed"),
            Self::RetryAfter { delay, .. } => {
                write!(f, "the server asks to wait {delay:?} before the next fetch")
            }
            Self::Conflict {
                kind: Conflict::Poller,
                ..
            } => f.write_str("another instance polls for the same updates"),
            Self::Conflict {
                kind: Conflict::Webhook,
                ..
            } => f.write_str("a webhook receives the updates"),
            Self::Fatal(_) => f.write_str("updates cannot be fetched"),
        }
    }
}

impl Error for SupplyError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Transient(source)
            | Self::RetryAfter { source, .. }
            | Self::Conflict { source, .. }
            | Self::Fatal(source) => Some(&**source),
        }
    }
}

impl From<Infallible> for SupplyError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl From<io::Error> for SupplyError {
    fn from(error: io::Error) -> Self {
        Self::Transient(error.into())
    }
}

impl From<BoxError> for SupplyError {
    fn from(error: BoxError) -> Self {
        Self::Transient(error)
    }
}

/// A supplier of any type, for where the type cannot be named.
///
/// Costs one allocation a call.
///
/// ```
/// # #[cfg(feature = "test-util")] {
/// use runner_core::{BoxSupplier, testing::{ScriptedSupplier, SimRuntime}};
///
/// let sim = SimRuntime::new(1);
/// let suppliers: Vec<BoxSupplier<u32>> = vec![
///     BoxSupplier::new(ScriptedSupplier::new(&sim).batch([1])),
///     // and others, of other types
/// ];
/// # assert_eq!(suppliers.len(), 1);
/// # }
/// ```
pub struct BoxSupplier<U>(Box<dyn DynSupplier<U>>);

impl<U: Send + Sync + 'static> BoxSupplier<U> {
    /// Boxes `supplier`.
    pub fn new(supplier: impl UpdateSupplier<Update = U>) -> Self {
        Self(Box::new(supplier))
    }
}

impl<U: Send + Sync + 'static> UpdateSupplier for BoxSupplier<U> {
    type Update = U;
    type Error = SupplyError;

    async fn supply(&mut self, limit: NonZeroUsize) -> Result<Vec<U>, SupplyError> {
        self.0.supply(limit).await
    }

    fn call_timeout(&self) -> Option<Duration> {
        self.0.call_timeout()
    }

    fn max_batch(&self) -> Option<NonZeroUsize> {
        self.0.max_batch()
    }

    async fn close(&mut self, settled_prefix: usize) -> Result<Closing, SupplyError> {
        self.0.close(settled_prefix).await
    }
}

impl<U> fmt::Debug for BoxSupplier<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoxSupplier").finish_non_exhaustive()
    }
}

/// The object-safe twin of [`UpdateSupplier`].
#[async_trait]
trait DynSupplier<U>: Send {
    async fn supply(&mut self, limit: NonZeroUsize) -> Result<Vec<U>, SupplyError>;
    fn call_timeout(&self) -> Option<Duration>;
    fn max_batch(&self) -> Option<NonZeroUsize>;
    async fn close(&mut self, settled_prefix: usize) -> Result<Closing, SupplyError>;
}

#[async_trait]
impl<S: UpdateSupplier> DynSupplier<S::Update> for S {
    async fn supply(&mut self, limit: NonZeroUsize) -> Result<Vec<S::Update>, SupplyError> {
        UpdateSupplier::supply(self, limit)
            .await
            .map_err(Into::into)
    }

    fn call_timeout(&self) -> Option<Duration> {
        UpdateSupplier::call_timeout(self)
    }

    fn max_batch(&self) -> Option<NonZeroUsize> {
        UpdateSupplier::max_batch(self)
    }

    async fn close(&mut self, settled_prefix: usize) -> Result<Closing, SupplyError> {
        UpdateSupplier::close(self, settled_prefix)
            .await
            .map_err(Into::into)
    }
}
