//! How long to wait after a failed call, and when to give up. Reads no clock.

use std::{
    num::NonZeroU32,
    time::{Duration, Instant},
};

/// When to call again after a transient failure.
///
/// The pauses grow while calls are refused at once. After a call that lasted longer than the first
/// pause, they start again from that one: such a call, for example a long poll that was cut while it
/// waited, limits the rate by itself.
///
/// Default: [`Backoff::default`], without a limit. A bot that gives up during an outage has to be
/// restarted by hand; one that keeps trying recovers by itself.
///
/// ```
/// use std::time::Duration;
/// use runner_core::RetryPolicy;
///
/// // For a job that somebody waits for.
/// let policy = RetryPolicy::default().max_elapsed(Duration::from_secs(10 * 60));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct RetryPolicy {
    backoff: Backoff,
    max_attempts: Option<NonZeroU32>,
    max_elapsed: Option<Duration>,
}

impl RetryPolicy {
    /// How long to wait between two calls. Default: [`Backoff::default`].
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Gives up with [`SourceError::GaveUp`](crate::SourceError::GaveUp) when this many calls in a
    /// row have failed. Default: never.
    pub fn max_attempts(mut self, max_attempts: NonZeroU32) -> Self {
        self.max_attempts = Some(max_attempts);
        self
    }

    /// Gives up with [`SourceError::GaveUp`](crate::SourceError::GaveUp) at the first failure that
    /// comes this long after the first one in a row. Default: never.
    ///
    /// The last wait is shortened so that the last call is made at that time.
    pub fn max_elapsed(mut self, max_elapsed: Duration) -> Self {
        self.max_elapsed = Some(max_elapsed);
        self
    }
}

/// How long to wait after a failed call: at least a millisecond, so that a supplier which fails at once
/// cannot occupy a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Backoff {
    /// A random time between `base` and a limit that doubles with every failure, from twice the base
    /// up to `cap`.
    ///
    /// With this much jitter, clients that failed together do not call again together.
    Exponential {
        /// The shortest wait.
        base: Duration,
        /// The longest wait. If it is below `base`, it is the only one.
        cap: Duration,
    },
    /// Always the same time.
    Fixed(Duration),
}

impl Default for Backoff {
    /// Between 0.5 s and 60 s.
    ///
    /// A Bot API server answers with single updates if the same offset is asked for again within half
    /// a second.
    fn default() -> Self {
        Self::Exponential {
            base: Duration::from_millis(500),
            cap: Duration::from_secs(60),
        }
    }
}

impl Backoff {
    /// The wait after this many failures in a row, the first one being 1.
    ///
    /// `entropy` is any random number. Never overflows.
    #[must_use]
    pub fn delay(&self, failures: u32, entropy: u64) -> Duration {
        let delay = match *self {
            Self::Fixed(delay) => delay,
            Self::Exponential { base, cap } => {
                let base = base.min(cap);
                let doubled = 2_u32
                    .checked_pow(failures.max(1))
                    .and_then(|factor| base.checked_mul(factor))
                    .unwrap_or(Duration::MAX);
                base.saturating_add(uniform(doubled.min(cap) - base, entropy))
            }
        };
        delay.max(SHORTEST)
    }
}

/// The shortest wait.
pub(super) const SHORTEST: Duration = Duration::from_millis(1);

/// A span from zero up to `width`, as far along it as `entropy` is along its own range.
pub(super) fn uniform(width: Duration, entropy: u64) -> Duration {
    // A jitter of up to 584 years is enough, and its nanoseconds times the entropy fit.
    let nanos = u64::try_from(width.as_nanos()).unwrap_or(u64::MAX);
    let part = (u128::from(nanos) * u128::from(entropy)) >> 64;
    Duration::from_nanos(u64::try_from(part).unwrap_or(nanos))
}

/// The failures in a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retry {
    policy: RetryPolicy,
    failures: u32,
    /// Those since the last call that lasted for some time.
    refusals: u32,
    since: Option<Instant>,
}

/// How many failures there were in a row, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GaveUp {
    pub(super) failures: u32,
    pub(super) elapsed: Duration,
}

impl Retry {
    pub(super) fn new(policy: RetryPolicy) -> Self {
        Self {
            policy,
            failures: 0,
            refusals: 0,
            since: None,
        }
    }

    /// Counts a failure after a call that lasted for `took`, and returns how long to wait. After
    /// giving up, the count starts from zero.
    pub(super) fn failed(
        &mut self,
        took: Duration,
        now: Instant,
        entropy: u64,
    ) -> Result<Duration, GaveUp> {
        self.failures = self.failures.saturating_add(1);
        let since = *self.since.get_or_insert(now);
        let elapsed = now.saturating_duration_since(since);
        let RetryPolicy {
            backoff,
            max_attempts,
            max_elapsed,
        } = self.policy;
        let left = max_elapsed.map(|limit| limit.saturating_sub(elapsed));
        let attempts_over = max_attempts.is_some_and(|limit| self.failures >= limit.get());
        if attempts_over || left == Some(Duration::ZERO) {
            let failures = self.failures;
            self.succeeded();
            return Err(GaveUp { failures, elapsed });
        }
        // A call that lasted longer than the first pause limits the rate by itself.
        if took >= backoff.delay(1, entropy) {
            self.refusals = 0;
        }
        self.refusals = self.refusals.saturating_add(1);
        let delay = backoff.delay(self.refusals, entropy);
        Ok(left.map_or(delay, |left| delay.min(left)))
    }

    /// Ends the row.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
        self.refusals = 0;
        self.since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: Duration = Duration::from_millis(500);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn backoff_doubles_its_limit_up_to_the_cap_and_never_goes_below_the_base() {
        let backoff = Backoff::default();
        for (failures, limit) in [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (8, 60), (99, 60)] {
            let limit = SECOND * limit;
            assert_eq!(backoff.delay(failures, 0), HALF);
            let most = backoff.delay(failures, u64::MAX);
            assert!(
                most <= limit && most + Duration::from_micros(1) > limit,
                "{most:?}"
            );
            let middle = backoff.delay(failures, u64::MAX / 2);
            let expected = HALF + (limit - HALF) / 2;
            assert!(
                middle.abs_diff(expected) < Duration::from_micros(1),
                "{middle:?}"
            );
        }
    }

    #[test]
    fn backoff_never_overflows() {
        let widest = Backoff::Exponential {
            base: Duration::MAX,
            cap: Duration::MAX,
        };
        let steep = Backoff::Exponential {
            base: Duration::from_nanos(1),
            cap: Duration::MAX,
        };
        let inverted = Backoff::Exponential {
            base: SECOND,
            cap: HALF,
        };
        for failures in [0, 1, 2, 31, 32, 33, u32::MAX] {
            for entropy in [0, 1, u64::MAX] {
                assert_eq!(widest.delay(failures, entropy), Duration::MAX);
                assert!(steep.delay(failures, entropy) >= SHORTEST);
                assert_eq!(inverted.delay(failures, entropy), HALF);
            }
        }
    }

    #[test]
    fn a_fixed_wait_is_fixed_and_never_none() {
        assert_eq!(Backoff::Fixed(SECOND).delay(u32::MAX, 17), SECOND);
        assert_eq!(Backoff::Fixed(Duration::ZERO).delay(1, 17), SHORTEST);
    }

    #[test]
    fn attempts_are_counted_in_a_row() {
        let now = Instant::now();
        let policy = RetryPolicy::default().max_attempts(NonZeroU32::new(3).unwrap());
        let mut retry = Retry::new(policy);
        for _ in 0..2 {
            assert!(retry.failed(Duration::ZERO, now, 0).is_ok());
            assert!(retry.failed(Duration::ZERO, now, 0).is_ok());
            retry.succeeded();
        }
        assert!(retry.failed(Duration::ZERO, now, 0).is_ok());
        assert!(retry.failed(Duration::ZERO, now, 0).is_ok());
        let later = now + SECOND;
        let gave_up = GaveUp {
            failures: 3,
            elapsed: SECOND,
        };
        assert_eq!(retry.failed(Duration::ZERO, later, 0), Err(gave_up));
        // A later run counts from zero.
        assert!(retry.failed(Duration::ZERO, later, 0).is_ok());
    }

    #[test]
    fn the_last_wait_ends_when_the_time_is_over() {
        let now = Instant::now();
        let policy = RetryPolicy::default()
            .backoff(Backoff::Fixed(4 * SECOND))
            .max_elapsed(10 * SECOND);
        let mut retry = Retry::new(policy);
        assert_eq!(retry.failed(Duration::ZERO, now, 0), Ok(4 * SECOND));
        assert_eq!(
            retry.failed(Duration::ZERO, now + 4 * SECOND, 0),
            Ok(4 * SECOND)
        );
        assert_eq!(
            retry.failed(Duration::ZERO, now + 8 * SECOND, 0),
            Ok(2 * SECOND)
        );
        assert!(retry.failed(Duration::ZERO, now + 10 * SECOND, 0).is_err());
    }
}
