//! How long calls have to wait after a 429: [`Flood`].
//!
//! The Bot API does not say which of its limits was exceeded. Most are limits of a chat, some of a
//! method, and one is the bot's. So a 429 holds back the calls to its chat, or those of its method if
//! it has no chat: a group that is full for 40 s must not silence the bot everywhere else. Where the
//! limit of the bot was exceeded, each chat gets a 429 of its own, which costs a request and has no
//! effect.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::timer::Timer;

/// What the 429s of one bot ask its calls to wait for. All clones of a `BotApi` share it.
#[derive(Debug, Default)]
pub(crate) struct Flood {
    until: Mutex<HashMap<String, Instant>>,
    pub(crate) timer: Timer,
}

impl Flood {
    /// Until when a call has to wait, if a 429 is in force for it.
    pub(crate) fn until(&self, method: &str, params: &[u8], now: Instant) -> Option<Instant> {
        // Reading the parameters costs something, and rarely anything is in force.
        if self.lock().is_empty() {
            return None;
        }
        let scope = scope(method, params);
        self.lock()
            .get(&scope)
            .copied()
            .filter(|until| *until > now)
    }

    /// A call got a 429 that asks for this delay.
    pub(crate) fn refused(&self, method: &str, params: &[u8], delay: Duration, now: Instant) {
        let Some(until) = now.checked_add(delay) else {
            return;
        };
        let scope = scope(method, params);
        let mut all = self.lock();
        all.retain(|_, until| *until > now);
        let known = all.entry(scope).or_insert(until);
        *known = until.max(*known);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        // What it guards is whole at any time.
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a call shares a limit with: its chat, or its method. No method is called like a chat.
fn scope(method: &str, params: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Params<'a> {
        #[serde(borrow)]
        chat_id: Option<&'a RawValue>,
    }

    let params: Option<Params<'_>> = serde_json::from_slice(params).ok();
    match params.and_then(|params| params.chat_id) {
        // A number may be written as a string.
        Some(chat) => format!("chat {}", chat.get().trim_matches('"')),
        None => method.to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_refusal_is_in_force_for_its_scope_and_its_time() {
        let flood = Flood::default();
        let now = Instant::now();
        let until = |method: &str, params: &str, at| flood.until(method, params.as_bytes(), at);
        flood.refused(
            "sendMessage",
            br#"{"chat_id":-100,"text":"a"}"#,
            SECOND,
            now,
        );
        for params in [r#"{"chat_id":-100}"#, r#"{"text":"b","chat_id":"-100"}"#] {
            assert_eq!(until("sendPhoto", params, now), Some(now + SECOND));
        }
        for params in [r#"{"chat_id":100}"#, "{}", r#"{"chat_id":null}"#, "[", ""] {
            assert_eq!(until("sendMessage", params, now), None);
        }
        assert_eq!(
            until("sendMessage", r#"{"chat_id":-100}"#, now + SECOND),
            None
        );

        flood.refused("setMyName", b"{}", SECOND, now);
        assert_eq!(until("SETMYNAME", "{}", now), Some(now + SECOND));
        assert_eq!(until("setMyName", r#"{"chat_id":1}"#, now), None);
        assert_eq!(until("getMe", "{}", now), None);
    }

    #[test]
    fn the_longest_refusal_counts_and_what_is_over_is_forgotten() {
        let flood = Flood::default();
        let now = Instant::now();
        for seconds in [3, 1] {
            flood.refused("a", b"{}", SECOND * seconds, now);
        }
        assert_eq!(flood.until("a", b"{}", now), Some(now + 3 * SECOND));
        flood.refused("b", b"{}", SECOND, now + 3 * SECOND);
        assert_eq!(flood.lock().len(), 1);
        flood.refused("c", b"{}", Duration::MAX, now);
        assert_eq!(flood.until("c", b"{}", now), None);
    }
}
