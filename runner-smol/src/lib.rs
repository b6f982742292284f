//! Runs the update runner on async-executor and async-io.
