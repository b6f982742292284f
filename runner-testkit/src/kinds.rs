//! The types of updates: which there are, how long each lives, and which of them a bot wants.
//!
//! Pure. Lifetimes and names are those of `Client.cpp` of tdlib/telegram-bot-api
//! (`get_update_type_name`, and the callers of `add_update`).

use serde::Deserialize;

/// From when the lifetime of an update counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    /// The `edit_date` in the update, or the `date` if it was not edited.
    Edit,
    /// The `date` in the update.
    Date,
    /// When the update was queued.
    Arrival,
}

/// A type with the seconds that an update of it is kept, and from when they count.
const KINDS: &[(&str, i64, From)] = &[
    ("message", DAY, From::Date),
    ("edited_message", DAY, From::Edit),
    ("channel_post", DAY, From::Date),
    ("edited_channel_post", DAY, From::Edit),
    ("business_message", DAY, From::Date),
    ("edited_business_message", DAY, From::Edit),
    ("guest_message", DAY, From::Date),
    ("my_chat_member", DAY, From::Date),
    ("chat_member", DAY, From::Date),
    ("chat_join_request", DAY, From::Date),
    ("chat_boost", DAY, From::Date),
    ("removed_chat_boost", DAY, From::Date),
    ("message_reaction", DAY, From::Date),
    ("message_reaction_count", DAY, From::Date),
    ("poll", DAY, From::Arrival),
    ("poll_answer", DAY, From::Arrival),
    ("business_connection", DAY, From::Arrival),
    ("deleted_business_messages", DAY, From::Arrival),
    ("purchased_paid_media", DAY, From::Arrival),
    ("managed_bot", DAY, From::Arrival),
    ("chosen_inline_result", 600, From::Arrival),
    ("callback_query", 150, From::Arrival),
    ("shipping_query", 150, From::Arrival),
    ("pre_checkout_query", 150, From::Arrival),
    ("inline_query", 30, From::Arrival),
];

const DAY: i64 = 86_400;

/// The types that a bot only gets if it names them.
const NOT_BY_DEFAULT: [&str; 3] = ["chat_member", "message_reaction", "message_reaction_count"];

/// When an update ceases to be delivered, in seconds of Unix time: it is still delivered in that
/// second, and gone in the next. A type that the server does not know lives a day from arrival.
pub(crate) fn expires_at(kind: &str, body: &str, arrival: i64) -> i64 {
    let (seconds, from) = KINDS
        .iter()
        .find(|(name, ..)| *name == kind)
        .map_or((DAY, From::Arrival), |(_, seconds, from)| (*seconds, *from));
    let dates = || serde_json::from_str::<Dates>(body).unwrap_or_default();
    let start = match from {
        From::Arrival => None,
        From::Date => dates().date(),
        From::Edit => {
            let dates = dates();
            dates.edit_date.or(dates.date())
        }
    };
    start.unwrap_or(arrival) + seconds
}

#[derive(Default, Deserialize)]
struct Dates {
    date: Option<i64>,
    edit_date: Option<i64>,
    boost: Option<Boost>,
}

#[derive(Deserialize)]
struct Boost {
    add_date: Option<i64>,
}

impl Dates {
    fn date(&self) -> Option<i64> {
        self.date.or_else(|| self.boost.as_ref()?.add_date)
    }
}

/// Which types of updates the bot gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allowed {
    /// One bit per entry of [`KINDS`].
    bits: u32,
}

impl Default for Allowed {
    fn default() -> Self {
        let bits = (0..KINDS.len())
            .filter(|index| !NOT_BY_DEFAULT.contains(&KINDS[*index].0))
            .fold(0, |bits, index| bits | 1 << index);
        Self { bits }
    }
}

impl Allowed {
    /// Takes over the value of `allowed_updates`.
    ///
    /// Absent, empty, not JSON, not an array or an array with something else than strings: the
    /// setting stays. An empty array, or one with unknown names only: the default. Names are
    /// case-insensitive, and unknown ones beside known ones are ignored.
    ///
    /// Source: `get_allowed_update_types` of tdlib/telegram-bot-api, Client.cpp.
    pub(crate) fn update(&mut self, value: Option<&str>) {
        let Some(Ok(names)) = value.map(serde_json::from_str::<Vec<String>>) else {
            return;
        };
        let bits = names
            .iter()
            .filter_map(|name| {
                KINDS
                    .iter()
                    .position(|(known, ..)| known.eq_ignore_ascii_case(name))
            })
            .fold(0, |bits, index| bits | 1 << index);
        *self = if bits == 0 {
            Self::default()
        } else {
            Self { bits }
        };
    }

    /// Whether an update of this type is queued. A type that the server does not know always is:
    /// it stands for one that a newer server knows.
    pub(crate) fn allows(self, kind: &str) -> bool {
        KINDS
            .iter()
            .position(|(known, ..)| *known == kind)
            .is_none_or(|index| self.bits & 1 << index != 0)
    }

    /// The names, if they are not the default.
    pub(crate) fn names(self) -> Option<Vec<&'static str>> {
        (self != Self::default()).then(|| {
            KINDS
                .iter()
                .enumerate()
                .filter(|(index, _)| self.bits & 1 << index != 0)
                .map(|(_, (name, ..))| *name)
                .collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_count_from_the_date_the_edit_or_the_arrival() {
        let dated = r#"{"date":1000,"edit_date":2000}"#;
        for (kind, expires) in [
            ("message", 1000 + 86_400),
            ("channel_post", 1000 + 86_400),
            ("edited_message", 2000 + 86_400),
            ("edited_channel_post", 2000 + 86_400),
            ("my_chat_member", 1000 + 86_400),
            ("message_reaction", 1000 + 86_400),
            ("poll", 5000 + 86_400),
            ("poll_answer", 5000 + 86_400),
            ("chosen_inline_result", 5000 + 600),
            ("callback_query", 5000 + 150),
            ("shipping_query", 5000 + 150),
            ("pre_checkout_query", 5000 + 150),
            ("inline_query", 5000 + 30),
            ("teleport_request", 5000 + 86_400),
        ] {
            assert_eq!(expires_at(kind, dated, 5000), expires, "{kind}");
        }
        assert_eq!(expires_at("message", r#"{"date":"soon"}"#, 7), 7 + DAY);
        assert_eq!(expires_at("message", "[]", 7), 7 + DAY);
        let boost = r#"{"boost":{"add_date":9}}"#;
        assert_eq!(expires_at("chat_boost", boost, 7), 9 + DAY);
    }

    #[test]
    fn the_default_leaves_out_members_and_reactions() {
        let allowed = Allowed::default();
        for kind in ["chat_member", "message_reaction", "message_reaction_count"] {
            assert!(!allowed.allows(kind), "{kind}");
        }
        for kind in ["message", "my_chat_member", "poll", "inline_query", "new"] {
            assert!(allowed.allows(kind), "{kind}");
        }
        assert_eq!(allowed.names(), None);
    }

    #[test]
    fn what_is_no_array_of_strings_keeps_the_setting() {
        let mut set = Allowed::default();
        set.update(Some(r#"["poll"]"#));
        for value in [
            None,
            Some(""),
            Some("message,poll"),
            Some("null"),
            Some(r#""message""#),
            Some(r#"{"a":1}"#),
            Some(r#"["message",1]"#),
        ] {
            let mut allowed = set;
            allowed.update(value);
            assert_eq!(allowed, set, "{value:?}");
        }
    }

    #[test]
    fn an_array_replaces_the_setting() {
        let mut allowed = Allowed::default();
        allowed.update(Some(r#"["MESSAGE","chat_member","teleport_request"]"#));
        assert_eq!(allowed.names().unwrap(), ["message", "chat_member"]);
        assert!(allowed.allows("chat_member"));
        assert!(!allowed.allows("edited_message"));

        for value in ["[]", r#"["teleport_request"]"#] {
            let mut again = allowed;
            again.update(Some(value));
            assert_eq!(again, Allowed::default(), "{value}");
        }
    }
}
