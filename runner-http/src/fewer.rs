//! Fewer updates at a time after an answer that was too large: [`Fewer`].
//!
//! What is refused is not confirmed, so the same request would get the same answer for ever.

/// How many updates a poll may ask for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fewer(Option<Refused>);

#[derive(Clone, Copy, Debug)]
struct Refused {
    limit: u8,
    /// How many of the updates that were refused have not come yet, at most.
    left: usize,
}

impl Fewer {
    /// How many to ask for instead.
    pub(crate) fn limit(&self, wanted: u8) -> u8 {
        self.0.map_or(wanted, |refused| wanted.min(refused.limit))
    }

    /// The answer with up to this many updates was too large.
    pub(crate) fn refused(&mut self, asked: u8) {
        let left = self.0.map_or(0, |refused| refused.left);
        self.0 = Some(Refused {
            limit: (asked / 2).max(1),
            left: left.max(asked.into()),
        });
    }

    /// So many updates came.
    pub(crate) fn answered(&mut self, count: usize) {
        if let Some(refused) = &mut self.0 {
            refused.left = refused.left.saturating_sub(count);
            // Those that follow need not be as large. An answer with less than was asked for tells
            // nothing: a server that is asked the same twice may give one update at a time.
            if refused.left == 0 || count == 0 {
                self.0 = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_halves_the_limit_down_to_one() {
        let mut fewer = Fewer::default();
        let mut asked = Vec::new();
        for _ in 0..9 {
            let limit = fewer.limit(100);
            asked.push(limit);
            fewer.refused(limit);
        }
        assert_eq!(asked, [100, 50, 25, 12, 6, 3, 1, 1, 1]);
        assert_eq!(fewer.limit(100), 1);
    }

    #[test]
    fn the_limit_is_back_once_as_many_have_come_as_were_refused() {
        let mut fewer = Fewer::default();
        for limit in [10, 5] {
            assert_eq!(fewer.limit(10), limit);
            fewer.refused(limit);
        }
        for _ in 0..5 {
            assert_eq!(fewer.limit(10), 2);
            fewer.answered(2);
        }
        assert_eq!(fewer.limit(10), 10);
    }

    #[test]
    fn the_limit_is_back_when_no_more_are_waiting() {
        let mut fewer = Fewer::default();
        fewer.refused(4);
        fewer.answered(1);
        assert_eq!(fewer.limit(4), 2);
        fewer.answered(0);
        assert_eq!(fewer.limit(4), 4);
    }

    #[test]
    fn a_poll_that_wants_less_gets_less() {
        let mut fewer = Fewer::default();
        fewer.refused(100);
        assert_eq!(fewer.limit(3), 3);
        fewer.refused(3);
        assert_eq!(fewer.limit(100), 1);
    }
}
