//! Updates from somewhere else than the Bot API: the lines of a file, at least once.
//!
//! ```sh
//! cargo run --example file_supplier                # a file of its own, of 1,000 lines
//! cargo run --example file_supplier -- some.log
//! ```
//!
//! The supplier reads lines on demand and notes in `close` how far the run got. The first run is
//! stopped after 600 lines; the second one continues there and ends with the file. Expect that every
//! line is handled, and that the bookmark is at the end.

use std::{
    env,
    error::Error,
    fs::{self, File},
    io::{self, BufRead, BufReader, Seek, SeekFrom},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use futures::{channel::mpsc, executor::block_on};
use runner::{Closing, Confirmation, Delivery, Runner, SinkOptions, UpdateSupplier, smol::Smol};

/// How many bytes have been handled, kept over restarts. In real life a file or a row.
pub(crate) type Bookmark = Arc<Mutex<u64>>;

pub(crate) struct Lines<R = BufReader<File>> {
    reader: R,
    bookmark: Bookmark,
    /// Where the run began, and where each line that it has supplied ends.
    begin: u64,
    ends: Vec<u64>,
    /// What has been read of the next line.
    line: Vec<u8>,
    /// The reader is elsewhere, because the last run has ended.
    moved: bool,
    exhausted: bool,
}

impl Lines {
    pub(crate) fn open(path: &Path, bookmark: Bookmark) -> io::Result<Self> {
        Ok(Self::new(BufReader::new(File::open(path)?), bookmark))
    }
}

impl<R: BufRead + Seek> Lines<R> {
    pub(crate) fn new(reader: R, bookmark: Bookmark) -> Self {
        let begin = *bookmark.lock().expect("nobody panics with it");
        Self {
            reader,
            bookmark,
            begin,
            ends: Vec::new(),
            line: Vec::new(),
            moved: true,
            exhausted: false,
        }
    }

    /// The next line; `None` at the end. After an error, what was read of it is still there.
    fn next(&mut self) -> io::Result<Option<String>> {
        if self.moved {
            self.reader.seek(SeekFrom::Start(self.begin))?;
            self.moved = false;
        }
        self.reader.read_until(b'\n', &mut self.line)?;
        if self.line.is_empty() {
            return Ok(None);
        }
        let start = self.ends.last().copied().unwrap_or(self.begin);
        self.ends.push(start + self.line.len() as u64);
        // A line that is not UTF-8 is still a line.
        let line = String::from_utf8_lossy(&self.line);
        let line = line.trim_end_matches(['\r', '\n']).to_owned();
        self.line.clear();
        Ok(Some(line))
    }
}

impl<R: BufRead + Seek + Send + 'static> UpdateSupplier for Lines<R> {
    type Update = String;
    type Error = io::Error;

    async fn supply(&mut self, limit: NonZeroUsize) -> io::Result<Vec<String>> {
        // Nothing here waits, so there is no point at which dropping the call could lose a line.
        let mut batch = Vec::new();
        while batch.len() < limit.get() && !self.exhausted {
            match self.next() {
                Ok(Some(line)) => batch.push(line),
                Ok(None) => self.exhausted = true,
                Err(error) if batch.is_empty() => return Err(error),
                // First what was read already. The next call meets the error again.
                Err(_) => break,
            }
        }
        Ok(batch)
    }

    fn is_exhausted(&self) -> bool {
        self.exhausted
    }

    async fn close(&mut self, settled_prefix: usize) -> io::Result<Closing> {
        // Back to the first line that is not settled: it comes again, at least once.
        if let Some(last) = settled_prefix.checked_sub(1) {
            self.begin = self.ends[last];
        }
        self.ends.clear();
        self.line.clear();
        self.moved = true;
        self.exhausted = false;
        *self.bookmark.lock().expect("nobody panics with it") = self.begin;
        let confirmation = Confirmation::Confirmed {
            position: i64::try_from(self.begin).expect("a file is smaller than that"),
        };
        Ok(Closing::new(confirmation).redelivers_from(settled_prefix))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let given = env::args_os().nth(1).map(PathBuf::from);
    let path = match &given {
        Some(path) => path.clone(),
        None => write_lines(1_000)?,
    };
    let bookmark = Bookmark::default();
    let lines = Lines::open(&path, Arc::clone(&bookmark))?;
    let handled = Arc::new(AtomicU64::new(0));
    let (enough, stops) = mpsc::unbounded();
    let handler = async |(handled, enough): (Arc<AtomicU64>, mpsc::UnboundedSender<()>),
                         _line: Delivery<String>| {
        if handled.fetch_add(1, Ordering::Relaxed) + 1 == 600 {
            // It fails only if the first run is over.
            let _ = enough.unbounded_send(());
        }
    };
    let state = (Arc::clone(&handled), enough);
    // One line after the other, in the order of the file.
    let mut runner = Runner::for_each_with(Arc::new(Smol::new()), lines, state, handler)
        .sink(SinkOptions::sequential());

    let first = block_on(runner.run_until(stops))?;
    println!("first run: {}", first.end);
    let second = block_on(runner.run())?;
    println!("second run: {}", second.end);
    println!("{} lines handled", handled.load(Ordering::Relaxed));

    let position = *bookmark.lock().expect("nobody panics with it");
    assert_eq!(position, fs::metadata(&path)?.len());
    println!("the bookmark is at the end of the file");
    if given.is_none() {
        fs::remove_file(path)?;
    }
    Ok(())
}

fn write_lines(count: usize) -> io::Result<PathBuf> {
    let path = env::temp_dir().join(format!("runner-lines-{}", std::process::id()));
    let lines: String = (0..count).map(|line| format!("line {line}\n")).collect();
    fs::write(&path, lines)?;
    Ok(path)
}
