//! A bot in a process of its own: the runner, or a loop written by hand over the same client.

use std::{
    error::Error,
    io::{BufRead, stdin},
    num::NonZeroUsize,
    process::exit,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use benches::{
    process,
    runtime::{Rt, SmolRt, TokioRt},
};
use runner::{
    ApiError, Bot, BotApi, Delivery, GetUpdates, Incoming, RunnerHandle, Update, UpdatesRequest,
    http::{HttpClient, HyperClient, UreqClient},
};
use tokio::sync::Semaphore;

use crate::order::{Client, On, Order, Who, Work};

/// The chat under a flood.
pub(crate) const HOT_CHAT: i64 = 1;

/// How long an update of the chat under a flood takes.
pub(crate) const HOT: Duration = Duration::from_millis(20);

/// How long a handler takes where it waits.
pub(crate) const WAIT: Duration = Duration::from_millis(10);

pub(crate) fn main(order: &Order) -> Result<(), Box<dyn Error>> {
    match order.client {
        Client::Ureq => with(order, UreqClient::new()),
        Client::Hyper => with(order, HyperClient::new()),
    }
}

fn with<C: HttpClient>(order: &Order, client: C) -> Result<(), Box<dyn Error>> {
    let api = BotApi::with_client(&order.token, client)?.base_url(&order.url)?;
    let (sender, done) = mpsc::channel();
    let handler = Arc::new(Handler {
        api: api.clone(),
        on: order.on,
        work: order.work,
        left: AtomicU64::new(order.count),
        done: sender,
    });
    let control = Control {
        began: Instant::now(),
        done: (order.count > 0).then_some(done),
    };
    match (order.who, order.on) {
        (Who::Runner, on) => {
            let concurrency = NonZeroUsize::new(order.concurrency).ok_or("no concurrency")?;
            let bot = Bot::for_each_with(
                api,
                handler,
                async |handler: Arc<Handler<C>>, update: Delivery<Update>| {
                    handler.handle(&update).await
                },
            )
            .concurrency(concurrency);
            // Lifelike traffic has busy chats; here it is slots that are to be short, not keys.
            let bot = match order.work {
                Work::Wait => bot.unordered(),
                _ => bot,
            };
            let mut obeying = None;
            let started = |handle: RunnerHandle<Incoming>| {
                obeying = Some(thread::spawn(move || {
                    control.obey(|| {
                        // Its report is what `run_with` returns.
                        let _ = async_io::block_on(handle.stop());
                    });
                }));
            };
            match on {
                On::Tokio => runner::tokio::run_with(bot, started)?,
                On::Smol => runner::smol::run_with(bot, started)?,
            };
            // It has still to say how long the stop took.
            obeying.map(thread::JoinHandle::join);
        }
        (_, On::Tokio) => by_hand(&TokioRt::new(workers()), order, api, handler, control),
        (_, On::Smol) => by_hand(&SmolRt::new(workers()), order, api, handler, control),
    }
    Ok(())
}

/// What a careful user would write: a task for every update, a bound, a long poll.
fn by_hand<C: HttpClient>(
    rt: &impl Rt,
    order: &Order,
    mut api: BotApi<C>,
    handler: Arc<Handler<C>>,
    control: Control,
) {
    let slots = Arc::new(Semaphore::new(order.concurrency));
    let spawner = rt.clone();
    rt.spawn(async move {
        let mut request = UpdatesRequest::default();
        request.timeout = Duration::from_secs(30);
        loop {
            let updates = api
                .get_updates(&request)
                .await
                .expect("the server is there");
            for raw in updates {
                request.offset = Some(raw.id() + 1);
                let slot = Arc::clone(&slots).acquire_owned().await;
                let handler = Arc::clone(&handler);
                spawner.spawn(async move {
                    let _slot = slot;
                    let update = Update::from_incoming(&raw).expect("it can be decoded");
                    handler.handle(&update).await.expect("nothing fails");
                });
            }
        }
    });
    control.obey(|| {});
    exit(0);
}

fn workers() -> usize {
    thread::available_parallelism().map_or(2, NonZeroUsize::get)
}

struct Handler<C> {
    api: BotApi<C>,
    on: On,
    work: Work,
    left: AtomicU64,
    done: Sender<Done>,
}

impl<C: HttpClient> Handler<C> {
    async fn handle(&self, update: &Update) -> Result<(), ApiError> {
        match self.work {
            Work::Noop => {}
            Work::Wait => self.sleep(WAIT).await,
            Work::Hot if update.chat_id() == Some(HOT_CHAT) => self.sleep(HOT).await,
            Work::Echo | Work::Hot => {
                if let (Some(chat), Some(text)) = (update.chat_id(), update.text()) {
                    self.api.send_message(chat, text).await?;
                }
            }
        }
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            // Nobody listens in a bot that was not told to count.
            let _ = self.done.send(Done::now());
        }
        Ok(())
    }

    async fn sleep(&self, span: Duration) {
        match self.on {
            On::Tokio => tokio::time::sleep(span).await,
            On::Smol => {
                async_io::Timer::after(span).await;
            }
        }
    }
}

/// The moment in which the last update was handled.
pub(crate) struct Done {
    at: Instant,
    cpu: Duration,
}

impl Done {
    pub(crate) fn now() -> Self {
        Self {
            at: Instant::now(),
            cpu: process::cpu_time(),
        }
    }

    pub(crate) fn tell(&self, began: Instant) {
        println!(
            "seconds {} cpu {}",
            (self.at - began).as_secs_f64(),
            self.cpu.as_secs_f64()
        );
    }
}

/// Tells what is measured, when it is asked.
struct Control {
    began: Instant,
    done: Option<Receiver<Done>>,
}

impl Control {
    fn obey(self, stop: impl FnOnce()) {
        if let Some(done) = self.done {
            done.recv().expect("a handler counts").tell(self.began);
        }
        for command in stdin().lock().lines().map_while(Result::ok) {
            if command == "usage" {
                println!(
                    "cpu {} kib {} threads {}",
                    process::cpu_time().as_secs_f64(),
                    process::resident_kib().unwrap_or(0),
                    process::threads().unwrap_or(0),
                );
            } else {
                let began = Instant::now();
                stop();
                println!("seconds {}", began.elapsed().as_secs_f64());
                return;
            }
        }
        // The one who asks has gone.
        exit(1);
    }
}
