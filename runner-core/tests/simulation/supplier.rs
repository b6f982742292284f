//! A supplier that does what suppliers do, faults included.

use std::{collections::VecDeque, future::pending, num::NonZeroUsize, sync::Arc, time::Duration};

use runner_core::{Closing, Confirmation, Conflict, RuntimeExt, SupplyError, UpdateSupplier};

use crate::{
    coverage::Seen,
    dice::Dice,
    world::{Config, Item, Weather, World, planned_panic},
};

/// Supplies the updates of a world in order, then empty batches or nothing more.
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
    Late,
    Hang,
    Transient,
    RetryAfter,
    Poller,
    Webhook,
    Fatal,
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
}

impl UpdateSupplier for Supplier {
    type Update = Item;
    type Error = SupplyError;

    async fn supply(&mut self, limit: NonZeroUsize) -> Result<Vec<Item>, SupplyError> {
        let world = Arc::clone(&self.world);
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
        let fault = draw(&mut dice, &world.config);
        if !delay.is_zero() {
            world.sim.sleep(delay).await;
        }
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
            Fault::Late => {
                world.seen(Seen::SupplyLate);
                world
                    .sim
                    .sleep(world.config.call_timeout.unwrap_or(delay))
                    .await;
                self.take(count)
            }
            Fault::Hang => {
                world.seen(Seen::SupplyHangs);
                pending().await
            }
            Fault::Transient => return Err(SupplyError::transient("planned")),
            Fault::RetryAfter => return Err(SupplyError::retry_after(dice.ms(0, 100), "planned")),
            Fault::Poller => return Err(SupplyError::conflict(Conflict::Poller, "planned")),
            Fault::Webhook => return Err(SupplyError::conflict(Conflict::Webhook, "planned")),
            Fault::Fatal => return Err(SupplyError::fatal("planned")),
            Fault::Panic => planned_panic(),
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
            // A poll that waits for messages, and finds none in time.
            let time = world.config.call_timeout.unwrap_or(Duration::from_secs(20));
            world
                .sim
                .sleep(time * dice.between(2, 11) as u32 / 10)
                .await;
        }
        self.log.extend_from_slice(&ids);
        Ok(ids.into_iter().map(|id| Item::new(&world, id)).collect())
    }

    fn call_timeout(&self) -> Option<Duration> {
        self.world.config.call_timeout
    }

    fn is_exhausted(&self) -> bool {
        let Config { ends, updates, .. } = self.world.config;
        ends && self.again.is_empty() && self.next >= updates
    }

    async fn close(&mut self, settled_prefix: usize) -> Result<Closing, SupplyError> {
        let world = Arc::clone(&self.world);
        self.closes += 1;
        self.was_closed = true;
        let mut dice = world.dice(&[6, self.closes]);
        let fault = if world.config.badness == 0 {
            CloseFault::None
        } else {
            dice.pick(&[
                (12, CloseFault::None),
                (4, CloseFault::Slow),
                (3, CloseFault::Fail),
                (3, CloseFault::Hang),
                (3, CloseFault::Panic),
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
        let position = settled_prefix as i64;
        let closing = Closing::new(Confirmation::Confirmed { position });
        Ok(closing.redelivers_from(settled_prefix))
    }
}

fn draw(dice: &mut Dice, config: &Config) -> Fault {
    match config.weather {
        Weather::Haunted if dice.chance(800) => return Fault::Poller,
        Weather::Stormy if dice.chance(800) => return Fault::Transient,
        _ => {}
    }
    if !dice.chance(config.badness) {
        return Fault::None;
    }
    let fault = dice.pick(&[
        (16, Fault::Empty),
        (14, Fault::Oversized),
        (26, Fault::Duplicate),
        (18, Fault::Reordered),
        (10, Fault::Late),
        (14, Fault::Hang),
        (20, Fault::Transient),
        (10, Fault::RetryAfter),
        (8, Fault::Poller),
        (11, Fault::Webhook),
        (10, Fault::Fatal),
        (11, Fault::Panic),
    ]);
    match fault {
        // Nobody would ever end it.
        Fault::Hang if config.call_timeout.is_none() => Fault::Late,
        fault => fault,
    }
}
