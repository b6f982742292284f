//! The async client: the same code inside every runtime, on sockets and timers of async-io.

mod connect;
mod deadline;
mod exchange;
mod pool;
#[cfg(all(test, feature = "test-util", feature = "ureq"))]
mod tests;

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use self::{
    connect::Connector,
    deadline::Deadline,
    exchange::Failure,
    pool::{InUse, Pool, Turn},
};
use super::{
    ClientOptions, HttpClient, HttpError, HttpErrorKind, HttpRequest, HttpResponse, Lane,
    dns::Dns,
    target::{Target, header_text},
};

/// An [`HttpClient`] on `hyper`, for bots that send a lot: a call costs no thread.
///
/// Works inside tokio, inside smol and under any other executor: its sockets and timers are those
/// of async-io, which has one thread for the whole process. Nothing is spawned; a connection is
/// driven by the future of the request that uses it.
///
/// Cloning is cheap, and clones share connections. Each lane has its own. One that is not used for 15 s,
/// or that the server closes, is closed. The number of calls at a time is not bounded here: the sink bounds
/// the handlers that make them. But at most 32 of them connect at a time. Further ones wait, also for a
/// connection that becomes free, and so do all if the process runs out of descriptors;
/// [`ClientOptions::max_wait`] limits the wait. A connection has about 20 KB of buffers, and up to 400 KB after large answers; one for polls
/// also keeps the memory of its last two large answers, at most 512 KB.
///
/// Proxies named by environment variables are not used, unless
/// [`ClientOptions::proxy_from_env`] says so, and cookies are not kept.
///
/// A name is looked up on a thread of its own, at most once at a time. An answer is used for 30 s. While
/// the resolver does not answer, the last good answer is used for up to a day. If an address does not
/// answer within 250 ms, the next one is tried as well, and the one that worked comes first from then
/// on.
///
/// # Cancel safety
///
/// A dropped future closes its connection at once, also in a TCP connect or a TLS handshake. Only
/// a name look-up cannot be cut: it runs on a thread of its own, which ends with it.
///
/// # Retries
///
/// A server may close a kept-alive connection in the moment in which it is used again. If nothing
/// of the request was written, it is sent on a new connection, once, at once. If it was written and
/// no byte of an answer came, only a poll is repeated: it has no effect that could happen twice. A
/// call fails with [`HttpErrorKind::Closed`](super::HttpErrorKind::Closed) then, because nobody can
/// tell whether the server has seen it.
#[derive(Clone)]
pub struct HyperClient {
    shared: Arc<Shared>,
}

impl HyperClient {
    /// A client with the default [`ClientOptions`].
    #[must_use]
    pub fn new() -> Self {
        Self::with_options(ClientOptions::default())
    }

    /// A client with these options.
    #[must_use]
    pub fn with_options(options: ClientOptions) -> Self {
        Self::with_dns(options, Dns::system())
    }

    pub(in crate::client) fn with_dns(options: ClientOptions, dns: Dns) -> Self {
        Self {
            shared: Arc::new(Shared {
                connector: Connector::new(&options.roots, options.route, dns),
                user_agent: header_text(&options.user_agent),
                max_wait: options.max_wait,
                pool: Arc::default(),
            }),
        }
    }
}

impl HyperClient {
    /// How many calls wait for a connection now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.shared.pool.waiting()
    }
}

impl HttpClient for HyperClient {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let mut exchange = pin!(self.shared.exchange(request));
        // async-io wakes the waker that it holds when it is given another one. A waker may not know its
        // own clone (`Waker::will_wake` compares addresses of tables, of which a program may have
        // several), and then each poll would cause the next one. That of tokio's `block_on` is such a
        // one in release builds. Clones know each other.
        poll_fn(|cx| {
            let waker = cx.waker().clone();
            exchange.as_mut().poll(&mut Context::from_waker(&waker))
        })
        .await
    }
}

impl Default for HyperClient {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for HyperClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HyperClient")
            .field("resting_polls", &self.shared.pool.resting(Lane::Poll))
            .field("resting_calls", &self.shared.pool.resting(Lane::Call))
            .field("waiting", &self.shared.pool.waiting())
            .finish_non_exhaustive()
    }
}

struct Shared {
    connector: Connector,
    user_agent: String,
    max_wait: Duration,
    pool: Arc<Pool>,
}

impl Shared {
    async fn exchange(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let target = Target::new(&request.url)?;
        let (mut in_use, is_reused) = self.connection(&target, &request).await?;
        let link = in_use.link();
        let mut outcome = link.exchange(&target, &request, &self.user_agent).await;
        if is_reused
            && let Err(failure) = &outcome
            && (failure.is_unsent() || request.lane == Lane::Poll && failure.is_unanswered())
        {
            // It may not wait for a connection that could fail in the same way.
            let permit = self.pool.permit();
            let link = self.connector.connect(&target, &request.limits).await?;
            in_use = permit.connected(link);
            let link = in_use.link();
            outcome = link.exchange(&target, &request, &self.user_agent).await;
        }
        let response = outcome.map_err(Failure::into_error)?;
        let mut in_use = Some(in_use);
        poll_fn(|cx| {
            if let Some(in_use) = in_use.take() {
                let origin = target.origin.clone();
                self.pool.keep(request.lane, origin, in_use, cx);
            }
            Poll::Ready(())
        })
        .await;
        Ok(response)
    }

    /// A connection, and whether it was used before: the one that was used last, if one still works.
    async fn connection(
        &self,
        target: &Target,
        request: &HttpRequest,
    ) -> Result<(InUse, bool), HttpError> {
        let lane = request.lane;
        let began = Instant::now();
        let mut has_waited = false;
        loop {
            while let Some(mut in_use) = self.pool.take(lane, &target.origin) {
                if poll_fn(|cx| Poll::Ready(in_use.link().is_usable(cx))).await {
                    return Ok((in_use, true));
                }
            }
            let (turnstile, error) = match self.pool.turn(lane, has_waited) {
                Turn::Wait(turnstile) => {
                    let reason = "too many connects were under way";
                    (
                        turnstile,
                        HttpError::new(HttpErrorKind::Busy).with_source(reason),
                    )
                }
                Turn::Connect(permit) => {
                    match self.connector.connect(target, &request.limits).await {
                        Ok(link) => return Ok((permit.connected(link), false)),
                        Err(error) if error.is_out_of_descriptors() => {
                            match self.pool.make_room(permit) {
                                Some(Some(turnstile)) => (turnstile, error),
                                Some(None) => continue,
                                None => return Err(error),
                            }
                        }
                        Err(error) => return Err(error),
                    }
                }
            };
            let left = self.max_wait.saturating_sub(began.elapsed());
            let waited = Deadline::default().within(left, turnstile.wait()).await;
            waited.ok_or(error)?;
            has_waited = true;
        }
    }
}
