//! How a client works: [`ClientOptions`].

use std::num::NonZeroUsize;

/// How an HTTP client works, whichever it is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClientOptions {
    /// How many calls run at a time where each needs a thread, which is in `UreqClient`; a
    /// `HyperClient` has no such bound. Default: 16, which at 50 ms a call sends 320 messages a
    /// second, ten times what the Bot API allows.
    pub threads: NonZeroUsize,
    /// What the client calls itself, in printable ASCII: the rest is left out. Default: this crate
    /// and its version.
    pub user_agent: String,
    /// The certificates trusted as roots, in DER, instead of those of Mozilla: for a Bot API server
    /// of your own. One that cannot be parsed is not trusted. Default: none, so those of Mozilla
    /// are used.
    pub root_certificates: Vec<Vec<u8>>,
}

impl ClientOptions {
    /// Sets [`threads`](Self::threads).
    #[must_use]
    pub const fn threads(mut self, threads: NonZeroUsize) -> Self {
        self.threads = threads;
        self
    }

    /// Sets [`user_agent`](Self::user_agent).
    #[must_use]
    pub fn user_agent(mut self, user_agent: impl Into<String>) -> Self {
        self.user_agent = user_agent.into();
        self
    }

    /// Sets [`root_certificates`](Self::root_certificates).
    #[must_use]
    pub fn root_certificates(mut self, certificates: impl IntoIterator<Item = Vec<u8>>) -> Self {
        self.root_certificates = certificates.into_iter().collect();
        self
    }
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            threads: const { NonZeroUsize::new(16).unwrap() },
            user_agent: concat!("runner-http/", env!("CARGO_PKG_VERSION")).to_owned(),
            root_certificates: Vec::new(),
        }
    }
}
