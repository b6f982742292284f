//! From the bytes of an answer of getUpdates to handlers called, with several models of an update.
//!
//! ```sh
//! cargo bench -p benches --bench fetch                   # the light model only
//! cargo bench -p benches --bench fetch --features models # with models of the whole Bot API
//! ```
//!
//! | option | |
//! |---|---|
//! | `--quick` | fewer answers and runs |
//! | `--only WAY` | one way, for a profiler: `split`, `"split and decode"`, … |
//! | `--csv` | lines instead of a table |
//!
//! The answers hold 100 lifelike updates of about 900 bytes each and lie in memory. Compared is with
//! `serde_json` on whole answers into the same models, without any runner. Prints Markdown, or
//! `workload,implementation,runtime,metric,value`.

use std::{
    future::pending,
    hint::black_box,
    num::NonZeroUsize,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use benches::{
    data::Data,
    runtime::{Rt, SmolRt, TokioRt},
    table::{head, median, nanos_each, row},
};
use bytes::Bytes;
#[cfg(feature = "models")]
use frankenstein::updates::Update as Frankenstein;
use futures::executor::block_on;
use memchr::memmem;
use runner::{
    Bot, BotApi, Delivery, GetUpdates, SinkOptions, UpdatesRequest,
    http::{HttpClient, HttpError, HttpRequest, HttpResponse, UreqClient},
};
use runner_testkit::{LocalServer, Traffic};
use serde::{Deserialize, de::DeserializeOwned};
#[cfg(feature = "models")]
use teloxide_core::types::Update as Teloxide;

/// How many different answers there are.
const ANSWERS: usize = 50;

/// An HTTP client that has so many answers at once, and then none.
#[derive(Clone, Debug)]
struct Memory {
    answers: Arc<Vec<Bytes>>,
    given: Arc<Mutex<usize>>,
    limit: usize,
}

impl HttpClient for Memory {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let place = {
            let mut given = self.given.lock().expect("no holder panics");
            *given += 1;
            *given - 1
        };
        if place < self.limit {
            let answer = self.answers[place % self.answers.len()].clone();
            return Ok(HttpResponse::new(200, answer));
        }
        // The last offset is confirmed with a request that does not wait.
        if memmem::find(&request.body, br#""timeout":0"#).is_none() {
            return pending().await;
        }
        Ok(HttpResponse::new(200, &br#"{"ok":true,"result":[]}"#[..]))
    }
}

/// What one would write by hand to get about as much as `runner::Update` offers.
#[derive(Deserialize)]
#[expect(dead_code, reason = "it is only decoded")]
struct ByHand {
    update_id: i64,
    #[serde(
        alias = "edited_message",
        alias = "channel_post",
        alias = "edited_channel_post",
        alias = "callback_query",
        alias = "inline_query",
        alias = "my_chat_member"
    )]
    message: Option<Content>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "it is only decoded")]
struct Content {
    message_id: Option<i64>,
    id: Option<Box<str>>,
    date: Option<i64>,
    chat: Option<Peer>,
    from: Option<Peer>,
    text: Option<Box<str>>,
    caption: Option<Box<str>>,
    data: Option<Box<str>>,
    query: Option<Box<str>>,
    message: Option<Box<Self>>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "it is only decoded")]
struct Peer {
    id: i64,
}

#[derive(Deserialize)]
struct Envelope<T> {
    result: Vec<T>,
}

/// Answers as the local server sends them, with what every model here knows.
fn answers() -> Vec<Bytes> {
    let server = LocalServer::start().expect("a socket can be opened");
    let mut traffic = Traffic::new(7).only(&[
        "message",
        "edited_message",
        "channel_post",
        "edited_channel_post",
        "callback_query",
        "inline_query",
    ]);
    server.push_traffic(&mut traffic, ANSWERS * 100);
    let state = server.snapshot();
    let first = state.next_update_id - state.pending as i64;
    let url = format!("{}/bot{}/getUpdates", server.url(), server.token());
    let client = UreqClient::new();
    (0..ANSWERS as i64)
        .map(|number| {
            let body = format!(r#"{{"offset":{},"limit":100}}"#, first + number * 100);
            let answer = block_on(client.send(HttpRequest::new(&url, body)));
            answer.expect("the server is there").body
        })
        .collect()
}

/// What is done with the answers, a hundred updates each.
struct Bench {
    answers: Arc<Vec<Bytes>>,
    count: usize,
}

impl Bench {
    fn updates(&self) -> u64 {
        self.count as u64 * 100
    }

    fn api(&self) -> BotApi<Memory> {
        let memory = Memory {
            answers: Arc::clone(&self.answers),
            given: Arc::default(),
            limit: self.count,
        };
        BotApi::with_client("600700800:AAfetch_path_in_memory_of_this_bench", memory)
            .expect("shaped like a token")
    }

    /// `serde_json` on whole answers.
    fn plain<T: DeserializeOwned>(&self) -> Duration {
        let began = Instant::now();
        let mut updates = 0;
        for number in 0..self.count {
            let answer = &self.answers[number % self.answers.len()];
            let envelope: Envelope<T> = serde_json::from_slice(answer).expect("it can be decoded");
            updates += black_box(envelope).result.len() as u64;
        }
        let taken = began.elapsed();
        assert_eq!(updates, self.updates());
        taken
    }

    /// From bytes to ids, headers and slices.
    fn split(&self) -> Duration {
        let mut api = self.api();
        let request = UpdatesRequest::default();
        let began = Instant::now();
        let mut updates = 0;
        for _ in 0..self.count {
            let answer = block_on(api.get_updates(&request)).expect("it can be split");
            updates += black_box(answer).len() as u64;
        }
        let taken = began.elapsed();
        assert_eq!(updates, self.updates());
        taken
    }

    /// The same, and every update is decoded, without a runner.
    fn decode<G: GetUpdates>(&self, mut api: G, look_at: impl Fn(&G::Update)) -> Duration {
        let request = UpdatesRequest::default();
        let began = Instant::now();
        let mut updates = 0;
        for _ in 0..self.count {
            let Ok(answer) = block_on(api.get_updates(&request)) else {
                panic!("it can be split");
            };
            for raw in answer {
                updates += 1;
                let update = G::decode(Delivery::new(raw)).expect("it can be decoded");
                look_at(&update);
                black_box(update);
            }
        }
        let taken = began.elapsed();
        assert_eq!(updates, self.updates());
        taken
    }

    /// Through the whole runner, to the last handler.
    fn runner<G: GetUpdates>(&self, rt: &impl Rt, api: G) -> Duration {
        let (sender, done) = async_channel::bounded(1);
        let left = AtomicU64::new(self.updates());
        let state = Arc::new((left, sender));
        let bot = Bot::for_each_with(api, state, async |state, update: Delivery<G::Update>| {
            black_box(&*update);
            let (left, sender): &(AtomicU64, async_channel::Sender<Instant>) = &state;
            if left.fetch_sub(1, Ordering::AcqRel) == 1 {
                sender.try_send(Instant::now()).expect("it is the only one");
            }
        });
        // The answers in memory are the same whatever was asked for, and what is beyond that is not
        // taken: so there is always room for a whole one.
        let options = SinkOptions::concurrent()
            .concurrency(NonZeroUsize::MAX)
            .max_waiting(NonZeroUsize::MAX);
        let began = Instant::now();
        let handle = bot.sink(options).into_runner(rt.seam()).start();
        let ended = block_on(done.recv()).expect("the handlers count");
        let report = block_on(handle.stop()).expect("nothing fails");
        assert_eq!(report.counters.finished, self.updates());
        ended - began
    }
}

/// One way from bytes to updates.
struct Candidate<'a> {
    model: &'static str,
    implementation: &'static str,
    runtime: &'static str,
    measure: Box<dyn Fn(&Bench) -> Duration + 'a>,
}

/// All ways with one model: `P` is what `serde_json` decodes alone.
fn model<'a, P, G>(
    model: &'static str,
    (tokio, smol): (&'a TokioRt, &'a SmolRt),
    api: fn(BotApi<Memory>) -> G,
) -> [Candidate<'a>; 4]
where
    P: DeserializeOwned + 'a,
    G: GetUpdates,
{
    let candidate = |implementation, runtime, measure| Candidate {
        model,
        implementation,
        runtime,
        measure,
    };
    [
        candidate(PLAIN, "-", Box::new(Bench::plain::<P>)),
        candidate(
            "split and decode",
            "-",
            Box::new(move |bench| bench.decode(api(bench.api()), |_| {})),
        ),
        candidate(
            "runner",
            "tokio",
            Box::new(move |bench| bench.runner(tokio, api(bench.api()))),
        ),
        candidate(
            "runner",
            "smol",
            Box::new(move |bench| bench.runner(smol, api(bench.api()))),
        ),
    ]
}

const PLAIN: &str = "serde_json alone";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let (count, runs) = if has("--quick") { (50, 1) } else { (400, 5) };
    let bench = Bench {
        answers: Arc::new(answers()),
        count,
    };
    // One thread each: what is compared is work, not how it is spread.
    let (tokio, smol) = (TokioRt::new(1), SmolRt::new(1));
    let runtimes = (&tokio, &smol);
    let mut candidates = vec![Candidate {
        model: "none",
        implementation: "split",
        runtime: "-",
        measure: Box::new(Bench::split),
    }];
    candidates.extend(model::<ByHand, _>("light", runtimes, |api| api));
    candidates.push(Candidate {
        model: "light",
        implementation: "split and decode and read the text",
        runtime: "-",
        measure: Box::new(|bench| {
            bench.decode(bench.api(), |update| {
                black_box((update.text(), update.query_id(), update.command()));
            })
        }),
    });
    #[cfg(feature = "models")]
    {
        candidates.extend(model::<Frankenstein, _>("frankenstein", runtimes, |api| {
            api.updates_as::<Frankenstein>()
        }));
        candidates.extend(model::<Teloxide, _>("teloxide-core", runtimes, |api| {
            api.updates_as::<Teloxide>()
        }));
    }
    let mut rest = arguments.iter();
    if rest.any(|argument| argument == "--only") {
        let only = rest.next().expect("a way comes behind --only");
        candidates.retain(|candidate| candidate.implementation == only);
    }

    let mut taken = vec![Vec::new(); candidates.len()];
    for run in 0..=runs {
        for (candidate, taken) in candidates.iter().zip(&mut taken) {
            let nanos = nanos_each((candidate.measure)(&bench), bench.updates());
            // The first one warms up.
            if run > 0 {
                taken.push(nanos);
            }
        }
    }
    tell(&candidates, &taken, has("--csv"));
}

/// Prints the medians, and those of the ratios within one run.
fn tell(candidates: &[Candidate<'_>], taken: &[Vec<f64>], is_csv: bool) {
    let mut data = Data::default();
    if !is_csv {
        head(&[
            "model",
            "way",
            "runtime",
            "ns per update",
            "against serde_json alone",
        ]);
    }
    for (candidate, nanos) in candidates.iter().zip(taken) {
        let plain = candidates
            .iter()
            .position(|other| other.model == candidate.model && other.implementation == PLAIN);
        let ratio = plain.map(|plain| {
            let pairs = nanos.iter().zip(&taken[plain]);
            median(pairs.map(|(nanos, plain)| nanos / plain).collect())
        });
        let nanos = median(nanos.clone());
        let workload = format!("fetch with model {}", candidate.model);
        let mut set = |metric, value| {
            let Candidate {
                implementation,
                runtime,
                ..
            } = candidate;
            data.set(&workload, implementation, runtime, metric, value);
        };
        set("ns", nanos);
        if let Some(ratio) = ratio {
            set("ratio_of_time", ratio);
        }
        if !is_csv {
            row(&[
                candidate.model.into(),
                candidate.implementation.into(),
                candidate.runtime.into(),
                format!("{nanos:.0}"),
                ratio.map_or("".into(), |ratio| format!("{ratio:.2}")),
            ]);
        }
    }
    if is_csv {
        print!("{}", data.to_csv());
    }
}
