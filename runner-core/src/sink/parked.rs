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

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::Wake,
    };

    use super::*;

    /// Counts how often it is rung.
    #[derive(Default)]
    struct Bell(AtomicUsize);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Bell {
        fn rings(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    fn bell() -> (Arc<Bell>, Waker) {
        let bell = Arc::new(Bell::default());
        (Arc::clone(&bell), Waker::from(bell))
    }

    fn enter(parked: &mut Parked) -> (u64, Arc<Bell>) {
        let (bell, waker) = bell();
        (parked.enter(&waker).expect("there is a place"), bell)
    }

    fn ask(parked: &mut Parked, place: u64) -> Call {
        parked.ask(place, Waker::noop()).0
    }

    #[test]
    fn the_last_one_to_come_is_called_first_and_each_of_them_once() {
        let mut parked = Parked::new();
        assert!(parked.call().is_none());
        let tasks = [(); 3].map(|()| enter(&mut parked));
        for (_, bell) in tasks.iter().rev() {
            assert_eq!(bell.rings(), 0);
            parked.call().expect("it waits").wake();
            assert_eq!(bell.rings(), 1);
        }
        assert!(parked.call().is_none());
        // They come to look in any order.
        for (place, bell) in &tasks {
            assert_eq!(ask(&mut parked, *place), Call::Start);
            assert_eq!(bell.rings(), 1);
        }
        assert!(parked.places.is_empty());
    }

    #[test]
    fn who_is_woken_for_nothing_waits_on_with_its_new_waker() {
        let mut parked = Parked::new();
        let ((old, first), (new, second)) = (bell(), bell());
        let place = parked.enter(&first).expect("there is a place");
        assert!(matches!(parked.ask(place, &first), (Call::Wait, None)));
        let (call, replaced) = parked.ask(place, &second);
        assert_eq!(call, Call::Wait);
        assert!(replaced.expect("it is another one").will_wake(&first));
        parked.call().expect("it waits").wake();
        assert_eq!((old.rings(), new.rings()), (0, 1));
        // Whoever polls it now: it was called.
        assert!(matches!(parked.ask(place, &first), (Call::Start, None)));
    }

    #[test]
    fn who_was_called_is_not_sent_away_and_who_was_sent_away_is_not_called() {
        let mut parked = Parked::new();
        let tasks = [(); 3].map(|()| enter(&mut parked));
        parked.call().expect("three wait").wake();
        let mut wakers = Wakers::default();
        parked.send_away(&mut wakers);
        wakers.wake();
        assert!(tasks.iter().all(|(_, bell)| bell.rings() == 1));
        assert!(parked.call().is_none());
        let calls = tasks.map(|(place, _)| ask(&mut parked, place));
        assert_eq!(calls, [Call::End, Call::End, Call::Start]);
        assert!(parked.places.is_empty());
    }

    #[test]
    fn who_is_dropped_takes_with_it_what_it_was_told() {
        let mut parked = Parked::new();
        let (sent_away, _) = enter(&mut parked);
        parked.send_away(&mut Wakers::default());
        let (called, _) = enter(&mut parked);
        assert!(parked.call().is_some());
        let (waits, _) = enter(&mut parked);
        assert!(matches!(parked.leave(waits), (Call::Wait, Some(_))));
        assert!(parked.call().is_none());
        assert!(matches!(parked.leave(called), (Call::Start, None)));
        assert!(matches!(parked.leave(sent_away), (Call::End, None)));
        assert!(parked.places.is_empty());
    }

    #[test]
    fn a_place_is_taken_until_its_task_has_looked() {
        let mut parked = Parked::new();
        let places: Vec<u64> = (0..Parked::MAX).map(|_| enter(&mut parked).0).collect();
        assert!(parked.call().is_some());
        assert!(parked.enter(Waker::noop()).is_none());
        let last = *places.last().expect("there are many");
        assert_eq!(ask(&mut parked, last), Call::Start);
        assert!(parked.enter(Waker::noop()).is_some());
        assert!(parked.enter(Waker::noop()).is_none());
    }
}
