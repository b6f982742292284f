//! What log lines say of an update, so that a reader finds it: [`Label`] and [`UpdateSpan`].

use std::fmt::Write;

use super::{QueueParts, ticket::Ticket};
use crate::{Delivery, panics::guarded, trace};

/// Names an update in a log line. Empty where nobody listens.
#[derive(Debug, Default)]
pub(crate) struct Label {
    /// The `update_id` of the Bot API; otherwise counts updates in the order in which they were supplied.
    pub(crate) id: Option<i64>,
    pub(crate) keys: Option<String>,
    /// Such as "message". Known for a bot only.
    pub(crate) kind: Option<String>,
}

/// What the API of a bot says of an update.
pub(crate) struct ApiLabel {
    pub(crate) id: i64,
    pub(crate) kind: Option<String>,
}

impl Label {
    /// Calls code of the user, so not under the lock.
    pub(super) fn of<U>(parts: &QueueParts<U>, update: &U, ticket: Ticket) -> Self {
        if !trace::has_subscriber() || ticket == Ticket::NONE {
            return Self::default();
        }
        let api = parts.label.as_ref();
        let api = api.and_then(|label| guarded(|| label(update)).ok());
        let count = i64::try_from(ticket.id).ok();
        let (id, kind) = match api {
            Some(ApiLabel { id, kind }) => (Some(id), kind),
            None => (count, None),
        };
        let keys = parts.keys.as_ref().and_then(|keys| {
            let mut text = String::new();
            let written = guarded(|| {
                keys(update, &mut |key| {
                    let comma = if text.is_empty() { "" } else { ", " };
                    let _ = write!(text, "{comma}{key}");
                });
            });
            (written.is_ok() && !text.is_empty()).then_some(text)
        });
        Self { id, keys, kind }
    }
}

/// The span of one attempt, in which its handler and the policy log. Nothing where nobody listens.
pub(super) struct UpdateSpan {
    /// In a box, because there is one for every update in flight.
    #[cfg(feature = "tracing")]
    span: Option<Box<tracing::Span>>,
}

#[cfg(feature = "tracing")]
impl UpdateSpan {
    pub(super) const NONE: Self = Self { span: None };

    pub(super) fn new<U>(parts: &QueueParts<U>, update: &Delivery<U>) -> Self {
        if !tracing::span_enabled!(target: "runner_core", tracing::Level::INFO) {
            return Self::NONE;
        }
        let attempt = update.attempt().get();
        let Label { id, keys, kind } = Label::of(parts, update, update.ticket());
        let (keys, kind) = (keys.as_deref(), kind.as_deref());
        let span = tracing::info_span!(target: "runner_core", "update", id, attempt, keys, kind);
        Self {
            span: Some(Box::new(span)),
        }
    }

    /// What is logged until the guard is dropped belongs to the update.
    pub(super) fn enter(&self) -> Option<tracing::span::Entered<'_>> {
        self.span.as_ref().map(|span| span.enter())
    }
}

#[cfg(not(feature = "tracing"))]
impl UpdateSpan {
    pub(super) const NONE: Self = Self {};

    pub(super) fn new<U>(_: &QueueParts<U>, _: &Delivery<U>) -> Self {
        Self::NONE
    }

    pub(super) fn enter(&self) -> Option<&Self> {
        None
    }
}
