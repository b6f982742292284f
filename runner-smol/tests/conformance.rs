//! `Smol` does what the core expects of a runtime, with its own threads and on a user's executor.

use std::{num::NonZeroUsize, sync::Arc, thread};

use async_executor::Executor;
use futures::channel::oneshot;
use runner_core::{
    BoxFuture, Runtime,
    testing::conformance::{self, Subject},
};
use runner_smol::Smol;

/// With threads of its own.
struct Own(Smol);

impl Subject for Own {
    fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::new(self.0.clone())
    }

    fn shut_down(&mut self) {
        self.0.shut_down();
    }
}

/// On an executor that this thread runs, and only while it blocks on something.
struct HereAndNow {
    executor: Option<Arc<Executor<'static>>>,
    smol: Smol,
}

impl Subject for HereAndNow {
    fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::new(self.smol.clone())
    }

    fn block_on(&mut self, future: BoxFuture<'_>) {
        async_io::block_on(self.executor.as_ref().unwrap().run(future));
    }

    fn shut_down(&mut self) {
        self.executor = None;
    }
}

/// On an executor that another thread runs until it is told to stop.
struct Elsewhere {
    smol: Smol,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Elsewhere {
    fn new() -> Self {
        let executor = Arc::new(Executor::new());
        let smol = Smol::on(&executor);
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            let _ = async_io::block_on(executor.run(stopped));
        });
        Self {
            smol,
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Subject for Elsewhere {
    fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::new(self.smol.clone())
    }

    fn shut_down(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

#[test]
fn one_thread() {
    conformance::check(|| Own(Smol::with_threads(NonZeroUsize::MIN)));
}

#[test]
fn many_threads() {
    conformance::check(|| Own(Smol::with_threads(NonZeroUsize::new(4).unwrap())));
}

#[test]
fn an_executor_of_the_user_on_this_thread() {
    conformance::check(|| {
        let executor = Arc::new(Executor::new());
        HereAndNow {
            smol: Smol::on(&executor),
            executor: Some(executor),
        }
    });
}

#[test]
fn an_executor_of_the_user_on_another_thread() {
    conformance::check(Elsewhere::new);
}

#[test]
fn threads_end_with_the_last_clone() {
    let smol = Smol::new();
    let (held, dropped) = oneshot::channel::<()>();
    let (tell, running) = oneshot::channel();
    smol.spawn(Box::pin(async move {
        let _held = held;
        let _ = tell.send(());
        std::future::pending::<()>().await;
    }));
    async_io::block_on(running).unwrap();
    drop(smol.clone());
    assert!(!format!("{smol:?}").contains("shut_down: true"));
    drop(smol);
    assert!(async_io::block_on(dropped).is_err(), "the task outlived it");
}
