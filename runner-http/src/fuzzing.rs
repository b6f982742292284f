//! What must hold for any bytes: the bodies of the fuzz targets in `fuzz`, and of the tests below.

use std::{error::Error, fmt, time::Duration};

use bytes::Bytes;
use runner_core::SupplyError;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::{
    ApiError, HttpResponse, Incoming, LimitError, Limits, Token, Update, UpdateKind, envelope,
    header::{FAKE_SENDERS, Scan},
    json_tree::Json,
    scan::Scanner,
    split::split,
    walk::walk,
};

/// An answer to a poll. Three bytes for how many updates, the offset and the levels that are
/// allowed, then the body, or what is in its array.
pub fn answer(data: &[u8]) {
    let [limit, offset, levels, body @ ..] = data else {
        return;
    };
    let limit = usize::from(*limit);
    let offset = match offset {
        0 => None,
        offset => Some(i64::from(*offset) << (offset % 48)),
    };
    let limits = Limits::default().max_depth((*levels).into());
    let limits = limits.max_updates(20);
    check_answer(body, offset, limit, &limits);
    let inside = [br#"{"ok":true,"result":["#, body, b"]}"].concat();
    check_answer(&inside, offset, limit, &limits);
}

/// One update: whatever is decoded can be looked at, and one pass tells what two passes tell.
pub fn update(data: &[u8]) {
    check_walk(data);
    let Ok(incoming) = Incoming::from_json(data.to_vec()) else {
        return;
    };
    look_at_incoming(&incoming);
    let Ok(update) = Update::from_incoming(&incoming) else {
        return;
    };
    look_at(&update);
    assert_eq!(update.id(), incoming.id());
    assert_eq!(update.raw().as_bytes(), data);
    // What was accepted is JSON.
    let _: IgnoredAny = update.json().expect("it was decoded");
    if let Some(Json::Object(fields)) = tree(data) {
        assert_eq!(header(&incoming), model(&fields));
    }
}

/// A refusal of a poll: the `Retry-After` header, a line end, the body.
pub fn retry_after(data: &[u8]) {
    let (head, body) = match data.iter().position(|byte| *byte == b'\n') {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &data[data.len()..]),
    };
    let mut response = HttpResponse::new(429, body.to_vec());
    response.retry_after = Some(String::from_utf8_lossy(head).into_owned());
    let Err(error) = envelope::open::<IgnoredAny>(&response, &token()) else {
        panic!("a 429 is no success");
    };
    let in_head = response.retry_after.as_deref().unwrap_or_default().trim();
    let in_body = match serde_json::from_slice::<Value>(body) {
        Ok(body) if body["ok"] == false => body["parameters"]["retry_after"].as_u64(),
        _ => None,
    };
    let is_answer = matches!(&error, ApiError::Api { .. });
    if let (Some(seconds), true) = (in_body, is_answer) {
        assert_eq!(error.retry_after(), Some(Duration::from_secs(seconds)));
    } else if let (Ok(seconds), false) = (in_head.parse(), is_answer) {
        assert_eq!(error.retry_after(), Some(Duration::from_secs(seconds)));
    }
    let text = format!("{error} {error:?}");
    assert!(!text.contains(SECRET), "{text}");
    if let SupplyError::RetryAfter { delay, .. } = SupplyError::from(error) {
        let bounds = Duration::from_secs(1)..=Duration::from_secs(3600);
        assert!(bounds.contains(&delay), "{delay:?}");
    }
}

/// What is read in one pass must be what the scan and `serde_json` make of it.
pub(crate) fn check_walk(data: &[u8]) {
    let Some(walked) = walk(data, false) else {
        return;
    };
    let mut values = serde_json::Deserializer::from_slice(data).into_iter::<IgnoredAny>();
    assert!(matches!(values.next(), Some(Ok(_))));
    assert_eq!(walked.end, values.byte_offset());
    let raw = Bytes::copy_from_slice(&data[..walked.end]);
    let mut scan = Scan::default();
    let levels = scan.read(&mut Scanner::new(&raw));
    assert_eq!(levels, Some(walked.levels));

    let one_pass = Incoming::walked(walked, raw.clone(), usize::MAX);
    let two_passes = Incoming::scanned(scan, raw, 0, usize::MAX);
    assert!(one_pass.outline().is_some() && two_passes.outline().is_none());
    assert!(!two_passes.is_id_assumed());
    assert_eq!(one_pass.id(), two_passes.id());
    assert_eq!(one_pass.header(), two_passes.header());
    let one_pass = Update::from_incoming(&one_pass).expect("it was checked");
    let two_passes = Update::from_incoming(&two_passes).expect("it was accepted before");
    assert_eq!(seen(&one_pass), seen(&two_passes));
    assert_eq!(one_pass.command(), two_passes.command());
}

/// Everything that an update shows.
fn seen(update: &Update) -> impl PartialEq + fmt::Debug {
    (
        (update.id(), update.kind(), update.raw()),
        (update.chat_id(), update.user_id(), update.message_id()),
        (update.text(), update.query_id(), update.date()),
    )
}

fn check_answer(body: &[u8], offset: Option<i64>, limit: usize, limits: &Limits) {
    let response = HttpResponse::new(200, body.to_vec());
    let outcome = split(&response, &token(), offset, limit, limits);
    if let Ok(updates) = &outcome {
        assert!(updates.len() <= limit.min(100));
        for incoming in updates {
            look_at_incoming(incoming);
            check_walk(incoming.raw());
            if let Ok(update) = Update::from_incoming(incoming) {
                look_at(&update);
            }
        }
    }
    // What serde_json accepts must be split as it says; it accepts less.
    let Some(Json::Object(fields)) = tree(body) else {
        return;
    };
    let last = |name| fields.iter().rfind(|(other, _)| other == name);
    let is_ok = matches!(last("ok"), Some((_, Json::Other(text))) if text == "true");
    let results = fields.iter().filter(|(name, _)| name == "result");
    let is_list = results
        .clone()
        .all(|(_, result)| matches!(result, Json::Array(_)));
    let Some((_, Json::Array(updates))) = last("result") else {
        assert!(outcome.is_err());
        return;
    };
    // The splitter gives up at any result that is no list, even if another one follows.
    if !is_ok || !is_list {
        assert!(outcome.is_err());
        return;
    }
    if updates.len() > limits.max_updates {
        let max = limits.max_updates;
        assert!(
            matches!(outcome, Err(ApiError::Limit(LimitError::Updates { max: m })) if m == max)
        );
        return;
    }
    let taken = &updates[..updates.len().min(limit).min(100)];
    let split = match outcome {
        Ok(split) => split,
        Err(ApiError::Position { .. }) => {
            assert!(offset.is_none_or(|offset| offset <= 0));
            assert!(taken.iter().all(|update| update_id(update).is_none()));
            return;
        }
        Err(error) => panic!("{error}"),
    };
    assert_eq!(split.len(), taken.len());
    for (incoming, update) in split.iter().zip(taken) {
        let again: Json = serde_json::from_slice(incoming.raw()).expect("it was accepted before");
        assert_eq!(&again, update);
        let limit = LimitError::Depth {
            max: limits.max_depth,
        };
        let is_refused = match incoming.decode::<IgnoredAny>() {
            Err(error) => error.source().and_then(|e| e.downcast_ref()) == Some(&limit),
            Ok(_) => false,
        };
        let is_deep = update.levels() > limits.max_depth && !incoming.is_id_assumed();
        assert_eq!(is_refused, is_deep);
        assert_eq!(incoming.is_id_assumed(), update_id(update).is_none());
        if let (Json::Object(fields), false) = (update, incoming.is_id_assumed()) {
            assert_eq!(header(incoming), model(fields));
        }
    }
}

fn look_at_incoming(incoming: &Incoming) {
    let _ = format!("{incoming:?} {:?}", incoming.header());
    let decoded = incoming.decode::<IgnoredAny>();
    if let Err(error) = &decoded {
        let _ = format!("{error} {error:?} {:?}", error.id());
    }
    assert!(!(incoming.is_id_assumed() && decoded.is_ok()));
}

fn look_at(update: &Update) {
    let _ = format!("{update:?}");
    let _ = (update.id(), update.kind().to_string(), update.date());
    let _ = (update.chat_id(), update.user_id(), update.message_id());
    let _ = (update.text(), update.query_id());
    if let Some(command) = update.command() {
        let text = update.text().expect("a command is text");
        assert!(text.starts_with('/') && text[1..].starts_with(command.name));
        assert!(text.contains(command.args) && command.bot.is_none_or(|bot| text.contains(bot)));
    }
    let _ = update.json::<Value>();
}

/// What serde_json accepts; its limit of levels holds for the tree, too.
fn tree(text: &[u8]) -> Option<Json> {
    serde_json::from_slice::<Value>(text).ok()?;
    serde_json::from_slice(text).ok()
}

/// What the shallow scan found.
type Found = (Option<i64>, String, Option<i64>, Option<i64>);

fn header(incoming: &Incoming) -> Found {
    let header = incoming.header();
    let id = (!incoming.is_id_assumed()).then(|| incoming.id());
    (id, header.kind.to_string(), header.chat, header.user)
}

/// The naive model: the header from a whole tree.
pub(crate) fn model(update: &[(String, Json)]) -> Found {
    let is_null = |value: &Json| matches!(value, Json::Other(text) if text == "null");
    let content = update
        .iter()
        .find(|(name, value)| name != "update_id" && !is_null(value));
    let kind = content.map_or("", |(name, _)| name.as_str());
    let (mut chat, mut user) = (None, None);
    // Of two that mean the same, the last one counts.
    let peer = |value: &Json, known: &mut Option<i64>| {
        for (_, id) in value.fields().iter().filter(|(name, _)| name == "id") {
            *known = id.integer();
        }
    };
    for (name, value) in content.map_or(&[][..], |(_, content)| content.fields()) {
        match (name.as_str(), kind) {
            ("from" | "user", _) => peer(value, &mut user),
            ("message", "callback_query") => {
                for (_, value) in value.fields().iter().filter(|(name, _)| name == "chat") {
                    peer(value, &mut chat);
                }
            }
            ("boost", "chat_boost") | ("source", "removed_chat_boost") => {
                let inside = if name == "boost" { "source" } else { "user" };
                for (_, value) in value.fields().iter().filter(|(name, _)| name == inside) {
                    match inside {
                        "user" => peer(value, &mut user),
                        _ => value
                            .fields()
                            .iter()
                            .filter(|(name, _)| name == "user")
                            .for_each(|(_, value)| peer(value, &mut user)),
                    }
                }
            }
            ("user_chat_id", "business_connection") => chat = value.integer(),
            (_, "callback_query" | "business_connection") => {}
            ("chat" | "voter_chat", _) => peer(value, &mut chat),
            _ => {}
        }
    }
    let id = update_id_of(update);
    let user = user.filter(|id| !FAKE_SENDERS.contains(id));
    (id, UpdateKind::from_name(kind).to_string(), chat, user)
}

fn update_id(update: &Json) -> Option<i64> {
    update_id_of(update.fields())
}

fn update_id_of(update: &[(String, Json)]) -> Option<i64> {
    let (_, id) = update.iter().rfind(|(name, _)| name == "update_id")?;
    id.integer().filter(|id| (0..1 << 52).contains(id))
}

fn token() -> Token {
    Token::new(&format!("1:{SECRET}")).expect("it has the shape of one")
}

const SECRET: &str = "AAabcdefghijklmnopqrstuvwxyz";

#[cfg(test)]
#[path = "../../fuzz/inputs.rs"]
mod inputs;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        inputs::{corpus, input},
        *,
    };

    #[test]
    fn the_corpus_holds() {
        corpus("answer").iter().for_each(|input| answer(input));
        corpus("update").iter().for_each(|input| update(input));
        corpus("retry_after")
            .iter()
            .for_each(|input| retry_after(input));
    }

    proptest! {
        #[test]
        fn any_answer_holds(input in input("answer")) {
            answer(&input);
        }

        #[test]
        fn any_update_holds(input in input("update")) {
            update(&input);
        }

        #[test]
        fn any_retry_after_holds(input in input("retry_after")) {
            retry_after(&input);
        }
    }
}
