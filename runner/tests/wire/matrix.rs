//! Every fault of the server, with what it may cost.

use std::{
    thread,
    time::{Duration, Instant},
};

use runner::{Backoff, RetryPolicy, SourceOptions, http::HttpClient};
use runner_testkit::{Fault, FaultRule, Poll, Stage};

use crate::world::{Handled, LONG, MARGIN, Place, TIMEOUT, World, count, echo, stop};

const SECOND: Duration = Duration::from_secs(1);
const NONE: Duration = Duration::ZERO;

/// What a busy machine may add to any wait, where waits are measured.
const SLACK: Duration = Duration::from_secs(4);

/// What is asserted of the waits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waits {
    /// That none is shorter than the server has asked for: true however busy the machine is.
    NeverShort,
    /// That none is longer than the fault requires, either.
    NeverLong,
}

/// One fault and its price.
#[derive(Clone, Copy)]
struct Row {
    name: &'static str,
    fault: Fault,
    stage: Stage,
    method: &'static str,
    /// How often it hits.
    times: usize,
    /// How many updates have to be handled once more because of all hits together.
    repeats: usize,
    /// From the answer to a poll that was hit, or its arrival if there was no whole answer, to the
    /// arrival of the next one: the least and the most that the fault requires.
    wait: (Duration, Duration),
}

/// The waits between two polls of which the first was answered with an error: the default backoff,
/// whose first step is 0.5 s to 1 s.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), SECOND);

/// A poll that nobody answers is given up after its timeout and the margin, then comes the backoff.
/// The bot's clock begins earlier than the server's, so the least leaves the backoff out.
const DEAD: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(3));

const fn poll(name: &'static str, fault: Fault, stage: Stage) -> Row {
    Row {
        name,
        fault,
        stage,
        method: "getUpdates",
        times: 2,
        // A poll that was carried out although its answer is lost confirms what was handed over before
        // and nothing else, so the next one gets the same batch for the first time.
        repeats: 0,
        wait: BACKOFF,
    }
}

const fn send(name: &'static str, fault: Fault, stage: Stage, repeats: usize) -> Row {
    Row {
        name,
        fault,
        stage,
        method: "sendMessage",
        times: 5,
        repeats,
        // It is no poll.
        wait: (NONE, NONE),
    }
}

const fn waits(row: Row, times: usize, wait: (Duration, Duration)) -> Row {
    Row { times, wait, ..row }
}

use Stage::{After, Before};

const ROWS: &[Row] = &[
    // The rows that take longest come first, to be waited for together.
    waits(
        poll("half-open connection", Fault::HalfOpen, Before),
        1,
        DEAD,
    ),
    waits(
        poll("half-open, carried out", Fault::HalfOpen, After),
        1,
        DEAD,
    ),
    waits(
        poll("body trickled too slowly", Fault::Trickle(SECOND), After),
        1,
        DEAD,
    ),
    poll("502 HTML", Fault::BadGateway, Before),
    poll("502 HTML, carried out", Fault::BadGateway, After),
    poll("500 JSON", Fault::InternalError, Before),
    poll("500 JSON, carried out", Fault::InternalError, After),
    // Exactly as long as asked: no backoff on top.
    waits(
        poll("429, retry after 2 s", Fault::TooManyRequests(2), Before),
        2,
        (Duration::from_secs(2), Duration::from_secs(2)),
    ),
    poll("reset mid-body", Fault::Reset, After),
    poll("clean close mid-body", Fault::Close, After),
    // As of a pooled connection that was idle too long, so the clients repeat the poll at once.
    waits(
        poll("close before the answer", Fault::CloseUnanswered, Before),
        2,
        (NONE, SECOND),
    ),
    waits(
        poll(
            "close before the answer, carried out",
            Fault::CloseUnanswered,
            After,
        ),
        2,
        (NONE, SECOND),
    ),
    poll("truncated JSON", Fault::TruncatedJson, After),
    poll("empty body", Fault::EmptyBody, After),
    poll("wrong content length", Fault::WrongLength, After),
    // The answer is right, so the next poll follows it at once, in less than a deadline.
    waits(
        poll(
            "trickled body",
            Fault::Trickle(Duration::from_micros(20)),
            After,
        ),
        1,
        (NONE, Duration::from_secs(2)),
    ),
    waits(
        poll("4 MiB answer", Fault::Oversized, After),
        2,
        (NONE, NONE),
    ),
    send("sendMessage: 502 HTML", Fault::BadGateway, Before, 0),
    send(
        "sendMessage: close before the answer",
        Fault::CloseUnanswered,
        Before,
        0,
    ),
    // The message was sent and the bot cannot know: whoever tries again sends it twice. One that does
    // not try again may send none, which is worse.
    send("sendMessage: reset, carried out", Fault::Reset, After, 5),
    send(
        "sendMessage: 502 HTML, carried out",
        Fault::BadGateway,
        After,
        5,
    ),
];

/// How many rows are tried at the same time: most of them wait most of the time, unless there are
/// many updates.
fn at_once() -> usize {
    if count() > 1000 { 3 } else { ROWS.len() }
}

/// Tries every row, several at the same time.
pub(crate) fn try_all<C: HttpClient>(
    on: fn() -> Place,
    client: fn() -> C,
    label: &str,
    asserted: Waits,
) {
    for rows in ROWS.chunks(at_once()) {
        thread::scope(|scope| {
            let cases = rows.iter().map(|row| {
                (
                    row,
                    scope.spawn(move || row.try_on(&on(), client(), asserted)),
                )
            });
            let cases: Vec<_> = cases.collect();
            for (row, case) in cases {
                match case.join() {
                    Ok(line) => println!("{label} | {} | {line}", row.name),
                    Err(_) => panic!("{label}: {}", row.name),
                }
            }
        });
    }
}

impl Row {
    /// Hits one call.
    fn rule(&self) -> FaultRule {
        let rule = FaultRule::new(self.fault).method(self.method);
        rule.stage(self.stage).times(1)
    }

    fn try_on<C: HttpClient>(&self, place: &Place, client: C, asserted: Waits) -> String {
        let began = Instant::now();
        let count = count();
        let mut world = World::new();
        let first = count / (self.times + 1);
        world.push(first);
        let mut bot = echo(world.api(client));
        if let Fault::TooManyRequests(_) = self.fault {
            // So long that a backoff on top of what the server asks for would show.
            let backoff = Backoff::Fixed(Duration::from_secs(30));
            bot =
                bot.source(SourceOptions::default().retry(RetryPolicy::default().backoff(backoff)));
        }
        let handle = place.start(bot);
        // The first answer must come: until then, a login is allowed for.
        world.wait_for_replies(1);
        if self.method == "getUpdates" {
            // Apart from each other, so that every backoff is a first step, and amid the traffic.
            let mut hit = None;
            for _ in 0..self.times {
                world.server.add_fault(self.rule().skip(1));
                world.push(first);
                hit = world
                    .server
                    .wait_for_poll(|poll| poll.fault.is_some() && Some(poll.index) > hit, LONG)
                    .map(|poll| poll.index);
                assert!(hit.is_some(), "{:?}", world.server);
            }
        } else {
            // Each hits a message of its own, none of which was pushed yet.
            for hit in 0..self.times {
                let text = (first + hit * (count - first) / self.times).to_string();
                world.server.add_fault(self.rule().param("text", text));
            }
        }
        world.push(count - world.pushed());
        world.wait_for_all(self.repeats);
        let report = stop(&handle);

        assert_eq!(world.handled(), Handled::expected(self.repeats));
        assert_eq!(report.counters.supplied, u64::try_from(count).unwrap());
        assert_eq!(report.counters.finished, report.counters.supplied);
        world.assert_confirmed(&report);
        let hits = world.server.fault_count(self.fault.name());
        assert_eq!(hits, u64::try_from(self.times).unwrap());
        let waits = self.waits(&world.server.polls());
        self.assert_waits(&waits, asserted);
        format!(
            "never 0, repeats {} | waits {waits:.2?} | {:.1?}",
            self.repeats,
            began.elapsed()
        )
    }

    fn assert_waits(&self, waits: &[Duration], asserted: Waits) {
        let (least, most) = self.wait;
        // Without an answer, a wait is measured from an arrival that a busy server notices late.
        if !self.is_silent() || asserted == Waits::NeverLong {
            assert!(waits.iter().all(|wait| *wait >= least), "{waits:?}");
        }
        if asserted == Waits::NeverLong {
            assert!(waits.iter().all(|wait| *wait < most + SLACK), "{waits:?}");
            if let Fault::TooManyRequests(_) = self.fault {
                // To the second, unless the machine was busy each time.
                let shortest = waits.iter().min().unwrap();
                assert!(*shortest < most + SECOND, "{waits:?}");
            }
        }
    }

    /// Whether no whole answer comes.
    fn is_silent(&self) -> bool {
        matches!(self.fault, Fault::HalfOpen | Fault::Trickle(_))
    }

    /// From the answer to a poll that was hit to the arrival of the next one.
    fn waits(&self, polls: &[Poll]) -> Vec<Duration> {
        polls
            .windows(2)
            .filter(|pair| pair[0].fault.is_some() && is_long(&pair[1]))
            .map(|pair| {
                // The server may have held a poll that it answered.
                let from = match pair[0].answer {
                    Some((_, answered)) if !self.is_silent() => answered,
                    _ => pair[0].at,
                };
                pair[1].at.duration_since(from)
            })
            .collect()
    }
}

/// Not the short one at the end of a run.
fn is_long(poll: &Poll) -> bool {
    poll.params.integer("timeout") == Some(i64::try_from(TIMEOUT.as_secs()).unwrap())
}

const _: () = assert!(TIMEOUT.as_secs() + MARGIN.as_secs() == 2);
