//! What to do when another instance polls for the same updates. Reads no clock.
//!
//! During a rolling deploy the old instance has the time of three waits to go away, 15 to 30 s. If it
//! does not, one of the two has to end, or each would go on ending the polls of the other.

use std::time::{Duration, Instant};

use super::retry::uniform;

/// The conflicts of the last minutes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Conflicts {
    count: u32,
    last: Option<Instant>,
}

impl Conflicts {
    /// This many conflicts are too many.
    pub(super) const FATAL: u32 = 4;

    /// After this time without a conflict, the count starts from zero.
    const QUIET: Duration = Duration::from_secs(5 * 60);

    /// An earlier call would end the poll of the other instance instead of giving it time to leave.
    /// The random part keeps two instances from waiting in step.
    const SHORTEST: Duration = Duration::from_secs(5);
    const WIDTH: Duration = Duration::from_secs(5);

    /// Counts a conflict and returns how long to wait; `None` if it is one too many. The count then
    /// starts from zero.
    pub(super) fn note(&mut self, now: Instant, entropy: u64) -> Option<Duration> {
        let quiet = self
            .last
            .is_some_and(|last| now.saturating_duration_since(last) >= Self::QUIET);
        if quiet {
            self.count = 0;
        }
        self.count += 1;
        self.last = Some(now);
        if self.count >= Self::FATAL {
            *self = Self::default();
            return None;
        }
        Some(Self::SHORTEST + uniform(Self::WIDTH, entropy))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn the_fourth_conflict_is_one_too_many() {
        let mut conflicts = Conflicts::default();
        let mut now = Instant::now();
        for entropy in [0, u64::MAX / 3, u64::MAX] {
            let wait = conflicts.note(now, entropy).unwrap();
            assert!(wait >= Duration::from_secs(5) && wait <= Duration::from_secs(10));
            now += wait;
        }
        assert_eq!(conflicts.note(now, 0), None);
        assert!(conflicts.note(now, 0).is_some());
    }

    #[test]
    fn five_quiet_minutes_clear_the_count() {
        let mut conflicts = Conflicts::default();
        let mut now = Instant::now();
        for _ in 0..100 {
            assert!(conflicts.note(now, 0).is_some());
            now += 5 * MINUTE;
        }
        // Almost quiet is not quiet.
        for _ in 0..2 {
            assert!(conflicts.note(now, 0).is_some());
            now += 5 * MINUTE - Duration::from_nanos(1);
        }
        assert!(conflicts.note(now, 0).is_some());
        now += MINUTE;
        assert_eq!(conflicts.note(now, 0), None);
    }
}
