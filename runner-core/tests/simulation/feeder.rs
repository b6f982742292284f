//! Either kind of supplier that a seed may play with.

use std::{num::NonZeroUsize, time::Duration};

use runner_core::{Closing, SupplyError, UpdateFetcher, UpdateSupplier};

use crate::{server::Server, supplier::Supplier, world::Item};

/// A supplier that may do anything, or the update fetcher over a faulty server.
pub(crate) enum Feeder {
    Any(Supplier),
    Fetcher(Box<UpdateFetcher<Server>>),
}

impl UpdateSupplier for Feeder {
    type Update = Item;
    type Error = SupplyError;

    async fn supply(&mut self, limit: NonZeroUsize) -> Result<Vec<Item>, SupplyError> {
        match self {
            Self::Any(supplier) => supplier.supply(limit).await,
            Self::Fetcher(fetcher) => fetcher.supply(limit).await,
        }
    }

    fn call_timeout(&self) -> Option<Duration> {
        match self {
            Self::Any(supplier) => supplier.call_timeout(),
            Self::Fetcher(fetcher) => fetcher.call_timeout(),
        }
    }

    fn max_batch(&self) -> Option<NonZeroUsize> {
        match self {
            Self::Any(supplier) => supplier.max_batch(),
            Self::Fetcher(fetcher) => fetcher.max_batch(),
        }
    }

    fn is_exhausted(&self) -> bool {
        match self {
            Self::Any(supplier) => supplier.is_exhausted(),
            Self::Fetcher(fetcher) => fetcher.is_exhausted(),
        }
    }

    async fn close(&mut self, settled_prefix: usize) -> Result<Closing, SupplyError> {
        match self {
            Self::Any(supplier) => supplier.close(settled_prefix).await,
            Self::Fetcher(fetcher) => fetcher.close(settled_prefix).await,
        }
    }
}
