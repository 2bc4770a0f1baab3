//! Looks up where processes run, for a thread that must not wait.
//!
//! In: process ids, one at a time. Out: their [`Place`], or None where procfs takes longer than
//! `PATIENCE`: the next line of that process asks again. What was found holds for a second: a process
//! that opens a thousand sessions a second is looked up once. A thread that hangs is asked nothing
//! until it has come back. Never: a wait beyond that, or more threads than the one.

use std::collections::HashMap;
use std::io;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use watchdog_model::Mono;
use watchdog_model::time::SECOND;

use super::place::Place;
use crate::priority::{self, Priority};
use crate::relay::{self, Sender};

/// A look takes a tenth of a millisecond.
const PATIENCE: Duration = Duration::from_millis(30);
/// A process that moves to another cgroup is said to be in the old one for no longer than this.
const HOLDS_NS: u64 = SECOND;
/// Processes of which the place is known at a time.
const KNOWN: usize = 256;

/// Who looks.
pub struct Places {
    questions: Sender<u32>,
    answers: Receiver<(u32, Place)>,
    /// Questions without an answer.
    open: usize,
    known: HashMap<u32, (Mono, Place)>,
}

impl Places {
    /// Starts the thread.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start() -> io::Result<Self> {
        Self::with(Place::of)
    }

    fn with(look: fn(u32) -> Place) -> io::Result<Self> {
        let (answer, answers) = sync_channel(1);
        let run = move |pids: relay::Receiver<u32>| {
            // Never more than one question at a time, of one that waits: no more than that one works.
            priority::take(Priority::Alert);
            while let Some(pid) = pids.next() {
                if answer.send((pid, look(pid))).is_err() {
                    return;
                }
            }
        };
        Ok(Self {
            questions: relay::spawn("places", 128 * 1024, 1, run)?,
            answers,
            open: 0,
            known: HashMap::new(),
        })
    }

    /// Where a process runs; None: not known yet.
    pub fn of(&mut self, pid: u32, now: Mono) -> Option<Place> {
        if let Some((at, place)) = self.known.get(&pid)
            && now.since(*at) < HOLDS_NS
        {
            return Some(place.clone());
        }
        let place = self.ask(pid)?;
        if self.known.len() >= KNOWN {
            self.known.retain(|_, (at, _)| now.since(*at) < HOLDS_NS);
        }
        if self.known.len() < KNOWN {
            self.known.insert(pid, (now, place.clone()));
        }
        Some(place)
    }

    fn ask(&mut self, pid: u32) -> Option<Place> {
        while self.open > 0 {
            let (late, place) = self.answers.try_recv().ok()?;
            self.open -= 1;
            if late == pid {
                return Some(place);
            }
        }
        self.questions.send(pid).ok()?;
        self.open += 1;
        let (_, place) = self.answers.recv_timeout(PATIENCE).ok()?;
        self.open -= 1;
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU32, Ordering};

    static HANGS: Mutex<()> = Mutex::new(());

    #[test]
    fn a_process_is_looked_up_once_a_second_however_many_are_known() {
        static LOOKS: AtomicU32 = AtomicU32::new(0);
        fn look(pid: u32) -> Place {
            LOOKS.fetch_add(1, Ordering::Relaxed);
            Place {
                inner_pid: Some(pid + 1),
                ..Place::default()
            }
        }
        let mut places = Places::with(look).unwrap();
        let mut ask = |pid, at| {
            // A loaded machine may take longer than its patience.
            let place = loop {
                if let Some(place) = places.of(pid, at) {
                    break place;
                }
            };
            assert_eq!(place.inner_pid, Some(pid + 1));
            LOOKS.swap(0, Ordering::Relaxed)
        };
        let begun = Mono(SECOND);
        assert!(ask(7, begun) > 0);
        assert_eq!(ask(7, begun.plus(SECOND - 1)), 0);
        assert!(ask(7, begun.plus(SECOND)) > 0);
        for pid in 0..3 * KNOWN as u32 {
            ask(pid, begun.plus(SECOND));
        }
        // What was known long ago makes room.
        assert!(ask(9_000, begun.plus(3 * SECOND)) > 0);
        assert_eq!(ask(9_000, begun.plus(3 * SECOND)), 0);
    }

    #[test]
    fn one_that_hangs_is_asked_again_when_it_is_back() {
        let place = |pid: u32| Place {
            inner_pid: Some(pid + 1),
            ..Place::default()
        };
        fn look(pid: u32) -> Place {
            let _waited = HANGS.lock();
            Place {
                inner_pid: Some(pid + 1),
                ..Place::default()
            }
        }
        let mut places = Places::with(look).unwrap();
        let soon = |places: &mut Places, pid| {
            let until = crate::tick::clock().plus(60 * SECOND);
            loop {
                if let Some(place) = places.of(pid, crate::tick::clock()) {
                    return place;
                }
                assert!(crate::tick::clock() < until, "never answered");
            }
        };
        assert_eq!(soon(&mut places, 1), place(1));
        let hanging = HANGS.lock().unwrap();
        let begun = crate::tick::clock();
        assert_eq!(places.of(2, begun), None);
        let begun = crate::tick::clock();
        assert_eq!(places.of(3, begun), None);
        // Not even its patience: the thread is known to hang.
        assert!(crate::tick::clock().since(begun) < SECOND);
        drop(hanging);
        assert_eq!(soon(&mut places, 3), place(3));
        assert_eq!(soon(&mut places, 2), place(2));
    }
}
