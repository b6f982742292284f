//! Bots that are killed, without any chance to bring something to an end, and started again.
//!
//! What comes of it is computed from what the server has seen by then: what it was told to forget
//! does not come again, and everything else does.

use std::num::NonZeroUsize;

use runner::{
    ApiError, Bot, BotApi, Delivery, FetchOptions, SinkOptions, Update, UpdateConsumer,
    http::{HttpClient, Limits},
};
use runner_testkit::{Fault, FaultPlan, FaultRule, PollAnswer, Snapshot, Stage};

use crate::{
    process::ChildBot,
    world::{LONG, World, count, fetch},
};

/// The most updates of one poll.
const BATCH: usize = 20;

/// How many updates of a batch are handled when the kill comes.
const INTO_BATCH: usize = 5;

/// What the concurrent bot may hold: running, ready, and waiting for their chat.
const RUNNING: usize = 8;
const READY: usize = 10;
const WAITING: usize = 8;

/// The call with which a handler begins, and the one with which an update is handled.
const BEGIN: &str = "sendChatAction";
const DONE: &str = "sendMessage";

/// What a kill has cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cost {
    /// Updates that were not handled and do not come again.
    lost: usize,
    /// Updates that were handled and come again.
    again: usize,
}

pub(crate) fn a_sequential_bot(place: &str) {
    // The next one of the batch is at work.
    let costs = kill_amid("sequential", place, 1);
    let cost = Cost {
        lost: 0,
        again: INTO_BATCH,
    };
    assert_eq!(costs, [cost; 2]);
}

pub(crate) fn a_batch_bot(place: &str) {
    // All others of the batch are.
    let costs = kill_amid("batch", place, BATCH - INTO_BATCH);
    let cost = Cost {
        lost: 0,
        again: INTO_BATCH,
    };
    assert_eq!(costs, [cost; 2]);
}

pub(crate) fn a_concurrent_bot(place: &str) {
    for Cost { lost, again } in kill_amid("concurrent", place, RUNNING) {
        // At most the last batch is still known to the server, and that had to fit in.
        assert!(lost >= RUNNING + READY / 2 + 1 - WAITING, "{lost}");
        assert!(lost <= RUNNING + READY + WAITING, "{lost}");
        assert!(again <= WAITING, "{again}");
    }
}

pub(crate) fn a_bot_that_waits(place: &str) {
    for sink in ["sequential", "batch", "concurrent"] {
        let mut life = Life::new();
        for _ in 0..2 {
            life.world.push(BATCH + INTO_BATCH);
            let bot = ChildBot::start(sink, place, &life.world);
            // All is handled, and by waiting for more it has told the server so.
            let calls = 2 * life.world.pushed() as u64;
            let is_idle =
                |state: &Snapshot| state.calls == calls && state.pending == 0 && state.is_polled;
            let arrived = life.world.server.wait_until(is_idle, LONG);
            assert!(arrived, "{:?}", life.world.server.snapshot());
            assert_eq!(life.end_by(bot), Cost { lost: 0, again: 0 });
        }
        assert_eq!(life.handled(), [1; 2 * (BATCH + INTO_BATCH)]);
    }
}

/// Kills a bot twice while so many handlers are at work, and lets a third one do the rest.
fn kill_amid(sink: &str, place: &str, at_work: usize) -> [Cost; 2] {
    let mut life = Life::new();
    life.world.push(count());
    // Some batches and a part of one.
    let into = count() / 3 / BATCH * BATCH + INTO_BATCH;
    let costs = [(); 2].map(|()| {
        let before = life.world.server.snapshot().calls;
        let polls = life.world.server.polls().len();
        // These begin, and learn of it after the test.
        let stuck = FaultRule::new(Fault::Delay(10 * LONG)).method(BEGIN);
        let stuck = stuck.stage(Stage::After).skip(into as u64);
        life.world.server.set_faults(FaultPlan::new(0).rule(stuck));
        let bot = ChildBot::start(sink, place, &life.world);
        let calls = before + (into + at_work + into) as u64;
        let arrived = life
            .world
            .server
            .wait_until(|state| state.calls == calls, LONG);
        assert!(arrived, "{:?}", life.world.server.snapshot());
        if sink == "concurrent" {
            life.wait_until_full(polls, into + RUNNING + READY / 2 + 1);
        }
        life.end_by(bot)
    });
    println!("{place}: {sink}: {costs:?}");
    life.world.server.set_faults(FaultPlan::new(0));
    let bot = ChildBot::start(sink, place, &life.world);
    let idle = |state: &Snapshot| state.pending == 0 && state.is_polled;
    assert!(life.world.server.wait_until(idle, LONG));
    bot.terminate();
    assert_eq!(life.handled(), life.expected, "as was foreseen at the kill");
    let lost = life.expected.iter().filter(|times| **times == 0).count();
    assert_eq!(lost, costs[0].lost + costs[1].lost);
    costs
}

/// A server over the lives of several bots.
struct Life {
    world: World,
    /// How often each update will have been handled, if nothing more goes wrong.
    expected: Vec<usize>,
}

impl Life {
    fn new() -> Self {
        Self {
            world: World::new(),
            expected: Vec::new(),
        }
    }

    /// How often each update was handled.
    fn handled(&self) -> Vec<usize> {
        let mut times = vec![0; self.world.pushed()];
        for call in self.world.server.calls_of(DONE) {
            let number: usize = call.text().unwrap().parse().unwrap();
            times[number] += 1;
        }
        times
    }

    /// Waits until a bot has been given so many updates since that poll.
    fn wait_until_full(&self, since: usize, count: usize) {
        let mut given = 0;
        let poll = self.world.server.wait_for_poll(
            |poll| {
                if poll.index == 0 {
                    given = 0;
                }
                if let Some((PollAnswer::Updates(updates), _)) = poll.answer
                    && poll.index >= since as u64
                {
                    given += updates;
                }
                given >= count
            },
            LONG,
        );
        assert!(poll.is_some(), "{:?}", self.world.server.snapshot());
    }

    /// Kills the bot and tells what that costs.
    fn end_by(&mut self, bot: ChildBot) -> Cost {
        bot.kill();
        // What it has sent may still be on its way.
        let server = &self.world.server;
        assert!(server.wait_until(|state| state.connections.open == 0, LONG));
        let state = server.snapshot();
        let first = state.next_update_id - i64::try_from(self.world.pushed()).unwrap();
        let known = state.confirmed_offset.map_or(0, |offset| offset - first);
        let known = usize::try_from(known).unwrap();

        let handled = self.handled();
        self.expected.resize(handled.len(), 1);
        let mut cost = Cost { lost: 0, again: 0 };
        for (number, (expected, times)) in self.expected.iter_mut().zip(handled).enumerate() {
            if number < known {
                assert!(times <= *expected, "{number} was handled {times} times");
                cost.lost += *expected - times;
                *expected = times;
            } else {
                cost.again += usize::from(times > 0);
                *expected = times + 1;
            }
        }
        cost
    }
}

/// A bot over this sink whose handlers say that they begin, and then answer.
pub(crate) fn bot<C: HttpClient>(
    api: BotApi<C>,
    sink: &str,
) -> Bot<BotApi<C>, impl UpdateConsumer<Update>> {
    let few = |count| NonZeroUsize::new(count).unwrap();
    let sink = match sink {
        "sequential" => SinkOptions::sequential().any(),
        "batch" => SinkOptions::batch().any(),
        "concurrent" => SinkOptions::concurrent()
            .concurrency(few(RUNNING))
            .prefetch(READY)
            .max_waiting(few(WAITING))
            .any(),
        other => panic!("no sink is called {other}"),
    };
    // Calls that are stuck stay so until the kill, whatever the machine does meanwhile.
    let mut limits = Limits::default();
    limits.answer = 10 * LONG;
    let api = api.limits(limits);
    let fetch: FetchOptions = fetch().limit(u8::try_from(BATCH).unwrap());
    Bot::for_each_with(
        api.clone(),
        api,
        |api: BotApi<C>, update: Delivery<Update>| async move {
            if let (Some(chat), Some(text)) = (update.chat_id(), update.text()) {
                let action = serde_json::json!({"chat_id": chat, "action": "typing"});
                api.call::<bool>(BEGIN, &action).await?;
                api.send_message(chat, text).await?;
            }
            Ok::<_, ApiError>(())
        },
    )
    .sink(sink)
    .fetch(fetch)
}
