//! A test in a process of its own, seen from both sides.
//!
//! What it is told stands in its environment and then on its standard input, whose end it waits
//! for; so it ends with its parent, too. What it finds out it prints as `found name=number …`, and what
//! it has allocated as `allocated number`, once a second.

use std::{
    collections::BTreeMap,
    env,
    fmt::Display,
    io::{BufRead, BufReader, Write, stdin},
    panic,
    process::{Child as Process, ChildStdin, Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use runner::{
    Runtime,
    http::{HyperClient, UreqClient},
};

use crate::{
    in_flight, soak,
    usage::{Usage, allocated},
};

/// What is to be done, and where: a client and a runtime.
const TASK: &str = "RUNNER_LOAD_TASK";
const PLACE: &str = "RUNNER_LOAD_PLACE";

/// Does what the environment asks for, if anything.
pub(crate) fn main() {
    let Ok(task) = env::var(TASK) else {
        // Run among all others, with nobody to talk to.
        return;
    };
    let loud = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if panic.payload_as_str() != Some(ASKED_FOR) {
            loud(panic);
        }
    }));
    let place = env::var(PLACE).unwrap();
    let (client, runtime) = place.split_once("_on_").expect("a client on a runtime");
    let tokio = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let runtime: Arc<dyn Runtime> = match runtime {
        "tokio" => Arc::new(runner::tokio::Tokio::new(tokio.handle().clone())),
        "smol" => Arc::new(runner::smol::Smol::new()),
        other => panic!("no runtime is called {other}"),
    };
    match (&*task, client) {
        ("soak", "ureq") => soak::bot::run(runtime, UreqClient::new()),
        ("soak", "hyper") => soak::bot::run(runtime, HyperClient::new()),
        ("in_flight", _) => in_flight::run(&runtime),
        other => panic!("nobody does {other:?}"),
    }
}

/// What handlers panic with that are to panic.
pub(crate) const ASKED_FOR: &str = "this handler is to panic";

/// Waits for the parent's word, a number.
pub(crate) fn told() -> usize {
    let mut line = String::new();
    stdin().read_line(&mut line).unwrap();
    line.trim().parse().expect("a number")
}

/// Says what was found out.
pub(crate) fn found<const N: usize>(numbers: [(&str, u64); N]) {
    // A line of its own: the test runner is about to write something as well.
    print!("\nfound");
    for (name, number) in numbers {
        print!(" {name}={number}");
    }
    println!();
}

/// Says once a second how many bytes are allocated.
pub(crate) fn tell_allocated() {
    thread::spawn(|| {
        loop {
            thread::sleep(Duration::from_secs(1));
            println!("\nallocated {}", allocated());
        }
    });
}

/// What a process has found out.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) numbers: BTreeMap<String, u64>,
    /// Bytes allocated, once a second.
    pub(crate) allocated: Vec<u64>,
}

/// The process, seen from its parent.
pub(crate) struct Child {
    process: Process,
    input: Option<ChildStdin>,
}

impl Child {
    /// Starts a task at a place.
    pub(crate) fn start<const N: usize>(
        task: &str,
        place: &str,
        told: [(&str, &dyn Display); N],
    ) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        command
            .args(["--exact", "child", "--nocapture"])
            .env(TASK, task)
            .env(PLACE, place);
        for (name, value) in told {
            command.env(name, value.to_string());
        }
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let input = process.stdin.take();
        Self { process, input }
    }

    pub(crate) fn usage(&self) -> Usage {
        Usage::of(&self.process.id().to_string())
    }

    /// Tells it a number.
    pub(crate) fn tell(&mut self, number: usize) {
        let mut input = self.input.take().expect("it is told once");
        writeln!(input, "{number}").unwrap();
    }

    /// Waits for its end and gives what it has found out.
    pub(crate) fn end(mut self) -> Found {
        let output = BufReader::new(self.process.stdout.take().unwrap());
        let mut found = Found::default();
        let mut rest = String::new();
        for line in output.lines().map(Result::unwrap) {
            if let Some(bytes) = line.strip_prefix("allocated ") {
                found.allocated.push(bytes.parse().unwrap());
            } else if let Some(numbers) = line.strip_prefix("found ") {
                found.numbers.extend(numbers.split(' ').map(|number| {
                    let (name, number) = number.split_once('=').unwrap();
                    (name.to_owned(), number.parse().unwrap())
                }));
            } else {
                rest = rest + &line + "\n";
            }
        }
        assert!(self.process.wait().unwrap().success(), "{rest}");
        found
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Of a test that has failed; one that has passed has no child any more.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
