//! `tracing` where the feature is on, nothing where it is off.

use std::{error::Error, fmt};

use crate::panics::guarded;

/// An error with all its sources, on one line. The text of an error is code of the user: a panic in it
/// shows up as a part of the line.
pub(crate) struct Chain<'a>(pub(crate) &'a (dyn Error + 'a));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let write = || {
            write!(f, "{}", self.0)?;
            let mut source = self.0.source();
            while let Some(error) = source {
                write!(f, ": {error}")?;
                source = error.source();
            }
            Ok(())
        };
        let written = guarded(write);
        written.unwrap_or_else(|panic| write!(f, "(its text panicked: {panic})"))
    }
}

/// Logs a line about an update: by `$level`, with a [`Label`](crate::queue::Label) and an attempt.
macro_rules! log_update {
    ($level:ident, $label:expr, $attempt:expr, $($rest:tt)*) => {
        $level!(
            update = $label.id,
            attempt = $attempt.get(),
            keys = $label.keys.as_deref(),
            kind = $label.kind.as_deref(),
            $($rest)*
        )
    };
}

pub(crate) use log_update;

/// Whether anybody listens to what is logged.
pub(crate) fn has_subscriber() -> bool {
    #[cfg(feature = "tracing")]
    let set = tracing::dispatcher::has_been_set();
    #[cfg(not(feature = "tracing"))]
    let set = false;
    set
}

#[cfg(feature = "tracing")]
#[allow(unused_imports, reason = "the set is complete, whoever uses it")]
pub(crate) use tracing::{debug, error, info, warn};

#[cfg(not(feature = "tracing"))]
mod off {
    /// Type-checks the arguments and does nothing.
    macro_rules! nothing {
        ($($name:ident = $(%)? $(?)? $value:expr,)* $text:literal $(,)?) => {{
            $(let _ = &$value;)*
            let _ = $text;
        }};
    }

    #[allow(unused_imports, reason = "the set is complete, whoever uses it")]
    pub(crate) use {nothing as debug, nothing as error, nothing as info, nothing as warn};
}

#[cfg(not(feature = "tracing"))]
#[allow(unused_imports, reason = "the set is complete, whoever uses it")]
pub(crate) use off::{debug, error, info, warn};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_panics_harms_nobody() {
        #[derive(Debug)]
        struct Bad;
        impl fmt::Display for Bad {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                panic!("no text");
            }
        }
        impl Error for Bad {}
        let cause = crate::Cause::Error(std::sync::Arc::new(Bad));
        let text = Chain(&cause).to_string();
        assert_eq!(text, "the handler failed: (its text panicked: no text)");
    }
}
