//! The async client: the same code inside every runtime, on sockets and timers of async-io.

mod connect;
mod deadline;
mod exchange;

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Context,
    time::{Duration, Instant},
};

use self::{
    connect::Connector,
    exchange::{Failure, Link},
};
use super::{
    ClientOptions, HttpClient, HttpError, HttpRequest, HttpResponse, Lane,
    dns::Dns,
    target::{Target, header_text},
};

/// An [`HttpClient`] on `hyper`, for bots that send a lot: a call costs no thread.
///
/// Works inside tokio, inside smol and under any other executor: its sockets and timers are those
/// of async-io, which has one thread for the whole process. Nothing is spawned; a connection is
/// driven by the future of the request that uses it.
///
/// Cloning is cheap, and clones share connections. Each lane keeps its own: up to 32 at rest, which
/// are not used again after 15 s. One more that is needed is opened, and closed after use if 32 rest
/// already. The number of calls at a time is not bounded here: the sink bounds the handlers that make
/// them. A connection has about 20 KB of buffers, and up to 400 KB after large answers; one for polls
/// also keeps the memory of its last two large answers, at most 512 KB.
///
/// Proxies named by environment variables are not used, and cookies are not kept.
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
                connector: Connector::new(&options.roots, dns),
                user_agent: header_text(&options.user_agent),
                polls: Mutex::default(),
                calls: Mutex::default(),
            }),
        }
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
            .field("resting_polls", &self.shared.lane(Lane::Poll).len())
            .field("resting_calls", &self.shared.lane(Lane::Call).len())
            .finish_non_exhaustive()
    }
}

struct Shared {
    connector: Connector,
    user_agent: String,
    polls: Mutex<Vec<Kept>>,
    calls: Mutex<Vec<Kept>>,
}

/// A connection at rest. Nobody polls it, so a close is noticed when it is taken again.
struct Kept {
    origin: String,
    link: Link,
    since: Instant,
}

impl Shared {
    async fn exchange(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let target = Target::new(&request.url)?;
        let kept = self.take(request.lane, &target.origin).await;
        let is_reused = kept.is_some();
        let mut link = match kept {
            Some(link) => link,
            None => self.connector.connect(&target, &request.limits).await?,
        };

        let mut outcome = link.exchange(&target, &request, &self.user_agent).await;
        if is_reused
            && let Err(failure) = &outcome
            && (failure.is_unsent() || request.lane == Lane::Poll && failure.is_unanswered())
        {
            link = self.connector.connect(&target, &request.limits).await?;
            outcome = link.exchange(&target, &request, &self.user_agent).await;
        }
        let response = outcome.map_err(Failure::into_error)?;
        // Not if the server wants it closed, or sent more than it said.
        if link.is_usable().await {
            if request.lane == Lane::Call {
                link.rest();
            }
            self.keep(request.lane, target.origin, link);
        }
        Ok(response)
    }

    /// The connection that was used last, if one still works.
    async fn take(&self, lane: Lane, origin: &str) -> Option<Link> {
        loop {
            let mut link = {
                let mut kept = self.lane(lane);
                kept.retain(|kept| kept.since.elapsed() < IDLE);
                let place = kept.iter().rposition(|kept| kept.origin == origin)?;
                kept.remove(place).link
            };
            if link.is_usable().await {
                return Some(link);
            }
        }
    }

    fn keep(&self, lane: Lane, origin: String, link: Link) {
        let mut kept = self.lane(lane);
        if kept.len() >= MAX_IDLE {
            kept.remove(0);
        }
        kept.push(Kept {
            origin,
            link,
            since: Instant::now(),
        });
    }

    fn lane(&self, lane: Lane) -> MutexGuard<'_, Vec<Kept>> {
        let lane = match lane {
            Lane::Poll => &self.polls,
            Lane::Call => &self.calls,
        };
        // A list of connections is whole at any time.
        lane.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long a connection may rest before it is replaced instead of used: shorter than servers keep
/// theirs, because a call that meets such a close fails.
const IDLE: Duration = Duration::from_secs(15);

/// How many connections each lane keeps at rest. More at a time are opened when needed, and closed
/// after use.
const MAX_IDLE: usize = 32;
