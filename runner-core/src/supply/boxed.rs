//! A supplier whose type is erased: [`BoxSupplier`].

use std::{fmt, num::NonZeroUsize, time::Duration};

use async_trait::async_trait;

use super::{Closing, SupplyError, UpdateSupplier};

/// A supplier of any type, for where the type cannot be named.
///
/// Costs one allocation a call.
///
/// ```
/// # #[cfg(feature = "test-util")] {
/// use runner_core::{BoxSupplier, testing::{ScriptedSupplier, SimRuntime}};
///
/// let sim = SimRuntime::new(1);
/// let suppliers: Vec<BoxSupplier<u32>> = vec![
///     BoxSupplier::new(ScriptedSupplier::new(&sim).batch([1])),
///     // and others, of other types
/// ];
/// # assert_eq!(suppliers.len(), 1);
/// # }
/// ```
pub struct BoxSupplier<U>(Box<dyn DynSupplier<U>>);

impl<U: Send + Sync + 'static> BoxSupplier<U> {
    /// Boxes `supplier`.
    pub fn new(supplier: impl UpdateSupplier<Update = U>) -> Self {
        Self(Box::new(supplier))
    }
}

impl<U: Send + Sync + 'static> UpdateSupplier for BoxSupplier<U> {
    type Update = U;
    type Error = SupplyError;

    async fn supply(&mut self, limit: NonZeroUsize) -> Result<Vec<U>, SupplyError> {
        self.0.supply(limit).await
    }

    fn call_timeout(&self) -> Option<Duration> {
        self.0.call_timeout()
    }

    fn max_batch(&self) -> Option<NonZeroUsize> {
        self.0.max_batch()
    }

    fn is_exhausted(&self) -> bool {
        self.0.is_exhausted()
    }

    async fn close(&mut self, settled_prefix: usize) -> Result<Closing, SupplyError> {
        self.0.close(settled_prefix).await
    }
}

impl<U> fmt::Debug for BoxSupplier<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoxSupplier").finish_non_exhaustive()
    }
}

/// The object-safe twin of [`UpdateSupplier`].
#[async_trait]
trait DynSupplier<U>: Send {
    async fn supply(&mut self, limit: NonZeroUsize) -> Result<Vec<U>, SupplyError>;
    fn call_timeout(&self) -> Option<Duration>;
    fn max_batch(&self) -> Option<NonZeroUsize>;
    fn is_exhausted(&self) -> bool;
    async fn close(&mut self, settled_prefix: usize) -> Result<Closing, SupplyError>;
}

#[async_trait]
impl<S: UpdateSupplier> DynSupplier<S::Update> for S {
    async fn supply(&mut self, limit: NonZeroUsize) -> Result<Vec<S::Update>, SupplyError> {
        UpdateSupplier::supply(self, limit)
            .await
            .map_err(Into::into)
    }

    fn call_timeout(&self) -> Option<Duration> {
        UpdateSupplier::call_timeout(self)
    }

    fn max_batch(&self) -> Option<NonZeroUsize> {
        UpdateSupplier::max_batch(self)
    }

    fn is_exhausted(&self) -> bool {
        UpdateSupplier::is_exhausted(self)
    }

    async fn close(&mut self, settled_prefix: usize) -> Result<Closing, SupplyError> {
        UpdateSupplier::close(self, settled_prefix)
            .await
            .map_err(Into::into)
    }
}
