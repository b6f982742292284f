//! Bots that are processes of their own end at signals, on both runtimes.
//!
//! Parent and child talk over pipes: the child says what has happened, line by line, and the parent
//! answers with a signal or a line of its own. Nobody waits for a time to pass.
#![cfg(unix)]

use std::{
    env,
    io::{self, BufRead, BufReader, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use async_executor::Executor;
use futures::channel::oneshot;
use runner::{Bot, Confirmation, Counters, Delivery, Fate, testing::FakeApi};

#[test]
fn tokio_run() {
    ends_gracefully_at_the_first_signal("tokio::run");
    ends_at_once_at_the_second_signal("tokio::run");
    ends_with_a_report_after_the_stop_timeout("tokio::run");
}

#[test]
fn tokio_serve() {
    ends_gracefully_at_the_first_signal("tokio::serve");
    ends_at_once_at_the_second_signal("tokio::serve");
    ends_with_a_report_after_the_stop_timeout("tokio::serve");
}

#[test]
fn smol_run() {
    ends_gracefully_at_the_first_signal("smol::run");
    ends_at_once_at_the_second_signal("smol::run");
    ends_with_a_report_after_the_stop_timeout("smol::run");
}

#[test]
fn smol_serve() {
    ends_gracefully_at_the_first_signal("smol::serve");
    ends_at_once_at_the_second_signal("smol::serve");
    ends_with_a_report_after_the_stop_timeout("smol::serve");
}

#[test]
fn smol_serve_on() {
    ends_gracefully_at_the_first_signal("smol::serve_on");
    ends_at_once_at_the_second_signal("smol::serve_on");
    ends_with_a_report_after_the_stop_timeout("smol::serve_on");
}

fn ends_gracefully_at_the_first_signal(entry: &str) {
    for signal in ["TERM", "INT"] {
        let mut bot = ChildBot::start(entry);
        bot.signal(signal);
        bot.expect("stopping");
        // It waits for its handler, which waits for this line.
        bot.stdin.write_all(b"finish\n").unwrap();
        bot.expect("handled");
        bot.expect("supplied 1, finished 1, abandoned [], confirmed Some(2)");
        bot.expect_success();
    }
}

fn ends_at_once_at_the_second_signal(entry: &str) {
    let bot = ChildBot::start(entry);
    bot.signal("INT");
    bot.expect("stopping");
    bot.signal("TERM");
    // The handler is cancelled. The next poll has made the server let go of its update, so the report
    // has the only copy.
    bot.expect("supplied 1, finished 0, abandoned [(1, true, Lost)], confirmed None");
    bot.expect_success();
}

/// As `docker stop` does it: one SIGTERM, and a SIGKILL that must not be needed.
fn ends_with_a_report_after_the_stop_timeout(entry: &str) {
    let bot = ChildBot::start_with(entry, Handlers::WaitWithTimeout, 1);
    bot.signal("TERM");
    bot.expect("supplied 1, finished 0, abandoned [(1, true, Lost)], confirmed None");
    bot.expect_success();
}

#[test]
fn handlers_that_block_every_thread_cannot_keep_the_process() {
    let count = thread::available_parallelism().unwrap().get();
    let lost: Vec<_> = (1..=count).map(|id| (id, true, Fate::Lost)).collect();
    for entry in ["tokio::run", "smol::run"] {
        for handlers in [Handlers::Block, Handlers::BlockWithTimeout] {
            let bot = ChildBot::start_with(entry, handlers, count);
            bot.signal("INT");
            if !handlers.have_stop_timeout() {
                bot.expect("stopping");
                bot.signal("INT");
            }
            bot.expect(&format!(
                "supplied {count}, finished 0, abandoned {lost:?}, confirmed None"
            ));
            bot.expect_success();
        }
    }
}

/// Names the entry point that the child calls, and tells it that it is one.
const ENTRY: &str = "RUNNER_SIGNAL_TEST_ENTRY";

/// How many updates the child gets.
const COUNT: &str = "RUNNER_SIGNAL_TEST_COUNT";

/// What the handlers of the child do.
const HANDLERS: &str = "RUNNER_SIGNAL_TEST_HANDLERS";

#[derive(Clone, Copy, Debug)]
enum Handlers {
    /// Wait for a line from the parent.
    Wait,
    /// Never let go of their threads.
    Block,
    /// Wait for a line that never comes, and the stop has a timeout.
    WaitWithTimeout,
    /// Never let go of their threads, and the stop has a timeout.
    BlockWithTimeout,
}

impl Handlers {
    const ALL: [Self; 4] = [
        Self::Wait,
        Self::Block,
        Self::WaitWithTimeout,
        Self::BlockWithTimeout,
    ];

    fn block(self) -> bool {
        matches!(self, Self::Block | Self::BlockWithTimeout)
    }

    fn have_stop_timeout(self) -> bool {
        matches!(self, Self::WaitWithTimeout | Self::BlockWithTimeout)
    }
}

/// The bot. The tests above start this one in a process of its own.
#[test]
fn child() {
    let Ok(entry) = env::var(ENTRY) else {
        // Run among all others, with nobody to talk to.
        return;
    };
    let (finish, finished) = oneshot::channel();
    thread::spawn(move || {
        let mut line = String::new();
        io::stdin().read_line(&mut line).unwrap();
        if line == "finish\n" {
            finish.send(()).unwrap();
        }
    });
    let handlers = env::var(HANDLERS).unwrap();
    let handlers = Handlers::ALL
        .into_iter()
        .find(|kind| format!("{kind:?}") == handlers)
        .unwrap();
    let count = env::var(COUNT).unwrap().parse().unwrap();
    let finished = Mutex::new(Some(finished));
    let api = FakeApi::of_ids(1..=count).on_request(|request| {
        // Not the request that only confirms.
        if request.offset.is_some() && !request.timeout.is_zero() {
            say("polling");
        }
    });
    let bot = Bot::for_each(api, move |update: Delivery<i64>| {
        let finished = finished.lock().unwrap().take();
        async move {
            say("handling");
            // One of them, and not on a thread that may be blocked. With a timeout, the report may come
            // before.
            if *update == 1 && !handlers.have_stop_timeout() {
                thread::spawn(move || {
                    while !update.is_stopping() {
                        thread::sleep(Duration::from_millis(1));
                    }
                    say("stopping");
                });
            }
            if handlers.block() {
                loop {
                    thread::park();
                }
            }
            finished.unwrap().await.unwrap();
            say("handled");
        }
    });
    let bot = match handlers.have_stop_timeout() {
        true => bot.stop_timeout(Duration::from_millis(200)),
        false => bot,
    };
    let result = match &*entry {
        "tokio::run" => runner::tokio::run(bot),
        "tokio::serve" => {
            let runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = { runtime }.enable_all().build().unwrap();
            // As a task, so that it must be `Send`.
            runtime.block_on(async { tokio::spawn(runner::tokio::serve(bot)).await.unwrap() })
        }
        "smol::run" => runner::smol::run(bot),
        "smol::serve" => futures::executor::block_on(runner::smol::serve(bot)),
        "smol::serve_on" => {
            let executor = Arc::new(Executor::new());
            let served = executor.spawn({
                let executor = Arc::clone(&executor);
                async move { runner::smol::serve_on(&executor, bot).await }
            });
            futures::executor::block_on(executor.run(served))
        }
        other => panic!("no entry point is called {other}"),
    };
    let report = result.unwrap();
    let abandoned: Vec<(i64, bool, Fate)> = report
        .abandoned
        .iter()
        .map(|left| (*left.update, left.started, left.fate))
        .collect();
    let confirmed = match report.confirmation {
        // Assumed, if the machine was so slow that the poll was under way for a second.
        Confirmation::Confirmed { position } | Confirmation::Assumed { position } => Some(position),
        _ => None,
    };
    let Counters {
        supplied, finished, ..
    } = report.counters;
    say(&format!(
        "supplied {supplied}, finished {finished}, abandoned {abandoned:?}, confirmed {confirmed:?}"
    ));
}

/// Marks what the child says among what the test harness prints.
const MARK: &str = "child: ";

fn say(text: &str) {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{MARK}{text}").unwrap();
    stdout.flush().unwrap();
}

/// The child, seen from its parent.
struct ChildBot {
    process: Child,
    stdin: ChildStdin,
    said: mpsc::Receiver<String>,
}

impl ChildBot {
    fn start(entry: &str) -> Self {
        Self::start_with(entry, Handlers::Wait, 1)
    }

    /// Starts it and waits until it handles all its updates and polls for more.
    fn start_with(entry: &str, handlers: Handlers, count: usize) -> Self {
        let mut process = Command::new(env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env(ENTRY, entry)
            .env(HANDLERS, format!("{handlers:?}"))
            .env(COUNT, count.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (say, said) = mpsc::channel();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        thread::spawn(move || {
            for line in stdout.lines() {
                if let Some((_, text)) = line.unwrap().split_once(MARK) {
                    let _ = say.send(text.to_owned());
                }
            }
        });
        let bot = Self {
            stdin: process.stdin.take().unwrap(),
            process,
            said,
        };
        let mut said: Vec<_> = (0..=count).map(|_| bot.next()).collect();
        said.sort();
        assert_eq!(said.pop().as_deref(), Some("polling"));
        assert!(said.iter().all(|line| line == "handling"), "{said:?}");
        bot
    }

    fn expect(&self, text: &str) {
        assert_eq!(self.next(), text);
    }

    /// What the child says next.
    fn next(&self) -> String {
        // So long only for a child that hangs.
        let said = self.said.recv_timeout(Duration::from_secs(60));
        said.expect("the child says something")
    }

    fn signal(&self, name: &str) {
        // Part of every shell, while `kill` as a program is not everywhere.
        let kill = format!("kill -{name} {}", self.process.id());
        let status = Command::new("sh").args(["-c", &kill]).status().unwrap();
        assert!(status.success());
    }

    fn expect_success(mut self) {
        assert!(self.process.wait().unwrap().success());
        assert!(self.said.recv().is_err(), "the child said more");
    }
}

impl Drop for ChildBot {
    fn drop(&mut self) {
        // Of a test that has failed; one that has passed has no child any more.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
