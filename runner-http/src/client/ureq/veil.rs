//! Keeps the token from everything that `ureq` says: [`Veil`].
//!
//! `ureq` logs the URL of a request at level `trace`, and `ureq-proto` every byte that it writes,
//! through the `log` crate, where no library can stop it. So they are given a URL whose path is
//! nothing but stars, as long as the real one, and the real one takes its place in the buffer
//! that is handed to the connection.

use std::{
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ureq::{
    Error,
    http::Uri,
    unversioned::transport::{
        Buffers, ConnectionDetails, Connector, DefaultConnector, NextTimeout, Transport,
    },
};

/// What the next request of an agent asks for in truth. An agent carries one request at a time.
#[derive(Clone, Default)]
pub(super) struct Veil(Arc<Mutex<Option<String>>>);

impl Veil {
    /// Keeps the path and the query, and returns the URL without them.
    pub(super) fn cover(&self, uri: &Uri) -> Result<Uri, Error> {
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let mut parts = uri.clone().into_parts();
        let stars = stars(path.len());
        parts.path_and_query = stars.parse().ok();
        let covered = Uri::from_parts(parts);
        *self.lock() = Some(path.to_owned());
        covered.map_err(|error| Error::Http(error.into()))
    }

    fn take(&self) -> Option<String> {
        self.lock().take()
    }

    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A path of this length that says nothing.
fn stars(length: usize) -> String {
    let mut path = "*".repeat(length);
    path.replace_range(..1, "/");
    path
}

/// Makes the connections of `ureq`, and lifts the veil where they are written to.
pub(super) struct VeilConnector {
    inner: DefaultConnector,
    veil: Veil,
}

impl VeilConnector {
    pub(super) fn new(veil: Veil) -> Self {
        Self {
            inner: DefaultConnector::new(),
            veil,
        }
    }
}

impl Connector for VeilConnector {
    type Out = VeilTransport;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<()>,
    ) -> Result<Option<VeilTransport>, Error> {
        let inner = self.inner.connect(details, chained)?;
        Ok(inner.map(|inner| VeilTransport {
            inner,
            veil: self.veil.clone(),
        }))
    }
}

impl fmt::Debug for VeilConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// One connection, before encryption.
pub(super) struct VeilTransport {
    inner: Box<dyn Transport>,
    veil: Veil,
}

impl Transport for VeilTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        // Only the first write of a request has its line.
        if let Some(path) = self.veil.take() {
            let line = &mut self.inner.buffers().output()[..amount];
            lift(line, &path).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        }
        self.inner.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

impl fmt::Debug for VeilTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

const METHOD: &[u8] = b"POST ";

/// Puts `path` where its stars are. None if they are not there: what is sent would be wrong.
fn lift(line: &mut [u8], path: &str) -> Option<()> {
    let (method, target) = line.split_at_mut_checked(METHOD.len())?;
    let (place, rest) = target.split_at_mut_checked(path.len())?;
    if method != METHOD
        || place != stars(path.len()).as_bytes()
        || !rest.starts_with(b" HTTP/1.1\r\n")
    {
        return None;
    }
    place.copy_from_slice(path.as_bytes());
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_covered_url_keeps_its_origin_and_its_length() {
        let veil = Veil::default();
        for path in ["/", "/bot1:secret/getMe", "/a?b=c"] {
            let url: Uri = format!("http://127.0.0.1:8081{path}").parse().unwrap();
            let covered = veil.cover(&url).unwrap();
            assert_eq!(covered.authority(), url.authority());
            assert_eq!(covered.scheme(), url.scheme());
            assert_eq!(covered.to_string().len(), url.to_string().len());
            assert!(path == "/" || !covered.path().contains(&path[1..]));
            assert_eq!(veil.take().as_deref(), Some(path));
        }
        let bare: Uri = "http://127.0.0.1".parse().unwrap();
        assert_eq!(veil.cover(&bare).unwrap(), "http://127.0.0.1/");
    }

    #[test]
    fn the_path_takes_the_place_of_its_stars_and_of_nothing_else() {
        let mut line = b"POST /***** HTTP/1.1\r\nHost: x\r\n".to_vec();
        lift(&mut line, "/bot:a").unwrap();
        assert_eq!(line, b"POST /bot:a HTTP/1.1\r\nHost: x\r\n");
        for (line, path) in [
            (&b"POST /bot:a HTTP/1.1\r\n"[..], "/bot:b"),
            (b"POST /***** HTTP/1.1\r\n", "/bot"),
            (b"POST /***** HTTP/1.1\r\n", "/bot:secret"),
            (b"POST /***", "/bot:a"),
            (b"GET /***** HTTP/1.1\r\n", "/bot:a"),
            (br#"{"text":"a"}"#, "/bot:a"),
        ] {
            let mut sent = line.to_vec();
            assert_eq!(lift(&mut sent, path), None);
            assert_eq!(sent, line, "nothing was changed");
        }
    }
}
