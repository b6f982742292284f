//! From a URL to a connection that speaks HTTP.

use std::{
    io,
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    thread,
    time::Duration,
};

use async_io::Async;
use futures::{
    channel::oneshot,
    io::{AsyncRead, AsyncWrite},
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
use crate::client::{HttpError, HttpErrorKind, Limits, target::Target};

/// Opens connections.
pub(super) struct Connector {
    tls: TlsConnector,
}

impl Connector {
    /// Trusts these certificates, or those of Mozilla if there are none.
    pub(super) fn new(root_certificates: &[Vec<u8>]) -> Self {
        let mut roots = RootCertStore::empty();
        if root_certificates.is_empty() {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        } else {
            // One that cannot be parsed is not trusted, so its servers are refused.
            roots.add_parsable_certificates(
                root_certificates
                    .iter()
                    .map(|der| CertificateDer::from(der.as_slice())),
            );
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring supports the default versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            tls: TlsConnector::from(Arc::new(config)),
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
        let addresses = deadline.within(limit, resolve(target)).await;
        let addresses = addresses.ok_or_else(timeout)?;
        let addresses = addresses.map_err(|e| target.explain(HttpErrorKind::Connect, e))?;
        let stream = deadline.within(limit, open(addresses)).await;
        let stream = stream.ok_or_else(timeout)?;
        let stream =
            stream.map_err(|error| HttpError::new(HttpErrorKind::Connect).with_source(error))?;
        // Requests are small and answered one by one; a failure only costs time.
        let _ = stream.get_ref().set_nodelay(true);

        let stream: Box<dyn Stream> = if target.is_secure() {
            let name = ServerName::try_from(target.host().to_owned())
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
}

/// Looks the name up on a thread of its own: there is no portable way that does not block.
async fn resolve(target: &Target) -> io::Result<Vec<SocketAddr>> {
    let default_port = if target.is_secure() { 443 } else { 80 };
    let port = target.uri.port_u16().unwrap_or(default_port);
    if let Some(address) = target.address() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let host = target.host().to_owned();
    let (sender, addresses) = oneshot::channel();
    thread::Builder::new()
        .name("runner-http-dns".to_owned())
        .spawn(move || {
            let addresses = (host, port).to_socket_addrs().map(Iterator::collect);
            // Nobody waits any more if the deadline is over.
            let _ = sender.send(addresses);
        })?;
    addresses.await.map_err(|_| io::ErrorKind::NotFound)?
}

/// Connects to the first address that answers.
async fn open(addresses: Vec<SocketAddr>) -> io::Result<Async<TcpStream>> {
    let mut failure = io::ErrorKind::NotFound.into();
    let mut left = addresses.len();
    for address in addresses {
        left -= 1;
        let connect = Async::<TcpStream>::connect(address);
        // The last one has all the time that is left; the others must not use it up.
        let outcome = if left == 0 {
            connect.await
        } else {
            Deadline::default()
                .within(PATIENCE, connect)
                .await
                .unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
        };
        match outcome {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
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

/// How long an address that does not answer keeps the next one from being tried.
const PATIENCE: Duration = Duration::from_secs(3);
