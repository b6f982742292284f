//! The suite for [`UreqClient`], without a runtime and inside both.
//!
//! One test, because the suite counts the threads of the whole process.

use runner_http::{UreqClient, testing};

#[test]
fn ureq_client_conforms() {
    let alone = testing::conformance(UreqClient::default);
    println!("no runtime: {alone:?}");

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    let tokio = testing::conformance_on(UreqClient::default, |case| runtime.block_on(case));
    println!("inside tokio: {tokio:?}");

    let smol = testing::conformance_on(UreqClient::default, |case| async_io::block_on(case));
    println!("on async-io: {smol:?}");
}
