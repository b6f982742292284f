//! Where a request goes, and how what is said about it is kept free of the token.

use std::{error::Error, fmt};

#[cfg(all(feature = "hyper", not(feature = "ureq")))]
use ::hyper::http::Uri;
#[cfg(feature = "ureq")]
use ::ureq::http::Uri;

use super::{HttpError, HttpErrorKind};

/// A URL that can be used.
pub(super) struct Target {
    pub(super) uri: Uri,
    /// The scheme and the authority: requests with the same can share a connection.
    pub(super) origin: String,
}

impl Target {
    /// # Errors
    ///
    /// [`HttpErrorKind::InvalidUrl`], without a cause: it would repeat the URL.
    pub(super) fn new(url: &str) -> Result<Self, HttpError> {
        let invalid = || HttpError::new(HttpErrorKind::InvalidUrl);
        let uri: Uri = url.parse().map_err(|_| invalid())?;
        let authority = uri.authority().ok_or_else(invalid)?;
        let scheme = uri.scheme_str().unwrap_or_default();
        if !matches!(scheme, "http" | "https") {
            return Err(invalid());
        }
        // The parser accepts any text as the port.
        let has_port = authority.as_str().ends_with(authority.host());
        if authority.host().is_empty() || !has_port && authority.port_u16().is_none() {
            return Err(invalid());
        }
        Ok(Self {
            origin: format!("{scheme}://{authority}"),
            uri,
        })
    }

    /// Whether it must be reached through TLS.
    #[cfg(feature = "hyper")]
    pub(super) fn is_secure(&self) -> bool {
        is_secure(&self.uri)
    }

    /// Adds as the cause what `error` says, unless it repeats a part of the path, which contains
    /// the token.
    pub(super) fn explain(&self, kind: HttpErrorKind, error: impl fmt::Display) -> HttpError {
        let text = error.to_string();
        let path = self.uri.path();
        let mut parts = path.split('/').filter(|part| part.len() >= MIN_SECRET);
        if parts.any(|part| text.contains(part)) {
            HttpError::new(kind)
        } else {
            HttpError::new(kind).with_source(Cause(text))
        }
    }
}

/// The host without the brackets of an IPv6 address, and the port.
pub(super) fn host_and_port(uri: &Uri) -> (&str, u16) {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let port = uri.port_u16();
    (host, port.unwrap_or(if is_secure(uri) { 443 } else { 80 }))
}

/// Whether it must be reached through TLS.
pub(super) fn is_secure(uri: &Uri) -> bool {
    uri.scheme_str() == Some("https")
}

/// What of `text` a header can hold.
pub(super) fn header_text(text: &str) -> String {
    text.chars().filter(|c| matches!(c, ' '..='~')).collect()
}

/// What an error says, as text: its fields may hold more than it says.
struct Cause(String);

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Cause {}

/// Parts of a path shorter than this hold no token.
const MIN_SECRET: usize = 8;
