//! A Bot API server on loopback: [`LocalServer`].
//!
//! What a client may ask is in `methods`, `poll` and `queue`; here is what a test or a demo does with
//! the server: start it, feed it, watch it, break it.

use std::{
    fmt, io,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, MutexGuard},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde_json::Value;
use socket2::SockRef;

use crate::{
    builder::LocalServerBuilder,
    fault::{FaultPlan, FaultRule},
    poll::CONFLICT_SET_WEBHOOK,
    record::{Call, Connections, Poll, Snapshot},
    shared::{Sender, Shared, State},
};

/// A Bot API server on loopback, with threads of its own and no runtime.
///
/// Point a client at [`url`](Self::url) with [`token`](Self::token), push updates, and wait for what
/// the bot calls. The server keeps the rules of the real one: ids and offsets, waiting, conflicts,
/// slowing down of polls that repeat themselves, lifetimes of updates.
///
/// Dropping it cuts all connections and ends all its threads before it returns.
///
/// ```
/// use std::{io::{Read, Write}, net::TcpStream, time::Duration};
/// use runner_testkit::LocalServer;
///
/// let server = LocalServer::start()?;
/// server.push_message(7, 7, "hello");
///
/// // Any HTTP client will do; this is what one sends.
/// let mut client = TcpStream::connect(server.address())?;
/// let path = format!("/bot{}/sendMessage?chat_id=7&text=hi", server.token());
/// write!(client, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
///
/// let call = server
///     .wait_for_call(|call| call.is("sendMessage"), Duration::from_secs(5))
///     .expect("the bot has answered");
/// assert_eq!(call.chat_id(), Some(7));
/// assert_eq!(call.text(), Some("hi"));
/// assert_eq!(server.pending(), 1);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct LocalServer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) listener: Arc<TcpListener>,
    pub(crate) url: String,
    /// Returns the threads of connections that may still run.
    pub(crate) accepting: Option<JoinHandle<Vec<JoinHandle<()>>>>,
}

/// Starting, and what a client must know.
impl LocalServer {
    /// Starts a server with all defaults.
    ///
    /// # Errors
    ///
    /// The socket cannot be opened or the thread cannot be started.
    pub fn start() -> io::Result<Self> {
        Self::builder().start()
    }

    /// Prepares a server that is not the default one.
    pub fn builder() -> LocalServerBuilder {
        LocalServerBuilder::new()
    }

    /// The base URL, like `http://127.0.0.1:40123`: what stands before `/bot<token>/`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The address to connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.shared.config.address
    }

    /// The token of the bot.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.shared.config.token
    }

    /// The user id of the bot.
    #[must_use]
    pub fn bot_id(&self) -> i64 {
        self.shared.config.bot_id
    }
}

/// Feeding.
///
/// Every function returns the id that the update got, or `None` if it was dropped: because of
/// `allowed_updates`, because its time is over, or because the queue is full.
impl LocalServer {
    /// Queues an update: `kind` is the name of its field, like `message`, and `body` what is in it,
    /// whose own fields arrive in alphabetical order. [`push_raw`](Self::push_raw) keeps the order.
    #[expect(clippy::needless_pass_by_value, reason = "made by `json!` in place")]
    pub fn push(&self, kind: &str, body: Value) -> Option<i64> {
        self.push_raw(kind, &body.to_string())
    }

    /// Queues a text message. A positive chat is a private one, below −10¹² it is a supergroup, and in
    /// between a group.
    pub fn push_message(&self, chat_id: i64, user_id: i64, text: &str) -> Option<i64> {
        self.shared
            .push_message(Sender { chat_id, user_id }, text)
            .1
    }

    /// Queues a text message as [`push_message`](Self::push_message) does, and returns the id of the
    /// message instead of the update's, for [`push_edit`](Self::push_edit).
    pub fn push_editable(&self, chat_id: i64, user_id: i64, text: &str) -> Option<i64> {
        let who = Sender { chat_id, user_id };
        let (message_id, update_id) = self.shared.push_message(who, text);
        update_id.map(|_| message_id)
    }

    /// Queues the edit of a text message: the new text of the message with this id.
    pub fn push_edit(
        &self,
        chat_id: i64,
        user_id: i64,
        message_id: i64,
        text: &str,
    ) -> Option<i64> {
        let who = Sender { chat_id, user_id };
        self.shared.push_edit(who, message_id, text)
    }

    /// Queues the press of a button that has `data`, under the bot's message with this id
    /// ([`Call::message_id`]).
    pub fn push_callback(
        &self,
        chat_id: i64,
        user_id: i64,
        message_id: i64,
        data: &str,
    ) -> Option<i64> {
        let who = Sender { chat_id, user_id };
        self.shared.push_callback(who, message_id, data)
    }

    /// Queues an update as it is: `body` should be minified JSON, and whatever else it is, the client
    /// gets it. What is not ASCII is escaped as the real server does.
    pub fn push_raw(&self, kind: &str, body: &str) -> Option<i64> {
        self.shared.push([(kind, body)])[0]
    }

    /// Queues several updates at one moment, each as by [`push_raw`](Self::push_raw), so that one
    /// answer can have all of them.
    pub fn push_batch<'a>(
        &self,
        updates: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Vec<Option<i64>> {
        self.shared.push(updates)
    }
}

/// Watching.
impl LocalServer {
    /// Everything that was called beside getUpdates, oldest first.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.shared.lock().calls.clone()
    }

    /// The calls from the one with this [number](Call::index) on, oldest first: what is new since the
    /// last look, without a copy of all that was there before.
    #[must_use]
    pub fn calls_since(&self, index: u64) -> Vec<Call> {
        self.shared.lock().calls_since(index).to_vec()
    }

    /// Waits until there are calls from this number on, and returns them. None if none comes within
    /// `timeout`.
    #[must_use]
    pub fn wait_for_calls_since(&self, index: u64, timeout: Duration) -> Vec<Call> {
        let found = self.shared.watch(timeout, |state| {
            let calls = state.calls_since(index);
            (!calls.is_empty()).then(|| calls.to_vec())
        });
        found.unwrap_or_default()
    }

    /// The calls of one method, oldest first.
    #[must_use]
    pub fn calls_of(&self, method: &str) -> Vec<Call> {
        let state = self.shared.lock();
        let calls = state.calls.iter().filter(|call| call.is(method));
        calls.cloned().collect()
    }

    /// Every getUpdates, oldest first.
    #[must_use]
    pub fn polls(&self) -> Vec<Poll> {
        self.shared.lock().polls.clone()
    }

    /// Waits for a call that matches, those included that were made before. `None` if none comes
    /// within `timeout`.
    ///
    /// `matches` may use the server, as every closure below may.
    pub fn wait_for_call(
        &self,
        mut matches: impl FnMut(&Call) -> bool,
        timeout: Duration,
    ) -> Option<Call> {
        let mut seen = 0;
        self.shared.watch_copies(
            timeout,
            |state| {
                let new = state.calls.get(seen..).unwrap_or_default().to_vec();
                seen = state.calls.len();
                new
            },
            |new| new.into_iter().find(|call| matches(call)),
        )
    }

    /// Waits for a getUpdates that matches, as [`wait_for_call`](Self::wait_for_call) does for other
    /// methods. It is looked at on arrival and once more when it is answered.
    pub fn wait_for_poll(
        &self,
        mut matches: impl FnMut(&Poll) -> bool,
        timeout: Duration,
    ) -> Option<Poll> {
        self.shared.watch_copies(
            timeout,
            |state| state.polls.clone(),
            |polls| polls.into_iter().find(|poll| matches(poll)),
        )
    }

    /// Waits until the state of the server matches; false if it does not within `timeout`.
    pub fn wait_until(
        &self,
        mut matches: impl FnMut(&Snapshot) -> bool,
        timeout: Duration,
    ) -> bool {
        self.shared
            .watch_copies(timeout, State::snapshot, |state| {
                matches(&state).then_some(())
            })
            .is_some()
    }

    /// The state of the server.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.shared.lock().snapshot()
    }

    /// How many updates are queued: not confirmed, or expired and not yet read past.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.snapshot().pending
    }

    /// The latest offset of a getUpdates that was valid and confirmed something: every update below it
    /// is forgotten.
    #[must_use]
    pub fn confirmed_offset(&self) -> Option<i64> {
        self.snapshot().confirmed_offset
    }

    /// How many connections were opened and how many are open.
    #[must_use]
    pub fn connections(&self) -> Connections {
        self.snapshot().connections
    }

    /// How often each kind of fault has hit, by its [name](crate::Fault::name).
    #[must_use]
    pub fn fault_counts(&self) -> Vec<(&'static str, u64)> {
        self.shared.lock().faults.counts().to_vec()
    }

    /// How often this kind of fault has hit.
    #[must_use]
    pub fn fault_count(&self, name: &str) -> u64 {
        let state = self.shared.lock();
        let counts = state.faults.counts();
        let found = counts.iter().find(|(known, _)| *known == name);
        found.map_or(0, |(_, count)| *count)
    }

    /// Forgets the recorded calls and polls; their numbers go on.
    pub fn forget_records(&self) {
        let mut state = self.shared.lock();
        state.calls.clear();
        state.polls.clear();
        state.polls_forgotten = state.poll_count;
    }
}

/// Breaking.
impl LocalServer {
    /// Replaces what goes wrong. The counters go on.
    pub fn set_faults(&self, plan: FaultPlan) {
        self.shared.lock().faults.replace(plan);
    }

    /// Adds something that goes wrong to what does already.
    pub fn add_fault(&self, rule: FaultRule) {
        self.shared.lock().faults.add(rule);
    }

    /// Answers a method with this result instead of what the server would say.
    pub fn set_result(&self, method: &str, result: &Value) {
        let json = crate::wire::ascii(&result.to_string()).into_owned();
        let mut state = self.shared.lock();
        state.results.insert(method.to_ascii_lowercase(), json);
    }

    /// Sets the webhook as another instance of the bot would: a getUpdates that waits ends with a 409,
    /// and every later one is refused. An empty URL deletes it.
    pub fn set_webhook(&self, url: &str) {
        let mut state = self.shared.lock();
        if !url.is_empty() {
            let now = Instant::now();
            state.polling.end_wait(CONFLICT_SET_WEBHOOK, now);
        }
        url.clone_into(&mut state.polling.webhook);
        self.shared.wake();
        self.shared.changed(&state);
    }

    /// Draws a new id for the next update, far below or above the present one, and drops what is
    /// queued: what the documentation says may happen after a week without updates.
    pub fn rerandomise_ids(&self, downwards: bool) {
        let mut state = self.shared.lock();
        state.polling.queue.rerandomise(downwards);
        self.shared.changed(&state);
    }

    /// Refuses everything with 401 from now on, or no more, as after the token was revoked. A
    /// getUpdates that waits is answered early.
    pub fn revoke_token(&self, is_revoked: bool) {
        let mut state = self.shared.lock();
        state.is_revoked = is_revoked;
        self.let_go(state, is_revoked);
    }

    /// Behaves as a server that is about to end: everything new is refused with 429, a getUpdates
    /// that waits is answered early.
    pub fn set_closing(&self, is_closing: bool) {
        let mut state = self.shared.lock();
        state.is_closing = is_closing;
        self.let_go(state, is_closing);
    }

    /// Moves the calendar forward, so that updates expire. Waits and delays do not change.
    pub fn advance_calendar(&self, span: Duration) {
        let mut state = self.shared.lock();
        let seconds = i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
        state.calendar_offset = state.calendar_offset.saturating_add(seconds);
    }

    /// Deletes expired updates, as the real server does every minute.
    pub fn collect_expired(&self) {
        let mut state = self.shared.lock();
        let now = state.now();
        state.polling.queue.collect(now.unix);
        self.shared.changed(&state);
    }

    /// Cuts every connection, as a proxy that restarts does. New ones are accepted.
    pub fn cut_connections(&self) {
        for connected in self.shared.lock().connections.values() {
            // It fails if the client was faster.
            let _gone = connected.stream.shutdown(Shutdown::Both);
        }
    }

    fn let_go(&self, mut state: MutexGuard<'_, State>, is_over: bool) {
        if is_over {
            state.polling.release_wait(Instant::now());
        }
        self.shared.wake();
        self.shared.changed(&state);
    }
}

impl Drop for LocalServer {
    fn drop(&mut self) {
        self.shared.stop();
        // Either of the two ends the accept: the first where the platform has it, the second elsewhere.
        let _unsupported = SockRef::from(&*self.listener).shutdown(Shutdown::Both);
        let _refused = TcpStream::connect(self.shared.config.address);
        let threads = self.accepting.take().map(JoinHandle::join);
        for thread in threads.and_then(Result::ok).unwrap_or_default() {
            // A thread that panicked has told so on stderr.
            let _panicked = thread.join();
        }
    }
}

impl fmt::Debug for LocalServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalServer")
            .field("url", &self.url)
            .field("state", &self.snapshot())
            .finish_non_exhaustive()
    }
}
