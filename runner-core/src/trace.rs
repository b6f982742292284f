//! `tracing` where the feature is on, nothing where it is off.

use std::{error::Error, fmt};

/// An error with all its sources, on one line.
pub(crate) struct Chain<'a>(pub(crate) &'a (dyn Error + 'a));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
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
