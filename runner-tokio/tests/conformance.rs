//! `Tokio` does what the core expects of a runtime, on every kind of tokio runtime.

use std::sync::Arc;

use runner_core::{
    BoxFuture, Runtime,
    testing::conformance::{self, Subject},
};
use runner_tokio::Tokio;
use tokio::runtime::{Builder, Runtime as TokioRuntime};

struct OnTokio {
    runtime: Option<TokioRuntime>,
    tokio: Tokio,
    paused: bool,
}

impl OnTokio {
    fn new(builder: &mut Builder, paused: bool) -> Self {
        let runtime = builder.enable_all().start_paused(paused).build().unwrap();
        Self {
            tokio: Tokio::new(runtime.handle().clone()),
            runtime: Some(runtime),
            paused,
        }
    }
}

impl Subject for OnTokio {
    fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::new(self.tokio.clone())
    }

    fn block_on(&mut self, future: BoxFuture<'_>) {
        self.runtime.as_ref().unwrap().block_on(future);
    }

    fn shut_down(&mut self) {
        self.runtime = None;
    }

    fn has_virtual_time(&self) -> bool {
        self.paused
    }
}

/// Leaves the runtime alone and waits for it outside.
struct FromOutside(OnTokio);

impl Subject for FromOutside {
    fn runtime(&self) -> Arc<dyn Runtime> {
        self.0.runtime()
    }

    fn shut_down(&mut self) {
        self.0.shut_down();
    }
}

#[test]
fn many_threads() {
    conformance::check(|| OnTokio::new(Builder::new_multi_thread().worker_threads(4), false));
}

#[test]
fn one_worker_seen_from_outside() {
    conformance::check(|| {
        let mut builder = Builder::new_multi_thread();
        FromOutside(OnTokio::new(builder.worker_threads(1), false))
    });
}

#[test]
fn the_current_thread() {
    conformance::check(|| OnTokio::new(&mut Builder::new_current_thread(), false));
}

#[test]
fn a_paused_clock() {
    conformance::check(|| OnTokio::new(&mut Builder::new_current_thread(), true));
}
