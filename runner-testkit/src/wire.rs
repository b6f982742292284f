//! JSON as the Bot API server writes it: ASCII only, everything else as `\uXXXX`.
//!
//! Source: `JsonBuilder` of tdlib/td, which escapes non-ASCII as lower-case UTF-16 and leaves `/`.

use std::{borrow::Cow, fmt::Write};

use crate::http::Reply;

/// Appends `text` as a JSON string.
pub(crate) fn quote(text: &str, json: &mut String) {
    let quoted = serde_json::to_string(text).expect("any text is a JSON string");
    json.push_str(&ascii(&quoted));
}

/// JSON with everything that is not ASCII escaped, which can only be inside strings.
pub(crate) fn ascii(json: &str) -> Cow<'_, str> {
    if json.is_ascii() {
        return Cow::Borrowed(json);
    }
    let mut escaped = String::with_capacity(json.len() * 2);
    let mut units = [0; 2];
    for char in json.chars() {
        if char.is_ascii() {
            escaped.push(char);
        } else {
            for unit in char.encode_utf16(&mut units) {
                write!(escaped, "\\u{unit:04x}").expect("memory takes all");
            }
        }
    }
    Cow::Owned(escaped)
}

/// A success: `result` is JSON.
pub(crate) fn success(result: &str) -> Reply {
    Reply::json(200, format!(r#"{{"ok":true,"result":{result}}}"#))
}

/// A success that says what was done.
pub(crate) fn described(description: &str) -> Reply {
    Reply::json(
        200,
        format!(r#"{{"ok":true,"result":true,"description":"{description}"}}"#),
    )
}

/// A failure.
pub(crate) fn failure(status: u16, description: &str) -> Reply {
    let mut json = format!(r#"{{"ok":false,"error_code":{status},"description":"#);
    quote(description, &mut json);
    json.push('}');
    Reply::json(status, json)
}

/// A 429, with the seconds to wait in the text, the parameters and the header.
pub(crate) fn too_many_requests(retry_after: u32) -> Reply {
    let mut reply = Reply::json(
        429,
        format!(
            r#"{{"ok":false,"error_code":429,"description":"Too Many Requests: retry after {retry_after}","parameters":{{"retry_after":{retry_after}}}}}"#
        ),
    );
    reply.headers = format!("Retry-After: {retry_after}\r\n");
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_as_utf_16() {
        let mut json = String::new();
        quote("caf\u{e9} \u{1f600} a/b \"q\"\n", &mut json);
        assert_eq!(json, r#""caf\u00e9 \ud83d\ude00 a/b \"q\"\n""#);
    }
}
