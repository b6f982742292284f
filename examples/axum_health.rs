//! A bot inside an axum service, with an endpoint that says how the bot is doing.
//!
//! ```sh
//! cargo run --example axum_health
//! ```
//!
//! The service owns the runtime and the shutdown; the bot is started on what exists and controlled by
//! its handle. The program asks its own `/healthz` while the bot polls, while it is paused and after it
//! has stopped; expect 200, 200 and 503.

use std::{error::Error, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use runner::{ApiError, Bot, BotApi, Delivery, Incoming, RunnerHandle, Update, tokio::Tokio};
use runner_testkit::LocalServer;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// 503 only where a restart of the process would help: not while the Bot API is away.
async fn healthz(State(bot): State<RunnerHandle<Incoming>>) -> (StatusCode, String) {
    let (health, stats) = (bot.health(), bot.stats());
    let status = match health.is_live() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let line = format!("{:?}, {} settled", health.state, stats.counters.settled());
    (status, line)
}

async fn reply(api: BotApi, update: Delivery<Update>) -> Result<(), ApiError> {
    if let Some(chat) = update.chat_id() {
        api.send_message(chat, "hello").await?;
    }
    Ok(())
}

/// What a probe would do.
async fn ask(service: SocketAddr) -> Result<String, Box<dyn Error>> {
    let mut stream = TcpStream::connect(service).await?;
    let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
    let status = head.split(' ').nth(1).ok_or("no status")?;
    Ok(format!("{status} {body}"))
}

async fn service(server: &LocalServer) -> Result<(), Box<dyn Error>> {
    let api = BotApi::new(server.token())?.base_url(server.url())?;
    let bot = Bot::for_each_with(api.clone(), api, reply);
    let handle = bot.into_runner(Arc::new(Tokio::current())).start();

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let routes = Router::new()
        .route("/healthz", get(healthz))
        .with_state(handle.clone());
    tokio::spawn(async move { axum::serve(listener, routes).await });

    server.push_message(7, 7, "hi");
    while handle.stats().counters.settled() < 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!("at work: {}", ask(address).await?);
    handle.pause();
    println!("paused:  {}", ask(address).await?);

    // The bot ends before the service, so that its handlers still have what the service owns.
    let report = handle.stop_within(Duration::from_secs(10)).await?;
    println!("stopped: {}", ask(address).await?);
    println!("{} update finished", report.counters.finished);
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    // In a service of its own process, this would be `#[tokio::main]`.
    let server = LocalServer::start()?;
    tokio::runtime::Runtime::new()?.block_on(service(&server))
}
