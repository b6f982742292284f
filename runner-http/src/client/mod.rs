//! What the Bot API needs from an HTTP client: one POST, one answer.
//!
//! No redirects, no retries, no cookies: all that the runner must decide stays visible to it. Knows neither JSON nor what the Bot API means by a status.

#[cfg(any(feature = "hyper", feature = "ureq"))]
mod buffers;
#[cfg(any(feature = "hyper", feature = "ureq"))]
mod dns;
#[cfg(any(feature = "hyper", feature = "ureq"))]
mod gunzip;
#[cfg(feature = "hyper")]
mod hyper;
#[cfg(any(feature = "hyper", feature = "ureq"))]
mod options;
#[cfg(any(feature = "hyper", feature = "ureq"))]
mod proxy;
#[cfg(any(feature = "hyper", feature = "ureq"))]
mod target;
#[cfg(all(test, feature = "hyper", feature = "test-util", feature = "ureq"))]
mod tests;
#[cfg(feature = "ureq")]
mod ureq;

use std::{error::Error, fmt};

use bytes::Bytes;
use runner_core::BoxError;

#[cfg(feature = "hyper")]
pub use self::hyper::HyperClient;
#[cfg(any(feature = "hyper", feature = "ureq"))]
pub use self::options::{CertificateError, ClientOptions};
#[cfg(any(feature = "hyper", feature = "ureq"))]
pub use self::proxy::{Proxy, ProxyError};
#[cfg(feature = "ureq")]
pub use self::ureq::UreqClient;
pub(crate) use crate::Limits;

/// Sends requests to the Bot API.
///
/// Implement it to use an HTTP client of your own; `testing::conformance` (feature `test-util`)
/// checks an implementation.
///
/// # Contract
///
/// - Every HTTP status is an answer, not an error: the body of a 429 says how long to wait.
/// - Redirects are not followed: the answer is returned as it is.
/// - Nothing is retried, with one exception: a kept-alive connection that was closed before the
///   first byte of the answer may be replaced once, at once.
/// - `gzip` answers are decoded, in whatever case the encoding is named. If the body of an answer that is
///   no success (2xx) cannot be decoded, it is empty: the status and `Retry-After` still count.
/// - [`Lane::Poll`] has connections of its own: a flood of calls never delays a poll.
/// - Calls that the server holds keep no other call waiting for more than a few seconds.
/// - The [`Limits`] of time and [`Limits::max_body`] are enforced; the others are not its business.
/// - The URL never appears in an error or in `Debug`: it contains the token.
///
/// # Cancel safety
///
/// Dropping the future ends the request within 50 ms: the connection is closed, and neither a
/// thread nor a place in a pool is held any longer. What a client cannot cut, such as a name
/// look-up, its documentation names; [`Limits::connect`] bounds it.
pub trait HttpClient: fmt::Debug + Send + Sync + 'static {
    /// Sends one POST with a JSON body and reads the whole answer.
    ///
    /// # Errors
    ///
    /// [`HttpError`] if no complete answer was received.
    fn send(
        &self,
        request: HttpRequest,
    ) -> impl Future<Output = Result<HttpResponse, HttpError>> + Send;
}

/// One POST.
#[derive(Clone)]
#[non_exhaustive]
pub struct HttpRequest {
    /// Where to; it contains the token, so never log it.
    pub url: String,
    /// JSON.
    pub body: Bytes,
    /// What kind of request this is.
    pub lane: Lane,
    /// How long its parts may take, and how large its answer may be.
    pub limits: Limits,
}

impl HttpRequest {
    /// A request in [`Lane::Call`] with the default limits.
    pub fn new(url: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self {
            url: url.into(),
            body: body.into(),
            lane: Lane::Call,
            limits: Limits::default(),
        }
    }
}

impl fmt::Debug for HttpRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpRequest")
            .field("lane", &self.lane)
            .field("limits", &self.limits)
            .field("body", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// Which connections a request uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// The poll for updates: one at a time, waits for long.
    Poll,
    /// A method call from a handler: many at a time, short.
    Call,
}

/// One complete answer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HttpResponse {
    /// The HTTP status.
    pub status: u16,
    /// The `Retry-After` header as it was sent.
    pub retry_after: Option<String>,
    /// The body, decompressed.
    pub body: Bytes,
}

impl HttpResponse {
    /// An answer without a `Retry-After`.
    pub fn new(status: u16, body: impl Into<Bytes>) -> Self {
        Self {
            status,
            retry_after: None,
            body: body.into(),
        }
    }
}

/// Why no complete answer was received.
#[derive(Debug)]
pub struct HttpError {
    kind: HttpErrorKind,
    source: Option<BoxError>,
}

/// What kind of failure an [`HttpError`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HttpErrorKind {
    /// The name was not resolved, or no connection was made, also because a proxy refused to make it.
    Connect,
    /// The TLS handshake failed.
    Tls,
    /// Name resolution, connecting or a handshake took longer than [`Limits::connect`].
    ConnectTimeout,
    /// No answer began within [`Limits::answer`].
    AnswerTimeout,
    /// The body was not complete within [`Limits::body`].
    BodyTimeout,
    /// The connection ended before the answer was complete.
    Closed,
    /// What was received is not HTTP, or its body is not what its head says.
    Malformed,
    /// The body is larger than [`Limits::max_body`].
    TooLarge,
    /// The URL cannot be used.
    InvalidUrl,
    /// All threads or connections of the client were in use for too long. Nothing was sent.
    Busy,
    /// The client has been shut down, or could not start what it needs.
    Unavailable,
}

impl HttpError {
    /// An error of this kind without a cause.
    #[must_use]
    pub const fn new(kind: HttpErrorKind) -> Self {
        Self { kind, source: None }
    }

    /// Adds the cause. It must not contain the URL.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What kind of failure it is.
    #[must_use]
    pub const fn kind(&self) -> HttpErrorKind {
        self.kind
    }

    /// Whether the process has as many files and sockets open as it may.
    #[cfg(any(feature = "hyper", feature = "ureq"))]
    fn is_out_of_descriptors(&self) -> bool {
        // ENFILE and EMFILE, and what Windows calls the latter.
        const CODES: [i32; 3] = [23, 24, 10024];
        // Another one may stand in front of it: that it was a proxy that was connected to.
        let mut chain = std::iter::successors(Error::source(self), |error| (*error).source());
        let error = chain.find_map(|error| error.downcast_ref::<std::io::Error>());
        let code = error.and_then(std::io::Error::raw_os_error);
        code.is_some_and(|code| CODES.contains(&code))
    }

    /// Whether a part of the request may have reached the server.
    #[must_use]
    pub const fn may_have_been_sent(&self) -> bool {
        !matches!(
            self.kind,
            HttpErrorKind::Connect
                | HttpErrorKind::ConnectTimeout
                | HttpErrorKind::Tls
                | HttpErrorKind::InvalidUrl
                | HttpErrorKind::Busy
        )
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            HttpErrorKind::Connect => "cannot connect to the Bot API server",
            HttpErrorKind::Tls => {
                "the TLS handshake with the Bot API server failed; for a certificate that is not \
                 signed for the public, see ClientOptions::root_certificates"
            }
            HttpErrorKind::ConnectTimeout => "connecting to the Bot API server took too long",
            HttpErrorKind::AnswerTimeout => "the Bot API server did not answer in time",
            HttpErrorKind::BodyTimeout => "the answer was not complete in time",
            HttpErrorKind::Closed => "the connection was closed before the answer was complete",
            HttpErrorKind::Malformed => "the answer is not valid HTTP",
            HttpErrorKind::TooLarge => "the answer is larger than Limits::max_body allows",
            HttpErrorKind::InvalidUrl => "the URL of the Bot API server is not valid",
            HttpErrorKind::Busy => "the HTTP client was busy with other calls for too long",
            HttpErrorKind::Unavailable => "the HTTP client is not available",
        })
    }
}

impl Error for HttpError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
