//! Where updates go: [`UpdateConsumer`], closures as consumers, and the type-erased version.

mod delivery;
mod key;
mod policy;

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use async_trait::async_trait;
use pin_project_lite::pin_project;

pub use self::{
    delivery::Delivery,
    key::{Key, Value},
    policy::{Cause, ErrorPolicy, Failure, SkipFailed, Undecodable, Verdict},
};
pub(crate) use self::{
    delivery::{BatchSlice, DeliveryControl, Item},
    policy::Panicked,
};
use crate::BoxError;

/// Handles one update. Shared by all tasks.
///
/// Closures `Fn(Delivery<U>) -> Future` are consumers; their future may return `()` or a
/// `Result`. Implement the trait when a handler has state of its own. Consumers compose: tracing,
/// retries or routing are consumers around consumers.
///
/// # Contract
///
/// - Called once per attempt. Updates that share a key are never handled at the same time; all
///   others may be.
/// - An error, a panic or a timeout concerns this update only. It is decided by the
///   [`ErrorPolicy`](crate::ErrorPolicy).
/// - The future is dropped when it times out, and when the runner is told not to wait any longer.
///
/// # Example
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use runner_core::{BoxError, Delivery, UpdateConsumer};
///
/// #[derive(Default)]
/// struct CountLetters(AtomicU64);
///
/// impl UpdateConsumer<String> for CountLetters {
///     type Error = BoxError;
///
///     async fn consume(&self, update: Delivery<String>) -> Result<(), BoxError> {
///         self.0.fetch_add(update.len() as u64, Ordering::Relaxed);
///         Ok(())
///     }
/// }
/// ```
pub trait UpdateConsumer<U>: Send + Sync + 'static {
    /// Failure of one update.
    type Error: Into<BoxError> + Send;

    /// Handles `update`.
    ///
    /// # Errors
    ///
    /// Whatever the handler could not do; it reaches the error policy together with the update.
    ///
    /// # Cancel safety
    ///
    /// The future is dropped at a timeout and at the end of a stop that has a limit. What must not be
    /// cut in half belongs into a transaction, or into a task of its own.
    fn consume(&self, update: Delivery<U>) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

impl<U, F, Fut> UpdateConsumer<U> for F
where
    F: Fn(Delivery<U>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output: HandlerOutput> + Send,
{
    type Error = BoxError;

    fn consume(&self, update: Delivery<U>) -> impl Future<Output = Result<(), BoxError>> + Send {
        // Called here, not at the first poll: the future then holds no copy of the update.
        Handled {
            handler: self(update),
        }
    }
}

pin_project! {
    /// The future of a closure, as that of a consumer.
    ///
    /// Not an async block around it: that would hold the future twice.
    struct Handled<F> {
        #[pin]
        handler: F,
    }
}

impl<F: Future<Output: HandlerOutput>> Future for Handled<F> {
    type Output = Result<(), BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let handled = self.project().handler.poll(cx);
        handled.map(HandlerOutput::into_result)
    }
}

/// What the future of a closure may return: `()`, or a `Result` with any error.
pub trait HandlerOutput {
    /// The result of handling the update.
    ///
    /// # Errors
    ///
    /// The error that the handler returned.
    fn into_result(self) -> Result<(), BoxError>;
}

impl HandlerOutput for () {
    fn into_result(self) -> Result<(), BoxError> {
        Ok(())
    }
}

impl<E: Into<BoxError>> HandlerOutput for Result<(), E> {
    fn into_result(self) -> Result<(), BoxError> {
        self.map_err(Into::into)
    }
}

/// A consumer of any type, for where the type cannot be named.
///
/// Costs one allocation per update.
///
/// ```
/// use runner_core::{BoxConsumer, Delivery};
///
/// fn choose(loud: bool) -> BoxConsumer<String> {
///     if loud {
///         BoxConsumer::new(async |update: Delivery<String>| println!("{}!", *update))
///     } else {
///         BoxConsumer::new(async |_: Delivery<String>| {})
///     }
/// }
/// # let _ = choose(true);
/// ```
pub struct BoxConsumer<U>(Box<dyn DynConsumer<U>>);

impl<U: Send + Sync + 'static> BoxConsumer<U> {
    /// Boxes `consumer`.
    pub fn new(consumer: impl UpdateConsumer<U>) -> Self {
        Self(Box::new(consumer))
    }
}

impl<U: Send + Sync + 'static> UpdateConsumer<U> for BoxConsumer<U> {
    type Error = BoxError;

    async fn consume(&self, update: Delivery<U>) -> Result<(), BoxError> {
        self.0.consume(update).await
    }
}

impl<U> fmt::Debug for BoxConsumer<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoxConsumer").finish_non_exhaustive()
    }
}

/// The object-safe twin of [`UpdateConsumer`].
#[async_trait]
trait DynConsumer<U>: Send + Sync {
    async fn consume(&self, update: Delivery<U>) -> Result<(), BoxError>;
}

#[async_trait]
impl<U: Send + Sync + 'static, C: UpdateConsumer<U>> DynConsumer<U> for C {
    async fn consume(&self, update: Delivery<U>) -> Result<(), BoxError> {
        UpdateConsumer::consume(self, update)
            .await
            .map_err(Into::into)
    }
}
