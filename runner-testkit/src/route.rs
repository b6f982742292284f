//! From the path of a request to the method that it asks for: [`route`], which refuses what the real
//! server refuses, in its order.
//!
//! Source: `handle` of tdlib/telegram-bot-api, HttpConnection.cpp, and `send` of ClientManager.cpp.

use std::time::Instant;

use crate::{
    http::{Reply, Request},
    params::percent_decode,
    shared::Shared,
    wire::{failure, too_many_requests},
};

/// The method that a request asks for, as it is spelled, and whether it came by the path of the test
/// environment.
pub(crate) fn route(shared: &Shared, request: &Request) -> Result<(String, bool), Reply> {
    if request.is_absolute {
        return Err(failure(
            404,
            "Not Found: absolute URI is specified in the Request-Line",
        ));
    }
    let path = percent_decode(request.path.as_bytes(), false);
    let (token, method) = path
        .strip_prefix("/bot")
        .and_then(|rest| rest.split_once('/'))
        .ok_or_else(|| failure(404, "Not Found"))?;
    let (method, is_test) = match method.strip_prefix("test/") {
        Some(method) => (method, true),
        None => (method, false),
    };
    let state = shared.lock();
    if state.is_closing {
        return Err(too_many_requests(5));
    }
    check_token(token)?;
    if token != shared.config.token || state.is_revoked {
        return Err(failure(401, "Unauthorized"));
    }
    if state
        .logged_out_until
        .is_some_and(|until| Instant::now() < until)
    {
        return Err(failure(400, "Logged out"));
    }
    let method = if method.is_empty() {
        request.params.get("method").unwrap_or_default()
    } else {
        method
    };
    Ok((method.to_owned(), is_test))
}

/// The id of the bot in a token, or why it cannot be one.
pub(crate) fn check_token(token: &str) -> Result<i64, Reply> {
    let invalid = || failure(401, "Unauthorized: invalid token specified");
    if token.starts_with('0') || token.len() > 80 {
        return Err(invalid());
    }
    let (bot_id, secret) = token.split_once(':').ok_or_else(invalid)?;
    let bot_id: i64 = bot_id
        .parse()
        .map_err(|_| failure(421, "Misdirected Request: unallowed token specified"))?;
    if bot_id <= 0 || bot_id >= 1 << 54 {
        return Err(invalid());
    }
    let is_base64url = secret
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if secret.len() < 24 || !is_base64url {
        return Err(failure(401, "Unauthorized"));
    }
    Ok(bot_id)
}
