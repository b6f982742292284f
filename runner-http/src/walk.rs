//! Reads an update once, from its first byte to its last: [`walk`].
//!
//! What it accepts is exactly JSON, so nothing has to read the text a second time before a handler
//! may see it. It accepts less than what can be decoded: of anything unusual it says nothing, and
//! [`Scan`] and `serde_json`, which are slower, tell what becomes of it. It builds nothing.

use crate::{
    UpdateKind,
    header::{IDS, Place, Scan},
    outline::{Outline, Span},
    strict::Cursor,
    string::Escapes,
};

/// What one pass over an update found.
#[derive(Debug, Default)]
pub(crate) struct Walked {
    pub(crate) scan: Scan,
    pub(crate) outline: Outline,
    /// How many levels of arrays and objects it has.
    pub(crate) levels: usize,
    /// Where it ends.
    pub(crate) end: usize,
}

/// Reads the update at the beginning of this text, which may be known to be UTF-8; `None` if
/// anything about it is unusual.
pub(crate) fn walk(text: &[u8], is_utf8: bool) -> Option<Walked> {
    let mut json = Cursor::new(text);
    let mut found = Walked::default();
    found.update(&mut json)?;
    found.scan.id?;
    found.levels = json.levels();
    found.end = json.at();
    (is_utf8 || str::from_utf8(&text[..found.end]).is_ok()).then_some(found)
}

impl Walked {
    fn update(&mut self, json: &mut Cursor<'_>) -> Option<()> {
        json.object(1, |json, name| {
            if name == b"update_id" {
                self.scan.id = Some(json.integer().filter(|id| IDS.contains(id))?);
                return Some(());
            }
            // Serialisers of a whole model write each kind that it is not as `null`.
            if json.is_null()? {
                return Some(());
            }
            if self.scan.kind.is_some() {
                return None;
            }
            let kind = match UpdateKind::known(name) {
                Some(kind) => kind,
                None => UpdateKind::from_name(str::from_utf8(name).ok()?),
            };
            let (place, has_known_shape) = (Place::of(&kind), kind.has_known_shape());
            self.scan.kind = Some(kind);
            if has_known_shape {
                self.content(json, place)
            } else if json.peek()? == b'{' {
                json.object(2, |json, name| self.header(json, name, place))
            } else {
                json.skip(1)
            }
        })
    }

    /// The content of an update of a kind that is decoded.
    fn content(&mut self, json: &mut Cursor<'_>, place: Place) -> Option<()> {
        let mut seen = 0;
        json.object(2, |json, name| match name {
            b"id" => {
                once(&mut seen, ID)?;
                self.outline.query_id = span(json)?;
                Some(())
            }
            b"message_id" => {
                once(&mut seen, MESSAGE)?;
                self.outline.message_id = number(json)?;
                Some(())
            }
            b"message" => {
                once(&mut seen, MESSAGE)?;
                self.message(json, place)
            }
            b"date" => {
                once(&mut seen, DATE)?;
                self.outline.date = number(json)?;
                Some(())
            }
            b"text" | b"caption" | b"data" | b"query" => {
                // Which of two counts is left to the model.
                once(&mut seen, TEXT)?;
                self.outline.text = span(json)?;
                self.outline.is_text = name == b"text";
                Some(())
            }
            name => self.header(json, name, place),
        })
    }

    /// The message that a button belongs to.
    fn message(&mut self, json: &mut Cursor<'_>, place: Place) -> Option<()> {
        if json.is_null()? {
            return Some(());
        }
        let mut seen = 0;
        json.object(3, |json, name| match (name, place) {
            (b"message_id", _) => {
                once(&mut seen, MESSAGE)?;
                self.outline.message_id = number(json)?;
                Some(())
            }
            (b"chat", Place::Message) => {
                self.scan.chat = Some(peer(json, 4)?);
                Some(())
            }
            _ => json.skip(3),
        })
    }

    /// A field that matters to the header at most.
    #[inline(always)]
    fn header(&mut self, json: &mut Cursor<'_>, name: &[u8], place: Place) -> Option<()> {
        match (name, place) {
            (b"from" | b"user", _) => self.scan.user = Some(peer(json, 3)?),
            (b"chat" | b"voter_chat", Place::Chat) => self.scan.chat = Some(peer(json, 3)?),
            // They are rare.
            (_, Place::Boost | Place::RemovedBoost) => return None,
            (b"user_chat_id", Place::UserChat) => self.scan.chat = Some(json.integer()?),
            _ => return json.skip(2),
        }
        Some(())
    }
}

/// The id of a chat or a user on this level, who must have one.
fn peer(json: &mut Cursor<'_>, level: usize) -> Option<i64> {
    let mut copy = *json;
    let mut id = None;
    copy.object(level, |json, name| match name {
        b"id" => {
            id = Some(json.integer()?);
            Some(())
        }
        _ => json.skip(level),
    })?;
    *json = copy;
    id
}

/// A number that is not negative and not huge, or `null`.
fn number(json: &mut Cursor<'_>) -> Option<Option<u32>> {
    if json.is_null()? {
        return Some(None);
    }
    Some(Some(u32::try_from(json.integer()?).ok()?))
}

/// A string that can be decoded, or `null`.
fn span(json: &mut Cursor<'_>) -> Option<Option<Span>> {
    if json.is_null()? {
        return Some(None);
    }
    let found = json.string()?;
    let is_escaped = match found.escapes {
        Escapes::None => false,
        Escapes::Valid => true,
        Escapes::HalfPairs => return None,
    };
    Some(Some(Span {
        start: u32::try_from(found.start).ok()?,
        end: u32::try_from(found.end).ok()?,
        is_escaped,
    }))
}

/// Marks one of the fields that may not be repeated.
fn once(seen: &mut u8, field: u8) -> Option<()> {
    let is_new = *seen & field == 0;
    *seen |= field;
    is_new.then_some(())
}

const ID: u8 = 1;
const MESSAGE: u8 = 2;
const DATE: u8 = 4;
const TEXT: u8 = 8;

#[cfg(test)]
mod tests;
