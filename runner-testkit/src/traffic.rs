//! Updates as a busy bot gets them: [`Traffic`].

use std::{
    fmt::Write,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    people::{BOT, Chat, USERS, user_json},
    server::LocalServer,
    wire::quote,
};

/// Makes up updates of every type, the same ones for the same seed.
///
/// Most are messages, in private chats, groups and channels, of which some are far busier than
/// others; among them are commands, replies and text in other scripts. The rest are edits, callback
/// queries, inline queries, reactions, changes of members, and all other types. An update has about
/// 900 bytes on the wire, and its fields are in the order of the real server.
///
/// It never ends as an iterator. Every update is dated when the traffic was made up, unless told
/// otherwise; the server drops messages that are older than a day.
///
/// ```
/// use runner_testkit::{LocalServer, Traffic};
///
/// let server = LocalServer::start()?;
/// let mut traffic = Traffic::new(7).chats(400);
/// server.push_traffic(&mut traffic, 100);
/// // Members and reactions are not among the types that a bot gets by default.
/// assert!((90..=100).contains(&server.pending()));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Traffic {
    random: fastrand::Rng,
    chats: u32,
    kinds: Vec<(&'static str, u32)>,
    date: i64,
    last_message_id: i64,
    last_query_id: u64,
}

/// An update that is not queued yet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TrafficUpdate {
    /// The name of its field in the update.
    pub kind: &'static str,
    /// What is in the field, as minified JSON. It has no escapes yet for what is not ASCII.
    pub body: String,
}

/// All types, with how many of 1000 updates are of it.
const KINDS: [(&str, u32); 25] = [
    ("message", 700),
    ("edited_message", 50),
    ("channel_post", 40),
    ("edited_channel_post", 10),
    ("callback_query", 90),
    ("inline_query", 40),
    ("chosen_inline_result", 8),
    ("message_reaction", 18),
    ("message_reaction_count", 4),
    ("my_chat_member", 6),
    ("chat_member", 10),
    ("chat_join_request", 3),
    ("poll", 3),
    ("poll_answer", 5),
    ("chat_boost", 1),
    ("removed_chat_boost", 1),
    ("business_connection", 1),
    ("business_message", 2),
    ("edited_business_message", 1),
    ("deleted_business_messages", 1),
    ("guest_message", 1),
    ("managed_bot", 1),
    ("purchased_paid_media", 1),
    ("shipping_query", 1),
    ("pre_checkout_query", 2),
];

impl Traffic {
    /// Traffic of 300 chats, with all types of updates.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let date = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(0));
        Self {
            random: fastrand::Rng::with_seed(seed),
            chats: 300,
            kinds: KINDS.to_vec(),
            date,
            last_message_id: 0,
            last_query_id: 3_006_907_460_000_000_000,
        }
    }

    /// Sets how many chats there are, at least one. Of twenty, thirteen are private chats, five
    /// supergroups, one a group and one a channel.
    #[must_use]
    pub fn chats(mut self, chats: u32) -> Self {
        self.chats = chats.max(1);
        self
    }

    /// Makes only updates of these types, in the same proportions to each other. Unknown names are
    /// ignored; if none is left, all types are made.
    #[must_use]
    pub fn only(mut self, kinds: &[&str]) -> Self {
        self.kinds = KINDS.to_vec();
        self.kinds.retain(|(kind, _)| kinds.contains(kind));
        if self.kinds.is_empty() {
            self.kinds = KINDS.to_vec();
        }
        self
    }

    /// Sets the date of all updates, in seconds of Unix time.
    #[must_use]
    pub fn date(mut self, date: i64) -> Self {
        self.date = date;
        self
    }

    /// A message whose fields have other types than any model expects. It is valid JSON, as
    /// everything from the real server is.
    #[must_use]
    pub fn undecodable() -> TrafficUpdate {
        TrafficUpdate {
            kind: "message",
            body: r#"{"message_id":"nine","from":17,"chat":"lobby","date":"yesterday","text":{"of":"what"}}"#
                .into(),
        }
    }

    fn update(&mut self) -> TrafficUpdate {
        let total = self.kinds.iter().map(|(_, weight)| weight).sum();
        let mut left = self.random.u32(0..total);
        let mut kind = self.kinds[0].0;
        for (candidate, weight) in &self.kinds {
            kind = candidate;
            if left < *weight {
                break;
            }
            left -= weight;
        }
        let body = self.body(kind);
        TrafficUpdate { kind, body }
    }

    fn body(&mut self, kind: &str) -> String {
        let date = self.date;
        match kind {
            "message" | "guest_message" => {
                let chat = self.chat(|chat| !chat.is_channel());
                self.message(chat, "")
            }
            "edited_message" => {
                let chat = self.chat(|chat| !chat.is_channel());
                self.message(chat, &format!(r#","edit_date":{date}"#))
            }
            "channel_post" => {
                let chat = self.chat(Chat::is_channel);
                self.message(chat, "")
            }
            "edited_channel_post" => {
                let chat = self.chat(Chat::is_channel);
                self.message(chat, &format!(r#","edit_date":{date}"#))
            }
            "business_message" | "edited_business_message" => {
                let edited = match kind {
                    "business_message" => String::new(),
                    _ => format!(r#","edit_date":{date}"#),
                };
                let chat = self.chat(Chat::is_private);
                self.message(
                    chat,
                    &format!(r#","business_connection_id":"bc-1"{edited}"#),
                )
            }
            "callback_query" => {
                let chat = self.chat(|chat| !chat.is_channel());
                let user = self.member(chat);
                let id = self.query_id();
                let data = self.random.u32(0..50);
                let message = self.menu(chat);
                format!(
                    r#"{{"id":"{id}","from":{user},"message":{message},"chat_instance":"-{id}","data":"menu:{data}"}}"#
                )
            }
            "inline_query" => {
                let user = self.user();
                let id = self.query_id();
                let mut query = String::new();
                let words = self.random.usize(1..4);
                quote_words(&mut self.random, words, &mut query);
                format!(
                    r#"{{"id":"{id}","from":{user},"chat_type":"sender","query":{query},"offset":""}}"#
                )
            }
            "chosen_inline_result" => {
                let user = self.user();
                format!(
                    r#"{{"from":{user},"query":"weather","result_id":"{}"}}"#,
                    self.query_id()
                )
            }
            "message_reaction" => {
                let chat = self.chat(|chat| !chat.is_channel());
                let user = self.member(chat);
                format!(
                    r#"{{"chat":{},"message_id":{},"user":{user},"date":{date},"old_reaction":[],"new_reaction":[{{"type":"emoji","emoji":"👍"}}]}}"#,
                    chat.json(),
                    self.old_message_id()
                )
            }
            "message_reaction_count" => {
                let chat = self.chat(Chat::is_channel);
                format!(
                    r#"{{"chat":{},"message_id":{},"date":{date},"reactions":[{{"type":{{"type":"emoji","emoji":"❤"}},"total_count":{}}}]}}"#,
                    chat.json(),
                    self.old_message_id(),
                    self.random.u32(1..900)
                )
            }
            "my_chat_member" | "chat_member" => {
                let chat = self.chat(|chat| !chat.is_private());
                let user = self.user();
                let member = if kind == "chat_member" { &user } else { BOT };
                format!(
                    r#"{{"chat":{},"from":{user},"date":{date},"old_chat_member":{{"user":{member},"status":"left"}},"new_chat_member":{{"user":{member},"status":"member"}}}}"#,
                    chat.json()
                )
            }
            "chat_join_request" => {
                let chat = self.chat(|chat| !chat.is_private());
                let id = self.random.u32(0..self.chats) + 1;
                let id = USERS + i64::from(id);
                format!(
                    r#"{{"chat":{},"from":{},"user_chat_id":{id},"date":{date}}}"#,
                    chat.json(),
                    user_json(id)
                )
            }
            "chat_boost" => {
                let chat = self.chat(Chat::is_channel);
                let user = self.user();
                format!(
                    r#"{{"chat":{},"boost":{{"boost_id":"b1","add_date":{date},"expiration_date":{},"source":{{"source":"premium","user":{user}}}}}}}"#,
                    chat.json(),
                    date + 2_592_000
                )
            }
            "removed_chat_boost" => {
                let chat = self.chat(Chat::is_channel);
                let user = self.user();
                format!(
                    r#"{{"chat":{},"boost_id":"b1","remove_date":{date},"source":{{"source":"premium","user":{user}}}}}"#,
                    chat.json()
                )
            }
            "poll" => {
                let id = self.query_id();
                format!(
                    r#"{{"id":"{id}","question":"Lunch at one?","options":[{{"text":"Yes","voter_count":{}}},{{"text":"No","voter_count":0}}],"total_voter_count":0,"is_closed":false,"is_anonymous":true,"type":"regular","allows_multiple_answers":false}}"#,
                    self.random.u32(0..90)
                )
            }
            "poll_answer" => {
                let user = self.user();
                let id = self.query_id();
                format!(r#"{{"poll_id":"{id}","user":{user},"option_ids":[0]}}"#)
            }
            "business_connection" => {
                let chat = self.chat(Chat::is_private);
                format!(
                    r#"{{"id":"bc-1","user":{},"user_chat_id":{},"date":{date},"is_enabled":true}}"#,
                    user_json(chat.id),
                    chat.id
                )
            }
            "deleted_business_messages" => {
                let chat = self.chat(Chat::is_private);
                format!(
                    r#"{{"business_connection_id":"bc-1","chat":{},"message_ids":[{}]}}"#,
                    chat.json(),
                    self.old_message_id()
                )
            }
            "managed_bot" => {
                let user = self.user();
                format!(r#"{{"user":{user},"bot":{BOT}}}"#)
            }
            "purchased_paid_media" => {
                let user = self.user();
                format!(r#"{{"from":{user},"paid_media_payload":"clip-1"}}"#)
            }
            "shipping_query" => {
                let user = self.user();
                let id = self.query_id();
                format!(
                    r#"{{"id":"{id}","from":{user},"invoice_payload":"order-1","shipping_address":{{"country_code":"PT","state":"","city":"Porto","street_line1":"Rua das Flores 1","street_line2":"","post_code":"4050-262"}}}}"#
                )
            }
            "pre_checkout_query" => {
                let user = self.user();
                let id = self.query_id();
                format!(
                    r#"{{"id":"{id}","from":{user},"currency":"EUR","total_amount":990,"invoice_payload":"order-1"}}"#
                )
            }
            other => unreachable!("{other} is not among the types above"),
        }
    }

    /// A text message in a chat, with more fields at the end.
    fn message(&mut self, chat: Chat, more: &str) -> String {
        let mut json = self.message_head(chat);
        if self.random.u8(0..10) < 5 {
            let head = self.message_head(chat);
            let words = self.random.usize(4..16);
            write!(json, r#","reply_to_message":{head},"text":"#).expect("memory takes all");
            quote_words(&mut self.random, words, &mut json);
            json.push('}');
        }
        json.push_str(more);
        json.push_str(r#","text":"#);
        if self.random.u8(0..10) == 0 {
            let command = COMMANDS[self.random.usize(0..COMMANDS.len())];
            write!(
                json,
                r#""{command} now","entities":[{{"offset":0,"length":{},"type":"bot_command"}}]"#,
                command.len()
            )
            .expect("memory takes all");
        } else {
            let words = self.random.usize(2..76);
            quote_words(&mut self.random, words, &mut json);
            if self.random.u8(0..10) < 3 {
                json.push_str(r#","entities":[{"offset":0,"length":1,"type":"bold"},{"offset":1,"length":1,"type":"italic"}],"link_preview_options":{"is_disabled":true}"#);
            }
        }
        json.push('}');
        json
    }

    /// The beginning of a message, without the end of the object.
    fn message_head(&mut self, chat: Chat) -> String {
        self.last_message_id += 1;
        let id = self.last_message_id;
        let date = self.date;
        let chat_json = chat.json();
        if chat.is_channel() {
            format!(
                r#"{{"message_id":{id},"sender_chat":{chat_json},"chat":{chat_json},"date":{date}"#
            )
        } else {
            let user = self.member(chat);
            format!(r#"{{"message_id":{id},"from":{user},"chat":{chat_json},"date":{date}"#)
        }
    }

    /// A message of the bot with buttons.
    fn menu(&mut self, chat: Chat) -> String {
        format!(
            r#"{{"message_id":{},"from":{BOT},"chat":{},"date":{},"text":"Pick one","reply_markup":{{"inline_keyboard":[[{{"text":"Yes","callback_data":"menu:1"}},{{"text":"No","callback_data":"menu:2"}}],[{{"text":"Later","callback_data":"menu:3"}}]]}}}}"#,
            self.old_message_id(),
            chat.json(),
            self.date
        )
    }

    /// Some chat that is wanted; one of the few busy ones more often than not.
    fn chat(&mut self, wanted: impl Fn(Chat) -> bool) -> Chat {
        for _ in 0..200 {
            let even = self.random.f64();
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "below the number of chats"
            )]
            let number = (even * even * even * f64::from(self.chats)) as u32;
            let chat = Chat::number(number);
            if wanted(chat) {
                return chat;
            }
        }
        // Few chats: one of the wanted kind need not be among them.
        (0..20)
            .map(Chat::number)
            .find(|chat| wanted(*chat))
            .expect("every kind is among twenty")
    }

    /// Someone who writes in a chat.
    fn member(&mut self, chat: Chat) -> String {
        if chat.is_private() {
            user_json(chat.id)
        } else {
            self.user()
        }
    }

    fn user(&mut self) -> String {
        user_json(USERS + 1 + i64::from(self.random.u32(0..self.chats * 3)))
    }

    fn query_id(&mut self) -> u64 {
        self.last_query_id += 1 + self.random.u64(0..1000);
        self.last_query_id
    }

    fn old_message_id(&mut self) -> i64 {
        self.random.i64(1..=self.last_message_id.max(1))
    }
}

impl Iterator for Traffic {
    type Item = TrafficUpdate;

    fn next(&mut self) -> Option<TrafficUpdate> {
        Some(self.update())
    }
}

impl LocalServer {
    /// Makes up and queues `count` updates, which arrive together. Returns their ids, `None` for one
    /// that was dropped.
    pub fn push_traffic(&self, traffic: &mut Traffic, count: usize) -> Vec<Option<i64>> {
        let updates: Vec<_> = traffic.take(count).collect();
        self.push_batch(
            updates
                .iter()
                .map(|update| (update.kind, update.body.as_str())),
        )
    }
}

const COMMANDS: [&str; 5] = ["/start", "/help", "/settings", "/weather", "/stop"];

const WORDS: [&str; 40] = [
    "the",
    "weather",
    "in",
    "Porto",
    "is",
    "fine",
    "today",
    "and",
    "who",
    "brings",
    "lunch",
    "at",
    "one",
    "we",
    "should",
    "meet",
    "tomorrow",
    "near",
    "station",
    "please",
    "send",
    "photos",
    "from",
    "trip",
    "thanks",
    "привет",
    "когда",
    "встреча",
    "завтра",
    "спасибо",
    "хорошо",
    "👍",
    "😀",
    "naïve",
    "café",
    "\"really\"",
    "https://example.org/a/b?c=d",
    "ok",
    "see",
    "later",
];

fn quote_words(random: &mut fastrand::Rng, count: usize, json: &mut String) {
    let mut text = String::with_capacity(count * 8);
    for index in 0..count {
        if index > 0 {
            text.push(' ');
        }
        text.push_str(WORDS[random.usize(0..WORDS.len())]);
    }
    quote(&text, json);
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use serde_json::Value;

    use super::*;
    use crate::wire::ascii;

    #[test]
    fn the_weights_are_per_thousand() {
        assert_eq!(KINDS.iter().map(|(_, weight)| weight).sum::<u32>(), 1000);
    }

    #[test]
    fn every_type_occurs_and_everything_is_json_of_the_usual_size() {
        let updates: Vec<_> = Traffic::new(1).date(1000).take(5_000).collect();
        let kinds: HashSet<_> = updates.iter().map(|update| update.kind).collect();
        assert_eq!(kinds.len(), KINDS.len());
        let mut bytes = 0;
        let mut chats = HashSet::new();
        for update in &updates {
            let json: Value = serde_json::from_str(&update.body).expect("valid JSON");
            assert!(json.is_object());
            assert!(!update.body.contains(['\n', '\r']));
            bytes += ascii(&update.body).len();
            if let Some(chat) = json["chat"]["id"].as_i64() {
                chats.insert(chat);
            }
        }
        let mean = bytes / updates.len();
        assert!((800..1000).contains(&mean), "{mean}");
        assert!(chats.len() > 250, "{}", chats.len());
    }

    #[test]
    fn a_seed_makes_the_same_traffic_again() {
        let take = |seed| -> Vec<_> { Traffic::new(seed).date(1000).take(500).collect() };
        assert_eq!(take(3), take(3));
        assert_ne!(take(3), take(4));
    }

    #[test]
    fn types_can_be_chosen_and_one_chat_is_enough() {
        let traffic = Traffic::new(1).chats(1).only(&["message", "channel_post"]);
        for update in traffic.take(300) {
            assert!(matches!(update.kind, "message" | "channel_post"));
        }
    }

    #[test]
    fn what_cannot_be_decoded_is_still_json() {
        let body = Traffic::undecodable().body;
        assert!(serde_json::from_str::<Value>(&body).is_ok());
    }
}
