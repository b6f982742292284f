//! `BotApi` against a Bot API server on loopback: every client on both runtimes.

use std::{
    collections::BTreeMap,
    error::Error,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_io::block_on;
use runner_core::{
    Backoff, Bot, Cause, Confirmation, Delivery, Failure, FetchOptions, Report, RetryPolicy,
    RunError, RunnerHandle, Runtime, SourceOptions, Verdict,
};
use runner_http::{BotApi, HttpClient, Incoming, Update};
use runner_smol::Smol;
use runner_testkit::{Fault, FaultPlan, FaultRule, LocalServer, PollAnswer, Stage};
use runner_tokio::Tokio;
use serde_json::json;

/// A bound for what comes much earlier; nothing waits for it to pass.
const LONG: Duration = Duration::from_secs(30);

/// One server, one bot, one runtime.
struct World<C> {
    server: LocalServer,
    api: BotApi<C>,
    runtime: Arc<dyn Runtime>,
    _tokio: Option<tokio::runtime::Runtime>,
}

impl<C: HttpClient> World<C> {
    fn on_tokio(client: C) -> Self {
        let tokio = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let runtime = Arc::new(Tokio::new(tokio.handle().clone()));
        Self::new(client, runtime, Some(tokio))
    }

    fn on_smol(client: C) -> Self {
        Self::new(client, Arc::new(Smol::new()), None)
    }

    fn new(client: C, runtime: Arc<dyn Runtime>, tokio: Option<tokio::runtime::Runtime>) -> Self {
        let server = LocalServer::start().unwrap();
        let api = BotApi::with_client(server.token(), client)
            .unwrap()
            .base_url(server.url())
            .unwrap();
        Self {
            server,
            api,
            runtime,
            _tokio: tokio,
        }
    }

    /// A bot that answers every text with itself.
    fn echo(&self) -> Bot<BotApi<C>, impl runner_core::UpdateConsumer<Update> + use<C>> {
        Bot::for_each_with(
            self.api.clone(),
            self.api.clone(),
            |api: BotApi<C>, update: Delivery<Update>| async move {
                if let (Some(chat), Some(text)) = (update.chat_id(), update.text()) {
                    api.send_message(chat, text).await?;
                }
                Ok::<_, runner_http::ApiError>(())
            },
        )
        .source(impatient())
    }

    fn start(
        &self,
        bot: Bot<BotApi<C>, impl runner_core::UpdateConsumer<Update>>,
    ) -> RunnerHandle<Incoming> {
        bot.into_runner(Arc::clone(&self.runtime)).start()
    }

    fn replies(&self) -> Vec<String> {
        let calls = self.server.calls_of("sendMessage");
        calls
            .iter()
            .map(|call| call.text().unwrap().to_owned())
            .collect()
    }

    fn wait_for_replies(&self, count: u64) {
        let arrived = self.server.wait_until(|state| state.calls >= count, LONG);
        assert!(arrived, "{:?}", self.server.snapshot());
    }

    /// The server must know that everything was handled.
    fn assert_confirmed(&self, report: &Report<Incoming>) {
        let position = match report.confirmation {
            Confirmation::Confirmed { position } | Confirmation::Assumed { position } => position,
            other => panic!("{other:?}"),
        };
        assert_eq!(self.server.confirmed_offset(), Some(position));
        assert_eq!(self.server.pending(), 0);
    }
}

/// Faults are repeated soon, or the tests would take as long as an outage.
fn impatient() -> SourceOptions {
    let backoff = Backoff::Fixed(Duration::from_millis(20));
    SourceOptions::default().retry(RetryPolicy::default().backoff(backoff))
}

/// What a log would show of a failed run.
fn shown(error: &RunError<Incoming>) -> String {
    let mut text = format!("{error:?}");
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        text += &format!(" | {error}");
        next = error.source();
    }
    text
}

fn nothing_is_lost_or_repeated_and_every_chat_keeps_its_order<C: HttpClient>(world: World<C>) {
    const CHATS: i64 = 15;
    const EACH: i64 = 20;

    let poll = |fault| FaultRule::new(fault).method("getUpdates");
    let mut plan = FaultPlan::new(3);
    for (skip, fault) in [
        (0, Fault::BadGateway),
        (1, Fault::Reset),
        (1, Fault::TruncatedJson),
        (1, Fault::EmptyBody),
        (1, Fault::InternalError),
        (1, Fault::Close),
        (1, Fault::CloseUnanswered),
    ] {
        plan = plan.rule(poll(fault).stage(Stage::After).skip(skip).times(1));
    }
    world.server.set_faults(plan);
    let push = |rounds: std::ops::Range<i64>| {
        for round in rounds {
            for chat in 1..=CHATS {
                let text = format!("{chat} {round}");
                world.server.push_message(chat, chat, &text).unwrap();
            }
        }
    };
    push(0..EACH / 2);
    // Small batches, so that there are polls enough for every fault.
    let handle = world.start(world.echo().fetch(FetchOptions::default().limit(10)));
    push(EACH / 2..EACH);
    world.wait_for_replies((CHATS * EACH).unsigned_abs());
    let report = block_on(handle.stop()).unwrap();

    let mut chats: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for reply in world.replies() {
        let (chat, round) = reply.split_once(' ').unwrap();
        let rounds = chats.entry(chat.into()).or_default();
        rounds.push(round.parse().unwrap());
    }
    assert_eq!(chats.len(), 15);
    for (chat, rounds) in chats {
        assert_eq!(rounds, Vec::from_iter(0..EACH), "chat {chat}");
    }
    assert_eq!(report.counters.finished, 300);
    assert_eq!(report.counters.supplied, 300);
    let faults = world.server.fault_counts();
    assert_eq!(faults.len(), 7, "{faults:?}");
    assert!(faults.iter().all(|(_, hits)| *hits == 1), "{faults:?}");
    world.assert_confirmed(&report);
}

fn what_cannot_be_decoded_reaches_the_policy_and_costs_nothing_else<C: HttpClient>(
    world: World<C>,
) {
    const WRONG: &str = r#"{"text":{"not":"a text"},"chat":{"id":6}}"#;
    const BROKEN: &str = r#"{"text":NaN,"chat":{"id":6}}"#;

    let good = |text| json!({"chat": {"id": 5}, "text": text}).to_string();
    let (before, after) = (good("before"), good("after"));
    let ids = world.server.push_batch([
        ("message", before.as_str()),
        ("message", WRONG),
        ("message", BROKEN),
        ("message", after.as_str()),
    ]);
    let refused = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&refused);
    let bot = world.echo().policy(move |failure: Failure<Incoming>| {
        assert!(matches!(failure.cause, Cause::Undecodable(_)));
        assert_eq!(failure.update.chat_id(), Some(6));
        let raw = String::from_utf8(failure.update.raw().to_vec()).unwrap();
        notes.lock().unwrap().push((failure.update.id(), raw));
        Verdict::Skip
    });
    let handle = world.start(bot);
    world.wait_for_replies(2);
    let report = block_on(handle.stop()).unwrap();

    assert_eq!(world.replies(), ["before", "after"]);
    let mut refused = refused.lock().unwrap().clone();
    refused.sort();
    let refused: Vec<(Option<i64>, bool)> = refused
        .iter()
        .zip([WRONG, BROKEN])
        .map(|((id, raw), sent)| (Some(*id), raw.contains(sent)))
        .collect();
    assert_eq!(refused, [(ids[1], true), (ids[2], true)]);
    assert_eq!(report.counters.undecodable, 2);
    world.assert_confirmed(&report);
}

fn a_refused_token_ends_the_run_and_says_what_to_do<C: HttpClient>(world: World<C>) {
    world.server.revoke_token(true);
    let handle = world.start(world.echo());
    let error = block_on(handle.task()).unwrap_err();
    assert!(matches!(error, RunError::Supply { .. }));
    let shown = shown(&error);
    assert!(
        shown.contains("get the current one from @BotFather"),
        "{shown}"
    );
    let secret = world.server.token().split_once(':').unwrap().1;
    assert!(!shown.contains(secret), "{shown}");
}

fn a_redirect_is_not_followed_and_ends_the_run<C: HttpClient>(world: World<C>) {
    world
        .server
        .set_faults(FaultPlan::new(0).once(Fault::Redirect));
    let handle = world.start(world.echo());
    let shown = shown(&block_on(handle.task()).unwrap_err());
    assert!(shown.contains("redirects are not followed"), "{shown}");
    assert_eq!(world.server.snapshot().polls, 1);
}

fn a_429_is_waited<C: HttpClient>(world: World<C>) {
    world
        .server
        .set_faults(FaultPlan::new(0).once(Fault::TooManyRequests(1)));
    world.server.push_message(5, 5, "late");
    let handle = world.start(world.echo());
    world.wait_for_replies(1);
    block_on(handle.stop()).unwrap();
    let polls = world.server.polls();
    let refused_at = polls[0].answer.map_or(polls[0].at, |(_, at)| at);
    assert!(polls[1].at - refused_at >= Duration::from_secs(1));
    assert_eq!(world.replies(), ["late"]);
}

fn everybody_is_answered_although_the_server_says_429<C: HttpClient>(world: World<C>) {
    let busy = FaultRule::new(Fault::TooManyRequests(1)).method("sendMessage");
    world
        .server
        .set_faults(FaultPlan::new(0).rule(busy.skip(30).times(70)));
    for chat in 1..=100 {
        world.server.push_message(chat, chat, "hello").unwrap();
    }
    let handle = world.start(world.echo());
    world.wait_for_replies(100);
    let report = block_on(handle.stop()).unwrap();
    assert_eq!(world.replies().len(), 100);
    assert_eq!(report.counters.finished, 100);
}

fn a_connection_that_hangs_costs_one_deadline<C: HttpClient>(world: World<C>) {
    let hang = FaultRule::new(Fault::HalfOpen).method("getUpdates");
    // The first answer must come: until then, a login is allowed for.
    world
        .server
        .set_faults(FaultPlan::new(0).rule(hang.skip(1).times(1)));
    world.server.push_message(5, 5, "first");
    let fetch = FetchOptions::default()
        .timeout(Duration::from_secs(1))
        .margin(Duration::from_millis(300));
    let handle = world.start(world.echo().fetch(fetch));
    world.wait_for_replies(1);
    assert!(
        world
            .server
            .wait_for_poll(|poll| poll.fault.is_some(), LONG)
            .is_some()
    );
    world.server.push_message(5, 5, "second");
    world.wait_for_replies(2);
    block_on(handle.stop()).unwrap();
    assert_eq!(world.replies(), ["first", "second"]);
    let polls = world.server.polls();
    assert_ne!(
        polls[1].connection, polls[2].connection,
        "not back to the pool"
    );
}

fn stopping_cuts_the_poll_and_confirms_what_was_handled<C: HttpClient>(world: World<C>) {
    let handle = world.start(world.echo());
    // Until then the bot has no offset, and there is nothing to confirm.
    assert!(world.server.wait_until(|state| state.is_polled, LONG));
    let id = world.server.push_message(5, 5, "hello").unwrap();
    world.wait_for_replies(1);
    let report = block_on(handle.stop()).unwrap();
    assert_eq!(world.server.confirmed_offset(), Some(id + 1));
    world.assert_confirmed(&report);
    // The one that brought the update, and perhaps the one that was cut; none after that.
    let polls = world.server.polls();
    let long = polls
        .iter()
        .filter(|poll| poll.params.get("timeout") != Some("0"));
    assert!((1..=2).contains(&long.count()), "{polls:?}");
}

fn a_webhook_ends_the_run_unless_it_may_be_deleted<C: HttpClient>(world: World<C>) {
    world.server.set_webhook("https://example.org/hook");
    let shown = shown(&block_on(world.start(world.echo()).task()).unwrap_err());
    assert!(shown.contains("delete the webhook"), "{shown}");

    world.server.push_message(5, 5, "hello");
    let fetch = FetchOptions::default().delete_webhook(true);
    let handle = world.start(world.echo().fetch(fetch));
    assert!(
        world
            .server
            .wait_for_call(|call| call.is("sendMessage"), LONG)
            .is_some()
    );
    block_on(handle.stop()).unwrap();
    let refused = world
        .server
        .polls()
        .iter()
        .filter_map(|poll| poll.answer)
        .filter(|(answer, _)| matches!(answer, PollAnswer::Refused(409)))
        .count();
    assert_eq!(refused, 1, "deleted before the first poll");
}

fn typed_calls_work<C: HttpClient>(world: World<C>) {
    let me = block_on(world.api.get_me()).unwrap();
    assert_eq!(me.id, world.server.bot_id());
    assert!(me.is_bot);
    let sent = block_on(world.api.send_message(5, "grüße 😀")).unwrap();
    assert!(sent.message_id > 0);
    assert_eq!(world.replies(), ["grüße 😀"]);
    block_on(world.api.answer_callback_query("300")).unwrap();
    let blocked = FaultRule::new(Fault::Forbidden)
        .method("sendMessage")
        .times(1);
    world.server.set_faults(FaultPlan::new(0).rule(blocked));
    let error = block_on(world.api.send_message(5, "x")).unwrap_err();
    assert_eq!(error.code(), Some(403));
    let busy = FaultRule::new(Fault::TooManyRequests(7)).times(1);
    world.server.set_faults(FaultPlan::new(0).rule(busy));
    let hasty = world.api.clone().flood_wait(Duration::ZERO);
    let error = block_on(hasty.send_message(5, "x")).unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
}

macro_rules! everywhere {
    ($($feature:literal $place:ident $client:ident $on:ident)*) => {$(
        #[cfg(feature = $feature)]
        mod $place {
            use runner_http::$client;

            use super::World;

            tests! { World::$on($client::new()) =>
                nothing_is_lost_or_repeated_and_every_chat_keeps_its_order
                what_cannot_be_decoded_reaches_the_policy_and_costs_nothing_else
                a_refused_token_ends_the_run_and_says_what_to_do
                a_redirect_is_not_followed_and_ends_the_run
                a_429_is_waited
                everybody_is_answered_although_the_server_says_429
                a_connection_that_hangs_costs_one_deadline
                stopping_cuts_the_poll_and_confirms_what_was_handled
                a_webhook_ends_the_run_unless_it_may_be_deleted
                typed_calls_work
            }
        }
    )*};
}

macro_rules! tests {
    ($world:expr => $($test:ident)*) => {$(
        #[test]
        fn $test() {
            super::$test($world);
        }
    )*};
}

everywhere! {
    "ureq" ureq_on_tokio UreqClient on_tokio
    "ureq" ureq_on_smol UreqClient on_smol
    "hyper" hyper_on_tokio HyperClient on_tokio
    "hyper" hyper_on_smol HyperClient on_smol
}
