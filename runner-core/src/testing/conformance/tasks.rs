//! Starting tasks, waking them, and keeping their panics apart.

use std::{
    collections::HashSet,
    panic::resume_unwind,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use futures::{
    StreamExt,
    channel::{mpsc, oneshot},
};

use super::{Subject, drive, run_task};
use crate::Runtime;

pub(super) fn starts_from_outside(subject: &mut dyn Subject) {
    let runtime = subject.runtime();
    let (done, answer) = oneshot::channel();
    let outsider = thread::spawn(move || {
        runtime.spawn(Box::pin(async move {
            let _ = done.send(7);
        }));
    });
    outsider.join().expect("`spawn` panicked on a plain thread");
    assert_eq!(drive(subject, answer), Ok(7));
}

pub(super) fn starts_from_inside(subject: &mut dyn Subject) {
    const TASKS: usize = 1_000;
    let runtime = subject.runtime();
    let (done, ended) = mpsc::unbounded();
    let ended = run_task(subject, async move {
        for index in 0..TASKS {
            let (inner, done) = (Arc::clone(&runtime), done.clone());
            runtime.spawn(Box::pin(async move {
                // And once more from there.
                inner.spawn(Box::pin(async move {
                    let _ = done.unbounded_send(index);
                }));
            }));
        }
        drop(done);
        ended.collect::<HashSet<usize>>().await
    });
    assert_eq!(ended.len(), TASKS);
}

pub(super) fn panics_are_contained(subject: &mut dyn Subject) {
    let runtime = subject.runtime();
    let (alive, ended) = mpsc::unbounded();
    let mut gates = Vec::new();
    for _ in 0..64 {
        let (open, gate) = oneshot::channel::<()>();
        gates.push(open);
        let alive = alive.clone();
        runtime.spawn(Box::pin(async move {
            // Waits while the others panic.
            let _ = gate.await;
            let _ = alive.unbounded_send(());
        }));
        runtime.spawn(Box::pin(async { quiet_panic() }));
        let bomb = Bomb;
        runtime.spawn(Box::pin(async move {
            let _bomb = bomb;
        }));
    }
    drop(alive);
    run_task(subject, async {});
    drop(gates);
    let ended = drive(subject, ended.count());
    assert_eq!(ended, 64, "so many of 64 tasks outlived the panics");

    // More panics than any runtime has threads: none of them may be lost.
    for _ in 0..1_000 {
        runtime.spawn(Box::pin(async { quiet_panic() }));
    }
    assert_eq!(run_task(subject, async { 5 }), 5);
}

pub(super) fn wakes_from_foreign_threads(subject: &mut dyn Subject) {
    if !subject.allows_foreign_wakers() {
        return;
    }
    const ROUNDS: usize = 500;
    let runtime = subject.runtime();
    let rounds = Arc::new(AtomicUsize::new(0));
    let (done, ended) = mpsc::unbounded::<()>();
    let mut outsiders = Vec::new();
    for _ in 0..4 {
        let (ask, mut asked) = mpsc::unbounded();
        let (rounds, done) = (Arc::clone(&rounds), done.clone());
        outsiders.push(thread::spawn(move || {
            while let Some(answer) = futures::executor::block_on(asked.next()) {
                let answer: oneshot::Sender<()> = answer;
                let _ = answer.send(());
            }
        }));
        runtime.spawn(Box::pin(async move {
            let _done = done;
            for _ in 0..ROUNDS {
                let (answer, answered) = oneshot::channel();
                let _ = ask.unbounded_send(answer);
                answered.await.expect("the other thread answers");
                rounds.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    drop(done);
    drive(subject, ended.count());
    assert_eq!(rounds.load(Ordering::Relaxed), 4 * ROUNDS);
    for outsider in outsiders {
        outsider.join().expect("the other thread does not panic");
    }
}

pub(super) fn entropy_differs(subject: &mut dyn Subject) {
    let runtime = subject.runtime();
    let mut numbers: HashSet<u64> = (0..64).map(|_| runtime.entropy()).collect();
    let inside = Arc::clone(&runtime);
    numbers.extend(run_task(subject, async move {
        (0..64).map(|_| inside.entropy()).collect::<Vec<_>>()
    }));
    let outside = thread::spawn(move || (0..64).map(|_| runtime.entropy()).collect::<Vec<_>>());
    numbers.extend(
        outside
            .join()
            .expect("`entropy` panicked on a plain thread"),
    );
    // Two equal numbers of 64 bits among so few are no accident.
    assert_eq!(numbers.len(), 3 * 64, "a number came twice");
}

/// Panics without the message that the panic hook would print.
pub(super) fn quiet_panic() {
    resume_unwind(Box::new("a panic that a conformance case is about"));
}

/// Panics when dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        quiet_panic();
    }
}
