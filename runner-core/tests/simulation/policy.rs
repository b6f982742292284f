//! An error policy that does what policies do, faults included.

use std::{
    future::pending,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use runner_core::{BoxFuture, ErrorPolicy, Failure, RuntimeExt, Verdict};

use crate::{
    coverage::Seen,
    oracle,
    world::{Item, World, planned_panic},
};

/// Decides as the number of the update says.
pub(crate) struct Policy(pub(crate) Arc<World>);

#[derive(Clone, Copy)]
enum Kind {
    Skip,
    Retry,
    RetryNever,
    Stop,
    Panic,
    PanicInPoll,
    Hang,
}

impl ErrorPolicy<Item> for Policy {
    fn decide(&self, failure: Failure<Item>) -> impl Future<Output = Verdict> + Send {
        let world = Arc::clone(&self.0);
        let (nr, attempt) = (failure.update.nr, failure.update.attempt().get());
        let stopping = failure.update.is_stopping();
        world.oracle().ask(nr, attempt, &failure.cause, stopping);
        let mut dice = world.dice(&[8, nr as u64, attempt.into()]);
        let kind = match attempt {
            6.. => Kind::Skip,
            _ => dice.pick(&[
                (500, Kind::Skip),
                (350, Kind::Retry),
                (13, Kind::RetryNever),
                (10, Kind::Stop),
                (20, Kind::Panic),
                (20, Kind::PanicInPoll),
                (10, Kind::Hang),
            ]),
        };
        let wait = dice.chance(300).then(|| dice.ms(0, 40));
        let after = match kind {
            Kind::RetryNever => Duration::MAX,
            _ => dice.ms(0, 100) * u32::from(dice.chance(800)),
        };
        world.seen(match kind {
            Kind::Skip => Seen::PolicySkips,
            Kind::Retry => Seen::PolicyRetries,
            Kind::RetryNever => Seen::PolicyRetriesNever,
            Kind::Stop => Seen::PolicyStops,
            Kind::Panic => Seen::PolicyPanics,
            Kind::PanicInPoll => Seen::PolicyPanicsInPoll,
            Kind::Hang => Seen::PolicyHangs,
        });
        let mut deciding = Deciding {
            world: Arc::clone(&world),
            nr,
            work: None,
            ended: false,
        };
        if matches!(kind, Kind::Panic) {
            deciding.end(oracle::Verdict::Panic);
            planned_panic();
        }
        deciding.work = Some(Box::pin(async move {
            let _failure = failure;
            if let Some(wait) = wait {
                world.seen(Seen::PolicyWaits);
                world.sim.sleep(wait).await;
            }
            match kind {
                Kind::Skip => Verdict::Skip,
                Kind::Retry | Kind::RetryNever => Verdict::Retry { after },
                Kind::Stop => Verdict::Stop,
                Kind::Panic | Kind::PanicInPoll => planned_panic(),
                Kind::Hang => pending().await,
            }
        }));
        deciding
    }
}

/// A decision that tells how it ends, however it ends.
struct Deciding {
    world: Arc<World>,
    nr: usize,
    work: Option<BoxFuture<'static, Verdict>>,
    ended: bool,
}

impl Deciding {
    fn end(&mut self, verdict: oracle::Verdict) {
        if !std::mem::replace(&mut self.ended, true) {
            self.world.oracle().verdict(self.nr, verdict);
        }
    }
}

impl Future for Deciding {
    type Output = Verdict;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Verdict> {
        /// A policy that panics answers by it.
        struct Guard<'a>(&'a mut Deciding);
        impl Drop for Guard<'_> {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    self.0.end(oracle::Verdict::Panic);
                }
            }
        }
        let guard = Guard(&mut self);
        let work = guard.0.work.as_mut().expect("set with the future");
        let result = work.as_mut().poll(cx);
        drop(guard);
        match result {
            Poll::Pending => self.world.oracle().policy_pends(self.nr),
            Poll::Ready(Verdict::Skip) => self.end(oracle::Verdict::Skip),
            Poll::Ready(Verdict::Retry { after }) => self.end(oracle::Verdict::Retry(after)),
            Poll::Ready(_) => self.end(oracle::Verdict::Stop),
        }
        result
    }
}

impl Drop for Deciding {
    fn drop(&mut self) {
        self.end(oracle::Verdict::Dropped);
    }
}
