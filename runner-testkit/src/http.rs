//! HTTP/1.1 as the Bot API server speaks it: [`Reader`] takes requests off a connection, and
//! [`Reply`] is what goes back.
//!
//! It knows no method of the Bot API. The rules are those of `HttpReader`, `HttpConnectionBase`
//! (tdlib/td) and `HttpConnection` (tdlib/telegram-bot-api): GET and POST only, keep-alive always,
//! and faults in the framing answered with an empty body and a close.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use flate2::read::{MultiGzDecoder, ZlibDecoder};

use crate::params::{MAX_PARAMS, Params, attribute, find};

/// Most bytes of a request line with its headers; more is answered with 431.
const MAX_HEAD: usize = 256 << 10;
/// Most bytes of one file; more is answered with 413.
const MAX_FILE: usize = 4000 << 20;
/// How long a connection may be idle, or take for one request, before it is closed.
const TIMEOUT: Duration = Duration::from_secs(500);
/// How much is read at once.
const CHUNK: usize = 16 << 10;

/// A request, framed and decoded. It has no `Debug`, because the path has the token in it.
#[cfg_attr(any(test, fuzzing), derive(PartialEq, Eq))]
pub(crate) struct Request {
    /// As it was sent, without the query; percent-encoded.
    pub(crate) path: String,
    /// Whether the request line had a scheme and a host.
    pub(crate) is_absolute: bool,
    /// Query first, then body.
    pub(crate) params: Params,
}

/// Why there is no further request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The other side closed, or the connection failed or timed out.
    Gone,
    /// The request cannot be read: this status, an empty body, and a close.
    Refused(u16),
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

/// Where requests come from: a socket, or memory in tests.
pub(crate) trait Stream {
    /// As [`Read::read`].
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize>;
    /// How long a read may take.
    fn set_timeout(&self, timeout: Duration) -> io::Result<()>;
}

impl Stream for TcpStream {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Read::read(&mut &*self, buffer)
    }

    fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(timeout))
    }
}

/// Reads the requests of one connection, one after the other.
pub(crate) struct Reader<'a, S = TcpStream> {
    stream: &'a S,
    /// What was received beyond the last request.
    buffer: Vec<u8>,
}

struct Head {
    len: usize,
    path: String,
    is_absolute: bool,
    query: Vec<u8>,
    length: usize,
    is_chunked: bool,
    encoding: Option<Encoding>,
    /// In lower case, to be compared.
    content_type: String,
    /// As it was sent, for the boundary in it.
    raw_content_type: String,
}

#[derive(Clone, Copy)]
enum Encoding {
    Gzip,
    Deflate,
}

impl<'a, S: Stream> Reader<'a, S> {
    pub(crate) fn new(stream: &'a S) -> io::Result<Self> {
        stream.set_timeout(TIMEOUT)?;
        Ok(Self {
            stream,
            buffer: Vec::with_capacity(CHUNK),
        })
    }

    /// Waits for the next request.
    pub(crate) fn next(&mut self) -> Result<Request, End> {
        let deadline = Instant::now() + TIMEOUT;
        let mut is_late = false;
        let head = loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                break parse_head(&self.buffer[..end + 4])?;
            }
            if self.buffer.len() > MAX_HEAD {
                return Err(End::Refused(431));
            }
            self.fill(deadline, &mut is_late)?;
        };
        self.buffer.drain(..head.len);

        let mut body = Vec::new();
        if head.is_chunked {
            self.read_chunked(&mut body, deadline, &mut is_late)?;
        } else if head.length > 0 {
            if head.length > head.limit() {
                return Err(End::Refused(413));
            }
            while self.buffer.len() < head.length {
                self.fill(deadline, &mut is_late)?;
            }
            body.extend(self.buffer.drain(..head.length));
        }
        if is_late {
            self.stream.set_timeout(TIMEOUT)?;
        }
        head.request(body).map_err(End::Refused)
    }

    fn read_chunked(
        &mut self,
        body: &mut Vec<u8>,
        deadline: Instant,
        is_late: &mut bool,
    ) -> Result<(), End> {
        loop {
            let (line, size) = loop {
                match httparse::parse_chunk_size(&self.buffer) {
                    Ok(httparse::Status::Complete((line, size))) => break (line, size),
                    Ok(httparse::Status::Partial) => self.fill_line(deadline, is_late)?,
                    Err(_) => return Err(End::Refused(400)),
                }
            };
            let size = usize::try_from(size)
                .ok()
                .filter(|size| *size <= MAX_FILE - body.len())
                .ok_or(End::Refused(413))?;
            self.buffer.drain(..line);
            if size == 0 {
                break;
            }
            while self.buffer.len() < size + 2 {
                self.fill(deadline, is_late)?;
            }
            body.extend(self.buffer.drain(..size));
            if !self.buffer.starts_with(b"\r\n") {
                return Err(End::Refused(400));
            }
            self.buffer.drain(..2);
        }
        // Trailers up to an empty line; nobody sends any, and nothing is done with them.
        loop {
            match find(&self.buffer, b"\r\n") {
                Some(0) => {
                    self.buffer.drain(..2);
                    return Ok(());
                }
                Some(at) => {
                    self.buffer.drain(..at + 2);
                }
                None => self.fill_line(deadline, is_late)?,
            }
        }
    }

    /// Receives more of a line, unless it is too long to be one.
    fn fill_line(&mut self, deadline: Instant, is_late: &mut bool) -> Result<(), End> {
        if self.buffer.len() > MAX_HEAD {
            return Err(End::Refused(431));
        }
        self.fill(deadline, is_late)
    }

    /// Receives some more. The timer of a connection is not restarted by a part of a request.
    fn fill(&mut self, deadline: Instant, is_late: &mut bool) -> Result<(), End> {
        // Nothing is set for the first read of a request: what remains is the whole timeout, and the
        // one call less counts when requests come by the thousand.
        if !self.buffer.is_empty() {
            let left = deadline
                .checked_duration_since(Instant::now())
                .filter(|left| !left.is_zero())
                .ok_or(End::Gone)?;
            self.stream.set_timeout(left)?;
            *is_late = true;
        }
        let filled = self.buffer.len();
        self.buffer.resize(filled + CHUNK, 0);
        let received = loop {
            match self.stream.read(&mut self.buffer[filled..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        let count = *received.as_ref().unwrap_or(&0);
        self.buffer.truncate(filled + count);
        received?;
        if count == 0 {
            return Err(End::Gone);
        }
        Ok(())
    }
}

impl Head {
    /// Most bytes of the body.
    fn limit(&self) -> usize {
        if self.is_form() || self.is_json() {
            MAX_PARAMS
        } else {
            MAX_FILE
        }
    }

    fn is_form(&self) -> bool {
        self.content_type
            .contains("application/x-www-form-urlencoded")
    }

    fn is_json(&self) -> bool {
        self.content_type.contains("application/json")
    }

    /// Reads the parameters; the error is a status.
    fn request(self, body: Vec<u8>) -> Result<Request, u16> {
        let body = match self.encoding {
            None => body,
            Some(encoding) => decompress(&body, encoding, self.limit())?,
        };
        let mut params = Params::default();
        params.add_urlencoded(&self.query);
        if body.is_empty() {
            // Nothing to add, whatever its type.
        } else if self.is_form() {
            params.add_urlencoded(&body);
        } else if self.is_json() {
            params.add_json(&body);
        } else if self.content_type.contains("multipart/form-data") {
            let boundary = attribute(&self.raw_content_type, "boundary").ok_or(400_u16)?;
            params.add_multipart(&body, &boundary)?;
        } else {
            params.add_file(String::new(), String::new(), body.len())?;
        }
        if params.len() > MAX_PARAMS {
            return Err(413);
        }
        Ok(Request {
            path: self.path,
            is_absolute: self.is_absolute,
            params,
        })
    }
}

/// Reads the request line and the headers; the error is a status.
fn parse_head(head: &[u8]) -> Result<Head, End> {
    let line_end = find(head, b"\r\n").unwrap_or(head.len());
    let line = std::str::from_utf8(&head[..line_end]).map_err(|_| End::Refused(400))?;
    let (method, rest) = line.split_once(' ').ok_or(End::Refused(501))?;
    if !matches!(method, "GET" | "POST") {
        return Err(End::Refused(501));
    }
    let (target, version) = rest.rsplit_once(' ').ok_or(End::Refused(505))?;
    if !matches!(version, "HTTP/1.0" | "HTTP/1.1") {
        return Err(End::Refused(505));
    }
    let (is_absolute, target) = match target.split_once("://") {
        Some((_, rest)) if !target.starts_with('/') => {
            (true, rest.find('/').map_or("/", |at| &rest[at..]))
        }
        _ => (false, target),
    };
    let target = target.split('#').next().unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));

    let mut found = Head {
        len: head.len(),
        path: path.to_owned(),
        is_absolute,
        query: query.as_bytes().to_vec(),
        length: 0,
        is_chunked: false,
        encoding: None,
        content_type: String::new(),
        raw_content_type: String::new(),
    };
    let mut slots = [httparse::EMPTY_HEADER; 128];
    let headers = match httparse::parse_headers(&head[line_end + 2..], &mut slots) {
        Ok(httparse::Status::Complete((_, headers))) => headers,
        Err(httparse::Error::TooManyHeaders) => return Err(End::Refused(431)),
        Ok(httparse::Status::Partial) | Err(_) => return Err(End::Refused(400)),
    };
    for header in headers {
        let value = String::from_utf8_lossy(header.value).trim().to_lowercase();
        match header.name.to_ascii_lowercase().as_str() {
            "content-length" => {
                found.length = value.parse().map_err(|_| End::Refused(400))?;
            }
            "transfer-encoding" => match value.as_str() {
                "chunked" => found.is_chunked = true,
                "identity" | "" => {}
                _ => return Err(End::Refused(501)),
            },
            "content-encoding" => match value.as_str() {
                "gzip" | "x-gzip" => found.encoding = Some(Encoding::Gzip),
                "deflate" => found.encoding = Some(Encoding::Deflate),
                "identity" | "" => {}
                _ => return Err(End::Refused(415)),
            },
            "content-type" => {
                found.content_type = value;
                found.raw_content_type = String::from_utf8_lossy(header.value).into_owned();
            }
            _ => {}
        }
    }
    Ok(found)
}

/// Undoes the `Content-Encoding` of a body; the error is a status.
fn decompress(body: &[u8], encoding: Encoding, limit: usize) -> Result<Vec<u8>, u16> {
    let limit = limit as u64 + 1;
    let mut decoded = Vec::new();
    let read = match encoding {
        Encoding::Gzip => MultiGzDecoder::new(body)
            .take(limit)
            .read_to_end(&mut decoded),
        Encoding::Deflate => ZlibDecoder::new(body).take(limit).read_to_end(&mut decoded),
    };
    read.map_err(|_| 400_u16)?;
    if decoded.len() as u64 == limit {
        return Err(413);
    }
    Ok(decoded)
}

/// An answer: its head is made from this, its body is as it is.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    /// Further headers, each ended by a line end.
    pub(crate) headers: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn json(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            content_type: "application/json",
            headers: String::new(),
            body: body.into(),
        }
    }

    /// The status line and the headers, with a `Content-Length` of `length`.
    pub(crate) fn head(&self, length: usize) -> Vec<u8> {
        let mut head = Vec::with_capacity(self.headers.len() + 160);
        write!(
            head,
            "HTTP/1.1 {} {}\r\nConnection: keep-alive\r\nContent-Type: {}\r\nContent-Length: {length}\r\n{}\r\n",
            self.status,
            reason(self.status),
            self.content_type,
            self.headers,
        )
        .expect("memory takes all");
        head
    }

    /// The whole answer as it is sent, with a `Content-Length` of `length`.
    pub(crate) fn bytes(&self, length: usize) -> Vec<u8> {
        let mut bytes = self.head(length);
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// What is sent before a connection is closed because a request cannot be read.
pub(crate) fn refusal(status: u16) -> String {
    format!(
        "HTTP/1.1 {status} {}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        reason(status)
    )
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        302 => "Found",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        409 => "Conflict",
        413 => "Request Entity Too Large",
        415 => "Unsupported Media Type",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        505 => "HTTP Version Not Supported",
        _ => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection on which this was sent.
    struct Sent(std::cell::RefCell<io::Cursor<Vec<u8>>>);

    impl Stream for Sent {
        fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.borrow_mut().read(buffer)
        }

        fn set_timeout(&self, _: Duration) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_chunk_that_is_too_large_is_refused_and_a_line_that_does_not_end() {
        let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        let endless = "x".repeat(MAX_HEAD + 2 * CHUNK);
        for (body, expected) in [
            ("1\r\nx\r\nffffffffffffffff\r\n".to_owned(), 413),
            ("ffffffffffffffff\r\n".to_owned(), 413),
            (format!("1;{endless}"), 431),
            (format!("0\r\n{endless}"), 431),
        ] {
            let sent = Sent(io::Cursor::new(format!("{head}{body}").into_bytes()).into());
            let end = Reader::new(&sent).unwrap().next().err();
            assert_eq!(end, Some(End::Refused(expected)));
        }
    }

    fn status(head: &str) -> u16 {
        match parse_head(format!("{head}\r\n\r\n").as_bytes()) {
            Ok(_) => 200,
            Err(End::Refused(status)) => status,
            Err(End::Gone) => 0,
        }
    }

    #[test]
    fn what_cannot_be_read_has_its_status() {
        for (head, expected) in [
            ("GET / HTTP/1.1", 200),
            ("POST / HTTP/1.0", 200),
            ("HEAD / HTTP/1.1", 501),
            ("PUT / HTTP/1.1", 501),
            ("get / HTTP/1.1", 501),
            ("GET / HTTP/2.0", 505),
            ("GET /", 505),
            ("GET / HTTP/1.1\r\nTransfer-Encoding: gzip", 501),
            ("GET / HTTP/1.1\r\nTransfer-Encoding: Chunked", 200),
            ("GET / HTTP/1.1\r\nContent-Encoding: br", 415),
            ("GET / HTTP/1.1\r\nContent-Encoding: GZIP", 200),
            ("GET / HTTP/1.1\r\nContent-Length: x", 400),
            ("GET / HTTP/1.1\r\nno colon", 400),
        ] {
            assert_eq!(status(head), expected, "{head}");
        }
    }

    #[test]
    fn the_target_is_split_into_path_and_query() {
        for (target, path, query, is_absolute) in [
            ("/bot1:a/getMe", "/bot1:a/getMe", "", false),
            ("/a?x=1&y=/", "/a", "x=1&y=/", false),
            ("/a?u=http://b/", "/a", "u=http://b/", false),
            ("http://host:1/a?x=1", "/a", "x=1", true),
            ("http://host", "/", "", true),
        ] {
            let head = format!("GET {target} HTTP/1.1\r\n\r\n");
            let head = parse_head(head.as_bytes()).unwrap();
            assert_eq!(head.path, path);
            assert_eq!(head.query, query.as_bytes());
            assert_eq!(head.is_absolute, is_absolute, "{target}");
        }
    }
}
