//! The way to the server through a proxy: [`Proxy`], and which targets take it.

mod environment;
mod handshake;
#[cfg(all(test, feature = "hyper", feature = "test-util", feature = "ureq"))]
mod through;

use std::{error::Error, fmt, sync::Arc};

use self::environment::Environment;
pub(super) use self::handshake::{Handshake, ProxyFailure, Step};
use crate::base_url::{self, BaseUrlError};

/// A proxy between the client and the Bot API server, for [`ClientOptions::proxy`].
///
/// ```
/// use runner_http::{ClientOptions, Proxy};
///
/// let proxy = Proxy::parse("socks5://bot:secret@proxy.example.org:1080")?;
/// assert!(!format!("{proxy:?}").contains("secret"));
/// let options = ClientOptions::default().proxy(proxy);
/// # let _ = options;
/// # Ok::<(), runner_http::ProxyError>(())
/// ```
///
/// Either kind of proxy carries the connection to the server as it is: over https the proxy sees the
/// name of the server and no byte of a request. The proxy resolves that name.
///
/// [`ClientOptions::proxy`]: crate::ClientOptions::proxy
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    kind: Kind,
    host: String,
    port: u16,
    login: Option<Arc<Login>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Http,
    Socks5,
}

/// Has no `Debug` on purpose.
#[derive(PartialEq, Eq)]
struct Login {
    user: Vec<u8>,
    password: Vec<u8>,
}

impl Proxy {
    /// Reads the URL of a proxy: `scheme://user:password@host:port`.
    ///
    /// - `http://`: an HTTP proxy that allows `CONNECT`, with basic authentication.
    /// - `socks5://` or `socks5h://`: a SOCKS5 proxy (RFC 1928), with a user name and a password (RFC
    ///   1929). It resolves names with either scheme.
    /// - Without a scheme: `http://`.
    ///
    /// User name and password may be left out. Characters that have a meaning in a URL, such as `@`,
    /// `:`, `/` and `%`, are written in percent-encoding there (`%40`). The default port is 1080, as
    /// in curl.
    ///
    /// # Errors
    ///
    /// [`ProxyError`] if it is no such URL. The error does not repeat the text, which may contain a
    /// password.
    pub fn parse(url: &str) -> Result<Self, ProxyError> {
        Self::read(url.trim()).map_err(|reason| ProxyError {
            variable: None,
            reason,
        })
    }

    fn read(url: &str) -> Result<Self, Reason> {
        if !url.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Reason::Characters);
        }
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
        let kind = match scheme.to_ascii_lowercase().as_str() {
            "http" => Kind::Http,
            "socks5" | "socks5h" => Kind::Socks5,
            "https" => return Err(Reason::Tls),
            _ => return Err(Reason::Scheme),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (login, authority) = match rest.rsplit_once('@') {
            Some((login, authority)) => (Login::read(login, kind)?, authority),
            None => (None, rest),
        };
        if authority.contains(['/', '?', '#', '\\']) {
            return Err(Reason::Extra);
        }
        let (host, port) = base_url::host_and_port(authority).map_err(|error| match error {
            BaseUrlError::Port => Reason::Port,
            _ => Reason::Host,
        })?;
        Ok(Self {
            kind,
            host: host.to_owned(),
            port: port.unwrap_or(DEFAULT_PORT),
            login: login.map(Arc::new),
        })
    }

    /// Where the proxy itself is.
    pub(super) fn address(&self) -> (&str, u16) {
        (&self.host, self.port)
    }
}

impl Login {
    fn read(text: &str, kind: Kind) -> Result<Option<Self>, Reason> {
        let (user, password) = text.split_once(':').unwrap_or((text, ""));
        if user.is_empty() && password.is_empty() {
            return Ok(None);
        }
        let user = percent_decoded(user).ok_or(Reason::Login)?;
        let password = percent_decoded(password).ok_or(Reason::Login)?;
        let is_valid = match kind {
            // RFC 7617: a colon ends the user name, and neither has control characters.
            Kind::Http => {
                let mut all = user.iter().chain(&password);
                !user.contains(&b':') && !all.any(u8::is_ascii_control)
            }
            // RFC 1929: their lengths are one byte each.
            Kind::Socks5 => (1..=255).contains(&user.len()) && password.len() <= 255,
        };
        is_valid
            .then_some(Some(Self { user, password }))
            .ok_or(Reason::Login)
    }
}

/// Shows no credentials.
impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("kind", &self.kind)
            .field("host", &self.host)
            .field("port", &self.port)
            .field("has_login", &self.login.is_some())
            .finish()
    }
}

/// Why a text is not the URL of a proxy that can be used. Its text says what to do, and which variable
/// of the environment it is about; it contains no credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyError {
    variable: Option<&'static str>,
    reason: Reason,
}

#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
enum Reason {
    Scheme,
    Tls,
    Host,
    Port,
    Characters,
    Extra,
    Login,
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(variable) = self.variable {
            write!(f, "{variable}: ")?;
        }
        f.write_str(match self.reason {
            Reason::Scheme => {
                "the URL of a proxy begins with http:// or socks5://; other kinds are not supported"
            }
            Reason::Tls => {
                "TLS to the proxy is not supported: the URL of an HTTP proxy begins with http://, \
                 also for servers behind https://"
            }
            Reason::Host => {
                "the URL of the proxy names no valid host: it looks like \
                 http://user:password@127.0.0.1:3128, with @ : / and % in the user name and the \
                 password as %40 %3A %2F and %25"
            }
            Reason::Port => "the URL of the proxy has a port that is no number from 1 to 65535",
            Reason::Characters => {
                "the URL of the proxy contains characters that no URL may contain: write them in \
                 percent-encoding"
            }
            Reason::Extra => {
                "the URL of the proxy must be scheme, user, password, host and port only"
            }
            Reason::Login => {
                "the user name or the password of the proxy cannot be used: write % as %25; an HTTP \
                 proxy takes no colon in the user name, and a SOCKS5 proxy a user name of 1 to 255 \
                 bytes and a password of up to 255"
            }
        })
    }
}

/// The text of the error: a `main` that returns it prints this.
impl fmt::Debug for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for ProxyError {}

/// Which proxy a connection takes.
#[derive(Clone, Debug, Default)]
pub(crate) enum Route {
    #[default]
    Direct,
    Through(Proxy),
    Environment(Arc<Environment>),
}

impl Route {
    /// What the environment says now.
    pub(super) fn from_env() -> Result<Self, ProxyError> {
        let environment = Environment::read(std::env::var)?;
        Ok(Self::Environment(Arc::new(environment)))
    }

    /// The proxy on the way to this host, if there is one.
    pub(super) fn proxy(&self, is_secure: bool, host: &str, port: u16) -> Option<&Proxy> {
        match self {
            Self::Direct => None,
            Self::Through(proxy) => Some(proxy),
            Self::Environment(environment) => environment.proxy(is_secure, host, port),
        }
    }
}

fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                u8::try_from(digit()? << 4 | digit()?).ok()?
            }
            byte => byte,
        });
    }
    Some(decoded)
}

/// What curl uses where a proxy has none, and what is registered for SOCKS.
const DEFAULT_PORT: u16 = 1080;

#[cfg(test)]
mod tests {
    use super::*;

    fn login(proxy: &Proxy) -> Option<(&[u8], &[u8])> {
        let login = proxy.login.as_deref()?;
        Some((&login.user, &login.password))
    }

    #[test]
    fn a_url_is_read() {
        for (url, kind, address, expected) in [
            ("http://proxy:3128", Kind::Http, ("proxy", 3128), None),
            ("proxy:3128", Kind::Http, ("proxy", 3128), None),
            (" HTTP://10.0.0.1:80/\n", Kind::Http, ("10.0.0.1", 80), None),
            ("http://proxy", Kind::Http, ("proxy", 1080), None),
            ("socks5://[::1]", Kind::Socks5, ("::1", 1080), None),
            ("socks5h://@p:1", Kind::Socks5, ("p", 1), None),
            ("http://u@p:1", Kind::Http, ("p", 1), Some(("u", ""))),
            ("u:p@w@p:1", Kind::Http, ("p", 1), Some(("u", "p@w"))),
            ("http://:k@p:1", Kind::Http, ("p", 1), Some(("", "k"))),
            (
                "socks5://a%3Ab:%40%25%2f:x@p:1",
                Kind::Socks5,
                ("p", 1),
                Some(("a:b", "@%/:x")),
            ),
        ] {
            let proxy = Proxy::parse(url).unwrap();
            assert_eq!((proxy.kind, proxy.address()), (kind, address), "{url}");
            let expected = expected.map(|(user, password)| (user.as_bytes(), password.as_bytes()));
            assert_eq!(login(&proxy), expected, "{url}");
        }
    }

    #[test]
    fn what_is_no_url_of_a_proxy_is_refused_without_repeating_it() {
        let long = format!("socks5://secret:{}@p:1", "x".repeat(256));
        for (url, reason) in [
            ("ftp://secret@p:1", Reason::Scheme),
            ("socks4://secret@p:1", Reason::Scheme),
            ("socks://secret@p:1", Reason::Scheme),
            ("https://secret@p:1", Reason::Tls),
            ("", Reason::Host),
            ("http://", Reason::Host),
            ("http://secret@", Reason::Host),
            ("http://secret@:3128", Reason::Host),
            ("http://secret@::1:3128", Reason::Host),
            ("http://secret@a<b>:1", Reason::Host),
            ("http://secret@p:0", Reason::Port),
            ("http://secret@p:99999", Reason::Port),
            ("http://p:secret", Reason::Port),
            ("http://secret p:1", Reason::Characters),
            ("http://secret\r\nX: y@p:1", Reason::Characters),
            ("http://secret@p:1/path", Reason::Extra),
            ("http://secret@p:1?x", Reason::Extra),
            ("http://secret%@p:1", Reason::Login),
            ("http://secret%4@p:1", Reason::Login),
            ("http://secret%zz@p:1", Reason::Login),
            ("http://secret%0D%0AX@p:1", Reason::Login),
            ("http://secret%3Ax:y@p:1", Reason::Login),
            ("socks5://:secret@p:1", Reason::Login),
            (&long, Reason::Login),
        ] {
            let error = Proxy::parse(url).unwrap_err();
            assert_eq!(error.reason, reason, "{url}");
            assert!(!format!("{error} {error:?}").contains("secret"), "{url}");
        }
    }

    #[test]
    fn no_credentials_are_shown() {
        let proxy = Proxy::parse("http://somebody:secret@proxy:3128").unwrap();
        let options = crate::ClientOptions::default().proxy(proxy.clone());
        let shown = format!("{proxy:?} {proxy:#?} {options:?} {options:#?}");
        assert!(shown.contains("3128"), "{shown}");
        // Nor as bytes.
        for part in ["somebody", "secret", "115, 101", "115,\n"] {
            assert!(!shown.contains(part), "{shown}");
        }
    }
}
