//! What the command line says.

use std::time::Duration;

/// All of it.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) runtime: Runtime,
    /// How long traffic comes in.
    pub(crate) span: Duration,
    /// Updates per second.
    pub(crate) rate: u32,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Runtime {
    Tokio,
    Smol,
}

const USAGE: &str = "usage: echo [--runtime tokio|smol] [--seconds N] [--rate N]";

impl Options {
    pub(crate) fn from_args(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            runtime: Runtime::Tokio,
            span: Duration::from_secs(10),
            rate: 500,
        };
        while let Some(name) = args.next() {
            let value = args
                .next()
                .ok_or_else(|| format!("{name} needs a value; {USAGE}"))?;
            let number = || {
                value
                    .parse::<u32>()
                    .map_err(|_| format!("{name} takes a whole number, not {value:?}; {USAGE}"))
            };
            match (name.as_str(), value.as_str()) {
                ("--runtime", "tokio") => options.runtime = Runtime::Tokio,
                ("--runtime", "smol") => options.runtime = Runtime::Smol,
                ("--seconds", _) => options.span = Duration::from_secs(number()?.into()),
                ("--rate", _) => options.rate = number()?.max(1),
                _ => return Err(format!("unknown option {name} {value}; {USAGE}")),
            }
        }
        Ok(options)
    }
}
