//! What must be true, judged only by what the ends of the pipeline have seen.
//!
//! The supplier, the key function, the consumer, the policy and the director report here. The
//! record knows nothing of the code under test but its promises. A broken promise is noted, not
//! panicked about: a panic would be caught by the very code that is being judged.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use runner_core::{Cause, Closing, testing::SimRuntime};

use crate::{
    coverage::{Coverage, Seen},
    feed::{Feed, Trouble},
    world::{Config, Item, Mode},
};

/// Everything that happened, and what it means.
pub(crate) struct Oracle {
    pub(crate) config: Config,
    sim: SimRuntime,
    pub(crate) coverage: Coverage,
    pub(crate) violation: Option<String>,
    events: Vec<(Duration, Event)>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) run: Run,
    /// Handlers and policies at work.
    pub(crate) busy: usize,
    /// Handlers in their first poll.
    starting: usize,
    pub(crate) concurrency: usize,
    pub(crate) paused: bool,
    /// A stop was called before the first run began.
    early: bool,
    /// Arrived and not ended, by number.
    pub(crate) held: BTreeSet<usize>,
    /// Who holds or awaits each key, in order of arrival.
    lines: HashMap<u32, VecDeque<usize>>,
    /// When anything changed last.
    changed: Duration,
    pub(crate) call: Call,
    pub(crate) feed: Feed,
}

/// One supplied update, as the test saw it.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) id: u64,
    pub(crate) run: usize,
    pub(crate) keys: u32,
    pub(crate) state: State,
    pub(crate) attempts: u32,
    /// Why it is not handled at all.
    refused: Option<Refusal>,
    last: Option<Last>,
    clock: Clock,
    /// Its handler is being polled right now.
    in_poll: bool,
    /// Went on after its timeout.
    late: bool,
    last_chance: LastChance,
    after_stop: u32,
    pub(crate) ended_at: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Supplied,
    /// Waits for its key, its slot or its retry.
    Pending {
        due: Option<Duration>,
    },
    Active,
    /// The attempt has failed; the policy has not been asked.
    Failed,
    Deciding {
        pended: Option<Duration>,
    },
    /// Settled.
    Done(Ending),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Ending {
    Finished,
    Failed,
    Panicked,
    TimedOut,
    Undecodable,
    Overflowed,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Last {
    Ok,
    Error,
    Undecodable,
    Panic,
    Dropped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Refusal {
    Overflow,
    Keys,
}

/// When a handler has to end.
#[derive(Clone, Copy, Debug, Default)]
struct Clock {
    pended: bool,
    deadline: Option<Duration>,
    /// Asked for before the clock started.
    kept: Option<Duration>,
}

/// Whether the one attempt after a stop is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LastChance {
    No,
    /// The retry was due at the very instant of the stop.
    Maybe,
    Yes,
}

/// The run under way, or the last one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Run {
    pub(crate) number: usize,
    pub(crate) first: usize,
    pub(crate) arrived: usize,
    pub(crate) begun: bool,
    pub(crate) stopping: bool,
    stopped_at: Option<Duration>,
    pub(crate) deadline: Option<Duration>,
    /// The policy ended it.
    pub(crate) halted: bool,
    pub(crate) over: bool,
    pub(crate) closes: Vec<usize>,
    /// What the supplier has to be told before anything else.
    pub(crate) unclosed: Option<(usize, usize)>,
    pub(crate) close_answer: Option<Closing>,
    retries: u64,
}

/// What the supplier is doing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Call {
    pub(crate) pending: bool,
    pub(crate) closing: bool,
    /// The last call has ended the run.
    pub(crate) fatal: bool,
    /// When the source has to drop it.
    deadline: Option<Duration>,
    ended_at: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Event {
    Begin(usize),
    Call { limit: usize },
    Answer { count: usize },
    CallFailed(Trouble),
    CallDropped,
    Close { prefix: usize },
    Arrive(usize),
    Start(usize, u32),
    End(usize, Last),
    Ask(usize),
    Verdict(usize, Verdict),
    Extend(usize, bool),
    Stop(Option<Duration>),
    Concurrency(usize),
    Pause(bool),
    Cut,
    Result { abandoned: usize },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Verdict {
    Skip,
    Retry(Duration),
    Stop,
    Panic,
    Dropped,
}

/// How long a policy may take.
const POLICY_TIMEOUT: Duration = Duration::from_secs(30);

/// In a sequential sink all updates share it.
const TOTAL: u32 = 99;

impl Oracle {
    pub(crate) fn new(config: &Config, sim: &SimRuntime) -> Self {
        Self {
            config: config.clone(),
            sim: sim.clone(),
            coverage: Coverage::default(),
            violation: None,
            events: Vec::new(),
            entries: Vec::new(),
            run: Run {
                over: true,
                ..Run::default()
            },
            busy: 0,
            starting: 0,
            concurrency: config.concurrency,
            paused: false,
            early: false,
            held: BTreeSet::new(),
            lines: HashMap::new(),
            changed: Duration::ZERO,
            call: Call::default(),
            feed: Feed::new(config.feed),
        }
    }

    pub(crate) fn now(&self) -> Duration {
        self.sim.elapsed()
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.changed = self.now();
        self.events.push((self.changed, event));
    }

    /// Notes a broken promise; the first one counts.
    pub(crate) fn broken(&mut self, what: impl FnOnce() -> String) {
        if self.violation.is_none() {
            let what = what();
            self.violation = Some(format!("{what} (at {:?})", self.now()));
        }
    }

    pub(crate) fn require(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.broken(what);
        }
    }

    /// A number that two equal stories share.
    pub(crate) fn story(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.events.hash(&mut hasher);
        hasher.finish()
    }

    /// The last events before a broken promise.
    pub(crate) fn tail(&self, count: usize) -> String {
        let from = self.events.len().saturating_sub(count);
        self.events[from..]
            .iter()
            .map(|(at, event)| format!("{at:>12.1?}  {event:?}\n"))
            .collect()
    }

    // The run, as its director sees it.

    pub(crate) fn begin(&mut self) {
        self.event(Event::Begin(self.run.number + 1));
        self.run = Run {
            number: self.run.number + 1,
            first: self.entries.len(),
            begun: true,
            unclosed: self.run.unclosed,
            stopping: std::mem::take(&mut self.early),
            ..Run::default()
        };
        self.call = Call::default();
        self.held.clear();
        self.lines.clear();
        self.busy = 0;
        self.starting = 0;
    }

    /// A stop was called; it takes effect at once.
    pub(crate) fn stop(&mut self, within: Option<Duration>) {
        self.event(Event::Stop(within));
        if self.run.over {
            // The first run remembers it; afterwards there is nothing to stop.
            self.early |= self.run.number == 0;
            return;
        }
        let now = self.now();
        if let Some(within) = within {
            let deadline = now + within;
            self.run.deadline = Some(self.run.deadline.map_or(deadline, |at| at.min(deadline)));
        }
        self.stopped_at(now);
    }

    fn stopped_at(&mut self, at: Duration) {
        if self.run.stopping {
            return;
        }
        self.run.stopping = true;
        self.run.stopped_at = Some(at);
        for nr in &self.held {
            let entry = &mut self.entries[*nr];
            if let State::Pending { due: Some(due) } = entry.state {
                entry.last_chance = match due.cmp(&at) {
                    std::cmp::Ordering::Less => LastChance::No,
                    std::cmp::Ordering::Equal => LastChance::Maybe,
                    std::cmp::Ordering::Greater => LastChance::Yes,
                };
            }
        }
    }

    /// A delivery says whether the runner is stopping.
    fn notice_stop(&mut self, stopping: bool) {
        // After its own stop the policy may be told so or not.
        if self.run.halted {
            return;
        }
        let known = self.run.stopping;
        self.require(stopping == known, || {
            format!("told that stopping is {stopping}, it is {known}")
        });
    }

    pub(crate) fn set_concurrency(&mut self, concurrency: usize) {
        self.event(Event::Concurrency(concurrency));
        let raised = concurrency > self.concurrency;
        self.coverage.add(if raised {
            Seen::RaiseConcurrency
        } else {
            Seen::LowerConcurrency
        });
        if self.config.mode != Mode::Sequential {
            self.concurrency = concurrency;
        }
    }

    pub(crate) fn pause(&mut self, paused: bool) {
        self.event(Event::Pause(paused));
        self.paused = paused;
    }

    /// The run was cut short, by a drop of its future or of its runtime.
    pub(crate) fn cut(&mut self) {
        self.event(Event::Cut);
        self.run.over = true;
        // What the supplier is told first by the next run.
        // A handler that was given up may have ended since the supplier was told the first time.
        let told = self.run.closes.first().map(|told| (*told, *told));
        let prefix = told.unwrap_or_else(|| self.settled_prefix());
        self.run.unclosed.get_or_insert(prefix);
        self.call = Call {
            ended_at: self.now(),
            ..Call::default()
        };
    }

    /// Whether nothing may start any more, and what was not started is gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.run.halted || self.is_cancelled()
    }

    /// Whether handlers are being dropped.
    pub(crate) fn is_cancelled(&self) -> bool {
        let now = self.now();
        self.run.over || self.run.deadline.is_some_and(|deadline| deadline <= now)
    }

    // The supplier.

    pub(crate) fn call(&mut self, limit: usize, timeout: Option<Duration>) {
        self.event(Event::Call { limit });
        let run = self.run.clone();
        self.require(!run.over, || "a call without a run".to_owned());
        self.require(!run.stopping, || "a call after the stop".to_owned());
        self.require(!self.call.fatal, || {
            "a call after a fatal failure".to_owned()
        });
        self.require(!run.halted, || "a call after the policy's stop".to_owned());
        self.require(!self.paused, || "a call while paused".to_owned());
        self.require(run.unclosed.is_none(), || {
            "a call before the supplier was told how far the last run got".to_owned()
        });
        let pending = self.call.pending || self.call.closing;
        self.require(!pending, || "calls overlap".to_owned());
        self.require((1..=100).contains(&limit), || format!("limit {limit}"));
        let (now, feed) = (self.now(), self.feed);
        self.require(now >= feed.not_before, || {
            format!("a call that had to wait until {:?}", feed.not_before)
        });
        // After a rest it asks for what there was room for before.
        if self.config.mode != Mode::Concurrent || !feed.rests(self.call.ended_at) {
            self.check_room(limit);
        }
        self.feed.calls += 1;
        self.call = Call {
            pending: true,
            deadline: timeout.map(|timeout| now + timeout),
            ..Call::default()
        };
    }

    /// A call asks for what there is room for.
    fn check_room(&mut self, limit: usize) {
        if self.config.mode != Mode::Concurrent {
            let held = self.held.len();
            self.require(held == 0, || format!("a call while {held} are held"));
            return;
        }
        let waiting = self.held.iter().filter(|nr| self.is_waiting(**nr)).count();
        let pending = self
            .held
            .iter()
            .filter(|nr| matches!(self.entries[**nr].state, State::Pending { .. }))
            .count();
        let slots = self.concurrency.saturating_sub(self.slots());
        let room = (slots + self.config.prefetch)
            .saturating_sub(pending - waiting)
            .min(self.config.max_waiting.saturating_sub(waiting));
        self.require(limit <= room, || {
            format!("a call for {limit} with room for {room}")
        });
    }

    /// Supplies the next update: its number.
    pub(crate) fn supply(&mut self, id: u64) -> usize {
        let again = self.entries[self.run.first..]
            .iter()
            .any(|entry| entry.id == id);
        self.require(!(self.config.fetched && again), || {
            format!("update id {id} was fetched twice in one run")
        });
        self.entries.push(Entry {
            id,
            run: self.run.number,
            keys: 0,
            state: State::Supplied,
            attempts: 0,
            refused: None,
            last: None,
            clock: Clock::default(),
            in_poll: false,
            late: false,
            last_chance: LastChance::No,
            after_stop: 0,
            ended_at: Duration::ZERO,
        });
        self.entries.len() - 1
    }

    pub(crate) fn answer(&mut self, count: usize) {
        self.event(Event::Answer { count });
        let now = self.now();
        self.call = Call {
            ended_at: now,
            ..Call::default()
        };
        self.feed.answered(now);
    }

    pub(crate) fn call_failed(&mut self, trouble: Trouble) {
        self.event(Event::CallFailed(trouble));
        self.coverage.add(trouble.seen());
        let now = self.now();
        let fatal = self.feed.failed(trouble, now);
        match trouble {
            Trouble::Poller if fatal => self.coverage.add(Seen::SupplyTooManyConflicts),
            Trouble::Transient | Trouble::Timeout if fatal => {
                self.coverage.add(Seen::SupplyGivenUp);
            }
            _ => {}
        }
        self.call = Call {
            fatal,
            ended_at: now,
            ..Call::default()
        };
        if fatal {
            self.stopped_at(now);
        }
    }

    pub(crate) fn call_dropped(&mut self) {
        let now = self.now();
        if self.paused || self.run.stopping || self.is_closed() {
            self.event(Event::CallDropped);
            self.coverage.add(Seen::SupplyDropped);
            self.feed.interrupted(now);
            self.call = Call {
                ended_at: now,
                ..Call::default()
            };
            return;
        }
        let overdue = self.call.deadline.is_some_and(|deadline| deadline <= now);
        self.require(overdue, || "a call was dropped for no reason".to_owned());
        self.call_failed(Trouble::Timeout);
    }

    pub(crate) fn close(&mut self, prefix: usize) {
        self.event(Event::Close { prefix });
        self.require(!self.call.pending, || "closed during a call".to_owned());
        self.call.closing = true;
        if let Some(unclosed) = self.run.unclosed {
            self.coverage.add(Seen::CloseAfterCutShort);
            let fits = (unclosed.0..=unclosed.1).contains(&prefix);
            self.require(fits, || {
                format!("the run that was cut short had settled {unclosed:?}, not {prefix}")
            });
            return;
        }
        self.require(!self.run.over, || "closed without a run".to_owned());
        self.run.closes.push(prefix);
        let settled = self.settled_prefix();
        let fits = (settled.0..=settled.1).contains(&prefix);
        self.require(fits, || {
            format!("closed at {prefix}, but {settled:?} are settled without a gap")
        });
    }

    pub(crate) fn closed(&mut self, answer: Option<Closing>) {
        self.call.closing = false;
        // The answer to the close of a run that was cut short is nobody's. If this run is cut short
        // as well, the next one tells it again.
        if self.run.closes.is_empty() {
            if !self.run.over {
                self.run.unclosed = None;
            }
        } else {
            self.run.close_answer = answer;
        }
    }

    /// The server has forgotten an update.
    pub(crate) fn forgotten(&mut self, id: u64) {
        self.coverage.add(Seen::ServerForgets);
        let known = (0..self.entries.len()).filter(|nr| self.entries[*nr].id == id);
        let known: Vec<usize> = known.collect();
        let supplied = !known.is_empty();
        let settled = known
            .iter()
            .any(|nr| matches!(self.entries[*nr].state, State::Done(_)) || self.may_be_failed(*nr));
        self.require(supplied, || {
            format!("update id {id} is lost: it was never supplied")
        });
        let sure = self.config.mode != Mode::Concurrent;
        self.require(!sure || settled, || {
            format!("update id {id} is lost: it was not settled when the next batch was fetched")
        });
    }

    /// How many are settled without a gap: at least, and at most.
    fn settled_prefix(&self) -> (usize, usize) {
        let first = self.run.first;
        let settled = |nr: &usize| matches!(self.entries[*nr].state, State::Done(_));
        let least = (first..self.entries.len()).take_while(settled).count();
        let most = (first..self.entries.len())
            .take_while(|nr| settled(nr) || self.may_be_failed(*nr))
            .count();
        (least, most)
    }

    // The way of one update.

    /// The key function is asked; `true`: it is to panic.
    pub(crate) fn arrive(&mut self, nr: usize) -> bool {
        if self.entries[nr].state != State::Supplied {
            return self.entries[nr].refused == Some(Refusal::Keys);
        }
        self.event(Event::Arrive(nr));
        let expected = self.run.first + self.run.arrived;
        self.require(nr == expected, || {
            format!("update {nr} arrived instead of {expected}")
        });
        self.run.arrived += 1;
        let id = self.entries[nr].id;
        let bad = Item::has_bad_keys(&self.config, id);
        let sequential = self.config.mode == Mode::Sequential;
        let keys = match self.config.mode {
            Mode::Sequential => 0,
            _ => Item::keys(&self.config, id),
        };
        let crowded = self.config.max_waiting_per_key.is_some_and(|limit| {
            bits(keys).any(|key| self.lines.get(&key).is_some_and(|line| line.len() > limit))
        });
        if sequential {
            self.lines.entry(TOTAL).or_default().push_back(nr);
        }
        let entry = &mut self.entries[nr];
        entry.state = State::Pending { due: None };
        if bad {
            entry.refused = Some(Refusal::Keys);
            self.coverage.add(Seen::KeysPanic);
        } else if crowded {
            entry.refused = Some(Refusal::Overflow);
            self.coverage.add(Seen::Overflow);
        } else {
            entry.keys = keys;
            for key in bits(keys) {
                self.lines.entry(key).or_default().push_back(nr);
            }
        }
        self.held.insert(nr);
        bad
    }

    /// A handler begins.
    pub(crate) fn start(&mut self, nr: usize, attempt: u32, stopping: bool) {
        self.event(Event::Start(nr, attempt));
        self.check_start(nr);
        if self.entries[nr].run != self.run.number {
            return;
        }
        self.notice_stop(stopping);
        let entry = &mut self.entries[nr];
        let before = entry.state;
        let refused = entry.refused;
        entry.state = State::Active;
        entry.clock = Clock::default();
        entry.late = false;
        self.require(refused.is_none(), || {
            format!("update {nr} was refused, and started")
        });
        self.busy += 1;
        self.starting += 1;
        let (starting, workers) = (self.starting, self.config.workers);
        self.require(starting <= workers, || {
            format!("{starting} handlers in their first poll with {workers} workers")
        });
        self.begin_attempt(nr, attempt, before);
    }

    /// An update leaves the line, for its handler or, if it was refused, for the policy.
    fn begin_attempt(&mut self, nr: usize, attempt: u32, before: State) {
        let now = self.now();
        let State::Pending { due } = before else {
            self.broken(|| format!("update {nr} started while {before:?}"));
            return;
        };
        let stopping = self.run.stopping;
        let entry = &mut self.entries[nr];
        if entry.last_chance == LastChance::Maybe && entry.after_stop > 0 {
            // So the attempt before was not its last one.
            entry.last_chance = LastChance::Yes;
        }
        entry.attempts += 1;
        entry.after_stop += u32::from(stopping);
        let (expected, after_stop) = (entry.attempts, entry.after_stop);
        self.require(attempt == expected, || {
            format!("update {nr} started as attempt {attempt}, not {expected}")
        });
        self.require(after_stop <= 2, || {
            format!("update {nr} started {after_stop} times after the stop")
        });
        self.require(stopping || due.is_none_or(|due| due <= now), || {
            format!("update {nr} was to be tried again at {due:?}")
        });
        if due.is_none() {
            // Who is tried again comes first.
            let hastened = self.run.stopped_at.is_some_and(|at| at < now);
            let passed = self.held.iter().copied().find(|nr| {
                let waits = match self.entries[*nr].state {
                    State::Pending { due: Some(due) } => due < now || hastened,
                    _ => false,
                };
                waits && !self.may_be_failed(*nr)
            });
            self.require(passed.is_none(), || {
                format!("update {nr} started before {passed:?} was tried again")
            });
        }
        let (slots, limit) = (self.slots(), self.concurrency);
        self.require(slots <= limit, || {
            format!("{slots} in flight, the limit is {limit}")
        });
        for key in self.keys_of(nr) {
            while let Some(first) = self.lines[&key].front().copied()
                && first != nr
                && self.may_be_failed(first)
            {
                // So its attempt was its last one.
                self.done(first, Ending::Failed);
            }
            let first = self.lines[&key].front().copied();
            self.require(first == Some(nr), || {
                format!("update {nr} overtook {first:?} at key {key}")
            });
        }
    }

    /// Whether it failed at what may have been its last attempt: nobody outside can tell.
    pub(crate) fn may_be_failed(&self, nr: usize) -> bool {
        let entry = &self.entries[nr];
        entry.last_chance == LastChance::Maybe
            && entry.after_stop > 0
            && matches!(entry.state, State::Pending { .. })
    }

    pub(crate) fn is_refused(&self, nr: usize) -> bool {
        self.entries[nr].refused.is_some()
    }

    fn check_start(&mut self, nr: usize) {
        let now = self.now();
        let run = self.run.clone();
        self.require(self.entries[nr].run == run.number, || {
            format!("update {nr} of an earlier run started")
        });
        self.require(!run.over, || format!("update {nr} started after the end"));
        self.require(!run.halted, || {
            format!("update {nr} started after the policy's stop")
        });
        self.require(run.deadline.is_none_or(|deadline| now <= deadline), || {
            format!("update {nr} started after the deadline of the stop")
        });
    }

    /// A handler is about to be polled.
    pub(crate) fn poll(&mut self, nr: usize) {
        self.entries[nr].in_poll = true;
    }

    /// A handler waits.
    pub(crate) fn pend(&mut self, nr: usize) {
        let now = self.now();
        let timeout = self.config.timeout;
        let entry = &mut self.entries[nr];
        entry.in_poll = false;
        if !entry.clock.pended {
            entry.clock.pended = true;
            entry.clock.deadline = timeout.map(|timeout| now + timeout).max(entry.clock.kept);
            if entry.run == self.run.number {
                self.starting -= 1;
            }
            self.changed = now;
        }
    }

    /// A handler has ended or was dropped.
    pub(crate) fn end(&mut self, nr: usize, last: Last) {
        self.event(Event::End(nr, last));
        let now = self.now();
        let cancelled = self.is_cancelled();
        let detach = self.config.detach.is_some();
        let entry = &mut self.entries[nr];
        if entry.state != State::Active {
            let state = entry.state;
            self.broken(|| format!("update {nr} ended while {state:?}"));
            return;
        }
        let expired = entry.clock.pended && entry.clock.deadline.is_some_and(|at| at <= now);
        entry.in_poll = false;
        entry.late = detach && expired;
        entry.last = Some(last);
        entry.state = State::Failed;
        let (late, pended, current) =
            (entry.late, entry.clock.pended, entry.run == self.run.number);
        if current && !pended {
            self.starting -= 1;
        }
        if late {
            self.coverage.add(Seen::HandlerDetached);
        }
        match last {
            Last::Ok => self.done(nr, Ending::Finished),
            // Both at the same instant: the policy may be asked or not.
            Last::Dropped if cancelled && expired && !detach => {}
            Last::Dropped if cancelled => {
                self.coverage.add(Seen::HandlerAbandoned);
                self.unsettled(nr);
            }
            Last::Dropped => {
                self.require(expired && !detach, || {
                    format!("the handler of update {nr} was dropped for no reason")
                });
                self.coverage.add(Seen::HandlerTimedOut);
            }
            _ => {}
        }
    }

    /// A handler asked for more time and was answered.
    pub(crate) fn extend(&mut self, nr: usize, by: Duration, granted: bool) {
        self.event(Event::Extend(nr, granted));
        let now = self.now();
        let cancelled = self.is_cancelled();
        let entry = &mut self.entries[nr];
        if cancelled || self.config.timeout.is_none() {
            return;
        }
        let until = now + by;
        let clock = &mut entry.clock;
        let (expired, open) = match clock.deadline {
            Some(deadline) => (now > deadline, now < deadline),
            None => (false, true),
        };
        if granted {
            if clock.pended {
                clock.deadline = clock.deadline.max(Some(until));
            } else {
                clock.kept = clock.kept.max(Some(until));
            }
        }
        self.require(!(expired && granted), || {
            format!("update {nr} was given more time after its end")
        });
        self.require(granted || !open, || {
            format!("update {nr} was not given more time")
        });
        if expired {
            self.coverage.add(Seen::HandlerExtendsTooLate);
        }
    }

    /// The deadline of a handler, if it is known for certain.
    pub(crate) fn deadline(&self, nr: usize) -> Option<Option<Duration>> {
        let clock = &self.entries[nr].clock;
        let certain = clock.pended
            && !self.is_cancelled()
            && clock.deadline.is_none_or(|deadline| self.now() < deadline);
        certain.then_some(clock.deadline)
    }

    /// The policy is asked.
    pub(crate) fn ask(&mut self, nr: usize, attempt: u32, cause: &Cause, stopping: bool) {
        self.event(Event::Ask(nr));
        let now = self.now();
        let run = self.run.clone();
        let current = self.entries[nr].run == run.number;
        self.require(current && !run.over, || {
            format!("the policy was asked about update {nr} after the end of its run")
        });
        if !current {
            return;
        }
        self.notice_stop(stopping);
        let entry = &mut self.entries[nr];
        let (before, last, refused) = (entry.state, entry.last, entry.refused);
        let deadline = entry.clock.deadline;
        entry.state = State::Deciding { pended: None };
        match (before, refused) {
            (State::Failed, None) => {
                let attempts = entry.attempts;
                self.require(attempt == attempts, || {
                    format!("the policy was told of attempt {attempt}, not {attempts}")
                });
                let fits = matches!(
                    (last, cause),
                    (Some(Last::Error), Cause::Error(_))
                        | (Some(Last::Undecodable), Cause::Undecodable(_))
                        | (Some(Last::Panic), Cause::Panic(_))
                        | (Some(Last::Dropped), Cause::Timeout)
                );
                self.require(fits, || format!("update {nr}: {cause:?} after {last:?}"));
                if matches!(cause, Cause::Timeout) {
                    self.require(deadline.is_some_and(|at| at <= now), || {
                        format!("update {nr} timed out early")
                    });
                }
            }
            (State::Pending { .. }, Some(refusal)) => {
                let fits = match refusal {
                    Refusal::Overflow => matches!(cause, Cause::Overflow),
                    Refusal::Keys => matches!(cause, Cause::Panic(_)),
                };
                self.require(fits, || format!("update {nr}: {cause:?} for {refusal:?}"));
                self.check_start(nr);
                self.busy += 1;
                self.begin_attempt(nr, attempt, before);
            }
            _ => self.broken(|| format!("the policy was asked about update {nr} while {before:?}")),
        }
    }

    /// A policy waits.
    pub(crate) fn policy_pends(&mut self, nr: usize) {
        let now = self.now();
        if let State::Deciding { pended } = &mut self.entries[nr].state {
            pended.get_or_insert(now);
        }
    }

    /// The policy has answered, or was dropped.
    pub(crate) fn verdict(&mut self, nr: usize, verdict: Verdict) {
        self.event(Event::Verdict(nr, verdict));
        let now = self.now();
        let cancelled = self.is_cancelled();
        let entry = &mut self.entries[nr];
        let State::Deciding { pended } = entry.state else {
            let state = entry.state;
            self.broken(|| format!("a verdict on update {nr} while {state:?}"));
            return;
        };
        let ending = match (entry.refused, entry.last) {
            (Some(Refusal::Overflow), _) => Ending::Overflowed,
            (Some(Refusal::Keys), _) | (_, Some(Last::Panic)) => Ending::Panicked,
            (_, Some(Last::Dropped)) => Ending::TimedOut,
            (_, Some(Last::Undecodable)) => Ending::Undecodable,
            (_, _) => Ending::Failed,
        };
        match verdict {
            Verdict::Skip | Verdict::Panic => self.done(nr, ending),
            Verdict::Dropped if cancelled => self.unsettled(nr),
            Verdict::Dropped => {
                let overdue = pended.is_some_and(|pended| pended + POLICY_TIMEOUT <= now);
                self.require(overdue, || {
                    format!("the policy was dropped for no reason, update {nr}")
                });
                self.done(nr, ending);
            }
            Verdict::Stop => {
                self.run.halted |= entry.run == self.run.number;
                self.unsettled(nr);
            }
            Verdict::Retry(after) => self.retry(nr, after),
        }
    }

    /// An attempt is over, and its update is nobody's business any more but the report's.
    fn unsettled(&mut self, nr: usize) {
        self.entries[nr].state = State::Pending { due: None };
        self.busy -= usize::from(self.entries[nr].run == self.run.number);
    }

    fn retry(&mut self, nr: usize, after: Duration) {
        let now = self.now();
        let (closed, stopping) = (self.is_closed(), self.run.stopping);
        let entry = &mut self.entries[nr];
        if self.run.deadline == Some(now) && entry.last_chance == LastChance::Yes {
            // At this very instant it is failed or abandoned, whichever comes first.
            entry.last_chance = LastChance::Maybe;
        }
        // It counts as failed whatever it was tried for.
        if stopping && !closed && entry.last_chance == LastChance::Yes {
            self.done(nr, Ending::Failed);
            return;
        }
        entry.state = State::Pending {
            due: Some(now.saturating_add(after)),
        };
        if stopping {
            self.coverage.add(Seen::PolicyRetriesAfterStop);
            if entry.last_chance == LastChance::No {
                entry.last_chance = LastChance::Yes;
            }
        }
        self.run.retries += 1;
        self.busy -= usize::from(self.entries[nr].run == self.run.number);
    }

    fn done(&mut self, nr: usize, ending: Ending) {
        let now = self.now();
        let keys = self.keys_of(nr);
        let entry = &mut self.entries[nr];
        let busy = !matches!(entry.state, State::Pending { .. });
        entry.state = State::Done(ending);
        entry.ended_at = now;
        if entry.run != self.run.number {
            return;
        }
        self.busy -= usize::from(busy);
        self.held.remove(&nr);
        for key in keys {
            if let Some(line) = self.lines.get_mut(&key)
                && let Some(place) = line.iter().position(|other| *other == nr)
            {
                line.remove(place);
            }
        }
    }

    // Looks at the whole.

    fn keys_of(&self, nr: usize) -> Vec<u32> {
        let entry = &self.entries[nr];
        let total = (self.config.mode == Mode::Sequential).then_some(TOTAL);
        bits(entry.keys).chain(total).collect()
    }

    /// Whether it waits for a key or for a retry.
    fn is_waiting(&self, nr: usize) -> bool {
        match self.entries[nr].state {
            State::Pending { due: Some(due) } => {
                due > self.now() && !(self.run.stopping || self.run.halted)
            }
            State::Pending { due: None } => self
                .keys_of(nr)
                .iter()
                .any(|key| self.lines[key].front() != Some(&nr)),
            _ => false,
        }
    }

    /// Who must be settled before it may start.
    pub(crate) fn waits_for(&self, nr: usize) -> Vec<u64> {
        let mut before: Vec<u64> = self
            .keys_of(nr)
            .iter()
            .filter_map(|key| {
                let line = &self.lines[key];
                let place = line.iter().position(|other| *other == nr)?;
                Some((line[place.checked_sub(1)?] - self.run.first) as u64)
            })
            .collect();
        before.sort_unstable();
        before.dedup();
        before
    }

    /// How many slots are taken, at least.
    fn slots(&self) -> usize {
        let Some(max) = self.config.detach else {
            return self.busy;
        };
        let now = self.now();
        let late = self
            .held
            .iter()
            .map(|nr| &self.entries[*nr])
            .filter(|entry| match entry.state {
                State::Active => {
                    entry.clock.pended && entry.clock.deadline.is_some_and(|at| at <= now)
                }
                State::Failed | State::Deciding { .. } => entry.late,
                _ => false,
            })
            .count();
        self.busy - late.min(max)
    }

    /// Whether anything could start, end or be fetched that has not, although time has passed.
    pub(crate) fn check_progress(&mut self) {
        let now = self.now();
        if self.run.over || !self.run.begun || now < self.changed + Duration::from_millis(1) {
            return;
        }
        let overdue = self.held.iter().copied().find(|nr| {
            let entry = &self.entries[*nr];
            match entry.state {
                State::Active => {
                    self.config.detach.is_none()
                        && !entry.in_poll
                        && entry.clock.deadline.is_some_and(|at| at < now)
                }
                State::Deciding { pended } => {
                    pended.is_some_and(|pended| pended + POLICY_TIMEOUT < now)
                }
                _ => false,
            }
        });
        if let Some(nr) = overdue {
            self.broken(|| format!("update {nr} is not timed out"));
        }
        let overdue = self.call.pending
            && (self.paused
                || self.run.stopping
                || self.call.deadline.is_some_and(|deadline| deadline < now));
        self.require(!overdue, || "a call is not dropped".to_owned());
        if self.is_closed() {
            return;
        }
        // A slot may be held by one that was not detached for want of room.
        let free = self.concurrency.saturating_sub(self.busy) > 0;
        let worker = self.starting < self.config.workers;
        let startable = self.held.iter().copied().find(|nr| {
            let entry = &self.entries[*nr];
            let due = match entry.state {
                State::Pending { due } => due.is_none_or(|due| due < now || self.run.stopping),
                _ => false,
            };
            let first = |key: &u32| self.lines[key].front() == Some(nr);
            due && !self.may_be_failed(*nr) && self.keys_of(*nr).iter().all(first)
        });
        if let Some(nr) = startable
            && free
            && worker
        {
            self.broken(|| format!("update {nr} could start and does not"));
        }
        let supposed_to_call = self.has_room()
            && !self.paused
            && !self.run.stopping
            && !self.call.fatal
            && !self.call.closing
            && now > self.feed.at_latest + Duration::from_millis(1);
        if supposed_to_call && !self.call.pending {
            self.broken(|| "there is room and nothing is fetched".to_owned());
        }
    }

    /// Whether the next call is due: for certain, if not for the largest number.
    fn has_room(&self) -> bool {
        if self.config.mode != Mode::Concurrent {
            return self.held.is_empty();
        }
        let waiting = self.held.iter().filter(|nr| self.is_waiting(**nr)).count();
        let pending = self
            .held
            .iter()
            .filter(|nr| matches!(self.entries[**nr].state, State::Pending { .. }))
            .count();
        let free = self.concurrency.saturating_sub(self.busy) + self.config.prefetch;
        pending == waiting && free > 0 && waiting < self.config.max_waiting
    }

    /// Whether something is at work that may take as long as it likes.
    pub(crate) fn is_at_work(&self) -> bool {
        self.busy > 0 || self.call.closing
    }

    pub(crate) fn retries(&self) -> u64 {
        self.run.retries
    }
}

fn bits(keys: u32) -> impl Iterator<Item = u32> {
    (0..32).filter(move |bit| keys & 1 << bit != 0)
}
