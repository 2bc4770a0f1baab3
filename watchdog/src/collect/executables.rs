//! Which executable a process runs, and which config entries want it, asked by the tick and looked
//! up on a thread that may wait.
//!
//! In: process ids, through a bounded queue. Out: a number for device and inode of /proc/PID/exe, and
//! the entries whose `processes` name it, through another. Never: a file touched by the tick; a process's name taken for what it runs.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    os::unix::fs::MetadataExt,
    sync::{Arc, Mutex, PoisonError},
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

/// One bit a config entry: those that want a process.
pub type Wanted = u64;

/// Which processes each entry wants. Shared with whoever reads a changed configuration; never locked
/// by the tick.
#[derive(Clone, Debug, Default)]
pub struct Filters(Arc<Mutex<Vec<Vec<String>>>>);

impl Filters {
    /// By entry: exact names, or cgroup prefixes with a leading `/`; none: all processes.
    pub fn set(&self, processes: Vec<Vec<String>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = processes;
    }

    /// The entries that have a filter at all.
    #[must_use]
    pub fn filtered(&self) -> Wanted {
        let processes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (0..Wanted::BITS)
            .zip(processes.iter())
            .filter(|(_, wanted)| !wanted.is_empty())
            .fold(0, |bits, (entry, _)| bits | 1 << entry)
    }

    /// The entries that want a process.
    fn wanted(&self, pid: u32) -> Wanted {
        let processes = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if processes.iter().all(Vec::is_empty) {
            return Wanted::MAX;
        }
        let read =
            |what| std::fs::read_to_string(format!("/proc/{pid}/{what}")).unwrap_or_default();
        let (comm, cgroups) = (read("comm"), read("cgroup"));
        let comm = comm.trim_end_matches('\n');
        let under = |prefix: &str| {
            cgroups
                .lines()
                .filter_map(|line| line.splitn(3, ':').nth(2))
                .any(|path| {
                    path.strip_prefix(prefix.trim_end_matches('/'))
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                })
        };
        let fits = |name: &String| match name.strip_prefix('/') {
            Some(_) => under(name),
            None => name == comm,
        };
        (0..Wanted::BITS)
            .zip(&processes)
            .filter(|(_, wanted)| !wanted.is_empty() && !wanted.iter().any(fits))
            .fold(Wanted::MAX, |bits, (entry, _)| bits & !(1 << entry))
    }
}

struct Shared {
    questions: ArrayQueue<u32>,
    answers: ArrayQueue<(u32, u64, Wanted)>,
}

/// What is known of a process.
#[derive(Clone, Copy)]
struct Known {
    executable: u64,
    /// None while it was never answered.
    wanted: Option<Wanted>,
    at: Mono,
}

/// The tick's end.
pub struct Executables {
    shared: Arc<Shared>,
    /// By process id. An executable of 0: not known yet.
    known: HashMap<u32, Known>,
}

impl Executables {
    /// Starts the thread; without it nothing is ever known, which only makes learning slower.
    #[must_use]
    pub fn start(filters: Filters) -> Self {
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
                        let _ = theirs
                            .answers
                            .push((pid, executable(pid), filters.wanted(pid)));
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
        while let Some((pid, executable, wanted)) = self.shared.answers.pop() {
            if let Some(place) = self.known.get_mut(&pid) {
                *place = Known {
                    executable,
                    wanted: Some(wanted),
                    at: now,
                };
                any = true;
            }
        }
        any
    }

    /// The executable of a process; 0 while it is not known.
    pub fn of(&mut self, pid: u32, now: Mono) -> u64 {
        let before = self.known.get(&pid).copied();
        if let Some(known) = before
            && now.since(known.at) < GOOD_FOR_NS
        {
            return known.executable;
        }
        if self.known.len() >= KNOWN {
            self.known
                .retain(|_, known| now.since(known.at) < GOOD_FOR_NS);
        }
        if self.known.len() < KNOWN && self.shared.questions.push(pid).is_ok() {
            let asked = Known {
                executable: 0,
                // What was said of it before holds until it is said again.
                wanted: before.and_then(|known| known.wanted),
                at: now,
            };
            self.known.insert(pid, asked);
        }
        0
    }

    /// Whether an entry wants a process; None while that is not known.
    pub fn wanted(&mut self, pid: u32, entry: u16, now: Mono) -> Option<bool> {
        self.of(pid, now);
        let wanted = self.known.get(&pid)?.wanted?;
        Some(entry >= 64 || wanted & 1 << entry != 0)
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
    fn a_process_is_wanted_by_its_exact_name_or_under_its_cgroup() {
        let filters = Filters::default();
        let own = std::process::id();
        assert_eq!(filters.wanted(own), Wanted::MAX);
        let comm = std::fs::read_to_string("/proc/self/comm").expect("procfs");
        let comm = comm.trim();
        filters.set(vec![
            vec![],
            vec![comm.to_owned()],
            vec![comm[..comm.len() - 1].to_owned()],
            vec!["/".to_owned()],
            vec!["/no-such-group".to_owned(), comm.to_owned()],
            vec!["/no-such-group".to_owned()],
        ]);
        assert_eq!(filters.filtered(), 0b11_1110);
        assert_eq!(filters.wanted(own) & 0b11_1111, 0b01_1011);
    }

    #[test]
    fn an_answer_comes_and_goes_out_of_date() {
        let mut executables = Executables::start(Filters::default());
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
