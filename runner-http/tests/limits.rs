//! Answers that cost too much, over real sockets and both clients: what they are refused with, and
//! that a bot is not made deaf by them.

use std::{
    collections::BTreeSet,
    error::Error,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use futures::executor::block_on;
use runner_core::{
    Backoff, Bot, Cause, Delivery, Failure, FetchOptions, GetUpdates, RetryPolicy, RunnerHandle,
    SourceOptions, SupplyError, UpdatesRequest, Verdict,
};
use runner_http::{
    ApiError, BotApi, HttpClient, HttpError, HttpErrorKind, HyperClient, Incoming, LimitError,
    Limits, Update, UreqClient,
};
use runner_smol::Smol;
use runner_testkit::LocalServer;

/// A bound for what comes much earlier; nothing waits for it to pass.
const LONG: Duration = Duration::from_secs(120);
/// A server that is asked the same within half a second gives one update at a time.
const BACKOFF: Duration = Duration::from_millis(600);
const TOKEN: &str = "1:AAabcdefghijklmnopqrstuvwxyz";

/// Answers one request with this body, and closes.
fn peer(body: String) -> (String, JoinHandle<()>) {
    let length = body.len();
    let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    sending(head + &body)
}

/// Answers one request with this text, and closes.
fn sending(answer: String) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let thread = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        while !is_whole(&request) {
            let mut some = [0; 4096];
            let count = stream.read(&mut some).unwrap();
            assert_ne!(count, 0, "the request was cut");
            request.extend_from_slice(&some[..count]);
        }
        // The client goes away once it has seen enough.
        let _ = stream.write_all(answer.as_bytes());
    });
    (url, thread)
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"));
    body.len() >= length.map_or(0, |length| length.trim().parse().unwrap())
}

/// A bot whose server gives this answer, over each client in turn.
fn with_answer(
    limits: Limits,
    body: &str,
    check: impl Fn(Result<Vec<Incoming>, ApiError>, Result<serde_json::Value, ApiError>),
) {
    with_client_and_answer(UreqClient::new(), limits, body, &check);
    with_client_and_answer(HyperClient::new(), limits, body, &check);
}

fn with_client_and_answer<C: HttpClient + Clone>(
    client: C,
    limits: Limits,
    body: &str,
    check: impl Fn(Result<Vec<Incoming>, ApiError>, Result<serde_json::Value, ApiError>),
) {
    let api = |url| {
        let api = BotApi::with_client(TOKEN, client.clone()).unwrap();
        api.base_url(url).unwrap().limits(limits)
    };
    let (url, polled) = peer(body.into());
    let polls = block_on(api(url).get_updates(&UpdatesRequest::default()));
    polled.join().unwrap();
    let (url, called) = peer(body.into());
    let calls = block_on(api(url).call("anyMethod", &()));
    called.join().unwrap();
    check(polls, calls);
}

fn answer(result: &str) -> String {
    format!(r#"{{"ok":true,"result":{result}}}"#)
}

/// An array in an array, so many levels in all.
fn nested(levels: usize) -> String {
    format!("{}{}", "[".repeat(levels), "]".repeat(levels))
}

fn limit_of<T: std::fmt::Debug>(outcome: Result<T, ApiError>) -> LimitError {
    match outcome {
        Err(ApiError::Limit(limit)) => limit,
        other => panic!("{other:?}"),
    }
}

fn find<'a, E: Error + 'static>(mut error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    loop {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        error = error.source()?;
    }
}

#[test]
fn a_body_beyond_the_limit_is_refused_and_the_limit_is_named() {
    let body = answer("[]");
    let limits = Limits::default().max_body(body.len());
    with_answer(limits, &body, |polled, called| {
        assert_eq!(polled.unwrap().len(), 0);
        assert_eq!(called.unwrap(), serde_json::json!([]));
    });
    let limits = Limits::default().max_body(body.len() - 1);
    with_answer(limits, &body, |polled, called| {
        for limit in [limit_of(polled), limit_of(called)] {
            assert!(matches!(limit, LimitError::Body { max, .. } if max == limits.max_body));
            let text = limit.to_string();
            assert!(text.contains("raise Limits::max_body"), "{text}");
        }
    });
}

fn a_head_that_does_not_end(client: impl HttpClient) {
    let (url, sent) = sending(format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(8 << 20)));
    let api = BotApi::with_client(TOKEN, client).unwrap();
    let mut api = api.base_url(url).unwrap();
    let error = block_on(api.get_updates(&UpdatesRequest::default())).unwrap_err();
    let kind = find::<HttpError>(&error).map(HttpError::kind);
    assert_eq!(kind, Some(HttpErrorKind::Malformed), "{error:?}");
    sent.join().unwrap();
}

#[test]
fn a_head_that_does_not_end_is_refused() {
    a_head_that_does_not_end(UreqClient::new());
    a_head_that_does_not_end(HyperClient::new());
}

#[test]
fn a_result_nested_too_deep_is_refused_and_the_limit_is_named() {
    let limits = Limits::default().max_depth(7);
    with_answer(limits, &answer(&nested(7)), |_, called| {
        assert!(called.unwrap().is_array());
    });
    with_answer(limits, &answer(&nested(8)), |_, called| {
        let limit = limit_of(called);
        assert!(matches!(limit, LimitError::Depth { max: 7, .. }));
        let text = limit.to_string();
        assert!(text.contains("raise Limits::max_depth"), "{text}");
    });
    // Without a limit of ours that of serde_json holds, and the stack is safe.
    let limits = Limits::default().max_depth(usize::MAX);
    with_answer(limits, &answer(&nested(200_000)), |_, called| {
        assert!(matches!(called, Err(ApiError::Decode { .. })));
    });
}

#[test]
fn more_updates_than_asked_for_come_again_and_far_too_many_are_refused() {
    let updates = |count: usize| {
        let updates: Vec<_> = (1..=count)
            .map(|id| format!(r#"{{"update_id":{id}}}"#))
            .collect();
        answer(&format!("[{}]", updates.join(",")))
    };
    let limits = Limits::default();
    let asked = usize::from(UpdatesRequest::default().limit);
    with_answer(limits, &updates(limits.max_updates), |polled, _| {
        assert_eq!(polled.unwrap().len(), asked);
    });
    with_answer(limits, &updates(limits.max_updates + 1), |polled, _| {
        let limit = limit_of(polled);
        assert!(matches!(limit, LimitError::Updates { max: 10_000, .. }));
        let text = limit.to_string();
        assert!(text.contains("raise Limits::max_updates"), "{text}");
    });
    // No poll asks for what it would refuse.
    let limits = limits.max_updates(2);
    with_answer(limits, &updates(2), |polled, _| {
        assert_eq!(polled.unwrap().len(), 2);
    });
}

#[test]
fn what_a_limit_refuses_passes_for_the_runner() {
    let limits = Limits::default().max_body(1);
    with_answer(limits, &answer("[]"), |polled, _| {
        let error = SupplyError::from(polled.unwrap_err());
        assert!(matches!(error, SupplyError::Transient(_)));
        let limit = find::<ApiError>(&error);
        assert!(matches!(limit, Some(ApiError::Limit(_))), "{error:?}");
    });
}

/// A bot on a server, and what its handlers saw.
struct World {
    server: LocalServer,
    handled: Arc<Mutex<Vec<i64>>>,
    refused: Arc<Mutex<Vec<Failure<Incoming>>>>,
    handle: Option<RunnerHandle<Incoming>>,
}

impl World {
    fn new() -> Self {
        Self {
            server: LocalServer::start().unwrap(),
            handled: Arc::default(),
            refused: Arc::default(),
            handle: None,
        }
    }

    fn start<C: HttpClient>(&mut self, client: C, limits: Limits) {
        let api = BotApi::with_client(self.server.token(), client).unwrap();
        let api = api.base_url(self.server.url()).unwrap().limits(limits);
        let refused = Arc::clone(&self.refused);
        let backoff = Backoff::Fixed(BACKOFF);
        let bot = Bot::for_each_with(
            api,
            Arc::clone(&self.handled),
            async |handled: Arc<Mutex<Vec<i64>>>, update: Delivery<Update>| {
                handled.lock().unwrap().push(update.id());
            },
        )
        .policy(move |failure: Failure<Incoming>| {
            refused.lock().unwrap().push(failure);
            Verdict::Skip
        })
        .source(SourceOptions::default().retry(RetryPolicy::default().backoff(backoff)));
        self.handle = Some(bot.into_runner(Arc::new(Smol::new())).start());
    }

    /// Waits until all was fetched, and ends the run.
    fn finish(&self) {
        let done = self
            .server
            .wait_until(|state| state.pending == 0 && state.is_polled, LONG);
        assert!(done, "{:?}", self.server.snapshot());
        let handle = self.handle.as_ref().unwrap();
        block_on(handle.stop()).unwrap();
    }

    fn handled(&self) -> Vec<i64> {
        self.handled.lock().unwrap().clone()
    }

    /// How many updates the polls asked for.
    fn asked(&self) -> Vec<i64> {
        let polls = self.server.polls();
        let limits = polls
            .iter()
            .map(|poll| poll.params.integer("limit").unwrap());
        limits.collect()
    }
}

fn a_batch_that_is_too_large(client: impl HttpClient) {
    let mut world = World::new();
    let text = "x".repeat(4000);
    let pushed: Vec<_> = (0..40)
        .map(|_| world.server.push_message(5, 5, &text).unwrap())
        .collect();
    // Six fit, and twelve do not.
    world.start(client, Limits::default().max_body(30_000));
    world.finish();
    assert_eq!(world.handled(), pushed, "each once, in their order");
    assert!(world.refused.lock().unwrap().is_empty());
    let asked = world.asked();
    assert_eq!(asked[..6], [100, 50, 25, 12, 6, 6], "{asked:?}");
}

#[test]
fn a_batch_that_is_too_large_comes_in_smaller_ones_over_ureq() {
    a_batch_that_is_too_large(UreqClient::new());
}

#[test]
fn a_batch_that_is_too_large_comes_in_smaller_ones_over_hyper() {
    a_batch_that_is_too_large(HyperClient::new());
}

/// Has updates 1 to `LAST`. The body of an answer with more than ten never ends.
fn slow_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || while answer_slowly(&mut stream).is_some() {});
        }
    });
    url
}

const LAST: u64 = 50;

/// Answers one poll; `None` when the client has gone.
fn answer_slowly(stream: &mut TcpStream) -> Option<()> {
    let mut request = Vec::new();
    while !is_whole(&request) {
        let mut some = [0; 4096];
        let count = stream.read(&mut some).ok().filter(|count| *count > 0)?;
        request.extend_from_slice(&some[..count]);
    }
    let body = request.split(|byte| *byte == b'\n').next_back()?;
    let params: serde_json::Value = serde_json::from_slice(body).ok()?;
    let limit = params["limit"].as_u64()?;
    let offset = params["offset"].as_u64();
    // The first poll of all may take longer than others.
    let count = if offset.is_none() { 1 } else { limit };
    let ids = (offset.unwrap_or(1)..=LAST).take(count.try_into().ok()?);
    let updates: Vec<_> = ids.map(|id| format!(r#"{{"update_id":{id}}}"#)).collect();
    let body = answer(&format!("[{}]", updates.join(",")));
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).ok()?;
    if updates.len() <= 10 {
        return stream.write_all(body.as_bytes()).ok();
    }
    stream.write_all(&body.as_bytes()[..20]).ok()?;
    // Until the client gives up.
    let _ = stream.read(&mut [0]);
    None
}

fn a_body_that_does_not_end_in_time(client: impl HttpClient) {
    let api = BotApi::with_client(TOKEN, client).unwrap();
    let api = api.base_url(slow_server()).unwrap();
    // Longer than the runner waits for the call.
    let api = api.limits(Limits::default().body(LONG));
    let (sender, receiver) = mpsc::channel();
    let bot = Bot::for_each_with(
        api,
        sender,
        async |sender: mpsc::Sender<i64>, update: Delivery<Update>| {
            sender.send(update.id()).unwrap();
        },
    );
    let fetch = FetchOptions::default().limit(40).timeout(Duration::ZERO);
    let backoff = RetryPolicy::default().backoff(Backoff::Fixed(Duration::from_millis(1)));
    let bot = bot
        .fetch(fetch.margin(Duration::from_millis(800)))
        .source(SourceOptions::default().retry(backoff));
    let handle = bot.into_runner(Arc::new(Smol::new())).start();
    let handled = (0..LAST).map(|_| receiver.recv_timeout(LONG).unwrap());
    let handled: BTreeSet<i64> = handled.collect();
    assert!(handled.into_iter().eq(1..=LAST.cast_signed()), "each once");
    block_on(handle.stop()).unwrap();
}

#[test]
fn a_call_that_is_dropped_in_the_body_is_followed_by_polls_for_fewer_over_ureq() {
    a_body_that_does_not_end_in_time(UreqClient::new());
}

#[test]
fn a_call_that_is_dropped_in_the_body_is_followed_by_polls_for_fewer_over_hyper() {
    a_body_that_does_not_end_in_time(HyperClient::new());
}

fn an_update_nested_too_deep(client: impl HttpClient) {
    let mut world = World::new();
    let deep = format!(r#"{{"chat":{{"id":5}},"x":{}}}"#, nested(200_000));
    let mut pushed = Vec::new();
    for index in 0..5 {
        let kind = "message";
        let update = match index {
            2 => world.server.push_raw(kind, &deep),
            _ => world.server.push_message(5, 5, "hello"),
        };
        pushed.push(update.unwrap());
    }
    world.start(client, Limits::default());
    world.finish();
    let costs = pushed.remove(2);
    assert_eq!(world.handled(), pushed);
    let refused = world.refused.lock().unwrap();
    let [failure] = &refused[..] else {
        panic!("{refused:?}");
    };
    assert_eq!(failure.update.id(), costs);
    assert!(String::from_utf8_lossy(failure.update.raw()).contains(&deep));
    assert!(matches!(failure.cause, Cause::Undecodable(_)));
    let limit = find::<LimitError>(&failure.cause);
    assert!(matches!(limit, Some(LimitError::Depth { max: 100, .. })));
    // It stopped nobody, so nothing was asked for twice.
    assert_eq!(world.asked()[0], 100);
}

#[test]
fn an_update_nested_too_deep_costs_no_other_one() {
    an_update_nested_too_deep(UreqClient::new());
    an_update_nested_too_deep(HyperClient::new());
}
