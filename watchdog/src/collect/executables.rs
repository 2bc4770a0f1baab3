//! Which executable a process runs, asked by the tick and looked up on a thread that may wait.
//!
//! In: process ids, through a bounded queue. Out: a number for device and inode of /proc/PID/exe,
//! through another. Never: a file touched by the tick; a process's name taken for what it runs.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    os::unix::fs::MetadataExt,
    sync::Arc,
    time::Duration,
};

use crossbeam_queue::ArrayQueue;
use watchdog_model::{Mono, time::SECOND};

/// Questions and answers that may wait; a question that does not fit is asked again.
const WAITING: usize = 256;
/// Processes remembered at once; beyond, flows just learn alone.
const KNOWN: usize = 8_192;
/// How long an answer is good: a process may exec, and its id be given out again.
const GOOD_FOR_NS: u64 = 60 * SECOND;
/// How often the thread looks for questions.
const LOOK_EVERY: Duration = Duration::from_millis(50);

struct Shared {
    questions: ArrayQueue<u32>,
    answers: ArrayQueue<(u32, u64)>,
}

/// The tick's end.
pub struct Executables {
    shared: Arc<Shared>,
    /// By process id: the executable (0: not known yet) and when that was noted.
    known: HashMap<u32, (u64, Mono)>,
}

impl Executables {
    /// Starts the thread; without it nothing is ever known, which only makes learning slower.
    #[must_use]
    pub fn start() -> Self {
        let shared = Arc::new(Shared {
            questions: ArrayQueue::new(WAITING),
            answers: ArrayQueue::new(WAITING),
        });
        let theirs = Arc::clone(&shared);
        let spawned = std::thread::Builder::new()
            .name("executables".into())
            .stack_size(128 * 1024)
            .spawn(move || {
                // Ends when the tick's end is gone.
                while Arc::strong_count(&theirs) > 1 {
                    while let Some(pid) = theirs.questions.pop() {
                        // Full: the tick asks again.
                        let _ = theirs.answers.push((pid, executable(pid)));
                    }
                    std::thread::park_timeout(LOOK_EVERY);
                }
            });
        if let Err(error) = spawned {
            tracing::warn!(%error, "executables are not told apart");
        }
        Self {
            shared,
            known: HashMap::with_capacity(2 * KNOWN),
        }
    }

    /// Takes in answers; true if there were any.
    pub fn take_answers(&mut self, now: Mono) -> bool {
        let mut any = false;
        while let Some((pid, executable)) = self.shared.answers.pop() {
            if let Some(place) = self.known.get_mut(&pid) {
                *place = (executable, now);
                any = true;
            }
        }
        any
    }

    /// The executable of a process; 0 while it is not known.
    pub fn of(&mut self, pid: u32, now: Mono) -> u64 {
        if let Some((executable, at)) = self.known.get(&pid)
            && now.since(*at) < GOOD_FOR_NS
        {
            return *executable;
        }
        if self.known.len() >= KNOWN {
            self.known.retain(|_, (_, at)| now.since(*at) < GOOD_FOR_NS);
        }
        if self.known.len() < KNOWN && self.shared.questions.push(pid).is_ok() {
            self.known.insert(pid, (0, now));
        }
        0
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
        let mut executables = Executables::start();
        let (own, start) = (std::process::id(), Mono(SECOND));
        assert_eq!(executables.of(own, start), 0);
        let came = (0..500).any(|_| {
            std::thread::park_timeout(Duration::from_millis(10));
            executables.take_answers(start)
        });
        assert!(came);
        assert_eq!(executables.of(own, start), executable(own));
        assert_eq!(executables.of(own, start.plus(GOOD_FOR_NS)), 0);
    }
}
