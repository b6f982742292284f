//! The token shows nowhere: not in a log, not in an error, not in `Debug`.

use std::{
    collections::HashMap,
    error::Error,
    fmt::{self, Debug},
    io,
    num::NonZeroU32,
    sync::{Arc, Mutex},
    thread::{self, ThreadId},
    time::Duration,
};

use futures::executor::block_on;
use log::{LevelFilter, Log, Metadata, Record};
use runner::{
    ApiError, Backoff, Bot, BotApi, Delivery, Failure, FetchOptions, Incoming, RetryPolicy,
    RunnerHandle, Runtime, SourceOptions, Update, UpdateConsumer, Verdict,
    http::{HttpClient, HyperClient, UreqClient},
};
use runner_testkit::{Fault, FaultPlan, FaultRule, LocalServer, Snapshot, Stage};

/// A bound for what comes much earlier; nothing waits for it to pass.
const LONG: Duration = Duration::from_secs(120);

/// Everything that anybody has said.
#[derive(Clone, Default)]
struct Said {
    text: Arc<Mutex<Vec<u8>>>,
    /// What was written and read, by thread, as far as somebody logs it: in rows of 16 bytes.
    bytes: Arc<Mutex<HashMap<ThreadId, String>>>,
}

impl Said {
    fn note(&self, what: &str, said: impl fmt::Display) {
        self.push(format!("{what}: {said}\n").as_bytes());
    }

    fn debug(&self, what: &str, value: &impl Debug) {
        self.note(what, format_args!("{value:?} {value:#?}"));
    }

    /// An error as a log would show it, with all its causes.
    fn error(&self, what: &str, error: &(dyn Error + 'static)) {
        let mut next = Some(error);
        while let Some(error) = next {
            self.note(what, format_args!("{error} {error:?} {error:#?}"));
            next = error.source();
        }
    }

    fn push(&self, bytes: &[u8]) {
        self.text.lock().unwrap().extend_from_slice(bytes);
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().unwrap()).into_owned()
    }
}

impl io::Write for Said {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is said through the `log` crate.
impl Log for Said {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        if record.target() == "ureq_proto::util" {
            // Hexadecimal, then as characters.
            let row = record.args().to_string();
            let characters = row.len() - 16;
            let mut bytes = self.bytes.lock().unwrap();
            let bytes = bytes.entry(thread::current().id()).or_default();
            return bytes.push_str(&row[characters..]);
        }
        self.note(&format!("log {}", record.target()), record.args());
    }

    fn flush(&self) {}
}

/// Every fault that a poll can meet and that passes.
const PASSING: [Fault; 12] = [
    Fault::BadGateway,
    Fault::InternalError,
    Fault::TooManyRequests(1),
    Fault::EmptyBody,
    Fault::TruncatedJson,
    Fault::WrongLength,
    Fault::Reset,
    Fault::Close,
    Fault::CloseUnanswered,
    Fault::HalfOpen,
    Fault::Trickle(Duration::from_millis(500)),
    Fault::Oversized,
];

/// Every fault that ends a run.
const FATAL: [Fault; 4] = [
    Fault::Unauthorized,
    Fault::Forbidden,
    Fault::NotFound,
    Fault::Redirect,
];

struct World<C> {
    said: Said,
    server: LocalServer,
    api: BotApi<C>,
}

impl<C: HttpClient> World<C> {
    fn new(said: &Said, client: C) -> Self {
        let server = LocalServer::start().unwrap();
        let api = BotApi::with_client(server.token(), client).unwrap();
        let api = api.base_url(server.url()).unwrap();
        Self {
            said: said.clone(),
            server,
            api,
        }
    }

    fn bot(&self) -> Bot<BotApi<C>, impl UpdateConsumer<Update> + use<C>> {
        let said = self.said.clone();
        let fetch = FetchOptions::default().limit(5);
        let backoff = Backoff::Fixed(Duration::from_millis(20));
        Bot::for_each_with(
            self.api.clone(),
            (self.api.clone(), self.said.clone()),
            |(api, said): (BotApi<C>, Said), update: Delivery<Update>| async move {
                said.debug("update", &update);
                if let (Some(chat), Some(text)) = (update.chat_id(), update.text()) {
                    let sent = api.send_message(chat, text).await;
                    if let Err(error) = &sent {
                        said.error("a call", error);
                    }
                    sent?;
                }
                Ok::<_, ApiError>(())
            },
        )
        .policy(move |failure: Failure<Incoming>| {
            said.debug("failure", &failure);
            said.error("cause", &failure.cause);
            Verdict::Skip
        })
        .source(SourceOptions::default().retry(RetryPolicy::default().backoff(backoff)))
        .fetch(
            fetch
                .timeout(Duration::from_secs(1))
                .margin(Duration::from_millis(300)),
        )
    }

    /// Notes how everything that a bot is made of shows itself.
    fn note_all(&self, handle: &RunnerHandle<Incoming>) {
        self.said.debug("api", &self.api);
        self.said.debug("handle", handle);
        self.said.debug("health", &handle.health());
        self.said.debug("stats", &handle.stats());
        self.said.debug("in flight", &handle.in_flight());
    }

    fn push(&self, count: usize) {
        for number in 0..count {
            self.server.push_message(5, 5, &number.to_string());
        }
    }

    fn wait_until(&self, matches: impl FnMut(&Snapshot) -> bool) {
        assert!(
            self.server.wait_until(matches, LONG),
            "{:?}",
            self.server.snapshot()
        );
    }

    /// A run through everything that can go wrong and passes.
    fn suffer(&self, runtime: &Arc<dyn Runtime>) {
        let mut plan = FaultPlan::new(1);
        for fault in PASSING {
            let poll = FaultRule::new(fault).method("getUpdates");
            plan = plan.rule(poll.stage(Stage::After).skip(1).times(1));
        }
        for fault in PASSING.into_iter().chain(FATAL) {
            if !matches!(fault, Fault::HalfOpen | Fault::Trickle(_)) {
                plan = plan.rule(FaultRule::new(fault).method("sendMessage").times(1));
            }
        }
        self.server.set_faults(plan);
        self.push(100);
        let bot = self.bot();
        self.said.debug("bot", &bot);
        let runner = bot.into_runner(Arc::clone(runtime));
        self.said.debug("runner", &runner);
        let handle = runner.start();
        self.note_all(&handle);
        self.wait_until(|state| state.pending == 0 && state.is_polled);
        self.push(1);
        let hits = self
            .server
            .wait_for_poll(|poll| matches!(poll.fault, Some(Fault::Oversized)), LONG);
        assert!(hits.is_some(), "{:?}", self.server.fault_counts());
        // Last, because a conflict is waited out for some seconds.
        let conflict = FaultRule::new(Fault::Conflict).method("getUpdates");
        self.server.add_fault(conflict.times(1));
        self.push(1);
        let hit = self
            .server
            .wait_for_poll(|poll| matches!(poll.fault, Some(Fault::Conflict)), LONG);
        assert!(hit.is_some(), "{:?}", self.server.fault_counts());
        self.note_all(&handle);
        let report = block_on(handle.stop()).unwrap();
        self.said.note("report", &report);
        self.said.debug("report", &report);
    }

    /// Runs that end with an error.
    fn fail(&mut self, runtime: &Arc<dyn Runtime>) {
        for fault in FATAL {
            // A redirect is fatal only to a bot that has had no answer from there.
            let api = self.api.clone().base_url(self.server.url());
            self.api = api.unwrap();
            self.server.set_faults(FaultPlan::new(1).once(fault));
            self.end_in_error(runtime, &format!("{fault:?}"));
        }
        self.server.set_faults(FaultPlan::new(1));
        self.server.set_webhook("https://example.org/hook");
        self.end_in_error(runtime, "webhook");
        self.server.set_webhook("");
        self.server.revoke_token(true);
        self.end_in_error(runtime, "revoked");
    }

    fn end_in_error(&self, runtime: &Arc<dyn Runtime>, why: &str) {
        let handle = self.bot().into_runner(Arc::clone(runtime)).start();
        let error = block_on(handle.task()).unwrap_err();
        self.said.error(why, &error);
        self.note_all(&handle);
        let called = block_on(self.api.get_me());
        if let Err(error) = called {
            self.said.error("a call", &error);
        }
    }
}

/// A server that is not there, and a token that is none.
fn misuse(said: &Said, runtime: &Arc<dyn Runtime>, client: impl HttpClient) {
    let gone = LocalServer::start().unwrap();
    let api = BotApi::with_client(gone.token(), client).unwrap();
    let api = api.base_url(gone.url()).unwrap();
    drop(gone);
    said.error("a call", &block_on(api.get_me()).unwrap_err());
    let once = RetryPolicy::default().max_attempts(NonZeroU32::MIN);
    let bot = Bot::for_each(api.clone(), async |_: Delivery<Update>| ());
    let bot = bot.source(SourceOptions::default().retry(once));
    let error = block_on(bot.into_runner(Arc::clone(runtime)).start().task()).unwrap_err();
    said.error("gone", &error);
    for wrong in [format!("{SECRET} "), format!("x:{SECRET}"), SECRET.into()] {
        said.error("token", &BotApi::new(&wrong).unwrap_err());
    }
    let wrong = format!("http://x:{SECRET}@127.0.0.1/?{SECRET}");
    if let Err(error) = api.clone().base_url(&wrong) {
        said.error("base URL", &error);
    }
    let method = block_on(api.call::<bool>(&format!("get/{SECRET}"), &()));
    assert!(method.is_err());
}

/// What nobody may see: the part of the token after its colon.
const SECRET: &str = "local-server-of-the-testkit-0";

#[test]
fn the_token_shows_nowhere() {
    let said = Said::default();
    log::set_boxed_logger(Box::new(said.clone())).unwrap();
    log::set_max_level(LevelFilter::Trace);
    let writer = said.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();
    let kept = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let tokio: Arc<dyn Runtime> = Arc::new(runner::tokio::Tokio::new(kept.handle().clone()));
    let smol: Arc<dyn Runtime> = Arc::new(runner::smol::Smol::new());
    thread::scope(|scope| {
        for runtime in [&tokio, &smol] {
            scope.spawn(|| suffer_all(&said, runtime, UreqClient::new()));
            scope.spawn(|| suffer_all(&said, runtime, HyperClient::new()));
        }
    });

    let text = said.text();
    // It has heard everybody.
    for source in [
        "log ureq",
        "runner_core",
        "report:",
        "Unauthorized",
        "failure:",
        "webhook",
    ] {
        assert!(
            text.contains(source),
            "nothing of {source:?} among:\n{text}"
        );
    }
    println!("{} lines", text.lines().count());
    let shown: Vec<_> = text.lines().filter(|line| line.contains(SECRET)).collect();
    assert!(shown.is_empty(), "{shown:#?}");
    let bytes = said.bytes.lock().unwrap();
    let dumps = || bytes.values().map(String::as_str);
    assert!(dumps().any(|dump| dump.contains("POST./****")), "requests");
    assert!(dumps().any(|dump| dump.contains("Unauthorized")), "answers");
    println!("{} bytes", dumps().map(str::len).sum::<usize>());
    assert!(!dumps().any(|dump| dump.contains(SECRET)));
}

fn suffer_all<C: HttpClient + Debug + Clone>(said: &Said, runtime: &Arc<dyn Runtime>, client: C) {
    said.debug("client", &client);
    let mut world = World::new(said, client.clone());
    assert_eq!(world.server.token().split_once(':').unwrap().1, SECRET);
    world.suffer(runtime);
    world.fail(runtime);
    misuse(said, runtime, client);
}
