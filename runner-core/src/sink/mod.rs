//! A user's sink: [`UpdateSink`] and its type-erased form.
//!
//! The queue feeds it, so order by key, limits, timeouts, the error policy and completion are the same
//! for every sink. `handover.rs` is the consumer that offers updates to the sink, `driver.rs` the task
//! that calls it, and `lease.rs` an update that the sink has.

mod driver;
mod handover;
mod lease;

use std::{error::Error, fmt, num::NonZeroUsize, sync::Arc, time::Duration};

use async_trait::async_trait;

pub(crate) use self::handover::{Gathering, SinkConsumer};
pub use self::lease::Lease;
use crate::BoxError;

/// Handles updates in groups, instead of one by one as an [`UpdateConsumer`](crate::UpdateConsumer)
/// does.
///
/// Implement this to write updates in bulk, to handle urgent ones first, or to pass them to your own
/// workers. Use it with [`Bot::with_sink`](crate::Bot::with_sink) or
/// [`Runner::with_sink`](crate::Runner::with_sink).
///
/// # Contract
///
/// - Calls run one after the other, on a task of their own. A group has at least one and at most
///   [`max_group`](Self::max_group) updates, in order of arrival. Updates that can start together come
///   together: a batch is not split, unless [`concurrency`](crate::SinkOptions::concurrency) or keys
///   require it.
/// - Every update comes as a [`Lease`]. Complete it once, with [`Lease::finish`] or [`Lease::fail`]. It
///   may outlive the call, for example in a channel. The update counts as in flight until then.
/// - Dropping a lease fails its update: with the error or the panic of the call, or with
///   [`SinkError::Forgotten`]. So you can use `?` on a bulk write. A failed update goes to the
///   [`ErrorPolicy`](crate::ErrorPolicy), which may retry it; then it comes in a later group.
/// - Complete an update after the work is done: it may then be confirmed to the server.
///
/// # What the runner still does
///
/// The sink has at most [`concurrency`](crate::SinkOptions::concurrency) incomplete updates, and gets no
/// others while a call runs. It never has two updates with the same key, except with `unordered()`. The
/// timeout of an update starts when the update is ready for the sink, so it includes the wait for the
/// call before. With [`SinkOptions::batch`](crate::SinkOptions::batch) the next fetch waits until all
/// updates are complete, and then none is lost even if the process is killed.
///
/// A stop hands over all updates that the runner holds, without [`linger`](Self::linger). There is
/// nothing to flush at the end, because all updates are complete by then.
///
/// # Cancel safety
///
/// The future of a call is dropped only when every update that it has not completed has timed out or
/// was abandoned. Their leases are revoked: completing them has no effect any more.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "test-util")] {
/// use std::{io, sync::{Arc, Mutex}, time::Duration};
/// use runner_core::{Lease, Runner, UpdateSink, testing::{ScriptedSupplier, SimRuntime}};
///
/// /// Writes a group at a time.
/// struct Table(Arc<Mutex<Vec<Vec<u32>>>>);
///
/// impl UpdateSink<u32> for Table {
///     type Error = io::Error;
///
///     async fn handle(&mut self, group: Vec<Lease<u32>>) -> Result<(), io::Error> {
///         let rows = group.iter().map(|lease| **lease).collect();
///         self.0.lock().unwrap().push(rows); // with a database: `.await?`
///         for lease in group {
///             lease.finish();
///         }
///         Ok(())
///     }
///
///     fn linger(&self) -> Duration {
///         Duration::from_millis(100)
///     }
/// }
///
/// let sim = SimRuntime::new(1);
/// let written = Arc::default();
/// let supplier = ScriptedSupplier::new(&sim).batch([1, 2]).batch([3]);
/// let handle = Runner::with_sink(Arc::new(sim.clone()), supplier, Table(Arc::clone(&written))).start();
/// sim.advance(Duration::from_secs(1));
/// let report = sim.block_on(handle.stop()).unwrap();
/// assert_eq!(report.counters.finished, 3);
/// assert_eq!(*written.lock().unwrap(), [[1, 2, 3]]);
/// # }
/// ```
pub trait UpdateSink<U>: Send + 'static {
    /// Failure of one call.
    type Error: Into<BoxError> + Send;

    /// Handles a group of updates.
    ///
    /// # Errors
    ///
    /// Any error fails the updates of the group whose leases were dropped, each with
    /// [`SinkError::Group`].
    fn handle(
        &mut self,
        group: Vec<Lease<U>>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// The largest group. Asked before each call. Default: 100, one batch.
    ///
    /// A group never has more updates than [`concurrency`](crate::SinkOptions::concurrency).
    fn max_group(&self) -> NonZeroUsize {
        const { NonZeroUsize::new(crate::queue::MAX_BATCH).unwrap() }
    }

    /// How long a group waits for later updates. Asked before each call. Default: zero.
    ///
    /// Updates that can start together come together without it, and those that become ready during
    /// one call are the next group.
    ///
    /// The wait ends early when the group is full, at a stop, and when no other update can come before
    /// the group is complete. With [`SinkOptions::batch`](crate::SinkOptions::batch) and
    /// [`SinkOptions::sequential`](crate::SinkOptions::sequential) the next fetch waits for the group, so
    /// the group waits only for updates of its own batch that will be retried or that wait for an earlier
    /// lease.
    fn linger(&self) -> Duration {
        Duration::ZERO
    }
}

/// Why a sink did not handle an update, as the error policy sees it in
/// [`Cause::Error`](crate::Cause::Error).
///
/// The policy sees an error that was given to [`Lease::fail`] unchanged.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SinkError {
    /// The lease was dropped by a call that did not fail, or after it.
    Forgotten,
    /// The call for the whole group failed.
    Group {
        /// How many updates the group had.
        size: usize,
        /// What the sink returned.
        source: Arc<dyn Error + Send + Sync>,
    },
}

impl fmt::Display for SinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forgotten => f.write_str(
                "the sink dropped the lease of the update without completing it; call finish() or \
                 fail() on every lease",
            ),
            Self::Group { size, .. } => {
                write!(f, "the sink could not handle a group of {size} updates")
            }
        }
    }
}

impl Error for SinkError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Forgotten => None,
            Self::Group { source, .. } => Some(&**source),
        }
    }
}

/// A sink of any type, where the type cannot be named.
///
/// It costs one allocation per call.
pub struct BoxSink<U>(Box<dyn DynSink<U>>);

impl<U: Send + Sync + 'static> BoxSink<U> {
    /// Boxes `sink`.
    pub fn new(sink: impl UpdateSink<U>) -> Self {
        Self(Box::new(sink))
    }
}

impl<U: Send + Sync + 'static> UpdateSink<U> for BoxSink<U> {
    type Error = BoxError;

    async fn handle(&mut self, group: Vec<Lease<U>>) -> Result<(), BoxError> {
        self.0.handle(group).await
    }

    fn max_group(&self) -> NonZeroUsize {
        self.0.max_group()
    }

    fn linger(&self) -> Duration {
        self.0.linger()
    }
}

impl<U> fmt::Debug for BoxSink<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoxSink").finish_non_exhaustive()
    }
}

/// The dyn-compatible form of [`UpdateSink`].
#[async_trait]
trait DynSink<U>: Send {
    async fn handle(&mut self, group: Vec<Lease<U>>) -> Result<(), BoxError>;
    fn max_group(&self) -> NonZeroUsize;
    fn linger(&self) -> Duration;
}

#[async_trait]
impl<U: Send + Sync + 'static, S: UpdateSink<U>> DynSink<U> for S {
    async fn handle(&mut self, group: Vec<Lease<U>>) -> Result<(), BoxError> {
        UpdateSink::handle(self, group).await.map_err(Into::into)
    }

    fn max_group(&self) -> NonZeroUsize {
        UpdateSink::max_group(self)
    }

    fn linger(&self) -> Duration {
        UpdateSink::linger(self)
    }
}
