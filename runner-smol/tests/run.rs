//! Where `run`, `serve` and `serve_on` may be called.

use std::{convert::Infallible, future::pending, sync::Arc};

use async_executor::Executor;
use async_io::block_on;
use futures::{
    FutureExt, StreamExt,
    channel::{mpsc, oneshot},
    executor,
};
use runner_core::{
    Bot, Delivery, RunError, RunnerHandle, SupplyError, UpdateConsumer, testing::FakeApi,
};
use runner_smol::{run, run_with, serve, serve_on};

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

#[test]
fn serve_runs_wherever_it_is_awaited() {
    let result = executor::block_on(serve(refused()));
    assert!(matches!(result, Err(RunError::Supply { .. })), "{result:?}");
    let executor = Arc::new(Executor::new());
    let result = block_on(executor.run(serve_on(&executor, refused())));
    assert!(matches!(result, Err(RunError::Supply { .. })), "{result:?}");
}

#[test]
fn a_dropped_serve_drops_its_handlers() {
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
    block_on(async {
        let mut serving = Box::pin(serve(bot));
        // Served only in here, dropped afterwards.
        futures::select! {
            _ = begun.next() => {}
            result = (&mut serving).fuse() => panic!("ended: {result:?}"),
        }
    });
    assert!(block_on(held).is_err(), "the handler lives on");
}
