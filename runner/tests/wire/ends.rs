//! Bots that are processes of their own, ended by SIGTERM amid a backlog and started again.

use std::{num::NonZeroUsize, time::Duration};

use runner::{Bot, BotApi, SinkOptions, Update, UpdateConsumer, http::HttpClient};
use runner_testkit::{Fault, FaultRule, Stage};

use crate::{
    process::ChildBot,
    world::{Handled, LONG, World, count, echo},
};

/// How many handlers there are.
const HANDLERS: usize = 8;

/// How long every handler is still at work when the signal comes.
const WORK: Duration = Duration::from_millis(500);

/// How long an end may take beside that: at most a second for the last word to the server.
const SLACK: Duration = Duration::from_secs(5);

pub(crate) fn a_process_that_is_ended_and_started_again_loses_nothing(place: &str) {
    let mut world = World::new();
    let count = count();
    world.push(count);
    for part in 1..=2 {
        let bot = ChildBot::start("echo", place, &world);
        world.wait_for_replies(count * part / 3);
        // Their messages are sent at once, and the handlers learn of it later.
        let slow = FaultRule::new(Fault::Delay(WORK)).method("sendMessage");
        let times = u64::try_from(HANDLERS).unwrap();
        world
            .server
            .add_fault(slow.stage(Stage::After).times(times));
        let mut slow = 0;
        let last = world.server.wait_for_call(
            |call| {
                slow += usize::from(call.fault.is_some());
                slow == HANDLERS * part
            },
            LONG,
        );
        let done = last.expect("all handlers are slow").at + WORK;
        let ended = bot.terminate();
        assert!(ended >= done, "it has not waited for its handler");
        println!(
            "{place}: the process has ended {:.2?} after its last handler",
            ended - done
        );
        assert!(ended - done < SLACK, "{:?}", ended - done);
        assert!(world.server.pending() > 0, "it was ended amid the backlog");
    }
    let bot = ChildBot::start("echo", place, &world);
    world.wait_for_all(0);
    bot.terminate();
    assert_eq!(world.handled(), Handled::expected(0));
    assert_eq!(world.server.pending(), 0, "all is confirmed");
}

/// A bot that holds little, so that most of the backlog stays at the server.
pub(crate) fn bot<C: HttpClient>(api: BotApi<C>) -> Bot<BotApi<C>, impl UpdateConsumer<Update>> {
    let few = NonZeroUsize::new(HANDLERS).unwrap();
    let sink = SinkOptions::concurrent().concurrency(few);
    echo(api).sink(sink.prefetch(0).max_waiting(few))
}
