//! Why updates of one chat must be handled in order: the write-after-read hazard.
//!
//! ```sh
//! cargo run --example ordering
//! ```
//!
//! A handler reads a session, waits, and writes the session back. Two such handlers of the same chat
//! at the same time read the same value, and one of the two writes is lost. Expect four counters of
//! 1 where 25 messages came, then four of 25 with order by key. In virtual time, so that the race has
//! the same end in every run; with a real database it is lost only sometimes, which is worse.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use runner::{
    Delivery, Key, Runner, RuntimeExt,
    testing::{ScriptedSupplier, SimRuntime},
};

const CHATS: i64 = 4;
const MESSAGES_PER_CHAT: i64 = 25;

/// A message, as far as it matters here.
#[derive(Clone)]
struct Message {
    chat: i64,
}

/// A session store with the delays of a database.
#[derive(Clone)]
struct Sessions {
    counters: Arc<Mutex<BTreeMap<i64, u32>>>,
    sim: SimRuntime,
}

impl Sessions {
    async fn read(&self, chat: i64) -> u32 {
        self.sim.sleep(Duration::from_millis(5)).await;
        let counters = self.counters.lock().expect("nobody panics with it");
        counters.get(&chat).copied().unwrap_or_default()
    }

    async fn write(&self, chat: i64, count: u32) {
        self.sim.sleep(Duration::from_millis(5)).await;
        let mut counters = self.counters.lock().expect("nobody panics with it");
        counters.insert(chat, count);
    }
}

async fn count(sessions: Sessions, message: Delivery<Message>) {
    let seen = sessions.read(message.chat).await;
    sessions.write(message.chat, seen + 1).await;
}

fn run(in_order: bool) -> BTreeMap<i64, u32> {
    let sim = SimRuntime::new(1);
    let messages = (0..CHATS * MESSAGES_PER_CHAT).map(|n| Message { chat: n % CHATS });
    let supplier = ScriptedSupplier::new(&sim).batch(messages);
    let sessions = Sessions {
        counters: Arc::default(),
        sim: sim.clone(),
    };
    let mut runner =
        Runner::for_each_with(Arc::new(sim.clone()), supplier, sessions.clone(), count);
    if in_order {
        // A `Bot` does this by default. Chats are still handled at the same time as each other.
        runner = runner.sequentialize(|message: &Message| [Key::chat(message.chat)]);
    }
    let handle = runner.start();
    sim.advance(Duration::from_secs(1));
    let report = sim.block_on(handle.stop()).expect("nothing fails");
    assert_eq!(report.counters.finished, 100);
    let counters = sessions.counters.lock().expect("nobody panics with it");
    counters.clone()
}

fn main() {
    for (how, in_order) in [("without order", false), ("in order by chat", true)] {
        println!("{how}:");
        for (chat, count) in run(in_order) {
            println!("  chat {chat} counts {count} of {MESSAGES_PER_CHAT} messages");
        }
    }
}
