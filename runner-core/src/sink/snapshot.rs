//! A look at what the sink holds.

use std::{
    collections::HashMap,
    fmt,
    num::NonZeroU32,
    time::{Duration, Instant},
};

use super::{
    Counters, LatencySummary, Sink,
    node::{Cancel, Node, State},
};
use crate::{
    Delivery, Key,
    panics::{discard, guarded},
    ticket::Ticket,
};

/// One update that the runner holds.
#[non_exhaustive]
pub struct InFlight<U> {
    /// Counts updates in the order in which they were supplied, from 0 at the beginning of a run.
    pub id: u64,
    /// The update itself.
    pub update: Delivery<U>,
    /// How far it has come.
    pub progress: Progress,
    /// How long ago it was supplied.
    pub age: Duration,
    /// Which attempt this is; the first one is 1.
    pub attempt: NonZeroU32,
    /// What keeps it in order.
    pub keys: Vec<Key>,
    /// The ids of the updates that must be settled before it may start.
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
    /// Its handler, or the error policy, is at work.
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
}

impl<U: Send + Sync + 'static> Sink<U> {
    /// Everything held, oldest first.
    pub(crate) fn snapshot(&self) -> Vec<InFlight<U>> {
        let now = self.runtime.now();
        let queue = self.lock();
        let mut predecessors = HashMap::<u32, Vec<u64>>::new();
        queue.order.edges(|earlier, later| {
            let seq = queue.nodes[earlier as usize].seq;
            predecessors.entry(later).or_default().push(seq);
        });
        let mut held: Vec<InFlight<U>> = queue
            .nodes
            .iter()
            .map(|(index, node)| {
                // Fewer than 2^32 updates are held.
                let index = index as u32;
                let mut waits_for = predecessors.remove(&index).unwrap_or_default();
                waits_for.sort_unstable();
                waits_for.dedup();
                InFlight {
                    id: node.seq,
                    update: node.deliver(index),
                    progress: node.progress(),
                    age: now.saturating_duration_since(node.arrived),
                    attempt: node.attempt,
                    keys: Vec::new(),
                    waits_for,
                }
            })
            .collect();
        held.extend(queue.ready.each_fresh().map(|fresh| InFlight {
            id: fresh.seq,
            // Where it will be is not known yet, so this is not told of its deadline.
            update: fresh.share.deliver(
                NonZeroU32::MIN,
                Ticket {
                    seq: fresh.seq,
                    ..Ticket::NONE
                },
            ),
            progress: Progress::Ready,
            age: now.saturating_duration_since(fresh.arrived),
            attempt: NonZeroU32::MIN,
            keys: Vec::new(),
            waits_for: Vec::new(),
        }));
        drop(queue);
        held.sort_unstable_by_key(|held| held.id);
        // Keys come from code of the user, so they are named outside of the lock.
        for held in &mut held {
            held.keys = self.name_keys(&held.update);
        }
        held
    }

    /// Why no more updates are taken in, if that is so.
    pub(crate) fn choked(&self) -> Option<Choked> {
        let queue = self.lock();
        if !queue.is_choked() {
            return None;
        }
        let now = self.runtime.now();
        let (node, depth) = queue
            .nodes
            .iter()
            .filter(|(_, node)| node.state != State::Waiting)
            .map(|(_, node)| (node, queue.order.depth(node.chain)))
            .max_by_key(|(node, depth)| (*depth, std::cmp::Reverse(node.seq)))?;
        let share = node.share.clone();
        let age = now.saturating_duration_since(node.arrived);
        drop(queue);
        let key = self.name_keys(share.get()).into_iter().next();
        // It may have been settled meanwhile, and dropping an update runs code of the user.
        discard(share);
        Some(Choked {
            key,
            age,
            depth: depth.saturating_sub(1),
        })
    }

    /// Whether so few wait that the next standstill is not the same one.
    pub(crate) fn is_relaxed(&self) -> bool {
        self.lock().is_relaxed()
    }

    fn name_keys(&self, update: &U) -> Vec<Key> {
        let mut names = Vec::new();
        if let Some(keys) = &self.keys {
            // A key function that panics has been reported when the update arrived.
            let _ = guarded(|| keys(update, &mut |key| names.push(key)));
        }
        names
    }
}

impl<U> Node<U> {
    fn progress(&self) -> Progress {
        match (self.state, self.cancel) {
            (State::Waiting, _) => Progress::Waiting,
            (State::Ready, _) => Progress::Ready,
            (State::Retrying, _) => Progress::Retrying,
            (State::Running | State::Detached, Some(Cancel::Timeout | Cancel::Abandon)) => {
                Progress::Unresponsive
            }
            (State::Running, None) => Progress::Running,
            (State::Detached, None) => Progress::Detached,
        }
    }
}

/// The state of the sink in numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gauges {
    pub(crate) counters: Counters,
    pub(crate) claims: u64,
    /// When work last began by itself, not by an arrival.
    pub(crate) revived: Option<Instant>,
    pub(crate) running: usize,
    /// Slots that are free.
    pub(crate) capacity: usize,
    pub(crate) ready: usize,
    pub(crate) waiting: usize,
    pub(crate) detached: usize,
    /// Updates that could start at once if a task took them.
    pub(crate) startable: usize,
    pub(crate) full: bool,
}

impl<U: Send + Sync + 'static> Sink<U> {
    pub(crate) fn gauges(&self) -> Gauges {
        let queue = self.lock();
        Gauges {
            counters: queue.counters(),
            claims: queue.claims,
            revived: queue.revived,
            running: queue.running,
            capacity: queue.capacity(),
            ready: queue.ready(),
            waiting: queue.waiting,
            detached: queue.detached,
            startable: queue.startable(),
            full: queue.room(false).is_none(),
        }
    }

    pub(crate) fn latency(&self) -> LatencySummary {
        // The copy is summed up outside of the lock.
        let latencies = self.lock().latencies.clone();
        latencies.summary()
    }
}
