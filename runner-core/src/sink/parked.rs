//! Tasks that have nothing to do and wait to be called, because a new one would cost a spawn.
//!
//! A task goes in when it would end, and comes out by itself when it is polled: called to start
//! updates, sent away because the run ends, or woken for nothing.

use std::task::Waker;

use super::effects::Wakers;

/// Tasks that wait to be called, the last one to come first.
#[derive(Debug)]
pub(super) struct Parked {
    places: Vec<Place>,
    next: u64,
    /// How many have not been told anything.
    waiting: usize,
}

#[derive(Debug)]
struct Place {
    id: u64,
    told: Told,
}

#[derive(Debug)]
enum Told {
    Nothing(Waker),
    /// It has the duty to start updates.
    Called,
    /// It is to end.
    SentAway,
}

/// What a parked task is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// Look for an update: it has the duty.
    Start,
    End,
    Wait,
}

impl Parked {
    /// What a bot needs again and again, with batches of a hundred, is little memory.
    const MAX: usize = 64;

    pub(super) const fn new() -> Self {
        Self {
            places: Vec::new(),
            next: 0,
            waiting: 0,
        }
    }

    /// Keeps a task; `None` if there are enough.
    pub(super) fn enter(&mut self, waker: &Waker) -> Option<u64> {
        if self.places.len() >= Self::MAX {
            return None;
        }
        let id = self.next;
        self.next += 1;
        self.waiting += 1;
        self.places.push(Place {
            id,
            told: Told::Nothing(waker.clone()),
        });
        Some(id)
    }

    /// Gives a task the duty; it has to be woken.
    pub(super) fn call(&mut self) -> Option<Waker> {
        if self.waiting == 0 {
            return None;
        }
        let mut places = self.places.iter_mut().rev();
        let place = places.find(|place| matches!(place.told, Told::Nothing(_)))?;
        self.waiting -= 1;
        match std::mem::replace(&mut place.told, Told::Called) {
            Told::Nothing(waker) => Some(waker),
            Told::Called | Told::SentAway => None,
        }
    }

    /// Tells all who have not been called to end; they have to be woken.
    pub(super) fn send_away(&mut self, wakers: &mut Wakers) {
        self.waiting = 0;
        for place in &mut self.places {
            if let Told::Nothing(_) = place.told
                && let Told::Nothing(waker) = std::mem::replace(&mut place.told, Told::SentAway)
            {
                wakers.push(waker);
            }
        }
    }

    /// What the task at this place is to do. If it is to wait, its waker is renewed, and a replaced one
    /// is returned to be dropped outside of the lock; else it leaves.
    pub(super) fn ask(&mut self, id: u64, waker: &Waker) -> (Call, Option<Waker>) {
        let Some(index) = self.places.iter().rposition(|place| place.id == id) else {
            return (Call::End, None);
        };
        if let Told::Nothing(known) = &mut self.places[index].told {
            let replaced = match known.will_wake(waker) {
                true => None,
                false => Some(std::mem::replace(known, waker.clone())),
            };
            return (Call::Wait, replaced);
        }
        (self.leave_at(index).0, None)
    }

    /// Forgets a task that was dropped, and returns what it was to do.
    pub(super) fn leave(&mut self, id: u64) -> (Call, Option<Waker>) {
        match self.places.iter().rposition(|place| place.id == id) {
            Some(index) => self.leave_at(index),
            None => (Call::End, None),
        }
    }

    fn leave_at(&mut self, index: usize) -> (Call, Option<Waker>) {
        match self.places.remove(index).told {
            Told::Called => (Call::Start, None),
            Told::SentAway => (Call::End, None),
            Told::Nothing(waker) => {
                self.waiting -= 1;
                (Call::Wait, Some(waker))
            }
        }
    }
}
