//! One update on its way through a handler: [`Delivery`].

use std::{
    fmt, iter,
    num::NonZeroU32,
    ops::Deref,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use crate::ticket::Ticket;

/// One update, and what the handler may ask about its own run.
///
/// Dereferences to the update. The update is shared: a clone costs two counters, so a handler may
/// move clones into further tasks. Those tasks are not tracked; the update is settled when the
/// handler returns.
///
/// ```
/// use runner_core::Delivery;
///
/// let delivery = Delivery::new("hello".to_owned());
/// assert_eq!(delivery.len(), 5);
/// assert_eq!(delivery.attempt(), NonZeroU32::MIN);
/// # use std::num::NonZeroU32;
/// ```
pub struct Delivery<U> {
    chunk: Arc<Chunk<U>>,
    index: u8,
    attempt: NonZeroU32,
    ticket: Ticket,
}

/// What a running update may ask of the sink that runs it.
pub(crate) trait Control: Send + Sync {
    fn deadline(&self, ticket: Ticket) -> Option<Instant>;
    fn extend(&self, ticket: Ticket, by: Duration) -> bool;
    fn is_stopping(&self) -> bool;
}

/// Neighbours of one batch that share one allocation.
///
/// At most [`Chunk::MAX`], so that one slow update does not retain a whole batch.
pub(crate) struct Chunk<U> {
    control: Option<Weak<dyn Control>>,
    updates: Updates<U>,
}

/// A batch of one is as frequent as a full one, and must not cost a second allocation.
enum Updates<U> {
    One(U),
    Many(Box<[U]>),
}

/// The place of one update in its chunk.
pub(crate) struct Share<U> {
    chunk: Arc<Chunk<U>>,
    index: u8,
}

impl<U> Delivery<U> {
    /// Wraps an update that no runner delivered: for unit tests of handlers.
    ///
    /// It is the first attempt, has no deadline and is never stopping.
    #[must_use]
    pub fn new(update: U) -> Self {
        let chunk = Arc::new(Chunk {
            control: None,
            updates: Updates::One(update),
        });
        Share { chunk, index: 0 }.deliver(NonZeroU32::MIN, Ticket::NONE)
    }

    /// Which attempt this is; the first one is 1.
    #[must_use]
    pub fn attempt(&self) -> NonZeroU32 {
        self.attempt
    }

    /// Whether this update was handed to a handler before, so that its effects may exist already.
    #[must_use]
    pub fn redelivered(&self) -> bool {
        self.attempt > NonZeroU32::MIN
    }

    /// When the handler times out.
    ///
    /// `None` if there is no timeout, if its clock has not been started, or if it has been settled or
    /// has timed out already. The clock is started when the handler first waits for something, or, under
    /// load, when it is called; then it is started again at that wait, unless that comes within a
    /// millisecond.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.control()?.deadline(self.ticket)
    }

    /// Asks for more time: the deadline becomes the later of what it was and `by` from now.
    ///
    /// Returns `false` if it is too late, because the handler was told to end, or goes on after its
    /// time. Without a timeout there is nothing to extend, and it answers `true`.
    pub fn extend(&self, by: Duration) -> bool {
        match &self.chunk.control {
            None => true,
            Some(control) => match control.upgrade() {
                Some(control) => control.extend(self.ticket, by),
                None => false,
            },
        }
    }

    /// Whether the runner is stopping, so that a long handler can bring its work to an early end.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        match &self.chunk.control {
            None => false,
            Some(control) => control
                .upgrade()
                .is_none_or(|control| control.is_stopping()),
        }
    }

    /// The same delivery of another value, such as the decoded form of a raw update.
    ///
    /// Attempt, deadline and the rest stay those of the original.
    #[must_use]
    pub fn with<T>(&self, value: T) -> Delivery<T> {
        Delivery {
            chunk: Arc::new(Chunk {
                control: self.chunk.control.clone(),
                updates: Updates::One(value),
            }),
            index: 0,
            attempt: self.attempt,
            ticket: self.ticket,
        }
    }

    pub(crate) fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// Counts updates in the order in which they were supplied.
    pub(crate) fn seq(&self) -> u64 {
        self.ticket.seq
    }

    fn control(&self) -> Option<Arc<dyn Control>> {
        self.chunk.control.as_ref()?.upgrade()
    }
}

impl<U> Deref for Delivery<U> {
    type Target = U;

    fn deref(&self) -> &U {
        self.chunk.get(self.index)
    }
}

impl<U> AsRef<U> for Delivery<U> {
    fn as_ref(&self) -> &U {
        self
    }
}

impl<U> Clone for Delivery<U> {
    fn clone(&self) -> Self {
        Self {
            chunk: Arc::clone(&self.chunk),
            ..*self
        }
    }
}

impl<U: fmt::Debug> fmt::Debug for Delivery<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("update", &**self)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

impl<U> Chunk<U> {
    const MAX: usize = 16;

    /// Splits a batch into chunks, in order; each is made when it is asked for. With how many updates it
    /// has.
    pub(crate) fn split(
        batch: Vec<U>,
        control: &Weak<dyn Control>,
    ) -> impl Iterator<Item = (Arc<Self>, u8)> {
        let mut rest = batch.into_iter();
        iter::from_fn(move || {
            let count = rest.len().min(Self::MAX);
            let updates = match count {
                0 => return None,
                1 => Updates::One(rest.next()?),
                _ => Updates::Many(rest.by_ref().take(count).collect()),
            };
            let control = Some(control.clone());
            // At most 16, so it fits.
            Some((Arc::new(Self { control, updates }), count as u8))
        })
    }

    fn get(&self, index: u8) -> &U {
        match &self.updates {
            Updates::One(update) => update,
            Updates::Many(updates) => &updates[usize::from(index)],
        }
    }
}

impl<U> Share<U> {
    pub(crate) fn new(chunk: Arc<Chunk<U>>, index: u8) -> Self {
        Self { chunk, index }
    }

    /// Becomes the share of another update of a chunk, if it is in that already.
    #[inline]
    pub(crate) fn move_within(&mut self, chunk: &Arc<Chunk<U>>, index: u8) -> bool {
        let within = Arc::ptr_eq(&self.chunk, chunk);
        if within {
            self.index = index;
        }
        within
    }

    pub(crate) fn get(&self) -> &U {
        self.chunk.get(self.index)
    }

    pub(crate) fn deliver(self, attempt: NonZeroU32, ticket: Ticket) -> Delivery<U> {
        Delivery {
            chunk: self.chunk,
            index: self.index,
            attempt,
            ticket,
        }
    }
}

impl<U> Clone for Share<U> {
    fn clone(&self) -> Self {
        Self {
            chunk: Arc::clone(&self.chunk),
            index: self.index,
        }
    }
}
