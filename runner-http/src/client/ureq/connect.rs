//! From a URL to a connection of `ureq`: look-up, TCP and TLS.
//!
//! `ureq` looks a name up for every request, also if its connection is open, so its own resolver is
//! replaced by one that does nothing, and the connector looks up what it needs.

use std::{
    error::Error as StdError,
    fmt,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{Arc, Weak, mpsc},
    thread,
    time::{Duration, Instant},
};

use ureq::{
    Error, Timeout,
    config::Config,
    http::Uri,
    unversioned::{
        resolver::{ResolvedSocketAddrs, Resolver},
        transport::{
            Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, RustlsConnector,
            ShutdownHandle, Transport,
        },
    },
};

use crate::client::{
    HttpErrorKind,
    dns::{Dns, STAGGER},
    proxy::{Handshake, ProxyFailure, Route, Step},
    target::{host_and_port, is_secure},
};

/// Finds nothing: the connector does, if a connection has to be made.
#[derive(Debug)]
pub(super) struct NoResolver;

impl Resolver for NoResolver {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        Ok(self.empty())
    }
}

/// Why no connection was made. Nothing of a request was sent.
#[derive(Debug)]
pub(super) struct NotConnected {
    pub(super) kind: HttpErrorKind,
    pub(super) source: Option<Box<dyn StdError + Send + Sync>>,
}

impl NotConnected {
    fn new(kind: HttpErrorKind, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self {
            kind,
            source: Some(source.into()),
        }
    }

    /// As `ureq` hands it through.
    fn wrapped(self) -> Error {
        Error::Other(Box::new(self))
    }
}

impl From<ProxyFailure> for NotConnected {
    fn from(failure: ProxyFailure) -> Self {
        Self::new(failure.kind(), failure)
    }
}

impl fmt::Display for NotConnected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no connection was made")
    }
}

impl StdError for NotConnected {}

/// Makes connections.
#[derive(Debug)]
pub(super) struct TcpTls {
    pub(super) route: Route,
    pub(super) dns: Dns,
    pub(super) tls: Arc<RustlsConnector>,
}

impl Connector for TcpTls {
    type Out = Box<dyn Transport>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _: Option<()>,
    ) -> Result<Option<Self::Out>, Error> {
        let limit = *details.timeout.after;
        let (host, port) = host_and_port(details.uri);
        let proxy = self.route.proxy(is_secure(details.uri), host, port);
        let stream = match proxy {
            None => self.tcp(host, port, limit).map_err(|error| match error {
                Some(error) => NotConnected::new(HttpErrorKind::Connect, error),
                None => NotConnected {
                    kind: HttpErrorKind::ConnectTimeout,
                    source: None,
                },
            }),
            Some(proxy) => {
                let (host, port) = proxy.address();
                let stream = self.tcp(host, port, limit);
                stream.map_err(|error| ProxyFailure::Unreachable(error).into())
            }
        };
        let stream = stream.map_err(NotConnected::wrapped)?;
        let stream = Arc::new(stream);
        let handle: Arc<dyn ShutdownHandle> = stream.clone();
        let handle: Weak<dyn ShutdownHandle> = Arc::downgrade(&handle);
        (details.register_shutdown)(handle)?;
        // Behind that, because a cancel shuts the connection down.
        if let Some(proxy) = proxy {
            let outcome = shake_hands(&stream, Handshake::new(proxy, host, port), limit);
            outcome.map_err(|failure| NotConnected::from(failure).wrapped())?;
        }
        let config = details.config;
        let tcp = Tcp {
            stream,
            buffers: LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size()),
            read_timeout: None,
            write_timeout: None,
        };
        // Each step has the whole limit.
        let details = ConnectionDetails {
            uri: details.uri,
            addrs: details.resolver.empty(),
            config,
            // What concerns TLS is the same for all requests.
            request_level: false,
            resolver: details.resolver,
            now: (details.current_time)(),
            timeout: details.timeout,
            current_time: details.current_time.clone(),
            run_connector: details.run_connector.clone(),
            register_shutdown: details.register_shutdown.clone(),
        };
        let transport = self.tls.connect(&details, Some(tcp)).map_err(|error| {
            let kind = match &error {
                Error::Timeout(_) => HttpErrorKind::ConnectTimeout,
                Error::Io(error) if error.kind() != io::ErrorKind::InvalidData => {
                    HttpErrorKind::Closed
                }
                _ => HttpErrorKind::Tls,
            };
            NotConnected::new(kind, error).wrapped()
        })?;
        Ok(transport.map(|transport| Box::new(transport) as Self::Out))
    }
}

impl TcpTls {
    /// Connects to a server or to a proxy. The error is `None` if the limit is over.
    fn tcp(&self, host: &str, port: u16, limit: Duration) -> Result<TcpStream, Option<io::Error>> {
        let (sender, answers) = mpsc::channel();
        let lookup = self.dns.look_up(host, port, move |answer| {
            // Nobody waits any more if the limit is over.
            let _ = sender.send(answer);
        });
        let patience = lookup.patience(limit);
        let answer = patience.and_then(|patience| answers.recv_timeout(patience).ok());
        let addresses = lookup.finish(answer).ok_or(None)?.map_err(Some)?;
        let (stream, address) = race(&addresses, limit).map_err(|error| {
            self.dns.failed(host, port);
            (error.kind() != io::ErrorKind::TimedOut).then_some(error)
        })?;
        self.dns.worked(host, port, address);
        // Requests are small and answered one by one; a failure only costs time.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }
}

/// Connects to the first address that answers. While one does not, the next one is tried as well.
fn race(addresses: &[SocketAddr], limit: Duration) -> io::Result<(TcpStream, SocketAddr)> {
    if limit.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    if let [address] = *addresses {
        return Ok((TcpStream::connect_timeout(&address, limit)?, address));
    }
    let began = Instant::now();
    let (sender, outcomes) = mpsc::channel();
    let mut left = addresses.iter().copied();
    let mut running = 0_usize;
    let mut failure = io::Error::from(io::ErrorKind::NotFound);
    loop {
        let rest = limit.saturating_sub(began.elapsed());
        if rest.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        if let Some(address) = left.next() {
            let sender = sender.clone();
            let attempt = move || {
                // If another one was faster, this connection is closed.
                let _ = sender.send((address, TcpStream::connect_timeout(&address, rest)));
            };
            let thread = thread::Builder::new().name("runner-http-connect".to_owned());
            thread.spawn(attempt)?;
            running += 1;
        } else if running == 0 {
            return Err(failure);
        }
        let patience = if left.len() == 0 {
            rest
        } else {
            rest.min(STAGGER)
        };
        match outcomes.recv_timeout(patience) {
            Ok((address, Ok(stream))) => return Ok((stream, address)),
            Ok((_, Err(error))) => {
                running -= 1;
                failure = error;
            }
            Err(_) => {}
        }
    }
}

/// Lets the proxy connect to the server.
fn shake_hands(
    mut stream: &TcpStream,
    mut handshake: Handshake<'_>,
    limit: Duration,
) -> Result<(), ProxyFailure> {
    let began = Instant::now();
    let rest = || match limit.saturating_sub(began.elapsed()) {
        Duration::ZERO => Err(ProxyFailure::Timeout),
        rest => Ok(Some(rest)),
    };
    let broken = |error: io::Error| match error.kind() {
        // What a blocking socket reports depends on the system.
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ProxyFailure::Timeout,
        _ => ProxyFailure::Broken(error),
    };
    let mut buffer = [0; 64];
    loop {
        match handshake.step()? {
            Step::Send(message) => {
                set(stream.set_write_timeout(rest()?)).map_err(broken)?;
                stream.write_all(&message).map_err(broken)?;
            }
            Step::Receive(most) => {
                let room = most.min(buffer.len());
                set(stream.set_read_timeout(rest()?)).map_err(broken)?;
                match stream.read(&mut buffer[..room]) {
                    Ok(0) => return Err(ProxyFailure::Closed),
                    Ok(read) => handshake.received(&buffer[..read]),
                    // By a signal.
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(broken(error)),
                }
            }
            Step::Done => break,
        }
    }
    set(stream.set_read_timeout(None)).map_err(broken)?;
    set(stream.set_write_timeout(None)).map_err(broken)
}

/// A connection without encryption.
#[derive(Debug)]
struct Tcp {
    /// Shared with what shuts it down.
    stream: Arc<TcpStream>,
    buffers: LazyBuffers,
    /// What the socket is set to: a system call less for most requests.
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
}

impl Transport for Tcp {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let limit = limit(timeout)?;
        if limit != self.write_timeout {
            set(self.stream.set_write_timeout(limit))?;
            self.write_timeout = limit;
        }
        let output = &self.buffers.output()[..amount];
        (&*self.stream)
            .write_all(output)
            .map_err(|error| explain(error, timeout.reason))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let began = Instant::now();
        let limit = limit(timeout)?;
        let mut rest = limit;
        let read = loop {
            if rest == Some(Duration::ZERO) {
                return Err(Error::Timeout(timeout.reason));
            }
            if rest != self.read_timeout {
                set(self.stream.set_read_timeout(rest))?;
                self.read_timeout = rest;
            }
            match (&*self.stream).read(self.buffers.input_append_buf()) {
                // By a signal, which does not make the time longer.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    rest = limit.map(|limit| limit.saturating_sub(began.elapsed()));
                }
                outcome => break outcome.map_err(|error| explain(error, timeout.reason))?,
            }
        };
        self.buffers.input_appended(read);
        Ok(read > 0)
    }

    fn is_open(&mut self) -> bool {
        // There should be nothing to read: neither bytes that nobody asked for, nor the end.
        let probe = || {
            self.stream.set_nonblocking(true)?;
            let read = (&*self.stream).read(&mut [0]);
            self.stream.set_nonblocking(false)?;
            read
        };
        probe().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

/// How long the socket may block; `None` is without a limit.
fn limit(timeout: NextTimeout) -> Result<Option<Duration>, Error> {
    if timeout.after.is_not_happening() {
        return Ok(None);
    }
    match *timeout.after {
        Duration::ZERO => Err(Error::Timeout(timeout.reason)),
        limit => Ok(Some(limit)),
    }
}

/// macOS refuses a timeout once the peer has closed; what was received can still be read.
fn set(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        outcome => outcome,
    }
}

fn explain(error: io::Error, reason: Timeout) -> Error {
    match error.kind() {
        // What a blocking socket reports depends on the system.
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Error::Timeout(reason),
        _ => error.into(),
    }
}
