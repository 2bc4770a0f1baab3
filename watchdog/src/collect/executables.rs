//! Which executable a process runs, and which entries watch its flows: asked by the tick, looked up
//! on a thread that may wait.
//!
//! In: process ids, through a bounded queue. Out: a number for device and inode of /proc/PID/exe,
//! and a bit an entry, through another. Never: a file touched by the tick; a process's name taken
//! for what it runs.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    os::unix::fs::MetadataExt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crossbeam_queue::ArrayQueue;
use watchdog_model::{Mono, time::SECOND};

use super::admission::{Admission, Shown};

/// Questions and answers that may wait; a question that does not fit is asked again.
const WAITING: usize = 256;
/// Processes remembered at once; beyond, flows just learn alone.
const KNOWN: usize = 8_192;
/// How long an answer is good: a process may exec, and its id be given out again.
const GOOD_FOR_NS: u64 = 60 * SECOND;
/// How often the thread looks for questions.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What the configuration demands, and how often that has changed.
#[derive(Default)]
struct Demands {
    admission: Admission,
    edition: u32,
}

struct Answer {
    pid: u32,
    edition: u32,
    executable: u64,
    taken_by: u64,
}

struct Shared {
    questions: ArrayQueue<u32>,
    answers: ArrayQueue<Answer>,
    /// Locked by the thread and by whoever reads the configuration again, never by the tick.
    demands: Mutex<Demands>,
}

impl Shared {
    fn answer(&self, pid: u32) -> Answer {
        let (admission, edition) = {
            let demands = self.demands.lock().unwrap_or_else(PoisonError::into_inner);
            let demanding = demands.admission.demanding() != 0;
            (
                demanding.then(|| demands.admission.clone()),
                demands.edition,
            )
        };
        Answer {
            pid,
            edition,
            executable: executable(pid),
            taken_by: admission.map_or(u64::MAX, |admission| admission.takes(&Shown::of(pid))),
        }
    }
}

/// Changes whose flows are watched. Belongs to whoever reads the configuration.
pub struct Gate(Arc<Shared>);

/// A change of whose flows are watched, for the tick to take over.
#[derive(Clone, Copy, Debug)]
pub struct Edition {
    number: u32,
    demanding: u64,
}

impl Gate {
    /// Puts other demands in force, for answers from now on.
    #[must_use]
    pub fn change(&self, admission: Admission) -> Edition {
        let mut demands = self
            .0
            .demands
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        demands.edition = demands.edition.wrapping_add(1);
        demands.admission = admission;
        Edition {
            number: demands.edition,
            demanding: demands.admission.demanding(),
        }
    }
}

/// What is known of a process.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// What it runs; 0: not known.
    executable: u64,
    /// The entries that take it, a bit each; None: not answered yet.
    taken_by: Option<u64>,
    /// When it was asked or answered.
    at: Mono,
}

/// The tick's end.
pub struct Executables {
    shared: Arc<Shared>,
    known: HashMap<u32, Known>,
    edition: Edition,
}

impl Executables {
    /// Starts the thread; without it nothing is ever known, which only makes learning slower.
    #[must_use]
    pub fn start(admission: Admission) -> (Self, Gate) {
        let shared = Arc::new(Shared {
            questions: ArrayQueue::new(WAITING),
            answers: ArrayQueue::new(WAITING),
            demands: Mutex::default(),
        });
        let gate = Gate(Arc::clone(&shared));
        let edition = gate.change(admission);
        let theirs = Arc::downgrade(&shared);
        let spawned = std::thread::Builder::new()
            .name("executables".into())
            .stack_size(128 * 1024)
            .spawn(move || {
                // Ends when both other ends are gone.
                while let Some(shared) = theirs.upgrade() {
                    while let Some(pid) = shared.questions.pop() {
                        // Full: the tick asks again.
                        let _ = shared.answers.push(shared.answer(pid));
                    }
                    drop(shared);
                    std::thread::park_timeout(LOOK_EVERY);
                }
            });
        if let Err(error) = spawned {
            tracing::warn!(%error, "executables are not told apart");
        }
        let tick = Self {
            shared,
            known: HashMap::with_capacity(2 * KNOWN),
            edition,
        };
        (tick, gate)
    }

    /// Takes other demands over: whoever was asked about is asked about again.
    pub fn take_over(&mut self, edition: Edition) {
        self.edition = edition;
        self.known.clear();
    }

    /// Takes in answers; true if there were any.
    pub fn take_answers(&mut self, now: Mono) -> bool {
        let mut any = false;
        while let Some(answer) = self.shared.answers.pop() {
            if answer.edition != self.edition.number {
                continue;
            }
            if let Some(place) = self.known.get_mut(&answer.pid) {
                *place = Known {
                    executable: answer.executable,
                    taken_by: Some(answer.taken_by),
                    at: now,
                };
                any = true;
            }
        }
        any
    }

    /// The executable of a process; 0 while it is not known.
    pub fn of(&mut self, pid: u32, now: Mono) -> u64 {
        self.about(pid, now).executable
    }

    /// Whether an entry watches the flows of a process (None: whose is not known yet); None while
    /// that is not known.
    pub fn watched_by(&mut self, entry: u16, pid: Option<u32>, now: Mono) -> Option<bool> {
        let bit = 1_u64.checked_shl(entry.into()).unwrap_or(0);
        if self.edition.demanding & bit == 0 {
            return Some(true);
        }
        let taken_by = self.about(pid?, now).taken_by?;
        Some(taken_by & bit != 0)
    }

    fn about(&mut self, pid: u32, now: Mono) -> Known {
        /// A question whose answer was thrown away or never asked is asked again after this long.
        const ASK_AGAIN_NS: u64 = SECOND;
        if let Some(known) = self.known.get(&pid) {
            let good_for = match known.taken_by {
                Some(_) => GOOD_FOR_NS,
                None => ASK_AGAIN_NS,
            };
            if now.since(known.at) < good_for {
                return *known;
            }
        }
        if self.known.len() >= KNOWN {
            self.known
                .retain(|_, known| now.since(known.at) < GOOD_FOR_NS);
        }
        if self.known.len() < KNOWN && self.shared.questions.push(pid).is_ok() {
            let asked = Known {
                at: now,
                ..Known::default()
            };
            self.known.insert(pid, asked);
        }
        Known::default()
    }
}

/// Device and inode of what a process runs, as one number; 0: cannot be seen.
fn executable(pid: u32) -> u64 {
    let Ok(metadata) = std::fs::metadata(format!("/proc/{pid}/exe")) else {
        return 0;
    };
    let mut hasher = DefaultHasher::new();
    (metadata.dev(), metadata.ino()).hash(&mut hasher);
    hasher.finish().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_processes_of_one_executable_are_known_by_the_same_number() {
        let own = std::process::id();
        assert_ne!(executable(own), 0);
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .expect("sleep");
        let mut other = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .expect("sleep");
        // A child runs our own executable until it has called exec.
        let sleeping = |pid| {
            (0..500).find_map(|_| {
                std::thread::park_timeout(Duration::from_millis(10));
                Some(executable(pid)).filter(|found| *found != executable(own) && *found != 0)
            })
        };
        assert_eq!(sleeping(child.id()), sleeping(other.id()));
        for child in [&mut child, &mut other] {
            child.kill().expect("ours");
            child.wait().expect("ours");
        }
    }

    #[test]
    fn an_answer_comes_and_goes_out_of_date() {
        let (mut executables, gate) = Executables::start(Admission::default());
        let (own, start) = (std::process::id(), Mono(SECOND));
        assert_eq!(executables.of(own, start), 0);
        let came = (0..500).any(|_| {
            std::thread::park_timeout(Duration::from_millis(10));
            executables.take_answers(start)
        });
        assert!(came);
        assert_eq!(executables.of(own, start), executable(own));
        assert_eq!(executables.of(own, start.plus(GOOD_FOR_NS)), 0);
        drop(gate);
    }

    #[test]
    fn an_entry_that_demands_waits_for_the_answer_and_a_change_asks_again() {
        let own = std::process::id();
        let name = std::fs::read_to_string("/proc/self/comm").unwrap();
        let (name, start) = (name.trim_end().to_owned(), Mono(SECOND));
        let demands = |word: &str| vec![Vec::new(), vec![word.to_owned()]];
        let (mut executables, gate) = Executables::start(Admission::new("/", demands("nobody")));
        let answer = |executables: &mut Executables| {
            (0..500).find_map(|_| {
                std::thread::park_timeout(Duration::from_millis(10));
                executables.take_answers(start);
                executables.watched_by(1, Some(own), start)
            })
        };
        assert_eq!(executables.watched_by(0, None, start), Some(true));
        assert_eq!(executables.watched_by(1, None, start), None);
        assert_eq!(executables.watched_by(1, Some(own), start), None);
        assert_eq!(answer(&mut executables), Some(false));
        let edition = gate.change(Admission::new("/", demands(&name)));
        executables.take_over(edition);
        assert_eq!(executables.watched_by(1, Some(own), start), None);
        assert_eq!(answer(&mut executables), Some(true));
    }
}
