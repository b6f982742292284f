//! One update as it was fetched: [`Incoming`].

use std::{error::Error, fmt};

use bytes::Bytes;
use runner_core::BoxError;
use serde::de::DeserializeOwned;

use crate::{
    Header, LimitError, Limits, UpdateKind,
    error::json_fault,
    header::Scan,
    outline::Outline,
    scan::Scanner,
    walk::{Walked, walk},
};

/// One update as it was fetched: its id, what it is about, and its JSON, not yet decoded.
///
/// Keys and the error policy see this. A clone is cheap: the JSON is shared with the rest of its
/// batch.
#[derive(Clone)]
pub struct Incoming {
    id: i64,
    header: Header,
    raw: Bytes,
    content: Content,
}

/// What is known of the content of an update.
#[derive(Clone, Copy)]
enum Content {
    /// It is valid, and this is what is decoded of it.
    Outlined(Outline),
    /// It is unusual, so decoding tells.
    Unknown,
    /// It may not be decoded.
    Refused(LimitError),
    /// It cannot be decoded: its id is missing, and assumed.
    WithoutId,
}

impl Incoming {
    /// Scans one update that was fetched in another way: from a queue, a file, a test.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if it has no readable `update_id`. Anything else that may be wrong with it
    /// shows when it is decoded, nesting beyond the default [`Limits`] among it.
    pub fn from_json(raw: impl Into<Bytes>) -> Result<Self, DecodeError> {
        let raw = raw.into();
        let max_depth = Limits::default().max_depth;
        let incoming = match walk(&raw, false) {
            Some(walked) if Scanner::new(&raw[walked.end..]).is_at_end() => {
                Self::walked(walked, raw, max_depth)
            }
            _ => {
                let mut scan = Scan::default();
                // Where the structure is lost the scan ends, and what was found before it stays.
                let levels = scan.read(&mut Scanner::new(&raw)).unwrap_or_default();
                Self::scanned(scan, raw, levels, max_depth)
            }
        };
        if !incoming.is_id_assumed() {
            return Ok(incoming);
        }
        let Header { kind, .. } = incoming.header;
        Err(DecodeError::new(None, kind, incoming.raw.len(), NO_ID))
    }

    /// An update of which everything is known.
    pub(crate) fn walked(walked: Walked, raw: Bytes, max_depth: usize) -> Self {
        let content = Content::Outlined(walked.outline);
        Self::new(walked.scan, raw, content, walked.levels, max_depth)
    }

    /// An update that is unusual.
    pub(crate) fn scanned(scan: Scan, raw: Bytes, levels: usize, max_depth: usize) -> Self {
        Self::new(scan, raw, Content::Unknown, levels, max_depth)
    }

    fn new(scan: Scan, raw: Bytes, content: Content, levels: usize, max_depth: usize) -> Self {
        let content = match too_deep(levels, max_depth) {
            _ if scan.id.is_none() => Content::WithoutId,
            Some(limit) => Content::Refused(limit),
            None => content,
        };
        Self {
            id: scan.id.unwrap_or_default(),
            header: scan.into_header(),
            raw,
            content,
        }
    }

    /// Sets the id of an update whose own cannot be read.
    pub(crate) fn assume_id(&mut self, id: i64) {
        self.id = id;
    }

    /// The `update_id`.
    #[must_use]
    pub fn id(&self) -> i64 {
        self.id
    }

    /// Whether the update's own id could not be read, and [`id`](Self::id) is the lowest that it can
    /// have at its place. Such an update cannot be decoded.
    #[must_use]
    pub fn is_id_assumed(&self) -> bool {
        matches!(self.content, Content::WithoutId)
    }

    /// What is known before decoding.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What the update is about.
    #[must_use]
    pub fn kind(&self) -> &UpdateKind {
        &self.header.kind
    }

    /// The chat it happened in, see [`Header::chat`].
    #[must_use]
    pub fn chat_id(&self) -> Option<i64> {
        self.header.chat
    }

    /// Who caused it; `None` if it was somebody on behalf of a chat. See [`Header::user`].
    #[must_use]
    pub fn user_id(&self) -> Option<i64> {
        self.header.user
    }

    /// The JSON of the update as it was received; not necessarily valid.
    #[must_use]
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// Decodes the update as `T`, which is the whole object with its `update_id`.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the JSON is not a `T`, or nested deeper than
    /// [`Limits::max_depth`].
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        self.check()?;
        serde_json::from_slice(&self.raw).map_err(|error| self.error(json_fault(&error, None)))
    }

    /// Whether it may be decoded.
    pub(crate) fn check(&self) -> Result<(), DecodeError> {
        match self.content {
            Content::WithoutId => Err(self.error(NO_ID)),
            Content::Refused(limit) => Err(self.error(limit)),
            Content::Outlined(_) | Content::Unknown => Ok(()),
        }
    }

    /// What is decoded of it, unless it is unusual.
    pub(crate) fn outline(&self) -> Option<Outline> {
        match self.content {
            Content::Outlined(outline) => Some(outline),
            _ => None,
        }
    }

    pub(crate) fn error(&self, source: impl Into<BoxError>) -> DecodeError {
        DecodeError::new(
            Some(self.id),
            self.header.kind.clone(),
            self.raw.len(),
            source,
        )
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming")
            .field("id", &self.id)
            .field("kind", &self.header.kind)
            .field("chat", &self.header.chat)
            .field("user", &self.header.user)
            .field("bytes", &self.raw.len())
            .finish_non_exhaustive()
    }
}

/// Why one update could not be decoded.
///
/// Its text names the update and not its content; its source says where the JSON is wrong and may
/// quote a little of it. The bytes are in [`Incoming::raw`].
#[derive(Debug)]
pub struct DecodeError {
    id: Option<i64>,
    kind: UpdateKind,
    bytes: usize,
    source: BoxError,
}

impl DecodeError {
    pub(crate) fn new(
        id: Option<i64>,
        kind: UpdateKind,
        bytes: usize,
        source: impl Into<BoxError>,
    ) -> Self {
        Self {
            id,
            kind,
            bytes,
            source: source.into(),
        }
    }

    /// The update's id, if it has one.
    #[must_use]
    pub fn id(&self) -> Option<i64> {
        self.id
    }

    /// What the update is about.
    #[must_use]
    pub fn kind(&self) -> &UpdateKind {
        &self.kind
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind.as_str() {
            "" => "no kind",
            kind => kind,
        };
        match self.id {
            Some(id) => write!(f, "update {id}")?,
            None => f.write_str("an update without an id")?,
        }
        write!(f, " cannot be decoded ({kind}, {} bytes)", self.bytes)
    }
}

impl Error for DecodeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}

/// The limit, if an update with so many levels is beyond it.
pub(crate) fn too_deep(levels: usize, max: usize) -> Option<LimitError> {
    (levels > max).then_some(LimitError::Depth { max })
}

const NO_ID: &str = "the update_id is missing or not a valid number";
