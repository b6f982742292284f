//! A Bot API server to try a bot against, without a token and without a network.
//!
//! ```sh
//! cargo run -p runner-testkit --bin bot-api-local
//! cargo run -p runner-testkit --bin bot-api-local -- --port 8081
//! ```
//!
//! It says where it is and what to set so that a bot finds it. Every line that is typed is a message
//! to the bot, and what the bot sends is shown as it comes; `/help` lists what else there is. It can
//! be used by a script as well: at the end of its input it goes on to serve, until it is killed or
//! reads `/quit`.

mod command;
mod show;

use std::{
    env,
    error::Error,
    io::{self, BufRead, IsTerminal, Write},
    process,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use command::{Command, HELP};
use runner_testkit::{FaultPlan, FaultRule, LocalServer};

const USAGE: &str = "usage: bot-api-local [--port N]";

/// As good as for ever, and still something that can be added to an instant.
const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);

/// Who writes what is typed, unless `/as` or `/in` says otherwise.
const USER: i64 = 1000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut port = 0;
    let mut args = env::args().skip(1);
    while let Some(arg) = args.next() {
        let value = match arg.as_str() {
            "--port" => args.next().and_then(|value| value.parse().ok()),
            "--help" | "-h" => {
                say(&format!("{USAGE}\n\n{HELP}"));
                return Ok(());
            }
            _ => None,
        };
        let Some(value) = value else {
            eprintln!("{arg} is not understood or has no number behind it\n{USAGE}");
            process::exit(2);
        };
        port = value;
    }

    let server = LocalServer::builder().port(port).start();
    let server = Arc::new(server.map_err(|error| format!("port {port}: {error}"))?);
    say(&format!(
        "A Bot API server listens at\n\n  {url}\n\nIn the terminal of your bot:\n\n  \
         export BOT_API_URL={url} BOT_TOKEN={token}\n\n\
         Type a message to the bot, or /help.",
        url = server.url(),
        token = server.token(),
    ));

    let sent = Arc::new(Mutex::new(None));
    thread::spawn({
        let server = Arc::clone(&server);
        move || {
            if server.wait_until(|state| state.polls > 0, FOREVER) {
                say("A bot polls.");
            }
        }
    });
    thread::spawn({
        let (server, sent) = (Arc::clone(&server), Arc::clone(&sent));
        move || watch(&server, &sent)
    });
    let mut console = Console {
        server,
        sent,
        chat: USER,
        user: USER,
        written: None,
    };
    let is_terminal = io::stdin().is_terminal();
    for line in io::stdin().lock().split(b'\n') {
        let line = line?;
        match Command::parse(&String::from_utf8_lossy(&line)) {
            Ok(Command::Quit) => return Ok(()),
            Ok(command) => console.carry_out(command),
            Err(reason) => say(&reason),
        }
    }
    if is_terminal {
        return Ok(()); // Ctrl-D
    }
    loop {
        thread::park();
    }
}

/// The last message of somebody.
#[derive(Clone, Copy)]
struct Message {
    chat: i64,
    user: i64,
    id: i64,
}

/// What is typed, carried out.
struct Console {
    server: Arc<LocalServer>,
    /// The last message of the bot.
    sent: Arc<Mutex<Option<Message>>>,
    chat: i64,
    user: i64,
    /// The last message to the bot.
    written: Option<Message>,
}

impl Console {
    fn carry_out(&mut self, command: Command<'_>) {
        match command {
            Command::Nothing | Command::Quit => {}
            Command::Help => say(HELP),
            Command::Say(text) => self.write(self.chat, self.user, text),
            Command::As(user, None) => (self.chat, self.user) = (user, user),
            Command::As(user, Some(text)) => self.write(user, user, text),
            Command::In(chat, None) => self.chat = chat,
            Command::In(chat, Some(text)) => self.write(chat, self.user, text),
            Command::Edit(text) => match self.written {
                Some(Message { chat, user, id }) => {
                    queued(self.server.push_edit(chat, user, id, text));
                }
                None => say("There is no message to edit yet."),
            },
            Command::Callback(data) => {
                let sent = *self.sent.lock().unwrap_or_else(PoisonError::into_inner);
                match sent {
                    Some(Message { chat, id, .. }) => {
                        queued(self.server.push_callback(chat, self.user, id, data));
                    }
                    None => say("The bot has sent no message that could have a button yet."),
                }
            }
            Command::Fault(None) => self.server.set_faults(FaultPlan::new(0)),
            Command::Fault(Some((fault, times))) => {
                self.server.add_fault(FaultRule::new(fault).times(times));
            }
            Command::Pending => {
                let state = self.server.snapshot();
                let polls = if state.is_polled {
                    "a bot waits for more"
                } else {
                    "no bot waits for more"
                };
                say(&format!("{} unconfirmed, {polls}", state.pending));
            }
        }
    }

    fn write(&mut self, chat: i64, user: i64, text: &str) {
        let id = self.server.push_editable(chat, user, text);
        self.written = id.map(|id| Message { chat, user, id }).or(self.written);
        queued(id);
    }
}

fn queued(id: Option<i64>) {
    if id.is_none() {
        say("Dropped: the bot did not ask for this kind of update in allowed_updates.");
    }
}

/// Shows every call as it comes.
fn watch(server: &LocalServer, sent: &Mutex<Option<Message>>) {
    let mut next = 0;
    loop {
        for call in server.wait_for_calls_since(next, FOREVER) {
            next = call.index + 1;
            if let (Some(chat), Some(id)) = (call.chat_id(), call.message_id) {
                let message = Message { chat, user: 0, id };
                *sent.lock().unwrap_or_else(PoisonError::into_inner) = Some(message);
            }
            say(&show::call(&call));
        }
    }
}

/// Prints for people and for scripts, at once. Whoever closes the output wants no more of it.
fn say(text: &str) {
    let mut out = io::stdout().lock();
    if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
        process::exit(0);
    }
}
