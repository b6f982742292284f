//! Blocking threads for the requests of one lane, and how a request is cut.
//!
//! Knows nothing of HTTP: one exchange is [`Exchanger::perform`].

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    future::Future,
    io,
    panic::{self, AssertUnwindSafe},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    },
    task::{Context, Poll},
    thread,
    time::{Duration, Instant},
};

use futures::channel::oneshot;
use runner_core::BoxError;
use ureq::Agent;

use super::exchange::{Exchanger, IDLE, Settings};
use crate::client::{HttpError, HttpErrorKind, HttpRequest, HttpResponse};

/// The threads of one lane. Dropping it ends them.
pub(super) struct Threads {
    shared: Arc<Shared>,
}

/// How many threads a lane may have.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// So many are started as soon as there is a request for them.
    pub(super) at_once: usize,
    /// So many there are at most. Those beyond are started while requests wait for long.
    pub(super) most: usize,
    /// How long a request waits for a thread.
    pub(super) patience: Duration,
}

impl Threads {
    pub(super) fn new(name: &'static str, bounds: Bounds, settings: Arc<Settings>) -> Self {
        Self {
            shared: Arc::new(Shared {
                name,
                bounds,
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
            since: Instant::now(),
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

    /// How many requests wait for a thread.
    pub(super) fn waiting(&self) -> usize {
        self.shared.lock().queue.len()
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
        let idle = {
            let mut state = self.shared.lock();
            state.is_closed = true;
            std::mem::take(&mut state.idle)
        };
        // Every idle thread waits on the other end of its sender.
        drop(idle);
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
    bounds: Bounds,
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
    /// When there was no descriptor for a connection.
    starved: Option<Instant>,
    /// Whether a thread looks after the requests that wait.
    is_watched: bool,
    is_closed: bool,
}

struct Job {
    id: u64,
    request: HttpRequest,
    answer: oneshot::Sender<Result<HttpResponse, HttpError>>,
    since: Instant,
}

impl Job {
    fn fail(self, kind: HttpErrorKind, reason: impl Into<BoxError>) {
        // Nobody waits any more if the future was dropped.
        let _ = self
            .answer
            .send(Err(HttpError::new(kind).with_source(reason)));
    }
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
    /// The job waits, and nothing looks after it yet.
    Watch,
    Give(SyncSender<Job>, Job),
    /// The job has a place, whose thread has to be started.
    Start(Job),
}

/// What a thread does after a job.
enum Next {
    Run(Job),
    Wait(Receiver<Job>),
    End,
}

impl State {
    /// Gives the job a place of its own.
    fn start(&mut self, job: Job) -> Handover {
        self.threads += 1;
        self.running.insert(job.id, Running::Starting);
        Handover::Start(job)
    }

    /// Whether more threads would find no descriptor.
    fn is_starved(&self) -> bool {
        self.starved.is_some_and(|at| at.elapsed() < STARVED)
    }

    fn wait(&mut self, job: Job) -> Handover {
        // The oldest one is in front, also if it comes back.
        let place = self.queue.partition_point(|other| other.id < job.id);
        self.queue.insert(place, job);
        match std::mem::replace(&mut self.is_watched, true) {
            true => Handover::Done,
            false => Handover::Watch,
        }
    }
}

impl Shared {
    /// Chooses a thread for the job, or lets it wait. What is returned is to be
    /// [completed](Self::complete) without the lock.
    fn dispatch(&self, state: &mut State, job: Job) -> Handover {
        if let Some((_, sender)) = state.idle.pop() {
            state.running.insert(job.id, Running::Starting);
            return Handover::Give(sender, job);
        }
        if state.threads == 0 || state.threads < self.bounds.at_once && !state.is_starved() {
            return state.start(job);
        }
        state.wait(job)
    }

    /// To be called without the lock: it is the first thing that a thread takes, starting a thread
    /// takes long, and the waker of a caller may do anything.
    fn complete(self: &Arc<Self>, handover: Handover) {
        match handover {
            Handover::Done => {}
            Handover::Watch => {
                let shared = Arc::clone(self);
                let started = self.spawn("watch", move || shared.watch());
                if started.is_err() {
                    // The requests wait for the threads that are there.
                    self.lock().is_watched = false;
                }
            }
            Handover::Give(sender, job) => {
                // Threads take themselves off the list before they end. If one had ended all the
                // same, the caller would be told by the end of its channel.
                if let Err(mpsc::SendError(job)) = sender.send(job) {
                    self.lock().running.remove(&job.id);
                }
            }
            Handover::Start(job) => {
                let (sender, jobs) = mpsc::sync_channel(1);
                let thread = job.id;
                let shared = Arc::clone(self);
                match self.spawn(self.name, move || shared.work(thread, jobs)) {
                    Ok(()) => self.complete(Handover::Give(sender, job)),
                    Err(error) => self.refuse(job, error),
                }
            }
        }
    }

    fn spawn(&self, name: &str, task: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let thread = thread::Builder::new().name(format!("runner-http-{name}"));
        thread.spawn(task).map(drop)
    }

    /// There is no thread for this job: it waits for one of the others, if there are any.
    fn refuse(self: &Arc<Self>, job: Job, error: io::Error) {
        let mut state = self.lock();
        state.threads -= 1;
        match state.running.remove(&job.id) {
            Some(Running::Starting) if state.threads > 0 => {
                if let Some((_, sender)) = state.idle.pop() {
                    state.running.insert(job.id, Running::Starting);
                    drop(state);
                    return self.complete(Handover::Give(sender, job));
                }
                let handover = state.wait(job);
                drop(state);
                self.complete(handover);
            }
            Some(Running::Starting) => {
                drop(state);
                job.fail(HttpErrorKind::Unavailable, error);
            }
            // Its caller has gone.
            _ => drop(state),
        }
    }

    /// Starts more threads while requests wait for long, and ends those waits that are too long.
    fn watch(self: Arc<Self>) {
        loop {
            thread::sleep(GROW_EVERY);
            let now = Instant::now();
            let (mut late, mut handovers) = (Vec::new(), Vec::new());
            {
                let mut state = self.lock();
                if state.queue.is_empty() {
                    state.is_watched = false;
                    return;
                }
                let since = |job: &Job| now.saturating_duration_since(job.since);
                while state
                    .queue
                    .front()
                    .is_some_and(|job| since(job) >= self.bounds.patience)
                {
                    late.extend(state.queue.pop_front());
                }
                let room = match state.is_starved() {
                    true => 0,
                    false => self.bounds.most.saturating_sub(state.threads),
                };
                for _ in 0..room.min(state.threads.clamp(1, GROW_BY)) {
                    if state
                        .queue
                        .front()
                        .is_none_or(|job| since(job) < GROW_EVERY)
                    {
                        break;
                    }
                    let job = state.queue.pop_front().expect("it is there");
                    handovers.push(state.start(job));
                }
            }
            for job in late {
                job.fail(
                    HttpErrorKind::Busy,
                    "all threads of the client were busy; raise ClientOptions::threads",
                );
            }
            for handover in handovers {
                self.complete(handover);
            }
        }
    }

    fn work(self: &Arc<Self>, thread: u64, mut jobs: Receiver<Job>) {
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
                let id = job.id;
                let outcome = self.begin(id, &exchanger).then(|| {
                    // A panic in the client library must not cost the lane a thread.
                    panic::catch_unwind(AssertUnwindSafe(|| exchanger.perform(&job.request)))
                        .unwrap_or_else(|_| {
                            exchanger = Exchanger::new(&self.settings);
                            Err(HttpError::new(HttpErrorKind::Unavailable))
                        })
                });
                if let Some(Err(error)) = &outcome
                    && error.is_out_of_descriptors()
                {
                    match self.give_back(job) {
                        None => return,
                        Some(kept) => job = kept,
                    }
                }
                let answer = job.answer;
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

    /// There was no descriptor for a connection: leaves the job to a thread that has one, and with it
    /// the place. Returns the job if there is no such thread, or nobody waits for it any more.
    fn give_back(self: &Arc<Self>, job: Job) -> Option<Job> {
        let mut state = self.lock();
        let is_wanted = matches!(state.running.get(&job.id), Some(Running::Live(_)))
            && job.since.elapsed() < self.bounds.patience;
        // Threads that are not bounded are those of polls, which take long.
        let is_bounded = self.bounds.most < usize::MAX;
        if !is_wanted || !is_bounded || state.threads < 2 {
            return Some(job);
        }
        let agent = state.running.remove(&job.id);
        state.threads -= 1;
        state.starved = Some(Instant::now());
        let handover = match state.idle.pop() {
            Some((_, sender)) => {
                state.running.insert(job.id, Running::Starting);
                Handover::Give(sender, job)
            }
            None => state.wait(job),
        };
        drop(state);
        drop(agent);
        self.complete(handover);
        None
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
            let job = state.queue.remove(place);
            drop(state);
            // It may hold a waker, which may do anything.
            drop(job);
            return;
        }
        let detach = state.detached < self.bounds.most;
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

/// How often it is looked whether more threads are needed: after this, a request has waited for long.
const GROW_EVERY: Duration = Duration::from_millis(100);

/// How long no threads are started after there was no descriptor for a connection.
const STARVED: Duration = Duration::from_secs(1);

/// How many threads are started at a time at most: each of them connects, and servers accept a hundred
/// or so at once.
const GROW_BY: usize = 32;
