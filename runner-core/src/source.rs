//! SHIM, replaced by the real source when it lands.
use crate::{Closing, Runtime, SupplyError, UpdateSupplier};
use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex},
    time::Instant,
};

#[derive(Debug)]
pub struct Source<S> {
    supplier: S,
    status: Status,
}
#[derive(Debug, Clone, Default)]
pub struct SourceOptions;
#[derive(Debug)]
pub enum SourceError {
    Supply(SupplyError),
    Panicked(Arc<str>),
}
impl std::fmt::Display for SourceError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "x")
    }
}
impl std::error::Error for SourceError {}
#[derive(Debug, Clone)]
pub(crate) struct Status(Arc<Mutex<SourceSnapshot>>);
#[derive(Debug, Clone, Copy)]
pub(crate) struct SourceSnapshot {
    pub(crate) state: SourceState,
    pub(crate) calls: u64,
    pub(crate) failures: u64,
}
#[derive(Debug, Clone, Copy)]
pub(crate) enum SourceState {
    Idle,
    Polling,
    Backoff,
    Conflict,
}
impl Status {
    pub(crate) fn snapshot(&self) -> SourceSnapshot {
        *self.0.lock().unwrap()
    }
}
impl SourceSnapshot {
    pub(crate) fn is_overdue(&self, _: Instant) -> bool {
        false
    }
    pub(crate) fn is_connected(&self, _: Instant) -> bool {
        true
    }
}
impl<S: UpdateSupplier> Source<S> {
    pub fn new(_: Arc<dyn Runtime>, supplier: S, _: SourceOptions) -> Self {
        Self {
            supplier,
            status: Status(Arc::new(Mutex::new(SourceSnapshot {
                state: SourceState::Idle,
                calls: 0,
                failures: 0,
            }))),
        }
    }
    pub(crate) fn set_options(&mut self, _: SourceOptions) {}
    pub(crate) fn status(&self) -> Status {
        self.status.clone()
    }
    pub async fn next(
        &mut self,
        limit: NonZeroUsize,
    ) -> Option<Result<Vec<S::Update>, SourceError>> {
        Some(
            self.supplier
                .supply(limit)
                .await
                .map_err(|e| SourceError::Supply(e.into())),
        )
    }
    pub(crate) async fn close(&mut self, prefix: usize) -> Result<Closing, SourceError> {
        self.supplier
            .close(prefix)
            .await
            .map_err(|e| SourceError::Supply(e.into()))
    }
}
