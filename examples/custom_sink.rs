//! A custom sink: it writes messages to a file in bulk, and a failing write is retried.
//!
//! ```sh
//! cargo run --example custom_sink
//! ```
//!
//! A bot polls a local Bot API server that has 150 messages. The sink gets them in groups of 50 and
//! writes each group at once. The second write fails, and the policy retries its rows. Expect every
//! message in the file once, in order.
//!
//! With `SinkOptions::batch()` the bot fetches the next messages after these are written. So none is lost
//! even if the process is killed. The last ones may come twice, with the same ids.

use std::{
    collections::HashSet,
    error::Error,
    fs::{self, File},
    io::{self, Write},
    num::NonZeroUsize,
    path::Path,
    time::Duration,
};

use runner::{Bot, BotApi, Failure, Incoming, Lease, SinkOptions, Update, UpdateSink, Verdict};
use runner_testkit::LocalServer;

struct Rows {
    file: File,
    writes: u32,
}

impl Rows {
    /// A real sink would await an `INSERT` of many rows. Writing a few KiB does not take long.
    fn write(&mut self, rows: &[u8]) -> io::Result<()> {
        self.writes += 1;
        if self.writes == 2 {
            return Err(io::Error::other("the disk is full, say"));
        }
        self.file.write_all(rows)?;
        self.file.sync_data()
    }
}

impl UpdateSink<Update> for Rows {
    type Error = io::Error;

    async fn handle(&mut self, group: Vec<Lease<Update>>) -> io::Result<()> {
        let mut rows = Vec::new();
        for update in &group {
            let text = update.text().unwrap_or_default();
            writeln!(rows, "{},{text}", update.id())?;
        }
        // On an error the leases are dropped, and every update of the group fails with it.
        if let Err(error) = self.write(&rows) {
            println!("write {}: {error}", self.writes);
            return Err(error);
        }
        println!("write {}: {} rows", self.writes, group.len());
        for lease in group {
            lease.finish();
        }
        Ok(())
    }

    fn max_group(&self) -> NonZeroUsize {
        const { NonZeroUsize::new(50).unwrap() }
    }

    // Lets the retried rows come together. It ends early when nothing else can come.
    fn linger(&self) -> Duration {
        Duration::from_secs(60)
    }
}

fn try_again(failure: Failure<Incoming>) -> Verdict {
    match failure.update.attempt().get() {
        ..3 => Verdict::Retry {
            after: Duration::from_millis(20),
        },
        _ => Verdict::Skip,
    }
}

/// How many rows there are, and whether they are in order, each once.
fn read(path: &Path) -> Result<(usize, bool), Box<dyn Error>> {
    let text = fs::read_to_string(path)?;
    let mut numbers = Vec::new();
    let mut ids = HashSet::new();
    for row in text.lines() {
        let (id, message) = row.split_once(',').ok_or("half a row")?;
        ids.insert(id.to_owned());
        numbers.push(message.parse::<usize>()?);
    }
    let in_order = numbers.iter().copied().eq(1..=numbers.len());
    Ok((numbers.len(), in_order && ids.len() == numbers.len()))
}

fn main() -> Result<(), Box<dyn Error>> {
    let server = LocalServer::start()?;
    for number in 1..=150 {
        server.push_message(number % 7 + 1, 7, &number.to_string());
    }
    let path = std::env::temp_dir().join(format!("custom_sink.{}.csv", std::process::id()));
    let rows = Rows {
        file: File::create(&path)?,
        writes: 0,
    };
    let api = BotApi::new(server.token())?.base_url(server.url())?;
    let bot = Bot::with_sink(api, rows)
        .sink(SinkOptions::batch())
        // By default messages of the same chat would be in different groups.
        .unordered()
        .policy(try_again);

    let report = runner::tokio::run_with(bot, |handle| {
        std::thread::spawn(move || {
            while handle.stats().counters.settled() < 150 {
                std::thread::sleep(Duration::from_millis(5));
            }
            drop(handle.stop());
        });
    });
    let read = read(&path);
    fs::remove_file(&path)?;
    let counters = report?.counters;
    println!(
        "{} finished, {} attempts repeated",
        counters.finished, counters.retried
    );
    let (rows, each_once) = read?;
    println!("{rows} rows in the file, in order, each once: {each_once}");
    Ok(())
}
