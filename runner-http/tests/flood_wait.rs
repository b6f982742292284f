//! What becomes of a call that the Bot API refuses with 429, or that may have had an effect.

use std::{
    collections::VecDeque,
    pin::pin,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use async_io::block_on;
use futures::{FutureExt, poll};
use runner_core::{GetUpdates, UpdatesRequest};
use runner_http::{
    ApiError, BotApi, HttpClient, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
};
use serde_json::{Value, json};

/// Answers from a script, at once.
#[derive(Clone, Debug, Default)]
struct Scripted(Arc<Mutex<Script>>);

#[derive(Debug, Default)]
struct Script {
    answers: VecDeque<Result<HttpResponse, HttpErrorKind>>,
    sent: Vec<String>,
}

impl Scripted {
    fn answering(
        answers: impl IntoIterator<Item = Result<HttpResponse, HttpErrorKind>>,
    ) -> (Self, BotApi<Self>) {
        let client = Self::default();
        client.0.lock().unwrap().answers.extend(answers);
        let token = "600700800:AAabcdefghijklmnopqrstuv-_0123";
        let api = BotApi::with_client(token, client.clone()).unwrap();
        (client, api)
    }

    fn sent(&self) -> usize {
        self.0.lock().unwrap().sent.len()
    }
}

impl HttpClient for Scripted {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let mut script = self.0.lock().unwrap();
        script.sent.push(request.url);
        let answer = script.answers.pop_front();
        answer
            .expect("the script has an answer")
            .map_err(HttpError::new)
    }
}

fn ok() -> Result<HttpResponse, HttpErrorKind> {
    Ok(HttpResponse::new(200, r#"{"ok":true,"result":true}"#))
}

fn too_many(seconds: u64) -> Result<HttpResponse, HttpErrorKind> {
    let body = json!({
        "ok": false, "error_code": 429, "description": "Too Many Requests",
        "parameters": {"retry_after": seconds},
    });
    Ok(HttpResponse::new(429, body.to_string()))
}

async fn send(api: &BotApi<Scripted>, chat: impl Into<Value>) -> Result<bool, ApiError> {
    let params = json!({"chat_id": chat.into(), "text": "hi"});
    api.call("sendMessage", &params).await
}

#[test]
fn a_call_waits_out_a_429() {
    let (client, api) = Scripted::answering([too_many(1), too_many(1), ok()]);
    let began = Instant::now();
    assert!(block_on(send(&api, 5)).unwrap());
    assert!(began.elapsed() >= Duration::from_secs(2));
    assert_eq!(client.sent(), 3);
}

#[test]
fn a_429_of_a_proxy_is_waited_out_too() {
    let mut busy = HttpResponse::new(429, "<html>busy</html>");
    busy.retry_after = Some("1".into());
    let (client, api) = Scripted::answering([Ok(busy), ok()]);
    assert!(block_on(send(&api, 5)).unwrap());
    assert_eq!(client.sent(), 2);
}

#[test]
fn what_may_have_had_an_effect_is_not_repeated() {
    let json = |code: u16| {
        let body = json!({"ok": false, "error_code": code, "description": "no"});
        Ok(HttpResponse::new(code, body.to_string()))
    };
    for answer in [
        json(400),
        json(403),
        json(500),
        json(502),
        Ok(HttpResponse::new(502, "<html></html>")),
        Ok(HttpResponse::new(200, "{")),
        Err(HttpErrorKind::AnswerTimeout),
        Err(HttpErrorKind::Closed),
        Err(HttpErrorKind::Connect),
    ] {
        let (client, api) = Scripted::answering([answer, ok()]);
        let failed = send(&api, 5).now_or_never().expect("nothing is waited for");
        failed.unwrap_err();
        assert_eq!(client.sent(), 1);
    }
}

#[test]
fn a_429_that_asks_for_more_than_the_limit_fails_at_once() {
    let (client, api) = Scripted::answering([too_many(61)]);
    let failed = send(&api, 5).now_or_never().expect("nothing is waited for");
    let error = failed.unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(61)));
    assert_eq!(client.sent(), 1);

    let (_, api) = Scripted::answering([too_many(2), too_many(61)]);
    let less = api.clone().flood_wait(Duration::from_secs(1));
    let failed = send(&less, 5)
        .now_or_never()
        .expect("nothing is waited for");
    assert_eq!(failed.unwrap_err().code(), Some(429));
    // What is in force for longer than the limit keeps no call from being sent.
    let failed = send(&less, 5)
        .now_or_never()
        .expect("nothing is waited for");
    assert_eq!(
        failed.unwrap_err().retry_after(),
        Some(Duration::from_secs(61))
    );
}

#[test]
fn the_limit_is_for_all_waits_of_a_call_together() {
    let (client, api) = Scripted::answering([too_many(1), too_many(2)]);
    let api = api.flood_wait(Duration::from_secs(2));
    let error = block_on(send(&api, 5)).unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(2)));
    assert_eq!(client.sent(), 2);
}

#[test]
fn waiting_can_be_switched_off() {
    let (client, api) = Scripted::answering([too_many(1), ok()]);
    let api = api.flood_wait(Duration::ZERO);
    let failed = send(&api, 5).now_or_never().expect("nothing is waited for");
    assert_eq!(
        failed.unwrap_err().retry_after(),
        Some(Duration::from_secs(1))
    );
    assert!(send(&api, 5).now_or_never().unwrap().unwrap());
    assert_eq!(client.sent(), 2);
}

#[test]
fn a_429_holds_back_the_calls_of_its_chat_and_no_others() {
    block_on(async {
        let (client, api) = Scripted::answering([too_many(1), ok(), ok(), ok(), ok()]);
        let mut first = pin!(send(&api, 5));
        assert!(poll!(&mut first).is_pending());
        let clone = api.clone();
        let mut same = pin!(send(&clone, "5"));
        assert!(poll!(&mut same).is_pending());
        assert_eq!(client.sent(), 1);
        // A group that is full must not keep the bot from answering everybody else.
        assert!(send(&api, 6).now_or_never().unwrap().unwrap());
        let me = api.call::<bool>("getMe", &());
        assert!(me.now_or_never().unwrap().unwrap());
        assert!(first.await.unwrap());
        assert!(same.await.unwrap());
        assert_eq!(client.sent(), 5);
    });
}

#[test]
fn a_429_of_a_call_without_a_chat_holds_back_its_method() {
    block_on(async {
        let (client, api) = Scripted::answering([too_many(1), ok(), ok(), ok()]);
        let mut first = pin!(api.call::<bool>("setMyName", &()));
        assert!(poll!(&mut first).is_pending());
        let mut same = pin!(api.call::<bool>("setMyName", &()));
        assert!(poll!(&mut same).is_pending());
        assert!(send(&api, 5).now_or_never().unwrap().unwrap());
        assert_eq!(client.sent(), 2);
        assert!(first.await.unwrap());
        assert!(same.await.unwrap());
    });
}

#[test]
fn a_wait_ends_with_the_future_that_waits() {
    block_on(async {
        let (client, api) = Scripted::answering([too_many(1), ok()]);
        {
            let mut call = pin!(send(&api, 5));
            assert!(poll!(&mut call).is_pending());
        }
        // It waits for the same 429, and is the only one that is sent after it.
        assert!(send(&api, 5).await.unwrap());
        assert_eq!(client.sent(), 2);
    });
}

#[test]
fn a_poll_leaves_the_wait_to_the_runner() {
    let (client, mut api) = Scripted::answering([too_many(1)]);
    let request = UpdatesRequest::default();
    let answer = api.get_updates(&request).now_or_never();
    let error = answer.expect("nothing is waited for").unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(1)));
    assert_eq!(client.sent(), 1);
}
