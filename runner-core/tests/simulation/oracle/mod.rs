//! What must be true, judged only by what the ends of the pipeline have seen.
//!
//! The supplier, the key function, the consumer, the policy and the director report here. The
//! record knows nothing of the code under test but its promises. A broken promise is noted, not
//! panicked about: a panic would be caught by the very code that is being judged.

mod progress;
mod run;
mod supply;
mod update;

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use runner_core::{Closing, testing::SimRuntime};

use crate::{
    coverage::Coverage,
    feed::{Feed, Trouble},
    world::Config,
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
    /// What the supplier has said that it supplies again: the id, and whether a handler has seen it.
    again: VecDeque<(u64, Option<bool>)>,
    /// When anything changed last.
    changed: Duration,
    /// When the process stood still last, from and until.
    suspended: Option<(Duration, Duration)>,
    /// Whether the runtime was shut down.
    pub(crate) gone: bool,
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
    /// Whether a handler may have seen it in an earlier run. `None`: the supplier did not keep to the order
    /// that it had promised.
    pub(crate) handled: Option<bool>,
    /// Why it is not handled at all.
    refused: Option<Refusal>,
    last: Option<Last>,
    clock: Clock,
    /// Its handler is being polled right now.
    in_poll: bool,
    /// Went on after its timeout.
    late: bool,
    /// Somebody was told so.
    told_late: bool,
    /// It has left its slot.
    detached: bool,
    /// When its handler ends by itself, if that is known.
    ready_at: Option<Duration>,
    arrived_at: Duration,
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
    /// The retry was due, and the stop took effect a little later in the same instant.
    Maybe,
    Yes,
}

/// The run under way, or the last one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Run {
    pub(crate) number: usize,
    pub(crate) first: usize,
    /// The first update of the run that the supplier has to be told of.
    unclosed_first: usize,
    /// Whether that was so at the beginning of this run.
    inherits: bool,
    pub(crate) arrived: usize,
    pub(crate) begun: bool,
    pub(crate) stopping: bool,
    stopped_at: Option<Duration>,
    pub(crate) deadline: Option<Duration>,
    /// The supplier had no more, before anything else ended it.
    pub(crate) supply_ended: bool,
    /// The policy ended it.
    pub(crate) halted: bool,
    pub(crate) over: bool,
    pub(crate) closes: Vec<usize>,
    /// What the supplier has to be told before anything else.
    pub(crate) unclosed: Option<(usize, usize)>,
    pub(crate) close_answer: Option<Closing>,
    retries: u64,
    /// Handlers that have left their slots.
    pub(crate) detached: u64,
    /// How long the process has stood still.
    pub(crate) suspended: Duration,
}

/// What the supplier is doing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Call {
    pub(crate) pending: bool,
    pub(crate) closing: bool,
    /// The last call has ended the run.
    pub(crate) fatal: bool,
    began: Duration,
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
    SupplyEnded,
    Close { prefix: usize },
    Arrive(usize),
    Start(usize, u32),
    End(usize, Last),
    Ask(usize),
    Verdict(usize, Verdict),
    Extend(usize, bool),
    Late(usize, bool),
    Suspend(Duration),
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
            again: VecDeque::new(),
            changed: Duration::ZERO,
            suspended: None,
            gone: false,
            call: Call::default(),
            feed: Feed::new(config.feed),
        }
    }

    pub(crate) fn now(&self) -> Duration {
        self.sim.elapsed()
    }

    /// What was due before this has happened. At the end of a suspension all that was due meanwhile happens in
    /// any order.
    pub(crate) fn certain(&self) -> Duration {
        let now = self.now();
        match self.suspended {
            Some((from, until)) if until == now => from,
            _ => now,
        }
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
}

fn bits(keys: u32) -> impl Iterator<Item = u32> {
    (0..32).filter(move |bit| keys & 1 << bit != 0)
}
