//! One chat under a flood: what do the others notice?
//!
//! ```sh
//! cargo bench -p benches --bench hot_chat                  # 2 000 updates at once, about 40 s each
//! cargo bench -p benches --bench hot_chat -- --updates 400 # about 8 s each
//! ```
//!
//! Everything is real: the local Bot API server, ureq, and each of the two runtimes. One chat sends
//! all its updates at once, each takes 20 ms, and they are handled one after the other. Meanwhile 50
//! other chats send one update a second each. Printed is the time from the arrival of an update at
//! the server until its handler begins; the bench fails if it is above 50 ms for more than one in a
//! hundred of the others, or if an update is missing.

use std::{
    collections::HashMap,
    error::Error,
    num::NonZeroUsize,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use benches::table::{head, row};
use runner::{Bot, BotApi, Delivery, Runtime, RuntimeExt, Update, smol::Smol, tokio::Tokio};
use runner_testkit::LocalServer;

const HOT: i64 = 1;
const OTHERS: i64 = 50;
const EACH: Duration = Duration::from_millis(20);
const LIMIT: Duration = Duration::from_millis(50);

/// When the handler of an update began.
type Began = Arc<Mutex<HashMap<i64, Instant>>>;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let updates = arguments
        .iter()
        .position(|argument| argument == "--updates")
        .and_then(|place| arguments.get(place + 1))
        .map_or(Ok(2_000), |count| count.parse::<usize>())?;
    println!("{updates} updates of {EACH:?} in one chat, one a second in {OTHERS} others");
    head(&[
        "runtime",
        "updates of others",
        "p50",
        "p99",
        "max",
        "all took",
    ]);

    let tokio = ::tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers())
        .enable_all()
        .build()?;
    measure(
        "tokio",
        updates,
        Arc::new(Tokio::new(tokio.handle().clone())),
    )?;
    tokio.shutdown_background();
    measure(
        "smol",
        updates,
        Arc::new(Smol::with_threads(
            NonZeroUsize::new(workers()).expect("at least one"),
        )),
    )
}

fn workers() -> usize {
    thread::available_parallelism().map_or(2, NonZeroUsize::get)
}

fn measure(name: &str, updates: usize, runtime: Arc<dyn Runtime>) -> Result<(), Box<dyn Error>> {
    let server = LocalServer::start()?;
    let api = BotApi::new(server.token())?.base_url(server.url())?;
    let began = Began::default();
    let state = (Arc::clone(&runtime), Arc::clone(&began));
    let bot = Bot::for_each_with(
        api,
        state,
        async |(runtime, began): (Arc<dyn Runtime>, Began), update: Delivery<Update>| {
            began
                .lock()
                .expect("no holder panics")
                .insert(update.id(), Instant::now());
            if update.chat_id() == Some(HOT) {
                runtime.sleep(EACH).await;
            }
        },
    );
    let handle = bot.into_runner(runtime).start();

    let mut pushed = Vec::new();
    let push = |chat| {
        let at = Instant::now();
        let id = server
            .push_message(chat, 7, "hello")
            .expect("messages are taken");
        (id, at)
    };
    let start = Instant::now();
    for _ in 0..updates {
        push(HOT);
    }
    let flood = EACH * u32::try_from(updates)?;
    for round in 0.. {
        let second = start + Duration::from_secs(round);
        thread::sleep(second.saturating_duration_since(Instant::now()));
        if start.elapsed() >= flood {
            break;
        }
        // Spread over the second, as people write.
        for chat in 0..OTHERS {
            let at = second + Duration::from_secs(1) / OTHERS as u32 * chat as u32;
            thread::sleep(at.saturating_duration_since(Instant::now()));
            pushed.push(push(HOT + 1 + chat));
        }
    }
    let all = (updates + pushed.len()) as u64;
    while handle.stats().counters.finished < all {
        thread::sleep(Duration::from_millis(1));
        if start.elapsed() > flood * 2 + Duration::from_secs(30) {
            return Err("the updates were not handled in time".into());
        }
    }
    let took = start.elapsed();
    let report = async_io::block_on(handle.stop())?;
    if report.counters.finished != all {
        return Err(format!("{all} updates were sent: {report}").into());
    }

    let began = began.lock().expect("no holder panics");
    let mut waited: Vec<Duration> = pushed
        .iter()
        .map(|(id, at)| began[id].saturating_duration_since(*at))
        .collect();
    waited.sort_unstable();
    let percentile = |percent: usize| waited[(waited.len() * percent).div_ceil(100) - 1];
    row(&[
        name.to_owned(),
        waited.len().to_string(),
        format!("{:.1?}", percentile(50)),
        format!("{:.1?}", percentile(99)),
        format!("{:.1?}", percentile(100)),
        format!("{took:.1?}"),
    ]);
    if percentile(99) > LIMIT {
        return Err(format!("one chat keeps the others waiting for {:?}", percentile(99)).into());
    }
    Ok(())
}
