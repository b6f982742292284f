//! Two thousand updates a second and faults of every kind: everything is settled once, and nothing
//! grows.

pub(crate) mod bot;

use std::{
    env,
    ops::Range,
    thread,
    time::{Duration, Instant},
};

use runner_testkit::{Fault, FaultPlan, FaultRule, LocalServer, Stage};

use self::bot::{CHATS, Part};
use crate::{
    child::Child,
    usage::{Usage, median, most},
};

/// How many updates arrive in a second.
const RATE: usize = 2_000;

/// How long the load lasts without a wish: long enough for every fault to come.
const SHORT: Duration = Duration::from_secs(5);

/// So many updates come before the load: all that a bot needs at all is there when they are handled.
const FIRST: usize = 20;

/// How long an HTTP client keeps a thread or a connection that it does not need, and a little more.
const KEPT: Duration = Duration::from_secs(16);

/// A soak of less than this says nothing about memory.
const LONG: Duration = Duration::from_secs(360);

/// What is not looked at when memory is compared: until everything has happened more than once, and
/// every thread that there will be has had its share of memory from the allocator.
const WARM_UP: Duration = Duration::from_secs(180);

/// How many samples are compared, one for each second.
const MINUTE: usize = 60;

/// Behind so many updates the load waits for a machine that is too busy: the server would soon drop some.
const BACKLOG: usize = 50_000;

/// A bound for what comes much earlier; nothing waits for it to pass.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn nothing_grows_under_load_and_faults(place: &str) {
    let asked = env::var("RUNNER_SOAK_SECONDS").ok();
    let length = asked.map_or(SHORT, |seconds| {
        Duration::from_secs(seconds.parse().expect("a number of seconds"))
    });
    let is_long = length >= LONG;
    let plan = always();
    let server = LocalServer::builder().without_records().faults(plan);
    let server = server.start().unwrap();
    // A little more than will come, because the clock decides.
    let room = RATE * usize::try_from(length.as_secs() + 10).unwrap();
    let mut child = Child::start(
        "soak",
        place,
        [
            (bot::SERVER, &server.url()),
            (bot::TOKEN, &server.token()),
            (bot::ROOM, &room),
            // Else glibc gives every thread a part of memory of its own, which fills by chance and is
            // kept: that looks like a leak for longer than a soak lasts.
            ("MALLOC_ARENA_MAX", &1),
        ],
    );
    push(&server, 0..FIRST);
    let arrived = server.wait_until(|state| state.calls > 0 && state.pending == 0, PATIENCE);
    assert!(arrived, "{:?}", server.snapshot());
    let before = child.usage();
    let (mut pushed, samples) = feed(&server, &child, length);
    if is_long {
        pushed = wait_for_rest(&server, &child, before, pushed);
    }
    // What is confirmed was handed over; what was handed over is handled before the bot ends.
    let arrived = server.wait_until(|state| state.pending == 0, PATIENCE);
    assert!(arrived, "{:?}", server.snapshot());
    // Once it stops, a message that was not sent is tried once more and then counts as failed.
    server.set_faults(FaultPlan::new(0));
    child.tell(pushed);
    let found = child.end();
    println!(
        "{place}: {pushed} updates in {length:.0?}: {:?}",
        found.numbers
    );
    println!("{place}: faults {:?}", server.fault_counts());
    tell(place, &samples, &found.allocated);

    let number = |name: &str| usize::try_from(found.numbers[name]).unwrap();
    assert_eq!(number("supplied"), pushed, "no batch was given twice");
    assert_eq!(number("settled"), pushed);
    assert_eq!(number("never"), 0);
    assert_eq!(number("repeats"), 0);
    assert_eq!(number("disordered"), 0);
    let expected = |part| {
        (0..pushed)
            .filter(|number| Part::of(*number) == part)
            .count()
    };
    assert_eq!(number("panicked"), expected(Part::Panics));
    assert_eq!(number("failed"), expected(Part::Fails));
    assert!(number("retried") >= expected(Part::Fails));
    // A handler that should have been in time may be late on a busy machine.
    assert!(number("timed_out") >= expected(Part::Hangs));
    let kinds = if is_long { &KINDS[..] } else { &KINDS[..FEW] };
    for fault in kinds {
        let name = fault.name();
        assert!(server.fault_count(name) > 0, "{name} has never come");
    }
    assert_bounded(&samples);
    if is_long {
        let due = RATE * usize::try_from(length.as_secs()).unwrap();
        assert!(pushed * 100 >= due * 95, "the machine was too busy");
        assert_flat(&samples, &found.allocated);
    }
}

/// What goes wrong with calls from handlers.
fn always() -> FaultPlan {
    let sending = |fault| FaultRule::new(fault).method("sendMessage").chance(0.005);
    FaultPlan::new(3)
        .rule(sending(Fault::BadGateway))
        .rule(sending(Fault::TooManyRequests(1)))
        .rule(sending(Fault::Reset).stage(Stage::After))
        .rule(sending(Fault::CloseUnanswered))
}

/// What goes wrong with polls, one after the other; a short soak is content with the first few.
const KINDS: [Fault; 10] = [
    Fault::BadGateway,
    Fault::HalfOpen,
    Fault::Reset,
    Fault::TruncatedJson,
    Fault::TooManyRequests(1),
    Fault::CloseUnanswered,
    Fault::Close,
    Fault::EmptyBody,
    Fault::WrongLength,
    Fault::InternalError,
];
const FEW: usize = 6;

/// Another poller costs 5 to 10 s, and the fourth one without five quiet minutes between is fatal.
const CONFLICT_EVERY: Duration = Duration::from_secs(310);

/// Pushes updates and faults for so long, and looks at the bot once a second.
fn feed(server: &LocalServer, child: &Child, length: Duration) -> (usize, Vec<Usage>) {
    let mut faults = Faults::new(length >= LONG);
    let mut next_conflict = Duration::from_secs(10);
    let mut samples = Vec::new();
    let mut pushed = FIRST;
    let began = Instant::now();
    loop {
        let passed = began.elapsed();
        if server.pending() < BACKLOG {
            let due = usize::try_from(passed.as_millis()).unwrap() * RATE / 1_000;
            push(server, pushed..due);
            pushed = due.max(pushed);
        }
        faults.go_on(server, passed);
        if length >= LONG && passed >= next_conflict {
            next_conflict += CONFLICT_EVERY;
            server.add_fault(poll(Fault::Conflict));
        }
        if passed.as_secs() > samples.len() as u64 {
            samples.push(child.usage());
        }
        if passed >= length && faults.hits >= FEW {
            return (pushed, samples);
        }
        assert!(passed < length + PATIENCE, "{:?}", server.fault_counts());
        // The pace of the load, on which no result depends.
        thread::sleep(Duration::from_millis(10));
    }
}

fn poll(fault: Fault) -> FaultRule {
    FaultRule::new(fault).method("getUpdates").times(1)
}

/// Lets polls go wrong one at a time, with good ones in between: several faults in a row are waited
/// for longer and longer.
struct Faults {
    pause: Duration,
    kinds: std::iter::Cycle<std::array::IntoIter<Fault, { KINDS.len() }>>,
    /// What goes wrong next, how often that has happened before, and what was confirmed by then.
    now: Option<(Fault, u64, Option<i64>)>,
    next_at: Duration,
    hits: usize,
}

impl Faults {
    fn new(is_long: bool) -> Self {
        let pause = if is_long {
            Duration::from_secs(5)
        } else {
            Duration::ZERO
        };
        Self {
            pause,
            kinds: KINDS.into_iter().cycle(),
            now: None,
            next_at: Duration::ZERO,
            hits: 0,
        }
    }

    fn go_on(&mut self, server: &LocalServer, passed: Duration) {
        let confirmed = server.confirmed_offset();
        if let Some((fault, count, before)) = self.now {
            if server.fault_count(fault.name()) == count {
                // Not come yet, and whatever is confirmed by now was so before.
                self.now = Some((fault, count, confirmed));
                return;
            }
            if confirmed == before {
                return;
            }
            self.now = None;
            self.hits += 1;
        }
        if passed >= self.next_at {
            self.next_at = passed + self.pause;
            let fault = self.kinds.next().expect("it is a cycle");
            self.now = Some((fault, server.fault_count(fault.name()), confirmed));
            server.add_fault(poll(fault));
        }
    }
}

/// Queues the updates with these numbers.
fn push(server: &LocalServer, numbers: Range<usize>) {
    for number in numbers {
        let chat = i64::try_from(number % CHATS).unwrap() + 1;
        let pushed = server.push_message(chat, chat, &number.to_string());
        assert!(pushed.is_some(), "the server has dropped an update");
    }
}

/// Bounds that hold at any moment, whatever the machine does: a leak of one for each call, fault or
/// failed handler is beyond them.
fn assert_bounded(samples: &[Usage]) {
    let threads = most(samples, |usage| usage.threads);
    let descriptors = most(samples, |usage| usage.descriptors);
    assert!(threads <= 64, "{threads} threads");
    assert!(descriptors <= 640, "{descriptors} descriptors");
}

/// The minute after the warm-up against the last one.
fn assert_flat(samples: &[Usage], allocated: &[u64]) {
    let (first, last) = minutes(samples);
    let resident = |samples| median(samples, |usage: &Usage| usage.resident);
    let (before, after) = (resident(first), resident(last));
    assert!(
        after * 100 <= before * 105,
        "{before} KiB, then {after} KiB"
    );

    // How much is allocated changes with the calls that are on their way: the least of a minute does
    // so least. Less than a byte for every update is none for any of them.
    let (first, last) = minutes(allocated);
    let (before, after) = (first.iter().min(), last.iter().min());
    let growth = after.unwrap().saturating_sub(*before.unwrap());
    let updates = (allocated.len() - WARM_UP.as_secs() as usize - MINUTE) * RATE;
    assert!(growth < updates as u64, "{before:?} bytes, then {after:?}");
}

/// Waits until the bot, with nothing to do, has no more threads and descriptors than after its first
/// updates. How many it has at work says nothing: calls come and go, and what they used is kept a while.
fn wait_for_rest(server: &LocalServer, child: &Child, before: Usage, mut pushed: usize) -> usize {
    let began = Instant::now();
    let mut next = KEPT;
    loop {
        let now = child.usage();
        if now.threads <= before.threads && now.descriptors <= before.descriptors {
            return pushed;
        }
        assert!(began.elapsed() < PATIENCE, "{before:?}, then {now:?}");
        if began.elapsed() > next {
            // A client may wait for the next call before it closes connections that are too old.
            next += KEPT;
            push(server, pushed..pushed + FIRST);
            pushed += FIRST;
        }
        thread::sleep(Duration::from_millis(100));
    }
}

fn minutes<T>(samples: &[T]) -> (&[T], &[T]) {
    let warm = usize::try_from(WARM_UP.as_secs()).unwrap();
    let rest = &samples[warm.min(samples.len().saturating_sub(1))..];
    let first = &rest[..MINUTE.min(rest.len())];
    let last = &rest[rest.len() - first.len()..];
    (first, last)
}

fn tell(place: &str, samples: &[Usage], allocated: &[u64]) {
    tell_of(place, "resident, KiB", samples, |usage| usage.resident);
    tell_of(place, "anonymous, KiB", samples, |usage| usage.anonymous);
    tell_of(place, "threads", samples, |usage| usage.threads);
    tell_of(place, "descriptors", samples, |usage| usage.descriptors);
    tell_of(place, "allocated, bytes", allocated, |bytes| *bytes);
    if env::var_os("RUNNER_SOAK_TRACE").is_some() {
        for (second, usage) in samples.iter().enumerate() {
            let allocated = allocated.get(second);
            println!("{place}: {second} s: {usage:?}, allocated {allocated:?}");
        }
    }
}

fn tell_of<T>(place: &str, name: &str, samples: &[T], read: fn(&T) -> u64) {
    let (first, last) = minutes(samples);
    println!(
        "{place}: {name}: first minute {} (at most {}), last minute {} (at most {}), ever {}",
        median(first, read),
        most(first, read),
        median(last, read),
        most(last, read),
        most(samples, read),
    );
}
