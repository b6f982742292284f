//! What is decoded of an update about which something is unusual, and what is wrong with it.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize,
    de::{
        DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor, value::MapAccessDeserializer,
    },
};

use crate::UpdateKind;

/// The content of an update of this kind.
pub(crate) fn content(text: &str, kind: &UpdateKind) -> Result<Content, serde_json::Error> {
    let mut json = serde_json::Deserializer::from_str(text);
    let content = ContentOf(kind).deserialize(&mut json)?;
    json.end()?;
    Ok(content)
}

/// The few fields that are decoded, of all kinds at once: no two kinds use a name differently.
#[derive(Default, Deserialize)]
pub(crate) struct Content {
    pub(crate) id: Option<String>,
    message_id: Option<i64>,
    pub(crate) date: Option<i64>,
    pub(crate) text: Option<String>,
    caption: Option<String>,
    data: Option<String>,
    query: Option<String>,
    message: Option<Object<MessageRef>>,
}

#[derive(Deserialize)]
struct MessageRef {
    message_id: Option<i64>,
}

impl Content {
    pub(crate) fn message_id(&self) -> Option<i64> {
        let inside = || self.message.as_ref()?.0.message_id;
        self.message_id.or_else(inside)
    }

    /// What was written.
    pub(crate) fn into_text(self) -> Option<String> {
        let text = self.text.or(self.caption);
        text.or(self.data).or(self.query)
    }
}

/// Decodes the content of an update of this kind, and skips the rest.
struct ContentOf<'a>(&'a UpdateKind);

impl<'de> DeserializeSeed<'de> for ContentOf<'_> {
    type Value = Content;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Content, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ContentOf<'_> {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an update")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Content, A::Error> {
        let mut content = Content::default();
        while let Some(is_content) = map.next_key_seed(IsName(self.0.as_str()))? {
            if is_content && self.0.has_known_shape() {
                if let Some(Object(found)) = map.next_value()? {
                    content = found;
                }
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(content)
    }
}

/// Compares a key without allocating it.
struct IsName<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for IsName<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for IsName<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }
}

/// What is decoded from an object; by itself, what is derived takes an array, too.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Fields(PhantomData)).map(Self)
    }
}

struct Fields<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}
