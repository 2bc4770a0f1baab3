//! Whose calls of a TLS library are watched: of processes that own a flow inside TLS, and while they do.
//!
//! In: process ids, from the tick, again and again while the process owns such a flow. Out: probes on its
//! library's calls, wherever in its mappings that is: libssl, a library that carries its own, or the program
//! itself. A process without such functions (Java, Go, rustls) is left alone, and so is one that calls them so
//! often that watching would cost more than it tells: their flows are followed by timing. Never: a file
//! touched by the tick.

use std::{
    collections::HashMap,
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::Duration,
};

use crossbeam_queue::ArrayQueue;
use procfs::process::{MMPermissions, MMapPath, Process};
use watchdog_model::{Mono, time::SECOND};

use super::library;
use crate::kernel::plaintext::{Attached, Attacher, Function, Library};

/// Processes that may wait to be looked at; one that does not fit is named again.
const WAITING: usize = 64;
/// How often the tick names a process again.
const TELL_EVERY_NS: u64 = SECOND;
/// Processes that the tick remembers to have named.
const TOLD: usize = 512;
/// How often the thread looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often it looks after those that it has attached to.
const TEND_EVERY_NS: u64 = SECOND;
/// How long after its last flow a process stays attached: it may come back, and its handshake be seen.
const LINGER_NS: u64 = 60 * SECOND;
/// A library may be loaded later; then it is looked for again, ever less often up to this.
const LOOK_AGAIN_NS: u64 = 30 * SECOND;
/// Two probes and a look a call are some 3 µs: so many calls a second are well below one percent of a core …
const CALLS_MOST: u64 = 2_000;
/// … and whoever makes more for so many seconds is left alone …
const BUSY_FOR: u32 = 3;
/// … for so long.
const LEFT_ALONE_NS: u64 = 600 * SECOND;
/// Files whose functions are remembered.
const FILES: usize = 4_096;

/// The tick's end.
#[derive(Debug)]
pub struct Wants {
    queue: Arc<ArrayQueue<u32>>,
    told: HashMap<u32, Mono>,
}

impl Wants {
    /// This process owns a flow inside TLS.
    pub fn want(&mut self, pid: u32, now: Mono) {
        if let Some(told) = self.told.get_mut(&pid) {
            if now.since(*told) < TELL_EVERY_NS {
                return;
            }
            *told = now;
        } else {
            if self.told.len() >= TOLD {
                self.told.clear();
            }
            self.told.insert(pid, now);
        }
        // Full: it is named again.
        let _ = self.queue.push(pid);
    }
}

/// Starts the thread, with the rights of the calling one. `settle` is called on it first.
///
/// # Errors
/// It cannot be made.
pub fn start(
    attacher: Attacher,
    clock: fn() -> Mono,
    settle: impl FnOnce() + Send + 'static,
) -> io::Result<Wants> {
    let queue = Arc::new(ArrayQueue::new(WAITING));
    let wanted = Arc::downgrade(&queue);
    std::thread::Builder::new()
        .name("tls".into())
        .stack_size(256 * 1024)
        .spawn(move || {
            settle();
            Watch::new(attacher, clock).run(&wanted);
        })?;
    Ok(Wants {
        queue,
        told: HashMap::with_capacity(2 * TOLD),
    })
}

/// How it stands with one process.
enum State {
    /// Attached; how many calls it had made when last looked at, and for how many looks it was too busy.
    On {
        attached: Attached,
        calls: u64,
        busy: u32,
    },
    /// Not attached, and not to be tried again before then.
    Off { until: Mono, again_ns: u64 },
}

struct Known {
    /// Tells it from another that gets its number (/proc/PID/stat, field 22).
    started: u64,
    wanted: Mono,
    state: State,
}

/// Device, inode, size, and when it was changed.
type FileId = (u64, u64, u64, i64);

struct Watch {
    attacher: Attacher,
    clock: fn() -> Mono,
    known: HashMap<u32, Known>,
    files: HashMap<FileId, Vec<(Function, u64)>>,
}

impl Watch {
    fn new(attacher: Attacher, clock: fn() -> Mono) -> Self {
        Self {
            attacher,
            clock,
            known: HashMap::new(),
            files: HashMap::new(),
        }
    }

    /// Ends when the tick's end is gone.
    fn run(&mut self, wanted: &Weak<ArrayQueue<u32>>) {
        let mut tended = (self.clock)();
        while let Some(queue) = wanted.upgrade() {
            let now = (self.clock)();
            while let Some(pid) = queue.pop() {
                self.wanted(pid, now);
            }
            drop(queue);
            if self.attacher.is_over() {
                return;
            }
            if now.since(tended) >= TEND_EVERY_NS {
                tended = now;
                self.tend(now);
            }
            std::thread::park_timeout(LOOK_EVERY);
        }
    }

    fn wanted(&mut self, pid: u32, now: Mono) {
        let Some(started) = started(pid) else {
            self.forget(pid);
            return;
        };
        if self
            .known
            .get(&pid)
            .is_some_and(|known| known.started != started)
        {
            self.forget(pid);
        }
        let again_ns = match self.known.get_mut(&pid) {
            None => TEND_EVERY_NS,
            Some(known) => {
                known.wanted = now;
                match known.state {
                    State::On { .. } => return,
                    State::Off { until, .. } if now < until => return,
                    State::Off { again_ns, .. } => (2 * again_ns).min(LOOK_AGAIN_NS),
                }
            }
        };
        let state = self.attach(pid).map_or(
            State::Off {
                until: now.plus(again_ns),
                again_ns,
            },
            |attached| State::On {
                attached,
                calls: 0,
                busy: 0,
            },
        );
        let known = Known {
            started,
            wanted: now,
            state,
        };
        self.known.insert(pid, known);
    }

    fn attach(&mut self, pid: u32) -> Option<Attached> {
        let libraries = self
            .libraries(pid)
            .inspect_err(|error| tracing::debug!(pid, %error, "its mappings cannot be read"))
            .ok()?;
        if libraries.is_empty() {
            tracing::debug!(
                pid,
                "no TLS library with OpenSSL's calls; followed by timing"
            );
            return None;
        }
        self.attacher
            .attach(pid, &libraries, self.clock)
            .inspect(|_| {
                let path = libraries[0].path.display();
                tracing::info!(pid, %path, "plaintext is had from its calls of its TLS library");
            })
            .inspect_err(|why| {
                tracing::warn!(pid, why, "its calls of its TLS library cannot be seen")
            })
            .ok()
    }

    fn tend(&mut self, now: Mono) {
        let mut over = Vec::new();
        for (pid, known) in &mut self.known {
            let gone = started(*pid) != Some(known.started);
            if gone || now.since(known.wanted) > LINGER_NS {
                over.push(*pid);
                continue;
            }
            let State::On {
                attached: _,
                calls,
                busy,
            } = &mut known.state
            else {
                continue;
            };
            let all = self.attacher.calls(*pid).unwrap_or(*calls);
            let is_busy = all.saturating_sub(*calls) > CALLS_MOST;
            *calls = all;
            *busy = if is_busy { *busy + 1 } else { 0 };
            if *busy < BUSY_FOR {
                continue;
            }
            tracing::warn!(
                pid,
                "makes more than {CALLS_MOST} TLS calls a second: left alone, its leases are followed by timing"
            );
            let off = State::Off {
                until: now.plus(LEFT_ALONE_NS),
                again_ns: LOOK_AGAIN_NS,
            };
            if let State::On { attached, .. } = std::mem::replace(&mut known.state, off) {
                self.attacher.detach(attached);
            }
        }
        for pid in over {
            self.forget(pid);
        }
    }

    fn forget(&mut self, pid: u32) {
        if let Some(Known {
            state: State::On { attached, .. },
            ..
        }) = self.known.remove(&pid)
        {
            self.attacher.detach(attached);
        }
    }

    /// What the process has mapped to run and has a TLS library's functions in it.
    fn libraries(&mut self, pid: u32) -> io::Result<Vec<Library>> {
        let process = process(pid)?;
        let maps = process.maps().map_err(io::Error::other)?;
        let mut seen = Vec::new();
        let mut found = Vec::new();
        for map in maps {
            let MMapPath::Path(path) = &map.pathname else {
                continue;
            };
            if !map.perms.contains(MMPermissions::EXECUTE) || seen.contains(&map.inode) {
                continue;
            }
            seen.push(map.inode);
            // As the process sees it: it may live on a root of its own.
            let place = PathBuf::from(format!("/proc/{pid}/root"))
                .join(path.strip_prefix("/").unwrap_or(path));
            let functions = match self.functions(&place) {
                Ok(functions) if is_enough(&functions) => functions,
                Ok(_) => continue,
                Err(error) => {
                    tracing::debug!(path = %place.display(), %error, "cannot be read");
                    continue;
                }
            };
            found.push(Library {
                path: place,
                functions,
            });
        }
        Ok(found)
    }

    fn functions(&mut self, path: &Path) -> io::Result<Vec<(Function, u64)>> {
        let file = library::open(path)?;
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Ok(Vec::new());
        }
        let id = (
            meta.dev(),
            meta.ino(),
            meta.size(),
            meta.ctime_nsec() ^ meta.ctime(),
        );
        if let Some(known) = self.files.get(&id) {
            return Ok(known.clone());
        }
        let functions = library::functions(file);
        if self.files.len() >= FILES {
            self.files.clear();
        }
        self.files.insert(id, functions.clone());
        Ok(functions)
    }
}

/// Whether both ways can be seen.
fn is_enough(functions: &[(Function, u64)]) -> bool {
    let has = |wanted: [Function; 2]| functions.iter().any(|(one, _)| wanted.contains(one));
    has([Function::Write, Function::WriteEx]) && has([Function::Read, Function::ReadEx])
}

fn process(pid: u32) -> io::Result<Process> {
    let pid = i32::try_from(pid).map_err(io::Error::other)?;
    Process::new(pid).map_err(io::Error::other)
}

fn started(pid: u32) -> Option<u64> {
    Some(process(pid).ok()?.stat().ok()?.starttime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_has_its_functions_where_its_segments_say() {
        let maps = process(std::process::id()).unwrap().maps().unwrap();
        let own = maps
            .into_iter()
            .find_map(|map| match map.pathname {
                MMapPath::Path(path) if path.ends_with("libc.so.6") => Some(path),
                _ => None,
            })
            .expect("this test uses libc");
        // No TLS library, but an ELF file with many functions.
        assert!(library::functions(library::open(&own).unwrap()).is_empty());
        let text = tempfile::NamedTempFile::new().unwrap();
        assert!(library::functions(text.reopen().unwrap()).is_empty());
    }

    #[test]
    fn only_a_library_that_both_reads_and_writes_is_one() {
        let at = |all: &[Function]| all.iter().map(|one| (*one, 1)).collect::<Vec<_>>();
        assert!(is_enough(&at(&[Function::Read, Function::WriteEx])));
        assert!(!is_enough(&at(&[Function::Read, Function::ReadEx])));
        assert!(!is_enough(&at(&[Function::Write, Function::Free])));
    }

    #[test]
    fn a_process_is_named_once_a_second() {
        let mut wants = Wants {
            queue: Arc::new(ArrayQueue::new(WAITING)),
            told: HashMap::with_capacity(2 * TOLD),
        };
        for now in [0, 1, TELL_EVERY_NS - 1, TELL_EVERY_NS] {
            wants.want(7, Mono(now));
        }
        assert_eq!(wants.queue.len(), 2);
        for pid in 0..3 * TOLD as u32 {
            wants.want(pid, Mono(2 * TELL_EVERY_NS));
        }
        assert_eq!(wants.queue.len(), WAITING);
    }
}
