//! A bot with commands and a session per chat.
//!
//! ```sh
//! cargo run --example session_bot
//! ```
//!
//! A shopping list for each chat: `/add`, `/list`, `/clear`. The session is read, changed and written
//! back without a lock around it, because the updates of one chat are handled one after the other.
//! Two chats talk to it through a local Bot API server; expect their conversations.

use std::{
    collections::HashMap,
    error::Error,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use runner::{ApiError, Bot, BotApi, Delivery, Update, UpdateConsumer};
use runner_testkit::LocalServer;

/// What the bot remembers of a chat.
#[derive(Clone, Default)]
struct Session {
    items: Vec<String>,
}

/// Sessions by chat. In real life a database: both calls would wait.
#[derive(Clone, Default)]
struct Sessions(Arc<Mutex<HashMap<i64, Session>>>);

impl Sessions {
    async fn load(&self, chat: i64) -> Session {
        let sessions = self.0.lock().expect("nobody panics with it");
        sessions.get(&chat).cloned().unwrap_or_default()
    }

    async fn save(&self, chat: i64, session: Session) {
        let mut sessions = self.0.lock().expect("nobody panics with it");
        sessions.insert(chat, session);
    }
}

#[derive(Clone)]
struct App {
    api: BotApi,
    sessions: Sessions,
}

async fn handle(app: App, update: Delivery<Update>) -> Result<(), ApiError> {
    let (Some(chat), Some(command)) = (update.chat_id(), update.command()) else {
        return Ok(());
    };
    let mut session = app.sessions.load(chat).await;
    let reply = match command.name {
        "add" if command.args.is_empty() => "Add what?".to_owned(),
        "add" => {
            session.items.push(command.args.to_owned());
            format!("{} on the list", session.items.len())
        }
        "list" if session.items.is_empty() => "Nothing to buy.".to_owned(),
        "list" => session.items.join(", "),
        "clear" => {
            session.items.clear();
            "Done.".to_owned()
        }
        _ => "I know /add, /list and /clear.".to_owned(),
    };
    // Before the reply: what fails last should be what may be repeated.
    app.sessions.save(chat, session).await;
    app.api.send_message(chat, &reply).await?;
    Ok(())
}

fn bot(api: BotApi) -> Bot<BotApi, impl UpdateConsumer<Update>> {
    let app = App {
        api: api.clone(),
        sessions: Sessions::default(),
    };
    Bot::for_each_with(api, app, handle)
}

const TALK: [(i64, &str); 9] = [
    (1, "/list"),
    (1, "/add milk"),
    (2, "/add nails"),
    (1, "/add bread"),
    (2, "/list"),
    (1, "/list"),
    (1, "/clear"),
    (1, "/list"),
    (2, "/help"),
];

fn main() -> Result<(), Box<dyn Error>> {
    let server = Arc::new(LocalServer::start()?);
    for (chat, text) in TALK {
        server.push_message(chat, chat, text);
    }
    let api = BotApi::new(server.token())?.base_url(server.url())?;
    let watched = Arc::clone(&server);
    let report = runner::smol::run_with(bot(api), move |handle| {
        thread::spawn(move || {
            watched.wait_until(
                |state| state.calls >= TALK.len() as u64,
                Duration::from_secs(60),
            );
            drop(handle.stop());
        });
    })?;

    for chat in [1, 2] {
        println!("chat {chat}");
        let questions = TALK.iter().filter(|(from, _)| *from == chat);
        let replies = server.calls_of("sendMessage");
        let replies = replies.iter().filter(|call| call.chat_id() == Some(chat));
        for ((_, question), reply) in questions.zip(replies) {
            println!("  {question:<10} -> {}", reply.text().unwrap_or_default());
        }
    }
    println!("{} updates finished", report.counters.finished);
    Ok(())
}
