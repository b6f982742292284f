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
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::executor::block_on;
use runner::{
    Bot, BotApi, BoxError, Delivery, Incoming, RuntimeExt, Update,
    testing::{FakeApi, SimRuntime, for_each_seed},
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

/// The whole bot, in virtual time: with order per chat, no sum is lost under any schedule.
fn the_bot_adds_up_under_every_schedule() {
    for_each_seed(100, |sim| {
        let updates = (1..=60).map(|id| Incoming::from_json(message(id, id % 3, "1")));
        let updates = updates.collect::<Result<Vec<_>, _>>().expect("well-formed");
        let sums = Sums::default();
        let handler = async |(sums, sim): (Sums, SimRuntime), update: Delivery<Update>| {
            // Some take longer than others.
            let delay = Duration::from_millis(sim.below(2_000));
            add(&sums, sim.sleep(delay), update).await
        };
        // The updates are those of `BotApi`; only its calls are replaced.
        let api = FakeApi::<BotApi>::new(updates).runtime(Arc::new(sim.clone()));
        let bot = Bot::for_each_with(api.clone(), (sums.clone(), sim.clone()), handler);
        let handle = bot.into_runner(Arc::new(sim.clone())).start();
        sim.advance(Duration::from_secs(60));
        let report = sim.block_on(handle.stop()).expect("nothing ends the run");
        assert_eq!(report.counters.finished, 60);
        assert_eq!(api.unconfirmed(), 0);
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
