//! The local Bot API server in a process of its own: feeds a bot as it is told, and measures from the
//! arrival of an update to the reply to it.

use std::{
    error::Error,
    io::{BufRead, stdin},
    thread,
    time::{Duration, Instant},
};

use benches::process;
use runner_testkit::{Fault, FaultRule, LocalServer, Traffic, TrafficUpdate};

use crate::bot::{HOT, HOT_CHAT};

/// How many chats write, where the load is steady.
const CHATS: u64 = 1000;

/// How many chats write beside the one under a flood, one message a second each.
const OTHERS: u64 = 50;

/// What comes first is not counted: connections are opened, threads started, caches filled.
const WARM_UP: Duration = Duration::from_millis(300);

/// How long replies may take.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let server = LocalServer::builder().unbounded_queue().start()?;
    println!("{} {}", server.url(), server.token());
    for command in stdin().lock().lines() {
        let command = command?;
        let mut words = command.split(' ');
        let name = words.next().unwrap_or_default();
        let numbers = words.map(str::parse).collect::<Result<Vec<u64>, _>>()?;
        match (name, numbers.as_slice()) {
            ("fill", [count]) => {
                fill(&server, *count);
                println!();
            }
            ("delay", [millis]) => {
                let delay = Fault::Delay(Duration::from_millis(*millis));
                server.add_fault(FaultRule::new(delay).method("getUpdates"));
                println!();
            }
            ("steady", [rate, millis]) => steady(&server, *rate, *millis)?,
            ("hot", [count]) => hot(&server, *count)?,
            ("usage", []) => println!("cpu {}", process::cpu_time().as_secs_f64()),
            ("settle", []) => {
                settle(&server)?;
                println!();
            }
            _ => return Err(format!("cannot {command}").into()),
        }
    }
    Ok(())
}

/// Queues this many lifelike updates, of the kinds that a bot gets by default.
fn fill(server: &LocalServer, count: u64) {
    let is_usual = |update: &TrafficUpdate| !UNUSUAL.contains(&update.kind);
    let updates: Vec<TrafficUpdate> = Traffic::new(7).filter(is_usual).take(5_000).collect();
    let mut left = count as usize;
    while left > 0 {
        let more = &updates[..left.min(updates.len())];
        let ids = server.push_batch(more.iter().map(|update| (update.kind, &*update.body)));
        assert!(ids.iter().all(Option::is_some), "the server takes all");
        left -= more.len();
    }
}

/// What a bot gets only if it asks for it.
const UNUSUAL: [&str; 3] = ["chat_member", "message_reaction", "message_reaction_count"];

/// Pushes messages at an even pace.
fn steady(server: &LocalServer, rate: u64, millis: u64) -> Result<(), Box<dyn Error>> {
    let mut pushed = Pushed::new(server);
    let count = rate * millis / 1000;
    let period = Duration::from_secs(1) / u32::try_from(rate)?;
    let began = Instant::now();
    for number in 0..count {
        sleep_until(began + period * u32::try_from(number)?);
        pushed.push(2 + (number % CHATS) as i64);
    }
    pushed.tell(began + WARM_UP)
}

/// Pushes a flood into one chat at once, and messages at an even pace into others.
fn hot(server: &LocalServer, count: u64) -> Result<(), Box<dyn Error>> {
    let mut pushed = Pushed::new(server);
    let began = Instant::now();
    for _ in 0..count {
        server.push_message(HOT_CHAT, 7, "hurry").ok_or("refused")?;
    }
    let period = Duration::from_secs(1) / u32::try_from(OTHERS)?;
    for number in 0..u32::MAX {
        let at = period * number;
        if at >= HOT * u32::try_from(count)? {
            break;
        }
        sleep_until(began + at);
        pushed.push(HOT_CHAT + 1 + i64::from(number) % OTHERS as i64);
    }
    pushed.tell(began)
}

/// Waits until all is handled and the last answer confirmed, by a poll that has been waiting for so
/// long that no stop will have doubts.
fn settle(server: &LocalServer) -> Result<(), Box<dyn Error>> {
    let is_settled = server.wait_until(|state| state.is_polled && state.pending == 0, PATIENCE);
    if !is_settled {
        return Err("the bot does not poll".into());
    }
    thread::sleep(Duration::from_millis(1_200));
    Ok(())
}

fn sleep_until(at: Instant) {
    thread::sleep(at.saturating_duration_since(Instant::now()));
}

/// When each message was pushed; its text is its number.
struct Pushed<'a> {
    server: &'a LocalServer,
    at: Vec<Instant>,
    calls: u64,
}

impl<'a> Pushed<'a> {
    fn new(server: &'a LocalServer) -> Self {
        server.forget_records();
        Self {
            server,
            at: Vec::new(),
            calls: server.snapshot().calls,
        }
    }

    fn push(&mut self, chat: i64) {
        let text = self.at.len().to_string();
        self.at.push(Instant::now());
        self.server
            .push_message(chat, chat, &text)
            .expect("messages are taken");
    }

    /// Waits for the replies, and prints how long they took.
    fn tell(self, from: Instant) -> Result<(), Box<dyn Error>> {
        let all = self.calls + self.at.len() as u64;
        if !self.server.wait_until(|state| state.calls >= all, PATIENCE) {
            return Err("replies are missing".into());
        }
        let mut taken = Vec::new();
        for call in self.server.calls_of("sendMessage") {
            let number: usize = call.text().ok_or("a reply without a text")?.parse()?;
            if self.at[number] >= from {
                taken.push((call.at - self.at[number]).as_secs_f64());
            }
        }
        taken.sort_by(f64::total_cmp);
        let percentile = |percent: usize| taken[(taken.len() * percent).div_ceil(100) - 1] * 1e3;
        println!(
            "p50 {} p99 {} max {} count {}",
            percentile(50),
            percentile(99),
            percentile(100),
            taken.len()
        );
        Ok(())
    }
}
