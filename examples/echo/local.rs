//! A local Bot API server, its traffic, and a line that says how the bot is doing.

use std::{
    error::Error,
    io::{IsTerminal, Write, stdout},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use runner::{BotApi, Incoming, RunnerHandle};
use runner_testkit::{LocalServer, Traffic};

use crate::{
    bot,
    latency::{Latency, Reply},
    options::Options,
};

/// How many chats write.
const CHATS: u32 = 400;

/// How often updates are pushed, a few at a time, as they arrive at a busy bot.
const TICK: Duration = Duration::from_millis(10);

/// How long the bot has to handle what was pushed last.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs the bot against a local server until the traffic is over.
pub(crate) fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let server = Arc::new(LocalServer::start()?);
    let api = BotApi::new(server.token())?.base_url(server.url())?;
    println!(
        "{} chats send {} updates per second for {:?} to a local server, the bot runs on {}",
        CHATS,
        options.rate,
        options.span,
        format!("{:?}", options.runtime).to_lowercase(),
    );
    let over = Arc::new(AtomicBool::new(false));
    let mut watching = None;
    let result = {
        let (server, over) = (Arc::clone(&server), Arc::clone(&over));
        let (span, rate) = (options.span, options.rate);
        let watching = &mut watching;
        crate::run(options.runtime, bot::echo(api), move |handle| {
            let demo = Demo {
                server,
                handle,
                over,
            };
            *watching = Some(thread::spawn(move || demo.run(span, rate)));
        })
    };
    // After Ctrl-C, too.
    over.store(true, Ordering::Relaxed);
    let outcome = watching.map(|thread| thread.join().expect("the watcher does not panic"));
    println!("{}", result?);
    let Some(Outcome {
        latency,
        is_complete,
    }) = outcome
    else {
        return Ok(());
    };
    println!(
        "{} replies, {} missing, {} sent twice",
        latency.replies(),
        latency.missing(),
        latency.twice
    );
    // When it was interrupted, what had not been fetched is left for the next run.
    if (is_complete && latency.missing() > 0) || latency.twice > 0 {
        return Err("not every message got its one reply".into());
    }
    Ok(())
}

/// What feeds and watches a bot.
struct Demo {
    server: Arc<LocalServer>,
    handle: RunnerHandle<Incoming>,
    /// The bot has ended.
    over: Arc<AtomicBool>,
}

struct Outcome {
    latency: Latency,
    /// Everything was pushed and fetched before the bot ended.
    is_complete: bool,
}

impl Demo {
    /// Feeds for `span`, waits until all of it is fetched, and stops the bot.
    fn run(self, span: Duration, rate: u32) -> Outcome {
        let mut traffic = Traffic::new(1).chats(CHATS);
        let mut latency = Latency::default();
        let mut progress = Progress::new();
        let began = Instant::now();
        let mut pushed = 0;
        let mut seen = 0;
        let mut poison = Some(began + span / 2);
        let fed = loop {
            if self.over.load(Ordering::Relaxed) {
                break false;
            }
            let elapsed = began.elapsed();
            if elapsed >= span {
                break true;
            }
            let due = (elapsed.as_secs_f64() * f64::from(rate)) as u64;
            while pushed < due {
                if let Some(update) = traffic.next() {
                    let expected = Reply::expected(&update);
                    let at = Instant::now();
                    let accepted = self.server.push_raw(update.kind, &update.body);
                    if let (Some(reply), Some(_)) = (expected, accepted) {
                        latency.pushed(reply, at);
                    }
                }
                pushed += 1;
            }
            if poison.take_if(|at| *at <= Instant::now()).is_some() {
                let update = Traffic::undecodable();
                self.server.push_raw(update.kind, &update.body);
            }
            self.note_replies(&mut seen, &mut latency);
            progress.show(&self.handle, &mut latency, began.elapsed());
            thread::sleep(TICK);
        };
        let over = &self.over;
        let fetched = fed
            && self.server.wait_until(
                |state| state.pending == 0 || over.load(Ordering::Relaxed),
                PATIENCE,
            );
        let is_complete = fetched && !self.over.load(Ordering::Relaxed);
        // Takes effect at the call; `run` returns the report.
        drop(self.handle.stop());
        while !self.over.load(Ordering::Relaxed) {
            thread::sleep(TICK);
        }
        self.note_replies(&mut seen, &mut latency);
        progress.end(&self.handle, &mut latency, began.elapsed());
        Outcome {
            latency,
            is_complete,
        }
    }

    fn note_replies(&self, seen: &mut u64, latency: &mut Latency) {
        for call in self.server.calls_since(*seen) {
            if let Some(reply) = Reply::of(&call) {
                latency.replied(&reply, call.at);
            }
            *seen = call.index + 1;
        }
    }
}

/// One line that is written anew on a terminal, and one line a second elsewhere.
struct Progress {
    is_terminal: bool,
    shown: Instant,
    settled: u64,
}

impl Progress {
    fn new() -> Self {
        Self {
            is_terminal: stdout().is_terminal(),
            shown: Instant::now(),
            settled: 0,
        }
    }

    fn show(&mut self, handle: &RunnerHandle<Incoming>, latency: &mut Latency, elapsed: Duration) {
        let every = match self.is_terminal {
            true => Duration::from_millis(250),
            false => Duration::from_secs(1),
        };
        let since = self.shown.elapsed();
        if since >= every {
            self.write(handle, latency, elapsed, since);
        }
    }

    fn end(&mut self, handle: &RunnerHandle<Incoming>, latency: &mut Latency, elapsed: Duration) {
        let since = self.shown.elapsed();
        self.write(handle, latency, elapsed, since);
        if self.is_terminal {
            println!();
        }
    }

    fn write(
        &mut self,
        handle: &RunnerHandle<Incoming>,
        latency: &mut Latency,
        elapsed: Duration,
        since: Duration,
    ) {
        let stats = handle.stats();
        let settled = stats.counters.settled();
        let rate = (settled - self.settled) as f64 / since.as_secs_f64();
        let line = format!(
            "{:5.1} s | handled {settled:6} | in flight {:3} | {rate:6.0}/s | push to reply p50 {:.1?}, p99 {:.1?}",
            elapsed.as_secs_f64(),
            stats.in_flight,
            latency.percentile(50),
            latency.percentile(99),
        );
        if self.is_terminal {
            print!("\r{line:<100}");
            let _ = stdout().flush();
        } else {
            println!("{line}");
        }
        self.settled = settled;
        self.shown = Instant::now();
    }
}
