//! Polls the Bot API: [`UpdateFetcher`].

mod batch_limit;
mod early;
mod get_updates;
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
    early::EarlyAnswers,
    long_poll::LongPoll,
    position::{CloseStep, Position},
};
pub use self::{
    get_updates::{GetUpdates, UpdatesRequest},
    options::FetchOptions,
    repeated::RepeatedUpdates,
};
use crate::{
    Closing, Confirmation, Conflict, Runtime, RuntimeExt, SupplyError, UpdateSupplier,
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
    early: EarlyAnswers,
    /// The pause after answers that came too early.
    pause_until: Option<Instant>,
    /// When the last poll began.
    polled: Option<Instant>,
    /// Whether the server has ever answered.
    answered: bool,
    /// Set while `deleteWebhook` has to be called first: whether pending updates are dropped by it.
    delete_webhook: Option<bool>,
    /// Whether a webhook that was set during this run has been deleted already.
    webhook_deleted: bool,
}

impl<G: GetUpdates> UpdateFetcher<G> {
    /// A fetcher over `api` with default options.
    pub fn new(runtime: Arc<dyn Runtime>, api: G) -> Self {
        Self {
            runtime,
            api,
            options: FetchOptions::default(),
            request: UpdatesRequest::default(),
            position: Position::new(),
            batch_limit: BatchLimit::default(),
            long_poll: LongPoll::default(),
            early: EarlyAnswers::default(),
            pause_until: None,
            polled: None,
            answered: false,
            delete_webhook: None,
            webhook_deleted: false,
        }
    }

    /// What to ask for.
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

    /// Waits and calls `deleteWebhook`, if that has to come first.
    async fn prepare(&mut self) -> Result<(), SupplyError> {
        if let Some(until) = self.pause_until {
            self.runtime.sleep_until(until).await;
            self.pause_until = None;
        }
        if let Some(drop_pending_updates) = self.delete_webhook {
            let deleted = self.api.delete_webhook(drop_pending_updates).await;
            self.classify(deleted)?;
            // Only now, so that a call that was dropped is repeated.
            self.delete_webhook = None;
        }
        Ok(())
    }

    /// Classifies a failure, and notes whether the server answers at all.
    fn classify<T>(&mut self, answer: Result<T, G::Error>) -> Result<T, SupplyError> {
        let answer = answer.map_err(Into::into);
        self.answered |= !matches!(answer, Err(SupplyError::Transient(_)));
        answer
    }

    /// Takes over an answer. Returns the updates that were not supplied before.
    fn accept(&mut self, updates: Vec<G::Raw>, took: Duration) -> Result<Vec<G::Raw>, SupplyError> {
        // The client's code. If it panics, nothing has changed yet.
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

    /// Sends the offset once more. The updates of the answer are left at the server.
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
        let confirmed = match self.runtime.timeout(CONFIRM_TIMEOUT, call).await {
            Some(Ok(updates)) => {
                let mut ids = updates.iter().map(G::update_id);
                !ids.any(|id| self.position.is_repeated(id))
            }
            // A later poll has ended this one, which had to be processed to wait. Other refusals come
            // before the server reads the offset.
            Some(Err(error)) => matches!(
                error.into(),
                SupplyError::Conflict {
                    kind: Conflict::Poller,
                    ..
                }
            ),
            // The server delays a repeated request after it has processed the offset.
            None if slowed_down => return Confirmation::Assumed { position },
            None => false,
        };
        if confirmed {
            Confirmation::Confirmed { position }
        } else {
            Confirmation::Unconfirmed { position }
        }
    }
}

impl<G: GetUpdates> UpdateSupplier for UpdateFetcher<G> {
    type Update = G::Raw;
    type Error = SupplyError;

    async fn supply(&mut self, limit: NonZeroUsize) -> Result<Vec<G::Raw>, SupplyError> {
        let span = self.call_timeout();
        let deadline = span.and_then(|span| self.runtime.now().checked_add(span));
        self.prepare().await?;
        self.request.offset = self.position.offset();
        let limit = u8::try_from(limit.get()).unwrap_or(u8::MAX);
        self.request.limit = self.most().min(limit);
        let began = self.runtime.now();
        self.request.timeout = self.long_poll.timeout(self.options.timeout, began);
        self.polled = Some(began);
        let pending = PendingPoll {
            began,
            deadline,
            runtime: &*self.runtime,
            position: &mut self.position,
            batch_limit: &mut self.batch_limit,
            limit: self.request.limit,
        };
        pending.position.begin();
        let answer = self.api.get_updates(&self.request).await;
        let took = pending.answered();
        // Nothing is awaited from here on, so the offset and the updates go together.
        if answer.as_ref().is_err_and(G::is_too_large) {
            self.batch_limit.too_large(self.request.limit);
        }
        let error = match self.classify(answer) {
            Ok(updates) => return self.accept(updates, took),
            Err(error) => error,
        };
        let transient = matches!(error, SupplyError::Transient(_));
        if transient && self.long_poll.failed(took, self.runtime.now()) {
            info!(after = ?took, "polls are cut while they wait, asking for shorter ones");
        }
        match &error {
            SupplyError::Conflict {
                kind: Conflict::Poller,
                ..
            } => self.position.processed(),
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

/// How long the request may take that confirms the offset.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(1);

/// A server delays a request that repeats the offset of one within this time, by up to as long.
const SLOWED_DOWN: Duration = Duration::from_secs(3);

/// How long the server may take to log the bot in, in addition to everything else.
const LOGIN: Duration = Duration::from_secs(30);

/// A poll that is not answered yet. If it is dropped before, it notes what that means.
struct PendingPoll<'a> {
    position: &'a mut Position,
    batch_limit: &'a mut BatchLimit,
    limit: u8,
    runtime: &'a dyn Runtime,
    began: Instant,
    /// When the source drops the call.
    deadline: Option<Instant>,
}

impl PendingPoll<'_> {
    /// The poll was answered, or failed by itself. Returns how long it took.
    fn answered(self) -> Duration {
        let took = self.runtime.now().saturating_duration_since(self.began);
        std::mem::forget(self);
        took
    }
}

impl Drop for PendingPoll<'_> {
    fn drop(&mut self) {
        let now = self.runtime.now();
        // The source has read the clock a little earlier.
        let overdue = self.deadline.is_some_and(|deadline| {
            deadline.saturating_duration_since(now) <= Position::ASSUMED_AFTER
        });
        let took = now.saturating_duration_since(self.began);
        self.position.dropped(took, overdue);
        if overdue {
            self.batch_limit.too_slow(self.limit);
        }
    }
}
