//! The program `bot-api-local`, as a child process.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "not every test that has a copy uses all of it"
)]

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

/// Only a test that fails waits for so long.
pub const SOON: Duration = Duration::from_secs(60);

pub struct Program {
    pub child: Child,
    pub input: Option<ChildStdin>,
    output: Receiver<String>,
}

impl Program {
    pub fn start(args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_bot-api-local"))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, output) = channel();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        thread::spawn(move || {
            lines
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        Self {
            input: child.stdin.take(),
            child,
            output,
        }
    }

    /// Starts it on a port of the system's choice; returns what it says about the environment of a
    /// bot: the base URL and the token.
    pub fn with_environment() -> (Self, String, String) {
        let program = Self::start(&[]);
        let line = program.line("export ");
        let value = |name: &str| {
            let (_, rest) = line.split_once(name).unwrap();
            rest.split(' ').next().unwrap().to_owned()
        };
        let (url, token) = (value("BOT_API_URL="), value("BOT_TOKEN="));
        (program, url, token)
    }

    pub fn type_line(&mut self, line: &str) {
        let input = self.input.as_mut().expect("the input is open");
        writeln!(input, "{line}").unwrap();
    }

    /// The next line that contains `part`.
    pub fn line(&self, part: &str) -> String {
        let mut passed = Vec::new();
        loop {
            let line = self.output.recv_timeout(SOON);
            let line = line.unwrap_or_else(|_| panic!("no {part:?} came, but {passed:?}"));
            if line.contains(part) {
                return line;
            }
            passed.push(line);
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}
