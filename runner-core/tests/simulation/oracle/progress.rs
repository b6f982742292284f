//! Looks at the whole: who waits for whom, how many slots are taken, what should have happened.

use std::time::Duration;

use super::{Oracle, POLICY_TIMEOUT, State, TOTAL, bits};
use crate::world::{Item, Mode};

impl Oracle {
    pub(super) fn keys_of(&self, nr: usize) -> Vec<u32> {
        let entry = &self.entries[nr];
        let total = (self.config.mode == Mode::Sequential).then_some(TOTAL);
        bits(entry.keys).chain(total).collect()
    }

    /// Whether it waits for a key or for a retry.
    pub(super) fn is_waiting(&self, nr: usize) -> bool {
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

    /// How many handlers may go on detached, if they do so at all. Without a limit of its own: as many as
    /// may run.
    pub(super) fn max_detached(&self) -> Option<usize> {
        let max = self.config.detach?;
        Some(match max == self.config.concurrency {
            true => self.concurrency,
            false => max,
        })
    }

    /// How many slots are taken, at least.
    pub(super) fn slots(&self) -> usize {
        let Some(max) = self.config.detach else {
            return self.busy;
        };
        // More may have been detached while the concurrency was higher.
        let max = if max == self.config.concurrency {
            usize::MAX
        } else {
            max
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
        let closed = self.is_closed();
        let overdue = self.held.iter().copied().find(|nr| {
            let entry = &self.entries[*nr];
            match entry.state {
                State::Active => {
                    let overdue = entry.clock.deadline.is_some_and(|at| at < now);
                    match self.config.detach {
                        None => overdue && !entry.in_poll,
                        Some(_) => overdue && entry.clock.pended && !entry.told_late && !closed,
                    }
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
        let workers = self.config.workers.unwrap_or(1);
        let worker = self.starting < workers;
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
    pub(super) fn has_room(&self) -> bool {
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
        // Once the bound was reached, a place or two that become free are not worth a call.
        let bound = self.config.max_waiting;
        let few = (self.config.prefetch.min(100) / 2).min(bound / 2).max(1);
        let light = self
            .config
            .max_bytes
            .is_none_or(|max| self.bytes(true) < max);
        pending == waiting && free > 0 && waiting + few <= bound && light
    }

    /// The size of all that is held; `most`: and of what may have been given up.
    pub(super) fn bytes(&self, most: bool) -> usize {
        let held = self.held.iter();
        let held = held.filter(|nr| most || !self.may_be_failed(**nr));
        held.map(|nr| Item::bytes(&self.config, self.entries[*nr].id))
            .sum()
    }

    /// Whether something is at work that may take as long as it likes.
    pub(crate) fn is_at_work(&self) -> bool {
        self.busy > 0 || self.call.closing
    }

    pub(crate) fn retries(&self) -> u64 {
        self.run.retries
    }
}
