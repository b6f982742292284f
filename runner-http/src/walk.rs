//! Reads an update once, from its first byte to its last: [`walk`].
//!
//! What it accepts is exactly JSON, so nothing has to read the text a second time before a handler
//! may see it. It accepts less than what can be decoded: of anything unusual it says nothing, and
//! [`Scan`] and `serde_json`, which are slower, tell what becomes of it. It builds nothing.

use crate::{
    UpdateKind,
    header::{IDS, Place, Scan},
    outline::{Outline, Span},
};

/// What one pass over an update found.
#[derive(Debug)]
pub(crate) struct Walked {
    pub(crate) scan: Scan,
    pub(crate) outline: Outline,
    /// How many levels of arrays and objects it has.
    pub(crate) levels: usize,
    /// Where it ends.
    pub(crate) end: usize,
}

/// Reads the update at the beginning of this text; `None` if anything about it is unusual.
pub(crate) fn walk(text: &[u8]) -> Option<Walked> {
    let mut walk = Walk {
        text,
        at: 0,
        bits: 0,
        levels: 0,
        scan: Scan::default(),
        outline: Outline::default(),
    };
    walk.update()?;
    let end = walk.at;
    // The positions in it are 32 bits wide.
    u32::try_from(end).ok()?;
    if walk.bits & NOT_ASCII != 0 {
        str::from_utf8(&text[..end]).ok()?;
    }
    Some(Walked {
        scan: walk.scan,
        outline: walk.outline,
        levels: walk.levels,
        end,
    })
}

/// A position in an update, and what was found before it.
///
/// Every method returns `None` where the text is not what was asked for.
struct Walk<'a> {
    text: &'a [u8],
    at: usize,
    /// The bits that are set in any byte of a string, and in a few behind one: what is outside of
    /// strings is ASCII.
    bits: u64,
    levels: usize,
    scan: Scan,
    outline: Outline,
}

impl<'a> Walk<'a> {
    fn update(&mut self) -> Option<()> {
        self.object(1, |walk, name| {
            if name == b"update_id" {
                walk.scan.id = Some(walk.integer().filter(|id| IDS.contains(id))?);
                return Some(());
            }
            if walk.scan.kind.is_some() {
                return None;
            }
            let kind = UpdateKind::from_name(str::from_utf8(name).ok()?);
            let (place, has_known_shape) = (Place::of(&kind), kind.has_known_shape());
            walk.scan.kind = Some(kind);
            if has_known_shape {
                walk.content(place)
            } else if walk.peek()? == b'{' {
                walk.object(2, |walk, name| walk.header(name, place))
            } else {
                walk.skip(1)
            }
        })?;
        self.scan.id.map(|_| ())
    }

    /// The content of an update of a kind that is decoded.
    fn content(&mut self, place: Place) -> Option<()> {
        let mut seen = 0;
        self.object(2, |walk, name| match name {
            b"id" => {
                once(&mut seen, ID)?;
                walk.outline.query_id = walk.span()?;
                Some(())
            }
            b"message_id" => {
                once(&mut seen, MESSAGE)?;
                walk.outline.message_id = walk.number()?;
                Some(())
            }
            b"message" => {
                once(&mut seen, MESSAGE)?;
                walk.message(place)
            }
            b"date" => {
                once(&mut seen, DATE)?;
                walk.outline.date = walk.number()?;
                Some(())
            }
            b"text" | b"caption" | b"data" | b"query" => {
                // Which of two counts is left to the model.
                once(&mut seen, TEXT)?;
                walk.outline.text = walk.span()?;
                walk.outline.is_text = name == b"text";
                Some(())
            }
            name => walk.header(name, place),
        })
    }

    /// The message that a button belongs to.
    fn message(&mut self, place: Place) -> Option<()> {
        if self.peek()? == b'n' {
            return self.literal(b"null");
        }
        let mut seen = 0;
        self.object(3, |walk, name| match (name, place) {
            (b"message_id", _) => {
                once(&mut seen, MESSAGE)?;
                walk.outline.message_id = walk.number()?;
                Some(())
            }
            (b"chat", Place::Message) => {
                walk.scan.chat = Some(walk.peer(3)?);
                Some(())
            }
            _ => walk.skip(3),
        })
    }

    /// A field that matters to the header at most.
    fn header(&mut self, name: &[u8], place: Place) -> Option<()> {
        match (name, place) {
            (b"from" | b"user", _) => self.scan.user = Some(self.peer(2)?),
            (b"chat" | b"voter_chat", Place::Chat) => self.scan.chat = Some(self.peer(2)?),
            (b"user_chat_id", Place::UserChat) => self.scan.chat = Some(self.integer()?),
            _ => return self.skip(2),
        }
        Some(())
    }

    /// The id of a chat or a user, who must have one.
    fn peer(&mut self, depth: usize) -> Option<i64> {
        let mut id = None;
        self.object(depth + 1, |walk, name| match name {
            b"id" => {
                id = Some(walk.integer()?);
                Some(())
            }
            _ => walk.skip(depth + 1),
        })?;
        id
    }

    /// Visits the fields of an object; `each` must consume the value.
    #[inline(always)]
    fn object(
        &mut self,
        level: usize,
        mut each: impl FnMut(&mut Self, &'a [u8]) -> Option<()>,
    ) -> Option<()> {
        self.take(b'{')?;
        self.levels = self.levels.max(level);
        if self.peek()? == b'}' {
            return self.take(b'}');
        }
        loop {
            let name = self.string()?;
            self.take(b':')?;
            if name.escapes != Escapes::None {
                return None;
            }
            let name = &self.text[name.start..name.end];
            each(self, name)?;
            match self.peek()? {
                b',' => self.at += 1,
                _ => return self.take(b'}'),
            }
        }
    }

    /// A number that is not negative and not huge, or `null`.
    fn number(&mut self) -> Option<Option<u32>> {
        if self.peek()? == b'n' {
            return self.literal(b"null").map(|()| None);
        }
        Some(Some(u32::try_from(self.integer()?).ok()?))
    }

    /// A string that can be decoded, or `null`.
    fn span(&mut self) -> Option<Option<Span>> {
        if self.peek()? == b'n' {
            return self.literal(b"null").map(|()| None);
        }
        let found = self.string()?;
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

    /// An integer of at most 18 digits, which are never too large.
    fn integer(&mut self) -> Option<i64> {
        let is_negative = self.peek()? == b'-';
        self.at += usize::from(is_negative);
        let start = self.at;
        let mut value = 0_i64;
        while let Some(digit @ b'0'..=b'9') = self.text.get(self.at) {
            value = value.wrapping_mul(10).wrapping_add((digit - b'0').into());
            self.at += 1;
        }
        let is_whole = !matches!(self.text.get(self.at), Some(b'.' | b'e' | b'E'));
        let is_canonical = match self.at - start {
            0 => false,
            // Of -0, serde_json makes a float.
            1 => !(is_negative && value == 0),
            digits => digits <= 18 && self.text[start] != b'0',
        };
        (is_whole && is_canonical).then_some(if is_negative { -value } else { value })
    }

    /// Passes over one value, at any depth that updates have.
    fn skip(&mut self, depth: usize) -> Option<()> {
        // One bit for each bracket that is open, set for a brace, below one that is always set.
        let mut open = 1_u64;
        loop {
            match self.peek()? {
                b'"' => {
                    self.string()?;
                }
                bracket @ (b'{' | b'[') => {
                    self.at += 1;
                    let is_object = bracket == b'{';
                    if open.leading_zeros() == 0 {
                        return None;
                    }
                    open = open << 1 | u64::from(is_object);
                    let level = 63 - open.leading_zeros() as usize;
                    self.levels = self.levels.max(depth + level);
                    match self.peek()? {
                        b'}' if is_object => {}
                        b']' if !is_object => {}
                        _ if is_object => {
                            self.name()?;
                            continue;
                        }
                        _ => continue,
                    }
                    self.at += 1;
                    open >>= 1;
                }
                b'-' | b'0'..=b'9' => self.skip_number()?,
                b't' => self.literal(b"true")?,
                b'f' => self.literal(b"false")?,
                b'n' => self.literal(b"null")?,
                _ => return None,
            }
            loop {
                if open == 1 {
                    return Some(());
                }
                let is_object = open & 1 == 1;
                match self.peek()? {
                    b',' => {
                        self.at += 1;
                        if is_object {
                            self.name()?;
                        }
                        break;
                    }
                    b'}' if is_object => {}
                    b']' if !is_object => {}
                    _ => return None,
                }
                self.at += 1;
                open >>= 1;
            }
        }
    }

    /// Passes over the name of a field and its colon.
    fn name(&mut self) -> Option<()> {
        self.string()?;
        self.take(b':')
    }

    fn skip_number(&mut self) -> Option<()> {
        self.at += usize::from(self.text[self.at] == b'-');
        let is_zero = *self.text.get(self.at)? == b'0';
        if self.digits()? > 1 && is_zero {
            return None;
        }
        if let Some(b'.') = self.text.get(self.at) {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.text.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = self.text.get(self.at) {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(())
    }

    /// Passes over digits, of which there must be one.
    fn digits(&mut self) -> Option<usize> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.text.get(self.at) {
            self.at += 1;
        }
        (self.at > start).then(|| self.at - start)
    }

    fn literal(&mut self, word: &[u8]) -> Option<()> {
        self.text[self.at..]
            .starts_with(word)
            .then(|| self.at += word.len())
    }

    /// The next byte that is not white space, without passing over it.
    #[inline(always)]
    fn peek(&mut self) -> Option<u8> {
        loop {
            match *self.text.get(self.at)? {
                b' ' | b'\n' | b'\r' | b'\t' => self.at += 1,
                byte => return Some(byte),
            }
        }
    }

    #[inline(always)]
    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// Passes over a string, and tells where its text is.
    #[inline]
    fn string(&mut self) -> Option<Found> {
        self.take(b'"')?;
        let start = self.at;
        let mut escapes = Escapes::None;
        loop {
            self.at = self.special(self.at)?;
            match self.text[self.at] {
                b'"' => break,
                b'\\' => self.escapes(&mut escapes)?,
                _ => return None,
            }
        }
        self.at += 1;
        Some(Found {
            start,
            end: self.at - 1,
            escapes,
        })
    }

    /// The first quote, backslash or control character from `at` on.
    #[inline(always)]
    fn special(&mut self, mut at: usize) -> Option<usize> {
        let mut rest = &self.text[at..];
        while let Some((eight, tail)) = rest.split_first_chunk::<8>() {
            let eight = u64::from_le_bytes(*eight);
            self.bits |= eight;
            let marks = (zeros(eight ^ QUOTES) | zeros(eight ^ BACKSLASHES) | below_space(eight))
                & NOT_ASCII;
            if marks != 0 {
                return Some(at + marks.trailing_zeros() as usize / 8);
            }
            rest = tail;
            at += 8;
        }
        for &byte in rest {
            self.bits |= u64::from(byte);
            if byte < b' ' || byte == b'"' || byte == b'\\' {
                return Some(at);
            }
            at += 1;
        }
        None
    }

    /// Passes over escapes that follow each other, of which the first is next.
    fn escapes(&mut self, escapes: &mut Escapes) -> Option<()> {
        if *escapes == Escapes::None {
            *escapes = Escapes::Valid;
        }
        // In most scripts, text consists of little else.
        while let Some(&[b'\\', kind]) = self.text.get(self.at..self.at + 2) {
            match kind {
                b'u' => {
                    let unit = self.unit(self.at)?;
                    self.at += 6;
                    if matches!(unit, 0xd800..0xe000) {
                        let other = self.unit(self.at);
                        if unit < 0xdc00 && matches!(other, Some(0xdc00..0xe000)) {
                            self.at += 6;
                        } else {
                            *escapes = Escapes::HalfPairs;
                        }
                    }
                }
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 2,
                _ => return None,
            }
        }
        Some(())
    }

    /// The unit of UTF-16 whose escape is at `at`.
    #[inline(always)]
    fn unit(&self, at: usize) -> Option<u32> {
        let &[b'\\', b'u', a, b, c, d] = self.text.get(at..at + 6)? else {
            return None;
        };
        let [a, b, c, d] = [a, b, c, d].map(|digit| HEX[usize::from(digit)]);
        let unit = a << 12 | b << 8 | c << 4 | d;
        (unit <= 0xffff).then_some(unit)
    }
}

/// Where the text of a string is.
struct Found {
    start: usize,
    end: usize,
    escapes: Escapes,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Escapes {
    None,
    Valid,
    /// Among them are halves of surrogate pairs, which make no character.
    HalfPairs,
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

/// What a hexadecimal digit stands for, or more than fits into a unit of UTF-16.
const HEX: [u32; 256] = {
    let mut table = [1 << 16; 256];
    let mut digit = 0_u32;
    while digit < 16 {
        let lower = b"0123456789abcdef"[digit as usize];
        table[lower as usize] = digit;
        table[lower.to_ascii_uppercase() as usize] = digit;
        digit += 1;
    }
    table
};

/// Sets the high bit of the lowest byte that is zero, and perhaps others above it.
#[inline(always)]
const fn zeros(eight: u64) -> u64 {
    eight.wrapping_sub(ONES) & !eight
}

/// Sets the high bit of the lowest byte that is below a space, and perhaps others above it.
#[inline(always)]
const fn below_space(eight: u64) -> u64 {
    eight.wrapping_sub(SPACES) & !eight
}

const ONES: u64 = 0x0101_0101_0101_0101;
const QUOTES: u64 = ONES * b'"' as u64;
const BACKSLASHES: u64 = ONES * b'\\' as u64;
const SPACES: u64 = ONES * b' ' as u64;
const NOT_ASCII: u64 = ONES * 0x80;
