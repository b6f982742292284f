//! Blocking threads for the requests of one lane, and how a request is cut.
//!
//! Knows nothing of HTTP: one exchange is [`Exchanger::perform`].

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    future::Future,
    panic::{self, AssertUnwindSafe},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    },
    task::{Context, Poll},
    thread,
};

use futures::channel::oneshot;
use ureq::Agent;

use super::exchange::{Exchanger, IDLE, Settings};
use crate::client::{HttpError, HttpErrorKind, HttpRequest, HttpResponse};

/// The threads of one lane. Dropping it ends them.
pub(super) struct Threads {
    shared: Arc<Shared>,
}

impl Threads {
    /// `limit` is how many requests run at a time.
    pub(super) fn new(name: &'static str, limit: usize, settings: Arc<Settings>) -> Self {
        Self {
            shared: Arc::new(Shared {
                name,
                limit,
                settings,
                state: Mutex::default(),
            }),
        }
    }

    /// Starts the request, or lets it wait for a thread. Dropping what is returned cuts it.
    pub(super) fn submit(&self, request: HttpRequest) -> Pending {
        let (sender, answer) = oneshot::channel();
        let mut state = self.shared.lock();
        let id = state.next;
        state.next += 1;
        let job = Job {
            id,
            request,
            answer: sender,
        };
        let handover = self.shared.dispatch(&mut state, job);
        drop(state);
        self.shared.complete(handover);
        Pending {
            id,
            answer,
            shared: Some(Arc::clone(&self.shared)),
        }
    }
}

#[cfg(all(test, feature = "test-util"))]
impl Threads {
    /// How many threads have a place, are idle among them, requests wait, and threads were cut.
    pub(super) fn counts(&self) -> (usize, usize, usize, usize) {
        let state = self.shared.lock();
        (
            state.threads,
            state.idle.len(),
            state.queue.len(),
            state.detached,
        )
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.is_closed = true;
        // Every idle thread waits on the other end of its sender.
        state.idle.clear();
    }
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.lock();
        f.debug_struct("Threads")
            .field("threads", &state.threads)
            .field("idle", &state.idle.len())
            .field("waiting", &state.queue.len())
            .field("cut", &state.detached)
            .finish_non_exhaustive()
    }
}

/// One request on its way.
pub(super) struct Pending {
    id: u64,
    answer: oneshot::Receiver<Result<HttpResponse, HttpError>>,
    // None once the answer was taken, so that nothing is cut any more.
    shared: Option<Arc<Shared>>,
}

impl Future for Pending {
    type Output = Result<HttpResponse, HttpError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.answer).poll(cx).map(|answer| {
            self.shared = None;
            // A thread that ends without an answer was told to, or panicked.
            answer.unwrap_or_else(|_| Err(HttpError::new(HttpErrorKind::Unavailable)))
        })
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            shared.cut(self.id);
        }
    }
}

struct Shared {
    name: &'static str,
    limit: usize,
    settings: Arc<Settings>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    queue: VecDeque<Job>,
    /// The last one to become idle is the first to work again: its connection is the freshest, and
    /// those not needed for a while end.
    idle: Vec<(u64, SyncSender<Job>)>,
    running: HashMap<u64, Running>,
    /// Those that hold a place, idle or not.
    threads: usize,
    /// Those that were cut, gave up their place, and have not ended yet.
    detached: usize,
    is_closed: bool,
}

struct Job {
    id: u64,
    request: HttpRequest,
    answer: oneshot::Sender<Result<HttpResponse, HttpError>>,
}

/// A job given to a thread.
enum Running {
    /// The thread has not taken it up yet.
    Starting,
    /// Shutting this agent down ends it.
    Live(Agent),
    /// Cut before that; the thread goes on to the next.
    Skipped,
    /// Cut; the thread keeps its place.
    Cut,
    /// Cut; the place of the thread is taken by another, and it ends.
    Detached,
}

/// What is left to do for a job that was dispatched.
enum Handover {
    Done,
    Give(SyncSender<Job>, Job),
    /// There is no thread for it.
    Refuse(Job, HttpError),
}

/// What a thread does after a job.
enum Next {
    Run(Job),
    Wait(Receiver<Job>),
    End,
}

impl Shared {
    /// Chooses a thread for the job, or lets it wait. What is returned is to be
    /// [completed](Self::complete) without the lock.
    fn dispatch(self: &Arc<Self>, state: &mut State, job: Job) -> Handover {
        if let Some((_, sender)) = state.idle.pop() {
            state.running.insert(job.id, Running::Starting);
            return Handover::Give(sender, job);
        }
        if state.threads >= self.limit {
            state.queue.push_back(job);
            return Handover::Done;
        }

        let (sender, jobs) = mpsc::sync_channel(1);
        let thread = state.next;
        state.next += 1;
        let shared = Arc::clone(self);
        let started = thread::Builder::new()
            .name(format!("runner-http-{}", self.name))
            .spawn(move || shared.work(thread, jobs));
        match started {
            Ok(_) => {
                state.threads += 1;
                state.running.insert(job.id, Running::Starting);
                Handover::Give(sender, job)
            }
            Err(_) if state.threads > 0 => {
                state.queue.push_back(job);
                Handover::Done
            }
            Err(error) => Handover::Refuse(
                job,
                HttpError::new(HttpErrorKind::Unavailable).with_source(error),
            ),
        }
    }

    /// To be called without the lock: it is the first thing that the thread takes, and the waker of
    /// a caller may do anything.
    fn complete(&self, handover: Handover) {
        match handover {
            Handover::Done => {}
            Handover::Give(sender, job) => {
                // Threads take themselves off the list before they end. If one had ended all the
                // same, the caller would be told by the end of its channel.
                if let Err(mpsc::SendError(job)) = sender.send(job) {
                    self.lock().running.remove(&job.id);
                }
            }
            // Nobody waits any more if the future was dropped.
            Handover::Refuse(job, error) => {
                let _ = job.answer.send(Err(error));
            }
        }
    }

    fn work(&self, thread: u64, mut jobs: Receiver<Job>) {
        let mut exchanger = Exchanger::new(&self.settings);
        loop {
            let mut job = match jobs.recv_timeout(IDLE) {
                Ok(job) => job,
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) if self.retire(thread) => return,
                // A job was given to this thread in the last moment.
                Err(RecvTimeoutError::Timeout) => match jobs.recv() {
                    Ok(job) => job,
                    Err(_) => return,
                },
            };
            loop {
                let (id, answer) = (job.id, job.answer);
                let outcome = self.begin(id, &exchanger).then(|| {
                    // A panic in the client library must not cost the lane a thread.
                    panic::catch_unwind(AssertUnwindSafe(|| exchanger.perform(&job.request)))
                        .unwrap_or_else(|_| {
                            exchanger = Exchanger::new(&self.settings);
                            Err(HttpError::new(HttpErrorKind::Unavailable))
                        })
                });
                // The thread is free before the answer is known, so that a caller who waits for
                // one answer before the next request uses one connection.
                let (is_cut, next) = self.settle(thread, id);
                if is_cut {
                    exchanger = Exchanger::new(&self.settings);
                }
                if let Some(outcome) = outcome {
                    // Nobody waits any more if the future was dropped.
                    let _ = answer.send(outcome);
                }
                match next {
                    Next::Run(following) => job = following,
                    Next::Wait(receiver) => {
                        jobs = receiver;
                        break;
                    }
                    Next::End => return,
                }
            }
        }
    }

    /// Makes the job one that can be cut. False if it was cut before.
    fn begin(&self, id: u64, exchanger: &Exchanger) -> bool {
        let mut state = self.lock();
        let running = state.running.get_mut(&id).expect("only settle removes it");
        let begins = matches!(running, Running::Starting);
        if begins {
            *running = Running::Live(exchanger.agent());
        }
        begins
    }

    /// Ends a job and decides what its thread does now. True if its agent was shut down.
    fn settle(&self, thread: u64, id: u64) -> (bool, Next) {
        let mut state = self.lock();
        let running = state.running.remove(&id).expect("only settle removes it");
        if let Running::Detached = running {
            state.detached -= 1;
            return (true, Next::End);
        }
        let is_cut = matches!(running, Running::Cut);
        if let Some(job) = state.queue.pop_front() {
            state.running.insert(job.id, Running::Starting);
            return (is_cut, Next::Run(job));
        }
        if state.is_closed {
            state.threads -= 1;
            return (is_cut, Next::End);
        }
        let (sender, jobs) = mpsc::sync_channel(1);
        state.idle.push((thread, sender));
        (is_cut, Next::Wait(jobs))
    }

    /// Takes a thread that was idle for too long off the list. False if it just got a job.
    fn retire(&self, thread: u64) -> bool {
        let mut state = self.lock();
        let place = state.idle.iter().position(|(idle, _)| *idle == thread);
        if let Some(place) = place {
            state.idle.remove(place);
            state.threads -= 1;
        }
        place.is_some() || state.is_closed
    }

    /// Ends a request whose caller has gone.
    fn cut(self: &Arc<Self>, id: u64) {
        let mut state = self.lock();
        if let Some(place) = state.queue.iter().position(|job| job.id == id) {
            state.queue.remove(place);
            return;
        }
        let detach = state.detached < self.limit;
        let agent = match state.running.get_mut(&id) {
            Some(running @ Running::Starting) => {
                *running = Running::Skipped;
                return;
            }
            Some(running @ Running::Live(_)) => {
                let cut = if detach {
                    Running::Detached
                } else {
                    Running::Cut
                };
                let Running::Live(agent) = std::mem::replace(running, cut) else {
                    unreachable!("matched above");
                };
                agent
            }
            // The answer is on its way, or was given to a receiver that has gone.
            Some(Running::Skipped | Running::Cut | Running::Detached) | None => return,
        };
        let mut handover = Handover::Done;
        if detach {
            // The thread may be in a name look-up or a connect, which nothing can cut: it ends by
            // itself, and whoever waits need not wait for that.
            state.threads -= 1;
            state.detached += 1;
            if let Some(job) = state.queue.pop_front() {
                handover = self.dispatch(&mut state, job);
            }
        }
        drop(state);
        agent.shutdown();
        self.complete(handover);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock, except on a broken invariant.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
