//! The offset, and whether the server has processed it. Reads no clock and sends nothing.
//!
//! A server forgets every update below an offset as soon as it processes a request that carries it,
//! whatever becomes of the answer. So of all that was supplied, only the last batch can ever come
//! again, and only until the next request.

use std::time::Duration;

use super::recent::RecentIds;
use crate::Confirmation;

/// Where the next request begins.
#[derive(Debug)]
pub(super) struct Position {
    offset: Option<i64>,
    sent: Sent,
    /// Whether something was supplied that no end of a run has reported as confirmed.
    moved: bool,
    /// How many updates were supplied in this run.
    supplied: usize,
    /// The size of the last batch, until a request after it was answered.
    last: usize,
    recent: RecentIds,
}

/// What the server knows of an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    /// No request has carried it.
    Never,
    /// A request that carried it was begun.
    Begun,
    /// A request that carried it was under way for long enough.
    Assumed,
    /// A request that carried it was answered.
    Confirmed,
}

/// What is left to do at the end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClosePlan {
    pub(super) step: CloseStep,
    pub(super) redelivers_from: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CloseStep {
    /// No request is needed.
    Done(Confirmation),
    /// One request with this offset.
    Confirm {
        position: i64,
        /// Whether an earlier request has carried it, or a higher one, and was soon dropped.
        sent: bool,
    },
}

impl Position {
    /// After this time, a request has been processed, or its connection is dead.
    pub(super) const ASSUMED_AFTER: Duration = Duration::from_secs(1);

    pub(super) fn new() -> Self {
        Self {
            offset: None,
            sent: Sent::Confirmed,
            moved: false,
            supplied: 0,
            last: 0,
            recent: RecentIds::new(),
        }
    }

    pub(super) fn offset(&self) -> Option<i64> {
        self.offset
    }

    /// A request that carries the offset begins.
    pub(super) fn begin(&mut self) {
        if self.sent == Sent::Never {
            self.sent = Sent::Begun;
        }
    }

    /// A request was dropped after this time. If it was overdue, it may never have reached the server.
    pub(super) fn dropped(&mut self, pending: Duration, overdue: bool) {
        let likely = pending >= Self::ASSUMED_AFTER && !overdue;
        if likely && self.sent == Sent::Begun {
            self.sent = Sent::Assumed;
        }
    }

    /// The server has processed a request that carried the offset.
    pub(super) fn processed(&mut self) {
        self.sent = Sent::Confirmed;
        self.last = 0;
    }

    /// The server has answered with these updates. Returns the indices of those that were supplied
    /// before; the others are about to be supplied.
    pub(super) fn answered(&mut self, ids: &[i64]) -> Vec<usize> {
        let mut repeated = Vec::new();
        let mut last = None;
        for (index, &id) in ids.iter().enumerate() {
            if self.recent.add(id) {
                last = Some(id);
            } else {
                repeated.push(index);
            }
        }
        match (last, ids.last()) {
            // The last new id of this answer, whether higher or lower than before: after a week
            // without updates the server may go on anywhere.
            (Some(last), _) => {
                self.processed();
                self.offset = Some(last.saturating_add(1));
                self.sent = Sent::Never;
                self.moved = true;
                self.last = ids.len() - repeated.len();
                self.supplied = self.supplied.saturating_add(self.last);
                self.recent.trim(self.last);
            }
            (None, None) => self.processed(),
            // Nothing new, so the server has not looked at the offset. Unless it gave what was asked
            // for, with new ids that happen to be those of recent updates. Then the offset moves on.
            (None, Some(last)) => self.offset = self.offset.max(Some(last.saturating_add(1))),
        }
        repeated
    }

    /// Whether the update is one of the last that were supplied, and not wanted again.
    pub(super) fn is_repeated(&self, id: i64) -> bool {
        self.recent.contains(id)
    }

    /// Ends a run in which this many updates, from the first, are settled without a gap. The next run
    /// counts from zero.
    ///
    /// If the plan has a request, [`confirmed`](Self::confirmed) is called after it.
    pub(super) fn close(&mut self, settled_prefix: usize) -> ClosePlan {
        let supplied = std::mem::take(&mut self.supplied);
        let last = std::mem::take(&mut self.last);
        let before_last = supplied.saturating_sub(last);
        let Some(offset) = self.offset else {
            return ClosePlan {
                step: CloseStep::Done(Confirmation::NotNeeded),
                redelivers_from: None,
            };
        };
        let settled = settled_prefix.saturating_sub(before_last);
        let left_of_last = last.saturating_sub(settled);
        let unsettled = self.recent.nth_last(left_of_last);
        self.recent.forget(supplied.saturating_sub(settled_prefix));
        let Some(unsettled) = unsettled else {
            // Every update that can still be confirmed or come again is settled.
            let position = offset;
            let step = match self.sent {
                _ if !self.moved => CloseStep::Done(Confirmation::NotNeeded),
                Sent::Confirmed => CloseStep::Done(Confirmation::Confirmed { position }),
                Sent::Assumed => CloseStep::Done(Confirmation::Assumed { position }),
                Sent::Never | Sent::Begun => CloseStep::Confirm {
                    position,
                    sent: self.sent == Sent::Begun,
                },
            };
            self.moved = matches!(step, CloseStep::Confirm { .. });
            return ClosePlan {
                step,
                redelivers_from: None,
            };
        };
        let known = self.sent;
        // If the server has processed a request with the higher offset, going back does no harm,
        // and no good.
        self.offset = Some(unsettled);
        self.sent = Sent::Never;
        self.moved = true;
        let step = match known {
            Sent::Assumed => CloseStep::Done(Confirmation::Assumed { position: offset }),
            _ if settled > 0 => CloseStep::Confirm {
                position: unsettled,
                sent: known == Sent::Begun,
            },
            // The answer with the last batch has confirmed all before it.
            _ if before_last > 0 => CloseStep::Done(Confirmation::Confirmed {
                position: unsettled,
            }),
            _ => CloseStep::Done(Confirmation::NotNeeded),
        };
        if let CloseStep::Done(_) = step {
            self.confirmed();
        }
        ClosePlan {
            step,
            // Once the higher offset was sent, nothing can be promised.
            redelivers_from: (known == Sent::Never).then_some(before_last + settled),
        }
    }

    /// Nothing below the offset is left to be confirmed.
    pub(super) fn confirmed(&mut self) {
        self.sent = Sent::Confirmed;
        self.moved = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn answered(batches: &[&[i64]]) -> Position {
        let mut position = Position::new();
        for batch in batches {
            position.begin();
            position.answered(batch);
        }
        position
    }

    fn done(confirmation: Confirmation) -> ClosePlan {
        ClosePlan {
            step: CloseStep::Done(confirmation),
            redelivers_from: None,
        }
    }

    #[test]
    fn the_offset_follows_the_last_answer_up_and_down() {
        let mut position = answered(&[&[7, 8, 9]]);
        assert_eq!(position.offset(), Some(10));
        position.begin();
        position.answered(&[]);
        assert_eq!(position.offset(), Some(10));
        position.begin();
        position.answered(&[3]);
        assert_eq!(position.offset(), Some(4));
        position.answered(&[i64::MAX]);
        assert_eq!(position.offset(), Some(i64::MAX));
    }

    #[test]
    fn without_updates_there_is_nothing_to_confirm() {
        let mut position = Position::new();
        position.begin();
        assert_eq!(position.close(0), done(Confirmation::NotNeeded));
        position.begin();
        position.answered(&[]);
        assert_eq!(position.close(0), done(Confirmation::NotNeeded));
    }

    #[test]
    fn what_was_never_sent_has_to_be_confirmed_until_it_is() {
        let mut position = answered(&[&[1, 2]]);
        let confirm = ClosePlan {
            step: CloseStep::Confirm {
                position: 3,
                sent: false,
            },
            redelivers_from: None,
        };
        assert_eq!(position.close(2), confirm);
        // That failed; nothing new came in the next run.
        assert_eq!(position.close(0), confirm);
        position.confirmed();
        assert_eq!(position.close(0), done(Confirmation::NotNeeded));
    }

    #[test]
    fn an_answer_confirms_and_a_long_poll_is_assumed_to() {
        let mut position = answered(&[&[1, 2]]);
        position.begin();
        position.answered(&[]);
        let confirmed = Confirmation::Confirmed { position: 3 };
        assert_eq!(position.close(2), done(confirmed));

        let mut position = answered(&[&[1, 2]]);
        position.begin();
        position.dropped(SECOND, false);
        let assumed = Confirmation::Assumed { position: 3 };
        assert_eq!(position.close(2), done(assumed));

        for (pending, overdue) in [
            (SECOND - Duration::from_nanos(1), false),
            (60 * SECOND, true),
        ] {
            let mut position = answered(&[&[1, 2]]);
            position.begin();
            position.dropped(pending, overdue);
            let step = CloseStep::Confirm {
                position: 3,
                sent: true,
            };
            assert_eq!(position.close(2).step, step);
        }
    }

    #[test]
    fn what_is_unsettled_comes_again() {
        let mut position = answered(&[&[1, 2], &[5, 6, 9]]);
        let plan = position.close(3);
        let step = CloseStep::Confirm {
            position: 6,
            sent: false,
        };
        assert_eq!((plan.step, plan.redelivers_from), (step, Some(3)));
        assert_eq!(position.offset(), Some(6));
    }

    #[test]
    fn only_the_last_batch_can_come_again() {
        let mut position = answered(&[&[1, 2], &[5, 6, 9]]);
        let plan = position.close(0);
        let confirmed = CloseStep::Done(Confirmation::Confirmed { position: 5 });
        assert_eq!((plan.step, plan.redelivers_from), (confirmed, Some(2)));
        assert_eq!(position.offset(), Some(5));

        let mut position = answered(&[&[5, 6, 9]]);
        let plan = position.close(0);
        let nothing = CloseStep::Done(Confirmation::NotNeeded);
        assert_eq!((plan.step, plan.redelivers_from), (nothing, Some(0)));
        assert_eq!(position.offset(), Some(5));
    }

    #[test]
    fn what_the_server_may_have_forgotten_is_asked_for_but_not_promised() {
        let mut position = answered(&[&[1, 2, 3]]);
        position.begin();
        position.dropped(SECOND / 2, false);
        let plan = position.close(1);
        let step = CloseStep::Confirm {
            position: 2,
            sent: true,
        };
        assert_eq!((plan.step, plan.redelivers_from), (step, None));
        assert_eq!(position.offset(), Some(2));

        let mut position = answered(&[&[1, 2, 3]]);
        position.begin();
        position.dropped(SECOND, false);
        let assumed = Confirmation::Assumed { position: 4 };
        assert_eq!(position.close(1), done(assumed));

        let mut position = answered(&[&[1, 2, 3]]);
        position.begin();
        position.answered(&[]);
        let confirmed = Confirmation::Confirmed { position: 4 };
        assert_eq!(position.close(1), done(confirmed));
        assert_eq!(position.offset(), Some(4));
    }

    #[test]
    fn after_a_jump_downwards_the_new_batch_can_come_again() {
        let mut position = answered(&[&[900, 901], &[20, 21]]);
        let plan = position.close(3);
        let step = CloseStep::Confirm {
            position: 21,
            sent: false,
        };
        assert_eq!((plan.step, plan.redelivers_from), (step, Some(3)));
    }

    #[test]
    fn every_run_counts_from_its_own_beginning() {
        let mut position = answered(&[&[1, 2, 3]]);
        position.close(2);
        position.confirmed();
        position.begin();
        position.answered(&[3, 4]);
        let plan = position.close(1);
        let step = CloseStep::Confirm {
            position: 4,
            sent: false,
        };
        assert_eq!((plan.step, plan.redelivers_from), (step, Some(1)));
    }
}
