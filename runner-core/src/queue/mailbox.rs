//! How the queue tells a worker task what to do.

use std::{sync::Arc, task::Waker};

use super::effects::Wakers;
use crate::sync::{
    AtomicWaker,
    atomic::{AtomicU8, Ordering},
};

/// One command for one worker, and the waker of its task.
///
/// The queue posts commands under its lock. The worker registers its waker and then reads, without the
/// lock, so a handler may be polled many times and never contends for it.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    command: AtomicU8,
    waker: AtomicWaker,
}

/// What a worker is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Command {
    /// To an idle worker: it has a permit, and is to start an update.
    Start = 1,
    /// To an idle worker: it is to end.
    End = 2,
    /// To a worker whose handler or policy is pending: its time is over.
    TimeOut = 3,
    /// To the same: drop it unless it is ready.
    Abandon = 4,
}

const NONE: u8 = 0;

impl Mailbox {
    /// Posts a command. Its waker goes to `wakers`, to be called outside the lock.
    pub(super) fn post(&self, command: Command, wakers: &mut Wakers) {
        self.command.store(command as u8, Ordering::Release);
        if let Some(waker) = self.waker.take() {
            wakers.push(waker);
        }
    }

    /// Notes whom to wake. What is posted from now on wakes it.
    pub(super) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Takes the command. Call it after [`register`](Self::register).
    pub(super) fn take(&self) -> Option<Command> {
        if self.command.load(Ordering::Acquire) == NONE {
            return None;
        }
        match self.command.swap(NONE, Ordering::AcqRel) {
            1 => Some(Command::Start),
            2 => Some(Command::End),
            3 => Some(Command::TimeOut),
            4 => Some(Command::Abandon),
            _ => None,
        }
    }

    /// Forgets a command that was meant for an update which has been completed. Call it under the lock.
    pub(super) fn clear(&self) {
        self.command.store(NONE, Ordering::Relaxed);
    }

    pub(super) fn is_same(self: &Arc<Self>, other: &Arc<Self>) -> bool {
        Arc::ptr_eq(self, other)
    }
}
