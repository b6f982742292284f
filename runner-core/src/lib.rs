//! Pulls updates from a supplier and hands them to a handler: in order by key, bounded, timed, on
//! any async runtime.
//!
//! Knows no executor, no socket and no JSON.

mod consume;
mod delivery;
mod get_updates;
mod key;
mod policy;
mod runtime;
mod supply;
mod ticket;
mod trace;

pub use self::{
    consume::{BoxConsumer, HandlerOutput, UpdateConsumer},
    delivery::Delivery,
    get_updates::{GetUpdates, UpdatesRequest},
    key::{Key, Value},
    policy::{Cause, ErrorPolicy, Failure, SkipFailed, Undecodable, Verdict},
    runtime::{BoxFuture, Runtime, RuntimeExt},
    supply::{BoxError, BoxSupplier, Closing, Confirmation, Conflict, SupplyError, UpdateSupplier},
};
