//! What the benchmarks share: workloads, the hand-written loops they are compared with, and tables.

pub mod baseline;
pub mod runtime;
pub mod table;
pub mod workload;
