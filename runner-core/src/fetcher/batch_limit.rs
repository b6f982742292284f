//! Fewer updates at a time after an answer that was too large: [`BatchLimit`].
//!
//! An answer that is refused is not confirmed, so the same request would get the same answer again.

/// How many updates a poll may ask for. Reads no clock.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct BatchLimit(Option<Reduced>);

#[derive(Clone, Copy, Debug)]
struct Reduced {
    limit: u8,
    until: Until,
}

/// What ends a reduction. Each also ends with an empty answer: nothing is waiting.
#[derive(Clone, Copy, Debug)]
enum Until {
    /// The updates of the answer that was refused have come, at most this many. Those after them need
    /// not be as large.
    Received(usize),
    /// Full answers are quick again.
    Quick,
}

impl BatchLimit {
    /// How many to ask for instead.
    pub(super) fn limit(&self, wanted: u8) -> u8 {
        self.0.map_or(wanted, |reduced| wanted.min(reduced.limit))
    }

    /// The client has refused the answer, which has up to this many updates.
    pub(super) fn too_large(&mut self, asked: u8) {
        let left = match self.0 {
            Some(Reduced {
                until: Until::Received(left),
                ..
            }) => left,
            _ => 0,
        };
        self.reduce(asked, Until::Received(left.max(asked.into())));
    }

    /// The answer did not come in time. It may have been too large, or the connection was dead.
    pub(super) fn too_slow(&mut self, asked: u8) {
        self.reduce(asked, Until::Quick);
    }

    fn reduce(&mut self, asked: u8, until: Until) {
        let limit = (asked / 2).max(1);
        self.0 = Some(Reduced { limit, until });
    }

    /// So many updates came. `quick`: four times as many would have come in time.
    pub(super) fn answered(&mut self, count: usize, quick: bool) {
        let Some(reduced) = &mut self.0 else { return };
        // An answer with fewer updates than were asked for does not end the reduction: if the same is
        // asked for twice in a row, a server may return one update at a time.
        let over = match &mut reduced.until {
            Until::Received(left) => {
                *left = left.saturating_sub(count);
                *left == 0
            }
            Until::Quick => {
                if quick && count >= reduced.limit.into() {
                    reduced.limit = reduced.limit.saturating_mul(2);
                }
                reduced.limit >= 100
            }
        };
        if over || count == 0 {
            self.0 = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_halves_the_limit_down_to_one() {
        for refuse in [BatchLimit::too_large, BatchLimit::too_slow] {
            let mut batch = BatchLimit::default();
            let mut asked = Vec::new();
            for _ in 0..9 {
                let limit = batch.limit(100);
                asked.push(limit);
                refuse(&mut batch, limit);
            }
            assert_eq!(asked, [100, 50, 25, 12, 6, 3, 1, 1, 1]);
            assert_eq!(batch.limit(100), 1);
        }
    }

    #[test]
    fn the_limit_is_back_once_as_many_have_come_as_were_refused() {
        let mut batch = BatchLimit::default();
        for limit in [10, 5] {
            assert_eq!(batch.limit(10), limit);
            batch.too_large(limit);
        }
        for _ in 0..5 {
            assert_eq!(batch.limit(10), 2);
            batch.answered(2, true);
        }
        assert_eq!(batch.limit(10), 10);
    }

    #[test]
    fn the_limit_is_back_when_no_more_are_waiting() {
        for refuse in [BatchLimit::too_large, BatchLimit::too_slow] {
            let mut batch = BatchLimit::default();
            refuse(&mut batch, 4);
            batch.answered(1, true);
            assert_eq!(batch.limit(4), 2);
            batch.answered(0, true);
            assert_eq!(batch.limit(4), 4);
        }
    }

    #[test]
    fn after_slow_answers_the_limit_doubles_with_every_full_answer_that_is_quick() {
        let mut batch = BatchLimit::default();
        batch.too_slow(50);
        for (count, quick, limit) in [
            (25, false, 25),
            (24, true, 25),
            (25, true, 50),
            (50, false, 50),
            (50, true, 100),
        ] {
            batch.answered(count, quick);
            assert_eq!(batch.limit(100), limit);
        }
    }

    #[test]
    fn a_poll_that_wants_less_gets_less() {
        let mut batch = BatchLimit::default();
        batch.too_large(100);
        assert_eq!(batch.limit(3), 3);
        batch.too_large(3);
        assert_eq!(batch.limit(100), 1);
    }
}
