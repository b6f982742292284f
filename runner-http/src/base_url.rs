//! Where the Bot API server is.

use std::{error::Error, fmt, net::Ipv6Addr};

/// The address of the cloud server.
pub(crate) const CLOUD: &str = "https://api.telegram.org";

/// Checks `url` and cuts trailing slashes off.
pub(crate) fn check(url: &str) -> Result<String, BaseUrlError> {
    let (scheme, rest) = url.split_once("://").ok_or(BaseUrlError::Scheme)?;
    let is_plain = scheme.eq_ignore_ascii_case("http");
    if !is_plain && !scheme.eq_ignore_ascii_case("https") {
        return Err(BaseUrlError::Scheme);
    }
    if !url.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(BaseUrlError::Characters);
    }
    if rest.contains(['?', '#', '@', '\\']) {
        return Err(BaseUrlError::Extra);
    }
    let rest = rest.trim_end_matches('/');
    let authority = rest.split('/').next().unwrap_or_default();
    let (host, _) = host_and_port(authority)?;
    if is_plain && host.eq_ignore_ascii_case("api.telegram.org") {
        return Err(BaseUrlError::Plain);
    }
    Ok(format!("{}://{rest}", scheme.to_ascii_lowercase()))
}

/// The host, an IPv6 address without its brackets, and the port if there is one.
pub(crate) fn host_and_port(authority: &str) -> Result<(&str, Option<u16>), BaseUrlError> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').ok_or(BaseUrlError::Host)?;
            if address.parse::<Ipv6Addr>().is_err() {
                return Err(BaseUrlError::Host);
            }
            (address, port)
        }
        None => {
            let host = authority.split(':').next().unwrap_or_default();
            // Names of containers may have an underscore.
            let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            if host.is_empty() || !host.bytes().all(is_part) {
                return Err(BaseUrlError::Host);
            }
            (host, &authority[host.len()..])
        }
    };
    match port.strip_prefix(':') {
        None if port.is_empty() => Ok((host, None)),
        None => Err(BaseUrlError::Host),
        Some(port) => {
            let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
            let number = port.parse::<u16>().ok();
            match number.filter(|port| is_number && *port > 0) {
                Some(port) => Ok((host, Some(port))),
                None => Err(BaseUrlError::Port),
            }
        }
    }
}

/// Why a text is not the address of a Bot API server.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BaseUrlError {
    /// It begins with neither `https://` nor `http://`.
    Scheme,
    /// It names no host, or one that no name or address looks like.
    Host,
    /// Its port is no number from 1 to 65535.
    Port,
    /// It contains white space, control or non-ASCII characters.
    Characters,
    /// It contains a user, a query or a fragment.
    Extra,
    /// It is the cloud server without TLS: the token would be readable on the way.
    Plain,
}

impl fmt::Display for BaseUrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scheme => {
                "the base URL must begin with https://, or http:// for a server of your own"
            }
            Self::Host => "the base URL names no valid host: it looks like http://127.0.0.1:8081",
            Self::Port => {
                "the base URL has a port that is no number from 1 to 65535: it looks like http://127.0.0.1:8081"
            }
            Self::Characters => "the base URL contains characters that no URL may contain",
            Self::Extra => {
                "the base URL must be scheme, host, port and path only: the token is added to it"
            }
            Self::Plain => "api.telegram.org must be called over https://",
        })
    }
}

/// The text of the error: a `main` that returns it prints this.
impl fmt::Debug for BaseUrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for BaseUrlError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_servers_of_ones_own() {
        for (url, base) in [
            ("https://api.telegram.org", CLOUD),
            ("https://api.telegram.org/", CLOUD),
            ("HTTP://127.0.0.1:8081//", "http://127.0.0.1:8081"),
            ("http://[::1]:8081", "http://[::1]:8081"),
            ("http://[::1]", "http://[::1]"),
            ("http://bot-api:8081/tg.bot", "http://bot-api:8081/tg.bot"),
            ("http://127.0.0.1:65535", "http://127.0.0.1:65535"),
            (
                "https://example.org/proxy/tg/",
                "https://example.org/proxy/tg",
            ),
        ] {
            assert_eq!(check(url).as_deref(), Ok(base));
        }
    }

    #[test]
    fn refuses_what_would_fail_later_or_leak() {
        for (url, error) in [
            ("", BaseUrlError::Scheme),
            ("api.telegram.org", BaseUrlError::Scheme),
            ("ftp://example.org", BaseUrlError::Scheme),
            ("https://", BaseUrlError::Host),
            ("http://:8081", BaseUrlError::Host),
            ("http:///bot", BaseUrlError::Host),
            ("http://127.0.0.1:99999", BaseUrlError::Port),
            ("http://127.0.0.1:0", BaseUrlError::Port),
            ("http://127.0.0.1:", BaseUrlError::Port),
            ("http://127.0.0.1:+80", BaseUrlError::Port),
            ("http://127.0.0.1:80:80", BaseUrlError::Port),
            ("http://127.0.0.1:8081.", BaseUrlError::Port),
            ("http://[::1", BaseUrlError::Host),
            ("http://::1", BaseUrlError::Host),
            ("http://[::1]x", BaseUrlError::Host),
            ("http://[127.0.0.1]", BaseUrlError::Host),
            ("http://a<b>", BaseUrlError::Host),
            ("http://a b", BaseUrlError::Characters),
            ("http://a\r\nx: y", BaseUrlError::Characters),
            ("http://user:pass@example.org", BaseUrlError::Extra),
            ("http://example.org?x=1", BaseUrlError::Extra),
            ("http://example.org/#x", BaseUrlError::Extra),
            ("http://API.telegram.org/", BaseUrlError::Plain),
        ] {
            assert_eq!(check(url), Err(error), "{url}");
        }
    }
}
