//! The methods of the Bot API beside getUpdates: [`call`] carries one out.
//!
//! A method that nobody wrote here is recorded and answered with `true`, unless the server was told
//! to know only its own.

use std::{fmt::Write, time::Duration};

use serde_json::json;

use crate::{
    http::Reply,
    params::{Params, lenient_bool},
    poll::CONFLICT_SET_WEBHOOK,
    shared::{Config, State},
    wire::{described, failure, quote, success, too_many_requests},
};

/// How long a bot that has logged out is refused.
///
/// Source: `finish_closing` of tdlib/telegram-bot-api, Client.cpp.
const LOGGED_OUT: Duration = Duration::from_secs(1800);

/// A result, and whether a getUpdates that waits must look again.
pub(crate) struct Done {
    pub(crate) reply: Reply,
    pub(crate) wakes: bool,
    /// The id of the message that was sent.
    pub(crate) message_id: Option<i64>,
}

/// Carries out a method. Its name is compared in lower case.
pub(crate) fn call(config: &Config, state: &mut State, method: &str, params: &Params) -> Done {
    let method = method.to_ascii_lowercase();
    let mut wakes = false;
    let mut message_id = None;
    let reply = if let Some(result) = state.results.get(&method) {
        success(result)
    } else {
        match method.as_str() {
            "getme" => success(&me(config)),
            "sendmessage" => {
                let reply = send_message(config, state, params);
                message_id = (reply.status == 200).then_some(state.last_message_id);
                reply
            }
            "getwebhookinfo" => success(&webhook_info(state)),
            "setwebhook" | "deletewebhook" => {
                wakes = true;
                let url = params.get("url").unwrap_or_default();
                let url = if method == "setwebhook" { url } else { "" };
                set_webhook(state, url, params)
            }
            "close" | "logout" => {
                wakes = true;
                let now = state.now().instant;
                state.polling.release_wait(now);
                if method == "logout" {
                    state.polling.queue.clear();
                    state.logged_out_until = Some(now + LOGGED_OUT);
                }
                success("true")
            }
            _ if config.accepts_any => success("true"),
            _ => failure(404, "Not Found: method not found"),
        }
    };
    Done {
        reply,
        wakes,
        message_id,
    }
}

fn me(config: &Config) -> String {
    format!(
        r#"{{"id":{},"is_bot":true,"first_name":"Local","username":"{}","can_join_groups":true,"can_read_all_group_messages":false,"supports_inline_queries":true,"can_connect_to_business":false,"has_main_web_app":false}}"#,
        config.bot_id, config.username
    )
}

fn send_message(config: &Config, state: &mut State, params: &Params) -> Reply {
    let chat_id = params.get("chat_id").unwrap_or_default();
    if chat_id.is_empty() {
        return failure(400, "Bad Request: chat_id is empty");
    }
    let mut chat = String::new();
    match chat_id.parse::<i64>() {
        Ok(id) => write_chat(&mut chat, id),
        Err(_) if chat_id.len() > 1 && chat_id.starts_with('@') => {
            chat.push_str(r#"{"id":-1001000000001,"title":"Channel","username":"#);
            quote(&chat_id[1..], &mut chat);
            chat.push_str(r#","type":"channel"}"#);
        }
        Err(_) => return failure(400, "Bad Request: chat not found"),
    }
    let text = params.get("text").unwrap_or_default();
    if text.trim().is_empty() {
        return failure(400, "Bad Request: message text is empty");
    }
    // The documented limit is counted in characters after the entities were taken out.
    if text.chars().count() > 4096 {
        return failure(400, "Bad Request: message is too long");
    }
    let id = state.next_message_id();
    success(&own_message(config, id, &chat, state.now().unix, text))
}

/// A message of the bot; `chat` is JSON.
pub(crate) fn own_message(config: &Config, id: i64, chat: &str, date: i64, text: &str) -> String {
    let mut message = format!(
        r#"{{"message_id":{id},"from":{{"id":{},"is_bot":true,"first_name":"Local","username":"{}"}},"chat":{chat},"date":{date},"text":"#,
        config.bot_id, config.username,
    );
    quote(text, &mut message);
    message.push('}');
    message
}

/// Appends a chat: private if its id is that of a user.
pub(crate) fn write_chat(json: &mut String, id: i64) {
    let written = if id > 0 {
        write!(
            json,
            r#"{{"id":{id},"first_name":"User {id}","type":"private"}}"#
        )
    } else if id > -1_000_000_000_000 {
        write!(json, r#"{{"id":{id},"title":"Group {id}","type":"group"}}"#)
    } else {
        write!(
            json,
            r#"{{"id":{id},"title":"Group {id}","type":"supergroup"}}"#
        )
    };
    written.expect("memory takes all");
}

fn webhook_info(state: &State) -> String {
    let mut info = json!({
        "url": state.polling.webhook,
        "has_custom_certificate": false,
        "pending_update_count": state.polling.queue.len(),
    });
    if let Some(names) = state.polling.allowed.names() {
        info["allowed_updates"] = json!(names);
    }
    info.to_string()
}

/// Sets or, with an empty URL, deletes the webhook. No update is ever sent to it.
fn set_webhook(state: &mut State, url: &str, params: &Params) -> Reply {
    let now = state.now().instant;
    if !url.is_empty() {
        // At most once a second (`on_webhook_closed`).
        let is_early = state
            .webhook_set_at
            .is_some_and(|at| now.saturating_duration_since(at) < Duration::from_secs(1));
        if is_early {
            return too_many_requests(1);
        }
        if !url.starts_with("https://") {
            return failure(
                400,
                "Bad Request: bad webhook: An HTTPS URL must be provided for webhook",
            );
        }
    }
    state.polling.allowed.update(params.get("allowed_updates"));
    if params.get("drop_pending_updates").is_some_and(lenient_bool) {
        state.polling.queue.clear();
    }
    if url.is_empty() {
        if state.polling.webhook.is_empty() {
            return described("Webhook is already deleted");
        }
        state.polling.webhook.clear();
        return described("Webhook was deleted");
    }
    state.webhook_set_at = Some(now);
    state.polling.end_wait(CONFLICT_SET_WEBHOOK, now);
    if state.polling.webhook == url {
        return described("Webhook is already set");
    }
    url.clone_into(&mut state.polling.webhook);
    described("Webhook was set")
}
