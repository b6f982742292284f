//! A supplier that does what suppliers do, faults included.

use std::{collections::VecDeque, future::pending, num::NonZeroUsize, sync::Arc, time::Duration};

use runner_core::{Closing, Confirmation, RuntimeExt, SupplyError, UpdateSupplier};

use crate::{
    coverage::Seen,
    dice::Dice,
    world::{Item, World, planned_panic},
};

/// Supplies the updates of a world in order, then empty batches.
pub(crate) struct Supplier {
    world: Arc<World>,
    next: u64,
    /// What comes again.
    again: VecDeque<u64>,
    /// What was supplied since the last close. Kept until the next call, because a run that is cut
    /// short while it closes is closed once more.
    log: Vec<u64>,
    was_closed: bool,
    calls: u64,
    closes: u64,
}

#[derive(Clone, Copy)]
enum Fault {
    None,
    Empty,
    Oversized,
    Duplicate,
    Reordered,
    Panic,
}

#[derive(Clone, Copy)]
enum CloseFault {
    None,
    Slow,
    Fail,
    Hang,
    Panic,
}

impl Supplier {
    pub(crate) fn new(world: &Arc<World>) -> Self {
        Self {
            world: Arc::clone(world),
            next: 0,
            again: VecDeque::new(),
            log: Vec::new(),
            was_closed: false,
            calls: 0,
            closes: 0,
        }
    }

    /// Moves the position; nothing may be awaited after this.
    fn take(&mut self, count: usize) -> Vec<u64> {
        let updates = self.world.config.updates;
        let mut ids = Vec::new();
        while ids.len() < count {
            if let Some(id) = self.again.pop_front() {
                ids.push(id);
            } else if self.next < updates {
                ids.push(self.next);
                self.next += 1;
            } else {
                break;
            }
        }
        ids
    }

    fn answer(&mut self, ids: Vec<u64>) -> Vec<Item> {
        self.log.extend_from_slice(&ids);
        let mut oracle = self.world.oracle();
        oracle.answer(ids.len());
        let numbers: Vec<_> = ids.iter().map(|id| (oracle.supply(*id), *id)).collect();
        drop(oracle);
        let items = numbers.into_iter();
        items
            .map(|(nr, id)| Item::new(&self.world, nr, id))
            .collect()
    }
}

impl UpdateSupplier for Supplier {
    type Update = Item;
    type Error = SupplyError;

    async fn supply(&mut self, limit: NonZeroUsize) -> Result<Vec<Item>, SupplyError> {
        let world = Arc::clone(&self.world);
        world.oracle().call(limit.get());
        let mut call = Pending(Some(&world));
        self.calls += 1;
        if std::mem::take(&mut self.was_closed) {
            self.log.clear();
        }
        let mut dice = world.dice(&[5, self.calls]);
        let delay = match dice.between(0, 3) {
            0 => Duration::ZERO,
            1 => dice.ms(0, 3),
            _ => dice.ms(0, 60),
        };
        if !delay.is_zero() {
            world.sim.sleep(delay).await;
        }
        let fault = draw(&mut dice, world.config.badness);
        let limit = limit.get();
        let count = match dice.between(0, 2) {
            0 => limit,
            _ => dice.between(1, limit as u64) as usize,
        };
        let mut ids = match fault {
            Fault::None | Fault::Reordered => self.take(count),
            Fault::Oversized => self.take(limit + count),
            Fault::Empty => Vec::new(),
            Fault::Duplicate => {
                let from = self.log.len().saturating_sub(count);
                self.log[from..].to_vec()
            }
            Fault::Panic => {
                call.0 = None;
                let mut oracle = world.oracle();
                oracle.coverage.add(Seen::SupplyPanics);
                oracle.call_failed(true);
                drop(oracle);
                planned_panic();
            }
        };
        let seen = match fault {
            Fault::Reordered if ids.len() > 1 => {
                ids.reverse();
                Some(Seen::SupplyReordered)
            }
            Fault::Oversized if ids.len() > limit => Some(Seen::SupplyOversized),
            Fault::Duplicate if !ids.is_empty() => Some(Seen::SupplyDuplicate),
            Fault::Empty => Some(Seen::SupplyEmpty),
            _ => None,
        };
        if let Some(seen) = seen {
            world.seen(seen);
        }
        if ids.is_empty() && !matches!(fault, Fault::Empty) {
            // A poll that waits for messages, and finds none.
            world.sim.sleep(Duration::from_secs(20)).await;
        }
        call.0 = None;
        Ok(self.answer(ids))
    }

    async fn close(&mut self, settled_prefix: usize) -> Result<Closing, SupplyError> {
        let world = Arc::clone(&self.world);
        world.oracle().close(settled_prefix);
        let mut closing = Closes(&world, None);
        self.closes += 1;
        self.was_closed = true;
        let mut dice = world.dice(&[6, self.closes]);
        let fault = if world.config.badness == 0 {
            CloseFault::None
        } else {
            dice.pick(&[
                (12, CloseFault::None),
                (4, CloseFault::Slow),
                (2, CloseFault::Fail),
                (2, CloseFault::Hang),
                (2, CloseFault::Panic),
            ])
        };
        match fault {
            CloseFault::None => {}
            CloseFault::Slow => {
                world.seen(Seen::CloseSlow);
                world.sim.sleep(dice.ms(1, 3_000)).await;
            }
            CloseFault::Fail => {
                world.seen(Seen::CloseFails);
                return Err(SupplyError::transient("planned"));
            }
            CloseFault::Hang => {
                world.seen(Seen::CloseHangs);
                pending::<()>().await;
            }
            CloseFault::Panic => {
                world.seen(Seen::ClosePanics);
                planned_panic();
            }
        }
        if !world.config.rewinding {
            closing.1 = Some(None);
            return Ok(Closing::default());
        }
        let supplied = self.log.len();
        world.oracle().require(settled_prefix <= supplied, || {
            format!("closed at {settled_prefix} of {supplied}")
        });
        let rest = self.log.split_off(settled_prefix.min(supplied));
        if !rest.is_empty() {
            world.seen(Seen::CloseRewinds);
        }
        for id in rest.iter().rev() {
            self.again.push_front(*id);
        }
        closing.1 = Some(Some(settled_prefix));
        let position = settled_prefix as i64;
        let closing = Closing::new(Confirmation::Confirmed { position });
        Ok(closing.redelivers_from(settled_prefix))
    }
}

fn draw(dice: &mut Dice, badness: u64) -> Fault {
    if !dice.chance(badness / 3) {
        return Fault::None;
    }
    dice.pick(&[
        (10, Fault::Empty),
        (10, Fault::Oversized),
        (10, Fault::Duplicate),
        (10, Fault::Reordered),
        (5, Fault::Panic),
    ])
}

/// Tells of a call that is dropped.
struct Pending<'a>(Option<&'a World>);

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if let Some(world) = self.0 {
            world.oracle().call_dropped();
        }
    }
}

/// Tells how a close ended: `None` if it failed.
struct Closes<'a>(&'a World, Option<Option<usize>>);

impl Drop for Closes<'_> {
    fn drop(&mut self) {
        self.0.oracle().closed(self.1);
    }
}
