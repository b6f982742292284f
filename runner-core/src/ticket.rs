//! The name of one held update.

/// Names one update that the sink holds.
///
/// The sequence number counts updates in supply order and never repeats, so a ticket that outlives
/// its update matches nothing, even when its place has been given to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ticket {
    /// Orders first: tickets compare by age.
    pub(crate) seq: u64,
    /// Where the update is kept.
    pub(crate) index: u32,
}

impl Ticket {
    /// Matches no update.
    pub(crate) const NONE: Self = Self {
        seq: u64::MAX,
        index: u32::MAX,
    };
}
