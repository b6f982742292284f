//! Where `run` and `serve` may be called.

use std::{convert::Infallible, future::pending, panic::catch_unwind, sync::Arc};

use futures::channel::{mpsc, oneshot};
use runner_core::{
    Bot, Delivery, RunError, RunnerHandle, Runtime, SupplyError, UpdateConsumer, testing::FakeApi,
};
use runner_tokio::{Tokio, run, run_with, serve};
use tokio::runtime::{Builder, Handle};

fn refused() -> Bot<FakeApi, impl UpdateConsumer<i64>> {
    let api = FakeApi::of_ids([]);
    api.fail(SupplyError::fatal("no such bot"));
    Bot::for_each(api, async |_: Delivery<i64>| {})
}

#[test]
fn run_with_gives_a_handle_before_the_first_fetch() {
    let (give, given) = std::sync::mpsc::channel();
    let (begin, begun) = std::sync::mpsc::channel();
    let api = FakeApi::of_ids([1, 2]);
    let bot = Bot::for_each(api, move |_: Delivery<i64>| {
        begin.send(()).unwrap();
        std::future::ready(())
    });
    let stopper = std::thread::spawn(move || {
        let handle: RunnerHandle<i64> = given.recv().unwrap();
        for _ in 0..2 {
            begun.recv().unwrap();
        }
        drop(handle.stop());
    });
    let report = run_with(bot, |handle| {
        assert_eq!(handle.stats().counters.supplied, 0);
        give.send(handle).unwrap();
    });
    assert_eq!(report.unwrap().counters.finished, 2);
    stopper.join().unwrap();
}

#[test]
fn run_needs_no_runtime_around_it() {
    let result = run(refused());
    assert!(matches!(result, Err(RunError::Supply { .. })), "{result:?}");
}

#[tokio::test]
async fn run_within_a_runtime_says_what_to_call_instead() {
    let panic = catch_unwind(|| run(refused())).unwrap_err();
    let text = panic.downcast_ref::<&str>().unwrap();
    assert!(text.contains("`runner_tokio::serve(bot).await`"), "{text}");
}

#[tokio::test]
async fn serve_runs_where_it_is_awaited() {
    let result = serve(refused()).await;
    assert!(matches!(result, Err(RunError::Supply { .. })), "{result:?}");
    // On a blocking thread, too.
    let handle = Handle::current();
    let blocking = tokio::task::spawn_blocking(move || handle.block_on(serve(refused())));
    let result = blocking.await.unwrap();
    assert!(matches!(result, Err(RunError::Supply { .. })), "{result:?}");
}

#[tokio::test]
async fn a_dropped_serve_drops_its_handlers() {
    let api = FakeApi::of_ids([1]);
    let (hold, held) = oneshot::channel::<Infallible>();
    let hold = Arc::new(std::sync::Mutex::new(Some(hold)));
    let (begin, mut begun) = mpsc::unbounded();
    let bot = Bot::for_each(api, move |_: Delivery<i64>| {
        let hold = hold.lock().unwrap().take();
        begin.unbounded_send(()).unwrap();
        async move {
            let _hold = hold;
            pending::<()>().await;
        }
    });
    let serving = tokio::spawn(serve(bot));
    begun.recv().await.unwrap();
    serving.abort();
    assert!(serving.await.unwrap_err().is_cancelled());
    assert!(held.await.is_err(), "the handler lives on");
}

#[test]
fn a_runtime_without_timers_is_told_at_the_first_sleep() {
    let runtime = Builder::new_current_thread().build().unwrap();
    let tokio = Tokio::new(runtime.handle().clone());
    let in_an_hour = tokio.now() + std::time::Duration::from_secs(3600);
    let panic = catch_unwind(|| runtime.block_on(tokio.sleep_until(in_an_hour))).unwrap_err();
    let text = panic.downcast_ref::<String>().unwrap();
    assert!(text.contains("enable_time"), "{text}");
}
