//! Order by key.

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use common::{MS, SECOND, n, quiet, runtime};
use runner_core::{
    Cause, Delivery, Failure, Key, Runner, RunnerHandle, SinkOptions, Verdict,
    testing::{End, Log, Plan, Recorder, ScriptedSupplier, SimRuntime, for_each_seed},
};

/// Runs one update for every set of keys; each takes a second, unless `plan` knows better.
fn run<K>(
    sim: &SimRuntime,
    keys: &'static [K],
    options: SinkOptions<impl Sized>,
    plan: impl Fn(u32) -> Option<Plan> + Send + Sync + 'static,
) -> (RunnerHandle<u32>, Log<u32>)
where
    K: AsRef<[&'static str]> + Sync,
{
    let supplier = ScriptedSupplier::new(sim).batch(0..keys.len() as u32);
    let recorder = Recorder::new(sim, move |update: &Delivery<u32>| {
        plan(**update).unwrap_or_else(|| Plan::ok().sleep(SECOND))
    });
    let log = recorder.log();
    let handle = Runner::new(runtime(sim), supplier, recorder)
        .sink(options)
        .sequentialize(move |update: &u32| {
            let names = keys[*update as usize].as_ref();
            names.iter().map(|name| Key::new("name", *name))
        })
        .start();
    (handle, log)
}

/// When each update started, in seconds.
fn starts(log: &Log<u32>) -> Vec<u64> {
    let by_update: BTreeMap<u32, u64> = log
        .entries()
        .iter()
        .map(|entry| {
            assert_eq!(entry.started.subsec_nanos(), 0);
            (entry.update, entry.started.as_secs())
        })
        .collect();
    by_update.into_values().collect()
}

/// With these keys, the updates start at these seconds.
fn expect<K>(keys: &'static [K], seconds: &[u64])
where
    K: AsRef<[&'static str]> + Sync,
{
    for_each_seed(20, |sim| {
        let (handle, log) = run(&sim, keys, SinkOptions::concurrent(), |_| None);
        sim.advance(100 * SECOND);
        drop(handle);
        assert_eq!(starts(&log), seconds);
    });
}

#[test]
fn updates_without_a_common_key_run_at_the_same_time() {
    expect(&[["p"], ["q"]], &[0, 0]);
}

#[test]
fn updates_with_a_common_key_follow_each_other() {
    expect(&[["p"], ["p"], ["p"]], &[0, 1, 2]);
}

#[test]
fn several_common_keys_are_like_one() {
    expect(&[["a", "b", "c", "d"], ["a", "b", "c", "d"]], &[0, 1]);
}

#[test]
fn the_order_in_which_keys_are_named_does_not_matter() {
    expect(
        &[["a", "b"], ["b", "a"], ["a", "b"], ["b", "a"]],
        &[0, 1, 2, 3],
    );
}

#[test]
fn one_common_key_of_several_is_enough() {
    const KEYS: &[&[&str]] = &[&["a", "b", "c", "d"], &["c", "e"], &["e"], &["a"]];
    expect(KEYS, &[0, 1, 2, 1]);
}

#[test]
fn an_update_waits_for_all_its_predecessors() {
    const KEYS: &[&[&str]] = &[&["p"], &["p", "q"], &["p", "q", "r"], &["r"]];
    expect(KEYS, &[0, 1, 2, 3]);
}

#[test]
fn a_chain_of_overlaps_is_a_waterfall() {
    expect(&[["1", "2"], ["2", "3"], ["3", "4"]], &[0, 1, 2]);
    const KEYS: &[&[&str]] = &[
        &["a"],
        &["a", "b"],
        &["b", "c"],
        &["c", "d", "a", "b"],
        &["d", "e"],
        &["e", "f", "c"],
    ];
    expect(KEYS, &[0, 1, 2, 3, 4, 5]);
}

#[test]
fn the_sides_of_a_diamond_run_at_the_same_time() {
    const KEYS: &[&[&str]] = &[&["l", "r"], &["l"], &["r"], &["l", "r"]];
    expect(KEYS, &[0, 1, 1, 2]);
}

#[test]
fn a_key_that_is_named_twice_counts_once() {
    expect(
        &[["a", "a"], ["a", "a"], ["a", "b"], ["b", "b"]],
        &[0, 1, 2, 3],
    );
}

#[test]
fn an_update_without_keys_waits_for_nobody() {
    const KEYS: &[&[&str]] = &[&["a"], &[], &["a"], &[], &["a"]];
    expect(KEYS, &[0, 0, 1, 0, 2]);
}

#[test]
fn a_key_is_free_again_when_its_updates_are_done() {
    for_each_seed(10, |sim| {
        let supplier = ScriptedSupplier::new(&sim)
            .batch([0, 1_u32])
            .wait(500 * MS)
            .batch([2])
            .wait(5 * SECOND)
            .batch([3]);
        let recorder = Recorder::new(&sim, |_: &Delivery<u32>| Plan::ok().sleep(SECOND));
        let log = recorder.log();
        let _handle = Runner::new(runtime(&sim), supplier, recorder)
            .sequentialize(|update: &u32| [Key::chat(i64::from(update % 2))])
            .start();
        sim.advance(10 * SECOND);
        let started: Vec<Duration> = log.entries().iter().map(|entry| entry.started).collect();
        assert_eq!(started, [Duration::ZERO, Duration::ZERO, SECOND, 5500 * MS]);
    });
}

#[test]
fn a_chat_is_not_a_user_of_the_same_number() {
    for_each_seed(10, |sim| {
        let supplier = ScriptedSupplier::new(&sim).batch(0..4_u32);
        let recorder = Recorder::new(&sim, |_: &Delivery<u32>| Plan::ok().sleep(SECOND));
        let log = recorder.log();
        let _handle = Runner::new(runtime(&sim), supplier, recorder)
            .sequentialize(|update: &u32| match update {
                0 => [Key::chat(5)],
                1 => [Key::user(5)],
                2 => [Key::new("thread", 5)],
                _ => [Key::new("thread", "5")],
            })
            .start();
        sim.advance(MS);
        assert_eq!(log.running(), 4);
    });
}

/// Whatever becomes of the first one, the second one follows at once.
fn released_after(first: Plan, end: End, at: Duration) {
    quiet();
    for_each_seed(20, |sim| {
        let first = first.clone();
        let options = SinkOptions::concurrent().timeout(2 * SECOND);
        let (handle, log) = run(&sim, &[["a"], ["a"], ["a"]], options, move |update| {
            (update == 0).then(|| first.clone())
        });
        sim.advance(10 * SECOND);
        let entries = log.entries();
        assert_eq!(entries[0].end, Some(end));
        assert_eq!(entries[1].started, at);
        assert_eq!(entries[2].started, at + SECOND);
        let counters = handle.stats().counters;
        assert_eq!((counters.finished, counters.settled()), (2, 3));
    });
}

#[test]
fn a_failed_predecessor_releases_its_successor() {
    released_after(Plan::fail("no").sleep(SECOND), End::Failed, SECOND);
    released_after(Plan::fail("no"), End::Failed, Duration::ZERO);
}

#[test]
fn a_panicked_predecessor_releases_its_successor() {
    released_after(Plan::panic("no").sleep(SECOND), End::Panicked, SECOND);
    released_after(Plan::panic_at_once("no"), End::Panicked, Duration::ZERO);
}

#[test]
fn a_timed_out_predecessor_releases_its_successor() {
    released_after(Plan::hang(), End::Dropped, 2 * SECOND);
}

#[test]
fn a_predecessor_whose_destructor_panics_releases_its_successor() {
    released_after(Plan::hang().panic_on_drop(), End::Dropped, 2 * SECOND);
}

/// A detached handler is still at work, so its successors wait.
#[test]
fn a_detached_predecessor_keeps_its_keys_until_it_ends() {
    for_each_seed(10, |sim| {
        let options = SinkOptions::concurrent()
            .timeout(2 * SECOND)
            .detach_after_timeout(None);
        let (_handle, log) = run(&sim, &[["a"], ["a"]], options, |update| {
            (update == 0).then(|| Plan::ok().sleep(7 * SECOND))
        });
        sim.advance(20 * SECOND);
        assert_eq!(starts(&log), [0, 7]);
    });
}

#[test]
fn a_key_function_that_panics_sends_its_update_to_the_policy() {
    quiet();
    for_each_seed(20, |sim| {
        let causes = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&causes);
        let supplier = ScriptedSupplier::new(&sim).batch(0..5_u32);
        let recorder = Recorder::new(&sim, |_: &Delivery<u32>| Plan::ok().sleep(SECOND));
        let log = recorder.log();
        let handle = Runner::new(runtime(&sim), supplier, recorder)
            .sequentialize(|update: &u32| {
                assert_ne!(*update, 2, "no key");
                [Key::chat(1)]
            })
            .policy(move |failure: Failure<u32>| {
                let text = match &failure.cause {
                    Cause::Panic(text) => text.to_string(),
                    other => other.to_string(),
                };
                assert!(text.contains("no key"), "{text}");
                seen.lock().unwrap().push(*failure.update);
                Verdict::Skip
            })
            .start();
        sim.advance(10 * SECOND);
        assert_eq!(*causes.lock().unwrap(), [2]);
        assert_eq!(log.started(), [0, 1, 3, 4]);
        let counters = handle.stats().counters;
        assert_eq!((counters.finished, counters.panicked), (4, 1));
    });
}

/// Without its keys an update could overtake its predecessors, so a retry only asks again.
#[test]
fn an_update_whose_keys_are_unknown_is_not_handled_at_a_later_attempt_either() {
    quiet();
    let sim = SimRuntime::new(1);
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    let supplier = ScriptedSupplier::new(&sim).batch([0_u32]);
    let recorder = Recorder::new(&sim, |_: &Delivery<u32>| Plan::ok());
    let log = recorder.log();
    let handle = Runner::new(runtime(&sim), supplier, recorder)
        .sequentialize(|_: &u32| -> [Key; 1] { panic!("no key") })
        .policy(move |failure: Failure<u32>| {
            assert!(matches!(failure.cause, Cause::Panic(_)));
            let attempt = failure.update.attempt().get();
            seen.lock().unwrap().push(attempt);
            match attempt {
                3 => Verdict::Skip,
                _ => Verdict::Retry { after: SECOND },
            }
        })
        .start();
    sim.advance(10 * SECOND);
    assert_eq!(*asked.lock().unwrap(), [1, 2, 3]);
    assert!(log.started().is_empty());
    let counters = handle.stats().counters;
    assert_eq!((counters.panicked, counters.finished), (1, 0));
}

/// Many updates with random keys, random handlers and few slots: whoever shares a key with an
/// earlier update starts when that one has ended.
#[test]
fn the_order_within_a_key_holds_under_concurrency() {
    quiet();
    for_each_seed(60, |sim| {
        const UPDATES: usize = 150;
        let keys: Vec<Vec<i64>> = (0..UPDATES)
            .map(|_| (0..sim.below(4)).map(|_| sim.below(6) as i64).collect())
            .collect();
        let mut supplier = ScriptedSupplier::new(&sim);
        let mut next = 0;
        while next < UPDATES as u32 {
            let end = (next + 1 + sim.below(30) as u32).min(UPDATES as u32);
            supplier = supplier.batch(next..end);
            if sim.below(2) == 0 {
                supplier = supplier.wait(MS * sim.below(5) as u32);
            }
            next = end;
        }
        let dice = sim.clone();
        let recorder = Recorder::new(&sim, move |_: &Delivery<u32>| {
            let plan = match dice.below(6) {
                0 => Plan::fail("no"),
                1 => Plan::panic("no"),
                2 => Plan::hang(),
                _ => Plan::ok(),
            };
            match dice.below(3) {
                0 => plan,
                1 => plan.yield_now(),
                _ => plan.sleep(MS * dice.below(20) as u32),
            }
        });
        let log = recorder.log();
        let table = keys.clone();
        let dice = sim.clone();
        let handle = Runner::new(runtime(&sim), supplier, recorder)
            .sink(
                SinkOptions::concurrent()
                    .concurrency(n(1 + sim.below(10) as usize))
                    .workers(n(1 + sim.below(4) as usize))
                    .timeout(15 * MS),
            )
            .sequentialize(move |update: &u32| {
                table[*update as usize].clone().into_iter().map(Key::chat)
            })
            .policy(move |failure: Failure<u32>| {
                if failure.update.attempt().get() < 3 && dice.below(3) == 0 {
                    Verdict::Retry {
                        after: MS * dice.below(10) as u32,
                    }
                } else {
                    Verdict::Skip
                }
            })
            .start();
        sim.advance(60 * SECOND);
        let counters = handle.stats().counters;
        assert_eq!(counters.settled(), UPDATES as u64);

        // Attempts in the order in which they began: per key, the updates never go back, and the
        // one before has ended.
        let mut last = BTreeMap::<&i64, (u32, Duration)>::new();
        for entry in log.entries() {
            // A key may be named twice.
            for key in &BTreeSet::from_iter(&keys[entry.update as usize]) {
                if let Some((before, ended)) = last.get(key) {
                    assert!(
                        *before <= entry.update,
                        "{before} ran before {}",
                        entry.update
                    );
                    assert!(*ended <= entry.started);
                }
                last.insert(key, (entry.update, entry.ended.unwrap()));
            }
        }
    });
}
