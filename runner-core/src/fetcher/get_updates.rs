//! What the runner needs from a Bot API client: [`GetUpdates`].

use std::time::Duration;

use crate::{BoxError, Delivery, Key, SupplyError};

/// The polling half of a Bot API client.
///
/// `runner-http` implements it; about forty lines adapt any other client.
/// [`UpdateFetcher`](crate::UpdateFetcher) adds offsets, retries, conflicts and confirmation.
///
/// There are two types of update. [`Raw`](Self::Raw) is what one call returns, and what keys see.
/// [`Update`](Self::Update) is what the handler sees. [`decode`](Self::decode) makes it in the update's
/// own task: so decoding uses every core, does not delay the next fetch, and an update that cannot be
/// decoded affects no other one. A client that decodes whole answers uses one type for both and
/// returns the delivery unchanged.
pub trait GetUpdates: Send + 'static {
    /// An update as fetched.
    type Raw: Send + Sync + 'static;

    /// An update as handled.
    type Update: Send + Sync + 'static;

    /// Failure of one call.
    ///
    /// The [`SupplyError`] that it becomes decides what happens next. Classify by the status of the
    /// answer: 401, 404 and other refusals are fatal. 429 asks to wait. 409 is a conflict, with a
    /// webhook if the description says so, otherwise with another poller. Everything else, including
    /// what cannot be understood, is transient.
    type Error: Into<SupplyError> + Send;

    /// Calls `getUpdates` once, without any retry of its own.
    ///
    /// Returns the updates oldest first, possibly none.
    ///
    /// # Errors
    ///
    /// Any failure of the call; see [`Error`](Self::Error).
    ///
    /// # Cancel safety
    ///
    /// The future is dropped to cut the poll short. The connection it used must then be closed.
    fn get_updates(
        &mut self,
        request: &UpdatesRequest,
    ) -> impl Future<Output = Result<Vec<Self::Raw>, Self::Error>> + Send;

    /// Calls `deleteWebhook` once, without any retry of its own.
    ///
    /// # Errors
    ///
    /// As [`get_updates`](Self::get_updates).
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any point; the call is then made again.
    fn delete_webhook(
        &mut self,
        drop_pending_updates: bool,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// The most updates that this client takes in one answer, 1 to 100. Default: 100.
    ///
    /// No request asks for more, and an answer with as many counts as full.
    fn max_updates(&self) -> u8 {
        100
    }

    /// Whether the answer was too large for a limit of the client, in bytes or in time, so that one
    /// with fewer updates might have been read. Default: no.
    ///
    /// The next requests then ask for half as many.
    fn is_too_large(error: &Self::Error) -> bool {
        let _ = error;
        false
    }

    /// The update's `update_id`.
    fn update_id(raw: &Self::Raw) -> i64;

    /// The key by which updates are kept in order by default: usually the chat.
    fn default_key(raw: &Self::Raw) -> Option<Key>;

    /// What the update is about, such as `message`, for log lines. Default: not known.
    fn kind(_raw: &Self::Raw) -> Option<&str> {
        None
    }

    /// How much memory the update takes, in bytes, for
    /// [`SinkOptions::max_bytes`](crate::SinkOptions::max_bytes).
    ///
    /// The length of its JSON is a good answer. Default: the size of the type, which leaves out what it
    /// points to.
    fn size(_raw: &Self::Raw) -> usize {
        size_of::<Self::Raw>()
    }

    /// Turns a fetched update into one that can be handled.
    ///
    /// # Errors
    ///
    /// The reason why this one update cannot be decoded. It reaches the error policy as
    /// [`Cause::Undecodable`](crate::Cause::Undecodable).
    fn decode(raw: Delivery<Self::Raw>) -> Result<Delivery<Self::Update>, BoxError>;
}

/// The parameters of one `getUpdates` call.
///
/// Source: <https://core.telegram.org/bots/api#getupdates>.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UpdatesRequest {
    /// The first `update_id` wanted; all before it are confirmed. `None`: the oldest that is kept.
    pub offset: Option<i64>,
    /// At most this many updates, 1 to 100.
    pub limit: u8,
    /// How long the server may wait for an update, in whole seconds; zero answers at once.
    pub timeout: Duration,
    /// The kinds of update wanted. `None` keeps what was set last.
    pub allowed_updates: Option<Vec<String>>,
}

/// A request for the oldest updates that are kept, at most 100, which answers at once.
impl Default for UpdatesRequest {
    fn default() -> Self {
        Self {
            offset: None,
            limit: 100,
            timeout: Duration::ZERO,
            allowed_updates: None,
        }
    }
}
