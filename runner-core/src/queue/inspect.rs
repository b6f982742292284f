//! A look at what the queue holds.

use std::{
    collections::HashMap,
    fmt,
    num::NonZeroU32,
    time::{Duration, Instant},
};

use super::{
    Counters, LatencySummary, QueueShared, Ticket,
    entry::{Entry, Late, State},
};
use crate::{
    Delivery, Key,
    panics::{discard, guarded},
};

/// One update that a queue holds.
#[non_exhaustive]
pub struct InFlight<U> {
    /// Counts updates in the order in which they were added, from 0 at the beginning of a run.
    pub id: u64,
    /// The update itself.
    pub update: Delivery<U>,
    /// How far it has come.
    pub progress: Progress,
    /// How long ago it was added.
    pub age: Duration,
    /// Which attempt this is; the first one is 1.
    pub attempt: NonZeroU32,
    /// The keys that it is ordered by.
    pub keys: Vec<Key>,
    /// The ids of the updates that must be completed before it may start.
    pub waits_for: Vec<u64>,
}

/// How far a held update has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Progress {
    /// Waits for an earlier update with one of its keys.
    Waiting,
    /// May start, and waits for a slot or for a worker.
    Ready,
    /// Its handler or the error policy runs.
    Running,
    /// Failed, and waits for its next attempt.
    Retrying,
    /// Its handler goes on after its timeout, without a slot.
    Detached,
    /// Its handler was told to end and has not done so yet.
    Unresponsive,
}

impl<U: fmt::Debug> fmt::Debug for InFlight<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InFlight")
            .field("id", &self.id)
            .field("update", &*self.update)
            .field("progress", &self.progress)
            .field("age", &self.age)
            .field("attempt", &self.attempt)
            .field("keys", &self.keys)
            .field("waits_for", &self.waits_for)
            .finish()
    }
}

impl<U> Clone for InFlight<U> {
    fn clone(&self) -> Self {
        Self {
            update: self.update.clone(),
            keys: self.keys.clone(),
            waits_for: self.waits_for.clone(),
            ..*self
        }
    }
}

/// Why intake stands still.
#[derive(Debug)]
pub(crate) struct Choked {
    /// The key that most updates wait for, if it has a name.
    pub(crate) key: Option<Key>,
    /// How long the update at its front has been held.
    pub(crate) age: Duration,
    /// How many updates wait behind that one.
    pub(crate) depth: usize,
    /// The size of everything that is held.
    pub(crate) bytes: usize,
}

/// The state of a queue in numbers.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct QueueStats {
    /// How the updates ended so far.
    pub counters: Counters,
    /// Updates in flight: started, not ended, holding a slot.
    pub in_flight: usize,
    /// Slots that are free. 0 while more are in flight than a lowered concurrency allows.
    pub capacity: usize,
    /// Updates that may start and wait for a slot or a worker.
    pub ready: usize,
    /// Updates that wait for a key or for a retry.
    pub waiting: usize,
    /// Handlers that go on after their timeout without a slot.
    pub detached: usize,
    /// The size of everything that is held, in bytes; see
    /// [`SinkOptions::max_bytes`](crate::SinkOptions::max_bytes).
    pub bytes: usize,
    /// Attempts that were started.
    pub(crate) starts: u64,
    /// When work last began by itself, not by an arrival.
    pub(crate) revived: Option<Instant>,
    /// Updates that could start at once if a worker took them.
    pub(crate) startable: usize,
    pub(crate) full: bool,
}

impl<U: Send + Sync + 'static> QueueShared<U> {
    /// Everything held, oldest first.
    pub(crate) fn snapshot(&self) -> Vec<InFlight<U>> {
        let now = self.runtime.now();
        let state = self.lock();
        let mut predecessors = HashMap::<u32, Vec<u64>>::new();
        state.keys.edges(|earlier, later| {
            let id = state.entries[earlier as usize].id;
            predecessors.entry(later).or_default().push(id);
        });
        let entries = state.entries.iter();
        let mut held: Vec<InFlight<U>> = entries
            .map(|(index, entry)| {
                // Fewer than 2^32 updates are held.
                let index = index as u32;
                let mut waits_for = predecessors.remove(&index).unwrap_or_default();
                waits_for.sort_unstable();
                waits_for.dedup();
                InFlight {
                    id: entry.id,
                    update: entry.deliver(index),
                    progress: entry.progress(),
                    age: now.saturating_duration_since(entry.arrived),
                    attempt: entry.attempt,
                    keys: Vec::new(),
                    waits_for,
                }
            })
            .collect();
        held.extend(state.ready.each_new().map(|new| {
            // It has no entry yet, so this is not told of its deadline.
            let ticket = Ticket {
                id: new.id,
                ..Ticket::NONE
            };
            InFlight {
                id: new.id,
                update: new.item.deliver(NonZeroU32::MIN, false, ticket),
                progress: Progress::Ready,
                age: now.saturating_duration_since(new.arrived),
                attempt: NonZeroU32::MIN,
                keys: Vec::new(),
                waits_for: Vec::new(),
            }
        }));
        drop(state);
        held.sort_unstable_by_key(|held| held.id);
        // Keys come from code of the user, so they are named outside the lock.
        for held in &mut held {
            held.keys = self.name_keys(&held.update);
        }
        held
    }

    /// Why no more updates are taken in, if that is so.
    pub(crate) fn choked(&self) -> Option<Choked> {
        let now = self.runtime.now();
        let state = self.lock();
        if !state.intake.is_choked() {
            return None;
        }
        let bytes = state.intake.bytes();
        let entries = state.entries.iter();
        let deepest = entries
            .filter(|(_, entry)| entry.state != State::Waiting)
            .map(|(_, entry)| (entry, state.keys.depth(entry.keys)))
            .max_by_key(|(entry, depth)| (*depth, std::cmp::Reverse(entry.id)));
        let Some((entry, depth)) = deepest else {
            // Nothing has started, and nothing has a key.
            return Some(Choked {
                key: None,
                age: Duration::ZERO,
                depth: 0,
                bytes,
            });
        };
        let item = entry.item.clone();
        let age = now.saturating_duration_since(entry.arrived);
        drop(state);
        let key = self.name_keys(item.get()).into_iter().next();
        // It may have left meanwhile, and its destructor is code of the user.
        discard(item);
        Some(Choked {
            key,
            age,
            depth: depth.saturating_sub(1),
            bytes,
        })
    }

    /// Whether so little is held that the next standstill is not the same one.
    pub(crate) fn is_relaxed(&self) -> bool {
        self.lock().intake.is_relaxed()
    }

    pub(crate) fn stats(&self) -> QueueStats {
        let state = self.lock();
        QueueStats {
            counters: state.completion.counters,
            in_flight: state.workers.running,
            capacity: state.workers.free_slots(),
            ready: state.ready.len(),
            waiting: state.intake.waiting(),
            detached: state.workers.detached,
            bytes: state.intake.bytes(),
            starts: state.starts,
            revived: state.revived,
            startable: state.startable(),
            full: state.room(false).is_none(),
        }
    }

    pub(crate) fn latency(&self) -> LatencySummary {
        // The copy is summed up outside the lock.
        let latencies = self.lock().completion.latencies.clone();
        latencies.summary()
    }

    fn name_keys(&self, update: &U) -> Vec<Key> {
        let mut names = Vec::new();
        if let Some(keys) = &self.parts.keys {
            // A key function that panics was reported when the update arrived.
            let _ = guarded(|| keys(update, &mut |key| names.push(key)));
        }
        names
    }
}

impl<U> Entry<U> {
    fn progress(&self) -> Progress {
        match self.state {
            State::Waiting => Progress::Waiting,
            State::Ready => Progress::Ready,
            State::Retrying => Progress::Retrying,
            State::Late(Late::Cancelling) => Progress::Unresponsive,
            _ if self.reported => Progress::Unresponsive,
            _ if self.detached => Progress::Detached,
            State::Running | State::Deciding | State::Late(Late::Continuing) => Progress::Running,
        }
    }
}
