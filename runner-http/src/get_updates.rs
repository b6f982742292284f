//! The Bot API as the source of updates, with the model of your choice.

use std::{fmt, marker::PhantomData, time::Duration};

use runner_core::{BoxError, Delivery, GetUpdates, Key, UpdatesRequest};
use serde::{
    Serialize,
    de::{DeserializeOwned, IgnoredAny},
};

use crate::{
    ApiError, BotApi, HttpClient, HttpErrorKind, Incoming, Lane, LimitError, Update, split::split,
};

impl<C: HttpClient> BotApi<C> {
    /// The same bot, but its handlers get updates as `T`, decoded from the whole object with its
    /// `update_id`: a model of your own, or of another crate.
    ///
    /// Unknown fields and kinds should be tolerated by `T`: an update that it refuses goes to the
    /// error policy instead of the handler.
    #[must_use]
    pub fn updates_as<T>(&self) -> TypedUpdates<T, C>
    where
        T: DeserializeOwned + Send + Sync + 'static,
    {
        TypedUpdates {
            api: self.clone(),
            model: PhantomData,
        }
    }
}

/// Polls with [`Update`], the light model.
impl<C: HttpClient> GetUpdates for BotApi<C> {
    type Raw = Incoming;
    type Update = Update;
    type Error = ApiError;

    async fn get_updates(&mut self, request: &UpdatesRequest) -> Result<Vec<Incoming>, ApiError> {
        poll(self, request).await
    }

    async fn delete_webhook(&mut self, drop_pending_updates: bool) -> Result<(), ApiError> {
        delete_webhook(self, drop_pending_updates).await
    }

    fn max_updates(&self) -> u8 {
        max_updates(self)
    }

    fn is_too_large(error: &ApiError) -> bool {
        is_too_large(error)
    }

    fn update_id(raw: &Incoming) -> i64 {
        raw.id()
    }

    /// The chat; the user if there is none.
    fn default_key(raw: &Incoming) -> Option<Key> {
        default_key(raw)
    }

    /// The length of its JSON.
    fn size(raw: &Incoming) -> usize {
        raw.raw().len()
    }

    fn kind(raw: &Incoming) -> Option<&str> {
        kind(raw)
    }

    fn decode(raw: Delivery<Incoming>) -> Result<Delivery<Update>, BoxError> {
        let update = Update::from_incoming(&raw)?;
        Ok(raw.with(update))
    }
}

/// Polls with a model of your choice, see [`BotApi::updates_as`].
pub struct TypedUpdates<T, C> {
    api: BotApi<C>,
    model: PhantomData<fn() -> T>,
}

impl<T, C> TypedUpdates<T, C> {
    /// The Bot API that it polls.
    #[must_use]
    pub fn api(&self) -> &BotApi<C> {
        &self.api
    }
}

impl<T, C> GetUpdates for TypedUpdates<T, C>
where
    T: DeserializeOwned + Send + Sync + 'static,
    C: HttpClient,
{
    type Raw = Incoming;
    type Update = T;
    type Error = ApiError;

    async fn get_updates(&mut self, request: &UpdatesRequest) -> Result<Vec<Incoming>, ApiError> {
        poll(&self.api, request).await
    }

    async fn delete_webhook(&mut self, drop_pending_updates: bool) -> Result<(), ApiError> {
        delete_webhook(&self.api, drop_pending_updates).await
    }

    fn max_updates(&self) -> u8 {
        max_updates(&self.api)
    }

    fn is_too_large(error: &ApiError) -> bool {
        is_too_large(error)
    }

    fn update_id(raw: &Incoming) -> i64 {
        raw.id()
    }

    /// The chat; the user if there is none.
    fn default_key(raw: &Incoming) -> Option<Key> {
        default_key(raw)
    }

    /// The length of its JSON.
    fn size(raw: &Incoming) -> usize {
        raw.raw().len()
    }

    fn kind(raw: &Incoming) -> Option<&str> {
        kind(raw)
    }

    fn decode(raw: Delivery<Incoming>) -> Result<Delivery<T>, BoxError> {
        let update = raw.decode()?;
        Ok(raw.with(update))
    }
}

impl<T, C> Clone for TypedUpdates<T, C> {
    fn clone(&self) -> Self {
        Self {
            api: self.api.clone(),
            model: PhantomData,
        }
    }
}

impl<T, C: fmt::Debug> fmt::Debug for TypedUpdates<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedUpdates")
            .field("api", &self.api)
            .finish_non_exhaustive()
    }
}

/// Where the JSON has none, it is empty.
fn kind(raw: &Incoming) -> Option<&str> {
    Some(raw.kind().as_str()).filter(|kind| !kind.is_empty())
}

async fn poll<C: HttpClient>(
    api: &BotApi<C>,
    request: &UpdatesRequest,
) -> Result<Vec<Incoming>, ApiError> {
    let limits = *api.current_limits();
    let limit = request.limit.clamp(1, max_updates(api));
    let mut post = api.request("getUpdates", &Params::of(request, limit))?;
    post.lane = Lane::Poll;
    post.limits.answer = post.limits.answer.saturating_add(request.timeout);
    let answer = api.send(post).await?;
    let updates = split(&answer, api.token(), request.offset, limit.into(), &limits);
    api.note(updates)
}

fn max_updates<C: HttpClient>(api: &BotApi<C>) -> u8 {
    let max = api.current_limits().max_updates;
    u8::try_from(max).unwrap_or(u8::MAX).clamp(1, 100)
}

/// Whether an answer with fewer updates could have been read.
fn is_too_large(error: &ApiError) -> bool {
    match error {
        ApiError::Limit(LimitError::Body { .. }) => true,
        ApiError::Http(error) => error.kind() == HttpErrorKind::BodyTimeout,
        _ => false,
    }
}

async fn delete_webhook<C: HttpClient>(
    api: &BotApi<C>,
    drop_pending_updates: bool,
) -> Result<(), ApiError> {
    #[derive(Serialize)]
    struct Params {
        drop_pending_updates: bool,
    }

    let params = Params {
        drop_pending_updates,
    };
    api.call::<IgnoredAny>("deleteWebhook", &params).await?;
    Ok(())
}

fn default_key(raw: &Incoming) -> Option<Key> {
    match (raw.chat_id(), raw.user_id()) {
        (Some(chat), _) => Some(Key::chat(chat)),
        (None, user) => user.map(Key::user),
    }
}

/// What is sent. A `null` would be read as 0, and a limit of 0 as 1: absent ones are left out.
#[derive(Serialize)]
struct Params<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<i64>,
    limit: u8,
    timeout: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed_updates: Option<&'a [String]>,
}

impl<'a> Params<'a> {
    fn of(request: &'a UpdatesRequest, limit: u8) -> Self {
        // A larger timeout is cut to 50 s by the server.
        Self {
            offset: request.offset,
            limit,
            timeout: request.timeout.min(MAX_TIMEOUT).as_secs(),
            allowed_updates: request.allowed_updates.as_deref(),
        }
    }
}

/// Beyond this the server would read a negative number.
const MAX_TIMEOUT: Duration = Duration::from_secs(i32::MAX as u64);
