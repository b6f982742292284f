//! One exchange on a blocking thread, and what its failures mean.

use std::{
    io::{self, Read},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use ureq::{
    Agent, Error, Timeout,
    http::{HeaderMap, Request, Uri, header},
    tls::{Certificate, RootCerts, TlsConfig},
    unversioned::transport::RustlsConnector,
};

use super::{
    connect::{NoResolver, NotConnected, TcpTls},
    redact::{HiddenPath, RedactingConnector},
};
use crate::{
    Limits,
    client::{
        ClientOptions, HttpError, HttpErrorKind, HttpRequest, HttpResponse, Lane,
        buffers::BufferPool,
        dns::Dns,
        gunzip::{Gunzip, is_gzip},
        proxy::{ProxyFailure, Route},
        target::{Target, header_text},
    },
};

/// Sets the deadlines of ureq, none of which is set by default. A macro, because its builders for
/// agents and for requests have no public trait in common.
///
/// A request is small enough for the buffers of the socket, so sending it takes no time unless the
/// peer has stopped reading: the bound on that is there for completeness.
macro_rules! limit {
    ($builder:expr, $limits:expr) => {{
        let limits: Limits = $limits;
        $builder
            .timeout_connect(Some(limits.connect))
            .timeout_send_request(Some(limits.answer))
            .timeout_send_body(Some(limits.answer))
            .timeout_recv_response(Some(limits.answer))
            .timeout_recv_body(Some(limits.body))
    }};
}
/// What all agents of a client have in common.
pub(super) struct Settings {
    user_agent: String,
    tls: TlsConfig,
    /// Shared by all threads, so that the roots are read once and TLS sessions are resumed.
    connector: Arc<RustlsConnector>,
    route: Route,
    dns: Dns,
}

impl Settings {
    pub(super) fn new(options: ClientOptions, dns: Dns) -> Self {
        let roots = options
            .roots
            .iter()
            .map(|der| Certificate::from_der(der).to_owned())
            .collect::<Vec<_>>();
        let roots = if roots.is_empty() {
            RootCerts::WebPki
        } else {
            RootCerts::new_with_certs(&roots)
        };
        Self {
            user_agent: header_text(&options.user_agent),
            tls: TlsConfig::builder().root_certs(roots).build(),
            connector: Arc::default(),
            route: options.route,
            dns,
        }
    }
}

/// Performs one exchange after the other, on connections of its own.
pub(super) struct Exchanger {
    agent: Agent,
    hidden: HiddenPath,
    /// Where the last exchange went, and when it ended, if its connection was kept.
    kept: Option<(String, Instant)>,
    buffers: BufferPool,
}

impl Exchanger {
    pub(super) fn new(settings: &Settings) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .user_agent(settings.user_agent.as_str())
            .tls_config(settings.tls.clone())
            .max_idle_connections_per_host(1)
            .max_idle_connections(MAX_HOSTS)
            .max_idle_age(IDLE);
        let connector = TcpTls {
            route: settings.route.clone(),
            dns: settings.dns.clone(),
            tls: Arc::clone(&settings.connector),
        };
        let hidden = HiddenPath::default();
        Self {
            agent: Agent::with_parts(
                limit!(config, Limits::default()).build(),
                RedactingConnector::new(connector, hidden.clone()),
                NoResolver,
            ),
            hidden,
            kept: None,
            buffers: BufferPool::default(),
        }
    }

    /// What ends the exchange in progress when it is shut down.
    pub(super) fn agent(&self) -> Agent {
        self.agent.clone()
    }

    pub(super) fn perform(&mut self, request: &HttpRequest) -> Result<HttpResponse, HttpError> {
        let target = Target::new(&request.url)?;
        let limits = request.limits;
        let is_reused = self
            .kept
            .take()
            .is_some_and(|(kept, since)| kept == target.origin && since.elapsed() < IDLE);

        let mut outcome = self.exchange(&target.uri, limits, &request.body);
        // The connection that failed is gone, so this makes a new one. A call is not repeated: the
        // server may have received it, and nobody wants a message twice.
        if is_reused
            && request.lane == Lane::Poll
            && matches!(&outcome, Err(failure) if failure.is_stale())
        {
            outcome = self.exchange(&target.uri, limits, &request.body);
        }
        let Received {
            mut response,
            keeps,
            is_gzip,
        } = outcome.map_err(|failure| failure.into_error(&target))?;
        if is_gzip {
            let mut body = Gunzip::new(true, response.status, Vec::new(), limits.max_body);
            body.push(&response.body)?;
            response.body = body.finish()?;
        }
        if keeps {
            self.kept = Some((target.origin, Instant::now()));
        }
        if request.lane == Lane::Poll {
            self.buffers.keep(&response.body);
        }
        Ok(response)
    }

    fn exchange(&mut self, uri: &Uri, limits: Limits, body: &[u8]) -> Result<Received, Failure> {
        let before_head = |error| Failure {
            error,
            has_head: false,
        };
        let redacted = self.hidden.hide(uri).map_err(before_head)?;
        let request = Request::post(redacted)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT_ENCODING, "gzip")
            .body(body)
            .map_err(|error| before_head(error.into()))?;
        let request = if limits == Limits::default() {
            request
        } else {
            limit!(self.agent.configure_request(request), limits).build()
        };
        let response = self.agent.run(request).map_err(before_head)?;

        let (head, body) = response.into_parts();
        // One more than there should be, so that the end is noticed without growing.
        let room = body.content_length().unwrap_or(0).saturating_add(1);
        let mut content = self.buffers.take(room);
        let mut body = body
            .into_with_config()
            .limit(u64::try_from(limits.max_body).unwrap_or(u64::MAX))
            .reader();
        let mut keeps = text(&head.headers, header::CONNECTION)
            .is_none_or(|value| !value.eq_ignore_ascii_case("close"));
        if let Err(error) = read(&mut body, &mut content) {
            let failure = Failure {
                error: error.into(),
                has_head: true,
            };
            // Where another crate has switched the decompression of `ureq` on.
            if head.status.is_success() || failure.kind() != HttpErrorKind::Malformed {
                return Err(failure);
            }
            content.clear();
            keeps = false;
        }
        let mut response = HttpResponse::new(head.status.as_u16(), Bytes::from(content));
        response.retry_after = text(&head.headers, header::RETRY_AFTER);
        let encoding = head.headers.get(header::CONTENT_ENCODING);
        Ok(Received {
            response,
            keeps,
            is_gzip: is_gzip(encoding.map(|value| value.as_bytes())),
        })
    }
}

struct Received {
    response: HttpResponse,
    /// Whether the connection may be used again.
    keeps: bool,
    /// Whether the body is compressed.
    is_gzip: bool,
}

/// Reads all of a body, over what is left in this memory.
///
/// `read_to_end` would fill all of it with zeros first, and ask `ureq` for small pieces.
fn read(body: &mut impl Read, content: &mut Vec<u8>) -> io::Result<()> {
    content.resize(content.capacity(), 0);
    let mut length = 0;
    loop {
        if length == content.len() {
            content.resize((2 * length).max(LEAST), 0);
        }
        match body.read(&mut content[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    content.truncate(length);
    Ok(())
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<String> {
    let value = headers.get(name)?;
    Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
}

struct Failure {
    error: Error,
    has_head: bool,
}

impl Failure {
    /// Whether a reused connection may simply have been closed by the server in the meantime.
    fn is_stale(&self) -> bool {
        !self.has_head && self.kind() == HttpErrorKind::Closed
    }

    fn kind(&self) -> HttpErrorKind {
        match &self.error {
            Error::Other(error) if let Some(error) = error.downcast_ref::<NotConnected>() => {
                error.kind
            }
            Error::BadUri(_) | Error::Http(_) => HttpErrorKind::InvalidUrl,
            Error::Timeout(Timeout::RecvBody) => HttpErrorKind::BodyTimeout,
            Error::Timeout(_) => HttpErrorKind::AnswerTimeout,
            // The roots are read with the first connection.
            Error::Tls(_) | Error::Rustls(_) | Error::Pem(_) | Error::TlsRequired => {
                HttpErrorKind::Tls
            }
            Error::BodyExceedsLimit(_) => HttpErrorKind::TooLarge,
            Error::BodyStalled => HttpErrorKind::Closed,
            Error::Io(error) => match error.kind() {
                io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::NotConnected => HttpErrorKind::Closed,
                // How rustls, and what decompresses, report what they do not accept.
                io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
                    HttpErrorKind::Malformed
                }
                _ if self.has_head => HttpErrorKind::Malformed,
                // The system gave the connection up.
                _ => HttpErrorKind::Closed,
            },
            _ => HttpErrorKind::Malformed,
        }
    }

    fn into_error(self, target: &Target) -> HttpError {
        let kind = self.kind();
        match self.error {
            Error::Other(error) if error.is::<NotConnected>() => {
                let cause = error.downcast::<NotConnected>().ok();
                match cause.and_then(|cause| cause.source) {
                    // Only what the system says, or what a proxy did.
                    Some(source) if source.is::<io::Error>() || source.is::<ProxyFailure>() => {
                        HttpError::new(kind).with_source(source)
                    }
                    Some(source) => target.explain(kind, source),
                    None => HttpError::new(kind),
                }
            }
            // These hold the URL, or what was made of it.
            Error::BadUri(_) | Error::Http(_) | Error::Other(_) => HttpError::new(kind),
            // Only what the system says.
            Error::Io(cause) if cause.raw_os_error().is_some() => {
                HttpError::new(kind).with_source(cause)
            }
            other => target.explain(kind, other),
        }
    }
}

/// How long a connection may rest before it is replaced instead of used: shorter than servers keep
/// theirs, because a call that meets such a close fails.
pub(super) const IDLE: Duration = Duration::from_secs(15);

/// Room for a body of unknown length, to begin with.
const LEAST: usize = 1 << 10;

/// For how many servers a thread keeps a connection. Most clients have one.
const MAX_HOSTS: usize = 4;
