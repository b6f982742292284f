//! What is no fault of a single call: other pollers, webhooks, jumps of the ids, odd updates.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures::executor::block_on;
use runner::{
    Cause, Failure, FetchOptions, Incoming, RunError, RunState, RunnerHandle, SourceError, Verdict,
    http::HttpClient,
};
use runner_testkit::{PollAnswer, Traffic};

use crate::world::{Handled, LONG, Place, World, count, echo, fetch, stop};

/// The new instance of a bot starts before the old one ends, as in a rolling deploy, and all is quiet
/// when they meet.
pub(crate) fn a_rolling_deploy_hands_over<C: HttpClient>(on: fn() -> Place, client: fn() -> C) {
    let (old_place, new_place) = (on(), on());
    let mut world = World::new();
    let part = count() / 3;
    world.push(part);
    let old = old_place.start(echo(world.api(client())).fetch(long_poll()));
    world.wait_for_all(0);
    assert!(world.server.wait_until(|state| state.is_polled, LONG));
    let new = new_place.start(echo(world.api(client())));
    wait_for_conflict(&world, &old);
    // The old one stays away for at least 5 s, so this is for the new one.
    world.push(part);
    world.wait_for_replies(part + 1);
    let old = stop(&old);
    world.push(part);
    world.wait_for_all(0);
    let new = stop(&new);

    assert_eq!(world.handled(), Handled::expected(0));
    let part = u64::try_from(part).unwrap();
    assert_eq!(
        (old.counters.finished, new.counters.finished),
        (part, 2 * part)
    );
    world.assert_confirmed(&new);
}

/// The same amid a backlog: no poll waits, so the server refuses nobody and gives both what neither
/// has confirmed yet.
pub(crate) fn a_deploy_under_load_loses_nothing<C: HttpClient>(
    on: fn() -> Place,
    client: fn() -> C,
) {
    let (old_place, new_place) = (on(), on());
    let mut world = World::new();
    let count = count();
    world.push(count);
    let old = old_place.start(echo(world.api(client())));
    world.wait_for_replies(count / 4);
    let new = new_place.start(echo(world.api(client())));
    world.wait_for_replies(count / 2);
    let old = stop(&old);
    assert!(
        world
            .server
            .wait_until(|state| state.is_polled && state.pending == 0, LONG),
        "{:?}",
        world.server
    );
    let new = stop(&new);

    let handled = world.handled();
    let finished = old.counters.finished + new.counters.finished;
    let delivered: usize = world
        .server
        .polls()
        .iter()
        .filter_map(|poll| match poll.answer {
            Some((PollAnswer::Updates(count), _)) => Some(count),
            _ => None,
        })
        .sum();
    // What the server gave to both was handled by both, and nothing more often than that.
    assert_eq!(handled.never, 0);
    assert!(handled.most <= 2, "{handled:?}");
    assert_eq!(finished, u64::try_from(count + handled.repeats).unwrap());
    assert!(
        count + handled.repeats <= delivered,
        "{handled:?}, {delivered} delivered"
    );
    println!(
        "a deploy under load: {} of {count} were given to both",
        handled.repeats
    );
}

/// Two instances that both stay throw each other out until one gives up.
pub(crate) fn of_two_that_stay_one_goes_on<C: HttpClient>(on: fn() -> Place, client: fn() -> C) {
    let began = Instant::now();
    let (first_place, second_place) = (on(), on());
    let mut world = World::new();
    let part = count() / 3;
    world.push(part);
    let first = first_place.start(echo(world.api(client())).fetch(long_poll()));
    world.wait_for_all(0);
    assert!(world.server.wait_until(|state| state.is_polled, LONG));
    let second = second_place.start(echo(world.api(client())));
    wait_for_conflict(&world, &first);
    world.push(part);
    world.wait_for_all(0);
    // Whoever has been refused four times.
    let ended = block_on(futures::future::select(first.task(), second.task()));
    let (result, left) = match ended {
        futures::future::Either::Left((result, _)) => (result, &second),
        futures::future::Either::Right((result, _)) => (result, &first),
    };
    let error = result.expect_err("one of them gives up");
    let RunError::Supply { source, .. } = &error else {
        panic!("{error:?}");
    };
    assert!(matches!(**source, SourceError::Poller { .. }), "{source:?}");
    println!(
        "of two that stay, one gave up after {:.1?}",
        began.elapsed()
    );
    assert!(left.is_running());
    world.push(part);
    world.wait_for_all(0);
    let report = stop(left);
    assert_eq!(world.handled(), Handled::expected(0));
    world.assert_confirmed(&report);
}

/// A poll that waits until somebody ends it, so that there is no moment between two polls.
fn long_poll() -> FetchOptions {
    fetch().timeout(Duration::from_secs(50))
}

/// Waits until the server has refused a poll and the bot knows.
fn wait_for_conflict(world: &World, handle: &RunnerHandle<Incoming>) {
    let refused = |answer| matches!(answer, Some((PollAnswer::Refused(409), _)));
    let poll = world
        .server
        .wait_for_poll(|poll| refused(poll.answer), LONG);
    assert!(poll.is_some(), "{:?}", world.server);
    let deadline = Instant::now() + LONG;
    while handle.health().state != RunState::Conflict {
        assert!(Instant::now() < deadline, "{:?}", handle.health());
        std::thread::yield_now();
    }
}

/// Somebody sets a webhook while the bot polls, and the bot may delete it.
pub(crate) fn a_webhook_is_deleted_once<C: HttpClient>(place: &Place, client: C) {
    let mut world = World::new();
    let part = count() / 2;
    world.push(part);
    let bot = echo(world.api(client)).fetch(fetch().delete_webhook(true));
    let handle = place.start(bot);
    world.wait_for_replies(part / 2);
    world.server.set_webhook("https://example.org/hook");
    world.push(part);
    // One call deletes the webhook before the first poll, and one in mid-run.
    world.wait_for_all(2);
    let report = stop(&handle);
    assert_eq!(world.server.calls_of("deleteWebhook").len(), 2);
    assert_eq!(world.handled(), Handled::expected(0));
    world.assert_confirmed(&report);
}

/// Somebody sets a webhook while the bot polls, and nobody has allowed the bot to delete it: the run
/// ends, and the next one goes on where it was.
pub(crate) fn a_webhook_ends_the_run<C: HttpClient>(place: &Place, client: C) {
    let mut world = World::new();
    let part = count() / 2;
    world.push(part);
    let handle = place.start(echo(world.api(client)));
    world.wait_for_replies(part / 2);
    world.server.set_webhook("https://example.org/hook");
    let error = block_on(handle.task()).unwrap_err();
    let RunError::Supply { source, report } = &error else {
        panic!("{error:?}");
    };
    assert!(matches!(**source, SourceError::Webhook(_)), "{source:?}");
    assert!(report.abandoned.is_empty());
    world.server.set_webhook("");
    world.push(part);
    handle.start().unwrap();
    world.wait_for_all(0);
    let report = stop(&handle);
    // The offset of the first run could not be confirmed while the webhook was set; the second run
    // has it all the same.
    assert_eq!(world.handled(), Handled::expected(0));
    world.assert_confirmed(&report);
}

/// After a week without updates the ids go on anywhere.
pub(crate) fn ids_that_jump_are_followed<C: HttpClient>(place: &Place, client: C) {
    let mut world = World::new();
    let part = count() / 3;
    world.push(part);
    let handle = place.start(echo(world.api(client)));
    let mut downwards = true;
    for _ in 0..2 {
        world.wait_for_all(0);
        let quiet = |state: &runner_testkit::Snapshot| state.is_polled && state.pending == 0;
        assert!(world.server.wait_until(quiet, LONG));
        world.server.rerandomise_ids(downwards);
        downwards = false;
        world.push(part);
    }
    world.wait_for_all(0);
    let report = stop(&handle);
    assert_eq!(world.handled(), Handled::expected(0));
    world.assert_confirmed(&report);
}

/// An update of a kind that nobody knows and one whose fields have the wrong types, amid a batch.
pub(crate) fn odd_updates_cost_nobody_else_anything<C: HttpClient>(place: &Place, client: C) {
    let mut world = World::new();
    let part = count() / 2;
    world.push(part);
    let odd = Traffic::undecodable();
    let ids = world.server.push_batch([
        ("telepathy", r#"{"thought":{"chat":{"id":"far"},"text":7}}"#),
        (odd.kind, odd.body.as_str()),
    ]);
    world.push(part);
    let refused = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&refused);
    let bot = echo(world.api(client)).policy(move |failure: Failure<Incoming>| {
        assert!(matches!(failure.cause, Cause::Undecodable(_)));
        notes.lock().unwrap().push(Some(failure.update.id()));
        Verdict::Skip
    });
    let handle = place.start(bot);
    world.wait_for_all(0);
    let report = stop(&handle);
    assert_eq!(*refused.lock().unwrap(), [ids[1]]);
    assert_eq!(report.counters.undecodable, 1);
    // The unknown kind is an update like any other, which this bot has nothing to say to.
    assert_eq!(
        report.counters.finished,
        u64::try_from(2 * part).unwrap() + 1
    );
    assert_eq!(world.handled(), Handled::expected(0));
    world.assert_confirmed(&report);
}
