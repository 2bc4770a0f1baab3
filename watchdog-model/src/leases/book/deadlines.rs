//! When each lease wants to be looked at again: an indexed heap.
//!
//! In: a slot and the moment it is due. Out: the slots that are due, earliest first. Never: an
//! allocation while no more slots are used than were reserved; a scan. (A BTreeMap would allocate,
//! a plain heap would fill with stale entries: every renewal moves its lease's deadline.)

use crate::time::Mono;

const ABSENT: u32 = u32::MAX;

/// Deadlines by slot.
#[derive(Debug)]
pub(super) struct Deadlines {
    heap: Vec<(Mono, u32)>,
    /// Where each slot stands in the heap.
    places: Vec<u32>,
}

impl Deadlines {
    pub(super) fn new(slots: usize) -> Self {
        Self {
            heap: Vec::with_capacity(slots),
            places: vec![ABSENT; slots],
        }
    }

    /// The earliest deadline.
    pub(super) fn earliest(&self) -> Option<Mono> {
        self.heap.first().map(|(due, _)| *due)
    }

    /// Names the slots that are due, in no order.
    pub(super) fn due(&self, now: Mono, name: &mut impl FnMut(u32)) {
        self.due_below(0, now, name);
    }

    /// As deep as the heap: the logarithm of what is in it.
    fn due_below(&self, place: usize, now: Mono, name: &mut impl FnMut(u32)) {
        if let Some((due, slot)) = self.heap.get(place)
            && *due <= now
        {
            name(*slot);
            self.due_below(2 * place + 1, now, name);
            self.due_below(2 * place + 2, now, name);
        }
    }

    /// Takes out the earliest slot that is due.
    pub(super) fn take_due(&mut self, now: Mono) -> Option<u32> {
        let (due, slot) = *self.heap.first()?;
        if due > now {
            return None;
        }
        self.set(slot, None);
        Some(slot)
    }

    /// Sets, moves or removes the deadline of a slot.
    pub(super) fn set(&mut self, slot: u32, due: Option<Mono>) {
        let place = self.places[slot as usize];
        match (due, place) {
            (None, ABSENT) => {}
            (None, place) => self.remove(place as usize),
            (Some(due), ABSENT) => {
                self.heap.push((due, slot));
                self.sift_up(self.heap.len() - 1);
            }
            (Some(due), place) => {
                let place = place as usize;
                let before = self.heap[place].0;
                self.heap[place].0 = due;
                if due < before {
                    self.sift_up(place);
                } else {
                    self.sift_down(place);
                }
            }
        }
    }

    fn remove(&mut self, place: usize) {
        let (_, slot) = self.heap.swap_remove(place);
        self.places[slot as usize] = ABSENT;
        if place < self.heap.len() {
            let moved = self.sift_up(place);
            self.sift_down(moved);
        }
    }

    fn sift_up(&mut self, mut place: usize) -> usize {
        while place > 0 {
            let parent = (place - 1) / 2;
            if self.heap[parent] <= self.heap[place] {
                break;
            }
            self.swap(place, parent);
            place = parent;
        }
        self.note(place);
        place
    }

    fn sift_down(&mut self, mut place: usize) {
        loop {
            let child = [2 * place + 1, 2 * place + 2]
                .into_iter()
                .filter(|child| *child < self.heap.len())
                .min_by_key(|child| self.heap[*child]);
            match child {
                Some(child) if self.heap[child] < self.heap[place] => {
                    self.swap(place, child);
                    place = child;
                }
                _ => break,
            }
        }
        self.note(place);
    }

    fn swap(&mut self, one: usize, other: usize) {
        self.heap.swap(one, other);
        self.note(one);
        self.note(other);
    }

    fn note(&mut self, place: usize) {
        let slot = self.heap[place].1 as usize;
        self.places[slot] = u32::try_from(place).unwrap_or(ABSENT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever is set, moved and removed: slots come out in order, each once, at its latest deadline.
        #[test]
        fn slots_come_out_in_order(
            moves in prop::collection::vec((0_u32..20, prop::option::of(1_u64..1_000)), 0..200)
        ) {
            let mut deadlines = Deadlines::new(20);
            let mut expected = std::collections::BTreeMap::new();
            for (slot, due) in moves {
                deadlines.set(slot, due.map(Mono));
                match due {
                    Some(due) => expected.insert(slot, due),
                    None => expected.remove(&slot),
                };
            }
            let mut expected: Vec<_> = expected.into_iter().map(|(slot, due)| (due, slot)).collect();
            expected.sort_unstable();
            for now in [0, 1, 500, 1_000] {
                let mut named = Vec::new();
                deadlines.due(Mono(now), &mut |slot| named.push(slot));
                named.sort_unstable();
                let due = expected.iter().filter(|(due, _)| *due <= now);
                let mut due: Vec<_> = due.map(|(_, slot)| *slot).collect();
                due.sort_unstable();
                prop_assert_eq!(named, due);
            }
            for (due, slot) in expected {
                prop_assert_eq!(deadlines.earliest(), Some(Mono(due)));
                prop_assert_eq!(deadlines.take_due(Mono(due).minus(1)), None);
                prop_assert_eq!(deadlines.take_due(Mono(due)), Some(slot));
            }
            prop_assert_eq!(deadlines.earliest(), None);
        }
    }
}
