//! The suite for both clients through real proxies. What holds for a direct connection holds through
//! a proxy, but for what a proxy passes on late.
//!
//! One test, because the suite counts the threads of the whole process.

mod proxy_programs;

use proxy_programs::Program;
use runner_http::{ClientOptions, HyperClient, UreqClient, testing};

#[test]
fn both_clients_conform_through_proxies() {
    for (name, program) in [
        ("tinyproxy", Program::tinyproxy()),
        ("microsocks", Program::microsocks()),
    ] {
        let Some(program) = program else { continue };
        let options = || ClientOptions::default().proxy(program.proxy());
        let measured = testing::conformance_through_proxy(|| HyperClient::with_options(options()));
        println!("hyper through {name}: {measured:?}");
        let measured = testing::conformance_through_proxy(|| UreqClient::with_options(options()));
        println!("ureq through {name}: {measured:?}");
    }
}
