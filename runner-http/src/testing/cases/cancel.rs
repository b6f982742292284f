//! What is left of a request whose future was dropped: nothing.

use std::{
    pin::pin,
    time::{Duration, Instant},
};

use futures::future::{Either, join_all, select};

use super::{JSON, LANES, Lab, PATH, call, cases, eventually, limited, ok, to};
use crate::{
    client::{HttpClient, HttpRequest},
    testing::peer::{Crowd, Peer},
};

cases![
    a_dropped_future_closes_its_connection,
    a_future_dropped_in_the_body_closes_its_connection,
    dropped_futures_leave_places_free,
    dropped_futures_leave_no_thread_and_no_descriptor,
    a_future_dropped_at_once_is_harmless,
    a_future_dropped_in_a_connect_leaves_its_place_free,
];

async fn a_dropped_future_closes_its_connection<C: HttpClient>(lab: &Lab<'_, C>) {
    let peer = Peer::silent();
    let client = lab.client();
    for lane in LANES {
        for _ in 0..CANCELS {
            let dropped = cancel(lab, &client, &peer, to(peer.url(PATH), lane)).await;
            let closed = lab.soon(peer.closed()).await;
            let took = closed.saturating_duration_since(dropped);
            assert!(took < BOUND, "{lane:?}: closed after {took:?}");
            lab.cancels.lock().expect("no case panicked").push(took);
        }
    }
    assert_eq!(peer.accepted(), 2 * CANCELS);
}

async fn a_future_dropped_in_the_body_closes_its_connection<C: HttpClient>(lab: &Lab<'_, C>) {
    let peer = Peer::start(|connection| {
        connection.read_request()?;
        connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf of it")?;
        connection.wait_for_close();
        Ok(())
    });
    let client = lab.client();
    for lane in LANES {
        for _ in 0..10 {
            let dropped = cancel(lab, &client, &peer, to(peer.url(PATH), lane)).await;
            let closed = lab.soon(peer.closed()).await;
            let took = closed.saturating_duration_since(dropped);
            assert!(took < BOUND, "{lane:?}: closed after {took:?}");
        }
    }
}

async fn dropped_futures_leave_places_free<C: HttpClient>(lab: &Lab<'_, C>) {
    let silent = Peer::silent();
    let peer = Peer::answering(ok(JSON));
    let client = lab.client();
    // Many at once, most of which wait for a place, and then many one after the other.
    let mut flood = join_all((0..CANCELS).map(|_| client.send(call(&silent))));
    match select(&mut flood, pin!(silent.requested())).await {
        Either::Left(_) => panic!("answered by a silent peer"),
        Either::Right(_) => drop(flood),
    }
    for _ in 0..CANCELS {
        cancel(lab, &client, &silent, call(&silent)).await;
    }
    for lane in LANES {
        lab.answer(&client, to(peer.url(PATH), lane)).await;
    }
    assert_eq!(peer.accepted(), 2);
}

async fn dropped_futures_leave_no_thread_and_no_descriptor<C: HttpClient>(lab: &Lab<'_, C>) {
    let silent = Peer::silent();
    let peer = Peer::answering(ok(JSON));
    // Whatever a client starts once for the whole process is started now.
    lab.answer(&lab.client(), call(&peer)).await;
    lab.soon(peer.closed()).await;
    let Some(before) = Counts::now() else {
        return;
    };

    let client = lab.client();
    lab.answer(&client, call(&peer)).await;
    let working = Counts::now().expect("it was there before");
    for _ in 0..CANCELS {
        cancel(lab, &client, &silent, call(&silent)).await;
        lab.soon(silent.closed()).await;
    }
    lab.answer(&client, call(&peer)).await;
    eventually(
        "as many threads and descriptors as before the cancels",
        || Counts::now().is_some_and(|now| now.is_at_most(working)),
    );

    drop(client);
    eventually(
        "as many threads and descriptors as before the client",
        || Counts::now().is_some_and(|now| now.is_at_most(before)),
    );
}

async fn a_future_dropped_at_once_is_harmless<C: HttpClient>(lab: &Lab<'_, C>) {
    let peer = Peer::answering(ok(JSON));
    let client = lab.client();
    for lane in LANES {
        for _ in 0..CANCELS {
            // Never polled, and polled once: the request may be anywhere on its way.
            drop(client.send(to(peer.url(PATH), lane)));
            let mut polled = pin!(client.send(to(peer.url(PATH), lane)));
            let _ = futures::poll!(&mut polled);
        }
        lab.answer(&client, to(peer.url(PATH), lane)).await;
    }
}

async fn a_future_dropped_in_a_connect_leaves_its_place_free<C: HttpClient>(lab: &Lab<'_, C>) {
    let Some(crowd) = Crowd::gather() else { return };
    let peer = Peer::answering(ok(JSON));
    let client = lab.client();
    for lane in LANES {
        for _ in 0..10 {
            let request = limited(to(crowd.url(PATH), lane), |limits| {
                limits.connect = CONNECT;
            });
            let mut hanging = pin!(client.send(request));
            assert!(futures::poll!(&mut hanging).is_pending());
        }
        let start = Instant::now();
        lab.answer(&client, to(peer.url(PATH), lane)).await;
        let took = start.elapsed();
        assert!(took < CONNECT / 2, "{lane:?}: answered after {took:?}");
    }
}

/// Sends a request, drops the future when the peer has read it, and returns when that was.
async fn cancel<C: HttpClient>(
    lab: &Lab<'_, C>,
    client: &C,
    peer: &Peer,
    request: HttpRequest,
) -> Instant {
    let sent = Box::pin(client.send(request));
    match lab.soon(select(sent, pin!(peer.requested()))).await {
        Either::Left(_) => panic!("ended before it was cancelled"),
        Either::Right((_, sent)) => {
            let now = Instant::now();
            drop(sent);
            now
        }
    }
}

/// What the process has now.
#[derive(Clone, Copy, Debug)]
struct Counts {
    threads: usize,
    descriptors: usize,
}

impl Counts {
    /// None where there is no `/proc`.
    fn now() -> Option<Self> {
        let count = |path| std::fs::read_dir(path).ok().map(Iterator::count);
        Some(Self {
            threads: count("/proc/self/task")?,
            descriptors: count("/proc/self/fd")?,
        })
    }

    const fn is_at_most(self, other: Self) -> bool {
        self.threads <= other.threads && self.descriptors <= other.descriptors
    }
}

/// More than any client has threads, and enough to measure.
const CANCELS: usize = 100;

/// How long a connect hangs if nothing cuts it.
const CONNECT: Duration = Duration::from_secs(2);

/// The contract says 50 ms; a busy machine may need longer to notice.
const BOUND: Duration = Duration::from_secs(1);
