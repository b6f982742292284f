//! A body as it arrives: decompressed, and never larger than allowed.

use std::{
    io::{self, Write},
    mem,
};

use bytes::Bytes;
use flate2::write::MultiGzDecoder;

use crate::client::{HttpError, HttpErrorKind};

/// Whether a body is compressed, by its `Content-Encoding`. A name that is not known is passed over: what
/// comes then is shown as it is.
pub(super) fn is_gzip(encoding: Option<&[u8]>) -> bool {
    let names = encoding.unwrap_or_default().split(|byte| *byte == b',');
    names
        .map(<[u8]>::trim_ascii)
        .any(|name| name.eq_ignore_ascii_case(b"gzip") || name.eq_ignore_ascii_case(b"x-gzip"))
}

/// Collects a body.
pub(super) struct Gunzip {
    body: Body,
    /// Of an answer that is no success, the status counts more than the body.
    is_optional: bool,
}

enum Body {
    Plain(Bounded),
    /// Nothing was received yet.
    Empty(Bounded),
    Gzip(Box<MultiGzDecoder<Bounded>>),
    /// It cannot be decompressed, and need not be.
    Unreadable,
}

impl Gunzip {
    /// Collects in `bytes`, over what is left in them. `limit` is how many there may be, after
    /// decompression.
    pub(super) fn new(is_gzip: bool, status: u16, mut bytes: Vec<u8>, limit: usize) -> Self {
        bytes.clear();
        let content = Bounded {
            bytes,
            limit,
            is_exceeded: false,
        };
        Self {
            body: if is_gzip {
                Body::Empty(content)
            } else {
                Body::Plain(content)
            },
            is_optional: !(200..300).contains(&status),
        }
    }

    /// # Errors
    ///
    /// [`HttpErrorKind::TooLarge`] or [`HttpErrorKind::Malformed`].
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), HttpError> {
        if matches!(self.body, Body::Empty(_))
            && !bytes.is_empty()
            && let Body::Empty(content) = mem::replace(&mut self.body, Body::Unreadable)
        {
            self.body = Body::Gzip(Box::new(MultiGzDecoder::new(content)));
        }
        let outcome = match &mut self.body {
            Body::Plain(content) => content.write_all(bytes),
            Body::Gzip(decoder) => decoder.write_all(bytes),
            Body::Empty(_) | Body::Unreadable => Ok(()),
        };
        outcome.or_else(|error| self.explain(error))
    }

    /// # Errors
    ///
    /// The same, also if the compressed body was cut.
    pub(super) fn finish(mut self) -> Result<Bytes, HttpError> {
        if let Body::Gzip(decoder) = &mut self.body
            && let Err(error) = decoder.try_finish()
        {
            self.explain(error)?;
        }
        Ok(match &mut self.body {
            Body::Plain(content) | Body::Empty(content) => mem::take(&mut content.bytes).into(),
            Body::Gzip(decoder) => mem::take(&mut decoder.get_mut().bytes).into(),
            Body::Unreadable => Bytes::new(),
        })
    }

    fn explain(&mut self, error: io::Error) -> Result<(), HttpError> {
        let is_exceeded = match &self.body {
            Body::Plain(content) | Body::Empty(content) => content.is_exceeded,
            Body::Gzip(decoder) => decoder.get_ref().is_exceeded,
            Body::Unreadable => false,
        };
        if is_exceeded {
            return Err(HttpError::new(HttpErrorKind::TooLarge));
        }
        if self.is_optional {
            self.body = Body::Unreadable;
            return Ok(());
        }
        Err(HttpError::new(HttpErrorKind::Malformed).with_source(error))
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
