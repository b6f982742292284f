//! Why a source ended: [`SourceError`].

use std::{error::Error, fmt, sync::Arc, time::Duration};

use crate::SupplyError;

/// Why no more updates can be fetched.
#[derive(Debug)]
#[non_exhaustive]
pub enum SourceError {
    /// The supplier says that another attempt cannot help.
    Supply(SupplyError),
    /// A webhook receives the updates.
    Webhook(SupplyError),
    /// Another instance polls for the same updates, and did not stop.
    Poller {
        /// How many conflicts there were within a short time.
        conflicts: u32,
        /// What the supplier said last.
        source: SupplyError,
    },
    /// The limits of the [`RetryPolicy`](crate::RetryPolicy) are reached.
    GaveUp {
        /// How many calls in a row failed.
        failures: u32,
        /// The time from the first failure to the last one.
        elapsed: Duration,
        /// What the supplier said last.
        source: SupplyError,
    },
    /// The supplier could not be closed.
    Close(SupplyError),
    /// The supplier panicked, with this text.
    Panicked(Arc<str>),
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Supply(_) => f.write_str(
                "trying again cannot help; for a bot, check its token and the address of the Bot \
                 API server",
            ),
            Self::Webhook(_) => f.write_str(
                "delete the webhook, or allow the runner to do so with \
                 FetchOptions::delete_webhook",
            ),
            Self::Poller { conflicts, .. } => write!(
                f,
                "stop the other instance of this bot, or give it a token of its own; it got in the \
                 way {conflicts} times"
            ),
            Self::GaveUp {
                failures, elapsed, ..
            } => write!(
                f,
                "gave up after {failures} failed calls within {elapsed:.1?}; check the connection, \
                 or raise the limits of the retry policy"
            ),
            Self::Close(_) => f.write_str(
                "the supplier could not confirm what was handled, expect the last updates once more",
            ),
            Self::Panicked(panic) => {
                write!(f, "the supplier panicked, which is a bug in it: {panic}")
            }
        }
    }
}

impl Error for SourceError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            // Its own text would add nothing.
            Self::Supply(SupplyError::Fatal(source)) => Some(&**source),
            Self::Supply(source)
            | Self::Webhook(source)
            | Self::Poller { source, .. }
            | Self::GaveUp { source, .. }
            | Self::Close(source) => Some(source),
            Self::Panicked(_) => None,
        }
    }
}

/// Why a call was dropped; the source of a [`SupplyError::Transient`].
#[derive(Debug)]
pub(super) struct NoAnswer(pub(super) Duration);

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no answer within {:?}", self.0)
    }
}

impl Error for NoAnswer {}
