//! A bounded queue into a thread of its own, which may run at another priority.
//!
//! In: items, from any thread. Out: the same in order, to one thread, which sleeps while there are
//! none. Never, at the sender's end: a wait or a lock, so that a thread in real time never waits for
//! one that is not to let a lock go.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, Thread};

use crossbeam_queue::SegQueue;

struct Shared<T> {
    queue: SegQueue<T>,
    /// Items that wait.
    waiting: AtomicUsize,
    capacity: usize,
    /// Senders that are left.
    senders: AtomicUsize,
}

/// Where items are handed in.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
    thread: Thread,
}

/// The thread's end.
pub struct Receiver<T>(Arc<Shared<T>>);

/// Starts a thread that takes items, `capacity` of which may wait. It is to end when there are no
/// more.
///
/// # Errors
/// The thread cannot be started.
pub fn spawn<T: Send + 'static>(
    name: &str,
    stack_bytes: usize,
    capacity: usize,
    run: impl FnOnce(Receiver<T>) + Send + 'static,
) -> io::Result<Sender<T>> {
    let shared = Arc::new(Shared {
        queue: SegQueue::new(),
        waiting: AtomicUsize::new(0),
        capacity,
        senders: AtomicUsize::new(1),
    });
    let receiver = Receiver(Arc::clone(&shared));
    let handle = thread::Builder::new()
        .name(name.to_owned())
        .stack_size(stack_bytes)
        .spawn(move || run(receiver))?;
    Ok(Sender {
        shared,
        thread: handle.thread().clone(),
    })
}

impl<T> Sender<T> {
    /// Hands an item over.
    ///
    /// # Errors
    /// The item, where too many wait.
    pub fn send(&self, item: T) -> Result<(), T> {
        let shared = &*self.shared;
        // Counted before it is there: those that wait are never more than the capacity.
        let room = shared
            .waiting
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |waiting| {
                (waiting < shared.capacity).then_some(waiting + 1)
            });
        if room.is_err() {
            return Err(item);
        }
        shared.queue.push(item);
        self.thread.unpark();
        Ok(())
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.shared.senders.fetch_add(1, Ordering::Relaxed);
        Self {
            shared: Arc::clone(&self.shared),
            thread: self.thread.clone(),
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.shared.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.thread.unpark();
        }
    }
}

impl<T> Receiver<T> {
    /// The next item; waits for one. None: no more can come.
    #[must_use]
    pub fn next(&self) -> Option<T> {
        loop {
            // Before the queue is looked at: what was sent before the last sender went is seen.
            let over = self.0.senders.load(Ordering::Acquire) == 0;
            if let Some(item) = self.0.queue.pop() {
                self.0.waiting.fetch_sub(1, Ordering::AcqRel);
                return Some(item);
            }
            if over {
                return None;
            }
            // Whoever sends after the queue was found empty has this return at once.
            thread::park();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn everything_arrives_in_order_and_the_thread_ends_with_the_last_sender() {
        let (got, all) = channel();
        let sender = spawn("relay", 64 * 1024, 10_000, move |items: Receiver<u32>| {
            while let Some(item) = items.next() {
                got.send(item).unwrap();
            }
        })
        .unwrap();
        let other = sender.clone();
        for item in 0..10_000 {
            let by = if item % 3 == 0 { &other } else { &sender };
            by.send(item).unwrap();
        }
        drop((sender, other));
        assert!(all.iter().eq(0..10_000));
    }

    #[test]
    fn what_finds_no_room_is_given_back_and_nobody_waits() {
        let (go, wait) = channel::<()>();
        let (got, all) = channel();
        let sender = spawn("relay", 64 * 1024, 2, move |items: Receiver<u32>| {
            let _told = wait.recv();
            while let Some(item) = items.next() {
                got.send(item).unwrap();
            }
        })
        .unwrap();
        assert_eq!(
            [1, 2, 3].map(|item| sender.send(item)),
            [Ok(()), Ok(()), Err(3)]
        );
        go.send(()).unwrap();
        assert_eq!(all.recv().unwrap(), 1);
        drop(sender);
        assert!(all.iter().eq([2]));
    }
}
