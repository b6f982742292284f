//! A queue without a runner: updates from several tasks, all of its ends, and a record of its own.

use std::{
    collections::BTreeSet,
    future::pending,
    num::NonZeroUsize,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicIsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use runner_core::{
    BoxFuture, Cause, Counters, DecayingQueue, Delivery, Failure, Key, LateHandler, QueueReport,
    Runtime, RuntimeExt, SinkOptions, Verdict, testing::SimRuntime,
};

use crate::{
    coverage::{Coverage, Seen},
    dice::Dice,
    world::planned_panic,
};

/// Drawn once per seed.
#[derive(Clone, Copy, Debug)]
struct Config {
    seed: u64,
    concurrency: usize,
    prefetch: usize,
    max_waiting: usize,
    max_bytes: Option<usize>,
    workers: Option<usize>,
    timeout: Option<Duration>,
    /// Late handlers go on: how many of them without their slots.
    detach: Option<usize>,
    keys: u64,
    badness: u64,
    adders: u64,
    end: End,
    own_clock: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Drain,
    DrainWithin,
    Abandon,
    DropHandles,
}

/// One update. Its numbers follow the order in which they were added.
struct Job {
    nr: usize,
    live: Arc<AtomicIsize>,
}

impl Drop for Job {
    fn drop(&mut self) {
        self.live.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Waits; after an attempt that failed, it may have been given up for it.
    Held(Option<Ending>),
    Running,
    Failed(Ending),
    Done(Ending),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Finished,
    Failed,
    Panicked,
    TimedOut,
}

struct Entry {
    state: State,
    attempts: u32,
    added: Duration,
    late: bool,
    detached: bool,
}

/// What was seen.
struct Record {
    sim: SimRuntime,
    config: Config,
    entries: Vec<Entry>,
    /// The queue was told to end.
    stopping: bool,
    /// The test has let go of its handle.
    released: bool,
    /// When its handlers are dropped.
    cancelled_at: Option<Duration>,
    /// Its report was written.
    over: bool,
    coverage: Coverage,
    violation: Option<String>,
}

#[derive(Clone)]
struct Shared(Arc<Mutex<Record>>, Arc<AtomicIsize>);

type Queue = DecayingQueue<Job>;

impl Config {
    fn draw(seed: u64) -> Self {
        let mut dice = Dice::new(seed, &[20]);
        Self {
            seed,
            concurrency: dice.between(1, 6) as usize,
            prefetch: dice.between(0, 10) as usize,
            max_waiting: dice.between(1, 20) as usize,
            max_bytes: dice.chance(400).then(|| dice.between(20, 400) as usize),
            workers: Some(dice.between(1, 3) as usize),
            timeout: dice.chance(600).then(|| dice.ms(5, 60)),
            detach: dice.pick(&[(2, None), (1, Some(0)), (1, Some(1))]),
            keys: dice.between(1, 6),
            badness: dice.pick(&[(1, 0), (2, 300)]),
            adders: dice.between(1, 3),
            end: dice.pick(&[
                (2, End::Drain),
                (2, End::DrainWithin),
                (2, End::Abandon),
                (1, End::DropHandles),
            ]),
            own_clock: dice.chance(300),
        }
    }

    fn key(&self, nr: usize) -> Option<u64> {
        let mut dice = Dice::new(self.seed, &[21, nr as u64]);
        dice.chance(700).then(|| dice.next() % self.keys)
    }

    fn bytes(&self, nr: usize) -> usize {
        Dice::new(self.seed, &[22, nr as u64]).between(0, 50) as usize
    }

    fn options(&self) -> SinkOptions {
        let n = |number| NonZeroUsize::new(number).expect("drawn from 1 on");
        let mut options = SinkOptions::concurrent()
            .concurrency(n(self.concurrency))
            .prefetch(self.prefetch)
            .max_waiting(n(self.max_waiting));
        if let Some(max) = self.max_bytes {
            options = options.max_bytes(n(max));
        }
        if let Some(workers) = self.workers {
            options = options.workers(n(workers));
        }
        if let Some(timeout) = self.timeout {
            options = options.timeout(timeout);
        }
        match self.detach {
            None => options,
            Some(0) => options.continue_after_timeout(),
            Some(max) => options.detach_after_timeout(Some(n(max))),
        }
    }
}

impl Record {
    fn require(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds && self.violation.is_none() {
            let what = format!("{} (at {:?})", what(), self.sim.elapsed());
            self.violation = Some(what);
        }
    }

    fn held(&self) -> impl Iterator<Item = usize> {
        let entries = self.entries.iter().enumerate();
        entries
            .filter(|(_, entry)| !matches!(entry.state, State::Done(_)))
            .map(|(nr, _)| nr)
    }

    /// Handlers and policies that hold a slot.
    fn slots(&self) -> usize {
        let entries = self.entries.iter();
        entries
            .filter(|entry| matches!(entry.state, State::Running | State::Failed(_)))
            .filter(|entry| !entry.detached)
            .count()
    }

    fn start(&mut self, nr: usize, attempt: u32) {
        let now = self.sim.elapsed();
        let fits = !self.over && self.cancelled_at.is_none_or(|at| now <= at);
        self.require(fits, || format!("{nr} starts after the end"));
        let state = self.entries[nr].state;
        self.require(matches!(state, State::Held(_)), || {
            format!("{nr} starts while {state:?}")
        });
        let key = self.config.key(nr);
        let earlier = self.held().take_while(|other| *other < nr);
        let earlier = earlier.filter(|other| key.is_some() && self.config.key(*other) == key);
        for other in earlier.collect::<Vec<_>>() {
            match self.entries[other].state {
                // So its attempt was its last one.
                State::Held(Some(ending)) if self.stopping || self.released => {
                    self.entries[other].state = State::Done(ending);
                }
                state => self.require(false, || {
                    format!("{nr} starts before {other}, which is {state:?}")
                }),
            }
        }
        let entry = &mut self.entries[nr];
        entry.attempts += 1;
        entry.state = State::Running;
        (entry.late, entry.detached) = (false, false);
        let attempts = entry.attempts;
        self.require(attempt == attempts, || {
            format!("{nr} starts as attempt {attempt}, not {attempts}")
        });
        let (slots, most) = (self.slots(), self.config.concurrency);
        self.require(slots <= most, || format!("{slots} at once, not {most}"));
    }

    fn end(&mut self, nr: usize, ending: Option<Ending>) {
        let state = self.entries[nr].state;
        self.require(state == State::Running, || {
            format!("{nr} ends while {state:?}")
        });
        let now = self.sim.elapsed();
        let cancelled = self.cancelled_at.is_some_and(|at| at <= now);
        self.entries[nr].state = match ending {
            Some(Ending::Finished) => State::Done(Ending::Finished),
            Some(ending) => State::Failed(ending),
            // Or abandoned, if both come at the same instant.
            None => State::Failed(Ending::TimedOut),
        };
        if ending.is_none() && !cancelled {
            let fits = self.config.timeout.is_some() && self.config.detach.is_none();
            self.require(fits, || format!("{nr} is dropped for no reason"));
            self.coverage.add(Seen::QueueTimesOut);
        }
    }

    fn late(&mut self, nr: usize, age: Duration, detached: bool) {
        self.coverage.add(Seen::QueueLate);
        let others = self.entries.iter().filter(|entry| {
            entry.detached && matches!(entry.state, State::Running | State::Failed(_))
        });
        let may = self.config.detach.is_some_and(|max| others.count() < max);
        self.require(detached == may, || format!("{nr}: detached is {detached}"));
        let entry = &mut self.entries[nr];
        let fits = entry.state == State::Running && !entry.late;
        let expected = self.sim.elapsed() - entry.added;
        (entry.late, entry.detached) = (true, detached);
        self.require(fits, || format!("{nr} is said to be late"));
        self.require(age == expected, || {
            format!("{nr} is held for {expected:?}, not {age:?}")
        });
    }

    fn decide(&mut self, nr: usize, attempt: u32, cause: &Cause) -> Verdict {
        let State::Failed(ending) = self.entries[nr].state else {
            let state = self.entries[nr].state;
            self.require(false, || {
                format!("the policy decides about {nr}: {state:?}")
            });
            return Verdict::Skip;
        };
        let fits = matches!(
            (ending, cause),
            (Ending::Failed, Cause::Error(_))
                | (Ending::Panicked, Cause::Panic(_))
                | (Ending::TimedOut, Cause::Timeout)
        );
        self.require(fits, || format!("{nr}: {cause:?} after {ending:?}"));
        let mut dice = Dice::new(self.config.seed, &[23, nr as u64, attempt.into()]);
        let retries = attempt < 4 && dice.chance(500);
        let entry = &mut self.entries[nr];
        entry.detached = false;
        if retries {
            self.coverage.add(Seen::QueueRetries);
            entry.state = State::Held(Some(ending));
            let after = dice.ms(0, 30);
            return Verdict::Retry { after };
        }
        entry.state = State::Done(ending);
        Verdict::Skip
    }

    /// Somebody is told how much room there is.
    fn room(&mut self, room: Option<usize>) {
        let Some(room) = room else {
            let stopping = self.stopping;
            self.require(stopping, || "no room for good, without a stop".to_owned());
            return;
        };
        let held: Vec<usize> = self.held().collect();
        let bytes: usize = held.iter().map(|nr| self.config.bytes(*nr)).sum();
        let max = self.config.max_bytes;
        // After a stop no one is told of any.
        let stopping = self.stopping;
        self.require(!stopping, || "room after the stop".to_owned());
        self.require(max.is_none_or(|max| bytes < max), || {
            format!("room while {bytes} bytes of {max:?} are held")
        });
        let most = self.config.concurrency + self.config.prefetch;
        self.require(room <= most.min(100), || format!("room for {room}"));
        let waits = held.iter().filter(|nr| {
            let same = |other: &&usize| self.config.key(**other) == self.config.key(**nr);
            self.config.key(**nr).is_some()
                && held
                    .iter()
                    .take_while(|other| other < nr)
                    .any(|other| same(&other))
        });
        let waiting = waits.count();
        self.require(waiting < self.config.max_waiting, || {
            format!("room while {waiting} wait for a key")
        });
    }

    fn report(&mut self, report: &QueueReport<Job>) {
        self.over = true;
        let listed: Vec<usize> = (report.abandoned.iter())
            .map(|left| left.update.nr)
            .collect();
        self.require(listed.is_sorted(), || format!("{listed:?} is not in order"));
        let listed: BTreeSet<usize> = listed.into_iter().collect();
        let mut seen = Counters::default();
        seen.supplied = self.entries.len() as u64;
        seen.abandoned = report.abandoned.len() as u64;
        for nr in 0..self.entries.len() {
            let state = self.entries[nr].state;
            let ending = match state {
                _ if listed.contains(&nr) => {
                    self.require(!matches!(state, State::Done(_)), || {
                        format!("{nr} is {state:?} and listed as abandoned")
                    });
                    continue;
                }
                State::Done(ending) | State::Held(Some(ending)) => ending,
                state => {
                    self.require(false, || format!("{nr} is {state:?} and not in the report"));
                    continue;
                }
            };
            *match ending {
                Ending::Finished => &mut seen.finished,
                Ending::Failed => &mut seen.failed,
                Ending::Panicked => &mut seen.panicked,
                Ending::TimedOut => &mut seen.timed_out,
            } += 1;
        }
        let counters = report.counters;
        (seen.retried, seen.detached) = (counters.retried, counters.detached);
        self.require(counters == seen, || {
            format!("told {counters:?}, seen {seen:?}")
        });
        let fault = report.fault.is_some();
        self.require(!fault, || "halted by itself".to_owned());
        for left in &report.abandoned {
            let (nr, started) = (left.update.nr, self.entries[left.update.nr].attempts > 0);
            self.require(left.started == started && !left.unresponsive, || {
                format!("{nr} is listed as started: {}", left.started)
            });
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Record> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self, sim: &SimRuntime, config: Config) -> Queue {
        let (runtime, world) = (Arc::new(sim.clone()), self.clone());
        let (deciding, late) = (self.clone(), self.clone());
        let handler = move |update: Delivery<Job>| {
            let (nr, attempt) = (update.nr, update.attempt().get());
            world.lock().start(nr, attempt);
            let sim = world.lock().sim.clone();
            let work = Box::pin(handle(sim, config, update));
            let world = world.clone();
            Attempt {
                world,
                nr,
                work,
                ended: false,
            }
        };
        let builder = DecayingQueue::for_each(runtime, handler)
            .options(config.options())
            .sequentialize(move |job: &Job| config.key(job.nr).map(|key| Key::chat(key as i64)))
            .size_by(move |job: &Job| config.bytes(job.nr))
            .policy(move |failure: Failure<Job>| {
                let attempt = failure.update.attempt().get();
                deciding
                    .lock()
                    .decide(failure.update.nr, attempt, &failure.cause)
            })
            .on_late(move |handler: LateHandler<Job>| {
                let LateHandler {
                    update,
                    age,
                    detached,
                    ..
                } = handler;
                late.lock().late(update.nr, age, detached);
            });
        if !config.own_clock {
            return builder.build();
        }
        self.lock().coverage.add(Seen::QueueOwnClock);
        let (queue, clock) = builder.build_with_clock();
        sim.spawn(Box::pin(clock));
        queue
    }

    /// Adds a batch. `None`: the queue takes no more.
    fn add(&self, queue: &Queue, count: usize) -> Option<runner_core::Room> {
        let jobs: Vec<Job> = {
            let mut record = self.lock();
            let added = record.sim.elapsed();
            let first = record.entries.len();
            let jobs = (first..first + count).map(|nr| {
                self.1.fetch_add(1, Ordering::Relaxed);
                record.entries.push(Entry {
                    state: State::Held(None),
                    attempts: 0,
                    added,
                    late: false,
                    detached: false,
                });
                Job {
                    nr,
                    live: Arc::clone(&self.1),
                }
            });
            jobs.collect()
        };
        match queue.add(jobs) {
            Ok(room) => Some(room),
            Err(closed) => {
                let mut record = self.lock();
                record.coverage.add(Seen::QueueRefuses);
                let (stopping, refused) = (record.stopping, closed.0.len());
                record.require(stopping && refused == count, || {
                    format!("{refused} of {count} are refused")
                });
                let left = record.entries.len() - count;
                record.entries.truncate(left);
                None
            }
        }
    }

    /// Adds updates for as long as the queue takes some.
    async fn feed(self, sim: SimRuntime, queue: Queue, mut dice: Dice) {
        for _ in 0..dice.between(3, 12) {
            let count = dice.between(0, 5) as usize;
            let Some(room) = self.add(&queue, count) else {
                return;
            };
            if dice.chance(900) {
                let before = sim.elapsed();
                let room = room.await;
                if sim.elapsed() > before {
                    self.lock().coverage.add(Seen::QueueRoom);
                }
                self.lock().room(room.map(NonZeroUsize::get));
            }
            if dice.chance(500) {
                sim.sleep(dice.ms(0, 20)).await;
            }
        }
    }

    fn look(&self, queue: &Queue) {
        let (len, snapshot, stats) = (queue.len(), queue.snapshot(), queue.stats());
        let mut record = self.lock();
        if record.stopping {
            return;
        }
        let held: Vec<usize> = record.held().collect();
        let told: Vec<usize> = snapshot.iter().map(|held| held.update.nr).collect();
        record.require(told == held && len == held.len(), || {
            format!("{len} held, {told:?}, not {held:?}")
        });
        let bytes: usize = held.iter().map(|nr| record.config.bytes(*nr)).sum();
        let slots = record.slots();
        record.require(stats.bytes == bytes && stats.in_flight == slots, || {
            format!("{stats:?}, not {bytes} bytes and {slots} in flight")
        });
    }
}

/// Plays the life of one queue.
pub(crate) fn play(seed: u64) -> Coverage {
    let sim = SimRuntime::new(seed);
    let config = Config::draw(seed);
    let world = Shared(
        Arc::new(Mutex::new(Record {
            sim: sim.clone(),
            config,
            entries: Vec::new(),
            stopping: false,
            released: false,
            cancelled_at: None,
            over: false,
            coverage: Coverage::default(),
            violation: None,
        })),
        Arc::default(),
    );
    sim.block_on(direct(&world, &sim, config));
    sim.advance(Duration::from_secs(10));
    let (tasks, live) = (sim.tasks(), world.1.load(Ordering::Relaxed));
    let mut record = world.lock();
    record.require(tasks == 0, || format!("{tasks} tasks are left"));
    record.require(live == 0, || format!("{live} updates are left"));
    if let Some(violation) = record.violation.take() {
        panic!("{config:#?}\na queue alone: {violation}");
    }
    record.coverage.clone()
}

async fn direct(world: &Shared, sim: &SimRuntime, config: Config) {
    let mut dice = Dice::new(config.seed, &[24]);
    let queue = world.queue(sim, config);
    for adder in 0..config.adders {
        let dice = Dice::new(config.seed, &[25, adder]);
        sim.spawn(Box::pin(world.clone().feed(
            sim.clone(),
            queue.clone(),
            dice,
        )));
    }
    for _ in 0..dice.between(0, 4) {
        sim.sleep(dice.ms(0, 50)).await;
        if dice.chance(200) {
            sim.suspend(dice.ms(1, 100));
            sim.sleep(Duration::from_millis(1)).await;
        }
        world.look(&queue);
    }
    let began = sim.elapsed();
    let limit = dice.ms(0, 60);
    let report = match config.end {
        End::DropHandles => {
            world.lock().coverage.add(Seen::QueueHandlesDropped);
            world.lock().released = true;
            // The adders have theirs until they are done.
            drop(queue);
            sim.sleep(Duration::from_secs(100)).await;
            let mut record = world.lock();
            let left = record
                .entries
                .iter()
                .position(|entry| !matches!(entry.state, State::Done(_) | State::Held(Some(_))));
            record.require(left.is_none(), || format!("{left:?} is left"));
            return;
        }
        End::Drain => {
            world.lock().coverage.add(Seen::QueueDrained);
            world.lock().stopping = true;
            queue.drain().await
        }
        End::DrainWithin => {
            world.lock().coverage.add(Seen::QueueDrainedWithin);
            world.lock().stopping = true;
            world.lock().cancelled_at = Some(began + limit);
            queue.drain_within(limit).await
        }
        End::Abandon => {
            world.lock().coverage.add(Seen::QueueAbandoned);
            world.lock().stopping = true;
            world.lock().cancelled_at = Some(began);
            queue.abandon();
            queue.drain().await
        }
    };
    let took = sim.elapsed() - began;
    let fits = match config.end {
        End::DrainWithin => took <= limit + Duration::from_secs(1),
        End::Abandon => took.is_zero(),
        _ => true,
    };
    {
        let mut record = world.lock();
        record.require(fits, || format!("the end took {took:?}"));
        record.report(&report);
    }
    drop(report);
    let again = queue.drain().await;
    let mut record = world.lock();
    record.require(again.abandoned.is_empty() && queue.is_empty(), || {
        "something is left after the report".to_owned()
    });
    drop(record);
    world.add(&queue, 1);
}

async fn handle(
    sim: SimRuntime,
    config: Config,
    update: Delivery<Job>,
) -> Result<(), &'static str> {
    let mut dice = Dice::new(
        config.seed,
        &[26, update.nr as u64, update.attempt().get().into()],
    );
    if dice.chance(500) {
        sim.sleep(dice.ms(0, 60)).await;
    }
    if !dice.chance(config.badness) {
        return Ok(());
    }
    match dice.between(0, 3) {
        0 => planned_panic(),
        // Without a timeout that cancels it, only an end with a limit can.
        1 if config.timeout.is_some() && config.detach.is_none() => pending().await,
        1 if matches!(config.end, End::Abandon | End::DrainWithin) => pending().await,
        _ => Err("planned"),
    }
}

/// One attempt, which tells how it ends, however it ends.
struct Attempt {
    world: Shared,
    nr: usize,
    work: BoxFuture<'static, Result<(), &'static str>>,
    ended: bool,
}

impl Attempt {
    fn end(&mut self, ending: Option<Ending>) {
        if !std::mem::replace(&mut self.ended, true) {
            self.world.lock().end(self.nr, ending);
        }
    }
}

impl Future for Attempt {
    type Output = Result<(), &'static str>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        /// A handler that panics ends by it.
        struct Guard<'a>(&'a mut Attempt);
        impl Drop for Guard<'_> {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    self.0.end(Some(Ending::Panicked));
                }
            }
        }
        let guard = Guard(&mut self);
        let result = guard.0.work.as_mut().poll(cx);
        drop(guard);
        match &result {
            Poll::Pending => {}
            Poll::Ready(Ok(())) => self.end(Some(Ending::Finished)),
            Poll::Ready(Err(_)) => self.end(Some(Ending::Failed)),
        }
        result
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.end(None);
    }
}
