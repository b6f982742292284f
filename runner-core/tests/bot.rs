//! An API and a handler, put together.

#[path = "common/api.rs"]
mod api;
mod common;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use api::{Api, Raw, Reply};
use common::{MS, SECOND, n, quiet, runtime};
use runner_core::{
    Bot, Cause, Confirmation, Delivery, Failure, FetchOptions, Key, RunnerHandle, RuntimeExt,
    SinkOptions, SourceOptions, SupplyError, UpdateConsumer, Verdict,
    testing::{SimRuntime, for_each_seed},
};

/// Texts, with the times at which handlers began and ended.
type Seen = Arc<Mutex<Vec<(String, Duration, Duration)>>>;

/// Every update takes 10 ms.
fn bot(sim: &SimRuntime, api: &Api, seen: &Seen) -> Bot<Api, impl UpdateConsumer<String> + use<>> {
    let state = (sim.clone(), Arc::clone(seen));
    Bot::for_each_with(
        api.clone(),
        state,
        async |(sim, seen): (SimRuntime, Seen), update: Delivery<String>| {
            let began = sim.elapsed();
            sim.sleep(10 * MS).await;
            let entry = (update.to_string(), began, sim.elapsed());
            seen.lock().unwrap().push(entry);
        },
    )
}

fn start<C: UpdateConsumer<String>>(sim: &SimRuntime, bot: Bot<Api, C>) -> RunnerHandle<Raw> {
    bot.into_runner(runtime(sim)).start()
}

fn texts(seen: &Seen) -> Vec<String> {
    seen.lock()
        .unwrap()
        .iter()
        .map(|entry| entry.0.clone())
        .collect()
}

#[test]
fn updates_of_a_chat_are_handled_in_order_and_chats_at_the_same_time() {
    for_each_seed(50, |sim| {
        let api = Api::new(&sim);
        for id in 0..30 {
            api.send(id, 1 + id % 3, &format!("{id:02}"));
        }
        let seen = Seen::default();
        let handle = start(&sim, bot(&sim, &api, &seen));
        sim.advance(SECOND);
        let report = sim.block_on(handle.stop()).unwrap();
        assert_eq!(report.counters.finished, 30);
        let entries = seen.lock().unwrap().clone();
        for chat in 0..3 {
            let own: Vec<_> = entries
                .iter()
                .filter(|entry| entry.0.parse::<u32>().unwrap() % 3 == chat)
                .collect();
            assert!(own.windows(2).all(|pair| pair[0].0 < pair[1].0));
            assert!(own.windows(2).all(|pair| pair[0].2 <= pair[1].1));
        }
        assert_eq!(entries.iter().map(|entry| entry.2).max(), Some(100 * MS));
    });
}

#[test]
fn the_order_can_be_turned_off_or_replaced() {
    let takes = |change: fn(Bot<Api, _>) -> Bot<Api, _>| {
        let sim = SimRuntime::new(1);
        let api = Api::new(&sim);
        for id in 0..10 {
            api.send(id, 1, "hello");
        }
        let seen = Seen::default();
        let handle = start(&sim, change(bot(&sim, &api, &seen)));
        sim.advance(SECOND);
        sim.block_on(handle.stop()).unwrap();
        let seen = seen.lock().unwrap();
        seen.iter().map(|entry| entry.2).max().unwrap()
    };
    assert_eq!(takes(|bot| bot), 100 * MS);
    assert_eq!(takes(Bot::unordered), 10 * MS);
    assert_eq!(
        takes(|bot| bot.sequentialize(|raw| [Key::new("half", raw.id % 2)])),
        50 * MS
    );
    assert_eq!(takes(|bot| bot.unordered().concurrency(n(4))), 30 * MS);
    assert_eq!(
        takes(|bot| bot.unordered().sink(SinkOptions::sequential())),
        100 * MS
    );
}

#[test]
fn five_hundred_run_at_once_by_default() {
    let sim = SimRuntime::new(1);
    let api = Api::new(&sim);
    api.push(0..1_000);
    let seen = Seen::default();
    let handle = start(&sim, bot(&sim, &api, &seen));
    sim.advance(5 * MS);
    assert_eq!(handle.size(), 500);
    sim.block_on(handle.stop()).unwrap();
}

#[test]
fn an_update_that_cannot_be_decoded_costs_no_other_one() {
    for_each_seed(20, |sim| {
        quiet();
        let api = Api::new(&sim);
        for (id, text) in (0..).zip(["1", "undecodable", "2", "panic", "3"]) {
            api.send(id, 1, text);
        }
        let seen = Seen::default();
        let failures = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&failures);
        let bot = bot(&sim, &api, &seen).policy(move |failure: Failure<Raw>| {
            // The policy sees what was fetched.
            let entry = (failure.update.id, failure.cause.to_string());
            noted.lock().unwrap().push(entry);
            assert_eq!(
                matches!(failure.cause, Cause::Undecodable(_)),
                failure.update.text == "undecodable"
            );
            Verdict::Skip
        });
        let handle = start(&sim, bot);
        sim.advance(SECOND);
        let report = sim.block_on(handle.stop()).unwrap();
        assert_eq!(texts(&seen), ["1", "2", "3"]);
        let counters = report.counters;
        assert_eq!(
            (counters.finished, counters.undecodable, counters.panicked),
            (3, 1, 1)
        );
        let expected = [
            (1, "the update cannot be decoded: not an update".to_owned()),
            (3, "the handler panicked: while decoding".to_owned()),
        ];
        assert_eq!(*failures.lock().unwrap(), expected);
    });
}

#[test]
fn a_handler_may_fail_and_time_out() {
    let sim = SimRuntime::new(1);
    let api = Api::new(&sim);
    for (id, text) in (0..).zip(["fail", "hang", "fine"]) {
        api.send(id, 1, text);
    }
    let bot = Bot::for_each(api.clone(), async |update: Delivery<String>| {
        match update.as_str() {
            "fail" => Err("no"),
            "hang" => std::future::pending().await,
            _ => Ok(()),
        }
    })
    .timeout(SECOND);
    let handle = start(&sim, bot);
    sim.advance(10 * SECOND);
    let report = sim.block_on(handle.stop()).unwrap();
    let counters = report.counters;
    assert_eq!(
        (counters.failed, counters.timed_out, counters.finished),
        (1, 1, 1)
    );
    assert!(matches!(
        report.confirmation,
        Confirmation::Assumed { position: 3 }
    ));
}

#[test]
fn source_and_fetch_options_are_passed_on() {
    let sim = SimRuntime::new(1);
    let api = Api::new(&sim);
    api.push([1]);
    let bot = Bot::for_each(api.clone(), async |_: Delivery<String>| {})
        .source(
            SourceOptions::default()
                .speed_traffic_balance(1.0)
                .max_delay(SECOND),
        )
        .fetch(FetchOptions::default().limit(7).timeout(3 * SECOND));
    let text = format!("{bot:?}");
    assert!(text.contains("limit: 7"), "{text}");
    let handle = start(&sim, bot);
    sim.advance(10 * SECOND);
    let polls = api.polls();
    assert_eq!((polls[0].limit, polls[0].timeout), (7, 3 * SECOND));
    // A pause after each.
    assert!(polls[2].at - polls[1].at > 3 * SECOND);
    sim.block_on(handle.stop()).unwrap();
}

#[test]
fn a_wrong_token_ends_with_an_error_that_says_what_to_do() {
    let sim = SimRuntime::new(1);
    let api = Api::new(&sim);
    api.script([Reply::Fail(SECOND, SupplyError::fatal("401 Unauthorized"))]);
    let handle = start(&sim, Bot::for_each(api, async |_: Delivery<String>| {}));
    let error = sim.block_on(handle.stopped()).unwrap_err();
    let mut text = String::new();
    let mut next: Option<&dyn std::error::Error> = Some(&error);
    while let Some(error) = next {
        text += &format!("{error}: ");
        next = error.source();
    }
    assert!(text.contains("check its token"), "{text}");
    assert!(text.contains("401 Unauthorized"), "{text}");
}

/// A consumer of a type of its own.
struct Upper(Seen);

impl UpdateConsumer<String> for Upper {
    type Error = std::io::Error;

    async fn consume(&self, update: Delivery<String>) -> Result<(), std::io::Error> {
        let entry = (update.to_uppercase(), Duration::ZERO, Duration::ZERO);
        self.0.lock().unwrap().push(entry);
        Ok(())
    }
}

#[test]
fn a_consumer_of_its_own_type_can_be_used() {
    let sim = SimRuntime::new(1);
    let api = Api::new(&sim);
    api.push([1]);
    let seen = Seen::default();
    let handle = start(&sim, Bot::new(api, Upper(Arc::clone(&seen))));
    sim.advance(SECOND);
    sim.block_on(handle.stop()).unwrap();
    assert_eq!(texts(&seen), ["HELLO"]);
}
