use std::{
    sync::{Arc, Barrier},
    time::Duration,
};

use futures::{FutureExt, future::join_all, poll};

use super::{ClientOptions, HyperClient};
use crate::{
    client::{HttpClient, HttpErrorKind, HttpRequest, Lane},
    testing::{
        park_on,
        peer::{Crowd, Peer},
    },
};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";

fn call(url: String) -> HttpRequest {
    let mut request = HttpRequest::new(url, "{}");
    // Longer than a test takes on a busy machine.
    request.limits.connect = Duration::from_secs(60);
    request
}

fn run(test: impl Future<Output = ()> + Send) {
    park_on(test.boxed());
}

#[test]
fn few_connects_are_under_way_however_many_calls_there_are() {
    let Some(crowd) = Crowd::gather() else { return };
    run(async {
        let client = HyperClient::new();
        let mut calls: Vec<_> = (0..100)
            .map(|_| client.send(call(crowd.url("/"))).boxed())
            .collect();
        for call in &mut calls {
            assert!(poll!(call).is_pending());
        }
        assert_eq!((crowd.knocking(), client.waiting()), (32, 68));
        // A poll waits for none of them.
        let mut poll = call(crowd.url("/"));
        poll.lane = Lane::Poll;
        let mut poll = client.send(poll).boxed();
        assert!(poll!(&mut poll).is_pending());
        assert_eq!(crowd.knocking(), 33);
        // Those that are dropped let others go on.
        calls.drain(..40);
        for call in &mut calls {
            assert!(poll!(call).is_pending());
        }
        assert_eq!((crowd.knocking(), client.waiting()), (33, 28));
        drop(calls);
        assert_eq!((crowd.knocking(), client.waiting()), (1, 0));
    });
}

#[test]
fn the_wait_for_a_connection_is_limited() {
    let Some(crowd) = Crowd::gather() else { return };
    run(async {
        let options = ClientOptions::default().max_wait(Duration::from_millis(50));
        let client = HyperClient::with_options(options);
        let mut calls: Vec<_> = (0..33)
            .map(|_| client.send(call(crowd.url("/"))).boxed())
            .collect();
        for call in &mut calls {
            assert!(poll!(call).is_pending());
        }
        let error = calls.pop().unwrap().await.unwrap_err();
        assert_eq!(error.kind(), HttpErrorKind::Busy);
        assert!(!error.may_have_been_sent());
    });
}

#[test]
fn a_second_burst_uses_the_connections_of_the_first() {
    const BURST: usize = 100;
    run(async {
        // All requests must be there before one is answered.
        let barrier = Arc::new(Barrier::new(BURST));
        let peer = Peer::start(move |connection| {
            while connection.read_request()?.is_some() {
                barrier.wait();
                connection.write(OK.as_bytes())?;
            }
            Ok(())
        });
        let client = HyperClient::new();
        for _ in 0..2 {
            let burst = join_all((0..BURST).map(|_| client.send(call(peer.url("/")))));
            assert!(burst.await.iter().all(Result::is_ok));
            assert_eq!(peer.accepted(), BURST);
        }
        drop(client);
    });
}

#[test]
fn what_the_server_closes_at_rest_is_closed_at_once() {
    run(async {
        let peer = Peer::start(|connection| {
            connection.read_request()?;
            connection.write(OK.as_bytes())?;
            connection.close_write()?;
            connection.wait_for_close();
            Ok(())
        });
        let client = HyperClient::new();
        let answers = join_all((0..10).map(|_| client.send(call(peer.url("/")))));
        assert!(answers.await.iter().all(Result::is_ok));
        for _ in 0..peer.accepted() {
            peer.closed().await;
        }
    });
}
