//! A Bot API server on loopback, for tests, demos and benchmarks of bots and of Bot API clients.
//!
//! [`LocalServer`] speaks plain HTTP on a port that the system chooses, keeps the rules of the real
//! server (`tdlib/telegram-bot-api`), records what is called, and goes wrong on request
//! ([`FaultPlan`]). It has threads of its own, so it serves bots on any runtime, or in any language:
//! all of it can be used over HTTP as well, see [`control`]. There are no features to choose. The
//! program `bot-api-local` is the same server to try a bot by hand.

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod control;

mod builder;
mod connection;
mod fault;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod http;
mod kinds;
mod methods;
mod params;
mod people;
mod poll;
mod queue;
mod record;
mod route;
mod server;
mod shared;
mod traffic;
mod wire;

pub use builder::LocalServerBuilder;
pub use fault::{Fault, FaultPlan, FaultRule, Stage};
pub use params::{File, Params};
pub use record::{Call, Connections, Poll, PollAnswer, Snapshot};
pub use server::LocalServer;
pub use traffic::{Traffic, TrafficUpdate};

// The code of the README is compiled with the other examples.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
