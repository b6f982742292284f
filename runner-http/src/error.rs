//! Why a call failed: [`ApiError`].

use std::{error::Error, fmt, time::Duration};

use bytes::Bytes;
use runner_core::BoxError;

use crate::{HttpError, LimitError, Token};

/// Why a call of a method failed.
///
/// None of the texts contains the token, even if the server quoted it.
#[derive(Debug)]
#[non_exhaustive]
pub enum ApiError {
    /// The Bot API refused the call.
    #[non_exhaustive]
    Api {
        /// The error code; the HTTP status is the same.
        code: u16,
        /// What the server said.
        description: String,
        /// What the server proposes.
        parameters: ErrorParameters,
    },
    /// There was no complete answer.
    ///
    /// Whether the call had its effect is not known: a message may have been sent.
    Http(HttpError),
    /// The answer was not one of the Bot API, but of a proxy in front of it or of another server.
    #[non_exhaustive]
    Status {
        /// The HTTP status.
        status: u16,
        /// The beginning of the body, in one line.
        excerpt: String,
        /// How long to wait, if the head of the answer says so.
        retry_after: Option<Duration>,
        /// Whether the Bot API has answered a call of this bot before. Then the base URL is right, and
        /// what came in between will go; a poll is repeated instead of ending the run.
        has_worked: bool,
    },
    /// The answer was one of the Bot API, but not of the shape that was expected.
    #[non_exhaustive]
    Decode {
        /// What was received, cut off at 64 KiB.
        body: Body,
        /// Where it differs.
        source: BoxError,
    },
    /// The answer was beyond one of the [`Limits`](crate::Limits), and nothing of it was used.
    ///
    /// Whether a call had its effect is not known. What the updates of a poll are concerned,
    /// [`Limits`](crate::Limits) tells what becomes of them.
    Limit(LimitError),
    /// Not even the position of an update can be told, so it can be neither handled nor passed by.
    ///
    /// Only possible if it was the only one in the answer to a first poll. Passes as soon as
    /// another update arrives, or the pending updates are dropped.
    #[non_exhaustive]
    Position {
        /// The update.
        body: Body,
    },
    /// The parameters are not a JSON object, or cannot be written as one.
    Encode(BoxError),
    /// No method can have this name.
    #[non_exhaustive]
    Method {
        /// The beginning of the name.
        name: String,
    },
}

impl ApiError {
    /// The error code, or the HTTP status of an answer that was not one of the Bot API.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Api { code, .. } => Some(*code),
            Self::Status { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// How long to wait before the next try, if the server said so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Api { parameters, .. } => parameters.retry_after,
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether the call may have had its effect in spite of the error. If not, it is safe to repeat it.
    ///
    /// It had none if it was refused (4xx, a 429 among them) or never sent. It may have had one if the
    /// answer was lost or cannot be read, or if the server failed (5xx).
    #[must_use]
    pub fn may_have_had_an_effect(&self) -> bool {
        match self {
            Self::Encode(_) | Self::Method { .. } => false,
            Self::Http(error) => error.may_have_been_sent(),
            Self::Api { code, .. } | Self::Status { status: code, .. } => {
                !matches!(code, 300..500) || *code == 408
            }
            _ => true,
        }
    }

    /// The id of the supergroup that the group became, if that is why the call failed.
    #[must_use]
    pub fn migrate_to_chat_id(&self) -> Option<i64> {
        match self {
            Self::Api { parameters, .. } => parameters.migrate_to_chat_id,
            _ => None,
        }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Api {
                code, description, ..
            } => {
                write!(f, "the Bot API answered {code}")?;
                if !description.is_empty() {
                    write!(f, " ({description})")?;
                }
                if let Some(chat) = self.migrate_to_chat_id() {
                    return write!(f, "; use the chat id {chat} from now on");
                }
                match advice(*code, description) {
                    Some(advice) => write!(f, "; {advice}"),
                    None => Ok(()),
                }
            }
            Self::Status {
                status,
                excerpt,
                has_worked,
                ..
            } => {
                write!(
                    f,
                    "the answer was not one of the Bot API, but HTTP {status}"
                )?;
                match excerpt.as_str() {
                    "" => f.write_str(" with nothing in it")?,
                    excerpt => write!(f, " ({excerpt})")?,
                }
                match status {
                    429 | 500.. => Ok(()),
                    _ if *has_worked => f.write_str(
                        "; the Bot API has answered before: check what is between here and the server",
                    ),
                    300..400 => f.write_str(
                        "; redirects are not followed, because the URL contains the token: set the base URL to where the server is",
                    ),
                    400..500 => {
                        f.write_str("; check the base URL, and what is between here and the server")
                    }
                    _ => Ok(()),
                }
            }
            Self::Http(_) => f.write_str("the call was not answered"),
            Self::Limit(limit) => limit.fmt(f),
            Self::Decode { body, .. } => write!(
                f,
                "the answer of the Bot API has an unexpected shape ({} bytes)",
                body.len()
            ),
            Self::Position { body } => write!(
                f,
                "an update of {} bytes has no readable update_id and no neighbour, so it cannot be \
                 passed by; drop the pending updates, or wait for the next one",
                body.len()
            ),
            Self::Encode(_) => f.write_str("the parameters must be a JSON object"),
            Self::Method { name } => write!(
                f,
                "no method is called {name:?}: a name consists of letters, digits and _"
            ),
        }
    }
}

impl Error for ApiError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Http(source) => Some(source),
            Self::Decode { source, .. } | Self::Encode(source) => Some(&**source),
            _ => None,
        }
    }
}

impl From<HttpError> for ApiError {
    fn from(error: HttpError) -> Self {
        Self::Http(error)
    }
}

/// What somebody who reads the error should do.
fn advice(code: u16, description: &str) -> Option<&'static str> {
    Some(match code {
        400 if is_logged_out(description) => {
            "the bot has been logged out of this server: wait 10 minutes, or use the server it was moved to"
        }
        401 => "the token is wrong or was revoked: get the current one from @BotFather",
        404 => "the base URL, the token or the name of the method is wrong",
        409 if is_webhook(description) => {
            "delete the webhook first, or let the runner do it: it receives the updates instead"
        }
        409 => "another instance polls with the same token: only one can",
        421 => "this server does not serve this bot: check its --filter, and the base URL",
        _ => return None,
    })
}

/// `logOut` was called; polls cannot succeed any more.
pub(crate) fn is_logged_out(description: &str) -> bool {
    description.eq_ignore_ascii_case("logged out")
}

/// Tells the kinds of 409 apart, which have no code of their own.
pub(crate) fn is_webhook(description: &str) -> bool {
    description.contains("setWebhook") || description.contains("webhook is active")
}

/// What is wrong with a JSON text, without the error that may quote all of it.
pub(crate) fn json_fault(error: &serde_json::Error, token: Option<&Token>) -> BoxError {
    const MAX: usize = 200;
    let mut text = error.to_string();
    if let Some(token) = token {
        text = token.redact(text);
    }
    if text.len() > MAX {
        // The place is at the end.
        let end = text.floor_char_boundary(MAX / 2);
        let start = text.ceil_char_boundary(text.len() - MAX / 2);
        text = format!("{}…{}", &text[..end], &text[start..]);
    }
    text.into()
}

/// What the server proposes after a failure.
///
/// Source: <https://core.telegram.org/bots/api#responseparameters>.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ErrorParameters {
    /// How long to wait before the next try; for a 429 also from the head of the answer.
    pub retry_after: Option<Duration>,
    /// The group has become a supergroup with this id.
    pub migrate_to_chat_id: Option<i64>,
}

/// Bytes that were received; `Debug` shows only how many, for they may be private.
#[derive(Clone, PartialEq, Eq)]
pub struct Body(Bytes);

impl Body {
    /// Keeps at most the first 64 KiB.
    pub(crate) fn bounded(bytes: &Bytes) -> Self {
        const MAX: usize = 64 << 10;
        if bytes.len() <= MAX {
            Self(bytes.clone())
        } else {
            // A copy, so that the rest is not kept alive.
            Self(Bytes::copy_from_slice(&bytes[..MAX]))
        }
    }
}

impl std::ops::Deref for Body {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}
