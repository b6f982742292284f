//! Runs the update runner on async-executor and async-io.
//!
//! - [`run`] is all that most bots need: it blocks, brings its own executor and ends at Ctrl-C.
//! - [`serve`] does the same in async code; [`serve_on`] does it on an executor that exists already.
//! - [`Smol`] is the executor for everything else: with a handle to start, stop and look inside, and
//!   without signals.
//!
//! Anything of the smol family may be used in handlers. There are no features to choose.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod guard;
mod run;
mod runtime;
mod signals;

pub use self::{
    run::{run, run_with, serve, serve_on},
    runtime::Smol,
};

// The code of the README is compiled with the other examples.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
