//! What a source owes to a supplier: when the next call may begin, and when it must have begun.

use std::time::Duration;

use runner_core::{Backoff, Conflict, RetryPolicy, SourceOptions, SupplyError};

use crate::{coverage::Seen, dice::Dice};

/// Drawn once per seed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FeedConfig {
    base: Duration,
    cap: Duration,
    max_attempts: Option<u32>,
    balance: f64,
    max_delay: Duration,
}

impl FeedConfig {
    pub(crate) fn draw(dice: &mut Dice) -> Self {
        Self {
            base: dice.ms(0, 20),
            cap: dice.ms(0, 150),
            max_attempts: dice.chance(500).then(|| dice.between(2, 3) as u32),
            balance: dice.pick(&[(3, 0.0), (1, 0.3), (1, 1.0)]),
            max_delay: dice.ms(0, 40),
        }
    }

    pub(crate) fn options(&self) -> SourceOptions {
        let mut retry = RetryPolicy::default().backoff(Backoff::Exponential {
            base: self.base,
            cap: self.cap,
        });
        if let Some(most) = self.max_attempts {
            retry = retry.max_attempts(most.try_into().expect("from 2 on"));
        }
        SourceOptions::default()
            .retry(retry)
            .speed_traffic_balance(self.balance)
            .max_delay(self.max_delay)
    }
}

/// How a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Trouble {
    Transient,
    /// The source dropped the call at its deadline.
    Timeout,
    RetryAfter(Duration),
    Poller,
    Webhook,
    Fatal,
    Panic,
}

impl Trouble {
    pub(crate) fn of(error: &SupplyError) -> Self {
        match error {
            SupplyError::RetryAfter { delay, .. } => Self::RetryAfter(*delay),
            SupplyError::Conflict {
                kind: Conflict::Poller,
                ..
            } => Self::Poller,
            SupplyError::Conflict { .. } => Self::Webhook,
            SupplyError::Fatal(_) => Self::Fatal,
            _ => Self::Transient,
        }
    }

    pub(crate) fn seen(self) -> Seen {
        match self {
            Self::Transient => Seen::SupplyTransient,
            Self::Timeout => Seen::SupplyTimesOut,
            Self::RetryAfter(_) => Seen::SupplyRetryAfter,
            Self::Poller => Seen::SupplyConflict,
            Self::Webhook => Seen::SupplyWebhook,
            Self::Fatal => Seen::SupplyFatal,
            Self::Panic => Seen::SupplyPanics,
        }
    }
}

/// What follows from the calls so far. Outlives the runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Feed {
    config: FeedConfig,
    /// Failures in a row.
    row: u32,
    conflicts: u32,
    last_conflict: Option<Duration>,
    pub(crate) calls: u64,
    pub(crate) failures: u64,
    pub(crate) not_before: Duration,
    pub(crate) at_latest: Duration,
}

const QUIET: Duration = Duration::from_secs(5 * 60);
const MS: Duration = Duration::from_millis(1);

impl Feed {
    pub(crate) fn new(config: FeedConfig) -> Self {
        Self {
            config,
            row: 0,
            conflicts: 0,
            last_conflict: None,
            calls: 0,
            failures: 0,
            not_before: Duration::ZERO,
            at_latest: Duration::ZERO,
        }
    }

    /// Whether the source rests after what happened last.
    pub(crate) fn rests(&self, since: Duration) -> bool {
        self.at_latest > since
    }

    pub(crate) fn answered(&mut self, now: Duration) {
        self.row = 0;
        self.not_before = now;
        self.at_latest = now;
        if self.config.balance > 0.0 {
            self.at_latest += self.config.max_delay;
        }
    }

    /// A pause or a stop has dropped the call.
    pub(crate) fn interrupted(&mut self, now: Duration) {
        self.not_before = now;
        self.at_latest = now;
    }

    /// Notes a failure of a call that took this long; `true` if it ends the run.
    pub(crate) fn failed(&mut self, trouble: Trouble, took: Duration, now: Duration) -> bool {
        self.failures += u64::from(!matches!(trouble, Trouble::RetryAfter(_) | Trouble::Panic));
        let FeedConfig { base, cap, .. } = self.config;
        let (shortest, longest) = match trouble {
            Trouble::Transient | Trouble::Timeout => {
                self.row += 1;
                if self.config.max_attempts == Some(self.row) {
                    return self.ended(now);
                }
                // A long call restarts the backoff.
                let first = (2 * base).min(cap).max(base.min(cap));
                let longest = if took >= first { first } else { cap };
                (base.min(cap), longest)
            }
            Trouble::RetryAfter(delay) => (delay, delay),
            Trouble::Poller => {
                if self.last_conflict.is_some_and(|last| now - last >= QUIET) {
                    self.conflicts = 0;
                }
                self.conflicts += 1;
                self.last_conflict = Some(now);
                if self.conflicts == 4 {
                    return self.ended(now);
                }
                (Duration::from_secs(5), Duration::from_secs(10))
            }
            Trouble::Webhook | Trouble::Fatal | Trouble::Panic => return self.ended(now),
        };
        self.not_before = now + shortest.max(MS);
        self.at_latest = now + longest.max(MS);
        false
    }

    /// After an end everything is counted anew.
    fn ended(&mut self, now: Duration) -> bool {
        self.row = 0;
        self.conflicts = 0;
        self.interrupted(now);
        true
    }
}
