//! The supplier of the example `file_supplier` keeps the contract: others copy it.

#[allow(dead_code, reason = "its main function is checked by what it prints")]
#[path = "../file_supplier.rs"]
mod example;

use std::{
    fs,
    io::{self, BufReader, Cursor, Read, Seek, SeekFrom},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use example::{Bookmark, Lines};
use runner::{
    Delivery, EndReason, Fate, Runner, RunnerHandle, RuntimeExt, UpdateSupplier,
    testing::{SimRuntime, for_each_seed},
};

const SECOND: Duration = Duration::from_secs(1);

/// A file of its own, removed at the end.
struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str, content: impl AsRef<[u8]>) -> Self {
        let path = std::env::temp_dir().join(format!("runner-{name}-{}", std::process::id()));
        fs::write(&path, content).unwrap();
        Self(path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn numbered(count: usize) -> String {
    (0..count).map(|line| format!("line {line}\n")).collect()
}

type Handled = Arc<Mutex<Vec<String>>>;

/// Starts a runner over `lines`, with handlers that take `span`.
fn start(
    sim: &SimRuntime,
    lines: impl UpdateSupplier<Update = String>,
    span: Duration,
) -> (RunnerHandle<String>, Handled) {
    let handled = Handled::default();
    let state = (sim.clone(), Arc::clone(&handled), span);
    let handler = async |(sim, handled, span): (SimRuntime, Handled, Duration),
                         line: Delivery<String>| {
        sim.sleep(span).await;
        handled.lock().unwrap().push(line.to_string());
    };
    let handle = Runner::for_each_with(Arc::new(sim.clone()), lines, state, handler).start();
    (handle, handled)
}

fn sorted(handled: &Handled) -> Vec<String> {
    let mut lines = handled.lock().unwrap().clone();
    lines.sort_unstable_by_key(|line| line.trim_start_matches("line ").parse::<usize>().ok());
    lines
}

/// What a later process reads, from the bookmark on.
fn read_on(file: &Temporary, bookmark: &Bookmark) -> Vec<String> {
    let sim = SimRuntime::new(9);
    let lines = Lines::open(&file.0, Arc::clone(bookmark)).unwrap();
    let (handle, handled) = start(&sim, lines, Duration::ZERO);
    sim.advance(SECOND);
    sim.block_on(handle.stop()).unwrap();
    sorted(&handled)
}

#[test]
fn a_line_that_cannot_be_read_loses_no_other_line() {
    let mut content = numbered(100).into_bytes();
    let broken = numbered(50).len();
    content[broken] = 0xff;
    let file = Temporary::new("broken", content);
    let sim = SimRuntime::new(1);
    let lines = Lines::open(&file.0, Bookmark::default()).unwrap();
    let (handle, handled) = start(&sim, lines, Duration::ZERO);
    sim.advance(60 * SECOND);
    sim.block_on(handle.stop()).unwrap();
    assert_eq!(handled.lock().unwrap().len(), 100);
}

#[test]
fn a_bookmark_never_goes_back_when_the_same_runner_runs_again() {
    let file = Temporary::new("again", numbered(1_000));
    let bookmark = Bookmark::default();
    let sim = SimRuntime::new(1);
    let lines = Lines::open(&file.0, Arc::clone(&bookmark)).unwrap();
    let (handle, handled) = start(&sim, lines, Duration::ZERO);
    for _ in 0..3 {
        sim.advance(SECOND);
        sim.block_on(handle.stop()).unwrap();
        assert_eq!(handled.lock().unwrap().len(), 1_000);
        assert_eq!(read_on(&file, &bookmark), [""; 0]);
        handle.start().unwrap();
    }
}

#[test]
fn what_is_reported_as_redelivered_comes_again() {
    let file = Temporary::new("redelivered", numbered(500));
    let bookmark = Bookmark::default();
    let sim = SimRuntime::new(1);
    let lines = Lines::open(&file.0, Arc::clone(&bookmark)).unwrap();
    let (handle, handled) = start(&sim, lines, SECOND);
    sim.advance(SECOND / 2);
    let report = sim.block_on(handle.stop_within(Duration::ZERO)).unwrap();
    assert!(!report.abandoned.is_empty());
    assert!(
        report
            .abandoned
            .iter()
            .all(|it| it.fate == Fate::Redelivered)
    );
    // To the next run of this runner, and to another process.
    assert_eq!(read_on(&file, &bookmark).len(), 500);
    handle.start().unwrap();
    sim.advance(60 * SECOND);
    sim.block_on(handle.stop()).unwrap();
    let expected: Vec<_> = (0..500).map(|line| format!("line {line}")).collect();
    assert_eq!(sorted(&handled), expected);
}

/// Fails one read in four, wherever in a line that is.
struct Flaky {
    content: Cursor<Vec<u8>>,
    sim: SimRuntime,
}

impl Read for Flaky {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.sim.below(4) == 0 {
            return Err(io::Error::other("a disk that is about to fail"));
        }
        let most = buffer.len().min(1 + self.sim.below(30) as usize);
        self.content.read(&mut buffer[..most])
    }
}

impl Seek for Flaky {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.content.seek(to)
    }
}

#[test]
fn a_read_error_anywhere_loses_no_line_and_repeats_none() {
    for_each_seed(100, |sim| {
        let flaky = Flaky {
            content: Cursor::new(numbered(100).into_bytes()),
            sim: sim.clone(),
        };
        let lines = Lines::new(BufReader::new(flaky), Bookmark::default());
        let (handle, handled) = start(&sim, lines, Duration::ZERO);
        let report = sim.block_on(handle.stopped()).unwrap();
        assert_eq!(report.end, EndReason::SupplyEnded);
        let expected: Vec<_> = (0..100).map(|line| format!("line {line}")).collect();
        assert_eq!(sorted(&handled), expected);
    });
}

#[test]
fn a_last_line_without_a_line_break_and_an_empty_file_are_read_to_their_ends() {
    for (content, expected) in [("one\r\n\ntwo", &["one", "", "two"][..]), ("", &[])] {
        let sim = SimRuntime::new(1);
        let bookmark = Bookmark::default();
        let lines = Lines::new(Cursor::new(content), Arc::clone(&bookmark));
        let (handle, handled) = start(&sim, lines, Duration::ZERO);
        let report = sim.block_on(handle.stopped()).unwrap();
        assert_eq!(report.end, EndReason::SupplyEnded);
        let mut handled = handled.lock().unwrap().clone();
        handled.sort_unstable();
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        assert_eq!(handled, expected);
        assert_eq!(*bookmark.lock().unwrap(), content.len() as u64);
    }
}

#[test]
fn lines_that_are_appended_later_are_read_by_the_next_run() {
    let file = Temporary::new("appended", numbered(2));
    let sim = SimRuntime::new(1);
    let lines = Lines::open(&file.0, Bookmark::default()).unwrap();
    let (handle, handled) = start(&sim, lines, Duration::ZERO);
    sim.block_on(handle.stopped()).unwrap();
    fs::write(&file.0, numbered(3)).unwrap();
    handle.start().unwrap();
    sim.block_on(handle.stopped()).unwrap();
    assert_eq!(sorted(&handled), ["line 0", "line 1", "line 2"]);
}
