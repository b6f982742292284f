//! How updates are fetched.

use std::time::Duration;

use super::RetryPolicy;

/// How updates are fetched, whatever the supplier.
///
/// ```
/// use std::time::Duration;
/// use runner_core::{Backoff, RetryPolicy, SourceOptions};
///
/// let options = SourceOptions::default()
///     .speed_traffic_balance(0.5)
///     .retry(RetryPolicy::default().backoff(Backoff::Fixed(Duration::from_secs(3))));
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct SourceOptions {
    pub(super) balance: f64,
    pub(super) max_delay: Duration,
    pub(super) retry: RetryPolicy,
}

impl SourceOptions {
    /// From 0.0, as fast as possible, to 1.0, as few calls as possible. Default: 0.0.
    ///
    /// Others call this an adaptive poll interval. Above 0.0 the source pauses between two calls, so
    /// that one call fetches more updates. The fewer updates arrive, the longer it pauses. It never
    /// pauses after a full answer, which has as many updates as were asked for. Values out of range
    /// are clamped; NaN counts as 0.0.
    pub fn speed_traffic_balance(mut self, balance: f64) -> Self {
        self.balance = if balance.is_nan() {
            0.0
        } else {
            balance.clamp(0.0, 1.0)
        };
        self
    }

    /// The longest pause between two calls. Default: 500 ms, which users of a bot hardly notice.
    ///
    /// No effect while [`speed_traffic_balance`](Self::speed_traffic_balance) is 0.0.
    pub fn max_delay(mut self, max_delay: Duration) -> Self {
        self.max_delay = max_delay;
        self
    }

    /// When to call again after a failure. Default: [`RetryPolicy::default`].
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }
}

impl Default for SourceOptions {
    fn default() -> Self {
        Self {
            balance: 0.0,
            max_delay: Duration::from_millis(500),
            retry: RetryPolicy::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_balance_out_of_range_is_brought_into_it() {
        for (given, used) in [
            (f64::NAN, 0.0),
            (-1.0, 0.0),
            (0.25, 0.25),
            (f64::INFINITY, 1.0),
        ] {
            let options = SourceOptions::default().speed_traffic_balance(given);
            assert_eq!(options.balance.to_bits(), f64::to_bits(used));
        }
    }
}
