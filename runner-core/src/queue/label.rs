//! What log lines say of an update, so that a reader finds it: [`Label`].

use std::fmt::Write;

use super::{QueueParts, ticket::Ticket};
use crate::{panics::guarded, trace};

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
