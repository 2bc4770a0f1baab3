//! A bounded queue from one thread to another for what is little nearly always, and very much at once
//! when thousands of leases are late together.
//!
//! In: items, from the tick. Out: the same in order. Two rings: a small one that goes round on a calm
//! node, and one as large as the worst that is promised, whose memory is first touched when it is first
//! used. One ring for all would have touched all of its memory after as many items, however few wait at
//! a time. Never, on the sending side: a lock, an allocation, a wait, a system call.

use rtrb::{Consumer, Producer, RingBuffer};

/// Where items go in.
pub struct Sender<T> {
    calm: Producer<T>,
    /// What the other ring has no room for. While anything is in here all goes here, so that the
    /// order is kept.
    storm: Producer<T>,
    storm_room: usize,
}

/// Where they come out.
pub struct Receiver<T> {
    calm: Consumer<T>,
    storm: Consumer<T>,
}

/// Makes both ends: so many items may wait at any time, and so many more in a storm.
#[must_use]
pub fn queue<T>(calm: usize, storm: usize) -> (Sender<T>, Receiver<T>) {
    let (calm_in, calm_out) = RingBuffer::new(calm);
    let (storm_in, storm_out) = RingBuffer::new(storm);
    let sender = Sender {
        calm: calm_in,
        storm: storm_in,
        storm_room: storm,
    };
    let receiver = Receiver {
        calm: calm_out,
        storm: storm_out,
    };
    (sender, receiver)
}

impl<T> Sender<T> {
    /// Hands an item over. Whether there was room.
    pub fn send(&mut self, item: T) -> bool {
        let refused = if self.is_calm() {
            // All that went into the storm's ring is taken out: this is read after it.
            match self.calm.push(item) {
                Ok(()) => return true,
                Err(rtrb::PushError::Full(item)) => item,
            }
        } else {
            item
        };
        self.storm.push(refused).is_ok()
    }

    /// Whether the next item surely finds room.
    #[cfg(test)]
    pub fn has_room(&self) -> bool {
        !self.storm.is_full()
    }

    /// Whether nothing waits in the storm's ring.
    #[must_use]
    pub fn is_calm(&self) -> bool {
        self.storm.slots() == self.storm_room
    }
}

impl<T> Receiver<T> {
    /// The next item; None: there is none just now.
    pub fn take(&mut self) -> Option<T> {
        if let Ok(item) = self.calm.pop() {
            return Some(item);
        }
        if self.storm.is_empty() {
            return None;
        }
        // While the storm's ring holds anything nothing goes into the other: what has come there since
        // it was looked at is older.
        self.calm.pop().or_else(|_| self.storm.pop()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_kept_whichever_ring_an_item_went_through() {
        const ALL: u32 = 200_000;
        let (mut sender, mut receiver) = queue(16, 4_096);
        let sending = std::thread::spawn(move || {
            let mut stormy = 0;
            for item in 0..ALL {
                while !sender.send(item) {
                    std::thread::yield_now();
                }
                stormy += u32::from(!sender.is_calm());
                // Bursts of all lengths, and calm in between.
                if item % 611 == 0 {
                    std::thread::yield_now();
                }
            }
            stormy
        });
        for expected in 0..ALL {
            let item = loop {
                match receiver.take() {
                    Some(item) => break item,
                    None => std::thread::yield_now(),
                }
            };
            assert_eq!(item, expected);
        }
        let stormy = sending.join().unwrap();
        assert!((1..ALL).contains(&stormy), "{stormy}");
    }

    #[test]
    fn both_rings_are_room() {
        let (mut sender, mut receiver) = queue(2, 3);
        assert_eq!(
            [1, 2, 3, 4, 5, 6].map(|item| sender.send(item)),
            [true, true, true, true, true, false]
        );
        let taken: Vec<u32> = std::iter::from_fn(|| receiver.take()).collect();
        assert_eq!(taken, [1, 2, 3, 4, 5]);
        assert!(sender.is_calm() && sender.send(7));
        assert_eq!(receiver.take(), Some(7));
    }
}
