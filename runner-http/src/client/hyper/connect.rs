//! From a URL to a connection that speaks HTTP.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use async_io::Async;
use futures::{
    channel::oneshot,
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    stream::{FuturesUnordered, StreamExt},
};
use futures_rustls::{
    TlsConnector,
    pki_types::{CertificateDer, ServerName},
    rustls::{ClientConfig, RootCertStore, crypto::ring},
};
use hyper::{
    client::conn::http1,
    rt::{Read, ReadBufCursor, Write},
};

use super::{deadline::Deadline, exchange::Link};
use crate::client::{
    HttpError, HttpErrorKind, Limits,
    dns::{Dns, STAGGER},
    proxy::{Handshake, ProxyFailure, Route, Step},
    target::{Target, host_and_port},
};

/// Opens connections.
pub(super) struct Connector {
    tls: TlsConnector,
    route: Route,
    dns: Dns,
}

impl Connector {
    /// Trusts these certificates, or those of Mozilla if there are none.
    pub(super) fn new(trusted: &[CertificateDer<'static>], route: Route, dns: Dns) -> Self {
        let mut roots = RootCertStore::empty();
        if trusted.is_empty() {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        } else {
            // They were checked when the options were made.
            roots.add_parsable_certificates(trusted.iter().cloned());
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring supports the default versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            tls: TlsConnector::from(Arc::new(config)),
            route,
            dns,
        }
    }

    pub(super) async fn connect(
        &self,
        target: &Target,
        limits: &Limits,
    ) -> Result<Link, HttpError> {
        let timeout = || HttpError::new(HttpErrorKind::ConnectTimeout);
        let limit = limits.connect;
        let mut deadline = Deadline::default();
        let (host, port) = host_and_port(&target.uri);
        let proxy = self.route.proxy(target.is_secure(), host, port);
        let stream = match proxy {
            None => {
                let stream = self.tcp(host, port, limit, &mut deadline).await;
                stream.map_err(|error| match error {
                    Some(error) => HttpError::new(HttpErrorKind::Connect).with_source(error),
                    None => timeout(),
                })?
            }
            Some(proxy) => {
                let (its_host, its_port) = proxy.address();
                let stream = self.tcp(its_host, its_port, limit, &mut deadline).await;
                let mut stream =
                    stream.map_err(|error| ProxyFailure::Unreachable(error).into_error())?;
                let handshake = shake_hands(&mut stream, Handshake::new(proxy, host, port));
                let outcome = deadline.within(limit, handshake).await;
                let outcome = outcome.unwrap_or(Err(ProxyFailure::Timeout));
                outcome.map_err(ProxyFailure::into_error)?;
                stream
            }
        };

        let stream: Box<dyn Stream> = if target.is_secure() {
            let name = ServerName::try_from(host.to_owned())
                .map_err(|_| HttpError::new(HttpErrorKind::InvalidUrl))?;
            let handshake = self.tls.connect(name, stream);
            let handshake = deadline.within(limit, handshake).await;
            Box::new(handshake.ok_or_else(timeout)?.map_err(|error| {
                let kind = match error.kind() {
                    io::ErrorKind::InvalidData => HttpErrorKind::Tls,
                    _ => HttpErrorKind::Closed,
                };
                target.explain(kind, error)
            })?)
        } else {
            Box::new(stream)
        };
        let received = Arc::new(AtomicUsize::new(0));
        let io = Io {
            stream,
            buffer: vec![0; BUFFER].into(),
            received: Arc::clone(&received),
        };
        let (sender, connection) = http1::handshake(io)
            .await
            .map_err(|error| target.explain(HttpErrorKind::Closed, error))?;
        Ok(Link::new(sender, connection, received))
    }

    /// Connects to a server or to a proxy. The error is `None` if the limit is over.
    async fn tcp(
        &self,
        host: &str,
        port: u16,
        limit: Duration,
        deadline: &mut Deadline,
    ) -> Result<Async<TcpStream>, Option<io::Error>> {
        let (sender, answer) = oneshot::channel();
        let lookup = self.dns.look_up(host, port, move |answer| {
            // Nobody waits any more if the limit is over.
            let _ = sender.send(answer);
        });
        let answer = match lookup.patience(limit) {
            Some(patience) => deadline.within(patience, answer).await,
            None => None,
        };
        let addresses = lookup.finish(answer.and_then(Result::ok));
        let addresses = addresses.ok_or(None)?.map_err(Some)?;
        let stream = deadline.within(limit, race(addresses)).await;
        if !matches!(stream, Some(Ok(_))) {
            self.dns.failed(host, port);
        }
        let (stream, address) = stream.ok_or(None)?.map_err(Some)?;
        self.dns.worked(host, port, address);
        // Requests are small and answered one by one; a failure only costs time.
        let _ = stream.get_ref().set_nodelay(true);
        Ok(stream)
    }
}

/// Lets the proxy connect to the server.
async fn shake_hands(
    stream: &mut Async<TcpStream>,
    mut handshake: Handshake<'_>,
) -> Result<(), ProxyFailure> {
    let mut buffer = [0; 64];
    loop {
        match handshake.step()? {
            Step::Send(message) => {
                let written = stream.write_all(&message).await;
                written.map_err(ProxyFailure::Broken)?;
            }
            Step::Receive(most) => {
                let room = most.min(buffer.len());
                let read = stream.read(&mut buffer[..room]).await;
                match read.map_err(ProxyFailure::Broken)? {
                    0 => return Err(ProxyFailure::Closed),
                    read => handshake.received(&buffer[..read]),
                }
            }
            Step::Done => return Ok(()),
        }
    }
}

/// Connects to the first address that answers. While one does not, the next one is tried as well.
async fn race(addresses: Vec<SocketAddr>) -> io::Result<(Async<TcpStream>, SocketAddr)> {
    let mut left = addresses.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut failure = io::Error::from(io::ErrorKind::NotFound);
    loop {
        if let Some(address) = left.next() {
            let attempt = Async::<TcpStream>::connect(address);
            attempts.push(async move { (attempt.await, address) });
        } else if attempts.is_empty() {
            return Err(failure);
        }
        let next = attempts.next();
        let outcome = if left.len() == 0 {
            Some(next.await)
        } else {
            Deadline::default().within(STAGGER, next).await
        };
        match outcome.flatten() {
            Some((Ok(stream), address)) => return Ok((stream, address)),
            Some((Err(error), _)) => failure = error,
            None => {}
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// What hyper reads from and writes to.
pub(super) struct Io {
    stream: Box<dyn Stream>,
    /// hyper reads into memory that is not initialised, async-io does not.
    buffer: Box<[u8]>,
    /// How many bytes were read since the connection was opened.
    received: Arc<AtomicUsize>,
}

impl Read for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let length = cursor.remaining().min(this.buffer.len());
        let buffer = &mut this.buffer[..length];
        let read = ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        this.received.fetch_add(read, Ordering::Relaxed);
        cursor.put_slice(&buffer[..read]);
        if read == this.buffer.len() && read < MAX_BUFFER {
            this.buffer = vec![0; read * 2].into();
        }
        Poll::Ready(Ok(()))
    }
}

impl Write for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_close(cx)
    }
}

/// How much is read at once to begin with. Each connection has a buffer of this size.
const BUFFER: usize = 8 << 10;

/// How much is read at once after large answers: a hundred updates of the usual size.
const MAX_BUFFER: usize = 128 << 10;
