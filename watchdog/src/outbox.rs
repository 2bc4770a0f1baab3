//! From the tick to the sinks: a bounded queue that never makes the tick wait.
//!
//! In: [`Stamped`] messages of fixed size, from the tick. Out: the same on tokio, and a
//! [`Message::Dropped`] where some were lost. Never, on the sending side: a lock, an allocation, a
//! wait; the only system call is the non-blocking write that wakes the receiver, and that only
//! when it may be asleep.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::io::unix::AsyncFd;
use watchdog_model::leases::note::Note;
use watchdog_model::time::Mono;

use crate::surge;

/// Messages that may wait. A tick that finds ten thousand leases late at both their ends fits, with
/// what follows at once.
pub const CAPACITY: usize = 32_768;
/// As many as a calm node has in a few ticks.
const CALM: usize = 512;
/// Messages taken out at a time: what they mean together is settled once a batch.
const BATCH: usize = 4_096;

/// Something that can be lost; the label `what` of `lost_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lost {
    /// Messages from the tick to the sinks.
    Note,
    /// Lines of the event stream: its reader is gone, too slow, or its disk full.
    EventLine,
    /// Alerts that reached nobody.
    Alert,
    /// Flows that found no free slot in the kernel's table.
    Slot,
    /// Segments of a watched flow, or calls of its TLS library, that the kernel programs had to skip.
    Segment,
    /// Threads that found no place in the kernel's table.
    Thread,
    /// Leases that found no place in the book.
    Lease,
    /// Lines of the daemon's own log.
    LogLine,
    /// Block requests that were not followed: too many in flight.
    Request,
    /// Questions about a late lease's cause that found a queue full; they are asked again.
    Question,
    /// Calls that the flight recorder could not keep: its queue was full, or too much waited for its disk
    /// (then once for each file that lacks them).
    Record,
}

impl Lost {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Note,
        Self::EventLine,
        Self::Alert,
        Self::Slot,
        Self::Segment,
        Self::Thread,
        Self::Lease,
        Self::LogLine,
        Self::Request,
        Self::Question,
        Self::Record,
    ];

    /// Its word in events and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::EventLine => "event_line",
            Self::Alert => "alert",
            Self::Slot => "slot",
            Self::Segment => "segment",
            Self::Thread => "thread",
            Self::Lease => "lease",
            Self::LogLine => "log_line",
            Self::Request => "request",
            Self::Question => "question",
            Self::Record => "record",
        }
    }
}

/// What the tick says.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "a box would be an allocation in the tick; nearly every message is a note anyway"
)]
pub enum Message {
    /// What the model said.
    Note(Note),
    /// The tick itself was held up.
    Stalled {
        /// When it should have run.
        from: Mono,
        /// When it ran.
        to: Mono,
    },
    /// This entry's grantor holds replies back for too long for `renews_from: request`.
    LongPoll {
        /// Index of the entry.
        entry: u16,
    },
    /// Something was lost.
    Dropped {
        /// What.
        what: Lost,
        /// How many.
        count: u64,
        /// When the first of them.
        since: Mono,
    },
}

/// A message and when the tick said it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stamped {
    /// The tick's `now`.
    pub at: Mono,
    /// What was said.
    pub message: Message,
}

struct Shared {
    /// Messages that found the queue full and were not reported yet.
    dropped: AtomicU64,
    /// `at` of the first of them, ns.
    dropped_since: AtomicU64,
    /// Whether a wake-up is under way already.
    signalled: AtomicBool,
    wake: File,
}

/// The tick's end.
pub struct Outbox {
    queue: surge::Sender<Stamped>,
    shared: Arc<Shared>,
}

/// The sinks' end.
pub struct Inbox {
    queue: surge::Receiver<Stamped>,
    shared: Arc<Shared>,
    wake: AsyncFd<File>,
}

/// Makes both ends. Must be called inside a tokio runtime.
pub fn outbox() -> io::Result<(Outbox, Inbox)> {
    // SAFETY: eventfd takes two integers and touches no memory of ours.
    let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made, and nobody else has it.
    let wake = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    let shared = Arc::new(Shared {
        dropped: AtomicU64::new(0),
        dropped_since: AtomicU64::new(0),
        signalled: AtomicBool::new(false),
        wake: wake.try_clone()?,
    });
    // SAFETY: a `File` owns its descriptor and names the same one for as long as it lives; it
    // lives in the `AsyncFd`.
    let wake = unsafe { AsyncFd::register(wake) }.map_err(io::Error::from)?;
    let (sending, receiving) = surge::queue(CALM, CAPACITY - CALM);
    let inbox = Inbox {
        queue: receiving,
        shared: Arc::clone(&shared),
        wake,
    };
    let outbox = Outbox {
        queue: sending,
        shared,
    };
    Ok((outbox, inbox))
}

impl Outbox {
    /// Hands a message over, or counts it as lost when [`CAPACITY`] messages wait already.
    pub fn send(&mut self, stamped: Stamped) {
        let shared = &*self.shared;
        if !self.queue.send(stamped) {
            // Stamp first: whoever sees the count must find the stamp.
            let _already_set = shared.dropped_since.compare_exchange(
                0,
                stamped.at.0.max(1),
                Ordering::AcqRel,
                Ordering::Relaxed,
            );
            shared.dropped.fetch_add(1, Ordering::Release);
        }
        if !shared.signalled.swap(true, Ordering::AcqRel) {
            // Fails only when the counter is full, and then the receiver is awake anyway.
            let _woken = (&shared.wake).write(&1u64.to_ne_bytes());
        }
    }
}

impl Inbox {
    /// Moves what waits into `into`, in order, at most a batch; waits until there is something.
    pub async fn receive(&mut self, into: &mut Vec<Stamped>) -> io::Result<()> {
        loop {
            if self.drain(into) {
                return Ok(());
            }
            let mut ready = self.wake.readable().await?;
            let mut count = [0; 8];
            match ready.get_inner().read(&mut count) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                Err(error) => return Err(error),
                Ok(_) => {}
            }
        }
    }

    /// The same without waiting. Returns whether there was anything.
    pub fn drain(&mut self, into: &mut Vec<Stamped>) -> bool {
        let before = into.len();
        // Cleared before the queue is emptied: a message pushed after we looked signals again.
        // A swap and not a store: it must see what was pushed before the flag was raised.
        self.shared.signalled.swap(false, Ordering::AcqRel);
        // Bounded, so that a sender without pause cannot keep us here.
        while into.len() - before < BATCH {
            let Some(stamped) = self.queue.take() else {
                break;
            };
            into.push(stamped);
        }
        if into.len() - before == BATCH {
            // Others may wait, and nobody need signal them.
            self.shared.signalled.store(true, Ordering::Release);
            let _woken = (&self.shared.wake).write(&1u64.to_ne_bytes());
            return true;
        }
        let count = self.shared.dropped.swap(0, Ordering::Acquire);
        if count > 0 {
            let since = Mono(self.shared.dropped_since.swap(0, Ordering::AcqRel));
            let at = into.last().map_or(since, |last| last.at.max(since));
            into.push(Stamped {
                at,
                message: Message::Dropped {
                    what: Lost::Note,
                    count,
                    since,
                },
            });
        }
        into.len() > before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stalled(at: u64) -> Stamped {
        Stamped {
            at: Mono(at),
            message: Message::Stalled {
                from: Mono(0),
                to: Mono(at),
            },
        }
    }

    #[tokio::test]
    async fn messages_arrive_in_order_from_another_thread() {
        let (mut outbox, mut inbox) = outbox().unwrap();
        let sender = std::thread::spawn(move || {
            for at in 1..=1000 {
                outbox.send(stalled(at));
            }
        });
        let mut got = Vec::new();
        while got.len() < 1000 {
            inbox.receive(&mut got).await.unwrap();
        }
        sender.join().unwrap();
        assert!(
            (1..=1000)
                .zip(&got)
                .all(|(at, message)| *message == stalled(at))
        );
    }

    #[tokio::test]
    async fn what_finds_the_queue_full_is_counted_and_told_once() {
        let (mut outbox, mut inbox) = outbox().unwrap();
        let capacity = CAPACITY as u64;
        for at in 1..=capacity + 3 {
            outbox.send(stalled(at));
        }
        let mut got = Vec::new();
        while got.len() < CAPACITY + 1 {
            inbox.receive(&mut got).await.unwrap();
        }
        assert_eq!(
            got[CAPACITY].message,
            Message::Dropped {
                what: Lost::Note,
                count: 3,
                since: Mono(capacity + 1),
            }
        );
        got.clear();
        assert!(!inbox.drain(&mut got));
        outbox.send(stalled(1));
        inbox.receive(&mut got).await.unwrap();
        assert_eq!(got, [stalled(1)]);
    }

    #[tokio::test]
    async fn a_receiver_asleep_is_woken() {
        let (mut outbox, mut inbox) = outbox().unwrap();
        let waiting = tokio::spawn(async move {
            let mut got = Vec::new();
            inbox.receive(&mut got).await.unwrap();
            got
        });
        tokio::task::yield_now().await;
        outbox.send(stalled(7));
        assert_eq!(waiting.await.unwrap(), [stalled(7)]);
    }
}
