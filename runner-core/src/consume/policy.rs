//! What happens to an update that was not handled: [`ErrorPolicy`].

use std::{
    error::Error,
    fmt,
    future::{Ready, ready},
    sync::Arc,
    time::Duration,
};

use crate::{
    BoxError, Delivery,
    trace::{Chain, error, log_update},
};

/// Why an update was not handled.
///
/// `Display` contains the text of the error, and [`source`](Error::source) is the source of that error:
/// a log that prints a cause with all its sources shows each text once. The error itself is in the variant.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Cause {
    /// The handler returned an error.
    Error(Arc<dyn Error + Send + Sync>),
    /// The handler panicked, with this text.
    Panic(Arc<str>),
    /// The handler did not return in time.
    Timeout,
    /// The update itself could not be understood.
    Undecodable(Arc<dyn Error + Send + Sync>),
    /// Too many updates of the same key were waiting already.
    Overflow,
}

impl Cause {
    pub(crate) fn from_error(error: BoxError) -> Self {
        let error = match error.downcast::<Undecodable>() {
            Ok(undecodable) => return Self::Undecodable(undecodable.0.into()),
            Err(error) => error,
        };
        match error.downcast::<Panicked>() {
            Ok(panicked) => Self::Panic(panicked.0),
            Err(error) => Self::Error(error.into()),
        }
    }
}

/// How a consumer of the core passes on a panic that it has caught.
#[derive(Debug)]
pub(crate) struct Panicked(pub(crate) Arc<str>);

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Panicked {}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(error) => write!(f, "the handler failed: {error}"),
            Self::Panic(text) => write!(f, "the handler panicked: {text}"),
            Self::Timeout => f.write_str("the handler timed out"),
            Self::Undecodable(error) => write!(f, "the update cannot be decoded: {error}"),
            Self::Overflow => f.write_str("too many updates of the same key are waiting"),
        }
    }
}

impl Error for Cause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            // The error itself is a part of the text.
            Self::Error(error) | Self::Undecodable(error) => error.source(),
            Self::Panic(_) | Self::Timeout | Self::Overflow => None,
        }
    }
}

/// An error by which a consumer says that the update itself could not be understood.
///
/// It reaches the policy as [`Cause::Undecodable`]. [`Bot`](crate::Bot) does this for what
/// [`GetUpdates::decode`](crate::GetUpdates::decode) refuses.
///
/// ```
/// use runner_core::{BoxError, Delivery, Undecodable};
///
/// async fn handle(line: Delivery<String>) -> Result<(), BoxError> {
///     let number: i64 = line.parse().map_err(Undecodable::new)?;
///     // …
///     # let _ = number;
///     Ok(())
/// }
/// # let _ = handle;
/// ```
#[derive(Debug)]
pub struct Undecodable(BoxError);

impl Undecodable {
    /// Wraps what is wrong with the update.
    pub fn new(source: impl Into<BoxError>) -> Self {
        Self(source.into())
    }
}

impl fmt::Display for Undecodable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the update cannot be decoded: {}", self.0)
    }
}

impl Error for Undecodable {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        // The error itself is a part of the text.
        self.0.source()
    }
}

/// One failed attempt, as the policy sees it.
///
/// [`Failure::new`] makes one for a unit test of a policy:
///
/// ```
/// use runner_core::{Cause, Delivery, Failure, Verdict};
///
/// fn decide(failure: &Failure<u32>) -> Verdict {
///     match failure.cause {
///         Cause::Overflow => Verdict::Stop,
///         _ => Verdict::Skip,
///     }
/// }
///
/// let failure = Failure::new(Delivery::new(7), Cause::Timeout);
/// assert_eq!(decide(&failure), Verdict::Skip);
/// ```
#[non_exhaustive]
pub struct Failure<U> {
    /// The update; [`Delivery::attempt`] tells how often it was tried.
    pub update: Delivery<U>,
    /// What went wrong.
    pub cause: Cause,
}

impl<U> Failure<U> {
    /// Creates a failure, for unit tests of a policy.
    #[must_use]
    pub fn new(update: Delivery<U>, cause: Cause) -> Self {
        Self { update, cause }
    }
}

impl<U> Clone for Failure<U> {
    fn clone(&self) -> Self {
        Self {
            update: self.update.clone(),
            cause: self.cause.clone(),
        }
    }
}

impl<U> fmt::Debug for Failure<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failure")
            .field("attempt", &self.update.attempt())
            .field("cause", &self.cause)
            .finish_non_exhaustive()
    }
}

/// What to do with an update that was not handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// Give this update up and go on with the next one.
    Skip,
    /// Try again later. Meanwhile the update keeps its place in the order of its keys, and holds
    /// no slot.
    ///
    /// An update that no handler may see, because too many of its key are waiting or because its
    /// keys could not be computed, is not handled later either: the policy is asked again.
    Retry {
        /// How long to wait.
        after: Duration,
    },
    /// End the run with [`RunError::Policy`](crate::RunError::Policy). This update is not completed.
    Stop,
}

/// Lets a closure answer with a plain `Verdict` as well as with a future of one.
impl IntoFuture for Verdict {
    type Output = Self;
    type IntoFuture = Ready<Self>;

    fn into_future(self) -> Ready<Self> {
        ready(self)
    }
}

/// Decides what happens to an update that was not handled.
///
/// Closures are policies, sync or async:
///
/// ```
/// use std::time::Duration;
/// use runner_core::{Cause, ErrorPolicy, Failure, Verdict};
///
/// fn check(policy: impl ErrorPolicy<u32>) {}
///
/// check(|failure: Failure<u32>| match failure.cause {
///     Cause::Timeout if failure.update.attempt().get() < 3 => {
///         Verdict::Retry { after: Duration::from_secs(1) }
///     }
///     _ => Verdict::Skip,
/// });
/// check(|failure: Failure<u32>| async move {
///     // store it somewhere …
///     Verdict::Skip
/// });
/// ```
///
/// # Contract
///
/// - Called once per failed attempt, in the task of the update, which keeps its slot and keys
///   meanwhile.
/// - Isolated: a policy that panics, or takes longer than 30 seconds, counts as
///   [`Verdict::Skip`] and is logged.
pub trait ErrorPolicy<U>: Send + Sync + 'static {
    /// Answers one failure.
    ///
    /// # Cancel safety
    ///
    /// The future is dropped after 30 seconds, and when the runner is told not to wait any longer.
    fn decide(&self, failure: Failure<U>) -> impl Future<Output = Verdict> + Send;
}

impl<U, F, R> ErrorPolicy<U> for F
where
    U: Send + Sync + 'static,
    F: Fn(Failure<U>) -> R + Send + Sync + 'static,
    R: IntoFuture<Output = Verdict, IntoFuture: Send> + Send,
{
    fn decide(&self, failure: Failure<U>) -> impl Future<Output = Verdict> + Send {
        self(failure).into_future()
    }
}

/// The default policy: every failure is logged as an error and the update is given up.
///
/// The runner must not stop for one bad update, and must not repeat effects unless asked to.
#[derive(Clone, Copy, Debug, Default)]
pub struct SkipFailed;

impl<U: Send + Sync + 'static> ErrorPolicy<U> for SkipFailed {
    async fn decide(&self, failure: Failure<U>) -> Verdict {
        let label = failure.update.label();
        log_update!(
            error,
            label,
            failure.update.attempt(),
            cause = %Chain(&failure.cause),
            "update given up"
        );
        Verdict::Skip
    }
}
