//! What the threads of a server share: [`Shared`], the [`State`] in it, and how they wait.

use std::{
    cell::Cell,
    collections::HashMap,
    fmt::Write,
    io,
    net::{SocketAddr, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::{
    fault::FaultPlan,
    methods::{own_message, write_chat},
    poll::{Now, Polling},
    record::{Call, Connections, Poll, Snapshot},
    wire,
};

/// How often a thread that waits looks whether its client has hung up.
const LOOK: Duration = Duration::from_millis(10);

/// The server, as its threads see it.
pub(crate) struct Shared {
    pub(crate) config: Config,
    state: Mutex<State>,
    /// Wakes the threads of connections.
    serve: Condvar,
    /// Wakes who watches the server.
    watch: Condvar,
}

/// What does not change while a server runs.
pub(crate) struct Config {
    pub(crate) address: SocketAddr,
    pub(crate) token: String,
    pub(crate) bot_id: i64,
    pub(crate) username: String,
    /// Whether a method that the server does not know is recorded and answered with `true`.
    pub(crate) accepts_any: bool,
    /// Whether calls and polls are kept.
    pub(crate) records: bool,
}

/// What changes while a server runs.
pub(crate) struct State {
    pub(crate) polling: Polling,
    pub(crate) faults: FaultPlan,
    pub(crate) calls: Vec<Call>,
    pub(crate) polls: Vec<Poll>,
    /// How many polls came before the first in the list.
    pub(crate) polls_forgotten: u64,
    pub(crate) call_count: u64,
    pub(crate) poll_count: u64,
    /// Results of methods, in JSON, by the name in lower case.
    pub(crate) results: HashMap<String, String>,
    pub(crate) last_message_id: i64,
    pub(crate) connections: HashMap<u64, Connected>,
    pub(crate) opened: u64,
    /// The server refuses what is new and lets go of what waits, as one that is about to end.
    pub(crate) is_closing: bool,
    /// The server ends; its threads stop where they are.
    pub(crate) is_stopping: bool,
    pub(crate) is_revoked: bool,
    pub(crate) logged_out_until: Option<Instant>,
    pub(crate) webhook_set_at: Option<Instant>,
    /// How far the calendar is ahead of the real one, in seconds.
    pub(crate) calendar_offset: i64,
    watchers: usize,
    /// How often something has changed that a watcher may wait for.
    changes: Cell<u64>,
}

/// A connection that has not been closed by the server.
pub(crate) struct Connected {
    pub(crate) stream: Arc<TcpStream>,
    /// The client has closed its side while a call was waiting.
    pub(crate) is_hung_up: bool,
}

/// The server ends, so there is no point in going on.
#[derive(Debug)]
pub(crate) struct Stopped;

impl Shared {
    pub(crate) fn new(config: Config, polling: Polling, faults: FaultPlan) -> Self {
        Self {
            config,
            state: Mutex::new(State {
                polling,
                faults,
                calls: Vec::new(),
                polls: Vec::new(),
                polls_forgotten: 0,
                call_count: 0,
                poll_count: 0,
                results: HashMap::new(),
                last_message_id: 0,
                connections: HashMap::new(),
                opened: 0,
                is_closing: false,
                is_stopping: false,
                is_revoked: false,
                logged_out_until: None,
                webhook_set_at: None,
                calendar_offset: 0,
                watchers: 0,
                changes: Cell::new(0),
            }),
            serve: Condvar::new(),
            watch: Condvar::new(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic in a predicate of a test must not hide behind a second one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues updates, as many as arrive together, and returns their ids.
    pub(crate) fn push<'a>(
        &self,
        updates: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Vec<Option<i64>> {
        let mut state = self.lock();
        let ids = updates
            .into_iter()
            .map(|(kind, body)| self.push_one(&mut state, kind, body))
            .collect();
        self.changed(&state);
        ids
    }

    /// Queues a text message; returns the ids of the message and of the update.
    pub(crate) fn push_message(&self, who: Sender, text: &str) -> (i64, Option<i64>) {
        let mut state = self.lock();
        let message_id = state.next_message_id();
        let body = user_message(who, message_id, state.now().unix, None, text);
        let id = self.push_one(&mut state, "message", &body);
        self.changed(&state);
        (message_id, id)
    }

    /// Queues the new text of a message.
    pub(crate) fn push_edit(&self, who: Sender, message_id: i64, text: &str) -> Option<i64> {
        let mut state = self.lock();
        let now = state.now().unix;
        let body = user_message(who, message_id, now, Some(now), text);
        let id = self.push_one(&mut state, "edited_message", &body);
        self.changed(&state);
        id
    }

    /// Queues a press of a button under a message of the bot.
    pub(crate) fn push_callback(&self, who: Sender, message_id: i64, data: &str) -> Option<i64> {
        let mut state = self.lock();
        let sent = state.calls.iter().rev();
        let text = sent
            .filter(|call| call.message_id == Some(message_id))
            .find_map(Call::text)
            .unwrap_or("…");
        let mut chat = String::new();
        write_chat(&mut chat, who.chat_id);
        let message = own_message(&self.config, message_id, &chat, state.now().unix, text);
        let query = state.next_message_id();
        let mut body = format!(
            r#"{{"id":"{query}","from":{},"message":{message},"chat_instance":"{}","data":"#,
            user(who.user_id),
            who.chat_id,
        );
        wire::quote(data, &mut body);
        body.push('}');
        let id = self.push_one(&mut state, "callback_query", &body);
        self.changed(&state);
        id
    }

    /// Queues one update of a state that is locked. [`changed`](Self::changed) is to be called after.
    pub(crate) fn push_one(&self, state: &mut State, kind: &str, body: &str) -> Option<i64> {
        let now = state.now();
        if !state.polling.allowed.allows(kind) {
            return None;
        }
        let body = wire::ascii(body);
        let expires_at = crate::kinds::expires_at(kind, &body, now.unix);
        let id = state
            .polling
            .queue
            .push(kind, &body, expires_at, now.unix)?;
        if state.polling.arrived(now.instant) {
            self.serve.notify_all();
        }
        Some(id.into())
    }

    /// Wakes who watches, after a change.
    pub(crate) fn changed(&self, state: &State) {
        state.changes.set(state.changes.get() + 1);
        // A condvar cannot tell that nobody waits without a system call.
        if state.watchers > 0 {
            self.watch.notify_all();
        }
    }

    /// Wakes the threads of connections, after a change that concerns those that wait.
    pub(crate) fn wake(&self) {
        self.serve.notify_all();
    }

    /// Waits for a change until `deadline`, on behalf of connection `id`.
    ///
    /// The real server does not notice that a client has gone, and neither does what the caller
    /// decides; but tests want to know, so it is noted.
    ///
    /// # Errors
    ///
    /// The server ends.
    pub(crate) fn wait<'a>(
        &'a self,
        state: MutexGuard<'a, State>,
        id: u64,
        deadline: Instant,
    ) -> Result<MutexGuard<'a, State>, Stopped> {
        if state.is_stopping {
            return Err(Stopped);
        }
        let looks = state
            .connections
            .get(&id)
            .filter(|connected| !connected.is_hung_up)
            .map(|connected| Arc::clone(&connected.stream));
        let left = deadline.saturating_duration_since(Instant::now());
        let span = if looks.is_some() {
            left.min(LOOK)
        } else {
            left
        };
        let (mut state, timeout) = self
            .serve
            .wait_timeout(state, span)
            .unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out()
            && let Some(stream) = looks
            && is_hung_up(&stream)
            && let Some(connected) = state.connections.get_mut(&id)
        {
            connected.is_hung_up = true;
            self.changed(&state);
        }
        if state.is_stopping {
            return Err(Stopped);
        }
        Ok(state)
    }

    /// Waits until `deadline`, on behalf of connection `id`.
    ///
    /// # Errors
    ///
    /// The server ends.
    pub(crate) fn sleep_until(&self, id: u64, deadline: Instant) -> Result<(), Stopped> {
        let mut state = self.lock();
        while Instant::now() < deadline {
            state = self.wait(state, id, deadline)?;
        }
        Ok(())
    }

    /// Waits until `look` finds something, or `timeout` is over.
    pub(crate) fn watch<T>(
        &self,
        timeout: Duration,
        mut look: impl FnMut(&State) -> Option<T>,
    ) -> Option<T> {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        state.watchers += 1;
        let found = loop {
            let found = look(&state);
            let left = deadline.saturating_duration_since(Instant::now());
            if found.is_some() || left.is_zero() || state.is_stopping {
                break found;
            }
            state = self
                .watch
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        };
        state.watchers -= 1;
        found
    }

    /// As [`watch`](Self::watch), with code of the user: `look` gets a copy and runs without the lock.
    pub(crate) fn watch_copies<C, T>(
        &self,
        timeout: Duration,
        mut copy: impl FnMut(&State) -> C,
        mut look: impl FnMut(C) -> Option<T>,
    ) -> Option<T> {
        let deadline = Instant::now() + timeout;
        let mut seen = None;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (copied, changes, is_last) = self.watch(left, |state| {
                let changes = state.changes.get();
                let is_new = seen != Some(changes);
                let is_last = state.is_stopping;
                (is_new || is_last).then(|| (copy(state), changes, is_last))
            })?;
            let found = look(copied);
            if found.is_some() || is_last {
                return found;
            }
            seen = Some(changes);
        }
    }

    /// Ends all connections, and every wait of their threads.
    pub(crate) fn stop(&self) {
        let mut state = self.lock();
        state.is_stopping = true;
        for connected in state.connections.values() {
            // It fails if the other side was faster, which is as good.
            let _gone = connected.stream.shutdown(std::net::Shutdown::Both);
        }
        self.serve.notify_all();
        self.watch.notify_all();
    }
}

/// Who writes, and where.
#[derive(Clone, Copy)]
pub(crate) struct Sender {
    pub(crate) chat_id: i64,
    pub(crate) user_id: i64,
}

fn user_message(who: Sender, id: i64, date: i64, edited: Option<i64>, text: &str) -> String {
    let mut body = format!(
        r#"{{"message_id":{id},"from":{},"chat":"#,
        user(who.user_id)
    );
    write_chat(&mut body, who.chat_id);
    write!(body, r#","date":{date}"#).expect("memory takes all");
    if let Some(edited) = edited {
        write!(body, r#","edit_date":{edited}"#).expect("memory takes all");
    }
    body.push_str(r#","text":"#);
    wire::quote(text, &mut body);
    if let Some(command) = text.split_whitespace().next()
        && text.starts_with('/')
    {
        let length = command.encode_utf16().count();
        write!(
            body,
            r#","entities":[{{"offset":0,"length":{length},"type":"bot_command"}}]"#
        )
        .expect("memory takes all");
    }
    body.push('}');
    body
}

fn user(id: i64) -> String {
    format!(r#"{{"id":{id},"is_bot":false,"first_name":"User {id}","language_code":"en"}}"#)
}

impl State {
    /// The calls from this number on that are still recorded.
    pub(crate) fn calls_since(&self, index: u64) -> &[Call] {
        let first = self.calls.first().map_or(index, |call| call.index);
        let skip = usize::try_from(index.saturating_sub(first)).unwrap_or(usize::MAX);
        self.calls.get(skip..).unwrap_or_default()
    }

    pub(crate) fn now(&self) -> Now {
        let unix = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(0));
        Now {
            instant: Instant::now(),
            unix: unix + self.calendar_offset,
        }
    }

    pub(crate) fn next_message_id(&mut self) -> i64 {
        self.last_message_id += 1;
        self.last_message_id
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot {
            pending: self.polling.queue.len(),
            confirmed_offset: self.polling.queue.confirmed().map(i64::from),
            next_update_id: self.polling.queue.tail().into(),
            is_polled: self.polling.is_waiting(),
            calls: self.call_count,
            polls: self.poll_count,
            connections: self.count_connections(),
        }
    }

    pub(crate) fn count_connections(&self) -> Connections {
        let open = self
            .connections
            .values()
            .filter(|connected| !connected.is_hung_up)
            .count();
        Connections {
            opened: self.opened,
            open,
        }
    }
}

/// Whether the other side of a connection has closed it. Only for the thread that reads it: what
/// makes the look not wait is a mode of the socket.
fn is_hung_up(stream: &TcpStream) -> bool {
    if stream.set_nonblocking(true).is_err() {
        return true;
    }
    let peeked = stream.peek(&mut [0]);
    let gone = match peeked {
        Ok(count) => count == 0,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    };
    stream.set_nonblocking(false).is_err() || gone
}
