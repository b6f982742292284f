//! Bots that are stopped while handlers hang: the report names exactly what was not handled, and the
//! next run is given exactly what the report says will come again.

use std::{
    collections::BTreeSet,
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use futures::executor::block_on;
use runner::{
    Bot, BotApi, BoxError, Confirmation, Delivery, Fate, Incoming, Progress, Report, RunState,
    RunnerHandle, SinkOptions, Update, UpdateConsumer, http::HttpClient,
};

use crate::world::{LONG, Place, World, fetch};

/// The most updates of one poll.
const BATCH: u8 = 20;

/// How many updates there are: more than a bot takes of whose handlers some hang.
const COUNT: usize = 300;

/// How long a stop waits for handlers that will never end.
const LIMIT: Duration = Duration::from_millis(50);

/// Which handlers hang; there are ones of every chat among them.
fn hangs(number: usize) -> bool {
    number % 7 == 3
}

pub(crate) fn a_full_bot<C: HttpClient>(place: &Place, client: fn() -> C) {
    let few = 8.try_into().unwrap();
    let sink = SinkOptions::concurrent().concurrency(few).prefetch(10);
    let mut case = Case::new(COUNT);
    let bot = case.start(place, client(), sink);
    // All slots hold handlers that hang, and no poll is on its way.
    case.wait(|case| case.stands_still(&bot, 8) && bot.health().state == RunState::Full);
    let held = case.held(&bot);
    let report = case.stop(&bot);
    assert_eq!(case.abandoned(&report, |_| true), held);

    // What the server was told to forget does not come again; of the last batch, nothing was
    // confirmed behind the first one.
    let again = case.abandoned(&report, |fate| fate == Fate::Redelivered);
    let lost = case.abandoned(&report, |fate| fate == Fate::Lost);
    assert_eq!(again.len() + lost.len(), held.len());
    let first = *again
        .first()
        .expect("of the last batch at least one is left");
    assert!(lost.iter().all(|number| *number < first));
    assert!(!lost.is_empty(), "one batch cannot fill it");
    // Another one, as after a restart of the process.
    drop(bot);
    case.goes_on_from(first, |case| {
        case.start(place, client(), SinkOptions::concurrent())
    });
}

pub(crate) fn a_bot_that_waits<C: HttpClient>(place: &Place, client: fn() -> C) {
    let mut case = Case::new(2 * usize::from(BATCH));
    let bot = case.start(place, client(), SinkOptions::concurrent());
    case.wait(|case| {
        let state = case.world.server.snapshot();
        state.pending == 0 && state.is_polled && case.stands_still(&bot, usize::MAX)
    });
    let held = case.held(&bot);
    let report = case.stop(&bot);
    // By waiting for more it has told the server to forget all of them.
    assert_eq!(case.abandoned(&report, |fate| fate == Fate::Lost), held);
    assert_eq!(report.abandoned.len(), held.len());
    case.goes_on_from(case.world.pushed(), |_| start_again(bot));
}

pub(crate) fn a_sequential_bot<C: HttpClient>(place: &Place, client: fn() -> C) {
    let mut case = Case::new(COUNT);
    let bot = case.start(place, client(), SinkOptions::sequential());
    case.wait(|case| case.stands_still(&bot, 1));
    let report = case.stop(&bot);
    // The first one that hangs, and the rest of its batch.
    let left = (3..usize::from(BATCH)).collect();
    assert_eq!(
        case.abandoned(&report, |fate| fate == Fate::Redelivered),
        left
    );
    assert_eq!(report.abandoned.len(), left.len());
    case.goes_on_from(3, |_| start_again(bot));
}

pub(crate) fn a_batch_bot<C: HttpClient>(place: &Place, client: fn() -> C) {
    let mut case = Case::new(COUNT);
    let bot = case.start(place, client(), SinkOptions::batch());
    case.wait(|case| case.stands_still(&bot, usize::MAX));
    let report = case.stop(&bot);
    let left = BTreeSet::from([3, 10, 17]);
    assert_eq!(
        case.abandoned(&report, |fate| fate == Fate::Redelivered),
        left
    );
    assert_eq!(report.abandoned.len(), left.len());
    drop(bot);
    case.goes_on_from(3, |case| case.start(place, client(), SinkOptions::batch()));
}

fn start_again(bot: RunnerHandle<Incoming>) -> RunnerHandle<Incoming> {
    bot.start().unwrap();
    bot
}

/// A server, and what the handlers of a bot have done.
struct Case {
    world: World,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    /// Nothing hangs in a second run.
    is_second: AtomicBool,
    /// How many updates have hung.
    hung: Mutex<BTreeSet<usize>>,
    /// The updates whose handlers have returned, of the present run.
    done: Mutex<Vec<usize>>,
}

impl Case {
    fn new(count: usize) -> Self {
        let mut world = World::new();
        world.push(count);
        Self {
            world,
            seen: Arc::default(),
        }
    }

    fn start<C: HttpClient>(
        &self,
        place: &Place,
        client: C,
        sink: SinkOptions<impl Sized>,
    ) -> RunnerHandle<Incoming> {
        place.start(bot(self.world.api(client), &self.seen).sink(sink))
    }

    fn wait(&self, mut is_met: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + LONG;
        while !is_met(self) {
            assert!(Instant::now() < deadline, "{:?}", self.world.server);
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whether something is held and nothing of it can go on: what runs hangs, and what does not
    /// run waits for that.
    fn stands_still(&self, bot: &RunnerHandle<Incoming>, slots: usize) -> bool {
        let held = bot.in_flight();
        let hung = self.seen.hung.lock().unwrap();
        let count = |progress| held.iter().filter(|held| held.progress == progress).count();
        let (running, ready) = (count(Progress::Running), count(Progress::Ready));
        running > 0 && running == hung.len() && (ready == 0 || running == slots)
    }

    /// The numbers of what a bot holds.
    fn held(&self, bot: &RunnerHandle<Incoming>) -> BTreeSet<usize> {
        let held = bot.in_flight();
        held.iter().map(|held| self.number(&held.update)).collect()
    }

    fn number(&self, incoming: &Incoming) -> usize {
        let pushed = i64::try_from(self.world.pushed()).unwrap();
        let first = self.world.server.snapshot().next_update_id - pushed;
        usize::try_from(incoming.id() - first).unwrap()
    }

    /// Stops the bot; what was supplied and has not returned must be in the report, and nothing else.
    fn stop(&mut self, bot: &RunnerHandle<Incoming>) -> Report<Incoming> {
        let report = block_on(bot.stop_within(LIMIT)).unwrap();
        let done: BTreeSet<usize> = self.seen.done.lock().unwrap().iter().copied().collect();
        let supplied = usize::try_from(report.counters.supplied).unwrap();
        let left: BTreeSet<usize> = (0..supplied)
            .filter(|number| !done.contains(number))
            .collect();
        assert_eq!(self.abandoned(&report, |_| true), left);
        assert_eq!(report.abandoned.len(), left.len(), "each is there once");
        let hung = self.seen.hung.lock().unwrap();
        for abandoned in report.abandoned.iter() {
            let was_at_work = hung.contains(&self.number(&abandoned.update));
            assert_eq!(abandoned.started, was_at_work);
            assert!(!abandoned.unresponsive);
        }
        report
    }

    fn abandoned(
        &self,
        report: &Report<Incoming>,
        wanted: impl Fn(Fate) -> bool,
    ) -> BTreeSet<usize> {
        let abandoned = report.abandoned.iter();
        let wanted = abandoned.filter(|abandoned| wanted(abandoned.fate));
        wanted
            .map(|abandoned| self.number(&abandoned.update))
            .collect()
    }

    /// Starts a bot again, which is given each update from this one on, and no other.
    fn goes_on_from(&mut self, first: usize, start: impl FnOnce(&Self) -> RunnerHandle<Incoming>) {
        self.seen.is_second.store(true, Ordering::Relaxed);
        self.seen.done.lock().unwrap().clear();
        // At least one, so that its arrival shows that all before it have.
        self.world.push(1);
        let all: Vec<usize> = (first..self.world.pushed()).collect();
        let bot = start(self);
        self.wait(|case| case.seen.done.lock().unwrap().len() >= all.len());
        let report = block_on(bot.stop()).unwrap();
        let mut done = self.seen.done.lock().unwrap().clone();
        done.sort_unstable();
        assert_eq!(done, all);
        assert!(report.abandoned.is_empty());
        assert!(!matches!(report.confirmation, Confirmation::Failed));
        self.world.assert_confirmed(&report);
    }
}

fn bot<C: HttpClient>(
    api: BotApi<C>,
    seen: &Arc<Seen>,
) -> Bot<BotApi<C>, impl UpdateConsumer<Update>> {
    let state = (api.clone(), Arc::clone(seen));
    Bot::for_each_with(
        api,
        state,
        |(api, seen): (BotApi<C>, Arc<Seen>), update: Delivery<Update>| async move {
            let text = update.text().ok_or("not a text")?;
            let number: usize = text.parse()?;
            if hangs(number) && !seen.is_second.load(Ordering::Relaxed) {
                seen.hung.lock().unwrap().insert(number);
                pending::<()>().await;
            }
            api.send_message(update.chat_id().ok_or("of no chat")?, text)
                .await?;
            seen.done.lock().unwrap().push(number);
            Ok::<_, BoxError>(())
        },
    )
    .fetch(fetch().limit(BATCH))
}
