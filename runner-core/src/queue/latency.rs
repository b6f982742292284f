//! How long updates take, summed up in constant memory.

use std::time::Duration;

/// Counts of durations in buckets that grow with the duration: at most 12.5 % off, from 1 ns to
/// 2^40 ns (18 minutes); longer ones count as that.
#[derive(Clone)]
pub(crate) struct Latencies {
    counts: Box<[u64; BUCKETS]>,
    total: u64,
    max: Duration,
}

const STEPS: usize = 8;
const BUCKETS: usize = 39 * STEPS;

/// From the arrival of an update to its completion.
///
/// Percentiles are at most 12.5 % too high. Of the updates whose handler is never pending, one in eight is
/// measured, because reading the clock costs a fifth of handling one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LatencySummary {
    /// Half of the updates took at most this long.
    pub p50: Duration,
    /// Nine in ten took at most this long.
    pub p90: Duration,
    /// Ninety-nine in a hundred took at most this long.
    pub p99: Duration,
    /// The slowest one measured.
    pub max: Duration,
}

impl Latencies {
    pub(crate) fn new() -> Self {
        Self {
            counts: Box::new([0; BUCKETS]),
            total: 0,
            max: Duration::ZERO,
        }
    }

    /// Records `weight` updates that took `latency`.
    pub(crate) fn record(&mut self, latency: Duration, weight: u64) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(nanos)] += weight;
        self.total += weight;
        self.max = self.max.max(latency);
    }

    pub(crate) fn summary(&self) -> LatencySummary {
        LatencySummary {
            p50: self.percentile(50),
            p90: self.percentile(90),
            p99: self.percentile(99),
            max: self.max,
        }
    }

    fn percentile(&self, percent: u64) -> Duration {
        let rank = (self.total * percent).div_ceil(100).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_nanos(upper_bound(index)).min(self.max);
            }
        }
        self.max
    }
}

/// The first three bits below the leading one choose the step within a power of two.
fn bucket(nanos: u64) -> usize {
    if nanos < STEPS as u64 {
        return nanos as usize;
    }
    let power = nanos.ilog2() as usize;
    let step = (nanos >> (power - 3)) as usize & (STEPS - 1);
    ((power - 2) * STEPS + step).min(BUCKETS - 1)
}

fn upper_bound(bucket: usize) -> u64 {
    if bucket < STEPS {
        return bucket as u64;
    }
    let power = bucket / STEPS + 2;
    let step = (bucket % STEPS + 1) as u64;
    (1 << power) + (step << (power - 3)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_lies_within_its_bucket() {
        for nanos in (0..2_000).chain((1..40).flat_map(|power| {
            let base = 1_u64 << power;
            [base - 1, base, base + 1, base + base / 3]
        })) {
            let upper = upper_bound(bucket(nanos));
            assert!(upper >= nanos, "{nanos} is above {upper}");
            assert!(
                upper as f64 <= nanos as f64 * 1.125 + 1.0,
                "{nanos} is far below {upper}"
            );
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_follow_the_counts() {
        let mut latencies = Latencies::new();
        latencies.record(Duration::from_millis(1), 98);
        latencies.record(Duration::from_millis(100), 2);
        let summary = latencies.summary();
        assert!(summary.p50 >= Duration::from_millis(1));
        assert!(summary.p50 < Duration::from_micros(1_200));
        assert_eq!(summary.p99, Duration::from_millis(100));
        assert_eq!(summary.max, Duration::from_millis(100));
    }

    #[test]
    fn nothing_measured_is_zero() {
        assert_eq!(Latencies::new().summary(), LatencySummary::default());
    }
}
