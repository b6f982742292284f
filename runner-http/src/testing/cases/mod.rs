//! The cases, by what they are about, and what they share.

mod answers;
mod cancel;
mod connections;
mod failures;

use std::{
    error::Error,
    future::Future,
    sync::Mutex,
    time::{Duration, Instant},
};

use futures::future::BoxFuture;

use super::{alarm::Alarm, peer::Peer};
use crate::client::{
    HttpClient, HttpError, HttpErrorKind, HttpRequest, HttpResponse, Lane, Limits,
};

/// One thing that every client must hold.
pub(super) struct Case<C> {
    pub(super) name: &'static str,
    pub(super) run: for<'a> fn(&'a Lab<'a, C>) -> BoxFuture<'a, ()>,
}

/// Lists the async functions of a file as cases of the same names.
macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        pub(super) fn all<C: $crate::client::HttpClient>() -> Vec<super::Case<C>> {
            vec![$(super::Case {
                name: stringify!($name),
                run: |lab| Box::pin($name(lab)),
            }),*]
        }

        pub(super) const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}
use cases;

pub(super) fn all<C: HttpClient>() -> Vec<Case<C>> {
    let mut all = connections::all();
    all.extend(answers::all());
    all.extend(failures::all());
    all.extend(cancel::all());
    all
}

pub(super) fn names() -> Vec<&'static str> {
    [
        connections::NAMES,
        answers::NAMES,
        failures::NAMES,
        cancel::NAMES,
    ]
    .concat()
}

/// Cases that need to see at once what the peer did to a connection at rest.
pub(super) const SEE_CONNECTIONS_AT_REST: &[&str] = &[
    "replaces_a_connection_closed_at_rest",
    "leaves_a_connection_with_surplus_bytes",
    "works_again_after_every_failure",
];

/// What a case works with.
pub(super) struct Lab<'a, C> {
    make: &'a (dyn Fn() -> C + Sync),
    alarm: Alarm,
    /// How long a case may take for a single step.
    pub(super) patience: Duration,
    /// From the drop of a future until the peer saw the close.
    pub(super) cancels: Mutex<Vec<Duration>>,
}

impl<'a, C: HttpClient> Lab<'a, C> {
    pub(super) fn new(make: &'a (dyn Fn() -> C + Sync)) -> Self {
        Self {
            make,
            alarm: Alarm::new(),
            patience: PATIENCE,
            cancels: Mutex::default(),
        }
    }

    fn client(&self) -> C {
        (self.make)()
    }

    /// The output of `future`; a case that hangs fails instead.
    async fn soon<F: Future>(&self, future: F) -> F::Output {
        match self.alarm.within(self.patience, future).await {
            Some(output) => output,
            None => panic!("nothing happened for {:?}", self.patience),
        }
    }

    /// Sends the request and returns the answer.
    async fn answer(&self, client: &C, request: HttpRequest) -> HttpResponse {
        match self.soon(client.send(request)).await {
            Ok(response) => response,
            Err(error) => panic!("failed with {:?} ({:?})", error.kind(), error.source()),
        }
    }

    /// Sends the request, which must fail like one of these, without telling the token.
    async fn failure(&self, client: &C, request: HttpRequest, kinds: &[HttpErrorKind]) {
        let error = match self.soon(client.send(request)).await {
            Ok(response) => panic!(
                "answered with status {} and {} bytes instead of {kinds:?}",
                response.status,
                response.body.len()
            ),
            Err(error) => error,
        };
        assert!(
            kinds.contains(&error.kind()),
            "failed with {:?} ({:?}) instead of {kinds:?}",
            error.kind(),
            error.source()
        );
        assert_secret(&error);
        assert!(
            !format!("{client:?}{client:#?}").contains(SECRET),
            "the client shows the token"
        );
    }
}

fn assert_secret(error: &HttpError) {
    let mut next: Option<&dyn Error> = Some(error);
    while let Some(error) = next {
        let shown = format!("{error} {error:?} {error:#?}");
        assert!(!shown.contains(SECRET), "an error shows the token");
        next = error.source();
    }
}

/// A call of a method whose answer is small and soon.
fn call(peer: &Peer) -> HttpRequest {
    to(peer.url(PATH), Lane::Call)
}

fn poll(peer: &Peer) -> HttpRequest {
    to(peer.url(PATH), Lane::Poll)
}

fn to(url: impl Into<String>, lane: Lane) -> HttpRequest {
    let mut request = HttpRequest::new(url, r#"{"offset":1}"#);
    request.lane = lane;
    request
}

fn limited(mut request: HttpRequest, change: impl FnOnce(&mut Limits)) -> HttpRequest {
    change(&mut request.limits);
    request
}

/// A whole answer with a `Content-Length`.
fn answer(status: &str, headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut answer = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    )
    .into_bytes();
    answer.extend_from_slice(body);
    answer
}

fn ok(body: impl AsRef<[u8]>) -> Vec<u8> {
    answer("200 OK", "Content-Type: application/json\r\n", body)
}

/// Waits for something that other threads are about to make true.
fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_true() {
        assert!(Instant::now() < deadline, "not true in time: {what}");
        std::thread::yield_now();
    }
}

const LANES: [Lane; 2] = [Lane::Call, Lane::Poll];

/// What must never be seen.
const SECRET: &str = "AAHconformanceTokenThatMustNotBeSeen";
const PATH: &str = "/bot123456789:AAHconformanceTokenThatMustNotBeSeen/getMe";
const JSON: &str = r#"{"ok":true,"result":{"id":1}}"#;

/// The usual one.
const PATIENCE: Duration = Duration::from_secs(20);

#[cfg(test)]
#[test]
fn cases_that_are_left_out_exist() {
    let names = names();
    assert!(
        SEE_CONNECTIONS_AT_REST
            .iter()
            .all(|name| names.contains(name))
    );
}
