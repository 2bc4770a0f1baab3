//! The disk: the only thread of the recorder that may hang on one.
//!
//! In: jobs, in order. Out: files. Never: a wait that anyone else feels; what waits here while the disk hangs
//! is bounded by bytes and written when it is back. A file that cannot be written is said once and tried again
//! with the next one.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::{Plan, lock};
use crate::sinks::events::wall_clock;
use crate::tick::clock;

/// Bytes that may wait for the disk: four times the ring, which is more than it fills in any time that it
/// spans.
const MOST_WAITING: usize = 16 << 20;
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
    /// Go on with it.
    Append(Target, Arc<[u8]>),
    /// It is whole.
    Close(Target),
    /// No more will come.
    End,
}

impl Job {
    fn len(&self) -> usize {
        match self {
            Self::Open(_, bytes) | Self::Append(_, bytes) => bytes.len(),
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
    /// Adds one; a block that finds too much waiting is dropped, and said.
    pub fn put(&self, job: Job) {
        let mut waiting = lock(&self.waiting);
        if waiting.1 + job.len() > MOST_WAITING {
            drop(waiting);
            tracing::warn!("the recorder's disk hangs: a block is lost");
            return;
        }
        waiting.1 += job.len();
        waiting.0.push_back(job);
        drop(waiting);
        self.come.notify_one();
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
        all: None,
        rolling: None,
        incident: None,
        rolling_begins: Arc::from([]),
        rolling_bytes: 0,
        complained: false,
    };
    loop {
        let outcome = match jobs.take() {
            Job::Open(target, bytes) => disk.open(target, &bytes),
            Job::Append(target, bytes) => disk.append(target, &bytes),
            Job::Close(target) => {
                *disk.slot(target) = None;
                disk.tidy()
            }
            Job::End => return,
        };
        match outcome {
            Ok(()) => disk.complained = false,
            Err(error) if !disk.complained => {
                disk.complained = true;
                tracing::error!(%error, "the recorder cannot write");
            }
            Err(_) => {}
        }
    }
}

struct Disk {
    plan: Plan,
    all: Option<File>,
    rolling: Option<File>,
    incident: Option<File>,
    rolling_begins: Arc<[u8]>,
    rolling_bytes: u64,
    complained: bool,
}

impl Disk {
    fn slot(&mut self, target: Target) -> &mut Option<File> {
        match target {
            Target::All => &mut self.all,
            Target::Rolling => &mut self.rolling,
            Target::Incident => &mut self.incident,
        }
    }

    fn open(&mut self, target: Target, bytes: &[u8]) -> io::Result<()> {
        let path = match (target, &self.plan.dir) {
            (Target::All, _) => self.plan.all.clone(),
            (_, None) => None,
            (Target::Rolling, Some((dir, _))) => {
                fs::create_dir_all(dir)?;
                let path = dir.join("rolling.lwr");
                if path.exists() {
                    fs::rename(&path, dir.join("rolling.1.lwr"))?;
                }
                self.rolling_begins = bytes.into();
                self.rolling_bytes = 0;
                Some(path)
            }
            (Target::Incident, Some((dir, _))) => {
                fs::create_dir_all(dir)?;
                Some(unused(dir))
            }
        };
        let Some(path) = path else { return Ok(()) };
        let mut file = File::create(&path).map_err(|error| named(&path, &error))?;
        file.write_all(bytes)
            .map_err(|error| named(&path, &error))?;
        *self.slot(target) = Some(file);
        if target == Target::Incident {
            tracing::warn!("recording to {}", path.display());
            self.tidy()?;
        }
        Ok(())
    }

    fn append(&mut self, target: Target, bytes: &[u8]) -> io::Result<()> {
        if target == Target::Rolling {
            self.rolling_bytes += bytes.len() as u64;
            let most = self
                .plan
                .dir
                .as_ref()
                .map_or(u64::MAX, |(_, keep)| keep / ROLLING_SHARE / 2);
            if self.rolling_bytes > most || self.rolling.is_none() {
                let begins = Arc::clone(&self.rolling_begins);
                self.open(Target::Rolling, &begins)?;
            }
        }
        match self.slot(target) {
            Some(file) => file.write_all(bytes),
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

/// A name that sorts by time and is not taken.
fn unused(dir: &Path) -> PathBuf {
    let now = humantime::format_rfc3339_millis(wall_clock(clock())).to_string();
    let now = now.replace([':', '-'], "").replace('.', "_");
    dir.join(format!("incident-{now}.lwr"))
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
