//! Where the few things are that an update is looked at for: [`Outline`].

use std::sync::OnceLock;

use crate::string::unescape;

/// What is decoded of an update, as far as no memory is needed for it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outline {
    pub(crate) date: Option<u32>,
    /// Of the message, or of the one that the button belongs to.
    pub(crate) message_id: Option<u32>,
    pub(crate) query_id: Option<Span>,
    pub(crate) text: Option<Span>,
    /// Whether that is the text of a message.
    pub(crate) is_text: bool,
}

/// Where a string is in the JSON of an update, without its quotes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) start: u32,
    pub(crate) end: u32,
    pub(crate) is_escaped: bool,
}

/// A string of an update, which is decoded when it is asked for if there are escapes in it.
#[derive(Clone, Default)]
pub(crate) struct Text {
    span: Option<Span>,
    decoded: OnceLock<String>,
}

impl Text {
    /// The string in the JSON that it was found in, which was checked.
    pub(crate) fn get<'a>(&'a self, raw: &'a [u8]) -> Option<&'a str> {
        match self.span {
            Some(span) => {
                let text = &raw[span.start as usize..span.end as usize];
                let text = str::from_utf8(text).expect(CHECKED);
                if !span.is_escaped {
                    return Some(text);
                }
                Some(self.decoded.get_or_init(|| unescape(text).expect(CHECKED)))
            }
            None => self.decoded.get().map(String::as_str),
        }
    }
}

impl From<Option<Span>> for Text {
    fn from(span: Option<Span>) -> Self {
        Self {
            span,
            decoded: OnceLock::new(),
        }
    }
}

impl From<Option<String>> for Text {
    fn from(text: Option<String>) -> Self {
        Self {
            span: None,
            decoded: text.map_or_else(OnceLock::new, OnceLock::from),
        }
    }
}

const CHECKED: &str = "it was checked when the update was split";
