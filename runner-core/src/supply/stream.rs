//! Streams and iterators as suppliers.

use std::{
    convert::Infallible,
    future::poll_fn,
    num::NonZeroUsize,
    pin::Pin,
    task::{Context, Poll},
};

use futures::{Stream, stream};

use super::{SupplyError, UpdateSupplier};

/// Supplies the items of `stream`. The end of the stream ends the run.
///
/// A batch is what is ready at once, at most `limit` items: once there is one, a call never waits for
/// another. A stream cannot go back, so an update that a stop abandons is
/// [`Fate::Lost`](crate::Fate::Lost), and a later run continues with the next item.
///
/// # Cancel safety
///
/// Safe: a call that is dropped loses no item.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "test-util")] {
/// use std::sync::Arc;
/// use futures::channel::mpsc;
/// use runner_core::{Delivery, Runner, supply, testing::SimRuntime};
///
/// let (sender, receiver) = mpsc::unbounded();
/// for number in 0..3 {
///     sender.unbounded_send(number).unwrap();
/// }
/// drop(sender); // that was all
///
/// let sim = SimRuntime::new(1);
/// let supplier = supply::from_stream(receiver);
/// let mut runner = Runner::for_each(Arc::new(sim.clone()), supplier, async |number: Delivery<u32>| {
///     println!("{}", *number);
/// });
/// let report = sim.block_on(runner.run()).unwrap();
/// assert_eq!(report.counters.finished, 3);
/// # }
/// ```
pub fn from_stream<T: Send + Sync + 'static>(
    stream: impl Stream<Item = T> + Send + 'static,
) -> impl UpdateSupplier<Update = T, Error = Infallible> {
    StreamSupplier::new(stream, |item| Ok(item))
}

/// Supplies the items of a stream that can fail. The end of the stream ends the run.
///
/// As [`from_stream`]. An error is the failure of a call: the items before it are supplied first, and
/// what follows depends on its [`SupplyError`]. After a transient one, the default for an
/// [`io::Error`](std::io::Error) or a [`BoxError`](super::BoxError), the stream is polled again.
///
/// # Cancel safety
///
/// Safe: a call that is dropped loses neither an item nor an error.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "test-util")] {
/// use std::{io, sync::Arc};
/// use futures::{AsyncBufReadExt, io::BufReader};
/// use runner_core::{Delivery, Runner, supply, testing::SimRuntime};
///
/// let lines = BufReader::new(&b"one\ntwo\n"[..]).lines(); // a file, a socket, a pipe
///
/// let sim = SimRuntime::new(1);
/// let supplier = supply::from_try_stream(lines);
/// let mut runner = Runner::for_each(Arc::new(sim.clone()), supplier, async |line: Delivery<String>| {
///     println!("{}", *line);
/// });
/// let report = sim.block_on(runner.run()).unwrap();
/// assert_eq!(report.counters.finished, 2);
/// # }
/// ```
pub fn from_try_stream<T, E>(
    stream: impl Stream<Item = Result<T, E>> + Send + 'static,
) -> impl UpdateSupplier<Update = T, Error = E>
where
    T: Send + Sync + 'static,
    E: Into<SupplyError> + Send + 'static,
{
    StreamSupplier::new(stream, |item| item)
}

/// Supplies the items of an iterator. Its end ends the run.
///
/// As [`from_stream`]. The iterator must not block: it is advanced on a thread of the runtime.
///
/// ```
/// # #[cfg(feature = "test-util")] {
/// use std::sync::Arc;
/// use runner_core::{Delivery, Runner, supply, testing::SimRuntime};
///
/// let sim = SimRuntime::new(1);
/// let supplier = supply::from_iter(["one", "two"]);
/// let mut runner = Runner::for_each(Arc::new(sim.clone()), supplier, async |word: Delivery<&str>| {
///     println!("{}", *word);
/// });
/// let report = sim.block_on(runner.run()).unwrap();
/// assert_eq!(report.counters.finished, 2);
/// # }
/// ```
pub fn from_iter<I>(items: I) -> impl UpdateSupplier<Update = I::Item, Error = Infallible>
where
    I: IntoIterator<IntoIter: Send + 'static, Item: Send + Sync + 'static>,
{
    from_stream(stream::iter(items))
}

/// `to_result` makes a result of an item.
struct StreamSupplier<S, F, T, E> {
    stream: Pin<Box<S>>,
    to_result: F,
    /// Items that were taken but not returned yet. Outlives a call that panics.
    batch: Vec<T>,
    /// The failure of the next call.
    error: Option<E>,
    ended: bool,
}

impl<S, F, T, E> StreamSupplier<S, F, T, E>
where
    S: Stream,
    F: Fn(S::Item) -> Result<T, E>,
{
    fn new(stream: S, to_result: F) -> Self {
        Self {
            stream: Box::pin(stream),
            to_result,
            batch: Vec::new(),
            error: None,
            ended: false,
        }
    }

    /// Holds nothing back while it is pending, so a dropped call loses nothing.
    fn poll_batch(&mut self, cx: &mut Context<'_>, limit: usize) -> Poll<Result<Vec<T>, E>> {
        while self.batch.len() < limit && self.error.is_none() && !self.ended {
            match self.stream.as_mut().poll_next(cx) {
                Poll::Ready(Some(item)) => match (self.to_result)(item) {
                    Ok(item) => self.batch.push(item),
                    Err(error) => self.error = Some(error),
                },
                Poll::Ready(None) => self.ended = true,
                Poll::Pending if self.batch.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        if self.batch.is_empty()
            && let Some(error) = self.error.take()
        {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(std::mem::take(&mut self.batch)))
    }
}

impl<S, F, T, E> UpdateSupplier for StreamSupplier<S, F, T, E>
where
    S: Stream + Send + 'static,
    F: Fn(S::Item) -> Result<T, E> + Send + 'static,
    T: Send + Sync + 'static,
    E: Into<SupplyError> + Send + 'static,
{
    type Update = T;
    type Error = E;

    async fn supply(&mut self, limit: NonZeroUsize) -> Result<Vec<T>, E> {
        poll_fn(|cx| self.poll_batch(cx, limit.get())).await
    }

    fn is_exhausted(&self) -> bool {
        self.ended && self.batch.is_empty() && self.error.is_none()
    }
}
