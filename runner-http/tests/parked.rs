//! A poll that waits for updates costs nothing: nobody polls its future meanwhile.

#![cfg(all(feature = "hyper", feature = "ureq"))]

use std::{
    future::{Future, poll_fn},
    pin::pin,
};

use runner_http::{BotApi, HttpClient, HyperClient, UreqClient};
use runner_testkit::LocalServer;
use tokio::runtime::Builder;

/// What a request takes that connects, writes, waits and reads. One that spins takes many thousand.
const ENOUGH: usize = 100;

/// The number of times that the future of a poll is polled, which the server holds for a second.
async fn count<C: HttpClient>(client: C) -> usize {
    let server = LocalServer::start().unwrap();
    let api = BotApi::with_client(server.token(), client).unwrap();
    let api = api.base_url(server.url()).unwrap();
    let params = serde_json::json!({"timeout": 1});
    let mut call = pin!(api.call::<serde_json::Value>("getUpdates", &params));
    let mut polls = 0;
    let answer = poll_fn(|cx| {
        polls += 1;
        call.as_mut().poll(cx)
    });
    assert_eq!(answer.await.unwrap(), serde_json::json!([]));
    polls
}

/// Wakers of tokio's `block_on` do not know their clones in every build.
#[test]
fn a_parked_poll_is_left_alone() {
    for mut tokio in [Builder::new_current_thread(), Builder::new_multi_thread()] {
        let tokio = tokio.build().unwrap();
        let polls = tokio.block_on(count(HyperClient::new()));
        assert!(polls < ENOUGH, "hyper: {polls}");
        let polls = tokio.block_on(count(UreqClient::new()));
        assert!(polls < ENOUGH, "ureq: {polls}");
    }
    let polls = async_io::block_on(count(HyperClient::new()));
    assert!(polls < ENOUGH, "hyper: {polls}");
}
