//! How a client works: [`ClientOptions`].

use std::{error::Error, fmt, num::NonZeroUsize, time::Duration};

use runner_core::BoxError;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

use super::proxy::{Proxy, ProxyError, Route};

/// How an HTTP client works, whichever it is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClientOptions {
    /// How many calls run at a time at most where each needs a thread, which is in `UreqClient`; a
    /// `HyperClient` has no such bound. Default: 500, as many as handlers run at a time by default. A
    /// thread that waits for an answer costs little memory, and ends after 15 s without work.
    pub threads: NonZeroUsize,
    /// How long a call waits for a thread or a connection before it fails with
    /// [`HttpErrorKind::Busy`](crate::HttpErrorKind::Busy). Default: 30 s.
    pub max_wait: Duration,
    /// What the client calls itself, in printable ASCII: the rest is left out. Default: this crate
    /// and its version.
    pub user_agent: String,
    /// Checked. If there are none, those of Mozilla are trusted.
    pub(crate) roots: Vec<CertificateDer<'static>>,
    pub(crate) route: Route,
}

impl ClientOptions {
    /// Sets [`threads`](Self::threads).
    #[must_use]
    pub const fn threads(mut self, threads: NonZeroUsize) -> Self {
        self.threads = threads;
        self
    }

    /// Sets [`max_wait`](Self::max_wait).
    #[must_use]
    pub const fn max_wait(mut self, max_wait: Duration) -> Self {
        self.max_wait = max_wait;
        self
    }

    /// Sets [`user_agent`](Self::user_agent).
    #[must_use]
    pub fn user_agent(mut self, user_agent: impl Into<String>) -> Self {
        self.user_agent = user_agent.into();
        self
    }

    /// Connects to every server through this proxy, also to those on this machine. Default: none, whatever
    /// the environment says. Of several calls of this and of [`proxy_from_env`](Self::proxy_from_env), the
    /// last one counts.
    ///
    /// The connection to the proxy counts towards [`Limits::connect`](crate::Limits::connect), as does its
    /// answer. A proxy that refuses makes a call fail with
    /// [`HttpErrorKind::Connect`](crate::HttpErrorKind::Connect), which is worth another attempt; the source
    /// of the error says what the proxy answered.
    #[must_use]
    pub fn proxy(mut self, proxy: Proxy) -> Self {
        self.route = Route::Through(proxy);
        self
    }

    /// Connects through the proxies that the environment names, as curl does: decided for each server.
    ///
    /// - `HTTPS_PROXY`, or else `ALL_PROXY`, for servers behind https. `http_proxy`, or else `ALL_PROXY`, for
    ///   the others. Each is a URL for [`Proxy::parse`].
    /// - `NO_PROXY`: a list, separated by commas, of hosts to connect to directly. A domain stands for itself
    ///   and all names in it. An address may be a network (`10.0.0.0/8`). Both may have a port
    ///   (`[::1]:8081`). `*` is every host.
    /// - Each name may be in lower case, which counts first. An empty value is none. `HTTP_PROXY` in upper
    ///   case is not read: in a CGI program, whoever sends the request sets it.
    ///
    /// Reads the environment now. If it names no proxy, connections are direct.
    ///
    /// # Errors
    ///
    /// [`ProxyError`] with the name of the variable if its value cannot be used, also if no request would
    /// need it.
    pub fn proxy_from_env(mut self) -> Result<Self, ProxyError> {
        self.route = Route::from_env()?;
        Ok(self)
    }

    /// Trusts these root certificates instead of those of Mozilla: for a Bot API server of your own, or
    /// a company's proxy. Each item is the content of a file: one certificate in DER, or any number of
    /// them in PEM. Adds to those that were given before.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use runner_http::ClientOptions;
    ///
    /// let options = ClientOptions::default()
    ///     .root_certificates([std::fs::read("/etc/ssl/company.pem")?])?;
    /// # let _ = options;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`CertificateError`] if one of them is no certificate, or there is none.
    pub fn root_certificates(
        mut self,
        files: impl IntoIterator<Item = impl AsRef<[u8]>>,
    ) -> Result<Self, CertificateError> {
        let known = self.roots.len();
        for (index, file) in files.into_iter().enumerate() {
            let fail = |reason: BoxError| CertificateError {
                place: format!("root certificate {}", index + 1),
                reason,
            };
            let file = file.as_ref();
            if !is_pem(file) {
                let der = CertificateDer::from(file.to_vec());
                self.roots.push(check(der).map_err(fail)?);
                continue;
            }
            let before = self.roots.len();
            for der in CertificateDer::pem_slice_iter(file) {
                let der = der.map_err(|error| fail(error.to_string().into()))?;
                self.roots.push(check(der).map_err(fail)?);
            }
            if self.roots.len() == before {
                return Err(fail("the PEM text has no section CERTIFICATE".into()));
            }
        }
        if self.roots.len() == known {
            return Err(CertificateError {
                place: "the list of root certificates".to_owned(),
                reason: "it is empty".into(),
            });
        }
        Ok(self)
    }

    /// Trusts the root certificates of the system instead of those of Mozilla, or those in the file or
    /// the folder that the variables `SSL_CERT_FILE` and `SSL_CERT_DIR` name. Adds to those that were
    /// given before.
    ///
    /// Reads them now: a change on the system is noticed by the next client.
    ///
    /// # Errors
    ///
    /// [`CertificateError`] if none can be read. Single ones that cannot be read are left out, because a
    /// system may have hundreds.
    #[cfg(feature = "native-certs")]
    pub fn system_roots(mut self) -> Result<Self, CertificateError> {
        let found = rustls_native_certs::load_native_certs();
        let known = self.roots.len();
        let valid = found.certs.into_iter().filter_map(|der| check(der).ok());
        self.roots.extend(valid);
        if self.roots.len() > known {
            return Ok(self);
        }
        let reason = found.errors.into_iter().next();
        Err(CertificateError {
            place: "the list of the system's root certificates".to_owned(),
            reason: reason.map_or_else(|| "it is empty".into(), Into::into),
        })
    }
}

/// Whether it is text; DER begins with a byte that no PEM file has there.
fn is_pem(file: &[u8]) -> bool {
    file.first() != Some(&0x30)
}

/// The certificate, if it can be a root.
fn check(der: CertificateDer<'static>) -> Result<CertificateDer<'static>, BoxError> {
    RootCertStore::empty().add(der.clone())?;
    Ok(der)
}

/// Why root certificates cannot be trusted. Its source says what is wrong.
#[derive(Debug)]
pub struct CertificateError {
    place: String,
    reason: BoxError,
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} cannot be used: give the content of files in PEM (-----BEGIN CERTIFICATE-----) or DER",
            self.place
        )
    }
}

impl Error for CertificateError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.reason)
    }
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            threads: const { NonZeroUsize::new(500).unwrap() },
            max_wait: Duration::from_secs(30),
            user_agent: concat!("runner-http/", env!("CARGO_PKG_VERSION")).to_owned(),
            roots: Vec::new(),
            route: Route::Direct,
        }
    }
}
