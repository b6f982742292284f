//! getUpdates and the webhook methods, over real sockets and real time.

mod common;

use std::time::{Duration, Instant};

use common::{Client, SOON};
use runner_testkit::{LocalServer, PollAnswer};
use serde_json::json;

fn server() -> LocalServer {
    LocalServer::builder()
        .first_update_id(1000)
        .start()
        .unwrap()
}

#[test]
fn updates_are_pushed_read_and_confirmed() {
    let server = server();
    assert_eq!(server.push_message(7, 7, "/start caf\u{e9}"), Some(1000));
    assert_eq!(server.push("poll", json!({"id": "1"})), Some(1001));
    let batch = server.push_batch([("poll", "{}"), ("chat_member", "{}"), ("new_kind", "1")]);
    assert_eq!(batch, [Some(1002), None, Some(1003)]);

    let mut client = Client::new(&server);
    let answer = client.get("getUpdates");
    assert_eq!(answer.ids(), [1000, 1001, 1002, 1003]);
    assert!(answer.body.is_ascii());
    assert!(
        answer
            .body
            .starts_with(b"{\"ok\":true,\"result\":[{\"update_id\":1000,\n\"message\":{")
    );
    let message = &answer.json()["result"][0]["message"];
    assert_eq!(message["text"], "/start caf\u{e9}");
    assert_eq!(message["entities"][0]["length"], 6);
    assert_eq!(server.pending(), 4);
    assert_eq!(server.confirmed_offset(), None);

    assert_eq!(client.get("getUpdates?offset=1003").ids(), [1003]);
    assert_eq!(server.confirmed_offset(), Some(1003));
    assert_eq!(server.pending(), 1);
    let polls = server.polls();
    assert_eq!(polls[1].params.get("offset"), Some("1003"));
    assert_eq!(polls[0].answer.unwrap().0, PollAnswer::Updates(4));
}

#[test]
fn a_poll_waits_for_an_update() {
    let server = server();
    let mut client = Client::new(&server);
    client.ask("getUpdates?timeout=50");
    assert!(server.wait_until(|state| state.is_polled, SOON));
    server.push_message(1, 1, "a");
    assert_eq!(client.answer().ids(), [1000]);
    assert!(!server.snapshot().is_polled);
    let poll = &server.polls()[0];
    let (answer, at) = poll.answer.unwrap();
    assert_eq!(answer, PollAnswer::Updates(1));
    assert!(at >= poll.at + Duration::from_millis(1), "the window");
}

#[test]
fn a_poll_ends_empty_at_its_timeout() {
    let server = server();
    let mut client = Client::new(&server);
    let start = Instant::now();
    assert!(client.get("getUpdates?timeout=1").ids().is_empty());
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[test]
fn a_second_poll_ends_the_first_and_a_third_the_second_three_seconds_late() {
    let server = server();
    let mut clients = [0; 3].map(|_| Client::new(&server));
    for (index, client) in clients.iter_mut().enumerate() {
        client.ask("getUpdates?timeout=50");
        let polls = index as u64 + 1;
        assert!(server.wait_until(|state| state.polls == polls && state.is_polled, SOON));
    }
    let start = Instant::now();
    let text = "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running";
    assert_eq!(clients[0].answer().description(), text);
    assert_eq!(clients[1].answer().description(), text);
    assert!(start.elapsed() > Duration::from_secs(2));
    server.push_message(1, 1, "a");
    assert_eq!(clients[2].answer().ids(), [1000]);
    assert_eq!(
        server.polls()[1].answer.unwrap().0,
        PollAnswer::Refused(409)
    );
}

#[test]
fn a_client_that_hangs_up_is_seen_but_its_poll_goes_on() {
    let server = server();
    let mut client = Client::new(&server);
    client.ask("getUpdates?timeout=50");
    assert!(server.wait_until(|state| state.is_polled, SOON));
    drop(client);
    assert!(server.wait_until(|state| state.connections.open == 0, SOON));
    assert!(server.snapshot().is_polled, "the orphan stays");
    server.push_message(1, 1, "a");
    assert!(server.wait_until(|state| !state.is_polled, SOON));
    assert_eq!(server.pending(), 1, "what was sent to it is not lost");
    assert_eq!(
        Client::new(&server).get("getUpdates?offset=1").ids(),
        [1000]
    );
}

#[test]
fn a_webhook_keeps_polls_out_until_it_is_deleted() {
    let server = server();
    server.push_message(1, 1, "a");
    let mut client = Client::new(&server);
    let answer = client.get("setWebhook?url=http://bot.example");
    assert_eq!(
        answer.description(),
        "Bad Request: bad webhook: An HTTPS URL must be provided for webhook"
    );
    let answer = client.get("setWebhook?url=https://bot.example/&allowed_updates=[\"poll\"]");
    assert_eq!(answer.json()["description"], "Webhook was set");
    let answer = client.get("setWebhook?url=https://bot.example/2");
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(answer.json()["parameters"]["retry_after"], 1);

    let answer = client.get("getUpdates");
    assert_eq!(
        answer.description(),
        "Conflict: can't use getUpdates method while webhook is active; use deleteWebhook to delete the webhook first"
    );
    let info = client.get("getWebhookInfo").json();
    assert_eq!(
        info["result"],
        json!({
            "url": "https://bot.example/",
            "has_custom_certificate": false,
            "pending_update_count": 1,
            "allowed_updates": ["poll"],
        })
    );
    let answer = client.get("deleteWebhook");
    assert_eq!(answer.json()["description"], "Webhook was deleted");
    assert_eq!(client.get("getUpdates").ids(), [1000]);

    let answer = client.get("deleteWebhook?drop_pending_updates=Yes");
    assert_eq!(answer.json()["description"], "Webhook is already deleted");
    assert_eq!(server.pending(), 0);
    assert_eq!(server.push("poll", json!({})), Some(1001));
}

#[test]
fn setting_a_webhook_ends_a_wait() {
    let server = server();
    let mut client = Client::new(&server);
    client.ask("getUpdates?timeout=50");
    assert!(server.wait_until(|state| state.is_polled, SOON));
    server.set_webhook("https://bot.example/");
    let answer = client.answer();
    assert_eq!(
        answer.description(),
        "Conflict: terminated by setWebhook request"
    );
}

#[test]
fn allowed_updates_apply_when_an_update_is_made() {
    let server = server();
    let mut client = Client::new(&server);
    server.push_message(1, 1, "a");
    let ids = client
        .get("getUpdates?allowed_updates=[\"chat_member\",\"poll\"]")
        .ids();
    assert_eq!(ids, [1000], "what is queued still comes");
    assert_eq!(server.push_message(1, 1, "b"), None);
    assert_eq!(server.push("chat_member", json!({})), Some(1001));
}

#[test]
fn updates_expire_by_the_calendar() {
    let server = server();
    server.push("inline_query", json!({"id": "1"}));
    server.push_message(1, 1, "a");
    server.advance_calendar(Duration::from_secs(60));
    assert_eq!(server.pending(), 2);
    assert_eq!(Client::new(&server).get("getUpdates").ids(), [1001]);
    server.advance_calendar(Duration::from_secs(86_400));
    server.collect_expired();
    assert_eq!(server.pending(), 0);
}

#[test]
fn after_a_jump_of_the_ids_a_stale_offset_brings_the_same_again() {
    let server = LocalServer::builder()
        .first_update_id(5_000_000)
        .start()
        .unwrap();
    let mut client = Client::new(&server);
    server.rerandomise_ids(true);
    let id = server.push_message(1, 1, "a").unwrap();
    assert!(id < 5_000_000);
    for _ in 0..2 {
        assert_eq!(client.get("getUpdates?offset=5000001").ids(), [id]);
    }
    assert_eq!(server.pending(), 1);
    server.push_message(1, 1, "b");
    assert_eq!(
        client.get(&format!("getUpdates?offset={}", id + 1)).ids(),
        [id + 1]
    );
}

#[test]
fn a_server_that_closes_or_a_token_that_is_revoked_lets_go_of_the_poll() {
    let server = server();
    let mut client = Client::new(&server);
    client.ask("getUpdates?timeout=50");
    assert!(server.wait_until(|state| state.is_polled, SOON));
    server.set_closing(true);
    assert!(client.answer().ids().is_empty());
    let answer = client.get("getUpdates");
    assert_eq!(answer.description(), "Too Many Requests: retry after 5");
    server.set_closing(false);

    client.ask("getUpdates?timeout=50");
    assert!(server.wait_until(|state| state.is_polled, SOON));
    server.revoke_token(true);
    assert!(client.answer().ids().is_empty());
    assert_eq!(client.get("getMe").description(), "Unauthorized");
    server.revoke_token(false);

    assert_eq!(client.get("close").json()["result"], true);
    server.push_message(1, 1, "a");
    assert_eq!(client.get("logOut").json()["result"], true);
    assert_eq!(server.pending(), 0);
    assert_eq!(client.get("getMe").description(), "Logged out");
}

#[test]
fn dropping_the_server_cuts_what_waits_and_ends_its_threads() {
    let server = server();
    let mut waiting = Client::new(&server);
    waiting.ask("getUpdates?timeout=50");
    let mut idle = Client::new(&server);
    assert_eq!(idle.get("getMe").status, 200);
    let mut partial = Client::new(&server);
    partial.send("GET /bot");
    assert!(server.wait_until(|state| state.is_polled && state.connections.open == 3, SOON));
    let address = server.address();

    let start = Instant::now();
    drop(server);
    assert!(start.elapsed() < Duration::from_secs(2));
    for client in [&mut waiting, &mut idle, &mut partial] {
        assert!(client.try_answer().is_none());
    }
    assert!(std::net::TcpStream::connect(address).is_err());
}
