//! The prelude hides no crate: the modules `runner::tokio` and `runner::http` have names of crates that bots
//! use as well.

use std::time::Duration;

use runner::prelude::*;
use runner::testing::FakeApi;

async fn handle(update: Delivery<i64>) -> Result<(), BoxError> {
    tokio::time::sleep(Duration::from_millis(1)).await;
    match *update {
        3 => Err("refused".into()),
        _ => Ok(()),
    }
}

fn decide(failure: &Failure<i64>) -> Verdict {
    match failure.cause {
        Cause::Timeout => Verdict::Retry {
            after: Duration::from_secs(1),
        },
        _ => Verdict::Skip,
    }
}

#[test]
fn what_a_bot_needs_stands_beside_the_crate_tokio() {
    let mut running: Option<RunnerHandle<i64>> = None;
    let api = FakeApi::of_ids(1..=3);
    let bot = Bot::for_each(api, handle)
        .sink(SinkOptions::concurrent().timeout(Duration::from_secs(60)))
        .sequentialize(|id| [Key::chat(*id % 2)])
        .policy(|failure: Failure<i64>| decide(&failure))
        .stop_timeout(Duration::from_secs(8));
    let report: Result<Report<i64>, RunError<i64>> = runner::tokio::run_with(bot, |handle| {
        let stopper = handle.clone();
        std::thread::spawn(move || {
            while stopper.stats().counters.supplied < 3 {
                std::thread::yield_now();
            }
            drop(stopper.stop());
        });
        running = Some(handle);
    });
    let report = report.unwrap();
    assert_eq!((report.counters.finished, report.counters.failed), (2, 1));
    assert!(!running.unwrap().is_running());
}

/// The types of the client, too.
#[allow(dead_code, reason = "compiled, and needs a server to run")]
async fn echo(api: BotApi, update: Delivery<Update>) -> Result<(), ApiError> {
    if let (Some(chat), Some(text)) = (update.chat_id(), update.text()) {
        api.send_message(chat, text).await?;
    }
    Ok(())
}
