//! A supplier around a supplier that tells the oracle what is asked and what is answered.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use runner_core::{Closing, SupplyError, UpdateSupplier};

use crate::{
    feed::Trouble,
    world::{Item, World},
};

/// Any supplier of items, observed.
pub(crate) struct Observed<S> {
    world: Arc<World>,
    inner: S,
}

impl<S> Observed<S> {
    pub(crate) fn new(world: &Arc<World>, inner: S) -> Self {
        Self {
            world: Arc::clone(world),
            inner,
        }
    }
}

impl<S: UpdateSupplier<Update = Item, Error = SupplyError>> UpdateSupplier for Observed<S> {
    type Update = Item;
    type Error = SupplyError;

    async fn supply(&mut self, limit: NonZeroUsize) -> Result<Vec<Item>, SupplyError> {
        let timeout = self.inner.call_timeout();
        self.world.oracle().call(limit.get(), timeout);
        let mut pending = Pending(Some(&self.world));
        let mut answer = self.inner.supply(limit).await;
        pending.0 = None;
        let mut oracle = self.world.oracle();
        match &mut answer {
            Ok(batch) => {
                oracle.answer(batch.len());
                for item in batch {
                    item.nr = oracle.supply(item.id);
                }
            }
            Err(error) => oracle.call_failed(Trouble::of(error)),
        }
        drop(oracle);
        answer
    }

    fn call_timeout(&self) -> Option<Duration> {
        self.inner.call_timeout()
    }

    fn max_batch(&self) -> Option<NonZeroUsize> {
        self.inner.max_batch()
    }

    fn is_exhausted(&self) -> bool {
        let is_exhausted = self.inner.is_exhausted();
        if is_exhausted {
            self.world.oracle().supply_ended();
        }
        is_exhausted
    }

    async fn close(&mut self, settled_prefix: usize) -> Result<Closing, SupplyError> {
        self.world.oracle().close(settled_prefix);
        let mut closes = Closes(&self.world, None);
        let answer = self.inner.close(settled_prefix).await;
        closes.1 = answer.as_ref().ok().copied();
        answer
    }
}

/// Tells of a call that panics or is dropped.
struct Pending<'a>(Option<&'a World>);

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if let Some(world) = self.0 {
            if std::thread::panicking() {
                world.oracle().call_failed(Trouble::Panic);
            } else {
                world.oracle().call_dropped();
            }
        }
    }
}

/// Tells how a close ended: `None` if it failed or was dropped.
struct Closes<'a>(&'a World, Option<Closing>);

impl Drop for Closes<'_> {
    fn drop(&mut self) {
        self.0.oracle().closed(self.1);
    }
}
