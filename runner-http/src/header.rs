//! One shallow scan of an update: its id, its kind, its chat, its user.
//!
//! Never fails: what is missing or of an odd type is left out, so that an update whose shape is
//! unexpected still has a header. Looks at four levels at most; everything else is skipped without
//! recursion, whatever its depth.

use std::fmt;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::value::RawValue;

use crate::UpdateKind;

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
    pub(crate) fn of(raw: &[u8]) -> Self {
        let mut scan = Self::default();
        let mut json = serde_json::Deserializer::from_slice(raw);
        // An error, such as half a surrogate pair in a name, ends the scan. What was found before
        // it stays.
        let _ = Lenient(UpdateVisitor(&mut scan)).deserialize(&mut json);
        scan
    }

    pub(crate) fn into_header(self) -> Header {
        Header {
            kind: self.kind.unwrap_or_else(|| UpdateKind::from_name("")),
            chat: self.chat,
            user: self.user,
        }
    }
}

/// Visits an object; a value of any other type is skipped.
trait Object<'de> {
    fn object<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error>;
}

struct Lenient<O>(O);

impl<'de, O: Object<'de>> DeserializeSeed<'de> for Lenient<O> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, O: Object<'de>> Visitor<'de> for Lenient<O> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        self.0.object(map)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

struct UpdateVisitor<'a>(&'a mut Scan);

impl<'de> Object<'de> for UpdateVisitor<'_> {
    fn object<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let scan = self.0;
        while let Some(name) = map.next_key::<Name>()? {
            match name {
                Name::UpdateId => scan.id = integer(&mut map)?.filter(|id| IDS.contains(id)),
                Name::Kind(kind) if scan.kind.is_none() => {
                    let place = match kind {
                        UpdateKind::CallbackQuery => Place::Message,
                        UpdateKind::BusinessConnection => Place::UserChat,
                        _ => Place::Chat,
                    };
                    scan.kind = Some(kind);
                    map.next_value_seed(Lenient(BodyVisitor { scan, place }))?;
                }
                Name::Kind(_) => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// The object behind the kind.
struct BodyVisitor<'a> {
    scan: &'a mut Scan,
    place: Place,
}

/// Where the chat is, in an update of some kind.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In the object itself.
    Chat,
    /// In the message inside.
    Message,
    /// The object has its id only. A request to join has that too, beside its chat.
    UserChat,
}

impl<'de> Object<'de> for BodyVisitor<'_> {
    fn object<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let scan = self.scan;
        while let Some(field) = map.next_key::<Field>()? {
            match field {
                Field::Chat => map.next_value_seed(Lenient(PeerVisitor(&mut scan.chat)))?,
                Field::User => map.next_value_seed(Lenient(PeerVisitor(&mut scan.user)))?,
                Field::Message if self.place == Place::Message => {
                    map.next_value_seed(Lenient(MessageVisitor(&mut scan.chat)))?;
                }
                Field::UserChat if self.place == Place::UserChat => scan.chat = integer(&mut map)?,
                Field::Message | Field::UserChat | Field::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// The message that a button belongs to: only its chat, for its sender is the bot.
struct MessageVisitor<'a>(&'a mut Option<i64>);

impl<'de> Object<'de> for MessageVisitor<'_> {
    fn object<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(field) = map.next_key::<Field>()? {
            if matches!(field, Field::Chat) {
                map.next_value_seed(Lenient(PeerVisitor(self.0)))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// A chat or a user.
struct PeerVisitor<'a>(&'a mut Option<i64>);

impl<'de> Object<'de> for PeerVisitor<'_> {
    fn object<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(field) = map.next_key::<PeerField>()? {
            match field {
                PeerField::Id => *self.0 = integer(&mut map)?,
                PeerField::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// Reads a value of any type, and keeps it if it is an integer.
///
/// By its text, because with serde_json's `arbitrary_precision`, which any crate in the program
/// may turn on, numbers come as maps.
fn integer<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Option<i64>, A::Error> {
    Ok(map.next_value::<&RawValue>()?.get().parse().ok())
}

macro_rules! names {
    ($type:ty, $name:ident => $found:expr) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct NameVisitor;

                impl Visitor<'_> for NameVisitor {
                    type Value = $type;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("a name")
                    }

                    fn visit_str<E>(self, $name: &str) -> Result<$type, E> {
                        Ok($found)
                    }
                }

                deserializer.deserialize_identifier(NameVisitor)
            }
        }
    };
}

enum Name {
    UpdateId,
    Kind(UpdateKind),
}

names!(Name, name => match name {
    "update_id" => Name::UpdateId,
    _ => Name::Kind(UpdateKind::from_name(name)),
});

enum Field {
    Chat,
    User,
    Message,
    UserChat,
    Other,
}

names!(Field, name => match name {
    "chat" | "voter_chat" => Field::Chat,
    "from" | "user" => Field::User,
    "message" => Field::Message,
    "user_chat_id" => Field::UserChat,
    _ => Field::Other,
});

enum PeerField {
    Id,
    Other,
}

names!(PeerField, name => match name {
    "id" => PeerField::Id,
    _ => PeerField::Other,
});

/// Ids that can be confirmed.
///
/// Their offset is the id plus one: a negative offset would delete updates on the server, and
/// beyond this bound it would not be a number that every JSON reader understands.
const IDS: std::ops::Range<i64> = 0..1 << 52;
