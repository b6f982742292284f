//! The two runtimes, used natively by the hand-written loops and through the seam by the runner.

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use runner::Runtime;

/// What a hand-written loop uses of its runtime.
pub trait Rt: Clone + Send + Sync + 'static {
    /// Starts a task, without boxing it.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static);

    /// Waits.
    fn sleep(&self, span: Duration) -> impl Future<Output = ()> + Send;

    /// Runs `work` for at most `limit`.
    fn timeout<T: Send>(
        &self,
        limit: Duration,
        work: impl Future<Output = T> + Send,
    ) -> impl Future<Output = Option<T>> + Send;

    /// The same runtime for the runner.
    fn seam(&self) -> Arc<dyn Runtime>;

    /// Runs a task to its end, as a task of the runtime.
    fn block_on<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> T {
        let (sender, receiver) = std::sync::mpsc::channel();
        self.spawn(async move {
            let _ = sender.send(task.await);
        });
        receiver.recv().expect("the task ends")
    }
}

/// tokio with this many workers.
#[derive(Clone, Debug)]
pub struct TokioRt(Arc<tokio::runtime::Runtime>);

impl TokioRt {
    /// Starts it.
    ///
    /// # Panics
    ///
    /// If no thread can be started.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(workers)
            .enable_all()
            .build()
            .expect("threads can be started");
        Self(Arc::new(runtime))
    }
}

impl Rt for TokioRt {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(task);
    }

    fn sleep(&self, span: Duration) -> impl Future<Output = ()> + Send {
        tokio::time::sleep(span)
    }

    async fn timeout<T: Send>(
        &self,
        limit: Duration,
        work: impl Future<Output = T> + Send,
    ) -> Option<T> {
        tokio::time::timeout(limit, work).await.ok()
    }

    fn seam(&self) -> Arc<dyn Runtime> {
        Arc::new(runner::tokio::Tokio::new(self.0.handle().clone()))
    }
}

/// async-executor with this many threads, timers by async-io.
#[derive(Clone, Debug)]
pub struct SmolRt {
    executor: Arc<async_executor::Executor<'static>>,
    _threads: Arc<Threads>,
}

#[derive(Debug)]
struct Threads {
    stop: async_channel::Sender<()>,
    handles: Vec<JoinHandle<()>>,
}

impl SmolRt {
    /// Starts it.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        let executor = Arc::new(async_executor::Executor::new());
        let (stop, stopped) = async_channel::bounded::<()>(1);
        let handles = (0..workers)
            .map(|_| {
                let (executor, stopped) = (Arc::clone(&executor), stopped.clone());
                thread::spawn(move || {
                    let _ = async_io::block_on(executor.run(stopped.recv()));
                })
            })
            .collect();
        Self {
            executor,
            _threads: Arc::new(Threads { stop, handles }),
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop.close();
        for handle in self.handles.drain(..) {
            let _ = handle.join();
        }
    }
}

impl Rt for SmolRt {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.executor.spawn(task).detach();
    }

    async fn sleep(&self, span: Duration) {
        async_io::Timer::after(span).await;
    }

    async fn timeout<T: Send>(
        &self,
        limit: Duration,
        work: impl Future<Output = T> + Send,
    ) -> Option<T> {
        let timer = std::pin::pin!(async_io::Timer::after(limit));
        match futures::future::select(std::pin::pin!(work), timer).await {
            futures::future::Either::Left((done, _)) => Some(done),
            futures::future::Either::Right(_) => None,
        }
    }

    fn seam(&self) -> Arc<dyn Runtime> {
        Arc::new(runner::smol::Smol::on(&self.executor))
    }
}
