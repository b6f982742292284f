//! What a user would otherwise write by hand, each in a few lines and on the bare runtime.
//!
//! Every loop takes batches as they come from a supplier, starts the handlers, and returns when all
//! of them have ended.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use tokio::sync::{Mutex, Semaphore};

use crate::{
    runtime::Rt,
    workload::{Tally, Update, Work, handle, yield_now},
};

/// What a loop is given.
#[derive(Clone, Debug)]
pub struct Job<R: Rt> {
    /// Where it runs.
    pub rt: &'static R,
    /// What handlers do.
    pub work: Work,
    /// Where they count.
    pub tally: &'static Tally,
    /// How many may run at once.
    pub concurrency: usize,
}

/// Longer than any handler takes.
const LIMIT: Duration = Duration::from_secs(60);

impl<R: Rt> Job<R> {
    fn handle(&self, update: &Update) -> impl Future<Output = ()> + Send + use<R> {
        handle(self.rt, self.work, self.tally, update.id, update.chat)
    }

    async fn all_handled(&self, count: u64) {
        while self.tally.handled() < count {
            yield_now().await;
        }
    }

    /// A task per update, without any limit; lets others run after each batch.
    pub async fn spawn(self, batches: Vec<Vec<Update>>) {
        let mut count = 0;
        for batch in batches {
            for update in batch {
                count += 1;
                self.rt.spawn(self.handle(&update));
            }
            yield_now().await;
        }
        self.all_handled(count).await;
    }

    /// A task per update, limited by a semaphore.
    pub async fn semaphore(self, batches: Vec<Vec<Update>>) {
        let slots = Arc::new(Semaphore::new(self.concurrency));
        for update in batches.into_iter().flatten() {
            let slot = Arc::clone(&slots).acquire_owned().await;
            let handler = self.handle(&update);
            self.rt.spawn(async move {
                let _slot = slot;
                handler.await;
            });
        }
        let _ = slots.acquire_many(self.concurrency as u32).await;
    }

    /// The same, and every handler has a timeout.
    pub async fn semaphore_timeout(self, batches: Vec<Vec<Update>>) {
        let slots = Arc::new(Semaphore::new(self.concurrency));
        for update in batches.into_iter().flatten() {
            let slot = Arc::clone(&slots).acquire_owned().await;
            let (rt, handler) = (self.rt, self.handle(&update));
            self.rt.spawn(async move {
                let _slot = slot;
                rt.timeout(LIMIT, handler).await;
            });
        }
        let _ = slots.acquire_many(self.concurrency as u32).await;
    }

    /// The same, and a mutex for every key. Does not keep the order, see the violations.
    pub async fn mutex_per_key(self, batches: Vec<Vec<Update>>, keys: usize) {
        let slots = Arc::new(Semaphore::new(self.concurrency));
        let mut locks = HashMap::<(u8, i64), Arc<Mutex<()>>>::new();
        for update in batches.into_iter().flatten() {
            let slot = Arc::clone(&slots).acquire_owned().await;
            let mut lock = |key| Arc::clone(locks.entry(key).or_default());
            let chat = lock((0, update.chat));
            let user = (keys > 1).then(|| lock((1, update.user)));
            let (rt, handler) = (self.rt, self.handle(&update));
            self.rt.spawn(async move {
                let _slot = slot;
                let _chat = chat.lock().await;
                let _user = match &user {
                    Some(user) => Some(user.lock().await),
                    None => None,
                };
                rt.timeout(LIMIT, handler).await;
            });
        }
        let _ = slots.acquire_many(self.concurrency as u32).await;
    }

    /// A task for every chat, fed by a bounded channel; never freed.
    pub async fn worker_per_chat(self, batches: Vec<Vec<Update>>) {
        let mut chats = HashMap::<i64, async_channel::Sender<Update>>::new();
        let mut count = 0;
        for update in batches.into_iter().flatten() {
            count += 1;
            let sender = chats.entry(update.chat).or_insert_with(|| {
                let (sender, updates) = async_channel::bounded::<Update>(64);
                let job = self.clone();
                self.rt.spawn(async move {
                    while let Ok(update) = updates.recv().await {
                        job.rt.timeout(LIMIT, job.handle(&update)).await;
                    }
                });
                sender
            });
            let _ = sender.send(update).await;
        }
        self.all_handled(count).await;
    }

    /// All handlers in one task: no parallelism.
    pub async fn for_each_concurrent(self, batches: Vec<Vec<Update>>) {
        stream::iter(batches.into_iter().flatten())
            .for_each_concurrent(self.concurrency, |update| self.handle(&update))
            .await;
    }
}
