//! Runs the update runner on tokio.
