//! Several bots in one process, on one runtime.
//!
//! ```sh
//! cargo run --example several_bots
//! ```
//!
//! Each bot is a runner of its own: own token, own limits, own order, own end. Two bots poll two
//! local servers; the first one is stopped while the second one goes on.

use std::{error::Error, num::NonZeroUsize, sync::Arc, time::Duration};

use runner::{ApiError, Bot, BotApi, Delivery, Incoming, RunnerHandle, Update, tokio::Tokio};
use runner_testkit::LocalServer;

const PATIENCE: Duration = Duration::from_secs(60);

async fn reply(
    (api, name): (BotApi, &'static str),
    update: Delivery<Update>,
) -> Result<(), ApiError> {
    if let (Some(chat), Some(text)) = (update.chat_id(), update.text()) {
        api.send_message(chat, &format!("{name}: {text}")).await?;
    }
    Ok(())
}

fn start(
    runtime: &Arc<Tokio>,
    server: &LocalServer,
    name: &'static str,
) -> Result<RunnerHandle<Incoming>, Box<dyn Error>> {
    let api = BotApi::new(server.token())?.base_url(server.url())?;
    let bot = Bot::for_each_with(api.clone(), (api, name), reply)
        .concurrency(NonZeroUsize::new(50).expect("not zero"));
    Ok(bot.into_runner(Arc::clone(runtime) as _).start())
}

/// Sends a message to the bot and waits for its reply.
fn ask(server: &LocalServer, text: &str) -> String {
    server.push_message(7, 7, text);
    let call = server.wait_for_call(
        |call| call.is("sendMessage") && call.text().is_some_and(|reply| reply.ends_with(text)),
        PATIENCE,
    );
    let call = call.expect("the bot replies");
    call.text().unwrap_or_default().to_owned()
}

fn main() -> Result<(), Box<dyn Error>> {
    let threads = tokio::runtime::Runtime::new()?;
    // One runtime, shared by as many runners as there are bots.
    let runtime = Arc::new(Tokio::new(threads.handle().clone()));
    let (one, two) = (LocalServer::start()?, LocalServer::start()?);
    let first = start(&runtime, &one, "first")?;
    let second = start(&runtime, &two, "second")?;

    println!("{}", ask(&one, "hello"));
    println!("{}", ask(&two, "hello"));

    let report = threads.block_on(first.stop())?;
    println!(
        "first bot stopped after {} update",
        report.counters.finished
    );

    println!("{}", ask(&two, "still there?"));
    let report = threads.block_on(second.stop())?;
    println!(
        "second bot stopped after {} updates",
        report.counters.finished
    );
    Ok(())
}
