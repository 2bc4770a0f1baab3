//! The threads that gather facts, so that the tick never waits for procfs.
//!
//! In: questions of the tick, over a bounded queue. Out: answers, over another. One thread works,
//! so that all of it together is bounded; when it has been at one question for too long, because
//! some file of that process hangs, another goes on, and that process is left alone until the first
//! has come back. What finds a queue full is lost: the tick asks again. Never: a wait for the tick,
//! or of it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::thread::{self, Thread};
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use watchdog_model::Mono;
use watchdog_model::causes::collected::Collected;
use watchdog_model::leases::note::LeaseHandle;
use watchdog_model::time::MS;

use super::look::{BEFORE_AT_LEAST_NS, Outcome, Process, Subject, Surroundings};

/// Threads: so many processes may hang in procfs before nothing is gathered any more.
const THREADS: usize = 3;
/// Questions and answers that may wait.
const WAITING: usize = 256;
/// How long a thread sleeps when nobody wakes it.
const IDLE: Duration = Duration::from_secs(2);
/// And while questions wait for their second look.
const SHORTLY: Duration = Duration::from_millis(30);
/// A thread that has been at one question for so long hangs.
const HANGS_NS: u64 = 300 * MS;
/// Processes kept; beyond, those not asked about lately are forgotten.
const PROCESSES: usize = 128;

/// A question about a lease.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// The lease.
    pub handle: LeaseHandle,
    /// What to look at.
    pub subject: Subject,
}

/// What was found.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// The lease.
    pub handle: LeaseHandle,
    /// What.
    pub collected: Collected,
}

struct Shared {
    questions: ArrayQueue<Question>,
    answers: ArrayQueue<Answer>,
    /// Questions and answers that found a queue full.
    lost: AtomicU64,
    /// Questions that need a second look, and when.
    later: Mutex<Vec<(Mono, Question)>>,
    /// Which thread works.
    leader: AtomicUsize,
    /// Since when it is at its present question, ns; 0: at none.
    busy_since: AtomicU64,
    processes: Mutex<HashMap<u32, Arc<Mutex<Process>>>>,
    around: Surroundings,
}

/// The tick's end. Dropping it ends the threads when they next look.
pub struct Helper {
    shared: Arc<Shared>,
    threads: Vec<Thread>,
}

impl Helper {
    /// Starts the threads.
    ///
    /// # Errors
    /// A thread cannot be made.
    pub fn start(around: Surroundings) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            questions: ArrayQueue::new(WAITING),
            answers: ArrayQueue::new(WAITING),
            lost: AtomicU64::new(0),
            later: Mutex::new(Vec::with_capacity(WAITING)),
            leader: AtomicUsize::new(0),
            busy_since: AtomicU64::new(0),
            processes: Mutex::new(HashMap::new()),
            around,
        });
        let mut threads = Vec::with_capacity(THREADS);
        for number in 0..THREADS {
            let weak = Arc::downgrade(&shared);
            let started = thread::Builder::new()
                .name("evidence".into())
                .stack_size(256 * 1024)
                .spawn(move || {
                    while let Some(shared) = weak.upgrade() {
                        let sleep = shared.work(number);
                        drop(shared);
                        thread::park_timeout(sleep);
                    }
                })?;
            threads.push(started.thread().clone());
        }
        Ok(Self { shared, threads })
    }

    /// Asks; false: too much is asked already.
    pub fn ask(&self, question: Question) -> bool {
        let asked = self.shared.questions.push(question).is_ok();
        self.shared.lose_unless(asked);
        asked
    }

    /// Wakes the threads after questions were asked.
    pub fn wake(&self) {
        for thread in &self.threads {
            thread.unpark();
        }
    }

    /// How many questions stayed without an answer because a queue was full; the tick asks again.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// The next answer.
    #[must_use]
    pub fn answer(&self) -> Option<Answer> {
        self.shared.answers.pop()
    }
}

impl Shared {
    fn now(&self) -> Mono {
        (self.around.clock)()
    }

    fn lose_unless(&self, taken: bool) {
        if !taken {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether it is this thread's turn; takes over from one that hangs.
    fn leads(&self, number: usize) -> bool {
        let leader = self.leader.load(Ordering::Acquire);
        if leader == number {
            return true;
        }
        let busy_since = self.busy_since.load(Ordering::Acquire);
        if busy_since == 0 || self.now().since(Mono(busy_since)) < HANGS_NS {
            return false;
        }
        let taken = self
            .leader
            .compare_exchange(leader, number, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok();
        if taken {
            self.busy_since.store(0, Ordering::Release);
        }
        taken
    }

    /// Works as long as there is something to do and it is this thread's turn; says how long to
    /// sleep then.
    fn work(&self, number: usize) -> Duration {
        while self.leads(number) {
            let now = self.now();
            let due = self.due(now);
            let Some((question, again)) = due
                .map(|question| (question, true))
                .or_else(|| Some((self.question()?, false)))
            else {
                break;
            };
            self.busy_since.store(now.0.max(1), Ordering::Release);
            self.answer(question, again);
            if self.leader.load(Ordering::Acquire) == number {
                self.busy_since.store(0, Ordering::Release);
            }
        }
        let waiting = self.later.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.is_empty() { IDLE } else { SHORTLY }
    }

    /// A new question, while there is room to put it off.
    fn question(&self) -> Option<Question> {
        let later = self.later.lock().unwrap_or_else(PoisonError::into_inner);
        let room = later.len() < WAITING;
        drop(later);
        room.then(|| self.questions.pop()).flatten()
    }

    /// A question that is due for its second look.
    fn due(&self, now: Mono) -> Option<Question> {
        let mut later = self.later.lock().unwrap_or_else(PoisonError::into_inner);
        let at = later.iter().position(|(due, _)| *due <= now)?;
        Some(later.swap_remove(at).1)
    }

    fn answer(&self, question: Question, again: bool) {
        let process = self.process(question.subject.pid);
        let mut process = match process.try_lock() {
            Ok(process) => process,
            // What a thread that panicked left behind is figures; they are taken anew.
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // A thread hangs at this process.
            Err(TryLockError::WouldBlock) => return,
        };
        match process.collect(&question.subject, again, &self.around) {
            Outcome::Found(collected) => {
                let answer = Answer {
                    handle: question.handle,
                    collected,
                };
                self.lose_unless(self.answers.push(answer).is_ok());
            }
            Outcome::Later => {
                let due = self.now().plus(BEFORE_AT_LEAST_NS);
                let mut later = self.later.lock().unwrap_or_else(PoisonError::into_inner);
                let room = later.len() < WAITING;
                if room {
                    later.push((due, question));
                }
                self.lose_unless(room);
            }
            Outcome::Gone => {}
        }
    }

    fn process(&self, pid: u32) -> Arc<Mutex<Process>> {
        let mut processes = self
            .processes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if processes.len() >= PROCESSES && !processes.contains_key(&pid) {
            let now = (self.around.clock)();
            processes.retain(|_, process| match process.try_lock() {
                Ok(process) => !process.is_old(now),
                Err(_) => true,
            });
        }
        Arc::clone(processes.entry(pid).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::cgroups::Mounts;
    use crate::collect::waits::Own;

    #[test]
    fn five_hundred_leases_of_one_process_are_answered_soon() {
        let helper = Helper::start(Surroundings {
            mounts: Mounts::find(),
            devices: None,
            clock: crate::tick::clock,
        })
        .unwrap();
        let pid = std::process::id();
        let question = |handle| Question {
            handle: LeaseHandle(handle),
            subject: Subject {
                pid,
                tids: [pid, 0, 0, 0, 0, 0, 0, 0],
                own: Own {
                    cookie: 0,
                    grantor: "192.0.2.1:1".parse().unwrap(),
                },
                path: false,
                next_tid: 0,
                owes_answer: false,
            },
        };
        let mut missing: std::collections::BTreeSet<_> = (0..500).collect();
        // Bounded work a second for the helper; a minute is slack for a loaded machine. As the tick
        // does: asked again is what was not answered, for a question may be lost.
        for _ in 0..60 {
            let mut asked = missing.clone().into_iter().peekable();
            for _ in 0..100 {
                while asked.next_if(|next| helper.ask(question(*next))).is_some() {}
                helper.wake();
                thread::park_timeout(Duration::from_millis(10));
                while let Some(answer) = helper.answer() {
                    missing.remove(&answer.handle.0);
                }
                if missing.is_empty() {
                    return;
                }
            }
        }
        panic!("never answered: {missing:?}");
    }
}
