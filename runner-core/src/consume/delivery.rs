//! One update on its way through a handler: [`Delivery`].

use std::{
    fmt,
    num::NonZeroU32,
    ops::Deref,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use crate::queue::{Label, Ticket};

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
    slice: Arc<BatchSlice<U>>,
    index: u8,
    attempt: NonZeroU32,
    redelivered: bool,
    ticket: Ticket,
}

/// What a running update may ask of the sink that runs it.
pub(crate) trait DeliveryControl: Send + Sync {
    fn deadline(&self, ticket: Ticket) -> Option<Instant>;
    fn extend(&self, ticket: Ticket, by: Duration) -> bool;
    fn is_stopping(&self) -> bool;
    /// For log lines.
    fn label(&self, ticket: Ticket) -> Label;
}

/// Neighbours of one batch that share one allocation.
///
/// At most [`BatchSlice::MAX`], and few if they are large, so that one slow update does not retain a whole
/// batch.
pub(crate) struct BatchSlice<U> {
    control: Option<Weak<dyn DeliveryControl>>,
    updates: Updates<U>,
}

/// A batch of one is as frequent as a full one, and must not cost a second allocation.
enum Updates<U> {
    One(U),
    Many(Box<[U]>),
}

/// One update, by its place in a slice.
pub(crate) struct Item<U> {
    slice: Arc<BatchSlice<U>>,
    index: u8,
}

impl<U> Delivery<U> {
    /// Wraps an update that no runner delivered: for unit tests of handlers.
    ///
    /// It is the first attempt, has no deadline and is never stopping.
    #[must_use]
    pub fn new(update: U) -> Self {
        let slice = Arc::new(BatchSlice {
            control: None,
            updates: Updates::One(update),
        });
        Item { slice, index: 0 }.deliver(NonZeroU32::MIN, false, Ticket::NONE)
    }

    /// Which attempt this is; the first one is 1.
    #[must_use]
    pub fn attempt(&self) -> NonZeroU32 {
        self.attempt
    }

    /// Whether effects of this update may exist already: a handler was given it in an earlier attempt, or
    /// in an earlier run of this runner after which the supplier went back.
    #[must_use]
    pub fn redelivered(&self) -> bool {
        self.redelivered
    }

    /// When the handler times out.
    ///
    /// `None` if there is no timeout, before the handler's first pending poll, and when the handler has
    /// ended or has timed out.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.control()?.deadline(self.ticket)
    }

    /// Asks for more time: the deadline becomes the later of what it was and `by` from now.
    ///
    /// Returns `false` if it is too late: the timeout has fired, and the handler was dropped or goes on
    /// regardless. Without a timeout there is nothing to extend, and it answers `true`.
    pub fn extend(&self, by: Duration) -> bool {
        match &self.slice.control {
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
        match &self.slice.control {
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
            slice: Arc::new(BatchSlice {
                control: self.slice.control.clone(),
                updates: Updates::One(value),
            }),
            index: 0,
            attempt: self.attempt,
            redelivered: self.redelivered,
            ticket: self.ticket,
        }
    }

    /// Counts updates in the order in which they were supplied.
    pub(crate) fn id(&self) -> u64 {
        self.ticket.id
    }

    pub(crate) fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// Names the update in a log line, while the queue holds it.
    pub(crate) fn label(&self) -> Label {
        self.control()
            .map(|control| control.label(self.ticket))
            .unwrap_or_default()
    }

    fn control(&self) -> Option<Arc<dyn DeliveryControl>> {
        self.slice.control.as_ref()?.upgrade()
    }
}

impl<U> Deref for Delivery<U> {
    type Target = U;

    fn deref(&self) -> &U {
        self.slice.get(self.index)
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
            slice: Arc::clone(&self.slice),
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

impl<U> BatchSlice<U> {
    const MAX: usize = 16;

    /// Enough for sixteen updates of the usual size. Five hundred slow handlers retain no more than 16 MB.
    const MAX_BYTES: usize = 32 << 10;

    /// Splits a batch into slices, in order. `size` is that of an update by its index, in bytes.
    pub(crate) fn split(
        batch: Vec<U>,
        size: impl Fn(usize) -> u32,
        control: &Weak<dyn DeliveryControl>,
    ) -> Vec<Arc<Self>> {
        let mut slices = Vec::with_capacity(batch.len().div_ceil(Self::MAX));
        let mut first = 0;
        let mut rest = batch.into_iter();
        loop {
            let mut bytes = 0_usize;
            let fitting = (first..first + rest.len().min(Self::MAX)).take_while(|&index| {
                bytes = bytes.saturating_add(size(index) as usize);
                index == first || bytes <= Self::MAX_BYTES
            });
            let count = fitting.count();
            let updates = match count {
                0 => return slices,
                1 => rest
                    .next()
                    .map_or_else(|| Updates::Many([].into()), Updates::One),
                _ => Updates::Many(rest.by_ref().take(count).collect()),
            };
            first += count;
            let control = Some(control.clone());
            slices.push(Arc::new(Self { control, updates }));
        }
    }

    /// How many updates it has, at most 16.
    pub(crate) fn len(&self) -> u8 {
        match &self.updates {
            Updates::One(_) => 1,
            Updates::Many(updates) => updates.len() as u8,
        }
    }

    fn get(&self, index: u8) -> &U {
        match &self.updates {
            Updates::One(update) => update,
            Updates::Many(updates) => &updates[usize::from(index)],
        }
    }
}

impl<U> Item<U> {
    pub(crate) fn new(slice: Arc<BatchSlice<U>>, index: u8) -> Self {
        Self { slice, index }
    }

    pub(crate) fn get(&self) -> &U {
        self.slice.get(self.index)
    }

    pub(crate) fn deliver(
        self,
        attempt: NonZeroU32,
        redelivered: bool,
        ticket: Ticket,
    ) -> Delivery<U> {
        Delivery {
            slice: self.slice,
            index: self.index,
            attempt,
            redelivered,
            ticket,
        }
    }
}

impl<U> Clone for Item<U> {
    fn clone(&self) -> Self {
        Self {
            slice: Arc::clone(&self.slice),
            index: self.index,
        }
    }
}
