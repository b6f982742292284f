//! The end of a run, as a supplier sees it: [`Closing`].

/// What a supplier says at the end of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Closing {
    /// Whether the upstream knows what was handled.
    pub confirmation: Confirmation,
    /// The first update, counted as in [`UpdateSupplier::close`](crate::UpdateSupplier::close), that a later run is given again.
    ///
    /// `None`: none of this run's updates comes back.
    pub redelivers_from: Option<usize>,
}

impl Closing {
    /// An answer with this confirmation, and nothing that comes back.
    #[must_use]
    pub fn new(confirmation: Confirmation) -> Self {
        Self {
            confirmation,
            redelivers_from: None,
        }
    }

    /// Says that updates from this one on are supplied again by a later run.
    #[must_use]
    pub fn redelivers_from(mut self, index: usize) -> Self {
        self.redelivers_from = Some(index);
        self
    }
}

/// Whether the upstream knows which updates are handled, at the end of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Confirmation {
    /// The supplier has nothing to confirm.
    #[default]
    NotNeeded,
    /// An answer was received to a request that carried this position.
    Confirmed {
        /// The first position that is not confirmed; for the Bot API, the `offset`.
        position: i64,
    },
    /// A request that carried this position was under way for long enough to have been processed,
    /// but was never answered.
    Assumed {
        /// The first position that is not confirmed.
        position: i64,
    },
    /// The confirmation failed: what was handled last may be delivered once more.
    Unconfirmed {
        /// The position that should have been confirmed.
        position: i64,
    },
    /// The supplier was not closed, or failed to: the run was cut short, its time was over, or
    /// `close` returned an error.
    Failed,
}
