//! `BotApi` through the whole pipeline on virtual time, over a client that answers from a script.

use std::{
    collections::VecDeque,
    error::Error,
    sync::{Arc, Mutex},
    time::Duration,
};

use runner_core::{
    Bot, Cause, Confirmation, Delivery, Failure, GetUpdates, Key, RunError, Runtime, RuntimeExt,
    Verdict, testing::SimRuntime,
};
use runner_http::{
    BotApi, HttpClient, HttpError, HttpErrorKind, HttpRequest, HttpResponse, Incoming, Update,
};
use serde_json::Value;

const TOKEN: &str = "600700800:AAabcdefghijklmnopqrstuv-_0123";
const SECOND: Duration = Duration::from_secs(1);

/// Answers in order; then it holds polls for ever and answers what does not wait.
#[derive(Clone, Debug)]
struct Fake {
    sim: SimRuntime,
    script: Arc<Mutex<Script>>,
}

#[derive(Debug, Default)]
struct Script {
    answers: VecDeque<Result<HttpResponse, HttpErrorKind>>,
    /// When, and with which offset, a poll was sent.
    polls: Vec<(Duration, Option<i64>)>,
}

impl Fake {
    fn new(sim: &SimRuntime) -> Self {
        Self {
            sim: sim.clone(),
            script: Arc::default(),
        }
    }

    fn answer(self, status: u16, body: &str) -> Self {
        self.push(Ok(HttpResponse::new(status, body.to_owned())))
    }

    fn updates(self, updates: &str) -> Self {
        self.answer(200, &format!(r#"{{"ok":true,"result":[{updates}]}}"#))
    }

    fn fail(self, kind: HttpErrorKind) -> Self {
        self.push(Err(kind))
    }

    fn push(self, answer: Result<HttpResponse, HttpErrorKind>) -> Self {
        self.script.lock().unwrap().answers.push_back(answer);
        self
    }

    fn api(&self) -> BotApi<Self> {
        BotApi::with_client(TOKEN, self.clone()).unwrap()
    }

    fn polls(&self) -> Vec<(Duration, Option<i64>)> {
        self.script.lock().unwrap().polls.clone()
    }

    fn offsets(&self) -> Vec<Option<i64>> {
        self.polls().into_iter().map(|(_, offset)| offset).collect()
    }
}

impl HttpClient for Fake {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let params: Value = serde_json::from_slice(&request.body).unwrap();
        let answer = {
            let mut script = self.script.lock().unwrap();
            let offset = params["offset"].as_i64();
            script.polls.push((self.sim.elapsed(), offset));
            script.answers.pop_front()
        };
        match answer {
            Some(answer) => answer.map_err(HttpError::new),
            None if params["timeout"] == 0 => {
                Ok(HttpResponse::new(200, r#"{"ok":true,"result":[]}"#))
            }
            None => std::future::pending().await,
        }
    }
}

fn runtime(sim: &SimRuntime) -> Arc<dyn Runtime> {
    Arc::new(sim.clone())
}

/// A place to note things from handlers.
#[derive(Clone, Debug)]
struct Notes<T>(Arc<Mutex<Vec<T>>>);

impl<T> Notes<T> {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Vec::new())))
    }

    fn push(&self, note: T) {
        self.0.lock().unwrap().push(note);
    }

    fn sorted(&self) -> Vec<T>
    where
        T: Clone + Ord,
    {
        let mut notes = self.0.lock().unwrap().clone();
        notes.sort();
        notes
    }
}

fn note_ids(
    ids: &Notes<i64>,
) -> impl Fn(Delivery<Update>) -> std::future::Ready<()> + Send + Sync + 'static {
    let ids = ids.clone();
    move |update| {
        ids.push(update.id());
        std::future::ready(())
    }
}

#[test]
fn an_update_that_cannot_be_decoded_reaches_the_policy_with_its_bytes() {
    const BAD: &str = r#"{"update_id":8,"message":{"text":{"not":"a text"}}}"#;

    let sim = SimRuntime::new(1);
    let fake = Fake::new(&sim)
        .updates(&format!(
            r#"{{"update_id":7,"message":{{"text":"a"}}}},{BAD},null,{{"update_id":10}}"#
        ))
        .updates(r#"{"update_id":11}"#);
    let handled = Notes::new();
    let refused = Notes::new();
    let notes = refused.clone();
    let handle = Bot::for_each(fake.api(), note_ids(&handled))
        .policy(move |failure: Failure<Incoming>| {
            let Cause::Undecodable(error) = &failure.cause else {
                panic!("{}", failure.cause);
            };
            let kind = <BotApi as GetUpdates>::kind(&failure.update);
            assert_eq!(kind, (failure.update.id() == 8).then_some("message"));
            let raw = String::from_utf8(failure.update.raw().to_vec()).unwrap();
            notes.push((failure.update.id(), raw, error.to_string()));
            Verdict::Skip
        })
        .into_runner(runtime(&sim))
        .start();
    let report = sim.block_on(async {
        sim.sleep(SECOND).await;
        handle.stop().await.unwrap()
    });
    assert_eq!(handled.sorted(), [7, 10, 11]);
    let refused = refused.sorted();
    assert_eq!(refused.len(), 2);
    assert_eq!((refused[0].0, refused[0].1.as_str()), (8, BAD));
    assert!(
        refused[0]
            .2
            .starts_with("update 8 cannot be decoded (message, ")
    );
    assert_eq!((refused[1].0, refused[1].1.as_str()), (9, "null"));
    assert_eq!(report.counters.finished, 3);
    assert_eq!(report.counters.undecodable, 2);
    assert_eq!(report.confirmation, Confirmation::Assumed { position: 12 });
    assert_eq!(fake.offsets(), [None, Some(11), Some(12)]);
}

#[test]
fn an_update_without_a_readable_id_is_passed_by_and_not_fetched_for_ever() {
    let sim = SimRuntime::new(2);
    // The second one has the id 9 in truth: 8 has expired.
    let fake = Fake::new(&sim)
        .updates(r#"{"update_id":7},{"update_id":"?"}"#)
        .updates(r#"{"update_id":"?"}"#)
        .updates(r#"{"update_id":10}"#);
    let handled = Notes::new();
    let handle = Bot::for_each(fake.api(), note_ids(&handled))
        .into_runner(runtime(&sim))
        .start();
    let report = sim.block_on(async {
        sim.sleep(SECOND).await;
        handle.stop().await.unwrap()
    });
    assert_eq!(handled.sorted(), [7, 10]);
    assert_eq!(report.counters.undecodable, 2);
    assert_eq!(fake.offsets(), [None, Some(9), Some(10), Some(11)]);
}

#[test]
fn a_first_update_without_a_readable_id_waits_for_a_neighbour() {
    let sim = SimRuntime::new(3);
    let odd = r#"{"update_id":"?"}"#;
    let fake = Fake::new(&sim)
        .updates(odd)
        .updates(odd)
        .updates(&format!(r#"{odd},{{"update_id":10}}"#));
    let handled = Notes::new();
    let handle = Bot::for_each(fake.api(), note_ids(&handled))
        .into_runner(runtime(&sim))
        .start();
    let report = sim.block_on(async {
        sim.sleep(10 * SECOND).await;
        handle.stop().await.unwrap()
    });
    assert_eq!(handled.sorted(), [10]);
    assert_eq!(report.counters.undecodable, 1);
    assert_eq!(fake.offsets(), [None, None, None, Some(11)]);
    // Never at once: it would be a busy loop.
    for pair in fake.polls()[..3].windows(2) {
        assert!(pair[1].0 - pair[0].0 >= SECOND / 2, "{pair:?}");
    }
}

#[test]
fn faults_that_pass_lose_nothing_and_repeat_nothing() {
    let sim = SimRuntime::new(4);
    let batch = r#"{"ok":true,"result":[{"update_id":8},{"update_id":9}]}"#;
    let fake = Fake::new(&sim)
        .updates(r#"{"update_id":7}"#)
        .answer(502, "<html>Bad Gateway</html>")
        .answer(200, "")
        .answer(200, &batch[..batch.len() - 5])
        .fail(HttpErrorKind::Closed)
        .fail(HttpErrorKind::AnswerTimeout)
        .answer(
            500,
            r#"{"ok":false,"error_code":500,"description":"Internal Server Error: restart"}"#,
        )
        .answer(200, batch);
    let handled = Notes::new();
    let handle = Bot::for_each(fake.api(), note_ids(&handled))
        .into_runner(runtime(&sim))
        .start();
    sim.block_on(async {
        sim.sleep(600 * SECOND).await;
        handle.stop().await.unwrap()
    });
    assert_eq!(handled.sorted(), [7, 8, 9]);
    let mut offsets = fake.offsets();
    let after = offsets.split_off(8);
    assert_eq!(offsets[0], None);
    assert!(offsets[1..].iter().all(|offset| *offset == Some(8)));
    assert!(after.iter().all(|offset| *offset == Some(10)));
}

#[test]
fn a_429_is_waited_once_and_exactly() {
    let sim = SimRuntime::new(5);
    let fake = Fake::new(&sim).answer(
        429,
        r#"{"ok":false,"error_code":429,"description":"Too Many Requests: retry after 7","parameters":{"retry_after":7}}"#,
    ).updates(r#"{"update_id":1}"#);
    let handled = Notes::new();
    let handle = Bot::for_each(fake.api(), note_ids(&handled))
        .into_runner(runtime(&sim))
        .start();
    sim.block_on(async {
        sim.sleep(10 * SECOND).await;
        handle.stop().await.unwrap()
    });
    assert_eq!(handled.sorted(), [1]);
    assert_eq!(fake.polls()[1].0, 7 * SECOND);
}

#[test]
fn a_refused_token_ends_the_run_and_says_what_to_do() {
    let sim = SimRuntime::new(6);
    let fake = Fake::new(&sim).answer(
        401,
        r#"{"ok":false,"error_code":401,"description":"Unauthorized"}"#,
    );
    let mut runner = Bot::for_each(fake.api(), note_ids(&Notes::new())).into_runner(runtime(&sim));
    let error = sim.block_on(runner.run()).unwrap_err();
    assert!(matches!(error, RunError::Supply { .. }));
    let mut text = String::new();
    let mut next: Option<&(dyn Error + 'static)> = Some(&error);
    while let Some(error) = next {
        text += &format!("{error}: ");
        next = error.source();
    }
    assert!(
        text.contains("get the current one from @BotFather"),
        "{text}"
    );
    // What a `main` that returns it prints.
    let printed = format!("{error:?}");
    assert!(printed.contains("@BotFather"), "{printed}");
    assert!(!format!("{text} {printed}").contains("AAabc"));
    assert_eq!(fake.polls().len(), 1);
}

#[test]
fn updates_of_one_chat_keep_their_order_and_a_typed_model_sees_them() {
    #[derive(serde::Deserialize)]
    struct Mine {
        update_id: i64,
    }

    let sim = SimRuntime::new(7);
    let updates: Vec<String> = (1..=60)
        .map(|id| {
            format!(
                r#"{{"update_id":{id},"message":{{"chat":{{"id":{}}}}}}}"#,
                id % 3
            )
        })
        .collect();
    let fake = Fake::new(&sim).updates(&updates.join(","));
    let handled: Notes<i64> = Notes::new();
    let notes = handled.clone();
    let clock = sim.clone();
    let handle = Bot::for_each_with(
        fake.api().updates_as::<Mine>(),
        notes,
        move |notes: Notes<i64>, update: Delivery<Mine>| {
            let clock = clock.clone();
            async move {
                let pause = clock.below(50);
                clock.sleep(Duration::from_millis(pause)).await;
                notes.push(update.update_id);
            }
        },
    )
    .into_runner(runtime(&sim))
    .start();
    sim.block_on(async {
        sim.sleep(10 * SECOND).await;
        handle.stop().await.unwrap()
    });
    let notes = handled.0.lock().unwrap();
    assert_eq!(notes.len(), 60);
    for chat in 0..3 {
        assert!(notes.iter().filter(|id| *id % 3 == chat).is_sorted());
    }
    assert!(!notes.is_sorted(), "the chats run side by side");
}

/// Anonymous administrators of all groups have the same `from`.
#[test]
fn groups_with_anonymous_administrators_do_not_wait_for_each_other() {
    let sim = SimRuntime::new(1);
    let updates: Vec<String> = (0..100)
        .map(|group| {
            format!(
                r#"{{"update_id":{group},"message":{{"message_id":1,"from":{{"id":1087968824}},"sender_chat":{{"id":-{group}}},"chat":{{"id":-{group}}},"date":1}}}}"#
            )
        })
        .collect();
    let fake = Fake::new(&sim).updates(&updates.join(","));
    let clock = sim.clone();
    let handle = Bot::for_each(fake.api(), move |_: Delivery<Update>| {
        let sim = clock.clone();
        async move { sim.sleep(SECOND).await }
    })
    .sequentialize(|update: &Incoming| {
        let chat = update.chat_id().map(Key::chat);
        chat.into_iter().chain(update.user_id().map(Key::user))
    })
    .into_runner(Arc::new(sim.clone()))
    .start();
    sim.advance(SECOND * 2);
    assert_eq!(handle.stats().counters.finished, 100);
}

fn bytes_held<G: runner_core::GetUpdates>(sim: &SimRuntime, api: G) -> usize {
    let bot = Bot::for_each(api, async |_| std::future::pending::<()>().await);
    let handle = bot.into_runner(runtime(sim)).start();
    sim.advance(SECOND);
    handle.stats().bytes
}

#[test]
fn an_update_counts_with_the_length_of_its_json() {
    let sim = SimRuntime::new(1);
    let text = "x".repeat(100_000);
    let updates = format!(r#"{{"update_id":1,"message":{{"text":"{text}"}}}},{{"update_id":2}}"#);
    // The comma is not part of either.
    let expected = updates.len() - 1;
    let api = Fake::new(&sim).updates(&updates).api();
    assert_eq!(bytes_held(&sim, api), expected);
    let api = Fake::new(&sim).updates(&updates).api();
    assert_eq!(bytes_held(&sim, api.updates_as::<Value>()), expected);
}
