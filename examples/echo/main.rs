//! An echo bot, on either runtime.
//!
//! ```sh
//! cargo run --release --example echo                     # on tokio, against a local server
//! cargo run --release --example echo -- --runtime smol
//! BOT_TOKEN=… cargo run --release --example echo         # against Telegram, until Ctrl-C
//! ```
//!
//! Without `BOT_TOKEN` it starts a local Bot API server and feeds it lifelike traffic for ten
//! seconds (`--seconds`), 500 updates a second (`--rate`): several hundred chats, all kinds of
//! updates, and one that cannot be decoded. It shows how fast replies come, ends by itself, checks
//! that every message got its reply, and prints the report of the run. Ctrl-C ends it gracefully at
//! any moment, with either server.

mod bot;
mod latency;
mod local;
mod options;

use std::{env, error::Error};

use options::{Options, Runtime};
use runner::{Bot, BotApi, Incoming, Report, RunError, RunnerHandle, Update, UpdateConsumer};

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::from_args(env::args().skip(1))?;
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_target(false)
        .init();
    if env::var_os("BOT_TOKEN").is_some() {
        let api = BotApi::from_env("BOT_TOKEN")?;
        let report = run(options.runtime, bot::echo(api), drop)?;
        println!("{report}");
        Ok(())
    } else {
        local::run(&options)
    }
}

/// Runs the bot on the runtime that was asked for, until a signal or a stop by the handle.
fn run<C: UpdateConsumer<Update>>(
    runtime: Runtime,
    bot: Bot<BotApi, C>,
    started: impl FnOnce(RunnerHandle<Incoming>),
) -> Result<Report<Incoming>, RunError<Incoming>> {
    match runtime {
        Runtime::Tokio => runner::tokio::run_with(bot, started),
        Runtime::Smol => runner::smol::run_with(bot, started),
    }
}
