//! How far intake runs ahead of handling.
//!
//! While slots are free, intake goes on although updates wait for their keys: the next one may be of a
//! key that is free. But with a supplier that always has more, and handlers that keep all cores busy,
//! that would go on up to the bound: thousands that nobody can start would be held, in memory that no
//! cache holds, and be lost with the process. So when as many wait as may run, intake keeps *step*: the
//! next batch comes when twice as many updates were started as the last one had.
//!
//! Or [`PAUSE`] later, if that is sooner: handlers that are slow must not keep the updates of others away.

use std::time::{Duration, Instant};

/// When the next batch may come.
#[derive(Debug)]
pub(super) struct Step {
    /// When so many attempts were started.
    claims: u64,
    /// Or when it is this time. If nothing, then now.
    at: Option<Instant>,
}

/// How long intake waits at most. A poll of the Bot API takes no less, so this is not what the updates of
/// others wait for.
const PAUSE: Duration = Duration::from_millis(1);

impl Step {
    pub(super) const fn new() -> Self {
        Self {
            claims: 0,
            at: None,
        }
    }

    /// A batch of `count` has come, when `claims` attempts were started. Returns when the next one may
    /// come at the latest.
    pub(super) fn keep(&mut self, claims: u64, count: usize, now: Instant) -> Option<Instant> {
        self.claims = claims + 2 * count as u64;
        self.at = now.checked_add(PAUSE);
        self.at
    }

    /// Whether the next batch may come, now that `claims` attempts were started.
    #[inline]
    pub(super) fn is_over(&self, claims: u64) -> bool {
        self.at.is_none() || claims >= self.claims
    }

    /// When there is something to [`expire`](Self::expire).
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.at
    }

    pub(super) fn expire(&mut self, now: Instant) {
        self.at = self.at.filter(|at| now < *at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_over_when_twice_as_many_were_started_as_came() {
        let mut step = Step::new();
        assert!(step.is_over(0));
        step.keep(7, 3, Instant::now());
        assert!(!step.is_over(7));
        assert!(!step.is_over(12));
        assert!(step.is_over(13));
    }

    #[test]
    fn it_is_over_after_a_pause_whatever_was_started() {
        let now = Instant::now();
        let mut step = Step::new();
        step.keep(0, 100, now);
        assert_eq!(step.deadline(), Some(now + PAUSE));
        step.expire(now + PAUSE / 2);
        assert!(!step.is_over(0));
        step.expire(now + PAUSE);
        assert!(step.is_over(0));
        assert_eq!(step.deadline(), None);
    }
}
