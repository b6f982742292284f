//! How to test a handler, and a bot as a whole, without a network and without waiting.
//!
//! ```sh
//! cargo run --example unit_test
//! ```
//!
//! The functions below would carry `#[test]` in your crate, with `runner`'s feature `test-util` among
//! the dev-dependencies; here `main` calls them. The second one lets a whole minute pass in virtual
//! time, under a hundred different schedules.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::executor::block_on;
use runner::{
    Bot, BoxError, Delivery, GetUpdates, Incoming, Key, RuntimeExt, Update, UpdatesRequest,
    testing::{SimRuntime, for_each_seed},
};

/// What the bot under test does: it adds up what it is told, per chat, with some delay.
#[derive(Clone, Default)]
struct Sums(Arc<Mutex<Vec<(i64, i64)>>>);

impl Sums {
    fn read(&self, chat: i64) -> i64 {
        let sums = self.0.lock().expect("nobody panics with it");
        sums.iter()
            .rfind(|(of, _)| *of == chat)
            .map_or(0, |(_, sum)| *sum)
    }

    fn write(&self, chat: i64, sum: i64) {
        self.0
            .lock()
            .expect("nobody panics with it")
            .push((chat, sum));
    }
}

async fn add(
    sums: &Sums,
    delay: impl Future<Output = ()>,
    update: Delivery<Update>,
) -> Result<(), BoxError> {
    let chat = update.chat_id().ok_or("no chat")?;
    let number: i64 = update.text().ok_or("no text")?.parse()?;
    let sum = sums.read(chat);
    delay.await;
    sums.write(chat, sum + number);
    Ok(())
}

fn message(id: i64, chat: i64, text: &str) -> String {
    format!(
        r#"{{"update_id":{id},"message":{{"message_id":{id},"date":1790000000,"chat":{{"id":{chat},"type":"private"}},"text":"{text}"}}}}"#
    )
}

/// A handler is a function: call it. `Delivery::new` stands for the runner.
fn the_handler_refuses_what_is_no_number() {
    let sums = Sums::default();
    let delivery = |text| {
        let update = Update::from_json(message(1, 5, text)).expect("well-formed");
        Delivery::new(update)
    };
    assert!(block_on(add(&sums, async {}, delivery("three"))).is_err());
    assert_eq!(sums.read(5), 0);
    assert!(block_on(add(&sums, async {}, delivery("3"))).is_ok());
    assert_eq!(sums.read(5), 3);
}

/// A server that has these updates, and then no more.
struct Canned(Vec<Incoming>, SimRuntime);

impl GetUpdates for Canned {
    type Raw = Incoming;
    type Update = Update;
    type Error = Infallible;

    async fn get_updates(&mut self, request: &UpdatesRequest) -> Result<Vec<Incoming>, Infallible> {
        let first = request.offset.unwrap_or(0);
        let mut found: Vec<_> = self
            .0
            .iter()
            .filter(|update| update.id() >= first)
            .cloned()
            .collect();
        found.truncate(request.limit.into());
        if found.is_empty() {
            self.1.sleep(request.timeout).await;
        }
        Ok(found)
    }

    async fn delete_webhook(&mut self, _drop_pending_updates: bool) -> Result<(), Infallible> {
        Ok(())
    }

    fn update_id(raw: &Incoming) -> i64 {
        raw.id()
    }

    fn default_key(raw: &Incoming) -> Option<Key> {
        raw.chat_id().map(Key::chat)
    }

    fn decode(raw: Delivery<Incoming>) -> Result<Delivery<Update>, BoxError> {
        let update = Update::from_incoming(&raw)?;
        Ok(raw.with(update))
    }
}

/// The whole bot, in virtual time: with order per chat, no sum is lost under any schedule.
fn the_bot_adds_up_under_every_schedule() {
    for_each_seed(100, |sim| {
        let updates = (1..=60).map(|id| Incoming::from_json(message(id, id % 3, "1")));
        let updates = updates.collect::<Result<_, _>>().expect("well-formed");
        let sums = Sums::default();
        let handler = async |(sums, sim): (Sums, SimRuntime), update: Delivery<Update>| {
            // Some take longer than others.
            let delay = Duration::from_millis(sim.below(2_000));
            add(&sums, sim.sleep(delay), update).await
        };
        let bot = Bot::for_each_with(
            Canned(updates, sim.clone()),
            (sums.clone(), sim.clone()),
            handler,
        );
        let handle = bot.into_runner(Arc::new(sim.clone())).start();
        sim.advance(Duration::from_secs(60));
        let report = sim.block_on(handle.stop()).expect("nothing ends the run");
        assert_eq!(report.counters.finished, 60);
        assert_eq!([0, 1, 2].map(|chat| sums.read(chat)), [20, 20, 20]);
    });
}

fn main() {
    let tests: [(&str, fn()); 2] = [
        (
            "the handler refuses what is no number",
            the_handler_refuses_what_is_no_number,
        ),
        (
            "the bot adds up under every schedule",
            the_bot_adds_up_under_every_schedule,
        ),
    ];
    for (name, test) in tests {
        test();
        println!("ok: {name}");
    }
}
