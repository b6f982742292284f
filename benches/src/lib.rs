//! What the benchmarks share: workloads, the hand-written loops they are compared with, figures and
//! tables.

pub mod baseline;
pub mod data;
pub mod process;
pub mod runtime;
pub mod table;
pub mod workload;
