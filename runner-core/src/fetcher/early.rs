//! Empty answers that come too early. Reads no clock.
//!
//! A server that is shutting down answers a poll at once, and so may a broken one. One such answer is
//! harmless, but many in a row would be a busy loop.

use std::time::Duration;

/// Counts empty answers in a row that came too early.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct EarlyAnswers {
    row: u32,
}

impl EarlyAnswers {
    /// As many may be an accident.
    const TOLERATED: u32 = 2;

    /// A Bot API server answers with single updates if the same offset is asked for again sooner than
    /// this.
    const TOO_SOON: Duration = Duration::from_millis(500);

    const PAUSE: Duration = Duration::from_secs(1);

    /// Notes an empty answer, and returns how long to pause, if at all.
    pub(super) fn note(&mut self, took: Duration, timeout: Duration) -> Option<Duration> {
        if took >= (timeout / 4).max(Self::TOO_SOON) {
            self.reset();
            return None;
        }
        self.row = self.row.saturating_add(1);
        (self.row > Self::TOLERATED).then_some(Self::PAUSE)
    }

    /// Ends the row.
    pub(super) fn reset(&mut self) {
        self.row = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_third_early_answer_in_a_row_leads_to_a_pause() {
        let mut early = EarlyAnswers::default();
        assert_eq!(early.note(Duration::ZERO, 30 * SECOND), None);
        assert_eq!(early.note(SECOND, 30 * SECOND), None);
        assert_eq!(early.note(7 * SECOND, 30 * SECOND), Some(SECOND));
        assert_eq!(early.note(7 * SECOND, 30 * SECOND), Some(SECOND));
        assert_eq!(early.note(8 * SECOND, 30 * SECOND), None);
        assert_eq!(early.note(Duration::ZERO, 30 * SECOND), None);
    }

    #[test]
    fn without_a_poll_timeout_answers_within_half_a_second_are_early() {
        let mut early = EarlyAnswers::default();
        for _ in 0..2 {
            assert_eq!(early.note(Duration::ZERO, Duration::ZERO), None);
        }
        assert!(early.note(Duration::ZERO, Duration::ZERO).is_some());
        assert_eq!(early.note(SECOND / 2, Duration::ZERO), None);
    }
}
