//! A body as it arrives: decompressed, and never larger than allowed.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::write::MultiGzDecoder;

use crate::client::{HttpError, HttpErrorKind};

/// Collects a body.
pub(super) enum Gunzip {
    Plain(Bounded),
    Gzip(Box<MultiGzDecoder<Bounded>>),
}

impl Gunzip {
    /// Collects in `bytes`, over what is left in them. `limit` is how many there may be, after decompression.
    pub(super) fn new(is_gzip: bool, mut bytes: Vec<u8>, limit: usize) -> Self {
        bytes.clear();
        let content = Bounded {
            bytes,
            limit,
            is_exceeded: false,
        };
        if is_gzip {
            Self::Gzip(Box::new(MultiGzDecoder::new(content)))
        } else {
            Self::Plain(content)
        }
    }

    /// # Errors
    ///
    /// [`HttpErrorKind::TooLarge`] or [`HttpErrorKind::Malformed`].
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), HttpError> {
        let outcome = match self {
            Self::Plain(content) => content.write_all(bytes),
            Self::Gzip(decoder) => decoder.write_all(bytes),
        };
        outcome.map_err(|error| self.explain(error))
    }

    /// # Errors
    ///
    /// The same, also if the compressed body was cut.
    pub(super) fn finish(mut self) -> Result<Bytes, HttpError> {
        if let Self::Gzip(decoder) = &mut self
            && let Err(error) = decoder.try_finish()
        {
            return Err(self.explain(error));
        }
        let content = match &mut self {
            Self::Plain(content) => content,
            Self::Gzip(decoder) => decoder.get_mut(),
        };
        Ok(std::mem::take(&mut content.bytes).into())
    }

    fn explain(&self, error: io::Error) -> HttpError {
        let content = match self {
            Self::Plain(content) => content,
            Self::Gzip(decoder) => decoder.get_ref(),
        };
        if content.is_exceeded {
            HttpError::new(HttpErrorKind::TooLarge)
        } else {
            HttpError::new(HttpErrorKind::Malformed).with_source(error)
        }
    }
}

/// A buffer that refuses to grow beyond its limit.
pub(super) struct Bounded {
    bytes: Vec<u8>,
    limit: usize,
    is_exceeded: bool,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.limit - self.bytes.len() {
            self.is_exceeded = true;
            return Err(io::Error::other("too large"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
