//! Empty answers that come too early. Knows no clock.
//!
//! A server that is being stopped answers a poll at once, and so does one that is out of order. Each
//! for itself is harmless; a row of them would be a busy loop.

use std::time::Duration;

/// A row of empty answers that came too early.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Early {
    row: u32,
}

impl Early {
    /// So many are an accident.
    const TOLERATED: u32 = 2;

    /// A Bot API server that is asked for the same offset sooner than this answers with single
    /// updates.
    const TOO_SOON: Duration = Duration::from_millis(500);

    const PAUSE: Duration = Duration::from_secs(1);

    /// Notes an empty answer and tells how long to pause, if at all.
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
        let mut early = Early::default();
        assert_eq!(early.note(Duration::ZERO, 30 * SECOND), None);
        assert_eq!(early.note(SECOND, 30 * SECOND), None);
        assert_eq!(early.note(7 * SECOND, 30 * SECOND), Some(SECOND));
        assert_eq!(early.note(7 * SECOND, 30 * SECOND), Some(SECOND));
        assert_eq!(early.note(8 * SECOND, 30 * SECOND), None);
        assert_eq!(early.note(Duration::ZERO, 30 * SECOND), None);
    }

    #[test]
    fn without_a_poll_timeout_answers_within_half_a_second_are_early() {
        let mut early = Early::default();
        for _ in 0..2 {
            assert_eq!(early.note(Duration::ZERO, Duration::ZERO), None);
        }
        assert!(early.note(Duration::ZERO, Duration::ZERO).is_some());
        assert_eq!(early.note(SECOND / 2, Duration::ZERO), None);
    }
}
