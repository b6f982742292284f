//! Passes over JSON text, and checks all of it: [`Cursor`].
//!
//! Accepts exactly what `serde_json` accepts of a value that is not looked at, up to a depth that no
//! update has. Whether the text is UTF-8 is checked by whoever has all of it.

use crate::string::{Escapes, escaped_end, special};

/// A position in JSON text.
///
/// Every method returns `None` where the text is not what was asked for. A cursor that a loop moves
/// should be a copy of its own: then it is kept in registers.
#[derive(Clone, Copy)]
pub(crate) struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
    /// The deepest level that was seen.
    levels: usize,
}

/// Where the text of a string is.
#[derive(Clone, Copy)]
pub(crate) struct Quoted {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) escapes: Escapes,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(text: &'a [u8]) -> Self {
        Self {
            text,
            at: 0,
            levels: 0,
        }
    }

    pub(crate) fn at(&self) -> usize {
        self.at
    }

    pub(crate) fn levels(&self) -> usize {
        self.levels
    }

    /// Visits the fields of an object, which is on this level; `each` must consume the value.
    ///
    /// No name may have escapes.
    #[inline(always)]
    pub(crate) fn object(
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
            each(self, &self.text[name.start..name.end])?;
            match self.peek()? {
                b',' => self.at += 1,
                _ => return self.take(b'}'),
            }
        }
    }

    /// Passes over one value, whose parent is on this level.
    #[inline(always)]
    pub(crate) fn skip(&mut self, level: usize) -> Option<()> {
        match self.peek()? {
            b'{' | b'[' => {
                *self = self.skip_nested(level)?;
                Some(())
            }
            _ => self.skip_scalar(),
        }
    }

    #[inline(always)]
    fn skip_scalar(&mut self) -> Option<()> {
        match self.peek()? {
            b'"' => self.string().map(|_| ()),
            b'-' | b'0'..=b'9' => self.skip_number(),
            b't' => self.literal(b"true"),
            b'f' => self.literal(b"false"),
            b'n' => self.literal(b"null"),
            _ => None,
        }
    }

    fn skip_nested(mut self, level: usize) -> Option<Self> {
        // One bit for each bracket that is open, set for a brace, below one that is always set.
        let mut open = 1_u64;
        loop {
            match self.peek()? {
                bracket @ (b'{' | b'[') => {
                    self.at += 1;
                    let is_object = bracket == b'{';
                    if open.leading_zeros() == 0 {
                        return None;
                    }
                    open = open << 1 | u64::from(is_object);
                    let inside = 63 - open.leading_zeros() as usize;
                    self.levels = self.levels.max(level + inside);
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
                _ => self.skip_scalar()?,
            }
            loop {
                if open == 1 {
                    return Some(self);
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
    #[inline(always)]
    fn name(&mut self) -> Option<()> {
        self.string()?;
        self.take(b':')
    }

    /// An integer of at most 18 digits, which are never too large.
    #[inline(always)]
    pub(crate) fn integer(&mut self) -> Option<i64> {
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

    #[inline(always)]
    fn skip_number(&mut self) -> Option<()> {
        self.at += usize::from(self.text[self.at] == b'-');
        let is_zero = *self.text.get(self.at)? == b'0';
        if self.digits()? > 1 && is_zero {
            return None;
        }
        if let Some(b'.' | b'e' | b'E') = self.text.get(self.at) {
            self.at = fraction(self.text, self.at)?;
        }
        Some(())
    }

    /// Passes over digits, of which there must be one.
    #[inline(always)]
    fn digits(&mut self) -> Option<usize> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.text.get(self.at) {
            self.at += 1;
        }
        (self.at > start).then(|| self.at - start)
    }

    /// Passes over `null`, and tells whether it was there.
    #[inline(always)]
    pub(crate) fn is_null(&mut self) -> Option<bool> {
        match self.peek()? {
            b'n' => self.literal(b"null").map(|()| true),
            _ => Some(false),
        }
    }

    #[inline(always)]
    fn literal(&mut self, word: &[u8]) -> Option<()> {
        let rest = self.text.get(self.at..)?;
        rest.starts_with(word).then(|| self.at += word.len())
    }

    /// The next byte that is not white space, without passing over it.
    #[inline(always)]
    pub(crate) fn peek(&mut self) -> Option<u8> {
        match *self.text.get(self.at)? {
            // Servers send none, or a line end here and there.
            ..=b' ' => {
                self.at = behind_blanks(self.text, self.at);
                self.text.get(self.at).copied()
            }
            byte => Some(byte),
        }
    }

    #[inline(always)]
    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// Passes over a string, and tells where its text is.
    #[inline(always)]
    pub(crate) fn string(&mut self) -> Option<Quoted> {
        self.take(b'"')?;
        let start = self.at;
        let end = special(self.text, start)?;
        let (end, escapes) = match self.text[end] {
            b'"' => (end, Escapes::None),
            _ => escaped_end(self.text, end)?,
        };
        self.at = end + 1;
        Some(Quoted {
            start,
            end,
            escapes,
        })
    }
}

#[cold]
#[inline(never)]
fn behind_blanks(text: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\r' | b'\t') = text.get(at) {
        at += 1;
    }
    at
}

/// Passes over what a number has behind its integer.
#[cold]
fn fraction(text: &[u8], at: usize) -> Option<usize> {
    let mut json = Cursor {
        text,
        at,
        levels: 0,
    };
    if text[at] == b'.' {
        json.at += 1;
        json.digits()?;
    }
    if let Some(b'e' | b'E') = text.get(json.at) {
        json.at += 1;
        json.at += usize::from(matches!(text.get(json.at), Some(b'+' | b'-')));
        json.digits()?;
    }
    Some(json.at)
}
