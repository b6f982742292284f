//! The queue against a naive model of it, under random operations.
//!
//! Also, that it drops nothing of the user's: no update, error or waker, because it is under a lock.

use std::{
    any::Any,
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    fmt,
    num::NonZeroUsize,
    sync::{Arc, Weak},
    task::{Wake, Waker},
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::{
    effects::{Effects, Wakers},
    intake::Arrival,
    node::Cancel,
    options::{Mode, OnTimeout, SinkOptions},
    outcome::{Ending, Outcome},
    parked::Call,
    queue::{Job, Phase, Queue, Timeout},
};
use crate::{
    Cause, Counters,
    delivery::{Chunk, Control, Share},
    ticket::Ticket,
};

#[derive(Clone, Debug)]
enum Op {
    Arrive {
        keys: Vec<u64>,
        refused: bool,
    },
    /// So many without keys, in one batch.
    ArriveFree(usize),
    /// A task that has the duty and nothing to do takes an update.
    Claim(usize),
    /// A handler waits for the first time. If the queue has done all for that when it was started, it
    /// may be too late for that all the same.
    Pend(usize, bool),
    /// A handler that waits is polled, and obeys if it was cancelled. If it was late, the policy answers
    /// with this.
    Poll(usize, End),
    /// A handler, or a policy, ends with this. The task then takes the next update, or leaves its turn
    /// to others.
    End(usize, End, bool),
    /// A handler fails, and the policy takes its time.
    Decide(usize),
    Extend(usize, u64),
    /// The same of one that was started.
    ExtendStarted(usize, u64),
    /// Time passes, and whatever is due expires.
    Pass(u64),
    Concurrency(usize),
    /// A task that has nothing to do stays instead of ending.
    Park(usize),
    /// A parked task that was not called is polled.
    Ask(usize),
    Stop,
    Abandon,
}

#[derive(Clone, Copy, Debug)]
enum End {
    Done,
    Skip,
    Retry(u64),
    Stop,
}

impl End {
    /// What comes of it if it is the answer of a policy.
    fn outcome(self, given_up: Ending) -> Outcome {
        match self {
            Self::Done | Self::Skip => Outcome::GivenUp(given_up),
            Self::Retry(after) => Outcome::Retry { after: ms(after) },
            Self::Stop => Outcome::Stop {
                cause: Cause::from_error(Box::new(Theirs)),
            },
        }
    }
}

#[derive(Clone, Debug)]
struct Setup {
    mode: Mode,
    concurrency: usize,
    /// Whether only so many tasks may start updates, or else as many as the machine can run at once.
    workers: Option<usize>,
    timeout: Option<u64>,
    detach: Option<usize>,
    max_waiting: usize,
    max_waiting_per_key: Option<usize>,
    prefetch: usize,
    /// Whether updates have keys.
    keyed: bool,
}

fn setups() -> impl Strategy<Value = Setup> {
    let modes = prop_oneof![
        4 => Just(Mode::Concurrent),
        1 => Just(Mode::Sequential),
        1 => Just(Mode::Batch),
    ];
    let detach = prop::option::of(1_usize..3);
    (
        (
            modes,
            1_usize..5,
            prop::option::of(1_usize..4),
            prop::option::weighted(0.8, 0_u64..50),
        ),
        (
            detach,
            1_usize..8,
            prop::option::of(1_usize..4),
            0_usize..8,
            any::<bool>(),
        ),
    )
        .prop_map(|((mode, concurrency, workers, timeout), rest)| Setup {
            mode,
            concurrency: if mode == Mode::Sequential {
                1
            } else {
                concurrency
            },
            workers,
            timeout,
            detach: rest.0.filter(|_| mode == Mode::Concurrent),
            max_waiting: rest.1,
            max_waiting_per_key: rest.2,
            prefetch: if mode == Mode::Concurrent { rest.3 } else { 0 },
            keyed: rest.4,
        })
}

fn ops() -> impl Strategy<Value = Op> {
    let index = any::<usize>;
    let ends = prop_oneof![
        32 => Just(End::Done),
        4 => Just(End::Skip),
        8 => (0_u64..60).prop_map(End::Retry),
        1 => Just(End::Stop),
    ];
    prop_oneof![
        40 => (prop::collection::vec(0_u64..5, 0..4), prop::bool::weighted(0.05))
            .prop_map(|(keys, refused)| Op::Arrive { keys, refused }),
        15 => (1_usize..6).prop_map(Op::ArriveFree),
        60 => index().prop_map(Op::Claim),
        40 => (index(), prop::bool::weighted(0.3)).prop_map(|(index, late)| Op::Pend(index, late)),
        20 => (index(), ends.clone()).prop_map(|(index, end)| Op::Poll(index, end)),
        60 => (index(), ends, prop::bool::weighted(0.9))
            .prop_map(|(index, end, claim)| Op::End(index, end, claim)),
        5 => index().prop_map(Op::Decide),
        10 => (index(), 0_u64..80).prop_map(|(index, by)| Op::Extend(index, by)),
        20 => (index(), 0_u64..80).prop_map(|(index, by)| Op::ExtendStarted(index, by)),
        20 => (0_u64..40).prop_map(Op::Pass),
        // As long as a policy may take.
        1 => Just(Op::Pass(30_000)),
        6 => (1_usize..6).prop_map(Op::Concurrency),
        30 => index().prop_map(Op::Park),
        10 => index().prop_map(Op::Ask),
        1 => Just(Op::Stop),
        1 => Just(Op::Abandon),
    ]
}

/// What a held update is known to be.
#[derive(Clone, Debug)]
struct Held {
    keys: BTreeSet<u64>,
    place: Place,
    last_chance: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Unstarted,
    Retrying(Instant),
    /// Its retry is due.
    Again,
    Started(Run),
}

/// A started update.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Run {
    /// The clock was started with the handler, which has not waited yet.
    ahead: bool,

    pended: bool,
    deciding: bool,
    /// Asked for before the clock began.
    early: Option<Instant>,
    deadline: Option<Instant>,
    expired: bool,
    detached: bool,
    cancel: Option<Cancel>,
}

/// One task of the sink.
#[derive(Clone, Copy, Debug)]
struct Task {
    hungry: bool,
    ticket: Option<Ticket>,
    /// Where it is parked.
    place: Option<u64>,
}

struct Bench {
    setup: Setup,
    queue: Queue<Item>,
    /// What is dropped when the lock is released.
    later: Vec<Box<dyn Any>>,
    now: Instant,
    tasks: Vec<Task>,
    held: BTreeMap<u64, Held>,
    phase: Phase,
    /// Whether the bound of those that wait was reached, and there was no room for a few since.
    choked: bool,
    expected: Counters,
}

/// Something of the user's, whose destructor must not run under the lock.
#[derive(Debug)]
struct Theirs;

thread_local! {
    static DROPPED: Cell<usize> = const { Cell::new(0) };
}

impl Drop for Theirs {
    fn drop(&mut self) {
        DROPPED.set(DROPPED.get() + 1);
    }
}

impl Wake for Theirs {
    fn wake(self: Arc<Self>) {}
}

impl fmt::Display for Theirs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an error of the user's")
    }
}

impl std::error::Error for Theirs {}

struct Item {
    seq: u64,
    _theirs: Theirs,
}

impl Item {
    fn new(seq: u64) -> Self {
        Self {
            seq,
            _theirs: Theirs,
        }
    }
}

struct Nobody;

impl Control for Nobody {
    fn deadline(&self, _: Ticket) -> Option<Instant> {
        None
    }

    fn extend(&self, _: Ticket, _: Duration) -> bool {
        false
    }

    fn is_stopping(&self) -> bool {
        false
    }
}

pub(super) fn nobody() -> Weak<dyn Control> {
    Weak::<Nobody>::new()
}

/// One of some, whatever the index.
fn nth<'a>(all: impl Iterator<Item = &'a u64> + Clone, index: usize) -> Option<u64> {
    let count = all.clone().count();
    (count > 0).then(|| all.copied().nth(index % count).expect("in range"))
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn some(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).expect("at least one")
}

impl Bench {
    fn new(setup: Setup) -> Self {
        let mut options = match setup.mode {
            Mode::Sequential => SinkOptions::sequential(),
            Mode::Batch => SinkOptions::batch(),
            Mode::Concurrent => SinkOptions::concurrent(),
        }
        .concurrency(some(setup.concurrency))
        .max_waiting(some(setup.max_waiting))
        .prefetch(setup.prefetch);
        options.workers = setup.workers.map(some);
        options.timeout = setup.timeout.map(ms);
        options.max_waiting_per_key = setup.max_waiting_per_key.map(some);
        if let Some(max) = setup.detach {
            let max = Some(some(max));
            options = options.on_timeout(OnTimeout::Detach { max });
        }
        Self {
            queue: Queue::new(&options),
            later: Vec::new(),
            setup,
            now: Instant::now(),
            tasks: Vec::new(),
            held: BTreeMap::new(),
            phase: Phase::Open,
            choked: false,
            expected: Counters::default(),
        }
    }

    /// Carries out what the queue asks for: new tasks have the duty.
    fn apply(&mut self, effects: Effects<Item>) {
        let hungry = Task {
            hungry: true,
            ticket: None,
            place: None,
        };
        self.tasks.extend(vec![hungry; effects.recruits]);
        // The others who have got the duty are parked, and the last one to come is called first.
        let hungry = self.tasks.iter().filter(|task| task.hungry).count();
        let called = self.queue.hungry - hungry;
        assert!(effects.wakers.len() >= called, "who is called is woken");
        for _ in 0..called {
            let parked = self.tasks.iter_mut().filter(|task| !task.hungry);
            let called = parked.max_by_key(|task| task.place);
            let called = called.expect("one was called");
            assert!(called.place.is_some(), "only parked tasks are called");
            called.hungry = true;
        }
        self.later.push(Box::new(effects));
    }

    fn waker(&mut self) -> Waker {
        let waker = Waker::from(Arc::new(Theirs));
        self.later.push(Box::new(waker.clone()));
        waker
    }

    fn ask(&mut self, place: u64) -> Call {
        let waker = self.waker();
        let (call, replaced) = self.queue.ask(place, &waker);
        self.later.push(Box::new(replaced));
        call
    }

    fn pick(&self, index: usize, fits: impl Fn(&Self, &Task) -> bool) -> Option<usize> {
        let fitting: Vec<usize> = (0..self.tasks.len())
            .filter(|task| fits(self, &self.tasks[*task]))
            .collect();
        (!fitting.is_empty()).then(|| fitting[index % fitting.len()])
    }

    /// The started update of a task.
    fn run_of(&self, task: &Task) -> Option<Run> {
        match self.held.get(&task.ticket?.seq)?.place {
            Place::Started(run) => Some(run),
            other => panic!("a task has an update that is {other:?}"),
        }
    }

    fn run_mut(&mut self, ticket: Ticket) -> &mut Run {
        match &mut self.held.get_mut(&ticket.seq).expect("it is held").place {
            Place::Started(run) => run,
            other => panic!("a task has an update that is {other:?}"),
        }
    }

    fn step(&mut self, op: Op) {
        let dropped = DROPPED.get();
        match op {
            Op::Arrive { keys, refused } if self.setup.keyed => self.arrive(&keys, refused),
            Op::Arrive { .. } => self.arrive_free(1),
            Op::ArriveFree(count) => self.arrive_free(count),
            Op::Claim(index) => {
                let idle = |_: &Self, task: &Task| task.hungry && task.ticket.is_none();
                if let Some(task) = self.pick(index, idle) {
                    if let Some(place) = self.tasks[task].place.take() {
                        assert_eq!(self.ask(place), Call::Start);
                    }
                    let may = self.startable() > 0;
                    let job = self.queue.claim();
                    assert_eq!(job.is_some(), may);
                    self.tasks[task].hungry = may;
                    self.claimed(task, job);
                }
            }
            Op::Pend(index, late) => {
                let fresh = |it: &Self, task: &Task| it.run_of(task).is_some_and(|run| !run.pended);
                if let Some(task) = self.pick(index, fresh) {
                    let ticket = self.tasks[task].ticket.expect("it has an update");
                    let run = self.run_mut(ticket);
                    if run.ahead && run.cancel.is_none() && !late {
                        (run.ahead, run.pended) = (false, true);
                    } else {
                        self.pend(task, Timeout::Shared);
                    }
                }
            }
            Op::Poll(index, verdict) => {
                let waits = |it: &Self, task: &Task| it.run_of(task).is_some_and(|run| run.pended);
                if let Some(task) = self.pick(index, waits) {
                    self.poll(task, verdict);
                }
            }
            Op::End(index, end, claim) => {
                if let Some(task) = self.pick(index, |_, task| task.ticket.is_some()) {
                    self.end(task, end, claim);
                }
            }
            Op::Decide(index) => {
                let handles = |it: &Self, task: &Task| {
                    it.run_of(task)
                        .is_some_and(|run| !run.deciding && run.cancel.is_none())
                };
                if let Some(task) = self.pick(index, handles) {
                    self.begin_policy(task);
                    self.pend(task, Timeout::Own);
                }
            }
            Op::Park(index) => {
                let free = |_: &Self, task: &Task| {
                    !task.hungry && task.ticket.is_none() && task.place.is_none()
                };
                if let Some(task) = self.pick(index, free) {
                    let waker = self.waker();
                    let place = self.queue.park(&waker);
                    assert!(place.is_none() || self.phase == Phase::Open);
                    self.tasks[task].place = place;
                }
            }
            Op::Ask(index) => {
                let parked = |_: &Self, task: &Task| !task.hungry && task.place.is_some();
                if let Some(task) = self.pick(index, parked) {
                    let place = self.tasks[task].place.expect("picked above");
                    let call = self.ask(place);
                    if self.phase == Phase::Open {
                        assert_eq!(call, Call::Wait);
                    } else {
                        assert_eq!(call, Call::End);
                        self.tasks[task].place = None;
                    }
                }
            }
            Op::Extend(index, by) => {
                if let Some(seq) = nth(self.held.keys(), index) {
                    self.extend(seq, by);
                }
            }
            Op::ExtendStarted(index, by) => {
                let tickets = self.tasks.iter().filter_map(|task| task.ticket.as_ref());
                if let Some(seq) = nth(tickets.map(|ticket| &ticket.seq), index) {
                    self.extend(seq, by);
                }
            }
            Op::Pass(span) => self.pass(span),
            Op::Concurrency(concurrency) => {
                let effects = self.queue.set_concurrency(some(concurrency));
                self.apply(effects);
                if self.setup.mode != Mode::Sequential {
                    self.setup.concurrency = concurrency;
                }
            }
            Op::Stop => {
                let effects = self.queue.stop();
                self.apply(effects);
                if self.phase == Phase::Open {
                    self.phase = Phase::Stopping;
                    for held in self.held.values_mut() {
                        if let Place::Retrying(_) = held.place {
                            held.place = Place::Again;
                        }
                        held.last_chance |= held.place == Place::Again;
                    }
                }
            }
            Op::Abandon => {
                let effects = self.queue.abandon();
                self.apply(effects);
                self.abandon_unstarted();
                self.phase = Phase::Closed;
                for held in self.held.values_mut() {
                    if let Place::Started(run) = &mut held.place {
                        run.cancel = Some(Cancel::Abandon);
                        run.deadline = None;
                    }
                }
            }
        }
        self.check();
        assert_eq!(DROPPED.get(), dropped, "dropped under the lock");
        self.later.clear();
    }

    fn arrive(&mut self, keys: &[u64], refused: bool) {
        let seq = self.expected.supplied;
        let (queue, now) = (&mut self.queue, self.now);
        for (chunk, _) in Chunk::split(vec![Item::new(seq)], &nobody()) {
            let arrival = match refused {
                true => Arrival::Refused(Cause::Panic("no key".into())),
                false => Arrival::Keys(keys),
            };
            queue.arrive(Share::new(chunk, 0), arrival, now);
        }
        let crowded = self.setup.max_waiting_per_key.is_some_and(|limit| {
            keys.iter().any(|key| {
                let others = self.held.values();
                others.filter(|held| held.keys.contains(key)).count() > limit
            })
        });
        let keys = match refused || crowded {
            true => BTreeSet::new(),
            false => keys.iter().copied().collect(),
        };
        self.arrived(keys);
        self.recruit();
    }

    fn arrive_free(&mut self, count: usize) {
        let first = self.expected.supplied;
        let (queue, now) = (&mut self.queue, self.now);
        let batch = (first..first + count as u64).map(Item::new).collect();
        for (chunk, count) in Chunk::split(batch, &nobody()) {
            queue.arrive_free(chunk, count, now);
        }
        for _ in 0..count {
            self.arrived(BTreeSet::new());
        }
        self.recruit();
    }

    fn arrived(&mut self, keys: BTreeSet<u64>) {
        let seq = self.expected.supplied;
        self.expected.supplied += 1;
        if matches!(self.phase, Phase::Halted | Phase::Closed) {
            self.expected.abandoned += 1;
            return;
        }
        let keys = match self.setup.mode {
            Mode::Sequential => BTreeSet::from([0]),
            Mode::Batch | Mode::Concurrent => keys,
        };
        let held = Held {
            keys,
            place: Place::Unstarted,
            last_chance: false,
        };
        self.held.insert(seq, held);
    }

    fn recruit(&mut self) {
        let mut effects = Effects::default();
        effects.recruits = self.queue.recruit(&mut effects.wakers);
        self.apply(effects);
    }

    /// Notes what the queue gave to a task, and that it may.
    fn claimed(&mut self, task: usize, job: Option<Job<Item>>) {
        self.tasks[task].ticket = job.as_ref().map(|job| job.delivery.ticket());
        let Some(job) = job else {
            return;
        };
        let seq = job.delivery.ticket().seq;
        assert_eq!(job.delivery.seq, seq);
        self.later.push(Box::new(job.delivery));
        assert!(
            self.tasks[task].hungry || self.setup.workers.is_none(),
            "only who has the duty takes updates"
        );
        if job.ahead.is_some() {
            assert!(!self.tasks[task].hungry, "it has a duty to pass on");
            assert_eq!(self.setup.detach, None, "it may lose its slot by that");
        }
        assert!(self.running() < self.setup.concurrency, "a slot was free");
        assert!(
            !self.is_blocked(seq),
            "{seq} overtook an earlier one of its keys"
        );
        let again = self.held.values().any(|held| held.place == Place::Again);
        let held = self.held.get_mut(&seq).expect("it is held");
        match held.place {
            Place::Again => {}
            Place::Unstarted => assert!(!again, "a retry goes first"),
            other => panic!("{seq} was {other:?}"),
        }
        let limit = self.setup.timeout.map(ms);
        held.place = Place::Started(Run {
            ahead: job.ahead.is_some(),
            deadline: job.ahead.and_then(|began| limit.map(|limit| began + limit)),
            ..Run::default()
        });
    }

    fn pend(&mut self, task: usize, timeout: Timeout) {
        let ticket = self.tasks[task].ticket.expect("it has an update");
        let now = self.now;
        let mut hungry = self.tasks[task].hungry;
        let waker = self.waker();
        let mut effects = Effects::default();
        let cancel = self.queue.pend(
            ticket,
            &waker,
            timeout,
            Some(now),
            &mut hungry,
            &mut effects,
        );
        let limit = match timeout {
            Timeout::Shared => self.setup.timeout.map(ms),
            Timeout::Own => Some(Duration::from_secs(30)),
        };
        let run = self.run_mut(ticket);
        if run.cancel == Some(Cancel::Timeout) {
            // It had not waited yet, so that was its clock's fault.
            run.cancel = None;
        }
        assert_eq!(cancel, run.cancel);
        if cancel.is_none() {
            assert!(!hungry, "whoever waits has passed its duty on");
            (run.ahead, run.pended) = (false, true);
            let early = run.early.take();
            run.deadline = limit.map(|limit| match timeout {
                Timeout::Shared => early.map_or(now + limit, |early| early.max(now + limit)),
                Timeout::Own => now + limit,
            });
            // It goes on without a clock.
            run.deadline = run.deadline.filter(|_| !run.expired || run.deciding);
        }
        self.tasks[task].hungry = hungry;
        self.apply(effects);
    }

    fn poll(&mut self, task: usize, verdict: End) {
        let ticket = self.tasks[task].ticket.expect("it has an update");
        let waker = self.waker();
        let (cancel, replaced) = self.queue.check(ticket, &waker);
        self.later.push(Box::new(replaced));
        let run = *self.run_mut(ticket);
        assert_eq!(cancel, run.cancel);
        let outcome = match cancel {
            None => return,
            Some(Cancel::Abandon) => Outcome::Abandoned,
            Some(Cancel::Timeout) if run.deciding => Outcome::GivenUp(Ending::Failed),
            Some(Cancel::Timeout) => {
                self.begin_policy(task);
                verdict.outcome(Ending::TimedOut)
            }
        };
        self.settle(task, outcome, true);
    }

    fn end(&mut self, task: usize, end: End, claim: bool) {
        let ticket = self.tasks[task].ticket.expect("it has an update");
        let run = *self.run_mut(ticket);
        let decided = match end {
            End::Done => true,
            _ if run.deciding => true,
            _ => self.begin_policy(task),
        };
        let outcome = match end {
            _ if !decided => Outcome::Abandoned,
            End::Done if !run.deciding => Outcome::Done,
            end => end.outcome(Ending::Failed),
        };
        self.settle(task, outcome, claim);
    }

    /// Whether the policy may be asked.
    fn begin_policy(&mut self, task: usize) -> bool {
        let ticket = self.tasks[task].ticket.expect("it has an update");
        let update = self.queue.begin_policy(ticket);
        let begun = update.is_some();
        self.later.push(Box::new(update));
        let run = self.run_mut(ticket);
        assert_eq!(begun, run.cancel != Some(Cancel::Abandon));
        run.deadline = None;
        run.early = None;
        run.ahead = false;
        if begun {
            run.deciding = true;
            run.cancel = None;
        }
        begun
    }

    fn settle(&mut self, task: usize, outcome: Outcome, claim: bool) {
        let ticket = self.tasks[task].ticket.take().expect("it has an update");
        let now = self.now;
        let counters = &mut self.expected;
        let held = self.held.get_mut(&ticket.seq).expect("it is held");
        let waited = matches!(held.place, Place::Started(run) if run.pended);
        let mut halts = false;
        let gone = match &outcome {
            Outcome::Done => &mut counters.finished,
            Outcome::GivenUp(Ending::TimedOut) => &mut counters.timed_out,
            Outcome::GivenUp(_) => &mut counters.failed,
            Outcome::Abandoned => &mut counters.abandoned,
            Outcome::Stop { .. } => {
                halts = true;
                &mut counters.abandoned
            }
            Outcome::Retry { after } => match self.phase {
                Phase::Open => {
                    held.place = Place::Retrying(now + *after);
                    &mut counters.retried
                }
                Phase::Stopping if held.last_chance => &mut counters.failed,
                Phase::Stopping => {
                    held.place = Place::Again;
                    held.last_chance = true;
                    &mut counters.retried
                }
                Phase::Halted | Phase::Closed => &mut counters.abandoned,
            },
        };
        *gone += 1;
        if let Place::Started(_) = held.place {
            self.held.remove(&ticket.seq);
        }
        if halts {
            if self.phase != Phase::Closed {
                self.phase = Phase::Halted;
            }
            self.abandon_unstarted();
        }

        let mut hungry = self.tasks[task].hungry;
        let mut effects = Effects::default();
        let ended = waited.then_some(now);
        let exchanged = match outcome {
            Outcome::Done if claim => {
                let queue = &mut self.queue;
                queue.exchange(ticket, ended, || now, &mut hungry, &mut effects)
            }
            _ => None,
        };
        let job = exchanged.or_else(|| {
            let queue = &mut self.queue;
            let hungry = &mut hungry;
            queue.settle(ticket, outcome, claim, ended, || now, hungry, &mut effects)
        });
        if claim {
            assert!(job.is_some() || !hungry);
        } else {
            assert!(job.is_none());
            let others = self.tasks.iter().filter(|task| task.hungry).count();
            let others = others - usize::from(self.tasks[task].hungry);
            let free = others < self.queue.limits.workers;
            assert!(
                hungry || !free || self.startable() == 0,
                "who has left its turn comes back, and nobody else is started instead"
            );
        }
        self.tasks[task].hungry = hungry;
        self.claimed(task, job);
        self.apply(effects);
    }

    fn extend(&mut self, seq: u64, by: u64) {
        let held = self.held.get_mut(&seq).expect("it is held");
        // One that has no key has no place before it starts.
        let index = (self.queue.nodes.iter())
            .find(|(_, node)| node.seq == seq)
            .map_or(u32::MAX, |(index, _)| index as u32);
        let ticket = Ticket { seq, index };
        let now = self.now;
        let mut wakers = Wakers::default();
        let answer = self.queue.extend(ticket, ms(by), || now, &mut wakers);
        self.later.push(Box::new(wakers));
        let expected = match &mut held.place {
            Place::Started(run)
                if !run.deciding
                    && (run.cancel.is_none() || run.cancel == Some(Cancel::Timeout))
                    && !run.expired =>
            {
                let until = Some(now + ms(by));
                run.cancel = None;
                if self.setup.timeout.is_some() {
                    if run.pended || run.ahead {
                        run.deadline = run.deadline.max(until);
                    }
                    run.early = run.early.max(until);
                }
                true
            }
            _ => false,
        };
        assert_eq!(answer, expected);
    }

    fn pass(&mut self, span: u64) {
        self.now += ms(span);
        let now = self.now;
        let effects = self.queue.expire(now);
        // Oldest deadline first; of equal ones, those that were never moved go first. Who may still
        // be detached depends on that order, so it is taken from the queue and its number checked.
        let mut detached = self.detached();
        let mut late = 0;
        for (_, node) in self.queue.nodes.iter() {
            let Some(Held {
                place: Place::Started(run),
                ..
            }) = self.held.get_mut(&node.seq)
            else {
                continue;
            };
            if run.deadline.is_none_or(|deadline| deadline > now) {
                continue;
            }
            run.deadline = None;
            if run.deciding || self.setup.detach.is_none() {
                run.cancel = Some(Cancel::Timeout);
                continue;
            }
            late += 1;
            run.expired = true;
            if node.state == super::node::State::Detached {
                run.detached = true;
                detached += 1;
                self.expected.detached += 1;
            }
        }
        if let Some(max) = self.setup.detach {
            let before = detached - late.min(detached);
            assert!(detached <= max);
            assert!(late == 0 || detached == max.min(before + late).max(detached));
        }
        for held in self.held.values_mut() {
            if let Place::Retrying(due) = held.place
                && due <= now
            {
                held.place = Place::Again;
            }
        }
        self.apply(effects);
    }

    fn abandon_unstarted(&mut self) {
        let before = self.held.len();
        self.held
            .retain(|_, held| matches!(held.place, Place::Started(_)));
        self.expected.abandoned += (before - self.held.len()) as u64;
        // Nothing starts any more, so the order is forgotten.
        for held in self.held.values_mut() {
            held.keys.clear();
        }
    }

    fn is_blocked(&self, seq: u64) -> bool {
        let own = &self.held[&seq].keys;
        self.held
            .range(..seq)
            .any(|(_, earlier)| !earlier.keys.is_disjoint(own))
    }

    fn count(&self, fits: impl Fn(u64, &Held) -> bool) -> usize {
        self.held
            .iter()
            .filter(|(seq, held)| fits(**seq, held))
            .count()
    }

    fn running(&self) -> usize {
        self.count(|_, held| matches!(held.place, Place::Started(run) if !run.detached))
    }

    fn detached(&self) -> usize {
        self.count(|_, held| matches!(held.place, Place::Started(run) if run.detached))
    }

    fn ready(&self) -> usize {
        self.count(|seq, held| match held.place {
            Place::Unstarted => !self.is_blocked(seq),
            Place::Again => true,
            Place::Retrying(_) | Place::Started(_) => false,
        })
    }

    fn waiting(&self) -> usize {
        self.count(|seq, held| match held.place {
            Place::Unstarted => self.is_blocked(seq),
            Place::Retrying(_) => true,
            Place::Again | Place::Started(_) => false,
        })
    }

    fn startable(&self) -> usize {
        match self.phase {
            Phase::Open | Phase::Stopping => {
                let free = self.setup.concurrency.saturating_sub(self.running());
                self.ready().min(free)
            }
            Phase::Halted | Phase::Closed => 0,
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let deadlines = self.held.values().filter_map(|held| match held.place {
            Place::Started(run) => run.deadline,
            Place::Retrying(due) => Some(due),
            Place::Unstarted | Place::Again => None,
        });
        deadlines.min()
    }

    fn room(&self, scarce: bool) -> Option<usize> {
        if self.phase != Phase::Open {
            return None;
        }
        if self.setup.mode != Mode::Concurrent {
            return self.held.is_empty().then_some(100);
        }
        let slots = self.setup.concurrency.saturating_sub(self.running());
        let room = (slots + self.setup.prefetch)
            .saturating_sub(self.ready())
            .min(self.setup.max_waiting.saturating_sub(self.waiting()));
        let enough = scarce || self.ready() == 0 || room >= self.setup.prefetch / 2;
        (room > 0 && enough && !self.choked).then_some(room)
    }

    /// Whether intake stands still: from the bound on, until half a fetch or half of the bound is
    /// free, and in any case one place.
    fn look_at_waiting(&mut self) {
        let bound = self.setup.max_waiting;
        let few = (self.setup.prefetch / 2).min(bound / 2).max(1);
        let free = bound.saturating_sub(self.waiting());
        self.choked = free == 0 || self.choked && free < few;
    }

    fn check(&mut self) {
        self.look_at_waiting();
        let queue = &self.queue;
        assert_eq!(queue.len(), self.held.len());
        assert_eq!(queue.running, self.running());
        assert_eq!(queue.detached, self.detached());
        assert_eq!(queue.ready(), self.ready());
        assert_eq!(queue.waiting, self.waiting());
        assert_eq!(queue.startable(), self.startable());
        assert_eq!(queue.phase, self.phase);
        // Of those that share a timeout, it may be the first one of a group that has ended since.
        let (early, next) = (queue.next_deadline(), self.next_deadline());
        assert_eq!(early.is_some(), next.is_some());
        if let (Some(early), Some(next)) = (early, next) {
            let width = self.setup.timeout.map_or(Duration::ZERO, ms) / 16;
            assert!(early <= next && next - early <= width);
        }
        for task in &self.tasks {
            if let Some(ticket) = task.ticket
                && let Some(run) = self.run_of(task)
                && run.cancel != Some(Cancel::Abandon)
            {
                let expected = match run {
                    Run { deciding: true, .. } => None,
                    Run { pended: true, .. } | Run { ahead: true, .. } => run.deadline,
                    Run { expired: true, .. } => None,
                    _ => run.early,
                };
                assert_eq!(self.queue.deadline(ticket), expected);
            }
        }
        let queue = &self.queue;
        for scarce in [false, true] {
            let room = queue.room(scarce).map(NonZeroUsize::get);
            assert_eq!(room, self.room(scarce));
        }
        // Every update is settled once.
        assert_eq!(queue.counters(), self.expected);
        let settled = queue.counters().settled();
        assert_eq!(settled + self.held.len() as u64, queue.counters.supplied);
        assert_eq!(queue.abandoned.len() as u64, queue.counters.abandoned);
        // The duty is with as many tasks as the queue thinks, and with one if there is work.
        let hungry = self.tasks.iter().filter(|task| task.hungry).count();
        assert_eq!(queue.hungry, hungry);
        assert!(queue.hungry <= queue.limits.workers);
        let looking = |task: &&Task| task.hungry && task.ticket.is_none();
        let looking = self.tasks.iter().filter(looking).count();
        assert_eq!(queue.idle, looking);
        assert!(
            self.startable() == 0 || queue.hungry > 0,
            "updates are stranded"
        );
    }

    /// Lets everything end, and finds nothing left.
    fn finish(&mut self) {
        let index = 0;
        self.step(Op::Stop);
        while !self.held.is_empty() {
            let before = self.held.len();
            self.step(Op::Claim(index));
            self.step(Op::End(index, End::Done, true));
            let progress = self.held.len() < before;
            let idle = self
                .tasks
                .iter()
                .all(|task| !task.hungry && task.ticket.is_none());
            assert!(progress || !idle, "{} updates never end", self.held.len());
        }
        for task in 0..self.tasks.len() {
            if self.tasks[task].hungry {
                self.step(Op::Claim(index));
            }
        }
        assert_eq!(self.queue.hungry, 0);
        assert!(self.queue.is_empty());
        assert_eq!((self.queue.exact.len(), self.queue.retries.len()), (0, 0));
        assert_eq!(self.queue.next_deadline(), None);
    }
}

proptest! {
    // `PROPTEST_CASES=100000` plays more.
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(300)))]

    #[test]
    fn behaves_like_the_model(
        setup in setups(),
        ops in prop::collection::vec(ops(), 1..250),
    ) {
        let mut bench = Bench::new(setup);
        for op in ops {
            bench.step(op);
        }
        bench.finish();
    }
}
