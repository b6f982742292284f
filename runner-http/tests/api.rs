//! `BotApi` over a client that answers from a script: what is sent, and what becomes of answers.

use std::{
    collections::VecDeque,
    error::Error,
    fmt::Write as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::FutureExt;
use runner_core::{Delivery, GetUpdates, Key, SupplyError, UpdatesRequest};
use runner_http::{
    ApiError, BotApi, HttpClient, HttpError, HttpErrorKind, HttpRequest, HttpResponse, Incoming,
    Lane, Limits, Update, UpdateKind,
};
use serde::Deserialize;
use serde_json::{Value, json};

const SECRET: &str = "AAabcdefghijklmnopqrstuv-_0123";
const BATCH: &str = include_str!("wire/batch.json");
const ANSWERS: &str = include_str!("wire/answers.txt");

#[derive(Clone, Debug, Default)]
struct Fake(Arc<Mutex<Script>>);

#[derive(Debug, Default)]
struct Script {
    answers: VecDeque<Result<HttpResponse, HttpError>>,
    requests: Vec<HttpRequest>,
}

impl Fake {
    fn answering(bodies: impl IntoIterator<Item = (u16, String)>) -> Self {
        let fake = Self::default();
        for (status, body) in bodies {
            fake.push(Ok(HttpResponse::new(status, body)));
        }
        fake
    }

    fn push(&self, answer: Result<HttpResponse, HttpError>) {
        self.0.lock().unwrap().answers.push_back(answer);
    }

    fn requests(&self) -> Vec<HttpRequest> {
        self.0.lock().unwrap().requests.clone()
    }

    fn bodies(&self) -> Vec<Value> {
        let requests = self.requests();
        let bodies = requests.iter().map(|request| &request.body[..]);
        bodies
            .map(|body| serde_json::from_slice(body).unwrap())
            .collect()
    }
}

impl HttpClient for Fake {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let mut script = self.0.lock().unwrap();
        script.requests.push(request);
        script
            .answers
            .pop_front()
            .expect("the script has an answer")
    }
}

/// The fake never waits.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("the answer is there at once")
}

fn token() -> String {
    format!("600700800:{SECRET}")
}

fn api(fake: &Fake) -> BotApi<Fake> {
    BotApi::with_client(token(), fake.clone()).unwrap()
}

fn request() -> UpdatesRequest {
    UpdatesRequest::default()
}

fn ok(result: &str) -> (u16, String) {
    (200, format!(r#"{{"ok":true,"result":{result}}}"#))
}

/// Everything that a log may show of an error.
fn everything(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        write!(text, "{error} | {error:?} | {error:#?} | ").unwrap();
        next = error.source();
    }
    text
}

#[test]
fn a_call_posts_the_parameters_and_decodes_the_result() {
    let fake = Fake::answering([ok(r#"{"x":[1,2]}"#)]);
    let result: Value =
        block_on(api(&fake).call("anyMethod", &json!({"a": "é", "b": null}))).unwrap();
    assert_eq!(result, json!({"x": [1, 2]}));
    let request = &fake.requests()[0];
    assert_eq!(
        request.url,
        format!("https://api.telegram.org/bot{}/anyMethod", token())
    );
    assert_eq!(request.lane, Lane::Call);
    assert_eq!(request.limits, Limits::default());
    assert_eq!(fake.bodies()[0], json!({"a": "é", "b": null}));
}

#[test]
fn the_url_is_made_of_base_token_environment_and_method() {
    let fake = Fake::answering([ok("1"), ok("1"), ok("1")]);
    let own = api(&fake).base_url("http://127.0.0.1:8081/").unwrap();
    let test = own.clone().test_environment();
    for api in [&own, &test, &api(&fake)] {
        block_on(api.call::<i32>("getMe", &())).unwrap();
    }
    let urls: Vec<String> = fake
        .requests()
        .into_iter()
        .map(|request| request.url)
        .collect();
    let token = token();
    assert_eq!(
        urls,
        [
            format!("http://127.0.0.1:8081/bot{token}/getMe"),
            format!("http://127.0.0.1:8081/bot{token}/test/getMe"),
            format!("https://api.telegram.org/bot{token}/getMe"),
        ]
    );
    assert_eq!(fake.bodies(), [json!({}), json!({}), json!({})]);
}

#[test]
fn what_cannot_be_sent_is_not_sent() {
    let fake = Fake::default();
    let api = api(&fake);
    for method in ["", "get/Me", "getMe?x", "get Me", "../getMe", "gétMe"] {
        let error = block_on(api.call::<Value>(method, &())).unwrap_err();
        assert!(
            matches!(error, ApiError::Method { .. }),
            "{method}: {error:?}"
        );
    }
    for params in [json!([1]), json!("text"), json!(7)] {
        let error = block_on(api.call::<Value>("getMe", &params)).unwrap_err();
        assert!(matches!(error, ApiError::Encode(_)), "{params}: {error:?}");
    }
    assert!(fake.requests().is_empty());
}

#[test]
fn parameters_need_not_be_sync_for_the_call_to_be_send() {
    fn is_send(_: impl Send) {}

    let cell = std::cell::RefCell::new(1);
    let params = std::collections::BTreeMap::from([("x", cell)]);
    is_send(api(&Fake::default()).call::<i32>("x", &params));
}

#[test]
fn an_error_of_the_bot_api_says_everything() {
    let answers: Vec<(u16, String)> = ANSWERS
        .lines()
        .map(|line| {
            let value: Value = serde_json::from_str(line).unwrap();
            let status = value["error_code"].as_u64().unwrap_or(200);
            (u16::try_from(status).unwrap(), line.to_owned())
        })
        .collect();
    assert!(answers.len() > 10);
    let fake = Fake::answering(answers.clone());
    let api = api(&fake).flood_wait(Duration::ZERO);
    for (status, body) in answers {
        let given: Value = serde_json::from_str(&body).unwrap();
        let answer = block_on(api.call::<Value>("x", &()));
        let error = match answer {
            Ok(result) => {
                assert_eq!(result, given["result"]);
                continue;
            }
            Err(error) => error,
        };
        let ApiError::Api {
            code, description, ..
        } = &error
        else {
            panic!("{error:?}");
        };
        assert_eq!(*code, status);
        assert_eq!(error.code(), Some(status));
        assert_eq!(description, given["description"].as_str().unwrap());
        let parameters = &given["parameters"];
        assert_eq!(
            error.migrate_to_chat_id(),
            parameters["migrate_to_chat_id"].as_i64()
        );
        assert_eq!(
            error.retry_after(),
            parameters["retry_after"].as_u64().map(Duration::from_secs)
        );
        assert!(error.to_string().contains(description.as_str()));
    }
}

#[test]
fn errors_say_what_to_do() {
    let refused = |code: u16, description: &str| {
        (
            code,
            json!({"ok": false, "error_code": code, "description": description}).to_string(),
        )
    };
    let cases = [
        (refused(401, "Unauthorized"), "@BotFather"),
        (refused(404, "Not Found"), "base URL"),
        (refused(400, "Logged out"), "10 minutes"),
        (
            refused(409, "Conflict: terminated by setWebhook request"),
            "delete the webhook",
        ),
        (
            refused(409, "Conflict: terminated by other getUpdates request"),
            "another instance",
        ),
        (refused(421, "Misdirected Request"), "--filter"),
        ((302, String::new()), "redirects are not followed"),
        ((404, "<html>nginx</html>".into()), "base URL"),
    ];
    let fake = Fake::answering(cases.iter().map(|(answer, _)| answer.clone()));
    for (answer, advice) in cases {
        let error = block_on(api(&fake).get_me()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(advice), "{answer:?}: {text}");
        assert!(!text.ends_with('.') && text.starts_with("the "), "{text}");
    }
}

#[test]
fn an_answer_that_is_not_one_of_the_bot_api_is_shown_in_one_line() {
    let page = "<html>\r\n<head>\t<title>502 Bad Gateway</title></head>\0</html>";
    let fake = Fake::answering([
        (502, page.into()),
        (502, "x".repeat(100_000)),
        (200, String::new()),
    ]);
    let api = api(&fake);
    let error = block_on(api.get_me()).unwrap_err();
    assert!(matches!(error, ApiError::Status { status: 502, .. }));
    assert!(
        error
            .to_string()
            .contains("(<html> <head> <title>502 Bad Gateway</title></head> </html>)")
    );
    assert!(block_on(api.get_me()).unwrap_err().to_string().len() < 400);
    let error = block_on(api.get_me()).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("but HTTP 200 with nothing in it"),
        "{error}"
    );
}

#[test]
fn a_long_description_is_fit_for_a_log() {
    let description = format!("Bad Request:\r\n{}", "é".repeat(100_000));
    let body = json!({"ok": false, "error_code": 400, "description": description});
    let fake = Fake::answering([(400, body.to_string())]);
    let text = block_on(api(&fake).get_me()).unwrap_err().to_string();
    assert!(
        text.starts_with("the Bot API answered 400 (Bad Request: é"),
        "{text}"
    );
    assert_eq!(
        text.chars().filter(|c| *c == 'é').count(),
        500 - "Bad Request: ".len()
    );
}

#[test]
fn the_token_is_never_shown() {
    let quoted = format!("/bot{}/getMe was not found", token());
    let fake = Fake::answering([
        (404, format!("<p>{quoted}</p>")),
        // The secret crosses a place where the excerpt is cut off.
        (404, format!("{}{SECRET}", " ".repeat(1_270))),
        (404, format!("{}{SECRET}", "x ".repeat(75))),
        (
            400,
            json!({"ok": false, "error_code": 400, "description": quoted}).to_string(),
        ),
        (200, format!(r#"{{"ok":true,"result":"{quoted}"}}"#)),
        (200, format!("{{{quoted}")),
    ]);
    fake.push(Err(
        HttpError::new(HttpErrorKind::Connect).with_source("refused")
    ));
    let api = api(&fake);
    for _ in 0..7 {
        let error = block_on(api.call::<u8>("x", &())).unwrap_err();
        let text = everything(&error);
        assert!(!text.contains(&SECRET[..6]), "{text}");
        let text = everything(&SupplyError::from(error));
        assert!(!text.contains(&SECRET[..6]), "{text}");
    }
    let error = block_on(api.call::<u8>(&token(), &())).unwrap_err();
    assert!(!everything(&error).contains(SECRET));
    let typed = api.updates_as::<Value>();
    let shown = format!(
        "{api:?} {api:#?} {typed:?} {:?} {:?}",
        api.token(),
        fake.requests()
    );
    assert!(!shown.contains(SECRET), "{shown}");
    assert!(shown.contains("600700800"));
}

#[test]
fn a_poll_sends_plain_numbers_and_leaves_out_what_is_absent() {
    let fake = Fake::answering([ok("[]"), ok("[]")]);
    let mut api = api(&fake);
    let mut request = request();
    request.limit = 100;
    request.timeout = Duration::from_secs(30);
    assert!(block_on(api.get_updates(&request)).unwrap().is_empty());
    request.offset = Some(512_004_417);
    request.allowed_updates = Some(vec!["message".into(), "chat_member".into()]);
    assert!(block_on(api.get_updates(&request)).unwrap().is_empty());

    let first = std::str::from_utf8(&fake.requests()[0].body)
        .unwrap()
        .to_owned();
    assert_eq!(first, r#"{"limit":100,"timeout":30}"#);
    assert_eq!(
        fake.bodies()[1],
        json!({
            "offset": 512_004_417, "limit": 100, "timeout": 30,
            "allowed_updates": ["message", "chat_member"],
        })
    );
    let request = &fake.requests()[0];
    assert!(request.url.ends_with("/getUpdates"));
    assert_eq!(request.lane, Lane::Poll);
    assert_eq!(
        request.limits.answer,
        Limits::default().answer + Duration::from_secs(30)
    );
}

#[test]
fn a_poll_returns_updates_that_have_a_key_and_can_be_decoded() {
    let fake = Fake::answering([(200, BATCH.into())]);
    let mut api = api(&fake);
    let updates = block_on(api.get_updates(&request())).unwrap();
    let keys: Vec<Option<Key>> = updates.iter().map(BotApi::<Fake>::default_key).collect();
    let room = Some(Key::chat(-1_001_900_000_001));
    let mira = Some(Key::chat(700_100_200));
    let user = Some(Key::user(700_100_200));
    assert_eq!(
        keys,
        [
            mira.clone(),
            mira.clone(),
            mira,
            user,
            room.clone(),
            room,
            None
        ]
    );
    let texts: Vec<Option<String>> = updates
        .into_iter()
        .map(|raw| {
            let id = BotApi::<Fake>::update_id(&raw);
            let update: Delivery<Update> = BotApi::<Fake>::decode(Delivery::new(raw)).unwrap();
            assert_eq!(update.id(), id);
            update.text().map(Into::into)
        })
        .collect();
    let texts: Vec<Option<&str>> = texts.iter().map(Option::as_deref).collect();
    assert_eq!(
        texts,
        [
            Some("/start now"),
            Some("café 😀"),
            Some("v:1"),
            Some("weather"),
            None,
            None,
            None
        ]
    );
}

#[test]
fn an_update_that_cannot_be_decoded_is_named_and_keeps_its_bytes() {
    let bad = r#"{"update_id":2,"message":{"text":{"not":"a text"}}}"#;
    let body = format!(r#"[{{"update_id":1}},{bad},null]"#);
    let fake = Fake::answering([ok(&body)]);
    let updates = block_on(api(&fake).get_updates(&request())).unwrap();
    let ids: Vec<i64> = updates.iter().map(Incoming::id).collect();
    assert_eq!(ids, [1, 2, 3]);
    let raw = updates[1].clone();
    let error = BotApi::<Fake>::decode(Delivery::new(raw.clone())).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("update 2 cannot be decoded (message, {} bytes)", bad.len())
    );
    assert_eq!(raw.raw().as_ref(), bad.as_bytes());
    assert!(!format!("{raw:?}").contains("text"));
    let error = BotApi::<Fake>::decode(Delivery::new(updates[2].clone())).unwrap_err();
    assert_eq!(
        error.to_string(),
        "update 3 cannot be decoded (no kind, 4 bytes)"
    );
}

#[test]
fn a_model_of_ones_own_is_decoded_from_the_whole_object() {
    #[derive(Debug, Deserialize)]
    struct Mine {
        update_id: i64,
        message: Option<Message>,
    }

    #[derive(Debug, Deserialize)]
    struct Message {
        text: String,
    }

    type Typed = runner_http::TypedUpdates<Mine, Fake>;

    let fake = Fake::answering([(200, BATCH.into()), ok("true")]);
    let mut typed: Typed = api(&fake).updates_as();
    let updates = block_on(typed.get_updates(&request())).unwrap();
    assert_eq!(*updates[0].kind(), UpdateKind::Message);
    assert_eq!(Typed::update_id(&updates[0]), 512_004_417);
    assert_eq!(
        Typed::default_key(&updates[3]),
        Some(Key::user(700_100_200))
    );
    let mine = Typed::decode(Delivery::new(updates[0].clone())).unwrap();
    assert_eq!(mine.update_id, 512_004_417);
    assert_eq!(mine.message.as_ref().unwrap().text, "/start now");
    let refused = Incoming::from_json(r#"{"update_id":9,"message":{}}"#).unwrap();
    let error = Typed::decode(Delivery::new(refused)).unwrap_err();
    assert!(error.to_string().starts_with("update 9 cannot be decoded"));

    block_on(typed.delete_webhook(true)).unwrap();
    assert!(fake.requests()[1].url.ends_with("/deleteWebhook"));
    assert_eq!(fake.bodies()[1], json!({"drop_pending_updates": true}));
}

#[test]
fn the_methods_of_most_bots_are_there() {
    let fake = Fake::answering([
        ok(r#"{"message_id":40,"date":1790000000,"chat":{"id":5},"text":"hi"}"#),
        ok(
            r#"{"id":600700800,"is_bot":true,"first_name":"Sample","username":"sample_bot","can_join_groups":true}"#,
        ),
        ok("true"),
    ]);
    let api = api(&fake);
    let sent = block_on(api.send_message(5, "hi")).unwrap();
    assert_eq!((sent.message_id, sent.date), (40, 1_790_000_000));
    let me = block_on(api.get_me()).unwrap();
    assert_eq!((me.id, me.is_bot), (600_700_800, true));
    assert_eq!(
        (me.first_name.as_str(), me.username.as_deref()),
        ("Sample", Some("sample_bot"))
    );
    block_on(api.answer_callback_query("300")).unwrap();
    let methods: Vec<String> = fake
        .requests()
        .iter()
        .map(|request| request.url.rsplit('/').next().unwrap().to_owned())
        .collect();
    assert_eq!(methods, ["sendMessage", "getMe", "answerCallbackQuery"]);
    assert_eq!(
        fake.bodies(),
        [
            json!({"chat_id": 5, "text": "hi"}),
            json!({}),
            json!({"callback_query_id": "300"})
        ]
    );
}

#[test]
fn a_changed_clone_leaves_the_original_as_it_was() {
    let fake = Fake::answering([ok("1")]);
    let original = api(&fake);
    let mut limits = Limits::default();
    limits.answer = Duration::from_secs(1);
    drop(original.clone().limits(limits).test_environment());
    block_on(original.call::<u8>("x", &())).unwrap();
    assert_eq!(fake.requests()[0].limits, Limits::default());
    assert!(!fake.requests()[0].url.contains("/test/"));
}

#[test]
fn an_answer_is_too_large_in_bytes_or_in_the_time_of_its_body() {
    for (kind, too_large) in [
        (HttpErrorKind::TooLarge, true),
        (HttpErrorKind::BodyTimeout, true),
        (HttpErrorKind::AnswerTimeout, false),
        (HttpErrorKind::Closed, false),
        (HttpErrorKind::Malformed, false),
    ] {
        let fake = Fake::default();
        fake.push(Err(HttpError::new(kind)));
        let error = block_on(api(&fake).get_updates(&request())).unwrap_err();
        assert_eq!(BotApi::<Fake>::is_too_large(&error), too_large, "{kind:?}");
        assert!(matches!(
            SupplyError::from(error),
            SupplyError::Transient(_)
        ));
    }
}

#[test]
fn no_poll_asks_for_more_updates_than_the_limit() {
    for (max_updates, most) in [(0, 1), (1, 1), (7, 7), (100, 100), (10_000, 100)] {
        let fake = Fake::answering([ok("[]")]);
        let mut api = api(&fake).limits(Limits::default().max_updates(max_updates));
        assert_eq!(api.max_updates(), most);
        assert_eq!(api.updates_as::<Value>().max_updates(), most);
        block_on(api.get_updates(&request())).unwrap();
        assert_eq!(fake.bodies()[0]["limit"], most);
    }
}

/// What a proxy, a portal or a firewall answers instead of the Bot API.
const PAGE: &str = "<html><h1>Not here</h1></html>";

#[test]
fn a_page_instead_of_an_answer_passes_once_the_bot_has_had_one() {
    for status in [301, 302, 307, 400, 401, 403, 404, 405, 409, 413, 501] {
        let fake = Fake::answering([ok("[]"), (status, PAGE.into())]);
        let mut api = api(&fake);
        block_on(api.get_updates(&request())).unwrap();
        let error = SupplyError::from(block_on(api.get_updates(&request())).unwrap_err());
        assert!(
            matches!(error, SupplyError::Transient(_)),
            "{status}: {error:?}"
        );
    }
}

#[test]
fn any_success_of_the_bot_counts_and_clones_know_of_it() {
    let fake = Fake::answering([ok("true"), (302, PAGE.into())]);
    let mut polling = api(&fake);
    let handling = polling.clone().limits(Limits::default());
    block_on(handling.call::<bool>("close", &())).unwrap();
    let error = SupplyError::from(block_on(polling.get_updates(&request())).unwrap_err());
    assert!(matches!(error, SupplyError::Transient(_)), "{error:?}");
}

#[test]
fn a_page_instead_of_the_first_answer_is_fatal_and_says_what_to_check() {
    for status in [301, 302, 403, 404, 413] {
        let fake = Fake::answering([(status, PAGE.into())]);
        let error = block_on(api(&fake).get_updates(&request())).unwrap_err();
        assert!(error.to_string().contains("base URL"), "{error}");
        let error = SupplyError::from(error);
        assert!(
            matches!(error, SupplyError::Fatal(_)),
            "{status}: {error:?}"
        );
    }
}

#[test]
fn a_refusal_by_the_bot_api_is_fatal_at_any_time() {
    for code in [400, 401, 403, 404] {
        let body = json!({"ok": false, "error_code": code, "description": "no"});
        let fake = Fake::answering([ok("[]"), (code, body.to_string())]);
        let mut api = api(&fake);
        block_on(api.get_updates(&request())).unwrap();
        let error = SupplyError::from(block_on(api.get_updates(&request())).unwrap_err());
        assert!(matches!(error, SupplyError::Fatal(_)), "{code}: {error:?}");
    }
}
