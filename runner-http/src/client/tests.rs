//! What both clients do about names and addresses.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Mutex,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use futures::{FutureExt, future::join_all};

use super::{
    ClientOptions, HttpClient, HttpErrorKind, HttpRequest, HyperClient, Lane, UreqClient, dns::Dns,
};
use crate::testing::{
    park_on,
    peer::{Crowd, Peer},
};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
const CLOSING: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";

/// Above what a busy machine takes, below what the clients took when they waited for each address.
const LIMIT: Duration = Duration::from_secs(2);

/// A resolver that counts.
fn counting(
    resolve: impl Fn() -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
) -> (Dns, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let dns = Dns::new(move |host, _| {
        assert_eq!(host, "bot.test");
        counted.fetch_add(1, Ordering::SeqCst);
        resolve()
    });
    (dns, count)
}

fn request(lane: Lane) -> HttpRequest {
    let mut request = HttpRequest::new("http://bot.test:80/bot1:x/getMe", "{}");
    request.lane = lane;
    request.limits.connect = LIMIT;
    request
}

fn run(test: impl Future<Output = ()> + Send) {
    park_on(test.boxed());
}

async fn a_name_is_looked_up_for_new_connections_only<C: HttpClient>(make: fn(Dns) -> C) {
    let peer = Peer::answering(OK);
    let address = peer.address();
    let (dns, count) = counting(move || Ok(vec![address]));
    let client = make(dns);
    for lane in [Lane::Call, Lane::Poll] {
        for _ in 0..20 {
            client.send(request(lane)).await.unwrap();
        }
    }
    assert_eq!((peer.requests(), peer.accepted()), (40, 2));
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

async fn a_resolver_that_goes_down_is_not_noticed<C: HttpClient>(make: fn(Dns) -> C) {
    let peer = Peer::answering(CLOSING);
    let mut answers = vec![Ok(vec![peer.address()])];
    let answers = Mutex::new(move || answers.pop().unwrap_or(Err(io::ErrorKind::TimedOut.into())));
    let (dns, count) = counting(move || (answers.lock().unwrap())());
    let client = make(dns.clone());
    for round in 0..5 {
        client.send(request(Lane::Call)).await.unwrap();
        // So that the answer is not fresh.
        dns.failed("bot.test", 80);
        assert_eq!(count.load(Ordering::SeqCst), (round + 1).min(2));
    }
    assert_eq!(peer.accepted(), 5);
}

async fn one_look_up_is_on_its_way_whatever_the_number_of_calls<C: HttpClient>(make: fn(Dns) -> C) {
    let (go, gone) = mpsc::channel::<()>();
    let gone = Mutex::new(gone);
    let (dns, count) = counting(move || {
        let _ = gone.lock().unwrap().recv();
        Err(io::ErrorKind::NotFound.into())
    });
    let client = make(dns);
    let calls = join_all((0..100).map(|_| {
        let mut request = request(Lane::Call);
        request.limits.connect = Duration::from_millis(100);
        client.send(request)
    }));
    for answer in calls.await {
        assert_eq!(answer.unwrap_err().kind(), HttpErrorKind::ConnectTimeout);
    }
    assert_eq!(count.load(Ordering::SeqCst), 1);
    drop(go);
}

async fn a_name_without_an_address_is_told<C: HttpClient>(make: fn(Dns) -> C) {
    let (dns, _) = counting(|| Err(io::Error::new(io::ErrorKind::NotFound, "no such name")));
    let error = make(dns).send(request(Lane::Call)).await.unwrap_err();
    assert_eq!(error.kind(), HttpErrorKind::Connect);
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(cause, "no such name");
}

async fn an_address_that_hangs_is_passed_by_and_tried_last_from_then_on<C: HttpClient>(
    make: fn(Dns) -> C,
) {
    let Some(crowd) = Crowd::gather() else { return };
    let peer = Peer::answering(CLOSING);
    let addresses = [crowd.address(), peer.address()];
    let (dns, _) = counting(move || Ok(addresses.to_vec()));
    let client = make(dns);
    client.send(request(Lane::Call)).await.unwrap();
    let knocking = crowd.knocking();
    for _ in 0..5 {
        client.send(request(Lane::Call)).await.unwrap();
    }
    assert_eq!(peer.accepted(), 6);
    // The first attempt may have ended meanwhile; no other was made.
    assert!(crowd.knocking() <= knocking);
}

async fn an_address_that_refuses_is_passed_by_at_once<C: HttpClient>(make: fn(Dns) -> C) {
    let peer = Peer::answering(OK);
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let addresses = [closed, closed, peer.address()];
    let (dns, _) = counting(move || Ok(addresses.to_vec()));
    make(dns).send(request(Lane::Call)).await.unwrap();

    let (dns, _) = counting(move || Ok(vec![closed, closed]));
    let error = make(dns).send(request(Lane::Call)).await.unwrap_err();
    assert_eq!(error.kind(), HttpErrorKind::Connect);
}

/// Answers in a process that may open few files.
#[test]
#[cfg(unix)]
fn calls_wait_when_descriptors_run_out() {
    const PEER: &str = "RUNNER_HTTP_TEST_PEER";
    const NAME: &str = "client::tests::calls_wait_when_descriptors_run_out";

    if let Ok(url) = std::env::var(PEER) {
        run(async {
            let hyper = HyperClient::new();
            let answers = join_all((0..200).map(|_| hyper.send(HttpRequest::new(&url, "{}"))));
            for answer in answers.await {
                answer.unwrap();
            }
            drop(hyper);
            let ureq = UreqClient::new();
            let answers = join_all((0..200).map(|_| ureq.send(HttpRequest::new(&url, "{}"))));
            for answer in answers.await {
                answer.unwrap();
            }
        });
        return;
    }
    let peer = Peer::answering(OK);
    let program = std::env::current_exe().unwrap();
    let output = std::process::Command::new("sh")
        .args(["-c", "ulimit -n 20; exec \"$0\" --exact \"$1\" --nocapture"])
        .arg(program)
        .arg(NAME)
        .env(PEER, peer.url("/"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = said + &String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}"
    );
    assert_eq!(peer.requests(), 400);
}

macro_rules! both {
    ($($test:ident)*) => {
        mod ureq {
            fn make(dns: super::Dns) -> super::UreqClient {
                super::UreqClient::with_dns(super::ClientOptions::default(), dns)
            }

            $(#[test]
            fn $test() {
                super::run(super::$test(make));
            })*
        }

        mod hyper {
            fn make(dns: super::Dns) -> super::HyperClient {
                super::HyperClient::with_dns(super::ClientOptions::default(), dns)
            }

            $(#[test]
            fn $test() {
                super::run(super::$test(make));
            })*
        }
    };
}

both! {
    a_name_is_looked_up_for_new_connections_only
    a_resolver_that_goes_down_is_not_noticed
    one_look_up_is_on_its_way_whatever_the_number_of_calls
    a_name_without_an_address_is_told
    an_address_that_hangs_is_passed_by_and_tried_last_from_then_on
    an_address_that_refuses_is_passed_by_at_once
}
