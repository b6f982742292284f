//! Bots in processes of their own, so that they can be ended in every way that a process can.

use std::{
    env, process,
    process::{Child, Command, Stdio},
    time::Instant,
};

use runner::{
    Bot, BotApi, Incoming, Report, RunError, Update, UpdateConsumer,
    http::{HttpClient, HyperClient, UreqClient},
};

use crate::{ends, kill, world::World};

/// What the child is to be, on which runtime and over which client; and that it is one.
const TASK: &str = "RUNNER_WIRE_TASK";
const PLACE: &str = "RUNNER_WIRE_PLACE";

/// The address of the server, and the token of the bot there.
const SERVER: &str = "RUNNER_WIRE_SERVER";
const TOKEN: &str = "RUNNER_WIRE_TOKEN";

/// The bot. Other tests start this one in a process of its own.
#[test]
fn child() {
    let Ok(place) = env::var(PLACE) else {
        // Run among all others, with nobody to talk to.
        return;
    };
    let (client, runtime) = place.split_once("_on_").expect("a client on a runtime");
    match client {
        "ureq" => run(runtime, UreqClient::new()),
        "hyper" => run(runtime, HyperClient::new()),
        other => panic!("no client is called {other}"),
    }
}

fn run<C: HttpClient>(runtime: &str, client: C) {
    let api = BotApi::with_client(env::var(TOKEN).unwrap(), client).unwrap();
    let api = api.base_url(env::var(SERVER).unwrap()).unwrap();
    match &*env::var(TASK).unwrap() {
        "echo" => run_on(runtime, ends::bot(api)),
        sink => run_on(runtime, kill::bot(api, sink)),
    }
}

fn run_on<C: HttpClient>(runtime: &str, bot: Bot<BotApi<C>, impl UpdateConsumer<Update>>) {
    let report: Result<Report<Incoming>, RunError<Incoming>> = match runtime {
        "tokio" => runner::tokio::run(bot),
        "smol" => runner::smol::run(bot),
        other => panic!("no runtime is called {other}"),
    };
    assert!(report.unwrap().abandoned.is_empty());
}

/// The child, seen from its parent.
pub(crate) struct ChildBot(Child);

impl ChildBot {
    pub(crate) fn start(task: &str, place: &str, world: &World) -> Self {
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "process::child", "--nocapture"])
            .env(TASK, task)
            .env(PLACE, place)
            .env(SERVER, world.server.url())
            .env(TOKEN, world.server.token())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }

    /// Sends the signal that every supervisor sends, waits for the end and tells when it was.
    pub(crate) fn terminate(mut self) -> Instant {
        // Part of every shell, while `kill` as a program is not everywhere.
        let kill = format!("kill -TERM {}", self.0.id());
        let status = Command::new("sh").args(["-c", &kill]).status().unwrap();
        assert!(status.success());
        assert!(self.0.wait().unwrap().success());
        Instant::now()
    }

    /// Sends the signal that nobody can catch, and waits for the end.
    pub(crate) fn kill(mut self) {
        self.0.kill().unwrap();
        let status: process::ExitStatus = self.0.wait().unwrap();
        assert_eq!(status.code(), None, "it was ended by the signal");
    }
}

impl Drop for ChildBot {
    fn drop(&mut self) {
        // Of a test that has failed; one that has passed has no child any more.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
