//! How the failure of a supplier is classified: [`SupplyError`].

use std::{convert::Infallible, error::Error, fmt, io, time::Duration};

/// Any error that may move between threads.
pub type BoxError = Box<dyn Error + Send + Sync + 'static>;

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
