//! What became of numbered updates, in memory that does not grow.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

/// How often each update has begun, and whether those of a chat did in their order.
pub(crate) struct Ledger {
    begun: Vec<AtomicU8>,
    /// One more than the number of the last update of each chat.
    last: Vec<AtomicUsize>,
    disordered: AtomicUsize,
}

impl Ledger {
    /// With room for so many updates of so many chats.
    pub(crate) fn new(updates: usize, chats: usize) -> Self {
        let begun: Vec<_> = (0..updates).map(|_| AtomicU8::new(1)).collect();
        // Zeroed memory would come from the kernel as it is used, and the process seem to grow.
        begun
            .iter()
            .for_each(|begun| begun.store(0, Ordering::Relaxed));
        Self {
            begun,
            last: (0..chats).map(|_| AtomicUsize::new(0)).collect(),
            disordered: AtomicUsize::new(0),
        }
    }

    /// The first attempt at an update begins.
    pub(crate) fn begin(&self, number: usize, chat: usize) {
        self.begun[number].fetch_add(1, Ordering::Relaxed);
        let before = self.last[chat].swap(number + 1, Ordering::Relaxed);
        if before > number {
            self.disordered.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many of the first `count` updates have never begun.
    pub(crate) fn never(&self, count: usize) -> usize {
        let begun = self.begun[..count].iter();
        begun
            .filter(|begun| begun.load(Ordering::Relaxed) == 0)
            .count()
    }

    /// How often one has begun again.
    pub(crate) fn repeats(&self) -> usize {
        let begun = self.begun.iter();
        begun
            .map(|begun| usize::from(begun.load(Ordering::Relaxed).saturating_sub(1)))
            .sum()
    }

    /// How often one has begun after a later one of its chat.
    pub(crate) fn disordered(&self) -> usize {
        self.disordered.load(Ordering::Relaxed)
    }
}
