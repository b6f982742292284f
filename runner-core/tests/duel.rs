//! Two instances of one bot: each poll throws the other one's out, and exactly one survives.

mod common;

use std::{
    future::poll_fn,
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard},
    task::{Poll, Waker},
    time::Duration,
};

use common::{SECOND, runtime};
use runner_core::{
    Conflict, Delivery, RunError, RunState, Runner, RunnerHandle, SourceError, SupplyError,
    UpdateSupplier,
    testing::{SimRuntime, for_each_seed},
};

const MINUTE: Duration = Duration::from_secs(60);

/// Longer than the rivals need to settle it: three waits of ten seconds for each.
const DUEL: Duration = Duration::from_secs(2 * 3 * 10 + 10);

/// A server that serves the latest poll only.
#[derive(Default)]
struct Server {
    latest: u64,
    waiting: Option<Waker>,
    updates: Vec<u32>,
}

/// One instance's way to the server. A clone is another instance's.
#[derive(Clone, Default)]
struct Line(Arc<Mutex<Server>>);

impl Line {
    fn lock(&self) -> MutexGuard<'_, Server> {
        self.0.lock().unwrap()
    }

    /// Something has changed: whoever waits looks again.
    fn change(&self, change: impl FnOnce(&mut Server)) {
        let mut server = self.lock();
        change(&mut server);
        let waiting = server.waiting.take();
        drop(server);
        if let Some(waker) = waiting {
            waker.wake();
        }
    }
}

impl UpdateSupplier for Line {
    type Update = u32;
    type Error = SupplyError;

    async fn supply(&mut self, _limit: NonZeroUsize) -> Result<Vec<u32>, SupplyError> {
        self.change(|server| server.latest += 1);
        let own = self.lock().latest;
        poll_fn(|cx| {
            let mut server = self.lock();
            if server.latest != own {
                let text = "terminated by other getUpdates request";
                return Poll::Ready(Err(SupplyError::conflict(Conflict::Poller, text)));
            }
            if server.updates.is_empty() {
                server.waiting = Some(cx.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(Ok(std::mem::take(&mut server.updates)))
        })
        .await
    }
}

fn instance(sim: &SimRuntime, line: &Line) -> RunnerHandle<u32> {
    Runner::for_each(runtime(sim), line.clone(), async |_: Delivery<u32>| {}).start()
}

#[test]
fn one_of_two_instances_survives_and_the_other_says_why_it_left() {
    for_each_seed(100, |sim| {
        let line = Line::default();
        let one = instance(&sim, &line);
        sim.advance(Duration::from_millis(sim.below(20_000)));
        let other = instance(&sim, &line);
        sim.advance(DUEL);

        let (loser, winner) = match one.is_running() {
            true => (other, one),
            false => (one, other),
        };
        let Err(RunError::Supply { source, .. }) = sim.block_on(loser.task()) else {
            panic!("it did not leave");
        };
        let SourceError::Poller { conflicts, .. } = *source else {
            panic!("{source:?}");
        };
        assert_eq!(conflicts, 4);

        // Nobody is in its way any more.
        assert_eq!(winner.health().state, RunState::Polling);
        line.change(|server| server.updates.extend(0..7));
        sim.advance(SECOND);
        assert_eq!(winner.stats().counters.finished, 7);
        assert!(winner.is_running());
    });
}

/// A rolling deploy: the old instance is told to stop a little after the new one began.
#[test]
fn a_handover_within_twenty_seconds_ends_nothing() {
    for_each_seed(100, |sim| {
        let line = Line::default();
        let old = instance(&sim, &line);
        sim.advance(SECOND);
        let new = instance(&sim, &line);
        sim.advance(Duration::from_millis(sim.below(20_000)));
        sim.block_on(old.stop()).unwrap();
        sim.advance(MINUTE);
        assert_eq!(new.health().state, RunState::Polling);
        line.change(|server| server.updates.extend(0..7));
        sim.advance(SECOND);
        assert_eq!(new.stats().counters.finished, 7);
    });
}
