//! Albums: four photos that are sent together are four updates. This handler gets them as one group.
//!
//! ```sh
//! cargo run --example albums
//! ```
//!
//! The parts of an album have the same chat and the same `media_group_id`, and nothing says how many
//! there are. So the handler of the first part waits until no other part has come for half a second,
//! and then takes them all.
//!
//! That works only if the handlers of the parts run at the same time. With the default order by chat
//! the second part would wait until the first one is handled: expect albums of one. So the parts of
//! albums get no key here, and all other updates of a chat stay in order: expect albums of four and of
//! two. The example runs in virtual time; with a `Bot` over `BotApi` the functions are the same.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use runner::{
    Delivery, Incoming, Key, Runner, RuntimeExt,
    testing::{ScriptedSupplier, SimRuntime},
};
use serde::Deserialize;

/// Longer than the parts of one album are apart, even if they come with two answers of the server.
const QUIET: Duration = Duration::from_millis(500);

/// What the parts of one album have in common.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Album {
    chat: i64,
    media_group: String,
}

impl Album {
    /// The album that an update is a part of.
    fn of(update: &Incoming) -> Option<Self> {
        #[derive(Deserialize)]
        struct Whole {
            message: Message,
        }

        #[derive(Deserialize)]
        struct Message {
            media_group_id: String,
        }

        Some(Self {
            chat: update.chat_id()?,
            // It fails for all that is no new message, or no part of an album.
            media_group: update.decode::<Whole>().ok()?.message.media_group_id,
        })
    }
}

fn by_chat(update: &Incoming) -> Option<Key> {
    update.chat_id().map(Key::chat)
}

fn by_chat_without_albums(update: &Incoming) -> Option<Key> {
    match Album::of(update) {
        Some(_) => None,
        None => by_chat(update),
    }
}

/// The parts that have come so far.
#[derive(Clone)]
struct Albums {
    parts: Arc<Mutex<BTreeMap<Album, Vec<Delivery<Incoming>>>>>,
    sim: SimRuntime,
}

impl Albums {
    /// Adds a part; returns how many there are.
    fn add(&self, album: &Album, part: Delivery<Incoming>) -> usize {
        let mut albums = self.parts.lock().expect("nobody panics with it");
        let parts = albums.entry(album.clone()).or_default();
        parts.push(part);
        parts.len()
    }

    /// Takes all parts if there are no more than so many by now, or says how many there are.
    fn take(&self, album: &Album, known: usize) -> Result<Vec<Delivery<Incoming>>, usize> {
        let mut albums = self.parts.lock().expect("nobody panics with it");
        match albums[album].len() {
            count if count > known => Err(count),
            _ => Ok(albums.remove(album).unwrap_or_default()),
        }
    }
}

async fn handle(albums: Albums, update: Delivery<Incoming>) {
    let Some(album) = Album::of(&update) else {
        println!("  chat {}: a message", update.chat_id().unwrap_or_default());
        return;
    };
    let mut count = albums.add(&album, update);
    if count > 1 {
        // The handler of the first part does the rest.
        return;
    }
    let mut parts = loop {
        albums.sim.sleep(QUIET).await;
        match albums.take(&album, count) {
            Ok(parts) => break parts,
            Err(more) => count = more,
        }
    };
    // The handlers of the parts began in any order.
    parts.sort_unstable_by_key(|part| part.id());
    let ids: Vec<String> = parts.iter().map(|part| part.id().to_string()).collect();
    println!(
        "  chat {}: an album of {}: updates {}",
        album.chat,
        ids.len(),
        ids.join(", ")
    );
}

fn message(id: i64, chat: i64, content: &str) -> Incoming {
    let update = format!(
        r#"{{"update_id":{id},"message":{{"message_id":{id},"date":1790000000,"chat":{{"id":{chat}}},{content}}}}}"#
    );
    Incoming::from_json(update).expect("it has an id")
}

fn run(keys: fn(&Incoming) -> Option<Key>) {
    let photo = |id, chat, album| {
        message(
            id,
            chat,
            &format!(r#""media_group_id":"{album}","photo":[]"#),
        )
    };
    let sim = SimRuntime::new(1);
    // An album of four comes in two batches, the second one with an album of another chat.
    let supplier = ScriptedSupplier::new(&sim)
        .batch([photo(1, 7, "a"), photo(2, 7, "a")])
        .wait(Duration::from_millis(100))
        .batch([
            photo(3, 8, "b"),
            photo(4, 7, "a"),
            photo(5, 8, "b"),
            photo(6, 7, "a"),
        ])
        .wait(Duration::from_secs(10))
        .batch([message(7, 8, r#""text":"Nice ones""#)]);
    let albums = Albums {
        parts: Arc::default(),
        sim: sim.clone(),
    };
    let handle = Runner::for_each_with(Arc::new(sim.clone()), supplier, albums, handle)
        .sequentialize(keys)
        .start();
    sim.advance(Duration::from_secs(20));
    let report = sim.block_on(handle.stop()).expect("nothing fails");
    assert_eq!(report.counters.finished, 7);
}

fn main() {
    println!("in order by chat:");
    run(by_chat);
    println!("in order by chat, but for the parts of albums:");
    run(by_chat_without_albums);
}
