//! What happens to updates that are not handled: retries, giving up, and undecodable ones.
//!
//! ```sh
//! cargo run --example error_policy
//! ```
//!
//! A bot polls a local Bot API server and gets five updates. One is handled, one fails twice and
//! then succeeds, one fails always, one makes the handler panic, and one cannot be decoded. The
//! policy decides about each failed attempt and keeps the bytes of what it gives up. The panic also
//! prints its message to stderr, as any panic does.

use std::{
    error::Error,
    sync::{Arc, Mutex},
    time::Duration,
};

use runner::{Bot, BotApi, Cause, Delivery, Failure, Incoming, Update, Verdict};
use runner_testkit::LocalServer;

/// What was given up: a dead letter queue for the poor.
type Letters = Arc<Mutex<Vec<String>>>;

async fn handle(update: Delivery<Update>) -> Result<(), String> {
    match (update.text(), update.attempt().get()) {
        (Some("flaky"), 1 | 2) => Err("the database is away".into()),
        (Some("broken"), _) => Err("never works".into()),
        (Some("bug"), _) => panic!("index out of bounds, say"),
        _ => Ok(()),
    }
}

fn decide(letters: &Letters, failure: &Failure<Incoming>) -> Verdict {
    let attempt = failure.update.attempt().get();
    match &failure.cause {
        // It may have been handled in part: retry only what may happen twice.
        Cause::Error(_) if attempt < 3 => {
            let after = Duration::from_millis(20) * attempt;
            Verdict::Retry { after }
        }
        cause => {
            // The policy sees the update as it was fetched, so the bytes are there in any case.
            let bytes = String::from_utf8_lossy(failure.update.raw());
            let end = bytes.rsplit(',').next().unwrap_or_default();
            let letter = format!("attempt {attempt}: {cause}; its bytes end with {end}");
            letters.lock().expect("nobody panics with it").push(letter);
            Verdict::Skip
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let server = LocalServer::start()?;
    for text in ["fine", "flaky", "broken", "bug"] {
        server.push_message(7, 7, text);
    }
    // As if the Bot API had changed: a date that is no number.
    server.push_raw(
        "message",
        r#"{"message_id":9,"chat":{"id":7,"type":"private"},"date":"yesterday"}"#,
    );

    let letters = Letters::default();
    let api = BotApi::new(server.token())?.base_url(server.url())?;
    let policy = {
        let letters = Arc::clone(&letters);
        move |failure: Failure<Incoming>| decide(&letters, &failure)
    };
    let bot = Bot::for_each(api, handle).policy(policy);

    let report = runner::tokio::run_with(bot, |handle| {
        std::thread::spawn(move || {
            while handle.stats().counters.settled() < 5 {
                std::thread::sleep(Duration::from_millis(5));
            }
            drop(handle.stop());
        });
    })?;
    for letter in letters.lock().expect("nobody panics with it").iter() {
        println!("{letter}");
    }
    let counters = report.counters;
    println!(
        "{} finished, {} failed, {} panicked, {} undecodable, {} attempts repeated",
        counters.finished,
        counters.failed,
        counters.panicked,
        counters.undecodable,
        counters.retried
    );
    Ok(())
}
