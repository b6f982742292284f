//! A Bot API server as the update fetcher sees it: it keeps updates until it is told to forget them.
//!
//! Requests and answers take time, and both get lost; a request may be processed although whoever
//! sent it has given up.

use std::{
    collections::{BTreeSet, VecDeque},
    future::{pending, poll_fn},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
    time::Duration,
};

use runner_core::{
    BoxError, Conflict, Delivery, FetchOptions, GetUpdates, Key, Runtime, RuntimeExt, SupplyError,
    UpdatesRequest,
};

use crate::{
    coverage::Seen,
    dice::Dice,
    world::{Item, World, planned_panic},
};

/// The client's end of the server.
pub(crate) struct Server {
    world: Arc<World>,
    bot: Bot,
    calls: u64,
    /// Something in between cuts every poll that waits for so long.
    cut: Option<Duration>,
}

/// The server's own state. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Bot(Arc<Mutex<State>>);

struct State {
    /// Update ids and updates, oldest first.
    kept: VecDeque<(i64, u64)>,
    /// The id of the next update.
    tail: i64,
    /// Every offset that was processed.
    offsets: BTreeSet<i64>,
    /// The ids of what was forgotten.
    forgotten: BTreeSet<i64>,
    /// The last answer that had updates.
    last: Vec<(i64, u64)>,
    /// Updates that came once more when they had been forgotten, perhaps.
    repeated: BTreeSet<u64>,
    waker: Option<Waker>,
}

#[derive(Clone, Copy)]
enum Fault {
    None,
    /// The request never arrives.
    Hang,
    /// The request arrives, and its answer does not.
    HangAfter,
    Transient,
    TransientAfter,
    /// The last answer comes once more.
    Repeat,
    RetryAfter,
    Poller,
    Fatal,
    Panic,
}

impl Server {
    pub(crate) fn new(world: &Arc<World>) -> Self {
        let bot = Bot(Arc::new(Mutex::new(State {
            kept: VecDeque::new(),
            tail: 1_000_000,
            offsets: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            last: Vec::new(),
            repeated: BTreeSet::new(),
            waker: None,
        })));
        let mut dice = world.dice(&[13]);
        let server = Self {
            world: Arc::clone(world),
            bot: bot.clone(),
            calls: 0,
            cut: (world.config.badness > 0 && dice.chance(350)).then(|| dice.ms(0, 200)),
        };
        let world = Arc::clone(world);
        let sim = world.sim.clone();
        sim.spawn(Box::pin(async move { bot.fill(&world).await }));
        server
    }

    pub(crate) fn bot(&self) -> Bot {
        self.bot.clone()
    }

    pub(crate) fn options(world: &World) -> FetchOptions {
        let mut dice = world.dice(&[10]);
        FetchOptions::default()
            .limit(dice.pick(&[(1, 1), (1, 7), (2, 100)]))
            .timeout(Duration::from_secs(dice.between(0, 2)))
            .margin(dice.ms(100, 400))
    }
}

impl Bot {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Users send updates.
    async fn fill(&self, world: &World) {
        let mut dice = world.dice(&[11]);
        for id in 0..world.config.updates {
            if dice.chance(600) {
                world.sim.sleep(dice.ms(0, 40)).await;
            }
            let mut state = self.lock();
            if state.kept.is_empty() && dice.chance(300) {
                // As after a week without updates. Not closely below an offset that was in use: a server
                // drops updates there, and no client can help it.
                let tail = dice.between(1, 900_000) as i64;
                let ids = tail..tail + world.config.updates as i64;
                if !ids.contains(&state.tail) && state.offsets.range(ids).next().is_none() {
                    if tail < state.tail {
                        world.seen(Seen::IdsJumpDown);
                    }
                    state.tail = tail;
                }
            }
            let tail = state.tail;
            state.kept.push_back((tail, id));
            state.tail += 1;
            let waker = state.waker.take();
            drop(state);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// Reads the offset of a request, and forgets what is below.
    fn process(&self, world: &World, offset: Option<i64>) {
        let mut state = self.lock();
        let Some(offset) = offset else { return };
        state.offsets.insert(offset);
        if offset > state.tail {
            return;
        }
        while let Some((first, id)) = state.kept.front().copied()
            && first < offset
        {
            state.kept.pop_front();
            state.forgotten.insert(first);
            world.oracle().forgotten(id);
        }
    }

    /// Waits for updates.
    async fn some(&self, limit: usize) -> Vec<(i64, u64)> {
        poll_fn(|cx| {
            let mut state = self.lock();
            if state.kept.is_empty() {
                state.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(state.kept.iter().take(limit).copied().collect())
        })
        .await
    }

    /// The last answer, if the offset is beyond it.
    fn last(&self, offset: Option<i64>) -> Option<Vec<(i64, u64)>> {
        let last = self.lock().last.clone();
        let highest = last.iter().map(|(update_id, _)| *update_id).max()?;
        offset
            .is_some_and(|offset| offset > highest)
            .then_some(last)
    }

    /// Whether the server still has it, or nobody can know: it has repeated an answer that the client had asked it
    /// to forget, and the client may have wanted that one again.
    pub(crate) fn may_keep(&self, id: u64) -> bool {
        let state = self.lock();
        state.kept.iter().any(|(_, kept)| *kept == id) || state.repeated.contains(&id)
    }

    /// Whether it has forgotten everything before `position`: it was told so, or keeps nothing that
    /// is older.
    pub(crate) fn is_confirmed(&self, position: i64) -> bool {
        let state = self.lock();
        let first = state.kept.front().map(|(first, _)| *first);
        state.offsets.contains(&position)
            || state.forgotten.contains(&position)
            || first == Some(position)
    }
}

impl GetUpdates for Server {
    type Raw = Item;
    type Update = Item;
    type Error = SupplyError;

    async fn get_updates(&mut self, request: &UpdatesRequest) -> Result<Vec<Item>, SupplyError> {
        self.calls += 1;
        let world = &self.world;
        let sim = &world.sim;
        let mut dice = world.dice(&[12, self.calls]);
        let fault = draw(&mut dice, world.config.badness);
        // It may be processed at once, and may not be at all if it is dropped early.
        let early = dice.chance(500) && !matches!(fault, Fault::Hang | Fault::Transient);
        if early {
            self.bot.process(world, request.offset);
        }
        sim.sleep(dice.ms(0, 15)).await;
        match fault {
            Fault::Hang => {
                world.seen(Seen::SupplyHangs);
                pending().await
            }
            Fault::Transient => return Err(SupplyError::transient("planned")),
            Fault::RetryAfter => {
                return Err(SupplyError::retry_after(dice.ms(0, 100), "planned"));
            }
            Fault::Fatal => return Err(SupplyError::fatal("planned")),
            Fault::Panic => planned_panic(),
            _ => {}
        }
        if !early {
            self.bot.process(world, request.offset);
        }
        if let Fault::Poller = fault {
            return Err(SupplyError::conflict(Conflict::Poller, "planned"));
        }
        if let Fault::Repeat = fault
            && let Some(last) = self.bot.last(request.offset)
        {
            let ids = last.iter().map(|(_, id)| *id);
            self.bot.lock().repeated.extend(ids);
            world.seen(Seen::ServerRepeats);
            return Ok(items(world, last));
        }
        let some = self.bot.some(request.limit.into());
        let span = self.cut.unwrap_or(request.timeout).min(request.timeout);
        let updates = match sim.timeout(span, some).await {
            Some(updates) => updates,
            None if span < request.timeout => {
                world.seen(Seen::ServerCuts);
                return Err(SupplyError::transient("planned"));
            }
            None => Vec::new(),
        };
        sim.sleep(dice.ms(0, 15)).await;
        match fault {
            Fault::HangAfter => {
                world.seen(Seen::SupplyHangs);
                pending().await
            }
            Fault::TransientAfter => Err(SupplyError::transient("planned")),
            _ => {
                if !updates.is_empty() {
                    self.bot.lock().last.clone_from(&updates);
                }
                Ok(items(world, updates))
            }
        }
    }

    async fn delete_webhook(&mut self, _: bool) -> Result<(), SupplyError> {
        Ok(())
    }

    fn update_id(item: &Item) -> i64 {
        item.update_id
    }

    fn default_key(_: &Item) -> Option<Key> {
        None
    }

    fn decode(item: Delivery<Item>) -> Result<Delivery<Item>, BoxError> {
        Ok(item)
    }
}

fn items(world: &World, updates: Vec<(i64, u64)>) -> Vec<Item> {
    updates
        .into_iter()
        .map(|(update_id, id)| Item::fetched(world, update_id, id))
        .collect()
}

fn draw(dice: &mut Dice, badness: u64) -> Fault {
    if !dice.chance(badness / 2) {
        return Fault::None;
    }
    dice.pick(&[
        (10, Fault::Hang),
        (10, Fault::HangAfter),
        (15, Fault::Transient),
        (15, Fault::TransientAfter),
        (20, Fault::Repeat),
        (10, Fault::RetryAfter),
        (8, Fault::Poller),
        (2, Fault::Fatal),
        (2, Fault::Panic),
    ])
}
