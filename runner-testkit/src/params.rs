//! The parameters of a request: [`Params`], and how the four encodings become them.
//!
//! Pure: no socket. The rules are those of `HttpReader` and `Query` of the open-source server:
//! one flat list of names and texts, the first of a name wins, and what is in the URL comes first.

use serde_json::value::RawValue;

/// Largest sum of all names and values of a request; more is answered with 413.
///
/// Source: `HttpReader` of tdlib/td, which counts the parameters of the URL and of the body.
pub(crate) const MAX_PARAMS: usize = 1 << 20;
/// Most files of a request; more is answered with 413.
pub(crate) const MAX_FILES: usize = 50;

/// The parameters of one call, in the order in which they were read: URL before body.
///
/// Every value is text. A JSON body keeps what is not a string as its raw JSON, so `"chat_id":7`
/// reads as `7` and `"allowed_updates":["message"]` as `["message"]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params {
    pairs: Vec<(String, String)>,
    files: Vec<File>,
}

/// A file that came with a call. What is in it is not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct File {
    /// Name of the parameter.
    pub field: String,
    /// Name of the file; may be empty.
    pub name: String,
    /// Bytes in it.
    pub len: usize,
}

impl Params {
    /// The value of a parameter; names are case-sensitive. The first one, if there are several.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// The value of a parameter as an integer; `None` if there is none or it is no integer.
    #[must_use]
    pub fn integer(&self, name: &str) -> Option<i64> {
        self.get(name)?.parse().ok()
    }

    /// All names and values, duplicates included.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The files that came with the call.
    #[must_use]
    pub fn files(&self) -> &[File] {
        &self.files
    }

    /// Bytes of all names and values.
    pub(crate) fn len(&self) -> usize {
        self.pairs
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum()
    }

    /// Reads `application/x-www-form-urlencoded` text or the query of a URL.
    pub(crate) fn add_urlencoded(&mut self, text: &[u8]) {
        for pair in text.split(|byte| *byte == b'&') {
            if pair.is_empty() {
                continue;
            }
            let (name, value) = match pair.iter().position(|byte| *byte == b'=') {
                Some(at) => (&pair[..at], &pair[at + 1..]),
                None => (pair, &pair[pair.len()..]),
            };
            self.pairs
                .push((percent_decode(name, true), percent_decode(value, true)));
        }
    }

    /// Reads a JSON object. A fault is no error: the fields before it are kept, the rest counts as
    /// absent. Anything but an object gives nothing.
    pub(crate) fn add_json(&mut self, text: &[u8]) {
        let _fault = self.read_json(text);
    }

    /// `None` at the first fault.
    fn read_json(&mut self, text: &[u8]) -> Option<()> {
        let mut rest = skip_space(text).strip_prefix(b"{")?;
        if skip_space(rest).starts_with(b"}") {
            return Some(());
        }
        loop {
            let name: String = next_json(&mut rest)?;
            rest = skip_space(rest).strip_prefix(b":")?;
            let raw: &RawValue = next_json(&mut rest)?;
            let value = if raw.get().starts_with('"') {
                serde_json::from_str(raw.get()).ok()?
            } else {
                raw.get().to_owned()
            };
            self.pairs.push((name, value));
            rest = skip_space(rest);
            if rest.starts_with(b"}") {
                return Some(());
            }
            rest = rest.strip_prefix(b",")?;
        }
    }

    /// Reads a `multipart/form-data` body.
    ///
    /// # Errors
    ///
    /// The HTTP status: 413 for too many files, 400 for a body without its boundary or with a part
    /// that has no name.
    pub(crate) fn add_multipart(&mut self, body: &[u8], boundary: &str) -> Result<(), u16> {
        let delimiter = format!("--{boundary}");
        let mut rest = match find(body, delimiter.as_bytes()) {
            Some(at) => &body[at + delimiter.len()..],
            None => return Err(400),
        };
        let between = format!("\r\n{delimiter}");
        while !rest.starts_with(b"--") {
            rest = rest.strip_prefix(b"\r\n").ok_or(400_u16)?;
            let head_end = find(rest, b"\r\n\r\n").ok_or(400_u16)?;
            let head = &rest[..head_end];
            let content = &rest[head_end + 4..];
            let end = find(content, between.as_bytes()).ok_or(400_u16)?;
            let (content, after) = content.split_at(end);
            rest = &after[between.len()..];

            let disposition = disposition(head).ok_or(400_u16)?;
            let field = attribute(&disposition, "name").ok_or(400_u16)?;
            match attribute(&disposition, "filename") {
                Some(name) => {
                    self.add_file(field, name, content.len())?;
                }
                None => self
                    .pairs
                    .push((field, String::from_utf8_lossy(content).into_owned())),
            }
        }
        Ok(())
    }

    /// Notes a file; 413 if it is one too many.
    pub(crate) fn add_file(&mut self, field: String, name: String, len: usize) -> Result<(), u16> {
        if self.files.len() == MAX_FILES {
            return Err(413);
        }
        self.files.push(File { field, name, len });
        Ok(())
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Params {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        Self {
            pairs: pairs
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
            files: Vec::new(),
        }
    }
}

/// Reads an integer as the server does: a leading `-`, then digits, and the rest is ignored. Never
/// an error, and values beyond 32 bits wrap. No digits are 0.
///
/// Source: `to_integer` of tdlib/td (tdutils/td/utils/misc.h).
pub(crate) fn lenient_i32(text: &str) -> i32 {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let mut value = 0_u32;
    for digit in digits.bytes().take_while(u8::is_ascii_digit) {
        value = value.wrapping_mul(10).wrapping_add(u32::from(digit - b'0'));
    }
    let value = value.cast_signed();
    if negative {
        value.wrapping_neg()
    } else {
        value
    }
}

/// Whether a parameter of truth value is true: `true`, `yes` or `1` in any case.
pub(crate) fn lenient_bool(text: &str) -> bool {
    ["true", "yes", "1"]
        .iter()
        .any(|word| text.eq_ignore_ascii_case(word))
}

/// Decodes `%XX`, and `+` as a space if asked to. What is no valid escape stays as it is.
pub(crate) fn percent_decode(text: &[u8], plus: bool) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let hex = |offset: usize| {
            let digit = char::from(*text.get(at + offset)?).to_digit(16)?;
            u8::try_from(digit).ok()
        };
        match text[at] {
            b'%' => {
                if let (Some(high), Some(low)) = (hex(1), hex(2)) {
                    decoded.push(high * 16 + low);
                    at += 2;
                } else {
                    decoded.push(b'%');
                }
            }
            b'+' if plus => decoded.push(b' '),
            byte => decoded.push(byte),
        }
        at += 1;
    }
    String::from_utf8(decoded)
        .unwrap_or_else(|fault| String::from_utf8_lossy(fault.as_bytes()).into_owned())
}

/// Where `needle` begins in `hay`.
pub(crate) fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let mut from = 0;
    while let Some(at) = hay.get(from..)?.iter().position(|byte| *byte == first) {
        if hay[from + at..].starts_with(needle) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

fn skip_space(text: &[u8]) -> &[u8] {
    text.trim_ascii_start()
}

/// Takes one JSON value off the front.
fn next_json<'a, T: serde::Deserialize<'a>>(rest: &mut &'a [u8]) -> Option<T> {
    let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<T>();
    let value = values.next()?.ok()?;
    *rest = &rest[values.byte_offset()..];
    Some(value)
}

/// The value of the `Content-Disposition` header of a part.
fn disposition(head: &[u8]) -> Option<String> {
    let head = String::from_utf8_lossy(head);
    head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim()
            .eq_ignore_ascii_case("content-disposition")
            .then(|| value.trim().to_owned())
    })
}

/// The value of `name="…"` or `name=…` among the attributes of a header.
pub(crate) fn attribute(header: &str, name: &str) -> Option<String> {
    let mut rest = header;
    // Quoted values may hold semicolons, so the attributes are walked one by one.
    while let Some(at) = rest.find(';') {
        rest = rest[at + 1..].trim_start();
        let (key, value) = rest.split_once('=')?;
        let value = if let Some(quoted) = value.strip_prefix('"') {
            let end = quoted.find('"')?;
            rest = &quoted[end + 1..];
            &quoted[..end]
        } else {
            let end = value.find(';').unwrap_or(value.len());
            rest = &value[end..];
            value[..end].trim_end()
        };
        if key.trim().eq_ignore_ascii_case(name) {
            return Some(value.to_owned());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(params: &Params) -> Vec<(&str, &str)> {
        params.iter().collect()
    }

    #[test]
    fn integers_are_read_leniently_and_wrap() {
        for (text, value) in [
            ("30", 30),
            ("30.9", 30),
            ("abc", 0),
            ("+5", 0),
            ("null", 0),
            ("true", 0),
            ("", 0),
            ("-", 0),
            ("-7x", -7),
            (" 7", 0),
            ("2147483647", i32::MAX),
            ("2147483648", i32::MIN),
            ("3000000000", 3_000_000_000_u32.cast_signed()),
            ("-2147483648", i32::MIN),
            ("4294967297", 1),
        ] {
            assert_eq!(lenient_i32(text), value, "{text:?}");
        }
    }

    #[test]
    fn truth_is_true_yes_or_1() {
        for text in ["true", "True", "YES", "1"] {
            assert!(lenient_bool(text), "{text}");
        }
        for text in ["", "false", "0", "on", "2", "true "] {
            assert!(!lenient_bool(text), "{text}");
        }
    }

    #[test]
    fn urlencoded_text_is_decoded_and_the_first_of_a_name_wins() {
        let mut params = Params::default();
        params.add_urlencoded(b"text=a+b%26c%zz&empty=&flag&text=second&n=%D0%BF");
        assert_eq!(params.get("text"), Some("a b&c%zz"));
        assert_eq!(params.get("empty"), Some(""));
        assert_eq!(params.get("flag"), Some(""));
        assert_eq!(params.get("n"), Some("\u{43f}"));
        assert_eq!(params.get("Text"), None, "names are case-sensitive");
        assert_eq!(params.iter().count(), 5);
    }

    #[test]
    fn json_strings_are_unescaped_and_other_values_stay_raw() {
        let mut params = Params::default();
        params.add_json(
            br#" {"timeout":30,"a":"30","list":["x", 1],"s":"[\"m\"]","u":"\u0436","n":null,"o":{"k":[1]}} "#,
        );
        assert_eq!(
            pairs(&params),
            [
                ("timeout", "30"),
                ("a", "30"),
                ("list", r#"["x", 1]"#),
                ("s", r#"["m"]"#),
                ("u", "\u{436}"),
                ("n", "null"),
                ("o", r#"{"k":[1]}"#),
            ]
        );
    }

    #[test]
    fn malformed_json_keeps_the_fields_before_the_fault() {
        for (text, kept) in [
            (&br#"{"a":1,"b":2,"c":}"#[..], 2),
            (br#"{"a":1,"b":tru"#, 1),
            (br#"{"a":1 "b":2}"#, 1),
            (br#"{"a":1,}"#, 1),
            (br#"{"a":1"#, 1),
            (br#"{a:1}"#, 0),
            (br#"["a",1]"#, 0),
            (b"", 0),
            (b"{}", 0),
        ] {
            let mut params = Params::default();
            params.add_json(text);
            assert_eq!(
                params.iter().count(),
                kept,
                "{}",
                String::from_utf8_lossy(text)
            );
        }
    }

    #[test]
    fn multipart_parts_are_parameters_or_files() {
        let body = concat!(
            "preamble\r\n--B\r\nContent-Disposition: form-data; name=\"chat_id\"\r\n\r\n7\r\n",
            "--B\r\ncontent-disposition: form-data; name=\"document\"; filename=\"a;b.txt\"\r\n",
            "Content-Type: text/plain\r\n\r\nline\r\n--Bnot\r\n\r\n--B--\r\n",
        );
        // The delimiter inside the file is followed by more text, which real parsers reject or take
        // literally; here it is a fault, as it can only be a wrong boundary.
        let mut params = Params::default();
        assert_eq!(params.add_multipart(body.as_bytes(), "B"), Err(400));

        let body = body.replace("--Bnot", "--not");
        let mut params = Params::default();
        params.add_multipart(body.as_bytes(), "B").unwrap();
        assert_eq!(params.get("chat_id"), Some("7"));
        assert_eq!(
            params.files(),
            [File {
                field: "document".into(),
                name: "a;b.txt".into(),
                len: "line\r\n--not\r\n".len(),
            }]
        );
    }

    #[test]
    fn more_than_fifty_files_are_too_many() {
        let part = "--B\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x\"\r\n\r\n1\r\n";
        let mut params = Params::default();
        let body = format!("{}--B--", part.repeat(50));
        assert_eq!(params.add_multipart(body.as_bytes(), "B"), Ok(()));
        let mut params = Params::default();
        let body = format!("{}--B--", part.repeat(51));
        assert_eq!(params.add_multipart(body.as_bytes(), "B"), Err(413));
    }
}
