//! Why updates of one chat must be handled in order: the write-after-read hazard.
//!
//! ```sh
//! cargo run --example ordering
//! ```
//!
//! A handler reads a counter, waits, and writes it back. Two such handlers at the same time read the
//! same value, and one of the two writes is lost. Here every chat and every user has a counter, and
//! every user writes in every chat. Expect counters of 1 without order; with order by chat those of the
//! chats are right and those of the users are not; with both keys nothing is lost. In virtual time, so
//! that the race has the same end in every run; with a real database it is lost only sometimes, which
//! is worse.

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
const USERS: i64 = 5;
const MESSAGES: i64 = 100;

/// A message, as far as it matters here.
#[derive(Clone)]
struct Message {
    chat: i64,
    user: i64,
}

/// What a message must not share with another one at the same time.
type Keys = fn(&Message) -> Vec<Key>;

/// A session store with the delays of a database.
#[derive(Clone)]
struct Sessions {
    counters: Arc<Mutex<BTreeMap<String, u32>>>,
    sim: SimRuntime,
}

impl Sessions {
    async fn read(&self, key: &Key) -> u32 {
        self.sim.sleep(Duration::from_millis(5)).await;
        let counters = self.counters.lock().expect("nobody panics with it");
        counters.get(&key.to_string()).copied().unwrap_or_default()
    }

    async fn write(&self, key: &Key, count: u32) {
        self.sim.sleep(Duration::from_millis(5)).await;
        let mut counters = self.counters.lock().expect("nobody panics with it");
        counters.insert(key.to_string(), count);
    }
}

async fn count(sessions: Sessions, message: Delivery<Message>) {
    for key in [Key::chat(message.chat), Key::user(message.user)] {
        let seen = sessions.read(&key).await;
        sessions.write(&key, seen + 1).await;
    }
}

fn run(keys: Keys) -> BTreeMap<String, u32> {
    let sim = SimRuntime::new(1);
    let messages = (0..MESSAGES).map(|n| Message {
        chat: n % CHATS,
        user: n / CHATS % USERS,
    });
    let supplier = ScriptedSupplier::new(&sim).batch(messages);
    let sessions = Sessions {
        counters: Arc::default(),
        sim: sim.clone(),
    };
    // A `Bot` takes the chat by default. Updates without a key in common run at the same time.
    let handle = Runner::for_each_with(Arc::new(sim.clone()), supplier, sessions.clone(), count)
        .sequentialize(keys)
        .start();
    sim.advance(Duration::from_secs(10));
    let report = sim.block_on(handle.stop()).expect("nothing fails");
    assert_eq!(report.counters.finished, 100);
    let counters = sessions.counters.lock().expect("nobody panics with it");
    counters.clone()
}

fn main() {
    let orders: [(&str, Keys); 3] = [
        ("without order", |_| Vec::new()),
        ("in order by chat", |message| vec![Key::chat(message.chat)]),
        ("in order by chat and user", |message| {
            vec![Key::chat(message.chat), Key::user(message.user)]
        }),
    ];
    for (how, keys) in orders {
        println!("{how}:");
        for (key, count) in run(keys) {
            let whose = if key.starts_with("chat") {
                CHATS
            } else {
                USERS
            };
            println!("  {key} counts {count} of {} messages", MESSAGES / whose);
        }
    }
}
