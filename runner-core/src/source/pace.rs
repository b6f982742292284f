//! How long to pause between two calls so that one fetches more updates. Reads no clock.
//!
//! The estimate is that of grammY runner: the number of updates of the last calls, and the time they
//! took, give the time in which a full batch would arrive.

use std::time::Duration;

/// How many calls the estimate of the arrival rate covers.
const WINDOW: usize = 16;

/// Updates in a full batch.
const FULL: f64 = 100.0;

/// The last calls, and the pause that follows from them.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    balance: f64,
    max_delay: Duration,
    counts: [usize; WINDOW],
    durations: [Duration; WINDOW],
    next: usize,
}

impl Pace {
    /// Starts as if a full batch had arrived every millisecond, so that the pauses grow slowly.
    pub(super) fn new(balance: f64, max_delay: Duration) -> Self {
        Self {
            balance,
            max_delay,
            counts: [100; WINDOW],
            durations: [Duration::from_millis(1); WINDOW],
            next: 0,
        }
    }

    /// Records an answer, and returns how long to pause before the next call.
    pub(super) fn record(&mut self, count: usize, took: Duration, full: bool) -> Duration {
        if self.balance == 0.0 || self.max_delay.is_zero() {
            return Duration::ZERO;
        }
        self.counts[self.next] = count;
        self.durations[self.next] = took;
        self.next = (self.next + 1) % WINDOW;
        if full {
            // More is waiting.
            return Duration::ZERO;
        }
        let updates = self
            .counts
            .iter()
            .map(|&count| count as f64)
            .sum::<f64>()
            .max(1.0);
        let time: f64 = self.durations.iter().map(Duration::as_secs_f64).sum();
        let max_delay = self.max_delay.as_secs_f64();
        // The time in which a full batch arrives, measured in longest pauses. The hyperbolic
        // tangent bends it smoothly below one.
        let estimate = self.balance * FULL / updates * time / max_delay.max(0.001);
        let pause = max_delay * estimate.tanh();
        Duration::try_from_secs_f64(pause).map_or(self.max_delay, |pause| pause.min(self.max_delay))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// The formula as the original has it, in milliseconds.
    fn original(balance: f64, max_delay: f64, window: &[(f64, f64)]) -> f64 {
        let mut counts = [100.0; 16];
        let mut durations = [1.0; 16];
        for (index, (count, duration)) in window.iter().enumerate() {
            counts[index % 16] = *count;
            durations[index % 16] = *duration;
        }
        let counts: f64 = counts.iter().sum();
        let durations: f64 = durations.iter().sum();
        let balance = 100.0 * balance / max_delay.max(1.0);
        let counts = if counts == 0.0 { 1.0 } else { counts };
        max_delay * (balance * durations / counts).tanh()
    }

    #[test]
    fn pauses_are_those_of_the_original() {
        let mut pace = Pace::new(0.7, 500 * MS);
        let mut window = Vec::new();
        for call in 0..100_u32 {
            let (count, took) = (call * 7 % 40, 20 + call * 13 % 300);
            let pause = pace.record(count as usize, MS * took, false);
            window.push((f64::from(count), f64::from(took)));
            let expected = original(0.7, 500.0, &window);
            let pause = pause.as_secs_f64() * 1_000.0;
            assert!(
                (pause - expected).abs() < 0.001,
                "{pause} is not {expected}"
            );
        }
    }

    #[test]
    fn without_balance_and_after_a_full_batch_there_is_no_pause() {
        assert_eq!(Pace::new(0.0, MS).record(1, MS, false), Duration::ZERO);
        assert_eq!(
            Pace::new(1.0, Duration::ZERO).record(1, MS, false),
            Duration::ZERO
        );
        let mut pace = Pace::new(1.0, 500 * MS);
        assert!(pace.record(1, 1_000 * MS, false) > Duration::ZERO);
        assert_eq!(pace.record(100, 1_000 * MS, true), Duration::ZERO);
    }

    #[test]
    fn a_pause_is_never_longer_than_allowed() {
        for max_delay in [MS, Duration::from_secs(3_600), Duration::MAX] {
            let mut pace = Pace::new(1.0, max_delay);
            for _ in 0..100 {
                assert!(pace.record(0, Duration::MAX / 32, false) <= max_delay);
            }
        }
        let mut pace = Pace::new(1.0, 500 * MS);
        for _ in 0..WINDOW {
            pace.record(0, Duration::from_secs(30), false);
        }
        assert_eq!(pace.record(0, Duration::from_secs(30), false), 500 * MS);
    }
}
