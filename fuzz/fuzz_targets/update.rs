//! One update, decoded and looked at.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| runner_http::fuzzing::update(data));
