//! Updates from somewhere else than the Bot API: the lines of a file, at least once.
//!
//! ```sh
//! cargo run --example file_supplier                # a file of its own, of 1,000 lines
//! cargo run --example file_supplier -- some.log
//! ```
//!
//! The supplier reads lines on demand and notes in `close` how far the run got. The first run is
//! stopped once 600 lines are handled; the second one goes on where that one ended. Expect that every
//! line is handled, and that the bookmark is at the last one.

use std::{
    env,
    error::Error,
    fs::File,
    io::{self, BufRead, BufReader, Write},
    num::NonZeroUsize,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::executor::block_on;
use runner::{Closing, Confirmation, Delivery, Runner, UpdateSupplier, smol::Smol};

/// How many lines have been handled, kept over restarts. In real life a file or a row.
pub(crate) type Bookmark = Arc<Mutex<usize>>;

pub(crate) struct Lines {
    lines: io::Lines<BufReader<File>>,
    /// Where this run began.
    begin: usize,
    bookmark: Bookmark,
}

impl Lines {
    pub(crate) fn open(path: &PathBuf, bookmark: Bookmark) -> io::Result<Self> {
        let begin = *bookmark.lock().expect("nobody panics with it");
        let mut lines = BufReader::new(File::open(path)?).lines();
        for line in lines.by_ref().take(begin) {
            line?;
        }
        Ok(Self {
            lines,
            begin,
            bookmark,
        })
    }
}

impl UpdateSupplier for Lines {
    type Update = String;
    type Error = io::Error;

    async fn supply(&mut self, limit: NonZeroUsize) -> io::Result<Vec<String>> {
        // Nothing here waits, so there is no point at which dropping the call could lose a line.
        let batch: Vec<_> = self
            .lines
            .by_ref()
            .take(limit.get())
            .collect::<Result<_, _>>()?;
        if batch.is_empty() {
            // The end of the file: wait for ever, as a poll without messages does. The run goes on
            // until it is stopped.
            std::future::pending::<()>().await;
        }
        Ok(batch)
    }

    async fn close(&mut self, settled_prefix: usize) -> io::Result<Closing> {
        // What is behind the first gap comes again: at least once.
        let position = self.begin + settled_prefix;
        *self.bookmark.lock().expect("nobody panics with it") = position;
        let confirmation = Confirmation::Confirmed {
            position: i64::try_from(position).expect("fewer lines than that"),
        };
        Ok(Closing::new(confirmation).redelivers_from(settled_prefix))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let (path, is_ours) = match env::args_os().nth(1) {
        Some(path) => (PathBuf::from(path), false),
        None => (write_lines(1_000)?, true),
    };
    let total = BufReader::new(File::open(&path)?).lines().count();
    let bookmark = Bookmark::default();
    let handled = Arc::new(AtomicU64::new(0));

    for until in [600, total] {
        let lines = Lines::open(&path, Arc::clone(&bookmark))?;
        let count = Arc::clone(&handled);
        let handler = async |count: Arc<AtomicU64>, _line: Delivery<String>| {
            count.fetch_add(1, Ordering::Relaxed);
        };
        let handle = Runner::for_each_with(Arc::new(Smol::new()), lines, count, handler).start();
        while handled.load(Ordering::Relaxed) < until.min(total) as u64 {
            std::thread::sleep(Duration::from_millis(1));
        }
        let report = block_on(handle.stop())?;
        assert_eq!(report.counters.finished, report.counters.supplied);
    }

    let position = *bookmark.lock().expect("nobody panics with it");
    println!(
        "{} lines handled in two runs",
        handled.load(Ordering::Relaxed)
    );
    println!("the bookmark is at line {position}");
    if is_ours {
        std::fs::remove_file(path)?;
    }
    Ok(())
}

fn write_lines(count: usize) -> io::Result<PathBuf> {
    let path = env::temp_dir().join(format!("runner-lines-{}", std::process::id()));
    let mut file = io::BufWriter::new(File::create(&path)?);
    for line in 0..count {
        writeln!(file, "line {line}")?;
    }
    file.flush()?;
    Ok(path)
}
