//! What a failed poll means for the runner: from [`ApiError`] to [`SupplyError`].
//!
//! Decides by error code, or by HTTP status if the answer was not one of the Bot API; by text only
//! where codes cannot tell.

use std::time::Duration;

use runner_core::{Conflict, SupplyError};

use crate::{
    ApiError, HttpErrorKind,
    error::{is_logged_out, is_webhook},
};

impl From<ApiError> for SupplyError {
    fn from(error: ApiError) -> Self {
        match Class::of(&error) {
            Class::Transient => Self::transient(error),
            Class::RetryAfter(delay) => Self::retry_after(delay, error),
            Class::Conflict(kind) => Self::conflict(kind, error),
            Class::Fatal => Self::fatal(error),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Transient,
    RetryAfter(Duration),
    Conflict(Conflict),
    Fatal,
}

impl Class {
    fn of(error: &ApiError) -> Self {
        match error {
            ApiError::Api {
                code, description, ..
            } => match code {
                409 if is_webhook(description) => Self::Conflict(Conflict::Webhook),
                400 if is_logged_out(description) => Self::Fatal,
                code => Self::of_code(*code, error.retry_after()),
            },
            // A proxy, a portal or a firewall is in between, and not for long.
            ApiError::Status {
                status,
                has_worked: true,
                ..
            } if *status != 429 => Self::Transient,
            ApiError::Status { status, .. } => Self::of_code(*status, error.retry_after()),
            ApiError::Http(error) => match error.kind() {
                HttpErrorKind::InvalidUrl => Self::Fatal,
                _ => Self::Transient,
            },
            // A later answer may be a different one; a poll that stopped for good would not see it.
            ApiError::Decode { .. } | ApiError::Position { .. } | ApiError::Limit(_) => {
                Self::Transient
            }
            ApiError::Encode(_) | ApiError::Method { .. } => Self::Fatal,
        }
    }

    fn of_code(code: u16, retry_after: Option<Duration>) -> Self {
        match code {
            // The URL contains the token, so nobody may send it elsewhere by a header.
            300..400 => Self::Fatal,
            // From proxies only: it was slow, not wrong.
            408 | 425 => Self::Transient,
            409 => Self::Conflict(Conflict::Poller),
            429 => Self::RetryAfter(delay(retry_after)),
            400..=499 | 501 | 505 => Self::Fatal,
            _ => Self::Transient,
        }
    }
}

/// How long to wait after a 429.
pub(crate) fn delay(retry_after: Option<Duration>) -> Duration {
    retry_after
        .unwrap_or(DEFAULT_RETRY_AFTER)
        .clamp(MIN_RETRY_AFTER, MAX_RETRY_AFTER)
}

/// The one that the server itself names most often.
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(5);

/// The server rounds up to whole seconds, so a zero is a mistake and would make a busy loop.
const MIN_RETRY_AFTER: Duration = Duration::from_secs(1);

/// A poll that waited for longer because of one answer would be deaf; one that comes too early is
/// answered with the rest of the delay.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{HttpError, HttpResponse, LimitError, Token, envelope};

    fn class(status: u16, body: &str, retry_after: Option<&str>) -> Class {
        let token = Token::new("1:AAabcdefghijklmnopqrstuvwxyz").unwrap();
        let mut response = HttpResponse::new(status, body.to_owned());
        response.retry_after = retry_after.map(Into::into);
        Class::of(&envelope::open::<Vec<u8>>(&response, &token).unwrap_err())
    }

    fn refused(code: u16, description: &str) -> Class {
        let body = format!(r#"{{"ok":false,"error_code":{code},"description":"{description}"}}"#);
        class(code, &body, None)
    }

    #[test]
    fn every_answer_of_the_bot_api_has_its_class() {
        let poller = Class::Conflict(Conflict::Poller);
        let webhook = Class::Conflict(Conflict::Webhook);
        for (code, description, expected) in [
            (400, "Logged out", Class::Fatal),
            (400, "Bad Request: chat not found", Class::Fatal),
            (401, "Unauthorized", Class::Fatal),
            (401, "Unauthorized: invalid token specified", Class::Fatal),
            (403, "Forbidden: bot was blocked by the user", Class::Fatal),
            (404, "Not Found", Class::Fatal),
            (404, "Not Found: method not found", Class::Fatal),
            (
                409,
                "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running",
                poller,
            ),
            (
                409,
                "Conflict: terminated by other long poll or webhook",
                poller,
            ),
            (409, "", poller),
            (409, "Conflict: terminated by setWebhook request", webhook),
            (409, "Conflict: terminated by other setWebhook", webhook),
            (
                409,
                "Conflict: can't use getUpdates method while webhook is active; use deleteWebhook to delete the webhook first",
                webhook,
            ),
            // The text tells conflicts apart, and nothing else.
            (
                500,
                "Conflict: terminated by setWebhook request",
                Class::Transient,
            ),
            (400, "webhook is active", Class::Fatal),
            (413, "", Class::Fatal),
            (415, "", Class::Fatal),
            (
                421,
                "Misdirected Request: unallowed token specified",
                Class::Fatal,
            ),
            (431, "", Class::Fatal),
            (
                429,
                "Too Many Requests",
                Class::RetryAfter(Duration::from_secs(5)),
            ),
            (500, "Internal Server Error: restart", Class::Transient),
            (502, "Bad Gateway", Class::Transient),
            (503, "", Class::Transient),
            (504, "", Class::Transient),
            (501, "", Class::Fatal),
            (505, "", Class::Fatal),
        ] {
            assert_eq!(refused(code, description), expected, "{code} {description}");
        }
    }

    #[test]
    fn every_other_answer_has_its_class_by_status() {
        let html = "<html><head><title>502 Bad Gateway</title></head></html>";
        for (status, body, expected) in [
            (200, "", Class::Transient),
            (200, html, Class::Transient),
            (200, "{", Class::Transient),
            (200, "[]", Class::Transient),
            (200, r#"{"ok":true,"result":7}"#, Class::Transient),
            (204, "", Class::Transient),
            (301, "", Class::Fatal),
            (302, html, Class::Fatal),
            (308, r#"{"ok":true,"result":[]}"#, Class::Fatal),
            (400, html, Class::Fatal),
            (401, "", Class::Fatal),
            (404, html, Class::Fatal),
            (408, "", Class::Transient),
            (409, html, Class::Conflict(Conflict::Poller)),
            (413, "", Class::Fatal),
            (429, "", Class::RetryAfter(Duration::from_secs(5))),
            (500, "", Class::Transient),
            (501, "", Class::Fatal),
            (502, html, Class::Transient),
            (502, r#"{"ok":true,"result":[]}"#, Class::Transient),
            (503, r#"{"error":"maintenance"}"#, Class::Transient),
            (505, "", Class::Fatal),
            (520, "", Class::Transient),
        ] {
            assert_eq!(class(status, body, None), expected, "{status} {body}");
        }
    }

    #[test]
    fn a_delay_comes_from_the_body_then_from_the_head_then_from_us() {
        let body = |parameters: &str| {
            format!(r#"{{"ok":false,"error_code":429,"description":"x"{parameters}}}"#)
        };
        for (body, head, seconds) in [
            (body(r#","parameters":{"retry_after":7}"#), Some("9"), 7),
            (body(r#","parameters":{"retry_after":7.2}"#), None, 8),
            (body(r#","parameters":{"retry_after":0}"#), None, 1),
            (body(r#","parameters":{"retry_after":"x"}"#), Some("9"), 9),
            (body(r#","parameters":{"retry_after":-3}"#), None, 5),
            (body(r#","parameters":[]"#), Some(" 9 "), 9),
            (body(r#","parameters":{"retry_after":1e18}"#), None, 3600),
            (body(""), Some("18446744073709551615"), 3600),
            (body(""), Some("9"), 9),
            (body(""), Some("Wed, 21 Oct 2026 07:28:00 GMT"), 5),
            (body(""), None, 5),
            (String::new(), Some("9"), 9),
            ("<html>".into(), None, 5),
        ] {
            assert_eq!(
                class(429, &body, head),
                Class::RetryAfter(Duration::from_secs(seconds)),
                "{body} {head:?}"
            );
        }
    }

    #[test]
    fn the_error_code_rules_where_it_differs_from_the_status() {
        let body = r#"{"ok":false,"error_code":401,"description":"Unauthorized"}"#;
        assert_eq!(class(200, body, None), Class::Fatal);
        assert_eq!(class(502, body, None), Class::Fatal);
        assert_eq!(class(401, r#"{"ok":false}"#, None), Class::Fatal);
        assert_eq!(
            class(502, r#"{"ok":false,"error_code":"?"}"#, None),
            Class::Transient
        );
    }

    #[test]
    fn network_faults_pass_and_mistakes_do_not() {
        for kind in [
            HttpErrorKind::Connect,
            HttpErrorKind::Tls,
            HttpErrorKind::ConnectTimeout,
            HttpErrorKind::AnswerTimeout,
            HttpErrorKind::BodyTimeout,
            HttpErrorKind::Closed,
            HttpErrorKind::Malformed,
            HttpErrorKind::TooLarge,
            HttpErrorKind::Unavailable,
        ] {
            assert_eq!(Class::of(&HttpError::new(kind).into()), Class::Transient);
        }
        let invalid = HttpError::new(HttpErrorKind::InvalidUrl);
        assert_eq!(Class::of(&invalid.into()), Class::Fatal);
        let method = ApiError::Method { name: "?".into() };
        assert_eq!(Class::of(&method), Class::Fatal);
        assert_eq!(Class::of(&ApiError::Encode("x".into())), Class::Fatal);
        let limit = LimitError::Body { max: 1 };
        assert_eq!(Class::of(&ApiError::Limit(limit)), Class::Transient);
    }

    #[test]
    fn the_class_becomes_the_supply_error_and_keeps_the_cause() {
        use std::error::Error;

        let error = ApiError::Api {
            code: 401,
            description: "Unauthorized".into(),
            parameters: Default::default(),
        };
        let error = SupplyError::from(error);
        assert!(matches!(error, SupplyError::Fatal(_)));
        let cause = error.source().unwrap();
        assert!(cause.is::<ApiError>());
        assert!(cause.to_string().contains("@BotFather"), "{cause}");
    }
}
