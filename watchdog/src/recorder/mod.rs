//! The flight recorder: what the book was told and what it said, kept for when it matters.
//!
//! In: from the tick, every call of the book with its arguments ([`Op`]), over a bounded queue. Out: files
//! that hold the minutes before a lease was in danger and the half minute after (`writer`), a small rolling
//! file of what happened at all, and, if wished, everything. Never, at the tick's end: a lock, an allocation,
//! a wait. Never, in the thread that keeps the memory (`ring`): a file; while the disk hangs
//! it goes on, and the writer writes afterwards.
//!
//! A recording is read by [`mod@format`] and told again by [`replay`] through the very code that judged it.

pub mod format;
#[cfg(any(test, fuzzing))]
pub mod laws;
pub mod replay;
mod ring;
#[cfg(test)]
mod tests;
mod writer;

use std::cell::RefCell;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use watchdog_model::causes::collected::Collected;
use watchdog_model::leases::note::{LeaseHandle, Note};
use watchdog_model::leases::observation::{FlowKey, FlowObservation};
use watchdog_model::leases::settings::EntrySettings;
use watchdog_model::time::Mono;

use crate::surge;
use format::Header;

/// Calls that may wait for the memory's thread, which looks ten times a second: two ticks in which every
/// lease of a calm node's two thousand was renewed …
const CALM: usize = 1_024;
/// … and more of them once many thousand leases change at once, as when a server that grants ten thousand
/// stands still: that is what recordings are for. Some 20 MiB, first touched then.
const STORM: usize = 31_744;

/// Compressed bytes kept in memory: some ten minutes of 100 leases, a quarter of a minute of 10,000.
pub const KEPT_BYTES: usize = 4 << 20;

/// One call of the book, or what it said to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Op {
    /// `advance`.
    Advance,
    /// `wanted`: questions were asked.
    Asked,
    /// `daemon_gap`.
    DaemonGap {
        /// From.
        from: Mono,
        /// To.
        to: Mono,
    },
    /// `node_gap`.
    NodeGap {
        /// From.
        from: Mono,
        /// To.
        to: Mono,
    },
    /// `observe`, and the cadence that the lease had learned by then, ns; 0: none.
    Observe {
        /// The flow.
        flow: FlowObservation,
        /// See above.
        cadence_ns: u64,
    },
    /// `flow_gone`.
    FlowGone(FlowKey),
    /// `evidence`.
    Evidence {
        /// The lease, by the number that it has in this run.
        handle: LeaseHandle,
        /// What was found.
        found: Collected,
    },
    /// What the book said.
    Said(Note),
    /// `reconfigure`; never put by the tick.
    Settings(Vec<EntrySettings>),
    /// So many calls are missing here: the queue was full.
    Lost(u64),
}

/// A call and when it was made.
pub type Stamped = (Mono, Op);

/// What is wished.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where incidents are written, and how many bytes may lie there.
    pub dir: Option<(PathBuf, u64)>,
    /// A file for everything.
    pub all: Option<PathBuf>,
    /// Bytes of memory for the last minutes, compressed; [`KEPT_BYTES`] unless for a test.
    pub kept_bytes: usize,
    /// Counts calls that could not be kept.
    pub lost: prometheus::IntCounter,
}

impl Plan {
    /// Whether there is anything to record for.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.dir.is_none() && self.all.is_none()
    }
}

pub(crate) struct Shared {
    /// Calls that found it full and are not yet said.
    lost: AtomicU64,
    /// All of them, and those that the disk could not take.
    lost_in_all: prometheus::IntCounter,
    /// Set to end it.
    stop: AtomicBool,
    /// Set by SIGUSR1: write now.
    asked: Arc<AtomicBool>,
    /// Settings that changed.
    settings: Mutex<Option<Vec<EntrySettings>>>,
    jobs: writer::Jobs,
    done: Mutex<bool>,
    done_told: Condvar,
}

impl Shared {
    /// Gives the writer something to do, or counts what it has no room for.
    fn write(&self, job: writer::Job) {
        let calls = job.calls();
        if !self.jobs.put(job) {
            self.lost_in_all.inc_by(calls);
        }
    }
}

/// The tick's end.
pub struct Recorder {
    /// One thread puts calls, and from several places of one call: no two of them at a time.
    queue: RefCell<surge::Sender<Stamped>>,
    shared: Arc<Shared>,
    keeper: Thread,
}

/// Everybody else's end.
#[derive(Clone)]
pub struct RecorderHandle {
    shared: Arc<Shared>,
    keeper: Thread,
}

impl Recorder {
    /// Starts the two threads.
    ///
    /// # Errors
    /// A thread, or the handler of SIGUSR1, cannot be made.
    pub fn start(plan: Plan, header: Header) -> io::Result<(Self, RecorderHandle)> {
        let (sending, receiving) = surge::queue(CALM, STORM);
        let shared = Arc::new(Shared {
            lost: AtomicU64::new(0),
            lost_in_all: plan.lost.clone(),
            stop: AtomicBool::new(false),
            asked: Arc::default(),
            settings: Mutex::default(),
            jobs: writer::Jobs::default(),
            done: Mutex::new(false),
            done_told: Condvar::new(),
        });
        signal_hook::flag::register(signal_hook::consts::SIGUSR1, Arc::clone(&shared.asked))?;
        let (of_writer, writers_plan) = (Arc::clone(&shared), plan.clone());
        thread::Builder::new()
            .name("recorder-disk".into())
            .stack_size(256 * 1024)
            .spawn(move || {
                writer::run(&of_writer.jobs, writers_plan);
                *lock(&of_writer.done) = true;
                of_writer.done_told.notify_all();
            })?;
        let of_keeper = Arc::clone(&shared);
        let keeper = thread::Builder::new()
            .name("recorder".into())
            .stack_size(256 * 1024)
            .spawn(move || ring::run(&of_keeper, receiving, &plan, header))?;
        let recording = RecorderHandle {
            shared: Arc::clone(&shared),
            keeper: keeper.thread().clone(),
        };
        let recorder = Self {
            queue: RefCell::new(sending),
            shared,
            keeper: keeper.thread().clone(),
        };
        Ok((recorder, recording))
    }

    /// Notes a call. Called by the tick: nothing but a push into a queue of fixed size, and, where much comes
    /// at once, a word to the thread that empties it.
    pub fn put(&self, at: Mono, op: Op) {
        let mut queue = self.queue.borrow_mut();
        let was_calm = queue.is_calm();
        if !queue.send((at, op)) {
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
            self.shared.lost_in_all.inc();
        } else if was_calm && !queue.is_calm() {
            self.keeper.unpark();
        }
    }
}

impl RecorderHandle {
    /// The configuration has changed.
    pub fn reconfigured(&self, settings: Vec<EntrySettings>) {
        *lock(&self.shared.settings) = Some(settings);
    }

    /// Writes what is kept, and waits for it for as long as this. Whether it was all written: while the disk
    /// hangs it cannot be.
    #[must_use]
    pub fn finish(&self, patience: Duration) -> bool {
        self.shared.stop.store(true, Ordering::Release);
        self.keeper.unpark();
        let done = lock(&self.shared.done);
        let waited = self
            .shared
            .done_told
            .wait_timeout_while(done, patience, |done| !*done);
        waited.is_ok_and(|(done, _)| *done)
    }
}

/// A lock whatever became of its last holder: what is behind these is whole at any moment.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
