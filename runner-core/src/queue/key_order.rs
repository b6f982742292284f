//! Order by key: which updates wait for which others.
//!
//! Every key has a FIFO queue of the updates that hold it or wait for it, kept as a linked list. An update
//! with several keys has one link in each of their queues, so the updates form a dependency graph. This
//! module knows neither updates nor time, and does not decide what runs.
//!
//! Arriving and leaving cost O(keys of the update). Memory is proportional to the links held: a key is
//! forgotten when its last update leaves.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::{BuildHasher, Hasher},
};

use slab::Slab;

use crate::Key;

/// The order of all updates that have keys.
#[derive(Debug)]
pub(super) struct KeyOrder {
    /// The last link of each key's queue.
    tails: HashMap<u64, u32, PassThrough>,
    links: Slab<Link>,
    /// How long each queue is, if there is a limit per key.
    counts: Option<HashMap<u64, usize, PassThrough>>,
}

/// All keys of one held update: the first of its links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeyLinks(u32);

/// One key of a held update.
#[derive(Clone, Copy, Debug)]
struct Link {
    key: u64,
    owner: u32,
    /// The link of the next update with the same key.
    successor: u32,
    /// The next link of the same update.
    sibling: u32,
}

const NONE: u32 = u32::MAX;

impl KeyLinks {
    /// Of an update without keys.
    pub(super) const NONE: Self = Self(NONE);
}

impl KeyOrder {
    /// `counted`: whether [`is_crowded`](Self::is_crowded) will be called.
    pub(super) fn new(counted: bool) -> Self {
        Self {
            tails: HashMap::with_hasher(PassThrough),
            links: Slab::new(),
            counts: counted.then(|| HashMap::with_hasher(PassThrough)),
        }
    }

    /// Puts `owner` behind every update that has one of `keys`.
    ///
    /// Returns its links and how many updates it waits for: the number of times that
    /// [`leave`](Self::leave) will name it before it may run. A key given twice counts once.
    pub(super) fn arrive(&mut self, owner: u32, keys: &[u64]) -> (KeyLinks, u32) {
        let mut chain = KeyLinks::NONE;
        let mut predecessors = 0;
        for &key in keys {
            let link = self.next_link();
            match self.tails.insert(key, link) {
                // The same key twice: the update must not wait for itself.
                Some(tail) if self.links[tail as usize].owner == owner => {
                    self.tails.insert(key, tail);
                    continue;
                }
                Some(tail) => {
                    self.links[tail as usize].successor = link;
                    predecessors += 1;
                }
                None => {}
            }
            self.links.insert(Link {
                key,
                owner,
                successor: NONE,
                sibling: chain.0,
            });
            chain = KeyLinks(link);
            if let Some(counts) = &mut self.counts {
                *counts.entry(key).or_default() += 1;
            }
        }
        (chain, predecessors)
    }

    /// Takes an update out and calls `released` for every update that waited for it.
    ///
    /// Its own predecessors must have left before.
    pub(super) fn leave(&mut self, chain: KeyLinks, mut released: impl FnMut(u32)) {
        let mut next = chain.0;
        while next != NONE {
            let link = self.links.remove(next as usize);
            if link.successor == NONE {
                self.tails.remove(&link.key);
            } else {
                released(self.links[link.successor as usize].owner);
            }
            if let Some(counts) = &mut self.counts
                && let Entry::Occupied(mut count) = counts.entry(link.key)
            {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                }
            }
            next = link.sibling;
        }
        if self.links.is_empty() && self.tails.capacity() > SPARE {
            // After a burst, give its memory back.
            *self = Self::new(self.counts.is_some());
        }
    }

    /// Whether `limit` updates wait for one of `keys` already.
    pub(super) fn is_crowded(&self, keys: &[u64], limit: usize) -> bool {
        let Some(counts) = &self.counts else {
            return false;
        };
        keys.iter()
            .any(|key| counts.get(key).is_some_and(|count| *count > limit))
    }

    /// Calls `each` with every pair of an update and one that waits for it.
    pub(super) fn edges(&self, mut each: impl FnMut(u32, u32)) {
        for (_, link) in self.links.iter() {
            if link.successor != NONE {
                each(link.owner, self.links[link.successor as usize].owner);
            }
        }
    }

    /// The length of the longest queue that `chain` is in, from it on and itself included.
    pub(super) fn depth(&self, chain: KeyLinks) -> usize {
        let mut deepest = 0;
        let mut own = chain.0;
        while own != NONE {
            let mut depth = 0;
            let mut next = own;
            while next != NONE {
                depth += 1;
                next = self.links[next as usize].successor;
            }
            deepest = deepest.max(depth);
            own = self.links[own as usize].sibling;
        }
        deepest
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.links.is_empty() && self.tails.is_empty()
    }

    fn next_link(&self) -> u32 {
        u32::try_from(self.links.vacant_key()).expect("fewer than 2^32 links are held")
    }
}

/// How many places a drained structure may keep for later.
pub(super) const SPARE: usize = 4096;

/// Turns keys into numbers, differently in every run.
///
/// Two keys that get the same number are ordered needlessly, and harm nothing else; the seed keeps
/// outsiders from arranging that.
#[derive(Clone, Debug)]
pub(super) struct KeyHasher(foldhash::quality::FixedState);

impl KeyHasher {
    pub(super) fn new(seed: u64) -> Self {
        Self(foldhash::quality::FixedState::with_seed(seed))
    }

    pub(super) fn hash(&self, key: &Key) -> u64 {
        self.0.hash_one(key)
    }
}

/// The numbers are hashes already.
#[derive(Clone, Copy, Debug, Default)]
struct PassThrough;

#[derive(Debug, Default)]
struct Passed(u64);

impl BuildHasher for PassThrough {
    type Hasher = Passed;

    fn build_hasher(&self) -> Passed {
        Passed(0)
    }
}

impl Hasher for Passed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only numbers are hashed");
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, VecDeque};

    use proptest::prelude::*;

    use super::*;

    fn released(order: &mut KeyOrder, chain: KeyLinks) -> Vec<u32> {
        let mut owners = Vec::new();
        order.leave(chain, |owner| owners.push(owner));
        owners
    }

    #[test]
    fn updates_of_one_key_follow_each_other() {
        let mut order = KeyOrder::new(false);
        let (first, predecessors) = order.arrive(0, &[7]);
        assert_eq!(predecessors, 0);
        let (second, predecessors) = order.arrive(1, &[7]);
        assert_eq!(predecessors, 1);
        assert_eq!(order.arrive(2, &[8]).1, 0);

        assert_eq!(released(&mut order, first), [1]);
        assert_eq!(released(&mut order, second), []);
    }

    #[test]
    fn an_update_waits_for_every_one_of_its_keys() {
        let mut order = KeyOrder::new(false);
        let (chat, _) = order.arrive(0, &[1]);
        let (user, _) = order.arrive(1, &[2]);
        let (both, predecessors) = order.arrive(2, &[1, 2]);
        assert_eq!(predecessors, 2);
        assert_eq!(order.depth(chat), 2);

        assert_eq!(released(&mut order, user), [2]);
        assert_eq!(released(&mut order, chat), [2]);
        assert_eq!(released(&mut order, both), []);
        assert!(order.is_empty());
    }

    #[test]
    fn a_key_given_twice_does_not_wait_for_itself() {
        let mut order = KeyOrder::new(false);
        let (chain, predecessors) = order.arrive(0, &[5, 5, 5]);
        assert_eq!(predecessors, 0);
        assert_eq!(order.arrive(1, &[5]).1, 1);
        assert_eq!(released(&mut order, chain), [1]);
    }

    #[test]
    fn an_idle_key_is_forgotten() {
        let mut order = KeyOrder::new(false);
        for owner in 0..10_000 {
            let (chain, _) = order.arrive(owner, &[u64::from(owner)]);
            order.leave(chain, |_| unreachable!());
        }
        assert!(order.is_empty());
    }

    #[test]
    fn the_memory_of_a_burst_is_given_back() {
        let mut order = KeyOrder::new(false);
        let chains: Vec<_> = (0..100_000)
            .map(|owner| order.arrive(owner, &[u64::from(owner)]).0)
            .collect();
        for chain in chains {
            order.leave(chain, |_| {});
        }
        assert_eq!((order.links.capacity(), order.tails.capacity()), (0, 0));
    }

    /// What the order must do, in the plainest way: a queue of owners for each key.
    #[derive(Default)]
    struct Model {
        queues: BTreeMap<u64, VecDeque<u32>>,
    }

    impl Model {
        fn arrive(&mut self, owner: u32, keys: &[u64]) {
            for key in keys {
                let queue = self.queues.entry(*key).or_default();
                if !queue.contains(&owner) {
                    queue.push_back(owner);
                }
            }
        }

        fn may_run(&self, owner: u32) -> bool {
            self.queues
                .values()
                .all(|queue| !queue.contains(&owner) || queue[0] == owner)
        }

        fn leave(&mut self, owner: u32) {
            self.queues.retain(|_, queue| {
                queue.retain(|other| *other != owner);
                !queue.is_empty()
            });
        }
    }

    proptest! {
        /// Arrivals with up to four of five keys, and departures of a random runnable update.
        #[test]
        fn behaves_like_one_queue_per_key(
            steps in prop::collection::vec(
                (prop::collection::vec(0_u64..5, 0..4), any::<prop::sample::Index>(), 0_u8..4),
                1..400,
            )
        ) {
            let mut order = KeyOrder::new(false);
            let mut model = Model::default();
            // owner -> (chain, predecessors left)
            let mut held = BTreeMap::<u32, (KeyLinks, u32)>::new();
            for (owner, (keys, pick, departures)) in steps.into_iter().enumerate() {
                let owner = owner as u32;
                held.insert(owner, order.arrive(owner, &keys));
                model.arrive(owner, &keys);
                for _ in 0..departures {
                    let runnable: Vec<u32> =
                        held.iter().filter(|(_, (_, left))| *left == 0).map(|(o, _)| *o).collect();
                    if runnable.is_empty() {
                        break;
                    }
                    let leaver = runnable[pick.index(runnable.len())];
                    let (chain, _) = held.remove(&leaver).unwrap();
                    order.leave(chain, |owner| held.get_mut(&owner).unwrap().1 -= 1);
                    model.leave(leaver);
                }
                for (owner, (_, left)) in &held {
                    prop_assert_eq!(*left == 0, model.may_run(*owner), "update {}", owner);
                }
                prop_assert_eq!(order.tails.len(), model.queues.len());
            }
        }
    }
}
