//! The control API: what `LocalServer` offers, over HTTP and on the same port, for a bot that is
//! tested from another process or another language.
//!
//! Parameters are read like those of the Bot API, from the URL or any body; answers are JSON with
//! `"ok"`. No token is needed.
//!
//! | path | parameters | result |
//! |---|---|---|
//! | `/control/message` | `chat_id`, `user_id` (default: the chat), `text` | `{"update_id":N}` |
//! | `/control/updates` | `updates`: array of `{"message":{…}}`, each as the Bot API sends it; an id in it is ignored | `{"update_ids":[N,…]}` |
//! | `/control/calls` | `method` (default: all), `since` (number of the first call, default 0) | array of calls |
//! | `/control/wait` | as above, and `timeout` in seconds (default 10) | the first such call, or `null` after the timeout |
//! | `/control/fault` | `fault` (a name like `bad_gateway`), `seconds` (for `too_many_requests`, `trickle`, `delay`), `method`, `param` and `value` (a parameter that the call must have), `stage` (`before`, `after`), `skip`, `times`, `chance` | `true` |
//! | `/control/clear_faults` | | `true` |
//! | `/control/state` | | `pending`, `confirmed_offset`, `next_update_id`, `is_polled`, `calls`, `polls`, `connections_opened`, `connections_open`, `faults` |
//!
//! An update id is `null` if the update was dropped. A call is
//! `{"index":N,"method":"…","params":{…},"connection":N}`, where every parameter is a string.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Map, Value, json, value::RawValue};

use crate::{
    fault::{Fault, FaultRule, Stage},
    http::{Reply, Request},
    params::Params,
    record::Call,
    shared::{Sender, Shared},
    wire::{ascii, failure, success},
};

/// The longest that `/control/wait` waits.
const MAX_WAIT: f64 = 300.0;

/// Carries out a request to `/control/<path>`.
pub(crate) fn handle(shared: &Shared, path: &str, request: &Request) -> Reply {
    let params = &request.params;
    let result = match path {
        "message" => message(shared, params),
        "updates" => updates(shared, request),
        "calls" => {
            let (method, since) = selection(params);
            let state = shared.lock();
            let calls = state.calls_since(since).iter();
            let calls = calls.filter(|call| is_selected(call, method));
            Ok(calls.map(call_json).collect())
        }
        "wait" => wait(shared, params),
        "fault" => fault(params).map(|rule| {
            shared.lock().faults.add(rule);
            Value::Bool(true)
        }),
        "clear_faults" => {
            shared.lock().faults.clear();
            Ok(Value::Bool(true))
        }
        "state" => Ok(state_json(shared)),
        _ => return failure(404, "Not Found: no such control"),
    };
    match result {
        Ok(result) => success(&ascii(&result.to_string())),
        Err(reason) => failure(400, &format!("Bad Request: {reason}")),
    }
}

fn message(shared: &Shared, params: &Params) -> Result<Value, String> {
    let chat_id = params.integer("chat_id").ok_or("chat_id is missing")?;
    let user_id = params.integer("user_id").unwrap_or(chat_id);
    let text = params.get("text").unwrap_or_default();
    let who = Sender { chat_id, user_id };
    let (_, id) = shared.push_message(who, text);
    Ok(json!({ "update_id": id }))
}

fn updates(shared: &Shared, request: &Request) -> Result<Value, String> {
    let text = request.params.get("updates").ok_or("updates is missing")?;
    // Raw, so that the fields stay in the order in which they were sent.
    let updates: Vec<BTreeMap<String, Box<RawValue>>> =
        serde_json::from_str(text).map_err(|_| "updates is not an array of objects")?;
    let bodies: Vec<_> = updates
        .iter()
        .flatten()
        .filter(|(kind, _)| *kind != "update_id")
        .collect();
    let ids = shared.push(
        bodies
            .iter()
            .map(|(kind, body)| (kind.as_str(), body.get())),
    );
    Ok(json!({ "update_ids": ids }))
}

fn wait(shared: &Shared, params: &Params) -> Result<Value, String> {
    let (method, since) = selection(params);
    let seconds = number(params, "timeout", 10.0)?.min(MAX_WAIT);
    let timeout = Duration::try_from_secs_f64(seconds).map_err(|_| "timeout is not a span")?;
    let call = shared.watch(timeout, |state| {
        let mut calls = state.calls_since(since).iter();
        calls.find(|call| is_selected(call, method)).map(call_json)
    });
    Ok(call.unwrap_or(Value::Null))
}

fn fault(params: &Params) -> Result<FaultRule, String> {
    let name = params.get("fault").ok_or("fault is missing")?;
    let fault = Fault::named(name, number(params, "seconds", 1.0)?).ok_or("no such fault")?;
    let mut rule = FaultRule::new(fault).chance(number(params, "chance", 1.0)?);
    if let Some(method) = params.get("method") {
        rule = rule.method(method);
    }
    if let Some(name) = params.get("param") {
        rule = rule.param(name, params.get("value").ok_or("value is missing")?);
    }
    match params.get("stage") {
        None | Some("before") => {}
        Some("after") => rule = rule.stage(Stage::After),
        Some(_) => return Err("stage is neither before nor after".into()),
    }
    let count = |name: &str| match params.get(name) {
        None => Ok(None),
        Some(text) => match text.parse() {
            Ok(count) => Ok(Some(count)),
            Err(_) => Err(format!("{name} is not a count")),
        },
    };
    if let Some(skip) = count("skip")? {
        rule = rule.skip(skip);
    }
    if let Some(times) = count("times")? {
        rule = rule.times(times);
    }
    Ok(rule)
}

fn number(params: &Params, name: &str, default: f64) -> Result<f64, String> {
    match params.get(name) {
        None => Ok(default),
        Some(text) => text.parse().map_err(|_| format!("{name} is not a number")),
    }
}

fn selection(params: &Params) -> (Option<&str>, u64) {
    let since = params.integer("since").unwrap_or(0);
    (params.get("method"), u64::try_from(since).unwrap_or(0))
}

fn is_selected(call: &Call, method: Option<&str>) -> bool {
    method.is_none_or(|method| call.is(method))
}

fn call_json(call: &Call) -> Value {
    let mut params = Map::new();
    for (name, value) in call.params.iter() {
        // The first of a name wins, here as for the methods.
        params.entry(name).or_insert_with(|| value.into());
    }
    json!({
        "index": call.index,
        "method": call.method,
        "params": params,
        "connection": call.connection,
    })
}

fn state_json(shared: &Shared) -> Value {
    let state = shared.lock();
    let snapshot = state.snapshot();
    let faults: Map<String, Value> = state
        .faults
        .counts()
        .iter()
        .map(|(name, count)| ((*name).to_owned(), (*count).into()))
        .collect();
    json!({
        "pending": snapshot.pending,
        "confirmed_offset": snapshot.confirmed_offset,
        "next_update_id": snapshot.next_update_id,
        "is_polled": snapshot.is_polled,
        "calls": snapshot.calls,
        "polls": snapshot.polls,
        "connections_opened": snapshot.connections.opened,
        "connections_open": snapshot.connections.open,
        "faults": faults,
    })
}
