//! Logs changes of state: one line per change, however many calls fail in between.

use std::time::{Duration, Instant};

use crate::{
    SupplyError,
    trace::{Chain, info, warn},
};

/// The state that was logged last.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StateLog(Option<Trouble>);

/// What went wrong since the last answer.
#[derive(Clone, Copy, Debug)]
struct Trouble {
    kind: TroubleKind,
    since: Instant,
    count: u32,
}

/// Why no updates are fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TroubleKind {
    Failing,
    RetryAfter,
    Conflict,
}

impl StateLog {
    /// Notes a failure, after which `delay` is waited.
    pub(super) fn failed(
        &mut self,
        kind: TroubleKind,
        error: &SupplyError,
        delay: Duration,
        now: Instant,
    ) {
        let before = self.0;
        let (since, count) = before.map_or((now, 0), |before| (before.since, before.count));
        self.0 = Some(Trouble {
            kind,
            since,
            count: count.saturating_add(1),
        });
        if before.is_some_and(|before| before.kind == kind) {
            return;
        }
        match kind {
            TroubleKind::Failing => warn!(
                error = %Chain(error),
                delay = ?delay,
                "updates cannot be fetched, trying again until it works"
            ),
            TroubleKind::RetryAfter => warn!(
                error = %Chain(error),
                delay = ?delay,
                "the server asks to wait before the next fetch"
            ),
            TroubleKind::Conflict => warn!(
                error = %Chain(error),
                delay = ?delay,
                "another instance polls for the same updates, giving it time to leave"
            ),
        }
    }

    /// Notes an answer.
    pub(super) fn answered(&mut self, now: Instant) {
        if let Some(trouble) = self.0.take() {
            info!(
                lasted = ?now.saturating_duration_since(trouble.since),
                failed = trouble.count,
                "updates are fetched again"
            );
        }
    }
}
