//! The task that calls a sink. It lives while updates are offered.

use std::{future::poll_fn, num::NonZeroUsize, pin::pin, sync::Arc, task::Poll, time::Duration};

use super::{
    Lease, SinkError, UpdateSink,
    handover::{Handover, Offered},
    lease::{Call, Completion},
};
use crate::{
    BoxError, BoxFuture, RuntimeExt,
    consume::Panicked,
    panics::{discard, guarded},
    queue::Outlook,
    runtime::yield_now,
};

/// Calls the sink; however it ends, the sink is given back.
pub(super) struct Driver<U: Send + Sync + 'static, S: UpdateSink<U>> {
    handover: Arc<Handover<U, S>>,
    sink: Option<S>,
}

/// How one call ended.
enum Ended {
    Ok,
    Failed(BoxError),
    Panicked(Arc<str>),
}

impl<U: Send + Sync + 'static, S: UpdateSink<U>> Driver<U, S> {
    pub(super) fn new(handover: Arc<Handover<U, S>>, sink: S) -> Self {
        let sink = Some(sink);
        Self { handover, sink }
    }

    pub(super) async fn drive(mut self) {
        loop {
            let sink = self.sink();
            let limits = guarded(|| (NonZeroUsize::get(sink.max_group()), sink.linger()));
            let (max, linger) = *limits.as_ref().unwrap_or(&(usize::MAX, Duration::ZERO));
            let Some(offers) = self.gather(max, linger).await else {
                return;
            };
            self.hand_over(offers, limits.err()).await;
            // Calls that never wait would keep the thread.
            yield_now().await;
        }
    }

    fn sink(&mut self) -> &mut S {
        self.sink.as_mut().expect("a driver has the sink")
    }

    /// Takes the next group. `None` if nothing is offered; then the sink has been given back.
    async fn gather(&mut self, max: usize, linger: Duration) -> Option<Vec<Offered<U>>> {
        let handover = Arc::clone(&self.handover);
        let mut timer: Option<BoxFuture<'static>> = None;
        let mut is_over = linger.is_zero();
        poll_fn(|cx| {
            loop {
                if !is_over && let Some(timer) = &mut timer {
                    is_over = timer.as_mut().poll(cx).is_ready();
                }
                let mut state = handover.lock();
                let (outlook, replaced) = state.outlook(max, !is_over, cx.waker());
                let group = match outlook {
                    Outlook::Never => state.take_group(max),
                    Outlook::Soon | Outlook::Later => Vec::new(),
                };
                if outlook == Outlook::Never && group.is_empty() {
                    // In the critical section of the look, or an offer in between would be stranded.
                    state.sink = self.sink.take();
                }
                let runtime = state.runtime();
                drop(state);
                drop(replaced);
                match (outlook, runtime) {
                    (Outlook::Never, _) => {
                        return Poll::Ready((!group.is_empty()).then_some(group));
                    }
                    (Outlook::Later, Some(runtime)) if timer.is_none() => {
                        timer = Some(runtime.sleep(linger));
                    }
                    _ => return Poll::Pending,
                }
            }
        })
        .await
    }

    /// Calls the sink with a group, unless it has `panicked` already, and completes what it has not.
    async fn hand_over(&mut self, offers: Vec<Offered<U>>, panicked: Option<Arc<str>>) {
        let call = Arc::new(Call::default());
        let mut completions = Vec::with_capacity(offers.len());
        let mut group = Vec::with_capacity(offers.len());
        for (update, completion) in offers {
            if completion.join(&call) {
                completions.push(Arc::clone(&completion));
                group.push(Lease::new(update, completion));
            } else {
                discard(update);
            }
        }
        if group.is_empty() {
            return;
        }
        let ended = match panicked {
            None => self.call(group, &call).await,
            Some(panic) => {
                group.into_iter().for_each(discard);
                Ended::Panicked(panic)
            }
        };
        ended.complete(&completions);
    }

    async fn call(&mut self, group: Vec<Lease<U>>, call: &Arc<Call>) -> Ended {
        let handover = Arc::clone(&self.handover);
        handover.set_call(Some(Arc::clone(call)));
        let sink = self.sink();
        let mut handling = pin!(None);
        let ended = match guarded(|| handling.set(Some(sink.handle(group)))) {
            Err(panic) => Ended::Panicked(panic),
            Ok(()) => {
                poll_fn(|cx| {
                    if call.poll_needless(cx).is_ready() {
                        return Poll::Ready(Ended::Ok);
                    }
                    let current = handling.as_mut().as_pin_mut();
                    let current = current.expect("dropped after its end");
                    match guarded(|| current.poll(cx).map_err(Into::into)) {
                        Ok(Poll::Pending) => Poll::Pending,
                        Ok(Poll::Ready(Ok(()))) => Poll::Ready(Ended::Ok),
                        Ok(Poll::Ready(Err(error))) => Poll::Ready(Ended::Failed(error)),
                        Err(panic) => Poll::Ready(Ended::Panicked(panic)),
                    }
                })
                .await
            }
        };
        // A panic in its destructor is swallowed.
        let _ = guarded(|| handling.set(None));
        handover.set_call(None);
        ended
    }
}

impl<U: Send + Sync + 'static, S: UpdateSink<U>> Drop for Driver<U, S> {
    fn drop(&mut self) {
        // The task was dropped: its runtime is gone, and so are the updates.
        if let Some(sink) = self.sink.take() {
            self.handover.lock().sink = Some(sink);
            self.handover.set_call(None);
        }
    }
}

impl Ended {
    /// Fails the updates of the group whose leases were dropped.
    fn complete(self, completions: &[Arc<Completion>]) {
        match self {
            Self::Ok => {
                for completion in completions {
                    completion.call_ended(|| SinkError::Forgotten.into());
                }
            }
            Self::Panicked(panic) => {
                for completion in completions {
                    completion.call_ended(|| Panicked(Arc::clone(&panic)).into());
                }
            }
            Self::Failed(error) => {
                let size = completions.len();
                let source: Arc<dyn std::error::Error + Send + Sync> = error.into();
                for completion in completions {
                    let source = Arc::clone(&source);
                    completion.call_ended(|| SinkError::Group { size, source }.into());
                }
                // If no update needs it, this is the last one of it.
                discard(source);
            }
        }
    }
}
