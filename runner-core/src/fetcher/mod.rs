//! Polls the Bot API: [`UpdateFetcher`].

mod batch_limit;
mod early;
mod long_poll;
mod options;
mod position;
mod recent;
mod repeated;

use std::{
    fmt,
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, Instant},
};

use self::{
    batch_limit::BatchLimit,
    early::Early,
    long_poll::LongPoll,
    position::{CloseStep, Position},
};
pub use self::{options::FetchOptions, repeated::RepeatedUpdates};
use crate::{
    Closing, Confirmation, Conflict, GetUpdates, Runtime, RuntimeExt, SupplyError, UpdateSupplier,
    UpdatesRequest,
    panics::discard,
    trace::{debug, info},
};

/// Supplies the updates of a bot, by `getUpdates`.
///
/// It keeps the offset, and tracks whether the server has processed it. Errors are returned to the
/// [`Source`](crate::Source), which calls again. [`Bot`](crate::Bot) puts all of this together.
///
/// # What it takes care of
///
/// - The next request asks for the updates after the last one of the last answer, even if ids jump
///   downwards.
/// - The offset moves when a batch is returned, never before. So a call may be dropped at any point.
/// - After an answer that was too large for the client, or that did not come within the
///   [call timeout](UpdateSupplier::call_timeout), the next requests ask for half as many updates, down
///   to one. Otherwise the same request would get the same answer again.
/// - Where something cuts polls while they wait, twice after about the same time, shorter polls are
///   asked for. Every half an hour, it tries the configured timeout again.
/// - Three empty answers in a row that come much too early are followed by a pause of a second.
/// - At the end of a run, one request confirms what was handled. There is none if nothing has to be
///   confirmed: a request that carried the offset was answered, or was under way for a second. The
///   request takes a second at most, which it does within a second after an answer with updates: the
///   server holds back a request that repeats the offset of the one before.
/// - If updates are left unsettled, only those before the first of them are confirmed, as far as that
///   is still possible, and a later run fetches from there. Only the last batch can come again, and
///   only until the next request, because that makes the server forget it.
///
/// # Repeated updates
///
/// A server that keeps to the protocol never gives an update again once a later offset was sent. One
/// that ignores the offset, or a cache in front of it, does. So the fetcher remembers the ids of the
/// last 300 updates: an update among them is not supplied again, and an answer that has only such
/// updates is a failed call, with [`RepeatedUpdates`] as the source of the error. Updates that a run
/// has left unsettled are not remembered, because they are wanted again. What an earlier process was
/// given is not known.
pub struct UpdateFetcher<G> {
    runtime: Arc<dyn Runtime>,
    api: G,
    options: FetchOptions,
    request: UpdatesRequest,
    position: Position,
    batch_limit: BatchLimit,
    long_poll: LongPoll,
    early: Early,
    /// The pause after answers that came too early.
    pause_until: Option<Instant>,
    /// When the last poll began.
    polled: Option<Instant>,
    /// Whether the server has ever answered.
    answered: bool,
    /// Set while `deleteWebhook` has to be called first: whether pending updates are dropped by it.
    delete_webhook: Option<bool>,
    /// Whether a webhook that turned up in this run was deleted already.
    webhook_deleted: bool,
}

impl<G: GetUpdates> UpdateFetcher<G> {
    /// A fetcher over `api` with default options.
    pub fn new(runtime: Arc<dyn Runtime>, api: G) -> Self {
        let fetcher = Self {
            runtime,
            api,
            options: FetchOptions::default(),
            request: UpdatesRequest {
                offset: None,
                limit: 1,
                timeout: Duration::ZERO,
                allowed_updates: None,
            },
            position: Position::new(),
            batch_limit: BatchLimit::default(),
            long_poll: LongPoll::default(),
            early: Early::default(),
            pause_until: None,
            polled: None,
            answered: false,
            delete_webhook: None,
            webhook_deleted: false,
        };
        fetcher.options(FetchOptions::default())
    }

    /// What is asked for.
    #[must_use]
    pub fn options(mut self, options: FetchOptions) -> Self {
        self.request
            .allowed_updates
            .clone_from(&options.allowed_updates);
        self.delete_webhook = (options.delete_webhook || options.drop_pending_updates)
            .then_some(options.drop_pending_updates);
        self.options = options;
        self
    }

    /// How many updates the next request asks for at most.
    fn most(&self) -> u8 {
        let most = self.options.limit.min(self.api.max_updates().max(1));
        self.batch_limit.limit(most)
    }

    /// Waits, and calls `deleteWebhook`, where that has to come first.
    async fn prepare(&mut self) -> Result<(), SupplyError> {
        if let Some(until) = self.pause_until {
            self.runtime.sleep_until(until).await;
            self.pause_until = None;
        }
        if let Some(drop_pending_updates) = self.delete_webhook {
            let deleted = self.api.delete_webhook(drop_pending_updates).await;
            self.understood(deleted)?;
            // Not before: a call that is dropped is repeated.
            self.delete_webhook = None;
        }
        Ok(())
    }

    /// Notes that the server answers at all.
    fn understood<T>(&mut self, answer: Result<T, G::Error>) -> Result<T, SupplyError> {
        let answer = answer.map_err(Into::into);
        self.answered |= !matches!(answer, Err(SupplyError::Transient(_)));
        answer
    }

    /// Takes over an answer. Returns the updates that were not supplied before.
    fn got(&mut self, updates: Vec<G::Raw>, took: Duration) -> Result<Vec<G::Raw>, SupplyError> {
        // Code of the user; if it panics nothing has changed yet.
        let ids: Vec<i64> = updates.iter().map(G::update_id).collect();
        let repeated = self.position.answered(&ids);
        let span = self.options.timeout.saturating_add(self.options.margin);
        let quick = took.saturating_mul(4) <= span;
        self.batch_limit.answered(ids.len(), quick);
        self.long_poll.answered(took);
        if ids.is_empty() {
            let pause = self.early.note(took, self.request.timeout);
            self.pause_until = pause.and_then(|pause| self.runtime.now().checked_add(pause));
            return Ok(updates);
        }
        self.early.reset();
        if repeated.is_empty() {
            return Ok(updates);
        }
        let error = RepeatedUpdates::new(ids[repeated[0]], repeated.len());
        let indexed = updates.into_iter().enumerate();
        let (old, new): (Vec<_>, Vec<_>) =
            indexed.partition(|(index, _)| repeated.binary_search(index).is_ok());
        discard(old);
        if new.is_empty() {
            return Err(SupplyError::transient(error));
        }
        debug!(error = %error, "updates that came again are left out");
        Ok(new.into_iter().map(|(_, update)| update).collect())
    }

    /// Sends the offset once more and throws the answer away.
    async fn confirm(&mut self, position: i64, sent: bool) -> Confirmation {
        let now = self.runtime.now();
        let slowed_down = sent
            && self.request.offset == Some(position)
            && self
                .polled
                .is_some_and(|polled| now.saturating_duration_since(polled) < SLOWED_DOWN);
        self.request.offset = Some(position);
        self.request.limit = 1;
        self.request.timeout = Duration::ZERO;
        let call = self.api.get_updates(&self.request);
        let answer = self.runtime.timeout(CONFIRM_TIMEOUT, call).await;
        match answer.map(|answer| answer.map_err(Into::<SupplyError>::into)) {
            Some(Ok(updates)) => {
                let mut ids = updates.iter().map(G::update_id);
                if ids.any(|id| self.position.is_repeated(id)) {
                    return Confirmation::Unconfirmed { position };
                }
                Confirmation::Confirmed { position }
            }
            Some(Err(error)) if is_processed(&error) => Confirmation::Confirmed { position },
            // The server holds back what is asked twice, after it has looked at the offset.
            None if slowed_down => Confirmation::Assumed { position },
            _ => Confirmation::Unconfirmed { position },
        }
    }
}

impl<G: GetUpdates> UpdateSupplier for UpdateFetcher<G> {
    type Update = G::Raw;
    type Error = SupplyError;

    async fn supply(&mut self, limit: NonZeroUsize) -> Result<Vec<G::Raw>, SupplyError> {
        let limits = self.call_timeout();
        let deadline = limits.and_then(|span| self.runtime.now().checked_add(span));
        self.prepare().await?;
        self.request.offset = self.position.offset();
        let limit = u8::try_from(limit.get()).unwrap_or(u8::MAX);
        self.request.limit = self.most().min(limit);
        let began = self.runtime.now();
        self.request.timeout = self.long_poll.timeout(self.options.timeout, began);
        self.polled = Some(began);
        let flight = Flight {
            began,
            deadline,
            runtime: &*self.runtime,
            position: &mut self.position,
            batch_limit: &mut self.batch_limit,
            asked_for: self.request.limit,
        };
        flight.position.begin();
        let answer = self.api.get_updates(&self.request).await;
        let took = flight.land();
        // Nothing is awaited from here on, so the offset and the updates go together.
        if answer.as_ref().is_err_and(G::is_too_large) {
            self.batch_limit.too_large(self.request.limit);
        }
        let error = match self.understood(answer) {
            Ok(updates) => return self.got(updates, took),
            Err(error) => error,
        };
        match &error {
            error if is_processed(error) => self.position.processed(),
            SupplyError::Transient(_) if self.long_poll.failed(took, self.runtime.now()) => {
                info!(after = ?took, "polls are cut while they wait, asking for shorter ones");
            }
            SupplyError::Conflict {
                kind: Conflict::Webhook,
                ..
            } if self.options.delete_webhook && !self.webhook_deleted => {
                info!("a webhook has turned up, deleting it");
                self.webhook_deleted = true;
                self.delete_webhook = Some(false);
                // No failure, so no backoff: the next call deletes it first.
                return Ok(Vec::new());
            }
            _ => {}
        }
        Err(error)
    }

    fn call_timeout(&self) -> Option<Duration> {
        let FetchOptions {
            timeout, margin, ..
        } = self.options;
        let mut span = timeout.saturating_add(margin);
        if !self.answered {
            span = span.saturating_add(LOGIN);
        }
        if self.delete_webhook.is_some() {
            span = span.saturating_add(margin);
        }
        if let Some(until) = self.pause_until {
            span = span.saturating_add(until.saturating_duration_since(self.runtime.now()));
        }
        Some(span)
    }

    fn max_batch(&self) -> Option<NonZeroUsize> {
        NonZeroUsize::new(self.most().into())
    }

    /// Never fails; see [`Confirmation`].
    ///
    /// # Cancel safety
    ///
    /// Safe: the offset has gone back to the first unsettled update before anything is awaited.
    async fn close(&mut self, settled_prefix: usize) -> Result<Closing, SupplyError> {
        let plan = self.position.close(settled_prefix);
        self.webhook_deleted = false;
        self.early.reset();
        let confirmation = match plan.step {
            CloseStep::Done(confirmation) => confirmation,
            CloseStep::Confirm { position, sent } => self.confirm(position, sent).await,
        };
        if !matches!(confirmation, Confirmation::Unconfirmed { .. }) {
            self.position.confirmed();
        }
        let mut closing = Closing::new(confirmation);
        closing.redelivers_from = plan.redelivers_from;
        Ok(closing)
    }
}

impl<G> fmt::Debug for UpdateFetcher<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpdateFetcher")
            .field("runtime", &self.runtime)
            .field("options", &self.options)
            .field("offset", &self.position.offset())
            .finish_non_exhaustive()
    }
}

/// How long the request may take that tells the server what was handled.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(1);

/// A server that is asked for the same offset again within this time makes the second request wait,
/// up to as long.
const SLOWED_DOWN: Duration = Duration::from_secs(3);

/// How long the server may take to log the bot in, on top of everything else.
const LOGIN: Duration = Duration::from_secs(30);

/// Whether the error came after the server had processed the offset of the request.
///
/// That is so if a later poller has thrown the waiting request out. A webhook is noticed before the
/// offset is looked at, and a server that asks to wait looks at nothing.
fn is_processed(error: &SupplyError) -> bool {
    matches!(
        error,
        SupplyError::Conflict {
            kind: Conflict::Poller,
            ..
        }
    )
}

/// A request under way. Dropped with it, it notes how far that got.
struct Flight<'a> {
    position: &'a mut Position,
    batch_limit: &'a mut BatchLimit,
    asked_for: u8,
    runtime: &'a dyn Runtime,
    began: Instant,
    /// When the source gives the call up.
    deadline: Option<Instant>,
}

impl Flight<'_> {
    fn pending(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.began)
    }

    /// The request was answered, or failed by itself.
    fn land(self) -> Duration {
        let took = self.pending(self.runtime.now());
        // Nothing to note: the answer tells more.
        std::mem::forget(self);
        took
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let now = self.runtime.now();
        // The source has looked at the clock a little earlier, and its timer may be precise.
        let overdue = self
            .deadline
            .is_some_and(|deadline| now + Position::ASSUMED_AFTER >= deadline);
        let pending = self.pending(now);
        self.position.dropped(pending, overdue);
        if overdue {
            self.batch_limit.too_slow(self.asked_for);
        }
    }
}
