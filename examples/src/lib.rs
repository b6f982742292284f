//! One runnable file per question a user asks.
