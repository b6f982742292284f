//! What is logged on this thread.
//!
//! One subscriber for the whole process: with one per thread, `tracing` may remember of a place in the
//! code that nobody listens, if another test comes by it first. A simulation stays on its thread, so
//! every test still sees its own events only.

use std::{
    cell::RefCell,
    fmt::{Debug, Write},
    sync::{
        Once,
        atomic::{AtomicU64, Ordering},
    },
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

/// One event.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) level: Level,
    pub(crate) target: &'static str,
    pub(crate) message: String,
    /// As `name=value`, with a space behind each.
    pub(crate) fields: String,
    /// The spans around it, as `name{fields}`, the outer one first.
    pub(crate) spans: Vec<String>,
}

/// What handlers in tests log under.
pub(crate) const HANDLER: &str = "handler";

thread_local! {
    static LINES: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
    /// Those that are open, with their texts.
    static SPANS: RefCell<Vec<(u64, String)>> = const { RefCell::new(Vec::new()) };
    /// Those that are entered.
    static ENTERED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// Listens from now on, and forgets what this thread has logged before.
pub(crate) fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing::subscriber::set_global_default(Listener).expect("there is no other one");
    });
    LINES.with_borrow_mut(Vec::clear);
}

/// How many spans are open on this thread.
pub(crate) fn open_spans() -> usize {
    SPANS.with_borrow(Vec::len)
}

/// What this thread has logged since.
pub(crate) fn lines() -> Vec<Line> {
    LINES.with_borrow(Clone::clone)
}

struct Listener;

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        target.starts_with("runner_core") || target == HANDLER
    }

    fn new_span(&self, span: &span::Attributes<'_>) -> span::Id {
        static IDS: AtomicU64 = AtomicU64::new(1);
        let id = IDS.fetch_add(1, Ordering::Relaxed);
        let mut line = Line::of(span.metadata());
        span.record(&mut line);
        let text = format!("{}{{{}}}", span.metadata().name(), line.fields.trim_end());
        SPANS.with_borrow_mut(|spans| spans.push((id, text)));
        span::Id::from_u64(id)
    }

    fn try_close(&self, id: span::Id) -> bool {
        SPANS.with_borrow_mut(|spans| spans.retain(|(open, _)| *open != id.into_u64()));
        true
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::of(event.metadata());
        let name = |id: &u64| {
            let open = SPANS.with_borrow(|spans| spans.iter().find(|span| span.0 == *id).cloned());
            open.map_or_else(|| "closed".to_owned(), |(_, text)| text)
        };
        line.spans = ENTERED.with_borrow(|entered| entered.iter().map(name).collect());
        event.record(&mut line);
        LINES.with_borrow_mut(|lines| lines.push(line));
    }

    fn enter(&self, id: &span::Id) {
        ENTERED.with_borrow_mut(|entered| entered.push(id.into_u64()));
    }

    fn exit(&self, id: &span::Id) {
        let last = ENTERED.with_borrow_mut(Vec::pop);
        assert_eq!(last, Some(id.into_u64()), "spans are left in order");
    }
}

impl Line {
    fn of(metadata: &Metadata<'static>) -> Self {
        Self {
            level: *metadata.level(),
            target: metadata.target(),
            message: String::new(),
            fields: String::new(),
            spans: Vec::new(),
        }
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, "{name}={value:?} "),
        };
    }
}
