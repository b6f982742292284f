//! A light model of an update: [`Update`].

use std::fmt;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::{
    DecodeError, Header, Incoming, UpdateKind,
    error::json_fault,
    model,
    outline::{Outline, Text},
};

/// One update, decoded as far as most bots need it; everything else by [`json`](Self::json).
///
/// What it offers was found when the update was split, except for a text with escapes: that is
/// decoded when it is asked for. A clone is cheap apart from such a text.
///
/// ```
/// use runner_http::{Update, UpdateKind};
///
/// let update = Update::from_json(
///     r#"{"update_id":7,"message":{"message_id":3,"date":1790000000,
///         "chat":{"id":5,"type":"private"},"from":{"id":5},"text":"/start now"}}"#,
/// )?;
/// assert_eq!(update.kind(), &UpdateKind::Message);
/// assert_eq!(update.chat_id(), Some(5));
/// let command = update.command().unwrap();
/// assert_eq!((command.name, command.args), ("start", "now"));
/// # Ok::<(), runner_http::DecodeError>(())
/// ```
#[derive(Clone)]
pub struct Update {
    id: i64,
    header: Header,
    raw: Bytes,
    date: Option<i64>,
    message_id: Option<i64>,
    query_id: Text,
    text: Text,
    /// Whether that is the text of a message.
    is_text: bool,
}

impl Update {
    /// Decodes one update.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if it has no readable `update_id`, is not valid JSON, is nested deeper than
    /// [`Limits::max_depth`](crate::Limits::max_depth), or has a field of another type than the Bot
    /// API documents.
    pub fn from_json(raw: impl Into<Bytes>) -> Result<Self, DecodeError> {
        Self::from_incoming(&Incoming::from_json(raw)?)
    }

    /// Decodes a fetched update.
    ///
    /// # Errors
    ///
    /// As [`from_json`](Self::from_json).
    pub fn from_incoming(incoming: &Incoming) -> Result<Self, DecodeError> {
        incoming.check()?;
        match incoming.outline() {
            Some(outline) => Ok(Self::outlined(incoming, outline)),
            None => Self::decoded(incoming),
        }
    }

    /// An update of which everything is known.
    fn outlined(incoming: &Incoming, outline: Outline) -> Self {
        Self {
            id: incoming.id(),
            header: incoming.header().clone(),
            raw: incoming.raw().clone(),
            date: outline.date.map(Into::into),
            message_id: outline.message_id.map(Into::into),
            query_id: outline.query_id.into(),
            text: outline.text.into(),
            is_text: outline.is_text,
        }
    }

    /// An update about which something is unusual, or wrong.
    fn decoded(incoming: &Incoming) -> Result<Self, DecodeError> {
        let raw = incoming.raw();
        let text = str::from_utf8(raw).map_err(|error| incoming.error(error))?;
        let content = model::content(text, incoming.kind())
            .map_err(|error| incoming.error(json_fault(&error, None)))?;
        Ok(Self {
            id: incoming.id(),
            header: incoming.header().clone(),
            raw: raw.clone(),
            date: content.date,
            is_text: content.text.is_some(),
            message_id: content.message_id(),
            query_id: content.id.clone().into(),
            text: content.into_text().into(),
        })
    }

    /// The `update_id`.
    #[must_use]
    pub fn id(&self) -> i64 {
        self.id
    }

    /// What the update is about.
    #[must_use]
    pub fn kind(&self) -> &UpdateKind {
        &self.header.kind
    }

    /// The chat it happened in, see [`Header::chat`].
    #[must_use]
    pub fn chat_id(&self) -> Option<i64> {
        self.header.chat
    }

    /// Who caused it; `None` if it was somebody on behalf of a chat. See [`Header::user`].
    #[must_use]
    pub fn user_id(&self) -> Option<i64> {
        self.header.user
    }

    /// What was written: the text or caption of a message, the data of a button, the text of an
    /// inline query.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        self.text.get(&self.raw)
    }

    /// When it happened, as Unix time in seconds; for an edited message, when it was first sent.
    ///
    /// Queries and button presses have none.
    #[must_use]
    pub fn date(&self) -> Option<i64> {
        self.date
    }

    /// The id of the message, or of the one that the button belongs to.
    #[must_use]
    pub fn message_id(&self) -> Option<i64> {
        self.message_id
    }

    /// The id by which a query is answered: of a button press or of an inline, shipping or
    /// pre-checkout query.
    #[must_use]
    pub fn query_id(&self) -> Option<&str> {
        self.query_id.get(&self.raw)
    }

    /// The command, if the text of a new message begins with one.
    ///
    /// In a group it may be meant for another bot, see [`Command::bot`].
    #[must_use]
    pub fn command(&self) -> Option<Command<'_>> {
        use UpdateKind as Kind;

        match self.kind() {
            Kind::Message | Kind::ChannelPost | Kind::BusinessMessage | Kind::GuestMessage
                if self.is_text =>
            {
                Command::parse(self.text()?)
            }
            _ => None,
        }
    }

    /// The JSON of the update.
    #[must_use]
    pub fn raw(&self) -> &str {
        str::from_utf8(&self.raw).expect("checked when it was decoded")
    }

    /// Decodes the update as `T`, which is the whole object with its `update_id`.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the JSON is not a `T`.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        serde_json::from_slice(&self.raw).map_err(|error| {
            let fault = json_fault(&error, None);
            DecodeError::new(Some(self.id), self.kind().clone(), self.raw.len(), fault)
        })
    }
}

impl fmt::Debug for Update {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Update")
            .field("id", &self.id)
            .field("kind", &self.header.kind)
            .field("chat", &self.header.chat)
            .field("user", &self.header.user)
            .field("text", &self.text())
            .finish_non_exhaustive()
    }
}

/// A command at the beginning of a message, such as `/start@some_bot now`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Command<'a> {
    /// The name without the slash: `start`.
    pub name: &'a str,
    /// The bot it is addressed to, if it says so: `some_bot`.
    pub bot: Option<&'a str>,
    /// Everything after it, without white space around it: `now`.
    pub args: &'a str,
}

impl<'a> Command<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let rest = text.strip_prefix('/')?;
        let (word, args) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let (name, bot) = match word.split_once('@') {
            Some((name, bot)) => (name, Some(bot)),
            None => (word, None),
        };
        let is_word = |word: &str| {
            !word.is_empty()
                && word
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        (is_word(name) && bot.is_none_or(is_word)).then(|| Self {
            name,
            bot,
            args: args.trim(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use serde::Deserialize;

    use super::*;

    fn update(content: &str) -> Update {
        Update::from_json(format!(r#"{{"update_id":5,{content}}}"#)).unwrap()
    }

    #[test]
    fn a_message_has_everything() {
        let update = update(
            r#""message":{"message_id":38,"from":{"id":7},"chat":{"id":8},"date":1790000000,"text":"caf\u00e9 \ud83d\ude00"}"#,
        );
        assert_eq!(update.id(), 5);
        assert_eq!((update.chat_id(), update.user_id()), (Some(8), Some(7)));
        assert_eq!(update.text(), Some("café 😀"));
        assert_eq!(update.date(), Some(1_790_000_000));
        assert_eq!(update.message_id(), Some(38));
        assert_eq!(update.query_id(), None);
        assert!(update.raw().starts_with(r#"{"update_id":5,"message""#));
        assert!(format!("{update:?}").contains("café"));
    }

    #[test]
    fn a_sender_who_stands_for_many_is_no_user() {
        for id in [1_087_968_824, 136_817_688, 777_000, 552_888, 936_174] {
            for content in [
                format!(
                    r#""message":{{"from":{{"id":{id}}},"sender_chat":{{"id":-8}},"chat":{{"id":-8}}}}"#
                ),
                format!(r#""edited_message":{{"chat":{{"id":-8}},"from":{{"id":{id}}}}}"#),
                format!(
                    r#""callback_query":{{"from":{{"id":{id}}},"message":{{"chat":{{"id":-8}}}}}}"#
                ),
                format!(r#""chat_member":{{"from":{{"id":{id}}},"chat":{{"id":-8}}}}"#),
                // Read by the slower way.
                format!(
                    r#""message":{{"from":{{"id":{id}}},"chat":{{"id":-8}},"date":1,"date":1}}"#
                ),
            ] {
                let raw = format!(r#"{{"update_id":5,{content}}}"#);
                let incoming = crate::Incoming::from_json(raw).unwrap();
                let found = (incoming.chat_id(), incoming.user_id());
                assert_eq!(found, (Some(-8), None), "{content}");
                if let Ok(update) = Update::from_incoming(&incoming) {
                    assert_eq!((update.chat_id(), update.user_id()), found, "{content}");
                }
            }
        }
    }

    #[test]
    fn the_text_is_what_was_written() {
        for (content, text) in [
            (
                r#""message":{"caption":"a photo","photo":[]}"#,
                Some("a photo"),
            ),
            (
                r#""callback_query":{"data":"v:1","message":{"text":"Pick one"}}"#,
                Some("v:1"),
            ),
            (r#""inline_query":{"query":"weather"}"#, Some("weather")),
            (r#""message":{"photo":[]}"#, None),
            (r#""message":{"text":null}"#, None),
            (r#""poll":{"id":"1","question":"?"}"#, None),
        ] {
            assert_eq!(update(content).text(), text, "{content}");
        }
    }

    #[test]
    fn a_button_press_names_its_message_and_how_to_answer() {
        let update = update(
            r#""callback_query":{"id":"300","from":{"id":7},"message":{"message_id":39,"chat":{"id":8},"date":1}}"#,
        );
        assert_eq!(update.query_id(), Some("300"));
        assert_eq!(update.message_id(), Some(39));
        assert_eq!(update.date(), None);
    }

    #[test]
    fn commands_are_told_from_text() {
        for (text, expected) in [
            ("/start", Some(("start", None, ""))),
            ("/start now", Some(("start", None, "now"))),
            ("/start\\n now \\n", Some(("start", None, "now"))),
            (
                "/start@my_bot a  b",
                Some(("start", Some("my_bot"), "a  b")),
            ),
            ("/", None),
            ("/ start", None),
            ("/@my_bot", None),
            ("/start@", None),
            ("/usr/bin", None),
            ("start", None),
            (" /start", None),
            ("/größe", None),
        ] {
            let update = update(&format!(r#""message":{{"text":"{text}"}}"#));
            let found = update
                .command()
                .map(|found| (found.name, found.bot, found.args));
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn only_new_text_is_a_command() {
        for content in [
            r#""edited_message":{"text":"/start"}"#,
            r#""callback_query":{"data":"/start"}"#,
            r#""message":{"caption":"/start"}"#,
        ] {
            assert_eq!(update(content).command(), None, "{content}");
        }
    }

    #[test]
    fn what_is_not_known_is_tolerated() {
        for content in [
            r#""teleport_request":{"text":{},"date":"soon","x":[null]}"#,
            r#""teleport_request":7"#,
            r#""subscription":{"id":7}"#,
            r#""message":{"new_field":{"deep":[1,2]}}"#,
        ] {
            assert_eq!(update(content).text(), None, "{content}");
        }
        let bare = Update::from_json(r#"{"update_id":5}"#).unwrap();
        assert_eq!(bare.kind().as_str(), "");
    }

    #[test]
    fn what_is_wrong_is_refused_with_a_name_and_without_its_content() {
        for content in [
            r#""message":"secret""#,
            r#""message":{"text":7}"#,
            r#""message":{"date":"secret"}"#,
            r#""message":{"text":"\ud83d"}"#,
            r#""message":{"message_id":1e300}"#,
        ] {
            let raw = format!(r#"{{"update_id":5,{content}}}"#);
            let error = Update::from_json(raw.clone()).unwrap_err();
            let bytes = raw.len();
            assert_eq!(
                error.to_string(),
                format!("update 5 cannot be decoded (message, {bytes} bytes)")
            );
            assert!(error.source().is_some());
            assert_eq!(error.id(), Some(5));
        }
        let long = format!(
            r#"{{"update_id":5,"message":{{"date":"{}"}}}}"#,
            "é".repeat(5_000)
        );
        let error = Update::from_json(long).unwrap_err();
        let source = error.source().unwrap().to_string();
        assert!(source.len() < 220 && source.contains("column"), "{source}");
        for raw in ["", "7", "{}", r#"{"update_id":"5"}"#, r#"{"update_id":5}x"#] {
            let error = Update::from_json(raw).unwrap_err();
            assert!(error.to_string().contains("cannot be decoded"), "{error}");
        }
    }

    #[test]
    fn an_array_is_not_taken_for_an_object() {
        for content in [
            r#""message":["5"]"#,
            r#""message":[]"#,
            r#""callback_query":{"id":"5","message":[7]}"#,
        ] {
            let raw = format!(r#"{{"update_id":5,{content}}}"#);
            let error = Update::from_json(raw).unwrap_err();
            let source = error.source().unwrap().to_string();
            assert!(source.contains("expected an object"), "{source}");
        }
        let none = update(r#""callback_query":{"id":"5","message":null}"#);
        assert_eq!((none.query_id(), none.message_id()), (Some("5"), None));
    }

    #[test]
    fn any_model_can_be_decoded_on_demand() {
        #[derive(Deserialize)]
        struct Whole {
            update_id: i64,
            message: Message,
        }

        #[derive(Deserialize)]
        struct Message {
            sticker: String,
        }

        let update = update(r#""message":{"sticker":"cat"}"#);
        let whole: Whole = update.json().unwrap();
        assert_eq!(
            (whole.update_id, whole.message.sticker.as_str()),
            (5, "cat")
        );
        assert!(update.json::<Vec<u8>>().is_err());
    }
}
