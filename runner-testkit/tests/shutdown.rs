//! A server that is dropped leaves nothing behind. Alone in its file, because it counts threads.

#![cfg(target_os = "linux")]

mod common;

use std::{
    fs,
    time::{Duration, Instant},
};

use common::{Client, SOON};
use runner_testkit::{Fault, FaultPlan, FaultRule, LocalServer, Stage};

/// How many threads of servers there are.
fn threads() -> usize {
    fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .filter(|name| name.starts_with("testkit"))
        .count()
}

#[test]
fn whatever_its_threads_do_they_end_at_once() {
    let long = Duration::from_secs(600);
    let plan = FaultPlan::new(1)
        .rule(FaultRule::new(Fault::HalfOpen).method("a"))
        .rule(FaultRule::new(Fault::Delay(long)).method("b"))
        .rule(
            FaultRule::new(Fault::Delay(long))
                .method("c")
                .stage(Stage::After),
        )
        .rule(FaultRule::new(Fault::Trickle(long)).method("d"));
    let server = LocalServer::builder().faults(plan).start().unwrap();

    let mut clients = Vec::new();
    let methods = ["a", "b", "c", "d", "getUpdates?timeout=50", "getMe"];
    for method in methods {
        let mut client = Client::new(&server);
        client.ask(method);
        clients.push(client);
    }
    // These two conflict, and the second 409 is held back for three seconds.
    for _ in 0..2 {
        let mut client = Client::new(&server);
        client.ask("getUpdates?timeout=50");
        clients.push(client);
    }
    let mut watcher = Client::new(&server);
    watcher.send("GET /control/wait?method=never&timeout=300 HTTP/1.1\r\n\r\n");
    clients.push(watcher);

    let is_busy = |state: &runner_testkit::Snapshot| {
        state.polls == 3 && state.calls == 3 && state.connections.opened == 9
    };
    assert!(server.wait_until(is_busy, SOON), "{server:?}");
    assert!(threads() > 1);

    let start = Instant::now();
    drop(server);
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(threads(), 0);

    // A server that nobody has used ends as well.
    drop(LocalServer::start().unwrap());
    assert_eq!(threads(), 0);
}
