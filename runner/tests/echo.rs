//! The echo bot of the first page, on both runtimes, against a server that keeps the rules of the
//! real one.

use std::{sync::Arc, time::Duration};

use futures::executor::block_on;
use runner::{ApiError, Bot, BotApi, Confirmation, Delivery, Runtime, Update};
use runner_testkit::LocalServer;

/// Far more than it takes; only a test that fails waits for so long.
const PATIENCE: Duration = Duration::from_secs(60);

const CHATS: i64 = 10;
const MESSAGES: i64 = 200;

#[test]
fn on_tokio() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    echoes(Arc::new(runner::tokio::Tokio::new(
        runtime.handle().clone(),
    )));
}

#[test]
fn on_smol() {
    echoes(Arc::new(runner::smol::Smol::new()));
}

fn echoes(runtime: Arc<dyn Runtime>) {
    let server = LocalServer::start().unwrap();
    let api = BotApi::new(server.token())
        .unwrap()
        .base_url(server.url())
        .unwrap();
    let bot = Bot::for_each_with(
        api.clone(),
        api,
        async |api: BotApi, update: Delivery<Update>| {
            if let (Some(chat), Some(text)) = (update.chat_id(), update.text()) {
                api.send_message(chat, text).await?;
            }
            Ok::<_, ApiError>(())
        },
    );
    let handle = bot.into_runner(runtime).start();
    let mut last = None;
    for number in 0..MESSAGES {
        let chat = 1_000 + number % CHATS;
        last = server.push_message(chat, chat, &number.to_string());
    }
    let mut replies = 0;
    let all = server.wait_for_call(
        |call| {
            replies += i64::from(call.is("sendMessage"));
            replies == MESSAGES
        },
        PATIENCE,
    );
    assert!(all.is_some(), "{replies} replies");

    let report = block_on(handle.stop()).unwrap();
    assert_eq!(report.counters.finished, MESSAGES as u64);
    assert!(report.abandoned.is_empty());
    let next = last.unwrap() + 1;
    assert_eq!(server.confirmed_offset(), Some(next));
    assert!(
        matches!(
            report.confirmation,
            Confirmation::Confirmed { position } | Confirmation::Assumed { position }
                if position == next
        ),
        "{:?}",
        report.confirmation
    );
    for chat in 1_000..1_000 + CHATS {
        let replies = server.calls_of("sendMessage");
        let replies = replies.iter().filter(|call| call.chat_id() == Some(chat));
        let texts: Vec<i64> = replies
            .map(|call| call.text().unwrap().parse().unwrap())
            .collect();
        let sent: Vec<i64> = (chat - 1_000..MESSAGES).step_by(CHATS as usize).collect();
        assert_eq!(texts, sent, "chat {chat}");
    }
}
