//! Runs the update runner on tokio.

mod runtime;

pub use self::runtime::Tokio;
