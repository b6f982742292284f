//! For tests: a simulated runtime.

mod sim;

pub use self::sim::{SimRuntime, for_each_seed};
