//! Runs the update runner on tokio.
//!
//! - [`run`] is all that most bots need: it blocks, brings its own tokio runtime and ends at Ctrl-C.
//! - [`serve`] does the same inside a tokio runtime that exists already.
//! - [`Tokio`] is that runtime for everything else: with a handle to start, stop and look inside,
//!   and without signals.
//!
//! Anything of tokio may be used in handlers. There are no features to choose.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod run;
mod runtime;
mod signals;

pub use self::{
    run::{run, run_with, serve},
    runtime::Tokio,
};

// The code of the README is compiled with the other examples.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
