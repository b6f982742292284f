//! How the end of a run reaches those who wait for it, and whether it is told as it is.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use runner_core::{Confirmation, Fate, Runtime, RuntimeExt, Stopped};

use crate::{
    check::Outcome,
    coverage::Seen,
    server::Bot,
    world::{Item, World},
};

/// Everyone who waits for the end of a run notes when and how it came.
pub(crate) type Ends = Arc<Mutex<Vec<(Duration, Outcome)>>>;

/// Waits in a task, and gives up if its patience is over.
pub(crate) fn wait(
    world: &Arc<World>,
    ends: &Ends,
    stopped: Stopped<Item>,
    patience: Option<Duration>,
) {
    let (sim, ends) = (world.sim.clone(), Arc::clone(ends));
    let world = Arc::clone(world);
    let since = sim.elapsed();
    world.sim.clone().spawn(Box::pin(async move {
        let result = match patience {
            None => Some(stopped.await),
            Some(patience) => sim.timeout(patience, stopped).await,
        };
        match result {
            None => world.seen(Seen::DropWaiter),
            Some(result) => {
                let now = sim.elapsed();
                let mut oracle = world.oracle();
                oracle.check_end(since, now);
                let at = oracle.certain();
                drop(oracle);
                let mut ends = ends.lock().unwrap_or_else(PoisonError::into_inner);
                ends.push((at, result));
            }
        }
    }));
}

/// Everyone was told the same, at the same time.
pub(crate) fn compare(world: &World, ends: &Ends, result: &Outcome) {
    let ends = ends.lock().unwrap_or_else(PoisonError::into_inner);
    let mut oracle = world.oracle();
    oracle.require(!ends.is_empty(), || "nobody who waited was told".to_owned());
    let first = ends.first().map(|(at, _)| *at);
    for (at, told) in &*ends {
        oracle.require(Some(*at) == first, || "told at different times".to_owned());
        let same = match (told, result) {
            (Ok(one), Ok(other)) => Arc::ptr_eq(&one.abandoned, &other.abandoned),
            (Err(one), Err(other)) => {
                Arc::ptr_eq(&one.report().abandoned, &other.report().abandoned)
            }
            _ => false,
        };
        oracle.require(same, || {
            "two who waited were told different things".to_owned()
        });
    }
}

/// What the report says of the server is so.
pub(crate) fn compare_server(world: &World, bot: &Bot, result: &Outcome) {
    let report = match result {
        Ok(report) => report,
        Err(error) => error.report(),
    };
    for abandoned in &*report.abandoned {
        if abandoned.fate == Fate::Redelivered {
            let id = abandoned.update.id;
            let kept = bot.may_keep(id);
            let mut oracle = world.oracle();
            oracle.coverage.add(Seen::Redelivered);
            oracle.require(kept, || format!("update id {id} does not come again"));
        }
    }
    if let Confirmation::Confirmed { position } = report.confirmation {
        let known = bot.is_confirmed(position);
        world.oracle().require(known, || {
            format!("{position} is said to be confirmed, and the server does not know")
        });
    }
}

/// Drops something that may hold updates, some of which panic when they are dropped.
pub(crate) fn let_go<T>(value: T) {
    let _ = catch_unwind(AssertUnwindSafe(move || drop(value)));
}
