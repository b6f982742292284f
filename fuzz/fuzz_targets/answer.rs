//! The answer to a poll, split into updates.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| runner_http::fuzzing::answer(data));
