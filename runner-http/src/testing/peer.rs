//! A TCP peer on loopback that does exactly what a test tells it to.
//!
//! It speaks no more HTTP than it takes to find the end of a request.

use std::{
    collections::HashMap,
    fmt,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// A listening socket with one thread for each connection, all gone when it is dropped.
pub(crate) struct Peer {
    address: SocketAddr,
    shared: Arc<Shared>,
    events: async_channel::Receiver<Event>,
    acceptor: Option<JoinHandle<()>>,
}

/// What the peer noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A whole request was read, on this connection.
    Requested(usize),
    /// The client closed this connection, or the peer did.
    Closed(usize, Instant),
}

type Script = dyn Fn(&mut Connection<'_>) -> io::Result<()> + Send + Sync;

struct Shared {
    script: Box<Script>,
    accepted: AtomicUsize,
    requests: AtomicUsize,
    is_stopping: AtomicBool,
    events: async_channel::Sender<Event>,
    /// Clones of the accepted sockets, so that dropping the peer ends every script.
    open: Mutex<HashMap<usize, TcpStream>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Peer {
    /// Runs `script` for every connection; when it returns, the connection is closed.
    pub(crate) fn start(
        script: impl Fn(&mut Connection) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has a name");
        let (sender, events) = async_channel::unbounded();
        let shared = Arc::new(Shared {
            script: Box::new(script),
            accepted: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            is_stopping: AtomicBool::new(false),
            events: sender,
            open: Mutex::default(),
            threads: Mutex::default(),
        });
        let acceptor = thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.accept(&listener)
        });
        Self {
            address,
            shared,
            events,
            acceptor: Some(acceptor),
        }
    }

    /// Answers every request of every connection with these bytes.
    pub(crate) fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::start(move |connection| {
            while connection.read_request()?.is_some() {
                connection.write(&answer)?;
            }
            Ok(())
        })
    }

    /// Reads one request and never answers.
    pub(crate) fn silent() -> Self {
        Self::start(|connection| {
            connection.read_request()?;
            connection.wait_for_close();
            Ok(())
        })
    }

    /// `http://127.0.0.1:…` followed by `path`.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    #[cfg(all(test, feature = "ureq"))]
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections were accepted.
    pub(crate) fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// How many whole requests were read.
    pub(crate) fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// The next event, in the order in which the peer noticed them.
    pub(crate) async fn event(&self) -> Event {
        self.events.recv().await.expect("the peer holds a sender")
    }

    /// Waits for the next request.
    pub(crate) async fn requested(&self) {
        while !matches!(self.event().await, Event::Requested(_)) {}
    }

    /// Waits for the next close.
    pub(crate) async fn closed(&self) -> Instant {
        loop {
            if let Event::Closed(_, at) = self.event().await {
                return at;
            }
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.shared.is_stopping.store(true, Ordering::SeqCst);
        // Wakes the acceptor.
        drop(TcpStream::connect(self.address));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        for stream in locked(&self.shared.open).values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        for thread in std::mem::take(&mut *locked(&self.shared.threads)) {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("address", &self.address)
            .field("accepted", &self.accepted())
            .field("requests", &self.requests())
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for stream in listener.incoming() {
            if self.is_stopping.load(Ordering::SeqCst) {
                return;
            }
            let Ok(stream) = stream else { continue };
            let Ok(handle) = stream.try_clone() else {
                continue;
            };
            let number = self.accepted.fetch_add(1, Ordering::SeqCst);
            locked(&self.open).insert(number, handle);
            let shared = Arc::clone(self);
            let thread = thread::spawn(move || shared.serve(stream, number));
            locked(&self.threads).push(thread);
        }
    }

    fn serve(&self, stream: TcpStream, number: usize) {
        let _ = stream.set_nodelay(true);
        // No script waits for longer than a client may take.
        let _ = stream.set_read_timeout(Some(PATIENCE));
        let mut connection = Connection {
            stream,
            number,
            shared: self,
            pending: Vec::new(),
        };
        // A script that fails has lost its client, which is what most of them wait for.
        let _ = (self.script)(&mut connection);
        let at = Instant::now();
        // Both must go, or the socket is not closed.
        locked(&self.open).remove(&number);
        drop(connection);
        let _ = self.events.try_send(Event::Closed(number, at));
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One accepted connection, for a script.
pub(crate) struct Connection<'a> {
    stream: TcpStream,
    /// Counts from 0, in the order in which they were accepted.
    pub(crate) number: usize,
    shared: &'a Shared,
    /// Read and not yet part of a request.
    pending: Vec<u8>,
}

/// One request as it was received.
#[derive(Debug)]
pub(crate) struct Request {
    /// The request line and the headers.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Connection<'_> {
    /// Reads one whole request. None if the client closed the connection before it.
    pub(crate) fn read_request(&mut self) -> io::Result<Option<Request>> {
        let Some(end) = self.fill_until(|pending| find(pending, b"\r\n\r\n"))? else {
            return Ok(None);
        };
        let head = String::from_utf8_lossy(&self.pending[..end]).into_owned();
        let length = header(&head, "content-length")
            .and_then(|value| value.parse::<usize>().ok())
            .unwrap_or(0);
        let total = end + 4 + length;
        if self
            .fill_until(|pending| (pending.len() >= total).then_some(total))?
            .is_none()
        {
            return Ok(None);
        }
        let body = self.pending[end + 4..total].to_vec();
        self.pending.drain(..total);
        self.shared.requests.fetch_add(1, Ordering::SeqCst);
        let _ = self.shared.events.try_send(Event::Requested(self.number));
        Ok(Some(Request { head, body }))
    }

    /// Reads this many bytes. None if the client closed the connection before.
    #[cfg(all(test, feature = "hyper", feature = "ureq"))]
    pub(crate) fn read_bytes(&mut self, count: usize) -> io::Result<Option<Vec<u8>>> {
        let is_there = self.fill_until(|pending| (pending.len() >= count).then_some(count))?;
        Ok(is_there.map(|count| self.pending.drain(..count).collect()))
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Says that nothing more will come.
    #[cfg(all(test, feature = "hyper", feature = "ureq"))]
    pub(crate) fn close_write(&self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    /// Reads and forgets until the client closes the connection.
    pub(crate) fn wait_for_close(&mut self) {
        let mut buffer = [0; 1024];
        while matches!(self.stream.read(&mut buffer), Ok(1..)) {}
    }

    /// Waits until at least one byte of a request is there, and leaves it unread. Closing a socket
    /// with unread bytes resets the connection instead of ending it.
    pub(crate) fn wait_for_bytes(&mut self) -> io::Result<()> {
        self.stream.peek(&mut [0]).map(drop)
    }

    fn fill_until(&mut self, done: impl Fn(&[u8]) -> Option<usize>) -> io::Result<Option<usize>> {
        let mut buffer = [0; 16 << 10];
        loop {
            if let Some(end) = done(&self.pending) {
                return Ok(Some(end));
            }
            match self.stream.read(&mut buffer)? {
                0 => return Ok(None),
                n => self.pending.extend_from_slice(&buffer[..n]),
            }
        }
    }
}

/// A listener that accepts nobody and whose backlog is full, so that a connect to it hangs.
pub(crate) struct Crowd {
    address: SocketAddr,
    _listener: TcpListener,
    _waiting: Vec<TcpStream>,
}

impl Crowd {
    /// None where connects do not hang like this.
    pub(crate) fn gather() -> Option<Self> {
        if !cfg!(target_os = "linux") {
            return None;
        }
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has a name");
        let mut waiting = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, HANGS) {
            waiting.push(stream);
            // A system with a larger backlog than this is not worth so many descriptors.
            if waiting.len() > 1000 {
                return None;
            }
        }
        Some(Self {
            address,
            _listener: listener,
            _waiting: waiting,
        })
    }

    /// `http://127.0.0.1:…` followed by `path`.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    #[cfg(all(test, feature = "ureq"))]
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connects hang, as the kernel tells.
    #[cfg(all(test, feature = "ureq"))]
    pub(crate) fn knocking(&self) -> usize {
        const SYN_SENT: &str = "02";

        let sockets = std::fs::read_to_string("/proc/self/net/tcp").expect("Linux has this file");
        let port = format!(":{:04X}", self.address.port());
        // A line has its number, the local address, the remote one, and the state. The kernel may list a
        // socket twice while others come and go, so they are counted by their local address.
        let hanging = sockets.lines().filter_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let (local, remote) = (fields.next()?, fields.next()?);
            let hangs = remote.ends_with(&port) && fields.next() == Some(SYN_SENT);
            hangs.then_some(local)
        });
        hanging.collect::<std::collections::BTreeSet<_>>().len()
    }
}

/// The value of a header of this name, if there is one.
pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes
        .windows(needle.len())
        .position(|window| window == needle)
}

/// On loopback, a connect takes no time or hangs.
const HANGS: Duration = Duration::from_millis(300);

/// How long a script waits for a client.
const PATIENCE: Duration = Duration::from_secs(20);
