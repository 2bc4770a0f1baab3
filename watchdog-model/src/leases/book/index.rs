//! Leases by something that they hold themselves: a hash table of slot numbers.
//!
//! In: a key. Out: the slot of the lease that has it. The table keeps no copy of the keys, five bytes
//! a bucket instead of ninety: buckets are met at random, so that a few leases touch every page of a
//! table that has room for many. Never: an allocation while the room holds.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hash};

use hashbrown::HashTable;

use super::lease::Lease;

/// Slots by a key of their leases. Whoever changes that key removes the slot before, and puts it in
/// again.
pub(super) struct SlotIndex<K> {
    table: HashTable<u32>,
    state: RandomState,
    key_of: fn(&Lease) -> K,
}

impl<K> std::fmt::Debug for SlotIndex<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SlotIndex").field(&self.table).finish()
    }
}

impl<K: Hash + Eq> SlotIndex<K> {
    /// Room for so many.
    pub fn new(room: usize, key_of: fn(&Lease) -> K) -> Self {
        Self {
            table: HashTable::with_capacity(room),
            state: RandomState::new(),
            key_of,
        }
    }

    /// The slot whose lease has this key.
    pub fn get(&self, key: &K, slots: &[Option<Lease>]) -> Option<u32> {
        let has_it = |slot: &u32| {
            let lease = slots[*slot as usize].as_ref();
            lease.is_some_and(|lease| (self.key_of)(lease) == *key)
        };
        self.table.find(self.state.hash_one(key), has_it).copied()
    }

    /// The lease in a slot is found by its key from now on, and no other.
    pub fn put(&mut self, slot: u32, slots: &[Option<Lease>]) {
        let Some(lease) = slots[slot as usize].as_ref() else {
            return;
        };
        let (key_of, state) = (self.key_of, &self.state);
        let key = key_of(lease);
        let hash = state.hash_one(&key);
        let has_it = |other: &u32| {
            let other = slots[*other as usize].as_ref();
            other.is_some_and(|other| key_of(other) == key)
        };
        if let Some(found) = self.table.find_mut(hash, has_it) {
            *found = slot;
            return;
        }
        self.table.insert_unique(hash, slot, |other| {
            let other = slots[*other as usize].as_ref();
            // A slot in the table has a lease: it is removed before that goes.
            other.map_or(0, |other| state.hash_one(key_of(other)))
        });
    }

    /// The lease in a slot is no longer found by this key, if it was.
    pub fn remove(&mut self, key: &K, slot: u32) {
        let hash = self.state.hash_one(key);
        if let Ok(entry) = self.table.find_entry(hash, |found| *found == slot) {
            entry.remove();
        }
    }
}
