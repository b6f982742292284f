//! Runs the update runner on async-executor and async-io.

mod guard;
mod runtime;

pub use self::runtime::Smol;
