//! What an answer may cost: [`Limits`], and what is said when it costs more.

use std::{error::Error, fmt, time::Duration};

/// How long the parts of one call may take, and how large its answer may be.
///
/// Set by [`BotApi::limits`](crate::BotApi::limits):
///
/// ```
/// # use std::time::Duration;
/// # use runner_http::Limits;
/// let limits = Limits::default()
///     .answer(Duration::from_secs(60))
///     .max_body(64 << 20);
/// ```
///
/// # Answers that exceed a limit
///
/// An answer that a limit refuses is not confirmed, so no update is lost. But the same request would
/// get the same answer again. So:
///
/// - After a body beyond [`max_body`](Self::max_body), or one that was not complete within
///   [`body`](Self::body) or within the runner's own deadline, the next polls ask for half as many
///   updates, down to one. They ask for more again when the updates that were refused have come, when
///   full answers come quickly, or when no update is waiting.
/// - An update nested deeper than [`max_depth`](Self::max_depth) goes to the error policy as
///   undecodable, with its bytes. The others of its batch are handled.
/// - If an answer has more updates than were asked for, the surplus is left out and comes again.
///   Beyond [`max_updates`](Self::max_updates) the answer is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// For resolving the name, connecting, the handshake with a proxy and the one of TLS, each. Default: 10 s.
    pub connect: Duration,
    /// From the request to the head of the answer. Default: 30 s, well above the 8 s that the Bot
    /// API may hold a call back (flood limits); a poll adds its own timeout.
    pub answer: Duration,
    /// For the whole body after the head. Default: 30 s.
    ///
    /// The runner ends a poll that takes longer than the timeout and the margin of its
    /// `FetchOptions`, 45 s by default. If a single update can take longer than that, raise both this
    /// and the margin.
    pub body: Duration,
    /// The largest body that is read, in bytes, after decompression. Default: 16 MiB; an answer of
    /// the Bot API is cut at about 4 MiB.
    pub max_body: usize,
    /// How deep arrays and objects may be nested in an update, or in the result of a call; the
    /// outermost is the first level. Default: 100. The updates of the Bot API have about ten, and
    /// `serde_json` decodes none with more than 127.
    pub max_depth: usize,
    /// How many updates one answer may have; no poll asks for more. Default: 10 000, a hundred times
    /// what the Bot API sends.
    pub max_updates: usize,
}

impl Limits {
    /// Sets [`connect`](Self::connect).
    #[must_use]
    pub const fn connect(mut self, connect: Duration) -> Self {
        self.connect = connect;
        self
    }

    /// Sets [`answer`](Self::answer).
    #[must_use]
    pub const fn answer(mut self, answer: Duration) -> Self {
        self.answer = answer;
        self
    }

    /// Sets [`body`](Self::body).
    #[must_use]
    pub const fn body(mut self, body: Duration) -> Self {
        self.body = body;
        self
    }

    /// Sets [`max_body`](Self::max_body).
    #[must_use]
    pub const fn max_body(mut self, bytes: usize) -> Self {
        self.max_body = bytes;
        self
    }

    /// Sets [`max_depth`](Self::max_depth).
    #[must_use]
    pub const fn max_depth(mut self, levels: usize) -> Self {
        self.max_depth = levels;
        self
    }

    /// Sets [`max_updates`](Self::max_updates). Zero counts as one.
    #[must_use]
    pub const fn max_updates(mut self, updates: usize) -> Self {
        self.max_updates = updates;
        self
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(30),
            body: Duration::from_secs(30),
            max_body: 16 << 20,
            max_depth: 100,
            max_updates: 10_000,
        }
    }
}

/// Which of the [`Limits`] an answer was beyond.
///
/// The reason of [`ApiError::Limit`](crate::ApiError::Limit), and the source of the
/// [`DecodeError`](crate::DecodeError) of an update that is nested too deep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LimitError {
    /// The body is larger than [`Limits::max_body`].
    #[non_exhaustive]
    Body {
        /// What was allowed, in bytes.
        max: usize,
    },
    /// An update, or the result of a call, is nested deeper than [`Limits::max_depth`].
    #[non_exhaustive]
    Depth {
        /// What was allowed.
        max: usize,
    },
    /// There are more updates than [`Limits::max_updates`].
    #[non_exhaustive]
    Updates {
        /// What was allowed.
        max: usize,
    },
}

impl fmt::Display for LimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Body { max } => write!(
                f,
                "the answer is larger than {max} bytes; if it has to be, raise Limits::max_body"
            ),
            Self::Depth { max } => write!(
                f,
                "the answer is nested deeper than {max} levels; if it has to be, raise Limits::max_depth"
            ),
            Self::Updates { max } => write!(
                f,
                "the answer has more than {max} updates; if it has to, raise Limits::max_updates"
            ),
        }
    }
}

impl Error for LimitError {}
