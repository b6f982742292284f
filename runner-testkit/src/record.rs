//! What a server has seen: [`Call`], [`Poll`], and [`Snapshot`] for the state it is in.

use std::time::Instant;

use crate::{fault::Fault, params::Params};

/// A call of a method other than getUpdates that was carried out.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Call {
    /// The number of the call, from 0.
    pub index: u64,
    /// The method as it was spelled.
    pub method: String,
    /// What was sent with it.
    pub params: Params,
    /// When it was carried out.
    pub at: Instant,
    /// The number of the connection on which it came, from 1.
    pub connection: u64,
    /// Whether it came by the path of the test environment.
    pub is_test: bool,
    /// What went wrong with the answer.
    pub fault: Option<Fault>,
    /// The id of the message that it sent, if it was a `sendMessage` that succeeded.
    pub message_id: Option<i64>,
}

impl Call {
    /// Whether this is a call of the method, in any case of letters.
    #[must_use]
    pub fn is(&self, method: &str) -> bool {
        self.method.eq_ignore_ascii_case(method)
    }

    /// The parameter `chat_id`, if it is a number.
    #[must_use]
    pub fn chat_id(&self) -> Option<i64> {
        self.params.integer("chat_id")
    }

    /// The parameter `text`.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        self.params.get("text")
    }
}

/// One getUpdates.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Poll {
    /// The number of the poll, from 0.
    pub index: u64,
    /// What was sent with it, neither clamped nor corrected.
    pub params: Params,
    /// When it arrived.
    pub at: Instant,
    /// The number of the connection on which it came, from 1.
    pub connection: u64,
    /// Whether it came by the path of the test environment.
    pub is_test: bool,
    /// What became of it, and when; `None` while it waits.
    pub answer: Option<(PollAnswer, Instant)>,
    /// What went wrong, before or after it was carried out.
    pub fault: Option<Fault>,
}

/// What became of a getUpdates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PollAnswer {
    /// It was answered with so many updates.
    Updates(usize),
    /// It was refused with this status.
    Refused(u16),
    /// It was never carried out, because of a fault.
    Dropped,
    /// The server ended while it waited.
    Cut,
}

/// How many connections there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Connections {
    /// Accepted since the server began.
    pub opened: u64,
    /// Closed by neither side. That a client has closed is noticed within some 10 ms while a call
    /// waits, and at once otherwise.
    pub open: usize,
}

/// The state of a server at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Updates that are queued: not confirmed, or expired and not yet read past.
    pub pending: usize,
    /// The latest offset that was valid and confirmed something: every update below it is forgotten.
    pub confirmed_offset: Option<i64>,
    /// The id of the next update.
    pub next_update_id: i64,
    /// Whether a getUpdates waits.
    pub is_polled: bool,
    /// Calls carried out, getUpdates not among them.
    pub calls: u64,
    /// Calls of getUpdates, those included that a fault kept from being carried out.
    pub polls: u64,
    /// How many connections there are.
    pub connections: Connections,
}
