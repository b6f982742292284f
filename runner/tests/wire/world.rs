//! One server, one bot, one runtime, and the table of what was handled.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::executor::block_on;
use runner::{
    ApiError, Bot, BotApi, Confirmation, Delivery, Failure, FetchOptions, Incoming, Report,
    RunnerHandle, Runtime, Update, UpdateConsumer, Verdict, http::HttpClient,
};
use runner_testkit::LocalServer;

/// A bound for what comes much earlier; nothing waits for it to pass.
pub(crate) const LONG: Duration = Duration::from_secs(120);

/// How many chats share the updates.
const CHATS: usize = 20;

/// How many updates a case gets: a size for every day, or as many as the environment asks for.
pub(crate) fn count() -> usize {
    let asked = std::env::var("RUNNER_WIRE_UPDATES").ok();
    asked.map_or(300, |count| count.parse().expect("a number of updates"))
}

/// A runtime, kept as long as bots run on it.
pub(crate) struct Place {
    runtime: Arc<dyn Runtime>,
    _tokio: Option<tokio::runtime::Runtime>,
}

impl Place {
    pub(crate) fn tokio() -> Self {
        let mut tokio = tokio::runtime::Builder::new_multi_thread();
        let tokio = tokio.worker_threads(2).enable_all().build().unwrap();
        Self {
            runtime: Arc::new(runner::tokio::Tokio::new(tokio.handle().clone())),
            _tokio: Some(tokio),
        }
    }

    pub(crate) fn smol() -> Self {
        Self {
            runtime: Arc::new(runner::smol::Smol::new()),
            _tokio: None,
        }
    }

    /// Starts a bot.
    pub(crate) fn start<C: HttpClient>(
        &self,
        bot: Bot<BotApi<C>, impl UpdateConsumer<Update>>,
    ) -> RunnerHandle<Incoming> {
        bot.into_runner(Arc::clone(&self.runtime)).start()
    }
}

/// A server whose updates are numbered.
pub(crate) struct World {
    pub(crate) server: LocalServer,
    /// How many updates were pushed.
    pushed: usize,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            server: LocalServer::start().unwrap(),
            pushed: 0,
        }
    }

    pub(crate) fn api<C: HttpClient>(&self, client: C) -> BotApi<C> {
        let api = BotApi::with_client(self.server.token(), client).unwrap();
        api.base_url(self.server.url()).unwrap()
    }

    /// Queues so many more updates.
    pub(crate) fn push(&mut self, count: usize) {
        for number in self.pushed..self.pushed + count {
            let chat = i64::try_from(number % CHATS).unwrap() + 1;
            let pushed = self.server.push_message(chat, chat, &number.to_string());
            assert!(pushed.is_some(), "the server has dropped an update");
        }
        self.pushed += count;
    }

    pub(crate) fn pushed(&self) -> usize {
        self.pushed
    }

    /// Waits until the server has been sent so many answers of bots.
    pub(crate) fn wait_for_replies(&self, count: usize) {
        let count = u64::try_from(count).unwrap();
        let arrived = self.server.wait_until(|state| state.calls >= count, LONG);
        assert!(arrived, "{:?}", self.server.snapshot());
    }

    /// Waits until everything pushed was answered, `repeats` times more than once.
    pub(crate) fn wait_for_all(&self, repeats: usize) {
        self.wait_for_replies(self.pushed + repeats);
    }

    /// What the bots have done to the updates, as the server saw it.
    pub(crate) fn handled(&self) -> Handled {
        let mut times: BTreeMap<usize, usize> = (0..self.pushed).map(|n| (n, 0)).collect();
        let mut last = BTreeMap::new();
        let mut disordered = 0;
        for call in self.server.calls_of("sendMessage") {
            let number: usize = call.text().unwrap().parse().unwrap();
            let before = last.insert(call.chat_id(), number);
            disordered += usize::from(before > Some(number));
            *times.get_mut(&number).expect("one that was pushed") += 1;
        }
        Handled {
            never: times.values().filter(|times| **times == 0).count(),
            repeats: times.values().map(|times| times.saturating_sub(1)).sum(),
            most: times.values().copied().max().unwrap_or(0),
            disordered,
        }
    }

    /// The server must know that everything was handled.
    pub(crate) fn assert_confirmed(&self, report: &Report<Incoming>) {
        let position = match report.confirmation {
            Confirmation::Confirmed { position } | Confirmation::Assumed { position } => position,
            other => panic!("{other:?}"),
        };
        assert_eq!(self.server.confirmed_offset(), Some(position));
        assert_eq!(self.server.pending(), 0);
        assert!(report.abandoned.is_empty(), "{report:?}");
    }
}

/// How often updates were handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handled {
    /// Updates that no bot has answered.
    pub(crate) never: usize,
    /// Answers beyond the first one.
    pub(crate) repeats: usize,
    /// Answers to the update that got the most of them.
    pub(crate) most: usize,
    /// Answers to an update after one to a later update of the same chat.
    pub(crate) disordered: usize,
}

impl Handled {
    /// Everything once, in order, apart from so many repeats.
    pub(crate) fn expected(repeats: usize) -> Self {
        Self {
            never: 0,
            repeats,
            most: if repeats == 0 { 1 } else { 2 },
            disordered: 0,
        }
    }
}

/// A bot that answers every text with itself, and tries again if that fails.
pub(crate) fn echo<C: HttpClient>(api: BotApi<C>) -> Bot<BotApi<C>, impl UpdateConsumer<Update>> {
    Bot::for_each_with(
        api.clone(),
        api,
        |api: BotApi<C>, update: Delivery<Update>| async move {
            if let (Some(chat), Some(text)) = (update.chat_id(), update.text()) {
                api.send_message(chat, text).await?;
            }
            Ok::<_, ApiError>(())
        },
    )
    .policy(|_: Failure<Incoming>| Verdict::Retry {
        after: Duration::from_millis(10),
    })
    .fetch(fetch())
}

/// How long the server may hold a poll.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(1);

/// How much longer an answer may take.
pub(crate) const MARGIN: Duration = Duration::from_secs(1);

/// Batches small enough for polls between the faults, and polls that are soon known to be dead.
pub(crate) fn fetch() -> FetchOptions {
    let fetch = FetchOptions::default().limit(20);
    fetch.timeout(TIMEOUT).margin(MARGIN)
}

/// Stops a bot and gives its report.
pub(crate) fn stop(handle: &RunnerHandle<Incoming>) -> Report<Incoming> {
    block_on(handle.stop()).unwrap()
}
