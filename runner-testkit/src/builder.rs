//! Starting a server: [`LocalServerBuilder`], and the thread that accepts connections.

use std::{
    fmt, io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use socket2::{Domain, Socket, Type};

use crate::{
    connection,
    fault::FaultPlan,
    poll::Polling,
    queue::Queue,
    route::check_token,
    server::LocalServer,
    shared::{Config, Connected, Shared},
};

/// How a [`LocalServer`] begins; made by [`LocalServer::builder`].
#[must_use = "the server is not started yet"]
pub struct LocalServerBuilder {
    token: String,
    first_update_id: Option<i32>,
    seed: u64,
    faults: FaultPlan,
    accepts_any: bool,
    records: bool,
    port: u16,
    is_bounded: bool,
}

impl LocalServerBuilder {
    pub(crate) fn new() -> Self {
        Self {
            token: "600700800:local-server-of-the-testkit-0".into(),
            first_update_id: None,
            seed: 0,
            faults: FaultPlan::new(0),
            accepts_any: true,
            records: true,
            port: 0,
            is_bounded: true,
        }
    }

    /// The token of the bot. Default: a made-up one.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = token.into();
        self
    }

    /// The id of the first update, from 1 to 1 999 999 998. Default: drawn from the seed, as the real
    /// server draws one.
    pub fn first_update_id(mut self, id: i32) -> Self {
        self.first_update_id = Some(id.clamp(1, 1_999_999_998));
        self
    }

    /// The seed of what is random about the server. Default: 0, so that two runs are the same.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// What goes wrong. Default: nothing.
    pub fn faults(mut self, plan: FaultPlan) -> Self {
        self.faults = plan;
        self
    }

    /// Answers methods that the server does not implement with 404 `Not Found: method not found`.
    /// Default: they are recorded and answered with `true`, so that any bot can be run.
    pub fn known_methods_only(mut self) -> Self {
        self.accepts_any = false;
        self
    }

    /// Keeps no list of calls and polls, only their numbers, so that none can be waited for. For long
    /// runs, in which the lists would grow for ever.
    pub fn without_records(mut self) -> Self {
        self.records = false;
        self
    }

    /// The port on loopback. Default: 0, one that the system chooses, so that tests never collide.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Keeps every update, for a backlog that is larger than the real server would keep. Default: newer
    /// ones are dropped beyond 100 000 updates or 128 MiB, as there.
    pub fn unbounded_queue(mut self) -> Self {
        self.is_bounded = false;
        self
    }

    /// Starts the server.
    ///
    /// # Errors
    ///
    /// The socket cannot be opened, the port is taken, the thread cannot be started, or the token is not shaped like
    /// one.
    pub fn start(self) -> io::Result<LocalServer> {
        let bot_id = check_token(&self.token).map_err(|_refusal| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                "the token is not shaped like one",
            )
        })?;
        // std offers no way to set the backlog, and 128 refuses a burst of clients.
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        // Connections of a server that has just ended must not keep the port from the next one. On
        // Windows the option means to take a port from who has it.
        #[cfg(unix)]
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)).into())?;
        socket.listen(BACKLOG)?;
        let listener = Arc::new(TcpListener::from(socket));
        let address = listener.local_addr()?;

        let config = Config {
            address,
            token: self.token,
            bot_id,
            username: "local_runner_bot".into(),
            accepts_any: self.accepts_any,
            records: self.records,
        };
        let queue = Queue::new(self.first_update_id, self.seed);
        let polling = Polling::new(match self.is_bounded {
            true => queue,
            false => queue.unbounded(),
        });
        let shared = Arc::new(Shared::new(config, polling, self.faults));
        let accepting = thread::Builder::new()
            .name("testkit-accept".into())
            .spawn({
                let shared = Arc::clone(&shared);
                let listener = Arc::clone(&listener);
                move || accept(&shared, &listener)
            })?;
        Ok(LocalServer {
            shared,
            listener,
            url: format!("http://{address}"),
            accepting: Some(accepting),
        })
    }
}

impl fmt::Debug for LocalServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The token may be a real one.
        f.debug_struct("LocalServerBuilder")
            .field("first_update_id", &self.first_update_id)
            .field("seed", &self.seed)
            .field("faults", &self.faults)
            .field("accepts_any", &self.accepts_any)
            .field("records", &self.records)
            .field("port", &self.port)
            .field("is_bounded", &self.is_bounded)
            .finish_non_exhaustive()
    }
}

/// Accepts connections until the server ends; returns the threads that may still run.
fn accept(shared: &Arc<Shared>, listener: &TcpListener) -> Vec<JoinHandle<()>> {
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    let mut reap_at = 64;
    loop {
        let accepted = listener.accept();
        let mut state = shared.lock();
        if state.is_stopping {
            return threads;
        }
        let Ok((stream, _)) = accepted else {
            // The client was gone, which is nothing, or there are no descriptors left, and then a pause
            // is better than to try again as fast as possible.
            drop(state);
            thread::sleep(Duration::from_millis(1));
            continue;
        };
        // Without it, every answer could wait for the acknowledgement of the one before.
        let _refused = stream.set_nodelay(true);
        state.opened += 1;
        let id = state.opened;
        let stream = Arc::new(stream);
        let connected = Connected {
            stream: Arc::clone(&stream),
            is_hung_up: false,
        };
        state.connections.insert(id, connected);
        shared.changed(&state);
        drop(state);

        let started = thread::Builder::new()
            .name("testkit-connection".into())
            .stack_size(STACK)
            .spawn({
                let shared = Arc::clone(shared);
                move || connection::serve(&shared, stream, id)
            });
        match started {
            Ok(thread) => threads.push(thread),
            Err(_) => {
                shared.lock().connections.remove(&id);
            }
        }
        if threads.len() >= reap_at {
            threads.retain(|thread| !thread.is_finished());
            reap_at = (threads.len() * 2).max(64);
        }
    }
}

/// How many connections may wait to be accepted, as at the real server.
const BACKLOG: i32 = 8192;
/// What the threads of connections get: they keep their buffers on the heap.
const STACK: usize = 256 << 10;
