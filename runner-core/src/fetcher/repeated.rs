//! An answer that came before: [`RepeatedUpdates`].

use std::{error::Error, fmt};

/// A poll brought updates that were supplied before, although its offset is beyond them.
///
/// The source of a [`SupplyError::Transient`](crate::SupplyError::Transient) if it brought nothing
/// else. A server that keeps to the Bot API never does that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RepeatedUpdates {
    /// The `update_id` of the first of them.
    pub first: i64,
    /// How many there were.
    pub count: usize,
}

impl RepeatedUpdates {
    pub(super) fn new(first: i64, count: usize) -> Self {
        Self { first, count }
    }
}

impl fmt::Display for RepeatedUpdates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, count } = self;
        write!(
            f,
            "the answer repeats {count} updates, the first with update_id {first}: the server \
             ignores the offset; check the base URL, and whether a cache or proxy replays answers"
        )
    }
}

impl Error for RepeatedUpdates {}
