//! The bot of the soak: most updates are handled at once, some in every way that there is to fail.

use std::{env, future::pending, sync::Arc, time::Duration};

use futures::executor::block_on;
use runner::{
    Bot, BotApi, BoxError, Cause, Delivery, Failure, FetchOptions, Incoming, Runtime, RuntimeExt,
    SinkOptions, Update, Verdict, http::HttpClient,
};

use crate::{
    child::{ASKED_FOR, found, tell_allocated, told},
    ledger::Ledger,
};

/// The address of the server, the token of the bot there, and the most updates there will be.
pub(crate) const SERVER: &str = "RUNNER_LOAD_SERVER";
pub(crate) const TOKEN: &str = "RUNNER_LOAD_TOKEN";
pub(crate) const ROOM: &str = "RUNNER_LOAD_ROOM";

/// How many chats there are; no divisor of anything, so that every chat has handlers of every kind.
pub(crate) const CHATS: usize = 1_009;

/// How long a handler may take.
const LIMIT: Duration = Duration::from_secs(3);

/// What the handler of an update does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// It returns at once.
    Quick,
    /// It waits a little.
    Slow,
    /// It sends an answer, until that succeeds.
    Sends,
    /// It fails, twice.
    Fails,
    /// It panics.
    Panics,
    /// It waits for ever.
    Hangs,
}

impl Part {
    /// Of the update with this number.
    pub(crate) fn of(number: usize) -> Self {
        match number % 1_000 {
            7 => Self::Hangs,
            107 | 607 => Self::Panics,
            rest if rest % 200 == 11 => Self::Fails,
            rest if rest % 100 == 23 => Self::Slow,
            rest if rest % 20 == 5 => Self::Sends,
            _ => Self::Quick,
        }
    }
}

/// What the handlers share.
struct Shared<C> {
    api: BotApi<C>,
    runtime: Arc<dyn Runtime>,
    ledger: Ledger,
}

/// Runs until the parent says how many updates there were.
pub(crate) fn run<C: HttpClient>(runtime: Arc<dyn Runtime>, client: C) {
    let room = env::var(ROOM).unwrap().parse().unwrap();
    let api = BotApi::with_client(env::var(TOKEN).unwrap(), client).unwrap();
    let api = api.base_url(env::var(SERVER).unwrap()).unwrap();
    let shared = Arc::new(Shared {
        api: api.clone(),
        runtime: Arc::clone(&runtime),
        ledger: Ledger::new(room, CHATS),
    });
    let second = Duration::from_secs(1);
    let bot = Bot::for_each_with(api, Arc::clone(&shared), handle::<C>)
        .policy(decide)
        .sink(SinkOptions::concurrent().timeout(LIMIT))
        .fetch(FetchOptions::default().timeout(second).margin(second));
    let handle = bot.into_runner(runtime).start();
    tell_allocated();

    let pushed = told();
    let report = block_on(handle.stop()).unwrap();
    let counters = report.counters;
    assert!(report.abandoned.is_empty());
    found([
        ("supplied", counters.supplied),
        ("finished", counters.finished),
        ("failed", counters.failed),
        ("panicked", counters.panicked),
        ("timed_out", counters.timed_out),
        ("retried", counters.retried),
        ("settled", counters.settled()),
        ("never", shared.ledger.never(pushed) as u64),
        ("repeats", shared.ledger.repeats() as u64),
        ("disordered", shared.ledger.disordered() as u64),
    ]);
}

async fn handle<C: HttpClient>(
    shared: Arc<Shared<C>>,
    update: Delivery<Update>,
) -> Result<(), BoxError> {
    let number: usize = update.text().ok_or("not a text")?.parse()?;
    let chat = update.chat_id().ok_or("not of a chat")?;
    if !update.redelivered() {
        shared.ledger.begin(number, usize::try_from(chat)? - 1);
    }
    match Part::of(number) {
        Part::Quick => {}
        Part::Slow => {
            shared.runtime.sleep(Duration::from_millis(100)).await;
        }
        Part::Sends => {
            shared.api.send_message(chat, number.to_string()).await?;
        }
        Part::Fails => return Err("this handler is to fail".into()),
        Part::Panics => panic!("{ASKED_FOR}"),
        Part::Hangs => pending().await,
    }
    Ok(())
}

/// An answer is sent until it arrives; what is to fail gets a second attempt.
fn decide(failure: Failure<Incoming>) -> Verdict {
    let Cause::Error(error) = &failure.cause else {
        return Verdict::Skip;
    };
    let is_sending = error.is::<runner::ApiError>();
    if is_sending || !failure.update.redelivered() {
        let after = Duration::from_millis(50);
        return Verdict::Retry { after };
    }
    Verdict::Skip
}
