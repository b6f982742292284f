//! The queue of updates: [`Queue`], with the ids, the offset rules, the expiry and the capacity of
//! the real one.
//!
//! Pure: it takes the time as seconds of Unix time and knows no request. The rules are those of
//! `TQueue` of tdlib/td (tddb/td/db/TQueue.cpp).

use std::{collections::VecDeque, io::Write, ops::RangeInclusive};

/// Most updates that are kept; newer ones are dropped.
pub(crate) const MAX_UPDATES: usize = 100_000;
/// Most bytes of updates that are kept; newer updates are dropped.
pub(crate) const MAX_BYTES: usize = 128 << 20;
/// Most bytes of one update.
pub(crate) const MAX_UPDATE_BYTES: usize = 512 << 10;
/// The answer ends before the sum of the updates, each with [`ENTRY_BYTES`] added, reaches this.
///
/// Source: `JsonUpdates` of tdlib/telegram-bot-api, Client.cpp.
const MAX_ANSWER_BYTES: usize = 4 << 20;
/// What is counted for an update beside its own bytes.
const ENTRY_BYTES: usize = 50;
/// Most bytes that are reserved for an answer before its length is known.
const MAX_RESERVE: usize = 256 << 10;
/// The first id is one of these.
const FIRST_IDS: RangeInclusive<i32> = 2_000_001..=1_000_000_000;
/// The end of the ids: it is never given, and an offset from here on is no id.
const MAX_ID: i32 = 2_000_000_000;
/// How far an offset may be ahead of the id that comes next.
const MAX_AHEAD: i32 = 10;

/// The updates of one bot, from the oldest that was neither confirmed nor dropped.
pub(crate) struct Queue {
    /// Ascending by id; with gaps, where updates have expired.
    updates: VecDeque<Stored>,
    /// The id that the next update gets.
    tail: i32,
    /// Sum of `payload` over all updates.
    bytes: usize,
    confirmed: Option<i32>,
    ids: fastrand::Rng,
    is_bounded: bool,
}

struct Stored {
    id: i32,
    /// In seconds of Unix time; delivered up to and including this second.
    expires_at: i64,
    /// Bytes of the update without its id, which is what the limits count.
    payload: usize,
    /// The update as it is sent.
    json: Box<[u8]>,
}

impl Queue {
    /// An empty queue. Without a first id, a random one is drawn.
    pub(crate) fn new(first_id: Option<i32>, seed: u64) -> Self {
        let mut ids = fastrand::Rng::with_seed(seed);
        let tail = first_id.unwrap_or_else(|| ids.i32(FIRST_IDS));
        Self {
            updates: VecDeque::new(),
            tail,
            bytes: 0,
            confirmed: None,
            ids,
            is_bounded: true,
        }
    }

    /// Keeps all that is pushed, unlike the real server.
    pub(crate) fn unbounded(mut self) -> Self {
        self.is_bounded = false;
        self
    }

    /// Queues an update and returns its id; `None` if it is dropped, because it is too large, the
    /// queue is full, or its time is already over.
    ///
    /// `body` is JSON as it is sent: minified and ASCII.
    pub(crate) fn push(
        &mut self,
        kind: &str,
        body: &str,
        expires_at: i64,
        now: i64,
    ) -> Option<i32> {
        let payload = kind.len() + 3 + body.len();
        let has_room = self.bytes + payload <= MAX_BYTES && self.updates.len() < MAX_UPDATES;
        let fits = payload <= MAX_UPDATE_BYTES && (has_room || !self.is_bounded);
        // An update that is over when it arrives is not queued (`add_update_impl`), although one
        // that is in its last second is still delivered from the queue.
        if !fits || expires_at <= now {
            return None;
        }
        if self.tail >= MAX_ID - 1 {
            self.clear();
            self.tail = self.ids.i32(FIRST_IDS);
        }
        let id = self.tail;
        self.tail += 1;

        // The real server sends a newline after the id.
        let mut json = Vec::with_capacity(payload + 32);
        write!(json, "{{\"update_id\":{id},\n\"{kind}\":{body}}}").expect("memory takes all");
        self.bytes += payload;
        self.updates.push_back(Stored {
            id,
            expires_at,
            payload,
            json: json.into(),
        });
        Some(id)
    }

    /// Deletes all but the newest `keep` updates: what a negative offset does.
    pub(crate) fn trim(&mut self, keep: usize) {
        while self.updates.len() > keep {
            self.pop();
        }
    }

    /// Deletes everything; ids go on from where they are.
    pub(crate) fn clear(&mut self) {
        self.updates.clear();
        self.bytes = 0;
    }

    /// Draws a new id for the next update, below or above the present one, and deletes everything:
    /// what the documentation says happens after a week without updates.
    pub(crate) fn rerandomise(&mut self, downwards: bool) {
        let (low, high) = if downwards {
            (1, self.tail - MAX_AHEAD - 1)
        } else {
            (self.tail + MAX_AHEAD + 1, MAX_ID - 2)
        };
        self.clear();
        self.tail = self.ids.i32(low.min(high).max(1)..=high.max(1));
    }

    /// Appends the updates from `offset` on to `answer`, separated by commas, and returns how many.
    ///
    /// A valid offset forgets every update below it, for good. One that is no id, or more than 10
    /// ahead of the next id, counts as none: the answer begins at the oldest and nothing is
    /// forgotten. One that is up to 10 ahead is valid, so it forgets updates that arrive after it.
    /// Updates that have expired are deleted on the way.
    pub(crate) fn read(
        &mut self,
        offset: i32,
        limit: usize,
        now: i64,
        answer: &mut Vec<u8>,
    ) -> usize {
        let head = self.head();
        let valid = offset > 0 && offset < MAX_ID && offset <= self.tail.saturating_add(MAX_AHEAD);
        if valid && offset > head {
            while self.updates.front().is_some_and(|first| first.id < offset) {
                self.pop();
            }
            self.confirmed = Some(offset);
        }

        let mut count = 0;
        let mut index = 0;
        let mut expired = 0;
        let mut sum = 0;
        while count < limit {
            let Some(update) = self.updates.get(index) else {
                break;
            };
            index += 1;
            if update.expires_at < now {
                expired += 1;
                continue;
            }
            sum += ENTRY_BYTES + update.payload;
            if sum >= MAX_ANSWER_BYTES {
                break;
            }
            if count == 0 {
                // Updates are alike in size, so this spares most of the growth of a long answer.
                let expected = update.json.len() * limit.min(self.updates.len());
                answer.reserve(expected.min(MAX_RESERVE));
            } else {
                answer.push(b',');
            }
            answer.extend_from_slice(&update.json);
            count += 1;
        }
        if expired > 0 {
            self.drop_expired(index, now);
        }
        count
    }

    /// Deletes all updates that have expired: what the real server does every minute.
    pub(crate) fn collect(&mut self, now: i64) {
        self.drop_expired(self.updates.len(), now);
    }

    /// The id of the oldest update that is kept; the next id if there is none.
    pub(crate) fn head(&self) -> i32 {
        self.updates.front().map_or(self.tail, |first| first.id)
    }

    /// The id that the next update gets.
    pub(crate) fn tail(&self) -> i32 {
        self.tail
    }

    /// How many updates are kept, those included that have expired and were not read past.
    pub(crate) fn len(&self) -> usize {
        self.updates.len()
    }

    /// The latest valid offset that was beyond the oldest update.
    pub(crate) fn confirmed(&self) -> Option<i32> {
        self.confirmed
    }

    fn pop(&mut self) {
        if let Some(update) = self.updates.pop_front() {
            self.bytes -= update.payload;
        }
    }

    /// Deletes what has expired among the first `count` updates.
    fn drop_expired(&mut self, count: usize, now: i64) {
        let rest = self.updates.split_off(count);
        self.updates.retain(|update| {
            let keep = update.expires_at >= now;
            if !keep {
                self.bytes -= update.payload;
            }
            keep
        });
        self.updates.extend(rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: i64 = i64::MAX;

    /// A queue with the ids 1000 to 1000 + count - 1.
    fn queue(count: usize) -> Queue {
        let mut queue = Queue::new(Some(1000), 1);
        for _ in 0..count {
            queue.push("message", "{}", NEVER, 0).unwrap();
        }
        queue
    }

    fn read(queue: &mut Queue, offset: i32, limit: usize, now: i64) -> Vec<i32> {
        let mut answer = b"[".to_vec();
        let count = queue.read(offset, limit, now, &mut answer);
        answer.push(b']');
        let updates: Vec<serde_json::Value> = serde_json::from_slice(&answer).unwrap();
        assert_eq!(updates.len(), count);
        updates
            .iter()
            .map(|update| i32::try_from(update["update_id"].as_i64().unwrap()).unwrap())
            .collect()
    }

    #[test]
    fn first_id_is_random_in_its_range_and_then_counts_up() {
        for seed in 0..200 {
            let mut queue = Queue::new(None, seed);
            let id = queue.push("poll", "{}", NEVER, 0).unwrap();
            assert!(FIRST_IDS.contains(&id), "{id}");
            assert_eq!(queue.push("poll", "{}", NEVER, 0), Some(id + 1));
        }
    }

    #[test]
    fn an_update_is_sent_with_a_newline_after_its_id() {
        let mut queue = queue(0);
        queue.push("message", r#"{"message_id":7}"#, NEVER, 0);
        let mut answer = Vec::new();
        assert_eq!(queue.read(0, 1, 0, &mut answer), 1);
        assert_eq!(
            answer,
            b"{\"update_id\":1000,\n\"message\":{\"message_id\":7}}"
        );
    }

    #[test]
    fn no_offset_reads_from_the_oldest_and_forgets_nothing() {
        let mut queue = queue(3);
        for _ in 0..2 {
            assert_eq!(read(&mut queue, 0, 100, 0), [1000, 1001, 1002]);
        }
        assert_eq!(queue.len(), 3);
        assert_eq!(queue.confirmed(), None);
    }

    #[test]
    fn a_valid_offset_forgets_what_is_below_it_for_good() {
        let mut queue = queue(3);
        assert_eq!(read(&mut queue, 1001, 100, 0), [1001, 1002]);
        assert_eq!(queue.confirmed(), Some(1001));
        assert_eq!(read(&mut queue, 1000, 100, 0), [1001, 1002]);
        assert_eq!(read(&mut queue, 0, 100, 0), [1001, 1002]);
    }

    #[test]
    fn the_limit_takes_the_oldest() {
        let mut queue = queue(5);
        assert_eq!(read(&mut queue, 0, 2, 0), [1000, 1001]);
        assert_eq!(queue.len(), 5);
    }

    #[test]
    fn offset_of_the_next_id_confirms_everything() {
        let mut queue = queue(3);
        assert!(read(&mut queue, 1003, 100, 0).is_empty());
        assert_eq!(queue.len(), 0);
        assert_eq!(queue.push("message", "{}", NEVER, 0), Some(1003));
        assert_eq!(read(&mut queue, 1003, 100, 0), [1003]);
    }

    #[test]
    fn an_offset_up_to_ten_ahead_forgets_what_arrives_below_it() {
        let mut queue = queue(3);
        assert!(read(&mut queue, 1013, 100, 0).is_empty());
        assert_eq!(queue.len(), 0);
        for id in 1003..1013 {
            assert_eq!(queue.push("message", "{}", NEVER, 0), Some(id));
            assert!(read(&mut queue, 1013, 100, 0).is_empty());
        }
        assert_eq!(queue.push("message", "{}", NEVER, 0), Some(1013));
        assert_eq!(read(&mut queue, 1013, 100, 0), [1013]);
    }

    #[test]
    fn an_offset_further_ahead_counts_as_none() {
        for offset in [1014, 5000, 1_999_999_999, 2_000_000_000, i32::MAX] {
            let mut queue = queue(3);
            assert_eq!(
                read(&mut queue, offset, 100, 0),
                [1000, 1001, 1002],
                "{offset}"
            );
            assert_eq!(queue.len(), 3);
            assert_eq!(queue.confirmed(), None);
        }
    }

    #[test]
    fn an_offset_at_two_thousand_million_is_no_id_even_near_the_end() {
        let mut queue = Queue::new(Some(1_999_999_995), 1);
        queue.push("message", "{}", NEVER, 0).unwrap();
        assert_eq!(read(&mut queue, 2_000_000_000, 9, 0), [1_999_999_995]);
        assert!(read(&mut queue, 1_999_999_999, 9, 0).is_empty());
    }

    #[test]
    fn an_offset_below_the_oldest_reads_from_the_oldest() {
        let mut queue = queue(3);
        read(&mut queue, 1001, 100, 0);
        for offset in [1, 500, 1000] {
            assert_eq!(read(&mut queue, offset, 100, 0), [1001, 1002], "{offset}");
        }
    }

    #[test]
    fn trimming_keeps_the_newest_unconfirmed() {
        let mut queue = queue(5);
        queue.trim(7);
        assert_eq!(queue.len(), 5);
        queue.trim(5);
        assert_eq!(queue.len(), 5);
        queue.trim(2);
        assert_eq!(read(&mut queue, 0, 100, 0), [1003, 1004]);
        assert_eq!(read(&mut queue, 0, 100, 0), [1003, 1004]);
    }

    #[test]
    fn an_update_is_delivered_through_its_last_second_and_leaves_a_gap() {
        let mut queue = queue(1);
        queue.push("inline_query", "{}", 50, 20).unwrap();
        queue.push("message", "{}", NEVER, 20).unwrap();
        assert_eq!(read(&mut queue, 0, 100, 50), [1000, 1001, 1002]);
        assert_eq!(read(&mut queue, 0, 100, 51), [1000, 1002]);
        assert_eq!(queue.len(), 2);
    }

    #[test]
    fn expired_updates_count_until_they_are_read_past_or_collected() {
        let mut queue = queue(1);
        queue.push("inline_query", "{}", 50, 20).unwrap();
        queue.push("inline_query", "{}", 50, 20).unwrap();
        queue.push("message", "{}", NEVER, 20).unwrap();
        assert_eq!(read(&mut queue, 0, 1, 99), [1000]);
        assert_eq!(queue.len(), 4);
        queue.collect(99);
        assert_eq!(queue.len(), 2);
        assert_eq!(queue.bytes, 2 * r#""message":{}"#.len());
    }

    #[test]
    fn an_update_whose_time_is_over_is_not_queued() {
        let mut queue = queue(0);
        assert_eq!(queue.push("message", "{}", 100, 101), None);
        assert_eq!(queue.push("message", "{}", 100, 100), None);
        assert_eq!(queue.push("message", "{}", 100, 99), Some(1000));
    }

    #[test]
    fn a_full_queue_drops_the_new_and_takes_no_id_for_it() {
        let mut queue = queue(MAX_UPDATES);
        let tail = queue.tail();
        assert_eq!(queue.push("message", "{}", NEVER, 0), None);
        assert_eq!(queue.tail(), tail);
        read(&mut queue, 1001, 1, 0);
        assert_eq!(queue.push("message", "{}", NEVER, 0), Some(tail));
    }

    #[test]
    fn an_unbounded_queue_keeps_everything() {
        let mut queue = queue(MAX_UPDATES).unbounded();
        assert!(queue.push("message", "{}", NEVER, 0).is_some());
        let too_long = "x".repeat(MAX_UPDATE_BYTES);
        assert_eq!(queue.push("poll", &too_long, NEVER, 0), None);
    }

    #[test]
    fn one_update_may_have_512_kib_and_all_together_128_mib() {
        let largest = format!(
            "\"{}\"",
            "x".repeat(MAX_UPDATE_BYTES - r#""poll":"""#.len())
        );
        let mut queue = queue(0);
        for _ in 0..256 {
            assert!(queue.push("poll", &largest, NEVER, 0).is_some());
        }
        assert_eq!(queue.push("poll", "1", NEVER, 0), None, "full");
        queue.clear();
        let too_long = format!("\"{}", largest);
        assert_eq!(queue.push("poll", &too_long, NEVER, 0), None);
        assert!(queue.push("poll", &largest, NEVER, 0).is_some());
    }

    #[test]
    fn an_answer_stays_below_4_mib() {
        let body = format!(
            "\"{}\"",
            "x".repeat(MAX_UPDATE_BYTES - r#""poll":"""#.len())
        );
        let mut queue = queue(0);
        for _ in 0..9 {
            queue.push("poll", &body, NEVER, 0).unwrap();
        }
        // Eight of them are 4 MiB by themselves, so seven fit with what is added for each.
        assert_eq!(read(&mut queue, 0, 100, 0).len(), 7);
        assert_eq!(read(&mut queue, 1007, 100, 0), [1007, 1008]);
    }

    #[test]
    fn at_the_last_id_the_queue_is_emptied_and_a_new_id_is_drawn() {
        let mut queue = Queue::new(Some(1_999_999_998), 1);
        assert_eq!(queue.push("poll", "1", NEVER, 0), Some(1_999_999_998));
        let id = queue.push("poll", "2", NEVER, 0).unwrap();
        assert!(FIRST_IDS.contains(&id), "{id}");
        assert_eq!(read(&mut queue, 0, 100, 0), [id]);
    }

    #[test]
    fn a_jump_makes_the_old_offset_invalid() {
        for downwards in [true, false] {
            let mut queue = Queue::new(Some(5_000_000), 3);
            queue.push("poll", "1", NEVER, 0).unwrap();
            queue.rerandomise(downwards);
            let id = queue.push("poll", "2", NEVER, 0).unwrap();
            assert_eq!(id < 5_000_000, downwards, "{id}");
            // Downwards, the stale offset is far ahead and never confirms what comes.
            for _ in 0..2 {
                assert_eq!(read(&mut queue, 5_000_001, 100, 0), [id]);
            }
        }
    }

    #[test]
    fn it_agrees_with_a_plain_list_whatever_is_done() {
        for seed in 0..300 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut queue = queue(0);
            let mut list: Vec<(i32, i64)> = Vec::new();
            let mut tail = 1000;
            for now in 0..80 {
                match random.u8(0..10) {
                    0..5 => {
                        let expires_at = now + random.i64(0..30);
                        let id = queue.push("poll", "1", expires_at, now);
                        if expires_at > now {
                            assert_eq!(id, Some(tail));
                            list.push((tail, expires_at));
                            tail += 1;
                        } else {
                            assert_eq!(id, None);
                        }
                    }
                    5 => {
                        let keep = random.usize(0..6);
                        queue.trim(keep);
                        list.drain(..list.len().saturating_sub(keep));
                    }
                    6 => {
                        queue.collect(now);
                        list.retain(|(_, expires_at)| *expires_at >= now);
                    }
                    _ => {
                        let offset = tail + random.i32(-12..14);
                        let limit = random.usize(1..5);
                        if offset <= tail + 10 {
                            list.retain(|(id, _)| *id >= offset);
                        }
                        let expected: Vec<i32> = list
                            .iter()
                            .filter(|(_, expires_at)| *expires_at >= now)
                            .map(|(id, _)| *id)
                            .take(limit)
                            .collect();
                        assert_eq!(
                            read(&mut queue, offset, limit, now),
                            expected,
                            "seed {seed}"
                        );
                        // What has expired is deleted as far as the answer went.
                        let end = match expected.last() {
                            Some(last) if expected.len() == limit => *last,
                            _ => i32::MAX,
                        };
                        list.retain(|(id, expires_at)| *id > end || *expires_at >= now);
                    }
                }
                assert_eq!(queue.len(), list.len(), "seed {seed}");
                assert_eq!(queue.bytes, list.len() * r#""poll":1"#.len(), "seed {seed}");
            }
        }
    }
}
