//! The parameters of `getUpdates`: [`FetchOptions`].

use std::time::Duration;

/// What to ask `getUpdates` for, and what to do before the first call.
///
/// Source: <https://core.telegram.org/bots/api#getupdates>.
///
/// ```
/// use runner_core::FetchOptions;
///
/// let options = FetchOptions::default()
///     .allowed_updates(["message", "callback_query"])
///     .delete_webhook(true);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct FetchOptions {
    pub(super) limit: u8,
    pub(super) timeout: Duration,
    pub(super) margin: Duration,
    pub(super) allowed_updates: Option<Vec<String>>,
    pub(super) drop_pending_updates: bool,
    pub(super) delete_webhook: bool,
}

impl FetchOptions {
    /// The most updates of one call, 1 to 100; other values count as the nearer end. Default: 100.
    ///
    /// Fewer are asked for when the sink has less room, and after an answer that was too large or too
    /// slow.
    pub fn limit(mut self, limit: u8) -> Self {
        self.limit = limit.clamp(1, 100);
        self
    }

    /// How long the server may hold a call until there is an update. Default: 30 s.
    ///
    /// Whole seconds, at most 50, the server's own limit. Updates arrive at once in any case; with
    /// less than about 25 s there are only more calls. Below 1 s the server does not wait at all, and
    /// there is about one call a second while nothing arrives.
    ///
    /// If something cuts polls before that time, shorter ones are asked for.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Duration::from_secs(timeout.as_secs().min(50));
        self
    }

    /// How much longer than [`timeout`](Self::timeout) an answer may take, its body included, before
    /// the call counts as dead. Default: 15 s, for a slow network and for answers that the server
    /// delays by 3 s.
    ///
    /// After a call that took too long, the next ones ask for half as many updates. Until the server
    /// has answered for the first time it has another 30 s: it may have to log the bot in.
    pub fn margin(mut self, margin: Duration) -> Self {
        self.margin = margin;
        self
    }

    /// The kinds of update that are wanted, by their names in the Bot API.
    ///
    /// Default: not sent. Then the server keeps the setting of the last request that had one. If
    /// there was none, it sends all kinds except `chat_member`, `message_reaction` and
    /// `message_reaction_count`.
    pub fn allowed_updates<T: Into<String>>(mut self, kinds: impl IntoIterator<Item = T>) -> Self {
        self.allowed_updates = Some(kinds.into_iter().map(Into::into).collect());
        self
    }

    /// Deletes the updates that are waiting at the server, once, before the first call. Default: off.
    ///
    /// The Bot API can do this only by `deleteWebhook`, so a webhook is removed, too. The call is
    /// repeated until it is answered.
    pub fn drop_pending_updates(mut self, drop: bool) -> Self {
        self.drop_pending_updates = drop;
        self
    }

    /// Removes a webhook, once before the first call, and once more per run if one is set later.
    ///
    /// Default: off. A webhook then ends the run with
    /// [`SourceError::Webhook`](crate::SourceError::Webhook), because another program may rely on it.
    pub fn delete_webhook(mut self, delete: bool) -> Self {
        self.delete_webhook = delete;
        self
    }
}

impl Default for FetchOptions {
    fn default() -> Self {
        Self {
            limit: 100,
            timeout: Duration::from_secs(30),
            margin: Duration::from_secs(15),
            allowed_updates: None,
            drop_pending_updates: false,
            delete_webhook: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_out_of_range_are_brought_into_it() {
        for (given, used) in [(0, 1), (1, 1), (100, 100), (255, 100)] {
            assert_eq!(FetchOptions::default().limit(given).limit, used);
        }
        for (given, used) in [(0, 0), (999, 0), (30_999, 30), (50_000, 50), (600_000, 50)] {
            let options = FetchOptions::default().timeout(Duration::from_millis(given));
            assert_eq!(options.timeout, Duration::from_secs(used));
        }
    }
}
