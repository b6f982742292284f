//! What is between two quotes of JSON text: where it ends, and what it stands for.
//!
//! Almost all of the time goes here, so eight bytes are looked at at a time.

/// What a string has of escapes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Escapes {
    None,
    Valid,
    /// Among them are halves of surrogate pairs, which make no character.
    HalfPairs,
}

/// The end of a string that is not over at its first special byte, which is here.
#[inline(never)]
pub(crate) fn escaped_end(text: &[u8], at: usize) -> Option<(usize, Escapes)> {
    let mut rest = text.get(at..)?;
    let mut escapes = Escapes::Valid;
    // Set if any digits are wrong, which is asked once, at the end.
    let mut wrong = 0;
    while let Some(chunk) = rest.first_chunk::<16>() {
        let first = u64::from_le_bytes(*chunk.first_chunk()?);
        // In most scripts, text consists of little else.
        if first as u16 == u16::from_le_bytes(*b"\\u") {
            let unit = Unit((first >> 16) as u32);
            wrong |= unit.wrong();
            rest = &rest[6..];
            if !unit.is_character() {
                match Unit::at(rest, 0) {
                    Some(other) if unit.is_paired_with(other) => rest = &rest[6..],
                    _ => escapes = Escapes::HalfPairs,
                }
            }
            continue;
        }
        // How long words are cannot be foreseen, so the fewer branches the better.
        let second = u64::from_le_bytes(*chunk.last_chunk()?);
        let (first, second) = (marks(first), marks(second));
        if first | second == 0 {
            rest = &rest[16..];
            continue;
        }
        let (marks, before) = if first != 0 { (first, 0) } else { (second, 8) };
        rest = &rest[before + marks.trailing_zeros() as usize / 8..];
        match *rest {
            [b'"', ..] if wrong == 0 => return Some((text.len() - rest.len(), escapes)),
            [b'\\', byte, ..] if byte == b'u' || is_short(byte) => {
                rest = &rest[if byte == b'u' { 0 } else { 2 }..];
            }
            _ => return None,
        }
    }
    let (end, last) = escaped_tail(text, text.len() - rest.len())?;
    let escapes = if last == Escapes::Valid {
        escapes
    } else {
        last
    };
    (wrong == 0).then_some((end, escapes))
}

/// The same for the last few bytes of the text.
#[cold]
fn escaped_tail(text: &[u8], mut at: usize) -> Option<(usize, Escapes)> {
    let mut escapes = Escapes::Valid;
    loop {
        while let Some(unit) = Unit::at(text, at) {
            at += 6;
            if !unit.is_character() {
                match Unit::at(text, at) {
                    Some(other) if unit.is_paired_with(other) => at += 6,
                    _ => escapes = Escapes::HalfPairs,
                }
            }
        }
        match *text.get(at)? {
            b'"' => return Some((at, escapes)),
            b'\\' => {
                short(*text.get(at + 1)?)?;
                at += 2;
            }
            ..b' ' => return None,
            _ => at += 1,
        }
    }
}

/// What the text of a string stands for, whose escapes were found [`Escapes::Valid`].
pub(crate) fn unescape(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    // No escape is shorter than what it stands for.
    let mut plain = String::with_capacity(text.len());
    let mut at = 0;
    loop {
        while let Some(unit) = Unit::at(bytes, at) {
            let mut value = unit.value();
            at += 6;
            if !unit.is_character() {
                let low = Unit::at(bytes, at)?.value();
                value = 0x1_0000 + ((value & 0x3ff) << 10 | low & 0x3ff);
                at += 6;
            }
            plain.push(char::from_u32(value)?);
        }
        match bytes.get(at) {
            None => return Some(plain),
            Some(b'\\') => {
                plain.push(short(*bytes.get(at + 1)?)?);
                at += 2;
            }
            Some(b'"' | ..b' ') => return None,
            Some(_) => {
                let next = special(bytes, at).unwrap_or(bytes.len());
                plain.push_str(text.get(at..next)?);
                at = next;
            }
        }
    }
}

/// What a backslash and this byte stand for.
const fn short(byte: u8) -> Option<char> {
    Some(match byte {
        b'"' | b'\\' | b'/' => byte as char,
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        _ => return None,
    })
}

/// Whether this byte can follow a backslash, other than a `u`.
#[inline(always)]
fn is_short(byte: u8) -> bool {
    const SHORT: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0;
        while byte < 256 {
            table[byte] = short(byte as u8).is_some();
            byte += 1;
        }
        table
    };
    SHORT[usize::from(byte)]
}

/// A unit of UTF-16, as the four digits of its escape.
#[derive(Clone, Copy)]
struct Unit(u32);

impl Unit {
    /// The unit whose escape is here.
    #[inline(always)]
    fn at(text: &[u8], at: usize) -> Option<Self> {
        let &[b'\\', b'u', a, b, c, d] = text.get(at..)?.first_chunk::<6>()? else {
            return None;
        };
        let unit = Self(u32::from_le_bytes([a, b, c, d]));
        (unit.wrong() == 0).then_some(unit)
    }

    /// Not zero if its digits are none.
    #[inline(always)]
    fn wrong(self) -> u32 {
        let digits = self.0;
        // Below ten and below seven, the sums do not reach the high bit; no byte carries into the next.
        let ones = ONES as u32;
        let from_zero = digits ^ (ones * b'0' as u32);
        let from_a = (digits | (ones * 0x20)) ^ (ones * 0x60);
        let is_above_nine = from_zero.wrapping_add(ones * (0x80 - 10));
        let is_above_f = from_a.wrapping_add(ones * (0x80 - 7));
        let is_letter = from_a.wrapping_add(ones * 0x7f) & !is_above_f;
        (is_above_nine & !is_letter | digits) & (ones * 0x80)
    }

    /// Whether it is no half of a surrogate pair.
    #[inline(always)]
    fn is_character(self) -> bool {
        self.0 & 0xdf != u32::from(b'D') || !self.is_second_digit_within(b'8', b'f')
    }

    /// Its number.
    fn value(self) -> u32 {
        let letters = (self.0 >> 6) & 0x0101_0101;
        let digits = (self.0 & 0x0f0f_0f0f) + letters * 9;
        let [a, b, c, d] = digits.to_le_bytes().map(u32::from);
        a << 12 | b << 8 | c << 4 | d
    }

    /// Whether the two make one character.
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
pub(crate) fn special(text: &[u8], at: usize) -> Option<usize> {
    let rest = text.get(at..)?;
    // Most strings are shorter than two steps, and a loop here would cost all of them.
    if let Some(chunk) = rest.first_chunk::<16>() {
        let (eights, _) = chunk.as_chunks();
        for (before, eight) in [0, 8].into_iter().zip(eights) {
            if let Some(found) = first_special(eight) {
                return Some(at + before + found);
            }
        }
    }
    far_special(text, at)
}

#[inline(never)]
fn far_special(text: &[u8], mut at: usize) -> Option<usize> {
    let mut rest = text.get(at..)?;
    while let Some((eight, tail)) = rest.split_first_chunk() {
        if let Some(found) = first_special(eight) {
            return Some(at + found);
        }
        rest = tail;
        at += 8;
    }
    let is_special = |byte: &u8| matches!(byte, 0..b' ' | b'"' | b'\\');
    Some(at + rest.iter().position(is_special)?)
}

#[inline(always)]
fn first_special(eight: &[u8; 8]) -> Option<usize> {
    let marks = marks(u64::from_le_bytes(*eight));
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

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::select};
    use serde::de::IgnoredAny;

    use super::*;

    #[test]
    fn every_unit_is_read() {
        for number in 0..=u16::MAX {
            for text in [format!("\\u{number:04x}"), format!("\\u{number:04X}")] {
                let unit = Unit::at(text.as_bytes(), 0).unwrap();
                assert_eq!(unit.value(), u32::from(number));
                let character = char::from_u32(number.into());
                assert_eq!(unit.is_character(), character.is_some(), "{text}");
            }
        }
    }

    #[test]
    fn digits_are_hexadecimal() {
        for byte in 0..=u8::MAX {
            for at in 2..6 {
                let mut text = *b"\\u0f9A";
                text[at] = byte;
                let is_found = Unit::at(&text, 0).is_some();
                assert_eq!(is_found, byte.is_ascii_hexdigit(), "{byte}");
            }
        }
    }

    #[test]
    fn halves_are_paired_as_serde_json_pairs_them() {
        let units = ["d7ff", "d800", "dBFF", "Dc00", "dfff", "e000", "0041"];
        for first in units {
            for second in units {
                let text = format!("\\u{first}\\u{second}");
                let whole: Result<String, _> = serde_json::from_str(&format!("\"{text}\""));
                let (end, escapes) = escaped_end(format!("{text}\"").as_bytes(), 0).unwrap();
                assert_eq!(end, text.len());
                assert_eq!(escapes == Escapes::Valid, whole.is_ok(), "{text}");
                if let Ok(whole) = whole {
                    assert_eq!(unescape(&text), Some(whole));
                }
            }
        }
    }

    /// Pieces of a string, right and wrong ones.
    fn pieces() -> impl Strategy<Value = String> {
        let pieces = select(vec![
            "a",
            "plain text",
            "\u{416}",
            " ",
            "\\u0416",
            "\\u00E9",
            "\\ud83d",
            "\\ude00",
            "\\\\",
            "\\\"",
            "\\n",
            "\\u00g0",
            "\\u12",
            "\\x",
            "\n",
        ]);
        let usual = prop::collection::vec(pieces.clone(), 0..8);
        let right = select(vec![
            "\\u0416",
            "\\ud83d\\ude00",
            " ",
            "words between",
            "\\\"",
        ]);
        let right = prop::collection::vec(right, 0..40);
        prop_oneof![usual, right].prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn escapes_agree_with_serde_json(text in pieces(), behind in "[a-z\"\\\\]{0,12}") {
            let found = escaped_end(format!("{text}\"{behind}").as_bytes(), 0);
            let quoted = format!("\"{text}\"");
            let is_json = serde_json::from_str::<IgnoredAny>(&quoted).is_ok();
            let whole = serde_json::from_str::<String>(&quoted).ok();
            let expected = is_json.then_some((text.len(), whole.is_some()));
            prop_assert_eq!(found.map(|(end, escapes)| (end, escapes == Escapes::Valid)), expected);
            if whole.is_some() {
                prop_assert_eq!(unescape(&text), whole);
            }
        }

        #[test]
        fn special_agrees_with_a_byte_at_a_time(
            text in prop::collection::vec(select(b"\"\\ !#[]a\x00\x1f\x7f\x80\x9f\xa2\xdc\xff".to_vec()), 0..40),
            at in 0_usize..42,
        ) {
            let rest = text.get(at..).unwrap_or_default();
            let naive = rest.iter().position(|byte| *byte < 0x20 || b"\"\\".contains(byte));
            prop_assert_eq!(special(&text, at), naive.map(|found| at + found));
        }
    }
}
