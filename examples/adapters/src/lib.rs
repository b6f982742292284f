//! What both examples do with their adapter: try the contract of `GetUpdates`, and hold a conversation.

use std::{pin::pin, sync::Arc, thread, time::Duration};

use futures::{channel::oneshot, future::select};
use runner::{GetUpdates, Report, RunnerHandle, SupplyError, UpdatesRequest};
use runner_testkit::{Fault, FaultPlan, FaultRule, LocalServer, Traffic};

/// Far more than it takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Prints what becomes of each failure of the server, and whether a dropped poll closes its
/// connection.
///
/// # Panics
///
/// If a call succeeds that should fail, or the connection stays open.
pub async fn contract<G: GetUpdates>(connect: impl Fn(&LocalServer) -> G) {
    for (what, fault) in [
        ("429", Fault::TooManyRequests(3)),
        ("401", Fault::Unauthorized),
        ("404", Fault::NotFound),
        ("409", Fault::Conflict),
        ("no JSON", Fault::EmptyBody),
        ("cut off", Fault::Reset),
        ("closed", Fault::CloseUnanswered),
    ] {
        let faults = FaultPlan::new(0).rule(FaultRule::new(fault));
        let server = LocalServer::builder().faults(faults).start();
        let server = server.expect("there is a port");
        println!("{what:<8} -> {}", failure(&mut connect(&server)).await);
    }
    let server = LocalServer::start().expect("there is a port");
    server.set_webhook("https://example.org/");
    let mut api = connect(&server);
    println!("{:<8} -> {}", "webhook", failure(&mut api).await);
    let deleted = api.delete_webhook(false).await.map_err(Into::into);
    deleted.expect("deleteWebhook succeeds");
    drop(server);
    println!("{:<8} -> {}", "gone", failure(&mut api).await);

    let server = Arc::new(LocalServer::start().expect("there is a port"));
    let mut api = connect(&server);
    let (arrived, has_arrived) = oneshot::channel();
    let watching = Arc::clone(&server);
    thread::spawn(move || {
        watching.wait_until(|state| state.is_polled, PATIENCE);
        arrived.send(())
    });
    let mut request = UpdatesRequest::default();
    request.timeout = Duration::from_secs(50);
    select(pin!(api.get_updates(&request)), has_arrived).await;
    assert!(
        server.wait_until(|state| state.connections.open == 0, PATIENCE),
        "the connection of a dropped poll is still open"
    );
    // And the next poll works.
    server.push_message(1, 1, "hello");
    request.timeout = Duration::ZERO;
    let updates = api.get_updates(&request).await.map_err(Into::into);
    let count = updates.expect("the poll succeeds").len();
    println!("a dropped poll closes its connection, the next one brings {count} update");
}

async fn failure<G: GetUpdates>(api: &mut G) -> SupplyError {
    match api.get_updates(&UpdatesRequest::default()).await {
        Ok(_) => panic!("this call should fail"),
        Err(error) => error.into(),
    }
}

/// A server with what the bot is to answer, one update among it that nobody can decode. The first
/// poll is refused.
///
/// # Panics
///
/// If there is no port.
#[must_use]
pub fn server() -> Arc<LocalServer> {
    let faults = FaultPlan::new(0).once(Fault::TooManyRequests(1));
    let server = LocalServer::builder().faults(faults).start();
    let server = server.expect("there is a port");
    for number in 1..=3 {
        server.push_message(1, 1, &format!("{number}"));
        server.push_message(2, 2, &format!("{}", number * 10));
        if number == 2 {
            let update = Traffic::undecodable();
            server.push_raw(update.kind, &update.body);
        }
    }
    Arc::new(server)
}

/// Stops the bot when it has answered all of it.
pub fn stop_when_answered<U: Send + Sync + 'static>(
    server: &Arc<LocalServer>,
    handle: RunnerHandle<U>,
) {
    let server = Arc::clone(server);
    thread::spawn(move || {
        server.wait_until(|state| state.calls >= 6 && state.is_polled, PATIENCE);
        drop(handle.stop());
    });
}

/// Prints what the bot has answered, and the report.
pub fn show<U>(server: &LocalServer, report: &Report<U>) {
    for chat in [1, 2] {
        let replies = server.calls_of("sendMessage");
        let replies = replies.iter().filter(|call| call.chat_id() == Some(chat));
        let texts: Vec<_> = replies.filter_map(|call| call.text()).collect();
        println!("chat {chat}: {}", texts.join(", "));
    }
    let counters = &report.counters;
    println!(
        "{} finished, {} undecodable, {} still at the server",
        counters.finished,
        counters.undecodable,
        server.pending()
    );
}
