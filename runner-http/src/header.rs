//! One shallow scan of an update that is unusual: its id, its kind, its chat, its user.
//!
//! Never fails: what is missing or of an odd type is left out, so that an update whose shape is
//! unexpected still has a header. Looks at four levels at most; everything else is skipped without
//! recursion, whatever its depth.

use crate::{UpdateKind, scan::Scanner};

/// What the runner must know about an update before it is decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Header {
    /// What the update is about.
    pub kind: UpdateKind,
    /// The chat it happened in, if there is one.
    ///
    /// For a button it is the chat of the message with the button, for an anonymous vote the chat
    /// that voted, for a business connection the private chat with its owner.
    pub chat: Option<i64>,
    /// Who caused it, if it is known.
    ///
    /// `None` if somebody acted on behalf of a chat: an anonymous administrator, or a channel. Their
    /// updates have a fake sender, which is the same user in all chats; the chat is in `sender_chat`.
    ///
    /// | `from.id` | test environment | stands for |
    /// |---|---|---|
    /// | 1087968824 | 552888 | anonymous administrators of a group |
    /// | 136817688 | 936174 | channels that write in a group |
    /// | 777000 | 777000 | channels whose posts are forwarded to their discussion group |
    ///
    /// Sources: `from` and `sender_chat` in <https://core.telegram.org/bots/api#message>, and the ids
    /// in [TDLib](https://github.com/tdlib/td/blob/master/td/telegram/UserManager.cpp)
    /// (`get_anonymous_bot_user_id` and the functions beside it).
    pub user: Option<i64>,
}

/// What the scan found.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    pub(crate) id: Option<i64>,
    pub(crate) kind: Option<UpdateKind>,
    pub(crate) chat: Option<i64>,
    pub(crate) user: Option<i64>,
}

impl Scan {
    /// Scans one value of any type, passes over it, and returns how many levels it has; what cannot
    /// be read is left out. `None` if its structure is lost.
    pub(crate) fn read(&mut self, json: &mut Scanner<'_>) -> Option<usize> {
        let mark = json.mark()?;
        json.fields(|json, name| match name {
            b"update_id" => {
                self.id = json.integer()?.filter(|id| IDS.contains(id));
                Some(())
            }
            // Serialisers of a whole model write each kind that it is not as `null`.
            _ if self.kind.is_some() || json.is_null()? => json.skip(),
            name => {
                let kind = UpdateKind::from_name(&String::from_utf8_lossy(name));
                let place = Place::of(&kind);
                self.kind = Some(kind);
                self.content(json, place)
            }
        })?;
        Some(json.levels_since(mark))
    }

    pub(crate) fn into_header(self) -> Header {
        Header {
            kind: self.kind.unwrap_or_else(|| UpdateKind::from_name("")),
            chat: self.chat,
            user: self.user.filter(|id| !FAKE_SENDERS.contains(id)),
        }
    }

    fn content(&mut self, json: &mut Scanner<'_>, place: Place) -> Option<()> {
        json.fields(|json, name| match (name, place) {
            (b"from" | b"user", _) => peer(json, &mut self.user),
            (b"chat" | b"voter_chat", Place::Chat | Place::Boost | Place::RemovedBoost) => {
                peer(json, &mut self.chat)
            }
            (b"boost", Place::Boost) => json.fields(|json, name| match name {
                b"source" => self.source(json),
                _ => json.skip(),
            }),
            (b"source", Place::RemovedBoost) => self.source(json),
            (b"message", Place::Message) => json.fields(|json, name| match name {
                b"chat" => peer(json, &mut self.chat),
                _ => json.skip(),
            }),
            (b"user_chat_id", Place::UserChat) => {
                self.chat = json.integer()?;
                Some(())
            }
            _ => json.skip(),
        })
    }

    /// Why a chat is boosted, which says by whom.
    fn source(&mut self, json: &mut Scanner<'_>) -> Option<()> {
        json.fields(|json, name| match name {
            b"user" => peer(json, &mut self.user),
            _ => json.skip(),
        })
    }
}

/// The id of a chat or a user.
fn peer(json: &mut Scanner<'_>, id: &mut Option<i64>) -> Option<()> {
    json.fields(|json, name| match name {
        b"id" => {
            *id = json.integer()?;
            Some(())
        }
        _ => json.skip(),
    })
}

/// Where the chat is, in an update of some kind.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    /// In the object itself.
    Chat,
    /// In the message inside, whose sender is the bot.
    Message,
    /// The object has its id only. A request to join has that too, beside its chat.
    UserChat,
    /// In the object itself; the user is in the source of the boost inside.
    Boost,
    /// In the object itself; the user is in the source inside.
    RemovedBoost,
}

impl Place {
    pub(crate) fn of(kind: &UpdateKind) -> Self {
        match kind {
            UpdateKind::CallbackQuery => Self::Message,
            UpdateKind::BusinessConnection => Self::UserChat,
            UpdateKind::ChatBoost => Self::Boost,
            UpdateKind::RemovedChatBoost => Self::RemovedBoost,
            _ => Self::Chat,
        }
    }
}

/// Users who stand for chats, see [`Header::user`].
pub(crate) const FAKE_SENDERS: [i64; 5] = [1_087_968_824, 136_817_688, 777_000, 552_888, 936_174];

/// Ids that can be confirmed.
///
/// Their offset is the id plus one: a negative offset would delete updates on the server, and
/// beyond this bound it would not be a number that every JSON reader understands.
pub(crate) const IDS: std::ops::Range<i64> = 0..1 << 52;
