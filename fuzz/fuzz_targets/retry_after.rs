//! A refusal, and how long it says to wait.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| runner_http::fuzzing::retry_after(data));
