//! JSON as a tree that forgets nothing, for naive models: order, repeated names, how a number is
//! written.

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

#[derive(Debug, PartialEq)]
pub(crate) enum Json {
    Object(Vec<(String, Self)>),
    Array(Vec<Self>),
    /// Text, numbers, `true`, `false` and `null`, as they are written.
    Other(String),
}

impl Json {
    /// The fields, if it is an object.
    pub(crate) fn fields(&self) -> &[(String, Self)] {
        match self {
            Self::Object(fields) => fields,
            _ => &[],
        }
    }

    /// How deep arrays and objects are nested in it.
    pub(crate) fn levels(&self) -> usize {
        let deepest = match self {
            Self::Object(fields) => fields.iter().map(|(_, value)| value.levels()).max(),
            Self::Array(values) => values.iter().map(Self::levels).max(),
            Self::Other(_) => return 0,
        };
        1 + deepest.unwrap_or_default()
    }

    pub(crate) fn integer(&self) -> Option<i64> {
        match self {
            Self::Other(text) => text.parse().ok(),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?.get();
        match raw.as_bytes().first() {
            Some(b'{') => serde_json::from_str(raw).map(|Fields(fields)| Self::Object(fields)),
            Some(b'[') => serde_json::from_str(raw).map(Self::Array),
            _ => Ok(Self::Other(raw.to_owned())),
        }
        .map_err(D::Error::custom)
    }
}

struct Fields(Vec<(String, Json)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Fields;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}
