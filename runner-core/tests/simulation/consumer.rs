//! A handler that does what handlers do, faults included.

use std::{
    error::Error,
    fmt,
    future::pending,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use runner_core::{
    BoxError, BoxFuture, Delivery, RunError, Runtime, RuntimeExt, Undecodable, UpdateConsumer,
};

use crate::{
    coverage::Seen,
    dice::Dice,
    director::request,
    oracle::Last,
    world::{Item, World, planned_panic},
};

/// Handles every update as its number says.
pub(crate) struct Consumer(pub(crate) Arc<World>);

#[derive(Clone, Copy)]
enum Kind {
    Ok,
    Slow,
    Fail,
    Undecodable,
    PanicInConsume,
    PanicInPoll,
    Hang,
    MeetTimeout,
    Extend,
    Block,
    PanicInDrop,
    Yield,
    BadError,
    Stop,
}

fn draw(world: &World, dice: &mut Dice) -> Kind {
    if !dice.chance(world.config.badness) {
        return dice.pick(&[(1, Kind::Ok), (2, Kind::Slow), (1, Kind::Yield)]);
    }
    let kind = dice.pick(&[
        (10, Kind::Fail),
        (3, Kind::Undecodable),
        (4, Kind::PanicInConsume),
        (4, Kind::PanicInPoll),
        (2, Kind::Hang),
        (6, Kind::MeetTimeout),
        (8, Kind::Extend),
        (9, Kind::Block),
        (4, Kind::PanicInDrop),
        (5, Kind::Yield),
        (2, Kind::BadError),
        (4, Kind::Stop),
    ]);
    match kind {
        Kind::Block if !world.config.blocking => Kind::Slow,
        // Without a timeout, one of them is enough to hold a run for ever.
        Kind::Hang if world.config.timeout.is_none() && !dice.chance(100) => Kind::Slow,
        // One of them ends the run for all.
        Kind::Stop if !dice.chance(400) => Kind::Slow,
        kind => kind,
    }
}

impl UpdateConsumer<Item> for Consumer {
    type Error = BoxError;

    fn consume(&self, update: Delivery<Item>) -> impl Future<Output = Result<(), BoxError>> + Send {
        let world = Arc::clone(&self.0);
        let nr = update.nr;
        let attempt = update.attempt().get();
        let redelivered = update.redelivered();
        world
            .oracle()
            .start(nr, attempt, redelivered, update.is_stopping());
        let mut dice = world.dice(&[7, nr as u64, attempt.into()]);
        let kind = draw(&world, &mut dice);
        world.seen(match kind {
            Kind::Ok => Seen::HandlerOk,
            Kind::Slow => Seen::HandlerSlow,
            Kind::Fail => Seen::HandlerFails,
            Kind::Undecodable => Seen::HandlerUndecodable,
            Kind::PanicInConsume => Seen::HandlerPanicsInConsume,
            Kind::PanicInPoll => Seen::HandlerPanicsInPoll,
            Kind::Hang => Seen::HandlerHangs,
            Kind::MeetTimeout => Seen::HandlerMeetsTimeout,
            Kind::Extend => Seen::HandlerExtends,
            Kind::Block => Seen::HandlerBlocks,
            Kind::PanicInDrop => Seen::HandlerPanicsInDrop,
            Kind::Yield => Seen::HandlerYields,
            Kind::BadError => Seen::HandlerErrorPanicsInDrop,
            Kind::Stop => Seen::HandlerStops,
        });
        let mut attempt = Attempt {
            world: Arc::clone(&world),
            nr,
            bomb: matches!(kind, Kind::PanicInDrop),
            work: None,
            ended: false,
        };
        if matches!(kind, Kind::PanicInConsume) {
            attempt.end(Last::Panic);
            planned_panic();
        }
        attempt.work = Some(Box::pin(handle(world, update, kind, dice)));
        attempt
    }
}

async fn handle(
    world: Arc<World>,
    update: Delivery<Item>,
    kind: Kind,
    mut dice: Dice,
) -> Result<(), BoxError> {
    let sim = &world.sim;
    if dice.chance(500) {
        match dice.between(0, 2) {
            0 => sim.yield_now().await,
            _ => sim.sleep(dice.ms(0, 20)).await,
        }
    }
    match kind {
        Kind::Ok | Kind::PanicInConsume => Ok(()),
        Kind::Slow | Kind::PanicInDrop => {
            let span = dice.ms(0, 120);
            world.oracle().ready_in(update.nr, span);
            sim.sleep(span).await;
            Ok(())
        }
        Kind::Fail => Err("planned".into()),
        Kind::BadError => Err(Box::new(BadError)),
        Kind::Undecodable => Err(Box::new(Undecodable::new("planned"))),
        Kind::PanicInPoll => planned_panic(),
        Kind::Hang => pending().await,
        Kind::MeetTimeout => {
            let at = update.deadline();
            match at {
                Some(at) => sim.sleep_until(at).await,
                // The clock starts with this very wait.
                None => sim.sleep(world.config.timeout.unwrap_or_default()).await,
            }
            if dice.chance(500) {
                return Err("planned".into());
            }
            Ok(())
        }
        Kind::Extend => {
            if dice.chance(300) {
                // Too late, unless it is cancelled before it can ask.
                let timeout = world.config.timeout.unwrap_or_default();
                sim.sleep(timeout + dice.ms(0, 20)).await;
            }
            for _ in 0..dice.between(1, 3) {
                extend(&world, &update, dice.ms(0, 200));
                sim.sleep(dice.ms(0, 80)).await;
            }
            Ok(())
        }
        Kind::Block => {
            let span = match dice.chance(400) {
                // Longer than anybody waits for it.
                true => dice.ms(500, 2_000),
                false => dice.ms(1, 120),
            };
            if span >= Duration::from_millis(500) && dice.chance(500) {
                stop_meanwhile(&world, dice.ms(0, 100), dice.ms(0, 100));
            }
            sim.advance(span);
            if dice.chance(700) {
                extend(&world, &update, span);
            }
            if dice.chance(300) {
                return Err("planned".into());
            }
            Ok(())
        }
        Kind::Stop => {
            let limit = dice.chance(500).then(|| dice.ms(0, 300));
            if let Some(handle) = world.handle() {
                let stopped = request(&world, &handle, limit);
                drop(handle);
                if dice.chance(700) {
                    world.seen(Seen::HandlerAwaitsEnd);
                    let result = stopped.await;
                    let refused = matches!(result, Err(RunError::AwaitedInHandler { .. }));
                    let mut oracle = world.oracle();
                    // It is polled once more after a run that was cut short.
                    let over = oracle.run.over;
                    oracle.require(refused || over, || {
                        "a handler has seen the end of its own run".to_owned()
                    });
                }
            }
            sim.sleep(dice.ms(0, 50)).await;
            Ok(())
        }
        Kind::Yield => {
            for _ in 0..dice.between(1, 40) {
                sim.yield_now().await;
            }
            Ok(())
        }
    }
}

/// Stops the runner while a handler keeps its thread: nobody can wait for that one.
fn stop_meanwhile(world: &Arc<World>, after: Duration, limit: Duration) {
    let world = Arc::clone(world);
    world.sim.clone().spawn(Box::pin(async move {
        world.sim.sleep(after).await;
        if let Some(handle) = world.handle() {
            drop(request(&world, &handle, Some(limit)));
        }
    }));
}

fn extend(world: &World, update: &Delivery<Item>, by: Duration) {
    let granted = update.extend(by);
    let told = update.deadline();
    let epoch = world.sim.now() - world.sim.elapsed();
    let mut oracle = world.oracle();
    oracle.extend(update.nr, by, granted);
    if let Some(deadline) = oracle.deadline(update.nr) {
        let told = told.map(|told| told - epoch);
        let nr = update.nr;
        oracle.require(told == deadline, || {
            format!("the deadline of update {nr} is {told:?}, not {deadline:?}")
        });
    }
}

/// One attempt, which tells how it ends, however it ends.
struct Attempt {
    world: Arc<World>,
    nr: usize,
    bomb: bool,
    work: Option<BoxFuture<'static, Result<(), BoxError>>>,
    ended: bool,
}

impl Attempt {
    fn end(&mut self, last: Last) {
        if !std::mem::replace(&mut self.ended, true) {
            self.world.oracle().end(self.nr, last);
        }
    }
}

impl Future for Attempt {
    type Output = Result<(), BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        /// A handler that panics ends by it.
        struct Guard<'a>(&'a mut Attempt);
        impl Drop for Guard<'_> {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    self.0.end(Last::Panic);
                }
            }
        }
        let ended = self.ended;
        self.world
            .oracle()
            .require(!ended, || "polled after its end".to_owned());
        let (world, nr) = (Arc::clone(&self.world), self.nr);
        world.oracle().poll(nr);
        let guard = Guard(&mut self);
        let work = guard.0.work.as_mut().expect("set with the future");
        let result = work.as_mut().poll(cx);
        drop(guard);
        match &result {
            Poll::Pending => world.oracle().pend(nr),
            Poll::Ready(Ok(())) => self.end(Last::Ok),
            Poll::Ready(Err(error)) if error.is::<Undecodable>() => self.end(Last::Undecodable),
            Poll::Ready(Err(_)) => self.end(Last::Error),
        }
        result
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.end(Last::Dropped);
        if self.bomb && !std::thread::panicking() {
            planned_panic();
        }
    }
}

/// An error whose destructor panics.
#[derive(Debug)]
struct BadError;

impl Error for BadError {}

impl fmt::Display for BadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("planned")
    }
}

impl Drop for BadError {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            planned_panic();
        }
    }
}
