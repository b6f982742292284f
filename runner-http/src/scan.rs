//! Finds its way through JSON text by brackets and quotes alone: [`Scanner`].
//!
//! Does not check what it passes over, so that one update with a bad escape, a stray control
//! character or invalid UTF-8 can be told from its neighbours; decoding checks all of it. No
//! recursion: whatever is not asked for is skipped at any depth.

use std::borrow::Cow;

use memchr::memchr;

/// A position in JSON text.
///
/// Every method returns `None` where the text ends too early or is not what was asked for.
#[derive(Debug)]
pub(crate) struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    /// How many brackets are open here.
    depth: usize,
    /// How many were open at a time, since the last mark.
    deepest: usize,
}

/// A place to come back to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    at: usize,
    depth: usize,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(text: &'a [u8]) -> Self {
        Self {
            text,
            at: 0,
            depth: 0,
            deepest: 0,
        }
    }

    /// Visits the fields of an object; `each` must consume the value.
    pub(crate) fn object(
        &mut self,
        mut each: impl FnMut(&mut Self, &[u8]) -> Option<()>,
    ) -> Option<()> {
        self.enter(b'{')?;
        if self.peek()? == b'}' {
            return self.leave(b'}');
        }
        loop {
            let name = self.name()?;
            self.take(b':')?;
            each(self, &name)?;
            if self.peek()? == b'}' {
                return self.leave(b'}');
            }
            self.take(b',')?;
        }
    }

    /// As [`object`](Self::object), but a value of another type is skipped.
    pub(crate) fn fields(
        &mut self,
        each: impl FnMut(&mut Self, &[u8]) -> Option<()>,
    ) -> Option<()> {
        match self.peek()? {
            b'{' => self.object(each),
            _ => self.skip(),
        }
    }

    /// Visits the elements of an array; `each` must consume the element.
    pub(crate) fn array(&mut self, mut each: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.enter(b'[')?;
        if self.peek()? == b']' {
            return self.leave(b']');
        }
        loop {
            each(self)?;
            if self.peek()? == b']' {
                return self.leave(b']');
            }
            self.take(b',')?;
        }
    }

    /// Skips one value.
    pub(crate) fn skip(&mut self) -> Option<()> {
        match self.peek()? {
            b'"' => self.skip_string(),
            b'{' | b'[' => self.skip_nested(),
            _ => self.scalar().map(|_| ()),
        }
    }

    /// Skips one value, and returns it if it is an integer.
    pub(crate) fn integer(&mut self) -> Option<Option<i64>> {
        if !matches!(self.peek()?, b'-' | b'0'..=b'9') {
            self.skip()?;
            return Some(None);
        }
        let text = self.scalar()?;
        Some(str::from_utf8(text).ok().and_then(|text| text.parse().ok()))
    }

    /// Skips one value, and tells whether it is `true`.
    pub(crate) fn is_true(&mut self) -> Option<bool> {
        match self.peek()? {
            b't' => Some(self.scalar()? == b"true"),
            _ => self.skip().map(|()| false),
        }
    }

    /// Marks where the next value begins.
    pub(crate) fn mark(&mut self) -> Option<Mark> {
        self.peek()?;
        self.deepest = self.depth;
        Some(Mark {
            at: self.at,
            depth: self.depth,
        })
    }

    /// What was passed over since the mark.
    pub(crate) fn since(&self, mark: Mark) -> &'a [u8] {
        &self.text[mark.at..self.at]
    }

    /// How many brackets were open at a time since the last mark, which is this one.
    pub(crate) fn levels_since(&self, mark: Mark) -> usize {
        self.deepest - mark.depth
    }

    /// Goes back to a mark.
    pub(crate) fn rewind(&mut self, mark: Mark) {
        self.at = mark.at;
        self.depth = mark.depth;
        self.deepest = mark.depth;
    }

    /// What was not passed over yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        &self.text[self.at..]
    }

    /// Passes over the beginning of the rest, which is one value.
    pub(crate) fn advance(&mut self, bytes: usize) {
        self.at += bytes;
    }

    /// Whether there is nothing but white space left.
    pub(crate) fn is_at_end(&mut self) -> bool {
        self.peek().is_none()
    }

    /// Whether the next value is `null`, without passing over it.
    pub(crate) fn is_null(&mut self) -> Option<bool> {
        // Nothing else that is valid begins like this.
        self.peek().map(|byte| byte == b'n')
    }

    /// The next byte that is not white space, without passing over it.
    fn peek(&mut self) -> Option<u8> {
        loop {
            match *self.text.get(self.at)? {
                b' ' | b'\n' | b'\r' | b'\t' => self.at += 1,
                byte => return Some(byte),
            }
        }
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn enter(&mut self, bracket: u8) -> Option<()> {
        self.take(bracket)?;
        self.depth += 1;
        self.deepest = self.deepest.max(self.depth);
        Some(())
    }

    fn leave(&mut self, bracket: u8) -> Option<()> {
        self.take(bracket)?;
        self.depth -= 1;
        Some(())
    }

    fn name(&mut self) -> Option<Cow<'a, [u8]>> {
        self.take(b'"')?;
        let start = self.at;
        let end = string_end(self.text, start)?;
        self.at = end + 1;
        let name = &self.text[start..end];
        if !name.contains(&b'\\') {
            return Some(Cow::Borrowed(name));
        }
        let quoted = &self.text[start - 1..=end];
        Some(match serde_json::from_slice::<String>(quoted) {
            Ok(name) => Cow::Owned(name.into_bytes()),
            Err(_) => Cow::Borrowed(name),
        })
    }

    /// Passes over a string, whose first quote is next.
    fn skip_string(&mut self) -> Option<()> {
        self.at = string_end(self.text, self.at + 1)? + 1;
        Some(())
    }

    fn scalar(&mut self) -> Option<&'a [u8]> {
        let rest = &self.text[self.at..];
        let is_end = |byte: &u8| {
            matches!(
                byte,
                b',' | b':' | b'"' | b'{' | b'}' | b'[' | b']' | b' ' | b'\n' | b'\r' | b'\t'
            )
        };
        let end = rest.iter().position(is_end).unwrap_or(rest.len());
        self.at += end;
        (end > 0).then(|| &rest[..end])
    }

    fn skip_nested(&mut self) -> Option<()> {
        let (mut depth, mut deepest) = (0_usize, 0);
        loop {
            self.at = find(self.text, self.at, |eight| {
                // Brackets and braces differ in one bit.
                let folded = eight | (0x20 * ONES);
                with(eight, b'"') | with(folded, b'{') | with(folded, b'}')
            })?;
            match self.text[self.at] {
                b'"' => {
                    self.skip_string()?;
                    continue;
                }
                b'{' | b'[' => {
                    depth += 1;
                    deepest = deepest.max(depth);
                }
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                self.deepest = self.deepest.max(self.depth + deepest);
                return Some(());
            }
        }
    }
}

/// How deep arrays and objects are nested in one value, as far as its structure can be told.
pub(crate) fn levels(text: &str) -> usize {
    let mut json = Scanner::new(text.as_bytes());
    let mark = Mark { at: 0, depth: 0 };
    json.skip().map_or(0, |()| json.levels_since(mark))
}

/// Where the string ends whose text begins at `start`.
///
/// The first quote that is not escaped, which is one after an even number of backslashes. Nothing
/// else of an escape is looked at: text in most scripts consists of little else.
fn string_end(text: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    loop {
        at = quote(text, at)?;
        let before = text[start..at].iter().rev();
        let backslashes = before.take_while(|byte| **byte == b'\\').count();
        if backslashes % 2 == 0 {
            return Some(at);
        }
        at += 1;
    }
}

/// The first quote from `at` on.
fn quote(text: &[u8], at: usize) -> Option<usize> {
    // Most strings are short names and numbers, for which a call would cost more than it finds.
    let rest = text.get(at..)?;
    if let Some((eight, rest)) = rest.split_first_chunk::<8>() {
        let marks = with(u64::from_le_bytes(*eight), b'"');
        if marks != 0 {
            return Some(at + marks.trailing_zeros() as usize / 8);
        }
        return memchr(b'"', rest).map(|found| at + 8 + found);
    }
    memchr(b'"', rest).map(|found| at + found)
}

/// The first position from `at` on where `marks` sets the high bit of a byte.
///
/// Looks at eight bytes at a time: this is where almost all of the time goes.
fn find(text: &[u8], at: usize, marks: impl Fn(u64) -> u64) -> Option<usize> {
    let mut rest = text.get(at..)?;
    let mut at = at;
    while let Some((eight, tail)) = rest.split_first_chunk::<8>() {
        let marks = marks(u64::from_le_bytes(*eight));
        if marks != 0 {
            return Some(at + marks.trailing_zeros() as usize / 8);
        }
        rest = tail;
        at += 8;
    }
    let mut eight = [0; 8];
    eight[..rest.len()].copy_from_slice(rest);
    let marks = marks(u64::from_le_bytes(eight));
    (marks != 0).then(|| at + marks.trailing_zeros() as usize / 8)
}

/// Sets the high bit of every byte that is `byte`. Bits above the lowest one may be wrong.
fn with(eight: u64, byte: u8) -> u64 {
    let zeros = eight ^ (u64::from(byte) * ONES);
    zeros.wrapping_sub(ONES) & !zeros & (0x80 * ONES)
}

const ONES: u64 = 0x0101_0101_0101_0101;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn find_agrees_with_a_byte_at_a_time(
            text in prop::collection::vec(prop::sample::select(b"\"\\ax{}[]\x80\xa2\xff\x00\x02".to_vec()), 0..40),
            at in 0_usize..42,
        ) {
            let naive = |bytes: &[u8]| {
                let rest = text.get(at..)?;
                Some(at + rest.iter().position(|byte| bytes.contains(byte))?)
            };
            prop_assert_eq!(quote(&text, at), naive(b"\""));
            let brace = find(&text, at, |eight| with(eight | (0x20 * ONES), b'{'));
            prop_assert_eq!(brace, naive(b"{["));
        }

        #[test]
        fn a_string_ends_at_the_first_quote_that_is_not_escaped(
            text in prop::collection::vec(prop::sample::select(b"\"\\u\x80".to_vec()), 0..40),
        ) {
            let mut naive = None;
            let mut at = 0;
            while naive.is_none() && at < text.len() {
                match text[at] {
                    b'"' => naive = Some(at),
                    b'\\' => at += 2,
                    _ => at += 1,
                }
            }
            prop_assert_eq!(string_end(&text, 0), naive);
        }

        #[test]
        fn skip_ends_where_the_value_ends(text in "[ \\[\\]{}:,\"\\\\a-c0-9.-]{0,40}") {
            let full = format!("{text} ,tail");
            let mut values = serde_json::Deserializer::from_str(&text).into_iter::<serde_json::Value>();
            if let Some(Ok(value)) = values.next() {
                let end = values.byte_offset();
                let mut json = Scanner::new(full.as_bytes());
                json.skip().unwrap();
                // The number 1-2 is one value here, and two to serde.
                if !value.is_number() {
                    prop_assert_eq!(json.at, end);
                }
            }
        }
    }
}
