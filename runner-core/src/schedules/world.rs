//! What every test of schedules shares: a supplier, handlers, and the record that judges them.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    future::{pending, poll_fn},
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Poll, Waker},
    time::Duration,
};

use shuttle::future::yield_now;

use super::{
    explore, planned_panic,
    threads::{Threads, unpoisoned},
};
use crate::{
    BoxError, Closing, Confirmation, Delivery, Key, QueueReport, Report, RunnerHandle, RuntimeExt,
    UpdateConsumer, UpdateSupplier,
};

pub(super) const MS: Duration = Duration::from_millis(1);

pub(super) fn n(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).expect("a test asks for at least one")
}

/// Plays a test in many orders. It returns its world when it has let go of everything.
pub(super) fn play(test: impl AsyncFn(Threads) -> World + Send + Sync + 'static) {
    explore(move || Threads::run(&test).check_nothing_left());
}

/// One update. Its token tells whether anything still keeps it.
pub(super) struct Item {
    pub(super) id: u32,
    token: Arc<Token>,
}

#[derive(Default)]
struct Token {
    /// What updates look at when they are dropped. Shared, because a clone of a handle takes a lock
    /// of the runner, and none of those may be taken under this one.
    handle: Mutex<Option<Arc<RunnerHandle<Item>>>>,
    /// How many looks have begun and not ended. A panic in a destructor tells nobody.
    looks: AtomicUsize,
}

impl Drop for Item {
    fn drop(&mut self) {
        let handle = unpoisoned(&self.token.handle).clone();
        if let Some(handle) = handle {
            self.token.looks.fetch_add(1, Ordering::Relaxed);
            // Panics if this thread holds a lock of the runner.
            let _ = (handle.stats(), handle.size());
            self.token.looks.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// What a handler does with its update.
#[derive(Clone, Copy, Debug)]
pub(super) enum Plan {
    Ready,
    /// Waits this often for nothing but its turn.
    Yields(u32),
    Sleeps(Duration),
    Hangs,
    /// Waits this often for nothing but its turn, then never ends.
    YieldsAndHangs(u32),
    Fails,
    SleepsAndFails(Duration),
    PanicsInPoll,
    PanicsInConsume,
}

/// Everything that a test does not do itself. Cheap to clone.
#[derive(Clone)]
pub(super) struct World {
    pub(super) threads: Threads,
    plan: fn(u32) -> Plan,
    /// How many different keys there are; 0: updates have none.
    keys: u32,
    log: Arc<Mutex<Log>>,
}

/// What was seen. Nothing in here is switched away from, so it is one consistent record.
pub(super) struct Log {
    /// Every update has a copy.
    token: Arc<Token>,
    /// How many handlers may run at once.
    pub(super) bound: usize,
    /// How often each update may be tried.
    pub(super) attempts: u32,
    /// Whether the run is over, so that nothing may start.
    pub(super) over: bool,
    /// Whether a stop has returned, so that supplier calls are counted as late.
    pub(super) stopped: bool,
    pub(super) calls: u32,
    pub(super) late_calls: u32,
    /// Whether the next run begins with the closing of the last one.
    pub(super) cut_short: bool,
    /// The first update of the run.
    base: u32,
    /// How many updates the run was given.
    pub(super) supplied: u32,
    /// Those whose handlers had not ended when the report was written.
    given_up: Vec<u32>,
    pub(super) closed: Vec<usize>,
    running: BTreeMap<u32, u32>,
    /// How many updates began while another one ran.
    pub(super) overlaps: usize,
    /// How often each update was started.
    pub(super) starts: BTreeMap<u32, u32>,
    /// Updates whose handler has returned by itself, however, or whose lease was settled in time.
    pub(super) ends: Vec<u32>,
    /// Updates whose handler was dropped.
    pub(super) drops: Vec<u32>,
    watchers: Vec<Waker>,
    /// How many ends there must be when all tasks have ended: at least, and at most.
    pub(super) expected: Option<(u64, u64)>,
    violation: Option<String>,
}

impl World {
    pub(super) fn new(threads: &Threads, keys: u32, plan: fn(u32) -> Plan) -> Self {
        Self {
            threads: threads.clone(),
            plan,
            keys,
            log: Arc::new(Mutex::new(Log {
                token: Arc::default(),
                bound: usize::MAX,
                attempts: 1,
                over: false,
                stopped: false,
                calls: 0,
                late_calls: 0,
                cut_short: false,
                base: 0,
                supplied: 0,
                given_up: Vec::new(),
                closed: Vec::new(),
                running: BTreeMap::new(),
                overlaps: 0,
                starts: BTreeMap::new(),
                ends: Vec::new(),
                drops: Vec::new(),
                watchers: Vec::new(),
                expected: None,
                violation: None,
            })),
        }
    }

    pub(super) fn log(&self) -> MutexGuard<'_, Log> {
        unpoisoned(&self.log)
    }

    /// From now on updates look at the runner when they are dropped; `None`: not any longer.
    pub(super) fn look_from_destructors(&self, handle: Option<RunnerHandle<Item>>) {
        let token = Arc::clone(&self.log().token);
        let last = std::mem::replace(&mut *unpoisoned(&token.handle), handle.map(Arc::new));
        drop(last);
    }

    /// Updates from 0 on, in batches of these sizes, then none.
    pub(super) fn supplier(&self, batches: &[usize]) -> Batches {
        Batches {
            world: self.clone(),
            sizes: batches.to_vec(),
            next: 0,
            run_began: 0,
        }
    }

    pub(super) fn handler(&self) -> Handler {
        Handler(self.clone())
    }

    pub(super) fn keys(&self) -> impl Fn(&Item) -> Option<Key> + Send + Sync + 'static {
        let keys = self.keys;
        move |item| (keys > 0).then(|| Key::chat(i64::from(item.id % keys)))
    }

    /// Waits for the record to say so.
    pub(super) async fn until(&self, ready: impl Fn(&Log) -> bool) {
        poll_fn(|cx| {
            let mut log = self.log();
            if ready(&log) {
                return Poll::Ready(());
            }
            log.watchers.push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Waits until so many updates were started and their handlers are gone, then stops.
    pub(super) async fn handle_all(
        &self,
        handle: RunnerHandle<Item>,
        updates: u32,
    ) -> Report<Item> {
        self.until(|log| log.starts.len() == updates as usize && log.running() == 0)
            .await;
        let report = handle.stop().await.expect("nothing fails");
        self.check(&report);
        assert_eq!(report.counters.supplied, u64::from(updates));
        assert_eq!(report.counters.abandoned, 0);
        report
    }

    /// Every handler ended by itself or was dropped, and is counted as what it did.
    pub(super) fn check_timeouts(&self, report: &Report<Item>) {
        let log = self.log();
        assert_eq!(report.counters.finished, log.ends.len() as u64);
        assert_eq!(report.counters.timed_out, log.drops.len() as u64);
    }

    /// The end of a run: from now on nothing starts, and the report knows every update once.
    pub(super) fn check(&self, report: &Report<Item>) {
        let mut log = self.log();
        log.over = true;
        let counters = report.counters;
        assert_eq!(counters.supplied, u64::from(log.supplied), "{counters:?}");
        assert_eq!(counters.settled(), counters.supplied, "{counters:?}");
        assert_eq!(counters.abandoned, report.abandoned.len() as u64);
        let mut ids: Vec<u32> = (report.abandoned.iter())
            .map(|left| left.update.id)
            .collect();
        let first = ids.first().copied();
        ids.dedup();
        assert!(ids.is_sorted());
        assert_eq!(ids.len(), report.abandoned.len(), "listed twice");
        for left in &*report.abandoned {
            let id = left.update.id;
            assert!(id >= log.base && id < log.base + log.supplied);
            if left.unresponsive {
                log.given_up.push(id);
            } else {
                assert_eq!(left.started, log.starts.contains_key(&id));
                assert!(!log.running.contains_key(&id), "{id} still runs");
            }
        }
        // Told to the supplier is what was settled without a gap, and nothing behind it.
        if let Some(prefix) = log.closed.last() {
            let end = log.base + log.supplied;
            assert_eq!(log.base + *prefix as u32, first.unwrap_or(end));
        }
    }

    /// Updates for a queue without a runner.
    pub(super) fn items(&self, ids: impl IntoIterator<Item = u32>) -> Vec<Item> {
        let mut log = self.log();
        let token = Arc::clone(&log.token);
        let items = ids.into_iter().map(|id| Item {
            id,
            token: Arc::clone(&token),
        });
        let items: Vec<Item> = items.collect();
        log.supplied += items.len() as u32;
        items
    }

    /// The queue was closed and has given these back.
    pub(super) fn refused(&self, items: &[Item]) {
        self.log().supplied -= items.len() as u32;
    }

    /// The end of a queue: from now on nothing starts, and the report knows every update once.
    pub(super) fn check_queue(&self, report: &QueueReport<Item>) {
        let mut log = self.log();
        log.over = true;
        let counters = report.counters;
        assert_eq!(counters.supplied, u64::from(log.supplied), "{counters:?}");
        assert_eq!(counters.settled(), counters.supplied, "{counters:?}");
        assert_eq!(counters.abandoned, report.abandoned.len() as u64);
        assert!(report.abandoned.is_sorted_by_key(|left| left.id));
        let ids = report.abandoned.iter().map(|left| left.update.id);
        let ids: BTreeSet<u32> = ids.collect();
        assert_eq!(ids.len(), report.abandoned.len(), "listed twice");
        for left in &report.abandoned {
            let id = left.update.id;
            if left.unresponsive {
                log.given_up.push(id);
            } else {
                assert_eq!(left.started, log.starts.contains_key(&id));
                assert!(!log.running.contains_key(&id), "{id} still runs");
            }
        }
    }

    /// Before another run.
    pub(super) fn begin_again(&self) {
        let mut log = self.log();
        assert!(log.over && log.running.is_empty());
        log.over = false;
        log.stopped = false;
        log.given_up.clear();
        log.starts.clear();
        match log.closed.pop() {
            Some(prefix) => log.go_on_after(prefix),
            None => log.cut_short = true,
        }
    }

    /// When every task has ended, all that was supplied has been let go of.
    fn check_nothing_left(&self) {
        let log = self.log();
        assert_eq!(log.violation, None);
        if let Some((least, most)) = log.expected {
            let ends = log.ends.len() as u64;
            assert!(least <= ends && ends <= most, "{ends} of {least} to {most}");
        }
        assert!(log.running.is_empty(), "handlers still run");
        assert_eq!(Arc::strong_count(&log.token), 1, "updates are left");
        let looks = log.token.looks.load(Ordering::Relaxed);
        assert_eq!(looks, 0, "an update was dropped under a lock");
    }
}

impl Log {
    pub(super) fn running(&self) -> usize {
        self.running.len()
    }

    /// What was settled without a gap does not come again; the rest does.
    fn go_on_after(&mut self, prefix: usize) {
        self.base += prefix as u32;
        self.supplied = 0;
    }

    /// Notes what is wrong. A panic would be caught by the very code that is judged.
    fn require(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.violation.get_or_insert_with(what);
        }
    }

    pub(super) fn wake(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.watchers)
    }
}

/// The supplier. Never loses its place when a call is dropped.
pub(super) struct Batches {
    world: World,
    sizes: Vec<usize>,
    next: u32,
    run_began: u32,
}

impl UpdateSupplier for Batches {
    type Update = Item;
    type Error = Infallible;

    async fn supply(&mut self, limit: NonZeroUsize) -> Result<Vec<Item>, Infallible> {
        {
            let mut log = self.world.log();
            let over = log.over;
            log.require(!over, || "a supply call after the report".to_owned());
            log.calls += 1;
            log.late_calls += u32::from(log.stopped);
        }
        yield_now().await;
        if self.sizes.is_empty() {
            return pending().await;
        }
        let size = self.sizes[0].min(limit.get());
        self.sizes[0] -= size;
        self.sizes.retain(|size| *size > 0);
        let first = self.next;
        self.next += size as u32;
        let (wakers, token) = {
            let mut log = self.world.log();
            log.supplied += size as u32;
            (log.wake(), Arc::clone(&log.token))
        };
        wakers.into_iter().for_each(Waker::wake);
        Ok((first..self.next)
            .map(|id| Item {
                id,
                token: Arc::clone(&token),
            })
            .collect())
    }

    async fn close(&mut self, settled_prefix: usize) -> Result<Closing, Infallible> {
        let wakers = {
            let mut log = self.world.log();
            if std::mem::take(&mut log.cut_short) {
                log.go_on_after(settled_prefix);
            } else {
                log.closed.push(settled_prefix);
            }
            log.wake()
        };
        wakers.into_iter().for_each(Waker::wake);
        let first = self.run_began + settled_prefix as u32;
        let again = (self.next - first) as usize;
        if again > 0 {
            self.sizes.insert(0, again);
            self.next = first;
        }
        self.run_began = self.next;
        let position = i64::from(first);
        Ok(Closing::new(Confirmation::Confirmed { position }).redelivers_from(settled_prefix))
    }
}

/// The consumer: every update by its plan.
pub(super) struct Handler(World);

impl UpdateConsumer<Item> for Handler {
    type Error = BoxError;

    fn consume(&self, update: Delivery<Item>) -> impl Future<Output = Result<(), BoxError>> + Send {
        let world = self.0.clone();
        let plan = (world.plan)(update.id);
        let started = Started::new(&world, update.id, update.attempt().get());
        if let Plan::PanicsInConsume = plan {
            planned_panic();
        }
        async move {
            match plan {
                Plan::Ready | Plan::PanicsInConsume => {}
                Plan::Yields(times) => {
                    for _ in 0..times {
                        yield_now().await;
                    }
                }
                Plan::Sleeps(span) => world.threads.sleep(span).await,
                Plan::Hangs => pending().await,
                Plan::YieldsAndHangs(times) => {
                    for _ in 0..times {
                        yield_now().await;
                    }
                    pending().await
                }
                Plan::SleepsAndFails(span) => {
                    world.threads.sleep(span).await;
                    started.end();
                    return Err("planned".into());
                }
                Plan::Fails => {
                    started.end();
                    return Err("planned".into());
                }
                Plan::PanicsInPoll => planned_panic(),
            }
            drop(update);
            started.end();
            Ok(())
        }
    }
}

/// Held by a handler that runs.
struct Started {
    world: World,
    id: u32,
    ended: bool,
}

impl Started {
    fn new(world: &World, id: u32, attempt: u32) -> Self {
        let wakers = {
            let mut log = world.log();
            // One that was claimed and not yet called counts as begun, and is reported as such.
            let late = log.over && !log.given_up.contains(&id);
            log.require(!late, || format!("{id} starts after the report"));
            let starts = log.starts.entry(id).or_default();
            *starts += 1;
            let (starts, attempts) = (*starts, log.attempts);
            log.require(starts == attempt && attempt <= attempts, || {
                format!("{id} is started for the {starts}th time, as attempt {attempt}")
            });
            let (running, bound) = (log.running.len() + 1, log.bound);
            log.overlaps += usize::from(running > 1);
            log.require(running <= bound, || format!("{running} at once"));
            if world.keys > 0 {
                let same = |other: &&u32| **other % world.keys == id % world.keys;
                let other = log.running.keys().find(same).copied();
                log.require(other.is_none(), || {
                    format!("{id} at the same time as {other:?}")
                });
                let later = log.starts.keys().filter(same).any(|other| *other > id);
                log.require(!later, || format!("{id} out of order"));
            }
            log.running.insert(id, attempt);
            log.wake()
        };
        wakers.into_iter().for_each(Waker::wake);
        Self {
            world: world.clone(),
            id,
            ended: false,
        }
    }

    fn end(mut self) {
        self.ended = true;
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let wakers = {
            let mut log = self.world.log();
            log.running.remove(&self.id).expect("it was started");
            if self.ended {
                log.ends.push(self.id);
            } else {
                log.drops.push(self.id);
            }
            log.wake()
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}
