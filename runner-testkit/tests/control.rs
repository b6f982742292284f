//! The control API, as another process would use it.

mod common;

use std::{
    thread,
    time::{Duration, Instant},
};

use common::{Client, SOON};
use runner_testkit::LocalServer;
use serde_json::json;

fn server() -> LocalServer {
    LocalServer::builder()
        .first_update_id(1000)
        .start()
        .unwrap()
}

fn post(client: &mut Client, path: &str, body: &serde_json::Value) -> common::Answer {
    let body = body.to_string();
    client.send(format!(
        "POST /control/{path} HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    client.answer()
}

#[test]
fn updates_are_pushed_and_calls_are_read() {
    let server = server();
    let mut client = Client::new(&server);
    let answer = post(
        &mut client,
        "message",
        &json!({"chat_id": 7, "text": "caf\u{e9}"}),
    );
    assert_eq!(answer.json()["result"], json!({"update_id": 1000}));
    let updates = json!([{"update_id": 3, "poll": {"id": "1"}}, {"chat_member": {}}, {"new": 1}]);
    let answer = post(&mut client, "updates", &json!({"updates": updates}));
    assert_eq!(
        answer.json()["result"],
        json!({"update_ids": [1001, null, 1002]})
    );
    assert_eq!(client.get("getUpdates").ids(), [1000, 1001, 1002]);
    assert_eq!(
        client.get("getUpdates").json()["result"][0]["message"]["text"],
        "caf\u{e9}"
    );

    client.get("getMe");
    client.get("sendMessage?chat_id=7&text=hi&text=again");
    let answer = client.get_path("/control/calls?method=sendmessage");
    assert_eq!(
        answer.json()["result"],
        json!([{
            "index": 1,
            "method": "sendMessage",
            "params": {"chat_id": "7", "text": "hi"},
            "connection": 1,
        }])
    );
    let answer = client.get_path("/control/calls?since=1");
    assert_eq!(answer.json()["result"].as_array().unwrap().len(), 1);

    let state = client.get_path("/control/state").json();
    assert_eq!(
        state["result"],
        json!({
            "pending": 3,
            "confirmed_offset": null,
            "next_update_id": 1003,
            "is_polled": false,
            "calls": 2,
            "polls": 2,
            "connections_opened": 1,
            "connections_open": 1,
            "faults": {},
        })
    );
}

#[test]
fn a_call_is_waited_for() {
    let server = server();
    let mut watcher = Client::new(&server);
    let answer = watcher.get_path("/control/wait?timeout=0.01");
    assert_eq!(answer.json()["result"], json!(null));

    watcher.send("GET /control/wait?method=sendMessage&timeout=60 HTTP/1.1\r\n\r\n");
    let mut client = Client::new(&server);
    client.get("getMe");
    client.get("sendMessage?chat_id=1&text=a");
    assert_eq!(watcher.answer().json()["result"]["method"], "sendMessage");
    // What was made before counts as well.
    let answer = watcher.get_path("/control/wait?method=getMe&timeout=60");
    assert_eq!(answer.json()["result"]["index"], 0);
}

#[test]
fn a_wait_ends_with_the_server() {
    let server = server();
    let mut watcher = Client::new(&server);
    watcher.send("GET /control/wait?timeout=300 HTTP/1.1\r\n\r\n");
    assert!(server.wait_until(|state| state.connections.open == 1, SOON));
    let start = Instant::now();
    drop(server);
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[test]
fn faults_are_set_and_cleared() {
    let server = server();
    let mut client = Client::new(&server);
    let rule = json!({
        "fault": "too_many_requests",
        "seconds": 4,
        "method": "getMe",
        "stage": "after",
        "skip": 1,
        "times": 1,
    });
    assert_eq!(post(&mut client, "fault", &rule).json()["result"], true);
    assert_eq!(client.get("getMe").status, 200);
    assert_eq!(client.get("getMe").header("retry-after"), Some("4"));
    assert_eq!(client.get("getMe").status, 200);
    assert_eq!(server.calls_of("getMe").len(), 3);

    let rule = json!({"fault": "internal_error", "param": "chat_id", "value": "7"});
    post(&mut client, "fault", &rule);
    assert_eq!(client.get("sendMessage?chat_id=8&text=7").status, 200);
    assert_eq!(client.get("sendMessage?chat_id=7&text=8").status, 500);

    post(&mut client, "fault", &json!({"fault": "bad_gateway"}));
    assert_eq!(client.get("getMe").status, 502);
    client.get_path("/control/clear_faults");
    assert_eq!(client.get("getMe").status, 200);
    let state = client.get_path("/control/state").json();
    assert_eq!(
        state["result"]["faults"],
        json!({"too_many_requests": 1, "internal_error": 1, "bad_gateway": 1})
    );
}

#[test]
fn what_is_wrong_with_a_request_is_said() {
    let server = server();
    let mut client = Client::new(&server);
    for (path, status, description) in [
        ("nothing", 404, "Not Found: no such control"),
        ("message", 400, "Bad Request: chat_id is missing"),
        (
            "updates?updates=1",
            400,
            "Bad Request: updates is not an array of objects",
        ),
        ("fault?fault=flood", 400, "Bad Request: no such fault"),
        (
            "fault?fault=reset&times=x",
            400,
            "Bad Request: times is not a count",
        ),
        (
            "fault?fault=reset&chance=x",
            400,
            "Bad Request: chance is not a number",
        ),
        (
            "fault?fault=reset&stage=x",
            400,
            "Bad Request: stage is neither before nor after",
        ),
        (
            "fault?fault=reset&param=text",
            400,
            "Bad Request: value is missing",
        ),
        ("wait?timeout=-1", 400, "Bad Request: timeout is not a span"),
    ] {
        let answer = client.get_path(&format!("/control/{path}"));
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.description(), description, "{path}");
    }
}

#[test]
fn many_clients_are_served_at_once_and_no_thread_is_left() {
    let server = server();
    thread::scope(|scope| {
        for chat in 0..16 {
            let server = &server;
            scope.spawn(move || {
                let mut client = Client::new(server);
                for _ in 0..50 {
                    let answer = client.get(&format!("sendMessage?chat_id={chat}&text=a"));
                    assert_eq!(answer.status, 200);
                }
            });
        }
    });
    let calls = server.calls();
    assert_eq!(calls.len(), 800);
    assert!(
        calls
            .iter()
            .zip(0..)
            .all(|(call, index)| call.index == index)
    );
    assert!(server.wait_until(|state| state.connections.open == 0, SOON));
}

#[test]
fn what_is_new_is_seen_without_what_was_there_before() {
    let server = server();
    let mut client = Client::new(&server);
    assert!(server.calls_since(0).is_empty());
    client.get("sendMessage?chat_id=7&text=one");
    client.get("getMe");
    client.get("sendMessage?chat_id=7&text=");
    let indices = |index| -> Vec<u64> {
        let calls = server.calls_since(index);
        calls.iter().map(|call| call.index).collect()
    };
    assert_eq!(indices(0), [0, 1, 2]);
    assert_eq!(indices(2), [2]);
    assert!(indices(3).is_empty() && indices(u64::MAX).is_empty());
    let sent: Vec<_> = server
        .calls()
        .iter()
        .map(|call| call.message_id.is_some())
        .collect();
    assert_eq!(sent, [true, false, false]);

    // Numbers go on when the list is emptied.
    server.forget_records();
    assert!(indices(0).is_empty());
    client.get("getMe");
    assert_eq!(
        (indices(0), indices(3), indices(4)),
        (vec![3], vec![3], vec![])
    );

    assert!(server.wait_for_calls_since(4, Duration::ZERO).is_empty());
    let calls = thread::scope(|scope| {
        let waiting = scope.spawn(|| server.wait_for_calls_since(4, SOON));
        client.get("close");
        waiting.join().unwrap()
    });
    assert_eq!(calls[0].method, "close");
}

#[test]
fn edits_and_presses_refer_to_messages() {
    let server = server();
    let mut client = Client::new(&server);
    let written = server.push_editable(-5, 7, "first").unwrap();
    client.get("sendMessage?chat_id=-5&text=press");
    let sent = server.calls()[0].message_id.unwrap();
    assert_ne!(written, sent);
    assert_eq!(server.push_edit(-5, 7, written, "second"), Some(1001));
    assert_eq!(server.push_callback(-5, 7, sent, "\"y\""), Some(1002));

    let updates = client.get("getUpdates").json()["result"].take();
    let edited = &updates[1]["edited_message"];
    assert_eq!(edited["message_id"], written);
    assert_eq!(edited["text"], "second");
    assert!(edited["edit_date"].is_i64());
    assert_eq!(edited["from"]["id"], 7);
    let query = &updates[2]["callback_query"];
    assert_eq!(query["message"]["message_id"], sent);
    assert_eq!(query["message"]["text"], "press");
    assert_eq!(query["message"]["from"]["id"], server.bot_id());
    assert_eq!(query["message"]["chat"]["id"], -5);
    assert_eq!(query["data"], "\"y\"");
    assert!(query["id"].is_string());

    client.get("getUpdates?offset=1003&allowed_updates=[%22poll%22]");
    assert_eq!(server.push_edit(-5, 7, written, "third"), None);
    assert_eq!(server.push_editable(-5, 7, "fourth"), None);
}

/// The closure of a wait may look at the server, as everything around it does.
#[test]
fn a_wait_may_use_the_server_in_its_closure_and_ends_in_time() {
    let (done, ended) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let server = server();
        let short = Duration::from_millis(50);
        let until = server.wait_until(|_| !server.calls_of("getMe").is_empty(), short);
        let mut client = Client::new(&server);
        client.get("getMe");
        let until_now = server.wait_until(|_| !server.calls_of("getMe").is_empty(), SOON);
        let call = server.wait_for_call(|call| server.calls().len() == 1 && call.is("getMe"), SOON);
        let poll = server.wait_for_poll(|_| server.pending() > 0, short);
        let _ = done.send((until, until_now, call.is_some(), poll.is_some()));
    });
    let seen = ended.recv_timeout(SOON).expect("it ends in time");
    assert_eq!(seen, (false, true, true, false));
}
