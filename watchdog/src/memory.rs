//! What is kept of flows over a restart: session id, timeout and cadence, by socket cookie,
//! addresses and boot id, in a file of the state directory. An upgrade must not blind the fleet.
//!
//! In: the tick's snapshots, handed over without waiting. Out: a file that is whole at any moment
//! (written beside and renamed), and what an earlier run had written. Never: a file touched by the
//! tick; knowledge of another boot.

use std::{
    collections::HashMap,
    fs, io,
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use watchdog_model::leases::{
    book::Book,
    note::LeaseId,
    observation::{self, Role, TimeoutSource},
};

use crate::tick::flows::{Flow, FlowTable};

/// Locked by the daemon that keeps its memory here.
const LOCK: &str = "lock";
const FILE: &str = "flows.json";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// One flow as kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    cookie: u64,
    holder: bool,
    local: SocketAddr,
    peer: SocketAddr,
    session: u64,
    timeout_ns: u64,
    timeout_source: Source,
    cadence_ns: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Source {
    Inferred,
    Config,
    Handshake,
}

impl Record {
    /// Whether it says no more than this one. A cadence is learned anew with every keepalive, and never
    /// quite the same: that alone is no reason to write a file.
    fn is_as_good_as(&self, other: &Self) -> bool {
        let strayed = self.cadence_ns.abs_diff(other.cadence_ns);
        let known = (self.cadence_ns == 0) == (other.cadence_ns == 0);
        let close = known && strayed <= other.cadence_ns / CADENCE_STRAYS;
        close
            && *self
                == Self {
                    cadence_ns: self.cadence_ns,
                    ..other.clone()
                }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Kept<Flows = Vec<Record>> {
    boot_id: String,
    flows: Flows,
}

/// What an earlier run knew.
#[derive(Debug, Default)]
pub struct Remembered {
    flows: HashMap<u64, Record>,
}

impl Remembered {
    /// Reads the file; what is not there, not whole or of another boot is nothing.
    #[must_use]
    pub fn load(dir: &Path) -> Self {
        let Ok(text) = fs::read(dir.join(FILE)) else {
            return Self::default();
        };
        let kept: Kept = match serde_json::from_slice(&text) {
            Ok(kept) => kept,
            Err(error) => {
                tracing::warn!(file = %dir.join(FILE).display(), %error, "known flows unreadable");
                return Self::default();
            }
        };
        if kept.boot_id != boot_id() {
            return Self::default();
        }
        let flows = kept
            .flows
            .into_iter()
            .map(|record| (record.cookie, record))
            .collect();
        Self { flows }
    }

    /// How many flows were known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// Whether none was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// What was known of this flow. A cookie is unique within a boot; the addresses are compared
    /// as well.
    #[must_use]
    pub fn of(&self, flow: &Flow) -> Option<observation::Remembered> {
        let record = self.flows.get(&flow.cookie)?;
        let seen = &flow.observation;
        if record.local != seen.endpoints.local
            || record.peer != seen.endpoints.peer
            || record.holder != (seen.role == Role::Holder)
        {
            return None;
        }
        Some(observation::Remembered {
            session: record.session,
            timeout_ns: record.timeout_ns,
            timeout_source: match record.timeout_source {
                Source::Inferred => TimeoutSource::Inferred,
                Source::Config => TimeoutSource::Config,
                Source::Handshake => TimeoutSource::Handshake,
            },
            cadence_ns: record.cadence_ns,
        })
    }
}

/// Where the tick leaves what is to be kept.
#[derive(Clone, Debug, Default)]
pub struct Slate(Arc<Mutex<Left>>);

#[derive(Debug, Default)]
struct Left {
    records: Vec<Record>,
    /// Whether the writer has not looked at them yet.
    is_new: bool,
}

impl Slate {
    /// Leaves the state of all flows; does nothing if the writer is at it just now.
    pub fn leave(&self, flows: &FlowTable, book: &Book) {
        let Ok(mut left) = self.0.try_lock() else {
            return;
        };
        left.is_new = true;
        let records = &mut left.records;
        records.clear();
        for flow in flows.iter() {
            let seen = &flow.observation;
            if seen.closed.is_some() {
                continue;
            }
            let Some(lease) = book.carried(seen.key) else {
                continue;
            };
            records.push(Record {
                cookie: flow.cookie,
                holder: seen.role == Role::Holder,
                local: seen.endpoints.local,
                peer: seen.endpoints.peer,
                session: match lease.id {
                    LeaseId::Session(id) => id,
                    LeaseId::Flow { .. } => 0,
                },
                timeout_ns: lease.timeout_ns.unwrap_or(0),
                timeout_source: match lease.timeout_source {
                    TimeoutSource::Inferred => Source::Inferred,
                    TimeoutSource::Config => Source::Config,
                    TimeoutSource::Handshake => Source::Handshake,
                },
                cadence_ns: lease.learned_cadence_ns.unwrap_or(0),
            });
        }
    }

    /// Room for as many flows as can be, so that the tick never allocates.
    #[must_use]
    pub fn with_capacity(flows: usize) -> Self {
        Self(Arc::new(Mutex::new(Left {
            records: Vec::with_capacity(flows),
            is_new: false,
        })))
    }

    /// Copies what was left into `into`, unless it says nothing new. Whether it does.
    fn take(&self, into: &mut Vec<Record>) -> bool {
        // A poisoned lock only means that the tick died while it wrote; what is there is whole
        // records.
        let left = self.0.lock();
        let mut left = left.unwrap_or_else(std::sync::PoisonError::into_inner);
        if !std::mem::take(&mut left.is_new) {
            return false;
        }
        let says_nothing_new = left.records.len() == into.len()
            && left
                .records
                .iter()
                .zip(&*into)
                .all(|(new, old)| new.is_as_good_as(old));
        if says_nothing_new {
            return false;
        }
        into.clone_from(&left.records);
        true
    }
}

/// How often the writer looks for changes: what a kill loses, with few flows.
const WRITE_EVERY: Duration = Duration::from_millis(200);
/// With many a file takes milliseconds: the next one then waits for so many times as long, which is two
/// percent of a core.
const REST: u32 = 50;
/// A cadence is as good as another that differs by no more than this part of it. What is late is judged
/// by margins of a twelfth of the timeout and more.
const CADENCE_STRAYS: u64 = 16;

/// Claims the directory for as long as the file is held; whatever ends the process gives it free. None: there is
/// no such directory, or it cannot be locked, and nothing will be kept there.
///
/// # Errors
/// Another daemon has it.
pub fn claim(dir: &Path) -> Result<Option<fs::File>, String> {
    let open = || {
        fs::create_dir_all(dir)?;
        let mut options = fs::OpenOptions::new();
        // For nobody else: whoever may open it may lock it.
        options.create(true).truncate(false).write(true).mode(0o600);
        options.open(dir.join(LOCK))
    };
    let Ok(file) = open() else {
        return Ok(None);
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Err(format!(
            "state directory {shown}: another lease-watchdog is running with it; stop that one, or give this one a \
             --state-dir and an http.listen of its own",
            shown = dir.display()
        )),
        Err(fs::TryLockError::Error(_)) => Ok(None),
    }
}

/// Starts the thread that writes the file whenever it has changed, until the process ends. It may
/// hang with its disk; nobody waits for it.
pub fn start(dir: &Path, slate: &Slate) {
    let mut writer = match Writer::new(dir, slate.clone()) {
        Ok(writer) => writer,
        Err(error) => {
            tracing::warn!(
                dir = %dir.display(), %error,
                "known flows are not kept: a restart has to learn them anew"
            );
            return;
        }
    };
    let spawned = std::thread::Builder::new()
        .name("memory".into())
        .stack_size(128 * 1024)
        .spawn(move || {
            let mut rest = WRITE_EVERY;
            loop {
                std::thread::park_timeout(rest);
                let begun = crate::tick::clock();
                writer.write();
                let took = Duration::from_nanos(crate::tick::clock().since(begun));
                rest = WRITE_EVERY.max(took * REST);
            }
        });
    if let Err(error) = spawned {
        tracing::warn!(%error, "known flows are not kept");
    }
}

/// Writes the file whenever it has changed.
pub struct Writer {
    slate: Slate,
    path: PathBuf,
    /// What is in the file, or is to be.
    records: Vec<Record>,
    is_written: bool,
    failed: bool,
}

impl Writer {
    /// Makes the directory.
    ///
    /// # Errors
    /// It cannot be made or written to.
    pub fn new(dir: &Path, slate: Slate) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        Ok(Self {
            slate,
            path: dir.join(FILE),
            records: Vec::new(),
            is_written: true,
            failed: false,
        })
    }

    /// Writes what has changed. An error is logged once and tried again next time.
    pub fn write(&mut self) {
        if self.slate.take(&mut self.records) {
            self.is_written = false;
        }
        if self.is_written {
            return;
        }
        match self.replace() {
            Ok(()) => {
                self.is_written = true;
                self.failed = false;
            }
            Err(error) if !self.failed => {
                self.failed = true;
                tracing::warn!(
                    file = %self.path.display(), %error,
                    "known flows not written: a restart would have to learn them anew"
                );
            }
            Err(_) => {}
        }
    }

    fn replace(&self) -> io::Result<()> {
        let beside = self.path.with_extension("json.new");
        let kept = Kept {
            boot_id: boot_id(),
            flows: &self.records,
        };
        // Piece by piece: in one it would be megabytes.
        let mut file = io::BufWriter::with_capacity(64 * 1024, fs::File::create(&beside)?);
        serde_json::to_writer(&mut file, &kept)?;
        file.into_inner().map_err(io::IntoInnerError::into_error)?;
        fs::rename(&beside, &self.path)
    }
}

fn boot_id() -> String {
    fs::read_to_string(BOOT_ID)
        .unwrap_or_default()
        .trim()
        .to_owned()
}
