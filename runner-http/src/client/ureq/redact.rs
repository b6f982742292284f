//! Keeps the token from everything that `ureq` says: [`HiddenPath`].
//!
//! `ureq` logs the URL of a request at level `trace`, and `ureq-proto` every byte that it writes,
//! through the `log` crate, where no library can stop it. So they are given a URL whose path is
//! nothing but stars, as long as the real one, and the real one takes its place in the buffer
//! that is handed to the connection.
//!
//! That is also where the head of a request waits for its body, so that both leave at once: `ureq`
//! writes them one after the other, which would be two packets.

use std::{
    fmt, io, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ureq::{
    Error,
    http::Uri,
    unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport},
};

use super::connect::TcpTls;

/// What the next request of an agent asks for in truth. An agent carries one request at a time.
#[derive(Clone, Default)]
pub(super) struct HiddenPath(Arc<Mutex<Option<String>>>);

impl HiddenPath {
    /// Keeps the path and the query, and returns the URL without them.
    pub(super) fn hide(&self, uri: &Uri) -> Result<Uri, Error> {
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let mut parts = uri.clone().into_parts();
        let stars = stars(path.len());
        parts.path_and_query = stars.parse().ok();
        let redacted = Uri::from_parts(parts);
        *self.lock() = Some(path.to_owned());
        redacted.map_err(|error| Error::Http(error.into()))
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

/// Makes the connections of `ureq`, and restores the path where they are written to.
pub(super) struct RedactingConnector {
    inner: TcpTls,
    hidden: HiddenPath,
}

impl RedactingConnector {
    pub(super) fn new(inner: TcpTls, hidden: HiddenPath) -> Self {
        Self { inner, hidden }
    }
}

impl Connector for RedactingConnector {
    type Out = RedactingTransport;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<()>,
    ) -> Result<Option<RedactingTransport>, Error> {
        let inner = self.inner.connect(details, chained)?;
        Ok(inner.map(|inner| RedactingTransport {
            inner,
            hidden: self.hidden.clone(),
            head: Vec::new(),
        }))
    }
}

impl fmt::Debug for RedactingConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// One connection, before encryption.
pub(super) struct RedactingTransport {
    inner: Box<dyn Transport>,
    hidden: HiddenPath,
    /// Written by `ureq`, and not yet sent.
    head: Vec<u8>,
}

impl RedactingTransport {
    /// Sends the head that was kept, with the first `amount` bytes of the output behind it.
    fn send_head(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let mut whole = mem::take(&mut self.head);
        whole.extend_from_slice(&self.inner.buffers().output()[..amount]);
        let size = self.inner.buffers().output().len();
        for part in whole.chunks(size) {
            self.inner.buffers().output()[..part.len()].copy_from_slice(part);
            self.inner.transmit_output(part.len(), timeout)?;
        }
        Ok(())
    }
}

impl Transport for RedactingTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        // Only the first write of a request has its line.
        if let Some(path) = self.hidden.take() {
            let line = &mut self.inner.buffers().output()[..amount];
            restore(line, &path).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
            self.head = line.to_vec();
            return Ok(());
        }
        if self.head.is_empty() {
            self.inner.transmit_output(amount, timeout)
        } else {
            self.send_head(amount, timeout)
        }
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        if !self.head.is_empty() {
            // It has no body.
            self.send_head(0, timeout)?;
        }
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

impl fmt::Debug for RedactingTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

const METHOD: &[u8] = b"POST ";

/// Puts `path` where its stars are. None if they are not there: what is sent would be wrong.
fn restore(line: &mut [u8], path: &str) -> Option<()> {
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
    use std::mem::take;

    use ureq::unversioned::transport::LazyBuffers;

    use super::*;

    /// What left together is one entry.
    #[derive(Clone, Debug, Default)]
    struct Sent(Arc<Mutex<Vec<Vec<u8>>>>);

    #[derive(Debug)]
    struct Recorder {
        buffers: LazyBuffers,
        sent: Sent,
    }

    impl Transport for Recorder {
        fn buffers(&mut self) -> &mut dyn Buffers {
            &mut self.buffers
        }

        fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), Error> {
            let bytes = self.buffers.output()[..amount].to_vec();
            self.sent.0.lock().unwrap().push(bytes);
            Ok(())
        }

        fn await_input(&mut self, _: NextTimeout) -> Result<bool, Error> {
            Ok(true)
        }

        fn is_open(&mut self) -> bool {
            true
        }
    }

    const SIZE: usize = 64;

    #[test]
    fn a_head_leaves_with_what_follows_it_and_never_alone_unless_nothing_does() {
        let sent = Sent::default();
        let hidden = HiddenPath::default();
        let mut transport = RedactingTransport {
            inner: Box::new(Recorder {
                buffers: LazyBuffers::new(SIZE, SIZE),
                sent: sent.clone(),
            }),
            hidden: hidden.clone(),
            head: Vec::new(),
        };
        let mut write = |bytes: &[u8]| {
            transport.buffers().output()[..bytes.len()].copy_from_slice(bytes);
            let written = transport.transmit_output(bytes.len(), NextTimeout::default());
            written.unwrap();
            take(&mut *sent.0.lock().unwrap())
        };
        let (starred, head) = (
            &b"POST /***** HTTP/1.1\r\n\r\n"[..],
            &b"POST /bot:a HTTP/1.1\r\n\r\n"[..],
        );
        let url: Uri = "http://127.0.0.1/bot:a".parse().unwrap();

        hidden.hide(&url).unwrap();
        assert!(write(starred).is_empty());
        assert_eq!(write(b"{}"), [[head, b"{}"].concat()]);
        assert_eq!(write(b"more"), [b"more"]);

        // Both together are larger than the buffer.
        hidden.hide(&url).unwrap();
        assert!(write(starred).is_empty());
        let large = write(&[b'x'; SIZE]);
        assert_eq!(large.concat(), [head, &[b'x'; SIZE]].concat());
        assert_eq!(large[0].len(), SIZE);

        hidden.hide(&url).unwrap();
        assert!(write(starred).is_empty());
        transport.await_input(NextTimeout::default()).unwrap();
        transport.await_input(NextTimeout::default()).unwrap();
        assert_eq!(take(&mut *sent.0.lock().unwrap()), [head]);
    }

    #[test]
    fn a_covered_url_keeps_its_origin_and_its_length() {
        let hidden = HiddenPath::default();
        for path in ["/", "/bot1:secret/getMe", "/a?b=c"] {
            let url: Uri = format!("http://127.0.0.1:8081{path}").parse().unwrap();
            let redacted = hidden.hide(&url).unwrap();
            assert_eq!(redacted.authority(), url.authority());
            assert_eq!(redacted.scheme(), url.scheme());
            assert_eq!(redacted.to_string().len(), url.to_string().len());
            assert!(path == "/" || !redacted.path().contains(&path[1..]));
            assert_eq!(hidden.take().as_deref(), Some(path));
        }
        let bare: Uri = "http://127.0.0.1".parse().unwrap();
        assert_eq!(hidden.hide(&bare).unwrap(), "http://127.0.0.1/");
    }

    #[test]
    fn the_path_takes_the_place_of_its_stars_and_of_nothing_else() {
        let mut line = b"POST /***** HTTP/1.1\r\nHost: x\r\n".to_vec();
        restore(&mut line, "/bot:a").unwrap();
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
            assert_eq!(restore(&mut sent, path), None);
            assert_eq!(sent, line, "nothing was changed");
        }
    }
}
