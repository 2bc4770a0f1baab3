//! The disk: the only thread of the recorder that may hang on one.
//!
//! In: jobs, in order. Out: files. Never: a wait that anyone else feels; what waits here while the disk hangs
//! is bounded by bytes and written when it is back. A disk that is full is said once; what an incident's file
//! could not take is kept and tried again with each block, and a file never holds half a block.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::{Plan, lock};
use crate::sinks::events::wall_clock;
use crate::tick::clock;

/// Bytes that may wait for the disk: four times the ring, which is more than it fills in any time that it
/// spans.
const MOST_WAITING: usize = 16 << 20;
/// Bytes of a file that found no room and are kept for when there is some: twice the ring.
const MOST_UNWRITTEN: usize = 8 << 20;
/// The rolling file has this part of what may be kept, in two generations.
const ROLLING_SHARE: u64 = 8;

/// Which file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Everything, `--record-all`.
    All,
    /// The rolling one.
    Rolling,
    /// An incident.
    Incident,
}

/// What to do.
#[derive(Debug)]
pub(super) enum Job {
    /// Begin a file with these bytes.
    Open(Target, Arc<[u8]>),
    /// Go on with it: a block, and how many calls are in it.
    Append(Target, Arc<[u8]>, u32),
    /// It is whole.
    Close(Target),
    /// No more will come.
    End,
}

impl Job {
    fn len(&self) -> usize {
        match self {
            Self::Open(_, bytes) | Self::Append(_, bytes, _) => bytes.len(),
            Self::Close(_) | Self::End => 0,
        }
    }

    /// Calls that are lost with it; of a file's beginning, which has many, at least one.
    pub(super) fn calls(&self) -> u64 {
        match self {
            Self::Open(..) => 1,
            Self::Append(_, _, calls) => (*calls).into(),
            Self::Close(_) | Self::End => 0,
        }
    }
}

/// Jobs that wait.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    waiting: Mutex<(VecDeque<Job>, usize)>,
    come: Condvar,
}

impl Jobs {
    /// Adds one; whether it could: a block that finds too much waiting is dropped, and that is said.
    pub fn put(&self, job: Job) -> bool {
        let mut waiting = lock(&self.waiting);
        if waiting.1 + job.len() > MOST_WAITING {
            drop(waiting);
            tracing::warn!("the recorder's disk hangs: a block is lost");
            return false;
        }
        waiting.1 += job.len();
        waiting.0.push_back(job);
        drop(waiting);
        self.come.notify_one();
        true
    }

    fn take(&self) -> Job {
        let mut waiting = lock(&self.waiting);
        loop {
            if let Some(job) = waiting.0.pop_front() {
                waiting.1 -= job.len();
                return job;
            }
            waiting = self
                .come
                .wait(waiting)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Writes until the end.
pub(super) fn run(jobs: &Jobs, plan: Plan) {
    let mut disk = Disk {
        plan,
        all: Output::default(),
        rolling: None,
        incident: Output::default(),
        rolling_begins: Arc::from([]),
        rolling_bytes: 0,
        complained: false,
    };
    loop {
        let job = jobs.take();
        let calls = job.calls();
        let outcome = match job {
            Job::Open(Target::Rolling, bytes) => disk.lose(calls, |disk| disk.open_rolling(&bytes)),
            Job::Append(Target::Rolling, bytes, _) => {
                disk.lose(calls, |disk| disk.append_rolling(&bytes))
            }
            Job::Close(Target::Rolling) => Ok(()),
            Job::Open(target, bytes) => {
                *disk.output(target) = Output::default();
                disk.keep(target, &bytes, calls)
            }
            Job::Append(target, bytes, _) => disk.keep(target, &bytes, calls),
            Job::Close(target) => disk.close(target),
            Job::End => {
                for target in [Target::All, Target::Incident] {
                    if let Err(error) = disk.close(target) {
                        tracing::error!(%error, "the recorder's last words are not written");
                    }
                }
                return;
            }
        };
        match outcome {
            Ok(()) => disk.complained = false,
            Err(error) => {
                if !disk.complained {
                    disk.complained = true;
                    tracing::error!(%error, "the recorder cannot write");
                }
            }
        }
    }
}

/// A file that waits for room where there is none.
#[derive(Debug, Default)]
struct Output {
    file: Option<File>,
    unwritten: Vec<u8>,
    /// Calls in it.
    calls: u64,
}

struct Disk {
    plan: Plan,
    all: Output,
    rolling: Option<File>,
    incident: Output,
    rolling_begins: Arc<[u8]>,
    rolling_bytes: u64,
    complained: bool,
}

impl Disk {
    fn output(&mut self, target: Target) -> &mut Output {
        match target {
            Target::All => &mut self.all,
            Target::Rolling | Target::Incident => &mut self.incident,
        }
    }

    /// Calls that are lost if this fails.
    fn lose(
        &mut self,
        calls: u64,
        act: impl FnOnce(&mut Self) -> io::Result<()>,
    ) -> io::Result<()> {
        act(self).inspect_err(|_| self.plan.lost.inc_by(calls))
    }

    /// Writes to a file, or keeps it for when that can be.
    fn keep(&mut self, target: Target, bytes: &[u8], calls: u64) -> io::Result<()> {
        let output = self.output(target);
        if output.unwritten.len() + bytes.len() > MOST_UNWRITTEN {
            self.plan.lost.inc_by(calls);
        } else {
            output.unwritten.extend_from_slice(bytes);
            output.calls += calls;
        }
        self.write_kept(target)
    }

    fn write_kept(&mut self, target: Target) -> io::Result<()> {
        if self.output(target).file.is_none() {
            let Some(path) = self.place(target)? else {
                *self.output(target) = Output::default();
                return Ok(());
            };
            let file = File::create(&path).map_err(|error| named(&path, &error))?;
            if let Err(error) = self.fill(target, file) {
                // An incident's file without its beginning is none. What the user has named stays.
                if target == Target::Incident {
                    self.output(target).file = None;
                    fs::remove_file(&path)?;
                }
                return Err(named(&path, &error));
            }
            if target == Target::Incident {
                tracing::warn!("recording to {}", path.display());
                self.tidy()?;
            }
            return Ok(());
        }
        match self.output(target).file.take() {
            Some(file) => self.fill(target, file),
            None => Ok(()),
        }
    }

    /// Writes what is kept to its file.
    fn fill(&mut self, target: Target, mut file: File) -> io::Result<()> {
        let output = self.output(target);
        let outcome = write_whole(&mut file, &output.unwritten);
        output.file = Some(file);
        if outcome.is_ok() {
            output.unwritten = Vec::new();
            output.calls = 0;
        }
        outcome
    }

    fn close(&mut self, target: Target) -> io::Result<()> {
        let outcome = match self.output(target).unwritten.is_empty() {
            true => Ok(()),
            false => self.write_kept(target),
        };
        let left = std::mem::take(self.output(target));
        self.plan.lost.inc_by(left.calls);
        outcome?;
        self.tidy()
    }

    /// Where a file is to lie; None: it is not wanted.
    fn place(&self, target: Target) -> io::Result<Option<PathBuf>> {
        match (target, &self.plan.dir) {
            (Target::All, _) => Ok(self.plan.all.clone()),
            (_, None) => Ok(None),
            (_, Some((dir, _))) => {
                fs::create_dir_all(dir)?;
                Ok(Some(unused(dir)))
            }
        }
    }

    fn open_rolling(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some((dir, _)) = &self.plan.dir else {
            return Ok(());
        };
        fs::create_dir_all(dir)?;
        let path = dir.join("rolling.lwr");
        self.rolling = None;
        if path.exists() {
            fs::rename(&path, dir.join("rolling.1.lwr"))?;
        }
        self.rolling_begins = bytes.into();
        self.rolling_bytes = 0;
        let mut file = File::create(&path).map_err(|error| named(&path, &error))?;
        file.write_all(bytes)
            .map_err(|error| named(&path, &error))?;
        self.rolling = Some(file);
        Ok(())
    }

    fn append_rolling(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some((_, keep)) = &self.plan.dir else {
            return Ok(());
        };
        self.rolling_bytes += bytes.len() as u64;
        if self.rolling_bytes > keep / ROLLING_SHARE / 2 || self.rolling.is_none() {
            let begins = Arc::clone(&self.rolling_begins);
            self.open_rolling(&begins)?;
        }
        match &mut self.rolling {
            Some(file) => write_whole(file, bytes),
            None => Ok(()),
        }
    }

    /// Removes the oldest incidents above what may be kept; the newest stays.
    fn tidy(&self) -> io::Result<()> {
        let Some((dir, keep)) = &self.plan.dir else {
            return Ok(());
        };
        let most = keep - keep / ROLLING_SHARE;
        let mut incidents: Vec<(PathBuf, u64)> = fs::read_dir(dir)?
            .filter_map(Result::ok)
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("incident-"))
            .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?.len())))
            .collect();
        // Their names are times.
        incidents.sort();
        let mut total: u64 = incidents.iter().map(|(_, size)| size).sum();
        incidents.pop();
        for (path, size) in incidents {
            if total <= most {
                break;
            }
            fs::remove_file(&path)?;
            total -= size;
        }
        Ok(())
    }
}

/// All of it or nothing: what is read stops at half a block, whatever comes after. What is no regular file has no
/// place to go back to.
fn write_whole(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    let is_regular = file.metadata()?.is_file();
    let begin = if is_regular {
        file.stream_position()?
    } else {
        0
    };
    let outcome = file.write_all(bytes);
    if outcome.is_err() && is_regular {
        file.set_len(begin)?;
        file.seek(SeekFrom::Start(begin))?;
    }
    outcome
}

/// A name that sorts by time and is not taken.
fn unused(dir: &Path) -> PathBuf {
    let now = humantime::format_rfc3339_millis(wall_clock(clock())).to_string();
    let now = now.replace([':', '-'], "").replace('.', "_");
    dir.join(format!("incident-{now}.lwr"))
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsRawFd as _, FromRawFd as _};

    use super::*;

    /// A file that cannot grow: what does not fit is cut off in its middle, as on a full disk.
    #[test]
    fn what_does_not_fit_leaves_nothing_of_it() {
        // SAFETY: a name that ends in a zero; the descriptor is this file's alone.
        let mut file = unsafe {
            let number = libc::memfd_create(c"full".as_ptr(), libc::MFD_ALLOW_SEALING);
            assert!(number >= 0, "{}", io::Error::last_os_error());
            File::from_raw_fd(number)
        };
        file.set_len(8_192).unwrap();
        // SAFETY: numbers alone, of a descriptor that is open.
        let sealed = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, libc::F_SEAL_GROW) };
        assert_eq!(sealed, 0, "{}", io::Error::last_os_error());
        write_whole(&mut file, b"abc").unwrap();
        write_whole(&mut file, &[b'x'; 10_000]).unwrap_err();
        assert_eq!(file.metadata().unwrap().len(), 3);
        assert_eq!(file.stream_position().unwrap(), 3);
    }
}
