//! What is sent, and over which connections.

use futures::future::join_all;

use super::{JSON, LANES, Lab, PATH, answer, call, cases, ok, poll, to};
use crate::{
    client::{HttpClient, HttpErrorKind},
    testing::peer::{Peer, header},
};

cases![
    sends_a_json_post,
    keeps_connections,
    polls_have_connections_of_their_own,
    replaces_a_connection_closed_at_rest,
    repeats_a_poll_on_a_stale_connection_once,
    repeats_a_call_at_most_once,
    repeats_nothing_on_a_new_connection,
    leaves_a_connection_with_surplus_bytes,
    leaves_a_connection_that_the_server_wants_closed,
    a_flood_of_calls_delays_no_poll,
    many_calls_at_once,
    calls_that_are_held_keep_no_other_waiting,
];

async fn sends_a_json_post<C: HttpClient>(lab: &Lab<'_, C>) {
    let (sender, seen) = async_channel::unbounded();
    let peer = Peer::start(move |connection| {
        while let Some(request) = connection.read_request()? {
            let _ = sender.try_send(request);
            connection.write(&ok(JSON))?;
        }
        Ok(())
    });
    let client = lab.client();
    for lane in LANES {
        let response = lab.answer(&client, to(peer.url(PATH), lane)).await;
        assert_eq!(
            (response.status, &response.body[..]),
            (200, JSON.as_bytes())
        );
        assert_eq!(response.retry_after, None);
        let request = lab
            .soon(seen.recv())
            .await
            .expect("the peer holds a sender");
        assert!(
            request
                .head
                .starts_with(&format!("POST {PATH} HTTP/1.1\r\n")),
            "the request line is another"
        );
        assert_eq!(request.body, br#"{"offset":1}"#);
        let value = |name| header(&request.head, name).unwrap_or_default().to_owned();
        assert_eq!(value("content-type"), "application/json");
        assert_eq!(format!("http://{}", value("host")), peer.url(""));
        assert!(value("accept-encoding").contains("gzip"));
    }
}

async fn keeps_connections<C: HttpClient>(lab: &Lab<'_, C>) {
    for lane in LANES {
        let peer = Peer::answering(ok(JSON));
        let client = lab.client();
        for _ in 0..30 {
            lab.answer(&client, to(peer.url(PATH), lane)).await;
        }
        assert_eq!((peer.requests(), peer.accepted()), (30, 1), "{lane:?}");
    }
}

async fn polls_have_connections_of_their_own<C: HttpClient>(lab: &Lab<'_, C>) {
    let peer = Peer::answering(ok(JSON));
    let client = lab.client();
    for _ in 0..3 {
        lab.answer(&client, call(&peer)).await;
        lab.answer(&client, poll(&peer)).await;
    }
    assert_eq!(peer.accepted(), 2);
}

async fn replaces_a_connection_closed_at_rest<C: HttpClient>(lab: &Lab<'_, C>) {
    for lane in LANES {
        let peer = Peer::start(|connection| {
            connection.read_request()?;
            connection.write(&ok(JSON))
        });
        let client = lab.client();
        for _ in 0..5 {
            lab.answer(&client, to(peer.url(PATH), lane)).await;
            lab.soon(peer.closed()).await;
        }
        assert_eq!((peer.requests(), peer.accepted()), (5, 5), "{lane:?}");
    }
}

/// Answers one request on each connection, and closes it when the next one was read.
fn stale() -> Peer {
    Peer::start(|connection| {
        connection.read_request()?;
        connection.write(&ok(JSON))?;
        connection.read_request()?;
        Ok(())
    })
}

async fn repeats_a_poll_on_a_stale_connection_once<C: HttpClient>(lab: &Lab<'_, C>) {
    let peer = stale();
    let client = lab.client();
    lab.answer(&client, poll(&peer)).await;
    lab.answer(&client, poll(&peer)).await;
    assert_eq!((peer.requests(), peer.accepted()), (3, 2));

    // The second connection fails too.
    let peer = Peer::start(|connection| {
        connection.read_request()?;
        if connection.number == 0 {
            connection.write(&ok(JSON))?;
            connection.read_request()?;
        }
        Ok(())
    });
    let client = lab.client();
    lab.answer(&client, poll(&peer)).await;
    lab.failure(&client, poll(&peer), &[HttpErrorKind::Closed])
        .await;
    assert_eq!((peer.requests(), peer.accepted()), (3, 2));
}

async fn repeats_a_call_at_most_once<C: HttpClient>(lab: &Lab<'_, C>) {
    let peer = stale();
    let client = lab.client();
    lab.answer(&client, call(&peer)).await;
    match lab.soon(client.send(call(&peer))).await {
        Ok(_) => assert_eq!(peer.requests(), 3),
        Err(error) => {
            assert_eq!(error.kind(), HttpErrorKind::Closed);
            assert_eq!(peer.requests(), 2);
        }
    }
}

async fn repeats_nothing_on_a_new_connection<C: HttpClient>(lab: &Lab<'_, C>) {
    for lane in LANES {
        let peer = Peer::start(|connection| connection.read_request().map(drop));
        let client = lab.client();
        lab.failure(&client, to(peer.url(PATH), lane), &[HttpErrorKind::Closed])
            .await;
        assert_eq!((peer.requests(), peer.accepted()), (1, 1), "{lane:?}");
    }
}

async fn leaves_a_connection_with_surplus_bytes<C: HttpClient>(lab: &Lab<'_, C>) {
    let mut surplus = ok(JSON);
    surplus.extend_from_slice(b"and what the length does not cover");
    let peer = Peer::answering(surplus);
    let client = lab.client();
    for _ in 0..3 {
        let response = lab.answer(&client, call(&peer)).await;
        assert_eq!(&response.body[..], JSON.as_bytes());
    }
    assert_eq!(peer.accepted(), 3);
}

async fn leaves_a_connection_that_the_server_wants_closed<C: HttpClient>(lab: &Lab<'_, C>) {
    // The peer does not close it itself, so only the client can.
    let peer = Peer::answering(answer("200 OK", "Connection: close\r\n", JSON));
    let client = lab.client();
    for _ in 0..3 {
        lab.answer(&client, call(&peer)).await;
        lab.soon(peer.closed()).await;
    }
    assert_eq!(peer.accepted(), 3);
}

async fn a_flood_of_calls_delays_no_poll<C: HttpClient>(lab: &Lab<'_, C>) {
    let silent = Peer::silent();
    let peer = Peer::answering(ok(JSON));
    let client = lab.client();
    let flood = join_all((0..FLOOD).map(|_| client.send(call(&silent))));
    let polls = async {
        // The flood has begun.
        silent.requested().await;
        for _ in 0..3 {
            lab.answer(&client, poll(&peer)).await;
        }
    };
    match lab
        .soon(futures::future::select(flood, std::pin::pin!(polls)))
        .await
    {
        futures::future::Either::Left(_) => panic!("a call was answered by a silent peer"),
        futures::future::Either::Right((_, flood)) => drop(flood),
    }
    // Every connection that was opened is closed again.
    for _ in 0..silent.accepted() {
        lab.soon(silent.closed()).await;
    }
    lab.answer(&client, call(&peer)).await;
}

async fn many_calls_at_once<C: HttpClient>(lab: &Lab<'_, C>) {
    let peer = Peer::answering(ok(JSON));
    let client = lab.client();
    let answers = lab
        .soon(join_all((0..FLOOD).map(|_| client.send(call(&peer)))))
        .await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(peer.requests(), FLOOD);
}

async fn calls_that_are_held_keep_no_other_waiting<C: HttpClient>(lab: &Lab<'_, C>) {
    let silent = Peer::silent();
    let peer = Peer::answering(ok(JSON));
    let client = lab.client();
    let held = join_all((0..HELD).map(|_| client.send(call(&silent))));
    let next = async {
        silent.requested().await;
        lab.answer(&client, call(&peer)).await;
    };
    match lab
        .soon(futures::future::select(held, std::pin::pin!(next)))
        .await
    {
        futures::future::Either::Left(_) => panic!("a call was answered by a silent peer"),
        futures::future::Either::Right(((), held)) => drop(held),
    }
}

/// As many as a bot may have in slow mode, or while it sends files by URL.
const HELD: usize = 60;

/// More than any client has threads.
const FLOOD: usize = 100;
