//! Runs the pipeline and does to it, at random moments, whatever a program may do.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{
    FutureExt,
    channel::oneshot,
    future::{Either, select},
};
use runner_core::{
    LateHandler, RunState, Runner, RunnerHandle, Runtime, RuntimeExt, StartError, Stopped,
    UpdateFetcher,
};

use crate::{
    check::{Cut, Outcome},
    consumer::Consumer,
    coverage::Seen,
    dice::Dice,
    ends::{Ends, compare, compare_server, let_go, wait},
    feeder::Feeder,
    observed::Observed,
    policy::Policy,
    server::Server,
    supplier::Supplier,
    world::{Item, Weather, World, keys, size},
};

type Handle = RunnerHandle<Item>;
type TheRunner = Runner<Observed<Feeder>, Consumer>;

/// Who polls the run.
enum Driver {
    /// A task that the runner has made for itself.
    Started,
    /// A task of the test, by `run()`; the runner between two runs.
    Driven(Option<Box<TheRunner>>),
}

/// How a round is brought to its end.
#[derive(Clone, Copy)]
enum Finish {
    Stop,
    StopWithin,
    DropRun,
    DropHandles,
    ShutDown,
}

/// Longer than anything takes that is at work and ends by itself.
const PATIENCE: Duration = Duration::from_secs(120);

/// Plays the whole life of one runner.
pub(crate) async fn direct(world: &Arc<World>) {
    let mut dice = world.dice(&[9]);
    let (keyed, sized, late) = (Arc::clone(world), Arc::clone(world), Arc::clone(world));
    let mut bot = None;
    let feeder = if world.config.fetched {
        let server = Server::new(world);
        bot = Some(server.bot());
        let fetcher = UpdateFetcher::new(Arc::new(world.sim.clone()), server);
        Feeder::Fetcher(Box::new(fetcher.options(Server::options(world))))
    } else {
        Feeder::Any(Supplier::new(world))
    };
    let runner = Runner::new(
        Arc::new(world.sim.clone()),
        Observed::new(world, feeder),
        Consumer(Arc::clone(world)),
    )
    .sink(world.config.sink())
    .source(world.config.feed.options())
    .sequentialize(move |item: &Item| keys(&keyed, item))
    .size_by(move |item: &Item| size(&sized, item))
    .on_late(move |handler: LateHandler<Item>| {
        let LateHandler {
            update,
            age,
            detached,
        } = handler;
        late.oracle().late(update.nr, age, detached);
    })
    .policy(Policy(Arc::clone(world)));
    let handle = runner.handle();
    let mut driver = if dice.chance(600) {
        world.oracle().begin();
        drop(runner.start());
        Driver::Started
    } else {
        Driver::Driven(Some(Box::new(runner)))
    };
    world.set_handle(Some(handle.clone()));
    let handle = Some(handle);
    for round in 0..dice.between(1, 3) {
        let Some(known) = handle.clone() else {
            break;
        };
        let finish = dice.pick(&[
            (10, Finish::Stop),
            (8, Finish::StopWithin),
            (12, Finish::DropRun),
            (2, Finish::DropHandles),
            (2, Finish::ShutDown),
        ]);
        if round > 0 && matches!(driver, Driver::Started) {
            world.seen(Seen::Restart);
            world.oracle().begin();
            let started = known.start();
            world
                .oracle()
                .require(started.is_ok(), || format!("not started: {started:?}"));
        }
        let ends = Ends::default();
        let mut cut = None;
        if let Driver::Driven(runner) = &mut driver {
            if round > 0 {
                world.seen(Seen::Restart);
            }
            cut = Some(drive(world, runner.take().expect("not running")));
            if round == 0 && dice.chance(100) {
                world.seen(Seen::StopBeforeBegin);
                world.oracle().stop(None);
                drop(known.stop());
            }
            while world.oracle().run.number as u64 <= round {
                world.sim.yield_now().await;
            }
        } else if dice.chance(100) {
            world.seen(Seen::StopBeforeBegin);
            world.oracle().stop(None);
            drop(known.stop());
        }
        let mut stopped = known.task();
        for _ in 0..dice.between(1, 3) {
            wait(world, &ends, known.stopped(), None);
        }
        wait(world, &ends, known.task(), Some(dice.ms(0, 200)));
        let horizon = match world.config.weather == Weather::Haunted || dice.chance(50) {
            true => dice.ms(5_000, 60_000),
            false => dice.ms(0, 800),
        };
        for _ in 0..dice.between(0, 10) {
            act_later(world, &mut dice, horizon);
        }
        world.sim.sleep(horizon).await;
        refuse_start(world, &known, &driver);
        let result = match finish {
            Finish::Stop | Finish::StopWithin => {
                let limit = matches!(finish, Finish::StopWithin).then(|| dice.ms(0, 300));
                stop(world, &known, &mut dice, limit).await
            }
            Finish::DropRun if cut.is_some() && world.oracle().run.begun => {
                let (ask, _) = cut.as_ref().expect("driven");
                ask.lock().unwrap_or_else(PoisonError::into_inner).take();
                (&mut stopped).await
            }
            Finish::DropRun => stop(world, &known, &mut dice, None).await,
            Finish::DropHandles => {
                world.seen(Seen::DropHandles);
                drop(known);
                drop(handle);
                world.set_handle(None);
                world.sim.sleep(dice.ms(0, 500)).await;
                world.oracle().check_progress();
                shut_down(world, &driver, stopped);
                let_go((ends, cut, driver));
                return;
            }
            Finish::ShutDown => {
                drop(known);
                drop(handle);
                world.set_handle(None);
                shut_down(world, &driver, stopped);
                let_go((ends, cut, driver));
                return;
            }
        };
        let mut kind = Cut::No;
        if let (Driver::Driven(place), Some((_, done))) = (&mut driver, cut) {
            let (runner, dropped) = done.await.expect("the task sends");
            *place = Some(runner);
            if dropped {
                kind = Cut::Dropped;
            }
        }
        // Those who wait are told at this very instant, but in any order.
        loop {
            world.sim.sleep(Duration::from_millis(1)).await;
            let oracle = world.oracle();
            if oracle.certain() == oracle.now() {
                break;
            }
        }
        world.oracle().result(&result, kind);
        compare(world, &ends, &result);
        if let Some(bot) = &bot {
            compare_server(world, bot, &result);
        }
        // Then the runner alone keeps the report, and must be able to let go of it.
        let_go((result, ends, stopped));
    }
    world.set_handle(None);
    let_go((handle, driver));
}

/// Polls one run in a task; dropping the sender drops the run.
#[expect(clippy::type_complexity, reason = "used once")]
fn drive(
    world: &Arc<World>,
    mut runner: Box<TheRunner>,
) -> (
    Mutex<Option<oneshot::Sender<()>>>,
    oneshot::Receiver<(Box<TheRunner>, bool)>,
) {
    let (ask, asked) = oneshot::channel::<()>();
    let (tell, told) = oneshot::channel();
    let world = Arc::clone(world);
    let sim = world.sim.clone();
    sim.spawn(Box::pin(async move {
        world.oracle().begin();
        let dropped = {
            let mut run = Box::pin(runner.run());
            match select(&mut run, asked).await {
                Either::Left((result, _)) => {
                    let_go(result);
                    false
                }
                Either::Right(_) => {
                    world.seen(Seen::DropRun);
                    world.oracle().cut();
                    drop(run);
                    true
                }
            }
        };
        let _ = tell.send((runner, dropped));
    }));
    (Mutex::new(Some(ask)), told)
}

/// While a run is under way, no other can be started.
fn refuse_start(world: &World, handle: &Handle, driver: &Driver) {
    if handle.task().now_or_never().is_some() {
        return;
    }
    let expected = match driver {
        Driver::Started => StartError::Running,
        Driver::Driven(_) => StartError::DrivenByUser,
    };
    world.seen(Seen::StartRefused);
    let refused = handle.start();
    world.oracle().require(refused == Err(expected), || {
        format!("{refused:?} instead of {expected:?}")
    });
}

/// Stops, and sees to it that the run ends.
async fn stop(world: &World, handle: &Handle, dice: &mut Dice, limit: Option<Duration>) -> Outcome {
    if dice.chance(200) {
        world.seen(Seen::StopPaused);
        world.oracle().pause(true);
        handle.pause();
    }
    let mut stopped = request(world, handle, limit);
    if dice.chance(200) {
        world.seen(Seen::StopTwice);
        world.sim.sleep(dice.ms(0, 50)).await;
        let again = dice.chance(500).then(|| dice.ms(0, 300));
        drop(request(world, handle, again));
    }
    if let Some(result) = world.sim.timeout(PATIENCE, &mut stopped).await {
        return result;
    }
    {
        let mut oracle = world.oracle();
        oracle.check_progress();
        let at_work = oracle.is_at_work() && oracle.run.deadline.is_none();
        oracle.require(at_work, || "the stop does not end".to_owned());
    }
    // A handler that never ends holds it up, as it should.
    drop(request(world, handle, Some(dice.ms(0, 300))));
    match world.sim.timeout(PATIENCE, &mut stopped).await {
        Some(result) => result,
        None => {
            world
                .oracle()
                .broken(|| "a stop with a limit does not end".to_owned());
            stopped.await
        }
    }
}

pub(crate) fn request(world: &World, handle: &Handle, limit: Option<Duration>) -> Stopped<Item> {
    world.seen(if limit.is_some() {
        Seen::StopWithin
    } else {
        Seen::Stop
    });
    world.oracle().stop(limit);
    match limit {
        None => handle.stop(),
        Some(limit) => handle.stop_within(limit),
    }
}

/// The runtime goes; whoever waits is told at once.
fn shut_down(world: &World, driver: &Driver, mut stopped: Stopped<Item>) {
    world.seen(Seen::ShutDown);
    // It may have ended by itself.
    let mut kind = Cut::No;
    let mut result = (&mut stopped).now_or_never();
    if result.is_none() {
        world.oracle().cut();
        kind = match driver {
            Driver::Started => Cut::RuntimeGone,
            Driver::Driven(_) => Cut::Dropped,
        };
    }
    world.oracle().gone = true;
    world.sim.shut_down();
    if result.is_none() {
        result = (&mut stopped).now_or_never();
    }
    match &result {
        Some(result) => world.oracle().result(result, kind),
        None => world
            .oracle()
            .broken(|| "nobody was told that the runtime is gone".to_owned()),
    }
    let_go((result, stopped));
}

/// Does one thing to the runner at a random moment.
fn act_later(world: &Arc<World>, dice: &mut Dice, horizon: Duration) {
    #[derive(Clone, Copy)]
    enum Act {
        Look,
        Pause,
        Concurrency,
        Stop,
        Suspend,
    }
    let act = dice.pick(&[
        (60, Act::Look),
        (8, Act::Pause),
        (20, Act::Concurrency),
        (2, Act::Stop),
        (10, Act::Suspend),
    ]);
    let at = dice.ms(0, horizon.as_millis() as u64);
    let mut dice = Dice::new(dice.next(), &[]);
    let world = Arc::clone(world);
    world.sim.clone().spawn(Box::pin(async move {
        world.sim.sleep(at).await;
        let Some(known) = world.handle() else {
            return;
        };
        match act {
            Act::Look => look(&world, &known),
            Act::Pause => {
                world.seen(Seen::Pause);
                world.oracle().pause(true);
                known.pause();
                drop(known);
                world.sim.sleep(dice.ms(0, 200)).await;
                if let Some(known) = world.handle() {
                    world.seen(Seen::Resume);
                    world.oracle().pause(false);
                    known.resume();
                }
            }
            Act::Concurrency => {
                let concurrency = dice.between(1, 20) as usize;
                world.oracle().set_concurrency(concurrency);
                known.set_concurrency(NonZeroUsize::new(concurrency).expect("from 1 on"));
            }
            Act::Suspend => {
                drop(known);
                let span = dice.ms(1, 300);
                world.oracle().suspend(span);
                world.sim.suspend(span);
            }
            Act::Stop => {
                let limit = dice.chance(500).then(|| dice.ms(0, 300));
                drop(request(&world, &known, limit));
            }
        }
    }));
}

/// Looks inside: it must be as it was seen, and the look must change nothing.
fn look(world: &World, handle: &Handle) {
    world.seen(Seen::Look);
    world.oracle().check_progress();
    if !handle.is_running() {
        return;
    }
    let held = handle.in_flight();
    let stats = handle.stats();
    let health = handle.health();
    let size = handle.size();
    let mut oracle = world.oracle();
    oracle.look(&held, &stats);
    oracle.require(size == stats.in_flight, || {
        format!("size {size}, {} in flight", stats.in_flight)
    });
    if !oracle.is_closed() && !oracle.call.fatal {
        let (paused, stopping) = (oracle.paused, oracle.run.stopping);
        let fits = match health.state {
            RunState::Stopping => stopping,
            RunState::Paused => paused && !stopping,
            RunState::Stopped => false,
            RunState::Backoff | RunState::Conflict => !paused && !stopping && !oracle.call.pending,
            _ => !paused && !stopping,
        };
        oracle.require(fits, || {
            format!(
                "{:?} while paused {paused}, stopping {stopping}",
                health.state
            )
        });
    }
}
