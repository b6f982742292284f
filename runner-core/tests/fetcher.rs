//! The offset: where it goes, when the server knows it, and what comes again.

#[path = "common/api.rs"]
mod api;
mod common;

use std::{sync::Arc, time::Duration};

use api::{Api, Cut, Delete, Raw, Reply, TOO_LARGE};
use common::{MS, SECOND, n, runtime};
use runner_core::{
    Confirmation, Conflict, Delivery, ErrorPolicy, Failure, Fate, FetchOptions, RunError, RunState,
    Runner, RunnerHandle, RuntimeExt, SinkOptions, SourceError, SourceOptions, SupplyError,
    UpdateConsumer, UpdateFetcher, UpdateSupplier, Verdict,
    testing::{SimRuntime, for_each_seed},
};

const MINUTE: Duration = Duration::from_secs(60);

fn fetcher(sim: &SimRuntime, api: &Api) -> UpdateFetcher<Api> {
    UpdateFetcher::new(runtime(sim), api.clone())
}

fn runner<C: UpdateConsumer<Raw>>(
    sim: &SimRuntime,
    api: &Api,
    consumer: C,
) -> Runner<UpdateFetcher<Api>, C> {
    Runner::new(runtime(sim), fetcher(sim, api), consumer)
}

/// Every update takes `span`.
fn taking(sim: &SimRuntime, span: Duration) -> impl UpdateConsumer<Raw> + use<> {
    let sim = sim.clone();
    move |_: Delivery<Raw>| {
        let sim = sim.clone();
        async move { sim.sleep(span).await }
    }
}

fn start(sim: &SimRuntime, api: &Api) -> RunnerHandle<Raw> {
    runner(sim, api, taking(sim, Duration::ZERO)).start()
}

fn transient() -> SupplyError {
    SupplyError::transient("connection reset")
}

fn poller() -> SupplyError {
    SupplyError::conflict(Conflict::Poller, "terminated by other getUpdates request")
}

fn webhook() -> SupplyError {
    SupplyError::conflict(Conflict::Webhook, "webhook is active")
}

/// Fetches once, without a source.
fn supply(sim: &SimRuntime, fetcher: &mut UpdateFetcher<Api>) -> Vec<i64> {
    let batch = sim.block_on(fetcher.supply(n(100))).unwrap();
    batch.iter().map(|raw| raw.id).collect()
}

#[test]
fn every_update_is_fetched_once_and_in_order() {
    for_each_seed(50, |sim| {
        let api = Api::new(&sim);
        let (sender, receiver) = std::sync::mpsc::channel();
        let handle = runner(&sim, &api, move |update: Delivery<Raw>| {
            let sender = sender.clone();
            async move { sender.send(update.id).unwrap() }
        })
        .sink(SinkOptions::sequential())
        .start();
        for id in 0..500 {
            api.push([id]);
            sim.advance(MS * u32::try_from(sim.below(3)).unwrap());
        }
        sim.advance(SECOND);
        sim.block_on(handle.stop()).unwrap();
        let ids: Vec<i64> = receiver.try_iter().collect();
        assert_eq!(ids, (0..500).collect::<Vec<_>>());
    });
}

#[test]
fn the_offset_is_what_follows_the_last_answer() {
    let sim = SimRuntime::new(1);
    let api = Api::new(&sim);
    let mut fetcher = fetcher(&sim, &api);
    api.push([7, 8, 30]);
    assert_eq!(supply(&sim, &mut fetcher), [7, 8, 30]);
    api.script([Reply::Ids(Vec::new())]);
    assert_eq!(supply(&sim, &mut fetcher), []);
    api.push([31]);
    assert_eq!(supply(&sim, &mut fetcher), [31]);
    assert_eq!(api.offsets(), [None, Some(31), Some(31)]);
}

#[test]
fn a_jump_downwards_is_followed() {
    let sim = SimRuntime::new(1);
    let api = Api::new(&sim);
    let mut fetcher = fetcher(&sim, &api);
    api.push([900_000]);
    supply(&sim, &mut fetcher);
    // After a week without updates.
    api.forget();
    api.push([20, 21]);
    assert_eq!(supply(&sim, &mut fetcher), [20, 21]);
    api.push([22]);
    assert_eq!(supply(&sim, &mut fetcher), [22]);
    assert_eq!(api.offsets(), [None, Some(900_001), Some(22)]);
}

/// What a runner hands to its handler within ten seconds, against a server that gives these answers
/// whatever the offset; and how many polls there are.
fn handled_of(answers: impl IntoIterator<Item = Vec<i64>>) -> (Vec<i64>, usize) {
    let sim = SimRuntime::new(1);
    let api = Api::new(&sim);
    api.script(answers.into_iter().map(Reply::Ids));
    let (sender, receiver) = std::sync::mpsc::channel();
    let handle = runner(&sim, &api, move |update: Delivery<Raw>| {
        let sender = sender.clone();
        async move { sender.send(update.id).unwrap() }
    })
    .sink(SinkOptions::sequential())
    .start();
    sim.advance(10 * SECOND);
    assert!(handle.is_running());
    (receiver.try_iter().collect(), api.polls().len())
}

#[test]
fn a_server_that_repeats_an_update_is_polled_with_backoff_and_the_update_handled_once() {
    let (handled, polls) = handled_of((0..10_000).map(|_| vec![7]));
    assert_eq!(handled, [7]);
    assert!(polls < 20, "{polls}");
}

#[test]
fn a_server_that_repeats_updates_in_turn_has_each_handled_once() {
    for (first, second) in [(7, 8), (8, 7)] {
        let (handled, polls) = handled_of((0..5_000).flat_map(|_| [vec![first], vec![second]]));
        assert_eq!(handled, [first, second]);
        assert!(polls < 20, "{polls}");
    }
}

#[test]
fn of_an_answer_that_comes_twice_only_new_updates_are_handled() {
    let (handled, _) = handled_of([
        vec![1, 2],
        vec![1, 2],
        vec![2, 3, 4],
        vec![3, 4, 5, 5],
        vec![],
    ]);
    assert_eq!(handled, [1, 2, 3, 4, 5]);
}

#[test]
fn a_repeated_answer_counts_as_a_failed_call_and_says_why() {
    let sim = SimRuntime::new(1);
    let api = Api::new(&sim);
    api.script((0..10_000).map(|_| Reply::Ids(vec![7, 8])));
    let handle = start(&sim, &api);
    sim.advance(MINUTE + 31 * SECOND);
    let (health, stats) = (handle.health(), handle.stats());
    assert_eq!(stats.counters.supplied, 2);
    assert_eq!(stats.failed_calls + 1, stats.calls);
    assert!(!health.is_connected());

    let mut fetcher = fetcher(&sim, &api);
    sim.block_on(fetcher.supply(n(100))).unwrap();
    let error = sim.block_on(fetcher.supply(n(100))).unwrap_err();
    let SupplyError::Transient(source) = error else {
        panic!("{error:?}");
    };
    let text = source.to_string();
    assert!(text.contains("ignores the offset"), "{text}");
}

#[test]
fn a_repeated_answer_confirms_nothing() {
    let sim = SimRuntime::new(1);
    let api = Api::new(&sim);
    api.script((0..10_000).map(|_| Reply::Ids(vec![7, 8])));
    let handle = start(&sim, &api);
    sim.advance(10 * SECOND);
    let report = sim.block_on(handle.stop()).unwrap();
    let unconfirmed = Confirmation::Unconfirmed { position: 9 };
    assert_eq!(report.confirmation, unconfirmed);
}

#[test]
fn updates_that_an_earlier_run_left_behind_are_no_repetitions() {
    let sim = SimRuntime::new(1);
    let api = Api::new(&sim);
    api.push([1, 2, 3, 4]);
    let mut fetcher = fetcher(&sim, &api);
    assert_eq!(supply(&sim, &mut fetcher), [1, 2, 3, 4]);
    for settled in [1, 0, 2] {
        sim.block_on(fetcher.close(settled)).unwrap();
        let left: Vec<i64> = api.queue();
        assert_eq!(supply(&sim, &mut fetcher), left);
    }
    assert_eq!(api.queue(), [4]);
}

#[test]
fn a_jump_downwards_and_up_again_is_followed() {
    let (handled, _) = handled_of([vec![900, 901], vec![20, 21], vec![899], vec![902], vec![22]]);
    assert_eq!(handled, [900, 901, 20, 21, 899, 902, 22]);
}

#[test]
fn a_dropped_call_loses_nothing_and_moves_nothing() {
    for_each_seed(50, |sim| {
        let api = Api::new(&sim);
        let mut fetcher = fetcher(&sim, &api);
        let mut got = Vec::new();
        for id in 0..200 {
            api.push([id]);
            api.script([Reply::Late(MS * u32::try_from(sim.below(3)).unwrap())]);
            let patience = MS * u32::try_from(sim.below(3)).unwrap();
            let batch = sim.block_on(sim.timeout(patience, fetcher.supply(n(100))));
            if let Some(batch) = batch {
                got.extend(batch.unwrap().iter().map(|raw| raw.id));
            }
        }
        got.extend(supply(&sim, &mut fetcher));
        assert_eq!(got, (0..200).collect::<Vec<_>>());
    });
}

#[test]
fn limits_timeouts_and_kinds_are_those_asked_for() {
    let sim = SimRuntime::new(1);
    let api = Api::new(&sim);
    let options = FetchOptions::default()
        .limit(40)
        .timeout(Duration::from_millis(20_900))
        .margin(5 * SECOND)
        .allowed_updates(["message", "chat_member"]);
    let mut fetcher = fetcher(&sim, &api).options(options);
    // The first call may have to wait for a login.
    assert_eq!(fetcher.call_timeout(), Some(55 * SECOND));
    api.push(0..1_000);
    for (asked, used) in [(1, 1), (39, 39), (41, 40), (100_000, 40)] {
        sim.block_on(fetcher.supply(n(asked))).unwrap();
        let poll = api.last_poll();
        assert_eq!((poll.limit, poll.timeout), (used, 20 * SECOND));
        let kinds = ["message".to_owned(), "chat_member".to_owned()];
        assert_eq!(poll.allowed_updates.as_deref(), Some(&kinds[..]));
        assert_eq!(fetcher.call_timeout(), Some(25 * SECOND));
    }
    let plain = UpdateFetcher::new(runtime(&sim), api.clone());
    assert_eq!(plain.call_timeout(), Some(75 * SECOND));
}

#[test]
fn a_connection_that_is_half_open_costs_one_deadline() {
    let sim = SimRuntime::new(1);
    let api = Api::new(&sim);
    api.push([1]);
    api.script([Reply::Answer, Reply::Hang]);
    let handle = start(&sim, &api);
    sim.advance(SECOND);
    api.push([2]);
    sim.advance(44 * SECOND + 499 * MS);
    assert_eq!(handle.stats().counters.finished, 1);
    // After the deadline of 45 s and a backoff between half a second and one.
    sim.advance(SECOND / 2 + MS);
    assert_eq!(handle.stats().counters.finished, 2);
}

/// How many updates each poll has asked for.
fn limits(api: &Api) -> Vec<u8> {
    api.polls().iter().map(|poll| poll.limit).collect()
}

#[test]
fn an_answer_that_takes_too_long_is_followed_by_polls_for_fewer() {
    for (timeout, per_update) in [(10, 280), (30, 500), (0, 1_000), (10, 10_000)] {
        let sim = SimRuntime::new(1);
        let api = Api::new(&sim);
        let options = FetchOptions::default().timeout(timeout * SECOND);
        let fetcher = fetcher(&sim, &api).options(options);
        let handle = Runner::new(runtime(&sim), fetcher, taking(&sim, MS)).start();
        api.push([0]);
        sim.advance(20 * SECOND);
        api.slow_down(MS * per_update);
        api.push(1..=100);
        // All that can come in this time, and some of it again.
        sim.advance(5 * MINUTE.max(2 * 100 * MS * per_update));
        let report = sim.block_on(handle.stop()).unwrap();
        assert_eq!(
            report.counters.finished,
            101,
            "{timeout}: {:?}",
            limits(&api)
        );
    }
}

#[test]
fn an_answer_that_is_too_large_is_followed_by_polls_for_fewer() {
    let sim = SimRuntime::new(1);
    let api = Api::new(&sim);
    let too_large = || Reply::Fail(Duration::ZERO, SupplyError::transient(TOO_LARGE));
    api.script([too_large(), too_large()]);
    api.push(0..1_000);
    start(&sim, &api);
    sim.advance(10 * SECOND);
    // Until as many have come as were refused.
    let expected = [100, 50, 25, 25, 25, 25, 100, 100];
    assert_eq!(limits(&api)[..8], expected);
    assert_eq!(api.queue(), []);
}

#[test]
fn other_failures_leave_the_number_of_updates_as_it_is() {
    let sim = SimRuntime::new(1);
    let api = Api::new(&sim);
    api.script([
        Reply::Fail(MINUTE / 3, transient()),
        Reply::Fail(SECOND, SupplyError::retry_after(MS, "too many requests")),
        Reply::Fail(SECOND, poller()),
    ]);
    start(&sim, &api);
    sim.advance(MINUTE);
    let limits = limits(&api);
    assert!(
        limits.len() > 3 && limits.iter().all(|limit| *limit == 100),
        "{limits:?}"
    );
}

#[test]
fn more_updates_are_asked_for_once_answers_are_quick_again() {
    let sim = SimRuntime::new(1);
    let api = Api::new(&sim);
    let handle = start(&sim, &api);
    api.push([0]);
    sim.advance(SECOND);
    // Nothing can be said of a connection that is dead.
    api.script((0..6).map(|_| Reply::Hang));
    api.push([1]);
    sim.advance(10 * MINUTE);
    api.push(2..2_000);
    sim.advance(SECOND);
    assert_eq!(handle.stats().counters.finished, 2_000);
    let limits = limits(&api);
    let lowest = limits.iter().position(|limit| *limit < 10).unwrap();
    assert!(limits[lowest..].len() < 40, "{limits:?}");
    assert_eq!(limits.last(), Some(&100));
}

/// How long it takes to fetch a backlog of a thousand updates, as few calls as possible.
fn fetching_a_backlog(options: FetchOptions, api: &Api, sim: &SimRuntime) -> Duration {
    api.push(0..1_000);
    let fetcher = fetcher(sim, api).options(options);
    let sleeper = taking(sim, Duration::ZERO);
    let began = sim.elapsed();
    let handle = Runner::new(runtime(sim), fetcher, sleeper)
        .source(SourceOptions::default().speed_traffic_balance(1.0))
        .start();
    while handle.stats().counters.finished < 1_000 {
        sim.advance(MS);
    }
    sim.elapsed() - began
}

#[test]
fn an_answer_with_all_that_was_asked_for_is_not_followed_by_a_pause() {
    for limit in [1, 10, 99, 100] {
        let sim = SimRuntime::new(1);
        let api = Api::new(&sim);
        let took = fetching_a_backlog(FetchOptions::default().limit(limit), &api, &sim);
        assert!(took <= 20 * MS, "{limit}: {took:?}");
    }

    let sim = SimRuntime::new(1);
    let api = Api::new(&sim);
    api.max_updates(7);
    let took = fetching_a_backlog(FetchOptions::default(), &api, &sim);
    assert!(took <= 20 * MS, "{took:?}");
    assert!(limits(&api).iter().all(|limit| *limit == 7));

    // A backoff, and then fewer at a time.
    let api = Api::new(&sim);
    api.script([Reply::Fail(
        Duration::ZERO,
        SupplyError::transient(TOO_LARGE),
    )]);
    let took = fetching_a_backlog(FetchOptions::default(), &api, &sim);
    assert!(took <= SECOND + 20 * MS, "{took:?}");
}

/// How long updates waited that came one every ten minutes or so, from the shortest wait on.
fn waits(sim: &SimRuntime, cut: Cut) -> Vec<Duration> {
    let api = Api::new(sim);
    api.cut(Some(cut));
    let (sender, receiver) = std::sync::mpsc::channel();
    let clock = sim.clone();
    let _handle = runner(sim, &api, move |_: Delivery<Raw>| {
        sender.send(clock.elapsed()).unwrap();
        async {}
    })
    .start();
    let mut waits = Vec::new();
    for id in 0..40 {
        sim.advance(10 * MINUTE + MS * u32::try_from(sim.below(60_000)).unwrap());
        let sent = sim.elapsed();
        api.push([id]);
        sim.advance(2 * MINUTE);
        waits.push(receiver.recv().unwrap() - sent);
    }
    waits.sort();
    waits
}

#[test]
fn polls_that_are_cut_while_they_wait_delay_no_update_by_more_than_a_second() {
    let idle = [2, 5, 20, 29].map(|span| Cut::Idle(span * SECOND));
    let age = [7, 39, 50, 100].map(|span| Cut::Age(span * SECOND));
    for cut in idle.into_iter().chain(age) {
        for_each_seed(3, |sim| {
            let waits = waits(&sim, cut);
            assert!(waits[waits.len() / 2] < MS, "{cut:?}: {waits:?}");
            assert!(waits[waits.len() - 1] <= SECOND, "{cut:?}: {waits:?}");
        });
    }
}

#[test]
fn polls_that_are_cut_at_the_same_age_are_made_shorter_and_later_long_again() {
    let sim = SimRuntime::new(1);
    let api = Api::new(&sim);
    api.cut(Some(Cut::Idle(20 * SECOND)));
    let handle = start(&sim, &api);
    sim.advance(10 * MINUTE);
    let stats = handle.stats();
    assert!(stats.failed_calls <= 2, "{stats:?}");
    assert!(api.last_poll().timeout >= 15 * SECOND);
    sim.advance(2 * 60 * MINUTE);
    assert!(handle.stats().failed_calls <= 8);
    api.cut(None);
    sim.advance(60 * MINUTE);
    assert_eq!(api.last_poll().timeout, 30 * SECOND);
}

#[test]
fn empty_answers_that_come_too_early_are_followed_by_a_pause() {
    let sim = SimRuntime::new(1);
    let api = Api::new(&sim);
    api.script((0..10).map(|_| Reply::Ids(Vec::new())));
    let handle = start(&sim, &api);
    sim.advance(7 * SECOND + 500 * MS);
    let times: Vec<Duration> = api.polls().iter().map(|poll| poll.at).collect();
    let expected = [0, 0, 0, 1, 2, 3, 4, 5, 6, 7].map(Duration::from_secs);
    assert_eq!(times, expected);
    // Updates end the row, and the pause can be stopped.
    sim.advance(SECOND);
    api.push([1]);
    sim.run_until_idle();
    api.script((0..9).map(|_| Reply::Ids(Vec::new())));
    api.push([2]);
    sim.advance(SECOND / 2);
    let before = sim.elapsed();
    sim.block_on(handle.stop()).unwrap();
    assert_eq!(sim.elapsed(), before);
}

#[test]
fn nothing_to_confirm_means_no_request() {
    let sim = SimRuntime::new(1);
    let api = Api::new(&sim);
    let handle = start(&sim, &api);
    sim.advance(45 * SECOND);
    let report = sim.block_on(handle.stop()).unwrap();
    assert_eq!(report.confirmation, Confirmation::NotNeeded);
    assert_eq!(api.polls().len(), 2);
}

#[test]
fn an_answer_that_followed_confirms_without_a_request() {
    let sim = SimRuntime::new(1);
    let api = Api::new(&sim);
    api.push([1, 2]);
    let handle = start(&sim, &api);
    sim.advance(30 * SECOND);
    let report = sim.block_on(handle.stop()).unwrap();
    assert_eq!(report.confirmation, Confirmation::Confirmed { position: 3 });
    // The first one, the one that timed out, and the one that was cut short.
    assert_eq!(api.offsets(), [None, Some(3), Some(3)]);
    assert_eq!(api.queue(), []);
}

#[test]
fn a_poll_that_waited_for_a_second_is_assumed_to_confirm() {
    for (waited, assumed) in [(SECOND, true), (SECOND - MS, false)] {
        let sim = SimRuntime::new(1);
        let api = Api::new(&sim);
        api.push([1, 2]);
        let handle = start(&sim, &api);
        sim.advance(waited);
        let report = sim.block_on(handle.stop()).unwrap();
        let position = 3;
        let expected = if assumed {
            Confirmation::Assumed { position }
        } else {
            Confirmation::Confirmed { position }
        };
        assert_eq!(report.confirmation, expected);
        assert_eq!(api.polls().len(), 2 + usize::from(!assumed));
        let last = api.last_poll();
        assert_eq!(last.offset, Some(3));
        if !assumed {
            assert_eq!((last.limit, last.timeout), (1, Duration::ZERO));
        }
    }
}

#[test]
fn a_dead_connection_is_not_assumed_to_have_confirmed() {
    for_each_seed(20, |sim| {
        let api = Api::new(&sim);
        api.push([1, 2]);
        api.script([Reply::Answer, Reply::Hang, Reply::Hang]);
        let handle = start(&sim, &api);
        // The deadline drops the call; the stop comes during the backoff.
        sim.advance(45 * SECOND + SECOND / 4);
        assert_eq!(handle.health().state, RunState::Backoff);
        let before = sim.elapsed();
        let report = sim.block_on(handle.stop()).unwrap();
        assert_eq!(
            report.confirmation,
            Confirmation::Unconfirmed { position: 3 }
        );
        assert_eq!(sim.elapsed() - before, SECOND);
    });
}

#[test]
fn a_confirmation_that_the_server_slows_down_is_assumed() {
    let sim = SimRuntime::new(1);
    let api = Api::new(&sim);
    api.push([1, 2]);
    // The same offset twice within three seconds: the second request is held.
    api.script([Reply::Answer, Reply::Answer, Reply::Late(3 * SECOND)]);
    let handle = start(&sim, &api);
    sim.advance(SECOND / 2);
    let report = sim.block_on(handle.stop()).unwrap();
    assert_eq!(report.confirmation, Confirmation::Assumed { position: 3 });
    assert_eq!(api.queue(), []);
}

#[test]
fn a_stop_right_after_an_answer_takes_a_second_at_most_and_no_time_if_nothing_is_to_be_confirmed() {
    // After how long, how many updates there were, and how long it may take.
    for (after, updates, takes) in [
        (SECOND / 10, 0, Duration::ZERO),
        (SECOND / 10, 2, SECOND),
        (30 * SECOND + SECOND / 10, 0, Duration::ZERO),
        // The answer without updates has confirmed the one before.
        (30 * SECOND + SECOND / 10, 2, Duration::ZERO),
    ] {
        let sim = SimRuntime::new(1);
        let api = Api::new(&sim);
        api.push(0..updates);
        let handle = start(&sim, &api);
        sim.advance(after);
        let polls = api.polls().len();
        // As a server does that is asked the same once more.
        api.script([Reply::Late(3 * SECOND)]);
        let before = sim.elapsed();
        sim.block_on(handle.stop()).unwrap();
        assert_eq!(sim.elapsed() - before, takes);
        assert_eq!(api.polls().len() - polls, usize::from(!takes.is_zero()));
        assert_eq!(api.queue(), []);
    }
}

#[test]
fn at_capacity_a_stop_confirms_with_one_request() {
    for_each_seed(20, |sim| {
        let api = Api::new(&sim);
        api.push(0..10);
        let handle = runner(&sim, &api, taking(&sim, MINUTE))
            .sink(SinkOptions::concurrent().concurrency(n(10)).prefetch(0))
            .start();
        sim.advance(SECOND);
        assert_eq!(api.polls().len(), 1);
        let stopped = handle.stop();
        api.push([10]);
        let report = sim.block_on(stopped).unwrap();
        assert_eq!(report.counters.finished, 10);
        assert_eq!(
            report.confirmation,
            Confirmation::Confirmed { position: 10 }
        );
        assert_eq!(api.offsets(), [None, Some(10)]);
        // What the request returned is not confirmed.
        assert_eq!(api.queue(), [10]);
    });
}

#[test]
fn a_confirmation_that_fails_says_so() {
    let failures: [(Reply, Duration); 4] = [
        (Reply::Fail(Duration::ZERO, transient()), Duration::ZERO),
        (Reply::Fail(Duration::ZERO, webhook()), Duration::ZERO),
        (
            Reply::Fail(
                Duration::ZERO,
                SupplyError::retry_after(MINUTE, "too many requests"),
            ),
            Duration::ZERO,
        ),
        (Reply::Hang, SECOND),
    ];
    for (reply, takes) in failures {
        let sim = SimRuntime::new(1);
        let api = Api::new(&sim);
        api.push([1]);
        api.script([Reply::Answer, reply]);
        let handle = runner(&sim, &api, taking(&sim, SECOND))
            .sink(SinkOptions::sequential())
            .start();
        sim.advance(SECOND / 2);
        let report = sim.block_on(handle.stop()).unwrap();
        assert_eq!(
            report.confirmation,
            Confirmation::Unconfirmed { position: 2 }
        );
        assert_eq!(sim.elapsed(), SECOND + takes);
    }
}

#[test]
fn a_conflict_with_another_poller_confirms_too() {
    let sim = SimRuntime::new(1);
    let api = Api::new(&sim);
    api.push([1]);
    api.script([Reply::Answer, Reply::Fail(SECOND / 2, poller())]);
    let handle = start(&sim, &api);
    sim.advance(SECOND);
    let report = sim.block_on(handle.stop()).unwrap();
    assert_eq!(report.confirmation, Confirmation::Confirmed { position: 2 });
    assert_eq!(api.polls().len(), 2);
}

#[test]
fn what_failed_to_be_confirmed_is_confirmed_by_the_next_run() {
    let sim = SimRuntime::new(1);
    let api = Api::new(&sim);
    api.push([1]);
    api.script([
        Reply::Answer,
        Reply::Fail(Duration::ZERO, transient()),
        Reply::Answer,
    ]);
    let handle = runner(&sim, &api, taking(&sim, SECOND))
        .sink(SinkOptions::sequential())
        .start();
    sim.run_until_idle();
    let report = sim.block_on(handle.stop()).unwrap();
    assert_eq!(
        report.confirmation,
        Confirmation::Unconfirmed { position: 2 }
    );
    handle.start().unwrap();
    sim.advance(40 * SECOND);
    let report = sim.block_on(handle.stop()).unwrap();
    assert_eq!(report.confirmation, Confirmation::Confirmed { position: 2 });
    assert_eq!(report.counters.supplied, 0);
    handle.start().unwrap();
    sim.advance(40 * SECOND);
    let report = sim.block_on(handle.stop()).unwrap();
    assert_eq!(report.confirmation, Confirmation::NotNeeded);
}

/// Updates whose id is a multiple of ten never end.
fn stuck_at_ten(sim: &SimRuntime) -> impl UpdateConsumer<Raw> + use<> {
    let sim = sim.clone();
    move |update: Delivery<Raw>| {
        let sim = sim.clone();
        async move {
            if update.id % 10 == 0 {
                std::future::pending::<()>().await;
            }
            sim.sleep(MS).await;
        }
    }
}

#[test]
fn an_abandoned_update_and_all_after_it_come_again() {
    for_each_seed(20, |sim| {
        let api = Api::new(&sim);
        api.push(7..13);
        let handle = runner(&sim, &api, stuck_at_ten(&sim))
            .sink(SinkOptions::batch())
            .start();
        sim.advance(SECOND);
        let report = sim.block_on(handle.stop_within(SECOND)).unwrap();
        assert_eq!(report.counters.finished, 5);
        assert_eq!(report.abandoned.len(), 1);
        assert_eq!(report.abandoned[0].update.id, 10);
        assert_eq!(report.abandoned[0].fate, Fate::Redelivered);
        assert_eq!(
            report.confirmation,
            Confirmation::Confirmed { position: 10 }
        );
        assert_eq!(api.queue(), [10, 11, 12]);

        handle.start().unwrap();
        sim.advance(SECOND);
        // The one that is stuck, and two that were handled before.
        let report = sim.block_on(handle.stop_within(SECOND)).unwrap();
        assert_eq!(report.counters.supplied, 3);
        assert_eq!(report.abandoned[0].fate, Fate::Redelivered);
        // Only what it had said already.
        assert_eq!(report.confirmation, Confirmation::NotNeeded);
        assert_eq!(api.queue(), [10, 11, 12]);
    });
}

#[test]
fn what_the_server_has_forgotten_is_reported_as_lost() {
    for_each_seed(20, |sim| {
        let api = Api::new(&sim);
        api.push(7..13);
        let handle = runner(&sim, &api, stuck_at_ten(&sim)).start();
        sim.advance(SECOND);
        api.push([13, 20, 21]);
        sim.advance(10 * MS);
        let report = sim.block_on(handle.stop_within(SECOND)).unwrap();
        let fates: Vec<_> = report
            .abandoned
            .iter()
            .map(|abandoned| (abandoned.update.id, abandoned.fate))
            .collect();
        // 10 was in an earlier batch; the poll after 21 was under way when it was cut short.
        assert_eq!(fates, [(10, Fate::Lost), (20, Fate::Lost)]);
        let redelivered = api.queue();
        handle.start().unwrap();
        sim.advance(SECOND);
        let report = sim.block_on(handle.stop_within(SECOND)).unwrap();
        assert_eq!(report.counters.supplied, redelivered.len() as u64);
    });
}

#[test]
fn a_stopping_policy_leaves_its_update_for_the_next_run() {
    struct StopAtFive;
    impl ErrorPolicy<Raw> for StopAtFive {
        async fn decide(&self, failure: Failure<Raw>) -> Verdict {
            assert_eq!(failure.update.id, 5);
            Verdict::Stop
        }
    }
    let sim = SimRuntime::new(1);
    let api = Api::new(&sim);
    api.push(1..10);
    let mut runner = runner(
        &sim,
        &api,
        async |update: Delivery<Raw>| {
            if update.id == 5 { Err("no") } else { Ok(()) }
        },
    )
    .sink(SinkOptions::sequential())
    .policy(StopAtFive);
    for supplied in [9, 5] {
        let error = sim.block_on(runner.run()).unwrap_err();
        let RunError::Policy { report, .. } = error else {
            panic!("{error:?}");
        };
        assert_eq!(report.counters.supplied, supplied);
        assert_eq!(report.abandoned[0].update.id, 5);
        assert_eq!(report.abandoned[0].fate, Fate::Redelivered);
        assert_eq!(api.queue()[0], 5);
    }
}

#[test]
fn a_run_that_was_cut_short_goes_on_where_it_was() {
    let sim = SimRuntime::new(1);
    let api = Api::new(&sim);
    api.push(7..13);
    let mut runner = runner(&sim, &api, stuck_at_ten(&sim)).sink(SinkOptions::batch());
    sim.block_on(async {
        assert!(sim.timeout(SECOND, runner.run()).await.is_none());
    });
    // Nothing was confirmed by that.
    assert_eq!(api.queue(), [7, 8, 9, 10, 11, 12]);
    let handle = runner.start();
    sim.advance(SECOND);
    assert_eq!(handle.stats().counters.supplied, 3);
    assert_eq!(api.queue(), [10, 11, 12]);
}

#[test]
fn a_confirmation_that_is_cut_short_still_goes_back() {
    let sim = SimRuntime::new(1);
    let api = Api::new(&sim);
    api.push([1, 2, 3]);
    let mut fetcher = fetcher(&sim, &api);
    assert_eq!(supply(&sim, &mut fetcher), [1, 2, 3]);
    api.script([Reply::Hang]);
    let closing = sim.block_on(sim.timeout(MS, fetcher.close(1)));
    assert!(closing.is_none());
    assert_eq!(supply(&sim, &mut fetcher), [2, 3]);
    // Counted anew: the first of two.
    let closing = sim.block_on(fetcher.close(1)).unwrap();
    assert_eq!(closing.redelivers_from, Some(1));
    assert_eq!(
        closing.confirmation,
        Confirmation::Confirmed { position: 3 }
    );
}

#[test]
fn pending_updates_are_dropped_once_if_asked_to() {
    let sim = SimRuntime::new(1);
    let api = Api::new(&sim);
    api.push([1, 2]);
    api.fail_delete(transient());
    let options = FetchOptions::default().drop_pending_updates(true);
    let fetcher = fetcher(&sim, &api).options(options);
    let handle = Runner::new(runtime(&sim), fetcher, taking(&sim, MS)).start();
    sim.advance(5 * SECOND);
    // The first one failed and was repeated.
    let deletes = api.deletes();
    assert_eq!(deletes.len(), 2);
    for delete in &deletes {
        assert!(matches!(
            delete,
            Delete {
                drop_pending_updates: true,
                after_polls: 0,
                ..
            }
        ));
    }
    api.push([3]);
    sim.advance(SECOND);
    let report = sim.block_on(handle.stop()).unwrap();
    assert_eq!(report.counters.finished, 1);
    // Not again in the next run.
    api.push([4]);
    handle.start().unwrap();
    sim.advance(SECOND);
    let report = sim.block_on(handle.stop()).unwrap();
    assert_eq!(report.counters.finished, 1);
    assert_eq!(api.deletes().len(), 2);
}

#[test]
fn a_webhook_is_deleted_at_the_start_and_once_per_run_if_asked_to() {
    let sim = SimRuntime::new(1);
    let api = Api::new(&sim);
    api.script([
        Reply::Answer,
        Reply::Fail(SECOND, webhook()),
        Reply::Answer,
        Reply::Fail(SECOND, webhook()),
    ]);
    api.push([1]);
    let options = FetchOptions::default().delete_webhook(true);
    let fetcher = fetcher(&sim, &api).options(options);
    let handle = Runner::new(runtime(&sim), fetcher, taking(&sim, MS)).start();
    sim.advance(SECOND);
    api.push([2]);
    let error = sim.block_on(handle.stopped()).unwrap_err();
    assert_eq!(error.report().counters.finished, 2);
    let RunError::Supply { source, .. } = &error else {
        panic!("{error:?}");
    };
    assert!(matches!(**source, SourceError::Webhook(_)));
    let deletes = api.deletes();
    assert_eq!(deletes.len(), 2);
    assert!(deletes.iter().all(|delete| !delete.drop_pending_updates));
    assert_eq!((deletes[0].after_polls, deletes[1].after_polls), (0, 2));
    // No backoff in between.
    assert_eq!(deletes[1].at, SECOND);
}

#[test]
fn without_being_asked_nothing_is_deleted() {
    let sim = SimRuntime::new(1);
    let api = Api::new(&sim);
    api.script([Reply::Fail(Duration::ZERO, webhook())]);
    let error = sim.block_on(start(&sim, &api).stopped()).unwrap_err();
    assert!(matches!(error, RunError::Supply { .. }));
    assert_eq!(api.deletes(), []);
}

#[test]
fn a_fetcher_can_be_boxed_and_shown() {
    let sim = SimRuntime::new(1);
    let api = Api::new(&sim);
    let fetcher = fetcher(&sim, &api);
    assert!(format!("{fetcher:?}").contains("offset: None"));
    api.push([1]);
    let boxed = runner_core::BoxSupplier::new(fetcher);
    let handle = Runner::new(runtime(&sim), boxed, taking(&sim, MS)).start();
    sim.advance(SECOND);
    let report = sim.block_on(handle.stop()).unwrap();
    assert_eq!(report.counters.finished, 1);
    assert!(Arc::strong_count(&report.abandoned) >= 1);
}
