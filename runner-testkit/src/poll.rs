//! What becomes of one getUpdates: [`Polling`], the state of a bot that decides it.
//!
//! Pure: it takes both clocks as arguments, and whoever calls it does the waiting. The rules are
//! those of `Client.cpp` of tdlib/telegram-bot-api (`process_get_updates_query`, `do_get_updates`,
//! `long_poll_wakeup`, `fail_query_conflict`), in their order.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::{
    kinds::Allowed,
    params::{Params, lenient_i32},
    queue::Queue,
};

/// Longest wait; more is cut to this.
const MAX_TIMEOUT: i32 = 50;
/// Most updates of an answer; more is cut to this.
const MAX_LIMIT: i32 = 100;
/// A poll answers so long after the latest update…
const WAIT_AFTER: Duration = Duration::from_millis(1);
/// …and at most so long after the first one that it waited for.
const MAX_DELAY: Duration = Duration::from_millis(2);
/// A repeated offset within this span of the previous start makes a poll wait at least that long.
const REPEAT: Duration = Duration::from_secs(3);
/// A repeated offset within this span of the previous start gets one update only.
const FAST_REPEAT: Duration = Duration::from_millis(500);
/// After a 409, later ones are held back by this for this long.
const CONFLICT_DELAY: Duration = Duration::from_secs(3);

pub(crate) const CONFLICT_POLL: &str = "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running";
pub(crate) const CONFLICT_SET_WEBHOOK: &str = "Conflict: terminated by setWebhook request";
pub(crate) const CONFLICT_WEBHOOK: &str = "Conflict: can't use getUpdates method while webhook is active; use deleteWebhook to delete the webhook first";

/// The time on both clocks: one that only goes on, and the calendar for what expires.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) instant: Instant,
    /// Seconds of Unix time.
    pub(crate) unix: i64,
}

/// The state of a bot that getUpdates and the webhook methods share.
pub(crate) struct Polling {
    pub(crate) queue: Queue,
    pub(crate) allowed: Allowed,
    /// Empty: there is none.
    pub(crate) webhook: String,
    /// Raw offset and start of the previous getUpdates.
    previous: Option<(i32, Instant)>,
    waiter: Option<Waiter>,
    /// Waits that were ended by someone else and whose thread has not asked since.
    ended: HashMap<u64, Conflict>,
    /// Until when a 409 is held back.
    conflicts_held_until: Option<Instant>,
    last_ticket: u64,
}

/// The one getUpdates that waits.
struct Waiter {
    ticket: u64,
    offset: i32,
    limit: usize,
    deadline: Instant,
    /// When it answers because of updates; `None` until there is one.
    wake_at: Option<Instant>,
    /// The latest that `wake_at` may become.
    wake_by: Instant,
}

/// A 409: what it says, and when it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Conflict {
    pub(crate) text: &'static str,
    pub(crate) at: Instant,
}

/// What to do with a getUpdates.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Answer now; this many updates were appended to the answer.
    Answer(usize),
    /// Ask [`Polling::resume`] at `until`, or sooner if [`Polling::arrived`] says so.
    Wait { ticket: u64, until: Instant },
    /// Refuse.
    Refuse(Conflict),
}

/// The parameters of a getUpdates, as used: lenient and clamped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) offset: i32,
    pub(crate) limit: usize,
    pub(crate) timeout: Duration,
}

impl Request {
    pub(crate) fn new(params: &Params) -> Self {
        // An empty value is the default, as an absent one is; anything else is read as a number.
        let integer = |name: &str, default: i32| match params.get(name) {
            None | Some("") => default,
            Some(text) => lenient_i32(text),
        };
        let limit = integer("limit", MAX_LIMIT).clamp(1, MAX_LIMIT);
        let timeout = integer("timeout", 0).clamp(0, MAX_TIMEOUT);
        Self {
            offset: integer("offset", 0),
            limit: usize::try_from(limit).expect("clamped to 1 to 100"),
            timeout: Duration::from_secs(timeout.unsigned_abs().into()),
        }
    }
}

impl Polling {
    pub(crate) fn new(queue: Queue) -> Self {
        Self {
            queue,
            allowed: Allowed::default(),
            webhook: String::new(),
            previous: None,
            waiter: None,
            ended: HashMap::new(),
            conflicts_held_until: None,
            last_ticket: 0,
        }
    }

    /// Decides about a new getUpdates. Updates are appended to `answer`, separated by commas.
    pub(crate) fn get_updates(
        &mut self,
        params: &Params,
        now: Now,
        answer: &mut Vec<u8>,
    ) -> Decision {
        if !self.webhook.is_empty() {
            return Decision::Refuse(self.conflict(CONFLICT_WEBHOOK, now.instant));
        }
        let mut request = Request::new(params);
        self.allowed.update(params.get("allowed_updates"));

        // Polls that repeat themselves are slowed down; they are never refused with a 429.
        let raw_offset = request.offset;
        if let Some((offset, start)) = self.previous
            && offset == raw_offset
        {
            let since = now.instant.saturating_duration_since(start);
            if since < REPEAT && request.timeout < REPEAT {
                request.timeout = REPEAT;
            }
            if since < FAST_REPEAT {
                request.limit = 1;
            }
        }
        self.previous = Some((raw_offset, now.instant));

        if raw_offset < 0 {
            let keep = usize::try_from(raw_offset.unsigned_abs()).unwrap_or(usize::MAX);
            self.queue.trim(keep);
        }
        // Resolved once, so that a poll that waits does not trim again when it wakes.
        if request.offset <= 0 {
            request.offset = self.queue.head();
        }
        let count = self
            .queue
            .read(request.offset, request.limit, now.unix, answer);
        if count > 0 || request.timeout.is_zero() {
            return Decision::Answer(count);
        }

        self.end_wait(CONFLICT_POLL, now.instant);
        self.last_ticket += 1;
        let deadline = now.instant + request.timeout;
        self.waiter = Some(Waiter {
            ticket: self.last_ticket,
            offset: request.offset,
            limit: request.limit,
            deadline,
            wake_at: None,
            wake_by: deadline,
        });
        Decision::Wait {
            ticket: self.last_ticket,
            until: deadline,
        }
    }

    /// Decides about a getUpdates that has waited.
    pub(crate) fn resume(&mut self, ticket: u64, now: Now, answer: &mut Vec<u8>) -> Decision {
        if let Some(conflict) = self.ended.remove(&ticket) {
            return Decision::Refuse(conflict);
        }
        let Some(waiter) = self.waiter.take_if(|waiter| waiter.ticket == ticket) else {
            return Decision::Answer(0);
        };
        let until = waiter.until();
        if now.instant < until {
            self.waiter = Some(waiter);
            return Decision::Wait { ticket, until };
        }
        let count = self
            .queue
            .read(waiter.offset, waiter.limit, now.unix, answer);
        Decision::Answer(count)
    }

    /// Tells that an update was queued. True if the getUpdates that waits must look again, because
    /// it now answers sooner than it knows.
    pub(crate) fn arrived(&mut self, now: Instant) -> bool {
        let Some(waiter) = &mut self.waiter else {
            return false;
        };
        let is_first = waiter.wake_at.is_none();
        if is_first {
            waiter.wake_by = now + MAX_DELAY;
        }
        waiter.wake_at = Some((now + WAIT_AFTER).min(waiter.wake_by));
        is_first
    }

    /// Ends the getUpdates that waits, if there is one, with a 409.
    pub(crate) fn end_wait(&mut self, text: &'static str, now: Instant) {
        if let Some(waiter) = self.waiter.take() {
            let conflict = self.conflict(text, now);
            self.ended.insert(waiter.ticket, conflict);
        }
    }

    /// Lets the getUpdates that waits answer at once.
    pub(crate) fn release_wait(&mut self, now: Instant) {
        if let Some(waiter) = &mut self.waiter {
            waiter.wake_at = Some(now);
            waiter.wake_by = now;
        }
    }

    /// Whether a getUpdates waits.
    pub(crate) fn is_waiting(&self) -> bool {
        self.waiter.is_some()
    }

    /// A 409: sent at once if there was none in the last three seconds, else three seconds late.
    fn conflict(&mut self, text: &'static str, now: Instant) -> Conflict {
        let held = self.conflicts_held_until.is_some_and(|until| now < until);
        let at = if held {
            now + CONFLICT_DELAY
        } else {
            self.conflicts_held_until = Some(now + CONFLICT_DELAY);
            now
        };
        Conflict { text, at }
    }
}

impl Waiter {
    fn until(&self) -> Instant {
        self.wake_at
            .map_or(self.deadline, |wake_at| wake_at.min(self.deadline))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const S: Duration = Duration::from_secs(1);

    /// A bot with the ids from 1000 on, and a clock.
    struct Bot {
        polling: Polling,
        start: Instant,
        answer: Vec<u8>,
    }

    impl Bot {
        fn new(updates: usize) -> Self {
            let mut bot = Self {
                polling: Polling::new(Queue::new(Some(1000), 1)),
                start: Instant::now(),
                answer: Vec::new(),
            };
            for _ in 0..updates {
                bot.push(Duration::ZERO);
            }
            bot
        }

        fn at(&self, after: Duration) -> Now {
            Now {
                instant: self.start + after,
                unix: 0,
            }
        }

        fn push(&mut self, after: Duration) -> bool {
            let now = self.at(after);
            self.polling.queue.push("poll", "1", i64::MAX, 0).unwrap();
            self.polling.arrived(now.instant)
        }

        fn poll(&mut self, params: &[(&str, &str)], after: Duration) -> Decision {
            let now = self.at(after);
            let params = params.iter().copied().collect();
            self.answer.clear();
            self.polling.get_updates(&params, now, &mut self.answer)
        }

        fn wait(&mut self, params: &[(&str, &str)], after: Duration) -> (u64, Duration) {
            match self.poll(params, after) {
                Decision::Wait { ticket, until } => (ticket, until - self.start),
                other => panic!("{other:?}"),
            }
        }

        fn resume(&mut self, ticket: u64, after: Duration) -> Decision {
            let now = self.at(after);
            self.answer.clear();
            self.polling.resume(ticket, now, &mut self.answer)
        }
    }

    #[test]
    fn parameters_are_read_leniently_and_clamped() {
        let request = |params: &[(&str, &str)]| Request::new(&params.iter().copied().collect());
        assert_eq!(
            request(&[]),
            Request {
                offset: 0,
                limit: 100,
                timeout: Duration::ZERO
            }
        );
        for (limit, used) in [
            ("", 100),
            ("0", 1),
            ("-5", 1),
            ("abc", 1),
            ("null", 1),
            ("7", 7),
            ("7.9", 7),
            ("100", 100),
            ("500", 100),
            ("3000000000", 1),
        ] {
            assert_eq!(request(&[("limit", limit)]).limit, used, "{limit:?}");
        }
        for (timeout, used) in [
            ("", 0),
            ("-1", 0),
            ("abc", 0),
            ("30.9", 30),
            ("50", 50),
            ("51", 50),
            ("300", 50),
        ] {
            let timeout_used = request(&[("timeout", timeout)]).timeout;
            assert_eq!(timeout_used, used * S, "{timeout:?}");
        }
        assert_eq!(request(&[("offset", "-3")]).offset, -3);
        assert_eq!(request(&[("offset", "4294967296")]).offset, 0);
    }

    #[test]
    fn updates_are_answered_at_once_whatever_the_timeout() {
        let mut bot = Bot::new(3);
        assert_eq!(
            bot.poll(&[("timeout", "30")], Duration::ZERO),
            Decision::Answer(3)
        );
    }

    #[test]
    fn nothing_and_no_timeout_is_answered_at_once() {
        let mut bot = Bot::new(0);
        assert_eq!(bot.poll(&[], Duration::ZERO), Decision::Answer(0));
        assert_eq!(bot.answer, b"");
    }

    #[test]
    fn a_wait_ends_empty_at_its_timeout() {
        let mut bot = Bot::new(0);
        let (ticket, until) = bot.wait(&[("timeout", "300")], Duration::ZERO);
        assert_eq!(until, 50 * S);
        assert_eq!(
            bot.resume(ticket, 50 * S - MS),
            Decision::Wait {
                ticket,
                until: bot.start + 50 * S
            }
        );
        assert_eq!(bot.resume(ticket, 50 * S), Decision::Answer(0));
        assert!(!bot.polling.is_waiting());
    }

    #[test]
    fn a_wait_answers_1_ms_after_the_latest_update() {
        let mut bot = Bot::new(0);
        let (ticket, _) = bot.wait(&[("timeout", "9")], Duration::ZERO);
        assert!(bot.push(S), "the first update is news");
        assert!(!bot.push(S + MS / 2), "later ones only move the end");
        let until = S + MS / 2 + MS;
        assert_eq!(
            bot.resume(ticket, S + MS),
            Decision::Wait {
                ticket,
                until: bot.start + until
            }
        );
        assert_eq!(bot.resume(ticket, until), Decision::Answer(2));
    }

    #[test]
    fn a_wait_answers_2_ms_after_the_first_update_at_the_latest() {
        let mut bot = Bot::new(0);
        let (ticket, _) = bot.wait(&[("timeout", "9")], Duration::ZERO);
        for half in 0..4 {
            bot.push(S + half * MS / 2);
        }
        assert_eq!(
            bot.resume(ticket, S + MS),
            Decision::Wait {
                ticket,
                until: bot.start + S + 2 * MS
            }
        );
        assert_eq!(bot.resume(ticket, S + 2 * MS), Decision::Answer(4));
    }

    #[test]
    fn the_window_never_outlasts_the_timeout() {
        let mut bot = Bot::new(0);
        let (ticket, _) = bot.wait(&[("timeout", "9")], Duration::ZERO);
        bot.push(9 * S - MS / 2);
        assert_eq!(bot.resume(ticket, 9 * S), Decision::Answer(1));
    }

    #[test]
    fn an_update_below_an_offset_that_is_ahead_ends_the_wait_empty() {
        let mut bot = Bot::new(2);
        let (ticket, _) = bot.wait(&[("offset", "1012"), ("timeout", "9")], Duration::ZERO);
        assert_eq!(bot.polling.queue.len(), 0);
        bot.push(S);
        assert_eq!(bot.resume(ticket, S + MS), Decision::Answer(0));
        assert_eq!(bot.polling.queue.len(), 0, "and the update is lost");
    }

    #[test]
    fn a_negative_offset_trims_once_even_if_the_poll_waits() {
        let mut bot = Bot::new(0);
        let (ticket, _) = bot.wait(&[("offset", "-1"), ("timeout", "9")], Duration::ZERO);
        for _ in 0..3 {
            bot.push(S);
        }
        assert_eq!(bot.resume(ticket, S + MS), Decision::Answer(3));

        assert_eq!(bot.poll(&[("offset", "-2")], 2 * S), Decision::Answer(2));
        assert!(bot.answer.starts_with(b"{\"update_id\":1001,"));
        assert_eq!(bot.poll(&[("offset", "-9")], 3 * S), Decision::Answer(2));
        assert_eq!(bot.polling.queue.confirmed(), None);
    }

    #[test]
    fn a_repeated_offset_is_held_for_three_seconds() {
        let mut bot = Bot::new(0);
        let offset = [("offset", "1000")];
        assert_eq!(bot.poll(&offset, Duration::ZERO), Decision::Answer(0));
        let (_, until) = bot.wait(&offset, 3 * S - MS);
        assert_eq!(until, 6 * S - MS);
        // Measured from the previous start, which the held poll has moved.
        assert_eq!(bot.poll(&offset, 6 * S - MS), Decision::Answer(0));
        let (_, until) = bot.wait(&[("offset", "1000"), ("timeout", "7")], 7 * S);
        assert_eq!(until, 14 * S, "a longer timeout stays");
        let other = [("offset", "999")];
        assert_eq!(bot.poll(&other, 7 * S + MS), Decision::Answer(0));
    }

    #[test]
    fn a_repeated_offset_within_half_a_second_gets_one_update() {
        let mut bot = Bot::new(5);
        assert_eq!(bot.poll(&[], Duration::ZERO), Decision::Answer(5));
        assert_eq!(bot.poll(&[], 499 * MS), Decision::Answer(1));
        assert_eq!(bot.poll(&[], 999 * MS), Decision::Answer(5));
        // It is the raw offset that counts: 1000 is where 0 leads to, and yet another.
        let explicit = [("offset", "1000")];
        assert_eq!(bot.poll(&explicit, 1000 * MS), Decision::Answer(5));
    }

    #[test]
    fn a_newcomer_that_waits_ends_the_earlier_wait() {
        let mut bot = Bot::new(0);
        let (first, _) = bot.wait(&[("timeout", "30")], Duration::ZERO);
        let (second, _) = bot.wait(&[("timeout", "30")], 5 * S);
        assert_eq!(
            bot.resume(first, 5 * S),
            Decision::Refuse(Conflict {
                text: CONFLICT_POLL,
                at: bot.start + 5 * S
            })
        );
        bot.push(6 * S);
        assert_eq!(bot.resume(second, 6 * S + MS), Decision::Answer(1));
    }

    #[test]
    fn a_newcomer_that_is_answered_at_once_leaves_the_wait_but_confirms() {
        let mut bot = Bot::new(0);
        let (ticket, _) = bot.wait(&[("timeout", "30")], Duration::ZERO);
        assert_eq!(bot.poll(&[("offset", "990")], S), Decision::Answer(0));
        bot.push(2 * S);
        let now = [("offset", "1001")];
        assert_eq!(bot.poll(&now, 2 * S), Decision::Answer(0));
        assert!(bot.polling.is_waiting());
        assert_eq!(bot.resume(ticket, 2 * S + MS), Decision::Answer(0));
    }

    #[test]
    fn later_conflicts_are_sent_three_seconds_late_for_three_seconds() {
        let mut bot = Bot::new(0);
        bot.polling.webhook = "https://bot.example".into();
        for (after, sent) in [
            (Duration::ZERO, Duration::ZERO),
            (MS, 3 * S + MS),
            (3 * S - MS, 6 * S - MS),
            (3 * S, 3 * S),
            (4 * S, 7 * S),
        ] {
            assert_eq!(
                bot.poll(&[], after),
                Decision::Refuse(Conflict {
                    text: CONFLICT_WEBHOOK,
                    at: bot.start + sent
                })
            );
        }
    }

    #[test]
    fn a_call_refused_for_the_webhook_changes_nothing() {
        let mut bot = Bot::new(3);
        bot.polling.webhook = "https://bot.example".into();
        let params = [("offset", "1002"), ("allowed_updates", r#"["poll"]"#)];
        assert!(matches!(bot.poll(&params, S), Decision::Refuse(_)));
        assert_eq!(bot.polling.queue.len(), 3);
        assert_eq!(bot.polling.allowed, Allowed::default());
        bot.polling.webhook.clear();
        assert_eq!(bot.poll(&params, S), Decision::Answer(1));
        assert_eq!(bot.polling.allowed.names().unwrap(), ["poll"]);
    }

    #[test]
    fn a_wait_can_be_ended_by_setting_a_webhook_or_released() {
        let mut bot = Bot::new(0);
        let (ticket, _) = bot.wait(&[("timeout", "30")], Duration::ZERO);
        bot.polling.end_wait(CONFLICT_SET_WEBHOOK, bot.start + S);
        assert!(matches!(
            bot.resume(ticket, S),
            Decision::Refuse(conflict) if conflict.text == CONFLICT_SET_WEBHOOK
        ));

        let (ticket, _) = bot.wait(&[("timeout", "30")], 2 * S);
        bot.polling.release_wait(bot.start + 3 * S);
        assert_eq!(bot.resume(ticket, 3 * S), Decision::Answer(0));
    }
}
