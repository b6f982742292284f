//! A sink of one's own: [`UpdateSink`] and its boxed twin.
//!
//! The queue of the runner stays in front of it: order by key, limits, timeouts, the error policy and
//! the settlement are the same for every sink. `lease.rs` is the update in the hands of the sink, and
//! `gather.rs` makes groups of what the queue lets start.

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
/// Implement this to write updates in bulk, to take the urgent ones first, or to pass them on to
/// workers of your own. Give it to [`Bot::with_sink`](crate::Bot::with_sink) or
/// [`Runner::with_sink`](crate::Runner::with_sink).
///
/// # Contract
///
/// - One call at a time, on a task of its own. A group is what has become ready meanwhile, at least
///   one and at most [`max_group`](Self::max_group), in order of arrival.
/// - Every update comes as a [`Lease`] that is settled once: [`Lease::finish`] or [`Lease::fail`]. It
///   may outlive the call, for example in a channel. The update counts as in flight until then.
/// - A lease that is dropped unsettled fails its update: with the error or the panic of the call, or
///   else with [`SinkError::Forgotten`]. So a bulk write that fails is one `?`, and nothing is ever
///   lost in silence. A failed update goes to the [`ErrorPolicy`](crate::ErrorPolicy), which may have
///   it come again in a later group.
/// - Settle what is done, not what is planned: a settled update may be confirmed to the server.
///
/// # What the runner keeps doing
///
/// Backpressure: no more updates are handed over than
/// [`concurrency`](crate::SinkOptions::concurrency) allows to be unsettled, and none while a call is
/// under way. Updates that share a key are never in the same group, nor in the hands of the sink at
/// the same time; with `unordered()` they may be. The timeout of an update begins when it may be
/// handed over, so waiting for the call before counts. With
/// [`SinkOptions::batch`](crate::SinkOptions::batch) the next fetch waits until all are settled, and
/// then nothing is lost even if the process is killed.
///
/// At a stop all that is held still comes, and [`linger`](Self::linger) no longer counts. There is
/// nothing to flush at the end, because by then everything is settled.
///
/// # Cancel safety
///
/// The future of a call is dropped when all updates that it has not settled have timed out or were
/// abandoned, and only then. Their leases are revoked: settling them changes nothing any more.
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
    /// Whatever could not be done. It fails the updates whose leases were dropped unsettled, each of
    /// them as [`SinkError::Group`].
    fn handle(
        &mut self,
        group: Vec<Lease<U>>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// How many updates the next call takes. Asked before each call. Default: 100, one batch.
    ///
    /// More than [`concurrency`](crate::SinkOptions::concurrency) never come.
    fn max_group(&self) -> NonZeroUsize {
        const { NonZeroUsize::new(crate::sink::MAX_BATCH).unwrap() }
    }

    /// How long to wait for the group to fill up. Asked before each call. Default: not at all.
    ///
    /// Without it, a sink that is slower than the updates come gets groups all the same: what becomes
    /// ready during one call is the next group.
    fn linger(&self) -> Duration {
        Duration::ZERO
    }
}

/// Why a sink did not handle an update, as the error policy sees it in
/// [`Cause::Error`](crate::Cause::Error).
///
/// An error that was given to [`Lease::fail`] reaches the policy as it is.
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
                "the sink dropped the lease of the update without settling it; call finish() or \
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

/// A sink of any type, for where the type cannot be named.
///
/// Costs one allocation per call.
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

/// The object-safe twin of [`UpdateSink`].
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
