//! From the arrival of an update at the server to the reply to it.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use runner_testkit::{Call, TrafficUpdate};
use serde_json::Value;

/// What a reply refers to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reply {
    Message { chat: i64, message: i64 },
    Query(String),
}

impl Reply {
    /// What the bot is to reply to this update, if anything.
    pub(crate) fn expected(update: &TrafficUpdate) -> Option<Self> {
        let body: Value = serde_json::from_str(&update.body).ok()?;
        match update.kind {
            "message" => {
                // An empty text is one, too, so it is looked at as the bot does.
                body.get("text").or_else(|| body.get("caption"))?.as_str()?;
                Some(Self::Message {
                    chat: body["chat"]["id"].as_i64()?,
                    message: body["message_id"].as_i64()?,
                })
            }
            "callback_query" => Some(Self::Query(body["id"].as_str()?.to_owned())),
            _ => None,
        }
    }

    /// What this call replies to.
    pub(crate) fn of(call: &Call) -> Option<Self> {
        if call.is("answerCallbackQuery") {
            let query = call.params.get("callback_query_id")?;
            return Some(Self::Query(query.to_owned()));
        }
        let reference: Value = serde_json::from_str(call.params.get("reply_parameters")?).ok()?;
        Some(Self::Message {
            chat: call.chat_id()?,
            message: reference["message_id"].as_i64()?,
        })
    }
}

/// Which replies are due, and how long those took that have come.
#[derive(Debug, Default)]
pub(crate) struct Latency {
    due: HashMap<Reply, Instant>,
    taken: Vec<Duration>,
    /// Replies that nothing was due for: an update was handled twice.
    pub(crate) twice: usize,
}

impl Latency {
    pub(crate) fn pushed(&mut self, reply: Reply, at: Instant) {
        self.due.insert(reply, at);
    }

    pub(crate) fn replied(&mut self, reply: &Reply, at: Instant) {
        match self.due.remove(reply) {
            Some(pushed) => self.taken.push(at.saturating_duration_since(pushed)),
            None => self.twice += 1,
        }
    }

    /// How many replies have not come.
    pub(crate) fn missing(&self) -> usize {
        self.due.len()
    }

    /// How many have come.
    pub(crate) fn replies(&self) -> usize {
        self.taken.len()
    }

    /// At most this long took this share of all, in percent.
    pub(crate) fn percentile(&mut self, percent: usize) -> Duration {
        self.taken.sort_unstable();
        let rank = (self.taken.len() * percent).div_ceil(100);
        let taken = self.taken.get(rank.saturating_sub(1));
        taken.copied().unwrap_or_default()
    }
}
