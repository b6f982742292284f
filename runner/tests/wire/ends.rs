//! Bots that are processes of their own, ended by SIGTERM amid a backlog and started again.

use std::{
    env,
    num::NonZeroUsize,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use runner::{
    Bot, BotApi, Incoming, Report, RunError, SinkOptions, Update, UpdateConsumer,
    http::{HttpClient, HyperClient, UreqClient},
};
use runner_testkit::{Fault, FaultRule, Stage};

use crate::world::{Handled, LONG, World, count, echo};

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
        let bot = ChildBot::start(place, &world);
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
    let bot = ChildBot::start(place, &world);
    world.wait_for_all(0);
    bot.terminate();
    assert_eq!(world.handled(), Handled::expected(0));
    assert_eq!(world.server.pending(), 0, "all is confirmed");
}

/// Names the client and the runtime of the child, and tells it that it is one.
const PLACE: &str = "RUNNER_WIRE_PLACE";

/// The address of the server, and the token of the bot there.
const SERVER: &str = "RUNNER_WIRE_SERVER";
const TOKEN: &str = "RUNNER_WIRE_TOKEN";

/// The bot. The test above starts this one in a process of its own.
#[test]
fn child() {
    let Ok(place) = env::var(PLACE) else {
        // Run among all others, with nobody to talk to.
        return;
    };
    let report = match &*place {
        "ureq_on_tokio" => runner::tokio::run(bot(UreqClient::new())),
        "ureq_on_smol" => runner::smol::run(bot(UreqClient::new())),
        "hyper_on_tokio" => runner::tokio::run(bot(HyperClient::new())),
        "hyper_on_smol" => runner::smol::run(bot(HyperClient::new())),
        other => panic!("no place is called {other}"),
    };
    let report: Result<Report<Incoming>, RunError<Incoming>> = report;
    assert!(report.unwrap().abandoned.is_empty());
}

/// A bot that holds little, so that most of the backlog stays at the server.
fn bot<C: HttpClient>(client: C) -> Bot<BotApi<C>, impl UpdateConsumer<Update>> {
    let api = BotApi::with_client(env::var(TOKEN).unwrap(), client).unwrap();
    let api = api.base_url(env::var(SERVER).unwrap()).unwrap();
    let few = NonZeroUsize::new(HANDLERS).unwrap();
    let sink = SinkOptions::concurrent().concurrency(few);
    echo(api).sink(sink.prefetch(0).max_waiting(few))
}

/// The child, seen from its parent.
struct ChildBot(Child);

impl ChildBot {
    fn start(place: &str, world: &World) -> Self {
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "ends::child", "--nocapture"])
            .env(PLACE, place)
            .env(SERVER, world.server.url())
            .env(TOKEN, world.server.token())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }

    /// Sends the signal that every supervisor sends, waits for the end and tells when it was.
    fn terminate(mut self) -> Instant {
        // Part of every shell, while `kill` as a program is not everywhere.
        let kill = format!("kill -TERM {}", self.0.id());
        let status = Command::new("sh").args(["-c", &kill]).status().unwrap();
        assert!(status.success());
        assert!(self.0.wait().unwrap().success());
        Instant::now()
    }
}

impl Drop for ChildBot {
    fn drop(&mut self) {
        // Of a test that has failed; one that has passed has no child any more.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
