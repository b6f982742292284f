//! A line about an update says about which one.
#![cfg(feature = "tracing")]

#[path = "common/api.rs"]
mod api;
mod common;

use std::{future::pending, num::NonZeroU32, time::Duration};

use api::{Api, Raw};
use common::{SECOND, log, n, quiet, runtime};
use runner_core::{
    Bot, BoxError, Delivery, Failure, Key, Runner, RunnerHandle, RuntimeExt, SinkOptions, Verdict,
    testing::{ScriptedSupplier, SimRuntime},
};

/// A bot with three updates of the chats 7, 8 and 7, whose texts say what the handler does.
fn updates(sim: &SimRuntime, texts: [&str; 3]) -> Api {
    let api = Api::new(sim);
    for ((id, chat), text) in [(100, 7), (101, 8), (102, 7)].into_iter().zip(texts) {
        api.send(id, chat, text);
    }
    api
}

async fn handle(sim: SimRuntime, update: Delivery<String>) -> Result<(), BoxError> {
    match update.as_str() {
        "fail" => return Err("the database is gone".into()),
        "explode" => panic!("on purpose"),
        "hang" => pending().await,
        "once" if update.attempt() == NonZeroU32::MIN => return Err("not yet".into()),
        _ => {}
    }
    sim.sleep(SECOND).await;
    Ok(())
}

fn finish<U: Send + Sync + 'static>(sim: &SimRuntime, handle: &RunnerHandle<U>) {
    sim.advance(100 * SECOND);
    sim.block_on(handle.stop_within(Duration::ZERO)).unwrap();
}

/// Fields and message of the lines whose message contains `text`.
fn lines(text: &str) -> Vec<String> {
    let lines = log::lines().into_iter();
    lines
        .filter(|line| line.message.contains(text))
        .map(|line| line.fields.trim_end().to_owned())
        .collect()
}

#[test]
fn a_line_says_which_update_was_given_up() {
    quiet();
    log::listen();
    let sim = SimRuntime::new(1);
    let api = updates(&sim, ["fail", "explode", "hang"]);
    let bot = Bot::for_each_with(api, sim.clone(), handle).timeout(5 * SECOND);
    finish(&sim, &bot.into_runner(runtime(&sim)).start());
    let mut given_up = lines("given up");
    given_up.sort();
    assert_eq!(
        given_up,
        [
            r#"update=100 attempt=1 keys="chat 7" kind="message" cause=the handler failed: the database is gone"#,
            r#"update=101 attempt=1 keys="chat 8" kind="message" cause=the handler panicked: on purpose"#,
            r#"update=102 attempt=1 keys="chat 7" kind="message" cause=the handler timed out"#,
        ]
    );
}

#[test]
fn a_line_says_which_update_is_late() {
    log::listen();
    let sim = SimRuntime::new(1);
    let api = updates(&sim, ["hang", "hang", "fine"]);
    let options = SinkOptions::concurrent()
        .timeout(5 * SECOND)
        .detach_after_timeout(Some(n(1)));
    let bot = Bot::for_each_with(api, sim.clone(), handle).sink(options);
    finish(&sim, &bot.into_runner(runtime(&sim)).start());
    let mut late = lines("timed out");
    late.sort();
    assert_eq!(
        late,
        [
            r#"update=100 attempt=1 keys="chat 7" kind="message" age=5s detached=true"#,
            r#"update=101 attempt=1 keys="chat 8" kind="message" age=5s detached=false"#,
        ]
    );
}

#[test]
fn a_line_says_whose_policy_failed_and_which_update_is_tried_again() {
    quiet();
    log::listen();
    let sim = SimRuntime::new(1);
    let api = updates(&sim, ["fail", "fail", "once"]);
    let policy = |failure: Failure<Raw>| async move {
        match failure.update.id {
            100 => panic!("by the policy"),
            101 => pending().await,
            _ => Verdict::Retry { after: SECOND },
        }
    };
    let bot = Bot::for_each_with(api, sim.clone(), handle).policy(policy);
    finish(&sim, &bot.into_runner(runtime(&sim)).start());
    let cause = "cause=the handler failed: the database is gone";
    assert_eq!(
        lines("policy panicked"),
        [format!(
            r#"update=100 attempt=1 keys="chat 7" kind="message" panic=by the policy {cause}"#
        )]
    );
    assert_eq!(
        lines("policy timed out"),
        [format!(
            r#"update=101 attempt=1 keys="chat 8" kind="message" {cause}"#
        )]
    );
    assert_eq!(
        lines("tried again"),
        [
            r#"update=102 attempt=1 keys="chat 7" kind="message" after=1s cause=the handler failed: not yet"#
        ]
    );
}

#[test]
fn without_a_bot_updates_are_counted_and_may_have_several_keys_or_none() {
    log::listen();
    let sim = SimRuntime::new(1);
    let supplier = ScriptedSupplier::new(&sim).batch(["a", "b", "ab"]);
    let handle = Runner::for_each(runtime(&sim), supplier, async |_: Delivery<&str>| {
        Err::<(), _>("no")
    })
    .sequentialize(|text| {
        let keys = text
            .chars()
            .filter(|letter| *letter != 'a' || text.len() > 1);
        keys.map(|letter| Key::new("letter", letter.to_string()))
            .collect::<Vec<_>>()
    })
    .start();
    finish(&sim, &handle);
    let cause = "cause=the handler failed: no";
    let mut given_up = lines("given up");
    given_up.sort();
    assert_eq!(
        given_up,
        [
            format!("update=0 attempt=1 {cause}"),
            format!(r#"update=1 attempt=1 keys="letter b" {cause}"#),
            format!(r#"update=2 attempt=1 keys="letter a, letter b" {cause}"#),
        ]
    );
}
