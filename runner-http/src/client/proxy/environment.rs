//! Which proxy the environment names, by the rules of curl: [`Environment`].

use std::{env::VarError, fmt, net::IpAddr};

use super::{Proxy, ProxyError, Reason};

/// What the variables said when they were read.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    /// For servers behind https.
    https: Option<Proxy>,
    /// For the others.
    http: Option<Proxy>,
    exceptions: Exceptions,
}

impl Environment {
    /// `variable` returns the value of a variable.
    ///
    /// The spelling in lower case counts first, and an empty value is none, as in curl.
    pub(super) fn read(
        variable: impl Fn(&'static str) -> Result<String, VarError>,
    ) -> Result<Self, ProxyError> {
        let find = |names: &[&'static str]| {
            names.iter().find_map(|name| match variable(name) {
                Ok(value) if value.trim().is_empty() => None,
                Ok(value) => Some((*name, Ok(value))),
                Err(VarError::NotPresent) => None,
                Err(VarError::NotUnicode(_)) => Some((*name, Err(Reason::Characters))),
            })
        };
        let proxy = |names: &[&'static str]| {
            let Some((name, value)) = find(names) else {
                return Ok(None);
            };
            let proxy = value.and_then(|url| Proxy::read(url.trim()));
            proxy.map(Some).map_err(|reason| ProxyError {
                variable: Some(name),
                reason,
            })
        };
        let exceptions = match find(&["no_proxy", "NO_PROXY"]) {
            None => Exceptions::default(),
            Some((_, Ok(list))) => Exceptions::parse(&list),
            // Else hosts that should be reached directly would not be.
            Some((name, Err(reason))) => {
                return Err(ProxyError {
                    variable: Some(name),
                    reason,
                });
            }
        };
        Ok(Self {
            https: proxy(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])?,
            // HTTP_PROXY is not read: in a CGI program, a client sets it with a header `Proxy`.
            http: proxy(&["http_proxy", "all_proxy", "ALL_PROXY"])?,
            exceptions,
        })
    }

    pub(super) fn proxy(&self, is_secure: bool, host: &str, port: u16) -> Option<&Proxy> {
        let proxy = if is_secure { &self.https } else { &self.http };
        let proxy = proxy.as_ref()?;
        (!self.exceptions.contain(host, port)).then_some(proxy)
    }
}

/// The hosts that are reached directly.
#[derive(Default)]
struct Exceptions(Vec<Exception>);

struct Exception {
    host: Hosts,
    /// Any, if there is none.
    port: Option<u16>,
}

enum Hosts {
    All,
    /// An address, and how many of its bits count.
    Network(IpAddr, u32),
    /// A domain and all names in it.
    Domain(String),
}

impl Exceptions {
    /// A list, separated by commas or white space. What makes no sense matches nothing.
    fn parse(list: &str) -> Self {
        let items = list.split(|c: char| c == ',' || c.is_whitespace());
        Self(items.filter_map(Exception::parse).collect())
    }

    fn contain(&self, host: &str, port: u16) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        let address = host.parse::<IpAddr>().ok();
        self.0.iter().any(|exception| {
            exception.port.is_none_or(|only| only == port) && exception.host.contain(host, address)
        })
    }
}

impl Exception {
    fn parse(item: &str) -> Option<Self> {
        // An IPv6 address without brackets has colons and no port.
        let (host, port) = match item.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
                (host, Some(port.parse().ok()?))
            }
            _ => (item, None),
        };
        let host = match host.strip_prefix('[') {
            Some(host) => host.strip_suffix(']')?,
            None => host,
        };
        Some(Self {
            host: Hosts::parse(host)?,
            port,
        })
    }
}

impl Hosts {
    fn parse(host: &str) -> Option<Self> {
        if host == "*" {
            return Some(Self::All);
        }
        let (address, length) = match host.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (host, None),
        };
        if let Ok(address) = address.parse::<IpAddr>() {
            let bits = if address.is_ipv4() { 32 } else { 128 };
            let length = match length {
                Some(length) => length.parse().ok().filter(|length| *length <= bits)?,
                None => bits,
            };
            return Some(Self::Network(address, length));
        }
        let domain = host.strip_prefix('.').unwrap_or(host);
        let domain = domain.strip_suffix('.').unwrap_or(domain);
        (!domain.is_empty()).then(|| Self::Domain(domain.to_ascii_lowercase()))
    }

    fn contain(&self, host: &str, address: Option<IpAddr>) -> bool {
        match (self, address) {
            (Self::All, _) => true,
            (Self::Network(IpAddr::V4(network), length), Some(IpAddr::V4(address))) => {
                let differ = u32::from(*network) ^ u32::from(address);
                differ.leading_zeros() >= *length
            }
            (Self::Network(IpAddr::V6(network), length), Some(IpAddr::V6(address))) => {
                let differ = u128::from(*network) ^ u128::from(address);
                differ.leading_zeros() >= *length
            }
            (Self::Domain(domain), None) => {
                let host = host.to_ascii_lowercase();
                let rest = host.strip_suffix(domain);
                rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
            _ => false,
        }
    }
}

impl fmt::Debug for Exceptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Exceptions").field(&self.0.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Environment, ProxyError> {
        Environment::read(|name| {
            let found = variables.iter().find(|(other, _)| *other == name);
            let value = found.map(|(_, value)| (*value).to_owned());
            value.ok_or(VarError::NotPresent)
        })
    }

    /// The hosts of the proxies for https and for http.
    fn hosts(variables: &[(&str, &str)]) -> [Option<String>; 2] {
        let environment = read(variables).unwrap();
        [true, false].map(|is_secure| {
            let proxy = environment.proxy(is_secure, "api.telegram.org", 443);
            proxy.map(|proxy| proxy.address().0.to_owned())
        })
    }

    #[test]
    fn variables_are_read_as_curl_reads_them() {
        for (variables, https, http) in [
            (&[][..], None, None),
            (&[("HTTPS_PROXY", "a:1")], Some("a"), None),
            (&[("https_proxy", "a:1")], Some("a"), None),
            (
                &[("HTTPS_PROXY", "a:1"), ("https_proxy", "b:1")],
                Some("b"),
                None,
            ),
            (
                &[("https_proxy", " "), ("HTTPS_PROXY", "a:1")],
                Some("a"),
                None,
            ),
            (
                &[("ALL_PROXY", "socks5h://a"), ("HTTPS_PROXY", "b:1")],
                Some("b"),
                Some("a"),
            ),
            (
                &[("ALL_PROXY", "a"), ("all_proxy", "b")],
                Some("b"),
                Some("b"),
            ),
            (&[("http_proxy", "a:1")], None, Some("a")),
            // Whoever calls a CGI program sets this one.
            (&[("HTTP_PROXY", "a:1")], None, None),
            (&[("ALL_PROXY", "a"), ("NO_PROXY", "*")], None, None),
            (
                &[
                    ("ALL_PROXY", "a"),
                    ("NO_PROXY", "*"),
                    ("no_proxy", "other.org"),
                ],
                Some("a"),
                Some("a"),
            ),
        ] {
            let expected = [https, http].map(|host: Option<&str>| host.map(str::to_owned));
            assert_eq!(hosts(variables), expected, "{variables:?}");
        }
    }

    #[test]
    fn a_wrong_value_is_reported_with_its_variable_and_not_repeated() {
        let error = read(&[("ALL_PROXY", "socks4://u:secret@h")]).unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(text.starts_with("ALL_PROXY: "), "{text}");
        assert!(!text.contains("secret"), "{text}");

        let error = Environment::read(|name| match name {
            "NO_PROXY" => Err(VarError::NotUnicode(OsString::new())),
            _ => Err(VarError::NotPresent),
        });
        assert!(error.unwrap_err().to_string().starts_with("NO_PROXY: "));
    }

    #[test]
    fn exceptions_are_matched_by_suffix_port_and_address() {
        for (list, host, port, expected) in [
            ("telegram.org", "api.telegram.org", 443, true),
            (".telegram.org", "api.telegram.org", 443, true),
            ("telegram.org.", "API.Telegram.org.", 443, true),
            (".telegram.org", "telegram.org", 443, true),
            ("telegram.org", "nottelegram.org", 443, false),
            ("api.telegram.org", "telegram.org", 443, false),
            ("*.telegram.org", "api.telegram.org", 443, false),
            ("a.org, telegram.org", "api.telegram.org", 443, true),
            ("a.org telegram.org", "api.telegram.org", 443, true),
            (",, ,", "api.telegram.org", 443, false),
            ("a.org,*", "api.telegram.org", 443, true),
            ("telegram.org:443", "api.telegram.org", 443, true),
            ("telegram.org:80", "api.telegram.org", 443, false),
            ("telegram.org:x", "api.telegram.org", 443, false),
            ("*:8081", "bot-api", 8081, true),
            ("127.0.0.1", "127.0.0.1", 80, true),
            ("127.0.0.1:81", "127.0.0.1", 80, false),
            ("0.0.1", "127.0.0.1", 80, false),
            ("1", "127.0.0.1", 80, false),
            ("10.0.0.0/8", "10.200.0.1", 80, true),
            ("10.0.0.0/8", "11.0.0.1", 80, false),
            ("0.0.0.0/0", "11.0.0.1", 80, true),
            ("0.0.0.0/0", "::1", 80, false),
            ("10.0.0.0/33", "10.0.0.0", 80, false),
            ("::1", "::1", 80, true),
            ("[::1]", "0:0::1", 80, true),
            ("[::1]:80", "::1", 80, true),
            ("[::1]:81", "::1", 80, false),
            ("fe80::/10", "fe90::1", 80, true),
            ("[::1", "::1", 80, false),
        ] {
            let exceptions = Exceptions::parse(list);
            let found = exceptions.contain(host, port);
            assert_eq!(found, expected, "{host}:{port} in {list:?}");
        }
    }
}
