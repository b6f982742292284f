//! The table of `state.rs` once more, as plainly as it can be written, held against the real one under random
//! events.
//!
//! Also, that the state drops nothing of the user's: no update and no error, because it is under a lock.

use std::{
    any::Any,
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    fmt,
    num::NonZeroUsize,
    sync::{Arc, Weak},
    task::Waker,
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::{
    effects::{Effects, Wakers},
    entry::{Late, State as Is},
    intake::Arrival,
    label::Label,
    mailbox::{Command, Mailbox},
    options::{AfterTimeout, Limits, Mode},
    outcome::{Counters, Ending, Outcome},
    state::{Phase, Started, State, Timeout},
};
use crate::{
    Cause,
    consume::{BatchSlice, DeliveryControl, Item},
    queue::Ticket,
};

#[derive(Clone, Debug)]
enum Op {
    Arrive {
        keys: Vec<u64>,
        refused: bool,
        bytes: u32,
        handled: bool,
    },
    /// A worker that has a permit takes an update.
    Start(usize),
    /// A handler is pending for the first time.
    Suspend(usize),
    /// A handler or a policy that has been pending is polled. If it was told to end, it does; if it was
    /// late, the policy answers with this.
    Poll(usize, End),
    /// A handler or a policy ends with this. The worker then takes the next update, or pauses.
    Complete(usize, End, bool),
    /// A handler fails, and the policy is pending.
    Decide(usize),
    /// More time is asked for an update that is held, or for one that was started.
    Extend(usize, u64, bool),
    /// Time passes, and whatever is due happens.
    Pass(u64),
    Concurrency(usize),
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
    fn outcome(self, ending: Ending) -> Outcome {
        match self {
            Self::Done | Self::Skip => Outcome::GivenUp(ending),
            Self::Retry(after) => Outcome::Retry {
                after: ms(after),
                else_as: ending,
            },
            Self::Stop => Outcome::Stop {
                cause: Cause::from_error(Box::new(Theirs)),
            },
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Setup {
    limits: Limits,
    /// Whether updates have keys.
    keyed: bool,
}

fn setups() -> impl Strategy<Value = Setup> {
    let modes = prop_oneof![
        4 => Just(Mode::Concurrent),
        1 => Just(Mode::Sequential),
        1 => Just(Mode::Batch),
    ];
    let after_timeout = prop_oneof![
        3 => Just(AfterTimeout::Cancel),
        1 => Just(AfterTimeout::Continue),
        2 => prop::option::of(1_usize..3).prop_map(|max| AfterTimeout::Detach(max.map(some))),
    ];
    let first = (
        modes,
        1_usize..5,
        prop::option::of(1_usize..4),
        prop::option::weighted(0.8, 0_u64..50),
        after_timeout,
    );
    let second = (
        1_usize..8,
        prop::option::of(1_usize..4),
        prop::option::of(1_usize..60),
        0_usize..8,
        any::<bool>(),
    );
    (first, second).prop_map(|(first, second)| {
        let (mode, concurrency, workers, timeout, after_timeout) = first;
        let (max_waiting, per_key, max_bytes, prefetch, keyed) = second;
        let limits = Limits {
            mode,
            concurrency: some(if mode == Mode::Sequential {
                1
            } else {
                concurrency
            }),
            timeout: timeout.map(ms),
            after_timeout: match after_timeout {
                AfterTimeout::Detach(_) if mode != Mode::Concurrent => AfterTimeout::Cancel,
                other => other,
            },
            max_waiting: some(max_waiting),
            max_waiting_per_key: per_key.map(some),
            max_bytes: max_bytes.map(some),
            prefetch,
            workers: workers.map(some),
        };
        Setup { limits, keyed }
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
    let arrivals = (
        prop::collection::vec(0_u64..5, 0..4),
        prop::bool::weighted(0.05),
        0_u32..20,
        prop::bool::weighted(0.1),
    );
    prop_oneof![
        60 => arrivals.prop_map(|(keys, refused, bytes, handled)| {
            Op::Arrive { keys, refused, bytes, handled }
        }),
        60 => index().prop_map(Op::Start),
        40 => index().prop_map(Op::Suspend),
        20 => (index(), ends.clone()).prop_map(|(index, end)| Op::Poll(index, end)),
        60 => (index(), ends, prop::bool::weighted(0.1))
            .prop_map(|(index, end, pause)| Op::Complete(index, end, pause)),
        5 => index().prop_map(Op::Decide),
        30 => (index(), 0_u64..80, any::<bool>())
            .prop_map(|(index, by, started)| Op::Extend(index, by, started)),
        20 => (0_u64..40).prop_map(Op::Pass),
        // As long as a policy may take.
        1 => Just(Op::Pass(30_000)),
        6 => (1_usize..6).prop_map(Op::Concurrency),
        1 => Just(Op::Stop),
        1 => Just(Op::Abandon),
    ]
}

/// What is known of a held update.
#[derive(Clone, Debug)]
struct Held {
    keys: BTreeSet<u64>,
    place: Place,
    attempt: u32,
    handled: bool,
    refused: bool,
    last_attempt: bool,
    bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    /// Waiting, or ready if no earlier update has one of its keys.
    Unstarted,
    Retrying(Instant),
    /// Its retry is due.
    Due,
    Started(Run),
}

/// A started update.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Run {
    suspended: bool,
    deciding: bool,
    /// Asked for before its time began.
    asked_for: Option<Instant>,
    deadline: Option<Instant>,
    late: Option<Late>,
    detached: bool,
    told: Option<Command>,
}

/// One worker.
struct Task {
    permit: bool,
    ticket: Option<Ticket>,
    mailbox: Arc<Mailbox>,
    /// When it went idle, as a number.
    idle: Option<u64>,
}

struct Bench {
    limits: Limits,
    keyed: bool,
    state: State<Update>,
    /// What is dropped when the lock is released.
    later: Vec<Box<dyn Any>>,
    now: Instant,
    tasks: Vec<Task>,
    idled: u64,
    held: BTreeMap<u64, Held>,
    /// Names of updates that have left.
    gone: Vec<Ticket>,
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

impl fmt::Display for Theirs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an error of the user's")
    }
}

impl std::error::Error for Theirs {}

struct Update {
    id: u64,
    _theirs: Theirs,
}

/// Control of nothing.
pub(super) struct Nobody;

impl DeliveryControl for Nobody {
    fn deadline(&self, _: Ticket) -> Option<Instant> {
        None
    }

    fn extend(&self, _: Ticket, _: Duration) -> bool {
        false
    }

    fn is_stopping(&self) -> bool {
        false
    }

    fn label(&self, _: Ticket) -> Label {
        Label::default()
    }
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn some(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).expect("at least one")
}

impl Bench {
    fn new(Setup { limits, keyed }: Setup) -> Self {
        Self {
            state: State::new(limits),
            later: Vec::new(),
            limits,
            keyed,
            now: Instant::now(),
            tasks: Vec::new(),
            idled: 0,
            held: BTreeMap::new(),
            gone: Vec::new(),
            phase: Phase::Open,
            choked: false,
            expected: Counters::default(),
        }
    }

    /// Carries out what an event asks for: new workers have a permit, and so have those that were woken.
    fn apply(&mut self, effects: Effects<Update>) {
        for _ in 0..effects.spawn {
            self.tasks.push(Task {
                permit: true,
                ticket: None,
                mailbox: Arc::default(),
                idle: None,
            });
        }
        let mut woken: Vec<usize> = Vec::new();
        for index in 0..self.tasks.len() {
            let task = &mut self.tasks[index];
            if task.idle.is_some() {
                match task.mailbox.take() {
                    None => {}
                    Some(Command::Start) => {
                        task.permit = true;
                        woken.push(index);
                    }
                    Some(Command::End) => {
                        assert_ne!(self.phase, Phase::Open, "only an end dismisses");
                        task.idle = None;
                    }
                    Some(other) => panic!("an idle worker is told {other:?}"),
                }
            }
        }
        // The last one to come is woken first.
        let left = self.tasks.iter().filter(|task| !task.permit);
        let latest = left.filter_map(|task| task.idle).max();
        for index in woken {
            let idle = self.tasks[index].idle.take();
            assert!(latest.is_none_or(|latest| idle > Some(latest)));
        }
        self.later.push(Box::new(effects));
    }

    fn pick(&self, index: usize, fits: impl Fn(&Self, &Task) -> bool) -> Option<usize> {
        let fitting: Vec<usize> = (0..self.tasks.len())
            .filter(|task| fits(self, &self.tasks[*task]))
            .collect();
        (!fitting.is_empty()).then(|| fitting[index % fitting.len()])
    }

    /// The started update of a worker.
    fn run_of(&self, task: &Task) -> Option<Run> {
        match self.held.get(&task.ticket?.id)?.place {
            Place::Started(run) => Some(run),
            other => panic!("a worker has an update that is {other:?}"),
        }
    }

    fn run_mut(&mut self, ticket: Ticket) -> &mut Run {
        match &mut self.held.get_mut(&ticket.id).expect("it is held").place {
            Place::Started(run) => run,
            other => panic!("a worker has an update that is {other:?}"),
        }
    }

    fn step(&mut self, op: Op) {
        let dropped = DROPPED.get();
        match op {
            Op::Arrive {
                keys,
                refused,
                bytes,
                handled,
            } => {
                let keys = if self.keyed { keys } else { Vec::new() };
                self.arrive(&keys, refused, bytes, handled);
            }
            Op::Start(index) => {
                let searching = |_: &Self, task: &Task| task.permit && task.ticket.is_none();
                if let Some(task) = self.pick(index, searching) {
                    self.start(task);
                }
            }
            Op::Suspend(index) => {
                let fresh =
                    |it: &Self, task: &Task| it.run_of(task).is_some_and(|run| !run.suspended);
                if let Some(task) = self.pick(index, fresh) {
                    self.suspend(task, Timeout::Handler);
                }
            }
            Op::Poll(index, end) => {
                let pending =
                    |it: &Self, task: &Task| it.run_of(task).is_some_and(|run| run.suspended);
                if let Some(task) = self.pick(index, pending) {
                    self.poll(task, end);
                }
            }
            Op::Complete(index, end, pause) => {
                if let Some(task) = self.pick(index, |_, task| task.ticket.is_some()) {
                    self.end(task, end, pause);
                }
            }
            Op::Decide(index) => {
                let handled =
                    |it: &Self, task: &Task| it.run_of(task).is_some_and(|run| !run.deciding);
                if let Some(task) = self.pick(index, handled) {
                    match self.decide(task) {
                        true => self.suspend(task, Timeout::Policy),
                        false => self.complete(task, Outcome::Abandoned, false),
                    }
                }
            }
            Op::Extend(index, by, started) => {
                let ids: Vec<u64> = match started {
                    true => self
                        .tasks
                        .iter()
                        .filter_map(|task| Some(task.ticket?.id))
                        .collect(),
                    false => self.held.keys().copied().collect(),
                };
                if !ids.is_empty() {
                    self.extend(ids[index % ids.len()], by);
                }
            }
            Op::Pass(span) => self.pass(span),
            Op::Concurrency(concurrency) => {
                let mut effects = Effects::default();
                self.state.set_concurrency(some(concurrency), &mut effects);
                self.limits.set_concurrency(some(concurrency));
                self.apply(effects);
            }
            Op::Stop => self.stop(),
            Op::Abandon => self.abandon(),
        }
        self.check();
        assert_eq!(DROPPED.get(), dropped, "dropped under the lock");
        self.later.clear();
    }

    fn arrive(&mut self, keys: &[u64], refused: bool, bytes: u32, handled: bool) {
        let id = self.expected.supplied;
        self.expected.supplied += 1;
        let nobody: Weak<dyn DeliveryControl> = Weak::<Nobody>::new();
        let update = Update {
            id,
            _theirs: Theirs,
        };
        if handled {
            self.state.intake.replayed.push_back(true);
        }
        let refused = refused && self.keyed;
        for slice in BatchSlice::split(vec![update], |_| 0, &nobody) {
            if self.keyed {
                let keys = match refused {
                    true => Err(Cause::Panic("no key".into())),
                    false => Ok(keys),
                };
                let arrival = Arrival { keys, bytes };
                self.state.arrive(Item::new(slice, 0), arrival, self.now);
            } else {
                self.state.arrive_free(slice, bytes, self.now);
            }
        }
        let crowded = self.limits.max_waiting_per_key.is_some_and(|limit| {
            keys.iter().any(|key| {
                let others = self.held.values();
                others.filter(|held| held.keys.contains(key)).count() > limit.get()
            })
        });
        let refused = refused || crowded;
        if matches!(self.phase, Phase::Halted | Phase::Closed) {
            self.expected.abandoned += 1;
        } else {
            let keys = match self.limits.mode {
                Mode::Sequential => BTreeSet::from([0]),
                _ if refused => BTreeSet::new(),
                _ => keys.iter().copied().collect(),
            };
            let held = Held {
                keys,
                place: Place::Unstarted,
                attempt: 1,
                handled,
                refused,
                last_attempt: false,
                bytes: bytes as usize,
            };
            self.held.insert(id, held);
        }
        let mut effects = Effects::default();
        self.state.notify(&mut effects);
        self.apply(effects);
    }

    fn start(&mut self, task: usize) {
        let may = self.startable() > 0;
        let mut permit = true;
        self.state.workers.unused -= 1;
        let started = self.state.start(&mut permit);
        assert_eq!((started.is_some(), permit), (may, may));
        self.tasks[task].permit = permit;
        self.started(task, started);
    }

    /// Notes what a worker was given, and that it may have it.
    fn started(&mut self, task: usize, started: Option<Started<Update>>) {
        let Some(Started { ticket, update }) = started else {
            // In the same critical section, as a worker does.
            let open = self.phase == Phase::Open;
            if !self.tasks[task].permit
                && open
                && self.state.workers.go_idle(&self.tasks[task].mailbox)
            {
                self.idled += 1;
                self.tasks[task].idle = Some(self.idled);
            }
            return;
        };
        assert!(
            self.running() < self.limits.concurrency.get(),
            "a slot was free"
        );
        let id = ticket.id;
        assert!(
            !self.is_blocked(id),
            "{id} overtook an earlier one of its keys"
        );
        let due = self.held.values().any(|held| held.place == Place::Due);
        let held = self.held.get_mut(&id).expect("it is held");
        match held.place {
            Place::Due => {}
            Place::Unstarted => assert!(!due, "a retry goes first"),
            other => panic!("{id} was {other:?}"),
        }
        assert_eq!(update.is_err(), held.refused);
        if let Ok(update) = &update {
            assert_eq!(update.id, id);
            assert_eq!(update.attempt().get(), held.attempt);
            assert_eq!(update.redelivered(), held.handled);
            held.handled = true;
        }
        held.place = Place::Started(Run::default());
        self.tasks[task].ticket = Some(ticket);
        self.later.push(Box::new(update));
    }

    fn suspend(&mut self, task: usize, timeout: Timeout) {
        let (now, limit) = (self.now, self.limits.timeout);
        let Task {
            permit,
            ticket,
            mailbox,
            ..
        } = &mut self.tasks[task];
        let ticket = ticket.expect("it has an update");
        mailbox.register(Waker::noop());
        let mut effects = Effects::default();
        let (state, now) = (&mut self.state, Some(now));
        let closed = state.suspend(ticket, timeout, now, mailbox, permit, &mut effects);
        assert_eq!(closed, self.phase == Phase::Closed);
        assert!(closed || !*permit, "a permit is handed on");
        let now = self.now;
        let run = self.run_mut(ticket);
        if !closed {
            run.suspended = true;
            let asked_for = run.asked_for.take();
            let limit = match timeout {
                Timeout::Handler => limit,
                Timeout::Policy => Some(Duration::from_secs(30)),
            };
            run.deadline = limit.map(|limit| (now + limit).max(asked_for.unwrap_or(now)));
        }
        self.apply(effects);
        if closed {
            self.complete(task, Outcome::Abandoned, false);
        }
    }

    fn poll(&mut self, task: usize, end: End) {
        let ticket = self.tasks[task].ticket.expect("it has an update");
        self.tasks[task].mailbox.register(Waker::noop());
        let command = self.tasks[task].mailbox.take();
        let run = *self.run_mut(ticket);
        assert_eq!(command, run.told);
        self.run_mut(ticket).told = None;
        match command {
            None => {}
            Some(Command::Abandon) => self.complete(task, Outcome::Abandoned, false),
            Some(Command::TimeOut) if run.deciding => {
                self.complete(task, Outcome::GivenUp(Ending::Failed), false);
            }
            Some(Command::TimeOut) => {
                // It was polled once more, and is still pending.
                let late = self.state.cancel_if_late(ticket);
                assert_eq!(late, run.late == Some(Late::Cancelling));
                if late {
                    self.run_mut(ticket).deciding = true;
                    let outcome = match self.decide(task) {
                        true => end.outcome(Ending::TimedOut),
                        false => Outcome::Abandoned,
                    };
                    self.complete(task, outcome, false);
                }
            }
            Some(other) => panic!("a handler is told {other:?}"),
        }
    }

    fn end(&mut self, task: usize, end: End, pause: bool) {
        let ticket = self.tasks[task].ticket.expect("it has an update");
        let deciding = self.run_mut(ticket).deciding;
        let refused = self.held[&ticket.id].refused;
        let ending = match refused {
            true => Ending::Undecodable,
            false => Ending::Failed,
        };
        let outcome = match end {
            End::Done if !deciding && !refused => Outcome::Done,
            end if deciding || self.decide(task) => end.outcome(ending),
            _ => Outcome::Abandoned,
        };
        self.complete(task, outcome, pause);
    }

    /// Whether the policy may be asked.
    fn decide(&mut self, task: usize) -> bool {
        let ticket = self.tasks[task].ticket.expect("it has an update");
        self.tasks[task].mailbox.clear();
        let update = self.state.decide(ticket);
        let begun = update.is_some();
        self.later.push(Box::new(update));
        assert_eq!(begun, self.phase != Phase::Closed);
        let run = self.run_mut(ticket);
        *run = Run {
            detached: run.detached,
            deciding: begun,
            ..Run::default()
        };
        begun
    }

    /// What a worker does when its update is done: completes it, and takes the next one.
    fn complete(&mut self, task: usize, outcome: Outcome, pause: bool) {
        let ticket = self.tasks[task].ticket.take().expect("it has an update");
        let now = self.now;
        let counters = &mut self.expected;
        let held = self.held.get_mut(&ticket.id).expect("it is held");
        let mut halts = false;
        let gone = match &outcome {
            Outcome::Done => counters.of(Ending::Finished),
            Outcome::GivenUp(ending) => counters.of(*ending),
            Outcome::Abandoned => &mut counters.abandoned,
            Outcome::Stop { .. } => {
                halts = true;
                &mut counters.abandoned
            }
            Outcome::Retry { after, else_as } => match self.phase {
                Phase::Open => {
                    held.place = Place::Retrying(now + *after);
                    &mut counters.retried
                }
                Phase::Stopping if held.last_attempt => counters.of(*else_as),
                Phase::Stopping => {
                    held.place = Place::Due;
                    held.last_attempt = true;
                    &mut counters.retried
                }
                Phase::Halted | Phase::Closed => &mut counters.abandoned,
            },
        };
        *gone += 1;
        if let Place::Started(_) = held.place {
            self.held.remove(&ticket.id);
            self.gone.push(ticket);
        } else {
            held.attempt += 1;
        }
        if halts {
            if self.phase != Phase::Closed {
                self.phase = Phase::Halted;
            }
            self.abandon_unstarted();
        }

        let strict = self.limits.workers.is_some();
        let mut permit = self.tasks[task].permit;
        let mut effects = Effects::default();
        self.tasks[task].mailbox.clear();
        let state = &mut self.state;
        let (measured, done) = (Some((now, 1)), matches!(outcome, Outcome::Done));
        let may_go_on = !pause && state.workers.acquire_permit(&mut permit);
        let mut started = None;
        if may_go_on && done {
            let replaced = state.replace(ticket, measured);
            started = replaced.map(|(started, last)| {
                self.later.push(Box::new(last));
                started
            });
        }
        if started.is_none() {
            state.complete(ticket, outcome, measured, &mut effects);
            if may_go_on {
                started = state.start(&mut permit);
                assert!(started.is_some() || !permit);
            } else if pause {
                let startable = state.startable();
                state.workers.keep_permit(startable, &mut permit);
            }
        }
        assert!(
            started.is_none() || permit || !strict,
            "only permits take updates"
        );
        self.tasks[task].permit = permit;
        self.started(task, started);
        self.state.notify(&mut effects);
        self.apply(effects);
    }

    fn extend(&mut self, id: u64, by: u64) {
        let index = self.state.entries.iter();
        // One that has no entry yet has no place either.
        let mut index = index.filter(|(_, entry)| entry.id == id);
        let index = index.next().map_or(u32::MAX, |(index, _)| index as u32);
        let (now, until) = (self.now, self.now + ms(by));
        let mut wakers = Wakers::default();
        let answer = self
            .state
            .extend(Ticket { id, index }, ms(by), now, &mut wakers);
        self.later.push(Box::new(wakers));
        let (closed, limited) = (self.phase == Phase::Closed, self.limits.timeout.is_some());
        let expected = match &mut self.held.get_mut(&id).expect("it is held").place {
            Place::Started(run)
                if !closed
                    && !run.deciding
                    && run.late.is_none_or(|late| late == Late::Cancelling) =>
            {
                if limited {
                    // The command may have been posted, but means nothing any more.
                    run.late = None;
                    match run.suspended {
                        true => run.deadline = run.deadline.max(Some(until)),
                        false => run.asked_for = run.asked_for.max(Some(until)),
                    }
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
        let mut effects = Effects::default();
        while self.state.expire(now, &mut effects) {}
        let mut due: Vec<(Instant, u64)> = (self.held.iter())
            .filter_map(|(id, held)| match held.place {
                Place::Started(run) => Some((run.deadline?, *id)),
                Place::Retrying(due) => Some((due, *id)),
                Place::Unstarted | Place::Due => None,
            })
            .filter(|(at, _)| *at <= now)
            .collect();
        due.sort_unstable();
        let mut told = 0;
        for (_, id) in due {
            let detached = self.detached();
            match &mut self.held.get_mut(&id).expect("it is held").place {
                place @ Place::Retrying(_) => *place = Place::Due,
                Place::Started(run) => {
                    run.deadline = None;
                    match self.limits.after_timeout {
                        _ if run.deciding => run.told = Some(Command::TimeOut),
                        AfterTimeout::Cancel => {
                            run.late = Some(Late::Cancelling);
                            run.told = Some(Command::TimeOut);
                        }
                        AfterTimeout::Continue => run.late = Some(Late::Continuing),
                        AfterTimeout::Detach(_) => {
                            run.late = Some(Late::Continuing);
                            let max = self
                                .limits
                                .max_detached()
                                .unwrap_or(self.limits.concurrency);
                            run.detached = detached < max.get();
                            self.expected.detached += u64::from(run.detached);
                        }
                    }
                    told += u64::from(run.late == Some(Late::Continuing) && !run.deciding);
                }
                Place::Unstarted | Place::Due => unreachable!("filtered above"),
            }
        }
        assert_eq!(
            effects.late.len() as u64,
            told,
            "each late handler is told of once"
        );
        self.apply(effects);
    }

    fn stop(&mut self) {
        if self.phase == Phase::Open {
            self.phase = Phase::Stopping;
            for held in self.held.values_mut() {
                if let Place::Retrying(_) = held.place {
                    held.place = Place::Due;
                }
                held.last_attempt |= held.place == Place::Due;
            }
        }
        let mut effects = Effects::default();
        self.state.stop(&mut effects);
        self.apply(effects);
    }

    fn abandon(&mut self) {
        self.abandon_unstarted();
        self.phase = Phase::Closed;
        for held in self.held.values_mut() {
            if let Place::Started(run) = &mut held.place {
                (run.deadline, run.asked_for) = (None, None);
                if run.suspended {
                    run.told = Some(Command::Abandon);
                }
            }
        }
        let mut effects = Effects::default();
        self.state.abandon(&mut effects);
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

    fn is_blocked(&self, id: u64) -> bool {
        let own = &self.held[&id].keys;
        let mut earlier = self.held.range(..id);
        earlier.any(|(_, earlier)| !earlier.keys.is_disjoint(own))
    }

    fn count(&self, fits: impl Fn(u64, &Held) -> bool) -> usize {
        let held = self.held.iter();
        held.filter(|(id, held)| fits(**id, held)).count()
    }

    fn running(&self) -> usize {
        self.count(|_, held| matches!(held.place, Place::Started(run) if !run.detached))
    }

    fn detached(&self) -> usize {
        self.count(|_, held| matches!(held.place, Place::Started(run) if run.detached))
    }

    fn ready(&self) -> usize {
        self.count(|id, held| match held.place {
            Place::Unstarted => !self.is_blocked(id),
            Place::Due => true,
            Place::Retrying(_) | Place::Started(_) => false,
        })
    }

    fn waiting(&self) -> usize {
        self.count(|id, held| match held.place {
            Place::Unstarted => self.is_blocked(id),
            Place::Retrying(_) => true,
            Place::Due | Place::Started(_) => false,
        })
    }

    fn startable(&self) -> usize {
        match self.phase {
            Phase::Open | Phase::Stopping => {
                let free = self.limits.concurrency.get().saturating_sub(self.running());
                self.ready().min(free)
            }
            Phase::Halted | Phase::Closed => 0,
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let deadlines = self.held.values().filter_map(|held| match held.place {
            Place::Started(run) => run.deadline,
            Place::Retrying(due) => Some(due),
            Place::Unstarted | Place::Due => None,
        });
        deadlines.min()
    }

    fn room(&self, scarce: bool) -> Option<usize> {
        if self.phase != Phase::Open {
            return None;
        }
        if self.limits.mode != Mode::Concurrent {
            return self.held.is_empty().then_some(100);
        }
        let Limits {
            concurrency,
            max_waiting,
            max_bytes,
            prefetch,
            ..
        } = self.limits;
        let slots = concurrency.get().saturating_sub(self.running());
        let room = (slots.min(max_waiting.get()) + prefetch)
            .saturating_sub(self.ready())
            .min(max_waiting.get().saturating_sub(self.waiting()));
        let enough = scarce || self.ready() == 0 || room >= prefetch / 2;
        let bytes: usize = self.held.values().map(|held| held.bytes).sum();
        let light = max_bytes.is_none_or(|max| bytes < max.get());
        (room > 0 && enough && !self.choked && light).then_some(room)
    }

    /// Whether intake stands still: from the bound on, until half a fetch or half of the bound is free, and
    /// in any case one place.
    fn look_at_waiting(&mut self) {
        let bound = self.limits.max_waiting.get();
        let few = (self.limits.prefetch / 2).min(bound / 2).max(1);
        let free = bound.saturating_sub(self.waiting());
        self.choked = free == 0 || self.choked && free < few;
    }

    fn check(&mut self) {
        if !matches!(self.phase, Phase::Halted | Phase::Closed) {
            self.look_at_waiting();
        }
        for (_, entry) in &self.state.entries {
            let held = &self.held[&entry.id];
            let expected = match held.place {
                Place::Unstarted if self.is_blocked(entry.id) => Is::Waiting,
                Place::Unstarted | Place::Due => Is::Ready,
                Place::Retrying(_) => Is::Retrying,
                Place::Started(Run { deciding: true, .. }) => Is::Deciding,
                Place::Started(Run {
                    late: Some(late), ..
                }) => Is::Late(late),
                Place::Started(_) => Is::Running,
            };
            assert_eq!(entry.state, expected, "{}", entry.id);
            assert_eq!(entry.attempt.get(), held.attempt);
        }
        let state = &self.state;
        assert_eq!(state.len(), self.held.len());
        assert_eq!(state.workers.running, self.running());
        assert_eq!(state.workers.detached, self.detached());
        let deciding =
            |_: u64, held: &Held| matches!(held.place, Place::Started(run) if run.deciding);
        assert_eq!(state.workers.deciding, self.count(deciding));
        let retrying = |_: u64, held: &Held| matches!(held.place, Place::Retrying(_));
        assert_eq!(state.intake.retrying(), self.count(retrying));
        assert_eq!(state.ready.len(), self.ready());
        assert_eq!(state.intake.waiting(), self.waiting());
        let bytes: usize = self.held.values().map(|held| held.bytes).sum();
        assert_eq!(state.intake.bytes(), bytes);
        assert_eq!(state.startable(), self.startable());
        assert_eq!(state.phase, self.phase);
        assert_eq!(state.timers.first(), self.next_deadline());
        for task in &self.tasks {
            if let Some(ticket) = task.ticket
                && let Some(run) = self.run_of(task)
            {
                let expected = match run {
                    Run { deciding: true, .. } => None,
                    Run {
                        suspended: true, ..
                    } => run.deadline,
                    _ => run.asked_for,
                };
                assert_eq!(self.state.deadline(ticket), expected);
            }
        }
        for ticket in &self.gone {
            assert_eq!(self.state.deadline(*ticket), None, "its place may be taken");
        }
        for scarce in [false, true] {
            let room = self.state.room(scarce).map(NonZeroUsize::get);
            assert_eq!(room, self.room(scarce));
        }
        // Every update leaves once.
        let state = &self.state;
        assert_eq!(state.completion.counters, self.expected);
        let left = self.expected.settled() + self.held.len() as u64;
        assert_eq!(left, self.expected.supplied);
        assert_eq!(
            state.completion.abandoned.len() as u64,
            self.expected.abandoned
        );
        // There are as many permits as the state thinks, and one if there is work.
        let permits = self.tasks.iter().filter(|task| task.permit).count();
        assert_eq!(state.workers.permits, permits);
        assert!(permits <= state.workers.max_permits);
        let searching = |task: &&Task| task.permit && task.ticket.is_none();
        assert_eq!(
            state.workers.unused,
            self.tasks.iter().filter(searching).count()
        );
        assert!(self.startable() == 0 || permits > 0, "updates are stranded");
    }

    /// Lets everything end, and finds nothing left.
    fn finish(&mut self) {
        self.step(Op::Stop);
        while !self.held.is_empty() {
            let before = self.held.len();
            self.step(Op::Start(0));
            self.step(Op::Complete(0, End::Done, false));
            let busy = |task: &Task| task.permit || task.ticket.is_some();
            let progress = self.held.len() < before || self.tasks.iter().any(busy);
            assert!(progress, "{} updates never end", self.held.len());
        }
        for _ in 0..self.tasks.len() {
            self.step(Op::Start(0));
        }
        assert_eq!(self.state.workers.permits, 0);
        assert_eq!(self.state.timers.len(), 0);
        assert!(self.tasks.iter().all(|task| task.idle.is_none()));
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
