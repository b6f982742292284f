//! A Bot API in memory, with the offset rules of the real one: [`Api`].
#![allow(dead_code, reason = "every test file uses a part of it")]

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard},
    task::{Poll, Waker},
    time::Duration,
};

use runner_core::{
    BoxError, Delivery, GetUpdates, Key, RuntimeExt, SupplyError, UpdatesRequest,
    testing::SimRuntime,
};

/// An update as fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Raw {
    pub(crate) id: i64,
    pub(crate) chat: i64,
    pub(crate) text: String,
}

/// A client of the server, and the server itself. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Api {
    sim: SimRuntime,
    server: Arc<Mutex<Server>>,
}

#[derive(Default)]
struct Server {
    queue: Vec<Raw>,
    /// The next calls do this; after that, what a server does.
    script: VecDeque<Reply>,
    polls: Vec<Asked>,
    deletes: Vec<Delete>,
    /// How the next calls of `deleteWebhook` fail.
    delete_errors: VecDeque<SupplyError>,
    /// How long each update of an answer takes on its way.
    per_update: Duration,
    /// What is between the client and the server, and closes connections.
    cut: Option<Cut>,
    /// When the current connection was opened.
    connected: Option<Duration>,
    /// The most updates that the client takes at once, if not 100.
    max_updates: Option<u8>,
    waker: Option<Waker>,
}

/// How long a connection lasts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cut {
    /// So long without an answer.
    Idle(Duration),
    /// So long after it was opened.
    Age(Duration),
}

/// The text of an error that says that the answer was too large.
pub(crate) const TOO_LARGE: &str = "the answer is too large";

/// What one call does.
pub(crate) enum Reply {
    /// What a server does.
    Answer,
    /// What a server does, after a while. The offset is looked at first.
    Late(Duration),
    /// These updates, whatever there is. The offset is looked at first.
    Ids(Vec<i64>),
    /// Fails after a while. The offset is not looked at.
    Fail(Duration, SupplyError),
    /// Fails after a while. The offset is looked at first.
    Reset(Duration),
    /// Never answers. The offset is not looked at.
    Hang,
}

/// One call of `getUpdates`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) offset: Option<i64>,
    pub(crate) limit: u8,
    pub(crate) timeout: Duration,
    pub(crate) allowed_updates: Option<Vec<String>>,
    pub(crate) at: Duration,
    /// The updates of the answer.
    pub(crate) answered: Option<Vec<i64>>,
}

/// One call of `deleteWebhook`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Delete {
    pub(crate) drop_pending_updates: bool,
    pub(crate) at: Duration,
    /// How many calls of `getUpdates` came before.
    pub(crate) after_polls: usize,
}

impl Api {
    pub(crate) fn new(sim: &SimRuntime) -> Self {
        Self {
            sim: sim.clone(),
            server: Arc::default(),
        }
    }

    /// Updates of chat 0 arrive.
    pub(crate) fn push(&self, ids: impl IntoIterator<Item = i64>) {
        for id in ids {
            self.send(id, 0, "hello");
        }
    }

    /// An update arrives.
    pub(crate) fn send(&self, id: i64, chat: i64, text: &str) {
        let mut server = self.lock();
        server.queue.push(Raw {
            id,
            chat,
            text: text.to_owned(),
        });
        let waker = server.waker.take();
        drop(server);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Everything that waits is lost and ids go on elsewhere.
    pub(crate) fn forget(&self) {
        self.lock().queue.clear();
    }

    pub(crate) fn script(&self, replies: impl IntoIterator<Item = Reply>) {
        self.lock().script.extend(replies);
    }

    /// From now on, each update of an answer takes this long on its way.
    pub(crate) fn slow_down(&self, per_update: Duration) {
        self.lock().per_update = per_update;
    }

    pub(crate) fn cut(&self, cut: Option<Cut>) {
        self.lock().cut = cut;
    }

    /// How long the current connection will last without an answer.
    fn lasts(&self) -> Option<Duration> {
        let mut server = self.lock();
        let now = self.sim.elapsed();
        match server.cut? {
            Cut::Idle(span) => Some(span),
            Cut::Age(span) => {
                let opened = *server.connected.get_or_insert(now);
                Some((opened + span).saturating_sub(now))
            }
        }
    }

    pub(crate) fn max_updates(&self, most: u8) {
        self.lock().max_updates = Some(most);
    }

    pub(crate) fn fail_delete(&self, error: SupplyError) {
        self.lock().delete_errors.push_back(error);
    }

    /// The ids that the server has not forgotten.
    pub(crate) fn queue(&self) -> Vec<i64> {
        self.lock().queue.iter().map(|raw| raw.id).collect()
    }

    pub(crate) fn polls(&self) -> Vec<Asked> {
        self.lock().polls.clone()
    }

    pub(crate) fn last_poll(&self) -> Asked {
        self.polls().pop().expect("there was a call")
    }

    pub(crate) fn offsets(&self) -> Vec<Option<i64>> {
        self.lock().polls.iter().map(|poll| poll.offset).collect()
    }

    pub(crate) fn deletes(&self) -> Vec<Delete> {
        self.lock().deletes.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Server> {
        self.server.lock().unwrap()
    }

    /// Takes what is there, or waits until something is.
    async fn arrived(&self, limit: usize) -> Vec<Raw> {
        poll_fn(|cx| {
            let mut server = self.lock();
            if server.queue.is_empty() {
                server.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(server.queue.iter().take(limit).cloned().collect())
        })
        .await
    }
}

impl Server {
    /// Sees the offset of a request.
    fn confirm(&mut self, offset: Option<i64>) {
        let (Some(offset), Some(tail)) = (offset, self.queue.last()) else {
            return;
        };
        // Far beyond the end it is taken for a mistake.
        if offset <= tail.id + 11 {
            self.queue.retain(|raw| raw.id >= offset);
        }
    }
}

impl GetUpdates for Api {
    type Raw = Raw;
    type Update = String;
    type Error = SupplyError;

    async fn get_updates(&mut self, request: &UpdatesRequest) -> Result<Vec<Raw>, SupplyError> {
        let (reply, index) = {
            let mut server = self.lock();
            server.polls.push(Asked {
                offset: request.offset,
                limit: request.limit,
                timeout: request.timeout,
                allowed_updates: request.allowed_updates.clone(),
                at: self.sim.elapsed(),
                answered: None,
            });
            let reply = server.script.pop_front().unwrap_or(Reply::Answer);
            (reply, server.polls.len() - 1)
        };
        let delay = match reply {
            Reply::Answer => Duration::ZERO,
            Reply::Late(delay) => delay,
            Reply::Ids(ids) => {
                let mut server = self.lock();
                server.confirm(request.offset);
                server.polls[index].answered = Some(ids.clone());
                let raw = |id| Raw {
                    id,
                    chat: 0,
                    text: "hello".to_owned(),
                };
                return Ok(ids.into_iter().map(raw).collect());
            }
            Reply::Fail(delay, error) => {
                self.sim.sleep(delay).await;
                return Err(error);
            }
            Reply::Reset(delay) => {
                self.lock().confirm(request.offset);
                self.sim.sleep(delay).await;
                return Err(SupplyError::transient("connection reset"));
            }
            Reply::Hang => std::future::pending().await,
        };
        self.lock().confirm(request.offset);
        if !delay.is_zero() {
            self.sim.sleep(delay).await;
        }
        let arrived = self.arrived(request.limit.into());
        let lasts = self.lasts().filter(|lasts| *lasts < request.timeout);
        let wait = lasts.unwrap_or(request.timeout);
        let updates = self.sim.timeout(wait, arrived).await;
        if updates.is_none() && lasts.is_some() {
            self.lock().connected = None;
            return Err(SupplyError::transient("504 Gateway Timeout"));
        }
        let updates = updates.unwrap_or_default();
        let per_update = self.lock().per_update;
        if !per_update.is_zero() {
            let count = u32::try_from(updates.len()).expect("at most 100");
            self.sim.sleep(per_update * count).await;
        }
        let ids = updates.iter().map(|raw| raw.id).collect();
        self.lock().polls[index].answered = Some(ids);
        Ok(updates)
    }

    async fn delete_webhook(&mut self, drop_pending_updates: bool) -> Result<(), SupplyError> {
        let mut server = self.lock();
        let delete = Delete {
            drop_pending_updates,
            at: self.sim.elapsed(),
            after_polls: server.polls.len(),
        };
        server.deletes.push(delete);
        if let Some(error) = server.delete_errors.pop_front() {
            return Err(error);
        }
        if drop_pending_updates {
            server.queue.clear();
        }
        Ok(())
    }

    fn max_updates(&self) -> u8 {
        self.lock().max_updates.unwrap_or(100)
    }

    fn is_too_large(error: &SupplyError) -> bool {
        matches!(error, SupplyError::Transient(source) if source.to_string() == TOO_LARGE)
    }

    fn update_id(raw: &Raw) -> i64 {
        raw.id
    }

    fn default_key(raw: &Raw) -> Option<Key> {
        (raw.chat != 0).then(|| Key::chat(raw.chat))
    }

    fn kind(_: &Raw) -> Option<&str> {
        Some("message")
    }

    fn decode(raw: Delivery<Raw>) -> Result<Delivery<String>, BoxError> {
        match raw.text.as_str() {
            "undecodable" => Err("not an update".into()),
            "panic" => panic!("while decoding"),
            text => {
                let text = text.to_owned();
                Ok(raw.with(text))
            }
        }
    }
}
