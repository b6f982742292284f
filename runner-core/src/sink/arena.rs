//! A place for each of many things that come and go, which does not move while they stay.
//!
//! The places are in segments of [`PLACES`]. To grow takes one more segment: nothing is copied, and
//! at most one segment more is in memory than is in use, where a vector that has just doubled is half
//! empty. A segment that becomes empty is given back although others are in use: what a burst took does
//! not stay for as long as anything is held.
//!
//! Every operation is O(1), but for iteration. A place is free if its bit is set; the segments that
//! have free places are a list, last in, first out. So under a steady load a few segments are used
//! again and again.

use std::ops::{Index, IndexMut};

/// Things in places that are numbered, from 0.
#[derive(Debug)]
pub(super) struct Arena<T> {
    /// The places of each segment; nothing while all are free.
    segments: Vec<Option<Places<T>>>,
    /// Of each segment. Apart, because it is of no interest to who looks at a place.
    vacancies: Vec<Vacancies>,
    len: usize,
    /// The first segment that has a free place.
    open: u32,
    /// Empty ones of former segments.
    spares: Vec<Places<T>>,
}

#[derive(Debug)]
struct Vacancies {
    /// The bit of each place that is free.
    free: u64,
    /// The next segment that has a free place; if this one has none, of no meaning.
    next: u32,
}

/// An array and no slice: a number below `PLACES` needs no comparison with its length.
type Places<T> = Box<[Option<T>; PLACES]>;

/// As many as a word has bits. Few enough that a runner that holds little needs little: some
/// kilobytes.
const PLACES: usize = u64::BITS as usize;

/// How many empty segments are kept: what a load that goes up and down takes and gives back costs no
/// allocation.
const SPARES: usize = 16;

/// No segment.
const NONE: u32 = u32::MAX;

impl<T> Arena<T> {
    pub(super) const fn new() -> Self {
        Self {
            segments: Vec::new(),
            vacancies: Vec::new(),
            len: 0,
            open: NONE,
            spares: Vec::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Above the number of every place that is in use.
    pub(super) fn bound(&self) -> usize {
        self.segments.len() * PLACES
    }

    /// The place that the next one gets.
    pub(super) fn vacant_key(&self) -> usize {
        match self.vacancies.get(self.open as usize) {
            Some(vacancies) => self.open as usize * PLACES + vacancies.first(),
            None => self.bound(),
        }
    }

    /// Puts `value` into a free place and returns its number.
    #[inline]
    pub(super) fn insert(&mut self, value: T) -> usize {
        if self.open == NONE {
            self.grow();
        }
        let open = self.open as usize;
        let vacancies = &mut self.vacancies[open];
        let place = vacancies.first();
        vacancies.free &= vacancies.free - 1;
        if vacancies.free == 0 {
            self.open = vacancies.next;
        }
        self.len += 1;
        let places = match &mut self.segments[open] {
            Some(places) => places,
            unused => unused.insert(self.spares.pop().unwrap_or_else(empty)),
        };
        places[place] = Some(value);
        open * PLACES + place
    }

    /// Takes out what is in a place.
    ///
    /// # Panics
    ///
    /// If nothing is.
    #[inline]
    pub(super) fn remove(&mut self, key: usize) -> T {
        let (number, place) = (key / PLACES, key % PLACES);
        let Some(Some(places)) = self.segments.get_mut(number) else {
            unused();
        };
        let Some(value) = places[place].take() else {
            unused();
        };
        let vacancies = &mut self.vacancies[number];
        if vacancies.free == 0 {
            vacancies.next = self.open;
            // It fits: it is the number of a segment.
            self.open = number as u32;
        }
        vacancies.free |= 1 << place;
        self.len -= 1;
        if vacancies.free == u64::MAX {
            self.give_back(number);
        }
        value
    }

    #[inline]
    pub(super) fn get(&self, key: usize) -> Option<&T> {
        let places = self.segments.get(key / PLACES)?.as_ref()?;
        places[key % PLACES].as_ref()
    }

    #[inline]
    pub(super) fn get_mut(&mut self, key: usize) -> Option<&mut T> {
        let places = self.segments.get_mut(key / PLACES)?.as_mut()?;
        places[key % PLACES].as_mut()
    }

    /// All, with the numbers of their places, in the order of these.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        let segments = self.segments.iter().enumerate();
        segments.flat_map(|(number, segment)| {
            let places = segment.iter().flat_map(|places| places.iter());
            places.enumerate().filter_map(move |(place, value)| {
                let value = value.as_ref()?;
                Some((number * PLACES + place, value))
            })
        })
    }

    /// As [`iter`](Self::iter).
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut T)> {
        let segments = self.segments.iter_mut().enumerate();
        segments.flat_map(|(number, segment)| {
            let places = segment.iter_mut().flat_map(|places| places.iter_mut());
            places.enumerate().filter_map(move |(place, value)| {
                let value = value.as_mut()?;
                Some((number * PLACES + place, value))
            })
        })
    }

    #[cold]
    fn grow(&mut self) {
        let number = u32::try_from(self.segments.len())
            .ok()
            .filter(|number| *number <= (u32::MAX - 1) / PLACES as u32);
        self.open = number.expect("fewer than 2^32 are held");
        self.segments.push(None);
        self.vacancies.push(Vacancies {
            free: u64::MAX,
            next: NONE,
        });
    }

    /// A segment is empty: keeps its memory for another one, or frees it.
    #[cold]
    fn give_back(&mut self, number: usize) {
        let places = self.segments[number].take();
        if self.spares.len() < SPARES {
            self.spares.extend(places);
        }
        if self.len == 0 && self.segments.len() > SPARES {
            self.segments = Vec::new();
            self.vacancies = Vec::new();
            self.open = NONE;
        }
    }
}

impl Vacancies {
    /// The first free place of a segment that has any.
    #[inline]
    fn first(&self) -> usize {
        self.free.trailing_zeros() as usize % PLACES
    }
}

#[cold]
fn unused() -> ! {
    panic!("nothing is in this place");
}

/// On the heap from the start: on the stack it may be too large.
fn empty<T>() -> Places<T> {
    let places: Vec<_> = std::iter::repeat_with(|| None).take(PLACES).collect();
    match places.try_into() {
        Ok(places) => places,
        Err(_) => unreachable!("there are as many as asked for"),
    }
}

impl<T> Index<usize> for Arena<T> {
    type Output = T;

    #[inline]
    fn index(&self, key: usize) -> &T {
        self.get(key).unwrap_or_else(|| unused())
    }
}

impl<T> IndexMut<usize> for Arena<T> {
    #[inline]
    fn index_mut(&mut self, key: usize) -> &mut T {
        self.get_mut(key).unwrap_or_else(|| unused())
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use proptest::prelude::*;

    use super::*;

    impl<T> Arena<T> {
        /// How many segments are in memory, the empty ones included.
        fn segments(&self) -> usize {
            let used = self.segments.iter().filter(|one| one.is_some());
            used.count() + self.spares.len()
        }
    }

    fn filled(count: usize) -> Arena<usize> {
        let mut arena = Arena::new();
        for value in 0..count {
            assert_eq!(arena.insert(value), value);
        }
        arena
    }

    #[test]
    fn nothing_is_in_memory_before_something_is_held() {
        let arena = Arena::<u64>::new();
        assert_eq!((arena.segments(), arena.bound()), (0, 0));
        assert_eq!((arena.len(), arena.is_empty()), (0, true));
    }

    #[test]
    fn it_grows_by_one_segment() {
        assert_eq!(filled(10_000).segments(), 10_000_usize.div_ceil(PLACES));
        assert_eq!(filled(PLACES).segments(), 1);
        assert_eq!(filled(PLACES + 1).segments(), 2);
    }

    #[test]
    fn what_is_held_does_not_move() {
        let mut arena = filled(1);
        let before = std::ptr::from_ref(&arena[0]);
        for value in 1..100_000 {
            arena.insert(value);
        }
        assert_eq!(std::ptr::from_ref(&arena[0]), before);
    }

    #[test]
    fn the_memory_of_a_burst_is_given_back_while_one_is_held() {
        let mut arena = filled(100_000);
        for key in 1..100_000 {
            arena.remove(key);
        }
        assert_eq!((arena.len(), arena[0]), (1, 0));
        assert_eq!(arena.segments(), 1 + SPARES);

        arena.remove(0);
        assert_eq!((arena.segments(), arena.bound()), (SPARES, 0));
        assert_eq!(arena.segments.capacity(), 0);
    }

    #[test]
    fn the_last_place_that_became_free_is_near_the_next_one_that_is_taken() {
        let mut arena = filled(100_000);
        for key in 0..100_000 {
            arena.remove(key);
            arena.insert(key);
        }
        assert_eq!(arena.bound(), 100_000_usize.next_multiple_of(PLACES));
    }

    #[test]
    fn what_is_left_is_dropped_once() {
        let value = Arc::new(());
        let mut arena = Arena::new();
        for _ in 0..1_000 {
            arena.insert(Arc::clone(&value));
        }
        for key in 0..500 {
            arena.remove(key);
        }
        assert_eq!(Arc::strong_count(&value), 501);
        drop(arena);
        assert_eq!(Arc::strong_count(&value), 1);
    }

    #[test]
    #[should_panic = "nothing is in this place"]
    fn a_free_place_cannot_be_emptied() {
        let mut arena = filled(2);
        arena.remove(0);
        arena.remove(0);
    }

    #[test]
    #[should_panic = "nothing is in this place"]
    fn a_free_place_cannot_be_looked_at() {
        let mut arena = filled(2);
        arena.remove(0);
        let _ = arena[0];
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u16),
        Remove(prop::sample::Index, u16),
    }

    /// Waves, because a segment has to become full and empty for anything to happen.
    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0_u16..300).prop_map(Step::Insert),
            (any::<prop::sample::Index>(), 0_u16..300).prop_map(|(at, n)| Step::Remove(at, n)),
        ]
    }

    proptest! {
        /// Against a map: what is put in is found, until it is taken out, and no place is used twice.
        #[test]
        fn behaves_like_a_map(steps in prop::collection::vec(step(), 1..60)) {
            let mut arena = Arena::new();
            let mut model = BTreeMap::new();
            let (mut value, mut most) = (0_u64, 0);
            for step in steps {
                match step {
                    Step::Insert(count) => for _ in 0..count {
                        let promised = arena.vacant_key();
                        prop_assert!(arena.get(promised).is_none());
                        prop_assert_eq!(arena.insert(value), promised);
                        prop_assert_eq!(model.insert(promised, value), None);
                        value += 1;
                    },
                    // Some of neighbours, from anywhere.
                    Step::Remove(at, count) => {
                        let from = at.index(arena.bound() + 1);
                        let keys: Vec<_> = model.range(from..).map(|(key, _)| *key).collect();
                        for key in keys.into_iter().take(usize::from(count)) {
                            prop_assert_eq!(Some(arena.remove(key)), model.remove(&key));
                            prop_assert_eq!(arena.get(key), None);
                            prop_assert_eq!(arena.get_mut(key), None);
                        }
                    }
                }
                most = most.max(model.len());
                prop_assert_eq!(arena.len(), model.len());
                prop_assert_eq!(arena.is_empty(), model.is_empty());
                let all: Vec<_> = arena.iter().map(|(key, value)| (key, *value)).collect();
                let expected: Vec<_> = model.iter().map(|(key, value)| (*key, *value)).collect();
                prop_assert_eq!(all, expected);
                // No place is lost: nothing is numbered beyond what was once needed.
                prop_assert!(arena.bound() <= most.next_multiple_of(PLACES));
                let used = arena.segments() - arena.spares.len();
                prop_assert!(used <= model.len() && arena.spares.len() <= SPARES);
                for (_, value) in arena.iter_mut() {
                    *value += 1;
                }
                for (key, value) in &mut model {
                    *value += 1;
                    arena[*key] += 1;
                    *value += 1;
                }
            }
        }
    }
}
