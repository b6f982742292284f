//! For tests: a simulated runtime, a scripted supplier, a recording consumer, and a suite for runtimes.

pub mod conformance;
mod recorder;
mod script;
mod sim;

pub use self::{
    recorder::{End, Entry, Log, Plan, Recorder},
    script::{Call, Close, Script, ScriptedSupplier, Step},
    sim::{SimRuntime, for_each_seed},
};
