//! The processes of a measurement, and how they are spoken to.

use std::{
    collections::HashMap,
    env,
    error::Error,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use crate::order::{Client, On, Order, Who, Work};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// A server to which bots connect.
pub(crate) struct Server {
    process: Process,
    url: String,
    token: String,
}

impl Server {
    pub(crate) fn start() -> Outcome<Self> {
        let mut process = Process::start("server", &[])?;
        let line = process.line()?;
        let (url, token) = line.trim().split_once(' ').ok_or("the server is not up")?;
        Ok(Self {
            process,
            url: url.into(),
            token: token.into(),
        })
    }

    /// Has something done; returns when it is.
    pub(crate) fn tell(&mut self, command: &str) -> Outcome<Answer> {
        self.process.tell(command)
    }

    /// Starts a bot.
    pub(crate) fn bot(
        &self,
        who: Who,
        (on, client): (On, Client),
        work: Work,
        count: u64,
        concurrency: usize,
    ) -> Outcome<Process> {
        let order = Order {
            who,
            on,
            client,
            work,
            count,
            concurrency,
            url: self.url.clone(),
            token: self.token.clone(),
        };
        Process::start("bot", &order.args())
    }
}

/// A process of the same program, ended when this is dropped.
pub(crate) struct Process {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Process {
    fn start(role: &str, args: &[String]) -> Outcome<Self> {
        let program: PathBuf = env::current_exe()?;
        let mut child = Command::new(program)
            .arg(role)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take().ok_or("no stdin")?;
        let stdout = BufReader::new(child.stdout.take().ok_or("no stdout")?);
        Ok(Self {
            child,
            stdin,
            stdout,
        })
    }

    /// Asks, and waits for the answer.
    pub(crate) fn tell(&mut self, command: &str) -> Outcome<Answer> {
        writeln!(self.stdin, "{command}")?;
        self.answer()
    }

    /// Waits for what it says without being asked.
    pub(crate) fn answer(&mut self) -> Outcome<Answer> {
        let line = self.line()?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut values = HashMap::new();
        for pair in words.chunks_exact(2) {
            values.insert(pair[0].to_owned(), pair[1].parse()?);
        }
        Ok(Answer(values))
    }

    fn line(&mut self) -> Outcome<String> {
        let mut line = String::new();
        match self.stdout.read_line(&mut line)? {
            0 => Err("a process has ended too early".into()),
            _ => Ok(line),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Named numbers.
pub(crate) struct Answer(HashMap<String, f64>);

impl Answer {
    pub(crate) fn of(&self, name: &str) -> Outcome<f64> {
        let value = self.0.get(name).copied();
        value.ok_or_else(|| format!("no {name} was told").into())
    }
}
