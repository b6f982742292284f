//! Shorter polls where something cuts long ones: [`LongPoll`]. Reads no clock.
//!
//! A load balancer or a gateway between the bot and the server may end every connection that is
//! silent for some time, which is what a long poll is.

use std::time::{Duration, Instant};

/// How long a poll may wait for an update.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LongPoll {
    /// How long the last poll lasted that was cut.
    cut_after: Option<Duration>,
    /// Polls are shorter until then.
    short_until: Option<Instant>,
}

impl LongPoll {
    /// A poll that failed sooner was not cut while it waited.
    const SHORTEST: Duration = Duration::from_secs(4);

    /// Two cuts as close to each other as this have the same cause.
    const SAME: Duration = Duration::from_secs(1);

    /// After this time, the cause may be gone. A look costs one cut.
    const SHORT_FOR: Duration = Duration::from_secs(30 * 60);

    /// The timeout to ask for, in whole seconds if `wanted` is.
    pub(super) fn timeout(&self, wanted: Duration, now: Instant) -> Duration {
        match (self.cut_after, self.short_until) {
            (Some(cut), Some(until)) if now < until => {
                wanted.min(Duration::from_secs((cut * 4 / 5).as_secs()))
            }
            _ => wanted,
        }
    }

    /// A poll has failed after this long. `true` if polls become shorter by it.
    pub(super) fn failed(&mut self, took: Duration, now: Instant) -> bool {
        if took < Self::SHORTEST {
            return false;
        }
        let before = self.cut_after.replace(took);
        let again = before.is_some_and(|before| before.abs_diff(took) <= Self::SAME);
        self.short_until = now.checked_add(Self::SHORT_FOR).filter(|_| again);
        again
    }

    /// A poll was answered after this long.
    pub(super) fn answered(&mut self, took: Duration) {
        if self.cut_after.is_some_and(|cut| took > cut + Self::SAME) {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const WANTED: Duration = Duration::from_secs(30);

    #[test]
    fn two_cuts_at_the_same_age_make_polls_shorter_for_half_an_hour() {
        let now = Instant::now();
        let mut poll = LongPoll::default();
        assert!(!poll.failed(20 * SECOND, now));
        assert_eq!(poll.timeout(WANTED, now), WANTED);
        // An answer that comes before says nothing.
        poll.answered(19 * SECOND);
        assert!(poll.failed(21 * SECOND, now));
        assert_eq!(poll.timeout(WANTED, now), 16 * SECOND);
        assert_eq!(poll.timeout(10 * SECOND, now), 10 * SECOND);
        let later = now + LongPoll::SHORT_FOR;
        assert_eq!(poll.timeout(WANTED, later - SECOND), 16 * SECOND);
        assert_eq!(poll.timeout(WANTED, later), WANTED);
        // One more is enough.
        assert!(poll.failed(20 * SECOND, later));
        assert_eq!(poll.timeout(WANTED, later), 16 * SECOND);
        let later = later + LongPoll::SHORT_FOR;
        poll.answered(30 * SECOND);
        assert!(!poll.failed(20 * SECOND, later));
    }

    #[test]
    fn failures_at_different_ages_or_at_once_change_nothing() {
        let now = Instant::now();
        let mut poll = LongPoll::default();
        for took in [0, 0, 3, 3, 20, 0, 9, 25, 9] {
            assert!(!poll.failed(took * SECOND, now));
            assert_eq!(poll.timeout(WANTED, now), WANTED);
        }
    }
}
