//! Updates and answers as other programs write them.

use futures::FutureExt;
use runner_http::{BotApi, HttpClient, HttpError, HttpRequest, HttpResponse, Update, UpdateKind};
use serde_json::{Value, json};

#[test]
fn a_field_that_is_null_is_no_kind() {
    // As serialisers of Java, .NET and Python write a whole model.
    for update in [
        r#"{"update_id":1,"message":null,"callback_query":{"id":"7","from":{"id":5},"data":"a","message":{"message_id":3,"chat":{"id":9}}}}"#,
        r#"{"update_id":1,"message":null,"callback_query":{"id":"7","from":{"id":5,"username":null},"data":"a","message":{"message_id":3,"chat":{"id":9},"text":null}},"poll":null}"#,
        r#"{"message":null,"callback_query":{"id":"7","from":{"id":5},"data":"a","message":{"message_id":3,"chat":{"id":9}}},"update_id":1}"#,
        r#"{"update_id":1,"call\u0062ack_query":{"id":"7","from":{"id":5},"data":"a","message":{"message_id":3,"chat":{"id":9}}},"message": null}"#,
    ] {
        let update = Update::from_json(update).unwrap();
        assert_eq!(update.kind(), &UpdateKind::CallbackQuery);
        assert_eq!((update.chat_id(), update.user_id()), (Some(9), Some(5)));
        assert_eq!((update.query_id(), update.text()), (Some("7"), Some("a")));
    }
    let bare = Update::from_json(r#"{"update_id":1,"message":null}"#).unwrap();
    assert_eq!(bare.kind().as_str(), "");
}

#[test]
fn the_user_of_a_boost_is_in_its_source() {
    for (update, user) in [
        (
            r#"{"update_id":1,"chat_boost":{"chat":{"id":-100},"boost":{"boost_id":"x","add_date":1,"expiration_date":2,"source":{"source":"premium","user":{"id":5,"is_bot":false}}}}}"#,
            Some(5),
        ),
        (
            r#"{"update_id":1,"removed_chat_boost":{"chat":{"id":-100},"boost_id":"x","remove_date":1,"source":{"source":"gift_code","user":{"id":6}}}}"#,
            Some(6),
        ),
        (
            r#"{"update_id":1,"chat_boost":{"chat":{"id":-100},"boost":{"boost_id":"x","source":{"source":"giveaway","giveaway_message_id":0,"is_unclaimed":true}}}}"#,
            None,
        ),
        // Nothing of this name elsewhere is one.
        (
            r#"{"update_id":1,"message":{"chat":{"id":-100},"source":{"user":{"id":5}}}}"#,
            None,
        ),
    ] {
        let update = Update::from_json(update).unwrap();
        assert_eq!((update.chat_id(), update.user_id()), (Some(-100), user));
    }
}

#[derive(Debug)]
struct Answering(&'static str);

impl HttpClient for Answering {
    async fn send(&self, _: HttpRequest) -> Result<HttpResponse, HttpError> {
        Ok(HttpResponse::new(200, self.0))
    }
}

fn api(answer: &'static str) -> BotApi<Answering> {
    let token = "600700800:AAabcdefghijklmnopqrstuv-_0123";
    BotApi::with_client(token, Answering(answer)).unwrap()
}

#[test]
fn what_nobody_needs_may_be_missing_from_a_result() {
    for answer in [
        r#"{"ok":true,"result":null}"#,
        r#"{"ok":true}"#,
        r#"{"ok":true,"result":{}}"#,
    ] {
        let api = api(answer);
        let answered = api.answer_callback_query("7").now_or_never();
        answered.unwrap().unwrap();
    }
    let me = api(r#"{"ok":true,"result":{"id":7}}"#);
    let me = me.get_me().now_or_never().unwrap().unwrap();
    assert_eq!((me.id, me.is_bot, me.first_name.as_str()), (7, false, ""));
    let none = api(r#"{"ok":true,"result":{"first_name":"x"}}"#);
    none.get_me().now_or_never().unwrap().unwrap_err();
    let sent = api(r#"{"ok":true,"result":{"message_id":7}}"#);
    let sent = sent.send_message(5, "x").now_or_never().unwrap();
    assert_eq!(sent.unwrap().message_id, 7);
}

#[test]
fn parameters_that_are_no_object_are_refused_with_a_clear_text() {
    for params in [json!([1, 2]), json!("text"), json!(7)] {
        let api = api("");
        let outcome = api.call::<Value>("x", &params).now_or_never();
        let error = outcome.unwrap().unwrap_err();
        assert_eq!(error.to_string(), "the parameters must be a JSON object");
    }
}

#[test]
fn a_byte_order_mark_before_an_answer_is_passed_over() {
    let api = api("\u{feff}{\"ok\":true,\"result\":[1,2]}");
    let result = api.call::<Vec<u8>>("x", &()).now_or_never().unwrap();
    assert_eq!(result.unwrap(), [1, 2]);
}
