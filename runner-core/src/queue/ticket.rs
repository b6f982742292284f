//! The name of one held update.

/// Names one update that a queue holds.
///
/// The id counts updates in the order in which they were added and never repeats, so a ticket that
/// outlives its update matches nothing, even when its place has been given to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ticket {
    /// Comes first, so that tickets compare by age.
    pub(crate) id: u64,
    /// Where the entry is.
    pub(crate) index: u32,
}

impl Ticket {
    /// Matches no update.
    pub(crate) const NONE: Self = Self {
        id: u64::MAX,
        index: u32::MAX,
    };
}
