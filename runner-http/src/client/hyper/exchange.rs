//! One exchange on a connection that it drives itself, and what its failures mean.

use std::{
    error::Error,
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Context,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response,
    body::{Body, Incoming},
    client::conn::http1::{Connection, SendRequest},
    header,
};

use super::{connect::Io, deadline::Deadline};
use crate::client::{
    HttpError, HttpErrorKind, HttpRequest, HttpResponse, Lane, Limits,
    buffers::BufferPool,
    gunzip::{Gunzip, is_gzip},
    target::Target,
};

/// One connection. Dropping it closes it.
pub(super) struct Link {
    sender: SendRequest<Full<Bytes>>,
    /// None once it has ended, because it must not be polled again.
    connection: Option<Connection<Io, Full<Bytes>>>,
    received: Arc<AtomicUsize>,
    deadline: Deadline,
    buffers: BufferPool,
}

impl Link {
    pub(super) fn new(
        sender: SendRequest<Full<Bytes>>,
        connection: Connection<Io, Full<Bytes>>,
        received: Arc<AtomicUsize>,
    ) -> Self {
        Self {
            sender,
            connection: Some(connection),
            received,
            deadline: Deadline::default(),
            buffers: BufferPool::default(),
        }
    }

    /// To be called after a call: the next one comes from another task. Polls come from the same, so
    /// their timer may stay.
    pub(super) fn rest(&mut self) {
        self.deadline.clear();
    }

    /// Whether it can carry another request, as far as this side knows. If so, `cx` is woken when
    /// something is received.
    pub(super) fn is_usable(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(connection) = &mut self.connection else {
            return false;
        };
        // It notices a close by the server, or bytes that nobody asked for.
        let is_open = Pin::new(connection).poll(cx).is_pending();
        if !is_open {
            self.connection = None;
        }
        is_open && !self.sender.is_closed()
    }

    pub(super) async fn exchange(
        &mut self,
        target: &Target,
        request: &HttpRequest,
        user_agent: &str,
    ) -> Result<HttpResponse, Failure> {
        let before = self.received.load(Ordering::Relaxed);
        let limits = &request.limits;
        let lane = request.lane;
        let request = prepare(target, request, user_agent)?;
        let received = Arc::clone(&self.received);

        let answer = drive(&mut self.connection, async {
            // A failure here is told by the attempt to send.
            let _ = self.sender.ready().await;
            self.sender.try_send_request(request).await
        });
        let response = self.deadline.within(limits.answer, answer).await;
        let response = response
            .ok_or_else(|| Failure::new(HttpErrorKind::AnswerTimeout))?
            .map_err(|failed| Failure {
                error: explain(target, failed.error()),
                is_unsent: failed.message().is_some(),
                is_unanswered: received.load(Ordering::Relaxed) == before,
            })?;
        let (head, body) = response.into_parts();
        let response = Response::from_parts(head, ());

        let body = drive(
            &mut self.connection,
            read(target, limits, &mut self.buffers, &response, body),
        );
        let body = self.deadline.within(limits.body, body).await;
        let body = body.ok_or_else(|| Failure::new(HttpErrorKind::BodyTimeout))??;
        if lane == Lane::Poll {
            self.buffers.keep(&body);
        }
        let mut answer = HttpResponse::new(response.status().as_u16(), body);
        answer.retry_after = response
            .headers()
            .get(header::RETRY_AFTER)
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        Ok(answer)
    }
}

/// Runs `exchange` and the connection under it until the exchange has an output.
async fn drive<F: Future>(
    connection: &mut Option<Connection<Io, Full<Bytes>>>,
    exchange: F,
) -> F::Output {
    let mut exchange = pin!(exchange);
    poll_fn(|cx| {
        if let Some(running) = connection
            && Pin::new(running).poll(cx).is_ready()
        {
            // All it has to say, its failure included, has been given to the exchange.
            *connection = None;
        }
        exchange.as_mut().poll(cx)
    })
    .await
}

fn prepare(
    target: &Target,
    request: &HttpRequest,
    user_agent: &str,
) -> Result<Request<Full<Bytes>>, Failure> {
    let path = target
        .uri
        .path_and_query()
        .map_or("/", |path| path.as_str());
    let host = target
        .uri
        .authority()
        .map_or("", |authority| authority.as_str());
    Request::post(path)
        // Without what could be a user name.
        .header(header::HOST, host.rsplit('@').next().unwrap_or_default())
        .header(header::USER_AGENT, user_agent)
        .header(header::ACCEPT, "*/*")
        .header(header::ACCEPT_ENCODING, "gzip")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(request.body.clone()))
        .map_err(|_| Failure::new(HttpErrorKind::InvalidUrl))
}

/// Reads the body up to the limit.
async fn read(
    target: &Target,
    limits: &Limits,
    buffers: &mut BufferPool,
    head: &Response<()>,
    mut body: Incoming,
) -> Result<Bytes, Failure> {
    let encoding = head.headers().get(header::CONTENT_ENCODING);
    let is_gzip = is_gzip(encoding.map(|value| value.as_bytes()));
    let room = buffers.take(body.size_hint().lower());
    let mut content = Gunzip::new(is_gzip, head.status().as_u16(), room, limits.max_body);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failure::from(explain(target, &error)))?;
        // Trailers mean nothing here.
        if let Ok(bytes) = frame.into_data() {
            content.push(&bytes)?;
        }
    }
    Ok(content.finish()?)
}

/// Why there is no answer, or no whole one.
pub(super) struct Failure {
    error: HttpError,
    is_unsent: bool,
    is_unanswered: bool,
}

impl Failure {
    fn new(kind: HttpErrorKind) -> Self {
        HttpError::new(kind).into()
    }

    /// Nothing of the request was written.
    pub(super) const fn is_unsent(&self) -> bool {
        self.is_unsent
    }

    /// The connection was closed before a byte of the answer.
    pub(super) const fn is_unanswered(&self) -> bool {
        self.is_unanswered && matches!(self.error.kind(), HttpErrorKind::Closed)
    }

    pub(super) fn into_error(self) -> HttpError {
        self.error
    }
}

impl From<HttpError> for Failure {
    fn from(error: HttpError) -> Self {
        Self {
            error,
            is_unsent: false,
            is_unanswered: false,
        }
    }
}

fn explain(target: &Target, error: &hyper::Error) -> HttpError {
    let cause = error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>());
    let kind = match cause.map(io::Error::kind) {
        // How both hyper and rustls report bytes that they do not understand.
        Some(io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput) => HttpErrorKind::Malformed,
        Some(_) => HttpErrorKind::Closed,
        None if error.is_parse() => HttpErrorKind::Malformed,
        None => HttpErrorKind::Closed,
    };
    match error.source() {
        Some(source) => target.explain(kind, format_args!("{error}: {source}")),
        None => target.explain(kind, error),
    }
}
