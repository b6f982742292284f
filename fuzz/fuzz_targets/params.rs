//! The local server's parameters, in every encoding.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| runner_testkit::fuzzing::params(data));
