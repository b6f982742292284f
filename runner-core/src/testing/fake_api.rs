//! A Bot API in memory, for tests of a whole bot: [`FakeApi`].

use std::{
    collections::VecDeque,
    convert::Infallible,
    fmt,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
};

use crate::{
    BoxError, Delivery, GetUpdates, Key, Runtime, RuntimeExt, SupplyError, UpdatesRequest,
};

/// Has updates as a server has them, and records what it is asked.
///
/// `G` is the client that it stands for: the types of its updates, their ids, keys and decoding are
/// those of `G`, and only the calls are replaced. So the bot under test is the real one, with
/// `FakeApi<BotApi>` in the place of `BotApi`. Where the updates do not matter, [`of_ids`](Self::of_ids)
/// has some that are mere numbers.
///
/// As with a real server, an update is returned until a request carries a later offset. A poll that
/// finds none waits for [`push`](Self::push); a request with a timeout of zero is answered at once.
/// Cheap to clone: one clone goes into the bot, the other one stays with the test.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use runner_core::{Bot, Delivery, SupplyError, testing::{FakeApi, SimRuntime}};
///
/// let sim = SimRuntime::new(1);
/// let api = FakeApi::of_ids([1, 2]).runtime(Arc::new(sim.clone()));
/// api.fail(SupplyError::transient("502 Bad Gateway"));
///
/// let bot = Bot::for_each(api.clone(), async |_: Delivery<i64>| {});
/// let handle = bot.into_runner(Arc::new(sim.clone())).start();
/// sim.advance(Duration::from_secs(60));
/// api.push(3);
/// sim.advance(Duration::from_secs(60));
/// let report = sim.block_on(handle.stop()).unwrap();
///
/// assert_eq!(report.counters.finished, 3);
/// assert_eq!(api.requests().last().unwrap().offset, Some(4));
/// assert_eq!(api.unconfirmed(), 0);
/// ```
pub struct FakeApi<G: GetUpdates = Ids> {
    server: Arc<Mutex<Server<G::Raw>>>,
    runtime: Option<Arc<dyn Runtime>>,
}

type Look = dyn Fn(&UpdatesRequest) + Send + Sync;

struct Server<R> {
    updates: Vec<R>,
    failures: VecDeque<SupplyError>,
    requests: Vec<UpdatesRequest>,
    look: Option<Arc<Look>>,
    waker: Option<Waker>,
}

impl<G: GetUpdates<Raw: Clone>> FakeApi<G> {
    /// A server that has these updates, oldest first.
    pub fn new(updates: impl IntoIterator<Item = G::Raw>) -> Self {
        let server = Server {
            updates: updates.into_iter().collect(),
            failures: VecDeque::new(),
            requests: Vec::new(),
            look: None,
            waker: None,
        };
        Self {
            server: Arc::new(Mutex::new(server)),
            runtime: None,
        }
    }

    /// Answers polls without updates when their timeout is over, by the clock of `runtime`.
    ///
    /// Without it they wait until the caller takes them for dead, which counts as a failure; on a real
    /// runtime, a test is over before that.
    #[must_use]
    pub fn runtime(mut self, runtime: Arc<dyn Runtime>) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Calls `look` with every request, before it is answered.
    #[must_use]
    pub fn on_request(self, look: impl Fn(&UpdatesRequest) + Send + Sync + 'static) -> Self {
        self.lock().look = Some(Arc::new(look));
        self
    }

    /// Adds an update. A poll that waits is answered with it.
    pub fn push(&self, update: G::Raw) {
        let mut server = self.lock();
        server.updates.push(update);
        let waker = server.waker.take();
        drop(server);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Fails the next `getUpdates` that does not fail already. Its offset is not looked at.
    pub fn fail(&self, error: SupplyError) {
        self.lock().failures.push_back(error);
    }

    /// Every call of `getUpdates` so far.
    #[must_use]
    pub fn requests(&self) -> Vec<UpdatesRequest> {
        self.lock().requests.clone()
    }

    /// How many updates would be returned to a bot that starts anew.
    #[must_use]
    pub fn unconfirmed(&self) -> usize {
        self.lock().updates.len()
    }

    fn lock(&self) -> MutexGuard<'_, Server<G::Raw>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there are updates.
    async fn arrived(&self, limit: usize) -> Vec<G::Raw> {
        poll_fn(|cx| {
            let mut server = self.lock();
            if server.updates.is_empty() {
                server.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(server.updates.iter().take(limit).cloned().collect())
        })
        .await
    }
}

impl FakeApi {
    /// A server whose updates are mere ids. They are handled in no particular order.
    pub fn of_ids(ids: impl IntoIterator<Item = i64>) -> Self {
        Self::new(ids)
    }
}

impl<G: GetUpdates<Raw: Clone>> GetUpdates for FakeApi<G> {
    type Raw = G::Raw;
    type Update = G::Update;
    type Error = SupplyError;

    async fn get_updates(&mut self, request: &UpdatesRequest) -> Result<Vec<G::Raw>, SupplyError> {
        let look = self.lock().look.clone();
        if let Some(look) = look {
            look(request);
        }
        {
            let mut server = self.lock();
            server.requests.push(request.clone());
            if let Some(error) = server.failures.pop_front() {
                return Err(error);
            }
            if let Some(offset) = request.offset {
                server.updates.retain(|raw| G::update_id(raw) >= offset);
            }
            if server.updates.is_empty() && request.timeout.is_zero() {
                return Ok(Vec::new());
            }
        }
        let arrived = self.arrived(request.limit.into());
        match &self.runtime {
            None => Ok(arrived.await),
            Some(runtime) => {
                let updates = runtime.timeout(request.timeout, arrived).await;
                Ok(updates.unwrap_or_default())
            }
        }
    }

    async fn delete_webhook(&mut self, drop_pending_updates: bool) -> Result<(), SupplyError> {
        if drop_pending_updates {
            self.lock().updates.clear();
        }
        Ok(())
    }

    fn update_id(raw: &G::Raw) -> i64 {
        G::update_id(raw)
    }

    fn default_key(raw: &G::Raw) -> Option<Key> {
        G::default_key(raw)
    }

    fn size(raw: &G::Raw) -> usize {
        G::size(raw)
    }

    fn kind(raw: &G::Raw) -> Option<&str> {
        G::kind(raw)
    }

    fn decode(raw: Delivery<G::Raw>) -> Result<Delivery<G::Update>, BoxError> {
        G::decode(raw)
    }
}

impl<G: GetUpdates> Clone for FakeApi<G> {
    fn clone(&self) -> Self {
        Self {
            server: Arc::clone(&self.server),
            runtime: self.runtime.clone(),
        }
    }
}

impl<G: GetUpdates> fmt::Debug for FakeApi<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        f.debug_struct("FakeApi")
            .field("updates", &server.updates.len())
            .field("failures", &server.failures)
            .field("requests", &server.requests.len())
            .finish_non_exhaustive()
    }
}

/// A client whose updates are mere ids, for [`FakeApi::of_ids`]. There is no server behind it.
#[derive(Debug)]
pub struct Ids(Infallible);

impl GetUpdates for Ids {
    type Raw = i64;
    type Update = i64;
    type Error = SupplyError;

    async fn get_updates(&mut self, _: &UpdatesRequest) -> Result<Vec<i64>, SupplyError> {
        match self.0 {}
    }

    async fn delete_webhook(&mut self, _: bool) -> Result<(), SupplyError> {
        match self.0 {}
    }

    fn update_id(id: &i64) -> i64 {
        *id
    }

    fn default_key(_: &i64) -> Option<Key> {
        None
    }

    fn decode(id: Delivery<i64>) -> Result<Delivery<i64>, BoxError> {
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::testing::SimRuntime;

    fn request(offset: Option<i64>, limit: u8) -> UpdatesRequest {
        UpdatesRequest {
            offset,
            limit,
            ..UpdatesRequest::default()
        }
    }

    #[test]
    fn an_update_is_kept_until_a_later_offset_is_answered() {
        let sim = SimRuntime::new(1);
        let mut api = FakeApi::of_ids([3, 4, 5]);
        let test = api.clone();
        test.fail(SupplyError::transient("reset"));
        sim.block_on(async {
            assert!(api.get_updates(&request(Some(9), 100)).await.is_err());
            assert_eq!(api.get_updates(&request(None, 2)).await.unwrap(), [3, 4]);
            let from_4 = request(Some(4), 100);
            assert_eq!(api.get_updates(&from_4).await.unwrap(), [4, 5]);
            assert_eq!(test.unconfirmed(), 2);
            assert!(
                api.get_updates(&request(Some(6), 1))
                    .await
                    .unwrap()
                    .is_empty()
            );
        });
        assert_eq!(test.unconfirmed(), 0);
        assert_eq!(test.requests().len(), 4);
        assert_eq!(test.requests()[3], request(Some(6), 1));
    }

    #[test]
    fn a_poll_waits_for_a_push_or_for_its_time() {
        let sim = SimRuntime::new(1);
        let api = FakeApi::of_ids([]).runtime(Arc::new(sim.clone()));
        let poll = UpdatesRequest {
            timeout: Duration::from_secs(30),
            ..UpdatesRequest::default()
        };
        let mut polling = api.clone();
        assert!(sim.block_on(polling.get_updates(&poll)).unwrap().is_empty());
        assert_eq!(sim.elapsed(), Duration::from_secs(30));
        let (clock, server) = (sim.clone(), api.clone());
        sim.spawn(Box::pin(async move {
            clock.sleep(Duration::from_secs(5)).await;
            server.push(7);
        }));
        assert_eq!(sim.block_on(polling.get_updates(&poll)).unwrap(), [7]);
        assert_eq!(sim.elapsed(), Duration::from_secs(35));
        sim.block_on(polling.delete_webhook(true)).unwrap();
        assert_eq!(api.unconfirmed(), 0);
    }
}
