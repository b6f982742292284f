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
    Bot, BoxError, Delivery, GetUpdates, Key, RunError, RunnerHandle, SupplyError, UpdateConsumer,
    UpdatesRequest,
};
use runner_smol::{run, run_with, serve, serve_on};

/// An API that has some updates, then none; or refuses from the beginning. Short
/// polls are answered at once.
struct Api {
    updates: Vec<i64>,
    refuses: bool,
}

impl GetUpdates for Api {
    type Raw = i64;
    type Update = i64;
    type Error = SupplyError;

    async fn get_updates(&mut self, request: &UpdatesRequest) -> Result<Vec<i64>, SupplyError> {
        if request.timeout.is_zero() {
            return Ok(Vec::new());
        }
        if self.refuses {
            return Err(SupplyError::Fatal("no such bot".into()));
        }
        match std::mem::take(&mut self.updates) {
            updates if updates.is_empty() => pending().await,
            updates => Ok(updates),
        }
    }

    async fn delete_webhook(&mut self, _: bool) -> Result<(), SupplyError> {
        Ok(())
    }

    fn update_id(raw: &i64) -> i64 {
        *raw
    }

    fn default_key(_: &i64) -> Option<Key> {
        None
    }

    fn decode(raw: Delivery<i64>) -> Result<Delivery<i64>, BoxError> {
        Ok(raw)
    }
}

fn refused() -> Bot<Api, impl UpdateConsumer<i64>> {
    let api = Api {
        updates: Vec::new(),
        refuses: true,
    };
    Bot::for_each(api, async |_: Delivery<i64>| {})
}

#[test]
fn run_with_gives_a_handle_before_the_first_fetch() {
    let (give, given) = std::sync::mpsc::channel();
    let (begin, begun) = std::sync::mpsc::channel();
    let api = Api {
        updates: vec![1, 2],
        refuses: false,
    };
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
    let api = Api {
        updates: vec![1],
        refuses: false,
    };
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
