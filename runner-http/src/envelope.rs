//! What an answer is: a result, an error of the Bot API, or not an answer of the Bot API at all.

use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    ApiError, HttpResponse, Token,
    error::{Body, ErrorParameters, json_fault},
};

/// Takes the result out of an answer; `None` if it has none, or `null`.
pub(crate) fn open<'a, R>(response: &'a HttpResponse, token: &Token) -> Result<Option<R>, ApiError>
where
    R: Deserialize<'a>,
{
    let is_success = (200..300).contains(&response.status);
    match serde_json::from_slice::<Envelope<'a, R>>(&response.body) {
        Ok(envelope) if envelope.ok && is_success => Ok(envelope.result),
        Ok(envelope) if !envelope.ok => Err(refusal(envelope, response, token)),
        Err(error) if is_success && looks_like_json(&response.body) => Err(ApiError::Decode {
            body: Body::bounded(&response.body),
            source: json_fault(&error, Some(token)),
        }),
        _ => Err(ApiError::Status {
            status: response.status,
            excerpt: excerpt(&response.body, token),
            retry_after: header_delay(response),
            // Only the bot knows.
            has_worked: false,
        }),
    }
}

/// The delay that a 429 asks for, if this is one; the inner `None` if it does not say.
pub(crate) fn too_many_requests(
    response: &HttpResponse,
    token: &Token,
) -> Option<Option<Duration>> {
    // The code in the body rules, but an answer with 200 is read only once, by its caller.
    if response.status < 300 {
        return None;
    }
    let error = open::<&RawValue>(response, token).err()?;
    (error.code() == Some(429)).then(|| error.retry_after())
}

/// The outermost object of every answer.
///
/// Source: <https://core.telegram.org/bots/api#making-requests>.
#[derive(Deserialize)]
#[serde(bound(deserialize = "R: Deserialize<'de>"))]
struct Envelope<'a, R> {
    ok: bool,
    result: Option<R>,
    // Both only inform, so an odd one must not hide the other.
    #[serde(borrow)]
    error_code: Option<&'a RawValue>,
    #[serde(borrow)]
    description: Option<&'a RawValue>,
    #[serde(borrow)]
    parameters: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Parameters<'a> {
    #[serde(borrow)]
    retry_after: Option<&'a RawValue>,
    #[serde(borrow)]
    migrate_to_chat_id: Option<&'a RawValue>,
}

fn refusal<R>(envelope: Envelope<'_, R>, response: &HttpResponse, token: &Token) -> ApiError {
    let code = envelope
        .error_code
        .and_then(|code| code.get().parse().ok())
        .unwrap_or(response.status);
    let description: String = envelope
        .description
        .and_then(|text| serde_json::from_str(text.get()).ok())
        .unwrap_or_default();
    let given: Option<Parameters<'_>> = envelope
        .parameters
        .and_then(|parameters| serde_json::from_str(parameters.get()).ok());
    let mut parameters = ErrorParameters::default();
    if let Some(given) = given {
        parameters.retry_after = given.retry_after.and_then(|delay| seconds(delay.get()));
        parameters.migrate_to_chat_id = given
            .migrate_to_chat_id
            .and_then(|id| id.get().parse().ok());
    }
    if code == 429 && parameters.retry_after.is_none() {
        parameters.retry_after = header_delay(response);
    }
    ApiError::Api {
        code,
        description: one_line(&token.redact(description), MAX_DESCRIPTION),
        parameters,
    }
}

fn header_delay(response: &HttpResponse) -> Option<Duration> {
    // The other form, a date, needs a clock that is set; the Bot API never sends it.
    seconds(response.retry_after.as_deref()?.trim())
}

/// Whole seconds; a fraction is rounded up.
fn seconds(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let seconds: f64 = text.parse().ok()?;
    Duration::try_from_secs_f64(seconds.ceil()).ok()
}

fn looks_like_json(body: &[u8]) -> bool {
    body.trim_ascii_start().first() == Some(&b'{')
}

/// The beginning of a body, printable and in one line.
fn excerpt(body: &[u8], token: &Token) -> String {
    const MAX: usize = 160;
    const READ: usize = 8 * MAX;
    let text = String::from_utf8_lossy(&body[..body.len().min(READ)]);
    let mut text = token.redact(text.into_owned());
    if body.len() > READ {
        // What is left of a secret that the cut went through.
        let rest = text.len().saturating_sub(token.expose().len());
        text.truncate(text.floor_char_boundary(rest));
    }
    one_line(&text, MAX)
}

/// At most `max` characters, without line breaks and control characters: fit for a log.
fn one_line(text: &str, max: usize) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    let mut line = String::new();
    for word in words.filter(|word| !word.is_empty()) {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if let Some((end, _)) = line.char_indices().nth(max) {
        line.truncate(end);
        line.push('…');
    }
    line
}

/// Longer than any that the Bot API sends.
const MAX_DESCRIPTION: usize = 500;
