//! The requests of a connection to the local server.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| runner_testkit::fuzzing::request(data));
