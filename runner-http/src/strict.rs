//! Passes over JSON text, and checks all of it: [`Cursor`].
//!
//! Accepts exactly what `serde_json` accepts of a value that is not looked at, up to a depth that no
//! update has. Whether the text is UTF-8 is checked by whoever has all of it.

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

/// What a string has of escapes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Escapes {
    None,
    Valid,
    /// Among them are halves of surrogate pairs, which make no character.
    HalfPairs,
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
            _ => escaped(self.text, end)?,
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

/// The end of a string that is not over at its first special byte, which is here.
#[inline(never)]
fn escaped(text: &[u8], mut at: usize) -> Option<(usize, Escapes)> {
    let mut escapes = Escapes::Valid;
    loop {
        match text[at] {
            b'"' => return Some((at, escapes)),
            b'\\' => {}
            _ => return None,
        }
        match Unit::at(text, at) {
            Some(unit) if unit.is_character() => at += 6,
            Some(unit) => {
                at += 6;
                match Unit::at(text, at) {
                    Some(other) if unit.is_paired_with(other) => at += 6,
                    _ => escapes = Escapes::HalfPairs,
                }
            }
            None => match text.get(at + 1)? {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => at += 2,
                _ => return None,
            },
        }
        // In most scripts, text consists of little else than escapes.
        if *text.get(at)? != b'\\' {
            at = special(text, at)?;
        }
    }
}

/// A unit of UTF-16, as the four digits of its escape.
#[derive(Clone, Copy)]
struct Unit(u32);

impl Unit {
    /// The unit whose escape is here. There is none at the very end of a text, which is never in a
    /// string.
    #[inline(always)]
    fn at(text: &[u8], at: usize) -> Option<Self> {
        let &[b'\\', b'u', a, b, c, d] = text.get(at..)?.first_chunk::<6>()? else {
            return None;
        };
        let digits = u32::from_le_bytes([a, b, c, d]);
        // Below ten and below seven, the sums do not reach the high bit; no byte carries into the next.
        let ones = ONES as u32;
        let from_zero = digits ^ (ones * b'0' as u32);
        let from_a = (digits | (ones * 0x20)) ^ (ones * 0x60);
        let is_above_nine = from_zero.wrapping_add(ones * (0x80 - 10));
        let is_above_f = from_a.wrapping_add(ones * (0x80 - 7));
        let is_letter = from_a.wrapping_add(ones * 0x7f) & !is_above_f;
        let is_wrong = (is_above_nine & !is_letter | digits) & (ones * 0x80);
        (is_wrong == 0).then_some(Self(digits))
    }

    /// Whether it is no half of a surrogate pair.
    #[inline(always)]
    fn is_character(self) -> bool {
        self.0 & 0xdf != u32::from(b'D') || !self.is_second_digit_within(b'8', b'f')
    }

    fn is_paired_with(self, other: Self) -> bool {
        !other.is_character()
            && self.is_second_digit_within(b'8', b'b')
            && other.is_second_digit_within(b'c', b'f')
    }

    #[inline(always)]
    fn is_second_digit_within(self, first: u8, last: u8) -> bool {
        let digit = self.0.to_le_bytes()[1].to_ascii_lowercase();
        (first..=last).contains(&digit)
    }
}

/// The first quote, backslash or control character from `at` on.
#[inline(always)]
fn special(text: &[u8], at: usize) -> Option<usize> {
    let rest = text.get(at..)?;
    // Most strings are shorter than a chunk, and a loop here would cost all of them.
    match rest.first_chunk().map(position) {
        Some(Some(found)) => Some(at + found),
        _ => far_special(text, at),
    }
}

#[inline(never)]
fn far_special(text: &[u8], mut at: usize) -> Option<usize> {
    let mut rest = text.get(at..)?;
    while let Some((chunk, tail)) = rest.split_first_chunk() {
        if let Some(found) = position(chunk) {
            return Some(at + found);
        }
        rest = tail;
        at += chunk.len();
    }
    let is_special = |byte: &u8| matches!(byte, 0..b' ' | b'"' | b'\\');
    Some(at + rest.iter().position(is_special)?)
}

/// The first special byte of a few.
#[inline(always)]
fn position(chunk: &[u8; 16]) -> Option<usize> {
    let chunk = u128::from_le_bytes(*chunk);
    let (low, high) = (marks(chunk as u64), marks((chunk >> 64) as u64));
    let marks = u128::from(high) << 64 | u128::from(low);
    (marks != 0).then(|| marks.trailing_zeros() as usize / 8)
}

/// Sets the high bit of the lowest byte that is special, and perhaps of others above it.
#[inline(always)]
const fn marks(eight: u64) -> u64 {
    // This swaps quotes and spaces, so that quotes follow the control characters.
    let swapped = eight ^ (ONES * 2);
    let quotes_and_controls = swapped.wrapping_sub(ONES * 0x21) & !swapped;
    let backslashes = eight ^ (ONES * b'\\' as u64);
    let backslashes = backslashes.wrapping_sub(ONES) & !backslashes;
    (quotes_and_controls | backslashes) & (ONES * 0x80)
}

const ONES: u64 = 0x0101_0101_0101_0101;
