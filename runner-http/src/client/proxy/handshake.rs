//! What is said to a proxy before the connection is one to the server: [`Handshake`].
//!
//! It reads and writes nothing itself, so that both clients share it. It never asks for more bytes than
//! the answer of the proxy has for certain: those behind it belong to the server.

use std::{error::Error, fmt, io, net::IpAddr};

use super::{Kind, Login, Proxy};
#[cfg(feature = "hyper")]
use crate::client::HttpError;
use crate::client::HttpErrorKind;

/// The handshake for one connection.
///
/// [`step`](Self::step) says what to do; [`received`](Self::received) takes what was read.
pub(in crate::client) struct Handshake<'a> {
    proxy: &'a Proxy,
    host: &'a str,
    port: u16,
    state: State,
    /// What was received of the answer that is read.
    input: Vec<u8>,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::client) enum Step {
    /// Write all of this. It may contain the credentials.
    Send(Vec<u8>),
    /// Read at least one byte, and no more than these.
    Receive(usize),
    /// The connection is one to the server.
    Done,
}

enum State {
    Begin,
    /// The head of the answer to `CONNECT` is read.
    Head,
    /// The authentication that a SOCKS5 proxy has chosen.
    Method,
    /// What it says of the credentials.
    Login,
    /// What it says of the server.
    Reply,
    Done,
}

impl<'a> Handshake<'a> {
    /// An IPv6 address has no brackets.
    pub(in crate::client) fn new(proxy: &'a Proxy, host: &'a str, port: u16) -> Self {
        Self {
            proxy,
            host,
            port,
            state: State::Begin,
            input: Vec::new(),
        }
    }

    pub(in crate::client) fn step(&mut self) -> Result<Step, ProxyFailure> {
        let login = self.proxy.login.as_deref();
        loop {
            let (message, next) = match self.state {
                State::Begin => match self.proxy.kind {
                    Kind::Http => (connect(self.host, self.port, login), State::Head),
                    Kind::Socks5 => (greeting(login), State::Method),
                },
                State::Head => {
                    if let Some(missing) = missing_of_head(&self.input)? {
                        return Ok(Step::Receive(missing));
                    }
                    match status(&self.input)? {
                        // More will come. An upgrade is none that was asked for.
                        100 | 102..=199 => {
                            self.input.clear();
                            continue;
                        }
                        200..=299 => {
                            self.state = State::Done;
                            continue;
                        }
                        // tinyproxy answers 401 to a wrong password.
                        401 | 407 if login.is_none() => return Err(ProxyFailure::LoginIsMissing),
                        401 | 407 => return Err(ProxyFailure::LoginIsRefused),
                        status => return Err(ProxyFailure::Status(status)),
                    }
                }
                State::Method => {
                    is_version_5(&self.input)?;
                    let &[_, method] = &self.input[..] else {
                        return Ok(Step::Receive(2 - self.input.len()));
                    };
                    match (method, login) {
                        (NO_LOGIN, _) => (request(self.host, self.port)?, State::Reply),
                        (PASSWORD, Some(login)) => (password(login), State::Login),
                        (NONE_OF_THEM, None) => return Err(ProxyFailure::LoginIsMissing),
                        (NONE_OF_THEM, Some(_)) => return Err(ProxyFailure::LoginIsRefused),
                        _ => return Err(ProxyFailure::NotSocks5),
                    }
                }
                State::Login => {
                    // Some proxies send another version than that of RFC 1929; curl looks at none.
                    let &[_, status] = &self.input[..] else {
                        return Ok(Step::Receive(2 - self.input.len()));
                    };
                    if status != 0 {
                        return Err(ProxyFailure::LoginIsRefused);
                    }
                    (request(self.host, self.port)?, State::Reply)
                }
                State::Reply => {
                    if let Some(missing) = missing_of_reply(&self.input)? {
                        return Ok(Step::Receive(missing));
                    }
                    self.state = State::Done;
                    continue;
                }
                State::Done => return Ok(Step::Done),
            };
            self.state = next;
            self.input.clear();
            return Ok(Step::Send(message));
        }
    }

    pub(in crate::client) fn received(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }
}

fn connect(host: &str, port: u16, login: Option<&Login>) -> Vec<u8> {
    let authority = match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    };
    let mut request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n");
    if let Some(Login { user, password }) = login {
        request += "Proxy-Authorization: Basic ";
        request += &base64(&[user, &b":"[..], password].concat());
        request += "\r\n";
    }
    request += "\r\n";
    request.into_bytes()
}

/// How many bytes the head of an answer has left at least; `None` if it is complete.
fn missing_of_head(head: &[u8]) -> Result<Option<usize>, ProxyFailure> {
    if !head
        .iter()
        .zip(HTTP)
        .all(|(byte, expected)| byte == expected)
        || head.len() > MAX_HEAD
    {
        return Err(ProxyFailure::NotHttp);
    }
    let missing = match head {
        [.., b'\n', b'\r', b'\n'] | [.., b'\n', b'\n'] => return Ok(None),
        [.., b'\n', b'\r'] | [.., b'\n'] => 1,
        // The shortest end is two line feeds.
        _ => 2,
    };
    Ok(Some(missing.max(MIN_HEAD.saturating_sub(head.len()))))
}

fn status(head: &[u8]) -> Result<u16, ProxyFailure> {
    // HTTP/1.1 200
    let Some([b'0'..=b'9', b' ', digits @ ..]) = head.get(HTTP.len()..) else {
        return Err(ProxyFailure::NotHttp);
    };
    match digits {
        [
            a @ b'1'..=b'9',
            b @ b'0'..=b'9',
            c @ b'0'..=b'9',
            b' ' | b'\r' | b'\n',
            ..,
        ] => {
            let [a, b, c] = [a, b, c].map(|digit| u16::from(digit - b'0'));
            Ok(a * 100 + b * 10 + c)
        }
        _ => Err(ProxyFailure::NotHttp),
    }
}

fn greeting(login: Option<&Login>) -> Vec<u8> {
    match login {
        None => vec![VERSION, 1, NO_LOGIN],
        Some(_) => vec![VERSION, 2, NO_LOGIN, PASSWORD],
    }
}

fn password(Login { user, password }: &Login) -> Vec<u8> {
    let mut message = vec![1];
    for part in [user, password] {
        // Checked when the URL was read.
        message.push(u8::try_from(part.len()).unwrap_or(u8::MAX));
        message.extend_from_slice(part);
    }
    message
}

/// The request to connect. A name is left to the proxy.
fn request(host: &str, port: u16) -> Result<Vec<u8>, ProxyFailure> {
    let mut message = vec![VERSION, 1, 0];
    match host.parse() {
        Ok(IpAddr::V4(address)) => {
            message.push(IPV4);
            message.extend(address.octets());
        }
        Ok(IpAddr::V6(address)) => {
            message.push(IPV6);
            message.extend(address.octets());
        }
        Err(_) => {
            let length = u8::try_from(host.len()).map_err(|_| ProxyFailure::NameIsTooLong)?;
            message.extend([NAME, length]);
            message.extend(host.bytes());
        }
    }
    message.extend(port.to_be_bytes());
    Ok(message)
}

/// How many bytes a reply has left at least; `None` if it is complete.
fn missing_of_reply(reply: &[u8]) -> Result<Option<usize>, ProxyFailure> {
    is_version_5(reply)?;
    if let Some(code @ 1..) = reply.get(1) {
        return Err(ProxyFailure::Reply(*code));
    }
    // Up to the address, with its length, and with the port behind it.
    let whole = match reply.get(3..) {
        None | Some([]) => 4,
        Some([IPV4, ..]) => 4 + 4 + 2,
        Some([IPV6, ..]) => 4 + 16 + 2,
        Some([NAME]) => 5,
        Some([NAME, length, ..]) => 5 + usize::from(*length) + 2,
        Some(_) => return Err(ProxyFailure::NotSocks5),
    };
    Ok((reply.len() < whole).then(|| whole - reply.len()))
}

fn is_version_5(answer: &[u8]) -> Result<(), ProxyFailure> {
    match answer {
        [] | [VERSION, ..] => Ok(()),
        _ => Err(ProxyFailure::NotSocks5),
    }
}

/// Why a proxy made no connection. Nothing of a request was sent.
#[derive(Debug)]
pub(in crate::client) enum ProxyFailure {
    /// Its name was not resolved, or it did not accept the connection; without an error if the limit was
    /// over.
    Unreachable(Option<io::Error>),
    /// The connection to it broke.
    Broken(io::Error),
    /// It closed the connection.
    Closed,
    /// It did not answer in time.
    Timeout,
    NotHttp,
    NotSocks5,
    LoginIsMissing,
    LoginIsRefused,
    /// What it answered `CONNECT`.
    Status(u16),
    /// The code of a SOCKS5 reply.
    Reply(u8),
    NameIsTooLong,
}

impl fmt::Display for ProxyFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreachable(_) => "cannot connect to the proxy: check its host and port",
            Self::Broken(_) => "the connection to the proxy broke before the server was reached",
            Self::Closed => "the proxy closed the connection before the server was reached",
            Self::Timeout => "the proxy did not connect to the server in time",
            Self::NotHttp => {
                "the proxy did not answer in HTTP: the URL of a SOCKS5 proxy begins with socks5://"
            }
            Self::NotSocks5 => {
                "the proxy did not answer in SOCKS5: the URL of an HTTP proxy begins with http://"
            }
            Self::LoginIsMissing => {
                "the proxy requires authentication: add the user name and the password to its URL, \
                 as in http://user:password@host:port"
            }
            Self::LoginIsRefused => {
                "the proxy refused the user name or the password: check them in its URL"
            }
            Self::Status(status) => {
                return write!(
                    f,
                    "the proxy answered CONNECT with status {status}: it must allow connections to \
                     the host and the port of the server"
                );
            }
            Self::Reply(code) => {
                let meaning = match code {
                    1 => "general failure",
                    2 => "its rules do not allow the connection",
                    3 => "the network cannot be reached",
                    4 => "the host cannot be reached, or its name was not resolved",
                    5 => "the server refused the connection",
                    6 => "the time to live expired",
                    7 => "the command is not supported",
                    8 => "the type of the address is not supported",
                    _ => "unknown reason",
                };
                return write!(
                    f,
                    "the SOCKS5 proxy did not connect: {meaning} (code {code})"
                );
            }
            Self::NameIsTooLong => "SOCKS5 takes no host name longer than 255 bytes",
        })
    }
}

impl Error for ProxyFailure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Unreachable(Some(error)) | Self::Broken(error) => Some(error),
            _ => None,
        }
    }
}

impl ProxyFailure {
    pub(in crate::client) const fn kind(&self) -> HttpErrorKind {
        match self {
            Self::Unreachable(None) | Self::Timeout => HttpErrorKind::ConnectTimeout,
            _ => HttpErrorKind::Connect,
        }
    }

    #[cfg(feature = "hyper")]
    pub(in crate::client) fn into_error(self) -> HttpError {
        HttpError::new(self.kind()).with_source(self)
    }
}

/// Standard base64 with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for bytes in bytes.chunks(3) {
        let [a, b, c] = [0, 1, 2].map(|at| bytes.get(at).map_or(0, |byte| usize::from(*byte)));
        let bits = a << 16 | b << 8 | c;
        for (at, shift) in [18, 12, 6, 0].into_iter().enumerate() {
            let digit = char::from(DIGITS[bits >> shift & 63]);
            text.push(if at <= bytes.len() { digit } else { '=' });
        }
    }
    text
}

/// How every answer begins, but for one digit.
const HTTP: &[u8] = b"HTTP/1.";

/// `HTTP/1.1 200` and two line feeds.
const MIN_HEAD: usize = 14;

/// Far beyond what proxies send.
const MAX_HEAD: usize = 16 << 10;

const VERSION: u8 = 5;

// Methods of authentication.
const NO_LOGIN: u8 = 0;
const PASSWORD: u8 = 2;
const NONE_OF_THEM: u8 = 0xff;

// Types of addresses.
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// What happened: what was sent, how many bytes of `answer` were read, and the end. `None` is an
    /// answer that ends too early.
    fn run(
        url: &str,
        host: &str,
        mut answer: &[u8],
        most: usize,
    ) -> (Vec<Vec<u8>>, usize, Option<Result<(), ProxyFailure>>) {
        let proxy = Proxy::parse(url).unwrap();
        let mut handshake = Handshake::new(&proxy, host, 443);
        let length = answer.len();
        let mut sent = Vec::new();
        let end = loop {
            match handshake.step() {
                Ok(Step::Send(message)) => sent.push(message),
                Ok(Step::Receive(0)) => panic!("nothing is to be read"),
                Ok(Step::Receive(_)) if answer.is_empty() => break None,
                Ok(Step::Receive(count)) => {
                    let (read, rest) = answer.split_at(count.min(most).min(answer.len()));
                    handshake.received(read);
                    answer = rest;
                }
                Ok(Step::Done) => break Some(Ok(())),
                Err(failure) => break Some(Err(failure)),
            }
        };
        (sent, length - answer.len(), end)
    }

    const HTTP_PROXY: &str = "http://proxy:3128";
    const HTTP_LOGIN: &str = "http://Aladdin:open%20sesame@proxy:3128";
    const SOCKS: &str = "socks5://proxy";
    const SOCKS_LOGIN: &str = "socks5://user:password@proxy";
    const HOST: &str = "api.telegram.org";

    /// The end of a handshake that must fail.
    fn failure(url: &str, answer: &[u8]) -> String {
        match run(url, HOST, answer, usize::MAX).2 {
            Some(Err(failure)) => failure.to_string(),
            other => panic!("{answer:?} led to {other:?}"),
        }
    }

    #[test]
    fn connect_names_the_server_and_carries_the_credentials() {
        for (url, host, expected) in [
            (
                HTTP_PROXY,
                HOST,
                "CONNECT api.telegram.org:443 HTTP/1.1\r\nHost: api.telegram.org:443\r\n\r\n",
            ),
            (
                HTTP_PROXY,
                "::1",
                "CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n\r\n",
            ),
            (
                // The example of RFC 7617.
                HTTP_LOGIN,
                HOST,
                "CONNECT api.telegram.org:443 HTTP/1.1\r\nHost: api.telegram.org:443\r\n\
                 Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n",
            ),
        ] {
            let (sent, _, _) = run(url, host, b"", usize::MAX);
            assert_eq!(String::from_utf8_lossy(&sent.concat()), expected);
        }
    }

    #[test]
    fn the_answer_to_connect_is_read_up_to_its_end_and_no_further() {
        for answer in [
            &b"HTTP/1.1 200 Connection established\r\n\r\n"[..],
            b"HTTP/1.0 200\r\n\r\n",
            b"HTTP/1.1 200\n\n",
            b"HTTP/1.1 299 x\r\nVia: a\r\nContent-Length: 5\r\n\r\n",
            b"HTTP/1.1 200 x\nVia: a\r\n\n",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 x\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        ] {
            for behind in [&b""[..], b"\x16\x03\x01", b"\r\n\r\n", b"\n"] {
                for most in [1, 2, 3, usize::MAX] {
                    let whole = [answer, behind].concat();
                    let (_, read, end) = run(HTTP_PROXY, HOST, &whole, most);
                    assert!(matches!(end, Some(Ok(()))), "{end:?}");
                    assert_eq!(read, answer.len());
                }
            }
            for length in 0..answer.len() {
                let (_, _, end) = run(HTTP_PROXY, HOST, &answer[..length], usize::MAX);
                assert!(end.is_none(), "{end:?} after {length} bytes");
            }
        }
    }

    #[test]
    fn a_proxy_that_refuses_connect_is_understood() {
        let required = b"HTTP/1.1 407 Proxy Authentication Required\r\nX: y\r\n\r\n<html>";
        assert!(failure(HTTP_PROXY, required).contains("requires authentication"));
        assert!(failure(HTTP_LOGIN, required).contains("refused the user name"));
        let wrong = b"HTTP/1.1 401 Unauthorized\r\n\r\n";
        assert!(failure(HTTP_LOGIN, wrong).contains("refused the user name"));
        for status in [101, 301, 403, 500, 502, 999] {
            let answer = format!("HTTP/1.1 {status} x\r\n\r\n");
            let text = failure(HTTP_LOGIN, answer.as_bytes());
            assert!(text.contains(&format!("status {status}")), "{text}");
        }
    }

    #[test]
    fn what_is_not_http_is_noticed_at_once() {
        for answer in [
            &b"\x05\xff"[..],
            b"\x00",
            b"SSH-2.0-x",
            b"\r\n\r\n",
            b"HTTP/2.0",
            b"HTTP/1.x 200 OK\r\n\r\n",
            b"HTTP/1.1200 OK\r\n\r\n",
            b"HTTP/1.1 20\r\n\r\n.",
            b"HTTP/1.1 2000 OK\r\n\r\n",
            b"HTTP/1.1 +20 OK\r\n\r\n",
            b"HTTP/1.1 099 OK\r\n\r\n",
        ] {
            assert!(failure(HTTP_PROXY, answer).contains("socks5://"));
        }
        let mut endless = b"HTTP/1.1 200 OK\r\n".to_vec();
        endless.resize(MAX_HEAD + 2, b'x');
        assert!(failure(HTTP_PROXY, &endless).contains("socks5://"));
    }

    #[test]
    fn socks_without_and_with_credentials() {
        let reply = [5, 0, 0, 1, 127, 0, 0, 1, 0x1f, 0x90];
        let request = [
            &[5, 1, 0, 3, 16][..],
            HOST.as_bytes(),
            &443_u16.to_be_bytes(),
        ]
        .concat();
        let plain = [&[5, 0][..], &reply].concat();
        let (sent, _, end) = run(SOCKS, HOST, &plain, usize::MAX);
        assert!(matches!(end, Some(Ok(()))), "{end:?}");
        assert_eq!(sent, [vec![5, 1, 0], request.clone()]);

        let login = [&[1, 4][..], b"user", &[8], b"password"].concat();
        for version in [1, 5] {
            let answer = [&[5, 2, version, 0][..], &reply].concat();
            let (sent, _, end) = run(SOCKS_LOGIN, HOST, &answer, usize::MAX);
            assert!(matches!(end, Some(Ok(()))), "{end:?}");
            assert_eq!(sent, [vec![5, 2, 0, 2], login.clone(), request.clone()]);
        }
        // A proxy that wants none gets none.
        let (sent, _, end) = run(SOCKS_LOGIN, HOST, &plain, usize::MAX);
        assert!(matches!(end, Some(Ok(()))), "{end:?}");
        assert_eq!(sent, [vec![5, 2, 0, 2], request]);
    }

    #[test]
    fn addresses_are_sent_as_such() {
        for (host, expected) in [
            ("127.0.0.1", &[1, 127, 0, 0, 1][..]),
            ("::1", &[4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
            ("a", &[3, 1, b'a']),
        ] {
            let (sent, _, _) = run(SOCKS, host, &[5, 0], usize::MAX);
            assert_eq!(sent[1], [&[5, 1, 0], expected, &[1, 187]].concat());
        }
    }

    #[test]
    fn a_reply_is_read_up_to_its_end_whatever_its_address() {
        for address in [
            &[1, 0, 0, 0, 0][..],
            &[4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[3, 0],
            &[3, 4, b'n', b'a', b'm', b'e'],
            &[&[3, 255][..], &[b'n'; 255]].concat(),
        ] {
            let answer = [&[5, 0, 5, 0, 0][..], address, &[0, 80]].concat();
            for most in [1, 3, usize::MAX] {
                let whole = [&answer[..], b"behind"].concat();
                let (_, read, end) = run(SOCKS, HOST, &whole, most);
                assert!(matches!(end, Some(Ok(()))), "{end:?}");
                assert_eq!(read, answer.len());
            }
            for length in 0..answer.len() {
                let (_, _, end) = run(SOCKS, HOST, &answer[..length], usize::MAX);
                assert!(end.is_none(), "{end:?} after {length} bytes");
            }
        }
    }

    #[test]
    fn every_code_of_a_reply_has_its_text() {
        for code in 1..=255 {
            let text = failure(SOCKS, &[5, 0, 5, code]);
            assert!(text.ends_with(&format!(" (code {code})")), "{text}");
            assert_eq!(text.contains("unknown"), code > 8, "{text}");
        }
    }

    #[test]
    fn a_socks_proxy_that_refuses_or_is_none_is_understood() {
        assert!(failure(SOCKS, &[5, 0xff]).contains("requires authentication"));
        assert!(failure(SOCKS_LOGIN, &[5, 0xff]).contains("refused the user name"));
        assert!(failure(SOCKS_LOGIN, &[5, 2, 1, 1]).contains("refused the user name"));
        for answer in [
            &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
            // A method that was not offered.
            &[5, 1],
            &[5, 2],
            &[4, 0],
            &[0],
            &[5, 0, 4],
            // A type of address that there is not.
            &[5, 0, 5, 0, 0, 2],
        ] {
            assert!(failure(SOCKS, answer).contains("http://"), "{answer:?}");
        }
    }

    #[test]
    fn a_name_longer_than_socks_can_carry_is_refused() {
        let long = "x".repeat(256);
        let (_, _, end) = run(SOCKS, &long, &[5, 0], usize::MAX);
        assert!(matches!(end, Some(Err(ProxyFailure::NameIsTooLong))));
        let (sent, _, _) = run(SOCKS, &long[1..], &[5, 0], usize::MAX);
        assert_eq!(sent[1].len(), 5 + 255 + 2);
    }

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xfe]), "+//+");
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic_or_depends_on_how_it_is_cut(
            is_socks: bool,
            has_login: bool,
            head in prop::sample::select(vec![&b""[..], b"HTTP/1.1 ", b"\x05\x00\x05\x00\x00"]),
            rest in vec(any::<u8>(), 0..40),
            most in 1..5_usize,
        ) {
            let url = match (is_socks, has_login) {
                (false, false) => HTTP_PROXY,
                (false, true) => HTTP_LOGIN,
                (true, false) => SOCKS,
                (true, true) => SOCKS_LOGIN,
            };
            let answer = [head, &rest].concat();
            let (whole, _, end) = run(url, HOST, &answer, usize::MAX);
            let (pieces, _, other) = run(url, HOST, &answer, most);
            let shown = |end: Option<Result<(), ProxyFailure>>| end.map(|end| end.map_err(|e| e.to_string()));
            prop_assert_eq!(whole, pieces);
            prop_assert_eq!(shown(end), shown(other));
        }
    }
}
