//! The blocking client on threads of its own: works on every runtime, pulls in none.

mod exchange;
mod lane;
#[cfg(all(test, feature = "test-util"))]
mod tests;

use std::{fmt, num::NonZeroUsize, sync::Arc};

use self::{exchange::Settings, lane::Threads};
use super::{HttpClient, HttpError, HttpRequest, HttpResponse, Lane};

/// An [`HttpClient`] on `ureq`, for any runtime and for none.
///
/// Cloning is cheap, and clones share threads and connections. Threads are started on demand and
/// end after 15 s without work, or with the last clone.
///
/// - [`Lane::Poll`]: every poll has a thread, with a connection of its own. There are as many as
///   there are polls at a time: one for each bot that shares the client.
/// - [`Lane::Call`]: at most [`threads`](UreqOptions::threads) calls at a time, each thread with a
///   connection of its own. Further calls wait; the wait is not part of any limit.
///
/// Proxies named by environment variables are not used, and cookies are not kept. A name is looked
/// up before every request, also if its connection is kept, on a thread that ends with the look-up:
/// `ureq` offers no other way to bound it. An IP address in the URL needs none.
///
/// # Cancel safety
///
/// A dropped future closes its connection at once, and the next call takes its place. What cannot
/// be cut is a name look-up or a TCP connect: the caller is freed all the same, but the thread ends
/// only with [`Limits::connect`](super::Limits::connect). Up to as many threads as the lane may
/// have are left to finish like this; beyond that a cancelled call keeps its place until it ends.
///
/// # Retries
///
/// A server may close a kept-alive connection in the moment in which it is used again. A poll is
/// then repeated once, at once, on a new connection: it has no effect that could happen twice. A
/// call is not, because nobody can tell whether the server has seen it, and a message would be sent
/// twice: it fails with [`HttpErrorKind::Closed`](super::HttpErrorKind::Closed). This is rare:
/// connections found closed before use are replaced, and none is used after 15 s of rest.
///
/// # Logging
///
/// `ureq` logs through the `log` crate. It hides the path of a URL, and with it the token, except
/// at level `trace`: keep its targets (`ureq`, `ureq_proto`) below that.
#[derive(Clone)]
pub struct UreqClient {
    polls: Arc<Threads>,
    calls: Arc<Threads>,
}

/// How a [`UreqClient`] works.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct UreqOptions {
    /// How many calls run at a time, each on a thread. Default: 16, which at 50 ms a call sends
    /// 320 messages a second, ten times what the Bot API allows.
    pub threads: NonZeroUsize,
    /// What the client calls itself, in printable ASCII: the rest is left out. Default: this crate
    /// and its version.
    pub user_agent: String,
    /// The certificates trusted as roots, in DER, instead of those of Mozilla: for a Bot API server
    /// of your own. One that cannot be parsed is not trusted. Default: none, so those of Mozilla
    /// are used.
    pub root_certificates: Vec<Vec<u8>>,
}

impl UreqOptions {
    /// Sets [`threads`](Self::threads).
    #[must_use]
    pub const fn threads(mut self, threads: NonZeroUsize) -> Self {
        self.threads = threads;
        self
    }

    /// Sets [`user_agent`](Self::user_agent).
    #[must_use]
    pub fn user_agent(mut self, user_agent: impl Into<String>) -> Self {
        self.user_agent = user_agent.into();
        self
    }

    /// Sets [`root_certificates`](Self::root_certificates).
    #[must_use]
    pub fn root_certificates(mut self, certificates: impl IntoIterator<Item = Vec<u8>>) -> Self {
        self.root_certificates = certificates.into_iter().collect();
        self
    }
}

impl Default for UreqOptions {
    fn default() -> Self {
        Self {
            threads: const { NonZeroUsize::new(16).unwrap() },
            user_agent: concat!("runner-http/", env!("CARGO_PKG_VERSION")).to_owned(),
            root_certificates: Vec::new(),
        }
    }
}

impl UreqClient {
    /// A client with the default [`UreqOptions`]. Starts no thread yet.
    #[must_use]
    pub fn new() -> Self {
        Self::with_options(UreqOptions::default())
    }

    /// A client with these options. Starts no thread yet.
    #[must_use]
    pub fn with_options(options: UreqOptions) -> Self {
        let threads = options.threads.get();
        let settings = Arc::new(Settings::new(options));
        Self {
            polls: Arc::new(Threads::new("poll", usize::MAX, Arc::clone(&settings))),
            calls: Arc::new(Threads::new("call", threads, settings)),
        }
    }
}

impl HttpClient for UreqClient {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let threads = match request.lane {
            Lane::Poll => &self.polls,
            Lane::Call => &self.calls,
        };
        threads.submit(request).await
    }
}

impl Default for UreqClient {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for UreqClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UreqClient")
            .field("polls", &self.polls)
            .field("calls", &self.calls)
            .finish()
    }
}
