//! For tests: a simulated runtime, a Bot API in memory, a scripted supplier, a recording consumer, and a
//! suite for runtimes.
//!
//! Needs the feature `test-util`.

pub mod conformance;
mod fake_api;
mod recorder;
mod script;
mod sim;

pub use self::{
    fake_api::{FakeApi, Ids},
    recorder::{End, Entry, Log, Plan, Recorder},
    script::{Call, Close, Script, ScriptedSupplier, Step},
    sim::{SimRuntime, for_each_seed},
};
