//! A bot whose server cannot be reached says so, although nobody has set up a log.
//!
//! Parent and child talk over pipes. Nobody waits for a time to pass, but for a line.
#![cfg(unix)]

use std::{
    env,
    io::{BufRead, BufReader, Read},
    net::{Ipv4Addr, TcpListener},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use runner::{Bot, BotApi, Delivery, Update};

#[test]
fn tokio_run_says_on_stderr_that_nothing_can_be_fetched() {
    says_on_stderr_that_nothing_can_be_fetched("tokio");
}

#[test]
fn smol_run_says_on_stderr_that_nothing_can_be_fetched() {
    says_on_stderr_that_nothing_can_be_fetched("smol");
}

#[test]
fn tokio_run_leaves_it_to_a_subscriber() {
    leaves_it_to_a_subscriber("tokio");
}

#[test]
fn smol_run_leaves_it_to_a_subscriber() {
    leaves_it_to_a_subscriber("smol");
}

fn says_on_stderr_that_nothing_can_be_fetched(runtime: &str) {
    let mut child = Running::start(runtime, "");
    let said = child.next_on_stderr();
    assert!(said.contains("updates cannot be fetched"), "{said}");
    assert!(said.contains("refused"), "{said}");
    child.interrupt();
    let said = child.next_on_stderr();
    assert!(said.contains("calls failed"), "{said}");
    assert!(said.contains("refused"), "{said}");
    let (stdout, stderr) = child.end();
    assert!(stdout.contains("0 updates in"), "{stdout}");
    // Once at first and once at the end.
    assert_eq!(stderr, [""; 0]);
}

fn leaves_it_to_a_subscriber(runtime: &str) {
    let mut child = Running::start(runtime, "subscriber");
    // The subscriber writes to stdout.
    let mut line = String::new();
    while !line.contains("updates cannot be fetched") {
        line.clear();
        assert_ne!(child.stdout.read_line(&mut line).unwrap(), 0);
    }
    child.interrupt();
    let (stdout, stderr) = child.end();
    assert!(stdout.contains("0 updates in"), "{stdout}");
    assert_eq!(stderr, [""; 0]);
}

/// Names the runtime that the child runs on, and tells it that it is one.
const RUNTIME: &str = "RUNNER_FIRST_MINUTE_RUNTIME";

/// Whether the child sets up a log.
const LOG: &str = "RUNNER_FIRST_MINUTE_LOG";

/// The bot. The tests above start this one in a process of its own.
#[test]
fn child() {
    let Ok(runtime) = env::var(RUNTIME) else {
        // Run among all others, with nobody to talk to.
        return;
    };
    if env::var(LOG).unwrap() == "subscriber" {
        tracing_subscriber::fmt().init();
    }
    // Nobody listens there once it is dropped.
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .unwrap();
    let api = BotApi::new(format!("123456789:{}", "a".repeat(35)))
        .unwrap()
        .base_url(format!("http://{address}"))
        .unwrap();
    let bot = Bot::for_each(api, async |_: Delivery<Update>| {});
    let report = match &*runtime {
        "tokio" => runner::tokio::run(bot),
        "smol" => runner::smol::run(bot),
        other => panic!("no runtime is called {other}"),
    };
    println!("{}", report.unwrap());
}

/// The child, seen from its parent.
struct Running {
    process: Child,
    stdout: BufReader<std::process::ChildStdout>,
    stderr: mpsc::Receiver<String>,
}

impl Running {
    fn start(runtime: &str, log: &str) -> Self {
        let mut process = Command::new(env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env(RUNTIME, runtime)
            .env(LOG, log)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (say, said) = mpsc::channel();
        let stderr = BufReader::new(process.stderr.take().unwrap());
        thread::spawn(move || {
            for line in stderr.lines() {
                let line = line.unwrap();
                // Not what the test harness says.
                if line.starts_with("runner: ") {
                    let _ = say.send(line);
                }
            }
        });
        Self {
            stdout: BufReader::new(process.stdout.take().unwrap()),
            process,
            stderr: said,
        }
    }

    fn next_on_stderr(&self) -> String {
        // So long only for a child that says nothing.
        let said = self.stderr.recv_timeout(Duration::from_secs(60));
        said.expect("the child says something")
    }

    fn interrupt(&self) {
        // Part of every shell, while `kill` as a program is not everywhere.
        let kill = format!("kill -INT {}", self.process.id());
        let status = Command::new("sh").args(["-c", &kill]).status().unwrap();
        assert!(status.success());
    }

    /// What it says from now to its end.
    fn end(&mut self) -> (String, Vec<String>) {
        let mut stdout = String::new();
        self.stdout.read_to_string(&mut stdout).unwrap();
        assert!(self.process.wait().unwrap().success(), "{stdout}");
        (stdout, self.stderr.iter().collect())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Of a test that has failed; one that has passed has no child any more.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
