//! The blocking client on threads of its own: works on every runtime, pulls in none.

mod connect;
mod exchange;
mod redact;
#[cfg(all(test, feature = "test-util"))]
mod tests;
mod threads;

use std::{fmt, sync::Arc};

use self::{
    exchange::Settings,
    threads::{Bounds, Threads},
};
use super::{ClientOptions, HttpClient, HttpError, HttpRequest, HttpResponse, Lane, dns::Dns};

/// An [`HttpClient`] on `ureq`, for any runtime and for none.
///
/// Cloning is cheap, and clones share threads and connections. Threads are started on demand and
/// end after 15 s without work, or with the last clone.
///
/// - [`Lane::Poll`]: every poll has a thread, with a connection of its own. There are as many as
///   there are polls at a time: one for each bot that shares the client. Each keeps the memory of its
///   last two large answers, at most 512 KB.
/// - [`Lane::Call`]: each call has a thread while it runs, with a connection of its own. Up to 16 are
///   started at once; at 50 ms a call they send 320 messages a second, ten times what the Bot API
///   allows. More are started while calls wait for longer than 100 ms, up to
///   [`threads`](ClientOptions::threads). The wait has a limit, [`ClientOptions::max_wait`], and
///   [`waiting`](Self::waiting) tells how many wait.
///
/// Proxies named by environment variables are not used, unless
/// [`ClientOptions::proxy_from_env`] says so, and cookies are not kept.
///
/// A name is looked up for a new connection only, on a thread of its own, at most once at a time. An
/// answer is used for 30 s. While the resolver does not answer, the last good answer is used for up to a
/// day. If an address does not answer within 250 ms, the next one is tried as well, and the one that
/// worked comes first from then on.
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
/// `ureq` logs through the `log` crate, at level `trace` every byte of an answer as well. It never
/// learns the path of a URL, and with it the token: that is put in where the request is written to
/// the connection. Only a server that quotes the token back, in a redirect or an error page, makes
/// it show there.
#[derive(Clone)]
pub struct UreqClient {
    polls: Arc<Threads>,
    calls: Arc<Threads>,
}

impl UreqClient {
    /// A client with the default [`ClientOptions`]. Starts no thread yet.
    #[must_use]
    pub fn new() -> Self {
        Self::with_options(ClientOptions::default())
    }

    /// A client with these options. Starts no thread yet.
    #[must_use]
    pub fn with_options(options: ClientOptions) -> Self {
        Self::with_dns(options, Dns::system())
    }

    pub(in crate::client) fn with_dns(options: ClientOptions, dns: Dns) -> Self {
        let polls = Bounds {
            at_once: usize::MAX,
            most: usize::MAX,
            patience: options.max_wait,
        };
        let most = options.threads.get();
        let calls = Bounds {
            at_once: most.min(AT_ONCE),
            most,
            ..polls
        };
        let settings = Arc::new(Settings::new(options, dns));
        Self {
            polls: Arc::new(Threads::new("poll", polls, Arc::clone(&settings))),
            calls: Arc::new(Threads::new("call", calls, settings)),
        }
    }

    /// How many calls wait for a thread now. Above zero for long, [`ClientOptions::threads`] is too
    /// low for what the bot sends.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.calls.waiting()
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

/// How many threads for calls are started without waiting for a free one.
const AT_ONCE: usize = 16;

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
