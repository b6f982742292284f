//! What each fault does on the wire, and what it leaves behind.

mod common;

use std::{
    io::Read,
    time::{Duration, Instant},
};

use common::{Client, SOON};
use runner_testkit::{Fault, FaultPlan, FaultRule, LocalServer, PollAnswer, Stage};

fn server(fault: Fault) -> LocalServer {
    let plan = FaultPlan::new(1).once(fault);
    let server = LocalServer::builder()
        .first_update_id(1000)
        .faults(plan)
        .start()
        .unwrap();
    server.push_message(1, 1, "a");
    server
}

/// Asserts that the next getUpdates, on the same or another connection, is answered as if nothing
/// had happened.
fn assert_recovers(server: &LocalServer, client: &mut Client) {
    assert_eq!(client.get("getUpdates?offset=999").ids(), [1000]);
    assert_eq!(
        server
            .fault_counts()
            .iter()
            .map(|(_, hits)| hits)
            .sum::<u64>(),
        1
    );
}

#[test]
fn statuses_come_with_their_bodies_and_the_connection_stays() {
    for (fault, status, body) in [
        (Fault::BadGateway, 502, "<html>"),
        (
            Fault::InternalError,
            500,
            r#""description":"Internal Server Error: restart"}"#,
        ),
        (
            Fault::TooManyRequests(7),
            429,
            r#""parameters":{"retry_after":7}}"#,
        ),
        (Fault::Conflict, 409, "terminated by other getUpdates"),
        (Fault::Unauthorized, 401, "Unauthorized"),
        (
            Fault::Forbidden,
            403,
            "Forbidden: bot was blocked by the user",
        ),
        (Fault::NotFound, 404, "Not Found"),
        (Fault::Redirect, 302, ""),
        (Fault::EmptyBody, 200, ""),
    ] {
        let server = server(fault);
        let mut client = Client::new(&server);
        let answer = client.get("getUpdates?offset=1001");
        assert_eq!(answer.status, status, "{fault:?}");
        let text = String::from_utf8(answer.body.clone()).unwrap();
        assert!(text.contains(body), "{text}");
        assert_eq!(text.is_empty(), body.is_empty());
        if let Fault::TooManyRequests(_) = fault {
            assert_eq!(answer.header("retry-after"), Some("7"));
        }
        assert_eq!(
            answer.header("location").is_some(),
            fault == Fault::Redirect
        );
        assert_eq!(server.pending(), 1, "the offset was not seen");
        assert_eq!(server.polls()[0].answer.unwrap().0, PollAnswer::Dropped);
        assert_recovers(&server, &mut client);
        assert_eq!(server.connections().opened, 1);
    }
}

#[test]
fn truncated_json_has_the_length_it_declares() {
    let server = server(Fault::TruncatedJson);
    let mut client = Client::new(&server);
    let answer = client.get("getUpdates");
    assert_eq!(answer.status, 200);
    assert!(serde_json::from_slice::<serde_json::Value>(&answer.body).is_err());
    assert_recovers(&server, &mut client);
}

#[test]
fn a_wrong_length_leaves_the_rest_in_the_way() {
    let server = server(Fault::WrongLength);
    let mut client = Client::new(&server);
    client.ask("getUpdates");
    client.ask("getMe");
    let mut text = String::new();
    while !text.ends_with("}}") {
        let mut chunk = [0; 4096];
        let count = client.stream.read(&mut chunk).unwrap();
        assert!(count > 0, "{text}");
        text.push_str(std::str::from_utf8(&chunk[..count]).unwrap());
    }
    let body = r#"{"ok":true,"result":[]}"#;
    assert!(
        text.contains(&format!("Content-Length: {}\r\n", body.len() / 2)),
        "{text}"
    );
    assert!(text.contains(&format!("{body}HTTP/1.1 200 OK")), "{text}");
    let mut client = Client::new(&server);
    assert_recovers(&server, &mut client);
}

#[test]
fn a_connection_ends_mid_body_by_a_reset_or_a_close() {
    for (fault, is_reset) in [(Fault::Reset, true), (Fault::Close, false)] {
        let server = server(fault);
        let mut client = Client::new(&server);
        client.ask("getUpdates");
        let (reset, bytes) = client.rest();
        assert_eq!(reset, is_reset, "{fault:?}");
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        assert!(text.contains("Content-Length: 23\r\n"), "{text}");
        assert!(text.ends_with("\r\n\r\n{\"ok\":true,"), "{text}");
        let mut client = Client::new(&server);
        assert_recovers(&server, &mut client);
    }
}

#[test]
fn a_close_may_come_before_any_answer() {
    let server = server(Fault::CloseUnanswered);
    let mut client = Client::new(&server);
    client.ask("getUpdates");
    client.assert_closed();
    assert_recovers(&server, &mut Client::new(&server));
}

#[test]
fn a_half_open_connection_stays_silent_until_the_server_ends() {
    let server = server(Fault::HalfOpen);
    let mut client = Client::new(&server);
    client.ask("getUpdates");
    assert!(server.wait_until(|state| state.polls == 1, SOON));
    assert_recovers(&server, &mut Client::new(&server));
    client.stream.set_nonblocking(true).unwrap();
    let error = client.stream.peek(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    client.stream.set_nonblocking(false).unwrap();
    drop(server);
    client.assert_closed();
}

#[test]
fn the_end_of_a_half_open_client_is_seen() {
    let server = server(Fault::HalfOpen);
    let mut client = Client::new(&server);
    client.ask("getUpdates");
    assert!(server.wait_until(|state| state.polls == 1, SOON));
    drop(client);
    assert!(server.wait_until(|state| state.connections.open == 0, SOON));
}

#[test]
fn a_trickle_is_slow_and_whole() {
    let server = server(Fault::Trickle(Duration::from_millis(1)));
    let mut client = Client::new(&server);
    let start = Instant::now();
    assert_eq!(client.get("getUpdates?offset=1000").ids(), [1000]);
    assert!(start.elapsed() > Duration::from_millis(100));
    assert_recovers(&server, &mut client);
}

#[test]
fn a_delay_comes_before_or_after_the_call_is_carried_out() {
    let span = Duration::from_millis(300);
    for stage in [Stage::Before, Stage::After] {
        let server = server(Fault::BadGateway);
        server.set_faults(
            FaultPlan::new(1).rule(FaultRule::new(Fault::Delay(span)).stage(stage).times(1)),
        );
        let mut client = Client::new(&server);
        let start = Instant::now();
        assert_eq!(client.get("getUpdates").ids(), [1000]);
        let answered = Instant::now();
        assert!(answered >= start + span);
        let arrived = server.polls()[0].at;
        match stage {
            Stage::Before => assert!(arrived >= start + span),
            Stage::After => assert!(arrived + span <= answered),
        }
    }
}

#[test]
fn an_oversized_answer_is_right() {
    let server = server(Fault::Oversized);
    let mut client = Client::new(&server);
    let answer = client.get("getUpdates");
    assert!(answer.body.len() >= 4 << 20);
    assert_eq!(answer.ids(), [1000]);
    assert_recovers(&server, &mut client);
}

#[test]
fn after_the_call_was_carried_out_only_the_answer_is_lost() {
    for fault in [
        Fault::BadGateway,
        Fault::Reset,
        Fault::Close,
        Fault::CloseUnanswered,
        Fault::TruncatedJson,
        Fault::EmptyBody,
    ] {
        let server = server(Fault::BadGateway);
        server.push_message(1, 1, "b");
        server
            .set_faults(FaultPlan::new(1).rule(FaultRule::new(fault).stage(Stage::After).times(2)));
        let mut client = Client::new(&server);
        client.ask("getUpdates?offset=1001");
        assert!(server.wait_until(|state| state.confirmed_offset == Some(1001), SOON));
        let mut client = Client::new(&server);
        client.ask("sendMessage?chat_id=1&text=twice");
        let call = server
            .wait_for_call(|call| call.is("sendMessage"), SOON)
            .unwrap();
        assert_eq!(call.fault, Some(fault));

        let mut client = Client::new(&server);
        let name = fault.name();
        assert_eq!(server.fault_count(name), 2, "{name}");
        assert_eq!(client.get("getUpdates?offset=1000").ids(), [1001], "{name}");
        let poll = &server.polls()[0];
        assert_eq!(poll.fault, Some(fault));
        assert_eq!(poll.answer.unwrap().0, PollAnswer::Updates(1));
    }
}

#[test]
fn cut_connections_can_be_made_anew() {
    let server = LocalServer::start().unwrap();
    let mut client = Client::new(&server);
    assert_eq!(client.get("getMe").status, 200);
    server.cut_connections();
    client.assert_closed();
    assert_eq!(Client::new(&server).get("getMe").status, 200);
}
