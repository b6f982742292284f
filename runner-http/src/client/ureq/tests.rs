use std::{
    num::NonZeroUsize,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Wake, Waker},
    time::{Duration, Instant},
};

use futures::{FutureExt, future::join_all, poll};

use super::{ClientOptions, UreqClient};
use crate::{
    client::{HttpClient, HttpError, HttpErrorKind, HttpRequest, HttpResponse, Lane},
    testing::{
        park_on,
        peer::{Crowd, Peer},
    },
};

type Sent<'a> = Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'a>>;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";

fn client(threads: usize) -> UreqClient {
    let threads = NonZeroUsize::new(threads).unwrap();
    UreqClient::with_options(ClientOptions::default().threads(threads))
}

fn send<'a>(client: &'a UreqClient, url: &str, lane: Lane) -> Sent<'a> {
    let mut request = HttpRequest::new(url, "{}");
    request.lane = lane;
    // Longer than a test takes on a busy machine.
    request.limits.connect = Duration::from_secs(60);
    client.send(request).boxed()
}

fn run(test: impl Future<Output = ()> + Send) {
    park_on(test.boxed());
}

/// What `Debug` says of the calls: threads, idle, waiting, cut.
fn calls(client: &UreqClient) -> (usize, usize, usize, usize) {
    client.calls.counts()
}

fn eventually(client: &UreqClient, are_as: impl Fn((usize, usize, usize, usize)) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !are_as(calls(client)) {
        assert!(Instant::now() < deadline, "stays at {:?}", calls(client));
        std::thread::yield_now();
    }
}

#[test]
fn further_calls_wait_for_a_thread() {
    run(async {
        let peer = Peer::silent();
        let client = client(2);
        let mut sent = (0..5)
            .map(|_| send(&client, &peer.url("/"), Lane::Call))
            .collect::<Vec<_>>();
        for call in &mut sent {
            assert!(poll!(call).is_pending());
        }
        assert_eq!(calls(&client), (2, 0, 3, 0));
        // One that waits is forgotten; one that runs makes room for one that waits.
        drop(sent.pop());
        assert_eq!(calls(&client), (2, 0, 2, 0));
        peer.requested().await;
        peer.requested().await;
        drop(sent.remove(0));
        peer.requested().await;
        assert_eq!(peer.accepted(), 3);
        // Those that waited are idle now: how many depends on how far they got.
        drop(sent);
        eventually(&client, |(threads, idle, waiting, cut)| {
            threads == idle && waiting == 0 && cut == 0
        });
    });
}

#[test]
fn one_thread_serves_calls_one_after_the_other() {
    run(async {
        let peer = Peer::answering(OK);
        let client = client(8);
        for _ in 0..20 {
            send(&client, &peer.url("/"), Lane::Call).await.unwrap();
        }
        assert_eq!(calls(&client), (1, 1, 0, 0));
        assert_eq!(peer.accepted(), 1);

        let answers = join_all((0..50).map(|_| send(&client, &peer.url("/"), Lane::Call))).await;
        assert!(answers.iter().all(Result::is_ok));
        assert_eq!(calls(&client), (8, 8, 0, 0));
        assert_eq!(peer.accepted(), 8);
    });
}

#[test]
fn the_wait_for_a_thread_is_visible_and_limited() {
    run(async {
        let peer = Peer::silent();
        let options = ClientOptions::default()
            .threads(NonZeroUsize::MIN)
            .max_wait(Duration::from_millis(150));
        let client = UreqClient::with_options(options);
        let mut held = send(&client, &peer.url("/"), Lane::Call);
        assert!(poll!(&mut held).is_pending());
        let mut call = send(&client, &peer.url("/"), Lane::Call);
        assert!(poll!(&mut call).is_pending());
        assert_eq!(client.waiting(), 1);
        let error = call.await.unwrap_err();
        assert_eq!(error.kind(), HttpErrorKind::Busy);
        assert!(!error.may_have_been_sent());
        assert_eq!(client.waiting(), 0);
        // A poll has a thread of its own.
        assert!(poll!(send(&client, &peer.url("/"), Lane::Poll)).is_pending());
        assert_eq!(client.waiting(), 0);
    });
}

/// A waker may do anything, also ask the client.
#[test]
fn no_waker_is_called_under_a_lock() {
    struct Asks(UreqClient, AtomicUsize);

    impl Wake for Asks {
        fn wake(self: Arc<Self>) {
            self.1.fetch_add(1 + self.0.waiting(), Ordering::SeqCst);
        }
    }

    let peer = Peer::silent();
    let client = client(1);
    let asks = Arc::new(Asks(client.clone(), AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&asks));
    let mut calls: Vec<_> = (0..3)
        .map(|_| send(&client, &peer.url("/"), Lane::Call))
        .collect();
    for call in &mut calls {
        let polled = call.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
    }
    // One that waits, then the one that runs, so that the last one takes its place.
    drop(calls.remove(1));
    drop(calls.remove(0));
    drop(calls);
    assert!(asks.1.load(Ordering::SeqCst) > 0, "nothing was woken");
}

#[test]
fn a_call_is_never_repeated() {
    run(async {
        let peer = Peer::start(|connection| {
            connection.read_request()?;
            connection.write(OK.as_bytes())?;
            connection.read_request().map(drop)
        });
        let client = client(1);
        send(&client, &peer.url("/"), Lane::Call).await.unwrap();
        let error = send(&client, &peer.url("/"), Lane::Call).await.unwrap_err();
        assert_eq!(error.kind(), HttpErrorKind::Closed);
        assert_eq!(peer.requests(), 2);
    });
}

#[test]
fn a_thread_that_cannot_be_cut_gives_up_its_place_and_ends() {
    let Some(crowd) = Crowd::gather() else { return };
    run(async {
        let peer = Peer::answering(OK);
        let client = client(1);
        let mut hanging = send(&client, &crowd.url("/"), Lane::Call);
        assert!(poll!(&mut hanging).is_pending());
        // Before it connects, it can simply be told to skip it.
        while crowd.knocking() < 1 {
            std::thread::yield_now();
        }
        drop(hanging);
        assert_eq!(calls(&client), (0, 0, 0, 1));
        send(&client, &peer.url("/"), Lane::Call).await.unwrap();
        assert_eq!(calls(&client), (1, 1, 0, 1));

        // A second one keeps its place, so that there are never more than twice the threads.
        let mut hanging = send(&client, &crowd.url("/"), Lane::Call);
        assert!(poll!(&mut hanging).is_pending());
        while crowd.knocking() < 2 {
            std::thread::yield_now();
        }
        drop(hanging);
        assert_eq!(calls(&client), (1, 0, 0, 1));
        let mut next = pin!(send(&client, &peer.url("/"), Lane::Call));
        assert!(poll!(&mut next).is_pending());
        assert_eq!(calls(&client), (1, 0, 1, 1));
        // Now their connects are refused, as soon as they are repeated.
        drop(crowd);
        next.await.unwrap();
        eventually(&client, |counts| counts == (1, 1, 0, 0));
    });
}
