//! Where updates come from: [`UpdateSupplier`].

mod boxed;
mod closing;
mod error;
mod stream;

use std::{num::NonZeroUsize, time::Duration};

pub use self::{
    boxed::BoxSupplier,
    closing::{Closing, Confirmation},
    error::{BoxError, Conflict, SupplyError},
    stream::{from_iter, from_stream, from_try_stream},
};

/// Fetches batches of updates on demand.
///
/// Implement this to read updates from somewhere else than the Bot API: a message queue, a file, a
/// test script. To poll the Bot API, use [`UpdateFetcher`](crate::UpdateFetcher) over a
/// [`GetUpdates`](crate::GetUpdates). A stream or an iterator is a supplier in one call:
/// [`from_stream`], [`from_try_stream`], [`from_iter`]. Suppliers compose: pacing, durability or
/// metrics are suppliers around suppliers, which forward all four methods.
///
/// # Contract
///
/// - Order: a batch is oldest first, and batches continue where the last one ended.
/// - Size: at most `limit` updates. A batch that is larger is still handled, nothing of it is
///   dropped.
/// - End: an empty batch is a normal answer. A supplier that has no more says so by
///   [`is_exhausted`](Self::is_exhausted).
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
/// /// Counts up to 1,000.
/// struct Count(u64);
///
/// impl UpdateSupplier for Count {
///     type Update = u64;
///     type Error = Infallible;
///
///     async fn supply(&mut self, limit: NonZeroUsize) -> Result<Vec<u64>, Infallible> {
///         let first = self.0;
///         self.0 = 1_000.min(first + limit.get() as u64);
///         Ok((first..self.0).collect())
///     }
///
///     fn is_exhausted(&self) -> bool {
///         self.0 == 1_000
///     }
/// }
/// ```
pub trait UpdateSupplier: Send + 'static {
    /// What one batch holds.
    type Update: Send + Sync + 'static;

    /// Failure of one call. Whether and when to try again follows from its [`SupplyError`].
    type Error: Into<SupplyError> + Send;

    /// Returns the next batch, waiting until at least one update exists, the poll times out or it is
    /// known that no more come.
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
    /// Guards against half-open connections: one costs a deadline, not the bot. Default: `None`, no
    /// limit.
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

    /// Whether no more updates come: the end of a file, a queue that is drained. Default: `false`.
    ///
    /// Asked before and after each call of [`supply`](Self::supply), so the last batch and the end may
    /// come together. Once it is `true`, `supply` is not called again: the run handles what it holds, as
    /// after [`stop`](crate::RunnerHandle::stop), calls [`close`](Self::close) and ends with a report
    /// whose [`end`](crate::Report::end) is [`SupplyEnded`](crate::EndReason::SupplyEnded). A later run
    /// asks anew; if `close` has gone back to updates that were abandoned, answer `false` again.
    ///
    /// It must return at once.
    fn is_exhausted(&self) -> bool {
        false
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
