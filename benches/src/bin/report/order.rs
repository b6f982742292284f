//! What a bot in a process of its own is to do, as words on its command line.

use std::{error::Error, str::FromStr};

/// An enum whose values have names.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($value:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $name {
            $($value,)*
        }

        impl $name {
            pub(crate) const fn word(self) -> &'static str {
                match self {
                    $(Self::$value => $word,)*
                }
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(word: &str) -> Result<Self, String> {
                match word {
                    $($word => Ok(Self::$value),)*
                    _ => Err(format!("no such {}: {word}", stringify!($name))),
                }
            }
        }
    };
}

words! {
    /// Who fetches and handles.
    Who {
        Runner = "runner",
        Hand = "by hand",
        Floor = "floor",
    }
}

words! {
    /// The runtime.
    On {
        Tokio = "tokio",
        Smol = "smol",
    }
}

words! {
    /// The HTTP client.
    Client {
        Ureq = "ureq",
        Hyper = "hyper",
    }
}

words! {
    /// What a handler does.
    Work {
        Noop = "noop",
        Wait = "wait",
        Echo = "echo",
        Hot = "hot",
    }
}

/// All of it.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) who: Who,
    pub(crate) on: On,
    pub(crate) client: Client,
    pub(crate) work: Work,
    /// After how many updates it tells how long they took; 0: it tells nothing.
    pub(crate) count: u64,
    pub(crate) concurrency: usize,
    pub(crate) url: String,
    pub(crate) token: String,
}

impl Order {
    pub(crate) fn args(&self) -> [String; 8] {
        [
            self.who.word().into(),
            self.on.word().into(),
            self.client.word().into(),
            self.work.word().into(),
            self.count.to_string(),
            self.concurrency.to_string(),
            self.url.clone(),
            self.token.clone(),
        ]
    }

    pub(crate) fn parse(args: &[String]) -> Result<Self, Box<dyn Error>> {
        let [who, on, client, work, count, concurrency, url, token] = args else {
            return Err("a bot needs eight words".into());
        };
        Ok(Self {
            who: who.parse()?,
            on: on.parse()?,
            client: client.parse()?,
            work: work.parse()?,
            count: count.parse()?,
            concurrency: concurrency.parse()?,
            url: url.clone(),
            token: token.clone(),
        })
    }
}
